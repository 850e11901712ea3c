# SPDX-License-Identifier: Apache-2.0
"""Counters of the control plane, by name (``vrrp.wan.bad_ttl``). The fast path has its own."""

from __future__ import annotations

NAMES_MAX = 1024
"""A bound, since some names carry parts that the wire chose."""


class Counters:
    """Names appear with their first count."""

    def __init__(self) -> None:
        self._values: dict[str, int] = {}

    def add(self, name: str, n: int = 1) -> None:
        """Add ``n``; beyond ``NAMES_MAX`` names everything new goes to ``other``."""
        if name not in self._values and len(self._values) >= NAMES_MAX:
            name = "other"
        self._values[name] = self._values.get(name, 0) + n

    def values(self) -> dict[str, int]:
        """All counters, by name."""
        return dict(sorted(self._values.items()))
