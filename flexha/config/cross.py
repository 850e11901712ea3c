# SPDX-License-Identifier: Apache-2.0
"""Checks that span several keys of the configuration.

They work on a ``View``: the pieces of a file that are valid by themselves, each under its concrete path. A
piece that is not valid is absent here (the schema reports it), and no check stumbles over its absence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, TypeVar

from pydantic import ValidationError

from flexha.config import cross_bgp, cross_policy
from flexha.config.derive import default_via
from flexha.config.naming import default_host_dev, port_driver, port_mac, wire_device
from flexha.config.schema import (
    NODE_NAMES,
    Bgp,
    FastpathSection,
    Forward,
    Ha,
    NodeBgp,
    NodeName,
    NodePort,
    Pool,
    Port,
    Route,
    Rule,
    Section,
    Vrrp,
    Xc,
)
from flexha.config.wires import known, outside
from flexha.core.vrrp_wire import CS_PER_S, VERSION_2

S = TypeVar("S", bound=Section)
Findings = Iterator[str]


@dataclass(frozen=True, slots=True)
class View:
    """The valid pieces. ``port_names`` and ``node_ports_named`` hold names whose table may be invalid."""

    pair_name: str
    port_names: tuple[str, ...]
    ports: Mapping[str, Port]
    pools: Mapping[int, Pool]
    pool_names: tuple[str, ...]
    rules: Mapping[int, Rule]
    forwards: Mapping[int, Forward]
    heartbeat_port: int | None
    ha: Ha | None
    vrrp: Vrrp | None
    bgp: Bgp | None
    node_bgps: Mapping[NodeName, NodeBgp]
    """Of nodes that have such a table."""
    routes: Mapping[int, Route]
    node_names: tuple[NodeName, ...]
    node_ports_named: Mapping[NodeName, tuple[str, ...]]
    node_ports: Mapping[tuple[NodeName, str], NodePort]
    xcs: Mapping[NodeName, Xc]
    xcs_named: frozenset[NodeName]
    paths: Mapping[NodeName, tuple[object, object, object]]
    threads: Mapping[NodeName, tuple[object, object]]
    """Number of workers, and their CPUs."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> View:
        """Cut a parsed TOML file into its pieces."""
        pair, ports = _table(raw.get("pair")), _table(raw.get("ports"))
        nodes = {name: _table(_table(raw.get("nodes")).get(name)) for name in NODE_NAMES}
        node_names = tuple(name for name in NODE_NAMES if name in _table(raw.get("nodes")))
        workers = _table(raw.get("fastpath")).get("workers", FastpathSection().workers)
        node_ports = {
            (node, name): piece
            for node in node_names
            for name, value in _table(nodes[node].get("ports")).items()
            if (piece := _valid(NodePort, value)) is not None
        }
        return cls(
            pair_name=str(pair.get("name", "")),
            port_names=tuple(sorted(ports)),
            ports=_valid_pieces(Port, ports.items()),
            pools=_valid_pieces(Pool, enumerate(_list(raw.get("pools")))),
            pool_names=tuple(
                str(_table(pool)["name"]) for pool in _list(raw.get("pools")) if "name" in _table(pool)
            ),
            rules=_valid_pieces(Rule, enumerate(_list(raw.get("rules")))),
            forwards=_valid_pieces(Forward, enumerate(_list(raw.get("forwards")))),
            heartbeat_port=ha.heartbeat_port if (ha := _valid(Ha, _table(raw.get("ha")))) else None,
            ha=ha,
            vrrp=_valid(Vrrp, _table(raw.get("vrrp"))),
            bgp=_valid(Bgp, raw.get("bgp")),
            node_bgps=_valid_pieces(
                NodeBgp, ((node, nodes[node]["bgp"]) for node in node_names if "bgp" in nodes[node])
            ),
            routes=_valid_pieces(Route, enumerate(_list(raw.get("routes")))),
            node_names=node_names,
            node_ports_named={
                node: tuple(_table(nodes[node]["ports"])) for node in node_names if "ports" in nodes[node]
            },
            node_ports=node_ports,
            xcs=_valid_pieces(Xc, ((node, nodes[node].get("xc")) for node in node_names)),
            xcs_named=frozenset(node for node in node_names if "xc" in nodes[node]),
            paths={
                node: (nodes[node].get("control"), nodes[node].get("state_dir"), nodes[node].get("keys"))
                for node in node_names
            },
            threads={
                node: (nodes[node].get("workers", workers), nodes[node].get("cpus")) for node in node_names
            },
        )


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _valid(model: type[S], value: object) -> S | None:
    try:
        return model.model_validate(value)
    except ValidationError:
        return None


K = TypeVar("K")


def _valid_pieces(model: type[S], items: Any) -> dict[Any, S]:
    return {key: piece for key, value in items if (piece := _valid(model, value)) is not None}


def problems(view: View) -> list[str]:
    """All findings, in the order of the file."""
    checks: tuple[Callable[[View], Findings], ...] = (
        _check_ports,
        cross_policy.check_pools,
        cross_policy.check_rules,
        cross_policy.check_forwards,
        _check_routes,
        cross_bgp.check_networks,
        cross_bgp.check_bgp,
        _check_tracks,
        _check_vrrp,
        _check_node_ports,
        _check_drivers,
        _check_devices,
        _check_macs,
        _check_xc,
        _check_paths,
        _check_cpus,
    )
    return [finding for check in checks for finding in check(view)]


def _check_ports(view: View) -> Findings:
    owners: dict[IPv4Address, str] = {}
    vrids: dict[int, str] = {}
    for name, port in view.ports.items():
        for index, vip in enumerate(port.vips):
            key = f"ports.{name}.vips[{index}]"
            if reason := outside(vip, port.prefix):
                yield f"{key}: {vip} {reason}"
            if vip in owners:
                yield f"{key}: {vip} stands at {owners[vip]} too; remove one of them"
            owners.setdefault(vip, key)
        if port.vrid in vrids:
            yield (
                f"ports.{name}.vrid: {port.vrid} is taken by {vrids[port.vrid]}; give each port its own, so "
                "that virtual MAC addresses stay distinct"
            )
        vrids.setdefault(port.vrid, f"ports.{name}")
        for other, seen in view.ports.items():
            if other < name and seen.prefix.overlaps(port.prefix):
                yield (
                    f"ports.{name}.prefix: {port.prefix} overlaps ports.{other}.prefix {seen.prefix}; part "
                    "them"
                )
    if len(view.ports) == len(view.port_names) > 0:
        for zone in ("inside", "outside"):
            if not any(port.zone == zone for port in view.ports.values()):
                yield f"ports: no port has zone {zone!r}; a NAT gateway needs one inside and one outside"


def _check_vrrp(view: View) -> Findings:
    vrrp = view.vrrp
    if vrrp is None:
        return
    if vrrp.version == VERSION_2 and vrrp.adver_int_cs % CS_PER_S:
        yield (
            f"vrrp.adver_int_cs: version 2 counts whole seconds, and {vrrp.adver_int_cs} is none; choose a "
            f"multiple of {CS_PER_S}"
        )
    if vrrp.foreign == "ignore" and len(view.node_names) == 1:
        yield 'vrrp.foreign: without a second node every router is a foreign one; write "yield"'


def _check_routes(view: View) -> Findings:
    seen: dict[tuple[IPv4Network, int], int] = {}
    for index, route in view.routes.items():
        key = f"routes[{index}]"
        identity = (route.prefix, route.metric)
        if identity in seen:
            yield (
                f"{key}.prefix: {route.prefix} stands at routes[{seen[identity]}] too; give it another metric"
            )
        seen.setdefault(identity, index)
        if route.port not in view.port_names:
            yield f"{key}.port: there is no ports.{route.port}; use one of: {known(view.port_names)}"
        elif port := view.ports.get(route.port):
            if reason := outside(route.via, port.prefix):
                yield f"{key}.via: {route.via} {reason}"
            if route.via in port.vips:
                yield f"{key}.via: {route.via} is our own virtual address; name the router behind it"
        for (node, name), own in view.node_ports.items():
            if own.address == route.via:
                yield f"{key}.via: {route.via} is nodes.{node}.ports.{name}.address; name another router"


def _check_tracks(view: View) -> Findings:
    for name, port in view.ports.items():
        key, track = f"ports.{name}.track", port.track
        if track.kind == "none":
            if track.target is not None:
                yield f'{key}.target: nobody asks it, {key}.kind is "none"; set it to "arp", or remove target'
            continue
        target = track.target or default_via(name, view.routes.values())
        if target is None:
            yield (
                f"{key}.target: is missing; there is no default route by {name}, so name the router to ask "
                f'there, or set {key}.kind to "none"'
            )
        elif target in port.vips or any(
            own.address == target for (_, other), own in view.node_ports.items() if other == name
        ):
            yield f"{key}.target: {target} is our own address; name the router behind the port"
        elif track.kind != "icmp" and (reason := outside(target, port.prefix)):
            yield f"{key}.target: {target} {reason}; beyond the wire only icmp asks"


def _check_node_ports(view: View) -> Findings:
    owners: dict[IPv4Address, str] = {}
    for node, named in view.node_ports_named.items():
        for name in named:
            if name not in view.port_names:
                yield f"nodes.{node}.ports.{name}: there is no ports.{name}; use: {known(view.port_names)}"
        for name in view.port_names:
            if name not in named:
                yield (
                    f"nodes.{node}.ports.{name}: is missing; add the table, with this node's address on "
                    f"{name}"
                )
    for (node, name), own in view.node_ports.items():
        key = f"nodes.{node}.ports.{name}"
        if own.address in owners:
            yield f"{key}.address: {own.address} is {owners[own.address]}.address too; give each node its own"
        owners.setdefault(own.address, key)
        if own.uplink is not None and own.bridge is None:
            yield f"{key}.uplink: needs {key}.bridge; name the bridge that {own.uplink} is a port of"
        if port := view.ports.get(name):
            if reason := outside(own.address, port.prefix):
                yield f"{key}.address: {own.address} {reason}"
            if own.address in port.vips:
                yield (
                    f"{key}.address: {own.address} is a vip of ports.{name}; a node needs an address of its "
                    "own"
                )


def _check_drivers(view: View) -> Findings:
    """Keys that only make sense with the other driver, or without which a driver cannot work."""
    for (node, name), own in view.node_ports.items():
        if (port := view.ports.get(name)) is None:
            continue
        key = f"nodes.{node}.ports.{name}"
        if port_driver(port, own) == "tap":
            if own.device is not None:
                yield (
                    f'{key}.device: the driver is tap, which makes its own device; set driver = "packet", or '
                    f"make {own.device} a port of a bridge and name that (bridge, uplink)"
                )
            continue
        if own.device is None:
            yield f"{key}.device: is missing; the driver is packet: name the NIC or veth that is the wire"
        if own.netns is None:
            yield (
                f"{key}.netns: is missing; the driver is packet: put the device into a network namespace of "
                "its own, so that no kernel answers beside us, and name that"
            )
        for field in ("bridge", "uplink", "wire_dev"):
            if getattr(own, field) is not None:
                yield f"{key}.{field}: the driver is packet: device is the wire itself; remove {field}"


def _check_devices(view: View) -> Findings:
    """Within a node no two devices share a name; wire devices of both nodes may meet in one namespace."""
    places: dict[tuple[str, str], str] = {}
    for (node, name), own in view.node_ports.items():
        key = f"nodes.{node}.ports.{name}"
        if (port := view.ports.get(name)) is None:
            continue
        wire, host = wire_device(port, own, name, node), own.host_dev or default_host_dev(name)
        packet = port_driver(port, own) == "packet"
        places_of = [("host_dev", host, f"node {node}")]
        if packet:
            places_of.append(("device", wire, f"node {node}'s netns {own.netns}"))
        else:
            places_of.append(("wire_dev", wire, f"netns {own.netns}" if own.netns else f"node {node}"))
            places_of.append(("wire_dev", wire, f"node {node}"))  # where it is made, before it is moved
        for field, device, place in places_of:
            taken = places.setdefault((place, device), f"{key}.{field}")
            if taken != f"{key}.{field}":
                yield f"{key}.{field}: {device!r} is {taken} too; choose another name"
        xc = view.xcs.get(node)
        if xc and xc.device in ({host} if packet else {wire, host}):
            yield f"nodes.{node}.xc.device: {xc.device!r} is a device of {key}; choose another name"


def _check_macs(view: View) -> Findings:
    owners: dict[str, str] = {}
    for (node, name), own in view.node_ports.items():
        if name not in view.port_names:
            continue
        key = f"nodes.{node}.ports.{name}.mac"
        index = view.port_names.index(name)
        mac = own.mac or port_mac(view.pair_name, NODE_NAMES.index(node), index).hex(":")
        if mac in owners:
            yield f"{key}: {mac} is {owners[mac]} too; give each port its own"
        owners.setdefault(mac, key)


def _check_xc(view: View) -> Findings:
    if view.ha and view.ha.conduit_port == view.ha.heartbeat_port:
        yield f"ha.conduit_port: {view.ha.conduit_port} is ha.heartbeat_port, UDP as well; choose another"
    if view.ha and view.ha.sync_port == view.ha.heartbeat_port:
        yield f"ha.sync_port: {view.ha.sync_port} is ha.heartbeat_port, where the life line is, TCP as well"
    if len(view.node_names) == len(NODE_NAMES):
        for node in view.node_names:
            if node not in view.xcs_named:
                yield f"nodes.{node}.xc: is missing; a pair needs a cross-connect, add device and address"
    networks: dict[NodeName, IPv4Network] = {}
    for node, xc in view.xcs.items():
        key = f"nodes.{node}.xc"
        network = networks[node] = IPv4Network((xc.address, xc.prefix_len), strict=False)
        if reason := outside(xc.address, network):
            yield f"{key}.address: {xc.address} {reason}"
        for name, port in view.ports.items():
            if network.overlaps(port.prefix):
                yield f"{key}.address: {network} overlaps ports.{name}.prefix {port.prefix}; part them"
    if len(networks) == len(NODE_NAMES):
        a, b = view.xcs["a"], view.xcs["b"]
        if a.address == b.address:
            yield f"nodes.b.xc.address: {b.address} is nodes.a.xc.address too; give each node its own"
        elif networks["a"] != networks["b"]:
            yield (
                f"nodes.b.xc.address: {networks['b']} is not the subnet of nodes.a.xc, {networks['a']}; put "
                "both in one (address and prefix_len)"
            )


def _check_paths(view: View) -> Findings:
    if len(view.paths) == len(NODE_NAMES):
        fields = ("control", "state_dir", "keys")
        for field, a, b in zip(fields, view.paths["a"], view.paths["b"], strict=True):
            if a is not None and a == b:
                yield f"nodes.b.{field}: {b!r} is nodes.a.{field} too; give each node its own"


def _check_cpus(view: View) -> Findings:
    for node, (workers, cpus) in view.threads.items():
        if not isinstance(cpus, list) or not isinstance(workers, int):
            continue
        key = f"nodes.{node}.cpus"
        if len(cpus) != workers:
            yield (
                f"{key}: {len(cpus)} for {workers} workers; name one for each worker, or set nodes.{node}."
                f"workers to {len(cpus)}"
            )
        if len(set(map(str, cpus))) != len(cpus):
            yield f"{key}: a CPU stands there twice; its workers would wait for each other: part them"
