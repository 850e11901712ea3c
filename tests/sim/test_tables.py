# SPDX-License-Identifier: Apache-2.0
"""Both tables stay one: what is broken on purpose is found, and a long absence costs nothing.

Spec: B5, R20, R21.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sim.chance import Chance
from sim.fastpath import QUEUE_MAX, RING_RECORDS, TOMBSTONES_MAX, FakeFastpath, Told
from sim.faults import Fault, Plan
from sim.host import Process, SimulationError
from sim.judge import AGREED_S
from sim.world import QUIET_MS, World

from flexha.core.events import Role
from flexha.core.node import SyncLimits
from flexha.core.shards import NONE, Shards
from flexha.units import NS_PER_S, Ns, ms

CHAOS_MS = 15_000
LIMITS = SyncLimits(window_batches=8, batch_records=8)
JUDGED_MS = CHAOS_MS + QUIET_MS
"""Traffic ends, and soon after it the tables are compared."""
AWAY_S = 600


def flip(at_ms: float, amount: float) -> Fault:
    """Below 0.5 a record of the PASSIVE node is gone, above it says another thing."""
    return Fault(at_ms, "flip", "other", "xc", 2, amount)


def world(seed: int, limits: SyncLimits = LIMITS) -> World:
    return World(Chance(seed), limits=limits)


def run(here: World, *faults: Fault) -> None:
    """These faults, with all the time in the world to be seen."""
    here.run(Plan(3, CHAOS_MS, is_patient=True, faults=faults))


# ---- mutations -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("amount", [0.2, 0.7])
def test_a_flip_is_repaired_in_time(amount: float) -> None:
    """The control of what follows: damage done when all is quiet is gone before the judge looks."""
    run(world(3), flip(JUDGED_MS + 1, amount))


@pytest.mark.parametrize("amount", [0.2, 0.7])
def test_an_audit_that_sleeps_is_noticed(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    def compare(_self: FakeFastpath, _shards: Shards, _sums: bytes, _counts: bytes) -> Shards:
        return NONE

    monkeypatch.setattr(FakeFastpath, "compare", compare)
    with pytest.raises(SimulationError, match="tables differ"):
        run(world(3), flip(JUDGED_MS + 1, amount))


@pytest.mark.parametrize("amount", [0.2, 0.7])
def test_damage_that_nobody_did_is_noticed(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    """The audit finds it; that it had to is what the invariant is about."""
    monkeypatch.setattr(World, "flipped", property(lambda _: False, lambda _self, _: None), raising=False)
    with pytest.raises(SimulationError, match="differ at a place in the stream"):
        run(world(3), flip(JUDGED_MS + 1, amount))


def test_a_record_that_is_not_imported_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of batches that are acknowledged nevertheless."""
    whole: Callable[[FakeFastpath, list[Told]], None] = FakeFastpath.import_flows
    good = 20

    def import_flows(self: FakeFastpath, records: list[Told]) -> None:
        nonlocal good
        good -= 1
        whole(self, records if good > 0 else records[1:])

    monkeypatch.setattr(FakeFastpath, "import_flows", import_flows)
    with pytest.raises(SimulationError, match="differ at a place in the stream"):
        run(world(3))


def test_a_loss_that_is_not_told_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change finds no room, and its shard is not swept."""
    monkeypatch.setattr(FakeFastpath, "_lose", lambda _self, _shard: None)
    with pytest.raises(SimulationError, match="differ"):
        run(world(3), Fault(CHAOS_MS / 2, "burst", "active", "xc", 2, 1.0))


def test_a_sweep_that_removes_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer comes back too late for a resume: what has ended meanwhile is still in its table."""

    def end_import(self: FakeFastpath, shards: Shards) -> None:
        self.incomplete &= ~shards

    monkeypatch.setattr(FakeFastpath, "end_import", end_import)
    cut = Fault(CHAOS_MS / 2, "cut", "a", "xc", 2, 1.0)
    with pytest.raises(SimulationError, match="tables differ"):
        run(world(3, SyncLimits(resume_hold_s=0)), cut)


# ---- a long absence ------------------------------------------------------------------------------------
def sync_bounds(process: Process) -> None:
    """Nothing that waits for the peer is longer than it may be."""
    sender = process.state.session.sender
    assert len(sender.window) <= LIMITS.window_batches + 3
    assert sender.window_bytes <= LIMITS.window_bytes
    for worker in process.fastpath.workers:
        assert len(worker.ring) <= RING_RECORDS
        assert len(worker.queue) <= QUEUE_MAX + TOMBSTONES_MAX
        assert len(worker.tombstones) <= TOMBSTONES_MAX


def of_role(here: World, role: Role) -> Process:
    (process,) = (p for p in here.nodes if p is not None and p.role is role)
    return process


def until(here: World, condition: Callable[[], bool], seconds: int) -> Ns:
    """Let time pass until something is so; when that was."""
    deadline = here.clock.now + seconds * NS_PER_S
    while not condition():
        assert here.clock.now < deadline
        here.clock.run_until(Ns(here.clock.now + ms(10)))
    return here.clock.now


def test_ten_minutes_without_the_peer() -> None:
    """Sync is cut while sessions come and go; then it goes on where it was, and the tables agree."""
    here = world(3)
    for index in range(2):
        here.boot(index)
    here.begin()
    here.clock.run_until(ms(CHAOS_MS))
    active, passive = of_role(here, Role.ACTIVE), of_role(here, Role.PASSIVE)
    before = active.state.session.sender
    assert before.audit.in_sync
    for wire in here.network.wires["xc"]:
        wire.cut = True
    for second in range(AWAY_S):
        here.clock.run_until(Ns(ms(CHAOS_MS) + second * NS_PER_S))
        sync_bounds(active)
    assert not active.state.session.sender.engaged
    assert active.fastpath.lost != NONE, "there was more to tell than there is room for"
    assert not active.fastpath.flows.keys() & passive.fastpath.flows.keys(), "all have ended meanwhile"
    here.network.heal()
    back_at = until(here, lambda: active.state.session.sender.engaged, 10)
    until(here, lambda: (active.state.session.sender.audit.agreed_at or 0) > back_at, AGREED_S)
    sync_bounds(active)
    after = active.state.session.sender
    assert (after.bulks, after.repairs) == (before.bulks, before.repairs), "resumed, and swept what was lost"
    assert (of_role(here, Role.ACTIVE), of_role(here, Role.PASSIVE)) == (active, passive)
    here.end()


# ---- two reigns ----------------------------------------------------------------------------------------
def split(seed: int) -> tuple[World, Process, Process]:
    """A pair in sync is cut in two, and both halves reign and forward for two seconds; loser and winner."""
    here = world(seed)
    for index in range(2):
        here.boot(index)
    here.begin()
    here.clock.run_until(ms(CHAOS_MS))
    loser, winner = of_role(here, Role.ACTIVE), of_role(here, Role.PASSIVE)
    for wires in here.network.wires.values():
        for wire in wires:
            wire.cut = True
    until(here, lambda: winner.role is Role.ACTIVE, 2)
    here.clock.run_until(Ns(here.clock.now + 2 * NS_PER_S))
    assert loser.role is Role.ACTIVE
    return here, loser, winner


def heal(here: World, winner: Process) -> set[int]:
    """All hear each other again; the flows that the winner has when the loser is in sync."""
    here.traffic = False
    here.network.heal()
    until(here, lambda: bool(winner.state.session.sender.audit.in_sync), 3)
    return set(winner.fastpath.flows)


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_the_flows_of_two_reigns_are_those_of_one(seed: int) -> None:
    """What only the loser has opened is the winner's within the second in which the loser follows it."""
    here, loser, winner = split(seed)
    of_winner = set(winner.fastpath.flows)
    used = loser.fastpath.used_since(loser.state.session.shared_at)
    assert len(used - of_winner) > 2
    assert heal(here, winner) == of_winner | used
    until(here, lambda: loser.fastpath.flows == winner.fastpath.flows, AGREED_S)
    assert winner.counters["sync.adopted_sessions"] == len(used - of_winner)
    here.end()


def test_an_offer_that_nobody_makes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeFastpath, "stranded", lambda *_: [])
    here, loser, winner = split(3)
    only = set(loser.fastpath.flows) - set(winner.fastpath.flows)
    assert not only & heal(here, winner)
