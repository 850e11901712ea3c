# SPDX-License-Identifier: Apache-2.0
"""Load the C fast path, and refuse one that does not match the sources or this Python code.

cffi compiles what stands between the cdef marks of ``csrc/fp_abi.h``, and reports a struct whose size differs
only when it is first used; so every size is asked for here, at import.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

from flexha.fastpath import _fp
from flexha.fastpath.errors import FastpathMismatchError

CData: TypeAlias = Any
"""A cffi object; it never leaves ``flexha.fastpath``."""

ABI_VERSION: Final = 3
"""The ``FP_ABI_VERSION`` that this package is written for."""

STRUCT_SIZES: Final = {
    "struct fp_addr": 16,
    "struct fp_error": 200,
    "struct fp_port_cfg": 448,
    "struct fp_pool_cfg": 48,
    "struct fp_timeouts": 20,
    "struct fp_limits": 16,
    "struct fp_pulse_cfg": 80,
    "struct fp_config": 4168,
    "struct fp_tcp_win": 16,
    "struct fp_flow_rec": 160,
    "struct fp_route": 40,
    "struct fp_neigh": 24,
    "struct fp_prefix": 24,
    "struct fp_service": 6,
    "struct fp_rule": 48,
    "struct fp_forward": 28,
    "struct fp_policy_cfg": 56,
    "struct fp_vnet": 10,
    "struct fp_frame": 56,
    "struct fp_punt": 296,
    "struct fp_peer": 32,
    "struct fp_pulse_event": 48,
    "struct fp_path_stats": 48,
    "struct fp_worker_stats": 184,
    "struct fp_port_stats": 88,
    "struct fp_cursor": 16,
    "struct fp_cols": 168,
    "struct fp_bpf": 8,
    "struct fp_capture_cfg": 56,
    "struct fp_capture_side": 24,
    "struct fp_capture_rec": 72,
}
"""Bytes, as on every supported platform (LP64, natural alignment)."""


class Lib(Protocol):
    """The functions of ``csrc/fp_abi.h``, with what cffi makes of their types."""

    def fp_source_hash(self) -> CData: ...
    def fp_open(self, cfg: CData, out: CData, err: CData) -> int: ...
    def fp_start(self, dp: CData, err: CData) -> int: ...
    def fp_stop(self, dp: CData) -> int: ...
    def fp_close(self, dp: CData) -> None: ...
    def fp_set_role(self, dp: CData, role: int, term: int) -> int: ...
    def fp_fence_read(self, dp: CData, role: CData, term: CData) -> int: ...
    def fp_port_carrier(self, dp: CData, port: int, up: int) -> int: ...
    def fp_pulse_set(self, dp: CData, flags: int, priority: int) -> int: ...
    def fp_pulse_burst(self, dp: CData) -> int: ...
    def fp_control_beat(self, dp: CData) -> int: ...
    def fp_pulse_events(self, dp: CData, out: CData, cap: int) -> int: ...
    def fp_pulse_stats(self, dp: CData, out: CData, n_paths: int) -> int: ...
    def fp_events_fd(self, dp: CData) -> int: ...
    def fp_punts_drain(self, dp: CData, out: CData, cap: int) -> int: ...
    def fp_inject(self, dp: CData, port: int, frame: CData, length: int, fenced: int) -> int: ...
    def fp_fib_commit(self, dp: CData, routes: CData, n_routes: int, neighs: CData, n_neighs: int) -> int: ...
    def fp_policy_commit(self, dp: CData, cfg: CData, err: CData) -> int: ...
    def fp_policy_hits(self, dp: CData, out: CData, cap: int) -> int: ...
    def fp_sync_track(self, dp: CData, on: int) -> int: ...
    def fp_bulk_start(self, dp: CData) -> int: ...
    def fp_events_drain(self, dp: CData, worker: int, out: CData, cap: int, lost: CData) -> int: ...
    def fp_events_ack(self, dp: CData, worker: int, ev_seq: int) -> int: ...
    def fp_flows_import(self, dp: CData, rec: CData, n: int) -> int: ...
    def fp_import_begin(self, dp: CData) -> int: ...
    def fp_import_end(self, dp: CData) -> int: ...
    def fp_flows_walk(self, dp: CData, cursor: CData, out: CData, cap: int) -> int: ...
    def fp_rec_family(self, rec: CData) -> int: ...
    def fp_cols_pack(self, rec: CData, n: int, family: int, cols: CData) -> int: ...
    def fp_cols_unpack(self, cols: CData, n: int, family: int, rec: CData) -> int: ...
    def fp_capture_start(self, dp: CData, cfg: CData, err: CData) -> int: ...
    def fp_capture_drain(self, dp: CData, worker: int, out: CData, cap: int) -> int: ...
    def fp_capture_lost(self, dp: CData, lost: CData) -> int: ...
    def fp_capture_stop(self, dp: CData) -> int: ...
    def fp_capture_free(self, dp: CData) -> int: ...
    def fp_verdict_count(self) -> int: ...
    def fp_verdict_name(self, verdict: int) -> CData: ...
    def fp_verdict_help(self, verdict: int) -> CData: ...
    def fp_verdict_is_drop(self, verdict: int) -> int: ...
    def fp_verdicts_read(self, dp: CData, worker: int, out: CData, cap: int) -> int: ...
    def fp_worker_stats_read(self, dp: CData, worker: int, out: CData) -> int: ...
    def fp_port_stats_read(self, dp: CData, port: int, out: CData) -> int: ...
    def fp_test_step(self, dp: CData, worker: int, now_ns: int, io: CData, n: int) -> int: ...
    def fp_test_frags(self, dp: CData, worker: int, now_ns: int, io: CData, n: int) -> int: ...
    def fp_test_expire(self, dp: CData, worker: int, now_ns: int) -> int: ...
    def fp_test_shard(self, dp: CData, addr: CData, port_be: int, proto: int) -> int: ...
    def fp_test_policy(
        self,
        dp: CData,
        src: CData,
        dst: CData,
        sport: int,
        dport: int,
        proto: int,
        in_port: int,
        out_port: int,
    ) -> int: ...
    def fp_test_heartbeat(self, dp: CData, out: CData, cap: int) -> int: ...
    def fp_test_pulse_rx(self, dp: CData, path: int, payload: CData, length: int, now_ns: int) -> int: ...
    def fp_test_pulse_tick(self, dp: CData, now_ns: int) -> int: ...


ffi: Final[Any] = _fp.ffi
lib: Final[Lib] = _fp.lib


def source_hash(csrc: Path) -> str:
    """SHA-256 over the extension's sources: ``name NUL length NUL content`` of each, sorted by name.

    The same function runs in ``csrc/ffi_build.py`` at build time; tests and README do not count.
    """
    digest = hashlib.sha256()
    for path in sorted((*csrc.glob("*.c"), *csrc.glob("*.h"), *csrc.glob("*.py")), key=lambda p: p.name):
        content = path.read_bytes()
        digest.update(path.name.encode() + b"\0" + str(len(content)).encode() + b"\0" + content)
    return digest.hexdigest()


def check_abi() -> None:
    """Raise FastpathMismatchError unless version and sizes are those that this code is written for."""
    built = int(_fp.lib.FP_ABI_VERSION)
    if built != ABI_VERSION:
        raise FastpathMismatchError(
            f"_fp was built for ABI version {built}, this package is for {ABI_VERSION}"
        )
    for struct, size in STRUCT_SIZES.items():
        actual = int(ffi.sizeof(struct))
        if actual != size:
            raise FastpathMismatchError(f"{struct} has {actual} bytes in _fp, this package is for {size}")


def check_sources(csrc: Path) -> None:
    """Raise FastpathMismatchError if ``csrc`` is there and ``_fp`` was built from something else."""
    if not (csrc / "fp_abi.h").is_file():
        return
    built = bytes(ffi.string(lib.fp_source_hash())).decode()
    if built != source_hash(csrc):
        raise FastpathMismatchError(
            f"_fp is stale: it was built from sources {built[:12]}, those in {csrc} are different; "
            "run `make build` (or `pip install -e .`)"
        )


check_abi()
# A checkout keeps csrc/ beside the package; an installed wheel does not.
check_sources(Path(__file__).resolve().parents[2] / "csrc")
