# SPDX-License-Identifier: GPL-2.0-only
"""The README's quick start: what it says to type works."""

import subprocess
from pathlib import Path

from tests.kernel.conftest import IOREC, LoopDevice

README = Path(__file__).parent.parent.parent / "README.md"


def test_the_quick_start_runs_as_it_is_typed(loop: LoopDevice, tmp_path: Path) -> None:
    quick_start = README.read_text().partition("## Quick start\n")[2].split("```")[1]
    sudo = tmp_path / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{IOREC.parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    # Something happens on the machine meanwhile.
    reads = f"while dd if={loop.path} of=/dev/null bs=4k count=100 iflag=direct; do sleep 0.1; done"
    with subprocess.Popen(reads, shell=True, stderr=subprocess.DEVNULL) as reader:
        record, *others = quick_start.strip().splitlines()
        assert record.startswith("sudo iorec record ")
        subprocess.run(record, shell=True, cwd=tmp_path, env=env, check=True)
        reader.terminate()
    for line in others:
        subprocess.run(line, shell=True, cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "run.png").stat().st_size > 10_000
