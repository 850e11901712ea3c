# SPDX-License-Identifier: Apache-2.0
"""Two nodes over the role machine's table, checked with spin: ``make model``.

``world.h`` is the world: heartbeats as the last thing said, the word and what is passed on as messages that
a crash, a stop and a cut lose, disks that answer at once or later, C's fence that closes before the core
hears of it. spin searches every order of what may happen in it, with a bounded number of faults
(``WORLDS``), and each step of a node is a step of the real core (``role_table``).

In every state holds:

* never two unfenced ACTIVE, but for nodes that were cut off from each other, until one heartbeat has come;
* no node's term falls; no term is reigned in twice; none claims beside a reign that it knows of;
* no event comes that the core calls impossible;
* whenever nothing more would come by itself, then if a healthy node is there, one reigns, only one if they
  hear each other, and no handover, claim, parked wire or closed fence is left over.

The last is said of states of rest, and each run comes to rest: no state is ever come back to. So once the
faults have ended every promise is kept or given up, and the pair has its ACTIVE node, in whatever order
things happen. How soon is the simulator's to say (``tests/sim``).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from model.role_table import RoleTable

HERE: Final = Path(__file__).parent
BUILD: Final = HERE.parents[1] / "build" / "model"
FAULTS: Final = ("crashes", "restarts", "stops", "asks", "hangs", "slow", "cuts")
MOVES: Final = 29
"""As many as ``world.h`` has."""
WORLDS: Final[dict[str, dict[str, int]]] = {
    "crash": {"crashes": 1, "restarts": 1},
    "stop": {"stops": 2, "restarts": 1},
    "planned": {"asks": 2},
    "hang": {"hangs": 1, "slow": 1},
    "cut": {"cuts": 1},
    "crashes": {"crashes": 2, "restarts": 2},
    "hang-crash": {"hangs": 1, "crashes": 2, "restarts": 2, "slow": 1},
    "cut-crash": {"cuts": 2, "crashes": 1, "restarts": 1, "slow": 1},
    "planned-crash": {"asks": 2, "stops": 1, "crashes": 1, "restarts": 2},
}
"""How many faults of each kind; what is not named does not happen. Cuts heal and hangs end at some time."""
_BYTES: Final = ("alive", "live", "gave", "fence", "fpend", "hung", "told", "inc", "disk", "go", "passed")
_SHORTS: Final = ("st", "last")
_SINGLE: Final = ("up", "split", "bad", "over", "reigned")
STORED: Final = r"(\d+) states, stored"
DEPTH: Final = r"depth reached (\d+)"
ERRORS: Final = r"errors: (\d+)"
BAD: Final = ("", "dual", "term-twice", "term-falls", "claim-beside", "impossible", "stuck")


@dataclass(frozen=True, slots=True)
class Report:
    """What spin said of a world."""

    world: str
    states: int
    depth: int
    errors: int
    complete: bool
    endless: bool
    """Some run never comes to rest."""
    seconds: float
    cells: int
    beyond: int
    fault: str


def promela(limits: dict[str, int]) -> str:
    """The model's text: its variables, and one guarded step for each thing that may happen."""
    lines = [
        *(f"byte {name}[2];" for name in _BYTES),
        *(f"short {name}[2];" for name in _SHORTS),
        *(f"byte {name};" for name in _SINGLE),
        *(f"byte {name} = {limits.get(name, 0)};" for name in FAULTS),
        'c_code { \\#include "world.h" }',
        "active proctype world() {",
        "  d_step { c_code { begin(); look(); } }",
        "  do",
        "  :: bad -> c_code { fault(); }; assert(false)",
    ]
    for move in range(MOVES):
        lines += [
            f"  :: d_step {{ c_expr {{ can({i}, {move}) }} -> c_code {{ fire({i}, {move}); }} }}"
            for i in (0, 1)
        ]
    return "\n".join([*lines, "  :: over -> break", "  od", "}", ""])


def world_state(limits: dict[str, int]) -> str:
    """The same variables as a C structure, for ``walk.c``."""
    fields = [
        *(f"\tunsigned char {name}[2];" for name in _BYTES),
        *(f"\tshort {name}[2];" for name in _SHORTS),
        *(f"\tunsigned char {name};" for name in (*_SINGLE, *FAULTS)),
    ]
    given = ", ".join(f".{name} = {limits.get(name, 0)}" for name in FAULTS)
    return "\n".join(["struct world {", *fields, "};", f"#define LIMITS {given}", ""])


def run(
    command: list[str], cwd: Path, table: RoleTable | None = None, timeout: float = 900, **env: str
) -> str:
    """What a program prints, while ``table`` answers what it asks."""
    if table is None:
        return subprocess.run(
            command, cwd=cwd, check=True, capture_output=True, text=True, timeout=timeout
        ).stdout
    asks, told = os.pipe()
    with (
        (cwd / "out.txt").open("w+", encoding="utf-8") as out,
        subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            pass_fds=(told,),
            env={**os.environ, "FLEXHA_MODEL_FD": str(told), **env},
        ) as process,
    ):
        os.close(told)
        late = threading.Timer(timeout, process.kill)
        late.start()
        try:
            answer(asks, process, table)
            process.wait()
        finally:
            late.cancel()
            os.close(asks)
        out.seek(0)
        return out.read()


def answer(asks: int, process: subprocess.Popen[bytes], table: RoleTable) -> None:
    """Cells, until the program ends."""
    assert process.stdin is not None
    while question := os.read(asks, 8):
        state, event = struct.unpack("=ii", question)
        process.stdin.write(struct.pack("=5i", *table.ask(state, event).words()))
        process.stdin.flush()


def prepare(name: str, folder: Path) -> None:
    """The sources of a world, in a folder of its own."""
    limits = WORLDS[name]
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "world.pml").write_text(promela(limits))
    (folder / "world_state.h").write_text(world_state(limits))
    for file in ("world.h", "walk.c"):
        shutil.copy(HERE / file, folder)


def check(name: str, folder: Path, table: RoleTable | None = None) -> Report:
    """spin's verdict of a world; the way to what is wrong, if anything is, in ``folder/trace.txt``."""
    prepare(name, folder)
    table = RoleTable() if table is None else table
    started = time.monotonic()
    subprocess.run(["spin", "-a", "world.pml"], cwd=folder, check=False, capture_output=True)
    said = _search(folder, table, "pan", "-DSAFETY", [])
    if _number(ERRORS, said):
        _tell(folder, table)
    states, depth, errors = (_number(pattern, said) for pattern in (STORED, DEPTH, ERRORS))
    rests = "" if errors else _search(folder, table, "rest", "-DNP", ["-l"])
    endless = bool(rests) and _number(ERRORS, rests) != 0
    if endless:
        _strip(folder / "world.pml.trail")
        _tell(folder, table)
    fault = re.search(r"wrong: (\d+)", said)
    return Report(
        world=name,
        states=states,
        depth=depth,
        errors=errors,
        complete=all(word not in said + rests for word in ("Search not completed", "max search depth")),
        endless=endless,
        seconds=round(time.monotonic() - started, 1),
        cells=len(table.cells),
        beyond=int(found[1]) if (found := re.search(r"beyond: (\d+)", said)) else 0,
        fault=BAD[int(fault[1])] if fault else "",
    )


def _search(folder: Path, table: RoleTable, program: str, kind: str, options: list[str]) -> str:
    """What a checker of this kind says of all that may happen."""
    sources = ["-DNOREDUCE", "-DCOLLAPSE", "-DMEMLIM=3000", "-o", program, "pan.c"]
    run(["gcc", "-O2", "-w", kind, *sources], folder)
    said = run([f"./{program}", *options, "-E", "-m2000000", "-w22"], folder, table)
    (folder / f"{program}.txt").write_text(said)
    return said


def _tell(folder: Path, table: RoleTable) -> None:
    """How it came to what is wrong: ``trace.txt``."""
    trail = run(["./pan", "-r", "world.pml.trail"], folder, table, FLEXHA_MODEL_TRACE="1")
    steps = [line for line in trail.splitlines() if re.match(r"[ab] [a-z]", line)]
    (folder / "trace.txt").write_text("\n".join(steps) + "\n")


def _strip(trail: Path) -> None:
    """Leave out the steps of process 0, by which spin watches for cycles: ``pan`` has no such process."""
    steps = [line.split(":") for line in trail.read_text().splitlines()]
    taken = [step for _, process, step in steps if process == "1" and int(step) > 0]
    trail.write_text("".join(f"{number}:0:{step}\n" for number, step in enumerate(taken, 1)))


def _number(pattern: str, said: str) -> int:
    found = re.search(pattern, said)
    return int(found[1]) if found else -1


def walker(name: str, folder: Path) -> None:
    """The walker of a world, compiled as ``folder/walk``."""
    prepare(name, folder)
    run(["gcc", "-O1", "-o", "walk", "walk.c"], folder)


def main() -> int:
    parser = argparse.ArgumentParser(description="Check the role machine with spin.")
    parser.add_argument("worlds", nargs="*", default=list(WORLDS), help=f"of {', '.join(WORLDS)}")
    names = parser.parse_args().worlds
    reports = []
    print(f"{'world':<12} {'states':>10} {'depth':>8} {'errors':>6} {'beyond':>8} {'cells':>7} {'s':>6}")
    for name in names:
        report = check(name, BUILD / name)
        reports.append(report)
        print(
            f"{name:<12} {report.states:>10} {report.depth:>8} {report.errors:>6} {report.beyond:>8}"
            f" {report.cells:>7} {report.seconds:>6}"
            f"{'' if report.complete else ' incomplete'}{' endless' * report.endless} {report.fault}",
            flush=True,
        )
    (BUILD / "model.json").write_text(json.dumps([asdict(report) for report in reports], indent=1) + "\n")
    well = (report.complete and not report.errors and not report.endless for report in reports)
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
