# SPDX-License-Identifier: GPL-2.0-only
"""What bad input to record gets: one error, one hint, the right status, and nothing left behind."""

import contextlib
import itertools
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.kernel.conftest import IOREC, start_recording, stop_recording
from tests.kernel.leftovers import attached_programs


def fails(
    folder: Path, *argv: str | Path, status: int = 1, before: tuple[str, ...] = (), **env: str
) -> str:
    """Runs record in a folder, where it must fail and leave nothing; returns stderr."""
    present = set(folder.iterdir())
    done = subprocess.run(
        [*before, str(IOREC), "record", *map(str, argv)],
        cwd=folder,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = done.stderr.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1, done.stderr
    assert sum(line.startswith("hint: ") for line in lines) == 1, done.stderr
    assert set(folder.iterdir()) == present
    return done.stderr


def test_not_root_names_the_missing_capabilities(ram_folder: Path) -> None:
    without = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    error = fails(ram_folder, "-o", "x.parquet", before=without)
    assert "CAP_PERFMON and CAP_BPF" in error
    assert "sudo" in error


def never_compiled() -> tuple[str, str]:
    """Options for which no compiled programs can have been kept."""
    return "--min-latency", f"{time.time_ns() % 10**12 + 1}ns"


def test_missing_bcc_names_the_package(ram_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("raise ImportError('No module named bcc')")
    error = fails(ram_folder, "-o", "x.parquet", *never_compiled(), PYTHONPATH=str(tmp_path))
    assert "apt install python3-bpfcc" in error
    assert "dnf install python3-bcc" in error


def test_another_package_called_bcc_is_told_apart(ram_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bcc.py").write_text("")
    error = fails(ram_folder, "-o", "x.parquet", *never_compiled(), PYTHONPATH=str(tmp_path))
    assert "is not the BPF Compiler Collection" in error


def test_a_kernel_without_btf_is_named(ram_folder: Path) -> None:
    hide = 'mount -t tmpfs none /sys/kernel/btf && mount -t tmpfs none /boot && exec "$@"'
    error = fails(ram_folder, "-o", "x.parquet", before=("unshare", "-m", "sh", "-c", hide, "sh"))
    assert "no BTF" in error
    assert "CONFIG_DEBUG_INFO_BTF" in error


def test_a_refusal_by_the_kernel_is_told_with_its_reason(ram_folder: Path) -> None:
    error = fails(ram_folder, "-o", "x.parquet", before=("unshare", "-Ur"))
    assert "the kernel refused" in error
    assert "Operation not permitted" in error


@pytest.mark.parametrize(
    ("options", "named", "status"),
    [
        (("-d", "nosuchdisk"), "no block device nosuchdisk", 1),
        (("-d", "nosuch*"), "no block device nosuch*", 1),
        (("-d", "/proc"), "/proc is on no block device", 1),
        (("-c", "a-name-that-is-too-long"), "the kernel keeps 15 bytes of it, not 23", 2),
        (("-c", "a-glob-that-is*too-long"), "the kernel keeps 15 bytes of it", 2),
        (("-p", "4194303"), "no process 4194303", 1),
        (("--cgroup", "/no/such/group"), "no cgroup /no/such/group", 1),
        (("--op", "teleport"), "no operation teleport", 2),
        (("--op", "last"), "no operation last", 2),
        (("--duration", "soon"), "soon", 2),
        (("--duration", "0s"), "invalid value for '--duration': 0 is no time", 2),
        (("--min-latency", "-3ms"), "-3ms", 2),
        (("--max-size", "1X"), "1X", 2),
        (("-B", "1"), "out of range", 2),
        (("-n", "0"), "--count", 2),
        (("-o", f"{'n' * 240}.parquet"), "is too long", 2),
        (("-o", f"{'n' * 234}.csv"), "n.meta.json is too long", 2),
        (("--", "/no/such/command"), "/no/such/command: command not found", 127),
        (("--", "nosuchcommand"), "nosuchcommand: command not found", 127),
        (("--", "/etc/passwd"), "/etc/passwd: it is not executable", 126),
        (("--", "/etc"), "/etc: it is not executable", 126),
    ],
)
def test_nonsense_is_refused_by_name(
    ram_folder: Path, options: tuple[str, ...], named: str, status: int
) -> None:
    assert named in fails(ram_folder, "-o", "x.parquet", *options, status=status)


def test_a_pid_of_another_namespace_is_no_filter(ram_folder: Path) -> None:
    inside = ("unshare", "--pid", "--fork", "--mount-proc")
    error = fails(ram_folder, "-o", "x.parquet", "-p", "1", before=inside)
    assert "docker run --pid=host" in error


@pytest.mark.parametrize("files", [20, 28, 35, 40])
def test_a_low_limit_of_open_files_is_named(ram_folder: Path, files: int) -> None:
    error = fails(ram_folder, "-o", "x.parquet", before=("prlimit", f"--nofile={files}"))
    assert "hint: raise the limit of open files (ulimit -n)" in error


def test_a_current_folder_that_is_gone_is_no_place_for_a_capture_but_no_obstacle(
    ram_folder: Path,
) -> None:
    gone = ram_folder / "gone"
    gone.mkdir()
    leave = ("sh", "-c", f'rmdir {gone} && exec "$@"', "sh")
    command: list[str | Path] = [*leave, IOREC, "record", "--duration", "300ms", "-o"]
    there = subprocess.run([*command, ram_folder / "x.parquet"], cwd=gone, check=False)
    gone.mkdir()
    here = subprocess.run(
        [*command, "x.parquet"], cwd=gone, stderr=subprocess.PIPE, text=True, check=False
    )
    assert there.returncode == 0
    assert "cannot open the folder .: No such file or directory" in here.stderr


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_loader_that_is_killed_is_said_to_be(ram_folder: Path, number: signal.Signals) -> None:
    recording = subprocess.Popen(
        [IOREC, "record", "-o", ram_folder / "x.parquet"], stderr=subprocess.PIPE, text=True
    )
    while not (loaders := children_of(recording.pid, b"iorec.kernel.loader")):
        assert recording.poll() is None
    os.kill(loaders[0], number)
    said = recording.communicate(timeout=30)[1]
    assert recording.returncode == 1
    assert f"the process that loads the kernel programs ended with {-number}" in said
    assert list(ram_folder.iterdir()) == []


def children_of(pid: int, name: bytes) -> list[int]:
    """The processes that somebody started, by what is in their command line."""
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if name in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


def test_an_output_that_exists_is_kept_and_the_flag_named(ram_folder: Path) -> None:
    (ram_folder / "x.parquet").write_text("precious")
    assert "--force" in fails(ram_folder, "-o", "x.parquet")
    assert (ram_folder / "x.parquet").read_text() == "precious"


def test_a_leftover_spool_is_kept_and_the_remedy_named(ram_folder: Path) -> None:
    (ram_folder / "x.parquet.part").write_text("precious")
    assert "iorec recover" in fails(ram_folder, "-f", "-o", "x.parquet")
    assert (ram_folder / "x.parquet.part").read_text() == "precious"


def records(folder: Path) -> str:
    """Makes a short recording there; returns what it says."""
    done = subprocess.run(
        [IOREC, "record", "-o", "x.parquet", "--", "true"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    return done.stderr


def test_a_leftover_spool_in_the_folder_is_mentioned(ram_folder: Path) -> None:
    (ram_folder / "old.parquet.part").write_text("spool")
    said = records(ram_folder)
    assert "iorec recover old.parquet.part" in said


def test_leftovers_of_any_name_and_links_that_lead_nowhere_keep_nobody_from_recording(
    ram_folder: Path,
) -> None:
    (ram_folder / "gone.parquet.part").symlink_to("nowhere")
    (ram_folder / "my \x1b[31mrun.csv.part").write_text("spool")
    said = records(ram_folder)
    assert "\x1b" not in said
    assert r"iorec recover $'my\040\033\13331mrun.csv.part'" in said


def test_an_output_folder_that_is_missing_or_read_only_is_named(ram_folder: Path) -> None:
    assert "No such file" in fails(ram_folder, "-o", "no/x.parquet")
    mount = ram_folder / "mount"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", mount], check=True)
    try:
        assert "Read-only file system" in fails(ram_folder, "-o", "mount/x.parquet")
    finally:
        subprocess.run(["umount", mount], check=True)


def test_an_unknown_suffix_lists_those_there_are(ram_folder: Path) -> None:
    error = fails(ram_folder, "-o", "x.json", status=2)
    assert ".parquet, .csv, .csv.gz" in error


def test_nothing_stays_attached_after_an_error(ram_folder: Path) -> None:
    before = attached_programs()
    recording = start_recording(ram_folder / "y.parquet")
    assert attached_programs() > before
    stop_recording(recording)
    assert attached_programs() == before
    fails(ram_folder, "-o", "x.parquet", "--", "/no/such/command", status=127)
    time.sleep(0.2)
    assert attached_programs() == before


def test_ctrl_c_at_any_moment_of_the_start_ends_quietly(ram_folder: Path) -> None:
    began_s = time.monotonic()
    stop_recording(start_recording(ram_folder / "x.parquet"))
    started_s = time.monotonic() - began_s
    (ram_folder / "x.parquet").unlink()
    # One in each tenth of what a start and its end took, wherever in it.
    for tenth, workload in itertools.product(range(10), ((), ("--", "sleep", "9"))):
        delay_s = started_s * (tenth + random.random()) / 10
        assert interrupt_record(ram_folder, delay_s, *workload) in (0, 130), delay_s


def interrupt_record(folder: Path, delay_s: float, *argv: str) -> int:
    """Sends what a terminal sends at Ctrl-C, to the whole group; returns the status."""
    with subprocess.Popen(
        [IOREC, "record", "-o", "x.parquet", *argv],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        time.sleep(delay_s)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    left = [path.name for path in folder.iterdir()]
    for path in folder.iterdir():
        path.unlink()
    deadline = time.monotonic() + 10
    while working := processes_in(folder):
        assert time.monotonic() < deadline, (delay_s, working)
        time.sleep(0.01)
    if "/iorec/" not in errors and process.returncode in (1, -signal.SIGINT):
        return 130  # Python itself was not there yet: what it says then is not ours
    assert "Traceback" not in errors, (delay_s, errors)
    assert left == ([] if process.returncode else ["x.parquet"]), (delay_s, errors)
    return process.returncode


def processes_in(folder: Path) -> list[Path]:
    """Those that work in the folder, as the recorder's children do; they hold its programs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder:
                found.append(process)
    return found
