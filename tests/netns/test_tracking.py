# SPDX-License-Identifier: Apache-2.0
"""What a lost port does to the role. Spec: R8, R14."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import faults
import pytest
import topo
from pair import Node, Pair
from sandbox import Lab, wait_until
from traffic import TcpFlows, UdpProbe

pytestmark = pytest.mark.timeout(120)
FLOWS = 100
OUTAGE_MAX_MS = 50
NOISE_MS = 50
"""What two busy cores that run both nodes, both switches and the traffic add."""


@contextlib.contextmanager
def traffic(lab: Lab, pair: Pair, run: int) -> Iterator[tuple[TcpFlows, UdpProbe]]:
    """Connections, and a datagram each millisecond; both nodes have the sessions."""
    with contextlib.ExitStack() as stack:
        tcp = TcpFlows(lab, run, flows=FLOWS)
        stack.callback(tcp.close)
        tcp.wait_open()
        udp = UdpProbe(lab, run)
        stack.callback(udp.close)
        wait_until(lambda: pair.holds(udp.source), 10, "both nodes have its session")
        yield tcp, udp


def wait_usable(node: Node, port: str, *, usable: bool) -> None:
    """Wait until the node, and its peer of it, knows whether its port is usable."""
    wait_until(lambda: tracked(node, port)["usable"] is usable, 10, f"{node.name}: {port} usable is {usable}")


def tracked(node: Node, port: str) -> dict[str, object]:
    status = node.status()
    assert status is not None
    found: dict[str, object] = status["tracking"]["ports"][port]
    return found


def test_the_role_leaves_a_node_without_wan(lab: Lab, pair: Pair) -> None:
    """Its wire loses carrier: the peer gets the role by word, and keeps it when the wire is whole."""
    old = pair.active()
    new = pair.peer(old)
    with traffic(lab, pair, 380) as (tcp, udp):
        with faults.link_down(lab, topo.SWITCHES["wan"], f"fx-wan-{old.name}"):
            tcp.mark()
            wait_until(lambda: new.role() == "ACTIVE", 10, "the peer is ACTIVE")
            wait_until(tcp.recovered, 20, "each connection has a new request answered")
            result = udp.finish()
            assert not tracked(old, "wan")["usable"]
            assert not tracked(new, "wan")["peer_usable"]
        wait_usable(old, "wan", usable=True)
        assert pair.wait_settled() is new
        flows = tcp.finish()
    begun = [event["motive"] for event in old.history() if event["event"] == "handover-begun"]
    assert begun[-1] == "track"
    assert flows.survived == flows.opened == FLOWS
    assert result.gap_ms <= OUTAGE_MAX_MS + NOISE_MS
