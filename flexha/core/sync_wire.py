# SPDX-License-Identifier: Apache-2.0
"""Sync protocol on the wire, version 2: frames and messages.

``SYNC.md`` beside this file is the specification. A frame is a 4-byte big-endian length and that many bytes
of msgpack: one map, whose ``t`` names the message. Unknown messages, keys, sections and columns are skipped;
frames longer than the limit, and maps that are not exactly a message, end the connection.

The sections of a batch, which hold the flow records, are written and read by C (``csrc/sections.c``,
``csrc/cols.c``): here they are bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

import msgpack

from flexha.core import agreed
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import Refused, Role
from flexha.core.keys_wire import Keys, KeysAck, decode_keys, decode_keys_ack
from flexha.core.shards import ALL, Shards
from flexha.units import TERM_MAX, Term

VERSION_MIN: Final = 2
VERSION_MAX: Final = 2
LENGTH_BYTES: Final = 4
MOVES_MAX: Final = 100
"""As many as ``[ha] flap_max`` may allow."""
_BATCH_SEQ: Final = b"\x83\xa1t\xa5batch\xa3seq"
_PARTS: Final = b"\xa5parts"
"""What stands before the number of a batch as we write it, and between that and its sections."""
_UINT_BYTES: Final = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_U64_MAX: Final = (1 << 64) - 1
_COUNT_MAX: Final = 0xFFFF
_TEXT_MAX: Final = 256
_MAP_KEYS_MAX: Final = 64
_STRING_BYTES_MAX: Final = 65536
_SUM_BYTES, _COUNT_BYTES = 8, 4
_REFUSED: Final = struct.Struct("<HH")
"""How far before the number of the acknowledgement the batch is, and a place in it."""
_REFUSED_BACK_MAX: Final = 0xFFFF


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
    equal: agreed.Parts = ()
    """Digests of what both configurations must have in common."""
    v_min: int = VERSION_MIN
    v_max: int = VERSION_MAX
    adopts: bool = True
    """It takes an ``Offer``."""


@dataclass(frozen=True, slots=True)
class Want:
    """Send changes: behind batch ``seq`` of ``stream`` if you can, else everything."""

    stream: Stream | None
    seq: int


@dataclass(frozen=True, slots=True)
class SweepBegin:
    """All records of these shards follow, behind number ``seq``; what is not told until the end is gone.

    As the answer to ``Want``, and then with all shards: a bulk, forget the stream that you knew.
    ``repair``: they should be there already, but the digests differ.
    """

    stream: Stream
    seq: int
    shards: Shards
    repair: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """The stream goes on with number ``seq``."""

    stream: Stream
    seq: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Records. ``sections``: msgpack, which the fast path makes and reads (``csrc/sections.c``)."""

    seq: int
    sections: bytes


@dataclass(frozen=True, slots=True)
class SweepEnd:
    """These shards have been told whole."""

    seq: int
    shards: Shards


@dataclass(frozen=True, slots=True)
class Ack:
    """What has a number up to ``seq`` is live in the receiver's table, but for the records in ``refused``."""

    seq: int
    refused: tuple[Refused, ...] = ()


@dataclass(frozen=True, slots=True)
class Digest:
    """Digests of the sender's table right behind number ``seq``: of each of ``shards``, ascending."""

    seq: int
    shards: Shards
    sums: bytes
    counts: bytes


@dataclass(frozen=True, slots=True)
class Audit:
    """The receiver's answer to ``Digest(seq, shards)``: those of them that differ in its table."""

    seq: int
    shards: Shards
    differ: Shards


@dataclass(frozen=True, slots=True)
class Go:
    """The ACTIVE's word: it is fenced, the receiver is to reign in ``term`` or later.

    ``passes_on``: and to announce nothing before ``PassedOn``, or for a while. ``moves``: so many have been
    begun of late that flap damping counts (``flexha.core.damp``).
    """

    term: Term
    passes_on: bool = False
    moves: int = 0


@dataclass(frozen=True, slots=True)
class PassedOn:
    """What waited on the sender's wires is on the receiver's, which reigns in ``term``."""

    term: Term


@dataclass(frozen=True, slots=True)
class Offer:
    """Sessions that only the sender has: it reigned beside the receiver, and has yielded.

    ``records``: sections as of a batch: of each session OPEN, and REST in the same order.
    """

    seq: int
    records: bytes


@dataclass(frozen=True, slots=True)
class Adopted:
    """What has become of the sessions in ``Offer(seq)``."""

    seq: int
    taken: int
    refused: int


@dataclass(frozen=True, slots=True)
class Beat:
    """Nothing but a sign of life."""


@dataclass(frozen=True, slots=True)
class Close:
    """The last message of a connection."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """A message of a later version."""

    kind: str


Uncommon = (
    Hello
    | Want
    | SweepBegin
    | Resume
    | SweepEnd
    | Ack
    | Digest
    | Audit
    | Go
    | PassedOn
    | Offer
    | Adopted
    | Beat
    | Close
    | Keys
    | KeysAck
    | Unknown
)
Message = Batch | Uncommon


# ---- out ---------------------------------------------------------------------------------------------
def encode(message: Message) -> bytes:
    """``message`` as a frame."""
    payload: bytes
    if isinstance(message, Batch):
        head: bytes = _BATCH_SEQ + msgpack.packb(message.seq) + _PARTS
        return (len(head) + len(message.sections)).to_bytes(LENGTH_BYTES, "big") + head + message.sections
    payload = msgpack.packb(_as_map(message), use_bin_type=True)
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def _as_map(message: Uncommon) -> dict[str, object]:  # noqa: C901 - one arm for each message
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
                "equal": dict(message.equal),
                "adopts": int(message.adopts),
            }
        case Want(stream, seq):
            return {"t": "want", "stream": None if stream is None else _stream_map(stream), "seq": seq}
        case SweepBegin(stream, seq, shards, repair):
            return {
                "t": "sweep_begin",
                "stream": _stream_map(stream),
                "seq": seq,
                "shards": shards,
                "repair": int(repair),
            }
        case Resume(stream, seq):
            return {"t": "resume", "stream": _stream_map(stream), "seq": seq}
        case SweepEnd(seq, shards):
            return {"t": "sweep_end", "seq": seq, "shards": shards}
        case Ack(seq, refused):
            ack: dict[str, object] = {"t": "ack", "seq": seq}
            return ack | {"refused": _pack_refused(seq, refused)} if refused else ack
        case Digest(seq, shards, sums, counts):
            return {"t": "digest", "seq": seq, "shards": shards, "sums": sums, "counts": counts}
        case Audit(seq, shards, differ):
            return {"t": "audit", "seq": seq, "shards": shards, "differ": differ}
        case Go(term, passes_on, moves):
            return {"t": "go", "term": term, "passes_on": int(passes_on), "moves": moves}
        case PassedOn(term):
            return {"t": "passed_on", "term": term}
        case Offer(seq, records):
            return {"t": "offer", "seq": seq, "records": records}
        case Adopted(seq, taken, refused_of_it):
            return {"t": "adopted", "seq": seq, "taken": taken, "refused": refused_of_it}
        case Keys() | KeysAck():
            return message.fields()
        case Beat():
            return {"t": "beat"}
        case Close(reason):
            return {"t": "close", "reason": reason[:_TEXT_MAX]}
        case Unknown(kind):
            return {"t": kind}


def _pack_refused(seq: int, refused: tuple[Refused, ...]) -> bytes:
    return b"".join(
        _REFUSED.pack(seq - batch.seq, place)
        for batch in refused
        if seq - batch.seq <= _REFUSED_BACK_MAX
        for place in batch.places
    )


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
        if not self.chunks:
            return _cut(data, frame_bytes_max)
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
        return _cut(b"".join(chunks), frame_bytes_max)


_EMPTY: Final = FrameBuffer()


def _cut(joined: bytes, frame_bytes_max: int) -> tuple[FrameBuffer, tuple[bytes, ...]]:
    """The payloads of the frames that are whole; what is left."""
    payloads, at = [], 0
    while len(joined) - at >= LENGTH_BYTES:
        length = _checked_length(joined[at : at + LENGTH_BYTES], frame_bytes_max)
        if len(joined) - at - LENGTH_BYTES < length:
            break
        at += LENGTH_BYTES
        payloads.append(joined[at : at + length])
        at += length
    if at == len(joined):
        return _EMPTY, tuple(payloads)
    rest = joined[at:]
    return FrameBuffer((rest,), len(rest)), tuple(payloads)


def _checked_length(head: bytes, frame_bytes_max: int) -> int:
    length = int.from_bytes(head, "big")
    if not 0 < length <= frame_bytes_max:
        raise RemoteProtocolError("oversize", f"frame of {length} bytes, the limit is {frame_bytes_max}")
    return length


def decode(payload: bytes) -> Message:
    """The message in ``payload``. Raises RemoteProtocolError for everything that no conforming peer sends.

    But for the sections of a batch: the fast path says what is wrong with those.
    """
    if payload.startswith(_BATCH_SEQ):
        batch = _plain_batch(payload)
        if batch is not None:
            return batch
    try:
        fields = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            max_ext_len=0,
            max_str_len=_STRING_BYTES_MAX,
            max_array_len=_MAP_KEYS_MAX,
            max_map_len=_MAP_KEYS_MAX,
        )
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise RemoteProtocolError("garbage", f"not msgpack: {error}") from None
    if not isinstance(fields, dict):
        raise RemoteProtocolError("garbage", "not a map of a message")
    kind = fields.get("t")
    if not isinstance(kind, str):  # and nothing of what it is: it may be too deep to be shown
        raise RemoteProtocolError("garbage", f"t is no name of a message, but a {type(kind).__name__}")
    if len(kind) > _TEXT_MAX:
        raise RemoteProtocolError("garbage", f"t has {len(kind)} characters")
    decoder = _DECODERS.get(kind)
    return decoder(fields) if decoder is not None else Unknown(kind)


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
        equal=_decode_equal(_typed(fields, "equal", dict)) if "equal" in fields else (),
        adopts="adopts" in fields and bool(_unsigned(fields, "adopts", 1)),
    )


def _decode_equal(parts: Mapping[object, object]) -> agreed.Parts:
    for name, digest in parts.items():
        if not isinstance(name, str) or len(name) > _TEXT_MAX or not isinstance(digest, bytes):
            raise RemoteProtocolError("bad_field", "hello.equal is no map of digests")
    return tuple(sorted((str(name), bytes(cast(bytes, digest))) for name, digest in parts.items()))


def _decode_want(fields: Fields) -> Want:
    return Want(None if fields.get("stream") is None else _stream(fields), _unsigned(fields, "seq"))


def _decode_batch(fields: Fields) -> Batch:
    try:
        sections: bytes = msgpack.packb(_typed(fields, "parts", list))
    except ValueError as error:  # deeper than it packs
        raise RemoteProtocolError("garbage", f"batch.parts: {error}") from None
    return Batch(_unsigned(fields, "seq"), sections)


def _plain_batch(payload: bytes) -> Batch | None:
    """A batch as we write it, without a look at its sections; None: take the long way."""
    at = len(_BATCH_SEQ) + 1
    first = payload[at - 1] if len(payload) >= at else 0xC0
    if first >= 0x80:  # uint 8, 16, 32 or 64
        n = _UINT_BYTES.get(first)
        if n is None:
            return None
        seq = int.from_bytes(payload[at : at + n], "big")
        at += n
    else:
        seq = first
    if not payload.startswith(_PARTS, at):
        return None
    return Batch(seq, payload[at + len(_PARTS) :])


def _shards(fields: Fields, key: str, *, some: bool = True) -> Shards:
    shards = _unsigned(fields, key, ALL)
    if some and not shards:
        raise RemoteProtocolError("bad_field", f"{fields['t']}.{key} names no shard")
    return shards


def _decode_ack(fields: Fields) -> Ack:
    seq = _unsigned(fields, "seq")
    return Ack(seq, _decode_refused(seq, _typed(fields, "refused", bytes)) if "refused" in fields else ())


def _decode_refused(seq: int, data: bytes) -> tuple[Refused, ...]:
    """Ascending, so that nothing is named twice: what is named is bounded by what was sent."""
    if len(data) % _REFUSED.size:
        raise RemoteProtocolError("bad_field", f"ack.refused has {len(data)} bytes")
    named: dict[int, list[int]] = {}
    last = (0, _REFUSED_BACK_MAX)
    for back, place in _REFUSED.iter_unpack(data):
        this = (seq - back, place)
        if this <= last:
            raise RemoteProtocolError("bad_field", "ack.refused does not ascend")
        last = this
        named.setdefault(seq - back, []).append(place)
    return tuple(Refused(batch, tuple(places)) for batch, places in named.items())


def _decode_digest(fields: Fields) -> Digest:
    shards = _shards(fields, "shards")
    sums, counts = _typed(fields, "sums", bytes), _typed(fields, "counts", bytes)
    n = shards.bit_count()
    if len(sums) != n * _SUM_BYTES or len(counts) != n * _COUNT_BYTES:
        raise RemoteProtocolError(
            "bad_field", f"digest of {n} shards: {len(sums)} bytes of sums, {len(counts)} of counts"
        )
    return Digest(_unsigned(fields, "seq"), shards, sums, counts)


def _decode_audit(fields: Fields) -> Audit:
    shards, differ = _shards(fields, "shards"), _shards(fields, "differ", some=False)
    if differ & ~shards:
        raise RemoteProtocolError("bad_field", f"audit of {shards:x} finds {differ:x}")
    return Audit(_unsigned(fields, "seq"), shards, differ)


def _decode_sweep_begin(fields: Fields) -> SweepBegin:
    return SweepBegin(
        _stream(fields),
        _unsigned(fields, "seq"),
        _shards(fields, "shards"),
        bool(_unsigned(fields, "repair", 1)),
    )


def _decode_go(fields: Fields) -> Go:
    passes_on = "passes_on" in fields and bool(_unsigned(fields, "passes_on", 1))
    moves = _unsigned(fields, "moves", MOVES_MAX) if "moves" in fields else 0
    return Go(Term(_unsigned(fields, "term", TERM_MAX)), passes_on, moves)


_DECODERS: Final[Mapping[str, Callable[[Fields], Message]]] = {
    "hello": _decode_hello,
    "want": _decode_want,
    "sweep_begin": _decode_sweep_begin,
    "resume": lambda f: Resume(_stream(f), _unsigned(f, "seq")),
    "batch": _decode_batch,
    "sweep_end": lambda f: SweepEnd(_unsigned(f, "seq"), _shards(f, "shards")),
    "ack": _decode_ack,
    "digest": _decode_digest,
    "audit": _decode_audit,
    "go": _decode_go,
    "passed_on": lambda f: PassedOn(Term(_unsigned(f, "term", TERM_MAX))),
    "offer": lambda f: Offer(_unsigned(f, "seq"), _typed(f, "records", bytes)),
    "adopted": lambda f: Adopted(
        _unsigned(f, "seq"), _unsigned(f, "taken", _COUNT_MAX), _unsigned(f, "refused", _COUNT_MAX)
    ),
    "beat": lambda _: Beat(),
    "keys": decode_keys,
    "keys_ack": decode_keys_ack,
    "close": lambda f: Close(_text(f, "reason")),
}
