# SPDX-License-Identifier: Apache-2.0
"""Two reigns become one: what only the loser has is offered, and taken if nothing speaks against it.

Spec: R13.
"""

from __future__ import annotations

from cores import Core, batch, config, digest, only, peer_info, received, records, sent
from sync_cores import LIMITS, THEIRS, active, in_sync, joins

from flexha.core.actions import Action, AdoptFlows, Count, EndImport
from flexha.core.events import (
    Command,
    DigestsRead,
    FlowsAdopted,
    FlowsImported,
    FlowsStranded,
    OperatorAsked,
    Role,
    SyncClosed,
    SyncConnected,
)
from flexha.core.evolve import replace
from flexha.core.shards import ALL
from flexha.core.sync_offer import OFFER_S, OFFERS_MAX
from flexha.core.sync_wire import Adopted, Beat, Close, Go, Offer, SweepBegin, SweepEnd, Want
from flexha.units import Term

RECORDS = batch(1, 3).sections


def reigning() -> Core:
    """ACTIVE, its peer has followed, was last heard at a known time, and is gone."""
    core = in_sync()
    core.do(received(Beat()))
    core.sleep(40)
    core.do(SyncClosed("cut"))
    return core


def yielding(core: Core) -> Core:
    """It hears of a higher term, and follows."""
    core.hear(peer_info(Role.ACTIVE, 3))
    assert core.role is Role.JOINING
    core.do(SyncConnected())
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == [Want(None, 0)]
    core.do(received(SweepBegin(THEIRS, 1, ALL)))
    return core


def stranded(core: Core, n: int = 3) -> tuple[Action, ...]:
    """The bulk ends, and some sessions were not in it."""
    core.do(received(SweepEnd(2, ALL)))
    return core.do(FlowsStranded(RECORDS, n), FlowsImported(2))


def test_who_yields_offers_what_only_it_has() -> None:
    """Since the peer was last heard; one message after the other; and says what has become of it."""
    core = reigning()
    heard_at = core.state.session.shared_at
    assert heard_at < core.now
    yielding(core)
    assert only(core.do(received(SweepEnd(2, ALL))), EndImport) == [EndImport(2, ALL, heard_at)]
    assert Offer(1, RECORDS) in sent(core.do(FlowsStranded(RECORDS, 3)))
    assert sent(core.do(FlowsStranded(RECORDS, 2))) == []
    assert sent(core.do(received(Adopted(1, 2, 1)))) == [Offer(2, RECORDS)]
    told = records(core.do(received(Adopted(2, 2, 0))), "sessions-offered")
    assert told == [{"offered": 5, "taken": 4, "refused": 1, "unanswered": 0, "left_out": 0}]
    assert core.state.session.offers.until is None


def test_each_workers_part_of_the_bulk_is_looked_at_and_no_later_sweep() -> None:
    core = yielding(reigning())
    ends = [SweepEnd(2, 0b1), SweepEnd(3, ALL & ~0b1)]
    since = [only(core.do(received(end)), EndImport)[0].since for end in ends]
    assert None not in since
    core.do(received(SweepBegin(THEIRS, 4, 0b1, repair=True)))
    assert only(core.do(received(SweepEnd(5, 0b1))), EndImport)[0].since is None


def test_a_reign_without_a_follower_is_offered_whole() -> None:
    core = Core(config(0, limits=LIMITS)).become_active()
    began_at = core.state.role.since
    core.sleep(1000)
    yielding(core)
    assert only(core.do(received(SweepEnd(2, ALL))), EndImport)[0].since == began_at


def test_what_was_handed_over_is_not_offered() -> None:
    """The heir has all: it was settled, and the word was given."""
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(1, Command.FAILOVER))
    assert Go(Term(3), passes_on=True) in sent(core.settle())
    assert core.role is Role.JOINING
    core.hear(peer_info(Role.ACTIVE, 3))
    core.do(received(core.peer_hello(Role.ACTIVE)))
    core.do(received(SweepBegin(THEIRS, 1, ALL)))
    assert only(core.do(received(SweepEnd(2, ALL))), EndImport) == [EndImport(2, ALL)]


def test_an_older_winner_is_offered_nothing() -> None:
    """It would not know what it is: as before, what it does not have is gone."""
    core = reigning()
    core.hear(peer_info(Role.ACTIVE, 3))
    core.do(SyncConnected())
    core.do(received(replace(core.peer_hello(Role.ACTIVE), adopts=False), SweepBegin(THEIRS, 1, ALL)))
    assert only(core.do(received(SweepEnd(2, ALL))), EndImport) == [EndImport(2, ALL)]


def test_an_offer_outlives_a_connection_and_ends_in_time() -> None:
    core = yielding(reigning())
    stranded(core)
    core.do(SyncClosed("cut"), SyncConnected())
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == [Want(THEIRS, 2), Offer(1, RECORDS)]
    told: list[dict[str, object]] = []
    for _ in range(OFFER_S * 5):
        told += records(core.do(received(Beat())) + core.sleep(200), "sessions-offered")
    assert told == [{"offered": 3, "taken": 0, "refused": 0, "unanswered": 1, "left_out": 0}]
    assert sent(core.do(received(Adopted(1, 3, 0)))) == [], "too late"


def test_what_is_offered_is_bounded() -> None:
    core = yielding(reigning())
    core.do(received(SweepEnd(2, ALL)))
    for _ in range(OFFERS_MAX + 2):
        core.do(FlowsStranded(RECORDS, 3))
    offers = core.state.session.offers
    assert (len(offers.waiting), offers.left_out) == (OFFERS_MAX, 6)


def test_the_winner_dies_before_it_has_answered() -> None:
    """Who takes over again takes its own sessions back, whatever the winner would have said."""
    core = yielding(reigning())
    stranded(core)
    core.do(received(digest(2)), DigestsRead(2, ALL, 0))
    assert core.role is Role.PASSIVE
    actions = core.silence()
    assert core.role is Role.ACTIVE
    assert only(actions, AdoptFlows) == [AdoptFlows(0, RECORDS)]
    assert sent(core.do(FlowsAdopted(0, 3))) == []


# ---- the winner ------------------------------------------------------------------------------------------
def test_the_winner_takes_what_the_peer_offers_and_answers() -> None:
    core = active()
    core.do(joins(core))
    assert only(core.do(received(Offer(1, RECORDS))), AdoptFlows) == [AdoptFlows(1, RECORDS)]
    actions = core.do(FlowsAdopted(1, 2, 1))
    assert sent(actions) == [Adopted(1, 2, 1)]
    assert records(actions, "sessions-adopted") == [{"taken": 2, "refused": 1}]
    assert Count("sync.adopted_sessions", 2) in actions
    core.do(received(Offer(2, b"\xc1")))
    assert sent(core.do(FlowsAdopted(2, error="no msgpack"))) == [Adopted(2, 0, 0)]


def unasked(actions: tuple[Action, ...]) -> bool:
    return Count("sync.unasked_offers") in actions and not only(actions, AdoptFlows)


def test_nobody_else_is_offered_anything() -> None:
    """Neither a node that follows, nor one whose peer follows it for long, and nothing without end."""
    follower = Core(config(0, limits=LIMITS)).become_passive()
    assert unasked(follower.do(received(Offer(1, RECORDS))))
    core = in_sync()
    assert not unasked(core.do(received(Offer(1, RECORDS))))
    for _ in range(OFFER_S):
        core.do(received(Beat()))
        core.sleep(1000)
    assert unasked(core.do(received(Offer(2, RECORDS))))
    core = active()
    core.do(joins(core))
    for seq in range(OFFERS_MAX):
        assert not unasked(core.do(received(Offer(seq, RECORDS))))
    assert unasked(core.do(received(Offer(OFFERS_MAX, RECORDS))))


def test_an_offer_before_the_hello_ends_the_connection() -> None:
    core = active()
    actions = core.do(received(Offer(1, RECORDS)))
    assert isinstance(sent(actions)[0], Close)


def test_a_reign_that_ends_listens_no_more() -> None:
    core = in_sync()
    core.hear(peer_info(Role.ACTIVE, 3))
    assert core.state.session.adoption.left == 0
    assert sent(core.do(FlowsAdopted(7, 1))) == [], "its peer reigns now"
