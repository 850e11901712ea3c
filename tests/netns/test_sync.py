# SPDX-License-Identifier: Apache-2.0
"""Both tables are one, whatever comes between the nodes: real daemons, real traffic.

Each test has a pair with a configuration of its own; the session's pair rests meanwhile.
Spec: B5, R20, R21, R22.
"""

from __future__ import annotations

import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import topo
from failover import compare_tables
from pair import Node, Pair, configuration_text
from sandbox import Lab, now_ns, wait_until
from traffic import ShortConns

pytestmark = pytest.mark.timeout(180)

WAIT_S = 20.0
AGREED_S = 3.0
PORT = 8401
FIRST_PORT = 45000
UNTOLD, LATE, PLAIN = 8402, 8403, 8404
LATE_S = 2
SMALL_TABLE = 2048
"""So small that connections which have ended must make room: their ends are told, too."""
LARGE_TABLE = 16384
"""Of its changes 4,096 can be queued (csrc/core.c), behind 8,192 in the ring."""
MORE_THAN_A_RING = 12000
NARROW = """
[sync]
batch_records = 64
window_batches = 4
"""
RULES = f"""
[[rules]]
name = "untold"
action = "allow"
proto = "udp"
ports = "{UNTOLD}"
nat = "vip"
sync = "no"

[[rules]]
name = "late"
action = "allow"
proto = "udp"
ports = "{LATE}"
nat = "vip"
sync = "after {LATE_S}"

[[rules]]
name = "rest"
action = "allow"
from = "inside"
to = "outside"
nat = "vip"
"""


@contextlib.contextmanager
def pair_of(lab: Lab, session_pair: Pair, directory: Path, flow_cap: int) -> Iterator[Pair]:
    """A settled pair whose tables have room for so many sessions."""
    session_pair.stop_all()
    config = directory / "pair.toml"
    config.write_text(f"{configuration_text()}\n[fastpath]\nflow_cap = {flow_cap}\n{NARROW}{RULES}")
    pair = Pair(lab, directory, config)
    pair.start()
    try:
        pair.wait_settled()
        yield pair
    finally:
        for node in pair.nodes.values():
            if (pid := node.pid) is not None:
                lab.signal(pid, signal.SIGCONT)
        pair.stop_all()


@pytest.fixture
def small_pair(lab: Lab, session_pair: Pair, tmp_path: Path) -> Iterator[Pair]:
    with pair_of(lab, session_pair, tmp_path, SMALL_TABLE) as pair:
        yield pair


@pytest.fixture
def large_pair(lab: Lab, session_pair: Pair, tmp_path: Path) -> Iterator[Pair]:
    with pair_of(lab, session_pair, tmp_path, LARGE_TABLE) as pair:
        yield pair


# ---- what the daemons say ----------------------------------------------------------------------------
def sync_of(node: Node) -> dict[str, Any]:
    status = node.status()
    assert status is not None, f"node {node.name} answers"
    sync: dict[str, Any] = status["sync"]
    return sync


def has_agreed(node: Node, after_ns: int) -> bool:
    """All shards were found equal after this moment, and none has differed since."""
    audit = sync_of(node)["audit"]
    agreed_at = audit["agreed_at"] or 0
    return bool(audit["in_sync"] and not audit["differing"] and agreed_at > after_ns / 1e9)


def wait_agreed(node: Node, timeout_s: float = AGREED_S) -> None:
    """Wait for an agreement that is younger than this call."""
    now = now_ns()
    wait_until(lambda: has_agreed(node, now), timeout_s, f"the digests agree: {sync_of(node)}")


def reign(active: Node) -> int:
    """The term that a node reigns in."""
    status = active.status()
    assert status is not None
    assert status["role"] == "ACTIVE"
    return int(status["term"])


def assert_never_differed(pair: Pair) -> None:
    for node in pair.nodes.values():
        assert node.counter("audit.differing") == 0
        assert sync_of(node)["sweep"]["repairs"] == 0
        assert sync_of(node)["scrub_errors"] == 0
        assert sync_of(node)["import_unknown"] == 0


def wait_equal(pair: Pair, timeout_s: float = WAIT_S) -> int:
    """Wait until the tables are the same, session for session; their number."""
    active = pair.active()
    passive = pair.peer(active)

    def equal() -> bool:
        return compare_tables(active.sessions(), passive.sessions()).identical

    wait_until(equal, timeout_s, "both tables hold the same sessions")
    return len(active.sessions())


@contextlib.contextmanager
def frozen(lab: Lab, node: Node) -> Iterator[None]:
    """A node that stands still, for as long as the block takes."""
    pid = node.pid
    assert pid is not None
    lab.signal(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        lab.signal(pid, signal.SIGCONT)


# ---- traffic -----------------------------------------------------------------------------------------
@contextlib.contextmanager
def churn(lab: Lab, number: int, *, conns: int, per_s: int) -> Iterator[ShortConns]:
    """Short connections that come and go; source ports of their own for each ``number``."""
    traffic = ShortConns(lab, PORT, FIRST_PORT + 800 * number, conns=conns, per_s=per_s)
    try:
        yield traffic
    finally:
        traffic.close()


def wait_survived(traffic: ShortConns, conns: int) -> None:
    """Wait until so many connections have gone through to their end."""
    wait_until(lambda: int(traffic.progress().get("survived", 0)) >= conns, 60, f"{conns} connections")


def send(lab: Lab, *ports: int) -> str:
    """One datagram to each of these ports of the server, each a session; the client's ADDRESS:PORT."""
    with lab.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((topo.CLIENT_ADDRESSES[0], 0))
        for port in ports:
            client.sendto(b"?", (topo.SERVER_ADDRESS, port))
        address, source = client.getsockname()
        return f"{address}:{source}"


def sessions_in(node: Node) -> int:
    """How many there are."""
    return int(node.request("sessions", count_only=True)["count"])


def fill(lab: Lab, node: Node, until: Callable[[], bool], what: str) -> None:
    """Open sessions, 400 from each of many sockets, until this is so; no faster than the node takes them."""
    sent = sessions_in(node)

    def enough() -> bool:
        nonlocal sent
        if until():
            return True
        if sessions_in(node) >= sent:
            send(lab, *range(20000, 20400))
            sent += 400
        return False

    wait_until(enough, 60, what)


def remotes(node: Node, source: str) -> set[str]:
    """What the sessions of an inside ADDRESS:PORT lead to."""
    return {session["remote"] for session in node.sessions(inside=source)}


# ---- tests -------------------------------------------------------------------------------------------
def test_tables_agree_while_sessions_come_and_go(lab: Lab, small_pair: Pair) -> None:
    """More connections than the table holds: second after second no digest differs. Spec: B5, R20."""
    active = small_pair.active()
    conns = 2 * SMALL_TABLE
    with churn(lab, 0, conns=conns, per_s=500) as traffic:
        rounds = 0
        while traffic.progress().get("event") != "done":
            wait_agreed(active)
            rounds += 1
        result = traffic.finish(WAIT_S)
    assert (result.survived, result.lost) == (conns, 0)
    assert rounds >= 4
    told = sync_of(active)["told"]
    assert told["open"] >= conns
    assert told["delete"] > 0
    wait_agreed(active)
    assert SMALL_TABLE // 4 < wait_equal(small_pair) <= SMALL_TABLE
    assert_never_differed(small_pair)


def test_a_frozen_peer_goes_on_where_it_was(lab: Lab, small_pair: Pair) -> None:
    """PASSIVE stands still while sessions come and go; no bulk when it wakes. Spec: B5, R20, R21."""
    active = small_pair.active()
    passive = small_pair.peer(active)
    term = reign(active)
    bulks = sync_of(active)["bulk"]["sent"]
    with churn(lab, 1, conns=3000, per_s=250) as traffic:
        wait_survived(traffic, 200)
        with frozen(lab, passive):
            wait_until(lambda: not sync_of(active)["connected"], WAIT_S, "the peer is given up")
            gone = int(traffic.progress()["survived"])
            wait_survived(traffic, gone + 300)
        wait_until(lambda: sync_of(active)["state"] == "sending", WAIT_S, "the peer is back")
        wait_agreed(active)
        assert traffic.progress().get("event") != "done", "all of this under traffic"
        result = traffic.finish(60)
    assert (result.survived, result.lost) == (3000, 0)
    assert reign(active) == term
    assert sync_of(active)["bulk"]["sent"] == bulks
    wait_agreed(active)
    wait_equal(small_pair)
    assert_never_differed(small_pair)


def test_a_peer_that_was_killed_gets_all(lab: Lab, large_pair: Pair) -> None:
    """A bulk, whose progress both nodes tell; not ready before it has ended and the digests agree.
    Spec: B5, R20, R22."""
    active = large_pair.active()
    passive = large_pair.peer(active)
    bulks = sync_of(active)["bulk"]["sent"]
    fill(lab, active, lambda: sessions_in(active) >= MORE_THAN_A_RING, f"{MORE_THAN_A_RING} sessions")
    passive.die()
    wait_until(lambda: not sync_of(active)["connected"], WAIT_S, "the peer is given up")
    passive.set_xc(up=True)
    walked: list[float] = []
    with faults.xc_slow(lab, active.name, rate="400kbit"):
        passive.start()

        def under_way() -> bool:
            status, peer = active.status(), passive.status()
            assert status is not None
            sweep = status["sync"]["sweep"]
            if not status["sync"]["bulk"]["in_progress"] or peer is None:
                return False
            assert peer["ready"] is False
            assert not peer["sync"]["bulk"]["synced"]
            assert sweep["shards"] > 0
            if 0 < sweep["percent"] < 100:
                walked.append(sweep["percent"])
            return bool(peer["sync"]["bulk"]["in_progress"] and len(set(walked)) >= 2)

        wait_until(under_way, 60, "the bulk is under way, and gets on")
        assert walked == sorted(walked)
    large_pair.wait_settled()
    assert sync_of(active)["bulk"] == {"in_progress": False, "sent": bulks + 1, "synced": False}
    assert sync_of(passive)["audit"]["in_sync"], "who is ready has been found equal"
    wait_agreed(active)
    assert wait_equal(large_pair) >= MORE_THAN_A_RING
    assert_never_differed(large_pair)


def test_lost_shards_are_swept_when_the_peer_is_back(lab: Lab, large_pair: Pair) -> None:
    """More changes than there is room for: just their shards are told anew, no bulk. Spec: B5, R20, R21."""
    active = large_pair.active()
    passive = large_pair.peer(active)
    term = reign(active)
    bulks = sync_of(active)["bulk"]["sent"]
    wait_agreed(active)
    with frozen(lab, passive):
        wait_until(lambda: not sync_of(active)["connected"], WAIT_S, "the peer is given up")
        fill(lab, active, lambda: sync_of(active)["lost_shards"] > 0, "shards are lost")
        lost = sync_of(active)["lost_shards"]
        assert 0 < lost < 64
    wait_until(lambda: sync_of(active)["state"] == "sending", WAIT_S, "the peer is back")
    wait_until(lambda: sync_of(active)["lost_shards"] == 0, WAIT_S, "a sweep of them has begun")
    wait_agreed(active, WAIT_S)
    assert reign(active) == term
    assert sync_of(active)["bulk"]["sent"] == bulks
    assert active.counter("sync.shards_lost") == lost
    assert wait_equal(large_pair) > LARGE_TABLE // 2
    assert_never_differed(large_pair)


def test_rules_say_what_the_peer_hears(lab: Lab, small_pair: Pair) -> None:
    """``sync = "no"``: never; ``"after 2"``: not before it is 2 s old; else at once. Spec: R20, R22."""
    active = small_pair.active()
    passive = small_pair.peer(active)
    server = topo.SERVER_ADDRESS
    began = now_ns()
    source = send(lab, UNTOLD, LATE, PLAIN)
    wait_until(lambda: len(remotes(active, source)) == 3, WAIT_S, "three sessions")
    wait_until(lambda: f"{server}:{PLAIN}" in remotes(passive, source), WAIT_S, "one is told at once")
    wait_until(lambda: f"{server}:{LATE}" in remotes(passive, source), WAIT_S, "another one when it is old")
    assert (now_ns() - began) / 1e9 >= LATE_S
    wait_agreed(active)
    assert remotes(passive, source) == {f"{server}:{PLAIN}", f"{server}:{LATE}"}
    fates = {session["remote"]: session["fate"] for session in active.sessions(inside=source)}
    assert fates == {f"{server}:{UNTOLD}": "rule", f"{server}:{LATE}": "lives", f"{server}:{PLAIN}": "lives"}
    assert_never_differed(small_pair)
