# SPDX-License-Identifier: Apache-2.0
"""Faults of the lab's wires. The death of a node is ``pair.Node.die``.

Each fault is a context manager: the wire is whole again after the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import topo
from sandbox import Lab

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


def _set_link(lab: Lab, host: str, device: str, *, state: str) -> None:
    with lab.links(host) as links:
        (index,) = links.link_lookup(ifname=device)
        links.link("set", index=index, state=state)


def _set_bridge_port(lab: Lab, switch: str, device: str, state: int) -> None:
    with lab.links(switch) as links:
        (index,) = links.link_lookup(ifname=device)
        links.brport("set", index=index, state=state)
