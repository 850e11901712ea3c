# SPDX-License-Identifier: Apache-2.0
"""Filter expressions (pcap-filter(7)) to programs of classic BPF, by the libpcap of this machine.

Compiled here, not in the daemon: names are looked up here, and a parser of what anybody types stays out of
the process that forwards. The daemon checks the program and runs it itself.
"""

from __future__ import annotations

import ctypes

from flexha.errors import FlexhaError

LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
"""Debian's name, then everybody else's."""
DLT_EN10MB = 1
SNAPLEN = 262144
NETMASK_UNKNOWN = 0xFFFFFFFF
INSTRUCTION_BYTES = 8
INSTRUCTIONS_MAX = 4096


class FilterError(FlexhaError):
    """The expression cannot be compiled."""

    exit_code = 2


class _Program(ctypes.Structure):
    _fields_ = (("bf_len", ctypes.c_uint), ("bf_insns", ctypes.c_void_p))


def _load() -> ctypes.CDLL:
    for name in LIBRARIES:
        try:
            lib = ctypes.CDLL(name)
        except OSError:
            continue
        lib.pcap_open_dead.restype = ctypes.c_void_p
        lib.pcap_open_dead.argtypes = [ctypes.c_int, ctypes.c_int]
        lib.pcap_compile.argtypes = [
            ctypes.c_void_p,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        ]
        lib.pcap_geterr.restype = ctypes.c_char_p
        lib.pcap_geterr.argtypes = [ctypes.c_void_p]
        lib.pcap_freecode.argtypes = [ctypes.POINTER(_Program)]
        lib.pcap_close.argtypes = [ctypes.c_void_p]
        return lib
    raise FilterError(
        f"a filter needs {LIBRARIES[0]}, which is not there; install libpcap0.8, or capture without a filter"
    )


def compile_filter(expression: str) -> bytes:
    """Instructions of 8 bytes each; none for an empty expression.

    Raises: FilterError.
    """
    if not expression.strip():
        return b""
    if "\0" in expression:
        raise FilterError("filter: there is a NUL in it; see pcap-filter(7)")
    lib = _load()
    handle = lib.pcap_open_dead(DLT_EN10MB, SNAPLEN)
    if not handle:
        raise FilterError("libpcap: out of memory")
    program = _Program()
    try:
        if lib.pcap_compile(handle, ctypes.byref(program), expression.encode(), 1, NETMASK_UNKNOWN) < 0:
            reason = lib.pcap_geterr(handle).decode("utf-8", "replace")
            raise FilterError(f"filter {expression!r}: {reason}; see pcap-filter(7)")
        try:
            if program.bf_len > INSTRUCTIONS_MAX:
                raise FilterError(
                    f"filter: {program.bf_len} instructions, at most {INSTRUCTIONS_MAX}; "
                    "use prefixes and ranges"
                )
            return ctypes.string_at(program.bf_insns, program.bf_len * INSTRUCTION_BYTES)
        finally:
            lib.pcap_freecode(ctypes.byref(program))
    finally:
        lib.pcap_close(handle)
