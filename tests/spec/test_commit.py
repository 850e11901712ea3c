# SPDX-License-Identifier: Apache-2.0
"""Output commit: what has left ACTIVE is of a session that the peer could go on with.

Two nodes under one clock: what ``a`` tells is put into ``b`` and acknowledged when the test says so.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import packets
import pytest
from nat_node import ACTIVE, PASSIVE, NatNode, nat_node
from packets import ACK, LAN, RST, SYN, TCP, UDP, WAN, Packet

from flexha.fastpath import (
    Action,
    Commit,
    FastpathError,
    Fate,
    Filtering,
    Out,
    Policy,
    Rule,
    Service,
    SteppedFrame,
    SyncConfig,
    SyncFilter,
    SyncStats,
)

HOLD_MS = 20
ASK = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], 5000, 53, payload=b"q")
OPEN = Packet(TCP, packets.CLIENTS[0], packets.SERVERS[0], 40000, 80, SYN, seq=100)
PING = Packet(packets.ICMP, packets.CLIENTS[0], packets.SERVERS[0], 77)
WAITING = [Commit.BOUNDED, Commit.STRICT]


@dataclass
class Committed:
    """ACTIVE ``a``, whose peer ``b`` is in sync."""

    a: NatNode
    b: NatNode
    marks: dict[int, int] = field(default_factory=dict)

    def tell(self) -> int:
        """What ``a`` has to tell becomes live at ``b``; ``a`` does not hear of it yet. Records told."""
        told = 0
        while batches := self.a.fastpath.drain():
            for batch in batches:
                self.b.fastpath.import_sections(batch.sections)
                self.marks.update(batch.marks)
                told += batch.n
        return told

    def refuse(self) -> int:
        """What ``a`` has to tell does not fit into ``b``; ``a`` hears of that first. Records told."""
        told = 0
        while batches := self.a.fastpath.drain():
            for batch in batches:
                self.a.fastpath.refused(batch.marks, batch.sections, range(batch.n))
                self.marks.update(batch.marks)
                told += batch.n
        return told

    def fates(self) -> list[Fate]:
        """What becomes of the sessions of ``a`` if it dies now."""
        return [Fate(key.fate) for page in self.a.fastpath.fates() for key in page.counts()]

    def ack(self) -> list[SteppedFrame]:
        """``a`` hears that ``b`` has all that it was told; what leaves then."""
        self.a.fastpath.ack(self.marks)
        return self.released()

    def released(self) -> list[SteppedFrame]:
        out: list[SteppedFrame] = []
        while frames := [
            self.a.handed_off(frame)
            for worker in range(self.a.fastpath.config.n_workers)
            for frame in self.a.fastpath.test_held(self.a.now_ns, worker)
        ]:
            out += frames
        return out

    def wait_ms(self, ms: float) -> list[SteppedFrame]:
        """Time passes on both nodes; what leaves meanwhile."""
        self.a.wait(ms / 1000)
        self.b.wait(ms / 1000)
        return self.released()

    def take_over(self) -> None:
        """``a`` is dead, ``b`` reigns."""
        self.b.fastpath.set_role(ACTIVE, 3)

    def stats(self) -> SyncStats:
        return self.a.fastpath.sync_stats(0)


@contextmanager
def committed(
    mode: Commit,
    *,
    policy: Policy | None = None,
    n_workers: int = 1,
    hold_frames: int = 1024,
    filtering: Filtering = Filtering.APDF,
) -> Iterator[Committed]:
    pool = replace(packets.node_config().pools[0], filtering=filtering)
    config = replace(
        packets.node_config(),
        pools=(pool,),
        n_workers=n_workers,
        sync=SyncConfig(hold_ms=HOLD_MS, commit=mode, hold_frames=hold_frames),
    )
    peer = replace(packets.node_config(1), n_workers=1)
    with nat_node(config, policy=policy) as a, nat_node(peer, role=PASSIVE, policy=policy) as b:
        a.fastpath.track_changes(on=True)
        a.fastpath.set_commit(on=True)
        yield Committed(a, b)


def verdicts(frames: list[SteppedFrame]) -> list[str]:
    return [frame.verdict for frame in frames]


def answer(sent: Packet) -> Packet:
    """What the server says to a packet as it saw it."""
    back = replace(sent, src=sent.dst, dst=sent.src, sport=sent.dport, dport=sent.sport)
    if sent.proto == TCP:
        return replace(back, flags=SYN | ACK, seq=900, ack=sent.seq + 1)
    if sent.proto == packets.ICMP:
        return replace(back, sport=sent.sport, dport=0, icmp_type=packets.ECHO_REPLY)
    return back


# ---- who waits -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("mode", WAITING)
@pytest.mark.parametrize("packet", [ASK, OPEN, PING], ids=["udp", "tcp", "icmp"])
def test_the_first_packet_leaves_once_the_peer_could_go_on(mode: Commit, packet: Packet) -> None:
    """Spec: B1, R18."""
    with committed(mode) as pair:
        out = pair.a.outbound(packet)
        assert (out.verdict, out.out) == ("held", Out.WAIT)
        assert pair.tell() == 1
        assert pair.released() == []
        (sent,) = pair.ack()
        assert (sent.verdict, sent.out, sent.out_port) == ("snat", Out.WIRE, WAN)
        # The moment of truth: a dies, and the server's answer comes to b.
        pair.take_over()
        back = pair.b.receive(answer(packets.parse(sent.data)))
        assert (back.dst, back.src) == (packet.src, packet.dst)


def test_async_never_waits() -> None:
    """Spec: B1; R17 is what it costs."""
    with committed(Commit.ASYNC) as pair:
        pair.a.send(ASK)
        pair.wait_ms(3)
        pair.tell()
        pair.ack()
        stats = pair.stats()
        assert (sum(stats.lag), sum(stats.hold), stats.hold_unheld) == (1, 0, 0)


def test_strict_does_not_leave_for_an_acknowledgement_that_refuses() -> None:
    """Spec: B1. It leaves once a sweep has told it anew, and the peer has taken it."""
    with committed(Commit.STRICT) as pair:
        pair.a.outbound(ASK)
        assert pair.refuse() == 1
        assert pair.ack() == []
        assert pair.fates() == [Fate.UNACKED]
        pair.wait_ms(4000)
        assert (pair.a.counter("hold_dropped"), pair.stats().hold_dropped) == (1, 1)
        assert pair.a.outbound(ASK).verdict == "held"
        pair.a.fastpath.sweep_start()
        assert pair.tell() == 1
        assert verdicts(pair.ack()) == ["snat"]
        assert pair.fates() == [Fate.LIVES]
        assert pair.stats().unacked_sessions == 0


def test_bounded_waits_its_time_for_what_the_peer_refuses() -> None:
    """Spec: B1. Then it leaves, counted; and it is known to die with this node until the peer takes it."""
    with committed(Commit.BOUNDED) as pair:
        pair.a.outbound(ASK)
        pair.refuse()
        assert pair.ack() == []
        assert verdicts(pair.wait_ms(HOLD_MS)) == ["snat"]
        stats = pair.stats()
        assert (stats.hold_expired, stats.hold_released, stats.unacked_sessions) == (1, 0, 0)
        assert pair.fates() == [Fate.UNACKED]
        pair.a.fastpath.sweep_start()
        pair.tell()
        pair.ack()
        assert pair.fates() == [Fate.LIVES]


def test_a_refusal_of_what_was_told_anew_meanwhile_says_nothing() -> None:
    """A sweep has begun since; the peer's word on what it told is yet to come, and is the one that counts."""
    with committed(Commit.STRICT) as pair:
        pair.a.outbound(ASK)
        (first,) = pair.a.fastpath.drain()
        pair.a.fastpath.sweep_start()
        pair.tell()
        pair.a.fastpath.refused(first.marks, first.sections, range(first.n))
        assert verdicts(pair.ack()) == ["snat"]
        assert pair.fates() == [Fate.LIVES]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_full_table_says_which_records_it_did_not_take(n_workers: int) -> None:
    """Spec: B1. One that is full keeps what it has."""
    config = replace(packets.node_config(), n_workers=n_workers)
    with nat_node(config) as a, nat_node(replace(config, flow_cap=64), role=PASSIVE) as b:
        a.fastpath.track_changes(on=True)
        for i in range(200):
            a.outbound(replace(ASK, sport=5000 + i))
        told = taken = 0
        while batches := a.fastpath.drain():
            for batch in batches:
                taken += (n := b.fastpath.import_sections(batch.sections).taken)
                missing = b.fastpath.not_taken(batch.n)
                told += batch.n
                assert n + len(missing) == batch.n
                assert list(missing) == sorted(set(missing))
        assert told == 200
        assert taken == sum(sum(page.counts().values()) for page in b.fastpath.fates())
        assert 0 < taken < 100


@pytest.mark.parametrize("mode", WAITING)
def test_packets_wait_in_order_and_are_those_that_came(mode: Commit) -> None:
    """Spec: B1. Of a handshake that goes on meanwhile nothing is lost, and windows are learned as ever."""
    with committed(mode) as pair:
        sent = [replace(ASK, payload=bytes([i]) * (1 + 20 * i)) for i in range(30)]
        assert {pair.a.outbound(packet).verdict for packet in sent} == {"held"}
        pair.tell()
        got = [packets.parse(frame.data) for frame in pair.ack()]
        assert [packet.payload for packet in got] == [packet.payload for packet in sent]
        assert pair.a.send(ASK).payload == b"q"
        assert pair.a.counter("held") == 30
        assert pair.stats().hold_released == 30


@pytest.mark.parametrize("mode", WAITING)
def test_the_second_life_of_a_connection_waits_again(mode: Commit) -> None:
    """Spec: B1. The peer has the ends, but another session."""
    with committed(mode) as pair:
        pair.a.outbound(OPEN)
        pair.tell()
        (syn,) = pair.ack()
        refusal = replace(answer(packets.parse(syn.data)), flags=RST | ACK)
        pair.a.receive(refusal)
        again = replace(OPEN, seq=50_000)
        assert pair.a.outbound(again).verdict == "held"
        pair.tell()
        assert verdicts(pair.ack()) == ["snat"]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_an_inside_host_known_by_our_address(n_workers: int) -> None:
    """Spec: B1, RFC 4787 REQ-9: two sessions, perhaps of two workers; the packet waits for both."""
    with committed(Commit.STRICT, n_workers=n_workers, filtering=Filtering.EIF) as pair:
        pair.a.outbound(replace(ASK, src=packets.CLIENTS[1], sport=6000))
        pair.tell()
        (frame,) = pair.ack()
        exposed = packets.parse(frame.data)
        call = replace(ASK, dst=exposed.src, dport=exposed.sport)
        assert pair.a.outbound(call).verdict == "held"
        pair.tell()
        assert verdicts(pair.ack()) == ["held"]
        pair.tell()
        (reached,) = pair.ack()
        assert (reached.verdict, reached.out_port) == ("hairpin", LAN)
        assert packets.parse(reached.data).dst == packets.CLIENTS[1]
        assert pair.a.counter("hairpin") == 1


# ---- for how long --------------------------------------------------------------------------------------
def test_bounded_waits_for_hold_ms_and_then_no_more() -> None:
    """Spec: B1. Degrading is automatic, counted, and over once the peer is fast again."""
    with committed(Commit.BOUNDED) as pair:
        pair.a.outbound(ASK)
        assert pair.wait_ms(HOLD_MS - 0.001) == []
        assert verdicts(pair.wait_ms(0.001)) == ["snat"]
        stats = pair.stats()
        assert (stats.degraded, stats.hold_expired) == (0, 1), "one hiccup is no slow peer"
        pair.wait_ms(100)
        assert pair.a.outbound(replace(ASK, sport=4001)).verdict == "held"
        assert verdicts(pair.wait_ms(HOLD_MS)) == ["snat"]
        stats = pair.stats()
        assert (stats.degraded, stats.degraded_times, stats.hold_expired) == (1, 1, 2)
        pair.a.send(replace(ASK, sport=5001))
        assert pair.stats().hold_unheld == 1
        # The peer answers again: what it was told long ago proves nothing.
        pair.wait_ms(5000)
        pair.tell()
        pair.ack()
        assert pair.stats().degraded == 1
        pair.wait_ms(500)
        pair.a.send(replace(ASK, sport=5002))
        pair.wait_ms(2)
        pair.tell()
        pair.ack()
        assert pair.stats().degraded == 0
        assert pair.a.outbound(replace(ASK, sport=5003)).verdict == "held"


def test_strict_drops_what_waits_in_vain_and_says_so() -> None:
    """Spec: B1."""
    with committed(Commit.STRICT) as pair:
        pair.a.outbound(ASK)
        pair.a.outbound(ASK)
        assert pair.wait_ms(2999) == []
        assert pair.wait_ms(1) == []
        assert pair.a.counter("hold_dropped") == 2
        stats = pair.stats()
        assert (stats.hold_dropped, stats.held_frames, stats.held_sessions, stats.degraded) == (2, 0, 1, 0)
        assert pair.a.outbound(ASK).verdict == "held"
        pair.tell()
        assert verdicts(pair.ack()) == ["snat"]


@pytest.mark.parametrize("mode", WAITING)
def test_without_a_peer_nothing_waits(mode: Commit) -> None:
    """Spec: B1. The peer goes: what waits leaves at once; the next ones do not wait."""
    with committed(mode) as pair:
        pair.a.outbound(ASK)
        pair.a.outbound(replace(ASK, sport=5001))
        pair.a.fastpath.set_commit(on=False)
        assert verdicts(pair.released()) == ["snat", "snat"]
        pair.a.send(replace(ASK, sport=5002))
        assert pair.stats().held_sessions == 0


@pytest.mark.parametrize("mode", WAITING)
def test_a_node_that_is_no_longer_active_drops_what_waits(mode: Commit) -> None:
    """Spec: B1, R5."""
    with committed(mode) as pair:
        pair.a.outbound(ASK)
        pair.a.fastpath.set_role(PASSIVE, 3)
        assert pair.released() == []
        assert (pair.a.counter("fenced"), pair.stats().held_frames) == (1, 0)


# ---- room ----------------------------------------------------------------------------------------------
def test_room_is_bounded() -> None:
    """Spec: B1. Who is new passes when there is no room; who waits already cannot overtake himself."""
    with committed(Commit.BOUNDED, hold_frames=8) as pair:
        for i in range(8):
            assert pair.a.outbound(replace(ASK, sport=5000 + 2 * i)).verdict == "held"
        assert pair.a.outbound(ASK).verdict == "hold_full"
        pair.a.send(replace(ASK, sport=6000))
        stats = pair.stats()
        assert (stats.held_frames, stats.hold_full, stats.hold_unheld) == (8, 1, 1)
        assert stats.held_bytes == 8 * len(ASK.from_lan())
        pair.tell()
        assert verdicts(pair.ack()) == ["snat"] * 8


# ---- rules ---------------------------------------------------------------------------------------------
def rule(port: int, **keys: object) -> Rule:
    return Rule(Action.ALLOW, services=(Service(UDP, port, port),), **keys)  # type: ignore[arg-type]


def test_each_rule_has_its_mode_and_its_filter() -> None:
    """Spec: B1. What is not told at once waits for nothing."""
    rules = (
        rule(1001, commit=Commit.ASYNC),
        rule(1002, commit=Commit.STRICT),
        rule(1003, sync=SyncFilter.NO),
        rule(1004, sync=SyncFilter.AFTER, sync_after_s=5, commit=Commit.STRICT),
        rule(1005),
    )
    wanted = {1001: "snat", 1002: "held", 1003: "snat", 1004: "snat", 1005: "held", 1006: "held"}
    with committed(Commit.BOUNDED, policy=Policy(rules)) as pair:
        got = {port: pair.a.outbound(replace(ASK, sport=port, dport=port)).verdict for port in wanted}
        assert got == wanted
        left = {packets.parse(frame.data).dport for frame in pair.wait_ms(HOLD_MS)}
        assert left == {1005, 1006}
        pair.tell()
        assert [packets.parse(frame.data).dport for frame in pair.ack()] == [1002]


def test_a_session_that_a_rule_closes_takes_what_waits_with_it() -> None:
    """Spec: B1."""
    with committed(Commit.STRICT, policy=Policy()) as pair:
        pair.a.outbound(ASK)
        pair.a.fastpath.commit_policy(Policy(default_outbound=Action.DENY))
        assert sum(pair.a.fastpath.review_policy()) == 1
        assert (pair.a.counter("hold_dropped"), pair.stats().held_frames) == (1, 0)


def test_odd_values_are_refused() -> None:
    config = replace(packets.node_config(), sync=SyncConfig(hold_ms=1001))
    with pytest.raises(FastpathError, match=r"sync\.hold_ms"), nat_node(config):
        pass
    config = replace(packets.node_config(), sync=SyncConfig(hold_frames=40_000))
    with pytest.raises(FastpathError, match=r"sync\.hold_frames"), nat_node(config):
        pass


# ---- the property --------------------------------------------------------------------------------------
@pytest.mark.parametrize("n_workers", [1, 4])
@pytest.mark.parametrize("mode", WAITING)
@pytest.mark.parametrize("seed", range(5))
def test_whatever_has_left_survives(seed: int, mode: Commit, n_workers: int) -> None:
    """Spec: B1, R18. At any moment b holds each session of which a packet has left a; in order of arrival."""
    rng = random.Random(seed)
    with committed(mode, n_workers=n_workers) as pair:
        numbers: dict[int, int] = {}
        left: dict[int, int] = {}

        def look(frames: list[SteppedFrame]) -> None:
            held = {(flow.inside_port, flow.external_port) for flow in pair.b.flows()}
            for frame in frames:
                assert frame.verdict == "snat"
                sent = packets.parse(frame.data)
                session, number = sent.dport, int.from_bytes(sent.payload, "big")
                assert (10_000 + session, sent.sport) in held
                assert number == left.get(session, 0)
                left[session] = number + 1

        for _ in range(400):
            what = rng.random()
            if what < 0.6:
                session = rng.randrange(1, 60)
                number = numbers.get(session, 0)
                packet = replace(
                    ASK, sport=10_000 + session, dport=session, payload=number.to_bytes(4, "big")
                )
                out = pair.a.outbound(packet)
                assert out.verdict in {"held", "snat", "hold_full"}
                if out.verdict != "hold_full":
                    numbers[session] = number + 1
                if out.verdict == "snat":
                    look([out])
            elif what < 0.75:
                pair.tell()
            elif what < 0.9:
                look(pair.ack())
            elif mode is Commit.STRICT:
                look(pair.wait_ms(rng.random() * 20))
        pair.tell()
        look(pair.ack())
        assert left == numbers
        assert sum(pair.a.fastpath.sync_stats(w).held_frames for w in range(n_workers)) == 0
