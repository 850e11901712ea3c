# SPDX-License-Identifier: Apache-2.0
"""flexha.fastpath: every method of Fastpath, on in-memory ports."""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import msgpack
import packets
import pytest
from packets import LAN, TCP, UDP, WAN, Packet
from sections import COLUMNS, SECTIONS, pack, unpack

from flexha.core.events import Role
from flexha.core.shards import ALL as ALL_SHARDS
from flexha.fastpath import (
    COLUMN_WIDTHS,
    Drained,
    Fastpath,
    FastpathConfig,
    FastpathError,
    Fence,
    FlowState,
    Form,
    HeartbeatFlag,
    Imported,
    NeighbourMoved,
    NeighbourWanted,
    Op,
    Out,
    PulseKind,
    Punt,
    Source,
    column_width,
    lib,
    verdict_table,
)

S = 1_000_000_000
NOW = 1000 * S
DNS = Packet(UDP, packets.CLIENTS[0], packets.SERVERS[0], 5353, 53, payload=b"query")


def open_node(node: int = 0, **changes: object) -> Fastpath:
    return Fastpath(replace(packets.node_config(node), **changes))  # type: ignore[arg-type]


@pytest.fixture
def passive() -> Iterator[Fastpath]:
    """Node b: PASSIVE, with next hops, not started."""
    with open_node(1) as fastpath:
        fastpath.set_role(Role.PASSIVE, 2)
        fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
        yield fastpath


@pytest.fixture
def active() -> Iterator[Fastpath]:
    """Node a: ACTIVE, with next hops, tracking changes, not started."""
    with open_node() as fastpath:
        fastpath.test_expire(NOW)  # the clock of what follows
        fastpath.set_role(Role.ACTIVE, 2)
        fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
        fastpath.track_changes(on=True)
        yield fastpath


def forward(fastpath: Fastpath, packet: Packet, port: int = LAN, now_ns: int = NOW) -> Packet:
    frame = packet.from_lan() if port == LAN else packet.from_wan()
    (out,) = fastpath.test_step([frame], port=port, now_ns=now_ns)
    assert out.out is Out.WIRE, out.verdict
    return packets.parse(out.data)


def wait_for(condition: Callable[[], bool], fd: int | None = None) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        if fd is None:
            time.sleep(0.005)
        else:
            select.select([fd], [], [], 0.1)


# ---- life --------------------------------------------------------------------------------------------
def test_start_stop_and_close_are_safe_to_repeat() -> None:
    fastpath = open_node(n_workers=2)
    fastpath.start()
    with pytest.raises(FastpathError) as caught:
        fastpath.start()
    assert caught.value.errno == errno.EALREADY
    fastpath.stop()
    fastpath.stop()
    fastpath.start()
    fastpath.close()
    fastpath.close()
    with pytest.raises(FastpathError):
        fastpath.set_role(Role.PASSIVE, 0)


def config_with_port(index: int, **changes: object) -> FastpathConfig:
    config = packets.node_config()
    ports = list(config.ports)
    ports[index] = replace(ports[index], **changes)  # type: ignore[arg-type]
    return replace(config, ports=tuple(ports))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (replace(packets.node_config(), n_workers=17), "n_workers: 17 is not within 1..16"),
        (replace(packets.node_config(), flow_cap=1), "flow_cap: 1 is not within"),
        (replace(packets.node_config(), events_cap=100), "events_cap: 100 is no power of two"),
        (config_with_port(WAN, mtu=9000), "ports[1].mtu: 9000 is not within 576..1500"),
        (config_with_port(WAN, name="lan"), "ports[1].name: lan is taken"),
        (config_with_port(WAN, mac=b"\1\0\0\0\0\1"), "ports[1].mac: not a unicast address"),
        (config_with_port(WAN, vmac=None), "ports[1].vmac: missing, but there are VIPs"),
        (config_with_port(LAN, address=packets.LAN_VIP), "ports[0].vip[0]: is the port's own address"),
        (config_with_port(LAN, plen=33), "ports[0].plen: 33 is not within 1..32"),
        (config_with_port(LAN, peer_address=None), "ports[0].peer_mac, peer_addr: "),
    ],
)
def test_open_refuses_with_the_member_and_the_reason(config: FastpathConfig, said: str) -> None:
    with pytest.raises(FastpathError) as caught:
        Fastpath(config)
    assert caught.value.errno == errno.EINVAL
    assert caught.value.call == "fp_open"
    assert said in caught.value.detail
    assert str(caught.value).startswith("fp_open: ")


def test_pool_must_be_served_by_an_outside_port() -> None:
    config = packets.node_config()
    with pytest.raises(FastpathError, match=r"pools\[0\].out_port: 0 is no outside port"):
        Fastpath(replace(config, pools=(replace(config.pools[0], out_port=LAN),)))


def test_heartbeat_address_that_is_not_ours() -> None:
    config = packets.node_config()
    pulse = replace(
        config.pulse,
        xc_address=IPv4Address("192.0.2.77"),
        xc_peer_address=IPv4Address("192.0.2.78"),
    )
    with pytest.raises(FastpathError, match=r"heartbeat socket on xc 192\.0\.2\.77") as caught:
        Fastpath(replace(config, pulse=pulse))
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_files_are_closed() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        with open_node(n_workers=2) as fastpath:
            fastpath.start()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# ---- role --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("started", [False, True])
def test_role_and_term(started: bool) -> None:
    with open_node(n_workers=2) as fastpath:
        assert fastpath.fence() == Fence(Role.INIT, 0)
        if started:
            fastpath.start()
        fastpath.set_role(Role.ACTIVE, 4)
        assert fastpath.fence() == Fence(Role.ACTIVE, 4)
        with pytest.raises(FastpathError) as caught:
            fastpath.set_role(Role.ACTIVE, 3)
        assert caught.value.errno == errno.ESTALE
        assert fastpath.fence() == Fence(Role.ACTIVE, 4)
        fastpath.set_role(Role.PASSIVE, 4)
        assert fastpath.fence() == Fence(Role.PASSIVE, 4)
        with pytest.raises(FastpathError):
            fastpath.set_role(99, 5)


def test_passive_forwards_nothing(passive: Fastpath) -> None:
    """Spec: RFC 9568 §6.4.2: a Backup router does not forward for the virtual MAC."""
    frames = [DNS.from_lan(), packets.arp_request(packets.CLIENTS[0], packets.LAN_VIP)]
    out = passive.test_step(frames, port=LAN, now_ns=NOW)
    assert [(f.out, f.verdict) for f in out] == [
        (Out.NONE, "vmac_not_active"),
        (Out.NONE, "arp_vip_not_active"),
    ]


def test_a_borrower_answers_arp_and_passes_the_rest_on(passive: Fastpath) -> None:
    """For the port that it stands in for, unfenced, in the virtual router's name. Spec: R8."""
    request = packets.arp_request(packets.CLIENTS[0], packets.LAN_VIP)
    passive.set_conduit(on=True, term=4, vmac_ports=(LAN,), borrowed=(LAN,))
    packet, answer = passive.test_step([DNS.from_lan(), request], port=LAN, now_ns=NOW)
    vmac = DNS.from_lan()[:6]
    assert (packet.out, packet.verdict) == (Out.CONDUIT, "conduit_to")
    assert (answer.out, answer.verdict, answer.fenced) == (Out.WIRE, "arp_vip", False)
    assert (answer.data[6:12], answer.data[22:28]) == (vmac, vmac)
    passive.set_conduit(on=True, term=4, vmac_ports=(LAN,))  # it has given it back
    packet, silence = passive.test_step([DNS.from_lan(), request], port=LAN, now_ns=NOW)
    assert (packet.out, silence.verdict) == (Out.CONDUIT, "arp_vip_not_active")


def test_a_lender_is_silent_on_its_port(active: Fastpath) -> None:
    """Spec: R8."""
    active.set_conduit(on=False, lent=(LAN,))
    request = packets.arp_request(packets.CLIENTS[0], packets.LAN_VIP)
    (silence,) = active.test_step([request], port=LAN, now_ns=NOW)
    assert (silence.out, silence.verdict) == (Out.NONE, "arp_vip_not_active")
    active.set_conduit(on=False)
    (answer,) = active.test_step([request], port=LAN, now_ns=NOW)
    assert (answer.out, answer.verdict, answer.fenced) == (Out.WIRE, "arp_vip", True)


# ---- frames ------------------------------------------------------------------------------------------
def test_forward_and_return(active: Fastpath) -> None:
    """Spec: R6, R7, R12."""
    sent = forward(active, DNS)
    assert (sent.src, sent.dst, sent.dport, sent.payload) == (packets.WAN_VIP, DNS.dst, 53, b"query")
    assert sent.ttl == DNS.ttl - 1
    back = forward(active, sent.reply(ttl=60), WAN)
    assert (back.src, back.dst, back.sport, back.dport, back.ttl) == (DNS.dst, DNS.src, 53, 5353, 59)


def test_burst_limits(active: Fastpath) -> None:
    assert len(active.test_step([DNS.from_lan()] * 64, port=LAN, now_ns=NOW)) == 64
    with pytest.raises(FastpathError):
        active.test_step([DNS.from_lan()] * 65, port=LAN, now_ns=NOW)
    with pytest.raises(FastpathError):
        active.test_step([DNS.from_lan()], port=2, now_ns=NOW)
    assert active.test_step([], port=LAN, now_ns=NOW) == []


def test_host_side(active: Fastpath) -> None:
    frame = DNS.frame(packets.CLIENT_MAC, packets.port_mac(0, LAN))
    (out,) = active.test_step([frame], port=LAN, now_ns=NOW, source=Source.HOST)
    assert (out.out, out.out_port, out.data, out.fenced) == (Out.WIRE, LAN, frame, False)


def test_step_is_refused_while_the_workers_run() -> None:
    with open_node() as fastpath:
        fastpath.start()
        for call in (
            lambda: fastpath.test_step([], port=LAN, now_ns=NOW),
            lambda: fastpath.test_expire(NOW),
            fastpath.test_heartbeat,
            lambda: fastpath.test_pulse_tick(NOW),
        ):
            with pytest.raises(FastpathError) as caught:
                call()
            assert caught.value.errno == errno.EBUSY


def test_missing_neighbour_is_asked_for_once(active: Fastpath) -> None:
    active.commit_fib(packets.ROUTES, ())
    for _ in range(3):
        (out,) = active.test_step([DNS.from_lan()], port=LAN, now_ns=NOW)
        assert (out.out, out.verdict, out.next_hop) == (Out.WAIT, "neigh_wait", packets.ISP)
    wanted = [punt for punt in active.punts() if isinstance(punt, NeighbourWanted)]
    assert wanted == [NeighbourWanted(NOW, WAN, packets.ISP)]
    assert active.worker_stats(0).neigh_waiting == 3
    active.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
    assert active.worker_stats(0).neigh_waiting == 0
    assert active.port_stats(WAN).tx_frames == 3


def test_a_neighbour_that_asks_from_another_mac_is_told_of(active: Fastpath) -> None:
    """RFC 826 "merge": the kernel never sees who asks for a VIP."""
    client, mac = packets.CLIENTS[0], bytes.fromhex("02aabbccddee")

    def ask(sender_mac: bytes) -> list[Punt]:
        arp = (
            bytes.fromhex("0001080006040001") + sender_mac + client.packed + bytes(6) + packets.LAN_VIP.packed
        )
        frame = (b"\xff" * 6 + sender_mac + b"\x08\x06" + arp).ljust(60, b"\0")
        (out,) = active.test_step([frame], port=LAN, now_ns=NOW)
        assert out.verdict == "arp_vip"
        return active.punts()

    assert ask(packets.CLIENT_MAC) == []
    assert ask(mac) == [NeighbourMoved(NOW, LAN, client, mac)]
    assert ask(mac) == []


def test_fib_is_validated(active: Fastpath) -> None:
    with pytest.raises(FastpathError):
        active.commit_fib([replace(packets.ROUTES[0], port=2)], ())
    with pytest.raises(FastpathError):
        active.commit_fib((), [replace(packets.NEIGHBOURS[0], port=2)])
    active.commit_fib((), ())
    (out,) = active.test_step([DNS.from_lan()], port=LAN, now_ns=NOW)
    assert out.verdict == "no_route"


# ---- sync out ----------------------------------------------------------------------------------------
def test_drain_and_ack(active: Fastpath) -> None:
    forward(active, DNS)
    (batch,) = active.drain()
    (part,) = unpack(batch.sections)
    assert (part.op, part.n, part.family) == (Op.OPEN, 1, 4)
    assert (batch.marks, batch.lost, batch.swept, batch.digests, batch.more) == ({0: 1}, 0, None, None, False)
    assert set(part.columns["form"]) == {Form.SNAT}
    assert part.columns["inside"] == DNS.src.packed
    assert active.drain() == []
    # Gone: a tombstone until the peer has it.
    assert active.test_expire(NOW + 400 * S) == 1
    assert active.worker_stats(0).tombstones == 1
    (deleted,) = active.drain()
    assert [part.op for part in unpack(deleted.sections)] == [Op.DELETE]
    active.ack(batch.marks)
    assert active.worker_stats(0).tombstones == 1
    active.ack(deleted.marks)
    assert active.worker_stats(0).tombstones == 0


def test_drain_takes_no_more_than_asked_for(active: Fastpath) -> None:
    for i in range(10):
        forward(active, replace(DNS, sport=6000 + i))
    sizes, more = [], True
    while more:
        (batch,) = active.drain(8)
        sizes.append(batch.n)
        more = batch.more
    assert sizes == [8, 2]


def test_untracked_changes_are_forgotten(active: Fastpath) -> None:
    forward(active, DNS)
    active.track_changes(on=False)
    assert active.drain() == []
    forward(active, replace(DNS, sport=1))
    active.track_changes(on=True)
    assert active.drain() == []


def test_bulk_walk_ends_once_all_workers_are_through() -> None:
    with open_node(n_workers=3) as fastpath:
        fastpath.set_role(Role.ACTIVE, 2)
        fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
        for i in range(40):
            frame = replace(DNS, sport=7000 + i).from_lan()
            (out,) = fastpath.test_step([frame], port=LAN, now_ns=NOW)
            if out.out is Out.HANDOFF:
                (out,) = fastpath.test_step([frame], port=LAN, now_ns=NOW, worker=out.owner)
            assert out.verdict == "snat"
        fastpath.track_changes(on=True)
        fastpath.sweep_start()
        batches: list[Drained] = []
        while not (batches and batches[-1].swept is not None):
            batches += fastpath.drain(16)
        assert sum(batch.n for batch in batches) == 40
        assert [batch.swept for batch in batches[:-1]] == [None] * (len(batches) - 1)
        assert batches[-1].swept == ALL_SHARDS
        assert fastpath.drain() == []


def test_digests_of_both_nodes_are_equal_behind_the_same_batch(active: Fastpath, passive: Fastpath) -> None:
    """Spec: B5."""
    for i in range(20):
        forward(active, replace(DNS, sport=6000 + i))
    active.digest_ask()
    (batch,) = active.drain()
    assert passive.import_sections(batch.sections).taken == 20
    told = batch.digests
    assert told is not None
    assert (told.of, told.shards) == (ALL_SHARDS, ALL_SHARDS)
    assert told == passive.digests()
    assert sum(int.from_bytes(told.counts[i : i + 4], "little") for i in range(0, 256, 4)) == 20
    forward(active, replace(DNS, sport=99))
    active.digest_ask()
    (batch,) = active.drain()
    assert batch.digests != passive.digests(), "what is told has to be imported first"
    passive.import_sections(batch.sections)
    assert batch.digests == passive.digests()


# ---- sync in -----------------------------------------------------------------------------------------
def test_takeover_goes_on_with_the_same_mapping(active: Fastpath, passive: Fastpath) -> None:
    """Spec: R13, R19."""
    sent = forward(active, DNS)
    for batch in active.drain():
        assert passive.import_sections(batch.sections).taken == batch.n
    passive.test_expire(NOW)
    passive.set_role(Role.ACTIVE, 3)
    back = forward(passive, sent.reply(), WAN)
    assert (back.dst, back.dport) == (DNS.src, DNS.sport)
    assert forward(passive, DNS).sport == sent.sport


def test_import_is_refused_while_active(active: Fastpath) -> None:
    forward(active, DNS)
    (batch,) = active.drain()
    for call in (
        lambda: active.import_sections(batch.sections),
        active.import_begin,
        active.import_end,
    ):
        with pytest.raises(FastpathError) as caught:
            call()
        assert caught.value.errno == errno.EPERM


def test_bulk_import_sweeps_what_it_did_not_refresh(active: Fastpath, passive: Fastpath) -> None:
    forward(active, DNS)
    (first,) = active.drain()
    passive.import_sections(first.sections)
    forward(active, replace(DNS, sport=99))
    (second,) = active.drain()
    passive.import_begin()
    passive.import_sections(second.sections)
    assert passive.import_end() == 1
    assert {flow.inside_port for flow in passive.flows()} == {99}


def test_what_only_the_loser_has_is_adopted(active: Fastpath, passive: Fastpath) -> None:
    """Both reigned: what the bulk did not bring, and was in use, is the winner's from then on. Spec: R13."""
    sent = forward(active, DNS)
    passive.set_role(Role.ACTIVE, 3)
    forward(passive, replace(DNS, sport=99))
    bulk = [batch.sections for batch in passive.drain()]
    active.set_role(Role.JOINING, 3)
    active.import_begin()
    for sections in bulk:
        active.import_sections(sections)
    assert list(active.stranded(ALL_SHARDS, NOW + S)) == []
    assert list(active.stranded(0, 0)) == []
    ((sections, n),) = active.stranded(ALL_SHARDS, 0)
    assert (n, active.import_end()) == (1, 1)
    with pytest.raises(FastpathError) as caught:
        active.adopt_sections(sections)
    assert caught.value.errno == errno.EPERM
    assert passive.adopt_sections(sections) == Imported(1, 1, 0)
    assert passive.adopt_sections(sections) == Imported(1, 1, 0), "it is there"
    assert forward(passive, DNS).sport == sent.sport


def test_an_offer_that_is_none_is_refused(active: Fastpath, passive: Fastpath) -> None:
    """As sections, and as pairs of first words and the rest: nothing of it is used. Spec: R13, R22."""
    forward(active, DNS)
    (batch,) = active.drain()
    passive.set_role(Role.ACTIVE, 3)
    before = list(passive.flows())
    for sections in (b"\xc1", b"\x91\x80", batch.sections, batch.sections[:-1]):
        with pytest.raises(FastpathError):
            passive.adopt_sections(sections)
    assert list(passive.flows()) == before


def test_import_refuses_damaged_sections(active: Fastpath, passive: Fastpath) -> None:
    """Nothing of such a batch is used, and what is wrong with it is said."""
    forward(active, DNS)
    (batch,) = active.drain()
    (part,) = unpack(batch.sections)
    assert pack([part]) == batch.sections, "as msgpack would"
    for code, damage in (
        (errno.ENODATA, {"id_low": part.columns["id_low"][:-1]}),
        (errno.ENODATA, {"inside": b""}),
        (errno.EINVAL, {"proto": bytes([0])}),
        (errno.EINVAL, {"form": bytes([3])}),
        (errno.EINVAL, {"state": bytes([200])}),
    ):
        with pytest.raises(FastpathError) as caught:
            passive.import_sections(pack([replace(part, columns={**part.columns, **damage})]))
        assert caught.value.errno == code
    for change in ({"family": 5}, {"n": -1}, {"n": 0}, {"n": 1 << 20}, {"n": 1 << 40}):
        with pytest.raises(FastpathError) as caught:
            passive.import_sections(pack([replace(part, **change)]))  # type: ignore[arg-type]
        assert caught.value.errno == errno.EDOM
    for name in part.columns:
        few = {key: data for key, data in part.columns.items() if key != name}
        if name != "rule":
            with pytest.raises(FastpathError, match=f"column {name} of OPEN is missing"):
                passive.import_sections(pack([replace(part, columns=few)]))
    for cut in range(len(batch.sections)):
        with pytest.raises(FastpathError) as caught:
            passive.import_sections(batch.sections[:cut])
        assert caught.value.errno in {errno.EBADMSG, errno.EDOM}
    assert list(passive.flows()) == []


def test_import_skips_what_it_does_not_know(active: Fastpath, passive: Fastpath) -> None:
    """Of another version: a column or a kind of record more is skipped, an optional one may be missing.

    Spec: B10."""
    forward(active, DNS)
    (batch,) = active.drain()
    (part,) = unpack(batch.sections)
    few = {key: data for key, data in part.columns.items() if key != "rule"}
    later = {"op": 77, "n": 1 << 40, "whatever": [None, {"a": 1.5}]}
    (known,) = msgpack.unpackb(pack([replace(part, columns=few | {"app_id": b"?"})]))
    assert passive.import_sections(msgpack.packb([later, known | {"zstd": False}, later])) == (1, 1, 3)
    assert passive.import_sections(b"\x90") == (0, 0, 0)


def test_sections_are_as_the_specification_says() -> None:
    """SYNC.md, and the second implementation in tests/sections.py. Spec: R23."""
    assert list(COLUMNS) == list(COLUMN_WIDTHS)
    for name, column in COLUMNS.items():
        assert (column.width_v4, column.width_v6) == (column_width(name, 4), column_width(name, 6))
    for op, section in SECTIONS.items():
        of_op, required = (
            {name for i, name in enumerate(COLUMN_WIDTHS) if lib.lib.fp_cols_of(int(op), only) >> i & 1}
            for only in (0, 1)
        )
        assert required == set(section.required)
        assert of_op == {*section.required, *section.optional}
    assert SECTIONS[Op.OPEN].optional == ("rule",)
    assert SECTIONS[Op.REST].optional == ("rule", "remaining_ms", "win", "counters")
    widths = {
        op: sum(COLUMNS[name].width_v4 for name in section.required) for op, section in SECTIONS.items()
    }
    assert widths == {Op.OPEN: 38, Op.STATE: 30, Op.REST: 30, Op.DELETE: 24}, "most say a value once for all"


# ---- inspection --------------------------------------------------------------------------------------
def test_flows(active: Fastpath) -> None:
    syn = Packet(TCP, packets.CLIENTS[1], packets.SERVERS[1], 40000, 443, packets.SYN, seq=1)
    sent = forward(active, syn)
    (flow,) = active.flows(page=1)
    assert (flow.form, flow.pool, flow.rule) == (Form.SNAT, 0, 0)
    assert (flow.inside, flow.inside_port) == (syn.src, 40000)
    assert (flow.remote, flow.remote_port) == (syn.dst, 443)
    assert (flow.external, flow.external_port) == (packets.WAN_VIP, sent.sport)
    assert (flow.proto, flow.state) == (TCP, FlowState.SYN_SENT)
    assert (flow.in_port, flow.out_port, flow.origin) == (LAN, WAN, 1)
    assert (flow.packets, flow.bytes) == ((1, 0), (40, 0))
    assert 239_000 < flow.remaining_ms <= 241_000
    assert flow.shard == active.test_shard(syn.src, syn.sport, TCP) == (sent.sport >> 1) & 63


def test_counters(active: Fastpath) -> None:
    table = verdict_table()
    assert len({verdict.name for verdict in table}) == len(table)
    assert all(verdict.help for verdict in table)
    assert {verdict.name for verdict in table if verdict.drop} >= {"syn_check", "fenced", "frag_overlap"}
    forward(active, DNS)
    active.test_step([DNS.from_lan()[:13]], port=LAN, now_ns=NOW)
    counts = {verdict.name: n for verdict, n in zip(table, active.verdict_counts(), strict=True) if n}
    assert counts == {"snat": 1, "runt": 1}
    assert active.verdict_counts(0) == active.verdict_counts()
    stats = active.worker_stats(0)
    assert (stats.frames, stats.flows, stats.mappings, stats.flows_created) == (2, 1, 1, 1)
    with pytest.raises(FastpathError):
        active.worker_stats(1)
    with pytest.raises(FastpathError):
        active.port_stats(2)


# ---- with threads ------------------------------------------------------------------------------------
def test_inject_obeys_the_fence() -> None:
    with Fastpath(packets.node_config(heartbeats=False)) as fastpath:
        fastpath.start()
        fastpath.inject(LAN, DNS.from_lan(), fenced=False)
        wait_for(lambda: fastpath.port_stats(LAN).tx_frames == 1)
        fastpath.inject(LAN, DNS.from_lan(), fenced=True)
        wait_for(lambda: fastpath.port_stats(LAN).tx_dropped == 1)
        fastpath.set_role(Role.ACTIVE, 2)
        fastpath.inject(WAN, DNS.from_wan(), fenced=True)
        wait_for(lambda: fastpath.port_stats(WAN).tx_frames == 1)
        assert fastpath.port_stats(LAN).tx_dropped == 1
        for port, frame in ((2, DNS.from_lan()), (LAN, b"short"), (LAN, bytes(3000))):
            with pytest.raises(FastpathError):
                fastpath.inject(port, frame, fenced=False)


def test_queue_of_injected_frames_is_bounded() -> None:
    with open_node() as fastpath:
        room = 64
        for _ in range(room):
            fastpath.inject(LAN, DNS.from_lan(), fenced=False)
        with pytest.raises(FastpathError) as caught:
            fastpath.inject(LAN, DNS.from_lan(), fenced=False)
        assert caught.value.errno == errno.ENOBUFS
        assert fastpath.worker_stats(0).inject_lost == 1


def test_goodbye_is_sent_before_the_threads_end() -> None:
    with open_node() as fastpath:
        fastpath.start()
        fastpath.set_pulse(HeartbeatFlag.BYE, 100)
        lan_before = fastpath.path_stats()[1 + LAN].sent
        fastpath.burst_pulse()
        fastpath.inject(WAN, DNS.from_wan(), fenced=False)
        fastpath.stop()
        assert fastpath.path_stats()[1 + LAN].sent > lan_before
        assert fastpath.port_stats(WAN).tx_frames == fastpath.path_stats()[1 + WAN].sent + 1


def test_events_fd_wakes_for_flow_changes() -> None:
    with open_node() as fastpath:
        fastpath.set_role(Role.ACTIVE, 2)
        fastpath.commit_fib(packets.ROUTES, packets.NEIGHBOURS)
        forward(fastpath, DNS)
        fastpath.start()
        fastpath.clear_wakeup()
        assert not select.select([fastpath.events_fd], [], [], 0)[0]
        fastpath.track_changes(on=True)
        fastpath.sweep_start()
        assert select.select([fastpath.events_fd], [], [], 5)[0]
        fastpath.clear_wakeup()
        batches: list[Drained] = []

        def is_walked() -> bool:
            batches.extend(fastpath.drain())
            return bool(batches) and batches[-1].swept is not None

        wait_for(is_walked, fastpath.events_fd)
        assert sum(batch.n for batch in batches) == 1


def test_carrier_of_a_port_that_has_none(active: Fastpath) -> None:
    active.set_carrier(LAN, up=False)
    with pytest.raises(FastpathError):
        active.set_carrier(7, up=True)


def test_vrrp_is_punted() -> None:
    """The adverts of others are for the control plane, whoever is ACTIVE."""
    advert = Packet(
        packets.VRRP,
        IPv4Address("203.0.113.5"),
        IPv4Address("224.0.0.18"),
        0,
        payload=b"\x31" + bytes(11),
        ttl=255,
    )
    frame = advert.frame(bytes.fromhex("01005e000012"), packets.VMACS[WAN])
    with open_node() as fastpath:
        (out,) = fastpath.test_step([frame], port=WAN, now_ns=NOW)
        assert (out.out, out.verdict, out.data) == (Out.PUNT, "vrrp", frame)
        assert fastpath.punts() == []  # the ring is the worker's: tests/netns sees it work


def test_pulse_kinds_have_the_abis_numbers() -> None:
    assert [kind.name for kind in sorted(PulseKind)] == [
        "PATH_UP",
        "PATH_DOWN",
        "PEER",
        "FENCED",
        "DEAD",
        "REFUTED",
        "HUNG",
        "LEASE",
        "DIED",
    ]
