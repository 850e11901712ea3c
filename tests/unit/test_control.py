# SPDX-License-Identifier: Apache-2.0
"""The control socket: good requests, bad requests, and who may take its place."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from flexha.core.actions import Reply
from flexha.core.events import Command, Event, OperatorAsked
from flexha.errors import StartError
from flexha.shell.control import CONNECTIONS_MAX, LINE_BYTES_MAX, Control, RequestError
from flexha.shell.counters import Counters


async def _echo(args: Mapping[str, object]) -> str:
    return json.dumps(dict(args))


async def _refuse(_: Mapping[str, object]) -> str:
    raise RequestError("not today; try tomorrow")


async def _crash(_: Mapping[str, object]) -> str:
    raise ZeroDivisionError


class Served:
    """A control socket with a core that answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counters = Counters()
        self.asked: list[Event] = []
        self.answer: tuple[bool, str] | None = (True, "done")
        handlers = {"echo": _echo, "refuse": _refuse, "crash": _crash}
        self.control = Control(path, handlers, self._post, self.counters)

    def _post(self, event: Event) -> None:
        self.asked.append(event)
        assert isinstance(event, OperatorAsked)
        if self.answer is not None:
            self.control.reply(Reply(event.request, *self.answer))

    async def send(self, *lines: bytes) -> list[dict[str, Any]]:
        reader, writer = await asyncio.open_unix_connection(str(self.path), limit=1 << 20)
        writer.write(b"".join(lines))
        writer.write_eof()
        answers = [json.loads(line) async for line in reader]
        writer.close()
        return answers

    async def ask(self, command: str, **args: object) -> dict[str, Any]:
        (answer,) = await self.send(json.dumps({"id": 7, "cmd": command, "args": args}).encode() + b"\n")
        assert answer["id"] == 7
        return answer


@asynccontextmanager
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    server = Served(tmp_path / "run" / "t.sock")
    await server.control.start()
    try:
        yield server
    finally:
        await server.control.stop()


def test_a_request_is_answered(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            assert await server.ask("echo", x=1) == {"id": 7, "ok": True, "result": {"x": 1}}

    asyncio.run(story())


def test_requests_of_a_connection_are_answered_in_order(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            lines = [json.dumps({"id": n, "cmd": "echo"}).encode() + b"\n" for n in range(50)]
            assert [answer["id"] for answer in await server.send(*lines)] == list(range(50))

    asyncio.run(story())


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"\n", "no JSON"),
        (b"hello\n", "no JSON"),
        (b"\xff\xfe\n", "no JSON"),
        (b"[" * 30000 + b"\n", "no JSON"),
        (b"[1]\n", "no JSON object"),
        (b'{"id":1}\n', "unknown cmd None; use one of: crash, echo, failover, maintenance, refuse"),
        (b'{"id":1,"cmd":"reboot"}\n', "unknown cmd 'reboot'"),
        (b'{"id":1,"cmd":["echo"]}\n', "unknown cmd"),
        (b'{"id":1,"cmd":"echo","args":[]}\n', "args is no object"),
        (b'{"id":1,"cmd":"refuse"}\n', "not today; try tomorrow"),
        (b'{"id":1,"cmd":"failover","args":{"now":true}}\n', "unknown args now; use none"),
        (b'{"id":1,"cmd":"maintenance","args":{"mode":"leave"}}\n', "make it 'enter' or 'exit'"),
    ],
)
def test_a_bad_request_is_told_why_and_the_connection_goes_on(tmp_path: Path, line: bytes, text: str) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            bad, good = await server.send(line, b'{"id":2,"cmd":"echo"}\n')
            assert not bad["ok"]
            assert text in bad["error"]
            assert good["ok"]
            assert server.counters.values()["control.refused"] == 1

    asyncio.run(story())


def test_a_line_that_is_too_long_ends_the_connection(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            (answer,) = await server.send(b"x" * (LINE_BYTES_MAX * 3) + b'\n{"id":2,"cmd":"echo"}\n')
            assert "longer than" in answer["error"]
            assert (await server.ask("echo"))["ok"]

    asyncio.run(story())


def test_a_client_that_leaves_in_the_middle_disturbs_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            _, writer = await asyncio.open_unix_connection(str(server.path))
            writer.write(b'{"id":1,"cmd"')
            writer.transport.abort()
            assert (await server.ask("echo"))["ok"]

    asyncio.run(story())


def test_connections_are_bounded(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            held = [await asyncio.open_unix_connection(str(server.path)) for _ in range(CONNECTIONS_MAX)]
            (answer,) = await server.send(b'{"id":1,"cmd":"echo"}\n')
            assert "connections; close one" in answer["error"]
            for _, writer in held:
                writer.close()
            async with asyncio.timeout(5):
                while not (await server.ask("echo"))["ok"]:  # until the server has seen them close
                    await asyncio.sleep(0.005)

    asyncio.run(story())


def test_a_bug_in_an_answer_is_an_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            answer = await server.ask("crash")
            assert "internal error: ZeroDivisionError()" in answer["error"]
            assert server.counters.values()["control.failed"] == 1

    asyncio.run(story())


@pytest.mark.parametrize(
    ("command", "args", "asked"),
    [
        ("failover", {}, Command.FAILOVER),
        ("maintenance", {"mode": "enter"}, Command.MAINTENANCE_ENTER),
        ("maintenance", {"mode": "exit"}, Command.MAINTENANCE_EXIT),
    ],
)
def test_commands_reach_the_core(tmp_path: Path, command: str, args: dict[str, str], asked: Command) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            assert (await server.ask(command, **args))["result"] == {"text": "done"}
            server.answer = (False, "the peer is not ready; wait for sync")
            assert (await server.ask(command, **args))["error"] == "the peer is not ready; wait for sync"
            assert server.asked == [OperatorAsked(1, asked), OperatorAsked(2, asked)]

    asyncio.run(story())


def test_a_core_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexha.shell.control.COMMAND_TIMEOUT_S", 0.05)

    async def story() -> None:
        async with served(tmp_path) as server:
            server.answer = None
            assert "no answer within" in (await server.ask("failover"))["error"]
            server.control.reply(Reply(1, ok=True, text="late"))  # nobody waits any more

    asyncio.run(story())


# ---- the socket file ---------------------------------------------------------------------------------------
def test_the_socket_is_for_owner_and_group_and_goes_away(tmp_path: Path) -> None:
    async def story() -> Path:
        async with served(tmp_path) as server:
            assert stat.S_IMODE(server.path.stat().st_mode) == 0o660
            return server.path

    assert not asyncio.run(story()).exists()


def test_a_socket_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "t.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))

    async def story() -> None:
        async with served(tmp_path) as server:
            assert (await server.ask("echo"))["ok"]

    asyncio.run(story())


def test_a_socket_in_use_is_not_taken(tmp_path: Path) -> None:
    async def story() -> None:
        async with served(tmp_path) as server:
            with pytest.raises(StartError, match="another flexhad serves it; stop it first"):
                await Served(server.path).control.start()
            assert (await server.ask("echo"))["ok"]

    asyncio.run(story())


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "t.sock"
    path.parent.mkdir()
    path.write_text("precious")
    with pytest.raises(StartError, match="a file that is no socket"):
        asyncio.run(Served(path).control.start())
    assert path.read_text() == "precious"


@pytest.mark.parametrize("parent", ["file/below", "x" * 300])
def test_a_directory_that_cannot_be(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartError, match=r"set nodes\.X\.control"):
        asyncio.run(Served(tmp_path / parent / "t.sock").control.start())


def test_umask_is_restored(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:

        async def story() -> None:
            async with served(tmp_path):
                pass

        asyncio.run(story())
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
