# SPDX-License-Identifier: Apache-2.0
"""The TCP connection that carries sync over the cross-connect: node a listens, node b connects.

One connection at a time, the newest wins (a peer that comes back is a new connection while the old one still
looks alive here). Until it stands a connection is ours, and the loop's; then a thread of the fast path has
it (``flexha.fastpath.channel``) and gives us what is for the core: whole frames, whose
meaning is not known here.

With TLS (``flexha.shell.tls``) a connection counts for nothing until its peer has proven who it is: until
then it is *pending*, beside the one that is current, which it does not disturb. Node b, whose handshake is
over before node a has judged its certificate, waits for node a's first word. At most ``PENDING_MAX``
connections are pending, the oldest gives way, and each for at most ``HANDSHAKE_TIMEOUT_S``. Why one was
refused is a counter (``sync.tls_*``), and one line in the log for a burst of them.

Bounds. The core gets one frame, or ``READ_BYTES`` of them, and has done with them before the next. What is
written and not yet sent is bounded by the core's window; should it exceed ``WRITE_BYTES_MAX``, the peer does
not read, and the connection ends. A dead peer is noticed by the user timeout (RFC 5482) while data is
unacknowledged and by keepalive otherwise; the heartbeat notices long before either.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from flexha.config.derive import XcPlan
from flexha.config.keyfiles import fingerprint
from flexha.core.events import Event, SyncClosed, SyncConnected, SyncReceived
from flexha.core.sync_sender import SyncLimits
from flexha.errors import StartError
from flexha.fastpath import Fastpath
from flexha.fastpath.channel import (
    Ask,
    Channel,
    ChannelStats,
    Ended,
    LaneLimits,
    LaneMode,
    LaneState,
    RecordKeys,
    RecordLayer,
    SentBatch,
)
from flexha.shell import log
from flexha.shell.burst import Bursts
from flexha.shell.counters import Counters
from flexha.shell.flows_io import PAUSE_S
from flexha.shell.tls import Refusal, Tls, TlsConnection
from flexha.shell.tls_secrets import Half, updated

READ_BYTES = 65536
WRITE_BYTES_MAX = 64 << 20
BACK_OFF_MIN_S, BACK_OFF_MAX_S = 0.05, 0.5
CONNECT_TIMEOUT_S = 0.8
"""Below the second after which the kernel sends a SYN anew: the next attempt is sooner than that."""
LASTING_S = 1.0
"""A connection that lasted this long was a success: the back-off starts anew after it."""
HANDSHAKE_TIMEOUT_S = 2.0
PENDING_MAX = 4
CLOSE_TIMEOUT_S = 1.0
"""To send what waits when the core closes; then the connection is cut."""
FLUSH_S = 0.001
"""Until the loop is looked at again that has yet to send the end of a handshake."""
RECORDS_MAX = 1 << 23
"""Sealed with one key, then it is updated: a third of what AES-GCM bears (RFC 8446 §5.5)."""

_TCP_USER_TIMEOUT_MS = 2000
_KEEPALIVE_S = 1
_KEEPALIVE_PROBES = 3


def lane_limits(limits: SyncLimits) -> LaneLimits:
    """Those of the core, for the short way."""
    return LaneLimits(
        frame_bytes_max=limits.frame_bytes_max,
        batch_records=limits.batch_records,
        window_batches=limits.window_batches,
        window_bytes=limits.window_bytes,
        pause_us=int(PAUSE_S * 1e6),
    )


class LaneKeeper(Protocol):
    """Who steps the core: ``flexha.shell.driver.Driver``."""

    def settle(self) -> None:
        """The lane is about to go: ask it where the stream stands."""

    def attend(self) -> None:
        """The lane has left something."""


@dataclass(frozen=True, slots=True)
class ShortWay:
    """What lets batches go past the core: whose sessions they are, who keeps the lane, its bounds."""

    fastpath: Fastpath
    keeper: LaneKeeper
    limits: LaneLimits


class SyncIo:
    """Keeps the connection, and counts what crosses it."""

    def __init__(
        self,
        xc: XcPlan,
        post: Callable[[Event], None],
        counters: Counters,
        tls: Tls | None = None,
        short: ShortWay | None = None,
    ) -> None:
        self._xc = xc
        self._post = post
        self.short = short
        self._counters = counters
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connector: asyncio.Task[None] | None = None
        self._attempt: asyncio.Timeout | None = None
        """How long the one under way may take."""
        self._hurried = asyncio.Event()
        """The pause before the next attempt ends."""
        self._current: _Connection | None = None
        self._pending: list[_Connection] = []
        self._began_s = 0.0
        self._was_brief = False
        """The last connection ended as soon as it stood."""
        self._bursts = Bursts(time.monotonic)
        self.standing: Callable[[], None] | None = None
        """Called when a connection stands, after the core was told."""
        self.sent = 0
        self.heard = 0
        """Bytes of handshakes, and of connections that are over."""
        self.refusal: Refusal | None = None
        """Of the last connection, if it was refused."""

    # ---- life ----
    async def start(self) -> None:
        """Listen, or begin to connect; a node without a peer does neither."""
        if self._xc.peer is None:
            return
        loop = asyncio.get_running_loop()
        if self._xc.connects:
            self._connector = loop.create_task(self._keep_connected())
            self._connector.add_done_callback(_raise_failure)
            return
        self._server = await loop.create_server(self._accept, sock=self._listener(), backlog=16)

    def _listener(self) -> socket.socket:
        address = (str(self._xc.interface.ip), self._xc.sync_port)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError as error:
            listener.close()
            remedy = (
                "free it, or set ha.sync_port"
                if error.errno == errno.EADDRINUSE
                else "check nodes.X.xc.address"
            )
            raise StartError(f"sync: TCP {address[0]}:{address[1]}: {error.strerror}; {remedy}") from error
        listener.setblocking(False)
        return listener

    def stop(self) -> None:
        """Close everything; no more events."""
        if self._connector:
            self._connector.cancel()
        if self._server:
            self._server.close()
        for connection in tuple(self._pending):
            connection.end(abort=True)
        self._pending.clear()
        if self._current:
            self._settle()
            connection, self._current = self._current, None
            connection.end()

    def set_tls(self, tls: Tls) -> None:
        """From the next connection on."""
        self._tls = tls

    # ---- connecting ----
    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        back_off_s = BACK_OFF_MIN_S
        while True:
            connection = self._accept()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT_S) as self._attempt:
                    await loop.create_connection(
                        lambda: connection,  # noqa: B023 - called while this turn awaits it
                        str(self._xc.peer),
                        self._xc.sync_port,
                        local_addr=(str(self._xc.interface.ip), 0),
                    )
            except (OSError, TimeoutError) as error:
                log.debug("sync.connect_failed", peer=self._xc.peer, error=error, retry_s=back_off_s)
                self._counters.add("sync.connect_failed")
                # It may have stood when the time was up: uvloop has closed it, and does not say so.
                if connection in self._pending:
                    self._pending.remove(connection)
                if connection is self._current:
                    self._forget("connected too late", abort=True)
                connection.end(abort=True)
            self._attempt = None
            began_s = loop.time()
            await connection.over.wait()
            if loop.time() - began_s > LASTING_S:
                back_off_s = BACK_OFF_MIN_S
            self._hurried.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._hurried.wait(), back_off_s)
            back_off_s = min(back_off_s * 2, BACK_OFF_MAX_S)

    def hurry(self) -> None:
        """The peer is heard anew: an attempt of before then has lost its SYN, and none has to wait."""
        self._hurried.set()
        if self._attempt is not None and not self._attempt.expired():
            self._attempt.reschedule(asyncio.get_running_loop().time())

    def _accept(self) -> _Connection:
        tls = TlsConnection(self._tls, server_side=not self._xc.connects) if self._tls else None
        return _Connection(self, tls, waits=self._xc.connects)

    # ---- what a connection reports ----
    def opened(self, connection: _Connection, remote: str) -> bool:
        """It has yet to prove who it is; False: it is not wanted."""
        if remote != str(self._xc.peer):
            self._counters.add("sync.foreign_peer")
            if self._bursts.begins("foreign_peer"):
                log.warning("sync.foreign_peer", remote=remote, expected=self._xc.peer)
            return False
        while len(self._pending) >= PENDING_MAX:
            self._pending[0].refuse(Refusal("crowded", f"more than {PENDING_MAX} connections at a time"))
        self._pending.append(connection)
        return True

    def made(self, connection: _Connection) -> None:
        """A connection stands, and its peer is the one."""
        if connection in self._pending:
            self._pending.remove(connection)
        if self._current is not None:
            self.close("replaced by a newer connection")
        self._current = connection
        self.refusal = None
        self._counters.add("sync.connections")
        # What is refused again and again is said by the core, once.
        say = log.debug if self._was_brief else log.info
        say("sync.connected", peer=self._xc.peer, **connection.described())
        self._began_s = time.monotonic()
        self._post(SyncConnected())
        if self.standing:
            self.standing()

    def received(self, connection: _Connection, data: bytes) -> None:
        """Frames of the current connection; of a former one they are ignored."""
        if connection is self._current:
            self._post(SyncReceived(data))
            if self.short is None:
                connection.pass_on()

    def attend(self, connection: _Connection) -> None:
        """The lane of the current connection has left something."""
        if connection is self._current and self.short:
            self.short.keeper.attend()

    def refused(self, connection: _Connection, why: Refusal) -> None:
        """A connection is not what it should be."""
        self._counters.add(f"sync.tls_{why.reason}")
        if self._bursts.begins(why.reason):
            log.warning("sync.tls_refused", peer=self._xc.peer, reason=why.reason, detail=why.detail)
        self.lost(connection, str(why))
        self.refusal = why

    def lost(self, connection: _Connection, reason: str) -> None:
        """A connection has ended."""
        if connection in self._pending:
            self._pending.remove(connection)
        if connection is self._current:
            self._forget(reason)
        connection.end()

    def _settle(self) -> None:
        if self.short:
            self.short.keeper.settle()

    def _forget(self, reason: str, *, abort: bool = False) -> None:
        self._settle()
        connection, self._current = self._current, None
        if connection:
            connection.end(abort=abort)
        self.refusal = None
        self._was_brief = time.monotonic() - self._began_s < LASTING_S
        log.debug("sync.closed", reason=reason)  # the core says it at its level
        self._post(SyncClosed(reason))

    # ---- actions ----
    def send(self, data: bytes) -> None:
        """Write; without a connection the bytes go nowhere (the core has heard, or will hear, SyncClosed)."""
        connection = self._current
        if connection is None:
            return
        if connection.write(data) > WRITE_BYTES_MAX:
            self._counters.add("sync.peer_does_not_read")
            self._forget("the peer does not read", abort=True)

    def close(self, reason: str) -> None:
        """End the connection after what waits has been sent."""
        if self._current is not None:
            self._forget(reason)

    # ---- the lane ----
    def hold(self) -> LaneState | None:
        """Let nothing go the short way; None: there is none."""
        channel = self._current.channel if self._current and self.short else None
        return channel.hold() if channel else None

    def resume(
        self,
        mode: LaneMode,
        *,
        sent_seq: int,
        acked_seq: int,
        received_seq: int,
        imported_seq: int,
        window: Sequence[SentBatch] | None,
    ) -> None:
        """Let go the short way what may."""
        channel = self._current.channel if self._current else None
        if channel:
            channel.resume(
                mode,
                sent_seq=sent_seq,
                acked_seq=acked_seq,
                received_seq=received_seq,
                imported_seq=imported_seq,
                window=window,
            )

    # ---- inspection ----
    @property
    def connected(self) -> bool:
        """Is there a connection?"""
        return self._current is not None

    def _stats(self) -> ChannelStats | None:
        channel = self._current.channel if self._current else None
        return channel.stats() if channel else None

    @property
    def unsent_bytes(self) -> int:
        """What waits to be sent."""
        stats = self._stats()
        return stats.unsent if stats else 0

    @property
    def bytes_sent(self) -> int:
        """Of all connections."""
        stats = self._stats()
        return self.sent + (stats.bytes_out if stats else 0)

    @property
    def bytes_received(self) -> int:
        """Of all connections."""
        stats = self._stats()
        return self.heard + (stats.bytes_in if stats else 0)

    @property
    def tls(self) -> TlsConnection | None:
        """The connection's TLS: None without a connection, or without TLS."""
        return self._current.tls if self._current else None


def _raise_failure(task: asyncio.Task[None]) -> None:
    """A task that fails is a bug: let the loop's exception handler see it now."""
    if not task.cancelled() and (problem := task.exception()):
        raise problem


class _Connection(asyncio.BufferedProtocol):
    """One TCP connection; until it stands the loop reads it into a buffer, so that a read is bounded."""

    def __init__(self, owner: SyncIo, tls: TlsConnection | None, *, waits: bool) -> None:
        self._owner = owner
        self.tls = tls
        self._waits = waits and tls is not None
        """For the peer's first word: only then it is known that the peer has accepted us."""
        self._buffer = bytearray(READ_BYTES)
        self._transport: asyncio.Transport | None = None
        self._wanted = False
        self._rest = bytearray()
        """Without TLS: what came before the channel stood."""
        self._handing = False
        self._timer: asyncio.TimerHandle | None = None
        self._suite = 0
        self._read: Half | None = None
        self._write: Half | None = None
        self.channel: Channel | None = None
        """Once it stands."""
        self.over = asyncio.Event()

    # ---- what the loop calls ----
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no instances of asyncio's classes, but they have all their methods.
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        peername = transport.get_extra_info("peername") or ("",)
        self._wanted = self._owner.opened(self, str(peername[0]))
        if not self._wanted:
            self._transport.abort()
            return
        loop = asyncio.get_running_loop()
        if self.tls is None:
            loop.call_soon(self._hand_over)  # a transport that ends in here looks like a failure to uvloop
        else:
            self._timer = loop.call_later(HANDSHAKE_TIMEOUT_S, self._on_silence)
            self._speak_tls(b"")

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - the protocol's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._wanted or self.channel:
            return
        self._owner.heard += nbytes
        data = memoryview(self._buffer)[:nbytes]
        if self.tls is None:
            self._rest += data
        else:
            self._speak_tls(data)

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        if self.channel or self.over.is_set():
            return  # the loop's part is over
        self._hush()
        if self._wanted:
            self._wanted = False
            why = str(exc) if exc else "before it was known"
            if self.tls is None:
                self._owner.lost(self, why)
            else:
                self._owner.refused(self, Refusal("left", why))
        self.over.set()

    # ---- the handshake ----
    def _speak_tls(self, data: bytes | memoryview) -> None:
        assert self.tls is not None
        try:
            if data:
                self.tls.feed(data)
            else:
                self.tls.begin()
            self._flush()
            if self.tls.peer is None or (self._waits and not self.tls.first_word()):
                return
            if not self._handing:
                self._handing = True
                self._hand_over()
        except Refusal as why:
            self.refuse(why)

    def _flush(self) -> None:
        assert self.tls is not None
        assert self._transport is not None
        if said := self.tls.take():
            self._owner.sent += len(said)
            self._transport.write(said)

    def _on_silence(self) -> None:
        self._timer = None
        self.refuse(Refusal("timeout", f"no handshake within {HANDSHAKE_TIMEOUT_S:g} s"))

    def _hush(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def refuse(self, why: Refusal) -> None:
        """Not this one; it is told, if it can be."""
        if self.tls is not None and self._wanted and self.channel is None:
            self._flush()
        self.end()
        self._owner.refused(self, why)

    # ---- it stands ----
    def _hand_over(self) -> None:
        """From the loop to a channel, as soon as all of the handshake is sent."""
        transport = self._transport
        if not self._wanted or transport is None:
            return
        if transport.get_write_buffer_size():
            asyncio.get_running_loop().call_later(FLUSH_S, self._hand_over)
            return
        transport.pause_reading()
        try:
            self._open(transport.get_extra_info("socket").fileno())
        except Refusal as why:
            self.refuse(why)
            return
        except OSError as error:  # of descriptors, or of memory; the next one may have luck
            log.warning("sync.hand_over_failed", error=error)
            self.end(abort=True)
            self._owner.lost(self, str(error))
            return
        transport.abort()  # its descriptor; the connection goes on with ours
        self._hush()
        assert self.channel is not None
        asyncio.get_running_loop().add_reader(self.channel.fd, self._look)
        self._owner.made(self)

    def _open(self, fd: int) -> None:
        short = self._owner.short
        limits = short.limits if short else lane_limits(SyncLimits())
        plain, rest, layer = b"", bytes(self._rest), None
        if self.tls is not None:
            handed = self.tls.hand_over()
            plain, rest = handed.plain, handed.rest
            self._suite, self._read, self._write = handed.suite, handed.read, handed.write
            layer = RecordLayer(handed.suite, _keys(handed.read), _keys(handed.write), RECORDS_MAX)
        own = os.dup(fd)
        try:
            fastpath = short.fastpath if short else None
            self.channel = Channel(fastpath, own, limits, tls=layer, plain=plain, rest=rest)
        except BaseException:
            os.close(own)
            raise

    def _look(self) -> None:
        """The channel has something for us."""
        channel = self.channel
        if channel is None:
            return
        channel.clear_wakeup()
        stats = channel.stats()
        if stats.asks & (Ask.KEYS_IN | Ask.KEYS_OUT):
            self._update_keys(channel, stats.asks)
        if stats.asks & (Ask.DRAIN | Ask.IMPORTED):
            self._owner.attend(self)
            if self.channel is not channel:
                return
            stats = channel.stats()  # it has gone on
        while self.channel is channel:
            if stats.ready:
                self._owner.received(self, channel.take())
            if not stats.ended or self.channel is not channel:
                return  # what follows is the lane's, or we are told again
            if not stats.ready:
                self._ended(stats)
                return
            stats = channel.stats()

    def pass_on(self) -> None:
        """There is no core that would look after the lane: the next frames may come."""
        if self.channel:
            self.channel.resume(
                LaneMode.OFF, sent_seq=0, acked_seq=0, received_seq=0, imported_seq=0, window=None
            )

    def _update_keys(self, channel: Channel, asks: Ask) -> None:
        """RFC 8446 §4.6.3: the peer has updated its keys, or we are to."""
        assert self._read is not None
        assert self._write is not None
        if asks & Ask.KEYS_IN:
            self._read = updated(self._suite, self._read)
            channel.rekey(read=_keys(self._read))
        if asks & Ask.KEYS_OUT:
            self._write = updated(self._suite, self._write)
            channel.rekey(write=_keys(self._write))

    def _ended(self, stats: ChannelStats) -> None:
        match stats.ended:
            case Ended.GARBAGE:
                self._owner.refused(self, Refusal("garbage", "a record that the peer has not sealed"))
            case Ended.ALERT:
                self._owner.refused(self, Refusal("refused", f"the peer says alert {stats.error}"))
            case Ended.ERROR:
                self._owner.lost(self, os.strerror(stats.error))
            case _:
                self._owner.lost(self, "closed by the peer")

    # ---- what the owner calls ----
    def write(self, data: bytes) -> int:
        """Send; how much waits now."""
        return self.channel.send(data) if self.channel else 0

    def described(self) -> dict[str, object]:
        """For the log: whom we speak with, and how."""
        if self.tls is None or self.tls.peer is None:
            return {"tls": False}
        return {"cipher": self.tls.cipher, "certificate": fingerprint(self.tls.peer)[:16]}

    def end(self, *, abort: bool = False) -> None:
        """Report nothing more; send what waits, unless ``abort``, for a bounded time. Idempotent."""
        self._hush()
        said_goodbye = not self._wanted
        self._wanted = False
        self.over.set()
        if self.channel is not None:
            self._close_channel(self.channel, abort=abort)
            return
        transport = self._transport
        if transport is None:
            return
        if abort:
            transport.abort()
            return
        if self.tls is not None and not said_goodbye and not transport.is_closing():
            transport.write(self.tls.close())
        transport.close()
        with contextlib.suppress(RuntimeError):  # the loop may be closing
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.abort)

    def _close_channel(self, channel: Channel, *, abort: bool) -> None:
        self.channel = None
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().remove_reader(channel.fd)
        stats = channel.stats()
        self._owner.sent += stats.bytes_out
        self._owner.heard += stats.bytes_in
        channel.close(0 if abort else CLOSE_TIMEOUT_S)


def _keys(half: Half) -> RecordKeys:
    return RecordKeys(half.key, half.iv, half.seq)
