# SPDX-License-Identifier: Apache-2.0
"""The sync connection once it stands: C owns its socket, its TLS records and a lane (``csrc/channel.h``).

A batch or an acknowledgement of a quiet stream never comes here. Everything else does, as frames, in order:
``fd`` becomes readable, ``stats`` says why, ``take`` gives them. Who steps the core holds the lane before it
(``hold``: where the stream stands) and gives it a mode again afterwards (``resume``).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import TYPE_CHECKING, Final

from flexha.fastpath.errors import FastpathError
from flexha.fastpath.lib import ffi, lib
from flexha.fastpath.marshal import lib_constant

if TYPE_CHECKING:
    from flexha.fastpath import Fastpath
    from flexha.fastpath.lib import CData

_PLACES_MAX: Final = 4096
_WORKERS_MAX: Final = lib_constant("FP_WORKERS_MAX")
_KEY_BYTES: Final = 32


class LaneMode(IntEnum):
    """What goes the short way."""

    OFF = lib_constant("FP_LANE_OFF")
    SEND = lib_constant("FP_LANE_SEND")
    RECEIVE = lib_constant("FP_LANE_RECEIVE")


class Ask(IntFlag):
    """What the lane, or the record layer, waits for."""

    DRAIN = lib_constant("FP_ASK_DRAIN")
    IMPORTED = lib_constant("FP_ASK_IMPORTED")
    KEYS_IN = lib_constant("FP_ASK_KEYS_IN")
    KEYS_OUT = lib_constant("FP_ASK_KEYS_OUT")


class Ended(IntEnum):
    """How a connection has ended."""

    NOT = lib_constant("FP_END_NOT")
    CLOSED = lib_constant("FP_END_CLOSED")
    ERROR = lib_constant("FP_END_ERROR")
    GARBAGE = lib_constant("FP_END_GARBAGE")
    ALERT = lib_constant("FP_END_ALERT")


@dataclass(frozen=True, slots=True)
class RecordKeys:
    """One direction of TLS 1.3 (RFC 8446 §7.3). ``seq``: number of its next record."""

    key: bytes
    iv: bytes
    seq: int = 0


@dataclass(frozen=True, slots=True)
class RecordLayer:
    """``suite``: IANA's number, as of TLS_AES_128_GCM_SHA256. ``records_max``: with one key of ours."""

    suite: int
    read: RecordKeys
    write: RecordKeys
    records_max: int


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """As of ``flexha.core.sync_sender.SyncLimits``; ``pause_us``: between two batches that are not full."""

    frame_bytes_max: int
    batch_records: int
    window_batches: int
    window_bytes: int
    pause_us: int


@dataclass(frozen=True, slots=True)
class SentBatch:
    """One that is not acknowledged. ``marks``: by worker, the last ``ev_seq`` in it; ``n``: records."""

    n: int
    marks: Mapping[int, int]
    frame: bytes


@dataclass(frozen=True, slots=True)
class PartlyTaken:
    """The last batch that was received: ``places`` of its ``n`` records were not taken. Not acknowledged."""

    n: int
    taken: int
    places: tuple[int, ...]
    absurd: int


@dataclass(frozen=True, slots=True)
class LaneState:
    """Where the stream stands, and what has happened since ``resume``.

    ``heard_ns``, ``said_ns``: 0 for nothing. ``sent``: batches that were not in the window by then, and wait
    to be acknowledged; the last ones up to ``sent_seq``. Bytes are those of frames.
    """

    mode: LaneMode
    sent_seq: int
    acked_seq: int
    received_seq: int
    imported_seq: int
    heard_ns: int
    said_ns: int
    bytes_in: int
    bytes_out: int
    records_in: int
    records_out: int
    unknown: int
    sent: tuple[SentBatch, ...]
    part: PartlyTaken | None


@dataclass(frozen=True, slots=True)
class ChannelStats:
    """``error``: errno, or the number of the alert. ``ready``: bytes of frames that wait for us."""

    bytes_in: int
    bytes_out: int
    unsent: int
    ended: Ended
    error: int
    asks: Ask
    ready: int


class Channel:
    """A connection, from the moment when it stands to ``close``."""

    def __init__(
        self,
        fastpath: Fastpath | None,
        fd: int,
        limits: LaneLimits,
        *,
        tls: RecordLayer | None = None,
        plain: bytes = b"",
        rest: bytes = b"",
    ) -> None:
        """Take over the connected socket ``fd``; ``rest`` was read already, and ``plain`` understood.

        Without ``fastpath`` there is no lane. Raises: FastpathError, and ``fd`` is still the caller's.
        """
        cfg = ffi.new("struct fp_channel_cfg *")
        cfg.fd = fd
        cfg.frame_max, cfg.batch_records = limits.frame_bytes_max, limits.batch_records
        cfg.window_batches, cfg.window_bytes = limits.window_batches, limits.window_bytes
        cfg.pause_us = limits.pause_us
        if tls is not None:
            cfg.suite, cfg.records_max = tls.suite, tls.records_max
            _set_keys(getattr(cfg, "in"), tls.read)
            _set_keys(cfg.out, tls.write)
        out = ffi.new("fp_channel **")
        dp = fastpath.handle if fastpath is not None else ffi.NULL
        _ensure(
            lib.fp_channel_open(dp, cfg, plain, len(plain), rest, len(rest), out),
            "fp_channel_open",
        )
        ffi.buffer(cfg)[:] = bytes(ffi.sizeof("struct fp_channel_cfg"))
        self._channel: CData = out[0]
        self._fastpath = fastpath
        """Outlives the channel."""
        self._room: Final = ffi.new("uint8_t[]", limits.frame_bytes_max + 4)
        self._state: Final = ffi.new("struct fp_lane_state *")
        self._orders: Final = ffi.new("struct fp_lane_state *")
        self._sent: Final = ffi.new("struct fp_sent *")
        self._stats: Final = ffi.new("struct fp_channel_stats *")
        self.fd: Final = _ensure(lib.fp_channel_fd(self._channel), "fp_channel_fd")
        """Readable when there is something to look at."""

    def clear_wakeup(self) -> None:
        """Make ``fd`` unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def send(self, data: bytes) -> int:
        """Send frames; how many bytes wait now. Those of a connection that has ended go nowhere."""
        waiting: int = lib.fp_channel_send(self._channel, data, len(data))
        if waiting == -errno.EPIPE:
            return 0
        return _ensure(waiting, "fp_channel_send")

    def take(self) -> bytes:
        """Whole frames that are for us; holds the lane."""
        n = _ensure(lib.fp_channel_take(self._channel, self._room, len(self._room)), "fp_channel_take")
        return bytes(ffi.buffer(self._room, n))

    def stats(self) -> ChannelStats:
        """What has happened, and what waits."""
        out = self._stats
        _ensure(lib.fp_channel_stats_read(self._channel, out), "fp_channel_stats_read")
        return ChannelStats(
            out.bytes_in, out.bytes_out, out.unsent, Ended(out.ended), out.error, Ask(out.asks), out.ready
        )

    # ---- the lane ----
    def hold(self) -> LaneState:
        """Nothing moves from here on, until ``resume``."""
        state = self._state
        _ensure(lib.fp_channel_hold(self._channel, state), "fp_channel_hold")
        return LaneState(
            mode=LaneMode(state.mode),
            sent_seq=state.sent_seq,
            acked_seq=state.acked_seq,
            received_seq=state.received_seq,
            imported_seq=state.imported_seq,
            heard_ns=state.heard_ns,
            said_ns=state.said_ns,
            bytes_in=state.bytes_in,
            bytes_out=state.bytes_out,
            records_in=state.records_in,
            records_out=state.records_out,
            unknown=state.unknown,
            sent=tuple(self._next_sent() for _ in range(state.n_new)),
            part=self._part(state.part_n, state.part_taken) if state.part_n else None,
        )

    def _next_sent(self) -> SentBatch:
        sent, room = self._sent, self._room
        size = _ensure(lib.fp_channel_sent(self._channel, sent, room, len(room)), "fp_channel_sent")
        marks = {worker: mark for worker, mark in enumerate(sent.marks) if mark}
        return SentBatch(sent.n, marks, bytes(ffi.buffer(room, size)))

    def _part(self, n: int, taken: int) -> PartlyTaken:
        places, absurd = ffi.new("uint16_t[]", _PLACES_MAX), ffi.new("uint32_t *")
        n_places = _ensure(lib.fp_channel_part(self._channel, places, _PLACES_MAX, absurd), "fp_channel_part")
        return PartlyTaken(n, taken, tuple(ffi.unpack(places, n_places)), absurd[0])

    def resume(
        self,
        mode: LaneMode,
        *,
        sent_seq: int,
        acked_seq: int,
        received_seq: int,
        imported_seq: int,
        window: Sequence[SentBatch] | None,
    ) -> None:
        """Go on from here. ``window``: what is not acknowledged; None: as ``hold`` has told it."""
        orders = self._orders
        orders.mode = mode
        orders.sent_seq, orders.acked_seq = sent_seq, acked_seq
        orders.received_seq, orders.imported_seq = received_seq, imported_seq
        entries: CData = ffi.NULL
        if window is not None:
            entries = ffi.new("struct fp_sent[]", max(1, len(window)))
            for entry, sent in zip(entries, window, strict=False):
                entry.n, entry.size = sent.n, len(sent.frame)
                for worker, mark in sent.marks.items():
                    entry.marks[worker] = mark
        _ensure(lib.fp_channel_resume(self._channel, orders, entries, len(window or ())), "fp_channel_resume")

    # ---- the record layer ----
    def rekey(self, *, read: RecordKeys | None = None, write: RecordKeys | None = None) -> None:
        """Keys of a key update (RFC 8446 §7.2). The peer is told of ours before they are used.

        A connection that has ended needs none any more.
        """
        pointers = [ffi.NULL, ffi.NULL]
        for i, keys in enumerate((read, write)):
            if keys is not None:
                pointers[i] = ffi.new("struct fp_tls_keys *")
                _set_keys(pointers[i], keys)
        rc = lib.fp_channel_rekey(self._channel, *pointers)
        if rc != -errno.EPIPE:
            _ensure(rc, "fp_channel_rekey")

    def close(self, linger_s: float) -> None:
        """End it: what waits is sent for so long; 0: cut. Idempotent."""
        if self._channel != ffi.NULL:
            lib.fp_channel_close(self._channel, int(linger_s * 1000))
            self._channel = ffi.NULL


def _set_keys(out: CData, keys: RecordKeys) -> None:
    ffi.memmove(out.key, keys.key.ljust(_KEY_BYTES, b"\0"), _KEY_BYTES)
    ffi.memmove(out.iv, keys.iv, len(out.iv))
    out.seq = keys.seq


def _ensure(rc: int, call: str) -> int:
    if rc < 0:
        raise FastpathError(-rc, call)
    return rc
