# SPDX-License-Identifier: Apache-2.0
"""What a packet and a session cost in the fast path, without I/O: ``make bench-fastpath``.

Builds ``bench_fastpath.c`` with the fast path's own sources and flags, runs it, and writes
``build/bench/fastpath.json``: ``rows`` for packets of known sessions, ``figures`` for everything else. Beside
a figure stands the bar that it is held against, for a machine on which a bare lookup and rewrite (the probe,
measured in the same run) takes 44 ns at a million flows in random order.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "csrc")]

from bench.bar import Bar  # noqa: E402
from bench.results import HERE, compile_program, write  # noqa: E402
from ffi_build import BASELINE  # noqa: E402

MIXED = "mixed"


PACKET_BARS = {(1000, "random", 64): Bar(50, False), (1_000_000, "random", 64): Bar(90, False)}
FIGURE_BARS = {
    "bytes_per_session": Bar(200, False),
    "new_sessions_per_s": Bar(1e6, True),
    "expiry_per_s": Bar(2e6, True),
    "two_workers_ratio": Bar(1.8, True),
    "flows_4m_over_1m": Bar(1.2, False),
    "rule_lookup_1000_rules_ns": Bar(1000, False),
}
MEANING = {
    "bytes_per_session": "memory of a core of 1,048,576 sessions, every structure counted",
    "new_sessions_per_s": "64 rules, port, mapping, index, timer, and the event drained for a peer",
    "new_sessions_1000_rules_per_s": "the same with 1,000 rules",
    "new_sessions_no_peer_per_s": "no rules, nobody to be told",
    "new_sessions_shared_mapping_per_s": "50 sessions an inside endpoint, nobody to be told",
    "expiry_per_s": "sessions that are due, nobody to be told",
    "expiry_told_per_s": "the same, the event drained, and acknowledged by a peer",
    "two_workers_mpps": "two workers at the same time, 500,000 flows each, random order",
    "two_workers_ratio": "their rate to that of one alone, in turns",
    "rule_lookup_1000_rules_ns": "rules looked up for a new session, nothing of them in the cache",
    "flows_4m_over_1m": "ns a packet, 4 M flows to 1 M, random order",
}


def build() -> str:
    """The program, compiled as the extension is."""
    sources = [HERE / "bench_fastpath.c", *sorted((REPOSITORY / "csrc").glob("*.c"))]
    include = ["-I", str(REPOSITORY / "csrc"), "-I", str(REPOSITORY / "csrc" / "test")]
    flags = ["-D_GNU_SOURCE", "-O3", BASELINE[platform.machine()], "-pthread", *include]
    return str(compile_program("bench_fastpath", sources, flags))


def rule_lookup_ns() -> float:
    """Of ``csrc/test/bench_policy.c``, out of the cache."""
    csrc = REPOSITORY / "csrc"
    sources = [csrc / "test" / "bench_policy.c", csrc / "policy.c", csrc / "hash.c"]
    program = compile_program("bench_policy", sources, ["-D_GNU_SOURCE", "-O3", "-I", str(csrc)])
    said = subprocess.run([str(program)], stdout=subprocess.PIPE, text=True, check=True).stdout
    found = re.search(r"^ *1000 rules .*?([0-9]+) ns out of it", said, re.MULTILINE)
    assert found, said
    return float(found[1])


def measure(flows_max: int) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Rows of known sessions, each with the probe of its table and order; and the other figures."""
    run = subprocess.run([build(), str(flows_max)], stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    figures = {line["name"]: line["value"] for line in lines if "name" in line}
    packets = [line for line in lines if "flows" in line]
    probes = {(p["flows"], p["order"]): p["ns"] for p in packets if p["batch"] == 0}
    rows = [
        {
            "flows": p["flows"],
            "order": p["order"],
            "batch": p["batch"],
            "ns_per_packet": p["ns"],
            "mpps": round(1e3 / p["ns"], 2),
            "traffic": p["traffic"],
            "ns_median_slice": p["ns_median"],
            "ns_probe": probes[p["flows"], p["order"]],
        }
        for p in packets
        if p["batch"]
    ]
    random = {row["flows"]: row["ns_per_packet"] for row in rows if wanted(row) == "random"}
    if 4_000_000 in random:
        figures["flows_4m_over_1m"] = round(random[4_000_000] / random[1_000_000], 3)
    figures["rule_lookup_1000_rules_ns"] = rule_lookup_ns()
    return rows, figures


def wanted(row: dict[str, Any]) -> str:
    """The order of a row of mixed traffic in full bursts; "" for others."""
    return str(row["order"]) if row["traffic"] == MIXED and row["batch"] == 64 else ""


def verdict(bar: Bar | None, figure: float) -> str:
    return "" if bar is None else f"{bar!s:>14} {'met' if bar.met(figure) else 'MISSED'}"


def print_tables(rows: list[dict[str, Any]], figures: dict[str, float]) -> None:
    head = f"{'flows':>9} {'order':10} {'traffic':7} {'batch':>5} {'ns':>7} {'median':>7}"
    print(f"{head} {'probe':>6} {'Mpps':>6}")
    for row in rows:
        bar = None
        if row["traffic"] == MIXED:
            bar = PACKET_BARS.get((row["flows"], row["order"], row["batch"]))
        print(
            f"{row['flows']:9,} {row['order']:10} {row['traffic']:7} {row['batch']:5} "
            f"{row['ns_per_packet']:7.1f} {row['ns_median_slice']:7.1f} {row['ns_probe']:6.1f} "
            f"{row['mpps']:6.1f} {verdict(bar, row['ns_per_packet'])}"
        )
    print()
    for name, value in figures.items():
        print(f"{name:34} {value:12,.6g} {verdict(FIGURE_BARS.get(name), value):22} {MEANING.get(name, '')}")


def main() -> int:
    """Build, run, print, write."""
    parser = argparse.ArgumentParser(description="cost of packets and sessions in the fast path, no I/O")
    parser.add_argument("--flows-max", type=int, default=4_000_000, help="largest table (3 GB of memory)")
    args = parser.parse_args()
    rows, figures = measure(args.flows_max)
    print_tables(rows, figures)
    bars = {name: str(bar) for name, bar in FIGURE_BARS.items()}
    path = write(
        "fastpath",
        rows,
        figures=[
            {"name": name, "value": value, "bar": bars.get(name), "meaning": MEANING.get(name, "")}
            for name, value in figures.items()
        ],
    )
    print(f"\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
