# SPDX-License-Identifier: Apache-2.0
"""A planned move of the role loses no packet and doubles none. Spec: R15, B3."""

from __future__ import annotations

from netns.conftest import LOG_DIR
from pair import Node, Pair
from sandbox import Lab, wait_until
from traffic import Download, TcpFlows, UdpProbe, web_server

FLOWS = 200
MOVES = 4


def settled(pair: Pair, new: Node) -> None:
    """Wait until ``new`` reigns, and could hand the role back."""
    wait_until(lambda: new.role() == "ACTIVE", 10, "the peer is ACTIVE")
    assert pair.wait_settled() is new


def stop_and_start(pair: Pair, node: Node, reigns: Node) -> None:
    """SIGTERM; ``reigns`` is ACTIVE then; the node comes back."""
    assert node.stop() == 0
    wait_until(lambda: reigns.role() == "ACTIVE", 10, "the other one is ACTIVE")
    node.start()
    settled(pair, reigns)


def test_nothing_is_lost_by_a_planned_move(lab: Lab, pair: Pair) -> None:
    """Back and forth by command, then SIGTERM of the ACTIVE and of the PASSIVE node, all under one traffic: a
    datagram each millisecond and its echo, 200 TCP connections, a download."""
    udp, flows = UdpProbe(lab, 700), TcpFlows(lab, 700, flows=FLOWS)
    with web_server(lab, LOG_DIR / "nginx-handover.log") as web:
        download = Download(lab, web, 700)
        try:
            flows.wait_open()
            wait_until(lambda: pair.holds(udp.source), 10, "both nodes have its session")
            for _ in range(MOVES):
                old = pair.active()
                old.request("failover")
                settled(pair, pair.peer(old))
            active = pair.active()
            stop_and_start(pair, active, pair.peer(active))
            stop_and_start(pair, active, pair.peer(active))
            assert download.finish().sha256_ok
            moved, tcp = udp.finish(), flows.finish()
        finally:
            udp.close()
            flows.close()
            download.close()
    assert (moved.there.lost, moved.echoes.lost) == (0, 0)
    assert (moved.there.duplicated, moved.echoes.duplicated) == (0, 0)
    assert tcp.survived == tcp.opened == flows.flows
    passed = [pair.active().counter("passed_on"), pair.peer(pair.active()).counter("passed_on")]
    assert sum(passed) > 0, "something was under way when the role moved"
