# SPDX-License-Identifier: Apache-2.0
"""Strict TCP windows under real streams: theirs all pass, what is forged does not. Spec: R6, R10."""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import threading
from collections.abc import Iterator

import pytest
import topo
from faults import loss
from netns.conftest import LOG_DIR
from netns.wire import mac_of, sender
from pair import Node, Pair, configuration_text
from sandbox import Lab, wait_until
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

pytestmark = pytest.mark.timeout(300)
PORT = 7310
STREAMS = 3
LENIENT_S = 5
MORE_BYTES = 3 << 20
"""Far beyond any window without scaling, so that stale windows would stop a stream."""
FORGED = 24
"""Numbers at equal distances: one of them hits a window at most, and that is for the endpoint to refuse."""


class Way:
    """One direction of a stream: pseudo-random bytes, and what arrived of them."""

    def __init__(self, source: socket.socket, sink: socket.socket, seed: int, stop: threading.Event) -> None:
        self.received = 0
        self._sent, self._arrived = hashlib.sha256(), hashlib.sha256()
        self._threads = (
            threading.Thread(target=self._write, args=(source, random.Random(seed), stop), daemon=True),
            threading.Thread(target=self._read, args=(sink,), daemon=True),
        )
        for thread in self._threads:
            thread.start()

    def _write(self, source: socket.socket, content: random.Random, stop: threading.Event) -> None:
        while not stop.is_set():
            block = content.randbytes(50_000)
            self._sent.update(block)
            source.sendall(block)
        source.shutdown(socket.SHUT_WR)

    def _read(self, sink: socket.socket) -> None:
        while block := sink.recv(1 << 18):
            self._arrived.update(block)
            self.received += len(block)

    def whole(self) -> bool:
        """After ``stop``: all of it arrived, and is the same."""
        for thread in self._threads:
            thread.join(60)
        alive = any(thread.is_alive() for thread in self._threads)
        return not alive and self._sent.digest() == self._arrived.digest()


class Streams:
    """Bulk TCP of the kernel's own, both ways at once, from the client host to the server."""

    def __init__(self, lab: Lab, stack: contextlib.ExitStack) -> None:
        self._stop = threading.Event()
        self.ways: list[Way] = []
        self.ports: list[int] = []
        """External port of each stream."""
        listener = stack.enter_context(lab.open_socket("server", socket.AF_INET, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((topo.SERVER_ADDRESS, PORT))
        listener.listen()
        for number in range(STREAMS):
            client = stack.enter_context(lab.open_socket("client", socket.AF_INET, socket.SOCK_STREAM))
            client.settimeout(60)
            client.connect((topo.SERVER_ADDRESS, PORT))
            server, (_, port) = listener.accept()
            stack.enter_context(server)
            server.settimeout(60)
            self.ports.append(port)
            self.ways.append(Way(client, server, 2 * number, self._stop))
            self.ways.append(Way(server, client, 2 * number + 1, self._stop))

    def wait_more(self) -> None:
        """Wait until each direction has moved a good deal."""
        goals = [way.received + MORE_BYTES for way in self.ways]

        def moved() -> bool:
            return all(way.received >= goal for way, goal in zip(self.ways, goals, strict=True))

        wait_until(moved, 90, "each direction of each stream moves on")

    def finish(self) -> None:
        """Each stream ends in order, byte for byte what was sent."""
        self._stop.set()
        assert [way.whole() for way in self.ways] == [True] * len(self.ways)


@pytest.fixture
def quick_pair(lab: Lab, session_pair: Pair) -> Iterator[Pair]:
    """A pair whose windows are strict again soon after a takeover."""
    session_pair.stop_all()
    config = LOG_DIR / "tcp_windows.toml"
    config.write_text(configuration_text() + f"\n[fastpath]\ntcp_lenient_s = {LENIENT_S}\n")
    pair = Pair(lab, LOG_DIR, config)
    pair.start()
    try:
        pair.wait_settled()
        yield pair
    finally:
        pair.stop_all()


def forged(port: int, number: int, flags: str) -> Packet:
    """A segment of somebody who knows the endpoints of a connection, but not its numbers."""
    seq = number * (2**32 // FORGED)
    payload = Raw(b"forged") if flags != "R" else Raw()
    return (
        IP(src=topo.SERVER_ADDRESS, dst=topo.WAN_VIP)
        / TCP(sport=PORT, dport=port, flags=flags, seq=seq, ack=(seq * 7 + 1) % 2**32, window=65535)
        / payload
    )


def forge(lab: Lab, ports: list[int], flags: str) -> int:
    """Send forged segments to the virtual MAC; returns how many."""
    frame = Ether(src=mac_of(lab, "isp", "wan0"), dst=topo.WAN_VMAC)
    with sender(lab, "isp", "wan0") as send:
        for port in ports:
            for number in range(FORGED):
                send(frame / forged(port, number, flags))
    return FORGED * len(ports)


def dropped(node: Node) -> tuple[int, int]:
    return node.counter("tcp_window"), node.counter("tcp_rst_window")


def wait_forged_counted(lab: Lab, node: Node, ports: list[int]) -> None:
    """Forged data and RSTs are dropped, each with its own counter, and nothing else is."""
    data, resets = dropped(node)
    data += forge(lab, ports, "PA")
    resets += forge(lab, ports, "R")
    slack = len(ports)  # one that hits a window passes
    wait_until(lambda: dropped(node)[0] >= data - slack, 10, "forged data is counted")
    wait_until(lambda: dropped(node)[1] >= resets - slack, 10, "forged resets are counted")
    assert dropped(node)[0] <= data
    assert dropped(node)[1] <= resets


def test_streams_live_and_forged_segments_do_not(lab: Lab, quick_pair: Pair) -> None:
    """Scaled windows, SACK, loss on both sides of the node, a failover: not one segment of the streams is
    dropped; forged ones are, before it and after it. Spec: R6, R10, R19.
    """
    victim = quick_pair.active()
    survivor = quick_pair.peer(victim)
    with contextlib.ExitStack() as stack:
        streams = Streams(lab, stack)
        for switch, device in (("lansw", "client"), ("wansw", "isp")):
            stack.enter_context(loss(lab, switch, device, percent=1))
        for port, switch in topo.SWITCHES.items():
            stack.enter_context(loss(lab, switch, f"fx-{port}-{survivor.name}", percent=1))
        streams.wait_more()
        assert dropped(victim) == (0, 0)
        wait_forged_counted(lab, victim, streams.ports)
        streams.wait_more()

        victim.die()
        forge(lab, streams.ports, "R")  # the windows are being learned: they pass, and end nothing
        streams.wait_more()
        assert dropped(survivor) == (0, 0)
        data = survivor.counter("tcp_window")

        def strict() -> bool:
            forge(lab, streams.ports[:1], "PA")
            return survivor.counter("tcp_window") > data

        wait_until(strict, LENIENT_S + 30, "the survivor enforces windows again")
        streams.wait_more()
        wait_forged_counted(lab, survivor, streams.ports)
        before = dropped(survivor)
        streams.wait_more()
        assert dropped(survivor) == before
        streams.finish()
        victim.start()
        quick_pair.wait_settled()
