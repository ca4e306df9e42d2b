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
import pytest

SAMPLES = sorted((Path(__file__).parent.parent / "samples").glob("*.parquet"))
IOREC = Path(sys.executable).with_name("iorec")


def report(path: Path, *options: str) -> dict[str, Any]:
    done = subprocess.run(
        [IOREC, "report", path, "--json", *options], capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_report_of_a_sample_equals_numpy(path: Path) -> None:
    frame = pd.read_parquet(path)
    groups = report(path)["summary"]["groups"]
    assert sum(group["ios"] for group in groups) == len(frame)
    for group in groups:
        key = group["key"]
        is_pid = frame.pid.isna() if key["pid"] is None else frame.pid == key["pid"]
        is_comm = frame.comm.isna() if key["comm"] is None else frame.comm == key["comm"]
        rows = frame[is_pid & is_comm]
        latencies = rows.latency_ns.to_numpy(np.int64)
        is_read, is_write = (rows.op == "read").to_numpy(), (rows.op == "write").to_numpy()
        assert group["ios"] == len(rows)
        assert group["reads"] == is_read.sum()
        assert group["read_bytes"] == rows.bytes.to_numpy()[is_read].sum()
        assert group["write_bytes"] == rows.bytes.to_numpy()[is_write].sum()
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
    count, size, first, slowest, kind = duckdb.sql(f"{query} FROM '{path}'").fetchall()[0]
    assert count == len(by_pandas) == len(by_polars)
    assert size == by_pandas.bytes.sum() == by_polars["bytes"].sum()
    assert slowest == by_pandas.latency_ns.max() == by_polars["latency_ns"].max()
    assert kind == "TIMESTAMPTZ_NS"
    assert str(by_pandas.time.dtype) == "datetime64[ns, UTC]"
    assert by_polars.schema["time"] == pl.Datetime("ns", "UTC")
    assert first == by_pandas.time.astype("int64").min()
    assert first == by_polars["time"].to_physical().min()


def test_only_the_sample_of_losses_is_incomplete() -> None:
    incomplete = [p.stem for p in SAMPLES if not report(p)["completeness"]["is_complete"]]
    assert incomplete == ["losses"]
    assert len(SAMPLES) >= 4
    assert all(path.stat().st_size < 1_000_000 for path in SAMPLES)
