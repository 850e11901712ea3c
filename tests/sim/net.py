# SPDX-License-Identifier: Apache-2.0
"""A faulty network between two nodes: datagram paths, and one TCP connection over the first of them.

Each direction of each path has a generator of its own (``chance.py``), so a seed names a run.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from sim.chance import Chance
from sim.clock import Clock

from flexha.units import NS_PER_MS

PATHS = ("xc", "lan", "wan")
PORTS = ("lan", "wan")
"""The paths that are ports with a virtual router, each with a switch."""
KILLED, RESET = "closed by the kernel of the peer", "reset by peer"
"""Ends of a connection that nobody has announced."""
VMAC_PREFIX = b"\x00\x00\x5e\x00\x01"


@dataclass
class Wire:
    """One direction of one path; index 0 of a pair is from node a to node b."""

    cut: bool = False
    loss: float = 0.0
    duplicate: float = 0.0
    delay_ms: tuple[float, float] = (0.05, 0.3)

    @property
    def is_healthy(self) -> bool:
        """Nothing of what is sent gets lost or late."""
        return not self.cut and self.loss == 0.0 and self.delay_ms[1] < 5


class Network:
    """All paths, both directions."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self.clock = clock
        self._chance = {path: [chance.of(f"wire/{path}/{i}") for i in range(2)] for path in PATHS}
        self.tcp = [chance.of(f"tcp/{i}") for i in range(2)]
        """For the two directions of the connection, which the datagrams of xc are not to disturb."""
        self.wires = {path: (Wire(), Wire()) for path in PATHS}
        self.switches = {port: Switch() for port in PORTS}
        self.unplugged: set[tuple[int, str]] = set()
        """Nodes, and their ports that have no wire."""

    def heal(self) -> None:
        """Every path as new."""
        self.wires = {path: (Wire(), Wire()) for path in PATHS}

    def has_healthy_path(self) -> bool:
        """Whether the nodes can hear each other for certain."""
        return any(
            one.is_healthy and other.is_healthy
            for path, (one, other) in self.wires.items()
            if not self.is_unplugged(path)
        )

    def is_unplugged(self, path: str) -> bool:
        """Whether either end lacks its wire."""
        return bool(self.unplugged) and ((0, path) in self.unplugged or (1, path) in self.unplugged)

    def has_healthy_ports(self) -> bool:
        """Whether every frame reaches the switches in time."""
        return not self.unplugged and all(wire.is_healthy for port in PORTS for wire in self.wires[port])

    def send_frame(self, port: str, sender: int, source: bytes, deliver: Callable[[], None]) -> None:
        """A frame through the port's switch, which learns from it."""
        wire = self.wires[port][sender]

        def arrive() -> None:
            if self.wires[port][sender] is wire:  # else it is late, on a wire that was slow and is no more
                self.switches[port].learn(source, sender)
            if (1 - sender, port) not in self.unplugged:
                deliver()

        if (sender, port) not in self.unplugged:
            self._send(port, sender, arrive)

    def send(self, path: str, sender: int, deliver: Callable[[], None]) -> None:
        """A datagram between the nodes."""
        if not self.is_unplugged(path):
            self._send(path, sender, deliver)

    def passes(self, path: str, sender: int, rng: random.Random) -> bool:
        """Whether a segment of a connection arrives at the first attempt."""
        wire = self.wires[path][sender]
        return not (wire.cut or self.is_unplugged(path)) and rng.random() >= wire.loss

    def hears(self, index: int) -> bool:
        """Whether ``index`` hears the other node for certain."""
        return any(
            pair[1 - index].is_healthy for path, pair in self.wires.items() if not self.is_unplugged(path)
        )

    def is_deaf(self, index: int) -> bool:
        """Whether nothing of the other node reaches ``index``."""
        return all(pair[1 - index].cut or self.is_unplugged(path) for path, pair in self.wires.items())

    def _send(self, path: str, sender: int, deliver: Callable[[], None]) -> None:
        """It arrives, late, twice, or never."""
        wire, rng = self.wires[path][sender], self._chance[path][sender]
        if wire.cut or (wire.loss and rng.random() < wire.loss):
            return
        for _ in range(2 if wire.duplicate and rng.random() < wire.duplicate else 1):
            self.clock.after(rng.uniform(*wire.delay_ms) * NS_PER_MS, deliver)


class Switch:
    """The switch of a port: what is for the virtual MAC goes where the last frame from it came from."""

    def __init__(self) -> None:
        self.node: int | None = None
        """Behind whose port the virtual MAC is."""
        self.floods = False
        """It has known that, and does no more: what is for the virtual MAC goes to both."""

    def learn(self, frame_source: bytes, node: int) -> None:
        """A frame has come in from ``node``."""
        if frame_source.startswith(VMAC_PREFIX):
            self.node, self.floods = node, False

    def forget(self, node: int | None = None) -> None:
        """It ages, it is restarted, or the port of ``node`` has lost its link."""
        if self.node is not None and node in (None, self.node):
            self.node, self.floods = None, True


class Connection:
    """A TCP connection over xc: bytes in order, stalled while the path is cut, cut anywhere on delivery."""

    RETRY_MS = (20, 200)

    def __init__(self, network: Network) -> None:
        self.network = network
        self.open = [True, True]
        """Whether each end still uses it."""
        self.on_data: list[Callable[[bytes], None]] = []
        self.on_close: list[Callable[[str], None]] = []
        self._flight: tuple[deque[bytes | None], deque[bytes | None]] = (deque(), deque())
        self.killed = [False, False]
        """Whether each end was closed by the kernel of a dead process."""
        self._busy = [False, False]

    def send(self, sender: int, data: bytes) -> None:
        """Bytes from one end; they outlive a cut of the path, not the death of the other end."""
        if self.open[sender]:
            self._flight[sender].append(data)
            self._pump(sender)

    def close(self, sender: int) -> None:
        """One end closes: the other hears of it behind all bytes, if the path lives."""
        if self.open[sender]:
            self.open[sender] = False
            self._flight[sender].append(None)
            self._pump(sender)

    def _pump(self, sender: int) -> None:
        if self._busy[sender] or not self._flight[sender]:
            return
        self._busy[sender] = True
        network, wires, rng = self.network, self.network.wires["xc"], self.network.tcp[sender]
        if wires[0].cut or wires[1].cut:
            network.clock.after(rng.uniform(*self.RETRY_MS) * NS_PER_MS, lambda: self._again(sender))
            return
        wire = wires[sender]
        delay_ms = rng.uniform(*wire.delay_ms)
        if rng.random() < wire.loss:
            delay_ms += 200  # a retransmission
        network.clock.after(delay_ms * NS_PER_MS, lambda: self._arrive(sender))

    def _again(self, sender: int) -> None:
        self._busy[sender] = False
        self._pump(sender)

    def _arrive(self, sender: int) -> None:
        self._busy[sender] = False
        receiver = 1 - sender
        item = self._flight[sender].popleft()
        if not self.open[receiver]:
            self._flight[sender].clear()
            if self.open[sender]:  # a reset comes back
                self.open[sender] = False
                self.on_close[sender](RESET)
            return
        if item is None:
            self.open[receiver] = False
            self.on_close[receiver](KILLED if self.killed[sender] else "closed by peer")
            return
        joined = item
        while self._flight[sender] and self._flight[sender][0] is not None and len(joined) < 65536:
            more = self._flight[sender].popleft()
            assert more is not None
            joined += more
        rng = self.network.tcp[sender]
        cut = rng.randrange(1, len(joined) + 1) if rng.random() < 0.2 else len(joined)
        if cut < len(joined):
            self._flight[sender].appendleft(joined[cut:])
        self.on_data[receiver](joined[:cut])
        self._pump(sender)
