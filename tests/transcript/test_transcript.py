# SPDX-License-Identifier: Apache-2.0
"""Two-node stories, word by word; ``--rewrite`` writes them anew. The language is in ``stage.py``."""

from __future__ import annotations

from pathlib import Path

import pytest
from transcript.stage import perform

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, request: pytest.FixtureRequest) -> None:
    played = perform(path)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(played)
    assert played == path.read_text()


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8
