# SPDX-License-Identifier: Apache-2.0
"""Visits to named network namespaces (``/run/netns/NAME``).

A socket belongs to the namespace in which it was made, so a visit is as short as one ``socket()`` call: no
``await`` stands inside, and other threads are not affected (a namespace is a thread's, not a process's).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexha.errors import StartError

RUN_DIR = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def _setns(fd: int) -> None:
    """``os.setns`` came with Python 3.12."""
    if _libc.setns(fd, _CLONE_NEWNET) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


def open_fd(name: str) -> int:
    """A descriptor of the namespace, to enter it or for IFLA_NET_NS_FD."""
    try:
        return os.open(RUN_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(
            f"network namespace {name!r}: {error.strerror}; make it: ip netns add {name}"
        ) from error


def is_here(name: str) -> bool:
    """Whether it is the namespace that this thread is in."""
    fd = open_fd(name)
    try:
        there, here = os.fstat(fd), Path("/proc/thread-self/ns/net").stat()
    finally:
        os.close(fd)
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


def _enter(name: str) -> None:
    target = open_fd(name)
    try:
        _setns(target)
    except OSError as error:
        raise StartError(
            f"network namespace {name!r} cannot be entered: {error.strerror}; flexhad needs CAP_SYS_ADMIN "
            "for ports with a netns key"
        ) from error
    finally:
        os.close(target)


@contextmanager
def visited(name: str | None) -> Iterator[None]:
    """Run the body in the namespace; None: where we are.

    Raises: StartError if there is no such namespace, or no right to enter it.
    """
    if name is None:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(name)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)
