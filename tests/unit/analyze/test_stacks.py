# SPDX-License-Identifier: GPL-2.0-only
"""Stacked devices: how their bios relate to those of the devices below."""

from pathlib import Path

import pytest

import analyze
from analyze.info import make_info
from analyze.render.info import render_info
from analyze.render.report import render_text
from analyze.report import make_report
from tests.builders import metadata, table, write_capture


def test_the_legs_of_a_stacked_device_are_measured_by_its_own_bios(tmp_path: Path) -> None:
    rows = table(
        6,
        layer="bio",
        device=["dm-0", "sda", "sdb", "dm-0", "sda", "sdb"],
        above=[None, "dm-0", "dm-0"] * 2,
        latency_ns=[100, 50, 90, 200, 70, 180],
        queue_ns=None,
    )
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        report = make_report(capture)
    (stack,) = report.stacks
    assert (stack.device, stack.ios, stack.amplification) == ("dm-0", 2, 2.0)
    assert stack.passed_on_share is None
    slow, fast = stack.legs
    assert (slow.device, slow.ios, slow.time_share, slow.is_slowest) == ("sdb", 2, 0.9, True)
    assert (fast.device, fast.bytes_share, fast.time_share) == ("sda", 1.0, 0.4)
    lines = render_text(report, 80).splitlines()
    assert any("to sdb" in line and line.endswith("slowest") for line in lines)


def test_the_devices_below_count_also_where_their_requests_are_shown(tmp_path: Path) -> None:
    rows = table(
        3,
        layer=["bio", "bio", "request"],
        device=["dm-0", "sda", "sda"],
        above=[None, "dm-0", None],
        queue_ns=None,
    )
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        report = make_report(capture, ["device", "layer"])
    shown = {(group.key["device"], group.key["layer"]) for group in report.summary.groups}
    assert shown == {("dm-0", "bio"), ("sda", "request")}
    assert [leg.device for leg in report.stacks[0].legs] == ["sda"]


def test_a_bio_that_is_itself_passed_on_has_its_time_below(tmp_path: Path) -> None:
    rows = table(2, layer="bio", device="md0", latency_ns=[100, 300], queue_ns=[40, 60])
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        (stack,) = make_report(capture).stacks
    assert (stack.device, stack.passed_on_share, stack.legs) == ("md0", 0.75, ())


def test_a_capture_without_stacked_devices_shows_no_stacks(tmp_path: Path) -> None:
    rows = table(2, layer="bio", device="zram0", queue_ns=None)
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        assert make_report(capture).stacks == ()


@pytest.mark.parametrize("below", ["sda", "sda1"])
def test_a_device_recorded_with_what_it_stands_on_is_said(tmp_path: Path, below: str) -> None:
    rows = table(4, device=["loop0", "sda"] * 2)
    loop0, sda = metadata(rows)["devices"]
    part = {"name": "sda1", "number": 1, "start_bytes": 0, "size_bytes": 1}
    devices = [loop0 | {"stands_on": [below]}, sda | {"partitions": [part]}]
    said = "stacked: loop0 on sda: totals count an I/O on each level"
    with analyze.open(write_capture(tmp_path / "run.parquet", rows, devices=devices)) as capture:
        assert said in render_text(make_report(capture), 80)
        assert said in render_info(make_info(capture), 80)
    only = table(4, device="loop0")
    with analyze.open(write_capture(tmp_path / "run.parquet", only, devices=devices)) as capture:
        assert make_report(capture).levels == ()


def test_stacked_devices_of_two_hosts_are_not_merged(tmp_path: Path) -> None:
    for host in ("db1", "db2"):
        rows = table(2, layer="bio", device=["dm-0", "sda"], above=[None, "dm-0"], queue_ns=None)
        write_capture(tmp_path / f"{host}.parquet", rows, hostname=host)
    with analyze.open(tmp_path) as capture:
        stacks = make_report(capture).stacks
    assert [(stack.device, stack.ios, [leg.device for leg in stack.legs]) for stack in stacks] == [
        ("db1:dm-0", 1, ["db1:sda"]),
        ("db2:dm-0", 1, ["db2:sda"]),
    ]


def test_a_failed_bio_is_no_part_of_the_times_of_a_leg(tmp_path: Path) -> None:
    rows = table(
        4,
        layer="bio",
        device=["dm-0", "sda"] * 2,
        above=[None, "dm-0"] * 2,
        latency_ns=[100, 50, 9999, 9999],
        errno=[0, 0, 5, 5],
        queue_ns=None,
    )
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        (stack,) = make_report(capture).stacks
    assert (stack.ios, stack.legs[0].avg_ns) == (1, 50)
