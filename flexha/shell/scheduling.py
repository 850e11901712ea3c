# SPDX-License-Identifier: Apache-2.0
"""When the machine is busy, what must still be on time?

First the pulse thread, whose lateness looks like our death to the peer: C gives it SCHED_FIFO. Then the
workers and the control plane: they get a negative nice value here, and no real-time class, because they can
be busy for long and would starve the machine. What the system refuses is said, and the daemon goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from flexha.shell import log

NICE = -10

PULSE_THREAD = "fx-pulse"
WORKER_THREADS = "fx-worker"

_TASKS = Path("/proc/self/task")


def _threads(prefix: str) -> Iterator[int]:
    for task in _TASKS.iterdir():
        if (task / "comm").read_text(encoding="ascii", errors="replace").startswith(prefix):
            yield int(task.name)


def prioritise() -> None:
    """Raise the workers and this thread, once the fast path has started."""
    refused: list[str] = []
    try:
        for thread in (*_threads(WORKER_THREADS), os.getpid()):
            os.setpriority(os.PRIO_PROCESS, thread, NICE)
    except PermissionError:
        refused.append(f"nice {NICE}")
    if any(os.sched_getscheduler(thread) != os.SCHED_FIFO for thread in _threads(PULSE_THREAD)):
        refused.append("SCHED_FIFO for heartbeats")
    if refused:
        log.warning("scheduling.refused", what=refused, remedy="grant CAP_SYS_NICE")
