# SPDX-License-Identifier: Apache-2.0
"""The records of TLS in C, against the stdlib's ``ssl`` and against themselves. Spec: R22."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import keys as testkeys
import pytest
from unit.test_channel import LIMITS, wait_for
from unit.test_tls import ALERT, HANDSHAKE, KEY_UPDATE, Peer, ends, pair, peer_of, sealed, shake

from flexha.core import sync_wire
from flexha.core.sync_wire import Batch, Beat
from flexha.fastpath.channel import Ask, Channel, Ended, LaneMode, RecordKeys, RecordLayer
from flexha.shell.tls import Handed, Tls, TlsConnection
from flexha.shell.tls_secrets import Half, updated

__all__ = ["ends", "pair"]

FRAME = sync_wire.encode(Batch(1, bytes(range(256)) * 200))
BEAT = sync_wire.encode(Beat())


def keys(half: Half) -> RecordKeys:
    return RecordKeys(half.key, half.iv, half.seq)


class End:
    """A channel with the keys of a handshake, and whoever looks after them."""

    def __init__(self, sock: socket.socket, handed: Handed, records_max: int = 1 << 23) -> None:
        layer = RecordLayer(handed.suite, keys(handed.read), keys(handed.write), records_max)
        self.handed, self.read, self.write = handed, handed.read, handed.write
        self.updates: list[Ask] = []
        self.channel = Channel(None, sock.detach(), LIMITS, tls=layer, plain=handed.plain, rest=handed.rest)

    def look(self) -> bytes:
        """As ``sync_io`` does when the channel has something."""
        self.channel.clear_wakeup()
        stats = self.channel.stats()
        if stats.asks & Ask.KEYS_IN:
            self.read = updated(self.handed.suite, self.read)
            self.channel.rekey(read=keys(self.read))
            self.updates.append(Ask.KEYS_IN)
        if stats.asks & Ask.KEYS_OUT:
            self.write = updated(self.handed.suite, self.write)
            self.channel.rekey(write=keys(self.write))
            self.updates.append(Ask.KEYS_OUT)
        data = self.channel.take() if stats.ready else b""
        self.channel.resume(
            LaneMode.OFF, sent_seq=0, acked_seq=0, received_seq=0, imported_seq=0, window=None
        )
        return data

    def hear(self, size: int) -> bytes:
        heard = bytearray()

        def is_all() -> bool:
            heard.extend(self.look())
            return len(heard) >= size

        wait_for(is_all, self.channel.fd)
        return bytes(heard)

    def ended(self) -> Ended:
        wait_for(lambda: self.channel.stats().ended is not Ended.NOT, self.channel.fd)
        return self.channel.stats().ended


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    yield ours, theirs
    ours.close()
    theirs.close()


Sockets = tuple[socket.socket, socket.socket]


def test_a_peer_that_speaks_openssl(pair: dict[str, Path], sockets: Sockets) -> None:
    """In both directions, through updates of our keys, to the last word."""
    ours, theirs = sockets
    server = TlsConnection(Tls.of(testkeys.load(pair["a"])), server_side=True)
    peer = Peer(peer_of(pair["b"], server_side=False), server_side=False)
    server.feed(peer.shake(server))
    peer.incoming.write(server.take())
    end = End(ours, server.hand_over(), records_max=8)
    heard, want = b"", FRAME * 8
    for _ in range(8):
        end.channel.send(FRAME)
        end.look()
    while len(heard) < len(want):
        peer.incoming.write(theirs.recv(65536))
        while True:
            try:
                heard += peer.object.read(65536)
            except ssl.SSLWantReadError:
                break
    assert heard == want
    assert end.updates.count(Ask.KEYS_OUT) >= 2
    peer.object.write(FRAME + BEAT)
    theirs.sendall(peer.outgoing.read())
    assert end.hear(len(FRAME + BEAT)) == FRAME + BEAT
    end.channel.close(1)
    peer.incoming.write(theirs.recv(65536))
    assert peer.object.read(65536) == b"", "close_notify"


def test_both_ends_update_their_keys(ends: tuple[TlsConnection, TlsConnection], sockets: Sockets) -> None:
    shake(*ends)
    one, other = (
        End(sock, connection.hand_over(), records_max=4)
        for sock, connection in zip(sockets, ends, strict=True)
    )
    for _ in range(5):
        for says, hears in ((one, other), (other, one)):
            says.channel.send(FRAME)
            says.look()
            assert hears.hear(len(FRAME)) == FRAME
    for end in (one, other):
        assert end.updates.count(Ask.KEYS_OUT) >= 4
        assert end.updates.count(Ask.KEYS_IN) >= 4
    one.channel.close(1)
    assert other.ended() is Ended.CLOSED
    other.channel.close(1)


def test_who_asks_for_new_keys_gets_them(ends: tuple[TlsConnection, TlsConnection], sockets: Sockets) -> None:
    shake(*ends)
    end, handed = End(sockets[0], ends[0].hand_over()), ends[1].hand_over()
    asked, _ = sealed(handed.suite, handed.write, KEY_UPDATE + b"\x01", HANDSHAKE)
    said, _ = sealed(handed.suite, updated(handed.suite, handed.write), BEAT)
    sockets[1].sendall(asked + said)
    assert end.hear(len(BEAT)) == BEAT
    assert end.updates == [Ask.KEYS_IN, Ask.KEYS_OUT]
    end.channel.close(0)


@pytest.mark.parametrize(
    ("plain", "kind", "how"),
    [
        (b"\x01\x00", ALERT, Ended.CLOSED),
        (b"\x02\x28", ALERT, Ended.ALERT),
        (KEY_UPDATE + b"\x02", HANDSHAKE, Ended.GARBAGE),
        (KEY_UPDATE + b"\x00" + KEY_UPDATE + b"\x00", HANDSHAKE, Ended.GARBAGE),
        (b"\x01\x00\x00\x00", HANDSHAKE, Ended.GARBAGE),
        (b"x", 20, Ended.GARBAGE),
    ],
    ids=["close_notify", "an alert", "a strange update", "two in one", "a hello", "an unknown kind"],
)
def test_how_a_connection_ends(
    ends: tuple[TlsConnection, TlsConnection], sockets: Sockets, plain: bytes, kind: int, how: Ended
) -> None:
    """What was said before is still there."""
    shake(*ends)
    end, handed = End(sockets[0], ends[0].hand_over()), ends[1].hand_over()
    first, following = sealed(handed.suite, handed.write, BEAT)
    last, _ = sealed(handed.suite, following, plain, kind)
    sockets[1].sendall(first + last)
    assert end.ended() is how
    assert end.hear(len(BEAT)) == BEAT
    end.channel.rekey(write=keys(updated(handed.suite, end.write)))
    end.channel.close(0)


def test_a_record_that_was_touched_ends_it(
    ends: tuple[TlsConnection, TlsConnection], sockets: Sockets
) -> None:
    shake(*ends)
    end, handed = End(sockets[0], ends[0].hand_over()), ends[1].hand_over()
    record, _ = sealed(handed.suite, handed.write, BEAT)
    sockets[1].sendall(record[:-1] + bytes([record[-1] ^ 1]))
    assert end.ended() is Ended.GARBAGE
    assert end.channel.stats().ready == 0
    end.channel.close(0)
