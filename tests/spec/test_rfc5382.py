# SPDX-License-Identifier: Apache-2.0
"""RFC 5382: what a NAT does to TCP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import packets
import pytest
from nat_node import NatNode, nat_node
from packets import ACK, FIN, RST, SYN, TCP, Packet

from flexha.fastpath import FlowState

CLIENT_ISN, SERVER_ISN = 1_000, 7_000
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


def test_req4_an_unsolicited_syn_is_not_answered(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-4: no answer (it might be half of a simultaneous open)."""
    seen = node.send(OPEN)
    stranger = replace(seen.reply(), src=packets.SERVERS[1], flags=SYN, seq=1)
    out = node.inbound(stranger)
    assert (out.verdict, out.out.name) == ("no_session", "NONE")


def test_req5_established_connections_live_124_minutes(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-5."""
    seen = connect(node)
    node.wait(2 * 3600 + 4 * 60 - 1)
    node.receive(seen.reply(flags=ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 1))
    node.wait(7440 + 2)
    assert node.flows() == []


def test_req5_transitory_connections_live_4_minutes(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-5."""
    node.send(OPEN)
    node.wait(239)
    assert state(node) is FlowState.SYN_SENT
    node.wait(3)
    assert node.flows() == []


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


def test_reset_closes_and_a_blind_one_does_not(node: NatNode) -> None:
    """Spec: RFC 5382 REQ-5, RFC 5961 §3: a guessed RST must not end the session."""
    seen = connect(node)
    node.receive(seen.reply(flags=RST, seq=SERVER_ISN + 3_000_000))
    assert state(node) is FlowState.ESTABLISHED
    node.receive(seen.reply(flags=RST, seq=SERVER_ISN + 1))
    assert state(node) is FlowState.CLOSED


def test_reopened_from_the_same_port(node: NatNode) -> None:
    """Spec: RFC 7857 §2.3: a SYN on a session in TIME_WAIT opens a new connection."""
    seen = connect(node)
    node.receive(seen.reply(flags=RST | ACK, seq=SERVER_ISN + 1, ack=CLIENT_ISN + 1))
    again = node.send(replace(OPEN, seq=CLIENT_ISN + 100_000))
    assert again.sport == seen.sport
    assert state(node) is FlowState.SYN_SENT


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


@pytest.mark.parametrize("flags", [0, FIN, SYN | FIN, SYN | RST, FIN | RST | ACK])
def test_impossible_flags(node: NatNode, flags: int) -> None:
    """Spec: RFC 9293 §3.10.7: no state of TCP sends these."""
    assert node.outbound(replace(OPEN, flags=flags)).verdict == "tcp_flags"
