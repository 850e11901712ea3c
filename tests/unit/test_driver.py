# SPDX-License-Identifier: Apache-2.0
"""The loop around the core: order, outcomes as events, timers, the disk, and what a bug does."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from unit.test_sync_short import begun, draining, receiving, sending

from flexha.core import actions as act
from flexha.core import events as ev
from flexha.core import sync_sender, sync_short
from flexha.core.keys_wire import KeysAck, KeysStep
from flexha.core.node import NodeConfig
from flexha.core.sync import Session
from flexha.fastpath import FastpathError
from flexha.fastpath.channel import LaneMode, LaneState, PartlyTaken, SentBatch
from flexha.shell import clock, driver
from flexha.shell.counters import Counters
from flexha.shell.driver import Driver, Hands
from flexha.shell.history import History
from flexha.units import Ns, Term, ms

Script = Callable[[ev.Event], tuple[act.Action, ...]]


class Recorder:
    """Every hand at once: remembers what it was told, in order."""

    def __init__(self) -> None:
        self.did: list[object] = []
        self.role_error: int | None = None
        self.hung: set[str] = set()
        """Calls that no worker answers."""

    def set_role(self, role: int, term: int) -> None:
        if self.role_error is not None:
            raise FastpathError(self.role_error, "fp_set_role")
        self.did.append(("role", role, term))

    def perform(self, action: object) -> None:
        self.did.append(action)

    def set_ports(self, action: object) -> None:
        self.did.append(action)

    def outcome(self) -> list[ev.Event]:
        self.did.append(("outcome",))
        return []

    def hold(self) -> LaneState | None:
        """There is no connection."""
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*args: object, **kwargs: object) -> None:
            if name in self.hung:
                raise FastpathError(errno.ETIMEDOUT, name)
            self.did.append((name, *args, *kwargs.values()))

        return call


class Core:
    """Stands in for ``flexha.core.node``: a script instead of a state machine."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.seen: list[ev.Event] = []
        self.deadline: Ns | None = None

    def initial(self, _: NodeConfig) -> None:
        return None

    def step(self, _state: None, event: ev.Event, _now: Ns) -> tuple[None, tuple[act.Action, ...]]:
        self.seen.append(event)
        return None, self.script(event)

    def next_deadline(self, _state: None) -> Ns | None:
        return self.deadline

    def status(self, _state: None, _now: Ns) -> dict[str, object]:
        return {"role": "passive"}


STARTED = ev.Started(Term(0), 1)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def run(
    monkeypatch: pytest.MonkeyPatch,
    script: Script,
    story: Callable[[Driver, Core, Recorder, list[BaseException]], Awaitable[None]],
) -> None:
    async def whole() -> None:
        core, hand = Core(script), Recorder()
        fatal: list[BaseException] = []
        monkeypatch.setattr(driver, "node", core)
        under_test = Driver(cast(NodeConfig, None), fatal.append)
        part: Any = hand
        under_test.hands = Hands(
            part, part, part, part, part, part, part, part, History("a"), Counters(), hand.did.append,
            lambda: hand.did.append("stopped"), lambda *_: None,
            lambda ports: hand.did.append(("ways", ports)), hand.did.append, part,
        )  # fmt: skip
        try:
            await story(under_test, core, hand, fatal)
        finally:
            under_test.close()

    asyncio.run(whole())


def test_actions_are_performed_in_order_and_outcomes_come_after_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = act.SendFrame("lan", b"garp")

    def script(event: ev.Event) -> tuple[act.Action, ...]:
        if event == STARTED:
            return (act.SetRole(ev.Role.ACTIVE, Term(4)), frame, act.SetPulse(ready=False, burst=True))
        return ()

    async def story(under_test: Driver, core: Core, hand: Recorder, _: list[BaseException]) -> None:
        under_test.begin(STARTED)
        pulse = act.SetPulse(ready=False, burst=True)
        assert hand.did == [("role", 3, 4), frame, pulse, ("outcome",)]
        assert core.seen == [STARTED, ev.RoleSet(ev.Role.ACTIVE, Term(4))]

    run(monkeypatch, script, story)


def test_started_comes_first_whatever_was_posted_before(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, core: Core, *_: object) -> None:
        under_test.post(ev.SyncConnected())
        assert core.seen == []
        under_test.begin(STARTED)
        assert core.seen == [STARTED, ev.SyncConnected()]

    run(monkeypatch, lambda _: (), story)


KEYS_ACK = KeysAck(KeysStep.ADD, "")
EVERY_ACTION: list[tuple[act.Action, object]] = [
    (act.SetRole(ev.Role.PASSIVE, Term(2)), ("role", 2, 2)),
    (act.SetWires(ev.Wires.PARK), ("set", ev.Wires.PARK)),
    (act.SetPulse(ready=True), act.SetPulse(ready=True)),
    (act.SetPorts(frozenset({"wan"})), act.SetPorts(frozenset({"wan"}))),
    (act.SetConduit(on=True, term=Term(3)), act.SetConduit(on=True, term=Term(3))),
    (act.SetWays(frozenset({"wan"})), ("ways", frozenset({"wan"}))),
    (act.SendFrame("wan", b"x"), act.SendFrame("wan", b"x")),
    (act.SendSync(b"y"), ("send", b"y")),
    (act.CloseSync("why"), ("close", "why")),
    (act.TrackChanges(on=True), ("track_changes", True)),
    (act.StartSweep(5), ("start_sweep", 5)),
    (act.AskDigest(), ("digest_ask",)),
    (act.SetDrainCredit(5), ("set_credit", 5)),
    (act.SetCommit(on=True), ("set_commit", True)),
    (act.BeginImport(1, 5), ("begin_import", act.BeginImport(1, 5))),
    (act.ImportFlows(1, b"\x90"), ("import_flows", 1, b"\x90")),
    (act.EndImport(2, 5), ("end_import", act.EndImport(2, 5))),
    (act.AdoptFlows(4, b"\x90"), ("adopt", 4, b"\x90")),
    (act.CompareDigests(2, 0, b"", b""), ("compare", act.CompareDigests(2, 0, b"", b""))),
    (act.AckFlows({0: 9}), ("ack", {0: 9})),
    (act.WithholdFlows({0: 9}, b"", (1,)), ("withhold", act.WithholdFlows({0: 9}, b"", (1,)))),
    (act.HearKeys(KEYS_ACK), ("hear", KEYS_ACK)),
    (act.Reply(1, ok=True, text="t"), act.Reply(1, ok=True, text="t")),
    (act.Stop(), "stopped"),
]


@pytest.mark.parametrize(("action", "done"), EVERY_ACTION, ids=lambda value: type(value).__name__)
def test_each_action_has_its_hand(monkeypatch: pytest.MonkeyPatch, action: act.Action, done: object) -> None:
    async def story(under_test: Driver, _core: Core, hand: Recorder, fatal: list[BaseException]) -> None:
        under_test.begin(STARTED)
        assert hand.did == [done, ("outcome",)], "then what was imported is told, all at once"
        assert not fatal

    run(monkeypatch, lambda event: (action,) if event == STARTED else (), story)


def test_who_hears_the_peer_by_the_cross_connect_connects_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, _core: Core, hand: Recorder, _: list[BaseException]) -> None:
        under_test.begin(STARTED)
        hand.did.clear()
        under_test.post(ev.PathUp("lan"))
        assert hand.did == []
        under_test.post(ev.PathUp("xc"))
        assert hand.did == [("hurry",)]

    run(monkeypatch, lambda _: (), story)


def test_no_action_is_forgotten() -> None:
    """The list above, and what the other tests of this file perform."""
    elsewhere = {act.PersistTerm, act.PersistMaintenance, act.Record, act.Count}
    known = set(act.Action.__args__)
    assert {type(action) for action, _ in EVERY_ACTION} | elsewhere == known


def test_records_go_to_history_only_if_they_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(_: ev.Event) -> tuple[act.Action, ...]:
        return (
            act.Record(act.Level.INFO, "role", {"to": "ACTIVE", "event": "x"}, history=True),
            act.Record(act.Level.DEBUG, "noise"),
            act.Count("vrrp.wan.bad_ttl", 3),
        )

    async def story(under_test: Driver, *_: object) -> None:
        under_test.begin(STARTED)
        (record,) = under_test.hands.history.records()
        assert (record["event"], record["to"], record["node"]) == ("role", "ACTIVE", "a")
        assert record["event_"] == "x"
        assert under_test.hands.counters.values() == {"vrrp.wan.bad_ttl": 3}

    run(monkeypatch, script, story)


# ---- time --------------------------------------------------------------------------------------------------
def test_a_timer_fires_at_the_deadline_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    fired_at: list[Ns] = []

    def script(event: ev.Event) -> tuple[act.Action, ...]:
        if event == ev.TimerFired():
            fired_at.append(clock.now())
        return ()

    async def story(under_test: Driver, core: Core, *_: object) -> None:
        core.deadline = Ns(clock.now() + ms(20))
        under_test.begin(STARTED)
        await until(lambda: bool(fired_at))
        assert core.seen[:2] == [STARTED, ev.TimerFired()]
        assert fired_at[0] >= core.deadline

    run(monkeypatch, script, story)


# ---- the disk ----------------------------------------------------------------------------------------------
def test_a_persisted_term_comes_back_as_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(event: ev.Event) -> tuple[act.Action, ...]:
        return tuple(act.PersistTerm(Term(n)) for n in (2, 4, 6)) if event == STARTED else ()

    async def story(under_test: Driver, core: Core, hand: Recorder, _: list[BaseException]) -> None:
        under_test.begin(STARTED)
        assert core.seen == [STARTED]  # the disk is not waited for
        await until(lambda: len(core.seen) == 4)
        assert core.seen[1:] == [ev.TermPersisted(Term(n)) for n in (2, 4, 6)]
        assert [done for done in hand.did if done != ("outcome",)] == [("write", n) for n in (2, 4, 6)]

    run(monkeypatch, script, story)


def test_a_full_disk_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_: Term) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def script(event: ev.Event) -> tuple[act.Action, ...]:
        return (act.PersistTerm(Term(8)),) if event == STARTED else ()

    async def story(under_test: Driver, core: Core, *_: object) -> None:
        under_test.hands.terms = cast(Any, SimpleNamespace(write=write))
        under_test.begin(STARTED)
        await until(lambda: len(core.seen) == 2)
        assert core.seen[1] == ev.TermPersistFailed(Term(8), "[Errno 28] No space left on device")

    run(monkeypatch, script, story)


class Flag:
    """Of maintenance: remembers what was written, or is on a broken disk."""

    def __init__(self, error: OSError | None) -> None:
        self.error = error
        self.written: list[bool] = []

    def write(self, *, on: bool) -> None:
        if self.error is not None:
            raise self.error
        self.written.append(on)


@pytest.mark.parametrize("error", [None, OSError(errno.EROFS, "Read-only file system")])
def test_maintenance_is_written_before_it_is_told(
    monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    def script(event: ev.Event) -> tuple[act.Action, ...]:
        asked = (act.PersistMaintenance(7, on=True), act.PersistMaintenance(8, on=False))
        return asked if event == STARTED else ()

    async def story(under_test: Driver, core: Core, *_: object) -> None:
        flag = Flag(error)
        under_test.hands.maintenance = cast(Any, flag)
        under_test.begin(STARTED)
        await until(lambda: len(core.seen) == 3)
        if error is None:
            assert flag.written == [True, False]
            assert core.seen[1:] == [
                ev.MaintenanceKept(7, on=True),
                ev.MaintenanceKept(8, on=False),
            ]
        else:
            text = "[Errno 30] Read-only file system"
            assert core.seen[1:] == [
                ev.MaintenanceNotKept(7, True, text),
                ev.MaintenanceNotKept(8, False, text),
            ]

    run(monkeypatch, script, story)


# ---- what goes wrong ---------------------------------------------------------------------------------------
def test_a_stale_term_is_no_role(monkeypatch: pytest.MonkeyPatch) -> None:
    """C heard a newer term first: the core must not believe that it reigns."""

    def script(event: ev.Event) -> tuple[act.Action, ...]:
        return (act.SetRole(ev.Role.ACTIVE, Term(4)),) if event == STARTED else ()

    async def story(under_test: Driver, core: Core, hand: Recorder, fatal: list[BaseException]) -> None:
        hand.role_error = errno.ESTALE
        under_test.begin(STARTED)
        assert core.seen == [STARTED]
        assert not fatal

    run(monkeypatch, script, story)


def test_a_role_counts_though_a_worker_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fence is set, and it is the first thing that the worker will look at."""

    def script(event: ev.Event) -> tuple[act.Action, ...]:
        return (act.SetRole(ev.Role.JOINING, Term(4)),) if event == STARTED else ()

    async def story(under_test: Driver, core: Core, hand: Recorder, fatal: list[BaseException]) -> None:
        hand.role_error = errno.ETIMEDOUT
        under_test.begin(STARTED)
        assert core.seen == [STARTED, ev.RoleSet(ev.Role.JOINING, Term(4))]
        assert not fatal

    run(monkeypatch, script, story)


def test_what_a_worker_that_hangs_has_not_obeyed_is_said_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is bound to the sync connection ends that; what lasts is told until it is obeyed."""
    monkeypatch.setattr(driver, "OWED_DELAY_S", 0.001)

    def script(event: ev.Event) -> tuple[act.Action, ...]:
        if event == STARTED:
            return act.TrackChanges(True), act.AskDigest()
        return (act.SetCommit(False), act.SetCommit(True)) if event == ev.SyncConnected() else ()

    async def story(under_test: Driver, core: Core, hand: Recorder, fatal: list[BaseException]) -> None:
        hand.hung = {"track_changes", "digest_ask", "set_commit"}
        under_test.begin(STARTED)
        closed = ev.SyncClosed(driver.UNANSWERED)
        assert core.seen == [STARTED, closed, closed]
        assert hand.did.count(("close", driver.UNANSWERED)) == 2
        under_test.post(ev.SyncConnected())
        hand.hung.clear()
        await until(lambda: ("set_commit", True) in hand.did)
        assert ("track_changes", True) in hand.did
        assert ("set_commit", False) not in hand.did, "the last word counts"
        assert ("digest_ask",) not in hand.did
        assert core.seen == [STARTED, closed, closed, ev.SyncConnected()]
        assert not fatal

    run(monkeypatch, script, story)


@pytest.mark.parametrize("where", ["core", "hand"])
def test_a_bug_ends_everything_once(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def script(event: ev.Event) -> tuple[act.Action, ...]:
        if event == STARTED:
            return ()
        if where == "core":
            raise KeyError("a bug")
        return (act.SetRole(ev.Role.ACTIVE, Term(4)),)

    async def story(under_test: Driver, core: Core, hand: Recorder, fatal: list[BaseException]) -> None:
        hand.role_error = errno.EIO
        under_test.begin(STARTED)
        under_test.post(ev.SyncConnected())
        under_test.post(ev.SyncConnected())
        assert len(fatal) == 1
        assert core.seen == [STARTED, ev.SyncConnected()]

    run(monkeypatch, script, story)


# ---- the short way -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class State:
    """Of ``Line``: all that the short way knows of a node."""

    session: Session


class Line(Core):
    """A core whose state is a session. ``then``: what the next step makes of it."""

    def __init__(self, session: Session) -> None:
        super().__init__(lambda _: ())
        self.session = session
        self.then: Session | None = None
        self.held: list[bool] = []
        """For each step, whether the lane rested."""
        self.hand = Sync()

    def initial(self, _: NodeConfig) -> State:  # type: ignore[override]
        return State(self.session)

    def step(self, state: State, event: ev.Event, now: Ns) -> tuple[State, tuple[act.Action, ...]]:  # type: ignore[override]
        super().step(None, event, now)
        self.held.append(self.hand.lane is None or self.hand.is_held)
        self.session = state.session
        if self.then is not None:
            state, self.then = State(self.then), None
        return state, self.script(event)

    def status(self, state: State, _now: Ns) -> dict[str, object]:  # type: ignore[override]
        return {"held": self.hand.is_held, "sent_seq": state.session.sender.sent_seq}


class Sync(Recorder):
    """Every hand, and a lane: ``lane`` is what it says when it is held; None: there is no connection."""

    def __init__(self) -> None:
        super().__init__()
        self.lane: LaneState | None = None
        self.is_held = False

    def hold(self) -> LaneState | None:
        if self.lane is None:
            return None
        assert not self.is_held, "once is enough"
        self.is_held = True
        self.did.append("hold")
        return self.lane

    def resume(
        self,
        mode: LaneMode,
        *,
        sent_seq: int,
        acked_seq: int,
        received_seq: int,
        imported_seq: int,
        window: list[SentBatch] | None,
    ) -> None:
        assert self.is_held
        self.is_held = False
        self.did.append(("resume", mode, window if window is None else [batch.n for batch in window]))
        self.lane = quiet(mode, sent_seq, acked_seq, received_seq, imported_seq)

    def count(self, _: LaneState) -> None:
        """Of no interest here."""

    def outcome(self) -> list[ev.Event]:
        return []

    def taken_in_part(self, seq: int, part: PartlyTaken) -> ev.FlowsImported:
        return ev.FlowsImported(seq, part.n, refused=(ev.Refused(seq, part.places),))

    @property
    def lanes(self) -> list[object]:
        """What the lane was told since the last time."""
        names = [done[0] if isinstance(done, tuple) else done for done in self.did]
        told = [done for name, done in zip(names, self.did, strict=True) if name in {"hold", "resume"}]
        self.did.clear()
        return told


def quiet(mode: LaneMode, sent_seq: int, acked_seq: int, received_seq: int, imported_seq: int) -> LaneState:
    """Nothing has happened."""
    return LaneState(mode, sent_seq, acked_seq, received_seq, imported_seq, 0, 0, 0, 0, 0, 0, 0, (), None)


OFF: Any = ("resume", LaneMode.OFF, None)
SEND: Any = ("resume", LaneMode.SEND, None)
RECEIVE: Any = ("resume", LaneMode.RECEIVE, None)


def short(
    monkeypatch: pytest.MonkeyPatch,
    session: Session,
    story: Callable[[Driver, Line, Sync, list[BaseException]], Awaitable[None]],
) -> None:
    """The story begins when a connection stands, and the lane has its first mode."""

    async def whole() -> None:
        line = Line(session)
        hand = line.hand
        fatal: list[BaseException] = []
        monkeypatch.setattr(driver, "node", line)
        under_test = Driver(cast(NodeConfig, None), fatal.append)
        part: Any = hand
        under_test.hands = Hands(
            part, part, part, part, part, part, part, part, History("a"), Counters(), hand.did.append,
            lambda: None, lambda *_: None, lambda _: None, part,
        )  # fmt: skip
        try:
            under_test.begin(STARTED)
            hand.lane = quiet(LaneMode.OFF, 0, 0, 0, 0)
            under_test.post(ev.SyncConnected())
            assert all(line.held)
            line.seen.clear()
            line.held.clear()
            await story(under_test, line, hand, fatal)
        finally:
            under_test.close()

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("session", "resumed"),
    [
        (begun(), OFF),
        (sending(), ("resume", LaneMode.SEND, [0])),
        (receiving(), RECEIVE),
        (draining(), OFF),
    ],
    ids=["long", "sending", "receiving", "draining"],
)
def test_a_lane_is_held_before_each_step_and_resumes_after_it(
    monkeypatch: pytest.MonkeyPatch, session: Session, resumed: Any
) -> None:
    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        assert hand.lanes == ["hold", resumed]
        under_test.post(ev.TimerFired())
        assert hand.lanes == ["hold", (*resumed[:2], None)]
        assert line.held == [True]
        assert not hand.is_held

    short(monkeypatch, session, story)


def test_events_that_wait_for_each_other_need_one_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        def script(event: ev.Event) -> tuple[act.Action, ...]:
            return (act.SetRole(ev.Role.ACTIVE, Term(4)),) if event == ev.TimerFired() else ()

        line.script = script
        hand.did.clear()
        under_test.post(ev.TimerFired())
        assert line.seen == [ev.TimerFired(), ev.RoleSet(ev.Role.ACTIVE, Term(4))]
        assert hand.lanes == ["hold", OFF]

    short(monkeypatch, begun(), story)


def test_what_went_the_short_way_is_there_before_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the lane is told of its window only when that has changed without it."""

    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        hand.did.clear()
        lane = quiet(LaneMode.SEND, 3, 1, 0, 0)
        sent = (SentBatch(5, {0: 8}, b"second"), SentBatch(6, {1: 9}, b"third"))
        hand.lane = replace(lane, sent=sent, records_out=11, bytes_out=11, heard_ns=77, said_ns=78)
        under_test.post(ev.TimerFired())
        session = line.session
        assert [(one.seq, one.n, one.frame, one.marks) for one in session.sender.window] == [
            (2, 5, b"second", {0: 8}),
            (3, 6, b"third", {1: 9}),
        ]
        assert (session.sender.sent_seq, session.sender.acked_seq) == (3, 1)
        assert (session.heard_at, session.said_at) == (77, 78)
        assert hand.lanes == ["hold", SEND]
        under_test.post(ev.TimerFired())
        assert line.session.heard_at == 77
        assert hand.lanes == ["hold", SEND], "which has it still"
        sender = sync_sender.acknowledge(line.session.sender, 2)[0]
        line.then = replace(line.session, sender=sender)
        under_test.post(ev.TimerFired())
        assert hand.lanes == ["hold", ("resume", LaneMode.SEND, [6])]

    short(monkeypatch, sending(), story)


def test_an_empty_window_is_told_whatever_was_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its numbers may have moved: something was sent, and acknowledged in the same step."""

    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        hand.lane = quiet(LaneMode.SEND, 1, 1, 0, 0)
        under_test.post(ev.TimerFired())
        assert line.session.sender.window == ()
        hand.did.clear()
        line.then = replace(line.session, sender=replace(line.session.sender, sent_seq=2, acked_seq=2))
        under_test.post(ev.TimerFired())
        assert hand.lanes == ["hold", ("resume", LaneMode.SEND, [])]

    short(monkeypatch, sending(), story)


def test_a_status_is_of_now_and_lets_the_lane_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        hand.did.clear()
        hand.lane = replace(quiet(LaneMode.SEND, 2, 0, 0, 0), sent=(SentBatch(5, {0: 8}, b"second"),))
        assert under_test.status() == {"held": True, "sent_seq": 2}
        assert hand.lanes == ["hold", SEND]
        assert line.seen == []

    short(monkeypatch, sending(), story)


def test_nothing_resumes_while_somebody_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        hand.did.clear()
        with under_test.busy():
            assert hand.is_held
            with under_test.busy():
                under_test.post(ev.TimerFired())
            under_test.status()
            under_test.post(ev.TimerFired())
            assert hand.is_held
        assert len(line.seen) == 2
        assert hand.lanes == ["hold", SEND]

    short(monkeypatch, sending(), story)


def test_who_fails_while_busy_leaves_the_lane_to_the_next_event(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, _line: Line, hand: Sync, fatal: list[BaseException]) -> None:
        hand.did.clear()
        with pytest.raises(KeyError), under_test.busy():
            raise KeyError("not ours")
        assert hand.lanes == ["hold"]
        under_test.post(ev.TimerFired())
        assert hand.lanes == [SEND]
        assert not fatal

    short(monkeypatch, sending(), story)


def test_what_was_not_acknowledged_survives_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the peer that comes back could not resume."""

    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        hand.lane = replace(quiet(LaneMode.SEND, 2, 1, 0, 0), sent=(SentBatch(5, {0: 8}, b"second"),))
        hand.did.clear()
        under_test.settle()
        hand.lane, hand.is_held = None, False  # as the connection goes
        under_test.post(ev.SyncClosed("gone"))
        assert [one.seq for one in line.session.sender.window] == [2]
        assert hand.lanes == ["hold"]
        hand.lane = quiet(LaneMode.OFF, 0, 0, 0, 0)
        under_test.post(ev.SyncConnected())
        assert hand.lanes == ["hold", ("resume", LaneMode.SEND, [5])], "a new lane knows nothing"

    short(monkeypatch, sending(), story)


def test_a_step_may_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, line: Line, hand: Sync, fatal: list[BaseException]) -> None:
        def close(_: str) -> None:
            under_test.settle()
            hand.lane, hand.is_held = None, False
            under_test.post(ev.SyncClosed("enough"))

        monkeypatch.setattr(hand, "close", close, raising=False)
        line.script = lambda event: (act.CloseSync("enough"),) if event == ev.TimerFired() else ()
        hand.did.clear()
        under_test.post(ev.TimerFired())
        assert line.seen == [ev.TimerFired(), ev.SyncClosed("enough")]
        assert hand.lanes == ["hold"]
        assert not fatal

    short(monkeypatch, sending(), story)


@pytest.mark.parametrize(
    "ask",
    [Driver.attend, Driver.status, lambda under_test: under_test.post(ev.TimerFired())],
    ids=["the lane", "a status", "an event"],
)
def test_what_was_taken_in_part_comes_before_whatever_asked(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[Driver], object]
) -> None:
    """As if it had come the long way: the core acknowledges it."""

    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        hand.did.clear()
        hand.lane = replace(quiet(LaneMode.RECEIVE, 1, 0, 2, 1), part=PartlyTaken(5, 3, (1, 3), 0))
        ask(under_test)
        assert line.seen[0] == ev.FlowsImported(2, 5, refused=(ev.Refused(2, (1, 3)),))
        assert hand.lanes[0] == "hold"
        assert line.session.receiver.received_seq == 2
        assert line.session.receiver.imported_seq == 1

    short(monkeypatch, receiving(), story)


def test_who_drains_follows_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lane does, until it ends: then there is credit for the long way."""

    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        assert ("rest",) in hand.did
        line.then = replace(sending(), sender=draining().sender)
        hand.did.clear()
        under_test.post(ev.TimerFired())
        assert hand.did == ["hold", OFF, ("set_credit", sync_short.credit(sending()))]
        hand.did.clear()
        under_test.post(ev.TimerFired())
        assert hand.did == ["hold", OFF]

    short(monkeypatch, sending(), story)


def test_what_the_lane_leaves_is_drained_while_it_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, line: Line, hand: Sync, _: list[BaseException]) -> None:
        def attend(credit: int) -> None:
            assert hand.is_held
            hand.did.append(("attend", credit))
            under_test.post(ev.SweepWalked(1))
            assert hand.is_held

        monkeypatch.setattr(hand, "attend", attend, raising=False)
        hand.did.clear()
        under_test.attend()
        assert hand.did == ["hold", ("attend", sync_short.credit(sending())), SEND, ("rest",)]
        assert line.seen == [ev.SweepWalked(1)]

    short(monkeypatch, sending(), story)


@pytest.mark.parametrize("where", ["attend", "hold", "resume"])
def test_an_exception_of_the_short_way_is_fatal_once(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """An OSError, too, which the loop would take for one of the connection; and nothing is done after it."""

    async def story(under_test: Driver, line: Line, hand: Sync, fatal: list[BaseException]) -> None:
        def breaks(*_: object, **__: object) -> None:
            raise FastpathError(errno.EIO, where)

        monkeypatch.setattr(hand, where, breaks, raising=False)
        hand.did.clear()
        line.seen.clear()
        under_test.attend()
        assert [type(problem) for problem in fatal] == [FastpathError]
        assert not any(done == SEND for done in hand.did)
        hand.did.clear()
        under_test.attend()
        under_test.post(ev.TimerFired())
        assert (hand.did, line.seen, len(fatal)) == ([], [], 1)

    short(monkeypatch, sending(), story)


def test_a_core_that_fails_leaves_the_lane_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, line: Line, hand: Sync, fatal: list[BaseException]) -> None:
        def fails(_: ev.Event) -> tuple[act.Action, ...]:
            raise KeyError("a bug")

        line.script = fails
        hand.did.clear()
        with under_test.busy():
            under_test.post(ev.TimerFired())
        assert hand.lanes == ["hold"]
        assert len(fatal) == 1

    short(monkeypatch, sending(), story)
