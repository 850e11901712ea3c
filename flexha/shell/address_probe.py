# SPDX-License-Identifier: Apache-2.0
"""Is somebody else on the wire using our address? ARP probes (RFC 5227 §2.1.1) before we take it.

The probes go out of the host TAP and thus take the whole way through the fast path; answers come back the
same way. Three probes as RFC 5227 wants, but 50 ms apart instead of 1..2 s: a node that starts is a pair that
is without its spare, and what we look for is a static misconfiguration on a LAN.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv4Address

from flexha.errors import StartError
from flexha.shell.plug import PluggedPort

PROBES = 3
PROBE_INTERVAL_S = 0.05
WAIT_S = 0.1
"""After the last probe."""

_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_ARP = struct.Struct("!HHBBH6s4s6s4s")


def probe_frame(mac: bytes, address: IPv4Address) -> bytes:
    """An ARP probe: a request whose sender protocol address is zero."""
    arp = _ARP.pack(1, 0x0800, 6, 4, 1, mac, bytes(4), bytes(6), address.packed)
    return _BROADCAST + mac + _ETH_P_ARP.to_bytes(2, "big") + arp


def claimant(frame: bytes, mac: bytes, address: IPv4Address) -> bytes | None:
    """The MAC of another station that, by this frame, uses ``address`` or probes for it as we do."""
    if len(frame) < 14 + _ARP.size or int.from_bytes(frame[12:14], "big") != _ETH_P_ARP:
        return None
    hardware, protocol, _, _, operation, sender, sender_ip, _, target_ip = _ARP.unpack_from(frame, 14)
    if (hardware, protocol) != (1, 0x0800) or sender == mac:
        return None
    simultaneous = operation == 1 and sender_ip == bytes(4) and target_ip == address.packed
    return sender if sender_ip == address.packed or simultaneous else None


async def check(ports: list[PluggedPort]) -> None:
    """Probe on all ports at once.

    Raises: StartError that names each station that has an address of ours.
    """
    findings = await asyncio.gather(*(_probe(port) for port in ports))
    if problems := [finding for finding in findings if finding]:
        raise StartError("\n".join(problems))


async def _probe(port: PluggedPort) -> str | None:
    plan, loop = port.plan, asyncio.get_running_loop()
    found: set[bytes] = set()
    with socket.socket(
        socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ARP)
    ) as raw:
        raw.bind((plan.host_dev, _ETH_P_ARP))
        raw.setblocking(False)

        def read() -> None:
            if other := claimant(raw.recv(2048), plan.mac, plan.interface.ip):
                found.add(other)

        loop.add_reader(raw.fileno(), read)
        try:
            for _ in range(PROBES):
                raw.send(probe_frame(plan.mac, plan.interface.ip))
                await asyncio.sleep(PROBE_INTERVAL_S)
            await asyncio.sleep(WAIT_S)
        finally:
            loop.remove_reader(raw.fileno())
    if not found:
        return None
    stations = ", ".join(sorted(mac.hex(":") for mac in found))
    return (
        f"ports.{plan.port}: address {plan.interface.ip} is in use on the wire by {stations}; give one of "
        "the two another address"
    )
