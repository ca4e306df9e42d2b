# SPDX-License-Identifier: GPL-2.0-only
"""How busy devices were, against a second implementation that takes one I/O after the other."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analyze
from analyze import numbered_rows
from analyze.errors import IorecError
from analyze.load import LOAD_SORTS, Load, Loads, load_loads
from analyze.render.csv import render_csv
from analyze.render.json import render_json
from analyze.render.report import render_text
from analyze.report import make_report
from analyze.schema import BLOCK_LAYERS
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

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*.parquet"))


def check(found: Load, rows: list[dict[str, Any]], end_ns: int, duration_ns: int) -> None:
    events = []
    for row in rows:
        start_ns = row["time"].value
        latency_ns = row["latency_ns"]
        events += [(start_ns, 1), (end_ns if latency_ns is None else start_ns + latency_ns, -1)]
    in_flight = most = busy_ns = time_ns = before_ns = 0
    for at_ns, change in sorted(events):  # what ends at a moment does so before what begins
        busy_ns += (at_ns - before_ns) * (in_flight > 0)
        time_ns += (at_ns - before_ns) * in_flight
        before_ns, in_flight = at_ns, in_flight + change
        most = max(most, in_flight)
    assert (found.ios, found.busy_ns, found.time_ns) == (len(rows), busy_ns, time_ns)
    assert found.max_in_flight == most
    assert found.busy_share == pytest.approx(busy_ns / duration_ns)
    assert found.mean_in_flight == pytest.approx(time_ns / duration_ns)
    good = [row for row in rows if row["errno"] == 0]
    sizes = [row["bytes"] for row in good if row["op"] in ("read", "write")]
    assert found.mean_bytes == pytest.approx(np.mean(sizes))
    queue = [row["queue_ns"] for row in good if row["queue_ns"] is not None]
    for percent in (50, 95, 99):
        expected = np.percentile(queue, percent)
        assert getattr(found, f"queue_p{percent}_ns") == pytest.approx(expected, rel=0.003)
    assert found.queue_max_ns == max(queue)


def check_places(found: Load, rows: list[dict[str, Any]]) -> None:
    follows, nexts = [], dict[str, int]()
    have_been_read = set[int]()  # sectors
    read = again = 0
    for row in rows:
        if row["offset"] is None or not row["bytes"]:
            continue
        follows.append(nexts.get(row["op"]) == row["offset"])
        nexts[row["op"]] = row["offset"] + row["bytes"]
        if row["op"] == "read" and row["errno"] == 0:
            first = row["offset"] // 512
            sectors = set(range(first, first + row["bytes"] // 512))
            read, again = read + len(sectors), again + len(sectors & have_been_read)
            have_been_read |= sectors
    assert found.sequential_share == pytest.approx(np.mean(follows))
    assert found.reread_share == (pytest.approx(again / read) if read else None)


def check_capture(path: Path) -> None:
    shown = pq.read_table(path, filters=[("layer", "in", BLOCK_LAYERS)])
    rows = sorted(shown.to_pylist(), key=lambda row: row["time"].value)
    rows = [row for row in rows if row["op"] != "cache_flush"]
    with analyze.open(path) as capture:
        loads, end_ns = load_loads(capture), capture.window.end_ns
    assert {found.device for found in loads.devices} == {row["device"] for row in rows}
    for found in loads.devices:
        mine = [row for row in rows if row["device"] == found.device]
        check(found, mine, end_ns, loads.duration_ns)
        check_places(found, mine)
    check(loads.total, rows, end_ns, loads.duration_ns)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_number_of_a_sample_equals_the_second_implementation(path: Path) -> None:
    check_capture(path)


def busy_rows(count: int) -> pa.Table:
    """Of two devices and all kinds, some sequential, some failed, one in flight for long."""
    rows = mixed_table(count, seconds=0.5)
    number = np.arange(count)
    is_in_flight = number % 211 == 7
    offset = [
        place if place is None or index % 3 else index * 4096 % (1 << 24)
        for index, place in enumerate(rows["offset"].to_pylist())
    ]
    latency_ns = np.minimum(rows["latency_ns"].to_numpy(), 10_000_000)
    return table(
        count,
        **{name: rows[name].to_pylist() for name in ("time", "device", "op", "bytes")},
        offset=offset,
        latency_ns=pa.array(latency_ns, mask=is_in_flight).to_pylist(),
        queue_ns=pa.array(latency_ns // 3, mask=is_in_flight | (number % 5 == 0)).to_pylist(),
        errno=pa.array(np.where(number % 17 == 2, 5, 0), mask=is_in_flight).to_pylist(),
    )


@pytest.mark.parametrize("batch_rows", [1, 7, 1 << 17])
def test_rows_may_come_in_batches_of_any_size(
    tmp_path: Path, batch_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numbered_rows, "ROWS", batch_rows)
    check_capture(write_capture(tmp_path / "run.parquet", busy_rows(2003)))


def loads_of(folder: Path, rows: pa.Table, sort: str = "busy", **selection: Any) -> Loads:
    with analyze.open(write_capture(folder / "run.parquet", rows), **selection) as capture:
        return load_loads(capture, sort)


def test_busy_counts_a_moment_once_and_stops_with_the_window(tmp_path: Path) -> None:
    ms = 1_000_000
    time_ns = START_NS + np.array([0, 10, 15, 990]) * ms
    rows = table(4, time=time_ns, latency_ns=[5 * ms, 10 * ms, 10 * ms, 5 * ms], queue_ns=None)
    [found] = loads_of(tmp_path, rows).devices
    assert (found.busy_ns, found.time_ns, found.max_in_flight) == (25 * ms, 30 * ms, 2)
    assert found.busy_share == pytest.approx(0.025)
    [found] = loads_of(tmp_path, rows, end=0.018).devices
    assert (found.busy_ns, found.time_ns) == (13 * ms, 16 * ms)
    assert found.busy_share == pytest.approx(13 / 18)


def test_the_total_is_busy_while_any_device_is(tmp_path: Path) -> None:
    rows = table(2, time=[START_NS, START_NS + 50_000], device=["sda", "sdb"])
    loads = loads_of(tmp_path, rows)
    assert [found.busy_ns for found in loads.devices] == [100_000, 100_000]
    assert (loads.total.busy_ns, loads.total.max_in_flight) == (150_000, 2)
    assert loads.total.ios == 2


def test_an_io_that_never_ended_is_in_flight_until_the_recording_stopped(tmp_path: Path) -> None:
    rows = table(1, latency_ns=None, queue_ns=None, errno=None)
    [found] = loads_of(tmp_path, rows).devices
    assert (found.busy_share, found.max_in_flight, found.mean_bytes) == (1, 1, None)


def test_devices_of_two_hosts_are_two_and_time_between_recordings_does_not_count(
    tmp_path: Path,
) -> None:
    for number, start_ns in enumerate((START_NS, START_NS + 3600 * SECOND_NS)):
        span = {"started_at": rfc3339(start_ns), "stopped_at": rfc3339(start_ns + SECOND_NS)}
        rows = table(1, time=[start_ns], latency_ns=SECOND_NS // 2)
        write_capture(tmp_path / f"{number}.parquet", rows, hostname=f"db{number}", **span)
    with analyze.open(tmp_path) as capture:
        loads = load_loads(capture)
    assert [found.device for found in loads.devices] == ["db0:loop0", "db1:loop0"]
    assert loads.total.busy_share == pytest.approx(0.5)


@pytest.mark.parametrize("sort", LOAD_SORTS)
def test_devices_can_be_sorted_by(tmp_path: Path, sort: str) -> None:
    loads = loads_of(tmp_path, busy_rows(1009), sort)
    values = [getattr(found, LOAD_SORTS[sort]) or 0 for found in loads.devices]
    assert len(values) == 2
    assert values == sorted(values, reverse=True)


def test_an_unknown_order_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(IorecError, match="cannot sort devices by 'colour'") as caught:
        loads_of(tmp_path, table(1), "colour")
    assert caught.value.exit_code == 2


def test_loads_are_in_text_json_and_csv(tmp_path: Path) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet", busy_rows(1009))) as capture:
        report = make_report(capture, busy="queue-p95")
    for width in (50, 80, 200):
        text = render_text(report, width).split("(no room")[0]
        assert " BUSY" in text
        assert " QUEUE P95" in text
    assert {line.split()[0] for line in text.splitlines() if "%" in line} == {
        "nvme0n1",
        "sda",
        "total",
    }
    document = json.loads(render_json(report))["loads"]
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert [line["device"] for line in lines] == [found["device"] for found in document["devices"]]
    assert [int(line["busy_ns"]) for line in lines] == [d["busy_ns"] for d in document["devices"]]


def test_an_empty_capture_has_no_busy_device(tmp_path: Path) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet", table(0))) as capture:
        report = make_report(capture, busy="busy")
    assert report.loads is not None
    assert (report.loads.devices, report.loads.total.busy_share) == ((), 0)
    assert "no I/Os were recorded" in render_text(report, 80)


@pytest.mark.parametrize("view", [{"busy": "busy"}, {"slowest": 9}, {"interval_ns": SECOND_NS}])
def test_numbers_of_a_stranger_end_in_no_error_and_busy_in_no_more_than_the_time(
    tmp_path: Path, view: dict[str, Any]
) -> None:
    most = 2**63 - 1
    rows = table(
        5,
        time=[START_NS - 10**15, START_NS, START_NS + 5, START_NS + 10**6, most - 10],
        offset=[most - 5, -7, 0, most, 3],
        bytes=[most, -5, 0, most, 1],
        latency_ns=[most, -5, 0, None, 5],
        queue_ns=[most, -9, 0, None, 4],
        errno=[0, 0, -1, None, 0],
        device=[None, "sda", "sda", None, "sda"],
    )
    document = json.dumps(metadata(table(1))).encode()
    with analyze.open(write_parquet(tmp_path / "run.parquet", rows, document)) as capture:
        report = make_report(capture, **view)
    for render in (render_csv, render_json):
        assert render(report)
    assert render_text(report, 80)
    for found in report.loads.devices if report.loads else ():
        assert 0 <= (found.busy_share or 0) <= 1
