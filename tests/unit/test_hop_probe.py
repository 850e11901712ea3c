# SPDX-License-Identifier: Apache-2.0
"""When a next hop counts as lost, and what its answers look like. Spec: R14."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from flexha.config.derive import HopPlan
from flexha.core import checksum
from flexha.core.events import Event, Hop, HopChanged
from flexha.shell import hop_probe
from flexha.shell.hop_probe import HopProbe, Neighbour

ROUTER, OTHER = IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2")
MAC = b"\x02\x00\x00\x00\x00\x09"
INTERVAL_MS = 20
PLAN = HopPlan(
    port="wan",
    index=1,
    kind="arp",
    target=ROUTER,
    interval_ms=INTERVAL_MS,
    misses=3,
    device="wan0",
    mac=b"\x02\x00\x00\x00\x00\x01",
    address=IPv4Address("203.0.113.4"),
)


class Router:
    """Answers each probe, or none, or all but some."""

    raw = None

    def __init__(self, answers: Callable[[int], bool]) -> None:
        self._answers = answers
        self.asked = 0
        self._due = False

    def ask(self) -> None:
        self.asked += 1
        self._due = self._answers(self.asked)
        if not self._due:
            raise OSError("a device without carrier")  # as good as no answer

    def heard(self) -> bool:
        due, self._due = self._due, False
        return due


def probed(router: Router, until: Callable[[HopProbe, list[Event]], bool]) -> tuple[HopProbe, list[Event]]:
    """Probe until the condition holds."""
    events: list[Event] = []
    probe = HopProbe(PLAN, router, events.append)

    async def run() -> None:
        probe.start()
        async with asyncio.timeout(10):
            while not until(probe, events):
                await asyncio.sleep(INTERVAL_MS / 2000)
        probe.stop()

    asyncio.run(run())
    return probe, events


def test_misses_in_a_row_lose_it_and_one_answer_regains_it() -> None:
    router = Router(lambda n: n < 4 or n > 8)
    probe, events = probed(router, lambda _, said: len(said) == 3)
    assert events == [HopChanged("wan", hop) for hop in (Hop.DOUBTED, Hop.SILENT, Hop.ANSWERS)]
    assert router.asked >= 9
    assert probe.status()["state"] == "answers"
    assert probe.answered > 3


def test_misses_that_are_not_in_a_row_lose_nothing() -> None:
    router = Router(lambda n: n % 3 == 0)
    _, events = probed(router, lambda *_: router.asked > 12)
    assert {event.hop for event in events if isinstance(event, HopChanged)} == {Hop.DOUBTED, Hop.ANSWERS}


def test_a_loss_is_known_before_the_next_probe_is_due() -> None:
    """Within ``misses`` intervals of it, whenever it happens between two probes."""
    router = Router(lambda _: False)
    _, events = probed(router, lambda probe, _: probe.hop is Hop.SILENT)
    assert router.asked == PLAN.misses
    assert events == [HopChanged("wan", Hop.DOUBTED), HopChanged("wan", Hop.SILENT)]


@pytest.mark.parametrize("known", [True, False])
def test_the_kernels_word(known: bool) -> None:
    asked: list[tuple[int, IPv4Address]] = []

    def knows(port: int, address: IPv4Address) -> bool:
        asked.append((port, address))
        return known

    assert Neighbour(PLAN, knows).heard() is known
    assert asked == [(1, ROUTER)]


def test_arp_answers() -> None:
    """What the target says of itself, in a reply or a request; nothing of others. Spec: RFC 826."""
    request = hop_probe.arp_request(PLAN, b"\xff" * 6)
    assert len(request) == 42
    assert hop_probe.arp_sender(request, PLAN.address) == PLAN.mac
    reply = request[:20] + b"\x00\x02" + MAC + ROUTER.packed + request[22:32]
    assert hop_probe.arp_sender(reply, ROUTER) == MAC
    assert hop_probe.arp_sender(reply, OTHER) is None
    assert hop_probe.arp_sender(reply[:41], ROUTER) is None
    assert hop_probe.arp_sender(reply[:12] + b"\x08\x00" + reply[14:], ROUTER) is None


def test_echo_answers() -> None:
    """Of the target, to us. Spec: RFC 792."""
    request = hop_probe.echo_request(0x1234, 7)
    assert checksum.is_valid(request)
    header = b"\x45" + bytes(11) + ROUTER.packed + PLAN.address.packed
    reply = b"\x00" + request[1:]
    assert hop_probe.is_echo_reply(header + reply, ROUTER, 0x1234)
    assert not hop_probe.is_echo_reply(header + request, ROUTER, 0x1234)
    assert not hop_probe.is_echo_reply(header + reply, ROUTER, 0x1235)
    assert not hop_probe.is_echo_reply(header + reply, OTHER, 0x1234)
    assert not hop_probe.is_echo_reply(header, ROUTER, 0x1234)
    assert not hop_probe.is_echo_reply(b"", ROUTER, 0x1234)
