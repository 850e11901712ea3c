# SPDX-License-Identifier: Apache-2.0
"""Says when packets that should wait for the peer do not, and when some that waited were dropped.

The fast path decides by itself (``csrc/commit.h``): ``bounded`` degrades while the peer is slow, ``strict``
drops. Its counters are looked at four times a second; each change of the one is logged once, and stands in
the history; the others are logged once a burst. Digests that were wrong (``csrc/tour.h``) are said here, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from flexha.fastpath import Fastpath, SyncStats
from flexha.shell import clock, log
from flexha.shell.history import History

LOOK_S = 0.25
BURST_S = 10.0
"""What comes within so long after the first is told in one line."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of all workers: those that are degraded, and counters of all of them."""

    degraded: tuple[int, ...] = ()
    times: int = 0
    dropped: int = 0
    full: int = 0
    expired: int = 0
    unheld: int = 0
    scrubbed: int = 0

    @classmethod
    def of(cls, workers: Sequence[SyncStats]) -> Seen:
        """From the counters of each worker."""
        return cls(
            tuple(i for i, stats in enumerate(workers) if stats.degraded),
            sum(stats.degraded_times for stats in workers),
            sum(stats.hold_dropped for stats in workers),
            sum(stats.hold_full for stats in workers),
            sum(stats.hold_expired for stats in workers),
            sum(stats.hold_unheld for stats in workers),
            sum(stats.scrub_errors for stats in workers),
        )


class CommitWatch:
    """Logs what output commit could not do."""

    def __init__(self, fastpath: Fastpath, history: History) -> None:
        self._fastpath = fastpath
        self._history = history
        self._seen = Seen()
        self._told: dict[str, tuple[int, ...]] = {}
        self._quiet_until: dict[str, float] = {}
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
            self._change("commit.degraded", workers=list(seen.degraded), times=seen.times)
        elif before.degraded and not seen.degraded:
            self._change("commit.recovered", level="INFO", workers=list(before.degraded))
        elif seen.times != before.times:
            self._change("commit.degraded", workers=[], times=seen.times)  # and is not any more
        self._burst(now_s, "commit.dropped", waited_in_vain=seen.dropped, no_room=seen.full)
        self._burst(now_s, "commit.late", packets=seen.expired, sessions_not_held=seen.unheld)
        if self._burst(now_s, "audit.scrub_error", shards=seen.scrubbed):
            self._history.add(clock.now(), "audit-scrub-error", {"shards": seen.scrubbed})

    def _change(self, name: str, level: str = "WARNING", **fields: object) -> None:
        log.event(level, name, **fields)
        self._history.add(clock.now(), name.replace(".", "-"), fields)

    def _burst(self, now_s: float, name: str, **counts: int) -> bool:
        """Log what was counted since the last line; True: there was something to say."""
        now = tuple(counts.values())
        told = self._told.get(name, (0,) * len(now))
        if now == told or now_s < self._quiet_until.get(name, 0.0):
            return False
        log.warning(name, **{key: a - b for key, a, b in zip(counts, now, told, strict=True)})
        self._told[name] = now
        self._quiet_until[name] = now_s + BURST_S
        return True
