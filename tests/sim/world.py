# SPDX-License-Identifier: Apache-2.0
"""The simulated pair: two nodes, a faulty network, traffic and a schedule of faults; ``judge.py`` looks on.

A schedule is faults for a while (``faults.py``), then everything is healed, then the end state is judged.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cores import config
from sim.chance import Chance
from sim.clock import Clock
from sim.faults import Fault, Plan
from sim.host import Disk, Process
from sim.judge import Judge
from sim.lifeline import LifeLine
from sim.net import PATHS, PORTS, VMAC_PREFIX, Connection, Network

from flexha.core.actions import Action
from flexha.core.events import Command, Event, OperatorAsked, Role, Wires
from flexha.core.node import SyncLimits
from flexha.fastpath.records import Mark
from flexha.units import NS_PER_MS, Ns, ms

QUIET_MS = 12_000
"""After this much peace at the latest, both nodes must be what they are to be."""
SETTLED_MS = 600
"""An impatient schedule ends when both have seemed to be that for so long."""
STOPS_MS = {"pause": 2000, "stall": 300, "suspend": 6000}
"""How long a process that is stopped stays so, at most."""
RECORDED = 60
"""Heartbeats that somebody records, to say them again later."""
HARMLESS = ("forget", "xc-flaps", "replay")
"""Faults of which nobody should take notice for long."""
HANG_MS = 4000
"""Likewise of a control plane; a quarter of it is not noticed."""
STICK_MS = 2000
"""Likewise of a worker."""
SETTLE_MS = 1500
"""What was under way when traffic ended has arrived after this."""


def any_limits(rng: random.Random) -> SyncLimits:
    """A window that is often full, or never; a peer that may come back late, or not."""
    small = rng.random() < 0.5
    limits = SyncLimits(window_batches=4, batch_records=8) if small else SyncLimits()
    return replace(limits, resume_hold_s=rng.choice([60.0, 1.0, 0.0]))


class World:
    """Two nodes and all around them."""

    def __init__(self, chance: Chance, *, verbose: bool = False, limits: SyncLimits | None = None) -> None:
        self.chance = chance
        rng = chance.of("world")
        self.clock = Clock()
        self.network = Network(self.clock, chance)
        self.line = LifeLine(self)
        self.recorded: deque[tuple[int, int, bytes]] = deque(maxlen=RECORDED)
        """The latest heartbeats: to whom, by what path."""
        self._taped: list[tuple[int, int, bytes]] = []
        """What somebody has kept of them."""
        self.xc_is_direct = chance.of("cable").random() < 0.7
        """One cable, whose carrier both ends see."""
        self.shell_latency_ms = rng.choice([0.1, 1.0, 5.0, 15.0])
        self.verbose = verbose
        any_limit = any_limits(rng)
        preempt = rng.random() < 0.15
        adver_int_cs, start_hold_ms = rng.choice([(100, 1000), (20, 300)])
        self.cfgs = [
            config(
                i,
                preempt=preempt,
                limits=limits or any_limit,
                adver_int_cs=adver_int_cs,
                start_hold_ms=start_hold_ms,
            )
            for i in range(2)
        ]
        self.disks = [Disk(), Disk()]
        self.nodes: list[Process | None] = [None, None]
        self.lives = [0, 0]
        """How often each node has been started."""
        self.traffic = True
        self.flipped = False
        """Somebody has damaged a record."""
        self.disturbed_at = Ns(0)
        """When something last went wrong, or was mended."""
        self.judge = Judge(self)
        self._requests = 0

    # ---- what the nodes call -------------------------------------------------------------------------
    def trace(self, process: Process, event: Event, actions: Sequence[Action]) -> None:
        if self.verbose:
            now = self.clock.now / NS_PER_MS
            print(f"{now:10.3f} {process.name} {process.role.name:8} {short(event)}")
            for action in actions:
                print(f"{'':10} {'':10}   -> {short(action)}")

    def heartbeat_sent(self, sender: Process, path: int, payload: bytes) -> None:
        """Bytes that only C writes and reads."""
        deliver = partial(self._hear, 1 - sender.index, path, payload)
        self.network.send(PATHS[path], sender.index, deliver)

    def _hear(self, index: int, path: int, payload: bytes) -> None:
        self.recorded.append((index, path, payload))
        process = self.nodes[index]
        if process is not None:
            process.hear(path, payload)

    def frame_sent(self, sender: Process, port: str, frame: bytes) -> None:
        def deliver() -> None:
            peer = self.nodes[1 - sender.index]
            if peer is not None and frame[23:24] == b"\x70":
                peer.receive_frame(port, frame)

        self.network.send_frame(port, sender.index, frame[6:12], deliver)

    def connect(self, dialer: Process) -> bool:
        """A TCP connection from node b to node a, if the path and the listener live."""
        listener, rng = self.nodes[0], self.chance.of("connect")
        wires = self.network.wires["xc"]
        if listener is None or not listener.alive or listener.knows_stuck or dialer.knows_stuck:
            return False
        if any(w.cut or rng.random() < w.loss for w in wires):
            return False
        connection = Connection(self.network)
        ends = (listener, dialer)
        connection.on_data = [partial(end.sync_data, connection) for end in ends]
        connection.on_close = [partial(end.sync_closed, connection) for end in ends]
        for end in ends:
            end.connected(connection)
        return True

    # ---- the run -------------------------------------------------------------------------------------
    def run(self, plan: Plan) -> None:
        """Faults for a while, then peace, then judgement."""
        self.begin()
        for fault in plan.faults:
            self.clock.at(ms(fault.at_ms), partial(self.inflict, fault))
        self.clock.run_until(ms(plan.chaos_ms))
        self._make_peace()
        quiet_until = ms(plan.chaos_ms + QUIET_MS)
        if not plan.is_patient:
            self._await_settled(quiet_until)
        else:
            self.clock.run_until(quiet_until)
        self.end()

    def _await_settled(self, until: Ns) -> None:
        settled_ms = 0
        while self.clock.now < until and settled_ms < SETTLED_MS:
            self.clock.run_until(Ns(self.clock.now + ms(200)))
            settled_ms = settled_ms + 200 if self.judge.is_settled() else 0

    def begin(self) -> None:
        """Let the nodes start, sooner or later, and traffic flow."""
        for index, name in enumerate("ab"):
            rng = self.chance.of(f"boot/{name}")
            if rng.random() < 0.9:
                self.clock.after(rng.uniform(0, 2000) * NS_PER_MS, partial(self.boot, index))
        self._traffic()

    def end(self) -> None:
        """Let what is under way arrive, and judge."""
        self.traffic = False
        self.clock.run_until(Ns(self.clock.now + ms(SETTLE_MS)))
        self.judge.judge()

    def boot(self, index: int) -> None:
        """Start a node, unless it runs."""
        old = self.nodes[index]
        if old is None or not old.alive:
            self.disturbed_at = self.clock.now
            self.lives[index] += 1
            process = Process(self, self.cfgs[index], self.disks[index], self.lives[index])
            self.nodes[index] = process
            process.start()
            if self._taped:  # who has just begun to listen knows nobody
                self.clock.after(100 * NS_PER_MS, self._replay)
            for port in PORTS:
                if (index, port) in self.network.unplugged:
                    process.set_port(port, up=False)

    def crash(self, index: int, *, power: bool = False) -> None:
        """A process dies; or its whole machine, and with it all its links."""
        process = self.nodes[index]
        if process is not None and process.alive:
            self.disturbed_at = self.clock.now
            was_active = process.fastpath.fence.is_active
            process.crash(power=power)
            if was_active:
                self.judge.check_inherited(process)
            if power:
                self._links_lost(index)

    def _links_lost(self, index: int) -> None:
        """Switches forget what was behind the port, and the peer sees the carrier of a direct cable."""
        for port in PORTS:
            self.network.switches[port].forget(index)
        if self.xc_is_direct:
            delay_ms = self.chance.of("carrier").uniform(0.1, 3)
            self.clock.after(delay_ms * NS_PER_MS, partial(self._carrier_lost, 1 - index))

    def _carrier_lost(self, index: int) -> None:
        process = self.nodes[index]
        if process is not None and process.alive:
            process.pulse.mark(Mark.XC_CARRIER)

    def _traffic(self) -> None:
        rng = self.chance.of("traffic")
        for process in self.nodes:
            if process is None or not process.alive or not self.traffic or not process.is_open:
                continue
            fastpath = process.fastpath
            if fastpath.wires is Wires.PARK:
                continue
            self.judge.check_forwarding(process)
            for port, other in (PORTS, PORTS[::-1]):  # what a switch sends here leaves by the other port
                if self.network.switches[port].node == process.index:
                    self.network.send_frame(other, process.index, VMAC_PREFIX, lambda: None)
            for _ in range(rng.randrange(5)):
                fastpath.open_flow()
            for _ in range(min(2, len(fastpath.flows))):
                flow = rng.choice(list(fastpath.flows))
                if len(fastpath.flows) > 60 or rng.random() < 0.2:
                    fastpath.close_flow(flow)
                else:
                    fastpath.change_flow(flow)
        self._flood()
        self.clock.after(rng.uniform(4, 80) * NS_PER_MS, self._traffic)

    def _flood(self) -> None:
        """Frames for the virtual MAC reach whoever has a port at a switch that does not know where it is."""
        for port, switch in self.network.switches.items():
            if switch.floods:
                for process in self.nodes:
                    plugged = process is not None and (process.index, port) not in self.network.unplugged
                    if process is not None and plugged and process.alive and not process.paused:
                        process.flooded()

    def inflict(self, fault: Fault) -> None:
        """It happens now."""
        if fault.kind not in HARMLESS:
            self.disturbed_at = self.clock.now
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
            case "power":
                self.crash(index, power=True)
            case "forget":
                self._forget(fault.path)
            case "replay":
                self._taped = list(self.recorded)
                self.clock.after(fault.amount * 5000 * NS_PER_MS, self._replay)
            case "xc-flaps":
                for one in range(2):
                    self._carrier_lost(one)
            case "quick-restart":
                self.crash(index)
                self.clock.after(fault.amount * 200 * NS_PER_MS, lambda: self.boot(index))
            case "restarts":
                for n in range(3):
                    at_ms = n * (20 + 300 * fault.amount)
                    self.clock.after(at_ms * NS_PER_MS, partial(self.crash, index))
                    self.clock.after((at_ms + 10) * NS_PER_MS, partial(self.boot, index))
            case "pause" | "stall" | "suspend":
                if process is not None and process.alive:
                    process.pause(is_deaf=fault.kind == "suspend")
                    self.clock.after(STOPS_MS[fault.kind] * fault.amount * NS_PER_MS, process.go_on)
            case "hang":
                if process is not None and process.alive:
                    process.hang()
                    self.clock.after(fault.amount * HANG_MS * NS_PER_MS, process.go_on)
            case "stick":
                if process is not None and process.alive:
                    process.stick()
                    self.clock.after(fault.amount * STICK_MS * NS_PER_MS, process.go_on)
            case "clock":
                if process is not None and process.alive:
                    process.skip(ms(fault.amount**2 * 5000))
            case "disk-slow" | "disk-stuck" | "disk-fails":
                disk = self.disks[index]
                disk.takes_ms = fault.amount * 5000 if fault.kind == "disk-slow" else Disk.takes_ms
                disk.is_stuck, disk.fails = fault.kind == "disk-stuck", fault.kind == "disk-fails"
                self.clock.after(fault.amount * 8000 * NS_PER_MS, partial(self._mend, disk))
            case "port-down":
                if fault.path in PORTS:
                    self._port(index, fault.path, up=False)
                    self.clock.after(
                        fault.amount * 4000 * NS_PER_MS, partial(self._port, index, fault.path, up=True)
                    )
            case "cut":
                for wire in hit:
                    wire.cut = True
                if fault.direction == 2 and fault.path == "xc" and self.xc_is_direct:
                    for one in range(2):
                        self._carrier_lost(one)
                self._ages(fault)
            case "cut-all":
                for pair in self.network.wires.values():
                    for wire in pair if fault.direction == 2 else (pair[fault.direction],):
                        wire.cut = True
                self._ages(fault)
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

    def _ages(self, fault: Fault) -> None:
        """What stops the frames of a direction stops what the switches learn from them."""
        if fault.direction != 2:
            for path in PORTS:
                self.clock.after(fault.amount * 1000 * NS_PER_MS, partial(self._forget, path))

    def _replay(self) -> None:
        for index, path, payload in self._taped:
            self._hear(index, path, payload)

    def _forget(self, path: str) -> None:
        for port, switch in self.network.switches.items():
            if path in ("xc", port):
                switch.forget()

    def _mend(self, disk: Disk) -> None:
        self.disturbed_at = self.clock.now
        disk.mend()

    def _port(self, index: int, port: str, *, up: bool) -> None:
        """A port loses its wire, or gets it back; a daemon that starts finds it as it is."""
        self.disturbed_at = self.clock.now
        if up:
            self.network.unplugged.discard((index, port))
        else:
            self.network.unplugged.add((index, port))
            self.network.switches[port].forget(index)
        process = self.nodes[index]
        if process is not None and process.alive:
            process.set_port(port, up=up)

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
        self.disturbed_at = self.clock.now
        self.network.heal()
        for index in range(2):
            self.disks[index].mend()
            for port in PORTS:
                if (index, port) in self.network.unplugged:
                    self._port(index, port, up=True)
            process = self.nodes[index]
            if process is not None:
                process.go_on()
            self.boot(index)
            for delay_ms in (500, 4000):
                self.clock.after(delay_ms * NS_PER_MS, partial(self._end_maintenance, index))

    def _end_maintenance(self, index: int) -> None:
        self.boot(index)  # one that was still stopping
        process = self.nodes[index]
        if process is not None and process.role in (Role.MAINTENANCE, Role.FAULT):
            self._command(process, Command.MAINTENANCE_EXIT)


def short(thing: object) -> str:
    """An event or action in one line."""
    text = repr(thing)
    return text if len(text) < 160 else f"{text[:150]}... ({len(text)})"
