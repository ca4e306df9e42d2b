# SPDX-License-Identifier: GPL-2.0-only
"""One function per chart of how much I/O went where: each draws into one set of axes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgba_array
from matplotlib.ticker import MaxNLocator

from analyze.latency import FloatArray
from analyze.plot.axes import add_steps, mark_failed, mark_hung, set_time_axis, set_title
from analyze.plot.bins import CACHE_FLUSH, Series
from analyze.plot.offsets import DeviceOffsets
from analyze.plot.theme import OP_COLOURS, drawable
from analyze.plot.ticks import set_count_ticks
from analyze.plot.timeline import Timeline
from analyze.units import SIZE_UNITS, fit_unit, format_short_count

_FAINTEST = 0.5
_ROUND_STEPS = (1, 2, 5, 10)


def draw_iops(axes: Axes, iops: Series, timeline: Timeline, on: str = "") -> None:
    _draw_series(axes, f"IOPS{on}", iops, timeline)


def draw_throughput(axes: Axes, bytes_per_s: Series, timeline: Timeline, on: str = "") -> None:
    unit, unit_bytes = fit_unit(bytes_per_s.peak, SIZE_UNITS)
    _draw_series(axes, f"Throughput{on}, {unit}/s", bytes_per_s, timeline, unit_bytes)


def draw_depth(axes: Axes, in_flight: Series, timeline: Timeline, on: str = "") -> None:
    _draw_series(axes, f"I/Os in flight{on}", in_flight, timeline)


def _draw_series(
    axes: Axes, title: str, series: Series, timeline: Timeline, unit: float = 1.0
) -> None:
    mean, peak = format_short_count(series.mean / unit), format_short_count(series.peak / unit)
    set_title(axes, title, f"mean {mean}, peak {peak}")
    cache_flushes = series.values[CACHE_FLUSH] / unit
    draw_stack(axes, series.values[:CACHE_FLUSH] / unit, OP_COLOURS, timeline)
    if cache_flushes.any():
        colour = OP_COLOURS[CACHE_FLUSH]
        style = {"baseline": None, "fill": False, "color": colour}
        add_steps(axes, cache_flushes, timeline.edges_s, **style)
        axes.set_ylim(top=max(axes.get_ylim()[1], 1.05 * float(cache_flushes.max())))


def draw_stack(axes: Axes, stacked: FloatArray, colours: Sequence[str], timeline: Timeline) -> None:
    tops = np.cumsum(stacked, axis=0)
    for values, top, colour in zip(stacked, tops, colours, strict=False):
        if values.any():
            style = {"baseline": top - values, "color": colour, "linewidth": 0}
            add_steps(axes, top, timeline.edges_s, **style)
    set_time_axis(axes, timeline)
    axes.set_ylim(0, 1.05 * float(tops[-1].max()) or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=_ROUND_STEPS))
    set_count_ticks(axes.yaxis)


def draw_offsets(axes: Axes, offsets: DeviceOffsets, timeline: Timeline) -> None:
    unit, unit_bytes = fit_unit(float(offsets.edges_bytes[-1]), SIZE_UNITS)
    ios = format_short_count(offsets.io_count)
    set_title(axes, f"Offset on {drawable(offsets.device)}, {unit}", f"{ios} I/Os")
    axes.imshow(
        _mix_ops(offsets.counts),
        extent=(*timeline.edges_s[[0, -1]], *offsets.edges_bytes[[0, -1]] / unit_bytes),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        zorder=1,
    )
    set_time_axis(axes, timeline)
    edges = offsets.edges_bytes / unit_bytes
    mark_failed(axes, offsets.failed, (edges[:-1] + edges[1:]) / 2, timeline)
    height = 2 * (edges[1] - edges[0])
    places = np.array([(io.offset or 0) / unit_bytes for io in offsets.hung])
    places = np.clip(places, edges[0], edges[-1]) - height / 2
    mark_hung(axes, offsets.hung, places, np.full(len(places), height), timeline)
    axes.set_ylim(edges[0] - height / 2, edges[-1] + height / 2)  # the outer ones are whole
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=_ROUND_STEPS))


def _mix_ops(counts: FloatArray) -> FloatArray:
    """RGBA of (op, row, column) counts: the hue tells the ops, the opacity how many (log)."""
    total = counts.sum(axis=0)
    hue: FloatArray = (
        np.tensordot(counts, to_rgba_array(OP_COLOURS), (0, 0)) / np.maximum(total, 1)[..., None]
    )
    opacity = LogNorm(1, max(2.0, total.max()), clip=True)(np.maximum(total, 1))
    hue[..., 3] = np.where(total > 0, _FAINTEST + (1 - _FAINTEST) * opacity, 0)
    return hue
