# SPDX-License-Identifier: GPL-2.0-only
"""Draws what tracers cost against the rate of I/Os."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analyze.plot.output import render
from analyze.plot.theme import FAINT_INK, OP_COLOURS, theme

_TRACERS = {
    "iorec": ("iorec", "o"),
    "iorec-both": ("iorec, requests and bios", "v"),
    "perf": ("perf record", "s"),
    "bpftrace": ("bpftrace", "^"),
    "bcc": ("BCC, as biosnoop", "D"),
}
_IOPS_TICKS = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000)


def draw_overhead(results: dict[str, Any], path: Path) -> None:
    """A line for each tracer that is available, a point for each load with its quartiles."""
    with theme():
        figure = Figure(figsize=(7.5, 4.2), layout="constrained", dpi=120)
        axes = figure.subplots()
        for (name, (shown, marker)), colour in zip(_TRACERS.items(), OP_COLOURS, strict=True):
            part = results[f"overhead-{name}"]
            if "not_available" in part:
                continue
            loads = part["loads"].values()
            iops, low, median, high = zip(*sorted(map(_point, loads)), strict=True)
            axes.plot(iops, median, color=colour, marker=marker, label=shown)
            axes.vlines(iops, low, high, color=colour, linewidth=0.8)
        axes.set_xscale("log")
        axes.set_title("CPU that tracing every I/O costs")
        axes.set_xlabel("IOPS while traced")
        axes.set_ylabel("% of one CPU, kernel and process")
        axes.axhline(0, color=FAINT_INK, linewidth=0.7)
        axes.set_xticks(_IOPS_TICKS, [f"{iops // 1000} k" for iops in _IOPS_TICKS])
        axes.legend(frameon=False)
        path.write_bytes(render(figure, ".png"))


def _point(load: dict[str, Any]) -> tuple[float, ...]:
    """IOPS, and the quartiles of what they cost."""
    iops, process_ns = load["iops_with"]["median"], load["process_ns"]["median"]
    more_ns = (load["kernel_ns"][quartile] + process_ns for quartile in ("low", "median", "high"))
    return iops, *(ns * iops / 1e9 * 100 for ns in more_ns)
