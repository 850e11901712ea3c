# SPDX-License-Identifier: Apache-2.0
"""rtnetlink, the only module that knows pyroute2.

pyroute2's message classes encode and decode; the sockets are our own, because uvloop takes no AF_NETLINK
transport and because one socket per network namespace is all we need. rtnetlink answers within ``send()``, so
``Rtnl`` is synchronous: a request costs some 0.1 ms.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any, Self

from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.marshal import MarshalRtnl
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from flexha.errors import NetlinkError
from flexha.shell import netns

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 1, 4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400

GROUP_LINK, GROUP_NEIGH, GROUP_IPV4_IFADDR, GROUP_IPV4_ROUTE = 0x1, 0x4, 0x10, 0x40

IFF_UP, IFF_LOWER_UP = 0x1, 0x10000

NUD_STALE, NUD_FAILED = 0x04, 0x20
NUD_STATIC = 0x40 | 0x80
"""NOARP, PERMANENT: states in which no station says what the link-layer address is."""
NUD_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80
"""REACHABLE, STALE, DELAY, PROBE, NOARP, PERMANENT: states whose link-layer address may be used."""

NTF_EXT_MANAGED = 1
"""The kernel resolves the neighbour and keeps it so by itself (Linux 5.16)."""

RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTPROT_STATIC = 4
RTNH_F_DEAD, RTNH_F_LINKDOWN = 1, 16

DEVCONF_ARP_ANNOUNCE, DEVCONF_ARP_IGNORE = 18, 19
"""``IPV4_DEVCONF_*`` of linux/ip.h: set by netlink, since a sandboxed service may not write to /proc/sys."""

_IFLA_AF_SPEC = 26
_IFLA_PROTINFO = 12
_IFLA_INET_CONF = 1
_IFLA_INET6_ADDR_GEN_MODE = 8
_IN6_ADDR_GEN_MODE_NONE = 1
_IFLA_BRPORT_LEARNING = 8
_IFLA_BRPORT_FLUSH = 24
_NLA_F_NESTED = 0x8000

_RECEIVE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Link:
    """A network device."""

    index: int
    name: str
    mac: str
    flags: int
    master: int
    kind: str
    mtu: int = 0

    @property
    def running(self) -> bool:
        """Up, and with carrier."""
        return self.flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP | IFF_LOWER_UP


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """One next hop of an IPv4 unicast route in the main table."""

    prefix: IPv4Network
    gateway: IPv4Address | None
    ifindex: int
    priority: int

    @property
    def slot(self) -> tuple[IPv4Network, int]:
        """What a replacing route replaces."""
        return self.prefix, self.priority


@dataclass(frozen=True, slots=True)
class KernelNeighbour:
    """An entry of the kernel's ARP table."""

    ifindex: int
    address: IPv4Address
    mac: bytes | None
    state: int

    @property
    def usable(self) -> bool:
        """It has a link-layer address that may be sent to."""
        return self.mac is not None and bool(self.state & NUD_USABLE)


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """RTM_NEWLINK, or RTM_DELLINK if ``gone``."""

    link: Link
    gone: bool


@dataclass(frozen=True, slots=True)
class RoutesChanged:
    """RTM_NEWROUTE or RTM_DELROUTE: one element for each next hop; ``replace``: of all in the same slot."""

    routes: tuple[KernelRoute, ...]
    gone: bool
    replace: bool


@dataclass(frozen=True, slots=True)
class NeighbourChanged:
    """RTM_NEWNEIGH, or RTM_DELNEIGH if ``gone``."""

    neighbour: KernelNeighbour
    gone: bool


Change = LinkChanged | RoutesChanged | NeighbourChanged


def _attribute(kind: int, payload: bytes) -> bytes:
    """One rtattr, padded to 4 bytes."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length % 4)


class Rtnl:
    """A request socket in one network namespace."""

    def __init__(self, namespace: str | None = None, groups: int = 0) -> None:
        with netns.visited(namespace):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.bind((0, groups))
        self._marshal = MarshalRtnl()
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    # ---- links ----
    def links(self) -> list[Link]:
        """All devices of the namespace."""
        return [
            _link(message) for message in self._request(ifinfmsg(), RTM_GETLINK, NLM_F_DUMP, "list links")
        ]

    def link(self, name: str) -> Link | None:
        """The device of that name."""
        message = ifinfmsg()
        message["attrs"] = [("IFLA_IFNAME", name)]
        try:
            answers = self._request(message, RTM_GETLINK, 0, f"look up {name}")
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return None
            raise
        return _link(answers[0])

    def move(self, index: int, namespace: str) -> None:
        """Move a device to a named namespace, where it is down and may have another index."""
        fd = netns.open_fd(namespace)
        try:
            self._set_link(index, f"move to netns {namespace}", [("IFLA_NET_NS_FD", fd)])
        finally:
            os.close(fd)

    def enslave(self, index: int, bridge_index: int) -> None:
        """Make a device a port of a bridge."""
        self._set_link(index, "add to the bridge", [("IFLA_MASTER", bridge_index)])

    def dress(self, index: int, *, mtu: int, queue_frames: int) -> None:
        """Set MTU and transmit queue length."""
        self._set_link(index, "set mtu and queue", [("IFLA_MTU", mtu), ("IFLA_TXQLEN", queue_frames)])

    def set_mtu(self, index: int, mtu: int) -> None:
        """Set a device's MTU."""
        self._set_link(index, "set mtu", [("IFLA_MTU", mtu)])

    def down(self, index: int) -> None:
        """Set a device administratively down; its IPv6 addresses go."""
        self._set_link(index, "set down", [], change=IFF_UP)

    def up(self, index: int) -> None:
        """Set a device administratively up."""
        self._set_link(index, "set up", [], flags=IFF_UP)

    def set_mac(self, index: int, mac: bytes) -> None:
        """Set a device's link-layer address."""
        self._set_link(index, "set address", [("IFLA_ADDRESS", mac.hex(":"))])

    def no_ipv6_addresses(self, index: int) -> None:
        """Keep the kernel from making a link-local address here."""
        mode = _attribute(_IFLA_INET6_ADDR_GEN_MODE, bytes((_IN6_ADDR_GEN_MODE_NONE,)))
        spec = _attribute(_IFLA_AF_SPEC | _NLA_F_NESTED, _attribute(socket.AF_INET6 | _NLA_F_NESTED, mode))
        try:
            self._set_link(index, "set addrgenmode none", [], tail=spec)
        except NetlinkError as error:
            if error.errno not in {errno.EAFNOSUPPORT, errno.EOPNOTSUPP}:  # a kernel without IPv6
                raise

    def set_ipv4_conf(self, index: int, values: dict[int, int]) -> None:
        """Set ``/proc/sys/net/ipv4/conf/DEV/*`` by number (``DEVCONF_*``)."""
        conf = b"".join(_attribute(number, struct.pack("=I", value)) for number, value in values.items())
        inet = _attribute(socket.AF_INET | _NLA_F_NESTED, _attribute(_IFLA_INET_CONF | _NLA_F_NESTED, conf))
        self._set_link(
            index, "set arp_ignore and arp_announce", [], tail=_attribute(_IFLA_AF_SPEC | _NLA_F_NESTED, inet)
        )

    def bridge_port_no_learning(self, index: int) -> None:
        """Let the bridge learn no address on this port of it, and forget those that it has learned there."""
        attributes = _attribute(_IFLA_BRPORT_LEARNING, b"\0") + _attribute(_IFLA_BRPORT_FLUSH, b"")
        tail = _attribute(_IFLA_PROTINFO | _NLA_F_NESTED, attributes)
        self._set_link(index, "set learning off", [], family=socket.AF_BRIDGE, tail=tail)

    def _set_link(
        self,
        index: int,
        what: str,
        attributes: list[tuple[str, Any]],
        *,
        flags: int = 0,
        change: int = 0,
        family: int = socket.AF_UNSPEC,
        tail: bytes = b"",
    ) -> None:
        message = ifinfmsg()
        message["family"], message["index"] = family, index
        message["flags"], message["change"] = flags, flags | change
        message["attrs"] = attributes
        self._request(message, RTM_SETLINK, NLM_F_ACK, what, tail)

    # ---- addresses ----
    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """All IPv4 addresses of the namespace, each with its device's index."""
        message = ifaddrmsg()
        message["family"] = socket.AF_INET
        return [
            (answer["index"], IPv4Interface((local, answer["prefixlen"])))
            for answer in self._request(message, RTM_GETADDR, NLM_F_DUMP, "list addresses")
            if answer["family"] == socket.AF_INET
            and (local := answer.get_attr("IFA_LOCAL") or answer.get_attr("IFA_ADDRESS"))
        ]

    def has_ipv6_address(self, index: int) -> bool:
        """Whether a device has any, a link-local one included."""
        message = ifaddrmsg()
        message["family"] = socket.AF_INET6
        answers = self._request(message, RTM_GETADDR, NLM_F_DUMP, "list IPv6 addresses")
        return any(answer["family"] == socket.AF_INET6 and answer["index"] == index for answer in answers)

    def add_address(self, index: int, interface: IPv4Interface) -> None:
        """Add an address to a device."""
        message = ifaddrmsg()
        message["family"], message["index"] = socket.AF_INET, index
        message["prefixlen"] = interface.network.prefixlen
        message["attrs"] = [
            ("IFA_LOCAL", str(interface.ip)),
            ("IFA_ADDRESS", str(interface.ip)),
            ("IFA_BROADCAST", str(interface.network.broadcast_address)),
        ]
        self._request(message, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, f"add address {interface}")

    # ---- routes ----
    def routes(self) -> list[KernelRoute]:
        """IPv4 unicast routes of the main table, a next hop each."""
        message = rtmsg()
        message["family"] = socket.AF_INET
        return [
            hop
            for answer in self._request(message, RTM_GETROUTE, NLM_F_DUMP, "list routes")
            for hop in _routes(answer)
        ]

    def add_route(self, prefix: IPv4Network, via: IPv4Address, index: int, metric: int) -> None:
        """Add a static route to the main table."""
        message = rtmsg()
        message["family"], message["dst_len"] = socket.AF_INET, prefix.prefixlen
        message["table"], message["proto"], message["type"] = RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST
        message["attrs"] = [("RTA_GATEWAY", str(via)), ("RTA_OIF", index), ("RTA_PRIORITY", metric)]
        if prefix.prefixlen:
            message["attrs"].insert(0, ("RTA_DST", str(prefix.network_address)))
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
        self._request(message, RTM_NEWROUTE, flags, f"add route {prefix} via {via} metric {metric}")

    # ---- neighbours ----
    def neighbours(self) -> list[KernelNeighbour]:
        """The IPv4 neighbour table."""
        message = ndmsg()
        message["family"] = socket.AF_INET
        return [
            neighbour
            for answer in self._request(message, RTM_GETNEIGH, NLM_F_DUMP, "list neighbours")
            if (neighbour := _neighbour(answer))
        ]

    def manage_neighbour(self, index: int, address: IPv4Address) -> None:
        """Let the kernel resolve a neighbour now, and keep it resolved without traffic of its own."""
        message = ndmsg()
        message["family"], message["ifindex"], message["state"] = socket.AF_INET, index, 0
        message["attrs"] = [("NDA_DST", str(address)), ("NDA_FLAGS_EXT", NTF_EXT_MANAGED)]
        flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
        self._request(message, RTM_NEWNEIGH, flags, f"resolve neighbour {address}")

    def move_neighbour(self, index: int, address: IPv4Address, mac: bytes) -> None:
        """Give a neighbour another link-layer address, to be verified (STALE); it is managed no more."""
        message = ndmsg()
        message["family"], message["ifindex"], message["state"] = socket.AF_INET, index, NUD_STALE
        message["attrs"] = [("NDA_DST", str(address)), ("NDA_LLADDR", mac.hex(":"))]
        self._request(message, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_REPLACE, f"move neighbour {address}")

    def forget_neighbour(self, index: int, address: IPv4Address) -> None:
        """Delete a neighbour entry; none is no error."""
        message = ndmsg()
        message["family"], message["ifindex"] = socket.AF_INET, index
        message["attrs"] = [("NDA_DST", str(address))]
        try:
            self._request(message, RTM_DELNEIGH, NLM_F_ACK, f"forget neighbour {address}")
        except NetlinkError as error:
            if error.errno != errno.ENOENT:
                raise

    # ---- the exchange ----
    def _request(self, message: Any, kind: int, flags: int, what: str, tail: bytes = b"") -> list[Any]:
        """Send one message and collect the answers. ``tail``: attributes that pyroute2 cannot encode."""
        self._sequence += 1
        header = message["header"]
        header["type"], header["flags"] = kind, NLM_F_REQUEST | flags
        header["sequence_number"], header["pid"] = self._sequence, 0
        message.encode()
        data = bytearray(message.data) + tail
        struct.pack_into("=I", data, 0, len(data))
        self._socket.send(data)
        answers: list[Any] = []
        while True:
            for answer in self._marshal.parse(self._socket.recv(_RECEIVE_BYTES)):
                if answer["header"]["sequence_number"] != self._sequence:
                    continue
                if error := answer["header"]["error"]:
                    raise NetlinkError(error.code, what)
                if answer["header"]["type"] == _NLMSG_DONE or answer["header"]["type"] == _NLMSG_ERROR:
                    return answers
                answers.append(answer)
            if not flags & (NLM_F_DUMP | NLM_F_ACK):
                return answers


_NLMSG_ERROR, _NLMSG_DONE = 2, 3


class Listener:
    """A multicast socket: what changed in one network namespace. Non-blocking; for ``loop.add_reader``."""

    def __init__(self, namespace: str | None, groups: int) -> None:
        with netns.visited(namespace):
            self._socket = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0
            )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((0, groups))
        self._marshal = MarshalRtnl()

    def fileno(self) -> int:
        """The descriptor to watch."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def receive(self) -> Iterator[Change]:
        """Decode one datagram, if there is one.

        Raises: OSError(ENOBUFS) when changes were lost: dump everything anew.
        """
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        for message in self._marshal.parse(data):
            kind = message["header"]["type"]
            if kind in {RTM_NEWLINK, RTM_DELLINK}:
                yield LinkChanged(_link(message), kind == RTM_DELLINK)
            elif kind in {RTM_NEWROUTE, RTM_DELROUTE}:
                replace = bool(message["header"]["flags"] & NLM_F_REPLACE)
                if routes := tuple(_routes(message)):
                    yield RoutesChanged(routes, kind == RTM_DELROUTE, replace)
            elif kind in {RTM_NEWNEIGH, RTM_DELNEIGH} and (neighbour := _neighbour(message)):
                yield NeighbourChanged(neighbour, kind == RTM_DELNEIGH)


def _link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME") or "",
        mac=message.get_attr("IFLA_ADDRESS") or "",
        flags=message["flags"],
        master=message.get_attr("IFLA_MASTER") or 0,
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
    )


def _routes(message: Any) -> Iterator[KernelRoute]:
    table = message.get_attr("RTA_TABLE") or message["table"]
    if message["family"] != socket.AF_INET or message["type"] != RTN_UNICAST or table != RT_TABLE_MAIN:
        return
    destination = message.get_attr("RTA_DST") or "0.0.0.0"  # noqa: S104 - a prefix, not an address to bind
    prefix = IPv4Network((destination, message["dst_len"]))
    priority = message.get_attr("RTA_PRIORITY") or 0
    hops = message.get_attr("RTA_MULTIPATH")
    if hops:
        for hop in hops:
            if not hop["flags"] & (RTNH_F_DEAD | RTNH_F_LINKDOWN):
                yield KernelRoute(prefix, _gateway(hop), hop["oif"], priority)
    elif (oif := message.get_attr("RTA_OIF")) and not message["flags"] & RTNH_F_DEAD:
        yield KernelRoute(prefix, _gateway(message), oif, priority)


def _gateway(message: Any) -> IPv4Address | None:
    gateway = message.get_attr("RTA_GATEWAY")
    return IPv4Address(gateway) if gateway else None


def _neighbour(message: Any) -> KernelNeighbour | None:
    address = message.get_attr("NDA_DST")
    if message["family"] != socket.AF_INET or not address:
        return None
    mac = message.get_attr("NDA_LLADDR")
    return KernelNeighbour(
        ifindex=message["ifindex"],
        address=IPv4Address(address),
        mac=bytes.fromhex(mac.replace(":", "")) if mac else None,
        state=message["state"],
    )
