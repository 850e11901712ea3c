# SPDX-License-Identifier: Apache-2.0
"""A buffer of flow records, and its ways into columns and back.

Python's cost is per batch, not per record: C packs and unpacks the columns (``csrc/cols.c``), and the ABI's
records stay in one bytearray for the life of the batch.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flexha.fastpath.errors import FastpathError
from flexha.fastpath.fates import FatePage
from flexha.fastpath.lib import STRUCT_SIZES, CData, ffi, lib
from flexha.fastpath.marshal import addr_of, lib_constant
from flexha.fastpath.records import Fate, FlowFlag, FlowRecord, FlowState, Form, Op, Part

COLUMN_WIDTHS: Final[Mapping[str, int | None]] = MappingProxyType(
    {
        "id_low": 4,
        "id_high": 4,
        "origin": 2,
        "version": 4,
        "form": 1,
        "proto": 1,
        "state": 1,
        "flags": 1,
        "in_port": 1,
        "out_port": 1,
        "rule": 2,
        "inside": None,
        "remote": None,
        "external": None,
        "inside_port": 2,
        "remote_port": 2,
        "external_port": 2,
        "remaining_ms": 4,
        "win": 28,
        "counters": 32,
    }
)
"""Columns, named and ordered as in ``struct fp_cols``: bytes per record; None: an address of the family."""

OP_COLUMNS: Final[Mapping[Op, tuple[str, ...]]] = MappingProxyType(
    {
        op: tuple(name for i, name in enumerate(COLUMN_WIDTHS) if lib.fp_cols_of(op, 0) >> i & 1)
        for op in (Op.OPEN, Op.STATE, Op.REST, Op.DELETE)
    }
)
"""The columns of each op, in the order of the sections of a batch: who replaces a session comes before who is
gone, and what is told of a session after its first word."""

_ADDRESS_BYTES: Final = {4: 4, 6: 16}
_RECORD_SIZE: Final = STRUCT_SIZES["struct fp_flow_rec"]
_EV_SEQ_OFFSET: Final = ffi.offsetof("struct fp_flow_rec", "ev_seq")
_EV_SEQ: Final = struct.Struct("=Q")
_FATE_OFFSET: Final = ffi.offsetof("struct fp_flow_rec", "fate")
_ABSURD: Final = lib_constant("FP_ABSURD")
_N_OPS: Final = len(Op)

# struct fp_flow_rec up to `rule`, and the counters at its end: what people are shown. Ports are big-endian
# and therefore raw bytes here.
_HEAD: Final = struct.Struct("=QQHBBBBBBII16s16s16s2s2s2sBBHBBI")
_TAIL: Final = struct.Struct("=4Q")
_TAIL_OFFSET: Final = ffi.offsetof("struct fp_flow_rec", "packets")

if _HEAD.size != ffi.offsetof("struct fp_flow_rec", "win"):  # pragma: no cover
    raise FastpathError(errno.EPROTO, "struct fp_flow_rec", "its layout is not the one of batch.py")


def column_width(name: str, family: int) -> int:
    """Bytes per record of a column, for address family 4 or 6."""
    width = COLUMN_WIDTHS[name]
    return _ADDRESS_BYTES[family] if width is None else width


_BITS: Final = {name: 1 << i for i, name in enumerate(COLUMN_WIDTHS)}


class RecordBatch:
    """Room for ``capacity`` records (``struct fp_flow_rec``) and their columns."""

    def __init__(self, capacity: int) -> None:
        self.capacity: Final = capacity
        self._raw: Final = bytearray(capacity * _RECORD_SIZE)
        self._records: Final = ffi.from_buffer("struct fp_flow_rec[]", self._raw)
        self._columns: Final = {
            name: memoryview(bytearray(capacity * column_width(name, 6))) for name in COLUMN_WIDTHS
        }
        self._columns_of: Final = {
            (op, family): tuple(
                (name, _BITS[name], column_width(name, family), self._columns[name]) for name in names
            )
            for op, names in OP_COLUMNS.items()
            for family in _ADDRESS_BYTES
        }
        self._cols: Final = ffi.new("struct fp_cols *")
        for name, column in self._columns.items():
            setattr(self._cols, name, ffi.from_buffer("uint8_t[]", column))
        self._cols_in: Final = ffi.new("struct fp_cols *")
        self._counts: Final = ffi.new("uint32_t[]", 2 * _N_OPS)
        self._constant: Final = ffi.new("uint32_t *")

    def at(self, index: int) -> CData:
        """Where record ``index`` stands, for C to fill or to read."""
        return self._records + index

    def ev_seq(self, index: int) -> int:
        """The worker-local sequence number of a drained record."""
        return int(_EV_SEQ.unpack_from(self._raw, index * _RECORD_SIZE + _EV_SEQ_OFFSET)[0])

    def pack(self, start: int, end: int) -> tuple[int, tuple[Part, ...]]:
        """Records from ``start`` on, up to the first marker or ``end``: where that is, and their sections."""
        counts = self._counts
        n = lib.fp_rec_census(self._records + start, end - start, counts)
        parts = tuple(
            self._part(start, n, op, family)
            for op in OP_COLUMNS
            for family in (4, 6)
            if counts[2 * op + (family == 6)]
        )
        return start + n, parts

    def _part(self, start: int, n: int, op: Op, family: int) -> Part:
        count = lib.fp_cols_pack(self._records + start, n, family, op, self._cols, self._constant)
        if count < 0:
            raise FastpathError(-count, "fp_cols_pack")
        constant = self._constant[0]
        columns = {
            name: bytes(column[: width if constant & bit else count * width])
            for name, bit, width, column in self._columns_of[op, family]
        }
        return Part(op, count, family, columns)

    def unpack(self, at: int, part: Part) -> None:
        """Fill records from ``at`` on. Unknown columns are skipped.

        Raises: FastpathError(EINVAL) for a column of the wrong length, a required one that is missing, or
        values that no peer sends.
        """
        names = self._columns_of.get((part.op, part.family))
        if names is None:
            raise FastpathError(
                errno.EINVAL,
                "fp_cols_unpack",
                f"there is no op {part.op!r}, or address family {part.family!r}",
            )
        if not 0 <= part.n <= self.capacity - at:
            raise FastpathError(
                errno.EINVAL,
                "fp_cols_unpack",
                f"{at} + {part.n} records in one batch, at most {self.capacity}",
            )
        cols, n, columns = self._cols_in, part.n, part.columns
        keep_alive = []
        constant = 0
        for name, bit, width, _ in names:  # C looks at the op's columns only
            column = columns.get(name)
            if column is None:
                setattr(cols, name, ffi.NULL)
                continue
            if len(column) == width:
                constant |= bit
            elif len(column) != n * width:
                raise FastpathError(
                    errno.EINVAL,
                    "fp_cols_unpack",
                    f"column {name} has {len(column)} bytes, not {n * width} or {width}",
                )
            buffer = ffi.from_buffer(column)
            keep_alive.append(buffer)
            setattr(cols, name, buffer)
        rc = lib.fp_cols_unpack(cols, n, part.family, part.op, constant, self._records + at)
        if rc < 0:
            raise FastpathError(
                -rc,
                "fp_cols_unpack",
                "a required column is missing, or a record holds a value that no peer sends",
            )

    def flow_records(self, n: int) -> list[FlowRecord]:
        """The first ``n`` records, for people."""
        return [self._flow_record(i) for i in range(n)]

    def not_taken(self, n: int) -> tuple[int, ...]:
        """Places of the first ``n`` records that an import has not taken."""
        return tuple(i for i, fate in enumerate(self._fates(n)) if fate)

    def absurd(self, n: int) -> int:
        """How many of the first ``n`` records of an import no node of this configuration can have."""
        return self._fates(n).count(_ABSURD)

    def _fates(self, n: int) -> bytearray:
        return self._raw[_FATE_OFFSET : n * _RECORD_SIZE : _RECORD_SIZE]

    def fate_page(self, n: int) -> FatePage:
        """The first ``n`` records, by what decides about them if this node dies."""
        return FatePage(memoryview(self._raw)[: n * _RECORD_SIZE], self._flow_record)

    def _flow_record(self, index: int) -> FlowRecord:
        base = index * _RECORD_SIZE
        (
            flow_id,
            _ev_seq,
            origin,
            _op,
            form,
            proto,
            state,
            flags,
            shard,
            version,
            remaining_ms,
            inside,
            remote,
            external,
            inside_port,
            remote_port,
            external_port,
            in_port,
            out_port,
            rule,
            pool,
            fate,
            _has,
        ) = _HEAD.unpack_from(self._raw, base)
        out_packets, in_packets, out_bytes, in_bytes = _TAIL.unpack_from(self._raw, base + _TAIL_OFFSET)
        return FlowRecord(
            form=Form(form),
            proto=proto,
            state=FlowState(state),
            flags=FlowFlag(flags),
            inside=addr_of(inside),
            inside_port=int.from_bytes(inside_port, "big"),
            remote=addr_of(remote),
            remote_port=int.from_bytes(remote_port, "big"),
            external=addr_of(external),
            external_port=int.from_bytes(external_port, "big"),
            in_port=in_port,
            out_port=out_port,
            pool=pool,
            rule=rule,
            origin=origin,
            id=flow_id,
            version=version,
            shard=shard,
            remaining_ms=remaining_ms,
            packets=(out_packets, in_packets),
            bytes=(out_bytes, in_bytes),
            fate=Fate(fate),
        )
