# SPDX-License-Identifier: GPL-2.0-only
"""What the recorder writes, every reader reads, whatever the names, devices and counts."""

import io
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analyze
from analyze.capture_name import CaptureName
from analyze.metadata import (
    MAX_METADATA_BYTES,
    ClockStep,
    Diskstats,
    Metadata,
    Workload,
    parse_metadata,
)
from analyze.typed_json import EpochNs, SignedInt, dump_object
from iorec.store import spool as store_spool
from iorec.store.convert import convert
from iorec.store.folder import Folder
from iorec.store.metadata_json import to_json
from iorec.store.named import LONGEST_NAME_BYTES, MOST_NAMES_BYTES
from iorec.store.read_spool import read_spool
from tests import builders
from tests.builders import START_NS, described
from tests.recorded import RowSpool
from tests.unit.store.test_recover import MIB, MOST_BYTES, batch, recover_in_process, with_column

STRANGE = ["", "é" * 120, "\\xff" * 99, "\U0001f4be\n\t\"',", "=1+1", "'", "x" * 65_536, "\0a"]


def table(count: int, **columns: Any) -> pa.Table:
    """Rows of requests, which say how many bios they had."""
    return builders.table(count, bios=1, **columns)


def names(texts: list[str], codes: Any) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(texts, pa.string()))


def every_length() -> Iterator[pa.RecordBatch]:
    """Each length up to 64 KiB once, in three columns."""
    lengths = [*range(3000), *range(3000, LONGEST_NAME_BYTES, 977), LONGEST_NAME_BYTES]
    random.Random(1).shuffle(lengths)
    for start in range(0, len(lengths), 700):
        texts = [chr(97 + length % 26) * length for length in lengths[start : start + 700]]
        rows: pa.Table = table(len(texts))
        for column in ("cgroup", "charged_cgroup", "file"):
            rows = with_column(pa.table(rows), column, names(texts, range(len(texts))))
            rows = pa.Table.from_batches([rows])
        yield batch(rows)


def long_names_at_once() -> Iterator[pa.RecordBatch]:
    texts = [f"{number:05}" + "n" * 4091 for number in range(65_536)]
    yield with_column(table(65_536), "file", names(texts, range(65_536)))


def thousands_of_cgroups() -> Iterator[pa.RecordBatch]:
    texts = [f"/kubepods.slice/{number:x}{'c' * 170}" for number in range(20_000)]
    for start in range(0, 20_000, 1000):
        codes = np.random.default_rng(start).integers(0, 1000, 5000)
        yield with_column(table(5000), "cgroup", names(texts[start : start + 1000], codes))


def one_long_name_in_every_row() -> Iterator[pa.RecordBatch]:
    for _ in range(3):
        yield with_column(table(65_536), "cgroup", names(["/c" * 210], [0] * 65_536))


def strange_names() -> Iterator[pa.RecordBatch]:
    for _ in range(3):
        codes = [None if code == 8 else code for code in range(9)]
        yield with_column(table(9), "file", names(STRANGE, codes))


EXTREMES = [
    every_length,
    long_names_at_once,
    thousands_of_cgroups,
    one_long_name_in_every_row,
    strange_names,
]


def write(path: Path, batches: list[pa.RecordBatch]) -> pa.Table:
    """The spool of a recording; returns its rows with plain text."""
    rows = pa.Table.from_batches(batches).unify_dictionaries()
    with path.open("wb") as file:
        spool = RowSpool(file)
        for number, made in enumerate(batches, 1):
            last = number == len(batches)
            spool.write_rows(made, described(rows) if last else described(table(1)))
        spool.close()
        assert spool.size_bytes == path.stat().st_size
    return rows


def as_text(rows: pa.Table) -> pa.Table:
    """In an order of its own: the captures' is that of time, which many rows share."""
    numbers = pa.types.is_integer, pa.types.is_timestamp
    plain = pa.table(
        [
            column if any(kind(column.type) for kind in numbers) else column.cast(pa.large_string())
            for column in rows.columns
        ],
        rows.column_names,
    )
    keys = [(name, "ascending") for name in ("time", "offset", "cgroup", "comm", "file")]
    return plain.sort_by(keys)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("make", EXTREMES)
def test_extreme_names_come_back_as_they_were_written(
    tmp_path: Path, make: Callable[[], Iterator[pa.RecordBatch]], suffix: str
) -> None:
    part = tmp_path / f"run{suffix}.part"
    written = write(part, list(make()))
    status, peak_bytes, said = recover_in_process(part)
    assert status == 0, said
    assert "to its end" not in said
    assert not part.exists()
    assert peak_bytes < MOST_BYTES
    with analyze.open(tmp_path / f"run{suffix}") as capture:
        assert capture.completeness().is_complete
        read = capture.arrow()
    assert as_text(read).equals(as_text(written))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_names_in_any_batches_come_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = st.one_of(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
        st.builds(lambda letter, size: letter * size, st.sampled_from("aé"), st.integers(0, 32768)),
    )
    batches = []
    for _ in range(data.draw(st.integers(1, 5))):
        rows = batch(table(data.draw(st.integers(1, 40))))
        for column in ("charged_cgroup", "cgroup", "file"):
            used = data.draw(st.lists(text, min_size=1, max_size=12))
            code = st.one_of(st.none(), st.integers(0, len(used) - 1))
            codes = data.draw(st.lists(code, min_size=len(rows), max_size=len(rows)))
            rows = with_column(pa.Table.from_batches([rows]), column, names(used, codes))
        batches.append(rows)
    path = tmp_path_factory.getbasetemp() / "any.part"
    written = write(path, batches)
    with path.open("rb") as file:
        read = [rows for rows, _ in read_spool(file)]
        assert not file.read(1)
    assert as_text(pa.Table.from_batches(read)).equals(as_text(written))


def test_a_name_longer_than_the_kernel_has_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet.part"
    write(path, [batch(table(1, file="é" * (16 * MIB)))])
    with path.open("rb") as file:
        [(rows, _)] = read_spool(file)
    assert rows["file"].to_pylist() == ["é" * (LONGEST_NAME_BYTES // 2)]


def test_names_are_written_once_and_not_with_each_batch(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet.part"
    generator = random.Random(1)
    texts = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=4096)) for _ in range(500)]
    write(path, [with_column(table(500), "file", names(texts, range(500)))] * 50)
    assert path.stat().st_size < 2 * 500 * 4096


def test_a_spool_whose_names_do_not_fit_at_once_gives_every_whole_batch(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet.part"
    ends = []
    with path.open("wb") as file:
        spool = RowSpool(file)
        for number in range(6):
            texts = [f"{number}.{name}" + "x" * 4_000 for name in range(1000)]
            assert 5 * sum(map(len, texts)) > MOST_NAMES_BYTES
            made = with_column(table(1000), "file", names(texts, range(1000)))
            spool.write_rows(made, described(table(number)))
            ends.append(spool.size_bytes)
        spool.close()
    whole = path.read_bytes()
    near = [end + distance for end in ends for distance in (-9, -1, 0, 7, 8, 9, 600)]
    for length in [*near, *random.Random(1).choices(range(4, len(whole)), k=60)]:
        cut = io.BytesIO(whole[:length])
        read = list(read_spool(cut))
        assert not cut.read(1)
        batches = sum(end <= length for end in ends)
        assert sum(len(rows) for rows, _ in read) == 1000 * batches
        assert not read or json.loads(read[-1][1])["counts"]["recorded"] == batches - 1


def test_damage_in_a_later_batch_keeps_what_precedes_it(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet.part"
    with path.open("wb") as file:
        spool = RowSpool(file)
        sizes = []
        for letter in "abc":
            texts = [letter + f"{name}" + "x" * 4000 for name in range(1500)]
            spool.write_rows(
                with_column(table(1500), "file", names(texts, range(1500))), described(table(1))
            )
            sizes.append(spool.size_bytes)
    content = bytearray(path.read_bytes())
    content[sizes[1] + 8 : sizes[1] + 8 + 40] = bytes(40)
    damaged = io.BytesIO(content)
    assert sum(len(rows) for rows, _ in read_spool(damaged)) == 3000
    assert damaged.read(1)


def test_a_batch_without_room_is_taken_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet.part"
    code = f"""
import resource, signal, sys
from pathlib import Path
from tests.unit.store.test_spool import *
from analyze.errors import IorecError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))
generator = random.Random(1)
with Path({str(path)!r}).open("wb") as file:
    spool = RowSpool(file)
    spool.write_rows(batch(table(7)), described(table(7)))
    try:
        for count in (300, 900, 900):
            texts = [generator.randbytes(2000).hex() for _ in range(count)]
            many = with_column(table(count), "file", names(texts, range(count)))
            spool.write_rows(many, described(table(8)))
    except IorecError as error:
        print(error.message, error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "File too large" in done.stdout
    assert "ulimit" in done.stdout
    assert "free some space" not in done.stdout
    with path.open("rb") as file:
        read = list(read_spool(file))
        assert not file.read(1)
    assert [len(rows) for rows, _ in read] == [7, 300, 900]


def extreme_machines() -> Iterator[tuple[str, Metadata]]:
    """Metadata as machines give them that have more, or less, than a reader takes."""
    base = described(table(3))
    assert base.counts is not None
    assert base.clock is not None
    (device,), (counted,) = base.devices, base.counts.devices
    names = [f"disk{number}" for number in range(20_000)]
    disks = tuple(replace(device, name=name) for name in names)
    groups = base.diskstats["loop0"]
    yield "many idle disks", replace(base, devices=disks)
    counts = replace(base.counts, devices=tuple(replace(counted, device=name) for name in names))
    busy = replace(base, devices=disks, diskstats=dict.fromkeys(names, groups), counts=counts)
    yield "many busy disks", busy
    argv = ("tar", *["\udcff" * 120 for _ in range(15_000)])
    yield "a long command line", replace(base, command=argv, workload=Workload(argv, 0))
    filters = replace(base.filters, comm=("x" * 100,) * 50_000)
    yield "a filter of many", replace(base, filters=filters)
    steps = (ClockStep(base.started_at, SignedInt(-(10**12))),) * 86_400
    clock = replace(base.clock, steps=steps)
    yield "a clock that is set each second", replace(base, clock=clock)
    for number in (-1, 2**63, -(2**64)):
        bad = {"loop0": {"read": Diskstats(number, bytes=0, edge_ios=0)}, "sda": groups}
        counts = replace(base.counts, completions=number)
        sized = replace(device, size_bytes=number)
        yield f"diskstats of {number}", replace(base, diskstats=bad)
        yield f"completions of {number}", replace(base, counts=counts)
        yield f"a size of {number}", replace(base, devices=(sized,))
    for duration_s in (-1.0, 1e300, float("nan"), float("inf")):
        yield f"duration of {duration_s}", replace(base, duration_s=duration_s)
    yield "a stop before the start", replace(base, stopped_at=EpochNs(START_NS - 10**18))
    yield "a start after the end of time", replace(base, started_at=EpochNs(2**64))


@pytest.mark.parametrize(("kind", "given"), list(extreme_machines()))
def test_what_a_machine_says_of_itself_is_read(tmp_path: Path, kind: str, given: Metadata) -> None:
    data = to_json(given)
    assert len(data) <= MAX_METADATA_BYTES
    read = parse_metadata(data)
    assert read.counts is not None
    assert given.counts is not None
    assert sum(row.recorded for row in read.counts.devices) == sum(
        row.recorded for row in given.counts.devices
    )
    part = tmp_path / "run.csv.part"
    with part.open("wb") as file:
        RowSpool(file).write_rows(batch(table(3)), given)
    with part.open("rb") as file, Folder.open(tmp_path, None) as folder:
        name = CaptureName(tmp_path / "run.csv")
        convert(file, folder, name, lambda _: None, is_forced=False)
    with analyze.open(tmp_path / "run.csv") as capture:
        assert capture.files[0].row_count == 3


def test_statistics_that_a_reader_refuses_are_left_out_and_noted() -> None:
    given = described(table(3, device=["sda", "sda", "loop0"]))
    given.diskstats["loop0"]["read"] = Diskstats(-5, bytes=0, edge_ios=0)
    read = parse_metadata(to_json(given))
    assert set(read.diskstats) == {"sda"}
    (note,) = read.notes
    assert "diskstats.loop0.read.ios" in note.message


@pytest.mark.parametrize("number", [-1, 2**63, 10**19])
def test_a_number_that_goes_wrong_later_is_mended_too(tmp_path: Path, number: int) -> None:
    path = tmp_path / "run.parquet.part"
    good = replace(described(table(3)), complete=False)
    with path.open("wb") as file:
        spool = RowSpool(file)
        for value in (5, 6, number):
            bad = {"loop0": {"read": Diskstats(value, bytes=0, edge_ios=0)}}
            spool.write_rows(batch(table(3)), replace(good, diskstats=bad))
    with path.open("rb") as file:
        *_, last = (parse_metadata(text) for _, text in read_spool(file))
    assert "loop0" not in last.diskstats or not last.diskstats["loop0"]
    assert last.notes


def test_only_the_first_and_the_last_metadata_of_a_plain_recording_are_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Metadata] = []

    def noted(metadata: Metadata) -> bytes:
        read.append(metadata)
        return to_json(metadata)

    monkeypatch.setattr(store_spool, "to_json", noted)
    given = described(table(3))
    with (tmp_path / "run.parquet.part").open("wb") as file:
        written = RowSpool(file)
        for is_last in (False, False, False, True):
            written.write_rows(batch(table(3)), replace(given, complete=is_last))
    assert [metadata.complete for metadata in read] == [False, True]


def test_metadata_that_a_reader_takes_are_not_touched() -> None:
    given = described(table(3))
    assert parse_metadata(to_json(given)) == given


def test_what_has_no_ledger_is_written_and_made_smaller_all_the_same() -> None:
    bare = replace(dict(extreme_machines())["many busy disks"], counts=None, clock=None)
    read = parse_metadata(to_json(bare))
    assert read.counts is None
    assert 500 < len(read.devices) < 20_000


def test_the_busiest_of_many_disks_are_kept() -> None:
    given = dict(extreme_machines())["many busy disks"]
    assert given.counts is not None
    rows = list(given.counts.devices)
    rows[777] = replace(rows[777], recorded=10**6, device="nvme0n1")
    busiest = replace(given, counts=replace(given.counts, devices=tuple(rows)))
    read = parse_metadata(to_json(busiest))
    assert read.counts is not None
    assert "nvme0n1" in {row.device for row in read.counts.devices}
    assert 500 < len(read.devices) < 20_000
    assert len({(row.layer, row.device, row.op) for row in read.counts.devices}) == len(
        read.counts.devices
    )


def test_metadata_of_thousands_of_disks_take_little_room(tmp_path: Path) -> None:
    rows = table(3)
    given = described(rows)
    devices = tuple(replace(given.devices[0], name=f"disk{number}") for number in range(4000))
    given = replace(given, devices=devices)
    path = tmp_path / "run.parquet.part"
    with path.open("wb") as file:
        spool = RowSpool(file)
        for _ in range(10):
            spool.write_rows(batch(rows), given)
    assert path.stat().st_size < 10 * len(dump_object(given)) / 10
