# SPDX-License-Identifier: GPL-2.0-only
"""Makes up names of every length, of letters, of any text, and of any bytes."""

import os
import random
from pathlib import Path

_LONGEST = 255  # bytes of one component
_LONGEST_PATH = 3800  # of a folder
_ALPHABETS = {
    "letters": [bytes([byte]) for byte in b"abcdefghijklmnopqrstuvwxyz0123456789-_."],
    "text": [letter.encode() for letter in "aéß漢字\U0001f40d עִ‮"],
    "traps": [bytes([byte]) for byte in b"\\\"'`$ \t\r\x1b%,;:|=<>(){}[]*?#"],
    "bytes": [bytes([byte]) for byte in range(1, 256) if byte not in b"/\n"],
}


def component(dice: random.Random, number: int) -> str:
    """The name of one file or folder; the number makes it unlike all others."""
    tail = b"~%d" % number + dice.choice((b"", b"", b"", b" (deleted)"))
    room = dice.choice((1, 8, dice.randint(1, _LONGEST), _LONGEST)) - len(tail)
    alphabet, raw = dice.choice(list(_ALPHABETS.values())), b""
    while len(raw) + 4 <= room:
        raw += dice.choice(alphabet)
    return os.fsdecode(raw + tail)


def deep_folder(dice: random.Random, top: Path) -> Path:
    """Makes folders below each other until their path is as long as paths may be."""
    folder = top
    while (room := _LONGEST_PATH - len(os.fsencode(folder))) > _LONGEST + 1:
        folder /= component(dice, room)
        folder.mkdir()
    return folder
