# SPDX-License-Identifier: Apache-2.0
"""A move of the role that somebody means, or has configured, loses no packet and doubles none. Spec: R15, B3.

``flexhactl failover``, 20 times, and SIGTERM of either node are rows of the lab (``test_scenarios.py``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from netns.conftest import LOG_DIR
from netns.flows import through
from pair import Node, Pair, configuration_text, with_keys
from sandbox import Lab, now_ns, wait_until

FLOWS = 200
HOLD_S, SUSPEND_S, MOVES = 1, 60, 2
EAGER = f"preempt = true\npreempt_hold_s = {HOLD_S}\nflap_max = {MOVES}\nflap_suspend_s = {SUSPEND_S}"


@contextlib.contextmanager
def unharmed(lab: Lab, pair: Pair, run: int) -> Iterator[None]:
    """A datagram each millisecond and its echo, and 200 TCP connections: nothing is lost or comes twice."""
    with through(lab, pair, run, FLOWS) as (flows, udp):
        begun_ns = now_ns()
        yield
        flows.mark()
        wait_until(flows.recovered, 20, "each connection has a new request answered")
        moved, tcp = udp.finish(begun_ns), flows.finish()
    assert (moved.there.lost, moved.echoes.lost) == (0, 0)
    assert (moved.there.duplicated, moved.echoes.duplicated) == (0, 0)
    assert tcp.survived == tcp.opened == flows.flows


def test_the_active_node_is_taken_out_for_maintenance(lab: Lab, pair: Pair) -> None:
    """It hands the role over, and has none until the operator wants it back: not after a restart, nor when
    its peer dies. Spec: R15, B3.
    """
    node = pair.active()
    other = pair.peer(node)
    with unharmed(lab, pair, 393):
        node.ctl("maintenance", "enter")
        wait_until(lambda: other.role() == "ACTIVE" and node.role() == "MAINTENANCE", 10, "the role is moved")
        assert node.stop() == 0
        node.start()
        wait_until(lambda: node.role() == "MAINTENANCE", 10, "it is in maintenance again")
        node.ctl("maintenance", "exit")
        assert pair.wait_settled() is other
        other.request("failover")
        wait_until(lambda: node.role() == "ACTIVE", 10, "it has the role back")
        assert pair.wait_settled() is node
    other.ctl("maintenance", "enter")
    wait_until(lambda: other.role() == "MAINTENANCE", 10, "the other one is in maintenance")
    node.kill()
    wait_until(lambda: any(event["event"] == "peer-lost" for event in other.history()[-3:]), 10, "a death")
    assert other.role() == "MAINTENANCE"
    node.start()
    wait_until(lambda: node.role() == "ACTIVE", 10, "the other one does not want the role")
    other.ctl("maintenance", "exit")
    assert pair.wait_settled() is node


@pytest.fixture
def eager(lab: Lab, session_pair: Pair) -> Iterator[Pair]:
    """A pair whose node a takes the role back after a while, twice in a minute."""
    session_pair.stop_all()
    LOG_DIR.mkdir(parents=True, exist_ok=True)
    config = LOG_DIR / "handover.toml"
    config.write_text(with_keys(configuration_text(), {"ha": EAGER}))
    made = Pair(lab, LOG_DIR, config)
    made.start()
    yield made
    made.stop_all()


def reigns_since(node: Node) -> tuple[float, str]:
    """When a node became ACTIVE, ms, and why."""
    event = next(e for e in reversed(node.history()) if e["event"] == "role" and e["to"] == "ACTIVE")
    return float(event["t_ms"]), str(event["reason"])


def test_the_better_node_takes_the_role_back_but_not_for_ever(lab: Lab, eager: Pair) -> None:
    """Preemption waits for its hold time, and loses nothing; what goes to and fro is suspended, and told as
    an alarm. A death moves the role all the same. Spec: R13, R15, B3.
    """
    a, b = eager["a"], eager["b"]
    eager.wait_settled()
    with unharmed(lab, eager, 394):
        taken_back = 0  # once at least: if b was first at the start, one move has been counted already
        for _ in range(MOVES + 1):
            wait_until(lambda: eager.settled() and a.role() == "ACTIVE", 20, "the better node has the role")
            a.request("failover")
            wait_until(lambda: b.role() == "ACTIVE", 10, "the operator moves the role")
            wait_until(lambda: a.role() == "ACTIVE" or is_suspended(b), 20, "the better node has it back")
            if is_suspended(b):
                break
            since_b, since_a = reigns_since(b), reigns_since(a)
            assert since_a[0] - since_b[0] >= HOLD_S * 1000
            assert since_a[1] == "handover"
            taken_back += 1
        assert 1 <= taken_back <= MOVES
        wait_until(lambda: "moves-suspended" in alarms(b), 10, "somebody is told")
        assert b.role() == "ACTIVE"
    b.kill()
    wait_until(lambda: a.role() == "ACTIVE", 10, "a death is no flapping")
    assert reigns_since(a)[1] == "peer-died"


def is_suspended(node: Node) -> bool:
    """The role has moved too often."""
    return any(event["event"] == "moves-suspended" for event in node.history())


def alarms(node: Node) -> list[str]:
    """What somebody has to mend."""
    status = node.status()
    assert status is not None
    return [str(alarm["name"]) for alarm in status["alarms"]]
