# SPDX-License-Identifier: Apache-2.0
"""A test build of flexhad, odd on the wire: ``odd_daemon.py NATURE ORDERS ARGUMENTS-OF-FLEXHAD...``.

All of it is flexhad, but for what it says or hears as sync messages. NATURE is how it is for good, one of
``NATURES``, ``SMALL`` or ``-``. ORDERS names a file: the word in it (one of ``SENT``, ``HEARD``)
is what happens to the next message that it fits, once; the file is gone by then.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sections import COLUMNS, SECTIONS, Part, pack, unpack

import flexha.__main__
from flexha.config import derive
from flexha.core import sync_short, sync_wire
from flexha.core.sync_short import Way
from flexha.core.sync_wire import Batch, Message
from flexha.fastpath import Op
from flexha.shell import daemon

Fields = dict[str, Any]
UDP = 17
SMALL, SMALL_FLOWS = "small", 64
"""A nature as ever, but with room for so few sessions."""


def framed(payload: bytes) -> bytes:
    """A payload behind its length."""
    return struct.pack("!I", len(payload)) + payload


# ---- for good --------------------------------------------------------------------------------------
def _as_ever(fields: Fields) -> list[Fields]:
    return [fields]


VERSIONS: Mapping[str, tuple[int, int]] = {
    "newer": (sync_wire.VERSION_MAX + 1, sync_wire.VERSION_MAX + 2),
    "older": (0, sync_wire.VERSION_MIN - 1),
}
"""Natures that speak, and understand, other versions than we do."""


def _speaks(nature: str) -> Callable[[Fields], list[Fields]]:
    lowest, highest = VERSIONS[nature]

    def odd(fields: Fields) -> list[Fields]:
        return [fields | {"v_min": lowest, "v_max": highest} if fields["t"] == "hello" else fields]

    return odd


def _later(fields: Fields) -> list[Fields]:
    """What a later version may add: keys, columns, kinds of records, messages."""
    fields = fields | {"hint": {"of": ["a", "later", {"version": 3}]}, "level": -1}
    if fields["t"] == "hello":
        fields["v_max"] = sync_wire.VERSION_MAX + 1
    if fields["t"] != "batch":
        return [fields]
    parts = [
        part | {"zstd": False, "cols": part["cols"] | {"app_id": bytes(4 * part["n"]), "url": b""}}
        for part in fields["parts"]
    ]
    parts.append({"op": 77, "n": 1, "f": 4, "cols": {"pinhole": b"1"}})
    return [{"t": "app_ids", "ids": {"1": "dns"}}, fields | {"parts": parts}]


def _bare(fields: Fields) -> list[Fields]:
    """Nothing that may be missing."""
    if fields["t"] != "batch":
        return [fields]
    parts = []
    for part in fields["parts"]:
        optional = SECTIONS[Op(part["op"])].optional
        columns = {name: data for name, data in part["cols"].items() if name not in optional}
        parts.append(part | {"cols": columns})
    return [fields | {"parts": parts}]


def _mute(fields: Fields) -> list[Fields]:
    """It beats, and never says that it has anything."""
    return [] if fields["t"] == "ack" else [fields]


NATURES: Mapping[str, Callable[[Fields], list[Fields]]] = {
    "later": _later,
    "bare": _bare,
    "mute": _mute,
    **{nature: _speaks(nature) for nature in VERSIONS},
}


# ---- once, in what is sent -------------------------------------------------------------------------
def _pack(fields: Fields) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def _first_open(fields: Fields) -> Fields | None:
    """The section of new sessions whose first one is translated and UDP."""
    for part in fields.get("parts", ()):
        if part["op"] == Op.OPEN and part["cols"]["proto"][0] == UDP and part["f"] == 4:
            found: Fields = part
            return found
    return None


def _with_first(name: str, value: Callable[[bytes], bytes]) -> Callable[[Fields], bytes | None]:
    """The first new session contradicts itself."""

    def odd(fields: Fields) -> bytes | None:
        part = _first_open(fields)
        if part is None:
            return None
        width, n = COLUMNS[name].width(4), part["n"]
        data = _spread(part["cols"][name], width, n)
        part["cols"] = part["cols"] | {name: value(data[:width]) + data[width:]}
        return _pack(fields)

    return odd


def _spread(data: bytes, width: int, n: int) -> bytes:
    """A column with an element for each record."""
    return data * n if len(data) == width else data


def _batch(odd: Callable[[Fields], bytes]) -> Callable[[Fields], bytes | None]:
    return lambda fields: odd(fields) if fields["t"] == "batch" else None


SENT: Mapping[str, Callable[[Fields], bytes | None]] = {
    "ack-of-the-future": lambda f: _pack(f | {"seq": f["seq"] + 1000}) if f["t"] == "ack" else None,
    "audit-of-the-future": lambda f: _pack(f | {"seq": f["seq"] + 1000}) if f["t"] == "audit" else None,
    "gap": _batch(lambda f: _pack(f | {"seq": f["seq"] + 5})),
    "truncated": _batch(lambda f: _pack(f)[:-3]),
    "deep": _batch(lambda _: b"\x81\xa1t" + b"\x91" * 5000),
    "huge-array": _batch(lambda f: b"\xdd\xff\xff\xff\xff" + _pack(f)),
    "huge-map": _batch(lambda f: b"\xdf\xff\xff\xff\xff" + _pack(f)),
    "huge-bin": _batch(lambda f: b"\x81\xa1t\xc6\xff\xff\xff\xff" + _pack(f)),
    "extension": _batch(lambda _: b"\x82\xa1t\xa3ack\xa3seq\xc7\x08\x01" + bytes(8)),
    "text-for-a-number": _batch(lambda f: _pack(f | {"seq": str(f["seq"])})),
    "negative": _batch(lambda f: _pack(f | {"seq": -1})),
    "sections-of-nothing": _batch(lambda f: _pack(f | {"parts": [None] * 8})),
    "huge-count": _batch(lambda f: _pack(f | {"parts": [p | {"n": 1 << 40} for p in f["parts"]]})),
    "no-required-column": _batch(lambda f: _pack(f | {"parts": [p | {"cols": {}} for p in f["parts"]]})),
    "long-column": _batch(
        lambda f: _pack(
            f | {"parts": [p | {"cols": p["cols"] | {"id_low": b"123456789"}} for p in f["parts"]]}
        )
    ),
    "impossible-state": _with_first("state", lambda _: b"\x4d"),
    "state-of-another-protocol": _with_first("state", lambda _: b"\x07"),
    "impossible-form": _with_first("form", lambda _: b"\x09"),
    "port-outside-of-the-pool": _with_first("external_port", lambda _: struct.pack("!H", 80)),
    "address-of-no-pool": _with_first("external", lambda _: bytes((203, 0, 113, 6))),
    "another-shard": _with_first("external_port", lambda port: bytes((port[0], port[1] ^ 2))),
}


# ---- once, in what is heard: a bit flips between the wire and the table --------------------------------
def _flip(name: str, at: int, bit: int) -> Callable[[Part, int], Part | None]:
    def odd(part: Part, i: int) -> Part:
        width = COLUMNS[name].width(4)
        data = bytearray(_spread(part.columns[name], width, part.n))
        data[i * width + at] ^= bit
        return replace(part, columns={**part.columns, name: bytes(data)})

    return odd


def _drop(part: Part, i: int) -> Part | None:
    if part.n == 1:
        return None
    columns = {}
    for name, column in part.columns.items():
        width = COLUMNS[name].width(4)
        data = _spread(column, width, part.n)
        columns[name] = data[: i * width] + data[(i + 1) * width :]
    return replace(part, n=part.n - 1, columns=columns)


def _add(part: Part, i: int) -> Part:
    """One more: its neighbour by port and id, so that it is in the same shard and contradicts nothing."""
    columns = {}
    for name, column in part.columns.items():
        width = COLUMNS[name].width(4)
        data = _spread(column, width, part.n)
        more = bytearray(data[i * width : (i + 1) * width])
        if name in {"inside_port", "external_port"}:
            more[1] ^= 1  # network order
        elif name == "id_high":
            more[2] ^= 0x55
        columns[name] = data + bytes(more)
    return replace(part, n=part.n + 1, columns=columns)


HEARD: Mapping[str, Callable[[Part, int], Part | None]] = {
    "flip-state": _flip("state", 0, 5),  # NEW becomes ESTABLISHED
    "flip-port": _flip("external_port", 1, 1),  # the other one of its pair: the same shard
    "flip-version": _flip("version", 0, 64),
    "flip-remote": _flip("remote", 3, 4),
    "drop": _drop,
    "add": _add,
}


def _heard(message: Batch, odd: Callable[[Part, int], Part | None]) -> Batch | None:
    parts = unpack(message.sections)
    for at, part in enumerate(parts):
        if part.op is not Op.OPEN or part.family != 4:
            continue
        protocols = _spread(part.columns["proto"], 1, part.n)
        if UDP not in protocols:
            continue
        changed = odd(part, protocols.index(UDP))
        sections = pack((*parts[:at], *((changed,) if changed else ()), *parts[at + 1 :]))
        return replace(message, sections=sections)
    return None


# ---- the daemon ------------------------------------------------------------------------------------
def main() -> int:
    """Put the oddities between flexhad and its wire, and run it."""
    nature, orders, *arguments = sys.argv[1:]
    by_nature = NATURES.get(nature, _as_ever)
    path = Path(orders)
    true_encode, true_decode = sync_wire.encode, sync_wire.decode

    def order() -> str:
        try:
            return path.read_text()
        except FileNotFoundError:
            return ""

    def encode(message: Message) -> bytes:
        said = by_nature(msgpack.unpackb(true_encode(message)[sync_wire.LENGTH_BYTES :]))
        word = order()
        if said and word in SENT:
            payload = SENT[word](said[-1])
            if payload is not None:
                path.unlink()
                return framed(payload)
        return b"".join(framed(_pack(fields)) for fields in said)

    def decode(payload: bytes) -> Message:
        message = true_decode(payload)
        word = order()
        if isinstance(message, Batch) and word in HEARD:
            changed = _heard(message, HEARD[word])
            if changed is not None:
                path.unlink()
                return changed
        return message

    if nature == SMALL:
        true_config = derive.fastpath_config
        vars(daemon)["fastpath_config"] = lambda *given: replace(true_config(*given), flow_cap=SMALL_FLOWS)
    if nature in VERSIONS:
        lowest, highest = VERSIONS[nature]
        vars(sync_wire).update(VERSION_MIN=lowest, VERSION_MAX=highest)
    vars(sync_wire).update(encode=encode, decode=decode)
    vars(sync_short).update(way=lambda _: Way.LONG)  # nothing goes past what is odd
    return flexha.__main__.main(arguments)


if __name__ == "__main__":
    sys.exit(main())
