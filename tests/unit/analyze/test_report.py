# SPDX-License-Identifier: GPL-2.0-only
"""What `iorec report` prints: the same numbers as text, JSON and CSV, hostile names harmless."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.cells import cell_len

import analyze
from analyze.capture import open_captures
from analyze.errors import IorecError
from analyze.escape import escape_for_terminal, neutralise_for_csv
from analyze.groupings import SORTS
from analyze.groups import MAX_GROUPS
from analyze.render.csv import render_csv
from analyze.render.json import render_json
from analyze.render.report import render_text
from analyze.render.table import Column, format_columns
from analyze.report import Report, make_report
from tests.builders import START_NS, metadata, mixed_table, rfc3339, table, write_capture

HOSTILE = ["=cmd|' /C calc'!A0", "\x1b[31mred", "\u202egnp.exe", "<script>", "a\nb", "\\x1b[31mred"]


def report_of(
    folder: Path,
    rows: pa.Table | None = None,
    overrides: dict[str, Any] | None = None,
    **options: Any,
) -> Report:
    path = write_capture(folder / "run.parquet", rows, **overrides or {})
    selection = {name: options.pop(name) for name in ("begin", "end", "where") if name in options}
    with analyze.open(path, **selection) as capture:
        return make_report(capture, **options)


def troubled_rows() -> pa.Table:
    """20 rows; 3 never completed and 2 failed."""
    latency = [None if i in (2, 3, 5) else 1000 for i in range(20)]
    errno = [None if value is None else 0 for value in latency]
    errno[7], errno[8] = 5, 121
    return table(20, latency_ns=latency, queue_ns=None, errno=errno)


def test_the_json_document_holds_every_number_unrounded(tmp_path: Path) -> None:
    report = report_of(tmp_path, mixed_table(1009), by=("comm", "op"), histogram=True)
    document = json.loads(render_json(report))
    assert document["schema_version"] == 2
    plain = json.loads(json.dumps(asdict(report.summary)))
    assert document["summary"] == plain
    assert document["origin"] == "2026-11-21T20:32:47.000000000Z"
    assert document["completeness"]["is_complete"] is True
    assert document["selection"] == {"begin_s": None, "end_s": None, "where": None, "layer": None}


def test_the_csv_holds_a_line_for_each_group_and_every_number(tmp_path: Path) -> None:
    report = report_of(tmp_path, mixed_table(1009))
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert len(lines) == len(report.summary.groups)
    for line, group in zip(lines, report.summary.groups, strict=True):
        assert (int(line["pid"]), line["process"]) == tuple(group.key.values())
        assert int(line["ios"]) == group.ios
        assert float(line["latency_p99_ns"]) == group.latency.p99_ns


def test_an_unknown_key_is_an_empty_field(tmp_path: Path) -> None:
    [line] = csv.DictReader(io.StringIO(render_csv(report_of(tmp_path, table(1, comm=None)))))
    assert line["process"] == ""


def test_several_captures_are_summed_up_and_each_that_lacks_ios_is_named(tmp_path: Path) -> None:
    for name in "abcdefg":
        lost = 0 if name in "af" else 1
        counts = {"completions": 10 + lost, "lost": {"ring_full": lost}}
        write_capture(tmp_path / f"{name}.parquet", table(10), counts=counts, diskstats={})
    with analyze.open(tmp_path) as capture:
        report = make_report(capture)
    lines = render_text(report, 400).splitlines()
    assert lines[0].startswith("7 captures summed up: INCOMPLETE: 5 of 75 I/Os lost (ring buffer")
    named = [line.partition(".parquet: INCOMPLETE: 1 of 11 I/Os lost ") for line in lines]
    assert [Path(path).name for path, is_verdict, _ in named if is_verdict] == ["b", "c", "d"]
    assert "and 2 more incomplete captures" in lines
    sources = json.loads(render_json(report))["sources"]
    assert [source["is_complete"] for source in sources] == [True, *[False] * 4, True, False]


@pytest.mark.parametrize(
    ("version", "cgroup", "by", "is_said"),
    [
        (1, "/", "cgroup", True),
        (1, "id:1", "cgroup,op", True),
        (1, "/a", "cgroup", False),
        (1, "/", "pid", False),
        (2, "/", "cgroup", False),
        (None, "/", "cgroup", False),
    ],
)
def test_why_every_cgroup_is_the_root_is_said(
    tmp_path: Path, version: int | None, cgroup: str, by: str, is_said: bool
) -> None:
    overrides = {"cgroup_version": version}
    report = report_of(tmp_path, table(10, cgroup=cgroup), overrides, by=by.split(","))
    assert ("(all in one cgroup: " in render_text(report, 100)) is is_said


@pytest.mark.parametrize("options", [{"by": ("file",)}, {"by": ("owner",)}, {"slowest": 3}])
def test_a_file_that_is_numbers_is_explained_where_it_is_shown(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    said = "(7:9:19 is inode 19 of device 7:9: no path was found for the file)"
    for file, is_said in (("7:9:19", True), ("/data/7:9:19", False), ("/data/a", False)):
        report = report_of(tmp_path, table(3, comm="kworker/u8:3", file=file), **options)
        assert (said in render_text(report, 200).splitlines()) is is_said


def test_a_file_that_is_not_shown_is_not_explained(tmp_path: Path) -> None:
    report = report_of(tmp_path, table(3, file="7:9:19"), slowest=3)
    assert "no path was found" in render_text(report, 200, ["file", "latency"])
    assert "no path was found" not in render_text(report, 200, ["latency"])


def test_hostile_names_do_no_harm_and_stay_distinguishable(tmp_path: Path) -> None:
    report = report_of(tmp_path, table(len(HOSTILE), comm=HOSTILE), by=("comm",))
    text = render_text(report, 200)
    assert all(line.isprintable() for line in text.splitlines())
    for shown in ("\\x1b[31mred", "\\x5cx1b[31mred", "\\u202egnp.exe", "a\\x0ab"):
        assert f"\n{shown} " in text
    as_csv = render_csv(report)
    assert all(line.isprintable() for line in as_csv.splitlines())
    cells = [row["comm"] for row in csv.DictReader(io.StringIO(as_csv))]
    assert sorted(cells) == sorted(neutralise_for_csv(escape_for_terminal(n)) for n in HOSTILE)
    assert {"'" + HOSTILE[0], "\\u202egnp.exe", "a\\x0ab"} <= set(cells)
    assert len(set(cells)) == len(HOSTILE)
    document = render_json(report)
    assert document.isascii()
    assert {group["key"]["comm"] for group in json.loads(document)["summary"]["groups"]} == set(
        HOSTILE
    )


def test_completeness_comes_first_then_devices_groups_and_the_total(tmp_path: Path) -> None:
    lines = render_text(report_of(tmp_path, mixed_table(1009)), 80).splitlines()
    assert lines[0].startswith("complete: 1,009 I/Os recorded")
    order = [lines.index(next(line for line in lines if word in line)) for word in (
        "run.parquet", "DISKSTATS", "postgres", "total"
    )]  # fmt: skip
    assert order == sorted(order)
    assert any(line.split() == ["nvme0n1", "read", "497", "497", "agrees"] for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120, 200, 400])
def test_lines_fit_the_terminal_and_a_wider_one_shows_more(tmp_path: Path, width: int) -> None:
    report = report_of(tmp_path, mixed_table(1009), by=("cgroup", "process"))
    report_lines = render_text(report, width).splitlines()
    tables = [line for line in report_lines if "run.parquet" not in line]
    assert max(map(cell_len, tables)) <= width
    assert any(line.startswith("(no room for") for line in report_lines) is (width < 200)


def titles(report: Report, width: int, columns: Sequence[str] = ()) -> list[str]:
    """Those of the table of groups."""
    text = render_text(report, width, columns)
    [line] = [line for line in text.splitlines() if line.startswith(("COMM", "OP"))]
    return line.split()


@pytest.mark.parametrize("sort", SORTS)
def test_what_groups_are_sorted_by_is_shown_at_any_width(tmp_path: Path, sort: str) -> None:
    report = report_of(tmp_path, troubled_rows(), by=("comm",), sort=sort)
    title = {"ios": "I/OS", "p999": "P99.9"}.get(sort, sort.upper())
    for width in (40, 60, 80):
        assert {"COMM", "I/OS", title, "ERRORS", "TIME"} <= set(titles(report, width))


def test_what_is_0_or_the_same_in_all_groups_is_left_out_first(tmp_path: Path) -> None:
    ops = ["read", "read", "write"]
    latency = {"latency_ns": [1000, 3000, 2000], "queue_ns": None}
    by_op = report_of(tmp_path, table(3, op=ops, **latency), by=("op",))
    assert {"READ", "WRITTEN"} <= set(titles(by_op, 60))
    alike = {"op": "read", "comm": ["a", "b", "c"], **latency}
    by_comm = report_of(tmp_path, table(3, **alike), by=("comm",))
    assert "P50" in titles(by_comm, 60)
    assert not {"READ", "WRITTEN", "IOPS", "RATE", "QUEUED"} & set(titles(by_comm, 60))
    assert {"READ", "WRITTEN", "IOPS"} <= set(titles(by_comm, 400))


def test_columns_are_picked_by_name_in_any_order_and_number(tmp_path: Path) -> None:
    report = report_of(tmp_path, by=("op",))
    assert titles(report, 80, ["p999", "ios", "zeroed"]) == ["OP", "P99.9", "I/OS", "ZEROED"]
    everything = ["reads", "writes", "iops", "rate", "avg", "min", "p50", "p95", "p99", "max"]
    assert titles(report, 40, everything) == ["OP", *(name.upper() for name in everything)]
    assert titles(report, 80, ["P99.9", "latency_max_ns"]) == ["OP", "P99.9", "MAX"]


def test_an_unknown_column_gets_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(IorecError, match="cannot show the column 'tme'") as caught:
        render_text(report_of(tmp_path), 80, ["tme"])
    assert caught.value.hint.startswith("did you mean time? choose from: ios, reads, ")
    assert caught.value.exit_code == 2


def test_columns_of_ios_and_devices_are_picked_too(tmp_path: Path) -> None:
    for options, names, heads in (
        ({"slowest": 3}, ["file", "in-device", "error"], "FILE IN DEVICE ERROR"),
        ({"busy": "busy"}, ["reread", "queue-p95"], "DEVICE REREAD QUEUE P95"),
    ):
        text = render_text(report_of(tmp_path, **options), 80, names)
        assert heads.split() in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/var/lib/postgresql/15/main/pg_wal/0001", "/var/…/15/main/pg_wal/0001"),
        ("/kubepods/" + "x" * 200 + "/container.scope", "…/container.scope"),
        ("/var/lib/" + "x" * 100 + ".log", "…/xxxxxxxxxxxxxxx…xxxxxxxxxx.log"),
        ("/usr/bin/tar -c -f /backup/of/everything.tar", "/usr/bin/tar -c …/everything.tar"),
        ("postgres: application database [local]", "postgres: applic…atabase [local]"),
    ],
)
def test_a_long_name_keeps_both_ends_and_a_path_its_last_parts(
    tmp_path: Path, name: str, shown: str
) -> None:
    text = render_text(report_of(tmp_path, table(3, cgroup=name), by=("cgroup",)), 80)
    assert [line.startswith(f"{shown}  ") for line in text.splitlines()].count(True) == 1


def test_for_what_was_written_and_the_p99_names_get_shorter(tmp_path: Path) -> None:
    names = {"dirtier": ["d" * 100, "short", None], "cgroup": ["c" * 100, "/a", "/b"]}
    rows = table(3, op="write", bytes=[4096, 8192, 512], latency_ns=[3000, 2000, 1000], **names)
    for by in (("owner",), ("owner", "op")):
        text = render_text(report_of(tmp_path, rows, by=by), 80)
        [head] = [line for line in text.splitlines() if line.startswith("OWNER")]
        assert {"I/OS", "WRITTEN", "P99", "TIME"} <= set(head.split())
        assert max(map(cell_len, text.splitlines()[4:])) <= 80
    assert "CGROUP" not in text.split("(no room for")[1]


def test_counts_that_are_too_low_say_so_in_their_titles(tmp_path: Path) -> None:
    gap = {"start": rfc3339(START_NS + 10**8), "stop": rfc3339(START_NS + 2 * 10**8), "lost": 5}
    lossy = {"counts": {"completions": 1014, "lost": {"ring_full": 5}, "gaps": [gap]}}
    text = render_text(report_of(tmp_path, None, lossy), 80)
    assert text.startswith("INCOMPLETE: 5 of 1,014 I/Os lost (ring buffer full)")
    assert "  5 lost from 0.100000 s to 0.200000 s: ring buffer full\n" in text
    assert "hint: the ring buffer was full: record with a larger one, -B 64M\n" in text
    assert "≥I/OS" in text
    assert "≥I/OS" not in render_text(report_of(tmp_path), 80)


NOTHING = {
    "filtered": 0,
    "began_before": 0,
    "continuations": 0,
    "in_flight_at_start": 0,
    "in_flight_at_stop": 0,
    "lost": {},
}


def test_counts_of_a_layer_that_lost_nothing_are_not_too_low(tmp_path: Path) -> None:
    rows = table(10, layer=["request"] * 4 + ["syscall"] * 6, device=["sda"] * 4 + [None] * 6)
    layers = {
        "request": {"completions": 4, "recorded": 4, **NOTHING},
        "syscall": {"completions": 9, "recorded": 6, **NOTHING, "lost": {"ring_full": 3}},
    }
    lossy = {"counts": {"layers": layers, "completions": 13, "lost": {"ring_full": 3}}}
    path = write_capture(tmp_path / "run.parquet", rows, **lossy)
    for layer, title in ((None, "  I/OS"), ("syscall", "≥I/OS")):
        with open_captures([path], layer=layer) as capture:
            text = render_text(make_report(capture), 80)
        assert text.startswith("INCOMPLETE: 3 of 9 system calls lost (ring buffer full)")
        assert title in text
        assert ("≥" in text) == (layer is not None)


def test_the_layers_that_are_not_shown_are_named(tmp_path: Path) -> None:
    said = {
        "request": "",
        "request bio": "requests, and bios of devices without requests; the others: --layer bio",
        "request syscall wait": "requests; the others: --layer syscall or wait",
    }
    for number, (names, expected) in enumerate(said.items()):
        layers = names.split()
        counts = {layer: {"completions": 3, "recorded": 3, **NOTHING} for layer in layers}
        rows = table(3 * len(layers), layer=layers * 3, device="sda")
        path = write_capture(tmp_path / f"{number}.parquet", rows, counts={"layers": counts})
        with open_captures([path]) as capture:
            text = " ".join(render_text(make_report(capture), 200).split())
        assert (f"below: {expected} " if expected else "I/OS") in text
        assert ("below:" in text) == bool(expected)


def test_hung_and_failed_ios_are_listed(tmp_path: Path) -> None:
    report = report_of(tmp_path, troubled_rows())
    assert (report.in_flight.count, report.failed.count) == (3, 2)
    assert [trouble.offset for trouble in report.in_flight.shown] == [2 * 4096, 3 * 4096, 5 * 4096]
    assert [trouble.age_ns for trouble in report.in_flight.shown] == [
        998_000_000,
        997_000_000,
        995_000_000,
    ]
    assert [trouble.errno for trouble in report.failed.shown] == [5, 121]
    text = render_text(report, 80)
    assert "3 in flight when recording stopped" in text
    assert "998 ms" in text
    assert "2 failed (1 read EIO, 1 read EREMOTEIO)" in " ".join(text.split())
    assert "EIO" in text
    assert "EREMOTEIO" in text


def test_calls_that_fail_as_usual_are_counted_and_three_are_listed(tmp_path: Path) -> None:
    errnos = [2] * 500 + [11] * 20 + [5, 22, 22, 0]
    rows = table(
        len(errnos), layer="syscall", device=None, offset=None, op="openat", errno=errnos, file="/a"
    )
    path = write_capture(tmp_path / "run.parquet", rows, layers=["syscall"])
    with open_captures([path], layer="syscall") as capture:
        report = make_report(capture)
    assert [(kind.errno, kind.count) for kind in report.failed.failures] == [
        (2, 500),
        (11, 20),
        (22, 2),
        (5, 1),
    ]
    lines = render_text(report, 120).splitlines()
    [place] = [at for at, line in enumerate(lines) if line.startswith("523 failed")]
    kinds = "500 openat ENOENT, 20 openat EAGAIN, 2 openat EINVAL and 1 more"
    assert lines[place].startswith(f"523 failed ({kinds})")
    assert not {"DEVICE", "OFFSET"} & set(lines[place + 1].split())
    assert [line.split()[-1] for line in lines[place + 1 : place + 5]] == ["FILE", *["/a"] * 3]
    assert lines[place + 5] == "(520 more)"


def test_a_long_list_of_hung_ios_ends_with_a_count_of_the_rest(tmp_path: Path) -> None:
    rows = table(1009, latency_ns=None, queue_ns=None, errno=None)
    report = report_of(tmp_path, rows)
    assert len(report.in_flight.shown) == 10
    assert "1,009 in flight when recording stopped" in render_text(report, 80)
    assert "\n(999 more)" in render_text(report, 80)


def test_nothing_is_listed_when_nothing_hung_or_failed(tmp_path: Path) -> None:
    text = render_text(report_of(tmp_path), 80)
    assert "in flight when" not in text
    assert "failed" not in text


def test_failed_ios_are_said_in_the_headline_and_have_a_column_at_any_width(tmp_path: Path) -> None:
    text = render_text(report_of(tmp_path, troubled_rows()), 60)
    assert text.startswith("complete: 17 I/Os recorded, 0 lost, 3 in flight, 2 failed;")
    assert "ERRORS" in text
    assert "ERRORS" not in render_text(report_of(tmp_path), 400)


def test_what_was_narrowed_is_not_said_of_the_whole_recording(tmp_path: Path) -> None:
    report = report_of(tmp_path, troubled_rows(), begin=0.0075)
    assert (report.failed.count, report.completeness.failed) == (1, None)
    assert report.completeness.byte_mismatch is None


def test_discarded_and_zeroed_bytes_have_columns_where_there_are_any(tmp_path: Path) -> None:
    ops = ["write", "discard", "secure_erase", "write_zeroes", "zone_append", "zone_reset"]
    rows = table(6, op=ops, bytes=[1024, 2048, 4096, 8192, 16384, 0])
    report = report_of(tmp_path, rows, by=("op",))
    total = report.summary.total
    assert (total.discarded_bytes, total.zeroed_bytes, total.write_bytes) == (6144, 8192, 17408)
    text = render_text(report, 80)
    assert {"DISCARDED", "ZEROED"} <= set(text.split("(no room")[0].split())
    assert not {"DISCARDED", "ZEROED", "FLUSHES"} & set(
        render_text(report_of(tmp_path, table(3)), 400).split()
    )


def test_beside_a_long_name_written_bytes_stay_before_discarded_ones(tmp_path: Path) -> None:
    file = "/a/file/whose/path/takes/more/than/a/third/of/the/line"
    rows = table(2, op=["write", "discard"], file=[file, None])
    report = report_of(tmp_path, rows, by=("owner",))
    shown = [render_text(report, width).split("(no room")[0] for width in range(40, 120)]
    found = [("WRITTEN" in text, "DISCARDED" in text) for text in shown]
    assert {(True, False), (True, True)} <= set(found)
    assert (False, True) not in found


def flushing_rows() -> pa.Table:
    return table(
        5,
        op=["write", "flush", "cache_flush", "cache_flush", "cache_flush"],
        pid=[7, 7, None, None, None],
        comm=["pg", "pg", None, None, None],
        device=["sda", "sda", "sda", "sda", "sdb"],
        latency_ns=[100_000, 300_000, 200_000, 250_000, 250_000],
    )


def test_cache_flushes_stand_below_the_table_and_take_no_time(tmp_path: Path) -> None:
    report = report_of(tmp_path, flushing_rows())
    text = render_text(report, 200)
    assert [line.split()[0] for line in text.splitlines() if line.endswith("100.0%")] == [
        "7",
        "total",
    ]
    assert "3 cache flushes by devices, in no sum above: p50 250 µs, p99 250 µs, max 250 µs" in text
    assert "unknown" not in text


@pytest.mark.parametrize("width", range(40, 120))
def test_no_line_breaks_between_a_number_and_its_unit(tmp_path: Path, width: int) -> None:
    lines = render_text(report_of(tmp_path, flushing_rows()), width).splitlines()
    assert not any(line.split()[:1] in (["µs"], ["µs,"]) for line in lines)


def test_cache_flushes_of_several_devices_have_a_line_each(tmp_path: Path) -> None:
    lines = render_text(report_of(tmp_path, flushing_rows(), by=("device",)), 80).splitlines()
    [place] = [number for number, line in enumerate(lines) if "FLUSHED" in line]
    assert [line.split()[:2] for line in lines[place + 1 : place + 3]] == [
        ["sda", "2"],
        ["sdb", "1"],
    ]


def test_cache_flushes_are_told_apart_in_csv_and_json(tmp_path: Path) -> None:
    report = report_of(tmp_path, flushing_rows(), by=("op",), histogram=True)
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert [(line["op"], line["kind"], line["ios"]) for line in lines] == [
        ("flush", "io", "1"),
        ("write", "io", "1"),
        ("cache_flush", "cache_flush", "3"),
    ]
    assert lines[-1]["time_share"] == ""
    [flushes] = json.loads(render_json(report))["summary"]["cache_flushes"]
    assert (flushes["ios"], flushes["time_share"], flushes["latency"]["sum_ns"]) == (
        3,
        None,
        700_000,
    )
    assert "cache flushes: OP cache_flush\n" in render_text(report, 80)


def test_a_capture_of_cache_flushes_alone_is_not_empty(tmp_path: Path) -> None:
    text = render_text(report_of(tmp_path, table(3, op="cache_flush", pid=None, bytes=0)), 80)
    assert "no I/Os were recorded" not in text
    assert "3 cache flushes by devices" in text


def test_refused_attempts_are_counted_by_device_and_explained(tmp_path: Path) -> None:
    events = {"device": "loop0", "op": "read", "merges": 0, "splits": 0, "requeues": 0}
    counts = {"completions": 12, "refused": 7, "events": [events | {"refused": 7}]}
    text = render_text(report_of(tmp_path, table(5), {"counts": counts}), 80)
    assert ["loop0", "read", "5", "5", "agrees", "7"] in [
        line.split() for line in text.splitlines()
    ]
    assert text.count("retried") == 1
    assert "REFUSED" not in render_text(report_of(tmp_path, table(5)), 80)


def test_bytes_that_differ_are_shown(tmp_path: Path) -> None:
    overrides = {"diskstats": {"loop0": {"read": {"bytes": 4096}}}}
    text = render_text(report_of(tmp_path, table(5), overrides), 80)
    assert ["loop0", "read", "5", "5", "DIFFERS", "20,480", "4,096"] in [
        line.split() for line in text.splitlines()
    ]


def test_rows_whose_bytes_are_not_those_counted_are_incomplete(tmp_path: Path) -> None:
    [entry] = metadata(table(5))["counts"]["devices"]
    ledger = {"counts": {"devices": [entry | {"recorded_bytes": 4096}]}}
    overrides = ledger | {"diskstats": {"loop0": {"read": {"bytes": 4096}}}}
    text = render_text(report_of(tmp_path, table(5), overrides), 80)
    assert text.startswith("INCOMPLETE: the rows hold ")
    assert "the rows hold 16.0 KiB more than was counted" in " ".join(text.split())


def test_notes_are_counted_and_a_file_given_again_is_said(tmp_path: Path) -> None:
    note = {"what": "cgroups", "message": "gone", "count": 3}
    moments = {"first": rfc3339(START_NS), "last": rfc3339(START_NS + 1)}
    path = write_capture(tmp_path / "run.parquet", table(5), notes=[note | moments])
    with analyze.open(path, path) as capture:
        text = render_text(make_report(capture), 200)
    assert f"read once, though given again: {path}\n" in text
    assert "1 note of trouble while recording: see iorec info" in text


def test_a_histogram_looks_like_that_of_biolatency(tmp_path: Path) -> None:
    rows = table(6, latency_ns=[500, 1500, 2500, 5000, 5000, 5000], queue_ns=None)
    text = render_text(report_of(tmp_path, rows, histogram=True), 80)
    assert (
        "PID 1000, PROCESS fio\n"
        "     usecs               : count     distribution\n"
        "         0 -> 1          : 2        |**************************              |\n"
        "         2 -> 3          : 1        |*************                           |\n"
        "         4 -> 7          : 3        |****************************************|\n"
        "     total               : 6\n"
    ) in text


def test_a_histogram_begins_and_ends_where_there_are_ios(tmp_path: Path) -> None:
    rows = table(3, latency_ns=[9000, 9000, 40_000], queue_ns=None)
    text = render_text(report_of(tmp_path, rows, histogram=True), 80)
    *_, histogram = text.partition("distribution\n")
    starts = [line.split()[0] for line in histogram.split("\n\n")[0].splitlines()]
    assert starts == ["8", "16", "32", "total"]


def test_what_is_shown_of_a_capture_is_said(tmp_path: Path) -> None:
    where = "op = 'read'\n-- \x1b"
    report = report_of(tmp_path, table(1000), begin=0.5, end=0.75, where=where)
    text = render_text(report, 80)
    assert "below: 250 I/Os from 0.5 s to 0.75 s where op = 'read'\\x0a-- \\x1b\n" in text
    assert text.startswith("complete: 1,000 I/Os")


def test_groups_that_are_left_out_are_counted(tmp_path: Path) -> None:
    text = render_text(report_of(tmp_path, table(30, pid=list(range(30))), by=("pid",), top=7), 80)
    assert "\n(23 more: --top 30)\n" in text


def test_each_cell_of_a_table_is_measured_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []

    def measure(text: str) -> int:
        measured.append(text)
        return cell_len(text)

    monkeypatch.setattr("analyze.render.table.cell_len", measure)
    lines = format_columns([Column("NAME", [str(number) for number in range(1000)])])
    assert len(lines) == 1001
    assert len(measured) <= 3 * len(lines)


def test_no_more_groups_are_offered_than_are_shown(tmp_path: Path) -> None:
    rows = table(MAX_GROUPS + 1, pid=list(range(MAX_GROUPS + 1)))
    few, most = (report_of(tmp_path, rows, by=("pid",), top=top) for top in (7, MAX_GROUPS))
    assert f"\n(19,994 more: --top {MAX_GROUPS})\n" in render_text(few, 80)
    assert "\n(1 more)\n" in render_text(most, 80)


def test_keys_are_shown_in_words(tmp_path: Path) -> None:
    rows = table(4, errno=[0, 5, 121, 999], flags=["", "sync", "sync", "sync"], bytes=65536)
    text = render_text(report_of(tmp_path, rows, by=("errno", "flags", "size")), 80)
    for words in (["ok", "none"], ["EIO", "sync"], ["EREMOTEIO", "sync"], ["errno", "999"]):
        assert any(line.split()[: len(words)] == words for line in text.splitlines())
    assert "64.0 KiB" in text


def test_of_many_devices_those_that_differ_and_the_busiest_are_listed(tmp_path: Path) -> None:
    names = [f"sd{chr(97 + number)}" for number in range(26)]
    rows = table(26 * 27 // 2, device=[name for i, name in enumerate(names) for _ in range(i + 1)])
    stats = {"sdc": {"read": {"ios": 7}}}
    text = render_text(report_of(tmp_path, rows, {"diskstats": stats}), 80)
    listed = [line.split() for line in text.splitlines() if line.startswith("sd")]
    assert ["sdc", "read", "3", "7", "DIFFERS"] in listed
    assert [row[0] for row in listed] == ["sdc", *names[-11:]]
    assert "(14 more, which do not differ)" in text


def test_the_table_of_devices_says_which_flushes_it_counts_where(tmp_path: Path) -> None:
    rows = table(6, op=["read", "write", "write", "flush", "cache_flush", "cache_flush"])
    text = render_text(report_of(tmp_path, rows), 80)
    table_of_devices = text.split("\n\n")[1]
    for words in ("read 1 1", "write, flush 3 3", "cache_flush 2 2"):
        assert f"{words} agrees" in " ".join(table_of_devices.split())


def test_an_empty_capture_is_said_to_be_empty(tmp_path: Path) -> None:
    assert "no I/Os were recorded" in render_text(report_of(tmp_path, table(0)), 80)
