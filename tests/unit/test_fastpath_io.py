# SPDX-License-Identifier: Apache-2.0
"""The seams between the fast path and the core: heartbeats, frames, flow records, ARP probes."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, cast

import pytest

from flexha.core import actions as act
from flexha.core import events as ev
from flexha.core.shards import ALL
from flexha.core.sync_offer import OFFER_SESSIONS
from flexha.fastpath import (
    Digests,
    Drained,
    Fastpath,
    FastpathError,
    Hang,
    HeartbeatFlag,
    Imported,
    NeighbourMoved,
    NeighbourWanted,
    PathStats,
    Peer,
    PulseEvent,
    PulseKind,
    Punt,
    PuntedFrame,
    Repair,
    RepairKind,
)
from flexha.fastpath.channel import LaneMode, LaneState, PartlyTaken
from flexha.shell import flows_io
from flexha.shell.address_probe import claimant, probe_frame
from flexha.shell.counters import Counters
from flexha.shell.flows_io import FlowsIo
from flexha.shell.heartbeat_io import HeartbeatIo
from flexha.shell.vrrp_io import VrrpIo
from flexha.units import Ns, Term

BOTH_UP = HeartbeatFlag.LAN_UP | HeartbeatFlag.WAN_UP
SIDES = {"dmz": HeartbeatFlag.LAN_UP, "lan": HeartbeatFlag.LAN_UP, "wan": HeartbeatFlag.WAN_UP}
SAID = HeartbeatFlag.READY | HeartbeatFlag.WAN_UP
PEER = Peer(incarnation=9, term=4, role=3, flags=SAID, priority=150, control_beat=1)


class FakeFastpath:
    """Gives what was put in, and remembers what it was told."""

    def __init__(self) -> None:
        self.did: list[tuple[object, ...]] = []
        self.waiting_pulse: list[PulseEvent] = []
        self.waiting_punts: list[Punt] = []
        self.waiting_batches: list[Drained] = []
        self.found: list[Repair] = []
        self.own = Digests(of=ALL, shards=ALL, sums=bytes(8 * 64), counts=bytes(4 * 64))
        self.limits: list[int] = []
        self.refusal: int | None = None
        self.n_absurd = 0

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

    def import_sections(self, sections: bytes) -> Imported:
        self._maybe_refuse("fp_flows_import")
        self.did.append(("import_sections", sections))
        return Imported(len(sections), len(sections) - 1, unknown=0)

    def not_taken(self, n: int) -> tuple[int, ...]:
        return (n - 1,)

    def absurd(self, n: int) -> int:
        return self.n_absurd

    def import_end(self, shards: int) -> int:
        self.did.append(("import_end", shards))
        return 3

    def stranded(self, shards: int, since_ns: int, page: int) -> list[tuple[bytes, int]]:
        self.did.append(("stranded", shards, since_ns, page))
        return [(b"two", 2)]

    def adopt_sections(self, sections: bytes) -> Imported:
        self._maybe_refuse("fp_flows_adopt")
        return Imported(len(sections), len(sections) - 1, unknown=0)

    def repairs_drain(self) -> list[Repair]:
        found, self.found = self.found, []
        return found

    def digests(self) -> Digests:
        return self.own

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
    return HeartbeatIo(bench.fastpath, ("xc", "wan"), 150, SIDES, bench.events.append, bench.counters)


def pulse(kind: PulseKind, path: int = 0, peer: Peer = PEER) -> PulseEvent:
    return PulseEvent(t_ns=1, kind=kind, path=path, peer=peer)


def test_what_the_pulse_thread_says_becomes_events(bench: Bench, heartbeat: HeartbeatIo) -> None:
    bench.fake.waiting_pulse = [
        pulse(PulseKind.PATH_UP),
        pulse(PulseKind.PEER),
        pulse(PulseKind.PATH_DOWN, path=1),
        pulse(PulseKind.FENCED),
        pulse(PulseKind.DIED),
    ]
    heartbeat.collect()
    info = ev.PeerInfo(
        ev.Role.ACTIVE,
        Term(4),
        incarnation=9,
        ready=True,
        bye=False,
        priority=150,
        ports_up=frozenset({"wan"}),
    )
    assert bench.events == [
        ev.PathUp("xc"),
        ev.PeerHeard(info),
        ev.PathDown("wan"),
        ev.Fenced(Term(4)),
        ev.PeerDied(),
    ]


def test_hangs_and_questions_become_events(bench: Bench, heartbeat: HeartbeatIo) -> None:
    """Spec: B2."""
    hung = Peer(incarnation=9, term=4, role=2, flags=HeartbeatFlag.HUNG, priority=150, control_beat=1)
    bench.fake.waiting_pulse = [
        replace(pulse(PulseKind.HUNG), hung=Hang.CONTROL | Hang.YIELDED),
        replace(pulse(PulseKind.HUNG), hung=Hang.WORKER, worker=3),
        replace(pulse(PulseKind.LEASE, path=1), stall_us=40_500, asked_us=300, answered=True),
        replace(pulse(PulseKind.LEASE), stall_us=40_500, asked_us=10_000),
        pulse(PulseKind.PEER, peer=hung),
    ]
    heartbeat.collect()
    *events, heard = bench.events
    assert events == [
        ev.Hung(frozenset({"control"}), None, yielded=True),
        ev.Hung(frozenset({"worker"}), 3, yielded=False),
        ev.LeaseAsked(40.5, 0.3, "wan"),
        ev.LeaseAsked(40.5, 10.0, None),
    ]
    assert isinstance(heard, ev.PeerHeard)
    assert heard.peer.hung


def test_a_role_of_a_later_version_is_counted(bench: Bench, heartbeat: HeartbeatIo) -> None:
    odd = Peer(incarnation=9, term=4, role=17, flags=HeartbeatFlag(0), priority=1, control_beat=1)
    bench.fake.waiting_pulse = [pulse(PulseKind.PEER, peer=odd)]
    heartbeat.collect()
    assert bench.events == []
    assert bench.counters.values() == {"heartbeat.unknown_role": 1}


def test_what_our_heartbeats_say(bench: Bench, heartbeat: HeartbeatIo) -> None:
    heartbeat.perform(act.SetPulse(ready=True))
    heartbeat.perform(act.SetPulse(ready=False, bye=True, burst=True))
    for up in ({"dmz", "wan"}, {"wan"}, {"lan", "wan"}):
        heartbeat.set_ports(act.SetPorts(frozenset(up)))
    bye = HeartbeatFlag.BYE
    assert bench.fake.did == [
        ("set_pulse", BOTH_UP | HeartbeatFlag.READY, 150),
        ("set_pulse", BOTH_UP | bye, 150),
        ("burst_pulse",),
        ("set_pulse", BOTH_UP | bye, 150),  # one of two inside ports will do
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
    fields: dict[str, Any] = {"sections": bytes(n), "n": n, "marks": {0: n}}
    return Drained(**{**fields, **changes})


def told(n: int) -> ev.FlowsDrained:
    return ev.FlowsDrained(bytes(n), n, {0: n})


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
        assert bench.events == [told(5)]
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


def test_markers_follow_their_batch() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        digests = Digests(of=0b11, shards=0b10, sums=b"12345678", counts=b"1234")
        bench.fake.waiting_batches = [
            drained(2, sweep=6),
            drained(3, swept=6),
            drained(0, digests=digests),
        ]
        flows.set_credit(10)
        await settle()
        for _ in range(2):
            flows.wake()
            await settle()
        assert bench.events == [
            told(2),
            ev.SweepBegun(6),
            told(3),
            ev.SweepWalked(6),
            ev.DigestDrained(0b10, b"12345678", b"1234", of=0b11),
        ]

    run(story)


def test_a_sweep_is_logged_when_it_begins_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    """Spec: R25. How many shards, how many records were told meanwhile, how long it took."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.waiting_batches = [drained(2)]
        flows.set_credit(100)
        await settle()
        flows.start_sweep(0b110)
        flows.start_sweep(0b1001)
        assert bench.fake.did[-1] == ("sweep_start", 0b1001)
        bench.fake.waiting_batches = [drained(3), drained(4, swept=0b1011)]
        for _ in range(2):
            flows.wake()
            await settle()

    with caplog.at_level(logging.INFO, logger="flexha"):
        run(story)
    lines = [(record.getMessage(), vars(record)["fields"]) for record in caplog.records]
    begun = [fields for name, fields in lines if name == "sync.sweep_begun"]
    assert begun == [{"shards": 2}, {"shards": 4}]
    ((_, ended),) = [line for line in lines if line[0] == "sync.sweep_ended"]
    assert ended.pop("took_s") >= 0
    assert ended == {"shards": 3, "lost_meanwhile": 1, "records": 7}


def test_a_loss_is_told_when_the_rings_are_empty() -> None:
    """What they hold was told before it, and must not come behind the sweep that it makes necessary."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.waiting_batches = [drained(3, lost=5, more=True), drained(2, lost=5, swept=6)]
        flows.set_credit(10)
        await settle()
        assert bench.events == [told(3), told(2), ev.SweepWalked(6), ev.ShardsLost(5)]

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


def test_nobody_is_woken_while_draining_goes_on() -> None:
    """Only when a look has found nothing; and what came before that word is looked for once more."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.waiting_batches = [drained(5), drained(6)]
        flows.set_credit(1000)
        await settle()
        assert bench.events == [told(5), told(6)]
        assert bench.fake.did == [("await_events", False), ("await_events", True)]
        assert len(bench.fake.limits) == 4
        bench.fake.waiting_batches = [drained(7)]
        flows.wake()
        await settle()
        assert bench.fake.did[2:] == [("await_events", False), ("await_events", True)]

    run(story)


# ---- the lane ----------------------------------------------------------------------------------------------
def test_while_a_lane_drains_nobody_else_does() -> None:
    """Neither what was about to, nor who is woken; and behind it the long way looks before it waits."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.waiting_batches = [drained(5)]
        flows.set_credit(1000)
        flows.rest()
        flows.wake()
        await settle()
        assert bench.events == []
        assert bench.fake.limits == []
        flows.set_credit(1000)
        await settle()
        assert bench.events == [told(5)]
        assert bench.fake.did == [("await_events", True)]
        assert len(bench.fake.limits) == 3

    run(story)


def test_what_a_lane_leaves_is_drained_at_once_and_guarded() -> None:
    """Whatever pause there was: the lane waits for it."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.waiting_batches = [drained(5, swept=ALL), drained(6)]
        flows.attend(0)
        assert bench.events == [], "the window is full"
        flows.attend(1000)
        assert bench.events == [told(5), ev.SweepWalked(ALL)]
        flows.attend(1000)
        assert bench.events[2:] == [told(6)]

    run(story)


def test_what_went_the_short_way_is_counted() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        state = LaneState(LaneMode.SEND, 3, 1, 0, 0, 7, 8, 100, 200, 0, 0, 0, (), None)
        flows.count(state)
        assert bench.counters.values() == {}
        flows.count(replace(state, records_out=11))
        flows.count(replace(state, records_in=5, unknown=2))
        assert bench.counters.values() == {
            "sync.drained_records": 11,
            "sync.imported_records": 5,
            "sync.unknown_columns": 2,
        }

    run(story)


def test_what_a_lane_took_in_part_is_told_as_the_long_way_tells_it() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        told = flows.taken_in_part(4, PartlyTaken(5, 3, (1, 4), 1))
        assert told == ev.FlowsImported(4, 5, refused=(ev.Refused(4, (1, 4)),), absurd=1)
        assert bench.counters.values() == {"sync.imported_records": 3, "sync.import_refused_records": 2}

    run(story)


def test_what_was_imported_in_a_step_is_told_at_once() -> None:
    """So that one acknowledgement answers for all of it."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        flows.begin_import(act.BeginImport(1, 5, repair=True))
        flows.import_flows(2, bytes(10))
        flows.import_flows(3, bytes(5))
        assert bench.events == []
        refused = (ev.Refused(2, (9,)), ev.Refused(3, (4,)))
        assert list(flows.outcome()) == [ev.FlowsImported(3, 15, refused=refused)]
        assert list(flows.outcome()) == []
        assert bench.fake.did == [
            ("import_begin", 5, True),
            ("import_sections", bytes(10)),
            ("import_sections", bytes(5)),
        ]
        assert bench.counters.values() == {"sync.import_refused_records": 2, "sync.imported_records": 13}

    run(story)


def test_refused_records_are_logged_once_a_burst(caplog: pytest.LogCaptureFixture) -> None:
    """Counters have them all."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        for seq in range(1, 4):
            flows.import_flows(seq, bytes(10))
        assert bench.counters.values()["sync.import_refused_records"] == 3

    with caplog.at_level(logging.WARNING):
        run(story)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["sync.records_refused"]


def test_what_the_peer_refused_is_withheld_and_told_once_a_burst(caplog: pytest.LogCaptureFixture) -> None:
    """Spec: B1."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        for mark in (7, 8):
            flows.withhold(act.WithholdFlows({0: mark}, b"s", (3, 5)))
        assert bench.fake.did == [("refused", {0: 7}, b"s", (3, 5)), ("refused", {0: 8}, b"s", (3, 5))]

    with caplog.at_level(logging.WARNING):
        run(story)
    assert [record.getMessage().split()[0] for record in caplog.records] == ["sync.refused_by_peer"]


def test_records_that_cannot_be_are_counted_for_the_core() -> None:
    """It knows whether the peer's configuration is ours."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        bench.fake.n_absurd = 1
        flows.import_flows(1, bytes(10))
        flows.import_flows(2, bytes(10))
        (event,) = flows.outcome()
        assert isinstance(event, ev.FlowsImported)
        assert event.absurd == 2
        flows.begin_import(act.BeginImport(3, 1))
        assert list(flows.outcome()) == [ev.FlowsImported(3)]

    run(story)


def test_behind_a_refused_batch_nothing_is_done() -> None:
    """The end of a sweep would remove what that batch had."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        flows.import_flows(1, bytes(10))
        bench.fake.refusal = errno.EINVAL
        flows.import_flows(2, bytes(10))
        bench.fake.refusal = None
        flows.import_flows(3, bytes(10))
        flows.begin_import(act.BeginImport(4, 1))
        flows.end_import(act.EndImport(5, 1))
        good, bad = flows.outcome()
        assert good == ev.FlowsImported(1, 10, refused=(ev.Refused(1, (9,)),))
        assert bad.seq == 2
        assert bad.error
        assert bad.offence == "bad_value"
        assert [did[0] for did in bench.fake.did] == ["import_sections"]
        assert bench.counters.values()["sync.import_refused_batches"] == 1
        flows.import_flows(6, bytes(10))
        refused = (ev.Refused(6, (9,)),)
        assert list(flows.outcome()) == [ev.FlowsImported(6, 10, refused=refused)], "a new conversation"

    run(story)


def test_a_repair_says_what_it_found() -> None:
    """Spec: B5: a difference is logged with the sessions concerned."""

    async def story(bench: Bench, flows: FlowsIo) -> None:
        missing = Repair(RepairKind.MISSING, 6, ADDRESS, 1024, OTHER, 80, shard=7)
        bench.fake.found = [missing, replace(missing, kind=RepairKind.EXTRA)]
        flows.end_import(act.EndImport(4, 1 << 7))
        assert list(flows.outcome()) == [ev.FlowsImported(4)]
        assert bench.counters.values() == {"audit.extra_records": 1, "audit.missing_records": 1}

    run(story)


def test_what_a_sweep_leaves_is_given_back_before_it_goes() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        flows.end_import(act.EndImport(4, 5, since=Ns(7)))
        assert bench.events == [ev.FlowsStranded(b"two", 2)]
        assert bench.fake.did[-2:] == [("stranded", 5, 7, OFFER_SESSIONS), ("import_end", 5)]
        flows.end_import(act.EndImport(5, 5))
        assert len(bench.events) == 1

    run(story)


def test_adoption_is_told_and_nothing_wrong_with_it_matters() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        flows.adopt(3, b"xyz")
        assert bench.events == [ev.FlowsAdopted(3, 2, 1)]
        bench.fake.refusal = errno.EINVAL
        flows.adopt(4, b"xyz")
        told = bench.events[-1]
        assert isinstance(told, ev.FlowsAdopted)
        assert (told.seq, told.taken, told.error is None) == (4, 0, False)
        assert bench.counters.values()["sync.bad_offers"] == 1
        bench.fake.refusal = errno.ETIMEDOUT
        with pytest.raises(FastpathError):
            flows.adopt(5, b"xyz")

    run(story)


def test_digests_are_compared_by_shard() -> None:
    async def story(bench: Bench, flows: FlowsIo) -> None:
        flows.compare(act.CompareDigests(3, 0b101, bytes(16), bytes(8)))
        flows.compare(act.CompareDigests(4, 0b101, bytes(15) + b"x", bytes(8)))
        flows.compare(act.CompareDigests(5, 0b101, bytes(16), b"x" + bytes(7)))
        bench.fake.own = Digests(of=ALL, shards=ALL & ~1, sums=bytes(8 * 63), counts=bytes(4 * 63))
        flows.compare(act.CompareDigests(6, 0b101, bytes(16), bytes(8)))
        assert bench.events == [
            ev.DigestsRead(3, 0b101, 0),
            ev.DigestsRead(4, 0b101, 0b100),
            ev.DigestsRead(5, 0b101, 0b001),
            ev.DigestsRead(6, 0b101, 0b001),
        ]

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
