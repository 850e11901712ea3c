# SPDX-License-Identifier: Apache-2.0
"""Heartbeat payload: the authoritative byte layout.

The C pulse thread sends and receives heartbeats (``csrc/heartbeat_wire.h``); this codec is its executable
specification, which tests hold against the C one, and what the simulator uses.

64 bytes of UDP payload, network order, no padding between fields::

    offset  size  field
         0     4  magic         "FXHB"
         4     1  version       1
         5     1  node          0 = node a, 1 = node b
         6     1  role          enum fp_role
         7     1  flags         FP_HB_*: 1 ready, 2 bye, 4 LAN up, 8 WAN up; others zero, ignored on receipt
         8     4  pair_id       CRC-32 of the pair's name
        12     4  interval_ms   the sender's heartbeat interval
        16     8  incarnation   random per start of the daemon
        24     8  term          the sender's term
        32     8  seq           per path, from 1; a gap is a loss
        40     4  priority      the sender's configured priority
        44     4  control_beat  liveness counter of the sender's control plane
        48     8  t_ns          the sender's CLOCK_BOOTTIME when it sent, ns
        56     8  reserved      zero; ignored on receipt

A receiver drops, and counts as ``bad``, what is shorter than 64 bytes, or has another magic, version or
pair_id, its own node number, a role that does not exist, or an interval of 0. Longer payloads are fine:
fields are only ever added behind byte 64 (an authenticator among them) without a new version.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from flexha.core.errors import RemoteProtocolError
from flexha.core.events import PeerInfo, Role
from flexha.units import Ns, Term

MAGIC: Final = b"FXHB"
VERSION: Final = 1
SIZE: Final = 64
FLAG_READY: Final = 1
FLAG_BYE: Final = 2
FLAG_LAN_UP: Final = 4
FLAG_WAN_UP: Final = 8

_LAYOUT: Final = struct.Struct("!4sBBBBIIQQQIIQ8x")
assert _LAYOUT.size == SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """One heartbeat, decoded."""

    node: int
    role: Role
    flags: int
    pair_id: int
    interval_ms: int
    incarnation: int
    term: Term
    seq: int
    priority: int
    control_beat: int
    t_ns: Ns

    @property
    def peer_info(self) -> PeerInfo:
        """What it says of its sender."""
        return PeerInfo(
            role=self.role,
            term=self.term,
            incarnation=self.incarnation,
            ready=bool(self.flags & FLAG_READY),
            bye=bool(self.flags & FLAG_BYE),
            priority=self.priority,
        )


def pair_id(pair: str) -> int:
    """The number of a pair in heartbeats: CRC-32 of its name in UTF-8."""
    return zlib.crc32(pair.encode())


def encode(beat: Heartbeat) -> bytes:
    """The payload that carries ``beat``."""
    return _LAYOUT.pack(
        MAGIC,
        VERSION,
        beat.node,
        beat.role,
        beat.flags,
        beat.pair_id,
        beat.interval_ms,
        beat.incarnation,
        beat.term,
        beat.seq,
        beat.priority,
        beat.control_beat,
        beat.t_ns,
    )


def decode(payload: bytes, *, own_node: int, own_pair_id: int) -> Heartbeat:
    """The heartbeat in ``payload``. Raises RemoteProtocolError for what a receiver drops."""
    if len(payload) < SIZE:
        raise RemoteProtocolError("bad_length", f"{len(payload)} bytes")
    (magic, version, node, role, flags, pair, interval_ms, incarnation, term, seq, priority, beat, t_ns) = (
        _LAYOUT.unpack_from(payload)
    )
    if magic != MAGIC:
        raise RemoteProtocolError("bad_magic", magic.hex())
    if version != VERSION:
        raise RemoteProtocolError("bad_version", str(version))
    if pair != own_pair_id:
        raise RemoteProtocolError("other_pair", f"{pair:#x}")
    if node == own_node or node > 1:
        raise RemoteProtocolError("bad_node", str(node))
    if role not in Role.__members__.values():
        raise RemoteProtocolError("bad_role", str(role))
    if interval_ms == 0:
        raise RemoteProtocolError("bad_interval", "0 ms")
    return Heartbeat(
        node=node,
        role=Role(role),
        flags=flags,
        pair_id=pair,
        interval_ms=interval_ms,
        incarnation=incarnation,
        term=Term(term),
        seq=seq,
        priority=priority,
        control_beat=beat,
        t_ns=Ns(t_ns),
    )
