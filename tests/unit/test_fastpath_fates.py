# SPDX-License-Identifier: Apache-2.0
"""What becomes of sessions if the node dies: the real table, walked in pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import packets
import pytest
from packets import LAN, UDP, Packet

from flexha.core.events import Role
from flexha.fastpath import (
    Action,
    Fastpath,
    Fate,
    FlowFlag,
    FlowState,
    Policy,
    Rule,
    Service,
    SyncFilter,
)

NOW = 1000 * 1_000_000_000
SESSIONS = 20


@pytest.fixture
def active() -> Iterator[Fastpath]:
    """Node a: ACTIVE, tracking changes; sessions to port 53 are not told."""
    with Fastpath(replace(packets.node_config(), n_workers=2)) as fastpath:
        for worker in range(2):
            fastpath.test_expire(NOW, worker)
        fastpath.set_role(Role.ACTIVE, 2)
        fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
        untold = Rule(Action.ALLOW, services=(Service(UDP, 53, 53),), sync=SyncFilter.NO)
        fastpath.commit_policy(Policy(rules=(untold,)))
        fastpath.track_changes(on=True)
        yield fastpath


def open_sessions(fastpath: Fastpath, server_port: int, first: int = 4000) -> None:
    for n in range(SESSIONS):
        packet = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], first + n, server_port, payload=b"?")
        frame = packet.from_lan()
        worker = fastpath.test_shard(packets.CLIENTS[0], first + n, UDP) % 2
        (out,) = fastpath.test_step([frame], port=LAN, now_ns=NOW, worker=worker)
        assert out.verdict in {"snat", "held"}


def counts(fastpath: Fastpath, page: int = 7) -> Counter[Fate]:
    counted: Counter[Fate] = Counter()
    for part in fastpath.fates(page):
        for key, n in part.counts().items():
            counted[Fate(key.fate)] += n
    return counted


def tell(fastpath: Fastpath) -> dict[int, int]:
    """Drain all; the marks that acknowledge it."""
    marks: dict[int, int] = {}
    while batches := fastpath.drain():
        for batch in batches:
            marks |= batch.marks
    return marks


def test_sessions_by_what_the_peer_knows(active: Fastpath) -> None:
    """Spec: B5, R19."""
    open_sessions(active, 80)
    open_sessions(active, 53, first=5000)
    assert counts(active) == {Fate.UNTOLD: SESSIONS, Fate.RULE: SESSIONS}
    tell(active)
    assert counts(active) == {Fate.UNACKED: SESSIONS, Fate.RULE: SESSIONS}, "nobody has said that he has them"
    active.set_commit(on=True)
    assert counts(active) == {Fate.LIVES: SESSIONS, Fate.RULE: SESSIONS}, "the tables were found equal"


def test_a_session_is_not_safe_before_it_is_acknowledged(active: Fastpath) -> None:
    """Spec: B1, B5."""
    active.set_commit(on=True)
    open_sessions(active, 80)
    marks = tell(active)
    assert counts(active) == {Fate.UNACKED: SESSIONS}
    (key,) = {
        key._replace(shard=0) for page in active.fates() for key in page.counts()
    }  # they differ by shard only
    assert key.flags & FlowFlag.HELD, "their packets wait"
    assert (key.state, key.rule, key.pool) == (FlowState.NEW, 0, 0)
    active.ack(marks)
    assert counts(active) == {Fate.LIVES: SESSIONS}


def test_records_that_are_wanted_come_whole(active: Fastpath) -> None:
    """Spec: B5."""
    open_sessions(active, 80)
    tell(active)
    open_sessions(active, 53, first=5000)
    found = [
        record for page in active.fates(16) for record in page.records(lambda key: key.fate == Fate.RULE)
    ]
    assert sorted(record.inside_port for record in found) == list(range(5000, 5000 + SESSIONS))
    assert {(record.fate, record.remote_port, record.rule) for record in found} == {(Fate.RULE, 53, 1)}


def test_an_empty_table(active: Fastpath) -> None:
    assert counts(active) == {}
