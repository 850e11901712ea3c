# SPDX-License-Identifier: Apache-2.0
"""Whether the peer lives: from what the C pulse thread reports of each path.

The pulse thread times each path (``dead_after`` intervals of silence) and reports; this module judges:

    alive    heard on any path, and it has not said goodbye
    lost     silent on *all* paths ("peer-silent"), or, once something spoke for its death, silent for long
             enough while it was asked ("peer-confirmed": ``csrc/suspect.h``), or proven dead by the end
             of the life line ("peer-died": ``csrc/lifeline.h``); gone by its own word
             ("peer-bye"), or heard, but hung, and no longer ACTIVE for that reason ("peer-hung":
             ``csrc/progress.h``), until it hangs no more or reigns again; or another process under the same
             name ("peer-restarted": a new incarnation proves that the old one is dead)

A lower incarnation after a silence proves nothing: it is a peer whose clock was set back, or a replay. It is
believed, but the one before it may come back (``csrc/pulse.h``).

One silent path is a fault of that path, never of the peer: it is recorded, and changes no role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from flexha.core.actions import Level, Record
from flexha.core.events import (
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
from flexha.units import EPOCH, NS_PER_MS, Ns

PAST_INCARNATIONS_MAX: Final = 4
"""So many dead incarnations are remembered, lest a delayed heartbeat raises one."""


@dataclass(frozen=True, slots=True)
class PeerFound:
    """The peer lives; this is what it says of itself."""

    info: PeerInfo


@dataclass(frozen=True, slots=True)
class PeerChanged:
    """The peer lives, and says something new of itself."""

    was: PeerInfo
    info: PeerInfo


@dataclass(frozen=True, slots=True)
class PeerLost:
    """The peer is dead or gone. ``info``: the last that it said."""

    reason: str
    info: PeerInfo
    reborn: PeerInfo | None = None
    """What its new life says, which follows as ``PeerFound``; None too if all that it says is goodbye."""


@dataclass(frozen=True, slots=True)
class Awake:
    """This node was stopped for longer than its lease while it reigned, and asked its peer who reigns now."""


Fact = PeerFound | PeerChanged | PeerLost | Awake
Output = Fact | Record


@dataclass(frozen=True, slots=True)
class Path:
    """One path's state, and since when."""

    alive: bool = False
    since: Ns = EPOCH


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """What is known of the peer's life."""

    paths: Mapping[str, Path]
    info: PeerInfo | None = None
    """The last that was heard, whether the peer lives or not."""
    is_current: bool = False
    """Whether ``info`` was heard in this life of the peer: after a silence it must say again who it is."""
    alive: bool = False
    gave_up: bool = False
    """It hangs, and has given up the role: it is as good as dead until it hangs no more, or reigns again."""
    past: tuple[int, ...] = ()
    """Incarnations that are dead for certain: they said goodbye, or a later one was heard."""


Result = tuple[Liveness, tuple[Output, ...]]


def initial(paths: tuple[str, ...]) -> Liveness:
    """Nothing heard on any path."""
    return Liveness(paths={name: Path() for name in paths})


Report = PathUp | PathDown | PeerHeard | PeerConfirmedDead | PeerDied | SuspicionRefuted | LeaseAsked


def step(liveness: Liveness, event: Report, now: Ns) -> Result:
    """One report of the pulse thread in; facts and records out."""
    match event:
        case PathUp(path):
            return _path(liveness, path, now, alive=True)
        case PathDown(path):
            return _path(liveness, path, now, alive=False)
        case PeerHeard(info):
            return _heard(liveness, info)
        case PeerConfirmedDead():
            return _confirmed(liveness, event, now)
        case PeerDied():
            return _died(liveness, "peer-died", now)
        case SuspicionRefuted(marks, probes, path, rtt_ms):
            fields = {
                "marks": sorted(marks),
                "probes": probes,
                "verdict": "alive",
                "path": path,
                "rtt_ms": rtt_ms,
            }
            return liveness, (Record(Level.WARNING, "suspicion", fields, history=True),)
        case LeaseAsked(stall_ms, asked_ms, path_or_none):
            asked = {"stall_ms": stall_ms, "asked_ms": asked_ms, "path": path_or_none}
            return liveness, (Record(Level.WARNING, "lease-asked", asked, history=True), Awake())


def _path(liveness: Liveness, name: str, now: Ns, *, alive: bool) -> Result:
    path = liveness.paths.get(name, Path())
    if path.alive == alive:
        return liveness, ()
    liveness = replace(liveness, paths={**liveness.paths, name: Path(alive, now)})
    heard = [n for n, p in liveness.paths.items() if p.alive]
    fields = {
        "path": name,
        "heard": heard,
        "was_for_ms": (now - path.since) // NS_PER_MS if path.since else None,
    }
    level = Level.INFO if alive or not heard else Level.WARNING
    record = Record(level, "path-up" if alive else "path-down", fields, history=True)
    liveness, facts = _judge(liveness)
    return liveness, (record, *facts)


def _confirmed(liveness: Liveness, event: PeerConfirmedDead, now: Ns) -> Result:
    """As good as silence on all paths, and no better: if it is heard again, it was only away."""
    fields = {
        "marks": sorted(event.marks),
        "probes": event.probes,
        "verdict": "dead",
        "silence_ms": event.silence_ms,
    }
    record = Record(Level.WARNING, "suspicion", fields, history=True)
    liveness, outputs = _died(liveness, "peer-confirmed", now)
    return liveness, (record, *outputs)


def _died(liveness: Liveness, reason: str, now: Ns) -> Result:
    """No path is heard any more. Should one be, after all, then the peer lives, under its old name."""
    was_alive, info = liveness.alive, liveness.info
    paths = {name: Path(alive=False, since=now) if p.alive else p for name, p in liveness.paths.items()}
    liveness = replace(liveness, paths=paths, alive=False, is_current=False)
    return liveness, () if info is None or not was_alive else _lost(liveness, info, reason)


def _heard(liveness: Liveness, info: PeerInfo) -> Result:
    if info.incarnation in liveness.past:
        return liveness, ()
    was = liveness.info
    outputs: tuple[Output, ...] = ()
    if was is not None and (
        info.incarnation > was.incarnation or (liveness.alive and info.incarnation != was.incarnation)
    ):
        liveness, outputs = _bury(liveness, was, "peer-restarted", None if info.bye else info)
    reigned = was is not None and was.role is Role.ACTIVE
    gave_up = info.hung and info.role is not Role.ACTIVE and (reigned or liveness.gave_up)
    liveness = replace(liveness, info=info, is_current=True, gave_up=gave_up)
    if info.bye:
        liveness, more = _bury(liveness, info, "peer-bye")
        return liveness, (*outputs, *more)
    if gave_up:
        was_alive = liveness.alive
        liveness = replace(liveness, alive=False, is_current=False)
        return liveness, (*outputs, *_lost(liveness, info, "peer-hung")) if was_alive else outputs
    if liveness.alive and was is not None and was != info:
        return liveness, (*outputs, PeerChanged(was, info))
    liveness, more = _judge(liveness)
    return liveness, (*outputs, *more)


def _bury(liveness: Liveness, info: PeerInfo, reason: str, reborn: PeerInfo | None = None) -> Result:
    """This incarnation is dead whatever a path may still deliver of it."""
    was_alive = liveness.alive
    past = (*liveness.past, info.incarnation)[-PAST_INCARNATIONS_MAX:]
    liveness = replace(liveness, alive=False, is_current=False, past=past)
    return liveness, _lost(liveness, info, reason, reborn) if was_alive else ()


def _judge(liveness: Liveness) -> Result:
    """Compare what the paths say now with what we held of the peer's life."""
    info = liveness.info
    if info is None or not liveness.is_current:
        return liveness, ()
    alive = info.incarnation not in liveness.past and any(p.alive for p in liveness.paths.values())
    if alive == liveness.alive:
        return liveness, ()
    liveness = replace(liveness, alive=alive, is_current=alive)
    if not alive:
        return liveness, _lost(liveness, info, "peer-silent")
    fields = {"role": info.role.name, "term": info.term, "ready": info.ready, "priority": info.priority}
    return liveness, (Record(Level.INFO, "peer-found", fields, history=True), PeerFound(info))


def _lost(
    liveness: Liveness, info: PeerInfo, reason: str, reborn: PeerInfo | None = None
) -> tuple[Output, ...]:
    fields = {"reason": reason, "role": info.role.name, "term": info.term, "paths": list(liveness.paths)}
    return (Record(Level.WARNING, "peer-lost", fields, history=True), PeerLost(reason, info, reborn))
