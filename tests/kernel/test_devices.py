# SPDX-License-Identifier: GPL-2.0-only
"""Devices that come, go and come back while recording, and what loop devices stand on."""

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iorec.host.device_inventory import describe_devices
from iorec.host.devices import disk_of_file, disks_of_file
from iorec.host.diskstats import diskstats_delta, read_diskstats
from iorec.host.loops import loop_backing
from iorec.host.notes import Notes
from iorec.host.uevents import DiskEvent
from iorec.record.device_watch import DeviceWatch
from tests.kernel.captures import completeness, read_capture
from tests.kernel.conftest import LoopDevice, run, start_recording, stop_recording
from tests.kernel.mounts import mounted_ext4, mounted_new

LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81
WRITES = 100
BTRFS_BYTES = 128 << 20


def loop_control(request: int, number: int) -> None:
    """Tries again while somebody, such as udev, looks at the device."""
    deadline = time.monotonic() + 10
    with Path("/dev/loop-control").open("rb") as control:
        while True:
            try:
                fcntl.ioctl(control, request, number)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


@pytest.fixture
def number() -> Iterator[int]:
    """Of a loop device that is made, and removed at the end."""
    number = 1000 + os.getpid() % 1000
    loop_control(LOOP_CTL_ADD, number)
    yield number
    subprocess.run(["losetup", "-d", f"/dev/loop{number}"], check=False, stderr=subprocess.DEVNULL)
    loop_control(LOOP_CTL_REMOVE, number)


@contextmanager
def attached(number: int, file: Path, size_bytes: int = 8 << 20) -> Iterator[Path]:
    with file.open("wb") as opened:
        opened.truncate(size_bytes)
    device = Path(f"/dev/loop{number}")
    run("losetup", device, file)
    try:
        yield device
    finally:
        run("losetup", "-d", device)


def write(device: Path | str, count: int = WRITES) -> None:
    run(
        "dd",
        "if=/dev/zero",
        f"of={device}",
        "bs=4k",
        f"count={count}",
        "oflag=direct",
        "status=none",
    )


def write_partition_table(device: Path, *partitions: tuple[int, int]) -> None:
    """A master boot record with partitions by their start and size in sectors."""
    entries = [struct.pack("<B3xB3xII", 0, 0x83, *place) for place in partitions]
    table = bytes(446) + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"
    with device.open("r+b") as disk:
        disk.write(table)


def assert_nothing_disagrees(output: Path, *devices: str) -> None:
    compared = [row for row in completeness(output).devices if row.device in devices]
    assert compared
    assert [row for row in compared if row.agrees is False] == []


def test_a_loop_device_that_comes_back_with_another_file_is_a_new_one(
    loop: LoopDevice, number: int, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with attached(number, ram_folder / "one") as device:
        write(device, 3 * WRITES)
        recording = start_recording(output)
        write(device)
    loop_control(LOOP_CTL_REMOVE, number)
    loop_control(LOOP_CTL_ADD, number)
    with attached(number, ram_folder / "two", 16 << 20) as device:
        write(device)
        write(loop.path)
        stop_recording(recording)
    capture = read_capture(output)
    assert len(capture.rows(device=device.name, comm="dd")) == 2 * WRITES
    assert device.name not in capture.metadata["diskstats"]
    assert capture.metadata["diskstats"][loop.name]["write"]["ios"] >= WRITES
    (described,) = [d for d in capture.metadata["devices"] if d["name"] == device.name]
    assert described["size_bytes"] == 16 << 20
    assert_nothing_disagrees(output, device.name, loop.name)


def test_counters_that_have_grown_beyond_the_old_ones_are_still_those_of_a_new_device(
    number: int, ram_folder: Path
) -> None:
    with attached(number, ram_folder / "one") as device:
        before = read_diskstats(), read_diskstats()
    loop_control(LOOP_CTL_REMOVE, number)
    loop_control(LOOP_CTL_ADD, number)
    with attached(number, ram_folder / "one") as device:
        write(device)
        after = read_diskstats(), read_diskstats()
    counted = [reading[device.name].groups["write"].ios for reading in (before[0], after[0])]
    assert counted[1] > counted[0]
    assert device.name not in diskstats_delta(before, after)


def test_zram_that_comes_back_is_a_new_device(ram_folder: Path) -> None:
    control = Path("/sys/class/zram-control")
    if not control.exists():
        pytest.skip("this kernel has no zram")

    def add() -> Path:
        device = Path(f"/dev/zram{(control / 'hot_add').read_text().strip()}")
        Path(f"/sys/block/{device.name}/disksize").write_text("8M")
        return device

    device = add()
    try:
        write(device, 2 * WRITES)
        recording = start_recording(ram_folder / "run.parquet", "-l", "bio")
        write(device)
        remove_zram(control, device)
        assert add() == device
        write(device)
        stop_recording(recording)
    finally:
        remove_zram(control, device)
    capture = read_capture(ram_folder / "run.parquet")
    assert len(capture.rows(device=device.name, comm="dd")) == 2 * WRITES
    assert device.name not in capture.metadata["diskstats"]
    assert_nothing_disagrees(ram_folder / "run.parquet", device.name)


def remove_zram(control: Path, device: Path) -> None:
    deadline = time.monotonic() + 10
    while device.exists():
        try:
            (control / "hot_remove").write_text(device.name.removeprefix("zram"))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_device_that_goes_is_not_compared_and_its_rows_have_its_name(
    number: int, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with attached(number, ram_folder / "one") as device:
        recording = start_recording(output)
        write(device)
    loop_control(LOOP_CTL_REMOVE, number)
    time.sleep(1.5)
    stop_recording(recording)
    loop_control(LOOP_CTL_ADD, number)
    capture = read_capture(output)
    assert len(capture.rows(device=device.name, comm="dd")) == WRITES
    assert device.name not in capture.metadata["diskstats"]
    assert_nothing_disagrees(output, device.name)


def test_a_device_that_comes_while_recording_is_listed_with_its_partitions(
    number: int, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    loop_control(LOOP_CTL_REMOVE, number)
    recording = start_recording(output)
    loop_control(LOOP_CTL_ADD, number)
    with attached(number, ram_folder / "one", 32 << 20) as device:
        write_partition_table(device, (2048, 8192), (16384, 8192))
        run("partx", "-a", device)
        write(f"{device}p2")
        run("partx", "-d", device)  # before it can be looked up
        stop_recording(recording)
    capture = read_capture(output)
    assert len(capture.rows(device=device.name, partition=f"{device.name}p2", comm="dd")) == WRITES
    (described,) = [d for d in capture.metadata["devices"] if d["name"] == device.name]
    assert described["size_bytes"] == 32 << 20
    assert_nothing_disagrees(output, device.name)


def test_a_device_that_was_there_for_a_moment_has_its_name(number: int, ram_folder: Path) -> None:
    loop_control(LOOP_CTL_REMOVE, number)
    watch = DeviceWatch(Notes())
    loop_control(LOOP_CTL_ADD, number)
    dev = 7 << 20 | number
    loop_control(LOOP_CTL_REMOVE, number)
    watch.refresh()
    loop_control(LOOP_CTL_ADD, number)
    assert watch.resolve(dev, 1) == (f"loop{number}", f"loop{number}p1")
    assert f"loop{number}" in {device.name for device in watch.described()}


def test_a_disk_with_the_number_of_another_never_has_its_name(number: int) -> None:
    watch = DeviceWatch(Notes())
    dev = 259 << 20 | number
    watch.take([DiskEvent("add", dev, "nvme8n1")])
    assert watch.resolve(dev, 1) == ("nvme8n1", "nvme8n1p1")
    watch.take([DiskEvent("remove", dev, "nvme8n1"), DiskEvent("add", dev, "nvme9n1")])
    for _ in range(2):  # I/Os of both may be among those that are named now
        assert watch.resolve(dev, 0) == (f"259:{number}", None)
        watch.refresh()
    assert watch.resolve(dev, 0) == ("nvme9n1", None)
    assert watch.account_name(dev) == f"259:{number}"


def test_loop_devices_stand_on_the_disks_of_their_files(
    loop: LoopDevice, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        second = make_loop(BTRFS_BYTES, folder=mount)
        with mounted_new("btrfs", second, ram_folder / "btrfs") as upper:
            run("btrfs", "-q", "subvolume", "create", upper / "sub")
            third = make_loop(4 << 20, folder=upper / "sub")
            try:
                stands_on = {d.name: d.stands_on for d in describe_devices()}
                backing = loop_backing()
                inodes = [device.backing.stat().st_ino for device in (loop, second, third)]
                disk = disk_of_file(third.backing)
            finally:
                run("losetup", "-d", third.path)
        run("losetup", "-d", second.path)
    assert stands_on[loop.name] == ()  # its file is in memory
    assert stands_on[second.name] == (loop.name,)
    assert stands_on[third.name] == (second.name,) == (disk,)
    by_inode = {key[1]: name for key, name in backing.items() if name in (second.name, third.name)}
    assert by_inode == {inodes[1]: second.name, inodes[2]: third.name}
    (second_dev,) = [key[0] for key, name in backing.items() if name == second.name]
    assert second_dev == 7 << 20 | int(loop.name.removeprefix("loop"))
    (third_dev,) = [key[0] for key, name in backing.items() if name == third.name]
    assert third_dev >> 20 == 0  # as the kernel numbers btrfs, not as stat does


@pytest.fixture
def file_on_disk(loop: LoopDevice, ram_folder: Path) -> Iterator[Path]:
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        yield mount / "file"


def key_of(file: Path) -> tuple[int, int]:
    """By which the kernel programs know it."""
    info = file.stat()
    return os.major(info.st_dev) << 20 | os.minor(info.st_dev), info.st_ino


def test_what_was_done_to_a_file_is_not_of_a_loop_device_that_came_then(
    number: int, file_on_disk: Path
) -> None:
    watch = DeviceWatch(Notes())
    with attached(number, file_on_disk) as device:
        key = key_of(file_on_disk)
        for _ in range(2):
            watch.refresh()
            assert watch.loop_on(*key) is None
        watch.refresh()
        assert watch.loop_on(*key) == device.name
    watch.refresh()
    assert watch.loop_on(*key) is None


def test_a_loop_device_keeps_its_name_when_nobody_may_ask_it_any_more(
    number: int, file_on_disk: Path, loop: LoopDevice
) -> None:
    with attached(number, file_on_disk) as device:
        watch = DeviceWatch(Notes())
        for changed, name in ((loop.name, device.name), (device.name, None)):
            Path(f"/sys/block/{changed}/uevent").write_text("change")
            os.seteuid(65534)
            try:
                watch.refresh()
            finally:
                os.seteuid(0)
            assert watch.loop_on(*key_of(file_on_disk)) == name


def test_a_loop_device_of_another_mount_namespace_does_not_stand_on_what_its_path_leads_to(
    number: int, file_on_disk: Path
) -> None:
    file_on_disk.write_bytes(bytes(4096))
    watch = DeviceWatch(Notes())
    hide = f"mount -t tmpfs none {file_on_disk.parent} && truncate -s 1M {file_on_disk}"
    script = f"{hide} && losetup /dev/loop{number} {file_on_disk} && echo && exec sleep 60"
    with subprocess.Popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.PIPE) as hidden:
        assert hidden.stdout is not None
        hidden.stdout.readline()
        watch.refresh()
        hidden.kill()
    (described,) = [device for device in watch.described() if device.name == f"loop{number}"]
    assert described.size_bytes == 1 << 20
    assert described.stands_on == ()


def test_btrfs_on_several_disks_is_held_by_all_of_them(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    disks = [make_loop(BTRFS_BYTES) for _ in range(2)]
    run("mkfs.btrfs", "-q", *[disk.path for disk in disks])
    mount = ram_folder / "mount"
    mount.mkdir()
    run("mount", disks[0].path, mount)
    try:
        assert disks_of_file(mount) == sorted(disk.name for disk in disks)
    finally:
        run("umount", mount)


def test_a_loop_device_may_stand_on_a_block_device_or_on_a_file_that_is_gone(
    make_loop: Callable[..., LoopDevice], number: int, ram_folder: Path
) -> None:
    below = make_loop()
    with mounted_ext4(below, ram_folder / "mount") as mount:
        with attached(number, mount / "gone") as device:
            (mount / "gone").unlink()
            stands_on = {d.name: d.stands_on for d in describe_devices()}
            assert device.name not in loop_backing().values()
        assert stands_on[device.name] == (below.name,)
    run("losetup", device, below.path)
    stands_on = {d.name: d.stands_on for d in describe_devices()}
    assert stands_on[device.name] == (below.name,)
    below_number = int(below.name.removeprefix("loop"))
    assert loop_backing()[7 << 20 | below_number, 0] == device.name
