# SPDX-License-Identifier: Apache-2.0
"""Nodes at the points of a sync session from which its tests set out."""

from __future__ import annotations

from cores import (
    INCARNATIONS,
    Core,
    batch,
    config,
    received,
)

from flexha.core.events import (
    FlowsDrained,
    Role,
    SweepWalked,
    SyncConnected,
    SyncReceived,
)
from flexha.core.node import SyncLimits
from flexha.core.shards import ALL
from flexha.core.sync import Mode
from flexha.core.sync_wire import (
    Ack,
    Stream,
    Want,
)
from flexha.units import Term

LIMITS = SyncLimits(window_batches=4, batch_records=10, resume_hold_s=20.0)
OURS = Stream(INCARNATIONS[0], Term(2))
THEIRS = Stream(INCARNATIONS[1], Term(3))
EVEN = sum(1 << shard for shard in range(0, 64, 2))
"""The shards of one of two workers."""


def drained(n: int = 1, *, mark: int = 0) -> FlowsDrained:
    return FlowsDrained(batch(1, n).sections, n, {0: mark} if mark else {})


def active(limits: SyncLimits = LIMITS) -> Core:
    """ACTIVE, with a peer that has just connected."""
    core = Core(config(0, limits=limits)).become_active()
    core.do(SyncConnected())
    return core


def joins(core: Core, stream: Stream | None = None, seq: int = 0, role: Role = Role.JOINING) -> SyncReceived:
    """The peer's first words: who it is, and what it wants."""
    return received(core.peer_hello(role), Want(stream, seq))


def sending() -> Core:
    """ACTIVE; the bulk, numbers 1 to 3 with two records, is sent and acknowledged."""
    core = active()
    core.do(joins(core), drained(2), SweepWalked(ALL), received(Ack(3)))
    return core


def in_sync() -> Core:
    """The same, and both tables have been found equal."""
    core = sending()
    core.agree()
    return core


def joining() -> Core:
    """JOINING beside an ACTIVE peer that has said hello."""
    core = Core(config(0, limits=LIMITS)).become_joining(3)
    core.do(SyncConnected(), received(core.peer_hello(Role.ACTIVE)))
    return core


def mode(core: Core) -> Mode:
    return core.state.session.mode
