# SPDX-License-Identifier: Apache-2.0
"""One virtual router: RFC 9568 §6, IPv4, driven by the role machine.

The RFC lets each virtual router decide for itself. Here all virtual routers of a node move together, and a
flexha peer is judged by heartbeats, so the two transitions between Backup and Active are split: the machine
finds that one is due and says so (``ActiveDown``, ``Outranked``), and performs it when the role machine
orders it (``Raise``, ``Lower``), in the same step of the node. With one port and no flexha peer that is
exactly RFC 9568.

Timers, each with its formula (RFC 9568 §6.1)::

    Adver_Timer         Active:  Advertisement_Interval
    Active_Down_Timer   Backup:  Active_Down_Interval = 3 * Active_Adver_Interval + Skew_Time   [cs]
                                 Skew_Time = (256 - Priority) * Active_Adver_Interval / 256      [cs]
    GARP repeats        Active:  garp.REPEAT_AT_MS after the takeover, and after another router's advert was
                                 answered; not in the RFC, frames get lost and overtake each other

Version 2 (RFC 3768) has the same machine. Its Skew_Time is that of an interval of one second, whatever the
interval is (§6.1), all routers must have the same interval, and an advert whose addresses are not ours is
discarded unless their owner sent it (§7.1).

Accept_Mode (§6.1) is False, except that the fast path answers ARP and ICMP echo for a virtual address while
Active.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction
from ipaddress import IPv4Address
from typing import Final

from flexha.core import garp, vrrp_wire
from flexha.core.actions import Count, Level, Record, SendFrame
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import TimerFired
from flexha.core.table import Ignore, Impossible, TransitionTable
from flexha.core.vrrp_wire import (
    CS_PER_S,
    PRIORITY_OWNER,
    PRIORITY_RELEASE,
    VERSION_2,
    VERSION_3,
    Advert,
    ChecksumForm,
)
from flexha.units import NS_PER_CS, Ns, centiseconds, ms


@dataclass(frozen=True, slots=True)
class VrrpPort:
    """A port with its virtual router: the addresses that its machine needs."""

    name: str
    vrid: int
    """Virtual router id, 1..255."""
    vips: tuple[IPv4Address, ...]
    """The virtual router's addresses, in the order in which adverts carry them; at least one."""
    address: IPv4Address
    """The port's own ("primary", RFC 9568 §1.6) address: the source of our adverts."""
    peer_address: IPv4Address | None
    """The flexha peer's own address on this port; adverts from elsewhere are a foreign router's."""
    mac: bytes
    """The port's own MAC."""

    @property
    def vmac(self) -> bytes:
        """Virtual router MAC for IPv4, RFC 9568 §7.3: 00-00-5E-00-01-{VRID}."""
        return b"\x00\x00\x5e\x00\x01" + bytes((self.vrid,))


class State(StrEnum):
    """States of RFC 9568 §6.3."""

    INITIALIZE = "INITIALIZE"
    BACKUP = "BACKUP"
    ACTIVE = "ACTIVE"


# ---- inputs (TimerFired is the shared one) -----------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Startup:
    """The node starts (RFC 9568 §6.4.1)."""


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The node leaves (RFC 9568 §6.4.2, §6.4.3)."""


@dataclass(frozen=True, slots=True)
class AdvertReceived:
    """A valid advertisement of our VRID from another router."""

    advert: Advert


@dataclass(frozen=True, slots=True)
class Raise:
    """The node reigns: be Active, and tell the link (again, if Active already)."""


@dataclass(frozen=True, slots=True)
class Lower:
    """The node reigns no more, somebody else does: be Backup."""


Input = Startup | Shutdown | AdvertReceived | TimerFired | Raise | Lower


# ---- what the machine finds out, for the role machine ------------------------------------------------
@dataclass(frozen=True, slots=True)
class ActiveDown:
    """Active_Down_Timer fired: RFC 9568 §6.4.2 would now become Active."""

    port: str


@dataclass(frozen=True, slots=True)
class Outranked:
    """A better advertisement came while Active: RFC 9568 §6.4.3 would now become Backup."""

    port: str
    source: IPv4Address
    priority: int
    is_peer: bool


Output = SendFrame | Count | Record | ActiveDown | Outranked


@dataclass(frozen=True, slots=True, kw_only=True)
class Router:
    """State of one virtual router; names and units as in RFC 9568 §6.1."""

    port: VrrpPort
    priority: int
    adver_int_cs: int
    preempt: bool
    form: ChecksumForm
    version: int = VERSION_3
    """2 or 3: what is sent, and the only thing that is heard."""
    hears_foreign: bool = True
    """Whether adverts count that are not from the flexha peer's address."""
    state: State = State.INITIALIZE
    active_adver_int_cs: int = 0
    """Active_Adver_Interval: the Active Router's, learned from its adverts."""
    active: Advert | None = None
    """The last advert that armed the Active_Down_Timer, or outranked us: the Active Router's."""
    adver_at: Ns | None = None
    active_down_at: Ns | None = None
    garp_at: tuple[Ns, ...] = ()
    reassert_at: Ns | None = None
    """From then on another router's advert starts the announcements anew (``garp.REASSERT_MS``)."""
    has_listened: bool = False
    """Whether we know the link: an Active_Down_Interval was silent, or an Active Router was heard."""
    warned_of: IPv4Address | None = None
    """The sender that was complained of last (once per sender, not per advert)."""

    def is_held(self, *, peer_decides: bool) -> bool:
        """Whether an Active Router holds this link; the flexha peer is none where heartbeats decide."""
        if self.state is not State.BACKUP or self.active is None or self.active_down_at is None:
            return False
        return not (peer_decides and self.active.source == self.port.peer_address)

    def without_peer(self) -> Router:
        """Forget what the flexha peer announced: heartbeats say that it is dead. Only later adverts count."""
        if self.active is None or self.active.source != self.port.peer_address:
            return self
        return replace(self, active=None)


def skew_time_cs(priority: int, active_adver_int_cs: int, version: int = VERSION_3) -> Fraction:
    """Skew_Time, centiseconds (RFC 9568 §6.1): a better router waits less. RFC 3768 §6.1 knows no interval in
    it: (256 - Priority) / 256 seconds.
    """
    if version == VERSION_2:
        active_adver_int_cs = CS_PER_S
    return Fraction((256 - priority) * active_adver_int_cs, 256)


def active_down_interval_cs(priority: int, active_adver_int_cs: int, version: int = VERSION_3) -> Fraction:
    """Active_Down_Interval (Master_Down_Interval), centiseconds (RFC 9568 §6.1, RFC 3768 §6.1)."""
    return 3 * active_adver_int_cs + skew_time_cs(priority, active_adver_int_cs, version)


def step(router: Router, event: Input, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """One input in; the new state, frames to send and findings out."""
    handler = TABLE.handler(router.state, type(event))
    if handler is None:
        return router, ()
    result: tuple[Router, tuple[Output, ...]] = handler(router, event, now)
    return result


def receive(router: Router, frame: bytes, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """A frame with IP protocol 112 from this port: validate (RFC 9568 §7.1), count, hand on if valid."""
    prefix = f"vrrp.{router.port.name}"
    try:
        advert = vrrp_wire.parse(frame, router.port.vrid, router.version)
    except RemoteProtocolError as error:
        fields = {"port": router.port.name, "reason": error.reason, "detail": error.detail}
        return router, (Count(f"{prefix}.{error.reason}"), Record(Level.DEBUG, "vrrp-discarded", fields))
    if advert.source == router.port.address:
        return router, (Count(f"{prefix}.own_advert"),)
    if advert.source == router.port.peer_address and _source_mac(frame) != router.port.vmac:
        return _complain(
            router, advert, "bad_mac", mac=_source_mac(frame).hex(":")
        )  # ours keep RFC 9568 §7.2
    if not router.hears_foreign and advert.source != router.port.peer_address:
        return _complain(router, advert, "foreign", priority=advert.priority)
    if router.version == VERSION_2 and advert.adver_int_cs != router.adver_int_cs:  # RFC 3768 §7.1: MUST
        return _complain(router, advert, "bad_interval", interval_s=advert.adver_int_cs // CS_PER_S)
    outputs: tuple[Output, ...] = ()
    if set(advert.vips) != set(router.port.vips):  # RFC 9568 §7.1: logged, no reason to discard
        theirs = " ".join(str(vip) for vip in advert.vips)
        router, outputs = _complain(router, advert, "addresses_differ", vips=theirs)
        if router.version == VERSION_2 and advert.priority != PRIORITY_OWNER:  # RFC 3768 §7.1: MUST drop
            return router, outputs
    router, more = step(router, AdvertReceived(advert), now)
    return router, (Count(f"{prefix}.adverts_received"), *outputs, *more)


def _source_mac(frame: bytes) -> bytes:
    """Ethernet source. A foreign router's may be any: keepalived sends from its own by default."""
    return frame[6:12]


def _complain(
    router: Router, advert: Advert, what: str, **fields: object
) -> tuple[Router, tuple[Output, ...]]:
    """Count an advert that is not what it should be, and warn once of its sender."""
    count = Count(f"vrrp.{router.port.name}.{what}")
    if router.warned_of == advert.source:
        return router, (count,)
    fields = {"port": router.port.name, "source": str(advert.source), **fields}
    warning = Record(Level.WARNING, f"vrrp-{what.replace('_', '-')}", fields)
    return replace(router, warned_of=advert.source), (count, warning)


def next_deadline(router: Router) -> Ns | None:
    """The earliest timer that runs."""
    return min(
        (t for t in (router.adver_at, router.active_down_at, *router.garp_at) if t is not None), default=None
    )


# ---- Initialize (RFC 9568 §6.4.1) --------------------------------------------------------------------
def _start(router: Router, _event: Startup, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """Become Backup. The address owner finds itself due to be Active at once."""
    router = replace(router, state=State.BACKUP, active=None)
    if router.priority == PRIORITY_OWNER:
        return replace(router, has_listened=True), (ActiveDown(router.port.name),)
    return _arm_active_down(router, router.adver_int_cs, now), ()


# ---- Backup (RFC 9568 §6.4.2) ------------------------------------------------------------------------
def _hear_as_backup(router: Router, event: AdvertReceived, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """Stay Backup as long as somebody at least as good, or anybody if we do not preempt, is Active."""
    advert = event.advert
    if advert.priority == PRIORITY_RELEASE:
        skew = skew_time_cs(router.priority, router.active_adver_int_cs, router.version)
        return replace(router, active=advert, active_down_at=_after_cs(now, skew)), ()
    if router.preempt and advert.priority < router.priority:
        return router, (Count(f"vrrp.{router.port.name}.lower_priority"),)
    router = replace(router, active=advert, has_listened=True)
    return _arm_active_down(router, advert.adver_int_cs, now), ()


def _active_down(router: Router, _event: TimerFired, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    if router.active_down_at is None or now < router.active_down_at:
        return router, ()
    router = replace(router, active=None, active_down_at=None, has_listened=True)
    return router, (ActiveDown(router.port.name),)


def _become_active(router: Router, _event: Raise, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """Announce on the link: an advert, then a gratuitous ARP for each address, some of them again later."""
    router = replace(
        router,
        state=State.ACTIVE,
        active=None,
        active_down_at=None,
        has_listened=True,
        garp_at=_garps_from(now),
        reassert_at=None,
    )
    router, adverts = _advertise(router, now)
    router, garps = _announce_due(router, now)
    return router, (*adverts, *garps)


def _leave_backup(router: Router, _event: Shutdown, _now: Ns) -> tuple[Router, tuple[Output, ...]]:
    return replace(router, state=State.INITIALIZE, active=None, active_down_at=None), ()


# ---- Active (RFC 9568 §6.4.3) ------------------------------------------------------------------------
def _hear_as_active(router: Router, event: AdvertReceived, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """Answer a worse router and one that leaves with an advert; a better one outranks us.

    The immediate advert is the RFC's, and corrects bridges that learned the VMAC from the other router's
    frames. It may overtake the last of those: gratuitous ARPs follow, in place of those still due.
    """
    advert, local = event.advert, (router.priority, router.port.address)
    if advert.priority == PRIORITY_RELEASE or (advert.priority, advert.source) <= local:
        router, adverts = _advertise(router, now)
        if router.reassert_at is None or now >= router.reassert_at:
            again = Ns(now + ms(garp.REASSERT_MS))
            router = replace(router, garp_at=_garps_from(now), reassert_at=again)
        router, garps = _announce_due(router, now)
        return router, (*adverts, *garps)
    finding = Outranked(
        router.port.name, advert.source, advert.priority, is_peer=advert.source == router.port.peer_address
    )
    return replace(router, active=advert), (finding,)


def _active_timers(router: Router, _event: TimerFired, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    outputs: tuple[Output, ...] = ()
    if router.adver_at is not None and now >= router.adver_at:
        router, outputs = _advertise(router, now)
    router, garps = _announce_due(router, now)
    return router, (*outputs, *garps)


def _become_backup(router: Router, _event: Lower, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """Somebody else reigns: wait for its silence, at its interval if it is known."""
    interval_cs = router.active.adver_int_cs if router.active is not None else router.adver_int_cs
    router = replace(router, state=State.BACKUP, adver_at=None, garp_at=())
    return _arm_active_down(router, interval_cs, now), ()


def _leave_active(router: Router, _event: Shutdown, _now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """Release the addresses. Not fenced: this frame is meant to come when the fence is closed."""
    frame = _advert_frame(router, PRIORITY_RELEASE)
    router = replace(router, state=State.INITIALIZE, active=None, adver_at=None, garp_at=())
    return router, (
        SendFrame(router.port.name, frame, fenced=False),
        Count(f"vrrp.{router.port.name}.released"),
    )


# ---- parts -------------------------------------------------------------------------------------------
def _arm_active_down(router: Router, active_adver_int_cs: int, now: Ns) -> Router:
    interval = active_down_interval_cs(router.priority, active_adver_int_cs, router.version)
    return replace(router, active_adver_int_cs=active_adver_int_cs, active_down_at=_after_cs(now, interval))


def _advertise(router: Router, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    router = replace(router, adver_at=Ns(now + centiseconds(router.adver_int_cs)))
    frame = _advert_frame(router, router.priority)
    return router, (SendFrame(router.port.name, frame), Count(f"vrrp.{router.port.name}.adverts_sent"))


def _advert_frame(router: Router, priority: int) -> bytes:
    port = router.port
    advert = Advert(port.vrid, priority, router.adver_int_cs, port.vips, port.address)
    return vrrp_wire.build(advert, port.vmac, router.form, router.version)


def _garps_from(now: Ns) -> tuple[Ns, ...]:
    return tuple(Ns(now + ms(at)) for at in garp.REPEAT_AT_MS)


def _announce_due(router: Router, now: Ns) -> tuple[Router, tuple[Output, ...]]:
    """Gratuitous ARPs whose time has come; several that are late are sent as one."""
    later = tuple(at for at in router.garp_at if at > now)
    if len(later) == len(router.garp_at):
        return router, ()
    port = router.port
    frames = tuple(SendFrame(port.name, garp.build(port.vmac, vip)) for vip in port.vips)
    return replace(router, garp_at=later), (*frames, Count(f"vrrp.{port.name}.garps_sent", len(frames)))


def _after_cs(now: Ns, interval_cs: Fraction) -> Ns:
    return Ns(now + int(interval_cs * NS_PER_CS))


TABLE: Final = TransitionTable(
    State,
    (Startup, Shutdown, AdvertReceived, TimerFired, Raise, Lower),
    {
        Startup: {
            State.INITIALIZE: _start,
            State.BACKUP: Impossible("a router starts once"),
            State.ACTIVE: Impossible("a router starts once"),
        },
        Shutdown: {
            State.INITIALIZE: Ignore("already down"),
            State.BACKUP: _leave_backup,
            State.ACTIVE: _leave_active,
        },
        AdvertReceived: {
            State.INITIALIZE: Ignore("only Startup leaves Initialize (RFC 9568 §6.4.1)"),
            State.BACKUP: _hear_as_backup,
            State.ACTIVE: _hear_as_active,
        },
        TimerFired: {
            State.INITIALIZE: Ignore("no timer runs"),
            State.BACKUP: _active_down,
            State.ACTIVE: _active_timers,
        },
        Raise: {
            State.INITIALIZE: Impossible("a node that is down does not reign"),
            State.BACKUP: _become_active,
            State.ACTIVE: _become_active,  # announce again: somebody else's frames misled the bridges
        },
        Lower: {
            State.INITIALIZE: Ignore("already down"),
            State.BACKUP: Ignore("already Backup"),
            State.ACTIVE: _become_backup,
        },
    },
)
