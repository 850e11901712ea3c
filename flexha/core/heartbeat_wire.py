# SPDX-License-Identifier: Apache-2.0
"""Heartbeat payload: the authoritative byte layout.

The C pulse thread sends and receives heartbeats (``csrc/heartbeat_wire.h``); this codec is its executable
specification, which tests hold against the C one.

96 bytes of UDP payload, network order, no padding between fields::

    offset  size  field
         0     4  magic         "FXHB"
         4     1  version       2
         5     1  node          0 = node a, 1 = node b
         6     1  role          enum fp_role
         7     1  flags         FP_HB_*: 1 ready, 2 bye, 4 LAN up, 8 WAN up, 16 hung, 32 probe, 64 LAN lent,
                                128 WAN lent
         8     4  pair_id       CRC-32 of the pair's name
        12     4  interval_ms   the sender's heartbeat interval
        16     8  incarnation   the start of the daemon by its wall clock, ns: grows from start to start
        24     8  term          the sender's term, at most 2^48
        32     8  seq           per path, from 1; a gap is a loss
        40     4  priority      the sender's configured priority
        44     4  control_beat  liveness counter of the sender's control plane
        48     8  t_ns          the sender's CLOCK_BOOTTIME when it sent, ns
        56     8  echo          the incarnation of the receiver, as the sender has heard it; 0: not heard yet
        64     8  mac           SipHash-2-4 over bytes 0..63 and one more: the path's number
        72     8  answers       t_ns of the newest probe of the receiver that was heard on any path; 0: none
        80     8  heard         t_ns of the newest heartbeat of the receiver that was heard on any path (of
                                the life in ``echo``); 0: the sender hears nobody
        88     8  mac           SipHash-2-4 over bytes 0..87 and one more: the path's number

The MAC's key is one of the pair's heartbeat keys (``flexha.config.keyfiles``). Paths have the same numbers
on both nodes, 0 for xc and 1 + i for port i: a heartbeat recorded on one path is worth nothing on another.
Against replays on the same path, ``echo`` must be the receiver's own incarnation, and ``seq`` and
``incarnation`` must grow. Against what is held back on its way, ``heard`` or ``answers`` must be of late
(half a second and two times of silence); who hears nobody says neither, and is timed by ``t_ns``
(``csrc/pulse.h``).

A sender that says *hung* has a part that gets nowhere (``csrc/progress.h``), and does not say *ready*. If it
was ACTIVE and is no more, it has given up its role, and the receiver need not wait for its silence.

A sender that is ACTIVE and says *lent* of a side has no port there, and is silent there until the
receiver, which may stand in for it in that term, says no more that it does: by the same flag, in any role
but ACTIVE (``flexha.core.lend``). Versions before that ignore the flag, and never stand in.

A heartbeat with the flag *probe* wants an answer: the next heartbeat on every path, at once, in which
``answers`` is its ``t_ns``. Answers leave by a path at most once a millisecond. A life that the receiver
does not know yet is answered at once, too, and knows the receiver by that. Who says that it has *heard*
nothing cannot be asked, and nobody takes its silence for an answer.

A receiver drops, and counts as ``bad``, what is shorter than 72 bytes or does not bear the MAC (or has 96
bytes, and not the second one), before it looks at anything else; then what has another magic, version or
pair_id, its own node number, a role that does not exist, an interval or a seq of 0, or a term above the
limit. What is authentic but not new is counted as ``replayed``. What stands behind byte 72 was added later,
with a MAC of its own, without a new version: of a peer that sends 72 bytes nobody expects answers. Longer
payloads are fine.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

from flexha.core.errors import RemoteProtocolError
from flexha.core.events import PeerInfo, Role
from flexha.units import TERM_MAX, Ns, Term

MAGIC: Final = b"FXHB"
VERSION: Final = 2
SIZE: Final = 72
SIZE_EXTENDED: Final = 96
FLAG_READY: Final = 1
FLAG_BYE: Final = 2
FLAG_LAN_UP: Final = 4
FLAG_WAN_UP: Final = 8
FLAG_HUNG: Final = 16
FLAG_PROBE: Final = 32
FLAG_LAN_LENT: Final = 64
FLAG_WAN_LENT: Final = 128

_LAYOUT: Final = struct.Struct("!4sBBBBIIQQQIIQQ")
_MAC: Final = struct.Struct("!Q")
_EXTENSION: Final = struct.Struct("!QQ")
assert _LAYOUT.size + _MAC.size == SIZE
assert SIZE + _EXTENSION.size + _MAC.size == SIZE_EXTENDED

_U64: Final = (1 << 64) - 1


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
    echo: int = 0
    answers: int | None = 0
    """None: of an older version, which ends at byte 72."""
    heard: int = 0

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
            hung=bool(self.flags & FLAG_HUNG),
        )


def pair_id(pair: str) -> int:
    """The number of a pair in heartbeats: CRC-32 of its name in UTF-8."""
    return zlib.crc32(pair.encode())


def encode(beat: Heartbeat, *, key: bytes, path: int) -> bytes:
    """The payload that carries ``beat`` on path number ``path``."""
    covered = _LAYOUT.pack(
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
        beat.echo,
    )
    least = covered + _mac(covered, key, path)
    if beat.answers is None:
        return least
    extended = least + _EXTENSION.pack(beat.answers, beat.heard)
    return extended + _mac(extended, key, path)


def _mac(covered: bytes, key: bytes, path: int) -> bytes:
    return _MAC.pack(siphash24(key, covered + bytes((path,))))


def siphash24(key: bytes, data: bytes) -> int:
    """SipHash-2-4, 64 bits; as ``csrc/siphash.c``, which is the one in use."""
    k0, k1 = (int.from_bytes(half, "little") for half in (key[:8], key[8:]))
    v = (k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573)
    padded = data + bytes(-(len(data) + 1) % 8) + bytes((len(data) & 0xFF,))
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v0, v1, v2, v3 = _sip_rounds((v[0], v[1], v[2], v[3] ^ word), 2)
        v = (v0 ^ word, v1, v2, v3)
    v0, v1, v2, v3 = _sip_rounds((v[0], v[1], v[2] ^ 0xFF, v[3]), 4)
    return v0 ^ v1 ^ v2 ^ v3


def _sip_rounds(v: tuple[int, int, int, int], n: int) -> tuple[int, int, int, int]:
    v0, v1, v2, v3 = v
    for _ in range(n):
        v0, v2 = (v0 + v1) & _U64, (v2 + v3) & _U64
        v1, v3 = _rotl(v1, 13) ^ v0, _rotl(v3, 16) ^ v2
        v0 = _rotl(v0, 32)
        v2, v0 = (v2 + v1) & _U64, (v0 + v3) & _U64
        v1, v3 = _rotl(v1, 17) ^ v2, _rotl(v3, 21) ^ v0
        v2 = _rotl(v2, 32)
    return v0, v1, v2, v3


def _rotl(x: int, n: int) -> int:
    return (x << n | x >> (64 - n)) & _U64


def decode(payload: bytes, *, own_node: int, own_pair_id: int, key: bytes, path: int) -> Heartbeat:
    """The heartbeat in ``payload``. Raises RemoteProtocolError for what a receiver drops."""
    if len(payload) < SIZE:
        raise RemoteProtocolError("bad_length", f"{len(payload)} bytes")
    if payload[_LAYOUT.size : SIZE] != _mac(payload[: _LAYOUT.size], key, path):
        raise RemoteProtocolError("bad_mac", f"path {path}")
    answers: int | None = None
    heard = 0
    if len(payload) >= SIZE_EXTENDED:
        mac_at = SIZE_EXTENDED - _MAC.size
        if payload[mac_at:SIZE_EXTENDED] != _mac(payload[:mac_at], key, path):
            raise RemoteProtocolError("bad_mac", f"path {path}, behind byte {SIZE}")
        answers, heard = _EXTENSION.unpack_from(payload, SIZE)
    said = _LAYOUT.unpack_from(payload)
    magic, version, node, role, flags, pair, interval_ms = said[:7]
    incarnation, term, seq, priority, beat, t_ns, echo = said[7:]
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
    if seq == 0:
        raise RemoteProtocolError("bad_seq", "0")
    if term > TERM_MAX:
        raise RemoteProtocolError("bad_term", str(term))
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
        echo=echo,
        answers=answers,
        heard=heard,
    )
