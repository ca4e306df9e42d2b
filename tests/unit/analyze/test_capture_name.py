# SPDX-License-Identifier: GPL-2.0-only
"""A capture's name says its format, and what the files beside it are called."""

from pathlib import Path

import pytest

from analyze.capture_name import CaptureName
from analyze.errors import IorecError


@pytest.mark.parametrize(
    ("name", "files", "spool", "second"),
    [
        ("a.b.parquet", ("a.b.parquet",), "a.b.parquet.part", "a.b-00002.parquet"),
        ("run.csv", ("run.csv", "run.meta.json"), "run.csv.part", "run-00002.csv"),
        ("run.csv.gz", ("run.csv.gz", "run.meta.json"), "run.csv.gz.part", "run-00002.csv.gz"),
    ],
)
def test_all_names_follow_from_one(
    name: str, files: tuple[str, ...], spool: str, second: str
) -> None:
    capture = CaptureName.parse(Path("/srv") / name)
    assert (capture.files, capture.spool) == (files, spool)
    assert capture.numbered(2) == CaptureName(Path("/srv") / second)
    assert CaptureName.of_spool(Path("/srv") / spool) == capture


@pytest.mark.parametrize("name", ["run", ".csv", "run.json", "run.parquet.part"])
def test_a_name_without_a_format_is_not_written(name: str) -> None:
    with pytest.raises(IorecError, match="cannot tell the format"):
        CaptureName.parse(Path(name))


def test_only_numbered_files_and_their_spools_are_of_a_rotating_recording() -> None:
    output = CaptureName(Path("r+n.csv"))
    own = ["r+n-00001.csv", "r+n-123456.csv", "r+n-00002.csv.part"]
    others = ["r+n.csv", "r+n-1.csv", "rrn-00001.csv", "r+n-00001.parquet", "r+n-00001.csv.gz"]
    assert list(filter(output.is_numbered, own + others)) == own
