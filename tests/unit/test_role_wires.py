# SPDX-License-Identifier: Apache-2.0
"""What a planned move does with the wires: nothing is lost while nobody forwards. Spec: R15, B3."""

from __future__ import annotations

import pytest
from cores import Core, config, garps, only, peer_info, received, records, roles, sent

from flexha.core import node, role
from flexha.core.actions import Action, Reply, SetPulse, SetRole, SetWires, Stop
from flexha.core.events import (
    Command,
    Fenced,
    OperatorAsked,
    PeerHeard,
    Role,
    StopRequested,
    SweepWalked,
    SyncClosed,
    TimerFired,
    Wires,
    WiresSettled,
)
from flexha.core.heartbeat import PeerLost
from flexha.core.role_state import RaiseRouters, RoleState, Wire
from flexha.core.shards import ALL
from flexha.core.sync_sender import Drained
from flexha.core.sync_wire import Ack, Go, PassedOn, Want
from flexha.units import Ns, Term


def names(actions: tuple[Action, ...]) -> list[str]:
    return [type(action).__name__ for action in actions]


def wires(actions: tuple[Action, ...]) -> list[Wires]:
    """What was done with the wires, in order."""
    return [action.mode for action in only(actions, SetWires)]


def handing_over(command: Command = Command.FAILOVER) -> Core:
    """The word is given, and the peer has not been heard to reign."""
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(7, command))
    assert Go(Term(3), passes_on=True) in sent(core.settle())
    return core


def heir(*, passes_on: bool = True) -> tuple[Core, tuple[Action, ...]]:
    """A node that has just taken the word, and what it did then."""
    core = Core(config(0)).become_passive()
    return core, core.do(received(Go(Term(4), passes_on=passes_on)))


# ---- the old ACTIVE ----------------------------------------------------------------------------------
def test_the_wires_are_parked_before_the_fence() -> None:
    core = Core(config(0), prompt_wires=False).with_ready_peer()
    actions = core.do(OperatorAsked(7, Command.FAILOVER))
    assert wires(actions) == [Wires.PARK]
    assert roles(actions) == [], "what was read before is still under way"
    assert roles(core.do(WiresSettled(Wires.PARK))) == [(Role.JOINING, 2)]


def test_workers_that_do_not_come_to_rest_are_not_waited_for() -> None:
    core = Core(config(0), prompt_wires=False).with_ready_peer()
    core.do(OperatorAsked(7, Command.FAILOVER))
    assert roles(core.sleep(99)) == []
    assert roles(core.sleep(2)) == [(Role.JOINING, 2)]
    assert roles(core.do(WiresSettled(Wires.PARK))) == []


@pytest.mark.parametrize("command", [Command.FAILOVER, Command.MAINTENANCE_ENTER])
def test_what_waited_is_passed_on_when_the_heir_reigns(command: Command) -> None:
    core = handing_over(command)
    assert wires(core.do(PeerHeard(peer_info(Role.JOINING, 2)))) == []
    actions = core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))
    assert wires(actions) == [Wires.PASS_ON]
    assert PassedOn(Term(3)) in sent(actions)
    assert wires(core.sleep(999)) == []
    assert wires(core.sleep(2)) == [Wires.READ]


def test_the_conduit_stands_before_the_wires_are_read() -> None:
    """What they hold for this node's own MAC goes there: who reads before, drops it."""
    core = handing_over()
    actions = core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))
    order = [name for name in names(actions) if name in ("SetConduit", "SetWires")]
    assert order == ["SetConduit", "SetWires"]


def test_the_heir_is_told_once_it_has_all() -> None:
    core = handing_over()
    core.prompt_wires = False
    assert sent(core.do(PeerHeard(peer_info(Role.ACTIVE, 3))))[-1] != PassedOn(Term(3))
    assert sent(core.do(WiresSettled(Wires.PARK))) == [], "settled long ago"
    assert sent(core.do(WiresSettled(Wires.PASS_ON))) == [PassedOn(Term(3))]


def test_a_word_that_nobody_takes_parks_for_half_a_second() -> None:
    core = handing_over()
    assert wires(core.sleep(499)) == []
    assert wires(core.sleep(2)) == [Wires.READ]
    core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))
    assert node.next_deadline(core.state) is not None


def test_a_handover_that_fails_before_the_fence_reads_on() -> None:
    core = Core(config(0), prompt_wires=False).with_ready_peer()
    core.do(OperatorAsked(7, Command.FAILOVER))
    actions = core.do(Fenced(Term(9)))
    assert wires(actions) == [Wires.READ]
    assert [reply.ok for reply in only(actions, Reply)] == [False]


def test_a_connection_that_breaks_meanwhile_is_found_behind_the_fence() -> None:
    core = Core(config(0), prompt_wires=False).with_ready_peer()
    core.do(OperatorAsked(7, Command.FAILOVER))
    assert roles(core.do(SyncClosed("cut"))) == []
    actions = core.do(WiresSettled(Wires.PARK))
    assert roles(actions) == [(Role.JOINING, 2), (Role.ACTIVE, 4)]
    assert wires(actions) == [Wires.READ]
    (reply,) = only(actions, Reply)
    assert reply.text == "not handed over: sync is down, not sending"


def test_a_role_that_is_taken_back_forwards_what_waited() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(7, Command.FAILOVER))
    assert core.role is Role.JOINING
    actions = core.silence()
    order = [action for action in actions if isinstance(action, SetRole | SetWires)]
    assert order == [SetRole(Role.ACTIVE, Term(4)), SetWires(Wires.READ)]


def test_a_claim_that_waits_for_the_disk_keeps_them_parked_for_half_a_second() -> None:
    core = Core(config(0)).with_ready_peer()
    core.prompt_disk = False
    core.do(OperatorAsked(7, Command.FAILOVER))
    assert wires(core.silence()) == []
    assert wires(core.sleep(499)) == []
    assert wires(core.sleep(2)) == [Wires.READ]
    assert core.state.role.claim is not None


def test_a_node_that_stops_passes_on_for_a_moment() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(StopRequested())
    core.settle()
    assert wires(core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))) == [Wires.PASS_ON]
    assert only(core.sleep(99), Stop) == []
    assert only(core.sleep(2), Stop) == [Stop()]


# ---- the heir ----------------------------------------------------------------------------------------
def test_an_heir_announces_nothing_before_it_has_what_waited() -> None:
    core, actions = heir()
    order = [name for name in names(actions) if name in ("SetWires", "SetRole")]
    assert order == ["SetWires", "SetRole"], "parked before it forwards"
    assert garps(actions) == []
    assert only(actions, SetPulse)[-1].burst, "the old one waits to hear of it"
    core.sleep(1)
    assert garps(core.do(PeerHeard(peer_info(Role.JOINING, 3)))) == [], "heard late that it reigns no more"
    assert wires(core.do(received(PassedOn(Term(3))))) == [], "of another reign"
    actions = core.do(received(PassedOn(Term(4))))
    assert wires(actions) == [Wires.READ]
    assert garps(actions) == ["lan", "wan"]
    assert records(actions, "announced") == [{"term": 4, "complete": True}]
    assert wires(core.do(received(PassedOn(Term(4))))) == []


def test_an_heir_does_not_wait_for_ever() -> None:
    core, _ = heir()
    assert garps(core.sleep(49)) == []
    actions = core.sleep(2)
    assert wires(actions) == [Wires.READ]
    assert garps(actions) == ["lan", "wan"]
    assert records(actions, "announced") == [{"term": 4, "complete": False}]


def test_a_peer_of_an_earlier_version_passes_nothing_on() -> None:
    core, actions = heir(passes_on=False)
    assert wires(actions) == []
    assert garps(actions) == ["lan", "wan"]
    assert core.state.role.wires is Wires.READ


def test_an_heir_that_stops_at_once_reads_its_wires() -> None:
    core, _ = heir()
    actions = core.do(StopRequested())
    assert wires(actions) == [Wires.READ]
    assert only(actions, Stop) == [Stop()]
    assert core.do(TimerFired()) == ()


def test_an_heir_that_hands_over_in_vain_reads_its_wires() -> None:
    """Found by the model: the move back began before what waited had come, and the peer went meanwhile."""
    peer = peer_info(Role.PASSIVE, 2, ready=True)
    state = RoleState(
        index=0,
        priority=150,
        preempt=False,
        hold=Ns(1),
        role=Role.ACTIVE,
        term=Term(4),
        peer=peer,
        wire=Wire.FREE,
        heir=True,
        wires=Wires.PARK,
        wires_until=Ns(50),
    )
    state, _ = role.step(state, OperatorAsked(7, Command.FAILOVER), Ns(1))
    state, _ = role.step(state, Drained(), Ns(2))
    assert state.wires_until is None
    state, actions = role.step(state, PeerLost("peer-bye", peer), Ns(3))
    assert (state.role, state.wires, state.heir) == (Role.ACTIVE, Wires.READ, False)
    assert RaiseRouters() in actions


def test_an_heir_that_is_late_announces_as_ever() -> None:
    """The old ACTIVE died before its word could be taken: there is nobody to wait for."""
    core = Core(config(0)).become_passive()
    core.do(PeerHeard(peer_info(Role.JOINING, 3)))
    actions = core.silence()
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert wires(actions) == []
    assert garps(actions) == ["lan", "wan"]


def test_an_heir_that_hands_over_in_turn_stays_parked() -> None:
    """What is passed on to it comes while it waits for its own workers; found by the model."""
    core, _ = heir()
    core.prompt_wires = False
    core.hear(peer_info(Role.PASSIVE, 4, ready=True))
    core.do(received(core.peer_hello(Role.PASSIVE), Want(None, 0)))
    core.do(SweepWalked(ALL), received(Ack(2)))
    core.agree()
    assert wires(core.do(OperatorAsked(7, Command.FAILOVER))) == [Wires.PARK]
    actions = core.do(received(PassedOn(Term(4))))
    assert wires(actions) == []
    assert garps(actions) == ["lan", "wan"], "it reigns yet"
    assert roles(core.do(WiresSettled(Wires.PARK))) == [(Role.JOINING, 4)]
    assert Go(Term(5), passes_on=True) in sent(core.settle())
    assert wires(core.sleep(501)) == [Wires.READ]
    due = node.next_deadline(core.state)
    assert due is None or due > core.now
