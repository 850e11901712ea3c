# SPDX-License-Identifier: Apache-2.0
"""``core_step()`` against the model of what may open a session: the same packets, rules and time to both.

Spec: R6, R10, R11; RFC 4787 REQ-1, REQ-8, REQ-9; RFC 6888 REQ-5, REQ-6, REQ-11.
"""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import IPv4Address, IPv4Network

import packets
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model.gateway_model import GRE, GatewayModel, Key, Session
from nat_node import NatNode, filtering_node
from packets import ECHO_REPLY, ECHO_REQUEST, ICMP, LAN, UDP, WAN, WAN_VIP, Packet

from flexha.fastpath import (
    Action,
    Filtering,
    FlowFlag,
    FlowState,
    Form,
    Forward,
    Limits,
    Out,
    Policy,
    Rule,
    Service,
    SteppedFrame,
)

CLIENTS, SERVERS, FLOODER = packets.CLIENTS[:3], packets.SERVERS[:2], packets.CLIENTS[3]
FORWARDS = (
    Forward(pool=0, external_port=53, inside=CLIENTS[1], inside_port=2001, proto=UDP),
    Forward(pool=0, external_port=54, inside=CLIENTS[2], inside_port=53, proto=UDP),
)
GUARD_S = 2.0
"""The wheel ticks every 134 ms; the model does not: keep away from the moment at which a session is due."""


def hosts(*addresses: IPv4Address) -> st.SearchStrategy[tuple[IPv4Network, ...]]:
    return st.sampled_from([(), (), *((IPv4Network(address),) for address in addresses)])


RULES = st.builds(
    Rule,
    st.sampled_from([Action.ALLOW, Action.ALLOW, Action.ALLOW, Action.DENY, Action.REJECT]),
    form=st.sampled_from([Form.SNAT, Form.NONE]),
    in_ports=st.sampled_from([(), (LAN,), (WAN,)]),
    src=hosts(*CLIENTS, *SERVERS),
    dst=hosts(*CLIENTS, *SERVERS),
    services=st.sampled_from(
        [(), (), (Service(UDP),), (Service(UDP, 53, 53), Service(ICMP)), (Service(ICMP),), (Service(GRE),)]
    ),
)
POLICIES = st.builds(
    Policy,
    st.one_of(st.just(()), st.lists(RULES, max_size=3).map(tuple)),
    st.lists(st.sampled_from(FORWARDS), max_size=2, unique=True).map(tuple),
    st.sampled_from([Action.ALLOW, Action.DENY]),
)
PROTOCOLS = st.sampled_from([UDP, UDP, UDP, ICMP, GRE])
KINDS = st.sampled_from([ECHO_REQUEST, ECHO_REQUEST, ECHO_REPLY])


def packet_of(
    proto: int, src: tuple[IPv4Address, int], dst: tuple[IPv4Address, int], kind: int = ECHO_REQUEST
) -> Packet:
    """Endpoints as a session has them; an identifier stands on either side of ICMP."""
    if proto == GRE:
        return Packet(GRE, src[0], dst[0], 0, payload=bytes(12))
    if proto == ICMP:
        return Packet(ICMP, src[0], dst[0], src[1] or dst[1], icmp_type=kind)
    return Packet(UDP, src[0], dst[0], src[1], dst[1])


class Gateway(RuleBasedStateMachine):
    """One node and the model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.booted = False

    def teardown(self) -> None:
        self.stack.close()

    @initialize(
        filtering=st.sampled_from(Filtering),
        limit=st.sampled_from([0, 0, 5]),
        size=st.sampled_from([(1, 64), (3, 4096)]),
        policy=POLICIES,
    )
    def boot(self, filtering: Filtering, limit: int, size: tuple[int, int], policy: Policy) -> None:
        limits = Limits(sessions_per_source=limit)
        self.node: NatNode = self.stack.enter_context(
            filtering_node(filtering, n_workers=size[0], flow_cap=size[1], limits=limits)
        )
        self.model = GatewayModel(filtering, limit, size[1], self._choices)
        self.model.expire(self.node.now_s)
        self.flooded = 0
        self.booted = True
        self.swap_policy(policy)

    def _choices(self) -> dict[Key, int]:
        return {
            (r.proto, (r.inside, r.inside_port), (r.remote, r.remote_port)): r.external_port  # type: ignore[misc]
            for r in self.node.flows()
        }

    # ---- packets ----
    @rule(
        proto=PROTOCOLS,
        src=st.sampled_from(CLIENTS),
        sport=st.sampled_from([2000, 2001, 53]),
        dst=st.sampled_from(SERVERS),
        dport=st.sampled_from([53, 9]),
        kind=KINDS,
    )
    def client_sends(
        self, proto: int, src: IPv4Address, sport: int, dst: IPv4Address, dport: int, kind: int
    ) -> None:
        sent = packet_of(proto, (src, sport), (dst, dport), kind)
        self._judge(sent, LAN)

    @precondition(lambda self: self._has_room_for_a_hairpin())
    @rule(
        data=st.data(),
        proto=PROTOCOLS,
        src=st.sampled_from(CLIENTS),
        sport=st.sampled_from([2000, 2001, 53]),
    )
    def client_sends_to_the_vip(self, data: st.DataObject, proto: int, src: IPv4Address, sport: int) -> None:
        dport = data.draw(st.sampled_from([53, 54, 3000, *self._external_ports()]))
        self._judge(packet_of(proto, (src, sport), (WAN_VIP, dport)), LAN)

    @rule(
        data=st.data(),
        proto=PROTOCOLS,
        src=st.sampled_from(SERVERS),
        sport=st.sampled_from([53, 9]),
        kind=KINDS,
    )
    def server_sends(self, data: st.DataObject, proto: int, src: IPv4Address, sport: int, kind: int) -> None:
        dst = data.draw(st.sampled_from([WAN_VIP, WAN_VIP, *CLIENTS]))
        dport = data.draw(st.sampled_from([53, 54, 2000, 2001, 3000, *self._external_ports()]))
        source = (src, 0 if proto == ICMP else sport)
        self._judge(packet_of(proto, source, (dst, dport), kind), WAN)

    @precondition(lambda self: self.booted and self.model.sessions)
    @rule(data=st.data(), by_inside=st.booleans())
    def session_goes_on(self, data: st.DataObject, by_inside: bool) -> None:
        session: Session = data.draw(
            st.sampled_from(sorted(self.model.sessions.values(), key=lambda s: s.key))
        )
        kind = ECHO_REQUEST if by_inside is not session.inbound else ECHO_REPLY
        if session.hairpin and not (by_inside and self._has_room_for_a_hairpin()):
            return
        if by_inside:
            self._judge(packet_of(session.proto, session.inside, session.remote, kind), LAN)
        else:
            self._judge(packet_of(session.proto, session.remote, session.external, kind), WAN)

    @rule(n=st.integers(5, 30))
    def flood(self, n: int) -> None:
        """One client opens many sessions that nobody answers."""
        self.time_passes(1)
        for _ in range(n):
            self.flooded += 1
            self._judge(Packet(UDP, FLOODER, SERVERS[0], 10000 + self.flooded, 9), LAN)

    def _has_room_for_a_hairpin(self) -> bool:
        """One packet makes two sessions: who made room for which of them could not be told."""
        return self.booted and len(self.model.sessions) + 2 <= self.model.cap

    def _external_ports(self) -> list[int]:
        return sorted({s.external[1] for s in self.model.sessions.values() if s.external[1] >= 1024})

    def _judge(self, sent: Packet, port: int) -> None:
        out = self.node.outbound(sent) if port == LAN else self.node.inbound(sent)
        verdict, seen = self.model.outbound(sent) if port == LAN else self.model.inbound(sent)
        assert out.verdict == verdict, f"{out.verdict}, not {verdict}: {sent}"
        if seen is None:
            assert (out.out is Out.WIRE) is verdict.endswith(("_sent", "_icmp", "_echo"))
            return
        assert (out.out, out.fenced) == (Out.WIRE, True)
        if verdict != "vip_echo":
            assert out.out_port == (LAN if port == WAN or verdict == "hairpin" else WAN)
            assert addresses(out, sent.proto) == addresses_of(seen)

    # ---- time and rules ----
    @rule(seconds=st.sampled_from([1, 30, 59, 100, 290]))
    def time_passes(self, seconds: int) -> None:
        then = self.model.now_s + seconds
        while any(abs(session.deadline_s - then) < GUARD_S for session in self.model.sessions.values()):
            then += GUARD_S
        self.node.wait(then - self.node.now_s)
        self.model.expire(then)

    @rule(policy=POLICIES)
    def swap_policy(self, policy: Policy) -> None:
        """Sessions that the new rules do not allow are closed."""
        before = len(self.model.sessions)
        self.node.fastpath.commit_policy(policy)
        closed = sum(self.node.fastpath.review_policy())
        self.model.review(policy)
        assert closed == before - len(self.model.sessions)

    # ---- what must hold ----
    @invariant()
    def table_is_the_models(self) -> None:
        if not self.booted:
            return
        records = self.node.flows()
        assert {
            (r.proto, (r.inside, r.inside_port), (r.remote, r.remote_port)): (
                (r.external, r.external_port),
                r.form,
                r.rule,
                bool(r.flags & FlowFlag.INBOUND),
                bool(r.flags & FlowFlag.HAIRPIN),
                r.state is FlowState.ESTABLISHED,
            )
            for r in records
        } == {
            key: (s.external, s.form, s.rule, s.inbound, s.hairpin, s.answered)
            for key, s in self.model.sessions.items()
        }
        assert len(records) == len(self.model.sessions)
        mapped = {
            (s.proto, s.inside)
            for s in self.model.sessions.values()
            if s.form is Form.SNAT and s.proto != GRE
        }
        assert self.node.mappings() == len(mapped)


def addresses(out: SteppedFrame, proto: int) -> tuple[object, ...]:
    if proto == GRE:
        ip = out.data[14:]
        return GRE, IPv4Address(ip[12:16]), IPv4Address(ip[16:20]), 0, 0, ip[8]
    return addresses_of(packets.parse(out.data))


def addresses_of(seen: Packet) -> tuple[object, ...]:
    return seen.proto, seen.src, seen.dst, seen.sport, seen.dport, seen.ttl


TestGateway = Gateway.TestCase
TestGateway.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
