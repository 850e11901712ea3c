# SPDX-License-Identifier: Apache-2.0
"""Packets that are wrong: each length, each bound and each lie about an address has a verdict of its own.

More of them between kernels: tests/netns/test_bad_input.py; frames and damaged ARP: test_translation.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import packets
import pytest
from nat_node import NatNode, filtering_node, nat_node
from packets import ICMP, LAN, SYN, TCP, UDP, WAN, Packet

from flexha.fastpath import Filtering, Out

CLIENT, SERVER = packets.CLIENTS[0], packets.SERVERS[0]
SEND = Packet(UDP, CLIENT, SERVER, 4000, 53, payload=bytes(range(60)))
OPEN = Packet(TCP, CLIENT, SERVER, 4000, 80, SYN, seq=1)
PING = Packet(ICMP, CLIENT, SERVER, 77, payload=bytes(40))


@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as made:
        yield made


def from_lan(ip: bytes) -> bytes:
    return packets.VMACS[LAN] + packets.CLIENT_MAC + b"\x08\0" + ip


def header(ihl: int, total: int, proto: int = UDP, options: bytes = b"") -> bytes:
    """An IPv4 header that claims these lengths; its checksum is right for ``ihl`` words."""
    head = struct.pack("!BBHHHBBH", 0x40 | ihl, 0, total, 1, 0, 64, proto, 0) + CLIENT.packed + SERVER.packed
    head += options
    summed = (head + bytes(60))[: max(ihl, 5) * 4]
    return head[:10] + packets.checksum(summed).to_bytes(2, "big") + head[12:]


def syn_with(options: bytes, offset: int) -> bytes:
    """A SYN whose header claims ``offset`` words; its checksum is right."""
    body = struct.pack("!HHIIBBHHH", 4000, 80, 1, 0, offset << 4, SYN, 1000, 0, 0) + options
    pseudo = CLIENT.packed + SERVER.packed + struct.pack("!HH", TCP, len(body))
    value = packets.checksum(pseudo + body)
    return body[:16] + value.to_bytes(2, "big") + body[18:]


# ---- lengths -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("ihl", range(16))
def test_every_length_of_the_ip_header(node: NatNode, ihl: int) -> None:
    """Spec: RFC 791 §3.1, RFC 7126 §3: too short is malformed; longer means options, which are not routed."""
    options = bytes(max(ihl - 5, 0) * 4)
    frame = from_lan(header(ihl, 20 + len(options) + 68, options=options) + SEND.l4())
    wanted = "ip_malformed" if ihl < 5 else "snat" if ihl == 5 else "ip_options"
    assert node.step(frame, LAN).verdict == wanted


@pytest.mark.parametrize("kind", [0, 1, 7, 68, 130, 131, 137, 148, 255])
def test_every_length_of_an_ip_option(node: NatNode, kind: int) -> None:
    """Spec: RFC 7126 §3: whatever an option says of itself, it is not looked into."""
    for length in range(256):
        options = bytes([kind, length, 4, 0]) + bytes(36)
        frame = from_lan(header(15, 60 + 68, options=options) + SEND.l4())
        assert node.step(frame, LAN).verdict == "ip_options"


@pytest.mark.parametrize("total", [0, 19, 20, 27, 28, 88, 89, 65535])
def test_every_bound_of_the_ip_length(node: NatNode, total: int) -> None:
    """Spec: RFC 791 §3.1: less than a header, less than UDP's, and more than has come."""
    verdict = node.step(from_lan(header(5, total) + SEND.l4()), LAN).verdict
    assert verdict == {20: "l4_malformed", 27: "l4_malformed", 28: "l4_malformed", 88: "snat"}.get(
        total, "ip_malformed"
    )


@pytest.mark.parametrize("cut", range(34))
def test_every_truncation_of_a_frame(node: NatNode, cut: int) -> None:
    """A frame that ends within its headers."""
    assert node.step(SEND.from_lan()[:cut], LAN).verdict == ("runt" if cut < 14 else "ip_malformed")


@pytest.mark.parametrize("offset", range(16))
@pytest.mark.parametrize("room", [0, 4, 40])
def test_every_length_of_the_tcp_header(node: NatNode, offset: int, room: int) -> None:
    """Spec: RFC 9293 §3.1: at least five words, and no more than there are."""
    l4 = syn_with(bytes(room), offset)
    fits = 5 <= offset <= 5 + room // 4
    out = node.step(from_lan(header(5, 20 + len(l4), TCP) + l4), LAN)
    assert out.verdict == ("snat" if fits else "l4_malformed")


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 5, 8, 30, 254])
def test_every_length_of_a_tcp_option(node: NatNode, kind: int) -> None:
    """Spec: RFC 9293 §3.2: what is malformed is the endpoint's to judge; nothing behind it is touched."""
    for length in range(256):
        options = bytes([1, kind, length]) + b"\x05\xb4" + bytes([2, 4, 0xFF, 0xFF]) + bytes(31)
        l4 = syn_with(options, 15)
        out = node.step(from_lan(header(5, 20 + len(l4), TCP) + l4), LAN)
        assert out.verdict == "snat"
        sent = out.data[14 + 20 :]
        pseudo = out.data[26:34] + struct.pack("!HH", TCP, len(sent))
        assert packets.checksum(pseudo + sent) == 0
        changed = [i for i, (a, b) in enumerate(zip(sent[20:], options, strict=True)) if a != b]
        assert set(changed) <= {3, 4, 7, 8}, "at most the value of an MSS"


@pytest.mark.parametrize("length", [0, 7, 8, 67, 68, 69, 65535])
def test_every_bound_of_the_udp_length(node: NatNode, length: int) -> None:
    """Spec: RFC 768: a header at least; and no more than IP brought."""
    l4 = bytearray(SEND.l4())
    l4[4:6], l4[6:8] = length.to_bytes(2, "big"), b"\0\0"
    out = node.step(from_lan(header(5, 20 + len(l4)) + bytes(l4)), LAN)
    assert out.verdict == ("snat" if 8 <= length <= 68 else "l4_malformed")


# ---- addresses ---------------------------------------------------------------------------------------
LIES = {
    "land": [replace(SEND, dst=CLIENT), replace(OPEN, dst=CLIENT), replace(PING, dst=CLIENT)],
    "spoofed_own": [
        replace(SEND, src=IPv4Address(own)) for own in ("198.51.100.1", "198.51.100.2", "203.0.113.3")
    ],
    "martian_source": [
        replace(SEND, src=IPv4Address(a)) for a in ("0.0.0.0", "127.1.2.3", "224.0.0.5", "255.255.255.255")
    ],
    "martian_destination": [
        replace(SEND, dst=IPv4Address(a)) for a in ("0.0.0.1", "127.0.0.1", "224.0.0.5", "240.1.1.1")
    ],
}


@pytest.mark.parametrize(
    ("verdict", "packet"), [(verdict, packet) for verdict, lies in LIES.items() for packet in lies]
)
@pytest.mark.parametrize("side", ["inside", "outside"])
def test_lies_about_addresses(node: NatNode, verdict: str, packet: Packet, side: str) -> None:
    """Spec: RFC 1812 §5.3.7, RFC 2827, RFC 4953 §1 (land): from whichever side."""
    if side == "outside" and verdict == "martian_source":
        packet = replace(packet, dst=packets.WAN_VIP, dport=2000)
    out = node.step(
        packet.frame(packets.VMACS[side == "outside"], b"\x02" * 6), LAN if side == "inside" else WAN
    )
    assert (out.verdict, out.out) == (verdict, Out.NONE)
    assert node.flows() == []


def test_an_inside_source_from_outside() -> None:
    """Spec: RFC 2827: nobody outside has an inside address, though the mapping is open to everybody."""
    with filtering_node(Filtering.EIF) as node:
        sent = node.send(SEND)
        lie = replace(sent.reply(), src=packets.CLIENTS[1])
        assert node.inbound(lie).verdict == "spoofed_inside"
        assert node.inbound(replace(lie, src=SERVER, sport=9)).verdict == "reverse"
        assert len(node.flows()) == 2


# ---- fragments ---------------------------------------------------------------------------------------
def piece(packet: Packet, start: int, end: int, *, more: bool, ident: int = 1) -> bytes:
    return packets.fragment(packet.from_lan(), start, end, ident=ident, more=more)


def test_fragments_that_never_end(node: NatNode) -> None:
    """A datagram in more pieces than anybody needs: held no longer, and counted."""
    for at in range(2, 200):
        frame = packets.fragment(SEND.from_lan(), 8, 16, ident=1, more=True)
        verdict = node.step(packets.patch_ip(frame, 6, 0x2000 | at), LAN).verdict
        assert verdict in {"frag_held", "frag_too_many"}
    assert node.counter("frag_too_many") > 100
    node.send(OPEN)


def test_fragments_of_which_the_first_never_comes(node: NatNode) -> None:
    """Spec: RFC 791 §3.2: the timer runs out, all of them are counted, and later ones begin anew."""
    for ident in range(10):
        assert node.step(piece(SEND, 8, 32, more=True, ident=ident), LAN).verdict == "frag_held"
    node.wait(6)
    assert node.counter("frag_timeout") == 10
    assert node.released() == []


@pytest.mark.parametrize(
    ("end", "more", "verdict"), [(13, True, "frag_malformed"), (15, True, "frag_malformed")]
)
def test_a_fragment_of_odd_length(node: NatNode, end: int, more: bool, verdict: str) -> None:
    """Spec: RFC 791 §3.2: all but the last are a multiple of eight bytes."""
    assert node.step(piece(SEND, 0, end, more=more), LAN).verdict == verdict


def test_two_ends(node: NatNode) -> None:
    """The datagram would be of two lengths."""
    assert node.step(piece(SEND, 0, 32, more=True), LAN).verdict == "snat"
    assert node.step(piece(SEND, 48, 64, more=False), LAN).verdict == "snat"
    assert node.step(piece(SEND, 32, 40, more=False), LAN).verdict == "frag_malformed"


def test_a_fragmented_message_that_is_no_echo(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-3: what is quoted could not be checked."""
    error = packets.icmp_error(CLIENT, replace(SEND, src=SERVER, dst=CLIENT).ip(), 3, 3)
    assert node.step(piece(error, 0, 32, more=True), LAN).verdict == "frag_icmp"


def test_a_fragmented_ping_of_the_vip(node: NatNode) -> None:
    """The answer would need the whole of it."""
    ping = replace(PING, dst=packets.LAN_VIP)
    assert node.step(piece(ping, 0, 24, more=True), LAN).verdict == "frag_vip_echo"
