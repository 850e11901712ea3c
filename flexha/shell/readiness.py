# SPDX-License-Identifier: Apache-2.0
"""``flexhactl ha readiness``: would a failover now be lossless, and if not, which sessions die, and why?

Two questions make the answer. Is there a peer whose table equals ours (``reasons``)? And what stands in our
table that the peer's does not have, or could not go on with (``Tally``)? The second one is for the ACTIVE
node alone: what it has not told, nobody else knows. A session whose packets all wait for the peer's word is
not lost with the node: nobody has heard of it, and its sender repeats what was never answered.

The table is walked in pages, between which the loop turns, one walk at a time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from flexha.core import agreed
from flexha.fastpath import Fate, FateKey, FlowFlag, FlowRecord, FlowState
from flexha.shell.control import Args, RequestError, only
from flexha.shell.inspector import LIMIT_DEFAULT, LIMIT_MAX, Inspector, boolean, integer
from flexha.shell.policy_io import PolicyIo

PAGE = 512
"""Sessions looked at between two turns of the loop: well below a millisecond."""
AUDIT_STALE_ROUNDS = 5
AUDIT_STALE_MIN_S = 5.0
"""Digests that agreed longer ago than this, and than so many rounds, say nothing of now."""

_OVER = frozenset({FlowState.TIME_WAIT, FlowState.CLOSED})
"""Sessions in these states have nothing left to lose."""


class Reason(NamedTuple):
    """Why not. ``code`` is for scripts and stays, ``text`` is for people."""

    code: str
    text: str


class Why(NamedTuple):
    """Why a session dies. ``name``: of the pool or the rule that is the cause, or ""."""

    code: str
    name: str = ""


_WHY_TEXTS = {
    "no_peer": "nobody is there to take over",
    "untold": "the peer has not been told of them yet",
    "unacked": "the peer has not acknowledged them yet",
    "lost": "changes of their shards were lost, a sweep is due",
    "async": "commit is async: not acknowledged yet, and their packets do not wait (rule {name})",
    "pool": "pool {name} is on an address of this node only",
    "rule": "rule {name} says sync = no",
    "after": "rule {name} says sync = after, and they are younger than that",
}


# ---- the pair ----------------------------------------------------------------------------------------------
def reasons(status: Mapping[str, Any], *, has_peer: bool, audit_s: float) -> Iterator[Reason]:
    """What keeps this pair from a lossless failover, by ``flexhactl status`` of either node."""
    role, peer, sync = str(status.get("role")), status["peer"], status["sync"]
    if not has_peer:
        yield Reason("no_peer", "no peer is configured")
        return
    if role not in ("ACTIVE", "PASSIVE"):
        yield Reason("role", f"this node is {role}, it neither reigns nor stands by")
    if not peer.get("alive"):
        yield Reason("no_peer", "nothing is heard of the peer on any path")
        return
    wanted = "PASSIVE" if role == "ACTIVE" else "ACTIVE"
    if peer.get("role") != wanted:
        yield Reason("peer_role", f"the peer is {peer.get('role')}, not {wanted}")
    found = list(_sync_reasons(sync, role, audit_s))
    yield from found
    ready = peer.get("ready") if role == "ACTIVE" else status.get("ready")
    if not ready and not found:
        yield Reason("not_ready", "the PASSIVE node says that it is not ready")


def _sync_reasons(sync: Mapping[str, Any], role: str, audit_s: float) -> Iterator[Reason]:
    if differs := sync.get("differs"):
        text = f"there is no sync: the nodes' configuration differs in {', '.join(differs)}"
        yield Reason("config_differs", f"{text}; {agreed.remedy(tuple(differs))}")
        return
    if not sync.get("connected"):
        refused = sync.get("refused")
        yield (
            Reason("tls_refused", f"the sync connection is refused: {refused}")
            if refused
            else Reason("connecting", "there is no sync connection; connecting")
        )
        return
    if sync.get("state") not in ("sending", "receiving"):
        yield Reason("connecting", f"the sync connection is {sync.get('state')}")
        return
    audit, sweep = sync["audit"], sync["sweep"]
    if unrepaired := audit["unrepaired"]:
        yield Reason("unrepaired", f"repairs do not help, the tables differ in shards {_listed(unrepaired)}")
    elif differing := audit["differing"]:
        yield Reason("differ", f"the tables differ in shards {_listed(differing)}, a repair is under way")
    if sync["bulk"]["in_progress"]:
        yield Reason("bulk", f"the PASSIVE node is getting the whole table: {_progress(sync, role)}")
    elif sync["lost_shards"]:
        yield Reason("lost", f"changes of {sync['lost_shards']} shards were lost; they wait for a sweep")
    elif sweep["shards"]:
        yield Reason("sweep", f"{sweep['shards']} shards are told once more: {_progress(sync, role)}")
    elif not audit["in_sync"] and not audit["differing"]:
        yield Reason("not_agreed", "the digests of both tables have not agreed yet")
    stale_s = max(AUDIT_STALE_MIN_S, AUDIT_STALE_ROUNDS * audit_s)
    if audit["in_sync"] and (audit["age_s"] or 0.0) > stale_s:
        yield Reason("stale", f"the digests agreed {audit['age_s']:.1f} s ago, and were not compared since")


def _progress(sync: Mapping[str, Any], role: str) -> str:
    sweep = sync["sweep"]
    if role == "ACTIVE":
        walked = f"{sweep['percent']:.0f} %" if sweep["total"] else "all"
        return f"{walked} walked, {sync['pending']} batches under way"
    return f"{sync['records_received']:,} records so far"


def _listed(shards: list[int]) -> str:
    return ", ".join(map(str, shards[:10])) + (f" and {len(shards) - 10} more" if len(shards) > 10 else "")


def warnings(status: Mapping[str, Any]) -> Iterator[Reason]:
    """What makes a failover lossy a moment later, though nothing need be lost now."""
    commit = status["sync"]["commit"]
    if status.get("role") != "ACTIVE":
        yield Reason("passive", "what the ACTIVE node has not told is known there only: ask it, too")
        return
    if commit["mode"] == "async":
        yield Reason("async", "commit is async: each new session is exposed until it is acknowledged")
    if commit["degraded"]:
        yield Reason("degraded", "the peer is slow: packets of new sessions do not wait for it now")


# ---- sessions ----------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Tally:
    """What becomes of each session of an ACTIVE node's table."""

    pools: tuple[str, ...]
    policy: PolicyIo
    lost: int
    """Shards (a bit each) of which changes were lost."""
    no_peer: bool = False
    total: int = 0
    live: int = 0
    waiting: int = 0
    why: dict[Why, int] = field(default_factory=dict)

    def add(self, counts: Mapping[FateKey, int]) -> None:
        """A page of a walk."""
        for key, n in counts.items():
            self.total += n
            cause = self.cause(key)
            if cause is not None:
                self.why[cause] = self.why.get(cause, 0) + n
            elif key.fate in (Fate.UNTOLD, Fate.UNACKED) and key.flags & FlowFlag.HELD:
                self.waiting += n
            else:
                self.live += n

    def cause(self, key: FateKey) -> Why | None:
        """Why a session dies; None: it does not, or nobody minds."""
        if FlowState(key.state) in _OVER:
            return None
        if self.no_peer:
            return Why("no_peer")
        match Fate(key.fate):
            case Fate.LIVES:
                return None
            case Fate.POOL:
                return Why("pool", self.pools[key.pool] if key.pool < len(self.pools) else "")
            case Fate.RULE:
                return Why("rule", self.policy.rule_name(key.rule) or "")
            case Fate.AFTER:
                return Why("after", self.policy.rule_name(key.rule) or "")
            case Fate.UNTOLD if self.lost >> key.shard & 1:
                return Why("lost")
            case Fate.UNTOLD | Fate.UNACKED if key.flags & FlowFlag.HELD:
                return None
            case Fate.UNTOLD | Fate.UNACKED if self.policy.commit_of(key.rule) == "async":
                return Why("async", self.policy.rule_name(key.rule) or "")
            case fate:
                return Why(fate.name.lower())

    @property
    def dying(self) -> int:
        """Sessions that a failover would end."""
        return sum(self.why.values())

    def result(self, *, exact: bool) -> dict[str, object]:
        """``sessions`` of the answer."""
        return {
            "total": self.total,
            "live": self.live,
            "waiting": self.waiting,
            "die": self.dying,
            "exact": exact,
            "why": [
                {
                    "code": why.code,
                    "name": why.name or None,
                    "sessions": n,
                    "text": _WHY_TEXTS[why.code].format(name=why.name),
                }
                for why, n in sorted(self.why.items(), key=lambda item: -item[1])
            ],
        }


# ---- the command -------------------------------------------------------------------------------------------
class Readiness:
    """Answers ``ha_readiness``."""

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._walking = asyncio.Lock()

    async def ask(self, args: Args) -> str:
        """Would a failover now be lossless?"""
        only(args, "sessions", "limit")
        listing = boolean(args, "sessions")
        if not listing and args.get("limit") is not None:
            raise RequestError("limit is for the list of sessions; send sessions, too")
        limit = integer(args, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX) if listing else 0
        async with self._walking:
            return json.dumps(await self._result(listing=listing, limit=limit))

    async def _result(self, *, listing: bool, limit: int) -> dict[str, object]:
        inspector = self._inspector
        core = inspector.plan.core
        # The table first: what holds after the walk is what is said of the pair.
        tally = Tally(
            inspector.plan.pool_names, inspector.policy, inspector.lost_shards(), not inspector.peer_alive()
        )
        listed: list[dict[str, object]] = []
        active = inspector.role() == "ACTIVE"
        if active:
            listed = await self._walk(tally, limit)
        else:
            tally.total = tally.live = inspector.flow_gauges()["flows"]
        status: Mapping[str, Any] = inspector.status_result()
        sync = status["sync"]
        why_not = list(reasons(status, has_peer=core.has_peer, audit_s=core.sync.audit_s))
        answer: dict[str, object] = {
            "lossless": not why_not and not tally.dying and active == (status["role"] == "ACTIVE"),
            "pair": status["pair"],
            "node": status["node"],
            "role": status["role"],
            "peer": {key: status["peer"].get(key) for key in ("alive", "role", "ready")},
            "agreed_s": sync["audit"]["age_s"],
            "commit": sync["commit"]["mode"],
            "reasons": [reason._asdict() for reason in why_not],
            "warnings": [warning._asdict() for warning in warnings(status)],
            "sessions": tally.result(exact=active and bool(sync["committing"])),
        }
        if listing:
            answer["listed"] = listed
            answer["truncated"] = len(listed) < tally.dying
        return answer

    async def _walk(self, tally: Tally, limit: int) -> list[dict[str, object]]:
        listed: list[dict[str, object]] = []

        def dies(key: FateKey) -> bool:
            return tally.cause(key) is not None

        for page in self._inspector.fastpath.fates(PAGE):
            tally.add(page.counts())
            if len(listed) < limit:
                listed += self._listed(tally, page.records(dies), limit - len(listed))
            await asyncio.sleep(0)
        return listed

    def _listed(self, tally: Tally, records: Iterator[FlowRecord], room: int) -> Iterator[dict[str, object]]:
        for record in islice(records, room):
            key = FateKey(record.state, record.flags, record.shard, record.rule, record.pool, record.fate)
            code, name = tally.cause(key) or Why("")
            yield {**self._inspector.session(record), "why": code, "why_name": name or None}
