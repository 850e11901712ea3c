# SPDX-License-Identifier: Apache-2.0
"""Tells FRR's bgpd on this box whether the node is ACTIVE, so that the LAN's routers prefer the one that is.

It is told by its own control socket, as vtysh does it: a command and a zero byte; what it prints, three zero
bytes and a status. A vtysh for each change would be a process of the daemon's size, made in the midst of a
takeover; and a connection that stays tells when bgpd has been restarted, and so has forgotten the role.

It is told again every ``AGAIN_S``, which changes nothing that it knows: whoever reads its file again
(watchfrr after a start of bgpd, an operator) makes the node one that is not ACTIVE.

Nobody waits for bgpd. What it has not taken is said once, shown in status, and tried again until it does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from flexha.config import frr
from flexha.config.bgp import RoutingPlan
from flexha.core.events import Role
from flexha.shell import clock, log
from flexha.shell.counters import Counters
from flexha.shell.history import History
from flexha.units import NS_PER_MS, Ns, Term

TIMEOUT_S: Final = 2.0
"""For bgpd to take all that is said at once."""
AGAIN_S: Final = 2.0
RETRY_S: Final = 0.2
RETRY_MAX_S: Final = 5.0
_END: Final = b"\0\0\0"


class VtyError(Exception):
    """bgpd refuses a command."""


class Vty:
    """A connection to a daemon of FRR."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, path: Path) -> Vty:
        """Connect to its control socket. Raises: OSError."""
        return cls(*await asyncio.open_unix_connection(str(path)))

    async def say(self, commands: Sequence[str]) -> None:
        """All of them at once, so that a busy machine comes round to the daemon once and not for each.

        Raises: VtyError if one is refused, EOFError (of asyncio) or OSError if the daemon is gone.
        """
        self._writer.write(b"".join(command.encode() + b"\0" for command in commands))
        refused = ""
        for command in commands:
            printed = (await self._reader.readuntil(_END)).removesuffix(_END).decode(errors="replace")
            status = (await self._reader.readexactly(1))[0]
            if status != 0 and not refused:
                refused = f"{command!r} is refused ({status}): {printed.strip()}"
        if refused:
            raise VtyError(refused)

    async def ended(self) -> None:
        """Return when the daemon hangs up: between commands it says nothing."""
        await self._reader.read(1)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


class Routing:
    """Keeps bgpd's route-map as the role has it."""

    def __init__(self, plan: RoutingPlan, history: History, counters: Counters) -> None:
        self._plan = plan
        self._history = history
        self._counters = counters
        self._reign: Term | None = None
        """The term in which this node is ACTIVE."""
        self._since: Ns = clock.now()
        """When the role became what bgpd is to know."""
        self._told: str | None = None
        self._error: str | None = None
        self._is_news = True
        """What bgpd takes next is worth a line: it is not what it was told before."""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ---- life ----
    def start(self) -> None:
        """Tell bgpd that this node is not ACTIVE, and whatever follows."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """Tell it nothing more: the device that its sessions need goes with the daemon."""
        if self._task:
            self._task.cancel()

    def role_set(self, role: Role, term: Term) -> None:
        """The fast path obeys a role; bgpd is told of it soon."""
        reign = term if role is Role.ACTIVE else None
        if reign != self._reign:
            self._reign, self._since, self._is_news = reign, clock.now(), True
            self._changed.set()

    def status(self) -> Mapping[str, object]:
        """For ``flexhactl status``: wanted, told (null: nothing), error."""
        return {
            "wanted": _word(self._reign),
            "told": self._told,
            "error": self._error,
        }

    def warning(self) -> str | None:
        """What somebody has to mend."""
        if self._error is None:
            return None
        role = "not ACTIVE" if self._reign is None else "ACTIVE"
        return (
            f"bgpd does not know that this node is {role} ({self._error}): is FRR running, and may flexhad "
            f"use {self._plan.vty_dir}?"
        )

    # ---- the task ----
    async def _run(self) -> None:
        pause_s = RETRY_S
        while True:
            self._changed.clear()  # what it says is tried now; only another change makes the pause shorter
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    vty = await Vty.open(self._plan.vty_dir / "bgpd.vty")
                with contextlib.closing(vty):
                    while True:
                        await self._tell(vty)
                        pause_s = RETRY_S
                        await self._change_or_end(vty)
            except (OSError, EOFError, asyncio.LimitOverrunError, VtyError) as error:
                self._failed(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()
            pause_s = min(2 * pause_s, RETRY_MAX_S)

    async def _tell(self, vty: Vty) -> None:
        self._changed.clear()
        reign, since = self._reign, self._since
        async with asyncio.timeout(TIMEOUT_S):
            await vty.say(frr.follow(self._plan, reign))
        if self._told == _word(reign) and not self._is_news:
            return
        self._told, self._error, self._is_news = _word(reign), None, False
        self._counters.add("routing.told")
        fields = {"told": self._told, "after_ms": round((clock.now() - since) / NS_PER_MS, 3)}
        log.info("routing.told", **fields)
        self._history.add(clock.now(), "routing-told", fields)

    async def _change_or_end(self, vty: Vty) -> None:
        """Wait until it is time to tell. Raises: ConnectionResetError when bgpd has gone."""
        loop = asyncio.get_running_loop()
        changed, ended = (loop.create_task(wait) for wait in (_wait(self._changed), vty.ended()))
        try:
            await asyncio.wait((changed, ended), timeout=AGAIN_S, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ConnectionResetError("bgpd has ended")
        finally:
            for task in (changed, ended):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, OSError):
                    await task

    def _failed(self, error: Exception) -> None:
        self._told, self._is_news = None, True
        self._counters.add("routing.failed")
        text = str(error) or type(error).__name__
        if self._error is None:
            log.warning("routing.behind", wanted=_word(self._reign), error=text)
            self._history.add(clock.now(), "routing-behind", {"wanted": _word(self._reign), "error": text})
        self._error = text


def _word(reign: Term | None) -> str:
    return "other" if reign is None else "active"


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
