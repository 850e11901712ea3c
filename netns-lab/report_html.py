# SPDX-License-Identifier: Apache-2.0
"""The report's page: one HTML file with inline SVG, nothing loaded from elsewhere.

Each run is drawn on one time axis, the kill at 0: both nodes' roles and decisions above, what the UDP
receiver and the TCP clients got below, so that the gap is seen against its cause.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

from report import Moment, Report, RoleSpan, Run, format_ms
from traffic import rate_per_ms

FROM_MS, TO_MS = -300, 700
"""The window of a run's drawing around the kill."""
WIDTH, LEFT, RIGHT = 960, 64, 16
LANE_TOP, LANE_HEIGHT, LANE_GAP = 40, 30, 12
PLOT_HEIGHT, PLOT_GAP = 110, 44
UDP_BIN_MS, TCP_BIN_MS = 5, 10
INTRODUCTION = (
    "The node that carries all traffic dies whole: SIGKILL of its daemon, its links down. "
    "Time is counted from the kill, in milliseconds."
)

STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --ink: #1c2127; --soft: #5d6773; --line: #d5dae0;
  --card: #ffffff; --active: #1d5fd0; --passive: #687584; --joining: #a15c07; --dead: #b4232f;
  --udp: #1d5fd0; --tcp: #0b7a6b; --gap: #b4232f22; --good: #18794e; --bad: #b4232f; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --ink: #e8ebee; --soft: #9aa5b1;
  --line: #333a43; --card: #1b2026; --active: #3f7fe8; --passive: #6b7887; --joining: #b9770e;
  --dead: #f0707a; --udp: #6ea3f7; --tcp: #45b8a5; --gap: #f0707a2e; --good: #5cc38f; --bad: #f0707a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; }
h1 { font-size: 1.55rem; margin: 0 0 .25rem; letter-spacing: -.01em; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p { margin: .3rem 0 .8rem; color: var(--soft); max-width: 46rem; }
.verdict { font-weight: 650; } .good { color: var(--good); } .bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.45rem; font-weight: 620; letter-spacing: -.02em; }
.card span { color: var(--soft); font-size: .85rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .87rem; }
th, td { text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { color: var(--soft); font-weight: 550; } th.t, td.t { text-align: left; }
td.w { white-space: normal; }
details { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; margin: .75rem 0;
  padding: .35rem 1rem; } details[open] { padding-bottom: 1rem; }
summary { cursor: pointer; padding: .4rem 0; } summary i { font-style: normal; color: var(--soft); }
svg { display: block; width: 100%; min-width: 44rem; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: var(--ink); } svg .soft { fill: var(--soft); } svg .line { stroke: var(--line); }
svg .on { fill: #fff; font-weight: 600; }
svg .ACTIVE { fill: var(--active); } svg .PASSIVE { fill: var(--passive); }
svg .JOINING { fill: var(--joining); }
svg .INIT, svg .MAINTENANCE, svg .FAULT { fill: var(--passive); opacity: .6; }
svg .DEAD { fill: none; stroke: var(--dead); stroke-dasharray: 4 3; } svg .dead { fill: var(--dead); }
svg .kill { stroke: var(--dead); stroke-width: 1.5; } svg .gap { fill: var(--gap); }
svg .udp { fill: var(--udp); } svg .tcp { fill: var(--tcp); }
svg .bar { stroke: var(--bad); stroke-dasharray: 5 4; } svg .mark { fill: var(--paper); stroke: var(--ink); }
"""


def page(report: Report) -> str:
    """The whole page."""
    title = f"{report.scenario}: {len(report.runs)} deaths of an ACTIVE node"
    worst = max(report.runs, key=lambda run: run.outage_ms, default=None)
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        f"<title>flexha {escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{INTRODUCTION}</p>",
        _verdict(report),
        _cards(report),
    ]
    if report.runs:
        parts += ["<h2>Outage of each run</h2>", _outage_chart(report), _table(report.runs)]
    parts.append("<h2>The runs</h2>")
    parts += [run_details(run, opened=run is worst) for run in report.runs]
    parts += [_timers(report), "</body></html>\n"]
    return "\n".join(parts)


# ---- summary ---------------------------------------------------------------------------------------
def _verdict(report: Report) -> str:
    if not report.failed_bars:
        return "<div class='verdict good'>Passed: every bar holds.</div>"
    items = "".join(f"<li>{escape(bar)}</li>" for bar in report.failed_bars)
    return f"<div class='verdict bad'>Failed:<ul>{items}</ul></div>"


def _cards(report: Report) -> str:
    runs = report.runs
    if not runs:
        return ""
    outages = report.outages_ms
    intact = sum(run.download.completed and run.download.sha256_ok for run in runs)
    forwarding = [run.takeover.forwarding_ms for run in runs if run.takeover.forwarding_ms is not None]
    cells = [
        (
            f"{sum(r.tcp.survived for r in runs):,} / {sum(r.tcp.opened for r in runs):,}",
            "TCP connections survived",
        ),
        (f"{intact} / {len(runs)}", "downloads intact (SHA-256)"),
        (
            f"{statistics.median(outages):.0f} ms",
            f"outage, median (bar {report.bars['outage_median_ms']:.0f})",
        ),
        (f"{max(outages):.0f} ms", f"outage, maximum (bar {report.bars['outage_max_ms']:.0f})"),
        (f"{statistics.median(forwarding):.0f} ms" if forwarding else "-", "kill to forwarding, median"),
        (f"{sum(r.table.identical for r in runs)} / {len(runs)}", "tables the same on the survivor"),
    ]
    cards = "".join(f"<div class='card'><b>{escape(b)}</b><span>{escape(s)}</span></div>" for b, s in cells)
    return f"<div class='cards'>{cards}</div>"


def _outage_chart(report: Report) -> str:
    """One bar a run, with the two bars that must hold."""
    height, top, bottom = 190, 14, 26
    limits = {"median": report.bars["outage_median_ms"], "maximum": report.bars["outage_max_ms"]}
    ceiling = max([*report.outages_ms, *limits.values()]) * 1.1
    room = WIDTH - LEFT - RIGHT
    step = room / len(report.runs)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - value / ceiling)

    marks = []
    for i, run in enumerate(report.runs):
        width = min(46.0, step * 0.62)
        x = LEFT + step * (i + 0.5)
        marks.append(
            f"<rect class='udp' x='{x - width / 2:.1f}' y='{y(run.outage_ms):.1f}' width='{width:.1f}' "
            f"height='{y(0) - y(run.outage_ms):.1f}' rx='2'><title>run {run.number}: {run.outage_ms:.1f} ms"
            f"</title></rect>"
        )
        if len(report.runs) <= 20:
            marks.append(
                f"<text class='on' x='{x:.1f}' y='{y(run.outage_ms) + 15:.1f}' text-anchor='middle'>"
                f"{run.outage_ms:.0f}</text>"
                f"<text class='soft' x='{x:.1f}' y='{height - 8}' text-anchor='middle'>"
                f"{run.number}: {escape(run.victim)} dies</text>"
            )
    for name, limit in limits.items():
        marks.append(
            f"<line class='bar' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y(limit):.1f}' y2='{y(limit):.1f}'/>"
            f"<text class='soft' x='{LEFT - 6}' y='{y(limit) + 4:.1f}' text-anchor='end'>{limit:.0f}</text>"
            f"<text class='soft' x='{WIDTH - RIGHT}' y='{y(limit) - 4:.1f}' text-anchor='end'>"
            f"bar of the {name}</text>"
        )
    marks.append(
        f"<line class='line' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y(0):.1f}' y2='{y(0):.1f}'/>"
        f"<text class='soft' x='{LEFT - 6}' y='{y(0) + 4:.1f}' text-anchor='end'>0 ms</text>"
    )
    return _svg(height, "outage of each run", marks)


def _table(runs: Sequence[Run]) -> str:
    heads = ["run", "dies", "takes over", "survived", "reset", "stalled", "translated", "download"]
    heads += [
        "UDP sent",
        "UDP lost",
        "outage ms",
        "detected ms",
        "forwarding ms",
        "slowest answer ms",
        "table",
    ]
    rows = []
    for run in runs:
        cells = [
            str(run.number),
            run.victim,
            run.survivor,
            f"{run.tcp.survived} / {run.tcp.opened}",
            str(run.tcp.reset),
            str(run.tcp.stalled),
            str(run.tcp.translated),
            "intact" if run.download.completed and run.download.sha256_ok else "broken",
            str(run.udp.sent),
            str(run.udp.lost),
            format_ms(run.outage_ms),
            format_ms(run.takeover.detected_ms),
            format_ms(run.takeover.forwarding_ms),
            format_ms(run.tcp.latency_max_ms),
            f"{run.table.same} / {run.table.before}",
        ]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    return f"<div class='scroll'><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _timers(report: Report) -> str:
    timers = ", ".join(f"{escape(name)} {value}" for name, value in report.timers.items())
    return f"<h2>Timers</h2><p>{timers}. Shows {escape(', '.join(report.requirements))}.</p>"


# ---- one run ---------------------------------------------------------------------------------------
def run_details(run: Run, *, opened: bool) -> str:
    """A run to unfold: the drawing, and what happened in it line by line."""
    shown = [moment for moment in run.moments if FROM_MS <= moment.t_ms <= TO_MS]
    rows = "".join(
        f"<tr><td>{i}</td><td>{moment.t_ms:+.1f}</td><td class='t'>{escape(moment.node)}</td>"
        f"<td class='t'>{escape(moment.event)}</td><td class='t w'>{escape(moment.detail)}</td></tr>"
        for i, moment in enumerate(shown, 1)
    )
    took_over = run.takeover.forwarding_ms is not None
    return (
        f"<details{' open' if opened else ''}><summary><b>Run {run.number}</b>: {escape(run.fault)}"
        f"{f', {escape(run.survivor)} takes over' if took_over else ''} <i>outage {run.outage_ms:.1f} ms, "
        f"{run.tcp.survived} of {run.tcp.opened} connections survive</i></summary>"
        f"<div class='scroll'>{_drawing(run, shown)}</div>"
        f"<div class='scroll'><table><tr><th></th><th>ms</th><th class='t'>node</th><th class='t'>event</th>"
        f"<th class='t'>why</th></tr>{rows}</table></div></details>"
    )


def _drawing(run: Run, moments: Sequence[Moment]) -> str:
    nodes = sorted({run.victim, run.survivor})
    lanes_end = LANE_TOP + len(nodes) * (LANE_HEIGHT + LANE_GAP)
    udp_top = lanes_end + PLOT_GAP - LANE_GAP
    tcp_top = udp_top + PLOT_HEIGHT + PLOT_GAP
    bottom = tcp_top + PLOT_HEIGHT
    window = (run.kill_ns + FROM_MS * 1_000_000, run.kill_ns + TO_MS * 1_000_000)
    gap_from = (run.udp.gap_from_ns - run.kill_ns) / 1e6
    marks = [*_gap(run, gap_from, bottom), *_time_axis(bottom)]
    for i, node in enumerate(nodes):
        marks += _lane(
            node, LANE_TOP + i * (LANE_HEIGHT + LANE_GAP), [s for s in run.roles if s.node == node]
        )
    marks += _ticks(moments, {n: LANE_TOP + i * (LANE_HEIGHT + LANE_GAP) for i, n in enumerate(nodes)})
    udp = rate_per_ms(run.udp.arrival_ns, *window, UDP_BIN_MS)
    tcp = rate_per_ms(run.tcp.response_ns, *window, TCP_BIN_MS)
    marks += _plot("UDP packets received per ms", "udp", udp, UDP_BIN_MS, udp_top)
    marks += _plot("TCP responses received per ms", "tcp", tcp, TCP_BIN_MS, tcp_top)
    marks.append(
        f"<line class='kill' x1='{_x(0):.1f}' x2='{_x(0):.1f}' y1='18' y2='{bottom}'/>"
        f"<text class='dead' x='{_x(0) - 5:.1f}' y='26' text-anchor='end'>"
        f"{escape(run.fault)}</text>"
    )
    return _svg(bottom + 24, f"run {run.number}: roles, events and traffic over time", marks)


def _x(t_ms: float) -> float:
    clamped = min(max(t_ms, FROM_MS), TO_MS)
    return LEFT + (clamped - FROM_MS) / (TO_MS - FROM_MS) * (WIDTH - LEFT - RIGHT)


def _gap(run: Run, gap_from: float, bottom: float) -> Iterable[str]:
    left, right = _x(gap_from), _x(gap_from + run.udp.gap_ms)
    yield f"<rect class='gap' x='{left:.1f}' y='32' width='{right - left:.1f}' height='{bottom - 32:.1f}'/>"
    if right > left:
        yield (
            f"<text x='{right + 5:.1f}' y='26'>{run.udp.gap_ms:.1f} ms: no UDP packet arrives, "
            f"{run.udp.lost} are lost</text>"
        )


def _time_axis(bottom: float) -> Iterable[str]:
    for t_ms in range(FROM_MS, TO_MS + 1, 100):
        x = _x(t_ms)
        yield f"<line class='line' x1='{x:.1f}' x2='{x:.1f}' y1='32' y2='{bottom}'/>"
        label = "0" if t_ms == 0 else f"{t_ms:+d}"
        unit = " ms" if t_ms == TO_MS else ""
        anchor = "end" if t_ms == TO_MS else "middle"
        yield f"<text class='soft' x='{x:.1f}' y='{bottom + 16}' text-anchor='{anchor}'>{label}{unit}</text>"


def _lane(node: str, top: float, spans: Sequence[RoleSpan]) -> Iterable[str]:
    yield f"<text x='{LEFT - 8}' y='{top + 20}' text-anchor='end'>node {escape(node)}</text>"
    for span in spans:
        left, right = _x(span.from_ms), _x(span.to_ms)
        if right <= left:
            continue
        yield (
            f"<rect class='{escape(span.role)}' x='{left:.1f}' y='{top}' width='{right - left:.1f}' "
            f"height='{LANE_HEIGHT}' rx='3'><title>{escape(node)} {escape(span.role)} from "
            f"{span.from_ms:+.1f} ms</title></rect>"
        )
        if right - left > 60:
            css = "dead" if span.role == "DEAD" else "on"
            yield f"<text class='{css}' x='{left + 8:.1f}' y='{top + 19}'>{escape(span.role)}</text>"


def _ticks(moments: Sequence[Moment], lanes: dict[str, float]) -> Iterable[str]:
    """Numbered marks on the lanes; those that would cover each other are drawn side by side."""
    last: dict[str, float] = {}
    for i, moment in enumerate(moments, 1):
        if moment.node not in lanes:
            continue
        x = max(_x(moment.t_ms), last.get(moment.node, 0.0) + 15)
        last[moment.node] = x
        y = lanes[moment.node] + LANE_HEIGHT + 2
        yield (
            f"<g><title>{moment.t_ms:+.1f} ms: {escape(moment.event)} {escape(moment.detail)}</title>"
            f"<circle class='mark' cx='{x:.1f}' cy='{y}' r='7'/>"
            f"<text x='{x:.1f}' y='{y + 3.5}' text-anchor='middle' font-size='9'>{i}</text></g>"
        )


def _plot(label: str, css: str, rates: Sequence[float], bin_ms: int, top: float) -> Iterable[str]:
    """A stepped area: what arrived per millisecond."""
    ceiling = max([*rates, 1.0])
    base = top + PLOT_HEIGHT
    points = [f"M{_x(FROM_MS):.1f},{base}"]
    for i, rate in enumerate(rates):
        y = base - PLOT_HEIGHT * rate / ceiling
        points.append(f"L{_x(FROM_MS + i * bin_ms):.1f},{y:.1f}L{_x(FROM_MS + (i + 1) * bin_ms):.1f},{y:.1f}")
    points.append(f"L{_x(TO_MS):.1f},{base}Z")
    note = f"<tspan class='soft'>(mean of {bin_ms} ms)</tspan>"
    yield f"<text x='{LEFT}' y='{top - 8}'>{escape(label)} {note}</text>"
    yield f"<path class='{css}' d='{''.join(points)}'/>"
    yield f"<line class='line' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{base}' y2='{base}'/>"
    for value in (0.0, ceiling):
        y = base - PLOT_HEIGHT * value / ceiling
        yield f"<text class='soft' x='{LEFT - 8}' y='{y + 4:.1f}' text-anchor='end'>{value:.3g}</text>"


def _svg(height: float, label: str, marks: Iterable[str]) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape(label)}'>{''.join(marks)}</svg>"
    )


def role_spans(node: str, changes: Sequence[tuple[float, str]], end_ms: float) -> list[RoleSpan]:
    """Spans from the moments at which a node took its roles."""
    ends = [*changes, (end_ms, "")]
    return [RoleSpan(node, role, start, stop) for (start, role), (stop, _) in pairwise(ends)]
