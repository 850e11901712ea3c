# SPDX-License-Identifier: Apache-2.0
"""Gratuitous ARP: tells hosts and switches of a link where a virtual address now lives (RFC 9568 §6.4.2).

Frames get lost, and the last frames of a router that has just yielded may come behind ours and turn the
switches back, so ``REPEAT_AT_MS`` says when one takeover announces: at once, and three times more.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Final

REPEAT_AT_MS: Final = (0, 10, 100, 1000)
"""Milliseconds after the takeover at which every address is announced."""
REASSERT_MS: Final = 100
"""Another router's adverts make an Active Router begin its announcements anew this often at most.

Not above the third of ``REPEAT_AT_MS``: then every such advert is followed by an announcement within 100 ms.
A router that goes on advertising, however fast, gets ``1000 / REASSERT_MS`` times the first three of them a
second, for each address; one that does so once a second, four.
"""

_BROADCAST: Final = b"\xff" * 6
_FRAME_BYTES_MIN: Final = 60


def build(vmac: bytes, vip: IPv4Address) -> bytes:
    """A broadcast ARP request in which sender and target are both ``vip`` at ``vmac``.

    Spec: RFC 9568 §6.4.2 with errata 7947 and 7949 (the target link-layer address is the VMAC too).
    """
    arp = bytes.fromhex("0001080006040001") + vmac + vip.packed + vmac + vip.packed
    return (_BROADCAST + vmac + b"\x08\x06" + arp).ljust(_FRAME_BYTES_MIN, b"\0")
