# SPDX-License-Identifier: Apache-2.0
"""What it costs to keep the peer's table like one's own, between two real daemons: ``make bench-sync``.

Each stage is a lab of its own, with the traffic of ``udp_sessions.c`` and ``tcp_lives.c``:

* ``million``     sessions as fast as ``MILLION_PER_S`` until there are a million; then PASSIVE starts anew
  and gets them all at once; and once more, while connections come and go
* ``whole``       short TCP connections in a table so small that each new one makes an old one go, so that
  creations, changes and deletes come at the same rate; commit ``bounded``, the default
* ``async``       sessions that only begin; and the same connections without waiting for the peer
* ``lone``        the connections of ``whole`` through a node without a peer: what packets cost by themselves;
  ``whole`` and ``lone`` take turns, because what a pair takes beyond a lone node is a small difference of two
  large figures, and both follow the machine's mood: its figure is the median of ``ROUNDS`` differences
* ``conntrackd``  nft and conntrackd (FTFW) with the same traffic, at a rate that they keep

Bytes are those of the cross-connect, both ways: IP, TCP and TLS headers, acknowledgements and heartbeats are
in them, Ethernet headers are not, and segmentation is the kernel's, so that each segment counts its headers.
CPU time is that of the whole process; the workers of these daemons sleep at once (``poll_us = 0``) but for
``million``, because a thread that polls is busy whatever it does. ``sync_cpu_us_per_life`` is what a pair
takes beyond a lone node; packets through TAPs take the rest.

Results go to ``build/bench/sync.json``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "netns-lab"), str(REPOSITORY / "tests")]

import topo  # noqa: E402
from bench.bar import Bar  # noqa: E402
from bench.meters import Carried, Cpu, rss_mib  # noqa: E402
from bench.results import write  # noqa: E402
from bench.sync_lab import Conntrackd, Settings, sync_lab, sync_pair, traffic_of  # noqa: E402
from bench.sync_traffic import LivesLostError, check_lives, compile_generators  # noqa: E402
from bench.sync_window import Window, pid_of, spend, window  # noqa: E402
from pair import Node, Pair  # noqa: E402
from sandbox import Lab, LabError, wait_until  # noqa: E402

MILLION = 1_000_000
MILLION_PER_S = 56_000
ENDPOINTS = 50_000
"""Inside endpoints of UDP sessions: as many external ports of the one pool's 64,512."""
SUSTAINED_S = 11.0
PER_S = 10_000
CONNTRACKD_PER_S = 2_000
UNDER_BULK_PER_S, UNDER_BULK_S = 2_000, 12
WARM_S = 4.5
"""Until the small table is full, and conntrackd's first connections are forgotten."""
WINDOW_S = 8.0
OPEN_S = 4.0
SMALL_TABLE = 32_768
SYNC_S = 60.0
ROUNDS = 5

Figures = dict[str, float]


# ---- a million sessions --------------------------------------------------------------------------------
def million(_per_s: int) -> Figures:
    """Sustained creation, memory, and the bulk."""
    keys = {"fastpath": "flow_cap = 1200000", "timeouts": "udp_s = 3600"}
    with sync_lab("sync-million") as lab, sync_pair(lab, Settings("sync-million", keys)) as pair:
        active = pair.active()
        passive = pair.peer(active)
        with traffic_of(lab).udp(MILLION, MILLION_PER_S, ENDPOINTS) as run:
            spend(2)
            stretch = window(lab, pair, SUSTAINED_S)
            run.result()
        figures = sustained(stretch, passive.name)
        wait_until(lambda: flows(passive) == flows(active), SYNC_S, "the peer has every session")
        figures["live_sessions"] = flows(active)
        figures |= bulk(lab, pair, active, passive)
        figures |= under_bulk(lab, pair, passive)
        for role, node in (("active", active), ("passive", passive)):
            figures[f"rss_{role}_mib"] = rss_mib(lab, pid_of(node))
    return figures


def flows(node: Node) -> int:
    """Sessions in a node's table."""
    status = node.status()
    return 0 if status is None else int(status["flows"]["flows"])


def sustained(stretch: Window, passive: str) -> Figures:
    """Of a stretch of nothing but new sessions."""
    live = (stretch.end.imported - stretch.begin.imported) / stretch.seconds
    return {
        "sustained_per_s": min(live, stretch.created / stretch.seconds),
        "sustained_main_share_active": stretch.main_share(stretch.active),
        "sustained_main_share_passive": stretch.main_share(passive),
        "sustained_losses": stretch.losses,
        "sustained_lag_median_us": stretch.lag_us(0.5),
        "sustained_lag_p99_us": stretch.lag_us(0.99),
    }


def bulk(lab: Lab, pair: Pair, active: Node, passive: Node) -> Figures:
    """PASSIVE starts with an empty table."""
    held = flows(active)
    passive.stop()
    before = Carried.by(lab, active.name, topo.XC_DEVICE)
    passive.start()
    wait_until(pair.settled, SYNC_S, "the bulk is complete")
    carried = Carried.by(lab, active.name, topo.XC_DEVICE) - before
    if flows(passive) < held:
        raise LabError(f"after the bulk the peer has {flows(passive)} of {held} sessions")
    connected, synced = logged(passive, "sync.connected "), logged(passive, "role ", " to=PASSIVE ")
    return {"bulk_s": (synced - connected).total_seconds(), "bulk_bytes_per_flow": carried.bytes / held}


def under_bulk(lab: Lab, pair: Pair, passive: Node) -> Figures:
    """What connections notice of a bulk: PASSIVE starts once more while they come and go."""
    passive.stop()
    with traffic_of(lab).tcp(UNDER_BULK_PER_S, UNDER_BULK_S, whole=True) as run:
        spend(1)
        passive.start()
        wait_until(pair.settled, SYNC_S, "the bulk is complete")
        if run.over():
            raise LabError("the bulk took longer than the connections beside it")
        result = run.result()
    check_lives(result, UNDER_BULK_PER_S, whole=True)
    return {
        "under_bulk_lost": result["begun"] - result["finished"],
        "under_bulk_first_packet_us": result["first_median_us"],
        "under_bulk_first_packet_p99_us": result["first_p99_us"],
    }


def logged(node: Node, event: str, words: str = "") -> datetime:
    """When a daemon has first logged an event since its last start."""
    _, _, life = node.log.read_text().rpartition(" daemon.starting ")
    for line in life.splitlines():
        if f" {event}" in line and words in line:
            return datetime.fromisoformat(line.split()[0])
    raise LabError(f"{node.log} tells nothing of {event}{words}")


# ---- ten thousand a second -----------------------------------------------------------------------------
def whole_lives(settings: Settings, per_s: int) -> tuple[Window, dict[str, Any]]:
    """Connections in a small table: the steady stretch, and what the generator saw."""
    with (
        sync_lab(settings.name) as lab,
        sync_pair(lab, settings) as pair,
        traffic_of(lab).tcp(per_s, int(WARM_S * PER_S / per_s + WINDOW_S + 1), whole=True) as run,
    ):
        spend(WARM_S * PER_S / per_s)
        stretch = window(lab, pair, WINDOW_S)
        result = run.result()
    check_lives(result, per_s, whole=True)
    if not 0.9 < stretch.counted("flows_closed") / stretch.created < 1.1:
        raise LabError("the table was not in a steady state: deletes did not keep up with creations")
    return stretch, result


def small(name: str, *, alone: bool = False) -> Settings:
    return Settings(name, {"fastpath": f"flow_cap = {SMALL_TABLE}\npoll_us = 0"}, alone=alone)


def whole(per_s: int) -> Figures:
    """What a life costs on the wire and in CPU time, and how long its beginning takes to be safe."""
    stretch, result = whole_lives(small("sync-whole"), per_s)
    return {
        "life_bytes": stretch.bytes_per_session(),
        "whole_cpu_us_per_life": stretch.cpu_us_per_session(),
        "main_us_per_life": stretch.main_us_per_session(),
        "lag_median_us": stretch.lag_us(0.5),
        "lag_p99_us": stretch.lag_us(0.99),
        "losses": stretch.losses,
        "first_packet_bounded_us": result["first_median_us"],
    }


def lone(per_s: int) -> Figures:
    """The same through a node that has nobody to tell."""
    stretch, result = whole_lives(small("sync-lone", alone=True), per_s)
    return {
        "lone_cpu_us_per_life": stretch.cpu_us_per_session(),
        "first_packet_lone_us": result["first_median_us"],
    }


def asynchronous(per_s: int) -> Figures:
    """Sessions that begin, and no more; then connections whose first packet does not wait for the peer."""
    keys = {"fastpath": "flow_cap = 262144\npoll_us = 0", "sync": 'commit = "async"'}
    with sync_lab("sync-async") as lab, sync_pair(lab, Settings("sync-async", keys)) as pair:
        traffic = traffic_of(lab)
        with traffic.udp(int(per_s * (OPEN_S + 1.5)), per_s, ENDPOINTS) as run:
            spend(0.5)
            created = window(lab, pair, OPEN_S)
            run.result()
        with traffic.tcp(per_s, int(OPEN_S + 1.5), whole=False) as run:
            spend(0.5)
            opened = window(lab, pair, OPEN_S)
            check_lives(run.result(), per_s, whole=False)
        with traffic.tcp(per_s, int(OPEN_S), whole=True) as run:
            result = run.result()
            check_lives(result, per_s, whole=True)
    return {
        "created_bytes": created.bytes_per_session(),
        "opened_bytes": opened.bytes_per_session(),
        "first_packet_async_us": result["first_median_us"],
    }


# ---- conntrackd ----------------------------------------------------------------------------------------
def conntrackd(_per_s: int) -> Figures:
    """The same traffic, slower, through kernel nft with conntrackd on both nodes."""
    with Conntrackd.running() as gateway:
        assert isinstance(gateway, Conntrackd)
        lab, traffic, rate = gateway.lab, gateway.traffic(), CONNTRACKD_PER_S

        def stretch(seconds: float) -> tuple[float, float]:
            """Bytes and CPU us of a session."""
            begin, cpu_ns, carried = time.monotonic(), processes(), Carried.by(lab, "a", topo.XC_DEVICE)
            spend(seconds)
            n = (time.monotonic() - begin) * rate
            octets = (Carried.by(lab, "a", topo.XC_DEVICE) - carried).bytes
            return octets / n, (processes() - cpu_ns) / 1000 / n

        def processes() -> int:
            return sum(Cpu.of(lab, pid).total for pid in gateway.pids().values())

        with traffic.udp(int(rate * (OPEN_S + 1.5)), rate, ENDPOINTS) as run:
            spend(0.5)
            created, _ = stretch(OPEN_S)
            run.result()
        with traffic.tcp(rate, int(OPEN_S + 1.5), whole=False) as run:
            spend(0.5)
            opened, _ = stretch(OPEN_S)
            check_lives(run.result(), rate, whole=False)
        with traffic.tcp(rate, int(WARM_S + WINDOW_S + 1), whole=True) as run:
            spend(WARM_S)
            life, cpu_us = stretch(WINDOW_S)
            check_lives(run.result(), rate, whole=True)
    return {
        "conntrackd_created_bytes": created,
        "conntrackd_opened_bytes": opened,
        "conntrackd_life_bytes": life,
        "conntrackd_cpu_us_per_life": cpu_us,
    }


STAGES: dict[str, Callable[[int], Figures]] = {
    "million": million,
    "whole": whole,
    "lone": lone,
    "async": asynchronous,
    "conntrackd": conntrackd,
}
TURNS = ("whole", "lone")
"""Stages that are measured ``ROUNDS`` times, one after the other, each time anew."""


TRIES = 3


def measure(stage: str, per_s: int) -> Figures:
    """A stage's figures. It is repeated when connections were lost: then it has measured something else."""
    for left in reversed(range(TRIES)):
        began = time.monotonic()
        try:
            return STAGES[stage](per_s)
        except LivesLostError as error:
            if not left:
                raise
            print(f"  stage {stage} again: {error}", flush=True)
        finally:
            print(f"  stage {stage}: {time.monotonic() - began:.0f} s", flush=True)
    raise AssertionError("the last try returns or raises")


def measure_all(stages: Sequence[str], per_s: int) -> Figures:
    """The figures of these stages, in the order of ``STAGES``."""
    turns = [stage for stage in TURNS if stage in stages]
    figures: Figures = {}
    for stage in (stage for stage in STAGES if stage in stages):
        if stage not in turns:
            figures |= measure(stage, per_s)
        elif stage == turns[0]:
            rounds = [measure_turns(turns, per_s) for _ in range(ROUNDS if len(turns) > 1 else 1)]
            figures |= {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
            if len(rounds) > 1:
                beyond = [each["sync_cpu_us_per_life"] for each in rounds]
                figures |= {"sync_cpu_us_least": min(beyond), "sync_cpu_us_most": max(beyond)}
    return figures


def measure_turns(turns: Sequence[str], per_s: int) -> Figures:
    """One round, and what its stages say together."""
    figures: Figures = {}
    for stage in turns:
        figures |= measure(stage, per_s)
    if set(TURNS) <= set(turns):
        figures["sync_cpu_us_per_life"] = figures["whole_cpu_us_per_life"] - figures["lone_cpu_us_per_life"]
    return figures


# ---- rows ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Meaning:
    """What a figure is."""

    unit: str
    text: str
    bar: Bar | None = None


def at_most(value: float) -> Bar:
    return Bar(value, at_least=False)


MEANINGS: dict[str, Meaning] = {
    "live_sessions": Meaning("sessions", "in both tables", Bar(MILLION * 0.98, at_least=True)),
    "bulk_s": Meaning("s", "from PASSIVE's connection to all live there, and digests agreed", at_most(3)),
    "bulk_bytes_per_flow": Meaning("bytes", "on the wire", at_most(60)),
    "under_bulk_lost": Meaning("connections", "2,000 a second come and go while a bulk is on", at_most(0)),
    "under_bulk_first_packet_us": Meaning(
        "us", "median delay of their SYN through the gateway", at_most(2000)
    ),
    "under_bulk_first_packet_p99_us": Meaning("us", "the same, 99th percentile"),
    "rss_active_mib": Meaning("MiB", "resident memory, a million sessions", at_most(350)),
    "rss_passive_mib": Meaning("MiB", "resident memory, a million sessions", at_most(350)),
    "sustained_per_s": Meaning(
        "1/s", "sessions created, and live in the peer's table", Bar(50_000, at_least=True)
    ),
    "sustained_main_share_active": Meaning("cores", "the main thread (Python), meanwhile", at_most(0.5)),
    "sustained_main_share_passive": Meaning("cores", "the main thread (Python), meanwhile", at_most(0.5)),
    "sustained_losses": Meaning("records", "rings that were full, meanwhile", at_most(0)),
    "sustained_lag_median_us": Meaning("us", "creation to acknowledgement, meanwhile"),
    "sustained_lag_p99_us": Meaning("us", "creation to acknowledgement, meanwhile"),
    "created_bytes": Meaning("bytes", "on the wire, a UDP session that begins", at_most(64)),
    "opened_bytes": Meaning("bytes", "on the wire, a TCP session up to its handshake's end"),
    "life_bytes": Meaning("bytes", "on the wire, a TCP session from SYN to delete", at_most(128)),
    "lag_median_us": Meaning("us", "creation to acknowledgement", at_most(2000)),
    "lag_p99_us": Meaning("us", "creation to acknowledgement", at_most(10_000)),
    "losses": Meaning("records", "rings that were full", at_most(0)),
    "first_packet_added_us": Meaning("us", "median delay of the SYN, bounded less async", at_most(2000)),
    "first_packet_bounded_us": Meaning("us", "median delay of the SYN through the gateway"),
    "first_packet_async_us": Meaning("us", "median delay of the SYN through the gateway"),
    "first_packet_lone_us": Meaning("us", "median delay of the SYN through the gateway"),
    "sync_cpu_us_per_life": Meaning("us", "both daemons, less a lone node's for the packets", at_most(20)),
    "sync_cpu_us_least": Meaning("us", "the same, in the round that had least"),
    "sync_cpu_us_most": Meaning("us", "the same, in the round that had most"),
    "whole_cpu_us_per_life": Meaning("us", "both daemons, packets included"),
    "lone_cpu_us_per_life": Meaning("us", "a lone node: eight packets, policy, NAT, table"),
    "main_us_per_life": Meaning("us", "the main threads (Python) of both daemons"),
    "conntrackd_created_bytes": Meaning("bytes", "conntrackd: a UDP session that begins"),
    "conntrackd_opened_bytes": Meaning("bytes", "conntrackd: a TCP session up to its handshake's end"),
    "conntrackd_life_bytes": Meaning("bytes", "conntrackd: a TCP session from SYN to delete"),
    "conntrackd_cpu_us_per_life": Meaning("us", "conntrackd on both nodes, without the kernel's packets"),
}
"""Figure -> what it is, in the order of the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """A figure and its bar."""

    name: str
    value: float
    unit: str
    bar: str | None
    met: bool | None
    meaning: str

    def __str__(self) -> str:
        verdict = "" if self.met is None else "met" if self.met else "MISSED"
        held = f"{self.bar or '':>11} {verdict:6}"
        return f"{self.name:29} {self.value:12,.6g} {self.unit:8} {held}  {self.meaning}"


def derived(figures: Figures) -> Figures:
    """What two stages say together."""
    more = dict(figures)
    if {"first_packet_bounded_us", "first_packet_async_us"} <= figures.keys():
        more["first_packet_added_us"] = figures["first_packet_bounded_us"] - figures["first_packet_async_us"]
    return more


def rows(figures: Figures) -> Iterator[Row]:
    """In the order of ``MEANINGS``."""
    for name, meaning in MEANINGS.items():
        if name not in figures:
            continue
        value = round(figures[name], 3)
        bar = meaning.bar
        yield Row(
            name=name,
            value=value,
            unit=meaning.unit,
            bar=None if bar is None else str(bar),
            met=None if bar is None else bar.met(value),
            meaning=meaning.text,
        )


def main() -> int:
    """Measure, print a table, write the file."""
    parser = argparse.ArgumentParser(
        description="sync: bulk, rate, bytes, lag and CPU time, beside conntrackd"
    )
    parser.add_argument("--only", action="append", choices=STAGES, help="these stages; no file")
    parser.add_argument(
        "--per-s", type=int, default=PER_S, help="connections a second; if not 10,000, no file"
    )
    args = parser.parse_args()
    compile_generators()
    try:
        figures = measure_all(args.only or tuple(STAGES), args.per_s)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    table = list(rows(derived(figures)))
    print(*table, sep="\n")
    if not args.only and args.per_s == PER_S:
        print(f"\n{write('sync', [asdict(row) for row in table])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
