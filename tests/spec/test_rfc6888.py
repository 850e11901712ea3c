# SPDX-License-Identifier: Apache-2.0
"""RFC 6888, Common Requirements for Carrier-Grade NATs: what a gateway needs of them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import packets
import pytest
from nat_node import NatNode, nat_node
from packets import TCP, UDP, WAN, Packet

from flexha.fastpath import Filtering, Limits, PoolConfig

CLIENT, OTHER = packets.CLIENTS[:2]
SERVER = packets.SERVERS[0]
QUERY = Packet(UDP, CLIENT, SERVER, 5000, 53)
REUSE_S = 120


def verdicts(node: NatNode, first: Packet, n: int) -> list[str]:
    """What becomes of packets from ``n`` ports in a row."""
    return [node.outbound(replace(first, sport=first.sport + i)).verdict for i in range(n)]


# ---- limits ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [1, 3])
def test_req4_external_ports_of_a_subscriber_are_limited(workers: int) -> None:
    """Spec: RFC 6888 REQ-4, a: by configuration, over all workers and protocols; others do not notice."""
    with nat_node(n_workers=workers, limits=Limits(ports_per_source=20)) as node:
        assert verdicts(node, QUERY, 15) == ["snat"] * 15
        syn = Packet(TCP, CLIENT, SERVER, 6000, 443, packets.SYN)
        assert verdicts(node, syn, 15) == ["snat"] * 5 + ["port_limit"] * 10
        assert verdicts(node, replace(QUERY, src=OTHER), 20) == ["snat"] * 20
        # A mapping that is there serves any number of remote ends.
        for server in packets.SERVERS:
            assert node.outbound(replace(QUERY, dst=server)).verdict == "snat"
        node.wait(301)
        assert verdicts(node, replace(QUERY, sport=9000), 20) == ["snat"] * 20


@pytest.mark.parametrize("workers", [1, 3])
def test_req5_sessions_of_a_subscriber_are_limited(workers: int) -> None:
    """Spec: RFC 6888 REQ-5, a: by configuration, over all workers; what is open goes on."""
    with nat_node(n_workers=workers, limits=Limits(sessions_per_source=10)) as node:
        assert verdicts(node, QUERY, 15) == ["snat"] * 10 + ["source_limit"] * 5
        assert verdicts(node, QUERY, 10) == ["snat"] * 10
        assert node.counter("source_limit") == 5
        assert verdicts(node, replace(QUERY, src=OTHER), 10) == ["snat"] * 10
        node.wait(301)
        assert verdicts(node, replace(QUERY, sport=9000), 15) == ["snat"] * 10 + ["source_limit"] * 5


# ---- ports that are given again --------------------------------------------------------------------------
def pool_of_one(filtering: Filtering) -> tuple[PoolConfig, ...]:
    """One port of each parity in each shard, so that the next client of the shard wants the same one."""
    pool = PoolConfig(
        name="vip", address=packets.WAN_VIP, out_port=WAN, port_lo=20000, port_hi=20127, filtering=filtering
    )
    return (pool,)


def free_again_after(node: NatNode, packet: Packet) -> int:
    """Seconds from the end of a mapping to when somebody else gets one of its shard's two ports."""
    (first,) = [flow.shard for flow in node.flows()]
    rivals = [
        rival
        for port in range(10000, 12000)
        if node.fastpath.test_shard(OTHER, port, packet.proto) == first
        for rival in [replace(packet, src=OTHER, sport=port)]
    ]
    assert node.outbound(rivals[0]).verdict == "snat"
    assert node.outbound(rivals[1]).verdict == "ports_exhausted"
    waited = 0
    while packet.src in {flow.inside for flow in node.flows()}:
        node.wait(10)
        node.outbound(rivals[0])
    while node.outbound(rivals[1]).verdict == "ports_exhausted":
        node.wait(10)
        waited += 10
        node.outbound(rivals[0])
    return waited


def test_req8_a_port_rests_before_somebody_else_gets_it() -> None:
    """Spec: RFC 6888 REQ-8: 120 s, when anybody may send to it."""
    pools = pool_of_one(Filtering.EIF)
    with nat_node(pools=pools, limits=Limits(port_reuse_s=REUSE_S)) as node:
        node.send(QUERY)
        assert REUSE_S <= free_again_after(node, QUERY) <= 2 * REUSE_S


def test_req8_exception_a_tcp_is_tracked() -> None:
    """Spec: RFC 6888 REQ-8 A."""
    pools = pool_of_one(Filtering.EIF)
    syn = Packet(TCP, CLIENT, SERVER, 6000, 443, packets.SYN)
    with nat_node(pools=pools, limits=Limits(port_reuse_s=REUSE_S)) as node:
        node.send(syn)
        assert free_again_after(node, syn) <= 10


@pytest.mark.parametrize("filtering", [Filtering.ADF, Filtering.APDF])
def test_req8_exception_c_filtering_knows_the_remote(filtering: Filtering) -> None:
    """Spec: RFC 6888 REQ-8 C."""
    with nat_node(pools=pool_of_one(filtering), limits=Limits(port_reuse_s=REUSE_S)) as node:
        node.send(QUERY)
        assert free_again_after(node, QUERY) <= 10


# ---- exhaustion --------------------------------------------------------------------------------------
def test_ports_of_closed_connections_are_given_when_there_are_no_others() -> None:
    """Spec: RFC 5382 REQ-5, RFC 6888 REQ-8 A: rather a port from TIME_WAIT than a refusal."""
    pool = PoolConfig(name="vip", address=packets.WAN_VIP, out_port=WAN, port_lo=20000, port_hi=20127)
    with nat_node(pools=(pool,)) as node:
        syns = [
            Packet(TCP, IPv4Address("198.51.100.10"), SERVER, port, 443, packets.SYN, seq=1)
            for port in range(10000, 30000)
            if node.fastpath.test_shard(CLIENT, port, TCP) == 5
        ][:3]
        seen = node.send(syns[0])
        node.send(syns[1])
        assert node.outbound(syns[2]).verdict == "ports_exhausted"
        # The server refuses the first one.
        reset = replace(seen.reply(), flags=packets.RST | packets.ACK, seq=0, ack=2)
        assert node.inbound(reset).verdict == "reverse"
        assert node.send(syns[2]).sport == seen.sport
