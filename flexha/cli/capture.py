# SPDX-License-Identifier: Apache-2.0
"""``flexhactl capture``: records from the control socket to a pcapng file, or to lines.

A record is a packet with up to two frames (``csrc/fp_abi.h``: ``struct fp_capture_rec``). Frames are put in
the order of time here, since each worker has a ring of its own: one is shown once the daemon has looked at
all rings ``LAG_NS`` later than it was made.
"""

from __future__ import annotations

import heapq
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from flexha.cli import client
from flexha.cli.frame_line import describe
from flexha.cli.pcapng import Writer
from flexha.errors import FlexhaError, UnreachableError
from flexha.version import flexha_version

FRAME: Final = struct.Struct("<IQ")
END: Final = 0xFFFFFFFF
LAG_NS: Final = 10_000_000
RECORD: Final = struct.Struct("<IHBBQQ")
SIDE: Final = struct.Struct("<QIIBBBxHxx")
HEAD_BYTES: Final = RECORD.size + 2 * SIDE.size
NO_VERDICT: Final = 0xFFFF
NO_PORT: Final = 0xFF
ORIGINS: Final = ("wire", "host", "hairpin", "control plane", "heartbeat", "waited", "conduit")
WIRE: Final = 0
NEEDS_CSUM: Final = 1
STDOUT: Final = Path("-")


class CaptureError(FlexhaError):
    """Packets cannot be written where they should go."""


@dataclass(slots=True)
class Side:
    """One frame of a packet."""

    t_ns: int
    length: int
    port: int
    comment: str
    data: bytes
    inbound: bool


@dataclass(slots=True)
class Packet:
    """A record; ``sides`` in the order of time."""

    packet_id: int
    worker: int
    verdict: str | None
    lost: int
    sides: list[Side]


@dataclass(slots=True)
class Summary:
    """What became of a capture."""

    packets: int = 0
    frames: int = 0
    lost: int = 0

    def text(self) -> str:
        """For people."""
        hint = "; a filter, --port or a smaller --snaplen loses fewer" if self.lost else ""
        return f"{self.packets} packets ({self.frames} frames) captured, {self.lost} lost{hint}"

    def as_json(self) -> str:
        """For scripts."""
        return json.dumps({"packets": self.packets, "frames": self.frames, "lost": self.lost})


@dataclass(slots=True)
class Names:
    """What the numbers of the records mean: the daemon's answer."""

    head: Mapping[str, Any]
    ports: list[str] = field(init=False)
    verdicts: list[str] = field(init=False)
    drops: frozenset[str] = field(init=False)
    wall_offset_ns: int = field(init=False)

    def __post_init__(self) -> None:
        self.ports = [str(port["name"]) for port in self.head["ports"]]
        self.verdicts = list(self.head["verdicts"])
        self.drops = frozenset(self.head["drops"])
        self.wall_offset_ns = int(self.head["wall_offset_ns"])

    def port(self, number: int) -> str:
        """Its name."""
        return self.ports[number] if number < len(self.ports) else str(number)

    def verdict(self, number: int) -> str | None:
        """Its name; None: the node's own frame, sent."""
        if number == NO_VERDICT:
            return None
        return self.verdicts[number] if number < len(self.verdicts) else str(number)


def parse(records: bytes, names: Names) -> Iterator[Packet]:
    """Take records apart."""
    at = 0
    while at < len(records):
        size, number, worker, origin, packet_id, lost = RECORD.unpack_from(records, at)
        sides = [SIDE.unpack_from(records, at + RECORD.size + i * SIDE.size) for i in range(2)]
        verdict = names.verdict(number)
        data_at = at + HEAD_BYTES
        packet = Packet(packet_id, worker, verdict, lost, [])
        for inbound, side in zip((True, False), sides, strict=True):
            t_ns, length, kept, port, vnet, gso_type, gso_size = side
            if port == NO_PORT:
                continue
            other = sides[1 if inbound else 0][3]
            comment = _end(verdict, origin, other, names, inbound=inbound)
            comment += f", worker {worker}, id {packet_id}"
            if gso_type:
                comment += f", offload: segments of {gso_size} bytes"
            if vnet & NEEDS_CSUM:
                comment += ", checksum partial"
            data = records[data_at : data_at + kept]
            data_at += kept
            packet.sides.append(Side(t_ns + names.wall_offset_ns, length, port, comment, data, inbound))
        yield packet
        at += size


def _end(verdict: str | None, origin: int, other: int, names: Names, *, inbound: bool) -> str:
    """``snat → out wan``, ``snat ← in lan``, ``dropped: no_session``, ``control plane: sent``."""
    dropped = verdict in names.drops
    if origin != WIRE:
        whose = ORIGINS[origin] if origin < len(ORIGINS) else str(origin)
        return f"{whose}{', dropped' if dropped else ''}: {verdict or 'sent'}"
    if dropped:
        return f"dropped: {verdict}"
    if other == NO_PORT:
        return str(verdict)
    return f"{verdict} {'→ out' if inbound else '← in'} {names.port(other)}"


# ---- where packets go --------------------------------------------------------------------------------
class Sink(Protocol):
    """Takes frames in the order of time."""

    def frame(self, packet: Packet, side: Side, *, first: bool) -> None:
        """One of them; ``first`` of its packet."""
        ...

    def flush(self) -> None:
        """Whoever reads along waits for these."""
        ...

    def end(self, summary: Summary) -> None:
        """No more."""
        ...


class FileSink:
    """To a pcapng file."""

    def __init__(self, out: BinaryIO, names: Names, expression: str) -> None:
        head = names.head
        self._writer = Writer(
            out,
            [(port["name"], bytes.fromhex(str(port["mac"]).replace(":", ""))) for port in head["ports"]],
            snaplen=int(head["snaplen"]),
            application=f"flexhactl {flexha_version()}",
            comment=f"pair {head['pair']}, node {head['node']}",
            capture_filter=expression,
        )
        self._names = names
        self._delivered = [0] * len(names.ports)
        self._first_ns = self._last_ns = 0
        self._writer.flush()

    def frame(self, packet: Packet, side: Side, *, first: bool) -> None:
        """As an enhanced packet block."""
        self._first_ns = self._first_ns or side.t_ns
        self._last_ns = side.t_ns
        self._delivered[side.port] += 1
        self._writer.packet(
            side.port,
            side.t_ns,
            side.data,
            side.length,
            inbound=side.inbound,
            packet_id=packet.packet_id,
            queue=packet.worker,
            lost=packet.lost if first else 0,
            comment=side.comment,
        )

    def flush(self) -> None:
        """For ``| tshark -r -``."""
        self._writer.flush()

    def end(self, summary: Summary) -> None:
        """Statistics; what was lost was lost by the node, not by a port."""
        for port, delivered in enumerate(self._delivered):
            comment = f"{summary.lost} packets lost, of all ports"
            self._writer.statistics(port, self._first_ns, self._last_ns, delivered, comment)
        self._writer.flush()


class LineSink:
    """To standard output, a line for each frame; ``as_json``: an object."""

    def __init__(self, names: Names, *, as_json: bool) -> None:
        self._names = names
        self._as_json = as_json

    def frame(self, packet: Packet, side: Side, *, first: bool) -> None:  # noqa: ARG002 - a Sink
        """Time, port, direction, source > destination: protocol, length, comment."""
        time = datetime.fromtimestamp(side.t_ns // 1_000_000_000).astimezone()
        stamp = f"{time:%H:%M:%S}.{side.t_ns % 1_000_000_000 // 1000:06d}"
        port, what = self._names.port(side.port), describe(side.data)
        way = "in" if side.inbound else "out"
        if not self._as_json:
            print(f"{stamp} {port} {way:<3} {what}, length {side.length} [{side.comment}]")
            return
        print(
            json.dumps(
                {
                    "t_ns": side.t_ns,
                    "port": port,
                    "direction": way,
                    "id": packet.packet_id,
                    "worker": packet.worker,
                    "verdict": packet.verdict,
                    "length": side.length,
                    "summary": what,
                    "comment": side.comment,
                },
                ensure_ascii=False,
            )
        )

    def flush(self) -> None:
        """For a pipe."""
        sys.stdout.flush()

    def end(self, summary: Summary) -> None:
        """The summary is the caller's."""


# ---- the capture -------------------------------------------------------------------------------------
class Capture:
    """Reads the stream, orders frames, counts."""

    def __init__(self, connection: socket.socket, stream: BinaryIO, names: Names, count: int | None) -> None:
        self.summary = Summary()
        self._connection = connection
        self._stream = stream
        self._names = names
        self._count = count
        self._waiting: list[tuple[int, int, Packet, Side]] = []
        self._serial = 0

    def enough(self, *_: object) -> None:
        """Ask the daemon to end; may be called by a signal, and twice."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)

    def run(self, sink: Sink) -> None:
        """Until the end. Raises: UnreachableError if the daemon goes away."""
        while True:
            length, looked_ns = FRAME.unpack(self._read(FRAME.size))
            if length == END:
                break
            for packet in parse(self._read(length), self._names):
                self._take(packet)
            self._show(sink, looked_ns + self._names.wall_offset_ns - LAG_NS)
        self._show(sink, None)
        self.summary.lost = int(json.loads(self._stream.readline()).get("lost", 0))
        sink.end(self.summary)

    def _read(self, n: int) -> bytes:
        try:
            data = self._stream.read(n)
        except OSError:
            data = b""
        if len(data) < n:
            raise UnreachableError("the daemon hung up; see its log")
        return data

    def _take(self, packet: Packet) -> None:
        if self._count is not None and self.summary.packets >= self._count:
            return
        self.summary.packets += 1
        if self.summary.packets == self._count:
            self.enough()
        for side in packet.sides:
            heapq.heappush(self._waiting, (side.t_ns, self._serial, packet, side))
            self._serial += 1

    def _show(self, sink: Sink, until_ns: int | None) -> None:
        any_shown = False
        while self._waiting and (until_ns is None or self._waiting[0][0] < until_ns):
            _, _, packet, side = heapq.heappop(self._waiting)
            sink.frame(packet, side, first=side is packet.sides[0])
            self.summary.frames += 1
            any_shown = True
        if any_shown:
            sink.flush()


@contextmanager
def _stopped_by_signals(capture: Capture) -> Iterator[None]:
    """The first Ctrl-C asks for the end, and the rest is still written; the second one is final."""

    def first(number: int, _frame: object) -> None:
        signal.signal(number, before[signal.Signals(number)])
        capture.enough()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, first)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _open(path: Path, stack: ExitStack) -> BinaryIO:
    if path == STDOUT:
        if sys.stdout.isatty():
            raise CaptureError("standard output is a terminal; use -w FILE, or pipe it: | tshark -r -")
        return sys.stdout.buffer
    try:
        return stack.enter_context(path.open("wb"))
    except OSError as error:
        raise CaptureError(f"{path}: {error.strerror}; choose another file with -w") from error


def run(
    path: Path,
    args: Mapping[str, object],
    *,
    write: Path | None,
    count: int | None,
    expression: str,
    as_json: bool,
) -> Summary:
    """Capture until ``count`` packets, the daemon's ``duration_s``, Ctrl-C, or a reader that leaves."""
    with ExitStack() as stack:
        out = _open(write, stack) if write else None
        connection, stream, head = stack.enter_context(client.conversation(path, "capture", args))
        connection.settimeout(None)
        names = Names(head)
        capture = Capture(connection, stream, names, count)
        stack.enter_context(_stopped_by_signals(capture))
        try:
            sink = FileSink(out, names, expression) if out else LineSink(names, as_json=as_json)
            capture.run(sink)
        except BrokenPipeError:
            # Whoever read along has seen enough; nobody must write to that pipe at exit.
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as error:
            raise CaptureError(f"{write or 'standard output'}: {error.strerror}; make room") from error
        return capture.summary
