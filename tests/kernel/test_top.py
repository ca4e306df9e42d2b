# SPDX-License-Identifier: GPL-2.0-only
"""`iorec top`: its figures against diskstats, its ends, and its screen on a real terminal."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from iorec.host.diskstats import read_diskstats
from tests.kernel.captures import assert_accounts_close, read_capture
from tests.kernel.conftest import IOREC, LoopDevice, run
from tests.kernel.load import running_load
from tests.kernel.viewers import read, start_viewer, stop

_HEAD = re.compile(r"^(\S+Z), (\S+ m?s): ([\d,]+) I/Os?(, .*)?$", re.MULTILINE)


def top(*options: str, **others: Any) -> subprocess.Popen[str]:
    """Starts it for tables; returns when it records."""
    return start_viewer("top", "--batch", *options, **others)


@dataclass(frozen=True)
class Table:
    """One of its tables: when its interval ended, its length, I/Os, what is missing, the lines."""

    end_s: float
    length_s: float
    ios: int
    missing: str
    lines: list[list[str]]


def tables(text: str) -> list[Table]:
    """Each table of the output."""
    found = []
    for block in text.split("\n\n"):
        if match := _HEAD.match(block.lstrip("\n")):
            value, unit = match[2].split()
            found.append(
                Table(
                    datetime.fromisoformat(match[1]).timestamp(),
                    float(value) / {"s": 1, "ms": 1000}[unit],
                    int(match[3].replace(",", "")),
                    match[4] or "",
                    [re.split(" {2,}", line.strip()) for line in block.strip().split("\n")[1:]],
                )
            )
    return found


def ios_of(loop: LoopDevice) -> int:
    return sum(stats.ios for stats in read_diskstats()[loop.name].groups.values())


class Sampler(threading.Thread):
    """Notes the I/Os that diskstats counts of a device, many times a second."""

    def __init__(self, loop: LoopDevice) -> None:
        super().__init__(daemon=True)
        self._loop = loop
        self._samples: list[tuple[float, int]] = []
        self._is_over = threading.Event()

    def __enter__(self) -> "Sampler":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self.join()

    def run(self) -> None:
        while not self._is_over.wait(0.02):
            self._samples.append((time.time(), ios_of(self._loop)))

    def ios(self, begin_s: float, end_s: float) -> float:
        times, counts = np.array(self._samples).T
        begin, end = np.interp([begin_s, end_s], times, counts)
        return float(end - begin)


def test_each_table_has_the_ios_that_diskstats_counted_in_its_seconds(loop: LoopDevice) -> None:
    options = ["--rw=randread", "--rate_iops=3000"]
    with Sampler(loop) as sampler, running_load(loop, *options):
        process = top("-n", "5", "-i", "1", "--by", "device", "-d", loop.name)
        text, said = process.communicate(timeout=120)
        time.sleep(0.5)
    assert process.returncode == 0, said
    assert "\x1b" not in text
    found = tables(text)
    assert len(found) == 5
    for before, table in pairwise(found):
        assert table.length_s == 1
        assert table.end_s - before.end_s == pytest.approx(1, abs=0.002)
        counted = sampler.ios(table.end_s - 1, table.end_s)
        # Missed ones are said; between two looks at diskstats a busy machine lets much happen.
        missed = sum(int(n.replace(",", "")) for n in re.findall(r"([\d,]+) I/Os?", table.missing))
        assert counted - missed - table.ios == pytest.approx(0, abs=counted * 0.1 + 50)
        head, line, total = table.lines
        assert [name.lstrip("≥") for name in head] == [
            *("DEVICE", "IOPS", "RATE", "P50", "P99", "MAX", "IN FLIGHT", "BUSY", "ERRORS")
        ]
        assert (line[0], total[0]) == (loop.name, "total")
        assert int(line[1].replace(",", "")) == table.ios
        assert 0 < float(line[6]) < 40
        assert 0 < float(line[7].rstrip("%")) <= 100
        assert line[8] == "0"


def test_all_tables_together_have_every_io_once(loop: LoopDevice) -> None:
    process = top("-i", "200ms", "-d", loop.name)
    before = ios_of(loop)
    for _ in range(3):
        read(loop, 301)
        time.sleep(0.4)
    counted = ios_of(loop) - before
    text, said = stop(process)
    assert process.returncode == 0
    found = tables(text)
    assert len(found) > 5
    missed = sum(int(n.replace(",", "")) for n in re.findall(r"; (\d[\d,]*) lost", said))
    assert 0 <= counted - sum(table.ios for table in found) <= missed
    names = {line[1] for table in found for line in table.lines if line[0].isdecimal()}
    assert names == {"dd"}


def test_after_its_tables_it_ends_at_once_also_without_any_io(loop: LoopDevice) -> None:
    process = top("-n", "2", "-i", "100ms", "-d", loop.name)
    assert process.stdout is not None
    text = process.stdout.read()  # until the viewer has ended
    begun = time.monotonic()
    assert process.wait(60) == 0
    assert time.monotonic() - begun < 7  # an idle recorder would write something only after 10 s
    assert [table.ios for table in tables(text)] == [0, 0]
    process.communicate()


def test_it_ends_with_its_reader(loop: LoopDevice) -> None:
    process = top("-i", "100ms", "-d", loop.name)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(60) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_both_processes(loop: LoopDevice, number: int) -> None:
    process = top("-d", loop.name)
    read(loop, 50)
    time.sleep(1)
    text, said = stop(process, number)  # the pipe ends when the viewer has ended, too
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert sum(table.ios for table in tables(text)) <= 50
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "error: top needs a terminal\nhint: print tables: iorec top --batch\n"),
        (["--batch", "--by", "proces"], "error: cannot group by 'proces'"),
        (["--batch", "--sort", "speed"], "error: cannot sort by 'speed'"),
        (["--batch", "-i", "1ms"], "error: -i is too short"),
        (["-n", "5"], "error: -n is for tables, and a screen is none"),
        (["--batch", "-d", "nosuch"], "error: no block device nosuch"),
    ],
)
def test_a_wrong_option_is_an_error(options: list[str], said: str) -> None:
    done = subprocess.run([IOREC, "top", *options], capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.startswith(said), done.stderr


class Terminal:
    """A terminal of tmux, in which a shell runs."""

    def __init__(self, width: int, height: int, folder: Path) -> None:
        self._command = ["tmux", "-L", f"iorec-test-{os.getpid()}", "-f", "/dev/null"]
        shell = ["env", f"HOME={folder}", "PS1=ready> ", "bash", "--norc", "--noprofile"]
        self("new-session", "-d", "-x", str(width), "-y", str(height), shlex.join(shell))

    def __call__(self, *words: str) -> str:
        return run(*self._command, *words, capture_output=True).stdout

    @property
    def screen(self) -> str:
        return self("capture-pane", "-p")

    def type(self, *keys: str) -> None:
        self("send-keys", *keys)

    def wait_for(self, text: str) -> str:
        deadline = time.monotonic() + 60
        while not re.search(text, self.screen):
            assert time.monotonic() < deadline, (text, self.screen)
            time.sleep(0.2)
        return self.screen

    def assert_plain(self) -> None:
        """The shell has its terminal back: no alternate screen, a cursor, lines with an echo."""
        deadline = time.monotonic() + 60
        while self("display-message", "-p", "#{alternate_on}").strip() != "0":
            assert time.monotonic() < deadline, self.screen
            time.sleep(0.2)
        self.type("Enter")  # where the viewer was left alone, it ended after the shell went on
        self.wait_for(r"ready> *\n*\Z")
        assert self("display-message", "-p", "#{alternate_on} #{cursor_flag}").split() == ["0", "1"]
        self.type("clear; stty -a", "Enter")
        modes = self.wait_for("icanon").split()
        assert {"icanon", "echo", "isig", "icrnl"} <= {*modes}

    def end(self) -> None:
        self("kill-server")


@pytest.fixture(params=[(80, 24), (200, 50)])
def terminal(request: pytest.FixtureRequest, ram_folder: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    width, height = request.param
    made = Terminal(width, height, ram_folder)
    try:
        yield made
    finally:
        made.end()


def processes_of(loop: LoopDevice) -> tuple[int, int]:
    """The recorder of a device, and its viewer."""
    found = run("pgrep", "-f", f"iorec top -d {loop.name}", capture_output=True).stdout.split()
    recorder = int(found[0])
    viewer = run("pgrep", "-f", "-P", str(recorder), "iorec.live.screen", capture_output=True)
    return recorder, int(viewer.stdout)


def test_the_screen_on_a_terminal(loop: LoopDevice, terminal: Terminal) -> None:
    terminal.type(f"{IOREC} top -d {loop.name}", "Enter")
    with running_load(loop, "--rw=randread", "--rate_iops=2000"):
        shown = terminal.wait_for(r"fio +[12],\d{3}")
        assert "[processes]" in shown
        assert "? help" in shown
        assert re.search(r"µs │.*[░▒▓█]", shown)
        terminal.type("2")
        terminal.wait_for(rf"\[devices\][\s\S]*{loop.name} +[12],\d{{3}}")
        terminal.type("Down", "Enter")
        terminal.wait_for(rf"in device {loop.name}")
        terminal.type("?")
        terminal.wait_for("look into the line")
        terminal.type("q")
        terminal.wait_for(rf"in device {loop.name}")
    terminal.type("q")
    terminal.wait_for("I/Os, .* in .* lost")
    terminal.assert_plain()


@pytest.mark.parametrize("terminal", [(80, 24)], indirect=True)
@pytest.mark.parametrize("number", [0, signal.SIGTERM])
def test_r_writes_captures_that_agree_with_diskstats(
    loop: LoopDevice, terminal: Terminal, ram_folder: Path, number: int
) -> None:
    terminal.type(f"cd {ram_folder}; {IOREC} top -d {loop.name}", "Enter")
    terminal.wait_for(r"\[processes\]")
    with running_load(loop, "--rw=randread", "--rate_iops=2000"):
        terminal.type("r")
        terminal.wait_for(r"recording to iorec-\S+\.parquet: r ends it")
        time.sleep(2)
        terminal.type("r")
        terminal.wait_for(r"recorded iorec-\S+\.parquet: r records again")
        terminal.type("r")
        terminal.wait_for(r"recording to iorec-\S+\.parquet: r ends it")
        time.sleep(1.5)
        if number:
            os.kill(processes_of(loop)[0], number)
        else:
            terminal.type("q")
        terminal.wait_for("I/Os, .* in .* lost")
    terminal.assert_plain()
    captures = [read_capture(path) for path in sorted(ram_folder.glob("iorec-*.parquet"))]
    assert len(captures) == 2
    for capture in captures:
        assert_accounts_close(capture, loop.name)
        assert len(capture.rows(device=loop.name)) > 1000
    assert list(ram_folder.glob("*.part")) == []
    ends = [[row["time"].value + row["latency_ns"] for row in capture.rows() if row["latency_ns"]]
            for capture in captures]  # fmt: skip
    assert max(ends[0]) < min(ends[1])


def test_with_an_output_all_of_it_is_recorded(loop: LoopDevice, ram_folder: Path) -> None:
    output = ram_folder / "run.parquet"
    process = top("-d", loop.name, "-o", str(output))
    read(loop, 500)
    time.sleep(1)
    text, said = stop(process)
    assert process.returncode == 0, said
    capture = read_capture(output)
    assert_accounts_close(capture, loop.name)
    finished = [row for row in capture.rows() if row["latency_ns"] is not None]
    assert sum(table.ios for table in tables(text)) == len(finished) > 450


@pytest.mark.parametrize("terminal", [(80, 24)], indirect=True)
def test_nothing_but_the_screen_is_on_the_screen(
    loop: LoopDevice, make_loop: Callable[..., LoopDevice], terminal: Terminal
) -> None:
    """A filter that lets nothing through is warned of, but not there."""
    with running_load(make_loop(), "--rw=randread", "--rate_iops=100"):
        terminal.type(f"{IOREC} top -d {loop.name}", "Enter")
        terminal.wait_for(r"\[processes\]")
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            assert "warning" not in terminal.screen
            time.sleep(0.2)
        terminal.type("q")
        terminal.wait_for("warning: nothing matched")


@pytest.mark.parametrize("terminal", [(80, 24)], indirect=True)
@pytest.mark.parametrize("whose", ["recorder", "viewer"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_terminal_is_left_in_order(
    loop: LoopDevice, terminal: Terminal, whose: str, number: int
) -> None:
    terminal.type(f"{IOREC} top -d {loop.name}", "Enter")
    terminal.wait_for(r"\[processes\]")
    recorder, viewer = processes_of(loop)
    if (whose, number) == ("viewer", signal.SIGTERM):
        terminal.type("C-c")  # a viewer takes no signal to stop
    else:
        os.kill(recorder if whose == "recorder" else viewer, number)
    terminal.assert_plain()


@pytest.mark.parametrize("terminal", [(80, 24)], indirect=True)
@pytest.mark.parametrize("environment", ["", "NO_COLOR=1 "])
def test_no_colour_is_sent(loop: LoopDevice, terminal: Terminal, environment: str) -> None:
    terminal.type(f"{environment}{IOREC} top -d {loop.name}", "Enter")
    terminal.wait_for(r"\[processes\]")
    coded = terminal("capture-pane", "-p", "-e")
    assert not re.search(r"\x1b\[[\d;]*(?:[34][0-7]|9[0-7]|10[0-7]|[34]8;)", coded), coded
    terminal.type("q")
    terminal.assert_plain()
