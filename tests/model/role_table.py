# SPDX-License-Identifier: Apache-2.0
"""The role machine as a table of small numbers, which a model checker asks cell by cell.

A cell is (state, event) -> (state, orders), and is computed by the real ``flexha.core.role.step()`` when it
is asked for first: the model cannot differ from the code. What is cut away from ``RoleState``:

* times: each deadline is set or not; a ``TIMER`` event makes exactly one of them pass;
* what only the history tells: since when, why the peer was lost;
* damping, ``preempt``, tracking, lending, foreign routers: off, and the links are free;
* terms above ``TERM_MAX``: the run is counted as *beyond*, and ends there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from flexha.core import role as machine
from flexha.core import sync_orders
from flexha.core.actions import PersistMaintenance, SetRole, Stop
from flexha.core.damp import Damp
from flexha.core.events import (
    Command,
    Fenced,
    Hung,
    MaintenanceKept,
    OperatorAsked,
    PeerInfo,
    Role,
    Started,
    StopRequested,
    TermPersisted,
    TimerFired,
    Wires,
    WiresSettled,
)
from flexha.core.heartbeat import PeerChanged, PeerFound, PeerLost
from flexha.core.role_state import Input, Output, RoleState, Wire
from flexha.core.sync_orders import RECEIVING_ROLES, DrainFailed, GoReceived, PassedOn, SyncedChanged
from flexha.core.sync_sender import Drained
from flexha.units import EPOCH, Ns, Term, ms

TERM_MAX: Final = 6
"""Reigns up to here are followed."""
FAR: Final = Ns(ms(1_000_000))
"""Where a deadline that is set lies, seen from ``EPOCH``."""
BEYOND: Final = -1
BROKEN: Final = -2
"""The core says that such an event cannot come in such a state."""


class Kind(IntEnum):
    """The events; an event's number is ``kind | arg << 5 | arg2 << 13``."""

    STARTED = 0
    TIMER = 1
    STOP = 2
    ASK = 3
    PERSISTED = 4
    FOUND = 5
    CHANGED = 6
    LOST = 7
    FENCED = 8
    HUNG = 9
    SYNCED = 10
    DRAINED = 11
    DRAIN_FAILED = 12
    GO = 13
    PASSED_ON = 14
    SETTLED = 15


class Timer(IntEnum):
    """The deadlines that the model knows."""

    HOLD = 0
    HANDOVER = 1
    LEAVE = 2
    WIRES = 3
    CLAIM = 4


NO_REBIRTH: Final = 255
_COMMANDS: Final = (Command.FAILOVER, Command.MAINTENANCE_ENTER, Command.MAINTENANCE_EXIT)


def register(state: RoleState, *, hung: bool = False) -> int:
    """What a heartbeat says: role, term, ready, hung."""
    return int(state.role) | state.term << 3 | state.ready << 6 | hung << 7


def _info(word: int, priority: int) -> PeerInfo:
    return PeerInfo(
        role=Role(word & 7),
        term=Term(word >> 3 & 7),
        incarnation=1,
        ready=bool(word >> 6 & 1),
        bye=False,
        priority=priority,
        hung=bool(word >> 7 & 1),
    )


def initial(index: int) -> RoleState:
    """A node before ``Started``; node a has the higher priority, which only counts in an election."""
    return RoleState(index=index, priority=150 - 50 * index, preempt=False, hold=ms(100), wire=Wire.FREE)


def event_of(state: RoleState, number: int) -> Input:
    """The event with this number, for this node."""
    kind, arg, arg2 = Kind(number & 31), number >> 5 & 255, number >> 13
    other = 100 + 50 * state.index
    plain: dict[Kind, Input] = {
        Kind.STARTED: Started(Term(arg), 1),
        Kind.TIMER: TimerFired(),
        Kind.STOP: StopRequested(),
        Kind.PERSISTED: TermPersisted(Term(arg)),
        Kind.FENCED: Fenced(Term(arg)),
        Kind.HUNG: Hung(frozenset({"worker"}) if arg else frozenset(), 0 if arg else None, arg == 2),
        Kind.SYNCED: SyncedChanged(bool(arg)),
        Kind.DRAINED: Drained(),
        Kind.DRAIN_FAILED: DrainFailed("model"),
        Kind.GO: GoReceived(Term(arg), passes_on=True),
        Kind.PASSED_ON: PassedOn(Term(arg)),
        Kind.SETTLED: WiresSettled(Wires(arg % 3)),
    }
    match kind:
        case Kind.ASK:
            return OperatorAsked(1, _COMMANDS[arg])
        case Kind.FOUND:
            return PeerFound(_info(arg, other))
        case Kind.CHANGED:
            return PeerChanged(_info(arg2, other), _info(arg, other))
        case Kind.LOST:
            reborn = None if arg2 == NO_REBIRTH else _info(arg2, other)
            return PeerLost("model", _info(arg, other), reborn)
        case _:
            return plain[kind]


def deadlines(state: RoleState) -> dict[Timer, Ns | None]:
    """Which run, and until when."""
    return {
        Timer.HOLD: state.hold_until,
        Timer.HANDOVER: None if state.handover is None else state.handover.deadline,
        Timer.LEAVE: state.leave_at,
        Timer.WIRES: state.wires_until,
        Timer.CLAIM: None if state.claim is None else state.claim_until,
    }


def expire(state: RoleState, timer: Timer, at: Ns) -> RoleState:
    """The same state, but that this one deadline is over."""
    match timer:
        case Timer.HOLD:
            return replace(state, hold_until=at)
        case Timer.HANDOVER:
            assert state.handover is not None
            return replace(state, handover=replace(state.handover, deadline=at))
        case Timer.LEAVE:
            return replace(state, leave_at=at)
        case Timer.WIRES:
            return replace(state, wires_until=at)
        case Timer.CLAIM:
            return replace(state, claim_until=at)


def _far(deadline: Ns | None) -> Ns | None:
    return None if deadline is None else FAR


def cut(state: RoleState) -> RoleState:
    """What matters of a state: every deadline that is set lies equally far away."""
    claim = "lost" if isinstance(state.claim, PeerLost) else state.claim
    handover = None if state.handover is None else replace(state.handover, deadline=FAR)
    return replace(
        state,
        since=EPOCH,
        damp=Damp(),
        preferred_since=None,
        claim=claim,
        claim_until=EPOCH if claim is None else FAR,
        handover=handover,
        hold_until=_far(state.hold_until),
        leave_at=_far(state.leave_at),
        wires_until=_far(state.wires_until),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """One cell, as the checker gets it."""

    state: int
    attributes: int = 0
    go: int = 0
    passed: int = 0
    orders: int = 0

    def words(self) -> tuple[int, int, int, int, int]:
        return self.state, self.attributes, self.go, self.passed, self.orders


def attributes(state: RoleState) -> int:
    """What the checker must see of a state to know what may happen next; ``world.h`` takes it apart."""
    timers = sum(1 << timer for timer, at in deadlines(state).items() if at is not None)
    handover = state.handover
    phase = 0 if handover is None else 3 if handover.fenced else 2 if handover.parked else 1
    persisting = 0 if state.persisting is None else state.persisting
    return (
        register(state)
        | timers << 7
        | persisting << 12
        | phase << 16
        | int(state.wires) << 18
        | state.stopped << 20
        | state.synced << 21
        | state.out_of_service << 22
    )


def step(state: RoleState, number: int, now: Ns = EPOCH) -> tuple[RoleState, tuple[Output, ...]]:
    """One event of the model on any state, cut or whole; what it asks of the disk besides terms is done."""
    event = event_of(state, number)
    if isinstance(event, TimerFired):
        state = expire(state, Timer(number >> 5 & 255), now)
    state, outputs = machine.step(state, event, now)
    for order in outputs:
        match order:
            case sync_orders.TakeRole(role=taken) if state.synced and taken not in RECEIVING_ROLES:
                state, more = machine.step(state, SyncedChanged(synced=False), now)
                outputs = (*outputs, *more)
            case PersistMaintenance(request=request, on=on):
                state, more = machine.step(state, MaintenanceKept(request, on), now)
                outputs = (*outputs, *more)
            case _:
                pass
    return state, outputs


class RoleTable:
    """States numbered in the order in which they are reached; 0 and 1 are the nodes before they start."""

    def __init__(self) -> None:
        self.states: list[RoleState] = []
        self._numbers: dict[RoleState, int] = {}
        self.cells: dict[tuple[int, int], Answer] = {}
        for index in (0, 1):
            self.number(initial(index))

    def number(self, state: RoleState) -> int:
        """The number of a state that is cut already."""
        known = self._numbers.get(state)
        if known is None:
            known = self._numbers[state] = len(self.states)
            self.states.append(state)
        return known

    def ask(self, number: int, event: int) -> Answer:
        """One cell."""
        cell = self.cells.get((number, event))
        if cell is None:
            cell = self.cells[number, event] = self._compute(self.states[number], event)
        return cell

    def _compute(self, state: RoleState, event: int) -> Answer:
        try:
            after, outputs = step(state, event)
        except Exception:  # noqa: BLE001 - whatever it is, the checker tells how one gets there
            return Answer(BROKEN)
        after = cut(after)
        terms = (after.term, after.persisting or 0, after.reserved or 0, after.given or 0, after.floor)
        if max(terms) > TERM_MAX:
            return Answer(BEYOND)
        go = next((o.term for o in outputs if isinstance(o, sync_orders.SendGo)), 0)
        passed = next((o.term for o in outputs if isinstance(o, sync_orders.SendPassedOn)), 0)
        reigns_anew = any(isinstance(o, SetRole) and o.role is Role.ACTIVE for o in outputs)
        orders = int(reigns_anew) | any(isinstance(o, Stop) for o in outputs) << 1
        return Answer(self.number(after), attributes(after), go, passed, orders)
