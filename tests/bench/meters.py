# SPDX-License-Identifier: Apache-2.0
"""What a process has used, and what a link has carried, as the kernel counts it."""

from __future__ import annotations

import array
import fcntl
import json
import socket
import struct
from dataclasses import dataclass
from typing import Self

from sandbox import Lab

ETHERNET_BYTES = 14
_SIOCETHTOOL = 0x8946
_ETHTOOL_STSO = 0x1F


def thread_cpu_ns(lab: Lab, pid: int) -> dict[int, tuple[str, int]]:
    """Thread id -> name and CPU time so far, of a process of the lab."""
    threads = {}
    for task in lab.path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        threads[int(task.name)] = (name, int((task / "schedstat").read_text().split()[0]))
    return threads


@dataclass(frozen=True, slots=True)
class Cpu:
    """CPU time of a process, ns: all of it, and its main thread's (which runs all Python of a daemon)."""

    total: int
    main: int

    @classmethod
    def of(cls, lab: Lab, pid: int) -> Self:
        """So far."""
        threads = thread_cpu_ns(lab, pid)
        return cls(sum(ns for _, ns in threads.values()), threads[pid][1])

    def __sub__(self, earlier: Self) -> Cpu:
        return Cpu(self.total - earlier.total, self.main - earlier.main)


def rss_mib(lab: Lab, pid: int) -> float:
    """Resident memory of a process of the lab, now."""
    for line in lab.path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no memory")


@dataclass(frozen=True, slots=True)
class Carried:
    """What a link has carried, both ways: IP packets with all that is in them, Ethernet headers left out."""

    packets: int
    bytes: int

    @classmethod
    def by(cls, lab: Lab, host: str, device: str) -> Self:
        """So far, as this end of it counts."""
        argv = ["ip", "-json", "-stats", "link", "show", device]
        (link,) = json.loads(lab.run(host, argv).stdout)
        stats = link["stats64"]
        packets = stats["rx"]["packets"] + stats["tx"]["packets"]
        octets = stats["rx"]["bytes"] + stats["tx"]["bytes"]
        return cls(packets, octets - packets * ETHERNET_BYTES)

    def __sub__(self, earlier: Self) -> Carried:
        return Carried(self.packets - earlier.packets, self.bytes - earlier.bytes)


def cut_segments(lab: Lab, host: str, device: str) -> None:
    """Have the kernel cut TCP segments before the device: then it carries, and counts, what a wire would."""
    value = array.array("B", struct.pack("=II", _ETHTOOL_STSO, 0))
    address, _ = value.buffer_info()
    with lab.open_socket(host, socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, struct.pack("16sQ16x", device.encode(), address))
