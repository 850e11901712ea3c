# SPDX-License-Identifier: Apache-2.0
"""Structured logs on stderr: ``time level event key=value ...``, or one JSON object a line.

A record is an event name and fields. Lines are written by a thread of their own behind a bounded queue: a
reader of stderr that stalls (a full pipe) must not stall heartbeats; what does not fit is counted and said.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import IO, Literal

QUEUE_RECORDS_MAX = 8192
STOP_TIMEOUT_S = 1.0

Format = Literal["text", "json"]

_logger = logging.getLogger("flexha")


def event(level: int | str, name: str, /, **fields: object) -> None:
    """Log one event. ``level``: a number of ``logging``, or its name."""
    number = level if isinstance(level, int) else logging.getLevelNamesMapping()[level.upper()]
    if _logger.isEnabledFor(number):
        _logger.log(number, "%s", name, extra={"fields": fields})


def debug(name: str, /, **fields: object) -> None:
    """For developers."""
    event(logging.DEBUG, name, **fields)


def info(name: str, /, **fields: object) -> None:
    """What an operator expects to see."""
    event(logging.INFO, name, **fields)


def warning(name: str, /, **fields: object) -> None:
    """Something is off, and was handled."""
    event(logging.WARNING, name, **fields)


def error(name: str, /, **fields: object) -> None:
    """Something failed."""
    event(logging.ERROR, name, **fields)


def exception(name: str, problem: BaseException, /, **fields: object) -> None:
    """A bug of ours: the traceback goes with it."""
    _logger.error("%s", name, extra={"fields": fields}, exc_info=problem)


def plain(value: object) -> object:
    """A value as JSON can hold it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return value.hex()
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _:
            return str(value)


def _quoted(value: object) -> str:
    simple = plain(value)
    if not isinstance(simple, str):
        return json.dumps(simple, separators=(",", ":"))
    return simple if simple and not any(c in simple for c in ' "=\n\t') else json.dumps(simple)


class _Formatter(logging.Formatter):
    def __init__(self, node: str, form: Format) -> None:
        super().__init__()
        self._node = node
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback is part of it, with its newlines escaped."""
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields: dict[str, object] = dict(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[0] is not None:
            fields["traceback"] = self.formatException(record.exc_info)
        level = record.levelname.lower()
        if self._form == "json":
            head = {"time": stamp, "level": level, "node": self._node, "event": record.getMessage()}
            return json.dumps({**head, **{key: plain(value) for key, value in fields.items()}})
        pairs = (f"{key}={_quoted(value)}" for key, value in fields.items())
        return " ".join((stamp, level, f"node={self._node}", record.getMessage(), *pairs))


class _BoundedHandler(QueueHandler):
    """Drops what does not fit, and counts it."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Same process: nothing needs to be pickled, and formatting is left to the writing thread."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            return
        if self.dropped:
            count, self.dropped = self.dropped, 0
            warning("log.dropped", records=count)


class _Output(logging.StreamHandler[IO[str]]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Nobody reads stderr any more, so there is nobody to tell."""


class _PatientListener(QueueListener):
    """Ends even if nobody reads stderr any more."""

    _thread: threading.Thread | None

    def stop(self) -> None:
        """Write what waits, for a bounded time; the thread is a daemon and dies with the process."""
        if self._thread is None:
            return
        with contextlib.suppress(queue.Full):
            self.enqueue_sentinel()
        self._thread.join(STOP_TIMEOUT_S)
        self._thread = None


class LogThread:
    """Logging from ``start`` to ``stop``."""

    def __init__(self, node: str, level: str, form: Format, stream: IO[str] | None = None) -> None:
        records: queue.Queue[logging.LogRecord] = queue.Queue(QUEUE_RECORDS_MAX)
        output = _Output(stream or sys.stderr)
        output.setFormatter(_Formatter(node, form))
        self._handler = _BoundedHandler(records)
        self._listener = _PatientListener(records, output)
        _logger.setLevel(level.upper())
        _logger.propagate = False

    def start(self) -> None:
        """Begin."""
        _logger.addHandler(self._handler)
        self._listener.start()

    def stop(self) -> None:
        """End; what waits is written first. Idempotent."""
        _logger.removeHandler(self._handler)
        self._listener.stop()
