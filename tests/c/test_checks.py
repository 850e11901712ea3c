# SPDX-License-Identifier: Apache-2.0
"""The C checks and the fuzz corpus, each a program of its own under a sanitizer (csrc/test/Makefile)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CHECKS = Path(__file__).resolve().parents[2] / "csrc" / "test"
BUILD = Path(__file__).resolve().parents[2] / "build" / "c"
PROGRAMS = sorted(path.stem for path in CHECKS.glob("check_*.c"))
FUZZERS = sorted(path.stem for path in CHECKS.glob("fuzz_*.c"))
pytestmark = pytest.mark.timeout(600)
"""The first test compiles every program: minutes on a small machine that does something else, too."""

OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1:strict_string_checks=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


def make(goal: str) -> str:
    jobs = str(os.cpu_count() or 1)
    done = subprocess.run(
        ["make", "-s", "-C", str(CHECKS), "-j", jobs, f"BUILD={BUILD}", goal],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run(program: Path, *arguments: str) -> None:
    done = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=os.environ | OPTIONS,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def asan() -> Path:
    make("build-asan")
    return BUILD / "asan"


@pytest.fixture(scope="module")
def tsan() -> Path:
    make("build-tsan")
    return BUILD / "tsan"


@pytest.mark.parametrize("program", PROGRAMS)
def test_check_asan(asan: Path, program: str) -> None:
    run(asan / program)


@pytest.mark.parametrize("fuzzer", FUZZERS)
def test_corpus_asan(asan: Path, fuzzer: str) -> None:
    """Inputs that once were of interest stay harmless."""
    inputs = sorted(str(path) for path in (CHECKS / "corpus" / fuzzer).iterdir())
    assert inputs
    run(asan / fuzzer, *inputs)


@pytest.mark.parametrize("program", make("threaded").split())
def test_check_tsan(tsan: Path, program: str) -> None:
    run(tsan / program)
