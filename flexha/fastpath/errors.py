# SPDX-License-Identifier: Apache-2.0
"""What the fast path answers when it refuses."""

from __future__ import annotations

import os


class FastpathError(OSError):
    """A call of ``csrc/fp_abi.h`` returned a negative errno.

    ``errno`` is positive, as in every OSError; ``call`` names the C function; ``detail`` is what C had to
    say beside the number, such as which port could not be opened.
    """

    def __init__(self, errno: int, call: str, detail: str = "") -> None:
        super().__init__(errno, os.strerror(errno))
        self.call = call
        self.detail = detail

    def __str__(self) -> str:
        text = self.detail or self.strerror or ""
        return f"{self.call}: {text} (errno {self.errno})"


class FastpathMismatchError(ImportError):
    """The shared object was not built from the sources that stand beside it, or not for this Python code."""
