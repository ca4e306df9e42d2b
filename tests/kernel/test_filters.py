# SPDX-License-Identifier: GPL-2.0-only
"""Filters that stand for several names, and those that let nothing through."""

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kernel.captures import Capture, assert_accounts_close, read_capture
from tests.kernel.conftest import IOREC, LoopDevice, run, start_recording
from tests.kernel.mounts import mounted_new, unmount

Record = Callable[..., Capture]
COUNTS = {"reader-1": 11, "reader-22": 13, "a-name-of-15-by": 17, "other": 19}


@pytest.fixture
def readers(ram_folder: Path, loop: LoopDevice) -> list[str]:
    """A command that has each of `COUNTS` read so often."""
    dd = shutil.which("dd")
    assert dd
    for name in COUNTS:
        shutil.copy(dd, ram_folder / name)
    read = f"if={loop.path} of=/dev/null bs=4k iflag=direct status=none"
    work = "; ".join(f"{ram_folder}/{name} {read} count={n}" for name, n in COUNTS.items())
    return ["--", "sh", "-c", work]


@pytest.mark.parametrize(
    ("patterns", "wanted"),
    [
        (["reader-1"], {"reader-1"}),
        (["reader*"], {"reader-1", "reader-22"}),
        (["*-?"], {"reader-1"}),
        (["*-[!0-9]*"], {"a-name-of-15-by"}),
        (["a-name-of-15-by"], {"a-name-of-15-by"}),
        (["*5-by", "other", "[x-z]*"], {"a-name-of-15-by", "other"}),
        (["*"], set(COUNTS)),
    ],
)
def test_a_glob_stands_for_thread_names(
    record: Record, loop: LoopDevice, readers: list[str], patterns: list[str], wanted: set[str]
) -> None:
    options = [word for pattern in patterns for word in ("-c", pattern)]
    capture = record("-d", loop.name, *options, *readers)
    rows = [row["comm"] for row in capture.rows() if row["comm"] in COUNTS]
    assert {name: rows.count(name) for name in rows} == {name: COUNTS[name] for name in wanted}
    assert capture.metadata["filters"]["comm"] == patterns
    assert_accounts_close(capture, loop.name)


def test_a_glob_stands_for_devices(record: Record, loop: LoopDevice, readers: list[str]) -> None:
    capture = record("-d", f"/dev/{loop.name[:-1]}[{loop.name[-1]}]", *readers)
    assert {row["device"] for row in capture.rows()} == {loop.name}
    assert capture.metadata["filters"]["resolved_device"] == [loop.name]
    assert f"({loop.name})" in capture.stderr


@pytest.fixture(params=["ext4", "btrfs"])
def mount(ram_folder: Path, loop: LoopDevice, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system on the device, at a path with a space in it."""
    with mounted_new(request.param, loop, ram_folder / "a mount") as folder:
        yield folder


def test_a_path_stands_for_the_device_that_is_mounted_there(
    record: Record, loop: LoopDevice, mount: Path
) -> None:
    (mount / "below").mkdir()
    write = ["dd", "if=/dev/zero", f"of={mount}/below/file", "bs=1M", "count=3", "oflag=direct"]
    capture = record("-d", mount / "below", "--", *write)
    assert capture.metadata["filters"]["device"] == [str(mount / "below")]
    assert capture.metadata["filters"]["resolved_device"] == [loop.name]
    written = [row for row in capture.rows() if row["comm"] == "dd" or "kworker" in row["comm"]]
    assert {row["device"] for row in written} == {loop.name}
    assert sum(row["bytes"] for row in written if row["op"] == "write") >= 3 << 20


@pytest.mark.parametrize("name", ["a\rb", "a\vb c", "\\040", "é\udcff"])
def test_a_device_is_found_beside_mounts_of_any_name(
    record: Record, loop: LoopDevice, mount: Path, ram_folder: Path, name: str
) -> None:
    """The output's folder is on none, which is looked up the same way."""
    beside = ram_folder / name
    beside.mkdir()
    source = b"" if name == "a\rb" else os.fsencode(name)  # mount(8) takes no empty one
    assert ctypes.CDLL(None).mount(source, bytes(beside), b"tmpfs", 0, None) == 0
    try:
        assert record("-d", mount, "--", "true").metadata["filters"]["resolved_device"] == [
            loop.name
        ]
    finally:
        unmount(beside)


def test_a_filter_that_lets_nothing_through_is_said_at_the_end_and_meanwhile(
    record: Record, loop: LoopDevice, readers: list[str], ram_folder: Path
) -> None:
    capture = record("-q", "-d", loop.name, "-c", "postgres*", *readers)
    count = f"{capture.counts['filtered']:,}"
    said = f"nothing matched -d {loop.name} -c 'postgres*'; {count} I/Os filtered out"
    assert capture.stderr.splitlines() == [f"warning: {said}"]
    recording = start_recording(ram_folder / "later.parquet", "-d", loop.name, "-c", "nobody")
    subprocess.run(readers[1:], check=True)
    assert recording.stderr is not None
    started = time.monotonic()
    assert recording.stderr.readline().startswith(f"warning: nothing matched -d {loop.name} -c no")
    assert time.monotonic() - started < 10
    recording.send_signal(signal.SIGINT)
    assert "nothing matched" in recording.communicate(timeout=30)[1]
    assert read_capture(ram_folder / "later.parquet").rows() == []


@pytest.mark.parametrize("namespace", [[], ["unshare", "--pid", "--fork", "--mount-proc"]])
@pytest.mark.parametrize("option", [[], ["--include-self"]])
def test_the_recorder_leaves_itself_out_whatever_its_number_is(
    mount: Path, loop: LoopDevice, namespace: list[str], option: list[str]
) -> None:
    output = mount / "run.parquet"
    work = f"for n in $(seq 5); do dd if=/dev/zero of='{mount}/f' bs=4k count=1 conv=fsync; done"
    run(*namespace, str(IOREC), "record", "-d", loop.name, "-o", str(output), *option,
        "--", "sh", "-c", f"{work} 2> /dev/null; sleep 1.5; sync -f '{mount}'")  # fmt: skip
    comms = {row["comm"] for row in read_capture(output).rows()}
    assert "dd" in comms
    assert ("iorec" in comms) == bool(option)
