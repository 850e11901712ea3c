# SPDX-License-Identifier: Apache-2.0
"""Peer liveness: silence on all paths, goodbye, restart. Spec: R13."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cores import peer_info

from flexha.core import heartbeat
from flexha.core.actions import Level, Record
from flexha.core.events import (
    LeaseAsked,
    PathDown,
    PathUp,
    PeerConfirmedDead,
    PeerDied,
    PeerHeard,
    Role,
    SuspicionRefuted,
)
from flexha.core.heartbeat import Awake, Fact, Liveness, PeerChanged, PeerFound, PeerLost, Report
from flexha.units import Ns, Term

PATHS = ("xc", "lan", "wan")
ACTIVE = peer_info(Role.ACTIVE, 3)


class Story:
    """A liveness and the facts that it tells."""

    def __init__(self) -> None:
        self.liveness: Liveness = heartbeat.initial(PATHS)
        self.records: list[Record] = []

    def facts(self, *events: Report) -> Sequence[Fact]:
        found: list[Fact] = []
        for event in events:
            self.liveness, outputs = heartbeat.step(self.liveness, event, Ns(10**9))
            self.records += [o for o in outputs if isinstance(o, Record)]
            found += [o for o in outputs if not isinstance(o, Record)]
        return found


def test_found_once_it_is_heard_and_known_in_either_order() -> None:
    assert Story().facts(PathUp("xc"), PeerHeard(ACTIVE)) == [PeerFound(ACTIVE)]
    assert Story().facts(PeerHeard(ACTIVE), PathUp("lan")) == [PeerFound(ACTIVE)]


def test_lost_only_when_silent_on_all_paths() -> None:
    """One path is heard: nothing has happened to the peer."""
    story = Story()
    story.facts(*(PathUp(path) for path in PATHS), PeerHeard(ACTIVE))
    assert story.facts(PathDown("xc"), PathDown("lan")) == []
    assert story.facts(PathDown("wan")) == [PeerLost("peer-silent", ACTIVE)]
    assert [r.level for r in story.records if r.event == "path-down"] == [
        Level.WARNING,
        Level.WARNING,
        Level.INFO,
    ]


def test_cross_connect_alone_is_recorded_and_nothing_else() -> None:
    story = Story()
    story.facts(*(PathUp(path) for path in PATHS), PeerHeard(ACTIVE))
    assert story.facts(PathDown("xc")) == []
    assert story.liveness.alive
    assert dict(story.records[-1].fields) == {"path": "xc", "heard": ["lan", "wan"], "was_for_ms": 0}


MARKS = frozenset({"xc-carrier"})


def test_a_confirmed_suspicion_is_silence_on_all_paths_at_once() -> None:
    """Spec: B2. What the paths say afterwards is no news, and the peer may come back: it was only away."""
    story = Story()
    story.facts(*(PathUp(path) for path in PATHS), PeerHeard(ACTIVE))
    assert story.facts(PeerConfirmedDead(MARKS, 8, 15.1)) == [PeerLost("peer-confirmed", ACTIVE)]
    told = next(r for r in story.records if r.event == "suspicion")
    assert dict(told.fields) == {"marks": ["xc-carrier"], "probes": 8, "verdict": "dead", "silence_ms": 15.1}
    assert told.history
    story.records.clear()
    assert story.facts(*(PathDown(path) for path in PATHS)) == []
    assert story.records == []
    assert story.facts(PathUp("lan"), PeerHeard(ACTIVE)) == [PeerFound(ACTIVE)]


def test_the_end_of_the_life_line_is_death_at_once() -> None:
    """Spec: R13, B2. Nobody is asked; heard again, it lives all the same, and its term decides."""
    story = Story()
    story.facts(*(PathUp(path) for path in PATHS), PeerHeard(ACTIVE))
    assert story.facts(PeerDied()) == [PeerLost("peer-died", ACTIVE)]
    story.records.clear()
    assert story.facts(*(PathDown(path) for path in PATHS), PeerDied()) == []
    assert story.records == []
    assert story.facts(PathUp("lan"), PeerHeard(ACTIVE)) == [PeerFound(ACTIVE)]
    assert story.facts(PeerHeard(replace(ACTIVE, bye=True))) == [
        PeerLost("peer-bye", replace(ACTIVE, bye=True))
    ]
    assert story.facts(PeerDied()) == [], "it had said goodbye"


def test_a_suspicion_of_a_peer_that_is_lost_already_is_only_recorded() -> None:
    story = Story()
    assert story.facts(PeerConfirmedDead(MARKS, 1, 15.0)) == []
    story.facts(PathUp("xc"), PeerHeard(replace(ACTIVE, bye=True)))
    assert story.facts(PeerConfirmedDead(MARKS, 1, 15.0)) == []


def test_a_refuted_suspicion_changes_nothing_but_the_history() -> None:
    """Spec: B2. It says who asked, and who answered."""
    story = Story()
    story.facts(*(PathUp(path) for path in PATHS), PeerHeard(ACTIVE))
    was = story.liveness
    assert story.facts(SuspicionRefuted(MARKS, 1, "lan", 0.4)) == []
    assert story.liveness == was
    assert story.records[-1].history
    assert dict(story.records[-1].fields) == {
        "marks": ["xc-carrier"],
        "probes": 1,
        "verdict": "alive",
        "path": "lan",
        "rtt_ms": 0.4,
    }


def test_a_change_is_told_with_what_was() -> None:
    story = Story()
    story.facts(PathUp("xc"), PeerHeard(ACTIVE))
    joining = replace(ACTIVE, role=Role.JOINING)
    assert story.facts(PeerHeard(joining)) == [PeerChanged(ACTIVE, joining)]
    assert story.facts(PeerHeard(joining)) == []


def test_goodbye_is_death_and_stays_so() -> None:
    story = Story()
    story.facts(PathUp("xc"), PeerHeard(ACTIVE))
    bye = replace(ACTIVE, bye=True)
    assert story.facts(PeerHeard(bye)) == [PeerLost("peer-bye", bye)]
    assert story.facts(PeerHeard(ACTIVE), PathDown("xc"), PathUp("xc")) == []


def test_a_new_incarnation_proves_the_old_ones_death() -> None:
    story = Story()
    story.facts(PathUp("xc"), PeerHeard(ACTIVE))
    reborn = peer_info(Role.JOINING, 0, life=1)
    assert story.facts(PeerHeard(reborn)) == [
        PeerLost("peer-restarted", ACTIVE, reborn),
        PeerFound(reborn),
    ]
    assert story.facts(PeerHeard(ACTIVE)) == [], "a delayed heartbeat of the dead one"
    assert story.liveness.info == reborn


def test_a_new_life_that_is_only_heard_to_end_is_no_new_life() -> None:
    """Nobody follows as found: whoever mourns must not wait for it."""
    story = Story()
    story.facts(PathUp("xc"), PeerHeard(ACTIVE))
    bye = peer_info(Role.INIT, 0, life=1, bye=True)
    assert story.facts(PeerHeard(bye)) == [PeerLost("peer-restarted", ACTIVE, None)]


def test_a_lower_incarnation_after_a_silence_buries_nobody() -> None:
    """A replay, or a clock that went back: the higher one may come back and is heard."""
    story = Story()
    reborn = peer_info(Role.PASSIVE, 3, life=1)
    story.facts(PathUp("lan"), PeerHeard(reborn), PathDown("lan"))
    assert story.facts(PathUp("lan"), PeerHeard(ACTIVE)) == [PeerFound(ACTIVE)]
    assert story.facts(PeerHeard(reborn)) == [
        PeerLost("peer-restarted", ACTIVE, reborn),
        PeerFound(reborn),
    ]


def test_after_a_silence_it_must_say_again_who_it_is() -> None:
    """What it said before may be long past: a path alone does not bring it back."""
    story = Story()
    story.facts(PathUp("xc"), PeerHeard(ACTIVE), PathDown("xc"))
    assert story.facts(PathUp("xc")) == []
    passive = peer_info(Role.PASSIVE, 4)
    assert story.facts(PeerHeard(passive)) == [PeerFound(passive)]


def test_dead_incarnations_are_remembered_within_bounds() -> None:
    story = Story()
    story.facts(PathUp("xc"))
    for life in range(20):
        story.facts(PeerHeard(peer_info(Role.JOINING, 0, life=life)))
    assert len(story.liveness.past) == heartbeat.PAST_INCARNATIONS_MAX


def test_an_unknown_path_is_a_path() -> None:
    """The pulse thread may know one that the configuration of VRRP does not."""
    assert Story().facts(PathUp("dmz"), PeerHeard(ACTIVE)) == [PeerFound(ACTIVE)]


HUNG = peer_info(Role.PASSIVE, 3, hung=True)


def test_a_hung_peer_that_gave_up_the_role_is_lost_until_it_hangs_no_more() -> None:
    """Spec: R13, B2. It is heard all the time."""
    story = Story()
    story.facts(*(PathUp(path) for path in PATHS), PeerHeard(ACTIVE))
    assert story.facts(PeerHeard(HUNG)) == [PeerLost("peer-hung", HUNG)]
    assert story.facts(PeerHeard(replace(HUNG, priority=7)), PathDown("lan"), PathUp("lan")) == []
    woken = peer_info(Role.JOINING, 4)
    assert story.facts(PeerHeard(woken)) == [PeerFound(woken)]
    assert story.facts(PeerHeard(replace(woken, hung=True))) == [
        PeerChanged(woken, replace(woken, hung=True))
    ], "it has no role to give up"


def test_a_hung_peer_that_reigns_on_lives() -> None:
    """Nobody could take over when it noticed; once somebody can, it gives up the role."""
    story = Story()
    story.facts(PathUp("xc"), PeerHeard(ACTIVE))
    reigns = replace(ACTIVE, hung=True)
    assert story.facts(PeerHeard(reigns)) == [PeerChanged(ACTIVE, reigns)]
    assert story.facts(PeerHeard(HUNG)) == [PeerLost("peer-hung", HUNG)]


def test_a_hung_peer_that_reigns_again_lives() -> None:
    """It gave up the role, its heir could not take it, and so it came back: nobody is to reign beside it."""
    story = Story()
    story.facts(PathUp("xc"), PeerHeard(ACTIVE))
    assert story.facts(PeerHeard(HUNG)) == [PeerLost("peer-hung", HUNG)]
    reigns = replace(ACTIVE, term=Term(4), hung=True)
    assert story.facts(PeerHeard(reigns)) == [PeerFound(reigns)]


def test_a_hung_peer_may_die() -> None:
    story = Story()
    story.facts(PathUp("xc"), PeerHeard(ACTIVE), PeerHeard(HUNG))
    assert story.facts(PathDown("xc")) == []
    again = peer_info(Role.JOINING, 4, life=1)
    assert story.facts(PeerHeard(again), PathUp("xc")) == [PeerFound(again)]


def test_a_question_about_the_lease_is_history() -> None:
    """Spec: B2."""
    story = Story()
    assert story.facts(LeaseAsked(40.5, 0.3, "xc"), LeaseAsked(99.0, 10.0, None)) == [Awake(), Awake()]
    assert [(r.event, r.history, r.fields["path"]) for r in story.records] == [
        ("lease-asked", True, "xc"),
        ("lease-asked", True, None),
    ]
