# SPDX-License-Identifier: GPL-2.0-only
"""Real block devices and real recordings for the tests that need a kernel."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

IOREC = Path(sys.executable).with_name("iorec")
WORKLOADS = Path(__file__).parent / "workloads"
TMPFS = Path("/dev/shm")
DEVICE_BYTES = 256 << 20


def run(*argv: str | int | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command that must succeed."""
    return subprocess.run([str(a) for a in argv], check=True, text=True, timeout=240, **options)


@dataclass(frozen=True)
class LoopDevice:
    """A loop device on a file in a tmpfs."""

    path: str
    backing: Path

    @property
    def name(self) -> str:
        return self.path.removeprefix("/dev/")

    def set_queue(self, attribute: str, value: str) -> None:
        Path(f"/sys/block/{self.name}/queue/{attribute}").write_text(value)


@pytest.fixture(scope="session", autouse=True)
def _modules() -> None:
    subprocess.run(["modprobe", "-qa", "loop", "bfq", "kyber-iosched"], check=False)


@pytest.fixture
def ram_folder() -> Iterator[Path]:
    """A folder in memory, so that nothing in it does block I/O."""
    with tempfile.TemporaryDirectory(dir=TMPFS, prefix="iorec-test-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def loop_devices(ram_folder: Path) -> Iterator[Callable[..., LoopDevice]]:
    """Makes loop devices and detaches them."""
    devices: list[LoopDevice] = []

    def make(size: int = DEVICE_BYTES, *options: str, folder: Path = ram_folder) -> LoopDevice:
        backing = folder / f"disk{len(devices)}"
        with backing.open("wb") as file:
            file.truncate(size)
        path = run("losetup", "-f", "--show", *options, backing, capture_output=True).stdout
        device = LoopDevice(path.strip(), backing)
        devices.append(device)
        device.set_queue("scheduler", "none")
        device.set_queue("iostats", "1")
        settle()
        return device

    try:
        yield make
    finally:
        for device in reversed(devices):
            subprocess.run(["losetup", "-d", device.path], check=False)


def settle() -> None:
    """Waits until udev has looked at every new device, if it runs here."""
    if shutil.which("udevadm"):
        run("udevadm", "settle")


@pytest.fixture
def make_loop(ram_folder: Path) -> Iterator[Callable[..., LoopDevice]]:
    with loop_devices(ram_folder) as make:
        yield make


@pytest.fixture
def loop(make_loop: Callable[..., LoopDevice]) -> LoopDevice:
    return make_loop()


InitCpu = tuple[list[str], dict[str, str]]


def read_init_cpu() -> InitCpu:
    """What process 1 has used of the CPUs: its ticks, and the nanoseconds of its threads."""
    ticks = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[11:13]
    threads = {}
    for path in Path("/proc/1/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            threads[path.parent.name] = path.read_text().split()[0]
    return ticks, threads


@dataclass(frozen=True)
class Capture:
    """A finished capture, read with plain pyarrow."""

    table: pa.Table
    metadata: dict[str, Any]
    status: int
    stderr: str
    is_init_idle: bool = False  # process 1 is known to have used no CPU meanwhile

    @property
    def counts(self) -> dict[str, Any]:
        return dict(self.metadata["counts"])

    def rows(self, **wanted: Any) -> list[dict[str, Any]]:
        """The rows that have all the wanted values."""
        return [
            row
            for row in self.table.to_pylist()
            if all(row[name] == value for name, value in wanted.items())
        ]


_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _no_recording_left() -> Iterator[None]:
    """Ends those that a test that failed has left."""
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
            process.wait()


def stop_recording(process: subprocess.Popen[str]) -> None:
    """Stops it as Ctrl-C does, and waits until the capture is written."""
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def start_recording(output: Path, *options: str | Path) -> subprocess.Popen[str]:
    """Starts `iorec record`; returns when it records."""
    process = subprocess.Popen(
        [str(IOREC), "record", "-o", str(output), *map(str, options)],
        stderr=subprocess.PIPE,
        text=True,
    )
    _started.append(process)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("recording "):
            return process
    raise AssertionError(f"record ended with {process.wait()}")


def read_capture(output: Path, status: int = 0, stderr: str = "") -> Capture:
    """Reads a Parquet capture without any of our code."""
    metadata = json.loads(pq.read_metadata(output).metadata[b"iorec"])
    return Capture(pq.read_table(output), metadata, status, stderr)


def run_record(output: Path, *options: str | Path) -> Capture:
    """Records with the installed command and reads the capture."""
    before = read_init_cpu()
    done = subprocess.run(
        [str(IOREC), "record", "-f", "-o", str(output), *map(str, options)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        timeout=240,
    )
    is_init_idle = read_init_cpu() == before
    assert output.exists(), done.stderr
    return replace(read_capture(output, done.returncode, done.stderr), is_init_idle=is_init_idle)


@pytest.fixture
def record(ram_folder: Path) -> Callable[..., Capture]:
    """Records into a folder in memory."""

    def record_there(*options: str | Path, name: str = "run.parquet") -> Capture:
        return run_record(ram_folder / name, *options)

    return record_there


def accounted(counts: dict[str, Any]) -> int:
    """The completions that a ledger, or that of a layer, explains."""
    lost = sum(count for cause, count in counts["lost"].items() if cause != "missed_completion")
    kinds = ("recorded", "filtered", "began_before", "continuations", "refused")
    return int(lost + sum(counts.get(kind, 0) for kind in kinds))


def missed_completions(
    capture: Capture,
    device: str,
    *,
    layer: str = "request",
    op: str | None = None,
    besides: Collection[str] = (),
) -> int:
    """I/Os of a device whose completion no program saw.

    Nothing else may be lost, except for the causes that the test makes (`besides`).

    Some kernels hide from programs what interrupts their process 1: none are missed where it was
    idle for sure. Those whose request was not used again are rows without latency.
    """
    lost = capture.counts["lost"]
    causes = {cause for cause, count in lost.items() if count}
    assert causes <= {"missed_completion", *besides}, lost
    if capture.is_init_idle:
        assert lost["missed_completion"] == 0
    entries = _entries(capture, layer, device, op)
    missed = sum(entry.get("missed", entry["lost"]) for entry in entries)
    assert missed <= sum(lost[cause] for cause in causes)
    return int(missed)


def _entries(capture: Capture, layer: str, device: str, op: str | None) -> list[dict[str, Any]]:
    return [
        entry
        for entry in capture.counts["devices"]
        if (entry["layer"], entry["device"]) == (layer, device) and op in (None, entry["op"])
    ]


def assert_accounts_close(capture: Capture, device: str | None = None) -> None:
    """Every completion is accounted for, and requests agree with /proc/diskstats.

    Those of one device, or of each: what else the machine does may come and go.
    """
    assert_layers_close(capture)
    counts = capture.counts
    assert counts["completions"] == accounted(counts)
    if "request" not in counts["layers"]:
        return
    by_bios = {d["name"] for d in capture.metadata["devices"] if d["has_requests"] is False}
    for name, groups in capture.metadata["diskstats"].items():
        if name in by_bios or device not in (None, name):
            continue
        for group, kernel in groups.items():
            kinds = ("recorded", "filtered", "lost", "began_before")
            entries = _entries(capture, "request", name, group)
            count = sum(entry[kind] for entry in entries for kind in kinds)
            least = kernel["ios"] - kernel["edge_ios"]
            assert least <= count <= kernel["ios"], (name, group, count, kernel)


def assert_layers_close(capture: Capture) -> None:
    """Every completion that a layer saw is accounted for."""
    for counts in capture.counts["layers"].values():
        assert counts["completions"] == accounted(counts), counts


def cgroup_root() -> Path:
    """Where the hierarchy of cgroup2 is mounted."""
    mounts = Path("/proc/self/mounts").read_bytes().splitlines()
    (root,) = [line.split()[1] for line in mounts if line.split()[2] == b"cgroup2"]
    return Path(os.fsdecode(root))


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup."""
    folder = cgroup_root() / f"iorec-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    folder.rmdir()
