# SPDX-License-Identifier: Apache-2.0
"""``flexhactl``: asks a node, over its control socket only.

Exit codes: 0 done, 1 the daemon says no (or ``ha readiness`` does), 2 bad arguments or configuration, 3 the
daemon cannot be reached.
"""

from __future__ import annotations

import base64
import json
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType

from flexha.cli import client, render
from flexha.errors import ConfigError, FlexhaError
from flexha.version import flexha_version

LIMIT_MAX = 100_000
"""Sessions in one answer."""
NOT_LOSSLESS = 1
"""Exit code of ``ha readiness`` when the answer is no."""

app = typer.Typer(
    name="flexhactl",
    help="Ask a flexha node for its role and health, or tell it to move the role.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ha = typer.Typer(help="High availability: role and decisions.", no_args_is_help=True)
app.add_typer(ha, name="ha")
pair_app = typer.Typer(help="The keys that the two nodes know each other by.", no_args_is_help=True)
app.add_typer(pair_app, name="pair")
routing = typer.Typer(help="Routing on the LAN by eBGP.", no_args_is_help=True)
app.add_typer(routing, name="routing")


@dataclass(slots=True)
class Target:
    """Which daemon, and how to show its answer."""

    socket: Path | None = None
    config: Path | None = None
    node: str | None = None
    json: bool = False

    def ask(self, command: str, **args: object) -> dict[str, Any]:
        """One request; arguments that are None are left out."""
        path = client.find_socket(self.socket, self.config, self.node)
        return client.request(path, command, {key: value for key, value in args.items() if value is not None})

    def show(self, result: dict[str, Any], table: RenderableType) -> None:
        """As JSON on one line, or as a table."""
        if self.json:
            print(json.dumps(result))
        else:
            render.console().print(table)


class Form(StrEnum):
    """Of ``flexhactl routing show-config``."""

    FRR = "frr"
    BIRD = "bird"


Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, for scripts.")]


def _target(context: typer.Context, as_json: bool) -> Target:
    target = context.find_object(Target) or Target()
    target.json = target.json or as_json
    return target


def _version(wanted: bool) -> None:
    if wanted:
        print(f"flexhactl {flexha_version()}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="The pair's configuration; finds the socket.")] = None,
    node: Annotated[str | None, typer.Option(help="Which node: a or b.")] = None,
    socket: Annotated[Path | None, typer.Option(help="The control socket itself.")] = None,
    as_json: Json = False,
    version: Annotated[  # noqa: ARG001 - handled by its callback
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options that come before the command."""
    context.obj = Target(socket, config, node, as_json)


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Role, peer, virtual routers, ports and sync of the node."""
    target = _target(context, as_json)
    result = target.ask("status")
    target.show(result, render.status(result))


@ha.command("status")
def ha_status(context: typer.Context, as_json: Json = False) -> None:
    """The same as `flexhactl status`."""
    status(context, as_json)


@ha.command("history")
def ha_history(
    context: typer.Context,
    limit: Annotated[int | None, typer.Option(min=1, max=1000, help="The newest so many records.")] = None,
    as_json: Json = False,
) -> None:
    """What the node decided, when and why."""
    target = _target(context, as_json)
    result = target.ask("ha_history", limit=limit)
    target.show(result, render.history(result))


@ha.command("readiness")
def ha_readiness(
    context: typer.Context,
    sessions: Annotated[bool, typer.Option("--sessions", help="List the sessions that would die.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, max=LIMIT_MAX, help="List at most so many; 100, or with --json all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Would a failover now be lossless? If not, why, and which sessions die. Exit code 0: yes, 1: no."""
    target = _target(context, as_json)
    wants_list = sessions or limit is not None
    most = limit or (LIMIT_MAX if target.json else None)
    result = target.ask(
        "ha_readiness", sessions=True if wants_list else None, limit=most if wants_list else None
    )
    target.show(result, render.readiness(result))
    if not result.get("lossless"):
        raise typer.Exit(NOT_LOSSLESS)


@app.command()
def sessions(
    context: typer.Context,
    proto: Annotated[str | None, typer.Option(help="tcp, udp, icmp or a number.")] = None,
    inside: Annotated[
        str | None, typer.Option(help="Client: ADDRESS, ADDRESS:PORT, :PORT or a prefix.")
    ] = None,
    remote: Annotated[str | None, typer.Option(help="Server, likewise.")] = None,
    external: Annotated[str | None, typer.Option(help="Address and port after NAT, likewise.")] = None,
    state: Annotated[str | None, typer.Option(help="Such as established, syn_sent or new.")] = None,
    form: Annotated[str | None, typer.Option(help="snat, static (a forward) or none.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, max=LIMIT_MAX, help="At most so many; 100, or with --json all.")
    ] = None,
    cursor: Annotated[int | None, typer.Option(min=0, help="Go on where an answer was truncated.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Only count.")] = False,
    as_json: Json = False,
) -> None:
    """Sessions in the node's tables, live and imported."""
    target = _target(context, as_json)
    result = target.ask(
        "sessions",
        proto=proto,
        inside=inside,
        remote=remote,
        external=external,
        state=state,
        form=form,
        limit=limit or (LIMIT_MAX if target.json else None),
        cursor=cursor,
        count_only=True if count else None,
    )
    target.show(result, str(result.get("count", 0)) if count else render.sessions(result))


@app.command()
def counters(
    context: typer.Context,
    everything: Annotated[bool, typer.Option("--all", help="Zeros too.")] = False,
    as_json: Json = False,
) -> None:
    """Packets by verdict, and every other counter."""
    target = _target(context, as_json)
    result = target.ask("counters")
    target.show(result, render.counters(result, everything=everything))


@app.command()
def workers(context: typer.Context, as_json: Json = False) -> None:
    """The threads that move packets: their CPUs, their load, what they hand to each other."""
    target = _target(context, as_json)
    result = target.ask("workers")
    target.show(result, render.workers(result))


@app.command()
def capture(
    context: typer.Context,
    expression: Annotated[
        list[str] | None, typer.Argument(metavar="[FILTER]", help="As tcpdump's: see pcap-filter(7).")
    ] = None,
    port: Annotated[
        list[str] | None, typer.Option(help="Packets received or sent there; may be repeated. Default: all.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option("-w", "--write", help="To a pcapng file; - for standard output.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-c", "--count", min=1, help="End after so many packets.")
    ] = None,
    duration: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    snaplen: Annotated[
        int | None, typer.Option("-s", "--snaplen", help="Keep so many bytes of a frame.")
    ] = None,
    verdict: Annotated[
        list[str] | None, typer.Option(help="Only packets that ended so; may be repeated.")
    ] = None,
    drops: Annotated[bool, typer.Option("--drops", help="Only packets that were dropped.")] = False,
    as_json: Json = False,
) -> None:
    """Packets as received and as sent, with what became of them; until Ctrl-C."""
    from flexha.cli import capture as capturing
    from flexha.cli.pcap_filter import compile_filter

    target = _target(context, as_json)
    text = " ".join(expression or ())
    args: dict[str, object] = {
        "program": base64.b64encode(compile_filter(text)).decode(),
        "ports": port or None,
        "verdicts": verdict or None,
        "drops": drops or None,
        "snaplen": snaplen,
        "duration_s": duration,
    }
    summary = capturing.run(
        client.find_socket(target.socket, target.config, target.node),
        {key: value for key, value in args.items() if value is not None},
        write=write,
        count=count,
        expression=text,
        as_json=target.json,
    )
    print(
        summary.as_json() if target.json else summary.text(),
        file=sys.stdout if target.json and write != capturing.STDOUT else sys.stderr,
    )


@app.command()
def reload(context: typer.Context, as_json: Json = False) -> None:
    """Read the configuration again: rules, forwards and the policy's default change without a restart."""
    target = _target(context, as_json)
    result = target.ask("reload")
    target.show(result, render.reload(result))


@app.command()
def rules(context: typer.Context, as_json: Json = False) -> None:
    """Rules with what they have decided, and port forwards."""
    target = _target(context, as_json)
    result = target.ask("rules")
    target.show(result, render.rules(result))


@app.command()
def pools(context: typer.Context, as_json: Json = False) -> None:
    """NAT pools: addresses, ports in use, filtering, and which survive a failover."""
    target = _target(context, as_json)
    result = target.ask("pools")
    target.show(result, render.pools(result))


@app.command()
def failover(context: typer.Context, as_json: Json = False) -> None:
    """Hand the role over to the peer."""
    target = _target(context, as_json)
    result = target.ask("failover")
    target.show(result, str(result.get("text", "")))


@pair_app.command("init")
def pair_init(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="The pair's configuration.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory for a/ and b/; by default where each node looks for its keys."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=36500, help="How long the certificates are valid.")] = 3650,
    as_json: Json = False,
) -> None:
    """Make the keys of both nodes, once, on one machine; then carry each node's directory to its box."""
    from flexha.cli import pair_init as making

    target = _target(context, as_json)
    path = config or target.config
    if path is None:
        raise ConfigError("flexhactl pair init", ["--config is missing; name the pair's TOML file"])
    result = making.run(path, out, days)
    target.show(result, str(result["text"]))


@pair_app.command("show")
def pair_show(context: typer.Context, as_json: Json = False) -> None:
    """Certificates and keys of the node: which, until when, and how it speaks with its peer now."""
    target = _target(context, as_json)
    result = target.ask("pair_show")
    target.show(result, render.pair_show(result))


@pair_app.command("rotate")
def pair_rotate(context: typer.Context, as_json: Json = False) -> None:
    """Change this node's key and certificate, and the heartbeats' key, while both nodes run."""
    target = _target(context, as_json)
    result = target.ask("pair_rotate")
    target.show(result, str(result.get("text", "")))


@routing.command("show-config")
def routing_show_config(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(help="The pair's configuration.")] = None,
    node: Annotated[str | None, typer.Option(help="Which node: a or b.")] = None,
    form: Annotated[Form, typer.Option("--format", help="Of which routing daemon.")] = Form.FRR,
    as_json: Json = False,
) -> None:
    """The configuration of a node's routing daemon, made from the pair's; no daemon is asked."""
    from flexha.cli import routing_config

    target = _target(context, as_json)
    path = config or target.config
    if path is None:
        raise ConfigError("flexhactl routing show-config", ["--config is missing; name the pair's TOML file"])
    text = routing_config.made_from(path, node or target.node, form.value)
    print(json.dumps({"config": text}) if target.json else text, end="\n" if target.json else "")


class Mode(StrEnum):
    """Of ``flexhactl maintenance``."""

    ENTER = "enter"
    EXIT = "exit"


@app.command()
def maintenance(context: typer.Context, mode: Mode, as_json: Json = False) -> None:
    """Take the node out of service (its role goes to the peer first), or back in.

    It stays out over restarts of the daemon and of the machine.
    """
    target = _target(context, as_json)
    result = target.ask("maintenance", mode=mode.value)
    target.show(result, str(result.get("text", "")))


def main() -> None:
    """Entry point of ``flexhactl``."""
    try:
        app()
    except FlexhaError as error:
        for line in str(error).splitlines():
            print(f"flexhactl: {line}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
