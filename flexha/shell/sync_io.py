# SPDX-License-Identifier: Apache-2.0
"""The TCP connection that carries sync over the cross-connect: node a listens, node b connects.

One connection at a time, the newest wins (a peer that comes back is a new connection while the old one still
looks alive here). Bytes go to the core as they come; what they mean is not known here.

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
from collections.abc import Callable
from typing import cast

from flexha.config.derive import XcPlan
from flexha.core.events import Event, SyncClosed, SyncConnected, SyncReceived
from flexha.errors import StartError
from flexha.shell import log
from flexha.shell.counters import Counters

READ_BYTES = 65536
WRITE_BYTES_MAX = 64 << 20
BACK_OFF_MIN_S, BACK_OFF_MAX_S = 0.05, 0.5
CONNECT_TIMEOUT_S = 0.8
"""Below the second after which the kernel sends a SYN anew: the next attempt is sooner than that."""
LASTING_S = 1.0
"""A connection that lasted this long was a success: the back-off starts anew after it."""
CLOSE_TIMEOUT_S = 1.0
"""To send what waits when the core closes; then the connection is cut."""

_TCP_USER_TIMEOUT_MS = 2000
_KEEPALIVE_S = 1
_KEEPALIVE_PROBES = 3


class SyncIo:
    """Keeps the connection, and counts what crosses it."""

    def __init__(self, xc: XcPlan, post: Callable[[Event], None], counters: Counters) -> None:
        self._xc = xc
        self._post = post
        self._counters = counters
        self._server: asyncio.Server | None = None
        self._connector: asyncio.Task[None] | None = None
        self._current: _Connection | None = None
        self._free = asyncio.Event()
        self._free.set()
        self.bytes_sent = 0
        self.bytes_received = 0

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
        self._server = await loop.create_server(self._accept, sock=self._listener(), backlog=4)

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
        if self._current:
            connection, self._current = self._current, None
            connection.end()

    # ---- connecting ----
    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        back_off_s = BACK_OFF_MIN_S
        while True:
            connection = _Connection(self)
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
                if connection is self._current:
                    # It stood when the time was up; uvloop has closed it, and does not say so.
                    connection.end(abort=True)
                    self._forget("connected too late")
            began_s = loop.time()
            await self._free.wait()
            if loop.time() - began_s > LASTING_S:
                back_off_s = BACK_OFF_MIN_S
            await asyncio.sleep(back_off_s)
            back_off_s = min(back_off_s * 2, BACK_OFF_MAX_S)

    def _accept(self) -> asyncio.BaseProtocol:
        return _Connection(self)

    # ---- what a connection reports ----
    def made(self, connection: _Connection, remote: str) -> bool:
        """A connection stands; False: it is not wanted."""
        if remote != str(self._xc.peer):
            self._counters.add("sync.foreign_peer")
            log.warning("sync.foreign_peer", remote=remote, expected=self._xc.peer)
            return False
        if self._current is not None:
            self.close("replaced by a newer connection")
        self._current = connection
        self._free.clear()
        self._counters.add("sync.connections")
        log.info("sync.connected", peer=remote)
        self._post(SyncConnected())
        return True

    def received(self, connection: _Connection, data: bytes) -> None:
        """Bytes of the current connection; of a former one they are ignored."""
        if connection is self._current:
            self.bytes_received += len(data)
            self._post(SyncReceived(data))

    def lost(self, connection: _Connection, reason: str) -> None:
        """A connection has ended."""
        if connection is self._current:
            self._forget(reason)

    def _forget(self, reason: str) -> None:
        self._current = None
        self._free.set()
        log.info("sync.closed", reason=reason)
        self._post(SyncClosed(reason))

    # ---- actions ----
    def send(self, data: bytes) -> None:
        """Write; without a connection the bytes go nowhere (the core has heard, or will hear, SyncClosed)."""
        connection = self._current
        if connection is None:
            return
        self.bytes_sent += len(data)
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


def _raise_failure(task: asyncio.Task[None]) -> None:
    """A task that fails is a bug: let the loop's exception handler see it now."""
    if not task.cancelled() and (problem := task.exception()):
        raise problem


class _Connection(asyncio.BufferedProtocol):
    """One TCP connection; reads into a buffer of its own, so that a read is bounded."""

    def __init__(self, owner: SyncIo) -> None:
        self._owner = owner
        self._buffer = bytearray(READ_BYTES)
        self._transport: asyncio.Transport | None = None
        self._wanted = False

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
        self._wanted = self._owner.made(self, str(peername[0]))
        if not self._wanted:
            self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:  # noqa: ARG002 - the protocol's signature
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._wanted:
            self._owner.received(self, bytes(memoryview(self._buffer)[:nbytes]))

    def eof_received(self) -> bool:
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        if self._wanted:
            self._owner.lost(self, str(exc) if exc else "closed by the peer")

    def write(self, data: bytes) -> int:
        """Send; how much waits now."""
        assert self._transport is not None
        self._transport.write(data)
        return self._transport.get_write_buffer_size()

    @property
    def unsent_bytes(self) -> int:
        """What waits to be sent."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    def end(self, *, abort: bool = False) -> None:
        """Report nothing more; send what waits, unless ``abort``, for a bounded time."""
        self._wanted = False
        transport = self._transport
        if transport is None:
            return
        if abort:
            transport.abort()
            return
        transport.close()
        with contextlib.suppress(RuntimeError):  # the loop may be closing
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.abort)
