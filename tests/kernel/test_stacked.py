# SPDX-License-Identifier: GPL-2.0-only
"""Device-mapper and md: what they and the devices below count, and how the two relate."""

import os
import subprocess
import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

import analyze
from analyze.render.report import render_text
from analyze.report import make_report
from analyze.stacks import Stack, load_stacks
from tests.kernel.captures import Capture, assert_layers_close, missed_completions
from tests.kernel.conftest import TMPFS, LoopDevice, loop_devices, run, run_record, settle
from tests.kernel.test_bios import sums

Row = dict[str, Any]

SECTOR = 512
LEG_BYTES = 64 << 20
CHUNK = 64 << 10
LINEAR_OFFSET = 4096


@dataclass(frozen=True)
class Kind:
    """A way to stack devices: the module it needs, the bytes written below for each byte."""

    module: str
    legs: int
    write_copies: int | None = None  # None: device-mapper's own worker sends what it writes
    chunk: int | None = None


KINDS = {
    "linear": Kind("dm-mod", 1, 1),
    "stripe": Kind("dm-mod", 2, 1, CHUNK),
    "mirror": Kind("dm-mirror", 2),
    "snapshot": Kind("dm-snapshot", 2),
    "raid0": Kind("raid0", 2, 1, CHUNK),
    "raid1": Kind("raid1", 2, 2),
}
MAPPED = [name for name, kind in KINDS.items() if kind.write_copies]
BY_WORKER = [name for name in KINDS if name not in MAPPED]


@dataclass(frozen=True)
class Device:
    """A stacked device on loop devices; `data_offset` is where its data begins on them."""

    name: str
    kind: Kind
    legs: tuple[str, ...]
    data_offset: int

    @property
    def is_md(self) -> bool:
        return self.name.startswith("md")

    def place_above(self, leg: str, offset: int) -> int:
        """Where the byte of a leg is on the stacked device."""
        place = offset - self.data_offset
        if self.kind.chunk is None:
            return place
        stripe, rest = divmod(place, self.kind.chunk)
        return (stripe * len(self.legs) + self.legs.index(leg)) * self.kind.chunk + rest


@dataclass(frozen=True)
class Recording:
    """One recording of the same work on every kind of stacked device that the kernel has."""

    capture: Capture
    devices: dict[str, Device]
    bios: list[Row]  # with the columns `start` and `end`, in nanoseconds
    stacks: dict[tuple[str, str], Stack]  # by device and operation
    report: list[str]

    def device(self, kind: str) -> Device:
        if kind not in self.devices:
            pytest.skip(f"this kernel has no module {KINDS[kind].module}")
        return self.devices[kind]

    def rows(self, **wanted: Any) -> list[Row]:
        """The bios that have all the wanted values."""
        return [row for row in self.bios if all(row[k] == value for k, value in wanted.items())]

    def parts(self, device: Device, op: str) -> list[Row]:
        """What the stacked device sent below; a flush is sent to every leg, with no bytes."""
        return [row for row in self.rows(above=device.name, op=op) if row["bytes"]]

    def kernel(self, device: str, op: str) -> tuple[int, int]:
        """I/Os and bytes by diskstats."""
        counted = self.capture.metadata["diskstats"][device][op]
        assert counted["edge_ios"] == 0
        return counted["ios"], counted["bytes"]


@pytest.fixture(scope="module", params=["bio", "request,bio"])
def recording(request: pytest.FixtureRequest) -> Iterator[Recording]:
    found = [name for name, kind in KINDS.items() if _has_module(kind.module)]
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(dir=TMPFS, prefix="iorec-test-"))
        )
        make_loop = stack.enter_context(loop_devices(folder))
        devices = {name: _make_device(name, make_loop, stack) for name in found}
        if not devices:
            pytest.skip("this kernel has neither device-mapper nor md")
        settle()
        work = "".join(_work(f"/dev/{device.name}") for device in devices.values())
        # udev reads what was written and closed; the recording must not end in the middle of it.
        script = f"{work} if command -v udevadm; then udevadm settle; fi"
        output = folder / "run.parquet"
        capture = run_record(output, "-l", request.param, "--", "sh", "-ec", script)
        assert capture.status == 0, capture.stderr
        stacks = {
            (stack.device, op): stack for op in ("read", "write") for stack in _stacks(output, op)
        }
        with analyze.open(output) as read:
            report = render_text(make_report(read), 100).splitlines()
        yield Recording(capture, devices, _bios(capture), stacks, report)


def _stacks(output: Path, op: str) -> tuple[Stack, ...]:
    with analyze.open(output, where=f"op = '{op}'") as capture:
        return load_stacks(capture)


def _bios(capture: Capture) -> list[Row]:
    starts = capture.table["time"].cast("int64").to_pylist()
    return [
        row | {"start": start, "end": start + row["latency_ns"]}
        for start, row in zip(starts, capture.table.drop(["time"]).to_pylist(), strict=True)
        if row["layer"] == "bio"
    ]


def _has_module(name: str) -> bool:
    if Path(f"/sys/module/{name.replace('-', '_')}").exists():
        return True
    return subprocess.run(["modprobe", "-q", name], check=False).returncode == 0


def _work(path: str) -> str:
    """Small and large, direct and cached; 1 MiB is more than a chunk, 100 KiB at its edges not."""
    return f"""
        dd if=/dev/zero of={path} bs=4k count=53 oflag=direct
        dd if={path} of=/dev/null bs=4k count=53 iflag=direct
        dd if=/dev/zero of={path} bs=1M count=7 seek=10 oflag=direct
        dd if={path} of=/dev/null bs=1M count=7 skip=10 iflag=direct
        dd if={path} of=/dev/null bs=100k count=7 skip=10 iflag=direct
        dd if=/dev/zero of={path} bs=1M count=3 seek=30 conv=fsync
    """


def _make_device(name: str, make_loop: Callable[..., LoopDevice], stack: ExitStack) -> Device:
    kind = KINDS[name]
    loops = [make_loop(LEG_BYTES) for _ in range(kind.legs)]
    make = _make_md if name.startswith("raid") else _make_mapped
    device, data_offset = make(name, [loop.path for loop in loops], stack)
    return Device(device, kind, tuple(loop.name for loop in loops), data_offset)


def _make_mapped(name: str, legs: list[str], stack: ExitStack) -> tuple[str, int]:
    sectors = LEG_BYTES // SECTOR
    first = LINEAR_OFFSET // SECTOR
    table = {
        "linear": f"0 {sectors - first} linear {legs[0]} {first}",
        "stripe": f"0 {2 * sectors} striped 2 {CHUNK // SECTOR} {legs[0]} 0 {legs[-1]} 0",
        "mirror": f"0 {sectors} mirror core 2 1024 nosync 2 {legs[0]} 0 {legs[-1]} 0",
        "snapshot": f"0 {sectors} snapshot {legs[0]} {legs[-1]} N 16",
    }[name]
    mapped = f"iorec-test-{os.getpid()}-{name}"
    # udev's rules, which dmsetup waits for, need not be there.
    run("dmsetup", "create", mapped, "--noudevsync", "--noudevrules", "--table", table)
    stack.callback(run, "dmsetup", "remove", "--retry", "--noudevsync", "--noudevrules", mapped)
    columns = ("info", "-c", "--noheadings", "-o", "blkdevname")
    device = run("dmsetup", *columns, mapped, capture_output=True).stdout.strip()
    return device, LINEAR_OFFSET if name == "linear" else 0


def _make_md(name: str, legs: list[str], stack: ExitStack) -> tuple[str, int]:
    numbers = (n for n in range(200, 256) if not Path(f"/sys/block/md{n}").exists())
    device = f"md{next(numbers)}"
    options = ["--metadata=1.2", "--assume-clean", f"--raid-devices={len(legs)}", "--run"]
    if name == "raid0":
        options.append(f"--chunk={CHUNK >> 10}")
    environment = os.environ | {"MDADM_NO_UDEV": "1"}
    run("mdadm", "--create", f"/dev/{device}", f"--level={name}", *options, *legs,
        env=environment, capture_output=True)  # fmt: skip
    stack.callback(run, "mdadm", "--stop", f"/dev/{device}", env=environment, capture_output=True)
    leg = legs[0].removeprefix("/dev/")
    data_offset = Path(f"/sys/block/{device}/md/dev-{leg}/offset").read_text()
    return device, int(data_offset) * SECTOR


def test_nothing_is_lost_and_the_tree_of_devices_is_in_the_metadata(recording: Recording) -> None:
    for device in recording.devices.values():
        for name in (device.name, *device.legs):
            assert missed_completions(recording.capture, name, layer="bio") == 0
    assert_layers_close(recording.capture)
    tree = {entry["name"]: entry for entry in recording.capture.metadata["devices"]}
    for device in recording.devices.values():
        assert tree[device.name]["stands_on"] == sorted(device.legs)
        assert tree[device.name]["has_requests"] is False


@pytest.mark.parametrize("op", ["read", "write"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stacked_device_and_its_legs_agree_with_diskstats(
    recording: Recording, kind: str, op: str
) -> None:
    device = recording.device(kind)
    capture = recording.capture
    kernel_ios, kernel_bytes = recording.kernel(device.name, op)
    assert sums(capture, "bio", device.name)[op][1] == kernel_bytes
    # Diskstats counts the parts of a bio that is split and, of device-mapper, flushes as writes.
    flushes = recording.rows(device=device.name, op="flush") if op == "write" else []
    parts_with_bytes = kernel_ios if device.is_md else kernel_ios - len(flushes)
    if device.kind.write_copies:
        copies = 1 if op == "read" else device.kind.write_copies
        assert len(recording.parts(device, op)) == copies * parts_with_bytes
    for leg in device.legs:
        if op not in sums(capture, "bio", leg):
            continue
        assert sums(capture, "bio", leg)[op][1] == recording.kernel(leg, op)[1]
        if "request" in capture.metadata["layers"]:
            assert sums(capture, "request", leg)[op] == recording.kernel(leg, op)


@pytest.mark.parametrize("op", ["read", "write"])
@pytest.mark.parametrize("kind", MAPPED)
def test_a_bio_is_one_row_and_contains_all_that_was_sent_below_for_it(
    recording: Recording, kind: str, op: str
) -> None:
    device = recording.device(kind)
    own = recording.rows(device=device.name, op=op)
    large = [row for row in own if row["comm"] == "dd" and row["bytes"] == 1 << 20]
    assert len(large) >= 7
    wholes = sorted((row for row in own if row["bytes"]), key=itemgetter("start"))
    starts = [row["start"] for row in wholes]
    part_bytes: Counter[int] = Counter()
    for part in recording.parts(device, op):
        first = device.place_above(part["device"], part["offset"])
        (whole,) = (
            place
            for place in range(bisect_right(starts, part["start"]))
            if part["end"] <= wholes[place]["end"]
            and wholes[place]["offset"] <= first
            and first + part["bytes"] <= wholes[place]["offset"] + wholes[place]["bytes"]
        )
        part_bytes[whole] += part["bytes"]
    copies = 1 if op == "read" else device.kind.write_copies
    for place, whole_row in enumerate(wholes):
        assert part_bytes[place] == copies * whole_row["bytes"]


@pytest.mark.parametrize("kind", MAPPED)
def test_the_report_shows_how_a_stacked_device_relates_to_its_legs(
    recording: Recording, kind: str
) -> None:
    device = recording.device(kind)
    for op, copies in (("read", 1), ("write", device.kind.write_copies)):
        stack = recording.stacks[device.name, op]
        assert stack.amplification == copies
        assert {leg.device for leg in stack.legs} <= set(device.legs)
        own = recording.rows(device=device.name, op=op)
        assert (stack.ios, stack.bytes) == (len(own), sum(row["bytes"] for row in own))
        time = sum(row["latency_ns"] for row in own)
        for leg in stack.legs:
            below = recording.rows(device=leg.device, above=device.name, op=op)
            spent = sum(row["latency_ns"] for row in below)
            assert (leg.ios, leg.time_share) == (len(below), spent / time)
            assert leg.is_slowest == (leg.avg_ns == max(leg.avg_ns or 0 for leg in stack.legs))
        assert sum(leg.time_share or 0 for leg in stack.legs) > 0
    lines = recording.report
    for leg_name in device.legs:
        (line,) = (line for line in lines if line.split()[:3] == [device.name, "to", leg_name])
        assert "%" in line


@pytest.mark.parametrize("kind", BY_WORKER)
def test_what_a_worker_of_device_mapper_writes_is_of_the_leg_alone(
    recording: Recording, kind: str
) -> None:
    device = recording.device(kind)
    own = sum(row["bytes"] for row in recording.rows(device=device.name, op="write"))
    passed_on = sum(row["bytes"] for row in recording.parts(device, "write"))
    by_worker = sum(
        row["bytes"]
        for leg in device.legs
        for row in recording.rows(device=leg, op="write", above=None)
    )
    assert by_worker >= own - passed_on > 0
