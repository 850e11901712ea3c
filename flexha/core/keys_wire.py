# SPDX-License-Identifier: Apache-2.0
"""The two messages by which a node changes its keys; the core carries them, the shell knows what they mean.

::

    keys        step cert hb     "add": believe this certificate (DER) and this heartbeat key, too;
                                 "drop": believe these only
    keys_ack    step refused     done, on disk; or why not
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flexha.core.errors import RemoteProtocolError

CERTIFICATE_BYTES_MAX: Final = 4096
HEARTBEAT_KEY_BYTES: Final = 16
REFUSAL_CHARACTERS_MAX: Final = 256


class KeysStep(StrEnum):
    """Of a change of keys."""

    ADD = "add"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Keys:
    """What the sender's keys are to be."""

    step: KeysStep
    certificate: bytes
    heartbeat: bytes

    def __repr__(self) -> str:
        return f"Keys({self.step})"  # never the key

    def fields(self) -> dict[str, object]:
        """As a message."""
        return {"t": "keys", "step": str(self.step), "cert": self.certificate, "hb": self.heartbeat}


@dataclass(frozen=True, slots=True)
class KeysAck:
    """The answer; ``refused`` is empty if it was done."""

    step: KeysStep
    refused: str = ""

    def fields(self) -> dict[str, object]:
        """As a message."""
        return {"t": "keys_ack", "step": str(self.step), "refused": self.refused[:REFUSAL_CHARACTERS_MAX]}


def _step(fields: Mapping[str, object]) -> KeysStep:
    step = fields.get("step")
    try:
        if isinstance(step, str):
            return KeysStep(step)
        raise RemoteProtocolError("bad_field", "step")
    except ValueError:
        raise RemoteProtocolError("bad_field", "step") from None


def decode_keys(fields: Mapping[str, object]) -> Keys:
    """Bounded; what is in them is for the shell to judge.

    Raises: RemoteProtocolError
    """
    certificate, heartbeat = fields.get("cert"), fields.get("hb")
    if not isinstance(certificate, bytes) or not 1 <= len(certificate) <= CERTIFICATE_BYTES_MAX:
        raise RemoteProtocolError("bad_field", "cert")
    if not isinstance(heartbeat, bytes) or len(heartbeat) != HEARTBEAT_KEY_BYTES or not any(heartbeat):
        raise RemoteProtocolError("bad_field", "hb")
    return Keys(_step(fields), certificate, heartbeat)


def decode_keys_ack(fields: Mapping[str, object]) -> KeysAck:
    """Bounded.

    Raises: RemoteProtocolError
    """
    refused = fields.get("refused", "")
    if not isinstance(refused, str) or len(refused) > REFUSAL_CHARACTERS_MAX:
        raise RemoteProtocolError("bad_field", "refused")
    return KeysAck(_step(fields), refused)
