# SPDX-License-Identifier: Apache-2.0
"""A fake fast path: a dict of flows, with the promises of ``csrc/fp_abi.h`` towards sync.

Changes are tracked per flow and coalesce; deletes are tombstones until acknowledged; a bulk walk goes
through the table between changes; imports mark, refresh and sweep.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from flexha.core.events import FlowsDrained, Role
from flexha.core.sync_wire import COLUMNS
from flexha.units import Term

OP_UPSERT, OP_DELETE = 0, 1
TOMBSTONES_MAX = 40


@dataclass
class Fence:
    """Role and term as the workers see them, and the highest term that the peer claimed to reign in."""

    role: Role = Role.INIT
    term: Term = Term(0)
    heard: int = 0

    @property
    def is_active(self) -> bool:
        return self.role is Role.ACTIVE


@dataclass
class FakeFastpath:
    """Flows are id -> version."""

    origin: int
    fence: Fence = field(default_factory=Fence)
    flows: dict[int, int] = field(default_factory=dict)
    tracking: bool = False
    walking: list[int] | None = None
    stale: set[int] | None = None
    swept: int = 0
    complete: bool = False
    """An import has ended, and no other has begun."""
    lost: int = 0
    credit: int = 0
    acked_mark: int = 0
    _dirty: dict[int, int] = field(default_factory=dict)
    _tombstones: dict[int, tuple[int, int]] = field(default_factory=dict)
    _event_seq: int = 0
    _next_id: int = 0

    # ---- traffic, while ACTIVE -----------------------------------------------------------------------
    def open_flow(self) -> None:
        self._next_id += 1
        flow = self.origin << 40 | self._next_id
        self.flows[flow] = 1
        self._touch(flow, OP_UPSERT)

    def change_flow(self, flow: int) -> None:
        self.flows[flow] += 1
        self._touch(flow, OP_UPSERT)

    def close_flow(self, flow: int) -> None:
        version = self.flows.pop(flow)
        if not self.tracking:
            return
        if len(self._tombstones) >= TOMBSTONES_MAX:
            self.lost += 1
            self._dirty.pop(flow, None)
            return
        self._tombstones[flow] = (version + 1, 0)
        self._touch(flow, OP_DELETE)

    def _touch(self, flow: int, op: int) -> None:
        if self.tracking:
            self._dirty[flow] = op

    # ---- changes out ---------------------------------------------------------------------------------
    def track(self, *, on: bool) -> None:
        self.tracking = on
        if not on:
            self._dirty.clear()
            self._tombstones.clear()
            self.lost = 0

    def start_walk(self) -> None:
        assert self.walking is None, "StartBulk while a walk is under way"
        self.walking = list(self.flows)

    def drain(self, most: int) -> FlowsDrained | None:
        """Up to ``most`` records within the credit: changes first, then the walk."""
        room = min(most, self.credit)
        records: list[tuple[int, int, int]] = []
        mark = 0
        while self._dirty and len(records) < room:
            flow = next(iter(self._dirty))
            op = self._dirty.pop(flow)
            self._event_seq += 1
            mark = self._event_seq
            if op == OP_DELETE:
                version, _ = self._tombstones[flow]
                self._tombstones[flow] = (version, mark)
            else:
                version = self.flows[flow]
            records.append((flow, version, op))
        while self.walking and len(records) < room:
            flow = self.walking.pop()
            if flow in self.flows:
                records.append((flow, self.flows[flow], OP_UPSERT))
        lost, self.lost = (self.lost, 0) if self.credit else (0, self.lost)
        if not records and not lost:
            return None
        self.credit -= len(records)
        marks = {0: mark} if mark else {}
        return FlowsDrained(len(records), 4, pack(records), marks, lost)

    def walk_ended(self) -> bool:
        """Whether a walk has just been drained to its end; said once."""
        if self.walking is None or self.walking or not self.credit:
            return False
        self.walking = None
        return True

    def acknowledge(self, marks: Mapping[int, int]) -> None:
        self.acked_mark = max(self.acked_mark, marks.get(0, 0))
        acked = [flow for flow, (_, mark) in self._tombstones.items() if 0 < mark <= self.acked_mark]
        for flow in acked:
            del self._tombstones[flow]

    # ---- records in ----------------------------------------------------------------------------------
    def begin_import(self) -> None:
        self.stale = set(self.flows)
        self.complete = False

    def import_flows(self, columns: Mapping[str, bytes]) -> None:
        assert not self.fence.is_active, "import while ACTIVE"
        for flow, version, op in unpack(columns):
            if self.stale is not None:
                self.stale.discard(flow)
            if op == OP_DELETE:
                self.flows.pop(flow, None)
            elif version >= self.flows.get(flow, 0):
                self.flows[flow] = version

    def end_import(self) -> None:
        for flow in self.stale or ():
            self.flows.pop(flow, None)
            self.swept += 1
        self.stale = None
        self.complete = True


def pack(records: list[tuple[int, int, int]]) -> dict[str, bytes]:
    """Records (id, version, op) as the columns of a batch; what the fake has no use for is zero."""
    n = len(records)
    columns = {name: bytes(n * column.width_v4) for name, column in COLUMNS.items()}
    columns["id"] = struct.pack(f"<{n}Q", *(r[0] for r in records))
    columns["version"] = struct.pack(f"<{n}I", *(r[1] for r in records))
    columns["op"] = bytes(r[2] for r in records)
    return columns


def unpack(columns: Mapping[str, bytes]) -> list[tuple[int, int, int]]:
    """The records in ``columns``."""
    n = len(columns["op"])
    ids = struct.unpack(f"<{n}Q", columns["id"])
    versions = struct.unpack(f"<{n}I", columns["version"])
    return list(zip(ids, versions, columns["op"], strict=True))
