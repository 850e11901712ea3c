# SPDX-License-Identifier: Apache-2.0
"""Another VRRP router instead of the peer: does the node keep to the protocol beside it?"""

from __future__ import annotations

from collections.abc import Iterator

import vrrp_peers
from sandbox import BUILD_DIR
from scenario import Bar, Scenario, Trial
from scenario_stage import Stage

LATE_MS = 100
"""After the moment that a timer of the protocol names, on two slow cores."""
EARLY_MS = 1
"""Before it: nobody may be. (Timestamps of one kernel; a frame is sent before it is heard.)"""


def beside_each(stage: Stage, runs: int) -> Iterator[Trial]:
    """Every program in every version; each of them is a trial. The pair of the stage has no part in it."""
    number = 0
    for _ in range(runs):
        for row, heard in vrrp_peers.tell(BUILD_DIR / "vrrp-peers", vrrp_peers.ROWS, stage.say):
            number += 1
            yield trial_of(number, row, heard)


def trial_of(number: int, row: vrrp_peers.Row, heard: vrrp_peers.Heard) -> Trial:
    """What was heard, as figures; of the other router's punctuality nothing is asked."""
    ours = [late for what, late in heard.late_ms.items() if what.startswith("flexha")]
    figures = {
        "late_ms": max(ours),
        "early_ms": max(0.0, -min(ours)),
        "out_of_turn": float(heard.out_of_turn),
        "complaints": float(len(heard.complaints)),
    }
    return Trial(
        number,
        figures,
        tuple(f"{row.name}: {complaint}" for complaint in heard.complaints),
        more={"router": row.name, "late_ms": {what: round(ms, 3) for what, ms in heard.late_ms.items()}},
    )


SCENARIOS = (
    Scenario(
        "vrrp-peers",
        ("R2",),
        "keepalived and FRR's vrrpd as the other VRRP router, VRRPv2 and VRRPv3: equal priority, priority 0, "
        "preemption, a sudden death.",
        (
            Bar("late_ms", LATE_MS),
            Bar("early_ms", EARLY_MS),
            Bar("out_of_turn", 0),
            Bar("complaints", 0),
        ),
        beside_each,
        runs=1,
        count=lambda runs, _: runs * len(vrrp_peers.ROWS),
    ),
)
