# SPDX-License-Identifier: GPL-2.0-only
"""The plan: what rows become, what is left out and why, and what is refused."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analyze.capture import open_captures
from analyze.dependencies import infer_threads
from analyze.errors import IorecError
from analyze.replay_actions import FLUSH, FUA, PREFLUSH, READ, WRITE, ZERO, ZERO_NO_UNMAP
from analyze.replay_rows import Place, Rules, create_replayed
from analyze.schema import METADATA_KEY
from iorec.replay.plan import check_source, make_plan
from iorec.replay.planned import Plan
from tests.builders import START_NS, table, write_capture

SIZE = 1 << 20


def place(**changed: Any) -> Place:
    values = {
        "source": "loop0",
        "size_bytes": SIZE,
        "source_size_bytes": 1 << 30,
        "logical_block_size": 512,
        "largest_bytes": 1 << 19,
        "is_written": True,
    }
    return Place(**{**values, **changed})


def rules(*places: Place, **changed: Any) -> Rules:
    return Rules(
        places or (place(),), **{"writes": "read", "fit": "refuse", "has_aio": False, **changed}
    )


def plan_of(folder: Path, rows: pa.Table, wanted: Rules) -> tuple[Plan, list[tuple[Any, ...]]]:
    """The plan, and action, place and size of each row that is replayed."""
    with open_captures([write_capture(folder / "run.parquet", rows)]) as capture:
        create_replayed(capture, wanted)
        made = make_plan(capture, wanted)
        found = capture.sql("SELECT action, place, size FROM replayed ORDER BY time").fetchall()
    return made, found


def test_each_operation_becomes_what_it_was(tmp_path: Path) -> None:
    ops = ["read", "write", "write", "write", "flush", "discard", "write_zeroes", "write_zeroes"]
    flags = ["", "sync", "sync|fua", "sync|fua|preflush", "preflush", "", "", "nounmap"]
    size = [4096, 4096, 4096, 4096, 0, 8192, 8192, 8192]
    offset = [None if op == "flush" else number * 8192 for number, op in enumerate(ops)]
    rows = table(8, op=ops, flags=flags, bytes=size, offset=offset)
    made, found = plan_of(tmp_path, rows, rules())
    actions = [READ, WRITE, WRITE | FUA, WRITE | FUA | PREFLUSH, FLUSH, 3, ZERO, ZERO_NO_UNMAP]
    assert found == [
        (action, at or 0, amount) for action, at, amount in zip(actions, offset, size, strict=True)
    ]
    assert made.targets[0].ios == {
        "write": 3,
        "write_zeroes": 2,
        "discard": 1,
        "flush": 1,
        "read": 1,
    }
    assert (made.ios, made.bytes, made.left_out) == (8, 4 * 4096, {})
    assert made.targets[0].written_bytes == 3 * 4096
    assert (made.first_ns, made.span_ns) == (START_NS, 7_000_000)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"op": "cache_flush", "bytes": 0}, "cache flushes, which the target does by itself"),
        ({"device": "sda"}, "sda: not mapped"),
        ({"device": None}, "an unknown device: not mapped"),
        ({"op": "zone_reset"}, "zone_reset: cannot be replayed"),
        ({"op": "secure_erase"}, "secure_erase: cannot be replayed"),
        ({"op": "driver"}, "driver: cannot be replayed"),
        ({"op": "read", "bytes": 0}, "moves no data"),
        ({"op": "discard", "bytes": 0}, "discard of nothing"),
        ({"op": "write", "offset": None}, "without a valid place"),
        ({"op": "read", "offset": -512}, "without a valid place"),
        ({"op": "read", "bytes": 1 << 40}, "larger than 32 MiB"),
        ({"layer": "bio", "above": "loop0"}, "sent down by loop0, which is mapped"),
    ],
)
def test_what_is_left_out_has_a_reason_and_a_count(
    tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    good = table(3)
    bad = table(1, **{"offset": 0, **row})
    rows = pa.concat_tables([good, bad, bad], promote_options="permissive")
    with open_captures([write_capture(tmp_path / "run.parquet", rows)]) as capture:
        capture.connection.execute("CREATE OR REPLACE VIEW io AS SELECT * FROM shown")
        if "layer" in row:  # that of the device below would not be shown
            source = str(capture.files[0].path)
            capture.connection.execute(
                "CREATE OR REPLACE VIEW io AS SELECT *, 'h' AS host, '' AS capture"
                f" FROM read_parquet('{source}')"
            )
        create_replayed(capture, rules())
        made = make_plan(capture, rules())
    assert made.left_out == {reason: 2}
    assert made.ios == 3


def test_a_target_that_is_only_read_gets_reads_or_nothing_for_writes(tmp_path: Path) -> None:
    rows = table(4, op=["read", "write", "flush", "discard"], bytes=[512, 512, 0, 512])
    only_read = place(is_written=False)
    made, found = plan_of(tmp_path, rows, rules(only_read))
    assert [action for action, *_ in found] == [READ, READ]
    assert made.left_out == {
        "discard: the target is only read": 1,
        "flush: the target is only read": 1,
    }
    made, found = plan_of(tmp_path, rows, rules(only_read, writes="skip"))
    assert [action for action, *_ in found] == [READ]
    assert made.left_out["writes: the target is only read"] == 1


def test_libaio_and_targets_without_discard_leave_out_what_they_cannot_do(tmp_path: Path) -> None:
    rows = table(3, op=["read", "discard", "write_zeroes"])
    made, _ = plan_of(tmp_path, rows, rules(has_aio=True))
    assert made.left_out == {"discard: libaio has none": 1, "write_zeroes: libaio has none": 1}
    for limits in ({"largest_discard_bytes": 0}, {"largest_zeroes_bytes": 0}):
        made, _ = plan_of(tmp_path, rows, rules(place(**limits)))
        what = "discard" if "largest_discard_bytes" in limits else "write_zeroes"
        assert made.left_out == {f"{what}: the target cannot": 1}


@pytest.mark.parametrize(
    ("columns", "changed", "message"),
    [
        ({"offset": SIZE - 2048}, {}, "1 I/O of loop0 end beyond the target's 1.0 MiB"),
        ({"offset": 1 << 62, "bytes": 512}, {}, "end beyond"),
        ({"offset": 512}, {"logical_block_size": 4096}, "not in whole blocks of the target"),
        ({"bytes": 1 << 19}, {"largest_bytes": 1 << 18}, "one request of the target, 256 KiB"),
        ({"op": "discard"}, {"largest_discard_bytes": 2048}, "one request of the target, 2.0 KiB"),
        ({"op": "write_zeroes"}, {"largest_zeroes_bytes": 2048}, "the target, 2.0 KiB"),
        ({"op": "write", "offset": (1 << 63) - 1}, {"size_bytes": None}, "what a file can hold"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_count(
    tmp_path: Path, columns: dict[str, Any], changed: dict[str, Any], message: str
) -> None:
    rows = table(1, **{"offset": 0, **columns})
    with pytest.raises(IorecError, match=message) as caught:
        plan_of(tmp_path, rows, rules(place(**changed)))
    assert "--fit wrap" in caught.value.hint


def test_wrapped_ios_begin_again_and_none_crosses_the_end(tmp_path: Path) -> None:
    offsets = [0, SIZE - 4096, SIZE, SIZE + 8192, 7 * SIZE + 4096, SIZE - 512, 1 << 61]
    rows = table(7, offset=offsets)
    made, found = plan_of(tmp_path, rows, rules(fit="wrap"))
    assert [at for _, at, _ in found] == [0, SIZE - 4096, 0, 8192, 4096, SIZE - 4096, 0]
    assert all(0 <= at <= SIZE - size for _, at, size in found)
    assert made.moved == 5


def test_scaled_offsets_keep_their_share_of_the_device(tmp_path: Path) -> None:
    rows = table(3, offset=[0, 1 << 29, (1 << 30) - 4096])
    made, found = plan_of(tmp_path, rows, rules(fit="scale"))
    assert [at for _, at, _ in found] == [0, SIZE // 2, SIZE - 4096]
    assert made.moved == 2
    with pytest.raises(IorecError, match="does not say how large loop0 is"):
        plan_of(tmp_path, rows, rules(place(source_size_bytes=None), fit="scale"))


def test_nothing_is_scaled_to_a_new_file(tmp_path: Path) -> None:
    rows = table(2, offset=[0, 1 << 29])
    _, found = plan_of(tmp_path, rows, rules(place(size_bytes=None), fit="scale"))
    assert [at for _, at, _ in found] == [0, 1 << 29]


@pytest.mark.parametrize("fit", ["wrap", "scale"])
def test_what_is_larger_than_the_target_fits_nowhere(tmp_path: Path, fit: str) -> None:
    rows = table(2, op=["discard", "read"], bytes=[1 << 40, 4096])
    with pytest.raises(IorecError, match=r"1 I/O of loop0 are larger than the whole target, 1\.0"):
        plan_of(tmp_path, rows, rules(fit=fit))


def test_a_flush_has_no_place_whatever_its_row_says(tmp_path: Path) -> None:
    rows = table(2, op="flush", bytes=0, offset=[1 << 62, -1])
    _, found = plan_of(tmp_path, rows, rules())
    assert found == [(FLUSH, 0, 0), (FLUSH, 0, 0)]


@pytest.mark.parametrize("column", ["time", "op", "bytes"])
def test_a_row_that_lacks_what_every_row_has_is_left_out(tmp_path: Path, column: str) -> None:
    path = write_capture(tmp_path / "run.parquet", table(3, op="write"))
    rows = pq.read_table(path)
    field = rows.schema.field(column)
    at = rows.schema.get_field_index(column)
    values = pa.array([*rows[column].to_pylist()[:2], None], field.type)
    rows = rows.set_column(at, pa.field(column, field.type), values)
    described = pq.read_metadata(path).metadata[METADATA_KEY]
    with pq.ParquetWriter(path, rows.schema) as writer:
        writer.write_table(rows)
        writer.add_key_value_metadata({METADATA_KEY: described})
    with open_captures([path]) as capture:
        create_replayed(capture, rules())
        made = make_plan(capture, rules())
    assert made.targets[0].ios == {"write": 2}
    assert made.left_out == {"without a time, an operation or a size": 1}


def test_ios_are_made_whole_blocks_when_they_are_to_fit(tmp_path: Path) -> None:
    rows = table(2, offset=[512, 4096], bytes=[512, 5120])
    made, found = plan_of(tmp_path, rows, rules(place(logical_block_size=4096), fit="wrap"))
    assert found == [(READ, 0, 4096), (READ, 4096, 8192)]
    assert made.moved == 2


def test_numbers_at_the_end_of_their_range_are_refused_or_fitted(tmp_path: Path) -> None:
    rows = table(2, offset=[(1 << 63) - 4096, 0], latency_ns=[(1 << 63) - 1, -5])
    with pytest.raises(IorecError, match="1 I/O of loop0 end beyond"):
        plan_of(tmp_path, rows, rules())
    _, found = plan_of(tmp_path, rows, rules(fit="wrap"))
    assert all(0 <= at <= SIZE - size for _, at, size in found)
    with open_captures([tmp_path / "run.parquet"]) as capture:
        create_replayed(capture, rules(fit="wrap"))
        assert infer_threads(capture.connection, "replayed")[0].ios == 2


def test_a_new_file_has_room_for_everything(tmp_path: Path) -> None:
    rows = table(1, offset=1 << 50)
    made, _ = plan_of(tmp_path, rows, rules(place(size_bytes=None)))
    assert made.targets[0].end_bytes == (1 << 50) + 4096


def test_nothing_left_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(IorecError, match="no I/O is left") as caught:
        plan_of(tmp_path, table(3, op="driver"), rules())
    assert "driver: cannot be replayed (3)" in caught.value.hint


def test_two_devices_are_planned_side_by_side(tmp_path: Path) -> None:
    rows = table(5, device=["loop0", "loop0", "sda", "sda", "sda"])
    made, _ = plan_of(tmp_path, rows, rules(place(), place(source="sda", size_bytes=SIZE * 2)))
    assert [sum(target.ios.values()) for target in made.targets] == [2, 3]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"counts": None}, "no account"),
        ({"counts": {"completions": 12, "lost": {"ring_full": 2}}}, "2 of 12 I/Os lost"),
        ({"complete": False}, "its end is missing"),
    ],
)
def test_a_capture_that_lacks_ios_is_replayed_only_if_that_is_accepted(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    path = write_capture(tmp_path / "run.parquet", table(10), **changed)
    with open_captures([path]) as capture:
        with pytest.raises(IorecError, match=message) as caught:
            check_source(capture, ["loop0"], accepts_losses=False)
        assert "--accept-losses" in caught.value.hint
        check_source(capture, ["loop0"], accepts_losses=True)


def test_captures_of_several_hosts_are_refused(tmp_path: Path) -> None:
    write_capture(tmp_path / "one.parquet", table(10))
    write_capture(tmp_path / "two.parquet", table(10), hostname="other", boot_id="b")
    with open_captures([tmp_path]) as capture, pytest.raises(IorecError, match="several hosts"):
        check_source(capture, ["loop0"], accepts_losses=False)


def test_a_device_that_is_not_in_the_capture_is_refused_by_name(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", table(10))
    with open_captures([path]) as capture, pytest.raises(IorecError, match="sdz is no device") as e:
        check_source(capture, ["sdz"], accepts_losses=False)
    assert (e.value.exit_code, e.value.hint) == (2, "map one of: loop0")
