# SPDX-License-Identifier: Apache-2.0
"""A LAN that is routed: a router between the clients and the switch, and FRR on it and on both nodes.

The clients keep their addresses; their gateway is the router now, and the pair is on a subnet of its own::

    client 198.51.100.10 .. .20 -- .1 router 198.18.0.254 -- lansw -- a 198.18.0.2, b 198.18.0.3

The router knows no way to the Internet but what the nodes announce to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import topo
from sandbox import Lab, LabError, Process, wait_until

FRR_DIR = Path("/usr/lib/frr")
ROUTER = "router"
ROUTER_ADDRESS = "198.18.0.254"
NODE_ADDRESSES = {"a": "198.18.0.2", "b": "198.18.0.3"}
CLIENTS = "198.51.100.0/24"
PAIR_AS, ROUTER_AS = 65001, 65000
SERVERS = "192.0.2.0/24"
DEFAULT = "0.0.0.0/0"

BGP = f"""\
[bgp]
local_as = {PAIR_AS}
router_as = {ROUTER_AS}
neighbours = ["{ROUTER_ADDRESS}"]
metric = "{{metric}}"
[bgp.bfd]
interval_ms = 100
multiplier = 3

"""

ROUTER_CONF = f"""\
frr defaults traditional
hostname {ROUTER}
bfd
 profile fast
  detect-multiplier 3
  receive-interval 100
  transmit-interval 100
 exit
exit
router bgp {ROUTER_AS}
 bgp router-id {ROUTER_ADDRESS}
 no bgp ebgp-requires-policy
 no bgp network import-check
 coalesce-time 0
{{neighbours}} address-family ipv4 unicast
  network {CLIENTS}
  network {SERVERS}
 exit-address-family
exit
"""
"""It also announces what it should not: the servers' subnet."""
NEIGHBOUR = """\
 neighbor {address} remote-as {asn}
 neighbor {address} timers 3 9
 neighbor {address} timers connect 1
 neighbor {address} bfd
 neighbor {address} bfd profile fast
"""


def usable() -> bool:
    """Whether FRR is here, and may run: its daemons need root of the machine."""
    return (FRR_DIR / "bgpd").exists() and Path("/proc/self/uid_map").read_text().split()[1] == "0"


def routed(text: str, *, metric: str = "med") -> str:
    """The pair's file for such a LAN."""
    text = text.replace(CLIENTS, "198.18.0.0/24").replace("198.51.100.", "198.18.0.")
    text = text.replace("vrid = 51\n", f'vrid = 51\nnetworks = ["{CLIENTS}"]\n')
    text = text.replace("[nodes.a]\n", BGP.format(metric=metric) + "[nodes.a]\n")
    return text + "".join(f'\n[nodes.{node}.bgp]\nvty_dir = "/run/frr-{node}"\n' for node in topo.NODES)


@dataclass(slots=True)
class Frr:
    """zebra, bgpd and bfdd of one host, with one file, as on a box."""

    lab: Lab
    host: str
    text: str
    log: Path
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def directory(self) -> str:
        """Of its sockets, in the lab's own /run."""
        return f"/run/frr-{self.host}"

    def start(self) -> None:
        """All daemons, each of which has read its share of the file."""
        self.lab.run(self.host, ["install", "-d", "-o", "frr", "-g", "frr", self.directory])
        self.lab.path(f"{self.directory}/frr.conf").write_text(self.text)
        self.lab.path(f"{self.directory}/empty.conf").touch()
        self._spawn("zebra", "zserv.api")
        for daemon in ("bfdd", "bgpd"):
            self._spawn(daemon, f"{daemon}.vty")
        self.vtysh("-f", f"{self.directory}/frr.conf")

    def _spawn(self, daemon: str, socket: str) -> None:
        where = self.directory
        self.lab.path(f"{where}/{socket}").unlink(missing_ok=True)
        argv = [str(FRR_DIR / daemon), "-f", f"{where}/empty.conf", "-i", f"{where}/{daemon}.pid"]
        argv += ["-z", f"{where}/zserv.api", "--vty_socket", where, "-P", "0", "--log", "stdout"]
        argv += ["--bfdctl", f"{where}/bfdd.sock"] if daemon == "bfdd" else []
        with self.log.open("ab") as log:
            self.processes[daemon] = self.lab.spawn(self.host, argv, stdout=log, stderr=log, name=daemon)
        wait_until(
            lambda: self.lab.path(f"{where}/{socket}").exists(), 20, f"{daemon} of {self.host} is there"
        )

    def restart(self, daemon: str) -> None:
        """Kill one of the daemons; another one reads the file, as it was written."""
        self.processes[daemon].signal(9)
        self.processes[daemon].wait(10)
        self.processes[daemon].close()
        self._spawn(daemon, f"{daemon}.vty")
        self.vtysh("-f", f"{self.directory}/frr.conf")

    def vtysh(self, *words: str) -> str:
        """What vtysh prints."""
        argv = ["vtysh", "--vty_socket", self.directory, "--config_dir", self.directory, *words]
        return self.lab.run(self.host, argv).stdout

    def show(self, command: str) -> Any:
        """A command's JSON, decoded; {} while there is none."""
        try:
            return json.loads(self.vtysh("-c", f"show {command} json"))
        except (LabError, ValueError):
            return {}

    def best(self, prefix: str = DEFAULT) -> str | None:
        """The next hop of the best path."""
        for path in self.show(f"bgp ipv4 unicast {prefix}").get("paths", []):
            if path.get("bestpath", {}).get("overall"):
                return str(path["nexthops"][0]["ip"])
        return None

    def established(self, neighbour: str) -> bool:
        """Whether the session with this neighbour stands, and its BFD session too."""
        peers = self.show("bgp ipv4 unicast summary").get("peers", {})
        if peers.get(neighbour, {}).get("state") != "Established":
            return False
        return any(
            session.get("peer") == neighbour and session.get("status") == "up"
            for session in self.show("bfd peers")
        )


@dataclass(slots=True)
class RoutedLan:
    """The router, and FRR on all three hosts."""

    router: Frr
    nodes: dict[str, Frr]

    @classmethod
    def build(cls, lab: Lab, config: Path, directory: Path) -> RoutedLan:
        """Put the router in, and start FRR: before the nodes' daemons, whose devices it waits for."""
        from flexha.cli.routing_config import made_from

        if not usable():
            raise LabError("a routed LAN needs FRR (apt install frr), and root of the machine")
        _put_in(lab)
        neighbours = "".join(NEIGHBOUR.format(address=ip, asn=PAIR_AS) for ip in NODE_ADDRESSES.values())
        texts = {ROUTER: ROUTER_CONF.format(neighbours=neighbours)}
        texts |= {node: made_from(config, node, "frr") for node in topo.NODES}
        all_of = {host: Frr(lab, host, text, directory / f"frr-{host}.log") for host, text in texts.items()}
        for frr in all_of.values():
            frr.log.unlink(missing_ok=True)
            frr.start()
        return cls(all_of.pop(ROUTER), all_of)

    def prefers(self, node: str) -> bool:
        """Both sessions stand, the router sends to this node, and both nodes know where the clients are."""
        if self.router.best() != NODE_ADDRESSES[node]:
            return False
        if not all(self.router.established(address) for address in NODE_ADDRESSES.values()):
            return False
        return all(frr.best(CLIENTS) == ROUTER_ADDRESS for frr in self.nodes.values())

    def wait_preferred(self, node: str, timeout_s: float = 30) -> None:
        """Wait until ``prefers``."""
        wait_until(lambda: self.prefers(node), timeout_s, f"the router sends to node {node}")


def _put_in(lab: Lab) -> None:
    """The router is between the clients and the switch."""
    commands = (
        ("lansw", "link set client netns router"),
        ("lansw", "link add router type veth peer name eth0 netns router"),
        ("lansw", f"link set router master {topo.BRIDGE} up"),
        (ROUTER, f"address add {topo.LAN_VIP}/24 dev client"),
        (ROUTER, "link set client up"),
        (ROUTER, f"address add {ROUTER_ADDRESS}/24 dev eth0"),
        (ROUTER, "link set eth0 up"),
    )
    for host, words in commands:
        lab.run(host, ["ip", *words.split()])
