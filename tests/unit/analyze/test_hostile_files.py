# SPDX-License-Identifier: GPL-2.0-only
"""A file from a stranger gives a result or one typed error, within bounded memory and time."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import analyze
from analyze.errors import IorecError
from analyze.info import make_info
from analyze.render.csv import render_csv
from analyze.render.info import render_info
from analyze.render.json import render_json
from analyze.render.report import render_text
from analyze.report import make_report
from analyze.schema import METADATA_KEY, SCHEMA
from tests.builders import START_NS, metadata, mixed_table, table, write_capture, write_parquet

INT64 = 2**63 - 1
MIB = 1 << 20


def read_everything(path: Path) -> str | None:
    """What all readers print, or None after the one error that they may raise."""
    try:
        with analyze.open(path) as capture:
            report = make_report(capture, ["process", "size", "op"], histogram=True)
            info = make_info(capture)
    except IorecError as error:
        assert error.message
        assert error.hint
        return None
    return "".join(
        [render_text(report, 80), render_json(report), render_csv(report), render_info(info, 80)]
    )


def test_a_capture_cut_off_at_any_byte_is_refused(tmp_path: Path) -> None:
    whole = write_capture(tmp_path / "whole.parquet", table(3)).read_bytes()
    cut = tmp_path / "cut.parquet"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(IorecError):
            analyze.open(cut)


@pytest.mark.parametrize("name", ["whole.csv", "whole.csv.gz"])
def test_a_csv_capture_that_is_cut_off_never_passes_for_whole(tmp_path: Path, name: str) -> None:
    path = write_capture(tmp_path / name, mixed_table(20))
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 61):
        path.write_bytes(whole[:length])
        text = read_everything(path)
        assert text is None or text.startswith("INCOMPLETE")


changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True), st.sampled_from([0, 1, 2, 16, 127, 128, 254, 255])
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "run.parquet"
    return write_capture(path, mixed_table(50)).read_bytes()


@settings(max_examples=60, deadline=None)
@given(in_footer=st.booleans(), changes=changes)
def test_flipped_bits_give_a_result_or_one_error(
    tmp_path_factory: pytest.TempPathFactory,
    whole: bytes,
    in_footer: bool,
    changes: list[tuple[float, int]],
) -> None:
    content = bytearray(whole)
    begin = len(content) - 8 - int.from_bytes(content[-8:-4], "little") if in_footer else 0
    for place, bits in changes:
        content[begin + int(place * (len(content) - begin))] ^= bits
    path = tmp_path_factory.getbasetemp() / "flipped.parquet"
    path.write_bytes(content)
    read_everything(path)


@settings(max_examples=40, deadline=None)
@given(
    place=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    value=st.sampled_from([None, True, -1, 2**64, 1e308, "", "\ud800", [], {}, [[]], {"": 0}]),
)
def test_any_value_anywhere_in_the_metadata_gives_a_result_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, place: list[int], value: object
) -> None:
    rows = table(3)
    node = described = metadata(rows)
    for step, index in enumerate(place):
        keys = list(node if isinstance(node, dict) else range(len(node)))
        key = keys[index % len(keys)]
        if step == len(place) - 1 or not isinstance(node[key], dict | list) or not node[key]:
            node[key] = value
            break
        node = node[key]
    path = tmp_path_factory.getbasetemp() / "described.parquet"
    read_everything(write_parquet(path, rows, json.dumps(described).encode()))


def test_nulls_where_none_belong_are_shown_as_unknown(tmp_path: Path) -> None:
    nullable = pa.schema([field.with_nullable(True) for field in SCHEMA])
    rows = pa.Table.from_pylist([{}] * 3, nullable)
    path = write_parquet(tmp_path / "run.parquet", rows, json.dumps(metadata(table(3))).encode())
    text = read_everything(path)
    assert text
    assert "unknown" in text


@pytest.mark.parametrize("column", ["time", "offset", "bytes", "latency_ns", "queue_ns", "errno"])
def test_values_at_both_ends_of_a_column_give_a_result_or_one_error(
    tmp_path: Path, column: str
) -> None:
    limit = 2**15 - 1 if column == "errno" else INT64
    for value in (-limit - 1, -limit, -1, 0, 1, limit):
        rows = table(3, **{column: [value, value, START_NS if column == "time" else 5]})
        described = json.dumps(metadata(table(3))).encode()
        read_everything(write_parquet(tmp_path / "run.parquet", rows, described))


def test_a_count_of_rows_that_no_file_of_this_size_holds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_capture(tmp_path / "run.parquet", table(100_003))
    with analyze.open(path):
        pass
    monkeypatch.setattr("analyze.sources._MAX_ROWS_PER_BYTE", 0.01)
    with pytest.raises(IorecError, match="claims 100,003 rows"):
        analyze.open(path)


def report_in_process(path: Path) -> tuple[int, str]:
    """The most memory that `iorec report` took, and all that it printed."""
    # Not ru_maxrss: that counts what this process had when it forked.
    code = """
import re, sys
from pathlib import Path
from iorec.cli import run
assert run(["report", sys.argv[1]]) in (0, 1)
print(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""
    command = [sys.executable, "-c", code, str(path)]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    printed, peak_kib = result.stdout.rstrip().rsplit("\n", 1)
    return int(peak_kib) * 1024, printed


def test_names_that_unpack_to_more_than_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.parquet"
    place = SCHEMA.get_field_index("comm")
    with pq.ParquetWriter(path, SCHEMA, compression="zstd") as writer:
        for letter in "abcdefghij":
            name = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), [letter * (70 * MIB)])
            writer.write_table(table(1).set_column(place, SCHEMA.field(place), name))
        writer.add_key_value_metadata({METADATA_KEY: json.dumps(metadata(table(10))).encode()})
    assert path.stat().st_size < MIB
    peak_bytes, printed = report_in_process(path)
    assert "memory" in printed
    assert peak_bytes < 1024 * MIB


def test_a_csv_line_without_an_end_is_not_taken_for_a_row(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.csv.gz", table(3))
    header = gzip.decompress(path.read_bytes()).split(b"\n", 1)[0]
    path.write_bytes(gzip.compress(header + b"\n" + b"x" * (64 * MIB), compresslevel=1))
    peak_bytes, printed = report_in_process(path)
    assert printed.startswith(("INCOMPLETE", "error: "))
    assert peak_bytes < 512 * MIB
