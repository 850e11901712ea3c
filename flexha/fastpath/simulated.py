# SPDX-License-Identifier: Apache-2.0
"""The pulse thread of a simulated node: that of C, without its thread, sockets and clock.

Whoever owns one brings it what arrives, calls it when it is its turn, and carries what it says. While
nothing arrives, ``next_ns`` is when anybody could see anything of it; what it does in between, and nobody
sees, is made up for (``csrc/fp_api_sim.c``).
"""

from __future__ import annotations

from typing import Final

from flexha.fastpath import marshal
from flexha.fastpath.errors import FastpathError
from flexha.fastpath.lib import ffi
from flexha.fastpath.lib import lib as clib
from flexha.fastpath.records import HeartbeatFlag, Mark, PulseConfig, PulseEvent
from flexha.units import Ns

EVENTS_MAX: Final = 16
HEARTBEAT_BYTES: Final = 96


class SimulatedPulse:
    """Times are those of the node's own clock."""

    def __init__(self, cfg: PulseConfig, n_ports: int, now: int) -> None:
        out = ffi.new("fp_sim **")
        c_cfg = ffi.new("struct fp_pulse_cfg *")
        marshal.pulse_config(c_cfg, cfg)
        _ensure(clib.fp_sim_open(c_cfg, n_ports, now, out), "fp_sim_open")
        self._sim = ffi.gc(out[0], clib.fp_sim_close)
        self._turn = ffi.new("struct fp_sim_turn *")
        self._said = ffi.buffer(self._turn.said)
        self._events = ffi.new("struct fp_pulse_event[]", EVENTS_MAX)
        self.next_ns = now
        self.lease_until_ns = Ns(0)
        self.role = 0
        self.term = 0
        self.alive = 0
        """Paths that are heard, a bit each."""
        self.has_events = False
        self.n_said = 0

    def close(self) -> None:
        """Nothing may be called after this."""
        ffi.release(self._sim)

    # ---- turns ----
    def turn(self, now: int) -> None:
        """It looks around now."""
        _ensure(clib.fp_sim_turn(self._sim, now, self._turn), "fp_sim_turn")
        self._learn()

    def hear(self, path: int, payload: bytes, now: int) -> None:
        """A datagram arrives on a path, and it looks around."""
        rc = clib.fp_sim_hear(self._sim, path, payload, len(payload), now, self._turn)
        _ensure(rc, "fp_sim_hear")
        self._learn()

    def look(self, now: int) -> None:
        """See what it has done until now, without disturbing it."""
        _ensure(clib.fp_sim_look(self._sim, now, self._turn), "fp_sim_look")
        self._learn()

    def stop(self, now: int) -> None:
        """It does nothing any more until the next turn, as a process that was stopped."""
        _ensure(clib.fp_sim_stop(self._sim, now), "fp_sim_stop")

    def _learn(self) -> None:
        turn = self._turn
        self.next_ns, self.lease_until_ns = turn.next_ns, turn.lease_until_ns
        self.role, self.term = turn.role, turn.term
        self.alive, self.has_events, self.n_said = turn.alive, bool(turn.events), turn.n_said

    def said(self) -> list[tuple[int, bytes]]:
        """Path and payload of the heartbeats that it has sent since it was asked last."""
        path, said = self._turn.path, self._said
        return [(path[i], said[HEARTBEAT_BYTES * i : HEARTBEAT_BYTES * (i + 1)]) for i in range(self.n_said)]

    # ---- what others tell it ----
    def moves(self, *, control: bool, worker: bool) -> None:
        """Whether the control plane, and the worker, get on."""
        _ensure(clib.fp_sim_moves(self._sim, control, worker), "fp_sim_moves")

    def mark(self, mark: Mark) -> None:
        """Something speaks for the peer's death; it is thought of at the next turn."""
        _ensure(clib.fp_sim_mark(self._sim, mark), "fp_sim_mark")

    def flood(self, now: int) -> bool:
        """A worker has a frame for the virtual MAC that it may not forward; whether that is a mark."""
        return bool(_ensure(clib.fp_sim_flood(self._sim, now), "fp_sim_flood"))

    def died(self, incarnation: int, now: int) -> None:
        """The life line of that process of the peer has ended."""
        _ensure(clib.fp_sim_died(self._sim, incarnation, now), "fp_sim_died")

    def set_role(self, role: int, term: int) -> bool:
        """Set the fence; False if C knows better."""
        return bool(clib.fp_sim_set_role(self._sim, role, term) == 0)

    # ---- as ``Fastpath`` ----
    def set_pulse(self, flags: HeartbeatFlag, priority: int) -> None:
        """Say this from the next heartbeat on."""
        _ensure(clib.fp_sim_say(self._sim, flags, priority), "fp_sim_say")

    def burst_pulse(self) -> None:
        """Send on all paths at the next turn."""
        _ensure(clib.fp_sim_burst(self._sim), "fp_sim_burst")

    def pulse_events(self) -> list[PulseEvent]:
        """Take what it has to say."""
        events: list[PulseEvent] = []
        n = EVENTS_MAX
        while n == EVENTS_MAX:
            n = _ensure(clib.fp_sim_events(self._sim, self._events, EVENTS_MAX), "fp_sim_events")
            events += [marshal.pulse_event(self._events[i]) for i in range(n)]
        self.has_events = False
        return events


def _ensure(rc: int, what: str) -> int:
    if rc < 0:
        raise FastpathError(-rc, what)
    return rc
