# SPDX-License-Identifier: GPL-2.0-only
"""The one account of how long I/Os took: buckets of latency, percentiles and histograms of them.

A bucket is a 128th of a doubling, counted from 1 us. With the number of I/Os in it and their least
and greatest latency, it is all that percentiles need; such counts add up over groups and time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
Numbers = NDArray[np.number[Any]]

PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p999": 0.999}

# The middle of such a bucket is within 0.28 % of every latency in it.
BUCKETS_PER_DOUBLING = 128
DOUBLINGS = 54  # of 1 us up to 2**63 ns

_UNIT_NS = 1000
_BELOW_ONE_NS = 0.99  # in the bucket under that of 1 ns


def bucket_sql(latency_ns: str) -> str:
    """SQL for the bucket of a latency, null if that is."""
    # Without an exponent the numbers are decimals, which take a tenth longer.
    positive = f"CASE WHEN {latency_ns} < 1 THEN {_BELOW_ONE_NS}e0 ELSE {latency_ns} END"
    return f"floor(log2({positive} / {_UNIT_NS}e0) * {BUCKETS_PER_DOUBLING})::SMALLINT"


def buckets_of(latency_ns: Numbers) -> NDArray[np.int16]:
    """The same as bucket_sql, of many latencies."""
    positive = np.where(latency_ns < 1, _BELOW_ONE_NS, latency_ns)
    buckets: FloatArray = np.floor(np.log2(positive / _UNIT_NS) * BUCKETS_PER_DOUBLING)
    return buckets.astype(np.int16)


def percentile_sql(fraction: float) -> str:
    """SQL for a percentile of a group of buckets, null of none.

    Each is a row with `start_rank` and `stop_rank`, the I/Os up to its begin and end, and `low_ns`
    and `high_ns`; `good` is the number of all I/Os. Interpolated between the two nearest ranks, as
    numpy.percentile does by default.
    """
    rank = f"((good - 1) * {fraction}::DOUBLE)"
    below, above = _at_rank_sql(f"floor({rank})"), _at_rank_sql(f"ceil({rank})")
    return f"{below} + ({above} - {below}) * max({rank} - floor({rank}))"


def _at_rank_sql(rank: str) -> str:
    """The latency at a rank: exact at the ends of a bucket, its middle in between."""
    value = f"""CASE {rank} WHEN start_rank THEN low_ns WHEN stop_rank - 1 THEN high_ns
        ELSE low_ns / 2 + high_ns / 2 END"""
    return f"max(CASE WHEN {rank} >= start_rank AND {rank} < stop_rank THEN {value} END)"


@dataclass(frozen=True)
class Distribution:
    """The buckets that hold I/Os, ascending, at least one."""

    ios: Numbers
    low_ns: Numbers
    high_ns: Numbers

    def percentiles_ns(self, fractions: FloatArray) -> FloatArray:
        """The same as percentile_sql, of all fractions."""
        ranks = (self.ios.sum() - 1) * fractions
        below, above = self._at_ranks(np.floor(ranks)), self._at_ranks(np.ceil(ranks))
        percentiles: FloatArray = below + (above - below) * (ranks - np.floor(ranks))
        return percentiles

    def _at_ranks(self, ranks: FloatArray) -> FloatArray:
        stop_ranks = np.cumsum(self.ios)
        at = np.searchsorted(stop_ranks, ranks, side="right")
        low, high = self.low_ns[at], self.high_ns[at]
        inner = np.where(ranks == stop_ranks[at] - 1, high, low / 2 + high / 2)
        return np.where(ranks == stop_ranks[at] - self.ios[at], low, inner)


def add_up_buckets(
    bucket: Numbers, ios: Numbers, low_ns: Numbers, high_ns: Numbers
) -> Distribution:
    """The distribution of buckets that may come several times, in any order."""
    order = np.argsort(bucket, kind="stable")
    starts = np.flatnonzero(np.diff(bucket[order], prepend=bucket.min() - 1))
    return Distribution(
        np.add.reduceat(ios[order], starts),
        np.minimum.reduceat(low_ns[order], starts),
        np.maximum.reduceat(high_ns[order], starts),
    )


def histogram_sql() -> str:
    """SQL for the list of I/Os per doubling of a group of buckets, `bucket_ios` in each.

    The first one holds all that is faster, too.
    """
    doubling = f"greatest(bucket // {BUCKETS_PER_DOUBLING}, 0)"
    sums = (
        f"coalesce(sum(bucket_ios) FILTER ({doubling} = {i}), 0)::BIGINT" for i in range(DOUBLINGS)
    )
    return f"[{', '.join(sums)}]"


def edges_ns(rows: Numbers, rows_per_doubling: int = 1) -> FloatArray:
    """The least latency of each row of a histogram; row 0 begins at 1 us."""
    edges: FloatArray = _UNIT_NS * np.exp2(rows / rows_per_doubling)
    return edges
