# SPDX-License-Identifier: Apache-2.0
"""Chance of one schedule: a generator for each source of it.

The n-th draw of a source depends on the seed, the source and n, and on nothing that anybody else draws. So a
schedule from which a fault is taken away loses that fault, and not the luck of everything behind it.
"""

from __future__ import annotations

import random


class Chance:
    """All generators of one seed, made when they are asked for."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._sources: dict[str, random.Random] = {}

    def of(self, source: str) -> random.Random:
        """The generator of ``source``, a name like ``wire/xc/0``."""
        generator = self._sources.get(source)
        if generator is None:
            generator = self._sources[source] = random.Random(f"{self.seed}/{source}")
        return generator
