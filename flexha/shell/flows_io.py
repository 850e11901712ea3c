# SPDX-License-Identifier: Apache-2.0
"""Flow records between the fast path's rings and the core's sync session, in batches, within its credit.

What is not drained stays in C as one bit a flow; so the credit is the whole flow control. Draining pauses for
``PAUSE_S`` between batches that are not full, so that a busy node sends few large ones instead of many
small; a lone change leaves at once. The fast path wakes us for a change only when a look at the end of such
a pause has found nothing.

What is imported in one step of the core is told in one event, so that one acknowledgement answers for all of
it.

A busy stream does not come here: its batches go the short way (``csrc/lane.h``), and we ``rest`` meanwhile.
What the lane cannot do by itself it leaves to us (``attend``).
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final

from flexha.core import shards as sets
from flexha.core.actions import BeginImport, CompareDigests, EndImport, WithholdFlows
from flexha.core.events import (
    DigestDrained,
    DigestsRead,
    Event,
    FlowsAdopted,
    FlowsDrained,
    FlowsImported,
    FlowsStranded,
    Refused,
    ShardsLost,
    SweepBegun,
    SweepWalked,
)
from flexha.core.shards import NONE, Shards
from flexha.core.sync_offer import OFFER_SESSIONS
from flexha.fastpath import Drained, Fastpath, FastpathError
from flexha.fastpath.channel import LaneState, PartlyTaken
from flexha.shell import log
from flexha.shell.burst import Bursts
from flexha.shell.counters import Counters

PAUSE_S = 0.0015
"""The lane's, too: bytes and CPU of a session's life against the delay of its first packet."""
OFFENCES: Final = {
    errno.EBADMSG: "garbage",
    errno.EDOM: "bad_field",
    errno.ENODATA: "bad_column",
    errno.EINVAL: "bad_value",
}
"""What is wrong with sections that no conforming peer sends."""

_SUM_BYTES, _COUNT_BYTES = 8, 4


@dataclass(frozen=True, slots=True)
class _Sweep:
    """One that is under way. ``drained``: records that had been drained before it."""

    shards: Shards
    began_s: float
    drained: int


class FlowsIo:
    """Changes out, imports in."""

    def __init__(
        self,
        fastpath: Fastpath,
        batch_records: int,
        post: Callable[[Event], None],
        counters: Counters,
        guard: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``guard``: nothing goes the short way while it is held."""
        self._fastpath = fastpath
        self._batch_records = batch_records
        self._post = post
        self._guard = guard
        self._counters = counters
        self._credit = 0
        self._timer: asyncio.Handle | None = None
        self._pause_until = 0.0
        self._awaited = True
        """Changes make the fast path's eventfd readable."""
        self._sweep: _Sweep | None = None
        self._drained = 0
        self._bursts = Bursts(time.monotonic)
        self._imported: int | None = None
        self._records = 0
        """Imported, and not yet told."""
        self._not_taken: list[Refused] = []
        self._absurd = 0
        self._refused: FlowsImported | None = None

    def stop(self) -> None:
        """Drain no more."""
        self._credit = 0
        if self._timer:
            self._timer.cancel()
            self._timer = None

    # ---- the lane ----
    def rest(self) -> None:
        """A lane drains from now on; it has taken over who is woken."""
        self.stop()
        self._awaited = False

    def attend(self, credit: int) -> None:
        """Drain now what a lane has left: a marker, or lost shards."""
        self.stop()
        self._credit = credit
        self._drain()

    def count(self, lane: LaneState) -> None:
        """What went the short way."""
        if lane.records_out:
            self._drained += lane.records_out
            self._counters.add("sync.drained_records", lane.records_out)
        if lane.records_in:
            self._counters.add("sync.imported_records", lane.records_in)
        if lane.unknown:
            self._counters.add("sync.unknown_columns", lane.unknown)

    def taken_in_part(self, seq: int, part: PartlyTaken) -> FlowsImported:
        """The lane has made a batch live, but for some records."""
        self._counters.add("sync.imported_records", part.taken)
        self._say_refused(seq, len(part.places), part.absurd)
        refused = (Refused(seq, part.places),)
        return FlowsImported(seq, part.n, refused=refused, absurd=part.absurd)

    def _say_refused(self, seq: int, records: int, absurd: int) -> None:
        self._counters.add("sync.import_refused_records", records)
        if self._bursts.begins("records"):
            log.warning(
                "sync.records_refused",
                seq=seq,
                records=records,
                absurd=absurd,
                remedy="if the audit does not repair it, compare flow_cap and workers of both nodes",
            )

    # ---- out ----
    def set_credit(self, records: int) -> None:
        """How many more records may be drained."""
        self._credit = records
        self.wake()

    def wake(self) -> None:
        """There may be something to drain, now or after the pause."""
        if self._credit <= 0 or self._timer is not None:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._pause_until:
            self._timer = loop.call_soon(self._drain)
        else:
            self._timer = loop.call_at(self._pause_until, self._drain)

    def _drain(self) -> None:
        self._timer = None
        with self._guard():
            if self._credit > 0:
                self._drain_batches()

    def _drain_batches(self) -> None:
        more = False
        lost = NONE
        self._pause_until = asyncio.get_running_loop().time() + PAUSE_S
        batches = self._look()
        for drained in batches:
            more, lost = drained.more, drained.lost
            self._take(drained)
        if more:
            self._pause_until = 0.0
            self.wake()
            return
        if batches:
            self.wake()
        if lost:  # and what was told before has left the rings: nothing of it comes behind the sweep
            self._post(ShardsLost(lost))

    def _look(self) -> list[Drained]:
        """What waits; if that is nothing, we shall be woken for what comes."""
        limit = min(self._credit, self._batch_records)
        batches = self._fastpath.drain(limit)
        if not batches and not self._awaited:
            self._await(on=True)
            batches = self._fastpath.drain(limit)  # what came before this word
        if batches and self._awaited:
            self._await(on=False)
        return batches

    def _await(self, *, on: bool) -> None:
        self._awaited = on
        self._fastpath.await_events(on=on)

    def _take(self, drained: Drained) -> None:
        """One batch, and the marker that ends it."""
        n = drained.n
        if n:
            self._credit = max(0, self._credit - n)
            self._counters.add("sync.drained_records", n)
            self._drained += n
            self._post(FlowsDrained(drained.sections, n, drained.marks))
        if drained.sweep is not None:
            self._post(SweepBegun(drained.sweep))
        if drained.swept is not None:
            self._sweep_ended(drained.swept)
            self._post(SweepWalked(drained.swept))
        if drained.digests is not None:
            told = drained.digests
            self._post(DigestDrained(told.shards, told.sums, told.counts, of=told.of))

    def start_sweep(self, shards: Shards) -> None:
        """Let the workers tell all records of these shards."""
        self._fastpath.sweep_start(shards)
        now_s = asyncio.get_running_loop().time()
        if self._sweep is not None:  # both become one
            shards |= self._sweep.shards
        self._sweep = _Sweep(shards, now_s, self._drained)
        log.info("sync.sweep_begun", shards=shards.bit_count())

    def _sweep_ended(self, walked: Shards) -> None:
        sweep, self._sweep = self._sweep, None
        if sweep is None:
            return
        log.info(
            "sync.sweep_ended",
            shards=walked.bit_count(),
            lost_meanwhile=(sweep.shards & ~walked).bit_count(),
            records=self._drained - sweep.drained,
            took_s=round(asyncio.get_running_loop().time() - sweep.began_s, 3),
        )

    def ack(self, marks: Mapping[int, int]) -> None:
        """Free the tombstones of what the peer has live, and let go what waits for it."""
        self._fastpath.ack(marks)

    def withhold(self, action: WithholdFlows) -> None:
        """The peer did not take these: the acknowledgement that comes next does not count for them."""
        self._fastpath.refused(action.marks, action.sections, action.places)
        if self._bursts.begins("refused_by_peer"):
            log.warning(
                "sync.refused_by_peer",
                records=len(action.places),
                meaning="the peer has no room for these sessions, or cannot use them: a failover ends them",
                remedy="see sync.records_refused in the peer's log; flexhactl ha readiness counts them",
            )

    # ---- in ----
    def import_flows(self, seq: int, sections: bytes) -> None:
        """Make a batch live; the core decides what a refused one means."""
        if self._refused is not None:
            return
        try:
            imported = self._fastpath.import_sections(sections)
        except FastpathError as error:
            if error.errno == errno.ETIMEDOUT:  # the driver knows what to do about a worker that hangs
                raise
            self._counters.add("sync.import_refused_batches")
            if self._bursts.begins("import_refused"):
                log.warning("sync.import_refused", seq=seq, error=error)
            offence = OFFENCES.get(error.errno or 0)
            self._refused = FlowsImported(seq, error=str(error), offence=offence)
            return
        self._counters.add("sync.imported_records", imported.taken)
        if imported.unknown:
            self._counters.add("sync.unknown_columns", imported.unknown)
        refused = imported.n - imported.taken
        if refused:
            self._not_taken.append(Refused(seq, self._fastpath.not_taken(imported.n)))
            self._absurd += self._fastpath.absurd(imported.n)
            self._say_refused(seq, refused, self._absurd)
        self._imported = seq
        self._records += imported.n

    def begin_import(self, action: BeginImport) -> None:
        """All records of some shards follow."""
        if self._refused is None:
            self._fastpath.import_begin(action.shards, repair=action.repair)
            self._imported = action.seq

    def end_import(self, action: EndImport) -> None:
        """Sweep what was not refreshed, and say what a repair found."""
        if self._refused is not None:
            return
        if action.since is not None:
            for sections, n in self._fastpath.stranded(action.shards, action.since, OFFER_SESSIONS):
                self._post(FlowsStranded(sections, n))
        swept = self._fastpath.import_end(action.shards)
        self._imported = action.seq
        log.info("sync.swept", shards=action.shards.bit_count(), records=swept)
        for repair in self._fastpath.repairs_drain():
            self._counters.add(f"audit.{repair.kind.name.lower()}_records")
            log.warning(
                "audit.repaired",
                was=repair.kind.name.lower(),
                proto=repair.proto,
                inside=f"{repair.inside}:{repair.inside_port}",
                remote=f"{repair.remote}:{repair.remote_port}",
                shard=repair.shard,
            )

    def adopt(self, seq: int, sections: bytes) -> None:
        """Take sessions that the peer has opened; what is wrong with them is of no consequence here."""
        try:
            adopted = self._fastpath.adopt_sections(sections)
        except FastpathError as error:
            if error.errno == errno.ETIMEDOUT:
                raise
            self._counters.add("sync.bad_offers")
            self._post(FlowsAdopted(seq, error=str(error)))
            return
        self._post(FlowsAdopted(seq, adopted.taken, adopted.n - adopted.taken))

    def compare(self, action: CompareDigests) -> None:
        """Hold the peer's digests against those of our table as it is now."""
        own = self._fastpath.digests()
        comparable = action.shards & own.shards
        differing = action.shards & ~own.shards
        ours = _rows(own.shards, own.sums, own.counts)
        for shard, row in _rows(action.shards, action.sums, action.counts).items():
            if comparable >> shard & 1 and ours[shard] != row:
                differing |= 1 << shard
        self._post(DigestsRead(action.seq, action.shards, differing))

    def outcome(self) -> Iterable[FlowsImported]:
        """Of all imports since the last time, in their order."""
        if self._imported is None and self._refused is None:
            return ()
        events: list[FlowsImported] = []
        if self._imported is not None:
            refused = tuple(self._not_taken)
            done = FlowsImported(self._imported, self._records, refused=refused, absurd=self._absurd)
            self._imported, self._records, self._not_taken, self._absurd = None, 0, [], 0
            events.append(done)
        if self._refused is not None:
            events.append(self._refused)
            self._refused = None
        return events


def _rows(shards: Shards, sums: bytes, counts: bytes) -> dict[int, tuple[bytes, bytes]]:
    """By shard: its sum and its count."""
    return {
        shard: (
            sums[_SUM_BYTES * i : _SUM_BYTES * (i + 1)],
            counts[_COUNT_BYTES * i : _COUNT_BYTES * (i + 1)],
        )
        for i, shard in enumerate(sets.members(shards))
    }
