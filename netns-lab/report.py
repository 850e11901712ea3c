# SPDX-License-Identifier: Apache-2.0
"""What a scenario found, for people and programs: the table on screen, the JSON, the page.

A scenario fills ``Run`` records and says which bars failed; nothing here judges. The page is made by
``report_html.py``.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import topo
from rich import box
from rich.console import Console
from rich.table import Table
from sandbox import Lab
from traffic import DownloadResult, TcpResult, UdpResult


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened: a decision from a node's history, or what the lab did (node ``lab``)."""

    t_ms: float
    """Milliseconds since the kill."""
    node: str
    event: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RoleSpan:
    """A node held a role for a while; ``DEAD`` from its kill on."""

    node: str
    role: str
    from_ms: float
    to_ms: float


@dataclass(frozen=True, slots=True)
class Takeover:
    """Why the survivor took over, and when, counted from the kill."""

    reason: str
    detected_ms: float | None
    """The survivor held its peer for dead."""
    forwarding_ms: float | None
    """Its fast path forwarded as ACTIVE."""


@dataclass(frozen=True, slots=True)
class TableComparison:
    """The survivor's table against the dead node's: 5-tuples, NAT ports, states."""

    before: int
    same: int
    missing: tuple[str, ...]
    different: tuple[str, ...]
    added: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """Nothing is missing, different or new."""
        return not (self.missing or self.different or self.added)


@dataclass(frozen=True, slots=True)
class Run:
    """One fault under traffic; in the main job, the death of the ACTIVE node."""

    number: int
    victim: str
    """Whom the fault happens to."""
    survivor: str
    kill_ns: int
    """When it happens; moment 0 of the timeline."""
    tcp: TcpResult
    udp: UdpResult
    download: DownloadResult
    takeover: Takeover
    table: TableComparison
    moments: tuple[Moment, ...]
    roles: tuple[RoleSpan, ...]
    fault: str
    """In words, such as "node a is killed"."""

    @property
    def outage_ms(self) -> float:
        """The longest hole in the UDP flow, on its way there or back."""
        return max(self.udp.gap_ms, self.udp.echo_gap_ms)

    @property
    def sources_seen(self) -> list[str]:
        """Source addresses that the servers saw."""
        return sorted({*self.tcp.sources, *self.udp.sources})

    def as_json(self) -> dict[str, Any]:
        """The run as ``failover.json`` has it."""
        return {
            "tcp": {
                "opened": self.tcp.opened,
                "survived": self.tcp.survived,
                "reset": self.tcp.reset,
                "stalled": self.tcp.stalled,
            },
            "download": {"completed": self.download.completed, "sha256_ok": self.download.sha256_ok},
            "udp": {
                "sent": self.udp.sent,
                "gap_ms": round(self.udp.gap_ms, 3),
                "echo_gap_ms": round(self.udp.echo_gap_ms, 3),
                **asdict(self.udp.there),
                "echoes": asdict(self.udp.echoes),
            },
            "outage_ms": round(self.outage_ms, 3),
            "takeover": {
                "reason": self.takeover.reason,
                "detected_ms": _rounded(self.takeover.detected_ms),
                "forwarding_ms": _rounded(self.takeover.forwarding_ms),
            },
            "sources_seen": self.sources_seen,
            "timeline": [
                {"t_ms": round(moment.t_ms, 3), "node": moment.node, "event": moment.event}
                for moment in self.moments
            ],
        }


@dataclass(frozen=True, slots=True)
class Report:
    """All runs of a scenario, and the verdict."""

    scenario: str
    requirements: tuple[str, ...]
    timers: dict[str, int]
    runs: tuple[Run, ...]
    failed_bars: tuple[str, ...]
    bars: dict[str, float]
    """``outage_median_ms`` and ``outage_max_ms``: the largest that passes."""

    @property
    def outages_ms(self) -> list[float]:
        """``outage_ms`` of every run."""
        return [run.outage_ms for run in self.runs]

    def as_json(self) -> dict[str, Any]:
        """The content of ``failover.json``."""
        return {
            "scenario": self.scenario,
            "requirements": list(self.requirements),
            "timers": self.timers,
            "runs": [run.as_json() for run in self.runs],
            "passed": not self.failed_bars,
            "failed_bars": list(self.failed_bars),
        }

    def write_json(self, path: Path) -> None:
        """Write ``failover.json``."""
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def format_ms(value: float | None) -> str:
    """Milliseconds for a cell."""
    return "-" if value is None else f"{value:.1f}"


def print_report(console: Console, report: Report) -> None:
    """The final table, then the verdict."""
    table = Table(
        title=f"{report.scenario}: the ACTIVE node dies whole, times in ms from the kill",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("run", justify="right")
    table.add_column("dies")
    for heading in ("survived", "reset", "stall", "HTTP", "lost", "outage", "detect", "fwd", "table"):
        table.add_column(heading, justify="right")
    for run in report.runs:
        intact = run.download.completed and run.download.sha256_ok
        table.add_row(
            str(run.number),
            run.victim,
            f"{run.tcp.survived}/{run.tcp.opened}",
            str(run.tcp.reset),
            str(run.tcp.stalled),
            "intact" if intact else "[red]broken[/]",
            str(run.udp.lost),
            format_ms(run.outage_ms),
            format_ms(run.takeover.detected_ms),
            format_ms(run.takeover.forwarding_ms),
            "same" if run.table.identical else "[red]differs[/]",
        )
    console.print(table)
    opened = sum(run.tcp.opened for run in report.runs)
    survived = sum(run.tcp.survived for run in report.runs)
    sources = sorted({source for run in report.runs for source in run.sources_seen})
    translated = sum(run.tcp.translated for run in report.runs)
    console.print(f"TCP connections: {survived} of {opened} survived; {translated} source ports translated")
    reasons = sorted({run.takeover.reason for run in report.runs})
    console.print(f"reason of the takeover: {', '.join(reasons)}")
    console.print(f"sources that the server saw: {', '.join(sources)}")
    if report.runs:
        median, worst = statistics.median(report.outages_ms), max(report.outages_ms)
        console.print(
            f"outage: median {median:.1f} ms (bar {report.bars['outage_median_ms']:.0f}), "
            f"maximum {worst:.1f} ms (bar {report.bars['outage_max_ms']:.0f})"
        )
    if report.failed_bars:
        console.print("[bold red]FAILED[/]")
        for bar in report.failed_bars:
            console.print(f"  {bar}", markup=False)
    else:
        console.print("[bold green]PASSED[/]: every bar holds")


def print_status(lab: Lab, statuses: dict[str, dict[str, Any] | None]) -> None:
    """The hosts of a lab, what runs in them, and what the daemons say of themselves."""
    console = Console()
    running: dict[str, list[str]] = {}
    for process in lab.processes():
        running.setdefault(process["ns"], []).append(process["name"] or process["argv"][0])
    hosts = Table(title=f"lab: process 1 is pid {lab.init_pid}")
    for heading in ("host", "what", "addresses", "runs"):
        hosts.add_column(heading)
    for host in topo.HOSTS:
        addresses = [f"{device} {_spread(spread)}" for device, spread in host.addresses.items()]
        hosts.add_row(host.name, host.role, "\n".join(addresses), "\n".join(running.get(host.name, [])))
    console.print(hosts)
    nodes = Table(title="pair")
    for heading in ("node", "role", "term", "ready", "peer", "paths heard", "sync", "flows"):
        nodes.add_column(heading)
    for name, status in statuses.items():
        nodes.add_row(name, *(_describe(status) if status else ["[red]no answer[/]"]))
    console.print(nodes)


def _spread(addresses: Sequence[str]) -> str:
    return addresses[0] if len(addresses) == 1 else f"{addresses[0]} .. {addresses[-1]}"


def _describe(status: dict[str, Any]) -> list[str]:
    peer, sync, flows = status["peer"], status["sync"], status["flows"]
    heard = [path for path, stats in peer["paths"].items() if stats["alive"]]
    return [
        str(status["role"]).upper(),
        str(status["term"]),
        "yes" if status["ready"] else "no",
        str(peer["role"]).upper() if peer["alive"] else "silent",
        " ".join(heard) or "none",
        f"{sync['state']}, {sync['pending']} pending",
        f"{flows['flows']} flows, {flows['mappings']} mappings",
    ]
