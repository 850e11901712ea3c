# SPDX-License-Identifier: Apache-2.0
"""What a node says on its wires, heard at the switches: does one that must be silent speak as ACTIVE?"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import topo
from pair import Node
from sandbox import Lab, now_ns

ETH_P_ALL, ETH_P_IP = 3, 0x0800
SO_RCVBUFFORCE = 33
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
ROOM = 8 << 20
SO_TIMESTAMPNS = 35
PACKET_STATISTICS = 6
PROTO_UDP, PROTO_VRRP = 17, 112
GENEVE_AT, GENEVE_PORT = 42, 6081
DIRECTION_AT, FROM_ACTIVE = GENEVE_AT + 12, 1
"""Of a frame by the conduit (``csrc/conduit.h``): after Ethernet, IPv4 and UDP."""
VMACS = tuple(bytes.fromhex(mac.replace(":", "")) for mac in (topo.LAN_VMAC, topo.WAN_VMAC))


@dataclass(frozen=True, slots=True)
class Said:
    """Frames that only an ACTIVE node sends."""

    data: int
    """From the virtual router's MAC, or with somebody else's packet in them; or by the peer's ports."""
    adverts: int
    first: str
    """The first of them, in hex."""
    unheard: int = 0
    """Frames that there was no room for: nobody knows what they were."""


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


def is_from_active(frame: bytes) -> bool:
    """Whether this frame of the cross-connect holds one that ACTIVE sends by its peer's port."""
    return (
        int.from_bytes(frame[12:14], "big") == ETH_P_IP
        and len(frame) > DIRECTION_AT
        and frame[23] == PROTO_UDP
        and int.from_bytes(frame[36:38], "big") == GENEVE_PORT
        and frame[DIRECTION_AT] == FROM_ACTIVE
    )


class Ear:
    """A socket that hears what comes in at a device."""

    def __init__(self, lab: Lab, host: str, device: str) -> None:
        self.socket = lab.open_socket(host, socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self.socket.bind((device, ETH_P_ALL))
        self.socket.setblocking(False)

    def heard(self) -> Iterator[tuple[int, bytes]]:
        """What has come since this was last asked, and when: CLOCK_REALTIME (ns)."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, said, _, _ = self.socket.recvmsg(2048, socket.CMSG_SPACE(16))
                (seconds, ns) = struct.unpack("qq", said[0][2])
                yield seconds * 1_000_000_000 + ns, frame

    def unheard(self) -> int:
        """Frames for which there was no room since this was last asked."""
        counts = self.socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        return int(struct.unpack("II", counts)[1])


class Overheard:
    """Listens to a node for the block: at its switch ports, and at its peer's end of the cross-connect.

    What is sent to the node is not heard.
    """

    def __init__(self, lab: Lab, node: Node) -> None:
        ports = tomllib.loads(node.config.read_text())["nodes"][node.name]["ports"]
        self._own = frozenset(socket.inet_aton(port["address"]) for port in ports.values())
        self._ports: list[Ear] = []
        self._frames: list[tuple[int, bytes]] = []
        self._conduited: list[tuple[int, bytes]] = []
        (peer,) = (name for name in topo.NODES if name != node.name)
        with contextlib.ExitStack() as stack:
            for port, switch in topo.SWITCHES.items():
                self._ports.append(Ear(lab, switch, f"fx-{port}-{node.name}"))
                stack.callback(self._ports[-1].socket.close)
            self._conduit = Ear(lab, peer, topo.XC_DEVICE)
            stack.callback(self._conduit.socket.close)
            self._stack = stack.pop_all()

    def listen(self) -> None:
        """Take in what has come: there is room for a second of traffic."""
        for ear in self._ports:
            self._frames += ear.heard()
        self._conduited += (heard for heard in self._conduit.heard() if is_from_active(heard[1]))

    def said(self, since_ns: int = 0) -> Said:
        """Since the block began, or since this was last asked; not before a moment of CLOCK_BOOTTIME."""
        self.listen()
        since_ns += time.time_ns() - now_ns()
        said = judge([frame for t_ns, frame in self._frames if t_ns >= since_ns], self._own)
        conduited = [frame for t_ns, frame in self._conduited if t_ns >= since_ns]
        self._frames, self._conduited = [], []
        return Said(
            said.data + len(conduited),
            said.adverts,
            said.first or (conduited[0][:64].hex() if conduited else ""),
            sum(ear.unheard() for ear in (*self._ports, self._conduit)),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
