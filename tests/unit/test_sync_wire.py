# SPDX-License-Identifier: Apache-2.0
"""The sync protocol's frames and messages; everything wrong has a name. Spec: R20, R22."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from cores import batch, digest
from hypothesis import given
from hypothesis import strategies as st

from flexha.core import sync_wire
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import Role
from flexha.core.keys_wire import Keys, KeysAck, KeysStep
from flexha.core.shards import ALL
from flexha.core.sync_wire import (
    Ack,
    Adopted,
    Audit,
    Batch,
    Beat,
    Close,
    Digest,
    FrameBuffer,
    Go,
    Hello,
    Message,
    Offer,
    PassedOn,
    Resume,
    Stream,
    SweepBegin,
    SweepEnd,
    Unknown,
    Want,
)
from flexha.units import TERM_MAX, Term

LIMIT = 1 << 16
STREAM = Stream(0xDEADBEEF, Term(4))
HELLO = Hello(pair="lab", node=1, incarnation=7, term=Term(3), role=Role.PASSIVE)
MESSAGES: tuple[Message, ...] = (
    HELLO,
    Want(STREAM, 12),
    Want(None, 0),
    SweepBegin(STREAM, 1, ALL),
    SweepBegin(STREAM, 2, 0b101, repair=True),
    Resume(STREAM, 13),
    batch(5, 2),
    batch(300, 1),
    batch(1 << 40),
    Batch(7, b"\x90"),
    SweepEnd(6, 0b101),
    Ack(6),
    digest(6),
    Digest(7, 0b1001, bytes(16), bytes(8)),
    Audit(7, 0b1001, 0b1000),
    Unknown("pinhole"),
    Go(Term(5)),
    Go(Term(7), passes_on=True, moves=5),
    PassedOn(Term(7)),
    Offer(3, b"\x90"),
    Adopted(3, 2, 1),
    Beat(),
    Close("enough"),
)


KEYS: tuple[Message, ...] = (Keys(KeysStep.ADD, b"certificate", bytes(range(16))), KeysAck(KeysStep.DROP, ""))


def decoded(data: bytes) -> list[Message]:
    _, payloads = FrameBuffer().feed(data, LIMIT)
    return [sync_wire.decode(payload) for payload in payloads]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_round_trip(message: Message) -> None:
    assert decoded(sync_wire.encode(message)) == [message]


def test_golden_bytes() -> None:
    """A length of 4 bytes, then a map of msgpack."""
    assert sync_wire.encode(Ack(300)) == bytes.fromhex("0000000e82a174a361636ba3736571cd012c")
    assert sync_wire.encode(SweepBegin(Stream(1, Term(2)), 3, 5)) == bytes.fromhex(
        "0000003785a174ab73776565705f626567696ea673747265616d82a3696e6301a47465726d02a373657103"
        "a673686172647305a672657061697200"
    )
    assert sync_wire.encode(Batch(1, b"\x91\x80")) == bytes.fromhex(
        "0000001683a174a56261746368a373657101a570617274739180"
    )
    assert sync_wire.encode(Offer(1, b"\x90")) == bytes.fromhex(
        "0000001983a174a56f66666572a373657101a77265636f726473c40190"
    )
    assert sync_wire.encode(Adopted(1, 2, 3)) == bytes.fromhex(
        "0000002084a174a761646f70746564a373657101a574616b656e02a77265667573656403"
    )


def test_a_hello_of_before_offers_adopts_nothing() -> None:
    fields = {name: value for name, value in hello().items() if name != "adopts"}
    message = sync_wire.decode(msgpack.packb(fields))
    assert isinstance(message, Hello)
    assert not message.adopts


@given(st.lists(st.integers(0, len(MESSAGES) - 1), max_size=8), st.data())
def test_frames_may_be_cut_anywhere(which: list[int], data: st.DataObject) -> None:
    stream = b"".join(sync_wire.encode(MESSAGES[i]) for i in which)
    buffer = FrameBuffer()
    found: list[Message] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        buffer, payloads = buffer.feed(stream[:size], LIMIT)
        found += [sync_wire.decode(payload) for payload in payloads]
        stream = stream[size:]
    assert found == [MESSAGES[i] for i in which]
    assert buffer == FrameBuffer()


def test_a_frame_in_single_bytes() -> None:
    """A large frame in the smallest pieces costs no quadratic copying, and arrives."""
    frame = sync_wire.encode(batch(1, 200))
    buffer = FrameBuffer()
    found: list[bytes] = []
    for at in range(len(frame)):
        buffer, payloads = buffer.feed(frame[at : at + 1], LIMIT)
        found += payloads
        assert len(buffer.chunks) < 30
    assert found == [frame[4:]]


@pytest.mark.parametrize("head", ["00010001", "ffffffff", "00000000"])
def test_oversize_is_refused_by_its_length_alone(head: str) -> None:
    """Before a byte of it is kept; a length of 0 is nothing either."""
    with pytest.raises(RemoteProtocolError, match="oversize"):
        FrameBuffer().feed(bytes.fromhex(head), LIMIT)


@given(st.binary(max_size=64))
def test_garbage_never_breaks_the_decoder(payload: bytes) -> None:
    try:
        sync_wire.decode(payload)
    except RemoteProtocolError:
        return
    pytest.fail("random bytes are no message")


@given(st.sampled_from(MESSAGES), st.data())
def test_a_damaged_message_is_decoded_or_refused(message: Message, data: st.DataObject) -> None:
    """Whatever a peer sends, nothing but RemoteProtocolError comes out."""
    payload = bytearray(sync_wire.encode(message)[4:])
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        sync_wire.decode(bytes(payload))


def hello(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = msgpack.unpackb(sync_wire.encode(HELLO)[4:])
    return fields | changes


def sweep(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = msgpack.unpackb(sync_wire.encode(SweepBegin(STREAM, 1, 3))[4:])
    return fields | changes


def digest_fields(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = msgpack.unpackb(sync_wire.encode(Digest(1, 3, bytes(16), bytes(8)))[4:])
    return fields | changes


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("garbage", [1, 2]),
        ("garbage", "hello"),
        ("garbage", {1: 2}),
        ("garbage", {}),
        ("garbage", {"t": 7}),
        ("garbage", {"t": ["hello"]}),
        ("garbage", {"t": "x" * 1000}),
        ("garbage", {str(i): i for i in range(65)}),
        ("garbage", {"t": "later", "deep": [[[{"a": list(range(65))}]]]}),
        ("version", hello(v_min=3, v_max=9)),
        ("version", hello(v_min=1, v_max=1)),
        ("bad_field", hello(pair=7)),
        ("bad_field", hello(pair="x" * 1000)),
        ("bad_field", hello(node=2)),
        ("bad_field", hello(node=True)),
        ("bad_field", hello(role=6)),
        ("bad_field", hello(role=-1)),
        ("bad_field", hello(inc=None)),
        ("bad_field", hello(term="3")),
        ("bad_field", hello(term=TERM_MAX + 1)),
        ("bad_field", {"t": "go", "term": TERM_MAX + 1}),
        ("bad_field", {"t": "resume", "stream": {"inc": 1, "term": TERM_MAX + 1}, "seq": 1}),
        ("bad_field", {"t": "want", "stream": 5, "seq": 0}),
        ("bad_field", {"t": "want", "stream": {}, "seq": 0}),
        ("bad_field", {"t": "want", "stream": None, "seq": -1}),
        ("bad_field", hello(adopts=2)),
        ("bad_field", {"t": "offer", "seq": 1, "records": "text"}),
        ("bad_field", {"t": "offer", "seq": -1, "records": b""}),
        ("bad_field", {"t": "adopted", "seq": 1, "taken": 0x10000, "refused": 0}),
        ("bad_field", hello(equal=[])),
        ("bad_field", hello(equal={"pools": 1})),
        ("bad_field", hello(equal={"p" * 257: b"12345678"})),
        ("bad_field", {"t": "ack"}),
        ("bad_field", {"t": "ack", "seq": 1.5}),
        ("bad_field", {"t": "ack", "seq": 5, "refused": [1]}),
        ("bad_field", {"t": "ack", "seq": 5, "refused": bytes(3)}),
        ("bad_field", {"t": "ack", "seq": 5, "refused": bytes(8)}),
        ("bad_field", {"t": "ack", "seq": 5, "refused": b"\0\0\0\0\1\0\0\0"}),
        ("bad_field", {"t": "ack", "seq": 5, "refused": b"\6\0\0\0"}),
        ("bad_field", {"t": "go", "term": -2}),
        ("bad_field", {"t": "go", "term": 2, "passes_on": 2}),
        ("bad_field", {"t": "go", "term": 2, "moves": 101}),
        ("bad_field", {"t": "passed_on", "term": TERM_MAX + 1}),
        ("bad_field", {"t": "sweep_begin", "seq": 1, "shards": 1, "repair": 0}),
        ("bad_field", sweep(shards=0)),
        ("bad_field", sweep(repair=2)),
        ("bad_field", sweep(stream=None)),
        ("bad_field", {"t": "sweep_end", "seq": 1, "shards": 0}),
        ("bad_field", {"t": "sweep_end", "seq": 1, "shards": "all"}),
        ("bad_field", {"t": "close", "reason": b"bytes"}),
        ("bad_field", digest_fields(shards=7)),
        ("bad_field", digest_fields(sums=bytes(15))),
        ("bad_field", digest_fields(counts=bytes(9))),
        ("bad_field", digest_fields(shards=0, sums=b"", counts=b"")),
        ("bad_field", {"t": "audit", "seq": 1, "shards": 1, "differ": 2}),
        ("bad_field", {"t": "audit", "seq": 1, "shards": 0, "differ": 0}),
        ("bad_field", {"t": "batch", "seq": 1}),
        ("bad_field", {"t": "batch", "parts": [], "seq": None}),
    ],
)
def test_what_no_conforming_peer_sends(reason: str, fields: object) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        sync_wire.decode(msgpack.packb(fields))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "payload",
    [
        b"\x81\xa1t" + b"\x91" * 100_000 + b"\xc0",
        b"\xdf\xff\xff\xff\xff\xa1t",
        b"\x82\xa1t\xa5batch\xa5parts\xdd\xff\xff\xff\xff",
        b"\x82\xa1t\xa5batch\xa5parts\xdd\x00\x01\x00\x00" + b"\x80" * 65536,
        b"\x82\xa1t\xa5later\xa1x\xc6\xff\xff\xff\xff",
        b"\x81\xa1t\xdb\xff\xff\xff\xff",
        b"\x81\xa1t\xc9\x00\x00\x00\x01\x05\x00",
    ],
    ids=["depth", "map", "array", "long-array", "binary", "string", "extension"],
)
def test_hostile_msgpack_is_garbage(payload: bytes) -> None:
    """Depths and counts are refused before anything is allocated for them."""
    with pytest.raises(RemoteProtocolError) as caught:
        sync_wire.decode(payload)
    assert caught.value.reason == "garbage"


@pytest.mark.parametrize("depth", [100, 480, 520, 900, 970, 985, 1000, 1015, 1022])
@pytest.mark.parametrize("message", [*MESSAGES, *KEYS], ids=lambda m: type(m).__name__)
def test_depths_that_msgpack_takes_end_no_node(message: Message, depth: int) -> None:
    """Nor does a value of any other kind in any field, that key of the message included that names it."""
    fields = msgpack.unpackb(sync_wire.encode(message)[4:])
    for key in (*fields, "later"):
        at = list(fields).index(key) if key in fields else len(fields)
        names = [msgpack.packb(name) for name in (*fields, *([] if key in fields else [key]))]
        values = [msgpack.packb(value) for value in fields.values()]
        values[at : at + 1] = [b"\x91" * depth + b"\xc0"]
        payload = bytes((0x80 | len(names),)) + b"".join(
            name + value for name, value in zip(names, values, strict=True)
        )
        with contextlib.suppress(RemoteProtocolError):
            sync_wire.decode(payload)


VALUES: st.SearchStrategy[object] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.binary()
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(st.sampled_from(MESSAGES), st.data())
def test_any_value_in_any_field_is_decoded_or_refused(message: Message, data: st.DataObject) -> None:
    """Nothing but RemoteProtocolError comes out, whatever stands where."""
    fields = msgpack.unpackb(sync_wire.encode(message)[4:])
    key = data.draw(st.sampled_from(sorted(fields)))
    inner = fields[key]
    if isinstance(inner, list) and inner and data.draw(st.booleans()):
        section = data.draw(st.sampled_from(inner))
        section[data.draw(st.sampled_from(sorted(section)))] = data.draw(VALUES)
    else:
        fields[key] = data.draw(VALUES)
    with contextlib.suppress(RemoteProtocolError):
        sync_wire.decode(msgpack.packb(fields))


@given(st.sampled_from([message for message in MESSAGES if not isinstance(message, Batch)]), st.data())
def test_a_truncated_message_is_garbage(message: Message, data: st.DataObject) -> None:
    payload = sync_wire.encode(message)[4:]
    with pytest.raises(RemoteProtocolError):
        sync_wire.decode(payload[: data.draw(st.integers(0, len(payload) - 1))])


# ---- versions ----------------------------------------------------------------------------------------
def test_unknown_keys_are_skipped_in_any_order() -> None:
    """That is how version N talks to N+1."""
    message = sync_wire.decode(msgpack.packb(hello(v_max=3, colour="blue")))
    assert isinstance(message, Hello)
    assert message.pair == "lab"
    fields = msgpack.unpackb(sync_wire.encode(batch(300, 2))[4:])
    for later in ({"colour": "blue"} | fields, fields | {"colour": "blue"}, dict(reversed(fields.items()))):
        assert sync_wire.decode(msgpack.packb(later)) == batch(300, 2), "the sections are as they came"


def test_a_long_reason_is_cut() -> None:
    assert decoded(sync_wire.encode(Close("x" * 1000))) == [Close("x" * 256)]
