# SPDX-License-Identifier: Apache-2.0
"""After a failover the survivor answers every packet with the bytes that the dead node would have sent.

Whatever sessions were opened, and whatever number of workers each node has. Spec: R13, R19, R24.
"""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest
import three_zones as zones
from nat_node import ACTIVE, PASSIVE, NatNode, nat_node
from three_zones import Sent

from flexha.fastpath import FlowFlag, FlowRecord, Out

RUNS = 150
EVENTS = 60
OPENED = {"snat", "routed", "hairpin", "reverse"}


def replicate(active: NatNode, passive: NatNode) -> None:
    """All changes, as sync carries them."""
    active.fastpath.digest_ask()  # what could wait is told, too
    for batch in active.fastpath.drain(64):
        passive.fastpath.import_sections(batch.sections)
        active.fastpath.ack(batch.marks)


def told(flow: FlowRecord) -> tuple[str, ...]:
    """What both nodes must say of a session."""
    ends = (flow.inside, flow.inside_port, flow.remote, flow.remote_port, flow.external, flow.external_port)
    rest = (flow.proto, flow.form, flow.rule, flow.in_port, flow.out_port)
    return tuple(map(str, (*ends, *rest, int(flow.flags & ~FlowFlag.IMPORTED))))


def open_sessions(node: NatNode, rng: random.Random) -> list[Sent]:
    """Packets that left the node."""
    sent: list[Sent] = []
    for _ in range(EVENTS):
        proto, wants_mapping, make = zones.opener(rng)
        known = [each.packet for each in sent if each.verdict == "snat" and each.packet.proto == proto]
        packet, port = make(rng.choice(known) if wants_mapping and known else None)
        out = node.step(zones.frame(packet, port), port)
        if out.out is Out.WIRE and out.verdict in OPENED:
            left = zones.leaving([out])
            assert left is not None
            sent.append(left)
    return sent


@pytest.mark.parametrize("workers", [1, 3])
def test_the_survivor_sends_what_the_dead_node_would_have(workers: int) -> None:
    answered = 0
    for seed in range(RUNS):
        with ExitStack() as stack:
            rules = zones.policy(routed_in=True)
            first = stack.enter_context(nat_node(zones.config(0), n_workers=2))
            second = stack.enter_context(nat_node(zones.config(1), role=PASSIVE, n_workers=workers))
            for node in (first, second):
                zones.connect(node, rules)
            first.fastpath.track_changes(on=True)
            sent = open_sessions(first, random.Random(seed))
            replicate(first, second)
            assert sorted(map(told, second.flows())) == sorted(map(told, first.flows())), f"run {seed}"
            second.fastpath.set_role(ACTIVE, 3)
            for each in sent:
                frame = zones.frame(zones.answer(each.packet), each.port)
                wanted, got = first.step(frame, each.port), second.step(frame, each.port)
                about = f"run {seed}: the answer to {each}"
                assert (got.verdict, got.out_port) == (wanted.verdict, wanted.out_port), about
                if wanted.out is Out.WIRE:
                    assert got.data[14:] == wanted.data[14:], about
                    answered += 1
    assert answered > RUNS * EVENTS // 3, "the schedules reach what they are for"
