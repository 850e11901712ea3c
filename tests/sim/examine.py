# SPDX-License-Identifier: Apache-2.0
"""One schedule, by its seed: whether it holds, and if not, how little of it is enough to fail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sim.chance import Chance
from sim.faults import Plan, plan
from sim.world import World

STORIES = Path(__file__).resolve().parents[1] / "transcript"


def simulate(what: int | Plan, *, verbose: bool = False) -> World:
    """One schedule. Raises SimulationError."""
    schedule = plan(what) if isinstance(what, int) else what
    world = World(Chance(schedule.seed), verbose=verbose)
    world.run(schedule)
    return world


def examine(seed: int, *, verbose: bool = False) -> str | None:
    """None if the schedule of ``seed`` holds; else how it fails, what it takes, and how to see it again."""
    try:
        simulate(seed, verbose=verbose)
    except Exception as error:  # noqa: BLE001 - whatever a schedule raises is reported with its seed
        least, message = shrink(plan(seed))
        lines = [
            f"seed {seed}: {type(error).__name__}: {error}",
            f"repeat with: make sim SEED={seed}",
            f"shrunk to {len(least.faults)} faults ({message}):",
            *(f"  {fault}" for fault in least.faults),
            f"as a story: {write_story(least, message)}",
        ]
        return "\n".join(lines)
    return None


def write_story(schedule: Plan, message: str) -> Path:
    """A failing schedule as a transcript; how it ends is for ``--rewrite``, once the cause is mended."""
    path = STORIES / f"found_{schedule.seed}.txt"
    lines = [
        f"# Found by the simulator, seed {schedule.seed}: {message}"[:110],
        f"seed {schedule.seed}",
        *(f"at {f.at_ms:g} {f.kind} {f.node} {f.path} {f.direction} {f.amount!r}" for f in schedule.faults),
        f"judge {schedule.chaos_ms:g}",
        "----",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def failure(schedule: Plan) -> str | None:
    """How it fails, if it does."""
    try:
        simulate(schedule)
    except Exception as error:  # noqa: BLE001 - whatever it raises is what is being looked for
        return f"{type(error).__name__}: {error}"
    return None


def shrink(schedule: Plan) -> tuple[Plan, str]:
    """The least that still fails: faults taken away, then what is left made plain. And how it fails."""
    message = failure(schedule) or "does not fail"
    done = False
    while not done:
        done = True
        for candidate in simpler(schedule):
            found = failure(candidate)
            if found is not None:
                schedule, message, done = candidate, found, False
                break
    return schedule, message


def simpler(schedule: Plan) -> Iterator[Plan]:
    """Schedules with a little less in them, the boldest first."""
    faults = list(schedule.faults)
    for i in range(len(faults)):
        yield replace(schedule, faults=faults[:i] + faults[i + 1 :])
    if not schedule.is_patient:
        yield replace(schedule, is_patient=True)
    for i, fault in enumerate(faults):
        for plainer in (
            replace(fault, at_ms=float(round(fault.at_ms, -2))),
            replace(fault, at_ms=float(round(fault.at_ms, -1))),
            replace(fault, at_ms=float(round(fault.at_ms))),
            replace(fault, direction=2),
            replace(fault, amount=0.5),
            replace(fault, amount=round(fault.amount, 1)),
        ):
            if plainer != fault:
                changed = [*faults[:i], plainer, *faults[i + 1 :]]
                yield replace(schedule, faults=sorted(changed, key=lambda f: f.at_ms))
