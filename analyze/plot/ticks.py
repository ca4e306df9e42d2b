# SPDX-License-Identifier: GPL-2.0-only
"""Axis ticks in the units that people think in."""

from datetime import UTC, datetime, timedelta
from math import ceil, floor, log10

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FixedLocator, FuncFormatter, LogLocator, NullFormatter

from analyze.plot.timeline import Timeline
from analyze.units import (
    SECOND_UNITS,
    fit_unit,
    format_short_count,
    format_short_duration,
    format_whole_seconds,
)

_TICK_INCHES = 0.72
_FEWEST_STEPS = 2.5  # so that there are two ticks
_FRACTION_TICK_INCHES = 1.2  # the clock is a longer label where steps are small
_FRACTION_STEP_S = 10
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TIME_STEPS_S: tuple[float, ...] = (
    *(digit * 10.0**power for power in range(-9, 1) for digit in (1, 2, 5)),
    *(10, 15, 30),
    *(minutes * _MINUTE for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * _HOUR for hours in (1, 2, 3, 6, 12)),
    *(digit * 10.0**power * _DAY for power in range(6) for digit in (1, 2, 5)),
)
_SHORT_AXIS = 3000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def set_time_ticks(axes: Axes, timeline: Timeline) -> None:
    """Time since the capture began, which `-b` and `-e` take, over the clock."""
    first_s, last_s = (float(edge) for edge in timeline.edges_s[[0, -1]])
    step_s = _time_step(last_s - first_s, width_inches(axes))
    at_s = [n * step_s for n in range(ceil(first_s / step_s), floor(last_s / step_s) + 1)]
    labels = [
        f"{_elapsed(at, step_s, last_s)}\n{_clock(timeline.origin_ns, at, step_s)}" for at in at_s
    ]
    axes.set_xlim(first_s, last_s)
    axes.set_xlabel("time since the start, and UTC")
    axes.xaxis.set_major_locator(FixedLocator(at_s))
    axes.xaxis.set_major_formatter(FixedFormatter(labels))


def set_latency_ticks(axis: Axis, low_ns: float, high_ns: float) -> None:
    """Powers of ten, and steps between them where the axis is short."""
    is_short = high_ns / low_ns < _SHORT_AXIS
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if is_short else (1,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_short_duration(value)))
    axis.set_minor_formatter(NullFormatter())


def set_count_ticks(axis: Axis) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_short_count(value)))


def width_inches(axes: Axes) -> float:
    """Of the axes before the layout, which widens them by a third."""
    figure = axes.get_figure(root=True)
    return 1.0 if figure is None else float(axes.get_position().width * figure.get_figwidth())


def _time_step(span_s: float, width_inches: float) -> float:
    for step_s in _TIME_STEPS_S:
        tick_inches = _TICK_INCHES if step_s >= _FRACTION_STEP_S else _FRACTION_TICK_INCHES
        if span_s / step_s <= max(width_inches / tick_inches, _FEWEST_STEPS):
            return step_s
    return _TIME_STEPS_S[-1]


def _elapsed(at_s: float, step_s: float, last_s: float) -> str:
    if step_s >= 1:
        return format_whole_seconds(round(at_s))
    name, unit_ns = fit_unit(last_s * 1e9, SECOND_UNITS)
    digits = max(0, ceil(-log10(step_s * 1e9 / unit_ns) - 1e-9))
    return f"{at_s * 1e9 / unit_ns:.{digits}f} {name}"


def _clock(origin_ns: int, at_s: float, step_s: float) -> str:
    """The time of day, as exact as the axis."""
    moment = _EPOCH + timedelta(microseconds=origin_ns // 1000 + round(at_s * 1e6))
    if step_s >= _DAY:
        return f"{moment:%Y-%m-%d}"
    if step_s >= _HOUR:
        return f"{moment:%H:%M}"
    if step_s >= _FRACTION_STEP_S:
        return f"{moment:%H:%M:%S}"
    return f"{moment:%H:%M:%S.%f}"[: -3 if step_s >= 1e-3 else None]
