# SPDX-License-Identifier: Apache-2.0
"""TLS 1.3 for the sync connection: contexts that trust pinned certificates only, and a connection's state.

The protocol runs in memory (``ssl.MemoryBIO``): who reads and writes the socket keeps its bounds, its
timeouts and its way to end a connection, with or without TLS. OpenSSL shakes hands and says who the peer is;
then a connection can be handed over, keys and all, to a record layer that is faster (``Handed``). So that it
can be, OpenSSL is never given a byte beyond the record that it needs next.

A pinned certificate is the trust anchor and the only member of its chain; what the peer shows must besides
be, byte for byte, one of those that are pinned. Hence no names are checked, and no authority can issue
another one.
"""

from __future__ import annotations

import contextlib
import ssl
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from flexha.config import keyfiles
from flexha.config.keyfiles import CERTIFICATE, KEY, Keys
from flexha.shell.tls_secrets import (
    CLIENT_SECRET,
    HEADER_BYTES,
    SERVER_SECRET,
    SUITES,
    Half,
    KeyLog,
    client_random,
    half,
    opens,
)

HANDSHAKE_BYTES_MAX = 65536
"""What a peer may send before it has proven who it is."""

EXPIRED_REMEDY = "check the clocks, or make new keys of both nodes: pair init, see KEYS in flexha(8)"
"""Over a connection that does not come about no keys can change."""

PLAIN_BYTES_MAX = 16384
"""Of a record (RFC 8446 §5.1)."""

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
    keylog: KeyLog

    @classmethod
    def of(cls, keys: Keys, keylog: Path | None = None) -> Tls:
        """Contexts of the keys in files. ``keylog``: secrets of each connection go there, for Wireshark.

        Raises: OSError
        """
        assert keys.own is not None
        secrets = KeyLog(keylog)
        server = _context(ssl.PROTOCOL_TLS_SERVER, keys, secrets)
        server.num_tickets = 0  # each connection proves anew who it is
        client = _context(ssl.PROTOCOL_TLS_CLIENT, keys, secrets)
        return cls(server, client, frozenset(keys.peers), keys.own.certificate, secrets)


def _context(protocol: int, keys: Keys, keylog: KeyLog) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(keys.directory / CERTIFICATE, keys.directory / KEY)
    context.load_verify_locations(cadata=b"".join(keys.peers))
    keylog.tap(context)
    return context


@dataclass(frozen=True, slots=True)
class Handed:
    """All that a record layer must know to go on with a connection."""

    suite: int
    """One of ``tls_secrets.SUITES``."""
    read: Half
    write: Half
    rest: bytes
    """Of the socket, in order: records, or parts of one, that nobody has read yet."""
    plain: bytes
    """What the peer has said already: empty unless ``first_word`` was waited for."""


class TlsConnection:
    """One connection's TLS. Bytes of the socket go in by ``feed`` and come out by ``take``.

    Once ``peer`` is known another reads and writes: ``take`` what the handshake has still to say, then
    ``hand_over``. Who must not count on the connection before the peer has spoken calls ``first_word`` after
    each ``feed`` until it is True, and hands over then.
    """

    def __init__(self, tls: Tls, *, server_side: bool) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        context = tls.server if server_side else tls.client
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._server_side = server_side
        self._pinned = tls.pinned
        self._keylog = tls.keylog
        self._hello = bytearray()
        """What the client has said first, until ``_random`` is known."""
        self._random: bytes | None = None
        """The client's: lines of the key log have it for a name."""
        self._secrets: dict[str, bytes] = {}
        self._rest = bytearray()
        """Has come, and OpenSSL has not got it."""
        self._record = bytearray()
        """What OpenSSL has got of the last record: all of it once ``_missing`` is 0."""
        self._missing = 0
        self._fed = 0
        self._heard = 0
        """Records since the handshake."""
        self._word = b""
        self._handed = False
        self.own = tls.own
        """DER: what we show."""
        self.peer: bytes | None = None
        """DER: what the peer has shown; None until the handshake is over."""
        self.cipher = "none"
        """Such as TLS_AES_256_GCM_SHA384, once the handshake is over."""

    # ---- the handshake ----
    def begin(self) -> None:
        """Say the first word, or wait for it.

        Raises: Refusal
        """
        self._shake()
        if not self._server_side:
            self._hello += self._outgoing.read()  # it goes when it is taken
            self._random = client_random(self._hello)

    def feed(self, data: bytes | memoryview) -> None:
        """Bytes have come. Those behind the handshake's last record wait for who reads on.

        Raises: Refusal, during the handshake. What ``take`` gives then tells the peer why.
        """
        assert not self._handed
        self._rest += data
        while self.peer is None and (piece := self._give()):
            self._fed += len(piece)
            if self._fed > HANDSHAKE_BYTES_MAX:
                raise Refusal("garbage", f"more than {HANDSHAKE_BYTES_MAX} bytes and no handshake")
            if self._server_side and self._random is None:
                self._hello += piece
                self._random = client_random(self._hello)
                if self._random:
                    self._hello.clear()
            self._shake()

    def _give(self) -> bytearray:
        """Let OpenSSL have what there is of one record, and no more; what that was."""
        if not self._missing:
            if len(self._rest) < HEADER_BYTES:
                return bytearray()
            self._record.clear()
            self._missing = HEADER_BYTES + int.from_bytes(self._rest[3:HEADER_BYTES])
        piece = self._rest[: self._missing]
        del self._rest[: len(piece)]
        self._missing -= len(piece)
        self._record += piece
        self._incoming.write(piece)
        return piece

    def _shake(self) -> None:
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError as error:
            raise refusal(error) from None
        finally:
            self._collect()
        shown = self._object.getpeercert(binary_form=True) or b""
        if shown not in self._pinned:
            raise Refusal("foreign", f"certificate {keyfiles.fingerprint(shown)[:16]} is not pinned")
        cipher = self._object.cipher()
        assert cipher
        self.cipher = cipher[0]
        self.peer = shown

    def _collect(self) -> None:
        """Keep what OpenSSL has just logged of this connection."""
        for line in self._keylog.drain():
            if line.random == self._random:
                self._secrets[line.label] = line.secret

    def take(self) -> bytes:
        """What the protocol itself wants to say."""
        if self._hello and not self._server_side:
            said = bytes(self._hello)
            self._hello.clear()
            return said + self._outgoing.read()
        return self._outgoing.read() if self._outgoing.pending else b""

    # ---- another reads and writes on ----
    def first_word(self) -> bool:
        """Has the peer spoken? OpenSSL reads record by record until it has; ``hand_over`` gives what it said.

        For after the handshake. A client knows no sooner that the server has accepted its certificate.

        Raises: Refusal, when the peer refuses us, leaves, or speaks no TLS.
        """
        assert self.peer is not None
        assert not self._handed
        while not self._word and self._give():
            if not self._missing:
                self._heard += 1
            try:
                self._word = self._object.read(PLAIN_BYTES_MAX)
            except ssl.SSLWantReadError:  # part of a record, one without a word in it, or a ticket
                continue
            except ssl.SSLZeroReturnError:
                pass
            except ssl.SSLError as error:
                raise refusal(error) from None
            finally:
                self._collect()
            if not self._word:
                raise Refusal("left", "before it was known")
        return bool(self._word)

    def hand_over(self) -> Handed:
        """What another needs to read and write from here on; this object does neither any more.

        For after the handshake, when all has been taken. ``rest`` has what was fed and nobody has read.
        ``read.seq`` counts the records until then: none, or, after ``first_word``, as many as it took,
        tickets (NewSessionTicket) of a foreign server among them; ours sends none. Tickets may as well come
        later: who reads on passes over them.

        Raises: Refusal, when the two have agreed on what only OpenSSL speaks.
        """
        assert self.peer is not None
        assert not self._handed
        assert not self._missing
        assert not self._outgoing.pending
        if self.cipher not in SUITES:
            raise Refusal("garbage", f"{self.cipher} is not spoken here")
        suite = SUITES[self.cipher]
        of_client, of_server = (
            half(suite, self._secrets[CLIENT_SECRET]),
            half(suite, self._secrets[SERVER_SECRET]),
        )
        read, write = (of_client, of_server) if self._server_side else (of_server, of_client)
        if self._heard and not opens(suite, replace(read, seq=self._heard - 1), self._record):
            # What OpenSSL may owe for it (RFC 8446 §4.6.3) cannot be handed over.
            raise Refusal("garbage", "a KeyUpdate before the first word")
        handed = Handed(suite, replace(read, seq=self._heard), write, bytes(self._rest), self._word)
        # Whatever OpenSSL sealed from here on would use a nonce twice, and give the key away.
        self._handed = True
        self._secrets.clear()
        self._rest.clear()
        self._record.clear()
        self._word = b""
        del self._object, self._keylog
        return handed

    # ---- the end ----
    def close(self) -> bytes:
        """The last word. Who has been handed the connection says it himself."""
        if self._handed:
            return b""
        if self.peer is not None:
            with contextlib.suppress(ssl.SSLError):  # the peer's own last word is not waited for
                self._object.unwrap()
        return self.take()


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
