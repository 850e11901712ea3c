# SPDX-License-Identifier: Apache-2.0
"""A stretch of time of a pair under load: what it did in between, and what that cost, by session."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import topo
from bench.meters import Carried, Cpu
from pair import Node, Pair
from sandbox import Lab, LabError

LOSSES = ("events_lost", "punts_lost")
"""Counters of a worker that say that a ring was full."""


def pid_of(node: Node) -> int:
    """A daemon that must be there."""
    pid = node.pid
    if pid is None:
        raise LabError(f"the daemon of node {node.name} has ended; see {node.log}")
    return pid


def spend(seconds: float) -> None:
    """Let the traffic run; a rate is a number over a time."""
    time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Moment:
    """Counters of everything at one moment, as far as one process can read them at once."""

    t_s: float
    carried: Carried
    cpu: Mapping[str, Cpu]
    workers: Mapping[str, int]
    """Sums over the ACTIVE node's workers."""
    imported: int
    """Records that PASSIVE has taken so far."""
    lag: tuple[int, ...]

    @classmethod
    def of(cls, lab: Lab, pair: Pair) -> Moment:
        """Now."""
        active = pair.active()
        counters = {name: node.request("counters") for name, node in pair.nodes.items()}
        own = counters[active.name]
        others = [c for name, c in counters.items() if name != active.name]
        return cls(
            t_s=time.monotonic(),
            carried=Carried.by(lab, active.name, topo.XC_DEVICE),
            cpu={name: Cpu.of(lab, pid_of(node)) for name, node in pair.nodes.items()},
            workers=summed(own["workers"]),
            imported=sum(summed(c["workers"])["flows_imported"] for c in others),
            lag=tuple(histogram(own, "lag")),
        )


def summed(workers: list[dict[str, int]]) -> dict[str, int]:
    """Counters over all workers."""
    return {name: sum(worker[name] for worker in workers) for name in workers[0]}


def histogram(counters: Mapping[str, Any], name: str) -> list[int]:
    """One of the sync's histograms, over all workers."""
    return [sum(buckets) for buckets in zip(*(each[name] for each in counters["sync"]), strict=True)]


@dataclass(frozen=True, slots=True)
class Window:
    """Between two moments."""

    begin: Moment
    end: Moment
    active: str
    lag_bounds_us: tuple[float, ...]

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end.t_s - self.begin.t_s

    def counted(self, name: str) -> int:
        """How far a counter of the ACTIVE node's workers has come."""
        return self.end.workers[name] - self.begin.workers[name]

    @property
    def created(self) -> int:
        """Sessions that began."""
        created = self.counted("flows_created")
        if not created:
            raise LabError("no session began: the gateway does not forward")
        return created

    @property
    def losses(self) -> int:
        """What rings had no room for."""
        return sum(self.counted(name) for name in LOSSES)

    def bytes_per_session(self) -> float:
        """On the cross-connect, both ways, from the IP header on."""
        return (self.end.carried - self.begin.carried).bytes / self.created

    def cpu(self, node: str) -> Cpu:
        """Of a daemon."""
        return self.end.cpu[node] - self.begin.cpu[node]

    def cpu_us_per_session(self) -> float:
        """Of all daemons together."""
        return sum(self.cpu(node).total for node in self.end.cpu) / 1000 / self.created

    def main_us_per_session(self) -> float:
        """Of their main threads, which run Python."""
        return sum(self.cpu(node).main for node in self.end.cpu) / 1000 / self.created

    def main_share(self, node: str) -> float:
        """How much of one core a daemon's main thread took."""
        return self.cpu(node).main / 1e9 / self.seconds

    def lag_us(self, quantile: float) -> float:
        """Creation to acknowledgement: that share of sessions had less.

        Within its bucket, a quarter of an octave, sessions count as evenly spread, as in Prometheus.
        """
        buckets = [after - before for before, after in zip(self.begin.lag, self.end.lag, strict=True)]
        wanted, seen, lower = quantile * sum(buckets), 0, 0.0
        for count, upper in zip(buckets, self.lag_bounds_us, strict=True):
            if count and seen + count >= wanted:
                return lower + (upper - lower) * (wanted - seen) / count
            seen += count
            lower = upper
        raise LabError("no session was acknowledged")


def window(lab: Lab, pair: Pair, seconds: float) -> Window:
    """The next ``seconds``."""
    begin = Moment.of(lab, pair)
    spend(seconds)
    end = Moment.of(lab, pair)
    active = pair.active()
    return Window(begin, end, active.name, tuple(active.request("counters")["lag_bounds_us"]))
