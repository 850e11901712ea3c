# SPDX-License-Identifier: Apache-2.0
"""Do the tables lie on huge pages?

C asks for them (``madvise``), and the kernel may have none. Without them a lookup pays for misses of the TLB,
and a killed process takes tens of milliseconds to vanish instead of one, its TAPs with it; so it is worth a
line in the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flexha.shell import log

COVERED_MIN = 0.9
"""Share of the tables below which it is worth a warning."""

_ROLLUP = Path("/proc/self/smaps_rollup")


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
