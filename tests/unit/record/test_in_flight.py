# SPDX-License-Identifier: GPL-2.0-only
"""The I/Os in flight, from tables that are filled by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from iorec.kernel.layouts import BUCKET, NO_ISSUE
from iorec.kernel.names import OP_CACHE_FLUSH
from iorec.record.in_flight import busy_slots, filtered_and_over, split_in_flight

CPUS = 4
BUSY_DISK, IDLE_DISK = 7 << 20, 8 << 20


def table(**columns: Any) -> Any:
    """The table of I/Os in flight: one bucket, in which the slots with these values are taken."""
    buckets = np.zeros(1, BUCKET)
    count = max(len(values) for values in columns.values())
    buckets["keys"][0, :count] = 99
    for name, values in columns.items():
        buckets["slots"][name][0, :count] = values
    return SimpleNamespace(in_flight=buckets, cpu_count=CPUS)


def test_parts_and_what_is_filtered_out_are_not_in_flight() -> None:
    probes = table(sector=range(4), is_filtered=[0, 1, 0, 0], is_part=[0, 0, 1, 0])
    assert busy_slots(probes)["sector"].tolist() == [0, 3]


def test_what_is_filtered_out_and_over_is_told_apart() -> None:
    probes = table(
        sector=range(4),
        is_filtered=[0, 1, 1, 1],
        start_ns=[1000] * 4,
        issue_ns=[1300, 1300, 0, 2000],
        dev=[IDLE_DISK] * 4,
    )
    assert filtered_and_over(probes, {IDLE_DISK}, 2000)["sector"].tolist() == [1]
    assert len(filtered_and_over(probes, set(), 2000)) == 0


def test_an_io_in_flight_has_waited_until_its_issue_if_there_was_one() -> None:
    probes = table(start_ns=[1000] * 2, issue_ns=[1300, 0], identity=[5, 6], error=[7] * 2)
    hung, over = split_in_flight(probes, set(), 0)
    assert len(over) == 0
    assert hung["queue_ns"].tolist() == [300, NO_ISSUE]
    assert hung["start_ns"].tolist() == [1000, 1000]
    assert hung["identity"].tolist() == [5, 6]
    assert hung["latency_ns"].tolist() == hung["error"].tolist() == [0, 0]


def test_what_a_disk_was_handed_before_it_was_idle_is_over_and_not_in_flight() -> None:
    columns = {
        "over": (IDLE_DISK, 1300, 0, 0, 0),
        "of a disk that is not idle": (BUSY_DISK, 1300, 0, 0, 0),
        "handed on later": (IDLE_DISK, 2000, 0, 0, 0),
        "not handed on": (IDLE_DISK, 0, 0, 0, 0),
        "a flush of the disk itself": (IDLE_DISK, 1300, OP_CACHE_FLUSH, 0, 0),
        "a bio": (IDLE_DISK, 1300, 0, CPUS, 0),
        "a write that waits for a flush": (IDLE_DISK, 1300, 1, 0, 4096),
    }
    dev, issue_ns, cmd_flags, source, done_bytes = zip(*columns.values(), strict=True)
    probes = table(
        start_ns=[1000] * len(columns),
        dev=dev,
        issue_ns=issue_ns,
        cmd_flags=cmd_flags,
        source=source,
        done_bytes=done_bytes,
        sector=range(len(columns)),
    )
    hung, over = split_in_flight(probes, {IDLE_DISK}, 2000)
    names = list(columns)
    assert [names[place] for place in over["sector"]] == ["over"]
    assert len(hung) == len(columns) - 1
