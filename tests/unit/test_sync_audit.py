# SPDX-License-Identifier: Apache-2.0
"""Digests of the tables, as the sender knows them, through the node. Spec: B1, B5."""

from __future__ import annotations

from cores import (
    COUNTS,
    SUMS,
    Core,
    batch,
    config,
    digest,
    only,
    received,
    records,
    sent,
)
from sync_cores import (
    EVEN,
    LIMITS,
    OURS,
    drained,
    in_sync,
    joins,
    sending,
)

from flexha.core.actions import (
    AskDigest,
    Count,
    Record,
    SetCommit,
    StartSweep,
)
from flexha.core.events import (
    DigestDrained,
    Role,
    ShardsLost,
    SweepBegun,
    SweepWalked,
    SyncClosed,
    SyncConnected,
)
from flexha.core.shards import ALL
from flexha.core.sync_wire import (
    Ack,
    Audit,
    Beat,
    Digest,
    SweepBegin,
)


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
    """B1: without a peer nothing is held; one whose connection breaks is given some time."""
    core = sending()
    assert only(core.agree(), SetCommit) == [SetCommit(on=True)]
    core.sleep(1000)
    assert only(core.agree(), SetCommit) == [], "said once"
    assert only(core.do(SyncClosed("cut")), SetCommit) == []
    assert only(core.sleep(LIMITS.commit_away_ms - 1), SetCommit) == []
    gone = core.sleep(1)
    assert only(gone, SetCommit) == [SetCommit(on=False)]
    assert [r.event for r in only(gone, Record)] == ["commit-off"]
    core.do(SyncConnected(), joins(core, OURS, 3, Role.PASSIVE))
    assert only(core.agree(), SetCommit) == [SetCommit(on=True)]


def test_packets_wait_while_the_connection_is_made_anew() -> None:
    """B1: a peer that resumes acknowledges what began meanwhile; one that has forgotten gets a bulk first."""
    core = in_sync()
    assert only(core.do(SyncClosed("cut")), SetCommit) == []
    core.sleep(500)
    has = core.state.session.sender.sent_seq
    resumed = core.do(SyncConnected(), joins(core, OURS, has, Role.PASSIVE))
    assert only(resumed, SetCommit) == []
    assert only(core.sleep(LIMITS.commit_away_ms), SetCommit) == [], "it is back: no time runs"
    core.do(SyncClosed("cut"))
    assert only(core.do(SyncConnected(), joins(core)), SetCommit) == [SetCommit(on=False)]


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
