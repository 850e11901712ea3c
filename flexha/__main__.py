# SPDX-License-Identifier: Apache-2.0
"""``flexhad``: arguments → configuration → daemon.

Exit codes: 0 stopped on request, 1 cannot run, 2 bad configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from flexha.config.describe import render
from flexha.config.load import findings, load
from flexha.config.naming import control_path, keys_path, state_path
from flexha.config.schema import NODE_NAMES, Config, NodeName
from flexha.config.values import INTERFACE
from flexha.errors import EXIT_CONFIG, EXIT_OK, EXIT_RUNTIME, ConfigError, FlexhaError
from flexha.version import flexha_version


def parser() -> argparse.ArgumentParser:
    """The command line."""
    argv = argparse.ArgumentParser(
        prog="flexhad",
        description="One node of a flexha pair: a userspace NAT gateway that fails over with its sessions.",
        epilog="See flexha(8) and flexha.toml(5).",
    )
    argv.add_argument("--config", type=Path, metavar="FILE", help="the pair's configuration (TOML)")
    argv.add_argument("--node", choices=NODE_NAMES, help="which node of the pair this is")
    argv.add_argument(
        "--check", action="store_true", help="check the configuration, show a summary, and exit"
    )
    argv.add_argument(
        "--print-schema", action="store_true", help="show every key with default and range, and exit"
    )
    argv.add_argument("--ready-fd", type=int, metavar="N", help="write a line to this descriptor once ready")
    argv.add_argument(
        "--tls-keylog",
        type=Path,
        metavar="FILE",
        help="write the secrets of each sync connection there, to read a capture of it (for labs)",
    )
    argv.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    argv.add_argument("--log-format", choices=["text", "json"], default="text")
    argv.add_argument("--version", action="version", version=f"flexhad {flexha_version()}")
    return argv


def summary(config: Config) -> str:
    """What ``--check`` shows. The secret is not part of it."""
    lines = [f"pair {config.pair.name}: the configuration is valid"]
    lines += [
        f"  port {name}: {port.zone}, {port.prefix}, vip {', '.join(map(str, port.vips))}, vrid {port.vrid}"
        for name, port in sorted(config.ports.items())
    ]
    lines += [
        f"  pool {pool.name}: {pool.address} on {pool.port}, {pool.filtering}"
        + (", its sessions do not survive a failover" if pool.address == INTERFACE else "")
        for pool in config.pools
    ]
    lines.append(
        f"  policy: {len(config.rules)} rules, {len(config.forwards)} forwards, default "
        f"{config.policy.default}"
    )
    lines += [f"  route {route.prefix} via {route.via} on {route.port}" for route in config.routes]
    for name in NODE_NAMES:
        if node := config.nodes.get(name):
            lines.append(f"  node {name}: priority {node.priority}, control {control_path(config, name)}")
            lines += [f"    {port} {own.address}" for port, own in sorted(node.ports.items())]
            lines += [f"    xc {node.xc.device} {node.xc.address}"] if node.xc else []
            lines.append(f"    state {state_path(config, name)}")
            lines += [f"    keys {keys_path(config, name)}"] if len(config.nodes) > 1 else []
    if len(config.nodes) == 1:
        lines.append("  one node only: nothing takes over when it dies")
    lines.append(
        f"  heartbeat every {config.ha.interval_ms} ms, dead after {config.ha.dead_after}; adverts every "
        f"{config.vrrp.adver_int_cs * 10} ms"
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``flexhad``."""
    args = parser().parse_args(argv)
    if args.print_schema:
        print(render(), end="")
        return EXIT_OK
    if args.config is None:
        parser().error("--config is missing; name the pair's TOML file")
    try:
        config = load(args.config)
        if args.node is not None and args.node not in config.nodes:
            problem = f"nodes.{args.node}: is missing; add the table, or name another node"
            raise ConfigError(str(args.config), [problem])  # noqa: TRY301 - reported like the others
    except ConfigError as error:
        print(*findings(error), sep="\n", file=sys.stderr)
        return EXIT_CONFIG
    if args.check:
        print(summary(config))
        return EXIT_OK
    if args.node is None:
        parser().error("--node is missing; say which node this is: " + " or ".join(config.nodes))
    return serve(config, args.node, args)


def serve(config: Config, name: NodeName, args: argparse.Namespace) -> int:
    """Run the daemon in the foreground."""
    # Imported late: checking a configuration needs no fast path.
    import uvloop

    try:
        from flexha.shell.daemon import Daemon
        from flexha.shell.log import LogThread
    except ImportError as error:
        print(f"flexhad: {error}", file=sys.stderr)
        return EXIT_RUNTIME

    if args.ready_fd is not None:
        os.set_inheritable(args.ready_fd, False)
    log = LogThread(name, args.log_level, args.log_format)
    log.start()
    try:
        return uvloop.run(Daemon(config, name, args.ready_fd, args.config, args.tls_keylog).run())
    except FlexhaError as error:
        log.stop()
        for line in str(error).splitlines():
            print(f"flexhad: {line}", file=sys.stderr)
        return error.exit_code
    finally:
        log.stop()


if __name__ == "__main__":
    sys.exit(main())
