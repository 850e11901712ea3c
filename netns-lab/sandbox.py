# SPDX-License-Identifier: Apache-2.0
"""The lab as a Python object: start it, run things in its hosts, reach its files and sockets, end it.

``Lab.start`` makes a lab that dies with its starter (scenarios, tests), unless it is asked to last (use by
hand). The process that does the work is ``supervisor.py``, init of the lab's PID namespace.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeVar

from pyroute2 import NetNS

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD_DIR = REPOSITORY / "build" / "lab"
RUN_DIR = BUILD_DIR / "run"
"""Where the lab that is used by hand has its exec channel."""
KEYS_DIR = "/run/flexha/keys"
"""In the lab: each node's keys, below its name."""
POLL_S = 0.01
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class LabError(Exception):
    """The lab cannot do what was asked; the message says what to do about it."""


def now_ns() -> int:
    """CLOCK_BOOTTIME, ns: the clock of the daemons, the probes and the lab alike."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def wait_until(condition: Callable[[], T | None], timeout_s: float, what: str) -> T:
    """Poll ``condition`` until it is true, and return its value. The only sleep of the lab."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout_s:g} s in vain until {what}")
        time.sleep(POLL_S)


class Process:
    """A process in the lab. It is killed when this object is closed, unless it was spawned detached."""

    def __init__(self, lab: Lab, channel: socket.socket, pid: int, argv: Sequence[str]) -> None:
        self.pid = pid
        """Process id inside the lab's PID namespace."""
        self.argv = list(argv)
        self.returncode: int | None = None
        self._lab = lab
        self._channel = channel

    def poll(self) -> int | None:
        """Exit status, or None while it runs; -N when signal N ended it."""
        return self._receive_exit(0)

    def wait(self, timeout_s: float) -> int:
        """Exit status, at the latest after ``timeout_s``."""
        code = self._receive_exit(timeout_s)
        if code is None:
            raise LabError(f"{self.argv[0]} (pid {self.pid}) still runs after {timeout_s:g} s")
        return code

    def _receive_exit(self, timeout_s: float) -> int | None:
        if self.returncode is None and select.select([self._channel], [], [], timeout_s)[0]:
            message = self._channel.recv(4096)
            if not message:
                raise LabError("the lab is gone")
            self.returncode = int(json.loads(message)["exit"])
        return self.returncode

    def signal(self, number: int) -> int:
        """Send a signal; returns CLOCK_BOOTTIME (ns) just before it was sent."""
        return self._lab.signal(self.pid, number)

    def close(self) -> None:
        """Hang up: the supervisor kills the process if it still runs."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Lab:
    """A running lab, reached by its exec channel and by ``/proc/<its init>/root``."""

    def __init__(self, run_dir: Path, starter: subprocess.Popen[bytes] | None = None) -> None:
        self.run_dir = run_dir
        self._starter = starter
        with self._connect() as channel:
            credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.init_pid: int = struct.unpack("3i", credentials)[0]
        """The supervisor's process id as the machine sees it."""

    # ---- life ------------------------------------------------------------------------------------
    @classmethod
    def start(cls, run_dir: Path, log: Path, *, lasting: bool = False) -> Self:
        """Build a lab. Unless ``lasting``, it ends when this process does, however that comes about."""
        if os.geteuid() != 0:
            raise LabError("the lab needs root, if only of a user namespace: unshare --user --map-root-user")
        log.parent.mkdir(parents=True, exist_ok=True)
        argv = ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--net", "--mount-proc"]
        argv += [sys.executable, str(Path(__file__).with_name("supervisor.py"))]
        argv += ["--socket", str(run_dir.absolute() / "lab.sock")]
        with log.open("wb") as stderr:
            starter = subprocess.Popen(
                argv if lasting else [*argv, "--lifeline"],
                stdin=subprocess.DEVNULL if lasting else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C ends the starter, and through the lifeline the lab
            )
        assert starter.stdout is not None
        with starter.stdout as stdout:
            ready = stdout.readline()
        if ready != b"ready\n":
            starter.kill()
            starter.wait()
            raise LabError(f"the lab did not come up:\n{log.read_text().strip()}")
        lab = cls(run_dir, starter)
        lab.make_keys()
        return lab

    def make_keys(self) -> None:
        """Keys of both nodes, as ``flexhactl pair init`` makes them, in the lab's own /run."""
        from flexha.config import keyfiles
        from flexha.config.schema import NODE_NAMES

        where = {name: self.path(f"{KEYS_DIR}/{name}") for name in NODE_NAMES}
        keyfiles.make_pair("lab", where, datetime.now(UTC))

    @classmethod
    def connect(cls, run_dir: Path = RUN_DIR) -> Self:
        """Reach a lab that runs already."""
        return cls(run_dir)

    def stop(self) -> None:
        """End process 1 of the lab, hence all of it, and wait until it is gone."""
        init = os.pidfd_open(self.init_pid)
        try:
            with contextlib.suppress(LabError, OSError):
                self._ask({"op": "stop"})
            if not select.select([init], [], [], 30)[0]:
                raise LabError(f"process 1 of the lab (pid {self.init_pid}) does not end")
        finally:
            os.close(init)
        if self._starter is not None:
            if self._starter.stdin is not None:
                self._starter.stdin.close()
            self._starter.wait()
        (self.run_dir / "lab.sock").unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # ---- processes -------------------------------------------------------------------------------
    def spawn(
        self,
        ns: str,
        argv: Sequence[str],
        *,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        detach: bool = False,
    ) -> Process:
        """Start a program in host ``ns``. Streams that are not given are ``/dev/null`` (stderr: ours)."""
        request = {
            "op": "spawn",
            "ns": ns,
            "argv": [str(word) for word in argv],
            "env": dict(os.environ if env is None else env),
            "name": name,
            "detach": detach,
        }
        channel = self._connect()
        null = os.open(os.devnull, os.O_RDWR)
        try:
            fds = [_fileno(stdin, null), _fileno(stdout, null), _fileno(stderr, 2)]
            socket.send_fds(channel, [json.dumps(request).encode()], fds)
            answer = json.loads(channel.recv(4096) or b'{"error": "the lab is gone"}')
        finally:
            os.close(null)
        if "error" in answer:
            channel.close()
            raise LabError(f"{argv[0]} in {ns}: {answer['error']}")
        return Process(self, channel, answer["pid"], argv)

    def run(
        self,
        ns: str,
        argv: Sequence[str],
        *,
        input_text: str = "",
        timeout_s: float = 30,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in host ``ns`` to its end, like ``subprocess.run(..., text=True)``."""
        with (
            tempfile.TemporaryFile("w+") as stdin,
            tempfile.TemporaryFile("w+") as stdout,
            tempfile.TemporaryFile("w+") as stderr,
        ):
            stdin.write(input_text)
            stdin.flush()
            stdin.seek(0)
            with self.spawn(ns, argv, stdin=stdin, stdout=stdout, stderr=stderr) as process:
                code = process.wait(timeout_s)
            stdout.seek(0)
            stderr.seek(0)
            result = subprocess.CompletedProcess(list(argv), code, stdout.read(), stderr.read())
        if check and code != 0:
            raise LabError(f"in {ns}: {' '.join(map(str, argv))}: exit {code}: {result.stderr.strip()}")
        return result

    def signal(self, pid: int, number: int) -> int:
        """Signal a process by its pid in the lab; returns CLOCK_BOOTTIME (ns) just before."""
        return int(self._ask({"op": "signal", "pid": pid, "signal": number})["t_ns"])

    def processes(self) -> list[dict[str, Any]]:
        """What was spawned and still runs: ``pid``, ``name``, ``ns``, ``argv``."""
        processes: list[dict[str, Any]] = self._ask({"op": "list"})["processes"]
        return processes

    def unmake_host(self, host: str) -> None:
        """Take a host's namespace away; it is gone once nothing runs in it any more."""
        self._ask({"op": "unmake", "host": host})

    def make_host(self, host: str) -> None:
        """Build it again; links of its own that the lab has put aside are back in it."""
        self._ask({"op": "make", "host": host})

    # ---- the lab's files, sockets and links, from outside ------------------------------------------
    def path(self, inside: str) -> Path:
        """A file of the lab (such as one below its own ``/run``) as this process can open it."""
        return Path(f"/proc/{self.init_pid}/root") / inside.lstrip("/")

    @contextlib.contextmanager
    def inside(self, ns: str) -> Iterator[None]:
        """Within the block this thread's new sockets belong to host ``ns``, and stay there for good."""
        own = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        there = os.open(self.path(f"/run/netns/{ns}"), os.O_RDONLY)
        try:
            _setns(there)
            try:
                yield
            finally:
                _setns(own)
        finally:
            os.close(own)
            os.close(there)

    def open_socket(self, ns: str, family: int, kind: int, proto: int = 0) -> socket.socket:
        """A socket of host ``ns`` in this process."""
        with self.inside(ns):
            return socket.socket(family, kind, proto)

    def links(self, ns: str) -> NetNS:
        """Netlink to host ``ns``; close it after use."""
        return NetNS(str(self.path(f"/run/netns/{ns}")))

    # ---- exec channel ------------------------------------------------------------------------------
    def _connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            directory = os.open(self.run_dir, os.O_PATH)
            try:
                channel.connect(f"/proc/self/fd/{directory}/lab.sock")
            finally:
                os.close(directory)
        except OSError as error:
            channel.close()
            raise LabError("no lab is up: start one by `make lab-up`") from error
        return channel

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._connect() as channel:
            channel.send(json.dumps(request).encode())
            answer: dict[str, Any] = json.loads(channel.recv(1 << 20) or b'{"error": "the lab is gone"}')
        if "error" in answer:
            raise LabError(f"{request['op']}: {answer['error']}")
        return answer


def _fileno(stream: int | IO[Any] | None, default: int) -> int:
    if stream is None:
        return default
    return stream if isinstance(stream, int) else stream.fileno()


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
