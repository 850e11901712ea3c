# SPDX-License-Identifier: Apache-2.0
"""The sync session, both ends, through the node. Spec: R19, R20, R21, R22."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cores import INCARNATIONS, Core, columns, config, only, peer_info, received, records, roles, sent

from flexha.core import sync_wire
from flexha.core.actions import (
    AckFlows,
    Action,
    BeginImport,
    CloseSync,
    Count,
    EndImport,
    ImportFlows,
    SetDrainCredit,
    SetPulse,
    StartBulk,
    TrackChanges,
)
from flexha.core.events import (
    BulkWalked,
    FlowsDrained,
    FlowsImported,
    PeerHeard,
    Role,
    SyncClosed,
    SyncConnected,
    SyncReceived,
)
from flexha.core.node import SyncLimits
from flexha.core.sync import Mode
from flexha.core.sync_wire import (
    Ack,
    Batch,
    Beat,
    BulkBegin,
    BulkEnd,
    Close,
    Hello,
    Message,
    Resume,
    Stream,
    Want,
)
from flexha.units import Term

LIMITS = SyncLimits(window_batches=3, batch_records=10, resume_hold_s=20.0)
OURS = Stream(INCARNATIONS[0], Term(2))
THEIRS = Stream(INCARNATIONS[1], Term(3))


def drained(n: int = 1, *, mark: int = 0, lost: int = 0) -> FlowsDrained:
    return FlowsDrained(n, 4, columns(n), {0: mark} if mark else {}, lost)


def batch(seq: int, n: int = 1) -> Batch:
    return Batch(seq, n, 4, columns(n))


def active(limits: SyncLimits = LIMITS) -> Core:
    """ACTIVE, with a peer that has just connected."""
    core = Core(config(0, limits=limits)).become_active()
    core.do(SyncConnected())
    return core


def joins(core: Core, stream: Stream | None = None, seq: int = 0, role: Role = Role.JOINING) -> SyncReceived:
    """The peer's first words: who it is, and what it wants."""
    return received(core.peer_hello(role), Want(stream, seq))


def sending() -> Core:
    """ACTIVE, the bulk (one batch) sent and acknowledged."""
    core = active()
    core.do(joins(core), drained(2), BulkWalked(), received(Ack(1)))
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
    assert only(core.do(received(Want(None, 0))), StartBulk) == [StartBulk()]


def test_a_follower_says_what_it_wants_once_for_each_reign() -> None:
    """A role or a term that is told again starts nothing over."""
    core = Core(config(0)).become_joining(3)
    core.do(SyncConnected())
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == [Want(None, 0)]
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == []


def test_batches_of_an_earlier_conversation_are_not_taken() -> None:
    """The reigning peer takes a new term: what it sent before it heard our want is void, no offence."""
    core = joining()
    core.do(received(BulkBegin(THEIRS, 1), batch(1)), FlowsImported(1))
    core.do(PeerHeard(peer_info(Role.ACTIVE, 5)))
    assert mode(core) is Mode.IDLE
    assert core.do(received(batch(2))) == ()
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == [Want(THEIRS, 1)]
    assert core.do(received(batch(3), BulkEnd(3))) == ()
    assert only(core.do(received(Resume(THEIRS, 2), batch(2))), ImportFlows)[0].seq == 2


def test_an_active_of_a_past_term_is_not_followed() -> None:
    """We know of a later reign: what that node says of the table is history."""
    core = Core(config(0)).become_joining(5)
    core.do(SyncConnected(), received(replace(core.peer_hello(Role.ACTIVE), term=Term(3))))
    assert mode(core) is Mode.IDLE
    assert only(core.do(received(BulkBegin(THEIRS, 1), batch(1))), ImportFlows) == []


# ---- sending -----------------------------------------------------------------------------------------
def test_bulk_on_join() -> None:
    core = active()
    actions = core.do(joins(core))
    assert only(actions, TrackChanges) == [TrackChanges(on=True)]
    assert sent(actions) == [BulkBegin(OURS, 1)]
    assert only(actions, StartBulk) == [StartBulk()]
    assert only(actions, SetDrainCredit) == [SetDrainCredit(30)]
    kinds = [type(a) for a in actions]
    assert kinds.index(TrackChanges) < kinds.index(StartBulk), "or a change during the walk would be missed"
    assert sent(core.do(drained(2))) == [batch(1, 2)]
    assert sent(core.do(BulkWalked())) == [BulkEnd(1)]


def test_the_window_bounds_what_is_drained() -> None:
    """A slow peer leaves its changes in C, as bits."""
    core = sending()
    credit = [only(core.do(drained()), SetDrainCredit)[-1].records for _ in range(3)]
    assert credit == [20, 10, 0]
    assert only(core.do(received(Ack(3))), SetDrainCredit) == [SetDrainCredit(20)]


def test_acknowledgements_free_tombstones_up_to_the_highest_mark() -> None:
    core = sending()
    core.do(drained(mark=7), drained(mark=9), drained(mark=12))
    assert only(core.do(received(Ack(3))), AckFlows) == [AckFlows({0: 9})]
    assert only(core.do(received(Ack(3))), AckFlows) == [], "said twice"
    assert only(core.do(received(Ack(4))), AckFlows) == [AckFlows({0: 12})]


def test_resume_sends_again_what_is_not_acknowledged_and_no_more() -> None:
    """R22: nothing is sent twice without cause, a reconnect resumes."""
    core = sending()
    core.do(drained(mark=5), drained(), drained())
    assert only(core.do(SyncClosed("cut")), SetDrainCredit) == [SetDrainCredit(0)]
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 2, Role.PASSIVE))
    assert sent(actions) == [Resume(OURS, 3), batch(3), batch(4), BulkEnd(1)]
    assert only(actions, AckFlows) == [AckFlows({0: 5})]
    assert only(actions, StartBulk) == []
    assert only(actions, SetDrainCredit)[-1] == SetDrainCredit(10)


@pytest.mark.parametrize(
    ("stream", "seq"),
    [(None, 0), (Stream(9, Term(2)), 2), (Stream(INCARNATIONS[0], Term(0)), 2), (OURS, 99), (OURS, 0)],
    ids=["nothing", "another-life", "another-reign", "more-than-sent", "less-than-acknowledged"],
)
def test_a_bulk_when_a_resume_is_impossible(stream: Stream | None, seq: int) -> None:
    core = sending()
    core.do(drained(), SyncClosed("cut"), SyncConnected())
    actions = core.do(joins(core, stream, seq, Role.PASSIVE))
    assert sent(actions) == [BulkBegin(OURS, 3)]
    assert only(actions, StartBulk) == [StartBulk()]


def test_a_peer_that_stays_away_is_given_up() -> None:
    """Tracking for it costs tombstones; then it needs a bulk."""
    core = sending()
    core.do(SyncClosed("gone"))
    assert only(core.sleep(19_900), TrackChanges) == []
    actions = core.sleep(200)
    assert only(actions, TrackChanges) == [TrackChanges(on=False)]
    assert records(actions, "sync-resume-expired") != []
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 1, Role.PASSIVE))
    assert only(actions, TrackChanges) == [TrackChanges(on=True)]
    assert sent(actions) == [BulkBegin(OURS, 2)]


def test_lost_changes_make_a_new_bulk() -> None:
    core = sending()
    actions = core.do(drained(lost=3))
    assert Count("sync.changes_lost", 3) in actions
    assert sent(actions) == [batch(2), BulkBegin(OURS, 3)]
    assert only(actions, StartBulk) == [StartBulk()]


def test_changes_lost_during_a_walk_make_another_walk_after_it() -> None:
    """Two walks at once are never asked for."""
    core = active()
    core.do(joins(core))
    assert only(core.do(drained(lost=1)), StartBulk) == []
    actions = core.do(BulkWalked())
    assert sent(actions) == [BulkBegin(OURS, 2)]
    assert only(actions, StartBulk) == [StartBulk()]
    assert sent(core.do(BulkWalked())) == [BulkEnd(1)]


def test_tombstones_of_batches_that_a_bulk_made_void_are_freed_when_it_is_complete() -> None:
    """Not before: until the sweep, the peer may still hold those flows."""
    core = sending()
    core.do(drained(mark=40))
    core.do(drained(lost=1))
    assert only(core.do(drained(2), received(Ack(2))), AckFlows) == []
    core.do(BulkWalked())
    assert only(core.do(received(Ack(4))), AckFlows) == [AckFlows({0: 40})]


def test_a_reconnect_during_a_walk_waits_for_its_end() -> None:
    """The old walk's records are sent as changes; a second walk follows, for the new peer's bulk."""
    core = active()
    core.do(joins(core), SyncClosed("cut"), SyncConnected())
    actions = core.do(joins(core))
    assert sent(actions) == [BulkBegin(OURS, 1)]
    assert only(actions, StartBulk) == []
    actions = core.do(BulkWalked())
    assert only(actions, StartBulk) == [StartBulk()]
    assert sent(core.do(drained(), BulkWalked()))[-1] == BulkEnd(1)


def test_a_walk_that_nobody_wants_is_drained_into_nothing() -> None:
    core = active()
    core.do(joins(core))
    actions = core.do(received(core.peer_hello(Role.MAINTENANCE)))
    assert only(actions, TrackChanges) == []
    assert only(actions, SetDrainCredit) == [SetDrainCredit(30)]
    actions = core.do(drained(5))
    assert sent(actions) == []
    assert Count("sync.records_discarded", 5) in actions
    assert only(core.do(BulkWalked()), TrackChanges) == [TrackChanges(on=False)]


@pytest.mark.parametrize("acked", [1, 3])
def test_a_peer_that_comes_back_after_it_was_given_up_gets_a_bulk(acked: int) -> None:
    """Its records of the unwanted walk were discarded meanwhile: to resume would leave holes."""
    core = active(replace(LIMITS, resume_hold_s=0.0))
    core.do(joins(core), drained(), drained(), drained(), received(Ack(acked)), SyncClosed("cut"))
    assert records(core.sleep(1), "sync-resume-expired") != []
    assert Count("sync.records_discarded", 5) in core.do(drained(5))
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, acked))
    assert sent(actions) == [BulkBegin(OURS, 4)]
    assert only(actions, StartBulk) == [], "the old walk is still under way"
    assert sent(core.do(drained())) == [batch(4)]
    actions = core.do(BulkWalked())
    assert sent(actions) == [BulkBegin(OURS, 5)]
    assert only(actions, StartBulk) == [StartBulk()]


def test_a_bulk_resumes_in_its_middle() -> None:
    core = active()
    core.do(joins(core), drained(4), drained(4), received(Ack(1)), SyncClosed("cut"))
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 1, Role.JOINING))
    assert sent(actions) == [Resume(OURS, 2), batch(2, 4)]
    assert sent(core.do(BulkWalked())) == [BulkEnd(2)]


def test_the_end_of_a_bulk_that_was_lost_with_the_connection_is_said_again() -> None:
    core = active()
    core.do(joins(core), drained(4), received(Ack(1)), SyncClosed("cut"), BulkWalked())
    core.do(SyncConnected())
    actions = core.do(joins(core, OURS, 1, Role.JOINING))
    assert sent(actions) == [Resume(OURS, 2), BulkEnd(1)]


# ---- receiving ---------------------------------------------------------------------------------------
def test_a_bulk_makes_a_joining_node_passive() -> None:
    core = joining()
    assert only(core.do(received(BulkBegin(THEIRS, 1))), BeginImport) == [BeginImport()]
    assert only(core.do(received(batch(1, 3))), ImportFlows) == [ImportFlows(1, 3, 4, columns(3))]
    assert only(core.do(received(BulkEnd(1))), EndImport) == [], "its last batch is not live yet"
    actions = core.do(FlowsImported(1))
    assert only(actions, EndImport) == [EndImport()]
    assert Ack(1) in sent(actions)
    assert core.role is Role.PASSIVE
    assert only(actions, SetPulse)[-1].ready


def test_nothing_is_acknowledged_before_it_is_live() -> None:
    core = joining()
    assert sent(core.do(received(BulkBegin(THEIRS, 1), batch(1), batch(2)))) == []
    assert sent(core.do(FlowsImported(1))) == [Ack(1)]


def test_an_empty_bulk_is_a_bulk() -> None:
    core = joining()
    actions = core.do(received(BulkBegin(THEIRS, 1), BulkEnd(0)))
    assert only(actions, EndImport) == [EndImport()]
    assert core.role is Role.PASSIVE


def test_the_receiver_says_where_it_is_and_resumes() -> None:
    core = joining()
    core.do(received(BulkBegin(THEIRS, 1), batch(1), BulkEnd(1)), FlowsImported(1), SyncClosed("cut"))
    assert core.role is Role.PASSIVE
    assert not core.state.role.ready, "whether it is current is unknown"
    core.do(SyncConnected())
    assert sent(core.do(received(core.peer_hello(Role.ACTIVE)))) == [Want(THEIRS, 1)]
    core.do(received(Resume(THEIRS, 2)))
    assert core.state.role.ready
    assert only(core.do(received(batch(2))), ImportFlows)[0].seq == 2


def test_a_batch_that_is_here_already_is_acknowledged_again() -> None:
    core = joining()
    core.do(received(BulkBegin(THEIRS, 1), batch(1)), FlowsImported(1))
    actions = core.do(received(batch(1)))
    assert only(actions, ImportFlows) == []
    assert sent(actions) == [Ack(1)]


def test_an_import_that_was_under_way_when_the_connection_broke_counts() -> None:
    core = joining()
    core.do(received(BulkBegin(THEIRS, 1), batch(1)), SyncClosed("cut"), FlowsImported(1))
    assert sent(core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE))))[-1] == Want(THEIRS, 1)


def test_a_refused_batch_ends_the_connection_and_asks_for_a_bulk() -> None:
    core = joining()
    core.do(received(BulkBegin(THEIRS, 1), batch(1)))
    actions = core.do(FlowsImported(1, "table full"))
    assert only(actions, CloseSync) == [CloseSync("batch 1 refused: table full")]
    assert Count("sync.import_refused") in actions
    said = sent(core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE))))
    assert isinstance(said[-1], Want)
    assert said[-1].stream is None


def test_a_fast_path_that_keeps_refusing_is_a_fault() -> None:
    core = joining()

    def refused() -> tuple[Action, ...]:
        core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE), BulkBegin(THEIRS, 1), batch(1)))
        return core.do(FlowsImported(1, "no memory"))

    refused()
    refused()
    assert core.role is Role.JOINING
    assert records(refused(), "role")[0]["reason"] == "import-broken"
    assert core.role is Role.FAULT


def test_what_the_old_active_still_sends_after_a_takeover_is_ignored() -> None:
    core = joining()
    core.do(received(BulkBegin(THEIRS, 1), batch(1), BulkEnd(1)), FlowsImported(1))
    core.silence()
    assert core.role is Role.ACTIVE
    core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE)))
    actions = core.do(received(batch(2), BulkEnd(2)), FlowsImported(2))
    assert only(actions, ImportFlows) == []
    assert sent(actions) == []


# ---- offences ----------------------------------------------------------------------------------------
def raw(text: str) -> SyncReceived:
    return SyncReceived(bytes.fromhex(text))


@pytest.mark.parametrize(
    ("reason", "event"),
    [
        ("garbage", SyncReceived(b"\0\0\0\x04\xc1\xc1\xc1\xc1")),
        ("oversize", SyncReceived(b"GET / HTTP/1.1\r\n\r\n")),
        ("unknown_message", raw("0000000481a17407")),
        ("gap", received(BulkBegin(THEIRS, 1), batch(2))),
        ("gap", received(BulkBegin(THEIRS, 1), BulkEnd(7))),
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
    assert only(actions, StartBulk) == []


@pytest.mark.parametrize(
    "message", [Want(None, 0), Ack(0), batch(1), BulkBegin(THEIRS, 1), Resume(THEIRS, 1), BulkEnd(1)]
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


def test_the_newest_connection_wins() -> None:
    core = sending()
    core.do(drained())
    core.do(SyncConnected())
    assert mode(core) is Mode.GREETING
    actions = core.do(joins(core, OURS, 1, Role.PASSIVE))
    assert sent(actions)[:2] == [Resume(OURS, 2), batch(2)]


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
