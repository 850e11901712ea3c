# SPDX-License-Identifier: Apache-2.0
"""A node's keys: the directory ``nodes.X.keys``, what its files hold, and what may be wrong with them.

==================  ========================================================================================
``node.key``        private key of this node (PKCS #8, PEM); mode 0600
``node.crt``        its certificate, signed by itself (PEM)
``peers.pem``       the peer's certificate, exactly as it is in its ``node.crt``; two while it is changed
``heartbeat.keys``  one or two keys of the heartbeats' MAC, 32 hex digits a line: the first signs, all are
                    believed; mode 0600
``*.next``          key and certificate that this node will have once the peer has pinned them
==================  ========================================================================================

There is no authority: a node trusts the certificates in its ``peers.pem`` and no other one, whoever signed
it. Files are replaced, never changed in place: what is read is what was once written as a whole.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from flexha import files
from flexha.config.naming import keys_path
from flexha.config.schema import NODE_NAMES, Config, NodeName
from flexha.errors import FlexhaError

KEY, CERTIFICATE, PEERS, HEARTBEAT = "node.key", "node.crt", "peers.pem", "heartbeat.keys"
NEXT = ".next"
FILES = (KEY, CERTIFICATE, PEERS, HEARTBEAT)
FILE_BYTES_MAX = 65536
PEERS_MAX = 2
HEARTBEAT_KEYS_MAX = 2
HEARTBEAT_KEY_BYTES = 16
CERTIFICATE_BYTES_MAX = 4096
"""DER: a self-signed certificate has some 400."""
DAYS = 3650
"""How long a certificate is valid; ``flexhactl pair rotate`` makes a new one at any time."""
CLOCK_SLACK = timedelta(days=1)
"""A certificate is valid from so long before it was made: clocks of two boxes differ."""

_KEY_TYPES = (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey)


class KeysError(FlexhaError):
    """Keys cannot be made or stored."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key and its certificate, as in the files."""

    key_pem: bytes
    certificate_pem: bytes

    @property
    def certificate(self) -> bytes:
        """DER."""
        return der_of(self.certificate_pem)


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys of a node. Without TLS there are those of heartbeats only."""

    directory: Path
    heartbeat: tuple[bytes, ...]
    """The first signs, all are believed."""
    own: Identity | None = field(default=None, repr=False)
    peers: tuple[bytes, ...] = ()
    """Certificates (DER) that the peer may have."""
    following: Identity | None = field(default=None, repr=False)
    """What ``own`` will be once the peer has pinned it."""


# ---- making -----------------------------------------------------------------------------------------------
def make_identity(name: str, now: datetime, *, days: int = DAYS) -> Identity:
    """A new Ed25519 key, and a certificate for it that says no more than whose it is."""
    key = ed25519.Ed25519PrivateKey.generate()
    serial = x509.random_serial_number()
    # No two have the same name: OpenSSL looks for a pinned certificate by its name, and takes the first one.
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}"),
        ]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + timedelta(days=days))
        # It signs itself, and nothing else.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .sign(key, None)
    )
    return Identity(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
    )


def new_heartbeat_key() -> bytes:
    """Anything but zeros, which would mean no key."""
    return secrets.token_bytes(HEARTBEAT_KEY_BYTES)


def directories(config: Config, out: Path | None) -> dict[NodeName, Path]:
    """Where ``make_pair`` puts each node's keys: below ``out``, or where the node looks for them."""
    return {
        name: out / name if out else keys_path(config, name)
        for name in NODE_NAMES
        if out or name in config.nodes
    }


def make_pair(pair: str, where: dict[NodeName, Path], now: datetime, *, days: int = DAYS) -> None:
    """Make the keys of both nodes.

    Raises: KeysError if there are keys already, or a directory cannot be written.
    """
    for directory in where.values():
        for name in FILES:
            if (directory / name).exists():
                raise KeysError(
                    f"{directory / name}: exists already, and running nodes may depend on it; to change "
                    "keys: flexhactl pair rotate; to begin anew, remove it or choose another --out"
                )
    identities = {name: make_identity(f"flexha {pair} {name}", now, days=days) for name in where}
    heartbeat = (new_heartbeat_key(),)
    for name, directory in where.items():
        others = [identities[other].certificate for other in where if other != name]
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
            write_identity(directory, identities[name])
            write_peers(directory, others)
            write_heartbeat(directory, heartbeat)
        except OSError as error:
            raise KeysError(f"{directory}: {error.strerror}; name a directory with --out") from error


# ---- writing ----------------------------------------------------------------------------------------------
def write_identity(directory: Path, identity: Identity, *, suffix: str = "") -> None:
    """Store key and certificate; ``suffix`` NEXT: beside those in use."""
    files.replace(directory / (KEY + suffix), identity.key_pem)
    files.replace(directory / (CERTIFICATE + suffix), identity.certificate_pem)


def write_peers(directory: Path, certificates: Iterable[bytes]) -> None:
    """Pin these certificates (DER), and no other ones."""
    files.replace(directory / PEERS, b"".join(map(pem_of, certificates)))


def write_heartbeat(directory: Path, keys: Iterable[bytes]) -> None:
    """The first signs, all are believed."""
    lines = "".join(f"{key.hex()}\n" for key in keys)
    files.replace(directory / HEARTBEAT, f"# The first signs, all are believed.\n{lines}".encode())


def promote(directory: Path) -> None:
    """What was next is in use. The key goes last: a pair of files that does not fit is mended by ``load``."""
    for name in (CERTIFICATE, KEY):
        with contextlib.suppress(FileNotFoundError):
            (directory / (name + NEXT)).replace(directory / name)
            files.sync_directory(directory)


def discard_next(directory: Path) -> None:
    """There will be no change."""
    for name in (CERTIFICATE, KEY):
        (directory / (name + NEXT)).unlink(missing_ok=True)
    files.sync_directory(directory)


# ---- certificates -----------------------------------------------------------------------------------------
def der_of(pem: bytes) -> bytes:
    """The first certificate of a PEM text."""
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def pem_of(der: bytes) -> bytes:
    """A certificate as text."""
    return x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, as people compare it."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(der)
    return digest.finalize().hex()


def heartbeat_id(key: bytes) -> str:
    """Names a key without telling it."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(b"flexha heartbeat key" + key)
    return digest.finalize()[:8].hex()


def validity(der: bytes) -> tuple[datetime, datetime]:
    """From when and until when it is valid."""
    certificate = x509.load_der_x509_certificate(der)
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def why_not(der: bytes, now: datetime) -> str | None:
    """What keeps a certificate from being a node's; None if nothing does."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        return f"has {len(der)} bytes, more than {CERTIFICATE_BYTES_MAX}"
    try:
        certificate = x509.load_der_x509_certificate(der)
        begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        known = isinstance(certificate.public_key(), _KEY_TYPES)
        certificate.verify_directly_issued_by(certificate)
    except Exception as error:  # noqa: BLE001 - whatever a parser or a signature has against it
        return f"is no certificate that signs itself ({type(error).__name__})"
    if not known:
        return "has a key that is neither Ed25519 nor ECDSA"
    if now < begins:
        return f"is not valid before {begins:%Y-%m-%d %H:%M} UTC (it is {now:%Y-%m-%d %H:%M})"
    if now > ends:
        return f"has expired on {ends:%Y-%m-%d %H:%M} UTC (it is {now:%Y-%m-%d %H:%M})"
    return None


# ---- reading ----------------------------------------------------------------------------------------------
class _Reader:
    """Reads a directory and collects what is wrong with it."""

    def __init__(self, directory: Path, node: str) -> None:
        self.directory = directory
        self.node = node
        self.problems: list[str] = []

    def fail(self, name: str, what: str, remedy: str) -> None:
        self.problems.append(f"{self.directory / name}: {what}; {remedy}")

    def text(self, name: str, *, private: bool = False) -> bytes | None:
        """The content of a file; None, and a problem, if it cannot be had."""
        path = self.directory / name
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode & 0o777
                data = file.read(FILE_BYTES_MAX + 1)
        except FileNotFoundError:
            self.fail(
                name,
                "is missing",
                f"make the keys of both nodes (flexhactl pair init) and put node {self.node}'s into "
                f"{self.directory}, or set nodes.{self.node}.keys",
            )
            return None
        except OSError as error:
            self.fail(
                name,
                f"cannot be read ({error.strerror})",
                "directory and files must belong to the user that flexhad runs as",
            )
            return None
        if private and mode & 0o077:
            self.fail(name, f"has mode {mode:04o}, others may use it", f"chmod 0600 {path}")
            return None
        if len(data) > FILE_BYTES_MAX:
            self.fail(name, f"is larger than {FILE_BYTES_MAX} bytes", "is this the right file?")
            return None
        return data

    def heartbeat(self) -> tuple[bytes, ...]:
        data = self.text(HEARTBEAT, private=True)
        if data is None:
            return ()
        lines = [line.strip() for line in data.decode("ascii", "replace").splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        good = all(re.fullmatch(r"[0-9a-fA-F]{32}", line) and line.strip("0") for line in lines)
        if not good or not 1 <= len(lines) <= HEARTBEAT_KEYS_MAX:
            self.fail(
                HEARTBEAT,
                "does not hold one or two keys of 32 hex digits, a line each",
                "copy the file of the other node, which has the same keys",
            )
            return ()
        return tuple(bytes.fromhex(line) for line in lines)

    def identity(self, suffix: str = "") -> Identity | None:
        key, certificate = self.text(KEY + suffix, private=True), self.text(CERTIFICATE + suffix)
        if key is None or certificate is None:
            return None
        return Identity(key, certificate)

    def following(self) -> Identity | None:
        """What is to be next. Half of it is what a crash left before anybody was told of it."""
        half = _Reader(self.directory, self.node)
        identity = half.identity(NEXT)
        return identity if identity and _fits(identity) is None else None

    def check_own(self, own: Identity, now: datetime) -> bool:
        if (problem := _fits(own)) is not None:
            self.fail(
                KEY if "key" in problem else CERTIFICATE,
                problem,
                f"put {KEY} and {CERTIFICATE} of one node here",
            )
            return False
        if (problem := why_not(own.certificate, now)) is not None:
            self.fail(
                CERTIFICATE,
                problem,
                "check the clock, or make new keys: flexhactl pair init",
            )
            return False
        return True

    def peers(self, own: Identity | None) -> tuple[bytes, ...]:
        data = self.text(PEERS)
        if data is None:
            return ()
        try:
            found = [
                certificate.public_bytes(serialization.Encoding.DER)
                for certificate in x509.load_pem_x509_certificates(data)
            ]
        except ValueError:
            found = []
        if not 1 <= len(found) <= PEERS_MAX:
            self.fail(
                PEERS, "does not hold one or two certificates", f"copy the peer's {CERTIFICATE} into it"
            )
            return ()
        if own and own.certificate in found:
            self.fail(
                PEERS,
                "holds this node's own certificate",
                f"copy the peer's {CERTIFICATE} into it; were the keys of node a and node b mixed up?",
            )
            return ()
        return tuple(found)


def _fits(identity: Identity) -> str | None:
    """What is wrong with key and certificate together."""
    try:
        key = serialization.load_pem_private_key(identity.key_pem, None)
    except (ValueError, TypeError):
        return "holds no private key without a passphrase (PEM)"
    try:
        certificate = x509.load_pem_x509_certificate(identity.certificate_pem)
    except ValueError:
        return "holds no certificate (PEM)"
    if key.public_key() != certificate.public_key():
        return f"does not fit the certificate in {CERTIFICATE}: another key"
    return None


def problems(directory: Path, node: str, now: datetime, *, tls: bool) -> Iterator[str]:
    """What is wrong with a node's keys, each with its remedy; mends what a crash left half done."""
    yield from _read(directory, node, now, tls=tls)[1]


def load(directory: Path, node: str, now: datetime, *, tls: bool) -> Keys:
    """The keys of a node.

    Raises: KeysError that lists all that is wrong.
    """
    keys, found = _read(directory, node, now, tls=tls)
    if keys is None:
        raise KeysError("\n".join(found))
    return keys


def _read(directory: Path, node: str, now: datetime, *, tls: bool) -> tuple[Keys | None, list[str]]:
    reader = _Reader(directory, node)
    if not directory.is_dir():
        reader.problems.append(
            f"{directory}: there are no keys of node {node}; make those of both nodes (flexhactl pair init), "
            f"put node {node}'s there, or set nodes.{node}.keys"
        )
        return None, reader.problems
    heartbeat = reader.heartbeat()
    if not tls:
        return (Keys(directory, heartbeat) if heartbeat else None), reader.problems
    own, following = reader.identity(), reader.following()
    if own and not following and _fits(own) is not None:
        # promote() ended between its two files.
        half = _Reader(directory, node)
        key = half.text(KEY + NEXT, private=True)
        if key and _fits(Identity(key, own.certificate_pem)) is None:
            promote(directory)
            own = Identity(key, own.certificate_pem)
    if own and not reader.check_own(own, now):
        own = None
    peers = reader.peers(own)
    if reader.problems or own is None:
        return None, reader.problems
    return Keys(directory, heartbeat, own, peers, following), []
