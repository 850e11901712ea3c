# SPDX-License-Identifier: Apache-2.0
"""The pure core in tests: the lab's configuration, and a node under a clock that the test moves."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address
from typing import TypeVar

from sections import pack, part

from flexha.core import node, sync_wire, vrrp_wire
from flexha.core.actions import (
    Action,
    PersistMaintenance,
    PersistTerm,
    Record,
    SendFrame,
    SendSync,
    SetRole,
    SetWires,
)
from flexha.core.events import (
    DigestDrained,
    DigestsRead,
    Event,
    MaintenanceKept,
    PathDown,
    PathUp,
    PeerHeard,
    PeerInfo,
    Role,
    Started,
    SweepWalked,
    SyncConnected,
    SyncReceived,
    TermPersisted,
    TimerFired,
    VrrpFrameReceived,
    WiresSettled,
)
from flexha.core.node import NodeConfig, NodeState, SyncLimits, TrackedPort, VrrpPort
from flexha.core.shards import ALL, NONE, SHARDS, Shards
from flexha.core.sync_wire import (
    Ack,
    Audit,
    Batch,
    Digest,
    Hello,
    Message,
    Stream,
    SweepBegin,
    SweepEnd,
    Want,
)
from flexha.core.vrrp_wire import Advert, ChecksumForm
from flexha.units import Ns, Term, ms

ADDRESSES = {"lan": ("198.51.100.2", "198.51.100.3"), "wan": ("203.0.113.4", "203.0.113.5")}
VIPS = {"lan": "198.51.100.1", "wan": "203.0.113.3"}
VRIDS = {"lan": 51, "wan": 52}
TRACKED = {
    "lan": TrackedPort("lan", inside=True, weight=10, up_ms=1000),
    "wan": TrackedPort("wan", inside=False, weight=50, up_ms=1000),
}
FOREIGN = {"lan": "198.51.100.7", "wan": "203.0.113.6"}
"""Addresses of a router that belongs to nobody's pair."""
INCARNATIONS = (0xAAAA, 0xBBBB)
PRIORITIES = (150, 100)

ActionT = TypeVar("ActionT", bound=Action)


def vrrp_port(name: str, index: int = 0, *, has_peer: bool = True) -> VrrpPort:
    """A port of the lab's pair."""
    own, peer = ADDRESSES[name][index], ADDRESSES[name][1 - index]
    return VrrpPort(
        name=name,
        vrid=VRIDS[name],
        vips=(IPv4Address(VIPS[name]),),
        address=IPv4Address(own),
        peer_address=IPv4Address(peer) if has_peer else None,
        mac=bytes((2, 0, 0, 0, VRIDS[name], index)),
    )


def config(
    index: int = 0,
    *,
    preempt: bool = False,
    preempt_hold_s: float = 0,
    has_peer: bool = True,
    ports: Sequence[str] = ("lan", "wan"),
    limits: SyncLimits | None = None,
    adver_int_cs: int = 100,
    start_hold_ms: int = 1000,
) -> NodeConfig:
    """Node a (0) or b (1) of the lab's pair."""
    return NodeConfig(
        pair="lab",
        index=index,
        priority=PRIORITIES[index],
        ports=tuple(vrrp_port(name, index, has_peer=has_peer) for name in ports),
        tracked=tuple(TRACKED[name] for name in ports),
        has_peer=has_peer,
        preempt=preempt,
        preempt_hold_s=preempt_hold_s,
        adver_int_cs=adver_int_cs,
        start_hold_ms=start_hold_ms,
        sync=limits or SyncLimits(),
    )


def peer_info(
    role: Role,
    term: int,
    *,
    index: int = 1,
    ready: bool = False,
    bye: bool = False,
    life: int = 0,
    ports_up: Collection[str] = ("lan", "wan"),
    hung: bool = False,
) -> PeerInfo:
    """What heartbeats of node ``index`` say; ``life`` counts its restarts."""
    incarnation = INCARNATIONS[index] + life
    priority, ports = PRIORITIES[index], frozenset(ports_up)
    return PeerInfo(role, Term(term), incarnation, ready, bye, priority, ports, hung)


def advert(port: str, priority: int, source: str, *, adver_int_cs: int = 100) -> VrrpFrameReceived:
    """An advertisement of this port's virtual router, as a frame."""
    message = Advert(VRIDS[port], priority, adver_int_cs, (IPv4Address(VIPS[port]),), IPv4Address(source))
    frame = vrrp_wire.build(message, vrrp_port(port).vmac, ChecksumForm.RFC9568)
    return VrrpFrameReceived(port, frame)


SUMS, COUNTS = bytes(8 * SHARDS), bytes(4 * SHARDS)
"""Digests of an empty table."""


def batch(seq: int, n: int = 1) -> Batch:
    """One of ``n`` new sessions, all zero."""
    return Batch(seq, pack((part(n),)))


def digest(seq: int) -> Digest:
    """The digests of an empty table."""
    return Digest(seq, ALL, SUMS, COUNTS)


class Core:
    """One node core. ``do`` steps it; ``sleep`` lets time pass and fires its timers."""

    def __init__(self, cfg: NodeConfig, *, prompt_disk: bool = True, prompt_wires: bool = True) -> None:
        self.cfg = cfg
        self.state: NodeState = node.initial(cfg)
        self.now = Ns(1_000_000_000_000)
        self.prompt_wires = prompt_wires
        """Whether the workers have nothing under way: wires settle as soon as they are told to."""
        self.prompt_disk = prompt_disk
        """Whether a term, or a flag, is on disk as soon as the core has asked for it."""

    @property
    def role(self) -> Role:
        return self.state.role.role

    @property
    def term(self) -> int:
        return self.state.role.term

    def do(self, *events: Event) -> tuple[Action, ...]:
        """Events at this moment; their actions, and those of what they asked for."""
        done: list[Action] = []
        queue = list(events)
        while queue:
            self.state, actions = node.step(self.state, queue.pop(0), self.now)
            done += actions
            if self.prompt_wires:
                queue += [WiresSettled(a.mode) for a in only(actions, SetWires)]
            if self.prompt_disk:
                queue += [TermPersisted(a.term) for a in actions if isinstance(a, PersistTerm)]
                asked = only(actions, PersistMaintenance)
                queue += [MaintenanceKept(a.request, a.on) for a in asked]
        return tuple(done)

    def sleep(self, time_ms: float) -> tuple[Action, ...]:
        """Let time pass; the actions of the timers that fire meanwhile."""
        end = self.now + ms(time_ms)
        done: list[Action] = []
        while (deadline := node.next_deadline(self.state)) is not None and deadline <= end:
            assert deadline >= self.now, "a deadline in the past"
            self.now = deadline
            done += self.do(TimerFired())
        self.now = Ns(end)
        return tuple(done)

    def start(self, term: int = 0) -> tuple[Action, ...]:
        return self.do(Started(Term(term), INCARNATIONS[self.cfg.index]))

    # ---- short ways to common states -----------------------------------------------------------------
    def hear(self, info: PeerInfo) -> tuple[Action, ...]:
        """The peer on all paths."""
        return self.do(*(PathUp(path) for path in self.cfg.paths), PeerHeard(info))

    def silence(self) -> tuple[Action, ...]:
        """No path is heard any more; the actions of the last one's end."""
        *_, last = [self.do(PathDown(path)) for path in self.cfg.paths]
        return last

    def become_active(self) -> Core:
        """ACTIVE without a peer."""
        self.start()
        self.sleep(5000)
        assert self.role is Role.ACTIVE
        return self

    def become_joining(self, peer_term: int | None = None) -> Core:
        """JOINING beside an ACTIVE peer."""
        term = peer_term if peer_term is not None else 2 + (1 - self.cfg.index)
        self.start()
        self.hear(peer_info(Role.ACTIVE, term, index=1 - self.cfg.index))
        assert self.role is Role.JOINING
        return self

    def become_passive(self, peer_term: int | None = None) -> Core:
        """PASSIVE and in sync with an ACTIVE peer."""
        self.become_joining(peer_term)
        self.do(SyncConnected(), received(self.peer_hello(Role.ACTIVE)))
        stream = Stream(INCARNATIONS[1 - self.cfg.index], Term(self.term))
        self.do(received(SweepBegin(stream, 1, ALL), SweepEnd(2, ALL), digest(2)), DigestsRead(2, ALL, 0))
        assert self.role is Role.PASSIVE
        assert self.state.role.ready is self.prompt_disk
        return self

    def peer_hello(self, role: Role) -> Hello:
        """What the peer says first on a sync connection."""
        index = 1 - self.cfg.index
        return Hello(
            pair=self.cfg.pair,
            node=index,
            incarnation=INCARNATIONS[index],
            term=Term(self.term),
            role=role,
        )

    def with_ready_peer(self) -> Core:
        """ACTIVE, the peer PASSIVE, in sync and ready."""
        self.become_active()
        index = 1 - self.cfg.index
        self.hear(peer_info(Role.PASSIVE, self.term, index=index, ready=True))
        self.do(SyncConnected(), received(self.peer_hello(Role.PASSIVE), Want(None, 0)))
        self.do(SweepWalked(ALL), received(Ack(2)))
        self.agree()
        return self

    def agree(self, differ: Shards = NONE) -> tuple[Action, ...]:
        """The workers' digests, and the peer's answer: these shards differ."""
        asked = self.sleep(0)
        digests = self.do(DigestDrained(ALL, SUMS, COUNTS))
        (told,) = (m for m in sent(digests) if isinstance(m, Digest))
        audit = Audit(told.seq, told.shards, differ & told.shards)
        return (*asked, *digests, *self.do(received(audit)))

    def settle(self) -> tuple[Action, ...]:
        """Behind the fence: the last digests come, everything is acknowledged, and found equal."""
        self.do(received(Ack(self.state.session.sender.sent_seq)))
        return self.agree()


def received(*messages: Message) -> SyncReceived:
    """Messages as bytes of the sync connection."""
    return SyncReceived(b"".join(sync_wire.encode(message) for message in messages))


def only(actions: Sequence[Action], kind: type[ActionT]) -> list[ActionT]:
    """The actions of one kind, in order."""
    return [action for action in actions if isinstance(action, kind)]


def roles(actions: Sequence[Action]) -> list[tuple[Role, int]]:
    """The roles that were set, in order."""
    return [(action.role, action.term) for action in only(actions, SetRole)]


def sent(actions: Sequence[Action]) -> list[Message]:
    """The messages that were sent on the sync connection."""
    _, payloads = sync_wire.FrameBuffer().feed(b"".join(a.data for a in only(actions, SendSync)), 1 << 30)
    return [sync_wire.decode(payload) for payload in payloads]


def records(actions: Sequence[Action], event: str) -> list[dict[str, object]]:
    """The fields of the records of one event."""
    return [dict(record.fields) for record in only(actions, Record) if record.event == event]


def adverts(actions: Sequence[Action]) -> list[tuple[str, int]]:
    """The advertisements that were sent: port and priority."""
    return [
        (action.port, vrrp_wire.parse(action.frame, VRIDS[action.port]).priority)
        for action in only(actions, SendFrame)
        if action.frame[12:14] == b"\x08\x00"
    ]


def garps(actions: Sequence[Action]) -> list[str]:
    """The ports on which gratuitous ARPs were sent."""
    return [action.port for action in only(actions, SendFrame) if action.frame[12:14] == b"\x08\x06"]
