# SPDX-License-Identifier: Apache-2.0
"""One simulated node: the real core, and a fake of everything that the shell and C do around it.

What outlives a crash is the disk (term and flag); everything else is a new ``Process``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, assert_never

from sim.fastpath import FakeFastpath, unpack
from sim.net import PATHS, Connection

from flexha.core import heartbeat_wire, node, sync_wire
from flexha.core.actions import (
    AckFlows,
    Action,
    AskDigest,
    BeginImport,
    CloseSync,
    CompareDigests,
    Count,
    EndImport,
    HearKeys,
    ImportFlows,
    PersistMaintenance,
    PersistTerm,
    Record,
    Reply,
    SendFrame,
    SendSync,
    SetCommit,
    SetConduit,
    SetDrainCredit,
    SetPorts,
    SetPulse,
    SetRole,
    SetWays,
    SetWires,
    StartSweep,
    Stop,
    TrackChanges,
    WithholdFlows,
)
from flexha.core.events import (
    DigestsRead,
    Event,
    Fenced,
    FlowsImported,
    MaintenanceKept,
    MaintenanceNotKept,
    PathDown,
    PathUp,
    PeerHeard,
    PortChanged,
    Role,
    RoleSet,
    Started,
    StopRequested,
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
from flexha.core.heartbeat_wire import Heartbeat
from flexha.core.node import NodeConfig, NodeState
from flexha.units import NS_PER_MS, Ns, Term, ms

if TYPE_CHECKING:
    from sim.world import World

DRAIN_MS = 4
"""How often the shell looks into the events ring."""


LENT = {"lan": heartbeat_wire.FLAG_LAN_LENT, "wan": heartbeat_wire.FLAG_WAN_LENT}
SIDES = {"lan": heartbeat_wire.FLAG_LAN_UP, "wan": heartbeat_wire.FLAG_WAN_UP}
"""How heartbeats tell the usable ports."""


class SimulationError(AssertionError):
    """An invariant does not hold."""


@dataclass
class Disk:
    """The files of the state directory."""

    term: Term = Term(0)
    maintenance: bool = False
    takes_ms: float = 30.0
    """A write takes no longer."""
    is_stuck: bool = False
    """Writes wait until it is mended."""
    fails: bool = False
    free_at: Ns = Ns(0)
    """When all is written that was asked for."""
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    """What is not written yet, in order."""

    @property
    def is_good(self) -> bool:
        return not (self.is_stuck or self.fails or self.takes_ms > Disk.takes_ms)

    def mend(self) -> None:
        """It is as new; what was written to it is written now."""
        self.takes_ms, self.is_stuck, self.fails = Disk.takes_ms, False, False
        self.free_at = Ns(0)
        while self.waiting:
            self.waiting.popleft()()


@dataclass
class PathPulse:
    """One path, as the C pulse thread sees it."""

    sent_seq: int = 0
    heard_seq: int = 0
    heard_at: Ns = Ns(0)
    alive: bool = False


@dataclass
class Pulse:
    """The C pulse thread: sends, listens, times silence, fences."""

    paths: dict[str, PathPulse] = field(default_factory=lambda: {path: PathPulse() for path in PATHS})
    ready: bool = False
    bye: bool = False
    ports_up: frozenset[str] = frozenset(SIDES)
    lent: frozenset[str] = frozenset()
    peer: Heartbeat | None = None
    reported: object = None
    retired: int = 0


class Process:
    """One life of the daemon, from its start to its crash or its ``Stop``."""

    def __init__(self, world: World, cfg: NodeConfig, disk: Disk, life: int) -> None:
        self.world = world
        self.cfg = cfg
        self.disk = disk
        self.index = cfg.index
        self.name = "ab"[cfg.index]
        self.alive = True
        self.paused = False
        self.hung = False
        """The control plane is stuck; the pulse thread and the workers are not."""
        self._is_deaf = False
        self._latency = world.chance.of(f"{self.name}/{life}/latency")
        self._luck = world.chance.of(f"{self.name}/{life}/luck")
        self._disk_luck = world.chance.of(f"{self.name}/{life}/disk")
        self._wires_luck = world.chance.of(f"{self.name}/{life}/wires")
        self.incarnation = self._luck.getrandbits(64)
        self.state: NodeState = node.initial(cfg)
        self.fastpath = FakeFastpath(cfg.index + 1, self._wake)
        self.fastpath._next_id = self.incarnation & 0xFFFFFFFF
        self.pulse = Pulse()
        self.connection: Connection | None = None
        self.counters: dict[str, int] = {}
        self.history: list[tuple[Ns, str, Mapping[str, object]]] = []
        self.requests: dict[int, Ns] = {}
        self.replies: dict[int, Reply] = {}
        self._inbox: deque[Event] = deque()
        self._timer_at: Ns | None = None
        self._imported: int | None = None
        self._records = 0
        self._redial_ms = 50.0
        self._begun = self._luck.randrange(1 << 40)  # the clocks of two nodes have nothing in common
        self._started_at = world.clock.now
        self._drain_due = False
        self._waiting: list[Callable[[], None]] = []
        """What a stopped process does when it goes on."""

    # ---- life ----------------------------------------------------------------------------------------
    @property
    def role(self) -> Role:
        return self.state.role.role

    @property
    def now(self) -> Ns:
        """This node's own clock."""
        return Ns(self._begun + self.world.clock.now)

    def start(self) -> None:
        self.disk.free_at = Ns(0)  # what a dead process wrote is not waited for
        self.disk.waiting.clear()
        self.post(Started(self.disk.term, self.incarnation, self.disk.maintenance))
        self._beat()
        self._dial()

    def crash(self) -> None:
        """SIGKILL: nothing more happens here, and nobody is told."""
        self.alive = False
        if self.connection is not None:
            self.connection.close(self.index)

    @property
    def is_stalled(self) -> bool:
        return self.paused or self.hung

    def pause(self, *, is_deaf: bool = False) -> None:
        """SIGSTOP; or the whole machine sleeps, and hears nothing meanwhile."""
        self.paused, self._is_deaf = True, is_deaf

    def hang(self) -> None:
        """The control plane does nothing; the threads of C do."""
        self.hung = True

    def skip(self, time: Ns) -> None:
        """This node's clock jumps: it has slept, in its own opinion."""
        self._begun += time
        if self._timer_at is not None and self._timer_at <= self.now:
            self._later(0, partial(self._fire, self._timer_at))

    def go_on(self) -> None:
        """SIGCONT: what was due meanwhile happens now, in order."""
        self.world.disturbed_at = self.world.clock.now
        self.paused = self.hung = self._is_deaf = False
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            self._later(0, callback)

    def _later(self, delay_ms: float, callback: Callable[[], None], *, by_pulse: bool = False) -> None:
        """Call back unless the process is dead by then; a stopped process does it when it goes on."""

        def run() -> None:
            if self.paused or (self.hung and not by_pulse):
                self._waiting.append(callback)
            elif self.alive:
                callback()

        self.world.clock.after(delay_ms * NS_PER_MS, run)

    # ---- the shell's loop ----------------------------------------------------------------------------
    def post(self, event: Event) -> None:
        """An event for the core, after the shell's own latency; events keep their order."""
        self._inbox.append(event)
        self._later(self._latency.uniform(0.01, self.world.shell_latency_ms), self._handle)

    def _handle(self) -> None:
        if self._inbox:
            self._step(self._inbox.popleft())

    def _step(self, event: Event) -> None:
        self.state, actions = node.step(self.state, event, self.now)
        self.world.trace(self, event, actions)
        for action in actions:
            self._perform(action)
            if not self.alive:
                return
        if self._imported is not None:
            self.post(FlowsImported(self._imported, self._records))
            self._imported, self._records = None, 0
        deadline = node.next_deadline(self.state)
        if isinstance(event, TimerFired) and deadline is not None and deadline <= self.now:
            raise SimulationError(f"{self.name}: TimerFired left a deadline in the past: a busy loop")
        self._arm(deadline)
        self.world.judge.check(self, event)

    def _arm(self, deadline: Ns | None) -> None:
        if deadline is None or (self._timer_at is not None and self._timer_at <= deadline):
            return
        self._timer_at = deadline
        self._later((max(deadline, self.now) - self.now) / NS_PER_MS, lambda: self._fire(deadline))

    def _fire(self, deadline: Ns) -> None:
        if self._timer_at == deadline:
            self._timer_at = None
            self._step(TimerFired())

    # ---- actions -------------------------------------------------------------------------------------
    def _perform(self, action: Action) -> None:
        fastpath = self.fastpath
        match action:
            case SetRole(role, term):
                self._set_role(role, term)
            case PersistTerm(term):
                self._write(lambda: self._persisted(term))
            case PersistMaintenance(request, on):
                self._write(lambda: self._flag_persisted(request, on=on))
            case SetWires(mode):
                fastpath.wires = mode
                self._later(self._wires_luck.uniform(0.05, 5), lambda: self._settled(mode))
            case SetPulse(ready, bye, burst):
                self.pulse.ready, self.pulse.bye = ready, bye
                self.world.judge.check_ready(self, ready=ready)
                if burst:
                    self._send_heartbeats()
            case SetConduit():
                self.conduit = action
            case SetWays():
                self.ways = action
            case SetPorts(up, lent):
                self.pulse.ports_up, self.pulse.lent = up, lent
                self._send_heartbeats()
            case SendFrame(port, frame, fenced):
                if not fenced or fastpath.fence.is_active:
                    self.world.frame_sent(self, port, frame)
            case SendSync(data):
                self.world.judge.sync_sent(self, data)
                if self.connection is not None:
                    self.connection.send(self.index, data)
            case CloseSync():
                if self.connection is not None:
                    self.connection.close(self.index)
                    self.connection = None
                    self._redial()
            case TrackChanges(on):
                fastpath.track(on=on)
            case StartSweep(shards):
                fastpath.start_sweep(shards)
            case AskDigest():
                fastpath.ask_digest()
            case SetDrainCredit(records):
                fastpath.grant(records)
            case SetCommit(on):
                fastpath.commit = on
            case BeginImport(seq, shards, _):
                fastpath.begin_import(shards)
                self._imported = seq
            case ImportFlows(seq, sections):
                told = unpack(sections)
                fastpath.import_flows(told)
                self._records += len(told)
                self._imported = seq
            case EndImport(seq, shards):
                fastpath.end_import(shards)
                self._imported = seq
            case CompareDigests(seq, shards, sums, counts):
                self.post(DigestsRead(seq, shards, fastpath.compare(shards, sums, counts)))
            case AckFlows(marks):
                fastpath.acknowledge(marks)
            case WithholdFlows():
                raise SimulationError(f"{self.name}: tables here have room for everything")
            case Reply(request):
                if request in self.replies:
                    raise SimulationError(f"{self.name}: two replies to request {request}")
                self.replies[request] = action
            case Record(_, event, fields, history):
                if history:
                    self.history.append((self.world.clock.now, event, fields))
            case Count(name, n):
                self.counters[name] = self.counters.get(name, 0) + n
            case HearKeys():
                raise SimulationError(f"{self.name}: nobody changes keys here")
            case Stop():
                self.crash()
            case _:
                assert_never(action)

    def _set_role(self, role: Role, term: Term) -> None:
        fence = self.fastpath.fence
        if term < fence.term:
            raise SimulationError(f"{self.name}: SetRole({role.name}, {term}) after term {fence.term}")
        if role is Role.ACTIVE:
            self.world.judge.check_reign(self, term)
        fence.role, fence.term = role, term
        if role is Role.ACTIVE and fence.heard > term:  # the pulse thread heard a higher term meanwhile
            fence.role = Role.PASSIVE
            self.post(Fenced(Term(fence.heard)))
        self.post(RoleSet(role, term))

    def _settled(self, mode: Wires) -> None:
        if self.fastpath.wires is mode:
            self.post(WiresSettled(mode))

    def _write(self, done: Callable[[], None]) -> None:
        """The disk takes its time, and keeps the order."""
        disk, now = self.disk, self.world.clock.now
        takes_ms = self._disk_luck.uniform(0.5, disk.takes_ms)
        disk.free_at = Ns(max(disk.free_at, now) + ms(takes_ms))

        def write() -> None:
            self._later(0, done)

        def due() -> None:
            if write in disk.waiting and not disk.is_stuck:  # else it was written when the disk was mended
                disk.waiting.remove(write)
                done()

        disk.waiting.append(write)
        self._later((disk.free_at - now) / NS_PER_MS, due)

    def _flag_persisted(self, request: int, *, on: bool) -> None:
        if self.disk.fails:
            self.post(MaintenanceNotKept(request, on, "no space"))
            return
        self.disk.maintenance = on
        self.post(MaintenanceKept(request, on))

    def _persisted(self, term: Term) -> None:
        if self.disk.fails:
            self.post(TermPersistFailed(term, "no space"))
            return
        self.disk.term = max(self.disk.term, term)
        self.post(TermPersisted(term))

    # ---- the pulse thread ----------------------------------------------------------------------------
    def _beat(self) -> None:
        self._send_heartbeats()
        for path, pulse in self.pulse.paths.items():
            silence = self.now - pulse.heard_at
            if pulse.alive and silence > ms(self.cfg.interval_ms * self.cfg.dead_after):
                pulse.alive = False
                self.post(PathDown(path))
        self._later(self.cfg.interval_ms * self._luck.uniform(0.98, 1.02), self._beat, by_pulse=True)

    def _send_heartbeats(self) -> None:
        for path, pulse in self.pulse.paths.items():
            pulse.sent_seq += 1
            beat = Heartbeat(
                node=self.index,
                role=self.fastpath.fence.role,
                flags=heartbeat_wire.FLAG_READY * self.pulse.ready
                | heartbeat_wire.FLAG_BYE * self.pulse.bye
                | sum(SIDES[port] for port in self.pulse.ports_up)
                | sum(LENT[port] for port in self.pulse.lent),
                pair_id=0,
                interval_ms=self.cfg.interval_ms,
                incarnation=self.incarnation,
                term=self.fastpath.fence.term,
                seq=pulse.sent_seq,
                priority=self.cfg.priority,
                control_beat=0,
                t_ns=self.now,
            )
            self.world.heartbeat_sent(self, path, beat)

    def hear(self, path: str, beat: Heartbeat) -> None:
        """A heartbeat of the peer has arrived on ``path``; a stopped process finds it later."""
        if not self.alive or self._is_deaf:
            return
        if self.paused:
            self._waiting.append(lambda: self.hear(path, beat))
            return
        known = self.pulse.peer
        if beat.incarnation == self.pulse.retired:
            return
        if known is None or beat.incarnation != known.incarnation:
            self.pulse.retired = known.incarnation if known is not None else 0
            for other in self.pulse.paths.values():
                other.heard_seq = 0
            known = None
        pulse = self.pulse.paths[path]
        if beat.seq <= pulse.heard_seq:
            return
        if not any(p.alive for p in self.pulse.paths.values()):
            self.pulse.reported = None
        pulse.heard_seq, pulse.heard_at = beat.seq, self.now
        if not pulse.alive:
            pulse.alive = True
            self.post(PathUp(path))
        if known is None or beat.t_ns >= known.t_ns:
            self.pulse.peer = beat
            ports_up = frozenset(port for port, flag in SIDES.items() if beat.flags & flag)
            lent = frozenset(port for port, flag in LENT.items() if beat.flags & flag)
            info = replace(beat.peer_info, ports_up=ports_up, lent=lent)
            if info != self.pulse.reported:
                self.pulse.reported = info
                self.post(PeerHeard(info))
        fence = self.fastpath.fence
        if beat.role is Role.ACTIVE:
            fence.heard = max(fence.heard, beat.term)
            if fence.is_active and beat.term > fence.term:
                fence.role = Role.PASSIVE
                self.post(Fenced(beat.term))

    # ---- drains, frames, the sync connection ---------------------------------------------------------
    def _wake(self) -> None:
        """Look into the events ring when it is time, if there is a reason to."""
        if self._drain_due or not self.fastpath.tracking:
            return
        self._drain_due = True
        passed = (self.world.clock.now - self._started_at) % ms(DRAIN_MS)
        self._later(DRAIN_MS - passed / NS_PER_MS, self._drain)

    def _drain(self) -> None:
        self._drain_due = False
        self.fastpath.work()
        for event in self.fastpath.drain(self.cfg.sync.batch_records):
            self._step(event)
        if self._luck.random() < 0.5:  # what a worker does between drains lies in its ring
            self.fastpath.work()
        if self.fastpath.is_busy:
            self._wake()

    def receive_frame(self, port: str, frame: bytes) -> None:
        if self.alive and not self.is_stalled:
            self.post(VrrpFrameReceived(port, frame))

    def set_port(self, port: str, *, up: bool) -> None:
        """The port loses its wire, or gets it back."""
        self.post(PortChanged(port, up))

    def _dial(self) -> None:
        """Node b connects; it tries again, more and more slowly, until it succeeds."""
        if self.index != 1 or self.connection is not None:
            return
        if self.world.connect(self):
            self._redial_ms = 50.0
        else:
            self._redial_ms = min(500.0, self._redial_ms * 2)
            self._redial()

    def _redial(self) -> None:
        self._later(self._redial_ms, self._dial)

    def connected(self, connection: Connection) -> None:
        if self.connection is not None:  # the newest wins
            self.connection.close(self.index)
            self.post(SyncClosed("replaced"))
        self.connection = connection
        self.post(SyncConnected())

    def sync_data(self, connection: Connection, data: bytes) -> None:
        if self.alive and self.connection is connection:
            self.post(SyncReceived(data))

    def sync_closed(self, connection: Connection, reason: str) -> None:
        if self.alive and self.connection is connection:
            self.connection = None
            self.post(SyncClosed(reason))
            self._redial()

    # ---- operator ------------------------------------------------------------------------------------
    def stop(self) -> None:
        """SIGTERM."""
        self.post(StopRequested())

    def sync_messages(self, data: bytes) -> tuple[sync_wire.Message, ...]:
        """What is in bytes that the core has sent (always whole frames)."""
        _, payloads = sync_wire.FrameBuffer().feed(data, 1 << 30)
        return tuple(sync_wire.decode(payload) for payload in payloads)
