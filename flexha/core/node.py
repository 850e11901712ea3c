# SPDX-License-Identifier: Apache-2.0
"""One node of the pair, whole: the only part of the core that shells and simulators call.

The loop that a caller runs (raft's ``Ready`` in miniature)::

    state = node.initial(cfg)
    state, actions = node.step(state, event, now)   # for each event, in order, one at a time
    for action in actions: perform(action)           # in order; outcomes come back as events
    sleep until min(next event, node.next_deadline(state)); then event = TimerFired()

Duties of the caller:

* the first event is ``Started``; ``now`` never goes backwards;
* ``SetRole`` has returned (all workers obey) before the next action of the tuple is performed;
* ``PersistTerm`` and ``PersistMaintenance`` may take their time (a thread), one after the other;
  ``TermPersisted`` and ``MaintenanceKept`` follow once they are on disk;
* ``SyncClosed`` of one connection comes before ``SyncConnected`` of the next. After ``CloseSync`` the core
  ignores what still arrives from that connection, its ``SyncClosed`` included.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeGuard

from flexha.core import (
    alarms,
    conduit,
    heartbeat,
    lend,
    role,
    role_state,
    shards,
    sync,
    sync_orders,
    track,
    vrrp,
)
from flexha.core.actions import (
    AckFlows,
    Action,
    Count,
    ImportFlows,
    Level,
    Record,
    SendFrame,
    SendSync,
    SetConduit,
    SetDrainCredit,
    SetPorts,
    SetWays,
    SetWires,
    Stop,
)
from flexha.core.agreed import Parts
from flexha.core.alarms import Alarms
from flexha.core.damp import DampLimits
from flexha.core.events import (
    DigestDrained,
    DigestsRead,
    Event,
    Fenced,
    FlowsAdopted,
    FlowsDrained,
    FlowsImported,
    FlowsStranded,
    HopChanged,
    Hung,
    LeaseAsked,
    MaintenanceKept,
    MaintenanceNotKept,
    OperatorAsked,
    PathDown,
    PathUp,
    PeerConfirmedDead,
    PeerDied,
    PeerHeard,
    PortChanged,
    Role,
    RoleSet,
    SayKeys,
    ShardsLost,
    Started,
    StopRequested,
    SuspicionRefuted,
    SweepBegun,
    SweepWalked,
    SyncClosed,
    SyncConnected,
    SyncReceived,
    TermPersisted,
    TermPersistFailed,
    TimerFired,
    VrrpFrameReceived,
    Wires,
    WiresSettled,
)
from flexha.core.evolve import replace
from flexha.core.heartbeat import Awake, Liveness, PeerChanged, PeerFound, PeerLost
from flexha.core.role_state import (
    IsolationChanged,
    LowerRouters,
    RaiseRouters,
    RoleState,
    StopRouters,
    Wire,
    WireChanged,
)
from flexha.core.sync import Session, SyncLimits
from flexha.core.sync_orders import DrainFailed, GoReceived, ImportBroken, PassedOn, SyncedChanged
from flexha.core.sync_sender import Drained
from flexha.core.track import TrackedPort, Tracks, UsableChanged
from flexha.core.vrrp import Router, VrrpPort
from flexha.core.vrrp_wire import ChecksumForm
from flexha.units import NS_PER_S, Ns, ms

__all__ = [
    "ChecksumForm",
    "DampLimits",
    "NodeConfig",
    "NodeState",
    "SyncLimits",
    "TrackedPort",
    "VrrpPort",
    "initial",
    "next_deadline",
    "status",
    "step",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What the core must know of the configuration; made by ``flexha.config.derive``."""

    pair: str
    """The pair's name: a sync peer of another pair is refused."""
    index: int
    """0 = node a, 1 = node b."""
    priority: int
    """VRRP priority, 1..255; it also decides between two nodes that start together."""
    ports: tuple[VrrpPort, ...]
    """Ports with a virtual router; all of them move together."""
    tracked: tuple[TrackedPort, ...]
    """The same ports, and what the loss of each means."""
    paths: tuple[str, ...] = ("xc", "lan", "wan")
    """Names of the heartbeat paths, as ``PathUp`` and ``PathDown`` use them."""
    has_peer: bool = True
    """False: a single node; only foreign VRRP routers stand beside it."""
    preempt: bool = False
    """A ready node of higher priority gets the role back, and VRRP's Preempt_Mode (RFC 9568 §6.1)."""
    preempt_hold_s: float = 60.0
    """So long that node must be ready before it gets the role back."""
    damping: DampLimits = field(default_factory=DampLimits)
    """How many moves for tracking and by ``preempt`` are too many."""
    interval_ms: int = 50
    """Heartbeat interval."""
    dead_after: int = 3
    """Intervals of silence that make a path silent."""
    start_hold_ms: int = 1000
    """How long a starting node listens for its peer before it may reign."""
    adver_int_cs: int = 100
    """Advertisement_Interval, centiseconds, 1..4095."""
    checksum: ChecksumForm = ChecksumForm.RFC5798
    """Checksum form of the adverts that we send; both are accepted."""
    vrrp_version: int = 3
    """2 or 3."""
    hears_foreign: bool = True
    """Whether a VRRP router that is not the flexha peer counts."""
    sync: SyncLimits = field(default_factory=SyncLimits)
    equal: Parts = ()
    """Digests of what both nodes must have in common for sync."""


@dataclass(frozen=True)
class NodeState:
    """Everything that a node knows. Opaque to callers: use ``status``."""

    cfg: NodeConfig
    role: RoleState
    liveness: Liveness
    session: Session
    routers: Mapping[str, Router]
    tracks: Tracks
    alarms: Alarms = field(default_factory=dict)
    loans: lend.Loans = lend.NONE
    ways: SetWays = conduit.HERE
    conduit: SetConduit = conduit.OFF
    """Both: what was said last."""
    others_due: Ns | None = None
    """When anything but sync wants to be woken: found anew where role or routers change."""


def initial(cfg: NodeConfig) -> NodeState:
    """A node before ``Started``: role INIT."""
    dead_time = ms(cfg.interval_ms * cfg.dead_after)
    return NodeState(
        cfg=cfg,
        role=RoleState(
            index=cfg.index,
            priority=cfg.priority,
            preempt=cfg.preempt,
            hold=max(ms(cfg.start_hold_ms), dead_time) if cfg.has_peer else Ns(0),
            preempt_hold=Ns(int(cfg.preempt_hold_s * NS_PER_S)),
            limits=cfg.damping,
            ports=cfg.tracked,
            usable=track.initial(cfg.tracked).usable,
        ),
        liveness=heartbeat.initial(cfg.paths if cfg.has_peer else ()),
        session=sync.initial(cfg.pair, cfg.index, cfg.sync, cfg.equal),
        routers={
            port.name: Router(
                port=port,
                priority=cfg.priority,
                adver_int_cs=cfg.adver_int_cs,
                preempt=cfg.preempt,
                form=cfg.checksum,
                version=cfg.vrrp_version,
                hears_foreign=cfg.hears_foreign,
            )
            for port in cfg.ports
        },
        tracks=track.initial(cfg.tracked),
    )


def step(state: NodeState, event: Event, now: Ns) -> tuple[NodeState, tuple[Action, ...]]:
    """One event in, the new state and the actions out. Never raises for what a peer or the wire sent.

    Records and counts come after all other actions of the tuple (``Stop`` comes last), so that no log line
    delays a takeover.
    """
    if isinstance(event, FlowsDrained | SyncReceived | FlowsImported):  # some thousand of them a second
        session, outputs = sync.step(state.session, event, now)
        if _are_plain(outputs):
            return replace(state, session=session), outputs
        turn = _Turn(replace(state, session=session), now)
        turn.go_on(outputs)
    else:
        turn = _Turn(state, now)
        turn.take(event)
    after = turn.state
    if (
        after.role is not state.role
        or after.routers is not state.routers
        or after.tracks is not state.tracks
        or after.alarms is not state.alarms
        or after.loans is not state.loans
    ):
        after = replace(after, others_due=_others_due(after))
    return after, turn.actions()


def next_deadline(state: NodeState) -> Ns | None:
    """When ``TimerFired`` is due at the latest; None: only events can change anything."""
    if state.role.stopped:
        return None
    others_due, sync_due = state.others_due, sync.next_deadline(state.session)
    if others_due is None or sync_due is None:
        return sync_due if others_due is None else others_due
    return min(others_due, sync_due)


def _others_due(state: NodeState) -> Ns | None:
    deadlines = [role_state.next_deadline(state.role), track.next_deadline(state.tracks)]
    deadlines += [vrrp.next_deadline(router) for router in state.routers.values()]
    deadlines += [alarms.next_deadline(state.alarms), lend.next_deadline(state.loans)]
    return min((t for t in deadlines if t is not None), default=None)


_PLAIN: Final = frozenset((SendSync, SetDrainCredit, AckFlows, ImportFlows))


def _are_plain(outputs: tuple[sync.Output, ...]) -> TypeGuard[tuple[Action, ...]]:
    """Actions in their order, of which nothing follows."""
    return all(type(output) in _PLAIN for output in outputs)


class _Turn:
    """One step under way. An order is carried out where it stands among the actions; a fact waits its turn.

    So the actions of one decision stay together, in order; what they bring about is decided afterwards.
    """

    def __init__(self, state: NodeState, now: Ns) -> None:
        self.state = state
        self._now = now
        self._looked_at = (state.routers, state.liveness)
        self._facts: deque[role_state.Input] = deque()
        self._urgent: list[Action] = []
        self._records: list[Action] = []
        self._stop: list[Action] = []

    def actions(self) -> tuple[Action, ...]:
        """What the step wants done, in order."""
        return (*self._urgent, *self._records, *self._stop)

    def take(self, event: Event) -> None:
        """Hand the event to the part that it is for, then decide until nothing new is found."""
        self._deliver(event)
        self._settle()
        self._look_at_alarms()

    def go_on(self, outputs: Iterable[sync.Output]) -> None:
        """Likewise, with what the sync session has made of an event."""
        self._emit(outputs)
        self._settle()

    def _settle(self) -> None:
        while True:
            self._look_at_wire()
            if self._facts:
                self._decide(self._facts.popleft())
            elif not self._look_at_loans():
                break

    def _obey_loans(self) -> None:
        """What the fast path does with packets between the nodes: before a port is announced, or silent."""
        loans = self.state.loans
        wanted = conduit.wanted(self.state.role.role, self.state.liveness, loans, self.state.conduit)
        if wanted != self.state.conduit:
            self._replace(conduit=wanted)
            passes_on = SetWires(Wires.PASS_ON)  # only then are the wires read, and the conduit must stand
            at = self._urgent.index(passes_on) if passes_on in self._urgent else len(self._urgent)
            self._urgent.insert(at, wanted)
        state = self.state
        ways = conduit.ways(state.role.role, state.tracks.links, state.tracks.usable, state.liveness, loans)
        if ways != state.ways:
            self._replace(ways=ways)
            self._urgent.append(ways)

    def _look_at_loans(self) -> bool:
        """Ports that are lent or borrowed; whether any are that were not, or the other way round."""
        state, was = self.state, self.state.loans
        held = [name for name, router in state.routers.items() if router.is_held(peer_decides=True)]
        situation = lend.Situation(
            role=state.role.role,
            term=state.role.term,
            hands_over=state.role.handover is not None,
            ports=state.cfg.tracked,
            usable=state.tracks.usable,
            held=held,
            liveness=state.liveness,
        )
        loans = lend.step(was, situation, self._now)
        if loans != was:
            self._replace(loans=loans)
        self._obey_loans()
        if loans.told == was.told:
            return False
        self._urgent.append(SetPorts(state.tracks.told, loans.told))
        reigns = state.role.role is Role.ACTIVE
        for port in sorted(loans.lent - was.lent):
            if reigns:
                self._loan("port-lent", port, vrrp.Lower())
        for port in sorted(was.lent - loans.lent):
            self._loan("port-returned", port, vrrp.Raise() if reigns else None)
        for port in sorted(loans.borrowed - was.borrowed):
            self._loan("port-borrowed", port, vrrp.Raise())
        for port in sorted(was.borrowed - loans.borrowed):
            if reigns:
                self._loan("port-kept", port, None)
            else:
                self._loan("port-given-back", port, vrrp.Lower())
        return True

    def _loan(self, what: str, port: str, order: vrrp.Raise | vrrp.Lower | None) -> None:
        fields = {"port": port, "term": self.state.role.term}
        self._records.append(Record(Level.WARNING, what, fields, history=True))
        if order is not None:
            self._router(port, order)

    # ---- events --------------------------------------------------------------------------------------
    def _deliver(self, event: Event) -> None:
        match event:
            case Started():
                self._replace(session=replace(self.state.session, incarnation=event.incarnation))
                self._routers(vrrp.Startup())
                self._facts.append(event)
            case TimerFired():
                self._routers(event)
                self._sync(event)
                self._tracks(event)
                self._facts.append(event)
            case (
                PathUp()
                | PathDown()
                | PeerHeard()
                | PeerConfirmedDead()
                | PeerDied()
                | SuspicionRefuted()
                | LeaseAsked()
            ):
                liveness, outputs = heartbeat.step(self.state.liveness, event, self._now)
                self._replace(liveness=liveness)
                self._emit(outputs)
            case PortChanged() | HopChanged():
                self._tracks(event)
            case VrrpFrameReceived():
                self._vrrp_frame(event)
            case (
                SyncReceived()
                | FlowsDrained()
                | FlowsImported()
                | FlowsStranded()
                | FlowsAdopted()
                | SyncConnected()
                | SyncClosed()
                | SayKeys()
                | ShardsLost()
                | SweepBegun()
                | SweepWalked()
                | DigestDrained()
                | DigestsRead()
            ):
                self._sync(event)
            case (
                StopRequested()
                | TermPersisted()
                | TermPersistFailed()
                | MaintenanceKept()
                | MaintenanceNotKept()
                | RoleSet()
                | WiresSettled()
                | OperatorAsked()
                | Fenced()
            ):
                self._facts.append(event)
            case Hung():
                self._facts.append(event)
                if event.is_stuck is not self.state.session.stuck:
                    self._sync(sync_orders.Stuck(event.is_stuck))

    def _tracks(self, event: track.Input) -> None:
        """Ports: a node with no wire at all takes nothing over."""
        tracks, outputs = track.step(self.state.tracks, event, self._now)
        if tracks is self.state.tracks:
            return
        self._replace(tracks=tracks)
        self._emit(outputs)
        isolated = tracks.is_isolated
        if isolated != self.state.role.isolated:
            self._facts.append(IsolationChanged(isolated))

    def _vrrp_frame(self, event: VrrpFrameReceived) -> None:
        router = self.state.routers.get(event.port)
        if router is None:
            self._records.append(Count("vrrp.unknown_port"))
            return
        router, outputs = vrrp.receive(router, event.frame, self._now)
        self._replace(routers={**self.state.routers, event.port: router})
        self._emit(outputs)

    # ---- facts and decisions -------------------------------------------------------------------------
    def _decide(self, fact: role_state.Input) -> None:
        """Let the role machine decide, and carry out what it says."""
        if isinstance(fact, PeerLost):
            routers = {name: router.without_peer() for name, router in self.state.routers.items()}
            self._replace(routers=routers)
            wire = self._wire()
            if wire is not self.state.role.wire:
                self._role(WireChanged(wire))
        self._role(fact)
        if isinstance(fact, PeerLost):
            self._sync(sync_orders.PeerGone(fact.reason))

    def _look_at_alarms(self) -> None:
        state = self.state
        found, records = alarms.step(
            state.alarms,
            state.liveness,
            state.loans,
            self._now,
            stuck=state.session.stuck,
            suspended=state.role.damp.suspended_until is not None,
        )
        if found is not self.state.alarms:
            self._replace(alarms=found)
        self._records += records

    def _look_at_wire(self) -> None:
        """The wire is what routers and liveness make of it; most steps, those of sync, change neither."""
        routers, liveness = self._looked_at
        if self.state.routers is routers and self.state.liveness is liveness:
            return
        self._looked_at = (self.state.routers, self.state.liveness)
        wire = self._wire()
        if wire is not self.state.role.wire:
            self._facts.append(WireChanged(wire))
            # Noted at once, lest it be found again before its turn; the fact is what gets it decided.
            self._replace(role=replace(self.state.role, wire=wire))

    def _wire(self) -> Wire:
        routers = self.state.routers.values()
        if any(router.is_held(peer_decides=self.state.liveness.alive) for router in routers):
            return Wire.HELD
        return Wire.FREE if all(router.has_listened for router in routers) else Wire.LISTENING

    # ---- the parts -----------------------------------------------------------------------------------
    def _replace(self, **parts: object) -> None:
        self.state = replace(self.state, **parts)  # type: ignore[arg-type]  # by name: replace() checks it

    def _role(self, fact: role_state.Input) -> None:
        state, outputs = role.step(self.state.role, fact, self._now)
        self._replace(role=state)
        self._emit(outputs)

    def _sync(self, event: sync.Input) -> None:
        session, outputs = sync.step(self.state.session, event, self._now)
        if session is not self.state.session:
            self._replace(session=session)
        self._emit(outputs)

    def _routers(self, event: vrrp.Input, but: frozenset[str] = frozenset()) -> None:
        for name in self.state.routers:
            if name not in but:
                self._router(name, event)

    def _router(self, name: str, event: vrrp.Input) -> None:
        router, outputs = vrrp.step(self.state.routers[name], event, self._now)
        self._replace(routers={**self.state.routers, name: router})
        self._emit(outputs)

    def _outranked(self, finding: vrrp.Outranked) -> None:
        """Of a node that reigns the role machine decides; a borrower yields to a foreign router there."""
        if self.state.role.role is Role.ACTIVE:
            self._facts.append(finding)
        elif not finding.is_peer:
            self._router(finding.port, vrrp.Lower())

    def _emit(
        self,
        outputs: Iterable[role_state.Output | sync.Output | heartbeat.Output | vrrp.Output | track.Output],
    ) -> None:
        for output in outputs:
            match output:
                case RaiseRouters():
                    self._routers(vrrp.Raise(), but=self.state.loans.lent)
                case LowerRouters():
                    self._routers(vrrp.Lower())
                case StopRouters():
                    self._routers(vrrp.Shutdown())
                case (
                    sync_orders.TakeRole()
                    | sync_orders.BeginDrain()
                    | sync_orders.Settle()
                    | sync_orders.SendGo()
                    | sync_orders.SendPassedOn()
                ):
                    self._sync(output)
                case vrrp.Outranked():
                    self._outranked(output)
                case vrrp.ActiveDown():
                    pass  # the links together are judged by _look_at_wire
                case UsableChanged(_, told):
                    self._urgent.append(SetPorts(told, self.state.loans.told))
                    self._facts.append(output)
                case (
                    PeerFound()
                    | PeerChanged()
                    | PeerLost()
                    | Awake()
                    | SyncedChanged()
                    | Drained()
                    | DrainFailed()
                    | GoReceived()
                    | PassedOn()
                    | ImportBroken()
                ):
                    self._facts.append(output)
                case Record() | Count():
                    self._records.append(output)
                case Stop():
                    self._stop.append(output)
                case _:
                    self._urgent.append(self._for_peer(output))

    def _for_peer(self, action: Action) -> Action:
        """What a borrower announces is for the peer, which has the role."""
        if isinstance(action, SendFrame) and action.port in self.state.loans.borrowed:
            return replace(action, fenced=False)
        return action


# ---- status ------------------------------------------------------------------------------------------
def status(state: NodeState, now: Ns) -> Mapping[str, object]:
    """The core's share of ``flexhactl status``, ready for JSON.

    Keys: role, term, since_s, ready, out_of_service, alarms, wire, handover, incarnation, peer, tracking,
    damping, lending, conduit, vrrp, sync.
    """
    return {
        "role": state.role.role.name,
        "term": state.role.term,
        "since_s": round((now - state.role.since) / NS_PER_S, 3),
        "ready": state.role.ready,
        "out_of_service": state.role.out_of_service,
        "alarms": alarms.status(state.alarms, now),
        "wire": state.role.wire.value,
        "handover": state.role.handover.motive.value if state.role.handover is not None else None,
        "incarnation": state.session.incarnation,
        "peer": _peer_status(state.liveness, now),
        "tracking": _tracking_status(state),
        "damping": _damping_status(state.role, now),
        "lending": {"lent": sorted(state.loans.lent), "borrowed": sorted(state.loans.borrowed)},
        "conduit": {
            "on": state.conduit.on,
            "term": state.conduit.term,
            "by_peer": sorted(state.ways.by_peer),
        },
        "vrrp": [_router_status(router) for router in state.routers.values()],
        "sync": _sync_status(state.session, now),
    }


def _peer_status(liveness: Liveness, now: Ns) -> Mapping[str, object]:
    info = liveness.info
    return {
        "alive": liveness.alive,
        "role": info.role.name if info is not None else None,
        "term": info.term if info is not None else None,
        "ready": info.ready if info is not None else None,
        "incarnation": info.incarnation if info is not None else None,
        "priority": info.priority if info is not None else None,
        "paths": {
            name: {"alive": path.alive, "since_s": round((now - path.since) / NS_PER_S, 3)}
            for name, path in liveness.paths.items()
        },
    }


def _tracking_status(state: NodeState) -> Mapping[str, object]:
    """Scores, and which ports are usable on either node; None: the peer is not heard."""
    tracks, peer = state.tracks, state.role.peer
    theirs = None if peer is None else peer.ports_up
    return {
        "score": track.score(tracks.ports, tracks.usable),
        "peer_score": None if theirs is None else track.score(tracks.ports, theirs),
        "ports": {
            name: {
                "wire": link.wire,
                "next_hop": link.hop.value,
                "usable": link.usable,
                "peer_usable": None if theirs is None else name in theirs,
            }
            for name, link in tracks.links.items()
        },
    }


def _damping_status(state: RoleState, now: Ns) -> Mapping[str, object]:
    """Moves that count, and for how long there will be none."""
    until = state.damp.suspended_until
    return {
        "moves": state.damp.recent(state.limits, now),
        "moves_max": state.limits.moves,
        "suspended_s": None if until is None else round((until - now) / NS_PER_S, 3),
    }


def _router_status(router: Router) -> Mapping[str, object]:
    active = (
        router.port.address if router.state is vrrp.State.ACTIVE else router.active and router.active.source
    )
    return {
        "port": router.port.name,
        "vrid": router.port.vrid,
        "state": router.state.value,
        "priority": router.priority,
        "vips": [str(vip) for vip in router.port.vips],
        "vmac": router.port.vmac.hex(":"),
        "adver_int_cs": router.adver_int_cs,
        "active_adver_int_cs": router.active_adver_int_cs,
        "active_router": str(active) if active is not None else None,
    }


def _sync_status(session: Session, now: Ns) -> Mapping[str, object]:
    sender, receiver = session.sender, session.receiver
    reigns = sender.stream is not None
    stream = sender.stream if reigns else receiver.stream
    return {
        "connected": session.mode is not sync.Mode.DOWN,
        "state": session.mode.value,
        "differs": list(session.differs),
        "stream": None if stream is None else f"{stream.incarnation:x}/{stream.term}",
        "sent_seq": sender.sent_seq,
        "acked_seq": sender.acked_seq,
        "received_seq": receiver.imported_seq,
        "pending": len(sender.window),
        "pending_bytes": sender.window_bytes,
        "bulk": {
            "in_progress": sender.bulk_in_progress if reigns else receiver.bulk != shards.NONE,
            "sent": sender.bulks,
            "synced": receiver.synced,
        },
        "sweep": {
            "shards": (sender.walking | sender.due if reigns else receiver.sweeping).bit_count(),
            "repairs": sender.repairs,
        },
        "audit": _audit_status(session, now),
        "lost_shards": sender.lost.bit_count(),
        "committing": sender.committing,
        "bytes_sent": session.bytes_sent,
        "bytes_received": session.bytes_received,
        "records_sent": sender.records_sent,
        "records_received": receiver.records_received,
    }


def _audit_status(session: Session, now: Ns) -> Mapping[str, object]:
    """What both tables were found to have in common; ``agreed_at`` in seconds of the machine's uptime."""
    audit, receiver = session.sender.audit, session.receiver
    reigns = session.sender.stream is not None
    agreed_at = audit.agreed_at if reigns else receiver.agreed_at
    return {
        "in_sync": audit.in_sync if reigns else receiver.synced,
        "agreed_at": None if agreed_at is None else round(agreed_at / NS_PER_S, 3),
        "age_s": None if agreed_at is None else round((now - agreed_at) / NS_PER_S, 3),
        "differing": shards.listed(audit.differing if reigns else receiver.differing),
        "repaired": audit.repaired,
        "unrepaired": shards.listed(audit.unrepaired),
    }
