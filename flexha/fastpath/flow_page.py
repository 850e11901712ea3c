# SPDX-License-Identifier: Apache-2.0
"""Pages of a walk of the tables, and which of their records are wanted.

A table may hold a million sessions and a person asks for one: C says which records of a page are wanted
(``csrc/flow_match.c``), and only those are made into objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flexha.fastpath.lib import CData, ffi, lib
from flexha.fastpath.marshal import addr_bytes, lib_constant, mapped_plen
from flexha.fastpath.records import FlowRecord, FlowState, Form, Network

_FORM: Final = lib_constant("FP_WANT_FORM")
_PROTO: Final = lib_constant("FP_WANT_PROTO")
_STATE: Final = lib_constant("FP_WANT_STATE")
_PREFIX: Final = lib_constant("FP_WANT_PREFIX")
_PORT: Final = lib_constant("FP_WANT_PORT")


@dataclass(frozen=True, slots=True)
class EndpointWant:
    """A prefix, a port, or both; None: any. A port is in host order; of ICMP it is the identifier."""

    network: Network | None = None
    port: int | None = None


@dataclass(frozen=True, slots=True)
class FlowWant:
    """``struct fp_flow_want``: which records are wanted; None: any."""

    form: Form | None = None
    proto: int | None = None
    state: FlowState | None = None
    inside: EndpointWant = EndpointWant()
    remote: EndpointWant = EndpointWant()
    external: EndpointWant = EndpointWant()


class FlowPage:
    """A page of a walk: to be read before anything else is drained, imported or walked."""

    def __init__(self, records: CData, n: int, record: Callable[[int], FlowRecord]) -> None:
        self._records = records
        self.n: Final = n
        self.record: Final = record

    def places(self, want: FlowWant) -> list[int]:
        """Where in the page the wanted records are, ascending."""
        out = ffi.new("uint32_t[]", self.n)
        found = lib.fp_flows_match(self._records, self.n, _c_want(want), out)
        places: list[int] = ffi.unpack(out, found)
        return places


def _c_want(want: FlowWant) -> CData:
    out = ffi.new("struct fp_flow_want *")
    if want.form is not None:
        out.has, out.form = out.has | _FORM, want.form
    if want.proto is not None:
        out.has, out.proto = out.has | _PROTO, want.proto
    if want.state is not None:
        out.has, out.state = out.has | _STATE, want.state
    for side, endpoint in enumerate((want.inside, want.remote, want.external)):
        if endpoint.port is not None:
            out.has |= _PORT << side
            out.ports[side] = int.from_bytes(endpoint.port.to_bytes(2, "big"), "little")
        if endpoint.network is not None:
            out.has |= _PREFIX << side
            out.prefixes[side].addr.b = addr_bytes(endpoint.network.network_address)
            out.prefixes[side].plen = mapped_plen(
                endpoint.network.network_address, endpoint.network.prefixlen
            )
    return out
