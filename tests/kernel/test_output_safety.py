# SPDX-License-Identifier: GPL-2.0-only
"""A capture is made for its owner alone and never written through what somebody else put there."""

import contextlib
import fcntl
import itertools
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.captures import assert_accounts_close, read_capture
from tests.kernel.conftest import IOREC, LoopDevice, run, start_recording, stop_recording
from tests.kernel.load import running_load
from tests.kernel.mounts import small_tmpfs

NOBODY, SOMEBODY = 65534, 12345
PRECIOUS = "precious"
STARTED = "recording block requests"


@pytest.fixture
def precious(ram_folder: Path) -> Path:
    path = ram_folder / "precious"
    path.write_text(PRECIOUS)
    path.chmod(0o644)
    return path


@pytest.fixture
def folder(ram_folder: Path) -> Path:
    """Where the captures go."""
    path = ram_folder / "captures"
    path.mkdir()
    return path


def record(folder: Path, *options: str | Path, name: str = "run.parquet") -> tuple[int, str]:
    """Makes a short recording; returns its status and what it says."""
    done = subprocess.run(
        [str(IOREC), "record", "-o", name, "--duration", "100ms", *map(str, options)],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr
    return done.returncode, done.stderr


def assert_is_private_capture(path: Path) -> None:
    found = path.lstat()
    assert stat.S_ISREG(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert (found.st_uid, found.st_nlink) == (0, 1)
    assert read_capture(path).metadata["complete"]


# What may stand where a file is to be made: each gets the path and a precious file.
OBSTACLES: dict[str, Callable[[Path, Path], object]] = {
    "link": lambda path, precious: path.symlink_to(precious),
    "dangling link": lambda path, precious: path.symlink_to(f"{precious}.new"),
    "hard link": lambda path, precious: path.hardlink_to(precious),
    "fifo": lambda path, _: os.mkfifo(path, 0o666),
    "device node": lambda path, _: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3)),
    "file": lambda path, _: path.write_text(PRECIOUS),
}


def identity(path: Path) -> tuple[int, ...]:
    found = path.lstat()
    return found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns


@pytest.fixture(params=OBSTACLES)
def obstacle(request: pytest.FixtureRequest) -> Callable[[Path, Path], object]:
    return OBSTACLES[request.param]


def test_what_has_the_captures_name_is_kept_without_force_and_never_written_through(
    folder: Path, precious: Path, obstacle: Callable[[Path, Path], object]
) -> None:
    output = folder / "run.parquet"
    obstacle(output, precious)
    before = identity(output)
    status, said = record(folder)
    assert status == 1
    assert STARTED not in said
    assert "--force" in said
    assert list(folder.iterdir()) == [output]
    assert identity(output) == before
    assert record(folder, "--force")[0] == 0
    assert_is_private_capture(output)
    assert precious.read_text() == PRECIOUS
    assert {path.name for path in folder.parent.iterdir()} == {"precious", "captures"}


@pytest.mark.parametrize("obstacle", ["link", "dangling link", "hard link"], indirect=True)
@pytest.mark.parametrize("suffix", ["part", "tmp"])
def test_what_has_the_name_of_a_working_file_is_left_alone(
    folder: Path, precious: Path, suffix: str, obstacle: Callable[[Path, Path], object]
) -> None:
    squatter = folder / f"run.parquet.{suffix}"
    obstacle(squatter, precious)
    before = identity(squatter)
    status, said = record(folder, "--force")
    assert identity(squatter) == before
    assert precious.read_text() == PRECIOUS
    assert {path.name for path in folder.parent.iterdir()} == {"precious", "captures"}
    # Refused before anything is recorded, or worked around.
    if status == 0:
        assert_is_private_capture(folder / "run.parquet")
    else:
        assert status == 1
        assert STARTED not in said
        assert list(folder.iterdir()) == [squatter]


def test_a_folder_with_the_captures_name_is_refused_before_recording(folder: Path) -> None:
    (folder / "run.parquet").mkdir()
    status, said = record(folder, "--force")
    assert status == 1
    assert STARTED not in said
    assert [path.name for path in folder.iterdir()] == ["run.parquet"]


def test_a_description_beside_a_csv_is_kept_without_force(folder: Path) -> None:
    sidecar = folder / "run.meta.json"
    sidecar.write_text(PRECIOUS)
    assert record(folder, name="run.csv")[0] == 1
    assert sidecar.read_text() == PRECIOUS
    assert record(folder, "-f", name="run.csv")[0] == 0
    assert {path.name for path in folder.iterdir()} == {"run.csv", "run.meta.json"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_rotated_files_of_an_earlier_recording_are_kept_without_force(folder: Path) -> None:
    second = folder / "run-00002.parquet"
    second.write_text(PRECIOUS)
    status, said = record(folder, "--max-size", "1M", "--rotate", "3")
    assert status == 1
    assert STARTED not in said
    assert "--force" in said
    assert second.read_text() == PRECIOUS
    assert list(folder.iterdir()) == [second]


@pytest.mark.parametrize("name", ["run.parquet", "my run.csv"])
def test_a_file_that_appears_while_recording_is_kept_without_force(folder: Path, name: str) -> None:
    output = folder / name
    recording = start_recording(output)
    output.write_text(PRECIOUS)
    recording.send_signal(signal.SIGINT)
    said = recording.communicate(timeout=30)[1]
    assert recording.returncode == 1
    assert output.read_text() == PRECIOUS
    assert sorted(path.name for path in folder.iterdir()) == [name, f"{name}.part"]
    command = said.partition(", then: iorec ")[2].splitlines()[0]
    run(IOREC, *shlex.split(command))
    saved = folder / f"{output.stem}-recovered{output.suffix}"
    assert saved.stat().st_size > 0
    assert not (folder / f"{name}.part").exists()
    assert output.read_text() == PRECIOUS


def test_who_ends_leaves_alone_the_spool_of_who_has_just_begun(folder: Path) -> None:
    first = start_recording(folder / "run.parquet", "--duration", "100ms", "--", "sleep", "60")
    spool = folder / "run.parquet.part"
    while not (folder / "run.parquet").exists() or spool.exists():
        time.sleep(0.01)
    (folder / "run.parquet").rename(folder / "first.parquet")
    with spool.open("wb") as of_another:
        fcntl.flock(of_another, fcntl.LOCK_EX)
        first.send_signal(signal.SIGINT)
        assert first.wait(30) == 0
        assert spool.exists()


def test_a_folder_swapped_while_recording_still_gets_its_capture(
    folder: Path, ram_folder: Path
) -> None:
    recording = start_recording(folder / "run.parquet")
    (working,) = folder.iterdir()
    assert stat.S_IMODE(working.stat().st_mode) == 0o600
    original, trap = ram_folder / "original", ram_folder / "trap"
    folder.rename(original)
    trap.mkdir()
    folder.symlink_to(trap)
    stop_recording(recording)
    assert list(trap.iterdir()) == []
    assert [path.name for path in original.iterdir()] == ["run.parquet"]
    assert_is_private_capture(original / "run.parquet")


def test_a_folder_swapped_while_rotating_still_gets_its_captures(
    folder: Path, ram_folder: Path, loop: LoopDevice
) -> None:
    recording = start_recording(
        folder / "run.parquet", "-d", loop.name, "--max-size", "500K", "--rotate", "9"
    )
    original, trap = ram_folder / "original", ram_folder / "trap"
    folder.rename(original)
    trap.mkdir()
    folder.symlink_to(trap)
    with running_load(loop, "--rw=randread"):
        while not (original / "run-00003.parquet.part").exists():
            assert recording.poll() is None
            time.sleep(0.01)
    stop_recording(recording)
    assert list(trap.iterdir()) == []
    captures = sorted(path.name for path in original.iterdir())
    assert captures[:3] == [f"run-0000{number}.parquet" for number in (1, 2, 3)]
    assert {Path(name).suffix for name in captures} == {".parquet"}


def test_links_that_come_and_go_are_never_followed(folder: Path, precious: Path) -> None:
    names = [folder / f"run.parquet{suffix}" for suffix in ("", ".tmp")]
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for path in names:
                path.unlink(missing_ok=True)
                with contextlib.suppress(FileExistsError):
                    path.symlink_to(precious)

    swapper = threading.Thread(target=swap)
    recording = start_recording(folder / "run.parquet", "--force", "--duration", "200ms")
    swapper.start()
    recording.wait(60)
    stop.set()
    swapper.join()
    assert precious.read_text() == PRECIOUS
    assert stat.S_IMODE(precious.stat().st_mode) == 0o644


@pytest.fixture
def protected_symlinks() -> Iterator[Callable[[int], object]]:
    """Sets fs.protected_symlinks for a while."""
    path = Path("/proc/sys/fs/protected_symlinks")
    before = path.read_text()
    yield lambda value: path.write_text(str(value))
    path.write_text(before)


@pytest.mark.parametrize("is_protected", [1, 0])
def test_a_link_of_somebody_else_in_a_shared_folder_is_no_way_to_a_folder(
    ram_folder: Path, protected_symlinks: Callable[[int], object], is_protected: int
) -> None:
    shared, private = ram_folder / "shared", ram_folder / "private"
    private.mkdir()
    shared.mkdir()
    shared.chmod(0o1777)
    link = shared / "captures"
    link.symlink_to(private)
    os.lchown(link, SOMEBODY, SOMEBODY)
    protected_symlinks(is_protected)
    status, said = record(ram_folder, name=str(link / "run.parquet"))
    assert list(private.iterdir()) == []
    assert status == 1
    assert str(link) in said


def test_a_link_of_ones_own_is_a_way_to_a_folder(ram_folder: Path, folder: Path) -> None:
    (ram_folder / "mine").symlink_to(folder)
    assert record(ram_folder, name="mine/run.parquet")[0] == 0
    assert_is_private_capture(folder / "run.parquet")


def test_a_shared_folder_of_somebody_else_gets_a_private_capture(ram_folder: Path) -> None:
    shared = ram_folder / "shared"
    shared.mkdir()
    os.chown(shared, SOMEBODY, SOMEBODY)
    shared.chmod(0o1777)
    os.umask(before := os.umask(0))
    try:
        os.umask(0)
        assert record(shared)[0] == 0
    finally:
        os.umask(before)
    assert_is_private_capture(shared / "run.parquet")


@pytest.mark.parametrize("obstacle", ["link", "fifo", "device node"], indirect=True)
def test_what_is_no_spool_is_not_recovered(
    folder: Path, precious: Path, obstacle: Callable[[Path, Path], object]
) -> None:
    part = folder / "run.parquet.part"
    obstacle(part, precious)
    done = subprocess.run([IOREC, "recover", part], stderr=subprocess.PIPE, text=True, timeout=20)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "defect" not in done.stderr
    assert list(folder.iterdir()) == [part]
    assert precious.read_text() == PRECIOUS


def test_code_in_the_working_folder_is_not_run(folder: Path) -> None:
    trap = f"open({str(folder / 'ran')!r}, 'a').write(__name__)\n"
    for name in ("array", "bcc", "json", "re", "tempfile", "numpy", "pyarrow", "sitecustomize"):
        (folder / f"{name}.py").write_text(trap)
    (folder / "iorec").mkdir()
    (folder / "iorec" / "__init__.py").write_text(trap)
    (folder / "iorec" / "loader.py").write_text(trap)
    assert record(folder)[0] == 0
    assert not (folder / "ran").exists()


def test_under_sudo_every_file_is_the_users(folder: Path) -> None:
    os.chown(folder, NOBODY, NOBODY)
    folder.parent.chmod(0o755)
    environment = {**os.environ, "SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)}
    seen = set()
    recording = subprocess.Popen(
        [IOREC, "record", "-o", folder / "run.csv", "--duration", "500ms"],
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    while recording.poll() is None:
        for path in folder.iterdir():
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            seen.add((path.suffix, found.st_uid, stat.S_IMODE(found.st_mode)))
        time.sleep(0.001)
    assert recording.returncode == 0
    assert {path.name for path in folder.iterdir()} == {"run.csv", "run.meta.json"}
    assert {(uid, mode) for _, uid, mode in seen} <= {(NOBODY, 0o600), (0, 0o600)}
    assert {path.stat().st_uid for path in folder.iterdir()} == {NOBODY}
    assert ".part" in {suffix for suffix, _, _ in seen}


@contextlib.contextmanager
def recording_below(loop: LoopDevice, output: Path, cwd: Path, *options: str) -> Iterator[Any]:
    """Records what a load does, from another folder, until the end of the block."""
    recording = subprocess.Popen(
        [IOREC, "record", "-o", output, "-d", loop.name, *options],
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
    )
    assert recording.stderr is not None
    said = [recording.stderr.readline()]
    while not said[-1].startswith("recording "):
        assert said[-1], said
        said.append(recording.stderr.readline())
    with running_load(loop, "--rw=randread"):
        yield recording
        time.sleep(0.5)
    recording.send_signal(signal.SIGINT)


def saved_in(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("iorec-*/run*"))


def test_a_deleted_folder_costs_no_row(folder: Path, ram_folder: Path, loop: LoopDevice) -> None:
    elsewhere = ram_folder / "elsewhere"
    elsewhere.mkdir()
    with recording_below(loop, folder / "run.parquet", elsewhere) as recording:
        time.sleep(0.3)
        shutil.rmtree(folder)
    said = recording.communicate(timeout=60)[1]
    assert recording.returncode == 1
    (saved,) = saved_in(elsewhere)
    assert saved.name == "run.parquet"
    assert f"next: iorec report {saved}" in said
    assert f"the folder {folder} was deleted" in said
    assert str(saved.parent) in said.partition("hint: ")[2]
    assert_is_private_capture(saved)
    capture = read_capture(saved)
    assert len(capture.table) == capture.counts["recorded"] > 1000
    assert not folder.exists()


def test_a_folder_deleted_with_the_current_one_costs_no_row(
    folder: Path, loop: LoopDevice, ram_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = ram_folder / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with recording_below(loop, Path("run.csv"), folder) as recording:
        shutil.rmtree(folder)
    assert recording.wait(60) == 1
    assert [path.name for path in saved_in(temporary)] == ["run.csv", "run.meta.json"]


def test_a_folder_deleted_while_rotating_costs_no_row_from_then_on(
    folder: Path, ram_folder: Path, loop: LoopDevice
) -> None:
    elsewhere = ram_folder / "elsewhere"
    elsewhere.mkdir()
    options = ("--max-size", "400K", "--rotate", "1000")
    with recording_below(loop, folder / "run.parquet", elsewhere, *options) as recording:
        while not (folder / "run-00003.parquet.part").exists():
            time.sleep(0.005)
        shutil.rmtree(folder)
        while len(saved_in(elsewhere)) < 4:
            assert recording.poll() is None
            time.sleep(0.005)
    said = recording.communicate(timeout=60)[1]
    assert recording.returncode == 1
    assert f"the folder {folder} was deleted" in said
    saved = saved_in(elsewhere)
    assert {path.suffix for path in saved} == {".parquet"}
    first = int(saved[0].name[4:9])
    assert [path.name for path in saved] == [
        f"run-{number:05}.parquet" for number in range(first, first + len(saved))
    ]
    captures = [read_capture(path) for path in saved]
    assert all(len(each.table) == each.counts["recorded"] for each in captures[:-1])
    for one, other in itertools.pairwise(captures):
        assert (
            other.metadata["clock"]["start"]["monotonic_ns"]
            - one.metadata["clock"]["stop"]["monotonic_ns"]
            < 0.2e9
        )


def test_a_spool_that_is_left_for_later_is_named_and_becomes_the_capture(
    folder: Path, loop: LoopDevice
) -> None:
    load = ["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", "count=500", "iflag=direct"]
    options = ["--duration", "60s", "--convert-later", "-d", loop.name]
    status, said = record(folder, *options, "--", *load)
    assert status == 0
    assert [path.name for path in folder.iterdir()] == ["run.parquet.part"]
    assert said.endswith("next: iorec recover run.parquet.part\n")
    run(IOREC, "recover", folder / "run.parquet.part")
    assert_is_private_capture(folder / "run.parquet")
    capture = read_capture(folder / "run.parquet")
    assert capture.metadata["complete"]
    assert_accounts_close(capture, loop.name)


def test_a_deleted_spool_costs_no_row(folder: Path, ram_folder: Path, loop: LoopDevice) -> None:
    with recording_below(loop, folder / "run.parquet", ram_folder) as recording:
        (folder / "run.parquet.part").unlink()
    assert recording.wait(60) == 0
    assert len(read_capture(folder / "run.parquet").table) > 1000


def test_a_deleted_spool_that_cannot_become_a_capture_gets_a_name_again(
    folder: Path, ram_folder: Path, loop: LoopDevice
) -> None:
    with recording_below(loop, folder / "run.parquet", ram_folder) as recording:
        (folder / "run.parquet.part").unlink()
        (folder / "run.parquet").write_text(PRECIOUS)
    said = recording.communicate(timeout=60)[1]
    assert recording.returncode == 1
    spool = folder / "run.parquet.part"
    assert f"iorec recover {spool}" in said
    run(IOREC, "recover", spool, "-o", folder / "other.parquet")
    assert len(read_capture(folder / "other.parquet").table) > 1000


def test_messages_name_a_renamed_folder_as_it_is_called_now(folder: Path, ram_folder: Path) -> None:
    recording = start_recording(folder / "run.parquet")
    moved = folder.rename(ram_folder / "moved")
    recording.send_signal(signal.SIGINT)
    said = recording.communicate(timeout=30)[1]
    assert recording.returncode == 0
    assert f"next: iorec report {moved / 'run.parquet'}" in said
    assert_is_private_capture(moved / "run.parquet")


def test_a_defect_while_recording_costs_nothing_that_was_written(
    folder: Path, loop: LoopDevice
) -> None:
    code = """
import sys
from iorec.record import session
from iorec.cli import run
drop = session.drop_privileges
def drop_and_break(*arguments):
    drop(*arguments)
    from iorec.record.recorder import Recorder
    checkpoint = Recorder._checkpoint
    def fail(self):
        checkpoint(self)
        raise ZeroDivisionError("a defect")
    Recorder._checkpoint = fail
session.drop_privileges = drop_and_break
sys.exit(run(sys.argv[1:]))
"""
    with running_load(loop, "--rw=randread"):
        done = subprocess.run(
            [sys.executable, "-c", code, "record", "-d", loop.name, "-o", folder / "run.parquet"],
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert "ZeroDivisionError: a defect" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["run.parquet"]
    capture = read_capture(folder / "run.parquet")
    assert not capture.metadata["complete"]
    assert len(capture.table) > 1000


def test_a_command_is_waited_for_even_if_nothing_of_it_can_be_kept(ram_folder: Path) -> None:
    with small_tmpfs(ram_folder / "full", "64k") as folder:
        with contextlib.suppress(OSError):
            (folder / "fill").write_bytes(bytes(64 << 10))
        done = subprocess.run(
            [IOREC, "record", "-o", folder / "run.parquet", "--", "sh", "-c", "sleep 3; echo over"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stdout) == (1, "over\n")
    assert "No space left" in done.stderr
