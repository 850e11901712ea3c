# SPDX-License-Identifier: Apache-2.0
"""How much of the tables lies on huge pages is said at start. Spec: F1."""

from __future__ import annotations

from typing import Any

import pytest

from flexha.shell import log, memory
from flexha.shell.memory import Anonymous, report_tables

ROLLUP = """\
55d0c0000000-7ffd9a5ff000 ---p 00000000 00:00 0                          [rollup]
Rss:               50000 kB
Anonymous:         42128 kB
AnonHugePages:     38912 kB
"""


def test_rollup_is_read() -> None:
    assert Anonymous.parse(ROLLUP) == Anonymous(42128, 38912)
    assert Anonymous.parse("55d0-7ffd [rollup]\nAnonymous: 12 kB\n") == Anonymous(12, 0)


def test_this_process_has_memory() -> None:
    assert Anonymous.now().total_kib > 1000


@pytest.mark.parametrize(
    ("after", "level", "covered"),
    [
        (Anonymous(33768, 32768), "info", "100%"),
        (Anonymous(33768, 16384), "warning", "50%"),
        (Anonymous(33768, 0), "warning", "0%"),
        (Anonymous(1000, 0), "warning", "0%"),
    ],
)
def test_poor_coverage_is_a_warning(
    after: Anonymous, level: str, covered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, str, dict[str, Any]]] = []
    for name in ("info", "warning"):
        monkeypatch.setattr(
            log, name, lambda event, _name=name, **fields: said.append((_name, event, fields))
        )
    report_tables(Anonymous(1000, 0), after)
    ((how, event, fields),) = said
    assert (how, event, fields["huge_pages"]) == (level, "memory.tables", covered)
    assert memory.COVERED_MIN > 0.5


@pytest.mark.parametrize(
    ("capable", "limit", "may"),
    [("0000000000003000", -1, True), ("0000000000004000", 65536, True), ("0000000000003000", 65536, False)],
    ids=["no limit", "capable", "neither"],
)
def test_memory_is_locked_only_where_nothing_is_in_the_way(capable: str, limit: int, may: bool) -> None:
    """At a limit the next allocation would fail, which is worse than a late page."""
    assert memory.may_lock(f"Name:\tflexhad\nCapEff:\t{capable}\n", limit) is may
