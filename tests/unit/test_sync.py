# SPDX-License-Identifier: Apache-2.0
"""The sync session, both ends, through the node. Spec: R19, R20, R21, R22."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cores import (
    COUNTS,
    INCARNATIONS,
    SUMS,
    Core,
    batch,
    config,
    digest,
    only,
    peer_info,
    received,
    records,
    roles,
    sent,
)

from flexha.core import node, sync_wire
from flexha.core.actions import (
    AckFlows,
    Action,
    AskDigest,
    BeginImport,
    CloseSync,
    CompareDigests,
    Count,
    EndImport,
    ImportFlows,
    SetCommit,
    SetDrainCredit,
    SetPulse,
    StartSweep,
    TrackChanges,
    WithholdFlows,
)
from flexha.core.events import (
    DigestDrained,
    DigestsRead,
    FlowsDrained,
    FlowsImported,
    PeerHeard,
    Refused,
    Role,
    ShardsLost,
    SweepBegun,
    SweepWalked,
    SyncClosed,
    SyncConnected,
    SyncReceived,
)
from flexha.core.node import SyncLimits
from flexha.core.shards import ALL
from flexha.core.sync import Mode
from flexha.core.sync_wire import (
    Ack,
    Audit,
    Batch,
    Beat,
    Close,
    Digest,
    Hello,
    Message,
    Resume,
    Stream,
    SweepBegin,
    SweepEnd,
    Unknown,
    Want,
)
from flexha.units import Term

LIMITS = SyncLimits(window_batches=4, batch_records=10, resume_hold_s=20.0)
OURS = Stream(INCARNATIONS[0], Term(2))
THEIRS = Stream(INCARNATIONS[1], Term(3))
EVEN = sum(1 << shard for shard in range(0, 64, 2))
"""The shards of one of two workers."""


def drained(n: int = 1, *, mark: int = 0) -> FlowsDrained:
    return FlowsDrained(batch(1, n).sections, n, {0: mark} if mark else {})


def active(limits: SyncLimits = LIMITS) -> Core:
    """ACTIVE, with a peer that has just connected."""
    core = Core(config(0, limits=limits)).become_active()
    core.do(SyncConnected())
    return core


def joins(core: Core, stream: Stream | None = None, seq: int = 0, role: Role = Role.JOINING) -> SyncReceived:
    """The peer's first words: who it is, and what it wants."""
    return received(core.peer_hello(role), Want(stream, seq))


def sending() -> Core:
    """ACTIVE; the bulk, numbers 1 to 3 with two records, is sent and acknowledged."""
    core = active()
    core.do(joins(core), drained(2), SweepWalked(ALL), received(Ack(3)))
    return core


def in_sync() -> Core:
    """The same, and both tables have been found equal."""
    core = sending()
    core.agree()
    return core


def joining() -> Core:
    """JOINING beside an ACTIVE peer that has said hello."""
    core = Core(config(0, limits=LIMITS)).become_joining(3)
    core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE)))
    return core


def mode(core: Core) -> Mode:
    return core.state.session.mode


# ---- greeting ----------------------------------------------------------------------------------------
def test_both_ends_say_hello_first() -> None:
    core = Core(config(0)).become_active()
    (hello,) = sent(core.do(SyncConnected()))
    assert hello == Hello(pair="lab", node=0, incarnation=INCARNATIONS[0], term=Term(2), role=Role.ACTIVE)
    assert mode(core) is Mode.GREETING


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        (Role.JOINING, Mode.SENDING),
        (Role.PASSIVE, Mode.SENDING),
        (Role.ACTIVE, Mode.IDLE),
        (Role.MAINTENANCE, Mode.IDLE),
        (Role.FAULT, Mode.IDLE),
        (Role.INIT, Mode.IDLE),
    ],
)
def test_roles_choose_the_mode(role: Role, expected: Mode) -> None:
    core = active()
    core.do(joins(core, role=role))
    assert mode(core) is expected


def test_nothing_is_sent_before_the_peer_wants_it() -> None:
    core = active()
    core.do(received(core.peer_hello(Role.JOINING)))
    assert mode(core) is Mode.IDLE
    assert only(core.do(received(Want(None, 0))), StartSweep) == [StartSweep(ALL)]


def test_a_follower_says_what_it_wants_once_for_each_reign() -> None:
    """A role or a term that is told again starts nothing over."""
    core = Core(config(0)).become_joining(3)
    core.do(SyncConnected())
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == [Want(None, 0)]
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == []


def test_batches_of_an_earlier_conversation_are_not_taken() -> None:
    """The reigning peer takes a new term: what it sent before it heard our want is void, no offence."""
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2)), FlowsImported(2))
    core.do(PeerHeard(peer_info(Role.ACTIVE, 5)))
    assert mode(core) is Mode.IDLE
    assert core.do(received(batch(3))) == ()
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == [Want(THEIRS, 2)]
    old = (batch(4), SweepBegin(THEIRS, 5, EVEN), SweepEnd(6, EVEN), digest(6))
    assert core.do(received(*old)) == ()
    assert only(core.do(received(Resume(THEIRS, 3), batch(3))), ImportFlows)[0].seq == 3


def test_an_active_of_a_past_term_is_not_followed() -> None:
    """We know of a later reign: what that node says of the table is history."""
    core = Core(config(0)).become_joining(5)
    core.do(SyncConnected(), received(replace(core.peer_hello(Role.ACTIVE), term=Term(3))))
    assert mode(core) is Mode.IDLE
    assert only(core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2))), ImportFlows) == []


# ---- sending -----------------------------------------------------------------------------------------
def test_bulk_on_join() -> None:
    core = active()
    actions = core.do(joins(core))
    assert only(actions, TrackChanges) == [TrackChanges(on=True)]
    assert sent(actions) == [SweepBegin(OURS, 1, ALL)]
    assert only(actions, StartSweep) == [StartSweep(ALL)]
    assert only(actions, SetDrainCredit)[-1] == SetDrainCredit(30)
    kinds = [type(a) for a in actions]
    assert kinds.index(TrackChanges) < kinds.index(StartSweep), "or a change during the walk would be missed"
    assert sent(core.do(drained(2))) == [batch(2, 2)]
    assert sent(core.do(SweepWalked(ALL))) == [SweepEnd(3, ALL)]


def test_each_worker_ends_its_part_of_a_sweep() -> None:
    core = active()
    core.do(joins(core))
    assert sent(core.do(SweepWalked(EVEN))) == [SweepEnd(2, EVEN)]
    assert core.state.session.sender.bulk_in_progress
    assert sent(core.do(drained(), SweepWalked(ALL & ~EVEN))) == [batch(3), SweepEnd(4, ALL & ~EVEN)]
    assert not core.state.session.sender.bulk_in_progress


def test_the_window_bounds_what_is_drained() -> None:
    """A slow peer leaves its changes in C, as bits."""
    core = sending()
    credit = [only(core.do(drained()), SetDrainCredit)[-1].records for _ in range(4)]
    assert credit == [30, 20, 10, 0]
    assert only(core.do(received(Ack(6))), SetDrainCredit) == [SetDrainCredit(30)]


def test_the_window_is_bounded_in_bytes_too() -> None:
    core = active(replace(LIMITS, window_bytes=700))
    core.do(joins(core))
    assert only(core.do(drained(1)), SetDrainCredit)[-1].records == 20
    assert only(core.do(drained(10)), SetDrainCredit)[-1].records == 0
    assert only(core.do(received(Ack(3))), SetDrainCredit)[-1].records == 40
    assert core.state.session.sender.window_bytes == 0


def test_acknowledgements_free_tombstones_up_to_the_highest_mark() -> None:
    core = sending()
    core.do(drained(mark=7), drained(mark=9), drained(mark=12))
    assert only(core.do(received(Ack(5))), AckFlows) == [AckFlows({0: 9})]
    assert only(core.do(received(Ack(5))), AckFlows) == [], "said twice"
    assert only(core.do(received(Ack(6))), AckFlows) == [AckFlows({0: 12})]


def test_one_acknowledgement_answers_for_all_before_it() -> None:
    core = sending()
    core.do(drained(mark=7), FlowsDrained(batch(1).sections, 1, {1: 3}))
    assert only(core.do(received(Ack(5))), AckFlows) == [AckFlows({0: 7, 1: 3})]


def test_an_acknowledgement_does_not_count_for_what_was_refused() -> None:
    """Spec: B1: the fast path hears of it first. What was taken is acknowledged as ever."""
    core = sending()
    core.do(drained(1, mark=5), drained(3, mark=9), drained(2, mark=11))
    refused = (Refused(5, (0, 2)), Refused(6, (1,)))
    actions = core.do(received(Ack(6, refused)))
    told = [action for action in actions if isinstance(action, WithholdFlows | AckFlows)]
    assert [type(action) for action in told] == [WithholdFlows, WithholdFlows, AckFlows]
    assert [action.marks for action in told] == [{0: 9}, {0: 11}, {0: 11}]
    named = [action.places for action in told if isinstance(action, WithholdFlows)]
    assert named == [(0, 2), (1,)]
    assert only(actions, Count) == [Count("sync.peer_refused_records", 2), Count("sync.peer_refused_records")]
    assert mode(core) is Mode.SENDING


@pytest.mark.parametrize(
    "refused",
    [Refused(4, (1,)), Refused(3, (0,)), Refused(2, (0,))],
    ids=["behind the last record", "of the end of a sweep", "acknowledged before"],
)
def test_a_refusal_of_what_was_never_sent(refused: Refused) -> None:
    core = active()
    core.do(joins(core), drained(2), SweepWalked(ALL), received(Ack(2)), drained(1), drained(1))
    actions = core.do(received(Ack(4, (refused,))))
    assert Count("sync.bad_ack") in actions
    assert only(actions, CloseSync) != []
    assert only(actions, AckFlows) == []


def test_resume_sends_again_what_is_not_acknowledged_and_no_more() -> None:
    """R22: nothing is sent twice without cause, a reconnect resumes."""
    core = sending()
    core.do(drained(mark=5), drained(), drained())
    assert only(core.do(SyncClosed("cut")), SetDrainCredit) == [SetDrainCredit(0)]
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 4, Role.PASSIVE))
    assert sent(actions) == [Resume(OURS, 5), batch(5), batch(6)]
    assert only(actions, AckFlows) == [AckFlows({0: 5})]
    assert only(actions, StartSweep) == []
    assert only(actions, SetDrainCredit)[-1] == SetDrainCredit(20)
    assert only(core.sleep(0), AskDigest) == [AskDigest()], "at once: the peer is not in sync before"


@pytest.mark.parametrize(
    ("stream", "seq"),
    [(None, 0), (Stream(9, Term(2)), 3), (Stream(INCARNATIONS[0], Term(0)), 3), (OURS, 99), (OURS, 0)],
    ids=["nothing", "another-life", "another-reign", "more-than-sent", "less-than-acknowledged"],
)
def test_a_bulk_when_a_resume_is_impossible(stream: Stream | None, seq: int) -> None:
    """Of what the workers have told so far, nothing counts for this peer: they forget it first."""
    core = sending()
    core.do(drained(), SyncClosed("cut"), SyncConnected())
    actions = core.do(joins(core, stream, seq, Role.PASSIVE))
    assert sent(actions) == [SweepBegin(OURS, 5, ALL)]
    assert only(actions, TrackChanges) == [TrackChanges(on=False), TrackChanges(on=True)]
    assert only(actions, StartSweep) == [StartSweep(ALL)]


def test_a_peer_that_stays_away_is_given_up() -> None:
    """Tracking for it costs tombstones; then it needs a bulk."""
    core = sending()
    core.do(SyncClosed("gone"))
    assert only(core.sleep(19_900), TrackChanges) == []
    actions = core.sleep(200)
    assert only(actions, TrackChanges) == [TrackChanges(on=False)]
    assert records(actions, "sync-resume-expired") != []
    assert Count("sync.records_discarded", 5) in core.do(drained(5))
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 3, Role.PASSIVE))
    assert only(actions, TrackChanges) == [TrackChanges(on=True)]
    assert sent(actions) == [SweepBegin(OURS, 4, ALL)]


def test_lost_shards_are_swept_and_no_others() -> None:
    core = in_sync()
    actions = core.do(ShardsLost(0b101))
    assert Count("sync.shards_lost", 2) in actions
    assert sent(actions) == []
    assert only(actions, StartSweep) == [StartSweep(0b101)]
    assert sent(core.do(SweepBegun(0b101))) == [SweepBegin(OURS, 4, 0b101)]
    assert sent(core.do(drained(), SweepWalked(0b101))) == [batch(5), SweepEnd(6, 0b101)]


def test_a_sweep_begins_where_the_worker_says_so() -> None:
    """What it told before, though it was drained after the request, is stale at the peer."""
    core = in_sync()
    core.do(ShardsLost(0b11))
    actions = core.do(drained(), SweepBegun(0b01), drained(), SweepBegun(0b10))
    assert sent(actions) == [batch(4), SweepBegin(OURS, 5, 0b01), batch(6), SweepBegin(OURS, 7, 0b10)]
    assert sent(core.do(SweepWalked(0b11))) == [SweepEnd(8, 0b11)]


def test_each_worker_begins_its_part_of_a_bulk_anew() -> None:
    """What lay in its ring when the bulk was announced counts no more."""
    core = active()
    core.do(joins(core))
    actions = core.do(drained(), SweepBegun(EVEN))
    assert sent(actions) == [batch(2), SweepBegin(OURS, 3, EVEN)]
    assert sent(core.do(SweepWalked(EVEN))) == [SweepEnd(4, EVEN)]
    assert sent(core.do(SweepBegun(EVEN))) == [], "it has ended"


def test_the_beginning_of_a_sweep_nobody_follows_is_dropped() -> None:
    core = in_sync()
    core.do(ShardsLost(0b1), received(core.peer_hello(Role.MAINTENANCE)))
    assert sent(core.do(SweepBegun(0b1), SweepWalked(0b1))) == []


def test_a_loss_is_acted_upon_once() -> None:
    """It is said until the sweep begins, and again when a shard is lost anew."""
    core = in_sync()
    core.do(ShardsLost(EVEN))
    assert core.do(ShardsLost(0b100)) == ()
    core.do(SweepBegun(EVEN), ShardsLost(0b100))
    assert core.do(ShardsLost(0b100)) == ()
    actions = core.do(SweepWalked(EVEN & ~0b100), SweepBegun(0b100))
    assert sent(actions) == [SweepEnd(5, EVEN & ~0b100), SweepBegin(OURS, 6, 0b100)]


def test_shards_lost_during_a_walk_are_swept_after_it() -> None:
    """Two walks at once are never asked for, but for a bulk."""
    core = in_sync()
    core.do(ShardsLost(EVEN), SweepBegun(EVEN))
    assert sent(core.do(ShardsLost(0b10))) == []
    actions = core.do(SweepWalked(EVEN), SweepBegun(0b10))
    assert sent(actions) == [SweepEnd(5, EVEN), SweepBegin(OURS, 6, 0b10)]
    assert only(actions, StartSweep) == [StartSweep(0b10)]


def test_shards_lost_while_the_peer_is_away_are_swept_when_it_resumes() -> None:
    core = in_sync()
    core.do(SyncClosed("cut"))
    assert sent(core.do(ShardsLost(0b1))) == []
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 3, Role.PASSIVE), SweepBegun(0b1))
    assert sent(actions) == [Resume(OURS, 4), SweepBegin(OURS, 4, 0b1)]
    assert only(actions, StartSweep) == [StartSweep(0b1)]


def test_a_reconnect_during_a_walk_that_cannot_resume_begins_anew() -> None:
    core = active()
    core.do(joins(core), SyncClosed("cut"), SyncConnected())
    actions = core.do(joins(core))
    assert sent(actions) == [SweepBegin(OURS, 2, ALL)]
    assert only(actions, StartSweep) == [StartSweep(ALL)]


def test_a_walk_that_nobody_wants_is_forgotten() -> None:
    core = active()
    core.do(joins(core))
    actions = core.do(received(core.peer_hello(Role.MAINTENANCE)))
    assert only(actions, TrackChanges) == [TrackChanges(on=False)]
    assert only(actions, SetDrainCredit) == [SetDrainCredit(0)]
    assert sent(core.do(SweepWalked(ALL))) == []


def test_a_bulk_resumes_in_its_middle() -> None:
    core = active()
    core.do(joins(core), drained(4), drained(4), received(Ack(2)), SyncClosed("cut"))
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 2, Role.JOINING))
    assert sent(actions) == [Resume(OURS, 3), batch(3, 4)]
    assert sent(core.do(SweepWalked(ALL))) == [SweepEnd(4, ALL)]


def test_the_end_of_a_bulk_that_was_lost_with_the_connection_is_said_again() -> None:
    core = active()
    core.do(joins(core), drained(4), received(Ack(2)), SyncClosed("cut"), SweepWalked(ALL))
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 2, Role.JOINING))
    assert sent(actions) == [Resume(OURS, 3), SweepEnd(3, ALL)]


# ---- digests, as the sender knows them -----------------------------------------------------------------
def test_tables_are_compared_when_a_bulk_has_ended_and_then_each_second() -> None:
    core = sending()
    assert only(core.sleep(0), AskDigest) == [AskDigest()]
    (told,) = sent(core.do(DigestDrained(ALL, SUMS, COUNTS)))
    assert told == digest(3)
    core.do(received(Audit(3, ALL, 0)))
    assert only(core.sleep(999), AskDigest) == []
    assert only(core.sleep(2), AskDigest) == [AskDigest()]


def test_each_worker_tells_its_own_shards() -> None:
    """Where its queues are empty, not at the same place in the stream."""
    core = sending()
    core.sleep(0)
    half = DigestDrained(EVEN, SUMS[:256], COUNTS[:128])
    assert sent(core.do(half, drained())) == [Digest(3, EVEN, SUMS[:256], COUNTS[:128]), batch(4)]
    other = DigestDrained(ALL & ~EVEN, SUMS[:256], COUNTS[:128])
    assert sent(core.do(other)) == [Digest(4, ALL & ~EVEN, SUMS[:256], COUNTS[:128])]
    assert only(core.do(received(Audit(3, EVEN, 0))), SetCommit) == []
    assert only(core.do(received(Audit(4, ALL & ~EVEN, 0))), SetCommit) == [SetCommit(on=True)]


def test_packets_wait_for_a_peer_in_sync_only() -> None:
    """B1: without a peer nothing is held."""
    core = sending()
    assert only(core.agree(), SetCommit) == [SetCommit(on=True)]
    core.sleep(1000)
    assert only(core.agree(), SetCommit) == [], "said once"
    assert only(core.do(SyncClosed("cut")), SetCommit) == [SetCommit(on=False)]
    core.do(SyncConnected(), joins(core, OURS, 3, Role.PASSIVE))
    assert only(core.agree(), SetCommit) == [SetCommit(on=True)]


def test_nobody_waits_for_a_dead_peer() -> None:
    core = Core(config(0, limits=LIMITS)).with_ready_peer()
    actions = core.silence()
    assert only(actions, SetCommit) == [SetCommit(on=False)]


def test_a_shard_that_is_being_swept_is_not_compared() -> None:
    core = in_sync()
    core.do(ShardsLost(0b1))
    core.sleep(1000)
    (told,) = sent(core.do(DigestDrained(ALL, SUMS, COUNTS)))
    assert isinstance(told, Digest)
    assert told.shards == ALL & ~1
    assert (len(told.sums), len(told.counts)) == (63 * 8, 63 * 4)


def test_a_difference_is_repaired_counted_and_told() -> None:
    """B5."""
    core = in_sync()
    core.sleep(1000)
    actions = core.agree(differ=0b100)
    assert records(actions, "audit-differs") == [{"shards": [2]}]
    assert Count("audit.differing", 1) in actions
    assert only(actions, StartSweep) == [StartSweep(0b100)]
    assert sent(core.do(SweepBegun(0b100)))[-1] == SweepBegin(OURS, 4, 0b100, repair=True)
    core.do(drained(), SweepWalked(0b100), received(Ack(6)))
    actions = core.agree()
    assert records(actions, "audit-repaired") == [{"shards": [2]}]
    assert Count("audit.repaired", 1) in actions


def test_what_two_repairs_do_not_mend_is_an_alarm_and_tried_again() -> None:
    core = in_sync()
    core.sleep(1000)
    for _ in range(2):
        actions = core.agree(differ=0b1)
        assert only(actions, StartSweep) == [StartSweep(0b1)]
        assert records(actions, "audit-unrepaired") == []
        core.do(SweepBegun(0b1), SweepWalked(0b1))
    actions = core.agree(differ=0b1)
    assert records(actions, "audit-unrepaired") == [{"shards": [0], "repairs": 2, "retry_s": 10}]
    assert Count("audit.unrepaired", 1) in actions
    assert only(actions, StartSweep) == []
    again = 0
    for _ in range(11):
        again += len(only(core.sleep(1000), StartSweep))
        core.do(SweepBegun(0b1), SweepWalked(0b1))
        core.do(received(Ack(core.state.session.sender.sent_seq)))
        actions = core.agree(differ=0b1)
        assert records(actions, "audit-unrepaired") == [], "said once"
    assert again == 1
    core.sleep(1000)
    actions = core.agree()
    assert records(actions, "audit-repaired") == [{"shards": [0]}]
    assert core.state.session.sender.audit.unrepaired == 0


def test_an_answer_from_before_a_repair_says_nothing_of_it() -> None:
    core = in_sync()
    core.sleep(1000)
    core.do(DigestDrained(ALL, SUMS, COUNTS), ShardsLost(0b1), SweepWalked(0b1))
    actions = core.do(received(Audit(3, ALL, 0b1)))
    assert only(actions, StartSweep) == []
    assert records(actions, "audit-differs") == []


def test_no_round_begins_before_the_last_has_ended() -> None:
    """A slow peer is not buried under digests."""
    core = sending()
    core.sleep(0)
    assert only(core.sleep(2000), AskDigest) == [], "a worker has yet to answer"
    core.do(received(Beat()), DigestDrained(ALL, SUMS, COUNTS))
    assert only(core.sleep(2000), AskDigest) == [], "the peer has"
    core.do(received(Audit(3, ALL, 0)))
    assert only(core.sleep(60), AskDigest) == [AskDigest()]


def test_an_answer_to_what_was_never_asked() -> None:
    assert Count("sync.bad_audit") in sending().do(received(Audit(17, ALL, 0)))
    assert sending().do(received(Audit(2, ALL, 1))) == (), "of an earlier conversation, for all we know"


# ---- receiving ---------------------------------------------------------------------------------------
def test_a_bulk_and_equal_digests_make_a_joining_node_passive() -> None:
    core = joining()
    assert only(core.do(received(SweepBegin(THEIRS, 1, ALL))), BeginImport) == [BeginImport(1, ALL)]
    assert only(core.do(received(batch(2, 3))), ImportFlows) == [ImportFlows(2, batch(2, 3).sections)]
    actions = core.do(received(SweepEnd(3, ALL)), FlowsImported(3))
    assert only(actions, EndImport) == [EndImport(3, ALL)]
    assert Ack(3) in sent(actions)
    assert core.role is Role.JOINING, "the tables may differ"
    actions = core.do(received(digest(3)))
    assert only(actions, CompareDigests) == [CompareDigests(3, ALL, SUMS, COUNTS)]
    actions = core.do(DigestsRead(3, ALL, 0))
    assert sent(actions)[0] == Audit(3, ALL, 0)
    assert core.role is Role.PASSIVE
    assert only(actions, SetPulse)[-1].ready


def test_equal_digests_in_the_middle_of_a_bulk_are_not_enough() -> None:
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), SweepEnd(2, EVEN), digest(2)), DigestsRead(2, ALL, 0))
    assert core.role is Role.JOINING
    core.do(received(SweepEnd(3, ALL & ~EVEN), digest(3)), DigestsRead(3, ALL, 0))
    assert core.role is Role.PASSIVE


def test_a_node_whose_table_differs_is_not_in_sync() -> None:
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), SweepEnd(2, ALL), digest(2)))
    actions = core.do(DigestsRead(2, ALL, 0b10))
    assert records(actions, "audit-differs") == [{"shards": [1], "seq": 2}]
    assert sent(actions) == [Audit(2, ALL, 0b10)]
    assert core.role is Role.JOINING
    repair = SweepBegin(THEIRS, 3, 0b10, repair=True)
    assert only(core.do(received(repair)), BeginImport) == [BeginImport(3, 0b10, repair=True)]
    core.do(received(batch(4), SweepEnd(5, 0b10), digest(5)), DigestsRead(5, ALL, 0))
    assert core.role is Role.PASSIVE


def test_a_sweep_of_some_shards_leaves_a_node_in_sync() -> None:
    core = Core(config(0, limits=LIMITS)).become_passive()
    actions = core.do(received(SweepBegin(THEIRS, 3, 0b1), batch(4), SweepEnd(5, 0b1)))
    assert only(actions, EndImport) == [EndImport(5, 0b1)]
    assert core.state.role.ready


def test_nothing_is_acknowledged_before_it_is_live() -> None:
    core = joining()
    assert sent(core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2), batch(3)))) == []
    assert sent(core.do(FlowsImported(2))) == [Ack(2)]


def test_one_acknowledgement_for_all_that_was_imported_in_a_turn() -> None:
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2), batch(3), batch(4)))
    assert sent(core.do(FlowsImported(4))) == [Ack(4)]


def test_what_was_not_taken_is_named_once() -> None:
    """Of what was acknowledged before nobody asks."""
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2, 3), batch(3, 3)))
    some = Refused(2, (0, 2))
    assert sent(core.do(FlowsImported(2, 3, refused=(some,)))) == [Ack(2, (some,))]
    other = Refused(3, (1,))
    assert sent(core.do(FlowsImported(3, 3, refused=(some, other)))) == [Ack(3, (other,))]


def test_the_receiver_says_where_it_is_and_resumes() -> None:
    core = joining()
    bulk = received(SweepBegin(THEIRS, 1, ALL), batch(2), SweepEnd(3, ALL), digest(3))
    core.do(bulk, FlowsImported(3), DigestsRead(3, ALL, 0), SyncClosed("cut"))
    assert core.role is Role.PASSIVE
    assert not core.state.role.ready, "whether it is current is unknown"
    core.do(SyncConnected())
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == [Want(THEIRS, 3)]
    core.do(received(Resume(THEIRS, 4)))
    assert only(core.do(received(batch(4))), ImportFlows)[0].seq == 4
    assert not core.state.role.ready, "batches may be missing still"
    core.do(received(digest(4)), DigestsRead(4, ALL, 0))
    assert core.state.role.ready


def test_what_is_here_already_is_acknowledged_again() -> None:
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2), SweepEnd(3, ALL)), FlowsImported(3))
    for again in (batch(2), SweepEnd(3, ALL), SweepBegin(THEIRS, 1, ALL)):
        actions = core.do(received(again))
        assert sent(actions) == [Ack(3)]
        assert len(actions) == 1


def test_an_import_that_was_under_way_when_the_connection_broke_counts() -> None:
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2)), SyncClosed("cut"), FlowsImported(2))
    assert sent(core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE))))[-1] == Want(THEIRS, 2)


def test_a_refused_batch_ends_the_connection_and_asks_for_a_bulk() -> None:
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2)))
    actions = core.do(FlowsImported(2, error="table full"))
    assert only(actions, CloseSync) == [CloseSync("batch 2 refused: table full")]
    assert Count("sync.import_refused") in actions
    said = sent(core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE))))
    assert isinstance(said[-1], Want)
    assert said[-1].stream is None


def test_a_fast_path_that_keeps_refusing_is_a_fault() -> None:
    core = joining()

    def refused() -> tuple[Action, ...]:
        hello = core.peer_hello(Role.ACTIVE)
        core.do(SyncConnected(), received(hello, SweepBegin(THEIRS, 1, ALL), batch(2)))
        return core.do(FlowsImported(2, error="no memory"))

    refused()
    refused()
    assert core.role is Role.JOINING
    assert records(refused(), "role")[0]["reason"] == "import-broken"
    assert core.role is Role.FAULT


def test_what_the_old_active_still_sends_after_a_takeover_is_ignored() -> None:
    core = Core(config(0, limits=LIMITS)).become_passive()
    core.silence()
    assert core.role is Role.ACTIVE
    core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE)))
    old = received(batch(3), SweepBegin(THEIRS, 4, 1), SweepEnd(5, 1), digest(5))
    actions = core.do(old, FlowsImported(3), DigestsRead(5, ALL, 0))
    assert only(actions, ImportFlows) == []
    assert sent(actions) == []


# ---- versions ----------------------------------------------------------------------------------------
def test_messages_of_a_later_version_are_skipped_counted_and_told_once() -> None:
    """B10."""
    core = sending()
    actions = core.do(received(Unknown("pinhole"), Unknown("app_id")))
    assert only(actions, Count) == [Count("sync.unknown_message")] * 2
    assert records(actions, "sync-unknown-message") == [{"t": "pinhole"}]
    assert mode(core) is Mode.SENDING


# ---- configuration -----------------------------------------------------------------------------------
EQUAL = (("pools", b"12345678"), ("ports", b"12345678"), ("secret", b"12345678"))
OTHER_POOLS = (("pools", b"87654321"), *EQUAL[1:])


def greeted(core: Core, equal: tuple[tuple[str, bytes], ...]) -> tuple[Action, ...]:
    """A connection, and the peer's hello."""
    hello = replace(core.peer_hello(Role.JOINING), equal=equal)
    return core.do(SyncConnected(), received(hello, Want(None, 0)))


def test_with_another_configuration_there_is_no_sync_and_one_line_says_why() -> None:
    """Each attempt ends before anything is told; once both agree, sync begins by itself."""
    core = Core(replace(config(0, limits=LIMITS), equal=EQUAL)).become_active()
    said = []
    for _ in range(3):
        actions = greeted(core, OTHER_POOLS)
        assert only(actions, Count) == [Count("sync.config_differs")]
        assert only(actions, CloseSync) == [CloseSync("the configuration differs: pools")]
        assert only(actions, StartSweep) == []
        said += records(actions, "sync-config-differs")
        assert node.status(core.state, core.now)["sync"]["differs"] == ["pools"]  # type: ignore[index]
        assert mode(core) is Mode.DOWN
    assert [line["parts"] for line in said] == [["pools"]]
    assert "[[pools]]" in str(said[0]["remedy"])
    actions = greeted(core, EQUAL)
    assert mode(core) is Mode.SENDING
    assert len(records(actions, "sync-config-agrees")) == 1
    assert node.status(core.state, core.now)["sync"]["differs"] == []  # type: ignore[index]


def test_a_joining_node_of_another_configuration_is_never_in_sync() -> None:
    core = Core(replace(config(0, limits=LIMITS), equal=EQUAL)).become_joining(3)
    core.do(SyncConnected(), received(replace(core.peer_hello(Role.ACTIVE), equal=OTHER_POOLS)))
    assert mode(core) is Mode.DOWN
    assert core.role is Role.JOINING


def test_a_peer_that_does_not_say_its_configuration_is_believed() -> None:
    """Spec: B10."""
    core = Core(replace(config(0, limits=LIMITS), equal=EQUAL)).become_active()
    greeted(core, ())
    assert mode(core) is Mode.SENDING


def test_records_that_contradict_themselves_end_the_connection_once() -> None:
    """The table stays until a bulk has put it right. What that brings again is refused, without end."""
    core = Core(replace(config(0, limits=LIMITS), equal=EQUAL)).become_joining(3)
    hello = replace(core.peer_hello(Role.ACTIVE), equal=EQUAL)
    bulk = received(SweepBegin(THEIRS, 1, ALL), batch(2, 3), SweepEnd(3, ALL))
    some = Refused(2, (1,))
    core.do(SyncConnected(), received(hello), bulk)
    actions = core.do(FlowsImported(3, refused=(some,), absurd=1))
    assert only(actions, CloseSync) == [CloseSync("records that contradict themselves")]
    assert only(actions, Count) == [Count("sync.absurd_records")]
    assert [m for m in sent(actions) if isinstance(m, Ack)] == []
    assert only(actions, EndImport) == []
    assert sent(core.do(SyncConnected(), received(hello)))[-1] == Want(None, 0)
    core.do(bulk)
    actions = core.do(FlowsImported(3, refused=(some,), absurd=1))
    assert sent(actions) == [Ack(3, (some,))]
    core.do(received(digest(3)), DigestsRead(3, ALL, 0), received(batch(4)))
    assert core.state.session.receiver.synced
    actions = core.do(FlowsImported(4, refused=(Refused(4, (0,)),), absurd=1))
    assert only(actions, CloseSync) != [], "they were equal since: this is another one"


def test_what_a_peer_of_another_version_sends_is_refused_record_by_record() -> None:
    """Nothing is known of its configuration. Spec: B10."""
    core = joining()
    core.do(received(SweepBegin(THEIRS, 1, ALL), batch(2, 3)))
    some = Refused(2, (1,))
    assert sent(core.do(FlowsImported(2, refused=(some,), absurd=1))) == [Ack(2, (some,))]


# ---- offences ----------------------------------------------------------------------------------------
def raw(text: str) -> SyncReceived:
    return SyncReceived(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        ("garbage", SyncReceived(b"\0\0\0\x04\xc1\xc1\xc1\xc1")),
        ("oversize", SyncReceived(b"GET / HTTP/1.1\r\n\r\n")),
        ("garbage", raw("0000000481a17407")),
        ("gap", received(SweepBegin(THEIRS, 1, ALL), batch(3))),
        ("gap", received(SweepBegin(THEIRS, 1, ALL), SweepEnd(7, ALL))),
        ("gap", received(SweepBegin(THEIRS, 1, ALL), SweepBegin(THEIRS, 3, 1))),
        ("gap", received(SweepBegin(THEIRS, 1, ALL), digest(2))),
        ("other_stream", received(SweepBegin(THEIRS, 1, ALL), SweepBegin(OURS, 2, 1))),
        ("bad_sweep", received(SweepBegin(THEIRS, 1, ALL), SweepEnd(2, EVEN), SweepEnd(3, 1))),
        ("bad_resume", received(Resume(THEIRS, 1))),
    ],
)
def test_an_offence_ends_the_connection_and_nothing_else(reason: str, event: SyncReceived) -> None:
    core = joining()
    actions = core.do(event)
    assert Count(f"sync.{reason}") in actions
    (closed,) = only(actions, CloseSync)
    assert closed.reason.startswith(reason)
    assert isinstance(sent(actions)[-1], Close), "the peer is told why"
    assert core.role is Role.JOINING
    assert roles(actions) == []
    assert core.do(received(batch(1)), SyncClosed("by us")) == (), "what still arrives is of no interest"


@pytest.mark.parametrize(
    ("reason", "change"),
    [("other_pair", {"pair": "other"}), ("same_node", {"node": 0}), ("version", {"v_min": 7, "v_max": 9})],
)
def test_a_wrong_peer_is_refused(reason: str, change: dict[str, object]) -> None:
    core = active()
    actions = core.do(received(replace(core.peer_hello(Role.JOINING), **change)))  # type: ignore[arg-type]
    assert Count(f"sync.{reason}") in actions
    assert len(only(actions, CloseSync)) == 1
    assert only(actions, StartSweep) == []


@pytest.mark.parametrize(
    "message",
    [
        *(Want(None, 0), Ack(0), batch(1), Resume(THEIRS, 1), SweepBegin(THEIRS, 1, ALL), SweepEnd(1, ALL)),
        *(digest(0), Audit(0, ALL, 0), Unknown("later")),
    ],
)
def test_the_first_message_is_hello(message: Message) -> None:
    actions = active().do(received(message))
    assert Count("sync.no_hello") in actions
    assert len(only(actions, CloseSync)) == 1


def test_an_acknowledgement_of_what_was_never_sent() -> None:
    actions = sending().do(received(Ack(17)))
    assert Count("sync.bad_ack") in actions


def test_a_frame_that_stops_in_its_middle_is_given_up_in_time() -> None:
    core = joining()
    core.do(SyncReceived(sync_wire.encode(batch(1))[:50]))
    actions = core.sleep(3100)
    assert Count("sync.silence") in actions
    assert len(only(actions, CloseSync)) == 1


def test_the_peers_goodbye_is_heard() -> None:
    core = joining()
    actions = core.do(received(Close("no reason at all")))
    assert len(only(actions, CloseSync)) == 1
    assert "no reason at all" in str(records(actions, "sync-closed")[0]["reason"])


# ---- life of the connection --------------------------------------------------------------------------
def test_an_idle_session_shows_signs_of_life() -> None:
    core = sending()
    said = sent(core.sleep(2100))
    assert said.count(Beat()) == 4


def test_a_silent_peer_is_hung_up_on() -> None:
    """TCP would need minutes to see that the other end is gone."""
    actions = sending().sleep(3100)
    assert only(actions, CloseSync) == [CloseSync("nothing heard for 3000 ms")]


def beats(core: Core, seconds: float, *said: Message) -> list[Action]:
    """The peer shows signs of life, and says something besides each half second."""
    actions: list[Action] = []
    for _ in range(int(2 * seconds)):
        actions += core.sleep(500)
        actions += core.do(received(Beat(), *said))
    return actions


def test_a_peer_that_acknowledges_nothing_is_hung_up_on() -> None:
    """It beats. What it has not acknowledged it gets again on the next connection. Spec: R20."""
    core = sending()
    core.do(drained(1, mark=5))
    assert only(beats(core, 9), CloseSync) == []
    actions = beats(core, 3)
    assert only(actions, CloseSync) == [CloseSync("nothing acknowledged for 10 s")]
    assert only(actions, Count).count(Count("sync.ack_stalled")) == 1
    assert mode(core) is Mode.DOWN
    core.do(SyncConnected())
    assert [m for m in sent(core.do(joins(core, OURS, 3))) if isinstance(m, Resume | Batch)] == [
        Resume(OURS, 4),
        batch(4),
    ]
    core.do(received(Ack(4)))
    assert only(beats(core, 30), CloseSync) == []


def test_a_peer_that_is_slow_but_acknowledges_is_waited_for() -> None:
    """A window that is never empty, and moves by one number each 9 seconds. Spec: R20."""
    core = sending()
    core.do(drained(1), drained(1))
    for seq in range(4, 10):
        assert only(beats(core, 9), CloseSync) == []
        core.do(received(Ack(seq)), drained(1))
    assert mode(core) is Mode.SENDING


def test_nobody_is_hung_up_on_while_nothing_waits() -> None:
    core = sending()
    assert only(beats(core, 60), CloseSync) == []


def test_the_newest_connection_wins() -> None:
    core = sending()
    core.do(drained())
    core.do(SyncConnected())
    assert mode(core) is Mode.GREETING
    actions = core.do(joins(core, OURS, 3, Role.PASSIVE))
    assert sent(actions)[:2] == [Resume(OURS, 4), batch(4)]


def test_a_dead_peer_is_not_waited_for() -> None:
    core = Core(config(0, limits=LIMITS)).with_ready_peer()
    actions = core.silence()
    assert only(actions, CloseSync) == [CloseSync("peer-silent")]


def test_bytes_without_a_connection_are_nothing() -> None:
    assert Core(config(0)).become_active().do(SyncReceived(b"late")) == ()


def test_totals() -> None:
    core = sending()
    session = core.state.session
    assert session.sender.records_sent == 2
    assert session.bytes_sent > 0
    assert session.bytes_received > 0
