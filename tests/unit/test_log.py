# SPDX-License-Identifier: Apache-2.0
"""Logs: one line an event, in both forms, and never a reason to stall."""

from __future__ import annotations

import io
import json
import os
import time
from ipaddress import IPv4Address

import pytest

from flexha.shell import log
from flexha.shell.counters import NAMES_MAX, Counters
from flexha.shell.history import RECORDS_MAX, History
from flexha.shell.log import Format, LogThread
from flexha.units import ms


def written(form: Format, level: str = "debug") -> list[str]:
    stream = io.StringIO()
    thread = LogThread("a", level, form, stream)
    thread.start()
    log.info("role", to="ACTIVE", via=IPv4Address("192.0.2.1"), why='it "was" so', paths=("xc", "lan"), n=3)
    log.debug("detail", empty="", nothing=None, mac=b"\x02\x00")
    try:
        int("two\nlines")
    except ValueError as problem:
        log.exception("bug", problem)
    thread.stop()
    return stream.getvalue().splitlines()


def test_text() -> None:
    role, detail, bug = written("text")
    assert " info node=a role to=ACTIVE via=192.0.2.1 " in role
    assert role.endswith(' why="it \\"was\\" so" paths=["xc","lan"] n=3')
    assert detail.endswith('debug node=a detail empty="" nothing=null mac=0200')
    assert "error node=a bug traceback=" in bug
    assert "ValueError: " in bug


def test_json() -> None:
    role, _, bug = map(json.loads, written("json"))
    assert role["event"] == "role"
    assert (role["level"], role["node"], role["via"]) == ("info", "a", "192.0.2.1")
    assert role["paths"] == ["xc", "lan"]
    assert "ValueError: invalid literal for int()" in bug["traceback"]


def test_levels() -> None:
    assert [line.split()[3] for line in written("text", "info")] == ["role", "bug"]


def test_stopping_twice_is_stopping_once() -> None:
    thread = LogThread("a", "info", "text", io.StringIO())
    thread.start()
    thread.stop()
    thread.stop()


def test_a_reader_that_stalls_costs_records_not_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "QUEUE_RECORDS_MAX", 64)
    monkeypatch.setattr(log, "STOP_TIMEOUT_S", 0.1)
    read, write = os.pipe()
    thread = LogThread("a", "info", "text", os.fdopen(write, "w"))
    thread.start()
    try:
        give_up = time.monotonic() + 60
        while thread._handler.dropped < 1000:  # in a row: nobody takes one any more, and this goes on
            log.info("event", filler="x" * 200)
            assert time.monotonic() < give_up
        thread.stop()
    finally:
        os.close(read)  # else its thread would wait for a reader even when the process ends


# ---- history and counters ----------------------------------------------------------------------------------
def test_history_keeps_the_newest() -> None:
    history = History("b")
    for n in range(RECORDS_MAX + 5):
        history.add(ms(n), "role", {"n": n, "node": "shadowed"})
    records = history.records()
    assert len(records) == RECORDS_MAX
    assert (records[0]["n"], records[-1]["n"]) == (5, RECORDS_MAX + 4)
    assert records[-1]["t_ms"] == RECORDS_MAX + 4
    assert (records[-1]["node"], records[-1]["node_"]) == ("b", "shadowed")
    assert [record["n"] for record in history.records(2)] == [RECORDS_MAX + 3, RECORDS_MAX + 4]
    assert history.records(0) == []


def test_counters_have_bounded_names() -> None:
    counters = Counters()
    for n in range(NAMES_MAX + 10):
        counters.add(f"name{n}")
    counters.add("name0", 4)
    values = counters.values()
    assert values["other"] == 10
    assert values["name0"] == 5
