# SPDX-License-Identifier: Apache-2.0
"""Whether both tables agree, as the sender of a stream knows it: digests by shard, at equal places in it.

Theory of operation. Once per second (``audit_s``) the workers are asked for digests (``AskDigest``). Each
empties its queues into its ring and puts the digests of its own shards behind; so they come out of the drain
exactly where they are true, and travel as ``digest`` behind the batches that they cover. The receiver
compares them when all of these are live, and answers with the shards that differ (``audit``). A round is over
when every answer is here; the next begins no sooner.

A shard whose sweep is due or under way is left out: it is known not to be equal. One that differs is swept
again, as a repair. After ``REPAIRS_MAX`` repairs in a row that did not help there is an alarm, and another
attempt every ``RETRY_S``.

The digest itself is C's, ``csrc/digest.h``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from flexha.core import shards as sets
from flexha.core.actions import Action, AskDigest, Count, Level, Record
from flexha.core.events import DigestDrained
from flexha.core.shards import ALL, NONE, Shards
from flexha.core.sync_wire import Audit as Verdict
from flexha.core.sync_wire import Digest
from flexha.units import NS_PER_S, Ns, ms

REPAIRS_MAX: Final = 2
"""So many repairs in a row that do not help, and it is an alarm."""
RETRY_S: Final = 10
"""Then another attempt so often."""
RECHECK_MS: Final = 50
"""A round that is due while answers of the last one are outstanding is put off by so much."""
STUCK_S: Final = 5
"""Ask again if some worker has not answered for so long: changes of tracking make it forget."""

_SUM_BYTES, _COUNT_BYTES = 8, 4


@dataclass(frozen=True, slots=True)
class Asked:
    """A digest that the peer has yet to answer. ``judged``: shards of which its word still counts."""

    seq: int
    shards: Shards
    judged: Shards


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What is known of the agreement of both tables."""

    interval: Ns
    ask_at: Ns | None = None
    """When the next round begins; None while nobody follows."""
    asked_at: Ns = Ns(0)
    owed: Shards = NONE
    """Shards whose workers have not answered ``AskDigest``."""
    unanswered: tuple[Asked, ...] = ()
    agreed: Shards = NONE
    """Shards found equal in the present round."""
    agreed_at: Ns | None = None
    """When all of them were last found equal in one round."""
    in_sync: bool = False
    """They were, since the peer engaged."""
    differing: Shards = NONE
    unrepaired: Shards = NONE
    attempts: Mapping[int, int] = field(default_factory=dict)
    """Shard -> repairs since it was last found equal."""
    retry_at: Ns | None = None
    rounds: int = 0
    repaired: int = 0
    """Shards that a repair made equal."""

    @property
    def idle(self) -> bool:
        """No answer is outstanding, neither of a worker nor of the peer."""
        return not self.owed and not self.unanswered


Result = tuple[Audit, tuple[Action, ...]]


def begin(audit: Audit, first_at: Ns) -> Audit:
    """A peer follows from now on; what was known of an earlier one says nothing."""
    return Audit(
        interval=audit.interval,
        ask_at=first_at,
        asked_at=audit.asked_at,
        owed=audit.owed,
        agreed_at=audit.agreed_at,
        rounds=audit.rounds,
        repaired=audit.repaired,
    )


def end(audit: Audit) -> Audit:
    """Nobody follows any more."""
    return replace(begin(audit, Ns(0)), ask_at=None)


def soon(audit: Audit, now: Ns) -> Audit:
    """There is a reason to look before the interval is over."""
    return replace(audit, ask_at=now) if audit.ask_at is not None else audit


def ask(audit: Audit, now: Ns) -> Result:
    """Begin a round."""
    audit = replace(audit, owed=ALL, asked_at=now, agreed=NONE)
    if audit.ask_at is not None:
        audit = replace(audit, ask_at=Ns(now + audit.interval))
    return audit, (AskDigest(),)


def withdraw(audit: Audit, shards: Shards) -> Audit:
    """These are known not to be equal: what the peer still says of them is of the past."""
    if not any(asked.judged & shards for asked in audit.unanswered):
        return replace(audit, agreed=audit.agreed & ~shards)
    unanswered = tuple(replace(asked, judged=asked.judged & ~shards) for asked in audit.unanswered)
    return replace(audit, unanswered=unanswered, agreed=audit.agreed & ~shards)


def drained(audit: Audit, event: DigestDrained, seq: int, whole: Shards) -> tuple[Audit, Digest | None]:
    """A worker has answered, behind number ``seq``; the peer gets the digests of the ``whole`` shards."""
    audit = replace(audit, owed=audit.owed & ~(event.shards | event.of))
    wanted = event.shards & whole
    if audit.ask_at is None or not wanted:
        return audit, None
    sums = sets.select(event.sums, _SUM_BYTES, event.shards, wanted)
    counts = sets.select(event.counts, _COUNT_BYTES, event.shards, wanted)
    audit = replace(audit, unanswered=(*audit.unanswered, Asked(seq, wanted, wanted)))
    return audit, Digest(seq, wanted, sums, counts)


def answered(audit: Audit, verdict: Verdict, now: Ns) -> tuple[Audit, Shards, tuple[Action, ...]]:
    """The peer has compared. Which shards are to be swept again as a repair."""
    if not audit.unanswered or (audit.unanswered[0].seq, audit.unanswered[0].shards) != (
        verdict.seq,
        verdict.shards,
    ):
        return audit, NONE, ()  # of an earlier conversation
    asked, *rest = audit.unanswered
    equal, differ = asked.judged & ~verdict.differ, asked.judged & verdict.differ
    audit = replace(audit, unanswered=tuple(rest))
    audit, outputs = _equal(audit, equal, now)
    audit, due, more = _different(audit, differ, now) if differ else (audit, NONE, ())
    return audit, due, (*outputs, *more)


def _equal(audit: Audit, equal: Shards, now: Ns) -> Result:
    outputs: tuple[Action, ...] = ()
    mended = audit.differing & equal
    if mended:
        n = mended.bit_count()
        attempts = {shard: n for shard, n in audit.attempts.items() if not mended >> shard & 1}
        audit = replace(
            audit,
            differing=audit.differing & ~mended,
            unrepaired=audit.unrepaired & ~mended,
            attempts=attempts,
            repaired=audit.repaired + n,
            retry_at=audit.retry_at if audit.unrepaired & ~mended else None,
        )
        fields = {"shards": sets.listed(mended)}
        outputs = (
            Count("audit.repaired", n),
            Record(Level.INFO, "audit-repaired", fields, history=True),
        )
    audit = replace(audit, agreed=audit.agreed | equal)
    if audit.agreed == ALL:
        audit = replace(audit, agreed=NONE, agreed_at=now, in_sync=True, rounds=audit.rounds + 1)
    return audit, outputs


def _different(audit: Audit, differ: Shards, now: Ns) -> tuple[Audit, Shards, tuple[Action, ...]]:
    attempts = dict(audit.attempts)
    due = NONE
    for shard in sets.members(differ):
        done = attempts.get(shard, 0)
        attempts[shard] = done + 1
        if done < REPAIRS_MAX:
            due |= 1 << shard
    hopeless = differ & ~due & ~audit.unrepaired
    fresh = differ & ~audit.differing
    outputs: list[Action] = []
    if fresh:
        outputs.append(Count("audit.differing", fresh.bit_count()))
        outputs.append(Record(Level.WARNING, "audit-differs", {"shards": sets.listed(fresh)}, history=True))
    if hopeless:
        fields = {"shards": sets.listed(hopeless), "repairs": REPAIRS_MAX, "retry_s": RETRY_S}
        outputs.append(Count("audit.unrepaired", hopeless.bit_count()))
        outputs.append(Record(Level.ERROR, "audit-unrepaired", fields, history=True))
    unrepaired = audit.unrepaired | (differ & ~due)
    retry_at = audit.retry_at
    if unrepaired and retry_at is None:
        retry_at = Ns(now + RETRY_S * NS_PER_S)
    audit = replace(
        audit,
        attempts=attempts,
        differing=audit.differing | differ,
        unrepaired=unrepaired,
        retry_at=retry_at,
        agreed=audit.agreed & ~differ,
    )
    return audit, due, tuple(outputs)


def timer(audit: Audit, now: Ns) -> tuple[Audit, Shards, tuple[Action, ...]]:
    """A round may be due, or another attempt at what could not be repaired: these shards."""
    due = NONE
    outputs: tuple[Action, ...] = ()
    if audit.retry_at is not None and now >= audit.retry_at:
        due = audit.unrepaired
        audit = replace(audit, retry_at=Ns(now + RETRY_S * NS_PER_S))
    if audit.ask_at is None or now < audit.ask_at:
        return audit, due, outputs
    if audit.idle or (not audit.unanswered and now >= audit.asked_at + STUCK_S * NS_PER_S):
        audit, outputs = ask(audit, now)
    else:
        audit = replace(audit, ask_at=Ns(now + min(audit.interval, ms(RECHECK_MS))))
    return audit, due, outputs


def next_deadline(audit: Audit) -> Ns | None:
    """The earliest timer that runs."""
    if audit.ask_at is None:
        return None
    return audit.ask_at if audit.retry_at is None else min(audit.ask_at, audit.retry_at)
