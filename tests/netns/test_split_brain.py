# SPDX-License-Identifier: Apache-2.0
"""Nodes that do not hear each other, and what becomes of two ACTIVE ones. Spec: R1, R2, R13."""

from __future__ import annotations

import contextlib
import itertools
import signal
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import topo
from netns.conftest import settle
from netns.test_roles import probe, wait_path
from overheard import Overheard
from pair import Node, Pair
from sandbox import Lab, now_ns, wait_until
from traffic import BIN_DIR, FIRST_SOURCE_PORT, Generator, TcpFlows, UdpProbe

SWITCHES = tuple(topo.SWITCHES.values())
STALL_MS = 2500
CONTROL_STALL_MS = 1800
"""``ha.control_dead_ms`` is 1000."""
WORKER_STALL_MS = 3500
"""``ha.worker_dead_ms`` is 500; and who asks a worker gives up after 2,000."""
NAP_MS = 40
ADOPTED_MS_MAX = 2000
"""After the paths are whole: a second, and what a machine takes that does other work, too."""
GAP_MS_MAX = 300
"""Far less than an advertisement interval (1 s), after which any switch knows better."""


@contextlib.contextmanager
def dropped(lab: Lab, what: str, match: str, hosts: Iterable[str]) -> Iterator[None]:
    """Nodes drop what matches when it comes from the cross-connect, switches what they would forward."""
    with contextlib.ExitStack() as stack:
        for host in hosts:
            family, hook = "bridge", "forward"
            if host in topo.NODES:
                family, hook = "netdev", f'ingress device "{topo.XC_DEVICE}"'
            rules = (
                f"table {family} lab_{what} {{\n chain drops {{\n"
                f"  type filter hook {hook} priority 0; policy accept;\n  {match} drop\n }}\n}}\n"
            )
            lab.run(host, ["nft", "--file", "-"], input_text=rules)
            stack.callback(lab.run, host, ["nft", "delete", "table", family, f"lab_{what}"])
        yield


def heartbeats_cut(lab: Lab, *hosts: str) -> contextlib.AbstractContextManager[None]:
    """No heartbeat passes there."""
    return dropped(lab, "heartbeats", "ip protocol udp udp dport 47850", hosts)


def adverts_cut(lab: Lab) -> contextlib.AbstractContextManager[None]:
    """No advertisement reaches the other node; bridges still learn from them."""
    return dropped(lab, "adverts", "ip protocol 112", SWITCHES)


def make_active(pair: Pair, name: str) -> Node:
    """A settled pair in which this node is the ACTIVE one."""
    if pair.active().name != name:
        pair.active().ctl("failover")
        wait_until(lambda: pair[name].role() == "ACTIVE", 10, f"{name} is ACTIVE")
    pair.wait_settled()
    return pair[name]


def term(node: Node) -> int:
    status = node.status()
    assert status is not None
    return int(status["term"])


def since_s(node: Node) -> float:
    status = node.status()
    assert status is not None
    return float(status["since_s"])


def roles_since(node: Node, t_ns: int) -> list[tuple[str, str]]:
    """The roles that a node has taken since then, and why."""
    return [
        (str(event["to"]), str(event["reason"]))
        for event in node.history()
        if event["event"] == "role" and event["t_ms"] >= t_ns / 1e6
    ]


def longest_gap_ms(times_ns: array[int], from_ns: int) -> float:
    """The longest time without an arrival after ``from_ns``."""
    later = [from_ns, *(t_ns for t_ns in times_ns if t_ns > from_ns)]
    return max(after - before for before, after in itertools.pairwise(later)) / 1e6


def reigned_for(node: Node, seconds: float) -> bool:
    status = node.status()
    assert status is not None
    return bool(status["role"] == "ACTIVE" and status["since_s"] >= seconds)


def test_a_false_takeover_is_undone_at_once(lab: Lab, pair: Pair) -> None:
    """Heartbeats are lost, adverts are not: the node of lower priority yields to the reigning one's advert.

    The switches, misled by its few frames, know better long before the next regular advert. Spec: R1, R13.
    """
    a, b = make_active(pair, "a"), pair["b"]
    with probe(lab, pair, 360) as udp:
        start_ns = now_ns()
        with heartbeats_cut(lab, *topo.NODES, *SWITCHES):
            wait_until(
                lambda: [role for role, _ in roles_since(b, start_ns)] == ["ACTIVE", "PASSIVE"],
                10,
                "b takes over, and yields",
            )
            yielded = b.status()
            assert yielded is not None
            wait_until(lambda: since_s(b) >= 1, 10, "a whole advert interval passes")
            assert a.role() == "ACTIVE"
        assert pair.wait_settled() is a
        result = udp.finish()
    assert roles_since(b, start_ns)[:2] == [("ACTIVE", "peer-silent"), ("PASSIVE", "outranked")]
    assert {role for role, _ in roles_since(a, start_ns)} <= {"ACTIVE"}
    assert term(a) > yielded["term"], "the peer has reigned meanwhile, and terms only grow"
    assert longest_gap_ms(result.arrival_ns, start_ns) < GAP_MS_MAX
    assert longest_gap_ms(result.echo_ns, start_ns) < GAP_MS_MAX


@pytest.mark.parametrize("name", topo.NODES)
def test_a_split_brain_heals(lab: Lab, pair: Pair, name: str) -> None:
    """Cut off from each other, both reign; of the two, the higher term stays and the other one joins it.

    The lower one hears first: the higher one never hears it reign, and announces itself all the same.
    Sessions go on. Spec: R1, R2, R13.
    """
    old = make_active(pair, name)
    new = pair.peer(old)
    with probe(lab, pair, 361 + topo.NODES.index(name)) as udp:
        start_ns = now_ns()
        with adverts_cut(lab):
            with heartbeats_cut(lab, new.name, *SWITCHES):
                with heartbeats_cut(lab, old.name):
                    wait_until(lambda: new.role() == "ACTIVE", 10, "the peer takes over")
                    wait_until(lambda: reigned_for(new, 2), 10, "it has announced itself to the end")
                    assert old.role() == "ACTIVE", "nobody has told it"
                    high = term(new)
                    assert high > term(old)
                wait_until(lambda: old.role() in ("JOINING", "PASSIVE"), 10, "the lower term yields")
                healed_ns = now_ns()
            assert pair.wait_settled() is new
        settled_ns = now_ns()
        assert term(new) == term(old) == high
        wait_until(lambda: now_ns() - settled_ns > 1_500_000_000, 10, "an advert interval passes")
        result = udp.finish()
    assert roles_since(old, start_ns) == [("JOINING", "higher-term"), ("PASSIVE", "synced")]
    assert roles_since(new, start_ns) == [("ACTIVE", "peer-silent")]
    assert longest_gap_ms(result.arrival_ns, healed_ns) < GAP_MS_MAX
    assert longest_gap_ms(result.echo_ns, healed_ns) < GAP_MS_MAX
    assert result.foreign == 0, "the mapping keeps its external port"


def test_a_frozen_active_wakes_up_as_passive(lab: Lab, pair: Pair) -> None:
    """SIGSTOP: the peer reigns in a higher term; SIGCONT: the woken node joins it and says nothing before.

    Its queues are full of packets to forward by then. Spec: R1, R2, R13, B2.
    """
    old = pair.active()
    new = pair.peer(old)
    before = term(old)
    pid = old.living()
    with probe(lab, pair, 363) as udp, contextlib.ExitStack() as stack:
        start_ns = lab.signal(pid, signal.SIGSTOP)
        try:
            wait_until(lambda: new.role() == "ACTIVE", 10, "the peer takes over")
            wait_until(lambda: reigned_for(new, 1), 10, "it has reigned for a second")
            overheard = stack.enter_context(Overheard(lab, old))
        finally:
            woken_ns = lab.signal(pid, signal.SIGCONT)
        assert pair.wait_settled() is new
        wait_until(lambda: since_s(old) >= 1, 10, "nothing more happens")
        said = overheard.said()
        result = udp.finish()
    assert (said.data, said.adverts) == (0, 0), said.first
    assert term(new) == term(old) > before
    assert roles_since(new, start_ns) == [("ACTIVE", "peer-silent")], "no ping-pong"
    assert roles_since(old, start_ns) == [("JOINING", "higher-term"), ("PASSIVE", "synced")]
    assert longest_gap_ms(result.arrival_ns, woken_ns) < GAP_MS_MAX


def thread(lab: Lab, node: Node, name: str) -> int:
    """A thread of a node's daemon: ``fx-pulse`` sends and hears its heartbeats."""
    find = f"grep -lx {name} /proc/{node.living()}/task/*/comm"
    return int(Path(lab.run(node.name, ["sh", "-c", find]).stdout.strip()).parent.name)


def test_without_a_lease_nobody_speaks(lab: Lab, pair: Pair) -> None:
    """Only the thread that hears the peer stands still; all others run on, and believe they are ACTIVE.

    The node is taken for dead, and must not say a word once the peer reigns. Spec: R13, B2.
    """
    old = pair.active()
    new = pair.peer(old)
    argv = [str(BIN_DIR / "stall"), str(thread(lab, old, "fx-pulse")), str(STALL_MS)]
    with probe(lab, pair, 364), Generator(lab, old.name, argv) as stall:
        start_ns = int(stall.wait_event("stalled", 5)["t_ns"])
        wait_until(lambda: new.role() == "ACTIVE", 2, "the peer takes over")
        with Overheard(lab, old) as overheard:
            stall.wait_event("done", 5)
            assert pair.wait_settled() is new
            said = overheard.said()
    assert (said.data, said.adverts) == (0, 0), said.first
    assert roles_since(new, start_ns) == [("ACTIVE", "peer-silent")]
    told_ns = start_ns + (STALL_MS - 100) * 1_000_000
    assert roles_since(old, start_ns) == roles_since(old, told_ns), "it believed until then that it reigned"
    assert roles_since(old, told_ns) == [("JOINING", "higher-term"), ("PASSIVE", "synced")]


@pytest.mark.parametrize("xc", ["xc whole", "xc cut"])
def test_a_nap_changes_nothing(lab: Lab, pair: Pair, xc: str) -> None:
    """It stands still for longer than the lease, too short to be missed: it asks, and goes on. Spec: B2.

    With the cross-connect cut, the answer comes as a frame that the worker reads.
    """
    a = make_active(pair, "a")
    argv = [str(BIN_DIR / "stall"), str(thread(lab, a, "fx-pulse")), str(NAP_MS)]
    with contextlib.ExitStack() as stack, probe(lab, pair, 367) as udp:
        if xc == "xc cut":
            stack.enter_context(faults.xc_cut(lab))
            wait_path(a, "xc", alive=False)
        start_ns = now_ns()
        for _ in range(5):
            with Generator(lab, a.name, argv) as stall:
                stall.wait_event("done", 5)
        result = udp.finish()
    assert roles_since(a, start_ns) == roles_since(pair["b"], start_ns) == []
    assert result.lost == 0, "what came meanwhile has waited"


def status_of(node: Node) -> dict[str, Any]:
    status = node.status()
    assert status is not None
    return status


def alarms(node: Node) -> list[str]:
    return [str(alarm["name"]) for alarm in status_of(node)["alarms"]]


@pytest.mark.parametrize("role", ["ACTIVE", "PASSIVE"])
def test_a_worker_that_hangs_ends_no_daemon(lab: Lab, pair: Pair, role: str) -> None:
    """Alone it keeps its role, PASSIVE it is not ready; both recover by themselves. Spec: R13, R25, B2."""
    node = pair.active()
    if role == "PASSIVE":
        node = pair.peer(node)
    else:
        pair.peer(node).kill()
        wait_until(lambda: not status_of(node)["peer"]["alive"], 5, "its peer is dead")
    pid, start_ns = node.living(), now_ns()
    argv = [str(BIN_DIR / "stall"), str(thread(lab, node, "fx-worker0")), str(WORKER_STALL_MS)]
    with Generator(lab, node.name, argv) as stall:
        stall.wait_event("stalled", 5)
        wait_until(lambda: alarms(node) == ["worker-hung"], 3, "it says what is wrong")
        assert not status_of(node)["ready"]
        stall.wait_event("done", 5)
    wait_until(lambda: alarms(node) == [], 3, "it moves again")
    settle(pair)
    told = [event for event in node.history() if event["t_ms"] >= start_ns / 1e6]
    assert node.living() == pid
    assert [event["worker"] for event in told if event["event"] == "hung"] == [0]
    assert [event["event"] for event in told].count("moves-again") == 1
    assert roles_since(node, start_ns) == []


@pytest.mark.parametrize(("part", "stall_ms"), [("control", CONTROL_STALL_MS), ("worker", WORKER_STALL_MS)])
def test_a_part_that_hangs_costs_the_role(lab: Lab, pair: Pair, part: str, stall_ms: int) -> None:
    """Its heartbeats go on, but say that it hangs: the peer takes over, and the woken node joins it.

    Spec: R13, B2.
    """
    old = pair.active()
    new = pair.peer(old)
    tid = old.living() if part == "control" else thread(lab, old, "fx-worker0")
    argv = [str(BIN_DIR / "stall"), str(tid), str(stall_ms)]
    with probe(lab, pair, 368 + (part == "worker")) as udp, Generator(lab, old.name, argv) as stall:
        start_ns = int(stall.wait_event("stalled", 5)["t_ns"])
        wait_until(lambda: new.role() == "ACTIVE", 2, "the peer takes over")
        with Overheard(lab, old) as overheard:
            if part == "worker":
                wait_until(lambda: alarms(old) == ["worker-hung"], 3, "the node says itself what is wrong")
            stall.wait_event("done", 5)
            assert pair.wait_settled() is new
            said = overheard.said()
        result = udp.finish()
    assert alarms(old) == []
    assert (said.data, said.adverts) == (0, 0), said.first
    assert roles_since(new, start_ns) == [("ACTIVE", "peer-hung")]
    assert roles_since(old, start_ns) == [("JOINING", "hung"), ("PASSIVE", "synced")]
    (hung,) = (
        event for event in old.history() if event["event"] == "hung" and event["t_ms"] > start_ns / 1e6
    )
    assert (hung["what"], hung["yielded"]) == ([part], True)
    assert result.echo_ns, "the session lives on"


def outside_end(node: Node, source: str) -> tuple[str, str]:
    """Where a session from ``source`` leaves, by this node's table."""
    (session,) = node.sessions(inside=source)
    return str(session["origin"]), str(session["external"])


def recover(flows: TcpFlows, healed_ns: int, what: str) -> float:
    """Wait until each connection had a request answered after the mark; milliseconds since the healing."""
    wait_until(flows.recovered, 10, what)
    return (now_ns() - healed_ns) / 1e6


def test_sessions_of_both_reigns_go_on(lab: Lab, pair: Pair) -> None:
    """All paths are cut, and connections are opened at both nodes: behind the healing all of them go on.

    What both have opened between the same ends stays as the winner has it. Spec: R1, R2, R13.
    """
    loser = make_active(pair, "a")
    winner = pair.peer(loser)
    both = f"{topo.PROBE_ADDRESS}:{FIRST_SOURCE_PORT + 375}"
    start_ns = now_ns()
    with contextlib.ExitStack() as split, contextlib.ExitStack() as traffic:
        split.enter_context(faults.strangers(lab))
        wait_until(lambda: winner.role() == "ACTIVE", 10, "the peer takes over")
        with contextlib.ExitStack() as twice:
            with faults.landing_on(lab, winner, "lan", "wan"):
                theirs = TcpFlows(lab, 375, flows=20, per_s=20, port="7101")
                traffic.callback(theirs.close)
                theirs.wait_open()
                twice.enter_context(contextlib.closing(UdpProbe(lab, 375)))
                wait_until(lambda: bool(winner.sessions(inside=both)), 5, "the winner has its session")
            split.enter_context(faults.landing_on(lab, loser, "lan", "wan"))
            ours = TcpFlows(lab, 376, flows=20, per_s=20, port="7102")
            traffic.callback(ours.close)
            ours.wait_open()
            wait_until(lambda: bool(loser.sessions(inside=both)), 5, "the loser has one, too")
        wanted = outside_end(winner, both)
        assert wanted[0] != outside_end(loser, both)[0]
        split.close()
        healed_ns = now_ns()
        theirs.mark()
        ours.mark()
        recovered_ms = [
            recover(ours, healed_ns, "connections of the loser go on"),
            recover(theirs, healed_ns, "connections of the winner go on"),
        ]
        assert pair.wait_settled() is winner
        wait_until(lambda: pair.holds(both), 5, "both nodes have one session of the two")
        assert outside_end(winner, both) == outside_end(loser, both) == wanted
        results = [ours.finish(), theirs.finish()]
    print("recovered_ms", recovered_ms)
    assert [(result.survived, result.foreign, result.corrupt) for result in results] == [(20, 0, 0)] * 2
    told = {event["event"]: event for node in pair.nodes.values() for event in node.history()}
    assert told["sessions-adopted"]["taken"] >= 20
    assert told["sessions-adopted"]["t_ms"] - healed_ns / 1e6 < ADOPTED_MS_MAX
    offered = told["sessions-offered"]
    assert offered["t_ms"] >= start_ns / 1e6
    assert offered["taken"] == offered["offered"] - offered["refused"] >= 20
