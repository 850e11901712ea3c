# SPDX-License-Identifier: Apache-2.0
"""``flexhactl`` against a real control socket: tables, JSON, exit codes, and what it says when it fails."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flexha.cli import client, render
from flexha.cli.main import main
from flexha.cli.render import duration
from flexha.core.actions import Reply
from flexha.core.events import Event, OperatorAsked
from flexha.shell.control import Control, RequestError
from flexha.shell.counters import Counters

SYNC: dict[str, Any] = {
    "connected": True,
    "state": "sending",
    "stream": "1f/4",
    "sent_seq": 4711,
    "acked_seq": 4710,
    "received_seq": 0,
    "pending": 1,
    "pending_bytes": 8192,
    "bulk": {"in_progress": True, "sent": 1, "synced": False},
    "sweep": {"shards": 64, "repairs": 0, "done": 42, "total": 100, "percent": 42.0},
    "audit": {
        "in_sync": True,
        "agreed_at": 9.0,
        "age_s": 0.4,
        "differing": [],
        "repaired": 3,
        "unrepaired": [],
    },
    "lost_shards": 0,
    "committing": True,
    "commit": {
        "mode": "bounded",
        "on": True,
        "degraded": True,
        "degraded_times": 1,
        "unacked_sessions": 2,
        "held_sessions": 17,
        "held_frames": 19,
        "held_bytes": 1234,
        "released": 5,
        "expired": 6,
        "full": 7,
        "dropped": 8,
        "unheld": 9,
    },
    "queued": {"now": 21, "lazy": 22},
    "told": {"open": 31, "state": 32, "rest": 33, "delete": 34},
    "repaired_records": 2,
    "import_unknown": 0,
    "scrub_errors": 0,
    "lag_ms": {"count": 5000, "p50": 0.512, "p99": 2.435},
    "hold_ms": {"count": 0, "p50": None, "p99": None},
    "bytes_sent": 65536,
    "bytes_received": 1024,
    "unsent_bytes": 0,
    "refused": None,
    "tls": {"peer": "c0ffee", "ends": "2036-01-01T00:00:00Z", "ends_s": 2082758400.0},
}
READINESS: dict[str, Any] = {
    "lossless": False,
    "pair": "lab",
    "node": "a",
    "role": "ACTIVE",
    "peer": {"alive": True, "role": "PASSIVE", "ready": True},
    "agreed_s": 0.7,
    "commit": "async",
    "reasons": [{"code": "differ", "text": "the tables differ in shards 3, a repair is under way"}],
    "warnings": [{"code": "async", "text": "commit is async"}],
    "sessions": {
        "total": 1000,
        "live": 900,
        "waiting": 2,
        "die": 98,
        "exact": False,
        "why": [
            {"code": "pool", "name": "own", "sessions": 98, "text": "pool own is on an address of this node"}
        ],
    },
}
STATUS: dict[str, Any] = {
    "pair": "lab",
    "node": "a",
    "role": "active",
    "term": 4,
    "since_s": 93784.0,
    "ready": False,
    "peer": {
        "alive": True,
        "role": "passive",
        "term": 4,
        "ready": True,
        "paths": {
            "xc": {"alive": True, "last_heard_ms": 12.5, "sent": 9, "received": 8, "lost": 1, "bad": 0}
        },
    },
    "vrrp": [
        {
            "port": "wan",
            "vrid": 52,
            "state": "ACTIVE",
            "priority": 150,
            "vips": ["203.0.113.3"],
            "vmac": "00:00:5e:00:01:34",
            "adver_int_cs": 100,
            "active_router": "203.0.113.4",
        }
    ],
    "sync": SYNC,
    "flows": {"flows": 1000, "mappings": 900, "tombstones": 0, "capacity": 131072},
    "ports": [{"name": "wan", "up": True, "mac": "02:00:00:00:00:01", "address": "203.0.113.4/29"}],
    "version": "0.1.0",
    "uptime_s": 59.0,
}
SESSION = {
    "form": "snat",
    "proto": "tcp",
    "state": "established",
    "inside": "198.51.100.10:40000",
    "remote": "192.0.2.10:80",
    "external": "203.0.113.3:50000",
    "remaining_ms": 7200000,
    "packets": [10, 12],
    "bytes": [1000, 20000],
    "rule": 0,
    "rule_name": "default",
    "inbound": False,
    "hairpin": False,
    "reset": False,
    "imported": True,
    "held": True,
    "fate": "unacked",
}
COUNTERS = {
    "verdicts": {
        "snat": {"value": 5, "help": "translated, sent", "drop": False},
        "syn_check": {"value": 2, "help": "no session", "drop": True},
        "ttl": {"value": 0, "help": "expired", "drop": True},
    },
    "workers": [{"steps": 3, "frames": 0}],
    "ports": {"wan": {"rx_frames": 7}},
    "control": {"fib.commits": 3},
}
HISTORY = {
    "events": [
        {
            "t_ms": 1.5,
            "wall": 1700000000.25,
            "node": "a",
            "event": "role",
            "to": "ACTIVE",
            "reason": "elected",
        }
    ]
}
RULES = {
    "rules": [
        {
            "number": 1,
            "name": "no-dns",
            "action": "deny",
            "hits": 1234,
            "from": ["inside"],
            "proto": ["udp"],
            "ports": ["53"],
            "log": True,
        },
        {"number": 2, "name": "bank", "action": "allow", "hits": 5, "commit": "strict"},
        {"number": 3, "name": "dns", "action": "allow", "hits": 6, "sync": "after 5"},
    ],
    "default": {"action": "allow-outbound", "hits": 77},
    "forwards": [
        {
            "name": "web",
            "pool": "vip",
            "proto": ["tcp"],
            "ports": ["80"],
            "to": "198.51.100.80",
            "to_port": 8080,
        }
    ],
}
POOLS = {
    "pools": [
        {
            "name": "own",
            "port": "wan",
            "address": "203.0.113.4",
            "port_lo": 1024,
            "port_hi": 9999,
            "in_use": {"tcp": 11, "udp": 22, "icmp": 33},
            "filtering": "address-dependent",
            "survives": False,
        }
    ]
}
RELOAD = {"rules": 3, "forwards": 1, "default": "deny", "closed": 1200, "reviewed": True}


WORKERS = {
    "poll_us": 50,
    "workers": [
        {
            "worker": 0,
            "cpu": 3,
            "busy": 0.125,
            "steps": 10,
            "frames": 320,
            "wakeups": 4,
            "polls": 7,
            "handed_on": 1,
            "taken_over": 2,
            "flows": 5,
            "flows_created": 6,
            "flows_expired": 1,
            "dirty": 0,
        }
    ],
}


class Daemon:
    """A control socket with canned answers, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[tuple[str, Mapping[str, object]]] = []
        self.reply = (True, "the peer reigns in term 5")
        handlers = {
            name: self._handler(name, answer)
            for name, answer in (
                ("status", STATUS),
                ("sessions", {"sessions": [SESSION], "count": 1, "truncated": False, "cursor": None}),
                ("counters", COUNTERS),
                ("workers", WORKERS),
                ("ha_history", HISTORY),
                ("ha_readiness", READINESS),
                ("rules", RULES),
                ("pools", POOLS),
                ("reload", RELOAD),
            )
        }
        self._control = Control(path, handlers, self._post, Counters())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def _handler(self, name: str, answer: object) -> Any:
        async def handle(args: Mapping[str, object]) -> str:
            self.requests.append((name, args))
            if args.get("proto") == "gopher":
                raise RequestError("proto: 'gopher' is unknown; use tcp")
            return json.dumps(answer)

        return handle

    def _post(self, event: Event) -> None:
        assert isinstance(event, OperatorAsked)
        self._control.reply(Reply(event.request, *self.reply))

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._control.start(), self._loop).result(5)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._control.stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    server = Daemon(tmp_path / "lab-a.sock")
    server.start()
    yield server
    server.stop()


class Run:
    """What a run of ``flexhactl`` left."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def flexhactl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object) -> Run:
    monkeypatch.setattr(sys, "argv", ["flexhactl", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        main()
    captured = capsys.readouterr()
    return Run(int(caught.value.code or 0), captured.out, captured.err)


@pytest.fixture
def ctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *words: flexhactl(capsys, monkeypatch, *words)


# ---- answers -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("words", [["status"], ["ha", "status"]])
def test_status_for_people(daemon: Daemon, ctl: Any, words: list[str]) -> None:
    """Spec: R25."""
    run = ctl("--socket", daemon.path, *words)
    assert run.code == 0
    for text in (
        "lab/a",
        "ACTIVE",
        "1d 2h 3m",
        "203.0.113.3",
        "00:00:5e:00:01:34",
        "1000 ms",
        "12.5",
        "PASSIVE",
    ):
        assert text in run.out


def test_status_says_what_has_to_be_mended_and_what_lasts() -> None:
    alarm = {"name": "xc-silent", "text": "the cross-connect is silent", "since_s": 62.0}
    page = Console(file=StringIO(), width=200)
    page.print(render.status({**STATUS, "role": "MAINTENANCE", "out_of_service": True, "alarms": [alarm]}))
    shown = page.file.getvalue()  # type: ignore[attr-defined]
    assert "the cross-connect is silent (for 1m 2s)" in shown
    assert "over restarts, until: flexhactl maintenance exit" in shown


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["status"], STATUS),
        (["ha", "status"], STATUS),
        (["counters"], COUNTERS),
        (["workers"], WORKERS),
        (["ha", "history"], HISTORY),
        (["sessions"], {"sessions": [SESSION], "count": 1, "truncated": False, "cursor": None}),
        (["rules"], RULES),
        (["pools"], POOLS),
        (["reload"], RELOAD),
        (["failover"], {"text": "the peer reigns in term 5"}),
        (["maintenance", "enter"], {"text": "the peer reigns in term 5"}),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_json_before_or_after_the_command(
    daemon: Daemon, ctl: Any, words: list[str], answer: object, before: bool
) -> None:
    """Spec: R25."""
    placed = ["--json", *words] if before else [*words, "--json"]
    run = ctl("--socket", daemon.path, *placed)
    assert run.code == 0
    assert json.loads(run.out) == answer


def test_sessions_for_people(daemon: Daemon, ctl: Any) -> None:
    options = ["--proto", "tcp", "--inside", "198.51.100.10", "--limit", 5]
    run = ctl("--socket", daemon.path, "sessions", *options)
    endpoints = ("198.51.100.10:40000", "203.0.113.3:50000")
    for text in (*endpoints, "tcp", "established", "2h", "peer", "unacked, waits", "1 sessions"):
        assert text in run.out
    assert daemon.requests == [("sessions", {"proto": "tcp", "inside": "198.51.100.10", "limit": 5})]


def test_scripts_get_all_sessions(daemon: Daemon, ctl: Any) -> None:
    ctl("--socket", daemon.path, "sessions", "--json")
    assert daemon.requests == [("sessions", {"limit": 100_000})]


def test_sync_for_people(daemon: Daemon, ctl: Any) -> None:
    """Spec: R25. What matters of sync is said in words."""
    out = ctl("--socket", daemon.path, "status").out
    for text in (
        "sending",
        "sent 4,711, acknowledged 4,710",
        "equal 0.4s ago; 3 shards repaired so far",
        "under way, 42 %",
        "31 opened, 32 changed, 33 refreshed, 34 ended",
        "17 sessions hold 19 packets",
        "6 packets left late",
        "8 packets dropped",
        "9 sessions not held",
        "the peer is slow",
        "half within 0.512 ms, 99 % within 2.435 ms (5,000)",
        "2 records repaired",
        "SHA-256 c0ffee, valid until 2036-01-01T00:00:00Z",
    ):
        assert text in out, text
    assert "news of sessions" not in out


def test_passive_does_not_show_what_it_sent_in_an_earlier_reign(
    daemon: Daemon, ctl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spec: R25."""
    monkeypatch.setitem(STATUS, "role", "PASSIVE")
    monkeypatch.setitem(SYNC, "received_seq", 12)
    out = ctl("--socket", daemon.path, "status").out
    assert "received 12" in out
    assert "sent 4,711" not in out


@pytest.mark.parametrize(
    ("audit", "text"),
    [
        ({"unrepaired": [5]}, "differ in shards 5, and repairs do not help"),
        ({"differing": [5, 6]}, "differ in shards 5, 6, a repair is under way"),
        ({"in_sync": False}, "have not been found equal yet"),
    ],
)
def test_tables_that_differ_are_said(
    daemon: Daemon, ctl: Any, monkeypatch: pytest.MonkeyPatch, audit: dict[str, object], text: str
) -> None:
    """Spec: B5."""
    monkeypatch.setitem(SYNC, "audit", {**SYNC["audit"], **audit})
    assert text in ctl("--socket", daemon.path, "status").out


def test_readiness_is_a_no(daemon: Daemon, ctl: Any) -> None:
    """Spec: B5."""
    run = ctl("--socket", daemon.path, "ha", "readiness")
    assert run.code == 1
    for text in (
        "loses sessions",
        "lab/a, ACTIVE",
        "0.7s ago",
        "1,000: 900 live on, at least 98 would die, 2 wait",
        "differ in shards 3",
        "98 sessions: pool own",
        "commit is async",
    ):
        assert text in run.out, text
    assert daemon.requests == [("ha_readiness", {})]
    assert json.loads(ctl("--socket", daemon.path, "ha", "readiness", "--json").out) == READINESS


def test_readiness_is_a_yes(daemon: Daemon, ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spec: B5."""
    monkeypatch.setitem(READINESS, "lossless", True)
    run = ctl("--socket", daemon.path, "ha", "readiness")
    assert run.code == 0
    assert "loses nothing" in run.out


def test_readiness_lists_sessions(daemon: Daemon, ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spec: B5."""
    listed = [{**SESSION, "why": "pool", "why_name": "own"}]
    monkeypatch.setitem(READINESS, "listed", listed)
    monkeypatch.setitem(READINESS, "truncated", True)
    out = ctl("--socket", daemon.path, "ha", "readiness", "--sessions", "--limit", 5).out
    for text in ("pool", "own", "198.51.100.10:40000", "more would die"):
        assert text in out, text
    ctl("--socket", daemon.path, "ha", "readiness", "--sessions", "--json")
    assert daemon.requests == [
        ("ha_readiness", {"sessions": True, "limit": 5}),
        ("ha_readiness", {"sessions": True, "limit": 100_000}),
    ]


def test_sessions_counted(daemon: Daemon, ctl: Any) -> None:
    run = ctl("--socket", daemon.path, "sessions", "--count")
    assert run.out == "1\n"
    assert daemon.requests == [("sessions", {"count_only": True})]


def test_counters_leave_zeros_out_unless_asked(daemon: Daemon, ctl: Any) -> None:
    short = ctl("--socket", daemon.path, "counters").out
    assert "syn_check" in short
    assert "ttl" not in short
    assert "ttl" in ctl("--socket", daemon.path, "counters", "--all").out


def test_history_for_people(daemon: Daemon, ctl: Any) -> None:
    out = ctl("--socket", daemon.path, "ha", "history", "--limit", 9).out
    assert "2023-11-14 22:13:20.250" in out
    assert "reason=elected" in out
    assert daemon.requests == [("ha_history", {"limit": 9})]


def test_rules_for_people(daemon: Daemon, ctl: Any) -> None:
    """Spec: R11, R25."""
    out = ctl("--socket", daemon.path, "rules").out
    for text in ("no-dns", "deny", "1,234", "udp", "allow-outbound", "77", "web", "198.51.100.80:8080"):
        assert text in out
    assert "strict" in out
    assert "after 5" in out


def test_pools_for_people(daemon: Daemon, ctl: Any) -> None:
    """Spec: R11. Which pools survive a failover is seen."""
    out = ctl("--socket", daemon.path, "pools").out
    for text in ("own", "203.0.113.4", "1024-9999", "11", "22", "33", "address-dependent", "no"):
        assert text in out


def test_reload_says_what_it_closed(daemon: Daemon, ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ctl("--socket", daemon.path, "reload").out
    assert out == "3 rules, 1 forwards, default deny in force; 1,200 sessions closed\n"
    monkeypatch.setitem(RELOAD, "reviewed", False)
    assert "when this node becomes ACTIVE" in ctl("--socket", daemon.path, "reload").out


# ---- refusals ----------------------------------------------------------------------------------------------
def test_a_daemon_that_says_no(daemon: Daemon, ctl: Any) -> None:
    daemon.reply = (False, "the peer is not ready; wait for its sync")
    run = ctl("--socket", daemon.path, "failover")
    assert (run.code, run.err) == (1, "flexhactl: the peer is not ready; wait for its sync\n")
    assert ctl("--socket", daemon.path, "sessions", "--proto", "gopher").code == 1


@pytest.mark.parametrize(
    "words", [["reboot"], ["sessions", "--limit", "0"], ["maintenance", "leave"], ["status", "-x"]]
)
def test_bad_arguments(daemon: Daemon, ctl: Any, words: list[str]) -> None:
    assert ctl("--socket", daemon.path, *words).code == 2


def test_no_daemon(tmp_path: Path, ctl: Any) -> None:
    run = ctl("--socket", tmp_path / "none.sock", "status")
    assert run.code == 3
    assert "does flexhad run?" in run.err


def test_a_socket_that_nobody_serves(tmp_path: Path, ctl: Any) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    run = ctl("--socket", tmp_path / "dead.sock", "status")
    assert run.code == 3
    assert "Connection refused" in run.err


@pytest.mark.parametrize("answer", [b"", b"garbage\n"])
def test_a_server_that_speaks_something_else(tmp_path: Path, ctl: Any, answer: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "x.sock"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        run = ctl("--socket", tmp_path / "x.sock", "status")
        thread.join()
    assert run.code == 3
    assert "hung up" in run.err


def test_a_daemon_that_hangs(tmp_path: Path, ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "x.sock"))
        listener.listen()
        run = ctl("--socket", tmp_path / "x.sock", "status")
    assert run.code == 3
    assert "no answer within" in run.err


# ---- finding the socket ------------------------------------------------------------------------------------
def test_the_only_socket_of_the_machine_is_found(
    daemon: Daemon, ctl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RUN_DIR", daemon.path.parent)
    assert ctl("status").code == 0
    assert ctl("--node", "a", "status").code == 0
    run = ctl("--node", "b", "status")
    assert run.code == 3
    assert "no control socket in" in run.err


def test_several_sockets_need_a_choice(tmp_path: Path, ctl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x-a.sock", "x-b.sock"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / name))
    monkeypatch.setattr(client, "RUN_DIR", tmp_path)
    run = ctl("status")
    assert run.code == 3
    assert "choose one with --socket" in run.err


def test_the_socket_that_the_environment_names(
    daemon: Daemon, ctl: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "RUN_DIR", tmp_path)
    monkeypatch.setenv("FLEXHACTL_SOCKET", str(daemon.path))
    assert ctl("status").code == 0
    assert ctl("--node", "b", "status").code == 3  # an option is heard before the environment


def test_the_socket_that_the_configuration_names(daemon: Daemon, ctl: Any, tmp_path: Path) -> None:
    pair = (Path(__file__).resolve().parents[2] / "netns-lab" / "pair.toml").read_text()
    lines = [line for line in pair.splitlines() if not line.startswith("control =")]
    text = "\n".join(lines)
    for name, path in (("a", daemon.path), ("b", tmp_path / "b.sock")):
        text = text.replace(f"[nodes.{name}]", f'[nodes.{name}]\ncontrol = "{path}"')
    config = tmp_path / "pair.toml"
    config.write_text(text)
    assert ctl("--config", config, "--node", "a", "status").code == 0
    assert ctl("--config", config, "status").code == 0  # only one of the two is there
    assert ctl("--config", config, "--node", "b", "status").code == 3
    config.write_text("nonsense = 1")
    assert ctl("--config", config, "--node", "a", "status").code == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2s"), (59.9, "59.9s"), (60, "1m"), (3700, "1h 1m 40s"), (86400 * 2, "2d"), (None, "-")],
)
def test_durations(seconds: object, text: str) -> None:
    assert duration(seconds) == text
