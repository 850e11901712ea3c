# SPDX-License-Identifier: Apache-2.0
"""Every row of ``make lab-scenarios``, played short: real daemons, real traffic, the row's own bars.

Rows whose labs have the same settings are played one after the other in one lab. ``vrrp-peers`` is
``test_vrrp_peers``. What came of each is in ``build/lab/<scenario>.json``, as the command has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import topo
from netns.conftest import LOG_DIR
from rich.console import Console
from sandbox import BUILD_DIR
from scenario import Bar, Outcome, Over, Scenario
from scenario_page import keep, write_index
from scenarios import ALL, KNOWN, Theatre, theatre
from scenarios_vrrp import SCENARIOS as VRRP
from traffic import compile_programs

SETTINGS = list(dict.fromkeys(scenario.settings for scenario in ALL))
ROWS = sorted(
    (scenario for scenario in ALL if scenario not in VRRP),
    key=lambda scenario: SETTINGS.index(scenario.settings),
)
ON_BOXES = [scenario for scenario in ROWS if scenario.name in ("death-links", "wan-down", "lan-down")]
"""Played with a bridge and a NIC at each port of a node, too. ``TOPOLOGY=bridges`` plays all such rows."""
MORE_RUNS = 2

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stages() -> Iterator[Theatre]:
    compile_programs()
    with theatre(Console(quiet=True), LOG_DIR / "scenarios", short=True) as playing:
        yield playing
    write_index(BUILD_DIR, KNOWN)


@pytest.fixture(scope="module")
def boxes(stages: Theatre) -> Iterator[Theatre]:
    stages.close()  # one lab at a time
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(topo.TOPOLOGY_VARIABLE, "bridges")
        with theatre(Console(quiet=True), LOG_DIR / "scenarios", short=True) as playing:
            yield playing
        write_index(BUILD_DIR, KNOWN)


def is_time(bar: Bar) -> bool:
    """It is about how long something takes, which depends on who else has the CPU."""
    return bar.figure.endswith(("_ms", "_s")) or bar.figure in ("lost_there", "large_by_small")


def late_only(outcome: Outcome) -> bool:
    """All that must hold whatever the machine does holds."""
    return replace(outcome, bars=tuple(bar for bar in outcome.bars if not is_time(bar))).passed


def degraded(outcome: Outcome) -> bool:
    """A peer was slower than ``hold_ms``, and commit went on without it: what is lost then is as promised."""
    return any(trial.figures.get("degraded") for trial in outcome.trials)


def of_all(scenario: Scenario, first: Outcome, more: Outcome) -> Outcome:
    """The trials of both; a time is the middle one of all."""
    trials = first.trials + more.trials
    bars = tuple(replace(bar, over=Over.MEDIAN) if is_time(bar) else bar for bar in first.bars)
    return replace(
        more,
        bars=bars,
        trials=trials,
        wanted=first.wanted + more.wanted,
        figures=scenario.summary(trials) if scenario.summary is not None else {},
        seconds=first.seconds + more.seconds,
    )


def play(stages: Theatre, scenario: Scenario) -> Outcome:
    """A machine of continuous integration is shared, and may stand still for longer than a row's time. So one
    time that is too long is not believed alone: the row is played twice more, and the middle one of all
    counts. A session that was lost, a frame too many, or a role that moved is believed at once, unless commit
    had degraded by then: that row is played once more, and counts. ``retried`` is what was missed at first.
    """
    first = outcome = stages.play(scenario, None)
    if not outcome.passed and late_only(outcome):
        if scenario.summary is not None:
            stages.close()  # what was opened the first time is a part of the large table
        outcome = of_all(scenario, outcome, stages.play(scenario, MORE_RUNS))
    elif not outcome.passed and degraded(outcome):
        outcome = stages.play(scenario, None)
    outcome = replace(outcome, retried=first.failed_bars if outcome is not first else ())
    keep(outcome, BUILD_DIR)
    return outcome


@pytest.mark.parametrize("scenario", ROWS, ids=lambda scenario: scenario.name)
def test_row(stages: Theatre, scenario: Scenario) -> None:
    """Spec: R5, R8, R9, R13, R14, R15, R16, R17, R18, B2, B3."""
    assert play(stages, scenario).failed_bars == ()


@pytest.mark.parametrize("scenario", ON_BOXES, ids=lambda scenario: scenario.name)
def test_row_on_boxes(boxes: Theatre, scenario: Scenario) -> None:
    """Spec: R8, R13, R14."""
    outcome = play(boxes, scenario)
    assert outcome.topology == "bridges"
    assert outcome.failed_bars == ()
