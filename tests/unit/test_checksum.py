# SPDX-License-Identifier: Apache-2.0
"""The Internet checksum. Spec: RFC 1071."""

from __future__ import annotations

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from flexha.core import checksum


def test_example_of_rfc_1071() -> None:
    """RFC 1071 §3: the sum of 00 01 f2 03 f4 f5 f6 f7 is ddf2."""
    data = bytes.fromhex("0001f203f4f5f6f7")
    assert checksum.ones_complement_sum(data) == 0xDDF2
    assert checksum.internet_checksum(data) == 0x220D


def test_an_odd_byte_is_padded_with_zero() -> None:
    assert checksum.ones_complement_sum(b"\x12\x34\x56") == checksum.ones_complement_sum(b"\x12\x34\x56\x00")


@given(st.binary(min_size=2, max_size=200))
def test_what_is_filled_in_is_valid(data: bytes) -> None:
    padded = data if len(data) % 2 == 0 else data + b"\0"
    filled = checksum.internet_checksum(b"\0\0" + padded).to_bytes(2, "big") + padded
    assert checksum.is_valid(filled)


def test_pseudo_header() -> None:
    header = checksum.pseudo_header(IPv4Address("192.0.2.1"), IPv4Address("224.0.0.18"), 112, 12)
    assert header == bytes.fromhex("c0000201e00000120070000c")
