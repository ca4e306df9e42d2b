"""A capture says exactly what it is worth: what it holds, what it lost, whom it agrees with."""

from pathlib import Path
from typing import Any

import pytest

import analyze
from analyze.completeness import Completeness
from analyze.verdict import format_completeness
from tests.builders import START_NS, metadata, rfc3339, table, write_capture


def completeness_of(path: Path, count: int = 1009, **overrides: Any) -> Completeness:
    with analyze.open(write_capture(path, table(count), **overrides)) as capture:
        return capture.completeness()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.parquet"


def test_a_capture_that_lost_nothing_is_complete(path: Path) -> None:
    completeness = completeness_of(path)
    assert completeness.is_complete
    assert format_completeness(completeness) == (
        "complete: 1,009 I/Os recorded, 0 lost, 0 in flight; agrees with /proc/diskstats"
    )


def test_what_was_left_out_on_purpose_does_not_make_it_incomplete(path: Path) -> None:
    counts = {"completions": 1009 + 7 + 3 + 11, "filtered": 7, "began_before": 3}
    completeness = completeness_of(path, counts={**counts, "continuations": 11})
    assert completeness.is_complete
    assert "7 filtered out, 3 began before, 0 lost" in format_completeness(completeness)


def test_losses_are_said_by_cause(path: Path) -> None:
    lost = {"ring_full": 12345, "spool_failed": 5}
    completeness = completeness_of(path, counts={"completions": 1009 + 12350, "lost": lost})
    assert not completeness.is_complete
    assert completeness.unaccounted == 0
    assert format_completeness(completeness) == (
        "INCOMPLETE: 12,350 of 13,359 I/Os lost (12,345 ring buffer full, 5 writing failed),"
        " 0 in flight; counts, IOPS and throughput are too low"
    )


def test_a_loss_of_an_unknown_cause_counts(path: Path) -> None:
    counts = {"completions": 1010, "lost": {"cosmic\x1bray": 1}}
    completeness = completeness_of(path, counts=counts)
    assert "1 of 1,010 I/Os lost (1 cosmic\\x1bray)" in format_completeness(completeness)


def test_a_missed_completion_is_lost_but_no_part_of_the_completions(path: Path) -> None:
    completeness = completeness_of(path, counts={"lost": {"missed_completion": 4}})
    assert (completeness.lost, completeness.unaccounted) == (4, 0)


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_ledger_that_does_not_close_is_said(path: Path, difference: int) -> None:
    completeness = completeness_of(path, counts={"completions": 1009 + difference})
    assert not completeness.is_complete
    assert "1 completions are unaccounted for" in format_completeness(completeness)


def test_rows_that_the_ledger_does_not_know_are_said(path: Path) -> None:
    counts = {"completions": 1000, "recorded": 1000}
    completeness = completeness_of(path, counts=counts)
    assert completeness.row_mismatch == 9
    assert not completeness.is_complete


def test_a_recovered_capture_says_so(path: Path) -> None:
    text = format_completeness(completeness_of(path, complete=False))
    assert text.startswith(
        "INCOMPLETE: 1,009 I/Os recorded, 0 known to be lost, 0 in flight; recovered"
    )


@pytest.mark.parametrize("lost", [0, 2])
def test_what_was_in_flight_is_said_of_an_incomplete_capture_too(tmp_path: Path, lost: int) -> None:
    rows = table(9, latency_ns=[None] * 3 + [1] * 6)
    counts = {"completions": 6 + lost, "lost": {"ring_full": lost}}
    path = write_capture(tmp_path / "run.parquet", rows, counts=counts, complete=False)
    with analyze.open(path) as capture:
        text = format_completeness(capture.completeness())
    assert text.startswith("INCOMPLETE")
    assert ", 3 in flight;" in text


@pytest.mark.parametrize(
    ("ios", "edge_ios", "agrees"),
    [(1009, 0, True), (1010, 0, False), (1008, 0, False), (1012, 3, True), (1013, 3, False)],
)
def test_our_count_must_lie_within_that_of_diskstats(
    path: Path, ios: int, edge_ios: int, agrees: bool
) -> None:
    stats = {"loop0": {"read": {"ios": ios, "edge_ios": edge_ios}}}
    completeness = completeness_of(path, diskstats=stats)
    assert completeness.is_complete is agrees
    text = format_completeness(completeness)
    assert (
        "agrees with /proc/diskstats" if agrees else "differs from /proc/diskstats on loop0"
    ) in text


def test_what_was_filtered_or_lost_counts_as_seen(path: Path) -> None:
    ledger = {
        "layer": "request", "device": "loop0", "op": "read", "recorded": 1009,
        "recorded_bytes": 4096, "filtered": 5, "filtered_bytes": 10, "lost": 3, "lost_bytes": 20,
        "began_before": 2, "began_before_bytes": 40,
    }  # fmt: skip
    stats = {"loop0": {"read": {"ios": 1019, "bytes": 4166}}}
    [row] = completeness_of(path, counts={"devices": [ledger]}, diskstats=stats).devices
    assert (row.counted_ios, row.counted_bytes, row.agrees) == (1019, 4166, True)


def test_a_device_that_only_one_side_can_count_is_not_compared(path: Path) -> None:
    [entry] = metadata(table(1009))["counts"]["devices"]
    uncounted = entry | {"device": "sdq"}
    without_requests = {"read": {"ios": 5, "bytes": 5, "edge_ios": 0}}
    completeness = completeness_of(
        path, counts={"devices": [entry, uncounted]}, diskstats={"dm-9": without_requests}
    )
    rows = {row.device: row.agrees for row in completeness.devices}
    assert rows == {"dm-9": None, "loop0": True, "sdq": None}
    assert completeness.is_complete


def test_a_disk_whose_ios_were_all_missed_differs(path: Path) -> None:
    missed = metadata(table(1))["devices"][0] | {"name": "sdb"}
    group = {"read": {"ios": 5, "bytes": 5, "edge_ios": 0}}
    completeness = completeness_of(path, devices=[missed], diskstats={"sdb": group})
    assert not completeness.is_complete
    assert "differs from /proc/diskstats on sdb" in format_completeness(completeness)


def test_ledgers_of_several_captures_add_up(tmp_path: Path) -> None:
    gap = {"start": rfc3339(START_NS + 5), "stop": rfc3339(START_NS + 6), "lost": 2}
    lossy = {"completions": 102, "lost": {"ring_full": 2}, "gaps": [gap]}
    write_capture(tmp_path / "1.parquet", table(100), counts=lossy)
    write_capture(tmp_path / "2.csv", table(50, latency_ns=[None] + [1] * 49))
    with analyze.open(tmp_path) as capture:
        completeness = capture.completeness()
    assert (completeness.recorded, completeness.lost, completeness.in_flight) == (149, 2, 1)
    assert [found.lost for found in completeness.gaps] == [2]
    [row] = completeness.devices
    assert (row.counted_ios, row.diskstats_ios, row.agrees) == (149, 149, True)
