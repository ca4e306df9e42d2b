# SPDX-License-Identifier: GPL-2.0-only
"""What record says at the end of a capture: what was lost, and what helps against it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analyze.metadata import Metadata
from iorec.outcome import format_end, summary_lines, verdict
from iorec.record.progress import State
from iorec.record.settings import Limits
from iorec.status import StatusLine
from iorec.store.result import Result
from tests.builders import described, table, write_capture

MIB = 1 << 20


def metadata(lost: dict[str, int] | None = None, **overrides: Any) -> Metadata:
    whole = described(table(3))
    assert whole.counts is not None
    counts = replace(whole.counts, lost=lost or {}, **overrides.pop("counts", {}))
    return replace(whole, counts=counts, **overrides)


def result(lost: dict[str, int] | None = None, **overrides: Any) -> Result:
    return Result(Path("run.parquet"), 1, metadata(lost, **overrides), None)


def test_a_whole_capture_needs_no_warning() -> None:
    assert verdict(metadata()).is_complete
    assert verdict(metadata()).warnings == ()


def test_a_file_before_the_last_one_that_is_incomplete_makes_the_recording_so() -> None:
    earlier = "run-00001.parquet: INCOMPLETE: 1 of 4 I/Os lost"
    found = verdict(metadata(), (earlier,))
    assert not found.is_complete
    assert found.message == earlier
    assert found.warnings == (f"warning: {earlier}",)


@pytest.mark.parametrize(
    ("lost", "hints"),
    [
        ({"ring_full": 5}, ["record with a larger one, -B 64M"]),
        (
            {"ring_full": 2, "missed_completion": 5},
            ["record with a larger one, -B 64M", "a larger buffer does not help"],
        ),
        ({"missed_start": 1}, ["a larger buffer does not help"]),
        ({"table_full": 1}, ["record fewer devices (-d), or one layer"]),
        ({"spool_failed": 1}, ["free some space, or record to another disk"]),
    ],
)
def test_what_is_said_follows_the_cause(lost: dict[str, int], hints: list[str]) -> None:
    found = verdict(metadata(lost))
    assert not found.is_complete
    verdict_line, *advice = found.warnings
    assert f"{sum(lost.values())} of {3 + sum(lost.values())} I/Os lost" in verdict_line
    assert [line.endswith(hint) for line, hint in zip(advice, hints, strict=True)] == [
        True for _ in hints
    ]
    assert found.hint.endswith(hints[0])


def test_the_largest_buffer_is_not_to_be_made_larger() -> None:
    recorder = described(table(1)).recorder
    assert recorder is not None
    recorder = replace(recorder, buffer_bytes=1 << 30)
    assert "-B" not in verdict(metadata({"ring_full": 1}, recorder=recorder)).hint


def test_a_filter_that_let_nothing_through_is_named() -> None:
    counts = {"completions": 12_345, "recorded": 0, "filtered": 12_345, "devices": ()}
    filters = replace(described(table(1)).filters, comm=("my sql*",), pid=(7,))
    assert verdict(metadata(counts=counts, filters=filters, diskstats={})).warnings == (
        "warning: nothing matched -p 7 -c 'my sql*'; 12,345 I/Os filtered out",
    )
    assert verdict(metadata(counts=counts, diskstats={})).warnings == ()


def test_while_recording_names_are_warned_of_and_not_that_nothing_is_slow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    filters = replace(described(table(1)).filters, comm=("postgrse",))
    for latency_ns, expected in ((None, "warning: nothing matched -c postgrse;"), (10**7, "")):
        asked = replace(filters, min_latency_ns=latency_ns)
        with StatusLine(Limits(), asked, is_quiet=True) as line:
            line.show(State(6.0, rows=0, rows_per_s=0, filtered=9, lost=0, size_bytes=0))
        said = capsys.readouterr().err
        assert said.startswith(expected)
        assert bool(said) == bool(expected)


def test_what_was_discarded_is_not_in_the_bytes_of_the_last_words() -> None:
    rows = table(3, op=["read", "write", "discard"], bytes=[1024, 2048, 1 << 30])
    ended = format_end(Result(Path("run.parquet"), 1, described(rows), None))
    assert ended.startswith("3 I/Os, 3.0 KiB in ")


def test_0_lost_is_said_of_what_lacks_nothing(tmp_path: Path) -> None:
    assert format_end(result()).splitlines()[0].endswith("; 0 lost")
    assert format_end(result({"ring_full": 2})).splitlines()[0].endswith("; 2 lost")
    assert format_end(result(complete=False)).splitlines()[0].endswith("; incomplete")


def test_bytes_that_two_layers_saw_are_counted_once_in_the_last_words() -> None:
    layers, devices = ["request"] * 2 + ["bio"] * 3, ["sda"] * 4 + ["zram0"]
    rows = table(5, layer=layers, device=devices, bytes=1024)
    ended = format_end(Result(Path("run.parquet"), 1, described(rows), None))
    assert " 3.0 KiB in " in ended


@pytest.mark.parametrize(
    ("count", "files"),
    [
        (1, "run-00002.parquet, run.parquet (the last 1 B)"),
        (3, "run-00002.parquet, run-00003.parquet, run-00004.parquet, run.parquet (the last 1 B)"),
        (4, "5 files, run-00002.parquet to run.parquet (the last 1 B)"),
    ],
)
def test_the_files_that_a_rotating_recording_kept_are_named(count: int, files: str) -> None:
    kept = tuple(Path(f"run-{number:05}.parquet") for number in range(2, 2 + count))
    first, named, next_line = format_end(replace(result(), kept=kept)).splitlines()
    assert first.startswith("the last file: 3 I/Os, ")
    assert named == files
    assert next_line == "next: iorec report run.parquet"


def test_the_next_command_can_be_typed_whatever_the_capture_is_called() -> None:
    whole = described(table(3))
    ended = format_end(Result(Path("my run;\x1b.parquet"), 1, whole, None)).splitlines()
    assert ended[1:] == [
        "my run;\\x1b.parquet (1 B)",
        r"next: iorec report $'my\040run\073\033.parquet'",
    ]
    (next_line,) = format_end(Result(Path("my run.csv"), 1, whole, None)).splitlines()[2:]
    assert next_line == "next: iorec report 'my run.csv'"


def test_a_summary_that_fails_says_so_and_no_more(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(3))
    assert summary_lines(path, 80) == ["I/O time: fio (1000) 100.0%"]
    path.write_bytes(path.read_bytes()[:-1])
    (said,) = summary_lines(path, 80)
    assert said.startswith("no summary: cannot read ")
