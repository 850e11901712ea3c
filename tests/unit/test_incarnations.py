# SPDX-License-Identifier: Apache-2.0
"""Incarnations grow from start to start, whatever the clock does. Spec: R4."""

from __future__ import annotations

from pathlib import Path

import pytest

from flexha.errors import StartError
from flexha.shell import incarnations
from flexha.shell.incarnations import FILE_NAME


def test_the_clock_decides(tmp_path: Path) -> None:
    assert incarnations.begin(tmp_path, 1000) == 1000
    assert incarnations.begin(tmp_path, 2000) == 2000


def test_a_clock_that_was_set_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    incarnations.begin(tmp_path, 5000)
    assert incarnations.begin(tmp_path, 10) == 5001
    assert incarnations.begin(tmp_path, 10) == 5002
    assert "incarnation.clock_went_back" in {record.getMessage() for record in caplog.records}


@pytest.mark.parametrize("content", [b"", b"soon", b"-5", b"9" * 60, b"\xff\xfe"])
def test_a_damaged_file_is_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert incarnations.begin(tmp_path, 1000) == 1000
    assert (tmp_path / FILE_NAME).read_text() == "1000\n"


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="the daemon must be able to write it"):
        incarnations.begin(tmp_path / "none", 1000)
