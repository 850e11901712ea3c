# SPDX-License-Identifier: Apache-2.0
"""Would a failover be lossless: each reason by its cause, and what becomes of each session."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flexha.fastpath import Fate, FateKey, FlowFlag, FlowRecord, FlowState, Form
from flexha.shell.control import RequestError
from flexha.shell.readiness import Readiness, Tally, Why, reasons, warnings

STATUS: dict[str, Any] = {
    "pair": "lab",
    "node": "a",
    "role": "ACTIVE",
    "ready": False,
    "peer": {"alive": True, "role": "PASSIVE", "ready": True},
    "sync": {
        "connected": True,
        "state": "sending",
        "refused": None,
        "bulk": {"in_progress": False, "sent": 1, "synced": False},
        "sweep": {"shards": 0, "done": 0, "total": 0, "percent": 0.0},
        "audit": {"in_sync": True, "age_s": 0.4, "differing": [], "unrepaired": []},
        "lost_shards": 0,
        "committing": True,
        "records_received": 0,
        "pending": 2,
        "commit": {"mode": "bounded", "degraded": False},
    },
}
FOLLOWS = {
    "role": "PASSIVE",
    "ready": True,
    "peer.role": "ACTIVE",
    "peer.ready": False,
    "sync.state": "receiving",
}


def changed(**changes: object) -> dict[str, Any]:
    """The status of a pair that is ready, but for these keys; dots are written as two underscores."""
    status = copy.deepcopy(STATUS)
    for path, value in changes.items():
        *parents, last = path.replace("__", ".").split(".")
        inner = status
        for name in parents:
            inner = inner[name]
        inner[last] = value
    return status


def codes(status: dict[str, Any], *, has_peer: bool = True) -> list[str]:
    return [reason.code for reason in reasons(status, has_peer=has_peer, audit_s=1.0)]


# ---- the pair ----------------------------------------------------------------------------------------------
def test_a_pair_that_is_ready_has_no_reason_on_either_node() -> None:
    """Spec: B5."""
    assert codes(STATUS) == []
    assert codes(changed(**FOLLOWS)) == []


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"role": "JOINING"}, "role", "is JOINING"),
        ({"peer__alive": False}, "no_peer", "nothing is heard"),
        ({"peer__role": "FAULT"}, "peer_role", "FAULT, not PASSIVE"),
        ({"peer__ready": False}, "not_ready", "not ready"),
        ({"sync__connected": False}, "connecting", "no sync connection"),
        (
            {"sync__connected": False, "sync__refused": "expired: certificate has expired"},
            "tls_refused",
            "refused: expired: certificate has expired",
        ),
        (
            {"sync__connected": False, "sync__differs": ["pools"]},
            "config_differs",
            "configuration differs in pools; compare [[pools]] in both nodes' files; restart",
        ),
        ({"sync__state": "greeting"}, "connecting", "is greeting"),
        (
            {
                "sync__bulk__in_progress": True,
                "sync__audit__in_sync": False,
                "sync__sweep": {"shards": 64, "done": 42, "total": 100, "percent": 42.0},
            },
            "bulk",
            "whole table: 42 % walked, 2 batches under way",
        ),
        ({"sync__lost_shards": 3, "sync__sweep__shards": 3}, "lost", "changes of 3 shards were lost"),
        (
            {"sync__sweep": {"shards": 2, "done": 1, "total": 2, "percent": 50.0}},
            "sweep",
            "2 shards are told once more: 50 % walked",
        ),
        ({"sync__audit__differing": [3, 7]}, "differ", "differ in shards 3, 7"),
        (
            {"sync__audit__differing": list(range(12)), "sync__audit__unrepaired": list(range(12))},
            "unrepaired",
            "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more",
        ),
        ({"sync__audit__in_sync": False}, "not_agreed", "have not agreed"),
        ({"sync__audit__age_s": 12.3}, "stale", "agreed 12.3 s ago"),
        (
            {**FOLLOWS, "ready": False, "sync.bulk.in_progress": True, "sync.records_received": 1234},
            "bulk",
            "1,234 records so far",
        ),
    ],
)
def test_each_reason_is_named(changes: dict[str, object], code: str, text: str) -> None:
    """Spec: B5."""
    status = changed(**changes)
    found = list(reasons(status, has_peer=True, audit_s=1.0))
    assert code in [reason.code for reason in found]
    assert text in " ".join(reason.text for reason in found)


def test_a_lone_node_says_that_it_has_no_peer() -> None:
    assert codes(STATUS, has_peer=False) == ["no_peer"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"sync__commit__mode": "async"}, ["async"]),
        ({"sync__commit__degraded": True}, ["degraded"]),
        ({"role": "PASSIVE"}, ["passive"]),
    ],
)
def test_what_may_lose_sessions_later_is_a_warning(changes: dict[str, object], expected: list[str]) -> None:
    """Spec: B1, B5."""
    assert [warning.code for warning in warnings(changed(**changes))] == expected


# ---- sessions ----------------------------------------------------------------------------------------------
class Policy:
    """Rule 1 is async, rule 2 has sync = no, rule 3 sync = after."""

    def rule_name(self, number: int) -> str:
        return ("default", "fast", "dns", "late")[number]

    def commit_of(self, number: int) -> str:
        return "async" if number == 1 else "bounded"


def key(fate: Fate, **changes: int) -> FateKey:
    fields = {"state": FlowState.ESTABLISHED, "flags": 0, "shard": 5, "rule": 0, "pool": 0}
    return FateKey(**{**fields, **changes}, fate=fate)


def tally(*, lost: int = 0, no_peer: bool = False) -> Tally:
    return Tally(("vip", "own"), cast(Any, Policy()), lost, no_peer)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (key(Fate.LIVES), None),
        (key(Fate.UNTOLD), Why("untold")),
        (key(Fate.UNACKED), Why("unacked")),
        (key(Fate.UNTOLD, rule=1), Why("async", "fast")),
        (key(Fate.UNACKED, rule=1), Why("async", "fast")),
        (key(Fate.UNTOLD, flags=FlowFlag.HELD), None),
        (key(Fate.UNACKED, flags=FlowFlag.HELD), None),
        (key(Fate.POOL, pool=1), Why("pool", "own")),
        (key(Fate.RULE, rule=2), Why("rule", "dns")),
        (key(Fate.AFTER, rule=3), Why("after", "late")),
        (key(Fate.UNTOLD, state=FlowState.TIME_WAIT), None),
        (key(Fate.POOL, state=FlowState.CLOSED), None),
    ],
)
def test_why_a_session_dies(found: FateKey, why: Why | None) -> None:
    """Spec: B5."""
    assert tally().cause(found) == why


def test_a_session_of_a_lost_shard_waits_for_its_sweep() -> None:
    """Spec: B5."""
    assert tally(lost=1 << 5).cause(key(Fate.UNTOLD)) == Why("lost")
    assert tally(lost=1 << 4).cause(key(Fate.UNTOLD)) == Why("untold")


def test_without_a_peer_every_session_dies() -> None:
    """Spec: B5."""
    assert tally(no_peer=True).cause(key(Fate.LIVES)) == Why("no_peer")


def test_sessions_are_counted_by_cause() -> None:
    """Spec: B5."""
    counted = tally()
    counted.add({key(Fate.LIVES): 1000, key(Fate.POOL, pool=1): 2, key(Fate.UNTOLD): 3})
    counted.add({key(Fate.POOL, pool=1, shard=6): 5, key(Fate.UNACKED, flags=FlowFlag.HELD): 4})
    result = counted.result(exact=True)
    assert {name: result[name] for name in ("total", "live", "waiting", "die", "exact")} == {
        "total": 1014,
        "live": 1000,
        "waiting": 4,
        "die": 10,
        "exact": True,
    }
    assert result["why"] == [
        {
            "code": "pool",
            "name": "own",
            "sessions": 7,
            "text": "pool own is on an address of this node only",
        },
        {
            "code": "untold",
            "name": None,
            "sessions": 3,
            "text": "the peer has not been told of them yet",
        },
    ]


# ---- the command -------------------------------------------------------------------------------------------
def record(n: int, fate: Fate, pool: int = 0) -> FlowRecord:
    return FlowRecord(
        form=Form.SNAT,
        proto=6,
        state=FlowState.ESTABLISHED,
        flags=FlowFlag(0),
        inside=IPv4Address("198.51.100.10"),
        inside_port=n,
        remote=IPv4Address("192.0.2.10"),
        remote_port=80,
        external=IPv4Address("203.0.113.3"),
        external_port=n,
        in_port=0,
        out_port=1,
        pool=pool,
        rule=0,
        origin=1,
        id=n,
        version=1,
        shard=n % 64,
        remaining_ms=1,
        packets=(0, 0),
        bytes=(0, 0),
        fate=fate,
    )


class Page:
    """As ``FatePage``."""

    def __init__(self, records: list[FlowRecord]) -> None:
        self._records = records

    @staticmethod
    def _key(record: FlowRecord) -> FateKey:
        return FateKey(record.state, record.flags, record.shard, record.rule, record.pool, record.fate)

    def counts(self) -> dict[FateKey, int]:
        counts: dict[FateKey, int] = {}
        for found in map(self._key, self._records):
            counts[found] = counts.get(found, 0) + 1
        return counts

    def records(self, wanted: Any) -> Iterator[FlowRecord]:
        return (record for record in self._records if wanted(self._key(record)))


class FakeInspector:
    """A node whose table is ``pages``."""

    def __init__(self, pages: list[list[FlowRecord]], **changes: object) -> None:
        self.status = changed(**changes)
        self.plan = SimpleNamespace(
            pool_names=("vip", "own"),
            core=SimpleNamespace(has_peer=True, sync=SimpleNamespace(audit_s=1.0)),
        )
        self.policy = Policy()
        self.fastpath = SimpleNamespace(fates=lambda _: iter([Page(page) for page in pages]))

    def lost_shards(self) -> int:
        return 0

    def peer_alive(self) -> bool:
        return bool(self.status["peer"]["alive"])

    def role(self) -> str:
        return str(self.status["role"])

    def flow_gauges(self) -> dict[str, int]:
        return {"flows": 7}

    def status_result(self) -> dict[str, Any]:
        return self.status

    def session(self, record: FlowRecord) -> dict[str, object]:
        return {"id": record.id}


LIVING = [record(n, Fate.LIVES) for n in range(1, 9)]
DYING = [record(n, Fate.POOL, pool=1) for n in range(20, 25)]


def ask(inspector: FakeInspector, **args: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(asyncio.run(Readiness(cast(Any, inspector)).ask(args)))
    return answer


def test_yes() -> None:
    """Spec: B5."""
    answer = ask(FakeInspector([LIVING, LIVING]))
    assert answer["lossless"] is True
    assert (answer["reasons"], answer["warnings"]) == ([], [])
    assert answer["sessions"]["total"] == answer["sessions"]["live"] == 16
    assert set(answer) == {
        *("lossless", "pair", "node", "role", "peer", "agreed_s", "commit"),
        *("reasons", "warnings", "sessions"),
    }


def test_sessions_that_die_make_it_a_no_and_are_listed() -> None:
    """Spec: B5."""
    inspector = FakeInspector([LIVING, DYING, LIVING, DYING])
    assert ask(inspector)["lossless"] is False
    answer = ask(inspector, sessions=True, limit=7)
    assert answer["sessions"]["die"] == 10
    assert [session["id"] for session in answer["listed"]] == [20, 21, 22, 23, 24, 20, 21]
    assert answer["listed"][0] == {"id": 20, "why": "pool", "why_name": "own"}
    assert answer["truncated"] is True
    assert ask(inspector, sessions=True)["truncated"] is False


def test_counts_are_exact_only_while_the_peer_is_in_sync() -> None:
    assert ask(FakeInspector([LIVING]))["sessions"]["exact"] is True
    assert ask(FakeInspector([LIVING], sync__committing=False))["sessions"]["exact"] is False


def test_a_passive_node_answers_for_the_pair_only() -> None:
    """Spec: B5."""
    answer = ask(FakeInspector([DYING], **FOLLOWS))
    assert answer["lossless"] is True
    assert answer["sessions"]["total"] == 7
    assert answer["sessions"]["exact"] is False
    assert [warning["code"] for warning in answer["warnings"]] == ["passive"]


def test_a_node_whose_peer_is_away_loses_everything() -> None:
    """Spec: B5."""
    answer = ask(FakeInspector([LIVING], peer__alive=False))
    assert answer["lossless"] is False
    assert answer["sessions"]["why"][0]["code"] == "no_peer"
    assert answer["sessions"]["die"] == len(LIVING)


@pytest.mark.parametrize(
    "args", [{"limit": 5}, {"sessions": 1}, {"sessions": True, "limit": 0}, {"verbose": True}]
)
def test_bad_requests(args: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        ask(FakeInspector([LIVING]), **args)


def test_the_loop_turns_between_the_pages() -> None:
    async def story() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        await Readiness(cast(Any, FakeInspector([LIVING] * 50))).ask({})
        counting.cancel()
        return turns

    assert asyncio.run(story()) >= 50
