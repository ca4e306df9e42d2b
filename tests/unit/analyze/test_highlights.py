# SPDX-License-Identifier: GPL-2.0-only
"""What a recording ends with: five lines at most, with the numbers of the report."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import analyze
from analyze import highlights
from analyze.highlights import load_highlights
from analyze.render.highlights import highlight_lines
from tests.builders import mixed_table, table, write_capture


def lines_of(folder: Path, rows: pa.Table, width: int = 80, **overrides: Any) -> list[str]:
    with analyze.open(write_capture(folder / "run.parquet", rows, **overrides)) as capture:
        found = load_highlights(capture)
        return highlight_lines(found, width) if found else []


def test_the_processes_and_the_device_are_those_of_the_report(tmp_path: Path) -> None:
    processes, device, *_ = lines_of(tmp_path, mixed_table(10_009), width=200)
    with analyze.open(tmp_path / "run.parquet") as capture:
        by_process = capture.summary(("process",)).groups[:3]
        slowest = max(
            capture.summary(("device",)).groups, key=lambda group: group.latency.p99_ns or 0
        )
    assert processes.startswith("I/O time: ")
    for group in by_process:
        assert f"{group.key['process']} ({group.key['pid']}) {group.time_share:.1%}" in processes
    assert device.startswith(f"slowest device: {slowest.key['device']}, p99 ")


def test_what_stands_out_is_said_with_how_much_more_there_is(tmp_path: Path) -> None:
    rows = table(3000, op="write", flags="sync", errno=[5] * 1500 + [0] * 1500)
    lines = lines_of(tmp_path, rows)
    assert "stands out (1 of " in "\n".join(lines)


def test_a_device_of_few_ios_is_not_the_slowest(tmp_path: Path) -> None:
    rows = table(
        1001, device=["sda"] * 1000 + ["sdb"], latency_ns=[100_000] * 1000 + [9_000_000_000]
    )
    assert any(line.startswith("slowest device: sda, ") for line in lines_of(tmp_path, rows))


@pytest.mark.parametrize("width", [40, 80, 10_000])
def test_it_is_five_lines_at_most_that_fit_and_do_no_harm(tmp_path: Path, width: int) -> None:
    long_names = [f"\x1b[31m{number}-{'x' * 100}" for number in range(3)]
    rows = table(
        3000, comm=long_names * 1000, pid=[1, 2, 3] * 1000, op="write", flags="sync", errno=5
    )
    lines = lines_of(tmp_path, rows, width)
    assert 3 <= len(lines) <= 5
    assert all(line.isprintable() and len(line) <= width for line in lines[:2] + lines[3:])


def test_an_empty_capture_and_one_of_many_ios_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines_of(tmp_path, table(0)) == []
    monkeypatch.setattr(highlights, "MOST_IOS_UNASKED", 99)
    assert lines_of(tmp_path, table(100)) == []
    assert lines_of(tmp_path, table(99)) != []
