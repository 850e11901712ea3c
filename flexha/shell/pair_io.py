# SPDX-License-Identifier: Apache-2.0
"""``flexhactl pair``: the keys of this node, and of its peer, as far as anybody may know them."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from flexha.config.keyfiles import fingerprint, heartbeat_id, validity
from flexha.shell.control import Args, RequestError, Result
from flexha.shell.keyring import Keyring
from flexha.shell.rotation import Rotation, RotationError
from flexha.shell.sync_io import SyncIo

ROTATE_TIMEOUT_S = 10.0
_NO_PEER = "this node has no peer, hence no keys; add the other node to the configuration"


class PairIo:
    """Serves ``pair_show`` and ``pair_rotate``."""

    def __init__(self, keyring: Keyring | None, sync: SyncIo | None, rotation: Rotation | None) -> None:
        self._keyring = keyring
        self._sync = sync
        self._rotation = rotation

    async def show(self, _args: Args) -> Result:
        """No secret is part of it."""
        if self._keyring is None:
            raise RequestError(_NO_PEER)
        keys = self._keyring.keys
        tls = self._sync.tls if self._sync else None
        return json.dumps(
            {
                "directory": str(keys.directory),
                "own": _certificate(keys.own.certificate) if keys.own else None,
                "next": _certificate(keys.following.certificate) if keys.following else None,
                "peers": [_certificate(certificate) for certificate in keys.peers],
                "rotation": self._rotation.under_way() if self._rotation else None,
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

    async def rotate(self, _args: Args) -> Result:
        """New keys for this node, and for heartbeats; done when both nodes have nothing else."""
        if self._rotation is None:
            raise RequestError(_NO_PEER)
        try:
            async with asyncio.timeout(ROTATE_TIMEOUT_S):
                result = await self._rotation.begin()
        except RotationError as error:
            raise RequestError(f"the keys are as they were, or not yet changed: {error}") from error
        except TimeoutError as error:
            raise RequestError(
                "not finished: it goes on when the peer is connected again; see flexhactl pair show"
            ) from error
        text = f"new certificate {result['certificate']}, valid until {result['ends']}"
        return json.dumps({**result, "text": text})


def _certificate(der: bytes) -> dict[str, object]:
    begins, ends = validity(der)
    return {
        "sha256": fingerprint(der),
        "begins": f"{begins:%Y-%m-%dT%H:%M:%SZ}",
        "ends": f"{ends:%Y-%m-%dT%H:%M:%SZ}",
        "days_left": (ends - datetime.now(UTC)).days,
    }
