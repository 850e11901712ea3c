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
from flexha.fastpath.lib import STRUCT_SIZES, CData, ffi, lib
from flexha.fastpath.marshal import addr_of
from flexha.fastpath.records import FlowFlag, FlowRecord, FlowState, Form

COLUMN_WIDTHS: Final[Mapping[str, int | None]] = MappingProxyType(
    {
        "id": 8,
        "op": 1,
        "form": 1,
        "proto": 1,
        "state": 1,
        "flags": 1,
        "in_port": 1,
        "out_port": 1,
        "origin": 2,
        "version": 4,
        "remaining_ms": 4,
        "pool": 4,
        "rule": 4,
        "inside": None,
        "remote": None,
        "external": None,
        "inside_port": 2,
        "remote_port": 2,
        "external_port": 2,
        "win": 28,
        "counters": 32,
    }
)
"""Columns of a batch, named as in ``struct fp_cols``: bytes per record; None: an address of the family."""

_ADDRESS_BYTES: Final = {4: 4, 6: 16}
_RECORD_SIZE: Final = STRUCT_SIZES["struct fp_flow_rec"]
_EV_SEQ_OFFSET: Final = ffi.offsetof("struct fp_flow_rec", "ev_seq")
_EV_SEQ: Final = struct.Struct("=Q")

# struct fp_flow_rec up to `rule`, and the counters at its end: what people are shown. Ports are big-endian
# and therefore raw bytes here.
_HEAD: Final = struct.Struct("=QQHBBBBBBII16s16s16s2s2s2sBBII")
_TAIL: Final = struct.Struct("=4Q")
_TAIL_OFFSET: Final = ffi.offsetof("struct fp_flow_rec", "packets")

if _HEAD.size != ffi.offsetof("struct fp_flow_rec", "win"):  # pragma: no cover
    raise FastpathError(errno.EPROTO, "struct fp_flow_rec", "its layout is not the one of batch.py")


def column_width(name: str, family: int) -> int:
    """Bytes per record of a column, for address family 4 or 6."""
    width = COLUMN_WIDTHS[name]
    return _ADDRESS_BYTES[family] if width is None else width


class RecordBatch:
    """Room for ``capacity`` records (``struct fp_flow_rec``) and their columns."""

    def __init__(self, capacity: int) -> None:
        self.capacity: Final = capacity
        self._raw: Final = bytearray(capacity * _RECORD_SIZE)
        self._records: Final = ffi.from_buffer("struct fp_flow_rec[]", self._raw)
        self._columns: Final = {name: bytearray(capacity * column_width(name, 6)) for name in COLUMN_WIDTHS}
        self._cols: Final = ffi.new("struct fp_cols *")
        for name, column in self._columns.items():
            setattr(self._cols, name, ffi.from_buffer("uint8_t[]", column))
        self._cols_in: Final = ffi.new("struct fp_cols *")

    def at(self, index: int) -> CData:
        """Where record ``index`` stands, for C to fill or to read."""
        return self._records + index

    def ev_seq(self, index: int) -> int:
        """The worker-local sequence number of a drained record."""
        return int(_EV_SEQ.unpack_from(self._raw, index * _RECORD_SIZE + _EV_SEQ_OFFSET)[0])

    def pack(self, n: int, family: int) -> tuple[int, dict[str, bytes]]:
        """Columns of those of the first ``n`` records that are of ``family``, and how many these are."""
        count = lib.fp_cols_pack(self._records, n, family, self._cols)
        if count < 0:
            raise FastpathError(-count, "fp_cols_pack")
        columns = {
            name: bytes(memoryview(column)[: count * column_width(name, family)])
            for name, column in self._columns.items()
        }
        return count, columns

    def unpack(self, n: int, family: int, columns: Mapping[str, bytes]) -> None:
        """Fill the first ``n`` records from columns. Unknown columns are skipped, missing ones are zero.

        Raises: FastpathError(EINVAL) for a column of the wrong length, or values that no peer sends.
        """
        if family not in _ADDRESS_BYTES:
            raise FastpathError(
                errno.EINVAL, "fp_cols_unpack", f"address family {family!r} is neither 4 nor 6"
            )
        keep_alive = []
        for name in COLUMN_WIDTHS:
            column = columns.get(name)
            if column is None:
                setattr(self._cols_in, name, ffi.NULL)
                continue
            expected = n * column_width(name, family)
            if len(column) != expected:
                raise FastpathError(
                    errno.EINVAL, "fp_cols_unpack", f"column {name} has {len(column)} bytes, not {expected}"
                )
            buffer = ffi.from_buffer("uint8_t[]", column)
            keep_alive.append(buffer)
            setattr(self._cols_in, name, buffer)
        rc = lib.fp_cols_unpack(self._cols_in, n, family, self._records)
        if rc < 0:
            raise FastpathError(-rc, "fp_cols_unpack", "a record holds a value that no peer sends")

    def flow_records(self, n: int) -> list[FlowRecord]:
        """The first ``n`` records, for people."""
        return [self._flow_record(i) for i in range(n)]

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
            pool,
            rule,
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
        )
