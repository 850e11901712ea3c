# SPDX-License-Identifier: Apache-2.0
"""Readiness and liveness, told to whoever started us: sd_notify(3), and ``--ready-fd``."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(*assignments: str) -> None:
    """Send ``READY=1``, ``STATUS=...`` and the like; without a service manager it does nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),  # a manager that is gone must not stop us
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock,
    ):
        sock.sendto("\n".join(assignments).encode(), address)


def watchdog_interval_s() -> float | None:
    """Half of the manager's limit for ``WATCHDOG=1``; None if it does not watch this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / 2e6 if usec.isdigit() and int(usec) > 0 else None


def signal_ready(fd: int) -> None:
    """Write one line to ``--ready-fd`` and close it."""
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, b"ready\n")
    os.close(fd)
