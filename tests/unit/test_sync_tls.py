# SPDX-License-Identifier: Apache-2.0
"""The sync connection with TLS over loopback: who gets in, who does not, what strangers cost. Spec: R22."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import keys as testkeys
import pytest
import uvloop
from unit.test_sync_io import A, B, Side, free_port, until

from flexha.config import keyfiles
from flexha.core.events import SyncClosed, SyncConnected, SyncReceived
from flexha.shell import sync_io
from flexha.shell.sync_io import SyncIo
from flexha.shell.tls import Tls

Story = Callable[[Side, Side], Awaitable[None]]


class Keyed(Side):
    """A side with keys from a directory; node a, which listens, speaks first, as the core does."""

    def __init__(
        self, directory: Path | None, port: int, *, connects: bool, peer: IPv4Address | None = None
    ) -> None:
        own, other = (B, A) if connects else (A, B)
        super().__init__(own, peer or other, port, connects=connects)
        tls = Tls.of(testkeys.load(directory)) if directory else None
        self.io = SyncIo(self.io._xc, self.heard, self.counters, tls)

    def heard(self, event: object) -> None:
        self.events.append(event)  # type: ignore[arg-type]
        if isinstance(event, SyncConnected):
            self.say(b"hello")

    def counted(self, name: str) -> int:
        return self.counters.values().get(name, 0)


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    return testkeys.make_pair(tmp_path)


def descriptors() -> int:
    gc.collect()  # a context that logs its keys has its file until it is collected
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Whatever happened, no descriptor outlives it."""
    uvloop.run(asyncio.sleep(0))  # libuv's own are made once
    before = descriptors()
    yield
    give_up_at = time.monotonic() + 5
    while descriptors() > before:  # the fast path closes a connection once its last word is said
        assert time.monotonic() < give_up_at


def run(
    pair: dict[str, Path], story: Callable[[Keyed, Keyed], Awaitable[None]], *, stands: bool = True
) -> None:
    async def whole() -> None:
        port = free_port()
        a, b = Keyed(pair["a"], port, connects=False), Keyed(pair["b"], port, connects=True)
        try:
            await a.io.start()
            await b.io.start()
            if stands:
                await until(lambda: a.io.connected and b.io.connected)
            await story(a, b)
        finally:
            a.io.stop()
            b.io.stop()
            await asyncio.sleep(0.02)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert all(task.cancelled() or task.done() for task in tasks), tasks

    uvloop.run(whole())


def strange(directory: Path, pinned: Path) -> Tls:
    """Trusts the node in ``pinned``; its own certificate is its own affair."""
    keyfiles.write_peers(directory, [keyfiles.der_of((pinned / "node.crt").read_bytes())])
    return Tls.of(testkeys.load(directory))


def test_bytes_cross_in_order_and_reads_are_bounded(pair: dict[str, Path]) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        chunks = [bytes([n % 251]) * (1000 + 97 * n) for n in range(500)]
        for chunk in chunks:
            b.say(chunk)
        want = b"hello" + b"".join(chunks)
        await until(lambda: len(a.data) == len(want))
        assert a.data == want
        assert max(len(e.data) for e in a.events if isinstance(e, SyncReceived)) <= sync_io.READ_BYTES
        assert b.io.tls
        assert b.io.tls.cipher.startswith("TLS_AES")
        assert b.io.bytes_sent == a.io.bytes_received > len(want)

    run(pair, story)


class Relay:
    """Stands between both nodes, and remembers what it has passed on."""

    ADDRESS = IPv4Address("127.0.0.3")

    def __init__(self, port: int) -> None:
        self.seen = bytearray()
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._join, str(self.ADDRESS), self._port)

    async def _join(self, b_in: asyncio.StreamReader, b_out: asyncio.StreamWriter) -> None:
        a_in, a_out = await asyncio.open_connection(str(A), self._port, local_addr=(str(self.ADDRESS), 0))
        for source, sink in ((b_in, a_out), (a_in, b_out)):
            task = asyncio.ensure_future(self._pass_on(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                self.seen += data
                sink.write(data)
        sink.close()

    async def stop(self) -> None:
        """Once both ends are closed."""
        self._server.close()
        await until(lambda: not self._tasks)


def test_what_crosses_cannot_be_read(pair: dict[str, Path]) -> None:
    """A relay in between sees neither the words nor who says them."""

    async def whole() -> bytes:
        port = free_port()
        relay = Relay(port)
        a = Keyed(pair["a"], port, connects=False, peer=relay.ADDRESS)
        b = Keyed(pair["b"], port, connects=True, peer=relay.ADDRESS)
        await relay.start()
        try:
            await a.io.start()
            await b.io.start()
            await until(lambda: a.io.connected and b.io.connected)
            b.say(b"the secret of the pair" * 10)
            await until(lambda: b"the secret of the pair" in a.data)
        finally:
            a.io.stop()
            b.io.stop()
            await relay.stop()
        return bytes(relay.seen)

    seen = uvloop.run(whole())
    assert len(seen) > 1000
    assert b"secret" not in seen
    assert b"hello" not in seen
    assert b"flexha" not in seen  # the certificates' names


def test_a_close_is_clean_and_the_last_word_arrives(pair: dict[str, Path]) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        a.say(b"the last word")
        a.io.close("enough")
        assert a.events[-1] == SyncClosed("enough")
        await until(lambda: b.count(SyncClosed) == 1)
        assert b.data == b"hellothe last word"
        assert SyncClosed("closed by the peer") in b.events
        await until(lambda: a.count(SyncConnected) == 2 and b.count(SyncConnected) == 2)

    run(pair, story)


def test_an_abort_is_noticed(pair: dict[str, Path]) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        b.io._forget("cut", abort=True)
        await until(lambda: a.count(SyncClosed) == 1 and b.count(SyncClosed) == 1)
        assert SyncClosed("Connection reset by peer") in a.events
        await until(lambda: a.io.connected and b.io.connected)

    run(pair, story)


@pytest.mark.parametrize(
    ("spoil", "at_a", "at_b"),
    [
        # Who is refused hears no more of why than TLS says; who refuses counts what was wrong.
        (lambda pair: testkeys.give(pair["b"], testkeys.stranger()), "foreign", "refused"),
        (lambda pair: testkeys.pin(pair["a"], testkeys.stranger()), "foreign", "refused"),
        (lambda pair: testkeys.give(pair["a"], testkeys.stranger()), "refused", "foreign"),
        (lambda pair: testkeys.pin(pair["b"], testkeys.stranger()), "refused", "foreign"),
    ],
    ids=["b has another key", "a pins another", "a has another key", "b pins another"],
)
def test_who_is_not_pinned_is_refused(
    pair: dict[str, Path], spoil: Callable[[dict[str, Path]], None], at_a: str, at_b: str
) -> None:
    spoil(pair)

    async def story(a: Keyed, b: Keyed) -> None:
        await until(lambda: a.counted(f"sync.tls_{at_a}") >= 2 and b.counted(f"sync.tls_{at_b}") >= 2)
        assert a.events == b.events == []
        assert not a.io.connected
        assert not b.io.connected

    run(pair, story, stands=False)


def test_an_expired_certificate_is_refused_though_it_is_pinned(pair: dict[str, Path]) -> None:
    """The preflight would not let such a node start; a peer does not rely on that."""
    expired = testkeys.expired()
    testkeys.pin(pair["a"], expired)

    async def story(a: Keyed, b: Keyed) -> None:
        testkeys.give(pair["b"], expired)
        own = keyfiles.Keys(pair["b"], (), expired, (keyfiles.der_of((pair["a"] / "node.crt").read_bytes()),))
        b.io.set_tls(Tls.of(own))
        await until(lambda: a.counted("sync.tls_expired") >= 1 and b.counted("sync.tls_refused") >= 1)
        assert a.events == b.events == []
        await until(lambda: a.io.refusal is not None and a.io.refusal.reason == "expired")
        assert "pair init" in str(a.io.refusal)

    run(pair, story, stands=False)


async def raw(a: Keyed, data: bytes) -> bytes:
    """Say something that is no TLS, from the peer's address; what comes back until the end."""
    reader, writer = await asyncio.open_connection(str(A), a.io._xc.sync_port, local_addr=(str(B), 0))
    try:
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            return await reader.read()
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x05hello", b"\xff" * 5000, b"\x16\x03\x01\xff\xff" + bytes(9)],
)
def test_what_is_no_tls_disturbs_nobody(pair: dict[str, Path], data: bytes) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        for _ in range(3):
            await raw(a, data)
        await until(lambda: a.counted("sync.tls_garbage") == 3)
        assert a.count(SyncConnected) == 1
        assert a.count(SyncClosed) == 0
        b.say(b"still here")
        await until(lambda: a.data == b"hellostill here")

    run(pair, story)


def test_an_endless_handshake_is_cut(pair: dict[str, Path]) -> None:
    """Handshake records of nothing, as many as one likes."""

    async def story(a: Keyed, b: Keyed) -> None:
        record = b"\x16\x03\x03\x40\x00" + b"\x01\x0f\xff\xff" + bytes(16380)
        await raw(a, record * 8)
        await until(lambda: a.counted("sync.tls_garbage") == 1)
        assert a.io.connected

    run(pair, story)


def test_a_silent_connection_is_cut_and_the_true_peer_gets_in(
    pair: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_io, "HANDSHAKE_TIMEOUT_S", 0.3)

    async def story(a: Keyed, b: Keyed) -> None:
        b.io.close("to come back")
        answers = [asyncio.ensure_future(raw(a, b"")) for _ in range(3)]
        await until(lambda: a.count(SyncConnected) == 2)
        assert await asyncio.gather(*answers) == [b"", b"", b""]
        assert a.counted("sync.tls_timeout") == 3
        assert a.io.connected

    run(pair, story)


def test_many_silent_connections_are_not_more_than_a_few(pair: dict[str, Path]) -> None:
    """The oldest gives way: who speaks at once is never crowded out."""

    async def story(a: Keyed, b: Keyed) -> None:
        b.io.close("to come back")
        answers = [asyncio.ensure_future(raw(a, b"")) for _ in range(3 * sync_io.PENDING_MAX)]
        await until(lambda: a.counted("sync.tls_crowded") >= sync_io.PENDING_MAX)
        assert len(a.io._pending) <= sync_io.PENDING_MAX
        await until(lambda: a.count(SyncConnected) == 2)
        a.io.stop()
        await asyncio.gather(*answers)

    run(pair, story)


@pytest.mark.parametrize("speaks", [False, True], ids=["silent", "a hello each"])
def test_a_flood_of_half_open_connections_does_not_keep_the_true_peer_out(
    pair: dict[str, Path], speaks: bool
) -> None:
    """From its own address, some thousand a second, as long as it is out. Spec: R22."""
    incoming, hello = ssl.MemoryBIO(), ssl.MemoryBIO()
    stranger = Tls.of(testkeys.load(pair["b"])).client.wrap_bio(incoming, hello)
    with contextlib.suppress(ssl.SSLWantReadError):
        stranger.do_handshake()
    said = hello.read() if speaks else b""

    async def story(a: Keyed, b: Keyed) -> None:
        opened: list[socket.socket] = []

        def more() -> None:
            for _ in range(8):
                sock = socket.socket()
                opened.append(sock)
                sock.setblocking(False)
                sock.bind((str(B), 0))
                with contextlib.suppress(BlockingIOError):
                    sock.connect((str(A), a.io._xc.sync_port))
            if said:
                for sock in opened[-16:-8]:
                    with contextlib.suppress(OSError):
                        sock.send(said)
            for sock in opened[:-200]:
                sock.close()
            del opened[:-200]

        async def flood() -> None:
            while True:
                more()
                await asyncio.sleep(0.001)

        flooding = asyncio.ensure_future(flood())
        try:
            await until(lambda: a.counted("sync.tls_crowded") > 2 * sync_io.PENDING_MAX)
            b.io.close("to come back in the midst of it")
            await until(lambda: a.count(SyncConnected) == 2)
            assert len(a.io._pending) <= sync_io.PENDING_MAX
        finally:
            flooding.cancel()
            for sock in opened:
                sock.close()

    run(pair, story)


def test_the_newest_wins_only_once_it_has_proven_who_it_is(pair: dict[str, Path], tmp_path: Path) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        b.io._connector.cancel()  # type: ignore[union-attr]
        tls = strange(testkeys.make_pair(tmp_path / "other")["b"], pair["a"])
        liar = Side(B, A, a.io._xc.sync_port, connects=True)
        liar.io.set_tls(tls)
        newer = Keyed(pair["b"], a.io._xc.sync_port, connects=True)
        await liar.io.start()
        try:
            await until(lambda: a.counted("sync.tls_foreign") >= 1)
            assert a.count(SyncClosed) == 0
            b.say(b"mine")
            await until(lambda: a.data == b"hellomine")
            liar.io.stop()
            await newer.io.start()
            await until(lambda: newer.io.connected and a.count(SyncConnected) == 2)
            assert SyncClosed("replaced by a newer connection") in a.events
        finally:
            liar.io.stop()
            newer.io.stop()

    run(pair, story)


def test_a_burst_is_one_line(pair: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        for _ in range(20):
            await raw(a, b"garbage garbage")
        assert a.counted("sync.tls_garbage") == 20

    caplog.set_level("WARNING", "flexha")
    run(pair, story)
    said = [record for record in caplog.records if record.getMessage() == "sync.tls_refused"]
    assert len(said) == 1


def test_new_keys_hold_from_the_next_connection_on(pair: dict[str, Path]) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        before = testkeys.load(pair["b"]).own
        assert before
        following = keyfiles.make_identity("flexha test b", datetime.now(UTC))  # the name of the old one
        testkeys.pin(pair["a"], before, following)
        testkeys.give(pair["b"], following)
        a.io.set_tls(Tls.of(testkeys.load(pair["a"])))
        b.io.set_tls(Tls.of(testkeys.load(pair["b"])))
        assert a.io.tls
        assert a.io.tls.peer == before.certificate
        b.io.close("to show the new one")
        await until(lambda: a.count(SyncConnected) == 2 and b.count(SyncConnected) == 2)
        assert a.io.tls.peer == following.certificate

    run(pair, story)


def test_only_tls_1_3_is_spoken(pair: dict[str, Path]) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(pair["b"] / "node.crt", pair["b"] / "node.key")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(str(A), a.io._xc.sync_port, local_addr=(str(B), 0), ssl=context)
        await until(lambda: a.counted("sync.tls_garbage") == 1)
        assert a.io.connected

    run(pair, story)


def test_who_shows_no_certificate_is_refused(pair: dict[str, Path]) -> None:
    async def story(a: Keyed, b: Keyed) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            reader, writer = await asyncio.open_connection(
                str(A), a.io._xc.sync_port, local_addr=(str(B), 0), ssl=context
            )
            assert await reader.read() == b""
            writer.close()
        await until(lambda: a.counted("sync.tls_foreign") == 1)
        assert a.count(SyncConnected) == 1

    run(pair, story)


def test_a_key_log_is_written(pair: dict[str, Path], tmp_path: Path) -> None:
    log = tmp_path / "keys.log"

    async def story(a: Keyed, b: Keyed) -> None:
        b.io.set_tls(Tls.of(testkeys.load(pair["b"]), log))
        b.io.close("to log")
        await until(lambda: b.count(SyncConnected) == 2)

    run(pair, story)
    assert "CLIENT_TRAFFIC_SECRET_0" in log.read_text()


def test_a_peer_that_does_not_read_is_cut(pair: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_io, "WRITE_BYTES_MAX", 1 << 20)

    async def story(a: Keyed, _b: Keyed) -> None:
        for _ in range(200):
            a.say(bytes(1 << 18))
            if not a.io.connected:
                break
        assert a.events[-1] == SyncClosed("the peer does not read")

    run(pair, story)


def test_plain_against_tls(pair: dict[str, Path]) -> None:
    """Neither end takes the other for what it is not."""

    async def whole() -> None:
        port = free_port()
        a, b = Keyed(pair["a"], port, connects=False), Keyed(None, port, connects=True)
        await a.io.start()
        await b.io.start()
        try:
            await until(lambda: a.counted("sync.tls_garbage") >= 2)
            assert not a.events
        finally:
            a.io.stop()
            b.io.stop()
            await asyncio.sleep(0.02)

    uvloop.run(whole())


def test_sockets_are_closed_even_if_nobody_answers(pair: dict[str, Path]) -> None:
    """A handshake under way when the node stops."""

    async def whole() -> None:
        with socket.socket() as deaf:
            deaf.bind((str(A), 0))
            deaf.listen()
            b = Keyed(pair["b"], deaf.getsockname()[1], connects=True)
            await b.io.start()
            await until(lambda: len(b.io._pending) == 1)
            b.io.stop()
            await asyncio.sleep(0.02)
            assert b.events == []

    uvloop.run(whole())
