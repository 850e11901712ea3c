# SPDX-License-Identifier: Apache-2.0
"""Flap damping: moves of the role that nobody ordered and no death caused do not go to and fro for ever.

ACTIVE counts the moves that it begins for tracking and by ``preempt``; the count goes with the word, so that
both nodes share it. ``flap_max`` of them within ``flap_window_s`` suspend such moves for ``flap_suspend_s``.
Death, BYE and the operator are never damped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from flexha.units import NS_PER_S, Ns


@dataclass(frozen=True, slots=True)
class DampLimits:
    """``[ha]`` ``flap_max``, ``flap_window_s``, ``flap_suspend_s``."""

    moves: int = 5
    window_s: float = 60.0
    suspend_s: float = 300.0


@dataclass(frozen=True, slots=True)
class Damp:
    """The moves of late, and until when there are none."""

    moves: tuple[Ns, ...] = ()
    suspended_until: Ns | None = None

    def recent(self, limits: DampLimits, now: Ns) -> int:
        """How many moves count."""
        return len(_recent(self.moves, limits, now))


def moved(damp: Damp, limits: DampLimits, now: Ns) -> Damp:
    """One more move begins."""
    return replace(damp, moves=(*_recent(damp.moves, limits, now), now)[-limits.moves :])


def inherited(moves: int, limits: DampLimits, now: Ns) -> Damp:
    """The peer gave us the role, and counts so many moves: taken to be of this moment."""
    return Damp(moves=(now,) * min(moves, limits.moves))


def suspended(limits: DampLimits, now: Ns) -> Damp:
    """No move is to begin for a while; then counting starts anew."""
    return Damp(suspended_until=Ns(now + int(limits.suspend_s * NS_PER_S)))


def is_full(damp: Damp, limits: DampLimits, now: Ns) -> bool:
    """Whether the next move would be one too many."""
    return damp.recent(limits, now) >= limits.moves


def _recent(moves: tuple[Ns, ...], limits: DampLimits, now: Ns) -> tuple[Ns, ...]:
    return tuple(at for at in moves if now - at < limits.window_s * NS_PER_S)
