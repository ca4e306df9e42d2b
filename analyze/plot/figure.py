# SPDX-License-Identifier: GPL-2.0-only
"""Arranging panels into one figure that explains itself."""

from textwrap import wrap

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyze.completeness import make_completeness
from analyze.opened import OpenedRows
from analyze.plot import captions, panels
from analyze.plot.bins import OPS
from analyze.plot.contents import Contents, load_contents, load_only_io
from analyze.plot.depth import load_depth
from analyze.plot.kinds import Kind
from analyze.plot.offsets import Offsets, load_offsets
from analyze.plot.processes import load_processes
from analyze.plot.theme import (
    FAILED_STYLE,
    FAINT_INK,
    HUNG_STYLE,
    LOSS_STYLE,
    OP_COLOURS,
    theme,
    with_known_characters,
)
from analyze.plot.timeline import Timeline, make_timeline
from analyze.plot.traffic import Latencies, load_traffic
from analyze.selection import Selection
from analyze.verdict import format_completeness

_DOTS_PER_INCH = 110
_OVERVIEW_INCHES = (14.5, 11.0)
_SINGLE_INCHES = (14.5, 7.5)
_MESSAGE_INCHES = (10.0, 3.5)
_DEVICE_INCHES = 1.6
_MARGIN_INCHES = 0.1
_HEADER_INCHES = 0.42
_SUBTITLE_INCHES = 0.38
_SMALL_LINE_INCHES = 0.18
_MOST_SUBTITLE_LINES = 3
_MOST_FOOTER_LINES = 4
_CHARACTERS_PER_INCH = 13.5
_OVERVIEW_DEVICES = 4
_OVERVIEW_PROCESSES = 10
_MOST_DEVICES = 12
_MOST_PROCESSES = 20
_KINDS_WITH_MARKS = (Kind.OVERVIEW, Kind.HEATMAP, Kind.OFFSET)


def draw(capture: OpenedRows, kind: Kind = Kind.OVERVIEW) -> Figure:
    """The figure of one kind; a capture with less than two I/Os gives one that says so."""
    with theme():
        contents = load_contents(capture)
        timeline = make_timeline(capture, contents.row_count)
        figure = Figure(_SINGLE_INCHES, dpi=_DOTS_PER_INCH)
        if contents.row_count == 0:
            _draw_message(figure, "No I/Os in this capture")
        elif contents.row_count == 1:
            _draw_message(figure, captions.only_io(load_only_io(capture, timeline)))
        else:
            _draw_legend(figure, contents, timeline, has_marks=kind in _KINDS_WITH_MARKS)
            if kind is Kind.OVERVIEW:
                _draw_overview(figure, capture, timeline)
            else:
                _draw_single(figure, capture, timeline, kind)
        _draw_frame(figure, capture, contents, timeline)
    return figure


def _draw_message(figure: Figure, message: str) -> None:
    figure.set_size_inches(_MESSAGE_INCHES)
    panels.draw_note(figure.subplots(), message)


def _draw_overview(figure: Figure, capture: OpenedRows, timeline: Timeline) -> None:
    """Latencies on top, quantities over the same time axis below, totals in the corner."""
    traffic = load_traffic(capture, timeline)
    depth = load_depth(capture, timeline)
    offsets = load_offsets(capture, timeline, _OVERVIEW_DEVICES)
    processes = load_processes(capture, timeline, _OVERVIEW_PROCESSES)
    figure.set_size_inches(_OVERVIEW_INCHES)
    device_count = len(offsets.devices)
    device_height = max(2.6 - 0.5 * device_count, 1.0)
    grid = figure.add_gridspec(
        4 + device_count,
        3,
        width_ratios=(0.62, 0.14, 0.24),
        height_ratios=(3.4, 1.2, 1.2, 1.2, *[device_height] * device_count),
    )
    heat, *rows = (figure.add_subplot(grid[row, 0]) for row in range(4 + device_count))
    panels.draw_heatmap(heat, traffic.latencies, timeline)
    panels.draw_iops(rows[0], traffic.iops, timeline)
    panels.draw_throughput(rows[1], traffic.bytes_per_s, timeline)
    panels.draw_depth(rows[2], depth, timeline)
    _draw_devices(rows[3:], offsets, timeline)
    for axes in (heat, *rows):
        axes.label_outer()
    histogram, cdf = (figure.add_subplot(grid[0, column]) for column in (1, 2))
    panels.draw_histogram(histogram, traffic.latencies)
    panels.draw_cdf(cdf, traffic.latencies)
    for axes in (histogram, cdf):
        axes.tick_params(which="both", left=False, labelleft=False)
    corner = grid[1:, 1:].subgridspec(2, 1, height_ratios=(1 + len(traffic.latencies.by_op), 22))
    panels.draw_percentiles(figure.add_subplot(corner[0]), traffic.latencies)
    panels.draw_processes(figure.add_subplot(corner[1]), processes)


def _draw_single(figure: Figure, capture: OpenedRows, timeline: Timeline, kind: Kind) -> None:
    match kind:
        case Kind.OFFSET:
            _draw_all_offsets(figure, load_offsets(capture, timeline, _MOST_DEVICES), timeline)
        case Kind.PROCESSES:
            processes = load_processes(capture, timeline, _MOST_PROCESSES)
            panels.draw_processes(figure.subplots(), processes)
        case Kind.DEPTH:
            panels.draw_depth(figure.subplots(), load_depth(capture, timeline), timeline)
        case Kind.IOPS:
            panels.draw_iops(figure.subplots(), load_traffic(capture, timeline).iops, timeline)
        case Kind.THROUGHPUT:
            bytes_per_s = load_traffic(capture, timeline).bytes_per_s
            panels.draw_throughput(figure.subplots(), bytes_per_s, timeline)
        case _:
            _draw_latencies(figure, load_traffic(capture, timeline).latencies, timeline, kind)


def _draw_latencies(figure: Figure, latencies: Latencies, timeline: Timeline, kind: Kind) -> None:
    """A chart of latencies above the table of their percentiles."""
    chart, table = figure.subplots(2, height_ratios=(5, 1))
    if kind is Kind.HEATMAP:
        panels.draw_heatmap(chart, latencies, timeline)
    elif kind is Kind.HISTOGRAM:
        panels.draw_histogram(chart, latencies)
    else:
        panels.draw_cdf(chart, latencies)
    panels.draw_percentiles(table, latencies)


def _draw_all_offsets(figure: Figure, offsets: Offsets, timeline: Timeline) -> None:
    if not offsets.devices:
        panels.draw_note(figure.subplots(), "No I/O has an offset")
        return
    width, height = _SINGLE_INCHES
    figure.set_size_inches(width, max(height, len(offsets.devices) * _DEVICE_INCHES))
    rows = figure.subplots(len(offsets.devices), squeeze=False)[:, 0]
    _draw_devices(list(rows), offsets, timeline)
    for axes in rows:
        axes.label_outer()


def _draw_devices(rows: list[Axes], offsets: Offsets, timeline: Timeline) -> None:
    for axes, device in zip(rows, offsets.devices, strict=True):
        panels.draw_offsets(axes, device, timeline)
    if offsets.left_out_count:
        note = f"{offsets.left_out_count} more devices are not shown"
        rows[-1].set_xlabel(f"{rows[-1].get_xlabel()}  ·  {note}")


def _draw_frame(
    figure: Figure, capture: OpenedRows, contents: Contents, timeline: Timeline
) -> None:
    """The title above and the completeness below, outside of what the layout may use."""
    width, height = (float(inches) for inches in figure.get_size_inches())
    is_all = capture.selection == Selection(layer=capture.selection.layer)
    failed = contents.failed_count if is_all else None
    completeness = make_completeness(capture.files, failed=failed)
    per_line = int(width * _CHARACTERS_PER_INCH)
    footer = wrap(
        with_known_characters(format_completeness(completeness)),
        per_line,
        max_lines=_MOST_FOOTER_LINES,
    )
    about = captions.subtitle(capture, contents, timeline), captions.narrowing(capture)
    subtitle = [line for text in about for line in wrap(text, per_line)][:_MOST_SUBTITLE_LINES]
    bottom = (len(footer) + 1) * _SMALL_LINE_INCHES / height
    top = 1 - (_HEADER_INCHES + len(subtitle) * _SMALL_LINE_INCHES) / height
    figure.set_layout_engine("constrained", rect=(0, bottom, 1, top - bottom), w_pad=0.08)
    left = _MARGIN_INCHES / width
    title = captions.title(capture, contents)
    figure.text(left, 1 - _MARGIN_INCHES / height, title, va="top", size=13, weight="bold")
    at = 1 - _SUBTITLE_INCHES / height
    figure.text(left, at, "\n".join(subtitle), va="top", color=FAINT_INK)
    figure.text(left, _MARGIN_INCHES / height, "\n".join(footer), color=FAINT_INK)


def _draw_legend(
    figure: Figure, contents: Contents, timeline: Timeline, *, has_marks: bool
) -> None:
    handles: list[Artist] = [Patch(color=OP_COLOURS[op], label=OPS[op]) for op in contents.ops]
    if contents.failed_count and has_marks:
        handles.append(Line2D([], [], label="failed", **FAILED_STYLE))
    if contents.hung_count and has_marks:
        handles.append(Patch(label="not completed", **HUNG_STYLE))
    if timeline.loss_spans_s:
        handles.append(Patch(label="I/Os were lost", **LOSS_STYLE))
    figure.legend(
        handles=handles,
        loc="upper right",
        bbox_to_anchor=(1, 1),
        ncols=len(handles),
        frameon=False,
    )
