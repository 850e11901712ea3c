# SPDX-License-Identifier: Apache-2.0
"""Somebody means it: the role is moved by command, and daemons are stopped."""

from __future__ import annotations

from pair import Node
from sandbox import now_ns
from scenario import Bar, Scenario, Trial
from scenario_stage import Stage, Take, repeated
from scenarios_steady import UNHARMED, pass_time

MOVES, MOVES_SHORT = 20, 4
MOVE_S = 1.5
"""From one move to the next, at the least: switches have learned, all connections have spoken."""


def moves(stage: Stage, number: int) -> Trial:
    """Back and forth under one and the same traffic."""
    wanted = MOVES_SHORT if stage.short else MOVES
    active = stage.settle()
    fault = f"the role is moved {wanted} times"
    with stage.trial(number, active, fault, download_s=wanted * MOVE_S + 8) as trial:
        trial.fault_ns = now_ns()
        done = sum(_move(stage, trial) for _ in range(wanted))
        trial.recover()
        return trial.end(moves_failed=float(wanted - done))


def _move(stage: Stage, trial: Take) -> bool:
    old = stage.pair.active()
    new = stage.pair.peer(old)
    moved_ns = now_ns()
    old.request("failover")
    trial.happened(f"failover of node {old.name} is asked for", moved_ns)
    trial.expect(lambda: new.role() == "ACTIVE", 10, f"node {new.name} is ACTIVE")
    stage.pair.wait_settled()
    pass_time(moved_ns, MOVE_S)
    return new.role() == "ACTIVE"


def active_stops(stage: Stage, number: int) -> Trial:
    """SIGTERM: the node hands over, and ends."""
    active = stage.settle()
    with stage.trial(number, active, f"node {active.name} is told to end") as trial:
        trial.fault_ns = now_ns()
        _stop(trial, active)
        trial.wait_takeover()
        trial.recover()
        return trial.end()


def passive_stops(stage: Stage, number: int) -> Trial:
    """SIGTERM of the one that carries nothing; it starts again under the same traffic."""
    active = stage.settle()
    passive = stage.pair.peer(active)
    with stage.trial(number, passive, f"node {passive.name} is told to end", download_s=9) as trial:
        trial.fault_ns = now_ns()
        _stop(trial, passive)
        trial.happened(f"node {passive.name} starts")
        passive.start()
        stage.pair.wait_settled()
        trial.recover()
        return trial.end(moves=float(active.role() != "ACTIVE"))


def _stop(trial: Take, node: Node) -> None:
    if (code := node.stop()) != 0:
        trial.findings.append(f"node {node.name} ended with {code}")


SCENARIOS = (
    Scenario(
        "planned",
        ("R15", "B3"),
        f"The role is moved by command, {MOVES} times back and forth, under one traffic.",
        (*UNHARMED, Bar("moves_failed", 0)),
        repeated(moves),
        runs=1,
    ),
    Scenario(
        "sigterm-active",
        ("R15", "B3"),
        "The ACTIVE node is told to end by SIGTERM.",
        UNHARMED,
        repeated(active_stops),
    ),
    Scenario(
        "sigterm-passive",
        ("R15",),
        "The PASSIVE node is told to end by SIGTERM, and starts again.",
        (*UNHARMED, Bar("moves", 0)),
        repeated(passive_stops),
    ),
)
