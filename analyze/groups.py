# SPDX-License-Identifier: GPL-2.0-only
"""What is known of a group of I/Os: counts, bytes, rates and how their latency is distributed."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from analyze.latency import edges_ns
from analyze.units import ratio

Key = dict[str, str | int | None]

# What fits into memory; more can be counted, but not all be returned.
MAX_GROUPS = 20_000

_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class HistogramBin:
    """I/Os with a latency of `low_ns` up to, but not including, `high_ns`."""

    low_ns: int
    high_ns: int
    ios: int


@dataclass(frozen=True)
class Latency:
    """Latency of the I/Os that succeeded; all None, and a sum of 0, if none did.

    A percentile lies within 0.3 % of that of numpy.percentile, the others are exact.
    """

    sum_ns: int
    avg_ns: float | None
    min_ns: int | None
    p50_ns: float | None
    p95_ns: float | None
    p99_ns: float | None
    p999_ns: float | None
    max_ns: int | None


@dataclass(frozen=True)
class Group:
    """The I/Os that share a key; a key column is None where it is unknown.

    Bytes are without those of failed I/Os. Rates are per second of recording in the window.
    `time_ns` is the latency of all I/Os, failed ones too, and `time_share` the part of it in that
    of all groups, None for cache flushes. `queue_share` is the part of the latency spent before the
    I/O went to the device.
    """

    key: Key
    ios: int
    reads: int
    writes: int
    flushes: int
    read_bytes: int
    write_bytes: int
    discarded_bytes: int
    zeroed_bytes: int
    in_flight: int
    errors: int
    ios_per_s: float | None
    bytes_per_s: float | None
    time_ns: int
    time_share: float | None
    queue_share: float | None
    latency: Latency
    histogram: tuple[HistogramBin, ...] | None


def make_group(row: dict[str, Any], keys: Sequence[str], total_ns: int, duration_ns: int) -> Group:
    """Makes a group of a row of groups_query; the total is the latency of all groups."""
    counts = ("ios", "reads", "writes", "flushes", "in_flight", "errors")
    sizes = ("read_bytes", "write_bytes", "discarded_bytes", "zeroed_bytes")
    return Group(
        key={key: row[key] for key in keys},
        **{name: row[name] for name in (*counts, *sizes)},
        ios_per_s=ratio(row["ios"] * _SECOND_NS, duration_ns),
        bytes_per_s=ratio(row["moved_bytes"] * _SECOND_NS, duration_ns),
        time_ns=row["time_ns"],
        time_share=ratio(row["time_ns"], total_ns),
        queue_share=row["queue_share"],
        latency=Latency(
            sum_ns=row["latency_sum_ns"],
            avg_ns=row["avg_ns"],
            min_ns=row["min_ns"],
            p50_ns=row["p50_ns"],
            p95_ns=row["p95_ns"],
            p99_ns=row["p99_ns"],
            p999_ns=row["p999_ns"],
            max_ns=row["max_ns"],
        ),
        histogram=None if row["histogram"] is None else _make_histogram(row["histogram"]),
    )


def _make_histogram(counts: Sequence[int]) -> tuple[HistogramBin, ...]:
    """From 0 to the last bin that is not empty; each but the first is twice as wide as the last."""
    used = max((index + 1 for index, count in enumerate(counts) if count), default=0)
    return tuple(
        HistogramBin(int(low_ns) if index else 0, int(high_ns), counts[index])
        for index, (low_ns, high_ns) in enumerate(pairwise(edges_ns(np.arange(used + 1))))
    )
