# SPDX-License-Identifier: GPL-2.0-only
"""The binned numbers behind the plots, against plain numpy on the same rows."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from analyze.capture import Capture, open_captures
from analyze.errors import IorecError
from analyze.latency import PERCENTILES
from analyze.plot.bins import CACHE_FLUSH, OPS, Devices, Series, add_up
from analyze.plot.contents import load_contents
from analyze.plot.depth import load_depth
from analyze.plot.hung import load_hung
from analyze.plot.kinds import By
from analyze.plot.offsets import DeviceOffsets, load_offsets
from analyze.plot.owners import Owners, OwnerTime, load_owners
from analyze.plot.timeline import Timeline, make_timeline
from analyze.plot.traffic import CURVE_SHARES, Traffic, load_traffic
from tests.builders import (
    SECOND_NS,
    START_NS,
    metadata,
    mixed_table,
    rfc3339,
    table,
    write_capture,
    write_parquet,
)

INT64_MAX = 2**63 - 1


def open_rows(folder: Path, rows: pa.Table, **overrides: Any) -> tuple[Capture, Timeline]:
    capture = open_captures([write_capture(folder / "run.parquet", rows, **overrides)])
    return capture, make_timeline(capture, load_contents(capture).io_count)


@pytest.fixture(scope="module")
def rows() -> pa.Table:
    return mixed_table(20_011)


@pytest.fixture(scope="module")
def opened(rows: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> tuple[Capture, Timeline]:
    return open_rows(tmp_path_factory.mktemp("plot"), rows)


def each_device(
    rows: pa.Table, opened: tuple[Capture, Timeline]
) -> Iterator[tuple[pa.Table, Traffic]]:
    """The rows of each device and what is drawn of them."""
    for traffic in load_traffic(*opened, load_contents(opened[0]).devices):
        yield rows.filter(pa.compute.equal(rows["device"], traffic.device)), traffic


def load_one_traffic(capture: Capture, timeline: Timeline) -> Traffic:
    [traffic] = load_traffic(capture, timeline, load_contents(capture).devices)
    return traffic


def load_one_depth(capture: Capture, timeline: Timeline) -> Series:
    nobody = Owners(By.PROCESS, (), 0, 0.0)
    [depth] = load_depth(capture, timeline, load_contents(capture).devices, nobody).by_device
    return depth


def load_all_offsets(capture: Capture, timeline: Timeline) -> list[DeviceOffsets]:
    offsets = load_offsets(capture, timeline, load_contents(capture).devices)
    return [device for device in offsets if device is not None]


def load_processes(capture: Capture, timeline: Timeline) -> tuple[OwnerTime, ...]:
    return load_owners(capture, timeline, By.PROCESS, 4).top


def column(rows: pa.Table, name: str) -> Any:
    return rows[name].cast(pa.int64()).to_numpy() if name == "time" else rows[name].to_numpy()


def test_every_io_and_byte_lies_in_exactly_one_time_bin(
    rows: pa.Table, opened: tuple[Capture, Timeline]
) -> None:
    timeline = opened[1]
    width_s = timeline.width_ns / 1e9
    for of_device, traffic in each_device(rows, opened):
        bins = (column(of_device, "time") - timeline.begin_ns) // timeline.width_ns
        for index, op in enumerate(OPS):
            of_op = column(of_device, "op") == op
            sizes = column(of_device, "bytes")[of_op]
            ios = np.bincount(bins[of_op], minlength=timeline.bin_count)
            size_bytes = np.bincount(bins[of_op], sizes, minlength=timeline.bin_count)
            np.testing.assert_allclose(traffic.iops.values[index] * width_s, ios)
            np.testing.assert_allclose(traffic.bytes_per_s.values[index] * width_s, size_bytes)


def test_heatmap_and_histogram_count_every_completed_io_once(
    rows: pa.Table, opened: tuple[Capture, Timeline]
) -> None:
    timeline = opened[1]
    total = 0
    for of_device, traffic in each_device(rows, opened):
        latencies = traffic.latencies
        expected, *_ = np.histogram2d(
            column(of_device, "latency_ns"),
            (column(of_device, "time") - timeline.begin_ns) // timeline.width_ns,
            bins=(latencies.edges_ns, np.arange(timeline.bin_count + 1)),
        )
        np.testing.assert_array_equal(latencies.heat, expected)
        np.testing.assert_array_equal(latencies.histogram.sum(axis=0), expected.sum(axis=1))
        total += latencies.heat.sum()
    assert total == len(rows)


def test_percentiles_are_within_a_third_of_a_percent_of_the_exact_ones(
    rows: pa.Table, opened: tuple[Capture, Timeline]
) -> None:
    fractions = np.array([*PERCENTILES.values()])
    for of_device, traffic in each_device(rows, opened):
        for op in traffic.latencies.by_op:
            of_op = column(of_device, "op") == OPS[op.op_index]
            latency_ns = column(of_device, "latency_ns")[of_op]
            exact_ns = np.percentile(latency_ns, 100 * fractions)
            is_carried = latency_ns.size * (1 - fractions) > 1 - 1e-9
            expected = np.where(is_carried, exact_ns, np.nan)
            np.testing.assert_allclose(op.percentiles_ns, expected, rtol=0.003)
            assert op.io_count == latency_ns.size
            assert op.longest_ns == latency_ns.max()


@pytest.mark.parametrize(
    ("count", "known"), [(1, 0), (2, 1), (19, 1), (20, 2), (99, 2), (100, 3), (999, 3), (1000, 4)]
)
def test_no_percentile_goes_further_than_the_ios_carry_it(
    tmp_path: Path, count: int, known: int
) -> None:
    capture, timeline = open_rows(tmp_path, table(count))
    [read] = load_one_traffic(capture, timeline).latencies.by_op
    assert np.flatnonzero(~np.isnan(read.percentiles_ns)).tolist() == list(range(known))


@pytest.mark.parametrize("count", [150, 997, 20_011])
def test_lines_over_time_are_the_percentiles_of_their_steps(tmp_path: Path, count: int) -> None:
    rows = mixed_table(count).set_column(4, "device", pa.array(["sda"] * count))
    capture, timeline = open_rows(tmp_path, rows)
    lines = load_one_traffic(capture, timeline).latencies.lines
    bins = (column(rows, "time") - timeline.begin_ns) // timeline.width_ns
    step_of = np.searchsorted(lines.edges_bins, bins, side="right") - 1
    assert step_of.max() < lines.percentiles_ns.shape[1]
    for step, (p50, p99) in enumerate(lines.percentiles_ns.T):
        latency_ns = column(rows, "latency_ns")[step_of == step]
        if latency_ns.size < 2:
            assert np.isnan(p50)
            continue
        exact_p50, exact_p99 = np.percentile(latency_ns, (50, 99))
        assert p50 == pytest.approx(exact_p50, rel=0.003)
        if latency_ns.size >= 100:
            assert p99 == pytest.approx(exact_p99, rel=0.003)
        else:
            assert np.isnan(p99)


def test_lines_over_time_have_gaps_where_no_io_is(tmp_path: Path) -> None:
    times = START_NS + np.array([0.2, 0.21, 0.22, 0.7, 0.71]) * SECOND_NS
    capture, timeline = open_rows(tmp_path, table(5, time=times.astype(np.int64), latency_ns=1000))
    lines = load_one_traffic(capture, timeline).latencies.lines
    edges_s = timeline.edges_s[lines.edges_bins]
    width_s = timeline.width_ns / 1e9
    assert edges_s == pytest.approx([0, 0.2, 0.71], abs=width_s)
    assert lines.percentiles_ns[0].tolist() == [pytest.approx(np.nan, nan_ok=True), 1000]


def test_the_curve_of_few_ios_has_their_latencies_and_nothing_in_between(tmp_path: Path) -> None:
    latency_ns = np.array([1000, 3000, 9000, 80_000])
    capture, timeline = open_rows(tmp_path, table(4, latency_ns=latency_ns, queue_ns=None))
    [read] = load_one_traffic(capture, timeline).latencies.by_op
    expected = np.percentile(latency_ns, 100 * CURVE_SHARES, method="inverted_cdf")
    np.testing.assert_allclose(read.curve_ns, expected)


def test_depth_is_the_overlap_of_all_ios_with_each_bin(tmp_path: Path) -> None:
    """Short and long I/Os, and every fiftieth one in flight until the end."""
    rng = np.random.default_rng(7)
    count = 503
    start_ns = np.sort(rng.integers(0, SECOND_NS, count))
    latency_ns = rng.lognormal(np.log(2e6), 3, count).astype(np.int64)
    nulls = np.arange(count) % 50 == 0
    rows = table(
        count,
        time=START_NS + start_ns,
        op=rng.choice(["read", "write"], count),
        latency_ns=[None if null else int(ns) for null, ns in zip(nulls, latency_ns, strict=True)],
    )
    capture, timeline = open_rows(tmp_path, rows)
    depth = load_one_depth(capture, timeline)
    last_ns = timeline.length_ns - 1
    stop_ns = np.where(nulls, last_ns, np.minimum(start_ns + latency_ns, last_ns))
    low = np.arange(timeline.bin_count)[:, None] * timeline.width_ns
    overlap = np.minimum(stop_ns, low + timeline.width_ns) - np.maximum(start_ns, low)
    expected = np.clip(overlap, 0, None).sum(axis=1) / timeline.width_ns
    np.testing.assert_allclose(depth.values.sum(axis=0), expected, rtol=1e-9, atol=1e-9)


def test_ios_that_did_not_complete_are_there_with_their_age_the_oldest_first(
    tmp_path: Path,
) -> None:
    count = 700
    is_hung = np.arange(count) % 3 == 1
    rows = table(
        count,
        latency_ns=[None if hung else 1000 for hung in is_hung],
        errno=[None if hung else 0 for hung in is_hung],
        device=["sda", "sdb"] * (count // 2),
    )
    capture, timeline = open_rows(tmp_path, rows)
    hung = load_hung(capture, timeline)
    starts_ns = (column(rows, "time") - timeline.begin_ns)[is_hung][:200]
    np.testing.assert_array_equal([io.start_ns for io in hung], starts_ns)
    ages_ns = timeline.length_ns - 1 - starts_ns
    np.testing.assert_array_equal([io.age_ns for io in hung], ages_ns)
    assert [io.offset for io in hung] == column(rows, "offset")[is_hung][:200].tolist()
    assert load_contents(capture).hung_count == is_hung.sum()
    for _, traffic in each_device(rows, (capture, timeline)):
        latencies = traffic.latencies
        assert latencies.edges_ns[0] <= 1000 < ages_ns.max() < latencies.edges_ns[-1]
        assert latencies.hung == tuple(io for io in hung if io.device == traffic.device)
    for device in load_all_offsets(capture, timeline):
        assert device.hung == tuple(io for io in hung if io.device == device.device)
        assert device.hung


def test_offset_bins_hold_every_io_that_has_an_offset(
    rows: pa.Table, opened: tuple[Capture, Timeline]
) -> None:
    offsets = load_all_offsets(*opened)
    assert [device.device for device in offsets] == ["nvme0n1", "sda"]
    for device in offsets:
        places = rows.filter(pa.compute.equal(rows["device"], device.device))["offset"]
        places = places.drop_null().to_numpy()
        expected, _ = np.histogram(places, device.edges_bytes)
        np.testing.assert_array_equal(device.counts.sum(axis=(0, 2)), expected)
        assert device.io_count == places.size


def test_ios_of_an_unknown_device_have_offset_bins(tmp_path: Path) -> None:
    capture, timeline = open_rows(tmp_path, table(100, device=[None] * 60 + ["sda"] * 40))
    with capture:
        unknown, known = load_all_offsets(capture, timeline)
    assert (unknown.device, unknown.counts.sum()) == (None, 60)
    assert (known.device, known.counts.sum()) == ("sda", 40)


def test_the_devices_with_the_most_time_in_io_come_first(tmp_path: Path) -> None:
    names = [f"sd{chr(97 + index % 14)}" for index in range(280)]
    latency_ns = [10**9 if name == "sdn" else 10**6 if name == "sdm" else 1000 for name in names]
    capture, _ = open_rows(tmp_path, table(280, device=names, latency_ns=latency_ns, queue_ns=None))
    devices = load_contents(capture).devices
    assert devices.shown[:3] == ("sdn", "sdm", "sda")
    assert (len(devices.shown), devices.count, devices.left_out_count) == (12, 14, 2)
    assert (devices.first(4).shown, devices.first(4).left_out_count) == (devices.shown[:4], 10)


def test_a_device_that_is_not_shown_is_in_no_chart_of_another(tmp_path: Path) -> None:
    capture, timeline = open_rows(tmp_path, table(300, device=["sda", "sda", "sdb"] * 100))
    only_one = Devices(("sdb",), 2)
    [traffic] = load_traffic(capture, timeline, only_one)
    assert traffic.latencies.heat.sum() == 100
    [offsets] = load_offsets(capture, timeline, only_one)
    assert offsets is not None
    assert (offsets.device, offsets.counts.sum()) == ("sdb", 100)
    depth = load_depth(capture, timeline, only_one, Owners(By.PROCESS, (), 0, 0.0))
    busy_ns = depth.by_device[0].values.sum() * timeline.width_ns
    assert busy_ns == pytest.approx(100 * 100_000)
    assert depth.by_owner.sum() * timeline.width_ns == pytest.approx(3 * busy_ns)


def test_a_device_without_offsets_has_none(tmp_path: Path) -> None:
    rows = table(100, device=["sda", "sdb"] * 50, offset=[0, None] * 50)
    capture, timeline = open_rows(tmp_path, rows)
    known, unknown = load_offsets(capture, timeline, Devices(("sda", "sdb"), 2))
    assert known is not None
    assert unknown is None


def test_owners_are_ranked_by_their_time_in_io(
    rows: pa.Table, opened: tuple[Capture, Timeline]
) -> None:
    owners = load_owners(*opened, By.PROCESS, limit=3)
    last_ns = opened[1].begin_ns + opened[1].length_ns - 1
    busy_ns = np.minimum(column(rows, "latency_ns"), last_ns - column(rows, "time"))
    totals = {
        comm: busy_ns[column(rows, "comm") == comm].sum() for comm in set(column(rows, "comm"))
    }
    ranking = sorted(totals, key=totals.__getitem__, reverse=True)
    assert [each.owner.name for each in owners.top] == ranking[:3]
    assert [each.busy_ns.sum() for each in owners.top] == [totals[comm] for comm in ranking[:3]]
    assert (owners.owner_count, owners.left_out_count) == (4, 1)
    assert owners.top_share == pytest.approx(1 - totals[ranking[3]] / sum(totals.values()))


@pytest.mark.parametrize("by", list(By))
@pytest.mark.parametrize("limit", [2, 9])
def test_owners_over_time_have_the_time_and_bytes_of_their_ios(
    tmp_path: Path, by: By, limit: int
) -> None:
    """Failed ones move no bytes, cache flushes are nobody's."""
    count = 1009
    rng = np.random.default_rng(5)
    rows = table(
        count,
        op=rng.choice(["read", "write", "cache_flush", "discard"], count),
        pid=rng.choice([7, 8, 9], count),
        device=rng.choice(["sda", "sdb", "sdc"], count),
        file=[[None, "/a", "/b"][place] for place in rng.choice(3, count)],
        cgroup=rng.choice(["/", "/user", "/system"], count),
        latency_ns=rng.integers(0, 50_000_000, count),
        queue_ns=None,
        errno=rng.choice([0, 5], count, p=[0.9, 0.1]),
        bytes=rng.choice([4096, 65536], count),
    )
    capture, timeline = open_rows(tmp_path, rows)
    owners = load_owners(capture, timeline, by, limit)
    depth = load_depth(capture, timeline, load_contents(capture).devices, owners)
    keys = np.array(rows["pid" if by is By.PROCESS else by.value].to_pylist(), dtype=object)
    top = [each.owner.pid if by is By.PROCESS else each.owner.name for each in owners.top]
    assert len(top) == min(limit, 3)
    start_ns = column(rows, "time") - timeline.begin_ns
    stop_ns = np.minimum(start_ns + column(rows, "latency_ns"), timeline.length_ns - 1)
    low = np.arange(timeline.bin_count)[:, None] * timeline.width_ns
    overlap = np.minimum(stop_ns, low + timeline.width_ns) - np.maximum(start_ns, low)
    counted = column(rows, "op") != "cache_flush"
    moving = (column(rows, "errno") == 0) & counted & (column(rows, "op") != "discard")
    others = ~np.isin(keys.astype(str), np.array(top, dtype=str))
    for row, chosen in enumerate([*(keys == key for key in top), others]):
        expected = np.clip(overlap, 0, None)[:, chosen & counted].sum(axis=1) / timeline.width_ns
        np.testing.assert_allclose(depth.by_owner[row], expected, atol=1e-9)
        sizes = np.where(chosen & moving, column(rows, "bytes"), 0)
        moved = np.bincount(start_ns // timeline.width_ns, sizes, timeline.bin_count)
        rate = depth.bytes_per_s_by_owner[row] * timeline.width_ns / 1e9
        np.testing.assert_allclose(rate, moved)


def test_a_window_is_binned_from_its_own_begin(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(1000))
    with open_captures([path], begin=0.25, end=0.75) as capture:
        timeline = make_timeline(capture, 500)
        assert (timeline.edges_s[0], timeline.edges_s[-1]) == pytest.approx((0.25, 0.75))
        iops = load_one_traffic(capture, timeline).iops
        assert iops.values.sum() * timeline.width_ns / 1e9 == pytest.approx(500)


def test_an_end_after_the_recording_adds_no_empty_time(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(1000))
    with open_captures([path], end=3600) as capture:
        assert make_timeline(capture, 1000).edges_s[-1] == pytest.approx(1)


def test_discards_count_as_ios_but_not_as_throughput(tmp_path: Path) -> None:
    rows = table(100, op=["read", "discard", "write_zeroes", "secure_erase"] * 25)
    traffic = load_one_traffic(*open_rows(tmp_path, rows))
    assert traffic.iops.values[OPS.index("discard")].sum() > 0
    assert traffic.bytes_per_s.values[OPS.index("discard")].sum() == 0
    assert traffic.bytes_per_s.values[OPS.index("read")].sum() > 0


def test_lost_spans_cover_the_bins_of_each_gap(tmp_path: Path) -> None:
    gaps = [
        {"start": rfc3339(START_NS + start), "stop": rfc3339(START_NS + stop), "lost": 5}
        for start, stop in ((200_000_000, 300_000_000), (700_000_000, 700_000_001))
    ]
    _, timeline = open_rows(tmp_path, table(1000), counts={"gaps": gaps})
    first, second = timeline.loss_spans_s
    width_s = timeline.width_ns / 1e9
    assert first == pytest.approx((0.2, 0.3), abs=width_s)
    assert first[0] <= 0.2 < 0.3 <= first[1]
    assert second[0] <= 0.7 < second[1] <= 0.7 + width_s


@pytest.mark.parametrize("place", [-126, -1, 24])
def test_a_bin_that_lying_statistics_lead_to_is_one_error(place: int) -> None:
    with pytest.raises(IorecError, match="its statistics are wrong"):
        add_up((5, 24), (np.array([0, 1]), np.array([3, place])), np.array([1, 1]))


def test_hostile_values_stay_within_the_bins_and_lose_no_row(tmp_path: Path) -> None:
    rows = table(
        6,
        time=[START_NS, INT64_MAX, -INT64_MAX, 0, START_NS + 1, START_NS + 2],
        latency_ns=[INT64_MAX, -INT64_MAX, -5, 0, None, 1],
        offset=[INT64_MAX, -INT64_MAX, None, 0, 5, 2**62],
        bytes=[INT64_MAX, INT64_MAX, -INT64_MAX, 0, 1, INT64_MAX],
    )
    described = json.dumps(metadata(table(2))).encode()
    capture = open_captures([write_parquet(tmp_path / "run.parquet", rows, described)])
    timeline = make_timeline(capture, len(rows))
    traffic = load_one_traffic(capture, timeline)
    assert traffic.iops.values.sum() * timeline.width_ns / 1e9 == pytest.approx(6)
    assert traffic.latencies.heat.sum() == 5
    assert traffic.latencies.heat.shape[0] < 400
    assert load_one_depth(capture, timeline).peak <= 6
    assert load_all_offsets(capture, timeline)[0].counts.sum() == 5
    assert load_processes(capture, timeline)[0].io_count == 6


def test_cache_flushes_are_in_no_sum_of_the_charts(tmp_path: Path) -> None:
    ops = ["write", "flush", "cache_flush", "read"] * 25
    rows = table(100, op=ops, pid=[7, 7, None, 7] * 25, bytes=[4096, 0, 0, 4096] * 25)
    capture, timeline = open_rows(tmp_path, rows)
    contents, traffic = load_contents(capture), load_one_traffic(capture, timeline)
    assert (contents.io_count, contents.cache_flush_count, contents.row_count) == (75, 25, 100)
    cache_flushes = traffic.iops.values[CACHE_FLUSH].sum()
    assert cache_flushes * timeline.width_ns / 1e9 == pytest.approx(25)
    seconds = timeline.length_ns / 1e9
    assert traffic.iops.mean * seconds == pytest.approx(75)
    assert traffic.latencies.heat.sum() == 75
    assert traffic.latencies.histogram[CACHE_FLUSH].sum() == 25
    depth = load_one_depth(capture, timeline)
    assert depth.mean == pytest.approx(depth.values[:CACHE_FLUSH].sum(axis=0).mean())
    assert depth.values[CACHE_FLUSH].sum() > 0
    [process] = load_processes(capture, timeline)
    assert (process.io_count, process.busy_ns[CACHE_FLUSH]) == (75, 0)


def test_failed_ios_are_marked_and_in_no_latency_or_throughput(tmp_path: Path) -> None:
    errno = [5 if index % 10 == 3 else 0 for index in range(100)]
    latency_ns = [10**10 if number else 1000 for number in errno]
    rows = table(100, errno=errno, latency_ns=latency_ns, queue_ns=None)
    capture, timeline = open_rows(tmp_path, rows)
    traffic = load_one_traffic(capture, timeline)
    [read] = traffic.latencies.by_op
    assert (load_contents(capture).failed_count, read.io_count, read.longest_ns) == (10, 90, 1000)
    bins = (np.flatnonzero(errno) * 1_000_000) // timeline.width_ns
    expected = np.bincount(bins, minlength=timeline.bin_count)
    np.testing.assert_array_equal(traffic.latencies.failed.sum(axis=0), expected)
    [device] = load_all_offsets(capture, timeline)
    np.testing.assert_array_equal(device.failed.sum(axis=0), expected)
    moved = traffic.bytes_per_s.values.sum() * timeline.width_ns / 1e9
    assert moved == pytest.approx(90 * 4096)
    assert load_processes(capture, timeline)[0].size_bytes == 90 * 4096


def test_devices_and_processes_of_two_hosts_have_bins_of_their_own(tmp_path: Path) -> None:
    for host in ("db1", "db2"):
        write_capture(tmp_path / f"{host}.parquet", table(100), hostname=host)
    with open_captures([tmp_path]) as capture:
        timeline = make_timeline(capture, 200)
        devices = load_all_offsets(capture, timeline)
        processes = load_processes(capture, timeline)
        devices_in_io = load_owners(capture, timeline, By.DEVICE, 4).top
        assert load_contents(capture).devices.shown == ("db1:loop0", "db2:loop0")
    assert [(row.device, row.io_count) for row in devices] == [
        ("db1:loop0", 100),
        ("db2:loop0", 100),
    ]
    assert [(row.owner.host, row.io_count) for row in processes] == [("db1", 100), ("db2", 100)]
    named = [(row.owner.host, row.owner.name) for row in devices_in_io]
    assert named == [("db1", "loop0"), ("db2", "loop0")]
