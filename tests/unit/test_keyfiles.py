# SPDX-License-Identifier: Apache-2.0
"""Key files: what is made, what is refused with which remedy, and what a crash leaves. Spec: R22."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import keys as testkeys
import pytest

from flexha.config import keyfiles
from flexha.config.keyfiles import CERTIFICATE, FILES, HEARTBEAT, KEY, NEXT, PEERS, KeysError
from flexha.config.schema import NodeName
from flexha.shell import keyring
from flexha.shell.keyring import Keyring

NOW = datetime.now(UTC)


@pytest.fixture
def pair(tmp_path: Path) -> dict[str, Path]:
    return testkeys.make_pair(tmp_path)


def problems(directory: Path, *, tls: bool = True, now: datetime = NOW) -> list[str]:
    return list(keyfiles.problems(directory, "a", now, tls=tls))


def test_what_is_made(pair: dict[str, Path]) -> None:
    a, b = (testkeys.load(pair[name], name) for name in "ab")
    assert a.own
    assert b.own
    assert (a.peers, b.peers) == ((b.own.certificate,), (a.own.certificate,))
    assert a.heartbeat == b.heartbeat
    assert len(a.heartbeat) == 1
    assert a.own.key_pem != b.own.key_pem
    for directory in pair.values():
        assert directory.stat().st_mode & 0o777 == 0o700
        assert {path.name for path in directory.iterdir()} == set(FILES)
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in directory.iterdir())
    assert "PRIVATE" not in repr(a)
    assert problems(pair["a"]) == []
    begins, ends = keyfiles.validity(a.own.certificate)
    assert begins < NOW < ends - timedelta(days=3000)


def test_nothing_is_overwritten(pair: dict[str, Path], tmp_path: Path) -> None:
    before = (pair["a"] / KEY).read_bytes()
    with pytest.raises(KeysError, match=r"a/node.key: exists already.*pair rotate.*--out"):
        testkeys.make_pair(tmp_path)
    assert (pair["a"] / KEY).read_bytes() == before


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeysError, match="Not a directory; name a directory with --out"):
        testkeys.make_pair(tmp_path / "file")


def wrong(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return spoil


def mode(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).chmod(0o640)


def gone(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def own_pinned(directory: Path) -> None:
    (directory / PEERS).write_bytes((directory / CERTIFICATE).read_bytes())


def key_of_another(directory: Path) -> None:
    (directory / KEY).write_bytes(testkeys.stranger().key_pem)


@pytest.mark.parametrize(
    ("spoil", "name", "what", "remedy"),
    [
        *((gone(name), name, "is missing", "flexhactl pair init") for name in FILES),
        (mode(KEY), KEY, "has mode 0640", "chmod 0600"),
        (mode(HEARTBEAT), HEARTBEAT, "has mode 0640", "chmod 0600"),
        (wrong(KEY, b"nonsense"), KEY, "holds no private key", "of one node"),
        (wrong(CERTIFICATE, b"nonsense"), CERTIFICATE, "holds no certificate", "of one node"),
        (wrong(PEERS, b"nonsense"), PEERS, "one or two certificates", "copy the peer's node.crt"),
        (wrong(PEERS, b""), PEERS, "one or two certificates", "copy the peer's node.crt"),
        (wrong(KEY, bytes(70000)), KEY, "is larger than", "the right file"),
        (wrong(HEARTBEAT, b""), HEARTBEAT, "one or two keys", "copy the file of the other node"),
        (wrong(HEARTBEAT, b"00" * 16), HEARTBEAT, "one or two keys", "of the other node"),
        (wrong(HEARTBEAT, b"11" * 15), HEARTBEAT, "one or two keys", "of the other node"),
        (wrong(HEARTBEAT, (b"11" * 16 + b"\n") * 3), HEARTBEAT, "one or two keys", "of the other node"),
        (own_pinned, PEERS, "this node's own certificate", "mixed up"),
        (key_of_another, KEY, "does not fit", "of one node"),
        (lambda d: testkeys.give(d, testkeys.expired()), CERTIFICATE, "has expired on", "check the clock"),
        (lambda d: testkeys.give(d, testkeys.to_come()), CERTIFICATE, "not valid before", "check the clock"),
    ],
)
def test_each_problem_names_file_and_remedy(
    pair: dict[str, Path], spoil: Callable[[Path], None], name: str, what: str, remedy: str
) -> None:
    spoil(pair["a"])
    (found,) = problems(pair["a"])
    assert found.startswith(f"{pair['a'] / name}: ")
    assert what in found
    assert remedy in found.split("; ", 1)[1]
    with pytest.raises(KeysError):
        testkeys.load(pair["a"])


def test_all_problems_at_once(pair: dict[str, Path]) -> None:
    gone(KEY)(pair["a"])
    mode(HEARTBEAT)(pair["a"])
    wrong(PEERS, b"x")(pair["a"])
    assert len(problems(pair["a"])) == 3


def test_no_directory(tmp_path: Path) -> None:
    (found,) = problems(tmp_path / "none")
    assert "there are no keys of node a" in found
    assert "flexhactl pair init" in found
    assert "nodes.a.keys" in found


def test_a_file_that_cannot_be_read(pair: dict[str, Path]) -> None:
    (pair["a"] / KEY).unlink()
    (pair["a"] / KEY).mkdir()
    (found,) = problems(pair["a"])
    assert "node.key: cannot be read (Is a directory); " in found
    assert "must belong to the user that flexhad runs as" in found


def test_without_tls_only_the_heartbeats_key_counts(pair: dict[str, Path]) -> None:
    for name in (KEY, CERTIFICATE, PEERS):
        gone(name)(pair["a"])
    assert problems(pair["a"], tls=False) == []
    keys = keyfiles.load(pair["a"], "a", NOW, tls=False)
    assert keys.own is None
    assert len(keys.heartbeat) == 1


def test_the_next_identity(pair: dict[str, Path]) -> None:
    following = testkeys.stranger()
    keyfiles.write_identity(pair["a"], following, suffix=NEXT)
    assert testkeys.load(pair["a"]).following == following
    keyfiles.promote(pair["a"])
    loaded = testkeys.load(pair["a"])
    assert (loaded.own, loaded.following) == (following, None)
    assert {path.name for path in pair["a"].iterdir()} == set(FILES)


def test_a_crash_between_the_two_files_of_a_promotion(pair: dict[str, Path]) -> None:
    """Only the certificate is in its place: the key that fits it is found, and follows."""
    following = testkeys.stranger()
    keyfiles.write_identity(pair["a"], following, suffix=NEXT)
    (pair["a"] / (CERTIFICATE + NEXT)).replace(pair["a"] / CERTIFICATE)
    assert testkeys.load(pair["a"]).own == following
    assert testkeys.load(pair["a"]).own == following
    assert {path.name for path in pair["a"].iterdir()} == set(FILES)


@pytest.mark.parametrize("name", [KEY, CERTIFICATE])
def test_half_of_what_was_to_be_next(pair: dict[str, Path], name: str) -> None:
    before = testkeys.load(pair["a"])
    (pair["a"] / (name + NEXT)).write_bytes(b"half")
    after = testkeys.load(pair["a"])
    assert (after.own, after.following) == (before.own, None)


def badly_signed(certificate: bytes) -> bytes:
    """Its signature's last byte is another one, whatever it was."""
    return certificate[:-1] + bytes([certificate[-1] ^ 1])


@pytest.mark.parametrize(
    ("der", "what"),
    [
        (lambda: b"\x30" * 5000, "more than 4096"),
        (lambda: b"garbage", "no certificate that signs itself"),
        (lambda: testkeys.expired().certificate, "has expired"),
        (lambda: testkeys.to_come().certificate, "not valid before"),
        (lambda: badly_signed(testkeys.stranger().certificate), "no certificate that signs itself"),
    ],
)
def test_certificates_that_are_no_nodes(der: Callable[[], bytes], what: str) -> None:
    assert what in (keyfiles.why_not(der(), NOW) or "")
    assert keyfiles.why_not(testkeys.stranger().certificate, NOW) is None


def test_names_of_heartbeat_keys_tell_nothing() -> None:
    key = keyfiles.new_heartbeat_key()
    assert len(key) == 16
    assert key.hex() not in keyfiles.heartbeat_id(key)
    assert keyfiles.heartbeat_id(key) != keyfiles.heartbeat_id(keyfiles.new_heartbeat_key())


def test_expiry_is_said_again_while_the_node_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    where: dict[NodeName, Path] = {"a": tmp_path / "a", "b": tmp_path / "b"}
    keyfiles.make_pair("p", where, datetime.now(UTC), days=10)
    monkeypatch.setattr(keyring, "EXPIRY_LOOK_S", 0.005)
    ring = Keyring(where["a"], "a", tls=True)

    async def live() -> int:
        ring.start()
        async with asyncio.timeout(5):
            while len(caplog.records) <= 4:
                await asyncio.sleep(0.001)
        ring.stop()
        said = len(caplog.records)
        await asyncio.sleep(0.05)  # ten times the interval, in which nothing is said any more
        assert len(caplog.records) == said
        return said

    assert asyncio.run(live()) > 4  # both certificates, more than once
    assert {record.getMessage().split()[0] for record in caplog.records} == {"keys.expiry"}
