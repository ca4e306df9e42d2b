# SPDX-License-Identifier: GPL-2.0-only
"""One function per chart: each draws finished numbers into one set of axes."""

from math import floor
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgba_array
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from analyze.latency import PERCENTILES, FloatArray
from analyze.plot.bins import CACHE_FLUSH, OPS, Series
from analyze.plot.captions import process_name
from analyze.plot.hung import HungIo
from analyze.plot.offsets import DeviceOffsets
from analyze.plot.percentiles import LINE_PERCENTILES
from analyze.plot.processes import Processes, ProcessTime
from analyze.plot.theme import (
    FAILED_STYLE,
    FAINT_INK,
    HEAT_COLOURS,
    HUNG_STYLE,
    LINE_BORDER,
    LINE_COLOURS,
    LOSS_STYLE,
    MANY_FAILED_STYLE,
    OP_COLOURS,
    drawable,
)
from analyze.plot.ticks import set_count_ticks, set_latency_ticks, set_time_ticks
from analyze.plot.timeline import Timeline
from analyze.plot.traffic import CURVE_SHARES, Latencies
from analyze.units import (
    SIZE_UNITS,
    fit_unit,
    format_bytes,
    format_duration,
    format_short_count,
    format_short_duration,
)

_FEWEST_PROCESS_LINES = 8
_FAINTEST = 0.5
_MOST_LARGE_MARKS = 100  # more would hide each other
_ROUND_STEPS = (1, 2, 5, 10)
_SHARES = tuple(PERCENTILES.values())
_CDF_TICKS = (*_SHARES, 0.9999, 0.99999)


def draw_heatmap(axes: Axes, latencies: Latencies, timeline: Timeline) -> None:
    _set_title(axes, "Latency by time of submission")
    mesh = axes.pcolormesh(
        timeline.edges_s,
        latencies.edges_ns,
        np.ma.masked_equal(latencies.heat, 0),
        cmap=HEAT_COLOURS,
        norm=LogNorm(1, max(2.0, latencies.heat.max())),
        rasterized=True,
    )
    _set_time_axis(axes, timeline)
    _set_latency_axis(axes, latencies)
    _draw_lines(axes, latencies, timeline)
    middles_ns = np.sqrt(latencies.edges_ns[:-1] * latencies.edges_ns[1:])
    _mark_failed(axes, latencies.failed, middles_ns, timeline)
    ages_ns = np.array([max(io.age_ns, 1) for io in latencies.hung])
    bottoms_ns = ages_ns * latencies.edges_ns[0] / middles_ns[0]
    _mark_hung(axes, latencies.hung, bottoms_ns, 2 * (ages_ns - bottoms_ns), timeline)
    scale_axes = axes.inset_axes((0.84, 1.025, 0.16, 0.025))
    scale = axes.figure.colorbar(mesh, cax=scale_axes, orientation="horizontal")
    scale.outline.set_visible(False)
    scale_axes.xaxis.set_ticks_position("top")
    scale_axes.xaxis.set_minor_locator(NullLocator())
    scale_axes.tick_params(labelsize=8, length=0, pad=1)
    set_count_ticks(scale_axes.xaxis)
    scale_axes.set_ylabel("I/Os per cell", rotation=0, ha="right", va="center", color=FAINT_INK)


def _draw_lines(axes: Axes, latencies: Latencies, timeline: Timeline) -> None:
    edges_s = timeline.edges_s[latencies.lines.edges_bins]
    border = [withStroke(linewidth=3, foreground=LINE_BORDER)]
    for name, values, colour in zip(
        LINE_PERCENTILES, latencies.lines.percentiles_ns, LINE_COLOURS, strict=True
    ):
        if not np.isnan(values).all():
            style: dict[str, Any] = {"color": colour, "path_effects": border}
            axes.stairs(values, edges_s, baseline=None, linewidth=1.3, **style)
            axes.plot([], [], label=name, **style)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(0.3, 1), borderpad=0, ncols=2, frameon=False)


def draw_histogram(axes: Axes, latencies: Latencies) -> None:
    _set_title(axes, "Histogram", "I/Os")
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
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=_ROUND_STEPS, integer=True))
    set_count_ticks(axes.xaxis)


def draw_cdf(axes: Axes, latencies: Latencies) -> None:
    """The share on the axis that spreads the nines, so that the tail can be read."""
    _set_title(axes, "CDF", "% of I/Os")
    axes.set_xscale("function", functions=(_to_nines, _from_nines))
    for op in latencies.by_op:
        colour = OP_COLOURS[op.op_index]
        axes.plot(CURVE_SHARES, op.curve_ns, color=colour)
        axes.plot(_SHARES, op.percentiles_ns, "o", color=colour, markersize=4)
    _set_latency_axis(axes, latencies)
    most_ios = max((op.io_count for op in latencies.by_op), default=1)
    axes.set_xlim(0, min(1 - 0.5 / most_ios, CURVE_SHARES[-1]))
    axes.xaxis.set_major_locator(FixedLocator(_CDF_TICKS))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{100 * share:g}" for share in _CDF_TICKS]))
    axes.xaxis.set_minor_locator(NullLocator())


def draw_percentiles(axes: Axes, latencies: Latencies) -> None:
    """A table with a line per op."""
    axes.axis("off")
    lines = [("", "I/Os", "size", *(f"p{100 * share:g}" for share in _SHARES), "max")]
    lines += [
        (
            OPS[op.op_index],
            format_short_count(op.io_count),
            format_bytes(op.size_bytes) if op.size_bytes else "",
            *(
                "" if np.isnan(time_ns) else format_short_duration(time_ns)
                for time_ns in (*op.percentiles_ns, op.longest_ns)
            ),
        )
        for op in latencies.by_op
    ]
    colours = (FAINT_INK, *(OP_COLOURS[op.op_index] for op in latencies.by_op))
    for row, (line, colour) in enumerate(zip(lines, colours, strict=True)):
        y = 1 - row / len(lines)
        axes.text(0, y, line[0], va="top", color=colour, weight="bold")
        for x, text in zip(np.linspace(0.25, 1, len(line) - 1), line[1:], strict=True):
            axes.text(x, y, text, va="top", ha="right", color=colour)


def draw_iops(axes: Axes, iops: Series, timeline: Timeline) -> None:
    _draw_stack(axes, "IOPS", iops, timeline)


def draw_throughput(axes: Axes, bytes_per_s: Series, timeline: Timeline) -> None:
    unit, unit_bytes = fit_unit(bytes_per_s.peak, SIZE_UNITS)
    _draw_stack(axes, f"Throughput, {unit}/s", bytes_per_s, timeline, unit_bytes)


def draw_depth(axes: Axes, in_flight: Series, timeline: Timeline) -> None:
    width = format_duration(timeline.width_ns)
    _draw_stack(axes, f"I/Os in flight, mean over {width}", in_flight, timeline)


def _draw_stack(
    axes: Axes, title: str, series: Series, timeline: Timeline, unit: float = 1.0
) -> None:
    mean, peak = format_short_count(series.mean / unit), format_short_count(series.peak / unit)
    _set_title(axes, title, f"mean {mean}, peak {peak}")
    stacked, cache_flushes = series.values[:CACHE_FLUSH] / unit, series.values[CACHE_FLUSH] / unit
    tops = np.cumsum(stacked, axis=0)
    for values, top, colour in zip(stacked, tops, OP_COLOURS[:CACHE_FLUSH], strict=True):
        if values.any():
            axes.stairs(top, timeline.edges_s, baseline=top - values, fill=True, color=colour)
    if cache_flushes.any():
        colour = OP_COLOURS[CACHE_FLUSH]
        axes.stairs(cache_flushes, timeline.edges_s, baseline=None, color=colour)
    _set_time_axis(axes, timeline)
    axes.set_ylim(0, 1.05 * max(series.peak / unit, float(cache_flushes.max())) or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=_ROUND_STEPS))
    set_count_ticks(axes.yaxis)


def draw_offsets(axes: Axes, offsets: DeviceOffsets, timeline: Timeline) -> None:
    unit, unit_bytes = fit_unit(float(offsets.edges_bytes[-1]), SIZE_UNITS)
    ios = format_short_count(offsets.io_count)
    _set_title(axes, f"Offset on {drawable(offsets.device)}, {unit}", f"{ios} I/Os")
    axes.imshow(
        _mix_ops(offsets.counts),
        extent=(*timeline.edges_s[[0, -1]], *offsets.edges_bytes[[0, -1]] / unit_bytes),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        zorder=1,
    )
    _set_time_axis(axes, timeline)
    edges = offsets.edges_bytes / unit_bytes
    _mark_failed(axes, offsets.failed, (edges[:-1] + edges[1:]) / 2, timeline)
    height = 2 * (edges[1] - edges[0])
    places = np.array([(io.offset or 0) / unit_bytes for io in offsets.hung])
    places = np.clip(places, edges[0], edges[-1]) - height / 2
    _mark_hung(axes, offsets.hung, places, np.full(len(places), height), timeline)
    axes.set_ylim(edges[0] - height / 2, edges[-1] + height / 2)  # the outer ones are whole
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=_ROUND_STEPS))


def draw_processes(axes: Axes, processes: Processes) -> None:
    shown, share = len(processes.top), _percent(processes.top_share)
    note = f"{shown} of {format_short_count(processes.process_count)}, {share} of the time"
    _set_title(axes, "Processes by time in I/O", note if shown < processes.process_count else "")
    axes.axis("off")
    for row, process in enumerate(processes.top):
        _draw_process(axes, row, process)
    longest_ns = max((float(process.busy_ns.sum()) for process in processes.top), default=0)
    axes.set_xlim(0, longest_ns or 1.0)
    axes.set_ylim(max(len(processes.top), _FEWEST_PROCESS_LINES), -0.5)


def _draw_process(axes: Axes, row: int, process: ProcessTime) -> None:
    """A line of text above a bar."""
    left = 0.0
    for busy_ns, colour in zip(process.busy_ns, OP_COLOURS, strict=True):
        axes.barh(row + 0.42, busy_ns, left=left, height=0.34, color=colour)
        left += busy_ns
    ios, size = format_short_count(process.io_count), format_bytes(process.size_bytes)
    transform = axes.get_yaxis_transform()
    name = process_name(process.comm, process.pid, process.host)
    axes.text(0, row, name, va="center", transform=transform)
    amounts = f"{ios} I/Os, {size}, {format_duration(left)}"
    axes.text(1, row, amounts, va="center", ha="right", transform=transform)


def draw_note(axes: Axes, note: str) -> None:
    axes.axis("off")
    _write_centred(axes, note)


def _write_centred(axes: Axes, note: str) -> None:
    axes.text(
        0.5,
        0.5,
        note,
        ha="center",
        va="center",
        size=11,
        linespacing=1.6,
        color=FAINT_INK,
        transform=axes.transAxes,
    )


def _mark_failed(axes: Axes, failed: FloatArray, middles: FloatArray, timeline: Timeline) -> None:
    """A mark at each cell of (row, time bin) in which an I/O failed."""
    rows, bins = np.nonzero(failed)
    edges_s = timeline.edges_s
    style = FAILED_STYLE if rows.size <= _MOST_LARGE_MARKS else MANY_FAILED_STYLE
    axes.plot((edges_s[bins] + edges_s[bins + 1]) / 2, middles[rows], **style)


def _mark_hung(
    axes: Axes,
    hung: tuple[HungIo, ...],
    bottoms: FloatArray,
    heights: FloatArray,
    timeline: Timeline,
) -> None:
    """A bar for each, open at the end of the window."""
    first_s, last_s = timeline.edges_s[[0, -1]]
    starts_s = first_s + np.array([io.start_ns for io in hung]) / 1e9
    axes.barh(bottoms, last_s - starts_s, heights, starts_s, align="edge", **HUNG_STYLE)


def _set_title(axes: Axes, title: str, note: str = "") -> None:
    axes.set_title(title)
    axes.set_title(note, loc="right", color=FAINT_INK, weight="normal")


def _set_time_axis(axes: Axes, timeline: Timeline) -> None:
    set_time_ticks(axes, timeline)
    for begin_s, end_s in timeline.loss_spans_s:
        axes.axvspan(begin_s, end_s, zorder=0.5, **LOSS_STYLE)


def _set_latency_axis(axes: Axes, latencies: Latencies) -> None:
    low_ns, high_ns = latencies.edges_ns[[0, -1]]
    axes.set_yscale("log")
    axes.set_ylim(low_ns, high_ns)
    set_latency_ticks(axes.yaxis, low_ns, high_ns)
    if not latencies.by_op:
        has_failed = latencies.failed.any()
        _write_centred(axes, "every I/O failed" if has_failed else "no I/O completed")


def _mix_ops(counts: FloatArray) -> FloatArray:
    """RGBA of (op, row, column) counts: the hue tells the ops, the opacity how many (log)."""
    total = counts.sum(axis=0)
    hue: FloatArray = (
        np.tensordot(counts, to_rgba_array(OP_COLOURS), (0, 0)) / np.maximum(total, 1)[..., None]
    )
    opacity = LogNorm(1, max(2.0, total.max()), clip=True)(np.maximum(total, 1))
    hue[..., 3] = np.where(total > 0, _FAINTEST + (1 - _FAINTEST) * opacity, 0)
    return hue


def _to_nines(share: FloatArray) -> FloatArray:
    """0 at 0 %, 1 at 90 %, 2 at 99 %."""
    nines: FloatArray = -np.log10(1 - np.clip(share, 0, 1 - 1e-12))
    return nines


def _from_nines(nines: FloatArray) -> FloatArray:
    share: FloatArray = 1 - 10.0**-nines
    return share


def _percent(share: float) -> str:
    """Rounded down: 100 % only if it is all."""
    return f"{floor(1000 * share) / 10:g} %"
