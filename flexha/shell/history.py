# SPDX-License-Identifier: Apache-2.0
"""What the node decided, and why: a bounded ring of records behind ``flexhactl ha history``."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from flexha.shell import clock, log
from flexha.units import NS_PER_MS, Ns

RECORDS_MAX = 1000

_HEAD = frozenset({"t_ms", "wall", "node", "event"})


class History:
    """The newest ``RECORDS_MAX`` records; older ones are in the log."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._records: deque[dict[str, object]] = deque(maxlen=RECORDS_MAX)

    def add(self, now: Ns, event: str, fields: Mapping[str, object]) -> None:
        """Append a record. ``t_ms`` is CLOCK_BOOTTIME: records of two nodes of one machine compare by it."""
        extra = {(f"{key}_" if key in _HEAD else key): log.plain(value) for key, value in fields.items()}
        self._records.append(
            {
                "t_ms": round(now / NS_PER_MS, 3),
                "wall": round(clock.wall(), 3),
                "node": self._node,
                "event": event,
            }
            | extra
        )

    def records(self, limit: int = RECORDS_MAX) -> list[dict[str, object]]:
        """The newest ``limit`` records, oldest first."""
        return list(self._records)[-limit:] if limit > 0 else []
