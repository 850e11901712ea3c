# SPDX-License-Identifier: Apache-2.0
"""This node's last incarnation, on disk: the next one is higher, even if the wall clock was set back.

A peer takes heartbeats of a lower incarnation than it has heard for a recording (``csrc/pulse.h``). The file
is no term: without it the clock decides, so one that is damaged is replaced, and the log says so.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from flexha import files
from flexha.errors import StartError
from flexha.shell import log

FILE_NAME = "incarnation"
INCARNATION_MAX = (1 << 63) - 1


def begin(directory: Path, clock: int) -> int:
    """The incarnation of this start, on disk before it is used. ``clock``: what the wall clock says, ns."""
    path = directory / FILE_NAME
    last = 0
    try:
        with contextlib.suppress(FileNotFoundError):
            text = path.read_bytes()[:64].decode("ascii", "replace").strip()
            if text.isdigit() and int(text) < INCARNATION_MAX:
                last = int(text)
            else:
                log.warning("incarnation.damaged", file=path, content=text[:20])
        incarnation = max(clock, last + 1)
        if incarnation > clock:
            log.warning("incarnation.clock_went_back", by_s=round((incarnation - clock) / 1e9, 1))
        files.replace(path, f"{incarnation}\n".encode())
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}; the daemon must be able to write it") from error
    return incarnation
