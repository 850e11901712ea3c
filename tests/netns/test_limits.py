# SPDX-License-Identifier: Apache-2.0
"""What runs out: what one address may have, and the table. Spec: R11, R24; RFC 6888 REQ-4, REQ-5."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import packets
import pytest
import topo
from netns.test_icmp import datagrams
from netns.test_nat import connected, talk
from pair import Node, Pair, configuration_text
from sandbox import Lab, wait_until

WAIT_S = 15
SESSIONS, PORTS = 20, 8
MANY_PORTS, MANY_SERVERS, OTHER = topo.CLIENT_ADDRESSES[:3]
FLOW_CAP = 1024
FLOOD = 4 * FLOW_CAP
NOWHERE = "192.0.2.77"
LIMITS = f"""
[limits]
sessions_per_source = {SESSIONS}
ports_per_source = {PORTS}
"""
SMALL = f"""
[fastpath]
flow_cap = {FLOW_CAP}

[[forwards]]
name = "web"
pool = "vip"
ports = ["8080"]
to = "{topo.CLIENT_ADDRESSES[1]}"
to_port = 80
"""


@pytest.fixture
def limited(lab: Lab, session_pair: Pair, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A pair with such lines in its file."""
    config = tmp_path / "pair.toml"
    config.write_text(configuration_text() + request.param)
    session_pair.stop_all()
    pair = Pair(lab, tmp_path, config)
    pair.start()
    try:
        pair.wait_settled()
        yield pair
    finally:
        pair.stop_all()


def sessions_of(node: Node, address: str) -> int:
    return sum(session["inside"].startswith(f"{address}:") for session in node.sessions(proto="udp"))


def refused(node: Node, verdict: str) -> int:
    """Packets refused so, whether their sender was told or not."""
    return node.counter(verdict) + node.counter(f"{verdict}_sent")


def send_until_refused(sockets: list[tuple[socket.socket, int]], node: Node, verdict: str) -> None:
    """Each socket sends to its port of the server, again and again: more than one packet is refused."""
    before = refused(node, verdict)

    def sent() -> bool:
        for sender, port in sockets:
            with contextlib.suppress(OSError):  # its packet before was refused, and it was told so
                sender.sendto(b"hello", (topo.SERVER_ADDRESS, port))
        return refused(node, verdict) >= before + 2 * len(sockets)

    wait_until(sent, WAIT_S, f"{verdict} counts")


def udp(stack: contextlib.ExitStack, lab: Lab, address: str, n: int) -> list[socket.socket]:
    made = [stack.enter_context(datagrams(lab, "client")) for _ in range(n)]
    for each in made:
        each.bind((address, 0))
    return made


@pytest.mark.parametrize("limited", [LIMITS], ids=["limits"], indirect=True)
def test_who_has_all_that_he_may_have_is_refused_and_nobody_else(lab: Lab, limited: Pair) -> None:
    """The survivor has counted with the dead node: nobody gets his share once more."""
    active = limited.active()
    survivor = limited.peer(active)
    with contextlib.ExitStack() as stack:
        by_port = [(each, 9000) for each in udp(stack, lab, MANY_PORTS, 2 * PORTS)]
        (one,) = udp(stack, lab, MANY_SERVERS, 1)
        by_server = [(one, 9000 + i) for i in range(2 * SESSIONS)]
        others = udp(stack, lab, OTHER, PORTS)
        send_until_refused(by_port, active, "port_limit")
        send_until_refused(by_server, active, "source_limit")
        so_far = refused(active, "port_limit"), refused(active, "source_limit")

        def others_pass() -> bool:
            for each in others:
                with contextlib.suppress(OSError):
                    each.sendto(b"hello", (topo.SERVER_ADDRESS, 9000))
            return sessions_of(active, OTHER) == PORTS

        wait_until(others_pass, WAIT_S, "somebody else has his sessions")
        assert (refused(active, "port_limit"), refused(active, "source_limit")) == so_far
        wanted = {MANY_PORTS: PORTS, MANY_SERVERS: SESSIONS, OTHER: PORTS}
        assert {address: sessions_of(active, address) for address in wanted} == wanted
        wait_until(limited.settled, WAIT_S, "the PASSIVE node has caught up")
        active.die()
        wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "the peer takes over")
        send_until_refused(by_port, survivor, "port_limit")
        send_until_refused(by_server, survivor, "source_limit")
        assert {address: sessions_of(survivor, address) for address in wanted} == wanted


def flood(lab: Lab) -> None:
    """SYNs of one client that nobody answers."""
    with lab.open_socket("client", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        source, nowhere = IPv4Address(OTHER), IPv4Address(NOWHERE)
        for port in range(FLOOD):
            syn = packets.Packet(packets.TCP, source, nowhere, 10_000 + port, 80, flags=packets.SYN)
            with contextlib.suppress(OSError):
                raw.sendto(syn.ip(), (NOWHERE, 0))


def evicted(node: Node) -> int:
    return sum(int(worker["evicted_embryonic"]) for worker in node.request("workers")["workers"])


@pytest.mark.parametrize("limited", [SMALL], ids=["small"], indirect=True)
def test_a_flood_of_syns_pushes_out_itself(lab: Lab, limited: Pair) -> None:
    """Full of half-open sessions, the table gives up the oldest of them: who talks goes on talking, through
    a failover too, and who comes gets in.
    """
    active = limited.active()
    survivor = limited.peer(active)
    web = (topo.WAN_VIP, 8080)
    with connected(lab, "server", topo.SERVER_ADDRESS, web) as (caller, served):
        talk(caller, served)

        def pushed_out() -> bool:
            flood(lab)
            return evicted(active) > FLOW_CAP

        wait_until(pushed_out, WAIT_S, "half-open sessions are evicted")
        halfopen = active.sessions(state="syn_sent")
        assert len(halfopen) > FLOW_CAP // 2
        assert {session["inside"].partition(":")[0] for session in halfopen} == {OTHER}
        talk(served, caller)
        established = active.sessions(state="established")
        assert f"{caller.getsockname()[0]}:{caller.getsockname()[1]}" in {s["remote"] for s in established}
    with connected(lab, "server", topo.SERVER_ADDRESS, web) as (caller, served):
        talk(caller, served)
        wait_until(limited.settled, WAIT_S, "the PASSIVE node has caught up")
        active.die()
        wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "the peer takes over")
        talk(served, caller)
