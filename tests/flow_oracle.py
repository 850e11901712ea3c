# SPDX-License-Identifier: Apache-2.0
"""Which sessions a filter lets through, said as plainly as Python can."""

from __future__ import annotations

from flexha.fastpath import EndpointWant, FlowRecord, FlowWant
from flexha.fastpath.records import Address


def passes(want: FlowWant, record: FlowRecord) -> bool:
    """Is this record wanted?"""
    return (
        (want.form is None or record.form == want.form)
        and (want.proto is None or record.proto == want.proto)
        and (want.state is None or record.state == want.state)
        and _within(want.inside, record.inside, record.inside_port)
        and _within(want.remote, record.remote, record.remote_port)
        and _within(want.external, record.external, record.external_port)
    )


def _within(want: EndpointWant, address: Address, port: int) -> bool:
    return (want.network is None or address in want.network) and want.port in {None, port}
