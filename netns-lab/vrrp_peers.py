# SPDX-License-Identifier: Apache-2.0
"""The other VRRP routers of Debian beside one flexha node on the WAN: one story, told by what the ISP hears.

A row is a program and a version: keepalived or FRR's vrrpd, VRRPv2 (RFC 3768) or VRRPv3 (RFC 9568). In each

* both claim the link while a cut parts them, and equal priorities are decided by address;
* a goodbye (priority 0) hands over within Skew_Time, in both directions;
* a worse router stays Backup, and so does a better one that may not preempt; one that may gets the link;
* its sudden death gives the link back after Active_Down_Interval.

The router runs in host ``b`` of a lab of its own, which has no second node, on a veth into the WAN's switch.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import topo
from pair import CONFIG, Node
from sandbox import Lab, LabError, Process, wait_until

FRR_DIR = Path("/usr/lib/frr")
FLEXHA, OTHER = "203.0.113.4", "203.0.113.5"
FLEXHA_PRIORITY, WORSE, BETTER = 150, 100, 200
VRID, VMAC, VIP = 52, "00:00:5e:00:01:34", "203.0.113.3"
START_S = 1.5
"""A router has started by then."""
DEVICES = {"keepalived": f"vrrp.{VRID}", "frr": "vrrp4"}
PROGRAMS = ("keepalived", "zebra", "vrrpd")
OUR_COMPLAINTS = tuple(
    f"bad_{what}" for what in ("version", "checksum", "ip_checksum", "ttl", "length", "type", "vrid", "auth")
)
COMPLAINTS = re.compile(r"checksum|bogus|invalid|mismatch|malformed|ttl|drop|unknown|wrong", re.IGNORECASE)
"""In what keepalived and vrrpd say of adverts that they do not take."""
ETH_P_IP, PROTO_VRRP = 0x0800, 112
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33

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
    virtual_router_id {vrid}
    priority {priority}
    advert_int {interval_s}
    {nopreempt}
    virtual_ipaddress {{
        {vip}/29
    }}
}}
"""

FRR_CONF = """\
interface eth1
 vrrp {vrid} version {version}
 vrrp {vrid} priority {priority}
 vrrp {vrid} advertisement-interval {interval_ms}
 {no_preempt}
 vrrp {vrid} ip {vip}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One program in one version."""

    program: str
    version: int

    @property
    def name(self) -> str:
        """Such as ``keepalived-v3``."""
        return f"{self.program}-v{self.version}"

    @property
    def interval_s(self) -> float:
        """As short as the version lets it be, and the test is still about timers."""
        return 1.0 if self.version == 2 else 0.2

    def skew_s(self, priority: int) -> float:
        """Skew_Time (RFC 3768 §6.1, RFC 9568 §6.1)."""
        return (256 - priority) / 256 * (1.0 if self.version == 2 else self.interval_s)

    def down_s(self, priority: int) -> float:
        """Active_Down_Interval, there Master_Down_Interval."""
        return 3 * self.interval_s + self.skew_s(priority)

    @property
    def missing(self) -> str:
        """The program that is not installed, or nothing."""
        if self.program == "frr":
            return "" if (FRR_DIR / "vrrpd").exists() else "frr"
        return "" if shutil.which("keepalived") else "keepalived"


ROWS = tuple(Row(program, version) for program in ("keepalived", "frr") for version in (2, 3))


@dataclass(frozen=True, slots=True)
class Advert:
    """One that the ISP's router has heard."""

    t_s: float
    """The kernel's time of it."""
    source: str
    version: int
    priority: int
    ttl: int


def advert_of(frame: bytes, t_s: float) -> Advert | None:
    """A VRRP advertisement over IPv4; None for every other frame."""
    ip = frame[14:]
    if int.from_bytes(frame[12:14], "big") != ETH_P_IP or len(ip) < 28 or ip[9] != PROTO_VRRP:
        return None
    vrrp = ip[(ip[0] & 15) * 4 :]
    return Advert(t_s, socket.inet_ntoa(ip[12:16]), vrrp[0] >> 4, vrrp[2], ip[8])


class Adverts:
    """All that come to the ISP's router in the block, in their order."""

    def __init__(self, lab: Lab) -> None:
        self._socket = lab.open_socket("isp", socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IP))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._socket.bind(("wan0", ETH_P_IP))
        self._socket.setblocking(False)
        self._heard: list[Advert] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def all(self) -> list[Advert]:
        """Those so far."""
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, told, _, _ = self._socket.recvmsg(2048, 128)
                seconds, nanoseconds = struct.unpack("qq", told[0][2][:16])
                advert = advert_of(frame, seconds + nanoseconds / 1e9)
                if advert is not None:
                    self._heard.append(advert)
        return self._heard

    def wait(
        self,
        source: str,
        what: str,
        *,
        after_s: float = 0,
        n: int = 1,
        bye: bool = False,
        timeout_s: float = 20,
    ) -> list[Advert]:
        """``n`` adverts of a router, later than ``after_s``; ``bye``: those of priority 0."""

        def found() -> list[Advert]:
            return [
                a for a in self.all() if a.source == source and a.t_s > after_s and (a.priority == 0) is bye
            ]

        wait_until(lambda: len(found()) >= n, timeout_s, what)
        return found()

    def last(self, source: str) -> Advert:
        """The newest one of a router that claims the link."""
        return [a for a in self.all() if a.source == source and a.priority][-1]

    def switches(self, after_s: float) -> int:
        """How often the router that claims the link was another one than before."""
        claims = [a.source for a in self.all() if a.priority and a.t_s > after_s]
        return sum(before != after for before, after in pairwise(claims))


class Router:
    """The other VRRP router, in host b."""

    def __init__(self, lab: Lab, row: Row, log: Path, priority: int, *, preempt: bool = True) -> None:
        self.lab, self.row, self.log = lab, row, log
        keys = {
            "version": row.version,
            "vrid": VRID,
            "vip": VIP,
            "priority": priority,
            "interval_s": f"{row.interval_s:g}",
            "interval_ms": round(row.interval_s * 1000),
            "nopreempt": "" if preempt else "nopreempt",
            "no_preempt": "" if preempt else f"no vrrp {VRID} preempt",
        }
        self.processes: list[Process] = []
        if row.program == "keepalived":
            lab.path("/run/keepalived.conf").write_text(KEEPALIVED_CONF.format(**keys))
            argv = ["keepalived", "--dont-fork", "--log-console", "--vrrp"]
            self._spawn([*argv, "--use-file", "/run/keepalived.conf"])
            return
        # vrrpd takes the device that has the virtual MAC and address (FRR's manual, "VRRP").
        device = ["vrrp4", "link", "eth1", "address", VMAC, "type", "macvlan", "mode", "bridge"]
        lab.run("b", ["ip", "link", "add", *device])
        lab.run("b", ["ip", "address", "add", f"{VIP}/29", "dev", "vrrp4"])
        lab.run("b", ["ip", "link", "set", "vrrp4", "up"])
        lab.path("/run/zebra.conf").write_text("")
        lab.path("/run/vrrpd.conf").write_text(FRR_CONF.format(**keys))
        lab.run("b", ["install", "-d", "-o", "frr", "-g", "frr", "/run/frr"])
        self._spawn(self._frr("zebra"))
        wait_until(lambda: lab.path("/run/frr/zserv.api").exists(), 10, "zebra is there")
        self._spawn(self._frr("vrrpd"))

    @staticmethod
    def _frr(daemon: str) -> list[str]:
        where = ["-f", f"/run/{daemon}.conf", "-i", f"/run/frr/{daemon}.pid", "-z", "/run/frr/zserv.api"]
        return [str(FRR_DIR / daemon), *where, "--vty_socket", "/run/frr", "-P", "0", "--log", "stdout"]

    def _spawn(self, argv: list[str]) -> None:
        with self.log.open("ab") as log:
            self.processes.append(self.lab.spawn("b", argv, stdout=log, stderr=log))

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


@contextlib.contextmanager
def wan_lab(directory: Path) -> Iterator[Lab]:
    """A lab whose host b is a router on the WAN."""
    directory.mkdir(parents=True, exist_ok=True)
    with Lab.start(directory / "run", directory / "supervisor.log") as lab:
        lab.run("b", ["ip", "link", "add", "eth1", "type", "veth", "peer", "name", "other", "netns", "wansw"])
        lab.run("wansw", ["ip", "link", "set", "other", "master", topo.BRIDGE, "up"])
        lab.run("b", ["ip", "address", "add", f"{OTHER}/29", "dev", "eth1"])
        lab.run("b", ["ip", "link", "set", "eth1", "up"])
        yield lab


@dataclass(slots=True)
class Heard:
    """What came of a story."""

    late_ms: dict[str, float] = field(default_factory=dict)
    """By moment: how much later than its timer says the link was claimed; less than 0 is too early."""
    out_of_turn: int = 0
    """Changes of the router that claims the link, beyond those that the story is about."""
    complaints: list[str] = field(default_factory=list)
    """Of either router about the other one's adverts."""


class Story:
    """One row, from the cut to the sudden death. Raises LabError for what does not happen."""

    def __init__(self, lab: Lab, row: Row, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.lab, self.row = lab, row
        self.heard = Heard()
        self._log = directory / f"{row.name}.log"
        self._log.write_bytes(b"")
        text = CONFIG.read_text()
        config = directory / f"{row.name}.toml"
        vrrp = f"\n[vrrp]\nversion = {row.version}\nadver_int_cs = {round(row.interval_s * 100)}\n"
        config.write_text(text[: text.index("[nodes.b]")] + vrrp)
        self._node = Node(lab, "a", directory, config)
        self._other: Router | None = None

    def tell(self) -> Heard:
        """Go through it."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._clear)
            adverts = stack.enter_context(Adverts(self.lab))
            self._equal(adverts)
            self._worse(adverts)
            self._may_not_preempt(adverts)
            self._better(adverts)
            self._listen_to_complaints(adverts)
        return self.heard

    def _clear(self) -> None:
        if self._other is not None:
            self._other.kill()
        self._node.stop()

    def _router(self, priority: int, *, preempt: bool = True) -> Router:
        self._other = Router(self.lab, self.row, self._log, priority, preempt=preempt)
        return self._other

    def _is(self, role: str, what: str) -> None:
        wait_until(lambda: self._node.role() == role, 20, what)

    def _claims(self, adverts: Adverts, source: str, what: str, since: Advert, after_s: float) -> Advert:
        """``source`` claims the link ``after_s`` after the advert ``since``, as its timer says."""
        first = adverts.wait(source, what, after_s=since.t_s)[0]
        self.heard.late_ms[what] = (first.t_s - since.t_s - after_s) * 1e3
        return first

    def _in_turn(self, adverts: Adverts, after_s: float, switches: int) -> None:
        self.heard.out_of_turn += adverts.switches(after_s) - switches

    def _stays_calm(self, adverts: Adverts, what: str, begun: Advert, down_s: float) -> None:
        """Long enough for the other to have started, and to have claimed the link, had it not believed us."""
        calm = round((START_S + down_s) / self.row.interval_s) + 1
        adverts.wait(FLEXHA, what, after_s=begun.t_s, n=calm, timeout_s=60)
        self._in_turn(adverts, begun.t_s, 0)

    def _equal(self, adverts: Adverts) -> None:
        """RFC 9568 §6.4.3 (710): of equal priorities the greater address stays, whoever was there first."""
        # A cut that keeps the carrier: keepalived goes into FAULT without one.
        self.lab.run("wansw", ["ip", "link", "set", "other", "nomaster"])
        other = self._router(FLEXHA_PRIORITY)
        self._node.start()
        self._is("ACTIVE", "node a is ACTIVE beyond the cut")
        self.lab.run("wansw", ["ip", "link", "set", "other", "master", topo.BRIDGE])
        adverts.wait(OTHER, "the other claims the link, too")
        self._is("PASSIVE", "node a yields to the greater address")
        other.stop()
        goodbye = adverts.wait(OTHER, "the other's goodbye", bye=True)[-1]
        skew_s = self.row.skew_s(FLEXHA_PRIORITY)
        self._claims(adverts, FLEXHA, "flexha, after a goodbye", goodbye, skew_s)
        self._is("ACTIVE", "node a is ACTIVE after the goodbye")

    def _worse(self, adverts: Adverts) -> None:
        """§6.4.2 (450), §6.4.3 (650): it believes our adverts, and our goodbye."""
        begun = adverts.last(FLEXHA)
        other = self._router(WORSE)
        self._stays_calm(adverts, "adverts go on beside a worse router", begun, self.row.down_s(WORSE))
        self._node.stop()
        goodbye = adverts.wait(FLEXHA, "flexha's goodbye", after_s=begun.t_s, bye=True)[-1]
        self._claims(adverts, OTHER, "the worse one, after flexha's goodbye", goodbye, self.row.skew_s(WORSE))
        other.stop()
        self._node.start()
        self._is("ACTIVE", "node a is ACTIVE alone")

    def _may_not_preempt(self, adverts: Adverts) -> None:
        """§6.4.2 (455): Preempt_Mode is false there, so a better router leaves the link to a worse one."""
        begun = adverts.wait(FLEXHA, "flexha claims the link", after_s=adverts.last(OTHER).t_s)[0]
        other = self._router(BETTER, preempt=False)
        self._stays_calm(adverts, "adverts go on beside a polite router", begun, self.row.down_s(BETTER))
        other.kill()

    def _better(self, adverts: Adverts) -> None:
        """§6.4.2 (430), §6.4.3 (700): a better one gets the link, and its silence gives it back."""
        begun = adverts.last(FLEXHA)
        other = self._router(BETTER)
        adverts.wait(OTHER, "the better one claims the link", after_s=begun.t_s, n=2)
        self._is("PASSIVE", "node a yields to the better one")
        other.kill()
        last = adverts.last(OTHER)
        self._claims(adverts, FLEXHA, "flexha, after a death", last, self.row.down_s(FLEXHA_PRIORITY))
        self._is("ACTIVE", "node a is ACTIVE after the death")
        self._in_turn(adverts, begun.t_s, 2)

    def _listen_to_complaints(self, adverts: Adverts) -> None:
        said = self.heard.complaints
        said += [
            f"flexha counts {self._node.counter(name)} of {name}"
            for name in (f"vrrp.wan.{kind}" for kind in OUR_COMPLAINTS)
            if self._node.counter(name)
        ]
        lines = self._log.read_text(errors="replace").splitlines()
        said += [f"{self.row.program}: {line.strip()}" for line in lines if COMPLAINTS.search(line)]
        odd = [a for a in adverts.all() if a.version != self.row.version or a.ttl != 255]
        said += [f"of version {a.version}, TTL {a.ttl}: an advert of {a.source}" for a in odd[:1]]


def tell(directory: Path, rows: tuple[Row, ...], say: Callable[[str], None]) -> Iterator[tuple[Row, Heard]]:
    """The stories of these rows in one lab."""
    with wan_lab(directory) as lab:
        for row in rows:
            if row.missing:
                raise LabError(f"{row.missing} is not installed: apt-get install {row.missing}")
            say(f"beside {row.program}, VRRPv{row.version}")
            yield row, Story(lab, row, directory).tell()
