# SPDX-License-Identifier: Apache-2.0
"""A node hands packets over to a peer that lives, reigns, and is heard on the cross-connect. Spec: R8."""

from __future__ import annotations

import pytest

from flexha.core import conduit
from flexha.core.actions import SetConduit
from flexha.core.events import PeerInfo, Role
from flexha.core.heartbeat import Liveness, Path
from flexha.core.lend import NONE
from flexha.units import Term


def liveness(role: Role = Role.ACTIVE, *, alive: bool = True, xc: bool = True) -> Liveness:
    info = PeerInfo(
        role=role,
        term=Term(4),
        incarnation=1,
        ready=False,
        bye=False,
        priority=100,
        ports_up=frozenset({"wan"}),
    )
    return Liveness(paths={"xc": Path(xc), "lan": Path(True)}, info=info, alive=alive)


@pytest.mark.parametrize("role", [Role.JOINING, Role.PASSIVE, Role.MAINTENANCE, Role.FAULT])
def test_whoever_is_not_active_hands_over(role: Role) -> None:
    assert conduit.wanted(role, liveness(), NONE, conduit.OFF) == SetConduit(on=True, term=Term(4))


@pytest.mark.parametrize(
    ("role", "peer"),
    [
        (Role.ACTIVE, liveness()),
        (Role.INIT, liveness()),
        (Role.PASSIVE, liveness(Role.PASSIVE)),
        (Role.PASSIVE, liveness(alive=False)),
        (Role.PASSIVE, liveness(xc=False)),
        (Role.PASSIVE, Liveness(paths={})),
    ],
    ids=["active", "init", "peer-passive", "peer-dead", "no-xc", "no-peer"],
)
def test_nothing_is_handed_over(role: Role, peer: Liveness) -> None:
    assert conduit.wanted(role, peer, NONE, conduit.OFF) == conduit.OFF


def test_what_lands_here_while_the_peer_hands_over_waits_at_the_peer() -> None:
    """It does not read the conduit then, and sends it back. Spec: B3, R8."""
    on = SetConduit(on=True, term=Term(4))
    assert conduit.wanted(Role.PASSIVE, liveness(Role.JOINING), NONE, on) == on
    assert conduit.wanted(Role.ACTIVE, liveness(Role.JOINING), NONE, on) == conduit.OFF
    assert conduit.wanted(Role.PASSIVE, liveness(Role.JOINING, alive=False), NONE, on) == conduit.OFF
    for not_this in (conduit.OFF, SetConduit(on=True, term=Term(2))):
        assert conduit.wanted(Role.PASSIVE, liveness(Role.JOINING), NONE, not_this) == conduit.OFF


PORTS = ("lan", "wan")


@pytest.mark.parametrize(
    ("role", "usable", "peer", "by_peer"),
    [
        (Role.ACTIVE, {"lan"}, liveness(Role.PASSIVE), {"wan"}),
        (Role.ACTIVE, {"wan"}, liveness(Role.PASSIVE), set()),
        (Role.ACTIVE, set(), liveness(Role.PASSIVE), {"wan"}),
        (Role.ACTIVE, {"lan", "wan"}, liveness(Role.PASSIVE), set()),
        (Role.ACTIVE, {"lan"}, liveness(Role.PASSIVE, xc=False), set()),
        (Role.ACTIVE, {"lan"}, liveness(Role.PASSIVE, alive=False), set()),
        (Role.ACTIVE, {"lan"}, liveness(Role.ACTIVE), set()),
        (Role.PASSIVE, {"lan"}, liveness(Role.PASSIVE), set()),
        (Role.ACTIVE, {"lan"}, Liveness(paths={}), set()),
    ],
    ids=[
        "its-wan",
        "neither",
        "its-wan-alone",
        "none-lost",
        "no-xc",
        "dead",
        "active-too",
        "not-active",
        "none",
    ],
)
def test_the_peer_stands_in_for_ports_that_only_it_has(
    role: Role, usable: set[str], peer: Liveness, by_peer: set[str]
) -> None:
    assert conduit.ways(role, PORTS, frozenset(usable), peer, NONE).by_peer == by_peer
