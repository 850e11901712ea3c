# SPDX-License-Identifier: Apache-2.0
"""What moves the role, and what must not. Spec: R1, R4, R13, R15, R25."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import faults
import pytest
import topo
from netns.wire import advert, flooding, mac_of, node_port, sender
from pair import Node, Pair
from sandbox import Lab, LabError, now_ns, wait_until
from traffic import UdpProbe

HEARTBEATS = 20
"""A second at the default interval: far longer than the dead time."""
LOST_MAX = 12
"""Of datagrams a millisecond apart, by a death."""


@contextlib.contextmanager
def probe(lab: Lab, pair: Pair, run: int) -> Iterator[UdpProbe]:
    """A UDP flow, a datagram every millisecond, through the pair; both nodes have its session."""
    flow = UdpProbe(lab, run)
    try:
        wait_until(lambda: pair.holds(flow.source), 10, "both nodes have its session")
        yield flow
    finally:
        flow.close()


def reigns(pair: Pair) -> dict[str, tuple[str, int]]:
    """Role and term of each node."""
    answers = {name: status for name, status in pair.statuses().items() if status is not None}
    return {name: (str(status["role"]), int(status["term"])) for name, status in answers.items()}


def paths(node: Node) -> dict[str, Any]:
    status = node.status()
    assert status is not None
    found: dict[str, Any] = status["peer"]["paths"]
    return found


def alarms(node: Node) -> list[str]:
    """What somebody has to mend."""
    status = node.status()
    assert status is not None
    return [str(alarm["name"]) for alarm in status["alarms"]]


def wait_alarms(node: Node, *names: str) -> None:
    """Wait until a node shows these alarms, and no others."""
    wait_until(lambda: alarms(node) == list(names), 10, f"alarms of {node.name} are {names}")


def wait_heartbeats(node: Node, path: str, n: int = HEARTBEATS) -> None:
    """Wait until so many more heartbeats have been heard on a path."""
    wanted = paths(node)[path]["received"] + n
    wait_until(lambda: paths(node)[path]["received"] >= wanted, 20, f"{n} heartbeats on {path}")


def wait_path(node: Node, path: str, *, alive: bool) -> None:
    """Wait until a node hears its peer on a path, or no longer does."""
    wait_until(lambda: paths(node)[path]["alive"] is alive, 10, f"{node.name}: {path} alive is {alive}")


@pytest.mark.parametrize("cut", [faults.xc_cut, faults.xc_silent], ids=["no-carrier", "silent"])
def test_xc_cut_alone_changes_no_role(lab: Lab, pair: Pair, cut: Any) -> None:
    """Death is silence on all paths: with the cross-connect gone, LAN and WAN still speak. Spec: R4, R13, B2.

    Without a carrier each node suspects the other, asks, and gets its answer.
    """
    before = reigns(pair)
    active = pair.active()
    with probe(lab, pair, 350) as udp:
        with cut(lab):
            for node in pair.nodes.values():
                wait_path(node, "xc", alive=False)
            for node in pair.nodes.values():
                wait_heartbeats(node, "lan")
                assert paths(node)["lan"]["alive"]
                assert paths(node)["wan"]["alive"]
            for node in pair.nodes.values():
                wait_alarms(node, "xc-silent")
            assert reigns(pair) == before
        for node in pair.nodes.values():
            wait_path(node, "xc", alive=True)
            wait_alarms(node)
        assert pair.wait_settled() is active
        assert reigns(pair) == before
        result = udp.finish()
    assert result.lost == 0
    assert any(e["event"] == "path-down" and e["path"] == "xc" for e in active.history())
    if cut is faults.xc_cut:
        for node in pair.nodes.values():
            told = [e for e in node.history() if e["event"] == "suspicion" and "xc-carrier" in e["marks"]][-1]
            assert told["verdict"] == "alive"
            assert told["path"] in {"lan", "wan"}


def life_line(node: Node) -> dict[str, Any]:
    """``peer.life_line`` of its status."""
    status = node.status()
    assert status is not None
    found: dict[str, Any] = status["peer"]["life_line"]
    return found


def test_a_killed_daemon_is_missed_by_its_life_line(pair: Pair) -> None:
    """SIGKILL and nothing else: links stay, and its kernel closes the life line. Spec: R13, B2."""
    victim = pair.active()
    survivor = pair.peer(victim)
    # After a cut of the cable its TCP may still wait to send again (RFC 6298 §5.5), and then it closes later.
    wait_until(lambda: survivor.request("status")["sync"]["audit"]["age_s"] < 1, 20, "the connection works")
    wait_until(lambda: life_line(survivor)["stands"], 10, "the life line stands")
    killed_ns = victim.kill()
    wait_until(lambda: survivor.role() == "ACTIVE", 10, "the peer takes over")
    told = [e for e in survivor.history() if e["t_ms"] >= killed_ns / 1e6]
    assert [e["reason"] for e in told if e["event"] == "peer-lost"] == ["peer-died"]
    assert [e["reason"] for e in told if e["event"] == "role"] == ["peer-died"]
    assert not [e for e in told if e["event"] == "suspicion"], "nobody is asked"
    victim.start()
    assert pair.wait_settled() is survivor
    assert life_line(survivor)["stands"]


def test_a_flood_beside_a_living_peer_is_no_death(lab: Lab, pair: Pair) -> None:
    """What a switch floods makes PASSIVE ask whether ACTIVE lives. It does: copies of what it forwards
    go, and nobody is told. Spec: R13, B2.
    """
    survivor = pair.peer(pair.active())
    before = reigns(pair)
    with contextlib.ExitStack() as stack:
        for port in ("lan", "wan"):
            stack.enter_context(flooding(lab, port, pair.active().name))
        dropped = survivor.counter("suspect_dropped")
        with probe(lab, pair, 353) as udp:
            wait_until(lambda: survivor.counter("suspect_dropped") > dropped, 10, "ACTIVE lives: copies go")
            result = udp.finish()
    assert reigns(pair) == before
    assert not [e for e in survivor.history() if e["event"] == "suspicion" and e["marks"] == ["vmac"]]
    assert (result.there.lost, result.there.duplicated) == (0, 0)
    assert (result.echoes.lost, result.echoes.duplicated) == (0, 0)


@contextlib.contextmanager
def forgotten(lab: Lab, node: Node) -> Iterator[int]:
    """Both switches lose the carrier of a node's port within a moment, and so forget what is behind it.

    The moment, in CLOCK_BOOTTIME (ns).
    """
    with contextlib.ExitStack() as stack:
        ends = []
        for port in ("lan", "wan"):
            switch, device = node_port(port, node.name)
            links = stack.enter_context(lab.links(switch))
            ends.append((links, links.link_lookup(ifname=device)[0]))
        at_ns = now_ns()
        for links, index in ends:
            stack.callback(links.link, "set", index=index, state="up")
            links.link("set", index=index, state="down")
        yield at_ns


def test_what_is_flooded_waits_for_the_takeover(lab: Lab, pair: Pair) -> None:
    """PASSIVE keeps what switches flood while it asks whether ACTIVE lives, and forwards it when nobody has
    answered: that confirms the death before any timer does. Spec: R13, R20, B2.
    """
    victim = pair.active()
    survivor = pair.peer(victim)
    survivor.stop()  # a new process has asked nothing in vain yet, and so asks at the first mark
    survivor.start()
    assert pair.wait_settled() is victim
    kept = survivor.counter("suspect_wait")
    with probe(lab, pair, 351) as udp, faults.strangers(lab, "wan"):
        for node in pair.nodes.values():
            for path in ("xc", "wan"):
                wait_path(node, path, alive=False)  # or they answer while the first port goes
        with forgotten(lab, victim) as at_ns:
            wait_until(lambda: survivor.role() == "ACTIVE", 10, "the peer takes over")
            result = udp.finish()
    told = [e for e in survivor.history() if e["t_ms"] >= at_ns / 1e6]
    suspicions = [(e["marks"], e["verdict"]) for e in told if e["event"] == "suspicion"]
    assert suspicions == [(["vmac"], "dead")]
    assert [e["probes"] > 0 for e in told if e["event"] == "suspicion"] == [True]
    assert [e["reason"] for e in told if e["event"] == "peer-lost"] == ["peer-confirmed"]
    assert [e["reason"] for e in told if e["event"] == "role"] == ["peer-confirmed"]
    assert survivor.counter("suspect_wait") > kept
    assert pair.wait_settled() is survivor
    assert result.sources == (topo.WAN_VIP,)
    assert result.lost <= LOST_MAX


def test_a_stop_that_is_meant_is_no_death(pair: Pair) -> None:
    """PASSIVE says goodbye, and its life line proves nothing; the next one stands. Spec: R15."""
    stopped = pair.peer(pair.active())
    other = pair.peer(stopped)
    wait_until(lambda: life_line(other)["stands"], 10, "the life line stands")
    made, before = life_line(other)["made"], len(other.history())
    stopped.stop()
    wait_until(lambda: not life_line(other)["stands"], 10, "the life line has ended")
    assert [e["reason"] for e in other.history()[before:] if e["event"] == "peer-lost"] == ["peer-bye"]
    stopped.start()
    assert pair.wait_settled() is other
    wait_until(lambda: life_line(other)["stands"], 10, "the life line stands again")
    assert life_line(other)["made"] == made + 1


def test_rejoining_node_does_not_preempt(lab: Lab, pair: Pair) -> None:
    """The node of higher priority comes back and leaves the role where it is. Spec: R13."""
    if pair.active().name != "a":
        pair.active().ctl("failover")
        wait_until(lambda: pair["a"].role() == "ACTIVE", 10, "a is ACTIVE")
        pair.wait_settled()
    a, b = pair["a"], pair["b"]
    a.die()
    wait_until(lambda: b.role() == "ACTIVE", 10, "b takes over")
    term = reigns(pair)["b"][1]
    a.start()
    assert pair.wait_settled() is b
    wait_heartbeats(b, "xc")
    assert reigns(pair) == {"a": ("PASSIVE", term), "b": ("ACTIVE", term)}
    roles = [event["to"] for event in a.history() if event["event"] == "role"]
    assert roles == ["JOINING", "PASSIVE"]


def test_failover_by_command(lab: Lab, pair: Pair) -> None:
    """``flexhactl failover`` moves the role by the peer's word, in a higher term. Spec: R15, R25."""
    old = pair.active()
    new = pair.peer(old)
    term = reigns(pair)[old.name][1]
    with probe(lab, pair, 352) as udp:
        old.ctl("failover")
        wait_until(lambda: new.role() == "ACTIVE", 10, "the peer is ACTIVE")
        assert pair.wait_settled() is new
        result = udp.finish()
    assert reigns(pair)[new.name][1] > term
    assert reigns(pair)[old.name] == ("PASSIVE", reigns(pair)[new.name][1])
    assert result.foreign == 0, "the mapping keeps its external port"
    assert result.gap_ms < 150, "nobody waits for the heartbeat's dead time"
    with pytest.raises(LabError):
        old.ctl("failover")  # PASSIVE: there is no role to give


def test_maintenance_survives_a_crash(pair: Pair) -> None:
    """A node in maintenance is so again after SIGKILL and a start, until the operator ends it. Spec: R15."""
    active = pair.active()
    node = pair.peer(active)
    assert "stays so over restarts" in node.ctl("maintenance", "enter")["text"]
    node.die()
    node.start()
    wait_until(lambda: node.role() == "MAINTENANCE", 10, "it is in maintenance again")
    status = node.status()
    assert status is not None
    assert status["out_of_service"]
    assert active.role() == "ACTIVE"
    node.ctl("maintenance", "exit")
    assert pair.wait_settled() is active
    assert not node.ctl("status")["out_of_service"]


def leftovers(lab: Lab, node: Node) -> list[str]:
    """Devices and sockets of a node's daemon that are still there."""
    found = []
    for port, switch in topo.SWITCHES.items() if topo.driver() == "tap" else ():
        with lab.links(switch) as links:
            found += [f"fx-{port}-{node.name}"] if links.link_lookup(ifname=f"fx-{port}-{node.name}") else []
    with lab.links(node.name) as links:
        found += [device for device in ("lan0", "wan0") if links.link_lookup(ifname=device)]
    found += [str(path) for path in [lab.path(f"/run/flexha/lab-{node.name}.sock")] if path.exists()]
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=["SIGTERM", "SIGHUP"])
def test_signalled_active_hands_over(lab: Lab, pair: Pair, number: signal.Signals) -> None:
    """SIGTERM, or SIGHUP of a closed terminal: the role is handed over at once, the daemon ends with 0 and
    leaves nothing. Spec: R15, F4."""
    old = pair.active()
    new = pair.peer(old)
    assert leftovers(lab, old)
    with probe(lab, pair, 353) as udp:
        assert old.stop(number=number) == 0
        wait_until(lambda: new.role() == "ACTIVE", 10, "the peer is ACTIVE")
        wait_heartbeat_silence(new)
        result = udp.finish()
    assert leftovers(lab, old) == []
    assert result.foreign == 0
    assert result.gap_ms < 150, "nobody waits for the heartbeat's dead time"


def wait_heartbeat_silence(node: Node) -> None:
    """Wait until no path of a node hears its peer."""
    wait_until(lambda: not any(path["alive"] for path in paths(node).values()), 10, "all paths are silent")


def test_sigterm_of_passive_changes_nothing(lab: Lab, pair: Pair) -> None:
    """The PASSIVE node may stop at any time. Spec: R15."""
    active = pair.active()
    passive = pair.peer(active)
    reign = reigns(pair)[active.name]
    with probe(lab, pair, 354) as udp:
        assert passive.stop() == 0
        wait_heartbeat_silence(active)
        assert reigns(pair) == {active.name: reign}
        result = udp.finish()
    assert result.lost == 0
    assert leftovers(lab, passive) == []


def test_both_nodes_tell_their_role(lab: Lab, pair: Pair) -> None:
    """``flexhactl status --json`` on either node names role, term, peer, VRRP and sync. Spec: R25."""
    roles = {}
    for name, node in pair.nodes.items():
        status = node.ctl("status")
        roles[name] = status["role"]
        assert status["node"] == name
        assert status["peer"]["alive"]
        assert set(status["peer"]["paths"]) == {"xc", "lan", "wan"}
        assert {router["port"] for router in status["vrrp"]} == {"lan", "wan"}
        expected = "ACTIVE" if status["role"] == "ACTIVE" else "BACKUP"
        assert {str(router["state"]).upper() for router in status["vrrp"]} == {expected}
        assert status["sync"]["connected"]
        assert all(port["up"] for port in status["ports"])
    assert sorted(roles.values()) == ["ACTIVE", "PASSIVE"]


def test_a_better_third_router_gets_the_link_and_leaves_it(lab: Lab, pair: Pair) -> None:
    """``vrrp.foreign = "yield"``, the default; ``"ignore"`` is in test_conduit.py. Spec: R2;
    RFC 9568 §6.4.3 (725), §6.4.2 (425).
    """
    mac = mac_of(lab, "isp", "wan0")  # as keepalived without use_vmac

    def outranked() -> bool:
        send(advert(source="203.0.113.6", priority=254, mac=mac))
        return [node.role() for node in pair.nodes.values()] == ["PASSIVE", "PASSIVE"]

    with sender(lab, "isp", "wan0") as send:
        wait_until(outranked, 5, "both nodes stand back")
        send(advert(source="203.0.113.6", priority=0, mac=mac))
    pair.wait_settled()
