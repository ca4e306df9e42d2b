# SPDX-License-Identifier: GPL-2.0-only
"""Recordings that go on in a new file when one is full."""

import contextlib
import itertools
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.kernel.captures import assert_accounts_close, missed_completions, read_capture
from tests.kernel.conftest import IOREC, LoopDevice, run, start_recording, stop_recording
from tests.kernel.load import running_load
from tests.kernel.mounts import small_tmpfs


@pytest.fixture
def small_folder(ram_folder: Path) -> Iterator[Path]:
    with small_tmpfs(ram_folder / "small", "3m") as folder:
        yield folder


def rotate(loop: LoopDevice, folder: Path, kept: int, *more: str) -> list[Path]:
    fio = ["fio", "--name=r", f"--filename={loop.path}", "--direct=1", "--rw=randread"]
    work = [*fio, "--ioengine=io_uring", "--iodepth=8", "--io_size=1500M"]
    options = ["-d", loop.name, "--max-size", "300K", "--rotate", str(kept)]
    options += [*more, "--", *work, "--output=/dev/null"]
    run(IOREC, "record", "-o", folder / "run.parquet", *options)
    return sorted(folder.glob("run-*"))


def test_every_io_is_in_exactly_one_file(loop: LoopDevice, ram_folder: Path) -> None:
    assert_every_io_is_in_one(rotate(loop, ram_folder, kept=1000), loop)


def test_what_is_converted_later_has_every_io_in_exactly_one_file(
    loop: LoopDevice, ram_folder: Path
) -> None:
    spools = rotate(loop, ram_folder, 1000, "--convert-later")
    assert {path.suffix for path in spools} == {".part"}
    for spool in spools:
        run(IOREC, "recover", spool)
    captures = sorted(ram_folder.glob("run-*"))
    assert {path.suffix for path in captures} == {".parquet"}
    assert_every_io_is_in_one(captures, loop)


def assert_every_io_is_in_one(paths: list[Path], loop: LoopDevice) -> None:
    captures = [read_capture(path) for path in paths]
    assert len(captures) >= 2
    rows = 384_000 - sum(missed_completions(capture, loop.name) for capture in captures)
    assert sum(c.table.num_rows for c in captures) == rows
    in_flight = sum(c.counts["in_flight_at_stop"] for c in captures)
    assert sum(c.counts["recorded"] for c in captures) == rows - in_flight
    columns = [(c.table["time"].cast("int64"), c.table["offset"]) for c in captures]
    keys = {key for time, offset in columns for key in zip(time, offset, strict=True)}
    assert len(keys) == rows
    for capture in captures:
        assert capture.metadata["complete"]
        assert_accounts_close(capture, loop.name)
    for one, other in itertools.pairwise(captures):
        assert one.metadata["stopped_at"] <= other.metadata["started_at"]


def test_only_the_newest_files_are_kept(loop: LoopDevice, ram_folder: Path) -> None:
    paths = rotate(loop, ram_folder, kept=2)
    assert len(paths) == 2
    again = rotate(loop, ram_folder, 2, "-f")
    assert len(again) == 2
    assert paths[0].name != "run-00001.parquet"
    assert all(path.suffix == ".parquet" for path in paths)


def record_once(loop: LoopDevice, folder: Path, *options: str) -> CompletedProcess[str]:
    """A rotating recording of one small file."""
    read = ["dd", f"if={loop.path}", "of=/dev/null", "count=1", "iflag=direct", "status=none"]
    command = [str(IOREC), "record", "-o", str(folder / "run.csv"), "-d", loop.name, *options]
    command += ["--max-size", "300K", "--rotate", "2", "--", *read]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("later", [[], ["--convert-later"]])
def test_files_of_before_are_refused_or_replaced_as_one(
    loop: LoopDevice, ram_folder: Path, later: list[str]
) -> None:
    others = {"run.csv", "run-1.csv", "other-00002.csv"}
    old = {"run-00002.csv", "run-00002.meta.json", "run-00003.csv", "run-00003.meta.json"}
    for name in others | old:
        (ram_folder / name).write_text("old")
    refused = record_once(loop, ram_folder, *later)
    assert (refused.returncode, "run-00002.csv exists" in refused.stderr) == (1, True)
    there = {path.name for path in ram_folder.iterdir() if path.suffix in (".csv", ".json")}
    assert there == others | old
    assert record_once(loop, ram_folder, "-f", *later).returncode == 0
    there = {path.name for path in ram_folder.iterdir() if path.name != loop.backing.name}
    new = {"run-00001.csv.part"} if later else {"run-00001.csv", "run-00001.meta.json"}
    assert there == others | new


def converters_of(pid: int) -> list[int]:
    """The processes that turn the spools of a recorder into captures."""
    children = Path(f"/proc/{pid}/task").glob("*/children")
    with contextlib.suppress(OSError):
        pids = [int(pid) for path in children for pid in path.read_text().split()]
        return [child for child in pids if is_converter(child)]
    return []


def is_converter(pid: int) -> bool:
    try:
        return b"\0recover\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_one_file_is_converted_at_a_time(disk: LoopDevice, ram_folder: Path) -> None:
    options = ["-d", disk.name, "--max-size", "300K", "--rotate", "1000"]
    recording = start_recording(ram_folder / "run.parquet", *options)
    most = 0
    with running_load(disk, "--rw=randread"):
        while not (ram_folder / "run-00008.parquet.part").exists():
            most = max(most, len(converters_of(recording.pid)))
            time.sleep(0.01)
    recording.send_signal(signal.SIGINT)
    while recording.poll() is None:
        most = max(most, len(converters_of(recording.pid)))
        time.sleep(0.01)
    assert recording.returncode == 0
    assert most == 1
    names = sorted(path.name for path in ram_folder.glob("run-*"))
    assert names == [f"run-{number:05}.parquet" for number in range(1, len(names) + 1)]
    assert len(names) >= 8


def test_a_csv_and_its_description_are_removed_together(disk: LoopDevice, ram_folder: Path) -> None:
    options = ["-d", disk.name, "--max-size", "300K", "--rotate", "2"]
    recording = start_recording(ram_folder / "run.csv", *options)
    with running_load(disk, "--rw=randread"):
        while not (ram_folder / "run-00005.csv.part").exists():
            time.sleep(0.01)
    stop_recording(recording)
    names = sorted(path.name for path in ram_folder.glob("run-*"))
    assert [Path(name).suffix for name in names] == [".csv", ".json"] * 2


def test_a_disk_that_is_full_names_every_spool_that_is_left(
    disk: LoopDevice, small_folder: Path, ram_folder: Path
) -> None:
    options = ["-d", disk.name, "--max-size", "400K", "--rotate", "1000"]
    recording = start_recording(small_folder / "run.parquet", *options)
    with running_load(disk, "--rw=randread"):
        stderr = recording.communicate(timeout=240)[1]
    assert recording.returncode == 1
    assert "Traceback" not in stderr
    assert "No space left on device" in stderr
    spools = sorted(small_folder.glob("*.part"))
    assert spools
    for spool in spools:
        assert f"iorec recover {spool}" in stderr
    (hint,) = [line for line in stderr.splitlines() if line.startswith("hint: ")]
    assert "free some space" in hint
    rows = [len(read_capture(path).table) for path in small_folder.glob("*.parquet")]
    for number, spool in enumerate(spools):
        saved = ram_folder / f"saved{number}.parquet"
        run(IOREC, "recover", spool, "-o", saved)
        rows.append(len(read_capture(saved).table))
    assert sum(rows) > 100_000


def test_a_file_whose_spool_is_deleted_while_it_is_recorded_becomes_a_capture(
    disk: LoopDevice, ram_folder: Path
) -> None:
    options = ["-d", disk.name, "--max-size", "400K", "--rotate", "1000"]
    recording = start_recording(ram_folder / "run.parquet", *options)
    with running_load(disk, "--rw=randread"):
        while not (spool := ram_folder / "run-00003.parquet.part").exists():
            time.sleep(0.005)
        spool.unlink()
        while not (ram_folder / "run-00005.parquet.part").exists():
            assert recording.poll() is None
            time.sleep(0.01)
    stop_recording(recording)
    names = sorted(path.name for path in ram_folder.glob("run-*"))
    assert names == [f"run-{number:05}.parquet" for number in range(1, len(names) + 1)]
    capture = read_capture(ram_folder / "run-00003.parquet")
    assert len(capture.table) == capture.counts["recorded"] > 1000


def test_what_an_earlier_file_lost_is_said_at_the_end(disk: LoopDevice, ram_folder: Path) -> None:
    options = ["-d", disk.name, "--max-size", "100K", "--rotate", "1000", "-B", "64K", "--strict"]
    recording = start_recording(ram_folder / "run.parquet", *options)
    with running_load(disk, "--rw=randread"):
        recording.send_signal(signal.SIGSTOP)
        time.sleep(0.3)
        recording.send_signal(signal.SIGCONT)
        while not (ram_folder / "run-00002.parquet.part").exists():
            time.sleep(0.01)
    recording.send_signal(signal.SIGINT)
    stderr = recording.communicate(timeout=240)[1]
    first = read_capture(ram_folder / "run-00001.parquet")
    assert first.counts["lost"]["ring_full"] > 0
    assert "run-00001.parquet: INCOMPLETE: " in stderr
    assert recording.returncode == 3
