# SPDX-License-Identifier: Apache-2.0
"""Sync protocol on the wire: frames, messages, and the columns of a batch of flow records.

A frame is a 4-byte big-endian length and that many bytes of msgpack: one map, whose ``t`` names the message.
Frames longer than the limit, and maps that are not exactly a message, end the connection.

Messages; numbers are unsigned, and unknown keys are skipped, so that version N talks to N+1::

    hello       v_min v_max pair node inc term role
                                 both ends, first, and again when the role or the term changes
    want        stream seq       receiver: send me changes; I hold records of that stream up to batch seq
    bulk_begin  stream seq       sender: all records follow, from batch seq on; forget the stream you knew
    resume      stream seq       sender: batches go on from seq, nothing was missed
    batch       v seq n family cols
                sender: n records of one address family (4 or 6) as columns, numbered without gaps
    bulk_end    seq              sender: every record has been sent by batch seq; sweep what was not refreshed
    ack         seq              receiver: batches up to seq are live in its table
    go          term             sender: fenced, and everything is acknowledged; reign in this term or later
    beat                         either: nothing else to say
    close       reason           either: why the connection ends now

A stream is one reign's sequence of batches: ``{"inc": incarnation, "term": term}`` of the sender, or null.

Columns are packed little-endian arrays of n elements, filled and read by C (``struct fp_cols`` in
``csrc/fp_abi.h``), except ports and addresses, which stand in network order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgpack

from flexha.core.errors import RemoteProtocolError
from flexha.core.events import Role
from flexha.units import TERM_MAX, Term

VERSION_MIN: Final = 1
VERSION_MAX: Final = 1
LENGTH_BYTES: Final = 4

_U64_MAX: Final = (1 << 64) - 1
_TEXT_MAX: Final = 256
_MAP_KEYS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Column:
    """One column: bytes per record for IPv4 and for IPv6, and whether a batch makes no sense without it."""

    width_v4: int
    width_v6: int
    required: bool = True

    def width(self, family: int) -> int:
        """Bytes per record."""
        return self.width_v4 if family == 4 else self.width_v6


COLUMNS: Final[Mapping[str, Column]] = {
    "id": Column(8, 8),
    "origin": Column(2, 2),
    "op": Column(1, 1),
    "form": Column(1, 1),
    "proto": Column(1, 1),
    "state": Column(1, 1),
    "flags": Column(1, 1, required=False),
    "in_port": Column(1, 1),
    "out_port": Column(1, 1),
    "version": Column(4, 4),
    "remaining_ms": Column(4, 4),
    "pool": Column(4, 4),
    "rule": Column(4, 4, required=False),
    "inside": Column(4, 16),
    "remote": Column(4, 16),
    "external": Column(4, 16),
    "inside_port": Column(2, 2),
    "remote_port": Column(2, 2),
    "external_port": Column(2, 2),
    "win": Column(28, 28, required=False),
    "counters": Column(32, 32, required=False),
}
"""What version 1 knows. A column that is not here is skipped; one that is not required may be missing."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Identity of one reign's sequence of batches: a resume is possible within the same stream only."""

    incarnation: int
    term: Term


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Who we are, and which role we have."""

    pair: str
    node: int
    incarnation: int
    term: Term
    role: Role
    v_min: int = VERSION_MIN
    v_max: int = VERSION_MAX


@dataclass(frozen=True, slots=True)
class Want:
    """Send changes: behind batch ``seq`` of ``stream`` if you can, else everything."""

    stream: Stream | None
    seq: int


@dataclass(frozen=True, slots=True)
class BulkBegin:
    """Everything follows, from batch ``seq`` on."""

    stream: Stream
    seq: int


@dataclass(frozen=True, slots=True)
class Resume:
    """The stream goes on with batch ``seq``."""

    stream: Stream
    seq: int


@dataclass(frozen=True, slots=True)
class Batch:
    """``n`` records of one address family."""

    seq: int
    n: int
    family: int
    columns: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class BulkEnd:
    """The bulk is complete with batch ``seq``."""

    seq: int


@dataclass(frozen=True, slots=True)
class Ack:
    """Batches up to ``seq`` are live in the receiver's table."""

    seq: int


@dataclass(frozen=True, slots=True)
class Go:
    """The ACTIVE's word: it is fenced, the receiver is to reign in ``term`` or later."""

    term: Term


@dataclass(frozen=True, slots=True)
class Beat:
    """Nothing but a sign of life."""


@dataclass(frozen=True, slots=True)
class Close:
    """The last message of a connection."""

    reason: str


Message = Hello | Want | BulkBegin | Resume | Batch | BulkEnd | Ack | Go | Beat | Close


# ---- out ---------------------------------------------------------------------------------------------
def encode(message: Message) -> bytes:
    """``message`` as a frame."""
    payload: bytes = msgpack.packb(_as_map(message), use_bin_type=True)
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def _as_map(message: Message) -> dict[str, object]:
    match message:
        case Hello():
            return {
                "t": "hello",
                "v_min": message.v_min,
                "v_max": message.v_max,
                "pair": message.pair,
                "node": message.node,
                "inc": message.incarnation,
                "term": message.term,
                "role": int(message.role),
            }
        case Want(stream, seq):
            return {"t": "want", "stream": None if stream is None else _stream_map(stream), "seq": seq}
        case BulkBegin(stream, seq):
            return {"t": "bulk_begin", "stream": _stream_map(stream), "seq": seq}
        case Resume(stream, seq):
            return {"t": "resume", "stream": _stream_map(stream), "seq": seq}
        case Batch(seq, n, family, columns):
            return {
                "t": "batch",
                "v": VERSION_MAX,
                "seq": seq,
                "n": n,
                "family": family,
                "cols": dict(columns),
            }
        case BulkEnd(seq):
            return {"t": "bulk_end", "seq": seq}
        case Ack(seq):
            return {"t": "ack", "seq": seq}
        case Go(term):
            return {"t": "go", "term": term}
        case Beat():
            return {"t": "beat"}
        case Close(reason):
            return {"t": "close", "reason": reason[:_TEXT_MAX]}


def _stream_map(stream: Stream) -> dict[str, int]:
    return {"inc": stream.incarnation, "term": stream.term}


# ---- in ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class FrameBuffer:
    """Received bytes that are not yet a whole frame: never more than one frame and one read."""

    chunks: tuple[bytes, ...] = ()
    size: int = 0

    def feed(self, data: bytes, frame_bytes_max: int) -> tuple[FrameBuffer, tuple[bytes, ...]]:
        """Add ``data``; the rest, and the payloads of the frames that are now whole.

        Raises: RemoteProtocolError("oversize") as soon as a length says so, before its bytes have come.
        """
        chunks = [*self.chunks, data] if data else list(self.chunks)
        while len(chunks) > 1 and len(chunks[-1]) >= len(chunks[-2]):
            tail = chunks.pop()
            chunks[-1] += tail  # sizes fall from first to last: a byte is copied a few times at most
        buffer = FrameBuffer(tuple(chunks), self.size + len(data))
        if buffer.size < LENGTH_BYTES:
            return buffer, ()
        head = b"".join(chunks[:LENGTH_BYTES])[:LENGTH_BYTES]
        if buffer.size < LENGTH_BYTES + _checked_length(head, frame_bytes_max):
            return buffer, ()
        joined = b"".join(chunks)
        payloads, at = [], 0
        while len(joined) - at >= LENGTH_BYTES:
            length = _checked_length(joined[at : at + LENGTH_BYTES], frame_bytes_max)
            if len(joined) - at - LENGTH_BYTES < length:
                break
            at += LENGTH_BYTES
            payloads.append(joined[at : at + length])
            at += length
        rest = joined[at:]
        return FrameBuffer((rest,) if rest else (), len(rest)), tuple(payloads)


def _checked_length(head: bytes, frame_bytes_max: int) -> int:
    length = int.from_bytes(head, "big")
    if not 0 < length <= frame_bytes_max:
        raise RemoteProtocolError("oversize", f"frame of {length} bytes, the limit is {frame_bytes_max}")
    return length


def decode(payload: bytes) -> Message:
    """The message in ``payload``. Raises RemoteProtocolError for everything that no conforming peer sends."""
    try:
        fields = msgpack.unpackb(payload, raw=False, strict_map_key=True, max_ext_len=0)
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise RemoteProtocolError("garbage", f"not msgpack: {error}") from None
    if not isinstance(fields, dict) or len(fields) > _MAP_KEYS_MAX:
        raise RemoteProtocolError("garbage", "not a map of a message")
    kind = fields.get("t")
    decoder = _DECODERS.get(kind) if isinstance(kind, str) else None
    if decoder is None:
        raise RemoteProtocolError("unknown_message", repr(kind)[:_TEXT_MAX])
    return decoder(fields)


Fields = Mapping[str, Any]
"""A decoded msgpack map; every value is checked by type before use."""

_T = TypeVar("_T")


def _typed(fields: Fields, key: str, kind: type[_T]) -> _T:
    value = fields.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RemoteProtocolError("bad_field", f"{fields['t']}.{key} is not {kind.__name__}")
    return value


def _unsigned(fields: Fields, key: str, most: int = _U64_MAX) -> int:
    value = _typed(fields, key, int)
    if not 0 <= value <= most:
        raise RemoteProtocolError("bad_field", f"{fields['t']}.{key} = {value}")
    return value


def _text(fields: Fields, key: str) -> str:
    value = _typed(fields, key, str)
    if len(value) > _TEXT_MAX:
        raise RemoteProtocolError("bad_field", f"{fields['t']}.{key} has {len(value)} characters")
    return value


def _stream(fields: Fields) -> Stream:
    inner = {"t": fields["t"], **_typed(fields, "stream", dict)}
    return Stream(_unsigned(inner, "inc"), Term(_unsigned(inner, "term", TERM_MAX)))


def _decode_hello(fields: Fields) -> Hello:
    v_min, v_max = _unsigned(fields, "v_min"), _unsigned(fields, "v_max")
    if v_min > VERSION_MAX or v_max < VERSION_MIN:
        ours = f"{VERSION_MIN}..{VERSION_MAX}"
        raise RemoteProtocolError("version", f"the peer speaks sync {v_min}..{v_max}, this node {ours}")
    return Hello(
        v_min=v_min,
        v_max=v_max,
        pair=_text(fields, "pair"),
        node=_unsigned(fields, "node", 1),
        incarnation=_unsigned(fields, "inc"),
        term=Term(_unsigned(fields, "term", TERM_MAX)),
        role=Role(_unsigned(fields, "role", max(Role))),
    )


def _decode_want(fields: Fields) -> Want:
    return Want(None if fields.get("stream") is None else _stream(fields), _unsigned(fields, "seq"))


def _decode_batch(fields: Fields) -> Batch:
    n = _unsigned(fields, "n", 1 << 24)
    family = _unsigned(fields, "family", 6)
    if n == 0 or family not in (4, 6):
        raise RemoteProtocolError("bad_field", f"batch of {n} records, family {family}")
    columns = _typed(fields, "cols", dict)
    for name, column in COLUMNS.items():
        data = columns.get(name)
        if data is None and not column.required:
            continue
        if not isinstance(data, bytes) or len(data) != n * column.width(family):
            have = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
            want = n * column.width(family)
            raise RemoteProtocolError(
                "bad_column", f"column {name}: {have}, {want} bytes expected for {n} records"
            )
    known = {name: columns[name] for name in COLUMNS if columns.get(name) is not None}
    return Batch(_unsigned(fields, "seq"), n, family, known)


_DECODERS: Final[Mapping[str, Callable[[Fields], Message]]] = {
    "hello": _decode_hello,
    "want": _decode_want,
    "bulk_begin": lambda f: BulkBegin(_stream(f), _unsigned(f, "seq")),
    "resume": lambda f: Resume(_stream(f), _unsigned(f, "seq")),
    "batch": _decode_batch,
    "bulk_end": lambda f: BulkEnd(_unsigned(f, "seq")),
    "ack": lambda f: Ack(_unsigned(f, "seq")),
    "go": lambda f: Go(Term(_unsigned(f, "term", TERM_MAX))),
    "beat": lambda _: Beat(),
    "close": lambda f: Close(_text(f, "reason")),
}
