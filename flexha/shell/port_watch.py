# SPDX-License-Identifier: Apache-2.0
"""Has a port its wire? A TAP's own carrier says nothing about it, so its devices are watched where they are.

A port is up while its wire TAP is up (and still in its bridge) and its ``uplink``, if it has one, has
carrier. The state is mirrored to the host device's carrier, so that a routing daemon on it reacts too.

With driver packet the wire is somebody else's device: when it has gone and comes back, sockets are opened
anew.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable

from flexha.errors import NetlinkError, StartError
from flexha.fastpath import Fastpath, FastpathError
from flexha.shell import log, plug
from flexha.shell.plug import PluggedPort
from flexha.shell.rtnl import GROUP_LINK, Link, LinkChanged, Listener, Rtnl


class PortWatch:
    """Watches one port in the namespace of its wire."""

    def __init__(self, port: PluggedPort, fastpath: Fastpath, changed: Callable[[str, bool], None]) -> None:
        self._port = port
        self._fastpath = fastpath
        self._changed = changed
        self._listener: Listener | None = None
        self._rtnl = Rtnl(port.plan.netns)
        self._bridge_index = 0
        if port.plan.bridge and (bridge := self._rtnl.link(port.plan.bridge)):
            self._bridge_index = bridge.index
        self._wire: Link | None = None
        self._uplink: Link | None = None
        self.up = True
        """What was last said. The core takes a port to be up until it hears otherwise."""

    def start(self) -> None:
        """Listen, look, and say so if the port is down."""
        self._listener = Listener(self._port.plan.netns, GROUP_LINK)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._on_readable)
        self._look()

    def stop(self) -> None:
        """Watch no more."""
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        self._rtnl.close()

    def _look(self) -> None:
        plan = self._port.plan
        self._wire = self._rtnl.link(plan.wire_dev)
        if plan.driver == "packet":
            self._follow()
        self._uplink = self._rtnl.link(plan.uplink) if plan.uplink else None
        self._judge()

    def _follow(self) -> None:
        """Is the device the one that the fast path has sockets on?"""
        port = self._port
        if self._wire is None:
            port.wire_index = 0
        elif self._wire.index != port.wire_index:
            try:
                index = plug.prepare(port.plan)
                self._fastpath.reopen_port(port.plan.index)
            except (StartError, NetlinkError, FastpathError) as error:
                # It is tried again when its link changes.
                log.warning("port.reopen_failed", port=port.plan.port, problem=str(error))
                self._wire = None
                return
            port.wire_index = index
            log.info("port.reopened", port=port.plan.port, device=port.plan.wire_dev)
            self._wire = self._rtnl.link(port.plan.wire_dev)

    def _on_readable(self) -> None:
        if self._listener is None:
            return
        try:
            changes = list(self._listener.receive())
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            self._look()
            return
        for change in changes:
            if isinstance(change, LinkChanged) and change.link.name in {
                self._port.plan.wire_dev,
                self._port.plan.uplink,
            }:
                if change.gone and change.link.name == self._port.plan.wire_dev:
                    self._port.wire_index = 0  # the next one may get the number of this one
                # Bridges announce their ports in a form of their own (AF_BRIDGE); ask for the whole.
                self._look()
                return

    def _judge(self) -> None:
        plan = self._port.plan
        up = (
            self._wire is not None
            and self._wire.running
            and (plan.bridge is None or self._wire.master == self._bridge_index)
            and (plan.uplink is None or (self._uplink is not None and self._uplink.running))
        )
        if up == self.up:
            return
        self.up = up
        log.event("info" if up else "warning", "port.up" if up else "port.down", port=plan.port)
        self._fastpath.set_carrier(plan.index, up=up)
        self._changed(plan.port, up)
