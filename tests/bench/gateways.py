# SPDX-License-Identifier: Apache-2.0
"""What may stand between LAN and WAN in the forwarding benchmark, each in a lab of its own.

* ``ours``      both daemons, sync running; packets go through the ACTIVE node
* ``bare_tap``  ``tapcopy.c``: the same TAPs on the same switches, a copy and no work at all
* ``nft``       the kernel on veth pairs, with one nft SNAT rule
* ``nft_sync``  the same, with conntrackd on both nodes: FTFW over the cross-connect
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import IO

import topo
from bench.meters import thread_cpu_ns
from bench.results import BUILD
from pair import Pair
from sandbox import Lab, LabError, Process, wait_until

from flexha.config.naming import default_wire_dev
from flexha.shell.scheduling import NICE, WORKER_THREADS

NODE = "a"
"""The host that plays the gateway; the pair's own choice is asked for."""
SETTLE_S = 30.0


class Gateway(ABC):
    """What stands between LAN and WAN."""

    name = ""
    lan_wire = "tap-lan"
    """The wire TAP of the LAN in its switch: its counters say how many frames the gateway took."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.opened: set[int] = set()
        """UDP traffic, by its number of flows, whose sessions are open."""

    @classmethod
    @contextlib.contextmanager
    def running(cls) -> Iterator[Gateway]:
        """A lab with this gateway in it."""
        with Lab.start(BUILD / f"run-{cls.name}", BUILD / f"{cls.name}-supervisor.log") as lab:
            gateway = cls(lab)
            with gateway.built():
                await_forwarding(lab, cls.name)
                yield gateway

    @abstractmethod
    def built(self) -> contextlib.AbstractContextManager[None]:
        """The gateway, for the length of the block; it is ready to forward then."""

    def frames_taken(self) -> int:
        """Frames that were read from the LAN's TAP so far."""
        (link,) = json.loads(ip(self.lab, topo.SWITCHES["lan"], f"-json -stats link show {self.lan_wire}"))
        return int(link["stats64"]["tx"]["packets"])


class Tapped(Gateway):
    """One whose threads move the frames: their CPU time is told."""

    @abstractmethod
    def cpu_ns(self) -> int:
        """CPU time that the threads which move frames have used so far."""

    def _cpu_of(self, pid: int, threads: str) -> int:
        return sum(ns for name, ns in thread_cpu_ns(self.lab, pid).values() if name.startswith(threads))


class Ours(Tapped):
    """The pair, as the lab's own configuration has it."""

    name = "ours"

    @contextlib.contextmanager
    def built(self) -> Iterator[None]:
        pair = Pair(self.lab, BUILD)
        pair.start()
        self._active = pair.wait_settled()
        self.lan_wire = default_wire_dev("lan", self._active.name)
        yield
        pair.stop_all()

    def cpu_ns(self) -> int:
        pid = self._active.pid
        if pid is None:
            raise LabError(f"the daemon of node {self._active.name} has ended")
        return self._cpu_of(pid, WORKER_THREADS)


class BareTap(Tapped):
    """Two TAPs and a copy. The hosts are told the addresses: nobody answers ARP here."""

    name = "bare_tap"

    @contextlib.contextmanager
    def built(self) -> Iterator[None]:
        # As favoured by the scheduler as flexhad's workers are, or the comparison would be one of priorities.
        # With offload, as the pair has it.
        argv = ["nice", "-n", str(NICE), str(BUILD / "tapcopy"), "--offload"]
        argv += [self.lan_wire, topo.LAN_VMAC, mac_of(self.lab, "client", "eth0")]
        argv += ["tap-wan", topo.WAN_VMAC, mac_of(self.lab, "isp", "wan0")]
        with printing(self.lab, NODE, argv, "tapcopy") as (process, output):
            wait_until(lambda: "ready" in read(output), SETTLE_S, "tapcopy is ready")
            self._pid = process.pid
            for device, switch in ((self.lan_wire, topo.SWITCHES["lan"]), ("tap-wan", topo.SWITCHES["wan"])):
                ip(self.lab, NODE, f"link set {device} netns {switch}")
                ip(self.lab, switch, f"link set {device} master {topo.BRIDGE} up")
            for host, address, mac, device in (
                ("client", topo.LAN_VIP, topo.LAN_VMAC, "eth0"),
                ("isp", topo.WAN_VIP, topo.WAN_VMAC, "wan0"),
            ):
                ip(self.lab, host, f"neigh replace {address} lladdr {mac} dev {device} nud permanent")
            # No NAT: the answers must find their way back to the clients' own addresses.
            ip(self.lab, "isp", f"route add 198.51.100.0/24 via {topo.WAN_VIP}")
            yield

    def cpu_ns(self) -> int:
        return self._cpu_of(self._pid, "tapcopy")


class Nft(Gateway):
    """The kernel of one host, with the pair's addresses: two veth pairs, one rule."""

    name = "nft"
    RULES = f"""
        table ip nat {{
            chain postrouting {{
                type nat hook postrouting priority srcnat;
                oifname "kwan" snat to {topo.WAN_VIP}
            }}
        }}
    """

    @contextlib.contextmanager
    def built(self) -> Iterator[None]:
        for device, switch, address in (
            ("klan", topo.SWITCHES["lan"], f"{topo.LAN_VIP}/24"),
            ("kwan", topo.SWITCHES["wan"], f"{topo.WAN_VIP}/29"),
        ):
            ip(self.lab, NODE, f"link add {device} type veth peer name gateway netns {switch}")
            ip(self.lab, switch, f"link set gateway master {topo.BRIDGE} up")
            ip(self.lab, NODE, f"address add {address} dev {device}")
            ip(self.lab, NODE, f"link set {device} up")
        ip(self.lab, NODE, f"route add default via {topo.ISP_ADDRESS}")
        self.lab.run(NODE, ["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"])
        self.lab.run(NODE, ["nft", "-f", "-"], input_text=self.RULES)
        yield


class NftSync(Nft):
    """The same, and its connections are told to the other node."""

    name = "nft_sync"
    CONFIG = """
        Sync {{
            Mode FTFW {{ }}
            UDP {{
                IPv4_address {own}
                IPv4_Destination_Address {peer}
                Port 3780
                Interface {device}
                SndSocketBuffer 4194304
                RcvSocketBuffer 4194304
                Checksum on
            }}
        }}
        General {{
            HashSize 32768
            HashLimit 262144
            LockFile {run}/{node}.lock
            UNIX {{ Path {run}/{node}.ctl }}
            NetlinkBufferSize 8388608
            NetlinkBufferSizeMaxGrowth 33554432
            Filter From Kernelspace {{ Protocol Accept {{ TCP UDP ICMP }} }}
        }}
    """
    ADDRESSES = ("169.254.100.1", "169.254.100.2")

    @contextlib.contextmanager
    def built(self) -> Iterator[None]:
        with super().built(), contextlib.ExitStack() as stack:
            own, peer = self.ADDRESSES
            for node, addresses in (("a", (own, peer)), ("b", (peer, own))):
                config = BUILD / f"conntrackd-{node}.conf"
                text = self.CONFIG.format(
                    own=addresses[0], peer=addresses[1], device=topo.XC_DEVICE, run="/run", node=node
                )
                config.write_text(text)
                argv = ["conntrackd", "-C", str(config)]
                stack.enter_context(printing(self.lab, node, argv, f"conntrackd-{node}"))
            wait_until(self._synced, SETTLE_S, "conntrackd tells the other node of a connection")
            yield

    def _synced(self) -> bool:
        await_forwarding(self.lab, self.name)
        answer = self.lab.run("b", ["conntrackd", "-C", str(BUILD / "conntrackd-b.conf"), "-e"], check=False)
        return "src=" in answer.stdout


# ---- small tools ---------------------------------------------------------------------------------------
def ip(lab: Lab, host: str, words: str) -> str:
    return lab.run(host, ["ip", *words.split()]).stdout


def mac_of(lab: Lab, host: str, device: str) -> str:
    (link,) = json.loads(ip(lab, host, f"-json link show {device}"))
    return str(link["address"])


def read(output: IO[str]) -> str:
    output.seek(0)
    return output.read()


@contextlib.contextmanager
def printing(lab: Lab, host: str, argv: list[str], name: str) -> Iterator[tuple[Process, IO[str]]]:
    """A program in the background, and the file that it prints to."""
    with (BUILD / f"{name}.out").open("w+") as output, lab.spawn(host, argv, stdout=output) as process:
        yield process, output


def await_forwarding(lab: Lab, name: str) -> None:
    """The first packets resolve neighbours and teach the switches; they are not measured."""
    ping = ["ping", "-c", "1", "-W", "1", topo.SERVER_ADDRESS]
    wait_until(
        lambda: lab.run("client", ping, check=False).returncode == 0,
        SETTLE_S,
        f"the server answers through {name}",
    )
