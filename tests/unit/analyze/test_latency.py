# SPDX-License-Identifier: GPL-2.0-only
"""One engine for latencies: in SQL and in numpy, in the report and in the plot."""

from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

import analyze
from analyze.latency import PERCENTILES, add_up_buckets, bucket_sql, buckets_of
from analyze.plot.bins import OPS
from analyze.plot.contents import load_contents
from analyze.plot.timeline import make_timeline
from analyze.plot.traffic import load_traffic
from tests.builders import mixed_table, table, write_capture

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*.parquet"))
OPS_OF = {
    "write": ("write", "zone_append"),
    "discard": ("discard", "secure_erase", "write_zeroes"),
    "cache flush": ("cache_flush",),
}


def generated(name: str) -> pa.Table:
    rng = np.random.default_rng(3)
    count = 10_007
    if name == "several processes":
        return mixed_table(count)
    if name == "few rows":
        return table(
            5, op=["read", "read", "write", "flush", "discard"], latency_ns=[0, 1, 7, 8, 9]
        )
    latency_ns = np.exp2(rng.uniform(0, 62, count)).astype(np.int64)
    return table(
        count,
        op=rng.choice(["read", "write", "zone_append", "discard", "write_zeroes"], count),
        latency_ns=pa.array(latency_ns, mask=np.arange(count) % 101 == 0).to_pylist(),
        queue_ns=None,
        errno=np.where(np.arange(count) % 97 == 1, 5, 0),
    )


def check_report_and_plot_agree(path: Path) -> None:
    with analyze.open(path) as capture:
        contents = load_contents(capture)
        timeline = make_timeline(capture, contents.row_count)
        traffic = load_traffic(capture, timeline, contents.devices)
    of_plot = [(each.device, op) for each in traffic for op in each.latencies.by_op]
    assert of_plot
    for device, op in of_plot:
        names = OPS_OF.get(OPS[op.op_index], (OPS[op.op_index],))
        condition = " OR ".join(f"op = '{name}'" for name in names)
        with analyze.open(path, where=f"device = '{device}' AND ({condition})") as capture:
            summary = capture.summary(["op"])
        total = summary.cache_flush_total or summary.total
        assert op.io_count == total.ios - total.in_flight - total.errors
        of_report = [getattr(total.latency, f"{name}_ns") for name in PERCENTILES]
        is_drawn = ~np.isnan(op.percentiles_ns)
        assert op.percentiles_ns[is_drawn].tolist() == np.array(of_report)[is_drawn].tolist()
        assert op.longest_ns == total.latency.max_ns


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_report_and_plot_of_a_sample_show_the_same_percentiles(path: Path) -> None:
    check_report_and_plot_agree(path)


@pytest.mark.parametrize("name", ["several processes", "few rows", "every magnitude"])
def test_report_and_plot_of_any_rows_show_the_same_percentiles(tmp_path: Path, name: str) -> None:
    check_report_and_plot_agree(write_capture(tmp_path / "run.parquet", generated(name)))


def test_sql_and_numpy_put_a_latency_into_the_same_bucket() -> None:
    powers = 2 ** np.arange(63, dtype=np.int64)
    doublings = 1000 << np.arange(53, dtype=np.int64)
    some = np.exp2(np.random.default_rng(1).uniform(0, 62, 9973)).astype(np.int64)
    edges = (-(2**63) + 1, -1, 0, 2**63 - 1)
    latency_ns = np.concatenate([edges, powers, doublings, doublings - 1, some])
    query = f"SELECT {bucket_sql('latency_ns')} FROM (SELECT unnest(?::BIGINT[]) AS latency_ns)"
    by_sql = np.array(duckdb.execute(query, [latency_ns.tolist()]).fetchall())[:, 0]
    np.testing.assert_array_equal(buckets_of(latency_ns), by_sql)


def test_buckets_that_come_several_times_are_added_up() -> None:
    latency_ns = np.random.default_rng(2).permutation(np.arange(1, 5003) * 7919)
    ios = np.ones_like(latency_ns)
    added = add_up_buckets(buckets_of(latency_ns), ios, latency_ns, latency_ns)
    assert added.ios.sum() == latency_ns.size
    assert (np.diff(added.low_ns) > 0).all()
    fractions = np.linspace(0, 1, 101)
    expected = np.percentile(latency_ns, 100 * fractions)
    np.testing.assert_allclose(added.percentiles_ns(fractions), expected, rtol=0.003)
