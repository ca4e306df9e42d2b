# SPDX-License-Identifier: GPL-2.0-only
"""Makes names from the recorded machine safe to show: any user there could choose them."""

import os
import re
import shlex
import unicodedata

_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))")
# Letters and symbols that are drawn as nothing: Hangul fillers, the blank Braille pattern.
_BLANKS = frozenset("\u115f\u1160\u3164\uffa0\u2800")
# The wide ones start a formula where such are typed. The last one does not: it makes dropping the
# first `'` restore every name.
_NEUTRALISED_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20'")


def escape_for_terminal(name: str) -> str:
    r"""The name with everything invisible or active as `\xNN`, `\uNNNN` or `\UNNNNNNNN`.

    Different names stay different: a backslash that would read as such an escape is one itself.
    """
    if name.isascii() and name.isprintable() and "\\" not in name:
        return name
    lookalikes = {match.start() for match in _ESCAPE.finditer(name) if _is_lookalike(match)}
    return "".join(
        character if _is_visible(character) and index not in lookalikes else _escape(character)
        for index, character in enumerate(name)
    )


def shell_word(path: str | os.PathLike[str]) -> str:
    r"""The path as it is to be typed into a shell; what cannot be shown in octal: `$'a\033'`."""
    text = os.fspath(path)
    word = f"./{text}" if text.startswith("-") else text
    if escape_for_terminal(word) == word:
        return shlex.quote(word)
    raw = os.fsencode(word).decode("latin-1")
    octal = re.sub(r"[^a-zA-Z0-9./_-]", lambda match: f"\\{ord(match[0]):03o}", raw)
    return f"$'{octal}'"


def neutralise_for_csv(name: str) -> str:
    """The name, behind a `'` if a spreadsheet would run it as a formula."""
    return f"'{name}" if name.startswith(_NEUTRALISED_STARTS) else name


def _is_lookalike(match: re.Match[str]) -> bool:
    code = int(match[1] or match[2] or match[3], 16)
    return code > 0x10FFFF or chr(code) == "\\" or not _is_visible(chr(code))


def _is_visible(character: str) -> bool:
    is_mark = unicodedata.category(character).startswith("M")
    return character.isprintable() and not is_mark and character not in _BLANKS


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
