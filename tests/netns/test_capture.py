# SPDX-License-Identifier: Apache-2.0
"""``flexhactl capture`` on a pair that carries traffic: both sides of a translation, drops, filters, PASSIVE.

Spec: R24, R25.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import topo
from pair import Node, Pair
from sandbox import Lab, Process, wait_until
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader

WAIT_S = 15
PORT = 8124
CLOSED_PORT = 7777


def flexhactl(node: Node) -> list[str]:
    """As a person types it in a shell of this node."""
    program = str(Path(sys.executable).with_name("flexhactl"))
    return [program, "--config", str(node.config), "--node", node.name]


class Capture:
    """A running ``flexhactl capture -w``, and what it wrote."""

    def __init__(self, process: Process, path: Path, told: Path) -> None:
        self.process, self.path, self._told = process, path, told
        self.summary: dict[str, int] = {}

    def stop(self) -> list[tuple[str, int, str, Ether]]:
        """Ctrl-C; interface, direction, comment and frame of all that was captured, in order of time."""
        self.process.signal(signal.SIGINT)
        assert self.process.wait(WAIT_S) == 0, self._told.read_text()
        self.summary = json.loads(self._told.read_text())
        with RawPcapNgReader(str(self.path)) as reader:
            return [
                (meta.ifname.decode(), meta.direction, _comment(meta), Ether(data)) for data, meta in reader
            ]


def _comment(meta: Any) -> str:
    return b"".join(meta.comments if hasattr(meta, "comments") else [meta.comment]).decode()


@contextmanager
def capturing(lab: Lab, node: Node, tmp_path: Path, *words: str) -> Iterator[Capture]:
    """Capture while the block runs."""
    path, told = tmp_path / "capture.pcapng", tmp_path / "told"
    before = node.counter("capture.started")
    with told.open("wb") as out:
        argv = [*flexhactl(node), "--json", "capture", "-w", str(path), *words]
        process = lab.spawn(node.name, argv, stdout=out, stderr=out)
    with process:
        wait_until(lambda: node.counter("capture.started") > before, WAIT_S, "the capture has started")
        yield Capture(process, path, told)


def converse(lab: Lab, question: bytes = b"question") -> None:
    """One TCP connection of the client's, a question and an answer, closed."""
    with ExitStack() as stack:
        listener = stack.enter_context(lab.open_socket("server", socket.AF_INET, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((topo.SERVER_ADDRESS, PORT))
        listener.listen()
        client = stack.enter_context(lab.open_socket("client", socket.AF_INET, socket.SOCK_STREAM))
        client.settimeout(WAIT_S)
        client.connect((topo.SERVER_ADDRESS, PORT))
        served = stack.enter_context(listener.accept()[0])
        served.settimeout(WAIT_S)
        client.sendall(question)
        left = len(question)
        while left:
            left -= len(served.recv(1 << 16))
        served.sendall(b"answer")
        assert client.recv(100) == b"answer"


def test_both_sides_of_a_connection(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    """Each packet as it came and as it left, under one number, and nothing but what the filter names.

    The SYN may have to wait for the peer (B1): then it is seen when it came, and again when it left.
    """
    converse(lab)  # what waits for a neighbour is seen to wait, and leaves under another number
    with capturing(
        lab, pair.active(), tmp_path, "--port", "lan", "--port", "wan", f"tcp port {PORT}"
    ) as capture:
        converse(lab)
        # Other traffic that the filter does not want; the pair's own goes on all the time.
        lab.run("client", ["ping", "-c", "1", topo.SERVER_ADDRESS])
        frames = capture.stop()
    assert all(frame.haslayer(TCP) and PORT in {frame[TCP].sport, frame[TCP].dport} for *_, frame in frames)
    for flags in ("S", "A"):
        (port_in, way_in, why_in, came), (port_out, way_out, why_out, left) = [
            row for row in frames if row[3][TCP].flags == flags
        ][:2]
        assert (port_in, way_in, port_out, way_out) == ("lan", 1, "wan", 2)
        assert came[IP].src in {*topo.CLIENT_ADDRESSES, topo.PROBE_ADDRESS}
        assert (left[IP].src, left[IP].dst) == (topo.WAN_VIP, topo.SERVER_ADDRESS)
        assert (came.dst, left.src) == (topo.LAN_VMAC, topo.WAN_VMAC)
        assert (came[TCP].seq, came[IP].ttl - left[IP].ttl) == (left[TCP].seq, 1)
        if flags == "S" and why_in.startswith("held, worker "):
            assert why_out.startswith("waited: snat, worker ")
            continue
        assert why_in.startswith("snat → out wan, worker ")
        assert why_out.startswith("snat ← in lan, worker ")
        assert why_in.partition("id ")[2].split(",")[0] == why_out.partition("id ")[2].split(",")[0]
    came = next(frame for *_, frame in frames if frame[TCP].flags == "A")
    (answer, delivered) = [row for row in frames if row[3][TCP].flags == "SA"][:2]
    assert (answer[0], answer[3][IP].dst) == ("wan", topo.WAN_VIP)
    assert (delivered[0], delivered[3][IP].dst) == ("lan", came[IP].src)
    assert "reverse" in answer[2]
    assert capture.summary["lost"] == 0
    waited = sum(why.startswith("held") for _, _, why, _ in frames)  # one number as it came, one as it left
    assert capture.summary["frames"] == len(frames) == 2 * (capture.summary["packets"] - waited)


def test_only_drops_with_their_verdict(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    """A datagram to a port of the VIP that nobody has opened."""
    active = pair.active()
    before = active.counter("no_session")
    with (
        capturing(lab, active, tmp_path, "--drops", f"udp port {CLOSED_PORT}") as capture,
        lab.open_socket("server", socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):

        def counted() -> bool:
            stranger.sendto(b"knock", (topo.WAN_VIP, CLOSED_PORT))
            return active.counter("no_session") > before

        wait_until(counted, WAIT_S, "a datagram without a session was dropped")
        converse(lab)
        frames = capture.stop()
    assert frames
    for port, way, why, frame in frames:
        assert (port, way, frame[UDP].dport) == ("wan", 1, CLOSED_PORT)
        assert why.startswith("dropped: no_session, worker ")


def test_offload_frames_are_one_frame_each(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    """What a socket made in one piece goes through so, and is said to be more than a wire carries."""
    with capturing(lab, pair.active(), tmp_path, "-s", "100", f"tcp dst port {PORT}") as capture:
        converse(lab, bytes(200_000))
        frames = capture.stop()
    big = [(why, frame) for _, _, why, frame in frames if frame[IP].len > 1500]
    assert big
    for why, frame in big:
        assert len(frame) == 100
        assert ", offload: segments of 1448 bytes, checksum partial" in why
    assert capture.summary["lost"] == 0


def test_what_the_node_sends_of_its_own_accord(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    """ACTIVE's VRRP adverts leave; PASSIVE, where a capture works as well, hears them."""
    active = pair.active()
    passive = pair.peer(active)
    argv = ["capture", "--json", "-c", "2", "--duration", str(WAIT_S), "ip proto 112"]
    said = [
        json.loads(line) for line in lab.run(active.name, [*flexhactl(active), *argv]).stdout.splitlines()
    ]
    heard = [
        json.loads(line) for line in lab.run(passive.name, [*flexhactl(passive), *argv]).stdout.splitlines()
    ]
    assert {row["comment"].split(",")[0] for row in said[:-1]} == {"control plane: sent"}
    assert {(row["direction"], row["verdict"]) for row in said[:-1]} == {("out", None)}
    assert {(row["direction"], row["verdict"]) for row in heard[:-1]} == {("in", "vrrp")}
    assert said[-1] == heard[-1] == {"packets": 2, "frames": 2, "lost": 0}


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_a_pipe_into_tshark(lab: Lab, pair: Pair) -> None:
    """``-w -``: what a person types to look on; tshark ends it by leaving."""
    active = pair.active()
    command = (
        f"{' '.join(flexhactl(active))} capture --duration {WAIT_S} -w - 'ip proto 112' |"
        " tshark -n -r - -c 2 -T fields -e frame.interface_name -e frame.comment"
    )
    done = lab.run(active.name, ["sh", "-c", command], timeout_s=3 * WAIT_S)
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("control plane: sent, worker 0, id " in line for line in lines)
