# SPDX-License-Identifier: GPL-2.0-only
"""What a capture says of itself is checked field by field before anything relies on it."""

from pathlib import Path

import pytest

import analyze
from analyze.errors import IorecError
from analyze.metadata import FORMAT_VERSION
from tests.builders import table, write_capture, write_parquet


def message_of(path: Path) -> str:
    with pytest.raises(IorecError) as caught:
        analyze.open(path)
    assert caught.value.exit_code == 1
    assert caught.value.hint
    return caught.value.message


@pytest.mark.parametrize(
    ("described", "cause"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"9" * 5000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "format_version is missing"),
        (b" " * (8 << 20) + b"{}", "its metadata takes"),
    ],
)
def test_metadata_that_is_no_object_is_said(tmp_path: Path, described: bytes, cause: str) -> None:
    path = write_parquet(tmp_path / "run.parquet", table(3), described)
    assert cause in message_of(path)


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        ({"hostname": 5}, "hostname is not a string"),
        ({"cpus": True}, "cpus is not an integer"),
        ({"cpus": 10**30}, "cpus is out of range"),
        ({"duration_s": float("nan")}, "duration_s is out of range"),
        ({"duration_s": 10**400}, "duration_s is out of range"),
        ({"started_at": "yesterday"}, "started_at is not a UTC time"),
        ({"started_at": "9999-01-01T00:00:00Z"}, "started_at is out of range"),
        ({"started_at": "2026-02-30T00:00:00Z"}, "started_at is not a UTC time"),
        ({"stopped_at": "1999-01-01T00:00:00Z"}, "stopped before it started"),
        ({"counts": {"lost": {"ring_full": -1}}}, "counts.lost.ring_full is out of range"),
        ({"counts": {"devices": [{}]}}, "counts.devices[0].layer is missing"),
        ({"devices": [5]}, "devices[0] is not an object"),
        ({"diskstats": {"sda": []}}, "diskstats.sda is not an object"),
    ],
)
def test_a_field_of_the_metadata_that_is_wrong_is_named(
    tmp_path: Path, overrides: dict[str, object], cause: str
) -> None:
    assert cause in message_of(write_capture(tmp_path / "run.parquet", **overrides))


def test_a_field_of_a_later_release_is_ignored(tmp_path: Path) -> None:
    with analyze.open(write_capture(tmp_path / "run.parquet", colour="red")) as capture:
        assert capture.files[0].metadata.hostname == "db1"


def test_a_newer_format_is_said_plainly(tmp_path: Path) -> None:
    path = write_capture(tmp_path / "run.parquet", format_version=FORMAT_VERSION + 1)
    assert f"reads up to version {FORMAT_VERSION}" in message_of(path)
