# SPDX-License-Identifier: Apache-2.0
"""One lab and one pair for the whole tier: building them takes longer than most of these tests.

A test gets the pair settled (one node ACTIVE, the other PASSIVE, ready and caught up), whatever the test
before did to it, and may break it as it likes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pair import Pair
from sandbox import BUILD_DIR, Lab
from traffic import compile_programs

LOG_DIR = BUILD_DIR / "tests"


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab of the session, with the traffic programs compiled."""
    compile_programs()
    with Lab.start(LOG_DIR / "run", LOG_DIR / "supervisor.log") as lab:
        yield lab


@pytest.fixture(scope="session")
def _pair(lab: Lab) -> Pair:
    pair = Pair(lab, LOG_DIR)
    for node in pair.nodes.values():
        node.log.unlink(missing_ok=True)
    return pair


@pytest.fixture
def pair(_pair: Pair) -> Pair:
    """Both daemons, settled."""
    for node in _pair.nodes.values():
        if node.pid is None:
            node.start()
    _pair.wait_settled()
    return _pair
