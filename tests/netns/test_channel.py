# SPDX-License-Identifier: Apache-2.0
"""The channel between two real daemons: strangers, recordings, and keys that change under traffic.

Spec: R4, R13, R19, R20, R22.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import keys as testkeys
import pytest
from netns.channel import HEARTBEAT_PORT, PATHS, STATIONS, log_lines, paths_of, record, shown
from netns.conftest import settle
from netns.tls import TIMEOUT_S, as_node_b, plain, wait_closed
from netns.wire import ETH_P_IP, sender
from pair import Node, Pair
from sandbox import KEYS_DIR, Lab, wait_until
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from traffic import TcpFlows, UdpProbe

from flexha.config import keyfiles
from flexha.core import heartbeat_wire
from flexha.core.events import Role
from flexha.core.heartbeat_wire import Heartbeat, pair_id
from flexha.units import Ns, Term

RUN = 391
FLOWS = 50
COUNT_S = 5.0


@pytest.fixture(scope="module")
def traffic(lab: Lab, session_pair: Pair) -> Iterator[TcpFlows]:
    """Connections and a UDP flow through all tests that ask for it; nothing of them may be lost."""
    settle(session_pair)
    tcp = TcpFlows(lab, RUN, flows=FLOWS)
    udp: UdpProbe | None = None
    try:
        tcp.wait_open()
        udp = UdpProbe(lab, RUN)
        yield tcp
        probed, flows = udp.finish(), tcp.finish()
    finally:
        tcp.close()
        if udp is not None:
            udp.close()
    assert (probed.lost, probed.foreign) == (0, 0)
    assert flows.survived == flows.opened == FLOWS


def reigns(pair: Pair) -> dict[str, tuple[object, object]]:
    return {name: (s["role"], s["term"]) for name, s in pair.statuses().items() if s is not None}


@pytest.fixture
def undisturbed(traffic: TcpFlows, pair: Pair) -> Iterator[Pair]:
    """After the test every connection gets one more answer, and each node still has its role and term."""
    before = reigns(pair)
    yield pair
    rounds = int(traffic.progress()["rounds"])
    wait_until(lambda: int(traffic.progress()["rounds"]) > rounds, 10, "each connection has one more answer")
    assert (traffic.progress()["reset"], traffic.progress()["stalled"]) == (0, 0)
    assert reigns(pair) == before


# ---- strangers ---------------------------------------------------------------------------------------
def stranger(lab: Lab, directory: Path) -> None:
    """His own key, and a certificate with node b's name."""
    b = lab.path(f"{KEYS_DIR}/b")
    his = keyfiles.der_of((b / "node.crt").read_bytes())
    testkeys.give(directory, keyfiles.make_identity("flexha lab b", keyfiles.validity(his)[0]))


def old(lab: Lab, directory: Path) -> None:
    testkeys.give(directory, testkeys.expired())


@pytest.mark.parametrize("give", [stranger, old])
def test_a_foreign_certificate(
    lab: Lab, undisturbed: Pair, tmp_path: Path, give: Callable[[Lab, Path], None]
) -> None:
    """From the peer's own address, however often: counted, said once, and the true one stays. Spec: R22."""
    node = undisturbed["a"]
    give(lab, tmp_path)
    counted, connections = node.counter("sync.tls_foreign"), node.counter("sync.connections")
    said = len(log_lines(node, "sync.tls_refused", "reason=foreign"))
    for _ in range(5):
        with contextlib.suppress(ssl.SSLError, ConnectionError), as_node_b(lab, tmp_path) as connection:
            connection.sendall(struct.pack("!I", 5) + b"hello")
            wait_closed(connection)
    wait_until(lambda: node.counter("sync.tls_foreign") == counted + 5, COUNT_S, "each is counted")
    assert node.counter("sync.connections") == connections
    assert len(log_lines(node, "sync.tls_refused", "reason=foreign")) <= max(said, 1)
    assert undisturbed.settled()


@pytest.mark.parametrize(
    "data",
    [struct.pack("!I", 16) + b"\x81\xa1t\xa5hello" + bytes(8), b"GET / HTTP/1.0\r\n\r\n", b"\xff" * 9000],
)
def test_what_is_no_tls(lab: Lab, undisturbed: Pair, data: bytes) -> None:
    """A node without TLS, and garbage. Spec: R20, R22."""
    node = undisturbed["a"]
    counted, connections = node.counter("sync.tls_garbage"), node.counter("sync.connections")
    said = len(log_lines(node, "sync.tls_refused", "reason=garbage"))
    for _ in range(5):
        with contextlib.suppress(ConnectionError), plain(lab) as connection:
            connection.sendall(data)
            wait_closed(connection)
    wait_until(lambda: node.counter("sync.tls_garbage") == counted + 5, COUNT_S, "each is counted")
    assert node.counter("sync.connections") == connections
    assert len(log_lines(node, "sync.tls_refused", "reason=garbage")) <= max(said, 1)
    assert undisturbed.settled()


def test_silent_connections(lab: Lab, undisturbed: Pair) -> None:
    """They neither stand in the true peer's way nor stay. Spec: R22."""
    node = undisturbed["a"]
    before = {name: node.counter(f"sync.tls_{name}") for name in ("timeout", "crowded")}
    connections = node.counter("sync.connections")
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(plain(lab)) for _ in range(10)]
        # The true one comes back in between: cut by somebody who has its key, as by nobody else.
        with as_node_b(lab) as connection:
            wait_until(lambda: node.counter("sync.connections") == connections + 1, COUNT_S, "it is let in")
            wait_until(lambda: node.counter("sync.connections") >= connections + 2, COUNT_S, "node b is back")
            wait_closed(connection)
        for each in silent:
            each.settimeout(TIMEOUT_S)
            wait_closed(each)
    cut = sum(node.counter(f"sync.tls_{name}") - n for name, n in before.items())
    assert cut == len(silent)
    undisturbed.wait_settled()


# ---- recordings --------------------------------------------------------------------------------------
@pytest.mark.parametrize("port", ["lan", "wan"])
@pytest.mark.parametrize("reverse", [False, True], ids=["in order", "reversed"])
def test_a_recording_of_the_living_peer(lab: Lab, undisturbed: Pair, port: str, reverse: bool) -> None:
    """Replayed or reordered on the wire: counted, and nothing else. Spec: R4, R13."""
    for node in undisturbed.nodes.values():
        frames = record(lab, node, port, 20)
        before = paths_of(node)
        with sender(lab, *STATIONS[port]) as send:
            for frame in reversed(frames) if reverse else frames:
                send(frame)
        want = before["paths"][port]["replayed"] + len(frames)
        wait_until(lambda: paths_of(node)["paths"][port]["replayed"] >= want, COUNT_S, "each is counted")  # noqa: B023
        after = paths_of(node)
        for fact in ("alive", "role", "term", "incarnation"):
            assert after[fact] == before[fact]
        assert after["paths"][port]["bad"] == before["paths"][port]["bad"]
        assert after["paths"][port]["lost"] == before["paths"][port]["lost"]
    assert undisturbed.settled()


def test_one_who_has_the_key_but_does_not_listen(lab: Lab, undisturbed: Pair) -> None:
    """Authentic on the wire, higher in everything, and answering nobody. Spec: R4."""
    key = keyfiles.load(lab.path(f"{KEYS_DIR}/a"), "a", datetime.now(UTC), tls=False).heartbeat[0]
    node = undisturbed["a"]
    before = paths_of(node)
    with sender(lab, *STATIONS["lan"]) as send:
        for n in range(10):
            payload = heartbeat_wire.encode(
                Heartbeat(
                    node=1,
                    role=Role.ACTIVE,
                    flags=0,
                    pair_id=pair_id("lab"),
                    interval_ms=50,
                    incarnation=before["incarnation"] + 5,
                    term=Term(1 << 40),
                    seq=n + 1,
                    priority=254,
                    control_beat=1,
                    t_ns=Ns(1 << 60),
                    echo=before["incarnation"],
                ),
                key=key,
                path=PATHS.index("lan"),
            )
            send(heartbeat_frame(node, "lan", payload))
    want = before["paths"]["lan"]["replayed"] + 9  # the first is an introduction
    wait_until(lambda: paths_of(node)["paths"]["lan"]["replayed"] >= want, COUNT_S, "they are counted")
    assert paths_of(node)["incarnation"] == before["incarnation"]
    assert undisturbed.settled()


def heartbeat_frame(node: Node, port: str, payload: bytes) -> Packet:
    ports = {p["name"]: p for p in node.ctl("status")["ports"]}
    own = str(ports[port]["address"]).split("/")[0]
    peer = {"198.51.100.2": "198.51.100.3", "198.51.100.3": "198.51.100.2"}[own]
    return (
        Ether(dst=ports[port]["mac"], type=ETH_P_IP)
        / IP(src=peer, dst=own, ttl=255)
        / UDP(sport=HEARTBEAT_PORT, dport=HEARTBEAT_PORT)
        / Raw(payload)
    )


# ---- keys that change --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["a", "b"])
def test_keys_change_under_traffic(lab: Lab, undisturbed: Pair, name: str) -> None:
    """New key, certificate and heartbeat key; nothing is lost, nobody changes its role. Spec: R19, R22."""
    node, peer = undisturbed[name], undisturbed.peer(undisturbed[name])
    before, peers_before = shown(node), shown(peer)
    paths = {n.name: paths_of(n)["paths"] for n in undisturbed.nodes.values()}
    bulks = {n.name: len(log_lines(n, "bulk")) for n in undisturbed.nodes.values()}
    answer = node.ctl("pair", "rotate")
    after, peers_after = shown(node), shown(peer)
    assert answer["certificate"] == after["own"]["sha256"] != before["own"]["sha256"]
    assert [each["sha256"] for each in peers_after["peers"]] == [answer["certificate"]]
    assert peers_after["own"] == peers_before["own"]
    assert after["heartbeat_keys"] == peers_after["heartbeat_keys"] == [answer["heartbeat_key"]]
    assert after["heartbeat_keys"] != before["heartbeat_keys"]
    assert after["rotation"] is after["next"] is None
    assert after["connection"]["own"] == peers_after["connection"]["peer"] == answer["certificate"]
    undisturbed.wait_settled()
    assert {n.name: len(log_lines(n, "bulk")) for n in undisturbed.nodes.values()} == bulks
    for each in undisturbed.nodes.values():
        now = paths_of(each)["paths"]
        assert all(now[path]["alive"] for path in PATHS)
        assert [now[path]["bad"] for path in PATHS] == [paths[each.name][path]["bad"] for path in PATHS]
    # The files are whole, for their owner only, and hold nothing of before.
    for each in undisturbed.nodes.values():
        directory = lab.path(f"{KEYS_DIR}/{each.name}")
        assert {path.name for path in directory.iterdir()} == set(keyfiles.FILES)
        assert all(path.stat().st_mode & 0o777 == 0o600 for path in directory.iterdir())


def test_the_old_key_is_worth_nothing(lab: Lab, undisturbed: Pair, tmp_path: Path) -> None:
    """What node b was let in with before. Spec: R22."""
    keys = lab.path(f"{KEYS_DIR}/b")
    for name in ("node.key", "node.crt"):
        (tmp_path / name).write_bytes((keys / name).read_bytes())
    undisturbed["b"].ctl("pair", "rotate")
    node = undisturbed["a"]
    counted = node.counter("sync.tls_foreign")
    with contextlib.suppress(ssl.SSLError, ConnectionError), as_node_b(lab, tmp_path) as connection:
        wait_closed(connection)
    wait_until(lambda: node.counter("sync.tls_foreign") == counted + 1, COUNT_S, "it is refused")
    assert undisturbed.settled()
