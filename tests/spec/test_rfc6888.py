# SPDX-License-Identifier: Apache-2.0
"""RFC 6888: what carriers ask of a NAT besides, as far as a gateway needs it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import packets
import pytest
from nat_node import NatNode, filtering_node, nat_node
from packets import ACK, ICMP, LAN, SYN, TCP, UDP, WAN, Packet

from flexha.fastpath import Action, Filtering, Form, Limits, Out, Policy, PoolConfig, Rule, SteppedFrame

CLIENT, OTHER = packets.CLIENTS[:2]
SEND = Packet(UDP, CLIENT, packets.SERVERS[0], 5000, 53, payload=b"?")
OPEN = Packet(TCP, CLIENT, packets.SERVERS[0], 5000, 80, SYN, seq=1000)
PING = Packet(ICMP, CLIENT, packets.SERVERS[0], 5000)
EACH = pytest.mark.parametrize("packet", [OPEN, SEND, PING], ids=["tcp", "udp", "icmp"])
REUSE_S = 120
FEW = replace(packets.node_config().pools[0], port_lo=1024, port_hi=1151, filtering=Filtering.EIF)
"""A pool with two ports in each shard."""


@EACH
def test_req1_each_protocol_as_its_own_rfc_says(packet: Packet) -> None:
    """Spec: RFC 6888 REQ-1: in one example; the other tables have it in full."""
    with nat_node() as node:
        seen = [node.send(replace(packet, dst=server)) for server in packets.SERVERS]
        assert len({packet.sport for packet in seen}) == 1
        for sent in seen:
            back = node.receive(sent.reply(flags=SYN | ACK, seq=1, ack=1001))
            assert (back.dst, back.dport if packet.proto != ICMP else back.sport) == (CLIENT, 5000)


@pytest.fixture
def scattered() -> Iterator[NatNode]:
    """Pools on addresses that are no neighbours."""
    pools = [
        PoolConfig(name=f"p{i}", address=IPv4Address(address), out_port=WAN)
        for i, address in enumerate(("203.0.113.3", "203.0.113.6", "192.0.2.200", "198.18.7.1"))
    ]
    with nat_node(pools=tuple(pools)) as node:
        yield node


def test_req2_paired_pooling(scattered: NatNode) -> None:
    """Spec: RFC 6888 REQ-2, RFC 4787 REQ-2."""
    for i in range(40):
        client = IPv4Address("198.51.100.10") + i
        assert len({scattered.send(replace(SEND, src=client, sport=port)).src for port in range(1, 9)}) == 1


def test_req3_any_addresses_make_a_pool(scattered: NatNode) -> None:
    """Spec: RFC 6888 REQ-3: neither their number nor their neighbourhood matters; all of them are used."""
    clients = (IPv4Address("198.51.100.10") + i for i in range(64))
    assert len({scattered.send(replace(SEND, src=client)).src for client in clients}) == 4


# ---- limits ------------------------------------------------------------------------------------------
def verdicts(node: NatNode, first: Packet, n: int) -> list[str]:
    """What becomes of packets from ``n`` ports in a row, whether a sender was told or not."""
    outs = [node.outbound(replace(first, sport=first.sport + i)) for i in range(n)]
    return [out.verdict.removesuffix("_sent") for out in outs]


@pytest.mark.parametrize("workers", [1, 3])
def test_req4_external_ports_of_a_subscriber_are_limited(workers: int) -> None:
    """Spec: RFC 6888 REQ-4, a: by configuration, over all workers and protocols; others do not notice."""
    with nat_node(n_workers=workers, limits=Limits(ports_per_source=20)) as node:
        assert verdicts(node, SEND, 15) == ["snat"] * 15
        syn = Packet(TCP, CLIENT, SEND.dst, 6000, 443, packets.SYN)
        assert verdicts(node, syn, 15) == ["snat"] * 5 + ["port_limit"] * 10
        assert verdicts(node, replace(SEND, src=OTHER), 20) == ["snat"] * 20
        # A mapping that is there serves any number of remote ends.
        for server in packets.SERVERS:
            assert node.outbound(replace(SEND, dst=server)).verdict == "snat"
        node.wait(301)
        assert verdicts(node, replace(SEND, sport=9000), 20) == ["snat"] * 20


@pytest.mark.parametrize("workers", [1, 3])
def test_req5_sessions_of_a_subscriber_are_limited(workers: int) -> None:
    """Spec: RFC 6888 REQ-5, a: by configuration, over all workers; what is open goes on."""
    with nat_node(n_workers=workers, limits=Limits(sessions_per_source=10)) as node:
        assert verdicts(node, SEND, 15) == ["snat"] * 10 + ["source_limit"] * 5
        assert verdicts(node, SEND, 10) == ["snat"] * 10
        assert node.counter("source_limit_sent") == 5
        assert verdicts(node, replace(SEND, src=OTHER), 10) == ["snat"] * 10
        node.wait(301)
        assert verdicts(node, replace(SEND, sport=9000), 15) == ["snat"] * 10 + ["source_limit"] * 5


def test_req5_sessions_of_a_subscriber_by_a_rule() -> None:
    """Spec: RFC 6888 REQ-5: a rule may limit what it allows."""
    with nat_node(policy=Policy(rules=(Rule(Action.ALLOW, max_per_source=5),))) as node:
        for port in range(5):
            node.send(replace(SEND, dport=port + 1))
        assert node.outbound(replace(SEND, dport=9)).verdict == "source_limit_sent"
        node.send(replace(SEND, src=OTHER))
        node.send(replace(SEND, dport=5))
        node.wait(302)
        node.send(replace(SEND, dport=9))


def test_req6_translation_turned_off() -> None:
    """Spec: RFC 6888 REQ-6: for some destinations, addresses or ports."""
    there = Rule(Action.ALLOW, form=Form.NONE, dst=(IPv4Network("192.0.2.11/32"),))
    with nat_node(policy=Policy(rules=(there,))) as node:
        out = node.outbound(replace(SEND, dst=packets.SERVERS[1]))
        assert (out.verdict, out.out_port) == ("routed", WAN)
        seen = packets.parse(out.data)
        assert seen == replace(SEND, dst=packets.SERVERS[1], ttl=63)
        back = node.step(seen.reply().frame(packets.VMACS[WAN], packets.ISP_MAC), WAN)
        assert (back.verdict, back.out_port) == ("routed", LAN)
        assert node.send(SEND).src == packets.WAN_VIP


@EACH
def test_req7_endpoint_independent_filtering(packet: Packet) -> None:
    """Spec: RFC 6888 REQ-7: a pool may have it; pings of strangers the node answers itself."""
    with filtering_node(Filtering.EIF) as node:
        seen = node.send(packet)
        stranger = replace(seen.reply(), src=packets.SERVERS[2], flags=SYN)
        if packet.proto == ICMP:
            assert node.inbound(replace(stranger, icmp_type=packets.ECHO_REQUEST)).verdict == "vip_echo"
        else:
            assert node.receive(replace(stranger, sport=9)).dport == 5000


# ---- ports that are given again --------------------------------------------------------------------------
def pool_of_one(filtering: Filtering) -> tuple[PoolConfig, ...]:
    """One port of each parity in each shard, so that the next client of the shard wants the same one."""
    pool = PoolConfig(
        name="vip", address=packets.WAN_VIP, out_port=WAN, port_lo=20000, port_hi=20127, filtering=filtering
    )
    return (pool,)


def is_exhausted(out: SteppedFrame) -> bool:
    """No port is left; its sender may have been told."""
    return out.verdict in {"ports_exhausted", "ports_exhausted_sent"}


def free_again_after(node: NatNode, packet: Packet) -> int:
    """Seconds from the end of a mapping to when somebody else gets one of its shard's two ports."""
    (first,) = [flow.shard for flow in node.flows()]
    rivals = [
        rival
        for port in range(10000, 12000)
        if node.fastpath.test_shard(OTHER, port, packet.proto) == first
        for rival in [replace(packet, src=OTHER, sport=port)]
    ]
    assert node.outbound(rivals[0]).verdict == "snat"
    assert is_exhausted(node.outbound(rivals[1]))
    waited = 0
    while packet.src in {flow.inside for flow in node.flows()}:
        node.wait(10)
        node.outbound(rivals[0])
    while is_exhausted(node.outbound(rivals[1])):
        node.wait(10)
        waited += 10
        node.outbound(rivals[0])
    return waited


def test_req8_a_port_rests_before_somebody_else_gets_it() -> None:
    """Spec: RFC 6888 REQ-8: 120 s, when anybody may send to it."""
    pools = pool_of_one(Filtering.EIF)
    with nat_node(pools=pools, limits=Limits(port_reuse_s=REUSE_S)) as node:
        node.send(SEND)
        assert REUSE_S <= free_again_after(node, SEND) <= 2 * REUSE_S


def test_req8_exception_a_tcp_is_tracked() -> None:
    """Spec: RFC 6888 REQ-8 A."""
    pools = pool_of_one(Filtering.EIF)
    syn = Packet(TCP, CLIENT, SEND.dst, 6000, 443, SYN)
    with nat_node(pools=pools, limits=Limits(port_reuse_s=REUSE_S)) as node:
        node.send(syn)
        assert free_again_after(node, syn) <= 10


@pytest.mark.parametrize("filtering", [Filtering.ADF, Filtering.APDF])
def test_req8_exception_c_filtering_knows_the_remote(filtering: Filtering) -> None:
    """Spec: RFC 6888 REQ-8 C."""
    with nat_node(pools=pool_of_one(filtering), limits=Limits(port_reuse_s=REUSE_S)) as node:
        node.send(SEND)
        assert free_again_after(node, SEND) <= 10


# ---- exhaustion --------------------------------------------------------------------------------------
def test_ports_of_closed_connections_are_given_when_there_are_no_others() -> None:
    """Spec: RFC 5382 REQ-5, RFC 6888 REQ-8 A: rather a port from TIME_WAIT than a refusal."""
    pool = PoolConfig(name="vip", address=packets.WAN_VIP, out_port=WAN, port_lo=20000, port_hi=20127)
    with nat_node(pools=(pool,)) as node:
        syns = [
            Packet(TCP, IPv4Address("198.51.100.10"), SEND.dst, port, 443, SYN, seq=1)
            for port in range(10000, 30000)
            if node.fastpath.test_shard(CLIENT, port, TCP) == 5
        ][:3]
        seen = node.send(syns[0])
        node.send(syns[1])
        assert is_exhausted(node.outbound(syns[2]))
        # The server refuses the first one.
        reset = replace(seen.reply(), flags=packets.RST | packets.ACK, seq=0, ack=2)
        assert node.inbound(reset).verdict == "reverse"
        assert node.send(syns[2]).sport == seen.sport


def test_req11_a_refusal() -> None:
    """Spec: RFC 6888 REQ-11: the packet is dropped, its sender told (as RFC 5508 REQ-8 has it), the refusal
    counted; no session in use makes room (D).
    """
    with nat_node(flow_cap=64) as node:
        old = [replace(SEND, sport=port) for port in range(5000, 5064)]
        external = []
        for packet in old:
            sent = node.send(packet)
            node.receive(sent.reply())
            external.append(sent.sport)
        out = node.outbound(replace(SEND, src=OTHER))
        assert (out.verdict, out.out, out.out_port) == ("table_full_sent", Out.WIRE, LAN)
        assert packets.parse(out.data).dst == OTHER
        assert node.counter("table_full_sent") == 1
        assert [node.send(packet).sport for packet in old] == external
        assert len(node.flows()) == 64


def test_req12_destinations_are_not_logged() -> None:
    """Spec: RFC 6888 REQ-12: unless a rule asks for it."""
    asks = Rule(Action.ALLOW, log=True, dst=(IPv4Network("192.0.2.11/32"),))
    with nat_node(policy=Policy(rules=(asks,))) as node:
        node.send(SEND)
        assert node.fastpath.session_log() == []
        node.send(replace(SEND, dst=packets.SERVERS[1]))
        (line,) = node.fastpath.session_log()
        assert (line.source, line.destination, line.external) == (CLIENT, packets.SERVERS[1], packets.WAN_VIP)


@EACH
def test_req13_ports_are_used_up(packet: Packet) -> None:
    """Spec: RFC 6888 REQ-13: nobody is refused while his slice has a port, of whichever parity."""
    with nat_node(pools=(FEW,)) as node:
        external = set()
        for port in range(2000, 4000):
            out = node.outbound(replace(packet, sport=port))
            if out.verdict == "snat":
                external.add(packets.parse(out.data).sport)
            else:
                assert is_exhausted(out)
        assert external == set(range(1024, 1152))
