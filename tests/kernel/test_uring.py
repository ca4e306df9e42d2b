# SPDX-License-Identifier: GPL-2.0-only
"""Operations of io_uring: as many rows as fio counts, however they are submitted and completed."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analyze.capture import open_captures
from iorec.kernel.btf import KernelTypes
from tests.kernel.captures import Capture, accounted, assert_layers_close
from tests.kernel.conftest import WORKLOADS, LoopDevice
from tests.kernel.load import json_of
from tests.kernel.mounts import mounted_ext4

Record = Callable[..., Capture]


@pytest.fixture
def files(make_loop: Callable[..., LoopDevice], tmp_path: Path) -> Iterator[Path]:
    """A folder whose files have paths, on any machine."""
    with mounted_ext4(make_loop(), tmp_path / "files") as folder:
        yield folder


def shows_requests() -> bool:
    """Whether a completion shows its request, since Linux 6.0."""
    with KernelTypes() as kernel:
        return kernel.find_arguments("io_uring_complete")[1:2] == ("void *",)


pytestmark = pytest.mark.skipif(
    not shows_requests(), reason="this kernel does not show which operation of io_uring has ended"
)

# By name: options of fio.
WAYS = {
    "at once": ("--direct=1", "--iodepth=32"),
    "with syncs": ("--rw=randwrite", "--fsync=16", "--iodepth=8"),
    "fixed": ("--direct=1", "--iodepth=32", "--fixedbufs", "--registerfiles"),
    "by a thread of the kernel": ("--direct=1", "--iodepth=8", "--sqthread_poll"),
    "by workers": ("--iodepth=4", "--force_async=1"),
    "in two jobs": ("--direct=1", "--rw=randrw", "--iodepth=64", "--numjobs=2"),
}


def run_fio(record: Record, folder: Path, target: Path | str, *options: str) -> Any:
    """A capture of fio's work, and the jobs as fio counts them."""
    out = folder / "fio.json"
    capture = record(
        *("-l", "uring", "--", "fio", "--name=x", f"--filename={target}", "--size=16M"),
        *("--rw=randread", "--bs=4k", "--ioengine=io_uring", "--thread", *options),
        *("--output-format=json", f"--output={out}"),
    )
    assert capture.status == 0, capture.stderr
    return capture, json_of(out.read_text())["jobs"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["file", "device"])
def test_there_are_as_many_rows_as_fio_counts(
    way: str, kind: str, record: Record, files: Path, loop: LoopDevice
) -> None:
    target = files / "data" if kind == "file" else loop.path
    capture, jobs = run_fio(record, files, target, *WAYS[way])
    assert_layers_close(capture)
    assert not any(capture.counts["lost"].values()), capture.counts["lost"]
    rows = capture.rows(layer="uring", file=str(target))
    seen = Counter(row["op"].removesuffix("_fixed") for row in rows)
    assert seen["read"] == sum(job["read"]["total_ios"] for job in jobs)
    assert seen["write"] == sum(job["write"]["total_ios"] for job in jobs)
    assert seen["fsync"] == sum(job["sync"]["total_ios"] for job in jobs)
    moving = [row for row in rows if row["op"] != "fsync"]
    assert {(row["bytes"], row["result"], row["errno"]) for row in moving} == {(4096, 4096, 0)}
    assert all(row["offset"] % 4096 == 0 and row["offset"] < 16 << 20 for row in moving)
    told = {flag for row in rows for flag in row["flags"].split("|")}
    assert ("fixed_file" in told) == (way in ("fixed", "by a thread of the kernel"))
    assert ("sqpoll" in told) == (way == "by a thread of the kernel")
    if way == "by workers":
        assert all(row["queue_ns"] is not None and "async" in row["flags"] for row in moving)
    assert all(row["queue_ns"] is None or row["queue_ns"] <= row["latency_ns"] for row in rows)


def test_offsets_and_sizes_are_those_that_were_asked_for(
    record: Record, files: Path, loop: LoopDevice
) -> None:
    capture, _ = run_fio(
        *(record, files, loop.path, "--direct=1", "--rw=read", "--bs=64k", "--iodepth=1")
    )
    rows = sorted(capture.rows(file=loop.path), key=lambda row: row["time"])
    assert [row["offset"] for row in rows] == list(range(0, 16 << 20, 64 << 10))
    assert {row["bytes"] for row in rows} == {64 << 10}


def test_what_found_no_room_is_counted(record: Record, files: Path, loop: LoopDevice) -> None:
    capture, jobs = run_fio(*(record, files, loop.path, "--direct=1", "--iodepth=32", "--loops=8"))
    assert_layers_close(capture)
    small = record(
        *("-B", "4K", "-l", "uring", "--", "fio", "--name=x", f"--filename={loop.path}"),
        *("--size=16M", "--rw=randread", "--bs=4k", "--ioengine=io_uring", "--direct=1"),
        *("--iodepth=64", "--loops=8"),
        name="small.parquet",
    )
    counts = small.counts["layers"]["uring"]
    assert counts["completions"] == accounted(counts)
    ours = [entry for entry in small.counts["devices"] if entry["op"] == "read"]
    asked = sum(job["read"]["total_ios"] for job in jobs)
    assert sum(entry["recorded"] + entry["lost"] for entry in ours) >= asked


def test_a_report_of_operations_is_by_their_names(
    record: Record, files: Path, ram_folder: Path, loop: LoopDevice
) -> None:
    _, jobs = run_fio(record, files, loop.path, "--direct=1", "--rw=randrw", "--fixedbufs")
    with open_captures([ram_folder / "run.parquet"]) as capture:
        summary = capture.summary(by=("op", "file"))
        (reads,) = (
            group
            for group in summary.groups
            if group.key == {"op": "read_fixed", "file": loop.path}
        )
    assert reads.ios == reads.reads == jobs[0]["read"]["total_ios"]
    assert reads.read_bytes == 4096 * reads.ios


def record_ring(record: Record, folder: Path, scenario: str) -> Capture:
    """A capture of a scenario of workloads/ring.py."""
    ring = sys.executable, WORKLOADS / "ring.py", scenario, folder
    capture = record("-l", "uring", "-c", "python3", "--", *ring)
    assert capture.status == 0, capture.stderr
    assert_layers_close(capture)
    return capture


def run_ring(record: Record, folder: Path, scenario: str) -> list[dict[str, Any]]:
    """The operations of a scenario, in their order; none may be lost."""
    capture = record_ring(record, folder, scenario)
    assert not any(capture.counts["lost"].values()), capture.counts["lost"]
    # Not by its command line, which nobody may have read before it ended.
    rows = capture.rows(pid=int((folder / "pid").read_text()))
    assert all(row["latency_ns"] is not None for row in rows)
    return sorted(rows, key=lambda row: row["time"])


def test_an_operation_without_a_file_names_none(record: Record, tmp_path: Path) -> None:
    rows = run_ring(record, tmp_path, "operations_without_a_file")
    assert Counter(row["op"] for row in rows) == {"read": 5, "nop": 5, "openat": 5}
    for row in rows:
        expected = str(tmp_path / "data") if row["op"] == "read" else None
        assert row["file"] == expected
        assert (row["fd"] is None) == (row["op"] != "read")


def test_a_file_that_a_linked_operation_opens_is_not_taken_for_the_one_before(
    record: Record, tmp_path: Path
) -> None:
    rows = run_ring(record, tmp_path, "file_opened_by_the_one_before")
    reads = [row for row in rows if row["op"] == "read"]
    assert [row["file"] for row in reads] == [str(tmp_path / "data"), None]
    assert [row["result"] for row in reads] == [11, 0]


def test_a_send_that_completes_twice_is_one_row_with_what_it_sent(
    record: Record, tmp_path: Path
) -> None:
    rows = run_ring(record, tmp_path, "zero_copy")
    assert [row["result"] for row in rows] == list(range(100, 107))


def test_a_write_to_the_end_of_a_file_has_no_offset(record: Record, tmp_path: Path) -> None:
    rows = run_ring(record, tmp_path, "append")
    assert [(row["result"], row["offset"]) for row in rows] == [(13, None), (14, 5)]


def test_what_found_no_room_in_its_queue_has_no_end_of_another_operation(
    record: Record, tmp_path: Path
) -> None:
    capture = record_ring(record, tmp_path, "overflow")
    assert capture.counts["left_out"]["overflowed"] >= 64  # also of others
    assert capture.counts["left_out"]["skipped"] >= 64
    rows = capture.rows(op="nop")
    assert {row["result"] for row in rows} <= {0, None}
    ended = sum(row["result"] == 0 for row in rows)
    unseen = capture.counts["lost"]["missed_completion"] + capture.counts["in_flight_at_stop"]
    assert (ended, unseen) == (128, 64)
