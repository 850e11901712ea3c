# SPDX-License-Identifier: Apache-2.0
"""Sync of nodes whose configurations differ, or may, through the node. Spec: B5, B10, R22."""

from __future__ import annotations

from dataclasses import replace

from cores import (
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
    LIMITS,
    THEIRS,
    joining,
    mode,
)

from flexha.core import node
from flexha.core.actions import (
    Action,
    CloseSync,
    Count,
    EndImport,
    StartSweep,
)
from flexha.core.events import (
    DigestsRead,
    FlowsImported,
    Refused,
    Role,
    SyncConnected,
)
from flexha.core.shards import ALL
from flexha.core.sync import Mode
from flexha.core.sync_wire import (
    Ack,
    SweepBegin,
    SweepEnd,
    Want,
)

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
