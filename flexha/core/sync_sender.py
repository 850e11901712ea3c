# SPDX-License-Identifier: Apache-2.0
"""The sending half of a sync session: what an ACTIVE node does for its peer.

Theory of operation. While the peer consumes our changes, or may come back for them, the workers track changes
(``TrackChanges``). They coalesce there until the shell drains them, which it does only for the credit that
the window leaves: a slow peer costs bits in C, never a queue here. Every drained batch gets the next number
of our stream and waits in the window until the peer says that it is live in its table; then ``AckFlows``
frees the tombstones that it covered. A peer that reconnects and still has our stream gets the window again
(``Resume``). Any other peer, and one for whom changes were lost, gets a bulk: the whole table, walked by the
workers, interleaved with live changes.

Only ``BulkWalked`` ends a walk, whatever happens to the connection meanwhile: ``walking`` mirrors the
workers, and no second walk is asked for before the first has ended. A walk that nobody wants any more is
drained and discarded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from flexha.core import sync_wire
from flexha.core.actions import (
    AckFlows,
    Action,
    Count,
    Level,
    Record,
    SendSync,
    SetDrainCredit,
    StartBulk,
    TrackChanges,
)
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import FlowsDrained
from flexha.core.sync_wire import Batch, BulkBegin, BulkEnd, Resume, Stream
from flexha.units import EPOCH, NS_PER_S, Ns, ms

SETTLE_MS: Final = 5
"""After the fence: changes already made have reached us if none came for this long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncLimits:
    """Bounds of the sync session; every queue and every wait of it is one of these."""

    window_batches: int = 64
    """Batches sent and not yet acknowledged; with none left, changes coalesce in the fast path."""
    batch_records: int = 1024
    """Most records that the shell puts into one ``FlowsDrained``."""
    frame_bytes_max: int = 4 << 20
    """A longer frame closes the connection."""
    resume_hold_s: float = 60.0
    """How long changes are tracked for a peer that is away; then it needs a bulk."""
    beat_ms: int = 500
    """Send something at least this often, so that the peer can tell an idle session from a dead one."""
    silence_ms: int = 3000
    """Close a session on which nothing came for this long."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Fact: everything that ``drain`` or ``settle`` asked for is live in the peer's table."""


Output = Action | Drained


@dataclass(frozen=True, slots=True)
class SentBatch:
    """A batch in the window."""

    seq: int
    frame: bytes
    marks: Mapping[int, int]
    n: int


@dataclass(frozen=True, slots=True)
class Drain:
    """A wait for acknowledgements before a handover."""

    target_seq: int
    """Acknowledged up to here is enough; while settling, every batch counts."""
    quiet_at: Ns | None = None
    """Settling: no change before this moment means that there are none left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """State of the sending half; ``stream`` is None unless this node reigns."""

    limits: SyncLimits
    stream: Stream | None = None
    engaged: bool = False
    """The peer is connected and consumes our stream."""
    tracking: bool = False
    walking: bool = False
    bulk_due: bool = False
    """Another bulk pass must follow the present walk."""
    bulk_end_seq: int | None = None
    """The last batch of the last bulk; None while a bulk is under way, or none was made."""
    sent_seq: int = 0
    acked_seq: int = 0
    window: tuple[SentBatch, ...] = ()
    carried: Mapping[int, int] = field(default_factory=dict)
    """Marks of batches that a bulk has made void: they count once that bulk is complete in the peer."""
    hold_until: Ns | None = None
    """The peer is away, and may resume until then."""
    drain: Drain | None = None
    bulks: int = 0
    records_sent: int = 0

    @property
    def bulk_in_progress(self) -> bool:
        """Whether the peer has yet to get a complete table."""
        return self.engaged and self.bulk_end_seq is None


Result = tuple[Sender, tuple[Output, ...]]


# ---- reign -------------------------------------------------------------------------------------------
def reign(sender: Sender, stream: Stream) -> Result:
    """This node is ACTIVE now: a stream of its own begins, numbered from 1."""
    return replace(
        sender,
        stream=stream,
        carried={},
        engaged=False,
        sent_seq=0,
        acked_seq=0,
        window=(),
        bulk_end_seq=None,
        hold_until=None,
    ), ()


def abdicate(sender: Sender) -> Result:
    """This node is ACTIVE no more, or its peer consumes no more: nobody will ask for this stream again."""
    sender = replace(
        sender, engaged=False, window=(), hold_until=None, drain=None, bulk_due=False, bulk_end_seq=None
    )
    return _stop_tracking(sender)


# ---- the peer comes and goes -------------------------------------------------------------------------
def engage(sender: Sender, has_stream: Stream | None, has_seq: int) -> Result:
    """The peer wants changes, and holds records of ``has_stream`` up to batch ``has_seq``."""
    kept = sender.engaged or sender.hold_until is not None  # else batches were discarded meanwhile
    resumable = kept and has_stream == sender.stream and sender.tracking and not sender.bulk_due
    if resumable and sender.acked_seq <= has_seq <= sender.sent_seq:
        return _resume(sender, has_seq)
    return _begin_bulk(replace(sender, engaged=True, hold_until=None))


def disconnected(sender: Sender, now: Ns) -> Result:
    """The connection is gone. The peer may come back and resume, so changes are tracked for a while."""
    if not sender.engaged:
        return sender, ()
    hold_until = Ns(now + int(sender.limits.resume_hold_s * NS_PER_S))
    return replace(sender, engaged=False, hold_until=hold_until, drain=None), (SetDrainCredit(0),)


def _resume(sender: Sender, has_seq: int) -> Result:
    stream = sender.stream
    assert stream is not None
    sender, outputs = acknowledge(replace(sender, engaged=True, hold_until=None), has_seq)
    frames: list[Output] = [SendSync(sync_wire.encode(Resume(stream, has_seq + 1)))]
    frames += [SendSync(batch.frame) for batch in sender.window]
    if sender.bulk_end_seq is not None:  # its frame may have been lost with the connection
        frames.append(SendSync(sync_wire.encode(BulkEnd(sender.bulk_end_seq))))
    fields = {"from_seq": has_seq + 1, "batches": len(sender.window)}
    return sender, (*outputs, *frames, _credit(sender), Record(Level.INFO, "sync-resumed", fields))


def _begin_bulk(sender: Sender) -> Result:
    """Tell the peer that everything follows. What is in the window is part of everything, and forgotten."""
    assert sender.stream is not None
    outputs: list[Output] = [] if sender.tracking else [TrackChanges(on=True)]
    outputs.append(SendSync(sync_wire.encode(BulkBegin(sender.stream, sender.sent_seq + 1))))
    if not sender.walking:
        outputs.append(StartBulk())
    sender = replace(
        sender,
        tracking=True,
        bulk_due=sender.walking,
        walking=True,
        bulk_end_seq=None,
        acked_seq=sender.sent_seq,
        carried=_merged((sender.carried, *(batch.marks for batch in sender.window))),
        window=(),
        bulks=sender.bulks + 1,
    )
    outputs += [_credit(sender), Record(Level.INFO, "sync-bulk-begun", {"from_seq": sender.sent_seq + 1})]
    return sender, tuple(outputs)


# ---- batches -----------------------------------------------------------------------------------------
def drained(sender: Sender, event: FlowsDrained, now: Ns) -> Result:
    """Records from the workers: number them, keep them until acknowledged, send them."""
    if not sender.engaged and sender.hold_until is None:
        sender, outputs = _discard(sender, event)
        return sender, outputs
    outputs = ()
    if event.lost or len(sender.window) >= 2 * sender.limits.window_batches:
        outputs = (Count("sync.changes_lost", max(event.lost, 1)),)
        sender = replace(sender, bulk_due=True)
    if event.n and len(sender.window) < 2 * sender.limits.window_batches:
        seq = sender.sent_seq + 1
        frame = sync_wire.encode(Batch(seq, event.n, event.family, event.columns))
        batch = SentBatch(seq, frame, event.marks, event.n)
        sender = replace(
            sender, sent_seq=seq, window=(*sender.window, batch), records_sent=sender.records_sent + event.n
        )
        if sender.engaged:
            outputs = (*outputs, SendSync(frame), _credit(sender))
        if sender.drain is not None and sender.drain.quiet_at is not None:
            sender = replace(sender, drain=replace(sender.drain, quiet_at=Ns(now + ms(SETTLE_MS))))
    if sender.bulk_due and sender.engaged and not sender.walking:
        sender, more = _begin_bulk(sender)
        outputs = (*outputs, *more)
    return sender, outputs


def walked(sender: Sender) -> Result:
    """The workers' walk has ended and all of it was drained: the bulk ends with the last batch."""
    sender = replace(sender, walking=False)
    if not sender.engaged and sender.hold_until is None:
        return _stop_tracking(sender)
    if sender.bulk_due:
        return _begin_bulk(sender) if sender.engaged else (sender, ())
    sender = replace(sender, bulk_end_seq=sender.sent_seq)
    if not sender.engaged:
        return sender, ()
    fields = {"seq": sender.sent_seq, "records_sent": sender.records_sent}
    end = SendSync(sync_wire.encode(BulkEnd(sender.sent_seq)))
    return sender, (end, Record(Level.INFO, "sync-bulk-sent", fields))


def acknowledge(sender: Sender, seq: int) -> Result:
    """The peer has batches up to ``seq`` live. Raises RemoteProtocolError for what was never sent."""
    if seq > sender.sent_seq:
        raise RemoteProtocolError("bad_ack", f"ack {seq}, sent {sender.sent_seq}")
    if seq < sender.acked_seq:
        return sender, ()  # of a batch that the present bulk has made void
    marks = _merged(batch.marks for batch in sender.window if batch.seq <= seq)
    if sender.bulk_end_seq is not None and seq >= sender.bulk_end_seq:
        marks = _merged((marks, sender.carried))
        sender = replace(sender, carried={})
    sender = replace(sender, acked_seq=seq, window=tuple(b for b in sender.window if b.seq > seq))
    outputs: tuple[Output, ...] = (AckFlows(marks),) if marks else ()
    return sender, (*outputs, _credit(sender))


def _merged(all_marks: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """The highest mark of each worker."""
    merged: dict[int, int] = {}
    for marks in all_marks:
        for worker, mark in marks.items():
            merged[worker] = max(mark, merged.get(worker, 0))
    return merged


def _discard(sender: Sender, event: FlowsDrained) -> Result:
    """Nobody will get these: let an unwanted walk run out, so that the workers are free for the next."""
    outputs: tuple[Output, ...] = (Count("sync.records_discarded", event.n),)
    if sender.walking:
        outputs = (*outputs, _credit(sender))
    return sender, outputs


def _stop_tracking(sender: Sender) -> Result:
    """Forget changes, once no walk is under way; until then drain it into nothing."""
    if sender.walking:
        return sender, (_credit(sender),)
    if not sender.tracking:
        return sender, ()
    return replace(sender, tracking=False), (SetDrainCredit(0), TrackChanges(on=False))


def _credit(sender: Sender) -> SetDrainCredit:
    free = max(0, sender.limits.window_batches - len(sender.window))
    return SetDrainCredit(free * sender.limits.batch_records)


# ---- handover ----------------------------------------------------------------------------------------
def drain(sender: Sender) -> Result:
    """Wait until what has been sent so far is acknowledged. The caller knows that the peer is in sync."""
    return after_ack(replace(sender, drain=Drain(sender.sent_seq)), EPOCH)


def settle(sender: Sender, now: Ns) -> Result:
    """The data plane is fenced: wait until the last changes are out of the workers and acknowledged."""
    return replace(sender, drain=Drain(sender.sent_seq, Ns(now + ms(SETTLE_MS)))), ()


def after_ack(sender: Sender, now: Ns) -> Result:
    """An acknowledgement may end a drain. While settling it opens the window: what waited in C may follow."""
    if sender.drain is None:
        return sender, ()
    if sender.drain.quiet_at is not None:
        return replace(sender, drain=replace(sender.drain, quiet_at=Ns(now + ms(SETTLE_MS)))), ()
    if sender.acked_seq < sender.drain.target_seq:
        return sender, ()
    return replace(sender, drain=None), (Drained(),)


def _settled(sender: Sender, now: Ns) -> Result:
    """No change for SETTLE_MS, and every batch acknowledged."""
    if sender.drain is None or sender.drain.quiet_at is None or sender.window or now < sender.drain.quiet_at:
        return sender, ()
    return replace(sender, drain=None), (Drained(),)


# ---- time --------------------------------------------------------------------------------------------
def timer(sender: Sender, now: Ns) -> Result:
    """Give up a peer that stayed away too long; end a settling time."""
    if sender.hold_until is not None and now >= sender.hold_until:
        sender, outputs = abdicate(sender)
        return sender, (
            *outputs,
            Record(Level.WARNING, "sync-resume-expired", {"hold_s": sender.limits.resume_hold_s}),
        )
    return _settled(sender, now)


def next_deadline(sender: Sender) -> Ns | None:
    """The earliest timer that runs."""
    quiet_at = sender.drain.quiet_at if sender.drain is not None and not sender.window else None
    return min((t for t in (sender.hold_until, quiet_at) if t is not None), default=None)
