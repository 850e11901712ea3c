# SPDX-License-Identifier: Apache-2.0
"""A pcapng writer: as much of draft-ietf-opsawg-pcapng as a capture needs.

Little-endian; Ethernet; time in nanoseconds. Each frame has its packet's number (``epb_packetid``: a packet
is seen twice, as received and as sent), its direction, its worker as the queue, and a comment.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO, Final

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
MAGIC: Final = 0x1A2B3C4D
LINKTYPE_ETHERNET: Final = 1
TSRESOL_NS: Final = 9
OPT_COMMENT: Final = 1
SHB_USERAPPL: Final = 4
IF_NAME, IF_MACADDR, IF_TSRESOL, IF_FILTER = 2, 6, 9, 11
EPB_FLAGS, EPB_DROPCOUNT, EPB_PACKETID, EPB_QUEUE = 2, 4, 5, 6
ISB_STARTTIME, ISB_ENDTIME, ISB_USRDELIV = 2, 3, 8
INBOUND, OUTBOUND = 1, 2
TEXT_MAX: Final = 0xFFF0
"""An option's length has 16 bits."""

_OPTION: Final = struct.Struct("<HH")
_PACKET_HEAD: Final = struct.Struct("<7I")
_PACKET_OPTIONS: Final = struct.Struct("<HHIHHQHHI")
_LOST_OPTION: Final = struct.Struct("<HHQ")
_LENGTH: Final = struct.Struct("<I")
_PADDING: Final = tuple(bytes(n) for n in range(4))
_END_OF_OPTIONS: Final = bytes(4)

Option = tuple[int, bytes]


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _options(options: Iterable[Option]) -> bytes:
    body = b"".join(struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options)
    return body + bytes(4) if body else b""


def _block(kind: int, body: bytes, options: Iterable[Option]) -> bytes:
    body += _options(options)
    length = len(body) + 12
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _time(ns: int) -> bytes:
    """A timestamp is two words, the high one first, whatever the byte order."""
    return struct.pack("<II", ns >> 32 & 0xFFFFFFFF, ns & 0xFFFFFFFF)


def _text(text: str) -> bytes:
    return text.encode()[:TEXT_MAX]


class Writer:
    """Writes one section; interfaces are numbered in the order of ``interfaces``."""

    def __init__(
        self,
        out: BinaryIO,
        interfaces: Iterable[tuple[str, bytes]],
        *,
        snaplen: int,
        application: str,
        comment: str,
        capture_filter: str = "",
    ) -> None:
        self._out = out
        options: list[Option] = [(OPT_COMMENT, _text(comment)), (SHB_USERAPPL, _text(application))]
        out.write(_block(SECTION, struct.pack("<IHHq", MAGIC, 1, 0, -1), options))
        for name, mac in interfaces:
            options = [(IF_NAME, _text(name)), (IF_MACADDR, mac), (IF_TSRESOL, bytes([TSRESOL_NS]))]
            if capture_filter:
                options.append((IF_FILTER, b"\0" + _text(capture_filter)))
            out.write(_block(INTERFACE, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snaplen), options))

    def packet(
        self,
        interface: int,
        t_ns: int,
        data: bytes,
        length: int,
        *,
        inbound: bool,
        packet_id: int,
        queue: int,
        lost: int,
        comment: str,
    ) -> None:
        """A frame, of which ``data`` was kept; ``lost``: packets lost before it."""
        # The one block that there are many of: its options are packed in one go.
        text = _text(comment)
        way = INBOUND if inbound else OUTBOUND
        options = (
            _OPTION.pack(OPT_COMMENT, len(text)),
            text,
            _PADDING[-len(text) % 4],
            _PACKET_OPTIONS.pack(EPB_FLAGS, 4, way, EPB_PACKETID, 8, packet_id, EPB_QUEUE, 4, queue),
            _LOST_OPTION.pack(EPB_DROPCOUNT, 8, lost) if lost else b"",
            _END_OF_OPTIONS,
        )
        kept = len(data)
        body = b"".join((data, _PADDING[-kept % 4], *options))
        size = _PACKET_HEAD.size + len(body) + 4
        head = _PACKET_HEAD.pack(PACKET, size, interface, t_ns >> 32, t_ns & 0xFFFFFFFF, kept, length)
        self._out.write(b"".join((head, body, _LENGTH.pack(size))))

    def statistics(self, interface: int, start_ns: int, end_ns: int, delivered: int, comment: str) -> None:
        """What became of an interface, at the end."""
        options: list[Option] = [
            (OPT_COMMENT, _text(comment)),
            (ISB_STARTTIME, _time(start_ns)),
            (ISB_ENDTIME, _time(end_ns)),
            (ISB_USRDELIV, struct.pack("<Q", delivered)),
        ]
        self._out.write(_block(STATISTICS, struct.pack("<I", interface) + _time(end_ns), options))

    def flush(self) -> None:
        """For whoever reads along."""
        self._out.flush()
