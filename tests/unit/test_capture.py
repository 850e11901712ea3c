# SPDX-License-Identifier: Apache-2.0
"""``flexhactl capture`` from the fast path to the file: a real node, in memory, behind a real socket."""

from __future__ import annotations

import asyncio
import ctypes
import io
import json
import random
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import packets
import pytest
from nat_node import NatNode, nat_node
from packets import ACK, ICMP, LAN, SYN, TCP, UDP, WAN, Packet
from scapy.layers.inet import IP
from scapy.utils import RawPcapNgReader

from flexha.cli import pcap_filter
from flexha.cli.capture import Names, parse
from flexha.cli.frame_line import describe
from flexha.cli.main import main
from flexha.cli.pcap_filter import FilterError, compile_filter
from flexha.config.derive import NodePlan
from flexha.fastpath import CaptureConfig, FastpathError, Source, verdict_table
from flexha.shell import capture_io
from flexha.shell.capture_io import CaptureIo
from flexha.shell.control import Control
from flexha.shell.counters import Counters

SNAPLEN = 65600
CLIENT, SERVER = packets.CLIENTS[0], packets.SERVERS[0]
CONNECT = Packet(TCP, CLIENT, SERVER, 40000, 80, flags=SYN)
STRAY = Packet(TCP, SERVER, packets.WAN_VIP, 80, 4444, flags=ACK)
HEAD: dict[str, Any] = {
    "ports": [{"name": "lan"}, {"name": "wan"}],
    "verdicts": [verdict.name for verdict in verdict_table()],
    "drops": [verdict.name for verdict in verdict_table() if verdict.drop],
    "wall_offset_ns": 0,
}


# ---- the fast path -----------------------------------------------------------------------------------
@pytest.fixture
def node() -> Iterator[NatNode]:
    with nat_node() as node:
        yield node


def drained(node: NatNode) -> list[tuple[str, str, bytes]]:
    """Port and direction, comment and bytes of each frame."""
    names = Names(HEAD)
    return [
        (f"{names.port(side.port)} {'in' if side.inbound else 'out'}", side.comment, side.data)
        for packet in parse(node.fastpath.drain_capture(0), names)
        for side in packet.sides
    ]


def test_both_sides_of_a_translation(node: NatNode) -> None:
    node.fastpath.start_capture(CaptureConfig(SNAPLEN))
    seen = node.send(CONNECT)
    node.receive(seen.reply(flags=SYN | ACK, ack=1))
    sent, translated, answer, delivered = drained(node)
    assert (sent[0], sent[1]) == ("lan in", "snat → out wan, worker 0, id 0")
    assert (translated[0], translated[1]) == ("wan out", "snat ← in lan, worker 0, id 0")
    assert (answer[0], delivered[0]) == ("wan in", "lan out")
    assert "reverse" in answer[1]
    assert sent[2] == CONNECT.from_lan()
    assert packets.parse(translated[2]) == seen
    assert packets.parse(delivered[2]).dst == CLIENT


def test_the_end_of_what_does_not_leave(node: NatNode) -> None:
    node.fastpath.start_capture(CaptureConfig(SNAPLEN))
    node.inbound(STRAY)
    node.step(packets.arp_request(CLIENT, packets.LAN_VIP), LAN)
    node.step(packets.arp_request(CLIENT, packets.CLIENTS[1]), LAN)
    bad = packets.VMACS[LAN].join([packets.ISP_MAC, b"\x08\0" + STRAY.ip()])
    node.fastpath.test_step([bad], port=LAN, now_ns=node.now_ns, source=Source.HOST)
    dropped, asked, told, local, of_host = drained(node)
    assert dropped[:2] == ("wan in", "dropped: no_session, worker 0, id 0")
    assert asked[1] == "arp_vip → out lan, worker 0, id 1"
    assert told[0] == "lan out"
    assert local[1] == "host_arp, worker 0, id 2"
    assert of_host[:2] == ("lan out", "host, dropped: host_vmac, worker 0, id 3")


def test_ports_verdicts_and_snaplen(node: NatNode) -> None:
    numbers = {name: number for number, name in enumerate(HEAD["verdicts"])}
    wanted = CaptureConfig(60, ports=frozenset({WAN}), verdicts=frozenset({numbers["no_session"]}))
    node.fastpath.start_capture(wanted)
    node.send(CONNECT)
    node.inbound(STRAY)
    ((where, comment, data),) = drained(node)
    assert where == "wan in"
    assert comment.startswith("dropped: no_session")
    assert len(data) == len(STRAY.from_wan()) < 60
    with pytest.raises(FastpathError, match="already"):
        node.fastpath.start_capture(wanted)
    node.fastpath.stop_capture()
    node.inbound(STRAY)
    assert drained(node) == []
    node.fastpath.free_capture()
    node.fastpath.start_capture(CaptureConfig(20))
    node.inbound(STRAY)
    assert [len(data) for _, _, data in drained(node)] == [20]


def test_a_full_ring_loses_and_counts(node: NatNode) -> None:
    node.fastpath.start_capture(CaptureConfig(SNAPLEN))
    frame = Packet(UDP, SERVER, packets.WAN_VIP, 80, 4444, payload=bytes(1400)).from_wan()
    for _ in range(60):
        node.fastpath.test_step([frame] * 64, port=WAN, now_ns=node.now_ns)
    lost = node.fastpath.capture_lost()
    taken = 0
    while records := node.fastpath.drain_capture(0):
        taken += sum(1 for _ in parse(records, Names(HEAD)))
    assert lost > 0
    assert taken + lost == 60 * 64


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (b"\0" * 8, "instruction 0: does not end with a return"),
        (bytes([0xFF, 0, 0, 0, 0, 0, 0, 0]), "instruction 0: unknown instruction"),
        (bytes([5, 0, 0, 0, 255, 255, 255, 255]), "backwards"),
    ],
)
def test_a_bad_program_is_refused(node: NatNode, program: bytes, text: str) -> None:
    with pytest.raises(FastpathError, match=text):
        node.fastpath.start_capture(CaptureConfig(SNAPLEN, program=program))


# ---- filters -----------------------------------------------------------------------------------------
EXPRESSIONS = (
    "host 192.0.2.10",
    "src 198.51.100.10 and tcp port 80",
    "net 198.51.100.0/24 and not arp",
    "tcp[tcpflags] & (tcp-syn|tcp-ack) == tcp-syn",
    "udp portrange 50-60 or icmp[icmptype] == icmp-echo",
    "ip[8] < 3 or greater 100",
    "ip[2:2] - ((ip[0] & 0xf) << 2) % 7 != len / 3",
    "ether host 02:00:00:00:00:10 and (ip6 or vlan or ip)",
    "arp",
)


class _Header(ctypes.Structure):
    _fields_ = (
        ("seconds", ctypes.c_long),
        ("micros", ctypes.c_long),
        ("caplen", ctypes.c_uint32),
        ("len", ctypes.c_uint32),
    )


def libpcap_says(program: bytes, frame: bytes) -> bool:
    """What pcap_offline_filter() makes of it."""
    lib = ctypes.CDLL(pcap_filter.LIBRARIES[0])
    code = ctypes.create_string_buffer(program)
    compiled = pcap_filter._Program(len(program) // 8, ctypes.cast(code, ctypes.c_void_p))
    header = _Header(0, 0, len(frame), len(frame))
    return bool(lib.pcap_offline_filter(ctypes.byref(compiled), ctypes.byref(header), frame))


def some_frames() -> list[bytes]:
    made = random.Random(7)
    whole = [
        CONNECT.from_lan(),
        STRAY.from_wan(),
        Packet(UDP, CLIENT, SERVER, 5353, 53, payload=bytes(200)).from_lan(),
        Packet(ICMP, CLIENT, SERVER, 9, ttl=2).from_lan(),
        packets.arp_request(CLIENT, packets.LAN_VIP),
        made.randbytes(60),
    ]
    return whole + [frame[: made.randrange(14, len(frame))] for frame in whole for _ in range(4)]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_filters_mean_what_libpcap_means(node: NatNode, expression: str) -> None:
    program = compile_filter(expression)
    frames = some_frames()
    expected = [frame for frame in frames if libpcap_says(program, frame)]
    node.fastpath.set_role(2, 4)  # PASSIVE: nothing leaves, so that only what was received can match
    node.fastpath.start_capture(CaptureConfig(SNAPLEN, program=program))
    for frame in frames:
        node.fastpath.test_step([frame], port=LAN, now_ns=node.now_ns)
    assert [data for where, _, data in drained(node) if where == "lan in"] == expected
    assert expected


def test_a_filter_matches_either_side(node: NatNode) -> None:
    node.fastpath.start_capture(CaptureConfig(SNAPLEN, program=compile_filter(f"src host {packets.WAN_VIP}")))
    node.send(CONNECT)
    node.step(packets.arp_request(CLIENT, packets.LAN_VIP), LAN)
    assert [where for where, _, _ in drained(node)] == ["lan in", "wan out"]


@pytest.mark.parametrize(
    ("expression", "text"),
    [("host host", "see pcap-filter"), ("udp\0", "NUL"), ("ip host no.such.host.invalid", "see pcap-filter")],
)
def test_a_bad_expression_is_refused(expression: str, text: str) -> None:
    with pytest.raises(FilterError, match=text):
        compile_filter(expression)


def test_without_libpcap_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pcap_filter, "LIBRARIES", ("libpcap.so.none",))
    assert compile_filter("  ") == b""
    with pytest.raises(FilterError, match=r"install libpcap0\.8"):
        compile_filter("udp")


# ---- a frame in words --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (CONNECT.from_lan(), "198.51.100.10.40000 > 192.0.2.10.80: tcp S"),
        (STRAY.from_wan(), "192.0.2.10.80 > 203.0.113.3.4444: tcp ."),
        (Packet(ICMP, CLIENT, SERVER, 9).from_lan(), "198.51.100.10 > 192.0.2.10: icmp echo request id 9"),
        (packets.arp_request(CLIENT, packets.LAN_VIP), "arp who-has 198.51.100.1 tell 198.51.100.10"),
        (b"\1" * 20, "01:01:01:01:01:01 > 01:01:01:01:01:01: ethertype 0x0101"),
        (CONNECT.from_lan()[:20], "[cut]"),
        (CONNECT.from_lan()[:35], "198.51.100.10 > 192.0.2.10: tcp"),
        (b"", "[cut]"),
    ],
)
def test_frames_in_words(frame: bytes, text: str) -> None:
    assert describe(frame) == text


def test_no_frame_is_too_strange_for_words() -> None:
    made = random.Random(3)
    for kind in (b"\x08\0", b"\x08\x06", b"\x86\xdd"):
        for _ in range(500):
            assert describe(made.randbytes(12) + kind + made.randbytes(made.randrange(60)))


# ---- daemon and flexhactl ----------------------------------------------------------------------------
class Daemon:
    """A node without threads behind a control socket; traffic flows while somebody captures."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counters = Counters()
        self.idle = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._do(self._start())

    def _do(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _start(self) -> None:
        self._context = nat_node()
        self.node = self._context.__enter__()
        plugs = [
            SimpleNamespace(port=name, mac=packets.port_mac(0, port))
            for port, name in enumerate(("lan", "wan"))
        ]
        plan = SimpleNamespace(pair="lab", name="a", plugs=plugs, port_names=("lan", "wan"))
        self.captures = CaptureIo(self.node.fastpath, cast(NodePlan, plan), self.counters)
        self.control = Control(
            self.path, {"capture": self.captures.capture}, lambda _event: None, self.counters
        )
        await self.control.start()
        self._traffic = asyncio.create_task(self._flow())

    async def _flow(self) -> None:
        while True:
            if self.captures._running and not self.idle.is_set():
                self.node.send(CONNECT)
                self.node.inbound(STRAY)
            await asyncio.sleep(0.002)

    async def _stop(self) -> None:
        self._traffic.cancel()
        await self.control.stop()
        self._context.__exit__(None, None, None)

    def stop(self) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "lab-a.sock")
    yield daemon
    daemon.stop()


@pytest.fixture
def ctl(daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run ``flexhactl capture``: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        argv = ["flexhactl", "--socket", str(daemon.path), "capture", *map(str, words)]
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def test_to_a_file(ctl: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    code, out, err = ctl("--port", "wan", "host 192.0.2.10", "-w", path, "--count", 6)
    assert (code, out) == (0, "")
    assert "6 packets (9 frames) captured, 0 lost" in err
    with RawPcapNgReader(str(path)) as reader:
        read = list(reader)
    snat = [(IP(data[14:]).src, meta.ifname, meta.direction) for data, meta in read if b"snat" in _text(meta)]
    assert snat == [(str(CLIENT), b"lan", 1), (str(packets.WAN_VIP), b"wan", 2)] * 3
    assert sum(b"dropped: no_session" in _text(meta) for _, meta in read) == 3
    times = [(meta.tshigh << 32) + meta.tslow for _, meta in read]
    assert times == sorted(times)


def _text(meta: Any) -> bytes:
    return b"".join(meta.comments if hasattr(meta, "comments") else [meta.comment])


def test_lines_and_only_drops(ctl: Any) -> None:
    code, out, err = ctl("--drops", "-c", 2)
    assert code == 0
    first, second = out.splitlines()
    assert "wan in  192.0.2.10.80 > 203.0.113.3.4444: tcp ., length 54 [dropped: no_session" in first
    assert "no_session" in second
    assert "2 packets" in err


def test_json_lines_and_summary(ctl: Any) -> None:
    code, out, err = ctl("--json", "--verdict", "snat", "tcp", "and", "port", "80", "-c", 1)
    assert (code, err) == (0, "")
    received, sent, summary = map(json.loads, out.splitlines())
    assert (received["port"], received["direction"], received["verdict"]) == ("lan", "in", "snat")
    assert (sent["port"], sent["direction"], sent["id"]) == ("wan", "out", received["id"])
    assert summary == {"packets": 1, "frames": 2, "lost": 0}


def test_until_the_time_is_over(ctl: Any, daemon: Daemon) -> None:
    daemon.idle.set()
    assert ctl("--duration", 0.1, "--json") == (0, '{"packets": 0, "frames": 0, "lost": 0}\n', "")
    code, out, _ = ctl("--duration", 0.1, "-s", 20)  # and another one, at once
    assert (code, out) == (0, "")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--port", "wam"], 1, "ports: 'wam' is unknown; use wan"),
        (["--verdict", "no_sesion"], 1, "use no_session"),
        (["--verdict", "zzz"], 1, "flexhactl counters --all"),
        (["--snaplen", "0"], 1, "snaplen is 0; send a number in 1..65600"),
        (["--duration", "-1"], 1, "duration_s"),
        (["port"], 2, "see pcap-filter(7)"),
        (["-w", "/nowhere/x.pcapng"], 1, "choose another file with -w"),
    ],
)
def test_what_is_wrong_is_said(ctl: Any, words: list[str], code: int, text: str) -> None:
    assert (got := ctl(*words))[0] == code
    assert text in got[2]


class Client:
    """A connection of its own, which behaves badly."""

    def __init__(self, path: Path, **args: object) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(path))
        self.socket.sendall(json.dumps({"id": 1, "cmd": "capture", "args": args}).encode() + b"\n")
        self.stream = self.socket.makefile("rb")
        self.answer = json.loads(self.stream.readline())

    def close(self) -> None:
        self.stream.close()
        self.socket.close()


def test_one_capture_at_a_time_and_a_client_that_leaves_ends_it(daemon: Daemon, ctl: Any) -> None:
    client = Client(daemon.path)
    assert client.answer["ok"]
    client.stream.read(1)
    code, _, err = ctl("-c", 1)
    assert code == 1
    assert "running already (process" in err
    assert "end it first" in err
    client.close()
    for _ in range(100):
        if ctl("-c", 1)[0] == 0:
            break
    else:
        pytest.fail("the capture of a client that left goes on")


def test_a_slow_reader_costs_packets_not_memory(
    daemon: Daemon, ctl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture_io, "BACKLOG_BYTES", 1000)
    daemon.idle.set()
    client = Client(daemon.path)
    frame = Packet(UDP, SERVER, packets.WAN_VIP, 80, 4444, payload=bytes(1400)).from_wan()

    async def flood() -> None:
        for _ in range(200):
            daemon.node.fastpath.test_step([frame] * 64, port=WAN, now_ns=daemon.node.now_ns)
            await asyncio.sleep(0)

    daemon._do(flood())
    client.socket.shutdown(socket.SHUT_WR)
    received = client.stream.read()
    summary = json.loads(received[received.rindex(b'{"lost"') :])
    assert summary["lost"] > 1000
    packets_read = 0
    stream = io.BytesIO(received)
    while (head := capture_io.FRAME.unpack(stream.read(capture_io.FRAME.size)))[0] != capture_io.END:
        packets_read += sum(1 for _ in parse(stream.read(head[0]), Names(client.answer["result"])))
    assert packets_read + summary["lost"] == 200 * 64
    client.close()
    assert daemon.counters.values()["capture.started"] == 1


def test_a_daemon_that_stops_ends_the_capture(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "lab-a.sock")
    client = Client(daemon.path)
    assert client.stream.read(1)
    daemon.stop()
    client.stream.read()  # comes to an end
    assert daemon.captures._running is None
    assert daemon.counters.values().get("control.failed", 0) == 0
    client.close()


def test_what_the_daemon_refuses(daemon: Daemon) -> None:
    for args, text in (
        ({"program": "!"}, "no base64"),
        ({"program": "AAAA"}, "no base64 of instructions"),
        ({"program": "AAAAAAAAAAA="}, "does not end with a return"),
        ({"ports": []}, "no list of names"),
        ({"ports": [7]}, "ports: 7 is unknown"),
        ({"drops": 1}, "no boolean"),
        ({"until": 1}, "unknown args until"),
    ):
        client = Client(daemon.path, **cast(Any, args))
        assert not client.answer["ok"]
        assert text in client.answer["error"]
        client.close()
