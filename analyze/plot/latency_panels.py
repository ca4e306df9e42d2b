# SPDX-License-Identifier: GPL-2.0-only
"""One function per chart of latencies: each draws into one set of axes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from analyze.latency import PERCENTILES, FloatArray
from analyze.plot.axes import (
    add_steps,
    mark_failed,
    mark_hung,
    set_time_axis,
    set_title,
    write_centred,
)
from analyze.plot.bins import OPS
from analyze.plot.theme import FAINT_INK, HEAT_COLOURS, INK, LINE_STYLES, OP_COLOURS
from analyze.plot.ticks import set_count_ticks, set_latency_ticks
from analyze.plot.timeline import Timeline
from analyze.plot.traffic import CURVE_SHARES, Latencies, OpLatency
from analyze.units import format_bytes, format_short_count, format_short_duration

_ROUND_STEPS = (1, 2, 5, 10)
_SHARES = tuple(PERCENTILES.values())
_SHORT_SCALE = 10  # a logarithmic scale up to there has one tick
_LABEL_CHARACTERS = 11  # bold
_TABLE_SIZE = 8.8
_CDF_TICKS = (*_SHARES, 0.9999, 0.99999)


def draw_heatmap(axes: Axes, latencies: Latencies, timeline: Timeline, on: str = "") -> None:
    set_title(axes, f"Latency{on or ' by time of submission'}")
    peak = float(latencies.heat.max())
    mesh = axes.pcolormesh(
        timeline.edges_s,
        latencies.edges_ns,
        np.ma.masked_equal(latencies.heat, 0),
        cmap=HEAT_COLOURS,
        norm=LogNorm(1, max(2.0, peak)),
        rasterized=True,
    )
    set_time_axis(axes, timeline)
    _set_latency_axis(axes, latencies)
    _draw_lines(axes, latencies, timeline)
    middles_ns = np.sqrt(latencies.edges_ns[:-1] * latencies.edges_ns[1:])
    mark_failed(axes, latencies.failed, middles_ns, timeline)
    ages_ns = np.array([max(io.age_ns, 1) for io in latencies.hung])
    bottoms_ns = ages_ns * latencies.edges_ns[0] / middles_ns[0]
    mark_hung(axes, latencies.hung, bottoms_ns, 2 * (ages_ns - bottoms_ns), timeline)
    if peak > 1:
        _draw_scale(axes, mesh, peak)


def _draw_scale(axes: Axes, mesh: QuadMesh, peak: float) -> None:
    """What the colours mean, above the chart."""
    scale_axes = axes.inset_axes((0.84, 1.025, 0.16, 0.025))
    scale = axes.figure.colorbar(mesh, cax=scale_axes, orientation="horizontal")
    scale.outline.set_visible(False)
    scale_axes.xaxis.set_ticks_position("top")
    if peak < _SHORT_SCALE:
        scale_axes.xaxis.set_major_locator(FixedLocator([1, peak]))
    scale_axes.xaxis.set_minor_locator(NullLocator())
    scale_axes.tick_params(labelsize=8, length=0, pad=1)
    set_count_ticks(scale_axes.xaxis)
    scale_axes.set_ylabel("I/Os per cell", rotation=0, ha="right", va="center", color=FAINT_INK)


def _draw_lines(axes: Axes, latencies: Latencies, timeline: Timeline) -> None:
    edges_s = timeline.edges_s[latencies.lines.edges_bins]
    for values, style in zip(latencies.lines.percentiles_ns, LINE_STYLES, strict=True):
        add_steps(axes, values, edges_s, baseline=None, fill=False, **style)


def draw_histogram(axes: Axes, latencies: Latencies, on: str = "") -> None:
    set_title(axes, f"Histogram{on}", "I/Os")
    for op in latencies.by_op:
        ios, colour = latencies.histogram[op.op_index], OP_COLOURS[op.op_index]
        for is_filled, alpha in ((True, 0.25), (False, 1.0)):
            axes.stairs(
                ios,
                latencies.edges_ns,
                orientation="horizontal",
                fill=is_filled,
                color=colour,
                alpha=alpha,
            )
    _set_latency_axis(axes, latencies)
    _say_if_empty(axes, latencies)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=_ROUND_STEPS, integer=True))
    set_count_ticks(axes.xaxis)


def draw_cdf(axes: Axes, latencies: Latencies, on: str = "") -> None:
    """The share on the axis that spreads the nines, so that the tail can be read."""
    set_title(axes, f"CDF{on}", "% of I/Os")
    axes.set_xscale("function", functions=(_to_nines, _from_nines))
    for op in latencies.by_op:
        colour = OP_COLOURS[op.op_index]
        axes.plot(CURVE_SHARES, op.curve_ns, color=colour)
        axes.plot(_SHARES, op.percentiles_ns, "o", color=colour, markersize=4)
    _set_latency_axis(axes, latencies)
    _say_if_empty(axes, latencies)
    most_ios = max((op.io_count for op in latencies.by_op), default=1)
    axes.set_xlim(0, min(1 - 0.5 / most_ios, CURVE_SHARES[-1]))
    axes.xaxis.set_major_locator(FixedLocator(_CDF_TICKS))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * share:g}" for share in _CDF_TICKS]))
    axes.xaxis.set_minor_locator(NullLocator())


def table_line_count(parts: Sequence[tuple[str, Latencies]]) -> int:
    """The lines of draw_percentiles."""
    return 1 + sum(bool(name) + len(latencies.by_op) for name, latencies in parts)


def draw_percentiles(axes: Axes, parts: Sequence[tuple[str, Latencies]]) -> None:
    """A table with a line per op, of each part under its name."""
    axes.axis("off")
    table = [("", "I/Os", "size", *(f"p{100 * share:g}" for share in _SHARES), "max")]
    colours = [FAINT_INK]
    for name, latencies in parts:
        if name:
            table.append((name, *[""] * (len(table[0]) - 1)))
            colours.append(INK)
        for op in latencies.by_op:
            table.append(_table_line(op))
            colours.append(OP_COLOURS[op.op_index])
    widths = [max(map(len, column)) + 1 for column in zip(*table, strict=True)]
    rights = np.cumsum([_LABEL_CHARACTERS, *widths[1:]])
    for row, (line, colour) in enumerate(zip(table, colours, strict=True)):
        y = 1 - row / len(table)
        style: dict[str, Any] = {
            "va": "top",
            "color": colour,
            "size": _TABLE_SIZE,
            "in_layout": False,  # which would measure each
        }
        axes.text(0, y, line[0], weight="bold", **style)
        for right, text in zip(rights[1:], line[1:], strict=True):
            if text:
                axes.text(right / rights[-1], y, text, ha="right", **style)


def _table_line(op: OpLatency) -> tuple[str, ...]:
    """What the I/Os do not carry stays empty."""
    return (
        OPS[op.op_index],
        format_short_count(op.io_count),
        format_bytes(op.size_bytes) if op.size_bytes else "",
        *(
            "" if np.isnan(time_ns) else format_short_duration(time_ns)
            for time_ns in (*op.percentiles_ns, op.longest_ns)
        ),
    )


def _set_latency_axis(axes: Axes, latencies: Latencies) -> None:
    low_ns, high_ns = latencies.edges_ns[[0, -1]]
    axes.set_yscale("log")
    axes.set_ylim(low_ns, high_ns)
    set_latency_ticks(axes.yaxis, low_ns, high_ns)


def _say_if_empty(axes: Axes, latencies: Latencies) -> None:
    if not latencies.by_op:
        has_failed = latencies.failed.any()
        write_centred(axes, "every I/O failed" if has_failed else "no I/O completed")


def _to_nines(share: FloatArray) -> FloatArray:
    """0 at 0 %, 1 at 90 %, 2 at 99 %."""
    nines: FloatArray = -np.log10(1 - np.clip(share, 0, 1 - 1e-12))
    return nines


def _from_nines(nines: FloatArray) -> FloatArray:
    share: FloatArray = 1 - 10.0**-nines
    return share
