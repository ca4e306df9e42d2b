# SPDX-License-Identifier: GPL-2.0-only
"""Never a wrong name: of files that are known by their extents, and of processes made here."""

import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.kernel.captures import Capture, missed_completions, read_capture
from tests.kernel.conftest import LoopDevice, queue_set, run, start_recording
from tests.kernel.mounts import mounted_ext4
from tests.truth.check import Verdict, check
from tests.truth.claims import Workers, reading, spawning
from tests.truth.disk import Disk, survey, write_files

SEED = 9
THREADS = 4  # two each of two processes


@dataclass
class Stage:
    """A new file system on a device that merges nothing, and who works on it."""

    device: LoopDevice
    mount: Path
    workers: Workers
    recordings: list[subprocess.Popen[str]] = field(default_factory=list)

    def start_recording(self, output: Path, *options: str) -> subprocess.Popen[str]:
        """Starts to record the device; the recorder never outlives the stage."""
        self.recordings.append(start_recording(output, "-d", self.device.name, *options))
        return self.recordings[-1]

    def make_files(self, count: int) -> list[Path]:
        paths = [self.mount / f"{number:05}" for number in range(count)]
        write_files(paths, random.Random(SEED))
        return paths

    def read_by_threads(self, paths: list[Path], pauses_s: list[float]) -> Disk:
        """Starts threads that read the files, each its part of them."""
        parts = [paths[part::THREADS] for part in range(THREADS)]
        disk = survey(self.device.name, list(enumerate(parts)))
        jobs = [reading(part, pool, SEED + pool, pauses_s) for pool, part in enumerate(parts)]
        self.workers.start(jobs[:2])
        self.workers.start(jobs[2:])
        return disk

    def read_by_processes(
        self, paths: list[Path], count: int, cgroups: list[Path]
    ) -> tuple[Disk, subprocess.Popen[bytes]]:
        """Starts short processes that read the files, each file by some of them."""
        first = THREADS
        disk = survey(
            self.device.name, [(first + place, [path]) for place, path in enumerate(paths)]
        )
        job = spawning(paths, first, SEED, [0.0], count=count, cgroups=cgroups)
        return disk, self.workers.start([job])


@pytest.fixture
def stage(make_loop: Callable[..., LoopDevice], ram_folder: Path) -> Iterator[Stage]:
    device = make_loop()
    with (
        queue_set(device, "nomerges", "2"),
        mounted_ext4(device, ram_folder / "mount") as mount,
        Workers(ram_folder) as workers,
    ):
        run("mount", "-o", "remount,noatime", mount)
        stage = Stage(device, mount, workers)
        yield stage
        for recording in stage.recordings:
            recording.kill()
            recording.wait()


def end(stage: Stage, *outputs: Path) -> list[Capture]:
    """Ends all recordings, and then what they record, which would be in the way of the writing."""
    for recording in stage.recordings:
        recording.send_signal(signal.SIGINT)
    stage.workers.stop_all()
    for recording in stage.recordings:
        assert recording.wait(240) == 0
    return [read_capture(output) for output in outputs]


def assert_true(
    capture: Capture, disks: list[Disk], stage: Stage, cgroups: list[set[str]] | None = None
) -> Verdict:
    """Nothing is wrong, and what is unknown is counted, and only where the ring was full."""
    verdict = check(capture.table, capture.metadata, disks, stage.workers.claims(), cgroups or ())
    print(verdict)
    assert verdict.wrong == 0, verdict
    lost = identities_lost(capture.counts)
    assert max(verdict.unknown, verdict.unknown_file) <= lost, verdict
    assert not lost or capture.counts["lost"]["ring_full"]
    return verdict


def identities_lost(counts: dict[str, Any]) -> int:
    return sum(layer.get("identity_lost", 0) for layer in counts["layers"].values())


@pytest.mark.parametrize(("count", "layer"), [(900, "bio"), (3000, "request")])
def test_many_files_read_by_many_threads_have_their_names(
    stage: Stage, ram_folder: Path, count: int, layer: str
) -> None:
    output = ram_folder / "run.parquet"
    paths = stage.make_files(count)
    stage.start_recording(output, "-l", layer)
    disk = stage.read_by_threads(paths, [0.0])
    time.sleep(2.5)
    (capture,) = end(stage, output)
    assert assert_true(capture, [disk], stage).rows > 500


def test_processes_that_end_at_once_have_their_names(
    stage: Stage, ram_folder: Path, cgroup: Path
) -> None:
    output = ram_folder / "run.parquet"
    paths = stage.make_files(400)
    folders = [cgroup / f"brief{number}" for number in range(5)]
    for folder in folders:
        folder.mkdir()
    names = [{f"/{cgroup.name}/{f.name}", f"id:{f.stat().st_ino}"} for f in folders]
    stage.start_recording(output)
    disk, spawner = stage.read_by_processes(paths, 600, folders)
    assert spawner.wait(60) == 0
    (capture,) = end(stage, output)
    assert assert_true(capture, [disk], stage, names).rows >= 600
    pids = set(capture.table["pid"].to_pylist())
    assert len(pids) + missed_completions(capture, stage.device.name) >= 600


@pytest.mark.parametrize(
    ("buffer", "pause_s", "is_overflowing"), [("512M", 5e-5, False), ("256K", 0.0, True)]
)
def test_a_recorder_that_was_stopped_names_what_it_finds_afterwards(
    stage: Stage, ram_folder: Path, buffer: str, pause_s: float, is_overflowing: bool
) -> None:
    output = ram_folder / "run.parquet"
    paths = stage.make_files(3300)
    recording = stage.start_recording(output, "-B", buffer)
    disks = [stage.read_by_threads(paths[300:], [pause_s])]
    disk, _ = stage.read_by_processes(paths[:300], 1 << 20, [])
    time.sleep(1)
    recording.send_signal(signal.SIGSTOP)
    time.sleep(3)
    recording.send_signal(signal.SIGCONT)
    time.sleep(1)
    (capture,) = end(stage, output)
    assert_true(capture, [*disks, disk], stage)
    assert bool(capture.counts["lost"]["ring_full"]) == is_overflowing


def test_two_recorders_of_both_layers_give_the_same_names(stage: Stage, ram_folder: Path) -> None:
    outputs = [ram_folder / name for name in ("one.parquet", "two.parquet")]
    paths = stage.make_files(2000)
    for output in outputs:
        stage.start_recording(output, "-l", "request,bio")
    disk = stage.read_by_threads(paths, [0.0, 1e-4])
    time.sleep(1.5)
    for capture in end(stage, *outputs):
        assert assert_true(capture, [disk], stage).rows > 500


def test_the_check_itself_finds_every_row_that_is_wrong(stage: Stage, ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    paths = stage.make_files(100)
    stage.start_recording(output)
    disk, spawner = stage.read_by_processes(paths, 200, [])
    assert spawner.wait(60) == 0
    (capture,) = end(stage, output)
    reads = capture.table.filter(pc.equal(capture.table["op"].cast("string"), "read"))
    of_files = pc.is_in(reads["file"].cast("string"), pa.array(map(str, paths)))
    table = reads.filter(of_files)  # not the reads of inodes
    assert len(table) >= 100

    def verdict_on(column: str, values: list[Any]) -> Verdict:
        place = table.column_names.index(column)
        changed = table.set_column(place, column, pa.array(values))
        return check(changed, capture.metadata, [disk], stage.workers.claims())

    right = check(reads, capture.metadata, [disk], stage.workers.claims())
    assert (right.wrong, right.unknown, right.rows) == (0, 0, len(table))
    names = table["file"].to_pylist()
    renamed = {str(path): str(paths[place - 1]) for place, path in enumerate(paths)}
    assert verdict_on("file", [renamed[name] for name in names]).wrong_file == len(table)
    inodes = [inode + 1 for inode in table["inode"].to_pylist()]
    assert verdict_on("inode", inodes).wrong_file == len(table)
    for column in ("pid", "tid"):
        numbers = [number + 1 for number in table[column].to_pylist()]
        assert verdict_on(column, numbers).wrong_process == len(table)
    assert verdict_on("comm", ["python3"] * len(table)).wrong_process == len(table)
    assert verdict_on("pid", [None] * len(table)).unknown == len(table)
    moved = [offset + 4096 for offset in table["offset"].to_pylist()]
    assert verdict_on("offset", moved).wrong_file == len(table)
