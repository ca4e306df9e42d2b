# SPDX-License-Identifier: GPL-2.0-only
"""Waits of threads in system calls: where each is, and that the kernel counts as many."""

import json
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.captures import Capture, assert_layers_close, read_capture
from tests.kernel.conftest import IOREC, LoopDevice, python, run, start_recording, stop_recording
from tests.kernel.mounts import mounted_ext4

Record = Callable[..., Capture]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the layer needs the layer syscall"
)

# Reads zeros, each call for long, on the first CPU beside a hog; tells what the kernel has counted.
RUN_AND_WAIT = """
import os, subprocess, sys
def delay_ns():
    return int(open("/proc/self/schedstat").read().split()[1])
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
hog = subprocess.Popen([sys.executable, "-c", "while True: pass"])
zero, page = os.open("/dev/zero", os.O_RDONLY), bytearray(32 << 20)
before = delay_ns()
for _ in range(100):
    os.readv(zero, [page])
open(sys.argv[1], "w").write(str(delay_ns() - before))
hog.kill()
"""
# Makes files durable; tells how often it was switched away meanwhile.
SYNC = """
import os, resource, sys
fd = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
before = resource.getrusage(resource.RUSAGE_SELF)
for number in range(101):
    os.pwrite(fd, bytes(4096), number * 8192)
    os.fsync(fd)
after = resource.getrusage(resource.RUSAGE_SELF)
open(sys.argv[2], "w").write(str(after.ru_nvcsw - before.ru_nvcsw))
"""


def waits_of(capture: Capture, pid: int, **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in capture.rows(layer="wait", **wanted) if row["pid"] == pid]


def reader_of(capture: Capture, op: str) -> int:
    """The process that made the most of these calls."""
    pids = [row["pid"] for row in capture.rows(layer="syscall", op=op)]
    return int(max(set(pids), key=pids.count))


def test_each_fsync_is_taken_apart_and_every_switch_is_a_row(
    record: Record, loop: LoopDevice, ram_folder: Path, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    with mounted_ext4(loop, tmp_path / "files") as folder:
        capture = record(
            *("-l", "syscall,wait,request", "--syscall", "pwrite64,fsync", "--"),
            *python(SYNC, folder / "data", told),
        )
    assert_layers_close(capture)
    assert not any(capture.counts["lost"].values()), capture.counts["lost"]
    pid = reader_of(capture, "fsync")
    blocked = waits_of(capture, pid, op="blocked")
    assert len(blocked) == int(told.read_text())
    places = {row["wait"].split(" <- ")[0] for row in blocked}
    assert "jbd2_log_wait_commit" in places, places
    assert all(0 <= row["queue_ns"] <= row["latency_ns"] for row in blocked)
    done = run(
        *(IOREC, "explain", ram_folder / "run.parquet", "--slowest", 50, "--json"),
        *("--where", "op = 'fsync'"),
        capture_output=True,
    )
    calls = json.loads(done.stdout)["calls"]
    assert len(calls) == 50
    for call in calls:
        waited_ns = sum(wait["time_ns"] for wait in call["waits"])
        assert waited_ns == pytest.approx(call["latency_ns"], rel=0.02)


def test_waiting_for_a_cpu_is_what_the_kernel_counts(record: Record, tmp_path: Path) -> None:
    """/proc/PID/schedstat: how long it waited to run; nearly all of it in its calls."""
    told = tmp_path / "told"
    work = python(RUN_AND_WAIT, told)
    capture = record("-l", "syscall,wait", "--syscall", "readv", "--", *work)
    rows = waits_of(capture, reader_of(capture, "readv"))
    found_ns = sum(row["latency_ns"] - row["queue_ns"] for row in rows)
    assert found_ns == pytest.approx(int(told.read_text()), rel=0.1)
    assert {(row["op"], row["wait"]) for row in rows if row["op"] == "preempted"} == {
        ("preempted", None)
    }


def where_it_waits(pid: int) -> str:
    """The function, by /proc/PID/wchan; returns when it reads from a pipe."""
    deadline = time.monotonic() + 60
    while "pipe_read" not in (wchan := Path(f"/proc/{pid}/wchan").read_text()):
        assert time.monotonic() < deadline, wchan
        time.sleep(0.05)
    return wchan


def test_a_read_that_waits_is_there_when_recording_stops(ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    recorder = start_recording(output, "-l", "syscall,wait")
    with subprocess.Popen(python("import os; os.read(0, 1)"), stdin=subprocess.PIPE) as reader:
        wchan = where_it_waits(reader.pid)
        stop_recording(recorder)
        reader.kill()
    done = run(IOREC, "report", output, "-l", "wait", "--json", capture_output=True)
    listed = json.loads(done.stdout)["in_flight"]["shown"]
    (waiting,) = (row for row in listed if row["pid"] == reader.pid)
    assert (waiting["op"], waiting["wait"].split(" <- ")[0]) == ("blocked", wchan)


def test_one_that_is_killed_in_its_call_waits_no_longer(ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    recorder = start_recording(output, "-l", "syscall,wait")
    with subprocess.Popen(python("import os; os.read(0, 1)"), stdin=subprocess.PIPE) as reader:
        where_it_waits(reader.pid)
        time.sleep(0.6)
        os.kill(reader.pid, signal.SIGKILL)
        reader.wait()
    stop_recording(recorder)
    done = run(IOREC, "report", output, "-l", "wait", "--json", capture_output=True)
    document = json.loads(done.stdout)
    assert reader.pid not in [row["pid"] for row in document["in_flight"]["shown"]]
    groups = document["summary"]["groups"]
    (group,) = (one for one in groups if one["key"]["pid"] == reader.pid)
    assert group["latency"]["max_ns"] > 500_000_000


def test_a_kernel_that_hides_its_functions_has_no_waits(ram_folder: Path) -> None:
    hide = (
        'sed "s/^[0-9a-f]*/0000000000000000/" /proc/kallsyms >hidden'
        ' && mount --bind hidden /proc/kallsyms && exec "$@"'
    )
    before = ("unshare", "-m", "sh", "-c", hide, "sh", IOREC, "record")
    argv = (*before, "-l", "all", "-o", "all.parquet", "--", "true")
    done = run(*argv, cwd=ram_folder, capture_output=True)
    assert "the layer wait needs to know where the kernel's functions are" in done.stderr
    assert "wait" not in read_capture(ram_folder / "all.parquet").metadata["layers"]
    asked_for = subprocess.run(
        [*before, "-l", "syscall,wait", "-o", "no.parquet"],
        cwd=ram_folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (asked_for.returncode, "kptr_restrict" in asked_for.stderr) == (1, True)
    assert not (ram_folder / "no.parquet").exists()
