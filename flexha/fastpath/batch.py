# SPDX-License-Identifier: Apache-2.0
"""A buffer of flow records, and its ways into the sections of a message and back.

Python's cost is per batch, not per record, and not per column: C packs and unpacks (``csrc/sections.c``), and
the ABI's records stay in one bytearray for the life of the buffer.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from flexha.fastpath.errors import FastpathError
from flexha.fastpath.fates import FatePage
from flexha.fastpath.flow_page import FlowPage
from flexha.fastpath.lib import STRUCT_SIZES, CData, ffi, lib
from flexha.fastpath.marshal import addr_of, lib_constant, text
from flexha.fastpath.records import Fate, FlowFlag, FlowRecord, FlowState, Form

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

_ADDRESS_BYTES: Final = {4: 4, 6: 16}
_RECORD_SIZE: Final = STRUCT_SIZES["struct fp_flow_rec"]
_EV_SEQ_OFFSET: Final = ffi.offsetof("struct fp_flow_rec", "ev_seq")
_EV_SEQ: Final = struct.Struct("=Q")
_FATE_OFFSET: Final = ffi.offsetof("struct fp_flow_rec", "fate")
_ABSURD: Final = lib_constant("FP_ABSURD")

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


_SECTION_BYTES: Final = 512
"""More than the names and heads of one section take."""
_SECTIONS: Final = 8
"""One for each op and family."""


class RecordBatch:
    """Room for ``capacity`` records (``struct fp_flow_rec``), their columns, and a message's sections."""

    def __init__(self, capacity: int) -> None:
        self.capacity: Final = capacity
        self._raw: Final = bytearray(capacity * _RECORD_SIZE)
        self._records: Final = ffi.from_buffer("struct fp_flow_rec[]", self._raw)
        widths = {name: column_width(name, 6) for name in COLUMN_WIDTHS}
        self._columns: Final = [ffi.new("uint8_t[]", capacity * width) for width in widths.values()]
        self._scratch: Final = ffi.new("struct fp_cols *", dict(zip(widths, self._columns, strict=True)))
        self._sections: Final = bytearray(capacity * sum(widths.values()) + _SECTIONS * _SECTION_BYTES)
        self._sections_out: Final = ffi.from_buffer("uint8_t[]", self._sections)
        self._view: Final = memoryview(self._sections)
        self._used: Final = ffi.new("uint32_t *")
        self._unknown: Final = ffi.new("uint32_t *")
        self._error: Final = ffi.new("struct fp_error *")

    def at(self, index: int) -> CData:
        """Where record ``index`` stands, for C to fill or to read."""
        return self._records + index

    def ev_seq(self, index: int) -> int:
        """The worker-local sequence number of a drained record."""
        return int(_EV_SEQ.unpack_from(self._raw, index * _RECORD_SIZE + _EV_SEQ_OFFSET)[0])

    def pack(self, start: int, end: int) -> tuple[int, bytes]:
        """Records from ``start`` on, up to the first marker or ``end``: where that is, and their sections."""
        n = lib.fp_sections_pack(
            self._records + start,
            end - start,
            self._scratch,
            self._sections_out,
            len(self._sections),
            self._used,
        )
        if n < 0:
            raise FastpathError(-n, "fp_sections_pack")
        return start + n, bytes(self._view[: self._used[0]])

    def unpack(self, sections: bytes) -> tuple[int, int]:
        """Fill records from the first on: how many, and how many ops and columns were unknown.

        Raises: FastpathError(EBADMSG) for what is no msgpack, FastpathError(EDOM) for a wrong field,
        FastpathError(ENODATA) for a column that is missing or of a wrong length, FastpathError(EINVAL) for
        values that no peer sends.
        """
        n = lib.fp_sections_unpack(
            ffi.from_buffer(sections), len(sections), self._records, self.capacity, self._unknown, self._error
        )
        if n < 0:
            raise FastpathError(-n, "fp_sections_unpack", text(self._error.text))
        return n, self._unknown[0]

    def flow_records(self, n: int) -> list[FlowRecord]:
        """The first ``n`` records, for people."""
        return [self._flow_record(i) for i in range(n)]

    def pick(self, places: Sequence[int]) -> None:
        """Let only these of the records stand, from the first on. ``places`` ascend."""
        for to, place in enumerate(places):
            record = self._raw[place * _RECORD_SIZE : (place + 1) * _RECORD_SIZE]
            self._raw[to * _RECORD_SIZE : (to + 1) * _RECORD_SIZE] = record

    def not_taken(self, n: int) -> tuple[int, ...]:
        """Places of the first ``n`` records that an import has not taken."""
        return tuple(i for i, fate in enumerate(self._fates(n)) if fate)

    def absurd(self, n: int) -> int:
        """How many of the first ``n`` records of an import no node of this configuration can have."""
        return self._fates(n).count(_ABSURD)

    def _fates(self, n: int) -> bytearray:
        return self._raw[_FATE_OFFSET : n * _RECORD_SIZE : _RECORD_SIZE]

    def flow_page(self, n: int) -> FlowPage:
        """The first ``n`` records, to be chosen from."""
        return FlowPage(self._records, n, self._flow_record)

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
