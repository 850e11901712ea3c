# SPDX-License-Identifier: Apache-2.0
"""What crosses the boundary, in Python's terms: frozen dataclasses and bytes, never cdata.

The members mirror the structs of ``csrc/fp_abi.h`` (units and byte orders are described there), except that
addresses are ``ipaddress`` objects and that "none" is ``None`` instead of zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Driver(IntEnum):
    """``enum fp_driver``."""

    TAP = 0
    MEM = 1
    PACKET = 2


class Zone(IntEnum):
    """``enum fp_zone``: which side of the NAT a port is on."""

    INSIDE = 0
    OUTSIDE = 1


class Form(IntEnum):
    """``enum fp_form``: how a session is translated: a port of a pool, the port of a forward, not at all."""

    SNAT = 0
    STATIC = 1
    NONE = 2


class Filtering(IntEnum):
    """``enum fp_filtering``: who may send to a port that a session holds (RFC 4787 section 5)."""

    EIF = 0
    ADF = 1
    APDF = 2


class Action(IntEnum):
    """``enum fp_action``: what a rule does."""

    ALLOW = 0
    DENY = 1
    REJECT = 2


class Commit(IntEnum):
    """``enum fp_commit``: do packets of a session wait until the peer has it?"""

    ASYNC = 0
    BOUNDED = 1
    STRICT = 2


COMMIT_DEFAULT = 255
"""Of a rule: as ``SyncConfig.commit`` says."""


class SyncFilter(IntEnum):
    """``enum fp_sync_filter``: when the peer is told of the sessions of a rule."""

    NOW = 0
    NO = 1
    AFTER = 2


class Op(IntEnum):
    """``enum fp_op`` without the markers: what is told of a session."""

    OPEN = 0
    DELETE = 1
    STATE = 2
    REST = 3


class Fate(IntEnum):
    """``enum fp_fate``: what becomes of a session if this node dies now."""

    LIVES = 0
    UNTOLD = 1
    UNACKED = 2
    POOL = 3
    RULE = 4
    AFTER = 5


class RepairKind(IntEnum):
    """``enum fp_repair_kind``: what was wrong with a record that a repair sweep has put right."""

    DIFFERED = 0
    MISSING = 1
    EXTRA = 2


class FlowState(IntEnum):
    """``enum fp_state``; ordered, a merge never moves a session to a smaller one."""

    NONE = 0
    NEW = 1
    SYN_SENT = 2
    SYN_RECV = 3
    ESTABLISHED = 4
    FIN_WAIT = 5
    CLOSING = 6
    TIME_WAIT = 7
    CLOSED = 8


class FlowFlag(IntFlag):
    """Bits of ``fp_flow_rec.flags``."""

    FIN_ORIG = 1
    FIN_REPLY = 2
    IMPORTED = 4
    BULK = 8
    INBOUND = 16
    HAIRPIN = 32
    RESET = 64
    HELD = 128


class Source(IntEnum):
    """``enum fp_src``: the side of the port that a frame came from."""

    WIRE = 0
    HOST = 1
    HAIRPIN = 2
    """From inside to an address of ours: translated once, and on its way in again."""
    CONDUIT = 3
    """From the peer: it came in there."""
    ACTIVE = 4
    """From the peer, which reigns: to leave here."""


class Out(IntEnum):
    """``enum fp_out``: where a frame goes after ``step()``."""

    NONE = 0
    WIRE = 1
    HOST = 2
    PUNT = 3
    PULSE = 4
    WAIT = 5
    HANDOFF = 6
    CONDUIT = 7


class HeartbeatFlag(IntFlag):
    """``FP_HB_*``: what our heartbeats say beside role and term."""

    READY = 1
    BYE = 2
    LAN_UP = 4
    WAN_UP = 8
    HUNG = 16
    PROBE = 32
    LAN_LENT = 64
    WAN_LENT = 128


@dataclass(frozen=True, slots=True)
class CaptureConfig:
    """``struct fp_capture_cfg``: which packets are captured, and how much of their frames.

    ``ports`` and ``verdicts`` are numbers; None: all. ``program`` holds instructions of classic BPF, 8 bytes
    each (``struct fp_bpf``); empty: every packet.
    """

    snaplen: int
    ports: frozenset[int] | None = None
    verdicts: frozenset[int] | None = None
    program: bytes = b""


# ---- configuration of fp_open ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PortConfig:
    """``struct fp_port_cfg``. ``peer_mac`` None: no heartbeats on this port. ``vmac`` None: no VRRP."""

    name: str
    zone: Zone
    address: Address
    plen: int
    mac: bytes
    wire_dev: str = ""
    host_dev: str = ""
    driver: Driver = Driver.TAP
    wire_netns: str = ""
    """PACKET: path of the network namespace that ``wire_dev`` is in; empty: the caller's."""
    host_veth: bool = False
    """PACKET: ``host_dev`` is one end of a veth pair, for want of /dev/net/tun."""
    mtu: int = 1500
    offload: bool = True
    vrid: int = 0
    vmac: bytes | None = None
    vips: tuple[Address, ...] = ()
    peer_address: Address | None = None
    peer_mac: bytes | None = None


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """``struct fp_pool_cfg``: one external address and its NAT ports, both ends inclusive.

    ``survives`` False: the address is this node's alone, and its sessions end with the node.
    """

    name: str
    address: Address
    out_port: int
    port_lo: int = 1024
    port_hi: int = 65535
    filtering: Filtering = Filtering.ADF
    survives: bool = True


@dataclass(frozen=True, slots=True)
class Timeouts:
    """``struct fp_timeouts``, seconds (RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2)."""

    tcp_transitory_s: int = 240
    tcp_established_s: int = 7440
    tcp_closing_s: int = 240
    udp_s: int = 300
    icmp_s: int = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """``struct fp_limits``: of one inside address; 0: none. ``port_reuse_s``: RFC 6888 REQ-8."""

    sessions_per_source: int = 0
    ports_per_source: int = 0
    port_reuse_s: int = 0


@dataclass(frozen=True, slots=True)
class SyncConfig:
    """``struct fp_sync_cfg``: when changes are told to the peer, and which packets wait for its word."""

    lazy_ms: int = 100
    refresh_s: int = 30
    hold_ms: int = 20
    hold_frames: int = 1024
    commit: Commit = Commit.BOUNDED


@dataclass(frozen=True, slots=True)
class PulseConfig:
    """``struct fp_pulse_cfg``: heartbeats. ``xc_address`` None: no cross-connect path."""

    pair_id: int
    node_index: int
    incarnation: int
    mac_key: bytes
    interval_ms: int = 50
    dead_after: int = 3
    lease_ms: int = 15
    udp_port: int = 47850
    confirm_ms: int = 15
    xc_address: Address | None = None
    xc_peer_address: Address | None = None
    xc_device: str = ""
    """Whose carrier is watched; none if empty."""
    xc_plen: int = 0
    """0: unknown; else nothing is routed to that subnet, or from it."""
    conduit_port: int = 0
    """0: no conduit."""
    control_dead_ms: int = 0
    """Control without a beat for so long hangs; 0: never."""
    worker_dead_ms: int = 0
    """... and a worker without a pass."""


@dataclass(frozen=True, slots=True)
class FastpathConfig:
    """``struct fp_config``. Keys have 16 bytes; the shard key is the pair's secret, the MAC key is
    made of it, the table key is our own.
    """

    ports: tuple[PortConfig, ...]
    pools: tuple[PoolConfig, ...]
    pulse: PulseConfig
    shard_key: bytes
    table_key: bytes
    flow_id_base: int
    n_workers: int = 1
    cpus: tuple[int, ...] = ()
    """By worker: the CPU that it is pinned to; none: wherever the scheduler likes."""
    poll_us: int = 0
    flow_cap: int = 131072
    syn_check: bool = True
    tcp_strict: bool = True
    tcp_lenient_s: int = 30
    events_cap: int = 0
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    sync: SyncConfig = field(default_factory=SyncConfig)

    @property
    def origin(self) -> int:
        """Who made a flow: node index + 1."""
        return self.pulse.node_index + 1


# ---- next hops ---------------------------------------------------------------------------------------
class Way(IntEnum):
    """``enum fp_way``: how a prefix is reached; of one prefix's routes the first in this order counts."""

    HERE = 0
    PEER = 1
    """The port is down here: out of the peer's."""
    NOWHERE = 2
    """It is of the port's zone even while no other route leads there."""


@dataclass(frozen=True, slots=True)
class Route:
    """``struct fp_route``. ``plen`` is that of the prefix's own family; ``gateway`` None: on link."""

    prefix: Address
    plen: int
    port: int
    gateway: Address | None = None
    way: Way = Way.HERE
    """``NOWHERE``: the prefixes of inside ports are so, unless there is a better way."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """``struct fp_neigh``: a resolved next hop."""

    address: Address
    mac: bytes
    port: int


# ---- policy ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Service:
    """``struct fp_service``: a protocol, 0 = any, and destination ports, both ends inclusive."""

    proto: int
    port_lo: int = 0
    port_hi: int = 65535


@dataclass(frozen=True, slots=True)
class Rule:
    """``struct fp_rule`` with its lists; an empty one takes everything. Ports and pools are indices.

    ``was``: number of the same rule in the policy before, from 1; its hits go on. 0: a new rule.
    """

    action: Action
    form: Form = Form.SNAT
    log: bool = False
    in_ports: tuple[int, ...] = ()
    out_ports: tuple[int, ...] = ()
    pools: tuple[int, ...] = ()
    src: tuple[Network, ...] = ()
    dst: tuple[Network, ...] = ()
    services: tuple[Service, ...] = ()
    sport_lo: int = 0
    sport_hi: int = 65535
    max_per_source: int = 0
    was: int = 0
    commit: Commit | None = None
    """None: as ``SyncConfig.commit`` says."""
    sync: SyncFilter = SyncFilter.NOW
    sync_after_s: int = 0


@dataclass(frozen=True, slots=True)
class Forward:
    """``struct fp_forward``: an external port of a pool's address, and the inside server behind it."""

    pool: int
    external_port: int
    inside: Address
    inside_port: int
    proto: int


@dataclass(frozen=True, slots=True)
class Policy:
    """``struct fp_policy_cfg``. Rules are numbered from 1 in their order, forwards likewise."""

    rules: tuple[Rule, ...] = ()
    forwards: tuple[Forward, ...] = ()
    default_outbound: Action = Action.ALLOW


@dataclass(frozen=True, slots=True)
class PoolUse:
    """``struct fp_pool_use``: external ports of a pool that are held, or rest, by protocol."""

    tcp: int
    udp: int
    icmp: int


@dataclass(frozen=True, slots=True)
class SessionLine:
    """``struct fp_session_log``: what a rule with ``log`` decided. Ports are indices, ``verdict`` is a name.

    ``external`` None: not translated, or refused.
    """

    t_ns: int
    rule: int
    verdict: str
    opened: bool
    proto: int
    source: Address
    sport: int
    destination: Address
    dport: int
    external: Address | None
    external_port: int
    in_port: int
    out_port: int


# ---- what is drained ---------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PuntedFrame:
    """A frame for the control plane (VRRP adverts), from the Ethernet header, cut to 256 bytes."""

    t_ns: int
    port: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class NeighbourWanted:
    """Frames wait for the link-layer address of ``address`` on ``port``."""

    t_ns: int
    port: int
    address: Address


@dataclass(frozen=True, slots=True)
class NeighbourMoved:
    """``address``, a neighbour that the snapshot has, says that its link-layer address is another one."""

    t_ns: int
    port: int
    address: Address
    mac: bytes


Punt = PuntedFrame | NeighbourWanted | NeighbourMoved


class PulseKind(IntEnum):
    """``enum fp_pulse_kind``."""

    PATH_UP = 0
    PATH_DOWN = 1
    PEER = 2
    FENCED = 3
    DEAD = 4
    REFUTED = 5
    HUNG = 6
    LEASE = 7
    DIED = 8


class Hang(IntFlag):
    """``enum fp_hung``: what of a node gets nowhere."""

    CONTROL = 1
    WORKER = 2
    YIELDED = 4
    """Of an event: the node was ACTIVE, and C has fenced it in favour of a ready peer."""


NO_HANG: Final = Hang(0)


class Mark(IntFlag):
    """``enum fp_mark``: what makes the peer's death likely."""

    XC_CARRIER = 1
    SYNC_CLOSED = 2
    VMAC = 4


NO_MARK: Final = Mark(0)


@dataclass(frozen=True, slots=True)
class Peer:
    """``struct fp_peer``: what the peer's heartbeats say of it."""

    incarnation: int
    term: int
    role: int
    flags: HeartbeatFlag
    priority: int
    control_beat: int


@dataclass(frozen=True, slots=True)
class PulseEvent:
    """``struct fp_pulse_event``. ``path`` 0 is xc, 1 + i is port i."""

    t_ns: int
    kind: PulseKind
    path: int
    peer: Peer
    marks: Mark = NO_MARK
    """DEAD, REFUTED: what began the suspicion."""
    probes: int = 0
    asked_us: int = 0
    """DEAD, REFUTED: from the first mark to the end. LEASE: from the first probe."""
    rtt_us: int = 0
    """REFUTED: from a probe to its answer."""
    stall_us: int = 0
    """LEASE: so long the pulse thread was away."""
    answered: bool = False
    """LEASE: the peer has answered."""
    hung: Hang = NO_HANG
    worker: int = 0
    """HUNG, of a worker: the first one."""


@dataclass(frozen=True, slots=True)
class LeaseStats:
    """``struct fp_lease_stats``: how long a role may be believed, and what of this node hangs."""

    lease_ns: int
    asked: int
    """How often the pulse thread was away for longer, and asked the peer."""
    unanswered: int
    longest_ns: int
    """The longest time that it was away."""
    asking: bool
    hung: Hang


@dataclass(frozen=True, slots=True)
class LineStats:
    """``struct fp_line_stats``: the life line, whose end proves the peer's death."""

    made: int
    bad: int
    """Connections that were refused."""
    stands: bool


@dataclass(frozen=True, slots=True)
class PathStats:
    """``struct fp_path_stats``. ``last_heard_ns`` is 0 until the first heartbeat."""

    sent: int
    received: int
    lost: int
    bad: int
    replayed: int
    last_heard_ns: int
    alive: bool


@dataclass(frozen=True, slots=True)
class Digests:
    """Digests of ``shards`` (a bit each): a u64 sum and a u32 count for each in their order, little-endian.

    ``of``: the shards that were asked for; of those that are lost, or being swept, nothing can be said.
    """

    of: int
    shards: int
    sums: bytes
    counts: bytes


class Drained(NamedTuple):
    """One sync batch: its sections, and what stands behind it in the stream of changes.

    ``sections``: ``n`` records as they stand in the message (``csrc/sections.c``).
    ``marks``: per worker, the ``ev_seq`` up to which its changes are in this batch or an earlier one.
    ``lost``: shards (a bit each) whose changes could not be tracked: a sweep of them is due.
    ``sweep``: not None: behind this batch a worker tells all records of these shards of its anew.
    ``swept``: not None: with this batch the sweep is complete on every worker, for these shards; those that
    were lost meanwhile are not among them.
    ``digests``: of the records that both nodes know once this batch is live.
    ``more``: records were left behind because ``limit`` was reached.
    """

    sections: bytes
    n: int
    marks: Mapping[int, int]
    lost: int = 0
    sweep: int | None = None
    swept: int | None = None
    digests: Digests | None = None
    more: bool = False


class Imported(NamedTuple):
    """What became of a batch of ``n`` records: ``taken`` are live. ``unknown``: ops and columns skipped."""

    n: int
    taken: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Repair:
    """``struct fp_repair``: a record that a repair sweep has put right."""

    kind: RepairKind
    proto: int
    inside: Address
    inside_port: int
    remote: Address
    remote_port: int
    shard: int


@dataclass(frozen=True, slots=True)
class SyncStats:
    """``struct fp_sync_stats``, the histograms as tuples. ``lost_shards``: a bit each."""

    lost_shards: int
    queued: int
    queued_lazy: int
    sweep_done: int
    sweep_total: int
    held_frames: int
    held_bytes: int
    held_sessions: int
    unacked_sessions: int
    degraded: int
    told_open: int
    told_state: int
    told_rest: int
    told_delete: int
    repaired: int
    import_unknown: int
    scrub_errors: int
    hold_released: int
    hold_expired: int
    hold_full: int
    hold_dropped: int
    hold_unheld: int
    degraded_times: int
    lag: tuple[int, ...]
    hold: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FlowRecord:
    """``struct fp_flow_rec`` for people: ports in host order, for ICMP they hold the identifier."""

    form: Form
    proto: int
    state: FlowState
    flags: FlowFlag
    inside: Address
    inside_port: int
    remote: Address
    remote_port: int
    external: Address
    external_port: int
    in_port: int
    out_port: int
    pool: int
    rule: int
    origin: int
    id: int
    version: int
    shard: int
    remaining_ms: int
    packets: tuple[int, int]
    bytes: tuple[int, int]
    fate: Fate = Fate.LIVES


# ---- counters ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the verdict table; the index in the table is the number in ``fp_frame.verdict``."""

    name: str
    help: str
    drop: bool


@dataclass(frozen=True, slots=True)
class WorkerStats:
    """``struct fp_worker_stats``."""

    steps: int
    frames: int
    wakeups: int
    polls: int
    handed_on: int
    taken_over: int
    cpu_ns: int
    flows: int
    mappings: int
    tombstones: int
    flows_created: int
    flows_expired: int
    flows_closed: int
    flows_imported: int
    import_refused: int
    import_conflicts: int
    events_lost: int
    dirty: int
    neigh_waiting: int
    punts_lost: int
    pulse_lost: int
    inject_lost: int
    frags_held: int
    frags_evicted: int
    evicted_closed: int
    evicted_embryonic: int
    log_lost: int
    lookups: int


@dataclass(frozen=True, slots=True)
class ConduitStats:
    """``struct fp_conduit_stats``: packets to and from the peer."""

    tx_frames: int
    tx_bytes: int
    tx_calls: int
    tx_lost: int
    rx_frames: int
    rx_bytes: int
    rx_calls: int
    rx_missed: int


@dataclass(frozen=True, slots=True)
class PortStats:
    """``struct fp_port_stats``."""

    rx_frames: int
    rx_bytes: int
    tx_frames: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    tx_dropped: int
    host_rx_frames: int
    host_tx_frames: int
    host_tx_errors: int
    rx_missed: int


@dataclass(frozen=True, slots=True)
class Fence:
    """Role and term as the workers obey them; role is a number of ``enum fp_role``."""

    role: int
    term: int


@dataclass(frozen=True, slots=True)
class SteppedFrame:
    """A frame after ``fp_test_step``: rewritten, with its one verdict."""

    data: bytes
    out: Out
    out_port: int
    verdict: str
    owner: int
    fenced: bool
    next_hop: Address | None
    port: int
    source: Source
    l4: tuple[int, int] | None = None
    """Of a fragment: what the first of its datagram says; ``test_step()`` at another worker takes it."""
