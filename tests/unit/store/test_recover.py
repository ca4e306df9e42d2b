# SPDX-License-Identifier: GPL-2.0-only
"""A spool gives back what was written; one from a stranger gives that or one error, in bounds."""

import io
import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analyze
from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.metadata import MAX_METADATA_BYTES
from analyze.schema import SCHEMA
from iorec.cli import run
from iorec.store.convert import convert
from iorec.store.folder import Folder
from iorec.store.named import LONGEST_NAME_BYTES
from iorec.store.read_spool import read_spool
from tests.builders import described, metadata, mixed_table, table, write_capture, write_spool
from tests.recorded import RowSpool

MIB = 1 << 20
MOST_BYTES = 300 * MIB
BIOS = SCHEMA.get_field_index("bios")
LYING_LENGTHS = [1, 7, 1 << 20, 1 << 31, (1 << 32) - 1]


def batch(rows: pa.Table) -> pa.RecordBatch:
    return pa.RecordBatch.from_struct_array(rows.to_struct_array().combine_chunks()).cast(SCHEMA)


def growing_batches(count: int) -> list[pa.RecordBatch]:
    """Batches of three rows, each with a new name, so that each but the first adds to a column."""
    names = [f"name{number}" for number in range(count)]
    place = SCHEMA.get_field_index("comm")
    made = []
    for number in range(count):
        codes = pa.array([number, 0, None], pa.int32())
        comm = pa.DictionaryArray.from_arrays(codes, pa.array(names[: number + 1]))
        made.append(batch(table(3)).set_column(place, SCHEMA.field(place), comm))
    return made


def with_column(rows: pa.Table, name: str, column: pa.Array) -> pa.RecordBatch:
    return batch(rows).set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)


def read_rows(spool: bytes) -> list[int]:
    """How many rows each batch has."""
    return [len(rows) for rows, _ in read_spool(io.BytesIO(spool))]


def recover_here(spool: Path, name: str = "out.parquet") -> int | None:
    """The rows of the capture that is made of the spool, or None after the one error."""
    capture_name = CaptureName(spool.with_name(name))
    try:
        with spool.open("rb") as file, Folder.open(spool.parent, None) as folder:
            convert(file, folder, capture_name, lambda _: None, is_forced=True)
        with analyze.open(spool.with_name(name)) as capture:
            return capture.files[0].row_count
    except IorecError as error:
        assert error.message
        assert error.hint
        return None


def recover_in_process(spool: Path, **environment: str) -> tuple[int, int, str]:
    """Exit code and greatest memory of `iorec recover -f`, and all that it prints."""
    # Not ru_maxrss: that counts what this process had when it forked.
    code = """
import re, sys
from pathlib import Path
from iorec.cli import run
status = run(["recover", "-f", sys.argv[1]])
print(status, re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(spool)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stdout
    *printed, figures = done.stdout.rstrip().split("\n")
    status, peak_kib = map(int, figures.split())
    return status, peak_kib * 1024, "\n".join(printed)


def messages(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Where each message starts, and the sizes of its header and its body."""
    file = pa.BufferReader(stream)
    while file.tell() < len(stream):
        start = file.tell()
        message = pa.ipc.read_message(file)
        body = message.body.size if message.body else 0
        yield start, file.tell() - start - body, body


def test_every_row_and_the_last_metadata_come_back(tmp_path: Path) -> None:
    rows = mixed_table(10_007)
    rows = rows.set_column(BIOS, SCHEMA.field(BIOS), pa.repeat(pa.scalar(2, pa.int32()), len(rows)))
    whole = described(rows)
    assert whole.counts is not None
    first = replace(whole, counts=replace(whole.counts, recorded=1007))
    with (tmp_path / "run.parquet.part").open("wb") as file:
        spool = RowSpool(file)
        spool.write_rows(batch(rows.slice(9000)), first)
        spool.write_rows(batch(rows.slice(0, 9000)), whole)
        spool.close()
    status, _, printed = recover_in_process(tmp_path / "run.parquet.part")
    assert (status, "next: iorec report" in printed) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == ["run.parquet"]
    with analyze.open(tmp_path / "run.parquet") as capture:
        assert capture.completeness().is_complete
        assert capture.arrow().sort_by("time").equals(rows.cast(capture.arrow().schema))


@pytest.mark.parametrize(("version", "process"), [(2, None), (3, "dd")])
def test_a_spool_of_an_earlier_version_is_read(
    tmp_path: Path, version: int, process: str | None
) -> None:
    """It was left by `record --convert-later` of seven reads with dd."""
    part = tmp_path / "old.parquet.part"
    kept = Path(__file__).parents[2] / "data" / f"version-{version}.parquet.part"
    part.write_bytes(kept.read_bytes())
    status, _, said = recover_in_process(part)
    assert status == 0, said
    rows = pq.read_table(tmp_path / "old.parquet").to_pylist()
    assert [row["offset"] for row in rows] == [4096 * place for place in range(7)]
    (told,) = {(row["comm"], row["device"][:4], row["process"]) for row in rows}
    assert told == ("dd", "loop", process)


def test_a_damaged_spool_gives_what_precedes_the_damage_and_is_kept(tmp_path: Path) -> None:
    path = write_spool(tmp_path / "run.parquet.part", growing_batches(3))
    content = bytearray(path.read_bytes())
    start, header, body = list(messages(bytes(content)))[-2]
    content[start + header : start + header + body] = bytes(body)
    path.write_bytes(content)
    status, _, printed = recover_in_process(path)
    assert (status, "cannot be read to its end" in printed) == (0, True)
    assert path.read_bytes() == content
    with analyze.open(tmp_path / "run.parquet") as capture:
        assert capture.files[0].row_count == 6


def test_the_memory_does_not_grow_with_the_length_of_a_quiet_recording(tmp_path: Path) -> None:
    spool = write_spool(
        tmp_path / "run.parquet.part", [batch(table(0))] * 4000 + [batch(table(1))] * 2000
    )
    status, peak_bytes, _ = recover_in_process(spool)
    assert status == 0
    assert peak_bytes < 170 * MIB


def test_a_stream_cut_off_at_any_byte_gives_every_whole_batch(tmp_path: Path) -> None:
    path = write_spool(tmp_path / "run.parquet.part", growing_batches(2), b"{}")
    whole = path.read_bytes()
    ends = [start + header + body for start, header, body in messages(whole)]
    batch_ends = [end for end in ends[1:] if read_rows(whole[:end]) != read_rows(whole[: end - 1])]
    assert len(batch_ends) == 2
    for length in range(ends[0], len(whole)):
        assert len(read_rows(whole[:length])) == sum(end <= length for end in batch_ends)
    for length in range(ends[0]):
        with pytest.raises(IorecError, match="not a spool"):
            read_rows(whole[:length])


@pytest.mark.parametrize("compression", ["zstd", None])
def test_a_message_that_lies_about_its_length_ends_the_stream(
    tmp_path: Path, compression: str | None
) -> None:
    path = write_spool(tmp_path / "run.parquet.part", growing_batches(2), b"{}", compression)
    whole = path.read_bytes()
    for start, header, body in list(messages(whole))[1:]:
        body_places = [
            place
            for place in range(start + 8, start + header, 8)
            if whole[place : place + 8] == struct.pack("<Q", body)
        ]
        for place in (start + 4, *body_places):
            for lie in LYING_LENGTHS:
                lying = bytearray(whole)
                lying[place : place + 4] = struct.pack("<I", lie)
                assert len(read_rows(bytes(lying))) <= 2


@pytest.mark.parametrize("lie", [-(2**63), -1, 1 << 40, 2**63 - 1])
@pytest.mark.parametrize("compression", ["zstd", None])
def test_a_buffer_that_lies_about_its_place_or_size_ends_the_stream(
    tmp_path: Path, compression: str | None, lie: int
) -> None:
    path = write_spool(tmp_path / "run.parquet.part", growing_batches(1), b"{}", compression)
    whole = path.read_bytes()
    for start, header, _ in list(messages(whole))[1:]:
        for place in range(start + 8, start + header, 8):
            lying = bytearray(whole)
            lying[place : place + 8] = struct.pack("<q", lie)
            assert len(read_rows(bytes(lying))) <= 1


@settings(max_examples=60, deadline=None)
@given(
    compression=st.sampled_from(["zstd", None]),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.sampled_from([0, 1, 2, 16, 128, 255])),
        min_size=1,
        max_size=4,
    ),
)
def test_flipped_bits_give_a_result_or_one_error(
    tmp_path_factory: pytest.TempPathFactory,
    compression: str | None,
    changes: Sequence[tuple[float, int]],
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.parquet.part"
    content = bytearray(write_spool(path, growing_batches(3), None, compression).read_bytes())
    for place, bits in changes:
        content[int(place * len(content))] ^= bits
    path.write_bytes(content)
    recover_here(path)


NO_METADATA = [
    b"[]",
    b"{",
    b"\xff",
    b"[" * 100_000,
    b'{"format_version": 99}',
    b'{"counts": 1}',
    b'{"a":' + b"9" * 10_000 + b"}",
]


@pytest.mark.parametrize("described", NO_METADATA)
def test_metadata_that_are_none_are_one_error(tmp_path: Path, described: bytes) -> None:
    assert recover_here(write_spool(tmp_path / "x.part", growing_batches(1), described)) is None


def test_a_spool_into_which_nothing_was_recorded_is_said_to_be_empty(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet.part"
    path.touch()
    status, _, printed = recover_in_process(path)
    assert status == 1
    assert f"{path} is empty: nothing was recorded into it\nhint: remove it: rm {path}" in printed


def test_metadata_that_name_no_cause_of_loss_are_no_error(tmp_path: Path) -> None:
    document = metadata(table(1))
    document["counts"]["lost"] = {}
    path = write_spool(tmp_path / "run.csv.part", [batch(table(1))], json.dumps(document).encode())
    status, _, printed = recover_in_process(path)
    assert status == 0, printed


@pytest.mark.parametrize("name", ["out.parquet", "out.csv"])
@pytest.mark.parametrize("column", SCHEMA.names)
def test_nulls_where_none_belong_end_the_stream(tmp_path: Path, column: str, name: str) -> None:
    field = SCHEMA.field(column)
    nulls = with_column(table(2), column, pa.nulls(2, field.type))
    path = write_spool(tmp_path / "x.part", [batch(table(3)), nulls])
    assert recover_here(path, name) == (5 if field.nullable else 3)


def test_a_name_that_is_null_in_the_dictionary_ends_the_stream(tmp_path: Path) -> None:
    names = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["a", None]))
    path = write_spool(tmp_path / "x.part", [with_column(table(2), "comm", names)])
    assert recover_here(path) is None


def test_names_that_are_replaced_are_read(tmp_path: Path) -> None:
    batches = [batch(table(2, comm=name)) for name in ("a", "b", "b", "c")]
    path = write_spool(tmp_path / "x.part", batches)
    assert recover_here(path) == 8
    with analyze.open(tmp_path / "out.parquet") as capture:
        names = capture.sql("SELECT comm, count(*) FROM io GROUP BY 1 ORDER BY 1").fetchall()
    assert names == [("a", 2), ("b", 4), ("c", 2)]


def other_streams() -> Iterator[tuple[str, bytes]]:
    for name, schema in (
        ("a column less", SCHEMA.remove(3)),
        ("another type", SCHEMA.set(6, pa.field("offset", pa.string()))),
        ("another order", pa.schema(list(SCHEMA)[::-1])),
        ("nested", pa.schema([pa.field("time", pa.list_(pa.struct(list(SCHEMA))))])),
    ):
        sink = io.BytesIO()
        pa.ipc.new_stream(sink, schema).close()
        yield name, sink.getvalue()
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_batch(batch(table(3)))
    yield "an Arrow file", sink.getvalue()
    yield from [("nothing", b""), ("zeros", bytes(4096)), ("text", b"hello\n" * 99)]
    yield "magic alone", b"\xff" * 4096


@pytest.mark.parametrize(("kind", "content"), list(other_streams()))
def test_what_is_no_spool_is_one_error(tmp_path: Path, kind: str, content: bytes) -> None:
    path = tmp_path / "run.parquet.part"
    path.write_bytes(content)
    assert recover_here(path) is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_capture_is_no_spool(tmp_path: Path) -> None:
    assert recover_here(write_capture(tmp_path / "run.parquet")) is None


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "device", "missing"])
def test_a_path_that_is_no_file_is_one_error(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "run.parquet.part"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(write_spool(tmp_path / "other.part", growing_batches(1)))
    arguments = ["/dev/zero", "-o", str(tmp_path / "run.parquet")]
    assert run(["recover", *(arguments if kind == "device" else [str(path)])]) == 1
    assert re.fullmatch(r"error: [^\n]+\nhint: [^\n]+\n", capsys.readouterr().err)


def many_rows() -> list[pa.RecordBatch]:
    return [batch(table(1_000_000))]


def a_long_name() -> list[pa.RecordBatch]:
    return [batch(table(1, comm="x" * (500 * MIB)))]


def a_long_name_in_many_rows() -> list[pa.RecordBatch]:
    codes = pa.array([0] * 65_536, pa.int32())
    names = pa.DictionaryArray.from_arrays(codes, ["x" * LONGEST_NAME_BYTES])
    return [with_column(table(65_536), "comm", names)]


def many_long_names() -> list[pa.RecordBatch]:
    """More than the names of a stream may be; the first 16 MiB fit."""
    texts = [f"{number:03}" * (LONGEST_NAME_BYTES // 3) for number in range(512)]
    codes = pa.array(range(256), pa.int32())
    return [
        with_column(table(256), "comm", pa.DictionaryArray.from_arrays(codes, texts[start:][:256]))
        for start in (0, 256)
    ]


def many_short_names() -> list[pa.RecordBatch]:
    """As many as fit, all of them used."""
    texts = [f"{number:x}" for number in range(1_000_000)]
    names = pa.array(texts)
    return [
        with_column(
            table(65_536), "comm", pa.DictionaryArray.from_arrays(codes.cast(pa.int32()), names)
        )
        for start in range(0, 4 * 65_536, 65_536)
        for codes in [pa.array(range(start, start + 65_536))]
    ]


@pytest.mark.parametrize(
    ("make", "printed"),
    [
        (many_rows, "error: the spool holds nothing"),
        (a_long_name, "error: the spool holds nothing"),
        (a_long_name_in_many_rows, "1 I/O"),
        (many_long_names, "2 I/Os"),
        (many_short_names, "4 I/Os"),
    ],
)
def test_what_unpacks_to_more_than_a_recording_has_stays_in_bounds(
    tmp_path: Path, make: Any, printed: str
) -> None:
    path = write_spool(tmp_path / "run.parquet.part", make())
    _, peak_bytes, text = recover_in_process(path)
    assert text.startswith(printed)
    assert peak_bytes < MOST_BYTES


@pytest.mark.parametrize("size_bytes", [MAX_METADATA_BYTES, 30 * MIB])
def test_enormous_metadata_stay_in_bounds(tmp_path: Path, size_bytes: int) -> None:
    described = b'{"a":[' + b"[]," * ((size_bytes - 20) // 3) + b"[]]}"
    path = write_spool(tmp_path / "run.parquet.part", growing_batches(2), described)
    status, peak_bytes, text = recover_in_process(path)
    assert status == 1
    assert re.fullmatch(r"error: [^\n]+\nhint: [^\n]+", text)
    assert peak_bytes < MOST_BYTES


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
@pytest.mark.parametrize("environment", [{}, {"SUDO_UID": "65534", "SUDO_GID": "65534"}])
def test_a_spool_is_read_without_privileges(tmp_path: Path, environment: dict[str, str]) -> None:
    path = write_spool(tmp_path / "run.parquet.part", growing_batches(1))
    os.chown(tmp_path, 65534, 65534)
    code = """
import sys, types
from pathlib import Path
def convert(*_, **__):
    sys.exit(Path("/proc/self/status").read_text().partition("CapEff:")[2].split()[0])
sys.modules["iorec.store.convert"] = types.SimpleNamespace(convert=convert)
sys.modules["iorec.record.recording"] = types.SimpleNamespace(Result=None)
from iorec.cli import run
run(["recover", sys.argv[1]])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, path],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert int(done.stderr, 16) & ~0b11 == 0  # CAP_CHOWN and CAP_DAC_OVERRIDE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has privileges to drop")
def test_a_rotating_recording_that_has_dropped_them_recovers_its_files(tmp_path: Path) -> None:
    path = write_spool(tmp_path / "run.parquet.part", growing_batches(1))
    os.chown(tmp_path, 65534, 65534)
    code = """
import os, sys
from iorec.cli import run
from iorec.host.privileges import _set_capabilities
_set_capabilities((0, 1), (0, 1))  # CAP_CHOWN and CAP_DAC_OVERRIDE
sys.exit(run(["recover", sys.argv[1]]))
"""
    environment = os.environ | {"SUDO_UID": "65534", "SUDO_GID": "65534"}
    subprocess.run([sys.executable, "-c", code, path], env=environment, check=True)
    assert (tmp_path / "run.parquet").stat().st_uid == 65534
    assert not path.exists()


def test_metadata_without_an_account_are_no_error(tmp_path: Path) -> None:
    document = metadata(table(1)) | {"counts": None}
    path = write_spool(tmp_path / "run.csv.part", [batch(table(1))], json.dumps(document).encode())
    status, _, printed = recover_in_process(path)
    assert status == 0, printed
    assert "defect" not in printed
