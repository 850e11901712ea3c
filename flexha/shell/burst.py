# SPDX-License-Identifier: Apache-2.0
"""One line for a burst of like complaints, however long it lasts; the counters have them all."""

from __future__ import annotations

from collections.abc import Callable

QUIET_S = 60.0
"""A burst is over after so long without one more."""


class Bursts:
    """Says whether a complaint is to be logged. Kinds are words of ours, nothing that a stranger chooses."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._last: dict[str, float] = {}

    def begins(self, kind: str) -> bool:
        """Is this the first of its kind after a quiet time?"""
        now = self._now()
        last, self._last[kind] = self._last.get(kind), now
        return last is None or now - last > QUIET_S
