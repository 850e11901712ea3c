# SPDX-License-Identifier: Apache-2.0
"""ICMP errors between kernels, through the pair: traceroute, refusals, path MTU; after a failover, too.

Spec: R6, R7, R13; RFC 5508 REQ-4, REQ-5; RFC 1812 §4.3, §5.3.1; RFC 1191.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import IPv4Address

import pytest
import topo
from pair import Pair
from sandbox import Lab, wait_until

WAIT_S = 10
CLOSED_PORT = 9
"""Nothing listens there on the server."""
IP_RECVERR, IP_MTU_DISCOVER, IP_PMTUDISC_DO, IP_MTU = 11, 10, 2, 14
NARROW_MTU = 1300
PORT_UNREACHABLE, TIME_EXCEEDED = (3, 3), (11, 0)
Told = tuple[str, tuple[int, int]]
"""Who sent an ICMP error, and its type and code."""


@contextmanager
def datagrams(lab: Lab, host: str, peer: tuple[str, int] | None = None) -> Iterator[socket.socket]:
    """A UDP socket of a host that hears of ICMP errors as kernels tell them."""
    with lab.open_socket(host, socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        if peer is not None:
            made.connect(peer)
        yield made


def next_error(from_socket: socket.socket) -> Told | None:
    """The oldest ICMP error that the kernel has found to be about this socket's packets."""
    try:
        _, ancillary, _, _ = from_socket.recvmsg(2048, 1024, socket.MSG_ERRQUEUE)
    except BlockingIOError:
        return None
    (data,) = [data for level, kind, data in ancillary if (level, kind) == (socket.IPPROTO_IP, IP_RECVERR)]
    _, origin, icmp_type, code = struct.unpack_from("=IBBB", data)
    assert origin == 2, "SO_EE_ORIGIN_ICMP"
    return str(IPv4Address(data[20:24])), (icmp_type, code)


def told_about(sent: socket.socket, what: str) -> Told:
    """Send a datagram until there is an error: kernels limit how many they send, and frames may be lost."""

    def attempt() -> Told | None:
        error = next_error(sent)
        if error is None:
            with suppress(OSError):  # the pending error, told once this way and once by the queue
                sent.send(b"anybody there?")
        return error

    return wait_until(attempt, WAIT_S, what)


@pytest.mark.parametrize(
    ("ttl", "told"),
    [
        (1, (topo.LAN_VIP, TIME_EXCEEDED)),
        (2, (topo.ISP_ADDRESS, TIME_EXCEEDED)),
        (3, (topo.SERVER_ADDRESS, PORT_UNREACHABLE)),
    ],
    ids=["gateway", "isp", "server"],
)
def test_traceroute(lab: Lab, pair: Pair, ttl: int, told: Told) -> None:
    """Each hop shows itself to the client's kernel: the gateway by its VIP, those behind it translated."""
    with datagrams(lab, "client", (topo.SERVER_ADDRESS, CLOSED_PORT)) as probe:
        probe.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
        assert told_about(probe, f"an ICMP error of hop {ttl}") == told


@pytest.mark.parametrize(("ttl", "hop"), [(1, topo.LAN_VIP), (2, topo.ISP_ADDRESS)], ids=["gateway", "isp"])
def test_ping_that_dies_on_the_way(lab: Lab, pair: Pair, ttl: int, hop: str) -> None:
    """An error about an echo request finds the ping that sent it, by its identifier."""
    argv = ["ping", "-c", "1", "-W", "2", "-t", str(ttl), topo.SERVER_ADDRESS]

    def told() -> bool:
        return f"From {hop} " in lab.run("client", argv, check=False).stdout

    wait_until(told, WAIT_S, f"ping says that {hop} let its request die")


def test_a_refused_datagram(lab: Lab, pair: Pair) -> None:
    """What an application sees: ECONNREFUSED."""
    with datagrams(lab, "client", (topo.SERVER_ADDRESS, CLOSED_PORT)) as client:

        def refused() -> bool:
            try:
                client.send(b"anybody there?")
                client.recv(100)
            except BlockingIOError:
                return False
            except ConnectionRefusedError:
                return True
            return False

        wait_until(refused, WAIT_S, "ECONNREFUSED")


def test_refused_from_inside(lab: Lab, pair: Pair) -> None:
    """The server sends to a client that is gone: it hears so from the public address."""
    with datagrams(lab, "server") as server:
        server.bind((topo.SERVER_ADDRESS, 0))
        with datagrams(lab, "client", server.getsockname()) as client:

            def asked() -> tuple[str, int] | None:
                client.send(b"question")
                with suppress(BlockingIOError):
                    source: tuple[str, int] = server.recvfrom(100)[1]
                    return source
                return None

            source = wait_until(asked, WAIT_S, "the client's question arrives")
        server.connect(source)
        assert told_about(server, "the client's refusal") == (topo.WAN_VIP, PORT_UNREACHABLE)


@pytest.fixture
def narrow_internet(lab: Lab) -> Iterator[None]:
    """Behind the ISP's router packets are smaller."""
    lab.run("isp", ["ip", "link", "set", "net0", "mtu", str(NARROW_MTU)])
    yield
    lab.run("isp", ["ip", "link", "set", "net0", "mtu", "1500"])
    lab.run("client", ["ip", "route", "flush", "cache"])


def test_path_mtu_discovery(lab: Lab, pair: Pair, narrow_internet: None) -> None:
    """Fragmentation Needed of a router behind us reaches the client's kernel, which then sends less."""
    with datagrams(lab, "client", (topo.SERVER_ADDRESS, CLOSED_PORT)) as sent:
        sent.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        assert sent.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1500

        def learnt() -> bool:
            with suppress(OSError):
                sent.send(bytes(1400))
            return sent.getsockopt(socket.IPPROTO_IP, IP_MTU) == NARROW_MTU

        wait_until(learnt, WAIT_S, "the client knows the path's MTU")


def test_errors_find_a_session_that_the_peer_made(lab: Lab, pair: Pair) -> None:
    """After the ACTIVE node's death: errors about an inherited session are translated, and the hop looks the
    same. Spec: R13.
    """
    with ExitStack() as stack:
        old, probe = (
            stack.enter_context(datagrams(lab, "client", (topo.SERVER_ADDRESS, CLOSED_PORT)))
            for _ in range(2)
        )
        refused = (topo.SERVER_ADDRESS, PORT_UNREACHABLE)
        assert told_about(old, "the server's refusal") == refused
        victim = pair.wait_settled()
        survivor = pair.peer(victim)
        victim.die()
        wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "the survivor is ACTIVE")
        while next_error(old) is not None:
            pass
        inside = f"{old.getsockname()[0]}:{old.getsockname()[1]}"
        assert [flow["inside"] for flow in survivor.sessions()].count(inside) == 1
        before = survivor.counter("icmp_error_in")
        assert told_about(old, "the server's refusal, through the survivor") == refused
        assert survivor.counter("icmp_error_in") > before
        probe.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
        assert told_about(probe, "Time Exceeded of the survivor") == (topo.LAN_VIP, TIME_EXCEEDED)
