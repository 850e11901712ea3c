# SPDX-License-Identifier: Apache-2.0
"""What the pair puts on its wires, captured on the switches. Spec: R1, R2, R12."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import topo
from netns.wire import (
    VRRP_GROUP,
    VRRP_MAC,
    Capture,
    Frame,
    arp_of,
    flooding,
    is_advert,
    mac_of,
    node_port,
    sender,
    who_has,
    write_pcap,
)
from pair import Node, Pair
from sandbox import Lab, wait_until
from scapy.layers.inet import IP
from scapy.layers.l2 import ARP
from traffic import UdpProbe

PORTS = {
    "lan": (topo.LAN_VIP, topo.LAN_VMAC, "client", "eth0", topo.PROBE_ADDRESS, 51),
    "wan": (topo.WAN_VIP, topo.WAN_VMAC, "isp", "wan0", topo.ISP_ADDRESS, 52),
}
ADVERTS = 3
FLOODED = 100
UDP = 17


def advertises(frame: Frame) -> bool:
    return frame.from_station and is_advert(frame)


def is_arp_reply_for(vip: str) -> Callable[[Frame], bool]:
    def answers(frame: Frame) -> bool:
        arp = arp_of(frame)
        return frame.from_station and arp is not None and arp.op == 2 and arp.psrc == vip

    return answers


@contextlib.contextmanager
def captures(lab: Lab, *nodes: Node) -> Iterator[dict[tuple[str, str], Capture]]:
    """A capture on each port of these nodes, at the switches, by port and node."""
    with contextlib.ExitStack() as stack:
        yield {
            (port, node.name): stack.enter_context(Capture(lab, *node_port(port, node.name)))
            for port in PORTS
            for node in nodes
        }


@pytest.fixture
def ask_for_vip(lab: Lab) -> Iterator[Callable[[str], None]]:
    """Send an ARP request for a port's VIP from its neighbour."""
    macs = {port: mac_of(lab, ns, device) for port, (_, _, ns, device, _, _) in PORTS.items()}
    with contextlib.ExitStack() as stack:
        senders = {
            port: stack.enter_context(sender(lab, ns, device))
            for port, (_, _, ns, device, _, _) in PORTS.items()
        }
        yield lambda port: senders[port](who_has(macs[port], PORTS[port][4], PORTS[port][0]))


def test_only_active_speaks_for_the_vip(lab: Lab, pair: Pair, ask_for_vip: Callable[[str], None]) -> None:
    """PASSIVE sources no frame with a VMAC and answers no ARP for a VIP; ACTIVE answers with the VMAC, and
    all that leaves to the WAN has the VIP as source. Spec: R1, R2, R12; RFC 9568 §8.1.2, §6.4.2.
    """
    active = pair.active()
    passive = pair.peer(active)
    with captures(lab, active, passive) as seen:
        udp = UdpProbe(lab, 360)
        try:
            for port, (vip, vmac, *_) in PORTS.items():
                ask_for_vip(port)
                reply = seen[port, active.name].wait(is_arp_reply_for(vip), f"{port}: {vip} is at ...")[0]
                assert (reply.source_mac, reply.packet[ARP].hwsrc) == (vmac, vmac)
                seen[port, active.name].wait(advertises, f"{port}: adverts", n=ADVERTS)
            udp.finish()
        finally:
            udp.close()
        assert_silent_about_vips(seen, passive)
        to_server = seen["wan", active.name].frames(
            lambda f: f.from_station and f.protocol == UDP and f.packet[IP].dst == topo.SERVER_ADDRESS
        )
        assert to_server
        assert {(frame.source_mac, frame.packet[IP].src) for frame in to_server} == {
            (topo.WAN_VMAC, topo.WAN_VIP)
        }


def assert_silent_about_vips(seen: dict[tuple[str, str], Capture], passive: Node) -> None:
    """Nothing that PASSIVE has sent claims a VMAC or a VIP."""
    for port, (vip, vmac, *_) in PORTS.items():
        sent = seen[port, passive.name].frames(lambda frame: frame.from_station)
        assert sent, "at least its heartbeats are captured, or this test would see nothing at all"
        assert [frame.packet.summary() for frame in sent if frame.source_mac == vmac] == []
        claims = [arp for frame in sent if (arp := arp_of(frame)) is not None and arp.psrc == vip]
        assert [arp.summary() for arp in claims] == []


def test_passive_drops_and_counts_vmac_frames(lab: Lab, pair: Pair) -> None:
    """Frames for the VMAC that a switch floods to PASSIVE go no further, and it says nothing. Spec: R1;
    RFC 9568 §6.4.2.
    """
    active = pair.active()
    passive = pair.peer(active)
    counted = passive.counter("vmac_not_active")
    with captures(lab, passive) as seen:
        udp = UdpProbe(lab, 361)
        try:
            with flooding(lab, "lan", active.name), flooding(lab, "wan", active.name):
                wanted = counted + 2 * FLOODED
                wait_until(lambda: passive.counter("vmac_not_active") >= wanted, 10, "flooded frames count")
            result = udp.finish()
        finally:
            udp.close()
        assert_silent_about_vips(seen, passive)
    assert result.lost == 0
    assert result.received == result.sent, "nothing was sent twice"


def test_tshark_decodes_adverts(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    """tshark finds nothing to complain of in our adverts. Spec: R2; RFC 9568 §5."""
    active = pair.active()
    with captures(lab, active) as seen:
        adverts = [
            frame
            for port in PORTS
            for frame in seen[port, active.name].wait(advertises, f"{port}: adverts", n=ADVERTS)
        ]
    write_pcap(tmp_path / "adverts.pcap", adverts)
    argv = ["tshark", "-r", str(tmp_path / "adverts.pcap"), "-T", "json", "-o", "ip.check_checksum:TRUE"]
    decoded = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    assert len(decoded) == len(adverts)
    for packet in decoded:
        layers = packet["_source"]["layers"]
        assert "_ws.malformed" not in layers
        assert "_ws.expert" not in json.dumps(layers)
        vrrp, ip, ethernet = layers["vrrp"], layers["ip"], layers["eth"]
        port = next(name for name, values in PORTS.items() if values[5] == int(vrrp["vrrp.virt_rtr_id"]))
        vip, vmac, *_ = PORTS[port]
        assert ethernet["eth.dst"] == VRRP_MAC
        assert ethernet["eth.src"] == vmac
        assert (ip["ip.ttl"], ip["ip.dst"]) == ("255", VRRP_GROUP)
        assert ip["ip.checksum.status"] == "1"
        assert vrrp["vrrp.checksum.status"] == "1"
        assert vrrp["vrrp.ip_addr"] == vip
        assert vrrp["vrrp.addr_count"] == "1"


def test_takeover_is_announced(lab: Lab, pair: Pair) -> None:
    """The new ACTIVE sends gratuitous ARP and an advert from the VMAC on every port. Spec: R2, R13;
    RFC 9568 §6.4.2 (370..380).
    """
    old = pair.active()
    new = pair.peer(old)

    def is_gratuitous(frame: Frame) -> bool:
        arp = arp_of(frame)
        return frame.from_station and arp is not None and arp.psrc == arp.pdst

    with captures(lab, new) as seen:
        old.die()
        for port, (vip, vmac, *_) in PORTS.items():
            announced = seen[port, new.name].wait(is_gratuitous, f"{port}: gratuitous ARP")
            claims = {(f.packet[ARP].psrc, f.packet[ARP].hwsrc, f.source_mac) for f in announced}
            assert claims == {(vip, vmac, vmac)}
            seen[port, new.name].wait(advertises, f"{port}: an advert")


def test_priority_zero_on_clean_stop_without_peer(lab: Lab, pair: Pair) -> None:
    """An ACTIVE node that leaves without a successor says so by priority 0. Spec: R2; RFC 9568 §6.4.3."""
    active = pair.active()
    pair.peer(active).stop()
    with captures(lab, active) as seen:
        assert active.stop() == 0
        for port in PORTS:
            last = seen[port, active.name].frames(advertises)[-1]
            assert last.packet[IP].payload.priority == 0
