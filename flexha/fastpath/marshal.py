# SPDX-License-Identifier: Apache-2.0
"""Between cdata and the dataclasses of ``records``, both ways."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from flexha.fastpath.lib import CData, ffi, lib
from flexha.fastpath.records import (
    COMMIT_DEFAULT,
    Address,
    CaptureConfig,
    ConduitStats,
    Digests,
    FastpathConfig,
    Hang,
    HeartbeatFlag,
    LeaseStats,
    LineStats,
    Mark,
    Neighbour,
    NeighbourMoved,
    NeighbourWanted,
    Network,
    Out,
    PathStats,
    Peer,
    Policy,
    PortConfig,
    PortStats,
    PulseConfig,
    PulseEvent,
    PulseKind,
    Punt,
    PuntedFrame,
    Repair,
    RepairKind,
    Route,
    Rule,
    Service,
    SessionLine,
    Source,
    SteppedFrame,
    SyncStats,
    WorkerStats,
)

FRAME_MAX: Final = 2048
"""FP_FRAME_MAX: room for one frame."""
FRAME_BIG: Final = 65600
"""FP_FRAME_BIG: room for an offload frame."""
BURST_MAX: Final = 64
"""FP_BURST_MAX: frames of one step()."""
_V4_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_NONE: Final = b"\0" * 16
_PUNT_FRAME: Final = 0
_PUNT_NEIGH_MOVED: Final = 2


def text(cdata: CData) -> str:
    """A C string."""
    return bytes(ffi.string(cdata)).decode("utf-8", "replace")


def addr_bytes(address: Address | None) -> bytes:
    """The 16 bytes of a ``struct fp_addr``: IPv4 as an IPv4-mapped address, None as zeros."""
    if address is None:
        return _NONE
    return _V4_MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def addr_of(raw: bytes) -> Address:
    """The address that 16 bytes of a ``struct fp_addr`` hold."""
    return IPv4Address(raw[12:]) if raw.startswith(_V4_MAPPED) else IPv6Address(raw)


def mapped_plen(address: Address, plen: int) -> int:
    """A prefix length of the address's own family, as one of the 128-bit form."""
    return plen + 96 if isinstance(address, IPv4Address) else plen


def _cdata_addr(cdata: CData) -> Address:
    return addr_of(bytes(ffi.buffer(cdata.b)))


# ---- into C ------------------------------------------------------------------------------------------
def config(cfg: FastpathConfig) -> CData:
    """A ``struct fp_config``; lengths and ranges are for C to validate."""
    out = ffi.new("struct fp_config *")
    out.abi_version = lib_constant("FP_ABI_VERSION")
    out.n_workers, out.n_ports, out.n_pools = cfg.n_workers, len(cfg.ports), len(cfg.pools)
    out.flow_cap, out.syn_check, out.events_cap = cfg.flow_cap, int(cfg.syn_check), cfg.events_cap
    out.tcp_strict, out.tcp_lenient_s = int(cfg.tcp_strict), cfg.tcp_lenient_s
    out.poll_us, out.origin, out.flow_id_base = cfg.poll_us, cfg.origin, cfg.flow_id_base
    for worker, cpu in enumerate(cfg.cpus):
        out.pinned[worker] = cpu + 1
    out.shard_key, out.table_key = cfg.shard_key, cfg.table_key
    for field in fields(cfg.timeouts):
        setattr(out.timeouts, field.name, getattr(cfg.timeouts, field.name))
    for field in fields(cfg.limits):
        setattr(out.limits, field.name, getattr(cfg.limits, field.name))
    for field in fields(cfg.sync):
        setattr(out.sync, field.name, int(getattr(cfg.sync, field.name)))
    pulse_config(out.pulse, cfg.pulse)
    for c_port, port in zip(out.ports, cfg.ports, strict=False):
        _port(c_port, port)
    for c_pool, pool in zip(out.pools, cfg.pools, strict=False):
        c_pool.name = pool.name.encode()
        c_pool.addr.b = addr_bytes(pool.address)
        c_pool.port_lo, c_pool.port_hi, c_pool.out_port = pool.port_lo, pool.port_hi, pool.out_port
        c_pool.filtering, c_pool.survives = int(pool.filtering), int(pool.survives)
    return out


def pulse_config(out: CData, pulse: PulseConfig) -> None:
    """Into a ``struct fp_pulse_cfg``."""
    for name in (
        "interval_ms",
        "dead_after",
        "lease_ms",
        "udp_port",
        "confirm_ms",
        "control_dead_ms",
        "worker_dead_ms",
        "conduit_port",
        "xc_plen",
        "pair_id",
        "node_index",
        "incarnation",
    ):
        setattr(out, name, getattr(pulse, name))
    out.mac_key = pulse.mac_key
    out.xc_addr.b = addr_bytes(pulse.xc_address)
    out.xc_peer_addr.b = addr_bytes(pulse.xc_peer_address)
    out.xc_dev = pulse.xc_device.encode()


def _port(out: CData, port: PortConfig) -> None:
    out.name, out.wire_dev, out.host_dev = port.name.encode(), port.wire_dev.encode(), port.host_dev.encode()
    out.driver, out.zone, out.mtu = int(port.driver), int(port.zone), port.mtu
    out.plen, out.n_vips, out.vrid = port.plen, len(port.vips), port.vrid
    out.offload, out.host_veth = int(port.offload), int(port.host_veth)
    out.wire_netns = port.wire_netns.encode()
    out.mac, out.peer_mac, out.vmac = port.mac, port.peer_mac or b"", port.vmac or b""
    out.addr.b = addr_bytes(port.address)
    out.peer_addr.b = addr_bytes(port.peer_address)
    for c_vip, vip in zip(out.vip, port.vips, strict=False):
        c_vip.b = addr_bytes(vip)


def lib_constant(name: str) -> int:
    """An enumerator of ``fp_abi.h``."""
    return int(getattr(lib, name))


def routes(rows: Sequence[Route]) -> CData:
    """An array of ``struct fp_route``."""
    out = ffi.new("struct fp_route[]", len(rows))
    for c_row, row in zip(out, rows, strict=True):
        c_row.prefix.b = addr_bytes(row.prefix)
        c_row.gateway.b = addr_bytes(row.gateway)
        c_row.plen = mapped_plen(row.prefix, row.plen)
        c_row.port = row.port
        c_row.way = int(row.way)
    return out


def neighbours(rows: Sequence[Neighbour]) -> CData:
    """An array of ``struct fp_neigh``."""
    out = ffi.new("struct fp_neigh[]", len(rows))
    for c_row, row in zip(out, rows, strict=True):
        c_row.addr.b = addr_bytes(row.address)
        c_row.mac = row.mac
        c_row.port = row.port
    return out


class PolicyCdata:
    """A ``struct fp_policy_cfg`` with the lists that it points to, which live as long as this."""

    def __init__(self, policy: Policy) -> None:
        self._prefixes: Final[list[Network]] = []
        self._services: Final[list[Service]] = []
        self._rules: Final = ffi.new("struct fp_rule[]", len(policy.rules))
        self._forwards: Final = ffi.new("struct fp_forward[]", len(policy.forwards))
        for i, (c_rule, rule) in enumerate(zip(self._rules, policy.rules, strict=True)):
            c_rule.id = i + 1
            self._rule(c_rule, rule)
        for i, (c_forward, forward) in enumerate(zip(self._forwards, policy.forwards, strict=True)):
            c_forward.id = i + 1
            c_forward.inside.b = addr_bytes(forward.inside)
            for name in ("inside_port", "external_port", "proto", "pool"):
                setattr(c_forward, name, getattr(forward, name))
        self._c_prefixes: Final = ffi.new("struct fp_prefix[]", len(self._prefixes))
        for c_prefix, prefix in zip(self._c_prefixes, self._prefixes, strict=True):
            c_prefix.addr.b = addr_bytes(prefix.network_address)
            c_prefix.plen = mapped_plen(prefix.network_address, prefix.prefixlen)
        self._c_services: Final = ffi.new("struct fp_service[]", len(self._services))
        for c_service, service in zip(self._c_services, self._services, strict=True):
            c_service.proto, c_service.port_lo, c_service.port_hi = (
                service.proto,
                service.port_lo,
                service.port_hi,
            )
        out = ffi.new("struct fp_policy_cfg *")
        out.rules, out.n_rules = self._rules, len(policy.rules)
        out.prefixes, out.n_prefixes = self._c_prefixes, len(self._prefixes)
        out.services, out.n_services = self._c_services, len(self._services)
        out.forwards, out.n_forwards = self._forwards, len(policy.forwards)
        out.default_outbound = int(policy.default_outbound)
        self.cfg: Final[CData] = out

    def _rule(self, out: CData, rule: Rule) -> None:
        out.action, out.form, out.log = int(rule.action), int(rule.form), int(rule.log)
        out.in_ports, out.out_ports, out.pools = (
            sum(1 << i for i in indices) for indices in (rule.in_ports, rule.out_ports, rule.pools)
        )
        out.explicit_proto = int(bool(rule.services) and all(service.proto for service in rule.services))
        out.sport_lo, out.sport_hi = rule.sport_lo, rule.sport_hi
        out.max_per_source, out.was = rule.max_per_source, rule.was
        out.commit = COMMIT_DEFAULT if rule.commit is None else int(rule.commit)
        out.sync, out.sync_after_s = int(rule.sync), rule.sync_after_s
        out.first_src, out.n_src = len(self._prefixes), len(rule.src)
        self._prefixes.extend(rule.src)
        out.first_dst, out.n_dst = len(self._prefixes), len(rule.dst)
        self._prefixes.extend(rule.dst)
        out.first_service, out.n_services = len(self._services), len(rule.services)
        self._services.extend(rule.services)


def capture_config(cfg: CaptureConfig) -> tuple[CData, CData]:
    """A ``struct fp_capture_cfg``, and the array of instructions that must outlive it."""
    size = int(ffi.sizeof("struct fp_bpf"))
    out = ffi.new("struct fp_capture_cfg *")
    insns = ffi.new("struct fp_bpf[]", len(cfg.program) // size)
    ffi.memmove(insns, cfg.program, len(insns) * size)
    out.insns, out.n_insns = insns, len(insns)
    out.snaplen = cfg.snaplen
    out.ports = (
        (1 << lib_constant("FP_PORTS_MAX")) - 1 if cfg.ports is None else sum(1 << i for i in cfg.ports)
    )
    out.any_verdict = int(cfg.verdicts is None)
    for verdict in cfg.verdicts or ():
        out.verdicts[verdict // 64] |= 1 << verdict % 64
    return out, insns


# ---- out of C ----------------------------------------------------------------------------------------
def punt(cdata: CData) -> Punt:
    """A ``struct fp_punt``."""
    if cdata.kind == _PUNT_FRAME:
        return PuntedFrame(int(cdata.t_ns), int(cdata.port), bytes(ffi.buffer(cdata.data, cdata.len)))
    t_ns, port, address = int(cdata.t_ns), int(cdata.port), _cdata_addr(cdata.addr)
    if cdata.kind == _PUNT_NEIGH_MOVED:
        return NeighbourMoved(t_ns, port, address, bytes(ffi.buffer(cdata.data, cdata.len)))
    return NeighbourWanted(t_ns, port, address)


def session_line(cdata: CData) -> SessionLine:
    """A ``struct fp_session_log``."""
    external = bytes(ffi.buffer(cdata.external.b))
    return SessionLine(
        t_ns=int(cdata.t_ns),
        rule=int(cdata.rule),
        verdict=_verdict_name(int(cdata.verdict)),
        opened=bool(cdata.opened),
        proto=int(cdata.proto),
        source=_cdata_addr(cdata.src),
        sport=int(cdata.sport),
        destination=_cdata_addr(cdata.dst),
        dport=int(cdata.dport),
        external=None if external == _NONE else addr_of(external),
        external_port=int(cdata.external_port),
        in_port=int(cdata.in_port),
        out_port=int(cdata.out_port),
    )


def pulse_event(cdata: CData) -> PulseEvent:
    """A ``struct fp_pulse_event``."""
    peer = cdata.peer
    return PulseEvent(
        t_ns=int(cdata.t_ns),
        kind=PulseKind(cdata.kind),
        path=int(cdata.path),
        peer=Peer(
            incarnation=int(peer.incarnation),
            term=int(peer.term),
            role=int(peer.role),
            flags=HeartbeatFlag(peer.flags),
            priority=int(peer.priority),
            control_beat=int(peer.control_beat),
        ),
        marks=Mark(cdata.marks),
        probes=int(cdata.probes),
        asked_us=int(cdata.asked_us),
        rtt_us=int(cdata.rtt_us),
        stall_us=int(cdata.stall_us),
        answered=bool(cdata.answered),
        hung=Hang(cdata.hung),
        worker=int(cdata.worker),
    )


def lease_stats(cdata: CData) -> LeaseStats:
    """A ``struct fp_lease_stats``."""
    return LeaseStats(
        lease_ns=int(cdata.lease_ns),
        asked=int(cdata.asked),
        unanswered=int(cdata.unanswered),
        longest_ns=int(cdata.longest_ns),
        asking=bool(cdata.asking),
        hung=Hang(cdata.hung),
    )


def line_stats(cdata: CData) -> LineStats:
    """A ``struct fp_line_stats``."""
    return LineStats(made=int(cdata.made), bad=int(cdata.bad), stands=bool(cdata.stands))


def path_stats(cdata: CData) -> PathStats:
    """A ``struct fp_path_stats``."""
    return PathStats(
        sent=int(cdata.sent),
        received=int(cdata.received),
        lost=int(cdata.lost),
        bad=int(cdata.bad),
        replayed=int(cdata.replayed),
        last_heard_ns=int(cdata.last_heard_ns),
        alive=bool(cdata.alive),
    )


def worker_stats(cdata: CData) -> WorkerStats:
    """A ``struct fp_worker_stats``."""
    return WorkerStats(*(int(getattr(cdata, field.name)) for field in fields(WorkerStats)))


def conduit_stats(cdata: CData) -> ConduitStats:
    """A ``struct fp_conduit_stats``."""
    return ConduitStats(*(int(getattr(cdata, field.name)) for field in fields(ConduitStats)))


def digests(cdata: CData, of: int, without: int = 0) -> Digests:
    """An array of FP_SHARDS ``struct fp_digest``: of the shards ``of`` those that are comparable."""
    known = [(1 << i, row.sum, row.n) for i, row in enumerate(cdata) if row.known and not without >> i & 1]
    return Digests(
        of=of,
        shards=sum(bit for bit, _, _ in known),
        sums=b"".join(int(total).to_bytes(8, "little") for _, total, _ in known),
        counts=b"".join(int(n).to_bytes(4, "little") for _, _, n in known),
    )


def repair(cdata: CData) -> Repair:
    """A ``struct fp_repair``."""
    return Repair(
        kind=RepairKind(cdata.kind),
        proto=int(cdata.proto),
        inside=_cdata_addr(cdata.inside),
        inside_port=socket.ntohs(cdata.inside_port),
        remote=_cdata_addr(cdata.remote),
        remote_port=socket.ntohs(cdata.remote_port),
        shard=int(cdata.shard),
    )


def sync_stats(cdata: CData) -> SyncStats:
    """A ``struct fp_sync_stats``."""
    numbers = {field.name: int(getattr(cdata, field.name)) for field in fields(SyncStats)[:-2]}
    return SyncStats(**numbers, lag=tuple(cdata.lag), hold=tuple(cdata.hold))


def port_stats(cdata: CData) -> PortStats:
    """A ``struct fp_port_stats``."""
    return PortStats(*(int(getattr(cdata, field.name)) for field in fields(PortStats)))


@cache
def _verdict_name(verdict: int) -> str:
    return text(lib.fp_verdict_name(verdict))


def stepped_frame(cdata: CData, room: bytearray) -> SteppedFrame:
    """A ``struct fp_frame`` after ``fp_test_step``; ``room`` is what its ``data`` points to."""
    out = Out(cdata.out)
    return SteppedFrame(
        data=bytes(room[: cdata.len]),
        out=out,
        out_port=int(cdata.out_port),
        verdict=_verdict_name(int(cdata.verdict)),
        owner=int(cdata.owner),
        fenced=bool(cdata.fenced),
        next_hop=_cdata_addr(cdata.next_hop) if out is Out.WAIT else None,
        port=int(cdata.port),
        source=Source(cdata.src),
        l4=(int(cdata.l4_sport), int(cdata.l4_dport)) if cdata.l4_known else None,
    )
