# SPDX-License-Identifier: Apache-2.0
"""Protocols without ports: what passes without a rule passes by a rule that allows anything."""

from __future__ import annotations

import packets
import pytest
from nat_node import nat_node
from packets import Packet

from flexha.fastpath import Action, Policy, Rule, Service

OSPF = 89
KNOWN = {"gre": 47, "esp": 50, "sctp": 132}
POLICIES = {
    "no rule": Policy(),
    "anything": Policy((Rule(Action.ALLOW),)),
    "anything, and nothing else": Policy((Rule(Action.ALLOW),), default_outbound=Action.DENY),
}


def to_server(proto: int) -> Packet:
    return Packet(proto, packets.CLIENTS[0], packets.SERVERS[0], 0, payload=bytes(16))


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("proto", KNOWN)
def test_tunnels_and_sctp_need_no_name(policy: str, proto: str) -> None:
    with nat_node() as node:
        node.fastpath.commit_policy(POLICIES[policy])
        out = node.outbound(to_server(KNOWN[proto]))
        assert out.verdict == "snat"
        assert node.inbound(packets.parse(out.data).reply()).verdict == "reverse"


@pytest.mark.parametrize("policy", POLICIES)
def test_any_other_number_must_be_named(policy: str) -> None:
    with nat_node() as node:
        node.fastpath.commit_policy(POLICIES[policy])
        assert node.outbound(to_server(OSPF)).verdict == "protocol"
        node.fastpath.commit_policy(Policy((Rule(Action.ALLOW, services=(Service(OSPF),)),)))
        assert node.outbound(to_server(OSPF)).verdict == "snat"
