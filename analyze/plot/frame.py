# SPDX-License-Identifier: GPL-2.0-only
"""What stands around the charts: title, caption and legend above, completeness below."""

from textwrap import wrap

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyze.completeness import make_completeness
from analyze.latency import PERCENTILES
from analyze.opened import OpenedRows
from analyze.plot import captions
from analyze.plot.bins import OPS
from analyze.plot.contents import Contents
from analyze.plot.kinds import Kind
from analyze.plot.percentiles import LINE_PERCENTILES, is_carried
from analyze.plot.theme import (
    FAILED_STYLE,
    FAINT_INK,
    HUNG_STYLE,
    LINE_STYLES,
    LOSS_STYLE,
    OP_COLOURS,
    with_known_characters,
)
from analyze.plot.timeline import Timeline
from analyze.selection import Selection
from analyze.verdict import format_completeness

_MARGIN_INCHES = 0.1
_SUBTITLE_INCHES = 0.38
_SMALL_LINE_INCHES = 0.18
_LEGEND_INCHES = 0.28
_MOST_SUBTITLE_LINES = 3
_MOST_FOOTER_LINES = 4
_CHARACTERS_PER_INCH = 13.5
_HEATMAPS = (Kind.OVERVIEW, Kind.HEATMAP)
_KINDS_WITH_FAILED = (*_HEATMAPS, Kind.OFFSET)


def make_legend(contents: Contents, timeline: Timeline, kind: Kind) -> list[Artist]:
    handles: list[Artist] = [Patch(color=OP_COLOURS[op], label=OPS[op]) for op in contents.ops]
    good_count = contents.io_count - contents.failed_count - contents.hung_count
    for name, style in zip(LINE_PERCENTILES, LINE_STYLES, strict=True):
        if kind in _HEATMAPS and is_carried(PERCENTILES[name], good_count):
            handles.append(Line2D([], [], label=f"{name} of all", **style))
    if contents.failed_count and kind in _KINDS_WITH_FAILED:
        handles.append(Line2D([], [], label="failed", **FAILED_STYLE))
    if contents.hung_count and kind in _KINDS_WITH_FAILED:
        handles.append(Patch(label="not completed", **HUNG_STYLE))
    if timeline.loss_spans_s:
        handles.append(Patch(label="I/Os were lost", **LOSS_STYLE))
    return handles


def draw_frame(
    figure: Figure,
    capture: OpenedRows,
    contents: Contents,
    timeline: Timeline,
    legend: list[Artist],
    left_out_count: int,
) -> None:
    """Title and legend above, completeness below, outside of what the layout may use."""
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
    about = (
        captions.subtitle(capture, contents, timeline, left_out_count),
        captions.narrowing(capture),
    )
    subtitle = [line for text in about for line in wrap(text, per_line)][:_MOST_SUBTITLE_LINES]
    bottom = (len(footer) + 1) * _SMALL_LINE_INCHES / height
    below = 1 - (_SUBTITLE_INCHES + len(subtitle) * _SMALL_LINE_INCHES) / height
    top = below - (_LEGEND_INCHES if legend else _MARGIN_INCHES) / height
    figure.set_layout_engine("constrained", rect=(0, bottom, 1, top - bottom), w_pad=0.08)
    left = _MARGIN_INCHES / width
    title = captions.title(capture, contents)
    figure.text(left, 1 - _MARGIN_INCHES / height, title, va="top", size=13, weight="bold")
    at = 1 - _SUBTITLE_INCHES / height
    figure.text(left, at, "\n".join(subtitle), va="top", color=FAINT_INK)
    figure.text(left, _MARGIN_INCHES / height, "\n".join(footer), color=FAINT_INK)
    if legend:
        figure.legend(
            handles=legend,
            loc="upper left",
            bbox_to_anchor=(left, below),
            ncols=len(legend),
            borderpad=0.2,
            borderaxespad=0,
            frameon=False,
        )
