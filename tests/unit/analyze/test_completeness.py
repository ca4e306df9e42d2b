# SPDX-License-Identifier: GPL-2.0-only
"""A capture says exactly what it is worth: what it holds, what it lost, whom it agrees with."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import analyze
from analyze.completeness import Completeness, make_completeness_of
from analyze.metadata import parse_metadata
from analyze.verdict import advise, format_completeness
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
        "INCOMPLETE: 12,350 of 13,359 I/Os lost (ring buffer full: 12,345, writing failed: 5),"
        " 0 in flight; counts, IOPS and throughput are too low"
    )


def test_what_several_layers_lost_is_not_called_a_number_of_ios(path: Path) -> None:
    completeness = replace(
        completeness_of(path, counts={"completions": 1010, "lost": {"ring_full": 1}}),
        recorded_by_layer={"request": 500, "bio": 509},
        lost_by_layer={"request": 1, "bio": 1},  # of which one was on a disk not asked for
    )
    assert "1 of 1,010 requests and bios lost" in format_completeness(completeness)
    completeness = replace(completeness, recorded_by_layer={"syscall": 500, "uring": 509})
    assert "1,010 system calls and io_uring operations lost" in format_completeness(completeness)


def test_a_loss_of_one_layer_is_said_of_that_alone(path: Path) -> None:
    completeness = replace(
        completeness_of(path, counts={"completions": 1010, "lost": {"ring_full": 1}}),
        recorded_by_layer={"request": 500, "syscall": 509},
        lost_by_layer={"request": 0, "syscall": 1},
    )
    assert format_completeness(completeness) == (
        "INCOMPLETE: 1 of 510 system calls lost (ring buffer full), 0 in flight;"
        " their counts, IOPS and throughput are too low"
    )
    completeness = replace(completeness, lost_by_layer={"request": 1, "syscall": 0})
    assert "1 of 501 I/Os lost" in format_completeness(completeness)


def test_a_loss_of_an_unknown_cause_counts(path: Path) -> None:
    counts = {"completions": 1010, "lost": {"cosmic\x1bray": 1}}
    completeness = completeness_of(path, counts=counts)
    assert "1 of 1,010 I/Os lost (cosmic\\x1bray)" in format_completeness(completeness)


def test_a_missed_completion_is_lost_but_no_part_of_the_completions(path: Path) -> None:
    completeness = completeness_of(path, counts={"lost": {"missed_completion": 4}})
    assert (completeness.lost, completeness.unaccounted) == (4, 0)


@pytest.mark.parametrize("difference", [-1, 1])
def test_a_ledger_that_does_not_close_is_said(path: Path, difference: int) -> None:
    completeness = completeness_of(path, counts={"completions": 1009 + difference})
    assert not completeness.is_complete
    assert "1 completion unaccounted for" in format_completeness(completeness)


def test_rows_that_the_ledger_does_not_know_are_said(path: Path) -> None:
    counts = {"completions": 1000, "recorded": 1000}
    completeness = completeness_of(path, counts=counts)
    assert completeness.row_mismatch == 9
    assert not completeness.is_complete


def test_a_recovered_capture_says_so(path: Path) -> None:
    text = format_completeness(completeness_of(path, complete=False))
    assert text == (
        "INCOMPLETE: its end is missing, as the recording was cut off;"
        " 1,009 I/Os recorded, 0 in flight"
    )


@pytest.mark.parametrize("lost", [0, 2])
def test_what_was_in_flight_is_said_of_an_incomplete_capture_too(tmp_path: Path, lost: int) -> None:
    rows = table(9, latency_ns=[None] * 3 + [1] * 6)
    counts = {"completions": 6 + lost, "lost": {"ring_full": lost}}
    path = write_capture(tmp_path / "run.parquet", rows, counts=counts, complete=False)
    with analyze.open(path) as capture:
        text = format_completeness(capture.completeness())
    assert text.startswith("INCOMPLETE")
    assert ", 3 in flight" in text
    assert "0 lost" not in text


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


def test_without_a_ledger_only_what_is_known_to_be_missing_is_said(path: Path) -> None:
    unknown = completeness_of(path, counts=None)
    assert (unknown.is_complete, unknown.devices) == (None, ())
    cut_off = completeness_of(path, counts=None, complete=False)
    assert cut_off.is_complete is False
    assert format_completeness(cut_off) == (
        "INCOMPLETE: its end is missing, as the recording was cut off;"
        " no account: nothing says whether these are all I/Os"
    )


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


def lost(**causes: int) -> dict[str, Any]:
    unseen = causes.get("missed_completion", 0)
    return {"completions": 1009 + sum(causes.values()) - unseen, "lost": causes}


@pytest.mark.parametrize(
    ("counts", "words", "is_about_buffer"),
    [
        (lost(ring_full=3), "-B 64M", True),
        ({"identity_lost": 37}, "-B 64M", True),
        (lost(missed_completion=54), "hid completions from tracing programs", False),
        (lost(missed_start=2), "skipped the program that sees I/Os start", False),
        (lost(table_full=9), "in flight was full", False),
        (lost(spool_failed=1), "could not be written", False),
    ],
)
def test_the_advice_follows_the_cause(
    path: Path, counts: dict[str, Any], words: str, is_about_buffer: bool
) -> None:
    [advice] = advise(completeness_of(path, counts=counts))
    assert words in advice
    assert ("-B" in advice) is is_about_buffer


def test_advice_on_hidden_completions_names_the_devices(path: Path) -> None:
    [entry] = metadata(table(1009))["counts"]["devices"]
    counts = lost(missed_completion=54) | {"devices": [entry | {"lost": 54, "missed": 54}]}
    [advice] = advise(completeness_of(path, counts=counts))
    assert "on loop0 (54)" in advice
    assert "latencies of the others are right, counts are too low by that" in advice


def test_nothing_is_advised_where_nothing_is_missing(path: Path) -> None:
    assert advise(completeness_of(path)) == ()


def test_rows_without_their_submitter_are_said_and_make_it_incomplete(path: Path) -> None:
    completeness = completeness_of(path, counts={"identity_lost": 37})
    assert completeness.is_complete is False
    assert ": 37 I/Os without a submitter: no room in the ring buffer" in format_completeness(
        completeness
    )


def test_what_was_refused_and_retried_is_in_the_account_and_in_no_sum(path: Path) -> None:
    event = {"device": "loop0", "op": "read", "merges": 0, "splits": 0, "requeues": 0}
    counts = {"completions": 1009 + 1840, "refused": 1840, "events": [event | {"refused": 1840}]}
    completeness = completeness_of(path, counts=counts)
    assert completeness.is_complete
    assert [row.refused for row in completeness.events] == [1840]
    assert format_completeness(completeness).startswith("complete: 1,009 I/Os recorded, 0 lost")


def two_devices(**of_vda: int) -> dict[str, Any]:
    """A recording of loop1 alone; `of_vda` are numbers in the ledger of the other one."""
    rows = table(9, device="loop1")
    [entry] = metadata(rows)["counts"]["devices"]
    other = dict.fromkeys(entry, 0) | {"layer": "request", "device": "vda", "op": "read"} | of_vda
    group = {"ios": 500, "bytes": 5, "edge_ios": 0}
    disks = [metadata(table(1, device=name))["devices"][0] for name in ("loop1", "vda")]
    return {
        "filters": {"device": ["/dev/loop1"]},
        "devices": disks,
        "counts": {"devices": [entry, other]},
        "diskstats": {"vda": {"read": group}},
    }


def test_a_device_that_was_not_asked_for_is_neither_listed_nor_missed(tmp_path: Path) -> None:
    overrides = two_devices(filtered=400, filtered_bytes=4, lost=54, lost_bytes=4)
    gap = {"start": rfc3339(START_NS), "stop": rfc3339(START_NS + 1), "lost": 54}
    overrides["counts"] |= {
        "completions": 409,
        "filtered": 400,
        "lost": {"missed_completion": 54},
        "gaps": [gap | {"cause": "missed_completion"}],
    }
    path = write_capture(tmp_path / "run.parquet", table(9, device="loop1"), **overrides)
    with analyze.open(path) as capture:
        completeness = capture.completeness()
    assert completeness.is_complete
    assert [row.device for row in completeness.devices] == ["loop1"]
    assert (completeness.lost, completeness.filtered, completeness.gaps) == (0, 0, ())


@pytest.mark.parametrize("names", [["loop1p2"], ["loop1", "vda"], ["/mnt"], []])
def test_a_filter_is_a_partition_several_disks_or_unknown(tmp_path: Path, names: list[str]) -> None:
    overrides = two_devices(lost=54, lost_bytes=4)
    part = {"name": "loop1p2", "number": 2, "start_bytes": 0, "size_bytes": 1}
    overrides["devices"][0] = overrides["devices"][0] | {"partitions": [part]}
    overrides["counts"]["lost"] = {"missed_completion": 54}
    overrides["filters"] = {"device": names}
    path = write_capture(tmp_path / "run.parquet", table(9, device="loop1"), **overrides)
    with analyze.open(path) as capture:
        completeness = capture.completeness()
    assert completeness.lost == (0 if names == ["loop1p2"] else 54)


def test_what_a_glob_stood_for_is_what_was_asked_for(tmp_path: Path) -> None:
    overrides = two_devices()
    overrides["filters"] = {"device": ["loop*"], "resolved_device": ["loop1"]}
    path = write_capture(tmp_path / "run.parquet", table(9, device="loop1"), **overrides)
    with analyze.open(path) as capture:
        assert [row.device for row in capture.completeness().devices] == ["loop1"]


def test_a_start_of_another_device_that_was_not_seen_is_not_missed(tmp_path: Path) -> None:
    overrides = two_devices(began_before=7)
    overrides["counts"] |= {"completions": 16, "lost": {"missed_start": 7}}
    path = write_capture(tmp_path / "run.parquet", table(9, device="loop1"), **overrides)
    with analyze.open(path) as capture:
        completeness = capture.completeness()
    assert (completeness.lost, completeness.is_complete) == (0, True)


@pytest.mark.parametrize(
    ("stats", "agrees"),
    [
        ({"bytes": 1009 * 4096 - 1}, False),
        ({"bytes": 1009 * 4096 + 1}, False),
        ({"bytes": 1009 * 4096 + 4096, "edge_bytes": 4096}, True),
        ({"bytes": 1009 * 4096 + 4096, "edge_bytes": 4095}, False),
        ({"bytes": 1009 * 4096 + 4096, "edge_bytes": None}, True),
        ({"bytes": 1009 * 4096 - 1, "edge_bytes": None}, False),
    ],
)
def test_our_bytes_must_lie_within_those_of_diskstats(
    path: Path, stats: dict[str, int | None], agrees: bool
) -> None:
    completeness = completeness_of(path, diskstats={"loop0": {"read": stats}})
    assert completeness.devices[0].agrees is agrees


@pytest.mark.parametrize(("theirs", "agrees"), [(9, True), (7, None), (10, False)])
def test_a_device_without_requests_may_leave_out_zeroing(
    tmp_path: Path, theirs: int, agrees: bool | None
) -> None:
    rows = table(9, layer="bio", device="zram0", op="write", queue_ns=None)
    [zram] = metadata(rows)["devices"]
    stats = {"zram0": {"write": {"ios": theirs, "bytes": theirs * 4096}}}
    path = tmp_path / "run.parquet"
    write_capture(path, rows, devices=[zram | {"has_requests": False}], diskstats=stats)
    with analyze.open(path) as capture:
        assert [row.agrees for row in capture.completeness().devices] == [agrees]


def test_a_device_of_two_hosts_is_compared_on_each(tmp_path: Path) -> None:
    write_capture(tmp_path / "1.parquet", table(9), hostname="db1")
    stats = {"loop0": {"read": {"ios": 5}}}
    write_capture(tmp_path / "2.parquet", table(9), hostname="db2", diskstats=stats)
    with analyze.open(tmp_path) as capture:
        rows = capture.completeness().devices
    assert {row.device: row.agrees for row in rows} == {"db1:loop0": True, "db2:loop0": False}


def test_the_recorder_can_ask_before_there_is_a_file() -> None:
    def of(**counts: Any) -> Completeness:
        document = json.dumps(metadata(table(9), counts=counts)).encode()
        return make_completeness_of(parse_metadata(document), 9)

    assert of().is_complete
    assert of(lost={"missed_completion": 54}).is_complete is False
    assert make_completeness_of(parse_metadata(json.dumps(metadata(table(9))).encode())).is_complete


def test_the_recorders_verdict_needs_no_database() -> None:
    check = "import sys, analyze.verdict; sys.exit('duckdb' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_cache_flushes_are_said_apart(tmp_path: Path) -> None:
    rows = table(9, op=["cache_flush"] * 2 + ["write"] * 7, bytes=[0] * 2 + [4096] * 7)
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        text = format_completeness(capture.completeness())
    assert text.startswith("complete: 7 I/Os and 2 cache flushes recorded, 0 lost")
