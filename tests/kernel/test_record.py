# SPDX-License-Identifier: GPL-2.0-only
"""Recordings of known workloads against what the kernel and the workload themselves count."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.csv
import pytest

from tests.kernel.captures import (
    Capture,
    assert_accounts_close,
    missed_completions,
    read_capture,
)
from tests.kernel.conftest import (
    DEVICE_BYTES,
    IOREC,
    WORKLOADS,
    LoopDevice,
    run,
    start_recording,
    stop_recording,
)
from tests.kernel.load import running_load
from tests.kernel.mounts import mounted_ext4

Record = Callable[..., Capture]

READS, WRITES = 20_011, 10_007
PYTHON = Path(sys.executable).name[:15]


def direct(reads: int, writes: int, loop: LoopDevice, expected: Path, *more: str) -> list[str]:
    program = [sys.executable, str(WORKLOADS / "direct.py")]
    return [*program, str(reads), str(writes), loop.path, str(expected), *more]


def assert_rows_match(capture: Capture, loop: LoopDevice, expected: Path) -> None:
    """The workload's rows, but for completions that no program saw; udev may have read, too."""
    done = Counter(tuple(io) for io in json.loads(expected.read_text()))
    rows = capture.rows(device=loop.name, comm=PYTHON)
    found = Counter((r["op"], r["offset"], r["bytes"]) for r in rows if r["bytes"])
    assert found <= done
    assert (done - found).total() <= missed_completions(capture, loop.name)


def test_every_direct_io_is_one_row_with_its_offset_and_size(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    expected = ram_folder / "expected.json"
    capture = record("-d", loop.name, "--", *direct(READS, WRITES, loop, expected))
    rows = capture.rows(device=loop.name)
    stats_of = capture.metadata["diskstats"][loop.name]
    missed, missed_bytes = missed_by_op(capture, loop)
    by_workload = Counter(row["op"] for row in rows if row["comm"] == PYTHON)
    assert READS - missed["read"] <= by_workload["read"] <= READS
    assert WRITES - missed["write"] <= by_workload["write"] <= WRITES
    assert_rows_match(capture, loop, expected)
    assert_accounts_close(capture, loop.name)
    for op, stats in stats_of.items():
        assert stats["ios"] == sum(row["op"] == op for row in rows) + missed[op]
        in_rows = sum(row["bytes"] for row in rows if row["op"] == op)
        assert stats["bytes"] == in_rows + missed_bytes[op]
    assert sum(row["lost"] for row in capture.counts["devices"]) == sum(missed.values())
    assert all(row["latency_ns"] is not None for row in rows)


def test_rows_carry_submitter_times_and_result(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    capture = record("--", *direct(101, 0, loop, ram_folder / "expected.json"))
    rows = capture.rows(device=loop.name, comm=PYTHON)
    assert len(rows) == 101
    assert len({row["pid"] for row in rows}) == 1
    for row in rows:
        assert row["tid"] == row["pid"]
        assert row["cgroup"].startswith("/")
        assert row["errno"] == 0
        assert row["layer"] == "request"
        assert row["cpu"] in range(os.cpu_count() or 1)
        assert 0 < row["queue_ns"] <= row["latency_ns"] < 10**9
    started = nanoseconds_of(capture.metadata["started_at"])
    stopped = nanoseconds_of(capture.metadata["stopped_at"])
    times = capture.table["time"].cast("int64").to_pylist()
    assert started <= min(times) <= max(times) <= stopped
    assert times == sorted(times)


def missed_by_op(capture: Capture, loop: LoopDevice) -> tuple[Counter[str], Counter[str]]:
    """Completions that no program saw, and their bytes, by diskstats group."""
    ledgers = [entry for entry in capture.counts["devices"] if entry["device"] == loop.name]
    ops = {entry["op"] for entry in ledgers}
    return (
        Counter({op: missed_completions(capture, loop.name, op=op) for op in ops}),
        Counter({entry["op"]: entry["missed_bytes"] for entry in ledgers}),
    )


def nanoseconds_of(text: str) -> int:
    """Nanoseconds since the epoch, by a reader that is not ours."""
    return int(run("date", "-d", text, "+%s%N", capture_output=True).stdout)


@pytest.mark.parametrize("scheduler", ["none", "mq-deadline", "bfq", "kyber"])
def test_flush_sequences_count_as_the_kernel_counts_them(
    record: Record, loop: LoopDevice, ram_folder: Path, scheduler: str
) -> None:
    loop.set_queue("scheduler", scheduler)
    expected = ram_folder / "expected.json"
    capture = record("--", *direct(211, 503, loop, expected, "O_DSYNC"))
    assert_rows_match(capture, loop, expected)
    assert_accounts_close(capture, loop.name)
    stats = capture.metadata["diskstats"][loop.name]
    missed, missed_bytes = missed_by_op(capture, loop)
    assert stats["flush"]["ios"] >= 503
    flushes = capture.rows(device=loop.name, op="cache_flush")
    assert len(flushes) + missed["flush"] == stats["flush"]["ios"]
    assert all(row["offset"] is None and row["bytes"] == 0 for row in flushes)
    assert all(row["latency_ns"] > 0 and row["pid"] is None for row in flushes)
    # What was asked to be flushed is a write of 0 bytes there.
    asked = capture.rows(device=loop.name, op="flush")
    assert all(row["offset"] is None and row["bytes"] == 0 for row in asked)
    assert all(row["pid"] is not None for row in asked)
    writes = capture.rows(device=loop.name, op="write")
    assert len(writes) + len(asked) + missed["write"] == stats["write"]["ios"]
    written = sum(row["bytes"] for row in writes)
    assert written + missed_bytes["write"] == stats["write"]["bytes"]
    assert min(row["bytes"] for row in writes) > 0


@pytest.mark.parametrize("layer", ["request", "bio"])
def test_an_fsync_is_one_wait_of_its_process(record: Record, loop: LoopDevice, layer: str) -> None:
    script = f"""
import os
fd = os.open({loop.path!r}, os.O_RDWR)
for _ in range(101):
    os.fsync(fd)
"""
    capture = record("-l", layer, "-d", loop.name, "--", sys.executable, "-c", script)
    asked = capture.rows(op="flush")
    assert len(asked) == 101
    assert len({row["pid"] for row in asked} - {None}) == 1
    assert len(capture.rows(op="cache_flush")) == (101 if layer == "request" else 0)
    assert not capture.rows(op="write")
    only_asked = record(
        "-l", layer, "-d", loop.name, "--op", "flush", "--", sys.executable, "-c", script
    )
    assert {row["op"] for row in only_asked.rows()} == {"flush"}


@pytest.mark.parametrize("scheduler", ["none", "mq-deadline", "bfq"])
def test_splits_and_merges_agree_with_diskstats(
    record: Record, loop: LoopDevice, scheduler: str
) -> None:
    loop.set_queue("scheduler", scheduler)
    capture = record(
        "--",
        "sh",
        "-c",
        f"dd if=/dev/zero of={loop.path} bs=8M count=16 oflag=direct && "
        f"dd if=/dev/zero of={loop.path} bs=4k count=20000 conv=fsync && "
        f"dd if={loop.path} of=/dev/null bs=64k iflag=direct count=500",
    )
    stats = capture.metadata["diskstats"][loop.name]
    missed, missed_bytes = missed_by_op(capture, loop)
    for op in ("read", "write"):
        rows = capture.rows(device=loop.name, op=op)
        if op == "write":
            rows += capture.rows(device=loop.name, op="flush")  # which diskstats counts there
        assert len(rows) + missed[op] == stats[op]["ios"] > 0
        assert sum(row["bytes"] for row in rows) + missed_bytes[op] == stats[op]["bytes"]
    written = sum(row["bytes"] for row in capture.rows(device=loop.name, op="write"))
    assert written + missed_bytes["write"] == (16 << 23) + 20_000 * 4096
    assert_accounts_close(capture, loop.name)


def test_discards_and_zeroed_ranges_are_rows_of_their_own(record: Record, loop: LoopDevice) -> None:
    capture = record(
        "--",
        "sh",
        "-c",
        f"blkdiscard -o 1M -l 3M {loop.path} && blkdiscard -z -o 8M -l 2M {loop.path}",
    )
    (discard,) = capture.rows(device=loop.name, op="discard")
    assert (discard["offset"], discard["bytes"]) == (1 << 20, 3 << 20)
    zeroed = capture.rows(device=loop.name, op="write_zeroes")
    assert sum(row["bytes"] for row in zeroed) == 2 << 20
    assert_accounts_close(capture, loop.name)


def test_errors_have_the_errno_that_the_program_saw(
    record: Record, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    small = ram_folder / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1M", "none", small)
    loop = make_loop(8 << 20, folder=small)
    log = ram_folder / "log"
    write = f"dd if=/dev/zero of={loop.path} bs=4k count=512 oflag=direct 2>{log}"
    try:
        capture = record("--", "sh", "-c", write)
    finally:
        run("losetup", "-d", loop.path)
        run("umount", small)
    failed = [row for row in capture.rows(device=loop.name) if row["errno"]]
    assert capture.status == 1
    assert {row["op"] for row in failed} == {"write"}
    assert {os.strerror(row["errno"]) in log.read_text() for row in failed} == {True}
    assert f"lost, {len(failed)} failed\n" in capture.stderr
    assert_accounts_close(capture, loop.name)


def test_an_io_that_hangs_is_a_row_without_latency(
    record: Record, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    lower = make_loop()
    run("mkfs.ext4", "-q", lower.path)
    mount = ram_folder / "mount"
    mount.mkdir()
    run("mount", lower.path, mount)
    try:
        upper = make_loop(16 << 20, folder=mount)
        recording = start_recording(ram_folder / "hung.parquet", "-d", upper.name)
        run("fsfreeze", "-f", mount)
        write = ["dd", "if=/dev/zero", f"of={upper.path}", "bs=4k", "count=1", "seek=7"]
        writer = subprocess.Popen([*write, "oflag=direct"], stderr=subprocess.DEVNULL)
        try:
            time.sleep(0.5)
            stop_recording(recording)
            later = record("-d", upper.name, "--duration", "300ms")
        finally:
            run("fsfreeze", "-u", mount)
        writer.wait()
        run("losetup", "-d", upper.path)
    finally:
        run("umount", mount)
    capture = read_capture(ram_folder / "hung.parquet")
    (row,) = [row for row in capture.rows() if row["latency_ns"] is None]
    assert (row["op"], row["offset"], row["bytes"]) == ("write", 7 * 4096, 4096)
    assert (row["pid"], row["comm"], row["errno"]) == (writer.pid, "dd", None)
    assert row["queue_ns"] > 0
    assert capture.counts["in_flight_at_stop"] == 1
    assert later.counts["in_flight_at_start"] >= 1  # of all devices


def test_a_write_that_waits_for_its_flush_is_in_flight(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    """Its data are in the page cache of the file system below, whose disk hangs."""
    lowest = make_loop()
    mounts = [ram_folder / name for name in ("frozen", "mount")]
    with mounted_ext4(lowest, mounts[0]):
        lower = make_loop(64 << 20, folder=mounts[0])
        with mounted_ext4(lower, mounts[1]):
            upper = make_loop(4 << 20, folder=mounts[1])
            write = ["dd", "if=/dev/zero", f"of={upper.path}", "oflag=direct,dsync"]
            run(*write, "bs=1M", "count=4", stderr=subprocess.DEVNULL)
            run("sync", "-f", mounts[1])
            recording = start_recording(ram_folder / "hung.parquet", "-d", upper.name)
            run("fsfreeze", "-f", mounts[0])
            try:
                writer = subprocess.Popen(
                    [*write, "bs=4k", "count=1", "conv=notrunc"], stderr=subprocess.DEVNULL
                )
                time.sleep(0.5)
                stop_recording(recording)
            finally:
                run("fsfreeze", "-u", mounts[0])
            writer.wait()
            run("losetup", "-d", upper.path)
        run("losetup", "-d", lower.path)
    capture = read_capture(ram_folder / "hung.parquet")
    (row,) = [row for row in capture.rows(op="write") if row["latency_ns"] is None]
    assert (row["pid"], row["bytes"]) == (writer.pid, 4096)
    assert capture.counts["lost"]["missed_completion"] == 0


def test_devices_that_come_and_go_while_recording_keep_their_names(
    record: Record, ram_folder: Path
) -> None:
    backing = ram_folder / "late"
    with backing.open("wb") as file:
        file.truncate(8 << 20)
    script = (
        f"L=$(losetup -f --show {backing}) && echo $L > {ram_folder}/name && "
        "dd if=$L of=/dev/null bs=4k count=100 iflag=direct && losetup -d $L"
    )
    capture = record("--", "sh", "-c", script)
    name = (ram_folder / "name").read_text().strip().removeprefix("/dev/")
    rows = [row for row in capture.rows(device=name, op="read") if row["comm"] == "dd"]
    assert len(rows) == 100


def test_partitions_are_named(record: Record, make_loop: Callable[..., LoopDevice]) -> None:
    loop = make_loop(DEVICE_BYTES, "-P")
    run("addpart", loop.path, 1, 2048, 65536)
    run("addpart", loop.path, 2, 67584, 65536)
    try:
        part = f"{loop.name}p2"
        work = ["dd", f"if=/dev/{part}", "of=/dev/null", "bs=4k", "count=10", "iflag=direct"]
        capture = record("--", *work)
        filtered = record("-d", part, "--", *work)
        other = record("-d", f"{loop.name}p1", "--", *work)
    finally:
        run("delpart", loop.path, 1)
        run("delpart", loop.path, 2)
    rows = capture.rows(device=loop.name, partition=part)
    assert [row["offset"] for row in rows] == [67584 * 512 + 4096 * i for i in range(10)]
    assert len(filtered.rows()) == 10
    assert other.rows() == []


def test_an_output_on_what_is_recorded_is_warned_of(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    loop = make_loop(DEVICE_BYTES, "-P")
    run("addpart", loop.path, 1, 2048, 262144)
    run("addpart", loop.path, 2, 264192, 65536)
    try:
        part = replace(loop, path=f"{loop.path}p1")
        with mounted_ext4(part, ram_folder / "mount") as mount:
            for part_name, is_warned in (("", True), ("p1", True), ("p2", False)):
                device = f"{loop.name}{part_name}"
                options = ["-f", "-d", device, "--duration", "10ms"]
                done = run(
                    IOREC, "record", "-o", mount / "x.parquet", *options, capture_output=True
                )
                last = done.stderr.splitlines()[-1]
                assert ("which was recorded" in last) == is_warned, device
                assert done.stderr.count("which was recorded") == is_warned
                assert not is_warned or re.search(r"the [1-9]\S* \w+ that the recorder wrote", last)
    finally:
        run("delpart", loop.path, 1)
        run("delpart", loop.path, 2)


def test_filters_are_decided_by_submitter_device_and_op(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    work = ["--", *direct(53, 31, loop, ram_folder / "expected.json", "O_DSYNC")]
    assert {r["op"] for r in record("-d", loop.name, "--op", "read", *work).rows()} == {"read"}
    by_name = record("-c", PYTHON, "-d", loop.path, *work)
    assert len([r for r in by_name.rows() if r["bytes"]]) == 53 + 31
    assert {r["comm"] for r in by_name.rows()} == {PYTHON}
    assert record("-c", "nobody", *work).rows() == []
    slow = record("--min-latency", "1h", *work)
    assert slow.rows(device=loop.name) == []
    assert slow.counts["filtered"] >= 53 + 31
    for capture in (by_name, slow):
        assert_accounts_close(capture, loop.name)


def test_what_is_in_flight_at_the_end_must_have_taken_as_long_as_was_asked(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    recording = start_recording(output, "-d", loop.name, "--min-latency", "1h")
    with running_load(loop, "--rw=randread", "--iodepth=64"):
        time.sleep(0.3)
        stop_recording(recording)
    capture = read_capture(output)
    assert capture.rows() == []
    assert capture.counts["in_flight_at_stop"] == 0
    assert capture.counts["filtered"] > 1000


def test_a_process_is_recorded_alone(loop: LoopDevice, ram_folder: Path) -> None:
    reader = ["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", "iflag=direct"]
    wanted = subprocess.Popen(
        ["sh", "-c", f"read go; exec {' '.join(reader)} count=70"], stdin=subprocess.PIPE
    )
    output = ram_folder / "run.parquet"
    recording = start_recording(output, "-p", str(wanted.pid))
    run(*reader, "count=50", capture_output=True)
    wanted.communicate(b"go\n")
    stop_recording(recording)
    assert {r["pid"] for r in read_capture(output).rows()} == {wanted.pid}
    assert len(read_capture(output).rows(device=loop.name)) == 70


def test_a_cgroup_is_recorded_with_those_below_it(
    record: Record, loop: LoopDevice, cgroup: Path
) -> None:
    child = cgroup / "child"
    child.mkdir()
    read = f"dd if={loop.path} of=/dev/null bs=4k iflag=direct"
    script = f"{read} count=20; echo $$ > {child}/cgroup.procs; {read} count=30"
    capture = record("--cgroup", cgroup, "--", "sh", "-c", script)
    rows = capture.rows(device=loop.name, comm="dd")
    assert len(rows) == 30
    assert {row["cgroup"] for row in rows} == {f"/{cgroup.name}/child"}


def test_count_stops_after_exactly_so_many(record: Record, loop: LoopDevice) -> None:
    read = ["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", "iflag=direct", "count=5000"]
    capture = record("-d", loop.name, "-n", "997", "--", *read)
    # Besides them, there is what is in flight in that moment.
    assert sum(row["latency_ns"] is not None for row in capture.rows()) == 997
    assert_accounts_close(capture, loop.name)


def test_duration_and_signals_stop_a_recording(ram_folder: Path, record: Record) -> None:
    started = time.monotonic()
    assert record("--duration", "500ms").status == 0
    assert time.monotonic() - started < 10
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        output = ram_folder / f"{number}.parquet"
        recording = start_recording(output)
        recording.send_signal(number)
        assert recording.wait(20) == 0
        assert read_capture(output).metadata["complete"]


def test_the_workloads_status_is_the_status_of_record(record: Record) -> None:
    assert record("--", "sh", "-c", "exit 7").status == 7
    assert record("--", "sh", "-c", "kill -9 $$").status == 137
    workload = record("--", "true").metadata["workload"]
    assert workload == {"argv": ["true"], "exit_status": 0}


def test_a_command_that_does_not_end_is_killed_at_the_second_signal(ram_folder: Path) -> None:
    output, pid = ram_folder / "x.parquet", ram_folder / "pid"
    script = f"trap '' TERM; echo $$ > {pid}; while :; do sleep 0.1; done"
    recording = start_recording(output, "--", "sh", "-c", script)
    time.sleep(0.5)
    recording.send_signal(signal.SIGTERM)
    while not output.exists():
        time.sleep(0.05)
    time.sleep(0.5)
    assert recording.poll() is None
    recording.send_signal(signal.SIGTERM)
    assert recording.wait(20) == 0
    time.sleep(0.1)
    ps = ["ps", "-o", "stat=", "-p", pid.read_text().strip()]
    state = subprocess.run(ps, capture_output=True, text=True, check=False).stdout
    assert state[:1] in ("", "Z")


@pytest.mark.parametrize("suffix", ["csv", "csv.gz"])
def test_csv_holds_the_same_columns(
    loop: LoopDevice, ram_folder: Path, record: Record, suffix: str
) -> None:
    output = ram_folder / f"run.{suffix}"
    expected = ram_folder / "expected.json"
    run(IOREC, "record", "-o", output, "--", *direct(101, 103, loop, expected))
    table = pyarrow.csv.read_csv(output)
    parquet = record("--", "true").table
    assert table.column_names == parquet.column_names
    done = Counter(tuple(io) for io in json.loads(expected.read_text()))
    rows = [row for row in table.to_pylist() if (row["device"], row["comm"]) == (loop.name, PYTHON)]
    assert Counter((r["op"], r["offset"], r["bytes"]) for r in rows) == done
    assert json.loads((ram_folder / "run.meta.json").read_text())["counts"]["recorded"] >= 204


def test_verbose_programs_print_to_the_trace(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    tracing = ram_folder / "tracing"
    tracing.mkdir()
    run("mount", "-t", "tracefs", "none", tracing)
    try:
        read = ["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", "count=7", "iflag=direct"]
        # What others print, on a busy machine, would soon take the place of these lines.
        find = ["grep", "-a", "-m", "7", "submit comm=dd", str(tracing / "trace_pipe")]
        with subprocess.Popen(find, stdout=subprocess.PIPE, text=True) as reader:
            capture = record("-v", "-d", loop.name, "--", *read)
            try:
                trace, _ = reader.communicate(timeout=30)
            finally:
                reader.kill()
    finally:
        run("umount", tracing)
    assert "trace_pipe" in capture.stderr
    assert trace.count("submit comm=dd") == 7


def test_the_end_says_who_waited_and_for_what_unless_asked_to_be_quiet(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    work = ["--", *direct(503, 0, loop, ram_folder / "expected.json")]
    said = record("-d", loop.name, *work).stderr
    assert f"\nI/O time: {PYTHON} (" in said
    assert f"\nslowest device: {loop.name}, p99 " in said
    assert record("-d", loop.name, "-q", *work).stderr == ""
    assert "I/O time" not in record("-d", loop.name, "-c", "nobody", *work).stderr
