# SPDX-License-Identifier: GPL-2.0-only
"""`iorec plot`: which file it writes, and that it leaves nothing behind when it fails."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from analyze.errors import IorecError
from analyze.plot.kinds import Kind
from iorec.cli import run
from iorec.commands.plot import plot
from tests.builders import metadata, table, write_capture, write_parquet


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    return write_capture(tmp_path / "run.parquet")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_picture_lies_beside_the_capture_by_default(capture: Path) -> None:
    plot([capture])
    assert names(capture.parent) == ["run.parquet", "run.png"]


def test_a_compressed_csv_capture_gives_a_png_of_its_name(tmp_path: Path) -> None:
    plot([write_capture(tmp_path / "run.csv.gz")], kind=Kind.IOPS)
    assert "run.png" in names(tmp_path)


def test_an_existing_picture_is_refused_unless_forced(capture: Path) -> None:
    picture = capture.with_name("run.svg")
    picture.write_text("mine")
    with pytest.raises(IorecError) as refusal:
        plot([capture], output=picture)
    assert "-f/--force" in refusal.value.hint
    assert picture.read_text() == "mine"
    plot([capture], output=picture, kind=Kind.IOPS, force=True)
    assert "<svg" in picture.read_text()


def test_its_own_earlier_picture_is_replaced_under_the_default_name(capture: Path) -> None:
    plot([capture])
    overview = capture.with_name("run.png").read_bytes()
    plot([capture], kind=Kind.IOPS)
    assert capture.with_name("run.png").read_bytes() != overview
    with pytest.raises(IorecError, match="exists"):
        plot([capture], output=capture.with_name("run.png"))


def test_another_picture_under_the_default_name_is_kept(capture: Path) -> None:
    plot([capture], kind=Kind.IOPS)
    picture = capture.with_name("run.png")
    others = picture.read_bytes().replace(b"Software\0iorec", b"Software\0other")
    target = capture.with_name("elsewhere.png")
    picture.rename(target)
    for make in (lambda: picture.write_bytes(others), lambda: picture.symlink_to(target)):
        make()
        with pytest.raises(IorecError, match="exists"):
            plot([capture], kind=Kind.IOPS)
        picture.unlink()
    assert names(capture.parent) == ["elsewhere.png", "run.parquet"]


def test_a_picture_that_was_put_there_while_drawing_is_kept(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plot([capture], kind=Kind.IOPS)
    picture = capture.with_name("run.png")

    def render_late(*_: object) -> bytes:
        picture.write_text("mine")
        return b"ours"

    monkeypatch.setattr("analyze.plot.output.render", render_late)
    with pytest.raises(IorecError, match="cannot name the file"):
        plot([capture], kind=Kind.IOPS)
    assert picture.read_text() == "mine"
    assert names(capture.parent) == ["run.parquet", "run.png"]


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_picture_has_the_mode_that_the_umask_leaves(capture: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        plot([capture], kind=Kind.IOPS)
    finally:
        os.umask(before)
    assert capture.with_name("run.png").stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_picture_belongs_to_the_user_behind_sudo(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_UID", "1234")
    monkeypatch.setenv("SUDO_GID", "2345")
    plot([capture], kind=Kind.IOPS)
    status = capture.with_name("run.png").stat()
    assert (status.st_uid, status.st_gid) == (1234, 2345)


def test_without_a_home_matplotlib_says_nothing_and_leaves_nothing(capture: Path) -> None:
    temporary = capture.parent / "tmp"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "iorec", "plot", capture, "--kind", "iops"],
        env={"HOME": "/proc/nowhere", "TMPDIR": str(temporary), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.stderr == f"wrote {capture.with_name('run.png')}\n"
    assert not names(temporary)


@pytest.mark.parametrize("name", ["run.gif", "run", ".png", "run.parquet"])
def test_an_unknown_suffix_is_a_usage_error(capture: Path, name: str) -> None:
    with pytest.raises(IorecError) as refusal:
        plot([capture], output=capture.with_name(name), force=True)
    assert refusal.value.exit_code == 2
    assert ".png, .svg, .pdf" in refusal.value.hint
    assert names(capture.parent) == ["run.parquet"]


@pytest.mark.parametrize("kind", [Kind.HISTOGRAM, Kind.CDF])
def test_a_mark_in_a_chart_without_time_is_a_usage_error(capture: Path, kind: Kind) -> None:
    with pytest.raises(IorecError, match="has no time for a mark"):
        plot([capture], kind=kind, mark=["1=x"])
    plot([capture], kind=Kind.IOPS, mark=["1=x"])


def test_a_missing_folder_is_named(capture: Path) -> None:
    with pytest.raises(IorecError, match="nowhere"):
        plot([capture], output=capture.parent / "nowhere" / "run.png")


def test_a_full_disk_leaves_neither_a_picture_nor_half_of_one(
    capture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    picture = capture.with_name("run.png")
    picture.write_text("the old one")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(IorecError, match="No space left on device"):
        plot([capture], kind=Kind.IOPS, force=True)
    assert picture.read_text() == "the old one"
    assert names(capture.parent) == ["run.parquet", "run.png"]


def test_a_window_without_rows_is_an_error_and_draws_nothing(capture: Path) -> None:
    with pytest.raises(IorecError):
        plot([capture], where="pid = -1")
    assert names(capture.parent) == ["run.parquet"]


def test_neither_the_library_nor_the_command_imports_matplotlib_before_it_draws() -> None:
    check = "import sys, analyze, iorec.commands.plot; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "time_of",
    [lambda _: None, lambda i: 2**62 + i, lambda i: i - 2**62, lambda i: (-1) ** i * (2**62 + i)],
    ids=["null", "in 2116", "in 1823", "in both"],
)
def test_times_that_cannot_be_are_drawn_in_bounded_time(
    tmp_path: Path, time_of: Callable[[int], int | None]
) -> None:
    rows = table(20_000)
    nullable = pa.schema([field.with_nullable(True) for field in rows.schema])
    times = pa.array([time_of(i) for i in range(len(rows))], pa.int64())
    times = times.cast(rows.schema.field("time").type)
    described = json.dumps(metadata(rows)).encode()
    columns = [times if name == "time" else rows[name] for name in rows.schema.names]
    path = write_parquet(tmp_path / "run.parquet", pa.table(columns, schema=nullable), described)
    for kind in Kind:
        assert run(["plot", str(path), "-f", "--kind", kind]) in (0, 1)
