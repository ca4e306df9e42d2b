# SPDX-License-Identifier: GPL-2.0-only
"""One function per chart: each draws finished numbers into one set of axes."""

from collections.abc import Sequence
from math import floor
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm, to_rgba_array
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from analyze.latency import PERCENTILES, FloatArray
from analyze.plot.bins import CACHE_FLUSH, OPS, Series
from analyze.plot.captions import owner_name
from analyze.plot.hung import HungIo
from analyze.plot.offsets import DeviceOffsets
from analyze.plot.owners import Owners, OwnerTime
from analyze.plot.theme import (
    FAILED_STYLE,
    FAINT_INK,
    HEAT_COLOURS,
    HUNG_STYLE,
    INK,
    LINE_STYLES,
    LOSS_STYLE,
    MANY_FAILED_STYLE,
    MARK_LABEL_STYLE,
    MARK_STYLE,
    OP_COLOURS,
    OTHERS_COLOUR,
    OWNER_COLOURS,
    drawable,
)
from analyze.plot.ticks import set_count_ticks, set_latency_ticks, set_time_ticks, width_inches
from analyze.plot.timeline import Timeline
from analyze.plot.traffic import CURVE_SHARES, Latencies, OpLatency
from analyze.units import (
    SIZE_UNITS,
    fit_unit,
    format_bytes,
    format_duration,
    format_short_count,
    format_short_duration,
)

_FAINTEST = 0.5
_MOST_LARGE_MARKS = 4  # of a time bin: more would hide each other
_ROUND_STEPS = (1, 2, 5, 10)
_SHARES = tuple(PERCENTILES.values())
_SHORT_SCALE = 10  # a logarithmic scale up to there has one tick
_LABEL_CHARACTERS = 11  # bold
_TABLE_SIZE = 8.8
_MARK_LABEL_INCHES = 0.15
_LONGEST_MARK = 30
_SQUARE_POINTS = 14
_CDF_TICKS = (*_SHARES, 0.9999, 0.99999)


def draw_heatmap(axes: Axes, latencies: Latencies, timeline: Timeline, on: str = "") -> None:
    _set_title(axes, f"Latency{on or ' by time of submission'}")
    peak = float(latencies.heat.max())
    mesh = axes.pcolormesh(
        timeline.edges_s,
        latencies.edges_ns,
        np.ma.masked_equal(latencies.heat, 0),
        cmap=HEAT_COLOURS,
        norm=LogNorm(1, max(2.0, peak)),
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
        axes.stairs(values, edges_s, baseline=None, **style)


def draw_histogram(axes: Axes, latencies: Latencies, on: str = "") -> None:
    _set_title(axes, f"Histogram{on}", "I/Os")
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


def draw_cdf(axes: Axes, latencies: Latencies, on: str = "") -> None:
    """The share on the axis that spreads the nines, so that the tail can be read."""
    _set_title(axes, f"CDF{on}", "% of I/Os")
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
    _set_title(axes, title, f"mean {mean}, peak {peak}")
    cache_flushes = series.values[CACHE_FLUSH] / unit
    _draw_stack(axes, series.values[:CACHE_FLUSH] / unit, OP_COLOURS, timeline)
    if cache_flushes.any():
        colour = OP_COLOURS[CACHE_FLUSH]
        axes.stairs(cache_flushes, timeline.edges_s, baseline=None, color=colour)
        axes.set_ylim(top=max(axes.get_ylim()[1], 1.05 * float(cache_flushes.max())))


def _draw_stack(
    axes: Axes, stacked: FloatArray, colours: Sequence[str], timeline: Timeline
) -> None:
    tops = np.cumsum(stacked, axis=0)
    for values, top, colour in zip(stacked, tops, colours, strict=False):
        if values.any():
            axes.stairs(top, timeline.edges_s, baseline=top - values, fill=True, color=colour)
    _set_time_axis(axes, timeline)
    axes.set_ylim(0, 1.05 * float(tops[-1].max()) or 1.0)
    axes.yaxis.set_major_locator(MaxNLocator("auto", steps=_ROUND_STEPS))
    set_count_ticks(axes.yaxis)


def draw_owners_in_flight(
    axes: Axes, owners: Owners, in_flight: FloatArray, timeline: Timeline
) -> None:
    """The time in I/O over time, which is how many are in flight."""
    _set_title(axes, f"I/Os in flight by {owners.by}")
    _draw_stack(axes, in_flight, _owner_colours(owners), timeline)


def draw_owners_throughput(
    axes: Axes, owners: Owners, bytes_per_s: FloatArray, timeline: Timeline
) -> None:
    unit, unit_bytes = fit_unit(float(bytes_per_s.sum(axis=0).max()), SIZE_UNITS)
    _set_title(axes, f"Throughput by {owners.by}, {unit}/s")
    _draw_stack(axes, bytes_per_s / unit_bytes, _owner_colours(owners), timeline)


def _owner_colours(owners: Owners) -> list[str]:
    """A colour for each of the first ones, one for all others, whose row is the last."""
    shown = len(owners.top)
    named = OWNER_COLOURS[:shown]
    return [*named, *[OTHERS_COLOUR] * (shown + 1 - len(named))]


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


def draw_owners(axes: Axes, owners: Owners) -> None:
    """The bars by op; the squares are the colours of the owners over time."""
    left_out = format_short_count(owners.left_out_count)
    share = _percent(1 - owners.top_share)
    note = f"{left_out} others, {share} of the time" if owners.left_out_count else ""
    _set_title(axes, f"Time in I/O by {owners.by}", note)
    axes.axis("off")
    for row, (owner, colour) in enumerate(zip(owners.top, _owner_colours(owners), strict=False)):
        _draw_owner(axes, row, owner, colour)
    longest_ns = max((float(owner.busy_ns.sum()) for owner in owners.top), default=0)
    axes.set_xlim(0, longest_ns or 1.0)
    axes.set_ylim(len(owners.top), -0.5)


def _draw_owner(axes: Axes, row: int, owner: OwnerTime, colour: str) -> None:
    """A line of text above a bar."""
    left = 0.0
    for op in np.flatnonzero(owner.busy_ns):
        busy_ns = float(owner.busy_ns[op])
        axes.barh(row + 0.42, busy_ns, left=left, height=0.34, color=OP_COLOURS[op])
        left += busy_ns
    ios, size = format_short_count(owner.io_count), format_bytes(owner.size_bytes)
    transform = axes.get_yaxis_transform()
    style: dict[str, Any] = {"va": "center", "in_layout": False}
    axes.text(0, row, "\N{BLACK SQUARE}", color=colour, transform=transform, **style)
    axes.annotate(
        owner_name(owner.owner),
        (0, row),
        (_SQUARE_POINTS, 0),
        xycoords=transform,
        textcoords="offset points",
        **style,
    )
    amounts = f"{ios} I/Os, {size}, {format_duration(left)}"
    axes.text(1, row, amounts, ha="right", transform=transform, **style)


def label_marks(axes: Axes, timeline: Timeline) -> None:
    """What the marks mean, along their lines; of those too close to be read apart, the first."""
    first_s, last_s = timeline.edges_s[[0, -1]]
    label_s = (last_s - first_s) * _MARK_LABEL_INCHES / width_inches(axes)
    labels: list[tuple[float, list[str]]] = []
    for at_s, text in timeline.marks:
        if labels and at_s - labels[-1][0] < label_s:
            labels[-1][1].append(text)
        else:
            labels.append((at_s, [text]))
    for at_s, texts in labels:
        more = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
        is_last = at_s + label_s > last_s
        axes.annotate(
            f"{drawable(texts[0], _LONGEST_MARK)}{more}",
            (at_s, 1),
            (-2 if is_last else 2, -3),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            rotation=90,
            va="top",
            ha="right" if is_last else "left",
            **MARK_LABEL_STYLE,
        )


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
    middles_s = (timeline.edges_s[:-1] + timeline.edges_s[1:]) / 2
    is_crowded = np.count_nonzero(failed, axis=0)[bins] > _MOST_LARGE_MARKS
    for style, shown in ((MANY_FAILED_STYLE, is_crowded), (FAILED_STYLE, ~is_crowded)):
        axes.plot(middles_s[bins[shown]], middles[rows[shown]], **style)


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
    for at_s, _ in timeline.marks:
        axes.axvline(at_s, **MARK_STYLE)


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
