"""Draws what tracers cost against the rate of I/Os."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from analyze.plot.output import render
from analyze.plot.theme import FAINT_INK, OP_COLOURS, theme

_TRACERS = {
    "iorec": ("iorec", "o"),
    "perf": ("perf record", "s"),
    "bpftrace": ("bpftrace", "^"),
    "bcc": ("BCC, as biosnoop", "D"),
}


def draw_overhead(results: dict[str, Any], path: Path) -> None:
    """One line for each tracer that is available, one point for each load."""
    with theme():
        figure = Figure(figsize=(7.5, 4.2), layout="constrained", dpi=120)
        axes = figure.subplots()
        for (name, (shown, marker)), colour in zip(_TRACERS.items(), OP_COLOURS[:4], strict=True):
            loads = results[f"overhead-{name}"].get("loads", {}).values()
            points = sorted(_point(load) for load in loads)
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, label=shown)
        axes.set_xscale("log")
        axes.set_title("CPU that tracing every I/O costs")
        axes.set_xlabel("IOPS while traced")
        axes.set_ylabel("% of one CPU, kernel and process")
        axes.axhline(0, color=FAINT_INK, linewidth=0.7)
        axes.xaxis.set_major_formatter(lambda iops, _: f"{iops / 1000:g} k")
        axes.legend(frameon=False)
        path.write_bytes(render(figure, ".png"))


def _point(load: dict[str, Any]) -> tuple[float, float]:
    iops = load["iops_with"]["median"]
    more_ns = load["kernel_ns"]["median"] + load["process_ns"]["median"]
    return iops, more_ns * iops / 1e9 * 100
