# SPDX-License-Identifier: Apache-2.0
"""The service on a Debian machine, installed by the README's own commands. Spec: F4, R25.

The machine is one box of a pair whose other box is absent: its NICs are veth ends, and at the far end of
the LAN cable sits a namespace with a client in it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator

import pytest
from netns.nspawn import REPOSITORY, SOURCE, WHEELS, Machine

UNIT = "flexhad@a"
FLEXHACTL = ("flexhactl", "--config", "/etc/flexha/pair.toml", "--node", "a", "--json")
WIRE_TAPS = {"fx-lan-a", "fx-wan-a"}
HOST_TAPS = {"lan0", "wan0"}
POLL_S = 0.05

# The box's cables, as the README's commands find them: eth1 LAN, eth2 WAN, eth3 cross-connect.
CABLES = """
ip netns add client
ip link add eth1 type veth peer name eth0 netns client
ip link add eth2 type veth peer name cable2
ip link add eth3 type veth peer name cable3
ip link set cable2 up
ip link set cable3 up
ip -n client address add 198.51.100.10/24 dev eth0
ip -n client link set eth0 up
# Everybody may open it, as udev has it on a box; a container has no udev.
rm /dev/net/tun
mknod --mode=666 /dev/net/tun c 10 200
"""

# The first test on a fresh host builds the tree and downloads the packages.
pytestmark = pytest.mark.timeout(900)


def readme_commands(heading: str) -> list[str]:
    """The shell blocks of one section of the README."""
    text = (REPOSITORY / "README.md").read_text()
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted Debian machine on which the README's section has been carried out."""
    with Machine(tmp_path_factory.mktemp("machine")) as booted:
        booted.run("sh", "-exc", CABLES)
        for block in readme_commands("Install as a service"):
            booted.run(
                *("sh", "-exc", block),
                cwd=SOURCE,
                # The machine has no way out: its packages lie in a directory.
                env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
                timeout_s=600,
            )
        yield booted


def wait_until(machine: Machine, condition: Callable[[], bool], what: str, timeout_s: float = 20) -> None:
    """Poll until it is true; a failure shows the unit's journal."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}\n{machine.journal(UNIT)}"
        time.sleep(POLL_S)


def show(machine: Machine, name: str) -> str:
    return machine.output("systemctl", "show", UNIT, f"--property={name}", "--value")


def links(machine: Machine) -> dict[str, dict[str, object]]:
    answer = json.loads(machine.run("ip", "-json", "-details", "link").stdout)
    return {link["ifname"]: link for link in answer}


def status(machine: Machine) -> dict[str, object]:
    answer = machine.run(*FLEXHACTL, "status", check=False)
    result: dict[str, object] = json.loads(answer.stdout) if answer.returncode == 0 else {}
    return result


def test_start_reaches_ready_with_working_taps(machine: Machine) -> None:
    """Type=notify: ``systemctl start`` returns once the daemon has said READY."""
    machine.run("systemctl", "start", UNIT)
    assert show(machine, "Type") == "notify"
    assert (show(machine, "ActiveState"), show(machine, "SubState")) == ("active", "running"), (
        machine.journal(UNIT)
    )
    found = links(machine)
    assert found.keys() >= WIRE_TAPS | HOST_TAPS
    assert {found["fx-lan-a"]["master"], found["fx-wan-a"]["master"]} == {"br-lan", "br-wan"}
    assert status(machine)["node"] == "a"
    # Alone it becomes ACTIVE, and then a client on the LAN reaches the VIP: frames pass the TAPs both ways.
    wait_until(machine, lambda: status(machine).get("role") == "ACTIVE", "the role is ACTIVE")
    ping = ("ip", "netns", "exec", "client", "ping", "-c", "1", "-W", "1", "198.51.100.1")
    wait_until(machine, lambda: machine.run(*ping, check=False).returncode == 0, "the VIP answers echo")


def test_it_runs_without_root_and_with_three_capabilities(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    process = machine.output("cat", f"/proc/{show(machine, 'MainPID')}/status")
    fields = dict(line.split(":\t", 1) for line in process.splitlines() if ":\t" in line)
    uid = machine.output("id", "-u", "flexha")
    assert fields["Uid"].split() == [uid] * 4
    # Bits of capability(7): CAP_NET_ADMIN 12, CAP_NET_RAW 13, CAP_SYS_NICE 23.
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 1 << 12 | 1 << 13 | 1 << 23
    assert fields["NoNewPrivs"] == "1"
    # The sandbox refuses nothing that the daemon asks for.
    assert "refused" not in machine.journal(UNIT)


def test_sigkill_restarts_it(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    before, restarts = show(machine, "MainPID"), int(show(machine, "NRestarts"))
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)
    wait_until(machine, lambda: int(show(machine, "NRestarts")) == restarts + 1, "it is restarted")
    wait_until(machine, lambda: show(machine, "SubState") == "running", "it runs again")
    assert show(machine, "MainPID") != before
    assert links(machine).keys() >= WIRE_TAPS | HOST_TAPS
    wait_until(machine, lambda: status(machine).get("role") == "ACTIVE", "the role is ACTIVE again")


def test_a_silent_control_plane_is_killed_and_restarted(machine: Machine) -> None:
    """The watchdog: a stopped process says nothing, so systemd ends it."""
    machine.run("systemctl", "start", UNIT)
    restarts = int(show(machine, "NRestarts"))
    machine.run("systemctl", "kill", "--kill-whom=main", "--signal=STOP", UNIT)
    wait_until(
        machine, lambda: int(show(machine, "NRestarts")) == restarts + 1, "the watchdog bites", timeout_s=40
    )
    wait_until(machine, lambda: show(machine, "SubState") == "running", "it runs again")


def test_a_bad_configuration_is_told_and_not_retried(machine: Machine) -> None:
    """Every error by its key, once; no restart loop."""
    machine.run("systemctl", "stop", UNIT)
    machine.run(
        "sh",
        "-exc",
        "cp -a /etc/flexha/pair.toml /tmp/good && sed -i 's/^vrid = 51/vrid = 0/' /etc/flexha/pair.toml",
    )
    try:
        assert machine.run("systemctl", "start", UNIT, check=False).returncode != 0
        assert (show(machine, "ActiveState"), show(machine, "NRestarts")) == ("failed", "0")
        assert "ports.lan.vrid" in machine.journal(UNIT)
    finally:
        machine.run("sh", "-exc", f"cp -a /tmp/good /etc/flexha/pair.toml; systemctl reset-failed {UNIT}")


def test_stop_cleans_up(machine: Machine) -> None:
    machine.run("systemctl", "start", UNIT)
    machine.run("systemctl", "stop", UNIT)
    assert (show(machine, "ActiveState"), show(machine, "Result")) == ("inactive", "success"), (
        machine.journal(UNIT)
    )
    assert not links(machine).keys() & (WIRE_TAPS | HOST_TAPS)
    assert machine.output("ls", "/run/flexha") == ""
    assert machine.output("ip", "-4", "route", "show", "default") == ""
