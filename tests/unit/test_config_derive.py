# SPDX-License-Identifier: Apache-2.0
"""From the pair's file to what core, fast path and shell of one node are told."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import annotated_types
import pytest

from flexha.config import equal
from flexha.config.derive import (
    Draw,
    configured_routes,
    fastpath_config,
    inside_routes,
    node_config,
    node_plan,
)
from flexha.config.load import load, parse
from flexha.config.naming import pair_id, port_mac, virtual_mac
from flexha.config.schema import Config, NodeName, Section
from flexha.core import agreed
from flexha.fastpath import Fastpath, FastpathError
from flexha.fastpath import records as fp

PAIR = Path(__file__).resolve().parents[2] / "netns-lab" / "pair.toml"
DRAW = Draw(incarnation=7, table_key=bytes(16), flow_id_base=1 << 40, mac_key=bytes(range(16)))


@pytest.fixture(scope="module")
def config() -> Config:
    return load(PAIR)


def test_macs_are_local_unicast_and_all_different() -> None:
    macs = {port_mac("lab", node, port) for node in (0, 1) for port in range(8)}
    assert len(macs) == 16
    assert all(mac[0] == 0x02 and len(mac) == 6 for mac in macs)
    assert port_mac("lab", 0, 0) != port_mac("other", 0, 0)


SECRET_LINE = next(line for line in PAIR.read_text().splitlines() if line.startswith("secret"))


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        (SECRET_LINE, f'secret = "{"5a" * 16}"', ("secret",)),
        (
            "[[pools]]",
            '[[pools]]\nname = "more"\naddress = "203.0.113.6"\nport = "wan"\n\n[[pools]]',
            ("pools",),
        ),
        ("[pair]", '[policy]\ndefault = "deny"\n\n[pair]', ()),
        ("[pair]", "[timeouts]\nudp_s = 200\n\n[fastpath]\nworkers = 3\n\n[pair]", ()),
    ],
)
def test_what_both_nodes_must_have_in_common(old: str, new: str, parts: tuple[str, ...]) -> None:
    """What may change in a reload, or be each node's own, is none of it."""
    text = PAIR.read_text()
    ours, theirs = parse(text), parse(text.replace(old, new, 1))
    both = [node_config(ours, "a").equal, node_config(theirs, "b").equal]
    assert agreed.differing(*both) == agreed.differing(*reversed(both)) == parts
    assert bytes.fromhex(ours.pair.secret) not in b"".join(digest for _, digest in both[0])


def test_whose_next_hop_is_asked() -> None:
    """By default that of the best default route; nobody's unless it is asked for."""
    text = PAIR.read_text()
    assert node_plan(parse(text), "a").hops == ()
    more = '[[routes]]\nprefix = "0.0.0.0/0"\nvia = "203.0.113.2"\nport = "wan"\nmetric = 5000\n\n[[routes]]'
    text = text.replace("[[routes]]", more).replace("vrid = 52", 'vrid = 52\ntrack = { kind = "arp" }')
    (hop,) = node_plan(parse(text), "b").hops
    assert (hop.port, hop.index, hop.kind, hop.device) == ("wan", 1, "arp", "wan0")
    assert (hop.target, hop.address) == (IPv4Address("203.0.113.1"), IPv4Address("203.0.113.5"))
    assert hop.mac == port_mac("lab", 1, 1)
    text = text.replace('"arp"', '"icmp", target = "192.0.2.10"')
    assert node_plan(parse(text), "a").hops[0].target == IPv4Address("192.0.2.10")


def test_what_a_port_weighs() -> None:
    text = PAIR.read_text().replace("vrid = 51", "vrid = 51\ntrack = { weight = 7, up_ms = 30 }")
    lan, wan = node_config(parse(text), "a").tracked
    assert (lan.name, lan.inside, lan.weight, lan.up_ms) == ("lan", True, 7, 30)
    assert (wan.name, wan.inside, wan.weight, wan.up_ms) == ("wan", False, 50, 1000)


def test_zones_are_part_of_what_both_must_have(config: Config) -> None:
    """An inside port that is outside elsewhere: its sessions fit nowhere."""
    lan = config.ports["lan"].model_copy(update={"zone": "outside"})
    other = config.model_copy(update={"ports": {**config.ports, "lan": lan}})
    assert agreed.differing(equal.parts(config), equal.parts(other)) == ("ports",)


def test_parts_that_only_one_names_are_of_another_version() -> None:
    ours = (("pools", b"12345678"), ("secret", b"12345678"))
    assert agreed.differing(ours, (*ours, ("zebra", b"1"))) == ()
    assert agreed.differing(ours, ()) == ()


def test_virtual_mac() -> None:
    """Spec: RFC 9568 §7.3."""
    assert virtual_mac(51).hex(":") == "00:00:5e:00:01:33"


def test_both_nodes_number_ports_alike_whatever_the_files_order() -> None:
    text = PAIR.read_text()
    lan, wan = text.index("[ports.lan]"), text.index("[ports.wan]")
    end = text.index("[[pools]]")
    swapped = text[:lan] + text[wan:end] + text[lan:wan] + text[end:]
    assert list(parse(swapped).ports) == ["wan", "lan"]
    assert (
        node_plan(parse(swapped), "a").port_names == node_plan(load(PAIR), "b").port_names == ("lan", "wan")
    )


@pytest.mark.parametrize(("name", "other"), [("a", "b"), ("b", "a")])
def test_each_node_knows_its_peers_ports(config: Config, name: NodeName, other: NodeName) -> None:
    mine, peers = fastpath_config(config, name, DRAW), fastpath_config(config, other, DRAW)
    for own, far in zip(mine.ports, peers.ports, strict=True):
        assert (own.peer_mac, own.peer_address) == (far.mac, far.address)
    assert mine.pulse.xc_peer_address == peers.pulse.xc_address
    assert mine.shard_key == peers.shard_key
    assert mine.pulse.mac_key == peers.pulse.mac_key
    assert mine.pulse.mac_key not in (mine.shard_key, bytes(16))
    assert mine.origin != peers.origin


def test_nodes_may_differ_in_workers() -> None:
    text = PAIR.read_text().replace("[nodes.b]", "[fastpath]\nworkers = 2\n[nodes.b]\nworkers = 3")
    config = parse(text)
    assert [fastpath_config(config, name, DRAW).n_workers for name in ("a", "b")] == [2, 3]


def test_core_and_fast_path_are_told_the_same(config: Config) -> None:
    core, fast = node_config(config, "b"), fastpath_config(config, "b", DRAW)
    assert core.index == fast.pulse.node_index == 1
    assert core.paths == ("xc", "lan", "wan")
    for machine, port in zip(core.ports, fast.ports, strict=True):
        assert machine.name == port.name
        assert machine.vmac == port.vmac
        assert machine.mac == port.mac
        assert machine.vips == port.vips
    assert fast.pulse.pair_id == pair_id("lab")
    assert fast.pools[0].out_port == 1


def test_the_packet_driver_is_told_device_and_namespace() -> None:
    text = PAIR.read_text().replace('bridge = "br0"                    #', 'device = "eth3"  #', 1)
    config = parse(text.replace("[nodes.a.ports.lan]\n", '[nodes.a.ports.lan]\ndriver = "packet"\n'))
    lan, wan = fastpath_config(config, "a", DRAW).ports
    assert (lan.driver, lan.wire_dev, lan.wire_netns) == (fp.Driver.PACKET, "eth3", "/run/netns/lansw")
    assert (wan.driver, wan.wire_dev, wan.wire_netns) == (fp.Driver.TAP, "fx-wan-a", "")
    plug = node_plan(config, "a").plugs[0]
    assert (plug.driver, plug.wire_dev, plug.host_dev, plug.netns) == ("packet", "eth3", "lan0", "lansw")


def test_offload_is_on_unless_the_port_or_the_node_says_otherwise() -> None:
    text = PAIR.read_text()
    node_b = text.replace("[nodes.b.ports.lan]\n", "[nodes.b.ports.lan]\noffload = true\n")
    shared = node_b.replace("[ports.lan]\n", "[ports.lan]\noffload = false\n", 1)
    offload = {
        (name, port.name): port.offload
        for name in ("a", "b")
        for port in fastpath_config(parse(shared), name, DRAW).ports
    }
    assert offload == {("a", "lan"): False, ("a", "wan"): True, ("b", "lan"): True, ("b", "wan"): True}
    assert all(port.offload for port in fastpath_config(load(PAIR), "a", DRAW).ports)


def test_routes_through_inside_ports_hold_their_zone(config: Config) -> None:
    """Of the lab's one route none does: it leads outside."""
    assert inside_routes(config) == ()
    behind = parse(
        PAIR.read_text() + '[[routes]]\nprefix = "10.0.0.0/8"\nvia = "198.51.100.9"\nport = "lan"\n'
    )
    assert inside_routes(behind) == (fp.Route(IPv4Address("10.0.0.0"), 8, 0, way=fp.Way.NOWHERE),)


def test_what_is_behind_each_port(config: Config) -> None:
    """Its subnet, and what is routed there: what goes by the peer while the kernel has no way of its own."""
    assert configured_routes(config) == (
        fp.Route(IPv4Address("198.51.100.0"), 24, 0),
        fp.Route(IPv4Address("203.0.113.0"), 29, 1),
        fp.Route(IPv4Address("0.0.0.0"), 0, 1, IPv4Address("203.0.113.1")),
    )


def test_the_plan_of_a_node(config: Config) -> None:
    plan = node_plan(config, "a")
    wan = plan.plugs[1]
    assert (wan.wire_dev, wan.host_dev, wan.netns, wan.bridge) == ("fx-wan-a", "wan0", "wansw", "br0")
    assert wan.interface == IPv4Interface("203.0.113.4/29")
    assert plan.routes[0].device == "wan0"
    assert plan.xc is not None
    assert not plan.xc.connects
    assert plan.xc.peer == IPv4Address("169.254.100.2")
    other = node_plan(config, "b")
    assert other.xc is not None
    assert other.xc.connects


def test_a_single_node_has_no_peer() -> None:
    text = PAIR.read_text()
    plan_text = text[: text.index("[nodes.b]")]
    config = parse(plan_text)
    core, fast = node_config(config, "a"), fastpath_config(config, "a", DRAW)
    assert not core.has_peer
    assert all(port.peer_mac is None and port.peer_address is None for port in fast.ports)
    assert fast.pulse.xc_address is None
    plan = node_plan(config, "a")
    assert plan.xc is not None
    assert plan.xc.peer is None


def _bounds(section: Section, greatest: bool) -> dict[str, int]:
    """The smallest or greatest value that the schema allows, of each key that has one."""
    kind, side = (annotated_types.Le, "le") if greatest else (annotated_types.Ge, "ge")
    return {
        name: getattr(bound, side)
        for name, field in type(section).model_fields.items()
        for bound in field.metadata
        if isinstance(bound, kind)
    }


@pytest.mark.parametrize("greatest", [False, True], ids=["smallest", "greatest"])
def test_the_fast_path_takes_all_that_the_schema_allows(config: Config, greatest: bool) -> None:
    """Spec: R25. What the file's check lets pass must not stop the daemon later."""
    sections = {
        name: section.model_copy(update=_bounds(section, greatest))
        for name in ("timeouts", "limits", "fastpath", "ha")
        if isinstance(section := getattr(config, name), Section)
    }
    ports = {
        name: port.model_copy(update={"mtu": _bounds(port, greatest)["mtu"]})
        for name, port in config.ports.items()
    }
    told = fastpath_config(config.model_copy(update=sections | {"ports": ports}), "a", DRAW)
    bounds = _bounds(config.timeouts, greatest)
    assert bounds == {name: getattr(told.timeouts, name) for name in bounds}
    told = replace(
        told,
        ports=tuple(replace(port, driver=fp.Driver.MEM) for port in told.ports),
        pulse=replace(told.pulse, xc_address=None, xc_peer_address=None),
    )
    with Fastpath(replace(told, flow_cap=1024 * told.n_workers)):
        pass
    # The greatest would take memory for all of them.
    flow_cap = _bounds(config.fastpath, greatest=True)["flow_cap"]
    with pytest.raises(FastpathError, match=rf"flow_cap: .* not within 64\.\.{flow_cap}"):
        Fastpath(replace(told, flow_cap=flow_cap + 1))
