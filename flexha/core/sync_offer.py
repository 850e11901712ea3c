# SPDX-License-Identifier: Apache-2.0
"""What becomes of the sessions of a node that reigned beside its peer, and has yielded.

Theory of operation. Who yields follows the winner, by a bulk: what the winner has too is the winner's word
from then on, and what was in its way here is gone. What is still stale when the bulk of its shards ends
(``EndImport``) only this node has. Of that the fast path gives back what was in use since the peer was last
heard (``FlowsStranded``), and forgets it as ever; and it is offered to the winner, one message after the
other. The winner takes a session if neither its ends, nor its mapping, nor a limit, nor its rules are against
it; else its own stay (``AdoptFlows``). What it has taken is its own, and comes back by ordinary sync.

Bounds. ``OFFERS_MAX`` messages of at most ``OFFER_SESSIONS`` each, at both ends. Who offers waits for answers
until ``OFFER_S`` behind the first offer, over connections. Who is offered something listens from a ``want``
that needs a bulk on until ``OFFER_S`` after both tables were found equal: to its peer only, while it reigns.
A reign that ended by a word (a handover) leaves nothing to offer: its heir has all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from flexha.core import sync_wire
from flexha.core.actions import Action, AdoptFlows, Count, Level, Record, SendSync
from flexha.core.events import FlowsAdopted, FlowsStranded
from flexha.core.sync_wire import Adopted, Offer
from flexha.units import NS_PER_S, Ns

OFFER_SESSIONS: Final = 1024
"""Most sessions that the shell puts into one ``FlowsStranded``."""
OFFERS_MAX: Final = 64
OFFER_S: Final = 10


# ---- the node that has yielded -------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """What this node has to offer, and what has become of it."""

    since: Ns | None = None
    """It reigned apart from its peer since then; None: it did not, or the bulk behind it has ended."""
    waiting: tuple[Offer, ...] = ()
    """Unanswered; the first one is with the peer, if the connection stands."""
    until: Ns | None = None
    offered: int = 0
    taken: int = 0
    refused: int = 0
    left_out: int = 0
    """More than can be offered."""
    made: int = 0
    """Offers since it yielded."""
    last_seq: int = 0


Result = tuple[Offers, tuple[Action, ...]]


def yielded(offers: Offers, since: Ns) -> Offers:
    """This node follows a peer that reigned as well."""
    return Offers(since=since, last_seq=offers.last_seq)


def found(offers: Offers, event: FlowsStranded, now: Ns) -> Result:
    """Sessions that only this node had."""
    if offers.made >= OFFERS_MAX:
        return replace(offers, left_out=offers.left_out + event.n), ()
    offer = Offer(offers.last_seq + 1, event.sections)
    first = not offers.waiting
    offers = replace(
        offers,
        waiting=(*offers.waiting, offer),
        until=offers.until if offers.until is not None else Ns(now + OFFER_S * NS_PER_S),
        offered=offers.offered + event.n,
        made=offers.made + 1,
        last_seq=offer.seq,
    )
    return (offers, say(offers)) if first else (offers, ())


def say(offers: Offers) -> tuple[Action, ...]:
    """Offer what is next; again, on a new connection."""
    return (SendSync(sync_wire.encode(offers.waiting[0])),) if offers.waiting else ()


def answered(offers: Offers, message: Adopted) -> Result:
    """The winner has judged an offer: the next one, or an end."""
    if not offers.waiting or message.seq != offers.waiting[0].seq:
        return offers, ()
    offers = replace(
        offers,
        waiting=offers.waiting[1:],
        taken=offers.taken + message.taken,
        refused=offers.refused + message.refused,
    )
    return (offers, say(offers)) if offers.waiting else _over(offers, Level.INFO)


def bulk_ended(offers: Offers) -> Offers:
    """Nothing more will be found."""
    return replace(offers, since=None)


def timer(offers: Offers, now: Ns) -> Result:
    """An answer may be overdue: then it ends as if the winner could not be asked."""
    if offers.until is None or now < offers.until:
        return offers, ()
    return _over(offers, Level.WARNING)


def _over(offers: Offers, level: Level) -> Result:
    fields = {
        "offered": offers.offered,
        "taken": offers.taken,
        "refused": offers.refused,
        "unanswered": len(offers.waiting),
        "left_out": offers.left_out,
    }
    return (
        Offers(since=offers.since, made=offers.made, last_seq=offers.last_seq),
        (Record(level, "sessions-offered", fields, history=True),),
    )


def reclaim(offers: Offers) -> tuple[Action, ...]:
    """The winner is gone before it has answered, and this node reigns: they are its own again."""
    return tuple(AdoptFlows(0, offer.records) for offer in offers.waiting)


# ---- the winner ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What this node would still take, and has taken."""

    left: int = 0
    """So many offers."""
    until: Ns | None = None
    """None: until both tables have been found equal, and a while."""
    taken: int = 0
    refused: int = 0


def listen() -> Adoption:
    """A peer comes that needs a bulk: it may have reigned."""
    return Adoption(left=OFFERS_MAX)


def agreed(adoption: Adoption, now: Ns) -> Adoption:
    """Both tables were found equal."""
    if not adoption.left or adoption.until is not None:
        return adoption
    return replace(adoption, until=Ns(now + OFFER_S * NS_PER_S))


def offered(adoption: Adoption, message: Offer, now: Ns) -> tuple[Adoption, tuple[Action, ...]]:
    """The peer had sessions that are not here."""
    if not adoption.left or (adoption.until is not None and now >= adoption.until):
        return adoption, unasked()
    return replace(adoption, left=adoption.left - 1), (AdoptFlows(message.seq, message.records),)


def unasked() -> tuple[Action, ...]:
    """An offer that nobody waits for."""
    return (Count("sync.unasked_offers"),)


def adopted(adoption: Adoption, event: FlowsAdopted) -> tuple[Adoption, tuple[Action, ...]]:
    """The fast path has judged an offer."""
    fields: dict[str, object] = {"taken": event.taken, "refused": event.refused}
    level = Level.INFO
    if event.error is not None:
        fields["error"], level = event.error, Level.WARNING
    adoption = replace(adoption, taken=adoption.taken + event.taken, refused=adoption.refused + event.refused)
    return adoption, (
        Count("sync.adopted_sessions", event.taken),
        Count("sync.not_adopted_sessions", event.refused),
        Record(level, "sessions-adopted", fields, history=True),
    )
