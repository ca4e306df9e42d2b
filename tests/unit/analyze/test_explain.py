# SPDX-License-Identifier: GPL-2.0-only
"""Causes and explanations: an I/O belongs to the call in whose time its thread submitted it."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyze.capture import open_captures
from analyze.errors import IorecError
from analyze.explain import RAN_OR_LOST, Explanation, explain_all, explain_calls
from analyze.plot.figure import draw
from analyze.plot.kinds import Kind
from analyze.render.explain import render_explained
from tests.builders import START_NS, table, write_capture

US = 1000


def capture_of(
    path: Path, *rows: dict[str, Any], layers: tuple[str, ...], **overrides: Any
) -> Path:
    """A capture with these rows; times are microseconds after the start, and so are latencies."""
    names = {name for row in rows for name in row} - {"at", "took"}
    columns = {name: [row.get(name) for row in rows] for name in names}
    columns["time"] = [START_NS + row["at"] * US for row in rows]
    columns["latency_ns"] = [None if row["took"] is None else row["took"] * US for row in rows]
    columns["queue_ns"] = [row.get("queue_ns") for row in rows]
    columns["errno"] = [None if row["took"] is None else 0 for row in rows]
    return write_capture(path, table(len(rows), **columns), layers=list(layers), **overrides)


def call(at: int, took: int | None, op: str, tid: int = 1, **others: Any) -> dict[str, Any]:
    return {
        "layer": "syscall",
        "at": at,
        "took": took,
        "op": op,
        "tid": tid,
        "pid": 1,
        "comm": "db",
        "device": None,
        "offset": None,
        "bytes": 0,
        "file": "/db",
        "result": None if took is None else 0,
        **others,
    }


def io(at: int, took: int | None, tid: int | None = 1, **others: Any) -> dict[str, Any]:
    return {
        "layer": "request",
        "at": at,
        "took": took,
        "op": "write",
        "tid": tid,
        "pid": tid,
        "comm": "db",
        "device": "loop0",
        "offset": 4096,
        "bytes": 4096,
        **others,
    }


def test_the_time_of_an_fsync_is_shared_out_among_its_ios(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(100, 1000, "fsync"),
        io(110, 200),  # its own, from 10 to 210
        io(250, 300, 2),  # of another thread
        io(200, 400, 3, comm="jbd2/loop0-8"),  # from 100 to 500: 290 of it after its own
        io(200, 400, 4, comm="jbd2/sda1-8", device="sda"),  # another journal
        io(650, 100, None, op="cache_flush", comm=None, bytes=0),
        io(50, 150, 5, comm="kworker/u8:1", file="/db"),  # until 200: within its own
        io(50, 150, 5, comm="kworker/u8:1", file="/other"),
        io(1500, 100),  # after it
        layers=("request", "syscall"),
    )
    with open_captures([path], layer="syscall") as capture:
        (found,) = explain_calls(capture, 3)
    assert [(part.relation, part.ios, part.time_ns // US) for part in found.parts] == [
        ("own", 1, 200),
        ("journal", 1, 290),
        ("writeback", 1, 10),  # before its own began
        ("cache flush", 1, 100),
        ("none of these", None, 400),
    ]
    assert sum(part.time_ns for part in found.parts) == found.latency_ns
    assert [step.relation for step in found.steps] == ["writeback", "own", "journal", "cache flush"]
    text = render_explained(Explanation(None, (found,)), START_NS, 80)
    assert "fsync of /db by db (1): 1.00 ms" in text
    assert max(map(len, text.splitlines())) <= 80
    assert render_explained(Explanation(None, ()), START_NS, 80) == "no calls for files\n"


def test_a_read_is_not_explained_by_a_journal(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(100, 100, "pread64"),
        io(110, 50, op="read"),
        io(110, 80, 3, comm="jbd2/loop0-8"),
        layers=("request", "syscall"),
    )
    with open_captures([path], layer="syscall") as capture:
        (found,) = explain_calls(capture, 1)
    assert [part.relation for part in found.parts] == ["own", "none of these"]


def test_a_call_that_has_not_ended_is_first_and_explained_until_the_stop(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(0, 5000, "fsync", 2),
        call(100, None, "read"),
        io(110, None, op="read"),
        layers=("request", "syscall"),
    )
    with open_captures([path], layer="syscall") as capture:
        first, second = explain_calls(capture, 5)
        stop_ns = capture.recorded_until_ns(first.time)
    assert (first.op, first.latency_ns) == ("read", None)
    assert first.length_ns == stop_ns - first.time
    assert first.parts[0].time_ns == first.length_ns - 10 * US
    assert second.op == "fsync"
    assert "has not ended" in render_explained(Explanation(None, (first,)), START_NS, 120)


def test_a_capture_without_disks_explains_nothing(tmp_path: Path) -> None:
    path = capture_of(tmp_path / "run.parquet", call(0, 5, "fsync"), layers=("syscall",))
    with open_captures([path]) as capture, pytest.raises(IorecError) as error:
        explain_calls(capture, 1)
    assert "syscall,wait,request" in error.value.hint


def wait(at: int, took: int | None, woken: int | None, place: str | None, tid: int = 1) -> Any:
    """A thread that waits; `place` is None of one that was preempted."""
    op = "blocked" if place else "preempted"
    queue_ns = None if woken is None else woken * US
    return call(at, took, op, tid, layer="wait", file=None, wait=place, queue_ns=queue_ns)


def test_the_time_of_a_call_is_shared_out_among_its_waits(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(100, 1000, "fsync"),
        wait(50, 20, 10, "before <- it"),
        wait(110, 300, 250, "jbd2_log_wait_commit <- ext4_sync_file <- do_fsync"),
        wait(450, 100, 100, "jbd2_log_wait_commit <- ext4_sync_file <- do_fsync"),
        wait(600, 200, 0, None),
        wait(600, 200, 0, None, 2),  # another thread's
        wait(1200, 5, 5, "after <- it"),
        layers=("syscall", "wait"),
    )
    with open_captures([path], layer="syscall") as capture:
        (found,) = explain_calls(capture, 3)
    assert found.waits is not None
    assert [(wait.place, wait.times, wait.time_ns // US) for wait in found.waits] == [
        ("ran on a CPU", None, 400),
        ("jbd2_log_wait_commit <- ext4_sync_file <- do_fsync", 2, 350),
        ("waited for a CPU", 2, 250),
    ]
    text = render_explained(Explanation(None, (found,)), START_NS, 80)
    assert "350 µs  35.0%      2  jbd2_log_wait_commit <- ext4_sync_file <- do_fsync" in text
    narrow = render_explained(Explanation(None, (found,)), START_NS, 60).splitlines()
    assert any(line.endswith("  jbd2_log_wait_commit") for line in narrow)


def test_all_calls_together_are_the_sum_of_each(tmp_path: Path) -> None:
    rng = random.Random(7)
    places = (None, "folio_wait_bit <- fsync", "schedule <- read", "schedule <- read <- vfs_read")
    rows = []
    for tid in (1, 2, 3):
        at = 0
        for _ in range(100):
            at += rng.randrange(200)
            took = rng.randrange(1000)
            file = rng.choice(["/db", "/db", None])
            rows.append(call(at, took, rng.choice(["read", "fsync"]), tid, file=file))
            waited = at
            for _ in range(rng.randrange(4)):
                waited += rng.randrange(200)
                length = rng.randrange(300)
                woken = rng.choice([None, rng.randrange(-9, length + 1)])  # a clock goes back
                rows.append(wait(waited, length, woken, rng.choice(places), tid))
                waited += length
            at = max(at + took, waited) + 1
    path = capture_of(tmp_path / "run.parquet", *rows, layers=("syscall", "wait"))
    with open_captures([path], layer="syscall") as capture:
        together = explain_all(capture)
        calls = explain_calls(capture, 1000)
    assert together is not None
    assert together.calls == len(calls) > 150
    assert together.time_ns == sum(call.length_ns for call in calls)
    sums: dict[tuple[str, str | None], list[int]] = {}
    for one in calls:
        for part in one.waits or ():
            entry = sums.setdefault((one.op, part.place), [0, 0])
            entry[0] += part.times or 0
            entry[1] += part.time_ns
    assert {(w.op, w.place): [w.times or 0, w.time_ns] for w in together.waits} == sums


def test_calls_for_what_is_no_file_are_not_explained(tmp_path: Path) -> None:
    names = ("pipe", "socket", "char:/dev/tty", None, "7:0:12", "/dev/sda")
    rows = [call(at, 5, "read", at + 1, file=name) for at, name in enumerate(names)]
    path = capture_of(tmp_path / "run.parquet", *rows, layers=("syscall", "wait"))
    with open_captures([path], layer="syscall") as capture:
        assert {found.file for found in explain_calls(capture, 9)} == {"7:0:12", "/dev/sda"}


def test_all_calls_fit_the_width(tmp_path: Path) -> None:
    places = [f"{'f' * number}_wait <- {'c' * 40} <- caller" for number in range(12)]
    path = capture_of(
        tmp_path / "run.parquet",
        call(0, 10_000, "fsync"),
        *(wait(500 * place, 100 + place, None, name) for place, name in enumerate(places)),
        layers=("syscall", "wait"),
    )
    with open_captures([path], layer="syscall") as capture:
        together, calls = explain_all(capture), explain_calls(capture, 1)
    lines = render_explained(Explanation(together, calls), START_NS, 80).splitlines()
    assert lines[0] == "1 call for files, which took 10.0 ms in all:"
    assert lines[2].split() == ["fsync", "8.73", "ms", "87.3%", "-", "(ran", "on", "a", "CPU)"]
    assert max(map(len, lines)) <= 80
    assert lines[10] == "  (5 more: 510 µs)"


def test_an_operation_of_io_uring_owns_what_came_before_the_next_one(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(100, 500, "read", layer="uring"),
        call(200, 100, "read", layer="uring"),
        io(150, 400, op="read"),
        io(250, 40, op="read"),
        layers=("request", "uring"),
    )
    with open_captures([path], layer="uring") as capture:
        first, second = explain_calls(capture, 2)
    assert [(step.relation, step.latency_ns) for step in first.steps] == [("own", 400 * US)]
    assert [(step.relation, step.latency_ns) for step in second.steps] == [("own", 40 * US)]


def test_the_timeline_draws_each_wait_and_io_where_it_was(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(100, 1000, "fsync"),
        call(1200, 100, "pread64"),
        wait(110, 500, 400, "jbd2_log_wait_commit <- ext4_sync_file <- do_fsync"),
        io(150, 300, 3, comm="jbd2/loop0-8"),
        io(120, 20),
        layers=("request", "syscall", "wait"),
    )
    with open_captures([path], layer="syscall") as capture:
        figure = draw(capture, Kind.TIMELINE)
    fsync, read = figure.axes
    assert [label.get_text() for label in fsync.get_yticklabels()] == [
        "fsync",
        "its waits",
        "write 4.0 KiB, loop0",
        "write 4.0 KiB, loop0",
    ]
    drawn = [np.asarray(bars.get_paths()[0].vertices)[:, 0] / US for bars in fsync.collections]
    spans = [(round(places.min()), round(places.max())) for places in drawn]
    # The call, blocked, waiting for a CPU, its own write, and that of the journal.
    assert spans == [(0, 1000), (10, 410), (410, 510), (20, 40), (50, 350)]
    assert [text.get_text() for text in fsync.texts] == [
        "jbd2_log_wait_commit <- ext4_sync_file <- do_fsync"
    ]
    assert len(read.collections) == 1


def test_without_calls_the_timeline_says_so(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(9))
    with open_captures([path]) as capture:
        figure = draw(capture, Kind.TIMELINE)
    assert "No calls for files" in [text.get_text() for text in figure.axes[0].texts]


def test_a_call_that_waits_still_is_told_where(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(100, None, "read"),
        wait(200, None, None, "pipe_read <- vfs_read <- ksys_read"),
        layers=("syscall", "wait"),
    )
    with open_captures([path], layer="syscall") as capture:
        (found,) = explain_calls(capture, 3)
    assert found.waits is not None
    blocked, ran = found.waits
    assert (blocked.time_ns, ran.time_ns) == (found.length_ns - 100 * US, 100 * US)


def test_waits_that_were_lost_are_not_taken_for_running(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(100, 1000, "fsync"),
        layers=("syscall", "wait"),
        counts={"lost": {"ring_full": 3}},
    )
    with open_captures([path], layer="syscall") as capture:
        (found,) = explain_calls(capture, 3)
    assert found.waits is not None
    assert [wait.place for wait in found.waits] == [RAN_OR_LOST]


def causes(path: Path) -> dict[tuple[Any, Any], int]:
    with open_captures([path]) as capture:
        groups = capture.summary(by="cause").groups
        return {(group.key["cause"], group.key["call"]): group.ios for group in groups}


def test_every_cause_is_told_by_its_thread(tmp_path: Path) -> None:
    path = capture_of(
        tmp_path / "run.parquet",
        call(100, 100, "fsync"),
        call(300, 100, "io_uring_enter"),
        call(500, 100, "io_submit"),
        call(310, 500, "read", layer="uring"),
        io(99, 5),  # before
        io(100, 5),  # at its begin
        io(200, 5),  # at its end
        io(201, 5),  # after
        io(320, 5),  # of the ring
        io(510, 5),  # of the ring, which is still busy
        io(900, 5, 3, comm="jbd2/loop0-8"),
        io(901, 5, 4, comm="kworker/u8:3", file="/db"),
        io(902, 5, 5, comm="kworker/u8:3", above="loop3"),
        io(903, 5, 6, comm="iou-wrk-7"),
        io(904, 5, None, comm=None),
        layers=("request", "syscall", "uring"),
    )
    assert causes(path) == {
        ("other", ""): 2,
        ("syscall", "fsync"): 2,
        ("uring", "read"): 2,
        ("journal", ""): 1,
        ("writeback", ""): 1,
        ("loop", ""): 1,
        ("uring", ""): 1,
        (None, ""): 1,
    }


def test_without_all_calls_it_is_not_said_that_there_was_none(tmp_path: Path) -> None:
    path = capture_of(tmp_path / "run.parquet", io(10, 5), layers=("request",))
    assert causes(path) == {(None, ""): 1}


def test_causes_of_many_ios_are_those_of_a_second_way(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    rows = []
    for tid in range(1, 20):
        at = 0
        for _ in range(30):
            at += int(rng.integers(1, 50))
            took = int(rng.integers(1, 50))
            rows.append(call(at, took, str(rng.choice(["fsync", "read"])), tid))
            at += took + 1
    calls = list(rows)
    rows += [io(int(rng.integers(0, 3000)), 5, int(rng.integers(1, 22))) for _ in range(2000)]
    path = capture_of(tmp_path / "run.parquet", *rows, layers=("request", "syscall"))
    expected: dict[tuple[str | None, str], int] = {}
    for row in rows[len(calls) :]:
        inside = [
            one["op"]
            for one in calls
            if one["tid"] == row["tid"] and one["at"] <= row["at"] <= one["at"] + one["took"]
        ]
        key = ("syscall", inside[0]) if inside else ("other", "")
        expected[key] = expected.get(key, 0) + 1
    assert causes(path) == expected
    assert len(expected) == 3
