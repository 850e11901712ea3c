# SPDX-License-Identifier: Apache-2.0
"""A frame in a few words, as tcpdump would say it: who to whom, and what. For whoever looks on."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

ETHERNET, IPV4, ARP, IPV6 = 14, 0x0800, 0x0806, 0x86DD
ICMP, TCP, UDP, ICMPV6, VRRP = 1, 6, 17, 58, 112
NAMES = {
    ICMP: "icmp",
    TCP: "tcp",
    UDP: "udp",
    ICMPV6: "icmp6",
    VRRP: "vrrp",
    47: "gre",
    50: "esp",
    132: "sctp",
}
TCP_FLAGS = "FSRP.UEW"
"""From the lowest bit; ``.`` is ACK."""
ICMP_TYPES = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
FRAG_NEEDED = 4


def describe(data: bytes) -> str:
    """``198.51.100.10.40000 > 192.0.2.10.80: tcp S``; what was cut off is left out."""
    try:
        return _ethernet(data)
    except (struct.error, IndexError, ValueError):
        return "[cut]"


def _ethernet(data: bytes) -> str:
    (kind,) = struct.unpack_from("!H", data, 12)
    if kind == IPV4:
        return _ipv4(data[ETHERNET:])
    if kind == ARP:
        return _arp(data[ETHERNET:])
    if kind == IPV6:
        return _ipv6(data[ETHERNET:])
    return f"{data[6:12].hex(':')} > {data[:6].hex(':')}: ethertype 0x{kind:04x}"


def _arp(arp: bytes) -> str:
    (operation,) = struct.unpack_from("!H", arp, 6)
    sender, target = IPv4Address(arp[14:18]), IPv4Address(arp[24:28])
    if operation == 1:
        return f"arp who-has {target} tell {sender}"
    return f"arp reply {sender} is-at {arp[8:14].hex(':')}"


def _ipv4(ip: bytes) -> str:
    source, target = IPv4Address(ip[12:16]), IPv4Address(ip[16:20])
    (fragment,) = struct.unpack_from("!H", ip, 6)
    if fragment & 0x1FFF:
        return f"{source} > {target}: {_name(ip[9])} fragment at {(fragment & 0x1FFF) * 8}"
    return _l4(str(source), str(target), ip[9], ip[(ip[0] & 0xF) * 4 :])


def _ipv6(ip: bytes) -> str:
    return _l4(str(IPv6Address(ip[8:24])), str(IPv6Address(ip[24:40])), ip[6], ip[40:])


def _l4(source: str, target: str, proto: int, l4: bytes) -> str:
    if proto in {TCP, UDP} and len(l4) >= 4:
        sport, dport = struct.unpack_from("!HH", l4)
        flags = ""
        if proto == TCP and len(l4) > 13:
            flags = " " + "".join(name for bit, name in enumerate(TCP_FLAGS) if l4[13] >> bit & 1)
        return f"{source}.{sport} > {target}.{dport}: {_name(proto)}{flags}"
    if proto == ICMP and len(l4) >= 6:
        what = ICMP_TYPES.get(l4[0], f"type {l4[0]}")
        if l4[0] in {0, 8}:
            what += f" id {struct.unpack_from('!H', l4, 4)[0]}"
        elif l4[:2] == bytes([3, FRAG_NEEDED]):
            what = "fragmentation needed"
        return f"{source} > {target}: icmp {what}"
    return f"{source} > {target}: {_name(proto)}"


def _name(proto: int) -> str:
    return NAMES.get(proto, f"proto {proto}")
