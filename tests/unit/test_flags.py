# SPDX-License-Identifier: Apache-2.0
"""Maintenance on disk: there or not, whatever a crash has made of the file's text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flexha.errors import StartError
from flexha.shell.flags import FILE_NAME, MaintenanceFlag


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    flag = MaintenanceFlag(tmp_path)
    assert not flag.read()
    for on in (True, True, False, False):
        flag.write(on=on)
        assert MaintenanceFlag(tmp_path).read() is on
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_any_text_is_a_no(tmp_path: Path) -> None:
    """One made by hand before the first start, or one that a crash left empty."""
    (tmp_path / FILE_NAME).touch()
    assert MaintenanceFlag(tmp_path).read()


def test_its_end_is_on_disk_before_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flag = MaintenanceFlag(tmp_path)
    flag.write(on=True)
    synced: list[tuple[bool, bool]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append((Path(f"/proc/self/fd/{fd}").is_dir(), flag.read()))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    flag.write(on=False)
    assert synced == [(True, False)]


def test_a_directory_that_is_none_stops_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    with pytest.raises(StartError, match="the daemon must be able to see it"):
        MaintenanceFlag(tmp_path / "state").read()
