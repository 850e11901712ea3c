# SPDX-License-Identifier: Apache-2.0
"""TOML to schema. Every problem of a file is reported at once, as ``path.to.key: what is wrong; remedy``.

pydantic checks key by key; ``flexha.config.cross`` checks what spans several keys, on whatever pieces are
valid by themselves, so that one typo does not hide the other findings.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from flexha.config import cross
from flexha.config.describe import keys_at, row_at
from flexha.config.schema import Config
from flexha.errors import ConfigError

FILE_BYTES_MAX = 1 << 20


def load(path: Path) -> Config:
    """Read and check a file; ``ConfigError`` lists all that is wrong with it."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError(
            str(path), [f"cannot be read: {error.strerror}; name a file with --config"]
        ) from error
    if len(text) > FILE_BYTES_MAX:
        raise ConfigError(str(path), [f"is larger than {FILE_BYTES_MAX} bytes; is this the right file?"])
    try:
        return parse(text.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"is no UTF-8 text (byte {error.start}); TOML is UTF-8"]) from error


def parse(text: str, source: str = "<config>") -> Config:
    """Check the text of a file."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(source, [f"is no TOML: {error}; see https://toml.io"]) from error
    problems: list[str] = []
    config: Config | None = None
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        problems += [_explain(detail) for detail in error.errors(include_url=False)]
    problems += cross.problems(cross.View.of(raw))
    if config is None or problems:
        raise ConfigError(source, problems)
    return config


def key_path(loc: tuple[str | int, ...]) -> str:
    """``("pools", 0, "port")`` to ``pools[0].port``."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return text


def _explain(detail: ErrorDetails) -> str:
    """One finding of pydantic in the operator's words."""
    loc = detail["loc"]
    row = row_at(loc)
    meaning = f" ({row.meaning})" if row and row.meaning else ""
    return f"{key_path(loc)}: {_what(detail)}{meaning if detail['type'] != 'value_error' else ''}"


def _what(detail: ErrorDetails) -> str:
    loc, value, context = detail["loc"], detail["input"], detail.get("ctx", {})
    row = row_at(loc)
    match detail["type"]:
        case "missing":
            return f"is missing; add {_wanted(loc)}"
        case "extra_forbidden":
            return f"is no known key; {_suggest(loc)}"
        case "value_error":
            return str(context["error"])
        case "literal_error" if loc[-1] == "[key]":
            return f"is no name for this table; choose from {context['expected']}"
        case "literal_error":
            return f"is {_shown(value)}; make it {context['expected']}"
        case "greater_than_equal" | "less_than_equal":
            return f"is {_shown(value)}, out of range; choose from {row.range if row else '?'}"
        case "too_short" | "too_long":
            return f"has {context.get('actual_length')} entries; give {row.range if row else '?'}"
        case _:
            return f"is {_shown(value)}; make it {_wanted(loc)}"


def _wanted(loc: tuple[str | int, ...]) -> str:
    row = row_at(loc)
    if row is None:
        return "a value"
    kind = row.type
    if isinstance(loc[-1], int):
        kind = kind.removeprefix("list of ").removesuffix("s")
    kind = {"tables": "its tables", "table": "the table"}.get(kind, kind)
    article = "" if kind.startswith(('"', "its", "the")) else "an " if kind[0] in "aeioAEIO" else "a "
    return f"{article}{kind}{f' in {row.range}' if row.range[0].isdigit() and kind == 'integer' else ''}"


def _suggest(loc: tuple[str | int, ...]) -> str:
    known = keys_at(loc[:-1])
    close = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"did you mean {close[0]}?" if close else f"remove it, or use one of: {', '.join(known)}"


def _shown(value: Any) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "a table"
        case list():
            return "a list"
        case _:
            text = repr(value)
            return text if len(text) <= 40 else f"{text[:37]}..."


def findings(error: ConfigError) -> Iterator[str]:
    """The lines that the daemon prints: one for each problem, the file's name first."""
    for problem in error.problems:
        yield f"{error.source}: {problem}"
