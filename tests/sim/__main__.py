# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.sim --seed N --runs M``: schedules N, N+1, ...; each that fails is shrunk and shown.

What was run is added to a ledger, ``build/sim/ledger.jsonl``: one line with the commit, the first seed, how
many schedules, seconds, and the seeds that failed.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest's pythonpath has it

from sim.examine import examine

SLICE = 50
"""Schedules that a process does at a time."""
FAILURES_MAX = 5


def commit() -> str:
    """What was run: the commit, and whether the tree is another by now."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"


def run_slice(first: int, end: int, *, verbose: bool) -> tuple[int, list[tuple[int, str]]]:
    """How many schedules were run, and those that failed, with what there is to say of them."""
    failed = []
    for seed in range(first, end):
        failure = examine(seed, verbose=verbose)
        if failure is not None:
            failed.append((seed, failure))
    gc.collect()
    return end - first, failed


def main() -> int:
    """Run schedules; 0 if all hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="first seed; a new one if not given")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--ledger", type=Path, default=Path("build/sim/ledger.jsonl"))
    parser.add_argument("--verbose", action="store_true", help="print every event and action")
    args = parser.parse_args()
    first = args.seed if args.seed is not None else time.time_ns() % 1_000_000_000
    end = first + args.runs
    started, core = time.monotonic(), commit()
    done, failed = 0, []
    starts = range(first, end, SLICE)
    with multiprocessing.Pool(args.jobs, initializer=gc.disable) as pool:  # it is done after each slice
        work = [
            pool.apply_async(partial(run_slice, start, min(end, start + SLICE), verbose=args.verbose))
            for start in starts
        ]
        for result in work:
            ran, bad = result.get()
            done += ran
            for seed, failure in bad:
                failed.append(seed)
                print(failure, flush=True)
            if len(failed) >= FAILURES_MAX:
                pool.terminate()
                break
    seconds = time.monotonic() - started
    entry = {"commit": core, "first": first, "runs": done, "seconds": round(seconds, 1), "failed": failed}
    args.ledger.parent.mkdir(parents=True, exist_ok=True)
    with args.ledger.open("a") as ledger:
        ledger.write(json.dumps(entry) + "\n")
    held = f"{len(failed)} failed" if failed else "hold"
    print(f"{done} schedules, seeds {first} to {first + done - 1}, of {core}: {held} ({seconds:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
