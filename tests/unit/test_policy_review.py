# SPDX-License-Identifier: Apache-2.0
"""A review closes what the new policy would not open as it is, and nothing else.

The oracle is the packet path itself: a node that has only ever known the new policy gets the same openers.
A session must live through the review if, and only if, that node opens it with the same translation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import packets
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nat_node import ACTIVE, NatNode
from packets import ICMP, LAN, SYN, TCP, UDP, WAN, Packet

from flexha.fastpath import (
    Action,
    Address,
    Driver,
    Fastpath,
    FastpathConfig,
    Filtering,
    FlowFlag,
    FlowRecord,
    Form,
    Forward,
    Neighbour,
    Policy,
    PoolConfig,
    PortConfig,
    Route,
    Rule,
    Service,
    Zone,
)

DMZ = 2
GRE, ESP, SCTP, OSPF = 47, 50, 132, 89
DMZ_MAC, DMZ_VMAC = bytes.fromhex("020000000030"), bytes.fromhex("00005e000135")
CLIENT, OTHER = packets.CLIENTS[0], packets.CLIENTS[1]
SERVER = IPv4Address("10.2.0.80")
REMOTE, STRANGER = packets.SERVERS[0], packets.SERVERS[1]
SECOND = packets.WAN_VIP + 3


def config() -> FastpathConfig:
    """The lab's node with a second inside port and a second pool address."""
    base = packets.node_config(0, heartbeats=False)
    dmz = PortConfig(
        name="dmz",
        zone=Zone.INSIDE,
        address=IPv4Address("10.2.0.2"),
        plen=24,
        mac=bytes.fromhex("02fc00000002"),
        driver=Driver.MEM,
        vrid=53,
        vmac=DMZ_VMAC,
        vips=(IPv4Address("10.2.0.1"),),
    )
    vip = replace(base.pools[0], port_hi=32000, filtering=Filtering.EIF)
    second = PoolConfig(name="second", address=SECOND, out_port=WAN)
    high = replace(vip, name="high", port_lo=40000, port_hi=50000)
    return replace(base, ports=(*base.ports, dmz), pools=(vip, second, high))


@contextmanager
def node(policy: Policy) -> Iterator[NatNode]:
    with Fastpath(config()) as fastpath:
        under_test = NatNode(fastpath)
        under_test.wait(0)
        fastpath.set_role(ACTIVE, 2)
        fastpath.commit_fib(
            (*packets.ROUTES, Route(IPv4Address("10.2.0.0"), 24, DMZ)),
            (*packets.NEIGHBOURS, Neighbour(SERVER, DMZ_MAC, DMZ)),
        )
        fastpath.commit_policy(policy)
        yield under_test


# ---- openers: (packet, port that it comes in by) -------------------------------------------------------
OPENERS = [
    (Packet(TCP, CLIENT, REMOTE, 40000, 80, flags=SYN), LAN),
    (Packet(TCP, OTHER, REMOTE, 40000, 443, flags=SYN), LAN),
    (Packet(UDP, CLIENT, STRANGER, 5353, 53, payload=b"x"), LAN),
    (Packet(ICMP, CLIENT, REMOTE, 77), LAN),
    (Packet(GRE, OTHER, STRANGER, 0, payload=bytes(8)), LAN),
    (Packet(ESP, CLIENT, STRANGER, 0, payload=bytes(8)), LAN),
    (Packet(SCTP, CLIENT, STRANGER, 0, payload=bytes(16)), LAN),
    (Packet(OSPF, CLIENT, STRANGER, 0, payload=bytes(8)), LAN),
    (Packet(TCP, CLIENT, SERVER, 40001, 80, flags=SYN), LAN),
    (Packet(UDP, SERVER, CLIENT, 500, 500, payload=b"x"), DMZ),
    (Packet(UDP, SERVER, REMOTE, 53, 53, payload=b"x"), DMZ),
    (Packet(TCP, REMOTE, packets.WAN_VIP, 30000, 80, flags=SYN), WAN),
    (Packet(UDP, REMOTE, packets.WAN_VIP, 30001, 53, payload=b"x"), WAN),
    (Packet(TCP, REMOTE, SERVER, 30002, 8080, flags=SYN), WAN),
    (Packet(UDP, STRANGER, CLIENT, 30003, 53, payload=b"x"), WAN),
    (Packet(TCP, OTHER, packets.WAN_VIP, 40002, 80, flags=SYN), LAN),
]
MACS = {LAN: (packets.VMACS[LAN], packets.CLIENT_MAC), WAN: (packets.VMACS[WAN], packets.ISP_MAC)}
MACS[DMZ] = (DMZ_VMAC, DMZ_MAC)

Key = tuple[int, Address, int, Address, int]


def open_all(under_test: NatNode) -> None:
    for packet, port in OPENERS:
        under_test.step(packet.frame(*MACS[port]), port)


def translations(records: Iterable[FlowRecord]) -> dict[Key, tuple[object, ...]]:
    """Sessions and what was decided; the outer half of a hairpin has a random port, and no rule."""
    return {
        (record.proto, record.inside, record.inside_port, record.remote, record.remote_port): (
            record.form,
            record.pool,
            record.rule,
            record.external_port if record.form is Form.STATIC else None,
        )
        for record in records
        if not (record.flags & FlowFlag.HAIRPIN and record.flags & FlowFlag.INBOUND)
    }


# ---- policies ------------------------------------------------------------------------------------------
def nets(*addresses: IPv4Address) -> st.SearchStrategy[tuple[IPv4Network, ...]]:
    return st.lists(st.sampled_from([IPv4Network(a) for a in addresses]), max_size=2, unique=True).map(tuple)


services = st.one_of(
    st.sampled_from([Service(TCP), Service(UDP), Service(ICMP), Service(GRE), Service(ESP), Service(OSPF)]),
    st.sampled_from([Service(TCP, 80, 80), Service(TCP, 81, 9000), Service(UDP, 53, 53)]),
)
ports = st.sampled_from([(), (), (LAN,), (WAN,), (DMZ,), (LAN, DMZ)])
rules = st.builds(
    Rule,
    st.sampled_from([Action.ALLOW, Action.ALLOW, Action.ALLOW, Action.DENY]),
    form=st.sampled_from([Form.SNAT, Form.SNAT, Form.NONE]),
    in_ports=ports,
    out_ports=ports,
    pools=st.sampled_from([(), (0,), (1,), (2,), (0, 1), (0, 2)]),
    src=nets(CLIENT, OTHER, SERVER, REMOTE, STRANGER),
    dst=nets(CLIENT, SERVER, REMOTE, STRANGER, packets.WAN_VIP),
    services=st.lists(services, max_size=2).map(tuple),
)
FORWARDS = [
    Forward(pool=0, external_port=80, inside=SERVER, inside_port=8080, proto=TCP),
    Forward(pool=2, external_port=53, inside=SERVER, inside_port=53, proto=UDP),
    Forward(pool=0, external_port=81, inside=CLIENT, inside_port=40000, proto=TCP),
]
policies = st.builds(
    Policy,
    st.lists(rules, max_size=5).map(tuple),
    st.lists(st.sampled_from(FORWARDS), max_size=3, unique=True).map(tuple),
    st.sampled_from([Action.ALLOW, Action.DENY]),
)
ALL = Policy((Rule(Action.ALLOW, form=Form.NONE, in_ports=(WAN,)), Rule(Action.ALLOW)), tuple(FORWARDS))


@settings(max_examples=100, deadline=None)
@given(old=policies, new=policies)
@example(old=ALL, new=ALL)
@example(old=ALL, new=Policy())
@example(old=Policy(), new=Policy((Rule(Action.ALLOW),)))
@example(old=Policy((Rule(Action.ALLOW, services=(Service(OSPF),)),)), new=Policy((Rule(Action.ALLOW),)))
@example(old=Policy(forwards=tuple(FORWARDS)), new=Policy(forwards=tuple(FORWARDS[1:])))
@example(old=ALL, new=replace(ALL, default_outbound=Action.DENY, rules=()))
def test_what_the_new_policy_would_open_alike_lives_on(old: Policy, new: Policy) -> None:
    """Spec: R11."""
    with node(old) as under_test, node(new) as fresh:
        open_all(under_test)
        before = translations(under_test.fastpath.flows())
        open_all(fresh)
        wanted = translations(fresh.fastpath.flows())
        under_test.fastpath.commit_policy(new)
        list(under_test.fastpath.review_policy())
        after = translations(under_test.fastpath.flows())
        for key, (form, pool, _, external) in before.items():
            opened = wanted.get(key)
            alike = opened is not None and (opened[0], opened[1], opened[3]) == (form, pool, external)
            assert (key in after) is alike, f"{key}: {before[key]} -> {after.get(key)}, fresh: {opened}"
            if opened is not None and alike:
                assert after[key] == opened, "with the number of the rule that allows it now"


@settings(max_examples=50, deadline=None)
@given(policy=policies)
@example(policy=ALL)
def test_a_review_under_the_same_policy_closes_nothing(policy: Policy) -> None:
    """Spec: R11."""
    with node(policy) as under_test:
        open_all(under_test)
        before = under_test.fastpath.worker_stats(0).flows
        assert sum(under_test.fastpath.review_policy()) == 0
        assert under_test.fastpath.worker_stats(0).flows == before


def test_review_reaches_the_sessions_of_every_worker() -> None:
    with Fastpath(replace(config(), n_workers=3)) as fastpath:
        under_test = NatNode(fastpath)
        for worker in range(3):
            fastpath.test_expire(under_test.now_ns, worker)
        fastpath.set_role(ACTIVE, 2)
        fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
        for port in range(100):
            under_test.send(Packet(UDP, CLIENT, REMOTE, 2000 + port, 53, payload=b"x"))
        assert min(fastpath.worker_stats(worker).flows for worker in range(3)) > 10
        fastpath.commit_policy(Policy((Rule(Action.DENY, services=(Service(UDP, 53, 53),)),)))
        assert list(fastpath.review_policy(page=7)) != []
        assert [fastpath.worker_stats(worker).flows for worker in range(3)] == [0, 0, 0]


def test_seen_from_outside_a_server_is_its_forward() -> None:
    """An answer cannot tell whether its session is translated, so there is no session beside the forward."""
    policy = replace(ALL, forwards=tuple(FORWARDS[:1]))
    with node(policy) as under_test:
        direct = replace(OPENERS[11][0], dst=SERVER, dport=8080)
        assert under_test.inbound(direct).verdict == "outside_denied"
        assert under_test.inbound(replace(direct, dport=8081)).verdict == "routed"


# ---- what is counted and logged --------------------------------------------------------------------------
def test_hits_and_lines_of_rules() -> None:
    """Spec: R11. What each rule decided, and lines for those with ``log``."""
    web, dns = OPENERS[0][0], OPENERS[2][0]
    policy = Policy(
        (
            Rule(Action.ALLOW, services=(Service(TCP, 80, 80),), log=True, pools=(1,)),
            Rule(Action.REJECT, services=(Service(UDP),), log=True),
            Rule(Action.DENY, src=(IPv4Network(OTHER),)),
        )
    )
    with node(policy) as under_test:
        under_test.send(web)
        under_test.send(web)  # of a session: no rule is asked
        assert under_test.outbound(dns).verdict == "rejected_icmp"
        assert under_test.outbound(OPENERS[1][0]).verdict == "rule_denied"
        under_test.send(OPENERS[3][0])
        assert under_test.fastpath.policy_hits() == [1, 1, 1, 1]
        opened, refused = under_test.fastpath.session_log()
        assert under_test.fastpath.session_log() == []
        under_test.fastpath.commit_policy(Policy((replace(policy.rules[1], was=2), Rule(Action.ALLOW))))
        assert under_test.fastpath.policy_hits() == [1, 1, 0], "the second rule is the first one now"
    assert (opened.opened, opened.rule, opened.verdict, opened.proto) == (True, 1, "snat", TCP)
    assert (opened.source, opened.sport) == (CLIENT, 40000)
    assert (opened.destination, opened.dport) == (REMOTE, 80)
    assert (opened.external, opened.in_port, opened.out_port) == (SECOND, LAN, WAN)
    assert opened.external_port >= 1024
    assert (refused.opened, refused.rule, refused.verdict) == (False, 2, "rejected_icmp")
    assert refused.external is None


def test_openers_reach_every_case() -> None:
    """The test above would show little without sessions of each form and direction."""
    with node(ALL) as under_test:
        open_all(under_test)
        cases = {
            (record.form, bool(record.flags & FlowFlag.INBOUND), bool(record.flags & FlowFlag.HAIRPIN))
            for record in under_test.fastpath.flows()
        }
    assert {
        (Form.SNAT, False, False),
        (Form.SNAT, False, True),
        (Form.STATIC, True, False),
        (Form.STATIC, True, True),
        (Form.STATIC, False, False),
        (Form.NONE, True, False),
        (Form.NONE, False, False),
    } <= cases, cases
