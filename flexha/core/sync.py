# SPDX-License-Identifier: Apache-2.0
"""The sync session with the peer: one connection at a time, both ends (wire format: ``sync_wire``).

Modes of a connection::

    DOWN ── connected ──> GREETING ── hello ──> RECEIVING   we are JOINING or PASSIVE, the peer ACTIVE, and
     ^                                    │                 not of a past term: we say what we want
     │                                    └───> IDLE ── want ──> SENDING   we are ACTIVE, and the peer asks
     └──────── closed, by whom ever ────────────┘

A new role of ours is told by a new hello, and every hello lets its receiver choose the mode anew: a handover
turns the direction around without a new connection. What a mode does is in ``sync_sender`` and
``sync_receiver``.

What the peer does wrong ends the connection: counted under ``sync.<reason>``, told to the peer, recorded;
it never raises out of this module, and it has no effect on traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from flexha.core import agreed, sync_offer, sync_receiver, sync_sender, sync_wire
from flexha.core.actions import Action, CloseSync, Count, EndImport, HearKeys, Level, Record, SendSync
from flexha.core.agreed import Parts
from flexha.core.errors import RemoteProtocolError
from flexha.core.events import (
    DigestDrained,
    DigestsRead,
    FlowsAdopted,
    FlowsDrained,
    FlowsImported,
    FlowsStranded,
    Role,
    SayKeys,
    ShardsLost,
    SweepBegun,
    SweepWalked,
    SyncClosed,
    SyncConnected,
    SyncReceived,
    TimerFired,
)
from flexha.core.evolve import replace
from flexha.core.keys_wire import Keys, KeysAck
from flexha.core.sync_offer import Adoption, Offers
from flexha.core.sync_orders import (
    RECEIVING_ROLES,
    BeginDrain,
    DrainFailed,
    GoReceived,
    ImportBroken,
    PassedOn,
    PeerGone,
    SendGo,
    SendPassedOn,
    Settle,
    Stuck,
    SyncedChanged,
    TakeRole,
)
from flexha.core.sync_receiver import IMPORT_FAILURES_MAX, Receiver
from flexha.core.sync_sender import Drained, Sender, SyncLimits
from flexha.core.sync_wire import (
    Ack,
    Adopted,
    Audit,
    Batch,
    Beat,
    Close,
    Digest,
    FrameBuffer,
    Go,
    Hello,
    Message,
    Offer,
    Resume,
    Stream,
    SweepBegin,
    SweepEnd,
    Unknown,
    Want,
)
from flexha.core.table import Ignore, Offence, TransitionTable
from flexha.units import EPOCH, NO_TERM, NS_PER_S, Ns, Term, ms

__all__ = ["SyncLimits"]

COMPLAINT_S: Final = 60
OFFENCE_PAUSE_MAX_S: Final = 32
OFFENCES_MAX: Final = 10
"""A connection that ends for the reason that ended the last one is a warning again only after so long."""


class Mode(StrEnum):
    """What the connection is for."""

    DOWN = "down"
    GREETING = "greeting"
    IDLE = "idle"
    SENDING = "sending"
    RECEIVING = "receiving"


Input = (
    SyncConnected
    | SyncReceived
    | SyncClosed
    | FlowsDrained
    | ShardsLost
    | SweepBegun
    | SweepWalked
    | DigestDrained
    | FlowsImported
    | FlowsStranded
    | FlowsAdopted
    | DigestsRead
    | TimerFired
    | TakeRole
    | BeginDrain
    | Settle
    | SendGo
    | SendPassedOn
    | PeerGone
    | Stuck
    | SayKeys
)
Fact = SyncedChanged | Drained | DrainFailed | GoReceived | PassedOn | ImportBroken
Output = Action | Fact


@dataclass(frozen=True, kw_only=True)
class Session:
    """State of the session, connected or not."""

    pair: str
    index: int
    limits: SyncLimits
    equal: Parts = ()
    """What both nodes must have in common."""
    differs: tuple[str, ...] = ()
    """Parts of it that the peer's last hello did not agree with."""
    incarnation: int = 0
    role: Role = Role.INIT
    term: Term = NO_TERM
    mode: Mode = Mode.DOWN
    buffer: FrameBuffer = field(default_factory=FrameBuffer)
    peer: Hello | None = None
    """The peer's last hello on this connection."""
    unknown_told: bool = False
    """A message of a later version came on this connection, and was recorded."""
    heard_at: Ns = EPOCH
    said_at: Ns = EPOCH
    stuck: bool = False
    """A worker hangs, and nothing of its sessions can be told or imported."""
    offences: int = 0
    """Connections that ended because the ACTIVE peer said what is wrong, since the tables were last equal."""
    wary_until: Ns | None = None
    """Until then it is not followed."""
    closed_for: str = ""
    """Why the last connection ended."""
    closed_at: Ns = EPOCH
    shared_at: Ns = EPOCH
    """Of a node that reigns, and nobody follows: when the peer was last heard, or the reign began."""
    gave_word: bool = False
    """This reign ends by a handover."""
    offers: Offers = field(default_factory=Offers)
    adoption: Adoption = field(default_factory=Adoption)
    sender: Sender
    receiver: Receiver = field(default_factory=Receiver)
    bytes_sent: int = 0
    bytes_received: int = 0


Result = tuple[Session, tuple[Output, ...]]


def initial(pair: str, index: int, limits: SyncLimits, equal: Parts = ()) -> Session:
    """No connection, no role yet."""
    return Session(pair=pair, index=index, limits=limits, equal=equal, sender=sync_sender.initial(limits))


def step(session: Session, event: Input, now: Ns) -> Result:
    """One input in; the new state, actions and facts out. Never raises for what the peer sent."""
    was_synced = session.receiver.synced
    session, outputs = _dispatch(session, event, now)
    sent = 0
    for output in outputs:
        if isinstance(output, SendSync):
            sent += len(output.data)
    if sent:
        session = replace(session, bytes_sent=session.bytes_sent + sent, said_at=now)
    if session.receiver.synced and session.offences:
        session = replace(session, offences=0)
    if session.receiver.synced != was_synced:
        outputs = (*outputs, SyncedChanged(session.receiver.synced))
    return session, outputs


def next_deadline(session: Session) -> Ns | None:
    """The earliest timer that runs."""
    deadlines = [sync_sender.next_deadline(session.sender), session.wary_until, session.offers.until]
    if session.mode is not Mode.DOWN:
        deadlines.append(Ns(session.said_at + ms(session.limits.beat_ms)))
        deadlines.append(Ns(session.heard_at + ms(session.limits.silence_ms)))
    return min((t for t in deadlines if t is not None), default=None)


def _dispatch(session: Session, event: Input, now: Ns) -> Result:  # noqa: C901 - one arm for each input
    match event:
        case FlowsDrained():  # the most frequent ones first: an arm that does not match is not free
            return _by_sender(session, sync_sender.drained(session.sender, event))
        case SyncReceived():
            return _received(session, event.data, now)
        case FlowsImported():
            return _imported(session, event, now)
        case SyncConnected():
            return _connected(session, now)
        case SyncClosed(reason):
            return _disconnected(session, now, reason)
        case ShardsLost() | SweepBegun() | SweepWalked() | DigestDrained():
            return _drains(_marker(session, event, now), now)
        case DigestsRead():
            return _compared(session, event, now)
        case TimerFired():
            return _timer(session, now)
        case TakeRole(role, term):
            return _take_role(session, role, term, now)
        case BeginDrain():
            return _begin_drain(session, now)
        case Settle():
            if session.mode is not Mode.SENDING:
                return session, (DrainFailed(f"sync is {session.mode}, not sending"),)
            return _drains((replace(session, sender=sync_sender.settle(session.sender)), ()), now)
        case FlowsStranded():
            return _found(session, event, now)
        case FlowsAdopted():
            return _adopted(session, event)
        case SendGo(term, moves):
            session = replace(session, gave_word=True)
            return session, (SendSync(sync_wire.encode(Go(term, passes_on=True, moves=moves))),)
        case SendPassedOn(term):
            frame = sync_wire.encode(sync_wire.PassedOn(term))
            return session, () if session.mode is Mode.DOWN else (SendSync(frame),)
        case SayKeys(message):
            # Behind our hello, which stands first in each connection.
            said = () if session.mode is Mode.DOWN else (SendSync(sync_wire.encode(message)),)
            return session, said
        case Stuck(on):
            # What was under way is lost with the worker: the next connection finds out what is missing.
            reason = "a worker of this node hangs" if on else "all workers of this node move again"
            return _close(replace(session, stuck=on), now, reason)
        case PeerGone(reason):
            session, outputs = _close(session, now, reason)
            session, more = _by_sender(session, sync_sender.alone(session.sender))
            return session, (*outputs, *more)


# ---- connection --------------------------------------------------------------------------------------
def _connected(session: Session, now: Ns) -> Result:
    session, outputs = _disconnected(session, now, "replaced by a newer connection")
    session = replace(
        session, mode=Mode.GREETING, buffer=FrameBuffer(), peer=None, unknown_told=False, heard_at=now
    )
    return session, (*outputs, _hello(session), Record(Level.DEBUG, "sync-connected"))


def _disconnected(session: Session, now: Ns, reason: str) -> Result:
    if session.mode is Mode.DOWN:
        return session, ()
    drain = session.sender.drain
    session = _apart(session)
    sender, outputs = sync_sender.disconnected(session.sender, now)
    session = replace(
        session,
        mode=Mode.DOWN,
        buffer=FrameBuffer(),
        peer=None,
        sender=sender,
        receiver=sync_receiver.disconnected(session.receiver),
    )
    facts = (DrainFailed(f"the sync connection closed: {reason}"),) if drain is not None else ()
    again = _kind(reason) == _kind(session.closed_for) and now < session.closed_at + COMPLAINT_S * NS_PER_S
    session = replace(session, closed_for=reason, closed_at=session.closed_at if again else now)
    level = Level.DEBUG if again else Level.WARNING
    return session, (*outputs, Record(level, "sync-closed", {"reason": reason}), *facts)


def _apart(session: Session) -> Session:
    """If the peer has followed until now: what it has of our sessions is from before it was last heard."""
    return replace(session, shared_at=session.heard_at) if session.mode is Mode.SENDING else session


def _kind(reason: str) -> str:
    """Reasons that differ in numbers only are of one kind."""
    return "".join(c for c in reason if not c.isdigit())


def _close(session: Session, now: Ns, reason: str) -> Result:
    """End the connection ourselves."""
    if session.mode is Mode.DOWN:
        return session, ()
    session, outputs = _disconnected(session, now, reason)
    return session, (SendSync(sync_wire.encode(Close(reason))), CloseSync(reason), *outputs)


def _hello(session: Session) -> SendSync:
    hello = Hello(
        pair=session.pair,
        node=session.index,
        incarnation=session.incarnation,
        term=session.term,
        role=session.role,
        equal=session.equal,
    )
    return SendSync(sync_wire.encode(hello))


def _timer(session: Session, now: Ns) -> Result:
    outputs: tuple[Output, ...] = ()
    if session.mode is not Mode.DOWN and now >= session.heard_at + ms(session.limits.silence_ms):
        session, outputs = _close(session, now, f"nothing heard for {session.limits.silence_ms} ms")
        outputs = (Count("sync.silence"), *outputs)
    sender, stalled = sync_sender.watch(session.sender, now)
    session = replace(session, sender=sender) if sender is not session.sender else session
    if stalled:
        reason = f"nothing acknowledged for {session.limits.ack_stall_s:g} s"
        session, more = _close(session, now, reason)
        outputs = (*outputs, Count("sync.ack_stalled"), *more)
    session, more = _by_sender(session, sync_sender.timer(session.sender, now))
    outputs = (*outputs, *more)
    offers, more = sync_offer.timer(session.offers, now)
    session, outputs = replace(session, offers=offers), (*outputs, *more)
    if session.wary_until is not None and now >= session.wary_until:
        session, more = _engage(replace(session, wary_until=None), now)
        outputs = (*outputs, *more)
    if session.mode is not Mode.DOWN and now >= session.said_at + ms(session.limits.beat_ms):
        outputs = (*outputs, SendSync(sync_wire.encode(Beat())))
    return session, outputs


# ---- messages ----------------------------------------------------------------------------------------
def _received(session: Session, data: bytes, now: Ns) -> Result:
    """Bytes of the connection: take out whole messages and handle each."""
    if session.mode is Mode.DOWN:
        return session, ()  # of a connection that we have closed
    session = replace(session, heard_at=now, bytes_received=session.bytes_received + len(data))
    outputs: tuple[Output, ...] = ()
    try:
        buffer, payloads = session.buffer.feed(data, session.limits.frame_bytes_max)
        session = replace(session, buffer=buffer)
        for payload in payloads:
            session, more = _on_message(session, sync_wire.decode(payload), now)
            outputs = (*outputs, *more)
            if session.mode is Mode.DOWN:
                break
    except RemoteProtocolError as error:
        if session.mode is Mode.RECEIVING:  # a resume would bring the same again
            session = _offended(session, now)
            session = replace(session, receiver=sync_receiver.forget(session.receiver))
        session, more = _close(session, now, str(error))
        outputs = (*outputs, Count(f"sync.{error.reason}"), *more)
    return session, outputs


def _offended(session: Session, now: Ns) -> Session:
    """What the ACTIVE peer said is wrong; it will be told to begin anew, but not again and again.

    The first time may be an accident: no pause. Then 1 s, 2 s, and so on.
    """
    pause_s = 0 if session.offences == 0 else min(2 ** (session.offences - 1), OFFENCE_PAUSE_MAX_S)
    wary_until = Ns(now + pause_s * NS_PER_S)
    return replace(session, offences=min(session.offences + 1, OFFENCES_MAX), wary_until=wary_until)


def _on_message(session: Session, message: Message, now: Ns) -> Result:
    handler = MESSAGES.handler(session.mode, type(message))
    if handler is None:
        return session, ()
    result: Result = handler(session, message, now)
    return result


def _on_hello(session: Session, message: Hello, now: Ns) -> Result:
    if message.pair != session.pair:
        raise RemoteProtocolError("other_pair", f"the peer belongs to pair {message.pair!r}")
    if message.node == session.index:
        raise RemoteProtocolError("same_node", f"the peer says that it is node {message.node}, as we are")
    differs = agreed.differing(session.equal, message.equal)
    if differs:
        return _refuse(session, differs, now)
    if session.differs:
        session, record = replace(session, differs=()), Record(Level.INFO, "sync-config-agrees", history=True)
        session, outputs = _engage(replace(session, peer=message), now)
        return session, (record, *outputs)
    return _engage(replace(session, peer=message), now)


def _refuse(session: Session, differs: tuple[str, ...], now: Ns) -> Result:
    """With this peer there is no sync. Said once; until both agree each connection ends like this."""
    was, session = session.differs, replace(session, differs=differs)
    session, outputs = _close(session, now, f"the configuration differs: {', '.join(differs)}")
    outputs = (Count("sync.config_differs"), *outputs)
    if differs == was:
        return session, outputs
    fields = {"parts": list(differs), "remedy": agreed.remedy(differs)}
    return session, (Record(Level.ERROR, "sync-config-differs", fields, history=True), *outputs)


def _engage(session: Session, now: Ns) -> Result:
    """Choose the mode by both roles. A peer that was wrong lately is followed after a pause only."""
    peer = session.peer
    if peer is None or (session.mode is Mode.SENDING and _may_send(session)):
        return session, ()
    follows = session.role in RECEIVING_ROLES and not session.stuck
    if follows and peer.role is Role.ACTIVE and peer.term >= session.term:
        if session.mode is Mode.RECEIVING:
            return session, ()
        if session.wary_until is not None and now < session.wary_until:
            return replace(session, mode=Mode.IDLE), ()
        session = replace(session, mode=Mode.RECEIVING, wary_until=None)
        session, outputs = _by_receiver(session, sync_receiver.want(session.receiver))
        if not peer.adopts:
            return session, outputs
        return session, (*outputs, *sync_offer.say(session.offers))
    was_sending = session.mode is Mode.SENDING
    session = _apart(session)
    session = replace(session, mode=Mode.IDLE, receiver=sync_receiver.disconnected(session.receiver))
    if was_sending:
        return _by_sender(session, sync_sender.abdicate(session.sender))
    return session, ()


def _may_send(session: Session) -> bool:
    if session.role is not Role.ACTIVE or session.stuck:
        return False
    return session.peer is not None and session.peer.role in RECEIVING_ROLES


def _on_want(session: Session, message: Want, now: Ns) -> Result:
    """The peer follows us. A want that crossed a change of roles is void; a new hello brings a new one."""
    if not _may_send(session):
        return session, ()
    adoption = session.adoption if message.stream == session.sender.stream else sync_offer.listen()
    session = replace(session, mode=Mode.SENDING, adoption=adoption)
    return _by_sender(session, sync_sender.engage(session.sender, message.stream, message.seq, now))


def _on_sweep_begin(session: Session, message: SweepBegin, _now: Ns) -> Result:
    return _by_receiver(session, sync_receiver.sweep_begin(session.receiver, message))


def _on_resume(session: Session, message: Resume, _now: Ns) -> Result:
    return _by_receiver(session, sync_receiver.resume(session.receiver, message))


def _on_batch(session: Session, message: Batch, _now: Ns) -> Result:
    return _by_receiver(session, sync_receiver.batch(session.receiver, message))


def _on_sweep_end(session: Session, message: SweepEnd, _now: Ns) -> Result:
    session, outputs = _by_receiver(session, sync_receiver.sweep_end(session.receiver, message))
    since = session.offers.since
    if since is None:
        return session, outputs
    if not session.receiver.bulk:
        session = replace(session, offers=sync_offer.bulk_ended(session.offers))
    if session.peer is None or not session.peer.adopts:
        return session, outputs
    ended = (replace(o, since=since) if isinstance(o, EndImport) else o for o in outputs)
    return session, tuple(ended)


def _on_ack(session: Session, message: Ack, now: Ns) -> Result:
    sender = sync_sender.acknowledge(session.sender, message.seq, message.refused)
    return _drains(_by_sender(session, sender), now)


def _on_digest(session: Session, message: Digest, _now: Ns) -> Result:
    return _by_receiver(session, sync_receiver.digest(session.receiver, message))


def _on_audit(session: Session, message: Audit, now: Ns) -> Result:
    session, outputs = _by_sender(session, sync_sender.verdict(session.sender, message, now))
    if session.sender.audit.in_sync and session.adoption.left:
        session = replace(session, adoption=sync_offer.agreed(session.adoption, now))
    return _drains((session, outputs), now)


def _on_offer(session: Session, message: Offer, now: Ns) -> Result:
    adoption, outputs = sync_offer.offered(session.adoption, message, now)
    return replace(session, adoption=adoption), outputs


def _on_unasked_offer(session: Session, _message: Offer, _now: Ns) -> Result:
    return session, sync_offer.unasked()


def _on_adopted(session: Session, message: Adopted, _now: Ns) -> Result:
    offers, outputs = sync_offer.answered(session.offers, message)
    return replace(session, offers=offers), outputs


def _on_unknown(session: Session, message: Unknown, _now: Ns) -> Result:
    """Of a later version: skipped; said once for each connection."""
    outputs: tuple[Output, ...] = (Count("sync.unknown_message"),)
    if session.unknown_told:
        return session, outputs
    record = Record(Level.WARNING, "sync-unknown-message", {"t": message.kind})
    return replace(session, unknown_told=True), (*outputs, record)


def _on_go(session: Session, message: Go, _now: Ns) -> Result:
    return session, (GoReceived(message.term, message.passes_on, message.moves),)


def _on_passed_on(session: Session, message: sync_wire.PassedOn, _now: Ns) -> Result:
    return session, (PassedOn(message.term),)


def _on_keys(session: Session, message: Keys | KeysAck, _now: Ns) -> Result:
    return session, (HearKeys(message),)


def _on_beat(session: Session, _message: Beat, _now: Ns) -> Result:
    return session, ()


def _on_close(session: Session, message: Close, now: Ns) -> Result:
    session, outputs = _disconnected(session, now, f"by the peer: {message.reason}")
    return session, (CloseSync("closed by the peer"), *outputs)


_GREETED: Final = (Mode.IDLE, Mode.SENDING, Mode.RECEIVING)
_EARLY: Final = Offence("no_hello", "the first message is hello")
_NOT_SENDING: Final = Ignore("sent before it heard of our present role")

MESSAGES: Final = TransitionTable(
    (Mode.GREETING, Mode.IDLE, Mode.SENDING, Mode.RECEIVING),
    (
        Hello,
        Want,
        SweepBegin,
        Resume,
        Batch,
        SweepEnd,
        Ack,
        Digest,
        Audit,
        Go,
        sync_wire.PassedOn,
        Beat,
        Close,
        Keys,
        KeysAck,
        Offer,
        Adopted,
        Unknown,
    ),
    {
        Hello: {m: _on_hello for m in Mode if m is not Mode.DOWN},
        Want: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _on_want,
            Mode.SENDING: _on_want,
            Mode.RECEIVING: Ignore("sent before it heard of our present role"),
        },
        SweepBegin: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _NOT_SENDING,
            Mode.SENDING: _NOT_SENDING,
            Mode.RECEIVING: _on_sweep_begin,
        },
        Resume: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _NOT_SENDING,
            Mode.SENDING: _NOT_SENDING,
            Mode.RECEIVING: _on_resume,
        },
        Batch: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _NOT_SENDING,
            Mode.SENDING: _NOT_SENDING,
            Mode.RECEIVING: _on_batch,
        },
        SweepEnd: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _NOT_SENDING,
            Mode.SENDING: _NOT_SENDING,
            Mode.RECEIVING: _on_sweep_end,
        },
        Ack: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: Ignore("of a stream that is over"),
            Mode.SENDING: _on_ack,
            Mode.RECEIVING: Ignore("of a stream that is over"),
        },
        Digest: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _NOT_SENDING,
            Mode.SENDING: _NOT_SENDING,
            Mode.RECEIVING: _on_digest,
        },
        Audit: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: Ignore("of a stream that is over"),
            Mode.SENDING: _on_audit,
            Mode.RECEIVING: Ignore("of a stream that is over"),
        },
        Go: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: Ignore(
                "this node does not follow: its role has changed, or the word is of a past term"
            ),
            Mode.SENDING: Ignore("this node reigns already"),
            Mode.RECEIVING: _on_go,
        },
        Offer: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _on_unasked_offer,
            Mode.SENDING: _on_offer,
            Mode.RECEIVING: _on_unasked_offer,
        },
        Adopted: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: Ignore("what was offered is offered anew, or given up"),
            Mode.SENDING: Ignore("what was offered is our own again"),
            Mode.RECEIVING: _on_adopted,
        },
        sync_wire.PassedOn: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _on_passed_on,
            Mode.SENDING: _on_passed_on,
            Mode.RECEIVING: Ignore("this node does not reign"),
        },
        Beat: {m: _on_beat for m in Mode if m is not Mode.DOWN},
        Keys: {Mode.GREETING: _EARLY} | dict.fromkeys(_GREETED, _on_keys),
        KeysAck: {Mode.GREETING: _EARLY} | dict.fromkeys(_GREETED, _on_keys),
        Close: {m: _on_close for m in Mode if m is not Mode.DOWN},
        Unknown: {
            Mode.GREETING: _EARLY,
            Mode.IDLE: _on_unknown,
            Mode.SENDING: _on_unknown,
            Mode.RECEIVING: _on_unknown,
        },
    },
)
"""Mode x message. What is ignored is a message that crossed a change of ours on the wire."""


# ---- the two halves ----------------------------------------------------------------------------------
def _by_sender(session: Session, result: sync_sender.Result) -> Result:
    return replace(session, sender=result[0]), result[1]


def _by_receiver(session: Session, result: sync_receiver.Result) -> Result:
    return replace(session, receiver=result[0]), result[1]


def _marker(
    session: Session, event: ShardsLost | SweepBegun | SweepWalked | DigestDrained, now: Ns
) -> Result:
    """What a worker says between its records."""
    match event:
        case ShardsLost(shards):
            return _by_sender(session, sync_sender.lost(session.sender, shards))
        case SweepBegun(shards):
            return _by_sender(session, sync_sender.begun(session.sender, shards))
        case SweepWalked(shards):
            return _by_sender(session, sync_sender.walked(session.sender, shards, now))
        case DigestDrained():
            return _by_sender(session, sync_sender.digest_drained(session.sender, event))


def _drains(result: Result, now: Ns) -> Result:
    """What has just happened may be what a drain waits for."""
    session, outputs = result
    sender, more = sync_sender.progress(session.sender, now)
    if sender is session.sender:
        return result
    return replace(session, sender=sender), (*outputs, *more)


def _compared(session: Session, event: DigestsRead, now: Ns) -> Result:
    if session.mode is not Mode.RECEIVING:
        return session, ()
    return _by_receiver(session, sync_receiver.compared(session.receiver, event, now))


def _imported(session: Session, event: FlowsImported, now: Ns) -> Result:
    if session.role not in RECEIVING_ROLES:
        return (
            session,
            (),
        )  # performed before we took over; the peer that waits for the ack is no ACTIVE of ours
    if event.error is None:
        connected = session.mode is Mode.RECEIVING
        if event.absurd and connected:
            return _absurd(session, event, now)
        return _by_receiver(session, sync_receiver.imported(session.receiver, event, connected=connected))
    if event.offence is not None:
        session = _offended(session, now)
    receiver = sync_receiver.import_failed(session.receiver, offence=event.offence is not None)
    session, outputs = _close(
        replace(session, receiver=receiver), now, f"batch {event.seq} refused: {event.error}"
    )
    outputs = (Count(f"sync.{event.offence or 'import_refused'}"), *outputs)
    if session.receiver.import_failures >= IMPORT_FAILURES_MAX:
        outputs = (*outputs, ImportBroken(event.error))
    return session, outputs


def _found(session: Session, event: FlowsStranded, now: Ns) -> Result:
    """What only we had, who have yielded: for the winner."""
    if session.role not in RECEIVING_ROLES:
        return session, ()
    was = session.offers
    offers, outputs = sync_offer.found(was, event, now)
    session = replace(session, offers=offers)
    return session, outputs if session.mode is Mode.RECEIVING else ()


def _adopted(session: Session, event: FlowsAdopted) -> Result:
    """What the peer had, who has yielded, is ours; or our own, which it did not answer for."""
    adoption, outputs = sync_offer.adopted(session.adoption, event)
    session = replace(session, adoption=adoption)
    if session.mode is not Mode.SENDING or event.seq == 0:
        return session, outputs
    answer = Adopted(event.seq, event.taken, event.refused)
    return session, (SendSync(sync_wire.encode(answer)), *outputs)


def _absurd(session: Session, event: FlowsImported, now: Ns) -> Result:
    """Records that contradict themselves: nobody whose configuration is ours can have them.

    Once: should the bulk that follows bring them again, they are refused as if there were no room for them,
    and the audit gives the alarm. Else one bulk would follow the other for ever.
    """
    count = Count("sync.absurd_records", event.absurd)
    peer = session.peer
    if session.receiver.offended or peer is None or not agreed.same(session.equal, peer.equal):
        result = _by_receiver(session, sync_receiver.imported(session.receiver, event, connected=True))
        return result[0], (count, *result[1])
    receiver = replace(sync_receiver.forget(session.receiver), offended=True)
    session, outputs = _close(replace(session, receiver=receiver), now, "records that contradict themselves")
    return session, (count, *outputs)


def _take_role(session: Session, role: Role, term: Term, now: Ns) -> Result:
    """Our role or term has changed: the halves learn what it means, the peer hears of it."""
    was, session = session.role, replace(session, role=role, term=term)
    outputs: tuple[Output, ...] = ()
    session, own = _offers(session, was, now)
    if role is Role.ACTIVE and was is not Role.ACTIVE:
        session = replace(session, receiver=sync_receiver.forget(session.receiver))
        session, outputs = _by_sender(
            session, sync_sender.reign(session.sender, Stream(session.incarnation, term))
        )
    elif was is Role.ACTIVE and role is not Role.ACTIVE:
        session, outputs = _by_sender(session, sync_sender.abdicate(session.sender))
        session = replace(session, sender=replace(session.sender, stream=None))
    elif role is Role.ACTIVE:  # a handover failed: the stream goes on, and nobody waits for its end any more
        session = replace(session, sender=replace(session.sender, drain=None))
    if role not in RECEIVING_ROLES:
        session = replace(session, receiver=sync_receiver.forget(session.receiver))
    outputs = (*outputs, *own)
    if session.mode is Mode.DOWN:
        return session, outputs
    hello = _hello(session)
    session, more = _engage(session, now)
    return session, (*outputs, hello, *more)


def _offers(session: Session, was: Role, now: Ns) -> Result:
    """A role begins or ends: what there is to offer, and whether anybody may offer us anything."""
    role, offers = session.role, session.offers
    if role is Role.ACTIVE and was is not Role.ACTIVE:
        own = sync_offer.reclaim(offers)
        offers = Offers(last_seq=offers.last_seq)
        return replace(session, offers=offers, shared_at=now, gave_word=False), own
    if was is Role.ACTIVE and role is not Role.ACTIVE:
        session = replace(_apart(session), adoption=Adoption())
        if role in RECEIVING_ROLES and not session.gave_word:
            return replace(session, offers=sync_offer.yielded(offers, session.shared_at)), ()
    if role not in RECEIVING_ROLES and role is not Role.ACTIVE:
        return replace(session, offers=Offers(last_seq=offers.last_seq)), ()
    return session, ()


def _begin_drain(session: Session, now: Ns) -> Result:
    if session.mode is not Mode.SENDING:
        return session, (DrainFailed(f"sync is {session.mode}, not sending"),)
    if session.sender.bulk_in_progress:
        return session, (DrainFailed("the peer is still getting the whole table"),)
    return _drains((replace(session, sender=sync_sender.drain(session.sender)), ()), now)
