# SPDX-License-Identifier: GPL-2.0-only
"""The figures: every kind draws, says what it cannot draw, and is safe to open."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text

from analyze.capture import open_captures
from analyze.errors import IorecError
from analyze.plot.figure import draw
from analyze.plot.kinds import By, Kind
from analyze.plot.output import render
from analyze.plot.theme import HUNG_STYLE
from iorec.commands.plot import plot
from tests.builders import START_NS, mixed_table, rfc3339, table, write_capture

HUNG_COLOUR = to_rgba(HUNG_STYLE["edgecolor"])
HOSTILE_NAMES = (
    "<script>alert(1)</script>",
    "$\\frac{a}$",
    "\u202egnp.exe",
    "\x1b[31m",
    "a\nb",
    "中",
)


def draw_rows(folder: Path, rows: pa.Table, kind: Kind = Kind.OVERVIEW, **overrides: Any) -> Figure:
    with open_captures([write_capture(folder / "run.parquet", rows, **overrides)]) as capture:
        return draw(capture, kind)


def rectangles(axes: Axes) -> list[Rectangle]:
    return [patch for patch in axes.patches if isinstance(patch, Rectangle)]


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_draws_in_every_format(tmp_path: Path, kind: Kind) -> None:
    figure = draw_rows(tmp_path, mixed_table(503), kind)
    assert render(figure, ".png").startswith(b"\x89PNG")
    svg = render(figure, ".svg")
    assert b"<svg" in svg
    assert b">2026-11-21 20:32:47 UTC" in svg  # text, not outlines
    assert render(figure, ".pdf").startswith(b"%PDF")


@pytest.mark.parametrize("by", list(By))
def test_python_draws_what_the_command_draws(tmp_path: Path, by: By) -> None:
    path = write_capture(tmp_path / "run.parquet", mixed_table(503))
    plot([path], by=by, mark=["2s=deployed"])
    with open_captures([path]) as capture:
        figure = capture.plot(by=by.value, marks=["2s=deployed"])
    assert isinstance(figure, Figure)
    assert figure._repr_png_() == path.with_suffix(".png").read_bytes()


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"kind": "heatmp"}, "cannot draw 'heatmp'", "did you mean heatmap? choose from: overview"),
        ({"by": "colour"}, "cannot draw by 'colour'", "choose from: process, device, file, cgroup"),
        ({"kind": "cdf", "marks": ["0.1s=x"]}, "a cdf has no time for a mark", "choose a kind"),
    ],
)
def test_a_plot_that_there_is_not_is_refused(
    tmp_path: Path, options: dict[str, Any], message: str, hint: str
) -> None:
    path = write_capture(tmp_path / "run.parquet", table(3))
    with pytest.raises(IorecError) as caught, open_captures([path]) as capture:
        capture.plot(**options)
    assert caught.value.message == message
    assert caught.value.hint.startswith(hint)


def test_the_overview_says_host_devices_time_and_completeness(tmp_path: Path) -> None:
    said = words(draw_rows(tmp_path, mixed_table(503)))
    for word in ("db1", "nvme0n1, sda", "2026-11-21 20:32:47 UTC", "6.18.44", "503 I/Os", "0 lost"):
        assert word in said


def test_the_caption_says_what_was_left_out(tmp_path: Path) -> None:
    filters = {"device": ["loop0"], "op": ["read", "write"], "min_latency_ns": 10_000}
    path = write_capture(tmp_path / "run.parquet", mixed_table(503), filters=filters)
    with open_captures([path], begin=1.5, end=4, where="bytes > 0\nAND pid > 0") as capture:
        said = words(draw(capture, Kind.IOPS))
    assert "from 1.5 s up to 4 s" in said
    assert "where bytes > 0\\x0aAND pid > 0" in said
    assert "recorded: device loop0 and op read, write and latency from 10.0 µs" in said
    with open_captures([path], end=4) as capture:
        said = words(draw(capture, Kind.IOPS))
    assert "\nup to 4 s  ·" in said
    assert "where" not in said


def test_the_caption_says_the_layer(tmp_path: Path) -> None:
    rows = table(100, layer=["request", "bio"] * 50)
    path = write_capture(tmp_path / "run.parquet", rows)
    for layer, said in ((None, "layer request, bio"), ("bio", "layer bio")):
        with open_captures([path], layer=layer) as capture:
            assert f"  ·  {said}  ·  Linux" in words(draw(capture, Kind.IOPS))
    assert "from" not in words(draw_rows(tmp_path, rows, Kind.IOPS))


@pytest.mark.parametrize("kind", list(Kind))
def test_an_empty_capture_says_that_it_holds_nothing(tmp_path: Path, kind: Kind) -> None:
    figure = draw_rows(tmp_path, table(0), kind)
    assert "No I/Os in this capture" in words(figure)
    assert render(figure, ".png")


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("count", [1, 60])
def test_ios_of_an_unknown_device_are_drawn(tmp_path: Path, kind: Kind, count: int) -> None:
    said = words(draw_rows(tmp_path, table(count, device=None), kind))
    if kind in (Kind.OVERVIEW, Kind.OFFSET):
        assert "unknown" in said


def test_a_capture_of_one_io_describes_it(tmp_path: Path) -> None:
    said = words(draw_rows(tmp_path, table(1, offset=8192)))
    assert "Only one I/O: read of 4.0 KiB on loop0 at 8.0 KiB" in said
    assert "fio (1000)" in said
    assert "took 100 µs" in said


@pytest.mark.parametrize("kind", list(Kind))
def test_ios_that_never_completed_are_drawn_too(tmp_path: Path, kind: Kind) -> None:
    rows = table(10, op="flush", offset=[None] * 10, latency_ns=[None] * 10, bytes=0)
    assert render(draw_rows(tmp_path, rows, kind), ".png")


def test_lost_spans_have_an_entry_in_the_legend(tmp_path: Path) -> None:
    gap = {"start": rfc3339(START_NS + 10**8), "stop": rfc3339(START_NS + 2 * 10**8), "lost": 9}
    rows = table(100)
    assert "I/Os were lost" in words(draw_rows(tmp_path, rows, counts={"gaps": [gap]}))
    assert "I/Os were lost" not in words(draw_rows(tmp_path, rows))


def test_the_same_capture_gives_the_same_file(tmp_path: Path) -> None:
    rows = mixed_table(503)
    first, second = (render(draw_rows(tmp_path, rows, Kind.CDF), ".svg") for _ in range(2))
    assert first == second


def test_hostile_names_do_no_harm_in_svg(tmp_path: Path) -> None:
    rows = table(60, comm=list(HOSTILE_NAMES) * 10, device=list(HOSTILE_NAMES) * 10)
    figure = draw_rows(tmp_path, rows, hostname=HOSTILE_NAMES[0])
    svg = render(figure, ".svg").decode()
    tags = {element.tag.rsplit("}")[-1] for element in ElementTree.fromstring(svg).iter()}
    assert "script" not in tags
    assert not {"\u202e", "\x1b"} & set(svg)
    said = words(figure)
    for name in ("$\\frac{a}$ (1000)", "\\u202egnp.exe", "\\x1b[31m", "a\\x0ab", "\\u4e2d"):
        assert name in said


def test_many_devices_are_named_or_counted(tmp_path: Path) -> None:
    rows = table(240, device=[f"sd{chr(97 + index % 14)}" for index in range(240)])
    overview = words(draw_rows(tmp_path, rows))
    assert "sda, sdb, sdc, sdd and 10 more" in overview
    assert "10 more devices not shown" in overview
    assert "2 more devices not shown" in words(draw_rows(tmp_path, rows, Kind.OFFSET))


CHARTS_OF_A_DEVICE = {
    Kind.OVERVIEW: "Latency",
    Kind.HEATMAP: "Latency",
    Kind.HISTOGRAM: "Histogram",
    Kind.CDF: "CDF",
    Kind.IOPS: "IOPS",
    Kind.THROUGHPUT: "Throughput",
    Kind.DEPTH: "I/Os in flight",
    Kind.OFFSET: "Offset",
}


@pytest.mark.parametrize("kind", CHARTS_OF_A_DEVICE)
def test_each_of_several_devices_has_its_own_charts(tmp_path: Path, kind: Kind) -> None:
    said = words(draw_rows(tmp_path, mixed_table(503), kind))
    for device in ("nvme0n1", "sda"):
        assert f"\n{CHARTS_OF_A_DEVICE[kind]} on {device}" in said


@pytest.mark.parametrize("kind", [Kind.OVERVIEW, Kind.PROCESSES])
@pytest.mark.parametrize("by", list(By))
def test_owners_are_named_beside_their_share_over_time(tmp_path: Path, kind: Kind, by: By) -> None:
    path = f"/{'long/' * 20}journal"
    rows = table(100, comm="postgres", device="sdx", cgroup="/db.slice", file=path)
    with open_captures([write_capture(tmp_path / "run.parquet", rows)]) as capture:
        said = words(draw(capture, kind, by))
    assert f"Time in I/O by {by}" in said
    assert f"I/Os in flight by {by}" in said
    name = {
        By.PROCESS: "postgres (1000)",
        By.DEVICE: "sdx",
        By.FILE: f"…{path[-22:]}",
        By.CGROUP: "/db.slice",
    }[by]
    assert name in said.splitlines()


@pytest.mark.parametrize("kind", [Kind.IOPS, Kind.PROCESSES])
def test_areas_have_no_outline_which_would_cover_those_below(tmp_path: Path, kind: Kind) -> None:
    figure = draw_rows(tmp_path, mixed_table(503), kind)
    areas = [steps for steps in figure.findobj(StepPatch) if isinstance(steps, StepPatch)]
    assert len(areas) > 3
    assert {steps.get_linewidth() for steps in areas if steps.get_fill()} == {0}


@pytest.mark.parametrize(("per_cell", "ticks"), [(1, None), (2, ["1", "2"]), (7, ["1", "7"])])
def test_the_scale_of_few_ios_per_cell_has_a_label_at_each_end(
    tmp_path: Path, per_cell: int, ticks: list[str] | None
) -> None:
    times = START_NS + np.repeat(np.arange(20), per_cell) * 50_000_000
    rows = table(20 * per_cell, time=times)
    figure = draw_rows(tmp_path, rows, Kind.HEATMAP)
    scales = [axes for axes in figure.axes[0].child_axes if axes.get_ylabel() == "I/Os per cell"]
    shown = [[label.get_text() for label in axes.get_xticklabels()] for axes in scales]
    assert shown == ([] if ticks is None else [ticks])


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("process_count", [1, 40])
def test_no_text_lies_upon_another(tmp_path: Path, kind: Kind, process_count: int) -> None:
    pids = np.arange(2000) % process_count
    ops = np.array(["read", "write", "flush", "cache_flush"])[np.arange(2000) % 4]
    figure = draw_rows(tmp_path, table(2000, op=ops, pid=pids, bytes=123_456_789), kind)
    figure.draw_without_rendering()
    of_axes = {text for axis in figure.findobj(Axis) for text in axis.findobj(Text)}
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_text() and text not in of_axes
    ]
    for place, (name, box) in enumerate(boxes):
        for other_name, other in boxes[:place]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert min(across, down) < 2, f"{name!r} and {other_name!r}"


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("op", ["flush", "cache_flush"])
def test_every_kind_draws_flushes_alone(tmp_path: Path, kind: Kind, op: str) -> None:
    said = words(draw_rows(tmp_path, table(40, op=op, offset=[None] * 40, bytes=0), kind))
    assert ("40 cache flushes" if op == "cache_flush" else "40 I/Os") in said


def test_failed_ios_are_counted_in_the_caption_and_marked(tmp_path: Path) -> None:
    rows = table(100, errno=[5] * 3 + [0] * 97)
    figure = draw_rows(tmp_path, rows)
    said = words(figure)
    assert "100 I/Os, 3 failed" in said
    assert "0 in flight, 3 failed;" in said
    assert "failed" in said.splitlines()
    marks = [line for line in figure.findobj(Line2D) if line.get_marker() == "X"]
    # One in the legend, the others in the heatmap and the chart of offsets.
    assert sum(np.size(line.get_xdata()) for line in marks) >= 2
    assert "failed" not in words(draw_rows(tmp_path, table(100)))


@pytest.mark.parametrize("kind", [Kind.HEATMAP, Kind.OFFSET])
def test_an_io_that_did_not_complete_is_a_bar_to_the_end(tmp_path: Path, kind: Kind) -> None:
    rows = table(1000, latency_ns=[1000, None] + [1000] * 998, offset=0, queue_ns=None)
    figure = draw_rows(tmp_path, rows, kind)
    [bar] = [bar for bar in rectangles(figure.axes[0]) if bar.get_edgecolor() == HUNG_COLOUR]
    assert not bar.get_fill()
    box = bar.get_bbox()
    assert (box.x0, box.x1) == pytest.approx((0.001, 1.0))
    assert box.y0 < (0 if kind is Kind.OFFSET else 999_000_000) < box.y1
    said = words(figure)
    assert "1,000 I/Os, 1 not completed  ·" in said
    assert "not completed" in said.splitlines()


def test_a_capture_of_failed_ios_alone_says_so(tmp_path: Path) -> None:
    assert "every I/O failed" in words(draw_rows(tmp_path, table(30, errno=5), Kind.CDF))


def test_one_io_that_failed_is_described(tmp_path: Path) -> None:
    assert "failed with EIO after 100 µs" in words(draw_rows(tmp_path, table(1, errno=5)))


def test_a_capture_without_an_account_is_drawn(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.csv", table(30))
    (tmp_path / "run.meta.json").unlink()
    with open_captures([path]) as capture:
        said = words(draw(capture))
    assert "no account: " in said
    assert "Linux" not in said
