# SPDX-License-Identifier: Apache-2.0
"""Answers of the daemon as tables for people. Scripts use ``--json``: these tables may change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

Result = Mapping[str, Any]

_ROLE_STYLES = {"active": "bold green", "passive": "cyan", "fault": "bold red", "maintenance": "yellow"}


_KEPT = "over restarts, until: flexhactl maintenance exit"


def console(*, stderr: bool = False) -> Console:
    """Full width when piped, so that nothing is cut."""
    out = Console(stderr=stderr, highlight=False)
    if not out.is_terminal:
        out = Console(stderr=stderr, highlight=False, width=240)
    return out


def _role(value: object) -> Text:
    text = str(value if value is not None else "-")
    return Text(text.upper(), style=_ROLE_STYLES.get(text.lower(), ""))


def _yes(value: object) -> Text:
    if value is None:
        return Text("-")
    return Text("yes", style="green") if value else Text("no", style="red")


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:,.1f}"
        case int():
            return f"{value:,}"
        case list() | tuple():
            return ", ".join(map(str, value)) or "-"
        case Mapping():
            return ", ".join(f"{key} {_shown(item)}" for key, item in value.items()) or "-"
        case _:
            return str(value)


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _facts(rows: Iterable[tuple[str, RenderableType]]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows:
        table.add_row(name, value)
    return table


def duration(seconds: object) -> str:
    """``93784`` to ``1d 2h 3m``: two or three units are enough."""
    if not isinstance(seconds, int | float):
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "m"), (secs, "s")]
    first = next(i for i, (n, _) in enumerate(parts) if n)
    return " ".join(f"{n}{unit}" for n, unit in parts[first : first + 3] if n)


def status(result: Result) -> RenderableType:
    """``flexhactl status``."""
    return Group(
        _node(result),
        _peer(result.get("peer") or {}),
        _vrrp(result.get("vrrp") or []),
        _ports(result.get("ports") or [], result.get("tracking") or {}),
        _sync(result.get("sync") or {}, reigns=str(result.get("role")).lower() == "active"),
    )


def _node(result: Result) -> RenderableType:
    flows = result.get("flows") or {}
    table = f"{_shown(flows.get('flows'))} flows, {_shown(flows.get('mappings'))} mappings"
    used = flows.get("flows") or 0
    capacity = flows.get("capacity") or 0
    return _facts(
        [
            ("node", Text(f"{result.get('pair')}/{result.get('node')}", style="bold")),
            ("role", _role(result.get("role"))),
            *([("stays so", Text(_KEPT))] if result.get("out_of_service") else []),
            ("term", _shown(result.get("term"))),
            ("for", duration(result.get("since_s"))),
            ("may take over", _yes(result.get("ready"))),
            *([("conduit", conduit)] if (conduit := _conduit(result.get("conduit") or {})) else []),
            *(
                (word, Text(", ".join(ports), style="bold yellow"))
                for word, ports in (result.get("lending") or {}).items()
                if ports
            ),
            ("sessions", f"{table} ({100 * used / capacity:.1f} % of {capacity:,})" if capacity else table),
            ("up", f"{duration(result.get('uptime_s'))}, version {result.get('version')}"),
            *([("lease", _lease(lease))] if (lease := result.get("lease") or {}).get("asked") else []),
            *([("hangs", Text(", ".join(lease["hung"]), style="bold red"))] if lease.get("hung") else []),
            *(
                ("alarm", Text(f"{alarm['text']} (for {duration(alarm['since_s'])})", style="bold red"))
                for alarm in result.get("alarms") or []
            ),
            *(("warning", Text(str(text), style="yellow")) for text in result.get("warnings") or []),
        ]
    )


def _lease(lease: Result) -> str:
    """A node that never was away for too long has nothing to tell."""
    asked = f"{lease['lease_ms']:g} ms, asked {lease['asked']:,} times, {lease['unanswered']:,} unanswered"
    return f"{asked}; longest stall {lease['longest_stall_ms']:.1f} ms"


def _conduit(conduit: Result) -> str:
    """What goes to and comes from the peer; nothing, if nothing ever did."""
    sent, lost, heard = (conduit.get(name) or 0 for name in ("tx_frames", "tx_lost", "rx_frames"))
    if not (conduit.get("on") or sent or lost or heard):
        return ""
    whither = f"to ACTIVE of term {conduit.get('term')}: " if conduit.get("on") else ""
    missed = lost + (conduit.get("rx_missed") or 0)
    text = f"{whither}{_shown(sent)} packets sent, {_shown(heard)} received"
    return f"{text}, {_shown(missed)} lost" if missed else text


def _peer(peer: Result) -> RenderableType:
    facts = _facts(
        [
            ("peer", _yes(peer.get("alive")) if "alive" in peer else Text("none")),
            ("peer's role", _role(peer.get("role"))),
            ("peer's term", _shown(peer.get("term"))),
            ("peer may take over", _yes(peer.get("ready"))),
        ]
    )
    table = _table("path", "heard", "ms ago", "sent", "received", "lost", "bad", "replayed")
    for name, path in (peer.get("paths") or {}).items():
        keys = ("last_heard_ms", "sent", "received", "lost", "bad", "replayed")
        numbers = (_shown(path.get(key)) for key in keys)
        table.add_row(name, _yes(path.get("alive")), *numbers)
    return Group("", facts, table)


def _vrrp(routers: list[Result]) -> RenderableType:
    table = _table(
        "port",
        "vrid",
        "state",
        "priority",
        "virtual addresses",
        "virtual MAC",
        "adverts every",
        "active router",
    )
    for router in routers:
        interval = router.get("adver_int_cs")
        table.add_row(
            str(router.get("port")),
            _shown(router.get("vrid")),
            _role(router.get("state")),
            _shown(router.get("priority")),
            _shown(router.get("vips")),
            _shown(router.get("vmac")),
            f"{interval * 10} ms" if isinstance(interval, int) else "-",
            _shown(router.get("active_router")),
        )
    return table


def _next_hop(hop: Result | None) -> Text:
    """Who is asked, and whether there is an answer."""
    if not hop:
        return Text("not asked", style="dim")
    if hop.get("state") == "silent":
        return Text(f"{hop.get('target')} silent", style="red")
    rtt = hop.get("rtt_ms")
    return Text(f"{hop.get('target')}" if rtt is None else f"{hop.get('target')} {rtt} ms")


_SCORES = (("usable", "score"), ("peer's", "peer_score"))


def _ports(ports: list[Result], tracking: Result) -> RenderableType:
    """Usable: up, and so for long enough to count; for both nodes, with what their ports are worth."""
    own, peers = (f"{who} ({_shown(tracking.get(key))})" for who, key in _SCORES)
    table = _table("port", "up", "next hop", own, peers, "address", "MAC", "wire device", "host device")
    for port in ports:
        tracked = (tracking.get("ports") or {}).get(port.get("name")) or {}
        table.add_row(
            str(port.get("name")),
            _yes(port.get("up")),
            _next_hop(port.get("next_hop")),
            _yes(tracked.get("usable")),
            "-" if tracked.get("peer_usable") is None else _yes(tracked.get("peer_usable")),
            *(_shown(port.get(key)) for key in ("address", "mac", "wire_dev", "host_dev")),
        )
    return table


def _numbers(sync: Result, *, reigns: bool) -> str:
    """Of batches. What the other side of it was numbered last is of an earlier reign, and would mislead."""
    if reigns:
        return f"sent {_shown(sync.get('sent_seq'))}, acknowledged {_shown(sync.get('acked_seq'))}"
    return f"received {_shown(sync.get('received_seq'))}"


def _sync(sync: Result, *, reigns: bool) -> RenderableType:
    """What matters first; ``--json`` has every number."""
    audit, commit = sync.get("audit") or {}, sync.get("commit") or {}
    bulk, sweep = sync.get("bulk") or {}, sync.get("sweep") or {}
    told, queued = sync.get("told") or {}, sync.get("queued") or {}
    rows: list[tuple[str, RenderableType]] = [
        ("sync", _connection(sync)),
        ("  stream", _shown(sync.get("stream"))),
        ("  numbers", _numbers(sync, reigns=reigns)),
        (
            "  waiting",
            (
                f"{_shown(sync.get('pending'))} batches ({_shown(sync.get('pending_bytes'))} bytes) for an "
                f"acknowledgement, {_shown(queued.get('now'))} records and {_shown(queued.get('lazy'))} that "
                "have time to be told"
            ),
        ),
        ("  tables", _agreement(audit)),
        ("  whole table", _sweeping(bulk, sweep, sync.get("lost_shards"))),
        (
            "  told",
            (
                f"{_shown(told.get('open'))} opened, {_shown(told.get('state'))} changed, "
                f"{_shown(told.get('rest'))} refreshed, {_shown(told.get('delete'))} ended"
            ),
        ),
        ("  commit", _commit(commit)),
        ("  lag", _times(sync.get("lag_ms") or {})),
        ("  held for", _times(sync.get("hold_ms") or {})),
        (
            "  traffic",
            f"{_shown(sync.get('bytes_sent'))} bytes sent, {_shown(sync.get('bytes_received'))} received",
        ),
    ]
    if tls := sync.get("tls"):
        rows.append(("  peer's key", f"SHA-256 {tls['peer']}, valid until {tls['ends']}"))
    for key, text in (
        ("import_unknown", "news of sessions that are not held here"),
        ("repaired_records", "records repaired"),
        ("scrub_errors", "shards whose digest was wrong"),
    ):
        if sync.get(key):
            rows.append(("  warning", Text(f"{_shown(sync[key])} {text}", style="yellow")))
    return _facts(rows)


def _connection(sync: Result) -> Text:
    if sync.get("connected"):
        return Text(str(sync.get("state")), style="green")
    return Text(f"no: {sync['refused']}" if sync.get("refused") else "no", style="yellow")


def _agreement(audit: Result) -> Text:
    if unrepaired := audit.get("unrepaired"):
        return Text(f"differ in shards {_shown(unrepaired)}, and repairs do not help", style="bold red")
    if differing := audit.get("differing"):
        return Text(f"differ in shards {_shown(differing)}, a repair is under way", style="yellow")
    if not audit.get("in_sync"):
        return Text("have not been found equal yet", style="yellow")
    repaired = f"; {_shown(audit['repaired'])} shards repaired so far" if audit.get("repaired") else ""
    return Text(f"equal {duration(audit.get('age_s'))} ago{repaired}", style="green")


def _sweeping(bulk: Result, sweep: Result, lost: object) -> Text:
    percent = f", {sweep['percent']:.0f} %" if sweep.get("total") else ""
    if bulk.get("in_progress"):
        return Text(f"under way{percent}", style="yellow")
    if sweep.get("shards") or lost:
        shards = f"{_shown(sweep.get('shards'))} shards again{percent}, {_shown(lost)} lost"
        return Text(shards, style="yellow")
    return Text(f"sent {_shown(bulk.get('sent'))} times")


def _commit(commit: Result) -> Text:
    text = f"{commit.get('mode')}, " + ("on" if commit.get("on") else "off: no peer is in sync")
    if commit.get("held_sessions"):
        text += (
            f"; {_shown(commit['held_sessions'])} sessions hold {_shown(commit.get('held_frames'))} packets"
        )
    for key, what in (
        ("expired", "left late"),
        ("full", "found no room"),
        ("dropped", "dropped"),
    ):
        if commit.get(key):
            text += f"; {_shown(commit[key])} packets {what}"
    if commit.get("unheld"):
        text += f"; {_shown(commit['unheld'])} sessions not held"
    return Text(text + "; the peer is slow", style="yellow") if commit.get("degraded") else Text(text)


def _times(times: Result) -> str:
    if not times.get("count"):
        return "-"
    shares = (("half", "p50"), ("99 %", "p99"))
    within = ", ".join(
        f"{share} within {times[key]:g} ms" if times.get(key) is not None else f"{share} longer than 2 s"
        for share, key in shares
    )
    return f"{within} ({_shown(times['count'])})"


def readiness(result: Result) -> RenderableType:
    """``flexhactl ha readiness``."""
    sessions = result.get("sessions") or {}
    lossless = bool(result.get("lossless"))
    agreed = result.get("agreed_s")
    most = "" if sessions.get("exact") or result.get("role") != "ACTIVE" else "at least "
    rows: list[tuple[str, RenderableType]] = [
        (
            "a failover now",
            Text("loses nothing", style="bold green")
            if lossless
            else Text("loses sessions", style="bold red"),
        ),
        ("node", f"{result.get('pair')}/{result.get('node')}, {result.get('role')}"),
        ("tables equal", f"{duration(agreed)} ago" if agreed is not None else "never found so"),
        (
            "sessions",
            (
                f"{_shown(sessions.get('total'))}: {_shown(sessions.get('live'))} live on, "
                f"{most}{_shown(sessions.get('die'))} would die, {_shown(sessions.get('waiting'))} wait with "
                "their packets"
            ),
        ),
    ]
    rows += [("because", Text(reason["text"], style="red")) for reason in result.get("reasons") or []]
    rows += [
        ("because", Text(f"{_shown(why['sessions'])} sessions: {why['text']}", style="red"))
        for why in sessions.get("why") or []
    ]
    rows += [("note", Text(note["text"], style="yellow")) for note in result.get("warnings") or []]
    parts: list[RenderableType] = [_facts(rows)]
    if "listed" in result:
        table = _table("why", "of", "proto", "state", "inside", "remote", "external", "rule")
        for session in result["listed"]:
            table.add_row(
                str(session["why"]),
                _shown(session.get("why_name")),
                *(_shown(session[key]) for key in ("proto", "state", "inside", "remote", "external")),
                _shown(session.get("rule_name")),
            )
        parts.append(table)
        if result.get("truncated"):
            parts.append(Text("more would die; see them with --limit", style="dim"))
    return Group(*parts)


def sessions(result: Result) -> RenderableType:
    """``flexhactl sessions``."""
    table = _table(
        "proto",
        "state",
        "inside",
        "",
        "remote",
        "external",
        "form",
        "rule",
        "left",
        "packets out/in",
        "bytes out/in",
        "from",
        "fate",
    )
    for session in result.get("sessions") or []:
        packets, size = session["packets"], session["bytes"]
        table.add_row(
            str(session["proto"]),
            str(session["state"]),
            _shown(session["inside"]),
            "<-" if session["inbound"] else "->",
            _shown(session["remote"]),
            "-" if session["form"] == "none" else _shown(session["external"]),
            f"{session['form']}, hairpin" if session["hairpin"] else str(session["form"]),
            str(session["rule"] or "-"),
            duration(session["remaining_ms"] / 1000),
            f"{packets[0]:,}/{packets[1]:,}",
            f"{size[0]:,}/{size[1]:,}",
            "peer" if session["imported"] else "here",
            f"{session['fate']}, waits" if session["held"] else str(session["fate"]),
        )
    shown, count = len(result.get("sessions") or []), result.get("count", 0)
    foot = (
        f"{shown:,} of {count:,} shown; see more with --limit"
        if result.get("truncated")
        else f"{count:,} sessions"
    )
    return Group(table, Text(foot, style="dim"))


def _without_histograms(stats: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in stats.items() if not isinstance(value, list)}


def counters(result: Result, *, everything: bool) -> RenderableType:
    """``flexhactl counters``; zeros are left out unless ``everything``."""
    verdicts = _table("verdict", "packets", "", "meaning", title="Packets")
    for name, row in (result.get("verdicts") or {}).items():
        if row["value"] or everything:
            verdicts.add_row(name, _shown(row["value"]), "drop" if row["drop"] else "", str(row["help"]))
    parts: list[RenderableType] = [verdicts]
    for title, groups in (
        ("Ports", result.get("ports") or {}),
        ("Workers", {f"worker {i}": stats for i, stats in enumerate(result.get("workers") or [])}),
        (
            "Sync",
            {f"worker {i}": _without_histograms(stats) for i, stats in enumerate(result.get("sync") or [])},
        ),
    ):
        table = _table("of", "counter", "value", title=title)
        for group, values in groups.items():
            for name, value in values.items():
                if value or everything:
                    table.add_row(group, name, _shown(value))
        parts.append(table)
    control = _table("counter", "value", title="Control plane")
    for name, value in (result.get("control") or {}).items():
        control.add_row(name, _shown(value))
    return Group(*parts, control)


def reload(result: Result) -> str:
    """``flexhactl reload``."""
    closed = (
        f"{_shown(result.get('closed'))} sessions closed"
        if result.get("reviewed")
        else "sessions are looked at when this node becomes ACTIVE"
    )
    return (
        f"{_shown(result.get('rules'))} rules, {_shown(result.get('forwards'))} forwards, default "
        f"{result.get('default')} in force; {closed}"
    )


def rules(result: Result) -> RenderableType:
    """``flexhactl rules``."""
    columns = ("from", "to", "src", "dst", "proto", "ports", "nat")
    table = _table("", "rule", "action", "hits", *columns, "sync", "log")
    for rule in result.get("rules") or []:
        shown = (_shown(rule.get(key)) for key in columns)
        table.add_row(
            str(rule["number"]),
            str(rule["name"]),
            str(rule["action"]),
            _shown(rule["hits"]),
            *shown,
            ", ".join(str(rule[key]) for key in ("commit", "sync") if key in rule),
            "yes" if rule.get("log") else "",
        )
    default = result.get("default") or {}
    table.add_row("", "default", _shown(default.get("action")), _shown(default.get("hits")))
    forwards = _table("forward", "pool", "proto", "ports", "to")
    for forward in result.get("forwards") or []:
        forwards.add_row(
            str(forward["name"]),
            str(forward["pool"]),
            _shown(forward["proto"]),
            _shown(forward["ports"]),
            f"{forward['to']}:{forward['to_port']}",
        )
    return Group(table, forwards) if result.get("forwards") else table


def pools(result: Result) -> RenderableType:
    """``flexhactl pools``."""
    table = _table(
        "pool", "port", "address", "ports", "tcp in use", "udp", "icmp", "filtering", "survives a failover"
    )
    for pool in result.get("pools") or []:
        table.add_row(
            str(pool["name"]),
            str(pool["port"]),
            str(pool["address"]),
            f"{pool['port_lo']}-{pool['port_hi']}",
            *(_shown(pool["in_use"][proto]) for proto in ("tcp", "udp", "icmp")),
            str(pool["filtering"]),
            _yes(pool["survives"]),
        )
    return table


def workers(result: Result) -> RenderableType:
    """``flexhactl workers``. A burst is what one pass took at a time, of 64 at most."""
    columns = (
        "worker",
        "CPU",
        "busy",
        "frames",
        "burst",
        "woken",
        "polls",
        "handed on",
        "taken over",
        "conduit",
    )
    table = _table(*columns, "sessions", "created", "expired", "untold")
    for worker in result.get("workers") or []:
        frames, steps = worker["frames"], worker["steps"]
        table.add_row(
            _shown(worker["worker"]),
            "any" if worker["cpu"] is None else str(worker["cpu"]),
            f"{worker['busy']:.1%}",
            _shown(frames),
            _shown(frames / steps if steps else 0.0),
            *(_shown(worker[name]) for name in ("wakeups", "polls", "handed_on", "taken_over")),
            _shown(sum((worker.get("conduit") or {}).get(name, 0) for name in ("tx_frames", "rx_frames"))),
            *(_shown(worker[name]) for name in ("flows", "flows_created", "flows_expired", "dirty")),
        )
    foot = f"each polls for {_shown(result.get('poll_us'))} us after a frame; busy: since the start"
    return Group(table, Text(foot, style="dim"))


def history(result: Result) -> RenderableType:
    """``flexhactl ha history``."""
    table = _table("time (UTC)", "boot ms", "node", "event", "why")
    for record in result.get("events") or []:
        stamp = datetime.fromtimestamp(record["wall"], UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        why = ", ".join(
            f"{key}={_shown(value) if not isinstance(value, int) else value}"
            for key, value in record.items()
            if key not in {"t_ms", "wall", "node", "event"}
        )
        table.add_row(stamp, f"{record['t_ms']:.1f}", str(record["node"]), str(record["event"]), why)
    return table


def pair_show(result: Result) -> RenderableType:
    """``flexhactl pair show``"""
    connection = result.get("connection") or {}
    table = _table("certificate", "SHA-256", "valid until", "days left", "in use now")
    rows = [("own", result.get("own")), ("next own", result.get("next"))]
    rows += [("peer", certificate) for certificate in result.get("peers", [])]
    for whose, certificate in rows:
        if certificate:
            used = certificate["sha256"] in (connection.get("own"), connection.get("peer"))
            table.add_row(
                whose,
                certificate["sha256"],
                certificate["ends"],
                _shown(certificate["days_left"]),
                _yes(used),
            )
    lines = [
        f"keys in {result.get('directory')}",
        f"connection: {connection.get('cipher', 'none with TLS')}",
        f"heartbeat keys (the first signs): {_shown(result.get('heartbeat_keys'))}",
    ]
    return Group(*map(Text, lines), table)
