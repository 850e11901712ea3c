# SPDX-License-Identifier: Apache-2.0
"""From the pair's configuration and a node's name to what each part of that node must know.

Pure: what is random per start (incarnation, table key, flow ids) comes in as ``Draw``.

Indices. Ports are numbered by the rank of their name, pools by their place in the file; synced records carry
these numbers, so both nodes must derive the same ones. Port ``i`` is heartbeat path ``1 + i``; path 0 is xc.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path
from typing import Literal

from flexha.config import bgp, equal
from flexha.config.naming import (
    control_path,
    default_host_dev,
    keys_path,
    pair_id,
    peer_name,
    port_driver,
    port_mac,
    state_path,
    virtual_mac,
    wire_device,
)
from flexha.config.policy import COMMIT
from flexha.config.schema import NODE_NAMES, Config, DriverName, NodeName, NodePort, Port, Route
from flexha.config.values import INTERFACE
from flexha.core.node import ChecksumForm, DampLimits, NodeConfig, SyncLimits, TrackedPort, VrrpPort
from flexha.fastpath import records as fp

DRIVERS: Mapping[DriverName, fp.Driver] = {"tap": fp.Driver.TAP, "packet": fp.Driver.PACKET}
_FILTERING = {
    "endpoint-independent": fp.Filtering.EIF,
    "address-dependent": fp.Filtering.ADF,
    "address-and-port-dependent": fp.Filtering.APDF,
}

CONDUIT_OVERHEAD = 14 + 20 + 8 + 20
"""Ethernet header of the packet within, IPv4, UDP, Geneve with its option (``csrc/conduit.h``)."""

XC_PATH = "xc"
"""Name of the heartbeat path over the cross-connect."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What is drawn anew at each start of the daemon."""

    incarnation: int
    """64 bits: tells this start of the daemon from an earlier one, which had a lower one."""
    table_key: bytes
    """16 bytes: key of the flow table's hash, never shared."""
    flow_id_base: int
    """Flow ids made in this life start above, so that ids never recur."""
    mac_key: bytes
    """16 bytes: signs heartbeats; of the node's keys, or, without a peer, anything."""


@dataclass(frozen=True, slots=True)
class PlugPlan:
    """How a port is attached to the wire and to the node's own kernel."""

    port: str
    index: int
    driver: DriverName
    wire_dev: str
    """tap: made by us; packet: it was there before."""
    host_dev: str
    mac: bytes
    interface: IPv4Interface
    vips: tuple[IPv4Address, ...]
    mtu: int
    netns: str | None
    bridge: str | None
    uplink: str | None


@dataclass(frozen=True, slots=True)
class HopPlan:
    """How a port's next hop is asked whether it is there."""

    port: str
    index: int
    kind: Literal["arp", "icmp", "neighbour"]
    target: IPv4Address
    interval_ms: int
    misses: int
    device: str
    """Towards the node's kernel: probes leave by it."""
    mac: bytes
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool as this node has it."""

    name: str
    port: str
    address: IPv4Address
    port_lo: int
    port_hi: int
    filtering: str
    survives: bool
    """False: its address is this node's own, and its sessions end with the node."""


@dataclass(frozen=True, slots=True)
class StaticRoute:
    """A route for the kernel's main table."""

    prefix: IPv4Network
    via: IPv4Address
    device: str
    metric: int


@dataclass(frozen=True, slots=True)
class XcPlan:
    """The cross-connect, seen from one node."""

    device: str
    interface: IPv4Interface
    peer: IPv4Address | None
    sync_port: int
    connects: bool
    """Node b connects to node a; node a listens."""
    mtu: int = 0
    """What the conduit needs; 0: nothing, there is no peer."""
    raise_mtu: bool = False


@dataclass(frozen=True, slots=True)
class KeysPlan:
    """What the node authenticates itself with."""

    directory: Path
    tls: bool
    """False: sync is neither encrypted nor authenticated; heartbeats have their keys in any case."""


@dataclass(frozen=True, slots=True)
class NodePlan:
    """All that ``flexha.shell`` needs to run one node."""

    pair: str
    name: NodeName
    core: NodeConfig
    plugs: tuple[PlugPlan, ...]
    hops: tuple[HopPlan, ...]
    """Of the ports whose next hop is asked."""
    routes: tuple[StaticRoute, ...]
    xc: XcPlan | None
    keys: KeysPlan | None
    """None: there is no peer."""
    control: Path
    state_dir: Path
    metrics: tuple[str, int] | None
    pools: tuple[PoolPlan, ...]
    cpus: tuple[int, ...]
    """Of the workers; none: the scheduler chooses."""
    routing: bgp.RoutingPlan | None = None
    """None: the LAN is not routed by eBGP."""

    @property
    def port_names(self) -> tuple[str, ...]:
        """Names in the order of their indices."""
        return tuple(plug.port for plug in self.plugs)

    @property
    def pool_names(self) -> tuple[str, ...]:
        """Names in the order of their indices."""
        return tuple(pool.name for pool in self.pools)


def _ports(config: Config) -> tuple[str, ...]:
    return tuple(sorted(config.ports))


def _mac(config: Config, name: NodeName, port: str) -> bytes:
    own = config.nodes[name].ports[port]
    if own.mac is not None:
        return bytes.fromhex(own.mac.replace(":", ""))
    return port_mac(config.pair.name, NODE_NAMES.index(name), _ports(config).index(port))


def _peer_port(config: Config, name: NodeName, port: str) -> NodePort | None:
    peer = config.nodes.get(peer_name(name))
    return peer.ports[port] if peer else None


def _netns_path(shared: Port, own: NodePort) -> str:
    """Where the fast path itself must go for the wire; it makes a TAP where it is, and the shell moves it."""
    if own.netns is None or port_driver(shared, own) == "tap":
        return ""
    return f"/run/netns/{own.netns}"


_WEIGHT = {"inside": 10, "outside": 50}
"""Of a port whose configuration names none: an outside port outweighs the inside ones of most pairs."""


def _tracked(config: Config, name: str) -> TrackedPort:
    """A LAN that is routed by eBGP finds its way by the peer: its loss moves no role, and nothing is lent."""
    port, routed = config.ports[name], name in bgp.ports(config)
    weight = 0 if routed else _WEIGHT[port.zone]
    weight = weight if port.track.weight is None else port.track.weight
    return TrackedPort(
        name, inside=port.zone == "inside", weight=weight, up_ms=port.track.up_ms, lendable=not routed
    )


def node_config(config: Config, name: NodeName) -> NodeConfig:
    """What the pure core must know."""
    peer = peer_name(name) in config.nodes
    ports = []
    for port in _ports(config):
        shared, own = config.ports[port], config.nodes[name].ports[port]
        other = _peer_port(config, name, port)
        ports.append(
            VrrpPort(
                name=port,
                vrid=shared.vrid,
                vips=shared.vips,
                address=own.address,
                peer_address=other.address if other else None,
                mac=_mac(config, name, port),
            )
        )
    return NodeConfig(
        pair=config.pair.name,
        index=NODE_NAMES.index(name),
        priority=config.nodes[name].priority,
        ports=tuple(ports),
        tracked=tuple(_tracked(config, port) for port in _ports(config)),
        paths=(XC_PATH, *_ports(config)),
        has_peer=peer,
        preempt=config.ha.preempt,
        preempt_hold_s=float(config.ha.preempt_hold_s),
        damping=DampLimits(
            config.ha.flap_max, float(config.ha.flap_window_s), float(config.ha.flap_suspend_s)
        ),
        interval_ms=config.ha.interval_ms,
        dead_after=config.ha.dead_after,
        start_hold_ms=config.ha.start_hold_ms,
        adver_int_cs=config.vrrp.adver_int_cs,
        checksum=ChecksumForm(config.vrrp.checksum),
        vrrp_version=config.vrrp.version,
        hears_foreign=config.vrrp.foreign == "yield",
        equal=equal.parts(config),
        sync=SyncLimits(
            window_batches=config.sync.window_batches,
            batch_records=config.sync.batch_records,
            resume_hold_s=float(config.sync.resume_hold_s),
            audit_s=float(config.sync.audit_s),
        ),
    )


def pools(config: Config, name: NodeName) -> tuple[PoolPlan, ...]:
    """The pools, "interface" replaced by the node's own address."""
    return tuple(
        PoolPlan(
            name=pool.name,
            port=pool.port,
            address=config.nodes[name].ports[pool.port].address
            if isinstance(pool.address, str)
            else pool.address,
            port_lo=pool.port_lo,
            port_hi=pool.port_hi,
            filtering=pool.filtering,
            survives=pool.address != INTERFACE,
        )
        for pool in config.pools
    )


def fastpath_config(config: Config, name: NodeName, draw: Draw) -> fp.FastpathConfig:
    """What the C fast path must know."""
    node, peer = config.nodes[name], config.nodes.get(peer_name(name))
    names = _ports(config)
    ports = []
    for port in names:
        shared, own = config.ports[port], node.ports[port]
        other = _peer_port(config, name, port)
        ports.append(
            fp.PortConfig(
                name=port,
                zone=fp.Zone.INSIDE if shared.zone == "inside" else fp.Zone.OUTSIDE,
                address=own.address,
                plen=shared.prefix.prefixlen,
                mac=_mac(config, name, port),
                driver=DRIVERS[port_driver(shared, own)],
                wire_dev=wire_device(shared, own, port, name),
                wire_netns=_netns_path(shared, own),
                host_dev=own.host_dev or default_host_dev(port),
                mtu=shared.mtu,
                offload=shared.offload if own.offload is None else own.offload,
                vrid=shared.vrid,
                vmac=virtual_mac(shared.vrid),
                vips=shared.vips,
                peer_address=other.address if other else None,
                peer_mac=_mac(config, peer_name(name), port) if other else None,
            )
        )
    return fp.FastpathConfig(
        ports=tuple(ports),
        pools=tuple(
            fp.PoolConfig(
                name=pool.name,
                address=pool.address,
                out_port=names.index(pool.port),
                port_lo=pool.port_lo,
                port_hi=pool.port_hi,
                filtering=_FILTERING[pool.filtering],
                survives=pool.survives,
            )
            for pool in pools(config, name)
        ),
        pulse=fp.PulseConfig(
            pair_id=pair_id(config.pair.name),
            node_index=NODE_NAMES.index(name),
            incarnation=draw.incarnation,
            mac_key=draw.mac_key,
            interval_ms=config.ha.interval_ms,
            dead_after=config.ha.dead_after,
            udp_port=config.ha.heartbeat_port,
            confirm_ms=min(config.ha.confirm_ms, config.ha.interval_ms * config.ha.dead_after),
            lease_ms=config.ha.lease_ms,
            control_dead_ms=config.ha.control_dead_ms,
            worker_dead_ms=config.ha.worker_dead_ms,
            xc_device=node.xc.device if node.xc and peer else "",
            xc_address=node.xc.address if node.xc and peer else None,
            xc_peer_address=peer.xc.address if node.xc and peer and peer.xc else None,
            xc_plen=node.xc.prefix_len if node.xc and peer else 0,
            conduit_port=config.ha.conduit_port,
        ),
        shard_key=bytes.fromhex(config.pair.secret),
        table_key=draw.table_key,
        flow_id_base=draw.flow_id_base,
        n_workers=node.workers or config.fastpath.workers,
        cpus=node.cpus or (),
        poll_us=config.fastpath.poll_us,
        flow_cap=config.fastpath.flow_cap,
        syn_check=config.fastpath.syn_check,
        tcp_strict=config.fastpath.tcp_window == "strict",
        tcp_lenient_s=config.fastpath.tcp_lenient_s,
        timeouts=fp.Timeouts(
            tcp_transitory_s=config.timeouts.tcp_transitory_s,
            tcp_established_s=config.timeouts.tcp_established_s,
            tcp_closing_s=config.timeouts.tcp_closing_s,
            udp_s=config.timeouts.udp_s,
            icmp_s=config.timeouts.icmp_s,
        ),
        limits=fp.Limits(
            sessions_per_source=config.limits.sessions_per_source,
            ports_per_source=config.limits.ports_per_source,
            port_reuse_s=config.limits.port_reuse_s,
        ),
        sync=fp.SyncConfig(
            lazy_ms=config.sync.lazy_ms,
            refresh_s=config.sync.refresh_s,
            hold_ms=config.sync.hold_ms,
            commit=COMMIT[config.sync.commit],
        ),
    )


def networks(config: Config) -> tuple[tuple[IPv4Network, int], ...]:
    """Prefixes behind the routers of inside ports, and the index of each one's port."""
    return tuple(
        (network, index)
        for index, name in enumerate(_ports(config))
        for network in config.ports[name].networks
    )


def inside_routes(config: Config) -> tuple[fp.Route, ...]:
    """What lies behind inside ports, whether or not the kernel has a way there at the moment."""
    names = _ports(config)
    static = [
        (route.prefix, names.index(route.port))
        for route in config.routes
        if config.ports[route.port].zone == "inside"
    ]
    return tuple(
        fp.Route(prefix.network_address, prefix.prefixlen, port, way=fp.Way.NOWHERE)
        for prefix, port in dict.fromkeys((*static, *networks(config)))
    )


def learned_ports(config: Config) -> frozenset[int]:
    """Ports behind which eBGP finds the ways, on either node: what one has no way to, the other may have."""
    if len(config.nodes) < len(NODE_NAMES):
        return frozenset()
    return frozenset(map(_ports(config).index, bgp.ports(config)))


def default_via(port: str, routes: Iterable[Route]) -> IPv4Address | None:
    """The next hop of the default route by this port, of the best one if there are several."""
    defaults = [route for route in routes if route.port == port and route.prefix.prefixlen == 0]
    return min(defaults, key=lambda route: route.metric).via if defaults else None


def _hop(config: Config, plug: PlugPlan) -> HopPlan | None:
    track = config.ports[plug.port].track
    target = track.target or default_via(plug.port, config.routes)
    if track.kind == "none" or target is None:
        return None
    return HopPlan(
        port=plug.port,
        index=plug.index,
        kind=track.kind,
        target=target,
        interval_ms=track.interval_ms,
        misses=track.misses,
        device=plug.host_dev,
        mac=plug.mac,
        address=plug.interface.ip,
    )


def configured_routes(config: Config) -> tuple[fp.Route, ...]:
    """What lies behind each port by the configuration: its own subnet, and what is routed there."""
    names = _ports(config)
    own = [config.ports[name].prefix for name in names]
    return (
        *(fp.Route(prefix.network_address, prefix.prefixlen, port) for port, prefix in enumerate(own)),
        *(
            fp.Route(route.prefix.network_address, route.prefix.prefixlen, names.index(route.port), route.via)
            for route in config.routes
        ),
        *(
            fp.Route(prefix.network_address, prefix.prefixlen, port)
            for prefix, port in networks(config)
            if prefix not in {route.prefix for route in config.routes}
        ),
    )


def node_plan(config: Config, name: NodeName) -> NodePlan:
    """All that the shell needs, the fast path's own configuration apart."""
    node, peer = config.nodes[name], config.nodes.get(peer_name(name))
    plugs = []
    for index, port in enumerate(_ports(config)):
        shared, own = config.ports[port], node.ports[port]
        plugs.append(
            PlugPlan(
                port=port,
                index=index,
                driver=port_driver(shared, own),
                wire_dev=wire_device(shared, own, port, name),
                host_dev=own.host_dev or default_host_dev(port),
                mac=_mac(config, name, port),
                interface=IPv4Interface((own.address, shared.prefix.prefixlen)),
                vips=shared.vips,
                mtu=shared.mtu,
                netns=own.netns,
                bridge=own.bridge,
                uplink=own.uplink,
            )
        )
    host_devs = {plug.port: plug.host_dev for plug in plugs}
    xc = None
    if node.xc:
        xc = XcPlan(
            device=node.xc.device,
            interface=IPv4Interface((node.xc.address, node.xc.prefix_len)),
            peer=peer.xc.address if peer and peer.xc else None,
            sync_port=config.ha.sync_port,
            connects=name == "b",
            mtu=max(port.mtu for port in config.ports.values()) + CONDUIT_OVERHEAD if peer else 0,
            raise_mtu=node.xc.mtu_policy == "raise",
        )
    metrics = None
    if node.metrics:
        host, _, port_number = node.metrics.rpartition(":")
        metrics = (host, int(port_number))
    return NodePlan(
        pair=config.pair.name,
        name=name,
        core=node_config(config, name),
        plugs=tuple(plugs),
        hops=tuple(hop for plug in plugs if (hop := _hop(config, plug)) is not None),
        routes=tuple(
            StaticRoute(route.prefix, route.via, host_devs[route.port], route.metric)
            for route in config.routes
        ),
        xc=xc,
        keys=KeysPlan(keys_path(config, name), config.sync.tls) if peer else None,
        control=control_path(config, name),
        state_dir=state_path(config, name),
        metrics=metrics,
        pools=pools(config, name),
        cpus=node.cpus or (),
        routing=bgp.plan(config, name),
    )
