# SPDX-License-Identifier: Apache-2.0
"""When the machine is busy, what must still be on time?

First the pulse thread (SCHED_FIFO: it runs some microseconds each interval, and its lateness looks like our
death to the peer), then the workers and the control plane (a negative nice value: they can be busy for long,
so a real-time class would starve the machine). Without the right to it the daemon runs with what it has,
except with heartbeats so fast that they would not hold (``SCHED_FIFO_BELOW_MS``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from flexha.errors import StartError
from flexha.shell import log

SCHED_FIFO_BELOW_MS = 20
"""A heartbeat interval below this needs a real-time pulse thread."""
PULSE_PRIORITY = 50
NICE = -10

PULSE_THREAD = "fx-pulse"
WORKER_THREADS = "fx-worker"

_TASKS = Path("/proc/self/task")


def _threads(prefix: str) -> Iterator[int]:
    for task in _TASKS.iterdir():
        if (task / "comm").read_text(encoding="ascii", errors="replace").startswith(prefix):
            yield int(task.name)


def prioritise(interval_ms: int) -> None:
    """Raise the threads of this process, once the fast path has started.

    Raises: StartError if heartbeats are too fast for an ordinary thread and the right is missing.
    """
    refused: dict[str, str] = {}
    try:
        for thread in _threads(PULSE_THREAD):
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(PULSE_PRIORITY))
    except OSError as error:
        if interval_ms < SCHED_FIFO_BELOW_MS:
            raise StartError(
                f"ha.interval_ms: {interval_ms} needs SCHED_FIFO for the heartbeat thread: {error.strerror}; "
                f"grant CAP_SYS_NICE, or set {SCHED_FIFO_BELOW_MS} or more"
            ) from error
        refused["pulse"] = error.strerror or str(error)
    try:
        for thread in (*_threads(WORKER_THREADS), os.getpid()):
            os.setpriority(os.PRIO_PROCESS, thread, NICE)
    except OSError as error:
        refused["nice"] = error.strerror or str(error)
    if refused:
        log.warning("scheduling.refused", **refused, remedy="grant CAP_SYS_NICE")
