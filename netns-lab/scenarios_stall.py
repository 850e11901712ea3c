# SPDX-License-Identifier: Apache-2.0
"""A node that stands still and wakes up later: it must not speak as if nothing had been."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

from overheard import Overheard, Said
from pair import Node
from sandbox import Lab, now_ns, wait_until
from scenario import Bar, Scenario, Trial
from scenario_stage import Stage, Take, repeated
from scenarios_steady import pass_time
from traffic import BIN_DIR, Generator

REIGN_S = 1.0
"""The peer has reigned for so long when the node wakes up, and so long it is listened to."""
STALL_MS = 4000
CONTROL_TAKEOVER_MS = 1500
"""A control plane that does nothing for a second is dead."""
SILENT = (Bar("woken_frames", 0), Bar("woken_adverts", 0))


def stopped(stage: Stage, number: int) -> Trial:
    """SIGSTOP of ACTIVE until long after the peer has taken over, then SIGCONT."""
    victim = stage.settle()
    with stage.trial(number, victim, f"node {victim.name} stops (SIGSTOP)", download_s=9) as trial:
        pid = victim.living()
        trial.fault_ns = stage.lab.signal(pid, signal.SIGSTOP)
        with contextlib.ExitStack() as stack:
            try:
                trial.wait_takeover()
                pass_time(now_ns(), REIGN_S)
                heard = stack.enter_context(Overheard(stage.lab, victim))
            finally:
                woken_ns = stage.lab.signal(pid, signal.SIGCONT)
            trial.happened(f"node {victim.name} goes on (SIGCONT)", woken_ns)
            trial.recover()
            trial.expect(stage.pair.settled, 20, "the woken node is PASSIVE")
            pass_time(woken_ns, REIGN_S)
            said = heard.said()
        _tell(trial, said)
        return trial.end(woken_frames=float(said.data), woken_adverts=float(said.adverts))


def _tell(trial: Take, said: Said) -> None:
    """What it was, beside how many."""
    if said.unheard:
        trial.findings.append(f"{said.unheard} frames of node {trial.victim.name} were not heard")
    if said.first:
        trial.findings.append(f"node {trial.victim.name} spoke as ACTIVE, first {said.first}")


@contextlib.contextmanager
def stalled(lab: Lab, node: Node) -> Iterator[int]:
    """The daemon's Python stands still for ``STALL_MS`` from the block's begin on: CLOCK_BOOTTIME (ns)."""
    argv = [str(BIN_DIR / "stall"), str(node.living()), str(STALL_MS)]
    with Generator(lab, node.name, argv) as stall:
        yield int(stall.wait_event("stalled", 5)["t_ns"])
        stall.wait_event("done", STALL_MS / 1e3 + 5)


def _reigned_ns(trial: Take) -> int:
    """When the peer decided to reign, by its own history: CLOCK_BOOTTIME (ns)."""
    trial.remember()
    return next(
        int(float(event["t_ms"]) * 1e6)
        for event in trial.role_changes()
        if event["node"] == trial.survivor.name and event["to"] == "ACTIVE"
    )


def control_hangs(stage: Stage, number: int) -> Trial:
    """The fast path runs on, heartbeats with it; nobody decides any more."""
    victim = stage.settle()
    fault = f"the control plane of node {victim.name} hangs"
    with stage.trial(number, victim, fault, download_s=9) as trial, contextlib.ExitStack() as stack:
        heard = stack.enter_context(Overheard(stage.lab, victim))
        with stalled(stage.lab, victim) as fault_ns:
            trial.fault_ns = fault_ns

            def decided() -> bool:
                heard.listen()
                late = now_ns() - fault_ns > (STALL_MS - 500) * 1e6
                return late or trial.survivor.role() == "ACTIVE"

            wait_until(decided, STALL_MS / 1e3 + 5, "the peer takes over, or never will")
            taken_ns = now_ns()
            reigns = trial.survivor.role() == "ACTIVE"
        trial.happened(f"the control plane of node {victim.name} goes on")
        trial.recover()
        trial.expect(stage.pair.settled, 20, "the woken node is PASSIVE")
        figures = {}
        if reigns:
            said = heard.said(_reigned_ns(trial))
            _tell(trial, said)
            figures = {
                "takeover_ms": (taken_ns - fault_ns) / 1e6,
                "woken_frames": float(said.data),
                "woken_adverts": float(said.adverts),
            }
        else:
            trial.findings.append("the peer did not take over")
        return trial.end(**figures)


SCENARIOS = (
    Scenario(
        "sigstop",
        ("R13", "B2"),
        "The ACTIVE node's daemon is stopped (SIGSTOP) past the takeover, and goes on (SIGCONT).",
        (Bar("sessions_lost", 0), *SILENT),
        repeated(stopped),
        runs=5,
    ),
    Scenario(
        "control-hung",
        ("R13", "B2"),
        "The control plane of the ACTIVE node hangs, its fast path forwards on.",
        (Bar("sessions_lost", 0), Bar("takeover_ms", CONTROL_TAKEOVER_MS), *SILENT),
        repeated(control_hangs),
    ),
)
