# SPDX-License-Identifier: Apache-2.0
"""The Prometheus endpoint, ``GET /metrics``, if ``nodes.X.metrics`` asks for one.

Values are read on the loop (the fast path is called from one thread only); the text is rendered in a thread,
so that a scrape of many lines does not delay a heartbeat.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate, pairwise
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from flexha.core.alarms import TEXTS
from flexha.core.events import Hop, Role
from flexha.errors import StartError
from flexha.fastpath import Commit, FastpathError
from flexha.shell.inspector import Inspector
from flexha.shell.policy_io import BUILT_IN
from flexha.shell.sync_report import bounds_us

REQUEST_TIMEOUT_S = 5.0
REQUEST_BYTES_MAX = 8192
CONNECTIONS_MAX = 8

_WORKER_HELP = {
    "cpu_ns": "CPU time of the thread, ns",
    "polls": "passes that found nothing, while it polled after traffic",
    "wakeups": "returns from sleep",
    "handed_on": "frames given to the worker that owns their session",
    "taken_over": "frames taken from other workers",
    "lookups": "packets whose session was looked for",
}
_CONDUIT_HELP = {
    "tx_frames": "given to the peer",
    "tx_bytes": "bytes given to the peer, Geneve headers included",
    "tx_calls": "system calls for that",
    "tx_lost": "refused by the cross-connect",
    "rx_frames": "from the peer",
    "rx_bytes": "bytes from the peer, Geneve headers included",
    "rx_calls": "system calls for that",
    "rx_missed": "datagrams from the peer that found the socket full",
}
_SYNC_GAUGES = {
    "queued": "Records that wait to be told",
    "queued_lazy": "Records whose change waits to be told with later ones",
    "sweep_done": "Slots of the table that the sweep under way has walked",
    "sweep_total": "Slots of the table that it has to walk",
    "held_frames": "Packets that wait for the peer's word",
    "held_bytes": "Bytes of packets that wait for the peer's word",
    "held_sessions": "Sessions whose packets wait for the peer's word",
    "unacked_sessions": "New sessions that the peer has not acknowledged",
    "degraded": "1 while the peer is too slow for new sessions to wait for it",
}
_SYNC_COUNTERS = {
    "repaired": "Records that a repair found to differ",
    "import_unknown": "News of sessions that are not held here",
    "scrub_errors": "Shards whose digest was not that of their records",
    "hold_released": "Held packets that left with the peer's word, or for want of a peer",
    "hold_expired": "Held packets that left without it after hold_ms",
    "hold_full": "Packets that found no room to be held: dropped",
    "hold_dropped": "Held packets that were dropped",
    "hold_unheld": "New sessions of commit bounded that were not held",
    "degraded_times": "Times that the peer became too slow",
}
_TOLD = ("open", "state", "rest", "delete")
_WORKER_GAUGES = frozenset({"flows", "mappings", "tombstones", "dirty", "neigh_waiting", "frags_held"})


def families(inspector: Inspector) -> list[Metric]:
    """All metrics of this moment."""
    status = inspector.status_result()
    return [
        *_role(status),
        _alarms(status["alarms"]),
        *_routing(status["routing"]),
        *_lease(status["lease"]),
        *_fastpath(inspector),
        *_policy(inspector),
        *_sync(inspector, status),
        *_paths(status),
        *_tracking(status["tracking"]),
        _lending(status),
        *_next_hops(inspector),
        *_damping(status["damping"]),
        _control(inspector.counters.values()),
    ]


def _gauge(name: str, text: str, value: object) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=float(value) if isinstance(value, int | float) else 0.0)


def _role(status: Mapping[str, object]) -> Iterable[Metric]:
    role = GaugeMetricFamily("flexha_role", "1 for the role that this node has", labels=["role"])
    for known in Role:
        role.add_metric([known.name.lower()], float(str(status.get("role")).upper() == known.name))
    yield role
    yield _gauge("flexha_term", "Current term", status.get("term"))
    yield _gauge("flexha_ready", "1 if this node may take over", status.get("ready"))
    yield _gauge("flexha_uptime_seconds", "Time since the daemon started", status.get("uptime_s"))


def _routing(shown: Any) -> Iterator[Metric]:
    """Only where there is ``[bgp]``."""
    if shown is not None:
        text = "1 while the routing daemon has been told the role that this node has, 0: an alarm"
        yield GaugeMetricFamily("flexha_routing_told", text, int(shown["told"] == shown["wanted"]))


def _alarms(shown: Any) -> Metric:
    alarm = GaugeMetricFamily("flexha_alarm", "1 for what somebody has to mend", labels=["name"])
    names = {entry["name"] for entry in shown}
    for known in TEXTS:
        alarm.add_metric([known], float(known in names))
    return alarm


def _lending(status: Any) -> Metric:
    ports = status["tracking"]["ports"]
    loans = GaugeMetricFamily(
        "flexha_port_loan",
        "1 while the peer stands in for this node on a port (lent), or this node for the peer (borrowed)",
        labels=["port", "loan"],
    )
    for loan, now in status["lending"].items():
        for port in ports:
            loans.add_metric([port, loan], float(port in now))
    return loans


def _lease(lease: Any) -> Iterable[Metric]:
    yield _gauge("flexha_lease_seconds", "For how long a role may be believed", lease["lease_ms"] / 1000)
    yield _gauge(
        "flexha_lease_longest_stall_seconds",
        "The longest time that the pulse thread was away",
        lease["longest_stall_ms"] / 1000,
    )
    for name, text in (
        ("asked", "Times that it was away for longer than the lease, and asked the peer"),
        ("unanswered", "Times that nobody answered"),
    ):
        yield CounterMetricFamily(f"flexha_lease_{name}", text, value=float(lease[name]))
    hung = GaugeMetricFamily("flexha_hung", "1 for a part of this node that gets nowhere", labels=["part"])
    for part in ("control", "worker"):
        hung.add_metric([part], float(part in lease["hung"]))
    yield hung


def _fastpath(inspector: Inspector) -> Iterable[Metric]:
    packets = CounterMetricFamily("flexha_packets", "Packets by verdict", labels=["verdict", "drop"])
    for verdict, value in inspector.verdicts():
        packets.add_metric([verdict.name, str(verdict.drop).lower()], value)
    yield packets
    for worker, stats in enumerate(inspector.worker_stats()):
        for name, value in asdict(stats).items():
            family = GaugeMetricFamily if name in _WORKER_GAUGES else CounterMetricFamily
            text = f"Fast path worker: {_WORKER_HELP.get(name, name)}"
            metric = family(f"flexha_worker_{name}", text, labels=["worker"])
            metric.add_metric([str(worker)], value)
            yield metric
    for worker, conduit in enumerate(inspector.conduit_stats()):
        for name, value in asdict(conduit).items():
            text = f"Packets between the nodes: {_CONDUIT_HELP[name]}"
            metric = CounterMetricFamily(f"flexha_conduit_{name}", text, labels=["worker"])
            metric.add_metric([str(worker)], value)
            yield metric
    for index, plug in enumerate(inspector.plan.plugs):
        for name, value in asdict(inspector.fastpath.port_stats(index)).items():
            metric = CounterMetricFamily(f"flexha_port_{name}", f"Port: {name}", labels=["port"])
            metric.add_metric([plug.port], value)
            yield metric


def _sync(inspector: Inspector, status: Mapping[str, Any]) -> Iterable[Metric]:
    yield from _sync_session(status["sync"])
    told = CounterMetricFamily(
        "flexha_sync_told", "Records told to the peer, by what is told", labels=["worker", "op"]
    )
    for worker, stats in enumerate(inspector.sync_stats()):
        label = [str(worker)]
        for name, text in _SYNC_GAUGES.items():
            gauge = GaugeMetricFamily(f"flexha_sync_{name}", text, labels=["worker"])
            gauge.add_metric(label, getattr(stats, name))
            yield gauge
        for name, text in _SYNC_COUNTERS.items():
            counter = CounterMetricFamily(f"flexha_sync_{name}", text, labels=["worker"])
            counter.add_metric(label, getattr(stats, name))
            yield counter
        for op in _TOLD:
            told.add_metric([*label, op], getattr(stats, f"told_{op}"))
        yield _histogram("lag", "From a session's first packet to the peer's word for it", label, stats.lag)
        yield _histogram("hold", "How long held packets waited", label, stats.hold)
    yield told


def _sync_session(sync: Mapping[str, Any]) -> Iterable[Metric]:
    """What the session with the peer says of itself: none of it is a worker's."""
    audit, commit, bulk = sync["audit"], sync["commit"], sync["bulk"]
    for name, text, value in (
        ("connected", "1 while there is a sync connection", sync["connected"]),
        ("sent_seq", "Last number sent in this stream", sync["sent_seq"]),
        ("acked_seq", "Last number that the peer has live", sync["acked_seq"]),
        ("received_seq", "Last number of the peer's stream that is live here", sync["received_seq"]),
        ("pending_batches", "Numbers sent and not acknowledged", sync["pending"]),
        ("pending_bytes", "Bytes sent and not acknowledged", sync["pending_bytes"]),
        ("unsent_bytes", "Bytes that wait in the connection", sync["unsent_bytes"]),
        ("lost_shards", "Shards whose changes were lost and wait for a sweep", sync["lost_shards"]),
        ("bulk_in_progress", "1 while the whole table is being told", bulk["in_progress"]),
        ("sweeping_shards", "Shards being told once more, or about to be", sync["sweep"]["shards"]),
        ("committing", "1 while packets of new sessions may wait for the peer's word", commit["on"]),
        ("in_sync", "1 once the digests of both tables have agreed on this connection", audit["in_sync"]),
        ("differing_shards", "Shards whose digests differ", len(audit["differing"])),
        ("unrepaired_shards", "Shards that repairs do not help: an alarm", len(audit["unrepaired"])),
    ):
        yield _gauge(f"flexha_sync_{name}", text, value)
    if audit["age_s"] is not None:
        yield _gauge("flexha_sync_agreed_age_seconds", "Since the digests last agreed", audit["age_s"])
    if tls := sync["tls"]:
        yield _gauge(
            "flexha_sync_tls_peer_expiry_timestamp_seconds",
            "Until when the peer's certificate is valid, seconds since 1970",
            tls["ends_s"],
        )
        peer = GaugeMetricFamily("flexha_sync_tls_peer", "1 for the peer's certificate", labels=["sha256"])
        peer.add_metric([tls["peer"]], 1.0)
        yield peer
    mode = GaugeMetricFamily("flexha_sync_commit_mode", "1 for the default mode of commit", labels=["mode"])
    for known in Commit:
        mode.add_metric([known.name.lower()], float(known.name.lower() == commit["mode"]))
    yield mode
    for name, text, value in (
        ("bulks", "Whole tables sent", bulk["sent"]),
        ("repaired_shards", "Shards that a repair made equal", audit["repaired"]),
        ("sent_bytes", "Bytes sent to the peer", sync["bytes_sent"]),
        ("received_bytes", "Bytes received from the peer", sync["bytes_received"]),
        ("sent_records", "Records sent to the peer", sync["records_sent"]),
        ("received_records", "Records received from the peer", sync["records_received"]),
    ):
        yield CounterMetricFamily(f"flexha_sync_{name}", text, value=value)


def _histogram(name: str, text: str, label: list[str], counts: Sequence[int]) -> Metric:
    """The workers keep no sum of the times; it is made of the buckets' middles, 9 % off at most."""
    bounds_s = [bound / 1e6 for bound in bounds_us()]
    seen = list(accumulate(counts))
    buckets = [(repr(bound), float(n)) for bound, n in zip(bounds_s, seen, strict=False)]
    middles = [(low + high) / 2 for low, high in pairwise([0.0, *bounds_s])] + [bounds_s[-1]]
    total_s = sum(middle * n for middle, n in zip(middles, counts, strict=True))
    metric = HistogramMetricFamily(
        f"flexha_sync_{name}_seconds", f"{text}; the sum is estimated", labels=["worker"]
    )
    metric.add_metric(label, [*buckets, ("+Inf", float(seen[-1]))], total_s)
    return metric


def _policy(inspector: Inspector) -> Iterable[Metric]:
    rules = inspector.policy.rules_result()
    hits = CounterMetricFamily("flexha_rule_hits", "Decisions by rule", labels=["rule", "action"])
    for rule in (*rules["rules"], {"name": BUILT_IN, **rules["default"]}):
        hits.add_metric([rule["name"], rule["action"]], rule["hits"])
    yield hits
    use = GaugeMetricFamily("flexha_pool_ports_in_use", "External ports held", labels=["pool", "proto"])
    size = GaugeMetricFamily("flexha_pool_ports", "External ports of each protocol", labels=["pool"])
    for pool in _pools(inspector):
        for proto, ports in pool["in_use"].items():
            use.add_metric([pool["name"], proto], ports)
        size.add_metric([pool["name"]], pool["port_hi"] - pool["port_lo"] + 1)
    yield use
    yield size


def _pools(inspector: Inspector) -> list[dict[str, Any]]:
    try:
        return inspector.policy.pools_result()
    except FastpathError as error:
        if error.errno != errno.ETIMEDOUT:
            raise
        return []  # a worker hangs (flexha_hung), and cannot be asked


def _paths(status: Mapping[str, object]) -> Iterable[Metric]:
    alive = GaugeMetricFamily(
        "flexha_peer_path_alive", "1 while the peer is heard on the path", labels=["path"]
    )
    heartbeats = CounterMetricFamily(
        "flexha_peer_path_heartbeats",
        "Heartbeats on the path, by what became of them; replayed: authentic, but not new",
        labels=["path", "fate"],
    )
    peer = status.get("peer")
    paths = peer.get("paths") if isinstance(peer, Mapping) else None
    for name, path in (paths if isinstance(paths, Mapping) else {}).items():
        alive.add_metric([str(name)], float(bool(path["alive"])))
        for fate in ("sent", "received", "lost", "bad", "replayed"):
            heartbeats.add_metric([str(name), fate], float(path[fate]))
    yield alive
    yield heartbeats


def _tracking(tracking: Any) -> Iterable[Metric]:
    yield _gauge("flexha_score", "Weights of the usable ports together", tracking["score"])
    usable = GaugeMetricFamily("flexha_port_usable", "1 while the port counts as usable", labels=["port"])
    for name, port in tracking["ports"].items():
        usable.add_metric([name], float(port["usable"]))
    yield usable


def _damping(damping: Any) -> Iterable[Metric]:
    yield _gauge(
        "flexha_role_moves_suspended",
        "1 while moves for tracking and by preempt are suspended: an alarm",
        int(damping["suspended_s"] is not None),
    )


def _next_hops(inspector: Inspector) -> Iterable[Metric]:
    up = GaugeMetricFamily("flexha_next_hop_up", "1 while the port's next hop answers", labels=["port"])
    rtt = GaugeMetricFamily(
        "flexha_next_hop_rtt_seconds", "Of the last probe answered in time", labels=["port"]
    )
    probes = CounterMetricFamily(
        "flexha_next_hop_probes",
        "Probes of the port's next hop, by what became of them",
        labels=["port", "fate"],
    )
    for probe in inspector.probes:
        port = probe.plan.port
        up.add_metric([port], float(probe.hop is not Hop.SILENT))
        if probe.rtt_ms is not None:
            rtt.add_metric([port], probe.rtt_ms / 1000)
        probes.add_metric([port, "sent"], probe.sent)
        probes.add_metric([port, "answered"], probe.answered)
    yield from (up, rtt, probes)


def _control(values: Mapping[str, int]) -> Metric:
    control = CounterMetricFamily("flexha_control_events", "Counters of the control plane", labels=["name"])
    for name, value in values.items():
        control.add_metric([name], value)
    return control


class _Snapshot:
    """A collector that yields what was read before."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = merged(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def merged(metrics: Iterable[Metric]) -> list[Metric]:
    """One family per name: Prometheus wants the samples of a name together."""
    by_name: dict[str, Metric] = {}
    for metric in metrics:
        if seen := by_name.get(metric.name):
            seen.samples.extend(metric.samples)
        else:
            by_name[metric.name] = metric
    return list(by_name.values())


def render(metrics: list[Metric]) -> bytes:
    """The text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Snapshot(metrics))
    return generate_latest(registry)


class MetricsServer:
    """A small HTTP/1.1 server with one page."""

    def __init__(self, address: tuple[str, int], read: Callable[[], list[Metric]]) -> None:
        self._address = address
        self._read = read
        self._server: asyncio.Server | None = None
        self._connections = 0

    async def start(self) -> None:
        """Listen."""
        host, port = self._address
        try:
            self._server = await asyncio.start_server(self._serve, host, port, limit=REQUEST_BYTES_MAX)
        except OSError as error:
            raise StartError(
                f"metrics: TCP {host}:{port}: {error.strerror}; free it, or set nodes.X.metrics"
            ) from error

    def stop(self) -> None:
        """Listen no more."""
        if self._server:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections > CONNECTIONS_MAX:
                return
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # a client that does not speak HTTP, or not now
        finally:
            self._connections -= 1
            writer.close()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.split(b"\r\n", 1)[0].partition(b" ")
        if method != b"GET":
            return _response("405 Method Not Allowed", b"GET only\n")
        if rest.split(b" ")[0].split(b"?")[0] != b"/metrics":
            return _response("404 Not Found", b"see /metrics\n")
        text = await asyncio.get_running_loop().run_in_executor(None, render, self._read())
        return _response("200 OK", text, CONTENT_TYPE_LATEST)


def _response(status: str, body: bytes, kind: str = "text/plain; charset=utf-8") -> bytes:
    head = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
    )
    return "\r\n".join((*head, "", "")).encode() + body
