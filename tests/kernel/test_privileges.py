# SPDX-License-Identifier: GPL-2.0-only
"""The privileges that a recording recorder has, and whose its files are."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.kernel.captures import read_capture
from tests.kernel.conftest import IOREC, LoopDevice, start_recording, stop_recording
from tests.kernel.mounts import mounted_ext4

NOBODY = 65534


def status_of_threads(pid: int) -> list[dict[str, str]]:
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = [line.partition(":") for line in path.read_text().splitlines()]
        found.append({name: value.strip() for name, _, value in lines})
    return found


def test_no_thread_of_a_recorder_has_a_capability(ram_folder: Path) -> None:
    recording = start_recording(ram_folder / "x.parquet")
    threads = status_of_threads(recording.pid)
    stop_recording(recording)
    assert len(threads) >= 1
    assert {t["CapEff"] for t in threads} == {t["CapPrm"] for t in threads} == {"0" * 16}
    assert {t["NoNewPrivs"] for t in threads} == {"1"}


def test_under_sudo_the_recorder_and_its_files_are_the_users(ram_folder: Path) -> None:
    os.chown(ram_folder, NOBODY, NOBODY)
    output = ram_folder / "x.parquet"
    environment = {**os.environ, "SUDO_UID": str(NOBODY), "SUDO_GID": str(NOBODY)}
    recording = subprocess.Popen(
        [str(IOREC), "record", "-o", str(output), "--", "sh", "-c", "id -u > id; sleep 1"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ram_folder,
    )
    assert recording.stderr is not None
    assert any(line.startswith("recording ") for line in recording.stderr)
    threads = status_of_threads(recording.pid)
    assert recording.wait(20) == 0
    as_nobody = ["setpriv", "--reuid", str(NOBODY), "--clear-groups", "test", "-x", str(IOREC)]
    if subprocess.run(as_nobody, check=False).returncode == 0:
        assert {t["Uid"] for t in threads} == {"\t".join([str(NOBODY)] * 4)}
        assert {t["CapEff"] for t in threads} == {"0" * 16}
    else:
        # The user could not import the package: root goes on, to give files away and no more.
        assert {t["CapEff"] for t in threads} == {f"{0b11:016x}"}
    assert (output.stat().st_uid, output.stat().st_gid) == (NOBODY, NOBODY)
    assert output.stat().st_mode & 0o777 == 0o600
    assert (ram_folder / "id").read_text().strip() == str(NOBODY)


def test_a_user_without_a_name_runs_the_command(ram_folder: Path) -> None:
    nameless = "54321"
    done = subprocess.run(
        [IOREC, "record", "-o", ram_folder / "x.parquet", "--", "sh", "-c", "id -u; id -G"],
        env={**os.environ, "SUDO_UID": nameless, "SUDO_GID": nameless},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [nameless, nameless]


@pytest.mark.parametrize("sudo_uid", [None, NOBODY])
def test_a_folder_of_somebody_else_can_still_be_written(
    ram_folder: Path, sudo_uid: int | None
) -> None:
    folder = ram_folder / "theirs"
    folder.mkdir(mode=0o755)
    os.chown(folder, 12345, 12345)
    environment = {**os.environ}
    if sudo_uid is not None:
        environment |= {"SUDO_UID": str(sudo_uid), "SUDO_GID": str(sudo_uid)}
    output = folder / "x.parquet"
    subprocess.run([IOREC, "record", "-o", output, "--", "true"], env=environment, check=True)
    assert output.stat().st_uid == (sudo_uid or 0)


def test_who_may_not_open_files_by_inode_is_told_why_they_have_no_paths(
    loop: LoopDevice, ram_folder: Path
) -> None:
    output = ram_folder / "x.parquet"
    without = ["setpriv", "--bounding-set=-dac_read_search", "--inh-caps=-dac_read_search"]
    with mounted_ext4(loop, ram_folder / "mount") as mount:
        write = ["dd", "if=/dev/zero", f"of={mount}/file", "bs=4k", "count=1", "conv=fsync"]
        record = [str(IOREC), "record", "-o", str(output), "-d", loop.name, "--", *write]
        subprocess.run([*without, *record], check=True)
        inode = (mount / "file").stat().st_ino
    capture = read_capture(output)
    assert {row["file"].endswith(f":{inode}") for row in capture.rows(inode=inode)} == {True}
    (note,) = capture.metadata["notes"]
    assert "CAP_DAC_READ_SEARCH" in note["message"]
