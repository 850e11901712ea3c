# SPDX-License-Identifier: Apache-2.0
"""ACTIVE dies at a packet of connections that have just begun. Spec: B1, R17, R18.

A selection of what ``make lab-embryonic`` goes through, and the relay that does it.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import topo
from embryonic import Bench, configuration_with
from kills import TOLD, UNHEARD, Case
from pair import Pair
from relay import PLACES, Relay, spliced
from sandbox import Lab
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw
from traffic import BIN_DIR, ShortConns

CLIENT, SERVER, PORT = "198.51.100.10", "192.0.2.10", 7300
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
CONNS = 50


# ---- what is which packet ----------------------------------------------------------------------------
def there(flags: str, payload: bytes = b"", sport: int = 20000) -> Packet:
    return ETHER / IP(src=CLIENT, dst=SERVER) / TCP(sport=sport, dport=PORT, flags=flags) / Raw(payload)


def back(flags: str, payload: bytes = b"", dport: int = 20000) -> Packet:
    return ETHER / IP(src=SERVER, dst=CLIENT) / TCP(sport=PORT, dport=dport, flags=flags) / Raw(payload)


def stages(*frames: Packet | bytes) -> list[str]:
    """What the relay takes frames for, one after the other."""
    done = subprocess.run(
        [BIN_DIR / "relay", "classify", SERVER, str(PORT)],
        input="".join(bytes(frame).hex() + "\n" for frame in frames),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


@pytest.mark.usefixtures("lab")  # it compiles the relay
def test_stages_of_a_connection() -> None:
    """A whole connection, then again what a kernel may send twice."""
    life = (
        *((there("S"), "syn"), (back("SA"), "syn-ack"), (there("A"), "ack"), (there("PA", b"ask"), "data")),
        *((back("A"), "data-ack"), (back("PA", b"told"), "answer"), (there("A"), "answer-ack")),
        *((there("FA"), "fin"), (back("A"), "fin-ack"), (back("FA"), "fin-reply"), (there("A"), "last-ack")),
        *((there("S"), "syn"), (back("SA"), "syn-ack"), (there("PA", b"ask"), "data"), (there("R"), "rst")),
        *((back("RA"), "rst"), (there("FPA", b"ask"), "fin"), (there("SEC"), "syn")),
    )
    assert stages(*(frame for frame, _ in life)) == [name for _, name in life]


@pytest.mark.usefixtures("lab")
def test_stages_are_of_each_connection_alone() -> None:
    """An ACK is the handshake's on the connection that has sent nothing, whatever others have sent."""
    assert stages(there("PA", b"ask", 20001), there("A", sport=20001), there("A", sport=20002)) == [
        *("data", "answer-ack", "ack")
    ]


@pytest.mark.usefixtures("lab")
def test_other_frames_are_nobodys() -> None:
    """ARP, UDP, other ports and hosts, tags, fragments, and frames that are cut short or lie about it."""
    whole = bytes(there("S"))
    lying = bytearray(whole)
    lying[14 + 20 + 12] = 0xF0  # a TCP header of 60 bytes in a packet of 40
    others = (
        ETHER / ARP(),
        ETHER / IP(src=CLIENT, dst=SERVER) / UDP(dport=PORT),
        ETHER / IP(src=CLIENT, dst=SERVER) / TCP(dport=PORT + 1, flags="S"),
        ETHER / IP(src=CLIENT, dst=CLIENT) / TCP(dport=PORT, flags="S"),
        ETHER / Dot1Q(vlan=7) / IP(src=CLIENT, dst=SERVER) / TCP(dport=PORT, flags="S"),
        fragment(there("PA", bytes(64)), fragsize=32)[1],
        *(whole[:length] for length in range(1, len(whole))),
        bytes(lying),
    )
    assert set(stages(*others)) == {"-"}
    assert stages(whole + bytes(6)) == ["syn"], "Ethernet's padding is no payload"


# ---- the relay as a wire -------------------------------------------------------------------------------
def test_relay_delays_loses_and_reorders(lab: Lab, pair: Pair) -> None:
    """It can be a bad wire, by count and by seed; TCP copes, and it ends without a trace."""
    pair.wait_settled()
    before = lab.run("wansw", ["ip", "-brief", "link"]).stdout.split()
    with spliced(lab, "wire") as relay, contextlib.ExitStack() as stack:
        relay.test(PORT)
        for command in ("delay 20", "drop 20", "reorder 30 7"):
            relay.command(command)
        reply = lab.run("isp", ["ping", "-c", "2", "-W", "2", topo.WAN_VIP]).stdout
        assert float(reply.rsplit("=", 1)[1].split("/")[0]) >= 40, reply
        traffic = ShortConns(lab, PORT, 39000, conns=CONNS)
        stack.callback(traffic.close)
        result = traffic.finish(60)
        figures = relay.figures()
    assert result.survived == CONNS
    assert result.closed == CONNS
    assert result.second == 0
    frames = sum(figures["frames"].values())
    assert figures["dropped"] == frames // 20
    assert figures["reordered"] > 0
    assert figures["overflow"] == figures["missed"] == figures["unsent"] == 0
    assert before == lab.run("wansw", ["ip", "-brief", "link"]).stdout.split()


# ---- kills -----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def relays(lab: Lab) -> Iterator[dict[str, Relay]]:
    """One at each side, for all kills."""
    with contextlib.ExitStack() as stack:
        yield {where: stack.enter_context(spliced(lab, where)) for where in PLACES}


@pytest.fixture(scope="module")
def bench(
    lab: Lab, session_pair: Pair, relays: dict[str, Relay], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Bench]]:
    """Benches by mode; a mode's pair runs until another's is wanted."""
    directory: Path = tmp_path_factory.mktemp("embryonic")
    made: list[Bench] = []

    def get(mode: str) -> Bench:
        if made and made[-1].mode == mode:
            return made[-1]
        (made[-1].pair if made else session_pair).stop_all()
        pair = Pair(lab, session_pair["a"].log.parent, configuration_with(directory, mode))
        for node in pair.nodes.values():
            node.start()
        made.append(Bench(lab, pair, mode, relays, made[-1].number if made else 0))
        return made[-1]

    try:
        yield get
    finally:
        if made:
            made[-1].pair.stop_all()


@pytest.mark.parametrize(
    "case",
    [Case("async", "client", "after", "ack", TOLD)],
    ids=lambda case: f"{case.boundary}, {case.heard}",
)
def test_async_keeps_what_was_told(bench: Callable[[str], Bench], case: Case) -> None:
    """What the survivor never heard of is row ``embryonic-async`` (``test_scenarios.py``). Spec: R18."""
    kill = bench(case.mode).kill_at(case, CONNS)
    assert not kill.findings()


@pytest.mark.parametrize(
    "case",
    [
        Case("bounded", "wire", "before", "syn"),
        Case("bounded", "client", "before", "data"),
        Case("bounded", "wire", "after", "data"),
        Case("strict", "client", "before", "syn-ack"),
        Case("strict", "wire", "before", "fin"),
    ],
    ids=lambda case: f"{case.mode}, {case.boundary}",
)
def test_output_commit_loses_nothing(bench: Callable[[str], Bench], case: Case) -> None:
    """Nobody waits for the survivor: a packet that the node let go belongs to a session that it has.

    Spec: B1, R17, R18.
    """
    kill = bench(case.mode).kill_at(case, CONNS)
    assert not kill.findings()
    assert kill.result.survived == CONNS


def test_strict_withholds_what_nobody_acknowledges(bench: Callable[[str], Bench]) -> None:
    """No SYN reaches the wire while the peer is deaf; all connections come about by the peer. Spec: B1."""
    kill = bench("strict").kill_at(Case("strict", "wire", "before", "syn", UNHEARD), CONNS)
    assert not kill.findings()
    assert kill.relay["frames"]["syn"] == 0


def test_output_commit_in_a_storm(bench: Callable[[str], Bench]) -> None:
    """New connections all the time while ACTIVE dies: each that was begun goes through. Spec: B1."""
    kill = bench("strict").storm(10, conns=6000, kill_at=3000)
    assert not kill.findings()
    assert kill.result.survived == 6000
