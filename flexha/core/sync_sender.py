# SPDX-License-Identifier: Apache-2.0
"""The sending half of a sync session: what an ACTIVE node does for its peer.

Theory of operation. While the peer consumes our changes, or may come back for them, the workers track changes
(``TrackChanges``). They coalesce there until the shell drains them, which it does only for the credit that
the window leaves: a slow peer costs bits in C, never a queue here. Every drained batch gets the next number
of our stream and waits in the window until the peer says that it is live in its table; then ``AckFlows``
frees the tombstones that it covered. A peer that reconnects and still has our stream gets the window again
(``Resume``). Any other peer gets a bulk: a sweep of all shards.

A connection that breaks is not a peer that is gone: as long as heartbeats say that it lives, commit
goes on for ``commit_away_ms``. Sessions that begin meanwhile wait as their mode says, and are acknowledged
once the window has been sent again; a key that changes, or one lost segment, exposes nobody. Then there is no
peer in sync.

A sweep is a walk of some shards, interleaved with live changes; in the stream it stands between
``SweepBegin`` and ``SweepEnd``, which are numbered and acknowledged like batches. Each worker's part has
both of its own, exactly where the worker says so between its records (``SweepBegun``, ``SweepWalked``): what
it told before is stale at the peer then, as it is here. A bulk is announced once besides, for all shards,
before anything of it is told. A sweep is due for shards of which changes were lost, and for those whose
digests differ (``audit.py``).

Only ``SweepWalked`` ends a walk, whatever happens to the connection meanwhile: ``walking`` mirrors the
workers. What is due meanwhile waits, but a bulk begins it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flexha.core import audit as audits
from flexha.core import shards as sets
from flexha.core import sync_wire
from flexha.core.actions import (
    AckFlows,
    Action,
    Count,
    Level,
    Record,
    SendSync,
    SetCommit,
    SetDrainCredit,
    StartSweep,
    TrackChanges,
    WithholdFlows,
)
from flexha.core.audit import Audit
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import DigestDrained, FlowsDrained, Refused
from flexha.core.evolve import replace
from flexha.core.shards import ALL, NONE, Shards
from flexha.core.sync_wire import Batch, FrameBuffer, Resume, Stream, SweepBegin, SweepEnd
from flexha.units import NS_PER_S, Ns, ms


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncLimits:
    """Bounds of the sync session; every queue and every wait of it is one of these."""

    window_batches: int = 64
    """Batches sent and not yet acknowledged; with none left, changes coalesce in the fast path."""
    window_bytes: int = 8 << 20
    """The same in bytes."""
    batch_records: int = 1024
    """Most records that the shell puts into one ``FlowsDrained``."""
    frame_bytes_max: int = 4 << 20
    """A longer frame closes the connection."""
    resume_hold_s: float = 3600.0
    """How long changes are tracked for a peer that is away; then it needs a bulk."""
    commit_away_ms: int = 3000
    """New sessions wait for a peer whose connection is gone, and which lives, for so long; as long as strict
    ones do (``csrc/commit.h``)."""
    audit_s: float = 1.0
    """How often both tables are compared."""
    beat_ms: int = 500
    """Send something at least this often, so that the peer can tell an idle session from a dead one."""
    silence_ms: int = 3000
    """Close a session on which nothing came for this long."""
    ack_stall_s: float = 10.0
    """Close a session whose peer speaks, and acknowledges nothing of what waits for it for this long."""


@dataclass(frozen=True, slots=True)
class Drained:
    """Fact: everything that ``drain`` or ``settle`` asked for is live in the peer's table."""


Output = Action | Drained


@dataclass(frozen=True, slots=True)
class Sent:
    """A numbered message in the window."""

    seq: int
    frame: bytes
    marks: Mapping[int, int]
    n: int
    """Records in it."""


@dataclass(frozen=True, slots=True)
class Drain:
    """A wait for the peer before a handover."""

    target_seq: int
    """Acknowledged up to here is enough; while settling, everything counts."""
    settles: bool = False
    """The fence is closed: the workers' last changes count too; their digests prove that all is out."""
    asked: bool = False
    """Settling: the digests were asked for behind the fence."""
    missing: Shards = NONE
    """Settling: digests left these out: their changes are lost, or a walk tells them, and must end first."""


@dataclass(frozen=True, kw_only=True)
class Sender:
    """State of the sending half; ``stream`` is None unless this node reigns."""

    limits: SyncLimits
    audit: Audit
    stream: Stream | None = None
    engaged: bool = False
    """The peer is connected and consumes our stream."""
    tracking: bool = False
    due: Shards = NONE
    """Shards to be swept as soon as no walk is under way."""
    walking: Shards = NONE
    begun: Shards = NONE
    """Of those walking: the peer knows that their sweep has begun."""
    repair: Shards = NONE
    """Of those due: what the peer should have already."""
    repairing: Shards = NONE
    """Of those walking, likewise."""
    lost: Shards = NONE
    """Shards of which changes were lost, and whose sweep is due."""
    bulk: Shards = NONE
    """Shards that the peer has yet to get for its table to be complete."""
    sent_seq: int = 0
    acked_seq: int = 0
    window: tuple[Sent, ...] = ()
    window_bytes: int = 0
    stuck: tuple[int, Ns] | None = None
    """Number up to which all was acknowledged when something else was last seen to wait, and since when."""
    hold_until: Ns | None = None
    """The peer is away, and may resume until then."""
    drain: Drain | None = None
    committing: bool = False
    """New sessions wait for the peer's acknowledgement."""
    commit_until: Ns | None = None
    """... and there is no connection: until then."""
    bulks: int = 0
    repairs: int = 0
    records_sent: int = 0

    @property
    def is_followed(self) -> bool:
        """Whether somebody consumes our stream, or may come back to."""
        return self.engaged or self.hold_until is not None

    @property
    def bulk_in_progress(self) -> bool:
        """Whether the peer has yet to get a complete table."""
        return self.engaged and self.bulk != NONE

    @property
    def whole(self) -> Shards:
        """Shards that the peer has been told whole, all later changes included."""
        return ALL & ~(self.due | self.walking)


Result = tuple[Sender, tuple[Output, ...]]


def initial(limits: SyncLimits) -> Sender:
    """Nothing sent, nobody follows."""
    return Sender(limits=limits, audit=Audit(interval=Ns(int(limits.audit_s * NS_PER_S))))


# ---- reign -------------------------------------------------------------------------------------------
def reign(sender: Sender, stream: Stream) -> Result:
    """This node is ACTIVE now: a stream of its own begins, numbered from 1."""
    return replace(
        sender,
        audit=audits.end(sender.audit),
        stream=stream,
        engaged=False,
        due=NONE,
        repair=NONE,
        lost=NONE,
        bulk=NONE,
        sent_seq=0,
        acked_seq=0,
        window=(),
        window_bytes=0,
        hold_until=None,
    ), ()


def abdicate(sender: Sender) -> Result:
    """This node is ACTIVE no more, or its peer consumes no more: nobody will ask for this stream again."""
    sender, outputs = _commit(
        replace(
            sender,
            audit=audits.end(sender.audit),
            engaged=False,
            due=NONE,
            walking=NONE,
            begun=NONE,
            repair=NONE,
            lost=NONE,
            bulk=NONE,
            window=(),
            window_bytes=0,
            hold_until=None,
            drain=None,
        ),
        on=False,
    )
    sender, more = _stop_tracking(sender)
    return sender, (*outputs, *more)


def _commit(sender: Sender, *, on: bool) -> Result:
    if sender.committing == on:
        return sender, ()
    return replace(sender, committing=on, commit_until=None), (SetCommit(on),)


def alone(sender: Sender) -> Result:
    """The peer is dead or gone: nobody waits for it."""
    return _commit(sender, on=False)


# ---- the peer comes and goes -------------------------------------------------------------------------
def engage(sender: Sender, has_stream: Stream | None, has_seq: int, now: Ns) -> Result:
    """The peer wants changes, and holds what ``has_stream`` told up to number ``has_seq``."""
    kept = sender.is_followed  # else batches were discarded meanwhile
    resumable = kept and has_stream == sender.stream and sender.tracking
    sender = replace(sender, engaged=True, hold_until=None, commit_until=None, stuck=None)
    if resumable and sender.acked_seq <= has_seq <= sender.sent_seq:
        sender, outputs = _resume(replace(sender, audit=audits.begin(sender.audit, now)), has_seq)
    else:
        first_at = Ns(now + sender.audit.interval)  # or when the bulk ends, whatever comes first
        sender, outputs = _begin_bulk(replace(sender, audit=audits.begin(sender.audit, first_at)))
    sender, last = _start_sweep(sender)
    return sender, (*outputs, *last, _credit(sender))


def disconnected(sender: Sender, now: Ns) -> Result:
    """The connection is gone. The peer may come back and resume, so changes are tracked for a while."""
    if not sender.engaged:
        return sender, ()
    sender = replace(
        sender,
        audit=audits.end(sender.audit),
        engaged=False,
        hold_until=Ns(now + int(sender.limits.resume_hold_s * NS_PER_S)),
        commit_until=Ns(now + ms(sender.limits.commit_away_ms)) if sender.committing else None,
        drain=None,
    )
    return sender, (SetDrainCredit(0),)


def _resume(sender: Sender, has_seq: int) -> Result:
    stream = sender.stream
    assert stream is not None
    sender, outputs = acknowledge(sender, has_seq)
    frames: list[Output] = [SendSync(sync_wire.encode(Resume(stream, has_seq + 1)))]
    frames += [SendSync(sent.frame) for sent in sender.window]
    fields = {"from_seq": has_seq + 1, "batches": len(sender.window)}
    return sender, (*outputs, *frames, Record(Level.INFO, "sync-resumed", fields))


def _begin_bulk(sender: Sender) -> Result:
    """Tell the peer that everything follows.

    What is in the window is part of everything, and forgotten. So is what the workers have told: it may speak
    of sessions whose end nobody will ever tell, since nobody knows what this peer holds.
    """
    stream = sender.stream
    assert stream is not None
    sender, first = _commit(sender, on=False)
    sender, outputs = _stop_tracking(sender)
    outputs = (*first, *outputs)
    sender = replace(
        sender,
        tracking=True,
        due=NONE,
        walking=ALL,
        begun=ALL,
        repair=NONE,
        repairing=NONE,
        lost=NONE,
        bulk=ALL,
        acked_seq=sender.sent_seq,
        window=(),
        window_bytes=0,
        bulks=sender.bulks + 1,
    )
    sender, more = _send(sender, SweepBegin(stream, sender.sent_seq + 1, ALL))
    record = Record(Level.INFO, "sync-bulk-begun", {"from_seq": sender.sent_seq})
    return sender, (*outputs, TrackChanges(on=True), *more, StartSweep(ALL), record)


# ---- what the workers say ----------------------------------------------------------------------------
def drained(sender: Sender, event: FlowsDrained) -> Result:
    """Records from the workers: number them, keep them until acknowledged, send them."""
    if not sender.is_followed:
        return sender, (Count("sync.records_discarded", event.n),)
    frame = sync_wire.encode(Batch(sender.sent_seq + 1, event.sections))
    sender = _keep(sender, frame, event.marks, event.n)
    return sender, (SendSync(frame), _credit(sender)) if sender.engaged else ()


def lost(sender: Sender, shards: Shards) -> Result:
    """Changes of these shards are not known: they must be walked."""
    shards &= ~(sender.lost | (sender.walking & ~sender.begun))  # nothing new, or mended by what begins yet
    if not shards or not sender.is_followed:
        return sender, ()
    sender = replace(
        sender,
        lost=sender.lost | shards,
        due=sender.due | shards,
        walking=sender.walking & ~shards,
        begun=sender.begun & ~shards,
        audit=audits.withdraw(sender.audit, shards),
    )
    fields = {"shards": sets.listed(shards)}
    outputs = (
        Count("sync.shards_lost", shards.bit_count()),
        Record(Level.WARNING, "sync-shards-lost", fields),
    )
    sender, more = _start_sweep(sender)
    return sender, (*outputs, *more)


def _start_sweep(sender: Sender) -> Result:
    """Begin the walk that is due, unless one is under way, or the reign ends and nothing is missing."""
    settles = sender.drain is not None and sender.drain.settles and not sender.lost
    if not sender.engaged or settles or sender.walking or not sender.due:
        return sender, ()
    shards = sender.due
    sender = replace(
        sender,
        due=NONE,
        repair=NONE,
        walking=shards,
        begun=NONE,
        repairing=sender.repair,
        lost=sender.lost & ~shards,
        audit=audits.withdraw(sender.audit, shards),
    )
    return sender, (StartSweep(shards),)


def begun(sender: Sender, shards: Shards) -> Result:
    """A worker has begun its part of a walk, and all that it told before was drained."""
    shards &= sender.walking
    stream = sender.stream
    if not shards or stream is None or not sender.is_followed:
        return sender, ()
    sender = replace(sender, begun=sender.begun | shards)
    outputs: tuple[Output, ...] = ()
    for some, is_repair in ((shards & ~sender.repairing, False), (shards & sender.repairing, True)):
        if some:
            sender, more = _send(sender, SweepBegin(stream, sender.sent_seq + 1, some, is_repair))
            outputs = (*outputs, *more)
    return sender, outputs


def walked(sender: Sender, shards: Shards, now: Ns) -> Result:
    """A worker has ended its walk, and all of it was drained."""
    ended = shards & sender.begun
    if not ended or not sender.is_followed:
        return sender, ()
    drain = (
        sender.drain if sender.drain is None else replace(sender.drain, missing=sender.drain.missing & ~ended)
    )
    sender, outputs = _send(
        replace(sender, walking=sender.walking & ~ended, begun=sender.begun & ~ended, drain=drain),
        SweepEnd(sender.sent_seq + 1, ended),
    )
    if sender.bulk and not sender.bulk & ~ended:
        fields = {"seq": sender.sent_seq, "records_sent": sender.records_sent}
        outputs = (*outputs, Record(Level.INFO, "sync-bulk-sent", fields))
    sender = replace(sender, bulk=sender.bulk & ~ended, audit=audits.soon(sender.audit, now))
    sender, more = _start_sweep(sender)
    return sender, (*outputs, *more)


def digest_drained(sender: Sender, event: DigestDrained) -> Result:
    """A worker's queues are empty up to here, and these are its digests."""
    audit, digest = audits.drained(sender.audit, event, sender.sent_seq, sender.whole)
    drain = sender.drain
    if drain is not None and drain.asked:  # a worker says that shards are lost only behind its digest
        drain = replace(drain, missing=drain.missing | (event.of & ~event.shards))
    sender = replace(sender, audit=audit, drain=drain)
    return sender, (SendSync(sync_wire.encode(digest)),) if digest is not None else ()


def _send(sender: Sender, message: SweepBegin | SweepEnd) -> Result:
    """Keep a message, which has the next number, until it is acknowledged; send it if somebody listens."""
    frame = sync_wire.encode(message)
    sender = _keep(sender, frame, {}, 0)
    return sender, (SendSync(frame), _credit(sender)) if sender.engaged else ()


def _keep(sender: Sender, frame: bytes, marks: Mapping[int, int], n: int) -> Sender:
    seq = sender.sent_seq + 1
    return replace(
        sender,
        sent_seq=seq,
        window=(*sender.window, Sent(seq, frame, marks, n)),
        window_bytes=sender.window_bytes + len(frame),
        records_sent=sender.records_sent + n,
    )


def _stop_tracking(sender: Sender) -> Result:
    """Forget changes, and a walk that is under way."""
    if not sender.tracking:
        return sender, ()
    audit = replace(sender.audit, owed=NONE)  # the workers forget that they were asked
    sender = replace(sender, tracking=False, walking=NONE, begun=NONE, audit=audit)
    return sender, (SetDrainCredit(0), TrackChanges(on=False))


def _credit(sender: Sender) -> SetDrainCredit:
    return SetDrainCredit(room(sender.limits, len(sender.window), sender.window_bytes))


def room(limits: SyncLimits, batches: int, size: int) -> int:
    """How many more records may be drained while so many batches of ``size`` bytes are in the window."""
    if size >= limits.window_bytes:
        return 0
    return max(0, limits.window_batches - batches) * limits.batch_records


# ---- what the peer says ------------------------------------------------------------------------------
def acknowledge(sender: Sender, seq: int, refused: tuple[Refused, ...] = ()) -> Result:
    """The peer has numbers up to ``seq`` live, but for some records that it did not take.

    Raises: RemoteProtocolError for what was never sent.
    """
    if seq > sender.sent_seq:
        raise RemoteProtocolError("bad_ack", f"ack {seq}, sent {sender.sent_seq}")
    if seq <= sender.acked_seq:
        return sender, ()  # said before, or of a batch that the present bulk has made void
    n = seq - sender.acked_seq
    acked, window = sender.window[:n], sender.window[n:]  # numbered without gaps
    withheld = _withheld(acked, refused) if refused else ()
    marks = merged(sent.marks for sent in acked)
    window_bytes = sender.window_bytes - sum(len(sent.frame) for sent in acked)
    sender = replace(sender, acked_seq=seq, window=window, window_bytes=window_bytes)
    outputs: tuple[Output, ...] = (*withheld, AckFlows(marks)) if marks else withheld
    return sender, (*outputs, _credit(sender)) if sender.engaged else outputs


def _withheld(acked: tuple[Sent, ...], refused: tuple[Refused, ...]) -> tuple[Action, ...]:
    """For each batch of which the peer did not take everything: what it was, from what was sent."""
    outputs: list[Action] = []
    for some in refused:
        at = some.seq - acked[0].seq
        batch = _batch_in(acked[at]) if 0 <= at < len(acked) else None
        if batch is None or some.places[-1] >= acked[at].n:
            raise RemoteProtocolError("bad_ack", f"record {some.places[-1]} of {some.seq} was never sent")
        outputs += (
            WithholdFlows(acked[at].marks, batch.sections, some.places),
            Count("sync.peer_refused_records", len(some.places)),
        )
    return tuple(outputs)


def _batch_in(sent: Sent) -> Batch | None:
    _, payloads = FrameBuffer().feed(sent.frame, len(sent.frame))
    messages = map(sync_wire.decode, payloads)
    return next((message for message in messages if isinstance(message, Batch)), None)


def verdict(sender: Sender, message: sync_wire.Audit, now: Ns) -> Result:
    """The peer has compared its table with a digest. What differs is repaired; if nothing does, commit."""
    if message.seq > sender.sent_seq:
        raise RemoteProtocolError("bad_audit", f"audit of {message.seq}, sent {sender.sent_seq}")
    audit, due, outputs = audits.answered(sender.audit, message, now)
    # Some shards were found equal, and others are still being asked about: that ends nothing.
    on = audit.in_sync or (sender.committing and not audit.differing)
    sender, more = _commit(replace(sender, audit=audit), on=on)
    sender, last = _repair(sender, due)
    return sender, (*outputs, *more, *last)


def _repair(sender: Sender, due: Shards) -> Result:
    due &= sender.whole
    if not due:
        return sender, ()
    sender = replace(
        sender, due=sender.due | due, repair=sender.repair | due, repairs=sender.repairs + due.bit_count()
    )
    return _start_sweep(sender)


def merged(all_marks: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """The highest mark of each worker."""
    merged: dict[int, int] = {}
    for marks in all_marks:
        for worker, mark in marks.items():
            if mark > merged.get(worker, 0):
                merged[worker] = mark
    return merged


# ---- handover ----------------------------------------------------------------------------------------
def drain(sender: Sender) -> Sender:
    """Wait until what has been sent so far is acknowledged. The caller knows that the peer is in sync."""
    return replace(sender, drain=Drain(sender.sent_seq))


def settle(sender: Sender) -> Sender:
    """The data plane is fenced: wait until the last changes are out of the workers and acknowledged."""
    return replace(sender, drain=Drain(sender.sent_seq, settles=True))


def progress(sender: Sender, now: Ns) -> Result:
    """Whether what ``drain`` or ``settle`` waits for has come; asked after everything that may bring it."""
    drain = sender.drain
    if drain is None:
        return sender, ()
    outputs: tuple[Output, ...] = ()
    if drain.settles and not drain.asked:
        if sender.audit.owed:
            return sender, ()  # asked before the fence: says nothing of what came after
        audit, outputs = audits.ask(sender.audit, now)
        return replace(sender, audit=audit, drain=replace(drain, asked=True)), outputs
    if drain.settles:
        untold = sender.lost | sender.walking | drain.missing
        done = sender.audit.idle and not sender.window and not untold
    else:
        done = sender.acked_seq >= drain.target_seq and sender.whole == ALL
    return (replace(sender, drain=None), (Drained(),)) if done else (sender, ())


# ---- time --------------------------------------------------------------------------------------------
def timer(sender: Sender, now: Ns) -> Result:
    """Give up a peer that stayed away too long; compare tables; try again to repair."""
    if sender.hold_until is not None and now >= sender.hold_until:
        sender, given_up = abdicate(sender)
        return sender, (
            *given_up,
            Record(Level.WARNING, "sync-resume-expired", {"hold_s": sender.limits.resume_hold_s}),
        )
    outputs: tuple[Output, ...] = ()
    if sender.commit_until is not None and now >= sender.commit_until:
        sender, outputs = _commit(sender, on=False)
        fields = {"away_ms": sender.limits.commit_away_ms}
        outputs = (*outputs, Record(Level.WARNING, "commit-off", fields, history=True))
    audit, due, asked = audits.timer(sender.audit, now)
    if audit is sender.audit:
        return sender, outputs
    sender, more = _repair(replace(sender, audit=audit), due)
    return sender, (*outputs, *asked, *more)


def watch(sender: Sender, now: Ns) -> tuple[Sender, bool]:
    """Whether the peer has acknowledged nothing for too long. Asked when timers fire: often enough.

    As long as the number is the same, what waits behind it has waited all the time.
    """
    if not sender.engaged or not sender.window:
        return (sender if sender.stuck is None else replace(sender, stuck=None)), False
    if sender.stuck is None or sender.stuck[0] != sender.acked_seq:
        return replace(sender, stuck=(sender.acked_seq, now)), False
    return sender, now >= _stalls_at(sender, sender.stuck[1])


def _stalls_at(sender: Sender, since: Ns) -> Ns:
    return Ns(since + int(sender.limits.ack_stall_s * NS_PER_S))


def next_deadline(sender: Sender) -> Ns | None:
    """The earliest timer that runs."""
    deadlines = [audits.next_deadline(sender.audit), sender.hold_until, sender.commit_until]
    if sender.stuck is not None and sender.engaged:
        deadlines.append(_stalls_at(sender, sender.stuck[1]))
    return min((t for t in deadlines if t is not None), default=None)
