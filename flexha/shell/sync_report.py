# SPDX-License-Identifier: Apache-2.0
"""Sync in numbers: what the fast path's workers count of it, added up and named for ``status``.

Times are in milliseconds here, as in the rest of ``status``; in the metrics they are seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from flexha.fastpath import SyncStats, lag_bounds_us

HISTOGRAMS = ("lag", "hold")


@cache
def bounds_us() -> tuple[int, ...]:
    """Upper ends of the histograms' buckets but for the last, which has none."""
    return lag_bounds_us()


@dataclass(frozen=True, slots=True)
class Totals:
    """``SyncStats`` of all workers as one. ``lost_shards``: a bit each."""

    lost_shards: int
    numbers: Mapping[str, int]
    """Gauges and counters, added up."""
    lag: tuple[int, ...]
    hold: tuple[int, ...]

    @classmethod
    def of(cls, workers: Sequence[SyncStats]) -> Totals:
        """Add up."""
        lost = 0
        for stats in workers:
            lost |= stats.lost_shards
        return cls(
            lost_shards=lost,
            numbers={
                name: sum(getattr(stats, name) for stats in workers)
                for name in SyncStats.__dataclass_fields__
                if name != "lost_shards" and name not in HISTOGRAMS
            },
            lag=tuple(map(sum, zip(*(stats.lag for stats in workers), strict=True))),
            hold=tuple(map(sum, zip(*(stats.hold for stats in workers), strict=True))),
        )


def quantile_ms(counts: Sequence[int], share: float) -> float | None:
    """Upper end of the bucket that the ``share`` of all falls into; None: it has none, or there are none."""
    wanted, seen = share * sum(counts), 0
    for bound, count in zip(bounds_us(), counts, strict=False):
        seen += count
        if seen and seen >= wanted:
            return round(bound / 1000, 3)
    return None


def _times(counts: Sequence[int]) -> dict[str, object]:
    return {"count": sum(counts), "p50": quantile_ms(counts, 0.5), "p99": quantile_ms(counts, 0.99)}


def report(core: Mapping[str, Any], totals: Totals, mode: str) -> dict[str, object]:
    """``sync`` of ``flexhactl status``: the core's share, and the fast path's."""
    n = totals.numbers
    done, total = n["sweep_done"], n["sweep_total"]
    percent = 100.0 * min(done, total) / total if total else 0.0
    return {
        **core,
        "lost_shards": max(core.get("lost_shards", 0), totals.lost_shards.bit_count()),
        "sweep": {**core.get("sweep", {}), "done": done, "total": total, "percent": round(percent, 1)},
        "queued": {"now": n["queued"], "lazy": n["queued_lazy"]},
        "told": {op: n[f"told_{op}"] for op in ("open", "state", "rest", "delete")},
        "repaired_records": n["repaired"],
        "import_unknown": n["import_unknown"],
        "scrub_errors": n["scrub_errors"],
        "commit": {
            "mode": mode,
            "on": bool(core.get("committing")),
            "degraded": n["degraded"] > 0,
            "degraded_times": n["degraded_times"],
            "unacked_sessions": n["unacked_sessions"],
            "held_sessions": n["held_sessions"],
            "held_frames": n["held_frames"],
            "held_bytes": n["held_bytes"],
            "released": n["hold_released"],
            "expired": n["hold_expired"],
            "full": n["hold_full"],
            "dropped": n["hold_dropped"],
            "unheld": n["hold_unheld"],
        },
        "lag_ms": _times(totals.lag),
        "hold_ms": _times(totals.hold),
    }
