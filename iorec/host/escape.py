# SPDX-License-Identifier: GPL-2.0-only
"""Turns names of any bytes into text."""


def escape_name(raw: bytes) -> str:
    """A name as text: bytes that are not UTF-8, and a backslash, as `\\xNN`."""
    return raw.replace(b"\\", b"\\x5c").decode(errors="backslashreplace")
