# SPDX-License-Identifier: Apache-2.0
"""Output commit on a live pair: who waits for the peer, and what becomes of it when the peer is slow or gone.

The pair of these tests has a configuration of its own; the session's pair rests meanwhile. Spec: B1, R18.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import topo
from pair import Node, Pair, configuration_text
from sandbox import Lab, wait_until

pytestmark = pytest.mark.timeout(180)

BOUNDED, STRICT, ASYNC = 8231, 8232, 8233
WAIT_S = 20.0
RULES = f"""
[[rules]]
name = "strict"
action = "allow"
proto = "udp"
ports = "{STRICT}"
commit = "strict"

[[rules]]
name = "async"
action = "allow"
proto = "udp"
ports = "{ASYNC}"
commit = "async"
"""


class Traffic:
    """Datagrams from the client, each of a session of its own, and what of them reaches the server."""

    def __init__(self, lab: Lab, stack: contextlib.ExitStack) -> None:
        self._lab = lab
        self._stack = stack
        self._sent = 0
        self._servers: dict[int, socket.socket] = {}
        for port in (BOUNDED, STRICT, ASYNC):
            server = stack.enter_context(lab.open_socket("server", socket.AF_INET, socket.SOCK_DGRAM))
            server.bind((topo.SERVER_ADDRESS, port))
            server.setblocking(False)
            self._servers[port] = server

    def send(self, port: int) -> bytes:
        """A new session; returns what its datagram says."""
        self._sent += 1
        said = b"%d" % self._sent
        client = self._stack.enter_context(self._lab.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM))
        client.sendto(said, (topo.SERVER_ADDRESS, port))
        return said

    def arrived(self, port: int) -> set[bytes]:
        """What has come since the last look."""
        got = set()
        with contextlib.suppress(BlockingIOError):
            while True:
                got.add(self._servers[port].recv(100))
        return got

    def exchange(self, port: int) -> None:
        """A new session whose datagram arrives."""
        self.wait(port, self.send(port))

    def wait(self, port: int, said: bytes) -> None:
        wait_until(lambda: said in self.arrived(port), WAIT_S, f"the datagram to port {port}")


def stats(node: Node) -> dict[str, int]:
    """Counters and gauges of output commit, over all workers."""
    workers: list[dict[str, Any]] = node.request("counters")["sync"]
    return {
        name: sum(sum(value) if isinstance(value, list) else value for value in found)
        for name in workers[0]
        if (found := [worker[name] for worker in workers])
    }


def logged(node: Node, event: str) -> bool:
    return any(event in line for line in node.log.read_text().splitlines())


def wait_committing(traffic: Traffic, node: Node) -> None:
    """The peer is in sync: new sessions wait for it."""

    def held() -> bool:
        before = node.counter("held")
        traffic.exchange(BOUNDED)
        return node.counter("held") > before

    wait_until(held, WAIT_S, "packets wait for the peer")


@pytest.fixture
def commit_pair(lab: Lab, session_pair: Pair, tmp_path: Path) -> Iterator[Pair]:
    session_pair.stop_all()
    config = tmp_path / "pair.toml"
    config.write_text(configuration_text() + RULES)
    pair = Pair(lab, tmp_path, config)
    pair.start()
    try:
        pair.wait_settled()
        yield pair
    finally:
        pair.stop_all()


@pytest.fixture
def traffic(lab: Lab) -> Iterator[Traffic]:
    with contextlib.ExitStack() as stack:
        yield Traffic(lab, stack)


def test_new_sessions_wait_for_the_peer_by_their_rule(commit_pair: Pair, traffic: Traffic) -> None:
    """What has arrived is in the peer's table already. Spec: B1."""
    active = commit_pair.active()
    passive = commit_pair.peer(active)
    wait_committing(traffic, active)
    for port in (BOUNDED, STRICT):
        before = stats(active)
        traffic.exchange(port)
        assert any(s["remote"] == f"{topo.SERVER_ADDRESS}:{port}" for s in passive.sessions()), port
        after = stats(active)
        assert after["hold"] == before["hold"] + 1
        assert after["lag"] > before["lag"]
    before = stats(active)
    traffic.exchange(ASYNC)
    wait_until(lambda: stats(active)["lag"] == before["lag"] + 1, WAIT_S, "the peer's word")
    assert stats(active)["hold"] == before["hold"]
    rules = {rule["name"]: rule.get("commit") for rule in active.ctl("rules")["rules"]}
    assert rules == {"strict": "strict", "async": "async"}


def test_a_slow_peer_delays_nobody_for_long(lab: Lab, commit_pair: Pair, traffic: Traffic) -> None:
    """Bounded lets go, says so once, and is back by itself; strict waits. Spec: B1."""
    active = commit_pair.active()
    wait_committing(traffic, active)
    with faults.xc_silent(lab):
        strict = traffic.send(STRICT)
        traffic.exchange(BOUNDED)
        assert stats(active)["hold_expired"] == 1

        def degraded() -> bool:
            traffic.exchange(BOUNDED)
            return stats(active)["degraded"] == 1

        wait_until(degraded, WAIT_S, "one session after the other was let go")
        assert traffic.arrived(STRICT) == set()
        assert stats(active)["held_sessions"] == 1, "it still waits"
        traffic.exchange(BOUNDED)
        traffic.exchange(ASYNC)
        assert stats(active)["hold_unheld"] >= 1
    traffic.wait(STRICT, strict)

    def recovered() -> bool:
        traffic.exchange(BOUNDED)
        return stats(active)["degraded"] == 0

    wait_until(recovered, WAIT_S, "the worker holds again")
    wait_until(lambda: logged(active, "commit.degraded"), WAIT_S, "a line in the log")
    wait_until(lambda: logged(active, "commit.recovered"), WAIT_S, "a line in the log")
    wait_committing(traffic, active)
    assert stats(active)["hold_dropped"] == 0


def test_a_frozen_peer_is_waited_for_until_it_is_dead(lab: Lab, commit_pair: Pair, traffic: Traffic) -> None:
    """What waits leaves as soon as there is no peer; then nothing waits until it is back. Spec: B1."""
    active = commit_pair.active()
    passive = commit_pair.peer(active)
    pid = passive.pid
    assert pid is not None
    wait_committing(traffic, active)
    before = active.counter("held")
    lab.signal(pid, signal.SIGSTOP)
    try:
        strict = traffic.send(STRICT)
        traffic.wait(STRICT, strict)
        assert active.counter("held") == before + 1
        assert active.counter("hold_dropped") == 0
        traffic.exchange(BOUNDED)
        traffic.exchange(STRICT)
        assert active.counter("held") == before + 1
        assert stats(active)["held_sessions"] == 0
    finally:
        lab.signal(pid, signal.SIGCONT)
    commit_pair.wait_settled()
    wait_committing(traffic, commit_pair.active())


def test_a_lone_node_waits_for_nobody(commit_pair: Pair, traffic: Traffic) -> None:
    """Spec: B1."""
    active = commit_pair.active()
    commit_pair.peer(active).die()
    wait_until(lambda: not (active.status() or {})["sync"]["connected"], WAIT_S, "the peer is gone")
    before = active.counter("held")
    for port in (BOUNDED, STRICT, ASYNC):
        traffic.exchange(port)
    assert active.counter("held") == before
