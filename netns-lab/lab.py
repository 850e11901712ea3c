# SPDX-License-Identifier: Apache-2.0
"""The lab's commands: ``lab.py up | shell NODE | status | down`` by hand, and the scenarios.

Behind ``make lab-up``, ``lab-shell``, ``lab-status``, ``lab-down`` and ``lab-failover``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import failover
import topo
from pair import Pair
from report import print_status
from sandbox import BUILD_DIR, RUN_DIR, Lab, LabError


def up() -> None:
    """Start a lab with both daemons; return once one is ACTIVE and the other ready to take over."""
    if _running():
        raise LabError("a lab is up already: look at it by `make lab-status`, end it by `make lab-down`")
    lab = Lab.start(RUN_DIR, BUILD_DIR / "supervisor.log", lasting=True)
    try:
        pair = Pair(lab, BUILD_DIR)
        pair.start(detach=True)
        pair.wait_settled()
    except BaseException:
        lab.stop()
        raise
    status()


def shell(host: str, command: Sequence[str]) -> int:
    """A shell (or ``command``) in a host of the lab, on this terminal."""
    names = [h.name for h in topo.HOSTS]
    if host not in names:
        raise LabError(f"no host {host!r}: choose one of {', '.join(names)}")
    lab = Lab.connect()
    argv = ["nsenter", "--target", str(lab.init_pid), "--pid", "--mount", "--net"]
    argv += [f"--wdns={Path.cwd()}"]  # else it starts in /, and relative paths mean nothing
    # Without rc files, because those of root set a prompt of their own.
    argv += ["ip", "netns", "exec", host, *(command or ["/bin/bash", "--norc"])]
    env = {**os.environ, "PS1": f"[lab {host}] \\w# "}
    if host in topo.NODES:
        env["FLEXHACTL_SOCKET"] = f"/run/flexha/lab-{host}.sock"
    env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', os.defpath)}"  # flexhactl
    return subprocess.run(argv, env=env, check=False).returncode


def status() -> None:
    """Print the hosts, and what each daemon says of itself."""
    lab = Lab.connect()
    print_status(lab, Pair(lab, BUILD_DIR).statuses())


def down() -> None:
    """End the lab: a clean stop of the daemons, then of everything."""
    lab = Lab.connect()
    Pair(lab, BUILD_DIR).stop_all()
    lab.stop()
    print("the lab is down")


def _running() -> bool:
    try:
        Lab.connect()
    except LabError:
        return False
    return True


def main() -> int:
    """Command line of ``make lab-up``, ``lab-shell``, ``lab-status`` and ``lab-down``."""
    parser = argparse.ArgumentParser(description="the netns lab, by hand")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="build the lab and start both daemons")
    commands.add_parser("status", help="what runs, and the daemons' roles")
    commands.add_parser("down", help="end the lab")
    enter = commands.add_parser("shell", help="a shell in one of the hosts")
    enter.add_argument("host")
    enter.add_argument("argv", nargs=argparse.REMAINDER, help="run this instead of a shell")
    failing = commands.add_parser("failover", help="the main job: the ACTIVE node dies under traffic")
    failing.add_argument("--runs", type=int, default=1, help="hand-offs in a row (default %(default)s)")
    args = parser.parse_args()
    try:
        if args.command == "shell":
            return shell(args.host, args.argv)
        if args.command == "failover":
            return failover.main(args.runs)
        {"up": up, "status": status, "down": down}[args.command]()
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
