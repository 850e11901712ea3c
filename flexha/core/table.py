# SPDX-License-Identifier: Apache-2.0
"""Total transition tables.

Every pair of state and event is a handler, ignored for a reason, a bug of ours, or an offence of the peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flexha.core.errors import LocalProtocolError, RemoteProtocolError

StateT = TypeVar("StateT")
Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Ignore:
    """The event changes nothing in this state, and that is right: ``why``."""

    why: str


@dataclass(frozen=True, slots=True)
class Impossible:
    """No correct caller can deliver this event in this state: ``why``."""

    why: str


@dataclass(frozen=True, slots=True)
class Offence:
    """No peer that follows the protocol sends this here: ``reason`` is counted, ``why`` is said."""

    reason: str
    why: str


Cell = Handler | Ignore | Impossible | Offence


class TransitionTable(Generic[StateT]):
    """``(state, event class) -> cell``; construction fails unless every pair has a cell."""

    def __init__(
        self,
        states: Iterable[StateT],
        events: Iterable[type],
        rows: Mapping[type, Mapping[StateT, Cell]],
    ) -> None:
        self.states = tuple(states)
        self.events = tuple(events)
        self._cells: dict[tuple[StateT, type], Cell] = {
            (state, event): cell for event, row in rows.items() for state, cell in row.items()
        }
        missing = [(s, e.__name__) for e in self.events for s in self.states if (s, e) not in self._cells]
        if missing or len(self._cells) != len(self.states) * len(self.events):
            raise LocalProtocolError(f"the transition table is not total: {missing}")

    def cell(self, state: StateT, event: type) -> Cell:
        """What happens to ``event`` in ``state``."""
        return self._cells[state, event]

    def handler(self, state: StateT, event: type) -> Handler | None:
        """The handler, or None for what is ignored.

        Raises: LocalProtocolError for what cannot be, RemoteProtocolError for an offence of the peer.
        """
        cell = self._cells[state, event]
        if isinstance(cell, Ignore):
            return None
        if isinstance(cell, Impossible):
            raise LocalProtocolError(f"{event.__name__} in state {state}: {cell.why}")
        if isinstance(cell, Offence):
            raise RemoteProtocolError(cell.reason, f"{event.__name__} in state {state}: {cell.why}")
        return cell
