# SPDX-License-Identifier: Apache-2.0
"""Connections to node a's sync port that a test makes itself, from node b's address."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from sandbox import KEYS_DIR, Lab

SYNC_PORT = 47851
TIMEOUT_S = 5.0


def context(directory: Path) -> ssl.SSLContext:
    """Shows the certificate in ``directory``; whom it speaks with it does not ask."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    made.load_cert_chain(directory / "node.crt", directory / "node.key")
    return made


def plain(lab: Lab, port: int = SYNC_PORT, host: str = "b") -> socket.socket:
    """TCP, and nothing said yet; its segments come from the next node, as their TTL shows."""
    connection = lab.open_socket(host, socket.AF_INET, socket.SOCK_STREAM)
    connection.settimeout(TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
    connection.connect(("169.254.100.1", port))
    return connection


def as_node_b(lab: Lab, directory: Path | None = None) -> ssl.SSLSocket:
    """TLS with node b's own key, or with that in ``directory``."""
    return context(directory or lab.path(f"{KEYS_DIR}/b")).wrap_socket(plain(lab))


def wait_closed(connection: socket.socket) -> None:
    """Read until the other end has closed, or has refused us."""
    try:
        while connection.recv(65536):
            pass
    except (ConnectionResetError, ssl.SSLError):
        return
