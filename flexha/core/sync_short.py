# SPDX-License-Identifier: Apache-2.0
"""The short way of what a busy stream is made of: batches, imports, acknowledgements.

Some hundred batches a second take steps on both nodes that cost more than the batches. The fast path does
with them what ``sync.step`` does (``csrc/lane.h``), between two events of the long way, and whatever else
comes goes the long way, in its place. ``way`` says whether a session is one for it; ``fold`` gives the
session as the long way would have left it, and is asked for before any event.

The short way moves no deadline to an earlier time, and changes nothing of a node but its session.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from flexha.core import sync_sender
from flexha.core.evolve import replace
from flexha.core.sync import Mode, Session
from flexha.core.sync_orders import RECEIVING_ROLES
from flexha.core.sync_sender import Sent
from flexha.units import Ns


class Way(Enum):
    """What of a session may go the short way."""

    LONG = auto()
    """Nothing."""
    SENDING = auto()
    """Changes out, and acknowledgements that say nothing else in."""
    RECEIVING = auto()
    """The next batches in, and acknowledgements out."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What went the short way since ``way`` was asked. Bytes are those of frames.

    ``sent``: what was sent since, and is not acknowledged. ``heard_at``, ``said_at``: None for never.
    """

    sent_seq: int
    acked_seq: int
    sent: tuple[Sent, ...]
    received_seq: int
    imported_seq: int
    records_sent: int
    records_received: int
    bytes_sent: int
    bytes_received: int
    heard_at: Ns | None
    said_at: Ns | None


def way(session: Session) -> Way:
    """Which way batches may go from here."""
    sender, receiver = session.sender, session.receiver
    if session.buffer.size:
        return Way.LONG
    if session.mode is Mode.SENDING and sender.engaged and sender.drain is None:
        return Way.SENDING
    if (
        session.mode is Mode.RECEIVING
        and session.role in RECEIVING_ROLES
        and not receiver.awaiting
        and receiver.imported_seq == receiver.received_seq
    ):
        return Way.RECEIVING
    return Way.LONG


def fold(session: Session, progress: Progress) -> Session:
    """The session as it is now."""
    sender, receiver = session.sender, session.receiver
    kept = tuple(sent for sent in sender.window if sent.seq > progress.acked_seq)
    window = sender.window if len(kept) == len(sender.window) and not progress.sent else kept + progress.sent
    return replace(
        session,
        sender=replace(
            sender,
            sent_seq=progress.sent_seq,
            acked_seq=progress.acked_seq,
            window=window,
            window_bytes=sum(len(sent.frame) for sent in window),
            records_sent=sender.records_sent + progress.records_sent,
        ),
        receiver=replace(
            receiver,
            received_seq=progress.received_seq,
            imported_seq=progress.imported_seq,
            records_received=receiver.records_received + progress.records_received,
        ),
        heard_at=session.heard_at if progress.heard_at is None else progress.heard_at,
        said_at=session.said_at if progress.said_at is None else progress.said_at,
        bytes_sent=session.bytes_sent + progress.bytes_sent,
        bytes_received=session.bytes_received + progress.bytes_received,
    )


def credit(session: Session) -> int:
    """How many records may be drained the long way."""
    sender = session.sender
    if not sender.engaged:
        return 0
    return sync_sender.room(sender.limits, len(sender.window), sender.window_bytes)
