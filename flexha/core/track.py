# SPDX-License-Identifier: Apache-2.0
"""What each node's ports are worth, and whether the other node could do more with the role.

A port is *usable* while it has its wire, and its next hop answers where that is asked. It counts as lost at
once, and as usable again only once it has been whole for ``up_ms``, so that a loose plug moves nothing to and
fro. A node's *score* is the sum of the weights of its usable ports; both nodes count both scores, from the
same configuration.

A next hop that is doubted is told to the peer as lost before we count it so ourselves: if a router hangs,
both nodes know of the other's doubt before either gives its role away for it.

The peer would do better with the role if its score is higher, so that it would not come back at once, and if
for each side, inside and outside, on which a port is usable here, one is usable there: a move from a node
that has only its LAN to one that has only its WAN gains nothing. A port of weight 0 moves nothing, nor
does an inside that is lost whole: it is lent (``lend``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flexha.core.actions import Level, Record
from flexha.core.events import Hop, HopChanged, PortChanged, TimerFired
from flexha.units import Ns, ms


@dataclass(frozen=True, slots=True)
class TrackedPort:
    """What the configuration says of a port."""

    name: str
    inside: bool
    weight: int
    """What it adds to the score while it is usable."""
    up_ms: int
    """So long it must be whole before it counts as usable again."""
    lendable: bool = True
    """The peer can speak for its virtual router (``lend``): routers are not led there in another way."""


@dataclass(frozen=True, slots=True)
class Link:
    """One port as it is."""

    wire: bool = True
    """It has its wire. Taken to be so until we hear otherwise."""
    hop: Hop = Hop.ANSWERS
    """Likewise."""
    usable: bool = True
    usable_at: Ns | None = None
    """It is whole again, and counts as usable from then on."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing is known to be lost."""
        return self.wire and self.hop is not Hop.SILENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracks:
    """All ports of this node."""

    ports: tuple[TrackedPort, ...]
    links: Mapping[str, Link]

    @property
    def usable(self) -> frozenset[str]:
        """Ports that count."""
        return frozenset(name for name, link in self.links.items() if link.usable)

    @property
    def told(self) -> frozenset[str]:
        """Ports that the peer may count on."""
        return frozenset(name for name in self.usable if self.links[name].hop is Hop.ANSWERS)

    @property
    def is_isolated(self) -> bool:
        """Whether no port has its wire."""
        return not any(link.wire for link in self.links.values())


@dataclass(frozen=True, slots=True)
class UsableChanged:
    """Fact: these are the usable ports now, and those of them that the peer may count on."""

    ports: frozenset[str]
    told: frozenset[str]


Input = PortChanged | HopChanged | TimerFired
Output = Record | UsableChanged
Result = tuple[Tracks, tuple[Output, ...]]


def initial(ports: tuple[TrackedPort, ...]) -> Tracks:
    """All ports usable."""
    return Tracks(ports=ports, links={port.name: Link() for port in ports})


def step(tracks: Tracks, event: Input, now: Ns) -> Result:
    """One event in; what is known of the ports, records, and whether other ones are usable now."""
    before = (tracks.usable, tracks.told)
    records: tuple[Output, ...] = ()
    match event:
        case PortChanged(name, up):
            was = tracks.links.get(name)
            if was is None or was.wire == up:
                return tracks, ()
            tracks = _changed(tracks, name, was, replace(was, wire=up), now)
            records = (_record("port", name, up=up),)
        case HopChanged(name, hop):
            was = tracks.links.get(name)
            if was is None or was.hop is hop:
                return tracks, ()
            tracks = _changed(tracks, name, was, replace(was, hop=hop), now)
            if Hop.SILENT in (was.hop, hop):
                records = (_record("next-hop", name, up=hop is not Hop.SILENT),)
        case TimerFired():
            links = {name: _ripened(link, now) for name, link in tracks.links.items()}
            if links == tracks.links:
                return tracks, ()
            tracks = replace(tracks, links=links)
    after = (tracks.usable, tracks.told)
    return tracks, records if after == before else (UsableChanged(*after), *records)


def next_deadline(tracks: Tracks) -> Ns | None:
    """When the next port counts as usable again."""
    return min((link.usable_at for link in tracks.links.values() if link.usable_at is not None), default=None)


def score(ports: tuple[TrackedPort, ...], usable: frozenset[str]) -> int:
    """What these usable ports are worth."""
    return sum(port.weight for port in ports if port.name in usable)


def is_better(ports: tuple[TrackedPort, ...], *, here: frozenset[str], there: frozenset[str]) -> bool:
    """Whether the role would do better there. The arguments after the first are usable ports."""
    sides_here, sides_there = ({p.inside for p in ports if p.name in usable} for usable in (here, there))
    lent = frozenset(p.name for p in ports if p.inside and p.lendable and True not in sides_here)
    return sides_here <= sides_there and score(ports, there - lent) > score(ports, here)


def _record(event: str, port: str, *, up: bool) -> Record:
    return Record(Level.INFO if up else Level.WARNING, event, {"port": port, "up": up}, history=True)


def _changed(tracks: Tracks, name: str, was: Link, link: Link, now: Ns) -> Tracks:
    """A loss counts at once; being whole again counts after ``up_ms``."""
    if not link.is_whole:
        link = replace(link, usable=False, usable_at=None)
    elif not was.is_whole:
        up_ms = next(port.up_ms for port in tracks.ports if port.name == name)
        link = replace(link, usable_at=Ns(now + ms(up_ms)))
    return replace(tracks, links={**tracks.links, name: _ripened(link, now)})


def _ripened(link: Link, now: Ns) -> Link:
    if link.usable_at is None or now < link.usable_at:
        return link
    return replace(link, usable=True, usable_at=None)
