# SPDX-License-Identifier: GPL-2.0-only
"""A start needs BCC once: what it compiled is kept for the next recordings."""

import os
import subprocess
from pathlib import Path

import pytest

from iorec.kernel.kept import FOLDER
from iorec.kernel.layers import LAYER_NAMES
from iorec.kernel.load import compile_plan, defines_of
from iorec.kernel.plan import KernelFilter, Plan
from iorec.record.session import MOST_SLOTS
from tests.kernel.captures import assert_accounts_close, read_capture
from tests.kernel.conftest import IOREC, LoopDevice
from tests.kernel.load import fio


@pytest.fixture
def without_bcc(tmp_path: Path) -> dict[str, str]:
    """An environment in which BCC cannot be imported."""
    package = tmp_path / "bcc"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('hidden by the test')\n")
    return os.environ | {"PYTHONPATH": str(tmp_path)}


def record(
    output: Path, loop: LoopDevice, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    work = fio(loop, "--rw=randread", "--number_ios=500")
    options: list[str | Path] = [
        "-f",
        "-o",
        output,
        "-d",
        loop.name,
        "-l",
        "request,bio",
        "--",
        *work,
    ]
    return subprocess.run(
        [IOREC, "record", *options], env=environment, capture_output=True, text=True, timeout=240
    )


def test_a_later_start_needs_no_compiler(
    loop: LoopDevice, tmp_path: Path, without_bcc: dict[str, str]
) -> None:
    output = tmp_path / "run.parquet"
    assert record(output, loop).returncode == 0
    done = record(output, loop, without_bcc)
    assert done.returncode == 0, done.stderr
    capture = read_capture(output)
    assert_accounts_close(capture, loop.name)
    # Its own number, not that of the recorder before, is left out of a recording.
    assert capture.table.num_rows >= 1000


def test_without_a_kept_entry_the_compiler_is_asked_for(
    loop: LoopDevice, tmp_path: Path, without_bcc: dict[str, str]
) -> None:
    assert record(tmp_path / "run.parquet", loop).returncode == 0
    for entry in FOLDER.iterdir():
        entry.write_bytes(entry.read_bytes()[:-1])
    done = record(tmp_path / "run.parquet", loop, without_bcc)
    assert done.returncode == 1
    assert "cannot import bcc: hidden by the test" in done.stderr
    assert record(tmp_path / "run.parquet", loop).returncode == 0
    assert record(tmp_path / "run.parquet", loop, without_bcc).returncode == 0


@pytest.mark.parametrize("layers", [("request", "bio"), LAYER_NAMES])
def test_all_maps_of_a_machine_of_many_cpus_take_64_mib_at_most(layers: tuple[str, ...]) -> None:
    plan = Plan(KernelFilter(), layers, 16 << 20, MOST_SLOTS // 8, is_preemptible=True)
    defines = defines_of(plan, cpus=256)
    compiled = compile_plan(plan, defines)
    assert 16 << 20 < sum(made.memory_bytes for made in compiled.maps) <= 64 << 20


def test_a_capture_says_what_the_maps_took(loop: LoopDevice, tmp_path: Path) -> None:
    output = tmp_path / "run.parquet"
    assert record(output, loop).returncode == 0
    taken = read_capture(output).metadata["recorder"]["kernel_memory_bytes"]
    plan = Plan(KernelFilter(), ("request", "bio"), 16 << 20, MOST_SLOTS // 8, is_preemptible=False)
    compiled = compile_plan(plan, defines_of(plan))
    assert taken == pytest.approx(sum(made.memory_bytes for made in compiled.maps), rel=0.05)
    said = subprocess.run([IOREC, "info", output], capture_output=True, text=True).stdout
    assert "with all maps" in " ".join(said.split())


def test_a_recorded_command_has_the_environment_that_it_would_have_without(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "ODD": "a\nb\udcff"}
    alone = subprocess.run(["env", "-0"], env=environment, capture_output=True, check=True).stdout
    command: list[str | Path] = [
        IOREC,
        "record",
        "-q",
        "-o",
        tmp_path / "run.parquet",
        "--",
        "env",
        "-0",
    ]
    recorded = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert set(recorded.split(b"\0")) == set(alone.split(b"\0"))
