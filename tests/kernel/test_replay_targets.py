# SPDX-License-Identifier: GPL-2.0-only
"""Targets that a replay cannot be done on, and what it leaves of them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.builders import table, write_capture
from tests.kernel.conftest import LoopDevice, queue_set, run
from tests.kernel.replaying import replay, replay_command, states_left

MIB = 1 << 20
NOBODY = 65534


def test_a_device_that_is_read_only_is_not_written_to(loop: LoopDevice, source: Path) -> None:
    run("blockdev", "--setro", loop.path)
    try:
        done = replay(source, {"loop0": loop.path}, "--no-record", "--allow-writes", loop.path)
        assert (done.returncode, f"{loop.path} is read-only" in done.stderr) == (1, True)
        assert replay(source, {"loop0": loop.path}, "--no-record").returncode == 0
    finally:
        run("blockdev", "--setrw", loop.path)


def test_an_error_leaves_no_new_file(ram_folder: Path, source: Path) -> None:
    target = ram_folder / "new"
    done = replay(source, {"sda": str(target)}, "--allow-writes", target)
    assert (done.returncode, "sda is no device" in done.stderr) == (2, True)
    assert not target.exists()


def test_a_new_file_belongs_to_the_user_behind_sudo(
    ram_folder: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (ram_folder, source):
        os.chown(path, NOBODY, NOBODY)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    target = ram_folder / "new"
    done = replay(source, {"loop0": str(target)}, "--allow-writes", target, "--no-record")
    assert done.returncode == 0, done.stderr
    assert (target.stat().st_uid, target.stat().st_gid) == (NOBODY, NOBODY)


def test_a_second_replay_on_a_target_is_refused_and_the_queue_is_as_before(
    loop: LoopDevice, ram_folder: Path
) -> None:
    queue = Path(f"/sys/block/{loop.name}/queue")
    sources = []
    for size_kb in (120, 124):
        rows = table(3000, bytes=size_kb << 10, offset=0)
        sources.append(write_capture(ram_folder / f"{size_kb}.parquet", rows))
    with queue_set(loop, "max_sectors_kb", "64"):
        before = [(queue / name).read_text() for name in ("nomerges", "max_sectors_kb")]
        first = subprocess.Popen(replay_command(sources[0], {"loop0": loop.path}, "--no-record"))
        deadline = time.monotonic() + 60
        while (queue / "max_sectors_kb").read_text() != "120\n":
            assert time.monotonic() < deadline, "no replay"
            time.sleep(0.01)
        second = replay(sources[1], {"loop0": loop.path}, "--no-record")
        assert second.returncode == 1
        assert f"another replay runs on {loop.name}" in second.stderr
        assert first.wait(60) == 0
        after = [(queue / name).read_text() for name in ("nomerges", "max_sectors_kb")]
    assert after == before
    assert not states_left(loop)


def test_a_target_that_is_missing_or_too_small_is_refused(
    make_loop: Callable[..., LoopDevice], source: Path
) -> None:
    done = replay(source, {"loop0": "/dev/loop-none"})
    assert (done.returncode, "there is no target /dev/loop-none" in done.stderr) == (1, True)
    small = make_loop(MIB // 2)
    done = replay(source, {"loop0": small.path})
    assert done.returncode == 1
    assert "72 I/Os of loop0 end beyond the target's 512 KiB: it takes 800 KiB" in done.stderr
    assert "--fit wrap" in done.stderr
    for fit in ("wrap", "scale"):
        done = replay(source, {"loop0": small.path}, "--fit", fit, "--no-record")
        assert done.returncode == 0, done.stderr
        assert "moved to fit: " in done.stderr


def test_blocks_that_are_too_large_are_refused_or_fitted(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    large = make_loop(MIB, "--sector-size", "4096")
    source = write_capture(ram_folder / "run.parquet", table(8, bytes=512, offset=512))
    done = replay(source, {"loop0": large.path})
    assert "8 I/Os of loop0 are not in whole blocks" in done.stderr
    done = replay(source, {"loop0": large.path}, "--fit", "wrap")
    assert done.returncode == 0, done.stderr
