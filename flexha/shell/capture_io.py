# SPDX-License-Identifier: Apache-2.0
"""``capture``: packets from the workers' rings to one client of the control socket.

The answer says what the numbers in the records mean (``head``). Then come frames: a header ``<IQ`` of length
and CLOCK_BOOTTIME in ns, and so many bytes of whole ``struct fp_capture_rec`` (``csrc/fp_abi.h``), just as C
wrote them: the daemon looks at none. The time is when it began to look: records in later frames were made
later, but for those that a worker was about to publish. A frame without records says only that. Length
``END`` is followed by one line of JSON, ``{"lost": n}``.

The client ends it by shutting down its side of the connection. A client that reads slowly loses packets,
which the rings count; nothing is stored for it beyond ``BACKLOG_BYTES``. Rings are looked at every
``POLL_S``, so that a capture wakes nobody for each packet.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import difflib
import errno
import json
import socket
import struct
from collections.abc import Sequence
from typing import Final

from flexha.config.derive import NodePlan
from flexha.fastpath import CAPTURE_BYTES, CaptureConfig, Fastpath, FastpathError, verdict_table
from flexha.shell import clock, log
from flexha.shell.control import Args, RequestError, only
from flexha.shell.counters import Counters
from flexha.version import flexha_version

POLL_S: Final = 0.02
BACKLOG_BYTES: Final = 1 << 20
END_PATIENCE_S: Final = 5.0
"""For a client to take what is left."""
FRAME: Final = struct.Struct("<IQ")
END: Final = 0xFFFFFFFF
SNAPLEN_MAX: Final = 65600
DURATION_MAX_S: Final = 7 * 24 * 3600


class CaptureIo:
    """Starts captures, one at a time."""

    def __init__(self, fastpath: Fastpath, plan: NodePlan, counters: Counters) -> None:
        self.fastpath = fastpath
        self._plan = plan
        self._counters = counters
        self._running: Capture | None = None

    async def capture(self, args: Args) -> Capture:
        """Begin to record."""
        only(args, "ports", "program", "snaplen", "verdicts", "drops", "duration_s")
        if self._running:
            raise RequestError(
                f"a capture is running already{self._running.client}; end it first (one capture can watch "
                "several ports)"
            )
        duration_s = _number(args, "duration_s", None, 0.001, DURATION_MAX_S)
        wanted = self._wanted(args)
        try:
            self.fastpath.free_capture()  # one whose worker did not answer in time
            self.fastpath.start_capture(wanted)
        except FastpathError as error:
            with contextlib.suppress(FastpathError):
                self.fastpath.free_capture()
            if error.errno == errno.EINVAL:
                raise RequestError(f"capture: {error}") from error
            raise RequestError(f"capture: {error}; try again, or look at the daemon's log") from error
        self._running = Capture(self, self._head(wanted), duration_s)
        self._counters.add("capture.started")
        return self._running

    def ended(self, lost: int) -> None:
        """The client has left, or has enough."""
        self._running = None
        self._counters.add("capture.lost", lost)
        log.info("capture.ended", lost=lost)

    def _wanted(self, args: Args) -> CaptureConfig:
        table = verdict_table()
        verdicts = _indices(args, "verdicts", [verdict.name for verdict in table])
        drops = args.get("drops", False)
        if not isinstance(drops, bool):
            raise RequestError("drops is no boolean; send true or false")
        if drops:
            dropped = frozenset(number for number, verdict in enumerate(table) if verdict.drop)
            verdicts = dropped if verdicts is None else verdicts & dropped
        program = args.get("program", "")
        try:
            raw = base64.b64decode(program, validate=True) if isinstance(program, str) else None
        except binascii.Error:
            raw = None
        if raw is None or len(raw) % 8:
            raise RequestError("program is no base64 of instructions of 8 bytes")
        return CaptureConfig(
            snaplen=int(_number(args, "snaplen", SNAPLEN_MAX, 1, SNAPLEN_MAX) or 0),
            ports=_indices(args, "ports", self._plan.port_names),
            verdicts=verdicts,
            program=raw,
        )

    def _head(self, wanted: CaptureConfig) -> str:
        table = verdict_table()
        return json.dumps(
            {
                "pair": self._plan.pair,
                "node": self._plan.name,
                "version": flexha_version(),
                "wall_offset_ns": clock.wall_offset_ns(),
                "snaplen": wanted.snaplen,
                "ports": [{"name": plug.port, "mac": plug.mac.hex(":")} for plug in self._plan.plugs],
                "verdicts": [verdict.name for verdict in table],
                "drops": [verdict.name for verdict in table if verdict.drop],
            }
        )


class Capture:
    """One capture and its client; a ``control.Stream``."""

    def __init__(self, owner: CaptureIo, head: str, duration_s: float | None) -> None:
        self.head = head
        self.client = ""
        self._owner = owner
        self._fastpath = owner.fastpath
        self._duration_s = duration_s
        self._told = True

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send what is recorded, until the client shuts down its side or time is over."""
        self.client = _who(writer)
        log.info("capture.started", client=self.client.strip(" ()"))
        loop = asyncio.get_running_loop()
        deadline = None if self._duration_s is None else loop.time() + self._duration_s
        enough = asyncio.ensure_future(_enough(reader))
        try:
            while not enough.done() and (deadline is None or loop.time() < deadline):
                more = self._pump(writer)
                left = POLL_S if deadline is None else min(POLL_S, max(deadline - loop.time(), 0))
                await asyncio.wait({enough}, timeout=0 if more else left)
            try:
                self._fastpath.stop_capture()
            except FastpathError as error:
                log.warning("capture.not_stopped", problem=str(error))
            await self._finish(writer)
        finally:
            enough.cancel()

    def _pump(self, writer: asyncio.StreamWriter) -> bool:
        """Send a piece of each ring; is there more, and a client to take it?"""
        transport = writer.transport
        now = clock.now()
        sent = more = False
        for worker in range(self._fastpath.config.n_workers):
            if transport.is_closing() or transport.get_write_buffer_size() > BACKLOG_BYTES:
                return False
            records = self._fastpath.drain_capture(worker)
            if records:
                writer.write(FRAME.pack(len(records), now) + records)
                sent = True
                more = more or len(records) > CAPTURE_BYTES // 2
        if not sent and not self._told:
            writer.write(FRAME.pack(0, now))
        self._told = not sent
        return more

    async def _finish(self, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        for _ in range(int(END_PATIENCE_S / POLL_S)):
            more = self._pump(writer) or not self._told
            if transport.is_closing() or not (more or transport.get_write_buffer_size() > BACKLOG_BYTES):
                break
            await asyncio.sleep(POLL_S)
        summary = json.dumps({"lost": self._fastpath.capture_lost()})
        writer.write(FRAME.pack(END, clock.now()) + summary.encode() + b"\n")

    def close(self) -> None:
        """Record no more, and free the memory."""
        lost = 0
        try:
            lost = self._fastpath.capture_lost()
            self._fastpath.free_capture()
        except FastpathError as error:
            log.warning("capture.not_freed", problem=str(error))
        self._owner.ended(lost)


async def _enough(reader: asyncio.StreamReader) -> None:
    """Wait until the client shuts down its side, or says anything."""
    with contextlib.suppress(ConnectionError):
        await reader.read(1)


def _who(writer: asyncio.StreamWriter) -> str:
    connection = writer.get_extra_info("socket")
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    except (OSError, AttributeError):
        return ""
    pid, uid, _ = struct.unpack("=iII", raw)
    return f" (process {pid} of user {uid})"


def _indices(args: Args, key: str, names: Sequence[str]) -> frozenset[int] | None:
    """Numbers of what a list names; None if it is not given."""
    given = args.get(key)
    if given is None:
        return None
    if not isinstance(given, list) or not given:
        raise RequestError(f"{key} is no list of names; leave it out for all")
    numbers = {name: number for number, name in enumerate(names)}
    for name in given:
        if not isinstance(name, str) or name not in numbers:
            close = difflib.get_close_matches(str(name), names, 3)
            known = close or (names if len(names) <= 8 else [])
            hint = f"use {', '.join(known)}" if known else "flexhactl counters --all lists them"
            raise RequestError(f"{key}: {name!r} is unknown; {hint}")
    return frozenset(numbers[name] for name in given)


def _number(args: Args, key: str, default: float | None, low: float, high: float) -> float | None:
    value = args.get(key)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise RequestError(f"{key} is {value!r}; send a number in {low:g}..{high:g}")
    return value
