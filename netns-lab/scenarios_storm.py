# SPDX-License-Identifier: Apache-2.0
"""Faults in the middle of new connections: storms of them, single packets of them, and a peer that
reboots.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import faults
import topo
from embryonic import END_S, FIRST_SERVER_PORT, Bench
from kills import RACING, TOLD, UNHEARD, Case, Kill
from relay import PLACES, spliced
from sandbox import now_ns, wait_until
from scenario import Bar, Figures, Over, Play, Scenario, Settings, Trial
from scenario_stage import Stage, repeated
from scenarios_steady import UNHARMED
from traffic import ShortConns

FAR_MS = 25
STORM_S = 5
"""Of new connections; the node dies after two fifths of them."""
REBOOT_PER_S, REBOOT_CONNS = 2400, 12_000
REBOOT_AT = 3000
JOINED_S = 5
"""So soon after its start it follows, with the table of a storm that goes on."""
REBOOT_PORT, REBOOT_SOURCE_PORT = FIRST_SERVER_PORT - 1, 26_000


# ---- deaths in a storm -----------------------------------------------------------------------------
def storms(per_s: int) -> Play:
    """Established connections beside those that open; the far end is a while away; commit is bounded."""

    def play(stage: Stage, runs: int) -> Iterator[Trial]:
        with spliced(stage.lab, "wire") as relay:
            bench = Bench(stage.lab, stage.pair, "bounded", {"wire": relay})
            for number in range(1, runs + 1):
                yield storm(stage, bench, number, per_s)

    return play


def storm(stage: Stage, bench: Bench, number: int, per_s: int) -> Trial:
    """One death in the middle of it."""
    victim = stage.settle()
    fault = f"node {victim.name} is killed among {per_s:,} new connections a second"
    with stage.trial(number, victim, fault, download_s=20) as trial:
        trial.died = True
        conns = per_s * STORM_S
        kill = bench.storm(FAR_MS, conns=conns, kill_at=conns * 2 // 5, per_s=per_s)
        trial.fault_ns = int(kill.relay["killed_ns"])
        trial.findings += kill.findings()
        trial.recover()
        return trial.end(**opening(kill))


def opening(kill: Kill) -> Figures:
    """What became of the connections that were begun."""
    return {
        "opening_lost": float(kill.conns - kill.result.survived),
        "per_s": kill.rate,
        "degraded": float(kill.degraded),
    }


# ---- deaths at a packet ----------------------------------------------------------------------------
AT_PACKETS = (
    *(("wire", when, "syn-ack") for when in ("before", "after")),
    ("client", "before", "ack"),
    ("wire", "before", "data"),
)
"""R17: before the SYN-ACK; R18: the ACK is in flight. ``make lab-embryonic`` goes through all of them."""
HEARD = {"async": (RACING, TOLD, UNHEARD), "bounded": (RACING,)}


def cases_of(mode: str, *, short: bool) -> list[Case]:
    """Each of them is a trial."""
    return [
        Case(mode, where, when, stage_name, heard)
        for where, when, stage_name in AT_PACKETS
        for heard in (HEARD[mode][-1:] if short else HEARD[mode])
        if heard != UNHEARD or when == "before"
    ]


def at_packets(mode: str) -> Play:
    """The node is killed at a packet of every connection; what may survive is what the case says."""

    def play(stage: Stage, runs: int) -> Iterator[Trial]:
        cases = cases_of(mode, short=stage.short)
        with spliced(stage.lab, PLACE_NAMES[0]) as first, spliced(stage.lab, PLACE_NAMES[1]) as second:
            bench = Bench(stage.lab, stage.pair, mode, dict(zip(PLACE_NAMES, (first, second), strict=True)))
            number = 0
            for _ in range(runs):
                for case in cases:
                    number += 1
                    stage.say(f"killed {case.boundary}, {case.heard}")
                    kill = bench.kill_at(case)
                    low, high = kill.legal
                    survived = kill.result.survived
                    figures = {"not_as_it_must_be": float(max(low - survived, survived - high, 0))}
                    if mode != "async":
                        figures["opening_lost"] = float(kill.conns - survived)
                    yield Trial(number, figures, tuple(kill.findings()), more=kill.as_json())

    return play


PLACE_NAMES = tuple(PLACES)


# ---- the peer reboots ------------------------------------------------------------------------------
def peer_reboots(stage: Stage, number: int) -> Trial:
    """PASSIVE loses its power, and gets the whole table while sessions come and go."""
    active = stage.settle()
    passive = stage.pair.peer(active)
    first_port = REBOOT_SOURCE_PORT + number % 2 * REBOOT_CONNS // len(topo.CLIENT_ADDRESSES)
    with contextlib.ExitStack() as stack:
        fault = f"node {passive.name} reboots"
        trial = stack.enter_context(stage.trial(number, passive, fault, download_s=15))
        conns = ShortConns(
            stage.lab, REBOOT_PORT - number, first_port, conns=REBOOT_CONNS, per_s=REBOOT_PER_S
        )
        stack.callback(conns.close)
        wait_until(lambda: int(conns.progress().get("begun", 0)) >= REBOOT_AT, 20, "the storm is on")
        trial.fault_ns = faults.power_off(stage.lab, passive.name)
        faults.power_on(stage.lab, passive.name)
        trial.happened(f"node {passive.name} starts")
        started_ns = now_ns()
        passive.start()
        trial.expect(lambda: passive.role() == "PASSIVE", 30, "it has the whole table, and follows")
        joined_s = (now_ns() - started_ns) / 1e9
        wait_until(lambda: int(conns.progress()["begun"]) >= REBOOT_CONNS, 60, "all have begun")
        conns.end(END_S)
        result = conns.finish(END_S + 10)
        joined_ns = now_ns()
        trial.expect(stage.pair.settled, 60, "both nodes are settled")
        digests = trial.digests(joined_ns)
        if active.role() != "ACTIVE":
            trial.findings.append(f"node {active.name} is not ACTIVE any more")
        lost = float(REBOOT_CONNS - result.survived)
        return trial.end(opening_lost=lost, joined_s=joined_s, **digests)


MODES = {mode: Settings(keys=(("sync", f'commit = "{mode}"'),)) for mode in ("async", "bounded")}
SCENARIOS = (
    *(
        Scenario(
            f"storm-{per_s}",
            ("B1", "R17", "R18"),
            f"The ACTIVE node dies while {per_s:,} connections a second open, the far end {FAR_MS} ms away.",
            (Bar("sessions_lost", 0), Bar("opening_lost", 0)),
            storms(per_s),
            runs=1,
            settings=MODES["bounded"],
        )
        for per_s in (1000, 4000)
    ),
    Scenario(
        "embryonic-bounded",
        ("B1", "R17", "R18"),
        "The ACTIVE node dies before the SYN-ACK, after it, and with the ACK in flight; commit is bounded.",
        (Bar("opening_lost", 0, Over.SUM),),
        at_packets("bounded"),
        runs=1,
        count=lambda runs, short: runs * len(cases_of("bounded", short=short)),
        settings=MODES["bounded"],
    ),
    Scenario(
        "embryonic-async",
        ("R17", "R18"),
        "The same with async: as many go on as the survivor has heard of.",
        (Bar("not_as_it_must_be", 0),),
        at_packets("async"),
        runs=1,
        count=lambda runs, short: runs * len(cases_of("async", short=short)),
        settings=MODES["async"],
    ),
    Scenario(
        "peer-reboot",
        ("R20", "R22", "R24"),
        f"The PASSIVE node reboots while {REBOOT_PER_S:,} connections a second open.",
        (*UNHARMED, Bar("opening_lost", 0), Bar("joined_s", JOINED_S), Bar("digests_s", 5)),
        repeated(peer_reboots),
        settings=MODES["bounded"],
        runs=1,
    ),
)
