# SPDX-License-Identifier: Apache-2.0
"""What checks of several keys say of addresses and names."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network


def outside(address: IPv4Address, network: IPv4Network) -> str | None:
    """Why a host of this wire cannot have the address."""
    if address not in network:
        return f"is not in {network}; choose an address of that subnet"
    if network.prefixlen < 31 and address in {network.network_address, network.broadcast_address}:
        return f"is the network or broadcast address of {network}; choose a host address"
    return None


def known(names: Iterable[str]) -> str:
    """The names that there are, for a remedy."""
    return ", ".join(names) or "none yet"
