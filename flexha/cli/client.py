# SPDX-License-Identifier: Apache-2.0
"""The other end of the control socket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from flexha.errors import FlexhaError, UnreachableError

RUN_DIR = Path("/run/flexha")
TIMEOUT_S = 20.0


class RefusedError(FlexhaError):
    """The daemon answered no."""


def find_socket(path: Path | None, config: Path | None, node: str | None) -> Path:
    """The control socket that the options name; else ``$FLEXHACTL_SOCKET``; else this machine's only one.

    Raises: UnreachableError if that is none or not unique, ConfigError if the file is wrong.
    """
    if path is not None:
        return path
    if config is not None:
        # Only now: the schema takes longer to load than all the rest of this program.
        from flexha.config.load import load
        from flexha.config.naming import control_path
        from flexha.config.schema import NODE_NAMES

        pair = load(config)
        names = [name for name in NODE_NAMES if name in pair.nodes and node in {None, name}]
        candidates = [control_path(pair, name) for name in names]
        remedy = "choose one with --node"
    else:
        if node is None and (named := os.environ.get("FLEXHACTL_SOCKET")):
            return Path(named)
        candidates = sorted(RUN_DIR.glob(f"*-{node}.sock" if node else "*.sock"))
        remedy = "choose one with --socket, or with --config and --node"
    alive = [candidate for candidate in candidates if candidate.is_socket()] or candidates
    if len(alive) == 1:
        return alive[0]
    if not alive:
        raise UnreachableError(
            f"no control socket in {RUN_DIR}; start flexhad, or name its socket with --socket (or --config, "
            "--node)"
        )
    raise UnreachableError(f"several nodes run here: {', '.join(map(str, alive))}; {remedy}")


def request(path: Path, command: str, args: Mapping[str, object]) -> dict[str, Any]:
    """Ask the daemon one thing.

    Raises: UnreachableError if it cannot be asked, RefusedError if it says no.
    """
    with conversation(path, command, args) as (_, _, result):
        return result


@contextmanager
def conversation(
    path: Path, command: str, args: Mapping[str, object]
) -> Iterator[tuple[socket.socket, BinaryIO, dict[str, Any]]]:
    """Ask the daemon one thing; the connection, what is left to read from it, and the answer.

    Raises: as ``request``.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        answers, answer = _ask(connection, path, command, args)
        with answers:
            try:
                reply = json.loads(answer)
            except ValueError as error:
                raise UnreachableError(
                    f"{path}: the daemon hung up without an answer; see its log"
                ) from error
            if not reply.get("ok"):
                raise RefusedError(str(reply.get("error", "the daemon refused without a reason")))
            result = reply.get("result")
            yield connection, answers, result if isinstance(result, dict) else {}


def _ask(
    connection: socket.socket, path: Path, command: str, args: Mapping[str, object]
) -> tuple[BinaryIO, bytes]:
    line = json.dumps({"id": 1, "cmd": command, "args": dict(args)}).encode() + b"\n"
    try:
        connection.settimeout(TIMEOUT_S)
        connection.connect(str(path))
        connection.sendall(line)
        answers = connection.makefile("rb")
        return answers, answers.readline()
    except TimeoutError as error:
        raise UnreachableError(
            f"{path}: no answer within {TIMEOUT_S:g} s; is flexhad stopped or stuck?"
        ) from error
    except PermissionError as error:
        raise UnreachableError(
            f"{path}: permission denied; run as root, or join the socket's group"
        ) from error
    except OSError as error:
        raise UnreachableError(
            f"{path}: {error.strerror}; does flexhad run? (systemctl status 'flexhad@*')"
        ) from error
