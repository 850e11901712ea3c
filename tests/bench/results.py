# SPDX-License-Identifier: Apache-2.0
"""What every benchmark's result says of where it was measured, and where it is written."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BUILD = REPOSITORY / "build" / "bench"


def machine() -> dict[str, object]:
    """What the figures belong to."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = names[0] if names else platform.machine()
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release()}


def commit() -> str:
    """The commit that was measured; ``-dirty`` when the tree differs from it."""
    answer = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.strip() or "unknown"


def write(name: str, rows: Sequence[Mapping[str, object]], **more: object) -> Path:
    """``build/bench/NAME.json``; returns its path, relative to the repository."""
    path = BUILD / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {"machine": machine(), "commit": commit(), "rows": list(rows), **more}
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path.relative_to(REPOSITORY)


def compile_program(name: str, sources: Sequence[Path], flags: Sequence[str]) -> Path:
    """Build a benchmark's own C program; a compiler's complaint ends the benchmark."""
    BUILD.mkdir(parents=True, exist_ok=True)
    argv = [os.environ.get("CC", "cc"), "-std=gnu11", "-Wall", "-Wextra", "-Werror", *flags]
    argv += os.environ.get("CFLAGS", "").split()
    subprocess.run([*argv, "-o", str(BUILD / name), *map(str, sources), "-lm"], check=True)
    return BUILD / name
