# SPDX-License-Identifier: Apache-2.0
"""``--rewrite`` writes what happens now into the transcripts, for a person to read before it is committed."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite", action="store_true", help="rewrite tests/transcript/*.txt with today's output"
    )
