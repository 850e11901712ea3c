# SPDX-License-Identifier: Apache-2.0
"""The stepping relay: spliced into a wire, it stops connections at a packet, and kills a node there.

``relay.c`` does the work; this puts it between a host and its switch, and speaks to it. The switch's end of
the host's veth leaves the bridge, a new veth takes its place, and the relay joins the two::

    client eth0 ---- client | relay | relay-client ---- relay-client-p (in br0)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import topo
from pair import Node
from sandbox import Lab, LabError
from traffic import BIN_DIR, Generator


@dataclass(frozen=True, slots=True)
class Place:
    """Where a relay may be: a switch, and its port towards a host."""

    switch: str
    port: str


PLACES = {"client": Place("lansw", "client"), "wire": Place("wansw", "isp")}
"""``client``: between the clients and the LAN switch. ``wire``: between the WAN switch and the ISP."""


class Relay(Generator):
    """A running relay; the commands are those of relay.c."""

    def __init__(self, lab: Lab, switch: str, left: str, right: str) -> None:
        super().__init__(lab, switch, [str(BIN_DIR / "relay"), "run", left, right])

    def test(self, port: int) -> None:
        """The connections to the server's ``port`` are under test from now on."""
        self.command(f"test {topo.SERVER_ADDRESS} {port}")

    def victim(self, node: Node) -> None:
        """Whom a kill ends: from now on "killed" is about it."""
        ends = " ".join(f"{host}:{device}" for host, device in node.ends_set_down())
        self.figures()
        self.command(f"victim {node.pid} {ends}")

    def step(self, stage: str, when: str, conns: int, *, wait: bool = False, keep: bool = False) -> None:
        """Stop ``conns`` connections at ``stage``, and kill ``before`` or ``after`` it."""
        self.command(f"step {stage} {when} {conns} {'wait' if wait else 'kill'} {'keep' if keep else 'pass'}")

    def count(self, stage: str, conns: int) -> None:
        """Hold nothing, and kill when ``stage`` has passed on so many connections."""
        self.command(f"count {stage} {conns}")

    def figures(self) -> dict[str, Any]:
        """All figures as of now."""
        self.last = {}
        self.command("status")
        return self.wait_event("status", 5)

    def killed_ns(self) -> int:
        """CLOCK_BOOTTIME of the kill; 0 before it."""
        return int(self.poll().get("killed_ns", 0))

    def close(self) -> None:
        """End it, after it has let everything go."""
        with contextlib.suppress(LabError, OSError):
            self.terminate()
        super().close()


@contextlib.contextmanager
def spliced(lab: Lab, where: str) -> Iterator[Relay]:
    """A relay in the wire for the block, letting everything pass until it is told otherwise."""
    place = PLACES[where]
    inner, plug = f"relay-{place.port}", f"relay-{place.port}-p"
    with lab.links(place.switch) as links:
        (port,) = links.link_lookup(ifname=place.port)
        (bridge,) = links.link_lookup(ifname=topo.BRIDGE)
        links.link("add", ifname=inner, kind="veth", peer={"ifname": plug})
        (inner_index,) = links.link_lookup(ifname=inner)
        (plug_index,) = links.link_lookup(ifname=plug)
        for index in (inner_index, plug_index):
            links.link("set", index=index, state="up")
        try:
            relay = Relay(lab, place.switch, place.port, inner)
            try:
                relay.wait_event("ready", 5)
                links.link("set", index=port, master=0)
                links.link("set", index=plug_index, master=bridge)
                yield relay
            finally:
                relay.close()
        finally:
            links.link("del", index=inner_index)
            links.link("set", index=port, master=bridge)
