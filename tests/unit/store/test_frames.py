# SPDX-License-Identifier: GPL-2.0-only
"""A spool proves itself: what is damaged never becomes a row, and what lies takes no memory."""

import io
import json
import random
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyze.errors import IorecError
from analyze.metadata import MAX_METADATA_BYTES
from iorec.kernel.layers import LAYERS
from iorec.kernel.layouts import RECORD
from iorec.store.frames import frame, read_frame
from iorec.store.planes import MOST_RECORDS, pack, unpack
from iorec.store.read_spool import read_spool
from tests.builders import described, table
from tests.recorded import RowSpool
from tests.unit.store.test_recover import MOST_BYTES, recover_in_process

MOST = 1 << 30


def written(batches: int = 3, rows: int = 5) -> tuple[bytes, list[int], list[pa.RecordBatch]]:
    """A spool, where its batches end, and what is read from it."""
    ends = []
    with tempfile.TemporaryFile() as file:
        spool = RowSpool(file)
        for number in range(batches):
            made = table(rows, bios=1, comm=f"name{number}", offset=4096 * number, pid=number)
            spool.write_rows(made, described(table(number)))
            ends.append(spool.size_bytes)
        spool.close()
        file.seek(0)
        content = file.read()
    return content, ends, read(content)


def frames_of(content: bytes) -> list[tuple[bytes, bytes]]:
    file = io.BytesIO(content)
    found = []
    while file.tell() < len(content):
        found.append(read_frame(file, MOST))
    return found


def joined(frames: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(frame(kind, content) for kind, content in frames)


def read(content: bytes) -> list[pa.RecordBatch]:
    """What is read of it; nothing if it is no spool."""
    try:
        return [made for made, _ in read_spool(io.BytesIO(content))]
    except IorecError:
        return []


def test_cut_off_at_any_byte_it_gives_every_whole_batch_and_is_not_damaged() -> None:
    content, ends, made = written()
    for length in [*range(4, len(content), 5), *ends, *(end - 1 for end in ends)]:
        cut = io.BytesIO(content[:length])
        found = [rows for rows, _ in read_spool(cut)]
        assert found == made[: sum(end <= length for end in ends)]
        assert not cut.read(1)


def test_any_flipped_bit_ends_it_before_the_batch_that_is_damaged() -> None:
    content, ends, made = written()
    for place in range(0, len(content), 5):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        whole = sum(end <= place for end in ends)
        assert read(bytes(damaged)) == made[:whole]
        if place >= 4:
            file = io.BytesIO(damaged)
            list(read_spool(file))
            assert file.read(1)  # it is kept


@pytest.mark.parametrize("size", [1, 16, 4096])
def test_zeros_where_the_disk_lost_the_end_are_no_batch(size: int) -> None:
    content, _, made = written()
    assert read(content + bytes(size)) == made


def test_frames_in_another_order_are_no_batch() -> None:
    content, _, made = written(2)
    head, *batches = frames_of(content)
    first, second = batches[: len(batches) // 2], batches[len(batches) // 2 :]
    assert [kind for kind, _ in first] == [b"name", b"reco", b"meta"]
    assert read(joined([head, first[1], *first])) == []  # two of records
    assert read(joined([head, head, *first])) == []
    assert read(joined([*first, *second])) == []
    assert read(joined([head, *first, (b"what", b""), *second])) == made[:1]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_what_lies_with_right_checksums_is_refused_or_becomes_rows(
    data: st.DataObject,
) -> None:
    content, _, _ = written(2)
    frames = frames_of(content)
    number = data.draw(st.integers(0, len(frames) - 1))
    kind, inside = frames[number]
    changed = bytearray(inside)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed) - 1))
        changed[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        changed = changed[: data.draw(st.integers(0, len(changed)))]
    frames[number] = kind, bytes(changed)
    for made in read(joined(frames)):
        made.validate(full=True)


def names_content(
    names: Sequence[bytes],
    submitters: Sequence[tuple[int, ...]] = (),
    disks: Sequence[tuple[int, ...]] = (),
) -> bytes:
    """What a frame of names holds, packed; right or wrong."""
    packed: bytes = pa.compress(
        struct.pack("<BIII", 0, len(names), len(submitters), len(disks))
        + b"".join(struct.pack("<I", len(name)) for name in names)
        + b"".join(struct.pack("<QIIQIIIII", *row) for row in submitters)
        + b"".join(struct.pack("<QII", *row) for row in disks)
        + b"".join(names),
        "zstd",
        asbytes=True,
    )
    return packed


WRONG_NAMES = {
    "a number beyond the names": names_content([b"a"], [(1, 1, 1, 0, 999, 0, 0, 0, 0)]),
    "a disk beyond the names": names_content([b"a"], [], [(1, 0, 999)]),
    "a negative pid": names_content([b"a"], [(1, 1 << 31, 1, 0, 1, 0, 0, 0, 0)]),
    "a negative inode": names_content([b"a"], [(1, 1, 1, 1 << 63, 1, 0, 0, 0, 0)]),
    "not UTF-8": names_content([b"\xff"]),
    "more than there is": pa.compress(b"\0" + b"\xff" * 12, "zstd", asbytes=True),
    "a bomb": pa.compress(bytes(1 << 30), "zstd", asbytes=True),
    "many names": names_content([b"x"] * 200_000),
    "many submitters": names_content([], [(n, 1, 1, 0, 0, 0, 0, 0, 0) for n in range(60_000)]),
    "a longer name than any": names_content([b"x" * 65537]),
    "long names": names_content([b"x" * 65536] * 300),
    "a long name of a thread": names_content([b"x" * 257], [(1, 1, 1, 0, 4, 0, 0, 0, 0)]),
    "a long name of a disk": names_content([b"x" * 257], [], [(1, 4, 0)]),
    "nothing": b"",
    "not packed": b"hello",
}


@pytest.mark.parametrize("kind", WRONG_NAMES)
def test_names_that_no_recorder_writes_end_it(tmp_path: Path, kind: str) -> None:
    content, _, made = written(2)
    head, *batches = frames_of(content)
    first, second = batches[:3], batches[3:]
    hostile = joined([head, *first, (b"name", WRONG_NAMES[kind]), *second])
    assert read(hostile) == made[:1]
    part = tmp_path / "run.parquet.part"
    part.write_bytes(hostile)
    status, peak_bytes, said = recover_in_process(part)
    assert (status, "to its end" in said) == (0, True)
    assert peak_bytes < MOST_BYTES


def wrong_heads() -> Iterator[dict[str, Any]]:
    content, _, _ = written(1)
    right = json.loads(frames_of(content)[0][1])
    origin = right["origin"]
    yield right | {"version": 5}
    yield right | {"byte_order": "big"}
    yield right | {"record_bytes": 64}
    yield right | {"origin": origin | {"cpu_count": 0}}
    yield right | {"origin": origin | {"realtime_offset_ns": 2**63}}
    for wrong in (
        {"ops": {"0": "x" * 65}},
        {"flags": {"1": "x" * 1025}},
        {"flags": {"a": "sync"}},
        {"errnos": {"request": [0] * 256}},
    ):
        yield right | {"origin": origin | {"names": origin["names"] | wrong}}


@pytest.mark.parametrize("head", list(wrong_heads()), ids=str)
def test_a_head_of_no_machine_is_no_spool(tmp_path: Path, head: dict[str, Any]) -> None:
    content, _, _ = written(1)
    frames = frames_of(content)
    part = tmp_path / "run.parquet.part"
    part.write_bytes(joined([(b"iorc", json.dumps(head).encode()), *frames[1:]]))
    status, _, said = recover_in_process(part)
    assert (status, part.exists()) == (1, True)
    assert said.startswith("error: ")


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{}", b"", b"\xff", bytes(100_000)])
def test_what_is_no_head_is_no_spool(content: bytes) -> None:
    assert read(frame(b"iorc", content)) == []


def test_metadata_that_unpack_to_more_than_there_can_be_end_it(tmp_path: Path) -> None:
    content, _, made = written(2)
    *frames, _ = frames_of(content)
    bomb = pa.compress(b'"' + b" " * (MAX_METADATA_BYTES << 8), "zstd", asbytes=True)
    assert read(joined([*frames, (b"meta", bomb)])) == made[:1]


@pytest.mark.parametrize("count", [0, 1, 2, 100, MOST_RECORDS])
def test_any_records_come_back(count: int) -> None:
    rng = np.random.default_rng(count)
    records = rng.integers(0, 256, (count, RECORD.itemsize), np.uint8).view(RECORD).reshape(-1)
    assert (unpack(pack(records)) == records).all()
    alike = np.repeat(records[:1], count)
    assert (unpack(pack(alike)) == alike).all()
    assert len(pack(alike)) < 200


@pytest.mark.parametrize("count", [MOST_RECORDS + 1, 2**32 - 1])
def test_more_records_than_a_batch_has_are_refused(count: int) -> None:
    packed = bytearray(pack(np.zeros(2, RECORD)))
    packed[:4] = struct.pack("<I", count)
    with pytest.raises(ValueError):
        unpack(bytes(packed))


def test_random_records_become_rows_or_are_refused() -> None:
    content, _, _ = written(1)
    head, names, _, metadata = frames_of(content)
    for seed in range(50):
        records = np.frombuffer(random.Random(seed).randbytes(56 * 99), RECORD).copy()
        records["source"] %= len(LAYERS) << 12
        for kind in (b"reco", b"hung"):
            (made,) = read(joined([head, names, (kind, pack(records)), metadata]))
            made.validate(full=True)
            assert len(made) == 99
    records["source"] = len(LAYERS) << 12
    assert read(joined([head, names, (b"reco", pack(records)), metadata])) == []
