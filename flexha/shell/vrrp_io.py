# SPDX-License-Identifier: Apache-2.0
"""Frames between the wire and the core: adverts in; adverts and gratuitous ARPs out.

The same queue brings requests for neighbours and word of those that moved, which go to the mirror of the
kernel.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

from flexha.core.actions import SendFrame
from flexha.core.events import Event, VrrpFrameReceived
from flexha.fastpath import Address, Fastpath, FastpathError, NeighbourMoved, NeighbourWanted, PuntedFrame
from flexha.shell.counters import Counters


class VrrpIo:
    """Ports are named as in the core; the position is the index in the fast path."""

    def __init__(
        self,
        fastpath: Fastpath,
        ports: Sequence[str],
        post: Callable[[Event], None],
        want_neighbour: Callable[[int, Address], None],
        neighbour_moved: Callable[[int, Address, bytes], None],
        counters: Counters,
    ) -> None:
        self._fastpath = fastpath
        self._ports = tuple(ports)
        self._indices = {name: index for index, name in enumerate(ports)}
        self._post = post
        self._want_neighbour = want_neighbour
        self._neighbour_moved = neighbour_moved
        self._counters = counters

    def collect(self) -> None:
        """Take what the workers punted."""
        for punt in self._fastpath.punts():
            match punt:
                case PuntedFrame(_, port, frame):
                    self._post(VrrpFrameReceived(self._ports[port], frame))
                case NeighbourWanted(_, port, address):
                    self._want_neighbour(port, address)
                case NeighbourMoved(_, port, address, mac):
                    self._neighbour_moved(port, address, mac)

    def perform(self, action: SendFrame) -> None:
        """Queue a frame for the wire. A full queue is counted: adverts come again, and so do our ARPs."""
        try:
            self._fastpath.inject(self._indices[action.port], action.frame, fenced=action.fenced)
        except FastpathError as error:
            if error.errno not in {errno.ENOBUFS, errno.EAGAIN}:
                raise
            self._counters.add(f"inject.{action.port}.full")
