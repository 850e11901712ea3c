# SPDX-License-Identifier: Apache-2.0
"""What the C pulse thread reports, as events; what our heartbeats say, as calls; and proof of life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from flexha.core.actions import SetPorts, SetPulse
from flexha.core.events import (
    Event,
    Fenced,
    Hung,
    LeaseAsked,
    PathDown,
    PathUp,
    PeerConfirmedDead,
    PeerDied,
    PeerHeard,
    PeerInfo,
    Role,
    SuspicionRefuted,
)
from flexha.fastpath import Fastpath, Hang, HeartbeatFlag, PathStats, Peer, PulseEvent, PulseKind
from flexha.shell.counters import Counters
from flexha.units import NS_PER_MS, Ns, Term

CONTROL_BEAT_S = 0.1
"""The liveness counter in our heartbeats moves this often while the loop turns."""


class PulseThread(Protocol):
    """The pulse thread, as the loop speaks with it: ``Fastpath``, or a simulated one."""

    def pulse_events(self) -> Sequence[PulseEvent]:
        """Take what it has to say."""

    def set_pulse(self, flags: HeartbeatFlag, priority: int) -> None:
        """Say this from the next heartbeat on."""

    def burst_pulse(self) -> None:
        """Send on all paths now."""


class Heartbeats:
    """Its reports as events, and the core's actions as what our heartbeats say.

    Paths are named as in the core: element 0 is xc, element 1 + i is port i. Heartbeats tell usable ports by
    side: of two inside ports one will do. ``sides``: of each port.
    """

    def __init__(
        self,
        pulse: PulseThread,
        paths: Sequence[str],
        priority: int,
        sides: Mapping[str, HeartbeatFlag],
        post: Callable[[Event], None],
        counters: Counters,
    ) -> None:
        self._pulse = pulse
        self._paths = tuple(paths)
        self._priority = priority
        self._sides = dict(sides)
        self._post = post
        self._counters = counters
        self._said = SetPulse(ready=False)
        self._ports_up = HeartbeatFlag.LAN_UP | HeartbeatFlag.WAN_UP

    def begin(self) -> None:
        """Say what there is to say before the core has spoken."""
        self.perform(self._said)

    def collect(self) -> None:
        """Take what the pulse thread has to say."""
        for event in self._pulse.pulse_events():
            self._translate(event)

    def _translate(self, event: PulseEvent) -> None:
        match event.kind:
            case PulseKind.PATH_UP:
                self._post(PathUp(self._paths[event.path]))
            case PulseKind.PATH_DOWN:
                self._post(PathDown(self._paths[event.path]))
            case PulseKind.PEER:
                if (peer := peer_info(event.peer, self._sides)) is None:
                    self._counters.add("heartbeat.unknown_role")
                else:
                    self._post(PeerHeard(peer))
            case PulseKind.FENCED:
                self._post(Fenced(Term(event.peer.term)))
            case PulseKind.DEAD:
                self._post(PeerConfirmedDead(_marks(event), event.probes, event.asked_us / 1000))
            case PulseKind.DIED:
                self._post(PeerDied())
            case PulseKind.REFUTED:
                path = self._paths[event.path]
                self._post(SuspicionRefuted(_marks(event), event.probes, path, event.rtt_us / 1000))
            case PulseKind.HUNG:
                worker = event.worker if event.hung & Hang.WORKER else None
                self._post(Hung(hangs(event.hung), worker, bool(event.hung & Hang.YIELDED)))
            case PulseKind.LEASE:
                answered = self._paths[event.path] if event.answered else None
                self._post(LeaseAsked(event.stall_us / 1000, event.asked_us / 1000, answered))

    def perform(self, action: SetPulse) -> None:
        """Say it from the next heartbeat on, or at once."""
        self._said = action
        flags = self._ports_up
        if action.ready:
            flags |= HeartbeatFlag.READY
        if action.bye:
            flags |= HeartbeatFlag.BYE
        self._pulse.set_pulse(flags, self._priority)
        if action.burst:
            self._pulse.burst_pulse()

    def set_ports(self, action: SetPorts) -> None:
        """Tell the peer at once on which sides we have a usable port, or one that is lent."""
        self._ports_up = HeartbeatFlag(0)
        for port in action.up:
            self._ports_up |= self._sides[port]
        for port in action.lent:
            self._ports_up |= _lent(self._sides[port])
        self.perform(replace(self._said, burst=True))


class HeartbeatIo(Heartbeats):
    """The same with the fast path's thread: also shows it, and the peer, that the control plane is alive."""

    def __init__(
        self,
        fastpath: Fastpath,
        paths: Sequence[str],
        priority: int,
        sides: Mapping[str, HeartbeatFlag],
        post: Callable[[Event], None],
        counters: Counters,
    ) -> None:
        super().__init__(fastpath, paths, priority, sides, post, counters)
        self._fastpath = fastpath
        self._beat_timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to show that the control plane is alive."""
        self.begin()
        self._beat()

    def stop(self) -> None:
        """Show it no more."""
        if self._beat_timer:
            self._beat_timer.cancel()

    def _beat(self) -> None:
        self._fastpath.control_beat()
        self._beat_timer = asyncio.get_running_loop().call_later(CONTROL_BEAT_S, self._beat)

    def line_status(self) -> dict[str, object]:
        """``peer.life_line`` of ``flexhactl status``."""
        stats = self._fastpath.line_stats()
        return {"stands": stats.stands, "made": stats.made, "bad": stats.bad}

    def path_status(self, now: Ns) -> dict[str, dict[str, object]]:
        """``peer.paths`` of ``flexhactl status``."""
        stats = self._fastpath.path_stats()
        return {name: _path(stat, now) for name, stat in zip(self._paths, stats, strict=True)}


def peer_info(peer: Peer, sides: Mapping[str, HeartbeatFlag]) -> PeerInfo | None:
    """The core's form of what a heartbeat says; None for a role that we do not know.

    ``sides``: the flag by which each port is told.
    """
    try:
        role = Role(peer.role)
    except ValueError:
        return None
    return PeerInfo(
        role=role,
        term=Term(peer.term),
        incarnation=peer.incarnation,
        ready=bool(peer.flags & HeartbeatFlag.READY),
        bye=bool(peer.flags & HeartbeatFlag.BYE),
        priority=peer.priority,
        ports_up=frozenset(port for port, side in sides.items() if peer.flags & side),
        lent=frozenset(port for port, side in sides.items() if peer.flags & _lent(side)),
        hung=bool(peer.flags & HeartbeatFlag.HUNG),
    )


def _lent(side: HeartbeatFlag) -> HeartbeatFlag:
    return HeartbeatFlag.LAN_LENT if side is HeartbeatFlag.LAN_UP else HeartbeatFlag.WAN_LENT


def hangs(hung: Hang) -> frozenset[str]:
    """What of a node gets nowhere, by the core's names."""
    return frozenset((part.name or "").lower() for part in hung & ~Hang.YIELDED)


def _marks(event: PulseEvent) -> frozenset[str]:
    return frozenset((mark.name or "").lower().replace("_", "-") for mark in event.marks)


def _path(stat: PathStats, now: Ns) -> dict[str, object]:
    heard = stat.last_heard_ns
    return {
        "alive": stat.alive,
        "last_heard_ms": round((now - heard) / NS_PER_MS, 1) if heard else None,
        "sent": stat.sent,
        "received": stat.received,
        "lost": stat.lost,
        "bad": stat.bad,
        "replayed": stat.replayed,
    }
