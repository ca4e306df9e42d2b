# SPDX-License-Identifier: GPL-2.0-only
"""The real captures in samples/, against plain numpy and other readers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from analyze.schema import BLOCK_LAYERS, METADATA_KEY
from tests.builders import write_parquet

SAMPLES = sorted((Path(__file__).parents[2] / "samples").glob("*.parquet"))
IOREC = Path(sys.executable).with_name("iorec")


def report(path: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [IOREC, "report", path, "--json", *options], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_report_of_a_sample_equals_numpy(path: Path) -> None:
    frame = as_of_version_2(path)
    is_cache_flush = frame.op == "cache_flush"
    summary = report(path)["summary"]
    for groups, part in (
        (summary["groups"], frame[~is_cache_flush]),
        (summary["cache_flushes"], frame[is_cache_flush]),
    ):
        assert sum(group["ios"] for group in groups) == len(part)
        for group in groups:
            check_group(group, part)


def as_of_version_2(path: Path) -> pd.DataFrame:
    """The rows, with the meaning that the format gives them since version 2."""
    frame = pd.read_parquet(path).astype({"op": str, "flags": str})
    frame = frame[frame.layer.isin(BLOCK_LAYERS)]
    version = json.loads(pq.read_metadata(path).metadata[b"iorec"])["format_version"]
    if version == 1:
        is_flush = (
            (frame.op == "write") & (frame.bytes == 0) & frame["flags"].str.contains("preflush")
        )
        frame.op = frame.op.replace("flush", "cache_flush").mask(is_flush, "flush")
    return frame


def check_group(group: dict[str, Any], frame: pd.DataFrame) -> None:
    key = group["key"]
    is_pid = frame.pid.isna() if key["pid"] is None else frame.pid == key["pid"]
    name = frame.process.astype(object).fillna(frame.comm.astype(object))
    is_name = name.isna() if key["process"] is None else name == key["process"]
    rows = frame[is_pid & is_name]
    assert group["ios"] == len(rows)
    assert group["time_ns"] == rows.latency_ns.sum()
    assert group["errors"] == (rows.errno != 0).sum()
    rows = rows[rows.errno == 0]
    latencies = rows.latency_ns.to_numpy(np.int64)
    for name, op in (("reads", "read"), ("writes", "write"), ("flushes", "flush")):
        assert group[name] == (rows.op == op).sum()
    assert group["read_bytes"] == rows.bytes[rows.op == "read"].sum()
    assert group["write_bytes"] == rows.bytes[rows.op == "write"].sum()
    latency = group["latency"]
    assert latency["sum_ns"] == latencies.sum()
    assert (latency["min_ns"], latency["max_ns"]) == (latencies.min(), latencies.max())
    for name, percent in (("p50_ns", 50), ("p95_ns", 95), ("p99_ns", 99), ("p999_ns", 99.9)):
        assert latency[name] == pytest.approx(np.percentile(latencies, percent), rel=0.01)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_other_readers_see_the_same_rows_and_real_timestamps(path: Path) -> None:
    by_pandas, by_polars = pd.read_parquet(path), pl.read_parquet(path)
    query = (
        "SELECT count(*), sum(bytes), min(epoch_ns(time)), max(latency_ns), any_value(typeof(time))"
    )
    count, size, first, slowest, kind = duckdb.execute(f"{query} FROM '{path}'").fetchall()[0]
    assert count == len(by_pandas) == len(by_polars)
    assert size == by_pandas.bytes.sum() == by_polars["bytes"].sum()
    assert slowest == by_pandas.latency_ns.max() == by_polars["latency_ns"].max()
    assert kind == "TIMESTAMPTZ_NS"
    assert str(by_pandas.time.dtype) == "datetime64[ns, UTC]"
    assert by_polars.schema["time"] == pl.Datetime("ns", "UTC")
    assert first == by_pandas.time.astype("int64").min()
    assert first == by_polars["time"].to_physical().min()


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_whose_bytes_are_all_ten_times_as_many_is_incomplete(
    path: Path, tmp_path: Path
) -> None:
    rows = pq.read_table(path)
    tenfold = pa.compute.multiply(rows["bytes"], 10)
    place = rows.schema.get_field_index("bytes")
    copy = write_parquet(
        tmp_path / "run.parquet",
        rows.set_column(place, rows.schema.field(place), tenfold),
        pq.read_metadata(path).metadata[METADATA_KEY],
    )
    completeness = report(copy)["completeness"]
    assert completeness["is_complete"] is False
    shown = rows.filter(pa.compute.is_in(rows["layer"].cast(pa.string()), pa.array(BLOCK_LAYERS)))
    assert completeness["byte_mismatch"] == 9 * pa.compute.sum(shown["bytes"]).as_py()


def test_only_the_sample_of_losses_is_incomplete() -> None:
    incomplete = [p.stem for p in SAMPLES if not report(p)["completeness"]["is_complete"]]
    assert incomplete == ["losses"]
    assert len(SAMPLES) >= 4
    assert all(path.stat().st_size < 1_000_000 for path in SAMPLES)
