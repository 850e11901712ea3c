# SPDX-License-Identifier: Apache-2.0
"""Where a scenario is played: a lab with a pair and a web server; and a trial under way.

A trial goes through the same steps whatever its fault is::

    with stage.trial(number, victim, "node a is killed") as trial:  # the traffic is old and steady
        trial.fault_ns = victim.die()  # the fault
        trial.recover()  # every connection is answered again
        yield trial.end()  # figures and findings
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import frr
import topo
from failover import LIVE, compare_tables, moments_of, roles_of, takeover_of, traffic_findings
from pair import Node, Pair, configuration_text, with_keys
from report import Moment, Run, TableComparison
from sandbox import Lab, LabError, now_ns, wait_until
from scenario import Figures, Play, Settings, Trial
from traffic import Traffic, WebServer, web_server

FLOWS = 200
TOLD = {**LIVE, "remote": topo.SERVER_ADDRESS}
"""What is compared of two tables; not what else may be in them by the million."""
FIRST_NUMBER = 100
"""Of a stage's trials: ``embryonic.py`` has the source ports of lower ones (``FIRST_SOURCE_PORT``)."""
SHORTER_S = 2
"""So much less takes the download that is played short."""
TAKEOVER_S = 10
RECOVERY_S = 20
DIGESTS_S = 30

Record = dict[str, Any]
Terms = Mapping[str, int | None]
"""Of each node; None where no daemon answers."""


@dataclass(slots=True)
class Stage:
    """A running lab, and what its trials have in common."""

    lab: Lab
    pair: Pair
    web: WebServer
    settings: Settings
    short: bool
    """Continuous integration: what takes long is played short."""
    say: Callable[[str], None]
    lan: frr.RoutedLan | None = None
    """Its router and routing daemons, if it is routed."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(FIRST_NUMBER))

    @classmethod
    @contextlib.contextmanager
    def started(
        cls, directory: Path, settings: Settings, *, short: bool, say: Callable[[str], None]
    ) -> Iterator[Self]:
        """A lab with these settings, for the block; its daemons run, and nobody waits for them yet."""
        directory.mkdir(parents=True, exist_ok=True)
        config = directory / "pair.toml"
        text = with_keys(configuration_text(), dict(settings.keys)) + settings.tail
        config.write_text(frr.routed(text) if settings.routed else text)
        with (
            Lab.start(directory / "run", directory / "supervisor.log") as lab,
            web_server(lab, directory / "nginx.log") as web,
        ):
            pair = Pair(lab, directory, config)
            lan = frr.RoutedLan.build(lab, config, directory) if settings.routed else None
            pair.start()
            yield cls(lab, pair, web, settings, short, say, lan)

    def number(self) -> int:
        """Of the next traffic in this lab: its ports are its own."""
        return next(self._numbers)

    def settle(self) -> Node:
        """Start what does not run; the ACTIVE node, once the other one is ready to take over."""
        for node in self.pair.nodes.values():
            if node.pid is None:
                node.start()
        active = self.pair.wait_settled(60)
        if self.lan:
            self.lan.wait_preferred(active.name)
        return active

    def make_active(self, name: str) -> Node:
        """A settled pair in which this node is the ACTIVE one."""
        active = self.settle()
        if active.name != name:
            active.request("failover")
            wait_until(lambda: self.pair[name].role() == "ACTIVE", 10, f"{name} is ACTIVE")
            active = self.settle()
        return active

    def trial(self, number: int, victim: Node, fault: str, *, download_s: float = 6) -> Take:
        """A trial whose traffic is steady, and known to both nodes."""
        if self.short:
            download_s -= SHORTER_S
        return Take(self, number, victim, fault, download_s)


def repeated(once: Callable[[Stage, int], Trial]) -> Play:
    """A scenario whose trials are alike."""

    def play(stage: Stage, runs: int) -> Iterator[Trial]:
        for number in range(1, runs + 1):
            yield once(stage, number)

    return play


class Take:
    """A trial under way."""

    def __init__(self, stage: Stage, number: int, victim: Node, fault: str, download_s: float) -> None:
        self.stage, self.number = stage, number
        self.victim, self.survivor = victim, stage.pair.peer(victim)
        self.fault = fault
        self.start_ns = now_ns()
        self.fault_ns = 0
        """The moment from which the timeline is counted; the end of the trial wants it."""
        self.died = False
        self.moments: list[Moment] = []
        self.findings: list[str] = []
        self._history: dict[tuple[object, ...], Record] = {}
        self._before: Sequence[Record] | None = None
        self._table = TableComparison(0, 0, (), (), ())
        pair = stage.pair
        self.traffic = Traffic(
            stage.lab, stage.web, stage.number(), flows=FLOWS, download_s=download_s, say=stage.say
        )
        try:
            wait_until(
                lambda: self.traffic.under_way() and pair.settled() and pair.holds(self.traffic.udp.source),
                30,
                "both nodes have all of the traffic",
            )
            self.remember()
            self._terms = terms_of(pair)
            self._steady_ns = now_ns()
            stage.say(fault)
        except BaseException:
            self.traffic.close()
            raise

    def remember(self) -> None:
        """Keep what the histories say by now: a node that dies takes its own along.

        That of a node that runs has to be read: of one that was not, no decision would be known.
        """
        for node in self.stage.pair.nodes.values():
            try:
                events = node.history()
            except (OSError, ValueError) as error:
                if node.pid is not None:
                    self.findings.append(f"the history of node {node.name} was not read: {error}")
                continue
            for event in events:
                self._history[event["node"], event["t_ms"], event["event"], str(event)] = event

    def keep_table(self) -> None:
        """The victim's sessions as they are now are what its peer has to have after the fault."""
        self._before = self.victim.sessions(**TOLD)

    def happened(self, event: str, t_ns: int | None = None) -> None:
        """Something that the lab did, for the timeline."""
        t_ms = ((now_ns() if t_ns is None else t_ns) - self.fault_ns) / 1e6
        self.moments.append(Moment(t_ms, "lab", event))

    def wait_takeover(self) -> None:
        """The peer of the victim reigns; that it never does is a finding."""
        self.expect(lambda: self.survivor.role() == "ACTIVE", TAKEOVER_S, "the peer is ACTIVE")

    def recover(self) -> None:
        """Every connection has a request answered that was sent from now on."""
        self.traffic.mark()
        self.expect(self.traffic.tcp.recovered, RECOVERY_S, "each connection has a new request answered")
        if self._before is not None:
            self._table = compare_tables(self._before, self.survivor.sessions(**TOLD))

    def expect(self, condition: Callable[[], Any], timeout_s: float, what: str) -> None:
        """Wait for something; that it never comes is a finding, and the trial goes on."""
        try:
            wait_until(condition, timeout_s, what)
        except LabError as error:
            self.findings.append(str(error))

    def digests(self, since_ns: int) -> Figures:
        """How soon both tables were found to be equal; that they never were is a finding."""
        try:
            return {"digests_s": digests_agree_s(self.stage.pair, since_ns)}
        except LabError as error:
            self.findings.append(str(error))
            return {}

    def role_changes(self) -> list[Record]:
        """Of both nodes, since the trial began."""
        return [
            event
            for event in self._history.values()
            if event["event"] == "role" and float(event["t_ms"]) * 1e6 >= self.start_ns
        ]

    def end(self, **more: float) -> Trial:
        """Stop the traffic, and tell what became of it; ``more`` are figures of the scenario's own."""
        self.stage.say("waiting for the end of the download")
        survived, probed, downloaded = self.traffic.finish(self._steady_ns)
        self.remember()
        moved = moves_of(self._terms, terms_of(self.stage.pair))
        history = sorted(self._history.values(), key=lambda event: float(event["t_ms"]))
        run = Run(
            number=self.number,
            victim=self.victim.name,
            survivor=self.survivor.name,
            kill_ns=self.fault_ns,
            tcp=survived,
            udp=probed,
            download=downloaded,
            takeover=takeover_of(history, self.fault_ns, self.survivor),
            table=self._table,
            moments=moments_of(
                history, self.start_ns, self.fault_ns, Moment(0.0, "lab", self.fault), *self.moments
            ),
            roles=roles_of(history, self.fault_ns, dead=self.victim.name if self.died else None),
            fault=self.fault,
        )
        if not run.table.identical:
            self.findings.append(
                f"table of {run.survivor}: {len(run.table.missing)} records missing, "
                f"{len(run.table.different)} different, {len(run.table.added)} new"
            )
        figures = figures_of(run) | {"role_changes": float(max(len(self.role_changes()), moved))} | more
        return Trial(self.number, figures, (*self.findings, *traffic_findings(run)), run)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.traffic.close()


def terms_of(pair: Pair) -> Terms:
    """As both nodes have it now."""
    return {name: None if status is None else int(status["term"]) for name, status in pair.statuses().items()}


def moves_of(before: Terms, after: Terms) -> int:
    """Nodes that are in another term: so many roles have changed at the least, whatever histories still say.

    A history is a ring, and who took the role and gave it back may have left it; no term comes twice. Of a
    node that does not answer nothing is known here: whether it may be silent, the scenario knows.
    """
    return sum(
        term is not None and before[name] is not None and term != before[name] for name, term in after.items()
    )


def figures_of(run: Run) -> Figures:
    """What every bar may be about. Datagrams are counted on both ways, but for ``lost_there``."""
    udp, takeover = run.udp, run.takeover
    figures: Figures = {
        "sessions_lost": float(run.tcp.opened - run.tcp.survived),
        "lost": float(udp.lost + udp.echoes.lost),
        "lost_there": float(udp.lost),
        "duplicated": float(udp.there.duplicated + udp.echoes.duplicated),
        "reordered": float(udp.there.reordered + udp.echoes.reordered),
        "outage_ms": run.outage_ms,
        "outage_back_ms": udp.echo_gap_ms,
    }
    if takeover.forwarding_ms is not None:
        figures["forwarding_ms"] = takeover.forwarding_ms
    return figures


def digests_agree_s(pair: Pair, since_ns: int) -> float:
    """Seconds from ``since_ns`` until a later comparison has found both tables to be equal."""

    def agreed() -> float | None:
        found = []
        for status in pair.statuses().values():
            if status is None:
                return None
            audit, bulk = status["sync"]["audit"], status["sync"]["bulk"]
            if not audit["in_sync"] or audit["differing"] or bulk["in_progress"]:
                return None
            if audit["agreed_at"] is None or audit["agreed_at"] * 1e9 <= since_ns:
                return None
            found.append(float(audit["agreed_at"]))
        return max(found) - since_ns / 1e9

    return wait_until(agreed, DIGESTS_S, "the digests of both tables agree")
