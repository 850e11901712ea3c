# SPDX-License-Identifier: Apache-2.0
"""The pulse thread of a simulated process: that of C (``csrc/pulse.c``), with the world's clock and network.

Here are its wake-ups, the wires, and what of it stops with the process. What it decides, and the fence, are
C's; what its events mean is said by the shell (``flexha.shell.heartbeat_io``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from sim.net import PATHS

from flexha.core.actions import SetPorts, SetPulse
from flexha.core.events import Event, Role
from flexha.fastpath.records import HeartbeatFlag, Mark, PulseConfig, PulseEvent
from flexha.fastpath.simulated import SimulatedPulse
from flexha.shell.counters import Counters
from flexha.shell.heartbeat_io import Heartbeats
from flexha.units import Ns, Term

if TYPE_CHECKING:
    from sim.host import Process

KEY = bytes(range(1, 17))
SIDES = {"lan": HeartbeatFlag.LAN_UP, "wan": HeartbeatFlag.WAN_UP}
"""How heartbeats tell the usable ports."""
CONTROL_DEAD_MS = 1000
WORKER_DEAD_MS = 500
WAKE_MS = 0.5
"""A thread of a process that goes on does so within this."""


class Pulse:
    """It wakes, is heard and told things; ``process`` learns of it by events."""

    def __init__(self, process: Process) -> None:
        cfg = process.cfg
        self.process = process
        self.core = SimulatedPulse(
            PulseConfig(
                pair_id=1,
                node_index=cfg.index,
                incarnation=process.incarnation,
                mac_key=KEY,
                interval_ms=cfg.interval_ms,
                dead_after=cfg.dead_after,
                control_dead_ms=CONTROL_DEAD_MS,
                worker_dead_ms=WORKER_DEAD_MS,
            ),
            n_ports=len(PATHS) - 1,
            now=process.now,
        )
        self._heartbeats = Heartbeats(self, cfg.paths, cfg.priority, SIDES, self._post, Counters())
        self._armed: Ns | None = None
        """By the world's clock."""
        self._stopped = False
        self._queued: list[tuple[int, bytes]] = []
        """What has arrived at a stopped process."""
        self._dead = 0
        """Of which incarnation a stopped process will find the life line ended."""
        self._collecting = False

    def start(self) -> None:
        """The first turn."""
        self._heartbeats.begin()
        self.turn()

    def close(self) -> None:
        """The process is no more."""
        self._stopped = True
        self._armed = None
        self.core.close()

    # ---- what the core wants said --------------------------------------------------------------------
    def perform(self, action: SetPulse) -> None:
        """Say it from the next heartbeat on, or at once."""
        self._heartbeats.perform(action)

    def set_ports(self, action: SetPorts) -> None:
        """Say at once which ports are usable, and which are lent."""
        self._heartbeats.set_ports(action)

    def set_role(self, role: Role, term: Term) -> bool:
        """Set the fence; False if C has heard of a higher term."""
        self.look()
        obeyed = self.core.set_role(role, term)
        self.look()
        return obeyed

    # ---- as the shell sees the thread ----------------------------------------------------------------
    def set_pulse(self, flags: HeartbeatFlag, priority: int) -> None:
        self.look()
        self.core.set_pulse(flags, priority)

    def burst_pulse(self) -> None:
        self.look()
        self.core.burst_pulse()
        self.turn()

    def pulse_events(self) -> list[PulseEvent]:
        return self.core.pulse_events()

    # ---- turns ---------------------------------------------------------------------------------------
    def turn(self) -> None:
        """Something has rung for it."""
        if not self._stopped:
            self.core.turn(self.process.now)
            self._after()

    def look(self) -> None:
        """What has it done until now?"""
        if not self._stopped:
            self.core.look(self.process.now)
            self._after()

    def hear(self, path: int, payload: bytes) -> None:
        """A heartbeat arrives."""
        if self._stopped:
            self._queued.append((path, payload))
        else:
            self.core.hear(path, payload, self.process.now)
            self._after()

    def mark(self, mark: Mark) -> None:
        """Something speaks for the peer's death."""
        self.look()
        self.core.mark(mark)
        self.turn()

    def flood(self) -> None:
        """A worker has a frame for the virtual MAC, and may not forward it."""
        self.look()
        if not self._stopped and self.core.flood(self.process.now):
            self.turn()

    def died(self, incarnation: int) -> None:
        """The life line of a process of the peer has ended."""
        if self._stopped:
            self._dead = incarnation
        else:
            self.core.died(incarnation, self.process.now)
            self.turn()

    def moves(self, *, control: bool, worker: bool) -> None:
        """What of the process gets on, from now on."""
        self.look()
        self.core.moves(control=control, worker=worker)

    def stop(self) -> None:
        """The process is stopped, or its clock jumps."""
        if not self._stopped:
            self.look()
            self.core.stop(self.process.now)
            self._stopped = True

    def go_on(self) -> None:
        """What has come by xc waits in the thread's own socket; the rest comes by the workers."""
        if not self._stopped:
            return
        self._stopped = False
        queued, self._queued = self._queued, []
        self.turn()
        for path, payload in queued:
            if path == 0:
                self.hear(path, payload)
        if self._dead:
            dead, self._dead = self._dead, 0
            self.died(dead)
        self.process.later(self.process.luck.uniform(0, WAKE_MS), partial(self._hear_all, queued))

    def _hear_all(self, queued: list[tuple[int, bytes]]) -> None:
        for path, payload in queued:
            if path != 0:
                self.hear(path, payload)

    def _after(self) -> None:
        core, process = self.core, self.process
        if core.n_said:
            for path, payload in core.said():
                process.world.heartbeat_sent(process, path, payload)
        fence = process.fastpath.fence
        if fence.role != core.role or fence.term != core.term:
            fence.role, fence.term = Role(core.role), Term(core.term)
        fence.lease_until = core.lease_until_ns
        process.has_met |= core.alive != 0
        if core.has_events and not self._collecting:
            self._collecting = True
            process.soon(self._collect)
        if self._armed is None or core.next_ns < self._armed + process.ahead:
            self._arm()
        if process.fenced_frames:
            process.on_pulse()
        if process.index == 1 and core.alive & 1 and not process.world.line.stands(process):
            process.world.line.call(process)

    def _arm(self) -> None:
        clock = self.process.world.clock
        self._armed = max(Ns(self.core.next_ns - self.process.ahead), clock.now)
        clock.at(self._armed, partial(self._wake, self._armed))

    def _wake(self, armed: Ns) -> None:
        if self._armed != armed:
            return
        self._armed = None
        if self._stopped:
            return
        if self.core.next_ns <= self.process.now:
            self.turn()
        else:
            self._arm()

    # ---- events --------------------------------------------------------------------------------------
    def _collect(self) -> None:
        self._collecting = False
        self._heartbeats.collect()

    def _post(self, event: Event) -> None:
        self.process.take(event)
