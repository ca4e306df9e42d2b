# SPDX-License-Identifier: GPL-2.0-only
"""Captures of system calls: what they moved, where, and those that the kernel began again."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from analyze.capture import open_captures
from analyze.load import load_loads
from tests.builders import table, write_capture


def calls(count: int, **columns: Any) -> pa.Table:
    """So many reads of one thread, each of 4 KiB that it got."""
    defaults = {"layer": "syscall", "op": "read", "device": None, "queue_ns": None}
    return table(count, **defaults | {"result": 4096, "fd": 3, "offset": 0} | columns)


def write_calls(folder: Path, rows: pa.Table) -> Path:
    return write_capture(folder / "run.parquet", rows, layers=["syscall"])


def test_an_address_or_the_number_of_a_file_is_no_size(tmp_path: Path) -> None:
    rows = calls(
        5, op="read", result=[100, 0, -9, 2**47, None], bytes=4096, errno=[0, 0, 9, 0, None]
    )
    with open_captures([write_calls(tmp_path, rows)]) as capture:
        (moved,) = capture.sql("SELECT list(moved ORDER BY time) FROM io").fetchone() or ()
    assert moved == [100, 0, 0, 0, 4096]


def test_offsets_in_files_are_no_places_on_a_device(tmp_path: Path) -> None:
    with open_captures([write_calls(tmp_path, calls(9))]) as capture:
        (load,) = load_loads(capture).devices
    assert (load.ios, load.sequential_share, load.reread_share) == (9, None, None)
