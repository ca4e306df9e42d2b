# SPDX-License-Identifier: GPL-2.0-only
"""The time axis of a plot: a capture's window in equal bins."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.completeness import make_completeness
from analyze.opened import OpenedRows
from analyze.plot.marks import Mark

_MOST_BINS = 360
_FEWEST_BINS = 24
_INT64_MAX = 2**63 - 1
_LONGEST_NS = 2**62  # of a window of hostile times


@dataclass(frozen=True)
class Timeline:
    """`bin_count` bins of `width_ns` from `begin_ns`; seconds count from `origin_ns`."""

    origin_ns: int
    begin_ns: int
    width_ns: int
    bin_count: int
    loss_spans_s: tuple[tuple[float, float], ...]  # ascending, at least a bin wide
    marks: tuple[tuple[float, str], ...] = ()  # ascending: when, in seconds, and what

    @property
    def length_ns(self) -> int:
        return self.width_ns * self.bin_count

    @property
    def edges_s(self) -> NDArray[np.floating[Any]]:
        """The `bin_count + 1` borders of the bins, in seconds from the origin."""
        from_origin_ns = float(self.begin_ns - self.origin_ns)
        return (from_origin_ns + np.arange(self.bin_count + 1) * float(self.width_ns)) / 1e9


def make_timeline(capture: OpenedRows, io_count: int, marks: Sequence[Mark] = ()) -> Timeline:
    """The window as far as it was recorded; fewer bins for few I/Os, against noise."""
    stopped_ns = max(file.metadata.stopped_at for file in capture.files)
    end_ns = min(capture.window.end_ns, stopped_ns)
    length_ns = min(max(end_ns - capture.window.begin_ns, 1), _LONGEST_NS)
    wanted_bins = min(max(2 * isqrt(io_count), _FEWEST_BINS), _MOST_BINS)
    width_ns = -(-length_ns // wanted_bins)
    bin_count = -(-length_ns // width_ns)
    timeline = Timeline(
        origin_ns=capture.origin_ns,
        begin_ns=min(capture.window.begin_ns, _INT64_MAX - width_ns * bin_count),
        width_ns=width_ns,
        bin_count=bin_count,
        loss_spans_s=(),
        marks=tuple(((mark.time_ns - capture.origin_ns) / 1e9, mark.text) for mark in marks),
    )
    return replace(timeline, loss_spans_s=_loss_spans(capture, timeline))


def _loss_spans(capture: OpenedRows, timeline: Timeline) -> tuple[tuple[float, float], ...]:
    is_lossy = np.zeros(timeline.bin_count, dtype=bool)
    for gap in make_completeness(capture.files).gaps:
        first = (gap.start - timeline.begin_ns) // timeline.width_ns
        last = (gap.stop - timeline.begin_ns) // timeline.width_ns
        is_lossy[max(first, 0) : max(last + 1, 0)] = True
    borders = np.flatnonzero(np.diff(is_lossy, prepend=False, append=False))
    edges_s = timeline.edges_s[borders].tolist()
    return tuple(zip(edges_s[::2], edges_s[1::2], strict=True))
