# SPDX-License-Identifier: Apache-2.0
"""What must hold in every schedule.

Invariants of every step:
  reign       no term is ever reigned in twice; a term is on disk before it is used, and grows
  fence       of two open fences the one of the lower term, if it can hear the other, is closed within
              ``DUAL_MS``; one whose lease is over is not open (``csrc/lease.h``)
  lease       who was stopped sends nothing that needs the role while its peer reigns by now
  hang        who hangs, and reigns, does so no more once that is seen, if its peer is ready
  takeover    nobody takes the role from one who lives, moves, reigns, and is heard; a death is one
  hearing     nobody hears a peer that is no more, whatever is replayed
  switches    with healthy ports, the switches send to the one open fence within ``MISLED_MS``; no port
              was lent of late
  voices      two nodes that can hear each other do not both speak for one virtual MAC for ``VOICES_MS``;
              a lender is silent
  ready       a node calls itself ready only when PASSIVE and its last import is complete
  bounded     the window of unacknowledged batches, and the busy loop that a past deadline would be
  digests     both tables differ at a place in the stream only if somebody has flipped a bit there
  commit      packets wait for a peer only while one follows that is in sync
  handover    when the ACTIVE gives its word, the peer's table holds what its own does
  wires       nobody leaves his wires alone for longer than ``PARKED_MS``
  vacancy     while a healthy node runs, and nothing more goes wrong, somebody reigns within ``VACANT_MS``
  promises    a claim, a handover, a farewell ends within ``PROMISE_MS``: done, or given up
  answers     every operator's request is answered once, unless its daemon died
Of every crash of an ACTIVE node:
  inherit     what the peer has acknowledged is in its table, and not what it has acknowledged the end of
After quiescence:
  one ACTIVE, the other one PASSIVE and ready, both tables hold the same flows in the same versions, and the
  digests have agreed within ``AGREED_S``, whatever was flipped
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.fastpath import unpack
from sim.host import Process, SimulationError
from sim.pulse import CONTROL_DEAD_MS, WORKER_DEAD_MS

from flexha.core.events import Event, FlowsDrained, FlowsImported, Role, SyncReceived, Wires
from flexha.core.shards import ALL
from flexha.core.sync_wire import Ack, Batch, SweepBegin
from flexha.fastpath import Op
from flexha.units import NS_PER_S, Ns, Term, centiseconds, ms

if TYPE_CHECKING:
    from sim.world import World

DUAL_MS = 170
"""Two that know each other need one heartbeat, two that have to be introduced three; and wires."""
VOICES_MS = 400
"""Likewise, and a core that is slow to follow."""
HANG_SEEN_MS = 200
"""The pulse thread looks at least each 50 ms, and a ready peer is known after a heartbeat."""
MISLED_MS = 250
GONE_MS = 1100
"""So old a heartbeat may be, and a time of silence, and what a slow path delivers late."""
UNDISTURBED_MS = 300
"""Two times of silence: what was said before something broke is no proof that it is heard still."""
TAKEN = ("peer-silent", "peer-confirmed", "peer-died")
"""Reasons to reign that say that the peer is dead."""
ANSWER_MS = 3000
PARKED_MS = 1300
VACANT_MS = 6500
PROMISE_MS = 2500
AGREED_S = 3

BULK = (SyncReceived, FlowsDrained, FlowsImported)
"""Events that come by the thousand, and say nothing of roles."""


class Judge:
    """Looks at every step of both nodes, and at the end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reasons: list[str] = []
        """Why roles changed, in order."""
        self.reigns: dict[Term, tuple[int, int]] = {}
        self.acked: list[dict[int, tuple[int, Op]]] = [{}, {}]
        """Per sender: what the present peer has acknowledged, id -> (version, kind)."""
        self._sent: list[dict[int, list[tuple[int, int, Op]]]] = [{}, {}]
        self._dual_since: Ns | None = None
        self._alone: tuple[Process, Ns] | None = None
        """The only node whose fence is open, and since when."""
        self._ports_healthy_since: Ns | None = None
        self._announced_at: dict[Process, Ns] = {}
        """When each process that reigns began to."""
        self._lent_at: Ns | None = None
        self._two_voices_since: Ns | None = None
        self._parked: list[tuple[Process, Ns] | None] = [None, None]
        """By node: whose wires are parked, and since when."""
        self._vacant_since: Ns | None = None
        self._promised: list[tuple[object, Ns]] = [(None, Ns(0)), (None, Ns(0))]

    @property
    def now(self) -> Ns:
        return self.world.clock.now

    def sync_sent(self, sender: Process, data: bytes) -> None:
        """Note what is sent and what is acknowledged."""
        sent, acked = self._sent[sender.index], self.acked[sender.index]
        for message in sender.sync_messages(data):
            match message:
                case SweepBegin(shards=shards) if shards == ALL:
                    sent.clear()
                    acked.clear()
                case Batch(seq, parts):
                    sent[seq] = unpack(parts)
                case Ack(seq):
                    peers_sent = self._sent[1 - sender.index]
                    for batch in [s for s in peers_sent if s <= seq]:
                        for flow, version, op in peers_sent.pop(batch):
                            self.acked[1 - sender.index][flow] = (version, op)
                case _:
                    pass

    # ---- of one action -------------------------------------------------------------------------------
    def check_reign(self, process: Process, term: Term) -> None:
        if term % 2 != process.index or term > process.disk.term:
            raise SimulationError(f"{process.name} reigns in {term}, on disk is {process.disk.term}")
        owner = (process.index, process.incarnation)
        if self.reigns.setdefault(term, owner) != owner or (term < max(self._own_terms(process))):
            raise SimulationError(f"{process.name} reigns in {term} again: {self.reigns}")

    def _own_terms(self, process: Process) -> list[Term]:
        return [t for t, owner in self.reigns.items() if owner[0] == process.index]

    def check_ready(self, process: Process, *, ready: bool) -> None:
        if ready and not (process.role is Role.PASSIVE and not process.fastpath.incomplete):
            raise SimulationError(
                f"{process.name} says ready as {process.role.name}, before its bulk is complete"
            )

    def _check_handover(self, heir: Process) -> None:
        """The heir reigns by the ACTIVE's word: nothing is missing in its table."""
        giver = self.world.nodes[1 - heir.index]
        given = giver.history if giver is not None else []
        if giver is None or giver.fastpath.fence.is_active:  # the heir slept on the word, and it reigns again
            return
        if not any(
            event == "handover-given" and fields["complete"] and self.now - at < ms(1000)
            for at, event, fields in given
        ):
            return
        if not self.world.flipped and heir.fastpath.flows != giver.fastpath.flows:
            missing = giver.fastpath.flows.keys() - heir.fastpath.flows.keys()
            raise SimulationError(
                f"{heir.name} reigns by the word of {giver.name}: {len(missing)} flows are missing, or old"
            )

    # ---- of one step ---------------------------------------------------------------------------------
    def check(self, process: Process, event: Event) -> None:
        """``process`` has done its step for ``event``."""
        sender = process.state.session.sender
        if len(sender.window) > process.cfg.sync.window_batches + 3:  # a drain ends with a marker
            raise SimulationError(f"{process.name}: {len(sender.window)} batches in the window")
        if process.counters.get("audit.differing") and not self.world.flipped:
            raise SimulationError(f"{process.name}: the tables differ at a place in the stream")
        in_sync = sender.engaged and sender.audit.in_sync
        awaited = sender.commit_until is not None or (sender.engaged and not sender.bulk)  # it may be resumed
        if process.fastpath.commit not in {in_sync, in_sync or awaited}:
            raise SimulationError(f"{process.name}: commit is {process.fastpath.commit}")
        if process.history and process.history[-1][0] == self.now:
            _, what, fields = process.history[-1]
            if what == "role":
                self.reasons.append(str(fields["reason"]))
                if fields["to"] == "ACTIVE" and fields["reason"] in TAKEN:
                    self._check_takeover(process, str(fields["reason"]))
                if (fields["to"], fields["reason"]) == ("ACTIVE", "handover"):
                    self._check_handover(process)
        if not isinstance(event, BULK):
            self.look()

    def look(self) -> None:
        """At both nodes and what is between them."""
        for process in self.world.nodes:
            if process is not None and process.alive and not process.is_stalled:
                self._check_answers(process)
                self._check_promises(process)
        running = [p for p in self.world.nodes if p is not None and p.alive]
        for process in running:
            self._check_wires(process)
            self._check_hearing(process)
            self._check_hang(process)
        reigning = [p for p in running if p.fastpath.fence.is_active]
        self._announced_at = {process: self._announced_at.get(process, self.now) for process in reigning}
        unfenced = [p for p in reigning if p.is_open]
        self._check_vacancy(running, is_vacant=not unfenced)
        is_stalled = any(p.is_stalled for p in running)
        self._check_voices([] if is_stalled else running)
        self._check_dual(unfenced)
        self._check_switches(reigning[0] if len(reigning) == 1 and not is_stalled else None)

    def _check_answers(self, process: Process) -> None:
        if not process.requests or not process.disk.is_good:
            return
        for request, asked in process.requests.items():
            late = self.now - max(asked, self.world.disturbed_at) > ms(ANSWER_MS)
            if late and request not in process.replies:
                raise SimulationError(f"{process.name}: request {request} was never answered")

    def _check_wires(self, process: Process) -> None:
        parked = self._parked[process.index]
        if process.is_stalled or process.fastpath.wires is not Wires.PARK:
            self._parked[process.index] = None
        elif parked is None or parked[0] is not process:
            self._parked[process.index] = (process, self.now)
        elif self.now - parked[1] > ms(PARKED_MS):
            raise SimulationError(f"{process.name} does not read its wires any more")

    def _check_promises(self, process: Process) -> None:
        role = process.state.role
        if role.claim is None and role.handover is None and role.leave_at is None:
            self._promised[process.index] = (None, self.now)
            return
        given = (role.claim, role.handover, role.leave_at)
        was, since = self._promised[process.index]
        if given != was:
            self._promised[process.index] = (given, self.now)
        elif self.now - max(since, self.world.disturbed_at) > ms(PROMISE_MS):
            raise SimulationError(f"{process.name}: {given} since {since}, with no end")

    def _check_vacancy(self, running: list[Process], *, is_vacant: bool) -> None:
        if not is_vacant:
            self._vacant_since = None
        elif self._vacant_since is None:
            self._vacant_since = self.now
        elif self.now - max(self._vacant_since, self.world.disturbed_at) > ms(VACANT_MS):
            healthy = [p.name for p in running if self._is_healthy(p)]
            if healthy:
                raise SimulationError(f"nobody reigns, and {healthy} could")

    def _is_healthy(self, process: Process) -> bool:
        in_service = process.role in (Role.JOINING, Role.PASSIVE) or process.state.role.disk_slow
        plugged = not any(index == process.index for index, _ in self.world.network.unplugged)
        return (
            in_service and plugged and process.disk.is_good and not (process.is_stalled or process.is_stuck)
        )

    def _check_dual(self, unfenced: list[Process]) -> None:
        """Who hears a higher term is fenced; who has never heard this life of the peer does not know."""
        dual = len(unfenced) == 2
        if dual:
            low = min(unfenced, key=lambda process: process.fastpath.fence.term)
            network = self.world.network
            dual = network.has_healthy_path() or bool(network.hears(low.index) and low.pulse.core.alive)
        if not dual:
            self._dual_since = None
        elif self._dual_since is None:
            self._dual_since = self.now
        elif self.now - self._dual_since > ms(DUAL_MS):
            raise SimulationError("two ACTIVE nodes hear each other and both stay")

    def _check_hearing(self, process: Process) -> None:
        """Nobody is heard where nobody is: what was recorded is not believed."""
        peer = self.world.nodes[1 - process.index]
        if process.is_stalled or not process.pulse.core.alive or (peer is not None and peer.alive):
            return
        ended_at = Ns(0) if peer is None else peer.ended_at
        if self.now - max(self.world.disturbed_at, process.woke_at, ended_at) > ms(GONE_MS):
            raise SimulationError(f"{process.name} hears a peer that is no more")

    def _check_hang(self, process: Process) -> None:
        """Who hangs gives the role to a peer that may take over."""
        if not (process.hung or process.is_stuck) or not process.is_open:
            return
        peer = self.world.nodes[1 - process.index]
        if peer is None or not peer.alive or peer.is_stalled or peer.is_stuck or peer.ready_since is None:
            return
        since = max(process.hung_at, peer.ready_since, process.woke_at, self.world.disturbed_at)
        limit_ms = CONTROL_DEAD_MS if process.hung else WORKER_DEAD_MS
        if self.now - since > ms(limit_ms + HANG_SEEN_MS) and self.world.network.has_healthy_path():
            raise SimulationError(f"{process.name} hangs, and reigns on beside a ready peer")

    def check_forwarding(self, process: Process) -> None:
        """A frame that needs the role leaves: not from one who was stopped while the peer began to reign.

        Who has never met its peer cannot ask it (``csrc/lease.h``). Then ``_check_dual`` has the bound.
        """
        peer = self.world.nodes[1 - process.index]
        if peer is None or not peer.alive or not (process.woke_at and process.had_lease) or not peer.is_open:
            return
        slept = self._announced_at.get(peer, self.now) < process.woke_at
        if (
            slept
            and peer.fastpath.fence.term > process.fastpath.fence.term
            and self.world.disturbed_at <= process.woke_at
            and self.world.network.has_healthy_path()
        ):
            raise SimulationError(f"{process.name} woke, and forwards, while {peer.name} reigns")

    def _check_takeover(self, heir: Process, reason: str) -> None:
        """Nobody takes the role from one who lives, moves, reigns, and is heard.

        Who can be asked only by a slow or lossy way, or answers by another one, may answer too late for
        ``confirm_ms``: a probe is answered by the path that it came by.
        """
        victim, info = self.world.nodes[1 - heir.index], heir.state.liveness.info
        if victim is None or not victim.alive or info is None or info.incarnation != victim.incarnation:
            return
        if reason == "peer-died":
            raise SimulationError(f"{heir.name} reigns by the death of {victim.name}, which lives")
        undisturbed = self.now - max(self.world.disturbed_at, victim.woke_at) > ms(UNDISTURBED_MS)
        network = self.world.network
        asked = reason != "peer-confirmed" or network.has_healthy_path() or network.is_deaf(victim.index)
        if undisturbed and asked and victim.is_open and network.hears(heir.index):
            raise SimulationError(f"{heir.name} takes over from {victim.name}, which it hears: {reason}")

    def _check_voices(self, running: list[Process]) -> None:
        """Who speaks for a virtual router: who reigns and has not lent it, and who has borrowed it."""
        if any(process.state.loans.told for process in running):
            self._lent_at = self.now
        voices = [self._voices(process) for process in running]
        two = len(voices) == 2 and voices[0] & voices[1] and self.world.network.has_healthy_path()
        if not two:
            self._two_voices_since = None
        elif self._two_voices_since is None:
            self._two_voices_since = self.now
        elif self.now - self._two_voices_since > ms(VOICES_MS):
            raise SimulationError(f"two nodes speak for one virtual MAC: {voices}")

    @staticmethod
    def _voices(process: Process) -> frozenset[str]:
        loans, reigns = process.state.loans, process.fastpath.fence.is_active
        wired = frozenset(name for name, link in process.state.tracks.links.items() if link.wire)
        spoken = frozenset(process.state.routers) - loans.lent if reigns else loans.borrowed
        return spoken & wired

    def _check_switches(self, alone: Process | None) -> None:
        """Frames of a node that reigns no more may mislead the switches; not for long."""
        if alone is None:
            self._alone = None
        elif self._alone is None or self._alone[0] is not alone:
            self._alone = (alone, self.now)
        if not self.world.network.has_healthy_ports():
            self._ports_healthy_since = None
        elif self._ports_healthy_since is None:
            self._ports_healthy_since = self.now
        if self._alone is None or self._ports_healthy_since is None:
            return
        process, since = self._alone
        if (
            self._announced_at[process] < self._ports_healthy_since
        ):  # into a faulty wire: the next advert tells
            since = max(since, Ns(self._ports_healthy_since + centiseconds(process.cfg.adver_int_cs)))
        if self._lent_at is not None:  # it was announced again when it was handed back
            since = max(since, Ns(self._lent_at + centiseconds(process.cfg.adver_int_cs)))
        if self.now <= since + ms(MISLED_MS):
            return
        for port, switch in self.world.network.switches.items():
            if switch.node != process.index and not switch.floods:  # it tells everybody until the next advert
                raise SimulationError(f"{process.name} reigns alone, unknown to the switch of {port}")

    # ---- of a crash ----------------------------------------------------------------------------------
    def check_inherited(self, dead: Process) -> None:
        """The ACTIVE node is dead: its peer has what it acknowledged."""
        peer = self.world.nodes[1 - dead.index]
        receiver = peer.state.session.receiver if peer is not None else None
        stream = dead.state.session.sender.stream
        if peer is None or receiver is None or stream is None or receiver.stream != stream:
            return
        for flow, (version, op) in self.acked[dead.index].items():
            have = peer.fastpath.flows.get(flow)
            if op is Op.DELETE:
                if have is not None and flow not in dead.fastpath.flows:
                    raise SimulationError(f"{peer.name} holds {flow:x}, whose end it acknowledged")
            elif (
                not self.world.flipped
                and dead.fastpath.flows.get(flow) == version
                and (have is None or have < version)
            ):
                raise SimulationError(f"{peer.name} acknowledged {flow:x} version {version}, and has {have}")

    # ---- of the end ----------------------------------------------------------------------------------
    def is_settled(self) -> bool:
        """Whether both nodes seem to be what they are to be in the end."""
        running = [p for p in self.world.nodes if p is not None and p.alive and not p.is_stalled]
        return (
            sorted(p.role for p in running) == [Role.PASSIVE, Role.ACTIVE]
            and all(p.state.role.ready == (p.role is Role.PASSIVE) for p in running)
            and all(p.fastpath.commit == (p.role is Role.ACTIVE) for p in running)
            and not any(p.requests.keys() - p.replies.keys() for p in running)
            and not any(p.state.session.receiver.differing or p.fastpath.lost for p in running)
        )

    def judge(self) -> None:
        """After quiescence."""
        running = [p for p in self.world.nodes if p is not None and p.alive]
        roles = [p.role.name for p in running]
        if sorted(roles) != ["ACTIVE", "PASSIVE"]:
            raise SimulationError(f"after quiescence the roles are {roles}")
        active, passive = sorted(running, key=lambda p: p.role is not Role.ACTIVE)
        if not passive.state.role.ready:
            raise SimulationError("after quiescence PASSIVE is not ready")
        missing = set(active.fastpath.flows) - set(passive.fastpath.flows)
        surplus = set(passive.fastpath.flows) - set(active.fastpath.flows)
        if missing or surplus:
            raise SimulationError(
                f"tables differ: {len(missing)} missing, {len(surplus)} too many on PASSIVE"
            )
        if active.fastpath.flows != passive.fastpath.flows:
            raise SimulationError("tables differ: versions on PASSIVE are not those of ACTIVE")
        for process, agreed_at in (
            (active, active.state.session.sender.audit.agreed_at),
            (passive, passive.state.session.receiver.agreed_at),
        ):
            if agreed_at is None or process.now - agreed_at > AGREED_S * NS_PER_S:
                raise SimulationError(f"{process.name}: the digests have not agreed for a while")
        if active.fastpath.lost or not active.fastpath.commit:
            raise SimulationError("ACTIVE has lost shards, or does not wait for its peer")
        if active.fastpath.fence.role is not Role.ACTIVE:
            raise SimulationError("ACTIVE is fenced, and does not know it")
