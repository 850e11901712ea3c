# SPDX-License-Identifier: Apache-2.0
"""What a node wants done: the only outputs of the pure core.

Actions are imperatives. The caller performs them **in order**, and reports an outcome as a later event.
Ordering duties, which the core keeps and the caller must not undo:

* ``PersistTerm(t)`` is on disk (``TermPersisted``) before any ``SetRole(ACTIVE, t)``.
* ``SetRole`` to anything but ACTIVE (the fence) precedes what tells the wire that we left.
* ``SetRole(ACTIVE)`` precedes ``SendFrame`` of adverts and gratuitous ARPs, which announce it.
* ``SetWires(PARK)`` precedes the ``SetRole`` of a planned move, on both nodes; so nothing comes in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flexha.core.events import Role, Wires
from flexha.core.keys_wire import Keys, KeysAck
from flexha.core.shards import Shards
from flexha.units import Ns, Term


@dataclass(frozen=True, slots=True)
class PersistTerm:
    """Write the term to disk and fsync; then ``TermPersisted``."""

    term: Term


@dataclass(frozen=True, slots=True)
class PersistMaintenance:
    """Write to disk and fsync that the next start is to end in maintenance (or not any more).

    Then ``MaintenanceKept`` with the operator's ``request``, who waits for it.
    """

    request: int
    on: bool


@dataclass(frozen=True, slots=True)
class SetRole:
    """Set role and term in the fence (C), and in what heartbeats say; then ``RoleSet``."""

    role: Role
    term: Term


@dataclass(frozen=True, slots=True)
class SetWires:
    """What the workers are to do with the wires; then ``WiresSettled``."""

    mode: Wires


@dataclass(frozen=True, slots=True)
class SetPulse:
    """What our heartbeats say beside role and term; ``burst``: send one on every path at once."""

    ready: bool
    bye: bool = False
    burst: bool = False


@dataclass(frozen=True, slots=True)
class SetPorts:
    """Our usable ports: heartbeats say so from now on, the first of them at once."""

    up: frozenset[str]
    lent: frozenset[str] = frozenset()
    """ACTIVE: lent to the peer; else borrowed from it."""


@dataclass(frozen=True, slots=True)
class SetConduit:
    """Hand what is to be routed over to the peer, ACTIVE in this term; or do so no longer."""

    on: bool
    term: Term
    taken: frozenset[str] = frozenset()
    """Ports whose virtual MAC's frames go over, too."""
    borrowed: frozenset[str] = frozenset()
    """Ports on which we answer ARP for the peer."""
    lent: frozenset[str] = frozenset()
    """Ports of ours on which the peer does so for us."""


@dataclass(frozen=True, slots=True)
class SetWays:
    """What would leave by one of these ports, which are down here, leaves by the peer's."""

    by_peer: frozenset[str]


@dataclass(frozen=True, slots=True)
class SendFrame:
    """Put an Ethernet frame on a port's wire. ``fenced``: only while ACTIVE (VMAC frames)."""

    port: str
    frame: bytes
    fenced: bool = True


@dataclass(frozen=True, slots=True)
class SendSync:
    """Write bytes to the sync connection."""

    data: bytes


@dataclass(frozen=True, slots=True)
class HearKeys:
    """The peer changes keys: for the shell."""

    message: Keys | KeysAck


@dataclass(frozen=True, slots=True)
class CloseSync:
    """End the sync connection; the shell reconnects with its own back-off."""

    reason: str


@dataclass(frozen=True, slots=True)
class TrackChanges:
    """Tell the workers to track changes (a peer consumes them, or will soon), or to forget them."""

    on: bool


@dataclass(frozen=True, slots=True)
class StartSweep:
    """Let the workers walk these shards into the events rings: what was told of them so far counts no more.

    Each says ``SweepBegun`` where it begins in the stream of changes, and ``SweepWalked`` where it ends.
    """

    shards: Shards


@dataclass(frozen=True, slots=True)
class AskDigest:
    """Let each worker empty its queues into its ring, and put ``DigestDrained`` behind them."""


@dataclass(frozen=True, slots=True)
class SetDrainCredit:
    """How many more records the shell may drain into ``FlowsDrained`` (0: stop; changes coalesce in C)."""

    records: int


@dataclass(frozen=True, slots=True)
class SetCommit:
    """Output commit: on while a peer is in sync; off lets everything go that waits for an acknowledgement."""

    on: bool


@dataclass(frozen=True, slots=True)
class BeginImport:
    """All records of these shards follow: mark what we hold of them as stale; then ``FlowsImported(seq)``.

    ``repair``: they should be here already; note what is not.
    """

    seq: int
    shards: Shards
    repair: bool = False


@dataclass(frozen=True, slots=True)
class ImportFlows:
    """Put a batch into the fast path; then ``FlowsImported(seq)``. Performed in order."""

    seq: int
    sections: bytes


@dataclass(frozen=True, slots=True)
class EndImport:
    """These shards are complete: sweep what was not refreshed; then ``FlowsImported(seq)``.

    ``since``: what of it was in use since then is given back before: ``FlowsStranded``.
    """

    seq: int
    shards: Shards
    since: Ns | None = None


@dataclass(frozen=True, slots=True)
class AdoptFlows:
    """Take these sessions of the peer as our own, but for what is in our way; then ``FlowsAdopted(seq)``."""

    seq: int
    sections: bytes


@dataclass(frozen=True, slots=True)
class CompareDigests:
    """Compare the peer's digests with ours, as they are after all imports so far; then ``DigestsRead``."""

    seq: int
    shards: Shards
    sums: bytes
    counts: bytes


@dataclass(frozen=True, slots=True)
class AckFlows:
    """The peer has these live: ``marks`` is worker -> highest acknowledged ``ev_seq``."""

    marks: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class WithholdFlows:
    """The peer did not take these, told up to ``marks``: the ``AckFlows`` that comes next is not for them."""

    marks: Mapping[int, int]
    sections: bytes
    places: tuple[int, ...]
    """In the sections, ascending."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer to ``OperatorAsked(request)``."""

    request: int
    ok: bool
    text: str


class Level(StrEnum):
    """Severity of a record."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Record:
    """A decision with its inputs: goes to the log, and to ``flexhactl ha history`` if ``history``."""

    level: Level
    event: str
    fields: Mapping[str, object] = field(default_factory=dict)
    history: bool = False


@dataclass(frozen=True, slots=True)
class Count:
    """Add to a named control-plane counter, such as ``vrrp.wan.bad_ttl``."""

    name: str
    n: int = 1


@dataclass(frozen=True, slots=True)
class Stop:
    """All goodbyes are said: the daemon may end."""


Action = (
    PersistTerm
    | PersistMaintenance
    | SetRole
    | SetWires
    | SetPulse
    | SetPorts
    | SetConduit
    | SetWays
    | SendFrame
    | SendSync
    | CloseSync
    | HearKeys
    | TrackChanges
    | StartSweep
    | AskDigest
    | SetDrainCredit
    | SetCommit
    | BeginImport
    | ImportFlows
    | EndImport
    | AdoptFlows
    | CompareDigests
    | AckFlows
    | WithholdFlows
    | Reply
    | Record
    | Count
    | Stop
)
