# SPDX-License-Identifier: GPL-2.0-only
"""Replays of real captures on loop devices, against witnesses outside: a recorder and diskstats."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.builders import START_NS, table, write_capture
from tests.kernel.captures import read_capture
from tests.kernel.conftest import LoopDevice
from tests.kernel.replaying import (
    SAMPLES,
    asked_of,
    assert_same,
    digest,
    preflushes_of,
    replay,
    replay_command,
    states_left,
    witnessing,
)

GIB = 1 << 30
NAMES = ("mixed-fio", "postgres-pgbench", "archive-unpack", "losses")


def fill(loop: LoopDevice, size: int) -> None:
    """Puts something onto the device that a replay could spoil."""
    pattern = bytes(range(256)) * 4096
    with Path(loop.path).open("r+b", buffering=0) as device:
        for _ in range(size // len(pattern)):
            device.write(pattern)
        os.fsync(device.fileno())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["open", "by-thread"])
def test_every_read_is_done_again_and_nothing_is_changed(
    name: str, kind: str, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    loop = make_loop(GIB)
    fill(loop, 64 << 20)
    before = digest(loop.backing)
    source = SAMPLES / f"{name}.parquet"
    with witnessing(loop, ram_folder) as seen:
        done = replay(
            source, {"loop2": loop.path}, "--loop", kind, "--no-record", "--accept-losses"
        )
    assert done.returncode == 0, done.stderr
    asked = asked_of(source, as_reads=True)
    assert seen.capture is not None
    assert_same(asked, seen.capture, loop)
    assert seen.ios["read"] >= asked.total()
    assert seen.ios["read"] - asked.total() <= 40  # udev looks at a device that is closed
    assert (seen.ios["write"], seen.ios["discard"]) == (0, 0)
    assert digest(loop.backing) == before


@pytest.mark.parametrize("name", ["mixed-fio", "postgres-pgbench", "archive-unpack"])
@pytest.mark.parametrize("kind", ["open", "by-thread"])
def test_every_write_and_flush_is_done_again_with_its_flags(
    name: str, kind: str, make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    loop = make_loop(GIB)
    source = SAMPLES / f"{name}.parquet"
    options = ["--allow-writes", loop.path, "--no-record", "--loop", kind]
    with witnessing(loop, ram_folder) as seen:
        done = replay(source, {"loop2": loop.path}, *options)
    assert done.returncode == 0, done.stderr
    assert seen.capture is not None
    assert_same(asked_of(source), seen.capture, loop, preflushes_of(source))
    sizes = {"read": 0, "write": 0}
    synced = 0
    for row in pq.read_table(source, columns=["op", "bytes", "flags"]).to_pylist():
        if row["op"] in sizes:
            sizes[row["op"]] += row["bytes"]
        synced += row["op"] == "write" and "fua" in row["flags"]
    assert seen.sizes["write"] == sizes["write"]
    assert seen.sizes["read"] >= sizes["read"]
    rows = seen.capture.rows(device=loop.name, op="write")
    found = sum("fua" in row["flags"] for row in rows)
    assert synced - seen.capture.counts["lost"]["missed_completion"] <= found <= synced


def test_only_what_was_written_then_is_written_now(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    loop = make_loop(64 << 20)
    fill(loop, 64 << 20)
    before = loop.backing.read_bytes()
    places = [n * 65536 for n in range(0, 512, 7)]
    rows = table(
        len(places),
        op="write",
        offset=places,
        bytes=[4096 * (1 + n % 4) for n in range(len(places))],
    )
    source = write_capture(ram_folder / "run.parquet", rows)
    done = replay(source, {"loop0": loop.path}, "--allow-writes", loop.path, "-q")
    assert done.returncode == 0, done.stderr
    after = loop.backing.read_bytes()
    written = [False] * (len(before) // 4096)
    for number, place in enumerate(places):
        for block in range(place // 4096, place // 4096 + 1 + number % 4):
            written[block] = True
    for block, is_written in enumerate(written):
        part = slice(block * 4096, block * 4096 + 4096)
        assert (before[part] != after[part]) == is_written, block


@pytest.mark.parametrize(
    ("data", "zeros"), [("random", (0, 40)), ("zero", (4096, 4096)), ("compress:75", (3072, 3120))]
)
def test_what_is_written_is_as_compressible_as_asked(
    loop: LoopDevice, ram_folder: Path, data: str, zeros: tuple[int, int]
) -> None:
    rows = table(8, op="write", offset=[n * 4096 for n in range(8)])
    source = write_capture(ram_folder / "run.parquet", rows)
    options = ["--allow-writes", loop.path, "--data", data, "-q", "--no-record"]
    assert replay(source, {"loop0": loop.path}, *options).returncode == 0
    content = loop.backing.read_bytes()[: 8 * 4096]
    blocks = [content[at : at + 4096] for at in range(0, len(content), 4096)]
    for block in blocks:
        assert zeros[0] <= block.count(0) <= zeros[1]
    assert data == "zero" or len(set(blocks)) == 8


def test_discards_and_zeros_are_what_they_were(loop: LoopDevice, ram_folder: Path) -> None:
    ops = ["discard", "write_zeroes", "flush", "write"]
    sizes = [65536, 131072, 0, 4096]
    offsets = [1 << 20, 2 << 20, None, 3 << 20]
    rows = table(
        4,
        op=ops,
        bytes=sizes,
        offset=offsets,
        flags=["", "", "preflush", "preflush|fua"],
        time=[START_NS + n * 50_000_000 for n in range(4)],
    )
    source = write_capture(ram_folder / "run.parquet", rows)
    options = ["--allow-writes", loop.path, "--no-record"]
    with witnessing(loop, ram_folder) as seen:
        done = replay(source, {"loop0": loop.path}, *options)
    assert done.returncode == 0, done.stderr
    assert seen.capture is not None
    assert_same(asked_of(source), seen.capture, loop, added_flushes=1)
    assert seen.sizes["discard"] == 65536
    rows_by_time = sorted(seen.capture.rows(device=loop.name), key=lambda row: row["time"])
    kept = [row["op"] for row in rows_by_time if row["op"] not in ("cache_flush", "read")]
    assert kept == [*ops[:3], "flush", "write"]


def test_discards_are_done_on_a_device_without_requests(zram: str, ram_folder: Path) -> None:
    places = np.repeat(np.arange(10), 2) * 65536
    rows = table(20, op=["write", "discard"] * 10, bytes=65536, offset=places)
    source = write_capture(ram_folder / "run.parquet", rows)
    device = f"/dev/{zram}"
    done = replay(source, {"loop0": device}, "--allow-writes", device, "--json")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["measured"]
    assert (measured["matched"], measured["errors"]) == (20, 0)
    stored_bytes = int(Path(f"/sys/block/{zram}/mm_stat").read_text().split()[0])
    assert stored_bytes == 0


def test_two_devices_are_replayed_in_one_order(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    one, two = make_loop(), make_loop()
    rows = table(400, device=["sda", "nvme0n1"] * 200, offset=[n % 50 * 4096 for n in range(400)])
    source = write_capture(ram_folder / "run.parquet", rows)
    output = ram_folder / "replayed.parquet"
    done = replay(source, {"sda": one.path, "nvme0n1": two.path}, "-o", output)
    assert done.returncode == 0, done.stderr
    found = read_capture(output)
    order = [row["device"] for row in sorted(found.rows(), key=lambda row: row["time"])]
    missed = found.counts["lost"]["missed_completion"]
    assert len(order) == 400 - missed
    assert missed or order == [one.name, two.name] * 200


def test_the_capture_of_a_replay_is_an_ordinary_one_that_says_what_it_is(
    make_loop: Callable[..., LoopDevice], ram_folder: Path
) -> None:
    loop = make_loop(GIB)
    output = ram_folder / "replayed.parquet"
    source = SAMPLES / "mixed-fio.parquet"
    done = replay(source, {"loop2": loop.path}, "-o", output, "--loop", "open", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    found = read_capture(output).metadata
    assert found["workload"] is None
    assert found["command"][1] == "replay"
    made = found["replay"]
    assert made["verdict"] == printed["word"]
    assert (made["planned"], made["issued"], made["completed"]) == (26800, 26800, 26800)
    assert (made["ending"], made["failed"], made["short"]) == ("whole", 0, 0)
    assert made["left_out"]["flush: the target is only read"] == 1600
    assert made["targets"][0]["target"] == loop.name
    assert made["most_in_flight"] <= made["depth"] == 120
    again = subprocess.run(
        [replay_command(source, {})[0], "fidelity", source, output, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(again.stdout)["measured"] == printed["measured"]
    for command in ("report", "info"):
        subprocess.run(
            [replay_command(source, {})[0], command, output], check=True, capture_output=True
        )


def test_an_existing_output_is_kept(loop: LoopDevice, ram_folder: Path) -> None:
    source = write_capture(ram_folder / "run.parquet", table(10))
    output = ram_folder / "replayed.parquet"
    output.write_text("mine")
    done = replay(source, {"loop0": loop.path}, "-o", output)
    assert done.returncode == 1
    assert "exists" in done.stderr
    assert output.read_text() == "mine"
    assert replay(source, {"loop0": loop.path}, "-o", output, "-f").returncode == 0


@pytest.mark.parametrize("speed", ["2", "0.5", "max"])
def test_speed_makes_it_shorter_or_longer(loop: LoopDevice, ram_folder: Path, speed: str) -> None:
    source = write_capture(
        ram_folder / "run.parquet", table(1000, offset=[n % 99 * 4096 for n in range(1000)])
    )
    output = ram_folder / "replayed.parquet"
    done = replay(source, {"loop0": loop.path}, "-o", output, "--speed", speed, "--loop", "open")
    assert done.returncode == 0, done.stderr
    times = pq.read_table(output, columns=["time"])["time"].cast("int64").to_pylist()
    lasted_s = (max(times) - min(times)) / 1e9
    expected = {"2": (0.49, 0.6), "0.5": (1.99, 2.2), "max": (0, 0.4)}[speed]
    assert expected[0] <= lasted_s <= expected[1]


def test_interrupted_it_judges_what_was_done_and_puts_the_queue_back(
    loop: LoopDevice, ram_folder: Path
) -> None:
    source = write_capture(
        ram_folder / "run.parquet", table(60_000, offset=[n % 99 * 4096 for n in range(60_000)])
    )
    queue = Path(f"/sys/block/{loop.name}/queue/nomerges")
    before = queue.read_text()
    output = ram_folder / "replayed.parquet"
    command = replay_command(source, {"loop0": loop.path}, "-o", output)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while queue.read_text() == before:
        assert time.monotonic() < deadline, "no replay"
        time.sleep(0.05)
    time.sleep(4)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "the replay was interrupted after" in said
    assert printed.startswith("not comparable:")
    assert queue.read_text() == before
    made = read_capture(output).metadata["replay"]
    assert made["ending"] == "interrupted"
    assert 0 < made["completed"] == made["issued"] < 60_000
    assert not states_left(loop)


def test_a_target_that_is_too_slow_ends_the_replay(loop: LoopDevice, ram_folder: Path) -> None:
    rows = table(20_000, time=[START_NS + n * 100 for n in range(20_000)], bytes=1 << 20, offset=0)
    source = write_capture(ram_folder / "run.parquet", rows)
    options = ["--give-up-late", "200ms", "--no-record", "--loop", "open"]
    done = replay(source, {"loop0": loop.path}, *options)
    assert done.returncode == 1
    assert "the target cannot keep up" in done.stderr
    assert "--speed 0.5" in done.stderr
    done = replay(source, {"loop0": loop.path}, *options, "--quiet")
    assert "warning: not comparable: the replay ended too-late; " in done.stderr
