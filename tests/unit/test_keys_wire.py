# SPDX-License-Identifier: Apache-2.0
"""The messages by which keys change: round trips, bounds, and when the core carries them. Spec: R20, R22."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from flexha.core import sync_wire
from flexha.core.errors import RemoteProtocolError
from flexha.core.keys_wire import Keys, KeysAck, KeysStep

KEYS = Keys(KeysStep.ADD, b"certificate", bytes(range(16)))
FIELDS: dict[str, Any] = {"t": "keys", "step": "add", "cert": b"certificate", "hb": bytes(range(16))}
ACK: dict[str, Any] = {"t": "keys_ack", "step": "drop", "refused": "no"}


@pytest.mark.parametrize("message", [KEYS, KeysAck(KeysStep.DROP), KeysAck(KeysStep.ADD, "busy")])
def test_round_trip(message: Keys | KeysAck) -> None:
    assert sync_wire.decode(sync_wire.encode(message)[4:]) == message


@pytest.mark.parametrize(
    ("fields", "change"),
    [
        (FIELDS, {"step": "burn"}),
        (FIELDS, {"step": 7}),
        (FIELDS, {"cert": b""}),
        (FIELDS, {"cert": bytes(4097)}),
        (FIELDS, {"cert": "text"}),
        (FIELDS, {"hb": bytes(16)}),
        (FIELDS, {"hb": b"short"}),
        (FIELDS, {"hb": b"x" * 17}),
        (FIELDS, {"hb": None}),
        (ACK, {"step": None}),
        (ACK, {"refused": "x" * 257}),
        (ACK, {"refused": 1}),
    ],
)
def test_what_no_peer_sends(fields: dict[str, Any], change: dict[str, Any]) -> None:
    assert isinstance(sync_wire.decode(msgpack.packb(fields)), Keys | KeysAck)
    with pytest.raises(RemoteProtocolError, match="bad_field"):
        sync_wire.decode(msgpack.packb(fields | change))


def test_a_long_refusal_is_cut() -> None:
    (cut,) = (sync_wire.decode(sync_wire.encode(KeysAck(KeysStep.ADD, "x" * 1000))[4:]),)
    assert isinstance(cut, KeysAck)
    assert len(cut.refused) == 256


def test_no_key_is_shown() -> None:
    assert "certificate" not in repr(KEYS)
    assert KEYS.heartbeat.hex() not in repr(KEYS)
