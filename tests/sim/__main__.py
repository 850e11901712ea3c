# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.sim --seed N --runs M``: schedules N, N+1, ...; the first to fail is shrunk and shown."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as pytest's pythonpath has it

from sim.world import examine


def main() -> int:
    """Run schedules; 0 if all hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="first seed; a new one if not given")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="print every event and action")
    args = parser.parse_args()
    first = args.seed if args.seed is not None else time.time_ns() % 1_000_000_000
    started = time.monotonic()
    for seed in range(first, first + args.runs):
        failure = examine(seed, verbose=args.verbose)
        if failure is not None:
            print(failure)
            return 1
    print(f"{args.runs} schedules from seed {first} hold ({time.monotonic() - started:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
