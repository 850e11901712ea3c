# SPDX-License-Identifier: Apache-2.0
"""The PASSIVE node is away while ten minutes' worth of sessions come and go. Spec: R19, R22."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import packets
import pytest
import topo
from pair import Node, Pair, configuration_text
from sandbox import Lab, wait_until
from traffic import TcpFlows

pytestmark = pytest.mark.timeout(300)
FLOW_CAP = 4096
CHURN = 600 * 100
"""Sessions: 100 a second for ten minutes. The table turns over so often that memory could grow, if it did."""
BURST = 512
GROWTH_MAX_KIB = 4 << 10
FLOWS = 50
WAIT_S = 60
AGREE_S = 3.0
OTHER = topo.CLIENT_ADDRESSES[9]
NOWHERE = "192.0.2.77"


@pytest.fixture
def small(lab: Lab, session_pair: Pair, tmp_path: Path) -> Iterator[Pair]:
    """A pair whose table is full soon."""
    config = tmp_path / "pair.toml"
    config.write_text(configuration_text() + f"\n[fastpath]\nflow_cap = {FLOW_CAP}\n")
    session_pair.stop_all()
    pair = Pair(lab, tmp_path, config)
    pair.start()
    try:
        pair.wait_settled()
        yield pair
    finally:
        pair.stop_all()


class Churn:
    """SYNs that nobody answers: each makes a session, and pushes out one that was there before it."""

    def __init__(self, lab: Lab, active: Node) -> None:
        self._active = active
        self._socket = lab.open_socket("client", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        source, nowhere = IPv4Address(OTHER), IPv4Address(NOWHERE)
        syn = packets.Packet(packets.TCP, source, nowhere, 0, 80, flags=packets.SYN, seq=0)
        self._syn = syn.ip()
        self._ports = itertools.cycle(range(1024, 61024))

    def created(self) -> int:
        return sum(int(worker["flows_created"]) for worker in self._active.request("workers")["workers"])

    def run(self, sessions: int) -> None:
        """Until so many have been made."""
        wanted = self.created() + sessions
        while self.created() < wanted:
            for port in itertools.islice(self._ports, BURST):
                # The sequence number makes up for the port, so that the checksum stays as it is.
                frame = self._syn[:20] + struct.pack("!H", port) + self._syn[22:24]
                frame += struct.pack("!I", 0xFFFF - port) + self._syn[28:]
                with contextlib.suppress(OSError):
                    self._socket.sendto(frame, (NOWHERE, 0))

    def close(self) -> None:
        self._socket.close()


def rss_kib(node: Node) -> int:
    status = node.lab.path(f"/proc/{node.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def sync_of(node: Node) -> dict[str, Any]:
    status = node.status()
    assert status is not None
    sync: dict[str, Any] = status["sync"]
    return sync


@pytest.mark.parametrize("away", ["stopped", "killed"])
def test_peer_that_was_away_for_long(lab: Lab, small: Pair, away: str) -> None:
    """Memory is flat meanwhile; who kept his table resumes, without a bulk; the digests agree at once."""
    active = small.active()
    passive = small.peer(active)
    run = 440 + ["stopped", "killed"].index(away)
    with (
        contextlib.closing(TcpFlows(lab, run, flows=FLOWS)) as tcp,
        contextlib.closing(Churn(lab, active)) as churn,
    ):
        tcp.wait_open()
        churn.run(2 * FLOW_CAP)
        wait_until(small.settled, WAIT_S, "the PASSIVE node has caught up")
        bulks = sync_of(active)["bulk"]["sent"]
        pid = passive.pid
        assert pid is not None
        if away == "stopped":
            lab.signal(pid, signal.SIGSTOP)
        else:
            passive.die()
        wait_until(lambda: not sync_of(active)["connected"], WAIT_S, "ACTIVE notices")
        churn.run(CHURN // 6)
        before = rss_kib(active)
        churn.run(CHURN - CHURN // 6)
        grown = rss_kib(active) - before
        assert grown <= GROWTH_MAX_KIB, f"{grown} KiB more after {CHURN} sessions"
        if away == "stopped":
            lab.signal(pid, signal.SIGCONT)
        else:
            passive.start()
        wait_until(lambda: sync_of(active)["state"] == "sending", WAIT_S, "the peer is back")
        since = time.monotonic()
        wait_until(lambda: sync_of(active)["audit"]["in_sync"], WAIT_S, "the digests agree")
        took_s = time.monotonic() - since
        assert took_s <= AGREE_S, f"{away}: the digests agreed after {took_s:.2f} s"
        assert sync_of(active)["bulk"]["sent"] - bulks == (away == "killed")
        small.wait_settled()
        active.die()
        wait_until(lambda: passive.role() == "ACTIVE", WAIT_S, "the peer takes over")
        tcp.mark()
        wait_until(tcp.recovered, WAIT_S, "each connection has an answer")
        result = tcp.finish()
    assert (result.survived, result.reset, result.stalled) == (FLOWS, 0, 0)
