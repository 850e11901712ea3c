# SPDX-License-Identifier: Apache-2.0
"""What the tests of the channel between both nodes look at: peers, keys, and heartbeats on the wires."""

from __future__ import annotations

from typing import Any

from netns.wire import Capture, Frame, node_port
from pair import Node
from sandbox import Lab, wait_until

HEARTBEAT_PORT = 47850
UDP_PROTOCOL = 17
PATHS = ("xc", "lan", "wan")
STATIONS = {"lan": ("client", "eth0"), "wan": ("isp", "wan0")}
"""From where a stranger sends."""


def paths_of(node: Node) -> dict[str, Any]:
    status = node.status()
    assert status is not None
    peer: dict[str, Any] = status["peer"]
    return peer


def mac_of_port(node: Node, port: str) -> bytes:
    ports = node.ctl("status")["ports"]
    return bytes.fromhex(next(p["mac"] for p in ports if p["name"] == port).replace(":", ""))


def record(lab: Lab, node: Node, port: str, n: int) -> list[bytes]:
    """What the peer says to a node on one wire: ``n`` heartbeats."""
    mac = mac_of_port(node, port)

    def is_heartbeat(frame: Frame) -> bool:
        to_port = frame.data[36:38] == HEARTBEAT_PORT.to_bytes(2, "big")
        return frame.data[:6] == mac and frame.protocol == UDP_PROTOCOL and to_port

    with Capture(lab, *node_port(port, node.name)) as capture:
        wait_until(lambda: len(capture.frames(is_heartbeat)) >= n, 30, f"{n} heartbeats on {port}")
        return [frame.data for frame in capture.frames(is_heartbeat)][:n]


def shown(node: Node) -> dict[str, Any]:
    answer: dict[str, Any] = node.ctl("pair", "show")
    return answer


def log_lines(node: Node, *words: str) -> list[str]:
    return [line for line in node.log.read_text().splitlines() if all(word in line for word in words)]
