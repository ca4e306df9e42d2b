# SPDX-License-Identifier: GPL-2.0-only
"""What charts share: their titles, the axis of time, and the marks upon it."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

from analyze.latency import FloatArray
from analyze.plot.hung import HungIo
from analyze.plot.theme import (
    FAILED_STYLE,
    FAINT_INK,
    HUNG_STYLE,
    LOSS_STYLE,
    MANY_FAILED_STYLE,
    MARK_LABEL_STYLE,
    MARK_STYLE,
    drawable,
)
from analyze.plot.ticks import set_time_ticks, width_inches
from analyze.plot.timeline import Timeline

_MOST_LARGE_MARKS = 4  # of a time bin: more would hide each other
_MARK_LABEL_INCHES = 0.15
_LONGEST_MARK = 30


def add_steps(axes: Axes, values: FloatArray, edges: FloatArray, **style: Any) -> None:
    """As Axes.stairs, which takes long to find limits; here the caller sets them."""
    axes.add_artist(StepPatch(values, edges, **style))


def set_title(axes: Axes, title: str, note: str = "") -> None:
    axes.set_title(title)
    axes.set_title(note, loc="right", color=FAINT_INK, weight="normal")


def set_time_axis(axes: Axes, timeline: Timeline) -> None:
    set_time_ticks(axes, timeline)
    for begin_s, end_s in timeline.loss_spans_s:
        axes.axvspan(begin_s, end_s, zorder=0.5, **LOSS_STYLE)
    for at_s, _ in timeline.marks:
        axes.axvline(at_s, **MARK_STYLE)


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


def mark_failed(axes: Axes, failed: FloatArray, middles: FloatArray, timeline: Timeline) -> None:
    """A mark at each cell of (row, time bin) in which an I/O failed."""
    rows, bins = np.nonzero(failed)
    middles_s = (timeline.edges_s[:-1] + timeline.edges_s[1:]) / 2
    is_crowded = np.count_nonzero(failed, axis=0)[bins] > _MOST_LARGE_MARKS
    for style, shown in ((MANY_FAILED_STYLE, is_crowded), (FAILED_STYLE, ~is_crowded)):
        axes.plot(middles_s[bins[shown]], middles[rows[shown]], **style)


def mark_hung(
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


def draw_note(axes: Axes, note: str) -> None:
    axes.axis("off")
    write_centred(axes, note)


def write_centred(axes: Axes, note: str) -> None:
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
