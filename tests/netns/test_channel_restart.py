# SPDX-License-Identifier: Apache-2.0
"""The channel between two real daemons of which one has just started, or is dead. Spec: R4, R13, R22."""

from __future__ import annotations

import contextlib
import ssl
import sys
from collections.abc import Callable
from pathlib import Path

import keys as testkeys
import pytest
from netns.channel import STATIONS, log_lines, paths_of, record, shown
from netns.tls import as_node_b, wait_closed
from netns.wire import sender
from pair import Pair
from sandbox import KEYS_DIR, Lab, LabError, wait_until

from flexha import files

COUNT_S = 5.0
FLEXHAD = [sys.executable, "-m", "flexha"]


def test_an_expired_certificate_though_it_is_pinned(lab: Lab, pair: Pair, tmp_path: Path) -> None:
    """Node a trusts it, but its time is over. Spec: R22."""
    if pair.active().name == "a":
        pair["a"].ctl("failover")
        wait_until(lambda: pair.settled() and pair.active().name == "b", 20, "node b reigns")
    keys = lab.path(f"{KEYS_DIR}/a")
    pinned = (keys / "peers.pem").read_bytes()
    node = pair["a"]
    node.stop()
    expired = testkeys.expired()
    testkeys.give(tmp_path, expired)
    (keys / "peers.pem").write_bytes(pinned + expired.certificate_pem)
    try:
        node.start()
        pair.wait_settled()
        assert log_lines(node, "keys.expiry", "whose=peer")
        with contextlib.suppress(ssl.SSLError, ConnectionError), as_node_b(lab, tmp_path) as connection:
            wait_closed(connection)
        wait_until(lambda: node.counter("sync.tls_expired") == 1, COUNT_S, "it is counted")
        assert pair.settled()
    finally:
        (keys / "peers.pem").write_bytes(pinned)
        node.stop()
    node.start()
    pair.wait_settled()


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (
            lambda keys: (keys / "node.key").chmod(0o644),
            "node.key: has mode 0644, others may use it; chmod 0600",
        ),
        (lambda keys: (keys / "node.crt").unlink(), "node.crt: is missing; make the keys of both nodes"),
        (lambda keys: testkeys.give(keys, testkeys.expired()), "node.crt: has expired on"),
        (
            lambda keys: (keys / "peers.pem").write_bytes((keys / "node.crt").read_bytes()),
            "peers.pem: holds this node's own certificate",
        ),
    ],
)
def test_a_node_does_not_start_without_good_keys(
    lab: Lab, pair: Pair, tmp_path: Path, spoil: Callable[[Path], None], text: str
) -> None:
    """It says which file, and what to do; the peer reigns on. Spec: R22, R25."""
    node = next(node for node in pair.nodes.values() if node is not pair.active())
    node.stop()
    keys = tmp_path / "keys"
    keys.mkdir()
    for path in lab.path(f"{KEYS_DIR}/{node.name}").iterdir():
        files.replace(keys / path.name, path.read_bytes())
    spoil(keys)
    config = tmp_path / "pair.toml"
    config.write_text(node.config.read_text().replace(f"{KEYS_DIR}/{node.name}", str(keys)))
    run = lab.run(node.name, [*FLEXHAD, "--config", str(config), "--node", node.name], check=False)
    assert run.returncode == 1
    assert f"flexhad: {keys}/{text}" in run.stderr
    node.start()
    pair.wait_settled()


def test_a_recording_of_the_dead_peer_after_our_own_restart(lab: Lab, pair: Pair) -> None:
    """Nobody answers for the dead: it stays dead, and this node takes its role. Spec: R4, R13."""
    active = pair.active()
    survivor = pair.peer(active)
    frames = {port: record(lab, survivor, port, 40) for port in STATIONS}
    survivor.stop()
    active.die()
    survivor.start()
    with contextlib.ExitStack() as stack:
        send = {port: stack.enter_context(sender(lab, *where)) for port, where in STATIONS.items()}
        left = {port: iter(recorded) for port, recorded in frames.items()}

        def reigns() -> bool:
            status = survivor.status()
            if status is None:
                return False
            for port, rest in left.items():
                if (frame := next(rest, None)) is not None:
                    send[port](frame)
            return bool(status["role"] == "ACTIVE")

        wait_until(reigns, 20, "the survivor reigns")
        for port, rest in left.items():
            for frame in rest:
                send[port](frame)
    for port in STATIONS:
        wait_until(
            lambda: paths_of(survivor)["paths"][port]["replayed"] >= 10,  # noqa: B023
            COUNT_S,
            "recordings are counted",
        )
        assert paths_of(survivor)["paths"][port]["received"] == 0
        assert not paths_of(survivor)["paths"][port]["alive"]
    assert paths_of(survivor)["alive"] is False
    active.start()
    pair.wait_settled()


def test_after_a_change_of_keys_both_nodes_start_again(lab: Lab, pair: Pair) -> None:
    """What is on disk is what is in use. Spec: R22."""
    pair["a"].ctl("pair", "rotate")
    pair.stop_all()
    for node in pair.nodes.values():
        node.start()
    pair.wait_settled()
    for node in pair.nodes.values():
        assert shown(node)["connection"]
        assert all(path["alive"] for path in paths_of(node)["paths"].values())


def test_keys_do_not_change_without_the_peer(pair: Pair) -> None:
    """Refused, and nothing has changed. Spec: R22."""
    active = pair.active()
    pair.peer(active).stop()
    wait_until(lambda: shown(active)["connection"] is None, 10, "the connection is gone")
    before = shown(active)
    with pytest.raises(LabError, match="there is no sync connection; keys change while both nodes run"):
        active.ctl("pair", "rotate")
    assert shown(active) == before
    pair.peer(active).start()
    pair.wait_settled()
