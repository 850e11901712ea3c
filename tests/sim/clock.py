# SPDX-License-Identifier: Apache-2.0
"""A virtual clock: what happens next, and nothing in between."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

from flexha.units import Ns

Callback = Callable[[], None]


class Clock:
    """Runs callbacks in order of their time, then of their making: a run depends on nothing else."""

    def __init__(self) -> None:
        self.now = Ns(0)
        self._queue: list[tuple[Ns, int, Callback]] = []
        self._order = itertools.count()

    def at(self, when: Ns, callback: Callback) -> None:
        """Call ``callback`` at ``when``, or now if that is past."""
        now = self.now
        heapq.heappush(self._queue, (max(now, when), next(self._order), callback))

    def after(self, delay: float, callback: Callback) -> None:
        """Call ``callback`` after ``delay`` ns."""
        heapq.heappush(self._queue, (Ns(self.now + round(delay)), next(self._order), callback))

    def run_until(self, end: Ns) -> None:
        """Let time pass."""
        queue = self._queue
        while queue and queue[0][0] <= end:
            self.now, _, callback = heapq.heappop(queue)
            callback()
        self.now = end
