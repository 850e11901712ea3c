# SPDX-License-Identifier: Apache-2.0
"""Fragments: what other RFCs than RFC 4787 ask of them, and workers that share them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import packets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nat_node import NatNode, nat_node
from packets import ICMP, LAN, SYN, TCP, UDP, WAN, Packet

QUERY = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], 4000, 53, payload=bytes(range(200)))
OPENING = Packet(TCP, packets.CLIENTS[0], packets.SERVERS[0], 4000, 80, flags=SYN, payload=bytes(100))
PING = Packet(ICMP, packets.CLIENTS[0], packets.SERVERS[0], 77, payload=bytes(range(200)) * 10)


@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as made:
        yield made


def verdicts(node: NatNode, packet: Packet, *pieces: tuple[int, int, bool]) -> list[str]:
    """Fragments of one packet, in this order: first byte, end, whether more follow."""
    frame = packet.from_lan()
    return [
        node.step(packets.fragment(frame, start, end, ident=1, more=more), LAN).verdict
        for start, end, more in pieces
    ]


def test_tiny_first_fragment(node: NatNode) -> None:
    """Spec: RFC 1858 section 3: the first fragment holds the whole TCP header, flags and options included."""
    assert verdicts(node, OPENING, (0, 16, True), (16, 120, False)) == ["frag_tiny"] * 2
    assert node.flows() == []


def test_second_fragment_within_the_tcp_header(node: NatNode) -> None:
    """Spec: RFC 3128: no fragment begins where the flags could be; the rest of the datagram goes with it."""
    assert verdicts(node, OPENING, (0, 40, True), (8, 40, True), (40, 120, False)) == [
        "snat",
        "frag_tiny",
        "frag_tiny",
    ]


@pytest.mark.parametrize("more", [False, True], ids=["the last", "not the last"])
def test_overlap(node: NatNode, more: bool) -> None:
    """Spec: RFC 5722 section 4: overlapping fragments damn the datagram, what is still to come included."""
    pieces = ((0, 40, True), (32, 80, more), (40, 208, False))
    assert verdicts(node, QUERY, *pieces) == ["snat", "frag_overlap", "frag_overlap"]


def test_duplicate(node: NatNode) -> None:
    """Spec: RFC 8200 section 4.5: a duplicate is dropped alone; what came first counts."""
    pieces = ((0, 40, True), (0, 40, True), (40, 80, True), (48, 56, True), (80, 208, False))
    assert verdicts(node, QUERY, *pieces) == ["snat", "frag_duplicate", "snat", "frag_duplicate", "snat"]


def test_echo_by_its_identifier(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-1, RFC 792: ping -s 2000, there and back, each of them out of order."""
    frames = packets.fragments(PING.from_lan(), 1480)
    assert node.step(frames[1], LAN).verdict == "frag_held"
    out = [node.step(frames[0], LAN), *node.released()]
    assert [frame.verdict for frame in out] == ["snat"] * 2
    sent = packets.parse(packets.assemble(frame.data for frame in out))
    frames = packets.fragments(sent.reply(payload=sent.payload).from_wan(), 1480)
    assert node.step(frames[1], WAN).verdict == "frag_held"
    out = [node.step(frames[0], WAN), *node.released()]
    assert [frame.verdict for frame in out] == ["reverse"] * 2
    received = packets.parse(packets.assemble(frame.data for frame in out))
    assert (received.dst, received.sport, received.payload) == (PING.src, PING.sport, PING.payload)


def test_no_session_by_a_later_fragment(node: NatNode) -> None:
    """R10: what follows a segment that may open no session opens none either."""
    stray = replace(OPENING, flags=packets.ACK)
    assert verdicts(node, stray, (0, 40, True), (40, 120, False)) == ["syn_check", "frag_no_session"]
    assert node.flows() == []


def test_identification_is_unique_outside(node: NatNode) -> None:
    """Spec: RFC 7857 §10, RFC 6864 section 5.3.1: clients may choose the same one at the same time."""
    seen = set()
    for client in packets.CLIENTS:
        frames = packets.fragments(replace(QUERY, src=client).from_lan(), 104, ident=42)
        out = [node.step(frame, LAN).data[18:20] for frame in frames]
        assert len(set(out)) == 1
        seen.add(out[0])
    assert len(seen) == len(packets.CLIENTS)


@pytest.mark.parametrize("workers", [1, 3])
def test_identification_of_what_is_cut_is_unique_outside(workers: int) -> None:
    """Spec: RFC 7857 §10, RFC 6864 section 5.3.1: whole until here, in fragments from here on."""
    config = packets.node_config()
    narrow = replace(config.ports[WAN], mtu=1280)
    with nat_node(replace(config, ports=(config.ports[LAN], narrow)), n_workers=workers) as node:
        seen = []
        for client in packets.CLIENTS:
            for size, forbidden in ((1300, False), (1000, False), (1000, True)):
                frame = replace(QUERY, src=client, payload=bytes(size)).from_lan()
                frame = packets.patch_ip(packets.patch_ip(frame, 4, 42), 6, 0x4000 * forbidden)
                out = node.step(frame, LAN)
                assert out.verdict == "snat"
                assert packets.checksum(out.data[14:34]) == 0
                seen.append(int.from_bytes(out.data[18:20], "big"))
        assert len(set(seen[::3]) - {42}) == len(packets.CLIENTS)
        assert set(seen[1::3] + seen[2::3]) == {42}


def test_held_for_five_seconds(node: NatNode) -> None:
    """RFC 4787 section 11: bounded in time as well."""
    first, second = packets.fragments(QUERY.from_lan(), 104)
    assert node.step(second, LAN).verdict == "frag_held"
    node.wait(4.9)
    assert node.counter("frag_timeout") == 0
    node.wait(0.2)
    assert node.counter("frag_timeout") == 1
    assert node.step(first, LAN).verdict == "snat"
    assert node.released() == []


@given(
    size=st.integers(1, 60).map(lambda n: n * 8),
    payload=st.binary(max_size=600),
    order=st.randoms(use_true_random=False),
    workers=st.sampled_from([1, 3]),
)
def test_what_leaves_is_the_translated_datagram(
    size: int, payload: bytes, order: Random, workers: int
) -> None:
    """Whatever sizes and order, and whoever holds them. Spec: RFC 4787 REQ-14, RFC 791 section 3.2."""
    packet = replace(QUERY, payload=payload)
    frames = packets.fragments(packet.from_lan(), max(size, 16 + len(payload) // 60 // 8 * 8))
    order.shuffle(frames)
    with nat_node(n_workers=workers) as node:
        out = [node.step(frame, LAN) for frame in frames]
        out = [frame for frame in out if frame.verdict != "frag_held"] + node.released()
    assert {frame.verdict for frame in out} == {"snat"}
    sent = packets.parse(packets.assemble(frame.data for frame in out))
    assert (sent.src, sent.payload) == (packets.WAN_VIP, payload)
