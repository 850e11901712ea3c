# SPDX-License-Identifier: Apache-2.0
"""The lab's verdict: a run that is not perfect fails a bar, by name, and the JSON says so. Spec: F4, B4."""

from __future__ import annotations

import array
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import topo
from failover import BARS, REQUIREMENTS, failed_bars
from report import Report, Run, TableComparison, Takeover
from traffic import DownloadResult, Order, TcpResult, UdpResult, longest_gap

GOOD = Run(
    number=1,
    victim="a",
    survivor="b",
    kill_ns=0,
    tcp=TcpResult(
        opened=1000,
        survived=1000,
        reset=0,
        stalled=0,
        corrupt=0,
        foreign=0,
        translated=1000,
        latency_max_ms=200.0,
        sources=(topo.WAN_VIP,),
        response_ns=array.array("Q"),
    ),
    udp=UdpResult(
        sent=9000,
        received=8880,
        there=Order(lost=120, duplicated=0, reordered=0, missing=(300, 301)),
        echoes=Order(lost=3, duplicated=0, reordered=0, missing=(298, 299, 420)),
        foreign=0,
        gap_ms=120.0,
        gap_from_ns=0,
        echo_gap_ms=119.0,
        sources=(topo.WAN_VIP,),
        arrival_ns=array.array("Q"),
        echo_ns=array.array("Q"),
    ),
    download=DownloadResult(completed=True, sha256_ok=True, detail="intact"),
    takeover=Takeover(reason="peer-silent", detected_ms=118.0, forwarding_ms=120.0),
    table=TableComparison(before=2000, same=2000, missing=(), different=(), added=()),
    moments=(),
    roles=(),
    fault="node a is killed",
)


def spoilt(part: str, **changes: Any) -> Run:
    """The good run with one part changed."""
    return replace(GOOD, **{part: replace(getattr(GOOD, part), **changes)})


def test_perfect_runs_pass() -> None:
    """Nothing fails when nothing is wrong; the bars are those of the README."""
    assert failed_bars([GOOD, GOOD], 2) == ()
    assert BARS == {"outage_median_ms": 220.0, "outage_max_ms": 350.0}


@pytest.mark.parametrize(
    ("run", "word"),
    [
        (spoilt("tcp", survived=999, reset=1), "TCP"),
        (spoilt("tcp", survived=999, stalled=1), "TCP"),
        (spoilt("tcp", opened=0, survived=0, translated=0), "TCP"),
        (spoilt("tcp", foreign=1), "4-tuple"),
        (spoilt("udp", foreign=1), "4-tuple"),
        (spoilt("tcp", translated=10), "translated"),
        (spoilt("tcp", sources=(topo.WAN_VIP, "203.0.113.4")), "server saw"),
        (spoilt("download", completed=False, detail="cut at 3 MiB"), "cut at 3 MiB"),
        (spoilt("download", sha256_ok=False), "download"),
        (spoilt("takeover", forwarding_ms=None), "takeover"),
        (spoilt("table", missing=("tcp x",)), "1 records missing"),
        (spoilt("table", different=("tcp x",)), "1 different"),
        (spoilt("udp", gap_ms=351.0), "maximum 351.0"),
        (spoilt("udp", gap_ms=221.0), "median 221.0"),
        (spoilt("udp", echo_gap_ms=351.0), "maximum 351.0"),
    ],
)
def test_each_flaw_fails_a_bar(run: Run, word: str) -> None:
    """One flaw is enough, and the bar that fails names it."""
    bars = failed_bars([run], 1)
    assert len(bars) >= 1
    assert any(word in bar for bar in bars), bars


def test_missing_run_fails() -> None:
    """A lab that broke before its last run has not passed."""
    assert failed_bars([GOOD], 2) == ("runs: 1 of 2 came to their end",)


def test_json_has_the_documented_keys(tmp_path: Path) -> None:
    """``failover.json`` as netns-lab/README.md documents it."""
    failed = failed_bars([spoilt("udp", gap_ms=400.0)], 1)
    report = Report("failover", REQUIREMENTS, {"interval_ms": 50}, (GOOD,), failed, BARS)
    report.write_json(tmp_path / "failover.json")
    found = json.loads((tmp_path / "failover.json").read_text())
    assert set(found) == {"scenario", "requirements", "timers", "runs", "passed", "failed_bars"}
    assert found["passed"] is False
    assert len(found["failed_bars"]) == 2
    (run,) = found["runs"]
    assert run["tcp"] == {"opened": 1000, "survived": 1000, "reset": 0, "stalled": 0}
    assert run["download"] == {"completed": True, "sha256_ok": True}
    assert run["udp"] == {
        "sent": 9000,
        "gap_ms": 120.0,
        "echo_gap_ms": 119.0,
        "lost": 120,
        "duplicated": 0,
        "reordered": 0,
        "missing": [300, 301],
        "echoes": {"lost": 3, "duplicated": 0, "reordered": 0, "missing": [298, 299, 420]},
    }
    assert run["takeover"] == {"reason": "peer-silent", "detected_ms": 118.0, "forwarding_ms": 120.0}
    assert set(run) == {
        "tcp",
        "download",
        "udp",
        "outage_ms",
        "takeover",
        "sources_seen",
        "timeline",
    }


def test_a_flow_that_never_comes_back_has_a_long_gap() -> None:
    """Silence until the end of sending counts, on a flow of which nothing ever came, too."""
    assert longest_gap([10, 11_000_010, 12_000_010], 0, 12_500_010) == (11.0, 10)
    assert longest_gap([10, 1_000_010], 0, 900_000_010) == (899.0, 1_000_010)
    assert longest_gap([], 5, 900_000_005) == (900.0, 5)
    assert longest_gap([10, 1_000_010], 0, 900_000) == (1.0, 10)
