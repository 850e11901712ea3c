# SPDX-License-Identifier: Apache-2.0
"""Whether this node was taken out of service: a file in the state directory, there or not.

Maintenance is for work on a box, which rarely goes without a restart; a node that came back by itself in the
middle of it would be taken for a whole one. Nothing is in the file that matters: one that a crash has left
empty still says that somebody said no.
"""

from __future__ import annotations

from pathlib import Path

from flexha import files
from flexha.errors import StartError

FILE_NAME = "maintenance"
_TEXT = b"This node is in maintenance, and starts so. End it with: flexhactl maintenance exit\n"


class MaintenanceFlag:
    """``state_dir/maintenance``."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def read(self) -> bool:
        """Whether it is there. Raises: StartError if the directory cannot be searched."""
        try:
            self._path.lstat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise StartError(f"{self._path}: {error.strerror}; the daemon must be able to see it") from error
        return True

    def write(self, *, on: bool) -> None:
        """Make or remove it; returns once that is on disk. May take milliseconds."""
        if on:
            files.replace(self._path, _TEXT)
        else:
            self._path.unlink(missing_ok=True)
            files.sync_directory(self._path.parent)
