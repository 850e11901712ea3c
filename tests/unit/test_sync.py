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
from sync_cores import (
    EVEN,
    LIMITS,
    OURS,
    THEIRS,
    active,
    drained,
    in_sync,
    joining,
    joins,
    mode,
    sending,
)

from flexha.core import sync_wire
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
    Level,
    Record,
    SetDrainCredit,
    SetPulse,
    StartSweep,
    TrackChanges,
    WithholdFlows,
)
from flexha.core.events import (
    DigestsRead,
    FlowsDrained,
    FlowsImported,
    Hung,
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
from flexha.core.shards import ALL
from flexha.core.sync import Mode
from flexha.core.sync_wire import (
    Ack,
    Audit,
    Batch,
    Beat,
    Close,
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


def test_a_peer_that_is_wrong_again_and_again_is_followed_after_a_pause_only() -> None:
    """Spec: R22. Else one bulk would follow the other; and the log has one line for all of them."""
    core = joining()
    bad = (SweepBegin(THEIRS, 1, ALL), batch(7))  # a gap
    levels: list[Level] = []
    for pause_s in (0, 1, 2, 4, 8, 16, 32, 32):
        levels += [r.level for r in only(core.do(received(*bad)), Record) if r.event == "sync-closed"]
        said = sent(core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE))))
        assert any(isinstance(message, Want) for message in said) is (pause_s == 0)
        for _ in range(pause_s - 1):
            said = sent((*core.sleep(1000), *core.do(received(Beat()))))
            assert not any(isinstance(message, Want) for message in said)
        if pause_s:
            assert not any(isinstance(message, Want) for message in sent(core.sleep(999)))
            assert any(isinstance(message, Want) for message in sent(core.sleep(1)))
    assert levels[0] is Level.WARNING
    assert set(levels[1:4]) == {Level.DEBUG}
    # Once both tables are equal it is trusted as at first.
    bulk = received(SweepBegin(THEIRS, 1, ALL), batch(2), SweepEnd(3, ALL), digest(3))
    core.do(bulk, FlowsImported(3), DigestsRead(3, ALL, 0))
    assert core.state.session.offences == 0


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


@pytest.mark.parametrize("role", [Role.ACTIVE, Role.JOINING])
def test_a_node_with_a_worker_that_hangs_rests(role: Role) -> None:
    """Half of a table would be taken for the whole. It begins anew once it moves. Spec: B2."""
    core = in_sync() if role is Role.ACTIVE else joining()
    peer_says = joins(core) if role is Role.ACTIVE else received(core.peer_hello(Role.ACTIVE))
    busy = mode(core)
    assert busy in {Mode.SENDING, Mode.RECEIVING}
    actions = core.do(Hung(frozenset({"worker"}), 0, yielded=False))
    assert len([action for action in actions if isinstance(action, CloseSync)]) == 1
    core.do(SyncConnected(), peer_says)
    assert mode(core) is Mode.IDLE
    core.do(Hung(frozenset(), None, yielded=False))
    assert mode(core) is Mode.DOWN
    core.do(SyncConnected(), peer_says)
    assert mode(core) is busy


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
