# SPDX-License-Identifier: GPL-2.0-only
"""The flight recorder: what it keeps, when it writes, and what it costs to be killed."""

import os
import platform
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from tests.kernel.captures import Capture, assert_accounts_close, read_capture
from tests.kernel.conftest import IOREC, LoopDevice, run, start_recording
from tests.kernel.mounts import mounted_ext4

_SECOND_NS = 1_000_000_000
_UNIT = Path(__file__).parents[2] / "docs/iorec-flight.service"


@contextmanager
def flying(folder: Path, loop: LoopDevice, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A flight recorder of a device, which is interrupted at the end; then `said` is there."""
    process = subprocess.Popen(
        [IOREC, "record", "-d", loop.name, "-o", folder / "run.parquet", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("recording ")
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)


def end(process: subprocess.Popen[str], status: int = 0) -> str:
    said = process.communicate(timeout=60)[1]
    assert process.returncode == status, said
    return said


@contextmanager
def steady_reads(loop: LoopDevice) -> Iterator[None]:
    """A hundred reads a second."""
    fio = subprocess.Popen(
        ["fio", "--name=steady", f"--filename={loop.path}", "--direct=1", "--rw=randread",
         "--rate_iops=100", "--bs=4k", "--time_based", "--runtime=120", "--ioengine=psync"],
        stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        yield
    finally:
        fio.terminate()
        fio.wait()


def written(folder: Path) -> list[Path]:
    return sorted(folder.glob("run-*.parquet"))


def await_capture(folder: Path, count: int = 1) -> None:
    deadline = time.monotonic() + 60
    while len(written(folder)) < count:
        assert time.monotonic() < deadline, list(folder.iterdir())
        time.sleep(0.1)


def fired_ns(capture: Capture) -> int:
    return int(pd.Timestamp(capture.metadata["trigger"]["at"]).value)


def read_slowly(loop: LoopDevice, mount: Path, seconds: float) -> None:
    """A write to a device whose own disk stands still for a while."""
    run("fsfreeze", "-f", mount)
    try:
        time.sleep(0.05)
        dd = subprocess.Popen(
            ["dd", "if=/dev/zero", f"of={loop.path}", "bs=4k", "count=1", "oflag=direct"],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
    finally:
        run("fsfreeze", "-u", mount)
    assert dd.wait(30) == 0


@pytest.fixture
def stalling(ram_folder: Path, loop: LoopDevice) -> Iterator[tuple[LoopDevice, Path]]:
    """A loop device on a file of a file system that can be frozen, and its mount."""
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        backing = mount / "backing"
        run("fallocate", "-l", "16M", backing)
        path = run("losetup", "-f", "--show", backing, stdout=subprocess.PIPE).stdout.strip()
        yield LoopDevice(path, backing), mount
        run("losetup", "-d", path)


def test_a_slow_io_makes_one_capture_with_what_came_before_and_after(
    ram_folder: Path, stalling: tuple[LoopDevice, Path]
) -> None:
    """The rows are those of an ordinary recording that ran beside it."""
    device, mount = stalling
    beside = start_recording(ram_folder / "beside.parquet", "-d", device.name)
    options = ("--flight", "4s", "--after", "3s", "--pause", "1h", "--trigger", "latency > 300ms")
    with flying(ram_folder, device, *options) as process, steady_reads(device):
        time.sleep(7)
        read_slowly(device, mount, 0.6)
        await_capture(ram_folder)
        read_slowly(device, mount, 0.6)  # during the pause
        time.sleep(1)
    said = end(process)
    beside.send_signal(signal.SIGINT)
    beside.communicate(timeout=60)
    [path] = written(ram_folder)
    assert path.name.endswith("-latency-300ms.parquet")
    capture = read_capture(path)
    assert_accounts_close(capture, device.name)
    assert "latency > 300ms: write on" in said
    at = fired_ns(capture)
    slow = [row for row in capture.rows() if (row["latency_ns"] or 0) > 300_000_000]
    assert "dd" in [row["comm"] for row in slow]  # a read may have waited behind it
    assert at in [row["time"].value + row["latency_ns"] for row in slow]
    whole = read_capture(ram_folder / "beside.parquet")
    ends = [row["time"].value + row["latency_ns"] for row in capture.rows() if row["latency_ns"]]
    assert min(ends) <= at - 4 * _SECOND_NS + 100_000_000
    assert at - 6.5 * _SECOND_NS <= min(ends)  # it begins at a mark, of which there is one a second
    assert at + 2.8 * _SECOND_NS <= max(ends)
    ended = {(r["time"].value + r["latency_ns"], r["offset"]) for r in capture.rows()
             if r["latency_ns"]}  # fmt: skip
    expected = {
        (r["time"].value + r["latency_ns"], r["offset"])
        for r in whole.rows()
        if r["latency_ns"] and min(ends) <= r["time"].value + r["latency_ns"] <= max(ends)
    }
    # Each recorder has its own offset to the wall clock, and the kernel hides some from both.
    assert abs(len(ended) - len(expected)) <= 5
    assert len(ended) > 500


def test_a_stalled_io_fires_while_it_is_in_flight(
    ram_folder: Path, stalling: tuple[LoopDevice, Path]
) -> None:
    device, mount = stalling
    options = ("--flight", "5s", "--after", "1s", "--trigger", "stalled 1s", "--pause", "1s")
    with flying(ram_folder, device, *options) as process:
        run("fsfreeze", "-f", mount)
        try:
            dd = subprocess.Popen(
                ["dd", "if=/dev/zero", f"of={device.path}", "bs=4k", "count=1", "oflag=direct"],
                stderr=subprocess.DEVNULL,
            )
            await_capture(ram_folder)
            time.sleep(4)  # it hangs on, and fires no more
        finally:
            run("fsfreeze", "-u", mount)
        dd.wait(30)
    end(process)
    [path] = written(ram_folder)
    capture = read_capture(path)
    assert_accounts_close(capture, device.name)
    [hung] = [row for row in capture.rows(device=device.name) if row["latency_ns"] is None]
    assert (hung["op"], hung["comm"]) == ("write", "dd")
    assert "has been in flight for" in capture.metadata["trigger"]["cause"]


def test_a_failed_io_a_deep_queue_and_a_signal_fire(ram_folder: Path, loop: LoopDevice) -> None:
    options = ("--flight", "3s", "--after", "0s", "--pause", "0s",
               "--trigger", "errno", "--trigger", "in_flight > 20")  # fmt: skip
    with flying(ram_folder, loop, *options) as process:
        process.send_signal(signal.SIGUSR1)
        await_capture(ram_folder)
        run("fio", "--name=deep", f"--filename={loop.path}", "--direct=1", "--rw=randread",
            "--bs=4k", "--iodepth=32", "--ioengine=libaio", "--iodepth_batch_submit=32",
            "--iodepth_batch_complete_min=32", "--number_ios=2000", "--size=8M",
            stdout=subprocess.DEVNULL)  # fmt: skip
        await_capture(ram_folder, 2)
        time.sleep(2)
        os.truncate(loop.backing, 0)
        subprocess.run(["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", "count=1",
                        "iflag=direct"], stderr=subprocess.DEVNULL)  # fmt: skip
        await_capture(ram_folder, 3)
    end(process)
    captures = [read_capture(path) for path in written(ram_folder)]
    assert [capture.metadata["trigger"]["condition"] for capture in captures] == [
        "SIGUSR1", "in_flight > 20", "errno"]  # fmt: skip
    for capture in captures:
        assert_accounts_close(capture, loop.name)
    assert [row["errno"] for row in captures[2].rows() if row["errno"]]


def test_the_newest_captures_stay(ram_folder: Path, loop: LoopDevice) -> None:
    earlier = ram_folder / "run-20200101T000000Z-errno.parquet"
    earlier.write_bytes(b"of an earlier run")
    other = ram_folder / "run-notes.parquet"
    other.write_bytes(b"of somebody else")
    names = []
    options = ("--flight", "1s", "--after", "0s", "--pause", "0s", "--captures", "2")
    with flying(ram_folder, loop, *options) as process:
        for _ in range(3):
            process.send_signal(signal.SIGUSR1)
            before = set(ram_folder.glob("run-*-sigusr1.parquet"))
            deadline = time.monotonic() + 30
            while not (new := set(ram_folder.glob("run-*-sigusr1.parquet")) - before):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            names += [path.name for path in new]
            time.sleep(1.1)
    end(process)
    assert not earlier.exists()
    assert other.exists()
    assert [path.name for path in sorted(ram_folder.glob("run-*-sigusr1.parquet"))] == names[-2:]


def test_without_a_trigger_nothing_is_written(ram_folder: Path, loop: LoopDevice) -> None:
    with flying(ram_folder, loop, "--flight", "2s", "--trigger", "latency > 1h") as process:
        time.sleep(1.5)
    assert "no trigger fired: no capture" in end(process)
    assert [path.name for path in ram_folder.iterdir() if path.name.startswith("run")] == []


def test_an_end_in_the_middle_of_a_capture_ends_that_too(
    ram_folder: Path, loop: LoopDevice
) -> None:
    options = ("--flight", "5s", "--after", "1h")
    with flying(ram_folder, loop, *options) as process, steady_reads(loop):
        time.sleep(2)
        process.send_signal(signal.SIGUSR1)
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
    said = end(process)
    assert str(written(ram_folder)[0].name) in said
    capture = read_capture(written(ram_folder)[0])
    assert_accounts_close(capture, loop.name)
    assert len(capture.rows()) > 250


def test_a_kill_leaves_the_spool_of_the_capture(ram_folder: Path, loop: LoopDevice) -> None:
    with flying(ram_folder, loop, "--flight", "5s", "--after", "1h") as process, steady_reads(loop):
        time.sleep(2)
        process.send_signal(signal.SIGUSR1)
        time.sleep(4)
        process.kill()
        end(process, -signal.SIGKILL)
    [part] = ram_folder.glob("run-*.part")
    run(IOREC, "recover", part, stderr=subprocess.DEVNULL)
    assert len(read_capture(written(ram_folder)[0]).rows()) > 200


def test_the_service_runs_with_the_capabilities_that_its_unit_leaves(
    ram_folder: Path, loop: LoopDevice
) -> None:
    unit = _UNIT.read_text().replace("\\\n", "")
    [command] = re.findall(r"^ExecStart=\S+/iorec (.*)$", unit, re.MULTILINE)
    [names] = re.findall(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    left = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in names.split())
    words = [word.replace("/var/lib/iorec", str(ram_folder)) for word in shlex.split(command)]
    process = subprocess.Popen(
        ["setpriv", f"--bounding-set=-all,{left}", "--no-new-privs", IOREC, *words,
         "--after", "0s"],
        stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("recording ")
    run("dd", f"if={loop.path}", "of=/dev/null", "bs=4k", "count=9", "iflag=direct",
        stderr=subprocess.DEVNULL)  # fmt: skip
    process.send_signal(signal.SIGUSR1)
    deadline = time.monotonic() + 60
    while not (found := [*ram_folder.glob("flight-*-sigusr1.parquet")]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    said = end(process)
    capture = read_capture(found[0])
    assert [note for note in capture.metadata["notes"] if note["what"] != "processes"] == [], said
    assert len([row for row in capture.rows(device=loop.name) if row["comm"] == "dd"]) > 0


def test_without_a_name_captures_are_named_after_the_machine(
    ram_folder: Path, loop: LoopDevice
) -> None:
    """And are the same for the next run, which leaves the newest ones of all."""
    older = f"iorec-{platform.node()}-20200101T000000Z"
    for name in (f"{older}-errno.parquet", f"{older}.parquet"):
        (ram_folder / name).write_bytes(b"of an earlier run, and of an ordinary recording")
    process = subprocess.Popen(
        [IOREC, "record", "-d", loop.name, "--flight", "5s", "--after", "0s", "--captures", "1"],
        cwd=ram_folder, stderr=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("recording ")
    process.send_signal(signal.SIGUSR1)
    time.sleep(2.5)
    process.send_signal(signal.SIGINT)
    end(process)
    ordinary, capture = sorted(path.name for path in ram_folder.glob("*.parquet"))
    assert ordinary == f"{older}.parquet"
    assert re.fullmatch(rf"iorec-{platform.node()}-\d{{8}}T\d{{6}}Z-sigusr1\.parquet", capture)


def test_a_capture_that_cannot_be_written_is_an_error(ram_folder: Path, loop: LoopDevice) -> None:
    folder = ram_folder / "gone"
    folder.mkdir()
    options = ("--flight", "5s", "--after", "0s", "--pause", "0s")
    with flying(folder, loop, *options) as process:
        folder.rmdir()
        process.send_signal(signal.SIGUSR1)
        time.sleep(2.5)
    said = end(process, 1)
    assert "warning: no capture of SIGUSR1: cannot create" in said
    assert "no trigger fired" not in said
    assert "error: no capture of SIGUSR1" in said


def test_who_asks_in_the_pause_is_told(ram_folder: Path, loop: LoopDevice) -> None:
    options = ("--flight", "5s", "--after", "0s", "--pause", "1h")
    with flying(ram_folder, loop, *options) as process:
        process.send_signal(signal.SIGUSR1)
        await_capture(ram_folder)
        process.send_signal(signal.SIGUSR1)
        time.sleep(2.5)
    assert "SIGUSR1: no capture, as the pause after the last one lasts " in end(process)
    assert len(written(ram_folder)) == 1


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (["--flight", "5s", "--trigger", "latency >> 3ms"],
         ["error: cannot read the trigger: expected a time such as 100ms",
          "  latency >> 3ms", "           ^"]),
        (["--trigger", "errno"], ["error: --trigger needs --flight"]),
        (["--after", "5s"], ["error: --after needs --flight"]),
        (["--flight", "5s", "--max-size", "1M", "--rotate", "3"],
         ["error: --flight and --rotate exclude each other"]),
        (["--flight", "5s", "-f"], ["error: --flight and -f exclude each other"]),
        (["--flight", "0s"], ["error: --flight keeps nothing"]),
    ],
)  # fmt: skip
def test_a_wrong_option_is_an_error(options: list[str], lines: list[str]) -> None:
    done = subprocess.run([IOREC, "record", *options], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[: len(lines)] == lines


def test_a_call_that_fails_fires_only_where_calls_alone_are_recorded(ram_folder: Path) -> None:
    """Programs look for files that are not there all the time."""
    for layers, count in (("syscall,request", 0), ("syscall", 1)):
        options = ("--flight", "2s", "--after", "1s", "--trigger", "errno", "--pause", "1h")
        recording = start_recording(
            *(ram_folder / "run.parquet", "-l", layers, "-c", "cat", *options)
        )
        subprocess.run(["cat", ram_folder / "missing"], stderr=subprocess.DEVNULL, check=False)
        time.sleep(2.5)
        recording.send_signal(signal.SIGINT)
        assert recording.wait(60) == 0
        assert len(written(ram_folder)) == count
    assert " on " not in read_capture(written(ram_folder)[0]).metadata["trigger"]["cause"]
