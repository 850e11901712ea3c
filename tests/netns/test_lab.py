# SPDX-License-Identifier: Apache-2.0
"""The lab itself: nothing of it is outside its namespaces, and nothing survives it. Spec: F4, B4."""

from __future__ import annotations

import array
import fcntl
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import topo
from sandbox import REPOSITORY, RUN_DIR, Lab, LabError, now_ns, wait_until
from traffic import BIN_DIR, Generator

LAB = [sys.executable, str(REPOSITORY / "netns-lab" / "lab.py")]
STARTER = """
import sys, signal
from pathlib import Path
from sandbox import Lab
lab = Lab.start(Path(sys.argv[1]), Path(sys.argv[2]))
for host in ("a", "client", "server"):
    lab.spawn(host, ["sleep", "infinity"], detach=True)
print(lab.init_pid, flush=True)
signal.pause()
"""


def own_namespace() -> dict[str, object]:
    """What a lab could leave in the machine's own namespaces."""
    return {
        "links": sorted(path.name for path in Path("/sys/class/net").iterdir()),
        "names": sorted(path.name for path in Path("/run/netns").iterdir())
        if Path("/run/netns").exists()
        else [],
        "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "routes": Path("/proc/net/route").read_text(),
    }


def processes_in(pid_namespace: str) -> list[int]:
    """Processes, as the machine numbers them, of a PID namespace (``pid:[...]``)."""
    members = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns" / "pid").readlink() == Path(pid_namespace):
                    members.append(int(entry.name))
            except OSError:
                continue  # it has just ended
    return members


def network_namespaces_of(pid_namespace: str | None = None) -> set[str]:
    """Network namespaces of the machine's processes, or of those in one PID namespace."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if pid_namespace in {None, str((entry / "ns" / "pid").readlink())}:
                    found.add(str((entry / "ns" / "net").readlink()))
            except OSError:
                continue  # it has just ended
    return found


@pytest.mark.parametrize("victim", ["starter", "wrapper", "init"])
def test_killed_lab_leaves_nothing(victim: str, tmp_path: Path) -> None:
    """SIGKILL of the lab's starter, of unshare(1) or of its init ends everything. Spec: B4."""
    before = own_namespace()
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path), str(tmp_path / "supervisor.log")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "netns-lab")},
    )
    assert starter.stdout is not None
    with starter.stdout:
        init = int(starter.stdout.readline())
    try:
        pid_namespace = str(Path(f"/proc/{init}/ns/pid").readlink())
        networks = wait_until(
            lambda: networks if len(networks := network_namespaces_of(pid_namespace)) == 4 else None,
            10,
            "init and the three sleepers are in namespaces of their own",
        )
        assert own_namespace() == before, "a running lab shows nothing in the machine's own namespaces"

        wrapper = int(Path(f"/proc/{init}/stat").read_text().rsplit(")", 1)[1].split()[1])
        os.kill({"starter": starter.pid, "wrapper": wrapper, "init": init}[victim], signal.SIGKILL)
        wait_until(lambda: not processes_in(pid_namespace), 10, "every process of the lab is gone")
    finally:
        starter.kill()
        starter.wait()
    assert not networks & network_namespaces_of()
    assert own_namespace() == before


@pytest.mark.usefixtures("pair")  # the last test may have left a node dead, its links down
def test_hosts_are_wired_as_drawn(lab: Lab) -> None:
    """Every host of the drawing exists, has its addresses, and reaches its neighbour on the wire."""
    for host in topo.HOSTS:
        addresses = lab.run(host.name, ["ip", "-4", "-brief", "address"]).stdout
        for device, wanted in host.addresses.items():
            for address in wanted:
                assert address in addresses, f"{address} on {device} of {host.name}"
    lab.run("a", ["ping", "-c", "1", "-W", "2", "169.254.100.2"])
    lab.run("server", ["ping", "-c", "1", "-W", "2", topo.ISP_ADDRESS])


def test_spawned_process_dies_with_its_caller(lab: Lab) -> None:
    """Hanging up the exec channel kills a process that was not spawned detached."""
    process = lab.spawn("client", ["sleep", "infinity"], name="orphan")
    assert any(p["name"] == "orphan" for p in lab.processes())
    process.close()
    wait_until(lambda: all(p["name"] != "orphan" for p in lab.processes()), 5, "the process is gone")


def test_run_reports_failure_and_output(lab: Lab) -> None:
    """Exit status, stdin, stdout and stderr of a program pass through the exec channel."""
    assert lab.run("a", ["cat"], input_text="through\n").stdout == "through\n"
    with pytest.raises(LabError, match=r"exit 3: reason"):
        lab.run("a", ["sh", "-c", "echo reason >&2; exit 3"])
    with pytest.raises(LabError, match="unknown op"):
        lab._ask({"op": "fly"})


def test_traffic_waits_for_no_reader(lab: Lab) -> None:
    """A generator whose reports nobody takes goes on: a full pipe must not look like stalled sessions."""
    program, log = str(BIN_DIR / "tcp_flows"), "/run/unread.log"
    to = ["127.0.0.1", "7199"]
    argv = [program, "client", *to, "127.0.0.2", "1", "20000", "10", "50", log]
    lab.path(log).unlink(missing_ok=True)
    with Generator(lab, "server", [program, "server", *to]) as server:
        server.wait_event("listening", 5)
        with Generator(lab, "server", argv) as client:
            fcntl.fcntl(client.stdout, fcntl.F_SETPIPE_SZ, 4096)
            begun_ns = now_ns()  # the pipe is full two seconds from now
            wait_until(lambda: now_ns() - begun_ns > 6e9, 30, "many more lines than it holds")
            client.command("stop")
            done = client.wait_event("done", 15)
        assert (done["opened"], done["survived"]) == (10, 10)
    times = array.array("Q")
    times.frombytes(lab.path(log).read_bytes())
    assert times[-1] - begun_ns > 5e9
    assert max(after - before for before, after in itertools.pairwise(times)) < 2e9


@pytest.fixture
def by_hand() -> Iterator[None]:
    """The lab that ``lab.py up`` starts is taken down whatever happens; one that is in use is left alone."""
    try:
        Lab.connect(RUN_DIR)
    except LabError:
        pass
    else:
        pytest.skip("a lab is up by hand: end it by `make lab-down`")
    yield
    subprocess.run([*LAB, "down"], check=False, capture_output=True)


def test_lab_by_hand(by_hand: None) -> None:
    """``up``, ``status``, ``shell`` in any host and ``down`` work as the README says. Spec: F4, R25."""

    def lab(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*LAB, *words], check=False, capture_output=True, text=True, timeout=90, cwd=REPOSITORY
        )

    nothing = lab("status")
    assert nothing.returncode == 2
    assert "make lab-up" in nothing.stderr
    up = lab("up")
    assert up.returncode == 0, up.stderr
    assert "ACTIVE" in up.stdout
    assert "PASSIVE" in up.stdout
    again = lab("up")
    assert again.returncode == 2
    assert "lab-down" in again.stderr
    status = lab("status")
    assert status.returncode == 0, status.stderr
    assert "ACTIVE" in status.stdout
    ping = lab("shell", "client", "ping", "-c", "1", "-W", "2", topo.SERVER_ADDRESS)
    assert ping.returncode == 0, ping.stdout
    # As the README has it, with a path relative to where `make` was typed.
    ctl = lab("shell", "a", "flexhactl", "--config", "netns-lab/pair.toml", "--node", "a", "status")
    assert ctl.returncode == 0, ctl.stderr
    own = lab("shell", "b", "flexhactl", "status")
    assert own.returncode == 0, own.stderr
    assert "lab/b" in own.stdout
    unknown = lab("shell", "moon")
    assert unknown.returncode == 2
    assert "client" in unknown.stderr
    down = lab("down")
    assert down.returncode == 0, down.stderr
    assert lab("status").returncode == 2
