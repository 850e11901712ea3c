# SPDX-License-Identifier: Apache-2.0
"""The kernel's routes and neighbours on the host TAPs, mirrored into the fast path.

The kernel is the source of truth: it runs ARP, and whoever installs routes (this daemon from its
configuration, an operator, FRR or BIRD). We listen, and commit an immutable snapshot a few milliseconds after
the first change of a burst. Nothing is forwarded by that kernel, so it would neither resolve nor refresh our
next hops by itself: we install them as *managed* neighbours, which it keeps resolved.

One thing the kernel cannot hear: who asks by ARP for a VIP, which the fast path answers for. A host that has
got another MAC address often says so nowhere else, so workers tell us, and we tell the kernel.

A neighbour that a worker asked for and that does not answer is deleted again (NUD_FAILED), so that the kernel
does not probe for absent hosts for ever; gateways of routes stay.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from flexha.errors import NetlinkError
from flexha.fastpath import Address, Fastpath, FastpathError, Neighbour, Route, Way
from flexha.shell import log
from flexha.shell.counters import Counters
from flexha.shell.rtnl import (
    GROUP_IPV4_ROUTE,
    GROUP_LINK,
    GROUP_NEIGH,
    NUD_FAILED,
    NUD_STATIC,
    Change,
    KernelNeighbour,
    KernelRoute,
    LinkChanged,
    Listener,
    NeighbourChanged,
    RoutesChanged,
    Rtnl,
)

COMMIT_DELAY_S = 0.002
"""Changes within this time make one snapshot."""
DATAGRAMS_MAX = 8
"""Read in one turn of the loop: about 1 ms of decoding."""
MANAGED_MAX = 8192
"""Neighbours that the kernel keeps resolved for us."""
RESYNC_DELAY_S = 0.02
UNANSWERED_DELAY_S = 0.5
"""After lost or unclear changes: everything is dumped anew."""


class Mirror:
    """Routes and neighbours of the host TAPs. ``ports``: index of the host TAP -> index of the port;
    ``inside``: routes to nowhere for each snapshot, so that a route that goes does not change the zone;
    ``configured``: what is known to be behind each port, for while it is the peer's that leads there;
    ``learned``: ports behind which a routing daemon finds the ways: what it has no way to, the peer may have.
    """

    def __init__(
        self,
        fastpath: Fastpath,
        rtnl: Rtnl,
        ports: Mapping[int, int],
        counters: Counters,
        inside: Sequence[Route] = (),
        configured: Sequence[Route] = (),
        learned: Collection[int] = (),
    ) -> None:
        self._learned = learned
        self._configured = configured
        self._by_peer: frozenset[int] = frozenset()
        self._inside = inside
        self._fastpath = fastpath
        self._rtnl = rtnl
        self._ports = dict(ports)
        self._devices = {port: index for index, port in ports.items()}
        self._counters = counters
        self._routes: set[KernelRoute] = set()
        self._neighbours: dict[tuple[int, IPv4Address], bytes] = {}
        self._static: set[tuple[int, IPv4Address]] = set()
        self._managed: set[tuple[int, IPv4Address]] = set()
        self._gateways: set[tuple[int, IPv4Address]] = set()
        self._up: dict[int, bool] = {}
        self._listener: Listener | None = None
        self._commit_timer: asyncio.TimerHandle | None = None
        self._resync_timer: asyncio.TimerHandle | None = None

    # ---- life ----
    def start(self) -> None:
        """Listen, dump, commit the first snapshot."""
        self._listener = Listener(None, GROUP_LINK | GROUP_NEIGH | GROUP_IPV4_ROUTE)
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._on_readable)
        self.resync()

    def stop(self) -> None:
        """Listen no more."""
        for timer in (self._commit_timer, self._resync_timer):
            if timer:
                timer.cancel()
        if self._listener:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None

    def resync(self) -> None:
        """Dump routes and neighbours, and commit."""
        self._resync_timer = None
        try:
            routes, neighbours = self._rtnl.routes(), self._rtnl.neighbours()
        except NetlinkError as error:
            self._counters.add("netlink.dump_failed")
            log.warning("netlink.dump_failed", error=error)
            self._resync_soon()
            return
        self._routes = {route for route in routes if route.ifindex in self._ports}
        self._neighbours = {}
        self._static = set()
        for neighbour in neighbours:
            self._note(neighbour, gone=False)
        self._commit()

    def set_by_peer(self, ports: frozenset[int]) -> None:
        """What would leave by these ports leaves by the peer's, from now on; at once."""
        self._by_peer = ports
        self._commit()

    # ---- what the workers want ----
    def want(self, port: int, address: Address) -> None:
        """Frames wait for this neighbour: let the kernel resolve it. (The fast path limits the rate.)"""
        if not isinstance(address, IPv4Address):
            self._counters.add("neighbour.family_unsupported")
            return
        self._manage((self._devices[port], address))

    def moved(self, port: int, address: Address, mac: bytes) -> None:
        """A neighbour has said that its MAC address is another one: the kernel takes it, and verifies it.

        As the kernel does with requests for its own address, but without its second between two changes.
        """
        if not isinstance(address, IPv4Address):
            self._counters.add("neighbour.family_unsupported")
            return
        key = (self._devices[port], address)
        if key in self._static or self._neighbours.get(key, mac) == mac:
            return
        try:
            self._rtnl.move_neighbour(*key, mac)
        except NetlinkError as error:
            if error.errno != errno.ENOENT:  # it has gone meanwhile
                self._counters.add("neighbour.refused")
                log.warning("neighbour.refused", address=address, error=error)
            return
        self._counters.add("neighbour.moved")
        log.info("neighbour.moved", address=address, mac=mac.hex(":"))
        if key in self._managed or key in self._gateways:
            self._manage(key)

    def knows(self, port: int, address: IPv4Address) -> bool:
        """Has the kernel a MAC address for this neighbour?"""
        return (self._devices[port], address) in self._neighbours

    def _manage(self, key: tuple[int, IPv4Address]) -> None:
        if key not in self._managed and len(self._managed) >= MANAGED_MAX:
            self._counters.add("neighbour.managed_full")
            return
        try:
            self._rtnl.manage_neighbour(*key)
        except NetlinkError as error:
            self._counters.add("neighbour.refused")
            remedy = "raise net.ipv4.neigh.default.gc_thresh3" if error.errno == errno.ENOBUFS else None
            log.warning("neighbour.refused", address=key[1], error=error, remedy=remedy)
        else:
            self._managed.add(key)

    def _forget(self, key: tuple[int, IPv4Address]) -> None:
        self._managed.discard(key)
        try:
            self._rtnl.forget_neighbour(*key)
        except NetlinkError as error:
            log.warning("neighbour.kept", address=key[1], error=error)

    # ---- what the kernel says ----
    def _on_readable(self) -> None:
        for _ in range(DATAGRAMS_MAX):
            if self._listener is None:
                return
            try:
                changes = list(self._listener.receive())
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self._counters.add("netlink.overrun")
                self._resync_soon()
                return
            if not changes:
                return
            for change in changes:
                self._apply(change)

    def _apply(self, change: Change) -> None:
        match change:
            case NeighbourChanged(neighbour, gone):
                if neighbour.ifindex in self._ports and self._note(neighbour, gone=gone):
                    self._commit_soon()
            case RoutesChanged(routes, gone, replace):
                self._apply_routes(routes, gone=gone, replace=replace)
            case LinkChanged(link, gone):
                # A device that goes down loses its routes without a word for each.
                up = link.running and not gone
                if link.index in self._ports and self._up.get(link.index) != up:
                    self._up[link.index] = up
                    self._resync_soon()

    def _apply_routes(self, routes: tuple[KernelRoute, ...], *, gone: bool, replace: bool) -> None:
        before = set(self._routes)
        if replace:
            slots = {route.slot for route in routes}
            self._routes = {route for route in self._routes if route.slot not in slots}
        if gone:
            self._routes.difference_update(routes)
        else:
            self._routes.update(route for route in routes if route.ifindex in self._ports)
        if self._routes != before:
            self._commit_soon()

    def _note(self, neighbour: KernelNeighbour, *, gone: bool) -> bool:
        """Take a neighbour in; True if a snapshot is due."""
        key = (neighbour.ifindex, neighbour.address)
        if neighbour.ifindex not in self._ports or neighbour.address.is_multicast:
            return False
        if not gone and neighbour.state & NUD_STATIC:
            self._static.add(key)
        else:
            self._static.discard(key)
        if not gone and neighbour.usable and neighbour.mac is not None:
            if self._neighbours.get(key) == neighbour.mac:
                return False
            self._neighbours[key] = neighbour.mac
            return True
        if gone:
            self._managed.discard(key)
        elif neighbour.state & NUD_FAILED and key in self._managed and key not in self._gateways:
            self._forget(key)
        if neighbour.state & NUD_FAILED or gone:
            return self._neighbours.pop(key, None) is not None
        return False

    # ---- snapshots ----
    def _soon(self, delay_s: float, what: Callable[[], None]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(delay_s, what)

    def _commit_soon(self) -> None:
        if self._commit_timer is None:
            self._commit_timer = self._soon(COMMIT_DELAY_S, self._commit)

    def _resync_soon(self) -> None:
        if self._resync_timer is None:
            self._resync_timer = self._soon(RESYNC_DELAY_S, self.resync)

    def _commit(self) -> None:
        if self._commit_timer is not None:
            self._commit_timer.cancel()
            self._commit_timer = None
        best = best_routes(self._routes)
        gateways = {(route.ifindex, route.gateway) for route in best if route.gateway is not None}
        for key in gateways - self._gateways:
            self._manage(key)
        self._gateways = gateways
        routes = [
            Route(
                route.prefix.network_address,
                route.prefix.prefixlen,
                port,
                route.gateway,
                Way.PEER if port in self._by_peer else Way.HERE,
            )
            for route in best
            for port in (self._ports[route.ifindex],)
        ]
        # The kernel has dropped those of a device without carrier.
        routes.extend(
            replace(route, way=Way.PEER) for route in self._configured if route.port in self._by_peer
        )
        ways = {(route.prefix, route.plen) for route in routes}
        routes.extend(
            replace(route, way=Way.PEER)
            if route.port in self._learned and (route.prefix, route.plen) not in ways
            else route
            for route in self._inside
        )
        neighbours = [Neighbour(ip, mac, self._ports[index]) for (index, ip), mac in self._neighbours.items()]
        try:
            self._fastpath.commit_fib(routes, neighbours)
        except FastpathError as error:
            if error.errno == errno.ETIMEDOUT:
                # Its worker hangs; the others have the new one, or get it with the next one that it takes.
                self._counters.add("fib.unanswered")
                self._commit_timer = self._soon(UNANSWERED_DELAY_S, self._commit)
                return
            if error.errno not in {errno.E2BIG, errno.ENOMEM}:
                raise
            # Forwarding goes on with the snapshot before.
            self._counters.add("fib.refused")
            log.error("fib.refused", routes=len(routes), neighbours=len(neighbours), error=error)
        else:
            self._counters.add("fib.commits")

    @property
    def sizes(self) -> dict[str, int]:
        """How much is mirrored."""
        return {
            "routes": len(self._routes),
            "neighbours": len(self._neighbours),
            "managed": len(self._managed),
        }


def best_routes(routes: set[KernelRoute]) -> list[KernelRoute]:
    """One next hop for each prefix: the lowest priority, and among equals the lowest gateway (a total order,
    so that both nodes of a pair choose alike).
    """
    best: dict[IPv4Network, KernelRoute] = {}
    for route in routes:
        seen = best.get(route.prefix)
        if seen is None or _rank(route) < _rank(seen):
            best[route.prefix] = route
    return sorted(best.values(), key=lambda route: (route.prefix.network_address, route.prefix.prefixlen))


def _rank(route: KernelRoute) -> tuple[int, int, int]:
    return route.priority, int(route.gateway) if route.gateway else 0, route.ifindex
