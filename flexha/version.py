# SPDX-License-Identifier: Apache-2.0
"""The version of the installed package; ``pyproject.toml`` is where it stands."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache  # it is read from a file, and takes milliseconds
def flexha_version() -> str:
    """As installed; a source tree that was never installed has none."""
    try:
        return version("flexha")
    except PackageNotFoundError:
        return "uninstalled"
