# SPDX-License-Identifier: GPL-2.0-only
"""The ledger of a recording closes exactly, whatever is lost, filtered or in the way."""

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest

from analyze.verdict import format_completeness
from tests.kernel.captures import (
    Capture,
    assert_accounts_close,
    assert_layers_close,
    completeness,
    lost_in_gaps,
    missed_completions,
    nanoseconds,
    read_capture,
)
from tests.kernel.conftest import (
    LoopDevice,
    queue_set,
    run,
    settle,
    start_recording,
    stop_recording,
)
from tests.kernel.load import fio, json_of, running_load
from tests.kernel.mounts import mounted_ext4

Record = Callable[..., Capture]


def test_a_million_ios_at_full_rate_are_all_recorded(record: Record, disk: LoopDevice) -> None:
    capture = record("--", *fio(disk, "--rw=randread", "--io_size=4097m"))
    comm, device = (capture.table[name].cast("string") for name in ("comm", "device"))
    is_load = pc.and_(pc.equal(comm, "fio"), pc.equal(device, disk.name))  # fio itself is read, too
    assert pc.sum(is_load).as_py() == (4097 << 8) - missed_completions(capture, disk.name)
    assert_accounts_close(capture, disk.name)


@pytest.mark.parametrize("scheduler", ["none", "mq-deadline", "bfq", "kyber"])
def test_the_ledger_closes_when_a_tiny_buffer_overflows(
    record: Record, disk: LoopDevice, ram_folder: Path, scheduler: str
) -> None:
    disk.set_queue("scheduler", scheduler)
    capture = record("-B", "4K", "--", *fio(disk, "--rw=randread", "--io_size=400m"))
    counts = capture.counts
    assert counts["lost"]["ring_full"] > 0
    assert lost_in_gaps(capture, "ring_full") == counts["lost"]["ring_full"]
    assert_accounts_close(capture, disk.name)
    rows = sum(row["recorded"] for row in counts["devices"] if row["device"] == disk.name)
    lost = sum(row["lost"] for row in counts["devices"] if row["device"] == disk.name)
    assert rows + lost == capture.metadata["diskstats"][disk.name]["read"]["ios"] >= 400 << 8
    assert "the ring buffer was full" in capture.stderr
    said = format_completeness(completeness(ram_folder / "run.parquet"))
    assert "lost (ring buffer full" in said
    assert "unaccounted" not in said
    assert "differs" not in said


def test_lost_ios_make_a_strict_recording_fail_and_keep_it(
    record: Record, loop: LoopDevice
) -> None:
    work = fio(loop, "--rw=randread", "--io_size=200m")
    capture = record("--strict", "-q", "-B", "4K", "--", *work)
    assert capture.status == 3
    assert "I/Os lost" in capture.stderr
    assert "the ring buffer was full" in capture.stderr
    assert (
        capture.stderr.splitlines()[-1]
        == "hint: the ring buffer was full: record with a larger one, -B 1M"
    )
    assert capture.counts["lost"]["ring_full"] > 0


@pytest.mark.parametrize(
    "options",
    [
        ("-c", "fio", "--op", "read"),
        ("-c", "nobody"),
        ("--op", "write", "-n", "5003"),
        ("--min-latency", "60us"),
    ],
)
def test_the_ledger_closes_with_filters_while_the_buffer_overflows(
    record: Record, disk: LoopDevice, options: tuple[str, ...]
) -> None:
    work = fio(disk, "--rw=randrw", "--io_size=200m")
    capture = record("-d", disk.name, "-B", "4K", *options, "--", *work)
    assert capture.counts["filtered"] > 0
    assert_accounts_close(capture, disk.name)


@pytest.mark.parametrize("scheduler", ["none", "mq-deadline", "bfq", "kyber"])
def test_mixed_work_is_counted_as_fio_and_the_kernel_count_it(
    record: Record, disk: LoopDevice, ram_folder: Path, scheduler: str
) -> None:
    disk.set_queue("scheduler", scheduler)
    report = ram_folder / "fio.json"
    command = [
        *("fio", "--direct=1", "--thread", f"--filename={disk.path}", "--output-format=json"),
        *(f"--output={report}", "--iodepth=16"),
        *("--name=mixed", "--rw=randrw", "--ioengine=libaio", "--bssplit=512/30:4k/40:64k/30"),
        "--number_ios=20011",
        *("--name=trim", "--stonewall", "--rw=randtrim", "--bs=4k", "--ioengine=sync"),
        "--number_ios=503",
        *("--name=sync", "--stonewall", "--rw=randwrite", "--bs=4k", "--ioengine=io_uring"),
        *("--sync=dsync", "--number_ios=1009"),
    ]
    capture = record("-d", disk.name, "--", *command)
    assert capture.status == 0, capture.stderr
    assert_accounts_close(capture, disk.name)
    jobs = {job["jobname"]: job for job in json_of(report.read_text())["jobs"]}
    done = {
        "read": jobs["mixed"]["read"]["total_ios"],
        "write": jobs["mixed"]["write"]["total_ios"] + jobs["sync"]["write"]["total_ios"],
        "discard": jobs["trim"]["trim"]["total_ios"],
    }
    assert sum(done.values()) == 20011 + 503 + 1009
    by_op = Counter(row["op"] for row in capture.rows() if row["comm"] == "fio" and row["bytes"])
    assert set(by_op) == set(done)
    for op, count in done.items():
        assert count - missed_completions(capture, disk.name, op=op) <= by_op[op] <= count
    flushes = capture.metadata["diskstats"][disk.name]["flush"]["ios"]
    missed = missed_completions(capture, disk.name, op="flush")
    assert len(capture.rows(op="cache_flush")) + missed == flushes


def test_a_device_that_diskstats_leaves_out_is_not_compared(
    record: Record, loop: LoopDevice, ram_folder: Path
) -> None:
    work = ["dd", f"if={loop.path}", "of=/dev/null", "bs=4k", "iflag=direct", "count=2003"]
    with queue_set(loop, "iostats", "0"):
        capture = record("-d", loop.name, "--", *work)
    assert len(capture.rows(comm="dd")) == 2003
    assert loop.name not in capture.metadata["diskstats"]
    said = completeness(ram_folder / "run.parquet")
    assert [device.agrees for device in said.devices if device.device == loop.name] == [None]
    assert "differs" not in format_completeness(said)


@pytest.mark.parametrize("before", ["0", "1"])
def test_a_device_whose_statistics_are_switched_while_recording_is_not_compared(
    loop: LoopDevice, ram_folder: Path, before: str
) -> None:
    output = ram_folder / "run.parquet"
    with queue_set(loop, "iostats", before):
        recording = start_recording(output, "-d", loop.name)
        read = ("dd", f"if={loop.path}", "iflag=direct", "of=/dev/null", "bs=4k", "count=500")
        run(*read, stderr=subprocess.DEVNULL)
        with queue_set(loop, "iostats", "1" if before == "0" else "0"):
            run(*read, stderr=subprocess.DEVNULL)
            stop_recording(recording)
    said = completeness(output)
    assert [device.agrees for device in said.devices if device.device == loop.name] == [None]
    assert said.recorded >= 1000


def test_a_stopped_recorder_says_what_it_missed_and_blocks_nobody(
    disk: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with running_load(disk, "--rw=randread") as load:
        recording = start_recording(output, "-d", disk.name, "-B", "64K")
        time.sleep(1)
        recording.send_signal(signal.SIGSTOP)
        stopped_ns = time.time_ns()
        progress = []
        for _ in range(8):
            before = load.ios()
            time.sleep(0.25)
            progress.append(load.ios() - before)
        continued_ns = time.time_ns()
        recording.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        stop_recording(recording)
    capture = read_capture(output)
    counts = capture.counts
    assert min(progress) > max(progress) / 10 > 100
    assert counts["lost"]["ring_full"] >= sum(progress) * 0.9
    assert_accounts_close(capture, disk.name)
    gaps = [gap for gap in counts["gaps"] if gap["cause"] == "ring_full"]
    assert lost_in_gaps(capture, "ring_full") == counts["lost"]["ring_full"]
    inside = [g for g in gaps if nanoseconds(g["stop"]) > stopped_ns + 2e8]
    inside = [g for g in inside if nanoseconds(g["start"]) < continued_ns - 2e8]
    covered = sum(nanoseconds(gap["stop"]) - nanoseconds(gap["start"]) for gap in inside)
    assert covered > 0.5 * (continued_ns - stopped_ns)  # beside others, fio does not always run
    times = capture.table["time"].cast("int64").to_numpy()
    hole = (times > stopped_ns + 2e8) & (times < continued_ns - 2e8)
    assert not hole.any()
    print(f"stopped for 2 s: {counts['recorded']} I/Os recorded, {counts['lost']}")


def test_two_recorders_hold_the_same_ios(disk: LoopDevice, ram_folder: Path) -> None:
    outputs = [ram_folder / "one.parquet", ram_folder / "two.parquet"]
    recordings = [start_recording(output, "-d", disk.name) for output in outputs]
    work = fio(disk, "--rw=randrw", "--io_size=300m")
    subprocess.run(work, check=True, stdout=subprocess.DEVNULL)
    for recording in recordings:
        recording.send_signal(signal.SIGINT)
    assert [recording.wait(30) for recording in recordings] == [0, 0]
    ios, lost = [], []
    for capture in map(read_capture, outputs):
        assert_accounts_close(capture, disk.name)
        lost.append(missed_completions(capture, disk.name))
        table = capture.table.filter(pc.equal(capture.table["comm"].cast("string"), "fio"))
        table = table.filter(pc.equal(table["device"].cast("string"), disk.name))
        columns = [table[c].cast("string").to_pylist() for c in ("op", "offset", "bytes", "tid")]
        ios.append(Counter(zip(*columns, strict=True)))
    assert 300 << 8 == ios[0].total() + lost[0] == ios[1].total() + lost[1]
    assert (ios[0] - ios[1]).total() <= lost[1]
    assert (ios[1] - ios[0]).total() <= lost[0]


def test_a_capture_on_the_recorded_disk_adds_little_to_it(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    disk = make_loop(512 << 20)
    with mounted_ext4(disk, ram_folder / "mount") as mount:
        output = mount / "run.parquet"
        recording = start_recording(output, "-d", disk.name, "--include-self")
        with running_load(disk, "--rw=randread"):
            time.sleep(5)
        loud_stopped_ns = time.time_ns()
        time.sleep(4)
        stop_recording(recording)
        capture = read_capture(output)
    assert_accounts_close(capture, disk.name)
    comms, times = capture.table["comm"].to_pylist(), capture.table["time"].cast("int64")
    others = [t for comm, t in zip(comms, times.to_pylist(), strict=True) if comm != "fio"]
    assert len(comms) > 50_000
    assert len(others) < len(comms) / 100
    # A second to settle, then what the capture adds must not feed itself.
    quiet = [t for t in others if t > loud_stopped_ns + 1e9]
    assert len(quiet) < 200


def test_memory_stays_within_its_bound_at_full_rate(loop: LoopDevice, ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    with running_load(loop, "--rw=randread"):
        recording = start_recording(output, "-d", loop.name, "--duration", "20s")
        peaks = [0]
        while recording.poll() is None:
            peaks.append(peak_bytes(recording.pid))
            time.sleep(0.05)
    metadata = read_capture(output).metadata
    assert metadata["duration_s"] >= 20
    assert metadata["counts"]["recorded"] > 100_000
    # The metadata's peak is that of the recording, the other includes the conversion.
    assert 50 << 20 < metadata["recorder"]["peak_memory_bytes"] <= 300 << 20
    assert max(peaks) <= 300 << 20


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had; 0 if it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) << 10 if "VmHWM:" in status else 0


def test_a_missed_completion_is_named_and_gives_its_start_to_no_other_io(
    record: Record, disk: LoopDevice
) -> None:
    # Orphans keep process 1 busy; some kernels hide from programs what interrupts it.
    orphans = "while :; do for _ in 1 2 3 4 5 6 7 8; do (true &); done; done"
    reaped = subprocess.Popen(["bash", "-c", orphans])
    try:
        work = fio(disk, "--rw=randwrite", "--fsync=1", "--ioengine=psync", "--iodepth=1")
        capture = record("-d", disk.name, "--", *work, "--numjobs=4", "--time_based", "--runtime=3")
    finally:
        reaped.kill()
        reaped.wait()
    assert_accounts_close(capture, disk.name)
    missed = missed_completions(capture, disk.name)
    assert missed == capture.counts["lost"]["missed_completion"]
    # Those that the kernel itself said were over when recording stopped are in no gap.
    assert lost_in_gaps(capture, "missed_completion") <= missed
    # A disk has one flush of its cache at a time: with the start of another it would overlap.
    flushes = capture.table.filter(pc.equal(capture.table["op"].cast("string"), "cache_flush"))
    starts = flushes["time"].cast("int64").to_numpy()
    latencies = flushes["latency_ns"].to_numpy()
    order = np.argsort(starts)
    assert len(starts) > 1000
    assert (starts[order][1:] >= (starts + latencies)[order][:-1]).all()


@pytest.fixture
def inline_disk(loop: LoopDevice) -> Iterator[str]:
    """The name of a disk that completes I/O where it is submitted, where the kernel has one."""
    options = ["queue_mode=2", "irqmode=0", "nr_devices=1", "submit_queues=1"]
    if subprocess.run(["modprobe", "-q", "null_blk", *options]).returncode:
        yield loop.name
        return
    try:
        settle()
        yield "nullb0"
    finally:
        run("modprobe", "-r", "null_blk")


def test_threads_that_preempt_each_other_are_all_seen(record: Record, inline_disk: str) -> None:
    threads, each = 16, 2003
    work = ["fio", "--name=load", f"--filename=/dev/{inline_disk}", "--thread", "--direct=1",
            "--rw=randread", "--bs=4k", "--ioengine=psync", f"--numjobs={threads}",
            f"--number_ios={each}", "--size=64m"]  # fmt: skip
    capture = record("-l", "request,bio", "-d", inline_disk, "--op", "read", "--", *work)
    is_load = pc.equal(capture.table["comm"].cast("string"), "fio")
    is_load = pc.and_(is_load, pc.equal(capture.table["device"].cast("string"), inline_disk))
    rows = capture.table.filter(is_load)
    for layer in ("request", "bio"):
        missed = missed_completions(capture, inline_disk, layer=layer)
        of_layer = rows.filter(pc.equal(rows["layer"].cast("string"), layer))
        assert of_layer.num_rows <= threads * each
        # Those whose completion was missed are counted, as rows without latency or as lost.
        assert pc.count(of_layer["latency_ns"]).as_py() >= threads * each - missed
    assert_layers_close(capture)
