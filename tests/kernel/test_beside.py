# SPDX-License-Identifier: GPL-2.0-only
"""What goes wrong beside the events is noted, and the recording goes on."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from analyze.metadata import ClockReading
from iorec.host.cgroups import CgroupNames
from iorec.host.escape import escape_name
from iorec.host.notes import Notes
from tests.kernel.captures import read_capture
from tests.kernel.conftest import IOREC, LoopDevice, run, start_recording, stop_recording

READS = 50


def read_once(loop: LoopDevice) -> list[str]:
    return ["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", f"count={READS}", "iflag=direct"]


def test_a_recording_goes_on_when_sysfs_is_gone(loop: LoopDevice, ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    recording = subprocess.Popen(
        ["unshare", "--mount", IOREC, "record", "-o", output], stderr=subprocess.PIPE, text=True
    )
    assert recording.stderr is not None
    assert any(line.startswith("recording ") for line in recording.stderr)
    run("nsenter", "-m", "-t", recording.pid, "umount", "--lazy", "/sys")
    run(*read_once(loop), stderr=subprocess.DEVNULL)
    time.sleep(1.5)
    stop_recording(recording)
    capture = read_capture(output)
    assert len(capture.rows(device=loop.name, comm="dd")) == READS
    assert capture.metadata["diskstats"] == {}
    assert "diskstats" in {note["what"] for note in capture.metadata["notes"]}


@pytest.mark.parametrize("name", [b"\xff\xfe \\!", "é\t".encode() * 80, b"x" * 255])
def test_a_cgroup_may_be_called_anything(
    loop: LoopDevice, ram_folder: Path, cgroup: Path, name: bytes
) -> None:
    inner = cgroup / os.fsdecode(name)
    inner.mkdir()
    output = ram_folder / "run.parquet"
    recording = start_recording(output, "-d", loop.name)
    pid = os.fork()
    if pid == 0:
        (inner / "cgroup.procs").write_text(str(os.getpid()))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        os.execvp("dd", read_once(loop))
    os.waitpid(pid, 0)
    time.sleep(0.3)
    stop_recording(recording)
    capture = read_capture(output)
    wanted = f"/{cgroup.name}/{escape_name(name)}"
    assert len(capture.rows(comm="dd", cgroup=wanted)) == READS
    assert capture.metadata["notes"] == []


def test_cgroups_by_thousands_are_found_in_one_look(cgroup: Path) -> None:
    made = [cgroup / f"group{g}" / f"{number}" for g in range(20) for number in range(100)]
    for inner in made:
        inner.mkdir(parents=True)
    names = CgroupNames(Notes())
    started_s = time.process_time()
    for inner in made:
        assert names.resolve(inner.stat().st_ino) == f"/{inner.relative_to(cgroup.parent)}"
    assert time.process_time() - started_s < 1


def test_cgroups_that_come_and_go_take_little_of_the_recorders_time(cgroup: Path) -> None:
    for number in range(1000):
        (cgroup / f"{number}").mkdir()
    names = CgroupNames(Notes())
    ended_s = time.monotonic() + 2
    used_s, gone = 0.0, cgroup / "gone"
    while time.monotonic() < ended_s:
        gone.mkdir()
        number = gone.stat().st_ino
        gone.rmdir()
        started_s = time.process_time()
        names.refresh()
        assert names.resolve(number) == f"id:{number}"
        used_s += time.process_time() - started_s
    assert used_s < 0.5


def test_the_cgroup_of_a_process_is_found_without_a_look(cgroup: Path) -> None:
    names = CgroupNames(Notes())
    names.resolve(1)  # the look of this drain
    inner = cgroup / "late"
    inner.mkdir()
    process = subprocess.Popen(["sleep", "10"])
    (inner / "cgroup.procs").write_text(str(process.pid))
    found = names.resolve(inner.stat().st_ino, process.pid)
    process.kill()
    process.wait()
    assert found == f"/{cgroup.name}/late"


def test_notes_are_as_many_as_a_capture_can_hold() -> None:
    notes = Notes()
    for number in range(1000):
        with notes.guard("devices"):
            raise ValueError(f"cause {number}" + "é" * 10_000)
    with pytest.raises(KeyboardInterrupt), notes.guard("devices"):
        raise KeyboardInterrupt
    listed = notes.since(ClockReading(0, 0), {})
    assert len(listed) == 101
    assert sum(note.count for note in listed) == 1000
    assert all(len(note.message) <= 400 for note in listed)
    assert notes.since(ClockReading(time.monotonic_ns(), 0), {}) == ()
