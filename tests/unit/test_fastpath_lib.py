# SPDX-License-Identifier: Apache-2.0
"""The shared object and this package must be of one build; both ends of that check."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import pytest

from flexha.fastpath import COLUMN_WIDTHS, FastpathMismatchError, lib, records
from flexha.fastpath.batch import column_width

CSRC = Path(__file__).resolve().parents[2] / "csrc"


@pytest.fixture
def ffi_build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ffi_build", CSRC / "ffi_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_ends_hash_alike(ffi_build: ModuleType) -> None:
    assert ffi_build.source_hash() == lib.source_hash(CSRC)


def test_every_source_counts(tmp_path: Path) -> None:
    for name in ("fp_abi.h", "a.c", "b.h", "ffi_build.py"):
        (tmp_path / name).write_text("1")
    seen = {lib.source_hash(tmp_path)}
    for name in ("a.c", "b.h", "ffi_build.py"):
        (tmp_path / name).write_text("2")
        seen.add(lib.source_hash(tmp_path))
    (tmp_path / "a.c").rename(tmp_path / "c.c")
    seen.add(lib.source_hash(tmp_path))
    assert len(seen) == 5


def test_stale_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fp_abi.h").write_text("/* edited since */")
    with pytest.raises(FastpathMismatchError, match="stale"):
        lib.check_sources(tmp_path)
    lib.check_sources(tmp_path / "not a checkout")
    lib.check_sources(CSRC)


def test_size_and_version_mismatch_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(lib.STRUCT_SIZES, "struct fp_frame", 41)
    with pytest.raises(FastpathMismatchError, match="struct fp_frame has 56 bytes"):
        lib.check_abi()
    built = lib.ABI_VERSION
    monkeypatch.setattr(lib, "ABI_VERSION", 1)
    with pytest.raises(FastpathMismatchError, match=f"ABI version {built}, this package is for 1"):
        lib.check_abi()


def test_every_struct_of_the_header_is_checked(ffi_build: ModuleType) -> None:
    declared = {
        f"struct {line.split()[1]}"
        for line in ffi_build.cdef((CSRC / "fp_abi.h").read_text()).splitlines()
        if line.startswith("struct ") and "{" in line
    }
    assert declared == set(lib.STRUCT_SIZES)


def test_every_function_of_the_header_is_typed() -> None:
    exported = {name for name in dir(lib.lib) if name.startswith("fp_")}
    assert exported == {name for name in vars(lib.Lib) if name.startswith("fp_")}


@pytest.mark.parametrize(
    ("struct", "record"),
    [
        ("struct fp_worker_stats", records.WorkerStats),
        ("struct fp_port_stats", records.PortStats),
        ("struct fp_timeouts", records.Timeouts),
    ],
)
def test_records_mirror_their_structs(struct: str, record: type) -> None:
    members = [name for name, _ in lib.ffi.typeof(struct).fields]
    assert members == [field.name for field in fields(record)]


def test_columns_are_the_members_of_fp_cols() -> None:
    members = [name for name, _ in lib.ffi.typeof("struct fp_cols").fields]
    assert members == list(COLUMN_WIDTHS)
    assert column_width("inside", 4) == 4
    assert column_width("inside", 6) == 16
