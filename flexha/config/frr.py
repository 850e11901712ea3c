# SPDX-License-Identifier: Apache-2.0
"""FRR's configuration for one node (``frr.conf``: zebra, bgpd, bfdd), and the commands that follow the role.

The daemon changes one thing in it when the role does: the route-map that gives what this node announces its
attributes. Prefix lists say what else there may be: nothing from us, and from routers what is configured, so
that one which announces a default route, or a server's address, is not believed.
"""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Final, Literal

from flexha.config.bgp import MED_ACTIVE, MED_OTHER, PREPENDED, RoutingPlan, Speaker
from flexha.units import Term

SELF: Final = "FLEXHA-SELF"
"""Route-map of what this node announces: its one entry follows the role."""
OUT: Final = "FLEXHA-OUT"
"""Prefix list of what is announced: routers learn nothing from each other by us."""
IN: Final = "FLEXHA-IN"
"""Prefix list of what is accepted."""
BFD: Final = "flexha"
"""Name of the BFD profile."""


def preference(metric: Literal["med", "prepend"], local_as: int, reign: Term | None) -> str:
    """The line of the route-map that makes routers prefer this node, if it reigns, or the other one."""
    if metric == "med":
        return f"set metric {MED_OTHER if reign is None else max(1, MED_ACTIVE - reign)}"
    path = " ".join([str(local_as)] * PREPENDED)
    return f"set as-path prepend {path}" if reign is None else "no set as-path prepend"


def follow(plan: RoutingPlan, reign: Term | None) -> tuple[str, ...]:
    """What bgpd is told when the role changes; ``reign``: the term in which this node is ACTIVE, if it is.

    By itself it would use a changed route-map after five seconds (``bgp route-map delay-timer``). Naming what
    is announced once more makes it look, and the routers have it some 50 ms later. (With a route-map towards
    the neighbour and ``clear bgp * soft out`` it takes 100 ms; several neighbours make that 500.)
    """
    return (
        "enable",
        "configure terminal",
        f"route-map {SELF} permit 10",
        preference(plan.metric, plan.local_as, reign),
        "exit",
        f"router bgp {plan.local_as}",
        "address-family ipv4 unicast",
        *networks(plan.announced),
        "end",
    )


def networks(announced: tuple[IPv4Network, ...]) -> list[str]:
    """What is announced, with the attributes that the route-map gives it."""
    return [f"network {prefix} route-map {SELF}" for prefix in announced]


def render(speaker: Speaker, hostname: str) -> str:
    """``frr.conf``, for a node that is not ACTIVE: so it starts."""
    bgp = speaker.bgp
    lines = [
        f"! made by flexhactl routing show-config; flexhad changes route-map {SELF} with its role",
        "frr defaults traditional",
        f"hostname {hostname}",
        "log syslog informational",
        "!",
    ]
    if bgp.bfd:
        lines += [
            "bfd",
            f" profile {BFD}",
            f"  detect-multiplier {bgp.bfd.multiplier}",
            f"  receive-interval {bgp.bfd.interval_ms}",
            f"  transmit-interval {bgp.bfd.interval_ms}",
            " exit",
            "exit",
            "!",
        ]
    lines += [
        f"router bgp {bgp.local_as}",
        f" bgp router-id {speaker.router_id}",
        " no bgp network import-check",
        " coalesce-time 0",
        " no bgp default ipv4-unicast",
    ]
    for router in map(str, speaker.neighbours):
        lines += [
            f" neighbor {router} remote-as {bgp.router_as}",
            f" neighbor {router} timers {max(1, bgp.hold_s // 3)} {bgp.hold_s}",
            f" neighbor {router} timers connect {bgp.connect_s}",
        ]
        lines += [f" neighbor {router} bfd", f" neighbor {router} bfd profile {BFD}"] if bgp.bfd else []
    lines += [" address-family ipv4 unicast", *(f"  {line}" for line in networks(speaker.announced))]
    for router in map(str, speaker.neighbours):
        lines += [
            f"  neighbor {router} activate",
            f"  neighbor {router} prefix-list {IN} in",
            f"  neighbor {router} prefix-list {OUT} out",
        ]
    lines += [" exit-address-family", "exit", "!"]
    lines += [
        f"ip prefix-list {IN} seq {5 * number} permit {prefix}{'' if prefix.prefixlen == 32 else ' le 32'}"
        for number, prefix in enumerate(speaker.accepted, 1)
    ]
    lines += [
        f"ip prefix-list {OUT} seq {5 * number} permit {prefix}"
        for number, prefix in enumerate(speaker.announced, 1)
    ]
    lines += [
        "!",
        f"route-map {SELF} permit 10",
        f" {preference(bgp.metric, bgp.local_as, None)}",
        "exit",
    ]
    return "\n".join(lines) + "\n"
