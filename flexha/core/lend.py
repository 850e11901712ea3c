# SPDX-License-Identifier: Apache-2.0
"""Ports that ACTIVE lends to its peer, because its own wire there is gone and the peer has one. Spec: R8.

The role stays where it is. The *borrower* speaks for the virtual router of that port: it answers ARP for its
addresses, advertises, and hands what comes for the virtual MAC over by the conduit. ACTIVE, the *lender*,
is silent there, and sends by the borrower's port. Who lends and who borrows is told by one bit of the
heartbeats for each side, beside role and term::

    lender                                      borrower
    port lost: silent, says *lent*       ->     conduit, says *lent* too, announces
    port usable: says *up*, and *lent*   ->     silent, conduit goes on, says *lent* no more
    hears that: announces                       ends the conduit ``LINGER_MS`` later

So at any moment one of them speaks, and frames that take the old way meanwhile arrive as well.

A loan is one of the term that both are in: the borrower's ends with the lender's reign, with its own port,
with the cross-connect, and with its role. While the lender hands the role over (JOINING, in the same term)
it goes on, and the borrower reigns over a wire that knows it already. A side is lent whole: while one of its
ports is usable on ACTIVE the others are not lent, since heartbeats tell sides and not ports.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from flexha.core.events import PeerInfo, Role
from flexha.core.heartbeat import Liveness
from flexha.core.sync_orders import RECEIVING_ROLES
from flexha.core.track import TrackedPort
from flexha.units import Ns, Term, ms

LINGER_MS: Final = 1000
"""A port that was given back takes what switches still send to it for so long."""
_XC: Final = "xc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loans:
    """Ports by name. A node has either lent or borrowed."""

    lent: frozenset[str] = frozenset()
    borrowed: frozenset[str] = frozenset()
    given_back: frozenset[str] = frozenset()
    """Borrowed a moment ago: what is still sent here for them goes to the peer."""
    given_back_until: Ns | None = None

    @property
    def told(self) -> frozenset[str]:
        """What heartbeats say."""
        return self.lent | self.borrowed

    @property
    def taken(self) -> frozenset[str]:
        """Ports whose virtual MAC leads to the peer by the conduit."""
        return self.borrowed | self.given_back


NONE: Final = Loans()


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What a loan depends on."""

    role: Role
    term: Term
    hands_over: bool
    """A handover is under way: nothing new is lent."""
    ports: tuple[TrackedPort, ...]
    usable: frozenset[str]
    held: Collection[str]
    """Ports on which a foreign router is Active."""
    liveness: Liveness


def step(was: Loans, at: Situation, now: Ns) -> Loans:
    """The loans as they are to be now."""
    info = at.liveness.info
    if info is None or not _is_reachable(at.liveness) or info.hung:
        return NONE
    lent, borrowed = _lent(was, at, info), _borrowed(was, at, info)
    if at.role is Role.ACTIVE:  # a borrower that has got the role keeps the wire, as its own
        return Loans(lent=lent)
    given_back = (was.given_back | was.borrowed) - borrowed
    until = was.given_back_until
    if was.borrowed - borrowed:
        until = Ns(now + ms(LINGER_MS))
    if until is None or now >= until or info.role is not Role.ACTIVE:
        given_back, until = frozenset(), None
    return Loans(
        lent=_without_wire(was, at), borrowed=borrowed, given_back=given_back, given_back_until=until
    )


def next_deadline(loans: Loans) -> Ns | None:
    """When the conduit of ports that were given back ends."""
    return loans.given_back_until


def _is_reachable(liveness: Liveness) -> bool:
    path = liveness.paths.get(_XC)
    return liveness.alive and path is not None and path.alive


def _lent(was: Loans, at: Situation, info: PeerInfo) -> frozenset[str]:
    if at.role is not Role.ACTIVE or info.role not in RECEIVING_ROLES:
        return frozenset()
    sides = {port.inside for port in at.ports if port.name in at.usable}
    lost = {port.name for port in at.ports if port.lendable and port.inside not in sides} & info.ports_up
    if at.hands_over:
        lost &= was.lent
    returning = was.lent & at.usable & info.lent
    return frozenset(lost | returning)


def _without_wire(was: Loans, at: Situation) -> frozenset[str]:
    """Lent until the role was handed over: what waits here goes back by the conduit."""
    return was.lent - at.usable if at.role is Role.JOINING else frozenset()


def _borrowed(was: Loans, at: Situation, info: PeerInfo) -> frozenset[str]:
    if at.role not in RECEIVING_ROLES or info.term < at.term:
        return frozenset()
    if info.role is Role.JOINING:  # it hands its role over
        return was.borrowed & at.usable
    if info.role is not Role.ACTIVE:
        return frozenset()
    lendable = {port.name for port in at.ports if port.lendable}
    return (info.lent & lendable & at.usable) - info.ports_up - frozenset(at.held)
