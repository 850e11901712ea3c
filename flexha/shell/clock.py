# SPDX-License-Identifier: Apache-2.0
"""The only clock of the control plane: CLOCK_BOOTTIME, as in the C fast path. It counts while suspended."""

from __future__ import annotations

import time

from flexha.units import Ns


def now() -> Ns:
    """Nanoseconds since the machine booted."""
    return Ns(time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def start_number() -> int:
    """Nanoseconds since the epoch: a process that starts later has a higher one (``csrc/pulse.h``)."""
    return time.time_ns()


def wall() -> float:
    """Seconds since the epoch: for people only, nothing else is decided by the wall clock."""
    return time.time()


def wall_offset_ns() -> int:
    """What to add to ``now`` to get nanoseconds since the epoch: for people only."""
    return time.time_ns() - now()
