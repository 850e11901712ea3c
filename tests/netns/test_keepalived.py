# SPDX-License-Identifier: Apache-2.0
"""Debian's keepalived as the other router on the WAN: one flexha node beside it, no flexha peer. Spec: R2.

keepalived runs in host ``b`` of a lab of its own, on a veth into the WAN switch. Adverts are watched where
the ISP's router hears them, in their order. With 0.2 s between adverts, a BACKUP waits
Active_Down_Interval = 3 * 0.2 s + Skew_Time before it claims the link (RFC 9568 §6.1).
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import topo
from netns.conftest import LOG_DIR
from netns.wire import Capture, Frame, is_advert
from pair import CONFIG, Node
from sandbox import Lab, Process, wait_until
from scapy.layers.inet import IP

pytestmark = pytest.mark.skipif(shutil.which("keepalived") is None, reason="keepalived is not installed")
ADVER_INT_CS = 20
ADVER_INT_S = ADVER_INT_CS / 100
FLEXHA, KEEPALIVED = "203.0.113.4", "203.0.113.5"
FLEXHA_PRIORITY = 150
SETTLED_ADVERTS = 10
SLACK_S = 0.1
"""Two slow cores: what a program may be late."""

KEEPALIVED_CONF = """\
global_defs {{
    router_id lab
    vrrp_version 3
    vrrp_garp_master_repeat 1
}}
vrrp_instance wan {{
    state BACKUP
    interface eth1
    use_vmac
    virtual_router_id 52
    priority {priority}
    advert_int {adver_int}
    virtual_ipaddress {{
        203.0.113.3/29
    }}
}}
"""


@pytest.fixture(scope="module")
def wan_lab() -> Iterator[Lab]:
    """A lab whose host b is a router on the WAN."""
    with Lab.start(LOG_DIR / "wan-run", LOG_DIR / "wan-supervisor.log") as lab:
        lab.run("b", ["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "other", "netns", "wansw"])
        lab.run("wansw", ["ip", "link", "set", "other", "master", topo.BRIDGE, "up"])
        lab.run("b", ["ip", "address", "add", f"{KEEPALIVED}/29", "dev", "eth1"])
        lab.run("b", ["ip", "link", "set", "eth1", "up"])
        yield lab


class Keepalived:
    """keepalived in host b."""

    def __init__(self, lab: Lab, priority: int) -> None:
        config = KEEPALIVED_CONF.format(priority=priority, adver_int=ADVER_INT_S)
        lab.path("/run/keepalived.conf").write_text(config)
        argv = ["keepalived", "--dont-fork", "--log-console", "--vrrp", "--use-file", "/run/keepalived.conf"]
        with (LOG_DIR / "keepalived.log").open("ab") as log:
            self.process: Process = lab.spawn("b", argv, stdout=log, stderr=log)

    def stop(self) -> None:
        """SIGTERM: it says priority 0 if it is the Active Router."""
        if self.process.poll() is None:
            self.process.signal(signal.SIGTERM)
            self.process.wait(10)
        self.process.close()


@pytest.fixture
def node(wan_lab: Lab, tmp_path: Path) -> Iterator[Node]:
    """A single flexha node of priority 150 (not started): the lab's configuration without node b."""
    config = tmp_path / "single.toml"
    text = CONFIG.read_text()
    config.write_text(text[: text.index("[nodes.b]")] + f"\n[vrrp]\nadver_int_cs = {ADVER_INT_CS}\n")
    node = Node(wan_lab, "a", LOG_DIR / "wan", config)
    yield node
    node.stop()


@pytest.fixture
def adverts(wan_lab: Lab) -> Iterator[Capture]:
    """What the ISP's router hears."""
    with Capture(wan_lab, "isp", "wan0") as capture:
        yield capture


def source_of(frame: Frame) -> str:
    return str(frame.packet[IP].src)


def priority_of(frame: Frame) -> int:
    return int(frame.packet[IP].payload.priority)


def from_router(address: str, after_s: float = 0.0, *, last_word: bool = False) -> Callable[[Frame], bool]:
    """Adverts of a router; with ``last_word`` those of priority 0."""
    return lambda f: (
        is_advert(f) and f.t_s > after_s and source_of(f) == address and (priority_of(f) == 0) is last_word
    )


def assert_never_both(capture: Capture, switches: int) -> None:
    """The Active Router changed so many times, and no two routers' adverts were mixed meanwhile."""
    claims = [source_of(frame) for frame in capture.frames(is_advert) if priority_of(frame) > 0]
    assert sum(before != after for before, after in pairwise(claims)) == switches, claims


def start_and_wait(node: Node, role: str) -> None:
    node.start()
    wait_until(lambda: node.role() == role, 20, f"node {node.name} is {role}")


def test_better_keepalived_stays_active(wan_lab: Lab, node: Node, adverts: Capture) -> None:
    """A node that starts beside an Active Router of higher priority leaves the link to it; that router's
    goodbye (priority 0) makes it take over within Skew_Time, not Active_Down_Interval. Spec: R2;
    RFC 9568 §6.4.2 (420), (430).
    """
    keepalived = Keepalived(wan_lab, FLEXHA_PRIORITY + 50)
    try:
        adverts.wait(from_router(KEEPALIVED), "keepalived claims the WAN", timeout_s=20)
        start_and_wait(node, "PASSIVE")
        heard = node.counter("vrrp.wan.adverts_received")
        wanted = heard + SETTLED_ADVERTS
        wait_until(lambda: node.counter("vrrp.wan.adverts_received") >= wanted, 20, "more adverts are heard")
        assert node.role() == "PASSIVE"
        assert adverts.frames(from_router(FLEXHA)) == []
        keepalived.stop()
        goodbye = adverts.wait(from_router(KEEPALIVED, last_word=True), "keepalived's goodbye")[-1]
        first = adverts.wait(from_router(FLEXHA), "flexha claims the WAN")[0]
    finally:
        keepalived.stop()
    skew_s = (256 - FLEXHA_PRIORITY) * ADVER_INT_S / 256
    assert first.t_s - goodbye.t_s < skew_s + SLACK_S
    assert_never_both(adverts, 1)
    wait_until(lambda: node.role() == "ACTIVE", 5, "node a is ACTIVE")


def test_worse_keepalived_stays_backup(wan_lab: Lab, node: Node, adverts: Capture) -> None:
    """keepalived believes our adverts, and takes over at once when we say goodbye. Spec: R2;
    RFC 9568 §6.4.3 (650).
    """
    start_and_wait(node, "ACTIVE")
    started = adverts.wait(from_router(FLEXHA), "flexha claims the WAN")[-1].t_s
    priority = FLEXHA_PRIORITY - 50
    keepalived = Keepalived(wan_lab, priority)
    try:
        # Long enough for keepalived to have started and claimed the link, had it not believed us.
        adverts.wait(from_router(FLEXHA, started), "adverts go on", n=3 * SETTLED_ADVERTS, timeout_s=30)
        assert adverts.frames(from_router(KEEPALIVED)) == []
        node.stop()
        goodbye = adverts.wait(from_router(FLEXHA, last_word=True), "flexha's goodbye")[-1]
        first = adverts.wait(from_router(KEEPALIVED), "keepalived claims the WAN")[0]
    finally:
        keepalived.stop()
    skew_s = (256 - priority) * ADVER_INT_S / 256
    assert first.t_s - goodbye.t_s < skew_s + SLACK_S
    assert_never_both(adverts, 1)


def test_better_keepalived_takes_the_link(wan_lab: Lab, node: Node, adverts: Capture) -> None:
    """A router of higher priority that comes up gets the link, and its sudden death gives it back after
    Active_Down_Interval: never are two Active. Spec: R2; RFC 9568 §6.4.3 (700).
    """
    start_and_wait(node, "ACTIVE")
    adverts.wait(from_router(FLEXHA), "flexha claims the WAN")
    keepalived = Keepalived(wan_lab, FLEXHA_PRIORITY + 50)
    try:
        adverts.wait(from_router(KEEPALIVED), "keepalived claims the WAN", n=SETTLED_ADVERTS, timeout_s=20)
        wait_until(lambda: node.role() != "ACTIVE", 5, "node a has yielded")
        for process in wan_lab.run("b", ["pidof", "keepalived"]).stdout.split():
            wan_lab.run("b", ["kill", "-KILL", process], check=False)
        wait_until(lambda: node.role() == "ACTIVE", 20, "node a takes the link back")
        last = adverts.frames(from_router(KEEPALIVED))[-1]
        first = adverts.wait(from_router(FLEXHA, last.t_s), "flexha claims the WAN")[0]
    finally:
        keepalived.stop()
    skew_s = (256 - FLEXHA_PRIORITY) * ADVER_INT_S / 256
    silence_s = first.t_s - last.t_s
    assert 3 * ADVER_INT_S + skew_s - SLACK_S < silence_s < 3 * ADVER_INT_S + skew_s + 2 * SLACK_S
    assert_never_both(adverts, 2)
