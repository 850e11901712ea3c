# SPDX-License-Identifier: Apache-2.0
"""When packets that land here are handed over to the peer (``csrc/conduit.h``).

A node that is not ACTIVE passes what it is sent to the one that is, in whatever role it is itself: no session
is touched here, and the alternative is a black hole for hosts that send to this box. It takes a peer that
lives, says that it reigns, and is heard on the cross-connect; and it is for the peer's term, so that nobody
takes a packet that was meant for another reign.
"""

from __future__ import annotations

from typing import Final

from flexha.core.actions import SetConduit
from flexha.core.events import Role
from flexha.core.heartbeat import Liveness
from flexha.units import Term

XC: Final = "xc"
"""The heartbeat path that the conduit shares its cable with."""
OFF: Final = SetConduit(on=False, term=Term(0))


def wanted(role: Role, liveness: Liveness, now: SetConduit) -> SetConduit:
    """What the fast path is to do, which does ``now``.

    A peer that hands its role over does not read the conduit any more: what is sent there waits, and comes
    back by the wire (``csrc/wires.h``).
    """
    info, path = liveness.info, liveness.paths.get(XC)
    if role in {Role.INIT, Role.ACTIVE} or info is None:
        return OFF
    if not liveness.alive or path is None or not path.alive:
        return OFF
    if now.on and info.role is Role.JOINING and info.term == now.term:
        return now
    if info.role is not Role.ACTIVE:
        return OFF
    return SetConduit(on=True, term=info.term)
