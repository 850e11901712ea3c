# SPDX-License-Identifier: Apache-2.0
"""The short way of a busy stream leaves a session as the long way would have. Spec: R20, R22."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from cores import batch, config, digest
from hypothesis import given
from hypothesis import strategies as st

from flexha.core import sync, sync_sender, sync_short, sync_wire
from flexha.core.events import FlowsDrained, FlowsImported, Role, SyncClosed, SyncConnected, SyncReceived
from flexha.core.shards import ALL
from flexha.core.sync import Session
from flexha.core.sync_orders import TakeRole
from flexha.core.sync_sender import Sent, SyncLimits
from flexha.core.sync_short import Progress, Way
from flexha.core.sync_wire import Ack, Batch, Beat, Hello, Message, Stream, SweepBegin, Want
from flexha.units import Ns, Term

LIMITS = SyncLimits(window_batches=4, window_bytes=2000, batch_records=10)
NOW = Ns(1_000_000_000)


def said(*messages: Message) -> SyncReceived:
    return SyncReceived(b"".join(sync_wire.encode(message) for message in messages))


def run(session: Session, *events: sync.Input) -> Session:
    for event in events:
        session, _ = sync.step(session, event, NOW)
    return session


def hello(role: Role, term: int) -> Hello:
    return Hello(pair="lab", node=1, incarnation=9, term=Term(term), role=role)


def begun() -> Session:
    cfg = config(0)
    return run(sync.initial(cfg.pair, cfg.index, LIMITS), TakeRole(Role.JOINING, Term(1)))


def sending() -> Session:
    """ACTIVE, the peer's want is answered by a bulk that has number 1."""
    session = run(begun(), TakeRole(Role.ACTIVE, Term(2)), SyncConnected())
    return run(session, said(hello(Role.PASSIVE, 2), Want(None, 0)))


def receiving() -> Session:
    """JOINING, and the bulk has begun."""
    session = run(begun(), SyncConnected(), said(hello(Role.ACTIVE, 2)))
    return run(session, said(SweepBegin(Stream(9, Term(2)), 1, ALL)), FlowsImported(1))


def draining() -> Session:
    """A handover waits for number 1."""
    session = sending()
    return replace(session, sender=sync_sender.drain(session.sender))


# ---- both ways -----------------------------------------------------------------------------------------
class Both:
    """One stream, told to the core event by event, and to ``fold`` as what became of it."""

    def __init__(self, session: Session) -> None:
        self.long = session
        """What the long way has made of it."""
        self._now = NOW
        self._sent: list[Sent] = []
        """Since the last hold."""
        self._rest(session)

    def _rest(self, session: Session) -> None:
        sender, receiver = session.sender, session.receiver
        self._from = session
        self._sent.clear()
        self._progress = Progress(
            sent_seq=sender.sent_seq,
            acked_seq=sender.acked_seq,
            sent=(),
            received_seq=receiver.received_seq,
            imported_seq=receiver.imported_seq,
            records_sent=0,
            records_received=0,
            bytes_sent=0,
            bytes_received=0,
            heard_at=None,
            said_at=None,
        )

    def _step(self, event: sync.Input) -> None:
        self._now = Ns(self._now + 1)
        self.long, _ = sync.step(self.long, event, self._now)

    def drained(self, n: int, marks: dict[int, int]) -> None:
        """A batch leaves."""
        before = self._progress
        made = batch(before.sent_seq + 1, n)
        frame = sync_wire.encode(made)
        self._step(FlowsDrained(made.sections, n, marks))
        self._sent.append(Sent(before.sent_seq + 1, frame, marks, n))
        self._progress = replace(
            before,
            sent_seq=before.sent_seq + 1,
            records_sent=before.records_sent + n,
            bytes_sent=before.bytes_sent + len(frame),
            said_at=self._now,
        )

    def acknowledged(self, n: int) -> None:
        """The peer has the next ``n``."""
        before = self._progress
        seq = min(before.acked_seq + n, before.sent_seq)
        if seq == before.acked_seq:
            return  # such a one goes the long way
        event = said(Ack(seq))
        self._step(event)
        self._progress = replace(
            before,
            acked_seq=seq,
            bytes_received=before.bytes_received + len(event.data),
            heard_at=self._now,
        )

    def received(self, *sizes: int) -> None:
        """Batches come in one turn, and one acknowledgement leaves."""
        before = self._progress
        seq = before.received_seq + len(sizes)
        batches = [batch(before.received_seq + 1 + i, n) for i, n in enumerate(sizes)]
        event = said(*batches)
        self._step(event)
        heard_at = self._now
        self._step(FlowsImported(seq, sum(sizes)))
        self._progress = replace(
            before,
            received_seq=seq,
            imported_seq=seq,
            records_received=before.records_received + sum(sizes),
            bytes_received=before.bytes_received + len(event.data),
            bytes_sent=before.bytes_sent + len(sync_wire.encode(Ack(seq))),
            heard_at=heard_at,
            said_at=self._now,
        )

    def hold(self) -> Session:
        """The lane is held, and goes on from there."""
        progress = self._progress
        kept = tuple(sent for sent in self._sent if sent.seq > progress.acked_seq)
        folded = sync_short.fold(self._from, replace(progress, sent=kept))
        self._rest(folded)
        return folded


SENDERS = st.one_of(
    st.tuples(st.just("drained"), st.integers(1, 5), st.integers(1, 90)),
    st.tuples(st.just("acknowledged"), st.integers(1, 4)),
)
RECEIVERS = st.lists(st.integers(1, 3), min_size=1, max_size=3)


@given(st.lists(st.lists(SENDERS, max_size=8), max_size=4))
def test_both_ways_of_a_sender(holds: Sequence[Sequence[tuple[str, int, int] | tuple[str, int]]]) -> None:
    """However much the short way did between two looks of the core."""
    both = Both(sending())
    for events in holds:
        for kind, n, *mark in events:
            if kind == "drained":
                both.drained(n, {mark[0] % 2: mark[0]})
            else:
                both.acknowledged(n)
        assert both.hold() == both.long


@given(st.lists(st.lists(RECEIVERS, max_size=4), max_size=4))
def test_both_ways_of_a_receiver(holds: Sequence[Sequence[Sequence[int]]]) -> None:
    both = Both(receiving())
    for turns in holds:
        for sizes in turns:
            both.received(*sizes)
        assert both.hold() == both.long


@pytest.mark.parametrize("session", [begun(), sending(), draining(), receiving()])
def test_nothing_is_nothing(session: Session) -> None:
    folded = Both(session).hold()
    assert folded == session
    assert folded.sender.window is session.sender.window, "whoever knows it need not be told again"


def test_what_was_acknowledged_leaves_the_window_alone() -> None:
    both = Both(sending())
    both.drained(1, {0: 5})
    both.hold()
    both.drained(2, {1: 7})
    both.acknowledged(2)
    folded = both.hold()
    assert [(sent.seq, sent.marks) for sent in folded.sender.window] == [(3, {1: 7})]
    assert folded.sender.window_bytes == len(folded.sender.window[0].frame)


# ---- who may go it -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("session", "way"),
    [
        (begun(), Way.LONG),
        (run(begun(), SyncConnected()), Way.LONG),
        (sending(), Way.SENDING),
        (run(sending(), said(Ack(1))), Way.SENDING),
        (run(sending(), said(Ack(1), Beat())), Way.SENDING),
        (run(sending(), SyncReceived(b"\0")), Way.LONG),
        (run(sending(), SyncReceived(b"\0"), SyncReceived(sync_wire.encode(Ack(1))[1:])), Way.SENDING),
        (run(sending(), said(Ack(2))), Way.LONG),
        (run(sending(), SyncClosed("gone")), Way.LONG),
        (run(sending(), TakeRole(Role.PASSIVE, Term(3))), Way.LONG),
        (draining(), Way.LONG),
        (run(draining(), said(Ack(1))), Way.LONG),
        (receiving(), Way.RECEIVING),
        (run(receiving(), said(batch(2))), Way.LONG),
        (run(receiving(), said(batch(2)), FlowsImported(2, 1)), Way.RECEIVING),
        (run(receiving(), said(batch(3))), Way.LONG),
        (run(receiving(), said(Batch(1, b"\x90"), Beat())), Way.RECEIVING),
        (run(receiving(), said(digest(1))), Way.RECEIVING),
        (run(receiving(), SyncReceived(b"\0")), Way.LONG),
        (run(receiving(), TakeRole(Role.ACTIVE, Term(3))), Way.LONG),
        (run(receiving(), TakeRole(Role.FAULT, Term(2))), Way.LONG),
        (run(begun(), SyncConnected(), said(hello(Role.ACTIVE, 2))), Way.LONG),
    ],
    ids=[
        "no connection",
        "no hello yet",
        "sending",
        "all is acknowledged",
        "something else came",
        "half a frame waits",
        "... and is whole now",
        "the peer has lied",
        "the connection is gone",
        "reigns no more",
        "drains",
        "drains, though all is acknowledged: the sweep goes on",
        "receiving",
        "a batch is not live yet",
        "it is",
        "a gap",
        "once more what was there",
        "a digest",
        "half a frame waits here",
        "reigns now",
        "is broken",
        "waits for the sender's answer",
    ],
)
def test_who_goes_the_short_way(session: Session, way: Way) -> None:
    assert sync_short.way(session) is way


def test_credit_is_what_the_window_leaves() -> None:
    session = sending()
    assert sync_short.credit(begun()) == 0
    assert sync_short.credit(session) == 3 * 10
    both = Both(session)
    for i in range(3):
        both.drained(1, {0: i + 1})
    assert sync_short.credit(both.hold()) == 0
    both.acknowledged(2)
    assert sync_short.credit(both.hold()) == 2 * 10
