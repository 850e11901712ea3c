# SPDX-License-Identifier: Apache-2.0
"""One node as a process: what is made in which order, and unmade in the reverse one.

Start: look whether we may run here (``preflight``) → lock the state directory, read the term → configure the
cross-connect → open the fast path (it makes the TAPs, or opens the devices) → plug the ports → start workers
and pulse → probe for duplicate addresses → addresses, routes → mirror the kernel → listen (control, sync,
metrics) → ``Started``.

Stop: SIGTERM, SIGINT or SIGHUP (a closed terminal) → ``StopRequested`` → the core says its goodbyes →
``Stop``; or after ``STOP_TIMEOUT_S`` without them. A bug (an exception where none is expected) fences the
node, says BYE, and ends the process with 1: a restarted node that rejoins is worth more than one that limps.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

from flexha.config.derive import (
    Draw,
    NodePlan,
    configured_routes,
    fastpath_config,
    inside_routes,
    learned_ports,
    node_plan,
)
from flexha.config.schema import Config, NodeName
from flexha.core.actions import SetConduit
from flexha.core.events import PortChanged, Role, SayKeys, Started, StopRequested
from flexha.errors import EXIT_OK, EXIT_RUNTIME, StartError
from flexha.fastpath import Fastpath, FastpathError, HeartbeatFlag
from flexha.shell import (
    address_probe,
    clock,
    hop_probe,
    incarnations,
    log,
    memory,
    plug,
    preflight,
    scheduling,
    systemd,
)
from flexha.shell.capture_io import CaptureIo
from flexha.shell.commit_watch import CommitWatch
from flexha.shell.control import Control
from flexha.shell.counters import Counters
from flexha.shell.driver import Driver, Hands
from flexha.shell.flags import MaintenanceFlag
from flexha.shell.flows_io import FlowsIo
from flexha.shell.heartbeat_io import HeartbeatIo
from flexha.shell.history import History
from flexha.shell.inspector import Inspector
from flexha.shell.keyring import Keyring
from flexha.shell.metrics import MetricsServer, families
from flexha.shell.netlink import Mirror
from flexha.shell.pair_io import PairIo
from flexha.shell.plug import PluggedPort
from flexha.shell.policy_io import PolicyIo
from flexha.shell.port_watch import PortWatch
from flexha.shell.preflight import StateDir
from flexha.shell.readiness import Readiness
from flexha.shell.rotation import Rotation
from flexha.shell.routing import Routing
from flexha.shell.rtnl import Rtnl
from flexha.shell.sync_io import ShortWay, SyncIo, lane_limits
from flexha.shell.terms import TermFile
from flexha.shell.vrrp_io import VrrpIo
from flexha.shell.wires_io import WiresIo
from flexha.units import Ns, Term
from flexha.version import flexha_version

STOP_TIMEOUT_S = 5.0
"""For all goodbyes; then the daemon ends without them."""
STATUS_INTERVAL_S = 1.0


def _set_conduit(fastpath: Fastpath, names: Sequence[str], action: SetConduit) -> None:
    fastpath.set_conduit(
        on=action.on,
        term=action.term,
        vmac_ports=map(names.index, action.taken),
        borrowed=map(names.index, action.borrowed),
        lent=map(names.index, action.lent),
    )


def draw(incarnation: int, mac_key: bytes | None) -> Draw:
    """What differs from start to start. Nobody hears the heartbeats of a node without a peer."""
    return Draw(
        incarnation=incarnation,
        table_key=secrets.token_bytes(16),
        # Some 2^40 ids fit between two draws that differ, which they do but for one start in 2^23.
        flow_id_base=secrets.randbits(23) << 40,
        mac_key=mac_key or secrets.token_bytes(16),
    )


class Daemon:
    """Owns everything; ``run`` returns the exit code."""

    def __init__(
        self,
        config: Config,
        name: NodeName,
        ready_fd: int | None = None,
        path: Path | None = None,
        keylog: Path | None = None,
    ) -> None:
        self._config = config
        self._name = name
        self._path = path
        self._keylog = keylog
        self._plan: NodePlan = node_plan(config, name)
        self._ready_fd = ready_fd
        self._counters = Counters()
        self._history = History(name)
        self._done: asyncio.Future[int] | None = None
        self._fastpath: Fastpath | None = None
        self._driver: Driver | None = None

    async def run(self) -> int:
        """Start, serve until told to stop, stop."""
        loop = asyncio.get_running_loop()
        self._done = loop.create_future()
        loop.set_exception_handler(self._on_loop_exception)
        started = clock.now()
        log.info("daemon.starting", pair=self._plan.pair, version=flexha_version(), pid=os.getpid())
        async with AsyncExitStack() as stack:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.add_signal_handler(number, self._on_signal, number)
            memory.lock()
            rtnl = stack.enter_context(Rtnl())
            preflight.check(self._plan, rtnl)
            state_dir = StateDir(self._plan.state_dir)
            stack.callback(state_dir.release)
            terms = TermFile(state_dir.path)
            term = terms.read()
            flag = MaintenanceFlag(state_dir.path)
            maintenance = flag.read()
            incarnation = incarnations.begin(state_dir.path, clock.start_number())
            keyring = Keyring.load(self._plan, self._keylog)
            if keyring:
                keyring.start()
                stack.callback(keyring.stop)
            drawn = draw(incarnation, keyring.keys.heartbeat[0] if keyring else None)
            self._fastpath_config = fastpath_config(self._config, self._name, drawn)
            ports = await self._open_ports(stack, rtnl, keyring)
            driver = await self._wire(stack, rtnl, terms, flag, ports, started, keyring)
            gc.collect()
            gc.freeze()  # what lives as long as the daemon is never scanned again
            driver.begin(Started(term=term, incarnation=incarnation, maintenance=maintenance))
            self._announce_ready(loop)
            code = await self._done
            systemd.notify("STOPPING=1")
            log.info("daemon.stopping", exit_code=code)
        log.info("daemon.stopped", exit_code=code)
        return code

    # ---- start ----
    async def _open_ports(
        self, stack: AsyncExitStack, rtnl: Rtnl, keyring: Keyring | None
    ) -> list[PluggedPort]:
        """Fast path and ports, up to where packets can flow."""
        if self._plan.xc:
            plug.bring_up_xc(self._plan.xc, rtnl)
        plug.prepare_all(self._plan)
        self._fastpath_config = plug.host_devices(self._fastpath_config)
        before = memory.Anonymous.now()
        try:
            fastpath = self._fastpath = stack.enter_context(Fastpath(self._fastpath_config))
        except FastpathError as error:
            raise StartError(f"fast path: {error}") from error
        memory.report_tables(before, memory.Anonymous.now())
        stack.callback(self._forget_fastpath)
        ports = [plug.plug(plan, rtnl) for plan in self._plan.plugs]
        if keyring:
            fastpath.set_pulse_keys(keyring.keys.heartbeat)
        # The first heartbeat already carries our priority.
        fastpath.set_pulse(HeartbeatFlag.LAN_UP | HeartbeatFlag.WAN_UP, self._plan.core.priority)
        try:
            fastpath.start()
        except FastpathError as error:
            raise StartError(f"fast path: {error}") from error
        scheduling.prioritise()
        await address_probe.check(ports)
        for port in ports:
            plug.address(port, rtnl)
            if port.group:
                stack.callback(port.group.close)
        plug.install_routes(self._plan, ports, rtnl)
        return ports

    async def _wire(
        self,
        stack: AsyncExitStack,
        rtnl: Rtnl,
        terms: TermFile,
        flag: MaintenanceFlag,
        ports: list[PluggedPort],
        started: Ns,
        keyring: Keyring | None,
    ) -> Driver:
        """Everything around the core."""
        plan, counters, fastpath = self._plan, self._counters, self._fastpath
        assert fastpath is not None
        loop = asyncio.get_running_loop()
        driver = self._driver = Driver(plan.core, self._on_fatal)
        stack.callback(driver.close)
        mirror = Mirror(
            fastpath,
            rtnl,
            {port.host_index: port.plan.index for port in ports},
            counters,
            inside_routes(self._config),
            configured_routes(self._config),
            learned_ports(self._config),
        )
        sides = {
            port.name: HeartbeatFlag.LAN_UP if port.inside else HeartbeatFlag.WAN_UP
            for port in plan.core.tracked
        }
        heartbeat = HeartbeatIo(fastpath, plan.core.paths, plan.core.priority, sides, driver.post, counters)
        vrrp = VrrpIo(fastpath, plan.port_names, driver.post, mirror.want, mirror.moved, counters)
        wires = WiresIo(fastpath, driver.post)
        policy = PolicyIo(fastpath, plan, self._config, self._path, counters)
        policy.start()
        stack.callback(policy.stop)
        flows = FlowsIo(fastpath, plan.core.sync.batch_records, driver.post, counters, driver.busy)
        tls = keyring.tls if keyring else None
        short = ShortWay(fastpath, driver, lane_limits(plan.core.sync))
        sync = SyncIo(plan.xc, driver.post, counters, tls, short) if plan.xc else None
        rotation = None
        if keyring and sync:
            rotation = Rotation(
                plan.name, keyring, sync, fastpath, lambda said: driver.post(SayKeys(said)), counters
            )
            rotation.start()
            stack.callback(rotation.stop)
        pair = PairIo(keyring, sync, rotation)
        watches = [PortWatch(port, fastpath, self._on_port_changed) for port in ports]
        probes = [hop_probe.make(hop, mirror.knows, driver.post) for hop in plan.hops]
        routing = Routing(plan.routing, self._history, counters) if plan.routing else None
        inspector = Inspector(
            plan,
            started,
            fastpath,
            driver,
            heartbeat,
            sync,
            mirror,
            watches,
            probes,
            self._history,
            counters,
            policy,
            routing,
        )
        control = Control(
            plan.control,
            {
                "status": inspector.status,
                "sessions": inspector.sessions,
                "counters": inspector.show_counters,
                "workers": inspector.show_workers,
                "ha_history": inspector.ha_history,
                "ha_readiness": Readiness(inspector).ask,
                "reload": policy.reload,
                "rules": policy.rules,
                "pools": policy.pools,
                "pair_show": pair.show,
                "pair_rotate": pair.rotate,
                "capture": CaptureIo(fastpath, plan, counters).capture,
            },
            driver.post,
            counters,
        )

        def role_set(role: Role, term: Term) -> None:
            if routing:
                routing.role_set(role, term)
            policy.role_set(role)

        driver.hands = Hands(
            fastpath,
            terms,
            flag,
            wires,
            heartbeat,
            vrrp,
            flows,
            sync,
            self._history,
            counters,
            control.reply,
            self._on_stop,
            role_set,
            lambda ports: mirror.set_by_peer(frozenset(map(plan.port_names.index, ports))),
            partial(_set_conduit, fastpath, plan.port_names),
            rotation,
        )

        def on_fastpath() -> None:
            fastpath.clear_wakeup()
            heartbeat.collect()  # first: a peer's death waits for nothing
            wires.collect()
            vrrp.collect()
            policy.collect()
            flows.wake()

        loop.add_reader(fastpath.events_fd, on_fastpath)
        stack.callback(loop.remove_reader, fastpath.events_fd)
        stack.callback(flows.stop)
        mirror.start()
        stack.callback(mirror.stop)
        heartbeat.start()
        stack.callback(heartbeat.stop)
        commit_watch = CommitWatch(fastpath, self._history)
        commit_watch.start()
        stack.callback(commit_watch.stop)
        if routing:
            routing.start()
            stack.callback(routing.stop)
        for watch in watches:
            watch.start()
            stack.callback(watch.stop)
        for probe in probes:
            probe.start()
            stack.callback(probe.stop)
        await control.start()
        stack.push_async_callback(control.stop)
        if sync:
            await sync.start()
            stack.callback(sync.stop)
        if plan.metrics:
            metrics = MetricsServer(plan.metrics, lambda: families(inspector))
            await metrics.start()
            stack.callback(metrics.stop)
        self._tick(loop)
        return driver

    def _announce_ready(self, loop: asyncio.AbstractEventLoop) -> None:
        systemd.notify("READY=1", f"MAINPID={os.getpid()}")
        if self._ready_fd is not None:
            systemd.signal_ready(self._ready_fd)
        interval_s = systemd.watchdog_interval_s()
        if interval_s is not None:
            self._watchdog(loop, interval_s)
        log.info("daemon.ready", control=self._plan.control)

    # ---- while it runs ----
    def _watchdog(self, loop: asyncio.AbstractEventLoop, interval_s: float) -> None:
        systemd.notify("WATCHDOG=1")
        loop.call_later(interval_s, self._watchdog, loop, interval_s)

    def _tick(self, loop: asyncio.AbstractEventLoop, said: str = "") -> None:
        """Keep the service manager's status line true."""
        status: Mapping[str, object] = self._driver.status() if self._driver else {}
        line = f"STATUS={status.get('role')}, term {status.get('term')}"
        if line != said:
            systemd.notify(line)
        loop.call_later(STATUS_INTERVAL_S, self._tick, loop, line)

    def _on_port_changed(self, port: str, up: bool) -> None:
        if self._driver:
            self._driver.post(PortChanged(port, up))

    # ---- the end ----
    def _on_signal(self, number: int) -> None:
        log.info("daemon.signal", signal=signal.Signals(number).name)
        if self._driver is None or self._done is None:
            raise SystemExit(EXIT_OK)
        loop = asyncio.get_running_loop()
        loop.call_later(STOP_TIMEOUT_S, self._on_stop_timeout)
        self._driver.post(StopRequested())

    def _on_stop(self) -> None:
        """All goodbyes are said."""
        self._finish(EXIT_OK)

    def _on_stop_timeout(self) -> None:
        if self._done and not self._done.done():
            log.error("daemon.stop_timeout", after_s=STOP_TIMEOUT_S)
            self._fence()
            self._finish(EXIT_RUNTIME)

    def _finish(self, code: int) -> None:
        if self._done and not self._done.done():
            self._done.set_result(code)

    def _on_loop_exception(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        problem = context.get("exception")
        of_a_socket = isinstance(problem, OSError) and not isinstance(problem, FastpathError)
        if of_a_socket or not isinstance(problem, Exception):
            # A client's or a peer's socket: whoever uses it is told on its own.
            log.warning("loop.complaint", message=context.get("message"), exception=problem)
            return
        self._on_fatal(problem)

    def _on_fatal(self, problem: BaseException) -> None:
        log.exception("daemon.bug", problem)
        self._fence()
        self._finish(EXIT_RUNTIME)

    def _fence(self) -> None:
        """Forward nothing more, and let the peer take over at once."""
        fastpath = self._fastpath
        if fastpath is None:
            return
        with contextlib.suppress(FastpathError):
            fastpath.set_role(int(Role.FAULT), fastpath.fence().term)
        with contextlib.suppress(FastpathError):
            fastpath.set_pulse(HeartbeatFlag.BYE, self._plan.core.priority)
            fastpath.burst_pulse()

    def _forget_fastpath(self) -> None:
        """It is about to be closed."""
        if self._fastpath:
            self._fastpath.stop()
            self._fastpath = None
