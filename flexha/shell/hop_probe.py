# SPDX-License-Identifier: Apache-2.0
"""Does the next hop behind a port answer? Carrier does not say: the switch's port may be blocked, or the
router hang.

One probe each interval, out of the host TAP and thus by the whole way through the fast path, on either role:
PASSIVE has to know its own wire too. The next hop is lost once ``misses`` probes in a row have had no answer,
each an interval's time but the last, which gets a tenth of one, so that the loss is known within ``misses``
intervals; any answer makes it good again. What waits in the socket is read before silence is judged, so a
loop that was late blames nobody. Two misses in a row make a next hop *doubted*.

``arp``        asks for the target's MAC: every router answers, and nobody limits it (RFC 826)
``icmp``       echo requests (RFC 792), also to a target behind the router
``neighbour``  sends nothing itself: is the target resolved, says the kernel, which keeps the next hops of
               routes so. It takes some seconds to give one up.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, Protocol

from flexha.config.derive import HopPlan
from flexha.core.checksum import internet_checksum
from flexha.core.events import Event, Hop, HopChanged
from flexha.shell import clock
from flexha.units import NS_PER_MS, Ns

DOUBT_AFTER: Final = 2
READS_MAX: Final = 64
"""Frames read at once; a wire full of broadcasts does not hold up the loop."""

_ETH_P_ARP: Final = 0x0806
_BROADCAST: Final = b"\xff" * 6
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ECHO: Final = struct.Struct("!BBHHH")
_SOL_RAW: Final = 255
_ICMP_FILTER: Final = 1


class Method(Protocol):
    """A way to ask."""

    @property
    def raw(self) -> socket.socket | None:
        """Where answers come; None: there is only what ``heard`` finds."""

    def ask(self) -> None:
        """Send a probe. Raises OSError: it could not be sent."""

    def heard(self) -> bool:
        """Has the target answered since the last call? Reads what has come."""


class Arp:
    """Requests to the target's MAC while it answers (RFC 1122 §2.3.2.1), else to everybody."""

    def __init__(self, plan: HopPlan) -> None:
        self._plan = plan
        self._mac: bytes | None = None
        self.raw = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.htons(_ETH_P_ARP)
        )
        self.raw.setblocking(False)
        self.raw.bind((plan.device, _ETH_P_ARP))

    def ask(self) -> None:
        """One request."""
        to, self._mac = self._mac or _BROADCAST, None
        self.raw.send(arp_request(self._plan, to))

    def heard(self) -> bool:
        """Whatever the target says by ARP is a sign of life."""
        mac = None
        for frame in _waiting(self.raw):
            mac = arp_sender(frame, self._plan.target) or mac
        self._mac = mac or self._mac
        return mac is not None


class Icmp:
    """Echo requests, each with a number of its own."""

    def __init__(self, plan: HopPlan) -> None:
        self._plan = plan
        self._id = secrets.randbits(16)
        self._seq = 0
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP)
        self.raw.setblocking(False)
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, plan.device.encode())
        self.raw.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFE))  # echo replies only

    def ask(self) -> None:
        """One request."""
        self._seq = (self._seq + 1) & 0xFFFF
        self.raw.sendto(echo_request(self._id, self._seq), (str(self._plan.target), 0))

    def heard(self) -> bool:
        """An answer to any of our requests."""
        answers = [is_echo_reply(packet, self._plan.target, self._id) for packet in _waiting(self.raw)]
        return any(answers)


class Neighbour:
    """What the kernel knows. ``knows``: whether it has a MAC for the address on the port."""

    raw = None

    def __init__(self, plan: HopPlan, knows: Callable[[int, IPv4Address], bool]) -> None:
        self._plan = plan
        self._knows = knows

    def ask(self) -> None:
        """The kernel does."""

    def heard(self) -> bool:
        """As the mirror has it."""
        return self._knows(self._plan.index, self._plan.target)


def _waiting(raw: socket.socket) -> list[bytes]:
    found: list[bytes] = []
    with contextlib.suppress(OSError):  # nothing more waits, or the device is down
        while len(found) < READS_MAX:
            found.append(raw.recv(2048))
    return found


def arp_request(plan: HopPlan, to: bytes) -> bytes:
    """Who has the target? Asked by this node's own address on the port."""
    arp = _ARP.pack(1, 0x0800, 6, 4, 1, plan.mac, plan.address.packed, bytes(6), plan.target.packed)
    return to + plan.mac + _ETH_P_ARP.to_bytes(2, "big") + arp


def arp_sender(frame: bytes, target: IPv4Address) -> bytes | None:
    """The MAC of ``target`` if it has sent this frame."""
    if len(frame) < 14 + _ARP.size or int.from_bytes(frame[12:14], "big") != _ETH_P_ARP:
        return None
    hardware, protocol, _, _, _, sender, sender_ip, _, _ = _ARP.unpack_from(frame, 14)
    return sender if (hardware, protocol, sender_ip) == (1, 0x0800, target.packed) else None


def echo_request(ident: int, seq: int) -> bytes:
    """An echo request without data."""
    checksum = internet_checksum(_ECHO.pack(8, 0, 0, ident, seq))
    return _ECHO.pack(8, 0, checksum, ident, seq)


def is_echo_reply(packet: bytes, target: IPv4Address, ident: int) -> bool:
    """Does ``target`` answer one of our requests? ``packet`` has its IPv4 header."""
    header = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < header + _ECHO.size or header < 20 or packet[12:16] != target.packed:
        return False
    kind, _, _, replied, _ = _ECHO.unpack_from(packet, header)
    return (kind, replied) == (0, ident)


class HopProbe:
    """Probes one port's next hop, and posts ``HopChanged``. It is taken to answer until it does not."""

    def __init__(self, plan: HopPlan, method: Method, post: Callable[[Event], None]) -> None:
        self.plan = plan
        self._method = method
        self._post = post
        self._timer: asyncio.TimerHandle | None = None
        self._unanswered = 0
        self._asked_at = Ns(0)
        self.hop = Hop.ANSWERS
        self.sent = 0
        self.answered = 0
        self.rtt_ms: float | None = None
        """Of the last probe that was answered before the next one left."""

    def start(self) -> None:
        """Ask, again and again."""
        if self._method.raw:
            asyncio.get_running_loop().add_reader(self._method.raw.fileno(), self._listen)
        self._ask()

    def stop(self) -> None:
        """Ask no more."""
        if self._timer:
            self._timer.cancel()
        if self._method.raw:
            asyncio.get_running_loop().remove_reader(self._method.raw.fileno())
            self._method.raw.close()

    def status(self) -> dict[str, object]:
        """``ports[].next_hop`` of ``flexhactl status``."""
        return {
            "kind": self.plan.kind,
            "target": str(self.plan.target),
            "state": self.hop.value,
            "rtt_ms": self.rtt_ms,
            "sent": self.sent,
            "answered": self.answered,
        }

    def _again(self, delay_s: float, what: Callable[[], None]) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, what)

    def _ask(self) -> None:
        self._listen()
        self._unanswered += 1
        self.sent += 1
        self._asked_at = clock.now()
        with contextlib.suppress(OSError):  # a device without carrier: no answer will come
            self._method.ask()
        interval_s = self.plan.interval_ms / 1000
        if self._worst() is not Hop.ANSWERS:
            self._again(interval_s / 10, self._judge)
        else:
            self._again(interval_s, self._ask)

    def _judge(self) -> None:
        self._listen()
        self._say(self._worst())
        self._again(self.plan.interval_ms / 1000 * 9 / 10, self._ask)

    def _worst(self) -> Hop:
        """What the next hop is if the last probe stays unanswered."""
        if self._unanswered >= self.plan.misses:
            return Hop.SILENT
        return Hop.DOUBTED if self._unanswered >= DOUBT_AFTER else Hop.ANSWERS

    def _listen(self) -> None:
        if not self._method.heard():
            return
        if self._unanswered:
            self.answered += 1
            if self._method.raw:
                self.rtt_ms = round((clock.now() - self._asked_at) / NS_PER_MS, 2)
        self._unanswered = 0
        self._say(Hop.ANSWERS)

    def _say(self, hop: Hop) -> None:
        if hop is not self.hop:
            self.hop = hop
            self._post(HopChanged(self.plan.port, hop))


def make(plan: HopPlan, knows: Callable[[int, IPv4Address], bool], post: Callable[[Event], None]) -> HopProbe:
    """The probe of a port as it is configured."""
    match plan.kind:
        case "arp":
            return HopProbe(plan, Arp(plan), post)
        case "icmp":
            return HopProbe(plan, Icmp(plan), post)
        case "neighbour":
            return HopProbe(plan, Neighbour(plan, knows), post)
