# SPDX-License-Identifier: Apache-2.0
"""What may open a session, between kernels, through the pair: forwards, hairpins, no NAT, GRE, rejects.

Spec: R6, R7, R10, R13; RFC 4787 REQ-8, REQ-9; RFC 5382 REQ-8; RFC 5508 REQ-7; RFC 9293 §3.10.7.1.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import topo
from netns.test_icmp import PORT_UNREACHABLE, datagrams, told_about
from pair import Pair, configuration
from sandbox import Lab, wait_until

WAIT_S = 10
SERVED, HAIRPINNER, PORTLESS_CLIENT, ROUTED = (topo.CLIENT_ADDRESSES[i] for i in (1, 2, 3, 4))
"""Addresses of the client's host: behind the forward; of who calls it by the VIP; of GRE, ESP and SCTP;
untranslated."""
WEB = (topo.WAN_VIP, 8080)
WEB_INSIDE = (SERVED, 80)
REJECTED_PORT = 23
PROHIBITED = (3, 13)
PORTLESS = {"gre": 47, "esp": 50, "sctp": 132}
TUNNELLED = bytes(4) + b"tunnelled"
"""Behind a header that each of them has: GRE's flags and protocol, ESP's SPI, SCTP's ports."""
POLICY = f"""
[[forwards]]
name = "web"
pool = "vip"
ports = ["{WEB[1]}"]
to = "{WEB_INSIDE[0]}"
to_port = {WEB_INSIDE[1]}

[[rules]]
name = "no-telnet"
action = "reject"
from = ["lan"]
proto = ["tcp", "udp"]
ports = ["{REJECTED_PORT}"]

[[rules]]
name = "routed-out"
action = "allow"
from = ["lan"]
to = ["wan"]
src = ["{ROUTED}"]
nat = "none"

[[rules]]
name = "routed-in"
action = "allow"
from = ["wan"]
to = ["lan"]
dst = ["{ROUTED}"]
nat = "none"
"""


@pytest.fixture(scope="module")
def nat_pair(lab: Lab, session_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The pair with a policy, and a pool whose mappings are open to anybody."""
    directory = tmp_path_factory.mktemp("nat")
    config = directory / "pair.toml"
    text = configuration(directory).read_text()
    pool = f'address = "{topo.WAN_VIP}"\n'
    assert pool in text
    config.write_text(text.replace(pool, pool + 'filtering = "endpoint-independent"\n') + POLICY)
    made = Pair(lab, session_pair["a"].log.parent, config)
    session_pair.stop_all()
    for node in made.nodes.values():
        node.start()
    try:
        made.wait_settled()
        yield made
    finally:
        made.stop_all()


@pytest.fixture
def settled(nat_pair: Pair) -> Pair:
    """The same, whatever the test before did to it."""
    for node in nat_pair.nodes.values():
        if node.pid is None:
            node.start()
    nat_pair.wait_settled()
    return nat_pair


@contextmanager
def tcp(lab: Lab, host: str, address: str, port: int = 0) -> Iterator[socket.socket]:
    """A TCP socket of a host."""
    with lab.open_socket(host, socket.AF_INET, socket.SOCK_STREAM) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(WAIT_S)
        made.bind((address, port))
        yield made


@contextmanager
def connected(
    lab: Lab, host: str, address: str, peer: tuple[str, int]
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection of ``host`` to ``peer``, which is the web server: its two ends."""
    with tcp(lab, "client", *WEB_INSIDE) as listener, tcp(lab, host, address) as caller:
        listener.listen()
        caller.connect(peer)
        with listener.accept()[0] as served:
            served.settimeout(WAIT_S)
            yield caller, served


def talk(one: socket.socket, other: socket.socket, n: int = 100_000) -> None:
    """Bytes go both ways, in this order."""
    for sender, receiver in ((one, other), (other, one)):
        data = bytes(range(256)) * (n // 256)
        sender.settimeout(WAIT_S)
        got, sent = b"", 0
        while len(got) < len(data):
            if sent < len(data):
                sent += sender.send(data[sent : sent + 16_384])
            got += receiver.recv(65_536)
        assert got == data


def test_hairpin_tcp_through_a_forward(lab: Lab, settled: Pair) -> None:
    """Two inside hosts, one of which knows the other by the VIP. Spec: RFC 5382 REQ-8."""
    node = settled.active()
    before = node.counter("hairpin")
    with connected(lab, "client", HAIRPINNER, WEB) as (caller, served):
        talk(caller, served)
        assert caller.getpeername() == WEB
        assert served.getpeername()[0] == topo.WAN_VIP
        assert served.getpeername()[1] != caller.getsockname()[1], "an external port"
    assert node.counter("hairpin") > before + 10


def test_hairpin_udp_through_mappings(lab: Lab, settled: Pair) -> None:
    """What the server sees of two clients is enough for them to reach each other, errors included.

    Spec: RFC 4787 REQ-8, REQ-9; RFC 5508 REQ-7.
    """
    with (
        datagrams(lab, "server") as server,
        datagrams(lab, "client") as one,
    ):
        server.bind((topo.SERVER_ADDRESS, 0))
        one.bind((HAIRPINNER, 0))
        with datagrams(lab, "client") as other:
            other.bind((SERVED, 0))
            seen_one, seen_other = external(one, server), external(other, server)
            exchange(one, other, seen_other, seen_one)
            exchange(other, one, seen_one, seen_other)
        one.connect(seen_other)  # nobody listens there any more
        told = told_about(one, "Port Unreachable of the other client")
    assert told == (topo.WAN_VIP, PORT_UNREACHABLE)


def external(client: socket.socket, server: socket.socket) -> tuple[str, int]:
    """The endpoint that the server sees."""
    question = f"who is {client.getsockname()}?".encode()

    def answer() -> tuple[str, int] | None:
        client.sendto(question, server.getsockname())
        with suppress(BlockingIOError):
            while True:
                data, source = server.recvfrom(100)
                if data == question:
                    address: tuple[str, int] = source
                    return address
        return None

    return wait_until(answer, WAIT_S, question.decode())


def exchange(
    sender: socket.socket, receiver: socket.socket, to: tuple[str, int], seen: tuple[str, int]
) -> None:
    """A datagram to an external endpoint arrives from the sender's."""

    def arrived() -> bool:
        sender.sendto(b"hello", to)
        with suppress(BlockingIOError):
            return bool(receiver.recvfrom(100) == (b"hello", seen))
        return False

    wait_until(arrived, WAIT_S, f"a datagram by {to}")


def test_a_forward_survives_a_failover(lab: Lab, settled: Pair) -> None:
    """From the Internet to an inside server, and on through the survivor. Spec: R13."""
    with connected(lab, "server", topo.SERVER_ADDRESS, WEB) as (caller, served):
        assert served.getpeername() == caller.getsockname(), "the server sees who it is"
        talk(caller, served)
        victim = settled.wait_settled()
        survivor = settled.peer(victim)
        victim.die()
        wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "the survivor is ACTIVE")
        talk(served, caller)
        talk(caller, served)
    with connected(lab, "server", topo.SERVER_ADDRESS, WEB) as (caller, served):
        talk(caller, served)


@pytest.fixture
def route_to_the_lan(lab: Lab) -> Iterator[None]:
    """The ISP knows the way to an inside address."""
    lab.run("isp", ["ip", "route", "add", f"{ROUTED}/32", "via", topo.WAN_VIP])
    yield
    lab.run("isp", ["ip", "route", "del", f"{ROUTED}/32"])


def test_no_nat(lab: Lab, settled: Pair, route_to_the_lan: None) -> None:
    """Untranslated by a rule, opened from either side, and through a failover."""
    with (
        tcp(lab, "server", topo.SERVER_ADDRESS, 8000) as listener,
        tcp(lab, "client", ROUTED) as caller,
    ):
        listener.listen()
        caller.connect(listener.getsockname())
        with listener.accept()[0] as accepted:
            assert accepted.getpeername() == caller.getsockname()
            talk(caller, accepted)
            victim = settled.wait_settled()
            survivor = settled.peer(victim)
            victim.die()
            wait_until(lambda: survivor.role() == "ACTIVE", WAIT_S, "the survivor is ACTIVE")
            talk(accepted, caller)
    before = survivor.counter("routed")
    with (
        tcp(lab, "client", ROUTED, 8000) as listener,
        tcp(lab, "server", topo.SERVER_ADDRESS) as caller,
    ):
        listener.listen()
        caller.connect(listener.getsockname())
        with listener.accept()[0] as accepted:
            assert accepted.getpeername() == caller.getsockname()
            talk(caller, accepted)
    assert survivor.counter("routed") > before + 10


@pytest.mark.parametrize("proto", PORTLESS.values(), ids=PORTLESS)
def test_a_protocol_without_ports(lab: Lab, settled: Pair, proto: int) -> None:
    """By its addresses, both ways; a stranger's is dropped. Spec: R10."""
    node = settled.active()
    with (
        lab.open_socket("client", socket.AF_INET, socket.SOCK_RAW, proto) as client,
        lab.open_socket("server", socket.AF_INET, socket.SOCK_RAW, proto) as server,
    ):
        client.bind((PORTLESS_CLIENT, 0))
        server.bind((topo.SERVER_ADDRESS, 0))
        for made in (client, server):
            made.setblocking(False)
        refused = node.counter("no_session")

        def dropped() -> bool:
            server.sendto(TUNNELLED, (topo.WAN_VIP, 0))
            return node.counter("no_session") > refused

        wait_until(dropped, WAIT_S, "what nobody asked for is dropped")
        passes(client, server, topo.SERVER_ADDRESS, topo.WAN_VIP)
        passes(server, client, topo.WAN_VIP, topo.SERVER_ADDRESS)


def passes(sender: socket.socket, receiver: socket.socket, to: str, seen: str) -> None:
    """A packet of a raw socket reaches another one, its payload as it was."""

    def arrived() -> bool:
        sender.sendto(TUNNELLED, (to, 0))
        with suppress(BlockingIOError):
            data, source = receiver.recvfrom(2000)
            return bool(source[0] == seen and data[20:] == TUNNELLED)
        return False

    wait_until(arrived, WAIT_S, f"a tunnelled packet to {to}")


def test_a_reject_is_a_refused_connection(lab: Lab, settled: Pair) -> None:
    """The client's kernel believes the RST, at once. Spec: RFC 9293 §3.10.7.1."""
    node = settled.active()
    before = node.counter("rejected_rst")
    with tcp(lab, "client", HAIRPINNER) as caller:
        assert caller.connect_ex((topo.SERVER_ADDRESS, REJECTED_PORT)) == errno.ECONNREFUSED
    assert node.counter("rejected_rst") == before + 1


def test_a_rejected_datagram_is_prohibited(lab: Lab, settled: Pair) -> None:
    """Spec: RFC 1812 §5.2.7.1."""
    with datagrams(lab, "client", (topo.SERVER_ADDRESS, REJECTED_PORT)) as sent:
        assert told_about(sent, "administratively prohibited") == (topo.LAN_VIP, PROHIBITED)
