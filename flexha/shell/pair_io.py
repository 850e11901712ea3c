# SPDX-License-Identifier: Apache-2.0
"""``flexhactl pair``: the keys of this node, and of its peer, as far as anybody may know them."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from flexha.config.keyfiles import fingerprint, heartbeat_id, validity
from flexha.shell.control import Args, RequestError, Result
from flexha.shell.keyring import Keyring
from flexha.shell.sync_io import SyncIo


class PairIo:
    """Serves ``pair_show``."""

    def __init__(self, keyring: Keyring | None, sync: SyncIo | None) -> None:
        self._keyring = keyring
        self._sync = sync

    async def show(self, _args: Args) -> Result:
        """No secret is part of it."""
        if self._keyring is None:
            raise RequestError(
                "this node has no peer, hence no keys; add the other node to the configuration"
            )
        keys = self._keyring.keys
        tls = self._sync.tls if self._sync else None
        return json.dumps(
            {
                "directory": str(keys.directory),
                "own": _certificate(keys.own.certificate) if keys.own else None,
                "next": _certificate(keys.following.certificate) if keys.following else None,
                "peers": [_certificate(certificate) for certificate in keys.peers],
                "heartbeat_keys": [heartbeat_id(key) for key in keys.heartbeat],
                "connection": {
                    "cipher": tls.cipher,
                    "own": fingerprint(tls.own),
                    "peer": fingerprint(tls.peer),
                }
                if tls and tls.peer
                else None,
            }
        )


def _certificate(der: bytes) -> dict[str, object]:
    begins, ends = validity(der)
    return {
        "sha256": fingerprint(der),
        "begins": f"{begins:%Y-%m-%dT%H:%M:%SZ}",
        "ends": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
        "days_left": (ends - datetime.now(UTC)).days,
    }
