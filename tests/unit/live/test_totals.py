# SPDX-License-Identifier: GPL-2.0-only
"""Totals against plain Python over the rows, and what bounds them."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from analyze.metadata import Metadata
from iorec.live.totals import EDGES_NS, MOST_NAMES, OTHER, UNKNOWN, Group, Tally, Totals
from tests.builders import described, mixed_table, table


def batch_of(rows: pa.Table) -> pa.RecordBatch:
    (batch,) = rows.combine_chunks().to_batches()
    return batch


def counted(rows: pa.Table) -> Totals:
    totals = Totals(by_cgroup=True)
    totals.add(batch_of(rows), described(rows))
    return totals


def values(tally: Tally, *, sums: bool = False) -> dict[tuple[str, ...], float]:
    numbers = tally.sums if sums else tally.ios
    return {tuple(labels): numbers[place] for labels, place in tally.occupied()}


@pytest.mark.parametrize("column", ["device", "cgroup"])
def test_the_sums_of_several_batches_are_those_of_their_rows(column: str) -> None:
    group = Group(column)
    rows = pa.concat_tables([mixed_table(1009, seed) for seed in (1, 2)])
    cgroups = [f"/slice/{i % 3}" if i % 7 else None for i in range(len(rows))]
    errnos = [5 if i % 11 == 0 else 110 if i % 13 == 0 else 0 for i in range(len(rows))]
    for name, changed in (("cgroup", cgroups), ("errno", errnos)):
        place = rows.schema.get_field_index(name)
        kind = rows.schema.field(name).type
        rows = rows.set_column(place, rows.schema.field(name), pa.array(changed).cast(kind))
    for piece in (rows[:700], rows[700:701], rows[701:701], rows[701:]):
        for batch in piece.combine_chunks().to_batches() or [batch_of(rows)[:0]]:
            group.add(batch)
    ios: Counter[tuple[str, ...]] = Counter()
    sizes, latencies, queues, failed = (ios.copy() for _ in range(4))
    for row in rows.to_pylist():
        key = row["layer"], row[column] or UNKNOWN, row["op"]
        if row["errno"]:
            failed[*key, {5: "EIO", 110: "ETIMEDOUT"}[row["errno"]]] += 1
            continue
        ios[key] += 1
        sizes[key] += row["bytes"]
        latencies[key] += row["latency_ns"]
        queues[key] += row["queue_ns"]
    assert values(group.latency) == values(group.bytes) == values(group.queue) == ios
    assert values(group.bytes, sums=True) == dict.fromkeys(ios, 0) | sizes
    assert values(group.latency, sums=True) == latencies
    assert values(group.queue, sums=True) == queues
    assert values(group.errors) == failed


def test_a_bucket_holds_what_is_up_to_its_edge() -> None:
    latency_ns = [0, 1, 999, 1000, 1001, 2000, 2001, *EDGES_NS.tolist(), 2**62]
    rows = table(len(latency_ns), latency_ns=latency_ns)
    histogram = counted(rows).devices.latency
    ((_, place),) = histogram.occupied()
    assert EDGES_NS[0] == 1000
    assert EDGES_NS[-1] > 10e9
    found = histogram.buckets[place].cumsum()
    edges = [*EDGES_NS.tolist(), float("inf")]
    assert found.tolist() == [sum(value <= edge for value in latency_ns) for edge in edges]


def test_an_io_in_flight_counts_when_it_has_finished() -> None:
    rows = table(3, latency_ns=[10, None, 20], errno=[0, None, 0])
    assert values(counted(rows).devices.latency) == {("request", "loop0", "read"): 2}


def test_the_bytes_of_a_system_call_are_those_that_it_returned() -> None:
    rows = table(4, layer="syscall", op="read", bytes=4096, result=[4096, 100, 2**47, None])
    assert values(counted(rows).devices.bytes, sums=True) == {
        ("syscall", "loop0", "read"): 4096 + 100 + 0 + 4096
    }


def test_an_io_that_did_not_wait_for_a_device_is_in_no_queue() -> None:
    rows = table(3, queue_ns=[0, None, 20])
    group = counted(rows).devices
    assert values(group.queue) == {("request", "loop0", "read"): 2}
    assert values(group.latency) == {("request", "loop0", "read"): 3}


def test_the_layers_are_apart() -> None:
    rows = table(3, layer=["request", "bio", "bio"])
    group = counted(rows).devices
    assert values(group.latency) == {
        ("request", "loop0", "read"): 1,
        ("bio", "loop0", "read"): 2,
    }
    assert group.ios() == {OTHER: 0, "request": 1, "bio": 2}


def test_names_beyond_the_bound_are_counted_together() -> None:
    totals = Totals(by_cgroup=True)
    for first in range(0, 1000, 100):
        names = [f"sd{number}" for number in range(first, first + 100)]
        rows = table(100, device=names, cgroup=[f"/{name}" for name in names])
        totals.add(batch_of(rows), described(rows))
    for group in totals.groups:
        found = values(group.latency)
        assert len(group.names.values) == 1 + MOST_NAMES
        assert found.pop(("request", OTHER, "read")) == 1000 - MOST_NAMES
        assert set(found.values()) == {1}


def test_a_device_that_is_called_other_is_no_second_other() -> None:
    rows = table(2, device=[OTHER, "sda"])
    group = counted(rows).devices
    assert group.names.values == [OTHER, "sda"]
    assert values(group.latency)["request", OTHER, "read"] == 1


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    pod = "/kubepods.slice/" + "x" * 60_000 + "/pod.scope"
    rows = table(2, cgroup=[pod, "/short"])
    _, name, short = counted(rows).groups[1].names.values
    assert short == "/short"
    assert len(name) == 256
    assert name.startswith("/kubepods.slice/")
    assert name.endswith("/pod.scope")


def with_counts(metadata: Metadata, recorded: int, missed: int) -> Metadata:
    assert metadata.counts
    lost = metadata.counts.lost | {"missed_completion": missed, "ring_full": 3}
    return replace(metadata, counts=replace(metadata.counts, recorded=recorded, lost=lost))


def test_what_is_left_out_is_what_was_recorded_and_never_came() -> None:
    rows = table(10)
    totals = Totals(by_cgroup=False)
    totals.add(batch_of(rows), with_counts(described(rows), recorded=10, missed=0))
    assert totals.left_out == {"request": 0}
    totals.add(batch_of(rows), with_counts(described(rows), recorded=120, missed=0))
    assert totals.left_out == {"request": 100}


def test_a_count_of_what_is_lost_never_falls() -> None:
    rows = table(1)
    totals = Totals(by_cgroup=False)
    for missed, shown in ((5, 5), (4, 5), (6, 6)):
        totals.add(batch_of(rows), with_counts(described(rows), recorded=9, missed=missed))
        assert totals.lost["request", "missed_completion"] == shown
        assert totals.lost["request", "ring_full"] == 3


def test_the_sums_are_exact_for_a_hundred_days_of_waiting() -> None:
    rows = table(1000, latency_ns=np.full(1000, 8_640_000_000_001))
    (total,) = values(counted(rows).devices.latency, sums=True).values()
    assert total == 8_640_000_000_001_000
