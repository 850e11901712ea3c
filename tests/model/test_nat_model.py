# SPDX-License-Identifier: Apache-2.0
"""``core_step()`` against the model: the same packets, time and failovers to both, and the same outcome.

Spec: R6, R7, R10, R13, R19, R20, R21.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from ipaddress import IPv4Address

import packets
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model.nat_model import IN, OUT, Expected, NatModel, port_is_allowed
from nat_node import ACTIVE, PASSIVE, NatNode, nat_node
from packets import ACK, FIN, ICMP, LAN, RST, SYN, TCP, UDP, WAN, Packet

from flexha.core.shards import ALL as ALL_SHARDS
from flexha.core.shards import members
from flexha.fastpath import Digests, Out, SteppedFrame

CLIENT_ISN, SERVER_ISN = 1_000, 7_000
BATCH = 16
ROUNDS = 3
"""Of the tour, each ``REFRESH_S``: behind them the peer knows the windows of whoever had traffic."""
REFRESH_S = 1
GUARD_S = 2.0
"""The wheel ticks every 134 ms; the model does not: keep away from the moment at which a session is due."""

PROTOCOLS = st.sampled_from([TCP, UDP, ICMP])
CLIENTS = st.sampled_from(packets.CLIENTS[:2])
SERVERS = st.sampled_from(packets.SERVERS[:2])
CLIENT_PORTS = st.sampled_from([2000, 2001, 2002])
SERVER_PORTS = st.sampled_from([53, 80])
CLIENT_FLAGS = st.sampled_from([SYN, ACK, FIN | ACK, RST | ACK])
SERVER_FLAGS = st.sampled_from([SYN | ACK, ACK, FIN | ACK, RST | ACK, SYN])


def rows(digests: Digests) -> dict[int, tuple[bytes, bytes]]:
    """By shard: its sum and its count."""
    return {
        shard: (digests.sums[8 * i : 8 * i + 8], digests.counts[4 * i : 4 * i + 4])
        for i, shard in enumerate(members(digests.shards))
    }


class Pair(RuleBasedStateMachine):
    """Two nodes, one ACTIVE; the model is of the pair."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.model = NatModel()
        self.synced = NatModel()
        self.now_s = 1000.0
        self.term = 2
        self.nodes: list[NatNode] = []
        self.active = 0
        self.boots = 0

    def teardown(self) -> None:
        self.stack.close()

    @initialize(n_workers=st.sampled_from([(1, 1), (1, 3), (2, 1)]))
    def boot(self, n_workers: tuple[int, int]) -> None:
        self.n_workers = n_workers
        self.nodes = [self._boot(0, ACTIVE), self._boot(1, PASSIVE)]
        self.node.fastpath.track_changes(on=True)

    def _boot(self, index: int, role: int) -> NatNode:
        config = packets.node_config(index)
        self.boots += 1  # ids never recur: each start has a range of its own
        config = replace(
            config,
            sync=replace(config.sync, refresh_s=REFRESH_S),
            flow_id_base=config.flow_id_base + (self.boots << 32),
        )
        return self.stack.enter_context(
            nat_node(config, role=role, term=self.term, n_workers=self.n_workers[index])
        )

    @property
    def node(self) -> NatNode:
        return self.nodes[self.active]

    @property
    def peer(self) -> NatNode:
        return self.nodes[1 - self.active]

    # ---- packets ----
    @rule(
        proto=PROTOCOLS, src=CLIENTS, dst=SERVERS, sport=CLIENT_PORTS, dport=SERVER_PORTS, flags=CLIENT_FLAGS
    )
    def client_sends(
        self, proto: int, src: IPv4Address, dst: IPv4Address, sport: int, dport: int, flags: int
    ) -> None:
        packet = Packet(proto, src, dst, sport, 0 if proto == ICMP else dport, flags, payload=b"data")
        if proto == TCP:
            flow = self.model.flow_of((proto, src, sport), (dst, dport))
            packet = self._in_sequence(packet, CLIENT_ISN, SERVER_ISN, bool(flow and flow.fin[IN]))
        out = self.node.outbound(packet)
        self._judge(out, packet, self.model.outbound(packet, self.now_s))

    @precondition(lambda self: self.model.mappings)
    @rule(data=st.data(), src=SERVERS, sport=SERVER_PORTS, flags=SERVER_FLAGS)
    def server_sends(self, data: st.DataObject, src: IPv4Address, sport: int, flags: int) -> None:
        inside, mapping = data.draw(st.sampled_from(sorted(self.model.mappings.items(), key=lambda m: m[0])))
        proto = inside[0]
        if proto == ICMP:
            packet = Packet(ICMP, src, packets.WAN_VIP, mapping.port, icmp_type=packets.ECHO_REPLY)
        else:
            packet = Packet(proto, src, packets.WAN_VIP, sport, mapping.port, flags)
        if proto == TCP:
            flow = self.model.flow_of(inside, (src, sport))
            packet = self._in_sequence(packet, SERVER_ISN, CLIENT_ISN, bool(flow and flow.fin[OUT]))
        out = self.node.inbound(packet)
        self._judge(out, packet, self.model.inbound(packet, self.now_s))

    @rule(proto=PROTOCOLS, src=SERVERS, port=st.integers(1024, 65535))
    def stranger_sends(self, proto: int, src: IPv4Address, port: int) -> None:
        packet = (
            Packet(ICMP, src, packets.WAN_VIP, port, icmp_type=packets.ECHO_REPLY)
            if proto == ICMP
            else Packet(proto, src, packets.WAN_VIP, 9, port, ACK)
        )
        self._judge(self.node.inbound(packet), packet, self.model.inbound(packet, self.now_s))

    def _in_sequence(self, packet: Packet, own_isn: int, other_isn: int, fin: bool) -> Packet:
        """Numbers that a connection without data has: all of it is in the window, each ACK covers the FIN."""
        seq = own_isn if packet.flags & SYN else own_isn + 1
        acknowledged = other_isn + 1 if packet.flags & (SYN | RST) else other_isn + 1 + fin
        return replace(packet, seq=seq, ack=acknowledged if packet.flags & ACK else 0, payload=b"")

    def _judge(self, out: SteppedFrame, sent: Packet, expected: Expected) -> None:
        assert out.verdict == expected.verdict
        if expected.inside is None:
            assert out.out is Out.NONE
            return
        proto, address, port = expected.inside
        seen = packets.parse(out.data)
        if expected.verdict == "snat":
            if expected.port is None:
                shard = self.node.fastpath.test_shard(address, port, proto)
                assert port_is_allowed(seen.sport, port, shard)
                self.model.bind(expected.inside, seen.sport)
            translated = replace(sent, src=packets.WAN_VIP, sport=self.model.mappings[expected.inside].port)
        elif proto == ICMP:
            translated = replace(sent, dst=address, sport=port)
        else:
            translated = replace(sent, dst=address, dport=port)
        assert seen == replace(translated, ttl=sent.ttl - 1, flags=seen.flags, icmp_type=seen.icmp_type)
        assert (out.out, out.out_port, out.fenced) == (
            Out.WIRE,
            WAN if expected.verdict == "snat" else LAN,
            True,
        )

    # ---- time ----
    @rule(seconds=st.sampled_from([1, 20, 59, 70, 239, 250, 310, 7500]))
    def time_passes(self, seconds: int) -> None:
        then = self.now_s + seconds
        while any(abs(flow.deadline_s - then) < GUARD_S for _, _, flow in self.model.flows()):
            then += GUARD_S
        self.now_s = then
        for node in self.nodes:
            node.wait(then - node.now_s)
        self.model.expire(then)

    # ---- the pair ----
    @rule()
    def sync(self) -> None:
        """What changed since the last time goes to the peer, and is acknowledged; windows, too."""
        for _ in range(ROUNDS):
            self.time_passes(REFRESH_S)
            self._drain()
        self.node.fastpath.digest_ask()
        compared = 0
        while compared != ALL_SHARDS:
            compared |= self._drain()
        self.synced = self.model.copy()

    def _drain(self) -> int:
        """The shards whose digests came, and were those of the peer."""
        compared = 0
        for batch in self.node.fastpath.drain(BATCH):
            assert batch.lost == 0
            self.peer.fastpath.import_sections(batch.sections)
            self.node.fastpath.ack(batch.marks)
            if batch.digests is not None:
                self._compare_digests(batch.digests)
                compared |= batch.digests.of
        return compared

    def _compare_digests(self, told: Digests) -> None:
        """At this place in the stream both nodes know the same."""
        held = rows(self.peer.fastpath.digests())
        assert rows(told).items() <= held.items()

    @rule(planned=st.booleans())
    def failover(self, planned: bool) -> None:
        """The peer takes over with what it has; the old ACTIVE comes back empty and gets a bulk."""
        if planned:
            self.sync()
        dead = self.active
        self.term += 1
        self.active = 1 - dead
        self.node.fastpath.set_role(ACTIVE, self.term)
        self.model = self.synced.copy()
        self.model.take_over(self.now_s)
        self.nodes[dead].fastpath.close()
        self.nodes[dead] = self._boot(dead, PASSIVE)
        self.nodes[dead].wait(self.now_s - self.nodes[dead].now_s)
        self.node.fastpath.track_changes(on=True)
        self._bulk()

    def _bulk(self) -> None:
        self.peer.fastpath.import_begin()
        self.node.fastpath.sweep_start()
        swept = 0
        while swept != ALL_SHARDS:
            for batch in self.node.fastpath.drain(BATCH):
                self.peer.fastpath.import_sections(batch.sections)
                self.node.fastpath.ack(batch.marks)
                swept |= batch.swept or 0
        assert self.peer.fastpath.import_end() == 0
        self.sync()

    # ---- what must hold ----
    @invariant()
    def table_is_the_models(self) -> None:
        if self.nodes:
            self._compare(self.node, self.model)

    @invariant()
    def peer_holds_what_was_synced(self) -> None:
        if self.nodes:
            self._compare(self.peer, self.synced)

    def _compare(self, node: NatNode, model: NatModel) -> None:
        records = node.flows()
        mappings = {(r.proto, r.inside, r.inside_port): r.external_port for r in records}
        flows = {(r.proto, r.inside, r.inside_port, r.remote, r.remote_port): r.state for r in records}
        assert mappings == {inside: mapping.port for inside, mapping in model.mappings.items()}
        assert flows == {(*inside, *remote): flow.state for inside, remote, flow in model.flows()}
        assert len(records) == len(flows)
        assert all(mappings[r.proto, r.inside, r.inside_port] == r.external_port for r in records)
        assert node.mappings() == len(mappings)


TestPair = Pair.TestCase
TestPair.settings = settings(max_examples=300, stateful_step_count=50)
