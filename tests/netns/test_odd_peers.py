# SPDX-License-Identifier: Apache-2.0
"""Peers that are not as we are: of another version, hostile, or with a bit that flipped. Spec: B5, B10, R22.

The odd one is node b, a test build of flexhad (``odd_daemon.py``).
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import topo
from failover import compare_tables
from netns import odd_daemon
from netns.conftest import settle
from pair import Node, Pair, configuration_text
from sandbox import Lab, wait_until
from traffic import TcpFlows, UdpProbe

from flexha.core import sync_wire

pytestmark = pytest.mark.timeout(300)
ODD_DAEMON = Path(__file__).with_name("odd_daemon.py")
FLOWS = 50
WAIT_S = 20
REPAIR_S = 3.0
ADDRESS = topo.CLIENT_ADDRESSES[4]
PORT = 9191


class OddPair:
    """Node a is as ever, node b is odd."""

    def __init__(self, lab: Lab, directory: Path, nature: str, rules: str = "") -> None:
        self.lab = lab
        self.orders = directory / "orders"
        config = directory / "pair.toml"
        config.write_text(configuration_text() + rules)
        self.pair = Pair(lab, directory, config)
        self.a, self.b = self.pair["a"], self.pair["b"]
        self.b.program = (str(ODD_DAEMON), nature, str(self.orders))
        self.tcp: TcpFlows
        """Connections that nothing may disturb."""
        self._ports = iter(range(32000, 40000, 2))
        self._runs = iter(range(430, 440))
        self._probe: UdpProbe | None = None

    def begin(self) -> str:
        """A new UDP session, of one datagram; its inside endpoint."""
        port = next(self._ports)
        with self.lab.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((ADDRESS, port))
            sender.sendto(b"hello", (topo.SERVER_ADDRESS, PORT))
        return f"{ADDRESS}:{port}"

    def order(self, word: str) -> None:
        """The next message that it fits is odd."""
        self.orders.write_text(word)

    def obeyed(self) -> bool:
        return not self.orders.exists()

    def reign(self, node: Node) -> None:
        """This node is to be ACTIVE, the other one ready. The probe does not see the role move."""
        if self.pair.wait_settled() is not node:
            self.check_probe()
            self.pair.active().ctl("failover")
            wait_until(lambda: node.role() == "ACTIVE", WAIT_S, f"node {node.name} has the role")
            self.pair.wait_settled()

    def probe(self) -> None:
        """A UDP flow runs from now on, if none does."""
        if self._probe is None:
            self._probe = UdpProbe(self.lab, next(self._runs))

    def check_probe(self) -> None:
        """Nothing of it was lost; it ends."""
        if self._probe is not None:
            probed = self._probe.finish()
            self.close()
            assert (probed.lost, probed.foreign) == (0, 0)

    def close(self) -> None:
        if self._probe is not None:
            self._probe.close()
            self._probe = None


@contextlib.contextmanager
def odd_pair(
    lab: Lab, session_pair: Pair, directory: Path, nature: str, rules: str = ""
) -> Iterator[OddPair]:
    session_pair.stop_all()
    odd = OddPair(lab, directory, nature, rules)
    odd.pair.start()
    try:
        yield odd
    finally:
        odd.pair.stop_all()


def row(node: Node, inside: str) -> dict[str, Any] | None:
    """A session as a node shows it, but for what is its own."""
    for session in node.sessions(proto="udp"):
        if session["inside"] == inside:
            return {key: session[key] for key in ("proto", "inside", "remote", "external", "state")}
    return None


def sync_of(node: Node) -> dict[str, Any]:
    status = node.status()
    assert status is not None
    sync: dict[str, Any] = status["sync"]
    return sync


def audit_of(node: Node) -> dict[str, Any]:
    audit: dict[str, Any] = sync_of(node)["audit"]
    return audit


def in_sync(node: Node) -> bool:
    return bool(audit_of(node)["in_sync"])


def reigns(node: Node) -> bool:
    return node.role() == "ACTIVE"


# ---- other versions --------------------------------------------------------------------------------
@pytest.mark.parametrize("nature", ["later", "bare"])
def test_what_is_not_known_is_skipped_and_what_may_be_missing_is_missed_by_nobody(
    lab: Lab, session_pair: Pair, tmp_path: Path, nature: str
) -> None:
    """Each follows the other, and takes over all connections when it dies. Spec: B10."""
    run = 420 + ["later", "bare"].index(nature)
    with contextlib.ExitStack() as stack:
        odd = stack.enter_context(odd_pair(lab, session_pair, tmp_path, nature))
        odd.pair.wait_settled()
        tcp = stack.enter_context(contextlib.closing(TcpFlows(lab, run, flows=FLOWS)))
        tcp.wait_open()
        for dying, survivor in ((odd.a, odd.b), (odd.b, odd.a)):
            odd.reign(dying)
            source = odd.begin()
            wait_until(partial(odd.pair.holds, source), WAIT_S, "the other one has the session")
            wait_until(partial(in_sync, dying), WAIT_S, "the digests agree")
            assert audit_of(dying)["unrepaired"] == audit_of(survivor)["differing"] == []
            before = dying.sessions(state="established")
            dying.die()
            wait_until(partial(reigns, survivor), WAIT_S, "the other one reigns")
            tcp.mark()
            wait_until(tcp.recovered, WAIT_S, "each connection has an answer")
            problems = compare_tables(before, survivor.sessions(state="established"))
            assert (problems.missing, problems.different) == ((), ())
            if nature == "later" and survivor is odd.a:
                assert odd.a.counter("sync.unknown_message") > 0
                assert odd.a.counter("sync.unknown_columns") > 0
            dying.start()
            odd.pair.wait_settled()
        result = tcp.finish()
    assert (result.survived, result.reset, result.stalled) == (result.opened, 0, 0)


@pytest.mark.parametrize("nature", ["newer", "older"])
def test_no_version_in_common(lab: Lab, session_pair: Pair, tmp_path: Path, nature: str) -> None:
    """Both say so, each goes on alone: nobody's role moves, and who is left takes over. Spec: B10."""
    ours = f"{sync_wire.VERSION_MIN}..{sync_wire.VERSION_MAX}"
    most, least = sync_wire.VERSION_MAX, sync_wire.VERSION_MIN
    theirs = {"newer": f"{most + 1}..{most + 2}", "older": f"0..{least - 1}"}[nature]
    with odd_pair(lab, session_pair, tmp_path, nature) as odd:
        nodes = (odd.a, odd.b)

        def refused(times: int) -> bool:
            return all(node.status() and node.counter("sync.version") >= times for node in nodes)

        wait_until(lambda: odd.a.role() == "ACTIVE", WAIT_S, "node a has the role")
        wait_until(lambda: refused(2), WAIT_S, "both refuse")
        roles = [(node.role(), (node.status() or {})["term"]) for node in nodes]
        with contextlib.closing(TcpFlows(lab, 424 + (nature == "older"), flows=FLOWS)) as tcp:
            tcp.wait_open()
            more = 4 + max(node.counter("sync.version") for node in nodes)
            wait_until(lambda: refused(more), WAIT_S, "both refuse again and again")
            assert [(node.role(), (node.status() or {})["term"]) for node in nodes] == roles
            assert tcp.finish().survived == FLOWS
        assert f"the peer speaks sync {theirs}, this node {ours}" in odd.a.log.read_text()
        assert f"the peer speaks sync {ours}, this node {theirs}" in odd.b.log.read_text()
        odd.a.die()
        wait_until(lambda: odd.b.role() == "ACTIVE", WAIT_S, "who is left takes over")
        odd.begin()
        wait_until(lambda: bool(odd.b.sessions(proto="udp")), WAIT_S, "and forwards")


# ---- another configuration -------------------------------------------------------------------------
def test_nodes_whose_files_differ_do_not_sync_and_say_what_to_compare(
    lab: Lab, session_pair: Pair, tmp_path: Path
) -> None:
    """No sweep, no role moves; who is wrong is restarted, and sync comes up by itself. Spec: B5, R22."""
    session_pair.stop_all()
    text = configuration_text()
    secret = re.search('^secret = "([0-9a-f]{32})"', text, re.MULTILINE)
    assert secret
    right, wrong = tmp_path / "pair.toml", tmp_path / "wrong.toml"
    right.write_text(text)
    wrong.write_text(text.replace(secret[1], "5a" * 16))
    pair = Pair(lab, tmp_path, right)
    a, b = pair["a"], pair["b"]
    b.config = wrong

    def refused(times: int) -> bool:
        return all(node.status() and node.counter("sync.config_differs") >= times for node in (a, b))

    pair.start()
    try:
        wait_until(lambda: refused(3), WAIT_S, "both refuse, again and again")
        active = a if reigns(a) else b
        passive = pair.peer(active)
        for node in (a, b):
            assert sync_of(node)["differs"] == ["secret"]
            log = node.log.read_text()
            assert log.count("sync-config-differs") == 1
            assert "compare pair.secret in both nodes' files" in log
        (why,) = [r for r in active.request("ha_readiness")["reasons"] if r["code"] == "config_differs"]
        assert "pair.secret" in why["text"]
        assert passive.role() == "JOINING"
        assert sync_of(active)["bulk"]["sent"] == 0
        with contextlib.closing(TcpFlows(lab, 427, flows=FLOWS)) as tcp:
            tcp.wait_open()
            b.stop()
            b.config = right
            b.start()
            pair.wait_settled()
            assert tcp.finish().survived == FLOWS
        assert sync_of(active)["differs"] == []
    finally:
        pair.stop_all()


def test_a_reload_of_one_node_after_the_other_leaves_sync_alone(
    lab: Lab, session_pair: Pair, tmp_path: Path
) -> None:
    """Their rules differ for a moment. Spec: B5."""
    with odd_pair(lab, session_pair, tmp_path, "-") as odd:
        active = odd.pair.wait_settled()
        connections = active.counter("sync.connections")
        odd.probe()
        file = odd.a.config
        file.write_text(file.read_text() + STRICT)
        for node in (active, odd.pair.peer(active)):
            node.ctl("reload")
            source = odd.begin()
            wait_until(partial(odd.pair.holds, source), WAIT_S, "the other one has the session")
            rounds = audit_of(active)["agreed_at"]
            wait_until(lambda: audit_of(active)["agreed_at"] > rounds, WAIT_S, "the tables agree")  # noqa: B023
        assert audit_of(active)["differing"] == []
        assert active.counter("sync.connections") == connections
        odd.check_probe()


# ---- a peer that takes everything and says nothing -------------------------------------------------
def test_a_peer_that_never_acknowledges_is_hung_up_on(lab: Lab, session_pair: Pair, tmp_path: Path) -> None:
    """And comes back, each time; traffic knows nothing of it. Spec: R20, R22."""
    with odd_pair(lab, session_pair, tmp_path, "mute") as odd:
        wait_until(lambda: reigns(odd.a), WAIT_S, "node a reigns")
        odd.probe()
        odd.begin()
        wait_until(lambda: odd.a.counter("sync.ack_stalled") > 0, 2 * WAIT_S, "it is hung up on")
        connections = odd.a.counter("sync.connections")
        wait_until(
            lambda: odd.a.counter("sync.connections") > connections or sync_of(odd.a)["connected"],
            WAIT_S,
            "it is back",
        )
        assert odd.a.log.read_text().count("nothing acknowledged for 10 s") >= 1
        odd.check_probe()


# ---- a peer without room ---------------------------------------------------------------------------
STRICT = f"""
[[rules]]
name = "strict"
action = "allow"
proto = "udp"
ports = "{PORT + 1}"
commit = "strict"
"""


def test_an_acknowledgement_is_not_for_what_the_peer_has_no_room_for(
    lab: Lab, session_pair: Pair, tmp_path: Path
) -> None:
    """Strict never leaves, bounded leaves in time, and both are known to die with this node. Spec: B1, B5."""
    with contextlib.ExitStack() as stack:
        odd = stack.enter_context(odd_pair(lab, session_pair, tmp_path, odd_daemon.SMALL, STRICT))
        odd.reign(odd.a)
        wait_until(partial(in_sync, odd.a), WAIT_S, "the digests agree")

        def is_full() -> bool:
            for _ in range(5):
                odd.begin()
            return len(odd.b.sessions()) >= odd_daemon.SMALL_FLOWS

        wait_until(is_full, WAIT_S, "the peer's table is full, each worker's")
        wait_until(lambda: odd.a.counter("sync.peer_refused_records") > 0, WAIT_S, "node a knows")
        server = stack.enter_context(lab.open_socket("server", socket.AF_INET, socket.SOCK_DGRAM))
        server.bind((topo.SERVER_ADDRESS, PORT + 1))
        server.setblocking(False)
        client = stack.enter_context(lab.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM))
        client.sendto(b"only with a peer", (topo.SERVER_ADDRESS, PORT + 1))
        wait_until(lambda: odd.a.counter("hold_dropped") > 0, WAIT_S, "strict drops it")
        with pytest.raises(BlockingIOError):
            server.recv(100)
        answer = odd.a.request("ha_readiness", sessions=True)
        assert not answer["lossless"]
        assert {"unacked"} == {why["code"] for why in answer["sessions"]["why"]}
        assert answer["sessions"]["waiting"] >= 1, "the strict one: nobody has heard of it"
        wait_until(lambda: bool(audit_of(odd.a)["unrepaired"]), WAIT_S, "repairs do not help: an alarm")
        assert "sync.refused_by_peer" in odd.a.log.read_text()
        assert odd.a.log.read_text().count("sync.refused_by_peer") == 1
        assert "sync.records_refused" in odd.b.log.read_text()
        assert odd.a.counter("sync.connections") == 1, "nothing of this ends the connection"


# ---- one of the pair goes wrong for a moment -------------------------------------------------------------
@pytest.fixture(scope="module")
def odd(lab: Lab, session_pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OddPair]:
    """A pair whose node b takes orders, with connections that nothing may disturb."""
    directory = tmp_path_factory.mktemp("odd")
    with odd_pair(lab, session_pair, directory, "-") as made:
        made.pair.wait_settled()
        made.tcp = TcpFlows(lab, 426, flows=FLOWS)
        with contextlib.closing(made.tcp) as tcp, contextlib.closing(made):
            tcp.wait_open()
            yield made
            made.check_probe()
            flows = tcp.finish()
        assert flows.survived == flows.opened == FLOWS
    settle(session_pair)


@pytest.fixture
def undisturbed(odd: OddPair) -> Iterator[None]:
    """After a test every connection gets one more answer, and the pair comes to rest in sync."""
    yield
    rounds = int(odd.tcp.progress()["rounds"])
    wait_until(lambda: int(odd.tcp.progress()["rounds"]) > rounds, WAIT_S, "each connection has an answer")
    assert (odd.tcp.progress()["reset"], odd.tcp.progress()["stalled"]) == (0, 0)
    odd.pair.wait_settled()
    wait_until(lambda: audit_of(odd.pair.active())["in_sync"], WAIT_S, "the digests agree")
    assert audit_of(odd.pair.active())["unrepaired"] == []


FLIPS = {
    "flip-state": {"differed"},
    "flip-port": {"differed"},
    "flip-version": {"differed"},
    "flip-remote": {"missing", "extra"},
    "drop": {"missing"},
    "add": {"extra"},
}


@pytest.mark.parametrize("flip", FLIPS)
def test_what_flips_in_one_record_is_found_and_repaired(odd: OddPair, undisturbed: None, flip: str) -> None:
    """Within 3 seconds; the log names the session, counters tell what it was. Spec: B5, R22."""
    odd.reign(odd.a)
    odd.probe()
    wait_until(lambda: audit_of(odd.a)["in_sync"] and audit_of(odd.b)["in_sync"], WAIT_S, "both agree")
    repaired = audit_of(odd.a)["repaired"]
    counted = {kind: odd.b.counter(f"audit.{kind}_records") for kind in ("differed", "missing", "extra")}
    differing = odd.b.counter("audit.differing")
    log_size = odd.b.log.stat().st_size
    odd.order(flip)
    source = odd.begin()
    wait_until(odd.obeyed, WAIT_S, "node b has taken the record in, wrong")
    since = time.monotonic()

    def is_repaired() -> bool:
        audit = audit_of(odd.a)
        return audit["repaired"] > repaired and not audit["differing"]

    wait_until(is_repaired, WAIT_S, "the digests agree again")
    took_s = time.monotonic() - since
    assert took_s <= REPAIR_S, f"{flip}: repaired after {took_s:.2f} s"
    assert row(odd.a, source) == row(odd.b, source) is not None
    assert {s["inside"] for s in odd.a.sessions()} == {s["inside"] for s in odd.b.sessions()}
    assert odd.b.counter("audit.differing") > differing
    was = {kind for kind, n in counted.items() if odd.b.counter(f"audit.{kind}_records") > n}
    assert was == FLIPS[flip], f"{flip}: repaired after {took_s:.2f} s as {was}"
    with odd.b.log.open() as log:
        log.seek(log_size)
        lines = [line for line in log if "audit.repaired" in line]
    host, _, port = source.partition(":")
    named = f"{host}:{int(port) + 1}" if flip == "add" else source
    assert any(named in line for line in lines), lines


def closed_for(odd: OddPair, victim: Node, counter: str, word: str) -> None:
    """Node b says it once: the other one counts it, and ends this connection; the next one is good again."""
    before, connections = victim.counter(counter), victim.counter("sync.connections")
    odd.order(word)
    odd.begin()
    wait_until(odd.obeyed, WAIT_S, f"node b says it ({word})")
    wait_until(lambda: victim.counter(counter) == before + 1, WAIT_S, f"{counter} counts")
    wait_until(lambda: victim.counter("sync.connections") > connections, WAIT_S, "they are connected again")


BY_PASSIVE = {"ack-of-the-future": "sync.bad_ack", "audit-of-the-future": "sync.bad_audit"}
BY_ACTIVE = {
    "gap": "sync.gap",
    "truncated": "sync.garbage",
    "deep": "sync.garbage",
    "huge-array": "sync.garbage",
    "huge-map": "sync.garbage",
    "huge-bin": "sync.garbage",
    "extension": "sync.garbage",
    "text-for-a-number": "sync.bad_field",
    "negative": "sync.bad_field",
    "sections-of-nothing": "sync.bad_field",
    "huge-count": "sync.bad_field",
    "no-required-column": "sync.bad_column",
    "long-column": "sync.bad_column",
    "impossible-state": "sync.bad_value",
    "impossible-form": "sync.bad_value",
}
ABSURD = ("port-outside-of-the-pool", "address-of-no-pool", "another-shard", "state-of-another-protocol")


@pytest.mark.parametrize("word", BY_PASSIVE)
def test_passive_says_what_it_cannot_know(odd: OddPair, undisturbed: None, word: str) -> None:
    """ACTIVE gives up nothing for it. Spec: R22."""
    odd.reign(odd.a)
    odd.probe()
    closed_for(odd, odd.a, BY_PASSIVE[word], word)


@pytest.mark.parametrize("word", BY_ACTIVE)
def test_active_says_what_nobody_says(odd: OddPair, undisturbed: None, word: str) -> None:
    """The session ends, nothing of the message is used, and the next one brings what was lost. Spec: R22."""
    odd.reign(odd.b)
    odd.probe()
    closed_for(odd, odd.a, BY_ACTIVE[word], word)


@pytest.mark.parametrize("word", ABSURD)
def test_record_that_contradicts_itself(odd: OddPair, undisturbed: None, word: str) -> None:
    """The others of its batch are taken, it ends the connection; a bulk brings what is true. Spec: R22."""
    odd.reign(odd.b)
    odd.probe()
    wait_until(partial(in_sync, odd.a), WAIT_S, "the tables are equal")
    before, connections = odd.a.counter("sync.absurd_records"), odd.a.counter("sync.connections")
    odd.order(word)
    source = odd.begin()
    wait_until(odd.obeyed, WAIT_S, f"node b says it ({word})")
    wait_until(lambda: odd.a.counter("sync.absurd_records") == before + 1, WAIT_S, "it is counted")
    wait_until(lambda: odd.a.counter("sync.connections") > connections, WAIT_S, "they are connected again")
    wait_until(lambda: row(odd.a, source) == row(odd.b, source) is not None, WAIT_S, "it is repaired")
    wait_until(partial(in_sync, odd.a), WAIT_S, "the tables are equal")
    assert odd.a.log.read_text().count("WARNING sync-closed reason='records that contradict") <= 1
