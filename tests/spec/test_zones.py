# SPDX-License-Identifier: Apache-2.0
"""Two inside zones: what is for one of them never leaves for the ISP, whatever the routes are.

Spec: DESIGN section 2, "a flow pins its zones".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address

import packets
import pytest
from nat_node import NatNode, nat_node
from packets import LAN, UDP, WAN, Packet

from flexha.fastpath import Action, Form, Neighbour, Out, Policy, PortConfig, Route, Rule, Way

DMZ = 2
DMZ_MAC, DMZ_VMAC = bytes.fromhex("020000000077"), bytes.fromhex("00005e00013c")
CLIENT = packets.CLIENTS[0]
NET, BEHIND = IPv4Address("10.9.0.0"), IPv4Address("10.20.0.0")
ROUTER, HOST = IPv4Address("10.9.0.10"), IPv4Address("10.20.0.5")
TO_DMZ = (Route(NET, 24, DMZ), Route(BEHIND, 16, DMZ, ROUTER))
CONFIGURED = Route(BEHIND, 16, DMZ, way=Way.NOWHERE)
"""As the daemon says of ``[[routes]]``; prefixes of ports the fast path knows."""
ZONES = Rule(Action.ALLOW, form=Form.NONE, in_ports=(LAN, DMZ), out_ports=(LAN, DMZ))
SRC_MACS = {LAN: packets.CLIENT_MAC, WAN: packets.ISP_MAC, DMZ: DMZ_MAC}
VMACS = {LAN: packets.VMACS[LAN], WAN: packets.VMACS[WAN], DMZ: DMZ_VMAC}


@contextmanager
def two_zones(n_workers: int) -> Iterator[NatNode]:
    base = packets.node_config()
    dmz = replace(
        base.ports[LAN],
        name="dmz",
        address=IPv4Address("10.9.0.2"),
        mac=bytes.fromhex("02fc00000009"),
        wire_dev="fx-dmz",
        host_dev="dmz0",
        vrid=60,
        vmac=DMZ_VMAC,
        vips=(IPv4Address("10.9.0.1"),),
        peer_address=IPv4Address("10.9.0.3"),
        peer_mac=bytes.fromhex("02fc00000109"),
    )
    assert isinstance(dmz, PortConfig)
    with nat_node(replace(base, ports=(*base.ports, dmz)), n_workers=n_workers) as node:
        routed(node, TO_DMZ)
        node.fastpath.commit_policy(Policy(rules=(ZONES,)))
        yield node


def routed(node: NatNode, routes: Sequence[Route]) -> None:
    node.fastpath.commit_fib(
        (*packets.ROUTES, *routes, CONFIGURED), (*packets.NEIGHBOURS, Neighbour(ROUTER, DMZ_MAC, DMZ))
    )


def sent(node: NatNode, packet: Packet, port: int) -> tuple[str, int | None]:
    """Verdict, and the port that it left by."""
    out = node.step(packet.frame(VMACS[port], SRC_MACS[port]), port)
    return out.verdict, out.out_port if out.out is Out.WIRE else None


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("there", [ROUTER, HOST])
@pytest.mark.parametrize("opener", [LAN, DMZ])
def test_a_reply_never_follows_the_default_route(n_workers: int, there: IPv4Address, opener: int) -> None:
    """The zone of whoever is behind the DMZ loses its route; what the LAN says to it stays here."""
    for port in range(4000, 4008):  # other shards
        forth = Packet(UDP, CLIENT, there, port, 53, payload=b"?")
        back = forth.reply(payload=b"!")
        with two_zones(n_workers) as node:
            order = [(forth, LAN), (back, DMZ)]
            for packet, in_port in order if opener == LAN else order[::-1]:
                assert sent(node, packet, in_port) == ("routed", DMZ if in_port == LAN else LAN)
            routed(node, ())
            assert sent(node, forth, LAN) == ("zone_unreachable", None)
            routed(node, TO_DMZ)
            assert sent(node, forth, LAN) == ("routed", DMZ), "the session is still there"


@pytest.mark.parametrize("there", [ROUTER, HOST])
def test_nothing_new_leaves_for_the_isp_either(there: IPv4Address) -> None:
    with two_zones(1) as node:
        routed(node, ())
        assert sent(node, Packet(UDP, CLIENT, there, 4000, 53, payload=b"?"), LAN) == (
            "zone_unreachable",
            None,
        )
        assert not list(node.fastpath.flows())
        spoofed = Packet(UDP, there, packets.WAN_VIP, 53, 4000, payload=b"!")
        assert sent(node, spoofed, WAN)[1] is None


def test_another_way_inside_is_taken_and_another_outside_only_if_it_is_said() -> None:
    """An unreachable route gives way to any route inside, and to one of its own prefix."""
    probe = Packet(UDP, CLIENT, HOST, 4000, 53, payload=b"?")
    with two_zones(1) as node:
        routed(node, (Route(IPv4Address("10.0.0.0"), 8, DMZ, ROUTER),))
        assert sent(node, probe, LAN) == ("routed", DMZ)
    with two_zones(1) as node:
        routed(node, (Route(IPv4Address("10.0.0.0"), 8, WAN, packets.ISP),))
        assert sent(node, probe, LAN) == ("zone_unreachable", None)
        routed(node, (Route(BEHIND, 16, WAN, packets.ISP),))
        assert sent(node, probe, LAN) == ("snat", WAN)


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("form", [Form.SNAT, Form.NONE])
def test_a_host_of_another_zone_has_no_part_in_a_session(n_workers: int, form: Form) -> None:
    """Spec: RFC 2827: the DMZ may not go out, nor by the LAN's sessions, whatever source it claims."""
    rules = (
        Rule(Action.ALLOW, form=form, in_ports=(LAN,), out_ports=(WAN,)),
        Rule(Action.DENY, in_ports=(DMZ,)),
    )
    passes = ("snat" if form is Form.SNAT else "routed", WAN)
    with two_zones(n_workers) as node:
        node.fastpath.commit_policy(Policy(rules=rules))
        probe = Packet(UDP, CLIENT, packets.SERVERS[0], 4000, 53, payload=b"?")
        for port in range(4000, 4008):  # other shards
            probe = replace(probe, sport=port)
            assert sent(node, probe, LAN) == passes
            assert sent(node, probe, DMZ) == ("spoofed_session", None)
            error = packets.icmp_error(CLIENT, probe.reply().ip(), 3, 3)
            assert sent(node, error, DMZ)[1] is None
            assert sent(node, probe, LAN) == passes
        routed(node, (*TO_DMZ, Route(CLIENT, 32, DMZ, ROUTER)))
        assert sent(node, probe, DMZ) == passes, "its host is there now"
