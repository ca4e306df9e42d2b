# SPDX-License-Identifier: GPL-2.0-only
"""How far a command is, on a terminal: shown after a second, gone at the end."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.builders import mixed_table, table, write_capture, write_spool

# A query that takes long, and a command without patience.
SLOW_QUERY = """
import analyze.report
real = analyze.report.summarize
def summarize(capture, *args, **options):
    query = "SELECT sum(sqrt(a.i) * sin(a.i)) FROM range(300000000) a(i)"
    capture.sql(query).fetchall()
    return real(capture, *args, **options)
analyze.report.summarize = summarize
"""
IMPATIENT = """
import iorec.waiting
iorec.waiting._PATIENCE_S = 0
"""
PATIENT = IMPATIENT.replace("= 0", "= 1000")
RUN = "import sys; from iorec.cli import run; sys.exit(run(sys.argv[1:]))"


def on_terminal(code: str, *arguments: str | Path) -> tuple[str, str]:
    """What a command prints on stdout, and what on the terminal that is its stderr."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", code + RUN, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        assert process.stdout
        printed = process.stdout.read()
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)
    assert process.returncode == 0, shown
    return printed, shown.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # nobody writes any more
        return b""


def left_on(screen: str) -> str:
    """What can be read when everything was printed, by a terminal's rules for carriage returns."""
    line = ""
    for part in re.split("[\r\n]+", screen):
        line = part + line[len(part) :]
    return line.rstrip()


@pytest.mark.parametrize("command", ["report", "plot"])
def test_a_long_query_shows_how_far_it_is_and_leaves_nothing(tmp_path: Path, command: str) -> None:
    code = IMPATIENT + SLOW_QUERY * (command == "report")
    path = write_capture(tmp_path / "run.parquet", mixed_table(10_007))
    shown = on_terminal(code, command, path)[1]
    assert re.search(r"\rreading: (\d+%, )?\d+ s", shown)
    if command == "report":
        assert re.search(r"\rreading: [1-9]\d?%, \d s", shown)
        assert left_on(shown) == ""


def test_a_recovery_shows_how_much_of_the_spool_it_has_written(tmp_path: Path) -> None:
    batches = table(300_000).to_batches(max_chunksize=50_000)
    part = write_spool(tmp_path / "run.parquet.part", batches)
    shown = on_terminal(IMPATIENT, "recover", part)[1]
    assert re.search(r"\r1\d\d,\d{3} I/Os written: [1-9]\d%, \d s", shown)
    assert "I/Os written" not in left_on(shown.partition("6 I/Os, ")[0])


def test_nothing_is_shown_where_there_is_no_terminal_or_nobody_waits(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", mixed_table(1009))
    assert on_terminal(PATIENT, "report", path)[1] == ""
    command = [sys.executable, "-c", IMPATIENT + RUN, "report", str(path)]
    assert subprocess.run(command, capture_output=True).stderr == b""
