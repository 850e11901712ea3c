# SPDX-License-Identifier: Apache-2.0
"""The other VRRP routers of Debian, in both versions, beside one flexha node on the WAN. Spec: R2.

The story, and what of the RFCs each part shows, is in ``netns-lab/vrrp_peers.py``. Row ``vrrp-peers`` of
``make lab-scenarios`` is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from netns.conftest import LOG_DIR
from sandbox import Lab
from scenarios_vrrp import SCENARIOS, trial_of
from vrrp_peers import ROWS, Row, Story, wan_lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with wan_lab(LOG_DIR / "vrrp-peers") as lab:
        yield lab


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_other_router(lab: Lab, row: Row) -> None:
    """Spec: R2; RFC 3768 §6.4.2, §6.4.3; RFC 9568 §6.4.2 (420), (430), (450), (455), §6.4.3 (650), (700)."""
    if row.missing:
        pytest.skip(f"{row.missing} is not installed")
    trial = trial_of(1, row, Story(lab, row, LOG_DIR / "vrrp-peers").tell())
    assert trial.findings == ()
    for bar in SCENARIOS[0].bars:
        assert bar.holds([trial.figures[bar.figure]]), (bar.text, trial.figures, trial.more)
