# SPDX-License-Identifier: Apache-2.0
"""The virtual router beyond the RFC's text (``tests/spec/test_rfc9568.py``): orders, findings, odd calls."""

from __future__ import annotations

import itertools
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from cores import ADDRESSES, FOREIGN, VIPS, vrrp_port

from flexha.core import garp, vrrp, vrrp_wire
from flexha.core.actions import Count, Record, SendFrame
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


# ---- version 2 (RFC 3768), and who is heard ------------------------------------------------------------
V2 = replace(NEW, version=2, adver_int_cs=200)


def frame_of(
    router: Router, priority: int, source: str, *, interval_cs: int = 200, vip: str = VIPS["wan"]
) -> bytes:
    """An advert in the router's version."""
    advert = Advert(PORT.vrid, priority, interval_cs, (IPv4Address(vip),), IPv4Address(source))
    return vrrp_wire.build(advert, PORT.vmac, router.form, router.version)


def test_version_2_waits_three_intervals_and_a_skew_that_knows_none() -> None:
    """Spec: R2; RFC 3768 §6.1: Master_Down_Interval = 3 * Advertisement_Interval + (256 - 150) / 256 s."""
    router, _ = run(V2, Startup())
    assert router.active_down_at == Ns(NOW + ms(6000) + 106 * 10**9 // 256)
    router, _ = vrrp.receive(router, frame_of(router, 0, FOREIGN["wan"]), NOW)
    assert router.active_down_at == Ns(NOW + 106 * 10**9 // 256), "RFC 3768 §6.4.2 (460)"


def test_version_2_says_its_goodbye_in_version_2() -> None:
    """Spec: R2; RFC 3768 §6.4.3."""
    _, outputs = run(V2, Startup(), Raise(), Shutdown())
    said = [
        vrrp_wire.parse(o.frame, PORT.vrid, 2)
        for o in outputs
        if isinstance(o, SendFrame) and o.frame[23] == 112
    ]
    assert [(advert.priority, advert.adver_int_cs) for advert in said] == [(150, 200), (0, 200)]


@pytest.mark.parametrize(
    ("count", "changes"),
    [("bad_interval", {"interval_cs": 100}), ("addresses_differ", {"vip": "203.0.113.2"})],
)
def test_version_2_discards_another_interval_and_other_addresses(count: str, changes: dict[str, str]) -> None:
    """Spec: R2; RFC 3768 §7.1: both MUST be discarded. Warned of once."""
    router, _ = run(V2, Startup(), Raise())
    frame = frame_of(router, 200, FOREIGN["wan"], **changes)  # type: ignore[arg-type]
    router, outputs = vrrp.receive(router, frame, NOW)
    assert [type(o) for o in outputs] == [Count, Record]
    assert outputs[0] == Count(f"vrrp.wan.{count}")
    assert vrrp.receive(router, frame, NOW) == (router, (Count(f"vrrp.wan.{count}"),))


def test_version_2_believes_the_owner_of_other_addresses() -> None:
    """Spec: R2; RFC 3768 §7.1: its priority is 255."""
    router, _ = run(V2, Startup(), Raise())
    _, outputs = vrrp.receive(router, frame_of(router, 255, FOREIGN["wan"], vip="203.0.113.2"), NOW)
    assert isinstance(outputs[-1], Outranked)


@pytest.mark.parametrize(("ours", "theirs"), [(2, 3), (3, 2)])
def test_the_other_version_is_discarded(ours: int, theirs: int) -> None:
    """Spec: R2; RFC 3768 §7.1, RFC 9568 §7.1."""
    router, _ = run(replace(V2, version=ours), Startup(), Raise())
    frame = frame_of(replace(V2, version=theirs), 200, FOREIGN["wan"])
    after, outputs = vrrp.receive(router, frame, NOW)
    assert after == router
    assert Count("vrrp.wan.bad_version") in outputs
    assert not [o for o in outputs if isinstance(o, Outranked)]


def test_the_peer_speaks_from_the_virtual_mac() -> None:
    """Spec: R2; RFC 9568 §7.2. A foreign router may speak from its own: keepalived does by default."""
    router, _ = run(NEW, Startup(), Raise())

    def heard_from(source: str) -> list[object]:
        frame = bytearray(frame_of(router, 254, source, interval_cs=100))
        frame[6:12] = bytes.fromhex("02deadbeef01")
        return list(vrrp.receive(router, bytes(frame), NOW)[1])

    outputs = heard_from(ADDRESSES["wan"][1])
    assert outputs[0] == Count("vrrp.wan.bad_mac")
    assert [type(o) for o in outputs] == [Count, Record]
    assert isinstance(heard_from(FOREIGN["wan"])[-1], Outranked)


def test_foreign_routers_may_be_ignored() -> None:
    """Spec: R2: `[vrrp] foreign = "ignore"`. The peer's adverts count as ever."""
    router, _ = run(replace(NEW, hears_foreign=False), Startup(), Raise())
    frame = frame_of(router, 254, FOREIGN["wan"], interval_cs=100)
    router, outputs = vrrp.receive(router, frame, NOW)
    assert [type(o) for o in outputs] == [Count, Record]
    assert outputs[0] == Count("vrrp.wan.foreign")
    _, outputs = vrrp.receive(router, frame_of(router, 254, ADDRESSES["wan"][1], interval_cs=100), NOW)
    assert isinstance(outputs[-1], Outranked)
