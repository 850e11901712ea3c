# SPDX-License-Identifier: Apache-2.0
"""The virtual router beyond the RFC's text (``tests/spec/test_rfc9568.py``): orders, findings, odd calls."""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from cores import ADDRESSES, FOREIGN, VIPS, vrrp_port

from flexha.core import garp, vrrp
from flexha.core.actions import Count, SendFrame
from flexha.core.errors import LocalProtocolError
from flexha.core.events import TimerFired
from flexha.core.vrrp import (
    ActiveDown,
    AdvertReceived,
    Lower,
    Output,
    Outranked,
    Raise,
    Router,
    Shutdown,
    Startup,
    State,
)
from flexha.core.vrrp_wire import Advert, ChecksumForm
from flexha.units import Ns, ms

NOW = Ns(10**12)
PORT = vrrp_port("wan")
NEW = Router(port=PORT, priority=150, adver_int_cs=100, preempt=False, form=ChecksumForm.RFC5798)


def run(router: Router, *events: vrrp.Input, now: Ns = NOW) -> tuple[Router, list[Output]]:
    outputs: list[Output] = []
    for event in events:
        router, more = vrrp.step(router, event, now)
        outputs += more
    return router, outputs


def heard(priority: int, source: str, interval_cs: int = 100) -> AdvertReceived:
    return AdvertReceived(
        Advert(PORT.vrid, priority, interval_cs, (IPv4Address(VIPS["wan"]),), IPv4Address(source))
    )


def test_active_down_is_said_once_and_waits_for_the_order() -> None:
    router, _ = run(NEW, Startup())
    late = Ns(NOW + ms(4000))
    router, outputs = run(router, TimerFired(), now=late)
    assert outputs == [ActiveDown("wan")]
    assert router.state is State.BACKUP
    assert run(router, TimerFired(), now=late)[1] == []
    assert vrrp.next_deadline(router) is None


def test_outranked_waits_for_the_order_too() -> None:
    router, _ = run(NEW, Startup(), Raise())
    router, outputs = run(router, heard(200, FOREIGN["wan"], 30))
    assert outputs == [Outranked("wan", IPv4Address(FOREIGN["wan"]), 200, is_peer=False)]
    assert router.state is State.ACTIVE
    router, outputs = run(router, Lower())
    assert (router.state, outputs, router.active_adver_int_cs) == (State.BACKUP, [], 30)


def test_the_peer_is_known_by_its_address() -> None:
    router, _ = run(NEW, Startup(), Raise())
    _, (outranked,) = run(router, heard(200, ADDRESSES["wan"][1]))
    assert isinstance(outranked, Outranked)
    assert outranked.is_peer


def test_lowered_without_having_heard_anybody_it_waits_at_its_own_interval() -> None:
    router, _ = run(NEW, Startup(), Raise(), Lower())
    assert router.active_adver_int_cs == 100
    assert router.active_down_at == Ns(NOW + int(341.40625 * 10_000_000))


def test_raised_again_it_announces_again() -> None:
    router, first = run(NEW, Startup(), Raise())
    _, again = run(router, Raise())
    assert [o for o in first if isinstance(o, SendFrame)] == [o for o in again if isinstance(o, SendFrame)]


def test_late_timers_send_one_announcement_each() -> None:
    """A shell that was late by seconds floods nobody."""
    router, _ = run(NEW, Startup(), Raise())
    router, outputs = run(router, TimerFired(), now=Ns(NOW + ms(30_000)))
    assert len([o for o in outputs if isinstance(o, SendFrame)]) == 2
    assert router.garp_at == ()
    assert router.adver_at == Ns(NOW + ms(31_000))


def test_a_worse_router_that_goes_on_makes_no_storm() -> None:
    """Each of its adverts is answered (RFC 9568 §6.4.3); announcements begin anew every 100 ms at most."""
    router, _ = run(NEW, Startup(), Raise())
    sent_at: list[int] = []
    for time_ms in range(2000, 4000, 10):
        for at in (time_ms, time_ms + 5):
            event = heard(100, FOREIGN["wan"], 1) if at == time_ms else TimerFired()
            router, outputs = run(router, event, now=Ns(NOW + ms(at)))
            frames = [o.frame for o in outputs if isinstance(o, SendFrame)]
            assert len(frames) >= (at == time_ms), "the advert"
            sent_at += [at] * frames.count(garp.build(PORT.vmac, PORT.vips[0]))
    assert len(router.garp_at) <= len(garp.REPEAT_AT_MS)
    assert len(sent_at) <= 3 * 20
    assert max(after - before for before, after in itertools.pairwise(sent_at)) <= 100


def test_an_advert_amid_the_announcements_is_followed_by_one() -> None:
    """Within 100 ms, whenever it comes: bridges are misled no longer than that."""
    for offset_ms in range(0, 101, 5):
        router, _ = run(NEW, Startup(), Raise())
        router, _ = run(router, heard(100, FOREIGN["wan"]), now=Ns(NOW + ms(2000)))
        router, _ = run(router, heard(100, FOREIGN["wan"]), now=Ns(NOW + ms(2000 + offset_ms)))
        assert min(router.garp_at) <= Ns(NOW + ms(2000 + offset_ms + 100))


def test_every_address_is_announced() -> None:
    vips = (IPv4Address("203.0.113.2"), IPv4Address("203.0.113.3"))
    _, outputs = run(replace(NEW, port=replace(PORT, vips=vips)), Startup(), Raise())
    frames = [o.frame for o in outputs if isinstance(o, SendFrame)]
    assert frames[1:] == [garp.build(PORT.vmac, vip) for vip in vips]
    assert Count("vrrp.wan.garps_sent", 2) in outputs


@pytest.mark.parametrize("peer_decides", [True, False])
def test_who_holds_the_link(peer_decides: bool) -> None:
    listening, _ = run(NEW, Startup())
    assert not listening.is_held(peer_decides=peer_decides)
    foreign, _ = run(listening, heard(100, FOREIGN["wan"]))
    assert foreign.is_held(peer_decides=peer_decides)
    peers, _ = run(listening, heard(100, ADDRESSES["wan"][1]))
    assert peers.is_held(peer_decides=peer_decides) is not peer_decides
    assert not peers.without_peer().is_held(peer_decides=False), "what it said before it died does not count"
    assert foreign.without_peer() == foreign


def test_odd_calls() -> None:
    down, _ = run(NEW, Startup(), Shutdown())
    assert down.state is State.INITIALIZE
    assert run(down, Shutdown(), Lower(), TimerFired(), heard(1, FOREIGN["wan"])) == (down, [])
    for router, event in ((down, Raise()), (run(NEW, Startup())[0], Startup())):
        with pytest.raises(LocalProtocolError):
            run(router, event)
    backup, _ = run(NEW, Startup())
    assert run(backup, Lower()) == (backup, [])
