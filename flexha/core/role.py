# SPDX-License-Identifier: Apache-2.0
"""The role machine: who of the pair reigns, and why.

States and the ways between them; every other pair of state and event is in ``TABLE`` too, with its reason::

    INIT         Started -> JOINING;  was in maintenance when it ended -> MAINTENANCE
    JOINING      synced, or a foreign router reigns -> PASSIVE;  peer lost, nobody reigns -> ACTIVE
    PASSIVE      peer lost, its word (``GoReceived``), nobody reigns -> ACTIVE
    ACTIVE       higher term, hung beside a ready peer -> JOINING;  better foreign router -> PASSIVE
    ACTIVE       handover -> JOINING
    JOINING, PASSIVE, ACTIVE (by a handover)   operator -> MAINTENANCE -> JOINING
    JOINING, PASSIVE                           disk or fast path broken -> FAULT -> JOINING by the operator
    JOINING, PASSIVE   a claim waits for the disk in vain -> FAULT -> JOINING when the disk has the term
    any          StopRequested -> INIT, and ``Stop``

Prohibited, and why:

* JOINING or PASSIVE -> ACTIVE while a live peer reigns: two would. A rejoining node never takes over a live
  ACTIVE (``preempt`` is a handover that the *reigning* node begins, once the better one is ready).
* ACTIVE -> PASSIVE by a higher term: what the other node did in its reign is unknown here, so we join it
  anew.
* MAINTENANCE or FAULT -> ACTIVE, even with a dead peer: a person said no, or the node cannot keep its
  promises.

A handover loses nothing: ``role_wires`` says what waits where meanwhile.

Terms. ``term`` is the highest reign heard of or held. A node reigns in a term of its own parity
(``units.next_own_term``) above it, on disk before it is used. A node that may have to take over keeps such a
term ``reserved`` on disk ahead of need, so that a takeover waits for no fsync. Of two ACTIVE nodes the lower
term leaves: the C pulse thread fences it at once, the machine follows (``Fenced``).

Election, when peers live but none reigns: PASSIVE before JOINING, then higher priority, then node a; after a
hold in which heartbeats make both see the same, and only on links that no foreign VRRP router holds.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from flexha.core import damp, role_wires, sync_orders, track, vrrp
from flexha.core.actions import Level, PersistMaintenance, Record, Reply, SetPulse, Stop
from flexha.core.damp import Damp
from flexha.core.events import (
    Command,
    Fenced,
    Hung,
    MaintenanceKept,
    MaintenanceNotKept,
    OperatorAsked,
    PeerInfo,
    Role,
    RoleSet,
    Started,
    StopRequested,
    TermPersisted,
    TermPersistFailed,
    TimerFired,
    Wires,
    WiresSettled,
)
from flexha.core.heartbeat import Awake, PeerChanged, PeerFound, PeerLost
from flexha.core.role_moves import (
    DISK_MS,
    abdicate,
    answer,
    claim_reign,
    enter,
    follow,
    reason_of,
    reserve,
    retire,
)
from flexha.core.role_state import (
    Handover,
    Input,
    IsolationChanged,
    Motive,
    Output,
    RaiseRouters,
    Result,
    RoleState,
    Wire,
    WireChanged,
    observe,
    reigns,
)
from flexha.core.sync_orders import (
    RECEIVING_ROLES,
    DrainFailed,
    GoReceived,
    ImportBroken,
    PassedOn,
    SyncedChanged,
)
from flexha.core.sync_sender import Drained
from flexha.core.table import Cell, Ignore, Impossible, TransitionTable
from flexha.core.track import UsableChanged
from flexha.units import Ns, ms, next_own_term

DRAIN_MS: Final = 500
"""A handover waits so long for acknowledgements, before the fence and again behind it."""
PARK_MS: Final = 100
"""A handover waits so long for the workers to finish what they have read; then it goes on without that."""
FAREWELL_MS: Final = 500
"""After a handover this node waits so long to hear the peer reign."""
WORDS: Final = ("handover", "outdated-term")
"""Claims that the peer itself has made ours; the others are not, once a peer is heard."""
LINGER_MS: Final = 100
"""A node that stops passes on for so long what switches still send to it."""
ADVERT_DOUBT_MS: Final = 500
"""Whoever has reigned for so long waits as long for a heartbeat of a peer whose advert outranks its own."""
ADVERT_STALE_MS: Final = 60_000
"""An advert that came so long ago says nothing of the next one."""


def step(state: RoleState, event: Input, now: Ns) -> Result:
    """One event in; the new state, actions and orders out."""
    was_ready = state.ready
    state = observe(state, event)
    handler = TABLE.handler(state.role, type(event))
    outputs: tuple[Output, ...] = ()
    if handler is not None:
        state, outputs = handler(state, event, now)
    state, more = role_wires.tend(state, event, now)
    outputs = (*outputs, *more)
    if state.ready is not was_ready and not any(isinstance(output, SetPulse) for output in outputs):
        outputs = (*outputs, SetPulse(ready=state.ready))
    return state, outputs


# ---- terms on disk ----------------------------------------------------------------------------------
def _on_disk(state: RoleState, event: TermPersisted, now: Ns) -> Result:
    if event.term != state.persisting:
        return state, ()  # overtaken: the peer has told of a higher one meanwhile
    state = replace(state, persisting=None, reserved=event.term)
    claim = state.claim
    if claim is not None and claim not in WORDS and state.peer is not None:  # the better one may be it
        return _elect(replace(state, claim=None), now)
    if claim is not None:
        return claim_reign(replace(state, claim=None), claim, now)
    if state.disk_slow:
        state, outputs = enter(
            replace(state, hold_until=Ns(now + state.hold)), Role.JOINING, now, "disk-answers"
        )
        state, more = reserve(state)
        return state, (*outputs, *more)
    return reserve(state) if state.role is not Role.ACTIVE else (state, ())


def _unsaved(state: RoleState, event: TermPersistFailed, _now: Ns) -> Result:
    """No reign depends on it: the next need tries again."""
    return replace(state, persisting=None, claim=None, disk_slow=False), (
        Record(Level.ERROR, "term-not-persisted", {"term": event.term, "error": event.error}),
    )


# ---- INIT --------------------------------------------------------------------------------------------
def _start(state: RoleState, event: Started, now: Ns) -> Result:
    if state.stopped:
        return state, ()
    state = replace(state, floor=event.term)
    if event.maintenance:
        return enter(state, Role.MAINTENANCE, now, "maintenance-kept")
    state, outputs = enter(replace(state, hold_until=Ns(now + state.hold)), Role.JOINING, now, "started")
    state, more = reserve(state)
    return state, (*outputs, *more)


def _stop_init(state: RoleState, _event: StopRequested, _now: Ns) -> Result:
    if state.stopped:
        return state, ()
    return replace(state, stopped=True), (Stop(),)


# ---- JOINING, PASSIVE: following, electing, taking over ----------------------------------------------
def _elect(state: RoleState, now: Ns) -> Result:
    """Reign if nobody does and nobody is more entitled."""
    peer = state.peer
    if reigns(peer) or state.claim is not None or state.handover is not None or state.leave_at is not None:
        return state, ()
    if not state.links_are_free or state.isolated or state.hold_until is not None:
        if state.wire is Wire.HELD and state.hold_until is None and state.role is Role.JOINING:
            return enter(state, Role.PASSIVE, now, "foreign-router")  # there is no table to join
        return state, ()
    if peer is not None and peer.role in RECEIVING_ROLES and not peer.hung:
        return claim_reign(state, "elected", now) if _outdoes(state, peer) else (state, ())
    return claim_reign(state, "no-peer", now)


def _outdoes(state: RoleState, peer: PeerInfo) -> bool:
    """Whether this node is the more entitled of two that follow."""
    mine = (state.role is Role.PASSIVE, state.priority, -state.index)
    return mine > (peer.role is Role.PASSIVE, peer.priority, state.index - 1)


def _meet(state: RoleState, event: PeerFound | PeerChanged, now: Ns) -> Result:
    """The peer is heard: follow it if it reigns; if it just stopped reigning, hold an election soon."""
    state, outputs = follow(state)
    if reigns(state.peer):
        state, more = _handed_over(replace(state, claim=None), now)
        state, last = _join_synced(state, now)
        return state, (*outputs, *more, *last)
    if isinstance(event, PeerChanged) and event.was.role is Role.ACTIVE:
        return replace(state, hold_until=Ns(now + state.hold)), outputs
    state, more = _elect(state, now)
    return state, (*outputs, *more)


def _mourn(state: RoleState, event: PeerLost, now: Ns) -> Result:
    """The peer is dead or gone. Where the links are known to be free, no hold is needed."""
    if state.leave_at is not None:
        return _leave(state, now, "stop")
    if state.handover is not None:
        return _handover_failed(state, now, f"the peer is lost ({event.reason})")
    if state.wire is Wire.HELD or state.isolated:
        fields = {"reason": event.reason, "wire": state.wire.value, "isolated": state.isolated}
        return state, (Record(Level.WARNING, "takeover-withheld", fields, history=True),)
    if event.reborn is not None and _defers_to(state, event.reborn):
        # It is found next, and reigns already or is elected; if it is never heard again, the hold ends.
        return replace(state, hold_until=Ns(now + state.hold)), ()
    return claim_reign(state, event, now) if state.links_are_free else (state, ())


def _defers_to(state: RoleState, reborn: PeerInfo) -> bool:
    """Whether the peer's new life reigns, or is the more entitled one."""
    follows = reborn.role in RECEIVING_ROLES and not reborn.hung
    return reigns(reborn) or (follows and not _outdoes(state, reborn))


def _world_changed(state: RoleState, event: WireChanged | IsolationChanged, now: Ns) -> Result:
    if state.wire is Wire.HELD:
        state = replace(state, claim=None)
    if isinstance(event, IsolationChanged) and not event.isolated:
        return replace(state, hold_until=Ns(now + state.hold)), ()  # the peer may be heard again now
    return _elect(state, now)


def _synced_joining(state: RoleState, _event: SyncedChanged, now: Ns) -> Result:
    return _join_synced(state, now)


def _join_synced(state: RoleState, now: Ns) -> Result:
    """JOINING ends when the table follows a reigning peer's; either may be known first."""
    if state.role is not Role.JOINING or not state.synced or not reigns(state.peer):
        return state, ()
    return enter(state, Role.PASSIVE, now, "synced")


def _take_word(state: RoleState, event: GoReceived, now: Ns) -> Result:
    """The reigning peer has fenced itself and gives us the word."""
    if event.term <= state.term:
        return state, (Record(Level.WARNING, "stale-handover", {"term": event.term, "known": state.term}),)
    if state.leave_at is not None:  # it was given before the peer heard that we are not ready
        return state, (Record(Level.WARNING, "handover-refused", {"term": event.term}, history=True),)
    state = replace(state, heir=event.passes_on, damp=damp.inherited(event.moves, state.limits, now))
    return claim_reign(state, "handover", now)


def _follower_timer(state: RoleState, _event: TimerFired, now: Ns) -> Result:
    if state.claim is not None and now >= state.claim_until:
        return _disk_slow(state, now)
    if state.leave_at is not None and now >= state.leave_at:
        return _leave(state, now, "stop")
    if state.handover is not None and now >= state.handover.deadline:
        return _give_word(state, now, complete=False)
    if state.hold_until is not None and now >= state.hold_until:
        return _elect(replace(state, hold_until=None), now)
    return state, ()


def _disk_slow(state: RoleState, now: Ns) -> Result:
    """The disk keeps us from reigning: say so until it has the term, that the peer reigns if it can."""
    fields = {"claim": reason_of(state.claim or "none"), "disk_ms": DISK_MS, "waits_for": state.persisting}
    state, outputs = enter(state, Role.FAULT, now, "disk-slow", fields=fields)
    return replace(state, disk_slow=True), outputs


def _fail(state: RoleState, event: TermPersistFailed | ImportBroken, now: Ns) -> Result:
    """This node cannot keep its promises: a term on disk, or a table like the peer's."""
    reason = "term-not-persisted" if isinstance(event, TermPersistFailed) else "import-broken"
    answers = answer(state, ok=False, text=f"{reason}: {event.error}")
    state, outputs = enter(
        replace(state, persisting=None), Role.FAULT, now, reason, fields={"error": event.error}
    )
    return state, (*outputs, *answers)


# ---- ACTIVE ------------------------------------------------------------------------------------------
def _compare(state: RoleState, event: PeerFound | PeerChanged, now: Ns) -> Result:
    """Two ACTIVE nodes: the lower term leaves, the higher one announces itself again."""
    peer = event.info
    if peer.role is Role.ACTIVE:
        if peer.term > state.term:
            return abdicate(replace(state, term=peer.term), Role.JOINING, now, "higher-term")
        fields = {"term": state.term, "peer_term": peer.term}
        return state, (RaiseRouters(), Record(Level.WARNING, "dual-active", fields, history=True))
    if peer.term > state.term and state.handover is None and state.claim is None:
        return claim_reign(state, "outdated-term", now)  # it reigned and yielded to VRRP: terms only grow
    state, outputs = _prefer_peer(state, now)
    if (
        not state.heir
        and state.since < now
        and (isinstance(event, PeerFound) or event.was.role is Role.ACTIVE)
    ):
        # Its frames may have misled the bridges: it reigned, or may have until just before we heard it.
        return state, (RaiseRouters(), *outputs)
    return state, outputs  # a reign that begins in this very step has just been announced


def _prefer_peer(state: RoleState, now: Ns) -> Result:
    """Give the role to a peer that would do better with it, unless that has been done too often of late."""
    motive = _preference(state)
    if motive is not Motive.PREEMPT:
        state = replace(state, preferred_since=None)
    elif state.preferred_since is None:
        state = replace(state, preferred_since=now)
    if motive is None or state.damp.suspended_until is not None:
        return state, ()
    if state.preferred_since is not None and now < state.preferred_since + state.preempt_hold:
        return replace(state, hold_until=Ns(state.preferred_since + state.preempt_hold)), ()
    if damp.is_full(state.damp, state.limits, now):
        fields = {"motive": motive.value, "moves": state.limits.moves, "for_s": state.limits.suspend_s}
        state = replace(state, damp=damp.suspended(state.limits, now))
        return state, (Record(Level.WARNING, "moves-suspended", fields, history=True),)
    state = replace(state, damp=damp.moved(state.damp, state.limits, now))
    return _begin_handover(state, now, motive, None)


def _preference(state: RoleState) -> Motive | None:
    """Why a ready peer should reign: it has what is lost here; or, with ``preempt``, its priority is higher
    and its ports are worth as much.
    """
    peer = state.peer
    if peer is None or _not_ready(state) is not None:
        return None
    if track.is_better(state.ports, here=state.usable, there=peer.ports_up):
        return Motive.TRACK
    own_score, peer_score = (track.score(state.ports, usable) for usable in (state.usable, peer.ports_up))
    preempts = state.preempt and peer.priority > state.priority and peer_score >= own_score
    return Motive.PREEMPT if preempts else None


def _usable(state: RoleState, _event: UsableChanged, now: Ns) -> Result:
    return _prefer_peer(state, now)


def _fenced(state: RoleState, event: Fenced, now: Ns) -> Result:
    """C heard a higher term, and has closed the fence already."""
    return abdicate(replace(state, term=max(event.term, state.term)), Role.JOINING, now, "higher-term")


def _hung(state: RoleState, event: Hung, now: Ns) -> Result:
    """A part of us got nowhere. If we reigned beside a ready peer, C has closed the fence for it."""
    if not event.what and not event.yielded:
        return state, (Record(Level.INFO, "moves-again", history=True),)
    fields = {"what": sorted(event.what), "worker": event.worker, "yielded": event.yielded}
    record = Record(Level.ERROR, "hung", fields, history=True)
    if not event.yielded or state.role is not Role.ACTIVE:
        return state, (record,)
    state, outputs = abdicate(state, Role.JOINING, now, "hung")
    return state, (*outputs, record)


def _outranked(state: RoleState, event: vrrp.Outranked, now: Ns) -> Result:
    """A better VRRP router: all of ours yield to it, unless it is the peer and heartbeats decide.

    When a split heals, its first advert may come before its first heartbeat, which will say who of us leaves.
    Who only ever hears its adverts yields to the next one. But who has just taken over, and is answered by an
    advert, was wrong, and yields at once.
    """
    if event.is_peer and state.peer is not None:
        return state, ()
    if event.is_peer and now >= state.since + ms(ADVERT_DOUBT_MS):
        since = state.peer_advert_at
        if since is None or now > since + ms(ADVERT_STALE_MS):
            return replace(state, peer_advert_at=now), ()
        if now < since + ms(ADVERT_DOUBT_MS):
            return state, ()
    fields = {"port": event.port, "source": str(event.source), "priority": event.priority}
    return abdicate(state, Role.PASSIVE, now, "outranked", **fields)


def _active_timer(state: RoleState, _event: TimerFired, now: Ns) -> Result:
    if state.claim is not None and now >= state.claim_until:
        fields = {"claim": reason_of(state.claim), "disk_ms": DISK_MS, "waits_for": state.persisting}
        return replace(state, claim=None), (Record(Level.ERROR, "claim-given-up", fields, history=True),)
    if state.handover is not None and now >= state.handover.deadline:
        if state.handover.parked:
            return _fence(state, now)
        return _handover_failed(state, now, f"the peer did not acknowledge within {DRAIN_MS} ms")
    if state.damp.suspended_until is not None and now >= state.damp.suspended_until:
        record = Record(Level.INFO, "moves-resumed", {}, history=True)
        state, outputs = _prefer_peer(replace(state, damp=Damp()), now)
        return state, (*outputs, record)
    if state.hold_until is not None and now >= state.hold_until:
        return _prefer_peer(replace(state, hold_until=None), now)
    return state, ()


def _left_alone(state: RoleState, event: PeerLost, now: Ns) -> Result:
    if state.handover is not None:
        return _handover_failed(state, now, f"the peer is lost ({event.reason})")
    return state, ()


def _speak_up(state: RoleState, _event: Awake, _now: Ns) -> Result:
    """A peer may have reigned meanwhile, and died: switches look for the virtual MAC where that was."""
    if state.heir or state.handover is not None:
        return state, ()
    return state, (RaiseRouters(),)


# ---- handover ----------------------------------------------------------------------------------------
def _not_ready(state: RoleState) -> str | None:
    """Why the peer cannot take over now."""
    if state.handover is not None:
        return f"a handover is under way ({state.handover.motive})"
    if state.claim is not None:
        return "a new term is being written to disk"
    if state.peer is None:
        return "the peer is not heard"
    if state.peer.role is not Role.PASSIVE:
        return f"the peer is {state.peer.role.name}, not PASSIVE"
    return None if state.peer.ready else "the peer is PASSIVE but not in sync"


def _begin_handover(state: RoleState, now: Ns, motive: Motive, request: int | None) -> Result:
    """Wait until the peer has what it was sent; a term is reserved in case that we must come back."""
    state = replace(state, handover=Handover(motive, request, Ns(now + ms(DRAIN_MS))))
    state, outputs = reserve(state)
    fields: dict[str, object] = {"motive": motive.value, "term": state.term}
    if motive is Motive.TRACK and state.peer is not None:
        fields["score"] = track.score(state.ports, state.usable)
        fields["peer_score"] = track.score(state.ports, state.peer.ports_up)
    record = Record(Level.INFO, "handover-begun", fields, history=True)
    return state, (sync_orders.BeginDrain(), *outputs, record)


def _drained(state: RoleState, _event: Drained, now: Ns) -> Result:
    """Everything sent is live in the peer: read no more, and let go what waits for its acknowledgement."""
    if state.handover is None:
        return state, ()
    handover = replace(state.handover, parked=True, deadline=Ns(now + ms(PARK_MS)))
    return role_wires.park(replace(state, handover=handover))


def _parked(state: RoleState, _event: WiresSettled, now: Ns) -> Result:
    return _fence(state, now) if state.handover is not None and state.handover.parked else (state, ())


def _fence(state: RoleState, now: Ns) -> Result:
    """Nothing is under way any more: forward no more, and let the last changes follow."""
    assert state.handover is not None
    handover = replace(state.handover, fenced=True, deadline=Ns(now + ms(DRAIN_MS)))
    state = replace(state, handover=handover)
    state, outputs = enter(state, Role.JOINING, now, "handover", tell_sync=False)
    return state, (*outputs, sync_orders.Settle())


def _settled(state: RoleState, _event: Drained, now: Ns) -> Result:
    return _give_word(state, now, complete=True) if state.handover is not None else (state, ())


def _give_word(state: RoleState, now: Ns, *, complete: bool) -> Result:
    """The fence is closed and the peer has everything (or DRAIN_MS have passed): the peer is to reign."""
    go = sync_orders.SendGo(next_own_term(state.term, 1 - state.index), state.damp.recent(state.limits, now))
    record = Record(Level.INFO, "handover-given", {"term": go.term, "complete": complete}, history=True)
    state = replace(state, given=go.term, wires_until=Ns(now + ms(FAREWELL_MS)))
    state, outputs = _handed_over(state, now)
    return state, (go, *outputs, record)


def _handed_over(state: RoleState, now: Ns) -> Result:
    """The peer reigns, or has the word to: be an ordinary follower, or what the operator wants."""
    if state.leave_at is not None and state.wires is Wires.READ:
        return _leave(state, now, "stop")
    if state.leave_at is not None:
        return replace(state, leave_at=min(state.leave_at, Ns(now + ms(LINGER_MS)))), ()
    handover = state.handover
    if handover is None:
        return state, ()
    if handover.motive is Motive.MAINTENANCE and handover.request is not None:
        return retire(replace(state, handover=None), handover.request, now)
    outputs = answer(state, ok=True, text="handed over to the peer")
    state = replace(state, handover=None, hold_until=Ns(now + state.hold))
    if handover.motive is Motive.STOP:
        state = replace(state, leave_at=Ns(now + ms(FAREWELL_MS)))
    state, more = reserve(state)
    return state, (sync_orders.TakeRole(state.role, state.term), *more, *outputs)


def _drain_failed(state: RoleState, event: DrainFailed, now: Ns) -> Result:
    return _handover_failed(state, now, event.reason) if state.handover is not None else (state, ())


def _handover_failed(state: RoleState, now: Ns, why: str) -> Result:
    """Keep the role, or take it back; a node that stops leaves without handing over."""
    handover = state.handover
    assert handover is not None
    outputs = (
        *answer(state, ok=False, text=f"not handed over: {why}"),
        Record(Level.WARNING, "handover-failed", {"why": why, "fenced": handover.fenced}, history=True),
    )
    state = replace(state, handover=None)
    if handover.motive is Motive.STOP:
        state, more = _leave(state, now, "stop")
    elif handover.fenced:
        parked = replace(state, wires_until=Ns(now + ms(FAREWELL_MS)))  # a disk may take longer
        state, more = claim_reign(parked, "handover-failed", now)
    else:
        again = Ns(now + state.hold) if handover.motive in (Motive.PREEMPT, Motive.TRACK) else None
        wires_until = now if state.heir else state.wires_until  # what parked them for us may have no end
        return replace(state, hold_until=again, wires_until=wires_until), outputs
    return state, (*more, *outputs)


# ---- operator, stop ----------------------------------------------------------------------------------
def _ask_active(state: RoleState, event: OperatorAsked, now: Ns) -> Result:
    if event.command is Command.MAINTENANCE_EXIT:
        return state, (_refuse(event, "not in maintenance, but ACTIVE"),)
    why_not = _not_ready(state)
    if why_not is not None:
        return state, (_refuse(event, why_not),)
    motive = Motive.OPERATOR if event.command is Command.FAILOVER else Motive.MAINTENANCE
    return _begin_handover(state, now, motive, event.request)


def _ask_follower(state: RoleState, event: OperatorAsked, now: Ns) -> Result:
    if event.command is Command.FAILOVER:
        return state, (_refuse(event, f"this node is {state.role.name}: ask the ACTIVE one"),)
    if event.command is Command.MAINTENANCE_EXIT:
        return state, (_refuse(event, f"not in maintenance, but {state.role.name}"),)
    if state.handover is not None or state.leave_at is not None:
        return state, (_refuse(event, "a handover is under way"),)
    return retire(state, event.request, now)


def _ask_away(state: RoleState, event: OperatorAsked, now: Ns) -> Result:
    """In MAINTENANCE or FAULT."""
    if event.command is Command.MAINTENANCE_EXIT:
        state, outputs = enter(replace(state, hold_until=Ns(now + state.hold)), Role.JOINING, now, "operator")
        state, more = reserve(state)
        return state, (*outputs, *more, PersistMaintenance(event.request, on=False))
    if event.command is Command.MAINTENANCE_ENTER and state.role is Role.FAULT:
        return retire(state, event.request, now)
    if event.command is Command.MAINTENANCE_ENTER and not state.out_of_service:
        return state, (PersistMaintenance(event.request, on=True),)  # the disk may take it by now
    return state, (_refuse(event, f"this node is in {state.role.name}"),)


def _ask_init(state: RoleState, event: OperatorAsked, _now: Ns) -> Result:
    return state, (_refuse(event, "this node is starting or stopping"),)


def _kept(state: RoleState, event: MaintenanceKept, _now: Ns) -> Result:
    """What an operator said of maintenance survives a restart: now it may be relied on."""
    text = (
        "in maintenance, and stays so over restarts; end it with: flexhactl maintenance exit"
        if event.on
        else "joining the pair"
    )
    return state, (Reply(event.request, ok=True, text=text),)


def _not_kept(state: RoleState, event: MaintenanceNotKept, _now: Ns) -> Result:
    now_is = f"in {state.role.name} now" if event.on else "joining the pair now"
    ends_in = "would not end in maintenance" if event.on else "may end in maintenance again"
    text = f"{now_is}, but a restart {ends_in}: {event.error}; mend state_dir, and ask again"
    record = Record(Level.ERROR, "maintenance-not-persisted", {"on": event.on, "error": event.error})
    return state, (Reply(event.request, ok=False, text=text), record)


def _refuse(event: OperatorAsked, why: str) -> Reply:
    return Reply(event.request, ok=False, text=f"refused: {why}")


def _stop_active(state: RoleState, _event: StopRequested, now: Ns) -> Result:
    """Hand over if the peer is ready; a second request, or a peer that is not ready, ends it at once."""
    if state.handover is not None and state.handover.motive is not Motive.STOP:
        return replace(state, handover=replace(state.handover, motive=Motive.STOP)), ()
    if _not_ready(state) is None:
        return _begin_handover(state, now, Motive.STOP, None)
    return _leave(state, now, "stop")


def _stop_follower(state: RoleState, _event: StopRequested, now: Ns) -> Result:
    if state.handover is not None and state.handover.motive is not Motive.STOP:
        return replace(state, handover=replace(state.handover, motive=Motive.STOP)), ()
    return _leave(state, now, "stop")


def _stop_away(state: RoleState, _event: StopRequested, now: Ns) -> Result:
    return _leave(state, now, "stop")


def _leave(state: RoleState, now: Ns, reason: str) -> Result:
    """Say goodbye on every path, and on the links if we were ACTIVE."""
    answers = answer(state, ok=False, text="the daemon stops")
    state, outputs = enter(replace(state, stopped=True), Role.INIT, now, reason)
    return state, (*outputs, *answers, Stop())


def _follow_on(state: RoleState, _event: PeerFound | PeerChanged, _now: Ns) -> Result:
    return follow(state)


# ---- the table ---------------------------------------------------------------------------------------
_SLEEP: Final = Ignore("not started, or stopped: the world is remembered, nothing is decided")
_AWAY: Final = Ignore("not eligible: the world is remembered, nothing is decided")
_NOTED: Final = Ignore("remembered; it changes nothing for a node that reigns")
_TOLD: Final = Ignore("remembered, and told: whoever reigns decides")
_ONCE: Final = Impossible("Started is the first event, and comes once")
_OBEYED: Final = Ignore("SetRole returns once obeyed: the actions behind it relied on that already")
_LOW: Final = Impossible("virtual routers are Active only while this node is, and Backup is never outranked")
_TENDED: Final = Ignore("role_wires.tend() looks at it in every role")
_SAID: Final = Ignore("step() tells the peer whether this node is ready")
_PAST: Final = Ignore("its handover is over")
_SHUT: Final = Ignore("the fence is closed here; PeerChanged tells of the new term")
_EMPTY: Final = Ignore("the word is for a node in sync; an election decides")
_MUTE: Final = Ignore("it does not reign any more, and has nothing to say")
_DEAF: Final = Impossible("the sync session receives in JOINING and PASSIVE only")

# fmt: off
_ROWS: Final[tuple[tuple[type, Cell, Cell, Cell, Cell, Cell, Cell], ...]] = (
    # event             INIT        JOINING          PASSIVE          ACTIVE         MAINTENANCE  FAULT
    (Started,           _start,     _ONCE,           _ONCE,           _ONCE,         _ONCE,       _ONCE),
    (TimerFired,        _SLEEP,     _follower_timer, _follower_timer, _active_timer, _AWAY,       _AWAY),
    (StopRequested,     _stop_init, _stop_follower,  _stop_follower,  _stop_active,  _stop_away,  _stop_away),
    (OperatorAsked,     _ask_init,  _ask_follower,   _ask_follower,   _ask_active,   _ask_away,   _ask_away),
    (TermPersisted,     _SLEEP,     _on_disk,        _on_disk,        _on_disk,      _on_disk,    _on_disk),
    (TermPersistFailed, _SLEEP,     _fail,           _fail,           _unsaved,      _unsaved,    _unsaved),
    (MaintenanceKept,   _kept,      _kept,           _kept,           _kept,         _kept,        _kept),
    (MaintenanceNotKept, _not_kept, _not_kept,       _not_kept,       _not_kept,     _not_kept,    _not_kept),
    (RoleSet,           _OBEYED,    _OBEYED,         _OBEYED,         _OBEYED,       _OBEYED,     _OBEYED),
    (WiresSettled,      _TENDED,    _TENDED,         _TENDED,         _parked,        _TENDED,     _TENDED),
    (PassedOn,          _TENDED,    _TENDED,         _TENDED,         _TENDED,        _TENDED,     _TENDED),
    (PeerFound,         _SLEEP,     _meet,           _meet,           _compare,      _follow_on,  _follow_on),
    (PeerChanged,       _SLEEP,     _meet,           _meet,           _compare,      _follow_on,  _follow_on),
    (PeerLost,          _SLEEP,     _mourn,          _mourn,          _left_alone,   _AWAY,       _AWAY),
    (Awake,             _SLEEP,     _MUTE,           _MUTE,           _speak_up,     _AWAY,       _AWAY),
    (Fenced,            _SHUT,      _SHUT,           _SHUT,           _fenced,       _SHUT,       _SHUT),
    (Hung,              _hung,      _hung,           _hung,           _hung,         _hung,       _hung),
    (WireChanged,       _SLEEP,     _world_changed,  _world_changed,  _NOTED,        _AWAY,       _AWAY),
    (IsolationChanged,  _SLEEP,     _world_changed,  _world_changed,  _NOTED,        _AWAY,       _AWAY),
    (UsableChanged,     _SLEEP,     _TOLD,           _TOLD,           _usable,        _AWAY,       _AWAY),
    (vrrp.Outranked,    _LOW,       _LOW,            _LOW,            _outranked,    _LOW,        _LOW),
    (SyncedChanged,     _SLEEP,     _synced_joining, _SAID,           _NOTED,        _AWAY,       _AWAY),
    (Drained,           _PAST,      _settled,        _PAST,           _drained,      _PAST,       _PAST),
    (DrainFailed,       _PAST,      _drain_failed,   _PAST,           _drain_failed, _PAST,       _PAST),
    (GoReceived,        _DEAF,      _EMPTY,          _take_word,      _DEAF,         _DEAF,       _DEAF),
    (ImportBroken,      _DEAF,      _fail,           _fail,           _DEAF,         _DEAF,       _DEAF),
)
# fmt: on

TABLE: Final = TransitionTable(
    Role, [row[0] for row in _ROWS], {row[0]: dict(zip(Role, row[1:], strict=True)) for row in _ROWS}
)
