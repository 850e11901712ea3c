# SPDX-License-Identifier: Apache-2.0
"""What the role machine (``role.py``) knows, hears and says: its state, its inputs, its orders."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from flexha.core import sync_orders, track, vrrp
from flexha.core.actions import Action
from flexha.core.damp import Damp, DampLimits
from flexha.core.events import (
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
from flexha.core.sync_orders import DrainFailed, GoReceived, ImportBroken, PassedOn, SyncedChanged
from flexha.core.sync_sender import Drained
from flexha.units import EPOCH, NO_TERM, Ns, Term


class Wire(StrEnum):
    """What VRRP knows of all links together."""

    LISTENING = "listening"
    """Not heard long enough to know."""
    HELD = "held"
    """Some link has an Active Router that is not this pair's."""
    FREE = "free"
    """No router but this pair's claims any link."""


# ---- facts and orders between the parts of a node ----------------------------------------------------
@dataclass(frozen=True, slots=True)
class WireChanged:
    """Fact: all links together are in another state."""

    wire: Wire


@dataclass(frozen=True, slots=True)
class IsolationChanged:
    """Fact: every port of this node has lost its wire, or one has it again."""

    isolated: bool


@dataclass(frozen=True, slots=True)
class RaiseRouters:
    """Order: all virtual routers Active; announce again if they are."""


@dataclass(frozen=True, slots=True)
class LowerRouters:
    """Order: all virtual routers Backup."""


@dataclass(frozen=True, slots=True)
class StopRouters:
    """Order: all virtual routers down, with an advertisement of priority 0 if Active."""


Order = (
    RaiseRouters
    | LowerRouters
    | StopRouters
    | sync_orders.TakeRole
    | sync_orders.BeginDrain
    | sync_orders.Settle
    | sync_orders.SendGo
    | sync_orders.SendPassedOn
)
Output = Action | Order
Input = (
    Started
    | TimerFired
    | StopRequested
    | TermPersisted
    | TermPersistFailed
    | MaintenanceKept
    | MaintenanceNotKept
    | RoleSet
    | WiresSettled
    | OperatorAsked
    | PeerFound
    | PeerChanged
    | PeerLost
    | Awake
    | Hung
    | Fenced
    | WireChanged
    | IsolationChanged
    | track.UsableChanged
    | vrrp.Outranked
    | SyncedChanged
    | Drained
    | DrainFailed
    | GoReceived
    | PassedOn
    | ImportBroken
)


# ---- state -------------------------------------------------------------------------------------------
class Motive(StrEnum):
    """Why a reigning node gives its role to a ready peer."""

    OPERATOR = "operator"
    MAINTENANCE = "maintenance"
    STOP = "stop"
    PREEMPT = "preempt"
    TRACK = "track"


@dataclass(frozen=True, slots=True)
class Handover:
    """A handover under way.

    Draining while ACTIVE, then with parked wires, then fenced (role JOINING) until the peer has the word.
    """

    motive: Motive
    request: int | None
    deadline: Ns
    parked: bool = False
    fenced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleState:
    """Everything that a decision depends on."""

    index: int
    priority: int
    preempt: bool
    hold: Ns
    """Length of the hold before an election."""
    preempt_hold: Ns = Ns(0)
    """So long a peer must be preferred before ``preempt`` gives it the role."""
    limits: DampLimits = field(default_factory=DampLimits)
    damp: Damp = field(default_factory=Damp)
    preferred_since: Ns | None = None
    """Since when ``preempt`` has spoken for the peer without a break."""
    role: Role = Role.INIT
    since: Ns = EPOCH
    term: Term = NO_TERM
    heard: Term = NO_TERM
    """The highest term that the peer has ever told of, in any role."""
    floor: Term = NO_TERM
    """The highest own term that may be on disk; none up to it is ever taken (again)."""
    reserved: Term | None = None
    """A term of our own, on disk, in which nobody has reigned."""
    persisting: Term | None = None
    claim: PeerLost | str | None = None
    """The reason to reign, waiting for a term to be on disk."""
    claim_until: Ns = EPOCH
    """How long it waits."""
    disk_slow: bool = False
    """In FAULT because a claim waited in vain: over when the disk has the term."""
    peer: PeerInfo | None = None
    """What the peer says of itself; None unless it lives."""
    pair_reigned: bool = False
    """The peer was heard reigning in our time: then the links were ours, however short we have listened."""
    wire: Wire = Wire.LISTENING
    synced: bool = False
    isolated: bool = False
    ports: tuple[track.TrackedPort, ...] = ()
    usable: frozenset[str] = frozenset()
    """Which of our ports are usable; those of the peer are in what it says of itself."""
    hold_until: Ns | None = None
    peer_advert_at: Ns | None = None
    """ACTIVE: when an advert of the peer that outranks ours was heard first, while no heartbeat of it was."""
    handover: Handover | None = None
    leave_at: Ns | None = None
    """Stopping, the role handed over: leave when the peer reigns, or then."""
    wires: Wires = Wires.READ
    """What the workers do with the wires (``role_wires``)."""
    wires_until: Ns | None = None
    given: Term | None = None
    """The peer has the word to reign in this term: parked wires wait until it does."""
    heir: bool = False
    """The word came from a peer that passes on what waits there: announce nothing before it has."""
    stopped: bool = False
    out_of_service: bool = False
    """On disk: the next start ends in maintenance, as long as no operator says otherwise."""

    @property
    def links_are_free(self) -> bool:
        """Whether no router but the pair's can be Active on any link."""
        return self.wire is Wire.FREE or (self.wire is Wire.LISTENING and self.pair_reigned)

    @property
    def ready(self) -> bool:
        """Whether the peer may hand over to us: PASSIVE, its table is ours, a term for it is on disk, and
        nobody has told us to stop.
        """
        stays = self.leave_at is None
        return stays and self.role is Role.PASSIVE and self.synced and is_usable(self, self.reserved)


Result = tuple[RoleState, tuple[Output, ...]]


def next_deadline(state: RoleState) -> Ns | None:
    """The earliest timer that runs."""
    handover_at = state.handover.deadline if state.handover is not None else None
    claim_at = state.claim_until if state.claim is not None else None
    deadlines = (
        state.hold_until,
        handover_at,
        state.leave_at,
        state.wires_until,
        claim_at,
        state.damp.suspended_until,
    )
    return min((t for t in deadlines if t is not None), default=None)


def observe(state: RoleState, event: Input) -> RoleState:
    """Remember what the event says of the world, whatever the role does about it."""
    match event:
        case Started(maintenance=on) | MaintenanceKept(on=on):
            return replace(state, out_of_service=on)
        case PeerFound(info) | PeerChanged(_, info):
            reigned = state.pair_reigned or reigns(info)
            return replace(state, peer=info, heard=max(info.term, state.heard), pair_reigned=reigned)
        case PeerLost():
            return replace(state, peer=None, preferred_since=None)
        case WireChanged(wire):
            return replace(state, wire=wire)
        case IsolationChanged(isolated):
            return replace(state, isolated=isolated)
        case track.UsableChanged(ports, _):
            return replace(state, usable=ports)
        case SyncedChanged(synced):
            return replace(state, synced=synced)
        case _:
            return state


def is_usable(state: RoleState, term: Term | None) -> bool:
    """Whether a reign in ``term`` would be above all that was ever heard of."""
    return term is not None and term > max(state.term, state.heard)


def reigns(peer: PeerInfo | None) -> bool:
    """Whether a live peer is ACTIVE."""
    return peer is not None and peer.role is Role.ACTIVE
