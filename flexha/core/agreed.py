# SPDX-License-Identifier: Apache-2.0
"""What must be equal in both nodes' configuration, or one cannot use the other's records.

Each says in its hello a digest of every part (``flexha.config.equal``). Where one differs there is no sync:
records would be refused one by one, and no sweep would ever make both tables equal. A part that only one of
both names is of another version, and not compared.
"""

from __future__ import annotations

from typing import Final

KEYS_ALL: Final = "secret"
"""The part that keys all others: while it differs, so do they."""

REMEDIES: Final = {
    KEYS_ALL: "compare pair.secret in both nodes' files",
    "conduit": "compare ha.conduit_port in both nodes' files",
    "ports": "compare the names and zones of [ports] in both nodes' files",
    "pools": "compare [[pools]] in both nodes' files",
}

Parts = tuple[tuple[str, bytes], ...]
"""Name of a part and its digest, by name."""


def differing(ours: Parts, theirs: Parts) -> tuple[str, ...]:
    """Names of the parts that differ."""
    other = dict(theirs)
    names = tuple(name for name, digest in ours if other.get(name, digest) != digest)
    return (KEYS_ALL,) if KEYS_ALL in names else names


def same(ours: Parts, theirs: Parts) -> bool:
    """Whether it is known that all of it is equal."""
    return bool(ours) and set(ours) <= set(theirs)


def remedy(names: tuple[str, ...]) -> str:
    """What to do about it."""
    return "; ".join(REMEDIES[name] for name in names) + "; restart the node whose file is wrong"
