# SPDX-License-Identifier: Apache-2.0
"""What the scenarios found: the table on screen, a JSON file each, and one page for all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from report_html import STYLE, run_details
from rich import box
from rich.console import Console
from rich.table import Table
from scenario import Outcome, Trial, Verdict

MET, MISSED, BROKEN = "ok", "MISSED", "BROKEN"
WHAT = (
    "Each row is a failure that real daemons went through, under real traffic. "
    "Times are milliseconds from the fault."
)


def write_json(outcome: Outcome, directory: Path) -> Path:
    """``<scenario>.json``; in another topology ``<scenario>@<topology>.json``."""
    path = directory / f"{outcome.title}.json"
    path.write_text(json.dumps(outcome.as_json(), indent=1) + "\n")
    return path


def state_of(verdict: Verdict) -> str:
    """In a word."""
    return MET if verdict.holds else MISSED


def rows_of(outcome: Outcome) -> list[tuple[str, str, str]]:
    """Bar, measured and state of each line that the table has of a scenario."""
    rows = [(verdict.bar.text, verdict.measured, state_of(verdict)) for verdict in outcome.verdicts]
    findings = sum(len(trial.findings) for trial in outcome.trials)
    if findings:
        rows.append(("nothing else is wrong", f"{findings} findings", MISSED))
    if outcome.broken or len(outcome.trials) != outcome.wanted:
        rows.append(("comes to its end", f"{len(outcome.trials)} of {outcome.wanted} runs", BROKEN))
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
        for bar, measured, state in rows_of(outcome):
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


# ---- the page --------------------------------------------------------------------------------------
def page(outcomes: Sequence[Outcome]) -> str:
    """All scenarios: the table, then for each the trial that was worst."""
    passed = sum(outcome.passed for outcome in outcomes)
    title = f"failures: {passed} of {len(outcomes)} scenarios hold every bar"
    css = "good" if passed == len(outcomes) else "bad"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>flexha {escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{WHAT}</p>",
        _summary(outcomes),
        *(_card(outcome) for outcome in outcomes),
        f"<p class='verdict {css}'>{escape(title)}</p></body></html>\n",
    ]
    return "\n".join(parts)


def _summary(outcomes: Sequence[Outcome]) -> str:
    heads = ("scenario", "runs", "bar", "measured", "")
    head = "".join(f"<th class='t'>{text}</th>" for text in heads)
    rows = []
    for outcome in outcomes:
        name = f"<a href='#{escape(outcome.title)}'>{escape(outcome.title)}</a>"
        runs = str(len(outcome.trials))
        for bar, measured, state in rows_of(outcome):
            css = "good" if state == MET else "bad"
            rows.append(
                f"<tr><td class='t'>{name}</td><td class='t'>{runs}</td><td class='t'>{escape(bar)}</td>"
                f"<td class='t'>{escape(measured)}</td><td class='t'><b class='{css}'>{state}</b></td></tr>"
            )
            name, runs = "", ""
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _card(outcome: Outcome) -> str:
    css, word = ("good", "every bar holds") if outcome.passed else ("bad", "failed")
    timers = ", ".join(f"{name} {value}" for name, value in outcome.timers.items())
    failed = "".join(f"<li>{escape(bar)}</li>" for bar in outcome.failed_bars)
    name, shows = escape(outcome.title), escape(", ".join(outcome.requirements))
    text = f"{escape(outcome.row)} Shows {shows}. {escape(timers)}; took {outcome.seconds:.0f} s."
    parts = [f"<h2 id='{name}'>{name}: <span class='verdict {css}'>{word}</span></h2>", f"<p>{text}</p>"]
    if failed:
        parts.append(f"<ul class='bad'>{failed}</ul>")
    trial = worst(outcome.trials)
    if trial is not None and trial.run is not None:
        parts.append(run_details(trial.run, opened=False))
    return "\n".join(parts)


def worst(trials: Sequence[Trial]) -> Trial | None:
    """The one to look at: with findings, else with the longest outage."""
    drawn = [trial for trial in trials if trial.run is not None]
    return max(
        drawn,
        key=lambda trial: (len(trial.findings), 0.0 if trial.run is None else trial.run.outage_ms),
        default=None,
    )
