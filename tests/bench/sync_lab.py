# SPDX-License-Identifier: Apache-2.0
"""The pair of the sync benchmark: the lab's own, with room for a million sessions of made-up hosts.

``raw_wire.h`` says who those are. Behind the LAN's client stands a router's network for the inside ones, and
the ISP's router throws away what goes to the outside ones, so that no kernel answers beside the generators.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import topo
from bench.gateways import NODE, NftSync, await_forwarding, ip, mac_of
from bench.meters import cut_segments
from bench.results import BUILD
from bench.sync_traffic import Traffic
from pair import Pair, configuration_text
from sandbox import Lab, LabError, wait_until

INSIDE_PREFIX = "10.0.0.0/8"
OUTSIDE_PREFIX = "198.18.0.0/15"
READY_S = 60.0

ROUTES = f"""
[[routes]]
prefix = "{INSIDE_PREFIX}"
via = "{topo.CLIENT_ADDRESSES[0]}"
port = "lan"
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """What differs from the lab's configuration."""

    name: str
    keys: Mapping[str, str] = field(default_factory=dict)
    """Section -> its lines."""
    alone: bool = False
    """Node a has no peer."""

    def text(self) -> str:
        """The pair's file."""
        text = configuration_text()
        if self.alone:
            text = text[: text.index("[nodes.b]")]
        for section, lines in self.keys.items():
            head = f"[{section}]\n"
            text = text.replace(head, f"{head}{lines}\n") if head in text else f"{text}\n{head}{lines}\n"
        return text + ROUTES


@contextlib.contextmanager
def sync_lab(name: str) -> Iterator[Lab]:
    """A lab whose hosts know of the generators' networks; its cross-connect carries what a wire would."""
    with Lab.start(BUILD / f"run-{name}", BUILD / f"{name}-supervisor.log") as lab:
        prepare(lab)
        yield lab


def prepare(lab: Lab) -> None:
    """The same for a lab that somebody else has started."""
    ip(lab, "isp", f"route add blackhole {OUTSIDE_PREFIX}")
    for node in topo.NODES:
        cut_segments(lab, node, topo.XC_DEVICE)


@contextlib.contextmanager
def sync_pair(lab: Lab, settings: Settings) -> Iterator[Pair]:
    """Both daemons, or node a alone, ready to forward; ended with the block."""
    directory = BUILD / settings.name
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / "pair.toml"
    config.write_text(settings.text())
    pair = Pair(lab, directory, config)
    pair.start()
    if settings.alone:
        wait_until(lambda: pair[NODE].role() == "ACTIVE", READY_S, "the lone node is ACTIVE")
    else:
        pair.wait_settled(READY_S)
    await_forwarding(lab, settings.name)
    yield pair
    pair.stop_all()


def traffic_of(lab: Lab) -> Traffic:
    """Generators whose frames go to the pair's virtual routers."""
    return Traffic(lab, topo.LAN_VMAC, topo.WAN_VMAC)


class Conntrackd(NftSync):
    """nft and conntrackd for the same traffic: what has ended is forgotten, and told, after ``OVER_S``."""

    OVER_S = 2

    @contextlib.contextmanager
    def built(self) -> Iterator[None]:
        prepare(self.lab)
        with super().built():
            ip(self.lab, NODE, f"route add {INSIDE_PREFIX} via {topo.CLIENT_ADDRESSES[0]}")
            key = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait"
            self.lab.run(NODE, ["sh", "-c", f"echo {self.OVER_S} > {key}"])
            yield

    def traffic(self) -> Traffic:
        """Generators whose frames go through this gateway."""
        return Traffic(self.lab, mac_of(self.lab, NODE, "klan"), mac_of(self.lab, NODE, "kwan"))

    def pids(self) -> dict[str, int]:
        """Of conntrackd, by node."""
        pids = {p["ns"]: int(p["pid"]) for p in self.lab.processes() if p["argv"][0] == "conntrackd"}
        if set(pids) != set(topo.NODES):
            raise LabError(f"conntrackd does not run on each node: {pids}")
        return pids
