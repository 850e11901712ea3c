# SPDX-License-Identifier: Apache-2.0
"""What a node says on its wires, heard at the switches: does one that must be silent speak as ACTIVE?"""

from __future__ import annotations

import contextlib
import socket
import tomllib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import topo
from pair import Node
from sandbox import Lab

ETH_P_ALL, ETH_P_IP = 3, 0x0800
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
ROOM = 8 << 20
PROTO_VRRP = 112
VMACS = tuple(bytes.fromhex(mac.replace(":", "")) for mac in (topo.LAN_VMAC, topo.WAN_VMAC))


@dataclass(frozen=True, slots=True)
class Said:
    """Frames that only an ACTIVE node sends."""

    data: int
    """From the virtual router's MAC, or with somebody else's packet in them."""
    adverts: int
    first: str
    """The first of them, in hex."""


def judge(frames: list[bytes], own: frozenset[bytes]) -> Said:
    """``own``: IPv4 addresses that the node may always send from."""
    data = adverts = 0
    first = ""
    for frame in frames:
        is_ip = int.from_bytes(frame[12:14], "big") == ETH_P_IP and len(frame) >= 34
        if is_ip and frame[23] == PROTO_VRRP:
            adverts += 1
        elif frame[6:12] in VMACS or (is_ip and frame[26:30] not in own):
            data += 1
        else:
            continue
        first = first or frame[:64].hex()
    return Said(data, adverts, first)


class Overheard:
    """Listens at a node's switch ports for the block; what the switches send to the node is not heard."""

    def __init__(self, lab: Lab, node: Node) -> None:
        ports = tomllib.loads(node.config.read_text())["nodes"][node.name]["ports"]
        self._own = frozenset(socket.inet_aton(port["address"]) for port in ports.values())
        self._sockets: list[socket.socket] = []
        with contextlib.ExitStack() as stack:
            for port, switch in topo.SWITCHES.items():
                heard = lab.open_socket(switch, socket.AF_PACKET, socket.SOCK_RAW, 0)
                stack.callback(heard.close)
                heard.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
                heard.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
                heard.bind((f"fx-{port}-{node.name}", ETH_P_ALL))
                heard.setblocking(False)
                self._sockets.append(heard)
            self._stack = stack.pop_all()

    def said(self) -> Said:
        """Since the block began, or since this was last asked."""
        frames = []
        for heard in self._sockets:
            with contextlib.suppress(BlockingIOError):
                while True:
                    frames.append(heard.recv(2048))
        return judge(frames, self._own)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
