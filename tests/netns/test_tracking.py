# SPDX-License-Identifier: Apache-2.0
"""What a lost port does to the role. Spec: R8, R14."""

from __future__ import annotations

from collections.abc import Iterator

import faults
import pytest
import topo
from netns.flows import through
from pair import Node, Pair, configuration_text
from sandbox import BUILD_DIR, Lab, LabError, wait_until

LOG_DIR = BUILD_DIR / "tests"
pytestmark = pytest.mark.timeout(120)
FLOWS = 100
OUTAGE_MAX_MS = 50
PROBE_MS = 300
"""Interval and misses of the probe, together."""
NOISE_MS = 250
"""What two busy cores that run both nodes, both switches and the traffic add."""


@pytest.fixture(scope="module")
def probing(lab: Lab, session_pair: Pair) -> Iterator[Pair]:
    """The lab's pair, which also asks the ISP's router whether it is there: a by ARP, b by ICMP."""
    session_pair.stop_all()
    LOG_DIR.mkdir(parents=True, exist_ok=True)
    files = {node: LOG_DIR / f"tracking-{node}.toml" for node in topo.NODES}
    for node, kind in (("a", "arp"), ("b", "icmp")):
        track = f'vrid = 52\ntrack = {{ kind = "{kind}", up_ms = 200 }}'
        files[node].write_text(configuration_text().replace("vrid = 52", track))
    pair = Pair(lab, LOG_DIR, files["a"])
    pair["b"].config = files["b"]
    pair.start()
    yield pair
    pair.stop_all()


def wait_usable(node: Node, port: str, *, usable: bool) -> None:
    """Wait until the node, and its peer of it, knows whether its port is usable."""
    wait_until(lambda: tracked(node, port)["usable"] is usable, 10, f"{node.name}: {port} usable is {usable}")


def tracked(node: Node, port: str) -> dict[str, object]:
    status = node.status()
    assert status is not None
    found: dict[str, object] = status["tracking"]["ports"][port]
    return found


def lending(node: Node) -> dict[str, list[str]]:
    status = node.status()
    assert status is not None
    found: dict[str, list[str]] = status["lending"]
    return found


def test_a_lost_lan_is_lent(lab: Lab, pair: Pair) -> None:
    """The role stays, packets take the conduit, and the port comes back without a gap. Spec: R8."""
    active = pair.wait_settled()
    passive = pair.peer(active)
    before = len(active.history()), len(passive.history())
    with through(lab, pair, 373, FLOWS) as (tcp, udp):
        with faults.link_down(lab, topo.SWITCHES["lan"], f"fx-lan-{active.name}"):
            tcp.mark()
            wait_until(lambda: lending(active)["lent"] == ["lan"], 10, "ACTIVE lends its LAN")
            wait_until(lambda: lending(passive)["borrowed"] == ["lan"], 10, "the peer borrows it")
            wait_until(tcp.recovered, 20, "each connection has a new request answered")
        wait_usable(active, "lan", usable=True)
        wait_until(lambda: not lending(active)["lent"], 10, "it is handed back")
        tcp.mark()
        wait_until(tcp.recovered, 20, "each connection has a new request answered")
        result = udp.finish()
        flows = tcp.finish()
    assert pair.wait_settled() is active
    told = [
        [event["event"] for event in node.history()[seen:] if str(event["event"]).startswith("port-")]
        for node, seen in zip((active, passive), before, strict=True)
    ]
    assert told == [["port-lent", "port-returned"], ["port-borrowed", "port-given-back"]]
    assert flows.survived == flows.opened == FLOWS
    assert result.gap_ms <= OUTAGE_MAX_MS + NOISE_MS


def test_a_lent_port_goes_with_the_role(lab: Lab, pair: Pair) -> None:
    """A planned move while it is lent: the borrower's wire is its own, and nothing is lost. Spec: R8, B3."""
    old = pair.wait_settled()
    new = pair.peer(old)
    with faults.link_down(lab, topo.SWITCHES["lan"], f"fx-lan-{old.name}"):
        wait_until(lambda: lending(new)["borrowed"] == ["lan"], 10, "the peer borrows it")
        with through(lab, pair, 377, FLOWS) as (tcp, udp):
            tcp.mark()
            old.request("failover")
            wait_until(lambda: new.role() == "ACTIVE", 10, "the peer is ACTIVE")
            wait_until(tcp.recovered, 20, "each connection has a new request answered")
            result, flows = udp.finish(), tcp.finish()
    wait_usable(old, "lan", usable=True)
    assert pair.wait_settled() is new
    assert flows.survived == flows.opened == FLOWS
    assert (result.there.lost, result.there.duplicated, result.echoes.lost) == (0, 0, 0)


@pytest.mark.parametrize(("port", "run"), [("wan", 370)])
def test_the_role_leaves_a_node_that_lost_a_port(lab: Lab, pair: Pair, port: str, run: int) -> None:
    """Its wire loses carrier: the peer gets the role by word, and keeps it when the wire is whole."""
    old = pair.active()
    new = pair.peer(old)
    with through(lab, pair, run, FLOWS) as (tcp, udp):
        with faults.link_down(lab, topo.SWITCHES[port], f"fx-{port}-{old.name}"):
            tcp.mark()
            wait_until(lambda: new.role() == "ACTIVE", 10, "the peer is ACTIVE")
            wait_until(tcp.recovered, 20, "each connection has a new request answered")
            result = udp.finish()
            assert not tracked(old, port)["usable"]
            assert not tracked(new, port)["peer_usable"]
        wait_usable(old, port, usable=True)
        assert pair.wait_settled() is new
        flows = tcp.finish()
    begun = [event["motive"] for event in old.history() if event["event"] == "handover-begun"]
    assert begun[-1] == "track"
    assert flows.survived == flows.opened == FLOWS
    assert result.gap_ms <= OUTAGE_MAX_MS + NOISE_MS


@pytest.mark.parametrize("run", [371, 372], ids=["once", "and back"])
def test_the_role_leaves_a_node_whose_wan_is_silent(lab: Lab, probing: Pair, run: int) -> None:
    """Its switch port is blocked and carrier stays: the probes tell, a's by ARP and b's by ICMP."""
    old = probing.wait_settled()
    new = probing.peer(old)
    with through(lab, probing, run, FLOWS) as (tcp, udp):
        with faults.bridge_port_off(lab, "wan", old.name):
            tcp.mark()
            wait_until(lambda: new.role() == "ACTIVE", 10, "the peer is ACTIVE")
            wait_until(tcp.recovered, 20, "each connection has a new request answered")
            result = udp.finish()
            assert hop(old)["state"] == "silent"
            assert hop(new)["state"] == "answers"
        wait_usable(old, "wan", usable=True)
        assert probing.wait_settled() is new
        flows = tcp.finish()
    events = [(event["event"], event.get("up"), event.get("motive")) for event in old.history()]
    assert events.index(("next-hop", False, None)) < events.index(("handover-begun", None, "track"))
    assert flows.survived == flows.opened == FLOWS
    assert result.gap_ms <= PROBE_MS + OUTAGE_MAX_MS + NOISE_MS


def hop(node: Node) -> dict[str, object]:
    status = node.status()
    assert status is not None
    (found,) = (port["next_hop"] for port in status["ports"] if port["name"] == "wan")
    assert isinstance(found, dict)
    return found


def test_a_router_that_nobody_reaches_moves_nothing(lab: Lab, probing: Pair) -> None:
    """It is down for both nodes: the role stays. Once it answers, the role may go to who hears it first."""
    active = probing.wait_settled()
    with faults.link_down(lab, "isp", "wan0"):
        for node in probing.nodes.values():
            wait_usable(node, "wan", usable=False)
        assert active.role() == "ACTIVE"
    for node in probing.nodes.values():
        wait_usable(node, "wan", usable=True)
    probing.wait_settled()


def test_a_reload_moves_nothing(probing: Pair) -> None:
    """It takes rules over; a file that says anything else of role or ports is refused. Spec: R15."""
    probing.wait_settled()
    before = {node.name: (node.role(), node.history()) for node in probing.nodes.values()}
    for node in probing.nodes.values():
        text = node.config.read_text()
        node.request("reload")
        node.config.write_text(
            text.replace("priority = 150", "priority = 50").replace("up_ms", "weight = 1, up_ms")
        )
        with pytest.raises(LabError, match="restart it"):
            node.request("reload")
        node.config.write_text(text)
        node.request("reload")
    assert before == {node.name: (node.role(), node.history()) for node in probing.nodes.values()}
