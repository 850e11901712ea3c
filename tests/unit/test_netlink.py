# SPDX-License-Identifier: Apache-2.0
"""The mirror of routes and neighbours, against a kernel and a fast path that only remember."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import cast

import pytest

from flexha.errors import NetlinkError
from flexha.fastpath import Fastpath, FastpathError, Neighbour, Route, Way
from flexha.shell import netlink
from flexha.shell.counters import Counters
from flexha.shell.netlink import Mirror, best_routes
from flexha.shell.rtnl import (
    IFF_LOWER_UP,
    IFF_UP,
    Change,
    KernelNeighbour,
    KernelRoute,
    Link,
    LinkChanged,
    NeighbourChanged,
    RoutesChanged,
    Rtnl,
)

LAN, WAN, OTHER = 11, 12, 13
"""Device indices: the first two are host TAPs, of port 0 and port 1."""
MAC = bytes.fromhex("020000000001")
OTHER_MAC = bytes.fromhex("020000000002")
REACHABLE, STALE, INCOMPLETE, FAILED, NOARP, PERMANENT = 0x02, 0x04, 0x01, 0x20, 0x40, 0x80

DEFAULT = IPv4Network("0.0.0.0/0")
NET = IPv4Network("10.0.0.0/8")
GATEWAY = IPv4Address("203.0.113.1")
HOST = IPv4Address("198.51.100.10")


class FakeFastpath:
    def __init__(self) -> None:
        self.commits: list[tuple[list[Route], list[Neighbour]]] = []
        self.refusal: int | None = None

    def commit_fib(self, routes: Iterable[Route], neighbours: Iterable[Neighbour]) -> None:
        if self.refusal is not None:
            raise FastpathError(self.refusal, "fp_fib_commit")
        self.commits.append((list(routes), list(neighbours)))


class FakeRtnl:
    def __init__(self) -> None:
        self.kernel_routes: list[KernelRoute] = []
        self.kernel_neighbours: list[KernelNeighbour] = []
        self.managed: list[tuple[int, IPv4Address]] = []
        self.forgotten: list[tuple[int, IPv4Address]] = []
        self.moved: list[tuple[int, IPv4Address, bytes]] = []
        self.refusal: int | None = None

    def routes(self) -> list[KernelRoute]:
        self._maybe_refuse("list routes")
        return self.kernel_routes

    def neighbours(self) -> list[KernelNeighbour]:
        return self.kernel_neighbours

    def manage_neighbour(self, index: int, address: IPv4Address) -> None:
        self._maybe_refuse(f"resolve neighbour {address}")
        self.managed.append((index, address))

    def forget_neighbour(self, index: int, address: IPv4Address) -> None:
        self._maybe_refuse(f"forget neighbour {address}")
        self.forgotten.append((index, address))

    def move_neighbour(self, index: int, address: IPv4Address, mac: bytes) -> None:
        self._maybe_refuse(f"move neighbour {address}")
        self.moved.append((index, address, mac))

    def _maybe_refuse(self, what: str) -> None:
        if self.refusal is not None:
            raise NetlinkError(self.refusal, what)


class Bench:
    """A mirror whose changes are fed by hand."""

    def __init__(self, *inside: Route, learned: tuple[int, ...] = ()) -> None:
        self.fastpath, self.rtnl, self.counters = FakeFastpath(), FakeRtnl(), Counters()
        self.mirror = Mirror(
            cast(Fastpath, self.fastpath),
            cast(Rtnl, self.rtnl),
            {LAN: 0, WAN: 1},
            self.counters,
            inside,
            (Route(NET.network_address, 8, 1),),
            learned,
        )

    def change(self, *changes: Change) -> None:
        for change in changes:
            self.mirror._apply(change)

    @property
    def routes(self) -> list[Route]:
        return self.fastpath.commits[-1][0]

    @property
    def neighbours(self) -> list[Neighbour]:
        return self.fastpath.commits[-1][1]

    async def settle(self) -> None:
        """What has been put off is done."""
        async with asyncio.timeout(5):
            while self.mirror._resync_timer or self.mirror._commit_timer:
                await asyncio.sleep(0)


def run(story: Callable[[Bench], Awaitable[None]], *inside: Route) -> None:
    async def whole() -> None:
        bench = Bench(*inside)
        bench.mirror.resync()
        await story(bench)

    asyncio.run(whole())


def route(prefix: IPv4Network, gateway: IPv4Address | None, index: int, priority: int = 0) -> KernelRoute:
    return KernelRoute(prefix, gateway, index, priority)


def added(*routes: KernelRoute, replace: bool = False) -> RoutesChanged:
    return RoutesChanged(routes, gone=False, replace=replace)


def neighbour(
    state: int, address: IPv4Address = HOST, index: int = LAN, mac: bytes | None = MAC
) -> KernelNeighbour:
    return KernelNeighbour(index, address, mac, state)


def heard(state: int, **kwargs: object) -> NeighbourChanged:
    return NeighbourChanged(neighbour(state, **kwargs), gone=False)  # type: ignore[arg-type]


# ---- routes ------------------------------------------------------------------------------------------------
def test_only_routes_over_our_ports_are_mirrored() -> None:
    async def story(bench: Bench) -> None:
        bench.change(added(route(DEFAULT, GATEWAY, WAN, 4000), route(NET, GATEWAY, OTHER)))
        await bench.settle()
        assert bench.routes == [Route(IPv4Address("0.0.0.0"), 0, 1, GATEWAY)]

    run(story)


def test_the_best_route_of_a_prefix_is_used_and_replaced_when_it_goes() -> None:
    async def story(bench: Bench) -> None:
        good, bad = route(NET, GATEWAY, WAN, 20), route(NET, IPv4Address("203.0.113.2"), WAN, 4000)
        bench.change(added(bad), added(good))
        await bench.settle()
        assert bench.routes[0].gateway == GATEWAY
        bench.change(RoutesChanged((good,), gone=True, replace=False))
        await bench.settle()
        assert bench.routes[0].gateway == bad.gateway

    run(story)


def test_a_replacing_route_takes_the_slot() -> None:
    async def story(bench: Bench) -> None:
        bench.change(added(route(NET, GATEWAY, WAN, 20)))
        bench.change(added(route(NET, HOST, LAN, 20), replace=True))
        await bench.settle()
        assert bench.routes == [Route(NET.network_address, 8, 0, HOST)]

    run(story)


def test_what_is_inside_is_said_with_every_snapshot() -> None:
    inside = Route(NET.network_address, 8, 0, way=Way.NOWHERE)

    async def story(bench: Bench) -> None:
        bench.change(added(route(DEFAULT, GATEWAY, WAN, 4000)))
        await bench.settle()
        assert bench.routes == [Route(IPv4Address("0.0.0.0"), 0, 1, GATEWAY), inside]
        bench.change(RoutesChanged((route(DEFAULT, GATEWAY, WAN, 4000),), gone=True, replace=False))
        await bench.settle()
        assert bench.routes == [inside]

    run(story, inside)


def test_what_a_routing_daemon_has_no_way_to_is_the_peers() -> None:
    """Spec: R5, R8."""
    inside = Route(NET.network_address, 8, 0, way=Way.NOWHERE)

    async def whole() -> None:
        bench = Bench(inside, learned=(0,))
        bench.mirror.resync()
        assert bench.routes == [replace(inside, way=Way.PEER)]
        bench.change(added(route(NET, HOST, LAN, 20)))
        await bench.settle()
        assert bench.routes == [Route(NET.network_address, 8, 0, HOST), inside]
        bench.change(RoutesChanged((route(NET, HOST, LAN, 20),), gone=True, replace=False))
        await bench.settle()
        assert bench.routes == [replace(inside, way=Way.PEER)]

    asyncio.run(whole())


def test_a_port_that_the_peer_stands_in_for() -> None:
    """What the kernel still knows, and what it has dropped, goes by the peer, as long as it is to."""

    async def story(bench: Bench) -> None:
        bench.change(added(route(DEFAULT, GATEWAY, WAN, 4000), route(NET, HOST, LAN, 20)))
        await bench.settle()
        here = bench.routes
        bench.mirror.set_by_peer(frozenset({1}))
        assert bench.routes == [
            Route(IPv4Address("0.0.0.0"), 0, 1, GATEWAY, Way.PEER),
            Route(NET.network_address, 8, 0, HOST),
            Route(NET.network_address, 8, 1, way=Way.PEER),
        ]
        bench.mirror.set_by_peer(frozenset())
        assert bench.routes == here

    run(story)


def test_the_choice_among_equals_is_the_same_on_both_nodes() -> None:
    equals = {route(NET, IPv4Address(f"203.0.113.{n}"), WAN, 5) for n in range(1, 6)}
    assert best_routes(equals) == [route(NET, GATEWAY, WAN, 5)]


def test_gateways_are_kept_resolved_without_traffic() -> None:
    async def story(bench: Bench) -> None:
        bench.change(added(route(DEFAULT, GATEWAY, WAN)))
        await bench.settle()
        assert bench.rtnl.managed == [(WAN, GATEWAY)]
        bench.change(heard(FAILED, address=GATEWAY, index=WAN, mac=None))
        assert bench.rtnl.forgotten == []  # the kernel goes on probing for it

    run(story)


def test_a_device_that_flaps_is_dumped_anew() -> None:
    """The kernel drops a dead device's routes without a message for each."""

    async def story(bench: Bench) -> None:
        up = Link(WAN, "wan0", "", IFF_UP | IFF_LOWER_UP, 0, "tun")
        down = Link(WAN, "wan0", "", IFF_UP, 0, "tun")
        bench.change(LinkChanged(up, gone=False))
        await bench.settle()
        bench.change(added(route(DEFAULT, GATEWAY, WAN)))
        await bench.settle()
        assert bench.routes
        bench.rtnl.kernel_routes = []
        bench.change(LinkChanged(down, gone=False))
        await bench.settle()
        assert not bench.routes

    run(story)


# ---- neighbours --------------------------------------------------------------------------------------------
def test_a_wanted_neighbour_is_resolved_and_committed() -> None:
    async def story(bench: Bench) -> None:
        bench.mirror.want(0, HOST)
        assert bench.rtnl.managed == [(LAN, HOST)]
        bench.change(heard(INCOMPLETE, mac=None))
        bench.change(heard(REACHABLE))
        await bench.settle()
        assert bench.neighbours == [Neighbour(HOST, MAC, 0)]

    run(story)


def test_states_that_keep_the_address_commit_nothing_new() -> None:
    async def story(bench: Bench) -> None:
        bench.change(heard(REACHABLE))
        await bench.settle()
        before = len(bench.fastpath.commits)
        bench.change(heard(STALE), heard(REACHABLE))
        await bench.settle()
        assert len(bench.fastpath.commits) == before
        bench.change(heard(REACHABLE, mac=bytes(5) + b"\x09"))
        await bench.settle()
        assert bench.neighbours[0].mac[-1] == 9

    run(story)


def test_a_host_that_does_not_answer_is_not_probed_for_ever() -> None:
    async def story(bench: Bench) -> None:
        bench.mirror.want(0, HOST)
        bench.change(heard(REACHABLE))
        await bench.settle()
        bench.change(heard(FAILED))
        await bench.settle()
        assert bench.neighbours == []
        assert bench.rtnl.forgotten == [(LAN, HOST)]
        bench.mirror.want(0, HOST)  # it may come back
        assert bench.rtnl.managed == [(LAN, HOST)] * 2

    run(story)


def test_a_neighbour_that_moved_is_told_to_the_kernel_and_stays_managed() -> None:
    async def story(bench: Bench) -> None:
        bench.mirror.want(0, HOST)
        bench.change(heard(REACHABLE))
        bench.mirror.moved(0, HOST, OTHER_MAC)
        assert bench.rtnl.moved == [(LAN, HOST, OTHER_MAC)]
        assert bench.rtnl.managed == [(LAN, HOST)] * 2
        bench.change(heard(STALE, mac=OTHER_MAC))
        await bench.settle()
        assert bench.neighbours == [Neighbour(HOST, OTHER_MAC, 0)]
        bench.mirror.moved(0, HOST, OTHER_MAC)  # another worker has heard it, too
        assert len(bench.rtnl.moved) == 1

    run(story)


def test_a_gateway_that_moved_stays_managed_and_what_others_resolved_does_not_become_it() -> None:
    async def story(bench: Bench) -> None:
        bench.change(added(route(DEFAULT, GATEWAY, WAN)))
        bench.change(heard(REACHABLE, address=GATEWAY, index=WAN), heard(REACHABLE))
        await bench.settle()
        bench.mirror.moved(1, GATEWAY, OTHER_MAC)
        bench.mirror.moved(0, HOST, OTHER_MAC)
        assert bench.rtnl.moved == [(WAN, GATEWAY, OTHER_MAC), (LAN, HOST, OTHER_MAC)]
        assert bench.rtnl.managed == [(WAN, GATEWAY)] * 2

    run(story)


@pytest.mark.parametrize("state", [NOARP, PERMANENT])
def test_a_static_neighbour_does_not_move(state: int) -> None:
    async def story(bench: Bench) -> None:
        bench.change(heard(state))
        bench.mirror.moved(0, HOST, OTHER_MAC)
        assert not bench.rtnl.moved
        bench.change(heard(REACHABLE))
        bench.mirror.moved(0, HOST, OTHER_MAC)
        assert len(bench.rtnl.moved) == 1

    run(story)


@pytest.mark.parametrize(("refusal", "refused"), [(errno.ENOENT, 0), (errno.ENOBUFS, 1)])
def test_an_unknown_neighbour_does_not_move(refusal: int, refused: int) -> None:
    async def story(bench: Bench) -> None:
        bench.mirror.moved(0, HOST, OTHER_MAC)
        assert not bench.rtnl.moved
        bench.change(heard(REACHABLE))
        bench.rtnl.refusal = refusal  # ENOENT: the kernel has dropped it, and we have not heard of that yet
        bench.mirror.moved(0, HOST, OTHER_MAC)
        bench.mirror.moved(0, IPv6Address("2001:db8::1"), OTHER_MAC)
        counts = bench.counters.values()
        assert counts.get("neighbour.refused", 0) == refused
        assert counts["neighbour.family_unsupported"] == 1
        assert "neighbour.moved" not in counts
        bench.rtnl.refusal = None

    run(story)


def test_a_deleted_neighbour_is_gone() -> None:
    async def story(bench: Bench) -> None:
        bench.change(heard(REACHABLE))
        bench.change(NeighbourChanged(neighbour(REACHABLE), gone=True))
        await bench.settle()
        assert bench.neighbours == []

    run(story)


@pytest.mark.parametrize(("index", "address"), [(OTHER, HOST), (LAN, IPv4Address("224.0.0.18"))])
def test_neighbours_of_others_are_not_mirrored(index: int, address: IPv4Address) -> None:
    async def story(bench: Bench) -> None:
        bench.change(heard(REACHABLE, index=index, address=address))
        await bench.settle()
        assert bench.neighbours == []

    run(story)


def test_managed_neighbours_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "MANAGED_MAX", 2)

    async def story(bench: Bench) -> None:
        for n in range(1, 5):
            bench.mirror.want(0, IPv4Address(f"198.51.100.{n}"))
        assert len(bench.rtnl.managed) == 2
        assert bench.counters.values()["neighbour.managed_full"] == 2

    run(story)


def test_what_the_kernel_refuses_is_counted() -> None:
    async def story(bench: Bench) -> None:
        bench.rtnl.refusal = errno.ENOBUFS
        bench.mirror.want(0, HOST)
        bench.mirror.want(0, IPv6Address("2001:db8::1"))
        counts = bench.counters.values()
        assert counts["neighbour.refused"] == 1
        assert counts["neighbour.family_unsupported"] == 1

    run(story)


# ---- snapshots ---------------------------------------------------------------------------------------------
def test_a_burst_of_changes_is_one_snapshot() -> None:
    async def story(bench: Bench) -> None:
        before = len(bench.fastpath.commits)
        for n in range(1, 200):
            bench.change(heard(REACHABLE, address=IPv4Address(f"198.51.100.{n}")))
        await bench.settle()
        assert len(bench.fastpath.commits) == before + 1
        assert len(bench.neighbours) == 199
        assert bench.mirror.sizes == {"routes": 0, "neighbours": 199, "managed": 0}

    run(story)


def test_too_many_routes_leave_the_snapshot_before() -> None:
    async def story(bench: Bench) -> None:
        bench.fastpath.refusal = errno.E2BIG
        bench.change(heard(REACHABLE))
        await bench.settle()
        assert bench.counters.values()["fib.refused"] == 1
        bench.fastpath.refusal = None
        bench.change(heard(REACHABLE, mac=bytes(6)))
        await bench.settle()
        assert len(bench.neighbours) == 1

    run(story)


def test_a_kernel_that_refuses_is_asked_again() -> None:
    async def story(bench: Bench) -> None:
        bench.mirror.want(0, HOST)
        bench.rtnl.refusal = errno.EBUSY
        bench.mirror.resync()
        bench.change(heard(FAILED))  # cannot be deleted now: no harm
        bench.rtnl.kernel_routes = [route(DEFAULT, GATEWAY, WAN)]
        bench.rtnl.refusal = None
        await bench.settle()
        assert bench.routes
        assert bench.counters.values()["netlink.dump_failed"] == 1

    run(story)
