# SPDX-License-Identifier: Apache-2.0
"""A LAN that is routed by eBGP: FRR on its router and on both nodes. Spec: R5, R8.

What counts is the router's kernel: when its default route leads where.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Self

import faults
import frr
import pytest
from netns.conftest import LOG_DIR
from netns.wire import Capture
from pair import Node, Pair, boottime_of, configuration_text
from sandbox import Lab, now_ns, wait_until
from scapy.layers.inet import IP, TCP

from flexha.shell.rtnl import GROUP_IPV4_ROUTE, Listener, RoutesChanged

TOLD_MS = 100
"""From the role to the UPDATE at the router."""
ROUTED_MS = 250
"""To the route in its kernel: FRR there collects changes for 50 ms before it decides."""
BFD_MS = 450
UPDATE = 2
"""Type of the message (RFC 4271 section 4.1)."""
DEFAULT = IPv4Network(frr.DEFAULT)


@dataclass
class RouteWatch:
    """Each default route that the router's kernel gets, and when."""

    lab: Lab
    seen: list[tuple[int, IPv4Address]] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = Listener(str(self.lab.path(f"/run/netns/{frr.ROUTER}")), GROUP_IPV4_ROUTE)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def _read(self) -> None:
        while not self._done.wait(0.001):
            for change in self._listener.receive():
                if isinstance(change, RoutesChanged) and not change.gone:
                    self.seen += [
                        (now_ns(), route.gateway)
                        for route in change.routes
                        if route.prefix == DEFAULT and route.gateway is not None
                    ]

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._listener.close()

    def towards(self, node: str) -> int:
        """When the route first led to this node, ns."""
        return wait_until(
            lambda: next((t for t, via in self.seen if str(via) == frr.NODE_ADDRESSES[node]), None),
            10,
            f"the router's route leads to node {node}",
        )


@dataclass
class Routed:
    """The pair, its LAN's router, and FRR on all three."""

    lab: Lab
    pair: Pair
    lan: frr.RoutedLan

    def settle(self) -> Node:
        """The ACTIVE node, once its peer is ready and the router prefers it."""
        for node in self.pair.nodes.values():
            if node.pid is None:
                node.start()
        active = self.pair.wait_settled(60)
        self.lan.wait_preferred(active.name)
        return active


@pytest.fixture(scope="module", params=["med", "prepend"])
def routed(request: pytest.FixtureRequest) -> Iterator[Routed]:
    if not frr.usable():
        pytest.skip("FRR is not installed, or root is not the machine's")
    directory = LOG_DIR / f"bgp-{request.param}"
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "pair.toml"
    config.write_text(frr.routed(configuration_text(), metric=request.param))
    with Lab.start(directory / "run", directory / "supervisor.log") as lab, contextlib.ExitStack() as stack:
        lan = frr.RoutedLan.build(lab, config, directory)
        pair = Pair(lab, directory, config)
        pair.start()
        stack.callback(pair.stop_all)
        yield Routed(lab, pair, lan)


def ping(lab: Lab) -> bool:
    """Does a client reach the server?"""
    return lab.run("client", ["ping", "-c1", "-W2", "192.0.2.10"], check=False).returncode == 0


def obeyed_ns(node: Node) -> int:
    """When the fast path of this node was ACTIVE last."""
    told = [e for e in node.history() if e["event"] == "role-obeyed" and e["role"] == "ACTIVE"]
    return int(float(told[-1]["t_ms"]) * 1e6)


def updates_ns(heard: Capture, node: str) -> list[int]:
    """When the router got UPDATEs from this node."""
    seen = []
    for frame in heard.frames(lambda frame: frame.protocol == socket.IPPROTO_TCP):
        packet = frame.packet
        message = bytes(packet[TCP].payload)
        if packet[IP].src == frr.NODE_ADDRESSES[node] and message[18:19] == bytes([UPDATE]):
            seen.append(boottime_of(frame.t_s))
    return seen


def test_the_router_prefers_active_and_is_believed_only_what_is_configured(routed: Routed) -> None:
    """Spec: R5."""
    active = routed.settle()
    assert ping(routed.lab)
    for name, node in routed.lan.nodes.items():
        assert routed.pair[name].request("status")["routing"] == {
            "wanted": "active" if name == active.name else "other",
            "told": "active" if name == active.name else "other",
            "error": None,
        }
        received = node.show("bgp ipv4 unicast")["routes"]
        assert frr.CLIENTS in received
        assert frr.SERVERS not in received
    assert frr.SERVERS in routed.lan.router.show("bgp ipv4 unicast")["routes"]
    paths = routed.lan.router.show(f"bgp ipv4 unicast {frr.DEFAULT}")["paths"]
    assert len(paths) == 2


def test_a_planned_move_is_announced_at_once(routed: Routed) -> None:
    """Spec: R5, R15."""
    active = routed.settle()
    heir = routed.pair.peer(active)
    with RouteWatch(routed.lab) as watch, Capture(routed.lab, frr.ROUTER, "eth0") as heard:
        active.request("failover")
        moved_ns = watch.towards(heir.name)
        told_ns = updates_ns(heard, heir.name)[0]
    assert (told_ns - obeyed_ns(heir)) / 1e6 <= TOLD_MS
    assert (moved_ns - obeyed_ns(heir)) / 1e6 <= ROUTED_MS
    assert routed.settle() is heir
    assert ping(routed.lab)


def test_a_death_is_announced_at_once(routed: Routed) -> None:
    """The survivor outranks by MED what the dead node has announced; else BFD finds out. Spec: R5, R13."""
    active = routed.settle()
    survivor = routed.pair.peer(active)
    by_med = 'metric = "med"' in active.config.read_text()
    with RouteWatch(routed.lab) as watch, Capture(routed.lab, frr.ROUTER, "eth0") as heard:
        active.die()
        moved_ns = watch.towards(survivor.name)
        told_ns = wait_until(lambda: updates_ns(heard, survivor.name), 5, "the survivor tells the router")[0]
    assert (told_ns - obeyed_ns(survivor)) / 1e6 <= TOLD_MS
    assert (moved_ns - obeyed_ns(survivor)) / 1e6 <= (ROUTED_MS if by_med else BFD_MS)
    wait_until(lambda: ping(routed.lab), 10, "the client reaches the server by the survivor")
    routed.settle()


def test_a_lost_lan_moves_no_role(routed: Routed) -> None:
    """BFD tells the router; ACTIVE stays so, and sends by the peer. Spec: R5, R8."""
    active = routed.settle()
    passive = routed.pair.peer(active)
    with RouteWatch(routed.lab) as watch, faults.link_down(routed.lab, "lansw", f"fx-lan-{active.name}"):
        down_ns = now_ns()
        assert (watch.towards(passive.name) - down_ns) / 1e6 <= BFD_MS
        assert ping(routed.lab)
        assert active.role() == "ACTIVE"
        assert active.counter("conduit_out") > 0
        assert passive.counter("conduit_to") > 0
    assert routed.settle() is active


def test_a_lan_that_is_lost_silently_is_gone_round_too(routed: Routed) -> None:
    """No port loses its wire, but BFD its session: the peer alone has a way to the clients. Spec: R5, R8."""
    active = routed.settle()
    passive = routed.pair.peer(active)
    with RouteWatch(routed.lab) as watch, faults.bridge_port_off(routed.lab, "lan", active.name):
        down_ns = now_ns()
        assert (watch.towards(passive.name) - down_ns) / 1e6 <= BFD_MS
        wait_until(lambda: ping(routed.lab), 5, "the client reaches the server by the peer")
        assert active.role() == "ACTIVE"
    assert routed.settle() is active


def test_a_bgpd_that_was_restarted_is_told_again(routed: Routed) -> None:
    """Its file says that the node is not ACTIVE. Spec: R5."""
    active = routed.settle()
    routed.lan.nodes[active.name].restart("bgpd")
    assert routed.settle() is active
    events = [event["event"] for event in active.history()]
    assert "routing-behind" in events
