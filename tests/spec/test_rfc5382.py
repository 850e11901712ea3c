# SPDX-License-Identifier: Apache-2.0
"""RFC 5382: what a NAT does to TCP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import packets
import pytest
from nat_node import NatNode, filtering_node, nat_node
from packets import ACK, FIN, RST, SYN, TCP, Packet

from flexha.fastpath import Filtering, FlowState

CLIENT_ISN, SERVER_ISN = 1_000_000, 7_000_000
OPEN = Packet(TCP, packets.CLIENTS[0], packets.SERVERS[0], 40000, 80, SYN, seq=CLIENT_ISN)


@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as made:
        yield made


def state(node: NatNode) -> FlowState:
    (flow,) = node.flows()
    return flow.state


def connect(node: NatNode) -> Packet:
    """The handshake; returns the first segment as the server saw it."""
    seen = node.send(OPEN)
    node.receive(seen.reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN + 1))
    node.send(replace(OPEN, flags=ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1))
    assert state(node) is FlowState.ESTABLISHED
    return seen


def test_req1_one_mapping_for_all_remote_endpoints(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-1."""
    seen = {
        node.send(replace(OPEN, dst=server, dport=port)).sport
        for server in packets.SERVERS
        for port in (80, 443)
    }
    assert len(seen) == 1


def test_req2_simultaneous_open(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-2 a: a SYN that crosses ours belongs to the connection."""
    seen = node.send(OPEN)
    node.receive(seen.reply(flags=SYN, seq=SERVER_ISN))
    node.send(replace(OPEN, flags=SYN | ACK, ack=SERVER_ISN + 1))
    node.receive(seen.reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN + 1))
    node.send(replace(OPEN, flags=ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1))
    assert state(node) is FlowState.ESTABLISHED


def test_req2_simultaneous_open_that_the_other_side_began() -> None:
    """Spec: RFC 5382 REQ-2 a: the SYN from outside is first, by an open mapping; the client's crosses it."""
    with filtering_node(Filtering.EIF) as node:
        mapped = node.send(replace(OPEN, dst=packets.SERVERS[1]))
        other = replace(mapped.reply(flags=SYN, seq=SERVER_ISN), src=OPEN.dst)
        node.receive(other)
        assert node.send(OPEN).sport == mapped.sport
        node.send(replace(OPEN, flags=SYN | ACK, ack=SERVER_ISN + 1))
        node.receive(replace(other, flags=SYN | ACK, ack=CLIENT_ISN + 1))
        node.receive(replace(other, flags=ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 1))
        states = {flow.remote: flow.state for flow in node.flows()}
        assert states[OPEN.dst] is FlowState.ESTABLISHED


@pytest.mark.parametrize(
    ("filtering", "other_host", "other_port"),
    [
        (Filtering.EIF, "reverse", "reverse"),
        (Filtering.ADF, "filtered", "reverse"),
        (Filtering.APDF, "filtered", "filtered"),
    ],
)
def test_req3_who_may_open_a_connection_to_a_mapping(
    filtering: Filtering, other_host: str, other_port: str
) -> None:
    """Spec: RFC 5382 REQ-3; R10: whoever may, begins with a SYN."""
    with filtering_node(filtering) as node:
        seen = node.send(OPEN)
        opener = seen.reply(flags=SYN, seq=SERVER_ISN)
        for stranger, verdict in (
            (replace(opener, src=packets.SERVERS[1]), other_host),
            (replace(opener, sport=81), other_port),
        ):
            for flags in (ACK, RST, SYN | ACK):
                refused = "syn_check" if verdict == "reverse" else "filtered"
                assert node.inbound(replace(stranger, flags=flags)).verdict == refused
            assert node.inbound(stranger).verdict == verdict


@pytest.mark.parametrize("n_workers", [1, 3])
def test_req8_hairpinning(n_workers: int) -> None:
    """Spec: RFC 5382 REQ-8, a: a connection between two clients, by the external endpoint of one of them."""
    with filtering_node(Filtering.EIF, n_workers=n_workers) as node:
        for i in range(20):
            listener = replace(OPEN, src=packets.CLIENTS[1], sport=50000 + 2 * i)
            public = node.send(listener)
            opener = replace(OPEN, dst=public.src, sport=40000 + 2 * i, dport=public.sport)
            seen = node.hairpin(opener)
            assert (seen.dst, seen.dport) == (listener.src, listener.sport)
            assert seen.src == packets.WAN_VIP
            assert seen.sport != opener.sport or public.sport != listener.sport
            answer = node.hairpin(seen.reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN + 1))
            assert (answer.src, answer.sport) == (opener.dst, opener.dport)
            assert (answer.dst, answer.dport) == (opener.src, opener.sport)
            node.hairpin(replace(opener, flags=ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1))
        states = [flow.state for flow in node.flows() if flow.remote == packets.WAN_VIP]
        assert states == [FlowState.ESTABLISHED] * 40


def test_req4_an_unsolicited_syn_is_not_answered(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-4: no answer, for it might be half of a simultaneous open; nor later (REQ-4 a: the
    policy is to tell strangers nothing).
    """
    seen = node.send(OPEN)
    stranger = replace(seen.reply(), src=packets.SERVERS[1], flags=SYN, seq=1)
    for _ in range(8):
        out = node.inbound(stranger)
        assert (out.verdict, out.out.name) == ("filtered", "NONE")
        node.wait(1)


def test_req4_the_outbound_syn_completes_a_simultaneous_open(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-4, REQ-2: the other side's SYN came too early; ours goes out, its next passes."""
    other = replace(OPEN, dst=packets.SERVERS[1])
    seen = node.send(OPEN)
    early = replace(seen.reply(flags=SYN, seq=SERVER_ISN), src=other.dst)
    assert node.inbound(early).verdict == "filtered"
    node.send(other)
    node.receive(early)
    node.send(replace(other, flags=SYN | ACK, ack=SERVER_ISN + 1))


def test_req5_established_connections_live_124_minutes(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-5."""
    seen = connect(node)
    node.wait(2 * 3600 + 4 * 60 - 1)
    node.receive(seen.reply(flags=ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 1))
    node.wait(7440 + 2)
    assert node.flows() == []


def test_req5_transitory_connections_live_4_minutes(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-5."""
    seen = node.send(OPEN)
    node.wait(239)
    assert state(node) is FlowState.SYN_SENT
    node.receive(seen.reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN + 1))
    node.wait(239)
    assert state(node) is FlowState.SYN_RECV
    node.wait(3)
    assert node.flows() == []


def test_req5_half_closed_connections_live_like_open_ones(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-5, RFC 6146 §3.5.2.2: one FIN ends one direction, the other may go on for long."""
    seen = connect(node)
    node.send(replace(OPEN, flags=FIN | ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1))
    node.wait(7440 - 1)
    node.receive(seen.reply(flags=ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 2, payload=b"more"))
    assert state(node) is FlowState.FIN_WAIT


@pytest.mark.parametrize("offset", [-5000, -1, 300], ids=["below", "just below", "ahead"])
def test_req5_a_forged_fin_does_not_close_what_is_half_closed(node: NatNode, offset: int) -> None:
    """Spec: RFC 5382 REQ-5: the client has closed its half; the download takes longer than four minutes."""
    server = connect(node).reply(flags=ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 1)
    node.receive(replace(server, flags=FIN | ACK, seq=server.seq + offset))
    node.send(replace(OPEN, flags=FIN | ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1))
    server = replace(server, ack=CLIENT_ISN + 2, payload=bytes(400))
    for piece in range(10):
        node.receive(replace(server, seq=server.seq + 400 * piece))
        node.send(replace(OPEN, flags=ACK, seq=CLIENT_ISN + 2, ack=server.seq + 400 * (piece + 1)))
        node.wait(30)
    assert state(node) is not FlowState.TIME_WAIT


def test_closing_connections_become_transitory(node: NatNode) -> None:
    """Spec: RFC 5382 §5, RFC 7857 §2.1: FINs both ways and their ACKs, then the transitory timeout."""
    seen = connect(node)
    node.send(replace(OPEN, flags=FIN | ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1))
    assert state(node) is FlowState.FIN_WAIT
    node.receive(seen.reply(flags=FIN | ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 2))
    assert state(node) is FlowState.CLOSING
    node.send(replace(OPEN, flags=ACK, seq=CLIENT_ISN + 2, ack=SERVER_ISN + 2))
    assert state(node) is FlowState.TIME_WAIT
    node.wait(239)
    assert node.flows()
    node.wait(3)
    assert node.flows() == []


def test_syn_is_sent_again(node: NatNode) -> None:
    """Spec: RFC 9293 §3.8.1: lost on either side of the NAT, SYN and SYN+ACK come once more."""
    seen = node.send(OPEN)
    for _ in range(3):
        node.wait(3)
        assert node.send(OPEN).sport == seen.sport
    for _ in range(2):
        node.receive(seen.reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN + 1))
    node.send(OPEN)
    node.send(replace(OPEN, flags=ACK, seq=CLIENT_ISN + 1, ack=SERVER_ISN + 1))
    assert state(node) is FlowState.ESTABLISHED


def test_a_new_attempt_from_the_same_port(node: NatNode) -> None:
    """The client gave up before it was answered, and tries with other numbers."""
    node.send(OPEN)
    again = replace(OPEN, seq=CLIENT_ISN - 400_000)
    seen = node.send(again)
    node.receive(seen.reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN - 399_999))
    node.send(replace(OPEN, flags=ACK, seq=CLIENT_ISN - 399_999, ack=SERVER_ISN + 1))
    assert state(node) is FlowState.ESTABLISHED


def test_half_open_server(node: NatNode) -> None:
    """Spec: RFC 9293 §3.5.1: a server that still has an old connection challenges; the client resets it and
    opens anew, all through the NAT.
    """
    seen = node.send(OPEN)
    node.receive(seen.reply(flags=ACK, seq=555_000_000, ack=444_000_000))
    node.send(replace(OPEN, flags=RST, seq=444_000_000))
    node.send(OPEN)
    node.receive(seen.reply(flags=SYN | ACK, seq=SERVER_ISN, ack=CLIENT_ISN + 1))
    assert state(node) is FlowState.SYN_RECV


def test_client_restarts_on_an_open_session(node: NatNode) -> None:
    """Spec: RFC 5961 §4: a SYN alone ends nothing; what the server answers decides."""
    seen = connect(node)
    again = replace(OPEN, seq=CLIENT_ISN + 900_000)
    node.send(again)
    node.receive(seen.reply(flags=ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 1))
    assert state(node) is FlowState.ESTABLISHED
    answer = seen.reply(flags=SYN | ACK, seq=SERVER_ISN + 700_000_000, ack=again.seq + 1)
    assert node.inbound(answer).verdict == "tcp_window"
    node.send(again)
    node.receive(answer)
    assert state(node) is FlowState.SYN_RECV
    node.send(replace(again, flags=ACK, seq=again.seq + 1, ack=answer.seq + 1))
    assert state(node) is FlowState.ESTABLISHED


def test_segments_out_of_the_window_are_dropped(node: NatNode) -> None:
    """Neither data nor FIN gets in blindly."""
    seen = connect(node)
    good = seen.reply(flags=ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 1, payload=b"data")
    for bad in (
        replace(good, seq=good.seq + 1002),
        replace(good, seq=good.seq - 70_000),
        replace(good, ack=good.ack + 1),
        replace(good, ack=good.ack - 70_000),
        replace(good, seq=good.seq + 1_000_000_000, flags=FIN | ACK),
    ):
        assert node.inbound(bad).verdict == "tcp_window"
    assert state(node) is FlowState.ESTABLISHED
    assert node.counter("tcp_window") == 5
    node.receive(good)
    node.send(replace(OPEN, flags=ACK, seq=CLIENT_ISN, ack=SERVER_ISN + 5))  # keep-alive
    node.receive(replace(good, seq=good.seq + 1000, payload=b"x"))  # probe of a closed window


def test_windows_are_not_enforced_when_configured_so() -> None:
    """``fastpath.tcp_window = "lenient"``."""
    with nat_node(tcp_strict=False) as node:
        seen = connect(node)
        node.receive(seen.reply(flags=ACK, seq=SERVER_ISN + 50_000_000, ack=CLIENT_ISN + 1))
        node.receive(seen.reply(flags=RST, seq=SERVER_ISN + 900_000_000))
        assert state(node) is FlowState.ESTABLISHED


def test_req7_no_port_overloading(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-7."""
    seen = {node.send(replace(OPEN, src=packets.CLIENTS[i % 4], sport=2000 + i)).sport for i in range(300)}
    assert len(seen) == 300


@pytest.mark.parametrize("code", range(16))
def test_req9_req10_an_icmp_error_passes_and_does_not_end_a_session(node: NatNode, code: int) -> None:
    """Spec: RFC 5382 REQ-9, REQ-10; RFC 5927 §4: "hard" errors, too, are the endpoints' to judge."""
    about = connect(node).ip()[:28]
    out = node.inbound(packets.icmp_error(packets.SERVERS[0], about, 3, code))
    assert out.verdict == "icmp_error_in"
    assert packets.parse(out.data).dst == OPEN.src
    assert state(node) is FlowState.ESTABLISHED


@pytest.mark.parametrize("flags", [ACK, SYN | ACK, FIN | ACK, RST, RST | ACK])
def test_syn_check(node: NatNode, flags: int) -> None:
    """Spec: R10: a segment that opens no session and belongs to none is dropped, and counted."""
    assert node.outbound(replace(OPEN, flags=flags)).verdict == "syn_check"
    assert node.flows() == []
    assert node.counter("syn_check") == 1


def test_syn_check_off_takes_a_connection_in_the_middle() -> None:
    """``fastpath.syn_check = false``: ACK and FIN open a session, windows are learned from what passes."""
    with nat_node(syn_check=False) as node:
        for flags in (SYN | ACK, RST, RST | ACK):
            assert node.outbound(replace(OPEN, flags=flags)).verdict == "syn_check"
        seen = node.send(replace(OPEN, flags=ACK, seq=3_000_000_000, ack=100))
        assert state(node) is FlowState.ESTABLISHED
        node.receive(seen.reply(flags=ACK, seq=100, ack=3_000_000_000, payload=b"data"))
        node.send(replace(OPEN, flags=ACK, seq=3_000_000_000, ack=104))
        node.wait(60)
        node.send(replace(OPEN, flags=ACK, seq=3_000_000_000, ack=104))
        node.receive(seen.reply(flags=ACK, seq=104, ack=3_000_000_000))
        # The scale is not known, so the widest holds: still, half of all numbers are out of it.
        assert (
            node.inbound(seen.reply(flags=ACK, seq=2_000_000_000, ack=3_000_000_000)).verdict == "tcp_window"
        )


@pytest.mark.parametrize("flags", [0, FIN, SYN | FIN, SYN | RST, FIN | RST | ACK])
def test_impossible_flags(node: NatNode, flags: int) -> None:
    """Spec: RFC 9293 §3.10.7: no state of TCP sends these."""
    assert node.outbound(replace(OPEN, flags=flags)).verdict == "tcp_flags"
