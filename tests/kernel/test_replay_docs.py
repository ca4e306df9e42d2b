# SPDX-License-Identifier: GPL-2.0-only
"""docs/replay.md: its example runs as it is typed."""

import os
import subprocess
from pathlib import Path

from tests.kernel.conftest import IOREC

ROOT = Path(__file__).parents[2]


def test_the_example_runs_as_it_is_typed(ram_folder: Path) -> None:
    text = (ROOT / "docs/replay.md").read_text()
    example = text.partition("<!-- example -->\n```\n")[2].partition("```")[0]
    assert example.count("iorec ") == 4
    (ram_folder / "samples").symlink_to(ROOT / "samples")
    sudo = ram_folder / "sudo"
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    done = subprocess.run(
        ["sh", "-ec", example],
        cwd=ram_folder,
        env={**os.environ, "PATH": f"{ram_folder}:{IOREC.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "26,800 I/Os done of 26,800, 0 failed, 0 short" in done.stderr
    assert "matched: " in done.stdout
    assert not (ram_folder / "disk.img").stat().st_mode & 0o111
