# SPDX-License-Identifier: Apache-2.0
"""Types of the values in a pair's file, parsed from the strings that TOML holds; each error names the remedy.

Addresses are IPv4 in this version; nothing below the configuration is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field


@dataclass(frozen=True, slots=True)
class Kind:
    """Metadata of a type: what ``--print-schema`` calls it."""

    name: str


def _parse_address(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f'{value!r} is no IPv4 address; write it as "203.0.113.3"')  # noqa: TRY004
    try:
        return IPv4Address(value)
    except ValueError:
        raise ValueError(f'{value!r} is no IPv4 address; write it as "203.0.113.3"') from None


def _parse_prefix(value: object) -> object:
    if not isinstance(value, str) or "/" not in value:
        raise ValueError(f'{value!r} is no IPv4 prefix; write it as "203.0.113.0/29"')
    try:
        network = IPv4Network(value, strict=False)
    except ValueError:
        raise ValueError(f'{value!r} is no IPv4 prefix; write it as "203.0.113.0/29"') from None
    if value.split("/")[0] != str(network.network_address):
        raise ValueError(f'{value!r} has host bits set; write it as "{network}"')
    return network


def _check_mac(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}", value):
        raise ValueError(f'{value!r} is no MAC address; write it as "02:00:5e:10:00:01"')
    mac = value.lower().replace("-", ":")
    if int(mac[:2], 16) & 1:
        raise ValueError(f'{value!r} is a group address; take a unicast one, such as "02{mac[2:]}"')
    if mac.startswith("00:00:5e:00:01:"):
        raise ValueError(
            f"{value!r} is a virtual router's MAC address (RFC 9568 §7.3); take one of the port's own"
        )
    return mac


def _check_listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    try:
        IPv4Address(host)
        ok = 1 <= int(port) <= 65535
    except ValueError:
        ok = False
    if not ok:
        raise ValueError(f'{value!r} is no address:port; write it as "127.0.0.1:9101"')
    return value


def matching(pattern: str, remedy: str) -> AfterValidator:
    """A string of this shape, or an error that says which shape is wanted."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise ValueError(f"{value!r} does not do; {remedy}")
        return value

    return AfterValidator(check)


def _check_asn(value: int) -> int:
    if value in {23456, 65535}:
        raise ValueError(f"{value} is reserved (RFC 6793, RFC 7300); a private one is in 64512..65534")
    return value


Asn = Annotated[int, Field(ge=1, le=0xFFFFFFFE), AfterValidator(_check_asn), Kind("AS number")]
Address = Annotated[IPv4Address, BeforeValidator(_parse_address), Kind("IPv4 address")]
Prefix = Annotated[IPv4Network, BeforeValidator(_parse_prefix), Kind("IPv4 prefix")]
Mac = Annotated[str, AfterValidator(_check_mac), Kind("MAC address")]
Listen = Annotated[str, AfterValidator(_check_listen), Kind("address:port")]
Cpu = Annotated[int, Field(ge=0, le=1023), Kind("number")]
Name = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9_-]{0,14}", "use 1 to 15 letters, digits, - or _"),
    Kind("name"),
]
# Short, because device names (15 characters at most) are made of it; the cross-connect's name is taken.
PortName = Annotated[
    str,
    matching(r"(?!xc$)[a-z][a-z0-9_]{0,9}", "use 1 to 10 characters a-z, 0-9, _, a letter first, and not xc"),
    Kind("port name"),
]
PairName = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}", "use 1 to 31 letters, digits, - or _"),
    Kind("name"),
]
NetnsName = Annotated[
    str, matching(r"(?!\.{1,2}$)[^\s/]{1,255}", "name a file in /run/netns, without a slash"), Kind("name")
]
Device = Annotated[
    str, matching(r"(?!\.{1,2}$)[^\s/:]{1,15}", "use a device name of 1 to 15 characters"), Kind("device")
]
AbsolutePath = Annotated[str, matching(r"/\S+", "give an absolute path without spaces"), Kind("path")]
HexKey = Annotated[
    str, matching(r"[0-9a-fA-F]{32}", "give 32 hex digits, from: openssl rand -hex 16"), Kind("hex")
]


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports from ``lo`` to ``hi``, inclusive."""

    lo: int
    hi: int

    def __str__(self) -> str:
        return str(self.lo) if self.lo == self.hi else f"{self.lo}-{self.hi}"

    def overlaps(self, other: PortRange) -> bool:
        """Do they share a port?"""
        return self.lo <= other.hi and other.lo <= self.hi


@dataclass(frozen=True, slots=True)
class SyncWhen:
    """When the peer is told of a rule's sessions: at once, never, or when they are so many seconds old."""

    kind: Literal["now", "no", "after"]
    after_s: int = 0

    def __str__(self) -> str:
        return f"after {self.after_s}" if self.kind == "after" else self.kind


SYNC_AFTER_MAX_S = 3600

PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "sctp": 132}
"""Names of protocols in rules; any other one is written as its number."""


def _parse_ports(value: object) -> object:
    remedy = f'{value!r} is no port; write it as "80" or "8000-8080", within 1..65535'
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(remedy)  # noqa: TRY004 - pydantic wants a ValueError
    match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", str(value))
    if match is None:
        raise ValueError(remedy)
    lo, hi = int(match[1]), int(match[2] or match[1])
    if not 1 <= lo <= hi <= 65535:
        raise ValueError(remedy)
    return PortRange(lo, hi)


def _parse_protocol(value: object) -> object:
    text = str(value).lower()
    number = int(text) if text.isdecimal() else PROTOCOLS.get(text, 0)
    if isinstance(value, bool) or not 1 <= number <= 255:
        raise ValueError(f"{value!r} is no protocol; use {', '.join(PROTOCOLS)} or a number in 1..255")
    return number


def _parse_network(value: object) -> object:
    if isinstance(value, str) and "/" not in value:
        return IPv4Network(str(_parse_address(value)))
    return _parse_prefix(value)


def _parse_pool_address(value: object) -> object:
    return value if value == INTERFACE else _parse_address(value)


def _parse_sync_when(value: object) -> object:
    remedy = f'{value!r} does not do; write "now", "no", or "after 5", within 1..{SYNC_AFTER_MAX_S} seconds'
    if value == "now" or value == "no":
        return SyncWhen(value)
    match = re.fullmatch(r"after (\d{1,5})", value) if isinstance(value, str) else None
    if match is None or not 1 <= int(match[1]) <= SYNC_AFTER_MAX_S:
        raise ValueError(remedy)
    return SyncWhen("after", int(match[1]))


def _listed(value: object) -> object:
    """A list of one may be written without its brackets."""
    return value if isinstance(value, list | tuple) else [value]


INTERFACE = "interface"
"""As a pool's address: the node's own one."""
NO_NAT = "none"
"""As a rule's ``nat``: not translated."""
RULE_LIST_MAX = 1024

Ports = Annotated[PortRange, BeforeValidator(_parse_ports), Kind("port or range")]
Protocol = Annotated[int, BeforeValidator(_parse_protocol), Kind("protocol")]
Network = Annotated[IPv4Network, BeforeValidator(_parse_network), Kind("IPv4 prefix")]
PoolAddress = Annotated[
    IPv4Address | Literal["interface"],
    BeforeValidator(_parse_pool_address),
    Kind('IPv4 address or "interface"'),
]
SyncFilter = Annotated[SyncWhen, BeforeValidator(_parse_sync_when), Kind('"now" | "no" | "after SECONDS"')]
RuleName = Annotated[
    str,
    matching(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,30}", "use 1 to 31 letters, digits, -, _ or ."),
    Kind("name"),
]
Listed = BeforeValidator(_listed)
Some = Field(strict=False, min_length=1, max_length=RULE_LIST_MAX)
