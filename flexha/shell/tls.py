# SPDX-License-Identifier: Apache-2.0
"""TLS 1.3 for the sync connection: contexts that trust pinned certificates only, and a connection's state.

The protocol runs in memory (``ssl.MemoryBIO``): who reads and writes the socket keeps its bounds, its
timeouts and its way to end a connection, with or without TLS.

A pinned certificate is the trust anchor and the only member of its chain; what the peer shows must besides
be, byte for byte, one of those that are pinned. Hence no names are checked, and no authority can issue
another one.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from flexha.config import keyfiles
from flexha.config.keyfiles import CERTIFICATE, KEY, Keys

HANDSHAKE_BYTES_MAX = 65536
"""What a peer may send before it has proven who it is."""

EXPIRED_REMEDY = "check the clocks, or make new keys of both nodes: pair init, see KEYS in flexha(8)"
"""Over a connection that does not come about no keys can change."""

_EXPIRED, _NOT_YET_VALID = 10, 9
"""X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID."""


class Refusal(Exception):  # noqa: N818 - it is no fault of ours
    """Why a connection is not to be: a word for the counter, and what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Tls:
    """What connections are made with: this node's certificate, and the peer's."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    pinned: frozenset[bytes]
    own: bytes

    @classmethod
    def of(cls, keys: Keys, keylog: Path | None = None) -> Tls:
        """Contexts of the keys in files. ``keylog``: secrets of each connection go there, for Wireshark."""
        assert keys.own is not None
        server = _context(ssl.PROTOCOL_TLS_SERVER, keys, keylog)
        server.num_tickets = 0  # each connection proves anew who it is
        client = _context(ssl.PROTOCOL_TLS_CLIENT, keys, keylog)
        return cls(server, client, frozenset(keys.peers), keys.own.certificate)


def _context(protocol: int, keys: Keys, keylog: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(keys.directory / CERTIFICATE, keys.directory / KEY)
    context.load_verify_locations(cadata=b"".join(keys.peers))
    if keylog:
        context.keylog_filename = str(keylog)
    return context


class TlsConnection:
    """One connection's TLS. Bytes of the socket go in by ``feed`` and come out by ``take``."""

    def __init__(self, tls: Tls, *, server_side: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        context = tls.server if server_side else tls.client
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._pinned = tls.pinned
        self._fed = 0
        self.own = tls.own
        """DER: what we show."""
        self.peer: bytes | None = None
        """DER: what the peer has shown; None until the handshake is over."""

    def begin(self) -> None:
        """Say the first word, or wait for it.

        Raises: Refusal
        """
        self._shake()

    def feed(self, data: bytes | memoryview) -> None:
        """Bytes have come.

        Raises: Refusal, during the handshake. What ``take`` gives then tells the peer why.
        """
        self._incoming.write(data)
        if self.peer is None:
            self._fed += len(data)
            if self._fed > HANDSHAKE_BYTES_MAX:
                raise Refusal("garbage", f"more than {HANDSHAKE_BYTES_MAX} bytes and no handshake")
            self._shake()

    def _shake(self) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise refusal(error) from None
        shown = self._object.getpeercert(binary_form=True) or b""
        if shown not in self._pinned:
            raise Refusal("foreign", f"certificate {keyfiles.fingerprint(shown)[:16]} is not pinned")
        self.peer = shown

    def plain(self, size: int) -> Iterator[bytes]:
        """What the peer said, ``size`` bytes at most at a time; an empty one at its end.

        Raises: Refusal, when it is no longer TLS, or the peer refuses us.
        """
        while True:
            try:
                data = self._object.read(size)
            except ssl.SSLWantReadError:
                return
            except ssl.SSLZeroReturnError:
                data = b""
            except ssl.SSLError as error:
                raise refusal(error) from None
            yield data
            if not data or not (self._incoming.pending or self._object.pending()):
                return  # there is no more, and to be told so by an exception is not free

    def write(self, data: bytes) -> bytes:
        """What goes to the socket for it; only after the handshake."""
        self._object.write(data)
        return self._outgoing.read()

    def take(self) -> bytes:
        """What the protocol itself wants to say."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def close(self) -> bytes:
        """The last word."""
        if self.peer is not None:
            with contextlib.suppress(ssl.SSLError):  # the peer's own last word is not waited for
                self._object.unwrap()
        return self._outgoing.read()

    @property
    def cipher(self) -> str:
        """Such as TLS_AES_256_GCM_SHA384."""
        cipher = self._object.cipher()
        return cipher[0] if cipher else "none"


def refusal(error: ssl.SSLError) -> Refusal:
    """What OpenSSL says, in one of few words."""
    detail = error.reason or str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in {_EXPIRED, _NOT_YET_VALID}:
            return Refusal("expired", f"{error.verify_message}; {EXPIRED_REMEDY}")
        return Refusal("foreign", error.verify_message)
    if "ALERT" in detail:
        return Refusal("refused", f"the peer says {detail}")
    if detail == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return Refusal("foreign", "the peer has shown no certificate")
    return Refusal("garbage", detail)


def expires_within(certificate: bytes, days: float) -> datetime | None:
    """When it expires, if that is soon."""
    _, ends = keyfiles.validity(certificate)
    left = (ends - datetime.now(UTC)).total_seconds()
    return ends if left < days * 86400 else None
