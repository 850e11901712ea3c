# SPDX-License-Identifier: Apache-2.0
"""What becomes of sessions if this node dies now: pages of a walk, by what decides about each record.

A table may hold a million sessions and the answer is a few numbers, so records are not made into objects:
the few fields that decide are taken out of C's records by ``struct``, and counted.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from flexha.fastpath.lib import STRUCT_SIZES, ffi
from flexha.fastpath.records import FlowRecord

_RECORD: Final = "struct fp_flow_rec"


class FateKey(NamedTuple):
    """What decides about a session; members as in ``struct fp_flow_rec``, in their order there."""

    state: int
    flags: int
    shard: int
    rule: int
    pool: int
    fate: int


def _fields() -> struct.Struct:
    """The members of ``FateKey`` out of a record; the rest of it is skipped."""
    form, at = "=", 0
    for name in FateKey._fields:
        offset = ffi.offsetof(_RECORD, name)
        code = "H" if name == "rule" else "B"
        form += f"{offset - at}x{code}"
        at = offset + struct.calcsize(code)
    return struct.Struct(f"{form}{STRUCT_SIZES[_RECORD] - at}x")


_FIELDS: Final = _fields()


class FatePage:
    """A page of a walk: to be read before anything else is drained, imported or walked."""

    def __init__(self, raw: memoryview, record: Callable[[int], FlowRecord]) -> None:
        self._keys: list[tuple[int, ...]] = list(_FIELDS.iter_unpack(raw))
        self._record = record

    def counts(self) -> Mapping[FateKey, int]:
        """Sessions by what decides about them."""
        return {FateKey._make(key): n for key, n in Counter(self._keys).items()}

    def records(self, wanted: Callable[[FateKey], bool]) -> Iterator[FlowRecord]:
        """Those that are wanted, whole."""
        answers: dict[tuple[int, ...], bool] = {}
        for index, key in enumerate(self._keys):
            if key not in answers:
                answers[key] = wanted(FateKey._make(key))
            if answers[key]:
                yield self._record(index)
