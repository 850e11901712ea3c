# SPDX-License-Identifier: Apache-2.0
"""What is said of output commit: each change once, drops once a burst."""

from __future__ import annotations

import logging
from dataclasses import fields

import pytest

from flexha.fastpath import SyncStats
from flexha.shell.commit_watch import BURST_S, CommitWatch
from flexha.shell.history import History

NOTHING = {field.name: () if field.name in {"lag", "hold"} else 0 for field in fields(SyncStats)}


def stats(**values: int) -> SyncStats:
    return SyncStats(**{**NOTHING, **values})  # type: ignore[arg-type]


class Watched:
    """The watch, and the lines that it has logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self.history = History("a")
        self._watch = CommitWatch(None, self.history)  # type: ignore[arg-type]
        self._caplog = caplog
        self._now_s = 100.0

    def look(self, *workers: SyncStats, later_s: float = 1.0) -> list[tuple[str, dict[str, object]]]:
        self._now_s += later_s
        self._caplog.clear()
        with self._caplog.at_level(logging.INFO, logger="flexha"):
            self._watch.look(workers, self._now_s)
        return [(record.getMessage(), vars(record)["fields"]) for record in self._caplog.records]


@pytest.fixture
def watched(caplog: pytest.LogCaptureFixture) -> Watched:
    return Watched(caplog)


def test_degrading_and_recovering_are_said_once(watched: Watched) -> None:
    """Spec: B1."""
    assert watched.look(stats(), stats()) == []
    slow = stats(degraded=1, degraded_times=1)
    assert watched.look(stats(), slow) == [("commit.degraded", {"workers": [1], "times": 1})]
    assert watched.look(stats(), slow) == []
    assert watched.look(stats(), stats(degraded_times=1)) == [("commit.recovered", {"workers": [1]})]
    assert watched.look(stats(), stats(degraded_times=1)) == []
    events = [record["event"] for record in watched.history.records()]
    assert events == ["commit-degraded", "commit-recovered"]


def test_what_was_over_before_anybody_looked_is_said_as_well(watched: Watched) -> None:
    """Spec: B1."""
    assert watched.look(stats(degraded_times=2)) == [("commit.degraded", {"workers": [], "times": 2})]


def test_drops_are_said_once_a_burst_and_all_are_counted(watched: Watched) -> None:
    """Spec: B1: strict says what it drops."""
    first = watched.look(stats(hold_dropped=3), stats(hold_full=1))
    assert first == [("commit.dropped", {"waited_in_vain": 3, "no_room": 1})]
    assert watched.look(stats(hold_dropped=9), stats(hold_full=1)) == []
    later = watched.look(stats(hold_dropped=10), stats(hold_full=2), later_s=BURST_S)
    assert later == [("commit.dropped", {"waited_in_vain": 7, "no_room": 1})]
    assert watched.look(stats(hold_dropped=10), stats(hold_full=2), later_s=BURST_S) == []


def test_packets_that_left_late_are_said_once_a_burst(watched: Watched) -> None:
    """Spec: B1."""
    first = watched.look(stats(hold_expired=2, hold_unheld=5))
    assert first == [("commit.late", {"packets": 2, "sessions_not_held": 5})]
    assert watched.look(stats(hold_expired=4, hold_unheld=5)) == []
    later = watched.look(stats(hold_expired=4, hold_unheld=6), later_s=BURST_S)
    assert later == [("commit.late", {"packets": 2, "sessions_not_held": 1})]


def test_a_digest_that_was_wrong_is_an_event_of_the_history(watched: Watched) -> None:
    """Spec: B5."""
    assert watched.look(stats(scrub_errors=1)) == [("audit.scrub_error", {"shards": 1})]
    (record,) = watched.history.records()
    assert (record["event"], record["shards"]) == ("audit-scrub-error", 1)
