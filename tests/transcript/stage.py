# SPDX-License-Identifier: Apache-2.0
"""Plays two-node stories: the simulated pair of ``tests/sim`` on a network where nothing is left to chance.

A story is a text: commands, a line ``----``, and what both nodes do about it, exactly::

    start a
    run 5s
    ----
        0 a  set-role JOINING 0
     3414 a  set-role ACTIVE 2
     ...

Times are milliseconds since the block began. Commands (``X`` is ``a`` or ``b``, ``P`` a path)::

    start X | kill X | sigterm X          life of a daemon
    stop X | cont X                       SIGSTOP, SIGCONT
    cut P [X>Y] | cut all | heal          the network
    port X P down|up                      node X loses its wire of port P, or gets it back
    hop X P answers|doubted|silent        node X's next hop behind port P
    failover X | maintenance X enter|exit the operator
    open X n | change X n | close X n     flows on an ACTIVE node
    foreign P priority | foreign none     a router that belongs to nobody's pair announces itself on a link
    run 2s | run 300ms                    time passes
    status                                roles, terms and tables of both nodes

What the simulator has found is such a story too, but one of chance, with traffic; of it only roles are told,
not when, and whether all holds that must (``tests/sim/judge.py``)::

    seed N                                the first command: chance is that of ``make sim SEED=N``
    at MS KIND X P DIRECTION AMOUNT       a fault of ``tests/sim/faults.py``; X may be "active" or "other"
    judge MS                              faults end then: peace, and judgement
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cores import FOREIGN, VRIDS, advert
from sim.chance import Chance
from sim.fastpath import unpack
from sim.faults import Fault, Plan
from sim.host import Process, SimulationError
from sim.net import PATHS
from sim.world import World

from flexha.core import sync_wire, vrrp_wire
from flexha.core.actions import (
    Action,
    BeginImport,
    CloseSync,
    EndImport,
    PersistMaintenance,
    PersistTerm,
    Record,
    Reply,
    SendFrame,
    SendSync,
    SetCommit,
    SetConduit,
    SetPorts,
    SetPulse,
    SetRole,
    SetWires,
    StartSweep,
    Stop,
    TrackChanges,
)
from flexha.core.events import Command, Event, Hop, HopChanged, VrrpFrameReceived
from flexha.core.keys_wire import Keys, KeysAck
from flexha.core.shards import ALL, Shards
from flexha.core.sync_wire import (
    Ack,
    Adopted,
    Audit,
    Batch,
    Beat,
    Close,
    Digest,
    Go,
    Hello,
    Offer,
    PassedOn,
    Resume,
    SweepBegin,
    SweepEnd,
    Unknown,
    Want,
)
from flexha.units import NS_PER_MS, Ns, ms

MARK = "----"


class NoChance(random.Random):
    """Everything takes its mean time; nothing is lost or doubled, however often it is asked."""

    def __init__(self) -> None:
        super().__init__(0)
        self._incarnation = 0

    def random(self) -> float:
        return 0.9999

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def randrange(self, *args: Any) -> int:
        return int(args[0]) if len(args) > 1 else 0

    def choice(self, seq: Any) -> Any:
        return seq[0]

    def getrandbits(self, _k: int, /) -> int:
        self._incarnation += 1
        return self._incarnation


class Certainty(Chance):
    """Whoever asks, nothing is left to chance."""

    def __init__(self) -> None:
        super().__init__(0)
        self._only = NoChance()

    def of(self, source: str) -> random.Random:
        return self._only


class Stage(World):
    """The pair, and what it has done since the block began."""

    def __init__(self, chance: Chance | None = None) -> None:
        super().__init__(chance or Certainty())
        self.traffic = self.is_found = chance is not None
        """A story of the simulator."""
        self._faults: list[Fault] = []
        self.lines: list[str] = []
        self._begun = Ns(0)
        self._pulses: dict[int, tuple[bool, bool]] = {}
        self._foreign: tuple[str, int] | None = None
        self._request = 0
        self._announce()

    # ---- what the audience sees ----------------------------------------------------------------------
    def say(self, who: str, text: str) -> None:
        at = "" if self.is_found else f"{(self.clock.now - self._begun) // NS_PER_MS}"
        self.lines.append(f"{at:>5} {who}  {text}")

    def trace(self, process: Process, event: Event, actions: Sequence[Action]) -> None:
        """Every action that is not routine."""
        if self.is_found:
            for action in actions:
                if isinstance(action, Record) and action.event == "role":
                    self.say(process.name, told_record(action.event, action.fields))
            return
        announced = any(isinstance(a, SetRole) for a in actions)
        for action in actions:
            for text in self._tell(process, action, announced=announced):
                self.say(process.name, text)

    def _tell(self, process: Process, action: Action, *, announced: bool) -> list[str]:
        match action:
            case SetRole(role, term):
                return [f"set-role {role.name} {term}"]
            case SetWires(mode):
                return [f"wires {mode.name}"]
            case PersistMaintenance(_, on):
                return [f"persist-maintenance {'on' if on else 'off'}"]
            case PersistTerm(term):
                return [f"persist-term {term}"]
            case SetPulse(ready, bye, _):
                if self._pulses.get(process.index) == (ready, bye):
                    return []
                self._pulses[process.index] = (ready, bye)
                return [f"pulse ready={ready} bye={bye}"]
            case SetPorts(up, lent):
                loans = f", lent {' '.join(sorted(lent))}" if lent else ""
                return [f"ports {' '.join(sorted(up)) or 'none'}{loans}"]
            case SetConduit(taken=taken, borrowed=borrowed) if taken:
                return [f"conduit of {' '.join(sorted(taken))}{', borrowed' if borrowed else ''}"]
            case SendFrame(port, frame, _):
                return told_frame(port, frame, announced=announced)
            case SendSync(data):
                return [text for m in process.sync_messages(data) for text in told_message(m)]
            case TrackChanges(on):
                return [f"track-changes {'on' if on else 'off'}"]
            case StartSweep(shards):
                return [f"start-sweep of {named(shards)}"]
            case SetCommit(on):
                return [f"commit {'on' if on else 'off'}"]
            case BeginImport(_, shards, repair):
                return [f"begin-import of {named(shards)}{', to repair' if repair else ''}"]
            case EndImport(_, shards):
                return [f"end-import of {named(shards)}"]
            case CloseSync(reason):
                return [f"close-sync: {reason}"]
            case Reply(_, ok, text):
                return [f"reply {'ok' if ok else 'no'}: {text}"]
            case Record(_, event, fields, True):
                return [told_record(event, fields)]
            case Stop():
                return ["stop"]
            case _:
                return []

    # ---- commands ------------------------------------------------------------------------------------
    def play(self, command: str) -> None:
        """One line of a story."""
        verb, *args = command.split()
        match verb, args:
            case "start", [x]:
                self.boot(node_index(x))
            case "kill", [x]:
                self.crash(node_index(x))
            case "sigterm", [x]:
                self._process(x).stop()
            case "stop", [x]:
                self._process(x).pause()
            case "cont", [x]:
                self._process(x).go_on()
            case "cut", ["all"]:
                for path in PATHS:
                    self._cut(path, "ab")
            case "cut", [path]:
                self._cut(path, "ab")
            case "cut", [path, direction]:
                self._cut(path, direction[0])
            case "heal", []:
                self.network.heal()
            case "port", [x, port, way]:
                for wire in self.network.wires[port]:
                    wire.cut = way == "down"
                self._process(x).set_port(port, up=way == "up")
            case "hop", [x, port, hop]:
                self._process(x).post(HopChanged(port, Hop(hop)))
            case "failover", [x]:
                self._command(self._process(x), Command.FAILOVER)
            case "maintenance", [x, way]:
                self._command(self._process(x), Command(f"maintenance-{way}"))
            case "open" | "change" | "close", [x, n]:
                self._flows(self._process(x), verb, int(n))
            case "foreign", ["none"]:
                self._foreign = None
            case "foreign", [path, priority]:
                self._foreign = (path, int(priority))
            case "run", [time]:
                span = ms(float(time[:-2])) if time.endswith("ms") else ms(1000 * float(time[:-1]))
                self.clock.run_until(Ns(self.clock.now + span))
            case "seed", [_]:
                pass  # see ``perform``
            case "at", [at_ms, kind, x, path, direction, amount]:
                self._faults.append(Fault(float(at_ms), kind, x, path, int(direction), float(amount)))
            case "judge", [chaos_ms]:
                self._judge(float(chaos_ms))
            case "status", []:
                self._status()
            case _:
                raise ValueError(f"no such command: {command}")

    def _judge(self, chaos_ms: float) -> None:
        try:
            self.run(Plan(self.chance.seed, chaos_ms, is_patient=True, faults=self._faults))
        except SimulationError as error:
            self.say("-", f"broken: {error}")
        else:
            self.say("-", "holds")

    def begin_block(self) -> None:
        self.lines = []
        self._begun = self.clock.now

    def _process(self, name: str) -> Process:
        process = self.nodes[node_index(name)]
        assert process is not None, f"node {name} was never started"
        return process

    def _cut(self, path: str, senders: str) -> None:
        for sender in senders:
            self.network.wires[path][node_index(sender)].cut = True

    def _flows(self, process: Process, verb: str, n: int) -> None:
        fastpath = process.fastpath
        for i in range(n):
            if verb == "open":
                fastpath.open_flow()
            elif verb == "change":
                fastpath.change_flow(list(fastpath.flows)[i])
            else:
                fastpath.close_flow(next(iter(fastpath.flows)))

    def _status(self) -> None:
        for process in self.nodes:
            if process is None:
                continue
            if not process.alive:
                self.say(process.name, "dead")
                continue
            role = process.state.role
            ready = " ready" if role.ready else ""
            fence = process.fastpath.fence
            states = {router.state.value for router in process.state.routers.values()}
            self.say(
                process.name,
                f"{role.role.name} {role.term}{ready}, fence {fence.role.name}, "
                f"VRRP {'/'.join(sorted(states))}, {len(process.fastpath.flows)} flows",
            )

    def _announce(self) -> None:
        """The foreign router's advertisements, each second."""
        if self._foreign is not None:
            path, priority = self._foreign
            for process in self.nodes:
                if process is not None and process.alive:
                    event: VrrpFrameReceived = advert(path, priority, FOREIGN[path])
                    process.post(event)
        self.clock.after(1000 * NS_PER_MS, self._announce)


def node_index(name: str) -> int:
    return "ab".index(name)


def told_frame(port: str, frame: bytes, *, announced: bool) -> list[str]:
    """Gratuitous ARPs, and adverts when a role changes; not the periodic ones."""
    if frame[12:14] == b"\x08\x06":
        return [f"{port}: gratuitous ARP"]
    priority = vrrp_wire.parse(frame, VRIDS[port]).priority
    return [f"{port}: advert, priority {priority}"] if announced else []


def told_message(message: sync_wire.Message) -> list[str]:
    match message:
        case Hello():
            return [f"sync: hello, {message.role.name} {message.term}"]
        case Want(stream, seq):
            return [f"sync: want, from {seq + 1} of term {stream.term}" if stream else "sync: want all"]
        case SweepBegin(stream, seq, shards, repair):
            what = "repair" if repair else "sweep"
            return [f"sync: {seq} of term {stream.term}, {what} of {named(shards)} begins"]
        case Resume(stream, seq):
            return [f"sync: resume with {seq} of term {stream.term}"]
        case Batch(seq, sections):
            return [f"sync: {seq}, {len(unpack(sections))} records"]
        case SweepEnd(seq, shards):
            return [f"sync: {seq}, sweep of {named(shards)} ends"]
        case Audit(seq, _, differ):
            return [f"sync: behind {seq} {named(differ)} differ"] if differ else []
        case Go(term):
            return [f"sync: go, term {term}"]
        case PassedOn(term):
            return [f"sync: passed on to term {term}"]
        case Offer(seq, records):
            return [f"sync: offer {seq}, {len(unpack(records))} sessions"]
        case Adopted(seq, taken, refused):
            return [f"sync: offer {seq}, {taken} taken, {refused} refused"]
        case Close(reason):
            return [f"sync: close, {reason}"]
        case Unknown(kind):
            return [f"sync: unknown {kind}"]
        case Ack() | Beat() | Keys() | KeysAck() | Digest():
            return []


def named(shards: Shards) -> str:
    """``all shards``, or how many."""
    return "all shards" if shards == ALL else f"{shards.bit_count()} shards"


def told_record(event: str, fields: Any) -> str:
    if event == "role":
        return f"history: role {fields['from']} -> {fields['to']} ({fields['reason']})"
    shown = " ".join(f"{key}={value}" for key, value in fields.items() if key not in ("paths", "was_for_ms"))
    return f"history: {event} {shown}".rstrip()


def perform(path: Path) -> str:
    """The story in ``path`` as it happens now."""
    lines = path.read_text().splitlines()
    seeds = [int(line.split()[1]) for line in lines if line.startswith("seed ")]
    stage = Stage(Chance(seeds[0]) if seeds else None)
    output: list[str] = []
    commands: list[str] = []
    in_result = False
    for line in lines:
        if in_result:
            in_result = bool(line.strip())
            if in_result:
                continue
            output.append("")
        elif line == MARK:
            stage.begin_block()
            for command in commands:
                stage.play(command)
            commands, in_result = [], True
            output += [MARK, *stage.lines]
        else:
            output.append(line)
            if line.strip() and not line.startswith("#"):
                commands.append(line)
    return "\n".join(output).rstrip("\n") + "\n"
