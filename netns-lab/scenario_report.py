# SPDX-License-Identifier: Apache-2.0
"""What the scenarios found: the table on screen, and a JSON file each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from scenario import Outcome

MET, MISSED, BROKEN = "ok", "MISSED", "BROKEN"
Told = Mapping[str, Any]
"""An outcome as its JSON file has it."""


def write_json(outcome: Outcome, directory: Path) -> Path:
    """``<scenario>.json``; in another topology ``<scenario>@<topology>.json``."""
    path = directory / f"{outcome.title}.json"
    path.write_text(json.dumps(outcome.as_json(), indent=1) + "\n")
    return path


def rows_of(told: Told) -> list[tuple[str, str, str]]:
    """Bar, measured and state of each line that the table has of a scenario."""
    rows = [(bar["bar"], bar["measured"], MET if bar["holds"] else MISSED) for bar in told["bars"]]
    findings = sum(len(run["findings"]) for run in told["runs"])
    if findings:
        rows.append(("nothing else is wrong", f"{findings} findings", MISSED))
    if told["broken"] or len(told["runs"]) != told["wanted"]:
        rows.append(("comes to its end", f"{len(told['runs'])} of {told['wanted']} runs", BROKEN))
    return rows


def print_table(console: Console, outcomes: Sequence[Outcome]) -> None:
    """Every scenario and bar, then what does not hold, then the verdict."""
    table = Table(
        title="failures: what was measured against each bar (spread over the runs)",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("scenario", no_wrap=True)
    table.add_column("runs", justify="right")
    table.add_column("bar", no_wrap=True)
    table.add_column("measured")
    table.add_column("")
    for outcome in outcomes:
        head, runs = outcome.title, str(len(outcome.trials))
        for bar, measured, state in rows_of(outcome.as_json()):
            colour = "green" if state == MET else "bold red"
            table.add_row(head, runs, bar, measured, f"[{colour}]{state}[/]")
            head, runs = "", ""
    console.print(table)
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        console.print(f"[bold red]{outcome.title}[/]: {outcome.row}", highlight=False)
        for bar in outcome.failed_bars:
            console.print(f"  {bar}", markup=False, highlight=False)
    passed = len(outcomes) - len(failed)
    verdict = "[bold green]PASSED[/]" if not failed else "[bold red]FAILED[/]"
    console.print(f"{verdict}: {passed} of {len(outcomes)} scenarios hold every bar", highlight=False)
