# SPDX-License-Identifier: Apache-2.0
"""House rules that no other tool checks: what stands in comments, tables and lists must stay true."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
CSRC = REPOSITORY / "csrc"
CORE = REPOSITORY / "flexha" / "core"
MADE = {
    ".git",
    ".venv",
    "build",
    "dist",
    "__pycache__",
    ".hypothesis",
    ".ruff_cache",
    ".mypy_cache",
    ".pytest_cache",
}


def files(*suffixes: str, under: Path = REPOSITORY) -> list[Path]:
    """What is written by hand, as opposed to made."""
    return sorted(
        path
        for path in under.rglob("*")
        if path.is_file()
        and not MADE.intersection(path.relative_to(REPOSITORY).parts)
        and not any(part.endswith(".egg-info") for part in path.parts)
        and (path.suffix in suffixes or path.name in suffixes)
    )


def relative(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def numbered(path: Path, pattern: re.Pattern[str]) -> Iterator[str]:
    """``file:line: text`` of each line that matches."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if pattern.search(line):
            yield f"{relative(path)}:{number}: {line.strip()}"


# ---- the tree --------------------------------------------------------------------------------------
def test_top_level_is_the_one_agreed() -> None:
    """Packages, sources, units, tests, lab, and what a repository needs beside them. Spec: F3."""
    visible = {path.name for path in REPOSITORY.iterdir() if not path.name.startswith(".")}
    made = {name for name in visible if name in MADE or name.endswith(".egg-info")}
    assert visible - made == {
        *("pyproject.toml", "flexha", "csrc", "systemd", "tests", "netns-lab", "Makefile"),
        *("README.md", "LICENSE"),
    }


# ---- every file ------------------------------------------------------------------------------------
SOURCES = (
    *(".py", ".c", ".h", ".sh", ".toml", ".service", ".sysusers", ".tmpfiles", ".yaml", ".yml"),
    *("Makefile", "run", ".clang-format", ".clang-tidy", ".pre-commit-config.yaml"),
)


def test_every_source_file_names_its_licence() -> None:
    heads = {path: "\n".join(path.read_text().splitlines()[:3]) for path in files(*SOURCES)}
    missing = [
        relative(path)
        for path, head in heads.items()
        if head and "SPDX-License-Identifier: Apache-2.0" not in head
    ]
    assert not missing


def test_no_path_of_somebodys_machine() -> None:
    """A path below somebody's home or workspace works there and nowhere else."""
    pattern = re.compile(r"(?<![\w./})\]-])/(?:home|Users|work|workspace|workspaces|mnt|media)/\w")
    found = [hit for path in files(*SOURCES, ".md", ".txt", ".8", ".5") for hit in numbered(path, pattern)]
    assert not found


def test_nothing_is_left_unfinished() -> None:
    marks = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
    assert not [hit for path in files(*SOURCES, ".md") for hit in numbered(path, marks)]


# ---- C: layers -------------------------------------------------------------------------------------
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
BANNED_INCLUDE = re.compile(
    r"^(?:pthread|unistd|time|poll|fcntl|signal|sched)\.h$|^(?:sys|net|linux|arpa|netinet)/"
)


def at_or_below_step() -> set[Path]:
    """step.c, what it includes, what implements that, and so on down."""
    found: set[Path] = set()
    queue = [CSRC / "step.c", CSRC / "core.c"]
    while queue:
        path = queue.pop()
        if path in found or not path.exists():
            continue
        found.add(path)
        queue.append(path.with_suffix(".c"))
        queue.extend(CSRC / quoted for quoted, _ in INCLUDE.findall(path.read_text()) if quoted)
    return found


def test_the_packet_path_knows_no_clock_thread_or_file() -> None:
    """Nothing at or below step.c includes a system header: time is an argument, I/O is the shell's."""
    layer = at_or_below_step()
    assert len(layer) > 10
    banned = [
        f"{relative(path)}: <{system}>"
        for path in sorted(layer)
        for _, system in INCLUDE.findall(path.read_text())
        if BANNED_INCLUDE.search(system)
    ]
    assert not banned


# ---- C: verdicts -----------------------------------------------------------------------------------
def test_verdict_names_are_unique_and_explained() -> None:
    """One table makes the enum, the counter, its help and the CLI's row."""
    text = (CSRC / "verdict.h").read_text()
    rows = re.findall(r'^\s*X\((\w+),\s*(\w+),\s*(\w+),\s*"([^"]+)"\)', text, re.MULTILINE)
    assert len(rows) > 20
    for column in (0, 1, 3):
        twice = [value for value, n in Counter(row[column] for row in rows).items() if n > 1]
        assert not twice
    assert not [row for row in rows if row[1] != row[0].lower()]
    assert {row[2] for row in rows} <= {"PASS", "DROP", "TRANSIT"}


# ---- C: kernel-doc ---------------------------------------------------------------------------------
KERNEL_DOC = re.compile(r"/\*\*\n(?P<doc>.*?)\*/\n(?P<code>.*?)(?=\n/\*\*|\Z)", re.DOTALL)
TITLE = re.compile(
    r"^\s*\*\s+(?:(?P<kind>struct|union|enum)\s+)?(?P<name>\w+)(?P<call>\(\))?\s+-\s", re.MULTILINE
)
PARAMETER = re.compile(r"^\s*\*\s+@(?P<name>\w+)(?:\.\.\.)?:", re.MULTILINE)


def without_comments(code: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", code, flags=re.DOTALL)


def matching(code: str, start: int, pair: str) -> str:
    """The text between the bracket at ``start`` and the one that closes it."""
    depth = 0
    for position in range(start, len(code)):
        depth += (code[position] == pair[0]) - (code[position] == pair[1])
        if depth == 0:
            return code[start + 1 : position]
    return code[start + 1 :]


def declared_names(kind: str | None, name: str, code: str) -> set[str] | None:
    """Identifiers in the definition or prototype that follows a comment; None if it is another thing's."""
    code = without_comments(code)
    if kind:
        head = re.search(rf"\b{kind}\s+{name}\b[^;{{]*\{{", code)
        return None if head is None else set(re.findall(r"\w+", matching(code, head.end() - 1, "{}")))
    head = re.search(rf"\b{name}\s*\(", code)
    return None if head is None else set(re.findall(r"\w+", matching(code, head.end() - 1, "()")))


def kernel_doc_faults(path: Path) -> Iterator[str]:
    for match in KERNEL_DOC.finditer(path.read_text()):
        title = TITLE.search(match["doc"])
        if title is None or not (title["kind"] or title["call"]):
            continue  # a file's own header
        what = f"{relative(path)}: {title['name']}"
        names = declared_names(title["kind"], title["name"], match["code"])
        if names is None:
            yield f"{what} is not what follows its comment"
            continue
        for parameter in PARAMETER.finditer(match["doc"]):
            if parameter["name"] not in names:
                yield f"{what} has no @{parameter['name']}"


@pytest.mark.parametrize("path", files(".c", ".h", under=CSRC), ids=relative)
def test_kernel_doc_names_what_is_there(path: Path) -> None:
    assert not list(kernel_doc_faults(path))


# ---- Python: the pure core -------------------------------------------------------------------------
BANNED_IMPORTS = {
    *("asyncio", "concurrent", "datetime", "logging", "multiprocessing", "os", "random", "secrets", "select"),
    *("selectors", "signal", "socket", "subprocess", "threading", "time", "uvloop"),
}


def imports(path: Path) -> Iterator[str]:
    """Top-level packages that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", files(".py", under=CORE), ids=relative)
def test_the_core_is_pure(path: Path) -> None:
    """No clock, loop, socket, randomness or log; msgpack in the wire codecs only."""
    found = set(imports(path))
    assert not found & BANNED_IMPORTS
    assert "msgpack" not in found or path.stem.endswith("_wire")


# ---- Spec tags -------------------------------------------------------------------------------------
SPEC = re.compile(r"\bSpec:\s*(?P<text>(?:[^\n]|\n(?=[ \t*#]*(?:RFC|REQ|§|[RBF]\d)))+)")
RFC = re.compile(r"RFC (?P<number>\d+)(?P<rest>(?:[,;:/ ]*(?:and )?(?:§+ ?[\d.]+\d|§ ?\d+|REQ-\d+\w?))*)")
CLAUSE = re.compile(r"§+ ?([\d.]*\d)|(REQ-\d+)")
REQUIREMENT = re.compile(r"\b([RBF]\d{1,2})\b")


def citations(text: str) -> set[tuple[str, str]]:
    """``("9568", "6.4.3")``, ``("4787", "REQ-1")``, ``("", "R12")``: what a text refers to."""
    found = {("", name) for name in REQUIREMENT.findall(text)}
    for rfc in RFC.finditer(text):
        clauses = [section or requirement for section, requirement in CLAUSE.findall(rfc["rest"])]
        found |= {(rfc["number"], clause) for clause in clauses or [""]}
    return found


def is_cited(wanted: tuple[str, str], cited: set[tuple[str, str]]) -> bool:
    """A test of a section's part, or of the whole of it, shows the section."""
    document, clause = wanted
    return any(
        document == other
        and (
            clause == there or not clause or clause.startswith(f"{there}.") or there.startswith(f"{clause}.")
        )
        for other, there in cited
    )


def test_every_spec_tag_is_shown_by_a_test() -> None:
    cited = {
        citation
        for path in files(".py", ".c", ".txt", under=REPOSITORY / "tests")
        for citation in citations(path.read_text())
    }
    for path in (*files(".py", under=REPOSITORY / "netns-lab"), *files(".c", under=CSRC / "test")):
        cited |= citations(path.read_text())
    unproven = {
        f"{relative(path)}: {' '.join(filter(None, wanted))}"
        for path in (*files(".c", ".h", under=CSRC), *files(".py", under=REPOSITORY / "flexha"))
        if path.parent.name != "test"
        for tag in SPEC.finditer(path.read_text())
        for wanted in citations(tag["text"])
        if not is_cited(wanted, cited)
    }
    assert not sorted(unproven)


# ---- what is written for people --------------------------------------------------------------------
def test_every_make_target_that_a_readme_names_exists() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {
        (relative(path), target)
        for path in files(".md")
        for target in re.findall(r"(?:^|`|; )make ([a-z][a-z-]*)\b", path.read_text(), re.MULTILINE)
    }
    assert {target for _, target in named} >= {"lab-failover", "test"}
    assert not [f"{where}: make {target}" for where, target in sorted(named) if target not in targets]


def test_links_between_documents_lead_somewhere() -> None:
    dead = [
        f"{relative(path)}: {link}"
        for path in files(".md")
        for link in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", path.read_text())
        if not (path.parent / link).exists()
    ]
    assert not dead
