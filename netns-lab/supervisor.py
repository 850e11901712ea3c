# SPDX-License-Identifier: Apache-2.0
"""Init of the lab's PID namespace: builds the topology, starts processes in it, and takes all with it.

``lab.py`` starts it under ``unshare --fork --kill-child --pid --mount --net --mount-proc``. It is process 1
there: when it dies, for whatever reason, the kernel kills every process of the namespace, and with the last
of them go the mount namespace, the names under ``/run/netns`` and all network devices. So nothing is cleaned
up by code, and nothing can be left behind by a crash.

Its exec channel is a ``SOCK_SEQPACKET`` Unix socket; each connection carries one JSON request:

=======  ==========================================================  =====================================
op       fields                                                      answer
=======  ==========================================================  =====================================
spawn    ns, argv, env, name?, detach?; stdin, stdout and stderr     ``{"pid"}``, later ``{"exit"}``; if the
         as SCM_RIGHTS                                               caller hangs up first the process is
                                                                     killed, unless ``detach``
signal   pid, signal                                                 ``{"t_ns"}``: CLOCK_BOOTTIME just before
list     (none)                                                      ``{"processes": [{pid,name,ns,argv}]}``
unmake   host                                                        ``{}``: the host's namespace has no name;
                                                                     it goes with its last process
make     host                                                        ``{}``: it is there again, as built
stop     (none)                                                      none: process 1 ends, and the lab
=======  ==========================================================  =====================================
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import topo

REQUEST_MAX = 1 << 17
INHERITED_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
"""Python ignores these; what we spawn must start with the default disposition."""


@dataclass(slots=True)
class Child:
    """A process that was asked for. ``caller`` is told of its end."""

    pid: int
    name: str | None
    ns: str
    argv: list[str]
    detach: bool
    caller: socket.socket | None


class Supervisor:
    """The event loop of process 1: requests on the exec channel, ends of children, the starter's lifeline."""

    def __init__(self, listener: socket.socket, lifeline: int | None) -> None:
        self._children: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = listener
        self._lifeline = lifeline
        self._wake, wake_writer = socket.socketpair()
        for sock in (self._wake, wake_writer):
            sock.setblocking(False)
        signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._wake_writer = wake_writer

    def serve(self) -> None:
        """Run until told to stop, or until the starter is gone."""
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        if self._lifeline is not None:
            self._selector.register(self._lifeline, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._wake:
                    self._wake.recv(4096)
                    self._reap()
                elif key.fileobj == self._lifeline:
                    return  # end of file: whoever started the lab is gone
                elif isinstance(key.fileobj, socket.socket):
                    self._handle(key.fileobj, key.data)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        self._selector.register(connection, selectors.EVENT_READ, None)

    def _handle(self, connection: socket.socket, child: Child | None) -> None:
        """A first message is a request; anything after a spawn can only be the caller hanging up."""
        try:
            message, fds, _, _ = socket.recv_fds(connection, REQUEST_MAX, 3)
        except ConnectionError:
            message, fds = b"", []
        if child is not None or not message:
            self._hang_up(connection, child)
            return
        try:
            request = json.loads(message)
            answer = self._perform(request, fds, connection)
        except (ValueError, KeyError, TypeError, OSError, subprocess.SubprocessError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        finally:
            for fd in fds:
                os.close(fd)
        self._send(connection, answer)
        if "pid" not in answer:
            self._hang_up(connection, None)

    def _perform(
        self, request: dict[str, object], fds: list[int], caller: socket.socket
    ) -> dict[str, object]:
        match request["op"]:
            case "spawn":
                child = self._spawn(request, fds, caller)
                self._selector.modify(caller, selectors.EVENT_READ, child)
                return {"pid": child.pid}
            case "signal":
                t_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                os.kill(int(str(request["pid"])), int(str(request["signal"])))
                return {"t_ns": t_ns}
            case "list":
                return {
                    "processes": [
                        {"pid": c.pid, "name": c.name, "ns": c.ns, "argv": c.argv}
                        for c in self._children.values()
                    ]
                }
            case "unmake":
                topo.unmake(str(request["host"]))
                return {}
            case "make":
                # In a program of its own: netlink to another namespace starts children, which are not ours.
                argv = [sys.executable, topo.__file__, str(request["host"])]
                subprocess.run(argv, check=True)
                return {}
            case "stop":
                sys.exit(0)
            case op:
                raise ValueError(f"unknown op {op!r}")

    def _spawn(self, request: dict[str, object], fds: list[int], caller: socket.socket) -> Child:
        ns, argv, env = request["ns"], request["argv"], request["env"]
        if (
            not isinstance(ns, str)
            or not isinstance(argv, list)
            or not isinstance(env, dict)
            or len(fds) != 3
        ):
            raise ValueError("spawn takes ns, argv, env and three descriptors")
        # `ip netns exec` replaces itself by the program, so the pid is the program's.
        pid = os.posix_spawnp(
            "ip",
            ["ip", "netns", "exec", ns, *argv],
            env,
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(fds)],
            setsid=True,
            setsigdef=INHERITED_IGNORES,
        )
        name = request.get("name")
        child = Child(
            pid, name if isinstance(name, str) else None, ns, argv, bool(request.get("detach")), caller
        )
        self._children[pid] = child
        return child

    def _hang_up(self, connection: socket.socket, child: Child | None) -> None:
        self._selector.unregister(connection)
        connection.close()
        if child is None:
            return
        child.caller = None
        if not child.detach and child.pid in self._children:
            os.killpg(child.pid, signal.SIGKILL)

    def _reap(self) -> None:
        """Collect every dead process: our children, and orphans that fell to process 1."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None and child.caller is not None:
                self._send(child.caller, {"exit": os.waitstatus_to_exitcode(status)})

    @staticmethod
    def _send(connection: socket.socket, answer: dict[str, object]) -> None:
        try:
            connection.send(json.dumps(answer).encode())
        except OSError:
            return  # the caller is gone; its hang-up is handled when it is read


def listen(path: Path) -> socket.socket:
    """The exec channel; a socket file that nobody answers is a dead lab's and is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    directory = os.open(path.parent, os.O_PATH)
    try:  # by way of the directory's descriptor, since a socket's name is limited to 107 bytes
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)
    path.chmod(0o600)
    listener.listen(64)
    return listener


def main() -> None:
    """Build the lab, say ``ready`` on stdout, serve."""
    parser = argparse.ArgumentParser(description="init of the lab (started by lab.py)")
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--lifeline", action="store_true", help="end when stdin does")
    args = parser.parse_args()
    if os.getpid() != 1:
        sys.exit("the supervisor is init of a PID namespace: start it by lab.py")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "lab", "/run"], check=True)
    Path("/run/netns").mkdir()
    topo.build()
    supervisor = Supervisor(listen(args.socket), sys.stdin.fileno() if args.lifeline else None)
    print("ready", flush=True)
    supervisor.serve()


if __name__ == "__main__":
    main()
