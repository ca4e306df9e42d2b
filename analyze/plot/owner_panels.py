# SPDX-License-Identifier: GPL-2.0-only
"""One function per chart of whose I/O it was: each draws into one set of axes."""

from math import floor
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from analyze.latency import FloatArray
from analyze.plot.axes import set_title
from analyze.plot.captions import owner_name
from analyze.plot.owners import Owners, OwnerTime
from analyze.plot.panels import draw_stack
from analyze.plot.theme import OP_COLOURS, OTHERS_COLOUR, OWNER_COLOURS
from analyze.plot.timeline import Timeline
from analyze.units import SIZE_UNITS, fit_unit, format_bytes, format_duration, format_short_count

_SQUARE_POINTS = 14


def draw_owners(axes: Axes, owners: Owners) -> None:
    """The bars by op; the squares are the colours of the owners over time."""
    left_out = format_short_count(owners.left_out_count)
    share = _percent(1 - owners.top_share)
    note = f"{left_out} others, {share} of the time" if owners.left_out_count else ""
    set_title(axes, f"Time in I/O by {owners.by}", note)
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


def draw_owners_in_flight(
    axes: Axes, owners: Owners, in_flight: FloatArray, timeline: Timeline
) -> None:
    """The time in I/O over time, which is how many are in flight."""
    set_title(axes, f"I/Os in flight by {owners.by}")
    draw_stack(axes, in_flight, _owner_colours(owners), timeline)


def draw_owners_throughput(
    axes: Axes, owners: Owners, bytes_per_s: FloatArray, timeline: Timeline
) -> None:
    unit, unit_bytes = fit_unit(float(bytes_per_s.sum(axis=0).max()), SIZE_UNITS)
    set_title(axes, f"Throughput by {owners.by}, {unit}/s")
    draw_stack(axes, bytes_per_s / unit_bytes, _owner_colours(owners), timeline)


def _owner_colours(owners: Owners) -> list[str]:
    """A colour for each of the first ones, one for all others, whose row is the last."""
    shown = len(owners.top)
    named = OWNER_COLOURS[:shown]
    return [*named, *[OTHERS_COLOUR] * (shown + 1 - len(named))]


def _percent(share: float) -> str:
    """Rounded down: 100 % only if it is all."""
    return f"{floor(1000 * share) / 10:g} %"
