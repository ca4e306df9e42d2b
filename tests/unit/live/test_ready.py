# SPDX-License-Identifier: GPL-2.0-only
"""What is said where there can be no full screen."""

import importlib.util
import sys

import pytest

from analyze.errors import IorecError
from iorec.live.ready import check_screen


class Terminal:
    """A stream to a terminal."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, Terminal())
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    check_screen()


def test_without_textual_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(IorecError, match="package textual") as caught:
        check_screen()
    assert f"{sys.executable} -m pip install textual" in caught.value.hint
    assert "--batch" in caught.value.hint


def test_what_draws_no_screen_gets_the_advice_to_print_tables(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(IorecError, match="needs a terminal") as caught:
        check_screen()
    assert "--batch" in caught.value.hint


def test_a_stream_that_is_closed_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdin", None)  # as Python has it then
    with pytest.raises(IorecError, match="needs a terminal"):
        check_screen()
