# SPDX-License-Identifier: GPL-2.0-only
"""Rows in time order: against a sort of all of them, and in memory that has a bound."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analyze
from analyze.errors import IorecError
from analyze.schema import SCHEMA
from tests.builders import (
    SECOND_NS,
    START_NS,
    metadata,
    mixed_table,
    table,
    write_capture,
    write_parquet,
)

GROUP_ROWS = 1 << 18  # as the builders write them


def overlapping(count: int, seed: int, seconds: float = 10.0) -> pa.Table:
    """Rows whose groups are each in time order, but begin before the one ahead of them ended."""
    rows = mixed_table(count, seed, seconds)
    times = rows["time"].cast(pa.int64()).to_numpy()
    nudged = times - np.random.default_rng(seed).integers(0, SECOND_NS // 2, count)
    for start in range(0, count, GROUP_ROWS):
        nudged[start : start + GROUP_ROWS].sort()
    index = SCHEMA.names.index("time")
    return rows.set_column(index, SCHEMA.field("time"), pa.array(nudged).cast(SCHEMA[index].type))


def sorted_rows(read: pa.Table) -> pa.Table:
    """In an order of its own for each time, as rows of one time come in any order."""
    return read.sort_by([(name, "ascending") for name in read.column_names])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_batches_of_overlapping_files_are_a_sort_of_all_rows(tmp_path: Path, suffix: str) -> None:
    sizes = (GROUP_ROWS + 50_021, 70_001, 3) if suffix == "parquet" else (5003, 2003)
    for number, size in enumerate(sizes):
        name = tmp_path / f"{number}.{suffix}"
        write_capture(name, overlapping(size, number), hostname=f"db{number}")
    with analyze.open(tmp_path) as capture:
        batches = list(capture.batches())
        everything = capture.duckdb().to_arrow_table()
    streamed = pa.Table.from_batches(batches)
    times = streamed["time"].cast(pa.int64()).to_numpy()
    assert (np.diff(times) >= 0).all()
    assert streamed.schema == everything.schema
    assert sorted_rows(streamed).equals(sorted_rows(everything))
    assert max(batch.num_rows for batch in batches) <= 65_536


def test_batches_hold_the_wanted_columns_and_rows_of_the_window(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(1000))
    with analyze.open(path, begin=0.25, where='"offset" % 8192 = 0') as capture:
        batches = list(capture.batches(["offset", "op"], rows=100))
    assert batches[0].schema.names == ["offset", "op"]
    assert [batch.num_rows for batch in batches] == [100, 100, 100, 75]
    places = pa.Table.from_batches(batches)["offset"].to_pylist()
    assert places == list(range(250 * 4096, 1000 * 4096, 8192))


def test_other_queries_may_run_between_batches(tmp_path: Path) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet", table(1000))) as capture:
        seen = 0
        for batch, other in zip(capture.batches(rows=100), capture.batches(rows=100), strict=True):
            assert batch.equals(other)
            assert capture.summary().total.ios == 1000
            seen += batch.num_rows
    assert seen == 1000


@pytest.mark.parametrize("count", [0, 1, 70_001])
def test_rows_of_one_moment_are_streamed_once(tmp_path: Path, count: int) -> None:
    rows = table(count, time=START_NS, offset=list(range(count)))
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        places = [place for batch in capture.batches() for place in batch["offset"].to_pylist()]
    assert sorted(places) == list(range(count))


def test_hostile_times_are_streamed_in_order(tmp_path: Path) -> None:
    times = [-(2**63) + 1, 2**63 - 1, START_NS, 0, -1, 2**63 - 2]
    rows = table(600_000, time=times * 100_000, offset=list(range(6)) * 100_000)
    described = json.dumps(metadata(table(2))).encode()
    with analyze.open(write_parquet(tmp_path / "run.parquet", rows, described)) as capture:
        streamed = pa.Table.from_batches(capture.batches(["offset"]))["offset"].to_numpy()
    np.testing.assert_array_equal(streamed, np.repeat([0, 4, 3, 2, 5, 1], 100_000))


def test_damage_in_the_last_rows_is_one_error(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", mixed_table(GROUP_ROWS * 2))
    last = pq.read_metadata(path).row_group(1).column(SCHEMA.names.index("latency_ns"))
    damaged = bytearray(path.read_bytes())
    place = slice(last.data_page_offset + 40, last.data_page_offset + last.total_compressed_size)
    damaged[place] = b"\xff" * len(damaged[place])
    path.write_bytes(damaged)
    with (
        pytest.raises(IorecError, match="the file is damaged"),
        analyze.open(path) as capture,
    ):
        list(capture.batches())


_PEAK = """
import resource, sys
import analyze
with analyze.open(sys.argv[1]) as capture:
    rows = sum(batch.num_rows for batch in capture.batches())
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_mib(folder: Path, copies: int) -> float:
    """Of a process that streams so many copies of some rows, one after the other."""
    rows = mixed_table(500_000)
    times = rows["time"].cast(pa.int64()).to_numpy()
    path = folder / "run.parquet"
    write_capture(path, rows)
    described = pq.read_metadata(path).metadata
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for copy in range(copies):
            moved = pa.array(times + copy * 10 * SECOND_NS).cast(SCHEMA.field("time").type)
            writer.write_table(rows.set_column(0, SCHEMA.field("time"), moved), GROUP_ROWS)
        writer.add_key_value_metadata({b"iorec": described[b"iorec"]})
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, path], stdout=subprocess.PIPE, check=True, text=True
    )
    streamed, peak_kib = map(int, done.stdout.split())
    assert streamed == copies * len(rows)
    return peak_kib / 1024


def test_the_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    assert peak_mib(tmp_path, 6) < peak_mib(tmp_path, 2) + 64
