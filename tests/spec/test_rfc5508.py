# SPDX-License-Identifier: Apache-2.0
"""RFC 5508: what a NAT does to ICMP. In this version queries are translated, errors are counted drops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import packets
import pytest
from nat_node import NatNode, nat_node
from packets import ICMP, Packet

PING = Packet(ICMP, packets.CLIENTS[0], packets.SERVERS[0], 77, payload=b"ping!")


@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as made:
        yield made


def test_req1_queries_pass_and_their_replies_come_back(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-1."""
    seen = node.send(PING)
    assert (seen.src, seen.payload) == (packets.WAN_VIP, b"ping!")
    back = node.receive(seen.reply())
    assert (back.dst, back.sport, back.icmp_type) == (PING.src, 77, packets.ECHO_REPLY)


def test_req1_mapping_is_endpoint_independent(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-1 a."""
    assert len({node.send(replace(PING, dst=server)).sport for server in packets.SERVERS}) == 1


def test_identifiers_of_two_clients_do_not_meet(node: NatNode) -> None:
    """Spec: RFC 5508 §3.1."""
    seen = {node.send(replace(PING, src=client)).sport for client in packets.CLIENTS}
    assert len(seen) == len(packets.CLIENTS)


def test_req2_a_query_session_lives_a_minute(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-2: not less than 60 seconds."""
    seen = node.send(PING)
    node.wait(60)
    node.receive(seen.reply())
    node.wait(62)
    assert node.inbound(seen.reply()).verdict == "no_session"


def test_req3_a_damaged_message_is_dropped(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-3: checksums are validated before anything is made of a message."""
    frame = bytearray(PING.from_lan())
    frame[-1] ^= 1
    assert node.step(bytes(frame), packets.LAN).verdict == "l4_checksum"
    assert node.flows() == []


@pytest.mark.parametrize("icmp_type", [5, 9, 13, 17])
def test_other_messages_are_dropped(node: NatNode, icmp_type: int) -> None:
    """Spec: RFC 5508 REQ-9: redirects, router advertisements and old queries have no business here."""
    assert node.outbound(replace(PING, icmp_type=icmp_type)).verdict == "icmp_type"


def test_reply_that_nobody_asked_for(node: NatNode) -> None:
    """Spec: RFC 5508 §3.1."""
    stranger = replace(
        PING, src=packets.SERVERS[0], dst=packets.WAN_VIP, sport=2000, icmp_type=packets.ECHO_REPLY
    )
    assert node.inbound(stranger).verdict == "no_session"


def test_the_vip_answers_echo_itself(node: NatNode) -> None:
    """Spec: RFC 1122 §3.2.2.6, RFC 9568 §8.3.1."""
    out = node.outbound(replace(PING, dst=packets.LAN_VIP))
    assert (out.verdict, out.out_port, out.fenced) == ("vip_echo", packets.LAN, True)
    reply = packets.parse(out.data)
    assert (reply.src, reply.dst, reply.sport) == (packets.LAN_VIP, PING.src, 77)
    assert (reply.icmp_type, reply.payload) == (packets.ECHO_REPLY, b"ping!")
