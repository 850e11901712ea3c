# SPDX-License-Identifier: Apache-2.0
"""The pair with driver packet, in a lab of its own: as the pair with TAPs, and what only a device can do.

The driver itself is tested beside the TAPs', in test_taps.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import topo
from failover import LIVE, compare_tables
from faults import link_down
from pair import Node, Pair
from sandbox import BUILD_DIR, REPOSITORY, Lab, wait_until
from traffic import TcpFlows, compile_programs

pytestmark = pytest.mark.timeout(300)
FLOWS = 200
LOG_DIR = BUILD_DIR / "tests" / "packet"
NOBODY = 65534


@pytest.fixture(scope="module")
def packet_lab() -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(topo.DRIVER_VARIABLE, "packet")
        compile_programs()
        with Lab.start(LOG_DIR / "run", LOG_DIR / "supervisor.log") as lab:
            yield lab


@pytest.fixture(scope="module")
def packet_pair(packet_lab: Lab) -> Pair:
    pair = Pair(packet_lab, LOG_DIR)
    for node in pair.nodes.values():
        node.log.unlink(missing_ok=True)
    return pair


@pytest.fixture
def pair(packet_pair: Pair) -> Pair:
    for node in packet_pair.nodes.values():
        if node.pid is None:
            node.start()
    packet_pair.wait_settled()
    return packet_pair


def is_up(node: Node, port: str) -> bool:
    return next(bool(each["up"]) for each in node.request("status")["ports"] if each["name"] == port)


def has_carrier(lab: Lab, node: Node, device: str) -> bool:
    (link,) = json.loads(lab.run(node.name, ["ip", "-json", "link", "show", "dev", device]).stdout)
    return "LOWER_UP" in link["flags"]


def reaches_the_server(lab: Lab) -> bool:
    return lab.run("client", ["ping", "-c1", "-W1", topo.SERVER_ADDRESS], check=False).returncode == 0


# ---- as with TAPs ------------------------------------------------------------------------------------------
def test_a_death_loses_nothing(packet_lab: Lab, pair: Pair) -> None:
    """Spec: R6, R7, R12, R13, R19."""
    with contextlib.ExitStack() as stack:
        tcp = TcpFlows(packet_lab, 401, flows=FLOWS)
        stack.callback(tcp.close)
        tcp.wait_open()
        victim = pair.wait_settled()
        survivor = pair.peer(victim)
        wait_until(lambda: int(tcp.progress()["rounds"]) >= 4, 20, "connections are old")
        wait_until(pair.settled, 20, "the PASSIVE node has caught up")
        before = victim.sessions(**LIVE)
        victim.die()
        tcp.mark()
        wait_until(tcp.recovered, 30, "each connection has a new request answered")
        table = compare_tables(before, survivor.sessions(**LIVE))
        assert table.identical, table
        result = tcp.finish()
    assert (result.survived, result.reset, result.stalled, result.corrupt) == (FLOWS, 0, 0, 0)
    assert result.sources == (topo.WAN_VIP,)


def test_the_carrier_of_the_device_is_the_ports_state(packet_lab: Lab, pair: Pair) -> None:
    """Spec: DESIGN §1: mirrored to the host device, for routing daemons to see."""
    node = pair.active()
    with link_down(packet_lab, topo.SWITCHES["lan"], f"fx-lan-{node.name}"):
        wait_until(lambda: not is_up(node, "lan"), 5, "the port is down")
        wait_until(lambda: not has_carrier(packet_lab, node, "lan0"), 5, "so is the host device's carrier")
    wait_until(lambda: is_up(node, "lan"), 5, "the port is up")
    wait_until(lambda: has_carrier(packet_lab, node, "lan0"), 5, "so is the host device's carrier")
    pair.wait_settled()
    wait_until(lambda: reaches_the_server(packet_lab), 10, "traffic passes")


def test_a_device_that_was_replaced_is_used(packet_lab: Lab, pair: Pair) -> None:
    """A NIC that was pulled and put in again is another device; the daemon opens it anew by itself."""
    node = pair.active()
    place, far = topo.wire_namespace(node.name, "wan"), f"fx-wan-{node.name}"
    packet_lab.run(place, ["ip", "link", "del", topo.WIRE_DEVICE])
    wait_until(lambda: not is_up(node, "wan"), 5, "the port is down")
    ends = f"{topo.WIRE_DEVICE} type veth peer name {far} netns {topo.SWITCHES['wan']}"
    packet_lab.run(place, ["ip", "link", "add", *ends.split()])
    packet_lab.run(topo.SWITCHES["wan"], ["ip", "link", "set", far, "master", topo.BRIDGE, "up"])
    wait_until(lambda: is_up(node, "wan"), 10, "the port is up")
    wait_until(lambda: "port.reopened" in node.log.read_text(), 5, "the daemon has opened the new device")
    pair.wait_settled()
    wait_until(lambda: reaches_the_server(packet_lab), 10, "traffic passes")


def test_a_killed_node_starts_again_at_once(pair: Pair) -> None:
    """Whatever the dead daemon left is gone, or is waited for."""
    node = pair.peer(pair.active())
    node.die()
    node.start()
    pair.wait_settled()


# ---- obstacles ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("prepare", "undo", "change", "text"),
    [
        pytest.param("", "", ('device = "wire"', 'device = "eth7"'), "(there: wire); move it", id="device"),
        pytest.param("", "", ('netns = "a-lan"', 'netns = "x"'), "make it: ip netns add x", id="netns"),
        pytest.param("", "", ('netns = "a-lan"', 'netns = "a"'), "is the node's own namespace", id="own"),
        pytest.param(
            "address add 192.0.2.77/24 dev wire",
            "address del 192.0.2.77/24 dev wire",
            None,
            "has the address 192.0.2.77/24, and a kernel that answers",
            id="address",
        ),
        pytest.param(
            "link add br7 type bridge|link set wire master br7",
            "link del br7",
            None,
            "is a port of another device there",
            id="bridge",
        ),
    ],
)
def test_a_device_that_is_not_ours_alone(
    packet_lab: Lab,
    packet_pair: Pair,
    tmp_path: Path,
    prepare: str,
    undo: str,
    change: tuple[str, str] | None,
    text: str,
) -> None:
    node = packet_pair["a"]
    node.stop()
    config = tmp_path / "pair.toml"
    written = node.config.read_text()
    config.write_text(written.replace(*change, 1) if change else written)
    try:
        for command in filter(None, prepare.split("|")):
            packet_lab.run("a-lan", ["ip", *command.split()])
        argv = [sys.executable, "-m", "flexha", "--config", str(config), "--node", "a"]
        run = packet_lab.run("a", argv, check=False)
    finally:
        for command in filter(None, undo.split("|")):
            packet_lab.run("a-lan", ["ip", *command.split()])
    assert run.returncode == 1
    assert "flexhad: nodes.a.ports.lan." in run.stderr
    assert text in run.stderr


# ---- as an ordinary user -----------------------------------------------------------------------------------
def as_nobody(*argv: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        # setpriv itself can still reach what root can, and so start it; env cannot.
        ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "env", *argv],
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
        env={"PATH": os.environ.get("PATH", os.defpath), **environment},
    )


def interpreter_for_nobody(packages: Path) -> str:
    """A Python of our version that an ordinary user can run, and with it our packages."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/python{version}"):
        if as_nobody(candidate, "-c", "import uvloop, cffi", PYTHONPATH=str(packages)).returncode == 0:
            return candidate
    pytest.skip(f"an ordinary user can reach no Python {version}, or not the packages in {packages}")


@pytest.fixture
def checkout_of_nobody() -> Iterator[Path]:
    """What the lab needs of this tree, an ordinary user's."""
    directory = Path(tempfile.mkdtemp(prefix="flexha-rootless-"))
    try:
        for name in ("netns-lab", "flexha", "csrc"):
            shutil.copytree(
                REPOSITORY / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", "test")
            )
        for path in (directory, *directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        yield directory
    finally:
        shutil.rmtree(directory)


def test_the_lab_runs_as_an_ordinary_user(checkout_of_nobody: Path) -> None:
    """The main job in a user namespace; where /dev/net/tun is closed, without any TAP."""
    if as_nobody("unshare", "--user", "--map-root-user", "--net", "true").returncode != 0:
        pytest.skip("this machine lets no ordinary user make user and network namespaces")
    packages = Path(pytest.__file__).parents[1]
    python = interpreter_for_nobody(packages)
    run = as_nobody(
        python,
        str(checkout_of_nobody / "netns-lab" / "lab.py"),
        "failover",
        "--flows",
        "20",
        PYTHONPATH=f"{checkout_of_nobody}{os.pathsep}{packages}",
        HOME=str(checkout_of_nobody),
    )
    report = checkout_of_nobody / "build" / "lab" / "failover.json"
    assert report.exists(), run.stdout + run.stderr
    (done,) = json.loads(report.read_text())["runs"]
    assert done["tcp"]["survived"] == done["tcp"]["opened"] == 20, run.stdout + run.stderr
    tun_closed = as_nobody("sh", "-c", "exec 3<>/dev/net/tun").returncode != 0
    assert ("/dev/net/tun is closed to us" in run.stderr) == tun_closed
