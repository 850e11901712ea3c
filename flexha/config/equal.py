# SPDX-License-Identifier: Apache-2.0
"""Digests of what both nodes' files must have in common, for the hello of sync (``flexha.core.agreed``).

Keyed with the pair's secret, which itself is never sent. None of it may change while the daemon runs, so a
reload of one node after the other never makes them differ.
"""

from __future__ import annotations

import hashlib
import json

from flexha.config.schema import Config
from flexha.core.agreed import KEYS_ALL, Parts

DIGEST_BYTES = 8


def parts(config: Config) -> Parts:
    """Each part that must be equal, by name, and its digest.

    ``secret``  it decides which shard a session is in, and keys the digests of the tables
    ``ports``   records carry the ranks of the ports' names, and which of them are outside decides what fits
    ``pools``   a record's external end must be in one, and who may use an end follows from it
    ``conduit`` the UDP port that each sends to
    """
    said: dict[str, object] = {
        KEYS_ALL: None,
        "ports": [[name, config.ports[name].zone] for name in sorted(config.ports)],
        "conduit": config.ha.conduit_port,
        "pools": sorted([str(p.address), p.port, p.port_lo, p.port_hi] for p in config.pools),
    }
    key = bytes.fromhex(config.pair.secret)
    return tuple((name, _digest(key, name, said[name])) for name in sorted(said))


def _digest(key: bytes, name: str, content: object) -> bytes:
    text = json.dumps([name, content]).encode()
    return hashlib.blake2b(text, key=key, digest_size=DIGEST_BYTES).digest()
