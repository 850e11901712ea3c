# SPDX-License-Identifier: Apache-2.0
"""Units that must not be mixed up, and the few conversions between them."""

from __future__ import annotations

from typing import NewType

Ns = NewType("Ns", int)
"""Nanoseconds of CLOCK_BOOTTIME (or of the simulator's clock)."""

Term = NewType("Term", int)
"""A reign. Grows only; node 0 reigns in even terms and node 1 in odd ones, so terms never tie."""

EPOCH = Ns(0)
"""The clock's zero: before everything."""

NO_TERM = Term(0)
"""Before the first reign."""

TERM_MAX = Term(1 << 48)
"""The highest term that anybody may name (``csrc/fence.h``). No pair gets there; above is an error."""

NS_PER_MS = 1_000_000
NS_PER_CS = 10_000_000
NS_PER_S = 1_000_000_000


def ms(n: float) -> Ns:
    """Milliseconds to Ns."""
    return Ns(int(n * NS_PER_MS))


def centiseconds(n: float) -> Ns:
    """Centiseconds (VRRP's unit, RFC 9568 §5.2.7) to Ns."""
    return Ns(int(n * NS_PER_CS))


def next_own_term(heard: Term, node_index: int) -> Term:
    """The smallest term above ``heard`` in which ``node_index`` (0 or 1) may reign."""
    candidate = heard + 1
    return Term(candidate if candidate % 2 == node_index else candidate + 1)
