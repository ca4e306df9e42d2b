"""Sums and percentiles per group, against plain numpy over the same rows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analyze
from analyze.errors import IorecError
from analyze.summary import Group, Summary
from analyze.summary_query import GROUPINGS, SORTS
from tests.builders import SECOND_NS, START_NS, mixed_table, rfc3339, table, write_capture

PERCENTILES = {"p50_ns": 50, "p95_ns": 95, "p99_ns": 99, "p999_ns": 99.9}


def summary_of(folder: Path, rows: pa.Table, *by: str, **options: Any) -> Summary:
    path = write_capture(folder / "run.parquet", rows, started_at=rfc3339(START_NS))
    with analyze.open(path) as capture:
        return capture.summary(by or ("process",), **options)


def check_against_numpy(group: Group, frame: pd.DataFrame, duration_s: float) -> None:
    done = frame[frame.latency_ns.notna()]
    latency = done.latency_ns.to_numpy(dtype=np.int64)
    reads, writes = (frame[frame.op == op] for op in ("read", "write"))
    assert group.ios == len(frame)
    assert (group.reads, group.writes) == (len(reads), len(writes))
    assert (group.read_bytes, group.write_bytes) == (reads.bytes.sum(), writes.bytes.sum())
    assert group.in_flight == frame.latency_ns.isna().sum()
    assert group.errors == (frame.errno.fillna(0) != 0).sum()
    assert group.ios_per_s == pytest.approx(len(frame) / duration_s)
    assert group.bytes_per_s == pytest.approx((reads.bytes.sum() + writes.bytes.sum()) / duration_s)
    assert group.latency.sum_ns == latency.sum()
    assert group.latency.avg_ns == pytest.approx(latency.mean())
    assert (group.latency.min_ns, group.latency.max_ns) == (latency.min(), latency.max())
    for name, percent in PERCENTILES.items():
        expected = np.percentile(latency, percent)
        assert getattr(group.latency, name) == pytest.approx(expected, rel=0.003)
    queued = done[done.queue_ns.notna()]
    assert group.queue_share == pytest.approx(queued.queue_ns.sum() / queued.latency_ns.sum())


def rows_of_everything(count: int) -> pa.Table:
    """Mixed rows, some in flight, some failed, some without a queue time."""
    rows = mixed_table(count, seconds=1.0)
    number = np.arange(count)
    is_in_flight = pa.array(number % 101 == 0)
    queue_ns = pc.if_else(pa.array(number % 7 == 0), None, rows["queue_ns"])
    errno = pa.array(np.where(number % 97 == 1, 5, 0), pa.int16())
    for name, values in (
        ("latency_ns", rows["latency_ns"]),
        ("queue_ns", queue_ns),
        ("errno", errno),
    ):
        place = rows.schema.get_field_index(name)
        values = pc.if_else(is_in_flight, None, values)
        rows = rows.set_column(place, rows.schema.field(name), values)
    return rows


@pytest.mark.parametrize(
    ("by", "columns"),
    [
        (("process",), ["pid", "comm"]),
        (("device", "op"), ["device", "op"]),
        (("op", "process"), ["op", "pid", "comm"]),
        (("flags",), ["flags"]),
    ],
)
def test_every_number_of_every_group_equals_numpy(
    tmp_path: Path, by: tuple[str, ...], columns: list[str]
) -> None:
    rows = rows_of_everything(20_011)
    summary = summary_of(tmp_path, rows, *by)
    frame = rows.to_pandas()
    groups = {tuple(group.key.values()): group for group in summary.groups}
    expected = {key if isinstance(key, tuple) else (key,): f for key, f in frame.groupby(columns)}
    assert groups.keys() == expected.keys()
    duration_s = summary.duration_ns / SECOND_NS
    for key, group_frame in expected.items():
        check_against_numpy(groups[key], group_frame, duration_s)
    check_against_numpy(summary.total, frame, duration_s)
    assert sum(group.time_share or 0 for group in summary.groups) == pytest.approx(1)


latencies = st.lists(
    st.one_of(st.integers(0, 2000), st.integers(0, 10**10), st.integers(0, 62).map(lambda i: 2**i)),
    min_size=1,
    max_size=60,
)


@settings(max_examples=25, deadline=None)
@given(values=latencies)
def test_a_percentile_is_within_a_third_of_a_percent(
    tmp_path_factory: pytest.TempPathFactory, values: list[int]
) -> None:
    rows = table(len(values), latency_ns=values, queue_ns=None)
    latency = summary_of(tmp_path_factory.mktemp("run"), rows).total.latency
    assert (latency.min_ns, latency.max_ns, latency.sum_ns) == (
        min(values),
        max(values),
        sum(values),
    )
    for name, percent in PERCENTILES.items():
        expected = np.percentile(np.array(values, dtype=np.float64), percent)
        assert getattr(latency, name) == pytest.approx(expected, rel=0.003)


@pytest.mark.parametrize("values", [[1000], [1000, 1004], [0, 1], [1, 10**9], [5, 5, 5]])
def test_percentiles_of_very_few_ios_are_exact(tmp_path: Path, values: list[int]) -> None:
    latency = summary_of(
        tmp_path, table(len(values), latency_ns=values, queue_ns=None)
    ).total.latency
    for name, percent in PERCENTILES.items():
        assert getattr(latency, name) == pytest.approx(np.percentile(values, percent), rel=1e-12)


def test_the_largest_latency_that_fits_is_summed_without_overflow(tmp_path: Path) -> None:
    largest = 2**63 - 1
    total = summary_of(tmp_path, table(4, latency_ns=largest, queue_ns=None)).total
    assert total.latency.sum_ns == 4 * largest
    assert total.latency.max_ns == largest


def test_groups_come_sorted_by_the_time_spent_in_io(tmp_path: Path) -> None:
    rows = table(6, pid=[1, 1, 1, 2, 3, 3], latency_ns=[10, 10, 10, 100, 20, 20], queue_ns=0)
    summary = summary_of(tmp_path, rows, "pid")
    assert [group.key["pid"] for group in summary.groups] == [2, 3, 1]


@pytest.mark.parametrize("sort", SORTS)
def test_each_order_puts_the_largest_first(tmp_path: Path, sort: str) -> None:
    values: dict[str, Callable[[Group], float | None]] = {
        "time": lambda group: group.latency.sum_ns,
        "bytes": lambda group: group.read_bytes + group.write_bytes,
        **{name: (lambda group, n=name: getattr(group, n)) for name in ("ios", "reads", "writes")},
        "errors": lambda group: group.errors,
    }
    value = values.get(sort) or (lambda group: getattr(group.latency, f"{sort}_ns"))
    summary = summary_of(tmp_path, rows_of_everything(5003), "process", "op", sort=sort)
    found = [value(group) for group in summary.groups]
    assert found == sorted(found, key=lambda number: number or 0, reverse=True)
    top = summary_of(tmp_path, rows_of_everything(5003), "process", "op", sort=sort, top=3)
    assert top.groups == summary.groups[:3]


def test_top_leaves_out_groups_but_not_from_the_total(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, table(100, pid=list(range(100))), "pid", top=7)
    assert (len(summary.groups), summary.group_count, summary.total.ios) == (7, 100, 100)


@pytest.mark.parametrize("by", GROUPINGS)
def test_rows_can_be_grouped_by(tmp_path: Path, by: str) -> None:
    summary = summary_of(tmp_path, rows_of_everything(1009), by)
    assert sum(group.ios for group in summary.groups) == 1009
    assert set(summary.groups[0].key) == set(summary.key_columns) == set(GROUPINGS[by])


def test_a_size_class_reaches_to_the_next_power_of_two(tmp_path: Path) -> None:
    sizes = [0, 1, 511, 512, 4095, 4096, 8191, 8192, 2**62]
    summary = summary_of(tmp_path, table(len(sizes), bytes=sizes), "size")
    counts = {group.key["size_class_bytes"]: group.ios for group in summary.groups}
    assert counts == {0: 1, 1: 1, 256: 1, 512: 1, 2048: 1, 4096: 2, 8192: 1, 2**62: 1}


def test_an_unknown_value_is_a_group_of_its_own(tmp_path: Path) -> None:
    rows = table(3, pid=[None, None, 5], comm=None, latency_ns=[7, 7, 9], queue_ns=None)
    summary = summary_of(tmp_path, rows, "process")
    found = {
        tuple(group.key.values()): (group.ios, group.latency.p50_ns) for group in summary.groups
    }
    assert found == {(None, None): (2, 7), (5, None): (1, 9)}


def test_a_histogram_counts_powers_of_two_of_a_microsecond(tmp_path: Path) -> None:
    values = [0, 1, 1999, 2000, 3999, 4000, 7999, 8000, 1_024_000, 1_023_999]
    rows = table(len(values) + 1, latency_ns=[*values, None], queue_ns=None)
    histogram = summary_of(tmp_path, rows, histogram=True).total.histogram
    assert histogram is not None
    assert [(bin_.low_ns, bin_.high_ns) for bin_ in histogram[:3]] == [
        (0, 2000),
        (2000, 4000),
        (4000, 8000),
    ]
    assert [bin_.ios for bin_ in histogram] == [3, 2, 2, 1, 0, 0, 0, 0, 0, 1, 1]


def test_ios_in_flight_count_but_have_no_latency(tmp_path: Path) -> None:
    total = summary_of(tmp_path, table(3, latency_ns=None, queue_ns=None, errno=None)).total
    assert (total.ios, total.in_flight, total.latency.sum_ns) == (3, 3, 0)
    assert total.latency.p99_ns is None
    assert total.queue_share is None


def test_rates_count_only_the_time_in_which_something_was_recorded(tmp_path: Path) -> None:
    for i, start_ns in enumerate((START_NS, START_NS + 3600 * SECOND_NS)):
        rows = table(1000, time=start_ns + np.arange(1000) * 1_000_000)
        stop = rfc3339(start_ns + SECOND_NS)
        name = tmp_path / f"{i}.parquet"
        write_capture(name, rows, started_at=rfc3339(start_ns), stopped_at=stop)
    with analyze.open(tmp_path) as capture:
        assert capture.summary().total.ios_per_s == pytest.approx(1000)


def test_an_empty_capture_has_no_groups(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, table(0), histogram=True)
    assert (summary.groups, summary.group_count, summary.total.ios) == ((), 0, 0)


@pytest.mark.parametrize("options", [{"by": ("colour",)}, {"sort": "colour"}])
def test_an_unknown_grouping_or_order_lists_the_known_ones(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    with (
        pytest.raises(IorecError) as caught,
        analyze.open(write_capture(tmp_path / "run.parquet")) as capture,
    ):
        capture.summary(**options)
    assert caught.value.exit_code == 2
    assert "choose from: " in caught.value.hint


def test_more_groups_than_fit_into_memory_need_top(tmp_path: Path) -> None:
    rows = table(20_001, tid=list(range(20_001)))
    with pytest.raises(IorecError, match="20,001 groups by tid"):
        summary_of(tmp_path, rows, "tid")
    assert len(summary_of(tmp_path, rows, "tid", top=9).groups) == 9
