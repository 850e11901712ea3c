# SPDX-License-Identifier: Apache-2.0
"""A change of keys between two nodes that run, and go on running.

The node that is asked (``flexhactl pair rotate``) makes a new key with its certificate, and a new heartbeat
key. Then, over the sync connection::

    it                                          its peer
    keeps them beside the old ones ── add ──>   pins the certificate beside the old one, believes both
                                                heartbeat keys and signs with the new one
    uses them <──────────────────── ack ───     (on disk)
    connects anew, with the new certificate;
    sync resumes ────────────────── drop ─>     pins the new one only, believes the new one only
    forgets the old ones <───────── ack ───

At each moment each node believes what the other one uses, on disk too: whoever crashes, both find each other
again. The files say how far it got (see below); it goes on with the next connection. While one node
changes its keys, it refuses those of the other.

::

    rotation    node.*.next   state of the node that changes its keys
    -           (any)         none; what is next was never told to anybody
    present     present       adding
    present     -             dropping
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from flexha import files
from flexha.config import keyfiles
from flexha.config.keyfiles import NEXT, KeysError, fingerprint, heartbeat_id, validity
from flexha.core.keys_wire import Keys, KeysAck, KeysStep
from flexha.fastpath import Fastpath, FastpathError
from flexha.shell import log
from flexha.shell.counters import Counters
from flexha.shell.keyring import Keyring
from flexha.shell.sync_io import SyncIo

FILE_NAME = "rotation"
"""Beside the keys: the id of the heartbeat key that is new. It stands while this node changes its keys."""
MESSAGES_MAX = 8
"""That wait to be handled; a peer that sends more is not listened to."""
KEYS_BUSY_S = 0.05
KEYS_BUSY_TRIES = 40

Message = Keys | KeysAck
T = TypeVar("T")


class RotationError(Exception):
    """The change cannot begin, or did not go on."""


class Rotation:
    """Both parts: of the node that changes its keys, and of its peer."""

    def __init__(
        self,
        node: str,
        keyring: Keyring,
        sync: SyncIo,
        fastpath: Fastpath,
        say: Callable[[Message], None],
        counters: Counters,
    ) -> None:
        self._node = node
        self._ring = keyring
        self._sync = sync
        self._fastpath = fastpath
        self._say = say
        self._counters = counters
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(MESSAGES_MAX)
        self._worker: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[None] | None = None
        self._lock = asyncio.Lock()

    # ---- life ----
    def start(self) -> None:
        """Begin to listen."""
        self._sync.standing = self.connected
        self._worker = asyncio.get_running_loop().create_task(self._work())
        self._worker.add_done_callback(_raise_failure)

    def stop(self) -> None:
        """What is under way goes on after the next start."""
        if self._worker:
            self._worker.cancel()

    def hear(self, message: Message) -> None:
        """The peer said something about keys."""
        self._enqueue(message)

    def connected(self) -> None:
        """A connection stands: go on where it ended."""
        self._enqueue(None)

    def _enqueue(self, message: Message | None) -> None:
        try:
            self._queue.put_nowait(message)
        except asyncio.QueueFull:
            self._counters.add("keys.flooded")

    async def _work(self) -> None:
        while True:
            message = await self._queue.get()
            async with self._lock:
                try:
                    await self._handle(message)
                except (KeysError, OSError) as error:
                    # The disk, or somebody who edits files meanwhile: what was in use stays in use.
                    self._counters.add("keys.failed")
                    log.error("keys.failed", error=error, remedy="see the files named, then: pair rotate")
                    self._end(str(error))

    async def _handle(self, message: Message | None) -> None:
        match message:
            case None:
                await self._continue()
            case Keys(step=KeysStep.ADD):
                self._answer(message.step, await self._add(message))
            case Keys():
                self._answer(message.step, await self._drop(message))
            case KeysAck():
                await self._acknowledged(message)

    # ---- the node that changes its keys ----
    @property
    def _marker(self) -> Path:
        return self._ring.keys.directory / FILE_NAME

    def under_way(self) -> str | None:
        """The state that the files tell."""
        if not self._marker.exists():
            return None
        return "adding" if self._ring.keys.following else "dropping"

    async def begin(self) -> dict[str, object]:
        """Change the keys; returns when it is done.

        Raises: RotationError
        """
        tls = self._sync.tls
        if self._ring.keys.own is None:
            raise RotationError("sync.tls is false: a key must not cross in the clear; set it to true")
        if tls is None or tls.peer is None:
            refused = self._sync.refusal
            why = f"; it is refused: {refused}" if refused else ""
            raise RotationError(f"there is no sync connection; keys change while both nodes run{why}")
        if self._outcome:
            raise RotationError("keys are being changed already; see flexhactl pair show")
        outcome = self._outcome = asyncio.get_running_loop().create_future()
        try:
            async with self._lock:
                if self.under_way() is None:
                    await self._blocking(self._prepare)
                    await self._use()
                await self._continue()
            await outcome
        except (KeysError, OSError) as error:
            raise RotationError(str(error)) from error
        finally:
            self._outcome = None
        own = self._ring.keys.own
        assert own is not None
        _, ends = validity(own.certificate)
        return {
            "certificate": fingerprint(own.certificate),
            "ends": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
            "heartbeat_key": heartbeat_id(self._ring.keys.heartbeat[0]),
        }

    def _prepare(self) -> None:
        """New keys beside the old ones. The marker is written before anything depends on it."""
        keys = self._ring.keys
        assert keys.own
        if len(keys.heartbeat) > 1:
            raise KeysError(
                "a change of the peer's keys is not finished; finish it there: flexhactl pair rotate"
            )
        fresh = keyfiles.new_heartbeat_key()
        following = keyfiles.make_identity(f"flexha node {self._node}", datetime.now(UTC))
        keyfiles.write_identity(keys.directory, following, suffix=NEXT)
        files.replace(self._marker, f"{heartbeat_id(fresh)}\n".encode())
        keyfiles.write_heartbeat(keys.directory, (keys.heartbeat[0], fresh))

    def _fresh(self) -> bytes | None:
        """The heartbeat key that is new."""
        wanted = self._marker.read_bytes()[:64].decode("ascii", "replace").strip()
        return next((key for key in self._ring.keys.heartbeat if heartbeat_id(key) == wanted), None)

    async def _continue(self) -> None:
        """Say what is due in the state that the files tell."""
        keys, state, tls = self._ring.keys, self.under_way(), self._sync.tls
        if state is None or tls is None or keys.own is None:
            return
        fresh = self._fresh()
        if fresh is None:
            await self._abandon("it had only just begun when the daemon ended")
        elif state == "adding":
            assert keys.following
            self._say(Keys(KeysStep.ADD, keys.following.certificate, fresh))
        elif tls.own != keys.own.certificate:
            self._sync.close("the keys have changed")
        else:
            if keys.heartbeat[0] != fresh:  # we ended between the two files
                await self._blocking(self._sign_with, fresh)
                await self._use()
            self._say(Keys(KeysStep.DROP, keys.own.certificate, fresh))

    def _sign_with(self, fresh: bytes) -> None:
        others = [key for key in self._ring.keys.heartbeat if key != fresh]
        keyfiles.write_heartbeat(self._ring.keys.directory, [fresh, *others])

    async def _acknowledged(self, ack: KeysAck) -> None:
        state, fresh = self.under_way(), self._fresh() if self.under_way() else None
        if state is None or fresh is None:
            return
        if ack.refused:
            if state == "adding":
                await self._abandon(f"the peer refuses: {ack.refused}")
            else:
                log.warning("keys.refused", step=ack.step, reason=ack.refused)
                self._end(f"the peer refuses: {ack.refused}")
        elif state == "adding" and ack.step is KeysStep.ADD:
            await self._blocking(keyfiles.promote, self._ring.keys.directory)
            await self._blocking(self._sign_with, fresh)
            await self._use()
            self._sync.close("the keys have changed")
        elif state == "dropping" and ack.step is KeysStep.DROP:
            await self._blocking(self._finish, fresh)
            await self._use()
            self._counters.add("keys.rotated")
            assert self._ring.keys.own
            log.info("keys.rotated", certificate=fingerprint(self._ring.keys.own.certificate)[:16])
            self._end(None)

    def _finish(self, fresh: bytes) -> None:
        keyfiles.write_heartbeat(self._ring.keys.directory, [fresh])
        self._unmark()

    def _unmark(self) -> None:
        self._marker.unlink(missing_ok=True)
        files.sync_directory(self._ring.keys.directory)

    async def _abandon(self, reason: str) -> None:
        """The peer has nothing of it: all is as it was."""
        fresh = self._fresh()

        def undo() -> None:
            keyfiles.discard_next(self._ring.keys.directory)
            keyfiles.write_heartbeat(
                self._ring.keys.directory, [key for key in self._ring.keys.heartbeat if key != fresh]
            )
            self._unmark()

        await self._blocking(undo)
        await self._use()
        log.warning("keys.abandoned", reason=reason)
        self._end(reason)

    def _end(self, error: str | None) -> None:
        if self._outcome and not self._outcome.done():
            if error:
                self._outcome.set_exception(RotationError(error))
            else:
                self._outcome.set_result(None)

    # ---- its peer ----
    def _answer(self, step: KeysStep, refused: str) -> None:
        if refused:
            self._counters.add("keys.refused")
            log.warning("keys.refused", step=step, reason=refused)
        self._say(KeysAck(step, refused))

    async def _add(self, message: Keys) -> str:
        """Believe these, too. Returns why not, or nothing."""
        keys, tls = self._ring.keys, self._sync.tls
        if tls is None or tls.peer is None or keys.own is None:
            return "sync is not encrypted here"
        if self.under_way():
            return f"node {self._node} changes its own keys now; try again"
        if problem := keyfiles.why_not(message.certificate, datetime.now(UTC)):
            return f"the certificate {problem}"
        if message.certificate == keys.own.certificate:
            return "the certificate is this node's own"
        pinned = list(dict.fromkeys((tls.peer, message.certificate)))
        believed = list(dict.fromkeys((message.heartbeat, keys.heartbeat[0])))

        def believe() -> None:
            keyfiles.write_peers(keys.directory, pinned)
            keyfiles.write_heartbeat(keys.directory, believed)

        await self._blocking(believe)
        await self._use()
        log.info("keys.pinned", certificate=fingerprint(message.certificate)[:16], beside="the old one")
        return ""

    async def _drop(self, message: Keys) -> str:
        """Believe these only. Returns why not, or nothing."""
        keys, tls = self._ring.keys, self._sync.tls
        if tls is None or tls.peer != message.certificate or message.certificate not in keys.peers:
            return "the connection is not with that certificate"
        if message.heartbeat not in keys.heartbeat:
            return "the heartbeat key is not known here"

        def believe() -> None:
            keyfiles.write_peers(keys.directory, [message.certificate])
            keyfiles.write_heartbeat(keys.directory, [message.heartbeat])

        await self._blocking(believe)
        await self._use()
        log.info("keys.pinned", certificate=fingerprint(message.certificate)[:16], beside="none")
        return ""

    # ---- both ----
    async def _use(self) -> None:
        """What the files say now is in use: for heartbeats at once, for sync from the next connection on."""
        await self._blocking(self._ring.reload)
        assert self._ring.tls
        self._sync.set_tls(self._ring.tls)
        for _ in range(KEYS_BUSY_TRIES):
            try:
                self._fastpath.set_pulse_keys(self._ring.keys.heartbeat)
            except FastpathError as error:
                if error.errno != errno.EBUSY:
                    raise
                await asyncio.sleep(KEYS_BUSY_S)  # the pulse thread has not turned to the last ones yet
            else:
                return
        raise KeysError("the heartbeat thread does not take new keys; restart this node")

    @staticmethod
    async def _blocking(function: Callable[..., T], *args: object) -> T:
        """Files are written in a thread: the loop does not wait for the disk."""
        return await asyncio.get_running_loop().run_in_executor(None, function, *args)


def _raise_failure(task: asyncio.Task[None]) -> None:
    """A task that fails is a bug: let the loop's exception handler see it now."""
    if not task.cancelled() and (problem := task.exception()):
        raise problem
