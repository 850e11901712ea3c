# SPDX-License-Identifier: Apache-2.0
"""TCP connections and a flow of datagrams, whose sessions both nodes have."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from pair import Pair
from sandbox import Lab, wait_until
from traffic import TcpFlows, UdpProbe


@contextlib.contextmanager
def through(lab: Lab, pair: Pair, run: int, flows: int) -> Iterator[tuple[TcpFlows, UdpProbe]]:
    """So many connections, and a datagram each millisecond with its echo, which go through the pair."""
    with contextlib.ExitStack() as stack:
        tcp = TcpFlows(lab, run, flows=flows)
        stack.callback(tcp.close)
        tcp.wait_open()
        udp = UdpProbe(lab, run)
        stack.callback(udp.close)
        wait_until(lambda: pair.holds(udp.source), 10, "both nodes have its session")
        yield tcp, udp
