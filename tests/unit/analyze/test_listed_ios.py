# SPDX-License-Identifier: GPL-2.0-only
"""The slowest I/Os: those that numpy finds, in text, JSON and CSV."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.cells import cell_len

import analyze
from analyze.errors import IorecError
from analyze.render.csv import render_csv
from analyze.render.json import render_json
from analyze.render.report import render_text
from analyze.report import Report, make_report
from analyze.schema import BLOCK_LAYERS
from tests.builders import START_NS, table, write_capture

SAMPLES = sorted((Path(__file__).parents[3] / "samples").glob("*.parquet"))


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_slowest_of_a_sample_are_those_of_numpy(path: Path) -> None:
    rows = pq.read_table(path, filters=[("layer", "in", BLOCK_LAYERS)])
    latency_ns = rows["latency_ns"].drop_null().to_numpy()
    with analyze.open(path) as capture:
        slowest = make_report(capture, slowest=100).slowest or ()
    assert [row.latency_ns for row in slowest] == np.sort(latency_ns)[:-101:-1].tolist()
    by_time = {row["time"].value: row for row in rows.to_pylist()}
    for found in slowest:
        assert found.time is not None
        row = by_time[int(found.time)]
        for name in ("op", "device", "offset", "bytes", "pid", "tid", "comm", "file", "queue_ns"):
            assert getattr(found, name) == row[name]
        assert (found.errno, found.age_ns) == (row["errno"], None)
        if found.queue_ns is not None and found.latency_ns is not None:
            assert found.device_ns == found.latency_ns - found.queue_ns


def slowest_of(folder: Path, count: int, rows: dict[str, Any], **selection: Any) -> Report:
    path = write_capture(folder / "run.parquet", table(20, **rows))
    with analyze.open(path, **selection) as capture:
        return make_report(capture, slowest=count)


# The slowest is the 18th; the 20th is in flight and the 17th failed.
LATENCY = [*range(1000, 1018), 5, None]
FAILED = [*[0] * 16, 5, 0, 0, None]


def test_the_slowest_are_in_text_json_and_csv(tmp_path: Path) -> None:
    rows = {"latency_ns": LATENCY, "queue_ns": 4, "errno": FAILED, "file": "=1+1"}
    report = slowest_of(tmp_path, 2, rows)
    text = render_text(report, 200)
    [title, heads, *lines] = text[text.index("2 slowest:") :].split("\n\n")[0].splitlines()
    assert (title, len(lines)) == ("2 slowest:", 2)
    words = "START UTC PID PROCESS OP DEVICE OFFSET SIZE QUEUED IN DEVICE LATENCY ERROR FILE"
    assert heads.split() == words.split()
    assert lines[1].split()[-6:] == ["1.01", "µs", "1.02", "µs", "EIO", "=1+1"]
    assert "1 in flight when recording stopped:" in text
    assert "total" not in text
    [first, second] = json.loads(render_json(report))["slowest"]
    assert (first["latency_ns"], first["device_ns"], second["errno"]) == (1017, 1013, 5)
    [line, _] = csv.DictReader(io.StringIO(render_csv(report)))
    assert line["time"] == "2026-11-21T20:32:47.017000000Z"
    assert (line["offset"], line["queue_ns"], line["file"]) == (str(17 * 4096), "4", "'=1+1")


def test_the_slowest_are_those_in_the_window_for_which_the_condition_holds(tmp_path: Path) -> None:
    rows = {"latency_ns": LATENCY, "queue_ns": None, "errno": FAILED}
    report = slowest_of(tmp_path, 3, rows, begin=0.002, end=0.012, where='"offset" % 8192 = 0')
    assert [row.latency_ns for row in report.slowest or ()] == [1010, 1008, 1006]


def test_what_latency_was_is_shown_at_any_width(tmp_path: Path) -> None:
    report = slowest_of(tmp_path, 1, {"latency_ns": LATENCY, "queue_ns": 4, "errno": FAILED})
    for width in (40, 60, 80):
        text = render_text(report, width)
        assert " LATENCY" in text.partition("1 slowest")[2].split("(no room")[0]
        assert "1.02 µs" in text


def test_the_file_and_the_time_of_day_are_there_at_80_columns(tmp_path: Path) -> None:
    path = "/var/lib/postgresql/15/main/base/16384/16385"
    rows = {"latency_ns": LATENCY, "queue_ns": 4, "errno": FAILED, "file": path}
    rows |= {"process": "postgres: application database [local]", "device": "nvme0n1", "pid": 12345}
    report = slowest_of(tmp_path, 1, rows)
    text = render_text(report, 80)
    assert "1 slowest (0 s is 20:32:47.000 UTC):" in text
    assert "1 in flight when recording stopped (0 s is 20:32:47.000 UTC):" in text
    [line] = [line for line in text.splitlines() if "1.02 µs" in line]
    assert line.endswith("  …/16384/16385")
    assert cell_len(line) <= 80
    assert " 20:32:47.017 " in render_text(report, 200)


def test_where_nothing_has_completed_nothing_is_listed(tmp_path: Path) -> None:
    nothing = {"latency_ns": None, "queue_ns": None, "errno": None}
    report = slowest_of(tmp_path, 5, nothing)
    assert "no I/Os have completed" in render_text(report, 80)
    assert render_csv(report).splitlines() == [
        "time,op,device,offset,bytes,pid,tid,comm,process,cmdline,file,wait,queue_ns,device_ns,latency_ns,errno"
    ]


def test_ios_of_one_latency_are_listed_by_time(tmp_path: Path) -> None:
    report = slowest_of(tmp_path, 4, {})
    times = [int(row.time or 0) for row in report.slowest or ()]
    assert times == [START_NS + place * 1_000_000 for place in range(4)]


def test_no_more_are_listed_than_fit_into_memory(tmp_path: Path) -> None:
    with pytest.raises(IorecError, match="cannot list 20,001 I/Os") as caught:
        slowest_of(tmp_path, 20_001, {})
    assert caught.value.exit_code == 2
