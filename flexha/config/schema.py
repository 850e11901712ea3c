# SPDX-License-Identifier: Apache-2.0
"""The configuration of a pair: one TOML file, the same on both nodes; a node is told which one it is.

Every key, its default and its range stand here and nowhere else: ``flexhad --print-schema`` and the man page
flexha.toml(5) are made from these models. Models are strict (no string is taken for a number) and frozen;
an unknown key is an error. What spans several keys is checked in ``flexha.config.load``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from flexha.config.values import (
    RULE_LIST_MAX,
    AbsolutePath,
    Address,
    Asn,
    Cpu,
    Device,
    HexKey,
    Listed,
    Listen,
    Mac,
    Name,
    NetnsName,
    Network,
    PairName,
    PoolAddress,
    PortName,
    Ports,
    Prefix,
    Protocol,
    RuleName,
    Some,
    SyncFilter,
)

NodeName = Literal["a", "b"]
DriverName = Literal["tap", "packet"]
NODE_NAMES: tuple[NodeName, NodeName] = ("a", "b")
"""The position is the node's index: node 0 reigns in even terms, node 1 in odd ones."""


class Section(BaseModel):
    """Base of every table of the file."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


# ---- what both nodes share --------------------------------------------------------------------------------
class Pair(Section):
    """``[pair]``"""

    name: PairName = Field(
        description="name of the pair; heartbeats and sync peers of another pair are refused"
    )
    secret: HexKey = Field(
        description="secret of the pair, 16 bytes in hex (openssl rand -hex 16): both nodes compute the same "
        "shard, and nobody else can; the keys that authenticate are in nodes.X.keys"
    )


class Track(Section):
    """``[ports.NAME.track]``: what the loss of a port means for who is ACTIVE."""

    kind: Literal["none", "arp", "icmp", "neighbour"] = Field(
        default="none",
        description="how the next hop is asked whether it is there: arp; icmp, also behind the router; "
        "neighbour: what the kernel knows, which takes seconds; none: the port's wire is all that counts",
    )
    target: Address | None = Field(
        default=None, description="who is asked; default the next hop of the default route by this port"
    )
    interval_ms: int = Field(default=75, ge=20, le=10000, description="time between two probes, ms")
    misses: int = Field(
        default=4,
        ge=1,
        le=20,
        description="probes without an answer, in a row, after which the port counts as lost; with 4 and "
        "more a router that neither node reaches moves no role",
    )
    weight: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="what the port adds to a node's score while it is usable there; default 10 inside, 50 "
        "outside, 0 where [bgp] routes the LAN. ACTIVE that has lost a port hands over to a ready peer of "
        "higher score",
    )
    up_ms: int = Field(
        default=1000,
        ge=0,
        le=60000,
        description="how long a port that was lost must be whole before it counts as usable again, ms",
    )


class Port(Section):
    """``[ports.NAME]``: a data-plane attachment that both nodes have."""

    zone: Literal["inside", "outside"] = Field(description="side of the NAT")
    prefix: Prefix = Field(description="the wire's subnet")
    vips: Annotated[tuple[Address, ...], Field(strict=False, min_length=1, max_length=4)] = Field(
        description="virtual addresses (VRRP): ACTIVE answers for them with the virtual MAC"
    )
    vrid: int = Field(ge=1, le=255, description="virtual router id (RFC 9568), unique on the wire")
    mtu: int = Field(default=1500, ge=576, le=1500, description="IP MTU of the wire, bytes")
    offload: bool = Field(
        default=True,
        description="take and give frames of up to 64 KiB, whose segmentation and checksums are left to the "
        "kernel or the NIC; false: only frames as on the wire",
    )
    driver: DriverName = Field(
        default="tap",
        description="tap: the daemon makes a TAP and plugs it in; packet: AF_PACKET on a NIC or veth that is "
        "there",
    )
    networks: Annotated[tuple[Prefix, ...], Field(strict=False, max_length=RULE_LIST_MAX)] = Field(
        default=(),
        description="inside: prefixes of the clients behind this port's routers. They stay inside while no "
        "route leads there, and with [bgp] they, and what is in them, are all that a router may announce",
    )
    track: Track = Field(default_factory=Track, description="what its loss means")


class Pool(Section):
    """``[[pools]]``: an external address for source NAT."""

    name: Name = Field(description="name of the pool")
    port: PortName = Field(description="the outside port that it serves")
    address: PoolAddress = Field(
        description="external address: a vip of that port, or another address of its subnet, which ACTIVE "
        'then answers for; any address with routed = true; or "interface", the node\'s own address on that '
        "port, whose sessions do not survive a failover"
    )
    routed: bool = Field(
        default=False, description="the address is not on the wire: the router there has a route for it to us"
    )
    port_lo: int = Field(
        default=1024, ge=1024, le=65535, description="lowest external port or ICMP identifier"
    )
    port_hi: int = Field(
        default=65535, ge=1024, le=65535, description="highest external port or ICMP identifier"
    )

    filtering: Literal["endpoint-independent", "address-dependent", "address-and-port-dependent"] = Field(
        default="address-dependent",
        description="who may send to a port that a session holds: anybody; any port of a host that the "
        "inside endpoint has sent to; or only what it has sent to (RFC 4787 REQ-8)",
    )


class Rule(Section):
    """``[[rules]]``: what may open a session; the first one that matches decides."""

    name: RuleName = Field(description="name of the rule, in counters and logs")
    action: Literal["allow", "deny", "reject"] = Field(
        description="deny drops silently, reject answers with a RST or an ICMP error"
    )
    from_: Annotated[tuple[Name, ...], Listed, Some] | None = Field(
        default=None, alias="from", description="ports that it comes in by, or zones; any, if absent"
    )
    to: Annotated[tuple[Name, ...], Listed, Some] | None = Field(
        default=None, description="ports that it leaves by, or zones; any, if absent"
    )
    src: Annotated[tuple[Network, ...], Listed, Some] | None = Field(
        default=None, description="source prefixes or addresses; any, if absent"
    )
    dst: Annotated[tuple[Network, ...], Listed, Some] | None = Field(
        default=None,
        description="destination prefixes or addresses, the inside server's behind a forward; any, if absent",
    )
    proto: Annotated[tuple[Protocol, ...], Listed, Some] | None = Field(
        default=None,
        description="icmp, tcp, udp, gre, esp, sctp or a number; any, if absent, or tcp and udp with ports. "
        "A rule that allows lets a protocol of another number pass only if it stands here",
    )
    ports: Annotated[tuple[Ports, ...], Listed, Some] | None = Field(
        default=None, description='destination ports of tcp and udp, such as "80" or "8000-8080"'
    )
    sport: Ports | None = Field(default=None, description="source ports of tcp and udp")
    nat: Annotated[tuple[Name, ...], Listed, Some] | None = Field(
        default=None,
        description='pools to leave from, or "none": not translated; by default the pools of the port it '
        "leaves by",
    )
    log: bool = Field(default=False, description="log each session that it opens, or refusal")
    sessions_per_source: int | None = Field(
        default=None, ge=1, le=16777215, description="sessions of one inside address at most"
    )

    commit: Literal["async", "bounded", "strict"] | None = Field(
        default=None,
        description="whether packets of the sessions that it opens wait until the peer has them, see "
        "sync.commit, which is the default",
    )
    sync: SyncFilter | None = Field(
        default=None,
        description="when the peer is told of the sessions that it opens: now, which is the default; no: "
        "never, they end with the node; after 5: once they are 5 seconds old, so short ones cost nothing",
    )


class PolicySection(Section):
    """``[policy]``"""

    default: Literal["allow-outbound", "deny"] = Field(
        default="allow-outbound",
        description="what no rule matches: from inside to outside, through the pools of the port it leaves "
        "by; or nothing. All else is denied, but for what forwards and filtering let in",
    )


class Forward(Section):
    """``[[forwards]]``: external ports of a pool's address, and the inside server behind them."""

    name: RuleName = Field(description="name of the forward")
    pool: Name = Field(description="pool whose address it is on; the port may be outside of the pool's range")
    proto: Annotated[tuple[Protocol, ...], Listed, Some] | None = Field(
        default=None, description="tcp, udp or both; tcp, if absent"
    )
    ports: Annotated[tuple[Ports, ...], Listed, Some] = Field(description="external ports")
    to: Address = Field(description="address of the inside server")
    to_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="port of the server, the first one of a range; the external one, if absent",
    )


class Route(Section):
    """``[[routes]]``: a static route, installed in the kernel's main table of the node's namespace."""

    prefix: Prefix = Field(description="destination; 0.0.0.0/0 is the default route")
    via: Address = Field(description="next hop, on the port's subnet")
    port: PortName = Field(description="port that it leaves by")
    metric: int = Field(
        default=4000,
        ge=1,
        le=0xFFFFFFFF,
        description="priority in the kernel, lower wins; high by default, so that a management default route "
        "and what a routing daemon learns are preferred",
    )


class Bfd(Section):
    """``[bgp.bfd]``: how soon a router or a link that is gone is found out (RFC 5880)."""

    interval_ms: int = Field(
        default=100, ge=10, le=60000, description="interval that both ends send and expect packets at, ms"
    )
    multiplier: int = Field(default=3, ge=2, le=255, description="packets lost in a row that end the session")


class Bgp(Section):
    """``[bgp]``: the LAN's routers learn from each node's routing daemon who is ACTIVE."""

    local_as: Asn = Field(description="AS number of the pair")
    router_as: Asn = Field(description="AS number of the LAN's routers; another one than the pair's (eBGP)")
    neighbours: Annotated[tuple[Address, ...], Field(strict=False, max_length=8)] = Field(
        default=(),
        description="addresses of the LAN's routers, on inside ports' subnets; a node may have its own",
    )
    announce: Annotated[tuple[Prefix, ...], Field(strict=False, max_length=64)] = Field(
        default=(), description="what both nodes announce; by default a default route"
    )
    metric: Literal["med", "prepend"] = Field(
        default="med",
        description="how routers are told to prefer ACTIVE: by MULTI_EXIT_DISC, or by an AS_PATH that "
        "the other node makes longer; with prepend it takes BFD to leave a node that has died",
    )
    hold_s: int = Field(
        default=9, ge=3, le=3600, description="hold time (RFC 4271); keepalives at a third, seconds"
    )
    connect_s: int = Field(
        default=1,
        ge=1,
        le=3600,
        description="how soon a connection is tried again (ConnectRetryTimer), seconds",
    )
    bfd: Bfd | None = Field(default=None, description="find out about lost links within less than hold_s")


class Ha(Section):
    """``[ha]``: heartbeats and role."""

    interval_ms: int = Field(
        default=50,
        ge=5,
        le=1000,
        description="heartbeat interval on every path, ms; below 20 needs SCHED_FIFO",
    )
    dead_after: int = Field(
        default=3, ge=2, le=20, description="intervals of silence that make a path silent"
    )
    confirm_ms: int = Field(
        default=15,
        ge=0,
        le=1000,
        description="when something speaks for the peer's death (the cross-connect loses its carrier), it is "
        "asked on every path, and silence for so long confirms it, ms; 0: only dead_after intervals of "
        "silence do",
    )
    lease_ms: int = Field(
        default=15,
        ge=5,
        le=1000,
        description="a node that was stopped for longer asks its peer before it goes on as ACTIVE, ms; less "
        "if confirm_ms or the timers of heartbeats let the peer take over sooner",
    )
    control_dead_ms: int = Field(
        default=1000,
        ge=200,
        le=10_000,
        description="a control plane that has done nothing for so long hangs, ms: an ACTIVE node gives its "
        "role to a peer that may take over",
    )
    worker_dead_ms: int = Field(
        default=500,
        ge=50,
        le=5000,
        description="a worker that has done nothing for so long hangs, ms: likewise",
    )
    preempt: bool = Field(
        default=False, description="a better priority takes the role from a live ACTIVE, once it is in sync"
    )
    preempt_hold_s: int = Field(
        default=60, ge=0, le=3600, description="preempt: how long it must have been ready before, seconds"
    )
    flap_max: int = Field(
        default=5,
        ge=1,
        le=100,
        description="so many moves of the role within flap_window_s, for tracking and by preempt, suspend "
        "such moves; a death, a goodbye and an operator move it all the same",
    )
    flap_window_s: int = Field(
        default=60, ge=1, le=3600, description="time within which moves count, seconds"
    )
    flap_suspend_s: int = Field(
        default=300, ge=1, le=86400, description="how long moves are suspended then, seconds"
    )
    start_hold_ms: int = Field(
        default=1000,
        ge=0,
        le=60000,
        description="time to listen for a live ACTIVE before the first claim, ms",
    )
    heartbeat_port: int = Field(
        default=47850,
        ge=1024,
        le=65535,
        description="UDP port of heartbeats, and on the cross-connect TCP port of the life line",
    )
    sync_port: int = Field(
        default=47851, ge=1024, le=65535, description="TCP port of sync, on the cross-connect"
    )
    conduit_port: int = Field(
        default=6081,
        ge=1024,
        le=61439,
        description="UDP port of the conduit (Geneve), on the cross-connect: what lands on the node that is "
        "not ACTIVE goes to the one that is",
    )


class Vrrp(Section):
    """``[vrrp]``: all virtual routers of the pair (RFC 9568)."""

    version: Literal[2, 3] = Field(
        default=3, description="protocol version (2: RFC 3768); adverts of the other one are discarded"
    )
    adver_int_cs: int = Field(
        default=100,
        ge=1,
        le=4095,
        description="Advertisement_Interval, centiseconds; version 2 knows whole seconds only",
    )
    checksum: Literal["rfc5798", "rfc9568"] = Field(
        default="rfc5798",
        description="checksum of what we send: with the pseudo-header, as keepalived and FRR demand, or of "
        "the message alone; both are accepted",
    )
    foreign: Literal["yield", "ignore"] = Field(
        default="yield",
        description="a VRRP router that is not the other node of the pair: a better one gets the link, as "
        "the RFC says, or it is ignored and counted (VRRP authenticates nobody: RFC 9568 section 9)",
    )


class FastpathSection(Section):
    """``[fastpath]``"""

    workers: int = Field(default=1, ge=1, le=16, description="worker threads of each node")
    poll_us: int = Field(
        default=50,
        ge=0,
        le=10000,
        description="a worker polls for so long after a frame, before it sleeps until the next one wakes it, "
        "microseconds; 0: it sleeps at once",
    )
    flow_cap: int = Field(
        default=131072,
        ge=1024,
        le=16777216,
        description="sessions in all, at most 200 bytes each",
    )
    syn_check: bool = Field(
        default=True, description="drop a TCP segment that belongs to no session and does not open one"
    )
    tcp_window: Literal["strict", "lenient"] = Field(
        default="strict", description="strict: drop a TCP segment that is out of its connection's window"
    )
    tcp_lenient_s: int = Field(
        default=30,
        ge=5,
        le=3600,
        description="after a takeover, how long the windows of inherited TCP sessions are learned before "
        "they are enforced again, seconds",
    )


class Timeouts(Section):
    """``[timeouts]``: idle time after which a session ends."""

    tcp_established_s: int = Field(
        default=7440, ge=7440, le=864000, description="TCP, established, seconds (RFC 5382 REQ-5)"
    )
    tcp_transitory_s: int = Field(
        default=240, ge=240, le=86400, description="TCP, opening, seconds (RFC 5382 REQ-5)"
    )
    tcp_closing_s: int = Field(
        default=240,
        ge=240,
        le=86400,
        description="TCP, closed by both sides or reset, seconds (RFC 7857 sections 2.1 and 2.2)",
    )
    udp_s: int = Field(default=300, ge=120, le=86400, description="UDP, seconds (RFC 4787 REQ-5)")
    icmp_s: int = Field(default=60, ge=60, le=86400, description="ICMP query, seconds (RFC 5508 REQ-2)")


class Limits(Section):
    """``[limits]``: what one inside address may take; 0: as much as there is.

    Addresses share counters: with a table full of others' sessions, an address may be refused a dozen or two
    before its limit, never later than at it.
    """

    sessions_per_source: int = Field(
        default=0, ge=0, le=16777216, description="sessions of one inside address (RFC 6888 REQ-5)"
    )
    ports_per_source: int = Field(
        default=0,
        ge=0,
        le=1048576,
        description="external ports of one inside address, over all protocols (RFC 6888 REQ-4)",
    )
    port_reuse_s: int = Field(
        default=120,
        ge=0,
        le=3600,
        description="how long a UDP or ICMP port of a pool with endpoint-independent filtering rests before "
        "it is given to somebody else (RFC 6888 REQ-8)",
    )


class Sync(Section):
    """``[sync]``: replication of sessions over the cross-connect."""

    batch_records: int = Field(default=1024, ge=16, le=4096, description="records in one batch at most")
    window_batches: int = Field(
        default=64, ge=2, le=1024, description="batches sent and not yet acknowledged at most"
    )
    resume_hold_s: int = Field(
        default=3600,
        ge=0,
        le=86400,
        description="how long changes are tracked for a peer that went away, seconds; what is tracked takes "
        "no memory of its own",
    )
    commit: Literal["async", "bounded", "strict"] = Field(
        default="bounded",
        description="packets of a session that the peer has not acknowledged: async lets them pass; bounded "
        "lets them wait for the acknowledgement, hold_ms at most; strict until it comes, and drops what "
        "has waited 3 seconds. While no peer is in sync nothing waits; one that lives, and whose connection "
        "broke, counts as in sync for 3 seconds",
    )
    hold_ms: int = Field(
        default=20,
        ge=1,
        le=1000,
        description="bounded: how long a packet waits at most, ms. Then new sessions do not wait until the "
        "peer is fast again",
    )
    lazy_ms: int = Field(
        default=100,
        ge=0,
        le=10000,
        description="how long a change that a takeover can do without (FIN, RST, rule, TCP windows) waits "
        "to be told together with those that follow it, ms",
    )
    refresh_s: int = Field(
        default=30,
        ge=5,
        le=3600,
        description="how often windows, counters and remaining time of sessions with traffic are told, "
        "seconds",
    )
    audit_s: int = Field(
        default=1,
        ge=1,
        le=60,
        description="how often the digests of the tables are compared, seconds",
    )
    tls: bool = Field(
        default=True,
        description="encrypt sync, and let only the peer's certificate in (TLS 1.3, both ends verified); "
        "false: a cable in a lab",
    )


# ---- what each node has of its own ------------------------------------------------------------------------
class Xc(Section):
    """``[nodes.X.xc]``: this node's end of the cross-connect."""

    device: Device = Field(description="network device in the node's namespace")
    address: Address = Field(description="this node's address; the daemon adds it and brings the link up")
    prefix_len: int = Field(
        default=30, ge=8, le=31, description="prefix length of the cross-connect's subnet"
    )
    mtu_policy: Literal["check", "raise"] = Field(
        default="check",
        description="the conduit needs an MTU of the largest port's and 62 bytes more, at both ends. check: "
        "do not start without; raise: set the device's MTU, if it is less",
    )


class NodePort(Section):
    """``[nodes.X.ports.NAME]``: a port as this node has it."""

    address: Address = Field(description="the node's own address on the wire; it never moves")
    mac: Mac | None = Field(
        default=None, description="the port's own MAC; by default derived from pair, node and port (02:...)"
    )
    netns: NetnsName | None = Field(
        default=None,
        description="network namespace (/run/netns/NAME) that the wire device is moved to; packet: that it "
        "is in",
    )
    bridge: Device | None = Field(default=None, description="bridge that the wire device is enslaved to")
    uplink: Device | None = Field(
        default=None, description="NIC that is a port of the same bridge: its carrier is the port's state"
    )
    driver: DriverName | None = Field(
        default=None, description="driver of this node's port; default as [ports.NAME] has it"
    )
    device: Device | None = Field(
        default=None,
        description="packet: the NIC or veth that is the wire, without an address, alone in netns",
    )
    wire_dev: Device | None = Field(
        default=None, description="name of the TAP towards the wire; default fx-PORT-NODE"
    )
    host_dev: Device | None = Field(
        default=None, description="name of the device towards the node's kernel; default PORT0, such as wan0"
    )
    offload: bool | None = Field(
        default=None, description="offload of this node's port; default as [ports.NAME] has it"
    )


class NodeBgp(Section):
    """``[nodes.X.bgp]``: this node's routing daemon."""

    router_id: Address | None = Field(
        default=None,
        description="BGP identifier; by default the node's address on the first port with a neighbour",
    )
    neighbours: Annotated[tuple[Address, ...], Field(strict=False, min_length=1, max_length=8)] | None = (
        Field(default=None, description="routers of this node; default bgp.neighbours")
    )
    vty_dir: AbsolutePath = Field(
        default="/run/frr",
        description="directory of FRR's control sockets; the daemon tells bgpd there who is ACTIVE",
    )


class Node(Section):
    """``[nodes.a]``, ``[nodes.b]``"""

    priority: int = Field(
        default=100,
        ge=1,
        le=254,
        description="VRRP priority, and who starts as ACTIVE; the higher one, or node a",
    )
    workers: int | None = Field(
        default=None, ge=1, le=16, description="worker threads of this node; default fastpath.workers"
    )
    cpus: Annotated[tuple[Cpu, ...], Field(strict=False, min_length=1, max_length=16)] | None = Field(
        default=None,
        description="the CPU of each worker, as many as there are workers; by default the scheduler chooses",
    )
    control: AbsolutePath | None = Field(
        default=None, description="control socket; default /run/flexha/PAIR-NODE.sock"
    )
    state_dir: AbsolutePath | None = Field(
        default=None,
        description="directory of what must outlive the daemon; default /var/lib/flexha/PAIR-NODE",
    )
    keys: AbsolutePath | None = Field(
        default=None,
        description="directory of the node's keys (flexhactl pair init); default /etc/flexha/PAIR-NODE",
    )
    metrics: Listen | None = Field(
        default=None, description="address:port of the Prometheus endpoint; none by default"
    )
    xc: Xc | None = Field(default=None, description="cross-connect; required when the pair has two nodes")
    bgp: NodeBgp = Field(default_factory=NodeBgp, description="its routing daemon, if there is [bgp]")
    ports: dict[PortName, NodePort] = Field(description="one table for each of [ports]")


class Config(Section):
    """The whole file."""

    pair: Pair = Field(description="the pair")
    ports: Annotated[dict[PortName, Port], Field(min_length=1, max_length=8)] = Field(
        description="data-plane ports"
    )
    pools: Annotated[tuple[Pool, ...], Field(strict=False, max_length=8)] = Field(
        default=(), description="NAT pools; those that serve a port share its sessions out by inside address"
    )
    policy: PolicySection = Field(default_factory=PolicySection, description="what no rule matches")
    rules: Annotated[tuple[Rule, ...], Field(strict=False, max_length=4096)] = Field(
        default=(), description="who may open which sessions; the first rule that matches decides"
    )
    forwards: Annotated[tuple[Forward, ...], Field(strict=False, max_length=1024)] = Field(
        default=(), description="inside servers that may be reached from outside"
    )
    routes: Annotated[tuple[Route, ...], Field(strict=False)] = Field(default=(), description="static routes")
    bgp: Bgp | None = Field(default=None, description="routing on the LAN by eBGP")
    ha: Ha = Field(default_factory=Ha, description="heartbeats and role")
    vrrp: Vrrp = Field(default_factory=Vrrp, description="virtual routers")
    fastpath: FastpathSection = Field(default_factory=FastpathSection, description="workers and tables")
    timeouts: Timeouts = Field(default_factory=Timeouts, description="session timeouts")
    limits: Limits = Field(default_factory=Limits, description="what one inside address may take")
    sync: Sync = Field(default_factory=Sync, description="replication")
    nodes: Annotated[dict[NodeName, Node], Field(min_length=1)] = Field(
        description="the nodes a and b; with only one, it has no peer"
    )
