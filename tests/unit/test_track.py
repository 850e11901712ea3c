# SPDX-License-Identifier: Apache-2.0
"""Which ports are usable, what they are worth, and who would do better with the role. Spec: R8, R14."""

from __future__ import annotations

import pytest
from cores import Core, batch, config, only, peer_info, records, roles

from flexha.core import track
from flexha.core.actions import SetPorts
from flexha.core.events import FlowsDrained, Hop, HopChanged, PeerHeard, PortChanged, Role, TimerFired
from flexha.core.role_state import Motive
from flexha.core.track import TrackedPort, UsableChanged
from flexha.units import EPOCH, Ns, ms

PORTS = (
    TrackedPort("dmz", inside=True, weight=10, up_ms=0),
    TrackedPort("isp1", inside=False, weight=50, up_ms=1000),
    TrackedPort("isp2", inside=False, weight=50, up_ms=1000),
    TrackedPort("lan", inside=True, weight=10, up_ms=1000),
)
ALL = frozenset(port.name for port in PORTS)


@pytest.mark.parametrize(
    ("lost_here", "lost_there", "better"),
    [
        ("", "", False),
        ("isp1", "", True),
        ("isp1", "isp2", False),  # as much is lost there
        ("isp1", "isp1", False),
        ("isp1 isp2", "isp2", True),
        ("lan", "", True),
        ("lan", "dmz", False),
        ("lan dmz", "", False),  # it is lent
        ("lan dmz isp1", "isp2", False),
        ("lan dmz isp1", "", True),
        ("isp1 isp2", "lan dmz", False),  # one has only an outside, the other only an inside
        ("isp1", "lan", True),
        ("isp1 lan", "isp2 dmz", False),
        ("isp1 isp2 lan dmz", "lan dmz isp1", True),  # nothing is left here
        ("isp1 isp2 lan dmz", "isp1 isp2", False),  # likewise
    ],
)
def test_who_would_do_better(lost_here: str, lost_there: str, better: bool) -> None:
    """And never both: the role would go to and fro."""
    here, there = (ALL - frozenset(lost.split()) for lost in (lost_here, lost_there))
    assert track.is_better(PORTS, here=here, there=there) is better
    assert not (better and track.is_better(PORTS, here=there, there=here))


def test_weights_decide_between_outside_ports() -> None:
    ports = (*PORTS[:2], TrackedPort("isp2", inside=False, weight=20, up_ms=0), PORTS[3])
    assert track.is_better(ports, here=ALL - {"isp1"}, there=ALL - {"isp2"})
    assert not track.is_better(ports, here=ALL - {"isp2"}, there=ALL - {"isp1"})


def test_a_loss_counts_at_once_and_a_return_later() -> None:
    """A loose plug: up_ms starts anew with each return."""
    tracks = track.initial(PORTS)
    tracks, outputs = track.step(tracks, PortChanged("lan", up=False), EPOCH)
    assert outputs[0] == UsableChanged(ALL - {"lan"}, ALL - {"lan"})
    for at in (ms(100), ms(900)):
        tracks, outputs = track.step(tracks, PortChanged("lan", up=True), Ns(at))
        tracks, _ = track.step(tracks, PortChanged("lan", up=False), Ns(at + ms(10)))
        assert not any(isinstance(output, UsableChanged) for output in outputs)
        assert track.next_deadline(tracks) is None
    tracks, _ = track.step(tracks, PortChanged("lan", up=True), ms(1000))
    assert track.next_deadline(tracks) == ms(2000)
    assert track.step(tracks, TimerFired(), Ns(ms(2000) - 1)) == (tracks, ())
    tracks, outputs = track.step(tracks, TimerFired(), ms(2000))
    assert outputs == (UsableChanged(ALL, ALL),)
    assert track.next_deadline(tracks) is None


def test_without_up_ms_a_return_counts_at_once() -> None:
    tracks, _ = track.step(track.initial(PORTS), PortChanged("dmz", up=False), EPOCH)
    tracks, outputs = track.step(tracks, PortChanged("dmz", up=True), EPOCH)
    assert outputs[0] == UsableChanged(ALL, ALL)


def test_a_doubt_is_told_before_it_counts() -> None:
    """So two nodes that lose the same router both know before either moves its role."""
    tracks, outputs = track.step(track.initial(PORTS), HopChanged("isp1", Hop.DOUBTED), EPOCH)
    assert outputs == (UsableChanged(ALL, ALL - {"isp1"}),)
    again, outputs = track.step(tracks, HopChanged("isp1", Hop.ANSWERS), EPOCH)
    assert (again, outputs) == (track.initial(PORTS), (UsableChanged(ALL, ALL),))
    tracks, outputs = track.step(tracks, HopChanged("isp1", Hop.SILENT), EPOCH)
    assert outputs[0] == UsableChanged(ALL - {"isp1"}, ALL - {"isp1"})
    tracks, outputs = track.step(tracks, HopChanged("isp1", Hop.ANSWERS), EPOCH)
    assert track.next_deadline(tracks) == ms(1000)
    tracks, _ = track.step(tracks, PortChanged("isp1", up=False), EPOCH)
    assert track.next_deadline(tracks) is None


# ---- through the node ------------------------------------------------------------------------------------
def test_usable_ports_are_told_to_the_peer() -> None:
    core = Core(config(0)).with_ready_peer()
    assert only(core.do(PortChanged("lan", up=False)), SetPorts)[0] == SetPorts(frozenset({"wan"}))
    assert only(core.do(PortChanged("lan", up=True)), SetPorts) == []
    assert only(core.sleep(1000), SetPorts)[-1] == SetPorts(frozenset({"lan", "wan"}))


def motive(core: Core) -> Motive | None:
    handover = core.state.role.handover
    return None if handover is None else handover.motive


def test_active_that_lost_its_wan_waits_for_a_better_peer() -> None:
    """A peer that is not ready, or has no WAN either, gets the role once that has changed."""
    core = Core(config(0)).with_ready_peer()
    core.do(PeerHeard(peer_info(Role.PASSIVE, core.term, ports_up={"lan"}, ready=True)))
    core.do(PortChanged("wan", up=False))
    core.do(PeerHeard(peer_info(Role.PASSIVE, core.term, ready=False)))
    assert motive(core) is None
    actions = core.do(PeerHeard(peer_info(Role.PASSIVE, core.term, ready=True)))
    assert motive(core) is Motive.TRACK
    begun = {"motive": "track", "term": core.term, "score": 10, "peer_score": 60}
    assert records(actions, "handover-begun") == [begun]


def test_preempt_leaves_the_role_with_whose_ports_are_worth_more() -> None:
    """Else it would come back at once."""
    for ports_up, begun in (({"lan"}, []), ({"lan", "wan"}, ["preempt"])):
        core = Core(config(1, preempt=True)).become_active()
        actions = core.hear(peer_info(Role.PASSIVE, core.term, index=0, ready=True, ports_up=ports_up))
        assert [record["motive"] for record in records(actions, "handover-begun")] == begun


def test_a_handover_for_tracking_that_failed_is_tried_again() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(FlowsDrained(batch(1).sections, 1, {0: 1}))  # and the peer never acknowledges it
    core.do(PortChanged("wan", up=False))
    failed = core.sleep(600)
    assert records(failed, "handover-failed")
    assert roles(failed) == []
    assert motive(core) is None
    core.sleep(1000)
    assert motive(core) is Motive.TRACK
