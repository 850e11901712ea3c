# SPDX-License-Identifier: Apache-2.0
"""One simulated node: the real core, and a fake of everything that the shell and C do around it.

What outlives a crash is the disk (term and flag); everything else is a new ``Process``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, assert_never

from sim.fastpath import FakeFastpath, pack, unpack
from sim.net import KILLED, RESET, Connection
from sim.pulse import WAKE_MS, Pulse

from flexha.core import node, sync_wire
from flexha.core.actions import (
    AckFlows,
    Action,
    AdoptFlows,
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
    FlowsAdopted,
    FlowsImported,
    FlowsStranded,
    Hung,
    MaintenanceKept,
    MaintenanceNotKept,
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
from flexha.core.node import NodeConfig, NodeState
from flexha.core.sync_offer import OFFER_SESSIONS
from flexha.fastpath.records import Mark
from flexha.units import NS_PER_MS, NS_PER_S, Ns, Term, ms

if TYPE_CHECKING:
    from sim.world import World

DRAIN_MS = 4
"""How often the shell looks into the events ring."""


UNANSWERED = "a worker of this node does not answer"


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


class Process:
    """One life of the daemon, from its start to its crash or its ``Stop``."""

    def __init__(self, world: World, cfg: NodeConfig, disk: Disk, life: int) -> None:
        self.world = world
        self.cfg = cfg
        self.disk = disk
        self.index = cfg.index
        self.name = "ab"[cfg.index]
        self.alive = True
        self.ended_at = Ns(0)
        self.paused = False
        self.hung = False
        """The control plane is stuck; the pulse thread and the workers are not."""
        self.is_stuck = False
        """A worker is; the rest is not."""
        self.hung_at = Ns(0)
        """When either began, by the world's clock."""
        self.ready_since: Ns | None = None
        """It says that it may take over."""
        self.knows_stuck = False
        """Control has heard of it, and waits for that worker no more (``flexha/shell/driver.py``)."""
        self._is_deaf = False
        self.woke_at = Ns(0)
        """When it was stopped last, and went on; by the world's clock."""
        self.had_lease = False
        self.has_met = False
        """It has heard its peer since it began."""
        """It reigned, and heard the peer, when it was stopped."""
        self._latency = world.chance.of(f"{self.name}/{life}/latency")
        self.luck = world.chance.of(f"{self.name}/{life}/luck")
        self._disk_luck = world.chance.of(f"{self.name}/{life}/disk")
        self._wires_luck = world.chance.of(f"{self.name}/{life}/wires")
        self.incarnation = life << 40 | self.luck.getrandbits(40)
        self.state: NodeState = node.initial(cfg)
        self.fastpath = FakeFastpath(cfg.index + 1, self._wake, lambda: self.now)
        self.fastpath._next_id = self.incarnation & 0xFFFFFFFF
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
        self.ahead = NS_PER_S + self.luck.randrange(1 << 40)
        """Of the world's clock: those of two nodes have nothing in common."""
        self._started_at = world.clock.now
        self._drain_due = False
        self._waiting: list[Callable[[], None]] = []
        """What a stopped process does when it goes on."""
        self.fenced_frames: deque[tuple[str, bytes]] = deque()
        """Frames of the control plane that need the role, and wait for the lease."""
        self.pulse = Pulse(self)

    # ---- life ----------------------------------------------------------------------------------------
    @property
    def role(self) -> Role:
        return self.state.role.role

    @property
    def now(self) -> Ns:
        """This node's own clock."""
        return Ns(self.ahead + self.world.clock.now)

    def start(self) -> None:
        self.disk.free_at = Ns(0)  # what a dead process wrote is not waited for
        self.disk.waiting.clear()
        self.post(Started(self.disk.term, self.incarnation, self.disk.maintenance))
        self.pulse.start()
        self._dial()

    def crash(self, *, power: bool = False) -> None:
        """SIGKILL: nothing more happens here. The kernel tells whom it can, unless it is gone, too."""
        if power:
            self.world.line.forget(self)
        else:
            self.world.line.killed(self)
        self._end(tells=not power, killed=True)

    def _end(self, *, tells: bool, killed: bool) -> None:
        self.alive = False
        self.ended_at = self.world.clock.now
        self.pulse.close()
        if self.connection is not None and tells:
            self.connection.killed[self.index] = killed
            self.connection.close(self.index)

    @property
    def is_stalled(self) -> bool:
        return self.paused or self.hung

    def pause(self, *, is_deaf: bool = False) -> None:
        """SIGSTOP; or the whole machine sleeps, and hears nothing meanwhile."""
        self.paused, self._is_deaf = True, is_deaf
        self.pulse.stop()
        self.had_lease = self.fastpath.fence.is_active and self.has_met

    def hang(self) -> None:
        """The control plane does nothing; the threads of C do."""
        self.hung, self.hung_at = True, self.world.clock.now
        self.pulse.moves(control=False, worker=not self.is_stuck)

    def stick(self) -> None:
        """A worker does nothing."""
        self.is_stuck, self.hung_at = True, self.world.clock.now
        self.pulse.moves(control=not self.hung, worker=False)

    def skip(self, time: Ns) -> None:
        """This node's clock jumps: it has slept, in its own opinion."""
        self.pulse.stop()
        self.ahead += time
        if not self.paused:
            self.pulse.go_on()
        if self._timer_at is not None and self._timer_at <= self.now:
            self.later(0, partial(self._fire, self._timer_at))

    def go_on(self) -> None:
        """SIGCONT: what was due meanwhile happens now, in order."""
        self.world.disturbed_at = self.world.clock.now
        if not self.alive:
            return
        if self.paused:
            self.woke_at = self.world.clock.now
        self.paused = self.hung = self.is_stuck = self._is_deaf = False
        self.pulse.moves(control=True, worker=True)
        self.world.clock.after(self.luck.uniform(0, WAKE_MS) * NS_PER_MS, self._pulse_goes_on)
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            self.later(0, callback)

    def _pulse_goes_on(self) -> None:
        if self.alive and not self.paused:
            self.pulse.go_on()

    def later(self, delay_ms: float, callback: Callable[[], None]) -> None:
        """Call back unless the process is dead by then; a stopped process does it when it goes on."""

        def run() -> None:
            if self.paused or self.hung:
                self._waiting.append(callback)
            elif self.alive:
                callback()

        self.world.clock.after(delay_ms * NS_PER_MS, run)

    # ---- the shell's loop ----------------------------------------------------------------------------
    def post(self, event: Event) -> None:
        """An event for the core, after the shell's own latency; events keep their order."""
        self._inbox.append(event)
        self.later(self._latency.uniform(0.01, self.world.shell_latency_ms), self._handle)

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
        self.later((max(deadline, self.now) - self.now) / NS_PER_MS, lambda: self._fire(deadline))

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
                self.later(self._wires_luck.uniform(0.05, 5), lambda: self._settled(mode))
            case SetPulse(ready):
                self.world.judge.check_ready(self, ready=ready)
                self.ready_since = (self.ready_since or self.world.clock.now) if ready else None
                self.pulse.perform(action)
            case SetConduit():
                self.conduit = action
            case SetWays():
                self.ways = action
            case SetPorts():
                self.pulse.set_ports(action)
            case SendFrame(port, frame, fenced):
                if not fenced or self.is_open:
                    self._send_frame(port, frame, fenced=fenced)
                elif fastpath.fence.is_active:
                    self.fenced_frames.append((port, frame))
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
            case EndImport(seq, shards, since):
                if since is not None:
                    stranded = fastpath.stranded(shards, since)
                    for at in range(0, len(stranded), OFFER_SESSIONS):
                        some = stranded[at : at + OFFER_SESSIONS]
                        self.post(FlowsStranded(pack(some), len(some)))
                fastpath.end_import(shards)
                self._imported = seq
            case AdoptFlows(seq, sections):
                if not fastpath.fence.is_active:
                    self.post(FlowsAdopted(seq, error="fenced"))
                else:
                    told = unpack(sections)
                    taken = fastpath.adopt(told)
                    self.post(FlowsAdopted(seq, taken, len(told) - taken))
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
                self.world.line.forget(self)
                self._end(tells=True, killed=False)
            case _:
                assert_never(action)

    def _set_role(self, role: Role, term: Term) -> None:
        fence = self.fastpath.fence
        if term < fence.term:
            raise SimulationError(f"{self.name}: SetRole({role.name}, {term}) after term {fence.term}")
        if role is Role.ACTIVE:
            self.world.judge.check_reign(self, term)
        if self.pulse.set_role(role, term):  # else C has heard of a higher term, and control hears of it soon
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
            self.later(0, done)

        def due() -> None:
            if write in disk.waiting and not disk.is_stuck:  # else it was written when the disk was mended
                disk.waiting.remove(write)
                done()

        disk.waiting.append(write)
        self.later((disk.free_at - now) / NS_PER_MS, due)

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
    def on_pulse(self) -> None:
        """The pulse thread has looked around: frames that need the role wait for the lease, no longer."""
        if not self.fastpath.fence.is_active:
            self.fenced_frames.clear()
        while self.fenced_frames and self.fastpath.fence.lease_until > self.now:
            self._send_frame(*self.fenced_frames.popleft(), fenced=True)

    def _send_frame(self, port: str, frame: bytes, *, fenced: bool) -> None:
        if fenced:
            self.world.judge.check_forwarding(self)
        self.world.frame_sent(self, port, frame)

    def hear(self, path: int, payload: bytes) -> None:
        """A heartbeat of the peer has arrived; a stopped process finds it later."""
        if self.alive and not self._is_deaf:
            self.pulse.hear(path, payload)

    def line_ended(self, dead: Process) -> None:
        """The life line says that this process of the peer is no more."""
        if self.alive:
            self.pulse.died(dead.incarnation)

    def flooded(self) -> None:
        """A worker has a frame for the virtual MAC; PASSIVE wonders why (``csrc/worker.c``)."""
        if self.fastpath.fence.role is Role.PASSIVE:
            self.pulse.flood()

    def soon(self, callback: Callable[[], None]) -> None:
        """The loop is woken by the eventfd."""
        self.later(self._latency.uniform(0.01, self.world.shell_latency_ms), callback)

    def take(self, event: Event) -> None:
        """What the loop has fetched by itself is stepped at once."""
        if self.alive and isinstance(event, Hung):
            self.knows_stuck = event.is_stuck
        if self.alive:
            self._step(event)
        if self.alive and self.knows_stuck and self.connection is not None:
            self.connection.close(self.index)
            self.connection = None
            self.post(SyncClosed(UNANSWERED))
            self._redial()

    @property
    def is_open(self) -> bool:
        """Whether a worker would send a frame that needs the role, now."""
        fence = self.fastpath.fence
        if not fence.is_active or self.paused:
            return False
        if fence.lease_until <= self.now:
            self.pulse.look()
        return self.fastpath.fence.is_active and fence.lease_until > self.now

    # ---- drains, frames, the sync connection ---------------------------------------------------------
    def _wake(self) -> None:
        """Look into the events ring when it is time, if there is a reason to."""
        if self._drain_due or not self.fastpath.tracking:
            return
        self._drain_due = True
        passed = (self.world.clock.now - self._started_at) % ms(DRAIN_MS)
        self.later(DRAIN_MS - passed / NS_PER_MS, self._drain)

    def _drain(self) -> None:
        self._drain_due = False
        if not self.is_stuck:
            self.fastpath.work()
        for event in self.fastpath.drain(self.cfg.sync.batch_records):
            self._step(event)
        if (
            self.luck.random() < 0.5 and not self.is_stuck
        ):  # what a worker does between drains lies in its ring
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
        self.later(self._redial_ms, self._dial)

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
            if reason in (KILLED, RESET):
                self.pulse.mark(Mark.SYNC_CLOSED)
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
