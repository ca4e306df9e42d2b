# SPDX-License-Identifier: GPL-2.0-only
"""The verdict where there is little to judge by, and what counts for nothing."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from analyze.fidelity import FAITHFUL, NOT_COMPARABLE
from analyze.fidelity_measures import compare
from tests.builders import table, write_capture
from tests.replays import asked_rows, done_rows, write_pair

COUNT = 2000


def test_errors_that_the_source_had_do_not_count(tmp_path: Path) -> None:
    asked = asked_rows(COUNT)
    place = asked.schema.get_field_index("errno")
    asked = asked.set_column(place, asked.schema.field(place), pa.array([5] * COUNT, pa.int16()))
    found = compare(*write_pair(tmp_path, asked, done_rows(asked)))
    assert (found.word, found.measured.errors) == (FAITHFUL, 0)


def test_one_io_may_be_late(tmp_path: Path) -> None:
    asked = asked_rows(COUNT).slice(0, 1)
    found = compare(*write_pair(tmp_path, asked, done_rows(asked, 3_000_000)))
    assert (found.word, {rule.name for rule in found.failed}) == (
        NOT_COMPARABLE,
        {"lateness p99", "late"},
    )


def test_where_nothing_was_asked_for_nothing_is_faithful(tmp_path: Path) -> None:
    rows = table(3, op="cache_flush", bytes=0, offset=None)
    for name in ("run.parquet", "replayed.parquet"):
        write_capture(tmp_path / name, rows)
    found = compare(tmp_path / "run.parquet", tmp_path / "replayed.parquet")
    assert (found.word, {rule.name for rule in found.failed}) == (NOT_COMPARABLE, {"matched"})


def test_flushes_before_data_are_not_taken_for_others(tmp_path: Path) -> None:
    ops, flags = ["write", "flush"] * (COUNT // 2), ["sync|preflush", "preflush"] * (COUNT // 2)
    asked = asked_rows(COUNT, op=ops, flags=flags, offset=0, bytes=[4096, 0] * (COUNT // 2))
    done = done_rows(asked, 1_500_000)
    added = done.filter(pc.equal(done["op"], "flush"))
    found = compare(*write_pair(tmp_path, asked, pa.concat_tables([done, added]), added=len(added)))
    assert (found.measured.asked, found.measured.matched) == (COUNT, COUNT)
    assert not any("nobody" in text for text in found.caveats)


def test_what_others_do_on_the_target_is_noted(tmp_path: Path) -> None:
    asked = asked_rows(COUNT)
    done = done_rows(asked)
    others = done.slice(0, COUNT // 10)
    found = compare(*write_pair(tmp_path, asked, pa.concat_tables([done, others])))
    assert found.measured.matched == COUNT
    assert f"the target did {COUNT // 10:,} I/Os that nobody asked for" in found.caveats[0]
    assert not any("nobody" in text for text in compare(*write_pair(tmp_path, asked, done)).caveats)
