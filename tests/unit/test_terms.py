# SPDX-License-Identifier: Apache-2.0
"""The term on disk: what is written is read back, and what is damaged is not taken for "none"."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flexha.errors import StartError
from flexha.shell.preflight import StateDir
from flexha.shell.terms import FILE_NAME, TermFile
from flexha.units import TERM_MAX, Term


def test_no_file_is_term_zero(tmp_path: Path) -> None:
    assert TermFile(tmp_path).read() == 0


@pytest.mark.parametrize("term", [0, 1, 41, TERM_MAX])
def test_what_is_written_is_read_back(tmp_path: Path, term: int) -> None:
    TermFile(tmp_path).write(Term(term))
    assert TermFile(tmp_path).read() == term


def test_a_write_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    terms = TermFile(tmp_path)
    for term in (4, 6, 8):
        terms.write(Term(term))
    assert terms.read() == 8
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_file_and_directory_are_on_disk_before_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(fd: int) -> None:
        is_directory = Path(f"/proc/self/fd/{fd}").is_dir()
        calls.append("fsync directory" if is_directory else "fsync file")
        real_fsync(fd)

    def replace(path: Path, target: Path) -> Path:
        calls.append("rename")
        return real_replace(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    TermFile(tmp_path).write(Term(2))
    assert calls == ["fsync file", "rename", "fsync directory"]


GOOD = "flexha-term 1 42 "


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"42\n",
        b"flexha-term 1 42\n",
        b"flexha-term 1 42 00000000\n",
        b"flexha-term 2 42 00000000\n",
        b"flexha-term 1 -2 00000000\n",
        b"\x00" * 64,
        b"\xff" * 4096,
    ],
)
def test_a_damaged_file_stops_the_daemon(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(StartError, match=r"damaged.*restore it, or, while the peer runs"):
        TermFile(tmp_path).read()


def test_a_term_that_no_node_reaches_stops_the_daemon(tmp_path: Path) -> None:
    TermFile(tmp_path).write(Term(TERM_MAX + 1))
    with pytest.raises(StartError, match=rf"{tmp_path}/term: term \d+ is above.*remove this file on both"):
        TermFile(tmp_path).read()


def test_any_single_changed_byte_is_noticed(tmp_path: Path) -> None:
    terms = TermFile(tmp_path)
    terms.write(Term(1234))
    path = tmp_path / FILE_NAME
    good = path.read_bytes()
    for position in range(len(good) - 1):  # the last byte is the newline
        path.write_bytes(good[:position] + bytes((good[position] ^ 1,)) + good[position + 1 :])
        with pytest.raises(StartError):
            terms.read()


def test_a_crash_while_writing_leaves_the_old_term(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terms = TermFile(tmp_path)
    terms.write(Term(4))

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        terms.write(Term(6))
    assert TermFile(tmp_path).read() == 4


# ---- the directory -----------------------------------------------------------------------------------------
def test_a_node_runs_once(tmp_path: Path) -> None:
    first = StateDir(tmp_path / "made" / "here")
    with pytest.raises(StartError, match=rf"another flexhad \(pid {os.getpid()}\) runs this node; stop"):
        StateDir(tmp_path / "made" / "here")
    first.release()
    StateDir(tmp_path / "made" / "here").release()


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"make it writable, or set nodes\.X\.state_dir"):
        StateDir(tmp_path / "file" / "below")
