# SPDX-License-Identifier: Apache-2.0
"""When packets that land here are handed over to the peer (``csrc/conduit.h``).

A node that is not ACTIVE passes what it is sent to the one that is, in whatever role it is itself: no session
is touched here, and the alternative is a black hole for hosts that send to this box. It takes a peer that
lives, says that it reigns, and is heard on the cross-connect; and it is for the peer's term, so that nobody
takes a packet that was meant for another reign.

The other way round, ACTIVE sends by the peer's ports what would leave by ports that are of no use here, or
that are lent (``lend``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from flexha.core.actions import SetConduit, SetWays
from flexha.core.events import Role
from flexha.core.heartbeat import Liveness
from flexha.core.lend import Loans
from flexha.units import Term

XC: Final = "xc"
"""The heartbeat path that the conduit shares its cable with."""
OFF: Final = SetConduit(on=False, term=Term(0))
HERE: Final = SetWays(frozenset())


def _is_reachable(liveness: Liveness) -> bool:
    path = liveness.paths.get(XC)
    return liveness.alive and path is not None and path.alive


def wanted(role: Role, liveness: Liveness, loans: Loans, now: SetConduit) -> SetConduit:
    """What the fast path is to do, which does ``now``.

    A peer that hands its role over does not read the conduit any more: what is sent there waits, and comes
    back by the wire (``csrc/wires.h``).
    """
    info = liveness.info
    off = replace(OFF, lent=loans.lent)
    if role in {Role.INIT, Role.ACTIVE} or info is None or not _is_reachable(liveness):
        return off
    hands_over = now.on and info.role is Role.JOINING and info.term == now.term
    if info.role is not Role.ACTIVE and not hands_over:
        return off
    return SetConduit(on=True, term=info.term, taken=loans.taken, borrowed=loans.borrowed, lent=loans.lent)


def ways(
    role: Role, ports: Iterable[str], usable: frozenset[str], liveness: Liveness, loans: Loans
) -> SetWays:
    """Which of our ports the peer is to stand in for: it has them, and we have not."""
    info = liveness.info
    if role is not Role.ACTIVE or info is None or info.role is Role.ACTIVE or not _is_reachable(liveness):
        return HERE
    return SetWays((frozenset(ports) - usable) & info.ports_up | loans.lent)
