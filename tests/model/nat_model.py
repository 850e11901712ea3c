# SPDX-License-Identifier: Apache-2.0
"""What the NAT does, as plain Python: the model that ``core_step()`` is held against.

Readings chosen where the RFCs leave room:

* Mapping is endpoint-independent (RFC 4787 REQ-1), filtering is address and port dependent (REQ-8).
* A mapping lives exactly as long as it has flows.
* Which external port a new mapping gets is the implementation's choice, within ``port_is_allowed``.
* Time is in seconds; a takeover gives every session the full timeout of its state.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from packets import ACK, FIN, ICMP, RST, SYN, TCP, UDP, WAN_VIP, Packet

from flexha.fastpath import FlowState

TRANSITORY_S, ESTABLISHED_S, UDP_S, ICMP_S = 240, 7440, 300, 60
OUT, IN = 0, 1

Endpoint = tuple[int, IPv4Address, int]
"""Protocol, address, port (ICMP: the identifier)."""
Remote = tuple[IPv4Address, int]


@dataclass
class Flow:
    """One session; ``fin`` and ``fin_acked`` by side: 0 the client's, 1 the server's."""

    proto: int
    state: FlowState
    deadline_s: float = 0.0
    fin: list[bool] = field(default_factory=lambda: [False, False])
    fin_acked: list[bool] = field(default_factory=lambda: [False, False])
    reset: bool = False
    """An RST was seen, and nothing since: RFC 7857 section 2.2."""
    lenient: bool = False
    """Imported: the other node may have seen more of the connection than the record says."""

    def timeout_s(self) -> int:
        if self.proto == TCP:
            is_open = self.state in {FlowState.ESTABLISHED, FlowState.FIN_WAIT} and not self.reset
            return ESTABLISHED_S if is_open else TRANSITORY_S
        return UDP_S if self.proto == UDP else ICMP_S

    def touch(self, now_s: float) -> None:
        self.deadline_s = now_s + self.timeout_s()


@dataclass
class Mapping:
    """An inside endpoint's external port, and its flows by remote endpoint."""

    port: int
    flows: dict[Remote, Flow] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """How a packet must end; ``packet`` is what must come out, ``port`` None if the NAT may choose."""

    verdict: str
    inside: Endpoint | None = None
    port: int | None = None


def port_is_allowed(port: int, inside_port: int, shard: int) -> bool:
    """In the pool's range, of the endpoint's shard, with its parity (RFC 4787 REQ-4)."""
    return 1024 <= port <= 65535 and (port >> 1) & 63 == shard and port % 2 == inside_port % 2


class NatModel:
    """The table of the pair, wherever it is ACTIVE."""

    def __init__(self) -> None:
        self.mappings: dict[Endpoint, Mapping] = {}

    # ---- packets ----
    def outbound(self, packet: Packet, now_s: float) -> Expected:
        """A client's packet; after ``snat`` of a new mapping, call ``bind`` with the port that was seen."""
        inside = (packet.proto, packet.src, packet.sport)
        mapping = self.mappings.get(inside)
        flow = mapping.flows.get((packet.dst, packet.dport)) if mapping else None
        if flow is None:
            if packet.proto == TCP and packet.flags != SYN:
                return Expected("syn_check")
            state = FlowState.SYN_SENT if packet.proto == TCP else FlowState.NEW
            flow = Flow(packet.proto, state)
            flow.touch(now_s)
            mapping = self.mappings.setdefault(inside, Mapping(0))
            mapping.flows[packet.dst, packet.dport] = flow
            return Expected("snat", inside, mapping.port or None)
        assert mapping is not None
        if refused := self._move(flow, packet, OUT, now_s):
            return Expected(refused)
        return Expected("snat", inside, mapping.port)

    def bind(self, inside: Endpoint, port: int) -> None:
        """The NAT chose ``port`` for a new mapping."""
        assert port not in {m.port for (proto, *_), m in self.mappings.items() if proto == inside[0]}
        self.mappings[inside].port = port

    def inbound(self, packet: Packet, now_s: float) -> Expected:
        """A packet from outside to the VIP."""
        assert packet.dst == WAN_VIP
        external = packet.sport if packet.proto == ICMP else packet.dport
        remote = (packet.src, 0 if packet.proto == ICMP else packet.sport)
        for inside, mapping in self.mappings.items():
            if inside[0] == packet.proto and mapping.port == external and remote in mapping.flows:
                if refused := self._move(mapping.flows[remote], packet, IN, now_s):
                    return Expected(refused)
                return Expected("reverse", inside, mapping.port)
        known = any(m.port == external for (proto, *_), m in self.mappings.items() if proto == packet.proto)
        return Expected("filtered" if known and packet.proto != ICMP else "no_session")

    def _move(self, flow: Flow, packet: Packet, side: int, now_s: float) -> str:
        """Let a packet act on its session; other than "" is why it is dropped."""
        if flow.proto != TCP:
            if side == IN:
                flow.state = FlowState.ESTABLISHED
            flow.touch(now_s)
            return ""
        before = (list(flow.fin), flow.reset)
        after = self._after_segment(flow, packet.flags, side)
        if isinstance(after, str):
            return after
        changed = after > flow.state or before != (flow.fin, flow.reset)
        flow.state = max(after, flow.state)
        # A packet keeps its session alive; a closed one runs out, unless the packet changed something.
        # An RST by itself refreshes nothing (RFC 7857 section 7.1).
        if changed or (flow.state < FlowState.TIME_WAIT and not packet.flags & RST):
            flow.touch(now_s)
        return ""

    def _after_segment(self, flow: Flow, flags: int, side: int) -> FlowState | str:
        """The table of ``csrc/tcptrack.h``; a string: why it is dropped."""
        state = flow.state
        if flags & RST:
            if state is FlowState.SYN_SENT:
                if side == OUT or flags & ACK:
                    return FlowState.CLOSED
                return state if flow.lenient else "tcp_rst_window"
            flow.reset |= state < FlowState.TIME_WAIT
            return state
        if flags & SYN:
            if side == OUT and not flags & ACK and (state >= FlowState.TIME_WAIT or flow.reset):
                flow.fin, flow.fin_acked, flow.lenient = [False, False], [False, False], False
                flow.reset = False
                flow.state = FlowState.NEW
                return FlowState.SYN_SENT
            if side == IN and not flags & ACK and state not in {FlowState.SYN_SENT, FlowState.SYN_RECV}:
                return "tcp_state"
            if state is FlowState.CLOSED and not flow.lenient and flags & ACK:
                return "tcp_state"
            return FlowState.SYN_RECV if side == IN and state is FlowState.SYN_SENT else state
        if state is FlowState.SYN_SENT and not flow.lenient:
            return "tcp_state" if side == OUT else state
        if state is FlowState.CLOSED:
            return state if flow.lenient else "tcp_state"
        flow.reset = False
        if flags & FIN:
            flow.fin[side] = True
        if flow.fin[1 - side]:
            flow.fin_acked[1 - side] = True
        if all(flow.fin):
            return FlowState.TIME_WAIT if all(flow.fin_acked) else FlowState.CLOSING
        if any(flow.fin):
            return FlowState.FIN_WAIT
        if state < FlowState.ESTABLISHED and (side == OUT or flow.lenient):
            return FlowState.ESTABLISHED
        return state

    def flow_of(self, inside: Endpoint, remote: Remote) -> Flow | None:
        """A session."""
        mapping = self.mappings.get(inside)
        return mapping.flows.get(remote) if mapping else None

    # ---- time ----
    def flows(self) -> Iterator[tuple[Endpoint, Remote, Flow]]:
        """All sessions."""
        for inside, mapping in self.mappings.items():
            for remote, flow in mapping.flows.items():
                yield inside, remote, flow

    def expire(self, now_s: float) -> None:
        """What is due goes, and a mapping with its last flow."""
        for inside, mapping in list(self.mappings.items()):
            mapping.flows = {r: f for r, f in mapping.flows.items() if f.deadline_s > now_s}
            if not mapping.flows:
                del self.mappings[inside]

    # ---- the pair ----
    def copy(self) -> NatModel:
        """What the peer holds after a sync."""
        return deepcopy(self)

    def take_over(self, now_s: float) -> None:
        """The other node is ACTIVE from now on."""
        for _, _, flow in self.flows():
            flow.lenient = True
            flow.fin_acked = [False, False]
            flow.touch(now_s)
