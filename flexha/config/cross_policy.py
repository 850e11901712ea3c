# SPDX-License-Identifier: Apache-2.0
"""Checks of pools, rules and forwards that span several keys; see ``cross``."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from flexha.config.policy import forward_ports, port_names_of, protocols_of
from flexha.config.schema import Forward, Pool, Rule
from flexha.config.values import INTERFACE, NO_NAT, PROTOCOLS, PortRange
from flexha.config.wires import known, outside

if TYPE_CHECKING:
    from flexha.config.cross import View

Findings = Iterator[str]

POOL_PORTS_MIN = 128
"""A pair of ports for each of the 64 shards (RFC 4787 REQ-4 keeps parity)."""
FORWARDS_MAX = 1024
"""POLICY_FORWARDS_MAX of csrc/policy.h: one for each protocol and external port."""
LISTED_MAX = 16384
"""POLICY_PREFIXES_MAX, POLICY_SERVICES_MAX: what stands in the lists of all rules."""

_WITH_PORTS = frozenset({PROTOCOLS["tcp"], PROTOCOLS["udp"]})


# ---- pools ---------------------------------------------------------------------------------------------
def check_pools(view: View) -> Findings:
    """Names, ports, addresses and ranges."""
    names: dict[str, int] = {}
    for index, pool in view.pools.items():
        key = f"pools[{index}]"
        if pool.name in names:
            yield f"{key}.name: {pool.name!r} is taken by pools[{names[pool.name]}]; choose another"
        names.setdefault(pool.name, index)
        if pool.name == NO_NAT:
            yield f"{key}.name: {NO_NAT!r} means no translation in a rule; choose another"
        yield from _check_range(view, index, pool)
        if pool.port not in view.port_names:
            yield f"{key}.port: there is no ports.{pool.port}; use one of: {known(view.port_names)}"
        elif (port := view.ports.get(pool.port)) and port.zone != "outside":
            yield f"{key}.port: ports.{pool.port} has zone {port.zone!r}; a pool serves an outside port"
        else:
            yield from _check_address(view, key, pool)


def _check_range(view: View, index: int, pool: Pool) -> Findings:
    key, ports = f"pools[{index}]", PortRange(pool.port_lo, pool.port_hi)
    if pool.port_hi - pool.port_lo + 1 < POOL_PORTS_MIN:
        yield (
            f"{key}.port_hi: {pool.port_lo}..{pool.port_hi} has fewer than {POOL_PORTS_MIN} ports; widen "
            "the range, each of the 64 shards needs a pair"
        )
    for earlier, other in view.pools.items():
        if earlier >= index or other.address != pool.address:
            continue
        if other.port != pool.port:
            if pool.address != INTERFACE:
                yield f"{key}.port: {pool.address} is on {other.port} by pools[{earlier}]; name that port"
        elif ports.overlaps(PortRange(other.port_lo, other.port_hi)):
            yield (
                f"{key}.port_lo: {pool.port_lo}..{pool.port_hi} overlaps pools[{earlier}], which has "
                f"{other.port_lo}..{other.port_hi} of the same address; part the ranges"
            )


def _check_address(view: View, key: str, pool: Pool) -> Findings:
    port = view.ports.get(pool.port)
    if isinstance(pool.address, str):
        if pool.routed:
            yield f"{key}.routed: the node's own address is on the wire; remove routed, or name an address"
        if view.heartbeat_port is not None and pool.port_lo <= view.heartbeat_port <= pool.port_hi:
            yield (
                f"{key}.port_lo: {pool.port_lo}..{pool.port_hi} of the node's own address contains "
                f"ha.heartbeat_port {view.heartbeat_port}; part them"
            )
        return
    for (node, name), own in view.node_ports.items():
        if own.address == pool.address:
            yield (
                f"{key}.address: {pool.address} is nodes.{node}.ports.{name}.address, which does not move; "
                f'choose a vip, or write "{INTERFACE}"'
            )
    for index, route in view.routes.items():
        if route.via == pool.address:
            yield f"{key}.address: {pool.address} is routes[{index}].via; choose an address of our own"
    for name, other in view.ports.items():
        if pool.address in other.vips and name != pool.port:
            yield f"{key}.address: {pool.address} is a vip of ports.{name}; choose one of ports.{pool.port}"
    if port is None or pool.address in port.vips:
        return
    on_link = pool.address in port.prefix
    if not on_link and not pool.routed:
        yield (
            f"{key}.address: {pool.address} is neither in ports.{pool.port}.prefix {port.prefix} nor routed; "
            "choose an address of that subnet, or set routed = true if the router there has a route to us"
        )
    elif on_link and (reason := outside(pool.address, port.prefix)):
        yield f"{key}.address: {pool.address} {reason}"


# ---- rules ---------------------------------------------------------------------------------------------
def check_rules(view: View) -> Findings:
    """Names, and what can match at all."""
    names: dict[str, int] = {}
    for index, rule in view.rules.items():
        key = f"rules[{index}]"
        if rule.name in names:
            yield f"{key}.name: {rule.name!r} is taken by rules[{names[rule.name]}]; choose another"
        names.setdefault(rule.name, index)
        yield from _check_places(view, key, rule)
        yield from _check_services(key, rule)
        yield from _check_nat(view, key, rule)
        yield from _check_sync(view, key, rule)
    for what, listed in (
        ("src and dst", sum(len(rule.src or ()) + len(rule.dst or ()) for rule in view.rules.values())),
        ("ports", sum(len(rule.ports or ()) * len(protocols_of(rule)) for rule in view.rules.values())),
    ):
        if listed > LISTED_MAX:
            yield f"rules: {what} have {listed} entries in all; keep them to {LISTED_MAX}"


def _check_places(view: View, key: str, rule: Rule) -> Findings:
    for field, names in (("from", rule.from_), ("to", rule.to)):
        for name in names or ():
            if name not in {*view.port_names, "inside", "outside"}:
                yield (
                    f"{key}.{field}: there is no port or zone {name!r}; use one of: "
                    f"{known((*view.port_names, 'inside', 'outside'))}"
                )


def _check_services(key: str, rule: Rule) -> Findings:
    for field, ports in (("ports", rule.ports), ("sport", rule.sport)):
        if ports is not None and not _WITH_PORTS.issuperset(protocols_of(rule)):
            yield f"{key}.{field}: only tcp and udp have ports; make proto tcp or udp, or remove {field}"


def _check_nat(view: View, key: str, rule: Rule) -> Findings:
    for field, value in (
        ("nat", rule.nat),
        ("sessions_per_source", rule.sessions_per_source),
        ("commit", rule.commit),
        ("sync", rule.sync),
    ):
        if value is not None and rule.action != "allow":
            yield f"{key}.{field}: a rule that does not allow opens no session; remove {field}"
    pools = {pool.name: pool for pool in view.pools.values()}
    leaves = port_names_of(rule.to, view.ports)
    for name in rule.nat or ():
        if name == NO_NAT:
            if len(rule.nat or ()) > 1:
                yield f"{key}.nat: {NO_NAT!r} stands beside a pool; give one or the other"
        elif name not in view.pool_names:
            yield f"{key}.nat: there is no pool {name!r}; use {NO_NAT} or one of: {known(view.pool_names)}"
        elif (pool := pools.get(name)) and rule.to is not None and pool.port not in leaves:
            yield (
                f"{key}.nat: pool {name!r} serves ports.{pool.port}, which {key}.to does not name; add it "
                "there, or choose another pool"
            )


def _check_sync(view: View, key: str, rule: Rule) -> Findings:
    """Who waits for an acknowledgement must be told about."""
    if rule.commit in {None, "async"}:
        return
    if rule.sync is not None and rule.sync.kind != "now":
        yield (
            f'{key}.commit: with sync = "{rule.sync}" the peer is not told when a session begins, so nothing '
            "can wait for its acknowledgement; remove commit, or sync"
        )
    for name in rule.nat or ():
        if any(pool.name == name and pool.address == INTERFACE for pool in view.pools.values()):
            yield (
                f"{key}.commit: sessions of pool {name!r} do not survive a failover, and wait for nothing; "
                "remove commit, or choose another pool"
            )


# ---- forwards ------------------------------------------------------------------------------------------
def check_forwards(view: View) -> Findings:
    """Names, what is reached, and that no external port is given twice."""
    names: dict[str, int] = {}
    pools = {pool.name: pool for pool in view.pools.values()}
    taken: dict[tuple[object, int], list[tuple[PortRange, int]]] = {}
    size = 0
    for index, forward in view.forwards.items():
        key = f"forwards[{index}]"
        if forward.name in names:
            yield f"{key}.name: {forward.name!r} is taken by forwards[{names[forward.name]}]; choose another"
        names.setdefault(forward.name, index)
        yield from _check_forward(view, key, forward)
        size += sum(1 for _ in forward_ports(forward))
        if forward.pool not in view.pool_names:
            yield f"{key}.pool: there is no pool {forward.pool!r}; use one of: {known(view.pool_names)}"
        elif pool := pools.get(forward.pool):
            address = pool.address if isinstance(pool.address, IPv4Address) else pool.port
            for proto in protocols_of(forward):
                rows = taken.setdefault((address, proto), [])
                for ports in forward.ports:
                    for other, owner in rows:
                        if ports.overlaps(other):
                            yield (
                                f"{key}.ports: {ports} overlaps {other} of forwards[{owner}] on the same "
                                "address; part them"
                            )
                    rows.append((ports, index))
                    if pool.address == INTERFACE and view.heartbeat_port is not None:
                        yield from _check_heartbeats(key, ports, proto, view.heartbeat_port)
    if size > FORWARDS_MAX:
        yield f"forwards: {size} ports are forwarded in all; keep them to {FORWARDS_MAX}"


def _check_heartbeats(key: str, ports: PortRange, proto: int, heartbeat_port: int) -> Findings:
    if proto == PROTOCOLS["udp"] and ports.lo <= heartbeat_port <= ports.hi:
        yield f"{key}.ports: {ports} of the node's own address contains ha.heartbeat_port; part them"


def _check_forward(view: View, key: str, forward: Forward) -> Findings:
    if not _WITH_PORTS.issuperset(protocols_of(forward)):
        yield f"{key}.proto: only tcp and udp can be forwarded; make it tcp, udp or both"
    if forward.to_port is not None:
        if len(forward.ports) > 1:
            yield f"{key}.to_port: there are several external ports or ranges; make a forward for each"
        elif (last := forward.to_port + forward.ports[0].hi - forward.ports[0].lo) > 65535:
            yield f"{key}.to_port: the last port would be {last}; lower it, or shorten the range"
    if len(view.ports) < len(view.port_names):
        return
    inside = {name: port for name, port in view.ports.items() if port.zone == "inside"}
    own = {vip for port in view.ports.values() for vip in port.vips} | {
        port.address for port in view.node_ports.values()
    }
    if forward.to in own:
        yield f"{key}.to: {forward.to} is an address of the pair itself; name an inside server"
    for name, port in inside.items():
        if forward.to in port.prefix:
            if reason := outside(forward.to, port.prefix):
                yield f"{key}.to: {forward.to} {reason}, of ports.{name}"
            return
    if not any(route.port in inside and forward.to in route.prefix for route in view.routes.values()):
        yield (
            f"{key}.to: {forward.to} is not on the inside; name an address of the prefix of an inside port, "
            "or add a route through one"
        )
