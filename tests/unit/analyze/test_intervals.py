# SPDX-License-Identifier: GPL-2.0-only
"""I/Os by interval of time, against plain numpy over the same rows."""

import csv
import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import analyze
from analyze.errors import IorecError
from analyze.intervals import Interval
from analyze.render.csv import render_csv
from analyze.render.report import render_text
from analyze.report import make_report
from analyze.schema import BLOCK_LAYERS
from tests.builders import SECOND_NS, START_NS, rfc3339, table, write_capture

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*.parquet"))
INTERVAL_NS = 250_000_000


def check_against_numpy(intervals: tuple[Interval, ...], path: Path, begin_ns: int) -> None:
    rows = pq.read_table(path, filters=[("layer", "in", BLOCK_LAYERS)])
    time_ns = rows["time"].cast("int64").to_numpy()
    op, comm = (np.array(rows[name].to_pylist(), dtype=object) for name in ("op", "comm"))
    size = rows["bytes"].to_numpy()
    latency_ns = rows["latency_ns"].to_numpy(zero_copy_only=False).astype(float)
    is_good = np.array([errno == 0 for errno in rows["errno"].to_pylist()])
    number = (time_ns - begin_ns) // INTERVAL_NS
    for place, interval in enumerate(intervals):
        is_in = (number == place) & (op != "cache_flush")
        assert interval.start == begin_ns + place * INTERVAL_NS
        assert interval.total.ios == is_in.sum()
        assert {group.key["comm"] for group in interval.groups} == set(comm[is_in])
        flushes = ((number == place) & (op == "cache_flush")).sum()
        assert sum(group.ios for group in interval.cache_flushes) == flushes
        for group in interval.groups:
            mine = is_in & (comm == group.key["comm"])
            good = mine & is_good
            assert group.ios == mine.sum()
            assert group.read_bytes == size[good & (op == "read")].sum()
            assert group.time_ns == np.nansum(latency_ns[mine])
            assert group.ios_per_s == pytest.approx(mine.sum() * 1e9 / interval.duration_ns)
            expected = np.percentile(latency_ns[good], 99) if good.any() else None
            assert group.latency.p99_ns == pytest.approx(expected, rel=0.003)
    assert number.min() >= 0
    assert number.max() < len(intervals)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_interval_of_a_sample_equals_numpy(path: Path) -> None:
    with analyze.open(path) as capture:
        summary = capture.summary(["comm"], interval_ns=INTERVAL_NS)
        length_ns = capture.window.end_ns - capture.window.begin_ns
        check_against_numpy(summary.intervals, path, capture.origin_ns)
        assert summary.groups == capture.summary(["comm"]).groups
    assert len(summary.intervals) == -(-length_ns // INTERVAL_NS)
    assert sum(interval.duration_ns for interval in summary.intervals) == length_ns


@pytest.mark.parametrize("by", [["comm", "op"], []])
def test_intervals_are_the_same_however_few_are_summed_up_at_a_time(
    monkeypatch: pytest.MonkeyPatch, by: list[str]
) -> None:
    with analyze.open(SAMPLES[0], where="pid % 2 = 0") as capture:
        whole = capture.summary(by, interval_ns=INTERVAL_NS)
        monkeypatch.setattr("analyze.intervals._IOS_AT_ONCE", 100)
        assert capture.summary(by, interval_ns=INTERVAL_NS) == whole


def sparse_capture(folder: Path) -> Path:
    """Of 4 s: 1000 I/Os in the first one, 3 of two processes in the last."""
    seconds = [*np.arange(1000) / 1000, 3.0, 3.5, 3.999]
    time_ns = START_NS + np.round(np.array(seconds) * SECOND_NS).astype(np.int64)
    pid = [1] * 1000 + [1, 2, 2]
    rows = table(1003, time=time_ns, pid=pid)
    return write_capture(folder / "run.parquet", rows, stopped_at=rfc3339(START_NS + 4 * SECOND_NS))


def test_an_interval_without_ios_is_a_line_of_zeros(tmp_path: Path) -> None:
    with analyze.open(sparse_capture(tmp_path)) as capture:
        report = make_report(capture, ["pid"], interval_ns=SECOND_NS)
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    found = [(line["start"][17:19], line["pid"], line["ios"]) for line in lines]
    assert found == [
        ("47", "1", "1000"),
        ("48", "", "0"),
        ("49", "", "0"),
        ("50", "2", "2"),
        ("50", "1", "1"),
    ]
    shown = [line.split() for line in render_text(report, 80).splitlines()]
    assert ["1.000000", "s", "20:32:48.000", "0"] in [words[:4] for words in shown]
    assert ["3.000000", "s", "20:32:50.000", "2", "2"] in [words[:5] for words in shown]
    assert ["total", "1,003"] in [words[:2] for words in shown]
    assert "(0 s is 20:32:47.000 UTC)" in render_text(report, 40)


def test_intervals_begin_with_the_window_and_the_last_one_may_be_shorter(tmp_path: Path) -> None:
    with analyze.open(sparse_capture(tmp_path), begin=0.5) as capture:
        intervals = capture.summary([], interval_ns=SECOND_NS).intervals
    assert [interval.start - START_NS for interval in intervals] == [
        SECOND_NS // 2 + place * SECOND_NS for place in range(4)
    ]
    assert [interval.total.ios for interval in intervals] == [500, 0, 1, 2]
    assert [group.ios for group in intervals[0].groups] == [500]
    assert intervals[-1].duration_ns == SECOND_NS // 2
    assert intervals[-1].total.ios_per_s == 4


@pytest.mark.parametrize("sort", ["ios", "p99"])
def test_top_counts_the_groups_of_each_interval(tmp_path: Path, sort: str) -> None:
    rows = table(20, pid=[*range(10), *range(10)], latency_ns=[*range(1000, 1020)], queue_ns=None)
    path = write_capture(tmp_path / "run.parquet", rows)
    with analyze.open(path) as capture:
        report = make_report(capture, ["pid"], sort=sort, top=3, interval_ns=10_000_000)
    first, second = report.summary.intervals[:2]
    assert [len(first.groups), first.group_count] == [3, 10]
    largest = [9, 8, 7] if sort == "p99" else [0, 1, 2]
    assert [group.key["pid"] for group in second.groups] == largest
    assert "(14 more: --top 10)" in render_text(report, 80)


def test_rates_leave_out_the_time_between_recordings(tmp_path: Path) -> None:
    for number, start_ns in enumerate((START_NS, START_NS + 1_500_000_000)):
        rows = table(500, time=start_ns + np.arange(500) * 1_000_000)
        span = {"started_at": rfc3339(start_ns), "stopped_at": rfc3339(start_ns + SECOND_NS // 2)}
        write_capture(tmp_path / f"{number}.parquet", rows, **span)
    with analyze.open(tmp_path) as capture:
        intervals = capture.summary([], interval_ns=SECOND_NS).intervals
    assert [interval.total.ios_per_s for interval in intervals] == [1000, 1000]


def test_the_rates_of_a_capture_are_by_its_own_time(tmp_path: Path) -> None:
    """Of the second from the start the first capture has the first half, the second all of it."""
    for number, length_ns in enumerate((SECOND_NS // 2, SECOND_NS)):
        rows = table(500, time=START_NS + np.arange(500) * (length_ns // 500))
        stop = rfc3339(START_NS + length_ns)
        write_capture(tmp_path / f"{number}.parquet", rows, stopped_at=stop)
    with analyze.open(tmp_path) as capture:
        [interval] = capture.summary(["capture"], interval_ns=SECOND_NS).intervals
    found = {Path(str(group.key["capture"])).stem: group.ios_per_s for group in interval.groups}
    assert found == {"0": 1000, "1": 500}
    assert interval.total.ios_per_s == 1000


@pytest.mark.parametrize(
    ("interval_ns", "by", "cause"),
    [
        (0, [], "an interval of 0"),
        (100_000, [], "there are 40,000 intervals of 100 µs"),
        (1_000_000, ["tid"], "there are more than 20,000 rows of groups and intervals"),
    ],
)
def test_more_intervals_than_fit_into_memory_are_refused(
    tmp_path: Path, interval_ns: int, by: list[str], cause: str
) -> None:
    time_ns = START_NS + np.arange(20_000) // 20 * 1_000_000
    rows = table(20_000, time=time_ns, tid=range(20_000))
    stop = rfc3339(START_NS + 4 * SECOND_NS)
    path = write_capture(tmp_path / "run.parquet", rows, stopped_at=stop)
    with pytest.raises(IorecError, match=cause), analyze.open(path) as capture:
        capture.summary(by, interval_ns=interval_ns)
