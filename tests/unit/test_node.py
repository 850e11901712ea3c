# SPDX-License-Identifier: Apache-2.0
"""The node as a whole: order of actions, deadlines, status. Spec: R25."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from cores import (
    COUNTS,
    FOREIGN,
    SUMS,
    Core,
    advert,
    batch,
    config,
    digest,
    only,
    peer_info,
    received,
    records,
    roles,
)
from hypothesis import given
from hypothesis import strategies as st

from flexha.core import node
from flexha.core.actions import Count, Record
from flexha.core.errors import LocalProtocolError
from flexha.core.events import (
    Command,
    DigestDrained,
    DigestsRead,
    Event,
    Fenced,
    FlowsDrained,
    FlowsImported,
    Hop,
    HopChanged,
    OperatorAsked,
    PathDown,
    PathUp,
    PeerHeard,
    PortChanged,
    Role,
    RoleSet,
    ShardsLost,
    Started,
    StopRequested,
    SweepBegun,
    SweepWalked,
    SyncClosed,
    SyncConnected,
    SyncReceived,
    TermPersisted,
    TimerFired,
    VrrpFrameReceived,
)
from flexha.core.shards import ALL
from flexha.core.sync_wire import Ack, Go, Stream, SweepBegin, SweepEnd, Want
from flexha.units import Term


def test_records_come_last_and_stop_very_last() -> None:
    """No log line delays a takeover; nothing is done after the stop."""
    for core, event in (
        (Core(config(0)).become_passive(), PeerHeard(peer_info(Role.INIT, 3, bye=True))),
        (Core(config(0)).become_active(), StopRequested()),
    ):
        kinds = ["record" if isinstance(a, Record | Count) else type(a).__name__ for a in core.do(event)]
        stripped = kinds[:-1] if kinds[-1] == "Stop" else kinds
        first = stripped.index("record")
        assert set(stripped[first:]) == {"record"}


def test_started_comes_once() -> None:
    core = Core(config(0))
    core.start()
    with pytest.raises(LocalProtocolError, match="starts once"):
        core.start()


def test_a_port_without_a_virtual_router() -> None:
    core = Core(config(0)).become_active()
    assert core.do(VrrpFrameReceived("dmz", b"")) == (Count("vrrp.unknown_port"),)
    assert core.do(PortChanged("dmz", up=False)) == ()


def test_a_ports_wire_is_recorded_once() -> None:
    core = Core(config(0)).become_active()
    assert records(core.do(PortChanged("lan", up=False)), "port") == [{"port": "lan", "up": False}]
    assert core.do(PortChanged("lan", up=False)) == ()


def test_a_silent_cross_connect_is_recorded() -> None:
    core = Core(config(0)).become_passive()
    actions = core.do(PathDown("xc"))
    assert [(r.level, r.event, r.history) for r in only(actions, Record)] == [("warning", "path-down", True)]


def test_deadlines() -> None:
    core = Core(config(0))
    assert node.next_deadline(core.state) is None
    core.start()
    assert node.next_deadline(core.state) == core.now + 1_000_000_000, "the start hold"
    core.sleep(5000)
    deadline = node.next_deadline(core.state)
    assert deadline is not None
    assert core.now < deadline <= core.now + 1_000_000_000, "the next advertisement"
    core.do(StopRequested())
    assert node.next_deadline(core.state) is None


def test_status_is_json_and_complete() -> None:
    core = Core(config(0)).with_ready_peer()
    core.sleep(2000)
    status = json.loads(json.dumps(node.status(core.state, core.now)))
    assert (status["role"], status["term"], status["ready"]) == ("ACTIVE", 2, False)
    assert status["peer"]["alive"] is True
    assert status["peer"]["role"] == "PASSIVE"
    assert set(status["peer"]["paths"]) == {"xc", "lan", "wan"}
    assert [(r["port"], r["state"], r["active_router"]) for r in status["vrrp"]] == [
        ("lan", "ACTIVE", "198.51.100.2"),
        ("wan", "ACTIVE", "203.0.113.4"),
    ]
    assert status["vrrp"][0]["vmac"] == "00:00:5e:00:01:33"
    assert status["sync"]["connected"] is True
    assert status["sync"]["state"] == "sending"
    assert status["sync"]["stream"] == "aaaa/2"


def test_status_of_a_backup_names_the_active_router() -> None:
    core = Core(config(0)).become_passive()
    core.do(advert("wan", 200, FOREIGN["wan"]))
    status = node.status(core.state, core.now)
    assert json.loads(json.dumps(status))["vrrp"][1]["active_router"] == FOREIGN["wan"]
    assert status["ready"] is True


def test_status_before_the_start() -> None:
    core = Core(config(0, has_peer=False))
    status = json.loads(json.dumps(node.status(core.state, core.now)))
    assert status["role"] == "INIT"
    assert status["peer"]["paths"] == {}


# ---- whatever comes ----------------------------------------------------------------------------------
INFOS = st.builds(
    peer_info,
    st.sampled_from(Role),
    st.integers(0, 9),
    ready=st.booleans(),
    bye=st.booleans(),
    life=st.integers(0, 2),
)
PATHS = st.sampled_from(["xc", "lan", "wan"])
EVENTS: st.SearchStrategy[Event] = st.one_of(
    PATHS.map(PathUp),
    PATHS.map(PathDown),
    INFOS.map(PeerHeard),
    st.builds(Fenced, st.integers(0, 9).map(Term)),
    st.builds(PortChanged, st.sampled_from(["lan", "wan"]), st.booleans()),
    st.builds(HopChanged, st.sampled_from(["lan", "wan"]), st.sampled_from(Hop)),
    st.just(TimerFired()),
    st.just(SyncConnected()),
    st.just(SyncClosed("cut")),
    st.binary(max_size=20).map(SyncReceived),
    st.builds(OperatorAsked, st.integers(0, 5), st.sampled_from(Command)),
    st.builds(RoleSet, st.sampled_from(Role), st.integers(0, 9).map(Term)),
    st.builds(TermPersisted, st.integers(0, 9).map(Term)),
    st.builds(FlowsImported, st.integers(0, 3), st.sampled_from([None, "refused"])),
    st.sampled_from([200, 100, 0]).map(lambda priority: advert("wan", priority, FOREIGN["wan"])),
    st.builds(lambda role: received(Core(config(0)).peer_hello(role)), st.sampled_from(Role)),
    st.just(received(SweepBegin(Stream(1, Term(3)), 1, ALL), SweepEnd(2, ALL))),
    st.just(received(digest(2))),
    st.just(received(Want(None, 0))),
    st.integers(0, 3).map(lambda seq: received(Ack(seq))),
    st.builds(DigestsRead, st.integers(0, 3), st.just(ALL), st.sampled_from([0, 1, ALL])),
    st.just(FlowsDrained(batch(1).sections, 1, {0: 1})),
    st.sampled_from([1, 6, ALL]).map(ShardsLost),
    st.sampled_from([1, 6, ALL]).map(SweepBegun),
    st.sampled_from([1, 6, ALL]).map(SweepWalked),
    st.just(DigestDrained(ALL, SUMS, COUNTS)),
    st.integers(0, 9).map(lambda term: received(Go(Term(term)))),
)


@given(st.lists(st.tuples(EVENTS, st.integers(0, 2000)), max_size=40), st.booleans())
def test_no_order_of_events_breaks_a_node(story: list[tuple[Event, int]], preempt: bool) -> None:
    """Whatever a peer, a wire or an operator does, no cell that says "impossible" is reached."""
    core = Core(config(0, preempt=preempt))
    core.start()
    for event, pause_ms in story:
        actions = core.do(event)
        assert all(term % 2 == 0 for role, term in roles(actions) if role is Role.ACTIVE)
        core.sleep(pause_ms)
    assert isinstance(json.dumps(node.status(core.state, core.now)), str)


def test_a_term_file_from_the_future() -> None:
    """Whatever is on disk, no term up to it is used again."""
    core = Core(replace(config(1), start_hold_ms=0))
    core.do(Started(Term(41), 1))
    core.sleep(5000)
    assert core.term == 43
