# SPDX-License-Identifier: Apache-2.0
"""What is shown until somebody has mended it. Spec: R4, R25."""

from __future__ import annotations

from typing import Any

from cores import Core, config, peer_info, records, roles

from flexha.core import node
from flexha.core.events import Hung, PathDown, PathUp, PeerHeard, Role


def shown(core: Core) -> list[Any]:
    """What ``flexhactl status`` says of alarms."""
    found = node.status(core.state, core.now)["alarms"]
    assert isinstance(found, list)
    return found


def test_a_silent_cross_connect_is_an_alarm_and_no_change_of_role() -> None:
    core = Core(config(0)).become_passive()
    assert roles(core.do(PathDown("xc"))) == []
    assert records(core.sleep(999), "alarm") == []
    assert shown(core) == []
    (alarm,) = records(core.sleep(1), "alarm")
    assert alarm["name"] == "xc-silent"
    core.sleep(2000)
    (entry,) = shown(core)
    assert (entry["name"], entry["since_s"]) == ("xc-silent", 3.0)
    assert "look at its cable" in entry["text"]
    assert records(core.do(PathUp("xc")), "alarm-over") == [{"name": "xc-silent", "for_s": 3.0}]
    assert shown(core) == []
    assert roles(core.sleep(5000)) == []


def test_paths_that_come_and_go_one_after_the_other_are_none() -> None:
    core = Core(config(0)).become_passive()
    core.do(PathDown("xc"))
    core.sleep(500)
    assert records(core.do(PathUp("xc")), "alarm-over") == []
    core.do(PathDown("xc"))
    assert records(core.sleep(999), "alarm") == []


def test_a_peer_that_is_dead_is_no_alarm_of_the_cross_connect() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(PathDown("xc"))
    assert records(core.sleep(1000), "alarm") != []
    actions = core.do(PathDown("lan"), PathDown("wan"))
    assert len(records(actions, "alarm-over")) == 1
    assert records(core.sleep(5000), "alarm") == []


def test_a_node_without_a_peer_has_no_cross_connect() -> None:
    core = Core(config(0, has_peer=False))
    core.start()
    assert records(core.sleep(5000), "alarm") == []
    assert shown(core) == []


def test_a_peer_that_hangs_is_an_alarm_whether_it_reigns_or_not() -> None:
    core = Core(config(0)).with_ready_peer()
    hung = peer_info(Role.PASSIVE, 2, hung=True)
    assert roles(core.do(PeerHeard(hung))) == []
    (alarm,) = records(core.sleep(1000), "alarm")
    assert alarm["name"] == "peer-hung"
    actions = core.do(*(PathDown(path) for path in ("xc", "lan", "wan")))
    assert [over["name"] for over in records(actions, "alarm-over")] == ["peer-hung"]


def test_a_worker_that_hangs_is_an_alarm_until_it_moves() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(Hung(frozenset({"worker"}), 0, yielded=False))
    (alarm,) = records(core.sleep(1000), "alarm")
    assert alarm["name"] == "worker-hung"
    actions = core.do(Hung(frozenset(), None, yielded=False))
    assert [over["name"] for over in records(actions, "alarm-over")] == ["worker-hung"]
    assert records(actions, "moves-again") == [{}]


def test_control_that_hung_is_none() -> None:
    """Who tells it moves again."""
    core = Core(config(0)).with_ready_peer()
    core.do(Hung(frozenset({"control"}), None, yielded=False))
    assert records(core.sleep(5000), "alarm") == []
