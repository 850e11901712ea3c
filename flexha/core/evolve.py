# SPDX-License-Identifier: Apache-2.0
"""``replace`` for the states of the pure cores, some twenty of which are made for each batch of sync.

``dataclasses.replace`` calls ``__init__``, which sets the fields of a frozen class one at a time: 8 to 15 us
for a state of 18 fields, most of what a batch cost. A copy of the dictionary is 1 us; so these classes
have no slots.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import replace as replace  # noqa: PLC0414 - which fields there are is checked by its types
else:
    T = TypeVar("T")

    def replace(state: T, /, **changes: Any) -> T:
        """``state`` with some fields changed. Classes with slots are welcome, and slow."""
        old = getattr(state, "__dict__", None)
        if old is None:
            return dataclasses.replace(state, **changes)
        new = object.__new__(state.__class__)
        fields = new.__dict__
        fields.update(old)
        fields.update(changes)
        if len(fields) != len(old):
            raise TypeError(
                f"{state.__class__.__name__} has no field {', '.join(changes.keys() - old.keys())}"
            )
        return new
