# SPDX-License-Identifier: Apache-2.0
"""Between the core and the workers' wires: what to do with them, and when that is settled."""

from __future__ import annotations

from collections.abc import Callable

from flexha.core.events import Event, Wires, WiresSettled
from flexha.fastpath import Fastpath


class WiresIo:
    """``collect`` is called whenever the fast path has something to tell."""

    def __init__(self, fastpath: Fastpath, post: Callable[[Event], None]) -> None:
        self._fastpath = fastpath
        self._post = post
        self._waits_for: Wires | None = None

    def set(self, mode: Wires) -> None:
        """Tell the workers; they do it in their own time."""
        self._waits_for = mode
        self._fastpath.set_wires(int(mode))

    def collect(self) -> None:
        """Post what is settled by now, once."""
        mode = self._waits_for
        if mode is not None and self._fastpath.wires_settled():
            self._waits_for = None
            self._post(WiresSettled(mode))
