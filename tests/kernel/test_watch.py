# SPDX-License-Identifier: GPL-2.0-only
"""`iorec watch`: its lines against the capture of the same run, and readers that do not read."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.captures import read_capture
from tests.kernel.conftest import IOREC, LoopDevice, run
from tests.kernel.load import running_load
from tests.kernel.viewers import read, start_viewer, stop

_LEFT_OUT = re.compile(r"^([\d,]+) I/Os left out", re.MULTILINE)


def watch(*options: str | Path, **others: Any) -> subprocess.Popen[str]:
    """Starts it; returns when it records."""
    return start_viewer("watch", *options, **others)


def test_each_form_has_the_rows_of_the_capture_of_the_same_run(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    for form in (["--json"], ["--csv"], []):
        process = watch("-d", loop.name, "-o", output, "-f", *form,
                        env={**os.environ, "COLUMNS": "200"})  # fmt: skip
        read(loop, 500)
        run("dd", "if=/dev/zero", f"of={loop.path}", "bs=8k", "count=20", "oflag=direct",
            "conv=fsync", stderr=subprocess.DEVNULL)  # fmt: skip
        text, said = stop(process)
        assert process.returncode == 0, said
        assert not _LEFT_OUT.search(said)
        rows = [row for row in read_capture(output).rows() if row["latency_ns"] is not None]
        assert len(rows) >= 500  # but for what the kernel hides
        rows.sort(key=lambda row: row["time"].value)
        if form == ["--json"]:
            shown = sorted(map(json.loads, text.splitlines()), key=lambda row: str(row["time"]))
            for name in (*rows[0],):
                values = [row[name] for row in rows]
                if name in ("time", "process_start"):
                    values = [value and f"{value.isoformat()[:-6]:0<29}Z" for value in values]
                assert [row[name] for row in shown] == values, name
        elif form == ["--csv"]:
            table = sorted(csv.DictReader(text.splitlines()), key=lambda row: row["time"])
            for name in ("offset", "bytes", "latency_ns", "pid", "process", "op"):
                values = ["" if row[name] is None else str(row[name]) for row in rows]
                assert [row[name] for row in table] == values, name
        else:
            head, *lines = text.splitlines()
            assert head.split() == ["TIME", "(UTC)", "PROCESS", "PID", "OP", "DEVICE", "OFFSET",
                                    "SIZE", "LATENCY", "QUEUED", "FILE"]  # fmt: skip
            found = sorted(line.split()[0] for line in lines)
            assert found == [f"{row['time'].isoformat()[11:26]}" for row in rows]


def test_a_reader_that_is_too_slow_misses_lines_and_is_told_how_many(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "run.parquet"
    with running_load(loop, "--rw=randread"):
        process = watch("--json", "-d", loop.name, "-o", output, "--duration", "4s")
        assert process.stdout is not None
        time.sleep(3)  # nobody reads: the pipe is full at once
        text, said = process.communicate(timeout=60)
    assert process.returncode == 0
    rows = read_capture(output).counts
    left_out = sum(int(count.replace(",", "")) for count in _LEFT_OUT.findall(said))
    assert left_out > 0
    shown = len(text.splitlines())
    # Those in flight at the stop have no line, and are in the last batch, which may be late.
    assert 0 <= rows["recorded"] + rows["in_flight_at_stop"] - shown - left_out <= 64
    assert rows["lost"]["ring_full"] == 0  # the recorder never waited


def test_a_reader_that_hangs_does_not_keep_the_recorder_from_ending(loop: LoopDevice) -> None:
    with running_load(loop, "--rw=randread"):
        process = watch("-d", loop.name)
        time.sleep(1.5)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert time.monotonic() - begun < 15
    process.communicate()


def test_it_ends_with_its_reader(loop: LoopDevice) -> None:
    with running_load(loop, "--rw=randread"):
        process = watch("-d", loop.name)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize("command", [["watch"], ["top", "--batch", "-i", "100ms"]])
def test_no_room_for_what_it_prints_is_an_error(loop: LoopDevice, command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = start_viewer(*command, "-d", loop.name, stdout=full)
        said = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "error: cannot write to stdout: No space left on device\nhint: free some space\n" in said
    assert "Traceback" not in said
    assert said.count("error:") == 1


def test_who_kills_what_shows_is_named(loop: LoopDevice) -> None:
    process = watch("-d", loop.name)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    [viewer] = [
        int(child)
        for child in children
        if b"iorec.live.lines" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    os.kill(viewer, signal.SIGKILL)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "error: the process that shows the I/Os was ended by SIGKILL" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_both_processes(loop: LoopDevice, number: int) -> None:
    process = watch("--json", "-d", loop.name)
    read(loop, 50)
    time.sleep(1)
    text, _ = stop(process, number)  # the pipe ends when the viewer has ended, too
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 0)
    assert 0 < len(text.splitlines()) <= 50
    assert all(json.loads(line)["device"] == loop.name for line in text.splitlines())


def test_on_a_terminal_there_are_the_columns_for_which_there_is_room(loop: LoopDevice) -> None:
    process = watch("-d", loop.name, env={**os.environ, "COLUMNS": "80"})
    read(loop, 20)
    time.sleep(0.5)
    text, _ = stop(process)
    head, *lines = text.splitlines()
    assert head.split() == ["TIME", "(UTC)", "PROCESS", "PID", "OP", "DEVICE", "SIZE", "LATENCY"]
    assert lines
    assert max(map(len, (head, *lines))) <= 80


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--json", "--csv"], "error: --json and --csv exclude each other"),
        (["-f"], "error: -f is for an output, and there is none"),
        (["-d", "nosuch"], "error: no block device nosuch"),
        (["--duration", "0s"], "error: invalid value for '--duration'"),
    ],
)
def test_a_wrong_option_is_an_error(options: list[str], said: str) -> None:
    done = subprocess.run([IOREC, "watch", *options], capture_output=True, text=True)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.startswith(said), (sys.argv, done.stderr)
