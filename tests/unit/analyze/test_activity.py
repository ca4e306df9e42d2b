# SPDX-License-Identifier: GPL-2.0-only
"""Rows in memory give the numbers of the same rows in a file; how busy groups were."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest
from duckdb import DuckDBPyConnection

from analyze.activity import load_activity
from analyze.capture import open_captures
from analyze.database import open_database
from analyze.groupings import GROUPINGS, SORTS
from analyze.load import load_loads
from analyze.selection import Window
from analyze.summary import summarize
from analyze.table_rows import open_table
from tests.builders import SECOND_NS, START_NS, described, mixed_table, table, write_capture


@pytest.fixture
def connection() -> Iterator[DuckDBPyConnection]:
    with ExitStack() as resources:
        yield open_database((), resources)


def whole(rows: pa.Table) -> Window:
    metadata = described(rows)
    return Window(metadata.started_at, metadata.stopped_at)


def in_pieces(rows: pa.Table, size: int = 400) -> pa.Table:
    """As a feed brings them: each batch with dictionaries of its own."""
    names = [field.name for field in rows.schema if pa.types.is_dictionary(field.type)]
    pieces = []
    for begin in range(0, len(rows), size):
        piece = rows.slice(begin, size)
        for name in names:
            place, field = rows.schema.get_field_index(name), rows.schema.field(name)
            fresh = piece[name].cast(pa.string()).combine_chunks().dictionary_encode()
            piece = piece.set_column(place, field, fresh.cast(field.type))
        pieces.append(piece)
    return pa.concat_tables(pieces)


def test_rows_in_memory_have_the_summary_of_the_same_rows_in_a_file(
    tmp_path: Path, connection: DuckDBPyConnection
) -> None:
    rows = mixed_table(2003)
    hung = table(3, device="sda", latency_ns=None, queue_ns=None, errno=None)
    rows = pa.concat_tables([rows, hung, table(5, op="cache_flush", errno=5)])
    groupings = [(name,) for name in GROUPINGS if name != "capture"] + [("device", "op"), ()]
    with open_captures([write_capture(tmp_path / "run.parquet", rows)]) as capture:
        held = open_table(connection, in_pieces(rows), described(rows), whole(rows))
        for by in groupings:
            assert summarize(held, by) == summarize(capture, by), by
        for sort in SORTS:
            assert summarize(held, sort=sort, top=2) == summarize(capture, sort=sort, top=2)


def test_of_two_layers_that_of_the_device_is_shown(connection: DuckDBPyConnection) -> None:
    rows = pa.concat_tables([table(10), table(10, layer="bio")])
    for _ in range(2):
        held = open_table(connection, rows, described(rows), whole(rows))
        assert summarize(held).total.ios == 10


def test_a_condition_narrows_rows_in_memory(connection: DuckDBPyConnection) -> None:
    rows = table(4, comm=["fio", "fio", "dd", "it's"])
    found = [
        summarize(open_table(connection, rows, described(rows), whole(rows), where)).total.ios
        for where in (None, "comm = 'fio'", "comm = 'it''s'")
    ]
    assert found == [4, 2, 1]


def test_devices_are_as_busy_as_in_a_report(tmp_path: Path, connection: DuckDBPyConnection) -> None:
    rows = mixed_table(2003, seconds=0.9)
    with open_captures([write_capture(tmp_path / "run.parquet", rows)]) as capture:
        loads = load_loads(capture)
    held = open_table(connection, rows, described(rows), whole(rows))
    activity = load_activity(held, ("device",))
    busy_ns = {load.device: load.busy_ns for load in loads.devices}
    assert {key[0]: time_ns for key, time_ns in activity.busy_ns.items() if key} == busy_ns
    assert activity.busy_ns[()] == loads.total.busy_ns
    total = activity.summary.total
    assert activity.busy_share(total) == loads.total.busy_share
    assert activity.in_flight(total) == pytest.approx(loads.total.mean_in_flight)


def test_busy_is_counted_within_the_window_and_once(connection: DuckDBPyConnection) -> None:
    ms = SECOND_NS // 1000
    starts_ms, ends_ms = [0, 150, 160, 190], [120, 170, 165, 200]  # the window begins at 100
    rows = table(
        4,
        time=[START_NS + start * ms for start in starts_ms],
        latency_ns=[(e - s) * ms for s, e in zip(starts_ms, ends_ms, strict=True)],
    )
    window = Window(START_NS + 100 * ms, START_NS + 200 * ms)
    held = open_table(connection, rows, described(rows), window)
    activity = load_activity(held, ("device",))
    assert activity.busy_ns == {("loop0",): 50 * ms, (): 50 * ms}
    assert activity.busy_share(activity.summary.groups[0]) == 0.5
    assert activity.summary.total.ios_per_s == 40


def test_without_rows_nothing_was_busy(connection: DuckDBPyConnection) -> None:
    rows = table(0)
    activity = load_activity(
        open_table(connection, rows, described(rows), Window(START_NS, START_NS + 1)), ("file",)
    )
    assert activity.summary.groups == ()
    assert activity.busy_share(activity.summary.total) == 0
