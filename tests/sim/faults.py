# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in a schedule, and when: drawn from a seed, known before the run begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sim.chance import Chance
from sim.net import PATHS

CHAOS_MS = (4_000, 9_000, 15_000)
"""How long things go wrong: one of these."""
FAULTS_PER_S = 4 / 3
"""At most; half of it in the mean."""
IMPATIENT = 0.9
"""Of the schedules that end as soon as both nodes seem settled; the others are watched for ``QUIET_MS``."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, or that somebody asks for, at a time."""

    at_ms: float
    kind: str
    node: str
    """"a", "b", or who is "active" or not ("other") when it happens."""
    path: str
    direction: int
    """0: a to b, 1: b to a, 2: both."""
    amount: float

    def __str__(self) -> str:
        return (
            f"{self.at_ms:8.1f} ms {self.kind} node={self.node} path={self.path} "
            f"direction={self.direction} amount={self.amount:.2f}"
        )


KINDS = {  # and how often each comes; what they do is in ``World.inflict``
    "crash": 5,
    "restart": 6,
    "quick-restart": 2,
    "restarts": 1,
    "pause": 2,
    "stall": 2,
    "hang": 4,
    "stick": 2,
    "suspend": 1,
    "clock": 1,
    "disk-slow": 2,
    "disk-stuck": 1,
    "disk-fails": 1,
    "port-down": 3,
    "cut": 6,
    "cut-all": 2,
    "heal": 6,
    "lossy": 3,
    "slow": 2,
    "failover": 4,
    "maintenance-enter": 2,
    "maintenance-exit": 2,
    "stop": 2,
    "burst": 3,
    "flip": 3,
    "power": 4,
    "forget": 4,
    "xc-flaps": 2,
    "replay": 2,
}


@dataclass(frozen=True)
class Plan:
    """One schedule: with its seed all that there is to say of it."""

    seed: int
    chaos_ms: float
    is_patient: bool
    faults: Sequence[Fault]


def plan(seed: int) -> Plan:
    """Random faults; weights in ``KINDS``."""
    rng = Chance(seed).of("plan")
    chaos_ms = float(rng.choice(CHAOS_MS))
    kinds, weights = list(KINDS), list(KINDS.values())
    faults = sorted(
        (
            Fault(
                at_ms=rng.uniform(0 if rng.random() < 0.2 else min(3750, chaos_ms / 2), chaos_ms),
                kind=rng.choices(kinds, weights)[0],
                node=rng.choice(["a", "b", "active", "active", "active", "other"]),
                path=rng.choice(PATHS),
                direction=rng.randrange(3),
                amount=rng.random(),
            )
            for _ in range(rng.randrange(round(FAULTS_PER_S * chaos_ms / 1000)))
        ),
        key=lambda fault: fault.at_ms,
    )
    return Plan(seed, chaos_ms, rng.random() >= IMPATIENT, faults)
