# SPDX-License-Identifier: Apache-2.0
"""The lab's faults do what they say: a scenario that faked its failure would prove nothing. Spec: F4."""

from __future__ import annotations

import json

import faults
import pytest
import topo
from netns.test_roles import probe
from overheard import Overheard
from pair import Node, Pair
from sandbox import Lab, now_ns, wait_until
from scenarios_stall import stalled


def link_of(lab: Lab, host: str, device: str) -> str:
    """As `bridge -d link` and `ip` tell of it."""
    told = json.loads(lab.run(host, ["ip", "-json", "-details", "link", "show", device]).stdout)[0]
    return f"{'up' if 'LOWER_UP' in told['flags'] else 'down'} {told['linkinfo']['info_slave_data']['state']}"


def test_a_switch_port_is_off_and_its_carrier_stays(lab: Lab, pair: Pair) -> None:
    """Nothing passes; the node sees its link as it was."""
    active = pair.active()
    device = f"fx-wan-{active.name}"
    assert link_of(lab, "wansw", device) == "up forwarding"
    with faults.bridge_port_off(lab, "wan", active.name):
        assert link_of(lab, "wansw", device) == "up disabled"
    assert link_of(lab, "wansw", device) == "up forwarding"


def test_active_is_heard(lab: Lab, pair: Pair) -> None:
    """Frames and adverts of the ACTIVE node; of the PASSIVE one none."""
    active = pair.active()
    passive = pair.peer(active)
    with probe(lab, pair, 390), Overheard(lab, active) as loud, Overheard(lab, passive) as quiet:
        begun_ns = now_ns()
        wait_until(lambda: now_ns() - begun_ns > 1_200_000_000, 10, "an advert interval has passed")
        said = loud.said()
        assert said.data > 500, "a datagram each millisecond, there and back"
        assert said.adverts >= 1
        assert quiet.said().first == ""


def test_the_control_plane_stalls_alone(lab: Lab, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python does not answer; the fast path forwards, and its heartbeats are heard."""
    monkeypatch.setattr("scenarios_stall.STALL_MS", 700)
    active = pair.active()
    with probe(lab, pair, 391) as udp:
        with stalled(lab, active):
            received = heard_from(pair.peer(active))
            began_ns = now_ns()
            assert active.role() == "ACTIVE", "answered once it goes on"
            assert now_ns() - began_ns > 400_000_000
            assert heard_from(pair.peer(active)) > received
        result = udp.finish()
    assert result.gap_ms < 300


def heard_from(node: Node) -> int:
    """Heartbeats of its peer, on all paths."""
    status = node.status()
    assert status is not None
    return sum(int(path["received"]) for path in status["peer"]["paths"].values())


def test_links_fall_silent_at_one_moment(lab: Lab, pair: Pair) -> None:
    """What hangs is taken for dead although its links are up, and joins its peer when it is heard again."""
    victim = pair.active()
    survivor = pair.peer(victim)
    with faults.hung(lab, victim.name) as since_ns:
        assert survivor.role() == "PASSIVE", "not before that moment"
        wait_until(lambda: survivor.role() == "ACTIVE", 10, "the peer takes over")
        took_ns = now_ns()
        assert link_of(lab, "lansw", f"fx-lan-{victim.name}") == "up forwarding"
        assert took_ns - since_ns < 2_000_000_000
        # An advert of the victim that comes before its heartbeat would end a younger reign (ADVERT_DOUBT_MS).
        wait_until(lambda: now_ns() - took_ns > 700_000_000, 5, "the survivor has reigned for a while")
    assert pair.wait_settled() is survivor


def test_a_node_without_power_comes_back(lab: Lab, pair: Pair) -> None:
    """Its namespace is gone, the peer's end of the cross-connect without carrier; then all is as built."""
    victim = pair.active()
    survivor = pair.peer(victim)
    faults.power_off(lab, victim.name)
    assert not lab.path(f"/run/netns/{victim.name}").exists()
    assert victim.pid is None
    carrier = json.loads(lab.run(survivor.name, ["ip", "-json", "link", "show", topo.XC_DEVICE]).stdout)
    assert "LOWER_UP" not in carrier[0]["flags"]
    wait_until(lambda: survivor.role() == "ACTIVE", 10, "the peer takes over")
    faults.power_on(lab, victim.name)
    victim.start()
    assert pair.wait_settled() is survivor
