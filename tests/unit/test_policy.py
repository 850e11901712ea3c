# SPDX-License-Identifier: Apache-2.0
"""Rules and forwards in the fast path: the compiled lookup against a search that anybody can read."""

from __future__ import annotations

import errno
import random
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import packets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flexha.fastpath import (
    Action,
    Address,
    Fastpath,
    FastpathError,
    Forward,
    Policy,
    Rule,
    Service,
    marshal,
)
from flexha.fastpath.records import Network

TCP, UDP, ICMP, GRE = 6, 17, 1, 47
ADDRESSES = [
    IPv4Address(text)
    for text in ("0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.1.1", "10.1.0.0", "255.255.255.255")
] + [IPv6Address(text) for text in ("::", "2001:db8::1", "2001:db8::2", "2001:db8:1::1", "ffff::ffff")]
PORTS = [0, 1, 79, 80, 81, 8080, 65534, 65535]


@pytest.fixture(scope="module")
def fastpath() -> Iterator[Fastpath]:
    with Fastpath(packets.node_config(0)) as node:
        yield node


# ---- the oracle --------------------------------------------------------------------------------------
def bits(address: Address) -> int:
    return int.from_bytes(marshal.addr_bytes(address))


def holds(networks: tuple[Network, ...], address: Address) -> bool:
    """In the 128-bit form: ::/0 holds IPv4, too."""
    return not networks or any(
        (bits(net.network_address) ^ bits(address))
        >> (128 - marshal.mapped_plen(net.network_address, net.prefixlen))
        == 0
        for net in networks
    )


def first_match(
    policy: Policy, src: Address, dst: Address, proto: int, sport: int, dport: int, ports: tuple[int, int]
) -> int:
    for number, rule in enumerate(policy.rules, 1):
        services = rule.services or (Service(0),)
        if (
            holds(rule.src, src)
            and holds(rule.dst, dst)
            and any(s.proto in {0, proto} and s.port_lo <= dport <= s.port_hi for s in services)
            and rule.sport_lo <= sport <= rule.sport_hi
            and (not rule.in_ports or ports[0] in rule.in_ports)
            and (not rule.out_ports or ports[1] in rule.out_ports)
        ):
            return number
    return 0


def networks_of(address: Address) -> st.SearchStrategy[Network]:
    if isinstance(address, IPv4Address):
        return st.integers(0, 32).map(lambda plen: IPv4Network((address, plen), strict=False))
    return st.integers(0, 128).map(lambda plen: IPv6Network((address, plen), strict=False))


lists = st.lists(st.sampled_from(ADDRESSES).flatmap(networks_of), max_size=3).map(tuple)
ranges = st.tuples(st.sampled_from(PORTS), st.sampled_from(PORTS)).map(lambda pair: tuple(sorted(pair)))
services = st.one_of(
    st.just(Service(0)),
    st.builds(lambda proto, r: Service(proto, *r), st.sampled_from([ICMP, TCP, UDP, GRE]), ranges),
)
port_sets = st.sampled_from([(), (0,), (1,), (0, 1)])


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    sport_lo, sport_hi = draw(st.one_of(st.just((0, 65535)), ranges))
    return Rule(
        draw(st.sampled_from(Action)),
        in_ports=draw(port_sets),
        out_ports=draw(port_sets),
        src=draw(lists),
        dst=draw(lists),
        services=draw(st.lists(services, max_size=2).map(tuple)),
        sport_lo=sport_lo,
        sport_hi=sport_hi,
    )


@settings(max_examples=60, deadline=None)
@given(policy_rules=st.lists(rules(), max_size=20), seed=st.integers(0, 1 << 32))
def test_first_match_decides(fastpath: Fastpath, policy_rules: list[Rule], seed: int) -> None:
    """Spec: R11. The lookup finds the rule that a look at one after the other finds."""
    policy = Policy(rules=tuple(policy_rules))
    fastpath.commit_policy(policy)
    rng = random.Random(seed)
    for _ in range(40):
        src, dst = rng.choice(ADDRESSES), rng.choice(ADDRESSES)
        proto = rng.choice([ICMP, TCP, UDP, GRE, 255])
        sport, dport, ports = rng.choice(PORTS), rng.choice(PORTS), (rng.randrange(2), rng.randrange(2))
        got = fastpath.test_policy(
            src, dst, proto=proto, sport=sport, dport=dport, in_port=ports[0], out_port=ports[1]
        )
        assert got == first_match(policy, src, dst, proto, sport, dport, ports)


# ---- the snapshot ------------------------------------------------------------------------------------
def test_a_list_within_a_rule_is_one_rule(fastpath: Fastpath) -> None:
    nets = tuple(IPv4Network((i << 8, 24)) for i in range(0, 4000, 2))
    fastpath.commit_policy(Policy((Rule(Action.DENY, src=nets), Rule(Action.ALLOW))))
    found = [fastpath.test_policy(IPv4Address(i << 8), ADDRESSES[0], proto=TCP) for i in range(6)]
    assert found == [1, 2, 1, 2, 1, 2]


def test_swapped_under_running_workers() -> None:
    """Spec: R11. A new snapshot is used once the call returns, and the old one is freed."""
    with Fastpath(packets.node_config(0)) as node:
        node.start()
        for n in (1, 300, 0, 2):
            node.commit_policy(Policy(tuple(Rule(Action.DENY, in_ports=(1,)) for _ in range(n))))
            assert node.policy_hits() == [0] * (n + 1)


def test_largest_policy(fastpath: Fastpath) -> None:
    many = tuple(Rule(Action.ALLOW, src=(IPv4Network((i, 32)),)) for i in range(4096))
    fastpath.commit_policy(Policy(many))
    assert fastpath.test_policy(IPv4Address(4095), ADDRESSES[0], proto=TCP) == 4096
    with pytest.raises(FastpathError, match="n_rules") as caught:
        fastpath.commit_policy(Policy((*many, Rule(Action.ALLOW))))
    assert caught.value.errno == errno.EINVAL
    assert fastpath.test_policy(IPv4Address(4095), ADDRESSES[0], proto=TCP) == 4096, "the old one stays"


def test_two_forwards_of_one_port_are_refused(fastpath: Fastpath) -> None:
    """Spec: R11."""
    forward = Forward(pool=0, external_port=80, inside=IPv4Address("10.0.0.1"), inside_port=80, proto=TCP)
    with pytest.raises(FastpathError, match=r"forwards\[1\].external_port: 80"):
        fastpath.commit_policy(Policy(forwards=(forward, forward)))


def test_ports_of_any_protocol_are_refused(fastpath: Fastpath) -> None:
    with pytest.raises(FastpathError, match=r"services\[0\]"):
        fastpath.commit_policy(Policy((Rule(Action.ALLOW, services=(Service(0, 80, 80),)),)))
