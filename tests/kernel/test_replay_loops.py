# SPDX-License-Identifier: GPL-2.0-only
"""The loops: open and closed, in C and in Python, by io_uring and by libaio, do the same."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.builders import START_NS, table, write_capture
from tests.kernel.captures import read_capture
from tests.kernel.conftest import LoopDevice, run_record
from tests.kernel.load import fio
from tests.kernel.replaying import (
    PATIENCE_S,
    SAMPLES,
    asked_of,
    assert_same,
    preflushes_of,
    replay,
    replay_command,
    witnessing,
)

NO_COMPILER = "import iorec.replay.native as n; n.find_compiler = lambda: None\n"
NO_URING = """
import iorec.replay.engine as e
def refuse():
    raise OSError(1, "Operation not permitted")
e.Ring = refuse
"""
RUN = "import sys, iorec.cli; sys.exit(iorec.cli.run(sys.argv[2:]))"


def replay_without(what: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """Replays on a machine that lacks something, as far as iorec can tell."""
    command = replay_command(*arguments)
    return subprocess.run(
        [sys.executable, "-c", what + RUN, *command],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def waiting_rows(count: int, latency_ms: float, think_ms: float, **columns: Any) -> Any:
    """A thread that waits for each I/O, and thinks before the next one."""
    rng = np.random.default_rng(3)
    latency = rng.uniform(0.5, 1.5, count) * latency_ms * 1e6
    think = rng.uniform(0.5, 1.5, count) * think_ms * 1e6
    start = START_NS + np.concatenate([[0], np.cumsum(latency + think)[:-1]])
    return table(
        count,
        **{
            "time": start.astype(np.int64),
            "latency_ns": latency.astype(np.int64),
            "offset": np.arange(count) % 500 * 4096,
            **columns,
        },
    )


def lasted_s(output: Path) -> float:
    times = [row["time"] for row in read_capture(output).rows()]
    return float((max(times) - min(times)).total_seconds())


@pytest.mark.parametrize("missing", ["", NO_COMPILER], ids=["C", "Python"])
@pytest.mark.parametrize(
    ("options", "expected_s"),
    [
        (["--loop", "open"], 1.8),
        (["--loop", "closed"], 0.3),
        ([], 0.3),
        (["--think-scale", "3"], 0.9),
        (["--speed", "0.5"], 0.6),
    ],
    ids=["open", "closed", "by thread", "thinking longer", "slower"],
)
def test_a_thread_that_waits_is_faster_on_a_faster_device(
    loop: LoopDevice, ram_folder: Path, missing: str, options: list[str], expected_s: float
) -> None:
    source = write_capture(ram_folder / "run.parquet", waiting_rows(300, 5, 1))
    output = ram_folder / "replayed.parquet"
    done = replay_without(missing, source, {"loop0": loop.path}, "-o", output, *options)
    assert done.returncode == 0, done.stderr
    assert ("no C compiler was found" in done.stderr) == bool(missing)
    made = read_capture(output).metadata["replay"]
    assert made["pacer"] == ("Python" if missing else "C")
    assert made["waiting_threads"] == ("open" not in options)
    assert expected_s * 0.98 <= lasted_s(output) <= expected_s * 1.1 + 0.5


def test_what_waits_is_never_issued_before_what_it_waits_for(
    loop: LoopDevice, ram_folder: Path
) -> None:
    source = write_capture(ram_folder / "run.parquet", waiting_rows(2000, 1, 0.001))
    output = ram_folder / "replayed.parquet"
    done = replay(source, {"loop0": loop.path}, "-o", output)
    assert done.returncode == 0, done.stderr
    found = read_capture(output)
    assert found.metadata["replay"]["most_in_flight"] == 1
    rows = sorted(found.rows(), key=lambda row: row["time"])
    times = np.array([row["time"].value for row in rows])
    ends = times + np.array([row["latency_ns"] or 0 for row in rows])
    assert (times[1:] >= ends[:-1]).all()


def test_threads_that_wait_and_others_are_told_apart(loop: LoopDevice, ram_folder: Path) -> None:
    waiting = waiting_rows(300, 5, 1)
    rng = np.random.default_rng(9)
    timed = table(
        300,
        time=START_NS + np.sort(rng.uniform(0, 1.8e9, 300)).astype(np.int64),
        tid=2000,
        latency_ns=100_000,
        offset=np.arange(300) * 8192,
        bytes=8192,
    )
    rows = pa.concat_tables([waiting, timed]).sort_by("time")
    source = write_capture(ram_folder / "run.parquet", rows)
    output = ram_folder / "replayed.parquet"
    done = replay(source, {"loop0": loop.path}, "-o", output)
    assert done.returncode == 0, done.stderr
    assert "closed for 1 thread that wait" in done.stderr
    found = read_capture(output).rows()
    lasts = {
        size: max(times) - min(times)
        for size in (4096, 8192)
        if (times := [row["time"] for row in found if row["bytes"] == size])
    }
    assert lasts[4096].total_seconds() < 1.2
    assert lasts[8192].total_seconds() > 1.7


@pytest.mark.parametrize("missing", [NO_COMPILER, NO_URING], ids=["Python", "libaio"])
@pytest.mark.parametrize("kind", ["open", "by-thread"])
def test_every_io_of_a_sample_is_done_without_a_compiler_or_io_uring(
    loop: LoopDevice, ram_folder: Path, missing: str, kind: str
) -> None:
    source = SAMPLES / "mixed-fio.parquet"
    options = ["--allow-writes", loop.path, "--no-record", "--loop", kind, "--json"]
    with witnessing(loop, ram_folder) as seen:
        done = replay_without(missing, source, {"loop2": loop.path}, *options)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["engine"], made["pacer"]) == (
        ("io_uring", "Python") if missing == NO_COMPILER else ("libaio", "C")
    )
    assert seen.capture is not None
    assert_same(asked_of(source), seen.capture, loop, preflushes_of(source))


def test_pairs_of_flush_and_write_stay_together_in_python(
    loop: LoopDevice, ram_folder: Path
) -> None:
    rows = table(300, op="write", flags="sync|preflush", offset=np.arange(300) * 4096)
    source = write_capture(ram_folder / "run.parquet", rows)
    options = ["--allow-writes", loop.path, "--no-record", "--json", "--loop", "open"]
    for missing in ("", NO_COMPILER):
        with witnessing(loop, ram_folder) as seen:
            done = replay_without(missing, source, {"loop0": loop.path}, *options)
        assert done.returncode == 0, done.stderr
        made = json.loads(done.stdout)
        assert (made["issued"], made["added"], made["completed"]) == (600, 300, 600)
        assert made["failed"] == 0
        assert seen.capture is not None
        assert_same(asked_of(source), seen.capture, loop, added_flushes=300)


@pytest.mark.parametrize("missing", ["", NO_COMPILER], ids=["C", "Python"])
@pytest.mark.parametrize("kind", ["open", "closed"])
@pytest.mark.parametrize(("flags", "most"), [("sync", 1), ("sync|preflush", 2)])
def test_no_more_are_in_flight_than_is_said_but_for_a_flush_and_its_write(
    loop: LoopDevice, ram_folder: Path, missing: str, kind: str, flags: str, most: int
) -> None:
    rows = table(300, op="write", flags=flags, offset=np.arange(300) * 4096, time=START_NS)
    source = write_capture(ram_folder / "run.parquet", rows)
    options = ["--allow-writes", loop.path, "--no-record", "--json", "--depth", "1"]
    done = replay_without(missing, source, {"loop0": loop.path}, *options, "--loop", kind)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["completed"], made["most_in_flight"], made["depth"]) == (300 * most, most, 1)


@pytest.mark.parametrize("missing", ["", NO_COMPILER], ids=["C", "Python"])
@pytest.mark.parametrize("kind", ["open", "closed"])
def test_discards_are_done_on_kernels_that_do_them_for_an_ioctl_only(
    loop: LoopDevice, ram_folder: Path, missing: str, kind: str
) -> None:
    rows = table(60, op=["discard", "read", "write"] * 20, offset=np.arange(60) * 65536, bytes=8192)
    source = write_capture(ram_folder / "run.parquet", rows)
    older = "import iorec.replay.session as s; s.has_discard_command = lambda fd: False\n"
    options = ["--allow-writes", loop.path, "--no-record", "--json", "--loop", kind]
    with witnessing(loop, ram_folder) as seen:
        done = replay_without(older + missing, source, {"loop0": loop.path}, *options)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["completed"], made["failed"]) == (60, 0)
    assert (seen.ios["discard"], seen.sizes["discard"]) == (20, 20 * 8192)
    assert seen.capture is not None
    assert_same(asked_of(source), seen.capture, loop)


def test_without_either_it_says_what_to_install(loop: LoopDevice, ram_folder: Path) -> None:
    source = write_capture(ram_folder / "run.parquet", table(3))
    done = replay_without(NO_COMPILER + NO_URING, source, {"loop0": loop.path})
    assert done.returncode == 1
    assert "libaio needs the loop in C, and there is no C compiler" in done.stderr
    assert "hint: install gcc or clang" in done.stderr


def test_a_new_sparse_file_is_a_target(ram_folder: Path) -> None:
    source = write_capture(
        ram_folder / "run.parquet", table(50, op="write", offset=np.arange(50) * (1 << 20))
    )
    target = ram_folder / "new"
    done = replay(source, {"loop0": str(target)}, "--dry-run", "--allow-writes", target)
    assert done.returncode == 0, done.stderr
    assert not target.exists()
    done = replay(source, {"loop0": str(target)}, "--allow-writes", target)
    assert done.returncode == 0, done.stderr
    assert target.stat().st_size == 1 << 30
    assert "(a new file, 1.0 GiB), WRITTEN TO" in done.stderr
    assert target.stat().st_blocks * 512 <= 51 * 4096
    assert target.read_bytes()[1 << 20 : (1 << 20) + 4096].count(0) < 100


def faithful_at_last(source: Path, mapping: dict[str, str], *options: str) -> None:
    """One of ten replays; where others use the machine all of the time, one is usable at least."""
    words = []
    for _ in range(10):
        done = replay(source, mapping, "--realtime", "--strict", *options)
        words.append(done.stderr.rpartition("error: ")[2] or "faithful")
        assert done.returncode in (0, 3), done.stderr
        if done.returncode == 0:
            return
    assert any(word.startswith("usable: ") for word in words), words


def test_in_real_time_it_is_faithful_to_random_times(loop: LoopDevice, ram_folder: Path) -> None:
    rng = np.random.default_rng(2)
    times = START_NS + np.cumsum(rng.exponential(4e6, 500)).astype(np.int64)
    rows = table(500, time=times, offset=rng.integers(0, 999, 500) * 4096)
    source = write_capture(ram_folder / "run.parquet", rows)
    faithful_at_last(source, {"loop0": loop.path}, "--loop", "open")


def test_a_recorded_workload_is_replayed_faithfully(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    was, now = make_loop(), make_loop()
    job = ["--ioengine=psync", "--rw=randrw", "--rate_iops=150,150", "--number_ios=400"]
    source = ram_folder / "run.parquet"
    made = run_record(source, "-d", was.name, "--", *fio(was, *job))
    assert len(made.rows(device=was.name)) >= 390
    options = ["--accept-losses", "--allow-writes", now.path]
    faithful_at_last(source, {was.name: now.path}, *options)


def test_a_target_that_is_slower_is_not_comparable(loop: LoopDevice, ram_folder: Path) -> None:
    times = START_NS + np.arange(3000, dtype=np.int64) * 10_000  # 100 GB/s
    rows = table(3000, time=times, bytes=1 << 20, offset=np.arange(3000) % 200 << 20)
    source = write_capture(ram_folder / "run.parquet", rows)
    options = ["--loop", "open", "--give-up-late", "60s", "--strict"]
    done = replay(source, {"loop0": loop.path}, *options)
    assert done.returncode == 3, done.stderr
    assert done.stdout.startswith("not comparable:")
    assert "latencies are not compared" in done.stdout
    assert "not comparable: " in done.stderr
    assert "hint: --strict asked for a faithful replay" in done.stderr
