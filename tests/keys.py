# SPDX-License-Identifier: Apache-2.0
"""Keys for tests: a pair's, a stranger's, and those that are past their time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from flexha.config import keyfiles
from flexha.config.keyfiles import Identity, Keys
from flexha.config.schema import NODE_NAMES


def make_pair(directory: Path) -> dict[str, Path]:
    """Keys of node a and node b in ``directory``/a and /b."""
    where = {name: directory / name for name in NODE_NAMES}
    keyfiles.make_pair("test", where, datetime.now(UTC))
    return {str(name): path for name, path in where.items()}


def load(directory: Path, node: str = "a") -> Keys:
    return keyfiles.load(directory, node, datetime.now(UTC), tls=True)


def expired() -> Identity:
    """Its time was a month a year ago."""
    return keyfiles.make_identity("expired", datetime.now(UTC) - timedelta(days=365), days=30)


def to_come() -> Identity:
    return keyfiles.make_identity("to come", datetime.now(UTC) + timedelta(days=30))


def stranger() -> Identity:
    return keyfiles.make_identity("stranger", datetime.now(UTC))


def give(directory: Path, identity: Identity) -> None:
    """The node in ``directory`` has this key from now on."""
    keyfiles.write_identity(directory, identity)


def pin(directory: Path, *identities: Identity) -> None:
    """The node in ``directory`` trusts these from now on."""
    keyfiles.write_peers(directory, [identity.certificate for identity in identities])
