# SPDX-License-Identifier: Apache-2.0
"""The highest term that this node may ever have used, on disk before it is used.

A term that is lost lets a rebooted node reign in an old one, which the fence of its peer would refuse; so a
file that cannot be understood stops the daemon instead of counting as "no term yet".

The file holds one line: ``flexha-term 1 <term> <CRC-32 of what stands before it, 8 hex digits>``.
"""

from __future__ import annotations

import zlib
from pathlib import Path

from flexha import files
from flexha.errors import StartError
from flexha.units import TERM_MAX, Term

FILE_NAME = "term"
_MAGIC = "flexha-term 1"
_FILE_BYTES_MAX = 128


class TermFile:
    """``state_dir/term``."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def read(self) -> Term:
        """The persisted term; 0 if there is no file yet.

        Raises: StartError if the file cannot be read, is damaged, or holds a term above the limit.
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(_FILE_BYTES_MAX)
        except FileNotFoundError:
            return Term(0)
        except OSError as error:
            raise StartError(f"{self._path}: {error.strerror}; the daemon must be able to read it") from error
        text, _, checksum = data.decode("ascii", "replace").strip().rpartition(" ")
        magic, _, number = text.rpartition(" ")
        if magic != _MAGIC or not number.isdigit() or checksum != _checksum(text):
            raise StartError(
                f"{self._path}: damaged, {data[:40]!r}; restore it, or, while the peer runs and is ACTIVE, "
                "remove it: this node then learns the term from the peer"
            )
        if int(number) > TERM_MAX:
            raise StartError(
                f"{self._path}: term {number} is above {TERM_MAX}, which no node reaches; stop both nodes "
                "and remove this file on both: terms then begin anew"
            )
        return Term(int(number))

    def write(self, term: Term) -> None:
        """Replace the file; returns once it is on disk, its name included. May take milliseconds."""
        text = f"{_MAGIC} {term}"
        files.replace(self._path, f"{text} {_checksum(text)}\n".encode())


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
