# SPDX-License-Identifier: Apache-2.0
"""VRRP advertisements for IPv4 as whole Ethernet frames: build, parse, validate (RFC 9568 §5, §7).

The message (RFC 9568 §5.2), network order, after a 20-byte IPv4 header with protocol 112 and TTL 255::

     0       4       8              16              24              32
    +-------+-------+---------------+---------------+---------------+
    |version| type  |      VRID     |    priority   |IPvX addr count|
    +-------+-------+---------------+---------------+---------------+
    |reserve|  Max Advertise Interval (12 bits, cs) |    checksum   |
    +-------+---------------------------------------+---------------+
    |            IPvX addresses, 4 bytes each                       |
    +---------------------------------------------------------------+

Checksum: RFC 9568 §5.2.8 covers the message only for IPv4; RFC 5798 covered a pseudo-header too, and that is
what keepalived and FRR send and demand. Either form is accepted; the sent one is configured.

Version 2 (RFC 3768 §5.3), for routers that know no other, differs in its third word and has a last field::

    +---------------+---------------+-------------------------------+
    |   auth type   |Adver Int (s)  |            checksum           |
    +---------------+---------------+-------------------------------+
    |            IP addresses, 4 bytes each                         |
    +---------------------------------------------------------------+
    |            authentication data, 8 bytes                       |
    +---------------------------------------------------------------+

Its checksum covers the message alone (§5.3.8), and nothing is authenticated (§5.3.6, §5.3.10).
A port speaks one version; adverts of the other one are discarded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from typing import Final

from flexha.core import checksum
from flexha.core.errors import RemoteProtocolError

VERSION_2: Final = 2
VERSION_3: Final = 3
TYPE_ADVERTISEMENT: Final = 1
IP_PROTOCOL: Final = 112
"""RFC 9568 §5.1.1.4."""
TTL: Final = 255
"""RFC 9568 §5.1.1.3: only a router on the same link can have sent it."""
GROUP: Final = IPv4Address("224.0.0.18")
"""RFC 9568 §5.1.1.2."""
GROUP_MAC: Final = bytes.fromhex("01005e000012")
"""``GROUP`` mapped as RFC 1112 §6.4 says."""
PRIORITY_RELEASE: Final = 0
"""The Active Router has stopped participating (RFC 9568 §5.2.4)."""
PRIORITY_OWNER: Final = 255
ADVER_INT_CS_MAX: Final = 0xFFF
CS_PER_S: Final = 100
"""Version 2 counts its interval in seconds (RFC 3768 §5.3.7)."""

_ETHERNET_BYTES: Final = 14
_ETHERTYPE_IPV4: Final = b"\x08\x00"
_IP_HEADER_BYTES: Final = 20
_MESSAGE_FIXED_BYTES: Final = 8
_AUTH_TYPE_NONE: Final = 0
_AUTH_DATA: Final = bytes(8)
_FRAME_BYTES_MIN: Final = 60  # IEEE 802.3 without FCS
_TOS_INTERNETWORK_CONTROL: Final = 0xC0


class ChecksumForm(StrEnum):
    """What the checksum of an IPv4 advert covers."""

    RFC5798 = "rfc5798"
    """Pseudo-header and message: keepalived, FRR."""
    RFC9568 = "rfc9568"
    """The message alone (RFC 9568 §5.2.8)."""


@dataclass(frozen=True, slots=True)
class Advert:
    """One advertisement, and who sent it."""

    vrid: int
    priority: int
    """0 = released, 1..254, 255 = address owner."""
    adver_int_cs: int
    """Max Advertise Interval, centiseconds, 1..4095; version 2: whole seconds, 100..25500."""
    vips: tuple[IPv4Address, ...]
    source: IPv4Address
    """The sender's primary address: breaks a tie of priorities (RFC 9568 §6.4.3)."""


def build(advert: Advert, vmac: bytes, form: ChecksumForm, version: int = VERSION_3) -> bytes:
    """An Ethernet frame that carries ``advert`` from the virtual router MAC (RFC 9568 §7.2).

    ``form`` is version 3's choice. Version 2 takes an ``adver_int_cs`` of whole seconds.
    """
    message = bytearray((version << 4 | TYPE_ADVERTISEMENT, advert.vrid, advert.priority, len(advert.vips)))
    if version == VERSION_2:
        message += bytes((_AUTH_TYPE_NONE, advert.adver_int_cs // CS_PER_S))
    else:
        message += advert.adver_int_cs.to_bytes(2, "big")  # the reserve field above it is zero (§5.2.6)
    message += bytes(2)
    for vip in advert.vips:
        message += vip.packed
    if version == VERSION_2:
        message += _AUTH_DATA
    covered = bytes(message)
    if version == VERSION_3 and form is ChecksumForm.RFC5798:
        covered = checksum.pseudo_header(advert.source, GROUP, IP_PROTOCOL, len(message)) + covered
    message[6:8] = checksum.internet_checksum(covered).to_bytes(2, "big")
    frame = GROUP_MAC + vmac + _ETHERTYPE_IPV4 + _ip_header(advert.source, len(message)) + bytes(message)
    return frame.ljust(_FRAME_BYTES_MIN, b"\0")


def _ip_header(source: IPv4Address, payload_bytes: int) -> bytes:
    """IPv4 header of an advert. Identification 0 with DF: an atomic datagram (RFC 6864 §4.1)."""
    header = bytearray(_IP_HEADER_BYTES)
    header[0] = 0x45
    header[1] = _TOS_INTERNETWORK_CONTROL
    header[2:4] = (_IP_HEADER_BYTES + payload_bytes).to_bytes(2, "big")
    header[6] = 0x40
    header[8] = TTL
    header[9] = IP_PROTOCOL
    header[12:16] = source.packed
    header[16:20] = GROUP.packed
    header[10:12] = checksum.internet_checksum(bytes(header)).to_bytes(2, "big")
    return bytes(header)


def parse(frame: bytes, vrid: int, wanted: int = VERSION_3) -> Advert:
    """The advert in ``frame``, after every check that RFC 9568 §7.1 (RFC 3768 §7.1) demands on a port with
    ``vrid`` that speaks the ``wanted`` version.

    Raises: RemoteProtocolError whose ``reason`` names the check that failed, in the RFC's order: the packet
    is discarded and the reason counted. (A differing list of addresses is for the caller to warn of.)
    """
    header_bytes, total_bytes = _check_ip_header(frame)
    ip = frame[_ETHERNET_BYTES:]
    source, destination = IPv4Address(ip[12:16]), IPv4Address(ip[16:20])
    message = ip[header_bytes:total_bytes]
    if ip[8] != TTL:
        raise RemoteProtocolError("bad_ttl", f"TTL {ip[8]} from {source}, only {TTL} is local")
    if len(message) < _MESSAGE_FIXED_BYTES:
        raise RemoteProtocolError("bad_length", f"{len(message)} bytes of VRRP from {source}")
    version, kind = message[0] >> 4, message[0] & 0xF
    if version != wanted:
        raise RemoteProtocolError("bad_version", f"VRRP version {version} from {source}")
    if kind != TYPE_ADVERTISEMENT:
        raise RemoteProtocolError("bad_type", f"VRRP type {kind} from {source}")
    count = message[3]
    if count == 0:  # erratum 8299 to §5.2.5
        raise RemoteProtocolError("count_zero", f"no addresses in an advert from {source}")
    addresses_end = _MESSAGE_FIXED_BYTES + 4 * count
    length = addresses_end + (len(_AUTH_DATA) if version == VERSION_2 else 0)
    if len(message) < length:
        raise RemoteProtocolError(
            "bad_length", f"{len(message)} bytes from {source}, {length} for {count} addresses"
        )
    message = message[:length]  # §5.2: what may follow is none of the message
    if not _checksum_ok(message, source, destination, version):
        raise RemoteProtocolError("bad_checksum", f"checksum of an advert from {source}")
    if message[1] != vrid:
        raise RemoteProtocolError("bad_vrid", f"VRID {message[1]} from {source}, ours is {vrid}")
    if version == VERSION_2:
        if (
            message[4] != _AUTH_TYPE_NONE
        ):  # RFC 3768 §7.1: MUST match the configured one, and there is no other
            raise RemoteProtocolError("bad_auth", f"authentication type {message[4]} from {source}")
        adver_int_cs = message[5] * CS_PER_S
    else:
        adver_int_cs = int.from_bytes(message[4:6], "big") & ADVER_INT_CS_MAX
    if adver_int_cs == 0:  # erratum 8301 to §7.1
        raise RemoteProtocolError("interval_zero", f"Max Advertise Interval 0 from {source}")
    return Advert(
        vrid=message[1],
        priority=message[2],
        adver_int_cs=adver_int_cs,
        vips=tuple(IPv4Address(message[at : at + 4]) for at in range(_MESSAGE_FIXED_BYTES, addresses_end, 4)),
        source=source,
    )


def _check_ip_header(frame: bytes) -> tuple[int, int]:
    """Header length and total length of the IPv4 packet in ``frame``, both within the frame."""
    ip = frame[_ETHERNET_BYTES:]
    if len(ip) < _IP_HEADER_BYTES:
        raise RemoteProtocolError("bad_length", f"frame of {len(frame)} bytes")
    if frame[12:14] != _ETHERTYPE_IPV4 or ip[0] >> 4 != 4 or ip[9] != IP_PROTOCOL:
        raise RemoteProtocolError("not_vrrp", "not an IPv4 packet of protocol 112")
    header_bytes = (ip[0] & 0xF) * 4
    total_bytes = int.from_bytes(ip[2:4], "big")
    if not _IP_HEADER_BYTES <= header_bytes <= total_bytes <= len(ip):
        raise RemoteProtocolError(
            "bad_length", f"IP header {header_bytes}, total {total_bytes}, frame {len(frame)}"
        )
    if int.from_bytes(ip[6:8], "big") & 0x3FFF:
        raise RemoteProtocolError("fragment", "an advert fits one packet")
    if not checksum.is_valid(ip[:header_bytes]):
        raise RemoteProtocolError("bad_ip_checksum", "IPv4 header checksum")
    return header_bytes, total_bytes


def _checksum_ok(message: bytes, source: IPv4Address, destination: IPv4Address, version: int) -> bool:
    """Over the message (RFC 9568 §5.2.8, RFC 3768 §5.3.8); of version 3 also with the pseudo-header
    (RFC 5798 §5.2.8).
    """
    if checksum.is_valid(message):
        return True
    if version == VERSION_2:
        return False
    return checksum.is_valid(checksum.pseudo_header(source, destination, IP_PROTOCOL, len(message)) + message)
