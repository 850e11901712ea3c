# SPDX-License-Identifier: Apache-2.0
"""The pulse thread of C under a clock of the test's own, as the simulator runs it. Spec: B2, B4."""

from __future__ import annotations

import pytest

from flexha.core.events import Role
from flexha.fastpath.records import HeartbeatFlag, Mark, PulseConfig, PulseKind
from flexha.fastpath.simulated import SimulatedPulse
from flexha.units import NS_PER_MS

BEGUN = 1000 * NS_PER_MS
SIDES = HeartbeatFlag.LAN_UP | HeartbeatFlag.WAN_UP


class Pair:
    """Two of them, and one clock; what one says the other hears at once, unless ``deaf`` is its index."""

    def __init__(self) -> None:
        self.now = BEGUN
        self.deaf: int | None = None
        self.stopped: int | None = None
        self.both = [
            SimulatedPulse(PulseConfig(1, index, 10 + index, bytes(range(1, 17))), 2, BEGUN)
            for index in range(2)
        ]
        for pulse in self.both:
            pulse.set_pulse(SIDES, 100)

    def carry(self, sender: int) -> None:
        """What it has just said, and what is answered."""
        pulse, other = self.both[sender], 1 - sender
        for path, payload in pulse.said():
            if other not in (self.deaf, self.stopped):
                self.both[other].hear(path, payload, self.now)
                self.carry(other)

    def turn(self, index: int) -> None:
        self.both[index].turn(self.now)
        self.carry(index)

    def run(self, ms: int) -> None:
        for _ in range(ms):
            self.now += NS_PER_MS
            for index in range(2):
                if index != self.stopped:
                    self.turn(index)

    def kinds(self, index: int) -> list[PulseKind]:
        return [event.kind for event in self.both[index].pulse_events()]


@pytest.fixture
def pair() -> Pair:
    """Node a reigns, and both know each other."""
    pair = Pair()
    pair.run(200)
    assert pair.both[0].set_role(Role.ACTIVE, 2)
    assert pair.both[1].set_role(Role.PASSIVE, 2)
    pair.run(100)
    assert [pulse.alive for pulse in pair.both] == [7, 7]
    for index in range(2):
        pair.kinds(index)
    return pair


def test_an_idle_thread_renews_its_lease_unseen(pair: Pair) -> None:
    """What nobody sees is made up for: the lease is good whenever somebody looks."""
    active = pair.both[0]
    assert active.next_ns - pair.now > 20 * NS_PER_MS
    active.look(active.next_ns - 1)
    assert active.lease_until_ns > active.next_ns - 1


def test_who_was_stopped_has_no_lease(pair: Pair) -> None:
    """Nothing is made up for; the peer, which reigns by now, tells it so before it may speak."""
    active = pair.both[0]
    active.stop(pair.now)
    pair.stopped = 0
    pair.run(300)
    assert PulseKind.PATH_DOWN in pair.kinds(1)
    assert pair.both[1].set_role(Role.ACTIVE, 3)
    pair.run(10)
    pair.stopped = None
    pair.now += NS_PER_MS
    active.turn(pair.now)
    assert (active.role, active.lease_until_ns < pair.now) == (Role.ACTIVE, True)
    pair.carry(0)
    assert active.role == Role.PASSIVE


def test_a_mark_is_refuted(pair: Pair) -> None:
    pair.both[1].mark(Mark.XC_CARRIER)
    pair.run(30)
    assert pair.kinds(1) == [PulseKind.REFUTED]


def test_a_peer_that_is_deaf_is_not_dead(pair: Pair) -> None:
    """It speaks, and says that it hears nobody: it cannot be asked."""
    pair.deaf = 0
    pair.run(300)
    pair.kinds(1)
    pair.both[1].flood(pair.now)
    pair.run(30)
    assert PulseKind.DEAD not in pair.kinds(1)


def test_the_end_of_the_life_line_is_a_death(pair: Pair) -> None:
    pair.both[0].stop(pair.now)
    pair.stopped = 0
    pair.both[1].died(10, pair.now)
    pair.run(1)
    assert PulseKind.DIED in pair.kinds(1)
