# SPDX-License-Identifier: Apache-2.0
"""What decisions of the role machine (``role.py``) are made of: reserved terms, roles entered, claims."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from flexha.core import sync_orders
from flexha.core.actions import (
    Level,
    PersistMaintenance,
    PersistTerm,
    Record,
    Reply,
    SetPulse,
    SetRole,
    SetWires,
)
from flexha.core.events import Role, Wires
from flexha.core.heartbeat import PeerLost
from flexha.core.role_state import (
    LowerRouters,
    Output,
    RaiseRouters,
    Result,
    RoleState,
    StopRouters,
    is_usable,
)
from flexha.core.sync_orders import RECEIVING_ROLES
from flexha.units import TERM_MAX, Ns, Term, ms, next_own_term

HEIR_MS: Final = 50
"""A node that reigns by the peer's word waits so long for what the peer passes on."""
DISK_MS: Final = 2000
"""A claim to reign waits so long for its term to be on disk."""


# ---- terms -------------------------------------------------------------------------------------------
def reserve(state: RoleState) -> Result:
    """Have a usable term of our own written, unless one is on disk or on its way there."""
    if is_usable(state, state.reserved) or is_usable(state, state.persisting):
        return state, ()
    wanted = next_own_term(Term(max(state.term, state.heard, state.floor)), state.index)
    if wanted > TERM_MAX:  # a claim will say so, see below
        return state, ()
    return replace(state, floor=wanted, persisting=wanted), (PersistTerm(wanted),)


def follow(state: RoleState) -> Result:
    """If the peer reigns in a term that we have not heard of, it is the present one; keep ours above it."""
    peer = state.peer
    if peer is None or peer.role is not Role.ACTIVE or peer.term <= state.term:
        return reserve(state)
    state, outputs = reserve(replace(state, term=peer.term, claim=None))
    return state, (
        SetRole(state.role, state.term),
        sync_orders.TakeRole(state.role, state.term),
        *outputs,
        Record(Level.INFO, "term", {"term": state.term, "peer_role": peer.role.name}),
    )


# ---- changing roles ----------------------------------------------------------------------------------
def enter(
    state: RoleState,
    role: Role,
    now: Ns,
    reason: str,
    *,
    tell_sync: bool = True,
    fields: Mapping[str, object] | None = None,
) -> Result:
    """Be ``role`` in ``state.term``: first the fence, then what the links see, then everybody else.

    ``tell_sync=False``: the session stays as it is, for a handover still has to send through it.
    """
    was, state = state, replace(state, role=role, since=now, disk_slow=False)
    if role is not Role.ACTIVE:
        state = replace(state, damp=replace(state.damp, suspended_until=None), preferred_since=None)
    if role not in RECEIVING_ROLES:
        state = replace(state, claim=None, hold_until=None, handover=None, leave_at=None)
    elif was.role is Role.ACTIVE:
        state = replace(state, claim=None)
    if role is not Role.ACTIVE or reason != "handover":
        state = replace(state, heir=False)
    outputs: list[Output] = [SetRole(role, state.term)]
    if state.heir:
        state = replace(state, wires=Wires.PARK, wires_until=Ns(now + ms(HEIR_MS)))
        outputs.insert(0, SetWires(Wires.PARK))
    elif role is Role.ACTIVE:
        outputs.append(RaiseRouters())
    elif role is Role.INIT:
        outputs.append(StopRouters())
    elif was.role is Role.ACTIVE:
        outputs.append(LowerRouters())
    outputs.append(SetPulse(ready=state.ready, bye=role is Role.INIT, burst=True))
    if tell_sync:
        outputs.append(sync_orders.TakeRole(role, state.term))
    peer = was.peer
    inputs = {
        "from": was.role.name,
        "to": role.name,
        "term": state.term,
        "reason": reason,
        "peer": "none" if peer is None else peer.role.name,
        "peer_term": None if peer is None else peer.term,
        "wire": was.wire.value,
        "synced": was.synced,
        **(fields or {}),
    }
    outputs.append(Record(Level.INFO, "role", inputs, history=True))
    return state, tuple(outputs)


def claim_reign(state: RoleState, claim: PeerLost | str, now: Ns) -> Result:
    """Reign, in the reserved term; if there is none on disk yet, as soon as there is, within ``DISK_MS``."""
    term = state.reserved
    if term is None or not is_usable(state, term):
        until = state.claim_until if state.claim is not None else Ns(now + ms(DISK_MS))
        state, outputs = reserve(replace(state, claim=claim, claim_until=until))
        if not is_usable(state, state.persisting):
            error = f"no term is left below {TERM_MAX}: stop both nodes, remove state_dir/term on both"
            return enter(state, Role.FAULT, now, "terms-exhausted", fields={"error": error})
        waits = {"reason": reason_of(claim), "term": state.persisting}
        return state, (*outputs, Record(Level.WARNING, "claim-waits-for-disk", waits, history=True))
    fields: dict[str, object] = {}
    if isinstance(claim, PeerLost):
        fields = {"lost_role": claim.info.role.name, "lost_term": claim.info.term}
    return enter(replace(state, term=term, reserved=None), Role.ACTIVE, now, reason_of(claim), fields=fields)


def reason_of(claim: PeerLost | str) -> str:
    """The word for it in the history."""
    return claim.reason if isinstance(claim, PeerLost) else claim


def abdicate(state: RoleState, role: Role, now: Ns, reason: str, **fields: object) -> Result:
    """Reign no more because somebody else does."""
    answers = answer(state, ok=False, text=f"this node is ACTIVE no more: {reason}")
    state = replace(state, handover=None, hold_until=Ns(now + state.hold))
    state, outputs = enter(state, role, now, reason, fields=fields)
    state, more = reserve(state)
    return state, (*outputs, *more, *answers)


def retire(state: RoleState, request: int, now: Ns) -> Result:
    """Be in maintenance, as an operator asks; the answer follows when a restart will not forget it."""
    state, outputs = enter(state, Role.MAINTENANCE, now, "operator")
    return state, (*outputs, PersistMaintenance(request, on=True))


def answer(state: RoleState, *, ok: bool, text: str) -> tuple[Output, ...]:
    """Answer the operator who asked for the handover under way, if one did."""
    if state.handover is None or state.handover.request is None:
        return ()
    return (Reply(state.handover.request, ok, text),)
