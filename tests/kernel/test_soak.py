# SPDX-License-Identifier: GPL-2.0-only
"""A short soak in each test run; `make soak` is the long one."""

import os
import subprocess
import sys

SOAK_S = 20


def test_a_short_soak_finds_nothing_wrong() -> None:
    environment = {"SOAK_SEED": "1", **os.environ, "SOAK_S": str(SOAK_S)}
    soak = [sys.executable, "-m", "tests.soak"]
    done = subprocess.run(soak, env=environment, capture_output=True, text=True, timeout=280)
    print(done.stderr, done.stdout)
    assert done.returncode == 0, done.stdout
    assert "wrong process" in done.stdout
