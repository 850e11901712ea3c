# SPDX-License-Identifier: Apache-2.0
"""May this node run here? All that is missing is found before anything is touched, and said at once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from flexha.config import keyfiles
from flexha.config.derive import NodePlan, PlugPlan, PoolPlan
from flexha.errors import StartError
from flexha.shell import netns
from flexha.shell.rtnl import Link, Rtnl

TUN = Path("/dev/net/tun")
EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
"""Ports that the kernel of this network namespace takes for its own connections."""
_STATUS = Path("/proc/self/status")

GONE_TIMEOUT_S = 3.0
"""How long the kernel may take to end a dead daemon's namespaces."""

CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN = 12, 13, 21


def check(plan: NodePlan, rtnl: Rtnl) -> None:
    """Raise one StartError that lists everything that is missing."""
    if problems := list(_capabilities(plan)):
        # Without these the other findings would only be consequences.
        raise StartError("\n".join(problems))
    links = _links_once_gone(plan, rtnl)
    problems = [*_cpus(plan), *_own_devices(plan, links), *_addresses(plan, rtnl), *own_ports(plan)]
    problems += _keys(plan)
    for plug in plan.plugs:
        problems += _packet_device(plan, plug) if plug.driver == "packet" else _wire(plug, links)
    if problems:
        raise StartError("\n".join(problems))


def _capabilities(plan: NodePlan) -> Iterator[str]:
    effective = 0
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    needed = {
        CAP_NET_ADMIN: ("CAP_NET_ADMIN", "to make TAPs, addresses and routes"),
        CAP_NET_RAW: ("CAP_NET_RAW", "to probe for duplicate addresses"),
    }
    if any(plug.netns for plug in plan.plugs):
        needed[CAP_SYS_ADMIN] = ("CAP_SYS_ADMIN", "to enter the network namespaces of the ports")
    for bit, (name, purpose) in needed.items():
        if not effective >> bit & 1:
            yield (
                f"{name} is missing, {purpose}; run flexhad as root, or grant it (AmbientCapabilities={name})"
            )
    if all(plug.driver == "packet" for plug in plan.plugs) or tun_usable():
        return
    if TUN.exists():
        yield (
            f"{TUN} may not be opened; allow it (chmod 0666 {TUN}, or DeviceAllow={TUN} rw), or use driver = "
            '"packet"'
        )
    else:
        yield f'{TUN} does not exist; load the driver: modprobe tun, or use driver = "packet"'


def tun_usable() -> bool:
    """Whether TAPs can be made: a sandbox may forbid what the mode allows, so it is tried."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _cpus(plan: NodePlan) -> Iterator[str]:
    usable = os.sched_getaffinity(0)
    if missing := sorted(set(plan.cpus) - usable):
        yield (
            f"nodes.{plan.name}.cpus: CPU {', '.join(map(str, missing))} is not there, or not for this "
            f"process, which may use {', '.join(map(str, sorted(usable)))}; name some of these, or widen "
            "its affinity (systemd: CPUAffinity=)"
        )


def _keys(plan: NodePlan) -> Iterator[str]:
    """What keeps it from proving to the peer who it is."""
    if plan.keys:
        now = datetime.now(UTC)
        yield from keyfiles.problems(plan.keys.directory, plan.name, now, tls=plan.keys.tls)


def _links_once_gone(plan: NodePlan, rtnl: Rtnl) -> dict[str, Link]:
    """The devices here. A veth that our killed predecessor left goes with its namespace, within moments."""
    ours = {plug.host_dev for plug in plan.plugs if plug.driver == "packet"}
    deadline = time.monotonic() + GONE_TIMEOUT_S
    while True:
        links = {link.name: link for link in rtnl.links()}
        if time.monotonic() > deadline or not any(links[name].kind == "veth" for name in ours & links.keys()):
            return links
        time.sleep(0.01)


def _own_devices(plan: NodePlan, links: dict[str, Link]) -> Iterator[str]:
    if plan.xc and plan.xc.device not in links:
        yield (
            f"nodes.{plan.name}.xc.device: there is no device {plan.xc.device!r} here; create it or plug it "
            "in, or correct the name"
        )
    if plan.xc and (xc := links.get(plan.xc.device)) and xc.mtu < plan.xc.mtu and not plan.xc.raise_mtu:
        yield (
            f"nodes.{plan.name}.xc.mtu_policy: {xc.name!r} has an MTU of {xc.mtu}, but the conduit needs "
            f"{plan.xc.mtu}; raise it at both ends: ip link set {xc.name} mtu {plan.xc.mtu}, or set "
            'mtu_policy = "raise"'
        )
    for plug in plan.plugs:
        made = [("host_dev", plug.host_dev)]
        if plug.driver == "tap":
            made.append(("wire_dev", plug.wire_dev))
        for field, device in made:
            if device in links:
                yield (
                    f"nodes.{plan.name}.ports.{plug.port}.{field}: device {device!r} exists already; stop "
                    "the flexhad that owns it, delete it, or choose another name"
                )


def _addresses(plan: NodePlan, rtnl: Rtnl) -> Iterator[str]:
    """An address of ours on some other device: the kernel would answer for it beside us."""
    names = {link.index: link.name for link in rtnl.links()}
    held = {interface.ip: names.get(index, "?") for index, interface in rtnl.addresses()}
    for plug in plan.plugs:
        if plug.interface.ip in held:
            device = held[plug.interface.ip]
            yield (
                f"nodes.{plan.name}.ports.{plug.port}.address: {plug.interface.ip} is in use on {device!r}; "
                f"remove it there: ip address del {plug.interface.ip} dev {device}"
            )
        for vip in plug.vips:
            if vip in held:
                yield (
                    f"ports.{plug.port}.vips: {vip} is in use on {held[vip]!r}, but a virtual address must "
                    f"not be a kernel address; remove it: ip address del {vip} dev {held[vip]}"
                )
    vips = {vip for plug in plan.plugs for vip in plug.vips}
    for index, pool in enumerate(plan.pools):
        if pool.survives and pool.address in held and pool.address not in vips:
            device = held[pool.address]
            yield (
                f"pools[{index}].address: {pool.address} is in use on {device!r}, but a pool's address must "
                f"not be a kernel address; remove it: ip address del {pool.address} dev {device}"
            )
    if plan.xc and held.get(plan.xc.interface.ip, plan.xc.device) != plan.xc.device:
        device = held[plan.xc.interface.ip]
        yield (
            f"nodes.{plan.name}.xc.address: {plan.xc.interface.ip} is in use on {device!r}, not on "
            f"{plan.xc.device!r}; remove it there: ip address del {plan.xc.interface.ip} dev {device}"
        )


def _packet_device(plan: NodePlan, plug: PlugPlan) -> Iterator[str]:
    """Packet driver: a device that nobody else speaks on."""
    key = f"nodes.{plan.name}.ports.{plug.port}"
    assert plug.netns is not None
    try:
        if netns.is_here(plug.netns):
            yield (
                f"{key}.netns: {plug.netns!r} is the node's own namespace, whose kernel would answer beside "
                f"us; make another: ip netns add {plug.port}-wire"
            )
            return
        with Rtnl(plug.netns) as there:
            link = there.link(plug.wire_dev)
            held = dict(there.addresses())
            names = ", ".join(sorted(each.name for each in there.links() if each.name != "lo"))
    except StartError as error:
        yield f"{key}.netns: {error}"
        return
    if link is None:
        yield (
            f"{key}.device: there is no device {plug.wire_dev!r} in network namespace {plug.netns!r} (there: "
            f"{names or 'none'}); move it there: ip link set {plug.wire_dev} netns {plug.netns}"
        )
    elif link.index in held:
        yield (
            f"{key}.device: {plug.wire_dev!r} has the address {held[link.index]}, and a kernel that answers "
            f"for it; remove it: ip -n {plug.netns} address flush dev {plug.wire_dev}"
        )
    elif link.master:
        yield (
            f"{key}.device: {plug.wire_dev!r} is a port of another device there, which would take its "
            f"frames; take it out: ip -n {plug.netns} link set {plug.wire_dev} nomaster"
        )


def own_ports(plan: NodePlan) -> Iterator[str]:
    """On an address that the kernel has, too, its ports and the pool's must differ."""
    low, high = map(int, EPHEMERAL.read_text(encoding="ascii").split())
    for index, pool in enumerate(plan.pools):
        if pool.survives or pool.port_hi < low or pool.port_lo > high:
            continue
        yield (
            f"pools[{index}].port_lo: {pool.port_lo}..{pool.port_hi} of the node's own address overlaps the "
            f"ports {low}..{high} that the kernel gives its own connections; part them: lower pools[{index}]"
            f".port_hi to {low - 1}, or sysctl -w net.ipv4.ip_local_port_range='{_elsewhere(pool)}' in this "
            "network namespace"
        )


def _elsewhere(pool: PoolPlan) -> str:
    """A range for the kernel beside the pool's, the larger one."""
    below, above = (1024, pool.port_lo - 1), (pool.port_hi + 1, 65535)
    low, high = max(below, above, key=lambda ports: ports[1] - ports[0])
    return f"{low} {high}" if high > low else "1024 2047"


def _wire(plug: PlugPlan, links: dict[str, Link]) -> Iterator[str]:
    """Where the wire device goes: the namespace, the bridge, the uplink."""
    key = f"ports.{plug.port}"
    where = f"in network namespace {plug.netns!r}" if plug.netns else "here"
    if plug.netns:
        try:
            with Rtnl(plug.netns) as there:
                links = {link.name: link for link in there.links()}
        except StartError as error:
            yield f"{key}.netns: {error}"
            return
        if plug.wire_dev in links:
            yield (
                f"{key}.wire_dev: device {plug.wire_dev!r} exists already {where}; stop the flexhad that "
                "owns it, or choose another name"
            )
    if plug.bridge is None:
        return
    bridge = links.get(plug.bridge)
    if bridge is None or bridge.kind != "bridge":
        what = "no device" if bridge is None else "a device that is no bridge:"
        yield (
            f"{key}.bridge: there is {what} {plug.bridge!r} {where}; make it: ip link add {plug.bridge} type "
            "bridge"
        )
        return
    if plug.uplink is not None:
        uplink = links.get(plug.uplink)
        if uplink is None:
            yield f"{key}.uplink: there is no device {plug.uplink!r} {where}; correct the name"
        elif uplink.master != bridge.index:
            yield (
                f"{key}.uplink: {plug.uplink!r} is no port of {plug.bridge!r}; add it: ip link set "
                f"{plug.uplink} master {plug.bridge}"
            )


class StateDir:
    """``state_dir``, made if need be, and locked for as long as this process lives."""

    LOCK_NAME = "lock"

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / self.LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StartError(
                f"state_dir {path}: {error.strerror}; make it writable, or set nodes.X.state_dir"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "?"
            os.close(self._lock)
            raise StartError(
                f"state_dir {path}: another flexhad (pid {holder}) runs this node; stop it first"
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._lock)
