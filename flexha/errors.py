# SPDX-License-Identifier: Apache-2.0
"""What may go wrong outside the pure core, in words that name the remedy.

``flexha.fastpath.errors`` has those of the C fast path. A process ends with ``EXIT_CONFIG`` or
``EXIT_RUNTIME``; ``flexhactl`` adds ``EXIT_UNREACHABLE``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

EXIT_OK = 0
EXIT_RUNTIME = 1
EXIT_CONFIG = 2
EXIT_UNREACHABLE = 3


class FlexhaError(Exception):
    """Base of all expected errors: shown to the operator as one line, without a traceback."""

    exit_code = EXIT_RUNTIME


class ConfigError(FlexhaError):
    """The configuration is wrong; ``problems`` holds every finding, each ``path.to.key: what; remedy``."""

    exit_code = EXIT_CONFIG

    def __init__(self, source: str, problems: Iterable[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__("\n".join((f"{source}: {len(self.problems)} problem(s)", *self.problems)))


class StartError(FlexhaError):
    """The daemon cannot run here: a device, an address, a capability or a file is missing or taken."""


class NetlinkError(FlexhaError):
    """The kernel refused an rtnetlink request."""

    def __init__(self, errno: int, what: str, detail: str = "") -> None:
        self.errno = errno
        self.what = what
        super().__init__(f"{what}: {os.strerror(errno)}{f' ({detail})' if detail else ''}")


class UnreachableError(FlexhaError):
    """``flexhactl`` cannot talk to the daemon."""

    exit_code = EXIT_UNREACHABLE
