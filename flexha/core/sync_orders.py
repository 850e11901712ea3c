# SPDX-License-Identifier: Apache-2.0
"""What the node tells the sync session of its role, and what the session tells the node (``sync``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flexha.core.events import Role
from flexha.units import Term

RECEIVING_ROLES: Final = (Role.JOINING, Role.PASSIVE)
"""Who has one of these follows an ACTIVE peer."""


# ---- orders of the node ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class TakeRole:
    """This node has a new role or term."""

    role: Role
    term: Term


@dataclass(frozen=True, slots=True)
class BeginDrain:
    """Tell (``Drained``) when the peer has what was sent so far; ``DrainFailed`` if it never will."""


@dataclass(frozen=True, slots=True)
class Settle:
    """The fence is closed: tell (``Drained``) when the peer has everything."""


@dataclass(frozen=True, slots=True)
class SendGo:
    """Give the peer the word to reign. ``moves``: as flap damping counts them."""

    term: Term
    moves: int = 0


@dataclass(frozen=True, slots=True)
class SendPassedOn:
    """Tell the peer, which reigns in ``term``, that it has what waited here."""

    term: Term


@dataclass(frozen=True, slots=True)
class PeerGone:
    """Heartbeats say that the peer is dead: do not wait for TCP to find out."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stuck:
    """A worker hangs, or does no more: with half of the table there is no sync."""

    on: bool


# ---- facts for the node ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SyncedChanged:
    """Whether our table follows the ACTIVE's."""

    synced: bool


@dataclass(frozen=True, slots=True)
class DrainFailed:
    """A drain or a settling cannot end well."""

    reason: str


@dataclass(frozen=True, slots=True)
class GoReceived:
    """The ACTIVE's word: it is fenced; reign in ``term`` or later.

    ``passes_on``: it does not read its wires, and will send on what waits there, then ``PassedOn``.
    ``moves``: so many it has counted for flap damping.
    """

    term: Term
    passes_on: bool = False
    moves: int = 0


@dataclass(frozen=True, slots=True)
class PassedOn:
    """What waited for the peer that was ACTIVE before us is in our wires."""

    term: Term


@dataclass(frozen=True, slots=True)
class ImportBroken:
    """The fast path keeps refusing what the peer sends."""

    error: str
