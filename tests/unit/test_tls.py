# SPDX-License-Identifier: Apache-2.0
"""TLS in memory: secrets, keys, and a connection handed over to another record layer. Spec: R22."""

from __future__ import annotations

import hmac
import shutil
import socket
import ssl
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keys as testkeys
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from flexha.config import keyfiles
from flexha.shell import tls as tls_module
from flexha.shell.tls import Handed, Refusal, Tls, TlsConnection
from flexha.shell.tls_secrets import SUITES, Half, KeyLog, client_random, expand_label, half, opens, updated

ALERT, HANDSHAKE, DATA = 21, 22, 23
KEY_UPDATE, ASKED = b"\x18\0\0\x01", b"\x01"
LINES = {
    "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
    "SERVER_HANDSHAKE_TRAFFIC_SECRET",
    "CLIENT_TRAFFIC_SECRET_0",
    "SERVER_TRAFFIC_SECRET_0",
    "EXPORTER_SECRET",
}


# ---- a record layer, written from RFC 8446 §5.2, on cryptography's ciphers ----


def cipher(suite: int, key: bytes) -> AESGCM | ChaCha20Poly1305:
    return ChaCha20Poly1305(key) if suite == 0x1303 else AESGCM(key)


def nonce(keys: Half) -> bytes:
    return bytes(a ^ b for a, b in zip(keys.iv, keys.seq.to_bytes(12), strict=True))


def sealed(suite: int, keys: Half, plain: bytes, kind: int = DATA) -> tuple[bytes, Half]:
    """A record, and the keys of the next one."""
    header = b"\x17\x03\x03" + (len(plain) + 17).to_bytes(2)
    record = header + cipher(suite, keys.key).encrypt(nonce(keys), plain + bytes([kind]), header)
    return record, replace(keys, seq=keys.seq + 1)


def unsealed(suite: int, keys: Half, records: bytes) -> tuple[list[tuple[int, bytes]], Half]:
    """What is in whole records: of which kind, and what; and the keys of the next one."""
    found = []
    while records:
        size = 5 + int.from_bytes(records[3:5])
        header, body, records = records[:5], records[5:size], records[size:]
        inner = cipher(suite, keys.key).decrypt(nonce(keys), body, header).rstrip(b"\0")
        found.append((inner[-1], inner[:-1]))
        keys = replace(keys, seq=keys.seq + 1)
    return found, keys


# ---- two ends ----


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    return testkeys.make_pair(tmp_path)


@pytest.fixture
def ends(pair: dict[str, Path]) -> tuple[TlsConnection, TlsConnection]:
    """Node a, which listens, and node b."""
    return made(Tls.of(testkeys.load(pair["a"])), Tls.of(testkeys.load(pair["b"])))


def made(a: Tls, b: Tls) -> tuple[TlsConnection, TlsConnection]:
    server, client = TlsConnection(a, server_side=True), TlsConnection(b, server_side=False)
    server.begin()
    client.begin()
    return server, client


def shake(server: TlsConnection, client: TlsConnection, *, behind: bytes = b"", piece: int = 1 << 20) -> None:
    """The whole handshake, in pieces; ``behind`` comes in one read with its last record."""
    while client.peer is None or server.peer is None:
        said = client.take()
        if client.peer is not None:
            said += behind
        for at in range(0, len(said), piece):
            server.feed(said[at : at + piece])
        answer = server.take()
        assert said or answer
        for at in range(0, len(answer), piece):
            client.feed(answer[at : at + piece])
    assert (server.take(), client.take()) == (b"", b"")


def peer_of(directory: Path, *, server_side: bool, tickets: int = 2) -> ssl.SSLContext:
    """What any program would make of the node's keys."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(directory / "node.crt", directory / "node.key")
    context.load_verify_locations(cadata=b"".join(testkeys.load(directory).peers))
    if server_side:
        context.num_tickets = tickets
    return context


class Peer:
    """One that knows nothing of us: the stdlib's ``ssl``."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side)
        self.stands = False

    def shake(self, ours: TlsConnection) -> bytes:
        """The handshake with ours; what it has said behind that, if it is a server."""
        ours.begin()
        while not (self.stands and ours.peer):
            self.incoming.write(ours.take())
            try:
                self.object.do_handshake()
                self.stands = True
            except ssl.SSLWantReadError:
                pass
            if ours.peer is None:
                ours.feed(self.outgoing.read())
        return self.outgoing.read()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# ---- keys ----


# RFC 8448 section 3: a 1-RTT handshake with TLS_AES_128_GCM_SHA256. Each side sends the octets 0 to 49, the
# server as its second record, after a NewSessionTicket.
RFC_8448 = [
    pytest.param(
        "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5",
        "17422dda596ed5d9acd890e3c63f5051",
        "5b78923dee08579033e523d9",
        0,
        "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e"
        "1f5a6292a2977014bd1e3deae63aeebb21694915e4",
        id="client",
    ),
    pytest.param(
        "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643",
        "9f02283b6c9c07efc26bb9f2ac92e356",
        "cf782b88dd83549aadf1e984",
        1,
        "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c"
        "4bf2e5f0a21c0047c2abf332540dd032e167c2955d",
        id="server",
    ),
]


@pytest.mark.parametrize(("secret", "key", "iv", "seq", "record"), RFC_8448)
def test_keys_are_those_of_rfc_8448(secret: str, key: str, iv: str, seq: int, record: str) -> None:
    keys = half(0x1301, bytes.fromhex(secret), seq)
    assert (keys.key.hex(), keys.iv.hex(), keys.secret.hex()) == (key, iv, secret)
    found, following = unsealed(0x1301, keys, bytes.fromhex(record))
    assert found == [(DATA, bytes(range(50)))]
    assert following.seq == seq + 1
    assert opens(0x1301, keys, bytes.fromhex(record))
    assert not opens(0x1301, following, bytes.fromhex(record))
    assert not opens(0x1301, updated(0x1301, keys), bytes.fromhex(record))


@pytest.mark.parametrize(
    ("suite", "hash_name", "hash_bytes", "key_bytes"),
    [(0x1301, "sha256", 32, 16), (0x1302, "sha384", 48, 32), (0x1303, "sha256", 32, 32)],
)
def test_after_a_key_update_come_the_keys_of_the_next_secret(
    suite: int, hash_name: str, hash_bytes: int, key_bytes: int
) -> None:
    """The HkdfLabel octet by octet (RFC 8446 §7.1); no size is above the hash's, so HMAC turns once."""
    secret = bytes(range(hash_bytes))

    def expanded(of: bytes, label: bytes, size: int) -> bytes:
        info = bytes([0, size, len(label)]) + label + b"\x00" + b"\x01"
        return hmac.digest(of, info, hash_name)[:size]

    keys = updated(suite, replace(half(suite, secret), seq=77))
    assert keys.secret == expanded(secret, b"tls13 traffic upd", hash_bytes)
    assert keys.key == expanded(keys.secret, b"tls13 key", key_bytes)
    assert keys.iv == expanded(keys.secret, b"tls13 iv", 12)
    assert keys.seq == 0


def test_what_is_longer_than_a_hash_goes_on_where_it_was() -> None:
    long = expand_label("sha256", b"s" * 32, "key", 100)
    assert len(long) == 100
    assert len({long[at : at + 32] for at in range(0, 96, 32)}) == 3


# ---- hand-over ----


@pytest.mark.parametrize("piece", [1, 700, 1 << 20])
def test_what_one_seals_the_other_opens(ends: tuple[TlsConnection, TlsConnection], piece: int) -> None:
    server, client = ends
    shake(server, client, piece=piece)
    a, b = server.hand_over(), client.hand_over()
    assert a.suite == b.suite == SUITES[server.cipher]
    assert (a.read, a.write) == (b.write, b.read)
    assert (a.read.seq, a.write.seq) == (0, 0)
    assert (a.rest, a.plain, b.rest, b.plain) == (b"", b"", b"", b"")
    for ours, theirs in ((a.write, b.read), (b.write, a.read)):
        first, following = sealed(a.suite, ours, b"one")
        second, _ = sealed(a.suite, following, b"two")
        assert unsealed(b.suite, theirs, first + second)[0] == [(DATA, b"one"), (DATA, b"two")]
        with pytest.raises(InvalidTag):
            unsealed(b.suite, theirs, second)


@pytest.mark.parametrize("way", ["forth", "back"])
def test_who_has_handed_over_says_nothing_more(ends: tuple[TlsConnection, TlsConnection], way: str) -> None:
    """A record that OpenSSL sealed now would have the number of one that another seals."""
    shake(*ends)
    one = ends[0] if way == "forth" else ends[1]
    name, peer = one.cipher, one.peer
    one.hand_over()
    assert one.close() == b""
    assert one.take() == b""
    with pytest.raises(AssertionError):
        one.feed(b"lost")
    with pytest.raises(AssertionError):
        one.hand_over()
    assert (one.cipher, one.peer) == (name, peer)  # whom we speak with, and how, is still asked


def test_a_cipher_that_only_openssl_speaks_is_a_refusal(ends: tuple[TlsConnection, TlsConnection]) -> None:
    """One that somebody has switched on in openssl.cnf: ``ssl`` cannot switch it off."""
    shake(*ends)
    ends[0].cipher = "TLS_AES_128_CCM_SHA256"
    with pytest.raises(Refusal, match="TLS_AES_128_CCM_SHA256"):
        ends[0].hand_over()


def test_what_comes_with_the_last_of_the_handshake_is_not_read(pair: dict[str, Path]) -> None:
    """A client may speak at once: then it is in one segment with its Finished."""
    server = TlsConnection(Tls.of(testkeys.load(pair["a"])), server_side=True)
    peer = Peer(peer_of(pair["b"], server_side=False), server_side=False)
    server.begin()
    with pytest.raises(ssl.SSLWantReadError):
        peer.object.do_handshake()
    server.feed(peer.outgoing.read())
    peer.incoming.write(server.take())
    peer.object.do_handshake()
    peer.object.write(b"early")
    peer.object.write(b"and more")
    said = peer.outgoing.read()
    server.feed(said[:-10])
    assert server.peer
    server.feed(said[-10:-7])  # who hands over later may feed meanwhile
    assert server.take() == b""
    handed = server.hand_over()
    assert handed.read.seq == 0
    assert handed.plain == b""
    assert unsealed(handed.suite, handed.read, handed.rest + said[-7:])[0] == [
        (DATA, b"early"),
        (DATA, b"and more"),
    ]
    record, _ = sealed(handed.suite, handed.write, b"welcome")
    peer.incoming.write(record)
    assert peer.object.read() == b"welcome"


def test_much_behind_the_handshake_is_no_part_of_it(pair: dict[str, Path]) -> None:
    server = TlsConnection(Tls.of(testkeys.load(pair["a"])), server_side=True)
    peer = Peer(peer_of(pair["b"], server_side=False), server_side=False)
    peer.shake(server)
    peer.object.write(b"x" * 100_000)
    said = peer.outgoing.read()
    assert len(said) > tls_module.HANDSHAKE_BYTES_MAX
    server.feed(said)
    handed = server.hand_over()
    assert handed.rest == said


@pytest.mark.parametrize("tickets", [0, 2])
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_a_client_waits_for_the_first_word_of_a_foreign_server(
    pair: dict[str, Path], tickets: int, piece: int
) -> None:
    client = TlsConnection(Tls.of(testkeys.load(pair["b"])), server_side=False)
    peer = Peer(peer_of(pair["a"], server_side=True, tickets=tickets), server_side=True)
    said = peer.shake(client)
    peer.object.write(b"hello")
    peer.object.write(b"batch")
    said += peer.outgoing.read()
    fed = 0
    while not client.first_word():
        client.feed(said[fed : fed + piece])
        fed += piece
    assert client.first_word()  # it stays so
    handed = client.hand_over()
    assert handed.plain == b"hello"
    assert handed.read.seq == tickets + 1
    assert handed.write.seq == 0
    found, _ = unsealed(handed.suite, handed.read, handed.rest + said[fed:])
    assert found == [(DATA, b"batch")]
    record, keys = sealed(handed.suite, handed.write, b"an answer")
    peer.incoming.write(record + sealed(handed.suite, keys, b"\x01\x00", ALERT)[0])
    assert peer.object.read() == b"an answer"
    with pytest.raises(ssl.SSLZeroReturnError):
        peer.object.unwrap()
        peer.object.read()


def test_tickets_behind_the_hand_over_are_left_to_who_reads_on(pair: dict[str, Path]) -> None:
    client = TlsConnection(Tls.of(testkeys.load(pair["b"])), server_side=False)
    peer = Peer(peer_of(pair["a"], server_side=True), server_side=True)
    client.feed(peer.shake(client))
    handed = client.hand_over()
    found, keys = unsealed(handed.suite, handed.read, handed.rest)
    assert [(kind, message[0]) for kind, message in found] == [(HANDSHAKE, 4)] * 2
    peer.object.write(b"hello")
    assert unsealed(handed.suite, keys, peer.outgoing.read())[0] == [(DATA, b"hello")]


def test_a_client_that_must_say_hello_twice(pair: dict[str, Path]) -> None:
    """HelloRetryRequest: the server does not know the group of the first key share."""
    client = TlsConnection(Tls.of(testkeys.load(pair["b"])), server_side=False)
    context = peer_of(pair["a"], server_side=True, tickets=0)
    context.set_ecdh_curve("secp384r1")
    peer = Peer(context, server_side=True)
    peer.shake(client)
    peer.object.write(b"hello")
    client.feed(peer.outgoing.read())
    handed = client.hand_over()
    assert unsealed(handed.suite, handed.read, handed.rest)[0] == [(DATA, b"hello")]


def test_our_server_sends_no_tickets(ends: tuple[TlsConnection, TlsConnection]) -> None:
    """So its first record with the keys that are handed over is the first one that another seals."""
    server, client = ends
    shake(server, client)
    handed = server.hand_over()
    record, _ = sealed(handed.suite, handed.write, b"hello")
    assert not client.first_word()
    client.feed(record + record[:3])
    assert client.first_word()
    last = client.hand_over()
    assert (last.plain, last.rest, last.read.seq) == (b"hello", record[:3], 1)


def test_a_record_of_nothing_is_no_word_but_counts(ends: tuple[TlsConnection, TlsConnection]) -> None:
    server, client = ends
    shake(server, client)
    handed = server.hand_over()
    record, keys = sealed(handed.suite, handed.write, b"")
    client.feed(record)
    assert not client.first_word()
    client.feed(sealed(handed.suite, keys, b"hello")[0])
    assert client.first_word()
    assert client.hand_over().read.seq == 2


def test_an_alert_before_the_first_word_is_a_refusal(pair: dict[str, Path], tmp_path: Path) -> None:
    """The server does not pin us: it says so after the client's part of the handshake is over."""
    other = testkeys.make_pair(tmp_path / "other")
    keyfiles.write_peers(other["b"], [keyfiles.der_of((pair["a"] / "node.crt").read_bytes())])
    server, client = made(Tls.of(testkeys.load(pair["a"])), Tls.of(testkeys.load(other["b"])))
    server.feed(client.take())
    client.feed(server.take())
    assert client.peer
    assert not client.first_word()
    with pytest.raises(Refusal) as at_server:
        server.feed(client.take())
    assert at_server.value.reason == "foreign"
    client.feed(server.take())
    with pytest.raises(Refusal) as at_client:
        client.first_word()
    assert at_client.value.reason == "refused"


def test_a_peer_that_leaves_before_its_first_word_is_a_refusal(
    ends: tuple[TlsConnection, TlsConnection],
) -> None:
    server, client = ends
    shake(server, client)
    client.feed(server.close())
    with pytest.raises(Refusal, match="left"):
        client.first_word()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x17\x03\x03\xff\xff", bytes(40)])
def test_what_is_no_tls_instead_of_the_first_word(
    ends: tuple[TlsConnection, TlsConnection], said: bytes
) -> None:
    shake(*ends)
    ends[1].feed(said)
    with pytest.raises(Refusal, match="garbage"):
        ends[1].first_word()


def test_a_key_update_before_the_first_word_is_not_handed_over(
    ends: tuple[TlsConnection, TlsConnection],
) -> None:
    """OpenSSL has read it, and what was counted since no longer fits."""
    server, client = ends
    shake(server, client)
    handed = server.hand_over()
    record, _ = sealed(handed.suite, handed.write, KEY_UPDATE + ASKED, HANDSHAKE)
    client.feed(record + sealed(handed.suite, updated(handed.suite, handed.write), b"hello")[0])
    assert client.first_word()
    with pytest.raises(Refusal, match="KeyUpdate"):
        client.hand_over()


# ---- another's KeyUpdate ----


class SClient:
    """``openssl s_client`` as node b, over a socket to node a."""

    def __init__(self, directory: Path, suite: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [
                    *("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_3"),
                    *("-ciphersuites", suite),
                    *("-cert", str(directory / "node.crt"), "-key", str(directory / "node.key")),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            listener.settimeout(20)
            self.socket, _ = listener.accept()
            self.socket.settimeout(20)
        self.unread = b""

    def say(self, line: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def record(self) -> bytes:
        """The next one, whole."""
        while len(self.unread) < 5 or len(self.unread) < 5 + int.from_bytes(self.unread[3:5]):
            more = self.socket.recv(65536)
            assert more
            self.unread += more
        size = 5 + int.from_bytes(self.unread[3:5])
        record, self.unread = self.unread[:size], self.unread[size:]
        return record


@pytest.fixture(params=list(SUITES))
def s_client(pair: dict[str, Path], request: pytest.FixtureRequest) -> Iterator[SClient]:
    client = SClient(pair["b"], request.param)
    with client.process, client.socket:
        try:
            yield client
        finally:
            client.process.terminate()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl(1)")
def test_a_key_update_of_openssl(pair: dict[str, Path], s_client: SClient) -> None:
    """s_client's command K: new keys for what it sends, and it asks for new ones of ours."""
    server = TlsConnection(Tls.of(testkeys.load(pair["a"])), server_side=True)
    server.begin()
    while server.peer is None:
        server.feed(s_client.record())
        s_client.socket.sendall(server.take())
    handed = server.hand_over()
    assert handed.suite == SUITES[server.cipher]
    s_client.unread = handed.rest + s_client.unread

    read = handed.read
    s_client.say(b"before\n")
    found, read = unsealed(handed.suite, read, s_client.record())
    assert found == [(DATA, b"before\n")]
    s_client.say(b"K\n")
    found, _ = unsealed(handed.suite, read, s_client.record())
    assert found == [(HANDSHAKE, KEY_UPDATE + ASKED)]
    read = updated(handed.suite, read)
    s_client.say(b"after\n")
    found, read = unsealed(handed.suite, read, s_client.record())
    assert found == [(DATA, b"after\n")]
    assert read.seq == 1
    # Ours, as it has asked; then its close says that it could read what came with the new keys.
    answer, _ = sealed(handed.suite, handed.write, KEY_UPDATE + b"\0", HANDSHAKE)
    closing, _ = sealed(handed.suite, updated(handed.suite, handed.write), b"\x01\0", ALERT)
    s_client.socket.sendall(answer + closing)
    found, _ = unsealed(handed.suite, read, s_client.record())
    assert found == [(ALERT, b"\x01\0")]


# ---- secrets ----


def test_handshakes_beside_each_other_have_their_own_secrets(pair: dict[str, Path]) -> None:
    """Of one context on each side, step by step in turn."""
    a, b = Tls.of(testkeys.load(pair["a"])), Tls.of(testkeys.load(pair["b"]))
    couples = [made(a, b) for _ in range(4)]
    for _ in range(2):
        flights = [client.take() for _, client in couples]
        for (server, _), flight in zip(couples, flights, strict=True):
            server.feed(flight)
        answers = [server.take() for server, _ in couples]
        for (_, client), answer in reversed(list(zip(couples, answers, strict=True))):
            client.feed(answer)
    handed: list[tuple[Handed, Handed]] = [(s.hand_over(), c.hand_over()) for s, c in couples]
    for of_server, of_client in handed:
        assert (of_server.read, of_server.write) == (of_client.write, of_client.read)
    assert len({one.secret for of_server, _ in handed for one in (of_server.read, of_server.write)}) == 8


def test_a_thousand_handshakes_leave_nothing_in_memory(pair: dict[str, Path]) -> None:
    a, b = Tls.of(testkeys.load(pair["a"])), Tls.of(testkeys.load(pair["b"]))
    before = descriptors()
    for turn in range(1000):
        server, client = made(a, b)
        server.feed(client.take())
        assert a.keylog.size == 0
        if turn % 2:
            continue  # half of them go no further
        client.feed(server.take())
        server.feed(client.take())
        assert server.peer
        assert client.peer
        assert (a.keylog.size, b.keylog.size) == (0, 0)
    assert descriptors() == before


def test_descriptors_go_with_their_keys(pair: dict[str, Path], tmp_path: Path) -> None:
    before = descriptors()
    server, client = made(
        Tls.of(testkeys.load(pair["a"]), tmp_path / "keys.log"), Tls.of(testkeys.load(pair["b"]))
    )
    shake(server, client)
    server.hand_over()
    client.hand_over()
    assert descriptors() == before  # though the connections are still known


def test_the_operators_key_log_is_as_openssl_writes_it(pair: dict[str, Path], tmp_path: Path) -> None:
    """The same handshake, logged by us at one end and by ``ssl`` at the other."""
    log, theirs = tmp_path / "keys.log", tmp_path / "openssl.log"
    server = TlsConnection(Tls.of(testkeys.load(pair["a"]), log), server_side=True)
    context = peer_of(pair["b"], server_side=False)
    context.keylog_filename = str(theirs)
    Peer(context, server_side=False).shake(server)
    ours = log.read_text().splitlines(keepends=True)
    assert ours[0] == theirs.read_text().splitlines(keepends=True)[0]
    assert sorted(ours) == sorted(theirs.read_text().splitlines(keepends=True))
    assert {line.split()[0] for line in ours[1:]} == LINES
    assert len(ours) == 1 + len(LINES)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    shake(*made(Tls.of(testkeys.load(pair["a"]), log), Tls.of(testkeys.load(pair["b"]))))
    assert log.read_text().startswith("".join(ours))
    assert log.read_text().count("#") == 1
    assert len(log.read_text().splitlines()) == 1 + 2 * len(LINES)


def test_a_key_log_that_cannot_be_written_disturbs_no_connection(
    pair: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    full = Path("/dev/full")
    server, client = made(Tls.of(testkeys.load(pair["a"]), full), Tls.of(testkeys.load(pair["b"])))
    shake(server, client)
    assert server.hand_over().read == client.hand_over().write
    assert [r.getMessage() for r in caplog.records].count("keys.tls_keylog_failed") == 1


def test_a_key_log_that_cannot_be_made_is_said_at_once(pair: dict[str, Path], tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(FileNotFoundError):
        Tls.of(testkeys.load(pair["a"]), tmp_path / "nowhere" / "keys.log")
    assert descriptors() == before


def test_what_others_log_is_not_ours(pair: dict[str, Path]) -> None:
    """A line is known by its ClientHello's random alone."""
    log = KeyLog()
    context = peer_of(pair["b"], server_side=False)
    log.tap(context)
    ours = TlsConnection(Tls.of(testkeys.load(pair["a"])), server_side=True)
    peer = Peer(context, server_side=False)
    peer.shake(ours)
    lines = log.drain()
    assert {line.label for line in lines} == LINES
    assert {line.random for line in lines} == {ours._random}
    assert log.drain() == []
    ours._keylog = log
    other = Peer(context, server_side=False)
    other.shake(TlsConnection(Tls.of(testkeys.load(pair["a"])), server_side=True))
    known = dict(ours._secrets)
    ours._collect()
    assert ours._secrets == known


def test_the_random_of_a_hello_in_small_records(ends: tuple[TlsConnection, TlsConnection]) -> None:
    """RFC 8446 §5.1 lets a client cut its hello anywhere."""
    server, client = ends
    hello = client.take()
    message = hello[5:]
    cut = b"".join(b"\x16\x03\x01\x00\x09" + message[at : at + 9] for at in range(0, 45, 9))
    cut += b"\x16\x03\x01" + (len(message) - 45).to_bytes(2) + message[45:]
    assert client_random(hello) == client_random(cut) == hello[11:43]
    for end in range(len(cut)):
        assert client_random(cut[:end]) in (None, hello[11:43])
    server.feed(cut)
    client.feed(server.take())
    server.feed(client.take())
    assert server.hand_over().read == client.hand_over().write


def test_of_no_hello_no_random() -> None:
    for said in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\0\0" * 20):
        assert client_random(said) is None
