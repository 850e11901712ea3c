# SPDX-License-Identifier: Apache-2.0
"""A node's packet path under a test's clock: ``Fastpath`` on in-memory ports, without threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import packets
from packets import LAN, WAN, Packet

from flexha.fastpath import Fastpath, FastpathConfig, Filtering, FlowRecord, Out, Policy, SteppedFrame

S = 1_000_000_000
PASSIVE, ACTIVE = 2, 3


@dataclass
class NatNode:
    """One node and its time, in seconds."""

    fastpath: Fastpath
    now_s: float = 1000.0

    @property
    def now_ns(self) -> int:
        return int(self.now_s * S)

    def step(self, frame: bytes, port: int) -> SteppedFrame:
        """One frame, wherever its session is owned."""
        (out,) = self.fastpath.test_step([frame], port=port, now_ns=self.now_ns)
        return self.handed_off(out)

    def released(self) -> list[SteppedFrame]:
        """Fragments that were held until now, wherever their session is owned."""
        out = []
        for worker in range(self.fastpath.config.n_workers):
            frames = self.fastpath.test_frags(self.now_ns, worker)
            out += [self.handed_off(frame) for frame in frames]
        return out

    def handed_off(self, out: SteppedFrame) -> SteppedFrame:
        """A frame after its last worker."""
        while out.out is Out.HANDOFF:
            (out,) = self.fastpath.test_step(
                [out.data],
                port=out.port,
                now_ns=self.now_ns,
                source=out.source,
                worker=out.owner,
                l4=out.l4,
            )
        return out

    def outbound(self, packet: Packet) -> SteppedFrame:
        """A client's packet arrives on the LAN."""
        return self.step(packet.from_lan(), LAN)

    def inbound(self, packet: Packet) -> SteppedFrame:
        """A packet arrives on the WAN."""
        return self.step(packet.from_wan(), WAN)

    def send(self, packet: Packet) -> Packet:
        """A client's packet that must get through; as the server sees it."""
        out = self.outbound(packet)
        assert (out.verdict, out.out, out.out_port) == ("snat", Out.WIRE, WAN)
        return packets.parse(out.data)

    def receive(self, packet: Packet) -> Packet:
        """A server's packet that must get through; as the client sees it."""
        out = self.inbound(packet)
        assert (out.verdict, out.out, out.out_port) == ("reverse", Out.WIRE, LAN)
        return packets.parse(out.data)

    def hairpin(self, packet: Packet) -> Packet:
        """A client's packet to an address of ours, as the host sees it that is behind that."""
        out = self.outbound(packet)
        assert (out.verdict, out.out, out.out_port, out.fenced) == ("hairpin", Out.WIRE, LAN, True)
        return packets.parse(out.data)

    def wait(self, seconds: float) -> None:
        """Time passes; what is due goes."""
        self.now_s += seconds
        for worker in range(self.fastpath.config.n_workers):
            self.fastpath.test_expire(self.now_ns, worker)

    def flows(self) -> list[FlowRecord]:
        """All records."""
        return list(self.fastpath.flows())

    def mappings(self) -> int:
        """External ports in use."""
        workers = range(self.fastpath.config.n_workers)
        return sum(self.fastpath.worker_stats(worker).mappings for worker in workers)

    def counter(self, verdict: str) -> int:
        """Packets that met this end."""
        from flexha.fastpath import verdict_table

        names = [row.name for row in verdict_table()]
        return self.fastpath.verdict_counts()[names.index(verdict)]


@contextmanager
def nat_node(
    config: FastpathConfig | None = None,
    *,
    role: int = ACTIVE,
    term: int = 2,
    policy: Policy | None = None,
    **changes: object,
) -> Iterator[NatNode]:
    """A node with next hops, in ``role``; ``changes`` to its configuration."""
    base = replace(config or packets.node_config(), **changes)  # type: ignore[arg-type]
    with Fastpath(base) as fastpath:
        node = NatNode(fastpath)
        node.wait(0)
        fastpath.set_role(role, term)
        fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
        if policy is not None:
            fastpath.commit_policy(policy)
        yield node


@contextmanager
def filtering_node(filtering: Filtering, **changes: object) -> Iterator[NatNode]:
    """A node whose pool filters so."""
    config = packets.node_config()
    pool = replace(config.pools[0], filtering=filtering)
    with nat_node(config, pools=(pool,), **changes) as made:  # type: ignore[arg-type]
        yield made
