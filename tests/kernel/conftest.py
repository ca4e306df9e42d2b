"""Real block devices and real recordings for the tests that need a kernel."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@contextmanager
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


@dataclass(frozen=True)
class Capture:
    """A finished capture, read with plain pyarrow."""

    table: pa.Table
    metadata: dict[str, Any]
    status: int
    stderr: str

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
    done = subprocess.run(
        [str(IOREC), "record", "-f", "-o", str(output), *map(str, options)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        timeout=240,
    )
    assert output.exists(), done.stderr
    return read_capture(output, done.returncode, done.stderr)


@pytest.fixture
def record(ram_folder: Path) -> Callable[..., Capture]:
    """Records into a folder in memory."""

    def record_there(*options: str | Path, name: str = "run.parquet") -> Capture:
        return run_record(ram_folder / name, *options)

    return record_there


def assert_accounts_close(capture: Capture) -> None:
    """Every completion is accounted for, and every device agrees with /proc/diskstats."""
    counts = capture.counts
    lost = dict(counts["lost"])
    lost.pop("missed_completion")
    accounted = ("recorded", "filtered", "began_before", "continuations")
    assert counts["completions"] == sum(counts[k] for k in accounted) + sum(lost.values())
    ours: dict[tuple[str, str], int] = {}
    for row in counts["devices"]:
        kinds = ("recorded", "filtered", "lost", "began_before")
        ours[row["device"], row["op"]] = sum(row[kind] for kind in kinds)
    for device, groups in capture.metadata["diskstats"].items():
        for group, kernel in groups.items():
            count = ours.get((device, group), 0)
            assert kernel["ios"] - kernel["edge_ios"] <= count <= kernel["ios"], (device, group)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup."""
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    (root,) = [line.split()[1] for line in mounts if line.split()[2] == "cgroup2"]
    folder = Path(root) / f"iorec-test-{os.getpid()}"
    folder.mkdir()
    yield folder
    folder.rmdir()
