# SPDX-License-Identifier: GPL-2.0-only
"""What `iorec info` says of a file, without reading its rows."""

import json
from pathlib import Path
from typing import Any

import analyze
from analyze.info import Info, make_info
from analyze.render.info import render_info
from analyze.render.json import render_json
from tests.builders import START_NS, metadata, rfc3339, table, write_capture, write_parquet


def info_of(path: Path, **overrides: Any) -> Info:
    with analyze.open(write_capture(path, table(1009), **overrides)) as capture:
        return make_info(capture)


def test_info_says_what_the_file_is(tmp_path: Path) -> None:
    overrides = {
        "workload": {"argv": ["fio", "my job.fio"], "exit_status": 3},
        "filters": {"device": ["sda", "sdb"], "min_latency_ns": 10_000_000},
        "clock": {"steps": [{"time": rfc3339(START_NS + 10**9), "step_ns": -2_500_000_000}]},
    }
    text = render_info(info_of(tmp_path / "run.parquet", **overrides), 300)
    for fact in (
        "complete: 1,009 I/Os recorded",
        "db1, Linux 6.18.44 x86_64, 2 CPUs",
        "2026-11-21 20:32:47 UTC, 1.01 s",
        "fio 'my job.fio' (exit status 3)",
        "device sda, sdb; latency of 10.0 ms or more; without the recorder's own I/O",
        "1,009 = 1,009 recorded + 0 filtered out",
        "-2.50 s at 2026-11-21 20:32:48 UTC",
        "iorec 0.1.0, 375 ms of CPU, 120 MiB of memory, 16.0 MiB of kernel buffer",
        "bytes per I/O",
    ):
        assert fact in text
    disk = next(line.split() for line in text.splitlines() if line.startswith("loop0  259:0"))
    assert disk[:8] == ["loop0", "259:0", "1.0", "GiB", "512", "B", "solid", "none"]


def test_the_sum_of_completions_holds_whatever_was_lost(tmp_path: Path) -> None:
    counts = {"completions": 1012, "lost": {"ring_full": 3, "missed_completion": 5}}
    text = render_info(info_of(tmp_path / "run.parquet", counts=counts), 140)
    assert "1,012 = 1,009 recorded" in text
    assert "+ 3 lost; besides, 5 that were not seen\n" in text
    text = render_info(info_of(tmp_path / "run.parquet", complete=False, counts=counts), 140)
    assert "+ 3 lost; besides, 5 that were not seen\n" in text


def test_the_sum_of_completions_names_what_it_does_not_explain(tmp_path: Path) -> None:
    for is_complete, rest in ((True, "unaccounted for"), (False, "not yet written")):
        counts = {"completions": 1012}
        info = info_of(tmp_path / "run.parquet", complete=is_complete, counts=counts)
        assert f"0 parts of others + 3 {rest}\n" in render_info(info, 140)


def test_what_is_missing_is_never_shown_beside_0_lost(tmp_path: Path) -> None:
    missed = {"completions": 1009, "lost": {"missed_completion": 5}}
    for overrides in ({"complete": False}, {"counts": missed}):
        text = render_info(info_of(tmp_path / "run.parquet", **overrides), 140)
        assert text.startswith("INCOMPLETE: ")
        assert "0 lost" not in text


def test_what_was_cut_off_is_not_compared_with_diskstats(tmp_path: Path) -> None:
    rows = table(1009)
    described = metadata(rows, complete=False) | {"diskstats": {}}
    path = write_parquet(tmp_path / "run.parquet", rows, json.dumps(described).encode())
    with analyze.open(path) as capture:
        lines = render_info(make_info(capture), 140).splitlines()
    assert ["DEVICE", "OP", "I/OS"] in [line.split() for line in lines]
    assert lines[-1].startswith("(not compared with /proc/diskstats")


def test_events_that_no_program_took_are_said(tmp_path: Path) -> None:
    text = render_info(info_of(tmp_path / "run.parquet", counts={"missed_events": 1234}), 120)
    assert "\nnot seen     1,234 merges, splits and requeues\n" in text
    assert "not seen" not in render_info(info_of(tmp_path / "run.parquet"), 120)


def test_the_json_document_holds_the_whole_metadata(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet"
    document = json.loads(render_json(info_of(path)))
    assert document["schema_version"] == 2
    [capture] = document["captures"]
    assert capture["size_bytes"] == path.stat().st_size
    assert capture["io_count"] == 1009
    assert capture["bytes_per_io"] == path.stat().st_size / 1009
    assert capture["metadata"] == metadata(table(1009))


def test_each_of_several_files_has_its_own_section(tmp_path: Path) -> None:
    write_capture(tmp_path / "1.parquet", table(7))
    write_capture(tmp_path / "2.csv.gz", table(0), complete=False)
    with analyze.open(tmp_path) as capture:
        info = make_info(capture)
    text = render_info(info, 200)
    assert (
        text.index("complete: 7 I/Os") < text.index("1.parquet") < text.index("INCOMPLETE: its end")
    )
    assert text.index("INCOMPLETE: its end") < text.index("2.csv.gz")


def test_hostile_metadata_does_no_harm_in_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\u202e\ud800"
    device = metadata(table(1))["devices"][0] | {"name": evil, "model": evil, "scheduler": evil}
    text = render_info(
        info_of(
            tmp_path / "run.parquet",
            hostname=evil,
            kernel=evil,
            command=[evil],
            layers=["request", evil],
            filters={"comm": [evil]},
            devices=[device],
            workload={"argv": [evil], "exit_status": None},
        ),
        80,
    )
    assert all(line.isprintable() for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 80


def test_what_went_wrong_beside_the_recording_is_listed(tmp_path: Path) -> None:
    moments = {"first": rfc3339(START_NS), "last": rfc3339(START_NS + 2 * 10**9)}
    notes = [
        {"what": "cgroups", "message": "no such file", "count": 3, **moments},
        {"what": "diskstats", "message": "unreadable\x1b", "count": 1, **moments},
    ]
    text = render_info(info_of(tmp_path / "run.parquet", notes=notes), 120)
    assert (
        "cgroups: no such file, 3 times from 2026-11-21 20:32:47 UTC to 2026-11-21 20:32:49" in text
    )
    assert "diskstats: unreadable\\x1b, at 2026-11-21 20:32:47 UTC" in text


def test_info_says_that_it_adds_up_no_bytes(tmp_path: Path) -> None:
    info = info_of(tmp_path / "run.parquet")
    assert info.captures[0].completeness.byte_mismatch is None
    assert "their bytes are added up by iorec report" in " ".join(render_info(info, 80).split())


def test_a_csv_without_its_description_has_few_facts(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.csv", table(9))
    (tmp_path / "run.meta.json").unlink()
    with analyze.open(path) as capture:
        info = make_info(capture)
    text = render_info(info, 80)
    assert text.startswith("no account: ")
    assert "completions" not in text
    assert json.loads(render_json(info))["captures"][0]["completeness"]["is_complete"] is None
