# SPDX-License-Identifier: Apache-2.0
"""How fast the pair forwards, beside what its wires and the kernel can do: ``make bench-forwarding``.

The gateways of ``gateways.py`` carry the same traffic between the same hosts, each in a lab of its own. All
labs are up at the same time, and are measured by turns; a ratio is the median of the rounds' ratios, because
the machine is not the same from one second to the next. Absolute figures belong to it: read the ratios.

* ``cpu``    small UDP, as fast as one sender can: CPU time of the threads that move frames, for each frame
  that they took from the LAN's TAP, whose queue the sender keeps full
* ``pps``    the same: what arrived
* ``tcp``    one iperf3 stream, as the server received it
* ``conns``  TCP connections: connect, one request, one response, close; 32 at a time
* ``delay``  one small UDP packet at a time, there and back: what a packet waits more than through the copy

Results go to ``build/bench/forwarding.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "netns-lab"), str(REPOSITORY / "tests")]

import topo  # noqa: E402
from bench.gateways import SETTLE_S, BareTap, Gateway, Nft, NftSync, Ours, Tapped, printing, read  # noqa: E402
from bench.results import BUILD, HERE, compile_program, write  # noqa: E402
from sandbox import LabError, wait_until  # noqa: E402

UDP_PORT = 9000
ECHO_PORT = 9001
TCP_PORT = 9002
MANY_FLOWS = 10_000
PARALLEL = 32
PINGS = 3000

Figures = dict[str, float]


# ---- measurements --------------------------------------------------------------------------------------
def udp(gateway: Gateway, flows: int, seconds: float) -> Figures:
    """Small packets, one sender at full speed: those that arrive in a second, and CPU time of each."""
    lab = gateway.lab
    sink = [str(BUILD / "udp_blast"), "recv", str(UDP_PORT), f"{seconds:g}"]
    program, there = str(BUILD / "udp_blast"), [topo.SERVER_ADDRESS, str(UDP_PORT), str(flows)]
    if flows not in gateway.opened:
        lab.run("client", [program, "open", *there], timeout_s=60)
        gateway.opened.add(flows)
    with printing(lab, "server", sink, f"sink-{gateway.name}") as (process, output):
        wait_until(lambda: "ready" in read(output), SETTLE_S, "the sink is ready")
        before = spent(gateway)
        lab.run("client", [program, "send", *there, f"{seconds + 0.3:g}"], timeout_s=seconds + 30)
        after = spent(gateway)
        process.wait(seconds + 30)
        result = json.loads(read(output).splitlines()[-1])
    if not result["received"]:
        raise LabError(f"no UDP packet arrived through {gateway.name}")
    figures = {"pps": result["received"] / result["seconds"]}
    if after != before:
        figures["cpu"] = (after[0] - before[0]) / (after[1] - before[1])
    return figures


def spent(gateway: Gateway) -> tuple[int, int]:
    """CPU time of its threads and frames that they took; nothing of a gateway that is the kernel."""
    return (gateway.cpu_ns(), gateway.frames_taken()) if isinstance(gateway, Tapped) else (0, 0)


def tcp(gateway: Gateway, seconds: float) -> Figures:
    """One iperf3 stream from client to server."""
    lab = gateway.lab
    server = ["iperf3", "--server", "--one-off", "--forceflush"]
    with printing(lab, "server", server, f"iperf3-{gateway.name}") as (_, output):
        wait_until(lambda: "listening" in read(output), SETTLE_S, "iperf3 listens")
        argv = ["iperf3", "--client", topo.SERVER_ADDRESS, "--time", f"{seconds:g}", "--json"]
        answer = json.loads(lab.run("client", argv, timeout_s=seconds + 30).stdout)
    return {"mbps": float(answer["end"]["sum_received"]["bits_per_second"]) / 1e6}


def connections(gateway: Gateway, seconds: float) -> Figures:
    """Connections that were served in a second."""
    program = str(BUILD / "tcp_conns")
    serve = [program, "serve", str(TCP_PORT)]
    load = [program, "load", topo.SERVER_ADDRESS, str(TCP_PORT), str(PARALLEL), f"{seconds:g}"]
    with printing(gateway.lab, "server", serve, f"serve-{gateway.name}") as (_, output):
        wait_until(lambda: "ready" in read(output), SETTLE_S, "the server is ready")
        result = json.loads(gateway.lab.run("client", load, timeout_s=seconds + 30).stdout)
    if result["failed"] > result["done"] / 1000:
        raise LabError(f"{result['failed']} of {result['done']} connections failed through {gateway.name}")
    return {"per_s": result["done"] / result["seconds"]}


def delay(gateway: Gateway, _seconds: float) -> Figures:
    """Half a round trip of one packet at a time."""
    program = str(BUILD / "udp_blast")
    with printing(gateway.lab, "server", [program, "echo", str(ECHO_PORT)], f"echo-{gateway.name}") as (
        _,
        output,
    ):
        wait_until(lambda: "ready" in read(output), SETTLE_S, "the echo server is ready")
        argv = [program, "ping", topo.SERVER_ADDRESS, str(ECHO_PORT), str(PINGS)]
        result = json.loads(gateway.lab.run("client", argv, timeout_s=60).stdout)
    return {"median_us": result["median_us"] / 2, "p99_us": result["p99_us"] / 2}


MEASUREMENTS: dict[str, tuple[Callable[[Gateway, float], Figures], Sequence[type[Gateway]]]] = {
    "udp_1_flow": (lambda gateway, seconds: udp(gateway, 1, seconds), (Ours, BareTap, Nft)),
    f"udp_{MANY_FLOWS}_flows": (
        lambda gateway, seconds: udp(gateway, MANY_FLOWS, seconds),
        (Ours, BareTap, Nft),
    ),
    "tcp_1_stream": (tcp, (Ours, BareTap, Nft)),
    "connections": (connections, (Ours, NftSync, Nft, BareTap)),
    "delay": (delay, (Ours, BareTap, Nft)),
}
"""Measurement -> how, and through what."""


# ---- rows ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Comparison:
    """A figure of ours beside another gateway's; ``bar``: what the ratio should reach."""

    measurement: str
    figure: str
    other: type[Gateway]
    bar: float | None = None
    at_least: bool = True


COMPARISONS = (
    Comparison("udp_1_flow", "cpu", BareTap, 1.06, at_least=False),
    Comparison(f"udp_{MANY_FLOWS}_flows", "cpu", BareTap, 1.06, at_least=False),
    Comparison("udp_1_flow", "pps", Nft, 1.0),
    Comparison(f"udp_{MANY_FLOWS}_flows", "pps", Nft, 1.0),
    Comparison("udp_1_flow", "pps", BareTap),
    Comparison(f"udp_{MANY_FLOWS}_flows", "pps", BareTap),
    Comparison("tcp_1_stream", "mbps", BareTap, 0.9),
    Comparison("tcp_1_stream", "mbps", Nft),
    Comparison("connections", "per_s", NftSync, 1.5),
    Comparison("connections", "per_s", Nft),
    Comparison("connections", "per_s", BareTap),
    Comparison("delay", "median_us", BareTap),
    Comparison("delay", "p99_us", BareTap),
    Comparison("delay", "median_us", Nft),
)


@dataclass(frozen=True, slots=True)
class Row:
    """What a reader wants of a comparison; ``ours`` and ``other`` are medians over the rounds."""

    metric: str
    ours: float
    other_gateway: str
    other: float
    ratio: float
    bar: str
    met: bool | None
    ratios: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = "" if self.met is None else "met" if self.met else "MISSED"
        return (
            f"{self.metric:26} {self.ours:12,.1f} {self.other_gateway:9} {self.other:12,.1f} "
            f"{self.ratio:7.3f} {self.bar:>8} {verdict}"
        )


Taken = dict[tuple[str, str], list[Figures]]
"""Measurement and gateway -> the figures of each round."""


def row(comparison: Comparison, taken: Taken) -> Row:
    ours = [figures[comparison.figure] for figures in taken[comparison.measurement, Ours.name]]
    other = [figures[comparison.figure] for figures in taken[comparison.measurement, comparison.other.name]]
    ratios = [left / right for left, right in zip(ours, other, strict=True)]
    ratio, bar = statistics.median(ratios), comparison.bar
    met = None if bar is None else ratio >= bar if comparison.at_least else ratio <= bar
    return Row(
        metric=f"{comparison.measurement}_{comparison.figure}",
        ours=round(statistics.median(ours), 2),
        other_gateway=comparison.other.name,
        other=round(statistics.median(other), 2),
        ratio=round(ratio, 3),
        bar="" if bar is None else f"{'>=' if comparison.at_least else '<='} {bar:g}",
        met=met,
        ratios=[round(each, 3) for each in ratios],
    )


def measure(wanted: Sequence[str], rounds: int, seconds: float) -> Taken:
    """All measurements through all gateways, by turns."""
    classes = {gateway for name in wanted for gateway in MEASUREMENTS[name][1]}
    taken: Taken = {}
    with contextlib.ExitStack() as stack:
        gateways = {
            each: stack.enter_context(each.running()) for each in sorted(classes, key=lambda c: c.name)
        }
        for turn in range(rounds):
            for name in wanted:
                how, through = MEASUREMENTS[name]
                for each in through if turn % 2 == 0 else reversed(through):
                    figures = how(gateways[each], seconds)
                    taken.setdefault((name, each.name), []).append(figures)
                    text = ", ".join(f"{figure} {value:,.1f}" for figure, value in figures.items())
                    print(f"  round {turn + 1} {name:18} {each.name:9} {text}", flush=True)
    return taken


def compile_programs() -> None:
    for program in ("tapcopy", "udp_blast", "tcp_conns"):
        compile_program(program, [HERE / f"{program}.c"], ["-O2"])


def main() -> int:
    """Measure, print a table, write the file."""
    parser = argparse.ArgumentParser(description="forwarding: the pair, a bare TAP copy, kernel nft")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one measurement")
    parser.add_argument("--only", action="append", choices=MEASUREMENTS, help="these measurements; no file")
    args = parser.parse_args()
    compile_programs()
    wanted = args.only or list(MEASUREMENTS)
    try:
        taken = measure(wanted, args.rounds, args.seconds)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    rows = [row(comparison, taken) for comparison in COMPARISONS if comparison.measurement in wanted]
    print(f"\n{'metric':26} {'ours':>12} {'beside':9} {'':>12} {'ratio':>7} {'bar':>8}")
    print(*rows, sep="\n")
    if not args.only:
        print(f"\n{write('forwarding', [asdict(each) for each in rows])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
