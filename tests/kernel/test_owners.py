# SPDX-License-Identifier: GPL-2.0-only
"""Whose I/O it is, also where a kernel worker submits it: by file, and by the cgroup it charges."""

import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import analyze
from iorec.host.cgroups import cgroup_root, is_io_controller_unified
from tests.kernel.captures import Capture
from tests.kernel.conftest import LoopDevice, new_cgroup, run, start_recording, stop_recording
from tests.kernel.mounts import mounted_ext4, mounted_new
from tests.kernel.test_paths import finders_of

Record = Callable[..., Capture]

LAYERS = ["request", "bio"]
FILE_SYSTEMS = ["ext4", "xfs", "btrfs"]
KTHREADD = 2  # the parent of all kernel threads
needs_current_task = pytest.mark.skipif(
    tuple(map(int, platform.release().split("-")[0].split(".")[:2])) < (5, 11),
    reason="the kernel does not show its programs the task (before 5.11)",
)
XFS_BYTES = 320 << 20  # mkfs.xfs takes no less than 300 MiB


@pytest.fixture
def large_loop(make_loop: Callable[..., LoopDevice]) -> LoopDevice:
    return make_loop(XFS_BYTES)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_what_a_kworker_writes_is_known_by_file(
    record: Record, large_loop: LoopDevice, ram_folder: Path, kind: str, layer: str
) -> None:
    loop = large_loop
    with mounted_new(kind, loop, ram_folder / "mount") as mount:
        (mount / "a folder").mkdir()
        files = [mount / "one", mount / "a folder" / "tw\\o"]
        script = " && ".join(f"dd if=/dev/zero of='{file}' bs=1M count=10" for file in files)
        capture = record("-l", layer, "-d", loop.name, "--", "sh", "-c", f"{script} && sync")
        inodes = [file.stat().st_ino for file in files]
    names = [str(file).replace("\\", "\\x5c") for file in files]
    for name, inode in zip(names, inodes, strict=True):
        rows = capture.rows(file=name)
        assert sum(row["bytes"] for row in rows) == 10 << 20
        assert {row["inode"] for row in rows} == {inode}
        assert all(row["comm"].startswith(("kworker/", "sync")) for row in rows)
    with analyze.open(ram_folder / "run.parquet") as read:
        groups = {group.key["file"]: group for group in read.summary(by=["file"]).groups}
        assert [groups[name].write_bytes for name in names] == [10 << 20] * 2


@needs_current_task
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_what_the_kernel_writes_names_the_process_that_dirtied_the_file_last(
    record: Record, large_loop: LoopDevice, ram_folder: Path, kind: str, layer: str
) -> None:
    loop = large_loop
    with mounted_new(kind, loop, ram_folder / "mount") as mount:
        first, second = mount / "one", mount / "two"
        writes = f"dd if=/dev/zero of={first} bs=1M count=4 & a=$!; wait $a;"
        writes += f"head -c 4194304 /dev/zero > {second} & b=$!; wait $b;"
        writes += f"head -c 1048576 /dev/zero >> {first} & c=$!; wait $c;"
        writes += f"echo $a $b $c > {ram_folder}/pids; sync"
        capture = record("-l", layer, "-d", loop.name, "--", "sh", "-c", writes)
        _, of_second, of_first = map(int, (ram_folder / "pids").read_text().split())
    for file, size, pid in ((first, 5 << 20, of_first), (second, 4 << 20, of_second)):
        rows = [row for row in capture.rows(file=str(file)) if row["ppid"] == KTHREADD]
        assert sum(row["bytes"] for row in rows) == size
        assert {(row["dirtier_pid"], row["dirtier"]) for row in rows} == {(pid, "head")}
    others = [row for row in capture.rows() if row["ppid"] != KTHREADD]
    assert {row["dirtier"] for row in others} <= {None}
    with analyze.open(ram_folder / "run.parquet") as read:
        groups = read.summary(by=["owner"]).groups
    owners = {(group.key["owner"], group.key["owner_by"]): group for group in groups}
    assert owners["head", "dirtied last"].write_bytes == 9 << 20


@needs_current_task
def test_the_threads_of_a_process_are_one_process(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    script = ram_folder / "readers.py"
    script.write_text(
        "import mmap, os, threading, time\n"
        "def read(number):\n"
        "    open(f'/proc/self/task/{threading.get_native_id()}/comm', 'w').write(f'r{number}')\n"
        f"    fd, page = os.open('{loop.path}', os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096)\n"
        "    for place in range(20): os.preadv(fd, [page], place * 4096)\n"
        "readers = [threading.Thread(target=read, args=(number,)) for number in range(3)]\n"
        "for one in readers: one.start()\n"
        "for one in readers: one.join()\n"
        "time.sleep(0.5)\n"
    )
    capture = record("-d", loop.name, "--", "/usr/bin/python3", script)
    rows = [row for row in capture.rows(op="read") if row["comm"] in ("r0", "r1", "r2")]
    assert len({row["tid"] for row in rows}) == 3
    assert {row["process"] for row in rows} == {"python3"}
    assert {row["cmdline"] for row in rows} == {f"/usr/bin/python3 {script}"}
    assert {row["username"] for row in rows} == {"root"}
    (pid,) = {row["pid"] for row in rows}
    with analyze.open(ram_folder / "run.parquet") as read:
        processes = {group.key["pid"]: group for group in read.summary(by=["process"]).groups}
        threads = {group.key["comm"]: group for group in read.summary(by=["thread"]).groups}
    assert processes[pid].reads >= 60
    assert [threads[f"r{number}"].reads for number in range(3)] == [20] * 3


@needs_current_task
def test_a_process_that_gets_the_number_of_another_has_its_own_command_line(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    reader = (
        "import mmap, os, time\n"
        f"fd = os.open('{loop.path}', os.O_RDONLY | os.O_DIRECT)\n"
        "os.preadv(fd, [mmap.mmap(-1, 4096)], 0)\n"
        "time.sleep(0.4)\n"
    )
    script = ram_folder / "twice.py"
    script.write_text(
        "import os, subprocess, sys\n"
        "pid = None\n"
        "for word in ('one', 'two'):\n"
        "    for _ in range(100):\n"
        "        if pid: open('/proc/sys/kernel/ns_last_pid', 'w').write(str(pid - 1))\n"
        f"        child = subprocess.Popen([sys.executable, '-c', {reader!r}, word])\n"
        "        if pid in (None, child.pid): break\n"
        "        child.kill()\n"
        "        child.wait()\n"
        "    pid = child.pid\n"
        "    child.wait()\n"
    )
    capture = record("-d", loop.name, "--", "/usr/bin/python3", script)
    rows = [row for row in capture.rows(op="read") if row["cmdline"]]
    assert [row["cmdline"].split()[-1] for row in rows] == ["one", "two"]
    assert len({row["pid"] for row in rows}) == 1
    assert len({row["process_start"] for row in rows}) == 2


def python(ram_folder: Path, loop: LoopDevice, *steps: str) -> list[str]:
    """A program that takes some steps, of which `read()` reads from the device."""
    script = ram_folder / "steps.py"
    script.write_text(
        "import mmap, os, sys, time\n"
        "def read():\n"
        f"    fd = os.open('{loop.path}', os.O_RDONLY | os.O_DIRECT)\n"
        "    for _ in range(5): os.preadv(fd, [mmap.mmap(-1, 4096)], 0)\n"
        "    time.sleep(0.5)\n" + "\n".join(steps) + "\n"
    )
    script.chmod(0o644)
    return ["/usr/bin/python3", str(script)]


@needs_current_task
def test_what_a_process_becomes_is_what_its_later_ios_say(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    command = python(
        ram_folder,
        loop,
        "if len(sys.argv) == 1:",
        "    read()",
        "    open('/proc/self/comm', 'w').write('renamed')",
        "    read()",
        "    os.execv('/usr/bin/python3', ['python3', sys.argv[0], 'again'])",
        "read()",
        f"held = os.open('{loop.path}', os.O_RDONLY | os.O_DIRECT)",
        "os.setresuid(65534, 65534, 65534)",
        "for _ in range(5): os.preadv(held, [mmap.mmap(-1, 4096)], 0)",
        "time.sleep(0.5)",
    )
    capture = record("-d", loop.name, "--", *command)
    rows = [row for row in capture.rows(op="read") if row["process"] in ("python3", "renamed")]
    last_words = [row["cmdline"].split()[-1] for row in rows]
    assert [row["process"] for row in rows] == ["python3"] * 5 + ["renamed"] * 5 + ["python3"] * 10
    assert last_words == [command[1]] * 10 + ["again"] * 10
    assert [row["username"] for row in rows] == ["root"] * 15 + ["nobody"] * 5


@needs_current_task
def test_what_a_user_reads_through_an_overlay_is_that_users(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    ram_folder.chmod(0o755)
    with mounted_ext4(loop, ram_folder / "mount") as lower:
        (lower / "file").write_bytes(b"x" * (4 << 20))
        over = ram_folder / "over"
        over.mkdir()
        folders = [ram_folder / name for name in ("upper", "work")]
        for folder in folders:
            folder.mkdir()
        options = f"lowerdir={lower},upperdir={folders[0]},workdir={folders[1]}"
        run("mount", "-t", "overlay", "-o", options, "overlay", over)
        try:
            run("sync")
            Path("/proc/sys/vm/drop_caches").write_text("3")
            reader = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
            reader += ["head", "-c", "4194304", str(over / "file")]
            capture = record("-d", loop.name, "--", *reader)
        finally:
            run("umount", over)
    rows = capture.rows(comm="head", op="read", file=f"{lower}/file")
    assert sum(row["bytes"] for row in rows) >= 4 << 20
    assert {row["username"] for row in rows} == {"nobody"}


@needs_current_task
def test_who_dirtied_is_what_it_had_become(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        file = mount / "file"
        dd = f"exec dd if=/dev/zero of={file} bs=1M count=8 seek=1 conv=notrunc"
        capture = record("-d", loop.name, "--", "bash", "-c", f"(echo x > {file}; {dd}); sync")
    rows = [row for row in capture.rows(file=str(file)) if row["ppid"] == KTHREADD]
    assert sum(row["bytes"] for row in rows) > 8 << 20
    assert {row["dirtier"] for row in rows} == {"dd"}


@needs_current_task
def test_files_of_two_subvolumes_have_dirtiers_of_their_own(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_new("btrfs", loop, ram_folder / "mount") as mount:
        for name in ("a", "b"):
            run("btrfs", "-q", "subvolume", "create", mount / name)
        script = f"head -c 4194304 /dev/urandom > {mount}/a/file; "
        script += f"tail -c 2097152 {mount}/a/file > {mount}/b/file; sync"
        capture = record("-d", loop.name, "--", "sh", "-c", script)
    by_dirtier = {"head": 0, "tail": 0}
    for row in capture.rows(op="write"):
        if row["dirtier"] is not None:
            by_dirtier[row["dirtier"]] += row["bytes"]
    assert by_dirtier == {"head": 4 << 20, "tail": 2 << 20}


@needs_current_task
def test_what_a_loop_device_writes_to_its_file_has_no_dirtier(
    record: Record, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    with mounted_ext4(make_loop(), ram_folder / "mount") as mount:
        upper = make_loop(32 << 20, folder=mount)
        lower = Path(run("findmnt", "-no", "SOURCE", mount, capture_output=True).stdout.strip())
        write = f"dd if=/dev/zero of={upper.path} bs=1M count=8 oflag=direct; sync -f {mount}"
        capture = record("-d", lower.name, "--", "sh", "-c", write)
        run("losetup", "-d", upper.path)
    rows = capture.rows(file=str(upper.backing), op="write")
    assert sum(row["bytes"] for row in rows) >= 8 << 20
    assert {row["dirtier"] for row in rows} == {None}


@needs_current_task
def test_command_lines_can_be_left_out(record: Record, loop: LoopDevice) -> None:
    script = f"read -r -d '' <{loop.path}; sleep 2; : secret"
    for options, expected in (((), True), (("--no-cmdline",), False)):
        Path("/proc/sys/vm/drop_caches").write_text("3")
        capture = record("-d", loop.name, *options, "--", "bash", "-c", script)
        texts = {row["cmdline"] for row in capture.rows()}
        assert (texts != {None}) == expected
        assert {row["process"] for row in capture.rows(comm="bash")} == {"bash"}


def test_direct_io_and_metadata_are_not_taken_for_files(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        direct = f"dd if=/dev/zero of={mount}/direct bs=1M count=10 oflag=direct"
        capture = record("-d", loop.name, "--", "sh", "-c", f"{direct} && sync")
    rows = [row for row in capture.rows(comm="dd", op="write") if row["file"] != loop.path]
    assert sum(row["bytes"] for row in rows) == 10 << 20
    assert {(row["inode"], row["file"]) for row in rows} == {(None, None)}
    metadata = {row["file"] for row in capture.rows() if "jbd2" in (row["comm"] or "")}
    assert metadata <= {loop.path, None}
    assert loop.path in metadata


@pytest.mark.parametrize("kind", FILE_SYSTEMS)
def test_reads_ahead_are_those_of_the_file(
    record: Record, large_loop: LoopDevice, ram_folder: Path, kind: str
) -> None:
    loop = large_loop
    with mounted_new(kind, loop, ram_folder / "mount") as mount:
        file = mount / "read"
        file.write_bytes(b"x" * (8 << 20))
        run("umount", mount)
        run("mount", loop.path, mount)
        capture = record("-d", loop.name, "--", "cat", file)
    rows = capture.rows(file=str(file), op="read")
    assert {row["comm"] for row in rows} == {"cat"}
    assert sum(row["bytes"] for row in rows) >= 8 << 20


def test_files_of_btrfs_are_known_in_each_subvolume_that_is_mounted(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_new("btrfs", loop, ram_folder / "mount") as top:
        run("btrfs", "-q", "subvolume", "create", top / "sub")
        (top / "in top").write_text("")
        run("sync")
        other = ram_folder / "other"
        other.mkdir()
        run("mount", "-o", "subvol=sub", loop.path, other)
        try:
            files = [top / "in top", other / "in sub"]
            script = ";".join(f"dd if=/dev/zero of='{file}' bs=1M count=2" for file in files)
            capture = record("-d", loop.name, "--", "sh", "-c", f"{script}; sync")
        finally:
            run("umount", other)
    for file in files:
        assert sum(row["bytes"] for row in capture.rows(file=str(file))) == 2 << 20
    # What is no file's is the file system's own.
    others = {row["file"] for row in capture.rows(op="write")} - set(map(str, files))
    assert others <= {loop.path, None}
    assert loop.path in others


def test_a_file_of_btrfs_that_several_subvolumes_may_have_has_no_path(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_new("btrfs", loop, ram_folder / "mount") as top:
        run("btrfs", "-q", "subvolume", "create", top / "sub")
        (top / "sub" / "file").write_text("")
        run("btrfs", "-q", "subvolume", "snapshot", top / "sub", top / "snapshot")
        mounts = [ram_folder / "first", ram_folder / "second"]
        for mount, name in zip(mounts, ("sub", "snapshot"), strict=True):
            mount.mkdir()
            run("mount", "-o", f"subvol={name}", loop.path, mount)
        try:
            inode = (mounts[0] / "file").stat().st_ino
            write = f"dd if=/dev/zero of={mounts[1]}/file bs=1M count=2"
            capture = record("-d", loop.name, "--", "sh", "-c", f"{write}; sync")
        finally:
            run("umount", *mounts)
    rows = capture.rows(inode=inode, op="write")
    assert sum(row["bytes"] for row in rows) == 2 << 20
    (name,) = {row["file"] for row in rows}
    assert name.endswith(f":{inode}")


def test_files_of_btrfs_that_share_their_numbers_by_chance_have_no_path(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_new("btrfs", loop, ram_folder / "mount") as top:
        run("btrfs", "-q", "subvolume", "create", top / "sub")
        run("sync")
        files = [top / "file", top / "sub" / "file"]
        for file in files:
            file.write_text("")
        alone = top / "sub" / "alone"
        alone.write_text("")
        run("sync")
        inode, other = files[0].stat().st_ino, alone.stat().st_ino
        assert files[1].stat().st_ino == inode
        script = ";".join(f"dd if=/dev/zero of={f} bs=1M count=2" for f in [*files, alone])
        with files[0].open():  # the kernel has its name in memory
            capture = record("-d", loop.name, "--", "sh", "-c", f"{script}; sync")
    rows = capture.rows(inode=inode, op="write")
    assert sum(row["bytes"] for row in rows) == 4 << 20
    assert all(row["file"].endswith(f":{inode}") for row in rows)
    assert {row["file"] for row in capture.rows(inode=other, op="write")} == {str(alone)}


def test_what_btrfs_compresses_has_no_file(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_new("btrfs", loop, ram_folder / "mount") as mount:
        run("mount", "-o", "remount,compress-force=zstd", mount)
        write = f"cat /bin/bash > {mount}/file; sync"
        capture = record("-d", loop.name, "--", "sh", "-c", write)
    writes = capture.rows(op="write")
    assert {row["file"] for row in writes} <= {loop.path, None}
    assert [row for row in writes if row["file"] is None]


def test_a_file_system_can_be_unmounted_while_it_is_recorded(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        work = f"dd if=/dev/zero of={mount}/file bs=1M count=10 conv=fsync && sleep 1"
        unmount = f"umount {mount} && mount {loop.path} {mount}"
        capture = record("-d", loop.name, "--", "sh", "-c", f"{work} && {unmount}")
    assert capture.rows(file=f"{mount}/file")
    assert capture.status == 0, capture.stderr


@pytest.fixture
def charged_cgroup() -> Iterator[Path]:
    """A cgroup whose I/O and memory the kernel accounts for, so that writeback is charged to it."""
    root = cgroup_root()
    if root is None or not is_io_controller_unified():
        pytest.skip("I/O is charged to cgroups of version 1, which writeback does not know")
    (root / "cgroup.subtree_control").write_text("+io +memory")
    with new_cgroup(root / f"iorec-test-charged-{os.getpid()}") as folder:
        yield folder


@pytest.mark.parametrize("layer", LAYERS)
def test_writeback_by_a_kworker_is_that_of_the_cgroup_that_wrote(
    record: Record, loop: LoopDevice, ram_folder: Path, charged_cgroup: Path, layer: str
) -> None:
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        dev = Path(f"/sys/block/{loop.name}/dev").read_text().strip()
        (charged_cgroup / "io.max").write_text(f"{dev} wbps={64 << 20}")
        write = f"dd if=/dev/zero of={mount}/file bs=1M count=30"
        script = f"echo $$ > {charged_cgroup}/cgroup.procs; {write}; sync"
        capture = record("-l", layer, "-d", loop.name, "--", "sh", "-c", script)
    rows = [row for row in capture.rows(file=f"{mount}/file") if row["op"] == "write"]
    assert sum(row["bytes"] for row in rows) == 30 << 20
    assert {row["charged_cgroup"] for row in rows} == {f"/{charged_cgroup.name}"}
    by_kworker = [row for row in rows if row["comm"].startswith("kworker/")]
    assert by_kworker
    with analyze.open(ram_folder / "run.parquet") as read:
        groups = read.summary(by=["charged_cgroup"]).groups
    charged = {group.key["charged_cgroup"]: group for group in groups}
    assert charged[f"/{charged_cgroup.name}"].write_bytes >= sum(row["bytes"] for row in by_kworker)


def test_a_file_that_is_gone_keeps_its_inode(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        script = f"exec 3> {mount}/gone; rm {mount}/gone; head -c 3145728 /dev/zero >&3; sync"
        capture = record("-d", loop.name, "--", "sh", "-c", script)
    rows = [row for row in capture.rows(op="write") if row["inode"] is not None]
    assert sum(row["bytes"] for row in rows) == 3 << 20
    (name,) = {row["file"] for row in rows}
    assert name.endswith((" (deleted)", f":{rows[0]['inode']}"))


def test_the_processes_that_find_paths_end_with_the_recording(
    loop: LoopDevice, ram_folder: Path
) -> None:
    recording = start_recording(ram_folder / "run.parquet", "-d", loop.name)
    finders = finders_of(recording.pid)
    stop_recording(recording)
    assert finders
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in finders):
        assert time.monotonic() < deadline
        time.sleep(0.05)
