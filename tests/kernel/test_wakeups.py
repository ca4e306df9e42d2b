# SPDX-License-Identifier: GPL-2.0-only
"""When the recorder sleeps, and what wakes it."""

import signal
import subprocess
import time
from pathlib import Path

import pytest

from iorec.host.processes import cpu_s
from tests.kernel.captures import read_capture
from tests.kernel.conftest import IOREC, LoopDevice, run, start_recording, stop_recording


def switches(recording: subprocess.Popen[str]) -> int:
    """How often the recorder began to sleep; how often it was interrupted depends on others."""
    lines = Path(f"/proc/{recording.pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def test_a_recorder_with_nothing_to_record_looks_once_a_second(
    loop: LoopDevice, ram_folder: Path
) -> None:
    recording = start_recording(ram_folder / "run.parquet", "-d", loop.name)
    time.sleep(2)
    before_s, counts = cpu_s(recording.pid), []
    for _ in range(6):
        before = switches(recording)
        time.sleep(1)
        counts.append(switches(recording) - before)
    spent_s = cpu_s(recording.pid) - before_s
    stop_recording(recording)
    assert sum(counts) >= 4
    assert sorted(counts)[1] <= 3, counts  # each device that comes or goes wakes it, too
    assert spent_s < 0.3  # one that never slept would switch as seldom


@pytest.mark.parametrize(
    "words", [["watch"], ["record", "--flight", "5s", "--trigger", "stalled 1h"]]
)
def test_who_looks_on_sleeps_too(loop: LoopDevice, ram_folder: Path, words: list[str]) -> None:
    with (ram_folder / "log").open("w+b") as log:
        command = [str(IOREC), *words, "-d", loop.name]
        looking = subprocess.Popen(command, cwd=ram_folder, stdout=log, stderr=log)
        while b"recording " not in (ram_folder / "log").read_bytes():
            assert looking.poll() is None
            time.sleep(0.01)
        time.sleep(2)
        before_s = cpu_s(looking.pid)
        time.sleep(5)
        spent_s = cpu_s(looking.pid) - before_s
        looking.send_signal(signal.SIGINT)
        assert looking.wait(30) == 0
    assert spent_s < 0.25


def test_a_burst_after_a_silence_wakes_the_recorder(loop: LoopDevice, ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    recording = start_recording(output, "-d", loop.name, "-B", "2M")
    time.sleep(2)
    load = ["fio", "--name=load", f"--filename={loop.path}", "--direct=1", "--rw=randread"]
    # Five times what the buffer holds, within less than a second.
    run(*load, "--ioengine=io_uring", "--iodepth=64", "--io_size=640m", capture_output=True)
    stop_recording(recording)
    counts = read_capture(output).counts
    assert counts["recorded"] > 160_000
    assert counts["lost"]["ring_full"] == 0


def test_a_cgroup_that_is_gone_a_moment_later_has_its_name(
    loop: LoopDevice, ram_folder: Path, cgroup: Path
) -> None:
    output = ram_folder / "run.parquet"
    recording = start_recording(output, "-d", loop.name)
    read = f"dd if={loop.path} of=/dev/null bs=4k iflag=direct count=1"
    names = [f"brief{number}" for number in range(5)]
    for name in names:
        folder = cgroup / name
        folder.mkdir()
        run("sh", "-c", f"echo $$ > {folder}/cgroup.procs; {read}", capture_output=True)
        time.sleep(0.3)
        folder.rmdir()
    stop_recording(recording)
    rows = read_capture(output).rows(comm="dd")
    assert [row["cgroup"] for row in rows] == [f"/{cgroup.name}/{name}" for name in names]
