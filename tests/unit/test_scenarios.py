# SPDX-License-Identifier: Apache-2.0
"""The verdict on a failure: what a bar is held against, and that a missed one is told. Spec: F4, B4."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import topo
from overheard import is_from_active, judge
from pair import CONFIG, configuration_text, with_keys
from rich.console import Console
from sandbox import LabError
from scenario import Bar, Outcome, Over, Scenario, Trial
from scenario_page import card, keep, page, worst, write_index
from scenario_report import print_table, rows_of, write_json
from scenario_stage import Take, figures_of, moves_of
from scenarios import ALL, ON_DEMAND, Theatre, chosen
from traffic import order_of
from unit.test_lab_report import GOOD

from flexha.config.load import load

OUTAGE = Bar("outage_ms", 25, Over.MEDIAN)
SESSIONS = Bar("sessions_lost", 0)


def trial(number: int, outage_ms: float, *findings: str, **figures: float) -> Trial:
    """One that has lost no session."""
    run = replace(GOOD, number=number, udp=replace(GOOD.udp, gap_ms=outage_ms, echo_gap_ms=outage_ms))
    return Trial(number, {"outage_ms": outage_ms, "sessions_lost": 0.0, **figures}, findings, run)


def outcome(*trials: Trial, **changes: Any) -> Outcome:
    """Of a scenario that came to its end."""
    made = Outcome(
        name="death",
        requirements=("R7", "B2"),
        topology="plain",
        row="The ACTIVE node dies.",
        timers={"interval_ms": 50},
        bars=(SESSIONS, OUTAGE),
        trials=trials,
        wanted=len(trials),
    )
    return replace(made, **changes)


LATE = replace(trial(2, 12.0), figures={"sessions_lost": 0.0})
"""One whose outage was not measured."""
GOOD_OUTCOME = outcome(trial(1, 12.0), trial(2, 20.5), trial(3, 80.0))


# ---- bars --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bar", "values", "holds"),
    [
        (Bar("x", 5), [4, 5], True),
        (Bar("x", 5), [4, 5.1], False),
        (Bar("x", 5, Over.MEDIAN), [4, 5, 90], True),
        (Bar("x", 5, Over.MEDIAN), [4, 6, 6], False),
        (Bar("x", 5, Over.SUM), [2, 2], True),
        (Bar("x", 5, Over.SUM), [2, 4], False),
        (Bar("x", 5, at_least=True), [5, 6], True),
        (Bar("x", 5, at_least=True), [4, 6], False),
        (Bar("x", 5), [], False),
    ],
)
def test_what_a_bar_is_held_against(bar: Bar, values: list[float], *, holds: bool) -> None:
    """Each value, their median or their sum; what was never measured is not met."""
    assert bar.holds(values) is holds


def test_a_good_outcome_passes() -> None:
    """The median decides where the bar says so, and the spread is told beside it."""
    assert GOOD_OUTCOME.passed
    assert rows_of(GOOD_OUTCOME.as_json()) == [
        ("sessions_lost <= 0", "0", "ok"),
        ("outage_ms (median) <= 25", "20.5 (12 .. 80)", "ok"),
    ]


@pytest.mark.parametrize(
    ("spoilt", "word", "state"),
    [
        (outcome(trial(1, 30.0)), "outage_ms (median) <= 25: measured 30", "MISSED"),
        (outcome(trial(1, 12.0, sessions_lost=1)), "sessions_lost <= 0: measured 1", "MISSED"),
        (outcome(trial(1, 12.0, "a byte was wrong")), "run 1: a byte was wrong", "MISSED"),
        (outcome(trial(1, 12.0), broken="no lab"), "lab: no lab", "BROKEN"),
        (outcome(trial(1, 12.0), wanted=2), "runs: 1 of 2 came to their end", "BROKEN"),
        (outcome(), "measured nothing", "MISSED"),
        (outcome(trial(1, 12.0), LATE), "outage_ms (median) <= 25: measured 12, nothing in run 2", "MISSED"),
        (replace(GOOD_OUTCOME, bars=(Bar("never", 1),)), "never <= 1: measured nothing", "MISSED"),
    ],
)
def test_what_does_not_hold_is_told(spoilt: Outcome, word: str, state: str) -> None:
    """One flaw fails the scenario; table, page and JSON name it."""
    assert not spoilt.passed
    assert any(word in bar for bar in spoilt.failed_bars), spoilt.failed_bars
    assert state in [row[2] for row in rows_of(spoilt.as_json())]
    text = io.StringIO()
    print_table(Console(file=text, width=120), [GOOD_OUTCOME, spoilt])
    assert state in text.getvalue()
    assert "FAILED: 1 of 2 scenarios hold every bar" in text.getvalue()
    assert state in page([(spoilt.title, spoilt.as_json())], [card(spoilt)])
    assert spoilt.as_json()["passed"] is False


def test_a_figure_of_some_trials() -> None:
    """The bar that says so asks it of those alone that have it, and of one at the least."""
    kept = replace(GOOD_OUTCOME, bars=(Bar("kept", 0.98, at_least=True, of_some=True),))
    large = trial(2, 12.0, kept=0.99)
    assert not kept.passed
    assert replace(kept, trials=(trial(1, 12.0), large), wanted=2).passed
    assert not replace(kept, trials=(trial(1, 12.0), large, trial(3, 12.0, kept=0.5)), wanted=3).passed


@pytest.mark.parametrize(
    ("name", "runs", "short", "trials"),
    [
        ("hang", 3, False, 3),
        ("death-million", 2, False, 12),
        ("death-million", 1, True, 2),
        ("embryonic-bounded", 1, True, 4),
        ("embryonic-async", 1, False, 11),
        ("vrrp-peers", 2, False, 8),
    ],
)
def test_how_many_trials_a_play_must_come_to(name: str, runs: int, *, short: bool, trials: int) -> None:
    """A play that yields fewer has not come to its end."""
    (scenario,) = (scenario for scenario in ALL if scenario.name == name)
    assert scenario.count(runs, short) == trials


@pytest.mark.parametrize(("yields", "passed"), [(2, True), (1, False)])
def test_a_play_that_yields_too_few(
    yields: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, passed: bool
) -> None:
    """It ends by itself, and nothing broke; what was asked for did not take place."""
    scenario = Scenario(
        "few",
        ("R7",),
        "Nothing.",
        (SESSIONS,),
        lambda _, __: iter([trial(number, 12.0) for number in range(1, yields + 1)]),
    )
    theatre = Theatre(Console(file=io.StringIO()), tmp_path, short=True)
    monkeypatch.setattr(theatre, "_stage_for", lambda _: None)
    assert theatre.play(scenario, 2).passed is passed


def test_figures_of_all_trials_together() -> None:
    """A bar finds the summary's figure, whatever single trials say."""
    ratio = replace(GOOD_OUTCOME, bars=(Bar("large_by_small", 1.5),), figures={"large_by_small": 1.2})
    assert ratio.passed
    assert not replace(ratio, figures={"large_by_small": 1.6}).passed


# ---- what is written -----------------------------------------------------------------------------------
def test_json_has_the_keys_of_the_main_job(tmp_path: Path) -> None:
    """Those of ``failover.json``, and the bars with what was measured."""
    found = json.loads(write_json(GOOD_OUTCOME, tmp_path).read_text())
    main_job = {"scenario", "requirements", "timers", "runs", "passed", "failed_bars"}
    assert set(found) == main_job | {
        *(
            "row",
            "topology",
            "bars",
            "figures",
            "wanted",
            "broken",
            "short",
            "played",
            "seconds",
            "tree",
            "retried",
        ),
    }
    assert found["scenario"] == "death"
    assert found["bars"][1] == {
        "bar": "outage_ms (median) <= 25",
        "measured": "20.5 (12 .. 80)",
        "holds": True,
        "values": [12.0, 20.5, 80.0],
    }
    run = found["runs"][0]
    assert run["tcp"] == {"opened": 1000, "survived": 1000, "reset": 0, "stalled": 0}
    assert run["figures"]["outage_ms"] == 12.0
    assert set(run) == set(GOOD.as_json()) | {"figures", "findings"}


def test_page_draws_the_worst_trial() -> None:
    """Findings count more than a long outage; what has no run of the main job is not drawn."""
    bare = Trial(4, {"outage_ms": 500.0}, ())
    assert worst([trial(1, 9.0), trial(2, 90.0), bare]).number == 2  # type: ignore[union-attr]
    assert worst([trial(1, 9.0, "wrong"), trial(2, 90.0)]).number == 1  # type: ignore[union-attr]
    assert worst([bare]) is None
    assert "<svg" not in card(outcome(bare))
    assert card(GOOD_OUTCOME).count("<svg") == 1
    assert "<b>Run 3</b>: node a is killed" in card(GOOD_OUTCOME)


def test_the_page_has_what_was_played_last_of_each(tmp_path: Path) -> None:
    """A row that is played again takes its own place, and another topology's has one beside it."""
    late = outcome(trial(1, 30.0))
    for played in (
        late,
        replace(GOOD_OUTCOME, topology="bridges"),
        replace(GOOD_OUTCOME, name="birth"),
        replace(GOOD_OUTCOME, name="forgotten"),
        GOOD_OUTCOME,
    ):
        keep(played, tmp_path)
    text = write_index(tmp_path, ["birth", "death"]).read_text()
    places = [text.index(f"<h2 id='{title}'>") for title in ("birth", "death", "death@bridges")]
    assert places == sorted(places)
    assert "failures: 3 of 3 scenarios hold every bar" in text
    keep(late, tmp_path)
    assert (
        "failures: 2 of 3 scenarios hold every bar" in write_index(tmp_path, ["birth", "death"]).read_text()
    )


# ---- figures -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("came", "lost", "duplicated", "reordered"),
    [
        ([0, 1, 2, 3], 0, 0, 0),
        ([0, 1, 3], 1, 0, 0),
        ([0, 1, 1, 2, 3], 0, 1, 0),
        ([0, 2, 1, 3], 0, 0, 1),
        ([3, 0, 1, 2], 0, 0, 3),
        ([0, 3, 3, 1], 1, 1, 1),
        ([], 4, 0, 0),
    ],
)
def test_what_a_direction_did(came: list[int], lost: int, duplicated: int, reordered: int) -> None:
    """Numbers lost, seen twice, and seen after a higher one."""
    order = order_of({0, 1, 2, 3}, came)
    assert (order.lost, order.duplicated, order.reordered) == (lost, duplicated, reordered)
    assert set(order.missing) == {0, 1, 2, 3} - set(came)


def test_datagrams_are_counted_on_both_ways() -> None:
    """But for the one figure that says so."""
    figures = figures_of(GOOD)
    assert (figures["lost"], figures["lost_there"]) == (123.0, 120.0)
    assert figures["sessions_lost"] == 0
    assert figures["forwarding_ms"] == 120.0


@pytest.mark.parametrize(
    ("before", "after", "moves"),
    [
        ({"a": 3, "b": 3}, {"a": 3, "b": 3}, 0),
        ({"a": 3, "b": 3}, {"a": 5, "b": 5}, 2),
        ({"a": 3, "b": 3}, {"a": None, "b": 4}, 1),
        ({"a": None, "b": 3}, {"a": 3, "b": 3}, 0),
    ],
)
def test_another_term_is_a_role_change(
    before: dict[str, int | None], after: dict[str, int | None], moves: int
) -> None:
    """There and back is a move, though no history may have it any more."""
    assert moves_of(before, after) == moves


class Mute:
    """A node whose history cannot be read."""

    name = "a"

    def __init__(self, pid: int | None) -> None:
        self.pid = pid

    def history(self) -> list[dict[str, Any]]:
        """It hangs up."""
        raise ConnectionError("the daemon hung up")


@pytest.mark.parametrize(("pid", "findings"), [(7, 1), (None, 0)])
def test_a_history_that_was_not_read_is_a_finding(pid: int | None, findings: int) -> None:
    """Of a node that runs; one that is dead takes its history along."""
    take: Any = Take.__new__(Take)
    take.stage = SimpleNamespace(pair=SimpleNamespace(nodes={"a": Mute(pid)}))
    take.findings, take._history = [], {}
    take.remember()
    assert len(take.findings) == findings


def ethernet(source: str, packet: bytes) -> bytes:
    """An IPv4 frame."""
    return bytes(6) + bytes.fromhex(source.replace(":", "")) + b"\x08\x00" + packet


def ipv4(source: str, proto: int = 17) -> bytes:
    """A header, as far as it matters."""
    head = bytearray(20)
    head[0], head[9] = 0x45, proto
    head[12:16] = IPv4Address(source).packed
    return bytes(head)


@pytest.mark.parametrize(
    ("frame", "data", "adverts"),
    [
        (ethernet("02:00:00:00:00:01", ipv4("198.51.100.2")), 0, 0),
        (ethernet("02:00:00:00:00:01", ipv4("198.51.100.10")), 1, 0),
        (ethernet(topo.LAN_VMAC, ipv4("198.51.100.2")), 1, 0),
        (bytes(6) + bytes.fromhex(topo.WAN_VMAC.replace(":", "")) + b"\x08\x06" + bytes(28), 1, 0),
        (ethernet(topo.LAN_VMAC, ipv4("198.51.100.2", proto=112)), 0, 1),
        (ethernet("02:00:00:00:00:01", ipv4("198.51.100.2", proto=112)), 0, 1),
        (bytes(20), 0, 0),
    ],
)
def test_what_only_an_active_node_says(frame: bytes, data: int, adverts: int) -> None:
    """The virtual router's MAC, somebody else's packet, an advert; not its own heartbeats and ARP."""
    said = judge([frame], frozenset([IPv4Address("198.51.100.2").packed]))
    assert (said.data, said.adverts) == (data, adverts)
    assert bool(said.first) == bool(data or adverts)


@pytest.mark.parametrize(
    ("dport", "direction", "from_active"), [(6081, 1, True), (6081, 0, False), (47851, 1, False)]
)
def test_what_active_sends_by_its_peers_port(dport: int, direction: int, *, from_active: bool) -> None:
    """By the cross-connect; what a node hands over to ACTIVE goes the other way."""
    udp = bytes(2) + dport.to_bytes(2, "big") + bytes(4)
    geneve = bytes(12) + bytes([direction]) + bytes(7)
    frame = ethernet("02:00:00:00:00:01", ipv4("169.254.100.1") + udp + geneve)
    assert is_from_active(frame) is from_active
    assert not is_from_active(frame[:50])


# ---- the registry --------------------------------------------------------------------------------------
def test_scenarios_are_told_apart() -> None:
    """Names, requirements and bars are there; no name is given twice."""
    known = (*ALL, *ON_DEMAND)
    assert len({scenario.name for scenario in known}) == len(known)
    for scenario in known:
        assert scenario.bars, scenario.name
        assert scenario.requirements, scenario.name
        assert scenario.row.endswith("."), scenario.name


@pytest.mark.parametrize("scenario", [*ALL, *ON_DEMAND], ids=lambda scenario: scenario.name)
def test_settings_make_a_file_that_loads(scenario: Scenario, tmp_path: Path) -> None:
    """The pair's own file, changed."""
    written = tmp_path / "pair.toml"
    text = with_keys(CONFIG.read_text(), dict(scenario.settings.keys)) + scenario.settings.tail
    written.write_text(text)
    config = load(written)
    for section, lines in scenario.settings.keys:
        for line in lines.splitlines():
            key, _, value = line.partition(" = ")
            assert str(found_in(config, f"{section}.{key}")) == value.strip('"')
    assert {str(route.via) for route in config.routes} >= {topo.ISP_ADDRESS}


def found_in(config: Any, path: str) -> Any:
    """The value of a key, such as ``ports.wan.track.kind``."""
    for name in path.split("."):
        config = config[name] if isinstance(config, Mapping) else getattr(config, name)
    return config


def test_a_bridge_in_each_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Topology bridges: the wire TAPs stay with their node, beside a NIC; fewer scenarios differ by it."""
    monkeypatch.setenv(topo.TOPOLOGY_VARIABLE, "bridges")
    monkeypatch.setenv(topo.DRIVER_VARIABLE, "tap")
    written = tmp_path / "pair.toml"
    written.write_text(configuration_text())
    for node in load(written).nodes.values():
        for name, port in node.ports.items():
            assert (port.bridge, port.uplink, port.netns) == (f"br-{name}", f"nic-{name}", None)
    assert {scenario.name for scenario in chosen([])} == {s.name for s in ALL if s.boxed}
    monkeypatch.setenv(topo.DRIVER_VARIABLE, "packet")
    with pytest.raises(ValueError, match="for driver tap"):
        topo.topology()
    monkeypatch.setenv(topo.TOPOLOGY_VARIABLE, "ring")
    with pytest.raises(ValueError, match="no topology 'ring'"):
        topo.topology()


def test_names_choose() -> None:
    """A first part of names stands for all of them; what is long is played only when it is named."""
    assert [s.name for s in chosen(["hang"])] == ["hang", "hang-aggressive"]
    assert [s.name for s in chosen(["soak"])] == ["soak"]
    assert "soak" not in {s.name for s in chosen([])}
    with pytest.raises(LabError, match="choose of steady-active"):
        chosen(["nonesuch"])
