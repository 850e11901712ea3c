# SPDX-License-Identifier: Apache-2.0
"""The generators of the sync benchmark: ``udp_sessions.c`` and ``tcp_lives.c``, running in the lab."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from bench.gateways import printing, read
from bench.results import BUILD, HERE, compile_program
from sandbox import Lab, LabError, Process

PROGRAMS = ("udp_sessions", "tcp_lives")
LOST_MAX = 0.01
"""Share of connections that may have lost a packet (a TAP's queue is full for a moment)."""
RATE_MIN = 0.99
"""Share of its rate that a generator must reach."""


def compile_generators() -> None:
    """Build them."""
    for program in PROGRAMS:
        compile_program(program, [HERE / f"{program}.c"], ["-O2"])


@dataclass(slots=True)
class Run:
    """A generator under way."""

    process: Process
    output: IO[str]
    seconds_max: float

    def over(self) -> bool:
        """Has it ended?"""
        return self.process.poll() is not None

    def result(self) -> dict[str, Any]:
        """What it says at its end."""
        code = self.process.wait(self.seconds_max)
        lines = read(self.output).splitlines()
        if code != 0 or not lines:
            raise LabError(f"{self.process.argv[0]} ended with {code}")
        answer: dict[str, Any] = json.loads(lines[-1])
        return answer


@dataclass(slots=True)
class Traffic:
    """Makes sessions that were not there before; ``inside`` and ``outside``: MACs that frames are sent to."""

    lab: Lab
    inside: str
    outside: str
    lives: int = 0
    """Number of the next life: its inside endpoint is fresh."""

    @contextlib.contextmanager
    def udp(self, count: int, per_s: int, endpoints: int) -> Iterator[Run]:
        """``count`` sessions of one packet each, of so many inside endpoints; the same ones in each run."""
        argv = [str(BUILD / "udp_sessions"), "client", "eth0", self.inside]
        argv += [str(endpoints), "0", str(count), str(per_s)]
        with printing(self.lab, "client", argv, "udp_sessions") as (process, output):
            yield Run(process, output, count / per_s * 3 + 20)

    @contextlib.contextmanager
    def tcp(self, per_s: int, seconds: int, *, whole: bool) -> Iterator[Run]:
        """``per_s`` connections a second for so long; whole lives, or handshakes only."""
        argv = [str(BUILD / "tcp_lives"), "client", "eth0", self.inside, "isp", "wan0", self.outside]
        argv += [str(self.lives), str(per_s), str(seconds), "whole" if whole else "open"]
        self.lives += per_s * seconds
        with printing(self.lab, "client", argv, "tcp_lives") as (process, output):
            yield Run(process, output, seconds + 20)


class LivesLostError(LabError):
    """Too many; the machine may have been busy with something else."""


def check_lives(result: dict[str, Any], per_s: int, *, whole: bool) -> None:
    """A run in which connections were lost, or not begun in time, measures something else."""
    done = result["finished" if whole else "opened"]
    if done < result["begun"] * (1 - LOST_MAX) or result["foreign"]:
        raise LivesLostError(f"of {result['begun']} connections {done} came to their end: {result}")
    if result["begun"] < per_s * result["seconds"] * RATE_MIN:
        raise LivesLostError(f"the generator did not keep its rate of {per_s}/s: {result}")
