# SPDX-License-Identifier: Apache-2.0
"""The receiving half of a sync session: what a JOINING or PASSIVE node does with the ACTIVE's records.

What has a number is done in order of the numbers. It is acknowledged once ``FlowsImported`` says that it is
live in the fast path, never before: the sender gives up what it knows by that word. A sweep marks what the
table holds of its shards as stale (``BeginImport``), and its end sweeps what it did not refresh
(``EndImport``).

A digest is compared when everything before it is live; the sender hears which shards differ. Only when a bulk
is complete and every shard has been found equal on this connection does this node call itself in sync.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flexha.core import shards as sets
from flexha.core import sync_wire
from flexha.core.actions import (
    Action,
    BeginImport,
    CompareDigests,
    Count,
    EndImport,
    ImportFlows,
    Level,
    Record,
    SendSync,
)
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import DigestsRead, FlowsImported, Refused
from flexha.core.evolve import replace
from flexha.core.shards import ALL, NONE, Shards
from flexha.core.sync_wire import Ack, Audit, Batch, Digest, Resume, Stream, SweepBegin, SweepEnd, Want
from flexha.units import Ns

IMPORT_FAILURES_MAX: Final = 3
"""So many batches refused in a row, with a fresh bulk each time: this fast path is broken, not that batch."""


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """State of the receiving half."""

    stream: Stream | None = None
    """The stream whose records the table holds; None: it must be filled by a bulk."""
    received_seq: int = 0
    imported_seq: int = 0
    awaiting: bool = False
    """We have said what we want; until the sender answers, what comes is of an earlier conversation."""
    bulk: Shards = NONE
    """Shards that the bulk has yet to complete."""
    sweeping: Shards = NONE
    """Shards whose sweep has begun and not ended."""
    synced: bool = False
    """The table equals the ACTIVE's: a bulk is complete, the connection stands, the digests have agreed."""
    agreed: Shards = NONE
    """Shards found equal since the last time that all were."""
    agreed_at: Ns | None = None
    """When all had last been found equal."""
    differing: Shards = NONE
    repairs: int = 0
    """Shards whose repair was asked for by differing."""
    import_failures: int = 0
    offended: bool = False
    """The connection was ended for absurd records, and the tables have not been found equal since."""
    records_received: int = 0


Result = tuple[Receiver, tuple[Action, ...]]


def forget(receiver: Receiver) -> Receiver:
    """The table no longer follows anybody's: the next session starts with a bulk."""
    return replace(disconnected(receiver), stream=None, bulk=NONE, sweeping=NONE)


def disconnected(receiver: Receiver) -> Receiver:
    """What we hold stays; whether it is current is unknown."""
    return replace(receiver, synced=False, agreed=NONE, differing=NONE)


def want(receiver: Receiver) -> Result:
    """There is an ACTIVE to follow: tell it what we hold."""
    message = Want(receiver.stream, receiver.imported_seq)
    return replace(receiver, awaiting=True), (SendSync(sync_wire.encode(message)),)


# ---- what has a number -------------------------------------------------------------------------------
def sweep_begin(receiver: Receiver, message: SweepBegin) -> Result:
    """All records of some shards follow: what is not refreshed until the end is gone there."""
    seq, shards = message.seq, message.shards
    if receiver.awaiting:
        return _bulk_begin(receiver, message) if shards == ALL else (receiver, ())
    if message.stream != receiver.stream:
        raise RemoteProtocolError("other_stream", f"sweep of {message.stream}, following {receiver.stream}")
    if not _is_next(receiver, seq):
        return _again(receiver)
    receiver = replace(receiver, received_seq=seq, sweeping=receiver.sweeping | shards)
    return receiver, (BeginImport(seq, shards, message.repair),)


def _bulk_begin(receiver: Receiver, message: SweepBegin) -> Result:
    """The sender cannot go on where we were: it tells everything."""
    receiver = replace(
        disconnected(receiver),
        stream=message.stream,
        received_seq=message.seq,
        imported_seq=message.seq - 1,
        awaiting=False,
        bulk=ALL,
        sweeping=ALL,
    )
    record = Record(Level.INFO, "sync-bulk-begins", {"from_seq": message.seq})
    return receiver, (BeginImport(message.seq, ALL), record)


def resume(receiver: Receiver, message: Resume) -> Result:
    """The sender goes on where we said that we were."""
    if message.stream != receiver.stream or not 0 < message.seq <= receiver.imported_seq + 1:
        raise RemoteProtocolError("bad_resume", f"resume at {message.seq}, imported {receiver.imported_seq}")
    receiver = replace(receiver, received_seq=receiver.imported_seq, awaiting=False)
    return receiver, (Record(Level.INFO, "sync-resumes", {"from_seq": message.seq}),)


def batch(receiver: Receiver, message: Batch) -> Result:
    """Import the next batch."""
    if receiver.awaiting:
        return receiver, ()
    if not _is_next(receiver, message.seq):
        return _again(receiver)
    return replace(receiver, received_seq=message.seq), (ImportFlows(message.seq, message.sections),)


def sweep_end(receiver: Receiver, message: SweepEnd) -> Result:
    """Some shards have been told whole; a bulk is complete when all have."""
    if receiver.awaiting:
        return receiver, ()
    if not _is_next(receiver, message.seq):
        return _again(receiver)
    shards = message.shards
    if shards & ~receiver.sweeping:
        raise RemoteProtocolError(
            "bad_sweep", f"the sweep of {shards:x} ends, under way is {receiver.sweeping:x}"
        )
    was_in_bulk = receiver.bulk != NONE
    receiver = replace(
        receiver,
        received_seq=message.seq,
        sweeping=receiver.sweeping & ~shards,
        bulk=receiver.bulk & ~shards,
    )
    outputs: tuple[Action, ...] = (EndImport(message.seq, shards),)
    if was_in_bulk and not receiver.bulk:
        receiver = replace(receiver, import_failures=0)
        fields = {"seq": message.seq, "records_imported": receiver.records_received}
        outputs = (*outputs, Record(Level.INFO, "sync-bulk-complete", fields, history=True))
    return receiver, outputs


def _is_next(receiver: Receiver, seq: int) -> bool:
    """Whether it is the next number; False: it is here already. Raises RemoteProtocolError for a gap."""
    if seq <= receiver.received_seq:
        return False
    if seq != receiver.received_seq + 1:
        raise RemoteProtocolError("gap", f"number {seq} after {receiver.received_seq}")
    return True


def _again(receiver: Receiver) -> Result:
    """What is here already is acknowledged again."""
    return receiver, (_ack(receiver.imported_seq),)


# ---- what the fast path says -------------------------------------------------------------------------
def imported(receiver: Receiver, event: FlowsImported, *, connected: bool) -> Result:
    """Everything up to a number is live: say so. (Errors are the caller's to handle.)"""
    if not receiver.imported_seq < event.seq <= receiver.received_seq:
        return receiver, ()  # of a stream that is over
    before = receiver.imported_seq
    receiver = replace(receiver, imported_seq=event.seq, records_received=receiver.records_received + event.n)
    if not connected:  # whoever resumes begins with an audit, and that finds them
        return receiver, ()
    refused = event.refused and tuple(r for r in event.refused if r.seq > before)
    return receiver, (_ack(event.seq, refused),)


def import_failed(receiver: Receiver, *, offence: bool) -> Receiver:
    """The fast path refused a batch: the table may miss records, so start over with a bulk.

    ``offence``: it was right to, and is not broken.
    """
    return replace(forget(receiver), import_failures=receiver.import_failures + (not offence))


# ---- digests -----------------------------------------------------------------------------------------
def digest(receiver: Receiver, message: Digest) -> Result:
    """Compare, at the place where it was made: behind everything that was received so far."""
    if receiver.awaiting:
        return receiver, ()
    if message.seq != receiver.received_seq:
        raise RemoteProtocolError("gap", f"digest behind {message.seq}, received {receiver.received_seq}")
    return receiver, (CompareDigests(message.seq, message.shards, message.sums, message.counts),)


def compared(receiver: Receiver, event: DigestsRead, now: Ns) -> Result:
    """Tell the sender which shards differ; when all have been found equal, this node is in sync."""
    if receiver.awaiting or event.seq > receiver.received_seq:
        return receiver, ()  # of a stream that is over
    answer = SendSync(sync_wire.encode(Audit(event.seq, event.shards, event.differing)))
    equal = event.shards & ~event.differing
    fresh = event.differing & ~receiver.differing
    receiver = replace(
        receiver,
        agreed=(receiver.agreed | equal) & ~event.differing,
        differing=(receiver.differing & ~equal) | event.differing,
        repairs=receiver.repairs + fresh.bit_count(),
    )
    if receiver.agreed == ALL and not receiver.bulk:
        return replace(receiver, agreed=NONE, agreed_at=now, synced=True, offended=False), (answer,)
    if not fresh:
        return receiver, (answer,)
    fields = {"shards": sets.listed(fresh), "seq": event.seq}
    record = Record(Level.WARNING, "audit-differs", fields, history=True)
    return receiver, (answer, Count("audit.differing", fresh.bit_count()), record)


def _ack(seq: int, refused: tuple[Refused, ...] = ()) -> SendSync:
    return SendSync(sync_wire.encode(Ack(seq, refused)))
