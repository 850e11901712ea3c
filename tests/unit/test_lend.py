# SPDX-License-Identifier: Apache-2.0
"""A port that ACTIVE has lost is lent to a peer that has one, and handed back in order. Spec: R8."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cores import Core, config, only

from flexha.core import lend
from flexha.core.actions import SendFrame, SetConduit, SetPorts
from flexha.core.events import PeerInfo, PortChanged, Role
from flexha.core.heartbeat import Liveness, Path
from flexha.core.lend import NONE, Loans, Situation
from flexha.core.track import TrackedPort
from flexha.units import Ns, Term, ms

PORTS = (
    TrackedPort("lan", inside=True, weight=10, up_ms=1000),
    TrackedPort("wan", inside=False, weight=50, up_ms=1000),
)
LAN, WAN = frozenset({"lan"}), frozenset({"wan"})
NOW = Ns(5_000_000_000)


def peer(role: Role = Role.PASSIVE, *, up: str = "lan wan", lent: str = "", term: int = 4) -> PeerInfo:
    return PeerInfo(
        role=role,
        term=Term(term),
        incarnation=1,
        ready=True,
        bye=False,
        priority=100,
        ports_up=frozenset(up.split()),
        lent=frozenset(lent.split()),
    )


def at(role: Role, info: PeerInfo | None, *, usable: str = "lan wan", xc: bool = True) -> Situation:
    return Situation(
        role=role,
        term=Term(4),
        hands_over=False,
        ports=PORTS,
        usable=frozenset(usable.split()),
        held=(),
        liveness=Liveness(paths={"xc": Path(xc)}, info=info, alive=info is not None),
    )


LOST = at(Role.ACTIVE, peer(), usable="wan")
LENDER = peer(Role.ACTIVE, up="wan", lent="lan")


def test_a_lost_port_is_lent_and_borrowed_side_by_side() -> None:
    assert lend.step(NONE, LOST, NOW) == Loans(lent=LAN)
    borrower = lend.step(NONE, at(Role.PASSIVE, LENDER), NOW)
    assert borrower == Loans(borrowed=LAN)
    assert (borrower.taken, borrower.told) == (LAN, LAN)


def test_both_crippled_each_has_what_the_other_lacks() -> None:
    """ACTIVE has only its LAN, PASSIVE only its WAN."""
    assert lend.step(NONE, at(Role.ACTIVE, peer(up="wan"), usable="lan"), NOW).lent == WAN
    lender = peer(Role.ACTIVE, up="lan", lent="wan")
    assert lend.step(NONE, at(Role.PASSIVE, lender, usable="wan"), NOW).borrowed == WAN


@pytest.mark.parametrize(
    "situation",
    [
        at(Role.ACTIVE, peer()),
        at(Role.ACTIVE, peer(up="wan"), usable="wan"),
        at(Role.ACTIVE, None, usable="wan"),
        at(Role.ACTIVE, peer(), usable="wan", xc=False),
        at(Role.ACTIVE, peer(Role.MAINTENANCE), usable="wan"),
        at(Role.ACTIVE, replace(peer(), hung=True), usable="wan"),
        at(Role.PASSIVE, peer(), usable="wan"),
        replace(LOST, hands_over=True),
        replace(LOST, ports=tuple(replace(port, lendable=False) for port in PORTS)),
    ],
    ids=["whole", "gone", "no-peer", "no-xc", "away", "hung", "not-active", "hands-over", "no-vip"],
)
def test_nothing_is_lent(situation: Situation) -> None:
    assert lend.step(NONE, situation, NOW) == NONE


def test_of_two_inside_ports_one_alone_is_not_lent() -> None:
    """Heartbeats tell sides: the peer would speak for the other one, too."""
    ports = (TrackedPort("dmz", inside=True, weight=10, up_ms=0), *PORTS)
    one = replace(LOST, ports=ports, usable=frozenset({"dmz", "wan"}))
    assert lend.step(NONE, one, NOW) == NONE


@pytest.mark.parametrize(
    "situation",
    [
        at(Role.PASSIVE, LENDER, usable="wan"),
        at(Role.PASSIVE, LENDER, xc=False),
        at(Role.PASSIVE, None),
        at(Role.MAINTENANCE, LENDER),
        at(Role.ACTIVE, peer(Role.JOINING)),
        at(Role.PASSIVE, replace(LENDER, term=Term(2))),
        replace(at(Role.PASSIVE, LENDER), held=("lan",)),
    ],
    ids=["its-own-port-dies", "no-xc", "peer-dies", "away", "reigns", "outdated-term", "foreign-router"],
)
def test_a_loan_ends(situation: Situation) -> None:
    assert lend.step(Loans(borrowed=LAN), situation, NOW).borrowed == frozenset()


def test_it_is_handed_back_in_order() -> None:
    """The lender says that it has its port; the borrower falls silent first, and takes what still comes."""
    again = at(Role.ACTIVE, peer(lent="lan"))
    lender = lend.step(Loans(lent=LAN), again, NOW)
    assert lender == Loans(lent=LAN), "the borrower still speaks"
    told = at(Role.PASSIVE, peer(Role.ACTIVE, lent="lan"))
    borrower = lend.step(Loans(borrowed=LAN), told, NOW)
    assert (borrower.told, borrower.taken) == (frozenset(), LAN)
    assert lend.step(lender, at(Role.ACTIVE, peer()), NOW) == NONE
    due = lend.next_deadline(borrower)
    assert due == NOW + ms(lend.LINGER_MS)
    assert lend.step(borrower, at(Role.PASSIVE, peer(Role.ACTIVE)), Ns(due - 1)).taken == LAN
    assert lend.step(borrower, at(Role.PASSIVE, peer(Role.ACTIVE)), due) == NONE


def test_a_loan_outlives_the_handover_until_the_borrower_reigns() -> None:
    """The wire knows the borrower already; what waits at the lender goes back by the conduit. Spec: B3."""
    lender = lend.step(Loans(lent=LAN), at(Role.JOINING, peer(), usable="wan"), NOW)
    assert lender.lent == LAN
    borrower = lend.step(Loans(borrowed=LAN), at(Role.PASSIVE, peer(Role.JOINING, up="wan", lent="lan")), NOW)
    assert borrower == Loans(borrowed=LAN)
    assert lend.step(borrower, at(Role.ACTIVE, peer(Role.JOINING, up="wan", lent="lan")), NOW) == NONE


# ---- through the node ------------------------------------------------------------------------------------
def test_a_lender_is_silent_and_announces_when_it_has_its_port_again() -> None:
    core = Core(config(0)).with_ready_peer()
    assert only(core.do(PortChanged("lan", up=False)), SetPorts)[-1] == SetPorts(WAN, lent=LAN)
    assert {frame.port for frame in only(core.sleep(5000), SendFrame)} == {"wan"}
    assert core.role is Role.ACTIVE
    core.do(PortChanged("lan", up=True))
    actions = core.sleep(1000)
    assert only(actions, SetConduit)[-1] == SetConduit(on=False, term=Term(0))
    assert "lan" in {frame.port for frame in only(actions, SendFrame)}
