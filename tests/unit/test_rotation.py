# SPDX-License-Identifier: Apache-2.0
"""Keys that change between two nodes over loopback, and a node that dies at each write. Spec: R19, R22."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Interface
from pathlib import Path

import keys as testkeys
import pytest
import uvloop
from unit.test_sync_io import A, B, free_port, until

from flexha import files
from flexha.config import keyfiles
from flexha.config.derive import XcPlan
from flexha.core import sync_wire
from flexha.core.events import Event, SyncConnected, SyncReceived
from flexha.core.keys_wire import Keys, KeysAck, KeysStep
from flexha.core.sync_wire import Beat, FrameBuffer
from flexha.fastpath import FastpathError
from flexha.shell.counters import Counters
from flexha.shell.keyring import Keyring
from flexha.shell.rotation import FILE_NAME, Rotation, RotationError
from flexha.shell.sync_io import SyncIo
from flexha.shell.tls import Refusal


class Died(Exception):  # noqa: N818 - the node, not the program
    """The node ended here."""


class Pulse:
    """The keys that a node's heartbeats have."""

    def __init__(self, *, busy: int = 0) -> None:
        self.keys: tuple[bytes, ...] = ()
        self.busy = busy

    def set_pulse_keys(self, keys: tuple[bytes, ...]) -> None:
        if self.busy:
            self.busy -= 1
            raise FastpathError(16, "fp_pulse_keys")
        self.keys = keys


class Node:
    """One life of a node: its keys, its end of the connection, and its part of a change."""

    def __init__(self, name: str, directory: Path, port: int) -> None:
        self.directory = directory
        self.connects = name == "b"
        own, peer = (B, A) if self.connects else (A, B)
        self.buffer = FrameBuffer()
        self.pulse = Pulse()
        self.counters = Counters()
        self.ring = Keyring(directory, name, tls=True)
        self.pulse.set_pulse_keys(self.ring.keys.heartbeat)
        xc = XcPlan("lo", IPv4Interface((own, 8)), peer, port, self.connects)
        self.io = SyncIo(xc, self._post, self.counters, self.ring.tls)
        self.rotation = Rotation(name, self.ring, self.io, self.pulse, self._say, self.counters)  # type: ignore[arg-type]
        self.said: list[Keys | KeysAck] = []

    def _post(self, event: Event) -> None:
        match event:
            case SyncConnected():
                self.buffer = FrameBuffer()
                self.io.send(sync_wire.encode(Beat()))
            case SyncReceived(data):
                self.buffer, payloads = self.buffer.feed(data, 1 << 20)
                for payload in payloads:
                    message = sync_wire.decode(payload)
                    if isinstance(message, Keys | KeysAck):
                        self.rotation.hear(message)
            case _:
                pass

    def _say(self, message: Keys | KeysAck) -> None:
        self.said.append(message)
        self.io.send(sync_wire.encode(message))

    async def start(self) -> None:
        self.rotation.start()
        await self.io.start()

    def stop(self) -> None:
        self.rotation.stop()
        self.io.stop()


def believe_each_other(nodes: dict[str, Node]) -> None:
    """Whoever hears the other one understands him: by what is in use, and by what is on disk."""
    a, b = nodes["a"], nodes["b"]
    for one, other in ((a, b), (b, a)):
        assert one.pulse.keys[0] in other.pulse.keys
        mine, his = testkeys.load(one.directory), testkeys.load(other.directory)
        assert mine.heartbeat[0] in his.heartbeat
        assert mine.own
        assert mine.own.certificate in his.peers


async def join(directories: dict[str, Path], port: int) -> dict[str, Node]:
    nodes = {name: Node(name, directory, port) for name, directory in directories.items()}
    for node in nodes.values():
        await node.start()
    await until(lambda: all(node.io.connected for node in nodes.values()))
    return nodes


def run(pair: dict[str, Path], story: Callable[[dict[str, Node]], object]) -> None:
    async def whole() -> None:
        nodes = await join(pair, free_port())
        try:
            async with asyncio.timeout(20):
                await story(nodes)  # type: ignore[misc]
        finally:
            for node in nodes.values():
                node.stop()
            await asyncio.sleep(0.02)

    uvloop.run(whole())


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    return testkeys.make_pair(tmp_path)


def is_over(nodes: dict[str, Node]) -> bool:
    return not any(
        node.rotation.under_way() or len(node.ring.keys.heartbeat) > 1 or len(node.ring.keys.peers) > 1
        for node in nodes.values()
    )


@pytest.mark.parametrize("name", ["a", "b"])
def test_all_is_new_and_the_old_is_gone(pair: dict[str, Path], name: str) -> None:
    async def story(nodes: dict[str, Node]) -> None:
        before = nodes[name].ring.keys
        for _ in range(2):
            await nodes[name].rotation.begin()
        answer = await nodes[name].rotation.begin()
        believe_each_other(nodes)
        assert is_over(nodes)
        after = nodes[name].ring.keys
        assert after.own != before.own
        assert after.own
        assert answer["certificate"] == keyfiles.fingerprint(after.own.certificate)
        assert not set(after.heartbeat) & set(before.heartbeat)
        assert nodes["a"].pulse.keys == nodes["b"].pulse.keys == after.heartbeat

    run(pair, story)


@pytest.mark.parametrize("victim", ["a", "b"])
@pytest.mark.parametrize("asked", ["a", "b"])
def test_a_node_that_dies_at_any_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str, asked: str
) -> None:
    """Just before it, or just after: both nodes find each other again, and the change ends, or never was."""
    replace, sync_directory = files.replace, files.sync_directory
    deaths = 0

    def die_at(write: int, directory: Path) -> None:
        left = write

        def count() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Died

        def counted_replace(path: Path, data: bytes) -> None:
            if path.parent == directory:
                count()
            replace(path, data)

        def counted_sync(path: Path) -> None:
            sync_directory(path)
            if path == directory:
                count()

        monkeypatch.setattr(files, "replace", counted_replace)
        monkeypatch.setattr(files, "sync_directory", counted_sync)

    async def one(directories: dict[str, Path], write: int) -> bool:
        loop = asyncio.get_running_loop()
        died = asyncio.Event()

        def on_exception(_loop: object, context: dict[str, object]) -> None:
            assert isinstance(context.get("exception"), Died), context
            died.set()

        loop.set_exception_handler(on_exception)
        port = free_port()
        nodes = await join(directories, port)
        die_at(write, directories[victim])
        change = asyncio.ensure_future(nodes[asked].rotation.begin())
        dying = asyncio.ensure_future(died.wait())
        await asyncio.wait([change, dying], return_when=asyncio.FIRST_COMPLETED, timeout=10)
        lives = not died.is_set() and not (change.done() and isinstance(change.exception(), Died))
        monkeypatch.setattr(files, "replace", replace)
        monkeypatch.setattr(files, "sync_directory", sync_directory)
        dying.cancel()
        if not lives:
            nodes[victim].stop()
            again = Node(victim, directories[victim], port)
            nodes[victim] = again
            believe_each_other(nodes)
            await again.start()
            await until(lambda: all(node.io.connected for node in nodes.values()))
        await until(lambda: is_over(nodes) and all(node.io.connected for node in nodes.values()))
        believe_each_other(nodes)
        change.cancel()
        for node in nodes.values():
            node.stop()
        await asyncio.sleep(0.02)
        return lives

    for write in range(1, 40):
        directories = testkeys.make_pair(tmp_path / str(write))
        if uvloop.run(one(directories, write)):
            break
        deaths += 1
    assert deaths >= 6
    assert deaths < 39


def test_both_at_a_time(pair: dict[str, Path]) -> None:
    """The peer, which changes its own keys, refuses; all is as it was."""

    async def story(nodes: dict[str, Node]) -> None:
        asked, other = nodes["a"], nodes["b"]
        before = asked.ring.keys
        (other.directory / FILE_NAME).write_text("mine\n")
        with pytest.raises(RotationError, match="node b changes its own keys now"):
            await asked.rotation.begin()
        (other.directory / FILE_NAME).unlink()
        assert testkeys.load(asked.directory) == before
        assert {path.name for path in asked.directory.iterdir()} == set(keyfiles.FILES)

    run(pair, story)


def test_no_connection(pair: dict[str, Path]) -> None:
    async def story(nodes: dict[str, Node]) -> None:
        before = nodes["a"].ring.keys
        nodes["b"].stop()
        await until(lambda: not nodes["a"].io.connected)
        with pytest.raises(RotationError, match="there is no sync connection"):
            await nodes["a"].rotation.begin()
        nodes["a"].io.refusal = Refusal("expired", "certificate has expired; make new keys")
        with pytest.raises(RotationError, match=r"it is refused: expired: .* make new keys"):
            await nodes["a"].rotation.begin()
        assert testkeys.load(nodes["a"].directory) == before

    run(pair, story)


def test_what_a_peer_may_not_ask(pair: dict[str, Path]) -> None:
    async def story(nodes: dict[str, Node]) -> None:
        a, b = nodes["a"], nodes["b"]
        own = a.ring.keys.own
        assert own
        fresh = keyfiles.new_heartbeat_key()
        stranger = testkeys.stranger().certificate
        for message, why in (
            (Keys(KeysStep.ADD, testkeys.expired().certificate, fresh), "has expired"),
            (Keys(KeysStep.ADD, b"nonsense", fresh), "no certificate that signs itself"),
            (Keys(KeysStep.ADD, own.certificate, fresh), "this node's own"),
            (Keys(KeysStep.DROP, stranger, a.ring.keys.heartbeat[0]), "not with that certificate"),
            (Keys(KeysStep.DROP, a.ring.keys.peers[0], fresh), "not known here"),
        ):
            before = testkeys.load(a.directory)
            n = len(a.said)
            a.rotation.hear(message)
            await until(lambda: len(a.said) > n)  # noqa: B023
            answer = a.said[-1]
            assert isinstance(answer, KeysAck)
            assert why in answer.refused
            assert testkeys.load(a.directory) == before
        assert a.counters.values()["keys.refused"] == 5
        assert b.io.connected

    run(pair, story)


def test_answers_that_nobody_asked_for(pair: dict[str, Path]) -> None:
    async def story(nodes: dict[str, Node]) -> None:
        before = testkeys.load(nodes["a"].directory)
        for _ in range(20):
            nodes["a"].rotation.hear(KeysAck(KeysStep.ADD))
        assert nodes["a"].counters.values()["keys.flooded"] > 0
        await asyncio.sleep(0.1)
        assert testkeys.load(nodes["a"].directory) == before
        await nodes["a"].rotation.begin()

    run(pair, story)


def test_a_pulse_thread_that_is_not_ready_yet(pair: dict[str, Path]) -> None:
    async def story(nodes: dict[str, Node]) -> None:
        nodes["a"].pulse.busy = 2
        await nodes["a"].rotation.begin()
        assert nodes["a"].pulse.keys == nodes["b"].pulse.keys

    run(pair, story)
