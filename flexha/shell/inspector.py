# SPDX-License-Identifier: Apache-2.0
"""What the daemon shows of itself: the results of ``status``, ``sessions``, ``counters`` and ``ha_history``.

Their keys are an interface: scripts read them (``flexhactl --json``). Rendering is cut into pieces that leave
the loop free for heartbeats in between; a walk of the tables never blocks it for more than about a
millisecond.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeVar

from flexha.config.derive import NodePlan
from flexha.config.keyfiles import fingerprint, validity
from flexha.fastpath import (
    ConduitStats,
    EndpointWant,
    Fastpath,
    FlowFlag,
    FlowRecord,
    FlowState,
    FlowWant,
    Form,
    SyncStats,
    Verdict,
    WorkerStats,
    verdict_table,
)
from flexha.shell import clock, sync_report
from flexha.shell.control import Args, RequestError, only
from flexha.shell.counters import Counters
from flexha.shell.driver import Driver
from flexha.shell.heartbeat_io import HeartbeatIo, hangs
from flexha.shell.history import RECORDS_MAX, History
from flexha.shell.hop_probe import HopProbe
from flexha.shell.netlink import Mirror
from flexha.shell.policy_io import PolicyIo
from flexha.shell.port_watch import PortWatch
from flexha.shell.routing import Routing
from flexha.shell.sync_io import SyncIo
from flexha.shell.tls import TlsConnection
from flexha.units import NS_PER_MS, NS_PER_S, Ns
from flexha.version import flexha_version

T = TypeVar("T")

PAGE = 128
"""Records walked between two turns of the loop."""
LIMIT_DEFAULT, LIMIT_MAX = 100, 100_000

_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmpv6": 58}
_PROTOCOL_NAMES = {number: name for name, number in _PROTOCOLS.items()}


@dataclass(slots=True)
class Inspector:
    """Reads every part of the daemon, changes none."""

    plan: NodePlan
    started: Ns
    fastpath: Fastpath
    driver: Driver
    heartbeat: HeartbeatIo
    sync: SyncIo | None
    mirror: Mirror
    watches: list[PortWatch]
    probes: list[HopProbe]
    history: History
    counters: Counters
    policy: PolicyIo
    routing: Routing | None = None

    # ---- status ----
    async def status(self, args: Args) -> str:
        """Role and health."""
        only(args)
        return json.dumps(self.status_result())

    def status_result(self) -> dict[str, object]:
        """``status`` as plain data."""
        now = clock.now()
        core = dict(self.driver.status())
        peer, sync, conduit = (_mapping(core.pop(part, None)) for part in ("peer", "sync", "conduit"))
        totals = sync_report.Totals.of(self.sync_stats())
        known = _mapping(peer.get("paths"))
        hops = {probe.plan.port: probe.status() for probe in self.probes}
        paths = {
            name: {**_mapping(known.get(name)), **path}
            for name, path in self.heartbeat.path_status(now).items()
        }
        return {
            "pair": self.plan.pair,
            "node": self.plan.name,
            **core,
            "peer": {**peer, "paths": paths, "life_line": self.heartbeat.line_status()},
            "sync": {**sync_report.report(sync, totals, self.policy.commit_of(0)), **self._sync_io()},
            "conduit": {**conduit, **self.conduit_totals()},
            "lease": self._lease(),
            "flows": self.flow_gauges(),
            "fib": self.mirror.sizes,
            "routing": self.routing.status() if self.routing else None,
            "warnings": [
                *_suspension(_mapping(core["damping"])),
                *(_routing_warning(self.routing) if self.routing else ()),
                *(
                    f"pool {pool.name}: its sessions do not survive a failover, {pool.address} is this "
                    "node's own"
                    for pool in self.plan.pools
                    if not pool.survives
                ),
            ],
            "ports": [
                {
                    "name": plug.port,
                    "up": watch.up,
                    "next_hop": hops.get(plug.port),
                    "mac": plug.mac.hex(":"),
                    "address": str(plug.interface),
                    "driver": plug.driver,
                    "wire_dev": plug.wire_dev,
                    "host_dev": plug.host_dev,
                }
                for plug, watch in zip(self.plan.plugs, self.watches, strict=True)
            ],
            "version": flexha_version(),
            "uptime_s": round((now - self.started) / NS_PER_S, 3),
        }

    def _lease(self) -> dict[str, object]:
        """How long a role may be believed, how often it had to be asked for, what of us gets nowhere."""
        stats = self.fastpath.lease_stats()
        return {
            "lease_ms": stats.lease_ns / NS_PER_MS,
            "asking": stats.asking,
            "asked": stats.asked,
            "unanswered": stats.unanswered,
            "longest_stall_ms": round(stats.longest_ns / NS_PER_MS, 3),
            "hung": sorted(hangs(stats.hung)),
        }

    def _sync_io(self) -> dict[str, object]:
        sync = self.sync
        if sync is None:
            nothing = dict.fromkeys(("bytes_sent", "bytes_received", "unsent_bytes"), 0)
            return {"connected": False, **nothing, "refused": None, "tls": None}
        return {
            "connected": sync.connected,
            "bytes_sent": sync.bytes_sent,
            "bytes_received": sync.bytes_received,
            "unsent_bytes": sync.unsent_bytes,
            "refused": str(sync.refusal) if sync.refusal and not sync.connected else None,
            "tls": _tls(sync.tls),
        }

    def role(self) -> str:
        """As in ``status``."""
        return str(self.driver.status().get("role"))

    def peer_alive(self) -> bool:
        """Is the peer heard on some path?"""
        return bool(_mapping(self.driver.status().get("peer")).get("alive"))

    def lost_shards(self) -> int:
        """Shards (a bit each) of which changes were lost; a sweep of them is due."""
        return sync_report.Totals.of(self.sync_stats()).lost_shards

    def sync_stats(self) -> list[SyncStats]:
        """Of each worker."""
        return [self.fastpath.sync_stats(worker) for worker in range(self.fastpath.config.n_workers)]

    def worker_stats(self) -> list[WorkerStats]:
        """Of each worker."""
        return [self.fastpath.worker_stats(worker) for worker in range(self.fastpath.config.n_workers)]

    def conduit_stats(self) -> list[ConduitStats]:
        """Of each worker."""
        return [self.fastpath.conduit_stats(worker) for worker in range(self.fastpath.config.n_workers)]

    def conduit_totals(self) -> dict[str, int]:
        """Packets to and from the peer, over all workers."""
        rows = [dataclasses.asdict(stats) for stats in self.conduit_stats()]
        return {name: sum(row[name] for row in rows) for name in rows[0]}

    def flow_gauges(self) -> dict[str, int]:
        """Sizes of the tables, over all workers."""
        workers = self.worker_stats()
        return {
            "flows": sum(worker.flows for worker in workers),
            "mappings": sum(worker.mappings for worker in workers),
            "tombstones": sum(worker.tombstones for worker in workers),
            "capacity": self.fastpath.config.flow_cap,
        }

    # ---- workers ----
    async def show_workers(self, args: Args) -> str:
        """Each worker: where it runs, and its counters."""
        only(args)
        config, uptime_ns = self.fastpath.config, max(clock.now() - self.started, 1)
        return json.dumps(
            {
                "poll_us": config.poll_us,
                "workers": [
                    {
                        "worker": index,
                        "cpu": config.cpus[index] if config.cpus else None,
                        "busy": round(stats.cpu_ns / uptime_ns, 4),
                        **dataclasses.asdict(stats),
                        "conduit": dataclasses.asdict(conduit),
                    }
                    for index, (stats, conduit) in enumerate(
                        zip(self.worker_stats(), self.conduit_stats(), strict=True)
                    )
                ],
            }
        )

    # ---- counters ----
    async def show_counters(self, args: Args) -> str:
        """Every counter by its one name."""
        only(args)
        return json.dumps(self.counters_result())

    def counters_result(self) -> dict[str, object]:
        """``counters`` as plain data."""
        ports = range(len(self.plan.plugs))
        return {
            "verdicts": {
                verdict.name: {"value": value, "help": verdict.help, "drop": verdict.drop}
                for verdict, value in self.verdicts()
            },
            "workers": [dataclasses.asdict(stats) for stats in self.worker_stats()],
            "sync": [dataclasses.asdict(stats) for stats in self.sync_stats()],
            "lag_bounds_us": sync_report.bounds_us(),
            "ports": {
                self.plan.plugs[port].port: dataclasses.asdict(self.fastpath.port_stats(port))
                for port in ports
            },
            "control": self.counters.values(),
        }

    def verdicts(self) -> Iterator[tuple[Verdict, int]]:
        """Packets per verdict, over all workers."""
        return zip(verdict_table(), self.fastpath.verdict_counts(), strict=True)

    # ---- history ----
    async def ha_history(self, args: Args) -> str:
        """What was decided, and why."""
        only(args, "limit")
        return json.dumps(
            {"events": self.history.records(integer(args, "limit", RECORDS_MAX, 1, RECORDS_MAX))}
        )

    # ---- sessions ----
    async def sessions(self, args: Args) -> list[str]:
        """Records of the tables that pass the filters, or their number only."""
        only(args, "form", "proto", "inside", "remote", "external", "state", "limit", "cursor", "count_only")
        wanted = flow_want(args)
        limit = integer(args, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
        cursor = integer(args, "cursor", 0, 0, 1 << 40)
        count_only = boolean(args, "count_only")
        pieces = ['{"sessions":[']
        shown = count = seen = 0
        next_cursor: int | None = None
        # A page is C's buffer for every batch: it is done with before anybody else runs.
        for page in self.fastpath.flow_pages(PAGE):
            lines: list[str] = []
            for place in page.places(wanted):
                if (at := seen + place) < cursor:
                    continue
                count += 1
                if count_only:
                    continue
                if shown < limit:
                    text = json.dumps(self.session(page.record(place)))
                    lines.append(f",{text}" if shown else text)
                    shown += 1
                elif next_cursor is None:
                    next_cursor = at
            seen += page.n
            pieces.append("".join(lines))
            await asyncio.sleep(0)
        foot = {"count": count, "truncated": next_cursor is not None, "cursor": next_cursor}
        pieces.append("]," + json.dumps(foot).removeprefix("{"))
        return pieces

    def session(self, record: FlowRecord) -> dict[str, object]:
        """A record as ``sessions`` has it."""
        names = self.plan.port_names
        return {
            "form": record.form.name.lower(),
            "proto": _PROTOCOL_NAMES.get(record.proto, str(record.proto)),
            "state": record.state.name.lower(),
            "inside": endpoint(record.inside, record.inside_port),
            "remote": endpoint(record.remote, record.remote_port),
            "external": endpoint(record.external, record.external_port),
            "in_port": names[record.in_port] if record.in_port < len(names) else None,
            "out_port": names[record.out_port] if record.out_port < len(names) else None,
            "origin": record.origin,
            "id": record.id,
            "version": record.version,
            "shard": record.shard,
            "remaining_ms": record.remaining_ms,
            "packets": list(record.packets),
            "bytes": list(record.bytes),
            "pool": self.plan.pool_names[record.pool] if record.pool < len(self.plan.pool_names) else None,
            "rule": record.rule,
            "rule_name": self.policy.rule_name(record.rule),
            "inbound": bool(record.flags & FlowFlag.INBOUND),
            "hairpin": bool(record.flags & FlowFlag.HAIRPIN),
            "reset": bool(record.flags & FlowFlag.RESET),
            "imported": bool(record.flags & FlowFlag.IMPORTED),
            "held": bool(record.flags & FlowFlag.HELD),
            "fate": record.fate.name.lower(),
        }


def endpoint(address: IPv4Address | IPv6Address, port: int) -> str:
    """``192.0.2.1:80`` or ``[2001:db8::1]:80``."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def endpoint_want(key: str, text: str) -> EndpointWant:
    """Parse ``10.0.0.1``, ``10.0.0.0/24``, ``:443``, ``10.0.0.1:443`` or ``[2001:db8::1]:443``."""
    host, port = text, ""
    if text.startswith(("[", ":")) or text.count(":") == 1:
        host, _, port = text.rpartition(":")
        host = host.strip("[]")
    try:
        network = None if not host else ip_network(host) if "/" in host else ip_network(ip_address(host))
        number = int(port) if port else None
    except ValueError:
        network, number = None, -1
    if number is not None and not 0 <= number <= 65535:
        raise RequestError(f"{key}: {text!r} is no address, address:port, :port or prefix")
    return EndpointWant(network, number)


def flow_want(args: Args) -> FlowWant:
    """Which records a request wants, from the arguments of ``sessions``."""
    forms: dict[str, Form | None] = {form.name.lower(): form for form in Form}
    states: dict[str, FlowState | None] = {state.name.lower(): state for state in FlowState}
    proto = _text(args, "proto")
    number = None
    if proto is not None:
        number = int(proto) if proto.isdigit() else _PROTOCOLS.get(proto.lower(), -1)
        if not 0 <= number <= 255:
            raise RequestError(f"proto: {proto!r} is unknown; use {', '.join(_PROTOCOLS)} or a number")
    inside, remote, external = (
        endpoint_want(key, text) if (text := _text(args, key)) else EndpointWant()
        for key in ("inside", "remote", "external")
    )
    form, state = _choice(args, "form", forms, None), _choice(args, "state", states, None)
    return FlowWant(form, number, state, inside, remote, external)


def _choice(args: Args, key: str, known: Mapping[str, T], default: T) -> T:
    text = _text(args, key)
    if text is None:
        return default
    if text.lower() not in known:
        raise RequestError(f"{key}: {text!r} is unknown; use one of: {', '.join(known)}")
    return known[text.lower()]


def _text(args: Args, key: str) -> str | None:
    value = args.get(key)
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise RequestError(f"{key} is {value!r}; send a string")
    return value


def boolean(args: Args, key: str) -> bool:
    """A flag of a request; false unless it is sent."""
    value = args.get(key, False)
    if not isinstance(value, bool):
        raise RequestError(f"{key} is no boolean; send true or false")
    return value


def integer(args: Args, key: str, default: int, low: int, high: int) -> int:
    """A number of a request."""
    value = args.get(key)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise RequestError(f"{key} is {value!r}; send a number in {low}..{high}")
    return value


def _tls(tls: TlsConnection | None) -> dict[str, object] | None:
    """Who the peer has proven to be; None: nobody has, or not by TLS."""
    if tls is None or tls.peer is None:
        return None
    _, ends = validity(tls.peer)
    return {"peer": fingerprint(tls.peer), "ends": f"{ends:%Y-%m-%dT%H:%M:%SZ}", "ends_s": ends.timestamp()}


def _routing_warning(routing: Routing) -> Iterator[str]:
    if (warning := routing.warning()) is not None:
        yield warning


def _suspension(damping: Mapping[str, object]) -> Iterator[str]:
    """The alarm of flap damping."""
    if damping.get("suspended_s") is not None:
        yield (
            f"the role has moved {damping.get('moves_max')} times in a row: for another "
            f"{damping.get('suspended_s')} s only a death or an operator moves it"
        )


def _mapping(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else {}
