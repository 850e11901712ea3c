# SPDX-License-Identifier: Apache-2.0
"""The ACTIVE node is gone, or as good as gone: each way of dying under traffic, and what it costs."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import faults
import topo
from pair import Node
from sandbox import REPOSITORY, now_ns, wait_until
from scenario import Bar, Figures, Over, Play, Scenario, Settings, Trial
from scenario_stage import Stage, Take, repeated
from scenarios_steady import AGGRESSIVE
from traffic import BIN_DIR

OUTAGE_MS, LOST_MAX = 25, 12
"""Of a death that gives itself away by carriers and closed connections."""
HANG_MS, HANG_AGGRESSIVE_MS = 220, 40
"""Of one that gives itself away by silence, at 50 ms x 3 and at 5 ms x 3."""
MILLION, MILLION_PER_S = 1_000_000, 50_000
MILLION_SHORT = 200_000
ENDPOINTS = 50_000
"""Inside endpoints of those sessions: as many external ports of the one pool's 64,512."""
FILLED_MIN, FILL_ROUNDS = 0.98, 5
"""So much of it must be there, after so many rounds."""
LARGE_RATIO = 1.5
INSIDE_PREFIX, OUTSIDE_PREFIX = "10.0.0.0/8", "198.18.0.0/15"
"""Where udp_sessions.c has its hosts."""

DEATH_BARS = (
    Bar("sessions_lost", 0),
    Bar("outage_ms", OUTAGE_MS, Over.MEDIAN),
    Bar("lost_there", LOST_MAX),
)

Die = Callable[[Stage, Node], int]


def die_whole(_: Stage, node: Node) -> int:
    """SIGKILL, and every link of the node goes down."""
    return node.die()


def die_alone(_: Stage, node: Node) -> int:
    """SIGKILL; the cross-connect's carrier stays."""
    return node.kill()


def lose_power(stage: Stage, node: Node) -> int:
    """Nothing runs, then no link is up: no connection is closed towards the peer. The namespace goes, too."""
    t_ns = faults.power_off(stage.lab, node.name)
    faults.power_on(stage.lab, node.name)
    return t_ns


def one_death(stage: Stage, number: int, die: Die, what: str) -> Trial:
    """Traffic, a death, the takeover, and what became of the traffic."""
    victim = stage.settle()
    with stage.trial(number, victim, f"node {victim.name} {what}") as trial:
        trial.keep_table()
        trial.died = True
        trial.fault_ns = die(stage, victim)
        _recover(trial)
        return trial.end()


def _recover(trial: Take) -> None:
    trial.wait_takeover()
    trial.recover()


def deaths(die: Die, what: str) -> Play:
    """a, b, a, ...: the dead node comes back between two deaths, and does not preempt."""
    return repeated(lambda stage, number: one_death(stage, number, die, what))


def one_power_cut(stage: Stage, number: int) -> Trial:
    """Nobody says a last word: only the cable's carrier and what is not answered tell of it."""
    trial = one_death(stage, number, lose_power, "is powered off")
    reason = "" if trial.run is None else trial.run.takeover.reason
    told = () if reason == "peer-confirmed" else (f"the peer took over for {reason!r}, not 'peer-confirmed'",)
    return replace(trial, findings=(*trial.findings, *told))


def one_hang(stage: Stage, number: int) -> Trial:
    """Its ports and its cross-connect carry nothing any more, while their links are up and it runs."""
    victim = stage.settle()
    with stage.trial(number, victim, f"node {victim.name} hangs") as trial:
        trial.keep_table()
        with faults.hung(stage.lab, victim.name) as since_ns:
            trial.fault_ns = since_ns
            wait_until(lambda: now_ns() >= since_ns, 5, "the links are silent")
            _recover(trial)
        trial.happened("its links carry again")
        return trial.end()


# ---- a large table ---------------------------------------------------------------------------------
def with_many_sessions(stage: Stage, runs: int) -> Iterator[Trial]:
    """Each death with the small table of the traffic alone, then with a million sessions beside it."""
    rounds = ways_of(short=stage.short) * runs
    for number, (die, what) in enumerate(rounds, 1):
        trial = one_death(stage, number, die, what)
        trial.figures["outage_small_ms"] = trial.figures.pop("outage_ms")
        yield replace(trial, more={"death": what})
    many = MILLION_SHORT if stage.short else MILLION
    fill(stage, many)
    for number, (die, what) in enumerate(rounds, len(rounds) + 1):
        trial = one_death(stage, number, die, f"{what}, with {many:,} sessions")
        trial.figures["outage_large_ms"] = trial.figures.pop("outage_ms")
        trial.figures["sessions"] = float(sessions_of(stage.pair.active()))
        trial.figures["kept"] = trial.figures["sessions"] / many
        yield replace(trial, more={"death": what})


def ways_of(*, short: bool) -> list[tuple[Die, str]]:
    """The deaths that are compared; continuous integration has the first one alone."""
    ways: list[tuple[Die, str]] = [
        (die_whole, "is killed, its links go down"),
        (die_alone, "is killed"),
        (lose_power, "is powered off"),
    ]
    return ways[:1] if short else ways


def ratio(trials: Sequence[Trial]) -> Figures:
    """The outage with the large table by that with the small one, medians: of all deaths, and of each."""
    figures: Figures = {}
    deaths = sorted({str(trial.more["death"]) for trial in trials if "death" in trial.more})
    for name, those in [("", list(trials)), *((f", {death}", _of(death, trials)) for death in deaths)]:
        small, large = (
            [trial.figures[figure] for trial in those if figure in trial.figures]
            for figure in ("outage_small_ms", "outage_large_ms")
        )
        if small and large:
            figures[f"large_by_small{name}"] = statistics.median(large) / statistics.median(small)
    return figures


def _of(death: str, trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.more.get("death") == death]


def sessions_of(node: Node) -> int:
    """Sessions in a node's table."""
    status = node.status()
    return 0 if status is None else int(status["flows"]["flows"])


def fill(stage: Stage, sessions: int, mac: str = topo.LAN_VMAC) -> None:
    """So many UDP sessions, in both nodes' tables; the frames go to this MAC address."""
    stage.say(f"opening {sessions:,} sessions")
    lab, source = stage.lab, REPOSITORY / "tests" / "bench" / "udp_sessions.c"
    program = BIN_DIR / "udp_sessions"
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["gcc", *flags, "-o", str(program), str(source), "-lm"], check=True)
    stage.settle()
    lab.run("isp", ["ip", "route", "replace", "blackhole", OUTSIDE_PREFIX])
    argv = [str(program), "client", "eth0", mac, str(ENDPOINTS), "0"]
    argv += [str(sessions), str(MILLION_PER_S)]
    wanted = sessions * FILLED_MIN
    for _ in range(FILL_ROUNDS):  # the same sessions: nobody else sends again what a full queue drops
        lab.run("client", argv, timeout_s=sessions / MILLION_PER_S * 4 + 30)
        if sessions_of(stage.pair.active()) >= wanted:
            break
    nodes = stage.pair.nodes.values()
    wait_until(lambda: min(map(sessions_of, nodes)) >= wanted, 60, f"both nodes have {wanted:,.0f} sessions")


FILLED_FROM = f'\n[[routes]]\nprefix = "{INSIDE_PREFIX}"\nvia = "{topo.CLIENT_ADDRESSES[0]}"\nport = "lan"\n'
LARGE_TABLE = Settings(
    keys=(
        ("fastpath", f"flow_cap = {MILLION + 200_000}"),
        ("timeouts", "udp_s = 3600"),
    ),
    tail=FILLED_FROM,
)
ALL_DEATHS = ("R6", "R7", "R13", "R19", "R20", "B2")
SCENARIOS = (
    Scenario(
        "death-links",
        ALL_DEATHS,
        "The ACTIVE node dies: SIGKILL of its daemon, its links go down.",
        DEATH_BARS,
        deaths(die_whole, "is killed, its links go down"),
        runs=10,
        boxed=True,
    ),
    Scenario(
        "death-sigkill",
        ALL_DEATHS,
        "The ACTIVE node's daemon is killed by SIGKILL, and nothing else.",
        DEATH_BARS,
        deaths(die_alone, "is killed"),
        runs=10,
        boxed=True,
    ),
    Scenario(
        "death-power",
        ALL_DEATHS,
        "The ACTIVE node is powered off: it stops, its links lose their carrier, and its namespace is gone.",
        DEATH_BARS,
        repeated(one_power_cut),
        runs=10,
        boxed=True,
    ),
    Scenario(
        "death-million",
        ALL_DEATHS,
        "The ACTIVE node dies (each of the three deaths) with a million sessions in the table, and with few.",
        (
            Bar("sessions_lost", 0),
            Bar("kept", FILLED_MIN, at_least=True, of_some=True),
            Bar("large_by_small", LARGE_RATIO),
        ),
        with_many_sessions,
        runs=2,
        count=lambda runs, short: 2 * runs * len(ways_of(short=short)),
        settings=LARGE_TABLE,
        summary=ratio,
    ),
    Scenario(
        "hang",
        ("R6", "R7", "R13"),
        "The ACTIVE node hangs silently, its links up; timers of 50 ms x 3.",
        (Bar("sessions_lost", 0), Bar("outage_ms", HANG_MS)),
        repeated(one_hang),
        runs=3,
    ),
    Scenario(
        "hang-aggressive",
        ("R6", "R7", "R13"),
        "The ACTIVE node hangs silently, its links up; timers of 5 ms x 3.",
        (Bar("sessions_lost", 0), Bar("outage_ms", HANG_AGGRESSIVE_MS)),
        repeated(one_hang),
        runs=5,
        settings=AGGRESSIVE,
    ),
)
