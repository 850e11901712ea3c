# SPDX-License-Identifier: Apache-2.0
"""Datagrams in fragments between kernels, through the pair: both ways, out of order, after a failover, and
cut where the wire ahead is narrower.

Spec: RFC 4787 REQ-13, REQ-14; RFC 791 §3.2; RFC 5508 REQ-1.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import topo
from netns.wire import Capture, Frame, node_port, sender
from pair import Node, Pair, configuration_text
from sandbox import Lab, wait_until
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

WAIT_S = 10
BIG = bytes(range(251)) * 80
"""20 kB: 14 fragments at an MTU of 1500."""
NARROW_MTU = 900
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0


@dataclass
class Talk:
    """A UDP socket of the client, and one of the server."""

    client: socket.socket
    server: socket.socket

    def to_server(self, data: bytes) -> tuple[str, int]:
        """Send until it has arrived whole; the client as the server sees it."""
        return self._until(lambda: self.client.send(data), self.server, data)

    def to_client(self, data: bytes, client: tuple[str, int]) -> None:
        """The same the other way."""
        self._until(lambda: self.server.sendto(data, client), self.client, data)

    @staticmethod
    def _until(send: Callable[[], object], receiver: socket.socket, data: bytes) -> tuple[str, int]:
        def arrived() -> tuple[str, int] | None:
            send()
            return heard(receiver, data)

        return wait_until(arrived, WAIT_S, f"{len(data)} bytes arrive")


def heard(receiver: socket.socket, data: bytes) -> tuple[str, int] | None:
    """Whoever sent ``data``; what else arrived is of earlier attempts."""
    with suppress(TimeoutError):
        while True:
            got, source = receiver.recvfrom(65536)
            if got == data:
                address: tuple[str, int] = source
                return address
    return None


@pytest.fixture
def talk(lab: Lab) -> Iterator[Talk]:
    with (
        lab.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM) as client,
        lab.open_socket("server", socket.AF_INET, socket.SOCK_DGRAM) as server,
    ):
        for made, address in ((client, topo.PROBE_ADDRESS), (server, topo.SERVER_ADDRESS)):
            made.settimeout(0.3)
            made.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
            made.bind((address, 0))
        client.connect(server.getsockname())
        yield Talk(client, server)


def reversed_fragments(packet: Packet, dst_mac: str) -> list[bytes]:
    """The frames of a datagram, the last fragment first."""
    return [bytes(Ether(dst=dst_mac) / part) for part in reversed(fragment(packet, 1480))]


def test_long_ping(lab: Lab, pair: Pair) -> None:
    """An echo of 4,000 bytes, known by its identifier in both directions."""

    def answered() -> bool:
        argv = ["ping", "-c", "1", "-W", "2", "-s", "4000", topo.SERVER_ADDRESS]
        return lab.run("client", argv, check=False).returncode == 0

    wait_until(answered, WAIT_S, "ping -s 4000")


def test_20_kb_there_and_back(pair: Pair, talk: Talk) -> None:
    """As kernels send them, in order."""
    client = talk.to_server(BIG)
    assert client[0] == topo.WAN_VIP
    talk.to_client(BIG[::-1], client)


def test_reversed_both_ways(lab: Lab, pair: Pair, talk: Talk) -> None:
    """The last fragment first: held until the first comes, and whole at the other end."""
    node = pair.wait_settled()
    public = talk.to_server(b"hello")
    before = node.counter("frag_held")
    inside: tuple[str, int] = talk.client.getsockname()
    server: tuple[str, int] = talk.server.getsockname()
    with sender(lab, "client", "eth0") as send:
        ident = iter(range(1000, 2000))

        def through() -> bool:
            packet = IP(src=inside[0], dst=server[0], id=next(ident)) / UDP(sport=inside[1], dport=server[1])
            for frame in reversed_fragments(packet / Raw(BIG), topo.LAN_VMAC):
                send(frame)
            return heard(talk.server, BIG) == public

        wait_until(through, WAIT_S, "reversed fragments reach the server")
    assert node.counter("frag_held") >= before + 13
    with sender(lab, "isp", "wan0") as send:
        ident = iter(range(1000, 2000))

        def back() -> bool:
            packet = IP(src=server[0], dst=public[0], id=next(ident)) / UDP(sport=server[1], dport=public[1])
            for frame in reversed_fragments(packet / Raw(BIG), topo.WAN_VMAC):
                send(frame)
            return heard(talk.client, BIG) == server

        wait_until(back, WAIT_S, "reversed fragments reach the client")
    assert node.counter("frag_held") >= before + 26


def test_after_a_failover(pair: Pair, talk: Talk) -> None:
    """An inherited session takes fragments like any other. Spec: R13."""
    client = talk.to_server(BIG)
    victim = pair.wait_settled()
    survivor = pair.peer(victim)
    victim.die()
    wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "the survivor is ACTIVE")
    assert talk.to_server(BIG[1:]) == client
    talk.to_client(BIG[2:], client)


@pytest.fixture
def narrow_pair(lab: Lab, session_pair: Pair, tmp_path: Path) -> Iterator[Pair]:
    """The pair with a WAN whose wires take less than the LAN's."""
    config = tmp_path / "pair.toml"
    text = configuration_text()
    config.write_text(text.replace("[ports.wan]\n", f"[ports.wan]\nmtu = {NARROW_MTU}\n"))
    narrow = Pair(lab, session_pair["a"].log.parent, config)
    session_pair.stop_all()
    for node in narrow.nodes.values():
        node.start()
    try:
        narrow.wait_settled()
        yield narrow
    finally:
        narrow.stop_all()


def is_from(node: Node) -> Callable[[Frame], bool]:
    """UDP that the node sent from the VIP, but for its own VRRP and heartbeats."""
    vip = socket.inet_aton(topo.WAN_VIP)
    return lambda frame: frame.from_station and frame.protocol == 17 and frame.data[26:30] == vip


def test_cut_for_a_narrow_wire(lab: Lab, narrow_pair: Pair, talk: Talk) -> None:
    """DF clear: a packet too long for the WAN is cut, and so are fragments; the server sees them whole."""
    node = narrow_pair.wait_settled()
    with Capture(lab, *node_port("wan", node.name)) as wire:
        talk.to_server(BIG[:1400])
        talk.to_server(BIG)
        sent = wire.wait(is_from(node), "fragments on the wire", n=2 + 14 * 2 - 1)
    assert max(len(frame.data) for frame in sent) <= 14 + NARROW_MTU
    assert any(int.from_bytes(frame.data[20:22], "big") & 0x2000 for frame in sent)
