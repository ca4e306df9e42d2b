# SPDX-License-Identifier: GPL-2.0-only
"""What a recording leaves when it is killed, stopped, hung up on, or cannot write."""

import ctypes
import fcntl
import os
import pty
import random
import resource
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from iorec.kernel.btf import KernelTypes
from iorec.kernel.libbpf import ProgInfo, libbpf
from tests.kernel.captures import (
    Capture,
    accounted,
    assert_accounts_close,
    completeness,
    missed_completions,
    nanoseconds,
    read_capture,
)
from tests.kernel.conftest import (
    DEVICE_BYTES,
    IOREC,
    LoopDevice,
    new_cgroup,
    run,
    start_recording,
    stop_recording,
)
from tests.kernel.load import fio, running_load
from tests.kernel.mounts import mounted, mounted_ext4, small_tmpfs

KILLS = 20
IN_FLIGHT, REQUESTS = 32, 128  # of fio, and of a loop device's queue
BLOCK = 4096


def part_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.part")


def recover(part: Path, *options: str | Path) -> int:
    return subprocess.run([IOREC, "recover", part, *options], check=False).returncode


def recovered(output: Path, disk: LoopDevice, saved: Path | None = None) -> Capture:
    """What a recording that was cut off gives back, wherever it is saved; checked."""
    assert recover(part_of(output), *(("-o", saved) if saved else ())) == 0
    capture = read_capture(saved or output)
    assert_ledger_of_a_cut(capture)
    assert_sequential_prefix(capture, disk)
    return capture


def assert_one_error(stderr: str) -> None:
    lines = stderr.splitlines()
    assert "Traceback" not in stderr
    assert sum(line.startswith("error: ") for line in lines) == 1, stderr
    assert sum(line.startswith("hint: ") for line in lines) == 1, stderr


def rows_of_fio(capture: Capture, disk: LoopDevice) -> pa.Table:
    """What fio reads of its device; its own program is on another one."""
    comm, device = (capture.table[name].cast("string") for name in ("comm", "device"))
    is_load = pc.and_(pc.equal(comm, "fio"), pc.equal(device, disk.name))
    return capture.table.filter(is_load).sort_by("time")


def assert_sequential_prefix(capture: Capture, disk: LoopDevice) -> None:
    """The rows of a sequential read are each block once and none is missing.

    Except for those that were in flight when the last rows were written, and those whose completion
    was missed, as the ledger says: it knows when the request is used again.
    """
    rows = rows_of_fio(capture, disk)
    steps = np.diff(rows["offset"].to_numpy()) // BLOCK % (DEVICE_BYTES // BLOCK)
    assert (steps > 0).all()
    skipped = int((steps[: -2 * REQUESTS] - 1).sum())
    assert skipped <= missed_completions(capture, disk.name, besides=["spool_failed"])
    unwritten = capture.counts["lost"]["spool_failed"]
    assert int((steps[-2 * REQUESTS :] - 1).sum()) <= 2 * IN_FLIGHT + unwritten
    instances = rows.group_by(["time", "offset", "cpu"]).aggregate([])
    assert len(instances) == len(rows)


def assert_ledger_of_a_cut(capture: Capture) -> None:
    counts = capture.counts
    assert not capture.metadata["complete"]
    assert len(capture.table) == counts["recorded"] + counts["in_flight_at_stop"]
    assert counts["completions"] >= accounted(counts)
    assert counts["lost"]["ring_full"] == 0
    lost, unwritten = sum(counts["lost"].values()), counts["completions"] - accounted(counts)
    print(f"{counts['recorded']} I/Os recovered, {lost} lost, {unwritten} more were completed")


def programs_of(pid: int) -> set[int]:
    """The ids of the BPF programs that a process holds."""
    infos = [path.read_text() for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
    return {int(text.partition("prog_id:")[2].split()[0]) for text in infos if "prog_id:" in text}


def assert_gone(programs: set[int]) -> None:
    """The kernel frees programs a moment after the last descriptor is closed."""
    deadline = time.monotonic() + 10
    while any(map(exists, programs)):
        assert time.monotonic() < deadline, programs
        time.sleep(0.05)


def exists(program: int) -> bool:
    found = ctypes.c_uint32(0)
    status = libbpf().bpf_prog_get_next_id(ctypes.c_uint32(program - 1), ctypes.byref(found))
    return status == 0 and found.value == program


def test_a_recording_killed_at_any_moment_is_recovered_up_to_its_last_second(
    disk: LoopDevice, ram_folder: Path
) -> None:
    moments = random.Random(50)
    rows = with_rows = 0
    worst_s = 0.0
    with running_load(disk, "--rw=read") as load:
        load.pause()
        for number in range(KILLS):
            output = ram_folder / f"{number}.parquet"
            recording = start_recording(output, "-d", disk.name)
            programs = programs_of(recording.pid)
            started_ns = time.time_ns()
            load.resume()
            time.sleep(moments.uniform(0.1, 1.5))
            recording.kill()
            killed_ns = time.time_ns()
            recording.wait()
            load.pause()
            assert len(programs) >= 5
            assert_gone(programs)
            assert recover(part_of(output)) == 0
            assert not part_of(output).exists()
            capture = read_capture(output)
            assert_ledger_of_a_cut(capture)
            assert_sequential_prefix(capture, disk)
            # A checkpoint a second, and half a second for a machine that is busy with the load.
            last_ns = max(nanoseconds(capture.metadata["stopped_at"]), started_ns)
            worst_s = max(worst_s, (killed_ns - last_ns) / 1e9)
            assert killed_ns - last_ns < 1.5e9
            ends = pc.add(capture.table["time"].cast("int64"), capture.table["latency_ns"])
            if len(ends):
                with_rows += 1
                rows += len(ends)
                assert last_ns - pc.max(ends).as_py() < 0.5e9
            output.unlink()
    assert with_rows > KILLS / 4
    print(f"{KILLS} kills, {rows} rows recovered from {with_rows}, at most {worst_s:.2f} s missing")


def test_a_recovered_capture_accounts_for_what_was_not_yet_written(
    disk: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with running_load(disk, "--rw=read"):
        recording = start_recording(output, "-d", disk.name)
        time.sleep(2.5)
        recording.kill()
        recording.wait()
    assert recover(part_of(output)) == 0
    said = completeness(output)
    assert said.is_recovered
    assert not said.is_complete
    assert said.unaccounted == 0


def test_a_checkpoint_never_explains_more_than_was_completed(
    disk: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with running_load(disk, "--rw=randrw", "--rwmixread=90"):
        recording = start_recording(output, "--op", "write", "-B", "4K")
        time.sleep(3.2)
        recording.kill()
        recording.wait()
    assert recover(part_of(output)) == 0
    counts = read_capture(output).counts
    assert counts["filtered"] > 10_000
    assert counts["completions"] >= accounted(counts)


@pytest.fixture
def memory_cgroup() -> Iterator[tuple[Path, str, str]]:
    """A cgroup with the files that hold its memory in use and the limit of it."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    roots = {
        ("cgroup2" if kind == "cgroup2" else "memory"): Path(place)
        for _, place, kind, options, *_ in mounts
        if kind == "cgroup2" or (kind == "cgroup" and "memory" in options.split(","))
    }
    if "memory" in roots:
        folder, used, limit = roots["memory"], "memory.usage_in_bytes", "memory.limit_in_bytes"
    else:
        folder, used, limit = roots["cgroup2"], "memory.current", "memory.max"
        (folder / "cgroup.subtree_control").write_text("+memory")
    with new_cgroup(folder / f"iorec-test-{os.getpid()}") as inner:
        yield inner, used, limit


def test_a_recorder_that_is_out_of_memory_leaves_what_it_wrote(
    disk: LoopDevice, ram_folder: Path, memory_cgroup: tuple[Path, str, str]
) -> None:
    output = ram_folder / "run.parquet"
    folder, used, limit = memory_cgroup
    enter = f"echo $$ > {folder}/cgroup.procs; exec {IOREC} record -d {disk.name} -o {output}"
    with running_load(disk, "--rw=read"):
        recording = subprocess.Popen(["sh", "-c", enter], stderr=subprocess.PIPE, text=True)
        wait_for_line(recording)
        time.sleep(1.5)
        # The spool in memory counts too, and cannot be given back.
        (folder / limit).write_text(str(int((folder / used).read_text()) + (1 << 20)))
        recording.communicate(timeout=60)
    assert recording.returncode == -signal.SIGKILL
    capture = recovered(output, disk)
    assert len(capture.table) > 100_000


def test_a_capture_whose_writing_is_cut_off_is_whole_or_recovered(
    disk: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with running_load(disk, "--rw=read"):
        recording = start_recording(output, "-d", disk.name)
        time.sleep(4)
        recording.send_signal(signal.SIGINT)
        wait_for_writing(ram_folder)
        recording.kill()
        recording.wait()
    # The recording ended by itself, so nothing of it may be missing.
    moments = random.Random(7)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *[9] * 4):
        if output.exists():
            break
        assert part_of(output).exists()
        again = subprocess.Popen([str(IOREC), "recover", part_of(output)], stderr=subprocess.PIPE)
        wait_for_writing(ram_folder)
        time.sleep(moments.uniform(0, 0.3))
        again.send_signal(number)
        again.communicate()
    if not output.exists():
        assert recover(part_of(output)) == 0
    capture = read_capture(output)
    assert capture.metadata["complete"]
    assert_accounts_close(capture, disk.name)
    assert_sequential_prefix(capture, disk)
    assert set(ram_folder.iterdir()) == {output, disk.backing}


def wait_for_writing(folder: Path) -> None:
    """Until a file other than the disk and the spool is there, or 5 s."""
    deadline = time.monotonic() + 5
    while len(list(folder.iterdir())) < 3 and time.monotonic() < deadline:
        time.sleep(0.002)


def test_a_second_hangup_does_not_abort_the_writing(disk: LoopDevice, ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    with running_load(disk, "--rw=read"):
        recording = start_recording(output, "-d", disk.name)
        time.sleep(2)
        recording.send_signal(signal.SIGHUP)
        wait_for_writing(ram_folder)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGQUIT):
            recording.send_signal(number)
        assert recording.wait(30) == 0
    assert read_capture(output).metadata["complete"]


def test_a_recorder_killed_while_it_starts_is_in_nobodys_way(ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    recording = subprocess.Popen([IOREC, "record", "-o", output], stderr=subprocess.DEVNULL)
    while not part_of(output).exists():
        time.sleep(0.001)
    recording.kill()
    recording.wait()
    hinted = subprocess.run([IOREC, "recover", part_of(output)], stderr=subprocess.PIPE, text=True)
    assert_one_error(hinted.stderr)
    run(IOREC, "record", "-o", output, "--duration", "100ms")
    assert read_capture(output).metadata["complete"]


def test_ctrl_c_at_a_terminal_leaves_every_file_of_a_rotation_whole(
    disk: LoopDevice, ram_folder: Path
) -> None:
    recording = subprocess.Popen(
        [
            *(IOREC, "record", "-d", disk.name, "-o", ram_folder / "run.parquet"),
            *("--max-size", "1M", "--rotate", "99"),
        ],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_line(recording)
    with running_load(disk, "--rw=read"):
        while not (ram_folder / "run-00003.parquet.part").exists():
            time.sleep(0.01)
        # As a terminal does: to the recorder and to all that it has started.
        os.killpg(recording.pid, signal.SIGINT)
        assert recording.wait(60) == 0
    paths = [path for path in sorted(ram_folder.iterdir()) if path != disk.backing]
    assert [path.name for path in paths[:3]] == [f"run-0000{n}.parquet" for n in (1, 2, 3)]
    assert {path.suffix for path in paths} == {".parquet"}
    captures = [read_capture(path) for path in paths]
    assert all(capture.metadata["complete"] for capture in captures)
    offsets = pa.concat_tables([rows_of_fio(capture, disk) for capture in captures]).sort_by("time")
    steps = np.diff(offsets["offset"].to_numpy()) // BLOCK % (DEVICE_BYTES // BLOCK)
    missing = sum(missed_completions(capture, disk.name) for capture in captures)
    assert int((steps - 1).sum()) <= missing + IN_FLIGHT


def test_a_running_recording_is_neither_recovered_nor_overwritten(ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    recording = start_recording(output)
    assert recover(part_of(output)) == 1
    second = subprocess.run(
        [IOREC, "record", "-f", "-o", output], stderr=subprocess.PIPE, text=True
    )
    assert second.returncode == 1
    assert_one_error(second.stderr)
    stop_recording(recording)
    assert read_capture(output).metadata["complete"]


def test_a_signal_under_load_ends_a_recording_like_ctrl_c(
    disk: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with running_load(disk, "--rw=read"):
        recording = start_recording(output, "-d", disk.name)
        programs = programs_of(recording.pid)
        time.sleep(0.5)
        recording.send_signal(signal.SIGTERM)
        assert recording.wait(30) == 0
    assert_gone(programs)
    capture = read_capture(output)
    assert capture.metadata["complete"]
    assert_accounts_close(capture, disk.name)
    assert_sequential_prefix(capture, disk)


def test_a_hangup_does_not_end_a_recording_under_nohup(ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    shell = f"trap '' HUP; exec {IOREC} record --duration 2s -o {output}"
    recording = subprocess.Popen(["sh", "-c", shell], stderr=subprocess.PIPE, text=True)
    wait_for_line(recording)
    recording.send_signal(signal.SIGHUP)
    assert recording.wait(30) == 0
    assert read_capture(output).metadata["duration_s"] >= 2


def wait_for_line(recording: subprocess.Popen[str]) -> None:
    """Until it records."""
    assert recording.stderr is not None
    while not (line := recording.stderr.readline()).startswith("recording "):
        assert line, recording.wait()


@pytest.mark.parametrize("closed_before", ["start", "end"])
def test_a_reader_of_stderr_that_goes_does_not_lose_the_capture(
    ram_folder: Path, closed_before: str
) -> None:
    output = ram_folder / "run.parquet"
    recording = subprocess.Popen(
        [IOREC, "record", "--duration", "1500ms", "-o", output], stderr=subprocess.PIPE, text=True
    )
    assert recording.stderr is not None
    if closed_before == "end":
        wait_for_line(recording)
    recording.stderr.close()
    recording.wait(30)
    assert read_capture(output).metadata["complete"]
    assert recording.returncode == 0


@pytest.mark.parametrize("closing", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_not_lose_the_capture(ram_folder: Path, closing: str) -> None:
    output = ram_folder / "run.parquet"
    done = subprocess.run(
        ["sh", "-c", f"exec {IOREC} record --duration 300ms -o {output} {closing}"], timeout=30
    )
    assert output.exists()
    assert read_capture(output).metadata["complete"]
    assert done.returncode == 0


def test_a_terminal_that_hangs_up_does_not_lose_the_capture(ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    terminal, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    recording = subprocess.Popen(
        [IOREC, "record", "-o", output],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    shown = b""
    while b" lost " not in shown:
        shown += os.read(terminal, 4096)
    os.close(terminal)
    recording.wait(30)
    assert read_capture(output).metadata["complete"]


@pytest.fixture
def small_folder(ram_folder: Path) -> Iterator[Path]:
    with small_tmpfs(ram_folder / "small", "1536k") as folder:
        yield folder


def test_a_full_disk_ends_a_recording_and_keeps_what_there_is(
    disk: LoopDevice, small_folder: Path, ram_folder: Path
) -> None:
    output = small_folder / "run.parquet"
    with running_load(disk, "--rw=read"):
        done = record_until_it_fails(output, "-d", disk.name)
    assert done.returncode == 1
    assert_one_error(done.stderr)
    assert not output.exists()
    assert [path.name for path in small_folder.iterdir()] == ["run.parquet.part"]
    assert part_of(output).stat().st_size > 1 << 20
    saved = ram_folder / "saved.parquet"
    capture = recovered(output, disk, saved)
    assert len(capture.table) > 50_000


def record_until_it_fails(
    output: Path, *options: str, limit_bytes: int = resource.RLIM_INFINITY
) -> subprocess.CompletedProcess[str]:
    def limit_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))

    return subprocess.run(
        [str(IOREC), "record", "-o", str(output), "--duration", "60s", *options],
        stderr=subprocess.PIPE,
        text=True,
        timeout=50,
        preexec_fn=limit_files,
    )


def test_room_made_on_a_full_disk_is_enough_to_recover_in_place(
    disk: LoopDevice, small_folder: Path
) -> None:
    output = small_folder / "run.csv"
    with running_load(disk, "--rw=read"):
        assert record_until_it_fails(output, "-d", disk.name).returncode == 1
    resize(small_folder, 192 << 20)  # each line has fio's command line
    assert recover(part_of(output)) == 0
    names = {path.name for path in small_folder.iterdir()}
    assert names == {"run.csv", "run.meta.json"}
    assert len(output.read_text().splitlines()) > 50_000


def test_a_limit_of_file_sizes_ends_a_recording_and_keeps_what_there_is(
    disk: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with running_load(disk, "--rw=read"):
        done = record_until_it_fails(output, "-d", disk.name, limit_bytes=2 << 20)
    assert done.returncode == 1
    assert_one_error(done.stderr)
    if output.exists():
        assert not part_of(output).exists()
    else:
        assert recover(part_of(output)) == 0
    capture = read_capture(output)
    assert_sequential_prefix(capture, disk)
    assert len(capture.table) > 100_000
    counts = capture.counts
    assert len(capture.table) == counts["recorded"] + counts["in_flight_at_stop"]
    assert counts["completions"] >= accounted(counts)


def test_a_disk_that_turns_read_only_leaves_what_was_written(
    disk: LoopDevice,
    make_loop: Callable[..., LoopDevice],
    small_folder: Path,
    ram_folder: Path,
) -> None:
    saved = ram_folder / "saved.parquet"
    with mounted_ext4(make_loop(), ram_folder / "mount") as mount:
        output = mount / "run.parquet"
        with running_load(disk, "--rw=read"):
            recording = start_recording(output, "-d", disk.name)
            time.sleep(2.5)
            run("mount", "-o", "remount,abort", mount)
            stderr = recording.communicate(timeout=30)[1]
        assert recording.returncode == 1
        assert_one_error(stderr)
        capture = recovered(output, disk, saved)
    assert len(capture.table) > 50_000


def test_a_disk_that_fails_ends_a_recording_and_keeps_what_there_is(
    disk: LoopDevice,
    make_loop: Callable[..., LoopDevice],
    small_folder: Path,
    ram_folder: Path,
) -> None:
    saved = ram_folder / "saved.parquet"
    home = make_loop(folder=small_folder)
    resize(small_folder, 48 << 20)
    with mounted_ext4(home, ram_folder / "mount") as mount:
        output = mount / "run.parquet"
        with running_load(disk, "--rw=read"):
            recording = start_recording(output, "-d", disk.name)
            time.sleep(1.5)
            run("sync", "-f", mount)
            # Each write to a new place of the disk fails from now on, which only a sync can tell.
            resize(small_folder, used_bytes(small_folder))
            stderr = recording.communicate(timeout=60)[1]
        assert recording.returncode == 1
        assert_one_error(stderr)
        capture = recovered(output, disk, saved)
        resize(small_folder, 48 << 20)
    assert len(capture.table) > 50_000


def resize(tmpfs: Path, size_bytes: int) -> None:
    run("mount", "-o", f"remount,size={size_bytes}", tmpfs)


def used_bytes(mount: Path) -> int:
    space = os.statvfs(mount)
    return (space.f_blocks - space.f_bfree) * space.f_frsize


def test_a_power_cut_costs_little_more_than_the_last_second(
    disk: LoopDevice, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    home, saved = make_loop(), ram_folder / "saved.parquet"
    with mounted_ext4(home, ram_folder / "mount") as mount, running_load(disk, "--rw=read"):
        output = mount / "run.parquet"
        recording = start_recording(output, "-d", disk.name)
        time.sleep(3.7)
        cut_ns = cut_power(mount)
        recording.kill()
        recording.communicate()
    with mounted(home, mount):
        capture = recovered(output, disk, saved)
    assert cut_ns - nanoseconds(capture.metadata["stopped_at"]) < 2.2e9


def test_a_finished_capture_outlives_a_power_cut(
    disk: LoopDevice, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    home = make_loop()
    with mounted_ext4(home, ram_folder / "mount") as mount:
        output = mount / "run.parquet"
        work = fio(disk, "--rw=read", "--io_size=20m")
        run(IOREC, "record", "-q", "-d", disk.name, "-o", output, "--", *work)
        cut_power(mount)
    with mounted(home, mount):
        capture = read_capture(output)
    missed = missed_completions(capture, disk.name)
    assert len(rows_of_fio(capture, disk)) == (20 << 8) - missed
    assert capture.metadata["complete"]


def cut_power(mount: Path) -> int:
    """Loses whatever the file system has not written to its disk yet; returns when."""
    # EXT4_IOC_SHUTDOWN with EXT4_GOING_FLAGS_NOLOGFLUSH, as xfstests simulates a power cut.
    folder = os.open(mount, os.O_RDONLY)
    try:
        fcntl.ioctl(folder, 0x8004587D, struct.pack("I", 2))
        return time.time_ns()
    finally:
        os.close(folder)


def test_a_workload_has_the_signals_that_it_would_have_without_us(ram_folder: Path) -> None:
    script = ("sh", "-c", f"grep ^Sig[BI] /proc/self/status > {ram_folder}/signals")
    run(*script)
    alone = (ram_folder / "signals").read_text()
    run(IOREC, "record", "-q", "-o", ram_folder / "run.parquet", "--", *script)
    assert (ram_folder / "signals").read_text() == alone


def test_missed_runs_are_read_where_the_kernel_keeps_them() -> None:
    with KernelTypes() as kernel:
        theirs = kernel.members("bpf_prog_info")["recursion_misses"]
    assert ProgInfo.recursion_misses.offset == theirs.offset


@pytest.mark.skipif(
    "IOREC_TEST_CLOCK" not in os.environ,
    reason="sets this machine's clock: in a virtual machine run it with IOREC_TEST_CLOCK=1",
)
@pytest.mark.parametrize("step_s", [86_400, -86_400])
def test_time_goes_on_evenly_when_the_clock_is_set(
    disk: LoopDevice, ram_folder: Path, step_s: int
) -> None:
    output = ram_folder / "run.parquet"
    with running_load(disk, "--rw=read"):
        recording = start_recording(output, "-d", disk.name)
        time.sleep(1.5)
        before_ns, at_ns = time.time_ns(), time.monotonic_ns()
        time.clock_settime_ns(time.CLOCK_REALTIME, before_ns + step_s * 10**9)
        try:
            time.sleep(2)
            stop_recording(recording)
        finally:
            now_ns = before_ns + time.monotonic_ns() - at_ns
            time.clock_settime_ns(time.CLOCK_REALTIME, now_ns)
    capture = read_capture(output)
    # fio ends when it sees a day pass.
    capture = replace(capture, table=rows_of_fio(capture, disk)[:-REQUESTS])
    (step,) = capture.metadata["clock"]["steps"]
    assert abs(step["step_ns"] - step_s * 10**9) < 10**9
    assert 0 <= nanoseconds(step["time"]) - before_ns < 2.5e9
    assert_sequential_prefix(capture, disk)
    times = capture.table["time"].cast("int64").to_numpy()
    assert times.max() - times.min() < 60e9
    assert pc.min(capture.table["latency_ns"]).as_py() > 0
