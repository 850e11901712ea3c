# SPDX-License-Identifier: Apache-2.0
"""What all tiers share: who may run the netns tier, what a skip means, and how hypothesis reports."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.database import DirectoryBasedExampleDatabase

TESTS = Path(__file__).parent
BUILD = TESTS.parent / "build"
REQUIRE_NETNS = os.environ.get("FLEXHA_REQUIRE_NETNS", "") not in {"", "0"}
"""Set by continuous integration: a machine that cannot build namespaces must not look green."""

# No deadline: two slow cores shared with a running lab would make it a lottery. A failure prints the blob
# that reproduces it, and stays in build/ until it is mended.
settings.register_profile(
    "flexha",
    deadline=None,
    print_blob=True,
    database=DirectoryBasedExampleDatabase(BUILD / "hypothesis"),
)
settings.load_profile("flexha")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the netns tier; without root it is skipped."""
    skip = pytest.mark.skip(reason="needs root: network namespaces and TAP devices")
    for item in items:
        if item.path.is_relative_to(TESTS / "netns"):
            item.add_marker(pytest.mark.netns)
            if os.geteuid() != 0:
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under FLEXHA_REQUIRE_NETNS a skip is a failure, whatever its reason."""
    report = yield
    if REQUIRE_NETNS and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: {reason} (a failure, since FLEXHA_REQUIRE_NETNS is set)"
    return report
