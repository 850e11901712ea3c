# SPDX-License-Identifier: Apache-2.0
"""Too many moves of the role suspend those that nobody ordered; the rest goes on. Spec: R13, R15."""

from __future__ import annotations

from dataclasses import replace

from cores import Core, config, peer_info, received, records, roles, sent

from flexha.core import damp, node
from flexha.core.damp import Damp, DampLimits
from flexha.core.events import Command, OperatorAsked, PeerHeard, PortChanged, Role
from flexha.core.role_state import Motive
from flexha.core.sync_wire import Go
from flexha.units import EPOCH, NS_PER_S, Ns, Term

LIMITS = DampLimits(moves=2, window_s=10, suspend_s=30)


def at(seconds: float) -> Ns:
    return Ns(int(seconds * NS_PER_S))


def test_only_moves_within_the_window_count() -> None:
    flaps = damp.moved(Damp(), LIMITS, EPOCH)
    assert not damp.is_full(flaps, LIMITS, EPOCH)
    flaps = damp.moved(flaps, LIMITS, at(6))
    assert damp.is_full(flaps, LIMITS, at(9.9))
    assert not damp.is_full(flaps, LIMITS, at(10))
    assert len(damp.moved(damp.moved(flaps, LIMITS, at(7)), LIMITS, at(8)).moves) == LIMITS.moves


def test_what_the_peer_has_counted_goes_on() -> None:
    assert damp.is_full(damp.inherited(2, LIMITS, at(3)), LIMITS, at(12))
    assert damp.inherited(99, LIMITS, EPOCH).moves == (EPOCH, EPOCH)


# ---- through the node ------------------------------------------------------------------------------------
def flapping() -> Core:
    """An ACTIVE node, the peer ready, that has been given the role by a peer that counted all it may."""
    core = Core(replace(config(0), damping=LIMITS)).become_passive()
    core.do(received(Go(Term(core.term + 1), moves=LIMITS.moves)))
    assert core.role is Role.ACTIVE
    return core


def peer(core: Core, *, ready: bool = True) -> PeerHeard:
    return PeerHeard(peer_info(Role.PASSIVE, core.term, ready=ready))


def motive(core: Core) -> Motive | None:
    handover = core.state.role.handover
    return None if handover is None else handover.motive


def test_one_move_too_many_is_suspended_and_then_made() -> None:
    core = flapping()
    actions = core.do(PortChanged("wan", up=False), peer(core))
    assert records(actions, "moves-suspended") == [{"motive": "track", "moves": 2, "for_s": 30}]
    assert motive(core) is None
    assert node.status(core.state, core.now)["damping"] == {
        "moves": 0,
        "moves_max": 2,
        "suspended_s": 30.0,
    }
    assert records(core.do(peer(core, ready=False), peer(core)), "moves-suspended") == [], "said once"
    assert records(core.sleep(29_900), "handover-begun") == []
    later = core.sleep(200)
    assert records(later, "moves-resumed") == [{}]
    assert [record["motive"] for record in records(later, "handover-begun")] == ["track"]


def test_a_suspension_is_an_alarm_while_it_lasts() -> None:
    """Spec: R15, R25."""
    core = flapping()
    core.do(PortChanged("wan", up=False), peer(core))
    assert {"name": "moves-suspended"} in records(core.sleep(1000), "alarm")
    shown = node.status(core.state, core.now)["alarms"]
    assert isinstance(shown, list)
    assert "moves-suspended" in [entry["name"] for entry in shown]
    over = {alarm["name"]: alarm["for_s"] for alarm in records(core.sleep(29_500), "alarm-over")}
    assert over["moves-suspended"] == 30.0


def test_the_operator_is_not_suspended() -> None:
    core = flapping()
    core.do(PortChanged("wan", up=False), peer(core))
    begun = records(core.do(OperatorAsked(1, Command.FAILOVER)), "handover-begun")
    assert [record["motive"] for record in begun] == ["operator"]


def test_a_death_is_not_suspended() -> None:
    """Whatever the dead node had counted."""
    core = Core(replace(config(0), damping=LIMITS)).become_passive()
    core.state = replace(core.state, role=replace(core.state.role, damp=damp.inherited(2, LIMITS, core.now)))
    assert roles(core.silence())[0][0] is Role.ACTIVE


def test_the_count_goes_with_the_word() -> None:
    core = Core(replace(config(0), damping=LIMITS)).with_ready_peer()
    begun = core.do(PortChanged("wan", up=False))
    told = [
        message for message in sent((*begun, *core.settle(), *core.sleep(600))) if isinstance(message, Go)
    ]
    assert [go.moves for go in told] == [1]


def test_a_suspension_ends_with_the_reign() -> None:
    """No timer of it is left, and the next reign counts what the word brings."""
    core = flapping()
    core.do(PortChanged("wan", up=False), peer(core))
    core.do(PeerHeard(peer_info(Role.ACTIVE, core.term + 1)))
    assert core.role is Role.JOINING
    assert core.state.role.damp.suspended_until is None


def test_preempt_waits_until_it_has_been_right_for_a_while() -> None:
    """And anew whenever something spoke against it."""
    core = Core(config(1, preempt=True, preempt_hold_s=10)).become_active()
    ready = peer_info(Role.PASSIVE, core.term, index=0, ready=True)
    core.hear(ready)
    assert records(core.sleep(9_000), "handover-begun") == []
    core.do(PeerHeard(replace(ready, ready=False)), PeerHeard(ready))
    assert records(core.sleep(9_900), "handover-begun") == []
    assert [record["motive"] for record in records(core.sleep(200), "handover-begun")] == ["preempt"]
