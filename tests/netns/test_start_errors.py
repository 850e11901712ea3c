# SPDX-License-Identifier: Apache-2.0
"""What keeps a daemon from starting is said in words, and nothing is left behind. Spec: F1, F4."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import topo
from netns.conftest import LOG_DIR
from netns.wire import mac_of
from pair import CONFIG, Node
from sandbox import Lab, wait_until

START_ERROR_S = 20


@pytest.fixture(scope="module")
def idle_lab() -> Iterator[Lab]:
    """A lab without daemons."""
    with Lab.start(LOG_DIR / "idle-run", LOG_DIR / "idle-supervisor.log") as lab:
        yield lab


pytestmark = pytest.mark.skipif(
    topo.driver() == "packet", reason="about TAPs; test_packet_driver.py has the packet driver's"
)


@pytest.fixture(autouse=True)
def nothing_left(idle_lab: Lab) -> Iterator[None]:
    """A daemon that could not start has taken its devices with it."""
    yield
    for ns in ("a", *topo.SWITCHES.values()):
        with idle_lab.links(ns) as links:
            names = {link.get_attr("IFLA_IFNAME") for link in links.get_links()}
        assert not {name for name in names if name.startswith(("fx-", "lan0", "wan0"))}
    assert not idle_lab.path("/run/flexha/lab-a.sock").exists()


def edited(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The lab's configuration with the first occurrence of each text replaced."""
    text = CONFIG.read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "pair.toml"
    path.write_text(text)
    return path


def failing(lab: Lab, config: Path, *prefix: str) -> str:
    """Start node a, which must end by itself with an error; returns what it printed."""
    argv = [*prefix, sys.executable, "-m", "flexha", "--config", str(config), "--node", "a"]
    result = lab.run("a", argv, timeout_s=START_ERROR_S, check=False)
    assert result.returncode not in {0, None}, result.stderr
    assert result.returncode > 0, f"ended by a signal: {result.stderr}"
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(('netns = "lansw"', 'netns = "nowhere"'), "ip netns add nowhere", id="netns"),
        pytest.param(('bridge = "br0"', 'bridge = "br9"'), "ip link add br9 type bridge", id="bridge"),
        pytest.param(('device = "xc0"', 'device = "xc9"'), "there is no device 'xc9'", id="xc"),
        pytest.param(
            ('mtu_policy = "raise"', 'mtu_policy = "check"'), "ip link set xc0 mtu 1562", id="xc-mtu"
        ),
    ],
)
def test_device_that_does_not_exist(
    idle_lab: Lab, tmp_path: Path, change: tuple[str, str], complaint: str
) -> None:
    """A namespace, bridge or device of the configuration is missing: the error says which, and the remedy."""
    assert complaint in failing(idle_lab, edited(tmp_path, change))


def test_every_missing_thing_is_named_at_once(idle_lab: Lab, tmp_path: Path) -> None:
    """Two mistakes, two findings."""
    config = edited(tmp_path, ('netns = "lansw"', 'netns = "nowhere"'), ('device = "xc0"', 'device = "xc9"'))
    said = failing(idle_lab, config)
    assert "nowhere" in said
    assert "xc9" in said


@contextlib.contextmanager
def address_on(lab: Lab, ns: str, device: str, address: str) -> Iterator[None]:
    lab.run(ns, ["ip", "address", "add", address, "dev", device])
    try:
        yield
    finally:
        lab.run(ns, ["ip", "address", "del", address, "dev", device])


def test_address_in_use_on_the_wire(idle_lab: Lab) -> None:
    """Another station has the port's address: found by ARP, named by its MAC. Spec: RFC 5227."""
    with address_on(idle_lab, "client", "eth0", "198.51.100.2/24"):
        said = failing(idle_lab, CONFIG)
    assert "198.51.100.2 is in use" in said
    assert mac_of(idle_lab, "client", "eth0") in said


def test_address_in_use_on_the_node(idle_lab: Lab) -> None:
    """The kernel would answer for the port's address, or for the VIP, beside us."""
    with (
        address_on(idle_lab, "a", "lo", "198.51.100.2/32"),
        address_on(idle_lab, "a", "lo", "203.0.113.3/32"),
    ):
        said = failing(idle_lab, CONFIG)
    assert "198.51.100.2 is in use on 'lo'" in said
    assert "203.0.113.3 is in use on 'lo'" in said


def test_sync_port_in_use(idle_lab: Lab) -> None:
    """Another program listens where sync must."""
    with idle_lab.open_socket("a", socket.AF_INET, socket.SOCK_STREAM) as other:
        other.bind(("169.254.100.1", 47851))
        other.listen()
        assert "169.254.100.1:47851" in failing(idle_lab, CONFIG)


@pytest.mark.parametrize("capability", ["net_admin", "net_raw", "sys_admin"])
def test_missing_capability(idle_lab: Lab, capability: str) -> None:
    """Without a capability the daemon says which one, and what for. Spec: F1."""
    said = failing(idle_lab, CONFIG, "setpriv", f"--bounding-set=-{capability}", f"--inh-caps=-{capability}")
    assert f"CAP_{capability.upper()} is missing" in said


def test_bad_config_lists_every_error(tmp_path: Path) -> None:
    """``--check`` names every key that is wrong, by its path. Spec: F4."""
    config = edited(tmp_path, ("vrid = 51", "vrid = 0"), ("priority = 100", 'priority = "high"'))
    argv = [sys.executable, "-m", "flexha", "--config", str(config), "--node", "a", "--check"]
    result = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=START_ERROR_S)
    assert result.returncode > 0
    assert "ports.lan.vrid" in result.stderr
    assert "nodes.b.priority" in result.stderr


def test_second_daemon_of_a_node(idle_lab: Lab) -> None:
    """A node's daemon runs once: the second says who is in its way, and the first goes on."""
    argv = [sys.executable, "-m", "flexha", "--config", str(CONFIG), "--node", "a"]
    with idle_lab.path("/run/first.log").open("wb") as log:
        first = idle_lab.spawn("a", argv, stderr=log)
    try:
        node = Node(idle_lab, "a", LOG_DIR)
        wait_until(node.status, START_ERROR_S, "the first daemon answers")
        said = failing(idle_lab, CONFIG)
        assert "stop" in said
        assert node.status() is not None
    finally:
        first.signal(signal.SIGTERM)
        assert first.wait(START_ERROR_S) == 0
        first.close()
