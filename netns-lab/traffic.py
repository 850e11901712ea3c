# SPDX-License-Identifier: Apache-2.0
"""Real traffic through the pair: TCP connections, a UDP probe, an HTTP download; and what became of them.

``tcp_flows.c``, ``tcp_once.c`` and ``udp_probe.c`` are the generators (kernel stacks on both ends); the
download is nginx's and curl's. Each class here starts both ends in their hosts, tells how far they are, and
gives the figures.
"""

from __future__ import annotations

import array
import contextlib
import hashlib
import itertools
import json
import os
import secrets
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import topo
from sandbox import BUILD_DIR, Lab, LabError, Process, now_ns, wait_until

BIN_DIR = BUILD_DIR / "bin"
PROGRAMS = ("tcp_flows", "tcp_once", "udp_probe", "relay", "stall")
TCP_PORT = "7100"
UDP_PORT = "7000"
MISSING_TOLD = 10
PORTS_PER_ADDRESS = 100
FIRST_SOURCE_PORT = 20000
STALL_S = 5.0
"""A connection whose request waits longer has stalled (``STALL_NS`` in tcp_flows.c)."""
DOWNLOAD_BYTES = 20 << 20
DOWNLOAD_STALL_S = 20
"""curl gives up after so long without a byte."""
DOWNLOAD_S = 10.0
"""How long the download takes by nginx's limit_rate, so that it spans the failover."""


def compile_programs() -> None:
    """Compile generators and relay into ``build/lab/bin``, unless they are newer than their sources."""
    here = Path(__file__).parent
    BIN_DIR.mkdir(parents=True, exist_ok=True)
    headers = max(header.stat().st_mtime_ns for header in here.glob("*.h"))
    for program in PROGRAMS:
        source, binary = here / f"{program}.c", BIN_DIR / program
        newest = max(source.stat().st_mtime_ns, headers)
        if binary.exists() and binary.stat().st_mtime_ns > newest:
            continue
        flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror"]
        subprocess.run(["gcc", *flags, "-o", str(binary), str(source)], check=True)


class Generator:
    """A traffic program in a host; it speaks JSON lines on stdout and takes commands on stdin."""

    def __init__(self, lab: Lab, ns: str, argv: list[str]) -> None:
        stdin_reader, self._stdin = os.pipe()
        self.stdout, stdout_writer = os.pipe()
        try:
            self.process: Process = lab.spawn(ns, argv, stdin=stdin_reader, stdout=stdout_writer)
        finally:
            os.close(stdin_reader)
            os.close(stdout_writer)
        os.set_blocking(self.stdout, False)
        self._pending = b""
        self._what = f"{Path(argv[0]).name} in {ns}"
        self.last: dict[str, Any] = {}
        """The newest line."""

    def poll(self) -> dict[str, Any]:
        """Read what has come, and return the newest line ({} before the first)."""
        while select.select([self.stdout], [], [], 0)[0]:
            chunk = os.read(self.stdout, 1 << 16)
            if not chunk:
                if self.last.get("event") != "done":
                    raise LabError(f"{self._what} ended with {self.process.wait(5)} before its time")
                break
            *lines, self._pending = (self._pending + chunk).split(b"\n")
            for line in lines:
                self.last = json.loads(line)
        return self.last

    def wait_event(self, event: str, timeout_s: float) -> dict[str, Any]:
        """Wait for a line with this ``event``, and return it."""
        wait_until(
            lambda: self.poll().get("event") == event, timeout_s, f"{self._what} says {event!r} ({self.last})"
        )
        return self.last

    def command(self, word: str) -> None:
        """Write a line to its stdin."""
        os.write(self._stdin, word.encode() + b"\n")

    def terminate(self, timeout_s: float = 10) -> dict[str, Any]:
        """SIGTERM, then its last line."""
        self.process.signal(signal.SIGTERM)
        return self.wait_event("done", timeout_s)

    def close(self) -> None:
        """Kill it if it still runs, and free the pipes."""
        self.process.close()
        os.close(self._stdin)
        os.close(self.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# ---- TCP -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TcpResult:
    """What became of the connections, as both ends saw it; the words are those of tcp_flows.c."""

    opened: int
    survived: int
    reset: int
    stalled: int
    corrupt: int
    foreign: int
    """Connections that reached the server by another 4-tuple than the first one."""
    translated: int
    latency_max_ms: float
    sources: tuple[str, ...]
    response_ns: array.array[int]
    """CLOCK_BOOTTIME of each response."""


class TcpFlows:
    """Connections from ten addresses that share their source ports, request and response at a steady rate."""

    def __init__(
        self, lab: Lab, run: int, *, flows: int = 1000, per_s: int = 4, port: str = TCP_PORT
    ) -> None:
        ports = flows // len(topo.CLIENT_ADDRESSES)
        # Fresh source ports in each run: the last run's connections are in the client's TIME_WAIT.
        first_port = FIRST_SOURCE_PORT + run % 400 * PORTS_PER_ADDRESS
        self.flows = ports * len(topo.CLIENT_ADDRESSES)
        self._lab = lab
        self._log = f"/run/tcp-{run}.log"
        if lab.path(self._log).exists():
            raise LabError(f"run {run} was in this lab before: its source ports are in TIME_WAIT")
        program = str(BIN_DIR / "tcp_flows")
        self._server = Generator(lab, "server", [program, "server", topo.SERVER_ADDRESS, port])
        self._server.wait_event("listening", 5)
        argv = [program, "client", topo.SERVER_ADDRESS, port, topo.CLIENT_ADDRESSES[0]]
        argv += [str(len(topo.CLIENT_ADDRESSES)), str(first_port), str(ports), str(per_s), self._log]
        self._client = Generator(lab, "client", argv)

    def progress(self) -> dict[str, Any]:
        """The client's newest line: opened, failed, reset, stalled, responses, rounds, recovered, ..."""
        return self._client.poll()

    def wait_open(self, timeout_s: float = 30) -> None:
        """Wait until every connection stands and has had two responses."""

        def steady() -> bool:
            progress = self.progress()
            if progress.get("failed"):
                raise LabError(f"{progress['failed']} of {self.flows} connections could not be opened")
            return int(progress.get("rounds", 0)) >= 2

        wait_until(steady, timeout_s, f"{self.flows} connections stand: {self.progress()}")

    def mark(self) -> None:
        """From now on, count the connections that get an answer to a new request (``recovered``)."""
        self._client.command("mark")

    def recovered(self) -> bool:
        """Has every connection that was not lost had a request answered that was sent after the mark?"""
        progress = self.progress()
        return int(progress["recovered"]) + int(progress["reset"]) + int(progress["stalled"]) >= self.flows

    def finish(self) -> TcpResult:
        """Let outstanding requests be answered, close all connections, and collect both ends' figures."""
        self._client.command("stop")
        done = self._client.wait_event("done", STALL_S + 10)
        self._client.process.wait(5)
        served = self._server.terminate()
        times = array.array("Q")
        times.frombytes(self._lab.path(self._log).read_bytes())
        return TcpResult(
            opened=done["opened"],
            survived=done["survived"],
            reset=done["reset"],
            stalled=done["stalled"],
            corrupt=done["corrupt"] + served["corrupt"],
            foreign=served["foreign"],
            translated=served["translated"],
            latency_max_ms=done["latency_max_ms"],
            sources=tuple(served["sources"]),
            response_ns=times,
        )

    def close(self) -> None:
        """Kill both ends."""
        self._client.close()
        self._server.close()


@dataclass(frozen=True, slots=True)
class ShortResult:
    """What became of short connections, as both ends saw it; the words are those of tcp_once.c."""

    begun: int
    survived: int
    lost: int
    lost_in: dict[str, int]
    """By how far they had come: ``connect``, ``answer``, ``close``."""
    refused: int
    corrupt: int
    repeated: int
    """Connections on which the client's kernel sent something again."""
    repeats_max: int
    begun_ms: int
    """From the first to the last."""
    accepted: int
    answered: int
    closed: int
    second: int
    """Connections that reached the server by a second connection: there must be none."""
    translated: int
    sources: tuple[str, ...]


class ShortConns:
    """Connections that are used once: connect, one request, one answer, close; nothing is tried again."""

    def __init__(self, lab: Lab, port: int, first_port: int, *, conns: int, per_s: int = 0) -> None:
        program = str(BIN_DIR / "tcp_once")
        self._server = Generator(lab, "server", [program, "server", topo.SERVER_ADDRESS, str(port)])
        try:
            self._server.wait_event("listening", 5)
            argv = [program, "client", topo.SERVER_ADDRESS, str(port), topo.CLIENT_ADDRESSES[0]]
            argv += [str(len(topo.CLIENT_ADDRESSES)), str(first_port), str(conns), str(per_s)]
            self._client = Generator(lab, "client", argv)
        except BaseException:
            self._server.close()
            raise

    def progress(self) -> dict[str, Any]:
        """The client's newest line: begun, open, connected, answered, survived, lost, ..."""
        return self._client.poll()

    def end(self, within_s: float) -> None:
        """Begin no more; those that have begun get so long."""
        if self.progress().get("event") != "done":
            with contextlib.suppress(BrokenPipeError):  # it has ended meanwhile: all went through
                self._client.command(f"end {within_s * 1000:.0f}")

    def finish(self, timeout_s: float) -> ShortResult:
        """Wait for the client's end, and collect both ends' figures."""
        done = self._client.wait_event("done", timeout_s)
        self._client.process.wait(5)
        served = self._server.terminate()
        return ShortResult(
            begun=done["begun"],
            survived=done["survived"],
            lost=done["lost"],
            lost_in=done["lost_in"],
            refused=done["refused"],
            corrupt=done["corrupt"] + served["corrupt"],
            repeated=done["repeated"],
            repeats_max=done["repeats_max"],
            begun_ms=done["begun_ms"],
            accepted=served["accepted"],
            answered=served["answered"],
            closed=served["closed"],
            second=served["second"],
            translated=served["translated"],
            sources=tuple(served["sources"]),
        )

    def close(self) -> None:
        """Kill both ends."""
        self._client.close()
        self._server.close()


# ---- UDP -------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Order:
    """What a direction did to a sequence of numbers."""

    lost: int
    duplicated: int
    reordered: int
    """Numbers that came after a higher one."""
    missing: tuple[int, ...]
    """The first of those that were lost."""


def order_of(sent: set[int], came: Sequence[int]) -> Order:
    """``came``: numbers as they arrived."""
    seen: set[int] = set()
    duplicated = reordered = 0
    highest = -1
    for seq in came:
        if seq in seen:
            duplicated += 1
            continue
        seen.add(seq)
        reordered += seq < highest
        highest = max(highest, seq)
    lost = sorted(sent - seen)
    return Order(len(lost), duplicated, reordered, tuple(lost[:MISSING_TOLD]))


@dataclass(frozen=True, slots=True)
class UdpResult:
    """What the receiver saw of the probe, and the sender of the echoes."""

    sent: int
    received: int
    there: Order
    echoes: Order
    """Of what the receiver sent back."""
    foreign: int
    gap_ms: float
    """The longest time without an arrival, from the first one until sending ended: long for a flow that never
    comes back."""
    gap_from_ns: int
    echo_gap_ms: float
    """Likewise of the echoes."""
    sources: tuple[str, ...]
    arrival_ns: array.array[int]
    echo_ns: array.array[int]

    @property
    def lost(self) -> int:
        """Datagrams that never came to the receiver."""
        return self.there.lost


def longest_gap(times_ns: Sequence[int], from_ns: int, until_ns: int) -> tuple[float, int]:
    """The longest time without an arrival, in ms, and when it began.

    Of a flow that began before ``from_ns``, and was sent until ``until_ns`` at least. Its first packets may
    have to wait for neighbours: time counts from the first arrival, or from ``from_ns`` if there is none.
    """
    marks = [*(times_ns or (from_ns,)), *([until_ns] if not times_ns or times_ns[-1] < until_ns else [])]
    gap_ns, gap_from_ns = max(
        ((after - before, before) for before, after in itertools.pairwise(marks)), default=(0, 0)
    )
    return gap_ns / 1e6, gap_from_ns


class UdpProbe:
    """A datagram every millisecond from client to server, echoed."""

    def __init__(self, lab: Lab, run: int, *, interval_us: int = 1000) -> None:
        self._lab = lab
        port = str(FIRST_SOURCE_PORT + run)
        self.source = f"{topo.PROBE_ADDRESS}:{port}"
        """Where it comes from, as a node lists it."""
        self._logs = (f"/run/udp-server-{run}.log", f"/run/udp-client-{run}.log")
        program = str(BIN_DIR / "udp_probe")
        self._server = Generator(
            lab, "server", [program, "server", topo.SERVER_ADDRESS, UDP_PORT, self._logs[0]]
        )
        self._server.wait_event("listening", 5)
        argv = [program, "client", topo.PROBE_ADDRESS, port, topo.SERVER_ADDRESS]
        self._client = Generator(lab, "client", [*argv, UDP_PORT, str(interval_us), self._logs[1]])
        self._client.wait_event("sending", 5)
        self._from_ns = now_ns()

    def finish(self, since_ns: int = 0) -> UdpResult:
        """Stop sending, wait for the last echoes, and collect both ends' figures.

        What was lost, doubled or out of order is told of the datagrams from ``since_ns`` on: the first ones
        of a flow may find that neighbours have yet to be asked for.
        """
        until_ns = now_ns()
        sent = self._client.terminate()
        served = self._server.terminate()
        arrivals, echoes = self._arrivals(self._logs[0]), self._arrivals(self._logs[1])
        first = min((seq for t_ns, seq in arrivals if t_ns >= since_ns), default=0)
        came = [seq for _, seq in arrivals if seq >= first]
        there = order_of(set(range(first, sent["sent"])), came)
        back = order_of(set(came), [seq for _, seq in echoes if seq >= first])
        times = array.array("Q", (t_ns for t_ns, _ in arrivals))
        echoed = array.array("Q", (t_ns for t_ns, _ in echoes))
        gap_ms, gap_from_ns = longest_gap(times, self._from_ns, until_ns)
        return UdpResult(
            sent=sent["sent"],
            received=len(arrivals),
            there=there,
            echoes=back,
            foreign=served["foreign"],
            gap_ms=gap_ms,
            gap_from_ns=gap_from_ns,
            echo_gap_ms=longest_gap(echoed, self._from_ns, until_ns)[0],
            sources=tuple(served["sources"]),
            arrival_ns=times,
            echo_ns=echoed,
        )

    def _arrivals(self, log: str) -> list[tuple[int, int]]:
        """``struct arrival`` of udp_probe.c: time (u64), sequence number (u32), padding."""
        words = array.array("I")
        words.frombytes(self._lab.path(log).read_bytes())
        return [(words[i] | words[i + 1] << 32, words[i + 2]) for i in range(0, len(words), 4)]

    def close(self) -> None:
        """Kill both ends."""
        self._client.close()
        self._server.close()


# ---- HTTP ------------------------------------------------------------------------------------------
NGINX_CONF = """\
user root root;
daemon off;
master_process off;
pid /run/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path /run/nginx-body;
    proxy_temp_path /run/nginx-proxy;
    fastcgi_temp_path /run/nginx-fastcgi;
    uwsgi_temp_path /run/nginx-uwsgi;
    scgi_temp_path /run/nginx-scgi;
    server {{
        listen {address}:80;
        root /run/www;
        limit_rate $arg_rate;
    }}
}}
"""


class WebServer:
    """nginx with one file of random bytes, sent at the rate that the address asks for."""

    def __init__(self, lab: Lab, log: Path) -> None:
        content = secrets.token_bytes(DOWNLOAD_BYTES)
        self.sha256 = hashlib.sha256(content).hexdigest()
        lab.path("/run/www").mkdir(exist_ok=True)
        lab.path("/run/www/file").write_bytes(content)
        config = NGINX_CONF.format(address=topo.SERVER_ADDRESS)
        lab.path("/run/nginx.conf").write_text(config)
        with log.open("wb") as stderr:
            self._process = lab.spawn(
                "server", ["nginx", "-e", "stderr", "-c", "/run/nginx.conf"], stderr=stderr, name="nginx"
            )

        def listening() -> bool:
            if self._process.poll() is not None:
                raise LabError(f"nginx ended:\n{log.read_text().strip()}")
            return lab.path("/run/nginx.pid").exists()

        wait_until(listening, 10, "nginx listens")

    def close(self) -> None:
        """Kill nginx."""
        self._process.close()


@dataclass(frozen=True, slots=True)
class DownloadResult:
    """``completed``: curl got every byte of one connection, without a retry; ``detail``: else why not."""

    completed: bool
    sha256_ok: bool
    detail: str


class Download:
    """One curl in the client host: ``DOWNLOAD_BYTES`` within ``seconds`` if nothing is in its way."""

    def __init__(self, lab: Lab, web: WebServer, run: int, *, seconds: float = DOWNLOAD_S) -> None:
        self._web = web
        self._target = lab.path(f"/run/download-{run}")
        url = f"http://{topo.SERVER_ADDRESS}/file?rate={DOWNLOAD_BYTES / seconds:.0f}"
        argv = ["curl", "--silent", "--show-error", "--fail", "--no-buffer"]
        argv += ["--speed-limit", "1", "--speed-time", str(DOWNLOAD_STALL_S)]
        self._errors = lab.path(f"/run/curl-{run}.log")
        with self._errors.open("wb") as stderr:
            argv += ["--interface", topo.PROBE_ADDRESS, "--output", f"/run/download-{run}", url]
            self._process = lab.spawn("client", argv, stderr=stderr)

    def bytes_done(self) -> int:
        """What curl has written so far."""
        try:
            return self._target.stat().st_size
        except FileNotFoundError:
            return 0

    def done(self) -> bool:
        """Has curl ended, one way or the other?"""
        return self._process.poll() is not None

    def finish(self, timeout_s: float = 60) -> DownloadResult:
        """Wait for its end, and check the file."""
        code = self._process.wait(timeout_s)
        size = self.bytes_done()
        digest = hashlib.sha256(self._target.read_bytes()).hexdigest() if size else ""
        self._target.unlink(missing_ok=True)
        detail = f"curl exit {code}, {size} of {DOWNLOAD_BYTES} bytes: {self._errors.read_text().strip()}"
        return DownloadResult(code == 0 and size == DOWNLOAD_BYTES, digest == self._web.sha256, detail)

    def close(self) -> None:
        """Kill curl if it still runs."""
        self._process.close()


@contextlib.contextmanager
def web_server(lab: Lab, log: Path) -> Iterator[WebServer]:
    """A web server for the block."""
    web = WebServer(lab, log)
    try:
        yield web
    finally:
        web.close()


# ---- all of it -------------------------------------------------------------------------------------
ROUNDS_BEFORE_FAULT = 6
"""Every connection has had so many answers: 1.5 s of steady traffic, and its session is an old one."""
DOWNLOADED_BEFORE_FAULT = 1 << 20


class Traffic:
    """The traffic of a failure: TCP connections, the UDP flow and a download, all of them old and steady."""

    def __init__(
        self,
        lab: Lab,
        web: WebServer,
        run: int,
        *,
        flows: int,
        download_s: float = DOWNLOAD_S,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        with contextlib.ExitStack() as stack:
            say(f"opening {flows:,} TCP connections")
            self.tcp = TcpFlows(lab, run, flows=flows)
            stack.callback(self.tcp.close)
            self.tcp.wait_open()
            say("TCP steady; starting the UDP flow and the download")
            self.udp = UdpProbe(lab, run)
            stack.callback(self.udp.close)
            wait_until(
                lambda: int(self.tcp.progress()["rounds"]) >= ROUNDS_BEFORE_FAULT, 30, "connections are old"
            )
            self.download = Download(lab, web, run, seconds=download_s)
            stack.callback(self.download.close)
            self._stack = stack.pop_all()

    def under_way(self) -> bool:
        """The download has come far, and not to its end."""
        if self.download.done():
            raise LabError(f"the download ended before the fault: {self.download.finish().detail}")
        return self.download.bytes_done() >= DOWNLOADED_BEFORE_FAULT

    def mark(self) -> None:
        """The fault is now: connections count as recovered once a later request has been answered."""
        self.tcp.mark()

    def rounds(self) -> int:
        """Answers that every connection has had."""
        return int(self.tcp.progress()["rounds"])

    def wait_rounds(self, more: int, timeout_s: float = 20) -> None:
        """Let every connection have so many more answers."""
        rounds = self.rounds() + more
        wait_until(lambda: self.rounds() >= rounds, timeout_s, f"every connection has {more} more answers")

    def finish(self, since_ns: int = 0) -> tuple[TcpResult, UdpResult, DownloadResult]:
        """Wait for the end of the download, stop the rest, and collect all figures (UDP: ``since_ns``)."""
        downloaded = self.download.finish()
        probed = self.udp.finish(since_ns)
        return self.tcp.finish(), probed, downloaded

    def close(self) -> None:
        """Kill what still runs."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def rate_per_ms(times_ns: array.array[int], from_ns: int, to_ns: int, bin_ms: int) -> list[float]:
    """Events per millisecond in bins of ``bin_ms`` over a window."""
    bins = [0] * max(1, (to_ns - from_ns) // (bin_ms * 1_000_000))
    for t_ns in times_ns:
        index = (t_ns - from_ns) // (bin_ms * 1_000_000)
        if 0 <= index < len(bins):
            bins[index] += 1
    return [count / bin_ms for count in bins]
