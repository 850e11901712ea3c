# SPDX-License-Identifier: Apache-2.0
"""``flexhactl pair init``: makes the keys of both nodes, without a daemon."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from flexha.config import keyfiles
from flexha.config.load import load
from flexha.config.naming import keys_path


def run(config: Path, out: Path | None, days: int) -> dict[str, object]:
    """Make them; where they are, and what is to be done with them.

    Raises: ConfigError, KeysError
    """
    pair = load(config)
    where = keyfiles.directories(pair, out)
    keyfiles.make_pair(pair.pair.name, where, datetime.now(UTC), days=days)
    lines = []
    for name, directory in where.items():
        lines.append(f"node {name}: {directory}")
        if name in pair.nodes and directory != (place := keys_path(pair, name)):
            lines.append(
                f"  put it into {place} on node {name}, for the user that flexhad runs as, mode 0700"
            )
    return {
        "text": "\n".join(lines),
        "nodes": {
            name: {
                "directory": str(directory),
                "certificate": keyfiles.fingerprint(
                    keyfiles.der_of((directory / keyfiles.CERTIFICATE).read_bytes())
                ),
            }
            for name, directory in where.items()
        },
    }
