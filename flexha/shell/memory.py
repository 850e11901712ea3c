# SPDX-License-Identifier: Apache-2.0
"""Do the tables lie on huge pages, and does what we run stay in memory?

C asks for them (``madvise``), and the kernel may have none. Without them a lookup pays for misses of the TLB,
and a killed process takes tens of milliseconds to vanish instead of one, its TAPs with it; so it is worth a
line in the log.

A kernel that is short of memory, or frugal, takes pages of code away from who sleeps; reading them back from
a disk takes as long as the peer needs to believe that we are dead. So whatever was touched once is locked.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from flexha import fastpath
from flexha.fastpath import FastpathError
from flexha.shell import log

COVERED_MIN = 0.9
"""Share of the tables below which it is worth a warning."""

_ROLLUP = Path("/proc/self/smaps_rollup")
_STATUS = Path("/proc/self/status")
_CAP_IPC_LOCK: Final = 14


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Anonymous memory of this process, KiB."""

    total_kib: int
    huge_kib: int

    @classmethod
    def parse(cls, rollup: str) -> Self:
        """From the text of ``smaps_rollup`` (proc(5)); a kernel without huge pages has no line for them."""
        fields = {}
        for line in rollup.splitlines()[1:]:
            name, _, value = line.partition(":")
            fields[name] = value
        return cls(*(int(fields.get(name, "0 kB").split()[0]) for name in ("Anonymous", "AnonHugePages")))

    @classmethod
    def now(cls) -> Self:
        """As it is."""
        return cls.parse(_ROLLUP.read_text(encoding="ascii"))


def report_tables(before: Anonymous, after: Anonymous) -> None:
    """Say how much of what was mapped in between, the tables, is on huge pages."""
    total, huge = after.total_kib - before.total_kib, after.huge_kib - before.huge_kib
    covered = huge / total if total > 0 else 0.0
    fields = {"tables_mib": total // 1024, "huge_pages": f"{covered:.0%}"}
    if covered >= COVERED_MIN:
        log.info("memory.tables", **fields)
    else:
        log.warning(
            "memory.tables",
            **fields,
            remedy="set /sys/kernel/mm/transparent_hugepage/enabled to madvise",
        )


def may_lock(status: str, limit: int) -> bool:
    """Is nothing in the way? ``status``: the text of ``/proc/self/status``; ``limit``: RLIMIT_MEMLOCK."""
    if limit == resource.RLIM_INFINITY:
        return True
    capable = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(capable.split()[1], 16) >> _CAP_IPC_LOCK & 1)


def lock() -> None:
    """Keep what is used in memory; what the system refuses is said, and the daemon goes on."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        if not may_lock(_STATUS.read_text(encoding="ascii"), hard):
            raise PermissionError("RLIMIT_MEMLOCK")  # later allocations would fail at it
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        fastpath.lock_memory()
    except (OSError, FastpathError) as error:
        log.warning("memory.not_locked", error=error, remedy="LimitMEMLOCK=infinity, or grant CAP_IPC_LOCK")
