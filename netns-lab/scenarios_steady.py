# SPDX-License-Identifier: Apache-2.0
"""Nothing happens, and nothing must: steady traffic; and load that must not look like a death."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import topo
from sandbox import now_ns, wait_until
from scenario import Bar, Figures, Play, Scenario, Settings, Trial
from scenario_stage import Stage, repeated

STEADY_S, STEADY_SHORT_S = 20.0, 5.0
SOAK_S = 60.0
LONG_SOAK_S = 600.0
UNHARMED = (
    Bar("sessions_lost", 0),
    Bar("lost", 0),
    Bar("duplicated", 0),
)
IN_ORDER = Bar("reordered", 0)
BUSY_MIN, LOADED_MIB_MIN = 0.95, 1000
"""Of all cores' time, and of what the downloads have fetched: below that it was no load."""
LOADED = (Bar("busy", BUSY_MIN, at_least=True), Bar("loaded_mib", LOADED_MIB_MIN, at_least=True))
AGGRESSIVE = Settings(keys=(("ha", "interval_ms = 5\ndead_after = 3"),))


def steady_on_active(stage: Stage, number: int) -> Trial:
    """Frames come to the node that forwards them."""
    seconds = STEADY_SHORT_S if stage.short else STEADY_S
    active = stage.settle()
    with stage.trial(number, active, "nothing happens", download_s=seconds + 4) as trial:
        trial.fault_ns = now_ns()
        pass_time(trial.fault_ns, seconds)
        return trial.end()


def pass_time(since_ns: int, seconds: float) -> None:
    """Until so long after a moment."""
    wait_until(lambda: now_ns() - since_ns > seconds * 1e9, seconds + 30, "time has passed")


def cpu_ticks() -> tuple[int, int]:
    """What all cores have done since the machine began: idle (it waits, too), and everything."""
    first = Path("/proc/stat").read_text().splitlines()[0]
    ticks = [int(word) for word in first.split()[1:9]]  # the guests' are in the users' already
    return ticks[3] + ticks[4], sum(ticks)


class Load:
    """What a load has come to since it began."""

    def __init__(self, fetched: Path) -> None:
        self._fetched = fetched
        self._idle, self._all = cpu_ticks()

    def figures(self) -> Figures:
        """How busy all cores were, and what was downloaded: whole files only."""
        idle, everything = cpu_ticks()
        fetched = sum(map(int, self._fetched.read_text().split()))
        return {
            "busy": 1 - (idle - self._idle) / max(everything - self._all, 1),
            "loaded_mib": fetched / (1 << 20),
        }


@contextlib.contextmanager
def full_load(stage: Stage) -> Iterator[Load]:
    """All cores have more to do than they can: programs that spin, and downloads as fast as they go."""
    spin = ["sh", "-c", "while :; do :; done"]
    curl = "curl --silent --output /dev/null --write-out '%{size_download}\\n'"
    fetch = f"while :; do {curl} 'http://{topo.SERVER_ADDRESS}/file?rate=0'; done"
    path = stage.pair.active().log.with_name("load.txt")
    with contextlib.ExitStack() as stack:
        fetched = stack.enter_context(path.open("wb"))
        for _, host in zip(range(max(os.cpu_count() or 1, 2)), itertools.cycle(topo.NODES), strict=False):
            stack.enter_context(stage.lab.spawn(host, spin))
        for _ in range(2):
            stack.enter_context(stage.lab.spawn("client", ["sh", "-c", fetch], stdout=fetched))
        yield Load(path)


def no_false_takeover(seconds: float) -> Play:
    """Full load for so long, with timers that leave 15 ms of silence."""

    def once(stage: Stage, number: int) -> Trial:
        with stage.trial(number, stage.settle(), "the load begins", download_s=20) as trial:
            with full_load(stage) as load:
                trial.fault_ns = now_ns()
                pass_time(trial.fault_ns, seconds)
                loaded = load.figures()
            return trial.end(**loaded)

    return repeated(once)


SCENARIOS = (
    Scenario(
        "steady-active",
        ("R4", "R6"),
        "Steady traffic that lands on the ACTIVE node.",
        (*UNHARMED, IN_ORDER, Bar("role_changes", 0)),
        repeated(steady_on_active),
        runs=1,
    ),
    Scenario(
        "no-false-takeover",
        ("R13", "B2"),
        f"Full load on both cores for {SOAK_S:.0f} s, with timers of 5 ms x 3.",
        (Bar("role_changes", 0), Bar("sessions_lost", 0), *LOADED),
        no_false_takeover(SOAK_S),
        runs=1,
        settings=AGGRESSIVE,
    ),
)
SOAK = Scenario(
    "soak",
    ("R13", "B2"),
    f"Full load on both cores for {LONG_SOAK_S:.0f} s, with timers of 5 ms x 3.",
    (Bar("role_changes", 0), Bar("sessions_lost", 0), *LOADED),
    no_false_takeover(LONG_SOAK_S),
    runs=1,
    settings=AGGRESSIVE,
)
"""Longer than the others together: it is played when it is asked for."""
