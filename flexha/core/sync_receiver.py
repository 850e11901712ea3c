# SPDX-License-Identifier: Apache-2.0
"""The receiving half of a sync session: what a JOINING or PASSIVE node does with the ACTIVE's records.

Batches are imported in order of their numbers. A batch is acknowledged once ``FlowsImported`` says that it
is live in the fast path, never before: the sender gives up what it knows by that word. A bulk marks what the
table holds as stale (``BeginImport``), and its end, reached when all its batches are live, sweeps what it
did not refresh.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from flexha.core import sync_wire
from flexha.core.actions import (
    Action,
    BeginImport,
    EndImport,
    ImportFlows,
    Level,
    Record,
    SendSync,
)
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import FlowsImported
from flexha.core.sync_wire import Ack, Batch, BulkBegin, BulkEnd, Resume, Stream, Want

IMPORT_FAILURES_MAX: Final = 3
"""So many batches refused in a row, with a fresh bulk each time: this fast path is broken, not that batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """State of the receiving half."""

    stream: Stream | None = None
    """The stream whose records the table holds; None: it must be filled by a bulk."""
    received_seq: int = 0
    imported_seq: int = 0
    in_bulk: bool = False
    bulk_end_seq: int | None = None
    """The bulk is complete with this batch; None while the sender has not said so."""
    awaiting: bool = False
    """We have said what we want; until the sender answers, batches are of an earlier conversation."""
    synced: bool = False
    """The table follows the ACTIVE's: a bulk is complete, and the connection stands."""
    import_failures: int = 0
    records_received: int = 0


Result = tuple[Receiver, tuple[Action, ...]]


def forget(receiver: Receiver) -> Receiver:
    """The table no longer follows anybody's: the next session starts with a bulk."""
    return replace(receiver, stream=None, synced=False, in_bulk=False, bulk_end_seq=None)


def disconnected(receiver: Receiver) -> Receiver:
    """What we hold stays; whether it is current is unknown."""
    return replace(receiver, synced=False)


def want(receiver: Receiver) -> Result:
    """There is an ACTIVE to follow: tell it what we hold."""
    message = Want(receiver.stream, receiver.imported_seq)
    return replace(receiver, awaiting=True), (SendSync(sync_wire.encode(message)),)


def bulk_begin(receiver: Receiver, message: BulkBegin) -> Result:
    """Everything follows: what is not refreshed until the end is gone there."""
    receiver = replace(
        receiver,
        stream=message.stream,
        received_seq=message.seq - 1,
        imported_seq=message.seq - 1,
        in_bulk=True,
        bulk_end_seq=None,
        awaiting=False,
        synced=False,
    )
    return receiver, (BeginImport(), Record(Level.INFO, "sync-bulk-begins", {"from_seq": message.seq}))


def resume(receiver: Receiver, message: Resume) -> Result:
    """The sender goes on where we said that we were."""
    if message.stream != receiver.stream or not 0 < message.seq <= receiver.imported_seq + 1:
        raise RemoteProtocolError("bad_resume", f"resume at {message.seq}, imported {receiver.imported_seq}")
    receiver = replace(
        receiver, received_seq=receiver.imported_seq, awaiting=False, synced=not receiver.in_bulk
    )
    return receiver, (Record(Level.INFO, "sync-resumes", {"from_seq": message.seq}),)


def batch(receiver: Receiver, message: Batch) -> Result:
    """Import the next batch; one that we have already is acknowledged again."""
    if receiver.awaiting:
        return receiver, ()
    if message.seq <= receiver.imported_seq:
        return receiver, (_ack(receiver.imported_seq),)
    if message.seq != receiver.received_seq + 1:
        raise RemoteProtocolError("gap", f"batch {message.seq} after {receiver.received_seq}")
    receiver = replace(
        receiver, received_seq=message.seq, records_received=receiver.records_received + message.n
    )
    return receiver, (ImportFlows(message.seq, message.n, message.family, message.columns),)


def bulk_end(receiver: Receiver, message: BulkEnd) -> Result:
    """The bulk is complete with a batch that we may still have to import."""
    if receiver.awaiting or not receiver.in_bulk:
        return receiver, ()  # of an earlier conversation, or repeated after a resume
    if message.seq > receiver.received_seq:
        raise RemoteProtocolError("gap", f"bulk ends with {message.seq}, received {receiver.received_seq}")
    receiver, outputs = _end_bulk(replace(receiver, bulk_end_seq=message.seq))
    # Acknowledged again: the sender now knows that the sweep is done too.
    return receiver, (*outputs, _ack(receiver.imported_seq)) if outputs else ()


def imported(receiver: Receiver, event: FlowsImported, *, connected: bool) -> Result:
    """A batch is live: say so, and end the bulk that it completes. (Errors are the caller's to handle.)"""
    if event.seq != receiver.imported_seq + 1 or event.seq > receiver.received_seq:
        return receiver, ()  # of a stream that is over
    receiver = replace(receiver, imported_seq=event.seq)
    if not connected:
        return receiver, ()
    receiver, outputs = _end_bulk(receiver)
    return receiver, (*outputs, _ack(event.seq))


def import_failed(receiver: Receiver) -> Receiver:
    """The fast path refused a batch: the table may miss records, so start over with a bulk."""
    return replace(forget(receiver), import_failures=receiver.import_failures + 1)


def _end_bulk(receiver: Receiver) -> Result:
    if not receiver.in_bulk or receiver.bulk_end_seq is None or receiver.imported_seq < receiver.bulk_end_seq:
        return receiver, ()
    receiver = replace(receiver, in_bulk=False, synced=True, import_failures=0)
    fields = {"seq": receiver.imported_seq, "records_received": receiver.records_received}
    return receiver, (EndImport(), Record(Level.INFO, "sync-bulk-complete", fields, history=True))


def _ack(seq: int) -> SendSync:
    return SendSync(sync_wire.encode(Ack(seq)))
