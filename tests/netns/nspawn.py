# SPDX-License-Identifier: Apache-2.0
"""A Debian machine for tests: a tree of its packages, booted by systemd-nspawn.

The tree is made once and kept in the user's cache directory; each machine writes to an overlay in memory,
which is gone with it. A machine has a network of its own (``--private-network``) and no way out, so the
Python packages that an installation needs are downloaded on the host and shown to it as a directory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import tomllib
from pathlib import Path
from typing import Self

REPOSITORY = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
PACKAGES = (
    "systemd",
    "dbus",
    "python3",
    "python3-venv",
    "python3-dev",
    "gcc",
    "libc6-dev",
    "libssl-dev",
    "iproute2",
    "iputils-ping",
)
"""What the README tells to install, and the tools that the tests look with."""
PYTHON_VERSION = "3.11"
GLIBC_MINOR = 36
BOOT_S = 90
SOURCE = "/usr/src/flexha"
"""Where the machine finds a copy of this repository."""
WHEELS = "/usr/src/wheels"
NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "__pycache__", "*.so", "*.egg-info", ".hypothesis"
)


def debian_tree() -> Path:
    """The tree, made at the first call on a host (about half a minute)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flexha"
    cache.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(" ".join((SUITE, *PACKAGES)).encode()).hexdigest()[:12]
    tree = cache / f"debian-{SUITE}-{key}"
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second run on this host waits for the first
        if not tree.exists():
            unfinished = tree.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            _bootstrap(unfinished)
            unfinished.rename(tree)
    return tree


def _bootstrap(target: Path) -> None:
    # Nothing of it has to survive a crash (a tree that is not whole is made anew): no fsync for each file.
    argv = ["eatmydata", "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"]
    argv += [f"--include={','.join(PACKAGES)}", SUITE, str(target), *_mirror()]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"mmdebstrap failed:\n{result.stdout[-3000:]}\n{result.stderr[-1000:]}")


def _mirror() -> list[str]:
    """The mirror that this host's apt uses, if it is one of this suite; else mmdebstrap's own default."""
    if shutil.which("apt-get") is None:
        return []
    answer = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return answer.stdout.split()[:1]


def wheels() -> Path:
    """Everything that ``pip install .`` needs, for the tree's Python; downloaded when that changes."""
    pyproject = (REPOSITORY / "pyproject.toml").read_bytes()
    project = tomllib.loads(pyproject.decode())
    wanted = sorted(project["build-system"]["requires"] + project["project"]["dependencies"])
    key = hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:12]
    directory = REPOSITORY / "build" / "nspawn" / f"wheels-{key}"
    if not directory.exists():
        unfinished = directory.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        arch = platform.machine()
        platforms = [f"--platform=manylinux_2_{minor}_{arch}" for minor in range(GLIBC_MINOR, 4, -1)]
        download = [
            "-m",
            "pip",
            "download",
            "--quiet",
            "--only-binary=:all:",
            f"--python-version={PYTHON_VERSION}",
        ]
        download += [*platforms, f"--platform=manylinux2014_{arch}", "--dest", str(unfinished), *wanted]
        subprocess.run([str(REPOSITORY / ".venv/bin/python"), *download], check=True, timeout=600)
        unfinished.rename(directory)
    return directory


class Machine:
    """A booted machine. Use it as a context manager: leaving the block powers it off."""

    def __init__(self, workdir: Path) -> None:
        self._log = workdir / "console.log"
        self._source = workdir / "source"
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify_path = workdir / "notify"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        shutil.copytree(REPOSITORY, self._source, ignore=NOT_COPIED)
        self._notify.bind(str(self._notify_path))
        self._notify.settimeout(BOOT_S)
        argv = [
            # The machine must not outlive a test run that is killed.
            *("setpriv", "--pdeathsig", "TERM"),
            *("systemd-nspawn", "--quiet", "--boot", "--notify-ready=yes", "--console=pipe"),
            # Works on a host whose init is not systemd, too: no machined, no scope.
            *("--register=no", "--keep-unit"),
            f"--directory={debian_tree()}",
            "--volatile=overlay",
            "--private-network",
            f"--bind={self._source}:{SOURCE}",
            f"--bind-ro={wheels()}:{WHEELS}",
            # Beyond nspawn's own choice; what the service gets of it is its unit's business.
            "--capability=CAP_NET_ADMIN,CAP_NET_RAW,CAP_SYS_NICE,CAP_MKNOD",
            f"--machine=flexha-test-{os.getpid()}",
            "systemd.unit=multi-user.target",
        ]
        with self._log.open("wb") as log:
            self._nspawn = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "NOTIFY_SOCKET": str(self._notify_path)},
                start_new_session=True,
            )
        try:
            self._leader = self._await_ready()
        except BaseException:
            self._power_off()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._power_off()

    def _await_ready(self) -> int:
        """Wait for READY=1, which nspawn passes on once the machine's init is through; returns its pid."""
        leader = 0
        while True:
            try:
                words = self._notify.recv(4096).decode().split()
            except TimeoutError:
                raise RuntimeError(f"the machine does not boot:\n{self._log.read_text()[-3000:]}") from None
            for word in words:
                if word.startswith("X_NSPAWN_LEADER_PID="):
                    leader = int(word.partition("=")[2])
            if "READY=1" in words and leader:
                return leader

    def _power_off(self) -> None:
        self._notify.close()
        if self._nspawn is None:
            return
        self._nspawn.send_signal(signal.SIGTERM)  # nspawn asks the machine's init to power off
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()  # the machine dies with it
            self._nspawn.wait()

    # ---- inside ------------------------------------------------------------------------------------
    def run(
        self,
        *argv: str,
        check: bool = True,
        timeout_s: float = 60,
        cwd: str = "/",
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the machine, as root."""
        inside = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME": "/root", **(env or {})}
        enter = [
            "nsenter",
            f"--target={self._leader}",
            "--mount",
            "--uts",
            "--ipc",
            "--net",
            "--pid",
            "--cgroup",
        ]
        result = subprocess.run(
            [*enter, "--", "/usr/bin/env", "-C", cwd, "-i", *(f"{k}={v}" for k, v in inside.items()), *argv],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            start_new_session=True,  # a signal to a process group in the machine is not for this one
        )
        if check and result.returncode != 0:
            output = f"{result.stdout[-4000:]}\n{result.stderr[-4000:]}"
            raise RuntimeError(f"{' '.join(argv)}: exit {result.returncode}\n{output}")
        return result

    def output(self, *argv: str) -> str:
        """What a program prints in the machine, stripped; its exit status does not matter."""
        return self.run(*argv, check=False).stdout.strip()

    def journal(self, unit: str) -> str:
        """The last lines of a unit's journal."""
        return self.output("journalctl", "--no-pager", "-n", "60", "-u", unit)
