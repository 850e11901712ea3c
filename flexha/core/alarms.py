# SPDX-License-Identifier: Apache-2.0
"""What somebody has to mend, though traffic goes on: shown until it is mended, and in the history.

A condition is an alarm once it has lasted for ``PATIENCE_MS``: paths do not all come and go at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flexha.core.actions import Level, Record
from flexha.core.heartbeat import Liveness
from flexha.core.lend import Loans
from flexha.units import NS_PER_S, Ns, ms

PATIENCE_MS: Final = 1000
XC_SILENT: Final = "xc-silent"
WORKER_HUNG: Final = "worker-hung"
PEER_HUNG: Final = "peer-hung"
PORT_LENT: Final = "port-lent"
MOVES_SUSPENDED: Final = "moves-suspended"
TEXTS: Final[Mapping[str, str]] = {
    XC_SILENT: "the cross-connect is silent, though the peer lives: sync stands still, and sessions that "
    "began since would not survive a failover; look at its cable, and at its device on both nodes",
    WORKER_HUNG: "a worker of this node gets nowhere: what it forwards stands still, sync rests, and a peer "
    "that is ready has the role by now; look at the log and the load, and restart the daemon if it lasts",
    PEER_HUNG: "the peer is heard, but its control plane or one of its workers gets nowhere: it cannot take "
    "over; look at its log and load, and restart its daemon",
    PORT_LENT: "a port of this node is down, and the peer stands in for it: traffic takes the cross-connect; "
    "look at the cable and the switch of the port that flexhactl status names under lending",
    MOVES_SUSPENDED: "the role has moved too often of late: for a while it moves neither for a lost port or "
    "next hop nor by preempt; look in flexhactl ha history at what comes and goes; flexhactl failover moves "
    "it all the same",
}
"""Every alarm there is: what it means, and the remedy."""
_XC: Final = "xc"


@dataclass(frozen=True, slots=True)
class Alarm:
    """A condition, since when, and whether it has been told."""

    since: Ns
    told: bool = False


Alarms = Mapping[str, Alarm]


def step(
    alarms: Alarms, liveness: Liveness, loans: Loans, now: Ns, *, stuck: bool, suspended: bool
) -> tuple[Alarms, tuple[Record, ...]]:
    """Look at the conditions; what begins or ends is recorded.

    ``stuck``: a worker of ours hangs. ``suspended``: by flap damping.
    """
    wanted = _conditions(liveness, loans, stuck=stuck, suspended=suspended)
    if not alarms and not wanted:
        return alarms, ()
    records = [
        Record(
            Level.INFO,
            "alarm-over",
            {"name": name, "for_s": round((now - alarm.since) / NS_PER_S, 3)},
            history=True,
        )
        for name, alarm in alarms.items()
        if alarm.told and name not in wanted
    ]
    after = {name: alarms.get(name, Alarm(now)) for name in wanted}
    for name, alarm in after.items():
        if not alarm.told and now >= _due(alarm):
            after[name] = Alarm(alarm.since, told=True)
            records.append(Record(Level.ERROR, "alarm", {"name": name}, history=True))
    return (alarms if after == alarms else after), tuple(records)


def _conditions(liveness: Liveness, loans: Loans, *, stuck: bool, suspended: bool) -> tuple[str, ...]:
    xc, info = liveness.paths.get(_XC), liveness.info
    found = []
    if liveness.alive and xc is not None and not xc.alive:
        found.append(XC_SILENT)
    if stuck:
        found.append(WORKER_HUNG)
    if info is not None and info.hung and any(path.alive for path in liveness.paths.values()):
        found.append(PEER_HUNG)
    if loans.lent:
        found.append(PORT_LENT)
    if suspended:
        found.append(MOVES_SUSPENDED)
    return tuple(found)


def _due(alarm: Alarm) -> Ns:
    return Ns(alarm.since + ms(PATIENCE_MS))


def next_deadline(alarms: Alarms) -> Ns | None:
    """When a condition becomes an alarm."""
    return min((_due(alarm) for alarm in alarms.values() if not alarm.told), default=None)


def status(alarms: Alarms, now: Ns) -> list[Mapping[str, object]]:
    """For ``flexhactl status``: name, text, since_s (how long it has lasted)."""
    return [
        {"name": name, "text": TEXTS[name], "since_s": round((now - alarm.since) / NS_PER_S, 3)}
        for name, alarm in alarms.items()
        if alarm.told
    ]
