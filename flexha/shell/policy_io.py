# SPDX-License-Identifier: Apache-2.0
"""Rules and forwards: put in force at the start and by ``reload``, and what is told of them.

A reload reads the pair's file again, checks all of it, and takes over ``policy``, ``rules`` and ``forwards``.
Anything else that has changed needs a restart: then nothing is applied, and the keys are named. Sessions that
the new rules would not open are closed, in pages, so that the loop goes on turning. While this node is not
ACTIVE its sessions are the peer's, opened by the peer's rules: each takeover looks at them, since this node's
rules need not be the same. Under the same rules it closes nothing.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from flexha.config.derive import NodePlan
from flexha.config.load import load
from flexha.config.policy import policy_of, protocols_of
from flexha.config.schema import Config, Rule
from flexha.config.values import PROTOCOLS
from flexha.core.events import Role
from flexha.errors import ConfigError
from flexha.fastpath import Fastpath, FastpathError, SessionLine
from flexha.shell import log
from flexha.shell.control import Args, RequestError, only
from flexha.shell.counters import Counters

LIVE = frozenset({"policy", "rules", "forwards"})
"""Tables of the file that may change while the daemon runs."""
REVIEW_PAGE = 1024
"""Sessions looked at between two turns of the loop; about a millisecond."""
CHANGED_SHOWN_MAX = 10
BUILT_IN = "default"
"""What rule 0 is called: ``policy.default``, forwards and filtering."""

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


class PolicyIo:
    """The policy in force on this node."""

    def __init__(
        self, fastpath: Fastpath, plan: NodePlan, config: Config, path: Path | None, counters: Counters
    ) -> None:
        self._fastpath = fastpath
        self._plan = plan
        self._config = config
        self._path = path
        self._counters = counters
        self._role = Role.INIT
        self._lock = asyncio.Lock()
        self._reviewing: asyncio.Task[None] | None = None

    # ---- life ----
    def start(self) -> None:
        """Put the file's policy in force, and warn of what a failover will cut."""
        self._fastpath.commit_policy(policy_of(self._config))
        for pool in self._plan.pools:
            if not pool.survives:
                log.warning(
                    "pool.does_not_survive",
                    pool=pool.name,
                    address=pool.address,
                    why="the address is this node's own: a failover ends the pool's sessions",
                )

    def stop(self) -> None:
        """Review no more."""
        if self._reviewing:
            self._reviewing.cancel()

    def collect(self) -> None:
        """Log what rules with ``log`` have decided."""
        for line in self._fastpath.session_log():
            log.info("session.opened" if line.opened else "session.refused", **self._fields(line))

    def role_set(self, role: Role) -> None:
        """Who takes over goes through the sessions that the peer has opened."""
        took_over = role is Role.ACTIVE and self._role is not Role.ACTIVE
        self._role = role
        if took_over:
            self.stop()
            self._reviewing = asyncio.get_running_loop().create_task(self._review_inherited())

    # ---- reload ----
    async def reload(self, args: Args) -> str:
        """Read the file again, and take over what may change while the daemon runs."""
        only(args)
        if self._path is None:
            raise RequestError("the daemon was started without a file; restart it")
        if self._lock.locked():
            raise RequestError("another reload is under way; wait for it")
        async with self._lock:
            try:
                config = await asyncio.to_thread(load, self._path)
            except ConfigError as error:
                self._counters.add("reload.refused")
                raise RequestError(f"nothing was applied: {error}") from error
            if changed := list(changes(self._config, config)):
                self._counters.add("reload.refused")
                raise RequestError(
                    f"nothing was applied: {_listed(changed)} changed, which needs a restart of flexhad; "
                    "restart it, or undo the change and reload"
                )
            return json.dumps(await self._apply(config))

    async def _apply(self, config: Config) -> Mapping[str, object]:
        policy = policy_of(config, [rule.name for rule in self._config.rules])
        self.collect()  # while the numbers of rules still have their names
        try:
            self._fastpath.commit_policy(policy)
        except FastpathError as error:
            if error.errno != errno.ETIMEDOUT:
                raise RequestError(f"nothing was applied: {error}") from error
            # Some workers have the new rules, some the old ones, and none can be asked any more.
            message = "workers do not answer"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
            raise RequestError(f"{message}: this node stops forwarding and ends; restart it") from error
        self._config = config
        self.stop()  # of what was inherited: this looks at everything
        closed = await self._review()
        result = {
            "rules": len(config.rules),
            "forwards": len(config.forwards),
            "default": config.policy.default,
            "closed": closed or 0,
            "reviewed": closed is not None,
        }
        self._counters.add("reload.applied")
        log.info("policy.reloaded", **result)
        return result

    async def _review(self) -> int | None:
        """How many sessions were closed; None: this node is not ACTIVE."""
        closed = 0
        if self._role is not Role.ACTIVE:
            return None
        try:
            for page in self._fastpath.review_policy(REVIEW_PAGE):
                closed += page
                self._counters.add("policy.sessions_closed", page)
                await asyncio.sleep(0)
        except FastpathError:
            return None  # the role went meanwhile
        return closed

    async def _review_inherited(self) -> None:
        closed = await self._review()
        if closed is not None:
            log.event(logging.INFO if closed else logging.DEBUG, "policy.reviewed", closed=closed)

    # ---- what is shown ----
    def rule_name(self, number: int) -> str | None:
        """Name of a rule by its number."""
        if number == 0:
            return BUILT_IN
        rule = self._rule(number)
        return rule.name if rule else None

    def commit_of(self, number: int) -> str:
        """``commit`` of a rule's sessions."""
        rule = self._rule(number)
        return (rule and rule.commit) or self._config.sync.commit

    def sync_of(self, number: int) -> str:
        """``sync`` of a rule's sessions: now, no or after SECONDS."""
        rule = self._rule(number)
        return str(rule.sync) if rule and rule.sync else "now"

    def _rule(self, number: int) -> Rule | None:
        return self._config.rules[number - 1] if 0 < number <= len(self._config.rules) else None

    async def rules(self, args: Args) -> str:
        """Rules with their hits, in their order, and forwards."""
        only(args)
        return json.dumps(self.rules_result())

    def rules_result(self) -> dict[str, Any]:
        """``rules`` as plain data."""
        hits = self._fastpath.policy_hits()
        return {
            "rules": [
                {"number": number, "hits": hits[number], **_shown(rule)}
                for number, rule in enumerate(self._config.rules, 1)
            ],
            "default": {"action": self._config.policy.default, "hits": hits[0]},
            "forwards": [
                {
                    "name": forward.name,
                    "pool": forward.pool,
                    "proto": [_PROTOCOL_NAMES[proto] for proto in protocols_of(forward)],
                    "ports": [str(ports) for ports in forward.ports],
                    "to": str(forward.to),
                    "to_port": forward.to_port or forward.ports[0].lo,
                }
                for forward in self._config.forwards
            ],
        }

    async def pools(self, args: Args) -> str:
        """Pools with the ports that are in use."""
        only(args)
        return json.dumps({"pools": self.pools_result()})

    def pools_result(self) -> list[dict[str, Any]]:
        """``pools`` as plain data."""
        return [
            {
                "name": pool.name,
                "port": pool.port,
                "address": str(pool.address),
                "port_lo": pool.port_lo,
                "port_hi": pool.port_hi,
                "in_use": {"tcp": use.tcp, "udp": use.udp, "icmp": use.icmp},
                "filtering": pool.filtering,
                "survives": pool.survives,
            }
            for pool, use in zip(self._plan.pools, self._fastpath.pool_use(), strict=True)
        ]

    def _fields(self, line: SessionLine) -> dict[str, object]:
        names = self._plan.port_names
        fields: dict[str, object] = {
            "rule": self.rule_name(line.rule),
            "proto": _PROTOCOL_NAMES.get(line.proto, str(line.proto)),
            "source": _endpoint(line.source, line.sport),
            "destination": _endpoint(line.destination, line.dport),
            "from": names[line.in_port],
            "to": names[line.out_port],
        }
        if line.external is not None:
            fields["external"] = _endpoint(line.external, line.external_port)
        if not line.opened:
            fields["verdict"] = line.verdict
        return fields


def changes(old: Config, new: Config) -> Iterator[str]:
    """Keys that differ and may not do so while the daemon runs."""
    before, after = (
        config.model_dump(mode="json", by_alias=True, exclude=set(LIVE)) for config in (old, new)
    )
    yield from _differing(before, after, "")


def _differing(old: object, new: object, path: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            yield from _differing(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differing(a, b, f"{path}[{index}]")
    elif old != new:
        yield path


def _listed(keys: list[str]) -> str:
    more = len(keys) - CHANGED_SHOWN_MAX
    return ", ".join(keys[:CHANGED_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")


def _shown(rule: Rule) -> dict[str, object]:
    """A rule as it stands in the file; what it does not name is left out."""
    shown = rule.model_dump(
        mode="json", by_alias=True, exclude_defaults=True, exclude={"ports", "sport", "proto", "sync"}
    )
    if protocols := protocols_of(rule):
        shown["proto"] = [_PROTOCOL_NAMES.get(proto, str(proto)) for proto in protocols]
    if rule.ports:
        shown["ports"] = [str(ports) for ports in rule.ports]
    if rule.sport:
        shown["sport"] = str(rule.sport)
    if rule.sync:
        shown["sync"] = str(rule.sync)
    return shown


def _endpoint(address: IPv4Address | IPv6Address, port: int) -> str:
    if port == 0:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
