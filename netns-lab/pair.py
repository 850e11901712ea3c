# SPDX-License-Identifier: Apache-2.0
"""The two daemons of a lab: start, ask, stop and kill them.

They are asked on their control sockets: the same answers that ``flexhactl --json`` prints, without starting a
Python program beside the traffic that is being measured. ``Node.ctl`` is ``flexhactl`` itself.
"""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import topo
from sandbox import Lab, LabError, Process, wait_until

CONFIG = Path(__file__).with_name("pair.toml")
"""The pair by driver tap; with driver packet, ``configuration_text`` makes another of it."""
CONTROL_TIMEOUT_S = 20.0
SETTLE_TIMEOUT_S = 30.0
SESSIONS_MAX = 100_000


def configuration_text() -> str:
    """The pair's file for the lab's driver and topology."""
    text = CONFIG.read_text()
    if topo.topology() == "bridges":
        return _with_bridges(text)
    if topo.driver() == "tap":
        return text
    lines, node, port = [], "", ""
    for line in text.splitlines():
        if section := re.fullmatch(r"\[(?:nodes\.(\w+)\.)?ports\.(\w+)\]", line):
            node, port = section[1] or "", section[2]
            lines.append(line)
            lines += [] if node else ['driver = "packet"']
        elif line.startswith("netns ="):
            lines.append(f'netns = "{topo.wire_namespace(node, port)}"')
        elif line.startswith("bridge ="):
            lines.append(f'device = "{topo.WIRE_DEVICE}"')
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _with_bridges(text: str) -> str:
    """The wire TAPs stay in the nodes' own namespaces, in a bridge with a NIC each."""
    lines, port = [], ""
    for line in text.splitlines():
        if section := re.fullmatch(r"\[nodes\.\w+\.ports\.(\w+)\]", line):
            port = section[1]
        if line.startswith("bridge ="):
            lines += [f'bridge = "{topo.node_bridge(port)}"', f'uplink = "{topo.nic(port)}"']
        elif not line.startswith("netns ="):
            lines.append(line)
    return "\n".join(lines) + "\n"


def configuration(directory: Path) -> Path:
    """A file with ``configuration_text()``; one that is not ours is written into ``directory``."""
    if topo.driver() == "tap" and topo.topology() == "plain":
        return CONFIG
    directory.mkdir(parents=True, exist_ok=True)
    written = directory / f"pair-{topo.driver()}-{topo.topology()}.toml"
    written.write_text(configuration_text())
    return written


def with_keys(text: str, keys: Mapping[str, str]) -> str:
    """A pair's file with more lines in its sections: section -> lines."""
    for section, lines in keys.items():
        head = f"[{section}]\n"
        before_nodes = text.index("[nodes.a]\n")
        if head in text:
            text = text.replace(head, f"{head}{lines}\n")
        else:
            text = f"{text[:before_nodes]}{head}{lines}\n\n{text[before_nodes:]}"
    return text


class Node:
    """One node of the pair: its daemon and its links."""

    def __init__(self, lab: Lab, name: str, log_dir: Path, config: Path = CONFIG) -> None:
        self.lab = lab
        self.name = name
        self.config = config
        self.log = log_dir / f"{name}.log"
        self.process: Process | None = None
        self.program: tuple[str, ...] = ("-m", "flexha")
        """What Python runs, and options beside those that every daemon gets."""
        text = tomllib.loads(config.read_text())
        default = f"/run/flexha/{text['pair']['name']}-{name}.sock"
        self._control = text["nodes"][name].get("control", default)

    @property
    def service(self) -> str:
        """The daemon's name in the lab's list of processes."""
        return f"flexhad-{self.name}"

    def start(self, *, detach: bool = False) -> None:
        """Start the daemon with its links up; its log is appended to."""
        for device in topo.cables():
            self._set_link(device, up=True)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, *self.program, "--config", str(self.config), "--node", self.name]
        with self.log.open("ab") as log:
            self.process = self.lab.spawn(
                self.name, argv, stdout=log, stderr=log, name=self.service, detach=detach
            )

    @property
    def pid(self) -> int | None:
        """The daemon's pid in the lab, whoever started it."""
        for process in self.lab.processes():
            if process["name"] == self.service:
                return int(process["pid"])
        return None

    def request(self, command: str, **args: object) -> Any:
        """One request on the control socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
            control.settimeout(CONTROL_TIMEOUT_S)
            control.connect(str(self.lab.path(self._control)))
            control.sendall(json.dumps({"id": 1, "cmd": command, "args": args}).encode() + b"\n")
            with control.makefile("rb") as answers:
                line = answers.readline()
        if not line:
            raise ConnectionError("the daemon hung up")
        answer = json.loads(line)
        if not answer["ok"]:
            raise LabError(f"node {self.name}: {command}: {answer['error']}")
        return answer["result"]

    def status(self) -> dict[str, Any] | None:
        """What the daemon says of itself; None while it does not answer."""
        try:
            status: dict[str, Any] = self.request("status")
        except (OSError, ValueError):
            return None
        return status

    def role(self) -> str | None:
        """Role in capitals; None while the daemon does not answer."""
        status = self.status()
        return None if status is None else str(status["role"]).upper()

    def ctl(self, *words: str) -> Any:
        """``flexhactl WORDS --json`` as a person types it in a shell of this node, decoded."""
        argv = [str(Path(sys.executable).with_name("flexhactl"))]
        argv += ["--config", str(self.config), "--node", self.name]
        return json.loads(self.lab.run(self.name, [*argv, *words, "--json"]).stdout)

    def sessions(self, **filters: str) -> list[dict[str, Any]]:
        """Sessions of the table; ``filters`` as ``flexhactl sessions`` has them."""
        answer = self.request("sessions", **{"limit": SESSIONS_MAX, **filters})
        sessions: list[dict[str, Any]] = answer["sessions"]
        return sessions

    def history(self) -> list[dict[str, Any]]:
        """Decisions with their inputs, oldest first; ``t_ms`` is CLOCK_BOOTTIME."""
        events: list[dict[str, Any]] = self.request("ha_history")["events"]
        return events

    def counter(self, name: str) -> int:
        """A verdict's or a control-plane counter's value; 0 if it has never counted."""
        counters = self.request("counters")
        verdict = counters["verdicts"].get(name)
        return int(verdict["value"]) if verdict is not None else int(counters["control"].get(name, 0))

    def set_xc(self, *, up: bool) -> None:
        """Set this node's end of the cross-connect up or down."""
        self._set_link(topo.XC_DEVICE, up=up)

    def _set_link(self, device: str, *, up: bool) -> None:
        with self.lab.links(self.name) as links:
            (index,) = links.link_lookup(ifname=device)
            links.link("set", index=index, state="up" if up else "down")

    def die(self) -> int:
        """The node dies whole; returns CLOCK_BOOTTIME (ns) just before.

        SIGKILL takes the daemon and with it the TAPs, which are the node's LAN and WAN links; the
        cross-connect is a veth, so it is set down by hand. So are LAN and WAN with driver packet, and the
        NICs in topology bridges.
        """
        pid = self.living()
        with contextlib.ExitStack() as stack:
            opened = []
            for host, device in self.ends_set_down():
                links = stack.enter_context(self.lab.links(host))
                opened.append((links, links.link_lookup(ifname=device)[0]))
            t_ns = self.lab.signal(pid, signal.SIGKILL)
            for links, index in opened:
                links.link("set", index=index, state="down")
        self.wait_gone()
        return t_ns

    def kill(self) -> int:
        """SIGKILL of the daemon and of nothing else; returns CLOCK_BOOTTIME (ns) just before."""
        t_ns = self.lab.signal(self.living(), signal.SIGKILL)
        self.wait_gone()
        return t_ns

    def living(self) -> int:
        """The daemon's pid; it must run."""
        pid = self.pid
        if pid is None:
            raise LabError(f"node {self.name} is dead already")
        return pid

    def ends_set_down(self) -> tuple[tuple[str, str], ...]:
        """Host and device of each link that outlives the daemon, and goes down by hand when the node dies."""
        ends = [(self.name, device) for device in topo.cables()]
        if topo.driver() == "packet":
            ends += [end for end, _ in topo.wires_of_nodes() if end[0].startswith(f"{self.name}-")]
        return tuple(ends)

    def wait_gone(self) -> None:
        """Wait until the kernel has taken a killed daemon down."""
        wait_until(lambda: self.pid is None, 10, f"the killed daemon of node {self.name} is gone")

    def stop(self, timeout_s: float = 20, number: signal.Signals = signal.SIGTERM) -> int:
        """Clean stop by a signal; returns the exit status (0 if another lab command started it)."""
        pid = self.pid
        if pid is None:
            return 0
        self.lab.signal(pid, number)
        if self.process is not None and self.process.pid == pid:
            return self.process.wait(timeout_s)
        wait_until(lambda: self.pid is None, timeout_s, f"node {self.name} stops")
        return 0


class Pair:
    """Both nodes; or node a alone, if the configuration has no other."""

    def __init__(self, lab: Lab, log_dir: Path, config: Path | None = None) -> None:
        config = config or configuration(log_dir)
        names = tomllib.loads(config.read_text())["nodes"]
        self.nodes = {name: Node(lab, name, log_dir, config) for name in topo.NODES if name in names}

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def peer(self, node: Node) -> Node:
        """The other one."""
        return next(other for other in self.nodes.values() if other is not node)

    def start(self, *, detach: bool = False) -> None:
        """Start both daemons with empty logs."""
        for node in self.nodes.values():
            node.log.unlink(missing_ok=True)
            node.start(detach=detach)

    def statuses(self) -> dict[str, dict[str, Any] | None]:
        """Each node's status, or None where no daemon answers."""
        return {name: node.status() for name, node in self.nodes.items()}

    def active(self) -> Node:
        """The ACTIVE node (there must be exactly one)."""
        (node,) = (node for node in self.nodes.values() if node.role() == "ACTIVE")
        return node

    def settled(self) -> bool:
        """One node is ACTIVE, the other PASSIVE, ready, and caught up: it may take over at no loss."""
        statuses = [status for status in self.statuses().values() if status is not None]
        roles = {str(status["role"]).upper(): status for status in statuses}
        if len(statuses) != len(self.nodes) or set(roles) != {"ACTIVE", "PASSIVE"}:
            return False
        return bool(roles["PASSIVE"]["ready"]) and roles["ACTIVE"]["sync"]["pending"] == 0

    def holds(self, source: str) -> bool:
        """Each node has a session of this inside ADDRESS:PORT: from now on it outlives either of them.

        ``settled`` says nothing of a session whose first packet has yet to come.
        """
        return all(node.sessions(inside=source) for node in self.nodes.values())

    def wait_settled(self, timeout_s: float = SETTLE_TIMEOUT_S) -> Node:
        """Wait until ``settled``; returns the ACTIVE node. A daemon that ends meanwhile ends the wait."""

        def settled() -> bool:
            for node in self.nodes.values():
                if node.process is not None and node.process.poll() is not None:
                    tail = "\n".join(node.log.read_text().splitlines()[-15:])
                    raise LabError(
                        f"flexhad of node {node.name} ended; the last lines of {node.log}:\n{tail}"
                    )
            return self.settled()

        wait_until(settled, timeout_s, "one node is ACTIVE and the other PASSIVE and ready")
        return self.active()

    def stop_all(self) -> None:
        """Stop PASSIVE first, then ACTIVE, so that nobody takes over in between."""
        for node in sorted(self.nodes.values(), key=lambda node: node.role() == "ACTIVE"):
            node.stop()


def boottime_of(wall_s: float) -> int:
    """CLOCK_BOOTTIME (ns) of a moment of CLOCK_REALTIME, for programs that log wall time."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) - int((time.time() - wall_s) * 1e9)
