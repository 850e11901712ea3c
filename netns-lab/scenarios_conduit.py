# SPDX-License-Identifier: Apache-2.0
"""Frames land on the node that is not ACTIVE: all of them are forwarded, and it looks for no session."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import faults
import topo
from embryonic import END_S
from pair import Node
from sandbox import now_ns, wait_until
from scenario import Bar, Scenario, Settings, Trial
from scenario_stage import Stage, repeated
from scenarios_death import FILLED_FROM, fill
from scenarios_steady import IN_ORDER, STEADY_S, STEADY_SHORT_S, UNHARMED, pass_time
from scenarios_storm import MODES
from traffic import ShortConns

SPREAD_FLOWS = 10_000
BUSIEST_MAX = 1.15
SYN_ACKS = 2000
FIRST_PORT, FIRST_SOURCE_PORT = 7200, 22_000


def workers(node: Node) -> list[dict[str, int]]:
    """What each worker has done: its lookups, and what came by the conduit."""
    shown = node.request("workers")["workers"]
    return [{"lookups": row["lookups"], "rx_frames": row["conduit"]["rx_frames"]} for row in shown]


def lookups(node: Node) -> int:
    """Packets whose session a node has looked for."""
    return sum(worker["lookups"] for worker in workers(node))


def steady_on_passive(stage: Stage, number: int) -> Trial:
    """Both sides send to PASSIVE."""
    seconds = STEADY_SHORT_S if stage.short else STEADY_S
    active = stage.settle()
    passive = stage.pair.peer(active)
    with faults.landing_on(stage.lab, passive, "lan", "wan"):
        fault = f"all frames land on node {passive.name}"
        with stage.trial(number, active, fault, download_s=seconds + 4) as trial:
            looked, handed = lookups(passive), passive.counter("conduit_to")
            trial.fault_ns = now_ns()
            pass_time(trial.fault_ns, seconds)
            figures = {
                "passive_lookups": float(lookups(passive) - looked),
                "conduit_to": float(passive.counter("conduit_to") - handed),
            }
            return trial.end(**figures)


def syn_acks_on_passive(stage: Stage, number: int) -> Trial:
    """R16: what the WAN answers lands on PASSIVE, from the first packet on."""
    active = stage.settle()
    passive = stage.pair.peer(active)
    with contextlib.ExitStack() as stack:
        stack.enter_context(faults.landing_on(stage.lab, passive, "wan"))
        trial = stack.enter_context(
            stage.trial(number, active, f"SYN-ACKs land on node {passive.name}", download_s=8)
        )
        trial.fault_ns = now_ns()
        handed = passive.counter("conduit_to")
        first_port = FIRST_SOURCE_PORT + number % 8 * SYN_ACKS // len(topo.CLIENT_ADDRESSES)
        conns = ShortConns(stage.lab, FIRST_PORT + number, first_port, conns=SYN_ACKS, per_s=SYN_ACKS // 2)
        stack.callback(conns.close)
        wait_until(lambda: int(conns.progress().get("begun", 0)) >= SYN_ACKS, 20, "all have begun")
        conns.end(END_S)
        result = conns.finish(END_S + 10)
        return trial.end(
            opening_lost=float(SYN_ACKS - result.survived),
            repeated=float(result.repeated),
            conduit_to=float(passive.counter("conduit_to") - handed),
        )


def spread(stage: Stage, runs: int) -> Iterator[Trial]:
    """Flows that land on PASSIVE keep the workers of ACTIVE equally busy."""
    for number in range(1, runs + 1):
        active = stage.settle()
        passive = stage.pair.peer(active)
        before = [worker["rx_frames"] for worker in workers(active)]
        lan = next(port for port in passive.request("status")["ports"] if port["name"] == "lan")
        fill(stage, SPREAD_FLOWS, str(lan["mac"]))
        came = [worker["rx_frames"] - old for worker, old in zip(workers(active), before, strict=True)]
        busiest = max(came) * len(came) / max(sum(came), 1)
        yield Trial(number, {"busiest_by_mean": busiest, "conduited": float(sum(came))}, ())


SCENARIOS = (
    Scenario(
        "steady-passive",
        ("R8", "R9"),
        "Steady traffic that lands on the PASSIVE node.",
        (
            *UNHARMED,
            IN_ORDER,
            Bar("role_changes", 0),
            Bar("passive_lookups", 0),
            Bar("conduit_to", 1, at_least=True),
        ),
        repeated(steady_on_passive),
        runs=1,
    ),
    *(
        Scenario(
            f"syn-ack-passive-{mode}",
            ("R16",),
            f"SYN-ACKs of {SYN_ACKS:,} new connections land on the PASSIVE node; commit is {mode}.",
            (*UNHARMED, Bar("opening_lost", 0), Bar("conduit_to", SYN_ACKS, at_least=True)),
            repeated(syn_acks_on_passive),
            runs=1,
            settings=settings,
        )
        for mode, settings in MODES.items()
    ),
    Scenario(
        "two-workers",
        ("R9", "R24"),
        f"{SPREAD_FLOWS:,} flows land on the PASSIVE node; the ACTIVE one has two workers.",
        (Bar("busiest_by_mean", BUSIEST_MAX), Bar("conduited", SPREAD_FLOWS * 0.98, at_least=True)),
        spread,
        runs=1,
        settings=Settings(keys=(("fastpath", "workers = 2"),), tail=FILLED_FROM),
    ),
)
