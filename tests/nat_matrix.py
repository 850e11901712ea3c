# SPDX-License-Identifier: Apache-2.0
"""Which test shows which requirement of the NAT RFCs: ``python tests/nat_matrix.py`` writes NAT.md.

Each test names what it shows in its docstring (``Spec: RFC 4787 REQ-9``, ``RFC 7857 §2.2``); this script
collects the names and sets them beside the list of requirements below, which is in our own words and says of
each one that no test shows why that is so. ``spec/test_nat_matrix.py`` fails when NAT.md is not what this
makes of the tests, or when a requirement has neither a test nor a reason.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
PAGE = TESTS / "spec" / "NAT.md"
PLACES = ("tests/spec", "tests/netns", "tests/unit", "tests/model")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement: where it stands and what it asks.

    ``but``: what is done otherwise, or, if no test shows the requirement, why not.
    """

    rfc: int
    key: str
    asks: str
    but: str = ""


def _table(rfc: int, **rows: str | tuple[str, str]) -> tuple[Requirement, ...]:
    found = []
    for name, row in rows.items():
        key = f"REQ-{name[3:]}" if name.startswith("req") else f"§{name[1:].replace('_', '.')}"
        found.append(Requirement(rfc, key, *(row if isinstance(row, tuple) else (row,))))
    return tuple(found)


TITLES = {
    4787: "unicast UDP",
    5382: "TCP",
    5508: "ICMP",
    7857: "updates to the three above",
    6888: "what carriers ask besides (the parts that a gateway needs)",
}

REQUIREMENTS = (
    *_table(
        4787,
        req1="mapping is endpoint-independent",
        req2="a client keeps one external address (pooling: paired)",
        req3="two inside endpoints never share an external one",
        req4="the port keeps its parity",
        req5="a mapping lives two minutes at least; default five",
        req6="outbound packets refresh it",
        req7="inside and outside addresses do not overlap, or are translated all the same",
        req8="filtering is endpoint-independent or address-dependent",
        req9="hairpinning, with the external endpoint as source",
        req10=("ALGs for UDP are off", "there is none"),
        req11="the behaviour is the same at any time",
        req12="no ICMP message ends a mapping",
        req13="too big with DF: Fragmentation Needed; without: fragments",
        req14="fragments may come out of order",
    ),
    *_table(
        5382,
        req1="mapping is endpoint-independent",
        req2="all valid sequences pass, simultaneous open included",
        req3="filtering is endpoint-independent or address-dependent",
        req4="an unsolicited SYN is not answered for 6 s",
        req5="established sessions live 2 h 4 min, transitory ones 4 min, at least",
        req6=("ALGs for TCP are off", "there is none"),
        req7="two inside endpoints never share an external one",
        req8="hairpinning, with the external endpoint as source",
        req9="Destination Unreachable is translated",
        req10="no ICMP message ends a mapping or a connection",
    ),
    *_table(
        5508,
        req1="queries from inside and their replies pass; mapping is endpoint-independent",
        req2="a query session lives 60 s at least",
        req3="what an error quotes is checked before anything is made of it",
        req4="errors from outside: the quote is translated back, type and code stay",
        req5="errors from inside: the same, the source becomes the external address",
        req6="an error neither refreshes nor deletes a session",
        req7="hairpinned errors pass",
        req8=(
            "a session that is refused for want of room, or by policy: Destination Unreachable, code 13",
            (
                'a rule\'s "deny" is silent on purpose, "reject" is not; TCP gets a RST from it; '
                "nobody outside is told, for a flood's senders are made up"
            ),
        ),
        req9=("policy may keep ICMP from being sent towards an interface", "optional (MAY); not offered"),
        req10="Destination Unreachable, Time Exceeded and echo are supported; the rest need not be",
        req11="messages that are neither queries nor errors are dropped or handled",
    ),
    *_table(
        7857,
        s2_1="transitory idle timeout: 4 min, of opening and closing by themselves",
        s2_2="TCP RST: it does not end a session at once",
        s3="port overlapping: none under endpoint-independent mapping",
        s4="address pooling paired: across protocols",
        s5="endpoint-independent mapping: of each protocol by itself",
        s6="endpoint-independent filtering: of each protocol by itself",
        s7="mapping refresh: not by what filters or policy keep out",
        s7_1="outbound refresh: not by ICMP errors and RSTs",
        s8="port parity: may be turned off; it is kept",
        s9="port randomization: RFC 6056",
        s10=(
            "identification: unique for an address pair, protocol and time (RFC 6864 §5.3.1)",
            "what comes in fragments, or is cut here, gets another; whole datagrams keep theirs",
        ),
        s11="ICMP query mappings: may end with their last session",
        s12=(
            "hairpinning of ICMP: queries, too",
            "a query names no inside host by its identifier: a pool's address answers it for itself",
        ),
    ),
    *_table(
        6888,
        req1="each protocol's own requirements hold",
        req2="pooling is paired",
        req3="external addresses: any number, contiguous or not",
        req4="external ports of a subscriber can be limited",
        req5="state of a subscriber can be limited",
        req6="translation can be turned off for destinations",
        req7="filtering can be endpoint-independent",
        req8=(
            "a port rests 120 s before another endpoint gets it",
            "UDP and ICMP of pools that filter nothing; the others are excepted (A, C): tracked, or filtered",
        ),
        req9=("subscribers control mappings (PCP)", "not offered: a gateway's forwards are its operator's"),
        req10=("standard management", "Prometheus metrics and a control socket instead of RFC 4008's MIB"),
        req11=(
            "a refused mapping: the packet is dropped, its sender told, nothing in use makes room",
            (
                "code 13 of RFC 5508 instead of 1; openings that nobody answered do make room, the oldest "
                "first: else a flood of them would keep everybody out"
            ),
        ),
        req12="logs do not name destinations unless asked to",
        req13="ports are used up before a mapping is refused",
        req14=("little log volume", "mappings are not logged; sessions of rules with `log = true` are"),
        req15="external ports are hard to guess",
    ),
)

_RFC = re.compile(r"RFC (\d+)")
_KEY = re.compile(r"REQ-\d+|§\d+(?:\.\d+)*")


def cited(text: str) -> Iterator[tuple[int, str]]:
    """(RFC, requirement or section) pairs that a docstring names: keys belong to the RFC before them."""
    _, *parts = _RFC.split(text)
    for rfc, rest in zip(parts[::2], parts[1::2], strict=True):
        for key in _KEY.findall(rest):
            yield int(rfc), key


@cache
def tests() -> dict[tuple[int, str], list[str]]:
    """Test ids, ``file::name``, by what they show."""
    found: dict[tuple[int, str], list[str]] = defaultdict(list)
    for place in PLACES:
        for path in sorted((ROOT / place).glob("test_*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    continue
                if not node.name.startswith("test_"):
                    continue
                for shown in dict.fromkeys(cited(ast.get_docstring(node) or "")):
                    found[shown].append(f"{path.relative_to(ROOT)}::{node.name}")
    return found


def page() -> str:
    """NAT.md as the tests are now."""
    found = tests()
    lines = [
        "# NAT behaviour: requirement by requirement",
        "",
        "Made by `python tests/nat_matrix.py` from the docstrings of the tests, one of which fails",
        "when this page is out of date.",
        "Requirements are in our own words; the RFC's text is what counts.",
    ]
    for rfc, title in TITLES.items():
        lines += ["", f"## RFC {rfc}: {title}", "", "| | it asks | shown by | but |", "|---|---|---|---|"]
        for req in REQUIREMENTS:
            if req.rfc == rfc:
                shown = [f"`{name}`" for name in found[rfc, req.key]] or ["—"]
                lines.append(f"| {req.key} | {req.asks} | {'<br>'.join(shown)} | {req.but} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
