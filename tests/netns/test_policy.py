# SPDX-License-Identifier: Apache-2.0
"""Rules on a live pair: a reload under traffic, pools of rules, and a pool that does not survive.

The pair of these tests has a configuration of its own; the session's pair rests meanwhile. Spec: R11, R25.
"""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import topo
from pair import Node, Pair, configuration_text
from sandbox import Lab, LabError, wait_until
from traffic import TcpFlows

pytestmark = pytest.mark.timeout(180)

FLOWS = 60
DENIED = topo.CLIENT_ADDRESSES[3]
SECOND = "203.0.113.6"
PORT, SECOND_PORT, REJECTED_PORT, OWN_PORT = 8131, 8132, 8133, 8134
OWN_ADDRESSES = {"a": "203.0.113.4", "b": "203.0.113.5"}
PLAIN = """
[[rules]]
name = "all"
action = "allow"
from = "inside"
to = "outside"
"""
POOLS = f"""
[[pools]]
name = "second"
port = "wan"
address = "{SECOND}"

[[pools]]
name = "own"
port = "wan"
address = "interface"
port_lo = 10000
port_hi = 19999

[[rules]]
name = "by-second"
action = "allow"
proto = "tcp"
ports = "{SECOND_PORT}"
nat = "second"
log = true

[[rules]]
name = "by-own"
action = "allow"
proto = "tcp"
ports = "{OWN_PORT}"
nat = "own"

[[rules]]
name = "rejected"
action = "reject"
proto = "tcp"
ports = "{REJECTED_PORT}"
log = true

[[rules]]
name = "by-vip"
action = "allow"
from = "inside"
to = "outside"
nat = "vip"
"""
NO_CLIENT = f"""
[[rules]]
name = "no-client"
action = "deny"
src = "{DENIED}"
"""


class PolicyPair:
    """A pair, and the file that it reads."""

    def __init__(self, lab: Lab, directory: Path, text: str) -> None:
        self.config = directory / "pair.toml"
        self.write(text)
        self.nodes = Pair(lab, directory, self.config)

    def write(self, text: str) -> None:
        self.config.write_text(configuration_text() + text)

    def reload(self) -> dict[str, dict[str, Any]]:
        return {name: node.ctl("reload") for name, node in self.nodes.nodes.items()}


@pytest.fixture
def policy_pair(
    lab: Lab, session_pair: Pair, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[PolicyPair]:
    session_pair.stop_all()
    under_test = PolicyPair(lab, tmp_path, getattr(request, "param", POOLS))
    under_test.nodes.start()
    try:
        under_test.nodes.wait_settled()
        yield under_test
    finally:
        under_test.nodes.stop_all()


def inside_addresses(node: Node) -> list[str]:
    return [session["inside"].partition(":")[0] for session in node.sessions(state="established")]


def transitions(pair: Pair) -> dict[str, list[dict[str, Any]]]:
    """What each node remembers of its roles."""
    return {
        name: [event for event in node.history() if event["event"] in ("role", "term", "handover-begun")]
        for name, node in pair.nodes.items()
    }


def rounds(tcp: TcpFlows) -> int:
    return int(tcp.progress()["rounds"])


@pytest.mark.parametrize("policy_pair", [PLAIN], ids=["one pool"], indirect=True)
def test_a_reload_closes_exactly_what_the_new_rules_deny(lab: Lab, policy_pair: PolicyPair) -> None:
    """And moves no role. Spec: R11, R15, issue "a change re-evaluates live sessions and says how many it
    closed"."""
    pair = policy_pair.nodes
    active = pair.active()
    reigned = transitions(pair)
    passive = pair.peer(active)
    with contextlib.ExitStack() as stack:
        tcp = TcpFlows(lab, 390, flows=FLOWS)
        stack.callback(tcp.close)
        tcp.wait_open()
        before = inside_addresses(active)
        denied = before.count(DENIED)
        assert denied == FLOWS // len(topo.CLIENT_ADDRESSES)

        assert active.ctl("reload")["closed"] == 0, "the same file closes nothing"
        policy_pair.write(NO_CLIENT + PLAIN)
        answers = policy_pair.reload()
        assert answers[active.name] == {
            "rules": 2,
            "forwards": 0,
            "default": "allow-outbound",
            "closed": denied,
            "reviewed": True,
        }
        assert answers[passive.name]["reviewed"] is False
        assert sorted(inside_addresses(active)) == sorted(a for a in before if a != DENIED)
        wait_until(
            lambda: sorted(inside_addresses(passive)) == sorted(inside_addresses(active)),
            10,
            "the peer has heard of it",
        )
        so_far = int(tcp.progress()["responses"])
        wait_until(
            lambda: int(tcp.progress()["responses"]) > so_far + 4 * (FLOWS - denied), 20, "the others live on"
        )
        assert DENIED not in inside_addresses(active)
        names = {session["rule_name"] for session in active.sessions(state="established")}
        assert names == {"all"}, "sessions have the number of the rule that allows them now"
    assert transitions(pair) == reigned


@pytest.mark.parametrize("policy_pair", [PLAIN], ids=["one pool"], indirect=True)
def test_a_takeover_closes_what_this_nodes_rules_deny(lab: Lab, policy_pair: PolicyPair) -> None:
    """The PASSIVE node was restarted with other rules, and has heard of no reload. Spec: R11, R13."""
    pair = policy_pair.nodes
    active = pair.active()
    passive = pair.peer(active)
    with contextlib.ExitStack() as stack:
        tcp = TcpFlows(lab, 381, flows=FLOWS)
        stack.callback(tcp.close)
        tcp.wait_open()
        passive.stop()
        policy_pair.write(NO_CLIENT + PLAIN)
        passive.start()
        pair.wait_settled()
        before = inside_addresses(passive)
        assert before.count(DENIED) == FLOWS // len(topo.CLIENT_ADDRESSES)
        active.die()
        allowed = sorted(address for address in before if address != DENIED)
        wait_until(lambda: sorted(inside_addresses(passive)) == allowed, 20, "what is denied is closed")
        assert logged(passive, "policy.reviewed", closed=str(before.count(DENIED)))
        so_far = int(tcp.progress()["responses"])
        wait_until(
            lambda: int(tcp.progress()["responses"]) > so_far + 4 * len(allowed), 20, "the others live on"
        )
        assert sorted(inside_addresses(passive)) == allowed
        names = {session["rule_name"] for session in passive.sessions(state="established")}
        assert names == {"all"}, "sessions have this node's number of the rule that allows them"


def test_a_change_that_needs_a_restart_is_refused_whole(policy_pair: PolicyPair) -> None:
    text = NO_CLIENT + POOLS.replace("port_hi = 19999", "port_hi = 18999")
    policy_pair.write(text)
    active = policy_pair.nodes.active()
    with pytest.raises(LabError, match=r"nothing was applied: pools\[2\].port_hi changed"):
        active.request("reload")
    assert [rule["name"] for rule in active.ctl("rules")["rules"]] == [
        "by-second",
        "by-own",
        "rejected",
        "by-vip",
    ]


def connect(stack: contextlib.ExitStack, lab: Lab, port: int) -> tuple[socket.socket, socket.socket, str]:
    """A connection of a client's: both ends, and the address that the server sees."""
    listener = stack.enter_context(lab.open_socket("server", socket.AF_INET, socket.SOCK_STREAM))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((topo.SERVER_ADDRESS, port))
    listener.listen()
    client = stack.enter_context(lab.open_socket("client", socket.AF_INET, socket.SOCK_STREAM))
    client.settimeout(20)
    client.connect((topo.SERVER_ADDRESS, port))
    served, (address, _) = listener.accept()
    served.settimeout(20)
    return client, stack.enter_context(served), str(address)


def source_at_server(lab: Lab, port: int) -> str:
    with contextlib.ExitStack() as stack:
        return connect(stack, lab, port)[2]


def rule_hits(node: Node) -> dict[str, int]:
    return {rule["name"]: rule["hits"] for rule in node.ctl("rules")["rules"]}


def logged(node: Node, event: str, **fields: str) -> bool:
    return any(
        event in line and all(f"{key}={value}" in line for key, value in fields.items())
        for line in node.log.read_text().splitlines()
    )


def test_a_rule_chooses_the_pool(lab: Lab, policy_pair: PolicyPair) -> None:
    """The server sees the other address, which ACTIVE answers ARP for; the session is logged and counted."""
    active = policy_pair.nodes.active()
    assert source_at_server(lab, PORT) == topo.WAN_VIP
    assert source_at_server(lab, SECOND_PORT) == SECOND
    assert rule_hits(active)["by-second"] == 1
    wait_until(
        lambda: logged(active, "session.opened", rule="by-second", to="wan"), 5, "the session is logged"
    )
    pools = {pool["name"]: pool for pool in active.ctl("pools")["pools"]}
    assert pools["second"]["in_use"]["tcp"] == 1


def test_a_session_of_another_address_survives(lab: Lab, policy_pair: PolicyPair) -> None:
    """Spec: R11, R13. The next node answers for the pool's address, and has the session."""
    pair = policy_pair.nodes
    victim = pair.active()
    survivor = pair.peer(victim)
    with contextlib.ExitStack() as stack:
        client, served, source = connect(stack, lab, SECOND_PORT)
        assert source == SECOND
        wait_until(
            lambda: any(s["pool"] == "second" and s["state"] == "established" for s in survivor.sessions()),
            10,
            "the peer has the session",
        )
        victim.die()
        wait_until(lambda: survivor.role() == "ACTIVE", 10, "the peer takes over")
        client.sendall(b"still there?")
        assert served.recv(100) == b"still there?"
        served.sendall(b"yes")
        assert client.recv(100) == b"yes"


def test_the_kernels_ports_are_not_the_pools(lab: Lab, session_pair: Pair, tmp_path: Path) -> None:
    """Spec: issue "On an interface address, the kernel's and the NAT's port ranges are disjoint"."""
    path = tmp_path / "pair.toml"
    path.write_text(configuration_text() + POOLS.replace("port_hi = 19999", "port_hi = 40000"))
    argv = [sys.executable, "-m", "flexha", "--config", str(path), "--node", "a"]
    session_pair["a"].stop()
    run = lab.run("a", argv, check=False)
    assert run.returncode == 1
    assert "pools[2].port_lo: 10000..40000 of the node's own address overlaps the ports" in run.stderr
    assert "sysctl -w net.ipv4.ip_local_port_range=" in run.stderr


def test_the_nodes_own_address_as_a_pool(lab: Lab, policy_pair: PolicyPair) -> None:
    """It works beside the kernel, which has the same address, and the peer is not told of its sessions."""
    active = policy_pair.nodes.active()
    passive = policy_pair.nodes.peer(active)
    assert source_at_server(lab, OWN_PORT) == OWN_ADDRESSES[active.name]
    assert source_at_server(lab, PORT) == topo.WAN_VIP
    lab.run(active.name, ["ping", "-c", "1", "-W", "5", topo.ISP_ADDRESS])
    wait_until(
        lambda: any(session["remote"].endswith(f":{PORT}") for session in passive.sessions()),
        10,
        "the peer has heard of the later session",
    )
    assert {session["pool"] for session in passive.sessions(proto="tcp")} == {"vip"}


def test_a_rejected_connection_is_refused_at_once_and_logged(lab: Lab, policy_pair: PolicyPair) -> None:
    active = policy_pair.nodes.active()
    with lab.open_socket("client", socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(10)
        with pytest.raises(ConnectionRefusedError):
            client.connect((topo.SERVER_ADDRESS, REJECTED_PORT))
    assert rule_hits(active)["rejected"] == 1
    wait_until(lambda: logged(active, "session.refused", rule="rejected"), 5, "the refusal is logged")


def test_a_pool_that_does_not_survive_is_warned_of(policy_pair: PolicyPair) -> None:
    """Spec: R11. At the start, in ``status`` and in ``pools``."""
    for node in policy_pair.nodes.nodes.values():
        assert logged(node, "pool.does_not_survive", pool="own")
        status = node.status()
        assert status is not None
        assert ["own" in text for text in status["warnings"]] == [True]
        survives = {pool["name"]: pool["survives"] for pool in node.ctl("pools")["pools"]}
        assert survives == {"vip": True, "second": True, "own": False}


BRANCH = f"""
[[routes]]
prefix = "10.9.0.0/16"
via = "{topo.CLIENT_ADDRESSES[-1]}"
port = "lan"
"""


@pytest.mark.parametrize("policy_pair", [BRANCH], indirect=True)
def test_what_is_inside_stays_inside_when_its_route_goes(lab: Lab, policy_pair: PolicyPair) -> None:
    """Spec: DESIGN section 2, "a reply for a client never follows the default route to the ISP"."""
    active = policy_pair.nodes.active()
    with lab.open_socket("client", socket.AF_INET, socket.SOCK_DGRAM) as client:

        def counted(verdict: str) -> bool:
            client.sendto(b"?", ("10.9.0.5", 53))
            return active.counter(verdict) > 0

        wait_until(lambda: counted("inside_denied"), 10, "to the branch by the LAN it came from")
        lab.run(active.name, ["ip", "route", "del", "10.9.0.0/16"])
        wait_until(lambda: counted("zone_unreachable"), 10, "to the branch, to which nothing leads")
    assert active.sessions(remote="10.9.0.5") == []
