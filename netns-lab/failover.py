# SPDX-License-Identifier: Apache-2.0
"""The main job: a thousand TCP connections, a UDP flow and a download outlive the death of the ACTIVE node.

One lab, ``RUNS`` deaths in a row. The dead node comes back between two runs, joins, and becomes PASSIVE
without preempting, so that the next death is the other node's: a, b, a, ...

Spec: R1, R2, R4, R6, R7, R12, R13, R19, R20, R21, R25.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import topo
from pair import CONFIG, Node, Pair
from report import Moment, Report, RoleSpan, Run, TableComparison, Takeover, print_report
from report_html import page, role_spans
from rich.console import Console
from sandbox import BUILD_DIR, Lab, LabError, now_ns, wait_until
from traffic import Traffic, WebServer, compile_programs, web_server

from flexha.config.load import load

SCENARIO = "failover"
REQUIREMENTS = ("R1", "R2", "R4", "R6", "R7", "R12", "R13", "R19", "R20", "R21", "R25")
BARS = {"outage_median_ms": 220.0, "outage_max_ms": 350.0}
TRANSLATED_SHARE_MIN = 0.5

Say = Callable[[str], None]


# ---- one death -------------------------------------------------------------------------------------
def run_once(lab: Lab, pair: Pair, web: WebServer, number: int, flows: int, say: Say) -> Run:
    """Traffic, the death of the ACTIVE node, and what became of the traffic."""
    start_ns = now_ns()
    victim = pair.wait_settled()
    survivor = pair.peer(victim)
    with Traffic(lab, web, number, flows=flows, say=say) as traffic:
        wait_until(
            lambda: traffic.under_way() and pair.settled(), 30, "the PASSIVE node has all of the traffic"
        )
        before, history = victim.sessions(**LIVE), victim.history()

        say(f"node {victim.name} dies")
        kill_ns = victim.die()
        traffic.mark()
        with contextlib.suppress(LabError):  # what does not come back is told by the figures below
            wait_until(lambda: survivor.role() == "ACTIVE", 10, f"node {survivor.name} takes over")
            say(f"node {survivor.name} is ACTIVE; waiting for all connections to be answered again")
            wait_until(traffic.tcp.recovered, 20, "each connection has a new request answered")
        after = survivor.sessions(**LIVE)
        history += survivor.history()
        say("waiting for the end of the download")
        survived, probed, downloaded = traffic.finish()

    return Run(
        number=number,
        victim=victim.name,
        survivor=survivor.name,
        kill_ns=kill_ns,
        tcp=survived,
        udp=probed,
        download=downloaded,
        takeover=takeover_of(history, kill_ns, survivor),
        table=compare_tables(before, after),
        moments=moments_of(history, start_ns, kill_ns, killed(victim)),
        roles=roles_of(history, kill_ns, dead=victim.name),
        fault=f"node {victim.name} is killed",
    )


# ---- what the daemons' histories say ---------------------------------------------------------------
def killed(victim: Node) -> Moment:
    """The moment from which all others are counted."""
    return Moment(0.0, "lab", f"node {victim.name} killed", "SIGKILL of the daemon, links down")


def moments_of(
    history: Sequence[dict[str, Any]], start_ns: int, fault_ns: int, *lab: Moment
) -> tuple[Moment, ...]:
    """Both nodes' decisions of this run and what the lab did, in order, in milliseconds from the fault."""
    told = (
        _moment(event, float(event["t_ms"]) - fault_ns / 1e6)
        for event in history
        if float(event["t_ms"]) * 1e6 >= start_ns
    )
    return tuple(sorted((*lab, *told), key=lambda moment: moment.t_ms))


def _moment(event: dict[str, Any], t_ms: float) -> Moment:
    """A record of a history; the fields that tell records of one name apart stand in the event's own text."""
    fields = {key: value for key, value in event.items() if key not in {"t_ms", "wall", "node", "event"}}
    match event["event"]:
        case "role":
            text = f"role {fields.pop('from')} to {fields.pop('to')}"
        case "role-obeyed":
            text = f"fast path is {fields.pop('role')}"
        case "path-up" | "path-down" as name:
            text = f"{name} {fields.pop('path')}"
        case name:
            text = str(name)
    return Moment(t_ms, event["node"], text, ", ".join(f"{key} {value}" for key, value in fields.items()))


def takeover_of(history: Sequence[dict[str, Any]], kill_ns: int, survivor: Node) -> Takeover:
    """The survivor's own account: when it held the peer for dead, when its fast path was ACTIVE, and why."""
    since = [e for e in history if e["node"] == survivor.name and float(e["t_ms"]) * 1e6 >= kill_ns]

    def first_ms(name: str, **fields: str) -> float | None:
        for event in since:
            if event["event"] == name and all(str(event.get(k)).upper() == v for k, v in fields.items()):
                return float(event["t_ms"]) - kill_ns / 1e6
        return None

    claims = [e for e in since if e["event"] == "role" and str(e["to"]).upper() == "ACTIVE"]
    reason = str(claims[0]["reason"]) if claims else "none"
    return Takeover(reason, first_ms("peer-lost"), first_ms("role-obeyed", role="ACTIVE"))


def roles_of(history: Sequence[dict[str, Any]], fault_ns: int, *, dead: str | None) -> tuple[RoleSpan, ...]:
    """Who held which role when; a node that has died is DEAD from the fault on."""
    spans: list[RoleSpan] = []
    end_ms = 1e9
    for name in topo.NODES:
        changes = [
            (float(e["t_ms"]) - fault_ns / 1e6, str(e["to"]))
            for e in history
            if e["node"] == name and e["event"] == "role"
        ]
        if name == dead:
            changes = [change for change in changes if change[0] < 0] + [(0.0, "DEAD")]
        spans += role_spans(name, sorted(changes), end_ms)
    return tuple(spans)


# ---- tables ----------------------------------------------------------------------------------------
IDENTITY = ("proto", "inside", "remote")
TRANSLATION = ("external", "state", "in_port", "out_port")
LIVE = {"state": "established"}
"""What is compared: the connections of earlier runs are ending, each node by its own clock."""


def compare_tables(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> TableComparison:
    """5-tuples, NAT ports and states of the dead node's table against the survivor's."""
    old, new = _by_identity(before), _by_identity(after)
    missing = tuple(" ".join(key) for key in old if key not in new)
    different = tuple(
        f"{' '.join(key)}: {' '.join(old[key])} became {' '.join(new[key])}"
        for key in old
        if key in new and old[key] != new[key]
    )
    added = tuple(" ".join(key) for key in new if key not in old)
    return TableComparison(len(old), len(old) - len(missing) - len(different), missing, different, added)


def _by_identity(sessions: Sequence[dict[str, Any]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    return {
        tuple(str(session[name]) for name in IDENTITY): tuple(str(session[name]) for name in TRANSLATION)
        for session in sessions
    }


# ---- the verdict -----------------------------------------------------------------------------------
def failed_bars(runs: Sequence[Run], wanted: int) -> tuple[str, ...]:
    """What does not hold, in words; empty if all does."""
    failed = [] if len(runs) == wanted else [f"runs: {len(runs)} of {wanted} came to their end"]
    for run in runs:
        failed += [f"run {run.number}: {finding}" for finding in _failed_in(run)]
    if runs:
        outages = [run.outage_ms for run in runs]
        if (median := statistics.median(outages)) > BARS["outage_median_ms"]:
            failed.append(f"outage_ms median {median:.1f} > {BARS['outage_median_ms']:.0f}")
        if max(outages) > BARS["outage_max_ms"]:
            failed.append(f"outage_ms maximum {max(outages):.1f} > {BARS['outage_max_ms']:.0f}")
    return tuple(failed)


def _failed_in(run: Run) -> list[str]:
    tcp, table = run.tcp, run.table
    findings = {
        f"TCP: {tcp.survived} of {tcp.opened} survived, {tcp.reset} reset, {tcp.stalled} stalled, "
        f"{tcp.corrupt} corrupt": tcp.survived != tcp.opened or tcp.opened == 0,
        f"takeover: {run.survivor} never forwarded as ACTIVE": run.takeover.forwarding_ms is None,
        f"table of {run.survivor}: {len(table.missing)} records missing, {len(table.different)} different, "
        f"{len(table.added)} new; {'; '.join((table.missing + table.different + table.added)[:3])}": (
            not table.identical
        ),
    }
    return [finding for finding, failed in findings.items() if failed] + traffic_findings(run)


def traffic_findings(run: Run) -> list[str]:
    """What is wrong with the traffic of a run, besides connections that were lost."""
    tcp = run.tcp
    foreign = tcp.foreign + run.udp.foreign
    findings = {
        f"TCP: {tcp.corrupt} corrupt": tcp.corrupt > 0,
        f"download: {run.download.detail}": not (run.download.completed and run.download.sha256_ok),
        f"server saw {', '.join(run.sources_seen)}, not only {topo.WAN_VIP}": run.sources_seen
        != [topo.WAN_VIP],
        f"server saw {foreign} packets or connections by another 4-tuple than the first": foreign > 0,
        f"only {tcp.translated} of {tcp.opened} source ports were translated": tcp.translated
        < TRANSLATED_SHARE_MIN * tcp.opened,
    }
    return [finding for finding, failed in findings.items() if failed]


def timers(config_file: Path = CONFIG) -> dict[str, int]:
    """The timers that the outage depends on."""
    config = load(config_file)
    return {
        "interval_ms": config.ha.interval_ms,
        "dead_after": config.ha.dead_after,
        "adver_int_cs": config.vrrp.adver_int_cs,
    }


def main(n_runs: int, flows: int) -> int:
    """Run it, print the table, write the JSON and the page; 1 if a bar fails."""
    console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "100")))
    runs: list[Run] = []
    log_dir = BUILD_DIR / SCENARIO
    log_dir.mkdir(parents=True, exist_ok=True)
    compile_programs()
    broken = ""
    try:
        with (
            Lab.start(log_dir / "run", log_dir / "supervisor.log") as lab,
            web_server(lab, log_dir / "nginx.log") as web,
        ):
            pair = Pair(lab, log_dir)
            pair.start()
            for number in range(1, n_runs + 1):
                runs.append(_shown(console, lab, pair, web, number, n_runs, flows))
                if number < n_runs:
                    pair[runs[-1].victim].start()
            pair.stop_all()
    except (LabError, OSError) as error:
        broken = str(error)
    failed = (*((f"lab: {broken}",) if broken else ()), *failed_bars(runs, n_runs))
    report = Report(SCENARIO, REQUIREMENTS, timers(), tuple(runs), failed, BARS)
    json_path, html_path = BUILD_DIR / f"{SCENARIO}.json", BUILD_DIR / f"{SCENARIO}.html"
    report.write_json(json_path)
    html_path.write_text(page(report))
    print_report(console, report)
    console.print(f"{shown(json_path)}\n{shown(html_path)}\nlogs: {shown(log_dir)}", highlight=False)
    return 1 if failed else 0


def _shown(
    console: Console, lab: Lab, pair: Pair, web: WebServer, number: int, n_runs: int, flows: int
) -> Run:
    """One run with its progress on screen."""
    head = f"run {number}/{n_runs}"
    with console.status(f"{head}: waiting for an ACTIVE node and a ready PASSIVE one") as status:

        def say(text: str) -> None:
            status.update(f"{head}: {text}")
            if not console.is_terminal:
                console.print(f"{head}: {text}", highlight=False)

        run = run_once(lab, pair, web, number, flows, say)
    console.print(
        f"{head}: {run.victim} died, {run.survivor} took over; {run.tcp.survived} of {run.tcp.opened} "
        f"connections survived, outage {run.outage_ms:.1f} ms",
        highlight=False,
    )
    return run


def shown(path: Path) -> str:
    """A path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
