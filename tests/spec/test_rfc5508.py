# SPDX-License-Identifier: Apache-2.0
"""RFC 5508: what a NAT does to ICMP: queries, and errors with the packet inside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address

import packets
import pytest
from nat_node import NatNode, filtering_node, nat_node
from packets import ACK, ICMP, LAN, SYN, TCP, UDP, WAN, Packet

from flexha.fastpath import Action, Filtering, Form, Forward, Limits, Out, Policy, Rule, Service, SteppedFrame

CLIENT, SERVER = packets.CLIENTS[0], packets.SERVERS[0]
ROUTER = IPv4Address("192.0.2.254")
PING = Packet(ICMP, CLIENT, SERVER, 77, payload=b"ping!")
SEND = Packet(UDP, CLIENT, SERVER, 5000, 53, payload=b"question")
OPEN = Packet(TCP, CLIENT, SERVER, 40001, 80, SYN, seq=1000)
EACH = pytest.mark.parametrize("packet", [PING, SEND, OPEN], ids=["icmp", "udp", "tcp"])
UNREACHABLE, SOURCE_QUENCH, TIME_EXCEEDED, PARAMETER_PROBLEM = 3, 4, 11, 12
PORT_UNREACHABLE, FRAG_NEEDED = 3, 4


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
    """Spec: RFC 5508 REQ-10, REQ-11: redirects, advertisements and old queries have no business here."""
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


# ---- errors ------------------------------------------------------------------------------------------
def error(
    about: Packet, source: IPv4Address = ROUTER, kind: tuple[int, int] = (UNREACHABLE, PORT_UNREACHABLE)
) -> Packet:
    """An ICMP error that ``source`` sends to the sender of ``about``, with all of it inside."""
    return packets.icmp_error(source, about.ip(), *kind)


def told(node: NatNode, message: Packet) -> Packet:
    """An error from outside that must get through; as the client sees it."""
    out = node.inbound(message)
    assert (out.verdict, out.out, out.out_port, out.fenced) == ("icmp_error_in", Out.WIRE, LAN, True)
    return packets.parse(out.data)


@EACH
@pytest.mark.parametrize("kind", [(UNREACHABLE, 1), (TIME_EXCEEDED, 0), (PARAMETER_PROBLEM, 0)])
def test_req4_the_client_is_told(node: NatNode, packet: Packet, kind: tuple[int, int]) -> None:
    """Spec: RFC 5508 REQ-4: type and code stay (b); the packet inside is the client's own again (a)."""
    seen = node.send(packet)
    message = told(node, error(seen, kind=kind))
    assert (message.src, message.dst) == (ROUTER, CLIENT)
    assert (message.icmp_type, message.icmp_code) == kind
    assert message.payload == replace(packet, ttl=seen.ttl).ip()


@EACH
def test_req5_the_server_is_told(node: NatNode, packet: Packet) -> None:
    """Spec: RFC 5508 REQ-5: an error from inside leaves from the public address, whoever made it."""
    reply = node.send(packet).reply(flags=SYN | ACK, seq=1, ack=1001)
    arrived = node.receive(reply)
    for complainer in (CLIENT, packets.CLIENTS[3]):
        out = node.outbound(error(arrived, complainer))
        assert (out.verdict, out.out, out.out_port) == ("icmp_error_out", Out.WIRE, WAN)
        message = packets.parse(out.data)
        assert (message.src, message.dst) == (packets.WAN_VIP, SERVER)
        assert message.payload == replace(reply, ttl=arrived.ttl).ip()


@pytest.mark.parametrize("packet", [PING, SEND], ids=["icmp", "udp"])
def test_req6_an_error_does_not_refresh_a_session(node: NatNode, packet: Packet) -> None:
    """Spec: RFC 5508 REQ-6: neither refreshed nor deleted, nor counted in."""
    seen = node.send(packet)
    lifetime = 60 if packet.proto == ICMP else 300
    node.wait(lifetime - 10)
    before = node.flows()
    told(node, error(seen))
    assert node.flows() == before
    node.wait(12)
    assert node.inbound(error(seen)).verdict == "icmp_error_no_session"


def prohibited(out: SteppedFrame, about: Packet) -> bool:
    """Is it Destination Unreachable, code 13, to the sender of ``about``?"""
    message = packets.parse(out.data)
    assert (out.out, out.out_port, out.fenced) == (Out.WIRE, LAN, True)
    assert (message.src, message.dst) == (packets.LAN_VIP, about.src)
    assert message.payload == about.ip()
    return (message.icmp_type, message.icmp_code) == (UNREACHABLE, 13)


def test_req8_refused_by_a_rule() -> None:
    """Spec: RFC 5508 REQ-8: administrative restrictions; an operator may also "deny", which says nothing."""
    deny = Rule(Action.DENY, services=(Service(UDP, 54, 54),))
    with nat_node(policy=Policy(rules=(deny, Rule(Action.REJECT)))) as node:
        for packet in (PING, SEND):
            out = node.outbound(packet)
            assert out.verdict == "rejected_icmp"
            assert prohibited(out, packet)
        assert node.outbound(OPEN).verdict == "rejected_rst", "what TCP understands best"
        assert node.outbound(replace(SEND, dport=54)).out is Out.NONE


@EACH
@pytest.mark.parametrize("room", ["table_full", "source_limit", "port_limit", "ports_exhausted"])
def test_req8_no_room(packet: Packet, room: str) -> None:
    """Spec: RFC 5508 REQ-8: resource constraints, whatever the protocol; what has its session goes on."""
    config = packets.node_config()
    limits = {"source_limit": Limits(sessions_per_source=3), "port_limit": Limits(ports_per_source=3)}
    few = replace(config.pools[0], port_lo=1024, port_hi=1151)
    with nat_node(
        flow_cap=64 if room == "table_full" else 4096,
        pools=(few,) if room == "ports_exhausted" else config.pools,
        limits=limits.get(room, Limits()),
    ) as node:
        passed: list[int] = []
        port = 2000
        while (out := node.outbound(replace(packet, sport=port))).verdict == "snat":
            passed.append(port)
            node.receive(packets.parse(out.data).reply(flags=SYN | ACK, seq=1, ack=1001))
            if packet.proto == TCP:
                node.send(replace(packet, sport=port, flags=ACK, seq=1001, ack=2))
            port += 1
        assert out.verdict == f"{room}_sent"
        assert prohibited(out, replace(packet, sport=port))
        assert len(node.flows()) == len(passed)
        again = replace(packet, flags=ACK, seq=1001, ack=2)
        assert {node.outbound(replace(again, sport=port)).verdict for port in passed} == {"snat"}


def test_req8_not_too_often() -> None:
    """Spec: RFC 5508 REQ-8, RFC 1812 §4.3.2.8: limited in rate, and then counted by its reason."""
    with nat_node(limits=Limits(sessions_per_source=1)) as node:
        node.send(SEND)
        for port in range(6000, 6200):
            node.outbound(replace(SEND, sport=port))
        told, silent = node.counter("source_limit_sent"), node.counter("source_limit")
        assert told + silent == 200
        assert 10 <= told <= 60


@pytest.mark.parametrize("flooded", ["inside", "outside"])
def test_neither_side_takes_the_others_share_of_errors(flooded: str) -> None:
    """Spec: RFC 1812 §4.3.2.8, RFC 4787 REQ-13: or who floods a forward silences "too big" inside."""
    forward = Forward(pool=0, external_port=53, inside=CLIENT, inside_port=53, proto=UDP)
    with nat_node(policy=Policy(forwards=(forward,))) as node:
        call = Packet(UDP, SERVER, packets.WAN_VIP, 5000, 53, ttl=1)
        send = {LAN: replace(SEND, ttl=1).from_lan(), WAN: call.from_wan()}
        first, then = (LAN, WAN) if flooded == "inside" else (WAN, LAN)
        verdicts = [node.step(send[first], first).verdict for _ in range(60)]
        assert set(verdicts[:10] + verdicts[-1:]) == {"ttl_exceeded_sent", "icmp_limited"}
        assert node.step(send[then], then).verdict == "ttl_exceeded_sent"


def test_req8_nobody_outside_is_told() -> None:
    """A flood of a forward has senders that were made up."""
    forward = Forward(pool=0, external_port=53, inside=CLIENT, inside_port=53, proto=UDP)
    one = Rule(Action.ALLOW, in_ports=(WAN,), max_per_source=1)
    with nat_node(policy=Policy(rules=(one,), forwards=(forward,))) as node:
        call = Packet(UDP, SERVER, packets.WAN_VIP, 5000, 53)
        assert node.inbound(call).verdict == "reverse"
        out = node.inbound(replace(call, sport=5001))
        assert (out.verdict, out.out) == ("source_limit", Out.NONE)


def test_req10_what_must_be_supported(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-10, a: Destination Unreachable, Time Exceeded, echo and its reply; both ways."""
    seen = node.send(PING)
    arrived = node.receive(seen.reply())
    for kind in ((UNREACHABLE, 0), (UNREACHABLE, 15), (TIME_EXCEEDED, 0), (TIME_EXCEEDED, 1)):
        told(node, error(seen, kind=kind))
        assert node.outbound(error(arrived, CLIENT, kind)).verdict == "icmp_error_out"


def test_req3_damaged_messages_are_dropped(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-3, a, c: the checksums of ICMP and of the IP header inside count, the rest not."""
    seen = node.send(SEND)
    frame = bytearray(error(seen).from_wan())
    frame[-1] ^= 1
    assert node.step(bytes(frame), WAN).verdict == "l4_checksum"
    for at, verdict in ((10, "icmp_error_bad"), (26, "icmp_error_in")):
        quote = bytearray(seen.ip())
        quote[at] ^= 1
        assert node.inbound(packets.icmp_error(ROUTER, bytes(quote), 3, 3)).verdict == verdict


@pytest.mark.parametrize("length", [0, 1, 19, 20, 27])
def test_req3_a_quote_too_short_to_name_a_session(node: NatNode, length: int) -> None:
    """Spec: RFC 5508 REQ-3, RFC 792: at least 8 bytes behind the IP header."""
    seen = node.send(SEND)
    quote = seen.ip()[:length]
    message = replace(error(seen), payload=quote)
    assert node.inbound(message).verdict == "icmp_error_bad"


@EACH
def test_req4_eight_bytes_are_enough(node: NatNode, packet: Packet) -> None:
    """Spec: RFC 5508 REQ-4 a, RFC 792."""
    seen = node.send(packet)
    message = told(node, replace(error(seen), payload=seen.ip()[:28]))
    assert message.payload == replace(packet, ttl=seen.ttl).ip()[:28]


def test_req3_options_inside_are_stepped_over(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-3 b."""
    seen = node.send(SEND)
    inner = seen.ip()
    head = bytearray(inner[:20] + b"\x01" * 4)
    head[0], head[2:4], head[10:12] = 0x46, (len(inner) + 4).to_bytes(2, "big"), b"\0\0"
    head[10:12] = packets.checksum(bytes(head)).to_bytes(2, "big")
    message = told(node, packets.icmp_error(ROUTER, bytes(head) + inner[20:], TIME_EXCEEDED, 0))
    assert message.payload[12:16] == CLIENT.packed
    assert message.payload[24:26] == (5000).to_bytes(2, "big")


def test_req4_an_error_about_nothing_of_ours(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-4, first sentence: no active mapping, silently dropped; but counted."""
    seen = node.send(SEND)
    for about in (replace(seen, dport=54), replace(seen, sport=seen.sport ^ 2), replace(seen, dst=ROUTER)):
        out = node.inbound(error(about))
        assert (out.verdict, out.out) == ("icmp_error_no_session", Out.NONE)
    assert node.counter("icmp_error_no_session") == 3


def test_an_error_must_be_about_what_its_receiver_sent(node: NatNode) -> None:
    """Spec: RFC 792: an error goes to the source of the packet inside."""
    node.send(SEND)
    message = replace(error(replace(SEND, src=packets.SERVERS[1])), dst=packets.WAN_VIP)
    assert node.inbound(message).verdict == "icmp_error_bad"


def test_source_quench_is_not_passed(node: NatNode) -> None:
    """Spec: RFC 6633 §5: routers ignore it, hosts must not act on it."""
    assert node.inbound(error(node.send(SEND), kind=(SOURCE_QUENCH, 0))).verdict == "icmp_type"


def test_path_mtu_reaches_the_client(node: NatNode) -> None:
    """Spec: RFC 1191 §4, RFC 5508 REQ-4 b: the next-hop MTU is in the header, which stays."""
    seen = node.send(OPEN)
    message = told(node, replace(error(seen, kind=(UNREACHABLE, FRAG_NEEDED)), icmp_seq=1400))
    assert (message.icmp_code, message.icmp_seq) == (FRAG_NEEDED, 1400)


def test_no_error_about_an_error(node: NatNode) -> None:
    """Spec: RFC 1812 §4.3.2.7."""
    seen = node.send(SEND)
    out = node.inbound(replace(error(seen), ttl=1))
    assert (out.verdict, out.out) == ("ttl_expired", Out.NONE)


@pytest.mark.parametrize("n_workers", [1, 2])
def test_req7_hairpinned_errors(n_workers: int) -> None:
    """Spec: RFC 5508 REQ-7, a: translated at both ends, like the packet that the error is about."""
    with filtering_node(Filtering.EIF, n_workers=n_workers) as node:
        for i in range(20):
            one = replace(SEND, sport=5000 + 2 * i)
            other = replace(SEND, src=packets.CLIENTS[1], sport=7000 + 2 * i)
            outside = [node.send(packet) for packet in (one, other)]
            forth = replace(one, dst=outside[1].src, dport=outside[1].sport)
            seen = node.hairpin(forth)
            out = node.outbound(error(seen, other.src))
            assert (out.verdict, out.out, out.out_port, out.fenced) == ("icmp_error_in", Out.WIRE, LAN, True)
            message = packets.parse(out.data)
            assert (message.src, message.dst) == (packets.WAN_VIP, one.src)
            assert message.payload == replace(forth, ttl=seen.ttl).ip()


@pytest.mark.parametrize("proto", [47, 50, 132], ids=["gre", "esp", "sctp"])
@pytest.mark.parametrize("length", [20, 24, 28, 60])
def test_req4_without_ports(node: NatNode, proto: int, length: int) -> None:
    """Spec: RFC 5508 REQ-4 a: known by its addresses, so the IP header alone is enough."""
    packet = Packet(proto, CLIENT, SERVER, 0, payload=bytes(range(40)))
    seen = node.send(packet)
    message = told(node, replace(error(seen), payload=seen.ip()[:length]))
    assert message.payload == replace(packet, ttl=seen.ttl).ip()[:length]


@EACH
def test_req4_untranslated(node: NatNode, packet: Packet) -> None:
    """Spec: RFC 5508 REQ-4: without NAT the error stays as it is, and needs a session all the same."""
    node.fastpath.commit_policy(Policy(rules=(Rule(Action.ALLOW, Form.NONE),)))
    about = replace(packet, ttl=packet.ttl - 1)
    assert node.inbound(error(about)).verdict == "icmp_error_no_session"
    assert node.outbound(packet).verdict == "routed"
    message = told(node, error(about))
    assert (message.src, message.dst, message.payload) == (ROUTER, CLIENT, about.ip())


def test_req5_from_a_server_behind_a_forward(node: NatNode) -> None:
    """Spec: RFC 5508 REQ-5: the error leaves from the forward's address, about its port."""
    node.fastpath.commit_policy(Policy(forwards=(Forward(0, 443, CLIENT, 8443, UDP),)))
    asked = Packet(UDP, SERVER, packets.WAN_VIP, 6000, 443, payload=b"question")
    arrived = node.receive(asked)
    assert (arrived.dst, arrived.dport) == (CLIENT, 8443)
    out = node.outbound(error(arrived, CLIENT))
    assert (out.verdict, out.out_port) == ("icmp_error_out", WAN)
    message = packets.parse(out.data)
    assert (message.src, message.dst) == (packets.WAN_VIP, SERVER)
    assert message.payload == replace(asked, ttl=arrived.ttl).ip()
