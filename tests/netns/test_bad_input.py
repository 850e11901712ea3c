# SPDX-License-Identifier: Apache-2.0
"""Bad input: each kind has its counter or its error, and traffic does not notice. Spec: R2, R10, R20, R22."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import pytest
import topo
from netns.conftest import settle
from netns.tls import SYNC_PORT, as_node_b, plain, wait_closed
from netns.wire import BROADCAST, VRRP_GROUP, VRRP_MAC, advert, mac_of, sender
from pair import Node, Pair
from sandbox import Lab, LabError, wait_until
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vrrp import VRRPv3
from scapy.packet import Packet, Raw
from traffic import TcpFlows, UdpProbe

from flexha.core import heartbeat_wire
from flexha.core.events import Role
from flexha.core.heartbeat_wire import Heartbeat, pair_id
from flexha.core.sync_wire import VERSION_MAX, VERSION_MIN
from flexha.units import Ns, Term

FLOWS = 50
COUNT_S = 5.0
HEARTBEAT_PORT = 47850
JUMBO_MTU = 3000


@pytest.fixture(scope="module")
def traffic(lab: Lab, session_pair: Pair) -> Iterator[TcpFlows]:
    """Connections and a UDP flow that run through all of this module; nothing of them may be lost."""
    settle(session_pair)
    tcp = TcpFlows(lab, 380, flows=FLOWS)
    udp: UdpProbe | None = None
    try:
        tcp.wait_open()
        udp = UdpProbe(lab, 380)
        yield tcp
        probed, flows = udp.finish(), tcp.finish()
    finally:
        tcp.close()
        if udp is not None:
            udp.close()
    assert (probed.lost, probed.foreign) == (0, 0)
    assert flows.survived == flows.opened == FLOWS


@pytest.fixture(autouse=True)
def undisturbed(traffic: TcpFlows, pair: Pair) -> Iterator[None]:
    """After each test every connection gets one more answer, and each node still has its role and term."""

    def reigns() -> dict[str, tuple[object, object]]:
        return {name: (s["role"], s["term"]) for name, s in pair.statuses().items() if s is not None}

    before = reigns()
    yield
    rounds = int(traffic.progress()["rounds"])
    wait_until(lambda: int(traffic.progress()["rounds"]) > rounds, 10, "each connection has one more answer")
    assert (traffic.progress()["reset"], traffic.progress()["stalled"]) == (0, 0)
    assert reigns() == before


def wait_counted(node: Node, counter: str, before: int, n: int = 1) -> None:
    """Wait until a counter has grown by ``n``."""
    wait_until(lambda: node.counter(counter) >= before + n, COUNT_S, f"{counter} of {node.name} counts")


# ---- frames ----------------------------------------------------------------------------------------
def inside(ip: Packet, payload: Packet) -> Packet:
    """A frame of a LAN host to the virtual MAC."""
    return Ether(dst=topo.LAN_VMAC, type=0x0800) / ip / payload


def outside(ip: Packet, payload: Packet) -> Packet:
    """A frame of the ISP's router to the virtual MAC."""
    return Ether(dst=topo.WAN_VMAC, type=0x0800) / ip / payload


def to_server(**fields: Any) -> IP:
    return IP(**{"src": topo.PROBE_ADDRESS, "dst": topo.SERVER_ADDRESS, **fields})


def to_vip(**fields: Any) -> IP:
    return IP(**{"src": topo.SERVER_ADDRESS, "dst": topo.WAN_VIP, **fields})


DATAGRAM = UDP(sport=40000, dport=9) / Raw(b"flexha")
SYN = TCP(sport=40001, dport=9, flags="S")
UNTRUE = 0xDEAD

LAN_FRAMES: dict[str, tuple[Packet | bytes, str]] = {
    "no-ip-header": (bytes(inside(to_server(), DATAGRAM))[:20], "ip_malformed"),
    "ip-version": (inside(to_server(version=5), DATAGRAM), "ip_malformed"),
    "ip-header-length": (inside(to_server(ihl=4), DATAGRAM), "ip_malformed"),
    "ip-longer-than-frame": (inside(to_server(len=1400), DATAGRAM), "ip_malformed"),
    "ip-shorter-than-header": (inside(to_server(len=16), DATAGRAM), "ip_malformed"),
    "ip-checksum": (inside(to_server(chksum=UNTRUE), DATAGRAM), "ip_checksum"),
    "ip-options": (inside(to_server(options=IPOption_RR()), DATAGRAM), "ip_options"),
    "odd-fragment": (inside(to_server(flags="MF", id=1), DATAGRAM), "frag_malformed"),
    "tiny-first-fragment": (inside(to_server(flags="MF", id=2, proto=6), Raw(bytes(SYN)[:16])), "frag_tiny"),
    "fragment-within-the-header": (inside(to_server(frag=1, id=3, proto=6), Raw(bytes(16))), "frag_tiny"),
    "fragment-beyond-the-end": (inside(to_server(frag=8191, id=4, proto=17), Raw(bytes(16))), "frag_beyond"),
    "loopback-source": (inside(to_server(src="127.0.0.1"), DATAGRAM), "martian_source"),
    "multicast-source": (inside(to_server(src="224.0.0.1"), DATAGRAM), "martian_source"),
    "loopback-destination": (inside(to_server(dst="127.0.0.1"), DATAGRAM), "martian_destination"),
    "ttl": (inside(to_server(ttl=1), DATAGRAM), "ttl_exceeded_sent"),
    "ttl-of-a-broadcast": (inside(to_server(ttl=1, src="198.51.100.255"), DATAGRAM), "broadcast_source"),
    "udp-truncated": (inside(to_server(proto=17), Raw(bytes(DATAGRAM)[:6])), "l4_malformed"),
    "udp-length": (inside(to_server(), UDP(sport=40000, dport=9, len=4)), "l4_malformed"),
    "udp-checksum": (inside(to_server(), UDP(sport=40002, dport=9, chksum=UNTRUE)), "l4_checksum"),
    "tcp-truncated": (inside(to_server(proto=6), Raw(bytes(SYN)[:12])), "l4_malformed"),
    "tcp-header-length": (inside(to_server(), TCP(sport=40001, dport=9, dataofs=2)), "l4_malformed"),
    "tcp-checksum": (inside(to_server(), TCP(sport=40003, dport=9, chksum=UNTRUE)), "l4_checksum"),
    "tcp-syn-fin": (inside(to_server(), TCP(sport=40004, dport=9, flags="SF")), "tcp_flags"),
    "tcp-no-session": (inside(to_server(), TCP(sport=40005, dport=9, flags="A")), "syn_check"),
    "other-protocol": (inside(to_server(proto=112), Raw(bytes(8))), "protocol"),
    "icmp-timestamp": (inside(to_server(), ICMP(type=13)), "icmp_type"),
    "foreign-source": (inside(to_server(src="10.1.2.3"), DATAGRAM), "no_return_route"),
    "inside-to-inside": (inside(to_server(dst="198.51.100.77"), DATAGRAM), "inside_denied"),
    "hairpin-gre": (inside(to_server(dst=topo.WAN_VIP, proto=47), Raw(bytes(8))), "hairpin_portless"),
    "hairpin-nobody": (inside(to_server(dst=topo.WAN_VIP), UDP(sport=40000, dport=2000)), "no_session"),
    "land": (inside(to_server(dst=topo.SERVER_ADDRESS, src=topo.SERVER_ADDRESS), DATAGRAM), "land"),
    "own-address": (inside(to_server(src=topo.WAN_VIP), DATAGRAM), "spoofed_own"),
    "limited-broadcast": (inside(to_server(dst="255.255.255.255"), DATAGRAM), "martian_destination"),
    "subnet-broadcast": (inside(to_server(dst="203.0.113.7"), DATAGRAM), "broadcast_destination"),
    "vip-service": (inside(to_server(dst=topo.LAN_VIP), SYN), "vip_service"),
    "ethertype": (Ether(dst=topo.LAN_VMAC, type=0x88B5) / Raw(bytes(46)), "ethertype"),
    "ipv6": (Ether(dst=topo.LAN_VMAC, type=0x86DD) / Raw(bytes([0x60, *bytes(39)])), "ipv6_not_forwarded"),
    "arp-truncated": (Ether(dst=BROADCAST, type=0x0806) / Raw(bytes(8)), "arp_malformed"),
    "arp-claims-vip": (
        Ether(dst=BROADCAST) / ARP(op="who-has", psrc=topo.LAN_VIP, pdst=topo.LAN_VIP),
        "arp_vip_claim",
    ),
    "foreign-unicast": (Ether(dst="02:de:ad:be:ef:01", type=0x0800) / to_server() / DATAGRAM, "not_for_us"),
}

WAN_FRAMES: dict[str, tuple[Packet, str]] = {
    "no-session": (outside(to_vip(), UDP(sport=9, dport=1025)), "no_session"),
    "tcp-without-session": (outside(to_vip(), TCP(sport=9, dport=1026, flags="A")), "no_session"),
    "syn-from-outside": (outside(to_vip(), TCP(sport=9, dport=1027, flags="S")), "no_session"),
    "to-the-lan": (outside(to_vip(dst=topo.PROBE_ADDRESS), DATAGRAM), "outside_denied"),
    "icmp-error": (
        outside(to_vip(), ICMP(type=3, code=1) / to_server(src=topo.WAN_VIP) / DATAGRAM),
        "icmp_error_no_session",
    ),
    "icmp-error-cut": (
        outside(to_vip(), ICMP(type=3, code=1) / Raw(bytes(to_server(src=topo.WAN_VIP) / DATAGRAM)[:27])),
        "icmp_error_bad",
    ),
    "icmp-error-of-another": (
        outside(to_vip(), ICMP(type=3, code=1) / to_server(src=topo.ISP_ADDRESS) / DATAGRAM),
        "icmp_error_bad",
    ),
}


@pytest.fixture(scope="module")
def from_client(lab: Lab) -> Iterator[Callable[[bytes | Packet], None]]:
    """Send a frame from the LAN client; its source is the client's own MAC."""
    yield from _sender(lab, "client", "eth0")


@pytest.fixture(scope="module")
def from_isp(lab: Lab) -> Iterator[Callable[[bytes | Packet], None]]:
    """Send a frame from the ISP's router."""
    yield from _sender(lab, "isp", "wan0")


def _sender(lab: Lab, ns: str, device: str) -> Iterator[Callable[[bytes | Packet], None]]:
    # The device's own MAC always: with another source a switch would learn it here.
    mac = bytes.fromhex(mac_of(lab, ns, device).replace(":", ""))

    def send_as(frame: bytes | Packet) -> None:
        data = bytes(frame)
        send(data[:6] + mac + data[12:])

    with sender(lab, ns, device) as send:
        yield send_as


def to_nobody(active: Node, frame: Packet) -> Packet:
    """The frame, to a port of the VIP that no session has: which ones they have is chance."""
    taken = {int(str(session["external"]).rpartition(":")[2]) for session in active.sessions()}
    frame = frame.copy()
    frame[TCP if TCP in frame else UDP].dport = next(port for port in range(2000, 65536) if port not in taken)
    return frame


@pytest.mark.parametrize("kind", LAN_FRAMES)
def test_bad_frame_from_lan(pair: Pair, from_client: Callable[[bytes | Packet], None], kind: str) -> None:
    """A frame that cannot be forwarded ends in the verdict that names why. Spec: R10."""
    frame, counter = LAN_FRAMES[kind]
    active = pair.active()
    if isinstance(frame, Packet) and counter == "no_session":
        frame = to_nobody(active, frame)
    before = active.counter(counter)
    from_client(frame)
    wait_counted(active, counter, before)


@pytest.mark.parametrize("kind", WAN_FRAMES)
def test_bad_frame_from_wan(pair: Pair, from_isp: Callable[[bytes | Packet], None], kind: str) -> None:
    """Nothing comes in from outside without a session. Spec: R10."""
    frame, counter = WAN_FRAMES[kind]
    active = pair.active()
    if counter == "no_session":
        frame = to_nobody(active, frame)
    before, all_before = active.counter(counter), verdicts(pair)
    from_isp(frame)
    try:
        wait_counted(active, counter, before)
    except LabError as error:  # where did it go?
        raise LabError(f"{error}; meanwhile: {verdicts(pair) - all_before}") from None


def verdicts(pair: Pair) -> Counter[str]:
    """What became of packets, by node and verdict."""
    return Counter(
        {
            f"{node.name}.{name}": int(verdict["value"])
            for node in map(pair.__getitem__, topo.NODES)
            for name, verdict in node.request("counters")["verdicts"].items()
        }
    )


@pytest.fixture
def jumbo_lan(lab: Lab, pair: Pair) -> Iterator[None]:
    """The LAN wire carries frames that are longer than the ports' MTU."""
    device = f"fx-lan-{pair.active().name}"
    links = [("client", "eth0"), ("lansw", "client"), ("lansw", device)]
    if topo.driver() == "packet":
        links.append((topo.wire_namespace(pair.active().name, "lan"), topo.WIRE_DEVICE))
    for ns, name in links:
        lab.run(ns, ["ip", "link", "set", name, "mtu", str(JUMBO_MTU)])
    yield
    for ns, name in links:
        lab.run(ns, ["ip", "link", "set", name, "mtu", "1500"])


@pytest.mark.parametrize("size", [1501, 2034, 2035, JUMBO_MTU])
def test_oversized_frame(
    jumbo_lan: None, pair: Pair, from_client: Callable[[bytes | Packet], None], size: int
) -> None:
    """A frame longer than the MTU, and longer than the room for one, is dropped and counted."""
    active = pair.active()
    before = active.counter("oversized")
    from_client(inside(to_server(), UDP(sport=40000, dport=9) / Raw(bytes(size - 28))))
    wait_counted(active, "oversized", before)


def test_bad_heartbeat(pair: Pair, from_client: Callable[[bytes | Packet], None]) -> None:
    """Heartbeats that are not the peer's: wrong source, routed (TTL), damaged. Spec: R4, R13."""
    active = pair.active()
    peer_address = "198.51.100.3" if active.name == "a" else "198.51.100.2"
    status = active.ctl("status")
    port = next(port for port in status["ports"] if port["name"] == "lan")
    target = Ether(dst=port["mac"], type=0x0800)
    own = str(port["address"]).split("/")[0]
    beat = UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT) / Raw(b"FXHB" + bytes(60))
    for ip in (
        IP(src=topo.PROBE_ADDRESS, dst=own, ttl=255),
        IP(src=peer_address, dst=own, ttl=254),
    ):
        before = active.counter("pulse_bad")
        from_client(target / ip / beat)
        wait_counted(active, "pulse_bad", before)
    bad = status["peer"]["paths"]["lan"]["bad"]
    from_client(target / IP(src=peer_address, dst=own, ttl=255) / beat)

    def noticed() -> bool:
        now = active.status()
        return now is not None and now["peer"]["paths"]["lan"]["bad"] > bad

    wait_until(noticed, COUNT_S, "the damaged heartbeat is counted on its path")


FORGED: dict[str, dict[str, Any]] = {
    "highest-term": {"role": Role.ACTIVE, "term": Term((1 << 61) - 1)},
    "high-term": {"role": Role.ACTIVE, "term": Term(1000)},
    "other-incarnation": {"role": Role.PASSIVE, "term": Term(1)},
}
"""What would fence ACTIVE, be written to disk, or take the true peer's place, if it were believed."""


def peer_of(node: Node) -> dict[str, Any]:
    """What a node says of its peer."""
    peer: dict[str, Any] = node.request("status")["peer"]
    return peer


def wait_heartbeats(node: Node, n: int) -> None:
    """Wait until a node has heard ``n`` more heartbeats of its peer on every path."""
    before = peer_of(node)["paths"]

    def heard() -> bool:
        return all(
            path["alive"] and path["received"] >= before[name]["received"] + n
            for name, path in peer_of(node)["paths"].items()
        )

    wait_until(heard, COUNT_S, f"node {node.name} hears its peer on every path")


def wait_bad_heartbeat(node: Node, path: str, before: int) -> None:
    """Wait until a node has counted one more bad heartbeat on a path."""

    def counted() -> bool:
        return bool(peer_of(node)["paths"][path]["bad"] == before + 1)

    wait_until(counted, COUNT_S, f"node {node.name} counts it on {path}")


def forged(node: Node, path: str, lie: str, **ip: Any) -> Packet:
    """A heartbeat to ``node`` in its peer's name, perfect but for the MAC; ``ip``: what else is wrong."""
    other = "b" if node.name == "a" else "a"
    beat = Heartbeat(
        node="ab".index(other),
        flags=0,
        pair_id=pair_id("lab"),
        interval_ms=50,
        incarnation=(1 << 64) - 1,
        seq=1 << 40,
        priority=100,
        control_beat=1,
        t_ns=Ns((1 << 64) - 16),
        **FORGED[lie],
    )
    payload = heartbeat_wire.encode(beat, key=bytes(16), path=["xc", "lan", "wan"].index(path))
    mac, addresses = station(node, path)
    fields = {"src": addresses[other], "dst": addresses[node.name], "ttl": 255, **ip}
    datagram = UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT) / Raw(payload)
    return Ether(dst=mac, type=0x0800) / IP(**fields) / datagram


def station(node: Node, path: str) -> tuple[str, dict[str, str]]:
    """MAC of a node on a path, and both nodes' addresses there."""
    if path == "xc":
        return mac_of(node.lab, node.name, topo.XC_DEVICE), XC
    last = {"lan": ("198.51.100.2", "198.51.100.3"), "wan": ("203.0.113.4", "203.0.113.5")}[path]
    (port,) = (port for port in node.request("status")["ports"] if port["name"] == path)
    return str(port["mac"]), dict(zip(topo.NODES, last, strict=True))


XC = {"a": "169.254.100.1", "b": "169.254.100.2"}
Send = Callable[[bytes | Packet], None]


@pytest.fixture(scope="module")
def from_peer(lab: Lab) -> Iterator[dict[str, Send]]:
    """For each node: send it a frame by the cross-connect."""
    with contextlib.ExitStack() as stack:
        makers = {
            name: contextlib.contextmanager(_sender)(lab, other, topo.XC_DEVICE)
            for name, other in (("a", "b"), ("b", "a"))
        }
        yield {name: stack.enter_context(maker) for name, maker in makers.items()}


@pytest.fixture
def senders(from_client: Send, from_isp: Send, from_peer: dict[str, Send]) -> Callable[[str, str], Send]:
    """By path and node."""
    return lambda path, name: {"lan": from_client, "wan": from_isp, "xc": from_peer[name]}[path]


@pytest.mark.parametrize("path", ["xc", "lan", "wan"])
@pytest.mark.parametrize("lie", FORGED)
def test_forged_heartbeat(pair: Pair, senders: Callable[[str, str], Send], path: str, lie: str) -> None:
    """In the peer's name and perfect but for the MAC: bad on its path, and nothing else. Spec: R4, R13."""
    for name, node in pair.nodes.items():
        before = peer_of(node)
        senders(path, name)(forged(node, path, lie))
        wait_bad_heartbeat(node, path, before["paths"][path]["bad"])
        wait_heartbeats(node, 3)
        after = peer_of(node)
        for fact in ("alive", "role", "term", "incarnation"):
            assert after[fact] == before[fact]
    pair.wait_settled()


@pytest.mark.parametrize("wrong", [{"ttl": 254}, {"src": "192.0.2.99"}], ids=["ttl", "source"])
def test_heartbeat_from_beyond_the_cable(
    pair: Pair, from_peer: dict[str, Send], wrong: dict[str, Any]
) -> None:
    """On the cross-connect, too, a heartbeat that was routed, or comes from a third address, is bad."""
    for name, node in pair.nodes.items():
        before = peer_of(node)["paths"]["xc"]["bad"]
        from_peer[name](forged(node, "xc", "high-term", **wrong))
        wait_bad_heartbeat(node, "xc", before)


@pytest.mark.parametrize("path", ["lan", "wan"])
@pytest.mark.parametrize(
    "wrong",
    [{"ttl": 254}, {"ttl": 1}, {"src": "192.0.2.99"}, {"src": XC["a"]}, {"src": "own"}],
    ids=["ttl", "last-hop", "source", "source-on-the-cable", "own-source"],
)
def test_heartbeat_from_beyond_the_link(
    pair: Pair, senders: Callable[[str, str], Send], path: str, wrong: dict[str, Any]
) -> None:
    """On LAN and WAN, too: the worker drops it before anybody reads it. Spec: R4, R13; RFC 5082."""
    for name, node in pair.nodes.items():
        verdict = "land" if wrong.get("src") == "own" else "pulse_bad"
        before, before_n = peer_of(node), node.counter(verdict)
        own = {"src": station(node, path)[1][name]} if wrong.get("src") == "own" else {}
        senders(path, name)(forged(node, path, "high-term", **{**wrong, **own}))
        wait_counted(node, verdict, before_n)
        after = peer_of(node)
        assert after["paths"][path]["bad"] == before["paths"][path]["bad"]
        for fact in ("alive", "role", "term", "incarnation"):
            assert after[fact] == before[fact]


@pytest.mark.parametrize("path", ["lan", "wan"])
def test_heartbeat_to_the_cable_from_elsewhere(
    pair: Pair, senders: Callable[[str, str], Send], path: str
) -> None:
    """Who sends to a node's address of the cross-connect by LAN or WAN does not get there. Spec: R4."""
    for name, node in pair.nodes.items():
        mac, _ = station(node, path)
        frame = forged(node, "xc", "high-term")
        frame[Ether].dst = mac
        before, all_before = peer_of(node)["paths"], verdicts(pair)
        senders(path, name)(frame)
        wait_dropped(pair, name, all_before)
        wait_heartbeats(node, 3)
        after = peer_of(node)["paths"]
        assert {p: after[p]["bad"] for p in after} == {p: before[p]["bad"] for p in before}


LIFE_LINES = {
    "http": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no-proof": struct.pack("!4sBBHIQQ", b"FXLL", 1, 1, 0, pair_id("lab"), 7, 8) + bytes(8),
    "same-node": struct.pack("!4sBBHIQQ", b"FXLL", 1, 0, 0, pair_id("lab"), 7, 8),
    "other-pair": struct.pack("!4sBBHIQQ", b"FXLL", 1, 1, 0, 1, 7, 8),
    "nothing": b"",
}
"""What a stranger says who would hold the life line, or end it."""


@pytest.mark.parametrize("kind", LIFE_LINES)
def test_forged_life_line(lab: Lab, pair: Pair, kind: str) -> None:
    """In the peer's name, without its key: refused, counted; the line that stands goes on. Spec: R4, R13."""
    node = pair["a"]
    wait_until(lambda: peer_of(node)["life_line"]["stands"], COUNT_S, "the life line stands")
    before, moves = peer_of(node)["life_line"], len(node.history())
    with plain(lab, HEARTBEAT_PORT) as connection:
        connection.sendall(LIFE_LINES[kind])
        wait_closed(connection)
    wait_until(lambda: peer_of(node)["life_line"]["bad"] > before["bad"], COUNT_S, "it is counted")
    assert peer_of(node)["life_line"] == before | {"bad": before["bad"] + 1}
    assert not [e for e in node.history()[moves:] if e["event"] in {"peer-lost", "role"}]


def test_a_life_line_from_a_foreign_address(lab: Lab, pair: Pair) -> None:
    """Only the peer's address may hold it. Spec: R4."""
    node = pair["a"]
    before = peer_of(node)["life_line"]["bad"]
    with plain(lab, HEARTBEAT_PORT, host="a") as connection:
        wait_closed(connection)
    wait_until(lambda: peer_of(node)["life_line"]["bad"] == before + 1, COUNT_S, "it is counted")


NOT_FOR_THE_CABLE = {"martian_source", "martian_destination"}
"""What becomes of a frame from LAN or WAN whose destination is on the cross-connect."""


def wait_dropped(pair: Pair, name: str, before: Counter[str]) -> None:
    """Wait until a node has counted one of those."""
    wanted = {f"{name}.{verdict}" for verdict in NOT_FOR_THE_CABLE}
    wait_until(lambda: (verdicts(pair) - before).keys() & wanted, COUNT_S, f"node {name} counts it")


# ---- VRRP ------------------------------------------------------------------------------------------
ROUTERS = {"lan": ("198.51.100.66", 51, topo.LAN_VIP), "wan": ("203.0.113.6", 52, topo.WAN_VIP)}
"""A foreign router of each side, and the virtual router that it would be."""


def fragment_of(frame: Packet) -> Packet:
    """The same, as if more came."""
    frame[IP].flags = "MF"
    del frame[IP].chksum
    return frame


def bad_adverts(path: str) -> dict[str, tuple[Packet, str]]:
    """RFC 9568 §7.1: what a receiver must discard. The priority would win if it were believed."""
    source, vrid, vip = ROUTERS[path]

    def message(**fields: Any) -> Packet:
        return advert(**{"source": source, "priority": 254, "vrid": vrid, "vips": (vip,), **fields})

    def raw(body: bytes) -> Packet:
        return Ether(dst=VRRP_MAC) / IP(src=source, dst=VRRP_GROUP, ttl=255, proto=112) / Raw(body)

    return {
        "ttl": (message(ttl=254), "bad_ttl"),
        "version-2": (message(version=2), "bad_version"),
        "version-4": (message(version=4), "bad_version"),
        "type": (message(type=2), "bad_type"),
        "vrid": (message(vrid=53), "bad_vrid"),
        "count-0": (message(vips=(), ipcount=0), "count_zero"),
        "count-too-large": (message(ipcount=9), "bad_length"),
        "interval-0": (message(adver_int_cs=0), "interval_zero"),
        "checksum": (message(chksum=UNTRUE), "bad_checksum"),
        "truncated": (raw(bytes(VRRPv3(vrid=vrid))[:6]), "bad_length"),
        "fragment": (fragment_of(message()), "fragment"),
    }


@pytest.mark.parametrize("path", ROUTERS)
@pytest.mark.parametrize("kind", bad_adverts("wan"))
def test_bad_advert(pair: Pair, senders: Callable[[str, str], Send], path: str, kind: str) -> None:
    """A bad advertisement is discarded and counted by its reason, on both nodes. Spec: R2; RFC 9568 §7.1."""
    frame, reason = bad_adverts(path)[kind]
    counter = f"vrrp.{path}.{reason}"
    before = {name: node.counter(counter) for name, node in pair.nodes.items()}
    senders(path, "a")(frame)
    for name, node in pair.nodes.items():
        wait_counted(node, counter, before[name])


@pytest.mark.parametrize("path", ROUTERS)
@pytest.mark.parametrize("priority", [0, 254])
def test_advert_in_the_peers_name(
    pair: Pair, senders: Callable[[str, str], Send], path: str, priority: int
) -> None:
    """VRRP has no authentication (RFC 9568 §9), but a node speaks from the virtual MAC only. Spec: R2, R13.

    A better router of the peer's address, or its release, from another MAC is dropped and counted; who has
    this address itself knows it, too.
    """
    _, vrid, vip = ROUTERS[path]
    for node in pair.nodes.values():
        _, addresses = station(node, path)
        other = pair.peer(node)
        counter = f"vrrp.{path}.bad_mac"
        heard, own = node.counter(counter), other.counter(f"vrrp.{path}.own_advert")
        senders(path, node.name)(
            advert(source=addresses[other.name], vrid=vrid, vips=(vip,), priority=priority)
        )
        wait_counted(node, counter, heard)
        wait_counted(other, f"vrrp.{path}.own_advert", own)
        wait_heartbeats(node, 3)


def test_advert_on_the_cable(lab: Lab, pair: Pair, from_peer: dict[str, Send]) -> None:
    """Nobody listens to VRRP there: the node's kernel drops it, and counts it (InUnknownProtos). Spec: R2."""
    for name, node in pair.nodes.items():
        mac, addresses = station(node, "xc")
        before = unknown_protocols(lab, name)
        message = advert(source=addresses[pair.peer(node).name], priority=254)
        from_peer[name](message)
        message[Ether].dst, message[IP].dst = mac, addresses[name]
        del message[IP].chksum, message[VRRPv3].chksum
        from_peer[name](message)
        wait_unknown_protocol(lab, name, before)
        wait_heartbeats(node, 3)


def wait_unknown_protocol(lab: Lab, host: str, before: int) -> None:
    """Wait until its kernel has counted one more."""
    wait_until(lambda: unknown_protocols(lab, host) > before, COUNT_S, f"the kernel of {host} counts")


def unknown_protocols(lab: Lab, host: str) -> int:
    """Packets that a kernel dropped since nobody wanted their protocol."""
    lines = lab.run(host, ["cat", "/proc/net/snmp"]).stdout.splitlines()
    names, values = (line.split() for line in lines if line.startswith("Ip:"))
    return int(values[names.index("InUnknownProtos")])


# ---- sync ------------------------------------------------------------------------------------------
def framed(payload: bytes) -> bytes:
    return struct.pack("!I", len(payload)) + payload


HELLO = {
    "t": "hello",
    "v_min": VERSION_MIN,
    "v_max": VERSION_MAX,
    "pair": "lab",
    "node": 1,
    "inc": 7,
    "term": 0,
    "role": 1,
}
DANCE = framed(msgpack.packb({"t": "dance"}))
"""A message that no version knows."""

SYNC_BYTES: dict[str, tuple[bytes, str]] = {
    "length-4-gib": (b"\xff" * 64, "sync.oversize"),
    "http": (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "sync.oversize"),
    "no-msgpack": (framed(b"\xc1" * 8), "sync.garbage"),
    "no-map": (framed(msgpack.packb([1, 2, 3])), "sync.garbage"),
    "no-hello": (DANCE, "sync.no_hello"),
    "old-version": (framed(msgpack.packb(HELLO | {"v_min": 1, "v_max": 1})), "sync.version"),
    "version": (framed(msgpack.packb(HELLO | {"v_min": 98, "v_max": 99})), "sync.version"),
    "other-pair": (framed(msgpack.packb(HELLO | {"pair": "other"})), "sync.other_pair"),
    "same-node": (framed(msgpack.packb(HELLO | {"node": 0})), "sync.same_node"),
    "field": (framed(msgpack.packb(HELLO | {"term": "seven"})), "sync.bad_field"),
}


@pytest.mark.parametrize("kind", SYNC_BYTES)
def test_sync_peer_that_breaks_the_protocol(lab: Lab, pair: Pair, kind: str) -> None:
    """The connection of a peer that speaks nonsense ends, counted; the true peer is back. Spec: R20, R22."""
    data, counter = SYNC_BYTES[kind]
    node = pair["a"]
    before = node.counter(counter)
    with as_node_b(lab) as connection:
        connection.sendall(data)
        wait_counted(node, counter, before)
        wait_closed(connection)
    pair.wait_settled()


def test_sync_peer_that_says_what_nobody_knows(lab: Lab, pair: Pair) -> None:
    """Messages of a later version are skipped and counted; what follows them is heard. Spec: R22, B10."""
    node = pair["a"]
    unknown, refused = node.counter("sync.unknown_message"), node.counter("sync.other_pair")
    with as_node_b(lab) as connection:
        connection.sendall(
            framed(msgpack.packb(HELLO)) + 2 * DANCE + framed(msgpack.packb(HELLO | {"pair": "other"}))
        )
        wait_counted(node, "sync.other_pair", refused)
        assert node.counter("sync.unknown_message") == unknown + 2
        wait_closed(connection)
    pair.wait_settled()


def test_sync_peer_that_stops_mid_frame(lab: Lab, pair: Pair) -> None:
    """Half a frame, then nothing: the true peer's newer connection takes the place. Spec: R22."""
    connections = pair["a"].counter("sync.connections")
    with as_node_b(lab) as connection:
        connection.sendall(struct.pack("!I", 1000) + b"half")
        wait_counted(pair["a"], "sync.connections", connections, 2)
        wait_closed(connection)
    pair.wait_settled()


def test_sync_peer_that_leaves_mid_frame(lab: Lab, pair: Pair) -> None:
    """Half a frame, then the end of the connection. Spec: R22."""
    connections = pair["a"].counter("sync.connections")
    with as_node_b(lab) as connection:
        connection.sendall(framed(msgpack.packb(HELLO))[:20])
    wait_counted(pair["a"], "sync.connections", connections)
    pair.wait_settled()


def test_sync_from_a_foreign_address(lab: Lab, pair: Pair) -> None:
    """Only the peer's address may speak sync. Spec: R22."""
    before = pair["a"].counter("sync.foreign_peer")
    connection = lab.open_socket("a", socket.AF_INET, socket.SOCK_STREAM)
    with connection:
        connection.settimeout(COUNT_S)
        connection.connect(("169.254.100.1", SYNC_PORT))
        wait_closed(connection)
    wait_counted(pair["a"], "sync.foreign_peer", before)
    pair.wait_settled()
