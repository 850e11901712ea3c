# SPDX-License-Identifier: Apache-2.0
"""A port of the ACTIVE node loses its wire: the role moves, or the peer's wire is used."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import faults
import topo
from pair import Node
from sandbox import Lab, now_ns, wait_until
from scenario import Bar, Figures, Play, Scenario, Settings, Trial
from scenario_stage import Stage, repeated
from scenarios_steady import pass_time

OUTAGE_MS = 50
PROBE_MS = 300
"""Until a next hop that does not answer is taken for lost: 4 probes of 75 ms."""
DOWN_S = 2.0

Fault = Callable[[Lab, Node, Node], AbstractContextManager[None]]


def carrier_lost(port: str) -> Fault:
    """The switch's port towards the ACTIVE node is down, and so is the node's."""
    return lambda lab, active, _: faults.link_down(lab, topo.SWITCHES[port], f"fx-{port}-{active.name}")


def silently(port: str) -> Fault:
    """The switch forwards nothing from or to the ACTIVE node's port, whose carrier stays."""
    return lambda lab, active, _: faults.bridge_port_off(lab, port, active.name)


@contextmanager
def crippled(lab: Lab, active: Node, passive: Node) -> Iterator[None]:
    """ACTIVE keeps its LAN alone, PASSIVE its WAN alone.

    PASSIVE is first, so that ACTIVE knows nobody who could do better than it.
    """
    with carrier_lost("lan")(lab, passive, active):
        wait_until(lambda: not _peer_has_lan(active), 10, "ACTIVE knows that its peer has lost its LAN")
        with carrier_lost("wan")(lab, active, passive):
            yield


def _peer_has_lan(active: Node) -> bool:
    status = active.status()
    return status is None or bool(status["tracking"]["ports"]["lan"]["peer_usable"])


def losing(fault: Fault, what: str) -> Play:
    """The wire is gone for a while, under traffic, and comes back."""

    def once(stage: Stage, number: int) -> Trial:
        active = stage.settle()
        passive = stage.pair.peer(active)
        with stage.trial(number, active, what.format(active.name), download_s=9) as trial:
            before = carried(active, passive)
            with ExitStack() as stack:
                trial.fault_ns = now_ns()
                stack.enter_context(fault(stage.lab, active, passive))
                trial.recover()
                pass_time(trial.fault_ns, DOWN_S)
                after = carried(active, passive)
            trial.happened("the wire is there again")
            trial.expect(stage.pair.settled, 20, "the pair is whole again")
            return trial.end(**{way: after[way] - before[way] for way in before})

    return repeated(once)


def crippled_wan_first(stage: Stage, number: int) -> Trial:
    """ACTIVE loses its WAN, and the role moves; then the new ACTIVE loses its LAN: the old one's is used."""
    old = stage.settle()
    new = stage.pair.peer(old)
    fault = f"node {old.name} loses its WAN, then its peer the LAN"
    with stage.trial(number, old, fault, download_s=7) as trial:
        trial.fault_ns = now_ns()
        with carrier_lost("wan")(stage.lab, old, new):
            trial.wait_takeover()
            trial.expect(lambda: old.role() == "PASSIVE", 10, "the old ACTIVE follows")
            before = carried(new, old)
            cut_ns = now_ns()
            with carrier_lost("lan")(stage.lab, new, old):
                trial.happened(f"node {new.name} loses its LAN", cut_ns)
                trial.recover()
                pass_time(cut_ns, DOWN_S)
                if new.role() != "ACTIVE":
                    trial.findings.append(f"node {new.name} has the one WAN, and does not reign")
                after = carried(new, old)
        trial.happened("both wires are there again")
        trial.expect(stage.pair.settled, 20, "the pair is whole again")
        return trial.end(**{way: after[way] - before[way] for way in before})


def carried(active: Node, passive: Node) -> Figures:
    """Frames by the cross-connect: what PASSIVE handed over, and what it sent on for ACTIVE."""
    return {
        "to_active": float(passive.counter("conduit_to")),
        "for_active": float(active.counter("conduit_out")),
    }


BY_CONDUIT = (Bar("to_active", 1, at_least=True), Bar("for_active", 1, at_least=True))
ASYMMETRIC = (Bar("role_changes", 0), *BY_CONDUIT)
"""ACTIVE stays what it is, and frames go by its peer's ports, both ways."""
MOVED = Bar("role_changes", 1, at_least=True)
"""Whoever has the WAN reigns."""
OFTEN = ("ha", "flap_max = 100")
"""Trials follow each other faster than a role may move for tracking (flap damping)."""
UNDAMPED = Settings(keys=(OFTEN,))
TRACKED = Settings(keys=(OFTEN, ("ports.wan.track", 'kind = "arp"')))
SCENARIOS = (
    Scenario(
        "wan-down",
        ("R8", "R14"),
        "The WAN link of the ACTIVE node loses its carrier.",
        (Bar("sessions_lost", 0), Bar("outage_ms", OUTAGE_MS), MOVED),
        losing(carrier_lost("wan"), "node {} loses its WAN"),
        settings=UNDAMPED,
        boxed=True,
    ),
    Scenario(
        "wan-silent",
        ("R8", "R14"),
        "The switch no longer forwards from or to the WAN port of the ACTIVE node; its carrier stays.",
        (Bar("sessions_lost", 0), Bar("outage_ms", PROBE_MS + OUTAGE_MS), MOVED),
        losing(silently("wan"), "node {} loses its WAN, and its carrier stays"),
        settings=TRACKED,
        boxed=True,
    ),
    Scenario(
        "lan-down",
        ("R8",),
        "The LAN link of the ACTIVE node loses its carrier; the LAN has static routes to the VIP.",
        (Bar("sessions_lost", 0), Bar("outage_ms", OUTAGE_MS), *ASYMMETRIC),
        losing(carrier_lost("lan"), "node {} loses its LAN"),
        settings=UNDAMPED,
        boxed=True,
    ),
    Scenario(
        "crippled",
        ("R8",),
        "ACTIVE has only its LAN, PASSIVE only its WAN.",
        (Bar("sessions_lost", 0), Bar("outage_ms", OUTAGE_MS), *ASYMMETRIC),
        losing(crippled, "node {} loses its WAN, its peer the LAN"),
        settings=UNDAMPED,
        boxed=True,
    ),
    Scenario(
        "crippled-wan-first",
        ("R8",),
        "ACTIVE loses its WAN; once the role has moved, the new ACTIVE loses its LAN.",
        (Bar("sessions_lost", 0), Bar("outage_ms", OUTAGE_MS), MOVED, *BY_CONDUIT),
        repeated(crippled_wan_first),
        settings=UNDAMPED,
        boxed=True,
    ),
)
