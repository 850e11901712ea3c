# SPDX-License-Identifier: Apache-2.0
"""What a death at a packet may cost, and that a flaw is told by name. Spec: B1, R17, R18, F4."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest
import topo
from embryonic import check_words, plan
from kills import ORDER, RACING, STAGES, TOLD, UNHEARD, Case, Kill, as_json, cases_of, print_kills, totals
from report import Takeover
from rich.console import Console
from sandbox import LabError
from traffic import ShortResult

CASE = Case("async", "wire", "after", "ack", TOLD)
RELAY: dict[str, Any] = {
    **dict.fromkeys(("overflow", "missed", "dropped", "unsent"), 0),
    "arrived": dict.fromkeys(ORDER, 60),
    "through": {**dict.fromkeys(ORDER, 0), "syn": 60, "syn-ack": 60, "ack": 60},
}
GOOD = Kill(
    number=0,
    case=CASE,
    delay_ms=0,
    per_s=0,
    mode="async",
    victim="a",
    survivor="b",
    conns=60,
    result=ShortResult(
        begun=60,
        survived=60,
        lost=0,
        lost_in={"connect": 0, "answer": 0, "close": 0},
        refused=0,
        corrupt=0,
        repeated=60,
        repeats_max=1,
        begun_ms=1,
        accepted=60,
        answered=60,
        closed=60,
        second=0,
        translated=60,
        sources=(topo.WAN_VIP,),
    ),
    relay=RELAY,
    unknown=0,
    let_go=0,
    degraded=False,
    takeover=Takeover("peer-silent", 118.0, 120.0),
    moments=(),
)


def spoilt(**changes: Any) -> Kill:
    return replace(GOOD, result=replace(GOOD.result, **changes))


def relayed(**changes: Any) -> Kill:
    return replace(GOOD, relay={**RELAY, **changes})


def test_a_perfect_kill_has_no_findings() -> None:
    assert GOOD.findings() == []


@pytest.mark.parametrize(
    ("kill", "word"),
    [
        (spoilt(survived=59, lost=1, lost_in={"connect": 0, "answer": 1, "close": 0}), "1 in answer"),
        (spoilt(begun=59), "begun"),
        (spoilt(corrupt=1), "corrupt"),
        (spoilt(second=1), "twice"),
        (spoilt(closed=59), "cleanly"),
        (spoilt(sources=(topo.WAN_VIP, "203.0.113.4")), "203.0.113.4"),
        (relayed(missed=1), "relay lost"),
        (relayed(through={**RELAY["through"], "ack": 59}), "let through"),
        (relayed(through={**RELAY["through"], "data": 1}), "let through"),
        (replace(GOOD, case=replace(CASE, heard=UNHEARD)), "not 0"),
        (
            replace(GOOD, case=None, per_s=2400, result=replace(GOOD.result, begun_ms=60)),
            "new connections a second",
        ),
    ],
)
def test_each_flaw_is_told(kill: Kill, word: str) -> None:
    found = kill.findings()
    assert len(found) == 1
    assert word in found[0]


def test_a_storm_may_cost_async_some_and_output_commit_none() -> None:
    storm = replace(GOOD, case=None, result=replace(GOOD.result, survived=50, closed=50, lost=10))
    assert storm.findings() == []
    assert len(replace(storm, mode="bounded").findings()) == 1
    (slow,) = replace(storm, mode="bounded", degraded=True).findings()
    assert "slower than hold_ms" in slow


def legal(mode: str, heard: str) -> dict[tuple[str, str, str], tuple[int, int]]:
    return {
        (case.where, case.when, case.stage): case.legal(60) for case in cases_of(mode) if case.heard == heard
    }


@pytest.mark.parametrize(
    ("mode", "heard"), [("async", TOLD), ("bounded", RACING), ("strict", RACING)], ids=str
)
def test_what_was_told_survives_everywhere(mode: str, heard: str) -> None:
    """With output commit nothing is waited for: what was let go had been told. Spec: B1."""
    bounds = legal(mode, heard)
    assert len(bounds) == 2 * 2 * len(STAGES)
    assert set(bounds.values()) == {(60, 60)}
    assert 60 * len(bounds) >= 1000


def test_what_was_not_heard_survives_only_without_a_syn_ack() -> None:
    """Spec: R17, R18."""
    bounds = legal("async", UNHEARD)
    assert {key for key, value in bounds.items() if value == (60, 60)} == {
        *((where, when, "syn") for where in ("client", "wire") for when in ("before", "after")),
        ("wire", "before", "syn-ack"),
    }
    assert {key for key, value in bounds.items() if value == (0, 60)} == {("wire", "after", "syn-ack")}
    assert bounds["client", "before", "ack"] == (0, 0)
    assert legal("bounded", UNHEARD) == {("client", "before", "ack"): (0, 0)}
    assert legal("strict", UNHEARD) == {("wire", "before", "syn"): (60, 60)}


def test_a_race_may_end_either_way() -> None:
    bounds = legal("async", RACING)
    assert bounds["client", "before", "ack"] == (0, 60)
    assert bounds["client", "after", "syn"] == (60, 60)


def test_boundaries_are_chosen_by_their_words() -> None:
    assert {case.stage for case in plan("async", ["fin"], 1)} == {"fin"}
    assert {(case.when, case.stage) for case in plan("async", ["before-ack"], 2)} == {("before", "ack")}
    assert len(plan("async", [], 2)) == 2 * len(plan("async", [], 1))
    check_words(["async"], ["wire", "after-fin"])
    with pytest.raises(LabError, match="no mode 'sync': choose of async"):
        check_words(["sync"], [])
    with pytest.raises(LabError, match="no boundary 'synack': choose of client"):
        check_words(["async"], ["synack"])
    with pytest.raises(LabError, match="no mode is left"):
        check_words([], [])


def test_json_and_table() -> None:
    """``embryonic.json`` as netns-lab/README.md documents it."""
    unheard = replace(
        spoilt(survived=0, closed=0, lost=60, lost_in={"connect": 0, "answer": 60, "close": 0}),
        case=replace(CASE, heard=UNHEARD),
    )
    kills = [GOOD, unheard, replace(GOOD, case=None)]
    found = json.loads(json.dumps(as_json(kills, {"interval_ms": 50}, ["x"])))
    assert set(found) == {
        *("scenario", "requirements", "timers", "totals", "runs", "passed", "failed_bars"),
    }
    assert found["passed"] is False
    assert found["totals"] == {
        "async told": {"kills": 1, "opened": 60, "survived": 60, "lost": 0},
        "async unheard": {"kills": 1, "opened": 60, "survived": 0, "lost": 60},
        "async": {"kills": 1, "opened": 60, "survived": 60, "lost": 0},
    }
    first, second, storm = found["runs"]
    assert first["boundary"] == {"where": "wire", "when": "after", "stage": "ack", "heard": "told"}
    assert first["tcp"]["legal"] == [60, 60]
    assert (second["tcp"]["stalled"], second["tcp"]["legal"]) == (60, [0, 0])
    assert storm["boundary"] is None
    assert list(totals([unheard])) == ["async unheard"]
    out = io.StringIO()
    print_kills(Console(file=out, width=110), kills, ["a bar"])
    assert "after ack, wire's side" in out.getvalue()
    assert "async unheard: 60 of 60 connections lost in 1 kills" in out.getvalue()
    assert "FAILED\n  a bar" in out.getvalue()
