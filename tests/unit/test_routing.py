# SPDX-License-Identifier: Apache-2.0
"""What bgpd is told of the role, over a socket that speaks as it does. Spec: R5.

The real one: ``tests/netns/test_bgp.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from flexha.config.bgp import DEFAULT_ROUTE, RoutingPlan
from flexha.core.events import Role
from flexha.shell import routing
from flexha.shell.counters import Counters
from flexha.shell.history import History
from flexha.shell.routing import Routing
from flexha.units import Term


class FakeBgpd:
    """Takes commands, and refuses what it is told to refuse."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[str] = []
        self.refuses = ""
        self.is_deaf = False
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path / "bgpd.vty")

    async def stop(self) -> None:
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.close()
        self._writers.clear()
        (self.path / "bgpd.vty").unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                command = (await reader.readuntil(b"\0"))[:-1].decode()
                if self.is_deaf:
                    continue
                self.heard.append(command)
                if self.refuses and self.refuses in command:
                    writer.write(b"% no\n\0\0\0\x01")
                else:
                    writer.write(b"\0\0\0\0")

    def metrics(self) -> list[str]:
        return [command for command in self.heard if command.startswith("set metric")]


class Stand:
    """A ``Routing`` and its bgpd."""

    def __init__(self, path: Path) -> None:
        self.bgpd = FakeBgpd(path)
        self.history, self.counters = History("a"), Counters()
        self.routing = Routing(RoutingPlan(path, "med", 65001, (DEFAULT_ROUTE,)), self.history, self.counters)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)

    def events(self) -> list[object]:
        return [record["event"] for record in self.history.records()]


def play(path: Path, story: Callable[[Stand], Awaitable[None]], *, bgpd_runs: bool = True) -> None:
    @contextlib.asynccontextmanager
    async def stand() -> AsyncIterator[Stand]:
        stand = Stand(path)
        if bgpd_runs:
            await stand.bgpd.start()
        stand.routing.start()
        try:
            yield stand
        finally:
            stand.routing.stop()
            await stand.bgpd.stop()

    async def run() -> None:
        async with stand() as standing:
            await story(standing)

    asyncio.run(run())


def test_bgpd_is_told_of_each_reign(tmp_path: Path) -> None:
    async def story(stand: Stand) -> None:
        await stand.until(lambda: stand.routing.status()["told"] == "other")
        stand.routing.role_set(Role.PASSIVE, Term(4))
        stand.routing.role_set(Role.ACTIVE, Term(5))
        assert stand.routing.status() == {"wanted": "active", "told": "other", "error": None}
        await stand.until(lambda: stand.routing.status()["told"] == "active")
        stand.routing.role_set(Role.ACTIVE, Term(7))
        await stand.until(lambda: len(stand.bgpd.metrics()) == 3)
        stand.routing.role_set(Role.JOINING, Term(8))
        await stand.until(lambda: stand.routing.status()["told"] == "other")
        assert stand.bgpd.metrics() == [
            "set metric 2000000000",
            "set metric 999999995",
            "set metric 999999993",
            "set metric 2000000000",
        ]
        assert stand.bgpd.heard[:2] == ["enable", "configure terminal"]
        assert stand.bgpd.heard[-1] == "end"
        assert stand.events() == ["routing-told"] * 4
        assert stand.routing.warning() is None

    play(tmp_path, story)


def test_a_bgpd_that_comes_late_is_told(tmp_path: Path) -> None:
    async def story(stand: Stand) -> None:
        stand.routing.role_set(Role.ACTIVE, Term(2))
        await stand.until(lambda: stand.counters.values().get("routing.failed", 0) > 1)
        assert stand.events() == ["routing-behind"]  # said once
        warning = stand.routing.warning()
        assert warning is not None
        assert "does not know that this node is ACTIVE" in warning
        await stand.bgpd.start()
        await stand.until(lambda: stand.routing.status()["told"] == "active")
        assert stand.routing.warning() is None

    play(tmp_path, story, bgpd_runs=False)


def test_a_bgpd_that_was_restarted_is_told_again(tmp_path: Path) -> None:
    async def story(stand: Stand) -> None:
        stand.routing.role_set(Role.ACTIVE, Term(2))
        await stand.until(lambda: stand.routing.status()["told"] == "active")
        await stand.bgpd.stop()
        await stand.until(lambda: stand.routing.status()["told"] is None)
        stand.bgpd.heard.clear()
        await stand.bgpd.start()
        await stand.until(lambda: stand.bgpd.metrics() == ["set metric 999999998"])

    play(tmp_path, story)


def test_it_is_told_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads frr.conf again undoes what bgpd was told."""
    monkeypatch.setattr(routing, "AGAIN_S", 0.01)

    async def story(stand: Stand) -> None:
        stand.routing.role_set(Role.ACTIVE, Term(2))
        await stand.until(lambda: stand.bgpd.metrics().count("set metric 999999998") > 2)
        assert stand.events().count("routing-told") <= 2  # and no line for each

    play(tmp_path, story)


def test_a_refused_command_is_an_error_that_is_tried_again(tmp_path: Path) -> None:
    async def story(stand: Stand) -> None:
        await stand.until(lambda: stand.routing.status()["told"] == "other")
        stand.bgpd.refuses = "set metric"
        stand.routing.role_set(Role.ACTIVE, Term(2))
        await stand.until(lambda: stand.routing.status()["error"] is not None)
        assert "'set metric 999999998' is refused (1): % no" in str(stand.routing.status()["error"])
        stand.bgpd.refuses = ""
        await stand.until(lambda: stand.routing.status()["told"] == "active")

    play(tmp_path, story)


def test_a_bgpd_that_hangs_is_left_and_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "TIMEOUT_S", 0.05)

    async def story(stand: Stand) -> None:
        await stand.until(lambda: stand.routing.status()["told"] == "other")
        stand.bgpd.is_deaf = True
        stand.routing.role_set(Role.ACTIVE, Term(2))
        await stand.until(lambda: stand.routing.status()["error"] == "TimeoutError")
        stand.bgpd.is_deaf = False
        await stand.until(lambda: stand.routing.status()["told"] == "active")

    play(tmp_path, story)
