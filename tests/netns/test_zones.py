# SPDX-License-Identifier: Apache-2.0
"""A pair with a second inside port, and a node that has no peer. Spec: R6, R11, R13."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import faults
import pytest
import topo
from netns.test_nat import talk, tcp
from pair import Node, Pair, configuration_text
from sandbox import Lab, wait_until

WAIT_S = 15
DMZ, DMZ_HOST, DMZ_VIP = "dmz", "10.9.0.10", "10.9.0.1"
DMZ_MAC = "02:09:00:00:00:10"
WEB = (DMZ_HOST, 80)
ZONES = f"""
[ports.dmz]
zone = "inside"
prefix = "10.9.0.0/24"
vips = ["{DMZ_VIP}"]
vrid = 53

[nodes.a.ports.dmz]
address = "10.9.0.2"
netns = "{DMZ}"
bridge = "{topo.BRIDGE}"

[nodes.b.ports.dmz]
address = "10.9.0.3"
netns = "{DMZ}"
bridge = "{topo.BRIDGE}"

[[rules]]
name = "web"
action = "allow"
from = ["lan"]
to = ["dmz"]
proto = "tcp"
ports = "80"
"""


def in_the_labs_run(lab: Lab, *argv: str) -> None:
    """Where namespaces have their names; what is spawned in a host has a copy."""
    subprocess.run(["nsenter", f"--target={lab.init_pid}", "--mount", "--net", "--pid", *argv], check=True)


@pytest.fixture
def dmz(lab: Lab) -> Iterator[None]:
    """A host that is its own switch: its address is on the bridge to which the nodes' TAPs come.

    Its MAC is its own as well: left to itself, a bridge takes the lowest of its ports', and the host's MAC
    would change whenever the node dies whose TAP that was.
    """
    if topo.driver() != "tap":
        pytest.skip("a second inside port has no device in this lab; TAPs make their own")
    in_the_labs_run(lab, "ip", "netns", "add", DMZ)
    for command in (
        "link set lo up",
        f"link add {topo.BRIDGE} address {DMZ_MAC} type bridge stp_state 0",
        f"address add {DMZ_HOST}/24 dev {topo.BRIDGE}",
        f"link set {topo.BRIDGE} up",
        f"route add default via {DMZ_VIP}",
    ):
        lab.run(DMZ, ["ip", *command.split()])
    yield
    in_the_labs_run(lab, "ip", "netns", "del", DMZ)


@contextmanager
def connected(lab: Lab) -> Iterator[tuple[socket.socket, socket.socket]]:
    """From the LAN to the web server of the DMZ: both ends."""
    with tcp(lab, DMZ, *WEB) as listener, tcp(lab, "client", topo.CLIENT_ADDRESSES[0]) as caller:
        listener.listen()
        caller.connect(WEB)
        with listener.accept()[0] as served:
            yield caller, served


def test_a_rule_between_inside_zones(lab: Lab, session_pair: Pair, dmz: None, tmp_path: Path) -> None:
    """Routed untranslated, only as the rule says, and through a loss of the LAN at ACTIVE, which moves the
    role, for it has another inside port (R8), and through a failover; the DMZ reaches the Internet.
    """
    session_pair.stop_all()
    config = tmp_path / "pair.toml"
    config.write_text(configuration_text() + ZONES)
    pair = Pair(lab, tmp_path, config)
    pair.start()
    try:
        active = pair.wait_settled()
        survivor = pair.peer(active)
        with connected(lab) as (caller, served):
            assert served.getpeername() == caller.getsockname()
            talk(caller, served)
            refused_back(lab, active)
            wait_until(pair.settled, WAIT_S, "the PASSIVE node has caught up")
            with faults.link_down(lab, topo.SWITCHES["lan"], f"fx-lan-{active.name}"):
                wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "one of two inside ports is not lent")
                talk(served, caller)
            active, survivor = survivor, active
            assert [e["motive"] for e in survivor.history() if e["event"] == "handover-begun"] == ["track"]
            wait_until(pair.settled, WAIT_S, "the node that lost its LAN follows")
            active.die()
            wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "the peer takes over")
            talk(served, caller)
        with connected(lab) as (caller, served):
            talk(caller, served)
        refused_back(lab, survivor)
        ping = ["ping", "-c1", "-W1", topo.SERVER_ADDRESS]
        wait_until(lambda: lab.run(DMZ, ping, check=False).returncode == 0, WAIT_S, "the DMZ's ping passes")
    finally:
        pair.stop_all()


def refused_back(lab: Lab, node: Node) -> None:
    """The rule is one way."""
    before = node.counter("inside_denied")
    with tcp(lab, DMZ, DMZ_HOST) as caller:
        caller.setblocking(False)
        caller.connect_ex((topo.CLIENT_ADDRESSES[0], 80))
        wait_until(lambda: node.counter("inside_denied") > before, WAIT_S, "the way back is denied")


def test_a_node_without_a_peer(lab: Lab, session_pair: Pair, tmp_path: Path) -> None:
    """It is ACTIVE by itself, needs no cross-connect, and a restart brings it back."""
    session_pair.stop_all()
    config = tmp_path / "lone.toml"
    text, _, _ = configuration_text().partition("[nodes.b]")
    head, _, rest = text.partition("[nodes.a.xc]\n")
    config.write_text(head + rest[rest.index("[nodes.a.ports.lan]") :])
    node = Node(lab, "a", tmp_path, config)
    ping = ["ping", "-c1", "-W1", topo.SERVER_ADDRESS]
    for _ in range(2):
        node.start()
        try:
            wait_until(lambda: node.role() == "ACTIVE", WAIT_S, "the node is ACTIVE")
            wait_until(lambda: lab.run("client", ping, check=False).returncode == 0, WAIT_S, "a ping passes")
            assert node.counter("snat") > 0
            assert {session["proto"] for session in node.sessions()} == {"icmp"}
        finally:
            assert node.stop() == 0
