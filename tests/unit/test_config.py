# SPDX-License-Identifier: Apache-2.0
"""The configuration: what is accepted, and that all that is wrong is said at once, by key path."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from flexha.config.describe import keys_at, render, row_at, rows
from flexha.config.load import FILE_BYTES_MAX, findings, key_path, load, parse
from flexha.config.naming import control_path, port_mac, state_path
from flexha.config.schema import Config
from flexha.errors import EXIT_CONFIG, ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]
PAIR = REPOSITORY / "netns-lab" / "pair.toml"

Document = dict[str, Any]
Edit = Callable[[Document], object]


def document() -> Document:
    """A valid pair, as nested tables."""
    node_ports = {
        "a": {"lan": {"address": "10.1.0.2"}, "wan": {"address": "203.0.113.4"}},
        "b": {"lan": {"address": "10.1.0.3"}, "wan": {"address": "203.0.113.5"}},
    }
    return {
        "pair": {"name": "t", "secret": "00112233445566778899aabbccddeeff"},
        "ports": {
            "lan": {"zone": "inside", "prefix": "10.1.0.0/24", "vips": ["10.1.0.1"], "vrid": 1},
            "wan": {"zone": "outside", "prefix": "203.0.113.0/29", "vips": ["203.0.113.3"], "vrid": 2},
        },
        "pools": [{"name": "p", "port": "wan", "address": "203.0.113.3"}],
        "routes": [{"prefix": "0.0.0.0/0", "via": "203.0.113.1", "port": "wan"}],
        "nodes": {
            name: {"xc": {"device": "xc0", "address": f"169.254.0.{i}"}, "ports": node_ports[name]}
            for i, name in enumerate(("a", "b"), 1)
        },
    }


def toml(value: Document) -> str:
    """Enough of a TOML writer for these documents: inline tables for everything below the top."""

    def inline(item: object) -> str:
        match item:
            case bool():
                return str(item).lower()
            case dict():
                return "{" + ", ".join(f"{key} = {inline(val)}" for key, val in item.items()) + "}"
            case list():
                return "[" + ", ".join(inline(val) for val in item) + "]"
            case str():
                return f'"{item}"'
            case _:
                return str(item)

    return "\n".join(f"{key} = {inline(item)}" for key, item in value.items())


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return list(caught.value.problems)


def problems_after(edit: Edit) -> list[str]:
    changed = document()
    edit(changed)
    return problems(toml(changed))


def put(path: str, value: object) -> Edit:
    """Set a dotted key; a number is an index."""

    def edit(tree: Document) -> None:
        *parents, last = path.split(".")
        here: Any = tree
        for part in parents:
            here = here[int(part)] if part.isdigit() else here.setdefault(part, {})
        here[last] = value

    return edit


def drop(path: str) -> Edit:
    def edit(tree: Document) -> None:
        *parents, last = path.split(".")
        here: Any = tree
        for part in parents:
            here = here[part]
        del here[last]

    return edit


def packet_port(**keys: str | None) -> Edit:
    """Node a's LAN by the packet driver, with these keys besides; None takes a key away."""

    def edit(tree: Document) -> None:
        port = {"driver": "packet", "device": "eth0", "netns": "lan-wire", **keys}
        tree["nodes"]["a"]["ports"]["lan"] |= {key: value for key, value in port.items() if value}

    return edit


# ---- what is accepted --------------------------------------------------------------------------------------
def test_the_labs_configuration_is_valid() -> None:
    config = load(PAIR)
    assert config.pair.name == "lab"
    assert config.ports["wan"].vips == (IPv4Address("203.0.113.3"),)
    assert config.ha.interval_ms == 50
    assert config.ha.dead_after == 3
    assert not config.ha.preempt


def test_the_example_for_a_box_is_valid() -> None:
    assert load(REPOSITORY / "systemd" / "pair.example.toml").nodes


def test_a_minimal_document_gets_the_defaults() -> None:
    config = parse(toml(document()))
    assert control_path(config, "a") == Path("/run/flexha/t-a.sock")
    assert state_path(config, "b") == Path("/var/lib/flexha/t-b")
    assert config.fastpath.flow_cap == 131072
    assert config.timeouts.tcp_established_s == 7440


def test_a_node_may_have_another_driver_than_its_peer() -> None:
    tree = document()
    packet_port()(tree)
    config = parse(toml(tree))
    assert (config.ports["lan"].driver, config.nodes["a"].ports["lan"].driver) == ("tap", "packet")


def test_packet_devices_of_one_name_are_in_namespaces_of_their_own() -> None:
    tree = document()
    packet_port()(tree)
    tree["nodes"]["a"]["ports"]["wan"] |= {"driver": "packet", "device": "eth0", "netns": "wan-wire"}
    parse(toml(tree))
    tree["nodes"]["a"]["ports"]["wan"]["netns"] = "lan-wire"
    assert any("choose another name" in problem for problem in problems(toml(tree)))


def test_a_single_node_needs_no_cross_connect() -> None:
    tree = document()
    del tree["nodes"]["b"]
    del tree["nodes"]["a"]["xc"]
    assert list(parse(toml(tree)).nodes) == ["a"]


def test_a_configuration_is_frozen() -> None:
    config = parse(toml(document()))
    with pytest.raises(ValueError, match="frozen"):
        config.ha.interval_ms = 1  # type: ignore[misc]


POOL = {"name": "p", "port": "wan", "address": "203.0.113.3"}


def rule(**keys: object) -> Edit:
    return put("rules", [{"name": "r", "action": "allow", **keys}])


def track(**keys: Any) -> Edit:
    """The WAN's tracking, by ARP unless another kind is given."""
    return put("ports.wan.track", {"kind": "arp", **keys})


def forward(**keys: object) -> Edit:
    return put("forwards", [{"name": "f", "pool": "p", "ports": "80", "to": "10.1.0.80", **keys}])


# ---- one finding each: (edit, the key, a piece of the text) ------------------------------------------------
WRONG: list[tuple[Edit, str, str]] = [
    # by key
    (drop("pair.secret"), "pair.secret", "is missing"),
    (drop("ports.lan.vrid"), "ports.lan.vrid", "add an integer in 1..255"),
    (put("pair.secret", "abc"), "pair.secret", "openssl rand -hex 16"),
    (put("pair.name", "a b"), "pair.name", "letters"),
    (put("pair.nmae", "x"), "pair.nmae", "did you mean name?"),
    (put("surprise", {"x": 1}), "surprise", "no known key"),
    (put("ports.lan.zone", "middle"), "ports.lan.zone", "'inside' or 'outside'"),
    (put("ports.lan.mtu", 9000), "ports.lan.mtu", "choose from 576..1500"),
    (put("ports.lan.vrid", "1"), "ports.lan.vrid", "make it an integer"),
    (put("ports.lan.vrid", 0), "ports.lan.vrid", "out of range"),
    (put("ports.lan.vips", []), "ports.lan.vips", "give 1..4 entries"),
    (put("ports.lan.vips", ["10.1.0.300"]), "ports.lan.vips[0]", "no IPv4 address"),
    (put("ports.lan.prefix", "10.1.0.7/24"), "ports.lan.prefix", 'write it as "10.1.0.0/24"'),
    (put("ports.lan.prefix", "10.1.0.0"), "ports.lan.prefix", "no IPv4 prefix"),
    (put("ha.interval_ms", 1), "ha.interval_ms", "5..1000"),
    (put("ha.preempt", 1), "ha.preempt", "boolean"),
    (put("vrrp.version", 4), "vrrp.version", "2 or 3"),
    (put("vrrp", {"version": 2, "adver_int_cs": 150}), "vrrp.adver_int_cs", "a multiple of 100"),
    (put("vrrp.foreign", "fight"), "vrrp.foreign", "'yield' or 'ignore'"),
    (put("vrrp.adver_int_cs", 5000), "vrrp.adver_int_cs", "1..4095"),
    (put("timeouts.tcp_established_s", 60), "timeouts.tcp_established_s", "7440"),
    (put("nodes.a.metrics", "localhost"), "nodes.a.metrics", "127.0.0.1:9101"),
    (put("nodes.a.control", "run.sock"), "nodes.a.control", "absolute path"),
    (put("nodes.a.priority", 255), "nodes.a.priority", "1..254"),
    (put("nodes.a.cpus", [0, 1]), "nodes.a.cpus", "2 for 1 workers"),
    (put("nodes.a", {**document()["nodes"]["a"], "workers": 2, "cpus": [1, 1]}), "nodes.a.cpus", "twice"),
    (put("nodes.a.cpus", [-1]), "nodes.a.cpus[0]", "out of range"),
    (put("fastpath", {"poll_us": 20000}), "fastpath.poll_us", "0..10000"),
    (put("nodes.c", {"ports": {}}), "nodes.c", "'a' or 'b'"),
    (put("nodes.a.ports.lan.mac", "01:00:5e:00:00:01"), "nodes.a.ports.lan.mac", "group address"),
    (put("nodes.a.ports.lan.mac", "00:00:5e:00:01:05"), "nodes.a.ports.lan.mac", "virtual router"),
    (put("nodes.a.ports.lan.mac", "xx"), "nodes.a.ports.lan.mac", "no MAC address"),
    (put("nodes.a.ports.lan.bridge", "a/b"), "nodes.a.ports.lan.bridge", "device name"),
    (put("ports.LAN", {}), "ports.LAN", "a-z"),
    # across keys
    (put("ports.lan.vips", ["10.2.0.1"]), "ports.lan.vips[0]", "is not in 10.1.0.0/24"),
    (put("ports.lan.vips", ["10.1.0.255"]), "ports.lan.vips[0]", "broadcast"),
    (put("ports.lan.vips", ["10.1.0.1", "10.1.0.1"]), "ports.lan.vips[1]", "ports.lan.vips[0] too"),
    (put("ports.wan.vrid", 1), "ports.wan.vrid", "taken by ports.lan"),
    (put("ports.lan.zone", "outside"), "ports", "no port has zone 'inside'"),
    (put("pools.0.port", "dmz"), "pools[0].port", "use one of: lan, wan"),
    (put("pools.0.port", "lan"), "pools[0].port", "serves an outside port"),
    (put("pools.0.address", "203.0.114.6"), "pools[0].address", "set routed = true"),
    (put("pools.0.address", "203.0.113.7"), "pools[0].address", "broadcast"),
    (put("pools.0.address", "203.0.113.4"), "pools[0].address", 'write "interface"'),
    (put("pools.0.address", "203.0.113.1"), "pools[0].address", "routes[0].via"),
    (put("pools.0.address", "10.1.0.1"), "pools[0].address", "a vip of ports.lan"),
    (put("pools.0.address", "any"), "pools[0].address", "no IPv4 address"),
    (put("pools.0.address", "interface"), "pools[0].port_lo", "ha.heartbeat_port"),
    (put("pools", [{**POOL, "address": "interface", "routed": True}]), "pools[0].routed", "remove routed"),
    (put("pools.0.name", "none"), "pools[0].name", "no translation"),
    (put("pools.0.filtering", "none"), "pools[0].filtering", "'address-dependent'"),
    # policy
    (put("policy.default", "allow"), "policy.default", "'allow-outbound' or 'deny'"),
    (rule(action="permit"), "rules[0].action", "'allow', 'deny' or 'reject'"),
    (rule(colour="red"), "rules[0].colour", "no known key"),
    (rule(form="lan"), "rules[0].form", "did you mean from?"),
    (rule(src=[]), "rules[0].src", "give 1..1024 entries"),
    (rule(to=[]), "rules[0].to", "give 1..1024 entries"),
    (rule(dst="10.0.0.1/8"), "rules[0].dst[0]", 'write it as "10.0.0.0/8"'),
    (rule(dst="10.0.0"), "rules[0].dst[0]", "no IPv4 address"),
    (rule(proto="tpc"), "rules[0].proto[0]", "use icmp, tcp, udp"),
    (rule(ports="80-79"), "rules[0].ports[0]", 'write it as "80" or "8000-8080"'),
    (rule(ports=["http"]), "rules[0].ports[0]", "is no port"),
    (rule(ports=0), "rules[0].ports[0]", "within 1..65535"),
    (rule(proto="icmp", ports=80), "rules[0].ports", "only tcp and udp have ports"),
    (rule(proto="gre", sport=80), "rules[0].sport", "only tcp and udp have ports"),
    (rule(**{"from": "dmz"}), "rules[0].from", "use one of: lan, wan, inside, outside"),
    (rule(to=["wan", "internet"]), "rules[0].to", "no port or zone 'internet'"),
    (rule(nat="q"), "rules[0].nat", "use none or one of: p"),
    (rule(nat=["none", "p"]), "rules[0].nat", "beside a pool"),
    (rule(nat="p", to="lan"), "rules[0].nat", "serves ports.wan"),
    (rule(nat="p", action="deny"), "rules[0].nat", "opens no session"),
    (rule(sessions_per_source=9, action="reject"), "rules[0].sessions_per_source", "opens no session"),
    (rule(sessions_per_source=0), "rules[0].sessions_per_source", "out of range"),
    (rule(commit="strict", action="deny"), "rules[0].commit", "opens no session"),
    (rule(sync="no", action="reject"), "rules[0].sync", "opens no session"),
    (rule(commit="bounded", sync="no"), "rules[0].commit", "not told when a session begins"),
    (rule(commit="strict", sync="after 5"), "rules[0].commit", 'sync = "after 5"'),
    (rule(commit="loose"), "rules[0].commit", "strict"),
    (rule(sync="later"), "rules[0].sync", '"after 5"'),
    (rule(sync="after 3601"), "rules[0].sync", "1..3600"),
    (rule(sync=5), "rules[0].sync", '"after 5"'),
    (rule(name="a b"), "rules[0].name", "letters"),
    (forward(pool="q"), "forwards[0].pool", "use one of: p"),
    (forward(ports=[]), "forwards[0].ports", "give 1..1024 entries"),
    (forward(ports="1-2000"), "forwards", "keep them to 1024"),
    (forward(proto="icmp"), "forwards[0].proto", "only tcp and udp can be forwarded"),
    (forward(to="192.0.2.1"), "forwards[0].to", "is not on the inside"),
    (forward(to="203.0.113.6"), "forwards[0].to", "is not on the inside"),
    (forward(to="10.1.0.2"), "forwards[0].to", "an address of the pair itself"),
    (forward(to="10.1.0.255"), "forwards[0].to", "broadcast"),
    (forward(ports=["80", "90"], to_port=80), "forwards[0].to_port", "a forward for each"),
    (forward(ports="80-90", to_port=65530), "forwards[0].to_port", "would be 65540"),
    (put("pools.0.port_hi", 1050), "pools[0].port_hi", "fewer than 128"),
    (put("routes.0.port", "dmz"), "routes[0].port", "use one of"),
    (put("routes.0.via", "192.0.2.1"), "routes[0].via", "is not in 203.0.113.0/29"),
    (put("routes.0.via", "203.0.113.3"), "routes[0].via", "our own virtual address"),
    (put("routes.0.via", "203.0.113.5"), "routes[0].via", "nodes.b.ports.wan.address"),
    (put("ports.lan.track", {"kind": "arp"}), "ports.lan.track.target", "no default route by lan"),
    (put("ports.wan.track", {"target": "203.0.113.1"}), "ports.wan.track.target", "nobody asks it"),
    (track(kind="ping"), "ports.wan.track.kind", "'arp', 'icmp' or 'neighbour'"),
    (track(target="192.0.2.1"), "ports.wan.track.target", "only icmp asks"),
    (track(kind="neighbour", target="192.0.2.1"), "ports.wan.track.target", "only icmp asks"),
    (track(target="203.0.113.3"), "ports.wan.track.target", "our own address"),
    (track(target="203.0.113.4"), "ports.wan.track.target", "our own address"),
    (track(interval_ms=10), "ports.wan.track.interval_ms", "20..10000"),
    (track(misses=0), "ports.wan.track.misses", "1..20"),
    (track(weight=-1), "ports.wan.track.weight", "0..1000"),
    (track(up_ms=60001), "ports.wan.track.up_ms", "0..60000"),
    (drop("nodes.a.ports.wan"), "nodes.a.ports.wan", "is missing"),
    (put("nodes.a.ports.dmz", {"address": "10.9.0.1"}), "nodes.a.ports.dmz", "there is no ports.dmz"),
    (put("nodes.a.ports.lan.address", "10.1.0.1"), "nodes.a.ports.lan.address", "is a vip"),
    (put("nodes.a.ports.lan.address", "10.1.9.1"), "nodes.a.ports.lan.address", "is not in"),
    (put("nodes.b.ports.lan.address", "10.1.0.2"), "nodes.b.ports.lan.address", "nodes.a.ports.lan.address"),
    (put("nodes.a.ports.lan.uplink", "eth0"), "nodes.a.ports.lan.uplink", "needs"),
    (put("ports.lan.driver", "xdp"), "ports.lan.driver", "'tap' or 'packet'"),
    (put("ports.lan.driver", "packet"), "nodes.a.ports.lan.device", "name the NIC or veth"),
    (put("ports.lan.driver", "packet"), "nodes.b.ports.lan.netns", "of its own"),
    (put("nodes.a.ports.lan.driver", "packet"), "nodes.a.ports.lan.device", "is missing"),
    (put("nodes.a.ports.lan.device", "eth0"), "nodes.a.ports.lan.device", "the driver is tap"),
    (packet_port(bridge="br0"), "nodes.a.ports.lan.bridge", "remove bridge"),
    (packet_port(bridge="br0", uplink="eth0"), "nodes.a.ports.lan.uplink", "remove uplink"),
    (packet_port(wire_dev="eth1"), "nodes.a.ports.lan.wire_dev", "remove wire_dev"),
    (packet_port(device=None), "nodes.a.ports.lan.device", "is missing"),
    (put("nodes.a.ports.wan.host_dev", "lan0"), "nodes.a.ports.wan.host_dev", "choose another"),
    (put("nodes.a.ports.wan.wire_dev", "fx-lan-a"), "nodes.a.ports.wan.wire_dev", "choose another"),
    (put("nodes.a.xc.device", "lan0"), "nodes.a.xc.device", "choose another"),
    (drop("nodes.b.xc"), "nodes.b.xc", "a pair needs a cross-connect"),
    (put("nodes.b.xc.address", "169.254.0.1"), "nodes.b.xc.address", "nodes.a.xc.address too"),
    (put("nodes.b.xc.address", "169.254.9.1"), "nodes.b.xc.address", "is not the subnet"),
    (put("nodes.a.xc.address", "169.254.0.3"), "nodes.a.xc.address", "broadcast"),
]


@pytest.mark.parametrize(("edit", "key", "text"), WRONG, ids=[f"{key}: {text}" for _, key, text in WRONG])
def test_each_mistake_is_named_by_its_key(edit: Edit, key: str, text: str) -> None:
    found = problems_after(edit)
    assert any(problem.startswith(f"{key}: ") and text in problem for problem in found), found


def test_two_nodes_may_not_share_a_socket_or_a_state_directory() -> None:
    def share(tree: Document) -> None:
        for node in tree["nodes"].values():
            node["control"] = "/run/x.sock"
            node["state_dir"] = "/var/x"

    found = problems_after(share)
    assert [problem.split(":")[0] for problem in found] == ["nodes.b.control", "nodes.b.state_dir"]


def test_two_pools_may_not_share_name_or_address() -> None:
    def twice(tree: Document) -> None:
        tree["pools"].append(dict(tree["pools"][0]))

    assert {problem.split(":")[0] for problem in problems_after(twice)} == {
        "pools[1].name",
        "pools[1].port_lo",
    }


def test_pools_may_share_an_address_but_no_port() -> None:
    def share(*ranges: tuple[int, int]) -> Edit:
        return put("pools", [{**POOL, "name": f"p{lo}", "port_lo": lo, "port_hi": hi} for lo, hi in ranges])

    tree = document()
    share((1024, 2047), (2048, 65535))(tree)
    parse(toml(tree))
    found = problems_after(share((1024, 2047), (2047, 65535)))
    assert len(found) == 1
    assert found[0].startswith("pools[1].port_lo: 2047..65535 overlaps pools[0], which has 1024..2047")


def test_overlapping_forwards_are_refused() -> None:
    """Spec: issue "overlapping forwards ... is refused with the reason"."""

    def edit(second: Document) -> Edit:
        first = {"name": "f", "pool": "p", "ports": ["80", "8000-8080"], "to": "10.1.0.80"}
        return put("forwards", [first, {**first, "name": "g", **second}])

    found = problems_after(edit({"ports": "8080-8090"}))
    assert found == [
        "forwards[1].ports: 8080-8090 overlaps 8000-8080 of forwards[0] on the same address; part them"
    ]
    for other in ({"ports": "81"}, {"proto": "udp"}):
        tree = document()
        edit(other)(tree)
        parse(toml(tree))


def test_names_of_rules_and_forwards_are_their_own() -> None:
    def twice(tree: Document) -> None:
        rule()(tree)
        tree["rules"] *= 2
        forward()(tree)
        tree["forwards"].append({**tree["forwards"][0], "ports": "81"})

    assert {problem.split(":")[0] for problem in problems_after(twice)} == {
        "rules[1].name",
        "forwards[1].name",
    }


def test_a_pool_may_be_another_address() -> None:
    """Spec: R11. On the wire, or anywhere if it is routed here."""
    for edit in (
        put("pools.0.address", "203.0.113.6"),
        put("pools", [{**POOL, "address": "192.0.2.7", "routed": True}]),
        put("pools", [{**POOL, "address": "interface", "port_hi": 32767}]),
    ):
        tree = document()
        edit(tree)
        parse(toml(tree))


def test_overlapping_subnets_are_refused() -> None:
    """Spec: RFC 4787 REQ-7, a: inside and outside addresses that conflict are found at once."""

    def overlap(tree: Document) -> None:
        tree["ports"]["wan"]["prefix"] = "10.1.0.0/16"

    assert any("overlaps" in problem for problem in problems_after(overlap))


def test_configured_macs_must_differ_from_derived_ones() -> None:
    derived = port_mac("t", 1, 0).hex(":")
    found = problems_after(put("nodes.a.ports.wan.mac", derived))
    assert any("is nodes.a.ports.wan.mac too" in problem for problem in found), found


def test_wire_devices_of_both_nodes_may_meet_in_one_namespace() -> None:
    def meet(tree: Document) -> None:
        for node in tree["nodes"].values():
            node["ports"]["lan"]["netns"] = "sw"

    tree = document()
    meet(tree)
    parse(toml(tree))
    for node in tree["nodes"].values():
        node["ports"]["lan"]["wire_dev"] = "same"
    assert any("choose another name" in problem for problem in problems(toml(tree)))


def test_every_mistake_is_reported_at_once() -> None:
    """Spec: issue "a bad config stops it with every error listed by key path"."""

    def ruin(tree: Document) -> None:
        for path, value in (
            ("pair.secret", "short"),  # a value
            ("pair.colour", "red"),  # an unknown key
            ("ports.lan.vrid", 2),  # a clash across keys ...
            ("routes.0.via", "192.0.2.1"),  # ... and an address outside its subnet
            ("ha.dead_after", 1),
        ):
            put(path, value)(tree)

    keys = {problem.split(": ")[0] for problem in problems_after(ruin)}
    assert keys == {"pair.secret", "pair.colour", "ports.wan.vrid", "routes[0].via", "ha.dead_after"}


def test_each_finding_names_a_remedy() -> None:
    """``path.to.key: what is wrong; remedy``"""
    for edit, _, _ in WRONG:
        for problem in problems_after(edit):
            assert re.match(r"^[a-zA-Z0-9_.\[\]]+: .+[;(].+", problem), problem


# ---- files -------------------------------------------------------------------------------------------------
def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file") as caught:
        load(tmp_path / "none.toml")
    assert caught.value.exit_code == EXIT_CONFIG


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[pair", "is no TOML"),
        (b"\xff\xfe", "no UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), "larger than"),
    ],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "pair.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=text):
        load(path)


def test_findings_begin_with_the_file() -> None:
    with pytest.raises(ConfigError) as caught:
        parse("", "x.toml")
    assert all(line.startswith("x.toml: ") for line in findings(caught.value))


# ---- the schema as text ------------------------------------------------------------------------------------
def test_every_key_has_a_meaning() -> None:
    assert not [row.key for row in rows() if not row.meaning]


def test_the_printed_schema_has_every_key_with_default_and_range() -> None:
    text = render()
    for row in rows():
        assert re.search(rf"^{re.escape(row.key)} ", text, re.MULTILINE), row.key
    assert re.search(r"^ha\.interval_ms +integer +50 +5\.\.1000 ", text, re.MULTILINE)


def test_the_man_page_has_every_key() -> None:
    page = (REPOSITORY / "systemd" / "man" / "flexha.toml.5").read_text().replace("\\-", "-")
    assert not [row.key for row in rows() if row.type != "table" and row.path[-1] not in page]
    for row in rows():
        if row.default not in {"-", "required"}:
            assert row.default.strip('"') in page, row.key


def test_paths_of_keys() -> None:
    assert key_path(("pools", 0, "port")) == "pools[0].port"
    row = row_at(("nodes", "a", "ports", "lan", "mac"))
    assert row is not None
    assert row.key == "nodes.X.ports.NAME.mac"
    assert row_at(("nothing",)) is None
    assert "interval_ms" in keys_at(("ha",))


def test_the_schema_and_its_rows_agree_on_required_keys() -> None:
    required = {row.key for row in rows() if row.default == "required" and len(row.path) == 1}
    assert required == {name for name, field in Config.model_fields.items() if field.is_required()}
