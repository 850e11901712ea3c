# SPDX-License-Identifier: Apache-2.0
"""Deaths of the ACTIVE node at a packet: what is tried, what may come of it, what came of it, and the table.

Nothing here runs anything: ``embryonic.py`` does.

Spec: B1, R17, R18.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import topo
from relay import PLACES
from report import Moment, Takeover, format_ms
from rich import box
from rich.console import Console
from rich.table import Table
from traffic import ShortResult

MODES = ("async", "bounded", "strict")
STAGES = ("syn", "syn-ack", "ack", "data", "answer", "fin")
ORDER = (
    *("syn", "syn-ack", "ack", "data", "data-ack", "answer", "answer-ack"),
    *("fin", "fin-ack", "fin-reply", "last-ack", "rst"),
)
"""Every stage that the relay tells apart, in order (stage.h)."""
WHENS = ("before", "after")
STORM_RATE_MIN = 5 / 6
"""Of the rate that was asked for, a storm must reach so much."""
SLOW = "; it had degraded to async, since its peer was slower than hold_ms"
LOST = ("overflow", "missed", "dropped", "unsent")
"""Figures of the relay that must be 0: it loses nothing of its own accord."""


# ---- what is tried, and what may come of it ----------------------------------------------------------
TOLD, RACING, UNHEARD = "told", "racing", "unheard"
"""What the survivor knows at the kill: it was waited for until it had every session; or it has what had come
to it by then, and nobody waited; or nothing has come to it since before the first packet."""


@dataclass(frozen=True, slots=True)
class Case:
    """A kill at a packet of every connection."""

    mode: str
    where: str
    when: str
    stage: str
    heard: str = RACING

    @property
    def boundary(self) -> str:
        """In words."""
        return f"{self.when} {self.stage}, {self.where}'s side"

    @property
    def withheld(self) -> bool:
        """``strict`` and nobody to acknowledge: the first packet never reaches the wire."""
        return self.mode == "strict" and self.heard == UNHEARD

    def legal(self, conns: int) -> tuple[int, int]:
        """Fewest and most connections that may survive.

        All, where the survivor has the session: what was told before a packet is enough to go on from it.
        With output commit it has, without waiting. All, too, where the client never gets the SYN-ACK: its
        kernel sends the SYN again (R17). None where the client is connected and the survivor never heard of
        it: only a SYN opens a session (R18). A SYN-ACK that is held at the client's side has passed the node:
        the client is connected by it. In a race, anything between none and all.

        ``bounded`` whose peer does not answer lets go after hold_ms, and is then as ``async``.
        """
        commits = self.mode != "async" and self.heard != UNHEARD
        if commits or self.heard == TOLD or self.withheld or self.stage == "syn":
            return conns, conns
        at_the_node = (self.where, self.stage) == ("wire", "syn-ack")
        if at_the_node and self.when == "before":
            return conns, conns
        # After it, the node is killed at once: some of them may have come through it.
        return (0, conns) if at_the_node or self.heard == RACING else (0, 0)


def through_wanted(case: Case, conns: int) -> dict[str, int]:
    """What the relay has let through at the moment of the kill: the stage or not, and nothing after it."""
    here = ORDER.index(case.stage)
    wanted = dict.fromkeys(ORDER[here:], 0)
    wanted[case.stage] = conns if case.when == "after" else 0
    return wanted


def boundaries(mode: str, heard: str) -> list[Case]:
    """Every boundary at both sides."""
    return [Case(mode, where, when, stage, heard) for where in PLACES for stage in STAGES for when in WHENS]


def cases_of(mode: str) -> list[Case]:
    """What is tried with a mode. With output commit nothing is waited for, ever."""
    cases = boundaries(mode, RACING)
    if mode == "async":
        unheard = boundaries(mode, UNHEARD)
        early = ("syn", "syn-ack")
        cases += boundaries(mode, TOLD)
        cases += [case for case in unheard if case.when == "before" or case.stage in early]
    elif mode == "bounded":
        cases.append(Case(mode, "client", "before", "ack", UNHEARD))
    else:
        cases.append(Case(mode, "wire", "before", "syn", UNHEARD))
    return cases


# ---- what came of it -----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Kill:
    """One death of the ACTIVE node, and its connections."""

    number: int
    case: Case | None
    """None: a storm."""
    delay_ms: int
    """Of the wire, each way."""
    per_s: int
    """New connections that a storm was to begin in a second."""
    mode: str
    victim: str
    survivor: str
    conns: int
    result: ShortResult
    relay: dict[str, Any]
    """Figures of the relay just after the kill."""
    unknown: int
    """Packets that the survivor dropped since they belonged to no session of its own."""
    let_go: int
    """``bounded`` and unheard: packets that the node let go since their time was up."""
    degraded: bool
    """The node's log says that its peer was slower than hold_ms, and that it held no longer."""
    takeover: Takeover
    moments: tuple[Moment, ...]

    @property
    def name(self) -> str:
        """In words."""
        if self.case is None:
            return f"storm, far end {self.delay_ms} ms away each way"
        return self.case.boundary

    @property
    def column(self) -> str:
        """In the table."""
        racing = self.case is None or self.case.heard == RACING
        return self.mode if racing or self.case is None else f"{self.mode} {self.case.heard}"

    @property
    def legal(self) -> tuple[int, int]:
        """Fewest and most that may survive. A storm leaves to ``async`` what it has not told yet."""
        if self.case is not None:
            return self.case.legal(self.conns)
        return (0 if self.mode == "async" else self.conns), self.conns

    @property
    def rate(self) -> float:
        """New connections a second, as the client began them."""
        return self.result.begun / max(self.result.begun_ms, 1) * 1e3

    def findings(self) -> list[str]:
        """What is not as it has to be."""
        low, high = self.legal
        r = self.result
        lost_in = ", ".join(f"{n} in {phase}" for phase, n in r.lost_in.items() if n)
        tellings = {
            f"{r.survived} of {self.conns} survived, not {low if low == high else f'{low} to {high}'}; "
            f"lost: {lost_in or 'none'}{SLOW if self.degraded else ''}": not low <= r.survived <= high,
            f"{r.begun} connections were begun, not {self.conns}": r.begun != self.conns,
            f"{r.corrupt} corrupt": r.corrupt > 0,
            f"the server saw {r.second} connections twice": r.second > 0,
            f"the server closed {r.closed} cleanly, the client {r.survived}": r.closed < r.survived,
            f"the server saw {', '.join(r.sources)}, not only {topo.WAN_VIP}": bool(r.sources)
            and r.sources != (topo.WAN_VIP,),
            f"the relay lost frames: {self.relay}": any(self.relay[name] for name in LOST),
        }
        if self.case is not None and not self.case.withheld:
            wanted = through_wanted(self.case, self.conns)
            through = {stage: self.relay["through"][stage] for stage in wanted}
            tellings[f"at the kill the relay had let through {through}"] = through != wanted
        if self.case is None:
            tellings[f"only {self.rate:.0f} new connections a second"] = (
                self.rate < STORM_RATE_MIN * self.per_s
            )
        elif self.case.withheld:
            syns = self.relay["arrived"]["syn"]
            tellings[f"{syns} SYN reached the wire that nobody had acknowledged"] = syns > 0
        if self.case == Case("bounded", "client", "before", "ack", UNHEARD):
            tellings[f"{self.let_go} packets were counted as let go, not {self.conns}"] = (
                self.let_go < self.conns
            )
        if self.case == Case("async", "wire", "before", "syn-ack", UNHEARD):
            tellings[f"{self.unknown} SYN-ACK were dropped by the survivor, not {self.conns}"] = (
                self.unknown < self.conns
            )
        return [f"{self.column}: {self.name}: {telling}" for telling, wrong in tellings.items() if wrong]

    def as_json(self) -> dict[str, Any]:
        """As ``embryonic.json`` has it."""
        r = self.result
        case = self.case
        return {
            "mode": self.mode,
            "boundary": None
            if case is None
            else {"where": case.where, "when": case.when, "stage": case.stage, "heard": case.heard},
            "storm": None if case is not None else {"per_s": round(self.rate, 1), "delay_ms": self.delay_ms},
            "victim": self.victim,
            "tcp": {
                "opened": r.begun,
                "survived": r.survived,
                "legal": list(self.legal),
                "reset": r.refused,
                "stalled": r.lost - r.refused - r.corrupt,
                "lost_in": r.lost_in,
                "repeated": r.repeated,
                "repeats_max": r.repeats_max,
                "accepted": r.accepted,
                "second": r.second,
                "translated": r.translated,
            },
            "relay": self.relay,
            "unknown_dropped": self.unknown,
            "let_go": self.let_go,
            "degraded": self.degraded,
            "takeover": {
                "reason": self.takeover.reason,
                "detected_ms": self.takeover.detected_ms,
                "forwarding_ms": self.takeover.forwarding_ms,
            },
            "sources_seen": list(r.sources),
            "timeline": [
                {"t_ms": round(moment.t_ms, 3), "node": moment.node, "event": moment.event}
                for moment in self.moments
            ],
        }


def totals(kills: Sequence[Kill]) -> dict[str, dict[str, int]]:
    """By mode, and what the survivor had heard."""
    found: dict[str, dict[str, int]] = {}
    for kill in kills:
        row = found.setdefault(kill.column, {"kills": 0, "opened": 0, "survived": 0, "lost": 0})
        row["kills"] += 1
        row["opened"] += kill.result.begun
        row["survived"] += kill.result.survived
        row["lost"] += kill.result.begun - kill.result.survived
    return found


def as_json(kills: Sequence[Kill], timers: dict[str, int], failed: Sequence[str]) -> dict[str, Any]:
    """The content of ``embryonic.json``."""
    return {
        "scenario": "embryonic",
        "requirements": ["B1", "R17", "R18"],
        "timers": timers,
        "totals": totals(kills),
        "runs": [kill.as_json() for kill in kills],
        "passed": not failed,
        "failed_bars": list(failed),
    }


def describe(kill: Kill) -> str:
    """One line while the scenario runs."""
    return (
        f"{kill.column}: {kill.name}: {kill.result.survived} of {kill.conns} survived, "
        f"forwarding after {format_ms(kill.takeover.forwarding_ms)} ms"
    )


def print_kills(console: Console, kills: Sequence[Kill], failed: Sequence[str]) -> None:
    """A row for each boundary, a column for each mode; then the verdict."""
    table = Table(
        title="connections that survived, by the packet at which ACTIVE died",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("killed")
    columns = list(dict.fromkeys(kill.column for kill in kills))
    for column in columns:
        table.add_column(column.replace(" ", "\n"), justify="right")
    for name in dict.fromkeys(kill.name for kill in kills):
        cells = [[kill for kill in kills if (kill.column, kill.name) == (column, name)] for column in columns]
        table.add_row(name, *(_cell(cell) for cell in cells))
    console.print(table)
    for column, sums in totals(kills).items():
        console.print(
            f"{column}: {sums['lost']} of {sums['opened']} connections lost in {sums['kills']} kills",
            highlight=False,
        )
    if failed:
        console.print("[bold red]FAILED[/]")
        for bar in failed:
            console.print(f"  {bar}", markup=False, highlight=False)
    else:
        console.print("[bold green]PASSED[/]: every bar holds")


def _cell(kills: Sequence[Kill]) -> str:
    if not kills:
        return "-"
    text = f"{sum(k.result.survived for k in kills)}/{sum(k.conns for k in kills)}"
    return f"[red]{text}[/]" if any(k.findings() for k in kills) else text
