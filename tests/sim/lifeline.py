# SPDX-License-Identifier: Apache-2.0
"""The life line of a simulated pair: a connection that nobody who lives closes without a goodbye.

What is said on it is the business of ``csrc/lifeline.c``, which has tests of its own; here is what becomes of
it: between which lives it stands, and whether, and when, the kernel of a dead process can tell the other end.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flexha.units import NS_PER_MS, Ns, ms

if TYPE_CHECKING:
    from sim.host import Process
    from sim.world import World

RETRY_MS = 100
AGAIN_MS = (200, 3200)
"""A kernel says so again, less and less often, until it is acknowledged."""


class LifeLine:
    """Node b calls, node a listens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ends: tuple[Process, Process] | None = None
        self._call_at = Ns(0)

    def stands(self, caller: Process) -> bool:
        """Whether ``caller`` holds it with the life of the peer that lives now."""
        return self._ends is not None and self._ends[1] is caller and self._ends[0].alive

    def call(self, caller: Process) -> None:
        """Node b hears the peer on xc, and has no line to it."""
        now, listener = self._world.clock.now, self._world.nodes[0]
        if now < self._call_at or listener is None or not listener.alive or listener.paused:
            return
        self._call_at = Ns(now + ms(RETRY_MS))
        rng = self._world.chance.of("line/call")
        if all(self._world.network.passes("xc", i, rng) for i in range(2)):
            made = partial(self._made, listener, caller)
            self._world.clock.after(rng.uniform(0.3, 2) * NS_PER_MS, made)

    def _made(self, listener: Process, caller: Process) -> None:
        if all(end.alive and not end.paused for end in (listener, caller)):
            self._ends = (listener, caller)

    def forget(self, process: Process) -> None:
        """It has said goodbye, or its kernel is gone, too."""
        if self._ends is not None and process in self._ends:
            self._ends = None

    def killed(self, process: Process) -> None:
        """Its kernel closes what the process had open."""
        if self._ends is None or process not in self._ends:
            return
        other = self._ends[1 - process.index]
        self._ends = None
        rng = self._world.chance.of("line/end")
        self._world.clock.after(
            rng.uniform(0.1, 3) * NS_PER_MS, partial(self._tell, process, other, AGAIN_MS[0])
        )

    def _tell(self, dead: Process, other: Process, again_ms: float) -> None:
        rng = self._world.chance.of("line/end")
        if not other.alive:
            return
        if self._world.network.passes("xc", dead.index, rng):
            self._world.clock.after(rng.uniform(0.05, 0.3) * NS_PER_MS, partial(other.line_ended, dead))
        else:
            more = partial(self._tell, dead, other, min(2 * again_ms, AGAIN_MS[1]))
            self._world.clock.after(again_ms * NS_PER_MS, more)
