# SPDX-License-Identifier: Apache-2.0
"""Transition tables are total, or they are not made."""

from __future__ import annotations

import pytest

from flexha.core import role, role_state, sync, sync_wire, vrrp
from flexha.core.errors import LocalProtocolError, RemoteProtocolError
from flexha.core.table import Ignore, Impossible, Offence, TransitionTable


class Ping:
    pass


class Pong:
    pass


def handler() -> None:
    pass


TABLE = TransitionTable(
    "AB",
    (Ping, Pong),
    {
        Ping: {"A": handler, "B": Ignore("deaf")},
        Pong: {"A": Impossible("nobody asked"), "B": Offence("rude", "nobody asked")},
    },
)


def test_a_hole_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="not total"):
        TransitionTable("AB", (Ping, Pong), {Ping: {"A": handler, "B": handler}, Pong: {"A": handler}})


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="not total"):
        TransitionTable("A", (Ping,), {Ping: {"A": handler}, Pong: {"A": handler}})


def test_cells() -> None:
    assert TABLE.handler("A", Ping) is handler
    assert TABLE.handler("B", Ping) is None
    with pytest.raises(LocalProtocolError, match="Pong in state A: nobody asked"):
        TABLE.handler("A", Pong)
    with pytest.raises(RemoteProtocolError, match="rude: Pong in state B: nobody asked"):
        TABLE.handler("B", Pong)


@pytest.mark.parametrize("table", [role.TABLE, vrrp.TABLE, sync.MESSAGES], ids=["role", "vrrp", "sync"])
def test_the_cores_tables_are_total_and_give_reasons(table: TransitionTable[object]) -> None:
    for state in table.states:
        for event in table.events:
            cell = table.cell(state, event)
            assert callable(cell) or len(cell.why) > 10, (state, event)


def test_the_tables_know_every_event() -> None:
    """A new event class without a row would be found by the first one in the field, too late."""
    assert set(role.TABLE.events) == set(role_state.Input.__args__)
    assert set(vrrp.TABLE.events) == set(vrrp.Input.__args__)
    assert set(sync.MESSAGES.events) == set(sync_wire.Message.__args__)
