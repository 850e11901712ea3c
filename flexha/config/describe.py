# SPDX-License-Identifier: Apache-2.0
"""The schema as rows for people: key, type, default, range, meaning. One walk over the models feeds
``flexhad --print-schema``, the remedies in error messages and the check that the man page is complete.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flexha.config.schema import Config
from flexha.config.values import Kind

ANY = "*"
"""Stands for a name that the user chooses, or an index, in ``Row.path``."""

_SCALARS = {str: "string", int: "integer", bool: "boolean"}
_PLACEHOLDERS = {"ports": "NAME", "nodes": "X"}


@dataclass(frozen=True, slots=True)
class Row:
    """One key of the file. ``type`` is "table" for a section; ``default`` is "required" if there is none."""

    path: tuple[str, ...]
    key: str
    type: str
    default: str
    range: str
    meaning: str


def _unwrap(annotation: Any) -> tuple[Any, list[Any]]:
    """Strip ``Annotated`` and ``| None``: the bare type, and the metadata found on the way."""
    metadata: list[Any] = []
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            annotation, *extra = get_args(annotation)
            for item in extra:
                metadata += item.metadata if isinstance(item, FieldInfo) else [item]
        elif origin in {Union, types.UnionType}:
            annotation = next(arg for arg in get_args(annotation) if arg is not type(None))
        else:
            return annotation, metadata


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _type_name(annotation: Any, metadata: list[Any]) -> str:
    for item in metadata:
        if isinstance(item, Kind):
            return item.name
    if get_origin(annotation) is Literal:
        return " | ".join(_literal(value) for value in get_args(annotation))
    if get_origin(annotation) is tuple:
        return f"list of {_type_name(*_unwrap(get_args(annotation)[0]))}"
    return _SCALARS.get(annotation, "table")


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is None or field.default_factory is not None or field.default == ():
        return "-"
    return _literal(field.default)


def _range(metadata: list[Any]) -> str:
    low = next((item.ge for item in metadata if isinstance(item, Ge)), None)
    high = next((item.le for item in metadata if isinstance(item, Le)), None)
    if low is not None or high is not None:
        return f"{low}..{high}"
    few = next((item.min_length for item in metadata if isinstance(item, MinLen)), 0)
    many = next((item.max_length for item in metadata if isinstance(item, MaxLen)), None)
    return f"{few}..{many} entries" if many is not None else "-"


def _walk(model: type[BaseModel], path: tuple[str, ...], key: str) -> Iterator[Row]:
    for name, field in model.model_fields.items():
        name = field.alias or name  # noqa: PLW2901 - what the file calls it
        annotation, metadata = _unwrap(field.annotation)
        metadata = [*field.metadata, *metadata]
        here, here_key = (*path, name), f"{key}.{name}" if key else name
        origin, args = get_origin(annotation), get_args(annotation)
        inner: Any = None
        if _is_section(annotation):
            inner = annotation
        elif origin is dict:
            inner = _unwrap(args[1])[0]
        elif origin is tuple and _is_section(_unwrap(args[0])[0]):
            inner = _unwrap(args[0])[0]
        type_name = _type_name(annotation, metadata) if inner is None else "table"
        if origin is dict:
            type_name = "tables"
        elif inner is not None and origin is tuple:
            type_name = "list of tables"
        yield Row(here, here_key, type_name, _default(field), _range(metadata), field.description or "")
        if inner is not None:
            below, below_key = here, here_key
            if origin is dict:
                below, below_key = (*here, ANY), f"{here_key}.{_PLACEHOLDERS[name]}"
            elif origin is tuple:
                below, below_key = (*here, ANY), f"{here_key}[]"
            yield from _walk(inner, below, below_key)


@cache
def rows() -> tuple[Row, ...]:
    """All keys, in the order of the schema."""
    return tuple(_walk(Config, (), ""))


def row_at(path: tuple[str | int, ...]) -> Row | None:
    """The row of a concrete key such as ``("ports", "lan", "vips", 0)``."""
    for row in rows():
        if len(row.path) > len(path) or any(
            want not in {ANY, have} for want, have in zip(row.path, path, strict=False)
        ):
            continue
        if all(isinstance(rest, int) for rest in path[len(row.path) :]):
            return row
    return None


def keys_at(path: tuple[str | int, ...]) -> list[str]:
    """The known keys of the table at this concrete path."""
    return [
        row.path[-1]
        for row in rows()
        if len(row.path) == len(path) + 1
        and row.path[-1] != ANY
        and all(want in {ANY, have} for want, have in zip(row.path[:-1], path, strict=True))
    ]


def render() -> str:
    """The schema as a text table, as ``flexhad --print-schema`` shows it."""
    cells = [("KEY", "TYPE", "DEFAULT", "RANGE", "MEANING")]
    cells += [(row.key, row.type, row.default, row.range, row.meaning) for row in rows()]
    widths = [max(len(cell[column]) for cell in cells) for column in range(4)]
    lines = (
        "  ".join([*(text.ljust(width) for text, width in zip(cell[:4], widths, strict=True)), cell[4]])
        for cell in cells
    )
    return "\n".join(lines) + "\n"
