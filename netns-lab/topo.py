# SPDX-License-Identifier: Apache-2.0
"""The topology of the lab: its hosts, wires and addresses, and how they are built.

``build`` runs inside the lab's own outer network and mount namespaces (``supervisor.py``), with ``/run``
already a tmpfs, so that the names under ``/run/netns`` are the lab's alone. The drawing is in ``README.md``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute, NetNS, netns

LAN_VIP = "198.51.100.1"
WAN_VIP = "203.0.113.3"
ISP_ADDRESS = "203.0.113.1"
ISP_INTERNET_ADDRESS = "192.0.2.1"
SERVER_ADDRESS = "192.0.2.10"
CLIENT_ADDRESSES = tuple(f"198.51.100.{host}" for host in range(10, 20))
"""Ten addresses of one host: TCP clients that share source ports, so that the NAT must translate them."""
PROBE_ADDRESS = "198.51.100.20"
"""The client host's address for the UDP probe and the download."""
LAN_VMAC = "00:00:5e:00:01:33"
WAN_VMAC = "00:00:5e:00:01:34"
XC_DEVICE = "xc0"
FIRST_INDEX = 100
"""Of the first end of each wire. If both ends had the same index, each in its namespace, the kernel would
take its time, up to a second, to say that one has lost its carrier (net/core/link_watch.c)."""
BRIDGE = "br0"
NODES = ("a", "b")
SWITCHES = {"lan": "lansw", "wan": "wansw"}
"""Which switch carries which port of the nodes."""
DRIVERS = ("tap", "packet")
DRIVER_VARIABLE = "FLEXHA_LAB_DRIVER"
TOPOLOGIES = ("plain", "bridges")
TOPOLOGY_VARIABLE = "FLEXHA_LAB_TOPOLOGY"
WIRE_DEVICE = "wire"
"""Driver packet: the node's end of the veth whose other end is the switch's fx-PORT-NODE."""
TUN = Path("/dev/net/tun")


@dataclass(frozen=True, slots=True)
class Host:
    """A network namespace of the lab. ``addresses``: device -> addresses with prefix length."""

    name: str
    role: str
    addresses: dict[str, tuple[str, ...]]
    gateway: str | None = None
    bridge: bool = False
    forwards: bool = False


HOSTS: tuple[Host, ...] = (
    Host(
        "client",
        "LAN clients: many addresses, one kernel",
        {"eth0": tuple(f"{address}/24" for address in (*CLIENT_ADDRESSES, PROBE_ADDRESS))},
        gateway=LAN_VIP,
    ),
    Host("lansw", "LAN switch", {}, bridge=True),
    Host("wansw", "WAN switch: the ISP's shared /29", {}, bridge=True),
    Host(
        "isp",
        "ISP router",
        {"wan0": (f"{ISP_ADDRESS}/29",), "net0": (f"{ISP_INTERNET_ADDRESS}/24",)},
        forwards=True,
    ),
    Host("server", "Internet server", {"eth0": (f"{SERVER_ADDRESS}/24",)}, gateway=ISP_INTERNET_ADDRESS),
    Host("router", "LAN router, where the LAN is routed (frr.py)", {}, forwards=True),
    Host("a", "node a", {XC_DEVICE: ("169.254.100.1/30",)}),
    Host("b", "node b", {XC_DEVICE: ("169.254.100.2/30",)}),
)

Wire = tuple[tuple[str, str], tuple[str, str]]
WIRES: tuple[Wire, ...] = (
    (("client", "eth0"), ("lansw", "client")),
    (("isp", "wan0"), ("wansw", "isp")),
    (("server", "eth0"), ("isp", "net0")),
    (("a", XC_DEVICE), ("b", XC_DEVICE)),
)
"""veth pairs; an end in a switch is enslaved to its bridge. The nodes' TAPs are plugged by flexhad itself."""


def tun_usable() -> bool:
    """Whether TAPs can be made here."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def driver() -> str:
    """The nodes' driver: what the caller asks for, else tap; packet where TAPs cannot be made."""
    wanted = os.environ.get(DRIVER_VARIABLE, "")
    if wanted:
        if wanted not in DRIVERS:
            raise ValueError(f"no driver {wanted!r}: choose one of {', '.join(DRIVERS)}")
        return wanted
    return "tap" if tun_usable() else "packet"


def topology() -> str:
    """``plain``: the nodes' TAPs are in the switches. ``bridges``: as on a box, in a bridge with a NIC."""
    wanted = os.environ.get(TOPOLOGY_VARIABLE, "") or TOPOLOGIES[0]
    if wanted not in TOPOLOGIES:
        raise ValueError(f"no topology {wanted!r}: choose one of {', '.join(TOPOLOGIES)}")
    if wanted == "bridges" and driver() != "tap":
        raise ValueError("topology bridges is for driver tap: the packet driver has its wire alone")
    return wanted


def node_bridge(port: str) -> str:
    """Topology bridges: the node's bridge of a port."""
    return f"br-{port}"


def nic(port: str) -> str:
    """Topology bridges: the NIC in that bridge, a veth whose other end is the switch's fx-PORT-NODE."""
    return f"nic-{port}"


def cables() -> tuple[str, ...]:
    """Devices of a node whose other end is somebody else's."""
    nics = tuple(nic(port) for port in SWITCHES) if topology() == "bridges" else ()
    return (XC_DEVICE, *nics)


def wire_namespace(node: str, port: str) -> str:
    """Driver packet: where the node's end of a wire is, alone."""
    return f"{node}-{port}"


def wires_of_nodes() -> tuple[Wire, ...]:
    """Driver packet: what flexhad would make and plug itself with driver tap."""
    return tuple(
        ((wire_namespace(node, port), WIRE_DEVICE), (switch, f"fx-{port}-{node}"))
        for node in NODES
        for port, switch in SWITCHES.items()
    )


def build() -> None:
    """Make every namespace and wire, and bring all links up."""
    hosts, wires = HOSTS, WIRES
    if driver() == "packet":
        hosts += tuple(Host(name, "wire of a node", {}) for (name, _), _ in wires_of_nodes())
        wires += wires_of_nodes()
    if topology() == "bridges":
        wires += tuple(
            ((node, nic(port)), (switch, f"fx-{port}-{node}"))
            for node in NODES
            for port, switch in SWITCHES.items()
        )
    for host in hosts:
        netns.create(host.name)
        with inside(host.name):
            _set_sysctls(host)
    for host in hosts:
        _add_bridges(host)
    for number, ((left_host, left_device), (right_host, right_device)) in enumerate(wires):
        with NetNS(left_host) as links:
            links.link(
                "add",
                index=FIRST_INDEX + number,
                ifname=left_device,
                kind="veth",
                peer={"ifname": right_device, "net_ns_fd": f"/run/netns/{right_host}"},
            )
    for host in hosts:
        with NetNS(host.name) as links:
            _bring_up(links, host)


def _bridges(host: Host) -> dict[str, str]:
    """Bridges of a host, and the device that is enslaved to each; "" is every other one."""
    if host.bridge:
        return {BRIDGE: ""}
    if host.name in NODES and topology() == "bridges":
        return {node_bridge(port): nic(port) for port in SWITCHES}
    return {}


def _add_bridges(host: Host) -> None:
    for bridge in _bridges(host):
        with NetNS(host.name) as links:
            links.link("add", ifname=bridge, kind="bridge", br_stp_state=0)
            links.link("set", index=_index(links, bridge), state="up")


def unmake(name: str) -> None:
    """Take the name of a host's namespace away: it is gone with its last process and socket."""
    netns.remove(name)


def make(name: str) -> None:
    """A host that was unmade, as ``build`` made it: its devices wait where the lab's process 1 is."""
    (host,) = (host for host in HOSTS if host.name == name)
    netns.create(name)
    with inside(name):
        _set_sysctls(host)
    _add_bridges(host)
    with IPRoute() as own:
        for device in cables():
            own.link("set", index=own.link_lookup(ifname=device)[0], net_ns_fd=name)
    with NetNS(name) as links:
        _bring_up(links, host)


def _set_sysctls(host: Host) -> None:
    """IPv6 off (no router advertisements or MLD in captures), no reverse-path filter, forwarding as told.

    A switch looks at no IP header: where br_netfilter is loaded, it would drop what the tests damage.
    """
    settings = {
        "bridge/bridge-nf-call-arptables": "0",
        "bridge/bridge-nf-call-iptables": "0",
        "bridge/bridge-nf-call-ip6tables": "0",
        "ipv6/conf/all/disable_ipv6": "1",
        "ipv6/conf/default/disable_ipv6": "1",
        "ipv4/conf/all/rp_filter": "0",
        "ipv4/conf/default/rp_filter": "0",
        "ipv4/ip_forward": "1" if host.forwards else "0",
        "ipv4/conf/all/send_redirects": "0",
    }
    for name, value in settings.items():
        path = Path("/proc/sys/net") / name
        if path.exists():  # no ipv6/ without IPv6, no bridge/ without br_netfilter
            path.write_text(value)


def _bring_up(links: NetNS, host: Host) -> None:
    """Addresses, enslavement, links up, and the default route last."""
    for link in links.get_links():
        name = link.get_attr("IFLA_IFNAME")
        index = link["index"]
        for address in host.addresses.get(name, ()):
            ip, _, length = address.partition("/")
            links.addr("add", index=index, address=ip, prefixlen=int(length))
        for bridge, member in _bridges(host).items():
            if name == member or (not member and name not in {"lo", bridge}):
                links.link("set", index=index, master=_index(links, bridge))
        links.link("set", index=index, state="up")
    if host.gateway:
        links.route("add", dst="0.0.0.0/0", gateway=host.gateway)


def _index(links: NetNS, device: str) -> int:
    index: int = links.link_lookup(ifname=device)[0]
    return index


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Run the block with this thread's network namespace set to ``name`` (a name or a path)."""
    netns.pushns(name)
    try:
        yield
    finally:
        netns.popns()


if __name__ == "__main__":  # the supervisor, which is to build a host again
    make(sys.argv[1])
