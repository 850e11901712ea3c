# SPDX-License-Identifier: Apache-2.0
"""The seams between the fast path and the core: heartbeats, frames, flow records, ARP probes."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from flexha.core import actions as act
from flexha.core import events as ev
from flexha.fastpath import (
    Drained,
    Fastpath,
    FastpathError,
    HeartbeatFlag,
    NeighbourMoved,
    NeighbourWanted,
    PathStats,
    Peer,
    PulseEvent,
    PulseKind,
    Punt,
    PuntedFrame,
)
from flexha.shell import flows_io
from flexha.shell.address_probe import claimant, probe_frame
from flexha.shell.counters import Counters
from flexha.shell.flows_io import FlowsIo
from flexha.shell.heartbeat_io import HeartbeatIo
from flexha.shell.vrrp_io import VrrpIo
from flexha.units import Ns, Term

BOTH_UP = HeartbeatFlag.LAN_UP | HeartbeatFlag.WAN_UP
PEER = Peer(incarnation=9, term=4, role=3, flags=HeartbeatFlag.READY, priority=150, control_beat=1)


class FakeFastpath:
    """Gives what was put in, and remembers what it was told."""

    def __init__(self) -> None:
        self.did: list[tuple[object, ...]] = []
        self.waiting_pulse: list[PulseEvent] = []
        self.waiting_punts: list[Punt] = []
        self.waiting_batches: list[Drained] = []
        self.limits: list[int] = []
        self.refusal: int | None = None

    def pulse_events(self) -> list[PulseEvent]:
        return self.waiting_pulse

    def punts(self) -> list[Punt]:
        return self.waiting_punts

    def path_stats(self) -> list[PathStats]:
        return [PathStats(5, 4, 1, 0, 6, 7_000_000, alive=True), PathStats(5, 0, 0, 0, 0, 0, alive=False)]

    def drain(self, limit: int) -> list[Drained]:
        self.limits.append(limit)
        return [self.waiting_batches.pop(0)] if self.waiting_batches else []

    def inject(self, port: int, frame: bytes, *, fenced: bool) -> None:
        self._maybe_refuse("fp_inject")
        self.did.append(("inject", port, frame, fenced))

    def import_columns(self, n: int, _family: int, _columns: object) -> int:
        self._maybe_refuse("fp_flows_import")
        return n - 1

    def end_import(self) -> int:
        return 3

    def _maybe_refuse(self, call: str) -> None:
        if self.refusal is not None:
            raise FastpathError(self.refusal, call)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: self.did.append((name, *args, *kwargs.values()))


class Bench:
    def __init__(self) -> None:
        self.fake, self.counters = FakeFastpath(), Counters()
        self.fastpath = cast(Fastpath, self.fake)
        self.events: list[ev.Event] = []


@pytest.fixture
def bench() -> Bench:
    return Bench()


# ---- heartbeats --------------------------------------------------------------------------------------------
@pytest.fixture
def heartbeat(bench: Bench) -> HeartbeatIo:
    return HeartbeatIo(bench.fastpath, ("xc", "wan"), 150, bench.events.append, bench.counters)


def pulse(kind: PulseKind, path: int = 0, peer: Peer = PEER) -> PulseEvent:
    return PulseEvent(t_ns=1, kind=kind, path=path, peer=peer)


def test_what_the_pulse_thread_says_becomes_events(bench: Bench, heartbeat: HeartbeatIo) -> None:
    bench.fake.waiting_pulse = [
        pulse(PulseKind.PATH_UP),
        pulse(PulseKind.PEER),
        pulse(PulseKind.PATH_DOWN, path=1),
        pulse(PulseKind.FENCED),
    ]
    heartbeat.collect()
    info = ev.PeerInfo(ev.Role.ACTIVE, Term(4), incarnation=9, ready=True, bye=False, priority=150)
    assert bench.events == [ev.PathUp("xc"), ev.PeerHeard(info), ev.PathDown("wan"), ev.Fenced(Term(4))]


def test_a_role_of_a_later_version_is_counted(bench: Bench, heartbeat: HeartbeatIo) -> None:
    odd = Peer(incarnation=9, term=4, role=17, flags=HeartbeatFlag(0), priority=1, control_beat=1)
    bench.fake.waiting_pulse = [pulse(PulseKind.PEER, peer=odd)]
    heartbeat.collect()
    assert bench.events == []
    assert bench.counters.values() == {"heartbeat.unknown_role": 1}


def test_what_our_heartbeats_say(bench: Bench, heartbeat: HeartbeatIo) -> None:
    heartbeat.perform(act.SetPulse(ready=True))
    heartbeat.perform(act.SetPulse(ready=False, bye=True, burst=True))
    heartbeat.port_changed(inside=True, up=False)
    heartbeat.port_changed(inside=True, up=True)
    bye = HeartbeatFlag.BYE
    assert bench.fake.did == [
        ("set_pulse", BOTH_UP | HeartbeatFlag.READY, 150),
        ("set_pulse", BOTH_UP | bye, 150),
        ("burst_pulse",),
        ("set_pulse", HeartbeatFlag.WAN_UP | bye, 150),
        ("burst_pulse",),
        ("set_pulse", BOTH_UP | bye, 150),
        ("burst_pulse",),
    ]


def test_paths_as_status_shows_them(heartbeat: HeartbeatIo) -> None:
    paths = heartbeat.path_status(Ns(19_500_000))
    assert paths["xc"]["last_heard_ms"] == 12.5
    assert paths["wan"]["last_heard_ms"] is None
    assert paths["xc"]["lost"] == 1


# ---- frames ------------------------------------------------------------------------------------------------
def test_punts_and_frames(bench: Bench) -> None:
    wanted: list[tuple[int, object]] = []
    moved: list[tuple[int, object, bytes]] = []
    vrrp = VrrpIo(
        bench.fastpath,
        ("lan", "wan"),
        bench.events.append,
        lambda port, address: wanted.append((port, address)),
        lambda port, address, mac: moved.append((port, address, mac)),
        bench.counters,
    )
    address = IPv4Address("192.0.2.1")
    bench.fake.waiting_punts = [
        PuntedFrame(1, 1, b"advert"),
        NeighbourWanted(2, 0, address),
        NeighbourMoved(3, 1, address, b"mac"),
    ]
    vrrp.collect()
    assert bench.events == [ev.VrrpFrameReceived("wan", b"advert")]
    assert wanted == [(0, address)]
    assert moved == [(1, address, b"mac")]
    vrrp.perform(act.SendFrame("wan", b"garp"))
    assert bench.fake.did == [("inject", 1, b"garp", True)]
    bench.fake.refusal = errno.ENOBUFS
    vrrp.perform(act.SendFrame("wan", b"garp"))
    assert bench.counters.values() == {"inject.wan.full": 1}
    bench.fake.refusal = errno.EINVAL
    with pytest.raises(FastpathError):
        vrrp.perform(act.SendFrame("wan", b"garp"))


# ---- flow records ------------------------------------------------------------------------------------------
def drained(n: int, **changes: Any) -> Drained:
    fields: dict[str, Any] = {
        "n": n,
        "family": 4,
        "columns": {},
        "marks": {0: n},
        "lost": 0,
        "bulk_walked": False,
        "more": False,
    }
    return Drained(**{**fields, **changes})


def run(story: Callable[[Bench, FlowsIo], Awaitable[None]]) -> None:
    async def whole() -> None:
        bench = Bench()
        flows = FlowsIo(bench.fastpath, 100, bench.events.append, bench.counters)
        await story(bench, flows)
        flows.stop()

    asyncio.run(whole())


async def settle() -> None:
    await asyncio.sleep(flows_io.PAUSE_S * 20)


def test_nothing_is_drained_without_credit() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.waiting_batches = [drained(5)]
        flows.wake()
        await settle()
        assert bench.events == []
        flows.set_credit(50)
        await settle()
        assert bench.events == [ev.FlowsDrained(n=5, family=4, columns={}, marks={0: 5}, lost=0)]
        assert bench.fake.limits[0] == 50

    run(story)


def test_credit_is_spent_and_bounds_each_drain() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.waiting_batches = [drained(100, more=True), drained(50, more=True), drained(1)]
        flows.set_credit(150)
        await settle()
        assert bench.fake.limits == [100, 50]
        assert len(bench.events) == 2
        flows.set_credit(10)
        await settle()
        assert len(bench.events) == 3

    run(story)


def test_the_end_of_a_walk_follows_its_last_batch() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.waiting_batches = [drained(3, bulk_walked=True, lost=2)]
        flows.set_credit(10)
        await settle()
        assert bench.events == [
            ev.FlowsDrained(n=3, family=4, columns={}, marks={0: 3}, lost=2),
            ev.BulkWalked(),
        ]

    run(story)


def test_small_batches_are_gathered_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows_io, "PAUSE_S", 0.05)

    async def story(bench: Bench, flows: FlowsIo) -> None:
        flows.set_credit(1000)
        await asyncio.sleep(0.001)
        before = len(bench.fake.limits)
        for _ in range(20):
            flows.wake()
            await asyncio.sleep(0)
        assert len(bench.fake.limits) == before
        await asyncio.sleep(0.1)
        assert len(bench.fake.limits) == before + 1

    run(story)


def test_imports_are_answered_whatever_comes_of_them() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        flows.import_flows(act.ImportFlows(seq=1, n=10, family=4, columns={}))
        bench.fake.refusal = errno.EPERM
        flows.import_flows(act.ImportFlows(seq=2, n=10, family=4, columns={}))
        good, bad = bench.events
        assert good == ev.FlowsImported(1)
        assert isinstance(bad, ev.FlowsImported)
        assert bad.seq == 2
        assert bad.error
        assert bench.counters.values() == {
            "sync.import_refused_batches": 1,
            "sync.import_refused_records": 1,
            "sync.imported_records": 9,
        }
        flows.end_import()

    run(story)


# ---- ARP probes --------------------------------------------------------------------------------------------
OURS, THEIRS = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
ADDRESS, OTHER = IPv4Address("203.0.113.4"), IPv4Address("203.0.113.9")


def test_a_probe_claims_nothing() -> None:
    """Spec: RFC 5227 §2.1.1: the sender protocol address is zero."""
    frame = probe_frame(OURS, ADDRESS)
    assert frame[:6] == b"\xff" * 6
    assert frame[28:32] == bytes(4)
    assert frame[38:42] == ADDRESS.packed


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (probe_frame(OURS, ADDRESS), None),  # our own
        (probe_frame(THEIRS, ADDRESS), THEIRS),  # two that start at once
        (probe_frame(THEIRS, OTHER), None),
        (b"", None),
        (b"\x00" * 60, None),
    ],
)
def test_who_claims_the_address(frame: bytes, found: bytes | None) -> None:
    assert claimant(frame, OURS, ADDRESS) == found


@pytest.mark.parametrize("operation", [1, 2])
def test_an_answer_or_any_arp_from_the_address_is_a_claim(operation: int) -> None:
    frame = bytearray(probe_frame(THEIRS, OTHER))
    frame[21] = operation
    frame[28:32] = ADDRESS.packed
    assert claimant(bytes(frame), OURS, ADDRESS) == THEIRS
    assert claimant(bytes(frame), THEIRS, ADDRESS) is None
