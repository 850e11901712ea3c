# SPDX-License-Identifier: Apache-2.0
"""What translation does to a packet's bytes, what is answered for the VIP, and what is dropped by name."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import packets
import pytest
from nat_node import PASSIVE, NatNode, nat_node
from packets import ICMP, LAN, SYN, TCP, UDP, WAN, Packet

from flexha.fastpath import Out

CLIENT, SERVER = packets.CLIENTS[0], packets.SERVERS[0]
SEND = Packet(UDP, CLIENT, SERVER, 4000, 53, payload=b"0123456789")


@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as made:
        yield made


@pytest.mark.parametrize("proto", [TCP, UDP, ICMP])
def test_checksums_stay_right(node: NatNode, proto: int) -> None:
    """Spec: RFC 1624, RFC 3022 §4.1: updated, not recomputed; packets.parse() sums them up anew."""
    draw = random.Random(proto)
    for _ in range(200):
        packet = Packet(
            proto,
            draw.choice(packets.CLIENTS),
            draw.choice(packets.SERVERS),
            draw.randrange(1, 65536),
            0 if proto == ICMP else draw.randrange(1, 65536),
            SYN,
            seq=draw.randrange(1 << 32),
            payload=draw.randbytes(draw.randrange(60)),
            ttl=draw.randrange(2, 256),
        )
        seen = node.send(packet)
        assert (seen.src, seen.dst, seen.ttl) == (packets.WAN_VIP, packet.dst, packet.ttl - 1)
        assert (seen.dport, seen.seq, seen.payload) == (
            packet.dport,
            packet.seq if proto == TCP else 0,
            packet.payload,
        )


def test_udp_without_a_checksum_stays_without(node: NatNode) -> None:
    """Spec: RFC 768: zero means that the sender made none."""
    node.send(SEND)
    frame = bytearray(SEND.from_lan())
    frame[40:42] = b"\0\0"
    out = node.step(bytes(frame), LAN)
    assert out.verdict == "snat"
    assert out.data[40:42] == b"\0\0"


def test_a_damaged_checksum_stays_damaged(node: NatNode) -> None:
    """Spec: RFC 1624: the receiver must still be able to see what happened before us."""
    node.send(SEND)
    frame = bytearray(SEND.from_lan())
    frame[-1] ^= 0xFF
    out = node.step(bytes(frame), LAN)
    assert out.verdict == "snat"
    with pytest.raises(AssertionError):
        packets.parse(out.data)


def test_padding_of_the_link_is_removed(node: NatNode) -> None:
    """Spec: RFC 894: a short packet is padded on Ethernet; padding is not part of it."""
    tiny = replace(SEND, payload=b"")
    out = node.step(tiny.from_lan() + bytes(18), LAN)
    assert len(out.data) == len(tiny.from_lan())


def test_ttl_does_not_reach_zero(node: NatNode) -> None:
    """Spec: RFC 1812 §5.3.1."""
    assert node.outbound(replace(SEND, ttl=1)).verdict == "ttl_exceeded_sent"
    assert node.send(replace(SEND, ttl=2)).ttl == 1


def test_macs_of_a_forwarded_frame(node: NatNode) -> None:
    """Spec: RFC 9568 §8.1.1: what a virtual router forwards leaves from its virtual MAC, under the fence."""
    out = node.outbound(SEND)
    assert (out.data[:6], out.data[6:12], out.fenced) == (packets.ISP_MAC, packets.VMACS[WAN], True)


def test_arp_for_the_vip(node: NatNode) -> None:
    """Spec: RFC 826, RFC 9568 §8.1.2: answered with the virtual MAC, by the ACTIVE router only."""
    out = node.step(packets.arp_request(CLIENT, packets.LAN_VIP), LAN)
    assert (out.verdict, out.out, out.out_port, out.fenced) == ("arp_vip", Out.WIRE, LAN, True)
    assert out.data[:14] == packets.CLIENT_MAC + packets.VMACS[LAN] + b"\x08\x06"
    op, sha, spa, tha, tpa = struct.unpack("!6xH6s4s6s4s", out.data[14:42])
    assert (op, sha, spa) == (2, packets.VMACS[LAN], packets.LAN_VIP.packed)
    assert (tha, tpa) == (packets.CLIENT_MAC, CLIENT.packed)


def test_arp_probe_for_the_vip_is_answered(node: NatNode) -> None:
    """Spec: RFC 5227 §2.1.1: whoever probes for our address must learn that it is taken."""
    assert node.step(packets.arp_request(IPv4Address("0.0.0.0"), packets.LAN_VIP), LAN).verdict == "arp_vip"


def test_arp_for_anything_else_is_the_kernels(node: NatNode) -> None:
    """Spec: RFC 826."""
    out = node.step(packets.arp_request(CLIENT, packets.port_address(0, LAN)), LAN)
    assert (out.verdict, out.out) == ("host_arp", Out.HOST)


def test_the_wrong_wire_gets_no_answer(node: NatNode) -> None:
    """Spec: RFC 826: the LAN's VIP is not on the WAN."""
    assert node.step(packets.arp_request(packets.ISP, packets.LAN_VIP), WAN).verdict == "host_arp"


def test_damaged_arp(node: NatNode) -> None:
    """Spec: RFC 826."""
    assert node.step(packets.arp_request(CLIENT, packets.LAN_VIP)[:40], LAN).verdict == "arp_malformed"


def test_a_passive_node_neither_answers_nor_forwards() -> None:
    """Spec: RFC 9568 §6.4.2, R1."""
    with nat_node(role=PASSIVE) as node:
        assert node.step(packets.arp_request(CLIENT, packets.LAN_VIP), LAN).verdict == "arp_vip_not_active"
        assert node.outbound(SEND).verdict == "vmac_not_active"
        assert (
            node.step(SEND.frame(packets.port_mac(0, LAN), packets.CLIENT_MAC), LAN).verdict == "not_active"
        )


BAD_FRAMES = {
    "runt": SEND.from_lan()[:13],
    "oversized": SEND.from_lan() + bytes(1600),
    "ip_malformed": SEND.from_lan()[:30],
    "ip_checksum": SEND.from_lan()[:24] + b"\xde\xad" + SEND.from_lan()[26:],
    "not_for_us": SEND.frame(bytes.fromhex("02aabbccddee"), packets.CLIENT_MAC),
    "own_source": SEND.frame(packets.VMACS[LAN], packets.port_mac(0, LAN)),
    "ipv6_not_forwarded": packets.VMACS[LAN] + packets.CLIENT_MAC + b"\x86\xdd" + bytes(40),
    "ethertype": packets.VMACS[LAN] + packets.CLIENT_MAC + b"\x88\xcc" + bytes(40),
    "protocol": replace(SEND, proto=112).from_lan(),
    "martian_source": replace(SEND, src=IPv4Address("127.0.0.1")).from_lan(),
    "martian_destination": replace(SEND, dst=IPv4Address("240.0.0.1")).from_lan(),
    "vip_service": replace(SEND, dst=packets.LAN_VIP).from_lan(),
    "inside_denied": replace(SEND, dst=packets.CLIENTS[1]).from_lan(),
    "hairpin_portless": replace(SEND, proto=47, dst=packets.WAN_VIP).from_lan(),
    "land": replace(SEND, dst=SEND.src).from_lan(),
    "spoofed_own": replace(SEND, src=packets.WAN_VIP).from_lan(),
    "broadcast_source": replace(SEND, src=IPv4Address("198.51.100.255")).from_lan(),
    "broadcast_destination": replace(SEND, dst=IPv4Address("203.0.113.7")).from_lan(),
    "no_return_route": replace(SEND, src=IPv4Address("10.9.8.7")).from_lan(),
}


@pytest.mark.parametrize("verdict", BAD_FRAMES)
def test_bad_input_is_counted_and_changes_nothing(node: NatNode, verdict: str) -> None:
    """Spec: RFC 1812 §5.2.2, R10: dropped under its own name; traffic goes on."""
    before = node.send(SEND)
    out = node.step(BAD_FRAMES[verdict], LAN)
    assert (out.verdict, out.out) == (verdict, Out.NONE)
    assert node.counter(verdict) == 1
    assert len(node.flows()) == 1
    assert node.send(SEND).sport == before.sport


def test_ip_options_are_counted(node: NatNode) -> None:
    """Spec: RFC 7126 §3: packets with options are dropped by name."""
    ip = bytearray(SEND.ip())
    head = bytearray(ip[:20] + b"\x01\x01\x01\x00")
    head[0] = 0x46
    head[2:4] = struct.pack("!H", len(ip) + 4)
    head[10:12] = b"\0\0"
    head[10:12] = struct.pack("!H", packets.checksum(bytes(head)))
    frame = packets.VMACS[LAN] + packets.CLIENT_MAC + b"\x08\0" + bytes(head) + bytes(ip[20:])
    assert node.step(frame, LAN).verdict == "ip_options"
