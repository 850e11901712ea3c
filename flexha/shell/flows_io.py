# SPDX-License-Identifier: Apache-2.0
"""Flow records between the fast path's rings and the core's sync session, in batches, within its credit.

What is not drained stays in C as one bit a flow; so the credit is the whole flow control. Draining pauses for
a millisecond between batches that are not full, so that a busy node sends few large ones instead of many
small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from flexha.core.actions import AckFlows, ImportFlows
from flexha.core.events import BulkWalked, Event, FlowsDrained, FlowsImported
from flexha.fastpath import Fastpath, FastpathError
from flexha.shell import log
from flexha.shell.counters import Counters

PAUSE_S = 0.001


class FlowsIo:
    """Changes out, imports in."""

    def __init__(
        self,
        fastpath: Fastpath,
        batch_records: int,
        post: Callable[[Event], None],
        counters: Counters,
    ) -> None:
        self._fastpath = fastpath
        self._batch_records = batch_records
        self._post = post
        self._counters = counters
        self._credit = 0
        self._timer: asyncio.Handle | None = None
        self._pause_until = 0.0

    def stop(self) -> None:
        """Drain no more."""
        self._credit = 0
        if self._timer:
            self._timer.cancel()
            self._timer = None

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
        if self._credit <= 0:
            return
        more = False
        for batch in self._fastpath.drain(min(self._credit, self._batch_records)):
            more = batch.more
            self._credit = max(0, self._credit - batch.n)
            self._counters.add("sync.drained_records", batch.n)
            self._post(
                FlowsDrained(
                    n=batch.n, family=batch.family, columns=batch.columns, marks=batch.marks, lost=batch.lost
                )
            )
            if batch.bulk_walked:
                self._post(BulkWalked())
        if more:
            self.wake()
        else:
            self._pause_until = asyncio.get_running_loop().time() + PAUSE_S

    def ack(self, action: AckFlows) -> None:
        """Free the tombstones of what the peer has live."""
        self._fastpath.ack(action.marks)

    # ---- in ----
    def import_flows(self, action: ImportFlows) -> None:
        """Make a batch live; the core decides what a refused one means."""
        try:
            taken = self._fastpath.import_columns(action.n, action.family, action.columns)
        except FastpathError as error:
            self._counters.add("sync.import_refused_batches")
            log.warning("sync.import_refused", seq=action.seq, records=action.n, error=error)
            self._post(FlowsImported(action.seq, str(error)))
            return
        self._counters.add("sync.imported_records", taken)
        if taken < action.n:
            self._counters.add("sync.import_refused_records", action.n - taken)
        self._post(FlowsImported(action.seq))

    def begin_import(self) -> None:
        """A bulk is coming."""
        self._fastpath.begin_import()

    def end_import(self) -> None:
        """Sweep what the bulk did not refresh."""
        swept = self._fastpath.end_import()
        log.info("sync.bulk_swept", records=swept)
