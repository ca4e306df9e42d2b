# SPDX-License-Identifier: GPL-2.0-only
"""Opening captures: what is readable reads the same everywhere, what is not says why."""

import gzip
import json
import os
import sys
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import analyze
from analyze.capture import Capture
from analyze.errors import IorecError
from analyze.schema import ADDED_COLUMNS, METADATA_KEY, SCHEMA
from analyze.verdict import format_completeness
from tests.builders import (
    SECOND_NS,
    START_NS,
    metadata,
    mixed_table,
    rfc3339,
    table,
    write_capture,
    write_parquet,
)

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@x",
    "\tx",
    "'x",
    'a"b',
    "a,b",
    "a\nb",
    "\x1b[31m",
    "",
]


def error_of(*paths: Path | str, **selection: object) -> IorecError:
    with pytest.raises(IorecError) as caught:
        analyze.open(*paths, **selection)  # type: ignore[arg-type]
    assert caught.value.hint
    return caught.value


def count(capture: Capture) -> int:
    [(rows,)] = capture.sql("SELECT count(*) FROM io").fetchall()
    return int(rows)


def test_a_capture_gives_back_every_value_it_holds(tmp_path: Path) -> None:
    rows = mixed_table(1009)
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        read = capture.arrow()
    assert read.schema == SCHEMA
    assert read.to_pylist() == rows.to_pylist()


@pytest.mark.parametrize("name", ["run.csv", "run.csv.gz"])
def test_a_csv_capture_gives_back_every_value_it_holds(tmp_path: Path, name: str) -> None:
    names = [*HOSTILE, None]
    rows = table(len(names), comm=names, latency_ns=[None, *[1] * (len(names) - 1)])
    with analyze.open(write_capture(tmp_path / name, rows)) as capture:
        assert capture.arrow().to_pylist() == rows.to_pylist()


def test_other_tools_read_a_capture_without_our_code(tmp_path: Path) -> None:
    rows = mixed_table(1009)
    path = write_capture(tmp_path / "run.parquet", rows)
    latency = rows["latency_ns"].to_numpy()

    frame = pd.read_parquet(path)
    assert str(frame["time"].dtype) == "datetime64[ns, UTC]"
    assert frame["latency_ns"].sum() == latency.sum()
    polars = pl.read_parquet(path)
    assert polars["time"].dtype == pl.Datetime("ns", "UTC")
    assert polars["latency_ns"].sum() == latency.sum()
    query = f"SELECT sum(latency_ns), epoch_ns(min(time)), count(offset) FROM '{path}'"
    assert duckdb.execute(query.replace("offset", '"offset"')).fetchall() == [
        (latency.sum(), rows["time"][0].value, len(rows) - rows["offset"].null_count)
    ]


def test_pandas_and_duckdb_views_hold_the_rows_of_the_window(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(1000))
    with analyze.open(path, begin=0.25, end=0.75) as capture:
        assert len(capture.pandas()) == 500
        assert capture.duckdb().count("*").fetchall() == [(500,)]
        assert str(capture.pandas()["time"].dtype) == "datetime64[ns, UTC]"


def test_data_frames_have_categories_and_integers_that_may_be_unknown(tmp_path: Path) -> None:
    rows = table(4, pid=[None, 7, 7, 8], comm=[None, "b", "a", "b"], bios=[None, 1, 2, 3], inode=9)
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        frame, polars = capture.pandas(), capture.polars()
    names = [field.name for field in SCHEMA if pa.types.is_dictionary(field.type)]
    numbers = {
        field.name: str(field.type).capitalize()
        for field in SCHEMA
        if pa.types.is_integer(field.type)
    }
    assert len(names) + len(numbers) == len(SCHEMA) - 2
    assert {name: str(frame[name].dtype) for name in names} == dict.fromkeys(names, "category")
    assert {name: str(frame[name].dtype) for name in numbers} == numbers
    assert {polars[name].dtype for name in names} == {pl.Categorical()}
    assert {name: str(polars[name].dtype) for name in numbers} == numbers
    for name in SCHEMA.names[1:]:
        values = rows[name].to_pylist()
        assert [None if pd.isna(value) else value for value in frame[name]] == values
        assert polars[name].to_list() == values


def test_rows_of_all_files_come_by_time(tmp_path: Path) -> None:
    for number in range(3):
        times = START_NS + number + 3 * np.arange(1000)
        write_capture(tmp_path / f"{number}.parquet", table(1000, time=times))
    with analyze.open(tmp_path) as capture:
        times = capture.pandas()["time"].astype(np.int64).to_numpy()
    assert (times == START_NS + np.arange(3000)).all()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_library_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet")) as capture:
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(IorecError, match=f"{library} is not installed") as caught:
            getattr(capture, library)()
    assert caught.value.hint == f"pip install {library}"
    assert caught.value.__notes__ == [f"hint: pip install {library}"]


def test_a_capture_says_what_it_is(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(1009))
    with analyze.open(path) as capture:
        assert repr(capture) == "<Capture run.parquet: 1,009 I/Os, 1.01 s on db1, complete>"
    closed = repr(capture)
    assert closed.startswith("<Capture run.parquet: 1,009 I/Os")
    with analyze.open(path, begin=0.5, where="pid > 0", layer="request") as capture:
        narrowed = "; only in the layer request from 0.5 s where pid > 0>"
        assert repr(capture).endswith(f", complete{narrowed}")
    write_capture(tmp_path / "lossy.parquet", table(7), complete=False, hostname="db2")
    write_capture(tmp_path / "bare.csv", table(5))
    with analyze.open(path, tmp_path / "lossy.parquet") as capture:
        assert repr(capture) == "<Capture 2 files: 1,016 I/Os, 1.01 s on 2 hosts, INCOMPLETE>"
    (tmp_path / "bare.meta.json").unlink()
    with analyze.open(tmp_path / "bare.csv") as capture:
        assert "bare.csv: 5 rows, " in repr(capture)
        assert repr(capture).endswith(", no account>")


def test_what_a_notebook_shows_of_a_capture_has_no_tags_of_others(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>&\x1b[31m"
    path = write_capture(tmp_path / "<b>&run.parquet", table(3, device=hostile), hostname=hostile)
    with analyze.open(path, where="comm <> '<i>'") as capture:
        shown = capture._repr_html_()
        assert "\x1b" not in repr(capture)
    tags = {element.tag for element in ElementTree.fromstring(shown).iter()}
    assert tags == {"table", "tr", "th", "td"}
    text = "\n".join(ElementTree.fromstring(shown).itertext())
    said = ("<b>&run.parquet", "3 I/Os", "<script>alert(1)</script>&\\x1b[31m", "comm <> '<i>'")
    for words in (*said, "complete: 3 I/Os recorded"):
        assert words in text


def test_several_files_a_glob_and_a_folder_read_as_one(tmp_path: Path) -> None:
    paths = [write_capture(tmp_path / f"{i}.parquet", table(10 + i)) for i in range(3)]
    paths.append(write_capture(tmp_path / "3.csv.gz", table(13)))
    (tmp_path / "notes.csv").write_text("no capture: nothing describes it\n")
    for given in (paths, [tmp_path], [tmp_path / "*.parquet", tmp_path / "3.csv.gz"]):
        with analyze.open(*given) as capture:
            assert count(capture) == 10 + 11 + 12 + 13
            assert capture.completeness().recorded == 46


def test_a_file_given_twice_counts_once(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(7))
    (tmp_path / "link.parquet").symlink_to(path)
    with analyze.open(path, tmp_path, path) as capture:
        assert count(capture) == 7
        assert len(capture.files) == 1
        assert sorted(p.name for p in capture.repeats) == ["link.parquet", *["run.parquet"] * 2]


def test_rows_of_several_files_say_whose_they_are(tmp_path: Path) -> None:
    one = write_capture(tmp_path / "1.parquet", table(3))
    other = write_capture(tmp_path / "2.csv.gz", table(4), hostname="db2\ud800")
    with analyze.open(one) as capture:
        assert "host" not in capture.pandas()
    with analyze.open(one, other, where="host <> 'x'") as capture:
        counts = capture.pandas().groupby(["host", "capture"]).size().to_dict()
    assert counts == {("db1", str(one)): 3, ("db2\\ud800", str(other)): 4}


@pytest.mark.parametrize("name", ["a\\*.parquet", "[b\\].csv", "\\a?.csv.gz"])
def test_a_name_that_duckdb_cannot_be_given_is_said_to_be_the_cause(
    tmp_path: Path, name: str
) -> None:
    path = write_capture(tmp_path / name, table(3))
    assert "its name holds a backslash" in error_of(path).message


@pytest.mark.parametrize(
    "name",
    ["a[1]*?.parquet", "a?.csv", "a?.csv.gz", "it's.parquet", "k=v.parquet", "日本 {x,y}.parquet"],
)
def test_a_name_with_special_characters_is_only_a_name(tmp_path: Path, name: str) -> None:
    write_capture(tmp_path / "a1xx.parquet", table(3))
    with analyze.open(write_capture(tmp_path / name, table(7))) as capture:
        assert count(capture) == 7


def test_a_window_counts_seconds_from_the_earliest_start(tmp_path: Path) -> None:
    first = write_capture(tmp_path / "1.parquet", table(1000))
    later = table(1000, time=START_NS + 5 * SECOND_NS + np.arange(1000) * 1_000_000)
    second = write_capture(
        tmp_path / "2.parquet",
        later,
        started_at=rfc3339(START_NS + 5 * SECOND_NS),
        stopped_at=rfc3339(START_NS + 6 * SECOND_NS),
    )
    with analyze.open(second, first, begin=0.9, end=5.1) as capture:
        assert count(capture) == 200
        assert capture.window == (START_NS + 9 * 10**8, START_NS + 51 * 10**8)
        assert capture.covered_ns == 2 * 10**8


def test_a_row_at_the_begin_is_in_the_window_and_one_at_its_end_is_not(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(3, time=[START_NS + i for i in (5, 6, 7)]))
    with analyze.open(path, begin=5e-9, end=7e-9) as capture:
        assert count(capture) == 2


def test_a_window_may_be_given_in_times_of_the_clock(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(1000))
    for begin, end in (("20:32:47.25", "2026-11-21T20:32:47.75Z"), ("250ms", "0.75")):
        with analyze.open(path, begin=begin, end=end) as capture:
            assert (capture.selection.begin_s, capture.selection.end_s) == (0.25, 0.75)
            assert capture.duckdb().count("*").fetchall() == [(500,)]
    with analyze.open(path, begin="20:00:00") as capture:
        assert capture.window.begin_ns == START_NS
    assert "from 2026-11-21 20:32:47 UTC on" in error_of(path, end="20:00:00").hint


@pytest.mark.parametrize(("begin", "end"), [("-250ms", "-0.1"), (-0.25, -0.1), ("-1h", "-100ms")])
def test_a_negative_time_counts_from_the_end(
    tmp_path: Path, begin: float | str, end: float | str
) -> None:
    rows = table(1000)
    path = write_capture(tmp_path / "run.parquet", rows, stopped_at=rfc3339(START_NS + SECOND_NS))
    with analyze.open(path, begin=begin, end=end) as capture:
        assert count(capture) == (900 if begin == "-1h" else 150)
        assert capture.window.end_ns == START_NS + 9 * 10**8


@pytest.mark.parametrize(
    ("begin_s", "end_s"),
    [(None, -100), (None, 0), (5, 5), (5, 2), (float("nan"), 1), (float("inf"), 1)],
)
def test_a_window_that_makes_no_sense_is_a_usage_error(
    tmp_path: Path, begin_s: float | None, end_s: float | None
) -> None:
    path = write_capture(tmp_path / "run.parquet")
    assert error_of(path, begin=begin_s, end=end_s).exit_code == 2


@pytest.mark.parametrize("begin", [100.0, 1e300])
def test_a_window_after_the_recording_is_said(tmp_path: Path, begin: float) -> None:
    error = error_of(write_capture(tmp_path / "run.parquet"), begin=begin)
    assert error.message == "the window begins when the recording had ended"
    assert error.exit_code == 1


def test_a_condition_that_nothing_meets_leaves_no_rows(tmp_path: Path) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet"), where="pid = -5") as capture:
        assert count(capture) == 0
        assert capture.summary().groups == ()
        with pytest.raises(IorecError, match="no I/O to draw where pid = -5"):
            capture.plot()


def test_an_empty_capture_opens(tmp_path: Path) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet", table(0))) as capture:
        assert count(capture) == 0


def test_of_two_layers_that_see_the_same_io_one_is_shown(tmp_path: Path) -> None:
    rows = table(
        6,
        layer=["bio", "request"] * 2 + ["bio"] * 2,
        device=["sda"] * 4 + ["dm-0"] * 2,
    )
    with analyze.open(write_capture(tmp_path / "run.parquet", rows)) as capture:
        shown = capture.sql("SELECT device, layer, count(*) FROM io GROUP BY ALL ORDER BY ALL")
        assert shown.fetchall() == [("dm-0", "bio", 2), ("sda", "request", 2)]


@pytest.mark.parametrize(("layer", "expected"), [("bio", 4), ("request", 2)])
def test_one_layer_can_be_asked_for(tmp_path: Path, layer: str, expected: int) -> None:
    rows = table(6, device=["sda"] * 4 + ["dm-0"] * 2, layer=["bio", "request"] * 2 + ["bio"] * 2)
    with analyze.open(write_capture(tmp_path / "run.parquet", rows), layer=layer) as capture:
        assert capture.sql("SELECT DISTINCT layer FROM io").fetchall() == [(layer,)]
        assert capture.summary().total.ios == expected


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz"])
def test_columns_that_came_later_are_null_in_older_captures(tmp_path: Path, suffix: str) -> None:
    old, new = tmp_path / f"old.{suffix}", tmp_path / f"new.{suffix}"
    write_capture(old, table(7, bios=5))
    write_capture(new, table(3, bios=2))
    if suffix == "parquet":
        described = pq.read_metadata(old).metadata[METADATA_KEY]
        write_parquet(old, table(7).drop_columns(list(ADDED_COLUMNS)), described)
    else:
        with gzip.open(old, "rt") if suffix == "csv.gz" else old.open() as file:
            lines = [line.rstrip("\n").split(",")[: -len(ADDED_COLUMNS)] for line in file]
        text = "".join(",".join(line) + "\n" for line in lines)
        old.write_bytes(gzip.compress(text.encode()) if suffix == "csv.gz" else text.encode())
    with analyze.open(old, new) as capture:
        found = capture.sql("SELECT bios, count(*) FROM io GROUP BY ALL ORDER BY ALL").fetchall()
    assert found == [(2, 3), (None, 7)]


def test_leaving_a_capture_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_capture(tmp_path / "run.parquet")
    spill = tmp_path / "spill"
    spill.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spill))
    with analyze.open(path) as capture:
        assert list(spill.iterdir())
    assert not list(spill.iterdir())
    with pytest.raises(duckdb.ConnectionException):
        capture.sql("SELECT 1")
    error_of(path, begin=1000.0)
    assert not list(spill.iterdir())


def test_a_capture_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert "no such file" in error_of(tmp_path / "run.parquet").message
    assert "no file matches" in error_of(tmp_path / "*.parquet").message
    assert "no capture in the folder" in error_of(tmp_path).message
    assert error_of().exit_code == 2


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.parquet")
    assert "not a regular file" in error_of(tmp_path / "pipe.parquet").message
    assert "not a regular file" in error_of("/dev/zero").message


def test_what_describes_a_csv_is_not_opened_unless_it_is_a_file(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.csv")
    (tmp_path / "run.meta.json").unlink()
    os.mkfifo(tmp_path / "run.meta.json")
    assert "run.meta.json, which describes it, is not a regular file" in error_of(path).message


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (b"PA", "truncated"),
        (b"time,layer,op\n" * 9, "not a Parquet file"),
        (b"PAR1" + b"x" * 100, "truncated"),
        (b"PAR1" + b"x" * 100 + (2**31).to_bytes(4, "little") + b"PAR1", "truncated"),
        (b"PAR1" + b"x" * 100 + (50).to_bytes(4, "little") + b"PAR1", "damaged"),
    ],
)
def test_what_is_no_parquet_file_is_said(tmp_path: Path, content: bytes, cause: str) -> None:
    path = tmp_path / "run.parquet"
    path.write_bytes(content)
    error = error_of(path)
    assert cause in error.message
    assert error.exit_code == 1


def test_the_spool_of_an_interrupted_recording_is_to_be_recovered(tmp_path: Path) -> None:
    path = tmp_path / "run.parquet.part"
    path.write_bytes(b"\xff\xff\xff\xff")
    assert error_of(path).hint.endswith(f"iorec recover {path}")


def test_a_parquet_file_of_somebody_else_is_said(tmp_path: Path) -> None:
    assert (
        "not a capture of iorec"
        in error_of(write_parquet(tmp_path / "other.parquet", table(3), None)).message
    )


def test_a_column_of_another_type_or_none_at_all_is_named(tmp_path: Path) -> None:
    rows = table(3)
    described = json.dumps(metadata(rows)).encode()
    text_pid = rows.set_column(11, "pid", pa.array(["1", "2", "3"]))
    path = write_parquet(tmp_path / "text.parquet", text_pid, described)
    assert "column pid has the type VARCHAR, not INTEGER" in error_of(path).message
    micro = rows.set_column(0, "time", rows["time"].cast(pa.timestamp("us", "UTC")))
    path = write_parquet(tmp_path / "micro.parquet", micro, described)
    assert "column time has the type" in error_of(path).message
    path = write_parquet(tmp_path / "less.parquet", rows.drop_columns(["errno"]), described)
    assert "column errno is missing" in error_of(path).message


def test_a_csv_without_a_header_is_said(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.csv")
    path.write_text("a,b,c\n1,2,3\n")
    assert "not the header of a capture" in error_of(path).message


@pytest.mark.parametrize("name", ["run.csv", "run.csv.gz"])
def test_a_csv_without_its_description_opens_without_an_account(tmp_path: Path, name: str) -> None:
    rows = table(4, layer=["request", "bio"] * 2, device=["sda", "sda", "sda", "dm-0"])
    path = write_capture(tmp_path / name, rows)
    (tmp_path / "run.meta.json").unlink()
    with analyze.open(path) as capture:
        assert capture.completeness().is_complete is None
        assert format_completeness(capture.completeness()).startswith("no account: ")
        assert capture.summary(["device"]).total.ios == 3
        metadata = capture.files[0].metadata
        assert metadata.layers == ("bio", "request")
        assert (metadata.started_at, metadata.stopped_at) == (START_NS, START_NS + 3_100_000)


def test_an_empty_csv_without_its_description_opens(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.csv", table(0))
    (tmp_path / "run.meta.json").unlink()
    with analyze.open(path) as capture:
        assert count(capture) == 0
        assert capture.completeness().is_complete is None


@pytest.mark.parametrize("version", [1, 2])
def test_rows_of_version_1_are_read_as_those_of_version_2(tmp_path: Path, version: int) -> None:
    rows = table(
        4,
        op=["flush", "write", "write", "write"],
        flags=["preflush", "sync|preflush", "preflush|fua", "sync"],
        bytes=[0, 0, 4096, 0],
        offset=[None, 0, 8192, 4096],
    )
    path = write_capture(tmp_path / "run.parquet", rows, format_version=version)
    with analyze.open(path) as capture:
        found = capture.sql('SELECT op, "offset" FROM io ORDER BY time').fetchall()
    if version == 1:
        assert found == [("cache_flush", None), ("flush", None), ("write", 8192), ("write", 4096)]
    else:
        assert found == [("flush", None), ("write", 0), ("write", 8192), ("write", 4096)]


def test_a_recorded_capture_of_version_1_opens() -> None:
    path = Path(__file__).parents[2] / "data" / "version-1.parquet"
    stored = pd.read_parquet(path)
    assert json.loads(pq.read_metadata(path).metadata[METADATA_KEY])["format_version"] == 1
    with analyze.open(path) as capture:
        assert capture.completeness().is_complete
        frame = capture.pandas()
    assert len(frame) == len(stored)
    assert (frame.op == "cache_flush").sum() == (stored.op == "flush").sum() == 8
    assert frame[frame.op == "flush"].empty
    assert set(frame.columns) == set(SCHEMA.names)


def test_a_csv_with_a_damaged_line_is_said(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.csv")
    path.write_text(path.read_text() + "when?,request,read,,sda,,0,x,1,1,0,1,1,fio,/,0\n")
    with pytest.raises(IorecError, match="damaged"), analyze.open(path) as capture:
        capture.summary()


def test_damage_that_shows_only_when_rows_are_read_is_said(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet")
    first_page = pq.read_metadata(path).row_group(0).column(8).data_page_offset
    content = bytearray(path.read_bytes())
    content[first_page : first_page + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(IorecError, match="damaged"), analyze.open(path) as capture:
        capture.summary()
