# SPDX-License-Identifier: GPL-2.0-only
"""The loop in C is compiled where that is possible, and is asked for again where it was not."""

import os
from pathlib import Path

import pytest

from iorec.kernel import kept
from iorec.replay import native
from iorec.replay.layout import Pace


@pytest.mark.parametrize("body", ["exit 1", "exit 0"], ids=["fails", "makes nothing"])
def test_a_compiler_that_fails_is_tried_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\necho run >> {tmp_path}/runs\n{body}\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "iorec")
    monkeypatch.setattr(kept, "OWNER", os.geteuid())
    monkeypatch.setattr(native, "find_compiler", lambda: str(compiler))
    assert native.native_run(Pace()) is None
    assert native.native_run(Pace()) is None
    assert (tmp_path / "runs").read_text() == "run\n" * 2
