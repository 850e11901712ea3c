# SPDX-License-Identifier: Apache-2.0
"""Killed at every packet: the ACTIVE node dies at each boundary of the handshake and of the first exchange.

A relay in the wire (``relay.c``) brings all connections of a kill to the same packet, holds whatever follows,
and kills the node there; nothing is left to chance or to a timer. A connection has survived when its one
socket went through connect, request, answer and close, and the server saw one connection of it. Kernels may
send again; nothing else does.

Each kill is a ``Case``, and each case says how many connections may survive: ``Case.legal``. What dies is
ACTIVE, a, b, a, ...: the dead node comes back between two kills.

Spec: B1, R17, R18.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from failover import killed, moments_of, shown, takeover_of, timers
from faults import sync_unheard
from kills import (
    MODES,
    STAGES,
    TOLD,
    UNHEARD,
    WHENS,
    Case,
    Kill,
    as_json,
    cases_of,
    describe,
    print_kills,
)
from pair import Node, Pair, configuration_text, with_keys
from relay import PLACES, Relay, spliced
from rich.console import Console
from sandbox import BUILD_DIR, Lab, LabError, now_ns, wait_until
from traffic import ShortConns, ShortResult, compile_programs

SCENARIO = "embryonic"
CONNS = 60
"""Connections of a kill; the kills of a mode make more than a thousand."""
FIRST_SERVER_PORT = 7300
"""Each kill has a server port of its own, so that no packet of an earlier one is taken for its own."""
FIRST_SOURCE_PORT = 40000
SOURCE_PORTS = 10
"""By ten addresses; a storm has others."""
STORM_SOURCE_PORTS = (20000, 24000)
STORM_DELAYS_MS = (25, 0)
"""Far away there are many half-open connections at a time; near, a session must be told at once."""
STORM_PER_S = 2400
STORM_CONNS = 12_000
STORM_KILL_AT = 5_000
END_S = 12.0
"""What has begun has so long from the takeover on: SYN retransmissions come after 1, 3 and 7 s."""
END_LOST_S = 2.0
"""Where all are to be lost: three retransmissions of data, and none is answered."""


# ---- one kill ------------------------------------------------------------------------------------------
def configuration_with(directory: Path, mode: str) -> Path:
    """The pair's file with a mode of output commit."""
    written = directory / f"pair-{mode}.toml"
    written.write_text(with_keys(configuration_text(), {"sync": f'commit = "{mode}"'}))
    return written


@dataclass(slots=True)
class Death:
    """A kill that is under way: who dies, who is to take over, and what was before."""

    victim: Node
    survivor: Node
    relay: Relay
    port: int
    start_ns: int
    unknown: int
    degraded: bool = False
    at_kill: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)

    def wait_takeover(self) -> None:
        """The relay kills, and the survivor takes over."""
        self.at_kill = self.relay.wait_event("killed", 60)
        self.victim.wait_gone()
        self.degraded = was_degraded(self.victim)
        wait_until(lambda: self.survivor.role() == "ACTIVE", 10, f"node {self.survivor.name} takes over")
        self.history = self.survivor.history()


@dataclass(slots=True)
class Bench:
    """A lab with a pair of one mode, and a relay at each side."""

    lab: Lab
    pair: Pair
    mode: str
    relays: dict[str, Relay]
    first_number: int = 0
    kills: list[Kill] = field(default_factory=list)

    @property
    def number(self) -> int:
        """Of the next kill in this lab: its ports are its own."""
        return self.first_number + len(self.kills)

    def kill_at(self, case: Case, conns: int = CONNS) -> Kill:
        """Bring ``conns`` connections to the packet, kill, and see what becomes of them."""
        death = self._prepare(case.where)
        relay = death.relay
        waits = case.heard == TOLD or (case.heard == UNHEARD and case.mode != "async")
        # What was in flight at the moment of the kill is held until the peer has taken over (keep), so that
        # it is the first that the peer sees; what follows a packet that was let go is lost with the node.
        keep = case.when == "before"
        let_go = frames_let_go(death.victim) if waits else 0
        with contextlib.ExitStack() as stack, contextlib.ExitStack() as unheard:
            if case.heard == UNHEARD:
                unheard.enter_context(sync_unheard(self.lab, death.survivor.name))
            relay.step(case.stage, case.when, conns, wait=waits, keep=keep)
            first_port = FIRST_SOURCE_PORT + SOURCE_PORTS * self.number
            traffic = ShortConns(self.lab, death.port, first_port, conns=conns)
            stack.callback(traffic.close)
            if case.withheld:
                wait_until(lambda: held_sessions(death.victim) >= conns, 5, "the node holds all of them")
                relay.command("kill")
            elif waits:
                relay.wait_event("full", 20)
                let_go = frames_let_go(death.victim) - let_go
                if case.heard == TOLD and (case.where, case.stage) != ("client", "syn"):
                    wait_until(lambda: told(death.survivor, death.port) >= conns, 5, "all have been told")
                relay.command("go")
            death.wait_takeover()
            unheard.close()
            relay.command("pass")
            end_s = END_LOST_S if case.legal(conns)[1] == 0 else END_S
            traffic.end(end_s)
            death.victim.start()
            result = traffic.finish(end_s + 10)
        return self._add(death, case, conns, result, death.at_kill, let_go=let_go)

    def storm(
        self,
        delay_ms: int,
        *,
        conns: int = STORM_CONNS,
        kill_at: int = STORM_KILL_AT,
        per_s: int = STORM_PER_S,
    ) -> Kill:
        """New connections all the time, to a far end behind a delay; the node dies at a SYN in the middle."""
        death = self._prepare("wire")
        relay = death.relay
        with contextlib.ExitStack() as stack:
            relay.command(f"delay {delay_ms}")
            stack.callback(relay.command, "delay 0")
            relay.count("syn", kill_at)
            first_port = STORM_SOURCE_PORTS[self.number % 2]
            traffic = ShortConns(self.lab, death.port, first_port, conns=conns, per_s=per_s)
            stack.callback(traffic.close)
            death.wait_takeover()
            wait_until(lambda: int(traffic.progress()["begun"]) >= conns, 60, "all have begun")
            traffic.end(END_S + 8)
            result = traffic.finish(END_S + 18)
            figures = relay.figures()
            death.victim.start()
        return self._add(death, None, conns, result, figures, delay_ms=delay_ms, per_s=per_s)

    def _prepare(self, where: str) -> Death:
        start_ns = now_ns()
        victim = self.pair.wait_settled()
        survivor = self.pair.peer(victim)
        port, relay = FIRST_SERVER_PORT + self.number, self.relays[where]
        relay.test(port)
        relay.victim(victim)
        return Death(victim, survivor, relay, port, start_ns, unknown_dropped(survivor))

    def _add(
        self,
        death: Death,
        case: Case | None,
        conns: int,
        result: ShortResult,
        relay: dict[str, Any],
        *,
        delay_ms: int = 0,
        per_s: int = 0,
        let_go: int = 0,
    ) -> Kill:
        killed_ns = int(relay["killed_ns"])
        kill = Kill(
            number=self.number,
            case=case,
            delay_ms=delay_ms,
            per_s=per_s,
            mode=self.mode,
            victim=death.victim.name,
            survivor=death.survivor.name,
            conns=conns,
            result=result,
            relay={key: value for key, value in relay.items() if key not in {"event", "full"}},
            unknown=unknown_dropped(death.survivor) - death.unknown,
            let_go=let_go,
            degraded=death.degraded,
            takeover=takeover_of(death.history, killed_ns, death.survivor),
            moments=moments_of(death.history, death.start_ns, killed_ns, killed(death.victim)),
        )
        self.kills.append(kill)
        return kill


def told(node: Node, port: int) -> int:
    """Sessions to the server's ``port`` in the node's table."""
    return int(node.request("sessions", remote=f":{port}", count_only=True)["count"])


def sync_figure(node: Node, name: str) -> int:
    """A field of ``struct fp_sync_stats``, over all workers."""
    return sum(int(worker[name]) for worker in node.request("counters")["sync"])


def held_sessions(node: Node) -> int:
    """Sessions whose packets wait for an acknowledgement."""
    return sync_figure(node, "held_sessions")


def frames_let_go(node: Node) -> int:
    """Packets that left since their time was up."""
    return sync_figure(node, "hold_expired")


def was_degraded(node: Node) -> bool:
    """What the node's log said last about output commit, in its last life."""
    life = node.log.read_text().rpartition(" daemon.starting ")[2]
    return life.rfind(" commit.degraded ") > life.rfind(" commit.recovered ")


def unknown_dropped(node: Node) -> int:
    """Packets that belonged to no session, and opened none."""
    return node.counter("syn_check") + node.counter("no_session")


# ---- the scenario --------------------------------------------------------------------------------------
@contextlib.contextmanager
def benches(lab: Lab, log_dir: Path, modes: Sequence[str]) -> Iterator[Iterator[Bench]]:
    """For each mode in turn the pair, started with it, and stopped before the next."""
    with contextlib.ExitStack() as stack:
        relays = {where: stack.enter_context(spliced(lab, where)) for where in PLACES}

        def each() -> Iterator[Bench]:
            number = 0
            for mode in modes:
                pair = Pair(lab, log_dir / mode, configuration_with(log_dir, mode))
                pair.start()
                bench = Bench(lab, pair, mode, relays, number)
                yield bench
                number = bench.number
                pair.wait_settled()
                pair.stop_all()

        yield each()


def check_words(modes: Sequence[str], boundaries: Sequence[str]) -> None:
    """What was typed must mean something."""
    parts = (*PLACES, *WHENS, *STAGES, *(f"{when}-{stage}" for when in WHENS for stage in STAGES))
    for what, words, known in (("mode", modes, MODES), ("boundary", boundaries, parts)):
        if unknown := [word for word in words if word not in known]:
            raise LabError(f"no {what} {unknown[0]!r}: choose of {', '.join(known)}")
    if not modes:
        raise LabError(f"no mode is left: choose of {', '.join(MODES)}")


def plan(mode: str, boundaries: Sequence[str], runs: int) -> list[Case]:
    """Cases of a mode; ``boundaries`` are parts of their names, such as ``syn-ack`` or ``wire``."""
    wanted = set(boundaries)
    chosen = [
        case
        for case in cases_of(mode)
        if not wanted or wanted & {case.stage, case.when, case.where, f"{case.when}-{case.stage}"}
    ]
    return chosen * runs


def main(modes: Sequence[str], boundaries: Sequence[str], runs: int, *, storms: bool = True) -> int:
    """Run it, print the table, write the JSON; 1 if a bar fails."""
    check_words(modes, boundaries)
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "110")))
    log_dir = BUILD_DIR / SCENARIO
    log_dir.mkdir(parents=True, exist_ok=True)
    compile_programs()
    kills: list[Kill] = []
    broken, wanted = "", 0
    try:
        with (
            Lab.start(log_dir / "run", log_dir / "supervisor.log") as lab,
            benches(lab, log_dir, modes) as all_benches,
        ):
            for bench in all_benches:
                cases = plan(bench.mode, boundaries, runs)
                delays = STORM_DELAYS_MS if storms else ()
                wanted += len(cases) + len(delays)
                for case in cases:
                    kills.append(bench.kill_at(case))
                    _say(console, kills[-1])
                for delay_ms in delays:
                    kills.append(bench.storm(delay_ms))
                    _say(console, kills[-1])
    except (LabError, OSError) as error:
        broken = str(error)
    failed = [f"lab: {broken}"] if broken else []
    failed += [finding for kill in kills for finding in kill.findings()]
    if len(kills) != wanted:
        failed.append(f"{len(kills)} of {wanted} kills came to their end")
    path = BUILD_DIR / f"{SCENARIO}.json"
    path.write_text(json.dumps(as_json(kills, timers(), failed), indent=1) + "\n")
    print_kills(console, kills, failed)
    console.print(f"{shown(path)}\nlogs: {shown(log_dir)}", highlight=False)
    return 1 if failed else 0


def _say(console: Console, kill: Kill) -> None:
    mark = " [bold red]not as it has to be[/]" if kill.findings() else ""
    console.print(f"{describe(kill)}{mark}", highlight=False)
