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
from flexha.units import Ns, Term

PAIR = heartbeat_wire.pair_id("lab")
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
)
GOLDEN = bytes.fromhex(
    "46584842"
    "01010201"
    "61d6b1c4"
    "00000032"
    "1122334455667788"
    "0000000000000003"
    "0000000000000007"
    "00000064"
    "00000009"
    "0102030405060708"
    "0000000000000000"
)


def test_golden() -> None:
    assert heartbeat_wire.encode(BEAT) == GOLDEN
    assert heartbeat_wire.decode(GOLDEN, own_node=0, own_pair_id=PAIR) == BEAT
    assert len(GOLDEN) == heartbeat_wire.SIZE == 64


def test_pair_id_is_the_crc32_of_the_name() -> None:
    assert heartbeat_wire.pair_id("123456789") == 0xCBF43926


@given(
    st.integers(0, 1),
    st.sampled_from(Role),
    st.integers(0, 255),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**64 - 1),
)
def test_round_trip(node: int, role: Role, flags: int, interval_ms: int, big: int) -> None:
    beat = replace(
        BEAT,
        node=node,
        role=role,
        flags=flags,
        interval_ms=interval_ms,
        incarnation=big,
        term=Term(big),
        seq=big,
    )
    payload = heartbeat_wire.encode(beat)
    assert heartbeat_wire.decode(payload, own_node=1 - node, own_pair_id=PAIR) == beat


def test_longer_payloads_are_fine() -> None:
    assert heartbeat_wire.decode(heartbeat_wire.encode(BEAT) + b"more", own_node=0, own_pair_id=PAIR) == BEAT


@pytest.mark.parametrize(
    ("reason", "at", "value"),
    [
        ("bad_magic", 0, b"FXHC"),
        ("bad_version", 4, b"\x02"),
        ("bad_node", 5, b"\x00"),
        ("bad_node", 5, b"\x02"),
        ("bad_role", 6, b"\x06"),
        ("other_pair", 8, b"\0\0\0\0"),
        ("bad_interval", 12, b"\0\0\0\0"),
    ],
)
def test_what_a_receiver_drops(reason: str, at: int, value: bytes) -> None:
    payload = bytearray(heartbeat_wire.encode(BEAT))
    payload[at : at + len(value)] = value
    with pytest.raises(RemoteProtocolError, match=reason):
        heartbeat_wire.decode(bytes(payload), own_node=0, own_pair_id=PAIR)


@given(st.binary(max_size=63))
def test_short_payloads_are_dropped(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="bad_length"):
        heartbeat_wire.decode(payload, own_node=0, own_pair_id=PAIR)


def test_what_it_says_of_its_sender() -> None:
    info = replace(BEAT, flags=FLAG_READY | FLAG_BYE).peer_info
    assert (info.role, info.term, info.ready, info.bye, info.priority) == (Role.PASSIVE, 3, True, True, 100)
