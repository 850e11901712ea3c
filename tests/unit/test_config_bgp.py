# SPDX-License-Identifier: Apache-2.0
"""``[bgp]`` and the prefixes behind ports: what is checked, and what routing daemons get. Spec: R5, R8."""

from __future__ import annotations

import json
import shutil
import subprocess
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flexha.cli import routing_config
from flexha.cli.main import app
from flexha.config import equal, frr
from flexha.config.bgp import DEFAULT_ROUTE, RoutingPlan
from flexha.config.derive import configured_routes, inside_routes, node_config, node_plan
from flexha.config.load import parse
from flexha.config.schema import Config, NodeName
from flexha.errors import ConfigError
from flexha.fastpath import records as fp
from flexha.units import Term

PAIR = Path(__file__).resolve().parents[2] / "netns-lab" / "pair.toml"
NETWORKS = 'networks = ["10.20.0.0/16", "10.30.0.7/32"]'
BGP = '[bgp]\nlocal_as = 65001\nrouter_as = 65000\nneighbours = ["198.51.100.254"]\n'
BFD = "[bgp.bfd]\nmultiplier = 4\n"


def text(*, networks: str = NETWORKS, bgp: str = BGP, tail: str = "") -> str:
    lines = PAIR.read_text().replace("vrid = 51\n", f"vrid = 51\n{networks}\n")
    return lines.replace("[nodes.a]\n", f"{bgp}\n[nodes.a]\n") + tail


def problems(**edits: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text(**edits))
    return "\n".join(caught.value.problems)


def shown(config_text: str, tmp_path: Path, form: str = "frr", node: NodeName = "a") -> str:
    file = tmp_path / "pair.toml"
    file.write_text(config_text)
    assert form in {"frr", "bird"}
    return routing_config.made_from(file, node, "bird" if form == "bird" else "frr")


# ---- what is wrong -----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("edits", "finding"),
    [
        ({"bgp": BGP.replace("65000", "65001")}, "bgp.router_as: 65001 is bgp.local_as too"),
        ({"bgp": BGP.replace("65000", "23456")}, "bgp.router_as: 23456 is reserved"),
        ({"bgp": BGP.replace("65000", "0")}, "bgp.router_as: is 0, out of range"),
        ({"bgp": BGP.replace("198.51.100.254", "198.51.100.1")}, "is a vip of ports.lan; name a router"),
        ({"bgp": BGP.replace("198.51.100.254", "198.51.100.3")}, "is nodes.b.ports.lan.address; name"),
        ({"bgp": BGP.replace("198.51.100.254", "203.0.113.1")}, "203.0.113.1 is on no inside port's subnet"),
        ({"bgp": BGP.replace("198.51.100.254", "198.51.100.255")}, "is the network or broadcast address"),
        (
            {"bgp": BGP.replace('54"]', '54", "198.51.100.254"]')},
            "neighbours[1]: 198.51.100.254 stands there",
        ),
        ({"bgp": BGP[: BGP.index("neigh")]}, "bgp.neighbours: is missing; name the LAN's routers"),
        ({"networks": ""}, "ports.lan.networks: is missing; name the prefixes of the clients"),
        ({"networks": 'networks = ["0.0.0.0/0"]'}, "networks[0]: 0.0.0.0/0 is everything"),
        ({"networks": 'networks = ["198.51.0.0/16"]'}, "overlaps ports.lan.prefix 198.51.100.0/24"),
        (
            {"networks": 'networks = ["10.0.0.0/8", "10.1.0.0/16"]'},
            "overlaps ports.lan.networks[0] 10.0.0.0/8",
        ),
        ({"bgp": "", "tail": '[nodes.b.bgp]\nvty_dir = "/run/x"\n'}, "nodes.b.bgp: there is no [bgp] for it"),
        (
            {"tail": '[nodes.b.bgp]\nneighbours = ["198.51.100.2"]\n'},
            "nodes.b.bgp.neighbours[0]: 198.51.100.2 is",
        ),
        ({"bgp": BGP + "[bgp.bfd]\ninterval_ms = 5\n"}, "bgp.bfd.interval_ms: is 5, out of range"),
        ({"bgp": BGP + 'metric = "weight"\n'}, "bgp.metric: is 'weight'; make it 'med' or 'prepend'"),
    ],
)
def test_what_is_wrong_is_said(edits: dict[str, str], finding: str) -> None:
    assert finding in problems(**edits)


def test_networks_are_for_inside_ports() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(PAIR.read_text().replace("vrid = 52\n", 'vrid = 52\nnetworks = ["10.9.0.0/16"]\n'))
    assert "ports.wan.networks[0]: wan is outside" in str(caught.value)


# ---- what the daemon makes of it ---------------------------------------------------------------------
def test_a_lan_that_is_routed_moves_no_role() -> None:
    """Spec: R8."""
    assert [port.weight for port in node_config(parse(text()), "a").tracked] == [0, 50]
    assert [port.weight for port in node_config(parse(text(bgp="")), "a").tracked] == [10, 50]
    heavy = text(networks=f"{NETWORKS}\ntrack = {{ weight = 7 }}")
    assert [port.weight for port in node_config(parse(heavy), "a").tracked] == [7, 50]


def test_the_peer_need_not_have_the_same() -> None:
    assert equal.parts(parse(text())) == equal.parts(parse(PAIR.read_text()))


def test_networks_stay_inside_and_are_the_peers_to_reach() -> None:
    config = parse(text(bgp=""))
    prefix = IPv4Network("10.20.0.0/16")
    nowhere = fp.Route(prefix.network_address, 16, 0, way=fp.Way.NOWHERE)
    assert nowhere in inside_routes(config)
    assert fp.Route(prefix.network_address, 16, 0) in configured_routes(config)
    routed = text(bgp='[[routes]]\nprefix = "10.20.0.0/16"\nvia = "198.51.100.9"\nport = "lan"\n')
    assert inside_routes(parse(routed)).count(nowhere) == 1
    assert [r.plen for r in configured_routes(parse(routed)) if r.prefix == prefix.network_address] == [16]


def test_each_node_may_have_its_own_routers(tmp_path: Path) -> None:
    tail = '[nodes.b.bgp]\nneighbours = ["198.51.100.253"]\nrouter_id = "192.0.2.7"\nvty_dir = "/run/frr-b"\n'
    a, b = (shown(text(tail=tail), tmp_path, node=node) for node in ("a", "b"))
    assert "neighbor 198.51.100.254 remote-as 65000" in a
    assert "bgp router-id 198.51.100.2\n" in a
    assert "198.51.100.254" not in b
    assert "neighbor 198.51.100.253 remote-as 65000" in b
    assert "bgp router-id 192.0.2.7\n" in b
    plan = node_plan(parse(text(tail=tail)), "b").routing
    assert plan is not None
    assert plan.vty_dir == Path("/run/frr-b")
    assert node_plan(parse(PAIR.read_text()), "a").routing is None


# ---- FRR ---------------------------------------------------------------------------------------------
def test_frr_conf(tmp_path: Path) -> None:
    """Spec: R5. That FRR takes it, and what it then does, shows ``tests/netns/test_bgp.py``."""
    lines = shown(text(bgp=BGP + BFD), tmp_path)
    assert lines.count("neighbor 198.51.100.254 bfd profile flexha") == 1
    assert "  detect-multiplier 4\n  receive-interval 100\n" in lines
    assert "  network 0.0.0.0/0 route-map FLEXHA-SELF\n" in lines
    assert "permit 10.20.0.0/16 le 32\n" in lines
    assert "permit 10.30.0.7/32\n" in lines
    assert " set metric 2000000000\n" in lines
    assert "timers 3 9\n" in lines
    assert "bfd" not in shown(text(), tmp_path)


def test_what_is_announced_can_be_named(tmp_path: Path) -> None:
    lines = shown(text(bgp=BGP + 'announce = ["192.0.2.0/24", "10.99.0.0/16"]\n'), tmp_path)
    assert " 192.0.2.0/24 route-map FLEXHA-SELF\n  network 10.99.0.0/16 route-map" in lines
    assert "ip prefix-list FLEXHA-OUT seq 10 permit 10.99.0.0/16\n" in lines
    assert "0.0.0.0/0" not in lines


def test_the_route_map_follows_the_role(tmp_path: Path) -> None:
    active, later, other = (
        frr.follow(RoutingPlan(Path(), "med", 65001, (DEFAULT_ROUTE,)), reign)
        for reign in (Term(4), Term(5), None)
    )
    assert "set metric 999999996" in active
    assert "set metric 999999995" in later  # though its peer has died, and said nothing
    assert "set metric 2000000000" in other
    assert active[-2:] == other[-2:] == ("network 0.0.0.0/0 route-map FLEXHA-SELF", "end")
    plan = RoutingPlan(Path(), "prepend", 65001, (DEFAULT_ROUTE,))
    assert "no set as-path prepend" in frr.follow(plan, Term(4))
    longer = "set as-path prepend 65001 65001 65001"
    assert longer in frr.follow(plan, None)
    assert f" {longer}\n" in shown(text(bgp=BGP + 'metric = "prepend"\n'), tmp_path)


# ---- BIRD --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("metric", ["med", "prepend"])
@pytest.mark.parametrize("bfd", ["", BFD])
def test_bird_takes_its_configuration(metric: str, bfd: str, tmp_path: Path) -> None:
    """Spec: R5."""
    bird = shutil.which("bird") or shutil.which("bird", path="/usr/sbin")
    if bird is None:
        pytest.skip("bird2 is not installed")
    conf = tmp_path / "bird.conf"
    conf.write_text(shown(text(bgp=f'{BGP}metric = "{metric}"\n{bfd}'), tmp_path, "bird"))
    checked = subprocess.run([bird, "-p", "-c", conf], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr


# ---- the command -------------------------------------------------------------------------------------
def test_the_command_shows_it(tmp_path: Path) -> None:
    file = tmp_path / "pair.toml"
    file.write_text(text())
    runner = CliRunner()
    words = ["routing", "show-config", "--config", str(file)]
    assert "router bgp 65001" in runner.invoke(app, [*words, "--node", "b"]).stdout
    assert "protocol bgp" in runner.invoke(app, [*words, "--node", "b", "--format", "bird"]).stdout
    answer = json.loads(runner.invoke(app, [*words, "--node", "a", "--json"]).stdout)
    assert "hostname lab-a" in answer["config"]
    assert isinstance(runner.invoke(app, words).exception, ConfigError)
    file.write_text(PAIR.read_text())
    refused = runner.invoke(app, [*words, "--node", "a"])
    assert "bgp: is missing" in str(refused.exception)


def test_the_check_of_a_whole_file_passes() -> None:
    assert isinstance(parse(text(bgp=BGP + BFD)), Config)
