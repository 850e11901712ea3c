# SPDX-License-Identifier: Apache-2.0
"""The keys in use: what the files hold, and the TLS contexts made of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from flexha.config import keyfiles
from flexha.config.derive import NodePlan
from flexha.config.keyfiles import Keys, KeysError, fingerprint
from flexha.errors import StartError
from flexha.shell import log
from flexha.shell.tls import Tls, expires_within

EXPIRY_WARNING_DAYS = 30.0
EXPIRY_LOOK_S = 86400.0


class Keyring:
    """Of one node; ``reload`` after files have changed."""

    def __init__(self, directory: Path, node: str, *, tls: bool, keylog: Path | None = None) -> None:
        self._directory = directory
        self._node = node
        self._tls = tls
        self._keylog = keylog
        self.keys: Keys
        self.tls: Tls | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.reload()

    @classmethod
    def load(cls, plan: NodePlan, keylog: Path | None) -> Keyring | None:
        """The keys of a node that has a peer.

        Raises: StartError
        """
        if plan.keys is None:
            return None
        try:
            ring = cls(plan.keys.directory, plan.name, tls=plan.keys.tls, keylog=keylog)
        except (KeysError, OSError) as error:
            raise StartError(str(error)) from error
        if ring.keys.own:
            log.info("keys.loaded", certificate=fingerprint(ring.keys.own.certificate)[:16])
        else:
            log.warning("keys.sync_in_the_clear", remedy="set sync.tls = true")
        if keylog:
            log.warning("keys.tls_keylog", file=keylog, meaning="whoever reads it can read sync")
        return ring

    def start(self) -> None:
        """Look at the certificates now and each day: a node runs for years."""
        self.warn_of_expiry()
        self._timer = asyncio.get_running_loop().call_later(EXPIRY_LOOK_S, self.start)

    def stop(self) -> None:
        """Look no more."""
        if self._timer:
            self._timer.cancel()

    def reload(self) -> None:
        """Read the files anew.

        Raises: KeysError, OSError
        """
        self.keys = keyfiles.load(self._directory, self._node, datetime.now(UTC), tls=self._tls)
        if self._tls:
            self.tls = Tls.of(self.keys, self._keylog)

    def warn_of_expiry(self) -> None:
        """A certificate that ends ends sync."""
        named = [("own", self.keys.own.certificate)] if self.keys.own else []
        named += [("peer", certificate) for certificate in self.keys.peers]
        for whose, certificate in named:
            if ends := expires_within(certificate, EXPIRY_WARNING_DAYS):
                log.warning("keys.expiry", whose=whose, ends=ends, remedy="flexhactl pair rotate")
