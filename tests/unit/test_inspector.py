# SPDX-License-Identifier: Apache-2.0
"""What the daemon shows: filters of sessions, paging, and the keys that scripts rely on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest
from flow_oracle import passes

from flexha.config.derive import Draw, fastpath_config, node_plan
from flexha.config.load import load
from flexha.core import node
from flexha.fastpath import (
    ConduitStats,
    EndpointWant,
    FlowFlag,
    FlowRecord,
    FlowState,
    FlowWant,
    Form,
    Hang,
    LeaseStats,
    LineStats,
    PathStats,
    PoolUse,
    PortStats,
    SyncStats,
    WorkerStats,
    verdict_table,
)
from flexha.shell import inspector as module
from flexha.shell.control import RequestError
from flexha.shell.counters import Counters
from flexha.shell.heartbeat_io import HeartbeatIo
from flexha.shell.history import History
from flexha.shell.inspector import Inspector, endpoint, endpoint_want
from flexha.shell.metrics import families, render
from flexha.shell.policy_io import PolicyIo
from flexha.shell.sync_report import quantile_ms
from flexha.units import Ns

PAIR = Path(__file__).resolve().parents[2] / "netns-lab" / "pair.toml"
CONFIG = load(PAIR)


def record(n: int, **changes: Any) -> FlowRecord:
    fields: dict[str, Any] = {
        "form": Form.SNAT,
        "proto": 6,
        "state": FlowState.ESTABLISHED,
        "flags": FlowFlag(0),
        "inside": IPv4Address("198.51.100.10"),
        "inside_port": 40000 + n,
        "remote": IPv4Address("192.0.2.10"),
        "remote_port": 80,
        "external": IPv4Address("203.0.113.3"),
        "external_port": 50000 + n,
        "in_port": 0,
        "out_port": 1,
        "pool": 0,
        "rule": 0,
        "origin": 1,
        "id": n,
        "version": 3,
        "shard": n % 64,
        "remaining_ms": 1000,
        "packets": (1, 2),
        "bytes": (100, 200),
    }
    return FlowRecord(**{**fields, **changes})


RECORDS = [
    *(record(n) for n in range(300)),
    record(900, proto=17, state=FlowState.NEW, inside=IPv4Address("198.51.100.77"), flags=FlowFlag.IMPORTED),
    record(901, form=Form.STATIC, proto=132, flags=FlowFlag.INBOUND | FlowFlag.HAIRPIN, rule=7),
]


NUMBERS = {"flows": 3, "mappings": 4, "tombstones": 5}


class FakePage:
    """As ``FlowPage``, which test_flow_match holds against the same oracle."""

    def __init__(self, records: Sequence[FlowRecord]) -> None:
        self.n = len(records)
        self._records = records

    def places(self, want: FlowWant) -> list[int]:
        return [place for place, each in enumerate(self._records) if passes(want, each)]

    def record(self, place: int) -> FlowRecord:
        return self._records[place]


class FakeFastpath:
    """A table that does not change."""

    config = fastpath_config(CONFIG, "a", Draw(1, bytes(16), 0, bytes(16)))

    def flow_pages(self, page: int) -> Iterator[FakePage]:
        return (FakePage(RECORDS[at : at + page]) for at in range(0, len(RECORDS), page))

    def worker_stats(self, _: int) -> WorkerStats:
        return WorkerStats(**{field.name: NUMBERS.get(field.name, 1) for field in fields(WorkerStats)})

    def sync_stats(self, _: int) -> SyncStats:
        return SyncStats(
            **{
                field.name: (1, 2, *[0] * 61, 5) if field.name in {"lag", "hold"} else 3  # type: ignore[arg-type]
                for field in fields(SyncStats)
            }
        )

    def conduit_stats(self, _: int) -> ConduitStats:
        return ConduitStats(**{field.name: 8 for field in fields(ConduitStats)})

    def port_stats(self, _: int) -> PortStats:
        return PortStats(**{field.name: 0 for field in fields(PortStats)})

    def path_stats(self) -> list[PathStats]:
        return [PathStats(1, 2, 3, 4, 6, 5_000_000, alive=True)] * 3

    def lease_stats(self) -> LeaseStats:
        return LeaseStats(15_000_000, 3, 1, 40_500_000, asking=False, hung=Hang.WORKER)

    def line_stats(self) -> LineStats:
        return LineStats(made=2, bad=1, stands=True)

    def policy_hits(self) -> list[int]:
        return [12]

    def pool_use(self) -> list[PoolUse]:
        return [PoolUse(tcp=5, udp=6, icmp=7)]

    def verdict_counts(self) -> list[int]:
        return [7] * len(verdict_table())


class Part:
    """Any other part of the daemon, as far as it is read."""

    up = True

    @property
    def sizes(self) -> dict[str, int]:
        return {"routes": 1}

    def status(self) -> dict[str, object]:
        core = dict(node.status(node.initial(node_plan(CONFIG, "a").core), Ns(0)))
        return {**core, "role": "ACTIVE", "term": 4, "ready": True, "peer": {"alive": True}}


@pytest.fixture
def shown() -> Inspector:
    fastpath, part = cast(Any, FakeFastpath()), cast(Any, Part())
    plan, counters = node_plan(CONFIG, "a"), Counters()
    counters.add("fib.commits", 2)
    heartbeat = HeartbeatIo(fastpath, plan.core.paths, 150, {}, lambda _: None, counters)
    history = History("a")
    history.add(Ns(1_500_000), "role", {"to": "ACTIVE"})
    policy = PolicyIo(fastpath, plan, CONFIG, None, counters)
    return Inspector(
        plan, Ns(0), fastpath, part, heartbeat, None, part, [part, part], [], history, counters, policy
    )


def ask(shown: Inspector, command: str, **args: object) -> dict[str, Any]:
    result = asyncio.run(getattr(shown, command)(args))
    answer: dict[str, Any] = json.loads(result if isinstance(result, str) else "".join(result))
    return answer


# ---- sessions ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "count"),
    [
        ({}, 302),
        ({"form": "snat"}, 301),
        ({"form": "static"}, 1),
        ({"form": "none"}, 0),
        ({"proto": "udp"}, 1),
        ({"proto": "17"}, 1),
        ({"proto": 6}, 300),
        ({"proto": "icmp"}, 0),
        ({"state": "established"}, 301),
        ({"inside": "198.51.100.77"}, 1),
        ({"inside": "198.51.100.64/26"}, 1),
        ({"inside": ":40007"}, 1),
        ({"inside": "198.51.100.10:40007"}, 1),
        ({"inside": "198.51.100.77:40007"}, 0),
        ({"external": "203.0.113.3:50012", "remote": ":80"}, 1),
        ({"remote": "2001:db8::/32"}, 0),
        ({"remote": "[2001:db8::1]:80"}, 0),
    ],
)
def test_filters(shown: Inspector, args: dict[str, object], count: int) -> None:
    assert ask(shown, "sessions", **args, count_only=True) == {
        "sessions": [],
        "count": count,
        "truncated": False,
        "cursor": None,
    }
    assert len(ask(shown, "sessions", **args, limit=1000)["sessions"]) == count


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ({"proto": "gopher"}, "use icmp, tcp"),
        ({"proto": "256"}, "unknown"),
        ({"state": "open"}, "use one of: none, new, syn_sent"),
        ({"form": "route"}, "use one of: snat, static, none"),
        ({"inside": "nowhere"}, "no address, address:port, :port or prefix"),
        ({"inside": ":70000"}, "no address"),
        ({"inside": "10.0.0.1:x"}, "no address"),
        ({"inside": True}, "send a string"),
        ({"limit": 0}, "send a number in 1..100000"),
        ({"limit": "5"}, "send a number"),
        ({"limit": True}, "send a number"),
        ({"cursor": -1}, "send a number"),
        ({"count_only": 1}, "send true or false"),
        ({"color": "red"}, "unknown args color"),
    ],
)
def test_bad_filters(shown: Inspector, args: dict[str, object], text: str) -> None:
    with pytest.raises(RequestError, match=text):
        ask(shown, "sessions", **args)


def test_a_long_answer_comes_in_pages_that_join(shown: Inspector) -> None:
    ids: list[int] = []
    cursor: int | None = 0
    while cursor is not None:
        page = ask(shown, "sessions", limit=37, cursor=cursor)
        assert len(page["sessions"]) <= 37
        assert page["truncated"] == (page["cursor"] is not None)
        ids += [session["id"] for session in page["sessions"]]
        cursor = page["cursor"]
    assert ids == [*range(300), 900, 901]


def test_the_keys_of_a_session(shown: Inspector) -> None:
    """Spec: R25. Scripts read these."""
    (session,) = ask(shown, "sessions", proto="udp")["sessions"]
    assert session == {
        "form": "snat",
        "proto": "udp",
        "state": "new",
        "inside": "198.51.100.77:40900",
        "remote": "192.0.2.10:80",
        "external": "203.0.113.3:50900",
        "in_port": "lan",
        "out_port": "wan",
        "origin": 1,
        "id": 900,
        "version": 3,
        "shard": 4,
        "remaining_ms": 1000,
        "packets": [1, 2],
        "bytes": [100, 200],
        "pool": "vip",
        "rule": 0,
        "rule_name": "default",
        "inbound": False,
        "hairpin": False,
        "reset": False,
        "imported": True,
        "held": False,
        "fate": "lives",
    }
    (forwarded,) = ask(shown, "sessions", form="static")["sessions"]
    assert (forwarded["inbound"], forwarded["hairpin"], forwarded["rule"]) == (True, True, 7)


def test_the_loop_turns_while_a_table_is_walked(shown: Inspector) -> None:
    async def story() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await shown.sessions({})
        counting.cancel()
        return turns

    assert asyncio.run(story()) >= len(RECORDS) // module.PAGE


SYNC_KEYS = {
    *("connected", "state", "stream", "sent_seq", "acked_seq", "received_seq", "pending", "pending_bytes"),
    *("bulk", "sweep", "audit", "lost_shards", "committing", "commit", "queued", "told", "lag_ms", "hold_ms"),
    *("repaired_records", "import_unknown", "scrub_errors", "differs"),
    *("records_sent", "records_received", "bytes_sent", "bytes_received", "unsent_bytes", "refused", "tls"),
}


# ---- the rest ----------------------------------------------------------------------------------------------
def test_the_keys_of_status(shown: Inspector) -> None:
    """Spec: R25."""
    status = ask(shown, "status")
    assert {"pair", "node", "role", "term", "ready", "peer", "sync", "flows", "ports"} <= set(status)
    assert {"version", "uptime_s"} <= set(status)
    assert status["peer"]["alive"]
    assert set(status["peer"]["paths"]) == {"xc", "lan", "wan"}
    assert status["peer"]["life_line"] == {"stands": True, "made": 2, "bad": 1}
    assert set(status["peer"]["paths"]["xc"]) == {
        *("alive", "last_heard_ms", "sent", "received", "lost", "bad", "replayed"),
    }
    assert set(status["sync"]) == SYNC_KEYS
    assert set(status["sync"]["commit"]) == {
        *("mode", "on", "degraded", "degraded_times", "unacked_sessions"),
        *("held_sessions", "held_frames", "held_bytes"),
        *("released", "expired", "full", "dropped", "unheld"),
    }
    assert set(status["sync"]["sweep"]) == {"shards", "repairs", "done", "total", "percent"}
    assert set(status["sync"]["audit"]) == {
        *("in_sync", "agreed_at", "age_s", "differing", "repaired", "unrepaired"),
    }
    assert status["sync"]["lag_ms"] == {"count": 8, "p50": None, "p99": None}, "most are in the last bucket"
    assert status["sync"]["lost_shards"] == 2, "shards 0 and 1: bits of the workers' masks"
    assert status["flows"] == {**NUMBERS, "capacity": 131072}
    assert status["ports"][1]["host_dev"] == "wan0"
    assert status["lease"] == {
        "lease_ms": 15.0,
        "asking": False,
        "asked": 3,
        "unanswered": 1,
        "longest_stall_ms": 40.5,
        "hung": ["worker"],
    }
    with pytest.raises(RequestError, match="unknown args"):
        ask(shown, "status", verbose=True)


def test_the_keys_of_counters(shown: Inspector) -> None:
    counters = ask(shown, "show_counters")
    assert set(counters) == {"verdicts", "workers", "sync", "lag_bounds_us", "ports", "control"}
    assert counters["sync"][0]["hold_dropped"] == 3
    assert counters["sync"][0]["lag"][:3] == [1, 2, 0]
    assert len(counters["lag_bounds_us"]) + 1 == len(counters["sync"][0]["lag"])
    assert counters["lag_bounds_us"][:2] == [32, 40]
    assert all(set(row) == {"value", "help", "drop"} for row in counters["verdicts"].values())
    assert counters["ports"]["wan"]["rx_frames"] == 0
    assert counters["control"] == {"fib.commits": 2}


def test_history(shown: Inspector) -> None:
    (event,) = ask(shown, "ha_history")["events"]
    assert (event["t_ms"], event["node"], event["event"], event["to"]) == (1.5, "a", "role", "ACTIVE")
    with pytest.raises(RequestError, match=r"send a number in 1\.\.1000"):
        ask(shown, "ha_history", limit=0)


def test_metrics_name_verdicts_as_the_counters_do(shown: Inspector) -> None:
    text = render(families(shown)).decode()
    for verdict in verdict_table():
        labels = f'drop="{str(verdict.drop).lower()}",verdict="{verdict.name}"'
        assert f"flexha_packets_total{{{labels}}} 7.0" in text
    assert 'flexha_rule_hits_total{action="allow-outbound",rule="default"} 12.0' in text
    assert 'flexha_pool_ports_in_use{pool="vip",proto="udp"} 6.0' in text
    assert 'flexha_role{role="active"} 1.0' in text
    assert 'flexha_role{role="passive"} 0.0' in text
    assert 'flexha_peer_path_alive{path="xc"} 1.0' in text
    assert text.count("# TYPE flexha_port_rx_frames_total counter") == 1
    assert text.count("flexha_port_rx_frames_total{") == 2


def test_metrics_of_sync(shown: Inspector) -> None:
    """Spec: R25. Each number of sync has a name, and delays are histograms in seconds."""
    text = render(families(shown)).decode()
    for line in (
        'flexha_sync_told_total{op="open",worker="0"} 3.0',
        'flexha_sync_hold_expired_total{worker="0"} 3.0',
        'flexha_sync_held_sessions{worker="0"} 3.0',
        'flexha_sync_lag_seconds_bucket{le="3.2e-05",worker="0"} 1.0',
        'flexha_sync_lag_seconds_bucket{le="4e-05",worker="0"} 3.0',
        'flexha_sync_lag_seconds_bucket{le="+Inf",worker="0"} 8.0',
        'flexha_sync_lag_seconds_count{worker="0"} 8.0',
        'flexha_sync_hold_seconds_count{worker="0"} 8.0',
        'flexha_sync_commit_mode{mode="bounded"} 1.0',
        'flexha_sync_commit_mode{mode="async"} 0.0',
        "flexha_sync_lost_shards 2.0",
        "flexha_sync_connected 0.0",
        "flexha_sync_unrepaired_shards 0.0",
    ):
        assert line in text, line
    assert "# TYPE flexha_sync_lag_seconds histogram" in text
    assert "flexha_sync_agreed_age_seconds" not in text, "tables that were never equal have no age"
    sent = {name for name in SYNC_KEYS if name.endswith("_seq")}
    assert all(f"flexha_sync_{name} 0.0" in text for name in sent)


def test_quantiles_of_histograms() -> None:
    assert quantile_ms((0, 0), 0.5) is None
    assert quantile_ms((1, 99), 0.01) == 0.032
    assert quantile_ms((1, 99), 0.5) == 0.04
    assert quantile_ms((*[0] * 63, 1), 0.5) is None, "the last bucket has no end"


def test_endpoints_in_text() -> None:
    assert endpoint(IPv4Address("192.0.2.1"), 80) == "192.0.2.1:80"
    assert endpoint_want("inside", ":0") == EndpointWant(None, 0)
