# SPDX-License-Identifier: Apache-2.0
"""``flexha.cli.pcapng``: golden bytes, and what others read in them."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import packets
import pytest
from packets import UDP, Packet
from scapy.layers.inet import IP
from scapy.utils import RawPcapNgReader

from flexha.cli.pcapng import Writer

T_NS = 1_700_000_000_123_456_789
IN = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], 5353, 53, payload=b"query").from_lan()
OUT = Packet(UDP, packets.WAN_VIP, packets.SERVERS[0], 5353, 53, payload=b"query").from_lan()


def written(**options: object) -> bytes:
    out = io.BytesIO()
    writer = Writer(
        out,
        [("lan", bytes.fromhex("020000000001")), ("wan", bytes.fromhex("020000000002"))],
        snaplen=65600,
        application="flexhactl 1",
        comment="pair lab, node a",
        capture_filter=str(options.get("capture_filter", "udp")),
    )
    writer.packet(
        0,
        T_NS,
        IN,
        len(IN),
        inbound=True,
        packet_id=7,
        queue=1,
        lost=0,
        comment="snat → out wan, worker 1, id 7",
    )
    writer.packet(
        1,
        T_NS + 1,
        OUT[:40],
        len(OUT),
        inbound=False,
        packet_id=7,
        queue=1,
        lost=3,
        comment="snat ← in lan, worker 1, id 7",
    )
    writer.statistics(0, T_NS, T_NS + 1, 1, "3 packets lost, of all ports")
    writer.flush()
    return out.getvalue()


def test_golden_bytes() -> None:
    """A section header as the draft has it: type, length, magic, version, unknown length, options."""
    data = written()
    assert data[:24] == bytes.fromhex("0a0d0d0a 44000000 4d3c2b1a 01000000 ffffffffffffffff")
    assert data[24:44] == bytes.fromhex("01001000") + b"pair lab, node a"
    assert data[44:60] == bytes.fromhex("04000b00") + b"flexhactl 1\0"
    assert data[60:68] == bytes.fromhex("00000000 44000000")


def test_scapy_reads_both_sides() -> None:
    with RawPcapNgReader(io.BytesIO(written())) as reader:
        (first, first_meta), (second, second_meta) = list(reader)
    assert IP(first[14:]).src == str(packets.CLIENTS[0])
    assert IP(second[14:]).src == str(packets.WAN_VIP)
    assert (first_meta.ifname, second_meta.ifname) == (b"lan", b"wan")
    assert (first_meta.direction, second_meta.direction) == (1, 2)
    assert "snat → out wan" in _text(first_meta)
    assert "snat ← in lan" in _text(second_meta)
    assert (second_meta.wirelen, len(second)) == (len(OUT), 40)
    assert (first_meta.tshigh << 32 | first_meta.tslow, first_meta.tsresol) == (T_NS, 1_000_000_000)


def _text(meta: Any) -> str:
    """Newer versions of scapy have a list of comments."""
    comments = meta.comments if hasattr(meta, "comments") else [meta.comment]
    return b"".join(comments).decode()


@pytest.mark.skipif(shutil.which("tshark") is None, reason="no tshark")
def test_tshark_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "t.pcapng"
    path.write_bytes(written())
    fields = (
        "frame.interface_name",
        "frame.time_epoch",
        "frame.comment",
        "frame.packet_flags_direction",
        "ip.src",
    )
    argv = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|"]
    for name in fields:
        argv += ["-e", name]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    first, second = (line.split("|") for line in done.stdout.splitlines())
    assert first[0] == "lan"
    assert first[1].startswith("1700000000.123456789")
    assert first[2] == "snat → out wan, worker 1, id 7"
    assert first[4] == str(packets.CLIENTS[0])
    assert (second[0], second[2]) == ("wan", "snat ← in lan, worker 1, id 7")
    assert (first[3], second[3]) == ("0x00000001", "0x00000002")
