# SPDX-License-Identifier: Apache-2.0
"""Whose fault it is: theirs (counted, the session ends) or ours (a bug, raised)."""

from __future__ import annotations


class RemoteProtocolError(Exception):
    """The other end broke a protocol. ``reason`` is a word that a counter can carry."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class LocalProtocolError(Exception):
    """We broke our own contract: a bug in flexha or in what calls its core, never the other end's doing."""
