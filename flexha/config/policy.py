# SPDX-License-Identifier: Apache-2.0
"""From rules and forwards as people write them to those of the fast path, with indices instead of names.

Rules are numbered from 1 in the order of the file; sessions carry that number, 0 is the built-in rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from flexha.config.schema import Config, Forward, Port, Rule
from flexha.config.values import NO_NAT, PROTOCOLS
from flexha.fastpath import records as fp

_ACTIONS = {"allow": fp.Action.ALLOW, "deny": fp.Action.DENY, "reject": fp.Action.REJECT}
COMMIT = {"async": fp.Commit.ASYNC, "bounded": fp.Commit.BOUNDED, "strict": fp.Commit.STRICT}
_FILTERS = {"now": fp.SyncFilter.NOW, "no": fp.SyncFilter.NO, "after": fp.SyncFilter.AFTER}
_FORWARD_DEFAULT = (PROTOCOLS["tcp"],)
_PORTS_DEFAULT = (PROTOCOLS["tcp"], PROTOCOLS["udp"])


def protocols_of(entry: Rule | Forward) -> tuple[int, ...]:
    """Protocols of a rule or forward; none: any."""
    if isinstance(entry, Forward):
        return entry.proto or _FORWARD_DEFAULT
    return entry.proto or (_PORTS_DEFAULT if entry.ports or entry.sport else ())


def port_names_of(names: Iterable[str] | None, ports: Mapping[str, Port]) -> tuple[str, ...]:
    """The ports that names of ports and zones mean. A port may be called like a zone: then it is meant."""
    wanted = set(names or ())
    return tuple(
        name
        for name, port in sorted(ports.items())
        if name in wanted or (port.zone in wanted and port.zone not in ports)
    )


def forward_ports(forward: Forward) -> Iterator[tuple[int, int, int]]:
    """Protocol, external port and inside port of each pair that a forward stands for."""
    for proto in protocols_of(forward):
        for ports in forward.ports:
            to = ports.lo if forward.to_port is None else forward.to_port
            for offset in range(ports.hi - ports.lo + 1):
                yield proto, ports.lo + offset, to + offset


def _rule(config: Config, rule: Rule, was: int) -> fp.Rule:
    order = sorted(config.ports)
    pools = [pool.name for pool in config.pools]
    untranslated = rule.nat == (NO_NAT,)
    in_ports, out_ports = (
        tuple(order.index(name) for name in port_names_of(names, config.ports))
        for names in (rule.from_, rule.to)
    )
    protocols = protocols_of(rule)
    ranges = [(ports.lo, ports.hi) for ports in rule.ports or ()] or [(0, 65535)]
    return fp.Rule(
        action=_ACTIONS[rule.action],
        form=fp.Form.NONE if untranslated else fp.Form.SNAT,
        log=rule.log,
        in_ports=in_ports,
        out_ports=out_ports,
        pools=() if untranslated else tuple(pools.index(name) for name in rule.nat or ()),
        src=rule.src or (),
        dst=rule.dst or (),
        services=tuple(fp.Service(proto, lo, hi) for proto in protocols for lo, hi in ranges),
        sport_lo=rule.sport.lo if rule.sport else 0,
        sport_hi=rule.sport.hi if rule.sport else 65535,
        max_per_source=rule.sessions_per_source or 0,
        was=was,
        commit=None if rule.commit is None else COMMIT[rule.commit],
        sync=_FILTERS[rule.sync.kind] if rule.sync else fp.SyncFilter.NOW,
        sync_after_s=rule.sync.after_s if rule.sync else 0,
    )


def policy_of(config: Config, before: Sequence[str] = ()) -> fp.Policy:
    """What the fast path is told. ``before``: names of the rules in force, whose hits go on by name."""
    numbers = {name: number for number, name in enumerate(before, 1)}
    pools = [pool.name for pool in config.pools]
    return fp.Policy(
        rules=tuple(_rule(config, rule, numbers.get(rule.name, 0)) for rule in config.rules),
        forwards=tuple(
            fp.Forward(pools.index(forward.pool), external, forward.to, inside, proto)
            for forward in config.forwards
            for proto, external, inside in forward_ports(forward)
        ),
        default_outbound=fp.Action.ALLOW if config.policy.default == "allow-outbound" else fp.Action.DENY,
    )
