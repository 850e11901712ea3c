# SPDX-License-Identifier: Apache-2.0
"""``flexhad``'s command line: exit codes and what is printed where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flexha.__main__ import main
from flexha.config.describe import rows
from flexha.errors import StartError
from flexha.shell import systemd

PAIR = Path(__file__).resolve().parents[2] / "netns-lab" / "pair.toml"


def test_check_shows_a_summary_without_the_secret(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", str(PAIR), "--check"]) == 0
    out = capsys.readouterr().out
    assert "the configuration is valid" in out
    assert "203.0.113.3" in out
    assert "5d1f0c6f" not in out


def test_check_says_that_a_single_node_has_no_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAIR.read_text()
    (tmp_path / "one.toml").write_text(text[: text.index("[nodes.b]")])
    assert main(["--config", str(tmp_path / "one.toml"), "--check"]) == 0
    assert "nothing takes over" in capsys.readouterr().out
    assert main(["--config", str(tmp_path / "one.toml"), "--node", "b", "--check"]) == 2
    assert "nodes.b: is missing" in capsys.readouterr().err


def test_print_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-schema"]) == 0
    out = capsys.readouterr().out
    assert all(row.key in out for row in rows())


def test_a_bad_configuration_lists_everything_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text(PAIR.read_text().replace("vrid = 51", "vrid = 0").replace("[pools]", "[pols]", 1))
    assert main(["--config", str(bad), "--node", "a"]) == 2
    err = capsys.readouterr().err
    assert f"{bad}: ports.lan.vrid: is 0, out of range" in err
    assert f"{bad}: pols: is no known key; did you mean pools?" in err


@pytest.mark.parametrize(
    "words",
    [[], ["--config", str(PAIR)], ["--config", str(PAIR), "--node", "c"], ["--config"], ["--surprise"]],
)
def test_bad_arguments_exit_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "flexhad" in capsys.readouterr().err


def test_what_is_missing_on_the_machine_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StartError("first thing; do this\nsecond thing; do that")

    monkeypatch.setattr("flexha.shell.preflight.check", refuse)
    assert main(["--config", str(PAIR), "--node", "a"]) == 1
    err = capsys.readouterr().err
    assert "flexhad: first thing; do this\nflexhad: second thing; do that\n" in err
    assert "Traceback" not in err


def test_missing_capabilities_are_named() -> None:
    """As root they have to be dropped first."""
    drop = ["setpriv", "--bounding-set=-net_admin,-sys_admin", "--inh-caps=-all"] if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-m", "flexha", "--config", str(PAIR), "--node", "a"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PAIR.parents[1])
    assert run.returncode == 1
    assert "flexhad: CAP_NET_ADMIN is missing, to make TAPs, addresses and routes; run" in run.stderr
    assert "flexhad: CAP_SYS_ADMIN is missing" in run.stderr


# ---- readiness ---------------------------------------------------------------------------------------------
def test_ready_fd_gets_one_line() -> None:
    read, write = os.pipe()
    systemd.signal_ready(write)
    with os.fdopen(read) as pipe:
        assert pipe.read() == "ready\n"


def test_ready_fd_whose_reader_is_gone() -> None:
    read, write = os.pipe()
    os.close(read)
    systemd.signal_ready(write)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(write)


@pytest.mark.parametrize(("usec", "interval"), [("5000000", 2.5), ("0", None), ("soon", None), (None, None)])
def test_the_watchdog_is_fed_twice_per_limit(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, interval: float | None
) -> None:
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if usec is None:
        monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    else:
        monkeypatch.setenv("WATCHDOG_USEC", usec)
    assert systemd.watchdog_interval_s() == interval
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert systemd.watchdog_interval_s() is None


@pytest.mark.parametrize("abstract", [False, True])
def test_notify_reaches_the_manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"@flexha-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        systemd.notify("READY=1", "STATUS=fine")
        assert manager.recv(100) == b"READY=1\nSTATUS=fine"
    systemd.notify("WATCHDOG=1")  # the manager is gone: no error
    monkeypatch.delenv("NOTIFY_SOCKET")
    systemd.notify("WATCHDOG=1")
