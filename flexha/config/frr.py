# SPDX-License-Identifier: Apache-2.0
"""FRR's configuration for one node (``frr.conf``: zebra, bgpd, bfdd), and the commands that follow the role.

Two things in it are ours to name: the route-map that all we announce goes through, and whose one entry the
daemon changes when the role does; and the prefix list of what routers may announce. So a router that
announces a default route, or a server's address, is not believed.
"""

from __future__ import annotations

from typing import Final, Literal

from flexha.config.bgp import MED_ACTIVE, MED_OTHER, PREPENDED, Speaker

OUT: Final = "FLEXHA-OUT"
"""Route-map and prefix list of what is announced."""
IN: Final = "FLEXHA-IN"
"""Prefix list of what is accepted."""
BFD: Final = "flexha"
"""Name of the BFD profile."""


def preference(metric: Literal["med", "prepend"], local_as: int, *, active: bool) -> str:
    """The line of the route-map that makes routers prefer this node, or the other one."""
    if metric == "med":
        return f"set metric {MED_ACTIVE if active else MED_OTHER}"
    path = " ".join([str(local_as)] * PREPENDED)
    return "no set as-path prepend" if active else f"set as-path prepend {path}"


def follow(metric: Literal["med", "prepend"], local_as: int, *, active: bool) -> tuple[str, ...]:
    """What bgpd is told when the role changes.

    By itself it would announce a changed route-map after five seconds (``bgp route-map delay-timer``).
    """
    return (
        "enable",
        "configure terminal",
        f"route-map {OUT} permit 10",
        preference(metric, local_as, active=active),
        "end",
        "clear bgp ipv4 unicast * soft out",
    )


def render(speaker: Speaker, hostname: str) -> str:
    """``frr.conf``, for a node that is not ACTIVE: so it starts."""
    bgp = speaker.bgp
    lines = [
        f"! made by flexhactl routing show-config; flexhad changes route-map {OUT} with its role",
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
        " no bgp default ipv4-unicast",
    ]
    for router in map(str, speaker.neighbours):
        lines += [
            f" neighbor {router} remote-as {bgp.router_as}",
            f" neighbor {router} timers {max(1, bgp.hold_s // 3)} {bgp.hold_s}",
            f" neighbor {router} timers connect {bgp.connect_s}",
        ]
        lines += [f" neighbor {router} bfd", f" neighbor {router} bfd profile {BFD}"] if bgp.bfd else []
    lines += [" address-family ipv4 unicast", *(f"  network {prefix}" for prefix in speaker.announced)]
    for router in map(str, speaker.neighbours):
        lines += [
            f"  neighbor {router} activate",
            f"  neighbor {router} prefix-list {IN} in",
            f"  neighbor {router} route-map {OUT} out",
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
        f"route-map {OUT} permit 10",
        f" match ip address prefix-list {OUT}",
        f" {preference(bgp.metric, bgp.local_as, active=False)}",
        "exit",
    ]
    return "\n".join(lines) + "\n"
