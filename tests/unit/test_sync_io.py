# SPDX-License-Identifier: Apache-2.0
"""The sync connection over loopback: who connects, who is refused, what a dead or silent peer costs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv4Interface
from typing import Any

import pytest
import uvloop

from flexha.config.derive import XcPlan
from flexha.core.events import Event, StopRequested, SyncClosed, SyncConnected, SyncReceived
from flexha.core.sync_sender import SyncLimits
from flexha.core.sync_wire import FrameBuffer
from flexha.errors import StartError
from flexha.fastpath.channel import Channel
from flexha.shell import sync_io
from flexha.shell.counters import Counters
from flexha.shell.sync_io import ShortWay, SyncIo, lane_limits

A, B = IPv4Address("127.0.0.1"), IPv4Address("127.0.0.2")
FRAME_BYTES_MAX = 4 << 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((str(A), 0))
        return int(probe.getsockname()[1])


def framed(payload: bytes) -> bytes:
    """As the wire has it; what is in it is the core's affair."""
    return len(payload).to_bytes(4) + payload


class Side:
    """One node's sync connection, with the events that it made."""

    def __init__(self, address: IPv4Address, peer: IPv4Address | None, port: int, *, connects: bool) -> None:
        self.events: list[Event] = []
        self.counters = Counters()
        plan = XcPlan("lo", IPv4Interface((address, 8)), peer, port, connects)
        self.io = SyncIo(plan, self.events.append, self.counters)

    def say(self, payload: bytes) -> None:
        self.io.send(framed(payload))

    @property
    def data(self) -> bytes:
        """What came in frames; each event has whole ones."""
        payloads: list[bytes] = []
        for event in self.events:
            if isinstance(event, SyncReceived):
                rest, whole = FrameBuffer().feed(event.data, FRAME_BYTES_MAX)
                assert not rest.size
                payloads += whole
        return b"".join(payloads)

    def count(self, kind: type) -> int:
        return sum(isinstance(event, kind) for event in self.events)


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


def run(story: Callable[[Side, Side], Awaitable[None]], *, started: bool = True) -> None:
    async def whole() -> None:
        port = free_port()
        a, b = Side(A, B, port, connects=False), Side(B, A, port, connects=True)
        try:
            if started:
                await a.io.start()
                await b.io.start()
                await until(lambda: a.io.connected and b.io.connected)
            await story(a, b)
        finally:
            a.io.stop()
            b.io.stop()

    uvloop.run(whole())


def test_node_b_connects_and_bytes_cross_in_order() -> None:
    async def story(a: Side, b: Side) -> None:
        chunks = [bytes([n % 251]) * (1000 + n) for n in range(500)]
        for chunk in chunks:
            b.say(chunk)
        a.say(b"answer")
        await until(lambda: len(a.data) == sum(map(len, chunks)))
        await until(lambda: b.data == b"answer")
        assert a.data == b"".join(chunks)
        assert max(len(e.data) for e in a.events if isinstance(e, SyncReceived)) <= sync_io.READ_BYTES
        assert b.io.bytes_sent == a.io.bytes_received == len(a.data) + 4 * len(chunks)

    run(story)


def test_a_frame_that_is_longer_than_a_read_comes_alone_and_whole() -> None:
    async def story(a: Side, b: Side) -> None:
        long = bytes(range(256)) * 1024
        for payload in (b"before", long, b"behind"):
            b.say(payload)
        await until(lambda: a.data == b"before" + long + b"behind")
        assert SyncReceived(framed(long)) in a.events

    run(story)


def test_node_b_comes_back_after_a_close() -> None:
    async def story(a: Side, b: Side) -> None:
        a.say(b"the last word")
        a.io.close("enough")
        assert a.events[-1] == SyncClosed("enough")
        await until(lambda: b.count(SyncClosed) == 1)
        assert b.data == b"the last word"
        await until(lambda: a.count(SyncConnected) == 2 and b.count(SyncConnected) == 2)
        kinds = [type(event) for event in a.events]
        assert kinds == [SyncConnected, SyncClosed, SyncConnected]

    run(story)


def test_node_b_waits_for_a_listener() -> None:
    async def story(a: Side, b: Side) -> None:
        await b.io.start()
        await until(lambda: b.counters.values().get("sync.connect_failed", 0) >= 1)
        assert not b.events
        await a.io.start()
        await until(lambda: a.io.connected and b.io.connected)

    run(story, started=False)


def test_the_newest_connection_wins() -> None:
    async def story(a: Side, b: Side) -> None:
        newer = Side(B, A, a.io._xc.sync_port, connects=True)
        b.io._connector.cancel()  # type: ignore[union-attr]
        await newer.io.start()
        try:
            await until(lambda: newer.io.connected and a.count(SyncConnected) == 2)
            assert [type(e) for e in a.events] == [SyncConnected, SyncClosed, SyncConnected]
            b.say(b"ghost")
            newer.say(b"alive")
            await until(lambda: a.data == b"alive")
        finally:
            newer.io.stop()

    run(story)


def test_strangers_are_refused() -> None:
    async def story(a: Side, b: Side) -> None:
        port = a.io._xc.sync_port
        reader, writer = await asyncio.open_connection(str(A), port, local_addr=("127.0.0.9", 0))
        writer.write(b"let me in")
        with contextlib.suppress(ConnectionError):  # cut, or closed: either way nothing comes
            assert await reader.read() == b""
        assert a.counters.values()["sync.foreign_peer"] == 1
        assert a.io.connected
        assert b.io.connected
        assert a.count(SyncClosed) == 0
        writer.close()

    run(story)


def test_a_peer_that_vanishes_in_the_middle() -> None:
    async def story(a: Side, b: Side) -> None:
        b.io.send(framed(b"a frame") + framed(b"half of one")[:9])
        await until(lambda: a.data == b"a frame")
        b.io.stop()
        await until(lambda: not a.io.connected)
        assert a.data == b"a frame", "half of one is none"
        assert isinstance(a.events[-1], SyncClosed)
        a.say(b"into the void")  # no connection: no error, and not counted
        assert a.io.bytes_sent == 0

    run(story)


def test_a_connection_that_stands_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop closes it without a word: it must not pass for the current one for ever."""
    connecting: list[asyncio.Timeout] = []
    timeout = asyncio.timeout

    def remembered(delay_s: float | None) -> asyncio.Timeout:
        made = timeout(delay_s)
        if delay_s == sync_io.CONNECT_TIMEOUT_S:
            connecting.append(made)
        return made

    async def story(a: Side, b: Side) -> None:
        monkeypatch.setattr(asyncio, "timeout", remembered)
        opened = b.io.opened

        def late(connection: sync_io._Connection, remote: str) -> bool:
            wanted = opened(connection, remote)
            if len(connecting) == 1:
                connecting[0].reschedule(asyncio.get_running_loop().time())
            return wanted

        monkeypatch.setattr(b.io, "opened", late)
        await a.io.start()
        await b.io.start()
        await until(lambda: b.count(SyncConnected) == 2)
        assert SyncClosed("connected too late") in b.events
        b.say(b"in time")
        await until(lambda: a.data.endswith(b"in time"))

    run(story, started=False)


def test_who_hears_the_peer_anew_waits_for_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(a: Side, b: Side) -> None:
        monkeypatch.setattr(sync_io, "BACK_OFF_MIN_S", 60.0)
        await b.io.start()
        await until(lambda: b.counters.values().get("sync.connect_failed") == 1)
        await a.io.start()
        b.io.hurry()
        await until(lambda: b.count(SyncConnected) == 1)
        b.io.hurry()
        b.say(b"in time")
        await until(lambda: a.data.endswith(b"in time"))

    run(story, started=False)


def test_an_attempt_of_before_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has sent was lost on a wire that was cut."""

    async def story(a: Side, b: Side) -> None:
        loop = asyncio.get_running_loop()
        create = loop.create_connection
        attempts: list[float] = []

        async def connect(*args: Any, **kwargs: Any) -> Any:
            attempts.append(loop.time())
            if len(attempts) == 1:
                await loop.create_future()  # what was sent is lost
            return await create(*args, **kwargs)

        monkeypatch.setattr(sync_io, "CONNECT_TIMEOUT_S", 60.0)
        monkeypatch.setattr(loop, "create_connection", connect)
        await a.io.start()
        await b.io.start()
        await until(lambda: len(attempts) == 1)
        b.io.hurry()
        await until(lambda: b.count(SyncConnected) == 1)

    run(story, started=False)


def test_a_peer_that_does_not_read_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_io, "WRITE_BYTES_MAX", 1 << 20)

    async def story(a: Side, _b: Side) -> None:
        block = bytes(1 << 18)
        # Nothing is awaited in between, so nothing is taken at the other end, which has room for a frame.
        for _ in range(200):
            a.say(block)
            if not a.io.connected:
                break
        assert a.events[-1] == SyncClosed("the peer does not read")
        assert a.counters.values()["sync.peer_does_not_read"] == 1

    run(story)


def test_after_stop_nothing_is_reported() -> None:
    async def story(a: Side, b: Side) -> None:
        a.io.stop()
        before = list(a.events)
        await until(lambda: not b.io.connected)
        await asyncio.sleep(0.05)
        assert a.events == before

    run(story)


def test_a_node_without_a_peer_does_nothing() -> None:
    async def story() -> None:
        alone = Side(A, None, free_port(), connects=False)
        await alone.io.start()
        assert not alone.io.connected
        assert alone.io.unsent_bytes == 0
        alone.io.stop()

    uvloop.run(story())


def test_a_port_in_use_is_named() -> None:
    async def story() -> None:
        with socket.socket() as taken:
            taken.bind((str(A), 0))
            taken.listen()
            port = taken.getsockname()[1]
            side = Side(A, B, port, connects=False)
            with pytest.raises(
                StartError, match=rf"TCP 127.0.0.1:{port}: Address already in use; free it, or set"
            ):
                await side.io.start()

    uvloop.run(story())


def test_an_address_that_is_not_here() -> None:
    async def story() -> None:
        side = Side(IPv4Address("192.0.2.77"), B, 47851, connects=False)
        with pytest.raises(StartError, match=r"check nodes\.X\.xc\.address"):
            await side.io.start()

    uvloop.run(story())


def test_a_dead_peer_is_noticed_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """User timeout and keepalive are set, on both ends."""
    options: list[tuple[int, int, int]] = []

    def opened(fastpath: None, fd: int, *args: Any, **kwargs: Any) -> Channel:
        with socket.socket(fileno=os.dup(fd)) as sock:
            options.append(
                (
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                    sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                    sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                )
            )
        return Channel(fastpath, fd, *args, **kwargs)

    async def story(_a: Side, _b: Side) -> None:
        assert options == [(2000, 1, 1)] * 2

    monkeypatch.setattr(sync_io, "Channel", opened)
    run(story)


def test_a_connection_that_cannot_be_handed_over_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Descriptors are short here for a moment: the node goes on, and the next attempt stands."""
    dup, left = os.dup, [2]

    def short(fd: int) -> int:
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return dup(fd)

    async def story(a: Side, b: Side) -> None:
        monkeypatch.setattr(os, "dup", short)
        await a.io.start()
        await b.io.start()
        await until(lambda: a.io.connected and b.io.connected)
        b.say(b"here")
        await until(lambda: a.data == b"here")
        assert left == [0]
        assert not a.io._pending
        assert not b.io._pending

    caplog.set_level("WARNING", "flexha")
    run(story, started=False)
    assert [record.getMessage() for record in caplog.records].count("sync.hand_over_failed") == 2


class Keeper:
    """Of a lane: remembers what it was told, among the events of its side."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def settle(self) -> None:
        lane = self._side.io.hold()
        assert lane is not None, "it can still be asked"
        self._side.events.append(StopRequested())

    def attend(self) -> None:
        raise AssertionError


@pytest.mark.parametrize("how", ["close", "peer", "abort", "replaced"])
def test_a_lane_is_settled_before_its_connection_goes(how: str) -> None:
    """Whoever ends it: the batches that it keeps are wanted for a resume."""

    async def story(a: Side, b: Side) -> None:
        fastpath: Any = None
        newer = Side(B, A, a.io._xc.sync_port, connects=True)
        a.io.short = ShortWay(fastpath, Keeper(a), lane_limits(SyncLimits()))
        await a.io.start()
        await b.io.start()
        await until(lambda: a.io.connected and b.io.connected)
        match how:
            case "close":
                a.io.close("enough")
            case "peer":
                b.io.close("enough")
            case "abort":
                a.io._forget("cut", abort=True)
            case _:
                b.io._connector.cancel()  # type: ignore[union-attr]
                await newer.io.start()
        await until(lambda: a.count(SyncClosed) == 1)
        newer.io.stop()
        kinds = [type(event) for event in a.events]
        assert kinds[:3] == [SyncConnected, StopRequested, SyncClosed]

    run(story, started=False)
