# SPDX-License-Identifier: Apache-2.0
"""Names and addresses that follow from the configuration when the file does not give them."""

from __future__ import annotations

import zlib
from pathlib import Path

from flexha.config.schema import Config, DriverName, NodeName, NodePort, Port


def pair_id(pair_name: str) -> int:
    """CRC-32 of the pair's name, as heartbeats carry it."""
    return zlib.crc32(pair_name.encode())


def port_mac(pair_name: str, node_index: int, port_index: int) -> bytes:
    """A port's MAC when none is configured: locally administered, the same in every life of the node.

    02, the four bytes of the pair's CRC-32, and node and port in one byte; so each node knows its peer's.
    """
    return bytes((0x02, *pair_id(pair_name).to_bytes(4, "big"), node_index << 4 | port_index))


def virtual_mac(vrid: int) -> bytes:
    """Virtual router MAC address for IPv4 (RFC 9568 §7.3)."""
    return bytes((0x00, 0x00, 0x5E, 0x00, 0x01, vrid))


def default_wire_dev(port: str, node: str) -> str:
    """The node is part of it: in a lab the wire devices of both nodes meet in one namespace."""
    return f"fx-{port}-{node}"


def port_driver(shared: Port, own: NodePort) -> DriverName:
    """The node's word, or the pair's."""
    return own.driver or shared.driver


def wire_device(shared: Port, own: NodePort, port: str, node: str) -> str:
    """The TAP that is made, or the device that is there."""
    if port_driver(shared, own) == "packet" and own.device:
        return own.device
    return own.wire_dev or default_wire_dev(port, node)


def default_host_dev(port: str) -> str:
    """``wan`` to ``wan0``."""
    return f"{port}0"


def control_path(config: Config, name: NodeName) -> Path:
    """Where the daemon listens and ``flexhactl`` connects."""
    return Path(config.nodes[name].control or f"/run/flexha/{config.pair.name}-{name}.sock")


def state_path(config: Config, name: NodeName) -> Path:
    """Where the daemon keeps what must outlive it."""
    return Path(config.nodes[name].state_dir or f"/var/lib/flexha/{config.pair.name}-{name}")


def keys_path(config: Config, name: NodeName) -> Path:
    """Where the node's keys are (``flexha.config.keyfiles``)."""
    return Path(config.nodes[name].keys or f"/etc/flexha/{config.pair.name}-{name}")


def peer_name(name: NodeName) -> NodeName:
    """The other node."""
    return "b" if name == "a" else "a"
