# SPDX-License-Identifier: Apache-2.0
"""The same traffic through 1, 2 and 5 workers meets the same verdicts and leaves by the same ports.

Each node has its own external ports, so a packet that goes to one, or answers, is each node's own; everything
else is the same bytes. Spec: R24.
"""

from __future__ import annotations

import random
from contextlib import ExitStack

import packets
import pytest
import three_zones as zones
from nat_node import NatNode, nat_node
from three_zones import Sent

from flexha.fastpath import Out

WORKERS = (1, 2, 5)
RUNS = 30
EVENTS = 120
FRAGMENT = 1480
OPENED = {"snat", "routed", "hairpin"}


class Story:
    """One schedule on nodes with different numbers of workers."""

    def __init__(self, stack: ExitStack, seed: int, *, routed_in: bool) -> None:
        self.rng = random.Random(seed)
        rules = zones.policy(routed_in=routed_in)
        nodes = (stack.enter_context(nat_node(zones.config(), n_workers=n)) for n in WORKERS)
        self.nodes = [zones.connect(node, rules) for node in nodes]
        self.sent: list[list[Sent]] = []
        """For each packet that left: what left of each node."""
        self.verdicts: set[str] = set()

    def event(self, ident: int) -> None:
        """A packet for each node, and what becomes of it."""
        arrivals = self._answers() if self.sent and self.rng.random() < 0.4 else self._openers()
        reverse = self.rng.random() < 0.5
        outcomes = []
        for node, (frame, port) in zip(self.nodes, arrivals, strict=True):
            frames = [frame]
            if len(frame) > FRAGMENT + 34:
                frames = packets.fragments(frame, FRAGMENT, ident=ident)
            outcomes.append(self._step(node, frames[::-1] if reverse else frames, port))
        verdicts = [verdicts for verdicts, _ in outcomes]
        assert verdicts[1:] == verdicts[:-1], arrivals
        self.verdicts |= {verdict for verdict, _ in verdicts[0]}
        left = [sent for _, sent in outcomes if sent is not None]
        if len(left) == len(outcomes):
            self.sent.append(left)

    def _openers(self) -> list[tuple[bytes, int]]:
        proto, wants_mapping, make = zones.opener(self.rng, fragments=True)
        mapped: list[Sent] | None = None
        if wants_mapping:
            known = [
                each for each in self.sent if each[0].verdict == "snat" and each[0].packet.proto == proto
            ]
            mapped = self.rng.choice(known) if known else None
        made = [make(mapped[i].packet if mapped else None) for i in range(len(self.nodes))]
        return [(zones.frame(packet, port), port) for packet, port in made]

    def _answers(self) -> list[tuple[bytes, int]]:
        """What each receiver sends back: an answer, or an error."""
        sent, error = self.rng.choice(self.sent), self.rng.random() < 0.2
        arrivals = []
        for each in sent:
            packet = zones.answer(each.packet)
            if error:
                packet = packets.icmp_error(each.packet.dst, each.packet.ip()[:60], 3, 3)
            arrivals.append((zones.frame(packet, each.port), each.port))
        return arrivals

    @staticmethod
    def _step(node: NatNode, frames: list[bytes], port: int) -> tuple[list[tuple[str, int]], Sent | None]:
        outs = [node.step(frame, port) for frame in frames] + node.released()
        left = [out for out in outs if out.out is Out.WIRE]
        ports = [out.out_port if out.out is Out.WIRE else -1 for out in outs]
        verdicts = sorted(zip((out.verdict for out in outs), ports, strict=True))
        through = OPENED | {"reverse"} >= {out.verdict for out in left}
        return verdicts, zones.leaving(left) if through else None


@pytest.mark.parametrize("routed_in", [False, True])
def test_any_number_of_workers_is_as_good_as_one(*, routed_in: bool) -> None:
    seen: set[str] = set()
    for seed in range(RUNS):
        with ExitStack() as stack:
            story = Story(stack, seed, routed_in=routed_in)
            for number in range(EVENTS):
                try:
                    story.event(1000 + number)
                except AssertionError as error:
                    raise AssertionError(f"run {seed}, event {number}: {error}") from error
            seen |= story.verdicts
    assert seen >= OPENED | {"reverse", "icmp_error_in"}, "the schedules reach what they are for"
