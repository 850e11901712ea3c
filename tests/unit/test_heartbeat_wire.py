# SPDX-License-Identifier: Apache-2.0
"""The heartbeat's layout; ``test_fastpath_pulse.py`` holds the C codec to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexha.core import heartbeat_wire
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import Role
from flexha.core.heartbeat_wire import FLAG_BYE, FLAG_READY, Heartbeat
from flexha.units import TERM_MAX, Ns, Term

PAIR = heartbeat_wire.pair_id("lab")
KEY = bytes(range(16))
LAN = 1
BEAT = Heartbeat(
    node=1,
    role=Role.PASSIVE,
    flags=FLAG_READY,
    pair_id=PAIR,
    interval_ms=50,
    incarnation=0x1122334455667788,
    term=Term(3),
    seq=7,
    priority=100,
    control_beat=9,
    t_ns=Ns(0x0102030405060708),
    echo=0x8877665544332211,
    answers=0x1020304050607080,
    heard=0x0807060504030201,
)
GOLDEN = bytes.fromhex(
    "46584842"
    "02010201"
    "61d6b1c4"
    "00000032"
    "1122334455667788"
    "0000000000000003"
    "0000000000000007"
    "00000064"
    "00000009"
    "0102030405060708"
    "8877665544332211"
    "c04c8038237997d1"
    "1020304050607080"
    "0807060504030201"
    "bd1c21f57e24886f"
)


def encode(beat: Heartbeat = BEAT) -> bytes:
    return heartbeat_wire.encode(beat, key=KEY, path=LAN)


def decode(payload: bytes, *, own_node: int = 0, key: bytes = KEY, path: int = LAN) -> Heartbeat:
    return heartbeat_wire.decode(payload, own_node=own_node, own_pair_id=PAIR, key=key, path=path)


def signed(payload: bytes) -> bytes:
    """The payload with the right MACs."""
    least = payload[:64] + mac(payload[:64])
    extended = least + payload[72:88]
    return extended + mac(extended)


def mac(covered: bytes) -> bytes:
    return heartbeat_wire.siphash24(KEY, covered + bytes((LAN,))).to_bytes(8, "big")


def test_golden() -> None:
    assert encode() == GOLDEN
    assert decode(GOLDEN) == BEAT
    assert len(GOLDEN) == heartbeat_wire.SIZE_EXTENDED == 96


def test_pair_id_is_the_crc32_of_the_name() -> None:
    assert heartbeat_wire.pair_id("123456789") == 0xCBF43926


@given(
    st.integers(0, 1),
    st.sampled_from(Role),
    st.integers(0, 255),
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, TERM_MAX),
)
def test_round_trip(node: int, role: Role, flags: int, interval_ms: int, big: int, term: int) -> None:
    beat = replace(
        BEAT,
        node=node,
        role=role,
        flags=flags,
        interval_ms=interval_ms,
        incarnation=big,
        term=Term(term),
        seq=big,
        echo=big,
    )
    assert decode(encode(beat), own_node=1 - node) == beat


def test_longer_payloads_are_fine() -> None:
    assert decode(encode() + b"more") == BEAT


@pytest.mark.parametrize(
    ("reason", "at", "value"),
    [
        ("bad_magic", 0, b"FXHC"),
        ("bad_version", 4, b"\x01"),
        ("bad_node", 5, b"\x00"),
        ("bad_node", 5, b"\x02"),
        ("bad_role", 6, b"\x06"),
        ("other_pair", 8, b"\0\0\0\0"),
        ("bad_interval", 12, b"\0\0\0\0"),
        ("bad_seq", 32, bytes(8)),
        ("bad_term", 24, (TERM_MAX + 1).to_bytes(8, "big")),
    ],
)
def test_what_a_receiver_drops(reason: str, at: int, value: bytes) -> None:
    payload = bytearray(encode())
    payload[at : at + len(value)] = value
    with pytest.raises(RemoteProtocolError, match=reason):
        decode(signed(bytes(payload)))


@given(st.binary(max_size=71))
def test_short_payloads_are_dropped(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_length"):
        decode(payload)


def test_a_peer_of_an_older_version_ends_at_byte_72() -> None:
    old = replace(BEAT, answers=None, heard=0)
    assert encode(old) == GOLDEN[:72]
    for payload in (GOLDEN[:72], GOLDEN[:95]):
        assert decode(payload) == old


@given(st.integers(0, 8 * heartbeat_wire.SIZE_EXTENDED - 1))
def test_any_changed_bit_is_a_bad_mac(bit: int) -> None:
    payload = bytearray(encode())
    payload[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RemoteProtocolError, match="bad_mac"):
        decode(bytes(payload))


def test_a_mac_of_another_key_or_path_or_none_is_bad() -> None:
    """Recorded on the LAN, it is worth nothing on the WAN."""
    for payload, key, path in (
        (encode(), KEY, 2),
        (encode(), bytes(16), LAN),
        (encode()[:64] + bytes(8), KEY, LAN),
    ):
        with pytest.raises(RemoteProtocolError, match="bad_mac"):
            decode(payload, key=key, path=path)


def test_siphash_reference() -> None:
    """Vectors 0, 15 and 63 of the reference; csrc/test/check_siphash.c has them all."""
    assert [heartbeat_wire.siphash24(KEY, bytes(range(n))) for n in (0, 15, 63)] == [
        0x726FDB47DD0E0E31,
        0xA129CA6149BE45E5,
        0x958A324CEB064572,
    ]


def test_what_it_says_of_its_sender() -> None:
    info = replace(BEAT, flags=FLAG_READY | FLAG_BYE).peer_info
    assert (info.role, info.term, info.ready, info.bye, info.priority) == (Role.PASSIVE, 3, True, True, 100)
