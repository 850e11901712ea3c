# SPDX-License-Identifier: Apache-2.0
"""What lands on PASSIVE goes to ACTIVE by the cross-connect, and what else comes by it does not.

Spec: R8, R9, R24, DESIGN §2; RFC 8926.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from functools import partial
from typing import Any

import faults
import pytest
import topo
from netns.wire import ETH_P_IP, Capture, advert, mac_of, sender
from pair import Node, Pair, configuration, with_keys
from sandbox import Lab, wait_until
from scapy.layers.inet import IP, UDP
from scapy.packet import Raw
from traffic import Download, TcpFlows, UdpProbe, WebServer

from flexha.config.naming import pair_id

PORT = 6081
SOURCE_PORT = 61440
"""Of shard 0."""
NEEDED_MTU = 1500 + 14 + 20 + 8 + 8 + 12
"""An Ethernet frame in IPv4, UDP and Geneve with its option."""
SPREAD_FLOWS = 10_000
SPREAD_BURST = 250
"""So many fit into the queue of a TAP whose reader has to wait for the CPU."""
BUSIEST_MAX = 1.15
"""Of the mean; DESIGN §5."""
XC = {"a": "169.254.100.1", "b": "169.254.100.2"}
PERMANENT = 0x80
LAN = bytes((198, 51, 100))
VNI, OTHERS = pair_id("lab") & 0xFFFFFF, pair_id("other") & 0xFFFFFF


@pytest.fixture(scope="module")
def two_workers(lab: Lab, session_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The pair with two workers each, which ignores other VRRP routers; node a is ACTIVE."""
    directory = tmp_path_factory.mktemp("conduit")
    config = directory / "pair.toml"
    config.write_text(
        with_keys(
            configuration(directory).read_text(), {"fastpath": "workers = 2", "vrrp": 'foreign = "ignore"'}
        )
    )
    made = Pair(lab, session_pair["a"].log.parent, config)
    session_pair.stop_all()
    for node in made.nodes.values():
        node.start()
    try:
        made.wait_settled()
        yield made
    finally:
        made.stop_all()


def port_mac(node: Node, port: str) -> str:
    """The MAC address of a node's port."""
    return next(str(row["mac"]) for row in status_of(node)["ports"] if row["name"] == port)


@contextlib.contextmanager
def neighbour(lab: Lab, host: str, device: str, address: str, mac: str) -> Iterator[None]:
    """This host believes that the address has this MAC address, whatever anybody says."""
    with lab.links(host) as links:
        entry = {"dst": address, "ifindex": links.link_lookup(ifname=device)[0]}
        links.neigh("replace", **entry, lladdr=mac, state=PERMANENT)
        try:
            yield
        finally:
            links.neigh("del", **entry)


@contextlib.contextmanager
def landing_on(lab: Lab, node: Node) -> Iterator[None]:
    """Client and ISP send to this node's own MAC addresses, whoever has the virtual one."""
    with (
        neighbour(lab, "client", "eth0", topo.LAN_VIP, port_mac(node, "lan")),
        neighbour(lab, "isp", "wan0", topo.WAN_VIP, port_mac(node, "wan")),
    ):
        yield


def status_of(node: Node) -> dict[str, Any]:
    """What a node says of itself."""
    status = node.status()
    assert status is not None
    return status


def workers(node: Node) -> list[dict[str, object]]:
    """The workers of a node, with their counters."""
    shown: list[dict[str, object]] = node.request("workers")["workers"]
    return shown


def total(node: Node, name: str) -> int:
    """A counter of the workers, over all."""
    return sum(int(str(worker[name])) for worker in workers(node))


def conduit(node: Node, name: str) -> list[int]:
    """A counter of the conduit, by worker."""
    return [int(worker["conduit"][name]) for worker in workers(node)]  # type: ignore[index]


def ping(lab: Lab) -> str:
    """Three echo requests from client to server."""
    argv = ["ping", "-n", "-c", "3", "-i", "0.05", "-W", "2", "-I", topo.PROBE_ADDRESS, topo.SERVER_ADDRESS]
    return lab.run("client", argv).stdout


def test_traffic_that_lands_on_passive(lab: Lab, two_workers: Pair) -> None:
    """Nothing of it is lost, doubled or out of order, and PASSIVE looks for no session. Spec: R8, R9."""
    active, passive = two_workers["a"], two_workers["b"]
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(contextlib.closing(WebServer(lab, lab.path("/run/nginx-conduit.log"))))
        looked, handed = total(passive, "lookups"), passive.counter("conduit_to")
        stack.enter_context(landing_on(lab, passive))
        probe = stack.enter_context(contextlib.closing(UdpProbe(lab, 710)))
        tcp = stack.enter_context(contextlib.closing(TcpFlows(lab, 340, flows=200)))
        download = Download(lab, web, 710, seconds=1.0)
        tcp.wait_open()
        assert " 0% packet loss" in ping(lab)
        wait_until(download.done, 20, "the download is done")
        rounds = int(tcp.progress()["rounds"]) + 4
        wait_until(lambda: int(tcp.progress()["rounds"]) >= rounds, 20, "four more rounds")
        result, flows, got = probe.finish(), tcp.finish(), download.finish()
    assert (result.there.lost, result.there.duplicated, result.there.reordered) == (0, 0, 0)
    assert (result.echoes.lost, result.echoes.duplicated, result.echoes.reordered) == (0, 0, 0)
    assert (flows.survived, flows.corrupt, flows.foreign) == (flows.opened, 0, 0)
    assert (got.completed, got.sha256_ok) == (True, True), got.detail
    assert passive.counter("conduit_to") - handed > 2 * result.sent
    assert total(passive, "lookups") == looked
    assert sum(conduit(active, "rx_frames")) == sum(conduit(passive, "tx_frames"))
    assert sum(conduit(passive, "tx_lost")) == sum(conduit(active, "rx_missed")) == 0
    for node, way in ((passive, "tx"), (active, "rx")):
        frames, calls = (sum(conduit(node, f"{way}_{what}")) for what in ("frames", "calls"))
        assert frames > 1.5 * calls, "each burst of a download takes one call (UDP_SEGMENT, UDP_GRO)"
    status = status_of(passive)
    assert status["conduit"]["on"]
    assert status["conduit"]["term"] == status["peer"]["term"]


def test_the_cross_connect_carries_whole_packets(lab: Lab, two_workers: Pair) -> None:
    """``mtu_policy = "raise"``: a packet of the wires fits into Geneve, at both ends. Spec: R8, DESIGN §2."""
    for node in two_workers.nodes.values():
        with lab.links(node.name) as links:
            (device,) = links.get_links(links.link_lookup(ifname=topo.XC_DEVICE)[0])
        assert device.get_attr("IFLA_MTU") == NEEDED_MTU


def test_a_planned_move_loses_nothing_of_it(lab: Lab, two_workers: Pair) -> None:
    """Whether its node reigns or not, before and after. Spec: B3, R8."""
    with landing_on(lab, two_workers["b"]), contextlib.closing(UdpProbe(lab, 712)) as probe:
        wait_until(lambda: two_workers.holds(probe.source), 10, "both nodes have its session")
        for _ in range(4):
            old = two_workers.active()
            new = two_workers.peer(old)
            old.request("failover")
            wait_until(partial(is_active, new), 10, "the role has moved")
            assert two_workers.wait_settled() is new
        result = probe.finish()
    assert (result.there.lost, result.there.duplicated) == (0, 0)
    assert (result.echoes.lost, result.echoes.duplicated) == (0, 0)


def is_active(node: Node) -> bool:
    return node.role() == "ACTIVE"


def datagrams(destination: str, source: str) -> Iterator[bytes]:
    """A datagram of each of 10,000 flows, as frames for a MAC address."""
    ethernet = bytes.fromhex((destination + source).replace(":", "")) + b"\x08\x00"
    for address in topo.CLIENT_ADDRESSES:
        head = bytes(IP(src=address, dst=topo.SERVER_ADDRESS, proto=17, len=36, ttl=64))
        for port in range(10_000, 10_000 + SPREAD_FLOWS // len(topo.CLIENT_ADDRESSES)):
            yield ethernet + head + struct.pack("!HHHH", port, 9, 16, 0) + b"spread!!"


def test_ten_thousand_flows_are_spread_over_the_receivers_workers(lab: Lab, two_workers: Pair) -> None:
    """And each comes to the worker that owns it, so that none is handed on. Spec: R24, DESIGN §5."""
    active, passive = two_workers["a"], two_workers["b"]
    before = conduit(active, "rx_frames"), total(active, "handed_on")

    def came() -> list[int]:
        return [now - then for now, then in zip(conduit(active, "rx_frames"), before[0], strict=True)]

    def crossed(sent: int) -> bool:
        return sum(came()) >= sent

    with sender(lab, "client", "eth0") as send:
        frames = datagrams(port_mac(passive, "lan"), mac_of(lab, "client", "eth0"))
        for sent, frame in enumerate(frames, 1):
            send(frame)
            if sent % SPREAD_BURST == 0:
                wait_until(partial(crossed, sent), 10, f"{sent} of them crossed over")
    assert max(came()) <= BUSIEST_MAX * SPREAD_FLOWS / 2, came()
    # Sessions of the tests before end meanwhile, and their last packets come by the wire.
    assert total(active, "handed_on") - before[1] < SPREAD_FLOWS / 1000


def test_each_node_has_one_side_only(lab: Lab, two_workers: Pair) -> None:
    """ACTIVE has only its LAN, the other one only its WAN: traffic goes through both. Spec: R8, R14.

    What comes back lands on the other one's port, and nothing of the LAN's own addresses reaches the ISP.
    """
    active, passive = two_workers["a"], two_workers["b"]
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(contextlib.closing(TcpFlows(lab, 341, flows=100)))
        tcp.wait_open()
        stack.enter_context(faults.link_down(lab, "lansw", "fx-lan-b"))
        wait_until(
            lambda: status_of(active)["tracking"]["ports"]["lan"]["peer_usable"] is False,
            10,
            "the peer has lost its LAN",
        )
        wire = stack.enter_context(Capture(lab, "isp", "wan0"))
        stack.enter_context(faults.link_down(lab, "wansw", "fx-wan-a"))
        wait_until(lambda: status_of(active)["conduit"]["by_peer"] == ["wan"], 10, "WAN goes by the peer")
        stack.enter_context(
            neighbour(lab, "isp", "wan0", topo.WAN_VIP, port_mac_b := port_mac(passive, "wan"))
        )
        tcp.mark()
        wait_until(tcp.recovered, 20, "each connection has a new request answered")
        assert " 0% packet loss" in ping(lab)
        assert status_of(active)["role"].upper() == "ACTIVE"
        assert active.counter("conduit_out") > 100
        assert passive.counter("conduit_from") > 100
        assert passive.counter("conduit_to") > 100
        flows = tcp.finish()
        assert wire.frames(lambda frame: frame.source_mac == port_mac_b)
        assert not wire.frames(
            lambda frame: frame.ethertype == ETH_P_IP and LAN in (frame.data[26:29], frame.data[30:33])
        )
    wait_until(lambda: status_of(active)["conduit"]["by_peer"] == [], 10, "WAN goes its own way again")
    two_workers.wait_settled()
    assert (flows.survived, flows.corrupt, flows.foreign) == (flows.opened, 0, 0)


# ---- what nobody of ours sends ---------------------------------------------------------------------------
def option(**fields: int) -> bytes:
    """The conduit's option, as SYNC.md has it."""
    values = {
        "klass": 0xFFF7,
        "kind": 0x81,
        "words": 2,
        "way": 0,
        "port": 0,
        "shard": 0,
        "flags": 0,
        "term": 0,
    }
    values |= fields
    return struct.pack("!HBBBBBBI", *values.values())


def geneve(
    options: bytes, *, first: int | None = None, flags: int = 0x40, proto: int = 0x6558, vni: int = VNI
) -> bytes:
    """RFC 8926 section 3.4; a frame follows that is none."""
    words = len(options) // 4 if first is None else first
    return struct.pack("!BBHI", words, flags, proto, vni << 8) + options + bytes(60)


BAD: dict[str, tuple[dict[str, int], dict[str, int], str]] = {
    "version": ({}, {"first": 0x43}, "conduit_malformed"),
    "oam": ({}, {"flags": 0xC0}, "conduit_malformed"),
    "protocol": ({}, {"proto": 0x0800}, "conduit_malformed"),
    "pair": ({}, {"vni": OTHERS}, "conduit_malformed"),
    "options-too-long": ({}, {"first": 0x3F}, "conduit_malformed"),
    "no-option": ({}, {"first": 0}, "conduit_malformed"),
    "option-cut-off": ({}, {"first": 2}, "conduit_malformed"),
    "option-length": ({"words": 1}, {}, "conduit_malformed"),
    "unknown-critical": ({"kind": 0x83}, {}, "conduit_critical"),
    "unknown": ({"kind": 0x03}, {}, "conduit_malformed"),
    "direction": ({"way": 7}, {}, "conduit_malformed"),
    "port": ({"port": 2}, {}, "conduit_malformed"),
    "shard": ({"shard": 64}, {}, "conduit_malformed"),
    "another-shard": ({"shard": 3}, {}, "conduit_foreign"),
    "inner": ({}, {}, "conduit_malformed"),
}
"""What is changed in the option, what in the header before it, and the verdict."""
REIGN: dict[str, tuple[dict[str, int], str, str]] = {
    "term": ({"term": 1}, "conduit_term", "conduit_not_active"),
    "highest-term": ({"term": 0xFFFFFFFF}, "conduit_term", "conduit_not_active"),
    "from-active": ({"way": 1}, "conduit_not_passive", "conduit_malformed"),
    "from-active-of-another-term": ({"way": 1, "term": 0xFFFFFFFF}, "conduit_not_passive", "conduit_term"),
}
"""What is changed, and the verdict of ACTIVE and of PASSIVE."""


def send_geneve(
    lab: Lab, payload: bytes, *, to: str = "a", source: str = "", sport: int = SOURCE_PORT, ttl: int = 255
) -> None:
    """A datagram to this node from the namespace of the other, whatever it claims to be."""
    other = "b" if to == "a" else "a"
    packet = IP(src=source or XC[other], dst=XC[to], ttl=ttl) / UDP(sport=sport, dport=PORT) / Raw(payload)
    with lab.open_socket(other, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes(packet), (XC[to], 0))


@contextlib.contextmanager
def counted_only(pair: Pair, node: Node, verdict: str) -> Iterator[None]:
    """What is sent within is counted, once, and nobody's role or term changes."""

    def reigns() -> list[tuple[object, object]]:
        return [(s["role"], s["term"]) for s in map(status_of, pair.nodes.values())]

    before, reigned = node.counter(verdict), reigns()
    yield
    wait_until(lambda: node.counter(verdict) > before, 5, f"node {node.name} counts {verdict}")
    assert node.counter(verdict) == before + 1
    wait_until(pair.settled, 5, "sessions of earlier tests have ended at both nodes")
    assert reigns() == reigned


def drops_as(lab: Lab, pair: Pair, node: Node, verdict: str, changed: dict[str, Any], **outer: Any) -> None:
    """A packet from its peer, of this term, but for what is ``changed`` of the option and ``outer``."""
    with counted_only(pair, node, verdict):
        inner = geneve(option(**{"term": status_of(node)["term"], **changed}), **outer)
        send_geneve(lab, inner, to=node.name)


@pytest.mark.parametrize("name", topo.NODES)
@pytest.mark.parametrize("kind", BAD)
def test_bad_geneve(lab: Lab, two_workers: Pair, kind: str, name: str) -> None:
    """It is dropped, counted by its reason, and changes no role. Spec: R22; RFC 8926 §3.4, §3.5."""
    node = two_workers[name]
    changed, outer, verdict = BAD[kind]
    if kind == "inner" and node.role() != "ACTIVE":
        changed = {"way": 1}
    drops_as(lab, two_workers, node, verdict, changed, **outer)


@pytest.mark.parametrize("name", topo.NODES)
@pytest.mark.parametrize("kind", REIGN)
def test_geneve_of_no_reign(lab: Lab, two_workers: Pair, kind: str, name: str) -> None:
    """PASSIVE takes nothing that is for ACTIVE, and ACTIVE nothing of another one. Spec: R22, B2."""
    node = two_workers[name]
    changed, of_active, of_passive = REIGN[kind]
    drops_as(lab, two_workers, node, of_active if node.role() == "ACTIVE" else of_passive, changed)


@pytest.mark.parametrize("name", topo.NODES)
@pytest.mark.parametrize(
    "whence",
    [{"source": "169.254.100.3"}, {"sport": 40000}, {"sport": SOURCE_PORT + 64}, {"ttl": 254}],
    ids=["address", "port", "no-shard", "ttl"],
)
def test_geneve_that_the_peer_did_not_send(
    lab: Lab, two_workers: Pair, whence: dict[str, object], name: str
) -> None:
    """Another address, another port, or from further away than a cable. Spec: R22; RFC 5082."""
    node = two_workers[name]
    payload = geneve(option(term=status_of(node)["term"]))
    with counted_only(two_workers, node, "conduit_foreign"):
        send_geneve(lab, payload, to=name, **whence)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", topo.NODES)
@pytest.mark.parametrize(
    ("port", "host", "device", "source"),
    [("lan", "client", "eth0", topo.PROBE_ADDRESS), ("wan", "isp", "wan0", topo.SERVER_ADDRESS)],
    ids=["lan", "wan"],
)
@pytest.mark.parametrize("to", ["cable", "port"])
def test_geneve_from_a_port(
    lab: Lab, two_workers: Pair, name: str, port: str, host: str, device: str, source: str, to: str
) -> None:
    """Nobody reaches the cross-connect by a port of either node, and nobody listens there. Spec: R22."""
    node = two_workers[name]
    row = next(row for row in status_of(node)["ports"] if row["name"] == port)
    target, verdict = (
        (XC[name], "martian_destination") if to == "cable" else (str(row["address"]).split("/")[0], "host")
    )
    payload = geneve(option(term=status_of(node)["term"]))
    packet = IP(src=source, dst=target, ttl=255) / UDP(sport=SOURCE_PORT, dport=PORT) / Raw(payload)
    ethernet = bytes.fromhex((port_mac(node, port) + mac_of(lab, host, device)).replace(":", ""))
    taken = sum(conduit(node, "rx_frames"))
    before = node.counter(verdict)
    with sender(lab, host, device) as send:
        send(ethernet + b"\x08\x00" + bytes(packet))
    wait_until(lambda: node.counter(verdict) > before, 5, f"{verdict} is counted")
    assert sum(conduit(node, "rx_frames")) == taken
    wait_until(two_workers.settled, 5, "sessions of earlier tests have ended at both nodes")


# ---- the third router (here since this pair ignores it) --------------------------------------------------
def tells_once(node: Node) -> bool:
    """Its log, which is written a little later than its counters."""
    return node.log.read_text().count("vrrp-foreign") == 1


def test_a_third_router_is_ignored(lab: Lab, two_workers: Pair) -> None:
    """A better one: counted and warned of once on both nodes, and no role moves. Spec: R2; RFC 9568 §9.

    What ``foreign = "yield"`` does is in test_roles.py.
    """
    nodes = two_workers.nodes.values()
    reigned = [(node.role(), status_of(node)["term"]) for node in nodes]
    before = [node.counter("vrrp.wan.foreign") for node in nodes]
    with sender(lab, "isp", "wan0") as send:
        for _ in range(3):
            send(advert(source="203.0.113.6", priority=254, mac=mac_of(lab, "isp", "wan0")))

    def counted() -> bool:
        return [node.counter("vrrp.wan.foreign") for node in nodes] == [n + 3 for n in before]

    wait_until(counted, 5, "both nodes count the third router's adverts")
    assert [(node.role(), status_of(node)["term"]) for node in nodes] == reigned
    for node in nodes:
        wait_until(partial(tells_once, node), 5, f"node {node.name} warns of it, once")
