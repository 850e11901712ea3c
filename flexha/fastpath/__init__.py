# SPDX-License-Identifier: Apache-2.0
"""The C fast path, as one typed object.

``Fastpath`` wraps each call of ``csrc/fp_abi.h`` in one method. It copies: no cdata escapes, results are
bytes and the frozen dataclasses of ``records``. All calls come from one thread (the control thread); the GIL
is released during each.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from flexha.fastpath import marshal
from flexha.fastpath.batch import COLUMN_WIDTHS, RecordBatch, column_width
from flexha.fastpath.errors import FastpathError, FastpathMismatchError
from flexha.fastpath.fates import FateKey, FatePage
from flexha.fastpath.flow_page import EndpointWant, FlowPage, FlowWant
from flexha.fastpath.lib import ffi
from flexha.fastpath.lib import lib as clib  # `lib` stays the name of the submodule
from flexha.fastpath.records import (
    Action,
    Address,
    CaptureConfig,
    Commit,
    ConduitStats,
    Digests,
    Drained,
    Driver,
    FastpathConfig,
    Fate,
    Fence,
    Filtering,
    FlowFlag,
    FlowRecord,
    FlowState,
    Form,
    Forward,
    Hang,
    HeartbeatFlag,
    Imported,
    LeaseStats,
    Limits,
    LineStats,
    Mark,
    Neighbour,
    NeighbourMoved,
    NeighbourWanted,
    Op,
    Out,
    PathStats,
    Peer,
    Policy,
    PoolConfig,
    PoolUse,
    PortConfig,
    PortStats,
    PulseConfig,
    PulseEvent,
    PulseKind,
    Punt,
    PuntedFrame,
    Repair,
    RepairKind,
    Route,
    Rule,
    Service,
    SessionLine,
    Source,
    SteppedFrame,
    SyncConfig,
    SyncFilter,
    SyncStats,
    Timeouts,
    Verdict,
    Way,
    WorkerStats,
    Zone,
)

if TYPE_CHECKING:
    from flexha.fastpath.lib import CData

__all__ = [
    "ALL_SHARDS",
    "COLUMN_WIDTHS",
    "Action",
    "Address",
    "CaptureConfig",
    "Commit",
    "ConduitStats",
    "Digests",
    "Drained",
    "Driver",
    "EndpointWant",
    "Fastpath",
    "FastpathConfig",
    "FastpathError",
    "FastpathMismatchError",
    "Fate",
    "FateKey",
    "FatePage",
    "Fence",
    "Filtering",
    "FlowFlag",
    "FlowPage",
    "FlowRecord",
    "FlowState",
    "FlowWant",
    "Form",
    "Forward",
    "Hang",
    "HeartbeatFlag",
    "Imported",
    "LeaseStats",
    "Limits",
    "LineStats",
    "Mark",
    "Neighbour",
    "NeighbourMoved",
    "NeighbourWanted",
    "Op",
    "Out",
    "PathStats",
    "Peer",
    "Policy",
    "PoolConfig",
    "PoolUse",
    "PortConfig",
    "PortStats",
    "PulseConfig",
    "PulseEvent",
    "PulseKind",
    "Punt",
    "PuntedFrame",
    "Repair",
    "RepairKind",
    "Route",
    "Rule",
    "Service",
    "SessionLine",
    "Source",
    "SteppedFrame",
    "SyncConfig",
    "SyncFilter",
    "SyncStats",
    "Timeouts",
    "Verdict",
    "Way",
    "WorkerStats",
    "Zone",
    "column_width",
    "lag_bounds_us",
    "verdict_table",
]

BATCH_MAX: Final = 4096
"""Records of the largest batch that is drained, imported or walked in one call."""
CAPTURE_BYTES: Final = 256 << 10
"""Of captured packets in one call: a few of the largest."""
PUNTS_MAX: Final = 64
PULSE_EVENTS_MAX: Final = 32
LOG_MAX: Final = 64
HELD_MAX: Final = 16
REPAIRS_MAX: Final = 64
ALL_SHARDS: Final = (1 << 64) - 1
_N_SHARDS: Final = marshal.lib_constant("FP_SHARDS")
_OP_SWEEP: Final = marshal.lib_constant("FP_OP_SWEEP")
_OP_DIGEST: Final = marshal.lib_constant("FP_OP_DIGEST")
_Mark: TypeAlias = tuple[int | None, int | None, Digests | None]
_NO_MARKER: Final[_Mark] = (None, None, None)


def lock_memory() -> None:
    """Whatever this process touches from now on stays in memory.

    Without CAP_IPC_LOCK, and with a limit, memory runs out at the limit: ask first whether it may. Raises:
    FastpathError
    """
    _ensure(clib.fp_memory_lock(), "fp_memory_lock")


def lag_bounds_us() -> tuple[int, ...]:
    """Upper ends of the buckets of ``SyncStats.lag`` and ``.hold``, but for the last, which has none."""
    return tuple(int(clib.fp_lag_bucket_us(i)) for i in range(marshal.lib_constant("FP_LAG_BUCKETS") - 1))


def verdict_table() -> tuple[Verdict, ...]:
    """Every verdict a packet can end in, in the order of their numbers."""
    return tuple(
        Verdict(
            name=marshal.text(clib.fp_verdict_name(i)),
            help=marshal.text(clib.fp_verdict_help(i)),
            drop=bool(clib.fp_verdict_is_drop(i)),
        )
        for i in range(clib.fp_verdict_count())
    )


def _ensure(rc: int, call: str, err: CData | None = None) -> int:
    """Pass a result through, or raise what a negative one means."""
    if rc < 0:
        raise FastpathError(-rc, call, "" if err is None else marshal.text(err.text))
    return rc


class Fastpath:
    """Ports, workers, flow tables and the pulse thread of one node.

    Opening it makes the TAPs (in the caller's network namespace) and binds the heartbeat socket; ``start``
    starts the threads. As a context manager it is stopped and closed on the way out, TAPs included.
    """

    def __init__(self, config: FastpathConfig) -> None:
        self._config: Final = config
        self._batch: Final = RecordBatch(BATCH_MAX)
        self._punts: Final = ffi.new("struct fp_punt[]", PUNTS_MAX)
        self._log: Final = ffi.new("struct fp_session_log[]", LOG_MAX)
        self._pulse_events: Final = ffi.new("struct fp_pulse_event[]", PULSE_EVENTS_MAX)
        self._lost: Final = ffi.new("uint64_t *")
        self._capture_room = ffi.new("uint8_t[]", 1)
        self._walkers_left = 0
        self._sweeps = 0
        self._swept = 0
        self._swept_again = 0
        self._sweeping = 0
        self._lost_of = [0] * config.n_workers
        self._n_rules = 0
        self._drain_from = 0
        err = ffi.new("struct fp_error *")
        out = ffi.new("fp_dp **")
        _ensure(clib.fp_open(marshal.config(config), out, err), "fp_open", err)
        self._dp: CData = out[0]
        self._events_fd: Final = _ensure(clib.fp_events_fd(self._dp), "fp_events_fd")

    # ---- life ----
    @property
    def handle(self) -> CData:
        """For ``flexha.fastpath.channel``; nobody else."""
        return self._dp

    @property
    def config(self) -> FastpathConfig:
        """What this was opened with."""
        return self._config

    def start(self) -> str:
        """Start the workers and the pulse thread.

        Returns a remark for the log, such as that heartbeats run without SCHED_FIFO, or "".
        """
        err = ffi.new("struct fp_error *")
        _ensure(clib.fp_start(self._dp, err), "fp_start", err)
        return marshal.text(err.text)

    def stop(self) -> None:
        """Send what waits, then join the threads. Idempotent."""
        _ensure(clib.fp_stop(self._dp), "fp_stop")

    def close(self) -> None:
        """Stop, and free everything; the TAPs go with it. Idempotent."""
        clib.fp_close(self._dp)
        self._dp = ffi.NULL

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- role and fence ----
    def set_role(self, role: int, term: int) -> None:
        """Set role (``enum fp_role``) and term; returns once all workers obey.

        Raises: FastpathError(ESTALE) for an older term.
        """
        _ensure(clib.fp_set_role(self._dp, role, term), "fp_set_role")

    def set_wires(self, mode: int) -> None:
        """What to do with the wires (``enum fp_wires``); returns at once."""
        _ensure(clib.fp_wires_set(self._dp, mode), "fp_wires_set")

    def wires_settled(self) -> bool:
        """Whether that is settled; ``events_fd`` becomes readable when it is."""
        return bool(_ensure(clib.fp_wires_settled(self._dp), "fp_wires_settled"))

    def fence(self) -> Fence:
        """Role and term as the workers read them before each transmission."""
        role = ffi.new("uint32_t *")
        term = ffi.new("uint64_t *")
        _ensure(clib.fp_fence_read(self._dp, role, term), "fp_fence_read")
        return Fence(role=int(role[0]), term=int(term[0]))

    def set_conduit(
        self,
        *,
        on: bool,
        term: int = 0,
        vmac_ports: Iterable[int] = (),
        borrowed: Iterable[int] = (),
        lent: Iterable[int] = (),
    ) -> None:
        """Hand what is to be routed over to the peer, ACTIVE in ``term``.

        On ``vmac_ports`` that goes for what is sent to the virtual MAC address, too; on ``borrowed`` ports
        we answer ARP for the peer; on ``lent`` ones the peer does for us.
        """
        masks = [sum(1 << port for port in ports) for ports in (vmac_ports, borrowed, lent)]
        _ensure(clib.fp_conduit_set(self._dp, int(on), term, *masks), "fp_conduit_set")

    def conduit_stats(self, worker: int) -> ConduitStats:
        """Packets to and from the peer, of one worker."""
        out = ffi.new("struct fp_conduit_stats *")
        _ensure(clib.fp_conduit_stats_read(self._dp, worker, out), "fp_conduit_stats_read")
        return marshal.conduit_stats(out)

    def set_carrier(self, port: int, *, up: bool) -> None:
        """Mirror the state of a port's wire to the carrier of its host device, for routing daemons to see."""
        _ensure(clib.fp_port_carrier(self._dp, port, int(up)), "fp_port_carrier")

    def reopen_port(self, port: int) -> None:
        """Driver packet: the wire's device has gone, and is there again as another one.

        Raises: FastpathError with the reason; the port is then as dead as it was.
        """
        err = ffi.new("struct fp_error *")
        _ensure(clib.fp_port_reopen(self._dp, port, err), "fp_port_reopen", err)

    # ---- pulse ----
    def set_pulse(self, flags: HeartbeatFlag, priority: int) -> None:
        """Set what our heartbeats say beside role and term."""
        _ensure(clib.fp_pulse_set(self._dp, int(flags), priority), "fp_pulse_set")

    def set_pulse_keys(self, keys: Sequence[bytes]) -> None:
        """Sign heartbeats with the first key, and believe all of them.

        Raises: FastpathError EBUSY while the keys given last are not in use yet.
        """
        given = ffi.new("uint8_t[][16]", list(keys))
        _ensure(clib.fp_pulse_keys(self._dp, given, len(keys)), "fp_pulse_keys")

    def burst_pulse(self) -> None:
        """Send one heartbeat on every path at once."""
        _ensure(clib.fp_pulse_burst(self._dp), "fp_pulse_burst")

    def control_beat(self) -> None:
        """Tell the pulse thread that the control plane is alive."""
        _ensure(clib.fp_control_beat(self._dp), "fp_control_beat")

    def pulse_events(self) -> list[PulseEvent]:
        """Take what the pulse thread has to report, oldest first."""
        events: list[PulseEvent] = []
        while True:
            n = _ensure(
                clib.fp_pulse_events(self._dp, self._pulse_events, PULSE_EVENTS_MAX), "fp_pulse_events"
            )
            events += [marshal.pulse_event(self._pulse_events[i]) for i in range(n)]
            if n < PULSE_EVENTS_MAX:
                return events

    def path_stats(self) -> list[PathStats]:
        """Heartbeat counters: element 0 is xc, element 1 + i is port i."""
        n = 1 + len(self._config.ports)
        out = ffi.new("struct fp_path_stats[]", n)
        _ensure(clib.fp_pulse_stats(self._dp, out, n), "fp_pulse_stats")
        return [marshal.path_stats(out[i]) for i in range(n)]

    def lease_stats(self) -> LeaseStats:
        """How often this node had to ask whether it still has its role, and what of it hangs."""
        out = ffi.new("struct fp_lease_stats *")
        _ensure(clib.fp_lease_read(self._dp, out), "fp_lease_read")
        return marshal.lease_stats(out)

    def line_stats(self) -> LineStats:
        """Whether the life line stands, and who was refused."""
        out = ffi.new("struct fp_line_stats *")
        _ensure(clib.fp_line_read(self._dp, out), "fp_line_read")
        return marshal.line_stats(out)

    # ---- what waits to be drained ----
    @property
    def events_fd(self) -> int:
        """An eventfd: readable when flow changes, punts or pulse events were added to an empty queue.

        It is an edge: after it fires, call ``clear_wakeup`` *first*, then take until nothing is left. Whoever
        leaves something behind comes back by himself.
        """
        return self._events_fd

    def clear_wakeup(self) -> None:
        """Make ``events_fd`` unreadable again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._events_fd)

    def punts(self) -> list[Punt]:
        """Take the frames and neighbour requests that wait for the control plane."""
        punts: list[Punt] = []
        while True:
            n = _ensure(clib.fp_punts_drain(self._dp, self._punts, PUNTS_MAX), "fp_punts_drain")
            punts += [marshal.punt(self._punts[i]) for i in range(n)]
            if n < PUNTS_MAX:
                return punts

    def inject(self, port: int, frame: bytes, *, fenced: bool) -> None:
        """Send a frame to a port's wire; ``fenced``: it leaves only while this node is ACTIVE.

        Raises: FastpathError(ENOBUFS) when too many frames wait already.
        """
        _ensure(clib.fp_inject(self._dp, port, frame, len(frame), int(fenced)), "fp_inject")

    # ---- next hops ----
    def commit_fib(self, routes: Sequence[Route], neighbours: Sequence[Neighbour]) -> None:
        """Replace routes and neighbours in all workers; frames that waited for a neighbour are retried."""
        c_routes = marshal.routes(routes)
        c_neighs = marshal.neighbours(neighbours)
        _ensure(
            clib.fp_fib_commit(self._dp, c_routes, len(routes), c_neighs, len(neighbours)),
            "fp_fib_commit",
        )

    # ---- policy ----
    def commit_policy(self, policy: Policy) -> None:
        """Replace rules and forwards in all workers, from their next burst on; sessions stay as they are.

        Raises: FastpathError(EINVAL) with what cannot be taken.
        """
        err = ffi.new("struct fp_error *")
        c_policy = marshal.PolicyCdata(policy)
        _ensure(clib.fp_policy_commit(self._dp, c_policy.cfg, err), "fp_policy_commit", err)
        self._n_rules = len(policy.rules)

    def review_policy(self, page: int = 1024) -> Iterator[int]:
        """Close the sessions that the policy does not allow as they are; how many, page by page.

        Raises: FastpathError(EPERM) unless ACTIVE.
        """
        cursor = ffi.new("struct fp_cursor *")
        closed = ffi.new("uint32_t *")
        while not cursor.done:
            closed[0] = 0
            _ensure(clib.fp_policy_review(self._dp, cursor, page, closed), "fp_policy_review")
            yield int(closed[0])

    def session_log(self) -> list[SessionLine]:
        """Take what rules with ``log`` have decided."""
        lines: list[SessionLine] = []
        while True:
            n = _ensure(clib.fp_session_log_drain(self._dp, self._log, LOG_MAX), "fp_session_log_drain")
            lines += [marshal.session_line(self._log[i]) for i in range(n)]
            if n < LOG_MAX:
                return lines

    def pool_use(self) -> list[PoolUse]:
        """External ports in use, by pool."""
        n = len(self._config.pools)
        out = ffi.new("struct fp_pool_use[]", max(n, 1))
        _ensure(clib.fp_pools_read(self._dp, out, n), "fp_pools_read")
        return [PoolUse(int(out[i].tcp), int(out[i].udp), int(out[i].icmp)) for i in range(n)]

    def policy_hits(self) -> list[int]:
        """What each rule has decided, by its number; element 0 counts what no rule matched."""
        out = ffi.new("uint64_t[]", self._n_rules + 1)
        n = _ensure(clib.fp_policy_hits(self._dp, out, self._n_rules + 1), "fp_policy_hits")
        return list(ffi.unpack(out, n)) if n else []

    # ---- sync: changes out ----
    def track_changes(self, *, on: bool) -> None:
        """On: changes are queued for ``drain``. Off: they are forgotten, tombstones are freed at once."""
        _ensure(clib.fp_sync_track(self._dp, int(on)), "fp_sync_track")
        self._walkers_left = self._swept = self._sweeping = 0
        self._lost_of = [0] * self._config.n_workers

    def sweep_start(self, shards: int = ALL_SHARDS) -> None:
        """Let every worker tell all records of these shards; ends with ``Drained.swept``.

        While another one is under way, both become one, which begins anew.
        """
        _ensure(clib.fp_sweep_start(self._dp, shards), "fp_sweep_start")
        self._sweeping |= shards
        self._swept &= ~shards
        self._swept_again = shards if self._walkers_left == 0 else self._swept_again | shards
        self._sweeps += 1
        self._walkers_left = self._config.n_workers

    def digest_ask(self) -> None:
        """Let every worker tell what waits, and then ``Drained.digests`` of its shards."""
        _ensure(clib.fp_digest_ask(self._dp), "fp_digest_ask")

    def drain(self, limit: int = 1024) -> list[Drained]:
        """Take at most ``limit`` changes of all workers, as batches in the order of the stream.

        An empty list means that nothing waits. The marks stand in the batch that has the records: once the
        peer has it live, it has all up to them.
        """
        limit = min(limit, BATCH_MAX)
        n_workers = self._config.n_workers
        spans: list[tuple[int, int, int]] = []
        n, more = 0, False
        for i in range(n_workers):
            worker = (self._drain_from + i) % n_workers
            room = limit - n
            if room == 0:
                # The next drain begins where this one stopped, so that no worker starves.
                self._drain_from = worker
                more = True
                break
            got = _ensure(
                clib.fp_events_drain(self._dp, worker, self._batch.at(n), room, self._lost), "fp_events_drain"
            )
            self._lost_of[worker] = int(self._lost[0])
            if got:
                spans.append((worker, n, n + got))
            more = more or got == room
            n += got
        lost = self.lost_shards
        if len(spans) == 1:
            ((worker, _, end),) = spans
            at, sections = self._batch.pack(0, end)
            if at == end:  # no marker in it, as nearly always
                return [Drained(sections, end, {worker: self._batch.ev_seq(end - 1)}, lost, more=more)]
        if not spans:
            return [Drained(b"", 0, {}, lost)] if lost else []
        return self._batches(spans, lost, more=more)

    def _batches(self, spans: list[tuple[int, int, int]], lost: int, *, more: bool) -> list[Drained]:
        """Cut what was drained behind each marker; ``spans``: worker, first record and end."""
        batches: list[Drained] = []
        at, end = 0, spans[-1][2]
        while at < end:
            begin = at
            at, sections = self._batch.pack(begin, end)
            marks = {
                worker: self._batch.ev_seq(min(last, at) - 1)
                for worker, first, last in spans
                if first < at and last > begin
            }
            n, mark = at - begin, _NO_MARKER
            if at < end:
                worker = next(worker for worker, first, last in spans if first <= at < last)
                marks[worker] = self._batch.ev_seq(at)
                mark = self._marker(worker, self._batch.at(at))
                at += 1
            batches.append(Drained(sections, n, marks, lost, *mark, more=more or at < end))
        return batches

    def _marker(self, worker: int, record: CData) -> _Mark:
        """What a marker means: a sweep begins, it is complete, or here are digests."""
        if record.op == _OP_DIGEST:
            out = ffi.new("struct fp_digest[]", _N_SHARDS)
            _ensure(clib.fp_digest_read(self._dp, worker, out), "fp_digest_read")
            own = sum(1 << shard for shard in range(worker, _N_SHARDS, self._config.n_workers))
            return None, None, marshal.digests(out, own, without=self._sweeping)
        if record.op == _OP_SWEEP:
            return int(record.id), None, None
        if record.version != self._sweeps & 0xFFFFFFFF:
            self._swept |= int(record.id) & ~self._swept_again  # of a walk that has begun anew since
            return _NO_MARKER
        self._swept |= int(record.id)
        self._walkers_left -= 1
        if self._walkers_left:
            return _NO_MARKER
        swept, self._swept, self._sweeping = self._swept, 0, 0
        return None, swept, None

    @property
    def lost_shards(self) -> int:
        """Shards (a bit each) of which the last drain knew that changes could not be tracked."""
        lost = 0
        for mask in self._lost_of:
            lost |= mask
        return lost

    def await_events(self, *, on: bool) -> None:
        """On (as at first): a change makes ``events_fd`` readable, an earlier one does not: look again.

        Off: whoever drains looks by himself, and nobody is woken for it.
        """
        _ensure(clib.fp_events_await(self._dp, int(on)), "fp_events_await")

    def ack(self, marks: Mapping[int, int]) -> None:
        """The peer has all up to ``marks`` (worker: ``ev_seq``) live: tombstones, and what waits, may go."""
        for worker, ev_seq in marks.items():
            _ensure(clib.fp_events_ack(self._dp, worker, ev_seq), "fp_events_ack")

    def set_commit(self, *, on: bool) -> None:
        """On: a peer is in sync; packets of sessions that it does not have wait. Off: none waits any more."""
        _ensure(clib.fp_commit_set(self._dp, int(on)), "fp_commit_set")

    # ---- sync: records in ----
    def refused(self, marks: Mapping[int, int], sections: bytes, places: Sequence[int]) -> None:
        """The peer did not take what stands at these places, told up to ``marks``; ``ack`` is to follow."""
        self._batch.unpack(sections)
        self._batch.pick(places)
        for worker, ev_seq in marks.items():
            _ensure(
                clib.fp_events_refused(self._dp, worker, ev_seq, self._batch.at(0), len(places)),
                "fp_events_refused",
            )

    def import_sections(self, sections: bytes) -> Imported:
        """Put a batch of the peer's records into the tables; returns once they are live.

        Raises: FastpathError, of which nothing is used: EBADMSG, EDOM, ENODATA or EINVAL if they are not what
        a peer sends (``RecordBatch.unpack``), EPERM while ACTIVE.
        """
        n, unknown = self._batch.unpack(sections)
        taken = _ensure(clib.fp_flows_import(self._dp, self._batch.at(0), n), "fp_flows_import")
        return Imported(n, taken, unknown)

    def not_taken(self, n: int) -> tuple[int, ...]:
        """Which of the ``n`` records of the last import were not; to be asked right behind it."""
        return self._batch.not_taken(n)

    def absurd(self, n: int) -> int:
        """How many of them contradict themselves: no node of this configuration can have such a session."""
        return self._batch.absurd(n)

    def import_begin(self, shards: int = ALL_SHARDS, *, repair: bool = False) -> None:
        """A sweep of these shards is coming: what is held of them is stale. ``repair``: log what differs."""
        _ensure(clib.fp_import_begin(self._dp, shards, int(repair)), "fp_import_begin")

    def import_end(self, shards: int = ALL_SHARDS) -> int:
        """The sweep is complete: forget what it did not refresh; returns how many records went."""
        return _ensure(clib.fp_import_end(self._dp, shards), "fp_import_end")

    def stranded(self, shards: int, since_ns: int, page: int = 1024) -> Iterator[tuple[bytes, int]]:
        """What ``import_end`` would forget, and was in use since then: sections, and their sessions."""
        page = min(2 * page, BATCH_MAX)
        cursor = ffi.new("struct fp_cursor *")
        while not cursor.done:
            n = _ensure(
                clib.fp_flows_stranded(self._dp, cursor, shards, since_ns, self._batch.at(0), page),
                "fp_flows_stranded",
            )
            if n:
                _, sections = self._batch.pack(0, n)
                yield sections, n // 2

    def adopt_sections(self, sections: bytes) -> Imported:
        """Take sessions that the peer has opened, if nothing is against it: ``n`` and ``taken`` count those.

        Raises: FastpathError, of which nothing is used: as ``import_sections``, but EPERM unless ACTIVE.
        """
        n, unknown = self._batch.unpack(sections)
        taken = _ensure(clib.fp_flows_adopt(self._dp, self._batch.at(0), n), "fp_flows_adopt")
        return Imported(n // 2, taken, unknown)

    def digests(self) -> Digests:
        """Digests of all shards, now."""
        out = ffi.new("struct fp_digest[]", _N_SHARDS)
        _ensure(clib.fp_digests(self._dp, out), "fp_digests")
        return marshal.digests(out, ALL_SHARDS)

    def repairs_drain(self) -> list[Repair]:
        """Take what repair sweeps have put right: the first ones of each worker."""
        out = ffi.new("struct fp_repair[]", REPAIRS_MAX)
        n = _ensure(clib.fp_repairs_drain(self._dp, out, REPAIRS_MAX), "fp_repairs_drain")
        return [marshal.repair(out[i]) for i in range(n)]

    def sync_stats(self, worker: int) -> SyncStats:
        """Queues, sweeps and delays of one worker."""
        out = ffi.new("struct fp_sync_stats *")
        _ensure(clib.fp_sync_stats_read(self._dp, worker, out), "fp_sync_stats_read")
        return marshal.sync_stats(out)

    # ---- inspection ----
    def flows(self, page: int = 1024) -> Iterator[FlowRecord]:
        """Walk all tables, a page at a time; changes made meanwhile may or may not be seen."""
        page = min(page, BATCH_MAX)
        cursor = ffi.new("struct fp_cursor *")
        while not cursor.done:
            n = _ensure(clib.fp_flows_walk(self._dp, cursor, self._batch.at(0), page), "fp_flows_walk")
            # The batch is shared with drain and import: take the page out before anybody else runs.
            yield from self._batch.flow_records(n)

    def flow_pages(self, page: int = 512) -> Iterator[FlowPage]:
        """Walk all tables for records that somebody chooses; else as ``flows``."""
        page = min(page, BATCH_MAX)
        cursor = ffi.new("struct fp_cursor *")
        while not cursor.done:
            n = _ensure(clib.fp_flows_walk(self._dp, cursor, self._batch.at(0), page), "fp_flows_walk")
            yield self._batch.flow_page(n)

    def fates(self, page: int = 512) -> Iterator[FatePage]:
        """Walk all tables for what becomes of each session if this node dies now."""
        page = min(page, BATCH_MAX)
        cursor = ffi.new("struct fp_cursor *")
        while not cursor.done:
            n = _ensure(clib.fp_flows_walk(self._dp, cursor, self._batch.at(0), page), "fp_flows_walk")
            yield self._batch.fate_page(n)

    def verdict_counts(self, worker: int | None = None) -> list[int]:
        """Packets per verdict, of one worker or of all, in the order of ``verdict_table``."""
        n = clib.fp_verdict_count()
        out = ffi.new("uint64_t[]", n)
        total = [0] * n
        for index in range(self._config.n_workers) if worker is None else (worker,):
            _ensure(clib.fp_verdicts_read(self._dp, index, out, n), "fp_verdicts_read")
            total = [a + b for a, b in zip(total, ffi.unpack(out, n), strict=True)]
        return total

    def worker_stats(self, worker: int) -> WorkerStats:
        """Counters and gauges of one worker."""
        out = ffi.new("struct fp_worker_stats *")
        _ensure(clib.fp_worker_stats_read(self._dp, worker, out), "fp_worker_stats_read")
        return marshal.worker_stats(out)

    def port_stats(self, port: int) -> PortStats:
        """Frames and bytes of one port, over all workers."""
        out = ffi.new("struct fp_port_stats *")
        _ensure(clib.fp_port_stats_read(self._dp, port, out), "fp_port_stats_read")
        return marshal.port_stats(out)

    # ---- capture ----
    def start_capture(self, wanted: CaptureConfig) -> None:
        """Let the workers record packets, until ``free_capture``; one capture at a time.

        Raises: FastpathError(EINVAL) with the reason, for a bad filter; FastpathError(EALREADY).
        """
        err = ffi.new("struct fp_error *")
        cfg, _insns = marshal.capture_config(wanted)
        self._capture_room = ffi.new("uint8_t[]", CAPTURE_BYTES)
        _ensure(clib.fp_capture_start(self._dp, cfg, err), "fp_capture_start", err)

    def drain_capture(self, worker: int) -> bytes:
        """Take what a worker has recorded: whole ``struct fp_capture_rec``, at most ``CAPTURE_BYTES``."""
        room = self._capture_room
        n = _ensure(clib.fp_capture_drain(self._dp, worker, room, len(room)), "fp_capture_drain")
        return bytes(ffi.buffer(room, n))

    def capture_lost(self) -> int:
        """Packets of the capture that found a ring full."""
        lost = ffi.new("uint64_t *")
        _ensure(clib.fp_capture_lost(self._dp, lost), "fp_capture_lost")
        return int(lost[0])

    def stop_capture(self) -> None:
        """Record no more; what waits can still be drained. Idempotent."""
        _ensure(clib.fp_capture_stop(self._dp), "fp_capture_stop")

    def free_capture(self) -> None:
        """Stop, and free the memory. Idempotent."""
        _ensure(clib.fp_capture_free(self._dp), "fp_capture_free")
        self._capture_room = ffi.new("uint8_t[]", 1)

    # ---- tests: refused (EBUSY) once the workers run ----
    def test_step(
        self,
        frames: Sequence[bytes],
        *,
        port: int,
        now_ns: int,
        source: Source = Source.WIRE,
        worker: int = 0,
        l4: tuple[int, int] | None = None,
    ) -> list[SteppedFrame]:
        """Run frames of one port through ``step()`` as one burst of at most FP_BURST_MAX.

        ``l4``: of fragments that another worker handed off (``SteppedFrame.l4``).
        """
        rooms = [bytearray(frame.ljust(marshal.FRAME_MAX, b"\0")) for frame in frames]
        io = ffi.new("struct fp_frame[]", max(len(frames), 1))
        for c_frame, room, frame in zip(io, rooms, frames, strict=False):
            c_frame.data = ffi.from_buffer("uint8_t[]", room)
            c_frame.len = len(frame)
            c_frame.port = port
            c_frame.src = int(source)
            if l4 is not None:
                c_frame.l4_known = 1
                c_frame.l4_sport, c_frame.l4_dport = l4
        _ensure(clib.fp_test_step(self._dp, worker, now_ns, io, len(frames)), "fp_test_step")
        return [marshal.stepped_frame(io[i], room) for i, room in enumerate(rooms)]

    def test_frags(self, now_ns: int, worker: int = 0) -> list[SteppedFrame]:
        """Step the fragments that ``worker`` held and need not hold any longer."""
        rooms = [bytearray(marshal.FRAME_MAX) for _ in range(marshal.BURST_MAX)]
        io = ffi.new("struct fp_frame[]", len(rooms))
        for c_frame, room in zip(io, rooms, strict=True):
            c_frame.data = ffi.from_buffer("uint8_t[]", room)
        n = _ensure(clib.fp_test_frags(self._dp, worker, now_ns, io, len(rooms)), "fp_test_frags")
        return [marshal.stepped_frame(io[i], rooms[i]) for i in range(n)]

    def test_held(self, now_ns: int, worker: int = 0) -> list[SteppedFrame]:
        """Step the frames that ``worker`` held for the peer and that may go by ``now_ns``."""
        stepped: list[SteppedFrame] = []
        while True:
            rooms = [bytearray(marshal.FRAME_BIG) for _ in range(HELD_MAX)]
            io = ffi.new("struct fp_frame[]", len(rooms))
            for c_frame, room in zip(io, rooms, strict=True):
                c_frame.data = ffi.from_buffer("uint8_t[]", room)
            n = _ensure(clib.fp_test_held(self._dp, worker, now_ns, io, len(rooms)), "fp_test_held")
            stepped += [marshal.stepped_frame(io[i], rooms[i]) for i in range(n)]
            if n == 0:
                return stepped

    def test_expire(self, now_ns: int, worker: int = 0) -> int:
        """Run the timer wheel up to ``now_ns``; returns how many records went."""
        return _ensure(clib.fp_test_expire(self._dp, worker, now_ns), "fp_test_expire")

    def test_shard(self, address: Address, port: int, proto: int) -> int:
        """The shard of an inside endpoint (``port`` in host order)."""
        c_address = ffi.new("struct fp_addr *", (marshal.addr_bytes(address),))
        port_be = int.from_bytes(port.to_bytes(2, "big"), "little")
        return _ensure(clib.fp_test_shard(self._dp, c_address, port_be, proto), "fp_test_shard")

    def test_policy(
        self,
        source: Address,
        destination: Address,
        *,
        proto: int,
        sport: int = 0,
        dport: int = 0,
        in_port: int = 0,
        out_port: int = 0,
    ) -> int:
        """Number of the rule that decides about a packet that belongs to no session; 0: none matches."""
        c_src, c_dst = (
            ffi.new("struct fp_addr *", (marshal.addr_bytes(address),)) for address in (source, destination)
        )
        return _ensure(
            clib.fp_test_policy(self._dp, c_src, c_dst, sport, dport, proto, in_port, out_port),
            "fp_test_policy",
        )

    def test_heartbeat(self) -> bytes:
        """The payload that the pulse thread would send on xc now."""
        out = bytearray(256)
        n = _ensure(clib.fp_test_heartbeat(self._dp, ffi.from_buffer(out), len(out)), "fp_test_heartbeat")
        return bytes(out[:n])

    def test_pulse_rx(self, path: int, payload: bytes, now_ns: int) -> None:
        """A heartbeat arrives.

        Raises: FastpathError(EBADMSG) if it is malformed, or another pair's.
        """
        _ensure(clib.fp_test_pulse_rx(self._dp, path, payload, len(payload), now_ns), "fp_test_pulse_rx")

    def test_pulse_tick(self, now_ns: int) -> None:
        """Let the pulse thread's silence rule look at the clock."""
        _ensure(clib.fp_test_pulse_tick(self._dp, now_ns), "fp_test_pulse_tick")
