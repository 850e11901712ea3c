# SPDX-License-Identifier: Apache-2.0
"""The control socket: a unix stream socket, one JSON object a line, in either direction.

Request:  ``{"id": 1, "cmd": "status", "args": {}}``
Answer:   ``{"id": 1, "ok": true, "result": {...}}`` or ``{"id": 1, "ok": false, "error": "what; remedy"}``

Requests of one connection are answered in order. The socket's mode is 0660: who may open it may command the
node. A line longer than ``LINE_BYTES_MAX`` ends the connection, since where the next one begins is not known.

A command may turn its connection into a stream (``Stream``): after its answer the daemon sends what the
command says, and closes. Only ``capture`` does (``capture_io``).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from flexha.core.actions import Reply
from flexha.core.events import Command, Event, OperatorAsked
from flexha.errors import FlexhaError, StartError
from flexha.fastpath import FastpathError
from flexha.shell import log
from flexha.shell.counters import Counters

LINE_BYTES_MAX = 65536
CONNECTIONS_MAX = 32
COMMAND_TIMEOUT_S = 15.0
TURN_AWAY_S = 0.5
SOCKET_MODE = 0o660

Args = Mapping[str, object]
Result = str | list[str]
"""JSON text, whole or in pieces: a long answer is written piece by piece, so that the loop can turn."""


class Stream(Protocol):
    """The rest of a connection."""

    @property
    def head(self) -> str:
        """The answer to the request: JSON text."""
        ...

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send until the client has enough."""
        ...

    def close(self) -> None:
        """Called at the end in any case, even if ``run`` never was."""
        ...


Handler = Callable[[Args], Awaitable[Result | Stream]]


class RequestError(FlexhaError):
    """The request cannot be served; the text goes to the client."""


class Control:
    """Serves requests; commands for the core go through ``post`` and come back as ``Reply``."""

    def __init__(
        self,
        path: Path,
        handlers: Mapping[str, Handler],
        post: Callable[[Event], None],
        counters: Counters,
    ) -> None:
        self._path = path
        self._post = post
        self._counters = counters
        self._handlers: dict[str, Handler] = {
            **handlers,
            "failover": self._failover,
            "maintenance": self._maintenance,
        }
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._request = 0

    # ---- life ----
    async def start(self) -> None:
        """Listen. A socket file that nobody serves is left over from a crash, and replaced."""
        try:
            self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._remove_stale()
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            before = os.umask(0o777 & ~SOCKET_MODE)
            try:
                listener.bind(str(self._path))
            finally:
                os.umask(before)
        except OSError as error:
            raise StartError(
                f"control socket {self._path}: {error.strerror or error}; set nodes.X.control to a path in a "
                "directory that the daemon may write to"
            ) from error
        listener.setblocking(False)
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE_BYTES_MAX)

    def _remove_stale(self) -> None:
        try:
            mode = self._path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise StartError(
                f"control socket {self._path}: a file that is no socket is in the way; remove it"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                self._path.unlink(missing_ok=True)
                return
        raise StartError(f"control socket {self._path}: another flexhad serves it; stop it first")

    async def stop(self) -> None:
        """Serve no more, and remove the socket."""
        if self._server:
            self._server.close()
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    # ---- a connection ----
    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            if len(self._connections) > CONNECTIONS_MAX:
                await self._turn_away(reader, writer)
                return
            while line := await self._read_line(reader, writer):
                pieces, stream = await self._answer(line)
                try:
                    for piece in pieces:
                        writer.write(piece.encode())
                        await writer.drain()
                    if stream:
                        await self._run(stream, reader, writer)
                        return
                finally:
                    if stream:
                        stream.close()
        except (ConnectionError, asyncio.CancelledError):
            pass  # the client left, or we stop
        finally:
            self._connections.discard(task)
            writer.close()

    async def _turn_away(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Say why, after the request was read: closing on unread bytes would destroy the answer."""
        self._counters.add("control.turned_away")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_AWAY_S):
                await self._read_line(reader, writer)
        writer.write(_failure(None, f"more than {CONNECTIONS_MAX} connections; close one").encode())

    async def _read_line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        try:
            return await reader.readline()
        except ValueError:
            self._counters.add("control.line_too_long")
            writer.write(_failure(None, f"a line is longer than {LINE_BYTES_MAX} bytes; send less").encode())
            return b""

    async def _answer(self, line: bytes) -> tuple[list[str], Stream | None]:
        identity: object = None
        try:
            request = _parse(line)
            identity = request.get("id")
            handler, args = self._handler(request)
            result = await handler(args)
        except FlexhaError as error:
            self._counters.add("control.refused")
            return [_failure(identity, str(error))], None
        except FastpathError as error:
            if error.errno != errno.ETIMEDOUT:
                return [self._failed(identity, error)], None
            self._counters.add("control.refused")
            return [_failure(identity, f"a worker hangs, and does not answer ({error}); see `status`")], None
        except Exception as problem:  # noqa: BLE001 - a bug in an answer must not cost the node its role
            return [self._failed(identity, problem)], None
        stream = None if isinstance(result, (str, list)) else result
        pieces = result if isinstance(result, list) else [stream.head if stream else str(result)]
        return [f'{{"id":{json.dumps(identity)},"ok":true,"result":', *pieces, "}\n"], stream

    def _failed(self, identity: object, problem: Exception) -> str:
        self._counters.add("control.failed")
        log.exception("control.failed", problem)
        return _failure(identity, f"internal error: {problem!r}; see the daemon's log")

    async def _run(self, stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await stream.run(reader, writer)
        except ConnectionError:
            raise
        except Exception as problem:  # noqa: BLE001 - as for an answer
            self._counters.add("control.failed")
            log.exception("control.failed", problem)

    def _handler(self, request: Mapping[str, object]) -> tuple[Handler, Args]:
        command, args = request.get("cmd"), request.get("args", {})
        handler = self._handlers.get(command) if isinstance(command, str) else None
        if handler is None:
            raise RequestError(f"unknown cmd {command!r}; use one of: {', '.join(sorted(self._handlers))}")
        if not isinstance(args, dict):
            raise RequestError("args is no object; send {} for none")
        return handler, args

    # ---- commands for the core ----
    async def _failover(self, args: Args) -> str:
        only(args)
        return await self._ask(Command.FAILOVER)

    async def _maintenance(self, args: Args) -> str:
        only(args, "mode")
        match args.get("mode"):
            case "enter":
                return await self._ask(Command.MAINTENANCE_ENTER)
            case "exit":
                return await self._ask(Command.MAINTENANCE_EXIT)
            case other:
                raise RequestError(f"mode is {other!r}; make it 'enter' or 'exit'")

    async def _ask(self, command: Command) -> str:
        self._request += 1
        request = self._request
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[request] = future
        log.info("operator.asked", command=command.value)
        try:
            self._post(OperatorAsked(request, command))
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                reply = await future
        except TimeoutError:
            raise RequestError(
                f"no answer within {COMMAND_TIMEOUT_S:g} s; look at: flexhactl status"
            ) from None
        finally:
            self._waiting.pop(request, None)
        if not reply.ok:
            raise RequestError(reply.text)
        return json.dumps({"text": reply.text})

    def reply(self, reply: Reply) -> None:
        """The core's answer; a client that gave up does not miss it."""
        future = self._waiting.get(reply.request)
        if future is not None and not future.done():
            future.set_result(reply)


def only(args: Args, *known: str) -> None:
    """Refuse arguments that are not known."""
    if extra := sorted(set(args) - set(known)):
        raise RequestError(f"unknown args {', '.join(extra)}; use {', '.join(known) or 'none'}")


def _parse(line: bytes) -> dict[str, object]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the line is no JSON: {error}") from None
    if not isinstance(request, dict):
        raise RequestError('the line is no JSON object; send {"id":1,"cmd":"status","args":{}}')
    return request


def _failure(identity: object, text: str) -> str:
    return json.dumps({"id": identity, "ok": False, "error": text}) + "\n"
