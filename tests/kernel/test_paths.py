# SPDX-License-Identifier: GPL-2.0-only
"""The paths of files, whatever bytes they are of, and whatever happens to who finds them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iorec.host.escape import escape_name
from tests.kernel.captures import Capture, read_capture
from tests.kernel.conftest import LoopDevice, run, start_recording, stop_recording
from tests.kernel.mounts import mounted_ext4

Record = Callable[..., Capture]

# The writes of neighbouring files are merged into one request, but never into one bio.
BIOS = ("-l", "bio", "-d")
WRITTEN = 4096
MAX_NAME = 255


def write_files(folder: Path, count: int) -> dict[int, bytes]:
    """New files by inode number."""
    files = {}
    for number in range(count):
        path = folder / f"file{number}"
        path.write_bytes(b"x" * WRITTEN)
        files[path.stat().st_ino] = os.fsencode(path)
    return files


def deep_folder(top: Path, name: bytes, depth: int) -> Path:
    folder = Path(os.fsdecode(b"/".join([os.fsencode(top), *[name] * depth])))
    folder.mkdir(parents=True)
    return folder


def assert_named(capture: Capture, files: dict[int, bytes]) -> None:
    """Every file was written, and each of its rows has its path."""
    rows = [row for row in capture.rows() if row["inode"] in files]
    assert {row["inode"] for row in rows} == set(files)
    named = {(row["inode"], row["file"]) for row in rows}
    assert named == {(inode, escape_name(path)) for inode, path in files.items()}


@pytest.mark.parametrize(
    ("name", "depth", "count"),
    [
        ("é".encode() * 120, 14, 40),
        (b"\xff\xfe\x80" * 80, 4, 256),
        (b"a" * 250, 15, 40),
        (b"\\\n\t \x01\xff" * 40, 15, 300),
    ],
    ids=["not ASCII", "not UTF-8", "4,000 bytes", "4,000 bytes, escaped"],
)
def test_each_file_has_its_path_whatever_it_is_called(
    loop: LoopDevice, ram_folder: Path, name: bytes, depth: int, count: int
) -> None:
    output = ram_folder / "run.parquet"
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        folder = deep_folder(mount, name, depth)
        recording = start_recording(output, *BIOS, loop.name)
        files = write_files(folder, count)
        run("sync", "-f", mount)
        stop_recording(recording)
    capture = read_capture(output)
    assert capture.metadata["notes"] == []
    assert_named(capture, files)


def test_a_path_longer_than_path_max_is_whole_or_that_of_its_inode(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    folders = ["a" * MAX_NAME] * 17
    told = ram_folder / "inode"
    # A shell does not go so deep.
    program = f"""
import os, sys, time
for name in sys.argv[1:]:
    os.mkdir(name)
    os.chdir(name)
with open("file", "wb") as file:
    file.write(b"x" * {WRITTEN})
    file.flush()
    os.fsync(file.fileno())
    time.sleep(1)
    with open({str(told)!r}, "w") as told:
        told.write(str(os.fstat(file.fileno()).st_ino))
"""
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        work = [sys.executable, "-c", program, *folders]
        capture = record("-d", loop.name, "--", "env", "-C", mount, *work)
    assert capture.status == 0, capture.stderr
    inode = int(told.read_text())
    (name,) = {row["file"] for row in capture.rows(inode=inode)}
    assert name.endswith(f":{inode}") or name == "/".join([str(mount), *folders, "file"])


@pytest.mark.parametrize("name", [b"\xff \n\\#", "é\t".encode()])
def test_a_mount_point_may_be_called_anything(
    loop: LoopDevice, ram_folder: Path, name: bytes
) -> None:
    output = ram_folder / "run.parquet"
    with mounted_ext4(loop, ram_folder / os.fsdecode(name)) as mount:
        recording = start_recording(output, *BIOS, loop.name)
        files = write_files(mount, 3)
        run("sync", "-f", mount)
        stop_recording(recording)
    assert_named(read_capture(output), files)


def test_a_file_system_below_another_mount_is_not_taken_for_that(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    """Both number their inodes alike, so a path found in the wrong one would be another file's."""
    below, above = make_loop(), make_loop()
    output = ram_folder / "run.parquet"
    with mounted_ext4(below, ram_folder / "mount") as mount:
        hidden = (mount / "hidden").open("wb")
        inode = (mount / "hidden").stat().st_ino
        run("mkfs.ext4", "-q", above.path)
        run("mount", above.path, mount)
        try:
            (mount / "decoy").write_bytes(b"x")
            assert (mount / "decoy").stat().st_ino == inode
            recording = start_recording(output, *BIOS, below.name)
            hidden.write(b"x" * WRITTEN)
            hidden.flush()
            os.fsync(hidden.fileno())
            hidden.close()
            stop_recording(recording)
        finally:
            run("umount", mount)
    names = {row["file"] for row in read_capture(output).rows(inode=inode)}
    assert {name.endswith(f":{inode}") for name in names} == {True}


def test_a_file_that_another_mount_hides_has_not_the_path_of_what_is_there(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        (mount / "inner").mkdir()
        with (mount / "inner" / "file").open("wb") as hidden:
            inode = os.fstat(hidden.fileno()).st_ino
            run("mount", "-t", "tmpfs", "none", mount / "inner")
            try:
                (mount / "inner" / "file").write_bytes(b"another one")
                recording = start_recording(output, *BIOS, loop.name)
                hidden.write(b"x" * WRITTEN)
                hidden.flush()
                os.fsync(hidden.fileno())
                stop_recording(recording)
            finally:
                run("umount", mount / "inner")
    names = {row["file"] for row in read_capture(output).rows(inode=inode)}
    assert {name.endswith(f":{inode}") for name in names} == {True}


def test_a_folder_that_is_mounted_alone_gives_no_path_of_another(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        (mount / "inner").mkdir()
        only = ram_folder / "only"
        only.mkdir()
        run("mount", "--bind", mount / "inner", only)
        held = (mount / "outer").open("wb")
        outer = (mount / "outer").stat().st_ino
        try:
            recording = start_recording(output, *BIOS, loop.name)
            run("umount", "--lazy", mount)
            held.write(b"x" * WRITTEN)
            held.flush()
            os.fsync(held.fileno())
            held.close()
            files = write_files(only, 1)
            run("sync", "-f", only)
            stop_recording(recording)
        finally:
            run("umount", only)
            run("mount", loop.path, mount)
    capture = read_capture(output)
    assert_named(capture, files)
    assert {row["file"].endswith(f":{outer}") for row in capture.rows(inode=outer)} == {True}


def finders_of(recorder: int) -> list[int]:
    """The processes that find its paths: the one that starts the other first."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_bytes().rpartition(b")")[2].split()[1])
            words = path.with_name("cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"iorec.host.path_finder" in words:
            found.append((parent != recorder, int(path.parent.name), parent))
    starters = {pid for is_second, pid, parent in found if not is_second}
    return [pid for is_second, pid, parent in sorted(found) if parent in {recorder, *starters}]


@contextmanager
def writing_files(mount: Path, recording: subprocess.Popen[str]) -> Iterator[dict[int, bytes]]:
    """Files that were written before and after; the recorder has seen the first ones."""
    files = write_files(mount, 50)
    run("sync", "-f", mount)
    time.sleep(0.5)
    yield files
    later = mount / "later"
    later.mkdir()
    files |= write_files(later, 50)
    run("sync", "-f", mount)
    time.sleep(1.5)
    stop_recording(recording)


@pytest.mark.parametrize("which", ["the one that answers", "the one that starts it", "one by one"])
def test_a_finder_that_is_killed_is_replaced(
    loop: LoopDevice, ram_folder: Path, which: str
) -> None:
    output = ram_folder / "run.parquet"
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        recording = start_recording(output, *BIOS, loop.name)
        with writing_files(mount, recording) as files:
            starter, finder = finders_of(recording.pid)
            victims = {"the one that answers": [finder], "the one that starts it": [starter]}
            for victim in victims.get(which, [finder, starter]):
                os.kill(victim, signal.SIGKILL)
                time.sleep(0.7)
    assert_named(read_capture(output), files)


def test_a_finder_that_hangs_is_replaced_and_that_is_noted(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        recording = start_recording(output, *BIOS, loop.name)
        os.kill(finders_of(recording.pid)[1], signal.SIGSTOP)
        files = write_files(mount, 10)
        run("sync", "-f", mount)
        time.sleep(2.5)
        for _ in range(2):  # the first one is when it is noticed
            (mount / "file0").write_bytes(b"y" * WRITTEN)
            run("sync", "-f", mount)
            time.sleep(1.5)
        stop_recording(recording)
    capture = read_capture(output)
    last = [row for row in capture.rows(op="write") if row["inode"] in files][-1]
    assert last["file"] == os.fsdecode(files[last["inode"]])
    (note,) = capture.metadata["notes"]
    assert note["what"] == "paths of files"
    assert note["count"] in (1, 2)  # on a busy machine the next one may be slow to start
    assert "did not answer" in note["message"]
    assert note["first"] < note["last"]


def test_without_a_finder_files_are_numbers_and_the_capture_says_for_how_long(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        recording = start_recording(output, *BIOS, loop.name)
        finders = finders_of(recording.pid)
        for number in (signal.SIGSTOP, signal.SIGKILL):  # at once, or one replaces the other
            for finder in finders:
                os.kill(finder, number)
        files = write_files(mount, 10)
        run("sync", "-f", mount)
        time.sleep(2.5)
        write_files(mount, 10)
        run("sync", "-f", mount)
        stop_recording(recording)
    capture = read_capture(output)
    named = {row["inode"]: row["file"] for row in capture.rows() if row["inode"] in files}
    assert set(named) == set(files)
    assert all(name.endswith(f":{inode}") for inode, name in named.items())
    (note,) = capture.metadata["notes"]
    assert "is gone" in note["message"]
    assert note["last"] > note["first"]


def test_who_finds_paths_may_do_nothing_else(ram_folder: Path) -> None:
    recording = start_recording(ram_folder / "run.parquet")
    states = [Path(f"/proc/{pid}/status").read_text() for pid in finders_of(recording.pid)]
    stop_recording(recording)
    assert len(states) == 2
    for state in states:
        fields = dict(line.split(":\t", 1) for line in state.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == fields["Gid"].split() == ["65534"] * 4
        assert fields["Groups"].strip() == ""
        assert fields["CapEff"] == fields["CapPrm"] == f"{1 << 2:016x}"
        assert fields["CapInh"] == fields["CapAmb"] == f"{0:016x}"
        assert fields["NoNewPrivs"] == "1"


def test_nothing_that_was_started_to_record_is_left_as_a_zombie(ram_folder: Path) -> None:
    recording = start_recording(ram_folder / "run.parquet")
    children = Path(f"/proc/{recording.pid}/task/{recording.pid}/children")
    deadline = time.monotonic() + 5
    while len(children.read_text().split()) > 1:  # who finds paths
        assert time.monotonic() < deadline
        time.sleep(0.05)
    stop_recording(recording)
