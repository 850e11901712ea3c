# SPDX-License-Identifier: Apache-2.0
"""Reload and review: what a new policy closes, what it leaves alone, and what it refuses to touch."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import packets
import pytest
from packets import LAN, SYN, TCP, UDP, WAN, Packet

from flexha.config.derive import node_plan
from flexha.config.load import load
from flexha.core.events import Role
from flexha.fastpath import (
    Action,
    Fastpath,
    FastpathError,
    FlowRecord,
    Form,
    Forward,
    Out,
    Policy,
    PoolConfig,
    Rule,
    Service,
)
from flexha.shell import log
from flexha.shell.control import RequestError
from flexha.shell.counters import Counters
from flexha.shell.policy_io import PolicyIo, changes

LAB_PAIR = (Path(__file__).resolve().parents[2] / "netns-lab" / "pair.toml").read_text()
NOW = 1000 * 1_000_000_000
CLIENT, OTHER = packets.CLIENTS[0], packets.CLIENTS[2]
SERVER = packets.SERVERS[0]
WEB = Packet(TCP, CLIENT, SERVER, 40000, 80, flags=SYN)
DNS = Packet(UDP, CLIENT, SERVER, 40001, 53, payload=b"query")
DNS_TOO = Packet(UDP, OTHER, SERVER, 40002, 53, payload=b"query")


@pytest.fixture
def node() -> Iterator[Fastpath]:
    """ACTIVE, with a second pool that no session has, and with three sessions."""
    config = packets.node_config(0)
    first = replace(config.pools[0], port_hi=30000)
    second = PoolConfig(name="second", address=packets.WAN_VIP, out_port=WAN, port_lo=40000)
    with Fastpath(replace(config, pools=(first, second))) as fastpath:
        fastpath.test_expire(NOW)
        fastpath.set_role(Role.ACTIVE, 2)
        fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
        fastpath.commit_policy(Policy((Rule(Action.ALLOW, pools=(0,)),)))
        for packet in (WEB, DNS, DNS_TOO):
            (out,) = fastpath.test_step([packet.from_lan()], port=LAN, now_ns=NOW)
            assert out.out is Out.WIRE, out.verdict
        yield fastpath


def sessions(node: Fastpath) -> dict[int, FlowRecord]:
    """By inside port."""
    return {record.inside_port: record for record in node.flows()}


def review(node: Fastpath, policy: Policy, page: int = 1024) -> int:
    node.commit_policy(policy)
    return sum(node.review_policy(page))


# ---- what a review closes ----------------------------------------------------------------------------
@pytest.mark.parametrize("page", [1, 2, 1024])
def test_exactly_what_is_denied_is_closed(node: Fastpath, page: int) -> None:
    """Spec: R11, issue "a change re-evaluates live sessions and says how many it closed"."""
    no_dns = Rule(Action.DENY, src=(IPv4Network(CLIENT),), services=(Service(UDP, 53, 53),))
    assert review(node, Policy((no_dns, Rule(Action.ALLOW, pools=(0,)))), page) == 1
    assert set(sessions(node)) == {40000, 40002}
    assert {record.rule for record in sessions(node).values()} == {2}, "the rule that allows it now"
    assert review(node, Policy((no_dns, Rule(Action.ALLOW, pools=(0,)))), page) == 0


def test_rejected_is_closed_too(node: Fastpath) -> None:
    assert review(node, Policy((Rule(Action.REJECT, services=(Service(TCP),)),))) == 1


def test_without_rules_what_goes_out_stays(node: Fastpath) -> None:
    assert review(node, Policy()) == 0
    assert {record.rule for record in sessions(node).values()} == {0}
    assert review(node, Policy(default_outbound=Action.DENY)) == 3


def test_another_pool_is_another_translation(node: Fastpath) -> None:
    web = Rule(Action.ALLOW, services=(Service(TCP),), pools=(1,))
    assert review(node, Policy((web,))) == 1
    assert set(sessions(node)) == {40001, 40002}


def test_no_translation_is_another_one(node: Fastpath) -> None:
    assert review(node, Policy((Rule(Action.ALLOW, form=Form.NONE),))) == 3


def test_ports_of_rules_are_those_of_the_opener(node: Fastpath) -> None:
    assert (
        review(node, Policy((Rule(Action.DENY, in_ports=(WAN,)), Rule(Action.DENY, out_ports=(LAN,))))) == 0
    )
    assert review(node, Policy((Rule(Action.DENY, in_ports=(LAN,), out_ports=(WAN,)),))) == 3


def test_a_forward_takes_its_endpoints(node: Fastpath) -> None:
    """What is held by a session that was there before would be in another shard."""
    external = sessions(node)[40001].external_port
    at_port = Forward(pool=0, external_port=external, inside=OTHER, inside_port=1, proto=UDP)
    assert review(node, Policy(forwards=(at_port,))) == 1
    at_server = Forward(pool=0, external_port=53, inside=OTHER, inside_port=40002, proto=UDP)
    assert review(node, Policy(forwards=(at_server,))) == 1
    assert set(sessions(node)) == {40000}


def test_only_the_active_node_reviews(node: Fastpath) -> None:
    node.set_role(Role.PASSIVE, 3)
    with pytest.raises(FastpathError) as caught:
        list(node.review_policy())
    assert caught.value.errno == errno.EPERM


def test_ports_in_use(node: Fastpath) -> None:
    first, second = node.pool_use()
    assert (first.tcp, first.udp, first.icmp) == (1, 2, 0)
    assert (second.tcp, second.udp, second.icmp) == (0, 0, 0)


# ---- reload ------------------------------------------------------------------------------------------
class Reloaded:
    """The part under test, on the lab's file and in-memory ports."""

    def __init__(self, node: Fastpath, path: Path) -> None:
        self.path = path
        self.file()
        config = load(path)
        plan = node_plan(config, "a")
        self.counters = Counters()
        self.part = PolicyIo(node, plan, config, path, self.counters)
        self.part.start()

    def file(self, text: str = "", pair: str = LAB_PAIR) -> None:
        self.path.write_text(pair + text)

    def reload(self, role: Role = Role.ACTIVE) -> dict[str, Any]:
        async def story() -> dict[str, Any]:
            self.part.role_set(role)
            answer: dict[str, Any] = json.loads(await self.part.reload({}))
            return answer

        return asyncio.run(story())

    def refused(self) -> str:
        with pytest.raises(RequestError) as caught:
            self.reload()
        return str(caught.value)


@pytest.fixture
def daemon(node: Fastpath, tmp_path: Path) -> Reloaded:
    return Reloaded(node, tmp_path / "pair.toml")


NO_DNS = '[[rules]]\nname = "no-dns"\naction = "deny"\nproto = "udp"\nports = "53"\n'
WEB_ONLY = NO_DNS + '[[rules]]\nname = "web"\naction = "allow"\nports = "80"\n'


def test_reload_applies_rules_and_says_what_it_closed(daemon: Reloaded, node: Fastpath) -> None:
    """Spec: R11."""
    daemon.file(WEB_ONLY)
    assert daemon.reload() == {
        "rules": 2,
        "forwards": 0,
        "default": "allow-outbound",
        "closed": 2,
        "reviewed": True,
    }
    assert set(sessions(node)) == {40000}
    assert daemon.part.rule_name(sessions(node)[40000].rule) == "web"


def test_a_line_of_before_a_reload_has_the_rule_of_before(
    daemon: Reloaded, node: Fastpath, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C tells of rules by their number, and numbers move."""
    lines: list[tuple[str, Any]] = []
    monkeypatch.setattr(log, "info", lambda name, /, **fields: lines.append((name, fields.get("rule"))))
    daemon.file(NO_DNS.replace("\naction", "\nlog = true\naction"))
    daemon.reload()
    query = replace(DNS, sport=40009)
    (out,) = node.test_step([query.from_lan()], port=LAN, now_ns=NOW)
    assert out.verdict == "rule_denied"
    daemon.file(NO_DNS.replace("no-dns", "another").replace("53", "54") + NO_DNS)
    daemon.reload()
    daemon.part.collect()
    assert [line for line in lines if line[0] == "session.refused"] == [("session.refused", "no-dns")]


def test_reload_of_the_same_file_closes_nothing(daemon: Reloaded, node: Fastpath) -> None:
    assert daemon.reload()["closed"] == 0
    assert len(sessions(node)) == 3


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('vips = ["203.0.113.3"]', 'vips = ["203.0.113.6"]', "ports.wan.vips[0]"),
        ("priority = 150", "priority = 151", "nodes.a.priority"),
        ("[nodes.a]", "[timeouts]\nudp_s = 400\n[nodes.a]", "timeouts.udp_s"),
        ("[[pools]]", '[[pools]]\nfiltering = "endpoint-independent"', "pools[0].filtering"),
        ("[[routes]]", "[[routes]]\nmetric = 7", "routes[0].metric"),
        (
            "5d1f0c6f7a3e4b2290c1d8e7f6a5b4c3",
            "00000000000000000000000000000000",
            "pair.secret",
        ),
    ],
)
def test_what_needs_a_restart_is_named_and_nothing_is_applied(
    daemon: Reloaded, node: Fastpath, old: str, new: str, key: str
) -> None:
    pair = LAB_PAIR.replace(old, new)
    if key.startswith("ports"):
        pair = pair.replace('address = "203.0.113.3"', 'address = "203.0.113.6"')
    daemon.file(NO_DNS, pair)
    text = daemon.refused()
    assert text.startswith("nothing was applied: ")
    assert key in text
    assert "restart" in text
    assert "0000" not in text, "a secret is not shown"
    assert len(sessions(node)) == 3
    assert node.policy_hits() == [0]


def test_a_wrong_file_is_refused_with_all_its_errors(daemon: Reloaded, node: Fastpath) -> None:
    daemon.file(NO_DNS + "[policy]\ndefault = 1\n" + NO_DNS)
    text = daemon.refused()
    assert "rules[1].name" in text
    assert "policy.default" in text
    assert len(sessions(node)) == 3


def test_a_file_that_is_gone_is_refused(daemon: Reloaded) -> None:
    daemon.path.unlink()
    assert "cannot be read" in daemon.refused()


def test_a_node_that_takes_over_later_reviews_then(daemon: Reloaded, node: Fastpath) -> None:
    """While PASSIVE its sessions are the peer's."""
    daemon.file(NO_DNS)

    async def story() -> None:
        daemon.part.role_set(Role.PASSIVE)
        answer = json.loads(await daemon.part.reload({}))
        assert (answer["closed"], answer["reviewed"]) == (0, False)
        assert len(sessions(node)) == 3
        daemon.part.role_set(Role.ACTIVE)
        async with asyncio.timeout(5):
            while len(sessions(node)) > 1:
                await asyncio.sleep(0)

    asyncio.run(story())


def test_a_takeover_reviews_what_the_peer_opened(node: Fastpath, tmp_path: Path) -> None:
    """The file was there at the start: this process has seen no reload. Spec: R11, R13."""
    path = tmp_path / "pair.toml"
    path.write_text(LAB_PAIR + NO_DNS)
    config = load(path)
    counters = Counters()
    part = PolicyIo(node, node_plan(config, "a"), config, path, counters)
    part.start()

    async def story() -> None:
        part.role_set(Role.PASSIVE)
        await asyncio.sleep(0)
        assert len(sessions(node)) == 3
        part.role_set(Role.ACTIVE)
        async with asyncio.timeout(5):
            while counters.values().get("policy.sessions_closed") != 2:
                await asyncio.sleep(0)
        node.set_role(Role.PASSIVE, 3)
        part.role_set(Role.PASSIVE)
        node.set_role(Role.ACTIVE, 4)
        part.role_set(Role.ACTIVE)
        part.role_set(Role.ACTIVE)
        await part.reload({})

    asyncio.run(story())
    assert {record.rule for record in sessions(node).values()} == {0}, "this node's number of what allows it"
    assert counters.values()["policy.sessions_closed"] == 2, "the same rules close nothing"


def test_two_reloads_at_once(daemon: Reloaded) -> None:
    async def story() -> None:
        first = asyncio.ensure_future(daemon.part.reload({}))
        await asyncio.sleep(0)
        with pytest.raises(RequestError, match="another reload is under way"):
            await daemon.part.reload({})
        await first

    asyncio.run(story())


def test_a_new_and_a_lost_entry_are_changes(tmp_path: Path) -> None:
    path = tmp_path / "pair.toml"
    path.write_text(LAB_PAIR)
    old = load(path)
    path.write_text(LAB_PAIR + '[[routes]]\nprefix = "192.0.2.0/24"\nvia = "203.0.113.1"\nport = "wan"')
    assert list(changes(old, load(path))) == ["routes"]


# ---- what is shown -----------------------------------------------------------------------------------
def test_what_a_rule_tells_the_peer_is_shown_as_it_stands(daemon: Reloaded) -> None:
    """Spec: B1."""
    daemon.file(
        '[[rules]]\nname = "bank"\naction = "allow"\ncommit = "strict"\n'
        '[[rules]]\nname = "dns"\naction = "allow"\nsync = "after 5"'
    )
    daemon.reload()
    bank, dns = daemon.part.rules_result()["rules"]
    assert bank == {"number": 1, "hits": 0, "name": "bank", "action": "allow", "commit": "strict"}
    assert dns == {"number": 2, "hits": 0, "name": "dns", "action": "allow", "sync": "after 5"}


def test_rules_as_they_stand_in_the_file(daemon: Reloaded) -> None:
    daemon.file(WEB_ONLY + '[[forwards]]\nname = "ssh"\npool = "vip"\nports = "2222"\nto = "198.51.100.9"')
    daemon.reload()
    assert daemon.part.rules_result() == {
        "rules": [
            {"number": 1, "hits": 0, "name": "no-dns", "action": "deny", "proto": ["udp"], "ports": ["53"]},
            {
                "number": 2,
                "hits": 0,
                "name": "web",
                "action": "allow",
                "proto": ["tcp", "udp"],
                "ports": ["80"],
            },
        ],
        "default": {"action": "allow-outbound", "hits": 0},
        "forwards": [
            {
                "name": "ssh",
                "pool": "vip",
                "proto": ["tcp"],
                "ports": ["2222"],
                "to": "198.51.100.9",
                "to_port": 2222,
            }
        ],
    }


def test_workers_that_never_answer_end_the_daemon(daemon: Reloaded, node: Fastpath) -> None:
    """Some may have the new rules: "nothing was applied" would be a lie."""
    daemon.file(NO_DNS)
    complaints: list[dict[str, Any]] = []

    def commit_policy(_policy: Policy) -> None:
        raise FastpathError(errno.ETIMEDOUT, "fp_policy_commit")

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        daemon.part.role_set(Role.ACTIVE)
        with pytest.raises(RequestError, match="workers do not answer: this node stops forwarding and ends"):
            await daemon.part.reload({})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "commit_policy", commit_policy)
        asyncio.run(story())
    (complaint,) = complaints
    assert isinstance(complaint["exception"], FastpathError), "the loop's handler takes it for fatal"
