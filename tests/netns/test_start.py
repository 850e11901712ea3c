# SPDX-License-Identifier: Apache-2.0
"""Start and end of a daemon beside a running pair: obstacles, and what is left. Spec: F1, F4.

Each daemon of these tests is a third one, of a pair of its own, in the lab's host ``server``. The usual
obstacles are in ``test_start_errors.py``.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import topo
from netns.wire import mac_of
from sandbox import KEYS_DIR, Lab, Process, wait_until

HOST = "server"
SETTINGS: dict[str, Any] = {
    "ha": "",
    "lan": {"address": "198.51.100.202", "netns": "lansw", "bridge": "br0", "wire_dev": "t-lan"},
    "wan": {"address": "203.0.113.2", "netns": "wansw", "bridge": "br0", "wire_dev": "t-wan"},
    "lan_vip": "198.51.100.201",
    "xc": {"device": "lo", "address": "169.254.77.1"},
}


class Bench:
    """Writes a configuration, and runs a daemon with it."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.control = directory / "t.sock"

    def configure(self, changes: dict[str, Any]) -> Path:
        values = {**SETTINGS, **changes}
        ports = "\n".join(f"ports.{name} = {_inline(values[name])}" for name in ("lan", "wan"))
        path = self.directory / "t.toml"
        path.write_text(
            f"""
            pair = {{ name = "t", secret = "{"0" * 32}" }}
            {values["ha"]}
            [ports]
            lan = {{ zone = "inside", prefix = "198.51.100.0/24", vips = ["{values["lan_vip"]}"], vrid = 61 }}
            wan = {{ zone = "outside", prefix = "203.0.113.0/29", vips = ["203.0.113.6"], vrid = 62 }}
            [nodes.a]
            control = "{self.control}"
            state_dir = "{self.directory / "state"}"
            keys = "{KEYS_DIR}/a"
            {f'metrics = "{values["metrics"]}"' if "metrics" in values else ""}
            xc = {_inline(values["xc"])}
            {ports}
            [nodes.b]
            xc = {{ device = "lo", address = "169.254.77.2" }}
            ports.lan = {{ address = "198.51.100.203" }}
            ports.wan = {{ address = "203.0.113.1" }}
            """
        )
        return path

    def argv(self, changes: dict[str, Any]) -> list[str]:
        return [sys.executable, "-m", "flexha", "--config", str(self.configure(changes)), "--node", "a"]

    def refusal(self, *prefix: str, **changes: Any) -> str:
        """What the daemon says on stderr when it ends with 1, as it must."""
        before = self.devices()
        run = self.lab.run(HOST, [*prefix, *self.argv(changes)], check=False)
        assert run.returncode == 1, run.stderr
        assert "Traceback" not in run.stderr
        assert self.devices() == before, "a daemon that does not start leaves no device"
        return "\n".join(line for line in run.stderr.splitlines() if line.startswith("flexhad: "))

    def devices(self) -> dict[str, list[str]]:
        """Names of the devices where a daemon of this bench makes any."""
        found = {}
        for host in (HOST, "lansw", "wansw"):
            shown = self.lab.run(host, ["ip", "-json", "link"]).stdout
            found[host] = sorted(link["ifname"] for link in json.loads(shown))
        return found

    @contextmanager
    def running(self, **changes: Any) -> Iterator[Process]:
        """The daemon, ready."""
        log = self.directory / "t.log"
        with log.open("wb") as stderr:
            process = self.lab.spawn(HOST, self.argv(changes), stderr=stderr)
        with process:
            wait_until(lambda: "daemon.ready" in log.read_text(), 20, f"the daemon is ready: {log}")
            yield process
            if process.poll() is None:
                process.signal(signal.SIGKILL)
                process.wait(10)


def _inline(table: dict[str, str]) -> str:
    return "{ " + ", ".join(f'{key} = "{value}"' for key, value in table.items()) + " }"


def port(name: str, **changes: str) -> dict[str, dict[str, str]]:
    """The settings of one port, changed."""
    return {name: {**SETTINGS[name], **changes}}


@pytest.fixture
def bench(lab: Lab, tmp_path: Path) -> Bench:
    return Bench(lab, tmp_path)


# ---- obstacles ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "text"),
    [
        pytest.param(port("lan", bridge="lo"), "a device that is no bridge: 'lo'", id="no bridge"),
        pytest.param(
            port("lan", uplink="eth9"), "no device 'eth9' in network namespace 'lansw'", id="no uplink"
        ),
        pytest.param(port("lan", uplink="lo"), "add it: ip link set lo master br0", id="not on the bridge"),
        pytest.param(port("lan", host_dev="eth0"), "device 'eth0' exists already", id="host device"),
        pytest.param(
            port("lan", wire_dev="br0"), "exists already in network namespace 'lansw'", id="wire device"
        ),
    ],
)
def test_a_device_in_the_way_or_out_of_place(bench: Bench, changes: dict[str, Any], text: str) -> None:
    assert text in bench.refusal(**changes)


def test_heartbeats_too_fast_for_an_ordinary_thread(bench: Bench) -> None:
    drop = ["setpriv", "--bounding-set=-sys_nice", "--inh-caps=-all"]
    said = bench.refusal(*drop, ha="ha = { interval_ms = 10 }")
    assert "SCHED_FIFO" in said
    assert "CAP_SYS_NICE" in said


def test_the_heartbeats_port_in_use(bench: Bench) -> None:
    with bench.lab.open_socket(HOST, socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 47850))
        assert "47850" in bench.refusal()


def test_a_node_runs_once_whatever_its_devices_are_called(bench: Bench) -> None:
    other = {
        **port("lan", address="198.51.100.204", wire_dev="u-lan", host_dev="ulan"),
        **port("wan", address="203.0.113.5", wire_dev="u-wan", host_dev="uwan"),
    }
    with bench.running():
        assert "another flexhad (pid " in bench.refusal(**other)


def test_a_damaged_term_file(bench: Bench) -> None:
    (bench.directory / "state").mkdir()
    (bench.directory / "state" / "term").write_text("nonsense")
    assert "damaged" in bench.refusal()


# ---- and when all is well ----------------------------------------------------------------------------------
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_of_a_daemon_outlives_it(bench: Bench, number: signal.Signals) -> None:
    before = bench.devices()
    with bench.running() as process:
        during = bench.devices()
        assert {"lan0", "wan0"} <= set(during[HOST])
        assert "t-lan" in during["lansw"]
        assert "t-wan" in during["wansw"]
        process.signal(number)
        code = process.wait(10)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 0)
    wait_until(lambda: bench.devices() == before, 5, "its devices are gone")
    assert bench.control.exists() == (number is signal.SIGKILL)


def test_a_stop_while_starting(bench: Bench) -> None:
    """SIGTERM before the node is ready ends it as well."""
    before = bench.devices()
    log = bench.directory / "t.log"
    with log.open("wb") as stderr:
        process = bench.lab.spawn(HOST, bench.argv({}), stderr=stderr)
    with process:
        wait_until(lambda: "port.plugged port=wan" in log.read_text(), 20, "its ports are plugged")
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert "Traceback" not in log.read_text()
    wait_until(lambda: bench.devices() == before, 5, "its devices are gone")


def test_what_a_crash_left_does_not_stop_the_next_start(bench: Bench) -> None:
    with bench.running() as process:
        process.signal(signal.SIGKILL)
        process.wait(10)
    with bench.running() as process:
        process.signal(signal.SIGTERM)
        assert process.wait(10) == 0


# ---- the wire ----------------------------------------------------------------------------------------------
def test_a_port_is_up_while_its_uplink_is(bench: Bench) -> None:
    """The uplink learns no address, forgets the learned, and its state is the port's and the host TAP's."""
    lab = bench.lab

    def learned() -> list[str]:
        shown = lab.run("lansw", ["bridge", "-json", "fdb", "show", "brport", "up0"]).stdout
        return [entry["mac"] for entry in json.loads(shown) if entry.get("state") != "permanent"]

    def ask(*words: str) -> Any:
        return json.loads(lab.run(HOST, [sys.executable, "-m", "flexha.cli.main", *words, "--json"]).stdout)

    def port_up() -> bool:
        ports = ask("--socket", str(bench.control), "status")["ports"]
        return bool(next(entry["up"] for entry in ports if entry["name"] == "lan"))

    def carrier() -> bool:
        (link,) = json.loads(lab.run(HOST, ["ip", "-json", "link", "show", "lan0"]).stdout)
        return "LOWER_UP" in link["flags"]

    lab.run("lansw", ["ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1"])
    try:
        lab.run("lansw", ["ip", "link", "set", "up0", "master", "br0", "up"])
        lab.run("lansw", ["ip", "link", "set", "up1", "up"])
        lab.run("lansw", ["bridge", "fdb", "replace", topo.LAN_VMAC, "dev", "up0", "master", "dynamic"])
        assert learned() == [topo.LAN_VMAC], "the peer's adverts came first"
        with bench.running(**port("lan", uplink="up0")):
            assert topo.LAN_VMAC not in learned()
            (link,) = json.loads(
                lab.run("lansw", ["bridge", "-json", "-d", "link", "show", "dev", "up0"]).stdout
            )
            assert link["learning"] is False
            assert port_up()
            assert carrier()
            lab.run("lansw", ["ip", "link", "set", "up1", "down"])
            wait_until(lambda: not carrier(), 5, "the host TAP lost its carrier")
            assert not port_up()
            lab.run("lansw", ["ip", "link", "set", "up1", "up"])
            wait_until(carrier, 5, "the host TAP has its carrier again")
            assert port_up()
            lab.run("lansw", ["ip", "link", "set", "t-lan", "nomaster"])
            wait_until(lambda: not carrier(), 5, "a wire TAP that left its bridge is no wire")
    finally:
        lab.run("lansw", ["ip", "link", "del", "up0"])


def test_a_bridge_keeps_the_mac_of_its_nic(bench: Bench) -> None:
    """It takes the lowest of its ports', which is never a wire TAP's."""
    lab, nic = bench.lab, "02:00:00:00:00:01"
    lab.run("lansw", ["ip", "link", "add", "up0", "address", nic, "type", "veth", "peer", "name", "up1"])
    try:
        lab.run("lansw", ["ip", "link", "set", "up0", "master", "br0"])
        assert mac_of(lab, "lansw", "br0") == nic
        with bench.running():
            assert mac_of(lab, "lansw", "br0") == nic
            assert mac_of(lab, "lansw", "t-lan").startswith("fe:")
    finally:
        lab.run("lansw", ["ip", "link", "del", "up0"])


def test_metrics_and_readiness(bench: Bench) -> None:
    """The endpoint of ``nodes.a.metrics`` answers once the daemon is ready."""
    with bench.running(metrics="127.0.0.1:9101"):
        page = bench.lab.run(HOST, ["curl", "-s", "http://127.0.0.1:9101/metrics"]).stdout
    assert "flexha_term" in page
    assert 'flexha_peer_path_alive{path="xc"} 0.0' in page


@pytest.fixture(autouse=True)
def tidy(lab: Lab) -> Iterator[None]:
    """The cross-connect's address stays on its device: take it away again."""
    yield
    lab.run(HOST, ["ip", "address", "flush", "dev", "lo", "to", "169.254.77.0/24"])
