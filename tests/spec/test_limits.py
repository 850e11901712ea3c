# SPDX-License-Identifier: Apache-2.0
"""Limits of an address hold however many addresses there are, or seem to be."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

import packets
import pytest
from nat_node import nat_node
from packets import UDP, Packet

from flexha.fastpath import Action, FastpathConfig, Limits, Policy, Rule

LIMIT = 20
FLOW_CAP = 1024
SEND = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], 5000, 53, payload=b"q")
MADE_UP = [IPv4Address("198.51.100.20") + i for i in range(230)]


def small(**limits: int) -> FastpathConfig:
    return replace(packets.node_config(), flow_cap=FLOW_CAP, limits=Limits(**limits))


@pytest.mark.parametrize(
    ("config", "rule_limit", "verdict"),
    [
        pytest.param(small(sessions_per_source=LIMIT), 0, "source_limit", id="sessions"),
        pytest.param(small(ports_per_source=LIMIT), 0, "port_limit", id="ports"),
        pytest.param(small(), LIMIT, "source_limit", id="rule"),
    ],
)
def test_a_host_that_makes_up_addresses_frees_nobody_of_his_limit(
    config: FastpathConfig, rule_limit: int, verdict: str
) -> None:
    """Spec: RFC 6888 REQ-4, REQ-5. Nor does it take anything from those who come after it."""
    policy = Policy((Rule(Action.ALLOW, max_per_source=rule_limit),))
    with nat_node(config, policy=policy) as node:
        for source in MADE_UP:
            node.send(replace(SEND, src=source))
            node.send(replace(SEND, src=source, sport=SEND.sport + 1))
        for client in packets.CLIENTS:
            sent = [node.outbound(replace(SEND, src=client, sport=7000 + i)) for i in range(LIMIT + 5)]
            verdicts = [out.verdict.removesuffix("_sent") for out in sent]
            assert verdicts == ["snat"] * LIMIT + [verdict] * 5
