# SPDX-License-Identifier: Apache-2.0
"""The fast path alone on real devices and kernel stacks: no daemon, no lab.

The same tests for each driver: ``tap``; ``packet``, with a host TAP and with a host veth pair.

A network namespace belongs to a thread, and what the thread makes (sockets, TAPs, the workers of a Fastpath)
belongs to its namespace; so each host of these tests is a thread, and nothing outlives it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

import packets
import pytest
from nat_node import ACTIVE, PASSIVE
from packets import LAN, WAN

from flexha.fastpath import (
    Driver,
    Fastpath,
    FastpathConfig,
    FastpathError,
    Neighbour,
    PulseKind,
    PuntedFrame,
    verdict_table,
)

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
ETH_P_IP = 0x0800
UDP_SEGMENT = 103
CLIENT, ISP = packets.CLIENTS[0], packets.ISP


class Host:
    """A thread in a network namespace of its own."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.tid = self.run(self._enter)

    @staticmethod
    def _enter() -> int:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        return threading.get_native_id()

    def run(self, job: Callable[..., T], *args: object) -> T:
        return self._thread.submit(job, *args).result(timeout=60)

    def ip(self, *args: str) -> None:
        self.run(lambda: subprocess.run(["ip", *args], check=True))

    def open_socket(self, family: int, kind: int, proto: int = 0) -> socket.socket:
        opened = self.run(socket.socket, family, kind, proto)
        opened.settimeout(5)
        return opened

    def close(self) -> None:
        self._thread.shutdown()


@contextmanager
def host() -> Iterator[Host]:
    made = Host()
    try:
        yield made
    finally:
        made.close()


def read_sys(at: Host, device: str, attribute: str) -> str:
    """From sysfs, which shows the namespace of the thread that mounted it; so it is mounted anew."""
    script = f"mount -t sysfs sysfs /sys && cat /sys/class/net/{device}/{attribute}"
    return at.run(
        lambda: subprocess.check_output(["unshare", "--mount", "sh", "-c", script], text=True)
    ).strip()


def mac_of(at: Host, device: str) -> bytes:
    return bytes.fromhex(read_sys(at, device, "address").replace(":", ""))


def config(
    node: int = 0, n_workers: int = 1, *, heartbeats: bool = False, offload: tuple[bool, bool] = (True, True)
) -> FastpathConfig:
    base = packets.node_config(node, heartbeats=heartbeats, driver=Driver.TAP)
    ports = tuple(replace(port, offload=on) for port, on in zip(base.ports, offload, strict=True))
    return replace(base, ports=ports, n_workers=n_workers)


TAP, PACKET, PACKET_VETH = "tap", "packet", "packet, host veth"
DRIVERS = (TAP, PACKET, PACKET_VETH)


def add_nic(nic: Host, far: Host, far_dev: str) -> None:
    nic.ip("link", "add", "nic", "type", "veth", "peer", "name", far_dev, "netns", str(far.tid))
    nic.ip("link", "set", "nic", "addrgenmode", "none", "up")
    far.ip("link", "set", far_dev, "addrgenmode", "none")


def put_nics(
    stack: ExitStack,
    cfg: FastpathConfig,
    driver: str,
    far_ends: tuple[Host, Host],
    nics: list[Host] | None = None,
) -> FastpathConfig:
    """For the packet driver: each port's NIC, a veth in a namespace of its own, whose far end is a host's."""
    if driver == TAP:
        return cfg
    ports = []
    for port, far in zip(cfg.ports, far_ends, strict=True):
        nic = stack.enter_context(host())
        add_nic(nic, far, port.wire_dev)
        if nics is not None:
            nics.append(nic)
        path = f"/proc/{os.getpid()}/task/{nic.tid}/ns/net"
        ports.append(
            replace(
                port,
                driver=Driver.PACKET,
                wire_dev="nic",
                wire_netns=path,
                host_veth=driver == PACKET_VETH,
            )
        )
    return replace(cfg, ports=tuple(ports))


@contextmanager
def opened(at: Host, cfg: FastpathConfig) -> Iterator[Fastpath]:
    fastpath = at.run(Fastpath, cfg)
    try:
        yield fastpath
    finally:
        fastpath.close()


def wait_for(condition: Callable[[], object], timeout_s: float = 5) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def gateway() -> Iterator[Host]:
    with host() as made:
        yield made


class Network:
    """client --(wire)-- ACTIVE gateway --(wire)-- isp.

    The wire TAPs are the hosts' own interfaces; with the packet driver those are the far ends of veth pairs.
    """

    def __init__(
        self,
        stack: ExitStack,
        n_workers: int,
        offload: tuple[bool, bool] = (True, True),
        driver: str = TAP,
    ) -> None:
        self.gateway, self.client, self.isp = (stack.enter_context(host()) for _ in range(3))
        cfg = config(n_workers=n_workers, offload=offload)
        self.nics: list[Host] = []
        cfg = put_nics(stack, cfg, driver, (self.client, self.isp), self.nics)
        self.fastpath = stack.enter_context(opened(self.gateway, cfg))
        for at, device, address in (
            (self.client, "fx-lan", f"{CLIENT}/24"),
            (self.isp, "fx-wan", f"{ISP}/29"),
        ):
            if driver == TAP:
                self.gateway.ip("link", "set", device, "netns", str(at.tid))
            at.ip("addr", "add", address, "dev", device)
            at.ip("link", "set", device, "up")
        self.client.ip("route", "add", "default", "via", str(packets.LAN_VIP))
        for device in ("lan0", "wan0"):
            self.gateway.ip("link", "set", device, "up")
        self.fastpath.start()
        self.fastpath.set_role(ACTIVE, 2)
        self.learn_neighbours()

    def learn_neighbours(self) -> None:
        self.fastpath.commit_fib(
            packets.ROUTES,
            [
                Neighbour(CLIENT, mac_of(self.client, "fx-lan"), LAN),
                Neighbour(ISP, mac_of(self.isp, "fx-wan"), WAN),
            ],
        )


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[1, 2, 16], ids=["1 worker", "2 workers", "16 workers"])
def network(request: pytest.FixtureRequest, driver: str) -> Iterator[Network]:
    with ExitStack() as stack:
        yield Network(stack, request.param, driver=driver)


# ---- packets -----------------------------------------------------------------------------------------
def test_tcp_between_kernel_stacks(network: Network) -> None:
    """Spec: R6, R7, R12, F1."""
    listener = network.isp.open_socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((str(ISP), 8080))
    listener.listen()
    data = os.urandom(200_000)
    for _ in range(10):
        client = network.client.open_socket(socket.AF_INET, socket.SOCK_STREAM)
        client.connect((str(ISP), 8080))
        server, seen = listener.accept()
        assert seen[0] == str(packets.WAN_VIP)
        sender = threading.Thread(target=server.sendall, args=(data,))
        sender.start()
        received = b""
        while len(received) < len(data):
            received += client.recv(1 << 16)
        sender.join()
        assert received == data
        client.close()
        server.close()


BULK = 30_000_000


def carry(sender: socket.socket, receiver: socket.socket) -> None:
    """Bulk data, compared at the other end."""
    data = os.urandom(BULK)
    thread = threading.Thread(target=sender.sendall, args=(data,))
    thread.start()
    received = bytearray()
    while len(received) < BULK:
        received += receiver.recv(1 << 20)
    thread.join()
    assert received == data


@pytest.mark.parametrize("n_workers", [1, 2])
@pytest.mark.parametrize(
    "offload",
    [(True, True), (True, False), (False, True), (False, False)],
    ids=["both", "lan", "wan", "none"],
)
def test_bulk_tcp_with_and_without_offload(offload: tuple[bool, bool], n_workers: int, driver: str) -> None:
    """Spec: DESIGN §2: an offload frame is one packet; it is cut where the way out takes none."""
    with ExitStack() as stack:
        network = Network(stack, n_workers, offload, driver)
        listener = network.isp.open_socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((str(ISP), 8080))
        listener.listen()
        client = network.client.open_socket(socket.AF_INET, socket.SOCK_STREAM)
        client.connect((str(ISP), 8080))
        server, _ = listener.accept()
        for sender, receiver, port in ((client, server, LAN), (server, client, WAN)):
            before = network.fastpath.port_stats(port)
            carry(sender, receiver)
            after = network.fastpath.port_stats(port)
            # Segments carry 1,448 bytes; an offload frame many of them.
            mean = (after.rx_bytes - before.rx_bytes) / (after.rx_frames - before.rx_frames)
            assert (mean > 3000) == offload[port]


def test_udp_segments_and_the_gateways_own_tcp(network: Network) -> None:
    """UDP_SEGMENT of a socket arrives as datagrams; the node's kernel talks through its host TAP."""
    server = network.isp.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((str(ISP), 53))
    client = network.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
    data = os.urandom(10_500)
    client.sendto(data, (str(ISP), 53))
    assert b"".join(server.recv(2000) for _ in range(11)) == data
    address = str(packets.port_address(0, LAN))
    network.gateway.ip("addr", "add", f"{address}/24", "dev", "lan0")
    listener = network.gateway.open_socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((address, 8080))
    listener.listen()
    visitor = network.client.open_socket(socket.AF_INET, socket.SOCK_STREAM)
    visitor.connect((address, 8080))
    own, _ = listener.accept()
    carry(visitor, own)
    carry(own, visitor)


def test_udp_between_kernel_stacks(network: Network) -> None:
    """Spec: R6, R7: many inside endpoints, so that with two workers some are handed off."""
    server = network.isp.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((str(ISP), 53))
    for port in range(20000, 20060):
        client = network.client.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.bind((str(CLIENT), port))
        client.sendto(b"question %d" % port, (str(ISP), 53))
        question, seen = server.recvfrom(100)
        server.sendto(question[::-1], seen)
        assert client.recv(100)[::-1] == b"question %d" % port
        client.close()


def test_the_gateways_own_kernel_is_reached(network: Network) -> None:
    """Spec: R3: what is addressed to the port itself is the host TAP's."""
    network.gateway.ip("addr", "add", f"{packets.port_address(0, LAN)}/24", "dev", "lan0")
    pong = network.client.run(
        lambda: subprocess.run(
            ["ping", "-c1", "-W2", str(packets.port_address(0, LAN))], check=False, stdout=subprocess.DEVNULL
        )
    )
    assert pong.returncode == 0


def test_vrrp_adverts_reach_control(network: Network) -> None:
    """Spec: R2: cut to 256 bytes, and events_fd says so."""
    advert = (
        b"\x01\x00\x5e\x00\x00\x12"
        + packets.VMACS[WAN]
        + b"\x08\x00"
        + packets.Packet(packets.VRRP, ISP, IPv4Address("224.0.0.18"), 0, payload=bytes(400), ttl=255).ip()
    )
    wire = network.isp.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("fx-wan", ETH_P_IP))
    network.fastpath.punts()
    network.fastpath.clear_wakeup()
    wire.send(advert)
    assert select.select([network.fastpath.events_fd], [], [], 5)[0]
    (punt,) = network.fastpath.punts()
    assert isinstance(punt, PuntedFrame)
    assert (punt.port, punt.frame) == (WAN, advert[:256])


def test_garbage_does_no_harm(network: Network) -> None:
    """Spec: R10: truncated, random and oversized frames are counted; the traffic goes on."""
    wire = network.client.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind(("fx-lan", ETH_P_IP))
    before = network.fastpath.port_stats(LAN).rx_frames
    for size in range(14, 1514, 10):
        wire.send(packets.VMACS[LAN] + packets.CLIENT_MAC + b"\x08\x00" + os.urandom(size - 14))
    wait_for(lambda: network.fastpath.port_stats(LAN).rx_frames >= before + 150)
    test_udp_between_kernel_stacks(network)


# ---- devices -----------------------------------------------------------------------------------------
def test_devices_are_dressed_as_configured(gateway: Host) -> None:
    with opened(gateway, config()):
        assert mac_of(gateway, "lan0") == packets.port_mac(0, LAN)
        assert mac_of(gateway, "fx-lan") not in {packets.port_mac(0, LAN), packets.VMACS[LAN]}
        assert read_sys(gateway, "wan0", "mtu") == read_sys(gateway, "fx-wan", "mtu") == "1500"
    with pytest.raises(subprocess.CalledProcessError):
        read_sys(gateway, "lan0", "mtu")


def test_carrier_is_mirrored(gateway: Host) -> None:
    """Spec: DESIGN §1: routing daemons on the host TAP must see that the wire is gone."""
    with opened(gateway, config()) as fastpath:
        gateway.ip("link", "set", "lan0", "up")
        assert read_sys(gateway, "lan0", "carrier") == "1"
        fastpath.set_carrier(LAN, up=False)
        assert read_sys(gateway, "lan0", "carrier") == "0"
        fastpath.set_carrier(LAN, up=True)
        assert read_sys(gateway, "lan0", "carrier") == "1"


def test_a_taken_name_is_said(gateway: Host) -> None:
    with opened(gateway, config()), pytest.raises(FastpathError) as caught:
        gateway.run(Fastpath, config())
    assert caught.value.errno == errno.EBUSY
    assert "port lan: wire TAP fx-lan: a device of that name exists already" in caught.value.detail


def test_a_missing_capability_is_said(gateway: Host) -> None:
    script = "import packets, flexha.fastpath as f; f.Fastpath(packets.node_config(driver=f.Driver.TAP))"
    tests = str(Path(__file__).resolve().parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    done = gateway.run(
        lambda: subprocess.run(
            ["setpriv", "--bounding-set=-net_admin", sys.executable, "-c", script],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
        )
    )
    assert done.returncode == 1
    assert "not permitted: CAP_NET_ADMIN is missing" in done.stderr


def cpu_s() -> float:
    usage = os.times()
    return usage.user + usage.system


def test_a_vanished_wire_costs_nothing(driver: str) -> None:
    """The namespace that a wire TAP was moved to goes, and the device with it: no spinning, no crash.

    Driver packet: the far end's namespace goes, and with the far end its other end.
    """
    with ExitStack() as stack:
        network = Network(stack, 2, driver=driver)
        network.client.close()
        wait_for(lambda: network.fastpath.port_stats(LAN).rx_errors > 0)
        errors, before = network.fastpath.port_stats(LAN).rx_errors, cpu_s()
        time.sleep(0.5)
        assert cpu_s() - before < 0.1
        assert network.fastpath.port_stats(LAN).rx_errors <= errors + 2
        network.fastpath.set_role(PASSIVE, 2)


@pytest.mark.parametrize("role", [ACTIVE, PASSIVE])
def test_an_idle_node_rests(gateway: Host, role: int, driver: str) -> None:
    """Two workers, heartbeats every 50 ms, and the lease twice in 15 ms: less than 3 % of a core."""
    with ExitStack() as stack:
        cfg = config(n_workers=2, heartbeats=True)
        far_ends = [stack.enter_context(host()) for _ in cfg.ports]
        fastpath = stack.enter_context(
            opened(gateway, put_nics(stack, cfg, driver, (far_ends[0], far_ends[1])))
        )
        fastpath.start()
        fastpath.set_role(role, 2)
        before = cpu_s()
        time.sleep(2)
        assert cpu_s() - before <= 0.06


# ---- driver packet only ----------------------------------------------------------------------------
PACKET_DRIVERS = pytest.mark.parametrize("driver", [PACKET, PACKET_VETH])


@PACKET_DRIVERS
def test_a_link_that_comes_back_is_used_again(driver: str) -> None:
    """The device goes down: a port error, counted; up again: nothing else is needed."""
    with ExitStack() as stack:
        network = Network(stack, 2, driver=driver)
        test_udp_between_kernel_stacks(network)
        network.nics[LAN].ip("link", "set", "nic", "down")
        wait_for(lambda: network.fastpath.port_stats(LAN).rx_errors > 0)
        before = cpu_s()
        time.sleep(0.3)
        assert cpu_s() - before < 0.1
        network.nics[LAN].ip("link", "set", "nic", "up")
        test_udp_between_kernel_stacks(network)


def test_a_device_that_comes_back_is_used_again() -> None:
    """A NIC that was pulled and put in again is another device of the old name."""
    with ExitStack() as stack:
        network = Network(stack, 2, driver=PACKET)
        test_udp_between_kernel_stacks(network)
        network.nics[LAN].ip("link", "del", "nic")
        with pytest.raises(FastpathError, match="there is no such device"):
            network.fastpath.reopen_port(LAN)
        add_nic(network.nics[LAN], network.client, "fx-lan")
        network.client.ip("addr", "add", f"{CLIENT}/24", "dev", "fx-lan")
        network.client.ip("link", "set", "fx-lan", "up")
        network.client.ip("route", "add", "default", "via", str(packets.LAN_VIP))
        network.fastpath.reopen_port(LAN)
        network.learn_neighbours()
        test_udp_between_kernel_stacks(network)


def test_a_tap_is_not_opened_again(gateway: Host) -> None:
    with opened(gateway, config()) as fastpath, pytest.raises(FastpathError) as caught:
        fastpath.reopen_port(LAN)
    assert caught.value.errno == errno.EOPNOTSUPP


def test_all_workers_hear_the_wire() -> None:
    """Spec: DESIGN §2: fanout steers by a hash of its own; whom a frame belongs to, gets it by hand-off."""
    with ExitStack() as stack:
        network = Network(stack, 3, driver=PACKET)
        test_udp_between_kernel_stacks(network)
        names = [verdict.name for verdict in verdict_table()]
        for worker in range(3):
            counts = dict(zip(names, network.fastpath.verdict_counts(worker), strict=True))
            assert counts["snat"] > 0, counts
        stats = network.fastpath.port_stats(LAN)
        assert (stats.rx_missed, stats.rx_errors) == (0, 0)


def test_a_flood_is_missed_and_counted() -> None:
    """What the ring cannot hold is lost, counted, and the port works on."""
    with ExitStack() as stack:
        network = Network(stack, 1, driver=PACKET)
        network.fastpath.stop()
        wire = network.client.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
        wire.bind(("fx-lan", ETH_P_IP))
        for _ in range(3000):
            wire.send(packets.VMACS[LAN] + packets.CLIENT_MAC + b"\x08\x00" + bytes(50))
        network.fastpath.start()
        wait_for(lambda: network.fastpath.port_stats(LAN).rx_frames >= 2000)
        test_udp_between_kernel_stacks(network)  # the count comes with the next frame
        stats = network.fastpath.port_stats(LAN)
        assert stats.rx_missed > 900


@pytest.mark.parametrize(("tag", "passes"), [(b"", 1), (b"\x81\x00\x00\x07", 0)], ids=["untagged", "tagged"])
def test_a_vlan_tag_is_not_lost(tag: bytes, passes: int) -> None:
    """The kernel takes a tag out of the frame; a frame of another VLAN must not pass for one of this wire."""
    with ExitStack() as stack:
        network = Network(stack, 1, driver=PACKET)
        wire = network.client.open_socket(socket.AF_PACKET, socket.SOCK_RAW)
        wire.bind(("fx-lan", ETH_P_IP))
        frame = packets.Packet(packets.UDP, CLIENT, ISP, 4000, 53).frame(
            packets.VMACS[LAN], mac_of(network.client, "fx-lan")
        )
        before = network.fastpath.port_stats(LAN).rx_frames
        wire.send(frame[:12] + tag + frame[12:])
        wait_for(lambda: network.fastpath.port_stats(LAN).rx_frames > before)
        network.fastpath.stop()
        names = [verdict.name for verdict in verdict_table()]
        counts = dict(zip(names, network.fastpath.verdict_counts(), strict=True))
        assert counts["snat"] == passes, counts


def test_a_host_veth_is_dressed_and_goes_with_the_fastpath(gateway: Host) -> None:
    with ExitStack() as stack:
        far_ends = (stack.enter_context(host()), stack.enter_context(host()))
        cfg = put_nics(stack, config(), PACKET_VETH, far_ends)
        with opened(gateway, cfg) as fastpath:
            assert mac_of(gateway, "lan0") == packets.port_mac(0, LAN)
            assert read_sys(gateway, "lan0", "mtu") == "1500"
            gateway.ip("link", "set", "lan0", "up")
            for up in (False, True):
                fastpath.set_carrier(LAN, up=up)
                assert read_sys(gateway, "lan0", "carrier") == str(int(up))
            with pytest.raises(
                FastpathError, match="lan0, a veth pair: a device of that name exists already"
            ):
                gateway.run(Fastpath, cfg)
            assert read_sys(gateway, "lan0", "mtu") == "1500", "what is not ours stays"
        with pytest.raises(subprocess.CalledProcessError):
            read_sys(gateway, "lan0", "mtu")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"wire_dev": "eth9"}, "device eth9: there is no such device"),
        ({"wire_netns": "/run/netns/nowhere"}, "network namespace /run/netns/nowhere: No such file"),
    ],
)
def test_what_is_wrong_with_the_device_is_said(gateway: Host, change: dict[str, str], text: str) -> None:
    with ExitStack() as stack:
        far_ends = (stack.enter_context(host()), stack.enter_context(host()))
        cfg = put_nics(stack, config(), PACKET, far_ends)
        broken = replace(cfg, ports=(replace(cfg.ports[0], **change), cfg.ports[1]))  # type: ignore[arg-type]
        with pytest.raises(FastpathError, match=text):
            gateway.run(Fastpath, broken)


# ---- a pair ------------------------------------------------------------------------------------------
@contextmanager
def switch(stack: ExitStack, nodes: list[Host]) -> Iterator[Host]:
    """Both ports of both nodes, each pair of wires on a bridge."""
    with host() as made:
        for name in packets.PORT_NAMES:
            made.ip("link", "add", f"br-{name}", "type", "bridge")
            made.ip("link", "set", f"br-{name}", "up")
        for index, node in enumerate(nodes):
            for name in packets.PORT_NAMES:
                node.ip("link", "set", f"fx-{name}", "netns", str(made.tid), "name", f"{name}-{index}")
                made.ip("link", "set", f"{name}-{index}", "master", f"br-{name}", "up")
        yield made


def test_heartbeats_cross_the_wires() -> None:
    """Spec: R13, DESIGN §3: heard on LAN and WAN; a cut wire is one silent path; a higher term fences."""
    with ExitStack() as stack:
        hosts = [stack.enter_context(host()) for _ in range(2)]
        a, b = (
            stack.enter_context(opened(at, config(node, n_workers=2, heartbeats=True)))
            for node, at in enumerate(hosts)
        )
        wires = stack.enter_context(switch(stack, hosts))
        a.set_role(ACTIVE, 2)
        a.start()
        b.start()
        wait_for(lambda: [path.alive for path in b.path_stats()] == [False, True, True])
        events = b.pulse_events()
        assert {(event.kind, event.path) for event in events} >= {
            (PulseKind.PATH_UP, 1),
            (PulseKind.PATH_UP, 2),
        }
        assert any(event.peer.role == ACTIVE and event.peer.term == 2 for event in events)
        wires.ip("link", "set", "lan-0", "down")
        wait_for(lambda: [path.alive for path in b.path_stats()] == [False, False, True])
        assert (PulseKind.PATH_DOWN, 1) in {(event.kind, event.path) for event in b.pulse_events()}
        b.set_role(ACTIVE, 3)
        wait_for(lambda: a.fence().role == PASSIVE)
        assert PulseKind.FENCED in {event.kind for event in a.pulse_events()}
        assert all(path.bad == 0 for path in (*a.path_stats(), *b.path_stats()))
