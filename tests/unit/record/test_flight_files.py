# SPDX-License-Identifier: GPL-2.0-only
"""The files of the flight recorder: whether there can be any, their names, and which stay."""

from pathlib import Path

import pytest

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from iorec.record.flight_files import FlightFiles
from iorec.record.triggers import parse_trigger
from iorec.store.folder import Folder

_SECOND_NS = 1_000_000_000


def files(folder: Folder, name: str = "run.parquet", kept: int = 2) -> FlightFiles:
    return FlightFiles(folder, CaptureName(folder.path / name), kept)


def test_a_name_that_will_be_too_long_is_refused_at_once(tmp_path: Path) -> None:
    with Folder.open(tmp_path, None) as folder:
        found = files(folder, f"{'a' * 205}.parquet")
        found.check([])
        with pytest.raises(IorecError, match="too long"):
            found.check([parse_trigger("psi io some > 40%")])


def test_a_folder_in_which_nothing_can_be_made_is_refused_at_once(tmp_path: Path) -> None:
    with Folder.open(tmp_path, None) as folder:
        files(folder).check([])
        assert list(tmp_path.iterdir()) == []
        tmp_path.rmdir()
        with pytest.raises(IorecError, match="cannot create"):
            files(folder).check([])


def test_microseconds_are_no_seconds_in_a_name(tmp_path: Path) -> None:
    with Folder.open(tmp_path, None) as folder:
        capture, part = files(folder).create(0, "latency > 100µs")
        part.close()
    assert capture.name == "run-19700101T000000Z-latency-100us.parquet"


def test_spools_that_did_not_become_captures_go_like_these(tmp_path: Path) -> None:
    """Otherwise a disk without room for a capture would fill up with spools."""
    for second in range(3):
        (tmp_path / f"run-1970010{second + 1}T000000Z-errno.parquet.part").write_bytes(b"left")
    with Folder.open(tmp_path, None) as folder:
        capture, part = files(folder).create(9 * 86_400 * _SECOND_NS, "errno")
        again, other = files(folder).create(10 * 86_400 * _SECOND_NS, "errno")
        names = {path.name for path in tmp_path.iterdir()}
        assert names == {capture.spool, again.spool}
        third, last = files(folder).create(11 * 86_400 * _SECOND_NS, "errno")
        assert {path.name for path in tmp_path.iterdir()} == {*names, third.spool}  # are written
        for file in (part, other, last):
            file.close()
