# SPDX-License-Identifier: Apache-2.0
"""RFC 1812: what a router owes the senders of packets that it cannot forward."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import packets
import pytest
from nat_node import NatNode, nat_node
from packets import ICMP, LAN, SYN, TCP, UDP, WAN, Packet

from flexha.fastpath import Out

CLIENT, SERVER = packets.CLIENTS[0], packets.SERVERS[0]
PING = Packet(ICMP, CLIENT, SERVER, 77, payload=b"ping!")
SEND = Packet(UDP, CLIENT, SERVER, 5000, 53, payload=b"question")
OPEN = Packet(TCP, CLIENT, SERVER, 40001, 80, SYN, seq=1000)
EACH = pytest.mark.parametrize("packet", [PING, SEND, OPEN], ids=["icmp", "udp", "tcp"])
UNREACHABLE, TIME_EXCEEDED = 3, 11
FRAG_NEEDED = 4


@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as made:
        yield made


@EACH
def test_time_exceeded(node: NatNode, packet: Packet) -> None:
    """Spec: RFC 1812 §4.3.2.4, §5.3.1: from the VIP of the port that it came in by; nothing is opened."""
    dying = replace(packet, ttl=1)
    out = node.outbound(dying)
    assert (out.verdict, out.out, out.out_port, out.fenced) == ("ttl_exceeded_sent", Out.WIRE, LAN, True)
    message = packets.parse(out.data)
    assert (message.src, message.dst, message.ttl) == (packets.LAN_VIP, CLIENT, 64)
    assert (message.icmp_type, message.icmp_code) == (TIME_EXCEEDED, 0)
    assert message.payload == dying.ip()
    assert node.flows() == []
    assert out.data[15] == 0xC0, "precedence: internetwork control (RFC 1812 §4.3.2.5)"


def test_time_exceeded_towards_the_server(node: NatNode) -> None:
    """Spec: RFC 1812 §5.3.1: the quote is of the packet as the server sent it."""
    dying = replace(node.send(SEND).reply(), ttl=1)
    out = node.inbound(dying)
    assert (out.verdict, out.out_port) == ("ttl_exceeded_sent", WAN)
    message = packets.parse(out.data)
    assert (message.src, message.dst) == (packets.WAN_VIP, SERVER)
    assert message.payload == dying.ip()


def test_fragmentation_needed() -> None:
    """Spec: RFC 1191 §4, RFC 4787 REQ-13: with the MTU ahead, if the packet may not be fragmented."""
    config = packets.node_config()
    narrow = replace(config.ports[WAN], mtu=1280)
    with nat_node(replace(config, ports=(config.ports[LAN], narrow))) as node:
        node.send(replace(SEND, payload=bytes(1252)))
        big = replace(SEND, payload=bytes(1253))
        out = node.outbound(big)
        assert (out.verdict, out.out, out.out_port) == ("frag_needed_sent", Out.WIRE, LAN)
        message = packets.parse(out.data)
        assert (message.icmp_type, message.icmp_code, message.icmp_seq) == (UNREACHABLE, FRAG_NEEDED, 1280)
        assert (message.src, message.dst) == (packets.LAN_VIP, CLIENT)
        assert len(out.data) == 14 + 576, "as much as fits (RFC 1812 §4.3.2.3)"
        assert message.payload == big.ip()[:548]


@pytest.mark.parametrize("source", ["198.51.100.0", "198.51.100.255", "10.1.2.3", "127.0.0.1", "224.0.0.5"])
def test_nothing_is_said_to_a_source_that_is_no_host_there(node: NatNode, source: str) -> None:
    """Spec: RFC 1812 §4.3.2.7: broadcast, multicast, loopback; nor to an address that lives elsewhere."""
    out = node.outbound(replace(SEND, src=IPv4Address(source), ttl=1))
    silent = {"broadcast_source", "martian_source", "no_return_route"}
    assert (out.verdict in silent, out.out) == (True, Out.NONE)


def test_our_errors_are_limited(node: NatNode) -> None:
    """Spec: RFC 1812 §4.3.2.8: 50 at once and 1,000 a second from each worker."""
    frames = [replace(SEND, ttl=1).from_lan()] * 60
    verdicts = [out.verdict for out in node.fastpath.test_step(frames, port=LAN, now_ns=node.now_ns)]
    assert verdicts == ["ttl_exceeded_sent"] * 50 + ["icmp_limited"] * 10
    node.now_s += 0.01
    verdicts = [out.verdict for out in node.fastpath.test_step(frames, port=LAN, now_ns=node.now_ns)]
    assert verdicts.count("ttl_exceeded_sent") == 10
