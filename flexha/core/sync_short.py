# SPDX-License-Identifier: Apache-2.0
"""The short way of what a busy stream is made of: batches, imports, acknowledgements.

Some hundred batches a second take two steps each on both nodes, and a step costs more than the batch. A
``Lane`` does what ``sync.step`` does with these events, and nothing that they cannot bring about: a method
that returns None has done nothing, and the event goes the long way. ``fold`` gives the session as the long
way would have left it, and is asked for before any other event. ``tests/unit/test_sync_short.py`` holds both
ways against each other.

A lane moves no deadline to an earlier time, and changes nothing of a node but its session.
"""

from __future__ import annotations

from collections.abc import Mapping

from flexha.core import sync_wire
from flexha.core.evolve import replace
from flexha.core.sync import RECEIVING_ROLES, Mode, Session
from flexha.core.sync_sender import Sent, merged, room
from flexha.core.sync_wire import Ack, Batch
from flexha.units import Ns


class Lane:
    """A session between two events of the long way; the one thing of the core that changes in place."""

    __slots__ = (
        "_acked_seq",
        "_bytes_received",
        "_bytes_sent",
        "_heard_at",
        "_imported_seq",
        "_limits",
        "_received_seq",
        "_receives",
        "_records_received",
        "_records_sent",
        "_said_at",
        "_sends",
        "_sent_seq",
        "_session",
        "_window",
        "_window_bytes",
    )

    def __init__(self, session: Session) -> None:
        sender, receiver = session.sender, session.receiver
        self._session = session
        self._limits = session.limits
        quiet = not session.buffer.size
        self._sends = session.mode is Mode.SENDING and sender.engaged and quiet and sender.drain is None
        self._receives = (
            session.mode is Mode.RECEIVING
            and session.role in RECEIVING_ROLES
            and quiet
            and not receiver.awaiting
        )
        self._heard_at, self._said_at = session.heard_at, session.said_at
        self._bytes_sent, self._bytes_received = session.bytes_sent, session.bytes_received
        self._sent_seq, self._acked_seq = sender.sent_seq, sender.acked_seq
        self._window, self._window_bytes = list(sender.window), sender.window_bytes
        self._records_sent = sender.records_sent
        self._received_seq, self._imported_seq = receiver.received_seq, receiver.imported_seq
        self._records_received = receiver.records_received

    def fold(self) -> Session:
        """The session as it is now."""
        session = self._session
        return replace(
            session,
            sender=replace(
                session.sender,
                sent_seq=self._sent_seq,
                acked_seq=self._acked_seq,
                window=tuple(self._window),
                window_bytes=self._window_bytes,
                records_sent=self._records_sent,
            ),
            receiver=replace(
                session.receiver,
                received_seq=self._received_seq,
                imported_seq=self._imported_seq,
                records_received=self._records_received,
            ),
            heard_at=self._heard_at,
            said_at=self._said_at,
            bytes_sent=self._bytes_sent,
            bytes_received=self._bytes_received,
        )

    # ---- sending -------------------------------------------------------------------------------------
    def put(self, sections: bytes, n: int, marks: Mapping[int, int], now: Ns) -> bytes | None:
        """``FlowsDrained``: the frame of a batch, numbered, and kept until it is acknowledged."""
        if not self._sends:
            return None
        seq = self._sent_seq = self._sent_seq + 1
        frame = sync_wire.batch_frame(seq, sections)
        self._window.append(Sent(seq, frame, marks, n))
        size = len(frame)
        self._window_bytes += size
        self._records_sent += n
        self._bytes_sent += size
        self._said_at = now
        return frame

    def acknowledged(self, data: bytes, now: Ns) -> Mapping[int, int] | None:
        """``SyncReceived`` of nothing but acknowledgements: the marks that the peer has live."""
        if not self._sends:
            return None
        seq = sync_wire.highest_ack(data)
        if seq is None or not self._acked_seq < seq <= self._sent_seq:
            return None
        self._heard_at = now
        self._bytes_received += len(data)
        n = seq - self._acked_seq  # numbered without gaps
        acked, self._window[:n] = self._window[:n], ()
        self._acked_seq = seq
        for sent in acked:
            self._window_bytes -= len(sent.frame)
        return acked[0].marks if n == 1 else merged(sent.marks for sent in acked)

    @property
    def credit(self) -> int:
        """How many more records the window has room for."""
        return room(self._limits, len(self._window), self._window_bytes)

    # ---- receiving -----------------------------------------------------------------------------------
    def received(self, data: bytes, now: Ns) -> list[Batch] | None:
        """``SyncReceived`` of nothing but whole batches, the next ones: they are to be imported."""
        if not self._receives:
            return None
        batches = sync_wire.whole_batches(data, self._limits.frame_bytes_max)
        if not batches:
            return None
        seq = self._received_seq
        for batch in batches:
            seq += 1
            if batch.seq != seq:
                return None
        self._received_seq = seq
        self._heard_at = now
        self._bytes_received += len(data)
        return batches

    def imported(self, n: int, now: Ns) -> bytes:
        """``FlowsImported`` of all ``n`` records that were received: the acknowledgement."""
        frame = sync_wire.encode(Ack(self._received_seq))
        self._imported_seq = self._received_seq
        self._records_received += n
        self._bytes_sent += len(frame)
        self._said_at = now
        return frame
