# SPDX-License-Identifier: Apache-2.0
"""The lab's node with a second inside port, a policy with every form of a session, and random openers."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

import packets
from nat_node import NatNode
from packets import CLIENTS, ICMP, LAN, SERVERS, SYN, TCP, UDP, WAN, WAN_VIP, Packet

from flexha.fastpath import (
    Action,
    FastpathConfig,
    Filtering,
    Form,
    Forward,
    Neighbour,
    Policy,
    Route,
    Rule,
    Service,
    SteppedFrame,
)

DMZ = 2
GRE, ESP = 47, 50
DMZ_HOSTS = tuple(IPv4Address("10.9.0.10") + i for i in range(3))
HOSTS = (*((client, LAN) for client in CLIENTS[:3]), *((host, DMZ) for host in DMZ_HOSTS))
ROUTED = SERVERS[2]
"""Nobody's address is translated on the way to it."""
_DMZ_MACS = (bytes.fromhex("02fc00000009"), bytes.fromhex("02fc00000109"))
_VMACS = {LAN: packets.VMACS[LAN], WAN: packets.VMACS[WAN], DMZ: bytes.fromhex("00005e00013c")}
_INSIDE, _OUTSIDE = (LAN, DMZ), (WAN,)
_FORWARDED = (443, 5000, 40001, 80)
FORWARDS = (
    Forward(pool=0, external_port=443, inside=CLIENTS[1], inside_port=443, proto=TCP),
    Forward(pool=0, external_port=5000, inside=CLIENTS[1], inside_port=2001, proto=UDP),
    Forward(pool=0, external_port=40001, inside=DMZ_HOSTS[0], inside_port=2000, proto=UDP),
    Forward(pool=0, external_port=80, inside=DMZ_HOSTS[1], inside_port=2001, proto=TCP),
)


def config(node: int = 0) -> FastpathConfig:
    """Node a (0) or b (1)."""
    base = packets.node_config(node)
    dmz = replace(
        base.ports[LAN],
        name="dmz",
        address=IPv4Address("10.9.0.2") + node,
        mac=_DMZ_MACS[node],
        wire_dev="fx-dmz",
        host_dev="dmz0",
        vrid=60,
        vmac=_VMACS[DMZ],
        vips=(IPv4Address("10.9.0.1"),),
        peer_address=IPv4Address("10.9.0.3") - node,
        peer_mac=_DMZ_MACS[1 - node],
    )
    pool = replace(base.pools[0], filtering=Filtering.EIF)
    return replace(base, ports=(*base.ports, dmz), pools=(pool,))


def policy(*, routed_in: bool) -> Policy:
    """``routed_in``: ``ROUTED`` may open sessions to inside hosts."""
    to_routed = (IPv4Network(ROUTED),)
    rules = (
        Rule(Action.ALLOW, form=Form.NONE, in_ports=_OUTSIDE, src=to_routed),
        Rule(Action.ALLOW, form=Form.NONE, in_ports=_INSIDE, out_ports=_INSIDE),
        Rule(Action.ALLOW, form=Form.NONE, in_ports=_INSIDE, out_ports=_OUTSIDE, dst=to_routed),
        Rule(
            Action.ALLOW,
            in_ports=_INSIDE,
            out_ports=_OUTSIDE,
            services=tuple(Service(proto) for proto in (ICMP, TCP, UDP, GRE, ESP)),
        ),
    )
    return Policy(rules if routed_in else rules[1:], FORWARDS)


def connect(node: NatNode, rules: Policy) -> NatNode:
    """Next hops and rules."""
    neighbours = (*packets.NEIGHBOURS, *(Neighbour(host, packets.CLIENT_MAC, DMZ) for host in DMZ_HOSTS))
    routes = (*packets.ROUTES, Route(IPv4Address("10.9.0.0"), 24, DMZ))
    node.fastpath.commit_fib(routes, neighbours)
    node.fastpath.commit_policy(rules)
    return node


def frame(packet: Packet, port: int) -> bytes:
    """As it arrives on ``port``."""
    return packet.frame(_VMACS[port], packets.CLIENT_MAC)


@dataclass(frozen=True, slots=True)
class Sent:
    """A packet that left, and by which port."""

    packet: Packet
    port: int
    verdict: str


Opener = Callable[[Packet | None], tuple[Packet, int]]
"""Makes the packet and says by which port it comes; given is the packet behind whose external end it goes."""


def opener(rng: random.Random, *, fragments: bool = False) -> tuple[int, bool, Opener]:
    """A packet that may open a session: its protocol, and whether it wants to know an external end.

    What is drawn does not depend on the node, so that several may be sent the same.
    """
    kind = rng.choice(["out", "out", "zone", "forward", "mapping", "in", "routed-in"])
    proto = rng.choice([UDP, UDP, TCP, ICMP, GRE])
    (source, port), (other, _) = rng.choice(HOSTS), rng.choice(HOSTS)
    server, sport, dport = rng.choice(SERVERS), rng.choice([2000, 2001, 443]), rng.choice([53, 443])
    forwarded = rng.choice(_FORWARDED)
    size = {TCP: 0, UDP: 3000 if fragments and rng.random() < 0.5 else 4}.get(proto, 8)

    def make(mapped: Packet | None) -> tuple[Packet, int]:
        packet = Packet(
            proto,
            source,
            server,
            sport,
            0 if proto in {ICMP, GRE} else dport,
            flags=SYN if proto == TCP else 0,
            seq=1,
            payload=bytes(size),
        )
        external = forwarded if packet.dport else 0
        match kind:
            case "zone":
                return replace(packet, dst=other), port
            case "forward":
                return replace(packet, dst=WAN_VIP, dport=external), port
            case "mapping" if mapped is not None:
                return replace(packet, dst=mapped.src, dport=mapped.sport if packet.dport else 0), port
            case "in":
                sport_in = packet.dport or sport
                return replace(packet, src=server, dst=WAN_VIP, sport=sport_in, dport=external), WAN
            case "routed-in":
                dport_in = sport if packet.dport else 0
                sport_in = packet.dport or sport
                return replace(packet, src=ROUTED, dst=source, sport=sport_in, dport=dport_in), WAN
            case _:
                return packet, port

    return proto, kind == "mapping", make


def answer(packet: Packet) -> Packet:
    """What the receiver of a packet sends back."""
    if packet.proto != TCP:
        return packet.reply()
    if packet.flags == SYN:
        return packet.reply(flags=SYN | packets.ACK, seq=1, ack=packet.seq + 1)
    return packet.reply(flags=packets.ACK, seq=packet.ack, ack=packet.seq + bool(packet.flags & SYN))


def leaving(frames: list[SteppedFrame]) -> Sent | None:
    """The packet, put together, that frames which left make up."""
    if not frames:
        return None
    data = frames[0].data if len(frames) == 1 else packets.assemble(each.data for each in frames)
    return Sent(packets.parse(data), frames[0].out_port, frames[0].verdict)
