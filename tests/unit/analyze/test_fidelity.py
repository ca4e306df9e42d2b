# SPDX-License-Identifier: GPL-2.0-only
"""The verdict on replays: altered copies of a capture get the word that they deserve."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from analyze.errors import IorecError
from analyze.fidelity import FAITHFUL, NOT_COMPARABLE, USABLE, Fidelity
from analyze.fidelity_measures import compare
from tests.builders import write_capture
from tests.replays import LEAD_NS, asked_rows, done_rows, target_document, write_pair

COUNT = 20_000


def verdict(folder: Path, asked: pa.Table, done: pa.Table, **replay: Any) -> Fidelity:
    return compare(*write_pair(folder, asked, done, **replay))


def failed(found: Fidelity) -> set[str]:
    return {rule.name for rule in found.failed}


def jitter(scale_ns: float, seed: int = 3) -> Any:
    return np.random.default_rng(seed).exponential(scale_ns, COUNT).astype(np.int64)


def some_late(share: float, late_ns: int) -> Any:
    rng = np.random.default_rng(5)
    return np.where(rng.random(COUNT) < share, late_ns, 5_000)


def test_a_copy_is_faithful(tmp_path: Path) -> None:
    asked = asked_rows()
    found = verdict(tmp_path, asked, done_rows(asked))
    assert found.word == FAITHFUL
    assert not found.failed
    assert found.is_anchored
    measured = found.measured
    assert (measured.asked, measured.matched, measured.errors) == (COUNT, COUNT, 0)
    assert measured.lateness is not None
    assert measured.lateness.max_ns == 0
    assert (measured.order_kept, measured.arrival_distance) == (1.0, 0.0)
    assert measured.duration_ratio == 1.0
    assert measured.depth_error == 0.0


@pytest.mark.parametrize(
    ("late_ns", "word", "rules"),
    [
        (0, FAITHFUL, set()),
        (60_000, FAITHFUL, set()),
        (400_000, NOT_COMPARABLE, {"lateness p99", "late"}),
        (3_000_000, NOT_COMPARABLE, {"lateness p99", "late"}),
    ],
)
def test_a_shifted_copy_is_as_good_as_the_shift_is_small(
    tmp_path: Path, late_ns: int, word: str, rules: set[str]
) -> None:
    asked = asked_rows()
    found = verdict(tmp_path, asked, done_rows(asked, late_ns))
    assert (found.word, failed(found)) == (word, rules)


@pytest.mark.parametrize(
    ("share", "late_ns", "word", "rules"),
    [
        (0.005, 500_000, FAITHFUL, set()),
        (0.02, 500_000, USABLE, {"lateness p99", "late"}),
        (0.02, 5_000_000, NOT_COMPARABLE, {"lateness p99", "late"}),
        (0.08, 500_000, NOT_COMPARABLE, {"lateness p99", "late"}),
    ],
)
def test_some_late_ios_cost_as_much_as_they_are_many_and_late(
    tmp_path: Path, share: float, late_ns: int, word: str, rules: set[str]
) -> None:
    asked = asked_rows(iops=20)  # too few to overtake each other
    found = verdict(tmp_path, asked, done_rows(asked, some_late(share, late_ns)))
    assert found.word == word
    assert rules <= failed(found) <= rules | {"order"}


@pytest.mark.parametrize(
    ("kept", "word"), [(0.9995, FAITHFUL), (0.995, USABLE), (0.98, NOT_COMPARABLE)]
)
def test_a_thinned_copy_is_missing_ios(tmp_path: Path, kept: float, word: str) -> None:
    asked = asked_rows()
    is_kept = np.random.default_rng(1).random(COUNT) < kept
    found = verdict(tmp_path, asked, done_rows(asked).filter(pa.array(is_kept)))
    assert (found.word, failed(found)) == (word, set() if word == FAITHFUL else {"matched"})
    assert found.measured.matched == is_kept.sum()


def test_what_is_missing_leaves_the_pairs_of_the_others(tmp_path: Path) -> None:
    asked = asked_rows(offset=np.arange(COUNT) % 3 * 4096, op="write")  # over and over again
    is_kept = np.arange(COUNT) % 5000 != 0
    found = verdict(tmp_path, asked, done_rows(asked, 20_000).filter(pa.array(is_kept)))
    assert found.word == FAITHFUL
    assert is_kept.sum() - 2 <= found.measured.matched <= is_kept.sum()
    assert found.measured.lateness is not None
    assert found.measured.lateness.max_ns == 20_000


@pytest.mark.parametrize(
    ("slower", "word"), [(1.00005, FAITHFUL), (1.0005, USABLE), (1.002, NOT_COMPARABLE)]
)
def test_a_slowed_copy_drifts(tmp_path: Path, slower: float, word: str) -> None:
    asked = asked_rows()
    time = asked["time"].cast("int64").to_numpy()
    late_ns = ((time - time[0]) * (slower - 1)).astype(np.int64)
    found = verdict(tmp_path, asked, done_rows(asked, late_ns))
    # Ten seconds: the first is half a millisecond late at the end.
    rules = {rule.name: rule.result for rule in found.rules}
    assert rules["drift"] == word
    assert found.measured.drift_ppm == pytest.approx((slower - 1) * 1e6, rel=0.01)


def test_a_reordered_copy_is_not_comparable(tmp_path: Path) -> None:
    asked = asked_rows(iops=20_000)
    late_ns = np.where(np.arange(COUNT) % 20 == 0, 90_000, 0)  # past one or two neighbours
    found = verdict(tmp_path, asked, done_rows(asked, late_ns))
    assert found.word == NOT_COMPARABLE
    assert failed(found) == {"order"}
    assert found.measured.order_kept is not None
    assert 0.9 < found.measured.order_kept < 0.98


def test_neighbours_that_are_close_have_no_order(tmp_path: Path) -> None:
    time = asked_rows()["time"].cast("int64").to_numpy()
    pairs = np.sort(np.concatenate([time[::2], time[::2] + 2000]))
    asked = asked_rows(time=pairs)
    late_ns = np.where(np.arange(COUNT) % 2 == 0, 4000, 0)
    assert verdict(tmp_path, asked, done_rows(asked, late_ns)).word == FAITHFUL


def test_the_gaps_of_a_timer_need_not_be_equal_to_the_nanosecond(tmp_path: Path) -> None:
    asked = asked_rows(
        time=asked_rows()["time"].cast("int64").to_numpy()[0] + np.arange(COUNT) * 500_000
    )
    found = verdict(tmp_path, asked, done_rows(asked, jitter(2000)))
    assert found.word == FAITHFUL
    assert found.measured.arrival_distance is not None
    assert found.measured.arrival_distance < 0.01


def test_bursts_that_were_spread_are_apart(tmp_path: Path) -> None:
    first = asked_rows()["time"].cast("int64").to_numpy()[0]
    burst = first + np.arange(COUNT) // 4 * 2_000_000 + np.arange(COUNT) % 4 * 1000
    asked = asked_rows(time=burst)
    found = verdict(tmp_path, asked, done_rows(asked, np.arange(COUNT) % 4 * 30_000))
    assert "arrivals" in failed(found)
    assert found.word == NOT_COMPARABLE


@pytest.mark.parametrize(("errors", "word"), [(0, FAITHFUL), (10, USABLE), (30, NOT_COMPARABLE)])
def test_errors_that_the_source_had_not_count(tmp_path: Path, errors: int, word: str) -> None:
    asked = asked_rows()
    errno = np.where(np.arange(COUNT) < errors, 5, 0)
    place = asked.schema.get_field_index("errno")
    done = done_rows(asked)
    done = done.set_column(place, asked.schema.field(place), pa.array(errno, pa.int16()))
    found = verdict(tmp_path, asked, done)
    assert (found.word, found.measured.errors) == (word, errors)


@pytest.mark.parametrize(("lost", "word"), [(10, USABLE), (100, NOT_COMPARABLE)])
def test_losses_of_either_capture_count(tmp_path: Path, lost: int, word: str) -> None:
    asked = asked_rows()
    source, replayed = write_pair(tmp_path, asked, done_rows(asked))
    counts = {"completions": COUNT + lost, "lost": {"ring_full": lost}}
    write_capture(source, asked, counts=counts)
    found = compare(source, replayed)
    assert (found.word, failed(found)) == (word, {"losses of the source"})


def test_a_replay_that_ended_early_is_not_comparable(tmp_path: Path) -> None:
    asked = asked_rows()
    found = verdict(tmp_path, asked, done_rows(asked), ending="interrupted")
    assert (found.word, failed(found)) == (NOT_COMPARABLE, {"ending"})


def test_short_transfers_count(tmp_path: Path) -> None:
    asked = asked_rows()
    found = verdict(tmp_path, asked, done_rows(asked), short=COUNT // 100)
    assert (found.word, failed(found)) == (NOT_COMPARABLE, {"short"})


def test_twice_the_speed_is_held_against_half_the_times(tmp_path: Path) -> None:
    asked = asked_rows()
    done = done_rows(asked, speed=2.0)
    assert verdict(tmp_path, asked, done, speed=2.0).word == FAITHFUL
    assert verdict(tmp_path, asked, done).word == NOT_COMPARABLE


def test_as_fast_as_possible_keeps_no_times(tmp_path: Path) -> None:
    asked = asked_rows()
    found = verdict(tmp_path, asked, done_rows(asked, speed=50.0), speed=None)
    assert found.word == FAITHFUL
    assert found.measured.lateness is None


def test_writes_that_became_reads_are_matched_with_reads(tmp_path: Path) -> None:
    asked = asked_rows()
    done = done_rows(asked)
    reads = pa.array(["read"] * COUNT).dictionary_encode().cast(asked["op"].type)
    place = asked.schema.get_field_index("op")
    done = done.set_column(place, asked.schema.field(place), reads)
    target = target_document(is_written=False)
    found = verdict(tmp_path, asked, done, targets=[target])
    assert found.word == FAITHFUL
    writes = asked["op"].to_pylist().count("write")
    assert f"{writes:,} writes replayed as reads" in found.caveats
    assert "data" not in " ".join(found.caveats)
    assert verdict(tmp_path, asked, done).word == NOT_COMPARABLE


def test_nothing_is_said_of_writes_that_there_are_not(tmp_path: Path) -> None:
    asked = asked_rows(op="read")
    targets = [target_document(is_written=False)]
    assert not verdict(tmp_path, asked, done_rows(asked), targets=targets).caveats


def test_a_source_that_was_not_replayed_is_said(tmp_path: Path) -> None:
    asked = asked_rows(op="read")
    found = verdict(tmp_path, asked, done_rows(asked), source_digest="0" * 64, source="other.csv")
    (caveat,) = found.caveats
    assert caveat.startswith("what was replayed is other.csv, whose metadata are not those")


def test_a_closed_loop_is_judged_by_its_reaction_and_not_by_times(tmp_path: Path) -> None:
    asked = asked_rows()
    time = asked["time"].cast("int64").to_numpy()
    slower = (time - time[0]) * 3
    closed = {"loop": "closed", "waiting_threads": 1}
    found = verdict(tmp_path, asked, done_rows(asked, slower), **closed)
    assert found.word == FAITHFUL
    lateness = {"p50_ns": 0, "p99_ns": 5_000_000, "p999_ns": 0, "max_ns": 0, "over_100us": 5000}
    found = verdict(tmp_path, asked, done_rows(asked, slower), **closed, lateness=lateness)
    assert failed(found) == {"reaction p99", "late"}


def test_a_replay_by_another_tool_is_anchored_at_its_earliest_io(tmp_path: Path) -> None:
    asked = asked_rows()
    source = write_capture(tmp_path / "run.parquet", asked)
    other = write_capture(tmp_path / "other.parquet", done_rows(asked, 7_000_000 + jitter(2000)))
    found = compare(source, other)
    assert found.word == FAITHFUL
    assert not found.is_anchored
    assert found.measured.lateness is not None
    assert found.measured.lateness.p99_ns < 20_000


def test_differing_queues_are_named(tmp_path: Path) -> None:
    asked = asked_rows()
    target = target_document(queue={"nr_requests": 256, "logical_block_size": 512})
    found = verdict(tmp_path, asked, done_rows(asked), targets=[target])
    assert found.queue_differences == ("nr_requests is 256 on loop1, was 128 on loop0",)


def test_flushes_are_not_expected_of_a_device_without_a_cache(tmp_path: Path) -> None:
    is_flush = np.arange(COUNT) % 10 == 0
    asked = asked_rows(
        op=np.where(is_flush, "flush", "write"),
        bytes=np.where(is_flush, 0, 4096),
        offset=[None if flush else n * 4096 for n, flush in enumerate(is_flush)],
    )
    done = done_rows(asked.filter(pa.array(~is_flush)))
    assert verdict(tmp_path, asked, done).word == NOT_COMPARABLE
    target = target_document(queue={"write_cache": "write through"})
    found = verdict(tmp_path, asked, done, targets=[target])
    assert "no flush reaches it" in " ".join(found.caveats)
    assert (found.measured.asked, found.measured.matched) == (COUNT * 9 // 10,) * 2


def test_depth_is_that_of_littles_law(tmp_path: Path) -> None:
    asked = asked_rows()
    measured = verdict(tmp_path, asked, done_rows(asked)).measured
    latency = np.array(asked["latency_ns"].to_pylist())
    time = asked["time"].cast("int64").to_numpy()
    expected = latency.sum() / ((time + latency).max() - time[0])
    assert measured.depth_asked == pytest.approx(expected)
    assert measured.depth_replayed == measured.depth_asked


def test_as_fast_as_possible_it_says_how_fast_and_how_deep(tmp_path: Path) -> None:
    asked = asked_rows()
    found = verdict(tmp_path, asked, done_rows(asked, speed=50.0), speed=None)
    once = verdict(tmp_path, asked, done_rows(asked)).measured
    assert once.depth_replayed is not None
    assert found.measured.depth_replayed is not None
    assert found.measured.depth_replayed > 10 * once.depth_replayed
    (said,) = (text for text in found.caveats if text.startswith("done in "))
    assert "IOPS; no I/O waited for those before it" in said


def test_which_of_two_threads_did_the_nth_flush_is_no_matter_of_order(tmp_path: Path) -> None:
    """One of the two is far ahead of the other in a closed loop."""
    place = np.arange(COUNT)
    is_flush, thread = place % 4 > 1, place % 2
    asked = asked_rows(
        op=np.where(is_flush, "flush", "write"),
        bytes=np.where(is_flush, 0, 4096),
        offset=[None if flush else n * 4096 for n, flush in enumerate(is_flush)],
        tid=100 + thread,
    )
    done = done_rows(asked, np.where(thread == 1, 0, -5_000 * place))
    closed = {"loop": "closed", "waiting_threads": 2}
    assert verdict(tmp_path, asked, done, **closed).measured.order_kept == 1.0


def test_percentiles_are_those_of_numpy(tmp_path: Path) -> None:
    asked = asked_rows()
    late_ns = jitter(50_000)
    lateness = verdict(tmp_path, asked, done_rows(asked, late_ns)).measured.lateness
    assert lateness is not None
    for share, found in ((50, lateness.p50_ns), (99, lateness.p99_ns), (99.9, lateness.p999_ns)):
        assert found == pytest.approx(np.percentile(late_ns, share), abs=1500, rel=0.02)


def test_several_devices_need_a_replay_that_says_which_is_which(tmp_path: Path) -> None:
    rows = asked_rows(device=["loop0", "sda"] * (COUNT // 2))
    source = write_capture(tmp_path / "run.parquet", rows)
    with pytest.raises(IorecError, match="I/Os of 2 devices"):
        compare(source, source)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    source = write_capture(tmp_path / "run.parquet", asked_rows())
    damaged = tmp_path / "damaged.parquet"
    content = bytearray(source.read_bytes())
    content[100 : len(content) // 2] = bytes(len(content) // 2 - 100)
    damaged.write_bytes(content)
    with pytest.raises(IorecError, match=r"damaged\.parquet"):
        compare(source, damaged)


def test_the_lead_is_no_lateness() -> None:
    asked = asked_rows(10)
    first = done_rows(asked)["time"].cast("int64")[0].as_py()
    assert first % 1_000_000_000 == LEAD_NS  # as START_NS is a whole second
