# SPDX-License-Identifier: GPL-2.0-only
"""Percentiles of latency, no further than the I/Os carry them: of all, and over time."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from analyze.latency import PERCENTILES, Distribution, FloatArray, add_up_buckets
from analyze.plot.bins import Cells

LINE_PERCENTILES = ("p50", "p99")

_IOS_PER_STEP = 200  # on average: twice what a p99 needs
_ROUNDING = 1e-9  # 1000 * (1 - 0.999) is not 1


@dataclass(frozen=True)
class Steps:
    """Percentiles over time in steps from the first to the last bin in which they have I/Os.

    NaN in between, and where a step has too few I/Os for one.
    """

    edges_bins: NDArray[np.int64]  # the borders of the steps
    percentiles_ns: FloatArray  # (LINE_PERCENTILES, step)


def carried_percentiles_ns(latencies: Distribution, fractions: FloatArray) -> FloatArray:
    """The percentiles; NaN where less than one I/O lies beyond, so that it says nothing."""
    carried = [is_carried(fraction, int(latencies.ios.sum())) for fraction in fractions]
    return np.where(carried, latencies.percentiles_ns(fractions), np.nan)


def is_carried(fraction: float, io_count: int) -> bool:
    """Whether at least one of the I/Os lies beyond the percentile."""
    return bool(io_count * (1 - fraction) > 1 - _ROUNDING)


def percentiles_over_time(cells: Cells, bin_count: int) -> Steps:
    """Of cells by `start_bin` and `bucket`; the fewer I/Os, the longer the steps."""
    step_count = min(max(int(cells["ios"].sum()) // _IOS_PER_STEP, 1), bin_count)
    bins_per_step = -(-bin_count // step_count)
    fractions = np.array([PERCENTILES[name] for name in LINE_PERCENTILES])
    order = np.argsort(cells["start_bin"], kind="stable")
    bins = cells["start_bin"][order]
    columns = [cells[name][order] for name in ("bucket", "ios", "low_ns", "high_ns")]
    borders = np.searchsorted(bins, np.arange(0, bin_count + bins_per_step, bins_per_step))
    edges_bins, percentiles_ns = [0], []
    for start, stop in pairwise(borders):
        if start == stop:
            continue
        if bins[start] > edges_bins[-1]:
            edges_bins.append(int(bins[start]))
            percentiles_ns.append(np.full(len(fractions), np.nan))
        edges_bins.append(int(bins[stop - 1]) + 1)
        latencies = add_up_buckets(*(column[start:stop] for column in columns))
        percentiles_ns.append(carried_percentiles_ns(latencies, fractions))
    return Steps(np.array(edges_bins), np.reshape(percentiles_ns, (-1, len(fractions))).T)
