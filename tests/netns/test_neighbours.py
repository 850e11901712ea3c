# SPDX-License-Identifier: Apache-2.0
"""Hosts whose MAC address changes under their sessions: a virtual machine that moved, a bond, a bridge.

Spec: RFC 826 (a known sender's address is taken from any request of its).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import topo
from netns.test_nat import talk, tcp
from netns.wire import mac_of
from pair import Node, Pair
from sandbox import Lab, wait_until

WAIT_S = 15
PORT = 7007
DEVICE = "eth0"


@pytest.fixture
def macs(lab: Lab) -> Iterator[Iterator[str]]:
    """Addresses for the client host, which gets its own back."""
    before = mac_of(lab, "client", DEVICE)
    yield (f"02:0c:00:00:00:{n:02x}" for n in itertools.count(1))
    set_mac(lab, before)


def set_mac(lab: Lab, mac: str) -> None:
    """The client host forgets its neighbours with it, and asks for the VIP with its next packet."""
    lab.run("client", ["ip", "link", "set", "dev", DEVICE, "address", mac])


def test_a_host_that_asks_from_another_mac_keeps_its_sessions(
    lab: Lab, pair: Pair, macs: Iterator[str]
) -> None:
    """ACTIVE answers its request for the VIP, and believes it; so does PASSIVE, which takes over then."""
    server, client = (topo.SERVER_ADDRESS, PORT), topo.CLIENT_ADDRESSES[0]
    with tcp(lab, "server", *server) as listener, tcp(lab, "client", client) as caller:
        listener.listen()
        caller.connect(server)
        with listener.accept()[0] as served:
            talk(caller, served)
            active = pair.active()
            set_mac(lab, next(macs))
            talk(caller, served)
            wait_until(pair.settled, WAIT_S, "the PASSIVE node has caught up")
            survivor = pair.peer(active)
            wait_until(lambda: known(lab, survivor, client), WAIT_S, "the survivor knows the client")
            active.die()
            set_mac(lab, next(macs))
            wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "the peer takes over")
            talk(caller, served)
    assert survivor.counter("neighbour.moved") > 0
    active.start()


def known(lab: Lab, node: Node, address: str) -> bool:
    """The node's kernel has that neighbour."""
    with lab.links(node.name) as links:
        return any(entry.get_attr("NDA_LLADDR") for entry in links.get_neighbours(dst=address))
