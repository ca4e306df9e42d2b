"""Recordings that go on in a new file when one is full."""

import itertools
from pathlib import Path

from tests.kernel.conftest import (
    IOREC,
    LoopDevice,
    assert_accounts_close,
    missed_completions,
    read_capture,
    run,
)


def rotate(loop: LoopDevice, folder: Path, kept: int) -> list[Path]:
    fio = ["fio", "--name=r", f"--filename={loop.path}", "--direct=1", "--rw=randread"]
    work = [*fio, "--ioengine=io_uring", "--iodepth=8", "--io_size=1500M"]
    options = ["-d", loop.name, "--max-size", "300K", "--rotate", str(kept)]
    run(IOREC, "record", "-o", folder / "run.parquet", *options, "--", *work, "--output=/dev/null")
    return sorted(folder.glob("run-*"))


def test_every_io_is_in_exactly_one_file(loop: LoopDevice, ram_folder: Path) -> None:
    captures = [read_capture(path) for path in rotate(loop, ram_folder, kept=1000)]
    assert len(captures) >= 2
    rows = 384_000 - sum(missed_completions(capture, loop.name) for capture in captures)
    assert sum(c.table.num_rows for c in captures) == rows
    in_flight = sum(c.counts["in_flight_at_stop"] for c in captures)
    assert sum(c.counts["recorded"] for c in captures) == rows - in_flight
    columns = [(c.table["time"].cast("int64"), c.table["offset"]) for c in captures]
    keys = {key for time, offset in columns for key in zip(time, offset, strict=True)}
    assert len(keys) == rows
    for capture in captures:
        assert capture.metadata["complete"]
        assert_accounts_close(capture, loop.name)
    for one, other in itertools.pairwise(captures):
        assert one.metadata["stopped_at"] <= other.metadata["started_at"]


def test_only_the_newest_files_are_kept(loop: LoopDevice, ram_folder: Path) -> None:
    paths = rotate(loop, ram_folder, kept=2)
    assert len(paths) == 2
    assert paths[0].name != "run-00001.parquet"
    assert all(path.suffix == ".parquet" for path in paths)
