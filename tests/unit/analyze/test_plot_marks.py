# SPDX-License-Identifier: GPL-2.0-only
"""Marks: which forms they take, which lie within the window, and that each is drawn."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

from analyze.capture import Capture, open_captures
from analyze.errors import IorecError
from analyze.plot.figure import draw
from analyze.plot.kinds import Kind
from analyze.plot.marks import Mark, load_marks
from tests.builders import SECOND_NS, START_NS, mixed_table, write_capture

STARTED = "s long, from 2026-11-21 20:32:47 UTC on"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "run.parquet", mixed_table(503))


@pytest.fixture
def capture(path: Path) -> Iterator[Capture]:
    with open_captures([path]) as capture:
        yield capture


@pytest.mark.parametrize(
    ("written", "seconds", "text"),
    [
        ("2.5=checkpoint", 2.5, "checkpoint"),
        ("2s=a=b", 2, "a=b"),
        ("20:32:49.25=deployed", 2.25, "deployed"),
        ("2026-11-21T20:32:50Z host unit[7]: it = 5", 3, "host unit[7]: it = 5"),
        ("2026-11-21T22:32:50+0200 host", 3, "host"),
        ("2026-11-21 20:32:50.5 checkpoint complete", 3.5, "checkpoint complete"),
        ("2026-11-21 20:32:50.5 UTC [12] LOG:  checkpoint", 3.5, "checkpoint"),
        ("2026-11-21 21:32:50.5 +01 [12-1] ERROR:  disk full", 3.5, "ERROR:  disk full"),
        ("2026-11-22 02:02:50.5 +05:30 [12] LOG:  checkpoint", 3.5, "checkpoint"),
    ],
)
def test_a_mark_is_a_time_and_a_text(
    capture: Capture, tmp_path: Path, written: str, seconds: float, text: str
) -> None:
    expected = (Mark(START_NS + round(seconds * SECOND_NS), text),)
    assert load_marks(capture, [written], None) == expected
    log = tmp_path / "log"
    log.write_text(f"# of db1\n\n-- Boot 7 --\n{written}\n2030-01-01T00:00:00Z later\n")
    assert load_marks(capture, [], log) == expected


def test_a_zone_that_is_only_a_name_is_refused(capture: Capture) -> None:
    with pytest.raises(IorecError, match="the time zone CET is not known"):
        load_marks(capture, ["2026-11-21 21:32:50.5 CET [12] LOG:  checkpoint"])


def test_lines_that_go_on_belong_to_the_one_before(capture: Capture, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("20:32:49 STATEMENT:  SELECT\n\tFROM io\n  20 rows\n\n20:32:50 done\n")
    assert [mark.text for mark in load_marks(capture, (), log)] == ["STATEMENT:  SELECT", "done"]


def test_marks_are_in_the_order_of_time_and_within_the_window(path: Path) -> None:
    with open_captures([path], begin=1, end=3) as capture:
        marks = load_marks(capture, ["2.5=second", "1.5=first", "0.5=before", "9=after"], None)
    assert [mark.text for mark in marks] == ["first", "second"]


@pytest.mark.parametrize(
    ("written", "message", "hint"),
    [
        ("2.5s", "'2.5s' is not a mark", "write TIME=TEXT"),
        ("2.5s=", "'2.5s=' is not a mark", "write TIME=TEXT"),
        ("soon=x", "'soon' is not a time", "15:16:10"),
        ("11s=late", "the mark 'late' lies outside of the capture", STARTED),
    ],
)
def test_a_mark_that_makes_no_sense_is_a_usage_error(
    capture: Capture, written: str, message: str, hint: str
) -> None:
    with pytest.raises(IorecError, match=message) as refusal:
        load_marks(capture, [written], None)
    assert hint in refusal.value.hint
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1=x\n\nyesterday it broke\n", "line 3: 'yesterday' is not a time"),
        ("11=x\n12=y\n", "all lines of .* lie outside of the capture"),
        ("", "all lines of .* lie outside of the capture"),
        ("".join(f"{n / 10}=x\n" for n in range(41)), "41 marks are more than the 40"),
        (None, "cannot read .*: No such file"),
    ],
)
def test_a_file_of_marks_that_makes_no_sense_is_an_error(
    capture: Capture, tmp_path: Path, content: str | None, message: str
) -> None:
    log = tmp_path / "log"
    if content is not None:
        log.write_text(content)
    with pytest.raises(IorecError, match=message):
        load_marks(capture, [], log)


@pytest.mark.parametrize("kind", sorted({*Kind} - {Kind.HISTOGRAM, Kind.CDF, Kind.TIMELINE}))
def test_every_chart_over_time_has_the_line_of_a_mark(capture: Capture, kind: Kind) -> None:
    marks = load_marks(capture, ["2.5=check\x1bpoint", "2.51=x", "9.9=last"], None)
    figure = draw(capture, kind, marks=marks)
    over_time = [axes for axes in figure.axes if axes.get_xlim()[1] == pytest.approx(10, abs=0.1)]
    assert over_time
    for axes in over_time:
        drawn = [np.asarray(line.get_xdata()).tolist() for line in axes.lines]
        for at_s in (2.5, 2.51, 9.9):
            assert [at_s, at_s] in drawn
    said = [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]
    assert "check\\x1bpoint and 1 more" in said
    assert "last" in said
