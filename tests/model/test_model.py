# SPDX-License-Identifier: Apache-2.0
"""The role machine in small worlds, checked with spin; and that what was checked is the core. Spec: B9.

``make model`` checks all worlds; here are the quickest.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from model import promela
from model.role_table import Answer, Kind, RoleTable, Timer, attributes, cut, initial, step

from flexha.core.events import Role
from flexha.core.role_state import RoleState
from flexha.units import Ns

SEEDS = range(12)
WALKED = ("crashes", "planned", "stop", "hang-crash", "cut-crash")


@pytest.mark.parametrize("world", ["crash", "cut", "planned"])
def test_no_order_of_events_breaks_the_pair(world: str, tmp_path: Path) -> None:
    report = promela.check(world, tmp_path / world)
    assert report.errors == 0, (report.fault, (tmp_path / world / "trace.txt").read_text())
    assert report.complete
    assert not report.endless, (tmp_path / world / "trace.txt").read_text()
    assert report.states > 1000


class BrokenTable(RoleTable):
    """Whoever reigns is deaf to the peer's higher term."""

    def _compute(self, state: RoleState, event: int) -> Answer:
        answer = super()._compute(state, event)
        deaf = Kind(event & 31) in (Kind.FENCED, Kind.FOUND, Kind.CHANGED)
        if state.role is Role.ACTIVE and deaf and self.states[answer.state].role is not Role.ACTIVE:
            return Answer(self.number(state), attributes(state))
        return answer


def test_spin_finds_a_broken_core(tmp_path: Path) -> None:
    report = promela.check("cut", tmp_path / "cut", BrokenTable())
    assert report.errors == 1
    assert report.fault == "stuck", "it is fenced for ever, and believes that it reigns"
    assert "cut" in (tmp_path / "cut" / "trace.txt").read_text()


class RestlessTable(RoleTable):
    """Whoever waits before an election waits once more, for ever."""

    def _compute(self, state: RoleState, event: int) -> Answer:
        if Kind(event & 31) is Kind.TIMER and event >> 5 == Timer.HOLD:
            return Answer(self.number(state), attributes(state))
        return super()._compute(state, event)


def test_spin_finds_a_core_that_never_comes_to_rest(tmp_path: Path) -> None:
    report = promela.check("cut", tmp_path / "cut", RestlessTable())
    assert report.errors == 0, "that nobody reigns would be seen at rest only"
    assert report.endless
    assert "hold" in (tmp_path / "cut" / "trace.txt").read_text()


@pytest.mark.parametrize("world", WALKED)
def test_the_whole_core_goes_where_the_model_goes(world: str, tmp_path: Path) -> None:
    """Random walks, replayed with every deadline and all that the model cuts away."""
    table, folder = RoleTable(), tmp_path / world
    promela.walker(world, folder)
    steps = sum(replay(promela.run(["./walk", str(seed)], folder, table), table) for seed in SEEDS)
    assert steps > 15 * len(SEEDS)


def replay(walk: str, table: RoleTable) -> int:
    """How many events both took, to the same states."""
    nodes = {index: initial(index) for index in (0, 1)}
    lines = [line.split() for line in walk.splitlines()]
    *path, end, _count = lines
    assert end[:2] == ["end", "0"], walk
    now = Ns(1)
    for index, event, number in (map(int, line) for line in path):
        if number < 0:
            break
        before = initial(index) if event & 31 == Kind.STARTED else nodes[index]
        now = Ns(now + 1000)
        nodes[index], _ = step(before, event, now)
        assert cut(nodes[index]) == table.states[number], (now, index, Kind(event & 31))
    return len(path)
