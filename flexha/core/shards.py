# SPDX-License-Identifier: Apache-2.0
"""Sets of shards. A table has 64 of them, so a set is one number: bit i is shard i."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

SHARDS: Final = 64

Shards = int
"""A set of shards."""

NONE: Final[Shards] = 0
ALL: Final[Shards] = (1 << SHARDS) - 1


def members(shards: Shards) -> Iterator[int]:
    """The numbers of the shards, ascending."""
    while shards:
        lowest = shards & -shards
        yield lowest.bit_length() - 1
        shards ^= lowest


def listed(shards: Shards) -> list[int]:
    """The numbers of the shards, for people."""
    return list(members(shards))


def select(values: bytes, width: int, shards: Shards, wanted: Shards) -> bytes:
    """``values`` has ``width`` bytes for each of ``shards``, ascending; those of ``wanted``."""
    if wanted == shards:
        return values
    return b"".join(
        values[width * i : width * (i + 1)] for i, shard in enumerate(members(shards)) if wanted >> shard & 1
    )
