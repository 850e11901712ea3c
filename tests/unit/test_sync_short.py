# SPDX-License-Identifier: Apache-2.0
"""The short way of a busy stream does what the long way does, or nothing. Spec: R20, R22."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from cores import batch, config, digest
from hypothesis import given
from hypothesis import strategies as st

from flexha.core import sync, sync_sender, sync_wire
from flexha.core.actions import AckFlows, Action, ImportFlows, SendSync, SetDrainCredit
from flexha.core.events import FlowsDrained, FlowsImported, Role, SyncConnected, SyncReceived
from flexha.core.shards import ALL
from flexha.core.sync import Mode, Session, TakeRole
from flexha.core.sync_sender import SyncLimits
from flexha.core.sync_short import Lane
from flexha.core.sync_wire import Ack, Beat, Hello, Message, Stream, SweepBegin, Want
from flexha.units import Ns, Term

LIMITS = SyncLimits(window_batches=4, window_bytes=2000, batch_records=10)
NOW = Ns(1_000_000_000)


ACKS_AND_BEATS: tuple[Message, ...] = (Ack(2), Beat(), Ack(3))


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


def short(session: Session, event: sync.Input, now: Ns) -> tuple[Session, tuple[Action, ...]] | None:
    """As the shell performs it."""
    lane = Lane(session)
    match event:
        case FlowsDrained(sections, n, marks):
            frame = lane.put(sections, n, marks, now)
            return None if frame is None else (lane.fold(), (SendSync(frame), SetDrainCredit(lane.credit)))
        case SyncReceived(data):
            acked = lane.acknowledged(data, now)
            if acked is not None:
                done: tuple[Action, ...] = (AckFlows(acked),) if acked else ()
                return lane.fold(), (*done, SetDrainCredit(lane.credit))
            batches = lane.received(data, now)
            if batches is not None:
                return lane.fold(), tuple(ImportFlows(some.seq, some.sections) for some in batches)
        case FlowsImported(_, n):
            ack = SendSync(lane.imported(n, now))
            return lane.fold(), (ack,)
        case _:
            pass
    return None


SENDERS: st.SearchStrategy[sync.Input] = st.one_of(
    st.builds(
        lambda n, mark: FlowsDrained(batch(1, n).sections, n, {mark % 2: mark}),
        st.integers(1, 5),
        st.integers(1, 90),
    ),
    st.lists(st.integers(0, 12).map(Ack), min_size=1, max_size=3).map(lambda acks: said(*acks)),
    st.lists(st.sampled_from(ACKS_AND_BEATS), max_size=3).map(lambda all_: said(*all_)),
)
RECEIVERS: st.SearchStrategy[sync.Input] = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 3)).map(
        lambda span: said(*(batch(seq) for seq in range(span[0], sum(span))))
    ),
    st.sampled_from((said(Beat()), said(digest(1)), said(batch(2), Beat()), SyncReceived(b"\0\0"))),
)


@given(st.lists(SENDERS, max_size=12))
def test_both_ways_of_a_sender(events: Sequence[sync.Input]) -> None:
    follow(sending(), events)


@given(st.lists(RECEIVERS, max_size=12), st.booleans())
def test_both_ways_of_a_receiver(events: Sequence[sync.Input], is_live: bool) -> None:
    follow(receiving(), events, is_live=is_live)


def follow(session: Session, events: Sequence[sync.Input], *, is_live: bool = False) -> None:
    """Each event goes both ways from the same state; what is imported is acknowledged at once, or never."""
    for i, event in enumerate(events):
        now = Ns(NOW + i)
        session = agree(session, event, now)
        receiver = session.receiver
        if is_live and receiver.received_seq > receiver.imported_seq and session.mode is Mode.RECEIVING:
            session = agree(session, FlowsImported(receiver.received_seq, 3), now)


def agree(session: Session, event: sync.Input, now: Ns) -> Session:
    long_way = sync.step(session, event, now)
    short_way = short(session, event, now)
    if short_way is not None:
        assert short_way[0] == long_way[0]
        assert merged(short_way[1]) == merged(long_way[1])
    return long_way[0]


def merged(outputs: Sequence[sync.Output]) -> list[sync.Output]:
    """Several acknowledgements say no more than their highest marks, and the last credit."""
    marks: dict[int, int] = {}
    credit, others = None, []
    for output in outputs:
        match output:
            case AckFlows(more):
                marks |= {worker: max(mark, marks.get(worker, 0)) for worker, mark in more.items()}
            case SetDrainCredit():
                credit = output
            case _:
                others.append(output)
    return [*others, *([AckFlows(marks)] if marks else ()), *([credit] if credit else ())]


@pytest.mark.parametrize(
    ("session", "event"),
    [
        (sending(), FlowsDrained(batch(1).sections, 1, {0: 1})),
        (sending(), said(Ack(1))),
        (receiving(), said(batch(2), batch(3))),
        (run(receiving(), said(batch(2))), FlowsImported(2, 1)),
    ],
)
def test_the_short_way_is_taken(session: Session, event: sync.Input) -> None:
    """Else the two tests above would show nothing."""
    assert short(session, event, NOW) is not None
    agree(session, event, NOW)


@pytest.mark.parametrize(
    ("session", "event"),
    [
        (begun(), FlowsDrained(batch(1).sections, 1, {0: 1})),
        (begun(), said(batch(2))),
        (sending(), said(Ack(2))),
        (sending(), said(Ack(1), Beat())),
        (sending(), SyncReceived(b"")),
        (run(sending(), SyncReceived(b"\0")), said(Ack(1))),
        (draining(), said(Ack(1))),
        (receiving(), said(batch(3))),
        (receiving(), said(batch(1))),
        (receiving(), said(batch(2), Beat())),
        (run(receiving(), SyncReceived(b"\0")), said(batch(2))),
        (run(receiving(), TakeRole(Role.ACTIVE, Term(3))), said(batch(2))),
    ],
)
def test_everything_else_goes_the_long_way(session: Session, event: sync.Input) -> None:
    assert short(session, event, NOW) is None
    assert Lane(session).fold() == session
