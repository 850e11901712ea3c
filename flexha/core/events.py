# SPDX-License-Identifier: Apache-2.0
"""What happens to a node: the only inputs of the pure core.

Events are facts in the past tense. The shell (``flexha.shell.driver``) or the simulator makes them;
``flexha.core.node.step`` consumes them. Times are ``Ns`` of the clock that the caller passes as ``now``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

from flexha.core.keys_wire import Keys, KeysAck
from flexha.core.shards import NONE, Shards
from flexha.units import Term


class Role(IntEnum):
    """Role of a node; the numbers are those of ``enum fp_role`` in ``csrc/fp_abi.h``."""

    INIT = 0
    JOINING = 1
    PASSIVE = 2
    ACTIVE = 3
    MAINTENANCE = 4
    FAULT = 5


class Wires(IntEnum):
    """What the workers do with the wires; the numbers are those of ``enum fp_wires`` (``csrc/wires.h``)."""

    READ = 0
    PARK = 1
    """Leave alone what comes; what was read is finished."""
    PASS_ON = 2
    """Not ACTIVE: what is for the virtual MAC goes to the peer by the same wire."""


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """What the peer's heartbeats say of it (``struct fp_peer``)."""

    role: Role
    term: Term
    incarnation: int
    ready: bool
    bye: bool
    priority: int
    ports_up: frozenset[str] = frozenset()
    """Its usable ports (``flexha.core.track``), as far as it tells them apart."""
    hung: bool = False
    """A part of it gets nowhere; if it was ACTIVE and is no more, it has given up the role for that."""
    lent: frozenset[str] = frozenset()
    """ACTIVE: ports that it lends us; else: ports on which it stands in for us (``flexha.core.lend``)."""


# ---- life of the daemon ----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Started:
    """The daemon is up, its ports are plugged. ``term``: the highest term ever persisted (0 at first).

    ``maintenance``: the node was in maintenance, and nobody has said that this is over.
    """

    term: Term
    incarnation: int
    maintenance: bool = False


@dataclass(frozen=True, slots=True)
class TimerFired:
    """``next_deadline(state)`` has passed."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """SIGTERM: hand over if the peer is ready, say goodbye, then ``Stop``."""


@dataclass(frozen=True, slots=True)
class TermPersisted:
    """``PersistTerm(term)`` is on disk."""

    term: Term


@dataclass(frozen=True, slots=True)
class TermPersistFailed:
    """``PersistTerm(term)`` could not be written: this node must not reign in it."""

    term: Term
    error: str


@dataclass(frozen=True, slots=True)
class MaintenanceKept:
    """``PersistMaintenance(request, on)`` is on disk."""

    request: int
    on: bool


@dataclass(frozen=True, slots=True)
class MaintenanceNotKept:
    """``PersistMaintenance(request, on)`` could not be written: a restart may forget it."""

    request: int
    on: bool
    error: str


@dataclass(frozen=True, slots=True)
class RoleSet:
    """``SetRole(role, term)`` is obeyed by all workers."""

    role: Role
    term: Term


@dataclass(frozen=True, slots=True)
class WiresSettled:
    """``SetWires(mode)`` is settled: PARK: nothing that was read waits; PASS_ON: what waited has gone."""

    mode: Wires


class Command(StrEnum):
    """What an operator may ask over the control socket."""

    FAILOVER = "failover"
    MAINTENANCE_ENTER = "maintenance-enter"
    MAINTENANCE_EXIT = "maintenance-exit"


@dataclass(frozen=True, slots=True)
class OperatorAsked:
    """An operator's command; the answer is a ``Reply`` action with the same ``request`` number."""

    request: int
    command: Command


# ---- heartbeat (C pulse thread) --------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PathUp:
    """The peer's first heartbeat on ``path``: ``"xc"`` or a port's name."""

    path: str


@dataclass(frozen=True, slots=True)
class PathDown:
    """Silence on ``path`` for ``dead_after`` intervals."""

    path: str


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """The peer changed what it says of itself (not sent for each heartbeat)."""

    peer: PeerInfo


@dataclass(frozen=True, slots=True)
class PeerConfirmedDead:
    """Something spoke for the peer's death, and it has answered no probe: all paths are silent now.

    ``marks``: what spoke for it, for instance ``"xc-carrier"``; ``probes``: sent on each path;
    ``silence_ms``: from the first mark on.
    """

    marks: frozenset[str]
    probes: int
    silence_ms: float


@dataclass(frozen=True, slots=True)
class PeerDied:
    """The life line has ended: the peer's process is no more. All paths are silent now."""


@dataclass(frozen=True, slots=True)
class SuspicionRefuted:
    """Something spoke for the peer's death, but it has answered a probe on ``path``, ``rtt_ms`` later."""

    marks: frozenset[str]
    probes: int
    path: str
    rtt_ms: float


@dataclass(frozen=True, slots=True)
class LeaseAsked:
    """We were ACTIVE, the pulse thread was away for ``stall_ms``, and it has asked whether we may go on.

    ``path``: where the answer came, ``asked_ms`` later; None: there was none, and nobody who could reign.
    """

    stall_ms: float
    asked_ms: float
    path: str | None


@dataclass(frozen=True, slots=True)
class Hung:
    """What of this node gets nowhere, or did until now: ``"control"``, ``"worker"``; none: all moves again.

    ``yielded``: we were ACTIVE with a peer that may take over, and C has fenced the data plane already.
    """

    what: frozenset[str]
    worker: int | None
    yielded: bool

    @property
    def is_stuck(self) -> bool:
        """A worker hangs. (Who hears that control does, does no more.)"""
        return self.worker is not None


@dataclass(frozen=True, slots=True)
class Fenced:
    """C heard a higher term while we were ACTIVE, and has fenced the data plane already."""

    term: Term


@dataclass(frozen=True, slots=True)
class PortChanged:
    """A port gained or lost its wire."""

    port: str
    up: bool


class Hop(StrEnum):
    """Whether the next hop behind a port answers those who ask it."""

    ANSWERS = "answers"
    DOUBTED = "doubted"
    """Some probes in a row have gone unanswered, not yet all that may."""
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class HopChanged:
    """The next hop behind a port is in another state."""

    port: str
    hop: Hop


# ---- VRRP ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class VrrpFrameReceived:
    """An Ethernet frame with IP protocol 112, as read from ``port`` (cut to 256 bytes)."""

    port: str
    frame: bytes


# ---- sync ------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SyncConnected:
    """The TCP connection to the peer over xc stands (either end may have opened it)."""


@dataclass(frozen=True, slots=True)
class SyncReceived:
    """Bytes from the sync connection, in order, cut anywhere."""

    data: bytes


@dataclass(frozen=True, slots=True)
class SayKeys:
    """The shell changes keys: tell the peer."""

    message: Keys | KeysAck


@dataclass(frozen=True, slots=True)
class SyncClosed:
    """The sync connection ended."""

    reason: str


@dataclass(frozen=True, slots=True)
class FlowsDrained:
    """``n`` records from the events rings: one batch.

    ``sections``: as they stand in the message; what they say is the fast path's. ``marks``: per worker, the
    highest ``ev_seq`` in it.
    """

    sections: bytes
    n: int
    marks: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardsLost:
    """Changes of these shards could not be tracked, and what was told of them before has been drained.

    Said again and again, until a sweep of them begins.
    """

    shards: Shards


@dataclass(frozen=True, slots=True)
class SweepBegun:
    """At this place in the stream of changes a worker has begun the last ``StartSweep``, for these shards.

    What it told of them before counts no more; all of it has been drained.
    """

    shards: Shards


@dataclass(frozen=True, slots=True)
class SweepWalked:
    """A worker has walked these shards for the last ``StartSweep``, and everything in them has been drained.

    Shards that were lost meanwhile are left out.
    """

    shards: Shards


@dataclass(frozen=True, slots=True)
class DigestDrained:
    """A worker's answer to ``AskDigest``: digests of these shards at this place in the stream of changes.

    Sums (8 bytes) and counts (4 bytes), little-endian, one of each for each shard, ascending. ``of``: all
    shards of that worker, those included that cannot be told now.
    """

    shards: Shards
    sums: bytes
    counts: bytes
    of: Shards = NONE


@dataclass(frozen=True, slots=True)
class Refused:
    """Records of batch ``seq`` that were not taken: their places in it, ascending, over all its sections."""

    seq: int
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FlowsImported:
    """``ImportFlows``, ``BeginImport`` and ``EndImport`` up to ``seq`` are done and live in the fast path.

    ``n``: records in them. ``refused``: those that were not taken. ``absurd``: so many of them no node of our
    configuration can have. ``error``: that of ``seq`` was refused as a whole. ``offence``: and that is the
    peer's fault, counted under this name.
    """

    seq: int
    n: int = 0
    error: str | None = None
    offence: str | None = None
    refused: tuple[Refused, ...] = ()
    absurd: int = 0


@dataclass(frozen=True, slots=True)
class FlowsStranded:
    """Some of the ``n`` sessions that ``EndImport(since)`` has swept: the ACTIVE peer has none of them."""

    sections: bytes
    n: int


@dataclass(frozen=True, slots=True)
class FlowsAdopted:
    """``AdoptFlows(seq)`` is done. ``error``: all of them were refused, for this."""

    seq: int
    taken: int = 0
    refused: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class DigestsRead:
    """``CompareDigests(seq, shards)`` is done: these shards differ."""

    seq: int
    shards: Shards
    differing: Shards


Event = (
    Started
    | TimerFired
    | StopRequested
    | TermPersisted
    | TermPersistFailed
    | MaintenanceKept
    | MaintenanceNotKept
    | RoleSet
    | WiresSettled
    | OperatorAsked
    | PathUp
    | PathDown
    | PeerHeard
    | PeerConfirmedDead
    | PeerDied
    | SuspicionRefuted
    | LeaseAsked
    | Hung
    | Fenced
    | PortChanged
    | HopChanged
    | VrrpFrameReceived
    | SyncConnected
    | SyncReceived
    | SyncClosed
    | SayKeys
    | FlowsDrained
    | ShardsLost
    | SweepBegun
    | SweepWalked
    | DigestDrained
    | FlowsImported
    | FlowsStranded
    | FlowsAdopted
    | DigestsRead
)
