# SPDX-License-Identifier: Apache-2.0
"""Faults of the lab's wires and of its power. The death of a node is ``pair.Node.die``.

Each fault of a wire is a context manager: the wire is whole again after the block.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import topo
from pair import Node
from sandbox import Lab, LabError, now_ns, wait_until

BR_STATE_DISABLED = 0
BR_STATE_FORWARDING = 3


@contextmanager
def link_down(lab: Lab, host: str, device: str) -> Iterator[None]:
    """A link without carrier: both ends of a veth see it."""
    _set_link(lab, host, device, state="down")
    try:
        yield
    finally:
        _set_link(lab, host, device, state="up")


@contextmanager
def xc_cut(lab: Lab) -> Iterator[None]:
    """The cross-connect is pulled; LAN and WAN stay."""
    with link_down(lab, "a", topo.XC_DEVICE):
        yield


@contextmanager
def xc_silent(lab: Lab) -> Iterator[None]:
    """The cross-connect loses every frame while its carrier stays: a switch between the nodes has died."""
    with loss(lab, "a", topo.XC_DEVICE, percent=100), loss(lab, "b", topo.XC_DEVICE, percent=100):
        yield


@contextmanager
def xc_slow(lab: Lab, host: str, *, rate: str = "100kbit") -> Iterator[None]:
    """The cross-connect takes what ``host`` sends at the pace of an old line."""
    tbf = ["tbf", "rate", rate, "burst", "4kb", "latency", "2s"]
    lab.run(host, ["tc", "qdisc", "add", "dev", topo.XC_DEVICE, "root", *tbf])
    try:
        yield
    finally:
        lab.run(host, ["tc", "qdisc", "del", "dev", topo.XC_DEVICE, "root"])


@contextmanager
def bridge_port_off(lab: Lab, port: str, node: str) -> Iterator[None]:
    """The switch blocks a node's port: frames vanish, carrier stays."""
    switch, device = topo.SWITCHES[port], f"fx-{port}-{node}"
    _set_bridge_port(lab, switch, device, BR_STATE_DISABLED)
    try:
        yield
    finally:
        _set_bridge_port(lab, switch, device, BR_STATE_FORWARDING)


NUD_PERMANENT = 0x80
STATIONS = {"lan": ("client", "eth0", topo.LAN_VIP), "wan": ("isp", "wan0", topo.WAN_VIP)}
"""Who sends to the virtual router of each port."""


@contextmanager
def landing_on(lab: Lab, node: Node, *ports: str) -> Iterator[None]:
    """Who sends to a virtual router by these ports sends to this node's own MAC, whoever is ACTIVE."""
    macs = {str(port["name"]): str(port["mac"]) for port in node.request("status")["ports"]}
    with ExitStack() as stack:
        for port in ports:
            host, device, address = STATIONS[port]
            links = stack.enter_context(lab.links(host))
            entry = {"dst": address, "ifindex": links.link_lookup(ifname=device)[0]}
            links.neigh("replace", **entry, lladdr=macs[port], state=NUD_PERMANENT)
            stack.callback(links.neigh, "del", **entry)
        yield


@contextmanager
def loss(lab: Lab, host: str, device: str, *, percent: int) -> Iterator[None]:
    """A share of the frames that ``host`` receives from ``device`` is dropped, by nft at ingress."""
    table = f"lab_loss_{device.replace('-', '_')}"
    rule = "drop" if percent >= 100 else f"numgen random mod 100 < {percent} drop"
    lab.run(
        host,
        ["nft", "--file", "-"],
        input_text=f"table netdev {table} {{\n chain ingress {{\n"
        f'  type filter hook ingress device "{device}" priority 0; policy accept;\n  {rule}\n }}\n}}\n',
    )
    try:
        yield
    finally:
        lab.run(host, ["nft", "delete", "table", "netdev", table])


@contextmanager
def sync_unheard(lab: Lab, node: str) -> Iterator[None]:
    """``node`` receives nothing of sync (TCP of the cross-connect), while the heartbeats go on."""
    table = "lab_sync_unheard"
    lab.run(
        node,
        ["nft", "--file", "-"],
        input_text=f"table netdev {table} {{\n chain ingress {{\n"
        f'  type filter hook ingress device "{topo.XC_DEVICE}" priority 0; policy accept;\n'
        "  ip protocol tcp drop\n }\n}\n",
    )
    try:
        yield
    finally:
        lab.run(node, ["nft", "delete", "table", "netdev", table])


SILENCE = """table netdev lab_silence {{
 chain in {{
  type filter hook ingress device "{device}" priority 0; policy accept;
  meta time >= {since_s} drop
 }}
 chain out {{
  type filter hook egress device "{device}" priority 0; policy accept;
  meta time >= {since_s} drop
 }}
}}
"""


@contextmanager
def hung(lab: Lab, node: str) -> Iterator[int]:
    """A node whose links stay up and carry nothing: all its ports and the cross-connect drop every frame.

    They do from the same moment on, which is yet to come when the block begins: CLOCK_BOOTTIME (ns).
    """
    since_s = int(time.time() + 1.5) + 1  # nft knows whole seconds, and takes its time on a busy machine
    ends = [(switch, f"fx-{port}-{node}") for port, switch in topo.SWITCHES.items()]
    ends.append((node, topo.XC_DEVICE))
    with ExitStack() as stack:
        for host, device in ends:
            rules = SILENCE.format(device=device, since_s=since_s)
            lab.run(host, ["nft", "--file", "-"], input_text=rules)
            stack.callback(lab.run, host, ["nft", "delete", "table", "netdev", "lab_silence"])
        since_ns = now_ns() + int((since_s - time.time()) * 1e9)
        if since_ns < now_ns():
            raise LabError("the links fell silent one after the other: this machine is too slow")
        yield since_ns


HEARTBEATS, ADVERTS = "ip protocol udp udp dport 47850", "ip protocol 112"


@contextmanager
def strangers(lab: Lab, *ports: str) -> Iterator[None]:
    """No node hears the other by the cross-connect and these ports (all, if none is named).

    No heartbeat, advert or sync passes. Switches still learn from both.
    """
    with ExitStack() as stack:
        stack.enter_context(xc_silent(lab))
        for switch in [topo.SWITCHES[port] for port in ports or topo.SWITCHES]:
            rules = (
                "table bridge lab_strangers {\n chain drops {\n"
                "  type filter hook forward priority 0; policy accept;\n"
                f"  {HEARTBEATS} drop\n  {ADVERTS} drop\n }}\n}}\n"
            )
            lab.run(switch, ["nft", "--file", "-"], input_text=rules)
            stack.callback(lab.run, switch, ["nft", "delete", "table", "bridge", "lab_strangers"])
        yield


def power_off(lab: Lab, node: str) -> int:
    """The node is without power: its daemon, its links and its namespace are gone; CLOCK_BOOTTIME (ns).

    The far ends of its cables stay where they are and lose their carrier: the node's own ends are taken out
    of its namespace before that goes.
    """
    ends = [(node, device) for device in topo.cables()]
    ends += [(switch, f"fx-{port}-{node}") for port, switch in topo.SWITCHES.items()]
    running = [process["pid"] for process in lab.processes() if process["ns"] == node]
    with ExitStack() as stack:
        opened = []
        for host, device in ends:
            links = stack.enter_context(lab.links(host))
            opened.append((host, links, links.link_lookup(ifname=device)[0]))
        t_ns = now_ns()
        for pid in running:  # nothing runs any more; what its kernel would say of that does not leave
            lab.signal(pid, signal.SIGSTOP)
        for _, links, index in opened:
            links.link("set", index=index, state="down")
        for pid in running:
            lab.signal(pid, signal.SIGKILL)
        for host, links, index in opened:
            if host == node:
                links.link("set", index=index, net_ns_pid=lab.init_pid)
    lab.unmake_host(node)
    wait_until(
        lambda: not any(process["ns"] == node for process in lab.processes()), 10, f"node {node} is gone"
    )
    return t_ns


def power_on(lab: Lab, node: str) -> None:
    """The node is there again, as it was built; nothing runs in it."""
    lab.make_host(node)
    for port, switch in topo.SWITCHES.items():
        with lab.links(switch) as links:
            for index in links.link_lookup(ifname=f"fx-{port}-{node}"):
                links.link("set", index=index, state="up")


def _set_link(lab: Lab, host: str, device: str, *, state: str) -> None:
    with lab.links(host) as links:
        (index,) = links.link_lookup(ifname=device)
        links.link("set", index=index, state=state)


def _set_bridge_port(lab: Lab, switch: str, device: str, state: int) -> None:
    # Not by pyroute2, whose brport() takes ``state`` for the link's, too, and sets it down.
    lab.run(switch, ["bridge", "link", "set", "dev", device, "state", str(state)])
