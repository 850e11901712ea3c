# SPDX-License-Identifier: Apache-2.0
"""RFC 9568 (VRRP version 3), IPv4, requirement by requirement, on a node with one port and no flexha peer.

Section numbers are the RFC's, the numbers in brackets those of its pseudo code in §6.4. What the fast path
does as a part of the protocol (ARP answers, what PASSIVE drops) is tested with it.
Spec: R2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import pytest
from cores import ADDRESSES, FOREIGN, VIPS, VRIDS, Core, advert, adverts, config, garps, only, records, roles

from flexha.core import checksum, vrrp, vrrp_wire
from flexha.core.actions import Action, Count, SendFrame
from flexha.core.events import Command, OperatorAsked, Role, StopRequested, VrrpFrameReceived
from flexha.core.vrrp import Router, State
from flexha.core.vrrp_wire import Advert, ChecksumForm
from flexha.units import NS_PER_CS

PRIORITY = 150
SKEW_CS = (256 - PRIORITY) * 100 / 256
ACTIVE_DOWN_CS = 300 + SKEW_CS
OTHER = FOREIGN["wan"]
"""203.0.113.6, numerically above our 203.0.113.4."""
LOWER_ADDRESS = "203.0.113.1"


def machine(*, preempt: bool = True) -> Core:
    """One virtual router on one port."""
    return Core(config(0, has_peer=False, ports=("wan",), preempt=preempt))


def router(core: Core) -> Router:
    return core.state.routers["wan"]


def backup(*, preempt: bool = True) -> Core:
    core = machine(preempt=preempt)
    core.start()
    core.sleep(1)
    return core


def active(*, preempt: bool = True) -> Core:
    core = backup(preempt=preempt)
    core.sleep(ACTIVE_DOWN_CS * 10)
    assert router(core).state is State.ACTIVE
    return core


def sent_advert(actions: Sequence[Action]) -> tuple[bytes, Advert]:
    """The only advertisement among the actions: its frame, and what it says."""
    frames = [a.frame for a in only(actions, SendFrame) if a.frame[12:14] == b"\x08\x00"]
    assert len(frames) == 1
    return frames[0], vrrp_wire.parse(frames[0], VRIDS["wan"])


def left_cs(core: Core) -> float:
    """Centiseconds until Active_Down_Timer fires."""
    deadline = router(core).active_down_at
    assert deadline is not None
    return (deadline - core.now) / NS_PER_CS


# ---- §5: the packet ----------------------------------------------------------------------------------
def test_5_1_1_1_source_address_is_the_ports_own() -> None:
    """§5.1.1.1: the primary IPv4 address of the interface the packet is being sent from."""
    _, message = sent_advert(active().sleep(1000))
    assert str(message.source) == ADDRESSES["wan"][0]


def test_5_1_1_2_destination_is_the_group() -> None:
    """§5.1.1.2: 224.0.0.18; on Ethernet 01-00-5E-00-00-12."""
    frame, _ = sent_advert(active().sleep(1000))
    assert frame[30:34] == bytes((224, 0, 0, 18))
    assert frame[:6] == bytes.fromhex("01005e000012")


def test_5_1_1_3_ttl_is_255() -> None:
    """§5.1.1.3: TTL MUST be 255."""
    frame, _ = sent_advert(active().sleep(1000))
    assert frame[22] == 255


def test_5_1_1_4_protocol_is_112() -> None:
    """§5.1.1.4."""
    frame, _ = sent_advert(active().sleep(1000))
    assert frame[23] == 112


def test_5_2_fields_of_an_advertisement() -> None:
    """§5.2.1 version 3, §5.2.2 type 1, §5.2.3 VRID, §5.2.4 priority, §5.2.5 count, §5.2.7 interval."""
    frame, message = sent_advert(active().sleep(1000))
    assert frame[34] == 0x31
    assert message == Advert(
        VRIDS["wan"], PRIORITY, 100, (IPv4Address(VIPS["wan"]),), IPv4Address(ADDRESSES["wan"][0])
    )


def test_5_2_4_zero_and_255_have_their_meanings() -> None:
    """§5.2.4: 255 owns the addresses, 0 has stopped participating."""
    assert (vrrp_wire.PRIORITY_OWNER, vrrp_wire.PRIORITY_RELEASE) == (255, 0)


def test_5_2_6_reserve_is_zero_when_sent() -> None:
    """§5.2.6: MUST be set to zero on transmission (and is ignored on reception: unit tests)."""
    frame, _ = sent_advert(active().sleep(1000))
    assert frame[38] >> 4 == 0


@pytest.mark.parametrize("form", ChecksumForm)
def test_5_2_8_both_checksum_forms_are_accepted_and_either_is_sent(form: ChecksumForm) -> None:
    """§5.2.8 covers the message only; RFC 5798 §5.2.8, and so keepalived and FRR, a pseudo-header too."""
    cfg = replace(config(1, has_peer=False, ports=("wan",)), priority=200, checksum=form)
    frame, message = sent_advert(Core(cfg).become_active().sleep(1000))
    other = backup()
    other.do(VrrpFrameReceived("wan", frame))
    assert router(other).active == message


# ---- §6.1: parameters --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("priority", "interval_cs", "skew_cs"),
    [(150, 100, 41.40625), (100, 100, 60.9375), (254, 1, 2 / 256), (1, 4095, 4079.00390625)],
)
def test_6_1_skew_time_and_active_down_interval(priority: int, interval_cs: int, skew_cs: float) -> None:
    """§6.1: Skew_Time = ((256 - Priority) * Active_Adver_Interval) / 256,
    Active_Down_Interval = (3 * Active_Adver_Interval) + Skew_Time.
    """
    assert float(vrrp.skew_time_cs(priority, interval_cs)) == skew_cs
    assert float(vrrp.active_down_interval_cs(priority, interval_cs)) == 3 * interval_cs + skew_cs


def test_6_1_virtual_router_mac() -> None:
    """§7.3: 00-00-5E-00-01-{VRID}."""
    assert router(machine()).port.vmac == bytes((0, 0, 0x5E, 0, 1, VRIDS["wan"]))


# ---- §6.4.1: Initialize ------------------------------------------------------------------------------
def test_6_4_1_startup_makes_a_backup() -> None:
    """§6.4.1 (155)-(165): Active_Adver_Interval, Active_Down_Timer, Backup."""
    core = machine()
    actions = core.start()
    assert router(core).state is State.BACKUP
    assert router(core).active_adver_int_cs == 100
    assert left_cs(core) == pytest.approx(ACTIVE_DOWN_CS)
    assert adverts(actions) == []


def test_6_4_1_startup_of_the_owner_makes_it_active_at_once() -> None:
    """§6.4.1 (105)-(145): priority 255 sends an ADVERTISEMENT and gratuitous ARPs, and is Active."""
    cfg = replace(config(0, has_peer=False, ports=("wan",)), priority=255)
    core = Core(cfg)
    actions = core.start()
    actions += core.sleep(1)
    assert adverts(actions) == [("wan", 255)]
    assert garps(actions) == ["wan"]
    assert router(core).state is State.ACTIVE


def test_6_4_1_initialize_waits_for_startup() -> None:
    """§6.4.1: the purpose of this state is to wait for a Startup event."""
    core = machine()
    core.do(advert("wan", 0, OTHER))
    assert router(core).state is State.INITIALIZE
    assert core.sleep(10_000) == ()


# ---- §6.4.2: Backup ----------------------------------------------------------------------------------
def test_6_4_2_backup_is_silent() -> None:
    """§6.4.2: no advertisement and no ARP comes from a Backup."""
    core = backup()
    assert only(core.sleep(ACTIVE_DOWN_CS * 10 - 50), SendFrame) == []


def test_6_4_2_shutdown_of_a_backup() -> None:
    """§6.4.2 (340)-(350): cancel the timer, Initialize, and no word to anybody."""
    core = backup()
    actions = core.do(StopRequested())
    assert router(core).state is State.INITIALIZE
    assert router(core).active_down_at is None
    assert adverts(actions) == []


def test_6_4_2_active_down_makes_it_active() -> None:
    """§6.4.2 (365)-(395): ADVERTISEMENT, gratuitous ARP for each address, Adver_Timer, Active."""
    core = backup()
    before = core.sleep(left_cs(core) * 10 - 0.001)
    assert adverts(before) == []
    actions = core.sleep(0.001)
    assert adverts(actions) == [("wan", PRIORITY)]
    assert garps(actions) == ["wan"]
    assert router(core).state is State.ACTIVE
    assert router(core).adver_at == core.now + 100 * NS_PER_CS


def test_6_4_2_the_data_plane_is_opened_before_the_links_are_told() -> None:
    """Packets follow the gratuitous ARP, so the fence opens first."""
    actions = backup().sleep(ACTIVE_DOWN_CS * 10)
    kinds = [type(a).__name__ for a in actions if type(a).__name__ in ("SetRole", "SendFrame")]
    assert kinds == ["SetRole", "SendFrame", "SendFrame"]


def test_6_4_2_priority_zero_leaves_skew_time() -> None:
    """§6.4.2 (420)-(425): set Active_Down_Timer to Skew_Time."""
    core = backup()
    core.do(advert("wan", 200, OTHER))
    core.do(advert("wan", 0, OTHER))
    assert left_cs(core) == pytest.approx(SKEW_CS)
    core.sleep(SKEW_CS * 10)
    assert router(core).state is State.ACTIVE


@pytest.mark.parametrize("priority", [PRIORITY, 200, 255])
def test_6_4_2_as_good_a_router_is_followed(priority: int) -> None:
    """§6.4.2 (435)-(455): learn its interval, recompute Active_Down_Interval, reset Active_Down_Timer."""
    core = backup()
    core.sleep(2000)
    core.do(advert("wan", priority, OTHER, adver_int_cs=50))
    assert router(core).active_adver_int_cs == 50
    assert left_cs(core) == pytest.approx(150 + (256 - PRIORITY) * 50 / 256)
    assert router(core).state is State.BACKUP


def test_6_4_2_without_preempt_a_worse_router_is_followed_too() -> None:
    """§6.4.2 (435): Preempt_Mode is False."""
    core = backup(preempt=False)
    core.sleep(2000)
    core.do(advert("wan", 1, OTHER))
    assert left_cs(core) == pytest.approx(ACTIVE_DOWN_CS)


def test_6_4_2_with_preempt_a_worse_router_is_ignored() -> None:
    """§6.4.2 (460)-(465): Preempt_Mode is True and its priority is lower: discard, and take over in time."""
    core = backup()
    left = left_cs(core)
    core.do(advert("wan", PRIORITY - 1, OTHER))
    assert left_cs(core) == left
    core.sleep(left * 10)
    assert router(core).state is State.ACTIVE


# ---- §6.4.3: Active ----------------------------------------------------------------------------------
def test_6_4_3_adver_timer() -> None:
    """§6.4.3 (655)-(660): send an ADVERTISEMENT each Advertisement_Interval."""
    core = active()
    assert adverts(core.sleep(5000)) == [("wan", PRIORITY)] * 5


def test_6_4_3_shutdown_says_priority_zero() -> None:
    """§6.4.3 (625)-(640): cancel the timer, send an ADVERTISEMENT with priority 0, Initialize.

    The fence is closed before, so the frame is one that may leave a fenced node.
    """
    core = active()
    actions = core.do(StopRequested())
    assert adverts(actions) == [("wan", 0)]
    assert [a.fenced for a in only(actions, SendFrame)] == [False]
    assert router(core).state is State.INITIALIZE
    assert core.sleep(5000) == ()
    names = [type(a).__name__ for a in actions]
    assert names.index("SetRole") < names.index("SendFrame") < names.index("SetPulse")
    assert names[-1] == "Stop"


def test_6_4_3_priority_zero_is_answered() -> None:
    """§6.4.3 (670)-(680): send an ADVERTISEMENT, reset Adver_Timer."""
    core = active()
    core.sleep(500)
    assert adverts(core.do(advert("wan", 0, OTHER))) == [("wan", PRIORITY)]
    assert router(core).adver_at == core.now + 100 * NS_PER_CS


@pytest.mark.parametrize(
    ("priority", "source"), [(PRIORITY + 1, LOWER_ADDRESS), (PRIORITY, OTHER), (255, LOWER_ADDRESS)]
)
def test_6_4_3_a_better_router_takes_over(priority: int, source: str) -> None:
    """§6.4.3 (700)-(735): a higher priority, or the same and a higher primary address: learn, be Backup."""
    core = active()
    actions = core.do(advert("wan", priority, source, adver_int_cs=200))
    assert router(core).state is State.BACKUP
    assert router(core).adver_at is None
    assert router(core).active_adver_int_cs == 200
    assert left_cs(core) == pytest.approx(600 + (256 - PRIORITY) * 200 / 256)
    assert adverts(actions) == []
    assert roles(actions)[0][0] is Role.PASSIVE


@pytest.mark.parametrize(("priority", "source"), [(PRIORITY - 1, OTHER), (PRIORITY, LOWER_ADDRESS)])
def test_6_4_3_a_worse_router_is_told(priority: int, source: str) -> None:
    """§6.4.3 (740)-(750): discard, and send an ADVERTISEMENT at once: it corrects learning bridges too."""
    core = active()
    core.sleep(500)
    assert adverts(core.do(advert("wan", priority, source))) == [("wan", PRIORITY)]
    assert router(core).state is State.ACTIVE


def test_6_4_3_addresses_are_compared_as_numbers() -> None:
    """§6.4.3: an unsigned integer comparison in network byte order: 203.0.113.10 is above 203.0.113.4."""
    core = active()
    core.do(advert("wan", PRIORITY, "203.0.113.10"))
    assert router(core).state is State.BACKUP


# ---- §7.1: receiving ---------------------------------------------------------------------------------
def good_frame() -> bytearray:
    return bytearray(advert("wan", 200, OTHER).frame)


def fix(frame: bytearray) -> bytes:
    """Make both checksums right again."""
    frame[24:26] = b"\0\0"
    frame[24:26] = checksum.internet_checksum(bytes(frame[14:34])).to_bytes(2, "big")
    frame[40:42] = b"\0\0"
    frame[40:42] = checksum.internet_checksum(bytes(frame[34:46])).to_bytes(2, "big")
    return bytes(frame)


@pytest.mark.parametrize(
    ("reason", "at", "value"),
    [
        ("bad_ttl", 22, 254),  # MUST verify that the IPv4 TTL is 255
        ("bad_version", 34, 0x21),  # MUST verify the VRRP version is 3
        ("bad_type", 34, 0x32),  # MUST verify that the VRRP packet type is 1
        ("count_zero", 37, 0),  # §5.2.5 with erratum 8299
        ("bad_length", 37, 9),  # MUST verify that the received packet contains the complete VRRP packet
        ("bad_vrid", 35, 53),  # MUST verify that the VRID is configured on the receiving interface
        ("interval_zero", 39, 0),  # erratum 8301: MUST verify that Max Advertise Interval is not 0
    ],
)
def test_7_1_what_fails_a_check_is_discarded_and_counted(reason: str, at: int, value: int) -> None:
    """§7.1: if any one of the checks fails, the receiver MUST discard the packet and SHOULD log the event."""
    core = active()
    frame = good_frame()
    frame[at] = value
    actions = core.do(VrrpFrameReceived("wan", fix(frame)))
    assert only(actions, Count) == [Count(f"vrrp.wan.{reason}")]
    assert records(actions, "vrrp-discarded")[0]["reason"] == reason
    assert router(core).state is State.ACTIVE


def test_7_1_checksum_is_verified() -> None:
    """§7.1: MUST verify the VRRP checksum."""
    core = active()
    frame = good_frame()
    frame[41] ^= 1
    assert only(core.do(VrrpFrameReceived("wan", bytes(frame))), Count) == [Count("vrrp.wan.bad_checksum")]
    assert router(core).state is State.ACTIVE


def test_7_1_other_addresses_are_logged_and_no_more() -> None:
    """§7.1: a list of addresses that differs from the configured one is logged (once a sender here)."""
    core = active()
    other = Advert(VRIDS["wan"], 100, 100, (IPv4Address("203.0.113.2"),), IPv4Address(OTHER))
    frame = vrrp_wire.build(other, router(core).port.vmac, ChecksumForm.RFC9568)
    first = core.do(VrrpFrameReceived("wan", frame))
    second = core.do(VrrpFrameReceived("wan", frame))
    assert records(first, "vrrp-addresses-differ") != []
    assert records(second, "vrrp-addresses-differ") == []
    assert Count("vrrp.wan.addresses_differ") in second
    assert adverts(second) == [("wan", PRIORITY)], "the machine goes on as with any advertisement"


def test_7_1_own_advertisement_is_no_other_router() -> None:
    """A bridge may bring it back."""
    core = active()
    frame, _ = sent_advert(core.sleep(1000))
    assert only(core.do(VrrpFrameReceived("wan", frame)), Count) == [Count("vrrp.wan.own_advert")]


# ---- §7.2: sending -----------------------------------------------------------------------------------
def test_7_2_source_mac_is_the_virtual_routers() -> None:
    """§7.2: set the source MAC address to the Virtual Router MAC Address (learning bridges follow it)."""
    frame, _ = sent_advert(active().sleep(1000))
    assert frame[6:12] == router(machine()).port.vmac


# ---- §8 ----------------------------------------------------------------------------------------------
def test_8_1_2_gratuitous_arp_carries_the_virtual_mac_only() -> None:
    """§8.1.2: it MUST NOT send an ARP message for the virtual address with its physical MAC address."""
    frames = [a.frame for a in only(active().sleep(2000), SendFrame) if a.frame[12:14] == b"\x08\x06"]
    assert frames, "gratuitous ARPs are repeated: frames get lost"
    vmac = router(machine()).port.vmac
    for frame in frames:
        assert (frame[6:12], frame[22:28], frame[32:38]) == (vmac, vmac, vmac)


# ---- all virtual routers of a node -------------------------------------------------------------------
def test_virtual_routers_move_together() -> None:
    """One port's silence makes no Active while a foreign router holds the other; a better one takes both."""
    core = Core(config(0, has_peer=False, preempt=True))
    core.start()
    for _ in range(8):
        core.do(advert("lan", 200, FOREIGN["lan"]))
        core.sleep(1000)
    states = {name: r.state for name, r in core.state.routers.items()}
    assert states == {"lan": State.BACKUP, "wan": State.BACKUP}
    assert core.role is Role.PASSIVE
    core.sleep(4000)
    assert {r.state for r in core.state.routers.values()} == {State.ACTIVE}
    core.do(advert("wan", 200, FOREIGN["wan"]))
    assert {r.state for r in core.state.routers.values()} == {State.BACKUP}


def test_an_operator_cannot_make_a_single_node_leave() -> None:
    """There is nobody to hand over to."""
    core = active()
    core.do(OperatorAsked(1, Command.FAILOVER))
    assert router(core).state is State.ACTIVE
