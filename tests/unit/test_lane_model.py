# SPDX-License-Identifier: Apache-2.0
"""The lane in C and the long way through the core, beside each other on the same sessions. Spec: R20, R22."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from packets import LAN
from unit.test_channel import DNS, FRESH, LIMITS, NOW, Line, S, active_node
from unit.test_sync_short import begun, hello, run, said

from flexha.core import sync
from flexha.core.actions import AckFlows, SendSync, SetDrainCredit
from flexha.core.events import FlowsDrained, Role, SyncConnected
from flexha.core.sync import Session
from flexha.core.sync_orders import TakeRole
from flexha.core.sync_sender import SyncLimits
from flexha.core.sync_wire import Ack, Want
from flexha.fastpath import Fastpath
from flexha.fastpath.channel import LaneMode, SentBatch
from flexha.units import Term

CORE_LIMITS = SyncLimits(
    window_batches=LIMITS.window_batches,
    window_bytes=LIMITS.window_bytes,
    batch_records=LIMITS.batch_records,
    frame_bytes_max=LIMITS.frame_bytes_max,
)


class LongWay:
    """The same node, and Python's core: what leaves it, and what becomes of its window."""

    def __init__(self, fastpath: Fastpath) -> None:
        self._fastpath = fastpath
        start = replace(begun(), limits=CORE_LIMITS)
        start = replace(start, sender=replace(start.sender, limits=CORE_LIMITS))
        start = run(start, TakeRole(Role.ACTIVE, Term(2)), SyncConnected())
        self.session: Session = run(start, said(hello(Role.PASSIVE, 2), Want(None, 0)), said(Ack(1)))
        self._credit = LIMITS.window_batches * LIMITS.batch_records
        self.frames: list[bytes] = []

    def _step(self, event: sync.Input) -> None:
        self.session, outputs = sync.step(self.session, event, self.session.heard_at)
        for output in outputs:
            match output:
                case SendSync(data):
                    self.frames.append(data)
                case AckFlows(marks):
                    self._fastpath.ack(marks)
                case SetDrainCredit(records):
                    self._credit = records
                case _:
                    raise AssertionError(output)

    def acknowledged(self, seq: int) -> None:
        self._step(said(Ack(seq)))

    def drain(self) -> None:
        while self._credit > 0:
            batches = self._fastpath.drain(min(self._credit, LIMITS.batch_records))
            for drained in batches:
                self._step(FlowsDrained(drained.sections, drained.n, drained.marks))
            if not batches:
                break


EVENTS = st.one_of(
    st.tuples(st.just("open"), st.integers(1, 12)),
    st.tuples(st.just("acknowledge"), st.integers(1, 3)),
    st.tuples(st.just("expire"), st.just(0)),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(EVENTS, max_size=3), max_size=6))
def test_the_lane_does_what_the_core_does(turns: list[list[tuple[str, int]]]) -> None:
    """Byte for byte, number for number; and both tables have given up the same."""
    with active_node() as one, active_node() as other, ExitStack() as stack:
        line, core = Line(one), LongWay(other)
        stack.callback(line.close)
        window: list[SentBatch] = []
        port, now_ns = 6000, NOW
        line.state = replace(FRESH, sent_seq=1, acked_seq=1)
        for turn in turns:
            for what, n in turn:
                match what:
                    case "open":
                        for fastpath in (one, other):
                            for i in range(n):
                                frame = replace(DNS, sport=port + i).from_lan()
                                fastpath.test_step([frame], port=LAN, now_ns=now_ns)
                        port += n
                    case "expire":
                        now_ns += 400 * S
                        assert one.test_expire(now_ns) == other.test_expire(now_ns)
                    case _:
                        pass
            line.go(LaneMode.SEND, window)
            for what, n in turn:
                seq = min(core.session.sender.acked_seq + n, core.session.sender.sent_seq)
                if what == "acknowledge" and seq > core.session.sender.acked_seq:
                    line.say(Ack(seq))
                    core.acknowledged(seq)
            core.drain()
            # Before the lane is asked to rest, which it does at once, whatever is left to be sent.
            assert [line.hear_frame() for _ in core.frames] == core.frames
            state = line.rest()
            core.frames.clear()
            sender = core.session.sender
            assert (state.sent_seq, state.acked_seq) == (sender.sent_seq, sender.acked_seq)
            window = [*window, *state.sent][-len(sender.window) :] if sender.window else []
            assert [(sent.n, sent.marks, sent.frame) for sent in window] == [
                (sent.n, sent.marks, sent.frame) for sent in sender.window
            ]
            assert one.worker_stats(0).tombstones == other.worker_stats(0).tombstones
            assert one.worker_stats(0).dirty == other.worker_stats(0).dirty
