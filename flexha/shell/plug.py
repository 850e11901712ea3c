# SPDX-License-Identifier: Apache-2.0
"""Plug a port in: its wire into the fast path, its host device into the node's own kernel.

Driver ``tap``: ``fp_open`` has made both TAPs, down and without addresses, in the node's namespace. They
vanish with the process, so there is nothing to unplug, not even after SIGKILL; each start plugs anew.

Driver ``packet``: the wire is a device that somebody put into a namespace of its own; ``fp_open`` opens
sockets on it, so it is dressed and set up before (``prepare``), and stays as it is when the process goes. Its
own MAC plays no part: frames are received promiscuously, and sent from the port's MAC or the virtual one. It
may be the port's (``mac``) where a switch or a hypervisor lets only that one pass. The host device is a TAP,
or one end of a veth pair where /dev/net/tun is closed.

What must be so, and why:

* The wire TAP keeps the random MAC that the kernel gave it: a bridge swallows frames for the addresses of its
  own ports, so that MAC must be neither the port's nor the virtual one. But it begins with fe: a bridge that
  was given no MAC takes the lowest of its ports', and if that were ours, the box's own would change whenever
  the daemon comes and goes.
* The wire TAP has no IPv6 address: the kernel of that namespace must not speak on our wire.
* On a bridge, a NIC beside the wire TAP (``uplink``) learns no addresses: else the bridge would learn the
  virtual MAC there when the peer announces it, and never hand us such a frame.
* The device of the packet driver has no address of either family, for the same reason.
* The host device answers ARP for its own address only (``arp_ignore``, ``arp_announce``): the kernel would
  otherwise answer on one wire for the address of the other.
* The host device joins 224.0.0.18, so that switches that snoop IGMP let adverts through to this port.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from flexha.config.derive import NodePlan, PlugPlan, XcPlan
from flexha.errors import NetlinkError, StartError
from flexha.fastpath import Driver, FastpathConfig
from flexha.shell import log, preflight
from flexha.shell.rtnl import DEVCONF_ARP_ANNOUNCE, DEVCONF_ARP_IGNORE, Link, Rtnl

VRRP_GROUP = IPv4Address("224.0.0.18")
"""RFC 9568 §5.1.1.2."""

WIRE_MAC_HEAD = b"\xfe"
"""Unicast, locally administered, and above what NICs have."""

QUEUE_FRAMES = 4096
"""Room of a TAP's queue: what arrives at line rate while a worker waits some 10 ms for a CPU."""


def host_devices(config: FastpathConfig) -> FastpathConfig:
    """The fast path's configuration, with veth pairs for host devices where no TAP can be made."""
    if preflight.tun_usable():
        return config
    ports = []
    for port in config.ports:
        if port.driver is Driver.PACKET:
            log.info("port.host_by_veth", port=port.name, host_dev=port.host_dev, closed=preflight.TUN)
            ports.append(replace(port, host_veth=True))
        else:
            ports.append(port)
    return replace(config, ports=tuple(ports))


@dataclass(slots=True)
class PluggedPort:
    """A port that is plugged in. ``wire_index`` counts in the port's namespace."""

    plan: PlugPlan
    host_index: int
    wire_index: int
    group: socket.socket | None = None


def _device(rtnl: Rtnl, name: str, where: str) -> Link:
    link = rtnl.link(name)
    if link is None:
        raise StartError(f"device {name!r} has vanished {where}; who deleted it?")
    return link


def prepare(plan: PlugPlan) -> int:
    """Packet driver: dress the device in its namespace and set it up; returns its index there.

    Raises: NetlinkError, StartError.
    """
    with Rtnl(plan.netns) as there:
        index = _device(there, plan.wire_dev, f"in netns {plan.netns}").index
        if there.has_ipv6_address(index):
            there.down(index)
        there.no_ipv6_addresses(index)
        there.set_mtu(index, plan.mtu)
        there.up(index)
    return index


def prepare_all(plan: NodePlan) -> None:
    """What must be so before the fast path is opened."""
    for port in plan.plugs:
        if port.driver != "packet":
            continue
        try:
            prepare(port)
        except NetlinkError as error:
            raise StartError(f"ports.{port.port}: cannot set {port.wire_dev} up: {error}") from error


def plug_wire(plan: PlugPlan, rtnl: Rtnl) -> int:
    """Bring the wire to where it belongs, up; returns its index there."""
    if plan.driver == "packet":
        with Rtnl(plan.netns) as there:
            return _device(there, plan.wire_dev, f"in netns {plan.netns}").index
    link = _device(rtnl, plan.wire_dev, "before it was plugged")
    if plan.netns is None:
        return _dress_wire(plan, rtnl, link)
    rtnl.move(link.index, plan.netns)
    with Rtnl(plan.netns) as there:
        return _dress_wire(plan, there, _device(there, plan.wire_dev, f"in netns {plan.netns}"))


def _dress_wire(plan: PlugPlan, there: Rtnl, link: Link) -> int:
    index = link.index
    there.set_mac(index, WIRE_MAC_HEAD + bytes.fromhex(link.mac.replace(":", ""))[len(WIRE_MAC_HEAD) :])
    there.no_ipv6_addresses(index)
    there.dress(index, mtu=plan.mtu, queue_frames=QUEUE_FRAMES)
    if plan.bridge is not None:
        there.enslave(index, _device(there, plan.bridge, "while we plugged into it").index)
    if plan.uplink is not None:
        there.bridge_port_no_learning(_device(there, plan.uplink, "while we plugged beside it").index)
    there.up(index)
    return index


def plug_host(plan: PlugPlan, rtnl: Rtnl) -> int:
    """Dress the host device and set it up, still without its address; returns its index."""
    link = _device(rtnl, plan.host_dev, "before it was plugged")
    if link.mac != plan.mac.hex(":"):
        rtnl.set_mac(link.index, plan.mac)
    rtnl.dress(link.index, mtu=plan.mtu, queue_frames=QUEUE_FRAMES)
    rtnl.set_ipv4_conf(link.index, {DEVCONF_ARP_IGNORE: 1, DEVCONF_ARP_ANNOUNCE: 2})
    rtnl.up(link.index)
    return link.index


def plug(plan: PlugPlan, rtnl: Rtnl) -> PluggedPort:
    """Both devices of a port, up."""
    try:
        port = PluggedPort(plan, plug_host(plan, rtnl), plug_wire(plan, rtnl))
    except NetlinkError as error:
        raise StartError(
            f"ports.{plan.port}: cannot plug {plan.wire_dev} and {plan.host_dev}: {error}"
        ) from error
    log.info(
        "port.plugged",
        port=plan.port,
        driver=plan.driver,
        wire_dev=plan.wire_dev,
        netns=plan.netns,
        bridge=plan.bridge,
        host_dev=plan.host_dev,
        mac=plan.mac.hex(":"),
    )
    return port


def address(port: PluggedPort, rtnl: Rtnl) -> None:
    """Give the host device its address (once nobody else is known to have it), and join the VRRP group."""
    try:
        rtnl.add_address(port.host_index, port.plan.interface)
    except NetlinkError as error:
        raise StartError(f"ports.{port.plan.port}: {error}") from error
    group = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    membership = struct.pack("=4s4si", VRRP_GROUP.packed, port.plan.interface.ip.packed, port.host_index)
    group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    port.group = group  # membership ends with the socket


def install_routes(plan: NodePlan, ports: list[PluggedPort], rtnl: Rtnl) -> None:
    """Put the configured routes into the kernel, the source of truth for next hops."""
    indices = {port.plan.host_dev: port.host_index for port in ports}
    for route in plan.routes:
        try:
            rtnl.add_route(route.prefix, route.via, indices[route.device], route.metric)
        except NetlinkError as error:
            raise StartError(
                f"routes: {error}; a route to {route.prefix} with metric {route.metric} may exist already, "
                "choose another metric"
            ) from error
        log.info("route.installed", prefix=route.prefix, via=route.via, dev=route.device, metric=route.metric)


def bring_up_xc(xc: XcPlan, rtnl: Rtnl) -> None:
    """Configure the cross-connect: address, MTU and link. What is so already stays as it is."""
    link = _device(rtnl, xc.device, "since we looked for it")
    try:
        if (link.index, xc.interface.ip) not in {(index, held.ip) for index, held in rtnl.addresses()}:
            rtnl.add_address(link.index, xc.interface)
            log.info("xc.address_added", device=xc.device, address=xc.interface)
        if xc.raise_mtu and link.mtu < xc.mtu:
            rtnl.set_mtu(link.index, xc.mtu)
            log.info("xc.mtu_raised", device=xc.device, mtu=xc.mtu, was=link.mtu)
        rtnl.up(link.index)
    except NetlinkError as error:
        raise StartError(f"xc: {xc.device}: {error}") from error
    if not _device(rtnl, xc.device, "now").running:
        log.warning("xc.no_carrier", device=xc.device, remedy="check the cable, or bring up the peer's end")
