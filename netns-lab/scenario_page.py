# SPDX-License-Identifier: Apache-2.0
"""One page of all failures, ``index.html``: what each of them came to when it was played last.

Scenarios are not all played at once: some have a topology of their own, and who mends something plays one
row. So each leaves its figures (``<scenario>.json``) and its part of the page (``cards/<scenario>.html``),
and the page is put together from whatever there is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from report_html import STYLE, run_details
from scenario import Outcome, Trial
from scenario_report import MET, Told, rows_of, write_json

WHAT = (
    "Each row is a failure that real daemons went through, under real traffic, as it was played last. "
    "Times are milliseconds from the fault."
)


def keep(outcome: Outcome, directory: Path) -> None:
    """What came of a scenario, for people and for programs."""
    write_json(outcome, directory)
    cards = directory / "cards"
    cards.mkdir(parents=True, exist_ok=True)
    (cards / f"{outcome.title}.html").write_text(card(outcome))


def write_index(directory: Path, names: Sequence[str]) -> Path:
    """The page of everything that was kept of these scenarios, in this order, topology by topology."""
    places = {name: place for place, name in enumerate(names)}
    found = []
    for path in (directory / "cards").glob("*.html"):
        told = json.loads((directory / f"{path.stem}.json").read_text())
        if told["scenario"] in places:
            found.append(((told["topology"] != "plain", places[told["scenario"]]), path.stem, told, path))
    found.sort(key=lambda each: each[:2])
    index = directory / "index.html"
    index.write_text(
        page([(title, told) for _, title, told, _ in found], [path.read_text() for *_, path in found])
    )
    return index


def page(rows: Sequence[tuple[str, Told]], cards: Sequence[str]) -> str:
    """The table of all scenarios, each with its title, then their cards."""
    passed = sum(bool(told["passed"]) for _, told in rows)
    title = f"failures: {passed} of {len(rows)} scenarios hold every bar"
    css = "good" if passed == len(rows) else "bad"
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>flexha {escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1><p>{WHAT}</p>",
        _summary(rows),
        *cards,
        f"<p class='verdict {css}'>{escape(title)}</p></body></html>\n",
    ]
    return "\n".join(parts)


def _summary(rows: Sequence[tuple[str, Told]]) -> str:
    heads = ("scenario", "runs", "bar", "measured", "")
    head = "".join(f"<th class='t'>{text}</th>" for text in heads)
    lines = []
    trees = {told.get("tree", "") for _, told in rows}
    for title, told in rows:
        name = f"<a href='#{escape(title)}'>{escape(title)}</a>"
        runs = str(len(told["runs"])) + (" (short)" if told.get("short") else "")
        runs += f" of {escape(told.get('tree') or 'an unknown tree')}" if len(trees) > 1 else ""
        runs += ", played again" if told.get("retried") else ""
        for bar, measured, state in rows_of(told):
            css = "good" if state == MET else "bad"
            lines.append(
                f"<tr><td class='t'>{name}</td><td class='t'>{runs}</td><td class='t'>{escape(bar)}</td>"
                f"<td class='t'>{escape(measured)}</td><td class='t'><b class='{css}'>{state}</b></td></tr>"
            )
            name, runs = "", ""
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(lines)}</table></div>"


def card(outcome: Outcome) -> str:
    """A scenario's part of the page: whether it holds, and the trial that was worst, drawn over time."""
    css, word = ("good", "every bar holds") if outcome.passed else ("bad", "failed")
    timers = ", ".join(f"{name} {value}" for name, value in outcome.timers.items())
    failed = "".join(f"<li>{escape(bar)}</li>" for bar in outcome.failed_bars)
    name, shows = escape(outcome.title), escape(", ".join(outcome.requirements))
    text = f"{escape(outcome.row)} Shows {shows}. {escape(timers)}; took {outcome.seconds:.0f} s"
    text += f", to {escape(outcome.played)}" if outcome.played else ""
    text += f"; commit {escape(outcome.tree)}" if outcome.tree else ""
    text += "; played short: once, with less of what takes long." if outcome.short else "."
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
