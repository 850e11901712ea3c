# SPDX-License-Identifier: Apache-2.0
"""The sync connection in C: real sessions on one end of it, this test on the other. Spec: R20, R22."""

from __future__ import annotations

import errno
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import msgpack
import packets
import pytest
from packets import LAN, UDP, Packet
from sections import SECTIONS, Part, pack, unpack

from flexha.core import sync_wire
from flexha.core.events import Refused, Role
from flexha.core.shards import ALL
from flexha.core.sync_wire import Ack, Batch, Beat, Message, Want
from flexha.fastpath import Fastpath, FastpathError, Op, Out
from flexha.fastpath.channel import (
    Ask,
    Channel,
    Ended,
    LaneLimits,
    LaneMode,
    LaneState,
    PartlyTaken,
    SentBatch,
)

S = 1_000_000_000
NOW = 1000 * S
DNS = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], 5353, 53, payload=b"query")
LIMITS = LaneLimits(
    frame_bytes_max=1 << 16, batch_records=8, window_batches=4, window_bytes=1 << 20, pause_us=0
)
FRESH = LaneState(LaneMode.OFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (), None)


def wait_for(condition: Callable[[], bool], fd: int) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        select.select([fd], [], [], 0.1)


# ---- nodes ---------------------------------------------------------------------------------------------
# Their workers do not run: packets are stepped by the test, and only while the lane rests.


def active_node(**changes: object) -> Fastpath:
    """Node a: tells of its sessions."""
    fastpath = Fastpath(replace(packets.node_config(0), **changes))  # type: ignore[arg-type]
    fastpath.test_expire(NOW)
    fastpath.set_role(Role.ACTIVE, 2)
    fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
    fastpath.track_changes(on=True)
    return fastpath


def passive_node() -> Fastpath:
    """Node b."""
    fastpath = Fastpath(packets.node_config(1))
    fastpath.set_role(Role.PASSIVE, 2)
    fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
    return fastpath


@pytest.fixture
def active() -> Iterator[Fastpath]:
    with active_node() as fastpath:
        yield fastpath


@pytest.fixture
def passive() -> Iterator[Fastpath]:
    with passive_node() as fastpath:
        yield fastpath


def open_sessions(fastpath: Fastpath, *ports: int) -> None:
    """One for each port of a client."""
    for port in ports:
        (out,) = fastpath.test_step([replace(DNS, sport=port).from_lan()], port=LAN, now_ns=NOW)
        assert out.out is Out.WIRE, out.verdict


def told(*ports: int) -> bytes:
    """Sections of new sessions, as a node tells them."""
    with active_node() as fastpath:
        open_sessions(fastpath, *ports)
        (drained,) = fastpath.drain()
        return drained.sections


# ---- both ends -----------------------------------------------------------------------------------------
class Line:
    """A connection: ``channel`` is one end of it, this the other."""

    def __init__(self, fastpath: Fastpath | None, limits: LaneLimits = LIMITS) -> None:
        ours, self.socket = socket.socketpair()
        self.socket.settimeout(10)
        self.channel = Channel(fastpath, ours.detach(), limits)
        self.state = FRESH
        """As the lane was last told, or has told."""

    def close(self) -> None:
        self.channel.close(0)
        self.socket.close()

    # ---- what the peer does ----
    def say(self, *messages: Message) -> None:
        self.socket.sendall(b"".join(sync_wire.encode(message) for message in messages))

    def hear_frame(self) -> bytes:
        head = self._read(4)
        return head + self._read(int.from_bytes(head))

    def hear(self) -> Message:
        return sync_wire.decode(self.hear_frame()[4:])

    def _read(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            piece = self.socket.recv(n - len(data))
            assert piece, "the end"
            data += piece
        return data

    # ---- what control does ----
    def go(self, mode: LaneMode, window: Sequence[SentBatch] | None = None, **numbers: int) -> None:
        state = replace(self.state, mode=mode, **numbers)  # type: ignore[arg-type]
        self.channel.clear_wakeup()
        self.channel.resume(
            mode,
            sent_seq=state.sent_seq,
            acked_seq=state.acked_seq,
            received_seq=state.received_seq,
            imported_seq=state.imported_seq,
            window=window,
        )

    def hold(self) -> LaneState:
        self.state = self.channel.hold()
        return self.state

    def asks(self) -> Ask:
        """What it waits for, as soon as it does."""
        wait_for(lambda: bool(self.channel.stats().asks), self.channel.fd)
        return self.channel.stats().asks

    def left(self) -> bytes:
        """What the lane has left to control, as soon as there is something."""

        def is_told() -> bool:  # what has just come may be the lane's yet
            if not select.select([self.channel.fd], [], [], 0)[0]:
                return False
            self.channel.clear_wakeup()
            return self.channel.stats().ready > 0

        wait_for(is_told, self.channel.fd)
        return self.channel.take()

    def rest(self) -> LaneState:
        """All that could be done so far has been; held."""
        beat = sync_wire.encode(Beat())
        self.socket.sendall(beat)
        assert self.left() == beat
        return self.hold()


@pytest.fixture
def lines() -> Iterator[Callable[..., Line]]:
    with ExitStack() as stack:

        def line(fastpath: Fastpath | None, **changes: int) -> Line:
            made = Line(fastpath, replace(LIMITS, **changes))
            stack.callback(made.close)
            return made

        yield line


Lines = Callable[..., Line]


# ---- without a lane ------------------------------------------------------------------------------------
def test_frames_come_whole_and_in_order(lines: Lines) -> None:
    line = lines(None)
    frames = [sync_wire.encode(message) for message in (Beat(), Ack(7), Batch(1, b"\x90"), Beat())]
    for at, byte in enumerate(b"".join(frames)):
        line.socket.sendall(bytes([byte]))
        if at == 2:
            assert line.channel.stats().ready == 0
    found = b""
    while len(found) < sum(map(len, frames)):
        found += line.left()
        line.go(LaneMode.OFF)
    assert found == b"".join(frames)
    assert line.channel.stats().bytes_in == len(found)


def test_what_was_read_before_comes_first() -> None:
    ours, theirs = socket.socketpair()
    beat = sync_wire.encode(Beat())
    channel = Channel(None, ours.detach(), LIMITS, plain=beat[:3], rest=beat[3:] + beat[:5])
    with theirs:
        wait_for(lambda: channel.stats().ready > 0, channel.fd)
        assert channel.take() == beat
        theirs.sendall(beat[5:])
        wait_for(lambda: channel.stats().ready > 0, channel.fd)
        assert channel.take() == beat
        channel.close(0)
        channel.close(0)


@pytest.mark.parametrize("length", [0, (1 << 16) + 1, 0xFFFFFFFF])
def test_a_length_that_cannot_be_is_for_the_core(lines: Lines, length: int) -> None:
    """Which says what is wrong; nothing of the frame is waited for."""
    line = lines(None)
    line.socket.sendall(length.to_bytes(4))
    assert line.left() == length.to_bytes(4)


def test_what_is_sent_arrives_and_is_counted(lines: Lines) -> None:
    line = lines(None)
    block = sync_wire.encode(Batch(1, bytes(60_000)))
    sent = 0
    while not line.channel.send(block):
        sent += 1
    assert line.channel.stats().unsent > 0
    for _ in range(sent + 1):
        assert line.hear_frame() == block
    wait_for(lambda: line.channel.stats().unsent == 0, line.channel.fd)
    assert line.channel.stats().bytes_out == (sent + 1) * len(block)


def test_the_peers_end_is_told_once_all_it_said_was_taken(lines: Lines) -> None:
    line = lines(None)
    line.say(Beat())
    line.socket.shutdown(socket.SHUT_WR)
    assert line.left() == sync_wire.encode(Beat())
    wait_for(lambda: line.channel.stats().ended is not Ended.NOT, line.channel.fd)
    assert line.channel.stats().ended is Ended.CLOSED
    assert line.channel.send(b"into the void") == 0


def test_an_error_of_the_socket_has_its_number() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        other, _ = server.accept()
        channel = Channel(None, one.detach(), LIMITS)
        Channel(None, other.detach(), LIMITS).close(0)
        wait_for(lambda: channel.stats().ended is not Ended.NOT, channel.fd)
        stats = channel.stats()
        assert (stats.ended, stats.error) == (Ended.ERROR, errno.ECONNRESET)
        channel.close(1)


def test_what_waits_is_sent_before_the_end() -> None:
    line = Line(None)
    block = sync_wire.encode(Batch(1, bytes(60_000)))
    sent = 1
    while not line.channel.send(block):
        sent += 1
    line.channel.close(10)
    for _ in range(sent):
        assert line.hear_frame() == block
    assert line.socket.recv(1) == b""
    line.socket.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def connections() -> int:
    """Threads that carry one; those of a connection that was closed end when they have sent what waited."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            names.append((task / "comm").read_text().strip())
    return names.count("fx-channel")


def test_descriptors_go_with_their_connection(active: Fastpath, lines: Lines) -> None:
    deadline = time.monotonic() + 10
    while connections():
        assert time.monotonic() < deadline, "one of an earlier test goes on"
    before = descriptors()
    ten = [lines(active) for _ in range(10)]
    ten[0].go(LaneMode.SEND, [])
    assert descriptors() == before + 10 * 4
    for line in ten:
        line.close()
    while descriptors() > before:
        assert time.monotonic() < deadline


def test_who_is_refused_keeps_his_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with pytest.raises(FastpathError) as caught:
            Channel(None, ours.fileno(), replace(LIMITS, frame_bytes_max=0))
        assert caught.value.errno == errno.EINVAL
        theirs.sendall(b"still here")
        assert ours.recv(100) == b"still here"


@pytest.mark.parametrize("mode", [LaneMode.SEND, LaneMode.RECEIVE])
def test_there_is_no_lane_without_sessions(lines: Lines, mode: LaneMode) -> None:
    line = lines(None)
    with pytest.raises(FastpathError) as caught:
        line.go(mode, [])
    assert caught.value.errno == errno.EINVAL
    line.say(Ack(1))
    assert line.left() == sync_wire.encode(Ack(1)), "the long way goes on"


# ---- sending -------------------------------------------------------------------------------------------
def test_sessions_leave_in_numbered_batches_as_by_the_long_way(lines: Lines, active: Fastpath) -> None:
    ports = range(6000, 6020)
    line = lines(active)
    open_sessions(active, *ports)
    line.go(LaneMode.SEND, [])
    with active_node() as twin:
        open_sessions(twin, *ports)
        for seq, n in ((1, 8), (2, 8), (3, 4)):
            (drained,) = twin.drain(LIMITS.batch_records)
            frame = line.hear_frame()
            assert frame == sync_wire.encode(Batch(seq, drained.sections))
            assert drained.n == n
    state = line.rest()
    assert (state.sent_seq, state.acked_seq, state.records_out) == (3, 0, 20)
    assert [(sent.n, sent.marks) for sent in state.sent] == [(8, {0: 8}), (8, {0: 16}), (4, {0: 20})]
    assert state.bytes_out == sum(len(sent.frame) for sent in state.sent)
    assert state.said_ns > 0
    assert state.heard_ns == 0


def test_an_acknowledgement_frees_what_it_covers(lines: Lines, active: Fastpath) -> None:
    line = lines(active)
    line.go(LaneMode.SEND, [])
    line.hold()
    open_sessions(active, 6000)
    line.go(LaneMode.SEND)
    assert isinstance(line.hear(), Batch)
    line.hold()
    assert active.test_expire(NOW + 400 * S) == 1
    window = [SentBatch(sent.n, sent.marks, sent.frame) for sent in line.state.sent]
    line.go(LaneMode.SEND, window)
    (deleted,) = unpack(line.hear().sections)  # type: ignore[union-attr]
    assert deleted.op is Op.DELETE
    line.say(Ack(1))
    assert line.rest().acked_seq == 1
    assert active.worker_stats(0).tombstones == 1
    line.go(LaneMode.SEND, [SentBatch(sent.n, sent.marks, sent.frame) for sent in line.state.sent])
    line.say(Ack(2))
    state = line.rest()
    assert (state.acked_seq, state.sent) == (2, ())
    assert active.worker_stats(0).tombstones == 0
    assert state.bytes_in == len(sync_wire.encode(Ack(2)))
    assert state.heard_ns > 0


@pytest.mark.parametrize(
    "message",
    [
        Ack(2),
        Ack(0),
        Ack((1 << 64) - 1),
        Ack(1, (Refused(1, (0,)),)),
        Batch(1, b"\x90"),
        Beat(),
        Want(None, 0),
    ],
    ids=["of what was never sent", "once more", "absurd", "some refused", "a batch", "a beat", "a want"],
)
def test_what_is_no_plain_acknowledgement_is_for_the_core(
    lines: Lines, active: Fastpath, message: Message
) -> None:
    line = lines(active)
    open_sessions(active, 6000)
    line.go(LaneMode.SEND, [])
    assert isinstance(line.hear(), Batch)
    line.say(message, Ack(1))
    assert line.left() == sync_wire.encode(message), "and what is behind it waits for the lane"
    state = line.hold()
    assert (state.acked_seq, state.bytes_in) == (0, 0)
    line.go(LaneMode.SEND)
    assert line.rest().acked_seq == 1


def test_a_full_window_stops_it_and_an_acknowledgement_lets_it_go_on(lines: Lines, active: Fastpath) -> None:
    line = lines(active, window_batches=2)
    open_sessions(active, *range(6000, 6030))
    line.go(LaneMode.SEND, [])
    assert [line.hear().seq for _ in range(2)] == [1, 2]  # type: ignore[union-attr]
    assert line.rest().sent_seq == 2
    line.go(LaneMode.SEND, [SentBatch(sent.n, sent.marks, sent.frame) for sent in line.state.sent])
    line.say(Ack(1))
    assert line.hear().seq == 3  # type: ignore[union-attr]
    assert line.rest().sent_seq == 3


def test_a_window_that_is_full_of_bytes_stops_it(lines: Lines, active: Fastpath) -> None:
    line = lines(active, window_bytes=1)
    open_sessions(active, *range(6000, 6030))
    line.go(LaneMode.SEND, [])
    assert isinstance(line.hear(), Batch)
    assert line.rest().sent_seq == 1


def test_unacknowledged_batches_are_handed_out_once(lines: Lines, active: Fastpath) -> None:
    """Their bytes are control's then; the lane goes on to count them."""
    line = lines(active)
    open_sessions(active, *range(6000, 6010))
    line.go(LaneMode.SEND, [])
    frames = [line.hear_frame() for _ in range(2)]
    state = line.rest()
    assert [sent.frame for sent in state.sent] == frames
    assert line.hold().sent == ()
    open_sessions(active, 7000)
    line.go(LaneMode.SEND)
    third = line.hear_frame()
    state = line.rest()
    assert [sent.frame for sent in state.sent] == [third]
    assert (state.sent_seq, state.acked_seq, state.records_out) == (3, 0, 1)
    line.go(LaneMode.SEND)
    line.say(Ack(3))
    assert line.rest().acked_seq == 3


def test_a_new_connection_goes_on_with_the_window_of_the_last_one(lines: Lines, active: Fastpath) -> None:
    line = lines(active)
    open_sessions(active, *range(6000, 6010))
    line.go(LaneMode.SEND, [])
    while line.hear().seq < 2:  # type: ignore[union-attr]
        pass
    held = line.rest()
    line.close()
    open_sessions(active, 7000)
    after = lines(active)
    after.go(LaneMode.SEND, held.sent, sent_seq=2, acked_seq=0)
    assert after.hear().seq == 3  # type: ignore[union-attr]
    after.say(Ack(2))
    state = after.rest()
    assert (state.sent_seq, state.acked_seq) == (3, 2)
    assert [sent.n for sent in state.sent] == [1]


@pytest.mark.parametrize(
    ("window", "numbers"),
    [
        (None, {"sent_seq": 1}),
        ([], {"sent_seq": 1}),
        ([SentBatch(1, {0: 1}, b"x")], {}),
        ([SentBatch(1, {0: 1}, b"x")] * 2, {"sent_seq": 1}),
    ],
)
def test_a_window_that_fits_nothing_is_refused(
    lines: Lines, active: Fastpath, window: list[SentBatch] | None, numbers: dict[str, int]
) -> None:
    line = lines(active)
    with pytest.raises(FastpathError) as caught:
        line.go(LaneMode.SEND, window, **numbers)
    assert caught.value.errno == errno.EINVAL
    assert line.hold().mode is LaneMode.OFF


@pytest.mark.parametrize(("n_before", "by_lane"), [(0, 0), (3, 0), (8, 8), (11, 8), (16, 16)])
def test_a_marker_is_controls_with_all_that_was_taken_with_it(
    lines: Lines, active: Fastpath, n_before: int, by_lane: int
) -> None:
    """Nothing is lost or told twice, and the lane goes on behind it."""
    line = lines(active)
    line.go(LaneMode.SEND, [])
    line.hold()
    open_sessions(active, *range(6000, 6000 + n_before))
    active.digest_ask()
    line.go(LaneMode.SEND)
    assert line.asks() == Ask.DRAIN
    state = line.hold()
    (drained,) = active.drain(LIMITS.batch_records)
    assert (state.records_out, drained.n) == (by_lane, n_before - by_lane)
    assert drained.digests is not None
    assert drained.digests.shards == ALL
    assert active.drain() == []
    open_sessions(active, 7000, 7001)
    line.go(LaneMode.SEND, state.sent)
    state = line.rest()
    assert (state.sent_seq, state.records_out) == (by_lane // LIMITS.batch_records + 1, 2)


def test_a_sweep_is_told_in_order(lines: Lines, active: Fastpath) -> None:
    """Its begin, its records, its end; each by whom it belongs to."""
    open_sessions(active, *range(6000, 6020))
    active.track_changes(on=False)
    active.track_changes(on=True)
    line = lines(active, window_batches=64)
    active.sweep_start(ALL)
    line.go(LaneMode.SEND, [])
    records, told = 0, []
    while "end" not in told:
        assert line.asks() == Ask.DRAIN
        state = line.hold()
        records += state.records_out
        if state.records_out:
            told.append("lane")
        for drained in active.drain(LIMITS.batch_records):
            records += drained.n
            told += ["begin"] * (drained.sweep is not None) + ["end"] * (drained.swept is not None)
        window = [SentBatch(1, {0: 1}, b"")] * (state.sent_seq - state.acked_seq)
        line.go(LaneMode.SEND, window)
    assert records == 20
    assert told[0] == "begin"
    assert told[-1] == "end"
    assert line.rest().records_out == 0


def test_what_the_lane_has_left_goes_with_the_tracking(lines: Lines, active: Fastpath) -> None:
    line = lines(active)
    line.go(LaneMode.SEND, [])
    line.hold()
    open_sessions(active, 6000)
    active.digest_ask()
    line.go(LaneMode.SEND)
    assert line.asks() == Ask.DRAIN
    line.hold()
    active.track_changes(on=False)
    active.track_changes(on=True)
    assert active.drain() == []
    open_sessions(active, 6001)
    line.go(LaneMode.SEND)
    (one,) = unpack(line.hear().sections)  # type: ignore[union-attr]
    assert one.n == 1
    assert one.columns["inside_port"] == (6001).to_bytes(2)


def test_an_end_leaves_to_the_long_way_what_was_not_taken(lines: Lines, active: Fastpath) -> None:
    line = lines(active, window_batches=1)
    open_sessions(active, *range(6000, 6012))
    line.go(LaneMode.SEND, [])
    assert isinstance(line.hear(), Batch)
    line.rest()
    line.close()
    assert sum(drained.n for drained in active.drain()) == 4


def test_workers_that_run_wake_the_lane(lines: Lines) -> None:
    """And the walk of a sweep crosses with nobody but the lane and, for the markers, control."""
    now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)  # that of the workers
    with active_node(n_workers=2) as fastpath:
        for port in range(6000, 6040):
            frame = replace(DNS, sport=port).from_lan()
            (out,) = fastpath.test_step([frame], port=LAN, now_ns=now_ns)
            if out.out is Out.HANDOFF:
                (out,) = fastpath.test_step([frame], port=LAN, now_ns=now_ns, worker=out.owner)
            assert out.verdict == "snat"
        fastpath.track_changes(on=False)
        fastpath.start()
        fastpath.track_changes(on=True)
        line = lines(fastpath, window_batches=64, pause_us=100)
        line.go(LaneMode.SEND, [])
        line.rest()
        line.go(LaneMode.SEND)
        records, walked = 0, 0
        fastpath.sweep_start(ALL)
        while walked != ALL:
            assert line.asks() == Ask.DRAIN
            state = line.hold()
            records += state.records_out
            for drained in fastpath.drain(LIMITS.batch_records):
                records += drained.n
                walked |= drained.swept or 0
            window = [SentBatch(1, {0: 1}, b"")] * (state.sent_seq - state.acked_seq)
            line.go(LaneMode.SEND, window)
        assert records == 40
        fastpath.stop()


# ---- receiving -----------------------------------------------------------------------------------------
def receives(line: Line) -> None:
    line.go(LaneMode.RECEIVE, received_seq=0, imported_seq=0)


def test_batches_become_live_and_are_acknowledged(lines: Lines, passive: Fastpath) -> None:
    line = lines(passive)
    receives(line)
    line.say(Batch(1, told(6000)))
    assert line.hear() == Ack(1)
    batches = [Batch(seq, told(6000 + seq, 7000 + seq)) for seq in (2, 3, 4)]
    line.say(*batches)
    heard = line.hear()
    while heard != Ack(4):
        assert isinstance(heard, Ack)
        heard = line.hear()
    state = line.rest()
    assert (state.received_seq, state.imported_seq, state.records_in, state.unknown) == (4, 4, 7, 0)
    assert state.bytes_in == sum(len(sync_wire.encode(one)) for one in (Batch(1, told(6000)), *batches))
    assert state.heard_ns > 0
    assert state.said_ns >= state.heard_ns
    assert {flow.inside_port for flow in passive.flows()} == {6000, 6002, 6003, 6004, 7002, 7003, 7004}


@pytest.mark.parametrize(
    "message",
    [
        Batch(3, told(6000)),
        Batch(1, told(6000)),
        Batch(2, b"\x91"),
        Batch(2, b"\xc1"),
        Batch(2, b""),
        Ack(1),
        Beat(),
    ],
    ids=["a gap", "once more", "cut", "garbage", "nothing", "an acknowledgement", "a beat"],
)
def test_what_is_not_the_next_batch_is_for_the_core(
    lines: Lines, passive: Fastpath, message: Message
) -> None:
    """It has not happened, and what is behind it waits."""
    line = lines(passive)
    receives(line)
    line.say(Batch(1, told(6000)))
    assert line.hear() == Ack(1)
    good = Batch(2, told(6001))
    line.say(message, good)
    assert line.left() == sync_wire.encode(message)
    state = line.hold()
    assert (state.received_seq, state.imported_seq, state.records_in) == (1, 1, 1)
    line.go(LaneMode.RECEIVE)
    assert line.hear() == Ack(2)


def test_keys_in_another_order_are_for_the_core(lines: Lines, passive: Fastpath) -> None:
    fields = msgpack.unpackb(sync_wire.encode(Batch(1, told(6000)))[4:])
    payload = msgpack.packb(dict(reversed(fields.items())))
    frame = len(payload).to_bytes(4) + payload
    line = lines(passive)
    receives(line)
    line.socket.sendall(frame)
    assert line.left() == frame
    assert list(passive.flows()) == []


def test_what_a_later_version_tells_is_skipped_and_counted(lines: Lines, passive: Fastpath) -> None:
    """Spec: B10."""
    (known,) = msgpack.unpackb(told(6000))
    known["cols"]["app_id"] = b"?"
    line = lines(passive)
    receives(line)
    line.say(Batch(1, msgpack.packb([known, {"op": 77, "n": 1, "whatever": None}])))
    assert line.hear() == Ack(1)
    state = line.rest()
    assert (state.records_in, state.unknown) == (1, 2)


def test_records_that_cannot_be_are_left_to_the_core_one_by_one(lines: Lines, passive: Fastpath) -> None:
    """All else of the batch is live, and what came before it acknowledged."""
    (some,) = unpack(told(6001, 6002, 6003))
    external = packets.WAN_VIP.packed
    damaged = replace(
        some, columns={**some.columns, "external": external + packets.SERVERS[0].packed + external}
    )
    (unknown,) = unpack(told(9000))
    news = Part(Op.STATE, 1, 4, {name: unknown.columns[name] for name in SECTIONS[Op.STATE].required})
    line = lines(passive)
    receives(line)
    line.say(Batch(1, told(6000)), Batch(2, pack([damaged, news])), Batch(3, told(6004)))
    assert line.asks() == Ask.IMPORTED
    assert line.hear() == Ack(1)
    state = line.hold()
    assert (state.received_seq, state.imported_seq, state.records_in) == (2, 1, 1)
    assert state.part is not None
    assert state.part == PartlyTaken(4, 2, (1, 3), 1)
    assert {flow.inside_port for flow in passive.flows()} == {6000, 6001, 6003}
    line.channel.send(sync_wire.encode(Ack(2, (Refused(2, state.part.places),))))
    line.go(LaneMode.RECEIVE, imported_seq=2)
    assert isinstance(line.hear(), Ack)
    assert line.hear() == Ack(3)
    assert line.rest().part is None


def test_an_active_node_takes_nothing(lines: Lines, active: Fastpath) -> None:
    """It was passive when the lane got its mode: the core will say that the number is of the past."""
    line = lines(active)
    receives(line)
    line.say(Batch(1, told(6000)))
    assert line.left() == sync_wire.encode(Batch(1, told(6000)))
    assert line.hold().received_seq == 0


def test_held_it_takes_nothing(lines: Lines, passive: Fastpath) -> None:
    line = lines(passive)
    receives(line)
    line.hold()
    line.say(Batch(1, told(6000)))
    wait_for(lambda: line.channel.stats().bytes_in > 0, line.channel.fd)
    assert line.hold().received_seq == 0
    assert list(passive.flows()) == []
    line.go(LaneMode.RECEIVE)
    assert line.hear() == Ack(1)


def test_what_came_before_its_end_becomes_live(lines: Lines, passive: Fastpath) -> None:
    line = lines(passive)
    receives(line)
    line.hold()
    line.say(Batch(1, told(6000)))
    line.socket.close()
    wait_for(lambda: line.channel.stats().ended is not Ended.NOT, line.channel.fd)
    line.go(LaneMode.RECEIVE)
    wait_for(lambda: line.channel.stats().ready == 0, line.channel.fd)
    assert line.hold().received_seq == 1
    assert {flow.inside_port for flow in passive.flows()} == {6000}
