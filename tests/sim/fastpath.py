# SPDX-License-Identifier: Apache-2.0
"""A fake fast path: a dict of flows, with the promises of ``csrc/fp_abi.h`` towards sync.

Two workers, each with its shards, a queue of changes, and a ring behind it: what lies in the ring when a
sweep begins or a digest is made is where mistakes hide. Changes coalesce in the queue; deletes are tombstones
until acknowledged; too many of either, and their shard is lost. Digests are not kept but computed: the oracle
of those that C keeps.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgpack

from flexha.core.events import (
    DigestDrained,
    Event,
    FlowsDrained,
    Role,
    ShardsLost,
    SweepBegun,
    SweepWalked,
    Wires,
)
from flexha.core.shards import ALL, NONE, SHARDS, Shards, members
from flexha.fastpath import Op
from flexha.units import Ns, Term

WORKERS = 2
RING_RECORDS = 24
QUEUE_MAX = 60
TOMBSTONES_MAX = 40

Told = tuple[int, int, Op]
"""What a record says: id, version, kind."""


@dataclass
class Fence:
    """Role and term as the workers see them, and how long they may believe it: a copy of what C says."""

    role: Role = Role.INIT
    term: Term = Term(0)
    lease_until: Ns = Ns(0)

    @property
    def is_active(self) -> bool:
        return self.role is Role.ACTIVE


@dataclass
class Worker:
    """The queue of one worker, and the ring that it empties into."""

    shards: Shards
    queue: dict[int, None] = field(default_factory=dict)
    tombstones: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Id -> version, and the mark of its record, 0 before it was made."""
    ring: deque[tuple[int, Told | Event]] = field(default_factory=deque)
    """Records and markers; beside a record its mark, beside a marker the number of its sweep."""
    sweep_asked: Shards | None = None
    """A sweep of these, perhaps of none, is to begin."""
    walking: Shards = NONE
    to_walk: list[int] | None = None
    is_asked: bool = False
    event_seq: int = 0

    @property
    def room(self) -> int:
        return RING_RECORDS - len(self.ring)

    @property
    def has_work(self) -> bool:
        sweeps = self.sweep_asked is not None or self.to_walk is not None
        return bool(self.queue) or sweeps or self.is_asked


@dataclass
class FakeFastpath:
    """Flows are id -> version; a flow is known to both nodes while its epoch is that of its shard."""

    origin: int
    on_work: Callable[[], None] = lambda: None
    """Called when there may be something to do, or to drain."""
    now: Callable[[], Ns] = lambda: Ns(0)
    fence: Fence = field(default_factory=Fence)
    wires: Wires = Wires.READ
    flows: dict[int, int] = field(default_factory=dict)
    tracking: bool = False
    incomplete: Shards = ALL
    """Shards that no bulk has completed."""
    lost: Shards = NONE
    credit: int = 0
    commit: bool = False
    swept: int = 0
    unknown: int = 0
    workers: list[Worker] = field(
        default_factory=lambda: [
            Worker(sum(1 << shard for shard in range(w, SHARDS, WORKERS))) for w in range(WORKERS)
        ]
    )
    _epoch: dict[int, int] = field(default_factory=dict)
    """Of each flow that was ever told, or imported."""
    _epochs: list[int] = field(default_factory=lambda: [1] * SHARDS)
    _used: dict[int, Ns] = field(default_factory=dict)
    """When a packet of each flow last came here."""
    _sweep_no: int = 0
    _next_id: int = 0

    # ---- traffic, while ACTIVE -----------------------------------------------------------------------
    def open_flow(self) -> None:
        self._next_id += 1
        flow = self.origin << 40 | self._next_id
        self.flows[flow] = 1
        self._touch(flow)

    def change_flow(self, flow: int) -> None:
        self.flows[flow] += 1
        self._touch(flow)

    def close_flow(self, flow: int) -> None:
        self.on_work()
        version, worker = self.flows.pop(flow), self._worker(flow)
        self._used.pop(flow, None)
        was_told = self._epoch.pop(flow, None) is not None
        if not self.tracking or self.lost >> shard_of(flow) & 1:
            return
        worker.queue.pop(flow, None)
        if not was_told:
            return  # nobody has to hear of its end
        if len(worker.tombstones) >= TOMBSTONES_MAX:
            self._lose(shard_of(flow))
            return
        worker.tombstones[flow] = (version + 1, 0)
        worker.queue[flow] = None

    def _touch(self, flow: int) -> None:
        self.on_work()
        self._used[flow] = self.now()
        worker = self._worker(flow)
        if not self.tracking or self.lost >> shard_of(flow) & 1 or flow in worker.queue:
            return
        if len(worker.queue) >= QUEUE_MAX:
            self._lose(shard_of(flow))
        else:
            worker.queue[flow] = None

    def _lose(self, shard: int) -> None:
        """No room for a change: all of its shard counts as untold until the next sweep."""
        self.lost |= 1 << shard
        self._epochs[shard] += 1
        worker = self.workers[shard % WORKERS]
        worker.walking &= ~self.lost
        worker.queue = {flow: None for flow in worker.queue if shard_of(flow) != shard}
        worker.tombstones = {f: grave for f, grave in worker.tombstones.items() if shard_of(f) != shard}

    def _worker(self, flow: int) -> Worker:
        return self.workers[shard_of(flow) % WORKERS]

    def _is_known(self, flow: int) -> bool:
        return self._epoch.get(flow) == self._epochs[shard_of(flow)]

    # ---- changes out ---------------------------------------------------------------------------------
    def track(self, *, on: bool) -> None:
        self.tracking = on
        self.lost = NONE
        self._epochs = [epoch + 1 for epoch in self._epochs]
        for worker in self.workers:
            worker.queue.clear()
            worker.tombstones.clear()
            worker.ring.clear()
            worker.sweep_asked, worker.walking, worker.to_walk = None, NONE, None
            worker.is_asked = False

    def start_sweep(self, shards: Shards) -> None:
        assert self.tracking
        self.on_work()
        self._sweep_no += 1
        for worker in self.workers:
            worker.sweep_asked = (worker.sweep_asked or NONE) | (shards & worker.shards)

    def ask_digest(self) -> None:
        self.on_work()
        for worker in self.workers:
            worker.is_asked = True

    def grant(self, records: int) -> None:
        """So many records may be drained."""
        self.credit = records
        self.on_work()

    @property
    def is_busy(self) -> bool:
        """Whether a pass of the workers, or a drain, would do anything."""
        if not self.tracking:
            return False
        if self.credit > 0 and (self.lost or any(worker.ring for worker in self.workers)):
            return True
        return any(worker.room and worker.has_work for worker in self.workers)

    def work(self) -> None:
        """What the workers do in a pass: fill their rings as far as there is room."""
        if self.tracking:
            for worker in self.workers:
                self._work(worker)

    def _begin_sweep(self, worker: Worker, shards: Shards) -> None:
        """From here on, in the stream as in the epochs, the peer knows nothing of these shards."""
        for shard in members(shards):
            self._epochs[shard] += 1
        self.lost &= ~shards
        worker.sweep_asked = None
        worker.walking |= shards
        worker.to_walk = list(self.flows)
        worker.ring.append((self._sweep_no, SweepBegun(shards)))

    def _work(self, worker: Worker) -> None:
        if worker.sweep_asked is not None and worker.room:
            self._begin_sweep(worker, worker.sweep_asked)
        while worker.queue and worker.room:
            flow = next(iter(worker.queue))
            del worker.queue[flow]
            self._export(worker, flow)
        if worker.is_asked and not worker.queue and worker.room:
            worker.is_asked = False
            shards = worker.shards & ~self.lost & ~worker.walking
            digest = DigestDrained(shards, *self.digests(shards), of=worker.shards)
            worker.ring.append((self._sweep_no, digest))
        while worker.to_walk and worker.room:
            flow = worker.to_walk.pop()
            is_due = flow in self.flows and not self._is_known(flow) and flow not in worker.queue
            if is_due and worker.walking >> shard_of(flow) & 1:
                self._export(worker, flow)
        if worker.to_walk == [] and worker.room:
            worker.ring.append((self._sweep_no, SweepWalked(worker.walking)))
            worker.walking, worker.to_walk = NONE, None

    def _export(self, worker: Worker, flow: int) -> None:
        worker.event_seq += 1
        if flow in self.flows:
            version, op = self.flows[flow], Op.STATE if self._is_known(flow) else Op.OPEN
            self._epoch[flow] = self._epochs[shard_of(flow)]
        else:
            (version, _), op = worker.tombstones[flow], Op.DELETE
            worker.tombstones[flow] = (version, worker.event_seq)
        worker.ring.append((worker.event_seq, (flow, version, op)))

    def drain(self, most: int) -> list[Event]:
        """Up to ``most`` records within the credit, as one batch, and the marker that ends it."""
        events: list[Event] = []
        records: list[Told] = []
        marks: dict[int, int] = {}
        lost = NONE
        for index, worker in enumerate(self.workers):
            while worker.ring and not events and len(records) < min(most, self.credit):
                number, item = worker.ring.popleft()
                if isinstance(item, tuple):
                    marks[index] = number
                    records.append(item)
                elif not isinstance(item, SweepWalked) or number == self._sweep_no:
                    events.append(item)
            if not worker.ring:  # else there may be more of those shards from before their loss
                lost |= self.lost & worker.shards
        if records:
            self.credit -= len(records)
            events.insert(0, FlowsDrained(pack(records), len(records), marks))
        if lost and self.credit:
            events.append(ShardsLost(lost))
        return events

    def acknowledge(self, marks: Mapping[int, int]) -> None:
        for index, acked in marks.items():
            tombstones = self.workers[index].tombstones
            for flow in [flow for flow, (_, mark) in tombstones.items() if 0 < mark <= acked]:
                del tombstones[flow]

    # ---- records in ----------------------------------------------------------------------------------
    def begin_import(self, shards: Shards) -> None:
        if shards == ALL:
            self.incomplete = ALL
        for shard in members(shards):
            self._epochs[shard] += 1

    def import_flows(self, records: list[Told]) -> None:
        assert not self.fence.is_active, "import while ACTIVE"
        for flow, version, op in records:
            if op is Op.DELETE:
                self.flows.pop(flow, None)
                self._epoch.pop(flow, None)
            elif op is Op.OPEN or self._is_known(flow):
                # This node may have been ACTIVE, and have counted versions that the peer has not.
                self.flows[flow] = max(version, self.flows.get(flow, 0)) if self._is_known(flow) else version
                self._epoch[flow] = self._epochs[shard_of(flow)]
            else:
                self.unknown += 1

    def used_since(self, since: Ns) -> set[int]:
        """Flows that a packet of has come since then."""
        return {flow for flow in self.flows if self._used.get(flow, -1) >= since}

    def stranded(self, shards: Shards, since: Ns) -> list[Told]:
        """What ``end_import`` would remove, and was in use since then."""
        assert not self.fence.is_active
        used = self.used_since(since)
        return [
            (flow, version, Op.OPEN)
            for flow, version in self.flows.items()
            if shards >> shard_of(flow) & 1 and not self._is_known(flow) and flow in used
        ]

    def adopt(self, records: list[Told]) -> int:
        """Sessions of the peer; one that is here stays as it is."""
        assert self.fence.is_active, "nobody else is offered anything"
        for flow, version, _ in records:
            if flow not in self.flows:
                self._epoch.pop(flow, None)
                self.flows[flow] = version + 1
                self._touch(flow)
        return len(records)

    def end_import(self, shards: Shards) -> None:
        self.incomplete &= ~shards
        for flow in [f for f in self.flows if shards >> shard_of(f) & 1 and not self._is_known(f)]:
            del self.flows[flow]
            self.swept += 1

    # ---- digests -------------------------------------------------------------------------------------
    def digests(self, shards: Shards) -> tuple[bytes, bytes]:
        """Sums and counts over what both nodes know."""
        sums, counts = [0] * SHARDS, [0] * SHARDS
        for flow, version in self.flows.items():
            if self._is_known(flow):
                shard = shard_of(flow)
                sums[shard] = (sums[shard] + hash((flow, version))) & ((1 << 64) - 1)
                counts[shard] += 1
        wanted = list(members(shards))
        return (
            struct.pack(f"<{len(wanted)}Q", *(sums[s] for s in wanted)),
            struct.pack(f"<{len(wanted)}I", *(counts[s] for s in wanted)),
        )

    def compare(self, shards: Shards, sums: bytes, counts: bytes) -> Shards:
        """Which of the shards have other digests here."""
        own_sums, own_counts = self.digests(shards)
        differing = NONE
        for i, shard in enumerate(members(shards)):
            same = sums[8 * i : 8 * i + 8] == own_sums[8 * i : 8 * i + 8]
            if not same or counts[4 * i : 4 * i + 4] != own_counts[4 * i : 4 * i + 4]:
                differing |= 1 << shard
        return differing


def shard_of(flow: int) -> int:
    """The shard of a flow, the same on both nodes."""
    return flow % SHARDS


def pack(records: list[Told]) -> bytes:
    """Records as the sections of a batch; what the fake has no use for is missing."""
    packed: bytes = msgpack.packb([(flow, version, int(op)) for flow, version, op in records])
    return packed


def unpack(sections: bytes) -> list[Told]:
    """The records in ``sections``."""
    return [(flow, version, Op(op)) for flow, version, op in msgpack.unpackb(sections)]
