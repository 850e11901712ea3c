# SPDX-License-Identifier: Apache-2.0
"""``flexhactl ha readiness`` on a live pair: yes when nothing would be lost, else each cause by its name.

The pair of these tests has a configuration of its own; the session's pair rests meanwhile. Spec: B5.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import keys as testkeys
import pytest
import topo
from pair import Node, Pair, configuration_text
from sandbox import KEYS_DIR, Lab, wait_until

pytestmark = pytest.mark.timeout(180)

PLAIN, OWN, UNTOLD, LATE, ASYNC, STRICT = 8331, 8332, 8333, 8334, 8335, 8336
MANY_PORTS = range(20000, 23000)
"""Sessions of these remote ports are the bulk: a few seconds of it on the slow wire."""
WAIT_S = 20.0
SETTINGS = """
[sync]
batch_records = 16
window_batches = 2
"""
RULES = f"""
[[pools]]
name = "own"
port = "wan"
address = "interface"
port_lo = 10000
port_hi = 19999

[[rules]]
name = "by-own"
action = "allow"
proto = "udp"
ports = "{OWN}"
nat = "own"

[[rules]]
name = "untold"
action = "allow"
proto = "udp"
ports = "{UNTOLD}"
nat = "vip"
sync = "no"

[[rules]]
name = "late"
action = "allow"
proto = "udp"
ports = "{LATE}"
nat = "vip"
sync = "after 3600"

[[rules]]
name = "hasty"
action = "allow"
proto = "udp"
ports = "{ASYNC}"
nat = "vip"
commit = "async"

[[rules]]
name = "patient"
action = "allow"
proto = "udp"
ports = "{STRICT}"
nat = "vip"
commit = "strict"

[[rules]]
name = "rest"
action = "allow"
from = "inside"
to = "outside"
nat = "vip"
"""


class Asked:
    """An answer of ``flexhactl ha readiness``."""

    def __init__(self, node: Node, **args: object) -> None:
        self.answer: dict[str, Any] = node.request("ha_readiness", **args)
        self.lossless: bool = self.answer["lossless"]

    @property
    def reasons(self) -> dict[str, str]:
        """What keeps the pair from it: code and text."""
        return {reason["code"]: reason["text"] for reason in self.answer["reasons"]}

    @property
    def why(self) -> dict[tuple[str, str | None], int]:
        """Sessions that die, by cause and its name."""
        return {(why["code"], why["name"]): why["sessions"] for why in self.answer["sessions"]["why"]}


def exit_code(node: Node) -> int:
    """Of ``flexhactl ha readiness`` as a person types it."""
    argv = [str(Path(sys.executable).with_name("flexhactl"))]
    argv += ["--config", str(node.config), "--node", node.name, "ha", "readiness", "--json"]
    done = node.lab.run(node.name, argv, check=False)
    assert json.loads(done.stdout)["lossless"] is (done.returncode == 0)
    return done.returncode


def wait_lossless(node: Node) -> None:
    wait_until(lambda: Asked(node).lossless, WAIT_S, f"node {node.name} is ready: {Asked(node).answer}")


def wait_reason(node: Node, code: str, text: str = "") -> None:
    """Wait until a node says that a failover would not be lossless, for this reason."""

    def said() -> bool:
        asked = Asked(node)
        return not asked.lossless and text in asked.reasons.get(code, "-")

    wait_until(said, WAIT_S, f"node {node.name} says {code} {text}")


def wait_dying(node: Node, n: int) -> None:
    """Wait until a node says that so many sessions would die with it."""
    wait_until(lambda: Asked(node).answer["sessions"]["die"] == n, WAIT_S, f"{n} sessions would die")


def send(lab: Lab, *ports: int) -> str:
    """One datagram to each of these ports of the server, each a session; the client's ADDRESS:PORT."""
    with lab.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind((topo.CLIENT_ADDRESSES[0], 0))
        for port in ports:
            client.sendto(b"?", (topo.SERVER_ADDRESS, port))
        address, source = client.getsockname()
        return f"{address}:{source}"


@pytest.fixture
def ready_pair(lab: Lab, session_pair: Pair, tmp_path: Path) -> Iterator[Pair]:
    session_pair.stop_all()
    config = tmp_path / "pair.toml"
    config.write_text(f"{configuration_text()}{SETTINGS}{RULES}")
    pair = Pair(lab, tmp_path, config)
    pair.start()
    try:
        pair.wait_settled()
        yield pair
    finally:
        pair.stop_all()


def test_a_pair_in_sync_says_yes(lab: Lab, ready_pair: Pair) -> None:
    """Exit code 0 on either node, with sessions that live on. Spec: B5."""
    active = ready_pair.active()
    passive = ready_pair.peer(active)
    source = send(lab, PLAIN, PLAIN + 100)
    wait_until(lambda: len([s for s in passive.sessions() if s["inside"] == source]) == 2, WAIT_S, "both")
    wait_lossless(active)
    wait_lossless(passive)
    assert (exit_code(active), exit_code(passive)) == (0, 0)
    asked = Asked(active)
    assert asked.answer["sessions"]["live"] == asked.answer["sessions"]["total"] >= 2
    assert asked.answer["sessions"]["exact"]
    assert asked.answer["agreed_s"] < 5
    assert (asked.reasons, asked.why) == ({}, {})
    assert {warning["code"] for warning in Asked(passive).answer["warnings"]} == {"passive"}


def test_sessions_that_the_configuration_gives_up_are_named(lab: Lab, ready_pair: Pair) -> None:
    """A pool on the node's own address, ``sync = "no"`` and ``"after"``: counted, listed. Spec: B5."""
    active = ready_pair.active()
    wait_lossless(active)
    source = send(lab, PLAIN, OWN, UNTOLD, UNTOLD + 100, LATE)
    expected = {("pool", "own"): 1, ("rule", "untold"): 1, ("after", "late"): 1}
    wait_until(lambda: Asked(active).why == expected, WAIT_S, f"{expected}")
    assert exit_code(active) == 1
    asked = Asked(active, sessions=True)
    assert asked.lossless is False
    assert asked.reasons == {}, "the pair itself is well"
    listed = {
        (session["why"], session["why_name"], session["inside"], session["remote"])
        for session in asked.answer["listed"]
    }
    server = topo.SERVER_ADDRESS
    assert listed == {
        ("pool", "own", source, f"{server}:{OWN}"),
        ("rule", "untold", source, f"{server}:{UNTOLD}"),
        ("after", "late", source, f"{server}:{LATE}"),
    }
    fates = {session["remote"]: session["fate"] for session in active.sessions()}
    assert fates[f"{server}:{OWN}"] == "pool"
    assert fates[f"{server}:{PLAIN}"] == "lives"


def test_a_session_that_nobody_waits_for_is_exposed(lab: Lab, ready_pair: Pair) -> None:
    """Sync stands still: what async let go is lost with the node, what strict holds is not. Spec: B1, B5."""
    active = ready_pair.active()
    wait_lossless(active)
    with faults.xc_silent(lab):
        send(lab, ASYNC, STRICT)

        def exposed() -> bool:
            asked = Asked(active)
            waiting = asked.answer["sessions"]["waiting"]
            return not asked.lossless and asked.why == {("async", "hasty"): 1} and waiting == 1

        wait_until(exposed, WAIT_S, "one session is exposed, another one waits")
    wait_lossless(active)


def test_without_a_peer_everything_is_lost(lab: Lab, ready_pair: Pair) -> None:
    """A PASSIVE node that is frozen, or dead. Spec: B5."""
    active = ready_pair.active()
    passive = ready_pair.peer(active)
    send(lab, PLAIN)
    wait_lossless(active)
    pid = passive.pid
    assert pid is not None
    lab.signal(pid, signal.SIGSTOP)
    try:
        wait_reason(active, "no_peer")
        asked = Asked(active)
        assert asked.lossless is False
        assert asked.why == {("no_peer", None): asked.answer["sessions"]["total"]}
    finally:
        lab.signal(pid, signal.SIGCONT)
    ready_pair.wait_settled()
    wait_lossless(ready_pair.active())
    ready_pair.peer(ready_pair.active()).die()
    active = ready_pair.active()
    wait_reason(active, "no_peer")


def test_a_pair_without_its_cross_connect_says_so(lab: Lab, ready_pair: Pair) -> None:
    """Both nodes live and hear each other, but nothing is told: who begins now would die. Spec: B1, B5."""
    active = ready_pair.active()
    wait_lossless(active)
    with faults.xc_cut(lab):
        for node in ready_pair.nodes.values():
            wait_reason(node, "connecting")
        send(lab, ASYNC)
        wait_dying(active, 1)
        wait_until(
            lambda: any(e["event"] == "commit-off" for e in active.history()), WAIT_S, "nobody waits any more"
        )
        wait_dying(active, 1)
        send(lab, STRICT)
        wait_dying(active, 2)
    for node in ready_pair.nodes.values():
        wait_lossless(node)


def test_a_peer_whose_key_is_not_pinned_is_said_to_be_refused(
    lab: Lab, ready_pair: Pair, tmp_path: Path
) -> None:
    """Heartbeats are heard, sync is refused, and the reason is TLS. Spec: R22, B5."""
    active = ready_pair.active()
    passive = ready_pair.peer(active)
    passive.stop()
    keys = f"{KEYS_DIR}/{passive.name}"
    foreign = f"{keys}-foreign"
    shutil.copytree(lab.path(keys), lab.path(foreign), dirs_exist_ok=True)
    testkeys.give(lab.path(foreign), testkeys.stranger())
    own, passive.config = passive.config, tmp_path / "foreign.toml"
    passive.config.write_text(own.read_text().replace(f'"{keys}"', f'"{foreign}"'))
    passive.start()
    wait_reason(active, "tls_refused", "foreign")
    passive.stop()
    passive.config = own
    passive.start()
    ready_pair.wait_settled()
    wait_lossless(active)


def test_a_node_that_is_getting_the_table_is_not_ready(lab: Lab, ready_pair: Pair) -> None:
    """Each side says that a bulk is under way; then both say yes. Spec: B5."""
    active = ready_pair.active()
    passive = ready_pair.peer(active)
    source = send(lab, *MANY_PORTS)
    wait_until(lambda: len(active.sessions(inside=source)) == len(MANY_PORTS), WAIT_S, "the sessions")
    passive.die()
    wait_reason(active, "no_peer")
    passive.set_xc(up=True)
    with faults.xc_slow(lab, active.name):
        passive.start()
        wait_reason(active, "bulk", "walked")
        wait_reason(passive, "bulk", "records so far")
        asked = Asked(active)
        assert asked.lossless is False
        assert asked.answer["sessions"]["exact"] is False
    ready_pair.wait_settled()
    wait_lossless(active)
    wait_lossless(passive)
    assert Asked(active).answer["sessions"]["live"] >= len(MANY_PORTS)
