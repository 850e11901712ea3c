# SPDX-License-Identifier: Apache-2.0
"""A failure scenario: what is done, what must hold, what came of it, and whether it holds.

Nothing here runs anything: ``scenarios.py`` does. A scenario goes through its fault several times; each of
them is a ``Trial`` with figures by name, and a ``Bar`` says of one figure how large or small it may be. What
cannot be a figure (a byte that was wrong, a table that differs) is a finding: one is enough to fail.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from report import Run

if TYPE_CHECKING:
    from scenario_stage import Stage

Figures = dict[str, float]


class Over(StrEnum):
    """Which value of a figure a bar is held against."""

    EACH = "each"
    """That of every trial: the worst one decides."""
    MEDIAN = "median"
    """The middle one of all trials."""
    SUM = "sum"
    """All trials together."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must be at most, or at least."""

    figure: str
    limit: float
    over: Over = Over.EACH
    at_least: bool = False
    of_some: bool = False
    """Not every trial has this figure; any other bar is missed by a trial without its figure."""

    def measured(self, values: Sequence[float]) -> float | None:
        """The value that decides; None if there is none."""
        if not values:
            return None
        match self.over:
            case Over.EACH:
                return min(values) if self.at_least else max(values)
            case Over.MEDIAN:
                return statistics.median(values)
            case Over.SUM:
                return sum(values)

    def holds(self, values: Sequence[float]) -> bool:
        """Whether it is met; what was never measured is not."""
        value = self.measured(values)
        return value is not None and (value >= self.limit if self.at_least else value <= self.limit)

    @property
    def text(self) -> str:
        """As the table has it."""
        over = "" if self.over is Over.EACH else f" ({self.over})"
        return f"{self.figure}{over} {'>=' if self.at_least else '<='} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Trial:
    """The fault happened once."""

    number: int
    figures: Figures
    findings: tuple[str, ...]
    """What is wrong and is no figure; empty if nothing is."""
    run: Run | None = None
    """The traffic and both nodes' decisions, where this was the traffic of every scenario."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """What else the JSON tells of it."""

    def as_json(self) -> dict[str, Any]:
        """A run as ``failover.json`` has it, with the figures that the bars are about."""
        told = {} if self.run is None else self.run.as_json()
        figures = {name: round(value, 3) for name, value in self.figures.items()}
        return {**told, **self.more, "figures": figures, "findings": list(self.findings)}


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar and what was measured against it."""

    bar: Bar
    values: tuple[float, ...]
    without: tuple[int, ...] = ()
    """Trials in which it was not measured."""

    @property
    def holds(self) -> bool:
        """Whether the bar is met, by every trial."""
        return self.bar.holds(self.values) and not self.without

    @property
    def measured(self) -> str:
        """The deciding value, and how far the others are from it."""
        value = self.bar.measured(self.values)
        if value is None:
            return "nothing"
        low, high = min(self.values), max(self.values)
        spread = "" if low == high else f" ({low:.4g} .. {high:.4g})"
        without = f", nothing in run {', '.join(map(str, self.without))}" if self.without else ""
        return f"{value:.4g}{spread}{without}"


@dataclass(frozen=True, slots=True)
class Settings:
    """The lab that a scenario needs."""

    keys: tuple[tuple[str, str], ...] = ()
    """Section of the pair's file -> lines that are added to it."""
    tail: str = ""
    """Comes after all of that file."""
    routed: bool = False
    """The clients are behind a router that speaks BGP with both nodes."""


Play = Callable[["Stage", int], Iterator[Trial]]
"""Goes through the fault so many times, and tells of each."""
Count = Callable[[int, bool], int]
"""Trials of so many runs, played short or not."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A row of the table."""

    name: str
    requirements: tuple[str, ...]
    row: str
    """What happens, in a sentence."""
    bars: tuple[Bar, ...]
    play: Play
    runs: int = 3
    """Trials if nobody says how many."""
    runs_short: int = 1
    count: Count = lambda runs, _: runs
    """How many trials its play must come to."""
    settings: Settings = Settings()
    boxed: bool = False
    """It depends on how the ports are made, and is played in topology ``bridges`` too."""
    summary: Callable[[Sequence[Trial]], Figures] | None = None
    """Figures of all trials together; a bar finds them beside those of each trial."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A scenario that was played."""

    name: str
    requirements: tuple[str, ...]
    row: str
    topology: str
    timers: Mapping[str, int]
    bars: tuple[Bar, ...]
    trials: tuple[Trial, ...]
    wanted: int
    """Trials that should have come to their end."""
    broken: str = ""
    """Why the scenario did not come to its end."""
    figures: Figures = field(default_factory=dict)
    """Of all trials together."""
    seconds: float = 0.0
    short: bool = False
    """Less often, and what takes long for less long, than the row says."""
    played: str = ""
    """When it ended, RFC 3339, UTC."""
    tree: str = ""
    """Of which commit it is."""
    retried: tuple[str, ...] = ()
    """What it missed the first time, and was played again for."""

    @property
    def title(self) -> str:
        """Its name, with the topology where that is not the plain one."""
        return self.name if self.topology == "plain" else f"{self.name}@{self.topology}"

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of each bar."""
        return tuple(Verdict(bar, self._values(bar.figure), self._without(bar)) for bar in self.bars)

    def _values(self, figure: str) -> tuple[float, ...]:
        if figure in self.figures:
            return (self.figures[figure],)
        return tuple(trial.figures[figure] for trial in self.trials if figure in trial.figures)

    @property
    def failed_bars(self) -> tuple[str, ...]:
        """What does not hold, in words; empty if all does."""
        failed = [f"lab: {self.broken}"] if self.broken else []
        if len(self.trials) != self.wanted:
            failed.append(f"runs: {len(self.trials)} of {self.wanted} came to their end")
        failed += [f"run {trial.number}: {finding}" for trial in self.trials for finding in trial.findings]
        failed += [f"{v.bar.text}: measured {v.measured}" for v in self.verdicts if not v.holds]
        return tuple(failed)

    def _without(self, bar: Bar) -> tuple[int, ...]:
        """Trials that have no such figure; the others cannot meet the bar for them."""
        if bar.of_some or bar.figure in self.figures:
            return ()
        return tuple(trial.number for trial in self.trials if bar.figure not in trial.figures)

    @property
    def passed(self) -> bool:
        """Everything holds."""
        return not self.failed_bars

    def as_json(self) -> dict[str, Any]:
        """The content of ``<scenario>.json``: the keys of ``failover.json``, and the bars."""
        return {
            "scenario": self.name,
            "topology": self.topology,
            "requirements": list(self.requirements),
            "row": self.row,
            "timers": dict(self.timers),
            "bars": [
                {"bar": v.bar.text, "measured": v.measured, "holds": v.holds, "values": list(v.values)}
                for v in self.verdicts
            ],
            "figures": self.figures,
            "wanted": self.wanted,
            "broken": self.broken,
            "runs": [trial.as_json() for trial in self.trials],
            "short": self.short,
            "played": self.played,
            "tree": self.tree,
            "retried": list(self.retried),
            "seconds": round(self.seconds, 1),
            "passed": self.passed,
            "failed_bars": list(self.failed_bars),
        }
