# SPDX-License-Identifier: Apache-2.0
"""The ACTIVE node loses a LAN that is routed by eBGP: the router finds its way by the other node."""

from __future__ import annotations

from collections.abc import Sequence

from sandbox import now_ns
from scenario import Bar, Scenario, Settings, Trial
from scenario_stage import Stage, repeated
from scenarios_link import ASYMMETRIC, DOWN_S, carried, carrier_lost
from scenarios_steady import pass_time

OUTAGE_MS = 450
"""Three times BFD's 100 ms, and what routers need to take another way."""


def lan_down(stage: Stage, number: int) -> Trial:
    """ACTIVE has no LAN for a while, under traffic, and stays ACTIVE."""
    active = stage.settle()
    passive = stage.pair.peer(active)
    lan = stage.lan
    assert lan is not None
    with stage.trial(number, active, f"node {active.name} loses its LAN", download_s=9) as trial:
        before = carried(active, passive)
        trial.fault_ns = now_ns()
        with carrier_lost("lan")(stage.lab, active, passive):
            trial.recover()
            pass_time(trial.fault_ns, DOWN_S)
            after = carried(active, passive)
        trial.happened("the wire is there again")
        trial.expect(lambda: lan.prefers(active.name), 30, "the router sends to ACTIVE again")
        trial.expect(stage.pair.settled, 20, "the pair is whole again")
        return trial.end(**{way: after[way] - before[way] for way in before})


SCENARIOS: Sequence[Scenario] = (
    Scenario(
        "lan-down-bgp",
        ("R5", "R8"),
        "The LAN link of the ACTIVE node loses its carrier; the LAN is routed by eBGP, with BFD.",
        (Bar("sessions_lost", 0), Bar("outage_ms", OUTAGE_MS), *ASYMMETRIC),
        repeated(lan_down),
        settings=Settings(routed=True),
        boxed=True,
    ),
)
