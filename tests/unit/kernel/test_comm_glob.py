# SPDX-License-Identifier: GPL-2.0-only
"""A glob of thread names, as the kernel programs follow it, against the one of Python."""

import fnmatch
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.errors import IorecError
from iorec.kernel.comm_glob import LONGEST_NAME, glob_masks

PIECES = ["a", "b", "c", "*", "?", "[ab]", "[!a]", "[^b]", "[a-c]", "[]a]", "[", "]"]


def matches(glob: str, name: bytes) -> bool:
    """What is_wanted_comm() in bpf/filter.c does with a name."""
    *masks, state = struct.unpack("=257I", glob_masks(glob))
    for byte in name.ljust(LONGEST_NAME, b"\0"):
        state = (state & masks[byte] & 0xFFFF) << 1 | state & masks[byte] >> 16
    return bool(state & 1 << LONGEST_NAME)


@given(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(alphabet="abc]^", max_size=LONGEST_NAME),
)
def test_a_glob_matches_what_python_matches(glob: str, name: str) -> None:
    assert matches(glob, name.encode()) == fnmatch.fnmatchcase(name, in_python(glob))


def in_python(glob: str) -> str:
    """Python has no `^` for a class that is negated; within one it is a character like others."""
    return re.sub(r"\[([!^]?)(\]?[^]]*\])", lambda m: f"[{'!' * len(m[1])}{m[2]}", glob)


@pytest.mark.parametrize(
    ("glob", "name", "wanted"),
    [
        ("postgres*", b"postgres", True),
        ("*sql?", b"mysqld", True),
        ("*sql?", b"mysql", False),
        ("[ab]*", b"bash", True),
        ("[[^b]", b"^", True),
        ("[^b]", b"^", True),
        ("[^b]", b"b", False),
        ("*", b"", True),
        ("?", b"", False),
        ("kworker/[0-9]*", b"kworker/u8:1", False),
        ("?" * 15, b"123456789012345", True),
        ("*" * 40 + "5", b"123456789012345", True),
        ("a*b*c*d*e*f*g*h", b"aabbccddeeffgg", False),
        ("h\udcff*", b"h\xff\xfe", True),
        ("??", "é".encode(), True),
    ],
)
def test_a_glob_is_of_bytes(glob: str, name: bytes, wanted: bool) -> None:
    assert matches(glob, name) is wanted


@pytest.mark.parametrize("glob", ["?" * 16, "123456789012345*6", "[é]*"])
def test_a_glob_that_can_match_nothing_is_refused(glob: str) -> None:
    with pytest.raises(IorecError) as caught:
        glob_masks(glob)
    assert caught.value.exit_code == 2
