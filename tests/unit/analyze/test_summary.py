# SPDX-License-Identifier: GPL-2.0-only
"""Sums and percentiles per group, against plain numpy over the same rows."""

import io
from collections.abc import Callable, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analyze
from analyze.column_names import column_name
from analyze.errors import IorecError
from analyze.groupings import GROUPINGS, SORTS
from analyze.groups import Group
from analyze.load import LOAD_SORTS
from analyze.render.csv import render_csv
from analyze.render.report import render_text
from analyze.report import make_report
from analyze.summary import Summary
from tests.builders import SECOND_NS, START_NS, mixed_table, rfc3339, table, write_capture

PERCENTILES = {"p50_ns": 50, "p95_ns": 95, "p99_ns": 99, "p999_ns": 99.9}


def summary_of(folder: Path, rows: pa.Table, *by: str, **options: Any) -> Summary:
    path = write_capture(folder / "run.parquet", rows, started_at=rfc3339(START_NS))
    with analyze.open(path) as capture:
        return capture.summary(by or ("process",), **options)


def check_against_numpy(numbers: Mapping[str, Any], frame: pd.DataFrame, duration_s: float) -> None:
    """Checks the numbers of a group, those of its latency behind `latency_`, against its rows."""
    has_failed = frame.errno.fillna(0) != 0
    good = frame[~has_failed & frame.latency_ns.notna()]
    latency = good.latency_ns.to_numpy(dtype=np.int64)
    sizes = frame[~has_failed].groupby("op", observed=False).bytes.sum()
    sizes = sizes.reindex(["read", "write", "discard", "secure_erase", "write_zeroes"]).fillna(0)
    exact = {
        "ios": len(frame),
        "reads": (frame.op == "read").sum(),
        "writes": (frame.op == "write").sum(),
        "flushes": (frame.op == "flush").sum(),
        "read_bytes": sizes["read"],
        "write_bytes": sizes["write"],
        "discarded_bytes": sizes["discard"] + sizes["secure_erase"],
        "zeroed_bytes": sizes["write_zeroes"],
        "in_flight": frame.latency_ns.isna().sum(),
        "errors": has_failed.sum(),
        "time_ns": frame.latency_ns.sum(),
        "latency_sum_ns": latency.sum(),
        "latency_min_ns": latency.min(),
        "latency_max_ns": latency.max(),
    }
    assert {name: numbers[name] for name in exact} == exact
    queued = good[good.queue_ns.notna()]
    rounded = {
        "ios_per_s": len(frame) / duration_s,
        "bytes_per_s": (sizes["read"] + sizes["write"]) / duration_s,
        "queue_share": queued.queue_ns.sum() / queued.latency_ns.sum(),
        "latency_avg_ns": latency.mean(),
    }
    assert {name: numbers[name] for name in rounded} == pytest.approx(rounded)
    percentiles = {
        f"latency_{name}": np.percentile(latency, percent) for name, percent in PERCENTILES.items()
    }
    found = {name: numbers[name] for name in percentiles}
    assert found == pytest.approx(percentiles, rel=0.003)


def numbers_of(group: Group) -> dict[str, Any]:
    latency = {f"latency_{name}": value for name, value in vars(group.latency).items()}
    return vars(group) | latency


OPS = ("read", "write", "flush", "cache_flush", "discard", "secure_erase", "write_zeroes")


def rows_of_everything(count: int) -> pa.Table:
    """Rows of all ops, some in flight, some slow ones failed, some without a queue time."""
    rows = mixed_table(count, seconds=1.0)
    number = np.arange(count)
    op = np.random.default_rng(5).choice(OPS, count, p=[0.5, 0.2, 0.1, 0.1, 0.04, 0.03, 0.03])
    has_failed = number % 97 == 1
    latency_ns = np.where(has_failed, 10**10, rows["latency_ns"].to_numpy())
    is_in_flight = number % 101 == 0
    return table(
        count,
        **{name: rows[name].to_pylist() for name in ("time", "device", "offset", "pid", "comm")},
        op=op,
        flags=np.where(op == "read", "", "sync"),
        bytes=np.where(np.char.endswith(op, "flush"), 0, rows["bytes"].to_numpy()),
        latency_ns=pa.array(latency_ns, mask=is_in_flight).to_pylist(),
        queue_ns=pa.array(latency_ns // 5, mask=is_in_flight | (number % 7 == 0)).to_pylist(),
        errno=pa.array(np.where(has_failed, 5, 0), mask=is_in_flight).to_pylist(),
    )


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
    everything = rows.to_pandas().astype(dict.fromkeys(("op", *columns), str))
    duration_s = summary.duration_ns / SECOND_NS
    is_flush = everything.op == "cache_flush"
    for found, total, frame in (
        (summary.groups, summary.total, everything[~is_flush]),
        (summary.cache_flushes, summary.cache_flush_total, everything[is_flush]),
    ):
        groups = {tuple(map(str, group.key.values())): group for group in found}
        expected = {k if isinstance(k, tuple) else (k,): f for k, f in frame.groupby(columns)}
        assert groups.keys() == expected.keys()
        for key, group_frame in expected.items():
            check_against_numpy(numbers_of(groups[key]), group_frame, duration_s)
        assert total is not None
        check_against_numpy(numbers_of(total), frame, duration_s)
    assert sum(group.time_share or 0 for group in summary.groups) == pytest.approx(1)
    assert {group.time_share for group in summary.cache_flushes} == {None}
    assert summary.completed_bytes == everything.bytes[everything.latency_ns.notna()].sum()


def test_a_frame_has_every_number_of_every_group_as_numpy(tmp_path: Path) -> None:
    rows = rows_of_everything(20_011)
    summary = summary_of(tmp_path, rows, "device", "op")
    everything = rows.to_pandas().astype({"device": str, "op": str})
    found = summary.frame()
    assert len(found) == everything.groupby(["device", "op"]).ngroups
    time_ns = everything.latency_ns[everything.op != "cache_flush"].sum()
    for row in found.to_dict("records"):
        frame = everything[(everything.device == row["device"]) & (everything.op == row["op"])]
        check_against_numpy(row, frame, summary.duration_ns / SECOND_NS)
        is_flush = row["op"] == "cache_flush"
        assert row["kind"] == ("cache_flush" if is_flush else "io")
        share = None if is_flush else pytest.approx(frame.latency_ns.sum() / time_ns)
        assert row["time_share"] == share or (is_flush and np.isnan(row["time_share"]))


@pytest.mark.parametrize("interval_ns", [None, SECOND_NS // 4])
def test_a_frame_is_what_csv_prints(tmp_path: Path, interval_ns: int | None) -> None:
    path = write_capture(tmp_path / "run.parquet", rows_of_everything(1009))
    with analyze.open(path) as capture:
        printed = render_csv(make_report(capture, ["process", "size"], interval_ns=interval_ns))
        frame = capture.summary(["process", "size"], interval_ns=interval_ns).frame()
    read = pd.read_csv(io.StringIO(printed), parse_dates=["start"] if interval_ns else None)
    pd.testing.assert_frame_equal(frame, read, check_dtype=False, check_categorical=False)


def test_a_frame_has_the_same_columns_and_types_whatever_is_unknown(tmp_path: Path) -> None:
    whole = summary_of(tmp_path, rows_of_everything(1009)).frame()
    nothing = summary_of(tmp_path, table(0)).frame()
    unknown = summary_of(tmp_path, table(3, pid=None, comm=None, latency_ns=None)).frame()
    assert (len(nothing), len(unknown)) == (0, 1)
    assert unknown[["pid", "process", "latency_min_ns", "latency_p50_ns"]].isna().all(axis=None)
    for frame in (whole, nothing, unknown):
        types = {name: str(kind) for name, kind in frame.dtypes.items()}
        assert types == {name: str(kind) for name, kind in whole.dtypes.items()}
        assert (types["pid"], types["process"], types["ios"]) == ("Int32", "category", "Int64")


def test_sums_that_no_column_holds_are_said(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, table(4, latency_ns=2**63 - 1, queue_ns=None))
    with pytest.raises(IorecError, match="64 bits"):
        summary.frame()


def test_one_key_may_be_given_as_a_text(tmp_path: Path) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet", mixed_table(503))) as capture:
        assert capture.summary("process") == capture.summary(["process"]) == capture.summary()
        with pytest.raises(IorecError, match="cannot group by 'proces'"):
            capture.summary("proces")


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
        **{name: attrgetter(name) for name in ("ios", "reads", "writes", "flushes", "errors")},
        "time": attrgetter("time_ns"),
        "read": attrgetter("read_bytes"),
        "written": attrgetter("write_bytes"),
        "discarded": attrgetter("discarded_bytes"),
        "zeroed": attrgetter("zeroed_bytes"),
        "iops": attrgetter("ios_per_s"),
        "rate": attrgetter("bytes_per_s"),
        "queued": attrgetter("queue_share"),
    }
    value = values.get(sort) or attrgetter(f"latency.{sort}_ns")
    summary = summary_of(tmp_path, rows_of_everything(5003), "process", "op", sort=sort)
    found = [value(group) for group in summary.groups]
    assert found == sorted(found, key=lambda number: number or 0, reverse=True)
    top = summary_of(tmp_path, rows_of_everything(5003), "process", "op", sort=sort, top=3)
    assert top.groups == summary.groups[:3]


@pytest.mark.parametrize(
    ("written", "name"),
    [
        *(("I/OS", "ios"), ("P99.9", "p999"), ("Written", "written"), ("≥READS", "reads")),
        *(("latency_p99_ns", "p99"), ("time_ns", "time"), ("write_bytes", "written")),
        *(("bytes", "rate"), ("queue_share", "queued"), ("QUEUE P99", "queue-p99")),
        *(("busy_share", "busy"), ("mean_in_flight", "in-flight"), ("queue_max_ns", "queue-max")),
    ],
)
def test_a_column_is_named_as_in_a_title_or_in_csv(written: str, name: str) -> None:
    assert column_name(written) == name
    assert name in {**SORTS, **LOAD_SORTS}


def test_top_leaves_out_groups_but_not_from_the_total(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, table(100, pid=list(range(100))), "pid", top=7)
    assert (len(summary.groups), summary.group_count, summary.total.ios) == (7, 100, 100)


@pytest.mark.parametrize("by", GROUPINGS)
def test_rows_can_be_grouped_by(tmp_path: Path, by: str) -> None:
    summary = summary_of(tmp_path, rows_of_everything(1009), by)
    assert sum(group.ios for group in (*summary.groups, *summary.cache_flushes)) == 1009
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


def test_a_flush_has_no_file_and_that_of_direct_io_is_unknown(tmp_path: Path) -> None:
    op, file = ["flush", "discard", "read", "write"], [None, None, None, "/var/log/syslog"]
    path = write_capture(tmp_path / "run.parquet", table(4, op=op, file=file))
    with analyze.open(path) as capture:
        report = make_report(capture, "file")
    found = {group.key["file"]: group.ios for group in report.summary.groups}
    assert found == {"": 2, None: 1, "/var/log/syslog": 1}
    lines = [line.split()[:2] for line in render_text(report, 80).splitlines()]
    assert ["none", "2"] in lines
    assert ["unknown", "1"] in lines


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


def test_a_wait_for_a_flush_is_one_wait(tmp_path: Path) -> None:
    rows = table(
        3, op=["write", "flush", "cache_flush"], pid=[7, 7, None], latency_ns=[100, 300, 299],
        queue_ns=0,
    )  # fmt: skip
    summary = summary_of(tmp_path, rows, "pid")
    [group] = summary.groups
    assert (group.key["pid"], group.ios, group.time_ns, group.time_share) == (7, 2, 400, 1)
    [flushes] = summary.cache_flushes
    assert (flushes.ios, flushes.latency.max_ns, flushes.time_share) == (1, 299, None)


def test_processes_and_devices_of_two_hosts_or_boots_are_not_merged(tmp_path: Path) -> None:
    for number, (host, boot) in enumerate(
        [("db1", "aaaaaaaa-1"), ("db1", "bbbbbbbb-2"), ("db2", None)]
    ):
        write_capture(tmp_path / f"{number}.parquet", table(3), hostname=host, boot_id=boot)
    write_capture(tmp_path / "same.csv", table(4), hostname="db1", boot_id="aaaaaaaa-1")
    with analyze.open(tmp_path) as capture:
        by_process = capture.summary(["process"])
        by_op = capture.summary(["op"])
        by_host = capture.summary(["host"])
        by_capture = capture.summary(["capture"])
    assert by_process.key_columns == ("host", "pid", "process")
    hosts = {"db1 boot aaaaaaaa": 7, "db1 boot bbbbbbbb": 3, "db2": 3}
    for summary in (by_process, by_host):
        assert {group.key["host"]: group.ios for group in summary.groups} == hosts
    assert by_op.key_columns == ("op",)
    assert by_op.total.ios == 13
    assert sorted(group.ios for group in by_capture.groups) == [3, 3, 3, 4]


def test_the_rates_of_a_capture_are_by_its_own_time(tmp_path: Path) -> None:
    for number, count in enumerate((1000, 3000)):
        write_capture(tmp_path / f"{number}.parquet", table(count))
    with analyze.open(tmp_path) as capture:
        together, apart = capture.summary(["op"]), capture.summary(["capture"])
    rates = []
    for number in range(2):
        with analyze.open(tmp_path / f"{number}.parquet") as capture:
            rates.append(capture.summary(["op"]).total.ios_per_s)
    found = {str(group.key["capture"])[-9]: group.ios_per_s for group in apart.groups}
    assert found == {"0": rates[0], "1": rates[1]}
    assert together.total.ios_per_s == apart.total.ios_per_s


def test_an_empty_capture_has_no_groups(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, table(0), histogram=True)
    assert (summary.groups, summary.group_count, summary.total.ios) == ((), 0, 0)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"by": ("colour",)}, "choose from: process, thread, "),
        ({"sort": "colour"}, "choose from: time, ios, "),
        ({"by": ("com",)}, "did you mean comm? choose from: process, "),
        ({"sort": "p98"}, "did you mean p99? choose from: time, "),
        ({"sort": "WRITEN"}, "did you mean written? choose from: time, "),
    ],
)
def test_an_unknown_grouping_or_order_lists_the_known_ones_and_the_nearest_first(
    tmp_path: Path, options: dict[str, Any], hint: str
) -> None:
    with (
        pytest.raises(IorecError) as caught,
        analyze.open(write_capture(tmp_path / "run.parquet")) as capture,
    ):
        capture.summary(**options)
    assert caught.value.exit_code == 2
    assert caught.value.hint.startswith(hint)


def test_more_groups_than_fit_into_memory_need_top(tmp_path: Path) -> None:
    rows = table(20_001, tid=list(range(20_001)))
    with pytest.raises(IorecError, match="20,001 groups by tid"):
        summary_of(tmp_path, rows, "tid")
    assert len(summary_of(tmp_path, rows, "tid", top=9).groups) == 9
