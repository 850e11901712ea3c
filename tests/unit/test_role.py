# SPDX-License-Identifier: Apache-2.0
"""The role machine, through the node: the ways between roles, open and closed. Spec: R1, R13, R15."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cores import (
    FOREIGN,
    Core,
    advert,
    adverts,
    batch,
    config,
    digest,
    garps,
    only,
    peer_info,
    received,
    records,
    roles,
    sent,
)

from flexha.core import node, role
from flexha.core.actions import (
    Action,
    AskDigest,
    PersistMaintenance,
    PersistTerm,
    Record,
    Reply,
    SendFrame,
    SetPulse,
    SetRole,
    SetWires,
    Stop,
)
from flexha.core.events import (
    Command,
    DigestsRead,
    Fenced,
    FlowsDrained,
    Hung,
    MaintenanceKept,
    MaintenanceNotKept,
    OperatorAsked,
    PathDown,
    PathUp,
    PeerHeard,
    PortChanged,
    Role,
    RoleSet,
    Started,
    StopRequested,
    SyncClosed,
    SyncConnected,
    TermPersisted,
    TermPersistFailed,
    TimerFired,
    Wires,
)
from flexha.core.role_moves import DISK_MS
from flexha.core.shards import ALL
from flexha.core.sync_orders import GoReceived, SyncedChanged
from flexha.core.sync_wire import Ack, Digest, Go, Hello, Stream, SweepBegin, SweepEnd
from flexha.units import TERM_MAX, Term

GO = Go(Term(3), passes_on=True)
READY_PEER = peer_info(Role.PASSIVE, 2, ready=True)


def reason(actions: tuple[Action, ...]) -> object:
    """Why the role changed, as the history says."""
    return records(actions, "role")[-1]["reason"]


def names(actions: tuple[Action, ...]) -> list[str]:
    return [type(action).__name__ for action in actions]


# ---- start -------------------------------------------------------------------------------------------
def test_a_node_joins_first() -> None:
    core = Core(config(0))
    actions = core.start()
    assert roles(actions) == [(Role.JOINING, 0)]
    assert only(actions, PersistTerm) == [PersistTerm(Term(2))], "a term of its own, ahead of need"
    assert not only(actions, SetPulse)[0].ready


def test_alone_it_reigns_when_the_links_are_known_to_be_free() -> None:
    """Active_Down_Interval of priority 150 is 3,414 ms: nobody else answers on the links."""
    core = Core(config(0))
    core.start()
    assert roles(core.sleep(3400)) == []
    actions = core.sleep(100)
    assert roles(actions) == [(Role.ACTIVE, 2)]
    assert reason(actions) == "no-peer"


def test_terms_of_earlier_lives_are_not_used_again() -> None:
    core = Core(config(0))
    core.start(term=8)
    assert roles(core.sleep(5000)) == [(Role.ACTIVE, 10)]


@pytest.mark.parametrize(("index", "term"), [(0, 2), (1, 1)])
def test_terms_have_a_parity(index: int, term: int) -> None:
    core = Core(config(index))
    core.start()
    core.sleep(5000)
    assert (core.role, core.term) == (Role.ACTIVE, term)


@pytest.mark.parametrize("heard", range(2, 8))
def test_no_two_nodes_ever_reign_in_one_term(heard: int) -> None:
    """By whatever way they come to it: so of two reigns one has the higher term, and nothing else decides."""
    reigned: list[set[int]] = [set(), set()]
    for index in (0, 1):
        dead = Core(config(index)).become_passive(heard)
        word = Core(config(index)).become_passive(heard)
        alone, outdated = Core(config(index)), Core(config(index)).become_active()
        alone.start(term=heard)
        actions = [
            dead.silence(),
            word.do(received(Go(Term(heard + 1)))),
            alone.sleep(5000),
            outdated.hear(peer_info(Role.PASSIVE, heard, index=1 - index)),
        ]
        for some in actions:
            reigned[index] |= {term for role, term in roles(some) if role is Role.ACTIVE}
        assert {term % 2 for term in reigned[index]} == {index}
    assert all(reigned)
    assert not reigned[0] & reigned[1]


def test_two_that_start_together_elect_the_higher_priority() -> None:
    stories = {}
    for index in (0, 1):
        core = Core(config(index))
        core.start()
        core.hear(peer_info(Role.JOINING, 0, index=1 - index))
        stories[index] = core.sleep(6000)
    assert roles(stories[0]) == [(Role.ACTIVE, 2)]
    assert reason(stories[0]) == "elected"
    assert roles(stories[1]) == []


def test_a_rejoining_node_never_takes_over_a_live_active() -> None:
    """Spec: R13: higher priority or not."""
    core = Core(config(0)).become_joining(3)
    assert roles(core.sleep(60_000)) == []
    core = Core(config(0)).become_passive(3)
    assert roles(core.sleep(60_000)) == []


def test_an_unsynced_node_takes_over_a_dead_active() -> None:
    """It is the only one left."""
    core = Core(config(0)).become_joining(3)
    actions = core.silence()
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert reason(actions) == "peer-silent"


def test_a_foreign_active_router_makes_a_backup() -> None:
    core = Core(config(0, has_peer=False))
    core.start()
    for _ in range(4):
        core.do(advert("wan", 200, FOREIGN["wan"]))
        core.sleep(1000)
    assert core.role is Role.PASSIVE
    assert not core.state.role.ready


def test_a_node_without_a_term_on_disk_is_not_ready() -> None:
    """A handover to it would leave nobody reigning until its disk has one. Spec: B3."""
    core = Core(config(0), prompt_disk=False).become_passive()
    assert not core.state.role.ready
    actions = core.do(TermPersisted(Term(4)))
    assert only(actions, SetPulse) == [SetPulse(ready=True)]
    actions = core.do(PeerHeard(peer_info(Role.ACTIVE, 5)))  # another reign: the term on disk is outdated
    assert only(actions, SetPulse) == [SetPulse(ready=False)]


# ---- takeover ----------------------------------------------------------------------------------------
def test_silence_on_all_paths_is_a_takeover_in_one_step() -> None:
    """Fence open, then adverts and gratuitous ARPs, then the rest; no disk is waited for. Spec: R13."""
    core = Core(config(0)).become_passive()
    core.prompt_disk = False
    actions = core.silence()
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert adverts(actions) == [("lan", 150), ("wan", 150)]
    assert garps(actions) == ["lan", "wan"]
    assert all(frame.fenced for frame in only(actions, SendFrame))
    first_record = names(actions).index("Record")
    assert max(i for i, n in enumerate(names(actions)) if n in ("SetRole", "SendFrame")) < first_record
    assert names(actions)[0] == "SetRole"
    assert reason(actions) == "peer-silent"


@pytest.mark.parametrize("heard", ["xc", "lan", "wan"])
def test_one_path_heard_changes_no_role(heard: str) -> None:
    """An xc cut alone changes no role. Spec: R13."""
    core = Core(config(0)).become_passive()
    for path in ("xc", "lan", "wan"):
        if path != heard:
            assert roles(core.do(PathDown(path))) == []
    assert roles(core.sleep(10_000)) == []


def test_goodbye_is_a_takeover() -> None:
    core = Core(config(0)).become_passive()
    actions = core.do(PeerHeard(peer_info(Role.INIT, 3, bye=True)))
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert reason(actions) == "peer-bye"


def test_a_hung_peer_that_gave_up_the_role_is_a_takeover() -> None:
    """It is heard all the time, and no hold is needed. Spec: R13, B2."""
    core = Core(config(0)).become_passive()
    actions = core.do(PeerHeard(peer_info(Role.PASSIVE, 3, hung=True)))
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert reason(actions) == "peer-hung"
    assert roles(core.do(PeerHeard(peer_info(Role.JOINING, 4)))) == []
    assert core.role is Role.ACTIVE


def test_a_restarted_active_is_a_dead_active() -> None:
    """It came back before any path fell silent: a new incarnation is proof."""
    core = Core(config(0)).become_passive()
    actions = core.do(PeerHeard(peer_info(Role.JOINING, 0, life=1)))
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert reason(actions) == "peer-restarted"


@pytest.mark.parametrize("become", ["become_passive", "become_joining"])
def test_a_restarted_peer_may_reign_already(become: str) -> None:
    """Its new life is heard, and reigns: the old one's death is no reason for a second reign."""
    core: Core = getattr(Core(config(0)), become)()
    assert roles(core.do(PeerHeard(peer_info(Role.ACTIVE, 7, life=1)))) == [(core.role, 7)]
    assert roles(core.sleep(5_000)) == []


def test_a_restarted_peer_may_be_the_more_entitled_one() -> None:
    """Both are JOINING, and it is elected: who mourns its old life neither forestalls that nor is stuck."""
    core = Core(config(1)).become_joining()
    reborn = peer_info(Role.JOINING, 0, index=0, life=1)
    assert roles(core.do(PeerHeard(reborn))) == []
    assert roles(core.sleep(5_000)) == []
    assert roles(core.silence()) == [(Role.ACTIVE, 3)]


def test_a_restarted_peer_that_leaves_at_once_is_mourned() -> None:
    core = Core(config(0)).become_passive()
    actions = core.do(PeerHeard(peer_info(Role.INIT, 0, life=1, bye=True)))
    assert roles(actions) == [(Role.ACTIVE, 4)]


def test_gratuitous_arps_are_repeated() -> None:
    """At once, after 10 ms, 100 ms and 1 s: frames get lost, or overtake each other."""
    core = Core(config(0)).become_passive()
    assert len(garps(core.silence())) == 2
    assert garps(core.sleep(9)) == []
    assert garps(core.sleep(2)) == ["lan", "wan"]
    assert garps(core.sleep(88)) == []
    assert garps(core.sleep(2)) == ["lan", "wan"]
    assert garps(core.sleep(898)) == []
    assert garps(core.sleep(2)) == ["lan", "wan"]
    assert garps(core.sleep(60_000)) == []


def test_a_takeover_waits_for_its_term_to_be_on_disk() -> None:
    core = Core(config(0), prompt_disk=False)
    core.start()
    core.hear(peer_info(Role.ACTIVE, 3))
    actions = core.silence()
    assert roles(actions) == []
    assert records(actions, "claim-waits-for-disk") != []
    assert roles(core.do(TermPersisted(Term(2)))) == [], "a term below the dead one's"
    assert roles(core.do(TermPersisted(Term(4)))) == [(Role.ACTIVE, 4)]


def test_a_claim_ends_when_the_peer_is_back() -> None:
    core = Core(config(0), prompt_disk=False)
    core.start()
    core.hear(peer_info(Role.ACTIVE, 3))
    core.silence()
    core.hear(peer_info(Role.ACTIVE, 3))
    assert roles(core.do(TermPersisted(Term(2)), TermPersisted(Term(4)))) == []


def test_a_node_without_any_wire_takes_nothing_over() -> None:
    """It hears nobody because it is cut off: the peer lives and serves."""
    core = Core(config(0)).become_passive()
    core.do(PortChanged("lan", up=False), PortChanged("wan", up=False))
    actions = core.silence()
    assert roles(actions) == []
    assert records(actions, "takeover-withheld")[0]["isolated"] is True
    assert roles(core.do(PortChanged("wan", up=True))) == [], "first it listens whether the peer is there"
    assert roles(core.sleep(1001)) == [(Role.ACTIVE, 4)]


def test_a_foreign_router_on_the_link_is_not_overrun() -> None:
    core = Core(config(0)).become_passive()
    core.do(advert("wan", 200, FOREIGN["wan"]))
    assert roles(core.silence()) == []
    actions = core.sleep(3500)
    assert roles(actions) == [(Role.ACTIVE, 4)]


def test_active_down_alone_moves_no_role_while_the_peer_lives() -> None:
    """Heartbeats decide; the peer's adverts may be lost."""
    core = Core(config(0)).become_passive()
    assert roles(core.sleep(30_000)) == []


# ---- two ACTIVE nodes --------------------------------------------------------------------------------
def test_the_lower_term_fences_first_and_joins() -> None:
    core = Core(config(0)).become_active()
    actions = core.hear(peer_info(Role.ACTIVE, 3))
    assert roles(actions) == [(Role.JOINING, 3)]
    assert reason(actions) == "higher-term"
    assert adverts(actions) == [], "the other router is Active: nothing is released"
    assert garps(core.sleep(5000)) == []
    assert adverts(core.sleep(5000)) == []


def test_a_fence_closed_by_c_is_followed() -> None:
    core = Core(config(0)).become_active()
    actions = core.do(Fenced(Term(3)))
    assert roles(actions) == [(Role.JOINING, 3)]
    assert only(actions, PersistTerm) == [PersistTerm(Term(4))]


def test_a_hung_active_has_been_fenced_and_joins() -> None:
    """Its control plane hears of it when it wakes, its peer reigns by then. Spec: R13, B2."""
    core = Core(config(0)).with_ready_peer()
    actions = core.do(Hung(frozenset({"control"}), None, yielded=True), PeerHeard(peer_info(Role.ACTIVE, 3)))
    assert roles(actions) == [(Role.JOINING, 2), (Role.JOINING, 3)]
    assert reason(actions) == "hung"
    assert records(actions, "hung") == [{"what": ["control"], "worker": None, "yielded": True}]
    assert adverts(actions) == [], "the other router is Active by now"
    assert roles(core.sleep(60_000)) == []


def test_a_hung_active_beside_nobody_stays() -> None:
    core = Core(config(0)).become_active()
    actions = core.do(Hung(frozenset({"worker"}), 1, yielded=False))
    assert roles(actions) == []
    assert records(actions, "hung") == [{"what": ["worker"], "worker": 1, "yielded": False}]


def test_a_peer_that_hangs_is_no_rival() -> None:
    """Of the better priority, but it decides nothing."""
    core = Core(config(1))
    core.start()
    core.hear(peer_info(Role.JOINING, 0, index=0, hung=True))
    assert roles(core.sleep(6000)) == [(Role.ACTIVE, 1)]


def test_the_higher_term_stays_and_announces_itself() -> None:
    core = Core(config(1))
    core.start(term=8)
    core.sleep(5000)
    actions = core.hear(peer_info(Role.ACTIVE, 2, index=0))
    assert core.role is Role.ACTIVE
    assert records(actions, "dual-active") == [{"term": 9, "peer_term": 2}]
    assert garps(actions) == ["lan", "wan"]
    actions = core.do(PeerHeard(peer_info(Role.JOINING, 9, index=0)))
    assert garps(actions) == ["lan", "wan"], "its last frames may have misled the bridges"


def test_the_higher_term_announces_itself_when_it_first_hears_a_peer_that_has_yielded() -> None:
    """The loser heard us first: it is fenced before we hear it, and its last frames misled the bridges."""
    core = Core(config(1))
    core.start(term=8)
    core.sleep(5000)
    actions = core.hear(peer_info(Role.JOINING, 9, index=0))
    assert core.role is Role.ACTIVE
    assert garps(actions) == ["lan", "wan"]
    assert adverts(actions) == [("lan", 100), ("wan", 100)]
    assert garps(core.sleep(1001)) == ["lan", "wan"] * 3


def test_a_false_takeover_is_answered_on_the_links() -> None:
    """The peer, deaf to our heartbeats, reigned until it heard our advert: its frames misled the bridges."""
    core = Core(config(0)).become_active()
    core.sleep(2000)
    actions = core.do(advert("lan", 100, "198.51.100.3"))
    assert core.role is Role.ACTIVE
    assert adverts(actions) == [("lan", 150)]
    assert garps(actions) == ["lan"]
    assert garps(core.sleep(11)) == ["lan"], "its last frame may come behind the answer"
    assert garps(core.sleep(990)) == ["lan"] * 2


def test_an_active_whose_term_was_overtaken_takes_a_new_one() -> None:
    """The peer reigned unheard, and yielded to our adverts: terms only grow, so ours must."""
    core = Core(config(0)).become_active()
    actions = core.hear(peer_info(Role.PASSIVE, 3))
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert reason(actions) == "outdated-term"


def test_a_claim_to_a_new_term_ends_with_the_reign() -> None:
    core = Core(config(0)).become_active()
    core.prompt_disk = False
    core.hear(peer_info(Role.PASSIVE, 3))
    assert roles(core.do(PeerHeard(peer_info(Role.ACTIVE, 5)))) == [(Role.JOINING, 5)]
    assert roles(core.do(TermPersisted(Term(4)), TermPersisted(Term(6)))) == []


def test_vrrp_decides_between_peers_that_do_not_hear_each_other() -> None:
    core = Core(config(1))
    core.start()
    core.sleep(5000)
    assert roles(core.do(advert("lan", 150, "198.51.100.2"))) == [], "a heartbeat may follow, and decide"
    core.sleep(499)
    assert roles(core.do(advert("wan", 150, "203.0.113.4"))) == []
    core.sleep(501)
    actions = core.do(advert("lan", 150, "198.51.100.2"))
    assert roles(actions) == [(Role.PASSIVE, 1)]
    assert reason(actions) == "outranked"
    assert roles(core.sleep(3700)) == [(Role.ACTIVE, 3)], "its adverts have ended"


def test_the_peers_adverts_do_not_outrank_while_heartbeats_live() -> None:
    core = Core(config(1)).become_active()
    core.hear(peer_info(Role.PASSIVE, 1, index=0))
    assert roles(core.do(advert("lan", 150, "198.51.100.2"))) == []


# ---- handover ----------------------------------------------------------------------------------------
def test_handover_by_the_operator() -> None:
    """Acknowledged, fenced, settled, then the word; the answer comes with it. Spec: R15."""
    core = Core(config(0)).with_ready_peer()
    actions = core.do(OperatorAsked(7, Command.FAILOVER))
    assert roles(actions) == [(Role.JOINING, 2)], "nothing was unacknowledged"
    assert sent(actions) == []
    assert only(actions, Reply) == []
    assert only(actions, AskDigest) == [AskDigest()], "behind their digests the workers have nothing to tell"
    actions = core.settle()
    told, go, hello = sent(actions)
    assert isinstance(told, Digest)
    assert go == Go(Term(3), passes_on=True)
    assert isinstance(hello, Hello)
    assert hello.role is Role.JOINING
    assert only(actions, Reply) == [Reply(7, ok=True, text="handed over to the peer")]
    assert roles(core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))) == [(Role.JOINING, 3)]


def test_the_word_makes_an_heir_reign() -> None:
    core = Core(config(0)).become_passive()
    core.do(PeerHeard(peer_info(Role.JOINING, 3)))
    actions = core.do(received(Go(Term(4))))
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert reason(actions) == "handover"


def test_a_word_of_a_past_term_is_not_taken() -> None:
    core = Core(config(0)).become_passive(5)
    actions = core.do(received(Go(Term(4))))
    assert roles(actions) == []
    assert records(actions, "stale-handover") == [{"term": 4, "known": 5}]


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (None, "the peer is not heard"),
        (peer_info(Role.JOINING, 2), "the peer is JOINING, not PASSIVE"),
        (peer_info(Role.PASSIVE, 2), "the peer is PASSIVE but not in sync"),
    ],
)
@pytest.mark.parametrize("command", [Command.FAILOVER, Command.MAINTENANCE_ENTER])
def test_no_handover_to_a_peer_that_is_not_ready(command: Command, info: object, text: str) -> None:
    core = Core(config(0)).become_active()
    if info is not None:
        core.hear(info)  # type: ignore[arg-type]
    assert core.do(OperatorAsked(1, command)) == (Reply(1, ok=False, text=f"refused: {text}"),)


def test_no_handover_without_sync() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(SyncClosed("cut"))
    (reply,) = only(core.do(OperatorAsked(1, Command.FAILOVER)), Reply)
    assert reply == Reply(1, ok=False, text="not handed over: sync is down, not sending")
    assert core.role is Role.ACTIVE


def test_no_handover_to_a_peer_that_does_not_acknowledge() -> None:
    core = Core(config(0)).with_ready_peer()
    from_fast_path(core)
    assert only(core.do(OperatorAsked(1, Command.FAILOVER)), SetRole) == []
    (second,) = only(core.do(OperatorAsked(2, Command.FAILOVER)), Reply)
    assert second.text == "refused: a handover is under way (operator)"
    (reply,) = only(core.sleep(501), Reply)
    assert reply == Reply(1, ok=False, text="not handed over: the peer did not acknowledge within 500 ms")
    assert core.role is Role.ACTIVE


def test_a_handover_whose_heir_dies_is_taken_back() -> None:
    """Behind the fence already: in a new term, which was reserved when it began."""
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(1, Command.FAILOVER))
    assert core.role is Role.JOINING
    actions = core.silence()
    assert roles(actions) == [(Role.ACTIVE, 4)]
    assert reason(actions) == "handover-failed"
    assert [reply.ok for reply in only(actions, Reply)] == [False]


def test_a_handover_whose_connection_breaks_is_taken_back() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(1, Command.FAILOVER))
    assert roles(core.do(SyncClosed("cut"))) == [(Role.ACTIVE, 4)]


def test_behind_the_fence_the_last_changes_follow() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(1, Command.FAILOVER))
    from_fast_path(core)
    actions = core.agree()
    assert GO not in sent(actions), "the word waits for the acknowledgement"
    assert GO in sent(core.do(received(Ack(3))))


def test_a_handover_does_not_wait_for_ever_behind_the_fence() -> None:
    """Nobody forwards meanwhile: after 500 ms the word is given, what is not acknowledged is lost."""
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(1, Command.FAILOVER))
    from_fast_path(core)
    actions = core.sleep(501)
    assert GO in sent(actions)
    assert records(actions, "handover-given") == [{"term": 3, "complete": False}]


def test_an_heir_that_does_not_take_the_word_is_replaced() -> None:
    """The word was lost with its connection, and the heir with it."""
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(1, Command.FAILOVER))
    core.settle()
    assert roles(core.silence()) == [(Role.ACTIVE, 4)]


def from_fast_path(core: Core) -> None:
    """One change comes out of the workers."""
    core.do(FlowsDrained(batch(1).sections, 1, {0: 1}))


# ---- preempt -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("preempt", [False, True])
def test_preempt_is_a_handover_that_the_reigning_node_begins(preempt: bool) -> None:
    core = Core(config(1, preempt=preempt)).with_ready_peer()
    core.sleep(1010)
    assert core.role is (Role.JOINING if preempt else Role.ACTIVE)


# ---- maintenance -------------------------------------------------------------------------------------
def test_a_passive_node_goes_and_comes_back() -> None:
    core = Core(config(0)).become_passive()
    actions = core.do(OperatorAsked(1, Command.MAINTENANCE_ENTER))
    assert roles(actions) == [(Role.MAINTENANCE, 3)]
    assert [r.ok for r in only(actions, Reply)] == [True]
    assert roles(core.silence()) == [], "somebody said no"
    assert roles(core.sleep(60_000)) == []
    core.hear(peer_info(Role.ACTIVE, 3))
    actions = core.do(OperatorAsked(2, Command.MAINTENANCE_EXIT))
    assert roles(actions) == [(Role.JOINING, 3)]


def test_an_active_node_hands_over_first() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(1, Command.MAINTENANCE_ENTER))
    actions = core.settle()
    assert roles(actions) == [(Role.MAINTENANCE, 2)]
    assert names(actions).index("SendSync") < names(actions).index("SetRole"), "the word comes first"
    assert [r.ok for r in only(actions, Reply)] == [True]


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (Command.FAILOVER, "refused: this node is PASSIVE: ask the ACTIVE one"),
        (Command.MAINTENANCE_EXIT, "refused: not in maintenance, but PASSIVE"),
    ],
)
def test_commands_that_make_no_sense_are_refused(command: Command, text: str) -> None:
    core = Core(config(0)).become_passive()
    assert core.do(OperatorAsked(1, command)) == (Reply(1, ok=False, text=text),)


def test_in_maintenance_only_exit_makes_sense() -> None:
    core = Core(config(0)).become_passive()
    core.do(OperatorAsked(1, Command.MAINTENANCE_ENTER))
    for command in (Command.FAILOVER, Command.MAINTENANCE_ENTER):  # what is on disk need not be written
        (reply,) = only(core.do(OperatorAsked(2, command)), Reply)
        assert reply.text == "refused: this node is in MAINTENANCE"


def test_maintenance_is_told_when_it_is_on_disk() -> None:
    core = Core(config(0), prompt_disk=False).become_passive()
    actions = core.do(OperatorAsked(1, Command.MAINTENANCE_ENTER))
    assert only(actions, PersistMaintenance) == [PersistMaintenance(1, on=True)]
    assert only(actions, Reply) == []
    (reply,) = only(core.do(MaintenanceKept(1, on=True)), Reply)
    assert (reply.request, reply.ok) == (1, True)
    assert "stays so over restarts" in reply.text
    actions = core.do(OperatorAsked(2, Command.MAINTENANCE_EXIT))
    assert only(actions, PersistMaintenance) == [PersistMaintenance(2, on=False)]
    (reply,) = only(core.do(MaintenanceKept(2, on=False)), Reply)
    assert (reply.request, reply.ok) == (2, True)


def test_a_disk_that_does_not_keep_maintenance_may_be_asked_again() -> None:
    core = Core(config(0), prompt_disk=False).become_passive()
    core.do(OperatorAsked(1, Command.MAINTENANCE_ENTER))
    (reply,) = only(core.do(MaintenanceNotKept(1, True, "no space")), Reply)
    assert not reply.ok
    assert "in MAINTENANCE now, but a restart would not end in maintenance: no space" in reply.text
    assert core.role is Role.MAINTENANCE
    actions = core.do(OperatorAsked(2, Command.MAINTENANCE_ENTER))
    assert actions == (PersistMaintenance(2, on=True),)
    core.do(MaintenanceKept(2, on=True), OperatorAsked(3, Command.MAINTENANCE_EXIT))
    (reply,) = only(core.do(MaintenanceNotKept(3, False, "no space")), Reply)
    assert "joining the pair now, but a restart may end in maintenance again: no space" in reply.text
    assert core.role is Role.JOINING


def test_a_node_that_was_in_maintenance_starts_so() -> None:
    """A restart is part of most maintenance: it must not bring the node back. Spec: R15."""
    core = Core(config(0))
    actions = core.do(Started(Term(4), 1, maintenance=True))
    assert roles(actions) == [(Role.MAINTENANCE, 0)]
    assert reason(actions) == "maintenance-kept"
    assert roles(core.sleep(60_000)) == [], "nobody reigns: somebody said no"
    assert node.status(core.state, core.now)["out_of_service"] is True
    core.do(OperatorAsked(1, Command.MAINTENANCE_EXIT))
    assert node.status(core.state, core.now)["out_of_service"] is False
    core.sleep(5000)
    assert (core.role, core.term) == (Role.ACTIVE, 6), "above the term that was on disk"


def test_commands_before_start_are_refused() -> None:
    (reply,) = only(Core(config(0)).do(OperatorAsked(1, Command.FAILOVER)), Reply)
    assert not reply.ok


# ---- fault -------------------------------------------------------------------------------------------
def test_a_disk_that_does_not_write_is_a_fault() -> None:
    core = Core(config(0), prompt_disk=False)
    core.start()
    core.hear(peer_info(Role.ACTIVE, 3))
    actions = core.do(TermPersistFailed(Term(2), "read-only file system"))
    assert roles(actions) == [(Role.FAULT, 3)]
    assert roles(core.silence()) == []
    actions = core.hear(peer_info(Role.ACTIVE, 3))
    assert only(actions, PersistTerm) == [PersistTerm(Term(6))], "tried again, above what may be on disk"
    assert roles(core.do(OperatorAsked(1, Command.MAINTENANCE_EXIT))) == [(Role.JOINING, 3)]


def test_a_claim_that_waits_for_the_disk_has_a_deadline() -> None:
    """The node says that it cannot reign, for the peer may; when the disk answers, it takes part again."""
    core = Core(config(0), prompt_disk=False)
    core.start()
    core.hear(peer_info(Role.ACTIVE, 3))
    core.silence()
    assert roles(core.sleep(DISK_MS - 1)) == []
    actions = core.sleep(1)
    assert roles(actions) == [(Role.FAULT, 3)]
    assert reason(actions) == "disk-slow"
    assert roles(core.do(TermPersisted(Term(2)))) == [], "not the one that is waited for"
    actions = core.do(TermPersisted(Term(4)))
    assert roles(actions) == [(Role.JOINING, 3)]
    assert reason(actions) == "disk-answers"
    assert roles(core.sleep(1000)) == [(Role.ACTIVE, 4)], "it is on disk: an election, and no more waiting"


def test_a_claim_that_waited_for_the_disk_is_not_honoured_beside_a_better_peer() -> None:
    """It was made while nobody was heard. Found by the model: both nodes reigned until the next heartbeat."""
    core = Core(config(1), prompt_disk=False)
    core.start()
    core.sleep(4000)
    assert core.role is Role.JOINING, "the disk has not answered"
    core.hear(peer_info(Role.PASSIVE, 0))
    assert roles(core.do(TermPersisted(Term(1)))) == []


def test_an_active_node_gives_up_a_claim_that_the_disk_does_not_answer() -> None:
    """A peer that reigned higher and yielded: the next that it says is reason enough to try again."""
    core = Core(config(0), prompt_disk=False)
    core.start()
    core.sleep(5000)
    core.do(TermPersisted(Term(2)))
    assert core.role is Role.ACTIVE
    core.hear(peer_info(Role.PASSIVE, 5))
    actions = core.sleep(DISK_MS)
    assert roles(actions) == []
    assert records(actions, "claim-given-up") != []
    core.do(TermPersisted(Term(6)), PeerHeard(peer_info(Role.JOINING, 5)))
    assert (core.role, core.term) == (Role.ACTIVE, 6)


def test_terms_that_have_run_out_are_a_fault() -> None:
    """Only a broken peer gets us there; then this node says so instead of dying of it."""
    core = Core(config(0))
    core.start()
    core.hear(peer_info(Role.ACTIVE, TERM_MAX))
    actions = core.silence()
    assert roles(actions) == [(Role.FAULT, TERM_MAX)]
    assert reason(actions) == "terms-exhausted"
    assert only(actions, PersistTerm) == []


def test_a_disk_that_does_not_write_leaves_an_active_node_alone() -> None:
    core = Core(config(0)).with_ready_peer()
    assert roles(core.do(TermPersistFailed(Term(4), "no space"))) == []


def test_a_fault_may_become_maintenance() -> None:
    core = Core(config(0), prompt_disk=False)
    core.start()
    core.do(TermPersistFailed(Term(2), "no space"))
    assert roles(core.do(OperatorAsked(1, Command.MAINTENANCE_ENTER))) == [(Role.MAINTENANCE, 0)]


# ---- stop --------------------------------------------------------------------------------------------
def test_an_active_node_stops_by_handing_over() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(StopRequested())
    actions = core.settle()
    assert GO in sent(actions)
    assert only(actions, Stop) == []
    actions = core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))
    assert only(actions, SetWires) == [SetWires(Wires.PASS_ON)]
    assert only(actions, Stop) == [], "what switches still send here goes to the heir"
    actions = core.sleep(101)
    assert only(actions, SetPulse)[-1].bye
    assert names(actions)[-1] == "Stop"
    assert adverts(actions) == [], "the heir is Active: a release would confuse"


def test_who_is_about_to_stop_does_not_take_the_role_back() -> None:
    """It follows in sync, while it passes on: it is not ready, refuses the word, and ends."""
    core = Core(config(0)).with_ready_peer()
    core.do(StopRequested())
    core.settle()
    core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))
    state, _ = role.step(core.state.role, SyncedChanged(True), core.now)
    assert state.role is Role.PASSIVE
    assert not state.ready
    state, outputs = role.step(state, GoReceived(Term(4), passes_on=True), core.now)
    assert state.role is Role.PASSIVE
    assert [output.event for output in outputs if isinstance(output, Record)] == ["handover-refused"]
    assert state.leave_at is not None
    _, outputs = role.step(state, TimerFired(), state.leave_at)
    assert Stop() in outputs


def test_an_heir_that_says_nothing_does_not_keep_us() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(StopRequested())
    core.settle()
    assert only(core.sleep(600), Stop) == [Stop()]


def test_an_active_node_without_a_ready_peer_says_goodbye() -> None:
    """Fence, then priority 0 on the links, then goodbye in the heartbeats."""
    core = Core(config(0)).become_active()
    actions = core.do(StopRequested())
    assert roles(actions) == [(Role.INIT, 2)]
    assert adverts(actions) == [("lan", 0), ("wan", 0)]
    pulse = only(actions, SetPulse)[-1]
    assert (pulse.bye, pulse.burst) == (True, True)
    assert names(actions)[-1] == "Stop"


def test_a_second_request_does_not_wait() -> None:
    core = Core(config(0)).with_ready_peer()
    from_fast_path(core)
    assert only(core.do(StopRequested()), Stop) == []
    assert only(core.do(StopRequested()), Stop) == [Stop()]


def test_a_stop_during_a_handover_is_a_stop_after_it() -> None:
    core = Core(config(0)).with_ready_peer()
    core.do(OperatorAsked(1, Command.FAILOVER), StopRequested())
    core.settle()
    core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))
    assert only(core.sleep(101), Stop) == [Stop()]


@pytest.mark.parametrize("role", [Role.PASSIVE, Role.MAINTENANCE])
def test_others_stop_at_once(role: Role) -> None:
    core = Core(config(0)).become_passive()
    if role is Role.MAINTENANCE:
        core.do(OperatorAsked(1, Command.MAINTENANCE_ENTER))
    actions = core.do(StopRequested())
    assert names(actions)[-1] == "Stop"
    assert adverts(actions) == []


def test_nothing_happens_after_the_stop() -> None:
    core = Core(config(0)).become_active()
    core.do(StopRequested())
    late = (
        TimerFired(),
        RoleSet(Role.INIT, Term(2)),
        PathUp("xc"),
        PeerHeard(READY_PEER),
        TermPersisted(Term(4)),
        StopRequested(),
        Fenced(Term(9)),
    )
    assert [type(a) for a in core.do(*late) if not isinstance(a, Record)] == []


def test_a_node_that_never_started_stops() -> None:
    assert only(Core(config(0)).do(StopRequested()), Stop) == [Stop()]


# ---- following ---------------------------------------------------------------------------------------
def test_a_follower_takes_the_terms_it_hears_and_stays_a_step_ahead() -> None:
    core = Core(config(0)).become_passive(3)
    actions = core.do(PeerHeard(peer_info(Role.ACTIVE, 7)))
    assert roles(actions) == [(Role.PASSIVE, 7)]
    assert only(actions, PersistTerm) == [PersistTerm(Term(8))]


def test_peers_of_which_none_reigns_elect_after_a_hold() -> None:
    """The word was given, but never taken."""
    core = Core(config(0)).become_passive()
    core.do(PeerHeard(peer_info(Role.JOINING, 3)))
    assert roles(core.sleep(999)) == []
    assert roles(core.sleep(2)) == [(Role.ACTIVE, 4)]


def test_a_node_that_is_not_eligible_is_no_rival() -> None:
    core = Core(config(1)).become_passive()
    core.do(PeerHeard(peer_info(Role.MAINTENANCE, 2, index=0)))
    assert roles(core.sleep(1001)) == [(Role.ACTIVE, 3)]


def test_synced_before_the_heartbeat_tells_of_the_reign() -> None:
    """Sync and heartbeats race; either may tell first that the peer reigns."""
    core = Core(config(0))
    core.start()
    core.hear(peer_info(Role.PASSIVE, 1))
    stream = Stream(0xBBBB, Term(3))
    hello = replace(core.peer_hello(Role.ACTIVE), term=Term(3))
    core.do(SyncConnected(), received(hello, SweepBegin(stream, 1, ALL), SweepEnd(2, ALL), digest(2)))
    core.do(DigestsRead(2, ALL, 0))
    assert core.role is Role.JOINING
    core.do(PeerHeard(peer_info(Role.ACTIVE, 3)))
    assert core.role is Role.PASSIVE
    assert core.state.role.ready
