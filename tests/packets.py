# SPDX-License-Identifier: Apache-2.0
"""Frames for the fast path, built and taken apart without scapy: thousands of them in a model's run.

The network is the lab's (netns-lab/README.md), on ports 0 (lan) and 1 (wan).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from flexha.fastpath import (
    Driver,
    FastpathConfig,
    Filtering,
    Neighbour,
    PoolConfig,
    PortConfig,
    PulseConfig,
    Route,
    Zone,
)

LAN, WAN = 0, 1
ICMP, TCP, UDP, VRRP = 1, 6, 17, 112
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ECHO_REPLY, ECHO_REQUEST = 0, 8

CLIENTS = tuple(IPv4Address("198.51.100.10") + i for i in range(4))
SERVERS = tuple(IPv4Address("192.0.2.10") + i for i in range(3))
LAN_VIP = IPv4Address("198.51.100.1")
WAN_VIP = IPv4Address("203.0.113.3")
ISP = IPv4Address("203.0.113.1")

MAC_KEY = b"the key of MACs."
CLIENT_MAC = bytes.fromhex("020000000010")
ISP_MAC = bytes.fromhex("020000000020")
BROADCAST_MAC = b"\xff" * 6
PORT_NAMES = ("lan", "wan")
VMACS = (bytes.fromhex("00005e000133"), bytes.fromhex("00005e000134"))


def port_mac(node: int, port: int) -> bytes:
    return bytes([2, 0xFC, 0, 0, node, port])


def port_address(node: int, port: int) -> IPv4Address:
    return IPv4Address("198.51.100.2" if port == LAN else "203.0.113.4") + node


def node_config(node: int = 0, *, heartbeats: bool = True, driver: Driver = Driver.MEM) -> FastpathConfig:
    """Node a (0) or b (1) of the pair, on in-memory ports; ``heartbeats`` on both of them."""
    ports = tuple(
        PortConfig(
            name=name,
            zone=Zone.INSIDE if port == LAN else Zone.OUTSIDE,
            address=port_address(node, port),
            plen=24 if port == LAN else 29,
            mac=port_mac(node, port),
            wire_dev=f"fx-{name}",
            host_dev=f"{name}0",
            driver=driver,
            vrid=51 + port,
            vmac=VMACS[port],
            vips=(LAN_VIP if port == LAN else WAN_VIP,),
            peer_address=port_address(1 - node, port),
            peer_mac=port_mac(1 - node, port) if heartbeats else None,
        )
        for port, name in enumerate(PORT_NAMES)
    )
    return FastpathConfig(
        ports=ports,
        pools=(PoolConfig(name="vip", address=WAN_VIP, out_port=WAN, filtering=Filtering.APDF),),
        pulse=PulseConfig(pair_id=7, node_index=node, incarnation=1000 + node, mac_key=MAC_KEY),
        shard_key=b"the pair's key.1",
        table_key=bytes([node]) * 16,
        flow_id_base=1_000_000 * (node + 1),
        flow_cap=4096,
    )


ROUTES = (
    Route(IPv4Address("198.51.100.0"), 24, LAN),
    Route(IPv4Address("203.0.113.0"), 29, WAN),
    Route(IPv4Address("0.0.0.0"), 0, WAN, ISP),
)
NEIGHBOURS = (
    *(Neighbour(client, CLIENT_MAC, LAN) for client in CLIENTS),
    Neighbour(ISP, ISP_MAC, WAN),
)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


@dataclass(frozen=True, slots=True)
class Packet:
    """An IPv4 packet in words; for ICMP ``sport`` is the identifier and ``dport`` 0."""

    proto: int
    src: IPv4Address
    dst: IPv4Address
    sport: int
    dport: int = 0
    flags: int = 0
    seq: int = 0
    ack: int = 0
    icmp_type: int = ECHO_REQUEST
    icmp_code: int = 0
    icmp_seq: int = 1
    """The last 16 bits of the ICMP header; of Fragmentation Needed the MTU."""
    payload: bytes = b""
    ttl: int = 64

    def l4(self) -> bytes:
        if self.proto == TCP:
            head = struct.pack(
                "!HHIIBBHHH", self.sport, self.dport, self.seq, self.ack, 5 << 4, self.flags, 1000, 0, 0
            )
            at, pseudo = 16, True
        elif self.proto == UDP:
            head = struct.pack("!HHHH", self.sport, self.dport, 8 + len(self.payload), 0)
            at, pseudo = 6, True
        elif self.proto == ICMP:
            head = struct.pack("!BBHHH", self.icmp_type, self.icmp_code, 0, self.sport, self.icmp_seq)
            at, pseudo = 2, False
        else:
            return self.payload
        body = head + self.payload
        prefix = (
            self.src.packed + self.dst.packed + struct.pack("!HH", self.proto, len(body)) if pseudo else b""
        )
        value = checksum(prefix + body)
        if self.proto == UDP and value == 0:
            value = 0xFFFF
        return body[:at] + struct.pack("!H", value) + body[at + 2 :]

    def ip(self) -> bytes:
        l4 = self.l4()
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(l4), 0, 0x4000, self.ttl, self.proto, 0)
        head += self.src.packed + self.dst.packed
        return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + l4

    def frame(self, dst_mac: bytes, src_mac: bytes) -> bytes:
        return dst_mac + src_mac + b"\x08\0" + self.ip()

    def from_lan(self) -> bytes:
        """As a client sends it to its default gateway, the VMAC."""
        return self.frame(VMACS[LAN], CLIENT_MAC)

    def from_wan(self) -> bytes:
        """As the ISP's router sends it to the VIP's VMAC."""
        return self.frame(VMACS[WAN], ISP_MAC)

    def reply(self, **changes: object) -> Packet:
        """The other direction of the same endpoints."""
        echo = {"sport": self.sport} if self.proto == ICMP else {"sport": self.dport, "dport": self.sport}
        turned = {"src": self.dst, "dst": self.src, "icmp_type": ECHO_REPLY, **echo, **changes}
        return replace(self, **turned)  # type: ignore[arg-type]


def icmp_error(source: IPv4Address, about: bytes, icmp_type: int, icmp_code: int) -> Packet:
    """An ICMP error about an IPv4 packet, sent to its source."""
    return Packet(
        ICMP, source, IPv4Address(about[12:16]), 0, icmp_type=icmp_type, icmp_code=icmp_code, payload=about
    )


def parse(frame: bytes) -> Packet:
    """Take a frame apart; its checksums must be right."""
    assert frame[12:14] == b"\x08\0"
    ip = frame[14:]
    total = int.from_bytes(ip[2:4], "big")
    assert ip[0] == 0x45
    assert total == len(ip)
    assert checksum(ip[:20]) == 0
    proto, l4 = ip[9], ip[20:]
    src, dst = IPv4Address(ip[12:16]), IPv4Address(ip[16:20])
    packet = Packet(proto, src, dst, 0, ttl=ip[8])
    if proto == ICMP:
        assert checksum(l4) == 0
        kind, code, _, sport, seq = struct.unpack_from("!BBHHH", l4)
        return replace(packet, icmp_type=kind, icmp_code=code, sport=sport, icmp_seq=seq, payload=l4[8:])
    if proto not in {TCP, UDP}:
        return replace(packet, payload=l4)
    assert checksum(ip[12:20] + struct.pack("!HH", proto, len(l4)) + l4) == 0
    sport, dport = struct.unpack_from("!HH", l4)
    packet = replace(packet, sport=sport, dport=dport)
    if proto == UDP:
        return replace(packet, payload=l4[8:])
    seq, ack, offset, flags = struct.unpack_from("!IIBB", l4, 4)
    return replace(packet, seq=seq, ack=ack, flags=flags, payload=l4[(offset >> 4) * 4 :])


def patch_ip(frame: bytes, at: int, value: int) -> bytes:
    """Another 16-bit word of the IP header, its checksum made anew."""
    head = bytearray(frame[14:34])
    head[at : at + 2] = value.to_bytes(2, "big")
    head[10:12] = b"\0\0"
    head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
    return frame[:14] + bytes(head) + frame[34:]


def fragment(frame: bytes, start: int, end: int, *, ident: int, more: bool) -> bytes:
    """Bytes [start, end) behind the IP header as a fragment of their own."""
    cut = frame[:34] + frame[34 + start : 34 + end]
    for at, value in ((2, len(cut) - 14), (4, ident), (6, more << 13 | start // 8)):
        cut = patch_ip(cut, at, value)
    return cut


def fragments(frame: bytes, size: int, *, ident: int = 1) -> list[bytes]:
    """A packet in fragments of ``size`` bytes behind the IP header."""
    total = len(frame) - 34
    return [
        fragment(frame, at, min(at + size, total), ident=ident, more=at + size < total)
        for at in range(0, total, size)
    ]


def assemble(frames: Iterable[bytes]) -> bytes:
    """The packet that was sent in fragments: nothing is missing, nothing comes twice."""
    pieces = {}
    for frame in frames:
        assert checksum(frame[14:34]) == 0
        word = int.from_bytes(frame[20:22], "big")
        pieces[word % 0x2000 * 8] = (frame, bool(word & 0x2000))
    body, last = b"", False
    for at, (frame, more) in sorted(pieces.items()):
        assert at == len(body)
        body += frame[34:]
        last = not more
    assert last
    whole = pieces[0][0][:34] + body
    return patch_ip(patch_ip(whole, 2, len(whole) - 14), 6, 0)


def arp_request(sender: IPv4Address, target: IPv4Address, src_mac: bytes = CLIENT_MAC) -> bytes:
    """Who has ``target``? Tell ``sender``."""
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + src_mac + sender.packed + bytes(6) + target.packed
    return BROADCAST_MAC + src_mac + b"\x08\x06" + body
