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


def parts(begin: int, end: int, **columns: Any) -> pa.Table:
    """One call, which a signal interrupted four times: some of its five parts."""
    flags = ["restarted"] * 4 + [""]
    results, errnos = [-512] * 4 + [7], [None] * 4 + [0]
    whole = calls(5, flags=flags, result=results, errno=errnos, latency_ns=900_000, **columns)
    return whole.slice(begin, end - begin)


def test_a_call_that_began_in_one_capture_and_ended_in_the_next_is_one(tmp_path: Path) -> None:
    for name, rows in (("a", parts(0, 2)), ("b", parts(2, 5))):
        write_capture(tmp_path / f"{name}.parquet", rows, layers=["syscall"])
    with open_captures([tmp_path]) as capture:
        ((count, latency_ns, result, errno),) = capture.sql(
            "SELECT count(*), sum(latency_ns), max(result), max(errno) FROM io"
        ).fetchall()
    assert (count, latency_ns, result, errno) == (1, 4_900_000, 7, 0)


def test_a_call_whose_size_is_known_from_its_result_is_one(tmp_path: Path) -> None:
    rows = parts(0, 5, op="readv", bytes=[0, 0, 0, 0, 7])
    with open_captures([write_calls(tmp_path, rows)]) as capture:
        assert capture.sql("SELECT bytes, errno FROM io").fetchall() == [(7, 0)]
