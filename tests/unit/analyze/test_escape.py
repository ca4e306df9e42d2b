# SPDX-License-Identifier: GPL-2.0-only
"""Names that any user of the recorded machine can choose do no harm and stay distinguishable."""

import os
import re
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.escape import escape_for_terminal, neutralise_for_csv, shell_word

ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
ANY_TEXT = st.text(st.characters(exclude_categories=[]) | st.sampled_from("\\x1bu0245c"))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("kworker/u8:3", "kworker/u8:3"),
        ("naïve-日本", "naïve-日本"),
        ("/system.slice/a\\x2db.service", "/system.slice/a\\x2db.service"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\\x1b", "\\x5cx1b"),
        ("abc\u202egnp", "abc\\u202egnp"),
        ("a\u200bb", "a\\u200bb"),
        ("a\u0301", "a\\u0301"),
        ("a\u3164b", "a\\u3164b"),
        ("a\tb\nc\r", "a\\x09b\\x0ac\\x0d"),
        ("\u00a0", "\\xa0"),
        ("\U000e0001", "\\U000e0001"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_invisible_or_active_is_shown_as_an_escape(name: str, shown: str) -> None:
    assert escape_for_terminal(name) == shown


@given(ANY_TEXT)
def test_a_shown_name_has_only_visible_characters(name: str) -> None:
    shown = escape_for_terminal(name)
    assert shown.isprintable()
    assert not any(unicodedata.category(character).startswith("M") for character in shown)


@given(ANY_TEXT)
def test_a_shown_name_leads_back_to_one_name_only(name: str) -> None:
    def unescape(match: re.Match[str]) -> str:
        code = int(match[1] or match[2] or match[3], 16)
        is_ours = code <= 0x10FFFF and escape_for_terminal(chr(code)) == match[0]
        return chr(code) if is_ours or code == 0x5C else match[0]

    assert ESCAPE.sub(unescape, escape_for_terminal(name)) == name


@pytest.mark.parametrize(
    "name", ["=cmd|' /C calc'!A0", "+1", "-1", "@x", "\tx", "\rx", "\nx", "\uff1d1", "'x"]
)
def test_a_formula_is_no_formula_in_csv(name: str) -> None:
    assert neutralise_for_csv(name) == "'" + name


@given(ANY_TEXT)
def test_dropping_the_first_quote_restores_every_name(name: str) -> None:
    neutral = neutralise_for_csv(name)
    assert not neutral.startswith(tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"))
    assert neutral.removeprefix("'") == name


@pytest.mark.parametrize(
    "path",
    [
        "run.parquet",
        "my run.parquet",
        "-x.parquet",
        "a;touch b;'.parquet",
        "a\x1b]0;b\x07.parquet",
        "a\nb\\x1b",
        "abc\u202egnp",
        "a\u0301",
        os.fsdecode(b"a\xff"),
    ],
)
def test_a_shell_takes_the_word_for_a_path_as_that_path(path: str) -> None:
    word = shell_word(path)
    assert escape_for_terminal(word) == word
    said = subprocess.run(["bash", "-c", f"printf %s {word}"], stdout=subprocess.PIPE, check=True)
    assert said.stdout.removeprefix(b"./") == os.fsencode(path)
