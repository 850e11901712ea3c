# SPDX-License-Identifier: Apache-2.0
"""The other VRRP routers of Debian, in both versions, beside one flexha node on the WAN. Spec: R2.

A row is a program and a version: keepalived or FRR's vrrpd, VRRPv2 (RFC 3768) or VRRPv3 (RFC 9568). Each goes
through the same story, told by what the ISP's router hears: both claim the link while a cut parts them;
equal priorities are decided by address; a goodbye (priority 0) hands over within Skew_Time; a better router
gets the link; and its sudden death gives it back after Active_Down_Interval.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import topo
from netns.conftest import LOG_DIR
from netns.test_keepalived import FLEXHA, KEEPALIVED, from_router, start_and_wait
from netns.wire import Capture
from pair import CONFIG, Node
from sandbox import Lab, Process, wait_until

FRR_DIR = Path("/usr/lib/frr")
FLEXHA_PRIORITY = 150
SLACK_S = 0.25
"""Two slow cores: what a program may be late."""
PROGRAMS = ("keepalived", "zebra", "vrrpd")
DEVICES = {"keepalived": "vrrp.52", "frr": "vrrp4"}
VMAC = "00:00:5e:00:01:34"
VIP = "203.0.113.3/29"

KEEPALIVED_CONF = """\
global_defs {{
    router_id lab
    vrrp_version {version}
    vrrp_garp_master_repeat 1
}}
vrrp_instance wan {{
    state BACKUP
    interface eth1
    use_vmac
    virtual_router_id 52
    priority {priority}
    advert_int {interval_s}
    virtual_ipaddress {{
        203.0.113.3/29
    }}
}}
"""

FRR_CONF = """\
interface eth1
 vrrp 52 version {version}
 vrrp 52 priority {priority}
 vrrp 52 advertisement-interval {interval_ms}
 vrrp 52 ip 203.0.113.3
"""


@dataclass(frozen=True)
class Row:
    """One program in one version."""

    program: str
    version: int

    @property
    def interval_s(self) -> float:
        """As short as the version lets it be, and the test is still about timers."""
        return 1.0 if self.version == 2 else 0.2

    @property
    def skew_s(self) -> float:
        """Our Skew_Time (RFC 3768 §6.1, RFC 9568 §6.1)."""
        return (256 - FLEXHA_PRIORITY) / 256 * (1.0 if self.version == 2 else self.interval_s)


ROWS = [Row(program, version) for program in ("keepalived", "frr") for version in (2, 3)]


@pytest.fixture(scope="module")
def wan_lab() -> Iterator[Lab]:
    """A lab whose host b is a router on the WAN."""
    with Lab.start(LOG_DIR / "vrrp-run", LOG_DIR / "vrrp-supervisor.log") as lab:
        lab.run("b", ["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "other", "netns", "wansw"])
        lab.run("wansw", ["ip", "link", "set", "other", "master", topo.BRIDGE, "up"])
        lab.run("b", ["ip", "address", "add", f"{KEEPALIVED}/29", "dev", "eth1"])
        lab.run("b", ["ip", "link", "set", "eth1", "up"])
        yield lab


class Router:
    """A VRRP router in host b."""

    def __init__(self, lab: Lab, row: Row, priority: int) -> None:
        self.lab, self.row = lab, row
        keys = {
            "version": row.version,
            "priority": priority,
            "interval_s": f"{row.interval_s:g}",
            "interval_ms": round(row.interval_s * 1000),
        }
        if row.program == "keepalived":
            lab.path("/run/keepalived.conf").write_text(KEEPALIVED_CONF.format(**keys))
            argv = ["keepalived", "--dont-fork", "--log-console", "--vrrp"]
            self.processes = [self._spawn([*argv, "--use-file", "/run/keepalived.conf"])]
        else:
            # vrrpd takes the device that has the virtual MAC and address (FRR's manual, "VRRP").
            device = ["vrrp4", "link", "eth1", "address", VMAC, "type", "macvlan", "mode", "bridge"]
            lab.run("b", ["ip", "link", "add", *device])
            lab.run("b", ["ip", "address", "add", VIP, "dev", "vrrp4"])
            lab.run("b", ["ip", "link", "set", "vrrp4", "up"])
            lab.path("/run/zebra.conf").write_text("")
            lab.path("/run/vrrpd.conf").write_text(FRR_CONF.format(**keys))
            lab.run("b", ["install", "-d", "-o", "frr", "-g", "frr", "/run/frr"])
            self.processes = [self._spawn(self._frr("zebra"))]
            wait_until(lambda: lab.path("/run/frr/zserv.api").exists(), 10, "zebra is there")
            self.processes.append(self._spawn(self._frr("vrrpd")))

    @staticmethod
    def _frr(daemon: str) -> list[str]:
        where = ["-f", f"/run/{daemon}.conf", "-i", f"/run/frr/{daemon}.pid", "-z", "/run/frr/zserv.api"]
        return [str(FRR_DIR / daemon), *where, "--vty_socket", "/run/frr", "-P", "0", "--log", "stdout"]

    def _spawn(self, argv: list[str]) -> Process:
        with (LOG_DIR / "vrrp-peers.log").open("ab") as log:
            return self.lab.spawn("b", argv, stdout=log, stderr=log)

    def stop(self) -> None:
        """SIGTERM: it says priority 0 if it is the Active Router."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.signal(signal.SIGTERM)
        self._clean()

    def kill(self) -> None:
        """It dies without a word. (keepalived's router is a child of the process that we started.)"""
        pids = self.lab.run("b", ["pidof", *PROGRAMS], check=False).stdout.split()
        if pids:
            self.lab.run("b", ["kill", "-KILL", *pids], check=False)
        self._clean()

    def _clean(self) -> None:
        """Reap, and remove the device of the virtual router: whoever was killed has left it."""
        for process in self.processes:
            process.wait(10)
            process.close()
        self.processes = []
        self.lab.run("b", ["ip", "link", "delete", DEVICES[self.row.program]], check=False)
        self.lab.path("/run/frr/zserv.api").unlink(missing_ok=True)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.program}-v{row.version}")
def test_the_other_router(wan_lab: Lab, row: Row, tmp_path: Path) -> None:
    """Spec: R2; RFC 3768 §6.4.2, §6.4.3; RFC 9568 §6.4.2 (420), (430), §6.4.3 (700), (725)."""
    if not (FRR_DIR / "vrrpd").exists() if row.program == "frr" else shutil.which("keepalived") is None:
        pytest.skip(f"{row.program} is not installed")
    text = CONFIG.read_text()
    vrrp = f"\n[vrrp]\nversion = {row.version}\nadver_int_cs = {round(row.interval_s * 100)}\n"
    config = tmp_path / "single.toml"
    config.write_text(text[: text.index("[nodes.b]")] + vrrp)
    node = Node(wan_lab, "a", LOG_DIR / "vrrp", config)
    # A cut that keeps the carrier: keepalived goes into FAULT without one.
    wan_lab.run("wansw", ["ip", "link", "set", "other", "nomaster"])
    with Capture(wan_lab, "isp", "wan0") as heard:
        other = Router(wan_lab, row, FLEXHA_PRIORITY)
        try:
            start_and_wait(node, "ACTIVE")
            wan_lab.run("wansw", ["ip", "link", "set", "other", "master", topo.BRIDGE])
            # Equal priority: the greater address stays, whoever was there first.
            heard.wait(from_router(KEEPALIVED), "the other claims the link, too", timeout_s=20)
            wait_until(lambda: node.role() == "PASSIVE", 10, "node a yields to the greater address")
            # Priority 0: within Skew_Time.
            other.stop()
            goodbye = heard.wait(from_router(KEEPALIVED, last_word=True), "the goodbye")[-1]
            first = heard.wait(from_router(FLEXHA, goodbye.t_s), "flexha claims the link")[0]
            assert row.skew_s - SLACK_S < first.t_s - goodbye.t_s < row.skew_s + SLACK_S
            wait_until(lambda: node.role() == "ACTIVE", 10, "node a is ACTIVE")
            # A better one gets the link, and its silence gives it back.
            other = Router(wan_lab, row, FLEXHA_PRIORITY + 50)
            heard.wait(
                from_router(KEEPALIVED, first.t_s), "the better one claims the link", n=2, timeout_s=20
            )
            wait_until(lambda: node.role() == "PASSIVE", 10, "node a yields to the better one")
            other.kill()
            last = heard.frames(from_router(KEEPALIVED))[-1]
            again = heard.wait(from_router(FLEXHA, last.t_s), "flexha takes it back", timeout_s=20)[0]
            down_s = 3 * row.interval_s + row.skew_s
            assert down_s - SLACK_S < again.t_s - last.t_s < down_s + 2 * SLACK_S
            assert node.counter("vrrp.wan.bad_version") == node.counter("vrrp.wan.bad_checksum") == 0
        finally:
            other.kill()
            node.stop()
