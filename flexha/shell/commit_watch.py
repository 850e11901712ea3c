# SPDX-License-Identifier: Apache-2.0
"""Says when packets that should wait for the peer do not, and when some that waited were dropped.

The fast path decides by itself (``csrc/commit.h``): ``bounded`` degrades while the peer is slow, ``strict``
drops. Its counters are looked at four times a second; each change of the one is logged once, the other once a
burst.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from flexha.fastpath import Fastpath, SyncStats
from flexha.shell import log

LOOK_S = 0.25
BURST_S = 10.0
"""Drops within so long after the first are told in one line."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of all workers: those that are degraded, and counters of all of them."""

    degraded: tuple[int, ...] = ()
    times: int = 0
    dropped: int = 0
    full: int = 0

    @classmethod
    def of(cls, workers: Sequence[SyncStats]) -> Seen:
        """From the counters of each worker."""
        return cls(
            tuple(i for i, stats in enumerate(workers) if stats.degraded),
            sum(stats.degraded_times for stats in workers),
            sum(stats.hold_dropped for stats in workers),
            sum(stats.hold_full for stats in workers),
        )


class CommitWatch:
    """Logs what output commit could not do."""

    def __init__(self, fastpath: Fastpath) -> None:
        self._fastpath = fastpath
        self._seen = Seen()
        self._told = Seen()
        self._quiet_until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look, again and again."""
        workers = range(self._fastpath.config.n_workers)
        self.look(
            [self._fastpath.sync_stats(worker) for worker in workers], asyncio.get_running_loop().time()
        )
        self._timer = asyncio.get_running_loop().call_later(LOOK_S, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()

    def look(self, workers: Sequence[SyncStats], now_s: float) -> None:
        """Log what has changed."""
        before, seen = self._seen, Seen.of(workers)
        self._seen = seen
        if seen.degraded and (seen.times != before.times or not before.degraded):
            log.warning("commit.degraded", workers=list(seen.degraded), times=seen.times)
        elif before.degraded and not seen.degraded:
            log.info("commit.recovered", workers=list(before.degraded))
        elif seen.times != before.times:
            log.warning("commit.degraded", workers=[], times=seen.times)  # and is not any more
        if now_s < self._quiet_until or (seen.dropped, seen.full) == (self._told.dropped, self._told.full):
            return
        log.warning(
            "commit.dropped",
            waited_in_vain=seen.dropped - self._told.dropped,
            no_room=seen.full - self._told.full,
        )
        self._told = seen
        self._quiet_until = now_s + BURST_S
