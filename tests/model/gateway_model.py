# SPDX-License-Identifier: Apache-2.0
"""Who may open which session, as plain Python: rules, forwards, filtering, hairpins, limits, a full table.

The pair and the states of TCP are in ``nat_model.py``; here the protocols are UDP, ICMP echo and GRE, that is
sessions with ports, with an identifier, and with addresses only. Readings chosen where there is room:

* What a rule sees of a packet is the inside host's own address and port, also where a forward leads.
* A hairpin is two sessions, and filtering sees its sender by its external address (RFC 4787 REQ-9).
* Which port a new mapping gets, and who of those without an answer makes room in a full table, is the
  implementation's choice: the model asks it, and checks that it was allowed to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from packets import ECHO_REQUEST, ICMP, LAN, UDP, WAN, WAN_VIP, Packet

from flexha.fastpath import Action, Filtering, Form, Forward, Policy

GRE = 47
TIMEOUT_S = {UDP: 300, ICMP: 60, GRE: 300}

Endpoint = tuple[IPv4Address, int]
Key = tuple[int, Endpoint, Endpoint]
"""Protocol, inside and remote endpoint: what tells sessions apart."""


@dataclass
class Session:
    """``external``: what the remote side knows the inside endpoint by."""

    proto: int
    inside: Endpoint
    remote: Endpoint
    external: Endpoint
    form: Form
    rule: int
    inbound: bool
    deadline_s: float = 0.0
    answered: bool = False

    @property
    def key(self) -> Key:
        return self.proto, self.inside, self.remote

    @property
    def hairpin(self) -> bool:
        return self.remote[0] == WAN_VIP


@dataclass(frozen=True)
class Way:
    """What is decided of an opener: ``refused`` is a verdict; the rest counts if there is none."""

    refused: str = ""
    form: Form = Form.SNAT
    rule: int = 0


Choices = Callable[[], dict[Key, int]]
"""The implementation's sessions with their external ports."""


class GatewayModel:
    """A node that is ACTIVE, with one pool on the VIP."""

    def __init__(self, filtering: Filtering, limit: int, cap: int, choices: Choices) -> None:
        self.filtering = filtering
        self.limit = limit
        self.cap = cap
        self.choices = choices
        self.policy = Policy()
        self.sessions: dict[Key, Session] = {}
        self.now_s = 0.0

    # ---- packets ----
    def outbound(self, packet: Packet) -> tuple[str, Packet | None]:
        """From an inside host: the verdict, and what leaves."""
        key = packet.proto, (packet.src, packet.sport), (packet.dst, packet.dport)
        session = self.sessions.get(key)
        if session is None:
            way = self._way_out(*key, opens=packet.icmp_type == ECHO_REQUEST)
            refused = way.refused or self._open(key, way, inbound=False)
            if refused:
                return refused, None
            session = self.sessions[key]
        elif self._is_out_of_turn(session, packet, by_inside=True):
            return "icmp_type", None
        self._touch(session, by_inside=True)
        if session.form is Form.NONE:
            return "routed", replace(packet, ttl=packet.ttl - 1)
        address, port = session.external
        seen = replace(packet, src=address, sport=port, ttl=packet.ttl - (not session.hairpin))
        if not session.hairpin:
            return "snat", seen
        verdict, seen_inside = self.inbound(seen)
        return verdict.replace("reverse", "hairpin"), seen_inside

    def inbound(self, packet: Packet) -> tuple[str, Packet | None]:
        """From outside, or the second half of a hairpin."""
        icmp = packet.proto == ICMP
        if packet.dst == WAN_VIP and icmp and packet.icmp_type == ECHO_REQUEST:
            return "vip_echo", packet.reply()
        external = packet.dst, packet.sport if icmp else packet.dport
        remote = packet.src, 0 if icmp else packet.sport
        session = self._by_external(packet.proto, external, remote)
        if session is None:
            inside, way = self._way_in(
                packet.proto, remote, external, opens=packet.icmp_type == ECHO_REQUEST or not icmp
            )
            key = packet.proto, inside, remote
            refused = way.refused or self._open(key, way, inbound=True, external=external)
            if refused:
                return refused, None
            session = self.sessions[key]
        elif self._is_out_of_turn(session, packet, by_inside=False):
            return "icmp_type", None
        self._touch(session, by_inside=False)
        address, port = session.inside
        seen = replace(packet, dst=address, ttl=packet.ttl - 1)
        seen = replace(seen, sport=port) if icmp else replace(seen, dport=port)
        return "routed" if session.form is Form.NONE else "reverse", seen

    def _by_external(self, proto: int, external: Endpoint, remote: Endpoint) -> Session | None:
        for session in self.sessions.values():
            if (session.proto, session.external, session.remote) == (proto, external, remote):
                return session
        return None

    @staticmethod
    def _is_out_of_turn(session: Session, packet: Packet, *, by_inside: bool) -> bool:
        """Of echo the opener sends the requests."""
        by_opener = by_inside is not session.inbound
        return packet.proto == ICMP and (packet.icmp_type == ECHO_REQUEST) is not by_opener

    def _touch(self, session: Session, *, by_inside: bool) -> None:
        session.deadline_s = self.now_s + TIMEOUT_S[session.proto]
        session.answered |= by_inside is session.inbound

    # ---- decisions ----
    def _forward_at(self, proto: int, external: Endpoint) -> Forward | None:
        for forward in self.policy.forwards:
            if (forward.proto, forward.external_port) == (proto, external[1]) and external[0] == WAN_VIP:
                return forward
        return None

    def _forward_of(self, proto: int, inside: Endpoint) -> Forward | None:
        for forward in self.policy.forwards:
            if (forward.proto, forward.inside, forward.inside_port) == (proto, *inside):
                return forward
        return None

    def _rule(self, proto: int, src: Endpoint, dst: Endpoint, ports: tuple[int, int]) -> int:
        """Number of the first rule that matches; 0: none."""
        dport = 0 if proto == ICMP else dst[1]
        for number, rule in enumerate(self.policy.rules, 1):
            if (
                (not rule.in_ports or ports[0] in rule.in_ports)
                and (not rule.src or any(src[0] in net for net in rule.src))
                and (not rule.dst or any(dst[0] in net for net in rule.dst))
                and (
                    not rule.services
                    or any(s.proto in {0, proto} and s.port_lo <= dport <= s.port_hi for s in rule.services)
                )
            ):
                return number
        return 0

    def _ask(
        self, proto: int, src: Endpoint, dst: Endpoint, ports: tuple[int, int], otherwise: str
    ) -> tuple[str, int, Form]:
        """Why the rules refuse it, or ""; which rule it was; how it says to translate."""
        number = self._rule(proto, src, dst, ports)
        if not number:
            return otherwise, 0, Form.SNAT
        rule = self.policy.rules[number - 1]
        refused = {Action.ALLOW: "", Action.DENY: "rule_denied", Action.REJECT: "rejected_icmp"}[rule.action]
        return refused, number, rule.form

    def _way_out(self, proto: int, inside: Endpoint, remote: Endpoint, *, opens: bool = True) -> Way:
        """The opener of a session comes from inside."""
        hairpin, behind = remote[0] == WAN_VIP, self._forward_at(proto, remote)
        if hairpin and proto != UDP:
            return Way("vip_echo" if proto == ICMP else "hairpin_portless")
        if hairpin and remote[1] < 1024 and not behind:
            return Way("vip_service")
        if proto == ICMP and not opens:
            return Way("icmp_type")
        denied = self.policy.default_outbound is Action.DENY and not behind
        seen = (behind.inside, behind.inside_port) if behind else remote
        assert isinstance(seen[0], IPv4Address)
        refused, rule, form = self._ask(
            proto, inside, (seen[0], seen[1]), (LAN, LAN if behind else WAN), "rule_denied" if denied else ""
        )
        if self._forward_of(proto, inside):
            form = Form.STATIC
        elif hairpin:
            form = Form.SNAT
        return Way(refused, form, rule)

    def _way_in(
        self, proto: int, remote: Endpoint, external: Endpoint, *, opens: bool = True
    ) -> tuple[Endpoint, Way]:
        """The opener comes from outside, or is the second half of a hairpin: to whom, and how."""
        inside, form, otherwise = external, Form.NONE, "outside_denied"
        if external[0] == WAN_VIP:
            forward = self._forward_at(proto, external)
            otherwise = ""
            if forward:
                assert isinstance(forward.inside, IPv4Address)
                inside, form = (forward.inside, forward.inside_port), Form.STATIC
            elif proto == GRE:
                return inside, Way("no_session")
            elif external[1] < 1024:
                return inside, Way("vip_service")
            elif proto == ICMP:
                return inside, Way("no_session")
            else:
                sharers = self._mapping(proto, external)
                if not sharers:
                    return inside, Way("no_session")
                if not self._lets_in(sharers, remote):
                    return inside, Way("filtered")
                inside, form = sharers[0].inside, Form.SNAT
        elif self._forward_of(proto, inside):
            return inside, Way("outside_denied")
        if proto == ICMP and not opens:
            return inside, Way("no_session")
        if remote[0] == WAN_VIP:
            return inside, Way(form=form)
        refused, rule, wanted = self._ask(proto, remote, inside, (WAN, LAN), otherwise)
        if form is Form.NONE and not refused and wanted is not Form.NONE:
            refused = "outside_denied"
        return inside, Way(refused, form, rule)

    def _mapping(self, proto: int, external: Endpoint) -> list[Session]:
        return [
            session
            for session in self.sessions.values()
            if (session.proto, session.form, session.external) == (proto, Form.SNAT, external)
        ]

    def _lets_in(self, sharers: list[Session], remote: Endpoint) -> bool:
        if self.filtering is Filtering.ADF:
            return any(session.remote[0] == remote[0] for session in sharers)
        return self.filtering is Filtering.EIF

    # ---- sessions ----
    def _open(self, key: Key, way: Way, *, inbound: bool, external: Endpoint | None = None) -> str:
        """Make a session; other than "" is why there is none."""
        proto, inside, remote = key
        told = "" if inbound else "_sent"
        if len(self.sessions) >= self.cap and not self._make_room():
            return "table_full" + told
        mine = sum(s.inside[0] == inside[0] and not s.inbound for s in self.sessions.values())
        if self.limit and mine >= self.limit and not inbound:
            return "source_limit" + told
        if external is None:
            external = self._external(key, way.form)
        elif way.form is Form.SNAT and not self._mapping(proto, external):
            return "no_session"
        if key in self.sessions or self._by_external(proto, external, remote):
            return "endpoint_taken" + told
        self.sessions[key] = Session(proto, inside, remote, external, way.form, way.rule, inbound)
        return ""

    def _external(self, key: Key, form: Form) -> Endpoint:
        """The external endpoint of what is opened from inside."""
        proto, inside, _ = key
        if form is Form.NONE:
            return inside
        if form is Form.STATIC:
            forward = self._forward_of(proto, inside)
            assert forward
            return WAN_VIP, forward.external_port
        if proto == GRE:
            return WAN_VIP, 0
        for session in self.sessions.values():
            if (session.proto, session.inside, session.form) == (proto, inside, Form.SNAT):
                return session.external
        port = self.choices()[key]
        assert port >= 1024
        assert port % 2 == inside[1] % 2
        assert not self._mapping(proto, (WAN_VIP, port)), "another mapping has it"
        return WAN_VIP, port

    def _make_room(self) -> bool:
        """Somebody goes who was not answered, if there is anybody."""
        candidates = {key for key, session in self.sessions.items() if not session.answered}
        if not candidates:
            return False
        (gone,) = self.sessions.keys() - self.choices().keys()
        assert gone in candidates
        del self.sessions[gone]
        return True

    # ---- time ----
    def expire(self, now_s: float) -> None:
        """What is due goes; a full table keeps a place."""
        self.now_s = now_s
        self.sessions = {key: s for key, s in self.sessions.items() if s.deadline_s > now_s}
        if len(self.sessions) >= self.cap:
            self._make_room()

    # ---- policy ----
    def review(self, policy: Policy) -> None:
        """What ``policy`` would not let open as it is goes; of the rest each has its rule's new number."""
        self.policy = policy
        for key, session in list(self.sessions.items()):
            if session.inbound and session.hairpin:
                inside, way = session.inside, Way(form=session.form, rule=session.rule)
            elif session.inbound:
                inside, way = self._way_in(session.proto, session.remote, session.external)
                if session.form is Form.SNAT and way.refused == "filtered":
                    way = self._let_in_before(session)
            else:
                inside, way = session.inside, self._way_out(*key)
            owner = self._forward_of(session.proto, session.inside)
            is_owners = (owner is not None) is (session.form is Form.STATIC)
            if way.refused or way.form is not session.form or inside != session.inside or not is_owners:
                del self.sessions[key]
            else:
                session.rule = way.rule

    def _let_in_before(self, session: Session) -> Way:
        """Filtering has let it in once; the rules are asked again."""
        refused, rule, _ = self._ask(session.proto, session.remote, session.inside, (WAN, LAN), "")
        return Way(refused, Form.SNAT, rule)
