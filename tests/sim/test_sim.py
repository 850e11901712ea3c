# SPDX-License-Identifier: Apache-2.0
"""Seeded schedules of faults on two cores; what must hold is in ``world.py``. Spec: R13, R19, R22, B4.

A fixed set runs, and one new schedule; ``make sim`` runs many new ones, ``make sim SEED=n`` repeats one.
"""

from __future__ import annotations

import time

import pytest
from sim.examine import examine, simulate
from sim.faults import KINDS, Fault, Plan, plan
from sim.host import SimulationError

from flexha.core import role
from flexha.core.events import Fenced, Role
from flexha.core.heartbeat import PeerChanged, PeerFound
from flexha.core.table import Ignore

FIXED = range(0, 200, 50)
"""First seeds of the fixed schedules, fifty a test."""


def hold(first: int, runs: int) -> None:
    for seed in range(first, first + runs):
        failure = examine(seed)
        if failure is not None:
            pytest.fail(failure, pytrace=False)


@pytest.mark.parametrize("first", FIXED)
def test_fixed(first: int) -> None:
    hold(first, 50)


def test_new() -> None:
    """Schedules that nobody has seen; the seed of one that fails is in the message."""
    first = time.time_ns() % 1_000_000_000 + 1000
    print(f"fresh seeds {first} to {first + 49}")
    hold(first, 50)


def test_a_seed_names_a_run() -> None:
    """The same seed makes the same run, step for step."""

    def story(seed: int) -> list[object]:
        return [process.history for process in simulate(seed).nodes if process is not None]

    assert story(7) == story(7)


def test_the_schedules_reach_the_hard_places() -> None:
    """Weights drift unseen: over some seeds every kind of fault, and every role, must have happened."""
    kinds: set[str] = set()
    for seed in range(200):
        kinds |= {fault.kind for fault in plan(seed).faults}
    assert kinds == set(KINDS)
    missing = {"elected", "no-peer", "handover", "synced", "higher-term"}
    missing |= {"peer-silent", "peer-died", "peer-confirmed", "peer-hung", "peer-bye"}
    seeds = iter(range(200))
    while missing:
        missing -= set(simulate(next(seeds)).judge.reasons)


def test_a_life_follows_another_that_nobody_saw_end() -> None:
    """With the cross-connect cut the life line cannot say so; the next life does."""
    faults = [
        Fault(8000.0, "cut", "a", "xc", 2, 0.5),
        Fault(9000.0, "quick-restart", "active", "lan", 2, 0.1),
    ]
    world = simulate(Plan(5, 12_000.0, is_patient=False, faults=faults))
    assert "peer-restarted" in world.judge.reasons


def test_a_mended_disk_has_written_what_was_under_way() -> None:
    """Two slow writes wait, one behind the other, when it is mended: an operator's answer waits no longer."""
    faults = [
        Fault(11600.0, "disk-slow", "a", "xc", 2, 0.8204633414607073),
        Fault(13340.0, "maintenance-enter", "active", "lan", 2, 0.5),
    ]
    simulate(Plan(6183, 15_000.0, is_patient=True, faults=faults))


def test_a_broken_core_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge is awake: a node that ignores a higher term is caught."""
    for event in (PeerFound, PeerChanged, Fenced):
        monkeypatch.setitem(role.TABLE._cells, (Role.ACTIVE, event), Ignore("broken on purpose"))
    with pytest.raises(SimulationError):
        for seed in range(40):
            simulate(seed)
