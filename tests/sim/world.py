# SPDX-License-Identifier: Apache-2.0
"""The simulated pair: two nodes, a faulty network, traffic, a schedule of faults, and what must hold.

``run(seed)`` is one schedule: faults for a while, then everything is healed, then the end state is judged.

Invariants of every step:
  reign       no term is ever reigned in twice; a term is on disk before it is used, and grows
  fence       two ACTIVE fences that can hear each other are one again within ``DUAL_MS``
  switches    with healthy ports, the switches send to the one open fence within ``MISLED_MS``
  ready       a node calls itself ready only when PASSIVE and its last import is complete
  bounded     the window of unacknowledged batches, and the busy loop that a past deadline would be
  digests     both tables differ at a place in the stream only if somebody has flipped a bit there
  commit      packets wait for a peer only while one follows that is in sync
  handover    when the ACTIVE gives its word, the peer's table holds what its own does
  answers     every operator's request is answered once, unless its daemon died
Of every crash of an ACTIVE node:
  inherit     what the peer has acknowledged is in its table, and not what it has acknowledged the end of
After quiescence:
  one ACTIVE, the other one PASSIVE and ready, both tables hold the same flows in the same versions, and the
  digests have agreed within ``AGREED_S``, whatever was flipped
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from cores import config
from sim.clock import Clock
from sim.fastpath import unpack
from sim.host import Disk, Process, SimulationError
from sim.net import PATHS, PORTS, VMAC_PREFIX, Connection, Network

from flexha.core.actions import Action
from flexha.core.events import Command, Event, OperatorAsked, Role
from flexha.core.heartbeat_wire import Heartbeat
from flexha.core.node import SyncLimits
from flexha.core.shards import ALL
from flexha.core.sync_wire import Ack, Batch, SweepBegin
from flexha.fastpath import Op
from flexha.units import NS_PER_MS, NS_PER_S, Ns, Term, centiseconds, ms

DUAL_MS = 400
MISLED_MS = 250
ANSWER_MS = 3000
AGREED_S = 3
CHAOS_MS = 15_000
QUIET_MS = 12_000
SETTLE_MS = 1500


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, or that somebody asks for, at a time."""

    at_ms: float
    kind: str
    node: str
    """"a", "b", or who is "active" or not ("other") when it happens."""
    path: str
    direction: int
    """0: a to b, 1: b to a, 2: both."""
    amount: float

    def __str__(self) -> str:
        return (
            f"{self.at_ms:8.1f} ms {self.kind} node={self.node} path={self.path} "
            f"direction={self.direction} amount={self.amount:.2f}"
        )


KINDS = {
    "crash": 5,
    "restart": 6,
    "quick-restart": 2,
    "pause": 2,
    "cut": 6,
    "cut-all": 2,
    "heal": 6,
    "lossy": 3,
    "slow": 2,
    "failover": 4,
    "maintenance-enter": 2,
    "maintenance-exit": 2,
    "stop": 2,
    "burst": 3,
    "flip": 3,
}


def schedule(rng: random.Random) -> list[Fault]:
    """Random faults; weights in ``KINDS``."""
    n = rng.randrange(0, 20)
    kinds, weights = list(KINDS), list(KINDS.values())
    return sorted(
        (
            Fault(
                at_ms=rng.uniform(0 if rng.random() < 0.2 else CHAOS_MS / 4, CHAOS_MS),
                kind=rng.choices(kinds, weights)[0],
                node=rng.choice(["a", "b", "active", "active", "active", "other"]),
                path=rng.choice(PATHS),
                direction=rng.randrange(3),
                amount=rng.random(),
            )
            for _ in range(n)
        ),
        key=lambda fault: fault.at_ms,
    )


def any_limits(rng: random.Random) -> SyncLimits:
    """A window that is often full, or never; a peer that may come back late, or not."""
    small = rng.random() < 0.5
    limits = SyncLimits(window_batches=4, batch_records=8) if small else SyncLimits()
    return replace(limits, resume_hold_s=rng.choice([60.0, 1.0, 0.0]))


class World:
    """Two nodes and all around them."""

    def __init__(
        self, rng: random.Random, *, verbose: bool = False, limits: SyncLimits | None = None
    ) -> None:
        self.rng = rng
        self.clock = Clock()
        self.network = Network(self.clock, self.rng)
        self.shell_latency_ms = self.rng.choice([0.1, 1.0, 5.0, 15.0])
        self.verbose = verbose
        limits = limits or any_limits(self.rng)
        preempt = self.rng.random() < 0.15
        adver_int_cs, start_hold_ms = self.rng.choice([(100, 1000), (20, 300)])
        self.cfgs = [
            config(i, preempt=preempt, limits=limits, adver_int_cs=adver_int_cs, start_hold_ms=start_hold_ms)
            for i in range(2)
        ]
        self.disks = [Disk(), Disk()]
        self.nodes: list[Process | None] = [None, None]
        self.traffic = True
        self.reasons: list[str] = []
        """Why roles changed, in order."""
        self.reigns: dict[Term, tuple[int, int]] = {}
        self.acked: list[dict[int, tuple[int, Op]]] = [{}, {}]
        """Per sender: what the present peer has acknowledged, id -> (version, kind)."""
        self.flipped = False
        """Somebody has damaged a record."""
        self._sent: list[dict[int, list[tuple[int, int, Op]]]] = [{}, {}]
        self._dual_since: Ns | None = None
        self._alone: tuple[Process, Ns] | None = None
        """The only node whose fence is open, and since when."""
        self._ports_healthy_since: Ns | None = None
        self._requests = 0

    # ---- what the nodes call -------------------------------------------------------------------------
    def trace(self, process: Process, event: Event, actions: Sequence[Action]) -> None:
        if self.verbose:
            now = self.clock.now / NS_PER_MS
            print(f"{now:10.3f} {process.name} {process.role.name:8} {short(event)}")
            for action in actions:
                print(f"{'':10} {'':10}   -> {short(action)}")

    def heartbeat_sent(self, sender: Process, path: str, beat: Heartbeat) -> None:
        def deliver() -> None:
            peer = self.nodes[1 - sender.index]
            if peer is not None:
                peer.hear(path, beat)

        self.network.send(path, sender.index, deliver)

    def frame_sent(self, sender: Process, port: str, frame: bytes) -> None:
        def deliver() -> None:
            peer = self.nodes[1 - sender.index]
            if peer is not None and frame[23:24] == b"\x70":
                peer.receive_frame(port, frame)

        self.network.send_frame(port, sender.index, frame[6:12], deliver)

    def connect(self, dialer: Process) -> bool:
        """A TCP connection from node b to node a, if the path and the listener live."""
        listener = self.nodes[0]
        wires = self.network.wires["xc"]
        if listener is None or not listener.alive or any(w.cut or self.rng.random() < w.loss for w in wires):
            return False
        connection = Connection(self.network)
        ends = (listener, dialer)
        connection.on_data = [partial(end.sync_data, connection) for end in ends]
        connection.on_close = [partial(end.sync_closed, connection) for end in ends]
        for end in ends:
            end.connected(connection)
        return True

    def sync_sent(self, sender: Process, data: bytes) -> None:
        """Note what is sent and what is acknowledged."""
        sent, acked = self._sent[sender.index], self.acked[sender.index]
        for message in sender.sync_messages(data):
            match message:
                case SweepBegin(shards=shards) if shards == ALL:
                    sent.clear()
                    acked.clear()
                case Batch(seq, parts):
                    sent[seq] = unpack(parts)
                case Ack(seq):
                    peers_sent = self._sent[1 - sender.index]
                    for batch in [s for s in peers_sent if s <= seq]:
                        for flow, version, op in peers_sent.pop(batch):
                            self.acked[1 - sender.index][flow] = (version, op)
                case _:
                    pass

    # ---- invariants ----------------------------------------------------------------------------------
    def check_reign(self, process: Process, term: Term) -> None:
        if term % 2 != process.index or term > process.disk.term:
            raise SimulationError(f"{process.name} reigns in {term}, on disk is {process.disk.term}")
        owner = (process.index, process.incarnation)
        if self.reigns.setdefault(term, owner) != owner or (term < max(self.own_terms(process))):
            raise SimulationError(f"{process.name} reigns in {term} again: {self.reigns}")

    def check_handover(self, heir: Process) -> None:
        """The heir reigns by the ACTIVE's word: nothing is missing in its table."""
        giver = self.nodes[1 - heir.index]
        given = giver.history if giver is not None else []
        if giver is None or not any(
            event == "handover-given" and fields["complete"] and self.clock.now - at < ms(1000)
            for at, event, fields in given
        ):
            return
        if not self.flipped and heir.fastpath.flows != giver.fastpath.flows:
            missing = giver.fastpath.flows.keys() - heir.fastpath.flows.keys()
            raise SimulationError(
                f"{heir.name} reigns by the word of {giver.name}: {len(missing)} flows are missing, or old"
            )

    def own_terms(self, process: Process) -> list[Term]:
        return [t for t, owner in self.reigns.items() if owner[0] == process.index]

    def check_ready(self, process: Process, ready: bool) -> None:
        if ready and not (process.role is Role.PASSIVE and not process.fastpath.incomplete):
            raise SimulationError(
                f"{process.name} says ready as {process.role.name}, before its bulk is complete"
            )

    def check(self, process: Process) -> None:
        window = process.state.session.sender.window
        if len(window) > process.cfg.sync.window_batches + 3:  # a drain ends with a marker
            raise SimulationError(f"{process.name}: {len(window)} batches in the window")
        if process.counters.get("audit.differing") and not self.flipped:
            raise SimulationError(f"{process.name}: the tables differ at a place in the stream")
        sender = process.state.session.sender
        if process.fastpath.commit != (sender.engaged and sender.audit.in_sync):
            raise SimulationError(f"{process.name}: commit is {process.fastpath.commit}")
        for request, asked in process.requests.items():
            if request not in process.replies and self.clock.now - asked > ms(ANSWER_MS):
                raise SimulationError(f"{process.name}: request {request} was never answered")
        self._check_dual()
        self._check_switches()
        if process.history and process.history[-1][0] == self.clock.now:
            _, event, fields = process.history[-1]
            if event == "role":
                self.reasons.append(str(fields["reason"]))
            if event == "role" and (fields["to"], fields["reason"]) == ("ACTIVE", "handover"):
                self.check_handover(process)

    def _check_dual(self) -> None:
        running = [p for p in self.nodes if p is not None and p.alive]
        dual = len(running) == 2 and all(p.fastpath.fence.is_active for p in running)
        hear = self.network.has_healthy_path() and not any(p.paused for p in running)
        if not (dual and hear):
            self._dual_since = None
        elif self._dual_since is None:
            self._dual_since = self.clock.now
        elif self.clock.now - self._dual_since > ms(DUAL_MS):
            raise SimulationError("two ACTIVE nodes hear each other and both stay")

    def _check_switches(self) -> None:
        """Frames of a node that reigns no more may mislead the switches; not for long."""
        running = [p for p in self.nodes if p is not None and p.alive]
        reigning = [p for p in running if p.fastpath.fence.is_active]
        if len(reigning) != 1 or any(p.paused for p in running):
            self._alone = None
        elif self._alone is None or self._alone[0] is not reigning[0]:
            self._alone = (reigning[0], self.clock.now)
        if not self.network.has_healthy_ports():
            self._ports_healthy_since = None
        elif self._ports_healthy_since is None:
            self._ports_healthy_since = self.clock.now
        if self._alone is None or self._ports_healthy_since is None:
            return
        process, since = self._alone
        if since < self._ports_healthy_since:  # it announced itself into a faulty wire: the next advert tells
            since = Ns(self._ports_healthy_since + centiseconds(process.cfg.adver_int_cs))
        if self.clock.now <= since + ms(MISLED_MS):
            return
        for port, switch in self.network.switches.items():
            if switch.node != process.index:
                raise SimulationError(f"{process.name} reigns alone, unknown to the switch of {port}")

    def check_inherited(self, dead: Process) -> None:
        """The ACTIVE node is dead: its peer has what it acknowledged."""
        peer = self.nodes[1 - dead.index]
        receiver = peer.state.session.receiver if peer is not None else None
        stream = dead.state.session.sender.stream
        if peer is None or receiver is None or stream is None or receiver.stream != stream:
            return
        for flow, (version, op) in self.acked[dead.index].items():
            have = peer.fastpath.flows.get(flow)
            if op is Op.DELETE:
                if have is not None and flow not in dead.fastpath.flows:
                    raise SimulationError(f"{peer.name} holds {flow:x}, whose end it acknowledged")
            elif (
                not self.flipped
                and dead.fastpath.flows.get(flow) == version
                and (have is None or have < version)
            ):
                raise SimulationError(f"{peer.name} acknowledged {flow:x} version {version}, and has {have}")

    # ---- the run -------------------------------------------------------------------------------------
    def run(self, faults: Sequence[Fault]) -> None:
        """Faults for a while, then peace, then judgement."""
        self.begin()
        for fault in faults:
            self.clock.at(ms(fault.at_ms), partial(self._inflict, fault))
        self.clock.run_until(ms(CHAOS_MS))
        self._make_peace()
        self.clock.run_until(ms(CHAOS_MS + QUIET_MS))
        self.end()

    def begin(self) -> None:
        """Let the nodes start, sooner or later, and traffic flow."""
        for index in range(2):
            if self.rng.random() < 0.9:
                self.clock.after(self.rng.uniform(0, 2000) * NS_PER_MS, partial(self.boot, index))
        self._traffic()

    def end(self) -> None:
        """Let what is under way arrive, and judge."""
        self.traffic = False
        self.clock.run_until(Ns(self.clock.now + ms(SETTLE_MS)))
        self._judge()

    def boot(self, index: int) -> None:
        """Start a node, unless it runs."""
        old = self.nodes[index]
        if old is None or not old.alive:
            process = Process(self, self.cfgs[index], self.disks[index])
            self.nodes[index] = process
            process.start()

    def crash(self, index: int) -> None:
        process = self.nodes[index]
        if process is not None and process.alive:
            was_active = process.fastpath.fence.is_active
            process.crash()
            if was_active:
                self.check_inherited(process)

    def _traffic(self) -> None:
        for process in self.nodes:
            if process is None or not process.alive or process.paused or not self.traffic:
                continue
            fastpath = process.fastpath
            if not fastpath.fence.is_active:
                continue
            for port, other in (PORTS, PORTS[::-1]):  # what a switch sends here leaves by the other port
                if self.network.switches[port].node == process.index:
                    self.network.send_frame(other, process.index, VMAC_PREFIX, lambda: None)
            for _ in range(self.rng.randrange(3)):
                fastpath.open_flow()
            if fastpath.flows:
                flow = self.rng.choice(list(fastpath.flows))
                if len(fastpath.flows) > 60 or self.rng.random() < 0.2:
                    fastpath.close_flow(flow)
                else:
                    fastpath.change_flow(flow)
        self.clock.after(self.rng.uniform(2, 40) * NS_PER_MS, self._traffic)

    def _inflict(self, fault: Fault) -> None:
        index = self._whom(fault.node)
        process = self.nodes[index]
        wires = self.network.wires[fault.path]
        hit = wires if fault.direction == 2 else (wires[fault.direction],)
        if self.verbose:
            print(f"FAULT {fault}")
        match fault.kind:
            case "crash":
                self.crash(index)
            case "restart":
                for one in range(2):
                    self.boot(one)
            case "quick-restart":
                self.crash(index)
                self.clock.after(fault.amount * 200 * NS_PER_MS, lambda: self.boot(index))
            case "pause":
                if process is not None and process.alive:
                    process.paused = True
                    self.clock.after(
                        fault.amount * 2000 * NS_PER_MS, lambda: setattr(process, "paused", False)
                    )
            case "cut":
                for wire in hit:
                    wire.cut = True
            case "cut-all":
                for pair in self.network.wires.values():
                    for wire in pair if fault.direction == 2 else (pair[fault.direction],):
                        wire.cut = True
            case "heal":
                self.network.heal()
            case "lossy":
                for wire in hit:
                    wire.loss, wire.duplicate = fault.amount * 0.6, 0.1
            case "slow":
                for wire in hit:
                    wire.delay_ms = (0.1, 5 + fault.amount * 100)
            case "stop":
                if process is not None and process.alive:
                    process.stop()
            case "burst":
                if process is not None and process.alive and process.fastpath.fence.is_active:
                    for _ in range(int(fault.amount * 300)):
                        process.fastpath.open_flow()
            case "flip":
                self._flip(index, fault.amount)
            case command:
                self._command(process, Command(command))

    def _flip(self, index: int, amount: float) -> None:
        """One record of a PASSIVE node is wrong, or is not there, and nobody is told."""
        process = self.nodes[index]
        if process is None or process.role is not Role.PASSIVE or not process.fastpath.flows:
            return
        self.flipped = True
        flows = process.fastpath.flows
        flow = list(flows)[int(amount * len(flows))]
        if amount < 0.5:
            del flows[flow]
        else:
            flows[flow] += 1_000_000

    def _whom(self, node: str) -> int:
        if node in ("a", "b"):
            return "ab".index(node)
        reigns = [p is not None and p.alive and p.fastpath.fence.is_active for p in self.nodes]
        return reigns.index(node == "active") if (node == "active") in reigns else 0

    def _command(self, process: Process | None, command: Command) -> None:
        if process is not None and process.alive:
            self._requests += 1
            process.requests[self._requests] = self.clock.now
            process.post(OperatorAsked(self._requests, command))

    def _make_peace(self) -> None:
        self.network.heal()
        for index in range(2):
            process = self.nodes[index]
            if process is not None:
                process.paused = False
            self.boot(index)
            for delay_ms in (500, 4000):
                self.clock.after(delay_ms * NS_PER_MS, partial(self._end_maintenance, index))

    def _end_maintenance(self, index: int) -> None:
        self.boot(index)  # one that was still stopping
        process = self.nodes[index]
        if process is not None and process.role in (Role.MAINTENANCE, Role.FAULT):
            self._command(process, Command.MAINTENANCE_EXIT)

    def _judge(self) -> None:
        running = [p for p in self.nodes if p is not None and p.alive]
        roles = [p.role.name for p in running]
        if sorted(roles) != ["ACTIVE", "PASSIVE"]:
            raise SimulationError(f"after quiescence the roles are {roles}")
        active, passive = sorted(running, key=lambda p: p.role is not Role.ACTIVE)
        if not passive.state.role.ready:
            raise SimulationError("after quiescence PASSIVE is not ready")
        missing = set(active.fastpath.flows) - set(passive.fastpath.flows)
        surplus = set(passive.fastpath.flows) - set(active.fastpath.flows)
        if missing or surplus:
            raise SimulationError(
                f"tables differ: {len(missing)} missing, {len(surplus)} too many on PASSIVE"
            )
        if active.fastpath.flows != passive.fastpath.flows:
            raise SimulationError("tables differ: versions on PASSIVE are not those of ACTIVE")
        for process, agreed_at in (
            (active, active.state.session.sender.audit.agreed_at),
            (passive, passive.state.session.receiver.agreed_at),
        ):
            if agreed_at is None or process.now - agreed_at > AGREED_S * NS_PER_S:
                raise SimulationError(f"{process.name}: the digests have not agreed for a while")
        if active.fastpath.lost or not active.fastpath.commit:
            raise SimulationError("ACTIVE has lost shards, or does not wait for its peer")
        if active.fastpath.fence.role is not Role.ACTIVE:
            raise SimulationError("ACTIVE is fenced, and does not know it")


def short(thing: object) -> str:
    """An event or action in one line."""
    text = repr(thing)
    return text if len(text) < 160 else f"{text[:150]}... ({len(text)})"


def simulate(seed: int, *, verbose: bool = False, faults: Sequence[Fault] | None = None) -> None:
    """One schedule. Raises SimulationError."""
    if faults is None:
        faults = schedule(random.Random(seed))
    world = World(random.Random(seed), verbose=verbose)
    world.run(faults)


def examine(seed: int, *, verbose: bool = False) -> str | None:
    """None if the schedule of ``seed`` holds; else how it fails, what it takes, and how to see it again."""
    try:
        simulate(seed, verbose=verbose)
    except Exception as error:  # noqa: BLE001 - whatever a schedule raises is reported with its seed
        faults, message = shrink(seed)
        lines = [
            f"seed {seed}: {type(error).__name__}: {error}",
            f"repeat with: make sim SEED={seed}",
            f"shrunk to {len(faults)} faults ({message}):",
            *(f"  {fault}" for fault in faults),
        ]
        return "\n".join(lines)
    return None


def shrink(seed: int) -> tuple[list[Fault], str]:
    """The faults of a failing schedule that are needed to make it fail, and how it fails."""
    faults = schedule(random.Random(seed))

    def fails(candidate: list[Fault]) -> str | None:
        try:
            simulate(seed, faults=candidate)
        except Exception as error:  # noqa: BLE001 - whatever it raises is what is being looked for
            return f"{type(error).__name__}: {error}"
        return None

    message = fails(faults) or "does not fail"
    index = 0
    while index < len(faults):
        candidate = faults[:index] + faults[index + 1 :]
        found = fails(candidate)
        if found is None:
            index += 1
        else:
            faults, message = candidate, found
    return faults, message
