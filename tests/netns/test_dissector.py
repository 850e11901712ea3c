# SPDX-License-Identifier: Apache-2.0
"""``netns-lab/flexha.lua`` in tshark: what the daemons said is what it shows. Spec: B10."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
import topo
from netns.wire import Capture, Frame, write_pcap
from pair import Node, Pair, configuration_text
from sandbox import REPOSITORY, Lab, wait_until
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from flexha.core import heartbeat_wire
from flexha.core.heartbeat_wire import pair_id

SCRIPT = REPOSITORY / "netns-lab" / "flexha.lua"
SYNC_PORT, HEARTBEAT_PORT, GENEVE_PORT = 47851, 47850, 6081
WAIT_S = 15
SESSIONS = 40
FIRST_PORT = 31000
PORT = 9090
ALL_SHARDS = "0xffffffffffffffff"
IN_THE_CLEAR = "\n[sync]\ntls = false\n"

Tree = list[tuple[str, Any]]
"""A JSON object as tshark prints it: a key may come again."""


# ---- tshark ----------------------------------------------------------------------------------------
def tshark(pcap: Path, *options: str, wanted: str = "frame") -> str:
    """What it prints; that it has nothing to complain of is part of the test."""
    argv = ["tshark", "-X", f"lua_script:{SCRIPT}", "-n", "-r", str(pcap), "-Y", wanted, *options]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    complaints = [line for line in done.stderr.splitlines() if "Running as user" not in line]
    assert complaints == []
    return done.stdout


def layers(pcap: Path, wanted: str, *options: str) -> list[Tree]:
    """The packets that pass the display filter, each as its layers."""
    text = tshark(pcap, "-T", "json", *options, wanted=wanted)
    packets: list[Tree] = json.loads(text, object_pairs_hook=list)
    return [dict(dict(packet)["_source"])["layers"] for packet in packets]


def find(tree: Tree, key: str) -> Iterator[Any]:
    """Values of ``key`` at any depth, in order."""
    for name, value in tree:
        if name == key:
            yield value
        if isinstance(value, list):
            yield from find([(each[0], each[1]) for each in value if _is_pair(each)], key)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str)


def one(tree: Tree, key: str) -> Any:
    (value,) = find(tree, key)
    return value


def messages(packets: list[Tree], kind: str) -> list[Tree]:
    """Sync messages of one kind, in order."""
    every = (message for packet in packets for message in find(packet, "flexha_sync"))
    return [message for message in every if list(find(message, "flexha_sync.t")) == [kind]]


def complaints(tree: Tree) -> list[str]:
    """Expert infos, and nothing that came from a bug in the script."""
    assert not any(name == "_ws.lua.error" or name.startswith("Lua Error") for name, _ in _walk(tree)), tree
    return [str(text) for text in find(tree, "_ws.expert.message")]


def _walk(tree: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, list):
        for each in tree:
            if _is_pair(each):
                yield each[0], each[1]
                yield from _walk(each[1])


# ---- what the daemons say --------------------------------------------------------------------------
class Watched:
    """A pair under capture: xc from before the daemons start, until ``packets`` is asked for."""

    def __init__(self, pair: Pair, capture: Capture, directory: Path, keylog: Path | None) -> None:
        self.pair = pair
        self._capture = capture
        self._pcap = directory / "xc.pcap"
        self._options = ["-o", f"tls.keylog_file:{keylog}"] if keylog else []

    def packets(self, wanted: str) -> list[Tree]:
        write_pcap(self._pcap, self._capture.frames())
        return layers(self._pcap, wanted, *self._options)

    def protocols(self) -> set[str]:
        text = tshark(self._pcap, "-T", "fields", "-e", "frame.protocols", *self._options, wanted="tcp")
        return {name for line in text.splitlines() for name in line.split(":")}


@pytest.fixture
def watched(
    lab: Lab, session_pair: Pair, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Watched]:
    """A pair of its own, with such lines in its file; in TLS unless they say otherwise."""
    config = tmp_path / "pair.toml"
    config.write_text(configuration_text() + request.param)
    keylog = None if request.param else tmp_path / "keys.log"
    session_pair.stop_all()
    pair = Pair(lab, tmp_path, config)
    if keylog:
        for node in pair.nodes.values():
            node.program = (*node.program, "--tls-keylog", str(keylog))
    with Capture(lab, "a", topo.XC_DEVICE) as capture:
        try:
            pair.start()
            pair.wait_settled()
            yield Watched(pair, capture, tmp_path, keylog)
        finally:
            pair.stop_all()


@contextlib.contextmanager
def open_sessions(lab: Lab, pair: Pair) -> Iterator[list[str]]:
    """UDP sessions that both nodes have; their inside endpoints."""
    with contextlib.ExitStack() as stack:
        address = topo.CLIENT_ADDRESSES[3]
        for i in range(SESSIONS):
            sender = stack.enter_context(lab.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM))
            sender.bind((address, FIRST_PORT + i))
            sender.sendto(b"hello", (topo.SERVER_ADDRESS, PORT))
        sources = [f"{address}:{FIRST_PORT + i}" for i in range(SESSIONS)]
        wait_until(lambda: all(map(pair.holds, sources)), WAIT_S, "both nodes have the sessions")
        yield sources


def restart(node: Node) -> None:
    """It comes back empty, and gets everything anew."""
    node.stop()
    node.start()


@pytest.mark.parametrize("watched", ["", IN_THE_CLEAR], ids=["tls", "clear"], indirect=True)
def test_what_was_said_is_what_is_shown(lab: Lab, watched: Watched) -> None:
    """Greeting, bulk, sessions, digests and heartbeats as both daemons know them."""
    pair = watched.pair
    with open_sessions(lab, pair) as sources:
        active = pair.active()
        passive = pair.peer(active)
        restart(passive)
        pair.wait_settled()
        known = {row["inside"]: row for row in active.sessions(proto="udp") if row["inside"] in sources}
        statuses = {name: status for name, status in pair.statuses().items() if status is not None}
        packets = watched.packets("flexha_sync")
    term = statuses[active.name]["term"]

    hellos = messages(packets, "hello")
    assert {one(hello, "flexha_sync.pair") for hello in hellos} == {"lab"}
    said = {(one(h, "flexha_sync.node"), one(h, "flexha_sync.role")) for h in hellos}
    assert (str("ab".index(active.name)), "3") in said
    assert (str("ab".index(passive.name)), "1") in said

    bulks = [
        begun
        for begun in messages(packets, "sweep_begin")
        if one(begun, "flexha_sync.shards").lower() == ALL_SHARDS
    ]
    assert bulks
    assert one(bulks[-1], "flexha_sync.stream.term") == str(term)
    assert messages(packets, "sweep_end")
    batches = messages(packets, "batch")
    seqs = [int(one(batch, "flexha_sync.seq")) for batch in batches]
    assert all(seq > 0 for seq in seqs)
    acks = [int(one(ack, "flexha_sync.seq")) for ack in messages(packets, "ack")]
    assert max(acks) >= seqs[-1], "all that was sent is acknowledged"
    assert messages(packets, "digest")
    assert {int(one(audit, "flexha_sync.differ"), 16) for audit in messages(packets, "audit")} == {0}

    lines = {line for batch in batches for line in find(batch, "flexha_sync.session")}
    rows = [tree for batch in batches for tree in find(batch, "flexha_sync.session_tree")]
    shown: dict[str, tuple[Tree, str]] = {}
    for row in rows:
        if held := list(find(row, "flexha_sync.session.external")):
            source = f"{one(row, 'flexha_sync.session.inside')}:{one(row, 'flexha_sync.session.inside_port')}"
            shown[source] = (row, f"{held[0]}:{one(row, 'flexha_sync.session.external_port')}")
    seen = known.keys() & shown.keys()
    assert seen, f"none of {sorted(known)} is in {sorted(lines)}"
    for inside in seen:
        shown_row, external = shown[inside]
        assert external == known[inside]["external"]
        assert one(shown_row, "flexha_sync.session.proto") == "17"
        assert one(shown_row, "flexha_sync.session.remote") == topo.SERVER_ADDRESS
        assert any(f"udp {inside} > {topo.SERVER_ADDRESS}:{PORT} as {external}" in line for line in lines)
    assert [text for packet in packets for text in complaints(packet) if text != "The connection ends"] == []

    protocols = watched.protocols()
    assert "flexha_sync" in protocols
    assert ("tls" in protocols) == bool(watched._options)

    beats = [
        tree for packet in watched.packets("flexha_hb and not icmp") for tree in find(packet, "flexha_hb")
    ]
    assert {one(beat, "flexha_hb.node") for beat in beats} == {"0", "1"}
    assert {int(one(beat, "flexha_hb.pair_id"), 16) for beat in beats} == {pair_id("lab")}
    assert all(int(one(beat, "flexha_hb.mac"), 16) for beat in beats)
    assert str(term) in {one(beat, "flexha_hb.term") for beat in beats}
    numbers: dict[tuple[str, str], list[int]] = {}
    for beat in beats:
        key = (one(beat, "flexha_hb.node"), one(beat, "flexha_hb.incarnation"))
        numbers.setdefault(key, []).append(int(one(beat, "flexha_hb.seq")))
    assert all(one_path == sorted(set(one_path)) for one_path in numbers.values())
    assert not any(complaints(beat) for beat in beats)


# ---- crafted frames --------------------------------------------------------------------------------
PEERS = {"src": "169.254.100.1", "dst": "169.254.100.2"}


def framed(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


def packed(message: object) -> bytes:
    payload: bytes = msgpack.packb(message)
    return framed(payload)


def on_wire(directory: Path, packets: list[Packet]) -> Path:
    pcap = directory / "crafted.pcap"
    write_pcap(pcap, [Frame(1.0 + i, True, bytes(packet)) for i, packet in enumerate(packets)])
    return pcap


def over_tcp(stream: bytes, segment: int) -> list[Packet]:
    """A byte stream in segments of so many bytes."""
    return [
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
        / IP(**PEERS)
        / TCP(sport=SYNC_PORT, dport=50000, seq=1 + at, ack=1, flags="PA")
        / Raw(stream[at : at + segment])
        for at in range(0, len(stream), segment)
    ]


def over_udp(payload: bytes, port: int) -> Packet:
    ethernet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    return ethernet / IP(**PEERS) / UDP(sport=port, dport=port) / Raw(payload)


REST_OF_V6 = {
    "id_low": struct.pack("<2I", 7, 8),
    "id_high": struct.pack("<I", 9),
    "origin": struct.pack("<H", 2),
    "version": struct.pack("<2I", 1, 2),
    "form": b"\x02",
    "proto": b"\x06",
    "state": b"\x04\x05",
    "flags": b"\0",
    "rule": struct.pack("<H", 300),
    "inside": bytes.fromhex("20010db8" + "00" * 11 + "01"),
    "remote": bytes.fromhex("20010db8" + "00" * 11 + "02" + "20010db8" + "00" * 11 + "03"),
    "inside_port": struct.pack("!2H", 4000, 4001),
    "remote_port": struct.pack("!H", 443),
    "remaining_ms": struct.pack("<I", 7_440_000),
    "win": struct.pack("<IIIBBIIIBB", 1, 2, 3, 7, 5, 4, 5, 6, 8, 1),
    "counters": struct.pack("<4Q", 10, 20, 1 << 40, 40),
    "app_id": b"12345678",
}


def test_columns_of_a_batch(tmp_path: Path) -> None:
    """Constant columns, IPv6, windows, counters, and one that nobody knows; over many TCP segments."""
    parts = [{"op": 3, "n": 2, "f": 6, "cols": REST_OF_V6}]
    stream = packed({"t": "batch", "seq": 9, "parts": parts}) + packed({"t": "ack", "seq": 1 << 63})
    packets = layers(on_wire(tmp_path, over_tcp(stream, 100)), "flexha_sync")
    (batch,), (ack,) = messages(packets, "batch"), messages(packets, "ack")
    assert one(ack, "flexha_sync.seq") == str(1 << 63)
    assert list(find(batch, "flexha_sync.session")) == [
        "tcp [2001:db8::1]:4000 > [2001:db8::2]:443 ESTABLISHED",
        "tcp [2001:db8::1]:4001 > [2001:db8::3]:443 FIN_WAIT",
    ]
    first, second = find(batch, "flexha_sync.session_tree")
    wanted = {
        "id": ("0x0000000900000007", "0x0000000900000008"),
        "origin": ("2", "2"),
        "rule": ("300", "300"),
        "remaining_ms": ("7440000", "7440000"),
        "inside.max_end": ("2", "2"),
        "outside.scale": ("8", "8"),
        "bytes_out": (str(1 << 40), str(1 << 40)),
        "inside_v6": ("2001:db8::1", "2001:db8::1"),
        "remote_v6": ("2001:db8::2", "2001:db8::3"),
    }
    for name, values in wanted.items():
        key = f"flexha_sync.session.{name}"
        assert (one(first, key), one(second, key)) == values, name
    widths = dict(
        zip(
            [text.partition(":")[0] for text in find(batch, "flexha_sync.column") if "app_id" not in text],
            find(batch, "flexha_sync.column.width"),
            strict=True,
        )
    )
    assert (widths["id_low"], widths["remote"], widths["win"]) == ("4", "16", "28")
    assert complaints(batch) == ["a column that is not in the specification"]


MALFORMED = {
    "no-msgpack": (framed(b"\xc1" * 8), "begins no value"),
    "no-map": (packed([1, 2]), "not a map but array of 2"),
    "deep": (framed(b"\x91" * 1000), "more than 8 levels"),
    "many": (framed(b"\xdd\xff\xff\xff\xff"), "array of 4294967295, in the 0 bytes"),
    "long-bin": (framed(b"\x81\xa1x\xc6\xff\xff\xff\xff"), "4294967295 bytes are said to follow, 0 do"),
    "truncated": (framed(msgpack.packb({"t": "ack", "seq": 70000})[:-2]), "bytes are said to follow"),
    "behind-the-end": (framed(msgpack.packb({"t": "beat"}) + b"\0"), "1 bytes behind the message"),
    "no-name": (packed({"seq": 1}), "t is no name of a message"),
    "negative": (packed({"t": "ack", "seq": -1}), "seq is no unsigned number"),
    "text-for-a-number": (packed({"t": "ack", "seq": "1"}), "seq is no unsigned number"),
    "missing": (packed({"t": "ack"}), "seq is missing"),
    "stream": (packed({"t": "want", "stream": 5, "seq": 1}), "stream is no stream"),
    "column": (
        packed({"t": "batch", "seq": 1, "parts": [{"op": 1, "n": 2, "f": 4, "cols": {"id_low": b"abc"}}]}),
        "id_low: bin of 3 bytes; 8 or 4 bytes expected",
    ),
    "huge-count": (
        packed(
            {"t": "batch", "seq": 1, "parts": [{"op": 1, "n": 2**63, "f": 4, "cols": {"id_low": b"a" * 9}}]}
        ),
        "id_low: bin of 9 bytes",
    ),
    "no-section": (packed({"t": "batch", "seq": 1, "parts": [7]}), "section is no map"),
    "digest": (
        packed({"t": "digest", "seq": 1, "shards": 3, "sums": b"", "counts": b""}),
        "2 shards: 0 bytes of sums, 0 of counts",
    ),
    "unknown-message": (packed({"t": "dance", "x": {"y": [1, None]}}), "a message that is not"),
    "oversize": (b"\x7f" * 64, "the limit is"),
    "empty": (bytes(4), "frame of 0 bytes"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_frame(tmp_path: Path, kind: str) -> None:
    """It gets an expert info, and what was before it is read."""
    data, what = MALFORMED[kind]
    pcap = on_wire(tmp_path, over_tcp(packed({"t": "beat"}) + data, 1400))
    (packet,) = layers(pcap, "flexha_sync")
    assert len(messages([packet], "beat")) == 1
    assert any(what in text for text in complaints(packet)), complaints(packet)


def test_every_truncation(tmp_path: Path) -> None:
    """Wherever a payload is cut, it is an expert info and no error of the script."""
    payload = msgpack.packb(
        {"t": "batch", "seq": 9, "parts": [{"op": 3, "n": 2, "f": 6, "cols": REST_OF_V6}]}
    )
    packets = [over_tcp(framed(payload[:n]), 1400)[0] for n in range(1, len(payload))]
    for i, packet in enumerate(packets):
        packet[TCP].dport = 40000 + i  # connections of their own
    shown = layers(on_wire(tmp_path, packets), "flexha_sync.bad_frame")
    assert len(shown) == len(packets)
    assert all(complaints(packet) for packet in shown)


HEARTBEAT = struct.pack(
    "!4sBBBBIIQQQIIQQQ",
    b"FXHB",
    heartbeat_wire.VERSION,
    1,
    3,
    9,
    7,
    50,
    5,
    4,
    77,
    150,
    9,
    1 << 40,
    6,
    1 << 63,
)
EXTENDED = HEARTBEAT + struct.pack("!QQQ", 12345, 6789, 1 << 62)


def test_heartbeat_that_the_receiver_drops(tmp_path: Path) -> None:
    """Cut short, of another magic or version; longer ones are fine."""
    assert len(HEARTBEAT) == heartbeat_wire.SIZE
    payloads = [HEARTBEAT[:-1], b"XXXX" + HEARTBEAT[4:], HEARTBEAT[:4] + b"\xff" + HEARTBEAT[5:]]
    fine = (HEARTBEAT + b"later", EXTENDED, EXTENDED + b"later")
    packets = [over_udp(payload, HEARTBEAT_PORT) for payload in (*payloads, *fine, b"")]
    shown = layers(on_wire(tmp_path, packets), "flexha_hb")
    assert [len(complaints(packet)) for packet in shown] == [1, 1, 1, 0, 0, 0]
    assert [one(packet, "flexha_hb.answers") for packet in shown[4:]] == ["12345", "12345"]
    assert [one(packet, "flexha_hb.heard") for packet in shown[4:]] == ["6789", "6789"]
    assert one(shown[3], "flexha_hb.mac") == "0x8000000000000000"
    assert one(shown[3], "flexha_hb.flags.ready") in {"1", "True"}


def geneve(option: bytes, protocol: int, inner: bytes) -> Packet:
    """RFC 8926: version 0, critical options present, VNI 0."""
    header = struct.pack("!BBHI", len(option) // 4, 0x40, protocol, 0)
    return over_udp(header + option + inner, GENEVE_PORT)


def conduit_option(
    direction: int, port: int, shard: int, flags: int, term: int, *, kind: int = 0x81, words: int = 2
) -> bytes:
    """As SYNC.md has it: class 0xFFF7, 8 bytes of data."""
    return struct.pack("!HBBBBBBI", 0xFFF7, kind, words, direction, port, shard, flags, term)


def test_conduit(tmp_path: Path) -> None:
    """Its option of Geneve, and the packet within; what its receiver drops says why."""
    inner = IP(src="192.0.2.10", dst="198.51.100.20") / UDP(sport=9, dport=1042) / Raw(b"hello")
    frame = bytes(Ether(src="02:00:00:00:00:09", dst=topo.WAN_VMAC) / inner)
    good = conduit_option(0, 1, 9, 0, 4)
    packets = [
        geneve(good, 0x6558, frame),
        geneve(conduit_option(1, 0, 63, 1, (1 << 32) - 1), 0x0800, bytes(inner)),
        geneve(conduit_option(0, 1, 64, 0, 4), 0x6558, frame),
        geneve(conduit_option(0, 1, 9, 0, 4, kind=2), 0x6558, frame),
        geneve(conduit_option(0, 1, 9, 0, 4, words=1)[:8], 0x6558, frame),
        geneve(conduit_option(0, 1, 9, 0, 4, words=31), 0x6558, frame),
        geneve(conduit_option(2, 1, 9, 0, 4), 0x6558, frame),
        geneve(good, 0x6558, frame[:20]),
        over_udp(b"\0\0\0", GENEVE_PORT),
    ]
    shown = layers(on_wire(tmp_path, packets), f"udp.port == {GENEVE_PORT}")
    assert len(shown) == len(packets)
    for packet, values in zip(shown, ("0 1 9 0 4", f"1 0 63 1 {(1 << 32) - 1}"), strict=False):
        tree = one(packet, "flexha_conduit")
        said = [
            str(one(tree, f"flexha_conduit.{name}"))
            for name in ("direction", "port", "shard", "fragment", "term")
        ]
        assert " ".join(said).replace("True", "1").replace("False", "0") == values
    assert all("198.51.100.20" in list(find(packet, "ip.dst")) for packet in shown[:4])
    ours = [[text for text in complaints(packet) if "option" in text] for packet in shown]
    assert ours[0] == ours[1] == ours[7] == ours[8] == []
    assert ours[2] == ["option: shard 64 of 64"]
    assert ours[3] == ["option type 0x02 of 8 bytes; 0x81 of 8 expected"]
    assert ours[4] == ["option type 0x81 of 4 bytes; 0x81 of 8 expected"]
    assert "the option is cut off" in ours[5]
    assert ours[6] == ["option: direction 2"]
