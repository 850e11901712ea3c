# SPDX-License-Identifier: Apache-2.0
"""The loop around the pure core: event → ``node.step`` → actions, performed in order.

The first event is ``Started``, given to ``begin``; what is posted before waits. ``post`` steps at once unless
a step is under way, then the event waits its turn: an event that comes out of
performing an action (``RoleSet``, ``FlowsImported``) is seen after all actions of its step. So a heartbeat's
silence reaches the core in the same turn of the loop in which the eventfd woke us.

Between two steps what a busy stream is made of goes the short way (``flexha.core.sync_short``): before a
step, or whatever else wants to know where the stream stands, the lane is held, and what it did becomes part
of the state.

An exception from the core or from an action is a bug of ours: the node must not go on with half of a
transition done, so the daemon fences itself and ends (``on_fatal``); the peer takes over.

A worker that hangs is none: the pulse thread has seen it, or will, and gives the role to a peer that may
take over. What the worker has not obeyed is said again until it does (``_owed``), and the sync connection
ends: with half of the table there is no sync, and the next connection finds out what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, assert_never

from flexha.core import node, sync_short
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
from flexha.core.conduit import XC
from flexha.core.events import (
    Event,
    MaintenanceKept,
    MaintenanceNotKept,
    PathUp,
    Role,
    RoleSet,
    Started,
    SyncClosed,
    TermPersisted,
    TermPersistFailed,
    TimerFired,
)
from flexha.core.evolve import replace
from flexha.core.node import NodeConfig
from flexha.core.sync_sender import Sent
from flexha.core.sync_short import Progress, Way
from flexha.fastpath import Fastpath, FastpathError
from flexha.fastpath.channel import LaneMode, LaneState, SentBatch
from flexha.shell import clock, log
from flexha.shell.counters import Counters
from flexha.shell.flags import MaintenanceFlag
from flexha.shell.flows_io import FlowsIo
from flexha.shell.heartbeat_io import HeartbeatIo
from flexha.shell.history import History
from flexha.shell.rotation import Rotation
from flexha.shell.sync_io import SyncIo
from flexha.shell.terms import TermFile
from flexha.shell.vrrp_io import VrrpIo
from flexha.shell.wires_io import WiresIo
from flexha.units import NS_PER_S, Ns, Term

OWED_DELAY_S: Final = 0.5
UNANSWERED: Final = "a worker of this node does not answer"
_LASTING: Final = (TrackChanges, SetCommit)
"""Not bound to a connection."""


@dataclass(slots=True)
class Hands:
    """What actions are performed with. ``sync`` is None without a cross-connect."""

    fastpath: Fastpath
    terms: TermFile
    maintenance: MaintenanceFlag
    wires: WiresIo
    heartbeat: HeartbeatIo
    vrrp: VrrpIo
    flows: FlowsIo
    sync: SyncIo | None
    history: History
    counters: Counters
    reply: Callable[[Reply], None]
    stop: Callable[[], None]
    role_set: Callable[[Role, Term], None]
    ways_set: Callable[[frozenset[str]], None]
    conduit_set: Callable[[SetConduit], None]
    rotation: Rotation | None = None


class Driver:
    """Runs one node's core. ``hands`` is set before the first event."""

    hands: Hands

    def __init__(self, config: NodeConfig, on_fatal: Callable[[BaseException], None]) -> None:
        self._state = node.initial(config)
        self._held = False
        """The lane rests, and what it did is part of the state."""
        self._busy = 0
        """So many want it to go on resting."""
        self._way = Way.LONG
        """What the lane does, or did until it was held."""
        self._window: tuple[Sent, ...] = ()
        """What the lane knows of the unacknowledged batches."""
        self._on_fatal = on_fatal
        self._queue: deque[Event] = deque()
        self._stepping = True  # nothing is stepped before begin()
        self._failed = False
        self._gave_up = False
        self._obeyed_at = Ns(0)
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = Ns(0)
        self._owed: dict[type[Action], Action] = {}
        """What a worker has not obeyed, and must some day: the last word of each kind."""
        self._owed_timer: asyncio.TimerHandle | None = None
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flexha-disk")

    def close(self) -> None:
        """Take no more events."""
        self._failed = True
        self._queue.clear()
        for timer in (self._timer, self._owed_timer):
            if timer:
                timer.cancel()
        self._disk.shutdown(wait=False, cancel_futures=True)

    def status(self) -> Mapping[str, object]:
        """The core's share of ``flexhactl status``."""
        with self.busy():
            return node.status(self._state, clock.now())

    # ---- events ----
    def begin(self, started: Started) -> None:
        """The first event; then those that have come in the meantime."""
        self._queue.appendleft(started)
        self._run()

    def post(self, event: Event) -> None:
        """Step with this event, now or right after the step that is under way."""
        if self._failed:
            return
        self._queue.append(event)
        if not self._stepping:
            self._run()

    # ---- the short way ----
    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Nothing goes the short way meanwhile, and what did is part of the state."""
        self._fold()
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
        if not self._stepping:
            self._run()

    def settle(self) -> None:
        """The connection is about to go: what it still knows of the stream becomes part of the state."""
        self._fold()
        self._held = False
        self._way = Way.LONG

    def attend(self) -> None:
        """The lane has left something to us."""
        if self._failed:
            return
        try:
            with self.busy():
                self.hands.flows.attend(sync_short.credit(self._state.session))
        except Exception as problem:  # noqa: BLE001 - as in _run()
            self._give_up(problem)

    def _fold(self) -> None:
        if self._held or self.hands.sync is None:
            return
        lane = self.hands.sync.hold()
        if lane is None:
            return
        self._held = True
        if self._way is Way.LONG:
            return
        self.hands.flows.count(lane)
        session = sync_short.fold(self._state.session, _progress(lane))
        self._window = session.sender.window
        if lane.part is not None:  # as if it had come the long way, and were not imported yet
            self._queue.appendleft(self.hands.flows.taken_in_part(lane.received_seq, lane.part))
        self._state = replace(self._state, session=session)

    def _resume(self) -> None:
        """Whatever may go the short way does so from here on."""
        if not self._held or self._busy or self._failed or self.hands.sync is None:
            return
        self._held = False
        session, was = self._state.session, self._way
        self._way = sync_short.way(session)
        sender, receiver = session.sender, session.receiver
        window = None
        # An empty one is the same whatever was sent and acknowledged meanwhile.
        knows = was is Way.SENDING and sender.window is self._window and sender.window
        if self._way is Way.SENDING and not knows:
            window = [SentBatch(sent.n, sent.marks, sent.frame) for sent in sender.window]
        self.hands.sync.resume(
            _LANES[self._way],
            sent_seq=sender.sent_seq,
            acked_seq=sender.acked_seq,
            received_seq=receiver.received_seq,
            imported_seq=receiver.imported_seq,
            window=window,
        )
        if self._way is Way.SENDING:
            self.hands.flows.rest()
        elif was is Way.SENDING:
            self.hands.flows.set_credit(sync_short.credit(session))

    def _run(self) -> None:
        self._stepping = True
        try:
            self._fold()
            while self._queue:
                self._step(self._queue.popleft())
            self._resume()
        except Exception as problem:  # noqa: BLE001 - whatever it is, see the module's docstring
            self._give_up(problem)
        finally:
            self._stepping = False
        self._arm()

    def _give_up(self, problem: Exception) -> None:
        """Once: what fails afterwards follows from it."""
        self.close()
        if not self._gave_up:
            self._gave_up = True
            self._on_fatal(problem)

    def _step(self, event: Event) -> None:
        now = clock.now()
        if isinstance(event, RoleSet):  # from then on the fast path forwards, or no longer does
            fields = {"role": event.role.name, "term": event.term}
            self.hands.history.add(self._obeyed_at, "role-obeyed", fields)
            self.hands.role_set(event.role, event.term)
        if isinstance(event, PathUp) and event.path == XC and self.hands.sync:
            self.hands.sync.hurry()
        self._state, actions = node.step(self._state, event, now)
        for action in actions:
            self._try(action, now)
        if actions:
            for outcome in self.hands.flows.outcome():
                self.post(outcome)

    def _arm(self) -> None:
        """Ask the core when it wants to be woken. A timer that fires early is set anew then, not before."""
        deadline = None if self._failed else node.next_deadline(self._state)
        if self._timer:
            if deadline is not None and self._armed_for <= deadline:
                return
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            delay_s = max(0, deadline - clock.now()) / NS_PER_S
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._on_timer)
            self._armed_for = deadline

    def _on_timer(self) -> None:
        self._timer = None
        deadline = node.next_deadline(self._state)
        if deadline is not None and clock.now() >= deadline:
            self.post(TimerFired())
        else:
            self._arm()

    # ---- workers that hang ----
    def _try(self, action: Action, now: Ns) -> None:
        try:
            self._perform(action, now)
        except FastpathError as error:
            if error.errno != errno.ETIMEDOUT:
                raise
            self._unanswered(action, error)
        else:
            if isinstance(action, _LASTING):
                self._owed.pop(type(action), None)

    def _unanswered(self, action: Action, error: FastpathError) -> None:
        self.hands.counters.add("workers.unanswered")
        ends_sync = not isinstance(action, SetCommit) and type(action) not in self._owed
        if isinstance(action, _LASTING):
            self._owed[type(action)] = action
            if self._owed_timer is None:
                loop = asyncio.get_running_loop()
                self._owed_timer = loop.call_later(OWED_DELAY_S, self._say_again)
        else:
            log.warning("workers.unanswered", action=type(action).__name__, error=error)
        if ends_sync and self.hands.sync:
            self.hands.sync.close(UNANSWERED)
            self.post(SyncClosed(UNANSWERED))

    def _say_again(self) -> None:
        self._owed_timer = None
        try:
            with self.busy():
                for action in list(self._owed.values()):
                    self._try(action, clock.now())
        except Exception as problem:  # noqa: BLE001 - as in _run()
            self._give_up(problem)

    # ---- actions ----
    def _perform(self, action: Action, now: Ns) -> None:  # noqa: C901 - one arm for each action
        hands = self.hands
        match action:  # the most frequent ones first: an arm that does not match is not free
            case SendSync(data):
                if hands.sync:
                    hands.sync.send(data)
            case SetDrainCredit(records):
                hands.flows.set_credit(records)
            case AckFlows(marks):
                hands.flows.ack(marks)
            case ImportFlows(seq, sections):
                hands.flows.import_flows(seq, sections)
            case WithholdFlows():
                hands.flows.withhold(action)
            case PersistTerm(term):
                self._disk.submit(self._write_term, asyncio.get_running_loop(), term)
            case PersistMaintenance(request, on):
                self._disk.submit(self._write_maintenance, asyncio.get_running_loop(), request, on)
            case SetRole():
                self._set_role(action)
            case SetWays(by_peer):
                hands.ways_set(by_peer)
            case SetConduit():
                hands.conduit_set(action)
            case SetPorts():
                hands.heartbeat.set_ports(action)
            case SetWires(mode):
                hands.wires.set(mode)
            case SetPulse():
                hands.heartbeat.perform(action)
            case SendFrame():
                hands.vrrp.perform(action)
            case HearKeys(message):
                if hands.rotation:
                    hands.rotation.hear(message)
            case CloseSync(reason):
                if hands.sync:
                    hands.sync.close(reason)
            case TrackChanges(on):
                hands.fastpath.track_changes(on=on)
            case StartSweep(shards):
                hands.flows.start_sweep(shards)
            case AskDigest():
                hands.fastpath.digest_ask()
            case SetCommit(on):
                hands.fastpath.set_commit(on=on)
            case BeginImport():
                hands.flows.begin_import(action)
            case EndImport():
                hands.flows.end_import(action)
            case AdoptFlows(seq, sections):
                hands.flows.adopt(seq, sections)
            case CompareDigests():
                hands.flows.compare(action)
            case Reply():
                hands.reply(action)
            case Record(level, event, fields, history):
                log.event(level.value, event, **fields)
                if history:
                    hands.history.add(now, event, fields)
            case Count(name, n):
                hands.counters.add(name, n)
            case Stop():
                hands.stop()
            case _:
                assert_never(action)

    def _set_role(self, action: SetRole) -> None:
        try:
            self.hands.fastpath.set_role(int(action.role), action.term)
        except FastpathError as error:
            if error.errno == errno.ESTALE:
                # C heard a newer term and has fenced us; Fenced is on its way, and the core will follow it.
                self.hands.counters.add("role.stale_term")
                log.warning("role.stale_term", role=action.role.name, term=action.term)
                return
            if error.errno != errno.ETIMEDOUT:
                raise
            # A worker hangs. The fence is set, and that is what it will look at first.
            self.hands.counters.add("workers.unanswered")
            log.warning("role.unanswered", role=action.role.name, term=action.term)
        self._obeyed_at = clock.now()
        self.post(RoleSet(action.role, action.term))

    # ---- in the disk's thread: fsync may take as long as the disk likes; one thread keeps the order ----
    def _write_term(self, loop: asyncio.AbstractEventLoop, term: Term) -> None:
        outcome: Event
        try:
            self.hands.terms.write(term)
            outcome = TermPersisted(term)
        except OSError as error:
            outcome = TermPersistFailed(term, str(error))
        self._post_from_disk(loop, outcome)

    def _write_maintenance(self, loop: asyncio.AbstractEventLoop, request: int, on: bool) -> None:
        outcome: Event
        try:
            self.hands.maintenance.write(on=on)
            outcome = MaintenanceKept(request, on)
        except OSError as error:
            outcome = MaintenanceNotKept(request, on, str(error))
        self._post_from_disk(loop, outcome)

    def _post_from_disk(self, loop: asyncio.AbstractEventLoop, outcome: Event) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed meanwhile
            loop.call_soon_threadsafe(self.post, outcome)


_LANES: Final = {
    Way.LONG: LaneMode.OFF,
    Way.SENDING: LaneMode.SEND,
    Way.RECEIVING: LaneMode.RECEIVE,
}


def _progress(lane: LaneState) -> Progress:
    first = lane.sent_seq - len(lane.sent) + 1
    return Progress(
        sent_seq=lane.sent_seq,
        acked_seq=lane.acked_seq,
        sent=tuple(
            Sent(seq, sent.frame, sent.marks, sent.n) for seq, sent in enumerate(lane.sent, start=first)
        ),
        received_seq=lane.received_seq,
        imported_seq=lane.imported_seq,
        records_sent=lane.records_out,
        records_received=lane.records_in,
        bytes_sent=lane.bytes_out,
        bytes_received=lane.bytes_in,
        heard_at=Ns(lane.heard_ns) if lane.heard_ns else None,
        said_at=Ns(lane.said_ns) if lane.said_ns else None,
    )
