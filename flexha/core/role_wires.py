# SPDX-License-Identifier: Apache-2.0
"""What a planned move of the role does with the wires, so that nothing is lost while nobody forwards.

::

    the old ACTIVE                                   the heir
    READ ── everything sent is live there ──> PARK
    PARK ── settled: fence, settle, the word ──>     reigns, PARK, and announces nothing
    PARK ── hears it reign ──> PASS_ON
    PASS_ON ── settled: ``passed_on`` ──>            READ, and announces
    PASS_ON ── ``PASS_ON_MS`` later ──> READ

What waits in the old one's wires reaches the heir's, in order, before the heir sends anything from the
virtual MAC; what switches still send to the old one goes the same way until they have learned. Each wait has
its end: an heir that hears nothing for ``HEIR_MS`` goes on; an old ACTIVE whose word is not taken reads on,
as what it is by then.

Beside the roles: ``tend`` looks at the wires after every decision, in every role.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from flexha.core import sync_orders
from flexha.core.actions import Level, Record, SetWires
from flexha.core.events import Role, Wires, WiresSettled
from flexha.core.role_state import Input, RaiseRouters, Result, RoleState, reigns
from flexha.core.sync_orders import PassedOn
from flexha.units import Ns, ms

PASS_ON_MS: Final = 1000
"""Long enough for every switch to learn, should the first gratuitous ARPs be lost."""


def park(state: RoleState) -> Result:
    """Leave the wires alone."""
    return replace(state, wires=Wires.PARK, wires_until=None), (SetWires(Wires.PARK),)


def tend(state: RoleState, event: Input, now: Ns) -> Result:
    """After each decision: go on with the wires, or read them when nothing speaks against it any more."""
    if state.wires is Wires.READ:
        return state, ()
    if not _has_reason(state) or (state.wires_until is not None and now >= state.wires_until):
        return _read(state, complete=False)
    match event:
        case PassedOn(term) if state.heir and term == state.term:
            if not _has_reason(replace(state, heir=False)):
                return _read(state, complete=True)
            return _announce(replace(state, heir=False), complete=True)  # a handover parks them by now
        case WiresSettled(Wires.PASS_ON) if state.wires is Wires.PASS_ON:
            record = Record(Level.INFO, "passed-on", {"term": state.term}, history=True)
            return state, (sync_orders.SendPassedOn(state.term), record)
    peer = state.peer
    if state.given is None or peer is None or not reigns(peer) or peer.term < state.given:
        return state, ()
    state = replace(state, wires=Wires.PASS_ON, wires_until=Ns(now + ms(PASS_ON_MS)), given=None)
    return state, (SetWires(Wires.PASS_ON),)


def _has_reason(state: RoleState) -> bool:
    match state.role:
        case Role.ACTIVE:
            return state.heir or (state.handover is not None and state.handover.parked)
        case Role.INIT | Role.FAULT:
            return False
        case _:
            waits = state.handover is not None or state.given is not None or state.claim is not None
            return state.wires is Wires.PASS_ON or waits


def _read(state: RoleState, *, complete: bool) -> Result:
    state, outputs = _announce(state, complete=complete) if state.heir else (state, ())
    state = replace(state, wires=Wires.READ, wires_until=None, given=None, heir=False)
    return state, (SetWires(Wires.READ), *outputs)


def _announce(state: RoleState, *, complete: bool) -> Result:
    fields = {"term": state.term, "complete": complete}
    return state, (RaiseRouters(), Record(Level.INFO, "announced", fields, history=True))
