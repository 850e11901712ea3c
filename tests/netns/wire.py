# SPDX-License-Identifier: Apache-2.0
"""Frames on the lab's wires: sockets of a lab host in the test's own process, scapy on top."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import topo
from sandbox import Lab, wait_until
from scapy.layers.inet import IP
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vrrp import VRRPv3
from scapy.packet import Packet

ETH_P_ALL, ETH_P_IP, ETH_P_ARP = 0x0003, 0x0800, 0x0806
VRRP_PROTOCOL = 112
SO_RCVBUFFORCE = 33
PACKET_OUTGOING = 4
RECEIVE_BUFFER = 64 << 20
VRRP_MAC = "01:00:5e:00:00:12"
VRRP_GROUP = "224.0.0.18"
BROADCAST = "ff:ff:ff:ff:ff:ff"


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame seen on a device of a switch."""

    t_s: float
    from_station: bool
    """It came from the station behind the device; else the switch sent it there."""
    data: bytes

    @property
    def packet(self) -> Packet:
        """Decoded by scapy: slow, so look at ``ethertype`` and ``protocol`` first."""
        return Ether(self.data)

    @property
    def ethertype(self) -> int:
        """0x0800 IPv4, 0x0806 ARP."""
        return int.from_bytes(self.data[12:14], "big")

    @property
    def protocol(self) -> int | None:
        """IPv4 protocol number."""
        return self.data[23] if self.ethertype == ETH_P_IP and len(self.data) > 23 else None

    @property
    def source_mac(self) -> str:
        """Ethernet source, in colons."""
        return self.data[6:12].hex(":")


def is_advert(frame: Frame) -> bool:
    """A VRRP advertisement, whoever sent it."""
    return frame.protocol == VRRP_PROTOCOL


def arp_of(frame: Frame) -> ARP | None:
    """The ARP message in a frame."""
    return frame.packet[ARP] if frame.ethertype == ETH_P_ARP else None


class Capture:
    """All frames of one device, both ways, from ``__enter__`` on."""

    def __init__(self, lab: Lab, ns: str, device: str) -> None:
        self._socket = lab.open_socket(ns, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER)
        self._socket.settimeout(0.1)
        self._socket.bind((device, ETH_P_ALL))
        self._frames: list[Frame] = []
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read, name=f"capture {device}")

    def _read(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError, OSError):  # OSError: the device went down with its daemon
                data, address = self._socket.recvfrom(65536)
                self._frames.append(Frame(time.time(), address[2] != PACKET_OUTGOING, data))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._socket.close()

    def frames(self, wanted: Callable[[Frame], bool] = lambda _: True) -> list[Frame]:
        """What has been captured so far and passes."""
        return [frame for frame in list(self._frames) if wanted(frame)]

    def wait(
        self, wanted: Callable[[Frame], bool], what: str, *, n: int = 1, timeout_s: float = 10
    ) -> list[Frame]:
        """Wait until ``n`` such frames have been seen, and return all so far."""
        found: list[Frame] = []
        looked_at = 0

        def enough() -> bool:
            nonlocal looked_at
            new = self._frames[looked_at:]
            looked_at += len(new)
            found.extend(frame for frame in new if wanted(frame))
            return len(found) >= n

        wait_until(enough, timeout_s, what)
        return found


def node_port(port: str, node: str) -> tuple[str, str]:
    """Switch and device of a node's port."""
    return topo.SWITCHES[port], f"fx-{port}-{node}"


@contextlib.contextmanager
def flooding(lab: Lab, port: str, node: str) -> Iterator[None]:
    """The switch does not know where the VMAC is, and floods what is sent to it."""
    switch, device = node_port(port, node)

    def set_learning(state: str) -> None:
        argv = ["ip", "link", "set", device, "type", "bridge_slave", "learning", state, "fdb_flush"]
        lab.run(switch, argv)

    set_learning("off")
    try:
        yield
    finally:
        set_learning("on")


@contextlib.contextmanager
def sender(lab: Lab, ns: str, device: str) -> Iterator[Callable[[bytes | Packet], None]]:
    """A function that puts frames on a device of a host."""
    raw = lab.open_socket(ns, socket.AF_PACKET, socket.SOCK_RAW)

    def send(frame: bytes | Packet) -> None:
        raw.send(bytes(frame))

    try:
        raw.bind((device, 0))
        yield send
    finally:
        raw.close()


def mac_of(lab: Lab, ns: str, device: str) -> str:
    """A device's own MAC address."""
    with lab.links(ns) as links:
        (link,) = links.get_links(links.link_lookup(ifname=device)[0])
        mac: str = link.get_attr("IFLA_ADDRESS")
        return mac


def who_has(sender_mac: str, sender_ip: str, target: str) -> Packet:
    """An ARP request."""
    return Ether(src=sender_mac, dst=BROADCAST) / ARP(
        op="who-has", hwsrc=sender_mac, psrc=sender_ip, pdst=target
    )


def advert(
    *,
    source: str,
    vrid: int = 52,
    priority: int = 200,
    vips: tuple[str, ...] = (topo.WAN_VIP,),
    adver_int_cs: int = 100,
    ttl: int = 255,
    mac: str | None = None,
    **fields: object,
) -> Packet:
    """A VRRP advertisement as keepalived sends it; ``fields`` override those of the message."""
    message = VRRPv3(vrid=vrid, priority=priority, addrlist=list(vips), adv=adver_int_cs, **fields)
    ethernet = Ether(src=mac or f"00:00:5e:00:01:{vrid:02x}", dst=VRRP_MAC)
    return ethernet / IP(src=source, dst=VRRP_GROUP, ttl=ttl, proto=112) / message


def write_pcap(path: Path, frames: list[Frame]) -> None:
    """A capture file of link type Ethernet."""
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65536, 1))
        for frame in frames:
            seconds, fraction = divmod(frame.t_s, 1)
            length = len(frame.data)
            file.write(struct.pack("<IIII", int(seconds), int(fraction * 1e6), length, length) + frame.data)
