# SPDX-License-Identifier: Apache-2.0
"""The TCP connection that carries sync over the cross-connect: node a listens, node b connects.

One connection at a time, the newest wins (a peer that comes back is a new connection while the old one still
looks alive here). Bytes go to the core as they come; what they mean is not known here.

With TLS (``flexha.shell.tls``) a connection counts for nothing until its peer has proven who it is: until
then it is *pending*, beside the one that is current, which it does not disturb. Node b, whose handshake is
over before node a has judged its certificate, waits for node a's first word. At most ``PENDING_MAX``
connections are pending, the oldest gives way, and each for at most ``HANDSHAKE_TIMEOUT_S``. Why one was
refused is a counter (``sync.tls_*``), and one line in the log for a burst of them.

Bounds. A read is at most ``READ_BYTES``, and the core has done with it before the next. What is written and
not yet sent is bounded by the core's window; should it exceed ``WRITE_BYTES_MAX``, the peer does not read,
and the connection ends. A dead peer is noticed by the user timeout (RFC 5482) while data is unacknowledged
and by keepalive otherwise; the heartbeat notices long before either.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable
from typing import cast

from flexha.config.derive import XcPlan
from flexha.config.keyfiles import fingerprint
from flexha.core.events import Event, SyncClosed, SyncConnected, SyncReceived
from flexha.errors import StartError
from flexha.shell import log
from flexha.shell.burst import Bursts
from flexha.shell.counters import Counters
from flexha.shell.tls import Refusal, Tls, TlsConnection

READ_BYTES = 65536
TLS_RECORD_BYTES = 16384
"""As much as one call can give (RFC 8446 §5.1)."""
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

_TCP_USER_TIMEOUT_MS = 2000
_KEEPALIVE_S = 1
_KEEPALIVE_PROBES = 3


class SyncIo:
    """Keeps the connection, and counts what crosses it."""

    def __init__(
        self,
        xc: XcPlan,
        post: Callable[[Event], None],
        counters: Counters,
        tls: Tls | None = None,
        receive: Callable[[bytes], None] | None = None,
    ) -> None:
        self._xc = xc
        self._post = post
        self._receive = receive or (lambda data: post(SyncReceived(data)))
        self._counters = counters
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._connector: asyncio.Task[None] | None = None
        self._current: _Connection | None = None
        self._pending: list[_Connection] = []
        self._began_s = 0.0
        self._was_brief = False
        """The last connection ended as soon as it stood."""
        self._bursts = Bursts(time.monotonic)
        self.standing: Callable[[], None] | None = None
        """Called when a connection stands, after the core was told."""
        self.bytes_sent = 0
        self.bytes_received = 0
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
                async with asyncio.timeout(CONNECT_TIMEOUT_S):
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
                connection.end(abort=True)
                if connection in self._pending:
                    self._pending.remove(connection)
                if connection is self._current:
                    self._forget("connected too late")
            began_s = loop.time()
            await connection.over.wait()
            if loop.time() - began_s > LASTING_S:
                back_off_s = BACK_OFF_MIN_S
            await asyncio.sleep(back_off_s)
            back_off_s = min(back_off_s * 2, BACK_OFF_MAX_S)

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
        """Bytes of the current connection; of a former one they are ignored."""
        if connection is self._current:
            self._receive(data)

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

    def _forget(self, reason: str) -> None:
        self._current = None
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
            connection.end(abort=True)
            self._forget("the peer does not read")

    def close(self, reason: str) -> None:
        """End the connection after what waits has been sent."""
        if self._current is not None:
            connection = self._current
            connection.end()
            self._forget(reason)

    @property
    def connected(self) -> bool:
        """Is there a connection?"""
        return self._current is not None

    @property
    def unsent_bytes(self) -> int:
        """What waits in the socket's buffer."""
        return self._current.unsent_bytes if self._current else 0

    @property
    def tls(self) -> TlsConnection | None:
        """The connection's TLS: None without a connection, or without TLS."""
        return self._current.tls if self._current else None


def _raise_failure(task: asyncio.Task[None]) -> None:
    """A task that fails is a bug: let the loop's exception handler see it now."""
    if not task.cancelled() and (problem := task.exception()):
        raise problem


class _Connection(asyncio.BufferedProtocol):
    """One TCP connection; reads into a buffer of its own, so that a read is bounded."""

    def __init__(self, owner: SyncIo, tls: TlsConnection | None, *, waits: bool) -> None:
        self._owner = owner
        self.tls = tls
        self._waits = waits and tls is not None
        """For the peer's first word: only then it is known that the peer has accepted us."""
        self._buffer = bytearray(READ_BYTES)
        self._transport: asyncio.Transport | None = None
        self._wanted = False
        self._stands = False
        self._timer: asyncio.TimerHandle | None = None
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
        elif self.tls is None:
            self._stand()
        else:
            self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, self._on_silence)
            self._speak_tls(b"")

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - the protocol's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self._wanted:
            return
        self._owner.bytes_received += nbytes
        data = memoryview(self._buffer)[:nbytes]
        if self.tls is None:
            self._owner.received(self, bytes(data))
        else:
            self._speak_tls(data)

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._hush()
        if self._wanted:
            self._wanted = False
            if self._stands:
                self._owner.lost(self, str(exc) if exc else "closed by the peer")
            else:
                self._owner.refused(self, Refusal("left", str(exc) if exc else "before it was known"))
        self.over.set()

    # ---- TLS ----
    def _speak_tls(self, data: bytes | memoryview) -> None:
        assert self.tls is not None
        try:
            if data:
                self.tls.feed(data)
            else:
                self.tls.begin()
            if not self._stands:
                self._flush()
                if self.tls.peer is None:
                    return
                if not self._waits:
                    self._stand()
            for plain in self.tls.plain(TLS_RECORD_BYTES):
                if not self._wanted:  # the core has closed it meanwhile
                    return
                if not plain:
                    self._end_of_peer()
                    return
                if not self._stands:
                    self._stand()
                self._owner.received(self, plain)
            self._flush()
        except Refusal as why:
            self.refuse(why)

    def _flush(self) -> None:
        assert self.tls is not None
        if said := self.tls.take():
            self._put(said)

    def _stand(self) -> None:
        self._stands = True
        self._hush()
        self._owner.made(self)

    def _end_of_peer(self) -> None:
        """The peer has said its last word."""
        self.end()
        if self._stands:
            self._owner.lost(self, "closed by the peer")
        else:
            self._owner.refused(self, Refusal("left", "before it was known"))

    def _on_silence(self) -> None:
        self._timer = None
        self.refuse(Refusal("timeout", f"no handshake within {HANDSHAKE_TIMEOUT_S:g} s"))

    def _hush(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def refuse(self, why: Refusal) -> None:
        """Not this one; it is told, if it can be."""
        if self.tls is not None and self._wanted:
            self._flush()
        self.end()
        self._owner.refused(self, why)

    # ---- what the owner calls ----
    def _put(self, data: bytes) -> None:
        assert self._transport is not None
        self._owner.bytes_sent += len(data)
        self._transport.write(data)

    def write(self, data: bytes) -> int:
        """Send; how much waits now."""
        self._put(self.tls.write(data) if self.tls else data)
        return self.unsent_bytes

    @property
    def unsent_bytes(self) -> int:
        """What waits to be sent."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def described(self) -> dict[str, object]:
        """For the log: whom we speak with, and how."""
        if self.tls is None or self.tls.peer is None:
            return {"tls": False}
        return {"cipher": self.tls.cipher, "certificate": fingerprint(self.tls.peer)[:16]}

    def end(self, *, abort: bool = False) -> None:
        """Report nothing more; send what waits, unless ``abort``, for a bounded time."""
        self._hush()
        said_goodbye = not self._wanted
        self._wanted = False
        self.over.set()
        transport = self._transport
        if transport is None:
            return
        if abort:
            transport.abort()
            return
        if self.tls is not None and not said_goodbye and not transport.is_closing():
            self._put(self.tls.close())
        transport.close()
        with contextlib.suppress(RuntimeError):  # the loop may be closing
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.abort)
