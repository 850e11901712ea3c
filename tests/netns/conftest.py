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
def session_pair(lab: Lab) -> Pair:
    """Both daemons, in whatever state they are."""
    pair = Pair(lab, LOG_DIR)
    for node in pair.nodes.values():
        node.log.unlink(missing_ok=True)
    return pair


@pytest.fixture
def pair(session_pair: Pair) -> Pair:
    """Both daemons, settled."""
    settle(session_pair)
    return session_pair


def settle(pair: Pair) -> None:
    """Start what does not run, and wait until one node is ACTIVE and the other ready to take over."""
    for node in pair.nodes.values():
        if node.pid is None:
            node.start()
    pair.wait_settled()
