# SPDX-License-Identifier: Apache-2.0
"""Checks of ``[bgp]`` and of the prefixes behind ports, with the keys that they lean on."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING

from flexha.config.wires import outside

if TYPE_CHECKING:
    from flexha.config.cross import View

Findings = Iterator[str]


def check_networks(view: View) -> Findings:
    """What is behind one port is behind no other, on no wire, and is not everything."""
    owners: dict[IPv4Network, str] = {}
    for name, port in view.ports.items():
        for index, network in enumerate(port.networks):
            key = f"ports.{name}.networks[{index}]"
            if port.zone != "inside":
                yield f"{key}: {name} is outside; what is there goes by [[routes]], so remove it"
            if network.prefixlen == 0:
                yield f"{key}: {network} is everything; name the prefixes of the clients"
                continue
            for seen, owner in owners.items():
                if seen.overlaps(network):
                    yield f"{key}: {network} overlaps {owner} {seen}; part them, or remove the smaller one"
            owners.setdefault(network, key)
            for other, wire in view.ports.items():
                if wire.prefix.overlaps(network):
                    yield f"{key}: {network} overlaps ports.{other}.prefix {wire.prefix}; part them"


def check_bgp(view: View) -> Findings:
    """Routers are others' addresses on inside wires, and clients are behind them."""
    if view.bgp is None:
        for node in view.node_bgps:
            yield f"nodes.{node}.bgp: there is no [bgp] for it; add that table, or remove this one"
        return
    if view.bgp.local_as == view.bgp.router_as:
        yield (
            f"bgp.router_as: {view.bgp.router_as} is bgp.local_as too; the routers need another one, since "
            "sessions within one AS (iBGP) pass no routes on"
        )
    yield from _check_neighbours(view, "bgp.neighbours", view.bgp.neighbours)
    used: set[IPv4Address] = set()
    for node in view.node_names:
        table = view.node_bgps.get(node)
        own = table.neighbours if table else None
        if own is not None:
            yield from _check_neighbours(view, f"nodes.{node}.bgp.neighbours", own)
        elif not view.bgp.neighbours:
            yield f"bgp.neighbours: is missing; name the LAN's routers, or set nodes.{node}.bgp.neighbours"
        used |= set(view.bgp.neighbours if own is None else own)
    for name, port in view.ports.items():
        if port.zone == "inside" and not port.networks and any(router in port.prefix for router in used):
            yield (
                f"ports.{name}.networks: is missing; name the prefixes of the clients behind its routers: "
                "they are all that these may announce"
            )


def _check_neighbours(view: View, key: str, routers: tuple[IPv4Address, ...]) -> Findings:
    ours = {
        own.address: f"nodes.{node}.ports.{name}.address" for (node, name), own in view.node_ports.items()
    }
    ours |= {vip: f"a vip of ports.{name}" for name, port in view.ports.items() for vip in port.vips}
    for index, router in enumerate(routers):
        here = f"{key}[{index}]"
        if router in routers[:index]:
            yield f"{here}: {router} stands there twice; remove one"
        if router in ours:
            yield f"{here}: {router} is {ours[router]}; name a router of the LAN"
        wires = [port for port in view.ports.values() if router in port.prefix]
        if len(view.ports) < len(view.port_names):
            continue  # it may be on the wire of a port that is not valid yet
        if not wires or wires[0].zone != "inside":
            yield f"{here}: {router} is on no inside port's subnet; a router must be on the wire of one"
        elif reason := outside(router, wires[0].prefix):
            yield f"{here}: {router} {reason}"
