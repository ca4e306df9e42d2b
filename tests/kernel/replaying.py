# SPDX-License-Identifier: GPL-2.0-only
"""Runs `iorec replay` on loop devices, and reads what outside witnesses saw of it."""

import hashlib
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from iorec.host.diskstats import read_diskstats
from tests.kernel.captures import Capture, missed_completions, read_capture
from tests.kernel.conftest import IOREC, LoopDevice, start_recording, stop_recording

SAMPLES = Path(__file__).parents[2] / "samples"
PATIENCE_S = 200
STATE = Path("/run/iorec")


def replay(
    source: Path, mappings: dict[str, str], *options: str | Path
) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run(
        replay_command(source, mappings, *options),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )


def replay_command(source: Path, mappings: dict[str, str], *options: str | Path) -> list[str]:
    words = [word for name, path in mappings.items() for word in ("--map", f"{name}={path}")]
    return [str(IOREC), "replay", str(source), *words, *map(str, options)]


@dataclass
class Witnessed:
    """What was seen from outside: the kernel's counts, and a capture of another recorder."""

    ios: Counter[str]
    sizes: Counter[str]
    capture: Capture | None = None


@contextmanager
def witnessing(loop: LoopDevice, folder: Path) -> Iterator[Witnessed]:
    """Records the device meanwhile, and reads /proc/diskstats before and after."""
    seen = Witnessed(Counter(), Counter())
    output = folder / "witness.parquet"
    recording = start_recording(output, "-f", "-d", loop.name)
    before = read_diskstats()[loop.name].groups
    yield seen
    after = read_diskstats()[loop.name].groups
    stop_recording(recording)
    for group, stats in after.items():
        seen.ios[group] = stats.ios - before[group].ios
        seen.sizes[group] = stats.bytes - before[group].bytes
    seen.capture = read_capture(output)


def asked_of(source: Path, *, as_reads: bool = False) -> Counter[tuple[Any, ...]]:
    """What a capture asks for: each operation, place and size, and how often; read with pyarrow.

    An empty preflush is a flush, whatever the format's version.
    """
    found: Counter[tuple[Any, ...]] = Counter()
    columns = ["op", "flags", "offset", "bytes"]
    version = read_capture(source).metadata["format_version"]
    for row in pq.read_table(source, columns=columns).to_pylist():
        op, place = row["op"], row["offset"]
        if op == "cache_flush" or (version == 1 and op == "flush"):
            continue
        if op == "write" and row["bytes"] == 0 and "preflush" in row["flags"]:
            op, place = "flush", None
        if as_reads and op == "write":
            op = "read"
        if as_reads and op == "flush":
            continue
        found[op, place, row["bytes"]] += 1
    return found


def preflushes_of(source: Path) -> int:
    """Writes with data that a flush comes before."""
    rows = pq.read_table(source, columns=["op", "flags", "bytes"]).to_pylist()
    return sum(
        row["op"] == "write" and row["bytes"] > 0 and "preflush" in row["flags"] for row in rows
    )


def done_on(capture: Capture, loop: LoopDevice) -> Counter[tuple[Any, ...]]:
    """What a capture saw on the device, but for what looks at new and closed devices."""
    rows = capture.rows(device=loop.name)
    strangers = ("blkid", "(udev", "systemd-udevd", "losetup")
    return Counter(
        (row["op"], row["offset"], row["bytes"])
        for row in rows
        if row["op"] != "cache_flush" and not (row["process"] or "").startswith(strangers)
    )


def assert_same(
    asked: Counter[tuple[Any, ...]], capture: Capture, loop: LoopDevice, added_flushes: int = 0
) -> None:
    """The device did what was asked, but for completions that no program saw."""
    done = done_on(capture, loop)
    done["flush", None, 0] -= added_flushes
    extra, missing = done - asked, asked - done
    hidden = missed_completions(capture, loop.name)
    assert extra.total() <= hidden, extra.most_common(5)  # an added flush may be the hidden one
    assert missing.total() <= hidden, missing.most_common(5)


def digest(path: Path) -> str:
    """Of all that is on a device or in a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def states_left(loop: LoopDevice) -> list[Path]:
    """Where replays have noted of this queue what they have not put back; others may run."""
    numbers = Path(f"/sys/class/block/{loop.name}/dev").read_text().strip()
    found = []
    for path in STATE.glob("replay-*"):
        with suppress(FileNotFoundError):
            if f'"{numbers}"' in path.read_text():
                found.append(path)
    return found
