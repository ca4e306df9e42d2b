# SPDX-License-Identifier: GPL-2.0-only
"""Arranging panels into one figure that explains itself."""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec

from analyze.errors import IorecError
from analyze.explain import explain_calls
from analyze.latency import FloatArray
from analyze.opened import OpenedRows
from analyze.plot import call_panels, captions, frame, latency_panels, owner_panels, panels
from analyze.plot.axes import draw_note, label_marks
from analyze.plot.bins import Devices
from analyze.plot.contents import load_contents, load_only_io
from analyze.plot.depth import load_depth
from analyze.plot.kinds import By, Kind
from analyze.plot.marks import Mark
from analyze.plot.offsets import DeviceOffsets, load_offsets
from analyze.plot.output import Picture
from analyze.plot.owners import Owners, load_owners
from analyze.plot.theme import drawable, theme
from analyze.plot.timeline import Timeline, make_timeline
from analyze.plot.traffic import Latencies, load_traffic

_DOTS_PER_INCH = 110
_WIDTH_INCHES = 14.5
_OVERVIEW_INCHES = 11.0
_SIDE_INCHES = 5.5  # beside the charts over time
_MORE_DEVICE_INCHES = 2.5  # of width for each device after the second
_CHART_INCHES = 6.0
_DEVICE_INCHES = 2.4
_LEAST_CHART_INCHES = 2.6
_FRAME_INCHES = 1.6  # around the charts
_TABLE_LINE_INCHES = 0.21
_OWNER_INCHES = 0.34
_OWNERS_CHART_INCHES = 2.4
_CALLS = 3
_CALL_LINE_INCHES = 0.25
_LINES_AROUND = 3  # of a call: its title and its axis
_MESSAGE_INCHES = (10.0, 3.5)
_LONGEST_DEVICE = 20
_OVERVIEW_DEVICES = 4
_OVERVIEW_OWNERS = 9
_MOST_OWNERS = 20
_CHARTS_OF_LATENCIES = (Kind.HEATMAP, Kind.HISTOGRAM, Kind.CDF)


def draw(
    capture: OpenedRows,
    kind: Kind = Kind.OVERVIEW,
    by: By = By.PROCESS,
    marks: Sequence[Mark] = (),
) -> Picture:
    """The figure of one kind; a capture with less than two I/Os gives one that says so.

    Marks are for kinds over time; to others they are an IorecError, as is a selection without I/Os:
    no picture of nothing takes the place of an earlier one.
    """
    if marks and kind in (Kind.HISTOGRAM, Kind.CDF, Kind.TIMELINE):
        raise IorecError(f"a {kind} has no time for a mark", "choose a kind over time", 2)
    with theme():
        contents = load_contents(capture)
        if contents.row_count == 0 and str(capture.selection):
            raise IorecError(f"no I/O to draw {capture.selection}", "widen -b and -e, or --where")
        timeline = make_timeline(capture, contents.row_count, marks)
        figure = Picture(dpi=_DOTS_PER_INCH)
        legend: list[Artist] = []
        devices = contents.devices
        if contents.row_count == 0:
            _draw_message(figure, "No I/Os in this capture")
        elif contents.row_count == 1:
            _draw_message(figure, captions.only_io(load_only_io(capture, timeline)))
        else:
            legend = frame.make_legend(contents, timeline, kind)
            if kind is Kind.OVERVIEW:
                devices = devices.first(_OVERVIEW_DEVICES)
                _draw_overview(figure, capture, timeline, devices, by)
            elif kind is Kind.PROCESSES:
                _draw_owners(figure, capture, timeline, by)
            elif kind is Kind.TIMELINE:
                legend = _draw_calls(figure, capture)
            elif kind in _CHARTS_OF_LATENCIES:
                _draw_latencies(figure, capture, timeline, devices, kind)
            else:
                _draw_over_time(figure, capture, timeline, devices, kind)
        has_charts = kind not in (Kind.PROCESSES, Kind.TIMELINE)
        left_out = devices.left_out_count if has_charts else 0
        frame.draw_frame(figure, capture, contents, timeline, legend, left_out)
    return figure


def _draw_message(figure: Figure, message: str) -> None:
    figure.set_size_inches(_MESSAGE_INCHES)
    draw_note(figure.subplots(), message)


def _draw_overview(
    figure: Figure, capture: OpenedRows, timeline: Timeline, devices: Devices, by: By
) -> None:
    """A column per device, latencies on top and quantities over the same time below; who beside it.

    A lone device has room for the distribution of its latencies.
    """
    traffic = load_traffic(capture, timeline, devices)
    owners = load_owners(capture, timeline, by, _OVERVIEW_OWNERS)
    depth = load_depth(capture, timeline, devices, owners)
    offsets = load_offsets(capture, timeline, devices)
    count = len(devices.shown)
    width = _WIDTH_INCHES + _MORE_DEVICE_INCHES * max(count - 2, 0)
    figure.set_size_inches(width, _OVERVIEW_INCHES)
    column_inches = (width - _SIDE_INCHES) / count
    grid = figure.add_gridspec(
        5,
        count + 2,
        width_ratios=(*[column_inches] * count, 0.37 * _SIDE_INCHES, 0.63 * _SIDE_INCHES),
        height_ratios=(3.4, 1.2, 1.2, 1.2, 2.1),
    )
    for column, of_device in enumerate(traffic):
        rows = [figure.add_subplot(grid[row, column]) for row in range(5)]
        on = _on(of_device.device, devices)
        latency_panels.draw_heatmap(rows[0], of_device.latencies, timeline, on)
        panels.draw_iops(rows[1], of_device.iops, timeline)
        panels.draw_throughput(rows[2], of_device.bytes_per_s, timeline)
        panels.draw_depth(rows[3], depth.by_device[column], timeline)
        _draw_offsets(rows[4], offsets[column], timeline)
        _label_ends(rows, timeline)
    if count == 1:
        histogram, cdf = (figure.add_subplot(grid[0, column]) for column in (1, 2))
        latency_panels.draw_histogram(histogram, traffic[0].latencies)
        latency_panels.draw_cdf(cdf, traffic[0].latencies)
        for axes in (histogram, cdf):
            axes.tick_params(which="both", left=False, labelleft=False)
    place = grid[1:, 1:] if count == 1 else grid[:, count:]
    parts = [(drawable(each.device) if count > 1 else "", each.latencies) for each in traffic]
    _draw_side(figure, place, parts, owners, depth.by_owner, timeline)


def _draw_side(
    figure: Figure,
    place: SubplotSpec,
    parts: Sequence[tuple[str, Latencies]],
    owners: Owners,
    in_flight: FloatArray,
    timeline: Timeline,
) -> None:
    """The table, the owners and, in the rest of the height, those over time."""
    bounds = place.get_position(figure)
    table_inches = latency_panels.table_line_count(parts) * _TABLE_LINE_INCHES
    list_inches = (len(owners.top) + 1) * _OWNER_INCHES
    rest_inches = bounds.height * _OVERVIEW_INCHES - table_inches - list_inches
    heights = (table_inches + list_inches, max(rest_inches, _LEAST_CHART_INCHES))
    # Grids of their own, as what labels take at the sides of one would be taken from all in it.
    halves = place.subgridspec(2, 1, height_ratios=heights)
    texts = halves[0].subgridspec(2, 1, height_ratios=(table_inches, list_inches))
    latency_panels.draw_percentiles(figure.add_subplot(texts[0]), parts)
    owner_panels.draw_owners(figure.add_subplot(texts[1]), owners)
    axes = figure.add_subplot(halves[1].subgridspec(1, 1)[0])
    owner_panels.draw_owners_in_flight(axes, owners, in_flight, timeline)


def _draw_owners(figure: Figure, capture: OpenedRows, timeline: Timeline, by: By) -> None:
    owners = load_owners(capture, timeline, by, _MOST_OWNERS)
    depth = load_depth(capture, timeline, Devices((), 0), owners)
    heights = ((len(owners.top) + 1) * _OWNER_INCHES, *[_OWNERS_CHART_INCHES] * 2)
    figure.set_size_inches(_WIDTH_INCHES, sum(heights) + _FRAME_INCHES)
    bars, in_flight, throughput = figure.subplots(3, height_ratios=heights)
    owner_panels.draw_owners(bars, owners)
    owner_panels.draw_owners_in_flight(in_flight, owners, depth.by_owner, timeline)
    owner_panels.draw_owners_throughput(throughput, owners, depth.bytes_per_s_by_owner, timeline)
    _label_ends([in_flight, throughput], timeline)


def _draw_calls(figure: Figure, capture: OpenedRows) -> list[Artist]:
    """The slowest calls, one above the other; returns the legend."""
    calls = explain_calls(capture, _CALLS)
    if not calls:
        _draw_message(figure, "No calls for files")
        return []
    lines = [call_panels.line_count(call) + _LINES_AROUND for call in calls]
    figure.set_size_inches(_WIDTH_INCHES, sum(lines) * _CALL_LINE_INCHES + _FRAME_INCHES)
    rows = figure.subplots(len(calls), squeeze=False, height_ratios=lines)[:, 0]
    for axes, call in zip(rows, calls, strict=True):
        call_panels.draw_call(axes, call)
    return call_panels.make_legend(calls)


def _draw_latencies(
    figure: Figure, capture: OpenedRows, timeline: Timeline, devices: Devices, kind: Kind
) -> None:
    """A chart of each device above the table of its percentiles."""
    traffic = load_traffic(capture, timeline, devices)
    tables = [[("", each.latencies)] for each in traffic]
    chart_inches = _CHART_INCHES if len(traffic) == 1 else _DEVICE_INCHES
    heights = [
        inches
        for table in tables
        for inches in (chart_inches, latency_panels.table_line_count(table) * _TABLE_LINE_INCHES)
    ]
    figure.set_size_inches(_WIDTH_INCHES, sum(heights) + _FRAME_INCHES)
    rows = list(figure.subplots(len(heights), height_ratios=heights))
    for chart, percentiles, each, table in zip(rows[::2], rows[1::2], traffic, tables, strict=True):
        on = _on(each.device, devices)
        if kind is Kind.HEATMAP:
            latency_panels.draw_heatmap(chart, each.latencies, timeline, on)
            label_marks(chart, timeline)
        elif kind is Kind.HISTOGRAM:
            latency_panels.draw_histogram(chart, each.latencies, on)
        else:
            latency_panels.draw_cdf(chart, each.latencies, on)
        latency_panels.draw_percentiles(percentiles, table)


def _draw_over_time(
    figure: Figure, capture: OpenedRows, timeline: Timeline, devices: Devices, kind: Kind
) -> None:
    """One kind of chart of each device, above each other."""
    count = len(devices.shown)
    height = _CHART_INCHES if count == 1 else count * _DEVICE_INCHES
    figure.set_size_inches(_WIDTH_INCHES, height + _FRAME_INCHES)
    rows = list(figure.subplots(count, squeeze=False)[:, 0])
    if kind is Kind.OFFSET:
        for axes, offsets in zip(rows, load_offsets(capture, timeline, devices), strict=True):
            _draw_offsets(axes, offsets, timeline)
    elif kind is Kind.DEPTH:
        depth = load_depth(capture, timeline, devices, Owners(By.PROCESS, (), 0, 0.0)).by_device
        for axes, device, series in zip(rows, devices.shown, depth, strict=True):
            panels.draw_depth(axes, series, timeline, _on(device, devices))
    else:
        for axes, each in zip(rows, load_traffic(capture, timeline, devices), strict=True):
            on = _on(each.device, devices)
            if kind is Kind.IOPS:
                panels.draw_iops(axes, each.iops, timeline, on)
            else:
                panels.draw_throughput(axes, each.bytes_per_s, timeline, on)
    _label_ends(rows, timeline)


def _draw_offsets(axes: Axes, offsets: DeviceOffsets | None, timeline: Timeline) -> None:
    if offsets is None:
        draw_note(axes, "no I/O has an offset")
    else:
        panels.draw_offsets(axes, offsets, timeline)


def _on(device: str | None, devices: Devices) -> str:
    """What tells the charts of several devices apart."""
    return "" if devices.count == 1 else f" on {drawable(device, _LONGEST_DEVICE)}"


def _label_ends(rows: Sequence[Axes], timeline: Timeline) -> None:
    """Leaves one time axis to charts above each other, below, and names the marks above."""
    label_marks(rows[0], timeline)
    for axes in rows[:-1]:
        axes.tick_params(labelbottom=False)
        axes.set_xlabel("")
