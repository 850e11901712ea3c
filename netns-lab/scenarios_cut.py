# SPDX-License-Identifier: Apache-2.0
"""Nodes that no longer hear each other while both are well: the cross-connect cut, and every path cut."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import faults
from sandbox import Lab, now_ns
from scenario import Bar, Play, Scenario, Trial
from scenario_stage import Stage, repeated
from scenarios_steady import UNHARMED, pass_time

DIGESTS_S = 5
ONE_ACTIVE_MS, BLACK_HOLE_MS = 1000, 1000
CUT_S = 2.0
"""Far longer than the dead time, and than it takes two ACTIVE nodes to announce themselves."""


def xc_cuts(cut: Callable[[Lab], AbstractContextManager[None]]) -> Play:
    """Heartbeats are heard by way of LAN and WAN meanwhile; sync goes on later."""

    def once(stage: Stage, number: int) -> Trial:
        active = stage.settle()
        with stage.trial(number, active, "the cross-connect is cut", download_s=9) as trial:
            trial.fault_ns = now_ns()
            with cut(stage.lab):
                pass_time(trial.fault_ns, CUT_S)
            healed_ns = now_ns()
            trial.happened("the cross-connect is whole")
            return trial.end(**trial.digests(healed_ns))

    return repeated(once)


def all_cut(stage: Stage, number: int) -> Trial:
    """Both reign; once they hear each other, the rule finds one of them, and the other one joins it."""
    old = stage.settle()
    new = stage.pair.peer(old)
    with stage.trial(number, old, "all paths are cut", download_s=9) as trial:
        trial.fault_ns = now_ns()
        with faults.strangers(stage.lab):
            trial.wait_takeover()
            pass_time(trial.fault_ns, CUT_S)
            if old.role() != "ACTIVE":
                trial.findings.append(f"node {old.name} yielded to a peer that it does not hear")
            healing_ns = now_ns()
        trial.happened("all paths are whole")
        trial.expect(lambda: [old.role(), new.role()].count("ACTIVE") == 1, 10, "one node alone is ACTIVE")
        trial.recover()
        agreed = trial.digests(healing_ns)
        trial.remember()
        yields = [
            float(event["t_ms"]) - healing_ns / 1e6
            for event in trial.role_changes()
            if str(event["from"]) == "ACTIVE"
        ]
        one_active = {"one_active_ms": max(yields)} if yields else {}
        return trial.end(**agreed, **one_active)


SCENARIOS = (
    Scenario(
        "xc-cut",
        ("R4", "R13", "R14"),
        "The cross-connect loses its carrier, and has it again.",
        (*UNHARMED, Bar("role_changes", 0), Bar("digests_s", DIGESTS_S)),
        xc_cuts(faults.xc_cut),
    ),
    Scenario(
        "xc-silent",
        ("R4", "R13", "R14"),
        "The cross-connect loses every frame while its carrier stays, and heals.",
        (*UNHARMED, Bar("role_changes", 0), Bar("digests_s", DIGESTS_S)),
        xc_cuts(faults.xc_silent),
    ),
    Scenario(
        "all-cut",
        ("R1", "R2", "R13", "B2"),
        "Neither node hears the other by any path; both reign; then all heals.",
        (Bar("sessions_lost", 0), Bar("one_active_ms", ONE_ACTIVE_MS), Bar("outage_ms", BLACK_HOLE_MS)),
        repeated(all_cut),
    ),
)
