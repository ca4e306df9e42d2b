# SPDX-License-Identifier: GPL-2.0-only
"""What a replay refuses to write to, what it leaves when it is killed, and how errors end it."""

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from analyze.errors import IorecError
from iorec.replay.guard import find_users
from iorec.replay.settings import Mapping, Permission
from iorec.replay.target import open_targets
from tests.builders import START_NS, table, write_capture
from tests.kernel.conftest import LoopDevice, queue_set, run
from tests.kernel.leftovers import running_marked
from tests.kernel.mounts import mounted_ext4
from tests.kernel.replaying import digest, replay, replay_command, states_left

MIB = 1 << 20


def refused(source: Path, target: str, *options: str) -> str:
    """The error of a replay that is refused, and has changed nothing."""
    done = replay(source, {"loop0": target}, "--allow-writes", target, "--no-record", *options)
    assert done.returncode == 1, done.stderr
    assert "hint: " in done.stderr
    return done.stderr


def test_a_mounted_device_is_not_written_to_but_may_be_read(
    loop: LoopDevice, ram_folder: Path, source: Path
) -> None:
    with mounted_ext4(loop, ram_folder / "mount"):
        assert f"{loop.name} is mounted on" in refused(source, loop.path)
        assert "is mounted on" in refused(source, loop.path, "--destroy-data", loop.path)
        done = replay(source, {"loop0": loop.path}, "--no-record")
    assert done.returncode == 0, done.stderr
    assert f"warning: {loop.name}: {loop.path} is in use" in done.stderr


def test_a_device_that_is_mounted_in_another_namespace_is_not_written_to(
    loop: LoopDevice, ram_folder: Path, source: Path
) -> None:
    run("mkfs.ext4", "-q", loop.path)
    folder = ram_folder / "elsewhere"
    folder.mkdir()
    program = f"mount {loop.path} {folder} && echo mounted && exec cat"
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "mounted\n"
        said = refused(source, loop.path, "--destroy-data", loop.path)
        process.stdin.close()
    assert "perhaps in another namespace" in said


def test_swap_is_not_written_to(loop: LoopDevice, source: Path) -> None:
    run("mkswap", loop.path, capture_output=True)
    run("swapon", loop.path)
    try:
        assert f"{loop.name} is swap" in refused(source, loop.path, "--destroy-data", loop.path)
    finally:
        run("swapoff", loop.path)


def test_what_a_loop_device_stands_on_is_not_written_to(loop: LoopDevice, source: Path) -> None:
    above = run("losetup", "-f", "--show", loop.path, capture_output=True).stdout.strip()
    try:
        name = Path(above).name
        assert f"{name} stands on it" in refused(source, loop.path)
        backing = str(loop.backing)
        assert f"{loop.name} stands on it" in refused(source, backing)
    finally:
        run("losetup", "-d", above)


def test_what_another_process_has_open_is_not_written_to(loop: LoopDevice, source: Path) -> None:
    program = (
        f"import sys; f = open('{loop.path}', 'r+b'); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        said = refused(source, loop.path, "--destroy-data", loop.path)
        process.stdin.close()
    assert f"({process.pid}) for writing" in said


def test_a_file_system_is_overwritten_only_if_that_is_said(loop: LoopDevice, source: Path) -> None:
    run("mkfs.ext4", "-q", "-L", "precious", loop.path)
    before = digest(loop.backing)
    assert "it holds ext4 precious" in refused(source, loop.path)
    assert digest(loop.backing) == before
    options = ["--allow-writes", loop.path, "--destroy-data", loop.path, "--no-record"]
    assert replay(source, {"loop0": loop.path}, *options).returncode == 0
    assert digest(loop.backing) != before


def test_data_in_a_file_are_overwritten_only_if_that_is_said(
    ram_folder: Path, source: Path
) -> None:
    file = ram_folder / "notes"
    file.write_bytes(b"precious" * MIB)
    before = digest(file)
    assert "it is a file with data in it" in refused(source, str(file))
    assert digest(file) == before
    options = ["--allow-writes", str(file), "--destroy-data", str(file), "--no-record"]
    assert replay(source, {"loop0": str(file)}, *options).returncode == 0
    assert digest(file) != before


def test_a_name_that_changes_its_file_is_refused(
    ram_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the opening, as whoever may write to the folder can."""
    name, harmless, precious = (ram_folder / part for part in ("name", "harmless", "precious"))
    for file in (harmless, precious):
        file.touch()
        os.truncate(file, MIB)
    name.symlink_to(harmless)

    def change(path: Path) -> list[str]:
        name.unlink()
        name.symlink_to(precious)
        return find_users(path)

    monkeypatch.setattr("iorec.replay.target.find_users", change)
    mappings, permission = [Mapping("loop0", name)], Permission((name,), ())
    with (
        pytest.raises(IorecError, match="has become another file"),
        open_targets(mappings, permission, is_dry=False),
    ):
        pass


def test_a_partition_is_refused(loop: LoopDevice, source: Path) -> None:
    if shutil.which("addpart") is None:
        pytest.skip("addpart is not installed")
    run("addpart", loop.path, 1, 2048, 4096)
    try:
        node = Path(f"{loop.path}p1")
        if not node.exists():
            pytest.skip("nothing makes device nodes of partitions here")
        done = replay(source, {"loop0": str(node)}, "--no-record")
        assert (done.returncode, "is a partition" in done.stderr) == (2, True)
    finally:
        run("delpart", loop.path, 1)


def test_without_the_option_nothing_is_written(loop: LoopDevice, source: Path) -> None:
    before = digest(loop.backing)
    done = replay(source, {"loop0": loop.path}, "--no-record")
    assert done.returncode == 0
    assert "only read" in done.stderr
    assert digest(loop.backing) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--allow-writes", "/dev/null"], "--allow-writes /dev/null is the target of no --map"),
        (["--destroy-data", "LOOP"], "--destroy-data LOOP without --allow-writes LOOP"),
        (["--map", "loop0=LOOP"], "--map names loop0 twice"),
        (["--map", "sda=LOOP"], "LOOP and LOOP are the same target"),
        (["--map", "sda=/dev/null"], "/dev/null is neither a block device nor a file"),
        (["--map", "sda"], "--map sda names no device and target"),
        (["--speed", "0"], "a speed of 0 is out of range"),
        (["--speed", "nan"], "a speed of nan is out of range"),
        (["--data", "compress:100"], "cannot write 'compress:100'"),
        (["--fit", "squeeze"], "cannot fit by 'squeeze'"),
        (["--loop", "ajar"], "cannot run the loop 'ajar'"),
        (["--writes", "drop"], "cannot replay writes as 'drop'"),
        (["--think-scale", "-1"], "a think scale of -1 is out of range"),
        (["--depth", "1000000"], "a depth of 1000000 is out of range"),
        (["-f"], "-f is for an output"),
        (["-o", "x.parquet", "--no-record"], "-o and --no-record exclude each other"),
    ],
)
def test_nonsense_is_a_usage_error(
    loop: LoopDevice, source: Path, options: list[str], message: str
) -> None:
    words = [word.replace("LOOP", loop.path) for word in options]
    done = replay(source, {"loop0": loop.path}, *words)
    assert done.returncode == 2, done.stderr
    assert message.replace("LOOP", loop.path) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_that_fails_everything_ends_the_replay(loop: LoopDevice, ram_folder: Path) -> None:
    rows = table(9000, offset=[n % 999 * 4096 + MIB for n in range(9000)])
    source = write_capture(ram_folder / "run.parquet", rows)
    os.truncate(loop.backing, MIB)  # the device has its size, the file has not
    done = replay(source, {"loop0": loop.path}, "--no-record")
    assert done.returncode == 1
    assert "fails every I/O (EIO: 1," in done.stderr
    assert "lsblk" in done.stderr


def test_a_device_that_is_detached_meanwhile_is_held(loop: LoopDevice, ram_folder: Path) -> None:
    source = write_capture(ram_folder / "run.parquet", table(3000, offset=0))
    command = replay_command(source, {"loop0": loop.path}, "--no-record")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(2.5)
    subprocess.run(["losetup", "-d", loop.path], check=False, capture_output=True)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    assert "3,000 I/Os done of 3,000, 0 failed" in said


def test_a_full_disk_for_the_output_is_said(
    loop: LoopDevice, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    count = 400_000
    rows = table(
        count,
        offset=[n * 7919 % 65_000 * 4096 for n in range(count)],
        time=[START_NS + n * 10_000 for n in range(count)],
    )
    source = write_capture(ram_folder / "run.parquet", rows)
    small = make_loop(4 * MIB)
    with mounted_ext4(small, ram_folder / "mount") as folder:
        output = folder / "replayed.parquet"
        done = replay(source, {"loop0": loop.path}, "-o", output, "--give-up-late", "60s")
        assert done.returncode == 1, done.stderr
        assert "cannot record the replay: " in done.stderr
        assert "No space left" in done.stderr


def test_memory_does_not_grow_with_the_trace(ram_folder: Path, loop: LoopDevice) -> None:
    peaks = []
    for count in (20_000, 800_000):
        rows = table(count, offset=[n % 999 * 4096 for n in range(count)])
        source = write_capture(ram_folder / f"{count}.parquet", rows)
        del rows
        command = replay_command(source, {"loop0": loop.path}, "--no-record", "--speed", "max")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_kb(process.pid))
            time.sleep(0.02)
        assert process.returncode == 0
        peaks.append(peak)
    assert peaks[1] < 150 << 10, peaks
    assert peaks[1] < peaks[0] + (60 << 10), peaks


def anonymous_kb(pid: int) -> int:
    """Memory of a process and its children that is in no file."""
    total = 0
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for one in (str(pid), *children):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{one}/status").read_text()
                total += sum(map(int, re.findall(r"RssAnon:\s+(\d+)", status)))
    return total


@contextlib.contextmanager
def killed_after(command: list[str], seconds: float) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    yield


def test_killed_at_any_moment_it_leaves_no_process_and_the_next_run_puts_the_queue_back(
    loop: LoopDevice, ram_folder: Path
) -> None:
    rows = table(30_000, offset=[n % 999 * 4096 for n in range(30_000)])
    source = write_capture(ram_folder / "run.parquet", rows)
    queue = Path(f"/sys/block/{loop.name}/queue/nomerges")
    rng = random.Random(16)
    changed = 0
    with queue_set(loop, "nomerges", "1"):
        for number in range(20):
            output = ram_folder / f"killed{number}.parquet"
            command = replay_command(source, {"loop0": loop.path}, "-o", output)
            with killed_after(command, rng.uniform(0.1, 4.0)):
                deadline = time.monotonic() + 30
                while left := running_marked():
                    assert time.monotonic() < deadline, left
                    time.sleep(0.05)
            changed += queue.read_text() != "1\n"
            done = replay(source, {"loop0": loop.path}, "--dry-run")
            assert done.returncode == 0, done.stderr
            assert queue.read_text() == "1\n"
            assert not states_left(loop)
    assert 3 < changed < 20  # some were killed before, some while it was changed
