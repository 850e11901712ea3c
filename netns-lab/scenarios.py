# SPDX-License-Identifier: Apache-2.0
"""Every failure of the table in ``README.md``: ``make lab-scenarios``.

Scenarios that need the same settings share a lab; one that broke leaves none behind.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import scenarios_conduit
import scenarios_cut
import scenarios_death
import scenarios_link
import scenarios_planned
import scenarios_routed
import scenarios_stall
import scenarios_steady
import scenarios_storm
import scenarios_vrrp
import topo
from failover import shown, timers
from pyroute2.netlink.exceptions import NetlinkError
from rich.console import Console
from sandbox import BUILD_DIR, REPOSITORY, LabError
from scenario import Outcome, Scenario, Settings, Trial
from scenario_page import keep, write_index
from scenario_report import print_table
from scenario_stage import Stage
from traffic import compile_programs

ALL: tuple[Scenario, ...] = (
    *scenarios_steady.SCENARIOS,
    *scenarios_conduit.SCENARIOS,
    *scenarios_death.SCENARIOS,
    *scenarios_cut.SCENARIOS,
    *scenarios_link.SCENARIOS,
    *scenarios_routed.SCENARIOS,
    *scenarios_stall.SCENARIOS,
    *scenarios_planned.SCENARIOS,
    *scenarios_storm.SCENARIOS,
    *scenarios_vrrp.SCENARIOS,
)
ON_DEMAND = (scenarios_steady.SOAK,)
"""Played only when they are named."""
KNOWN = tuple(scenario.name for scenario in (*ALL, *ON_DEMAND))
"""Names, in the table's order."""


def chosen(names: Sequence[str]) -> list[Scenario]:
    """Those that are named, in the table's order; a name may be the first part of several.

    If none is: all that depend on the topology, or in the plain one just all.
    """
    known = (*ALL, *ON_DEMAND)
    for name in names:
        if not any(_named(scenario, name) for scenario in known):
            raise LabError(f"no scenario {name!r}: choose of {', '.join(s.name for s in known)}")
    return [s for s in known if any(_named(s, name) for name in names)] if names else _usual()


def _usual() -> list[Scenario]:
    return [scenario for scenario in ALL if scenario.boxed or topo.topology() == "plain"]


def _named(scenario: Scenario, name: str) -> bool:
    return scenario.name == name or scenario.name.startswith(f"{name}-")


class Theatre:
    """Plays scenarios one after the other, each on a stage with its settings."""

    def __init__(self, console: Console, directory: Path, *, short: bool) -> None:
        self._console = console
        self._directory = directory
        self._short = short
        self._tree = tree()
        self._stages = contextlib.ExitStack()
        self._stage: Stage | None = None

    def play(self, scenario: Scenario, runs: int | None) -> Outcome:
        """All its trials, or what came of them until something broke."""
        runs = runs or (scenario.runs_short if self._short else scenario.runs)
        trials: list[Trial] = []
        broken = ""
        began = time.monotonic()
        try:
            stage = self._stage_for(scenario.settings)
            for trial in scenario.play(stage, runs):
                trials.append(trial)
                self._tell(scenario, trial)
        except (LabError, NetlinkError, OSError, ValueError, LookupError) as error:
            broken = f"{type(error).__name__}: {error}" if not isinstance(error, LabError) else str(error)
            self.close()
        config = self._config(scenario.settings)
        return Outcome(
            name=scenario.name,
            requirements=scenario.requirements,
            topology=topo.topology(),
            row=scenario.row,
            timers=timers(config) if config.exists() else {},
            bars=scenario.bars,
            trials=tuple(trials),
            wanted=scenario.count(runs, self._short),
            broken=broken,
            figures=scenario.summary(trials) if scenario.summary is not None else {},
            seconds=time.monotonic() - began,
            short=self._short,
            played=datetime.now(UTC).isoformat(timespec="seconds"),
            tree=self._tree,
        )

    def close(self) -> None:
        """End the lab that stands, if one does."""
        self._stage = None
        with contextlib.suppress(LabError, OSError):
            self._stages.close()

    def _stage_for(self, settings: Settings) -> Stage:
        if self._stage is None or self._stage.settings != settings:
            self.close()
            self._stage = self._stages.enter_context(
                Stage.started(self._directory_of(settings), settings, short=self._short, say=self._say)
            )
        return self._stage

    def _directory_of(self, settings: Settings) -> Path:
        words = [line.split("=")[-1].strip(' "') for _, lines in settings.keys for line in lines.splitlines()]
        words = ["routed", *words] if settings.routed else words
        return self._directory / topo.topology() / ("-".join(words[:2]).replace("/", "_") or "default")

    def _config(self, settings: Settings) -> Path:
        return self._directory_of(settings) / "pair.toml"

    def _say(self, text: str) -> None:
        self._console.print(f"  {text}", highlight=False, style="dim")

    def _tell(self, scenario: Scenario, trial: Trial) -> None:
        barred = {bar.figure for bar in scenario.bars}
        figures = ", ".join(f"{name} {value:.4g}" for name, value in trial.figures.items() if name in barred)
        found = f"; {len(trial.findings)} findings" if trial.findings else ""
        self._console.print(f"{scenario.name} {trial.number}: {figures}{found}", highlight=False)


def tree() -> str:
    """Which commit this is, and whether something is not committed; empty if it is no clone."""
    argv = ["git", "-C", str(REPOSITORY), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


@contextlib.contextmanager
def theatre(console: Console, directory: Path, *, short: bool) -> Iterator[Theatre]:
    """One that leaves no lab behind."""
    playing = Theatre(console, directory, short=short)
    try:
        yield playing
    finally:
        playing.close()


def main(names: Sequence[str], runs: int | None, *, short: bool) -> int:
    """Play them, print the table, write JSON and page; 1 if a bar fails."""
    scenarios = chosen(names)
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "120")))
    directory = BUILD_DIR / "scenarios"
    compile_programs()
    outcomes: list[Outcome] = []
    with theatre(console, directory, short=short) as playing:
        for scenario in scenarios:
            console.print(f"[bold]{scenario.name}[/]: {scenario.row}", highlight=False)
            outcomes.append(playing.play(scenario, runs))
            keep(outcomes[-1], BUILD_DIR)
    index = write_index(BUILD_DIR, KNOWN)
    print_table(console, outcomes)
    console.print(f"{shown(index)}, {shown(BUILD_DIR)}/<scenario>.json", highlight=False)
    console.print(f"logs: {shown(directory)}", highlight=False)
    return 0 if all(outcome.passed for outcome in outcomes) else 1
