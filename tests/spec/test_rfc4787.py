# SPDX-License-Identifier: Apache-2.0
"""RFC 4787: what a NAT does to unicast UDP.

More about fragments: test_fragments.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import pairwise

import packets
import pytest
from nat_node import NatNode, filtering_node, nat_node
from packets import UDP, Packet

from flexha.fastpath import Filtering, PoolConfig

QUERY = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], 4000, 53, payload=b"?")


@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as made:
        yield made


def test_req1_one_mapping_for_all_remote_endpoints(node: NatNode) -> None:
    """Spec: RFC 4787 REQ-1."""
    seen = {
        node.send(replace(QUERY, dst=server, dport=port)).sport
        for server in packets.SERVERS
        for port in (53, 123, 40000)
    }
    assert len(seen) == 1


def test_req2_a_client_keeps_its_address(node: NatNode) -> None:
    """Spec: RFC 4787 REQ-2 ("Paired"): sessions of one client use one external address."""
    config = packets.node_config()
    second = PoolConfig(name="second", address=IPv4Address("203.0.113.2"), out_port=packets.WAN)
    with nat_node(config, pools=(*config.pools, second)) as other:
        for client in packets.CLIENTS:
            used = {other.send(replace(QUERY, src=client, sport=5000 + i)).src for i in range(30)}
            assert len(used) == 1


def test_req3_no_port_overloading(node: NatNode) -> None:
    """Spec: RFC 4787 REQ-3: two inside endpoints never share an external one."""
    seen = set()
    for i in range(600):
        client, server = packets.CLIENTS[i % 4], packets.SERVERS[i % 3]
        seen.add(node.send(replace(QUERY, src=client, dst=server, sport=2000 + i)).sport)
    assert len(seen) == 600
    assert min(seen) >= 1024


def test_req4_parity_is_preserved(node: NatNode) -> None:
    """Spec: RFC 4787 REQ-4; RFC 7857 §8."""
    for sport in range(30000, 30040):
        assert node.send(replace(QUERY, sport=sport)).sport % 2 == sport % 2


def test_req5_a_mapping_lives_two_minutes_and_more(node: NatNode) -> None:
    """Spec: RFC 4787 REQ-5: not less than 2 minutes; the default is 5."""
    sent = node.send(QUERY)
    node.wait(299)
    assert node.inbound(sent.reply()).verdict == "reverse"
    node.wait(301)
    assert node.inbound(sent.reply()).verdict == "no_session"


def test_req6_outbound_traffic_refreshes(node: NatNode) -> None:
    """Spec: RFC 4787 REQ-6."""
    sent = node.send(QUERY)
    for _ in range(5):
        node.wait(250)
        assert node.send(QUERY).sport == sent.sport
    node.wait(299)
    assert node.inbound(sent.reply()).verdict == "reverse"


@pytest.mark.parametrize(
    ("filtering", "other_host", "other_port"),
    [
        (Filtering.EIF, "reverse", "reverse"),
        (Filtering.ADF, "filtered", "reverse"),
        (Filtering.APDF, "filtered", "filtered"),
    ],
)
def test_req8_who_may_send_to_a_mapping(filtering: Filtering, other_host: str, other_port: str) -> None:
    """Spec: RFC 4787 REQ-8: each pool has one of the three ways of filtering, whatever its mappings do."""
    with filtering_node(filtering) as node:
        sent = node.send(QUERY)
        assert node.inbound(replace(sent.reply(), src=packets.SERVERS[1])).verdict == other_host
        assert node.inbound(replace(sent.reply(), sport=54)).verdict == other_port
        assert node.inbound(replace(sent.reply(), dport=sent.sport ^ 2)).verdict == "no_session"
        assert node.receive(sent.reply()).dport == QUERY.sport
        if other_host == "reverse":
            answer = replace(QUERY, dst=packets.SERVERS[1])
            assert node.send(answer).sport == sent.sport


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_req9_hairpinning(n_workers: int) -> None:
    """Spec: RFC 4787 REQ-9, a: two clients behind the NAT, each known to the other by its external endpoint.

    The halves of the way have owners of their own: with several workers the packet is handed on between.
    """
    with filtering_node(Filtering.EIF, n_workers=n_workers) as node:
        for i in range(40):
            one = replace(QUERY, sport=4000 + 2 * i)
            other = replace(QUERY, src=packets.CLIENTS[1], sport=6000 + 2 * i)
            outside = [node.send(packet) for packet in (one, other)]
            forth = replace(one, dst=outside[1].src, dport=outside[1].sport)
            seen = node.hairpin(forth)
            assert (seen.src, seen.sport) == (outside[0].src, outside[0].sport)
            assert (seen.dst, seen.dport, seen.payload, seen.ttl) == (other.src, other.sport, b"?", 63)
            back = node.hairpin(seen.reply())
            assert (back.src, back.sport) == (forth.dst, forth.dport)
            assert (back.dst, back.dport) == (one.src, one.sport)


def test_req9_hairpinned_packets_are_filtered_too() -> None:
    """Spec: RFC 4787 REQ-9, REQ-8: as if the packet had come from outside."""
    with filtering_node(Filtering.ADF) as node:
        one, other = QUERY, replace(QUERY, src=packets.CLIENTS[1], sport=6000)
        outside = [node.send(packet) for packet in (one, other)]
        forth = replace(one, dst=outside[1].src, dport=outside[1].sport)
        assert node.outbound(forth).verdict == "filtered"
        node.outbound(replace(other, dst=outside[0].src, dport=outside[0].sport))
        assert node.hairpin(forth).dst == other.src


def test_req11_behaviour_does_not_change_under_pressure() -> None:
    """Spec: RFC 4787 REQ-11: a full table refuses new sessions, and leaves the old ones as they are."""
    with nat_node(flow_cap=64) as node:
        queries = [replace(QUERY, sport=2000 + i) for i in range(80)]
        verdicts = []
        for query in queries:
            out = node.outbound(query)
            verdicts.append(out.verdict)
            if out.verdict == "snat":
                node.receive(packets.parse(out.data).reply())
        assert verdicts == ["snat"] * 64 + ["table_full_sent"] * 16
        assert [node.outbound(query).verdict for query in queries[:64]] == ["snat"] * 64


def test_req11_a_flood_of_openers_displaces_itself() -> None:
    """Spec: RFC 4787 REQ-11: who was answered stays; the oldest of those who were not goes first."""
    with nat_node(flow_cap=64) as node:
        served = replace(QUERY, sport=1999)
        seen = node.send(served)
        node.receive(seen.reply())
        for i in range(200):
            node.send(replace(QUERY, sport=2000 + i))
        assert {flow.inside_port for flow in node.flows()} == {1999, *range(2137, 2200)}
        assert node.send(served).sport == seen.sport


def test_ports_are_not_to_be_guessed() -> None:
    """Spec: RFC 7857 §9, RFC 6888 REQ-15, RFC 6056: no port follows from the one before, nor from a start."""

    def ports(table_key: bytes) -> list[int]:
        with nat_node(table_key=table_key) as node:
            return [node.send(replace(QUERY, sport=2000 + i)).sport for i in range(50)]

    one, two = ports(b"a" * 16), ports(b"b" * 16)
    steps = {after - before for before, after in pairwise(one)}
    assert len(steps) > 40
    assert sum(a == b for a, b in zip(one, two, strict=True)) < 5


def test_req12_icmp_passes_whoever_sends_it_and_ends_no_mapping(node: NatNode) -> None:
    """Spec: RFC 4787 REQ-12, a, b: a router on the way complains, not the server."""
    seen = node.send(QUERY)
    mappings = node.flows()
    for source in ("192.0.2.10", "192.0.2.254", "203.0.113.1", "10.0.0.1"):
        out = node.inbound(packets.icmp_error(IPv4Address(source), seen.ip(), 3, 3))
        message = packets.parse(out.data)
        assert (out.verdict, str(message.src), message.dst) == ("icmp_error_in", source, QUERY.src)
    assert node.flows() == mappings


def test_req13_a_packet_too_big_for_the_path_ahead() -> None:
    """Spec: RFC 4787 REQ-13 (and test_rfc1812.py): DF set, so the sender is told."""
    config = packets.node_config()
    narrow = replace(config.ports[packets.WAN], mtu=1280)
    with nat_node(replace(config, ports=(config.ports[packets.LAN], narrow))) as other:
        assert other.outbound(replace(QUERY, payload=bytes(1300))).verdict == "frag_needed_sent"
        unforbidden = packets.patch_ip(replace(QUERY, payload=bytes(1300)).from_lan(), 6, 0)
        assert other.step(unforbidden, packets.LAN).verdict == "snat", "cut on its way out (csrc/ip_cut.h)"


LONG = replace(QUERY, payload=bytes(range(250)) * 16)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)], ids=str)
def test_req14_fragments_in_any_order(node: NatNode, order: tuple[int, ...]) -> None:
    """Spec: RFC 4787 REQ-14: both directions."""

    def through(frames: list[bytes], port: int, verdict: str) -> Packet:
        out = [node.step(frames[i], port) for i in order]
        held = order.index(0)
        assert [frame.verdict for frame in out] == ["frag_held"] * held + [verdict] * (3 - held)
        released = node.released()
        assert [frame.verdict for frame in released] == [verdict] * held
        return packets.parse(packets.assemble(frame.data for frame in (*out[held:], *released)))

    sent = through(packets.fragments(LONG.from_lan(), 1480), packets.LAN, "snat")
    assert (sent.src, sent.payload) == (packets.WAN_VIP, LONG.payload)
    answer = sent.reply(payload=LONG.payload[::-1])
    received = through(packets.fragments(answer.from_wan(), 1480), packets.WAN, "reverse")
    assert (received.dst, received.dport) == (QUERY.src, QUERY.sport)
    assert received.payload == answer.payload


def test_req14a_exhaustion_by_fragments_harms_nobody_else(node: NatNode) -> None:
    """Spec: RFC 4787 REQ-14: a flood of fragments without a first; the others still get through."""
    orphan = packets.fragments(LONG.from_lan(), 1480)[1]
    for ident in range(2000):
        node.step(packets.patch_ip(orphan, 4, 10000 + ident), packets.LAN)
    assert node.counter("frag_table_full") >= 2000 - 256
    node.send(QUERY)
    out = [node.step(frame, packets.LAN) for frame in packets.fragments(LONG.from_lan(), 1480, ident=1)]
    assert [frame.verdict for frame in out] == ["snat"] * 3
    out = [node.step(frame, packets.LAN) for frame in packets.fragments(LONG.from_lan(), 1480, ident=2)[::-1]]
    assert [frame.verdict for frame in out] == ["frag_held", "frag_held", "snat"]
