# SPDX-License-Identifier: Apache-2.0
"""eBGP with the LAN's routers: what a node's routing daemon is to speak, and what in it follows the role.

Both nodes announce the same prefixes, each with itself as next hop. Routers prefer ACTIVE, by a shorter
AS_PATH or a lower MULTI_EXIT_DISC (RFC 4271 §9.1.2.2), and fall back on the other node, whose conduit hands
on what it gets.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, Literal

from flexha.config.schema import Bgp, Config, NodeName

DEFAULT_ROUTE: Final = IPv4Network("0.0.0.0/0")
MED_ACTIVE: Final = 1_000_000_000
"""Less the term: who takes over from a dead node outranks what it has announced, which routers keep."""
MED_OTHER: Final = 2_000_000_000
PREPENDED: Final = 3
"""So many times the node that is not ACTIVE says its AS once more."""


@dataclass(frozen=True, slots=True)
class Speaker:
    """The BGP speaker of one node."""

    bgp: Bgp
    router_id: IPv4Address
    neighbours: tuple[IPv4Address, ...]
    announced: tuple[IPv4Network, ...]
    accepted: tuple[IPv4Network, ...]
    """What routers may announce to us, and parts of it."""


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """How a node's routing daemon is told of the role."""

    vty_dir: Path
    metric: Literal["med", "prepend"]
    local_as: int
    announced: tuple[IPv4Network, ...]


def neighbours(config: Config, name: NodeName) -> tuple[IPv4Address, ...]:
    """The routers of a node: its own ones, or the pair's."""
    if config.bgp is None:
        return ()
    own = config.nodes[name].bgp.neighbours
    return config.bgp.neighbours if own is None else own


def port_of(config: Config, address: IPv4Address) -> str:
    """The inside port whose wire the router is on."""
    return next(name for name, port in sorted(config.ports.items()) if address in port.prefix)


def ports(config: Config) -> frozenset[str]:
    """Ports that a router of either node is behind."""
    return frozenset(port_of(config, router) for name in config.nodes for router in neighbours(config, name))


def speaker(config: Config, name: NodeName) -> Speaker | None:
    """What the node's routing daemon is to speak; None: there is no ``[bgp]``."""
    if config.bgp is None:
        return None
    routers = neighbours(config, name)
    node = config.nodes[name]
    accepted = [net for port in sorted(ports(config)) for net in config.ports[port].networks]
    return Speaker(
        bgp=config.bgp,
        router_id=node.bgp.router_id or node.ports[port_of(config, routers[0])].address,
        neighbours=routers,
        announced=config.bgp.announce or (DEFAULT_ROUTE,),
        accepted=tuple(accepted),
    )


def plan(config: Config, name: NodeName) -> RoutingPlan | None:
    """For the daemon."""
    own = speaker(config, name)
    if own is None:
        return None
    vty_dir = Path(config.nodes[name].bgp.vty_dir)
    return RoutingPlan(vty_dir, own.bgp.metric, own.bgp.local_as, own.announced)
