# SPDX-License-Identifier: Apache-2.0
"""Workers of real daemons: many of them, pinned ones, idle ones. Spec: R24, DESIGN §2."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pair import Node, Pair, configuration_text
from sandbox import Lab, wait_until
from traffic import TcpFlows

FLOWS = 500
IDLE_S = 5.0
IDLE_SHARE_MAX = 0.03
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(node: Node) -> float:
    """CPU time of a daemon, all of its threads."""
    fields = node.lab.path(f"/proc/{node.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def test_an_idle_pair_leaves_the_machine_alone(pair: Pair) -> None:
    """Under 3 % of a core, either node: heartbeats, adverts, and a lease that is renewed twice in 15 ms."""
    before = {name: cpu_s(node) for name, node in pair.nodes.items()}
    time.sleep(IDLE_S)  # the span that is measured, not a wait for something
    share = {name: (cpu_s(node) - before[name]) / IDLE_S for name, node in pair.nodes.items()}
    assert all(used < IDLE_SHARE_MAX for used in share.values()), share


@contextlib.contextmanager
def pair_of(directory: Path, changes: dict[str, str]) -> Iterator[Pair]:
    """A pair in a lab of its own; ``changes``: table -> lines for it."""
    text = configuration_text()
    for table, lines in changes.items():
        head = f"[{table}]\n"
        text = text.replace(head, head + lines) if head in text else f"{text}\n{head}{lines}"
    config = directory / "pair.toml"
    config.write_text(text)
    with Lab.start(directory / "run", directory / "supervisor.log") as lab:
        pair = Pair(lab, directory, config)
        pair.start()
        pair.wait_settled()
        yield pair
        pair.stop_all()


@pytest.mark.parametrize("workers", [(16, 3), (1, 3)], ids=["16 beside 3", "1 beside 3"])
def test_numbers_of_workers_may_differ(lab: Lab, tmp_path: Path, workers: tuple[int, int]) -> None:
    """The TAPs' queues steer by their own hash: most frames reach a worker that does not own their session.

    After a failover the shards lie on other workers, and other in number.
    """
    del lab  # has compiled the traffic programs
    with pair_of(
        tmp_path, {"nodes.a": f"workers = {workers[0]}\n", "nodes.b": f"workers = {workers[1]}\n"}
    ) as pair:
        assert pair.active().name == "a"
        with contextlib.closing(TcpFlows(pair["a"].lab, 401, flows=FLOWS)) as tcp:
            tcp.wait_open()
            rounds = int(tcp.progress()["rounds"]) + 4
            wait_until(lambda: int(tcp.progress()["rounds"]) >= rounds, 20, "four more rounds")
            shown = pair["a"].request("workers")["workers"]
            assert len(shown) == workers[0]
            if workers[0] > 1:
                assert sum(worker["flows_created"] > 0 for worker in shown) > 12, "sessions are spread out"
                assert sum(worker["handed_on"] for worker in shown) > FLOWS
                assert sum(worker["taken_over"] for worker in shown) > FLOWS
            assert pair["a"].counter("handoff_full") == 0
            wait_until(pair.settled, 20, "the PASSIVE node has caught up")
            pair["a"].die()
            tcp.mark()
            wait_until(tcp.recovered, 30, "each connection has a new request answered")
            result = tcp.finish()
        assert result.survived == result.opened == FLOWS
        assert (result.reset, result.stalled, result.corrupt, result.foreign) == (0, 0, 0, 0)
        shown = pair["b"].request("workers")["workers"]
        assert len(shown) == workers[1]
        assert sum(worker["flows_imported"] for worker in shown) >= FLOWS


def test_workers_stay_on_their_cpus(tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))[:2]
    lines = f"workers = {len(cpus)}\ncpus = {cpus}\n"
    with pair_of(tmp_path, {"nodes.a": lines, "fastpath": "poll_us = 0\n"}) as pair:
        node = pair["a"]
        allowed = {}
        for task in node.lab.path(f"/proc/{node.pid}/task").iterdir():
            status = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
            if status["Name"].startswith("fx-worker"):
                allowed[int(status["Name"].removeprefix("fx-worker"))] = status["Cpus_allowed_list"]
        assert allowed == {worker: str(cpu) for worker, cpu in enumerate(cpus)}
        shown = node.request("workers")
        assert [worker["cpu"] for worker in shown["workers"]] == cpus
        assert shown["poll_us"] == 0
        assert all(worker["polls"] == 0 and worker["wakeups"] > 0 for worker in shown["workers"])
        assert all(worker["cpu_ns"] > 0 for worker in shown["workers"])


def test_a_cpu_that_is_not_there(lab: Lab, tmp_path: Path) -> None:
    config = tmp_path / "pair.toml"
    config.write_text(configuration_text().replace("[nodes.a]\n", "[nodes.a]\ncpus = [1023]\n"))
    argv = [sys.executable, "-m", "flexha", "--config", str(config), "--node", "a"]
    run = lab.run("a", argv, check=False)
    assert run.returncode == 1
    assert "nodes.a.cpus: CPU 1023 is not there" in run.stderr
