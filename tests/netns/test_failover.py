# SPDX-License-Identifier: Apache-2.0
"""Deaths in a row under live connections. Spec: R6, R7, R12, R13, R19, R20, R21."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
import topo
from failover import compare_tables
from pair import Node, Pair
from sandbox import Lab, wait_until
from traffic import TcpFlows, UdpProbe

pytestmark = pytest.mark.timeout(300)
FLOWS = 300
OUTAGE_MAX_MS = 350
HANDOFFS = 3
AUDIT_BYTES = 1000
"""A second: 64 digests, and what a message costs."""


def wait_rounds(tcp: TcpFlows, more: int) -> None:
    """Wait until every connection has had so many more answers."""
    rounds = int(tcp.progress()["rounds"]) + more
    wait_until(lambda: int(tcp.progress()["rounds"]) >= rounds, 20, f"{more} more rounds")


def live(node: Node) -> list[dict[str, Any]]:
    """Established sessions: what earlier tests left is ending by itself."""
    return node.sessions(state="established")


def ports_in_use(node: Node) -> dict[tuple[str, str], set[str]]:
    """Inside endpoints behind each external endpoint, by protocol."""
    users: dict[tuple[str, str], set[str]] = {}
    for session in node.sessions():
        users.setdefault((session["proto"], session["external"]), set()).add(session["inside"])
    return users


def test_three_handoffs_lose_nothing(lab: Lab, pair: Pair) -> None:
    """The same connections live through three deaths in a row, a, b, a; the survivor's table is always the
    dead node's; each dead node comes back, synchronises and stays PASSIVE. Spec: R13, R19, R20.
    """
    with contextlib.ExitStack() as stack:
        tcp = TcpFlows(lab, 301, flows=FLOWS)
        stack.callback(tcp.close)
        tcp.wait_open()
        for handoff in range(HANDOFFS):
            victim = pair.wait_settled()
            survivor = pair.peer(victim)
            wait_rounds(tcp, 4)
            udp = UdpProbe(lab, 301 + handoff)
            stack.callback(udp.close)
            wait_rounds(tcp, 2)
            wait_until(pair.settled, 20, "the PASSIVE node has caught up")
            before = live(victim)

            victim.die()
            tcp.mark()
            wait_until(tcp.recovered, 30, "each connection has a new request answered")
            after = live(survivor)
            probed = udp.finish()
            assert probed.foreign == 0
            assert probed.sources == (topo.WAN_VIP,)
            assert probed.gap_ms <= OUTAGE_MAX_MS
            table = compare_tables(before, after)
            assert table.before >= FLOWS, "a session for each connection"
            assert table.identical, table

            victim.start()
            assert pair.wait_settled() is survivor, "a node that comes back does not preempt"
        result = tcp.finish()
    assert result.survived == result.opened == FLOWS
    assert (result.reset, result.stalled, result.corrupt, result.foreign) == (0, 0, 0, 0)
    assert result.sources == (topo.WAN_VIP,)
    assert result.translated > FLOWS / 2


def test_new_connections_never_collide_with_inherited_ports(lab: Lab, pair: Pair) -> None:
    """After a takeover, new mappings take external ports that no inherited mapping has. Spec: R13, R19."""
    with contextlib.ExitStack() as stack:
        old = TcpFlows(lab, 310, flows=FLOWS)
        stack.callback(old.close)
        old.wait_open()
        victim = pair.wait_settled()
        survivor = pair.peer(victim)
        inherited = ports_in_use(victim)
        victim.die()
        old.mark()
        wait_until(old.recovered, 30, "each connection has a new request answered")
        new = TcpFlows(lab, 311, flows=FLOWS, port="7101")
        stack.callback(new.close)
        new.wait_open()
        users = ports_in_use(survivor)
        assert {key for key, inside in users.items() if len(inside) > 1} == set()
        assert all(users[key] == inside for key, inside in inherited.items() if key in users)
        assert len(users) >= len(inherited) + FLOWS * 0.9
        results = (new.finish(), old.finish())
    for result in results:
        assert result.survived == result.opened == FLOWS
        assert result.foreign == 0


def test_bulk_sync_brings_old_sessions(lab: Lab, pair: Pair) -> None:
    """Sessions that stood long before a node joined are in its table once it is PASSIVE. Spec: R20, R22."""
    with contextlib.ExitStack() as stack:
        active = pair.wait_settled()
        passive = pair.peer(active)
        passive.stop()
        tcp = TcpFlows(lab, 320, flows=FLOWS)
        stack.callback(tcp.close)
        tcp.wait_open()
        passive.start()
        pair.wait_settled()
        table = compare_tables(live(active), live(passive))
        assert table.identical, table
        assert table.before >= FLOWS, "a session for each connection"
        events = [event["event"] for event in passive.history()]
        assert "sync-bulk-complete" in events
        assert tcp.finish().survived == FLOWS


def test_sync_carries_metadata_only(lab: Lab, pair: Pair) -> None:
    """Opening a session costs the cross-connect some hundred bytes, its payload none. Spec: R22, R23, F2."""
    active = pair.wait_settled()

    def sent() -> tuple[int, int, int]:
        """Bytes, changes, and records that refresh windows and counters each half minute."""
        wait_until(pair.settled, 20, "the PASSIVE node has caught up")
        sync = active.ctl("status")["sync"]
        rest = int(sync["told"]["rest"])
        return int(sync["bytes_sent"]), int(sync["records_sent"]) - rest, rest

    idle_bytes, idle_records, idle_rest = sent()
    with contextlib.ExitStack() as stack:
        tcp = TcpFlows(lab, 330, flows=FLOWS)
        stack.callback(tcp.close)
        tcp.wait_open()
        wait_rounds(tcp, 1)
        began = time.monotonic()
        open_bytes, open_records, open_rest = sent()
        wait_rounds(tcp, 4)
        steady_bytes, steady_records, steady_rest = sent()
        digests = AUDIT_BYTES * (time.monotonic() - began + 1)
        assert tcp.finish().survived == FLOWS
    # The session at each state that it was drained in: SYN_SENT, SYN_RECV, ESTABLISHED.
    assert FLOWS <= open_records - idle_records <= 3 * FLOWS
    assert (open_bytes - idle_bytes - 200 * (open_rest - idle_rest)) / FLOWS <= 600
    # 4 rounds of requests and responses: no state changed, so nothing is sent.
    assert steady_records - open_records <= FLOWS // 10, "what earlier tests left may end meanwhile"
    records = steady_records - open_records + steady_rest - open_rest
    assert steady_bytes - open_bytes <= 200 * (records + 5) + digests
