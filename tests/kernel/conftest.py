# SPDX-License-Identifier: GPL-2.0-only
"""Real block devices and real recordings for the tests that need a kernel."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.builders import table, write_capture
from tests.kernel.captures import Capture, read_capture
from tests.kernel.leftovers import end_leftovers, mark_children

IOREC = Path(sys.executable).with_name("iorec")
WORKLOADS = Path(__file__).parent / "workloads"
TMPFS = Path("/dev/shm")
DEVICE_BYTES = 256 << 20
_HOT_ADD = Path("/sys/class/zram-control/hot_add")


def run(*argv: str | int | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command that must succeed."""
    return subprocess.run([str(a) for a in argv], check=True, text=True, timeout=240, **options)


def python(text: str, *arguments: object) -> list[str]:
    """A command that runs a few lines of Python."""
    return [sys.executable, "-c", textwrap.dedent(text), *map(str, arguments)]


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
def _session() -> Iterator[None]:
    mark_children()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)  # fixtures clean up
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)  # nohup, or a shell's background, ignores some
    subprocess.run(["modprobe", "-qa", "loop", "bfq", "kyber-iosched"], check=False)
    with tempfile.TemporaryDirectory(prefix="iorec-tests-") as folder:
        Path(folder).chmod(0o1777)
        os.environ["TMPDIR"] = folder  # where what is killed leaves its temporary files
        yield


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


@pytest.fixture
def disk(loop: LoopDevice) -> Iterator[LoopDevice]:
    """A loop device on which every I/O stays a request of its own."""
    with queue_set(loop, "nomerges", "2"):
        yield loop


@contextlib.contextmanager
def queue_set(loop: LoopDevice, attribute: str, value: str) -> Iterator[None]:
    """Sets a number of the queue for a while: a loop device keeps it for its next file."""
    path = Path(f"/sys/block/{loop.name}/queue/{attribute}")
    before = path.read_text()
    path.write_text(value)
    try:
        yield
    finally:
        path.write_text(before)


@pytest.fixture
def zram() -> Iterator[str]:
    """The name of a block device without requests, in memory."""
    subprocess.run(["modprobe", "-q", "zram"], check=False)
    name = f"zram{_HOT_ADD.read_text().strip()}"
    try:
        Path(f"/sys/block/{name}/disksize").write_text(str(64 << 20))
        settle()
        yield name
    finally:
        _HOT_ADD.with_name("hot_remove").write_text(name.removeprefix("zram"))


InitCpu = tuple[list[str], dict[str, str]]


def read_init_cpu() -> InitCpu:
    """What process 1 has used of the CPUs: its ticks, and the nanoseconds of its threads."""
    ticks = Path("/proc/1/stat").read_text().rpartition(")")[2].split()[11:13]
    threads = {}
    for path in Path("/proc/1/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            threads[path.parent.name] = path.read_text().split()[0]
    return ticks, threads


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    yield
    end_leftovers()


def stop_recording(process: subprocess.Popen[str]) -> None:
    """Stops it as Ctrl-C does, and waits until the capture is written."""
    process.send_signal(signal.SIGINT)
    assert process.wait(240) == 0


def start_recording(output: Path, *options: str | Path) -> subprocess.Popen[str]:
    """Starts `iorec record`; returns when it records."""
    process = subprocess.Popen(
        [str(IOREC), "record", "-o", str(output), *map(str, options)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("recording "):
            return process
    raise AssertionError(f"record ended with {process.wait()}")


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


def cgroup_root() -> Path:
    """Where the hierarchy of cgroup2 is mounted."""
    mounts = Path("/proc/self/mounts").read_bytes().splitlines()
    (root,) = [line.split()[1] for line in mounts if line.split()[2] == b"cgroup2"]
    return Path(os.fsdecode(root))


@contextlib.contextmanager
def new_cgroup(folder: Path) -> Iterator[Path]:
    """An empty cgroup; what is in it at the end goes with it, cgroups and processes."""
    folder.mkdir()
    try:
        yield folder
    finally:
        for path in sorted(folder.glob("**/"), reverse=True):
            _remove_cgroup(path)


def _remove_cgroup(folder: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        try:
            folder.rmdir()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    with new_cgroup(cgroup_root() / f"iorec-test-{os.getpid()}") as folder:
        yield folder


@pytest.fixture
def source(ram_folder: Path) -> Path:
    """A capture to be replayed: a second of small writes to loop0."""
    rows = table(200, op="write", offset=[n * 4096 for n in range(200)])
    return write_capture(ram_folder / "run.parquet", rows)
