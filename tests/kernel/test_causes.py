# SPDX-License-Identifier: GPL-2.0-only
"""Causes of real I/Os: each request is in the call that made it, and the time of a call adds up."""

import json
import os
import sys
import textwrap
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from analyze.capture import open_captures
from tests.kernel.captures import Capture, assert_layers_close
from tests.kernel.conftest import IOREC, LoopDevice, run
from tests.kernel.mounts import mounted_ext4

WORK = """
import mmap, os, sys
path = sys.argv[1]
fd = os.open(path, os.O_CREAT | os.O_RDWR)
for number in range(41):
    os.pwrite(fd, bytes(4096), number * 8192)
    os.fsync(fd)
direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
page = mmap.mmap(-1, 4096)
for number in range(37):
    os.preadv(direct, [page], number * 8192)
"""


def test_every_request_is_in_the_call_that_made_it(
    record: Callable[..., Capture], loop: LoopDevice, ram_folder: Path, tmp_path: Path
) -> None:
    with mounted_ext4(loop, tmp_path / "files") as folder:
        capture = record(
            *("-l", "syscall,request,bio", "--"),
            *(sys.executable, "-c", textwrap.dedent(WORK), folder / "data"),
        )
    assert_layers_close(capture)
    output = ram_folder / "run.parquet"
    of_loop = f"device = '{loop.name}'"
    with open_captures([output], where=of_loop) as opened:
        groups = opened.summary(by="cause").groups
    found = {(group.key["cause"], group.key["call"]): group for group in groups}
    if not any(capture.counts["lost"].values()):
        (reads,) = (g for (_, call), g in found.items() if str(call).startswith("preadv"))
        assert reads.reads == 37
        # The data of each fsync, its own; what is before that are blocks of metadata.
        assert found["syscall", "fsync"].writes == 41
    assert found["journal", ""].writes > 0
    # The same in plain Python, for bios, too.
    for layer in ("request", "bio"):
        with open_captures([output], where=of_loop, layer=layer) as opened:
            groups = opened.summary(by="cause").groups
        told = Counter({(g.key["cause"], g.key["call"]): g.ios for g in groups})
        assert told == _causes(capture, layer, loop.name)


def _causes(capture: Capture, layer: str, device: str) -> Counter[tuple[str | None, str]]:
    """By looking at every call of its thread."""
    calls = capture.rows(layer="syscall")
    found: Counter[tuple[str | None, str]] = Counter()
    for row in capture.rows(layer=layer, device=device):
        if row["op"] == "cache_flush":
            continue
        inside = [
            call["op"]
            for call in calls
            if call["tid"] == row["tid"]
            and call["time"] <= row["time"]
            and (
                call["latency_ns"] is None
                or row["time"].value <= call["time"].value + call["latency_ns"]
            )
        ]
        if inside:
            found["syscall", inside[0]] += 1
        elif row["comm"].startswith("jbd2/"):
            found["journal", ""] += 1
        elif row["comm"].startswith("kworker/") and row["file"] is not None:
            found["writeback", ""] += 1
        else:
            found["other", ""] += 1
    return found


def test_the_parts_of_an_fsync_are_its_time(
    record: Callable[..., Capture], loop: LoopDevice, ram_folder: Path, tmp_path: Path
) -> None:
    with mounted_ext4(loop, tmp_path / "files") as folder:
        record(
            *("-l", "syscall,request", "--"),
            *(sys.executable, "-c", textwrap.dedent(WORK), folder / "data"),
        )
        path = folder / "data"
    argv = (IOREC, "explain", ram_folder / "run.parquet", "--slowest", "41")
    asked = (*argv, "--where", f"op = 'fsync' AND file = '{path}'")
    calls = json.loads(run(*asked, "--json", capture_output=True).stdout)["calls"]
    assert len(calls) == 41
    for call in calls:
        assert sum(part["time_ns"] for part in call["parts"]) == call["latency_ns"]
        by_relation = {part["relation"]: part for part in call["parts"]}
        assert by_relation["own"]["ios"] >= 1
        assert all(step["device"] == loop.name for step in call["steps"])
    # The journal's commit is what an fsync of new blocks waits for.
    assert sum("journal" in {part["relation"] for part in call["parts"]} for call in calls) > 20
    text = run(*asked, capture_output=True, env={**os.environ, "COLUMNS": "300"}).stdout
    assert text.count(f"fsync of {path} by python") == 41
