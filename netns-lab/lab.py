# SPDX-License-Identifier: Apache-2.0
"""The lab's commands: ``lab.py up | shell NODE | status | down`` by hand, and the scenarios.

Behind ``make lab-up``, ``lab-shell``, ``lab-status``, ``lab-down``, ``lab-failover``, ``lab-embryonic``,
``lab-scenarios`` and ``lab-soak``.

An ordinary user's lab is in a user namespace, in which that user is root: each command goes there first.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import embryonic
import failover
import kills
import scenarios
import topo
from pair import Pair
from relay import PLACES
from report import print_status
from sandbox import BUILD_DIR, RUN_DIR, Lab, LabError

SCENARIOS = ("failover", "embryonic", "scenarios")


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


def become_root(command: str) -> None:
    """Go to a user namespace where we are root: a new one, or that of the lab that is up."""
    if os.geteuid() == 0:
        return
    if command in {"up", *SCENARIOS}:
        enter = ["unshare", "--user", "--map-root-user", "--"]
        if subprocess.run([*enter, "true"], capture_output=True, check=False).returncode != 0:
            raise LabError(
                "this machine lets no ordinary user make a user namespace (sysctl user.max_user_namespaces, "
                "kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns): use sudo"
            )
    else:
        enter = ["nsenter", f"--user=/proc/{Lab.connect().init_pid}/ns/user", "--preserve-credentials"]
        enter += ["--"]
    os.execvp(enter[0], [*enter, sys.executable, *sys.argv])


def _running() -> bool:
    try:
        Lab.connect()
    except LabError:
        return False
    return True


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _say_driver() -> None:
    """Where it is not what one would expect."""
    if topo.driver() == "packet":
        closed = "" if topo.tun_usable() else f": {topo.TUN} is closed to us"
        print(f"lab: the nodes use driver packet{closed}", file=sys.stderr)


def main() -> int:
    """Command line of the ``make lab-...`` targets."""
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
    failing.add_argument("--flows", type=int, default=1000, help="TCP connections (default %(default)s)")
    stepping = commands.add_parser("embryonic", help="the ACTIVE node dies at each packet of new connections")
    stepping.add_argument("--runs", type=int, default=1, help="how often each kill (default %(default)s)")
    stepping.add_argument("--modes", default=",".join(kills.MODES), help="of output commit: %(default)s")
    stepping.add_argument(
        "--boundaries",
        default="",
        help=f"only these: any of {', '.join((*PLACES, *kills.WHENS, *kills.STAGES))}, or WHEN-STAGE",
    )
    stepping.add_argument("--no-storms", action="store_true", help="only the stepped kills")
    playing = commands.add_parser("scenarios", help="every failure, and the bar that each is held against")
    playing.add_argument("--only", default="", help="names, or first parts of names; default all")
    playing.add_argument("--runs", type=int, help="how often each; default what each needs")
    playing.add_argument("--short", action="store_true", help="as continuous integration plays them")
    args = parser.parse_args()
    try:
        become_root(args.command)
        if args.command in {"up", *SCENARIOS}:
            _say_driver()
        if args.command == "shell":
            return shell(args.host, args.argv)
        if args.command == "failover":
            return failover.main(args.runs, args.flows)
        if args.command == "embryonic":
            modes, boundaries = _words(args.modes), _words(args.boundaries)
            return embryonic.main(modes, boundaries, args.runs, storms=not args.no_storms)
        if args.command == "scenarios":
            return scenarios.main(_words(args.only), args.runs, short=args.short)
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
