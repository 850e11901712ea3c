# SPDX-License-Identifier: Apache-2.0
"""The sections of a batch, read and written in Python: the second implementation, after ``SYNC.md`` alone.

The daemon's is ``csrc/sections.c``. Names, widths and required columns stand here once more on purpose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import msgpack

from flexha.fastpath import Op


@dataclass(frozen=True, slots=True)
class Column:
    """One column: bytes per record for IPv4 and for IPv6."""

    width_v4: int
    width_v6: int

    def width(self, family: int) -> int:
        """Bytes per record."""
        return self.width_v4 if family == 4 else self.width_v6


COLUMNS: Final[Mapping[str, Column]] = {
    "id_low": Column(4, 4),
    "id_high": Column(4, 4),
    "origin": Column(2, 2),
    "version": Column(4, 4),
    "form": Column(1, 1),
    "proto": Column(1, 1),
    "state": Column(1, 1),
    "flags": Column(1, 1),
    "in_port": Column(1, 1),
    "out_port": Column(1, 1),
    "rule": Column(2, 2),
    "inside": Column(4, 16),
    "remote": Column(4, 16),
    "external": Column(4, 16),
    "inside_port": Column(2, 2),
    "remote_port": Column(2, 2),
    "external_port": Column(2, 2),
    "remaining_ms": Column(4, 4),
    "win": Column(28, 28),
    "counters": Column(32, 32),
}
"""What version 2 knows, in the order in which a section has them."""


@dataclass(frozen=True, slots=True)
class Section:
    """Columns of one kind of record."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


_KEY: Final = (
    "id_low",
    "id_high",
    "origin",
    "form",
    "proto",
    "inside",
    "remote",
    "inside_port",
    "remote_port",
)
SECTIONS: Final[Mapping[Op, Section]] = {
    Op.OPEN: Section(
        (*_KEY, "version", "state", "flags", "in_port", "out_port", "external", "external_port"), ("rule",)
    ),
    Op.STATE: Section((*_KEY, "version", "state", "flags")),
    Op.REST: Section((*_KEY, "version", "state", "flags"), ("rule", "remaining_ms", "win", "counters")),
    Op.DELETE: Section(_KEY),
}


@dataclass(frozen=True, slots=True)
class Part:
    """A section: ``n`` records of one kind and one address family, in columns.

    A column as long as one element holds the same for all.
    """

    op: Op
    n: int
    family: int
    columns: Mapping[str, bytes]


def part(n: int, family: int = 4, op: Op = Op.OPEN) -> Part:
    """A section of ``n`` records with every column, all zero."""
    section = SECTIONS[op]
    names = (*section.required, *section.optional)
    return Part(op, n, family, {name: bytes(n * COLUMNS[name].width(family)) for name in names})


def pack(parts: Iterable[Part]) -> bytes:
    """Sections as they stand in a batch."""
    packed: bytes = msgpack.packb(
        [{"op": int(some.op), "n": some.n, "f": some.family, "cols": dict(some.columns)} for some in parts]
    )
    return packed


def unpack(sections: bytes) -> tuple[Part, ...]:
    """What stands in a batch, ops and columns that are not known included."""
    return tuple(
        Part(Op(some["op"]), some["n"], some["f"], some["cols"]) for some in msgpack.unpackb(sections)
    )
