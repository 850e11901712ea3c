# SPDX-License-Identifier: Apache-2.0
"""The Internet checksum (RFC 1071), for the few frames that the control plane builds itself."""

from __future__ import annotations

from ipaddress import IPv4Address


def ones_complement_sum(data: bytes) -> int:
    """One's complement sum of ``data`` in 16-bit words, an odd last byte padded with zero; not inverted."""
    total = sum(data[0::2]) * 256 + sum(data[1::2])
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def internet_checksum(data: bytes) -> int:
    """The value for the checksum field of ``data``, whose own field holds zero."""
    return ~ones_complement_sum(data) & 0xFFFF


def is_valid(data: bytes) -> bool:
    """Whether ``data``, its checksum field included, sums to all ones."""
    return ones_complement_sum(data) == 0xFFFF


def pseudo_header(src: IPv4Address, dst: IPv4Address, protocol: int, length: int) -> bytes:
    """IPv4 pseudo-header (RFC 9293 §3.1): addresses, zero, protocol, length of what follows."""
    return src.packed + dst.packed + bytes((0, protocol)) + length.to_bytes(2, "big")
