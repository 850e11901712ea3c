# SPDX-License-Identifier: Apache-2.0
"""How fast the pair forwards, beside what its wires and the kernel can do: ``make bench-forwarding``.

Three gateways carry the same traffic between the same hosts of the lab, one after the other in one run,
each in a lab of its own:

* ``ours``      both daemons, sync running; packets go through the ACTIVE node
* ``bare_tap``  ``tapcopy.c``: the same TAPs on the same switches, a copy and no work at all
* ``nft``       the kernel on veth pairs, with one nft SNAT rule

Small UDP is offered as fast as one sender can, and what arrives is counted; TCP is one iperf3 stream. A
figure is the median of the repeats. Absolute numbers belong to a machine: read the ratios. Results go to
``build/bench/forwarding.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from flexha.shell.scheduling import NICE

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "netns-lab"), str(REPOSITORY / "tests")]

import topo  # noqa: E402
from bench.results import BUILD, HERE, compile_program, write  # noqa: E402
from pair import Pair  # noqa: E402
from sandbox import Lab, LabError, Process, wait_until  # noqa: E402

UDP_PORT = 9000
MANY_FLOWS = 1000
GATEWAY = "a"
"""The host that plays the gateway; the pair's own choice is asked for."""
SETTLE_S = 30.0


class Gateway:
    """What stands between LAN and WAN. ``build`` leaves it ready to forward."""

    name = ""

    @contextlib.contextmanager
    def running(self) -> Iterator[Lab]:
        """A lab with this gateway in it."""
        with Lab.start(BUILD / "run", BUILD / f"{self.name}-supervisor.log") as lab, self.built(lab):
            await_forwarding(lab, self.name)
            yield lab

    @contextlib.contextmanager
    def built(self, lab: Lab) -> Iterator[None]:
        """The gateway, for the length of the block."""
        raise NotImplementedError(self.name)


class Ours(Gateway):
    """The pair, as the lab's own configuration has it."""

    name = "ours"

    @contextlib.contextmanager
    def built(self, lab: Lab) -> Iterator[None]:
        pair = Pair(lab, BUILD)
        pair.start()
        pair.wait_settled()
        yield
        pair.stop_all()


class BareTap(Gateway):
    """Two TAPs and a copy. The hosts are told the addresses: nobody answers ARP here."""

    name = "bare_tap"

    def __init__(self, *, offload: bool = False) -> None:
        self._options = ["--offload"] if offload else []
        self.name = "bare_tap_offload" if offload else "bare_tap"

    @contextlib.contextmanager
    def built(self, lab: Lab) -> Iterator[None]:
        # As favoured by the scheduler as flexhad's workers are, or the comparison would be one of priorities.
        argv = ["nice", "-n", str(NICE), str(BUILD / "tapcopy"), *self._options]
        argv += ["tap-lan", topo.LAN_VMAC, mac_of(lab, "client", "eth0")]
        argv += ["tap-wan", topo.WAN_VMAC, mac_of(lab, "isp", "wan0")]
        with printing(lab, GATEWAY, argv, "tapcopy") as (_, output):
            wait_until(lambda: "ready" in read(output), SETTLE_S, "tapcopy is ready")
            for device, switch in (("tap-lan", topo.SWITCHES["lan"]), ("tap-wan", topo.SWITCHES["wan"])):
                ip(lab, GATEWAY, f"link set {device} netns {switch}")
                ip(lab, switch, f"link set {device} master {topo.BRIDGE} up")
            ip(lab, "client", f"neigh replace {topo.LAN_VIP} lladdr {topo.LAN_VMAC} dev eth0 nud permanent")
            ip(lab, "isp", f"neigh replace {topo.WAN_VIP} lladdr {topo.WAN_VMAC} dev wan0 nud permanent")
            # No NAT: the answers must find their way back to the clients' own addresses.
            ip(lab, "isp", f"route add 198.51.100.0/24 via {topo.WAN_VIP}")
            yield


class Nft(Gateway):
    """The kernel of one host, with the pair's addresses: two veth pairs, one rule."""

    name = "nft"
    RULES = f"""
        table ip nat {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                oifname "kwan" snat to {topo.WAN_VIP}
            }}
        }}
    """

    @contextlib.contextmanager
    def built(self, lab: Lab) -> Iterator[None]:
        for device, switch, address in (
            ("klan", topo.SWITCHES["lan"], f"{topo.LAN_VIP}/24"),
            ("kwan", topo.SWITCHES["wan"], f"{topo.WAN_VIP}/29"),
        ):
            ip(lab, GATEWAY, f"link add {device} type veth peer name gateway netns {switch}")
            ip(lab, switch, f"link set gateway master {topo.BRIDGE} up")
            ip(lab, GATEWAY, f"address add {address} dev {device}")
            ip(lab, GATEWAY, f"link set {device} up")
        ip(lab, GATEWAY, f"route add default via {topo.ISP_ADDRESS}")
        lab.run(GATEWAY, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        lab.run(GATEWAY, ["nft", "-f", "-"], input_text=self.RULES)
        yield


# ---- small tools ---------------------------------------------------------------------------------------
def ip(lab: Lab, host: str, words: str) -> str:
    return lab.run(host, ["ip", *words.split()]).stdout


def mac_of(lab: Lab, host: str, device: str) -> str:
    (link,) = json.loads(ip(lab, host, f"-json link show {device}"))
    return str(link["address"])


def read(output: IO[str]) -> str:
    output.seek(0)
    return output.read()


@contextlib.contextmanager
def printing(lab: Lab, host: str, argv: list[str], name: str) -> Iterator[tuple[Process, IO[str]]]:
    """A program in the background, and the file that it prints to."""
    with (BUILD / f"{name}.out").open("w+") as output, lab.spawn(host, argv, stdout=output) as process:
        yield process, output


def await_forwarding(lab: Lab, name: str) -> None:
    """The first packets resolve neighbours and teach the switches; they are not measured."""
    ping = ["ping", "-c", "1", "-W", "1", topo.SERVER_ADDRESS]
    wait_until(
        lambda: lab.run("client", ping, check=False).returncode == 0,
        SETTLE_S,
        f"the server answers through {name}",
    )


# ---- measurements --------------------------------------------------------------------------------------
def udp_pps(lab: Lab, flows: int, seconds: float) -> float:
    """Small packets per second that arrive while one sender offers all it can."""
    sink = [str(BUILD / "udp_blast"), "recv", str(UDP_PORT), f"{seconds:g}"]
    send = [
        str(BUILD / "udp_blast"),
        "send",
        topo.SERVER_ADDRESS,
        str(UDP_PORT),
        str(flows),
        f"{seconds + 0.3:g}",
    ]
    with printing(lab, "server", sink, "sink") as (process, output):
        wait_until(lambda: "ready" in read(output), SETTLE_S, "the sink is ready")
        lab.run("client", send, timeout_s=seconds + 30)
        process.wait(seconds + 30)
        result = json.loads(read(output).splitlines()[-1])
    if not result["received"]:
        raise LabError("no UDP packet arrived")
    return float(result["received"] / result["seconds"])


def tcp_mbps(lab: Lab, seconds: float) -> float:
    """One iperf3 stream from client to server, as the server received it."""
    with printing(lab, "server", ["iperf3", "--server", "--one-off", "--forceflush"], "iperf3") as (
        _,
        output,
    ):
        wait_until(lambda: "listening" in read(output), SETTLE_S, "iperf3 listens")
        argv = ["iperf3", "--client", topo.SERVER_ADDRESS, "--time", f"{seconds:g}", "--json"]
        answer = json.loads(lab.run("client", argv, timeout_s=seconds + 30).stdout)
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e6


METRICS: dict[str, tuple[str, Callable[[Lab, float], float]]] = {
    "udp_small_1_flow_pps": ("bare_tap", lambda lab, seconds: udp_pps(lab, 1, seconds)),
    f"udp_small_{MANY_FLOWS}_flows_pps": ("bare_tap", lambda lab, seconds: udp_pps(lab, MANY_FLOWS, seconds)),
    "tcp_1_stream_mbps": ("bare_tap", tcp_mbps),
    # The same stream of ours, beside a copy that moves 64 KiB frames: what segmentation offload is worth.
    "tcp_1_stream_vs_offload_mbps": ("bare_tap_offload", tcp_mbps),
}
"""Metric -> the bare copy that it is compared with, and its measurement."""


def measure(gateway: Gateway, wanted: list[str], repeats: int, seconds: float) -> dict[str, float]:
    """Median of every wanted metric through one gateway. Equal measurements are taken once."""
    taken: dict[Callable[[Lab, float], float], float] = {}
    with gateway.running() as lab:
        for metric in wanted:
            _, measurement = METRICS[metric]
            if measurement not in taken:
                figures = [measurement(lab, seconds) for _ in range(repeats)]
                taken[measurement] = statistics.median(figures)
                print(f"  {gateway.name:17} {metric:29} {taken[measurement]:12,.0f}", flush=True)
    return {metric: taken[METRICS[metric][1]] for metric in wanted}


@dataclass(frozen=True, slots=True)
class Row:
    """A metric of the three gateways, and the ratios that a reader wants."""

    metric: str
    ours: float
    bare_tap: float
    nft: float
    ratio_bare: float
    ratio_nft: float

    def __str__(self) -> str:
        absolute = f"{self.ours:11,.0f} {self.bare_tap:11,.0f} {self.nft:11,.0f}"
        return f"{self.metric:29} {absolute} {self.ratio_bare:10.2f} {self.ratio_nft:9.2f}"


def row(metric: str, figures: dict[str, dict[str, float]]) -> Row:
    """``figures``: gateway -> metric -> median."""
    bare, _ = METRICS[metric]
    ours, floor, kernel = (figures[gateway][metric] for gateway in ("ours", bare, "nft"))
    return Row(
        metric,
        round(ours, 1),
        round(floor, 1),
        round(kernel, 1),
        round(ours / floor, 3),
        round(ours / kernel, 3),
    )


def compile_programs() -> None:
    for program in ("tapcopy", "udp_blast"):
        compile_program(program, [HERE / f"{program}.c"], ["-O2"])


def main() -> int:
    """Measure all gateways, print a table, write the file."""
    parser = argparse.ArgumentParser(description="forwarding: the pair, a bare TAP copy, kernel nft")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3, help="length of one measurement")
    args = parser.parse_args()
    compile_programs()
    figures: dict[str, dict[str, float]] = {}
    try:
        for gateway in (Ours(), BareTap(), BareTap(offload=True), Nft()):
            wanted = [m for m, (bare, _) in METRICS.items() if gateway.name in {"ours", "nft", bare}]
            figures[gateway.name] = measure(gateway, wanted, args.repeats, args.seconds)
    except LabError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    rows = [row(metric, figures) for metric in METRICS]
    path = write("forwarding", [asdict(figure) for figure in rows])
    print(f"\n{'metric':29} {'ours':>11} {'bare TAP':>11} {'nft':>11} {'ours/bare':>10} {'ours/nft':>9}")
    print(*rows, sep="\n")
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
