# SPDX-License-Identifier: Apache-2.0
"""The sync protocol's frames and messages; everything wrong has a name. Spec: R20, R22."""

from __future__ import annotations

import contextlib

import msgpack
import pytest
from cores import columns
from hypothesis import given
from hypothesis import strategies as st

from flexha.core import sync_wire
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import Role
from flexha.core.sync_wire import (
    Ack,
    Batch,
    Beat,
    BulkBegin,
    BulkEnd,
    Close,
    FrameBuffer,
    Go,
    Hello,
    Message,
    Resume,
    Stream,
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
    BulkBegin(STREAM, 1),
    Resume(STREAM, 13),
    Batch(5, 2, 4, columns(2)),
    Batch(6, 1, 6, columns(1, 6)),
    BulkEnd(6),
    Ack(6),
    Go(Term(5)),
    Beat(),
    Close("enough"),
)


def decoded(data: bytes) -> list[Message]:
    _, payloads = FrameBuffer().feed(data, LIMIT)
    return [sync_wire.decode(payload) for payload in payloads]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: type(m).__name__)
def test_round_trip(message: Message) -> None:
    assert decoded(sync_wire.encode(message)) == [message]


def test_golden_bytes() -> None:
    """A length of 4 bytes, then a map of msgpack."""
    assert sync_wire.encode(Ack(300)) == bytes.fromhex("0000000e82a174a361636ba3736571cd012c")
    assert sync_wire.encode(BulkBegin(Stream(1, Term(2)), 3)) == bytes.fromhex(
        "0000002683a174aa62756c6b5f626567696ea673747265616d82a3696e6301a47465726d02a373657103"
    )


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
    frame = sync_wire.encode(Batch(1, 200, 4, columns(200)))
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


def batch(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = msgpack.unpackb(sync_wire.encode(Batch(1, 2, 4, columns(2)))[4:])
    return fields | changes


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("garbage", [1, 2]),
        ("garbage", "hello"),
        ("garbage", {1: 2}),
        ("unknown_message", {}),
        ("unknown_message", {"t": "nonsense"}),
        ("unknown_message", {"t": 7}),
        ("unknown_message", {"t": ["hello"]}),
        ("version", hello(v_min=2, v_max=9)),
        ("version", hello(v_min=0, v_max=0)),
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
        ("bad_field", {"t": "ack"}),
        ("bad_field", {"t": "ack", "seq": 1.5}),
        ("bad_field", {"t": "go", "term": -2}),
        ("bad_field", {"t": "bulk_begin", "seq": 1}),
        ("bad_field", {"t": "close", "reason": b"bytes"}),
        ("bad_field", batch(n=0)),
        ("bad_field", batch(n=1 << 30)),
        ("bad_field", batch(family=5)),
        ("bad_field", batch(cols=[])),
        ("bad_column", batch(n=3)),
        ("bad_column", batch(family=6)),
        ("bad_column", batch(cols={})),
        ("bad_column", batch(cols={**columns(2), "id": bytes(15)})),
        ("bad_column", batch(cols={**columns(2), "id": "0123456789abcdef"})),
        ("bad_column", batch(cols={**columns(2), "win": b""})),
    ],
)
def test_what_no_conforming_peer_sends(reason: str, fields: object) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        sync_wire.decode(msgpack.packb(fields))
    assert caught.value.reason == reason


def test_unknown_keys_and_columns_are_skipped() -> None:
    """That is how version N talks to N+1."""
    message = sync_wire.decode(msgpack.packb(hello(v_max=2, colour="blue")))
    assert isinstance(message, Hello)
    assert message.pair == "lab"
    message = sync_wire.decode(msgpack.packb(batch(cols={**columns(2), "app_id": bytes(3)})))
    assert isinstance(message, Batch)
    assert set(message.columns) == set(sync_wire.COLUMNS)


def test_columns_that_are_not_required_may_be_missing() -> None:
    optional = {name for name, column in sync_wire.COLUMNS.items() if not column.required}
    assert optional == {"flags", "rule", "win", "counters"}
    few = {name: data for name, data in columns(2).items() if name not in optional}
    message = sync_wire.decode(msgpack.packb(batch(cols=few)))
    assert isinstance(message, Batch)
    assert set(message.columns) == set(few)


def test_a_record_costs_so_many_bytes() -> None:
    """R23: an IPv4 record on the wire, all columns."""
    assert sum(column.width_v4 for column in sync_wire.COLUMNS.values()) == 111


def test_a_long_reason_is_cut() -> None:
    assert decoded(sync_wire.encode(Close("x" * 1000))) == [Close("x" * 256)]
