# SPDX-License-Identifier: Apache-2.0
"""Heartbeats across the boundary: C and the Python codec agree on each byte, and events come out typed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import replace

import packets
import pytest

from flexha.core import heartbeat_wire
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import Role
from flexha.fastpath import Fastpath, FastpathError, Fence, HeartbeatFlag, PulseEvent, PulseKind
from flexha.units import TERM_MAX, Ns, Term

MS = 1_000_000
NOW = 5000 * MS
OWN_INCARNATION = 1000


@pytest.fixture
def node() -> Iterator[Fastpath]:
    with Fastpath(packets.node_config(0)) as fastpath:
        fastpath.test_pulse_tick(NOW)
        yield fastpath


def heartbeat(**changes: object) -> heartbeat_wire.Heartbeat:
    """What node b says."""
    said = heartbeat_wire.Heartbeat(
        node=1,
        role=Role.PASSIVE,
        flags=HeartbeatFlag.READY,
        pair_id=7,
        interval_ms=50,
        incarnation=77,
        term=Term(4),
        seq=1,
        priority=100,
        control_beat=3,
        t_ns=Ns(NOW),
        echo=OWN_INCARNATION,
        heard=NOW,
    )
    return replace(said, **changes)  # type: ignore[arg-type]


def encode(path: int = 1, **changes: object) -> bytes:
    return heartbeat_wire.encode(heartbeat(**changes), key=packets.MAC_KEY, path=path)


def decode(payload: bytes, *, own_node: int = 0, path: int = 1) -> heartbeat_wire.Heartbeat:
    return heartbeat_wire.decode(payload, own_node=own_node, own_pair_id=7, key=packets.MAC_KEY, path=path)


def hear(fastpath: Fastpath, path: int = 1, at: int = NOW, **changes: object) -> list[PulseEvent]:
    fastpath.test_pulse_rx(path, encode(path, **changes), at)
    fastpath.test_pulse_tick(at)
    return fastpath.pulse_events()


def test_what_c_sends_python_decodes(node: Fastpath) -> None:
    node.set_role(Role.ACTIVE, 12)
    node.set_pulse(HeartbeatFlag.READY | HeartbeatFlag.WAN_UP, 150)
    node.control_beat()
    node.control_beat()
    payload = node.test_heartbeat()
    said = decode(payload, own_node=1, path=0)
    assert said == heartbeat_wire.Heartbeat(
        node=0,
        role=Role.ACTIVE,
        flags=HeartbeatFlag.READY | HeartbeatFlag.WAN_UP,
        pair_id=7,
        interval_ms=50,
        incarnation=1000,
        term=Term(12),
        seq=1,
        priority=150,
        control_beat=2,
        t_ns=Ns(NOW),
    )
    assert heartbeat_wire.encode(said, key=packets.MAC_KEY, path=0) == payload


def test_what_python_encodes_c_hears(node: Fastpath) -> None:
    up, peer = hear(node, path=2, role=Role.ACTIVE, flags=HeartbeatFlag.READY | HeartbeatFlag.BYE)
    assert (up.kind, up.path, up.t_ns) == (PulseKind.PATH_UP, 2, NOW)
    assert (peer.kind, peer.path) == (PulseKind.PEER, 2)
    assert peer.peer.role == Role.ACTIVE
    assert peer.peer.flags == HeartbeatFlag.READY | HeartbeatFlag.BYE
    assert (peer.peer.term, peer.peer.incarnation, peer.peer.priority, peer.peer.control_beat) == (
        4,
        77,
        100,
        3,
    )


def test_repetition_is_no_news(node: Fastpath) -> None:
    assert len(hear(node)) == 2
    assert hear(node, at=NOW + 50 * MS, seq=2, control_beat=4) == []
    (changed,) = hear(node, at=NOW + 100 * MS, seq=3, term=Term(6))
    assert (changed.kind, changed.peer.term) == (PulseKind.PEER, 6)


def test_silence(node: Fastpath) -> None:
    hear(node)
    for ms in (50, 100, 149):
        node.test_pulse_tick(NOW + ms * MS)
    assert node.pulse_events() == []
    assert node.path_stats()[1].alive
    node.test_pulse_tick(NOW + 150 * MS)
    (down,) = node.pulse_events()
    assert (down.kind, down.path) == (PulseKind.PATH_DOWN, 1)
    assert not node.path_stats()[1].alive


def test_higher_term_fences_at_once(node: Fastpath) -> None:
    """Spec: DESIGN §3: a higher term heard anywhere fences at once."""
    node.set_role(Role.ACTIVE, 4)
    events = hear(node, role=Role.ACTIVE, term=Term(5))
    assert PulseKind.FENCED in {event.kind for event in events}
    assert node.fence() == Fence(Role.PASSIVE, 4)
    with pytest.raises(FastpathError) as caught:
        node.set_role(Role.ACTIVE, 4)
    assert caught.value.errno == errno.ESTALE
    node.set_role(Role.PASSIVE, 5)


def test_counters(node: Fastpath) -> None:
    hear(node, seq=10)
    hear(node, seq=14)
    for damage in (b"", b"FXHB", bytes(72), encode(node=0, seq=20), encode(2, seq=20)):
        with pytest.raises(FastpathError) as caught:
            node.test_pulse_rx(1, damage, NOW)
        assert caught.value.errno == errno.EBADMSG
    stats = node.path_stats()
    assert len(stats) == 3
    assert (stats[1].received, stats[1].lost, stats[1].bad) == (2, 3, 5)
    assert stats[1].last_heard_ns == NOW
    assert stats[2].last_heard_ns == 0


@pytest.mark.parametrize(
    "changes",
    [{"pair_id": 8}, {"node": 0}, {"interval_ms": 0}, {"term": TERM_MAX + 1}, {"seq": 0}],
    ids=["another pair", "ourselves", "interval 0", "term above the limit", "number 0"],
)
def test_refused_by_both(node: Fastpath, changes: dict[str, int]) -> None:
    with pytest.raises(FastpathError):
        hear(node, **changes)
    assert node.pulse_events() == []
    with pytest.raises(RemoteProtocolError):
        decode(encode(**changes))


def test_forged(node: Fastpath) -> None:
    """Whatever it says, a heartbeat without the pair's key changes nothing. Spec: R4, R13."""
    node.set_role(Role.ACTIVE, 4)
    hear(node)
    for path, key in ((1, bytes(16)), (2, packets.MAC_KEY)):
        lie = heartbeat(role=Role.ACTIVE, term=Term(1000), incarnation=0xDEAD)
        with pytest.raises(FastpathError) as caught:
            node.test_pulse_rx(1, heartbeat_wire.encode(lie, key=key, path=path), NOW)
        assert caught.value.errno == errno.EBADMSG
    assert node.fence() == Fence(Role.ACTIVE, 4)
    assert node.path_stats()[1].bad == 2
    assert hear(node, seq=2) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"seq": 1},
        {"seq": 9, "incarnation": 76},
        {"seq": 9, "echo": OWN_INCARNATION - 1},
        {"seq": 9, "echo": 0},
        {"seq": 9, "heard": NOW - 801 * MS, "t_ns": Ns(NOW - 801 * MS)},
        {"seq": 9, "heard": 0, "t_ns": Ns(NOW - 501 * MS)},
    ],
    ids=[
        "a number heard",
        "a past life of the peer",
        "a past life of ours",
        "heard nobody",
        "held back",
        "held back, of a deaf peer",
    ],
)
def test_replayed(node: Fastpath, changes: dict[str, int]) -> None:
    """Authentic, and not new: counted, and nothing else. Spec: R4."""
    hear(node)
    with pytest.raises(FastpathError) as caught:
        hear(node, role=Role.ACTIVE, term=Term(9), **changes)
    assert caught.value.errno == errno.ESTALE
    assert (node.path_stats()[1].received, node.path_stats()[1].replayed) == (1, 1)
    assert node.pulse_events() == []
    assert len(hear(node, seq=2, term=Term(6))) == 1


def test_an_introduction_is_answered_and_then_believed(node: Fastpath) -> None:
    """Each of the two proves that it has heard the other one. Spec: R4."""
    with pytest.raises(FastpathError):
        hear(node, echo=0)
    assert not node.path_stats()[1].alive
    assert node.path_stats()[1].replayed == 0
    assert decode(node.test_heartbeat(), own_node=1, path=0).echo == 0  # introduced elsewhere
    assert [event.kind for event in hear(node, seq=2)] == [PulseKind.PATH_UP, PulseKind.PEER]
    assert decode(node.test_heartbeat(), own_node=1, path=0).echo == 77


def test_keys_are_changed(node: Fastpath) -> None:
    old, new = packets.MAC_KEY, bytes(range(1, 17))
    node.set_pulse_keys([old, new])
    assert hear(node)
    assert decode(node.test_heartbeat(), own_node=1, path=0).node == 0
    node.test_pulse_rx(1, heartbeat_wire.encode(heartbeat(seq=2), key=new, path=1), NOW)
    node.set_pulse_keys([new])
    with pytest.raises(FastpathError) as caught:
        hear(node, seq=3)
    assert caught.value.errno == errno.EBADMSG
    for wrong in ([], [old, new, old], [bytes(16)]):
        with pytest.raises(FastpathError) as caught:
            node.set_pulse_keys(wrong)
        assert caught.value.errno == errno.EINVAL


def test_the_highest_term_can_be_followed(node: Fastpath) -> None:
    """What passes the wire, the fence takes: a peer cannot name a term that ends the daemon."""
    hear(node, role=Role.ACTIVE, term=TERM_MAX)
    node.set_role(Role.PASSIVE, TERM_MAX)
    with pytest.raises(FastpathError) as caught:
        node.set_role(Role.PASSIVE, TERM_MAX + 1)
    assert caught.value.errno == errno.EINVAL


def test_path_that_does_not_exist(node: Fastpath) -> None:
    payload = encode()
    with pytest.raises(FastpathError) as caught:
        node.test_pulse_rx(3, payload, NOW)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(FastpathError) as caught:
        node.test_pulse_rx(0, payload, NOW)  # xc is not configured here
    assert caught.value.errno == errno.EBADMSG
