# SPDX-License-Identifier: GPL-2.0-only
"""Bios: every block device, one row for each, and nothing that requests do not account for."""

import errno
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pytest

import analyze
from iorec.host.devices import disk_of_file
from tests.kernel.captures import (
    Capture,
    assert_accounts_close,
    assert_layers_close,
    missed_completions,
)
from tests.kernel.conftest import LoopDevice, queue_set, run, settle
from tests.kernel.mounts import mounted_ext4

Record = Callable[..., Capture]

LAYERS = ("request", "bio")
BIOS_PER_CALL = 64  # of bpf/bio.c


@dataclass(frozen=True)
class WideDisk:
    """A disk whose requests may have more bios than a call takes, and what to read from it."""

    name: str
    path: Path


@pytest.fixture
def wide_disk(tmp_path: Path) -> Iterator[WideDisk]:
    file = tmp_path / "file"
    file.write_bytes(bytes(16 << 20))
    run("sync", file)
    disk = disk_of_file(file)
    if disk is not None and _most_segments(disk) > BIOS_PER_CALL:
        yield WideDisk(disk, file)
        return
    before = set(Path("/sys/block").iterdir())
    if subprocess.run(["modprobe", "-q", "scsi_debug", "dev_size_mb=32"]).returncode:
        pytest.skip(f"neither {tmp_path} is on a disk of {BIOS_PER_CALL} segments, nor scsi_debug")
    try:
        settle()
        (folder,) = set(Path("/sys/block").iterdir()) - before
        assert _most_segments(folder.name) > BIOS_PER_CALL
        yield WideDisk(folder.name, Path("/dev") / folder.name)
    finally:
        run("modprobe", "-r", "scsi_debug")


def _most_segments(disk: str) -> int:
    """What one of its requests may have, each from a bio of its own; 0 if it merges none."""
    queue = Path(f"/sys/block/{disk}/queue")
    if (queue / "nomerges").read_text().strip() != "0":
        return 0
    return int((queue / "max_segments").read_text())


def fio(path: str, *options: str) -> list[str]:
    return ["fio", "--name=load", f"--filename={path}", "--thread", *options]


def sums(capture: Capture, layer: str, device: str) -> dict[str, tuple[int, int]]:
    """I/Os and bytes that a layer saw, by diskstats group, whatever became of them."""
    kinds = ("recorded", "filtered", "lost", "began_before")
    return {
        row["op"]: (sum(row[kind] for kind in kinds), sum(row[f"{kind}_bytes"] for kind in kinds))
        for row in capture.counts["devices"]
        if (row["layer"], row["device"]) == (layer, device)
    }


def missed(capture: Capture, device: str) -> int:
    """What both layers missed the end of; where that was not found out, the row has no latency."""
    counted = sum(missed_completions(capture, device, layer=name) for name in ("request", "bio"))
    return counted + len(capture.rows(device=device, latency_ns=None))


@pytest.mark.parametrize("layers", ["bio", "request,bio"])
def test_a_device_without_requests_agrees_with_diskstats(
    record: Record, zram: str, ram_folder: Path, layers: str
) -> None:
    work = fio(f"/dev/{zram}", "--direct=1", "--rw=randrw", "--bs=4k", "--number_ios=8009")
    capture = record("-l", layers, "-d", zram, "--", *work)
    rows = capture.rows(device=zram, layer="bio", comm="fio")
    assert len(rows) == 8009 - missed_completions(capture, zram, layer="bio")
    assert {row["queue_ns"] for row in rows} == {row["bios"] for row in rows} == {None}
    kernel = capture.metadata["diskstats"][zram]
    for op in ("read", "write"):
        assert sums(capture, "bio", zram)[op] == (kernel[op]["ios"], kernel[op]["bytes"])
    assert_layers_close(capture)
    with analyze.open(ram_folder / "run.parquet") as read:
        compared = [row for row in read.completeness().devices if row.device == zram]
        assert {(row.op, row.agrees) for row in compared} == {("read", True), ("write", True)}


def test_bios_and_requests_of_a_file_system_have_the_same_bytes(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        script = f"""
            dd if=/dev/zero of={mount}/buffered bs=1M count=40 conv=fsync
            dd if=/dev/zero of={mount}/direct bs=8M count=5 oflag=direct
            dd if={mount}/direct of=/dev/null bs=8M iflag=direct
            dd if=/dev/zero of={mount}/small bs=4k count=211 oflag=dsync
            rm {mount}/direct; fstrim {mount}; sync
        """
        capture = record("-l", "request,bio", "-d", loop.name, "--", "sh", "-ec", script)
    assert_accounts_close(capture, loop.name)
    requests, bios = (sums(capture, layer, loop.name) for layer in LAYERS)
    kernel = capture.metadata["diskstats"][loop.name]
    for op in ("read", "write", "discard"):
        if any(missed_completions(capture, loop.name, layer=layer, op=op) for layer in LAYERS):
            continue  # which is in the account that closes
        assert requests[op] == (kernel[op]["ios"], kernel[op]["bytes"])
        assert bios[op][1] == requests[op][1]
    # Bios of 8 MiB were split: as bios they are whole, as requests in parts.
    sizes = {row["bytes"] for row in capture.rows(layer="bio", op="read")}
    assert max(sizes) > max(row["bytes"] for row in capture.rows(layer="request", op="read"))
    events = [row for row in capture.counts["events"] if row["device"] == loop.name]
    assert sum(row["splits"] for row in events) > 0
    assert requests["read"][0] == bios["read"][0] + sum(
        row["splits"] - row["merges"] for row in events if row["op"] == "read"
    )


def test_the_latency_of_a_request_lies_within_that_of_its_bio(
    record: Record, loop: LoopDevice
) -> None:
    work = fio(loop.path, "--direct=1", "--rw=randread", "--bs=4k", "--number_ios=2003")
    capture = record("-l", "request,bio", "-d", loop.name, "--", *work)
    missing = missed(capture, loop.name)
    spans: dict[str, list[tuple[int, int, int]]] = {}
    times = capture.table["time"].cast("int64").to_pylist()
    for start, row in zip(times, capture.rows(), strict=True):
        if (row["comm"], row["device"]) == ("fio", loop.name) and row["latency_ns"]:
            span = row["offset"], start, start + row["latency_ns"]
            spans.setdefault(row["layer"], []).append(span)
    requests, bios = (sorted(spans[layer]) for layer in ("request", "bio"))
    assert 2003 - missing <= min(len(requests), len(bios)) <= 2003
    if not missing:
        for request, bio in zip(requests, bios, strict=True):
            assert bio[0] == request[0]
            assert bio[1] <= request[1] < request[2] <= bio[2]
    rows = capture.rows(layer="request", comm="fio", device=loop.name)
    assert {row["bios"] for row in rows} == {1}


@pytest.mark.parametrize("batch", [13, 512])
def test_a_request_knows_how_many_bios_were_merged_into_it(
    record: Record, loop: LoopDevice, batch: int
) -> None:
    # What is submitted at once is plugged, and merged if it is adjacent.
    work = fio(loop.path, "--direct=1", "--rw=write", "--bs=4k", "--number_ios=4096",
               "--ioengine=libaio", "--iodepth=512", f"--iodepth_batch={batch}")  # fmt: skip
    with queue_set(loop, "nomerges", "0"):
        capture = record("-l", "request,bio", "-d", loop.name, "--", *work)
    requests = capture.rows(layer="request", op="write", comm="fio", device=loop.name)
    bios = capture.rows(layer="bio", op="write", comm="fio", device=loop.name)
    missing = missed(capture, loop.name)
    assert 4096 - missing <= len(bios) <= 4096
    assert abs(sum(row["bios"] for row in requests) - len(bios)) <= missing
    assert max(row["bios"] for row in requests) >= min(batch, 128)  # max_segments
    events = [row for row in capture.counts["events"] if row["device"] == loop.name]
    assert sum(row["merges"] for row in events) == len(bios) - len(requests)
    assert_layers_close(capture)


@pytest.mark.parametrize("size", ["2k", "512"])
def test_every_bio_of_a_request_that_takes_several_calls_is_recorded(
    record: Record, wide_disk: WideDisk, size: str
) -> None:
    work = fio(str(wide_disk.path), "--readonly", "--direct=1", "--rw=read", f"--bs={size}",
               "--number_ios=4096", "--ioengine=libaio", "--iodepth=4096",
               "--iodepth_batch=4096")  # fmt: skip
    capture = record("-l", "request,bio", "-d", wide_disk.name, "-c", "fio", "--", *work)
    # Direct I/O has no file; fio itself is read from the disk, too.
    requests, bios = (
        capture.rows(layer=layer, op="read", inode=None) for layer in ("request", "bio")
    )
    missing = missed(capture, wide_disk.name)
    assert 4096 - missing <= len(bios) <= 4096
    assert max(row["bios"] for row in requests) > BIOS_PER_CALL
    assert abs(sum(row["bios"] for row in requests) - len(bios)) <= missing
    assert capture.counts["in_flight_at_stop"] <= missing
    assert_layers_close(capture)


def test_a_loop_device_stands_on_the_disk_of_its_file(
    record: Record, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    lower = make_loop()
    with mounted_ext4(lower, ram_folder / "mount") as mount:
        upper = make_loop(64 << 20, folder=mount)
        try:
            copy = f"dd if=/dev/zero of={upper.path} bs=64k count=100 oflag=direct"
            devices = ("-d", lower.name, "-d", upper.name)
            capture = record("-l", "bio", *devices, "--", "sh", "-c", f"{copy}; sync")
        finally:
            run("losetup", "-d", upper.path)
    below = capture.rows(device=lower.name, above=upper.name, op="write")
    assert sum(row["bytes"] for row in below) == 100 << 16
    assert {row["above"] for row in capture.rows(device=upper.name)} == {None}
    described = {d["name"]: d["stands_on"] for d in capture.metadata["devices"]}
    assert described[upper.name] == [lower.name]


def test_the_layer_of_a_report_is_chosen_and_never_the_sum(
    record: Record, loop: LoopDevice, zram: str, ram_folder: Path
) -> None:
    read = "dd of=/dev/null bs=64k count=100 iflag=direct if="
    work = ["sh", "-c", f"{read}{loop.path}; {read}/dev/{zram}"]
    record("-l", "request,bio", "-d", loop.name, "-d", zram, "--", *work)
    output = ram_folder / "run.parquet"
    for layer, expected in (
        (None, {loop.name: 100, zram: 100}),
        ("request", {loop.name: 100}),
        ("bio", {loop.name: 100, zram: 100}),
    ):
        with analyze.open(output, layer=layer, where="comm = 'dd'") as capture:
            groups = capture.summary(by=["device"]).groups
            assert {group.key["device"]: group.ios for group in groups} == expected


def test_a_failed_bio_has_the_error_of_its_request(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    loop.backing.write_bytes(b"\0" * (1 << 20))
    work = ["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", "skip=300", "count=1", "iflag=direct"]
    capture = record("-l", "request,bio", "-d", loop.name, "--", "sh", "-c", " ".join(work))
    errors = {row["layer"]: row["errno"] for row in capture.rows(comm="dd", op="read")}
    # On 5.10 a loop device reads zeros there, and dd sees no error either.
    error = errno.EIO if capture.status else 0
    assert errors == {"request": error, "bio": error}
    assert Counter(row["layer"] for row in capture.rows(comm="dd")) == {"request": 1, "bio": 1}


def test_what_was_refused_and_sent_again_is_one_io(record: Record, loop: LoopDevice) -> None:
    # More at a time than the queue has requests, of a ring that does not wait for one.
    work = fio(loop.path, "--direct=1", "--rw=randread", "--bs=4k", "--number_ios=5003",
               "--ioengine=io_uring", "--iodepth=256")  # fmt: skip
    with queue_set(loop, "nr_requests", "16"):
        capture = record("-l", "request,bio", "-d", loop.name, "--", *work)
    for layer in ("request", "bio"):
        rows = capture.rows(layer=layer, device=loop.name, op="read")
        assert 5003 - missed(capture, loop.name) <= len(rows) <= 5003
        assert {row["errno"] for row in rows} == {0}
    refused = capture.counts["layers"]["bio"]["refused"]
    events = [row for row in capture.counts["events"] if row["device"] == loop.name]
    assert refused == sum(row["refused"] for row in events) > 0
    assert_layers_close(capture)
    assert_accounts_close(capture, loop.name)


def test_the_loss_of_bios_is_counted_when_the_buffer_overflows(
    record: Record, loop: LoopDevice
) -> None:
    work = fio(loop.path, "--direct=1", "--rw=randread", "--bs=4k", "--number_ios=60013",
               "--ioengine=io_uring", "--iodepth=64")  # fmt: skip
    capture = record("-B", "4K", "-l", "request,bio", "-d", loop.name, "--", *work)
    assert capture.counts["layers"]["bio"]["lost"]["ring_full"] > 0
    assert_layers_close(capture)
    # What no program saw the end of stays in the table of those in flight.
    requests, bios = (
        sums(capture, layer, loop.name)["read"][0]
        + len(capture.rows(layer=layer, device=loop.name, latency_ns=None))
        for layer in capture.counts["layers"]
    )
    assert requests == bios >= 60013


def test_programs_of_a_layer_that_is_not_recorded_are_not_loaded(record: Record) -> None:
    capture = record("-l", "bio", "--duration", "300ms")
    assert list(capture.counts["layers"]) == capture.metadata["layers"] == ["bio"]
    assert not pc.any(pc.equal(capture.table["layer"].cast("string"), "request")).as_py()
