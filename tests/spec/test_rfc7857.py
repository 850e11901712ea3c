# SPDX-License-Identifier: Apache-2.0
"""RFC 7857: updates to what a NAT does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import packets
import pytest
from nat_node import ACTIVE, PASSIVE, NatNode, filtering_node, nat_node
from packets import ACK, FIN, ICMP, RST, SYN, TCP, UDP, Packet

from flexha.fastpath import (
    Action,
    Filtering,
    FlowFlag,
    FlowRecord,
    FlowState,
    Forward,
    Policy,
    PoolConfig,
    Rule,
    Timeouts,
)

CLIENT_ISN, SERVER_ISN = 1_000, 7_000
OPEN = Packet(TCP, packets.CLIENTS[0], packets.SERVERS[0], 40000, 80, SYN, seq=CLIENT_ISN)
IN_THE_MIDDLE = replace(OPEN, flags=ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1)


@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as made:
        yield made


def session(node: NatNode) -> FlowRecord:
    (flow,) = node.flows()
    return flow


def is_reset(node: NatNode) -> bool:
    return bool(session(node).flags & FlowFlag.RESET)


def connect(node: NatNode) -> Packet:
    """The handshake; returns the server's next segment, without data."""
    seen = node.send(OPEN)
    node.receive(seen.reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN + 1))
    node.send(IN_THE_MIDDLE)
    assert session(node).state is FlowState.ESTABLISHED
    return seen.reply(flags=ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 1)


def tell(active: NatNode, passive: NatNode) -> None:
    """What changed goes to the peer."""
    active.fastpath.digest_ask()  # what could wait is told, too
    for batch in active.fastpath.drain(64):
        passive.fastpath.import_sections(batch.sections)
        active.fastpath.ack(batch.marks)


def test_sec2_state_machine(node: NatNode) -> None:
    """Spec: RFC 7857 §2, figure 1: CLOSED, INIT, ESTABLISHED, a FIN of each side, TRANS, CLOSED."""
    server = connect(node)
    node.receive(replace(server, flags=FIN | ACK))
    assert session(node).state is FlowState.FIN_WAIT
    node.send(replace(IN_THE_MIDDLE, ack=SERVER_ISN + 2, payload=b"still here"))
    node.send(replace(IN_THE_MIDDLE, flags=FIN | ACK, seq=CLIENT_ISN + 11, ack=SERVER_ISN + 2))
    assert session(node).state is FlowState.CLOSING
    node.receive(replace(server, seq=SERVER_ISN + 2, ack=CLIENT_ISN + 12))
    assert session(node).state is FlowState.TIME_WAIT
    node.wait(242)
    assert node.flows() == []


def test_sec2_an_established_session_times_out(node: NatNode) -> None:
    """Spec: RFC 7857 §2: TCP_EST T.O."""
    connect(node)
    node.wait(7440 + 2)
    assert node.flows() == []


def test_sec2_1_opening_and_closing_have_timeouts_of_their_own() -> None:
    """Spec: RFC 7857 §2.1: different configurable parameters for the open and closing idle timeouts."""
    with nat_node(timeouts=Timeouts(tcp_transitory_s=300, tcp_closing_s=500)) as node:
        node.send(OPEN)
        node.wait(299)
        assert node.flows()
        node.wait(3)
        assert node.flows() == []
        node.receive(replace(connect(node), flags=RST))
        node.wait(499)
        assert is_reset(node)
        node.wait(3)
        assert node.flows() == []


def test_sec2_1_four_minutes_by_default() -> None:
    """Spec: RFC 7857 §2.1."""
    assert (Timeouts().tcp_transitory_s, Timeouts().tcp_closing_s) == (240, 240)


@pytest.mark.parametrize("side", ["client", "server"])
def test_sec2_2_a_reset_is_translated_and_the_session_kept_for_four_minutes(node: NatNode, side: str) -> None:
    """Spec: RFC 7857 §2.2."""
    server = connect(node)
    if side == "client":
        node.send(replace(IN_THE_MIDDLE, flags=RST | ACK))
    else:
        node.receive(replace(server, flags=RST))
    assert is_reset(node)
    node.wait(239)
    assert node.flows()
    node.wait(3)
    assert node.flows() == []


def test_sec2_2_a_packet_after_the_reset_keeps_the_session(node: NatNode) -> None:
    """Spec: RFC 7857 §2.2, figure 1 (TRANS, data pkt, ESTABLISHED): the RST was lost, or was not genuine."""
    server = connect(node)
    for speaker in ("client", "server"):
        node.receive(replace(server, flags=RST))
        node.wait(200)
        assert is_reset(node)
        if speaker == "client":
            node.send(IN_THE_MIDDLE)
        else:
            node.receive(replace(server, payload=b"data"))
        assert not is_reset(node)
        assert session(node).state is FlowState.ESTABLISHED
    node.wait(7000)
    assert session(node).state is FlowState.ESTABLISHED


def test_sec2_2_only_a_reset_in_the_window_counts(node: NatNode) -> None:
    """Spec: RFC 7857 §2.2 (notes), RFC 5961 §3: an off-path attacker's RST ends nothing."""
    server = connect(node)
    for offset in (1002, -1001, 3_000_000, 2_000_000_000, -2_000_000_000):
        blind = replace(server, flags=RST, seq=(server.seq + offset) % 2**32)
        assert node.inbound(blind).verdict == "tcp_rst_window"
    assert not is_reset(node)
    assert node.counter("tcp_rst_window") == 5


def test_sec2_2_a_lucky_reset_is_undone_by_the_challenge(node: NatNode) -> None:
    """Spec: RFC 5961 §3.2: in the window but not exact, so the client answers; that restores the session."""
    server = connect(node)
    node.receive(replace(server, flags=RST, seq=server.seq + 700))
    assert is_reset(node)
    node.send(IN_THE_MIDDLE)
    assert not is_reset(node)


@pytest.mark.parametrize("distance", [0, 99_999])
def test_sec2_2_a_blind_reset_and_a_blind_syn_end_no_forwarded_session(distance: int) -> None:
    """Spec: RFC 7857 §2.2, RFC 5961 §3, §4: from outside both may be forged; the server decides."""
    forward = Forward(0, 80, packets.CLIENTS[0], 8080, TCP)
    with nat_node(policy=Policy(forwards=(forward,))) as node:
        call = Packet(TCP, packets.SERVERS[0], packets.WAN_VIP, 50000, 80, SYN, seq=CLIENT_ISN)
        answer = node.receive(call).reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN + 1)
        node.send(answer)
        genuine = replace(call, flags=ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1)
        node.receive(genuine)
        node.receive(replace(call, flags=RST, seq=CLIENT_ISN + 700))
        assert is_reset(node)
        node.receive(replace(call, seq=CLIENT_ISN + distance))
        assert session(node).state is FlowState.ESTABLISHED
        node.send(replace(answer, flags=ACK, seq=SERVER_ISN + 1))
        assert not is_reset(node)
        node.receive(replace(genuine, payload=b"still here"))
        # The client has indeed gone, and comes back: the server has no connection, and opens one.
        node.receive(replace(genuine, flags=RST, seq=CLIENT_ISN + 11))
        again = replace(call, seq=CLIENT_ISN + distance)
        node.receive(again)
        node.send(replace(answer, seq=SERVER_ISN + 500_000, ack=again.seq + 1))
        assert session(node).state is FlowState.SYN_RECV
        node.receive(replace(genuine, seq=again.seq + 1, ack=SERVER_ISN + 500_001))
        assert session(node).state is FlowState.ESTABLISHED


def test_sec2_2_a_refused_connection(node: NatNode) -> None:
    """An RST that answers the SYN acknowledges it exactly; any other is nobody's."""
    seen = node.send(OPEN)
    for wrong in (seen.reply(flags=RST), seen.reply(flags=RST | ACK, ack=CLIENT_ISN + 2)):
        assert node.inbound(wrong).verdict == "tcp_rst_window"
    node.receive(seen.reply(flags=RST | ACK, ack=CLIENT_ISN + 1))
    assert session(node).state is FlowState.CLOSED
    node.wait(242)
    assert node.flows() == []


@pytest.mark.parametrize("how", ["reset", "refused", "closed"])
def test_sec2_2_the_client_may_open_again(node: NatNode, how: str) -> None:
    """A SYN of the opener on a session that is over begins a new one, behind the same external port."""
    if how == "refused":
        seen = node.send(OPEN)
        node.receive(seen.reply(flags=RST | ACK, ack=CLIENT_ISN + 1))
    else:
        server = connect(node)
        if how == "reset":
            node.receive(replace(server, flags=RST))
        else:
            node.send(replace(IN_THE_MIDDLE, flags=FIN | ACK))
            node.receive(replace(server, flags=FIN | ACK, ack=CLIENT_ISN + 2))
            node.send(replace(IN_THE_MIDDLE, seq=CLIENT_ISN + 2, ack=SERVER_ISN + 2))
    old = session(node)
    again = node.send(replace(OPEN, seq=CLIENT_ISN + 100_000))
    assert again.sport == old.external_port
    assert session(node).state is FlowState.SYN_SENT
    assert not is_reset(node)
    assert session(node).id != old.id


def test_sec2_2_the_peer_follows_both_ways(node: NatNode) -> None:
    """A reset comes and goes; the peer's table is told of both. Spec: R13, R19."""
    with nat_node(packets.node_config(1), role=PASSIVE) as peer:
        node.fastpath.track_changes(on=True)
        server = connect(node)
        node.receive(replace(server, flags=RST))
        tell(node, peer)
        assert is_reset(peer)
        node.send(IN_THE_MIDDLE)
        tell(node, peer)
        assert not is_reset(peer)
        assert session(peer).state is FlowState.ESTABLISHED
        node.receive(replace(server, flags=RST))
        tell(node, peer)
        peer.fastpath.set_role(ACTIVE, 3)
        peer.wait(239)
        assert is_reset(peer)
        peer.wait(4)
        assert peer.flows() == []


def test_sec7_1_a_reset_refreshes_nothing(node: NatNode) -> None:
    """Spec: RFC 7857 §7.1: RSTs that answer inbound packets do not keep the mapping."""
    connect(node)
    node.send(replace(IN_THE_MIDDLE, flags=RST | ACK))
    for _ in range(4):
        node.wait(59)
        node.send(replace(IN_THE_MIDDLE, flags=RST | ACK))
    node.wait(6)
    assert node.flows() == []


# ---- mappings of each protocol ------------------------------------------------------------------------
SEND = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], 40000, 53)
PING = Packet(ICMP, packets.CLIENTS[0], packets.SERVERS[0], 40000)
EACH = pytest.mark.parametrize("packet", [OPEN, SEND, PING], ids=["tcp", "udp", "icmp"])


@EACH
def test_sec3_ports_do_not_overlap(node: NatNode, packet: Packet) -> None:
    """Spec: RFC 7857 §3: two endpoints do not share a port, though their remote endpoints differ."""
    seen = {
        node.send(replace(packet, src=client, dst=server, sport=port)).sport
        for client, server in zip(packets.CLIENTS, packets.SERVERS * 2, strict=False)
        for port in range(2000, 2040)
    }
    assert len(seen) == 4 * 40


def test_sec4_paired_across_protocols() -> None:
    """Spec: RFC 7857 §4: a client has one external address, whichever the protocol."""
    config = packets.node_config()
    others = [
        PoolConfig(name=f"p{i}", address=packets.WAN_VIP + 2 + i, out_port=packets.WAN) for i in range(2)
    ]
    with nat_node(pools=(*config.pools, *others)) as node:
        used = [
            {node.send(replace(packet, src=client, sport=port)).src for packet in (OPEN, SEND, PING)}
            for client in packets.CLIENTS
            for port in (2000, 2001, 2002)
        ]
        assert {len(addresses) for addresses in used} == {1}
        assert len(set.union(*used)) > 1, "for some clients each: it was not the only choice"


def test_sec5_mappings_of_one_protocol(node: NatNode) -> None:
    """Spec: RFC 7857 §5: TCP and UDP of one inside port have mappings, and lifetimes, of their own."""
    node.send(OPEN)
    sent = node.send(SEND)
    assert node.mappings() == 2
    node.wait(242)
    assert node.mappings() == 1
    node.receive(sent.reply())
    assert node.send(SEND).sport == sent.sport


@pytest.mark.parametrize("filtering", [Filtering.EIF, Filtering.ADF])
def test_sec6_filters_of_one_protocol(filtering: Filtering) -> None:
    """Spec: RFC 7857 §6: what TCP lets in, UDP does not, and the other way round."""
    with filtering_node(filtering) as node:
        sent = node.send(SEND)
        call = replace(sent.reply(), proto=TCP, flags=SYN)
        assert node.inbound(call).verdict == "no_session"
        node.send(replace(OPEN, dst=packets.SERVERS[1]))
        stranger = replace(sent.reply(), src=packets.SERVERS[1], sport=9)
        assert node.inbound(stranger).verdict == ("reverse" if filtering is Filtering.EIF else "filtered")


@pytest.mark.parametrize("filtering", [Filtering.ADF, Filtering.APDF])
def test_sec7_what_is_filtered_refreshes_nothing(filtering: Filtering) -> None:
    """Spec: RFC 7857 §7: nobody can keep a mapping of others alive by packets that do not get in."""
    with filtering_node(filtering) as node:
        stranger = replace(node.send(SEND).reply(), src=packets.SERVERS[1])
        for _ in range(3):
            node.wait(99)
            assert node.inbound(stranger).verdict == "filtered"
        node.wait(5)
        assert node.flows() == []


def test_sec7_what_a_rule_denies_refreshes_nothing() -> None:
    """Spec: RFC 7857 §7: filtering would let it in, but policy opens no session for it."""
    deny = Rule(Action.DENY, in_ports=(packets.WAN,))
    with filtering_node(Filtering.EIF, policy=Policy(rules=(deny,))) as node:
        stranger = replace(node.send(SEND).reply(), src=packets.SERVERS[1])
        for _ in range(3):
            node.wait(99)
            assert node.inbound(stranger).verdict == "rule_denied"
        node.wait(5)
        assert node.flows() == []


@EACH
def test_sec7_1_an_error_refreshes_nothing(node: NatNode, packet: Packet) -> None:
    """Spec: RFC 7857 §7.1: an outbound ICMP error, which answers an inbound packet."""
    flags = SYN | ACK if packet.proto == TCP else 0
    arrived = node.receive(node.send(packet).reply(flags=flags, seq=SERVER_ISN, ack=CLIENT_ISN + 1))
    error = packets.icmp_error(packet.src, arrived.ip(), 3, 3)
    lifetime = {TCP: 240, UDP: 300, ICMP: 60}[packet.proto]
    for _ in range(3):
        node.wait(lifetime // 3 - 1)
        assert node.outbound(error).verdict == "icmp_error_out"
    node.wait(5)
    assert node.flows() == []


def test_sec11_a_query_mapping_ends_with_its_last_session(node: NatNode) -> None:
    """Spec: RFC 7857 §11: each session has its timeout, and the identifier is free when the last one goes."""
    node.send(PING)
    node.wait(40)
    node.send(replace(PING, dst=packets.SERVERS[1]))
    assert (len(node.flows()), node.mappings()) == (2, 1)
    node.wait(22)
    assert (len(node.flows()), node.mappings()) == (1, 1)
    node.wait(40)
    assert (len(node.flows()), node.mappings()) == (0, 0)


def test_sec12_a_query_to_our_own_address() -> None:
    """Spec: RFC 7857 §12: an inside host's ping of a pool's address is answered, by this node itself."""
    with filtering_node(Filtering.EIF) as node:
        node.send(replace(PING, src=packets.CLIENTS[1]))
        out = node.outbound(replace(PING, dst=packets.WAN_VIP, payload=b"hello"))
        assert (out.verdict, out.out_port) == ("vip_echo", packets.LAN)
        reply = packets.parse(out.data)
        assert (reply.src, reply.dst, reply.sport) == (packets.WAN_VIP, PING.src, PING.sport)
        assert (reply.icmp_type, reply.payload) == (packets.ECHO_REPLY, b"hello")


# ---- windows ------------------------------------------------------------------------------------------
def test_windows_after_a_takeover(node: NatNode) -> None:
    """The peer knows the windows as they were at the handshake: what passes teaches it, then it is strict."""
    with nat_node(packets.node_config(1), role=PASSIVE) as peer:
        node.fastpath.track_changes(on=True)
        server = connect(node)
        tell(node, peer)
        peer.fastpath.set_role(ACTIVE, 3)
        far = 1_500_000_000  # what went through the other node since
        client = replace(IN_THE_MIDDLE, seq=IN_THE_MIDDLE.seq + far, ack=IN_THE_MIDDLE.ack + far)
        server = replace(server, seq=server.seq + far, ack=server.ack + far)
        blind = replace(server, flags=RST, seq=1)
        for _ in range(2):
            peer.send(client)
            peer.receive(server)
            peer.receive(blind)  # passes, but is not believed
            assert not is_reset(peer)
            peer.wait(29)
        peer.wait(2)
        peer.send(client)
        peer.receive(server)
        assert peer.inbound(blind).verdict == "tcp_rst_window"
        assert peer.inbound(replace(server, seq=server.seq + far)).verdict == "tcp_window"
        peer.send(client)
        peer.receive(server)


def test_windows_of_a_node_that_was_not_active_meanwhile(node: NatNode) -> None:
    """What it holds is as old as what a peer would have told: nothing is dropped, then learned again."""
    server = connect(node)
    far = replace(server, seq=server.seq + 1_500_000_000)
    assert node.inbound(far).verdict == "tcp_window"
    node.fastpath.set_role(PASSIVE, 3)
    node.fastpath.set_role(ACTIVE, 4)
    node.receive(far)
