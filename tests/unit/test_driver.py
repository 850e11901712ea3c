# SPDX-License-Identifier: Apache-2.0
"""The loop around the core: order, outcomes as events, timers, the disk, and what a bug does."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flexha.core import actions as act
from flexha.core import events as ev
from flexha.core.keys_wire import KeysAck, KeysStep
from flexha.core.node import NodeConfig
from flexha.core.sync_wire import Batch
from flexha.fastpath import FastpathError
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

    def set_role(self, role: int, term: int) -> None:
        if self.role_error is not None:
            raise FastpathError(self.role_error, "fp_set_role")
        self.did.append(("role", role, term))

    def perform(self, action: object) -> None:
        self.did.append(action)

    def outcome(self) -> list[ev.Event]:
        self.did.append(("outcome",))
        return []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: self.did.append((name, *args, *kwargs.values()))


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
            part, part, part, part, part, part, History("a"), Counters(), hand.did.append,
            lambda: hand.did.append("stopped"), lambda _: None, part,
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
    (act.SetPulse(ready=True), act.SetPulse(ready=True)),
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


def test_no_action_is_forgotten() -> None:
    """The list above, and what the other tests of this file perform."""
    elsewhere = {act.PersistTerm, act.Record, act.Count}
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
    async def story(under_test: Driver, core: Core, *_: object) -> None:
        core.deadline = Ns(clock.now() + ms(20))
        under_test.begin(STARTED)
        await asyncio.sleep(0.01)
        assert core.seen == [STARTED]
        await until(lambda: len(core.seen) > 1)
        assert clock.now() >= core.deadline
        assert core.seen[1] == ev.TimerFired()

    run(monkeypatch, lambda _: (), story)


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


@pytest.mark.parametrize("where", ["core", "hand"])
def test_a_bug_ends_everything_once(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def script(event: ev.Event) -> tuple[act.Action, ...]:
        if event == STARTED:
            return ()
        if where == "core":
            raise KeyError("a bug")
        return (act.SetRole(ev.Role.ACTIVE, Term(4)),)

    async def story(under_test: Driver, core: Core, hand: Recorder, fatal: list[BaseException]) -> None:
        hand.role_error = errno.ETIMEDOUT
        under_test.begin(STARTED)
        under_test.post(ev.SyncConnected())
        under_test.post(ev.SyncConnected())
        assert len(fatal) == 1
        assert core.seen == [STARTED, ev.SyncConnected()]

    run(monkeypatch, script, story)


# ---- the short way -----------------------------------------------------------------------------------
class Line:
    """In place of a ``Lane``: says what the story wants."""

    def __init__(self, *, frame: bytes | None = None, batches: list[Batch] | None = None) -> None:
        self.frame, self.batches = frame, batches
        self.credit = 7

    def put(self, *_: object) -> bytes | None:
        return self.frame

    def acknowledged(self, *_: object) -> None:
        return None

    def received(self, *_: object) -> list[Batch] | None:
        return self.batches

    def imported(self, n: int, _now: Ns) -> bytes:
        return b"ack of %d" % n


def short(
    monkeypatch: pytest.MonkeyPatch,
    line: Line,
    story: Callable[[Driver, Core, Recorder, list[BaseException]], Awaitable[None]],
) -> None:
    monkeypatch.setattr(Driver, "_lane_now", lambda _: line)
    run(monkeypatch, lambda _: (), story)


def test_credit_comes_before_a_send_that_may_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be open again after the end has closed it."""

    async def story(under_test: Driver, core: Core, hand: Recorder, _: list[BaseException]) -> None:
        under_test.begin(STARTED)
        hand.did.clear()
        under_test.drained(b"sections", 3, {0: 9})
        assert hand.did == [("set_credit", 7), ("send", b"frame")]
        assert core.seen == [STARTED]

    short(monkeypatch, Line(frame=b"frame"), story)


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [
        ([ev.FlowsImported(2, 5)], [("send", b"ack of 5")]),
        ([ev.FlowsImported(1, 5)], []),
        ([ev.FlowsImported(2, 5, refused=(ev.Refused(2, (0,)),))], []),
        ([ev.FlowsImported(1, 2), ev.FlowsImported(2, error="no")], []),
    ],
    ids=["all", "not all", "some refused", "refused as a whole"],
)
def test_only_what_was_imported_whole_is_acknowledged_the_short_way(
    monkeypatch: pytest.MonkeyPatch, outcomes: list[ev.FlowsImported], said: list[object]
) -> None:
    async def story(under_test: Driver, core: Core, hand: Recorder, _: list[BaseException]) -> None:
        under_test.begin(STARTED)
        hand.did.clear()
        monkeypatch.setattr(hand, "outcome", lambda: outcomes, raising=False)
        under_test.received(b"bytes")
        assert hand.did == [("import_flows", 1, b"a"), ("import_flows", 2, b"b"), *said]
        assert core.seen == [STARTED, *([] if said else outcomes)]

    short(monkeypatch, Line(batches=[Batch(1, b"a"), Batch(2, b"b")]), story)


def test_what_the_short_way_leaves_goes_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(under_test: Driver, core: Core, _hand: Recorder, _: list[BaseException]) -> None:
        under_test.begin(STARTED)
        under_test.drained(b"sections", 3, {0: 9})
        under_test.received(b"bytes")
        assert core.seen == [STARTED, ev.FlowsDrained(b"sections", 3, {0: 9}), ev.SyncReceived(b"bytes")]

    short(monkeypatch, Line(), story)


def test_an_exception_of_the_short_way_is_fatal_whatever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """An OSError, too, which the loop would take for one of the connection; and nothing is done after it."""

    async def story(under_test: Driver, core: Core, hand: Recorder, fatal: list[BaseException]) -> None:
        under_test.begin(STARTED)

        def breaks(*_: object) -> None:
            raise FastpathError(5, "fp_flows_import")

        monkeypatch.setattr(hand, "import_flows", breaks, raising=False)
        under_test.received(b"bytes")
        assert [type(problem) for problem in fatal] == [FastpathError]
        hand.did.clear()
        under_test.received(b"bytes")
        under_test.drained(b"sections", 3, {0: 9})
        assert (hand.did, core.seen) == ([], [STARTED])

    short(monkeypatch, Line(frame=b"frame", batches=[Batch(1, b"a")]), story)
