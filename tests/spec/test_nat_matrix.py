# SPDX-License-Identifier: Apache-2.0
"""NAT.md is what the tests say, and no requirement is forgotten."""

from __future__ import annotations

import nat_matrix
import pytest


def test_page_is_up_to_date() -> None:
    """``python tests/nat_matrix.py`` writes it anew."""
    assert nat_matrix.PAGE.read_text() == nat_matrix.page()


@pytest.mark.parametrize("req", nat_matrix.REQUIREMENTS, ids=lambda req: f"{req.rfc}-{req.key}")
def test_each_requirement_has_a_test_or_a_reason(req: nat_matrix.Requirement) -> None:
    """What no test shows is explained."""
    assert nat_matrix.tests().get((req.rfc, req.key)) or req.but, req


def test_each_citation_is_of_a_requirement() -> None:
    """A test that names a requirement which the list does not have would be missing from the page."""
    known = {(req.rfc, req.key) for req in nat_matrix.REQUIREMENTS}
    cited = {(rfc, key) for rfc, key in nat_matrix.tests() if rfc in nat_matrix.TITLES and "REQ" in key}
    assert cited <= known


def test_docstrings_are_understood() -> None:
    """Keys belong to the RFC that stands before them."""
    text = "Spec: RFC 5382 REQ-9, REQ-10 a; RFC 5927 §4, then RFC 7857 §2.2."
    assert list(nat_matrix.cited(text)) == [(5382, "REQ-9"), (5382, "REQ-10"), (5927, "§4"), (7857, "§2.2")]
