# SPDX-License-Identifier: Apache-2.0
"""Rules, forwards and pools as people write them, and what the fast path is told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from flexha.config.derive import Draw, NodePlan, fastpath_config, node_plan
from flexha.config.load import parse
from flexha.config.policy import policy_of
from flexha.config.schema import Config
from flexha.errors import ConfigError
from flexha.fastpath import Action, Commit, Filtering, Form, Policy, Service, SyncConfig, SyncFilter
from flexha.shell import preflight

PAIR = (Path(__file__).resolve().parents[2] / "netns-lab" / "pair.toml").read_text()
POOLS = """
[[pools]]
name = "own"
port = "wan"
address = "interface"
port_lo = 20000
port_hi = 29999
filtering = "endpoint-independent"
"""
LAN, WAN = 0, 1
TCP, UDP, ICMP = 6, 17, 1


def with_policy(text: str) -> Config:
    """The lab's pair and these tables."""
    return parse(PAIR + POOLS + text)


def policy(text: str) -> Policy:
    return policy_of(with_policy(text))


# ---- rules -------------------------------------------------------------------------------------------
def test_a_rule_that_names_nothing_takes_everything() -> None:
    """Spec: R11."""
    (rule,) = policy('[[rules]]\nname = "all"\naction = "deny"').rules
    assert rule == replace(rule, action=Action.DENY, src=(), dst=(), services=(), in_ports=(), out_ports=())
    assert (rule.sport_lo, rule.sport_hi, rule.pools, rule.form) == (0, 65535, (), Form.SNAT)


def test_every_key_of_a_rule_reaches_the_fast_path() -> None:
    (rule,) = policy(
        """
        [[rules]]
        name = "r"
        action = "allow"
        from = "inside"
        to = ["wan"]
        src = ["198.51.100.0/25", "198.51.100.200"]
        dst = "192.0.2.0/24"
        proto = ["tcp", "udp"]
        ports = ["80", "8000-8080"]
        sport = "1024-65535"
        nat = ["own", "vip"]
        log = true
        sessions_per_source = 100
        """
    ).rules
    assert (rule.in_ports, rule.out_ports) == ((LAN,), (WAN,))
    assert rule.src == (IPv4Network("198.51.100.0/25"), IPv4Network("198.51.100.200/32"))
    assert rule.dst == (IPv4Network("192.0.2.0/24"),)
    assert rule.services == tuple(
        Service(proto, lo, hi) for proto in (TCP, UDP) for lo, hi in ((80, 80), (8000, 8080))
    )
    assert (rule.sport_lo, rule.sport_hi) == (1024, 65535)
    assert (rule.pools, rule.form, rule.log, rule.max_per_source) == ((1, 0), Form.SNAT, True, 100)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", (None, SyncFilter.NOW, 0)),
        ('commit = "async"', (Commit.ASYNC, SyncFilter.NOW, 0)),
        ('commit = "strict"\nsync = "now"', (Commit.STRICT, SyncFilter.NOW, 0)),
        ('sync = "no"', (None, SyncFilter.NO, 0)),
        ('commit = "async"\nsync = "after 3600"', (Commit.ASYNC, SyncFilter.AFTER, 3600)),
    ],
)
def test_what_the_peer_is_told_of_and_what_waits_for_it(
    text: str, wanted: tuple[Commit | None, SyncFilter, int]
) -> None:
    """Spec: B1."""
    (rule,) = policy(f'[[rules]]\nname = "r"\naction = "allow"\n{text}').rules
    assert (rule.commit, rule.sync, rule.sync_after_s) == wanted


def test_who_does_not_survive_waits_for_nothing() -> None:
    rule = '[[rules]]\nname = "r"\naction = "allow"\nnat = "own"\ncommit = '
    assert policy(rule + '"async"').rules[0].commit is Commit.ASYNC
    with pytest.raises(ConfigError, match=r"rules\[0\]\.commit: sessions of pool 'own' do not survive"):
        policy(rule + '"strict"')


def test_the_default_of_what_waits() -> None:
    """Spec: B1."""
    text = '[sync]\ncommit = "strict"\nhold_ms = 7\nlazy_ms = 0\nrefresh_s = 60'
    made = fastpath_config(with_policy(text), "a", Draw(1, b"t" * 16, 1, bytes(16))).sync
    assert made == SyncConfig(lazy_ms=0, refresh_s=60, hold_ms=7, commit=Commit.STRICT)
    made = fastpath_config(with_policy(""), "a", Draw(1, b"t" * 16, 1, bytes(16))).sync
    assert (made.commit, made.hold_ms) == (Commit.BOUNDED, 20)


def test_ports_alone_mean_tcp_and_udp() -> None:
    (rule,) = policy('[[rules]]\nname = "dns"\naction = "allow"\nports = 53').rules
    assert rule.services == (Service(TCP, 53, 53), Service(UDP, 53, 53))


def test_a_protocol_alone_means_all_its_ports() -> None:
    (rule,) = policy('[[rules]]\nname = "r"\naction = "allow"\nproto = ["icmp", 47]').rules
    assert rule.services == (Service(ICMP), Service(47))


def test_no_translation() -> None:
    (rule,) = policy('[[rules]]\nname = "r"\naction = "allow"\nnat = "none"').rules
    assert (rule.form, rule.pools) == (Form.NONE, ())


def test_a_port_that_is_called_like_a_zone_is_meant() -> None:
    renamed = PAIR.replace("ports.lan", "ports.outside")
    config = parse(renamed + '[[rules]]\nname = "r"\naction = "deny"\nto = "outside"')
    assert policy_of(config).rules[0].out_ports == (0,)


def test_hits_go_on_by_name() -> None:
    config = with_policy(
        "\n".join(f'[[rules]]\nname = "{name}"\naction = "allow"' for name in ("new", "kept"))
    )
    assert [rule.was for rule in policy_of(config, before=("gone", "kept")).rules] == [0, 2]


@pytest.mark.parametrize(("text", "action"), [("allow-outbound", Action.ALLOW), ("deny", Action.DENY)])
def test_the_default(text: str, action: Action) -> None:
    assert policy(f'[policy]\ndefault = "{text}"').default_outbound is action
    assert policy("").default_outbound is Action.ALLOW


# ---- forwards ----------------------------------------------------------------------------------------
def test_a_range_is_forwarded_port_by_port() -> None:
    forwards = policy(
        """
        [[forwards]]
        name = "games"
        pool = "vip"
        proto = ["tcp", "udp"]
        ports = "27000-27002"
        to = "198.51.100.50"
        to_port = 7000
        """
    ).forwards
    assert [(f.proto, f.external_port, f.inside_port) for f in forwards] == [
        (proto, 27000 + i, 7000 + i) for proto in (TCP, UDP) for i in range(3)
    ]
    assert {(f.pool, f.inside) for f in forwards} == {(0, IPv4Address("198.51.100.50"))}


def test_a_forward_is_tcp_to_the_same_port_unless_it_says_otherwise() -> None:
    (forward,) = policy(
        '[[forwards]]\nname = "web"\npool = "vip"\nports = "80"\nto = "198.51.100.50"'
    ).forwards
    assert (forward.proto, forward.external_port, forward.inside_port) == (TCP, 80, 80)


# ---- pools -------------------------------------------------------------------------------------------
def test_the_interface_pool_has_each_nodes_own_address() -> None:
    """Spec: R11."""
    config = with_policy("")
    draw = Draw(incarnation=7, table_key=bytes(16), flow_id_base=1 << 40, mac_key=bytes(16))
    for name, address in (("a", "203.0.113.4"), ("b", "203.0.113.5")):
        vip, own = fastpath_config(config, name, draw).pools  # type: ignore[arg-type]
        assert (vip.survives, vip.filtering) == (True, Filtering.ADF)
        assert (own.survives, own.filtering) == (False, Filtering.EIF)
        assert own.address == IPv4Address(address)


@pytest.fixture
def plan() -> NodePlan:
    return node_plan(with_policy(""), "a")


@pytest.mark.parametrize(("kernel", "fits"), [("32768\t60999", True), ("29999\t40000", False)])
def test_the_kernels_ports_and_the_interface_pools_are_disjoint(
    plan: NodePlan, kernel: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spec: issue "On an interface address, the kernel's and the NAT's port ranges are disjoint"."""
    path = tmp_path / "ip_local_port_range"
    path.write_text(f"{kernel}\n")
    monkeypatch.setattr(preflight, "EPHEMERAL", path)
    found = list(preflight.own_ports(plan))
    assert bool(found) is not fits
    for problem in found:
        assert problem.startswith("pools[1].port_lo: 20000..29999 of the node's own address overlaps")
        assert "lower pools[1].port_hi to 29998" in problem
        assert "ip_local_port_range='30000 65535'" in problem
