# SPDX-License-Identifier: Apache-2.0
"""C's filter of records against a plain one, on random records and random wishes. Spec: R25."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from flow_oracle import passes

from flexha.fastpath import EndpointWant, FlowState, FlowWant, Form
from flexha.fastpath.batch import RecordBatch
from flexha.fastpath.marshal import addr_bytes
from flexha.fastpath.records import Address, Network

RECORDS = 300
WISHES = 400
PORTS = (0, 1, 80, 256, 40_000, 65_535)


def address(rng: random.Random) -> Address:
    """Few enough that a filter often hits, in both families; one IPv6 address looks nearly like IPv4."""
    if rng.random() < 0.6:
        return IPv4Address(0x0A000000 | rng.randrange(16) << rng.choice((0, 8, 12)))
    return IPv6Address(rng.choice((0, 0xFFFE << 32, 0x20010DB8 << 96)) | rng.randrange(16))


def network(rng: random.Random) -> Network:
    base = address(rng)
    return ip_network((base, rng.randrange(base.max_prefixlen + 1)), strict=False)


def endpoint(rng: random.Random) -> EndpointWant:
    return EndpointWant(
        network(rng) if rng.random() < 0.5 else None, rng.choice(PORTS) if rng.random() < 0.3 else None
    )


def batch_of(rng: random.Random) -> RecordBatch:
    batch = RecordBatch(RECORDS)
    for index in range(RECORDS):
        record = batch.at(index)
        record.form, record.proto = rng.choice(list(Form)), rng.choice((1, 6, 17))
        record.state = rng.choice(list(FlowState))
        for side in ("inside", "remote", "external"):
            getattr(record, side).b = addr_bytes(address(rng))
            setattr(record, f"{side}_port", int.from_bytes(rng.choice(PORTS).to_bytes(2, "big"), "little"))
    return batch


@pytest.mark.parametrize("seed", range(5))
def test_c_chooses_as_python_would(seed: int) -> None:
    rng = random.Random(seed)
    batch = batch_of(rng)
    page = batch.flow_page(RECORDS)
    records = batch.flow_records(RECORDS)
    chosen = 0
    for _ in range(WISHES):
        want = FlowWant(
            rng.choice([None, None, *Form]),
            rng.choice([None, None, 1, 6, 17, 132]),
            rng.choice([None, None, *FlowState]),
            *(endpoint(rng) if rng.random() < 0.4 else EndpointWant() for _ in range(3)),
        )
        places = page.places(want)
        assert places == [i for i, record in enumerate(records) if passes(want, record)], want
        chosen += 0 < len(places) < RECORDS
    assert chosen > WISHES / 10


def test_no_wish_takes_all_and_families_stay_apart() -> None:
    batch = batch_of(random.Random(9))
    page, records = batch.flow_page(RECORDS), batch.flow_records(RECORDS)
    assert page.places(FlowWant()) == list(range(RECORDS))
    four = page.places(FlowWant(inside=EndpointWant(IPv4Network("0.0.0.0/0"))))
    six = page.places(FlowWant(inside=EndpointWant(IPv6Network("::/0"))))
    assert sorted(four + six) == list(range(RECORDS))
    assert {records[i].inside.version for i in four} == {4}
    assert [page.record(i) for i in six] == [records[i] for i in six]
