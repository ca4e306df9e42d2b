# SPDX-License-Identifier: GPL-2.0-only
"""Where the time of bios went, against a second implementation that goes through all pairs."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import analyze
from analyze.bio_times import BioTime, load_bio_times
from analyze.errors import IorecError
from analyze.render.csv import render_csv
from analyze.render.json import render_json
from analyze.render.report import render_text
from analyze.report import make_report
from tests.builders import START_NS, table, write_capture

PARTS = ("before", "queue", "device", "after")


def two_layers(count: int) -> pa.Table:
    """Bios at few places; some merged, split or failed, and some in flight at once at one place."""
    rng = np.random.default_rng(3)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        start_ns = START_NS + number * 10_000 + int(rng.integers(0, 5000))
        before_ns, queue_ns, device_ns, after_ns = map(int, rng.integers(0, 8000, 4))
        place = {
            "device": str(rng.choice(["sda", "sdb"])),
            "op": str(rng.choice(["read", "write"])),
            "offset": int(rng.integers(0, 20)) * 4096,
            "bytes": int(rng.choice([4096, 8192])),
        }
        errno = 5 if number % 31 == 0 else 0
        latency_ns = queue_ns + device_ns
        bio_ns = before_ns + latency_ns + after_ns
        rows.append(
            place | {"layer": "bio", "time": start_ns, "latency_ns": bio_ns, "queue_ns": None}
            | {"bios": None, "errno": errno}
        )  # fmt: skip
        rows.append(
            place | {"layer": "request", "time": start_ns + before_ns, "latency_ns": latency_ns}
            | {"queue_ns": queue_ns, "bios": 1 + (number % 7 == 0), "errno": errno}
        )  # fmt: skip
    rows.sort(key=lambda row: row["time"])
    return table(len(rows), **{name: [row[name] for row in rows] for name in rows[0]})


def expected(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, int]]:
    """The sums by device and op."""
    sums: dict[tuple[str, str], dict[str, int]] = {}
    good = [row for row in rows if row["errno"] == 0]
    bios = [row for row in good if row["layer"] == "bio"]
    for bio in bios:
        entry = sums.setdefault(
            (bio["device"], bio["op"]), dict.fromkeys(("bios", "own", *PARTS), 0)
        )
        entry["bios"] += 1
    for request in (row for row in good if row["layer"] == "request" and row["bios"] == 1):
        time_ns = request["time"].value
        place = [request[name] for name in ("device", "op", "offset", "bytes")]
        before = [
            bio
            for bio in bios
            if [bio[name] for name in ("device", "op", "offset", "bytes")] == place
            and bio["time"].value <= time_ns
        ]
        if not before:
            continue
        bio = max(before, key=lambda bio: bio["time"].value)
        before_ns = time_ns - bio["time"].value
        after_ns = bio["latency_ns"] - before_ns - request["latency_ns"]
        if after_ns < 0:
            continue
        device_ns = request["latency_ns"] - request["queue_ns"]
        entry = sums[bio["device"], bio["op"]]
        waits = (before_ns, request["queue_ns"], device_ns, after_ns)
        for name, wait_ns in zip(("own", *PARTS), (1, *waits), strict=True):
            entry[name] += wait_ns
    return sums


def test_the_waits_of_bios_equal_the_second_implementation(tmp_path: Path) -> None:
    rows = two_layers(1009)
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        found = load_bio_times(capture)
    sums = expected(rows.to_pylist())
    assert {(row.device, row.op) for row in found} == sums.keys()
    for row in found:
        entry = sums[row.device, row.op]
        assert (row.bios, row.own_requests) == (entry["bios"], entry["own"])
        assert 0 < row.own_share < 1
        for part in PARTS:
            assert getattr(row, f"{part}_ns") == entry[part]
            assert getattr(row, f"{part}_share") == pytest.approx(entry[part] / row.own_ns)
        assert row.own_ns == sum(entry[part] for part in PARTS)
    assert [row.time_ns for row in found] == sorted((r.time_ns for r in found), reverse=True)


def one_bio(folder: Path, **selection: Any) -> tuple[BioTime, ...]:
    rows = table(
        2,
        layer=["bio", "request"],
        time=[START_NS, START_NS + 100],
        offset=4096,
        latency_ns=[1000, 700],
        queue_ns=[None, 200],
        bios=[None, 1],
    )
    with analyze.open(write_capture(folder / "run.parquet", rows), **selection) as capture:
        return load_bio_times(capture)


def test_a_bio_waits_for_its_request_in_the_scheduler_and_for_the_device(tmp_path: Path) -> None:
    [row] = one_bio(tmp_path)
    assert (row.before_ns, row.queue_ns, row.device_ns, row.after_ns) == (100, 200, 500, 200)
    assert (row.avg_ns, row.own_share, row.device_share) == (1000, 1, 0.5)


def test_what_does_not_meet_the_condition_is_not_split(tmp_path: Path) -> None:
    assert one_bio(tmp_path, where="layer = 'request'") == ()
    assert len(one_bio(tmp_path, where="latency_ns >= 700")) == 1


def test_the_waits_are_in_text_json_and_csv(tmp_path: Path) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet", two_layers(500))) as capture:
        report = make_report(capture, both_layers=True)
    text = render_text(report, 80)
    assert "DEVICE  OP     BIOS  OWN REQUEST" in text
    assert "below: requests, and bios" not in text
    assert "total" not in text
    document = json.loads(render_json(report))["bio_times"]
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert [int(line["before_ns"]) for line in lines] == [row["before_ns"] for row in document]
    assert len(lines) == 4


def test_a_capture_of_one_layer_says_how_to_record_both(tmp_path: Path) -> None:
    with (
        pytest.raises(IorecError, match="has only one") as caught,
        analyze.open(write_capture(tmp_path / "run.parquet")) as capture,
    ):
        load_bio_times(capture)
    assert "--layer request,bio" in caught.value.hint
