# SPDX-License-Identifier: GPL-2.0-only
"""Whatever a machine contains, the metadata that the recorder writes is what the reader takes."""

import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from analyze.capture_name import CaptureName
from analyze.metadata import Clock, Device, Diskstats, Filters, Metadata, parse_metadata
from analyze.typed_json import dump_object
from iorec.host.clock import read_clocks
from iorec.host.device_inventory import describe_device, gone_device
from iorec.host.devices import disk_name
from iorec.host.diskstats import DiskStats, diskstats_delta, read_diskstats
from iorec.host.escape import escape_name
from iorec.host.notes import Notes
from iorec.record.metadata import begin_metadata, continue_metadata, end_metadata
from iorec.record.settings import Settings
from tests.builders import described, table

READINGS = 4
COUNTERS = 17
NAME_BYTES = [b"a", b"Z", b"0", b" ", b"\n", b"\\", b"!", b'"', b"'", b"\xc3\xa9", b"\xff", b"\x01"]
# What a driver may have put into an attribute.
CONTENTS = [
    b"",
    b"\n",
    b"0\n",
    b"1\n",
    b"-1\n",
    b"x\n",
    b"\xff\xfe\0",
    b"none [mq] \xff\n",
    b"9" * 30,
]


def random_name(chance: random.Random, longest: int) -> bytes:
    return b"".join(chance.choices(NAME_BYTES, k=chance.randint(1, longest)))


def counters(chance: random.Random) -> list[int]:
    return [chance.randrange(2 ** chance.choice([8, 31, 32, 40, 63])) for _ in range(COUNTERS)]


def step(chance: random.Random, values: list[int]) -> list[int]:
    """How counters move on: they grow, wrap at 32 bits, or begin at 0 again."""
    grown = [min(value + chance.randrange(1000), 2**64 - 1) for value in values]
    kind = chance.randrange(10)
    return (
        [value % 2**32 for value in grown] if kind == 0 else [0] * COUNTERS if kind == 1 else grown
    )


def make_disk(chance: random.Random, folder: Path, number: int, values: list[int]) -> None:
    (folder / "queue").mkdir(parents=True)
    (folder / "dev").write_text(f"259:{number}\n")
    (folder / "size").write_text(f"{chance.choice([0, 8, 2**40, 2**63])}\n")
    (folder / "stat").write_text(" ".join(map(str, values[: chance.choice([11, 15, COUNTERS])])))
    for name in ("scheduler", "rotational", "nr_requests", "logical_block_size", "iostats"):
        if chance.random() < 0.9:
            (folder / "queue" / name).write_bytes(chance.choice(CONTENTS))
    if chance.random() < 0.3:
        (folder / "mq").mkdir()
    for partition in range(chance.randrange(3)):
        place = folder / f"p{partition}"
        place.mkdir()
        for name in ("partition", "start", "size"):
            (place / name).write_bytes(chance.choice([b"1\n", *CONTENTS]))


class Machine:
    """A folder like /sys/block whose disks change from one reading to the next."""

    def __init__(self, chance: random.Random, folder: Path, disks: int) -> None:
        self._chance, self._folder = chance, folder
        folder.mkdir()
        names = {random_name(chance, 31) + str(number).encode() for number in range(disks)}
        self._disks = {name.decode(errors="surrogateescape"): counters(chance) for name in names}
        self._listed: dict[str, Device] = {}

    def read(self) -> DiskStats:
        for number, name in enumerate(sorted(self._disks)):
            chance, folder = self._chance, self._folder / name
            self._disks[name] = step(chance, self._disks[name])
            fate = chance.random()
            if folder.exists() and fate < 0.2:
                shutil.rmtree(folder)
            elif folder.exists():
                (folder / "stat").write_text(" ".join(map(str, self._disks[name])))
            if not folder.exists() and fate < 0.8:
                make_disk(chance, folder, number, self._disks[name])
            described = describe_device(folder)
            self._listed[name] = described or gone_device(disk_name(name), 259 << 20 | number)
        return read_diskstats(self._folder)

    def described(self) -> tuple[Device, ...]:
        return tuple(self._listed.values())

    def names(self) -> list[str]:
        return [disk_name(name) for name in self._disks]


def random_notes(chance: random.Random) -> Notes:
    notes = Notes()
    for _ in range(chance.randrange(300)):
        text = random_name(chance, 1000).decode(errors="surrogateescape")
        notes.add(chance.choice(["cgroups", "devices"]), text, time.monotonic_ns() - 10)
    with notes.guard("status line"):
        raise OSError(5, "\ud800", "\udcff")
    return notes


def written(chance: random.Random, folder: Path, disks: int) -> bytes:
    """The metadata of a machine, as the recorder writes them."""
    machine = Machine(chance, folder, disks)
    start = read_clocks()
    stats = (machine.read(), machine.read()), (machine.read(), machine.read())
    texts = tuple(random_name(chance, 300).decode(errors="surrogateescape") for _ in range(3))
    counts = described(table(3)).counts
    assert counts is not None
    (entry,) = counts.devices
    counts = replace(counts, devices=tuple(replace(entry, device=n) for n in machine.names()))
    filters = Filters(texts, (), texts, texts, (), None, include_self=False)
    output = CaptureName(Path("run.parquet"))
    settings = Settings(("request",), filters, 1 << 24, texts, "0", output, workload=texts)
    clock = Clock(start, read_clocks(), ())
    last = continue_metadata(
        begin_metadata(settings, start),
        clock,
        counts,
        machine.described(),
        random_notes(chance),
        {},
        settings.buffer_bytes,
        chance.choice([0, 1 << 26]),
    )
    return dump_object(end_metadata(last, stats, chance.choice([None, 0, 255])))


@pytest.mark.parametrize("seed", range(16))
def test_what_the_recorder_writes_of_any_machine_is_read(tmp_path: Path, seed: int) -> None:
    described = written(random.Random(seed), tmp_path / "block", 20)
    read = parse_metadata(described)
    assert_text(read)
    assert len(read.devices) == 20
    assert 0 < len(read.notes) <= 103  # three parts have one that stands for all others


def test_thousands_of_disks_are_read(tmp_path: Path) -> None:
    read = parse_metadata(written(random.Random(0), tmp_path / "block", 2000))
    assert len(read.devices) == 2000


def assert_text(read: Metadata) -> None:
    """Every name can be written to a terminal and to a file."""
    names = [read.hostname, *read.command, *read.filters.device, *read.diskstats]
    names += [text for device in read.devices for text in (device.name, device.model or "")]
    names += [note.message for note in read.notes]
    for name in names:
        name.encode()


def test_only_a_disk_that_was_counted_all_the_time_is_compared(tmp_path: Path) -> None:
    folder = tmp_path / "block"
    names = ["stays", "comes", "goes", "returns", "back", "uncounted"]

    def disk(name: str, ios: int) -> None:
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / "stat").write_text(" ".join([str(ios)] * COUNTERS))

    def remove(name: str) -> None:
        shutil.move(folder / name, tmp_path / f"{name}-was")  # its inode is not used again

    for name in names:
        if name != "comes":
            disk(name, 10)
    (folder / "uncounted" / "queue").mkdir()
    (folder / "uncounted" / "mq").mkdir()
    (folder / "uncounted" / "queue" / "iostats").write_text("0\n")
    before = read_diskstats(folder), read_diskstats(folder)
    for name in ("goes", "returns"):
        remove(name)
    for name in set(names) - {"goes"}:
        disk(name, 5 if name == "back" else 30)
    (folder / "uncounted" / "queue" / "iostats").write_text("1\n")
    delta = diskstats_delta(before, (read_diskstats(folder), read_diskstats(folder)))
    assert set(delta) == {"stays"}
    assert delta["stays"]["write"] == Diskstats(20, 20 * 512, edge_ios=0, edge_bytes=0)


def test_names_of_any_bytes_stay_different() -> None:
    names = [bytes([first, second]) for first in range(1, 256) for second in range(1, 256)]
    assert len({escape_name(name) for name in names}) == len(names)
