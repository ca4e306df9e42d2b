# SPDX-License-Identifier: GPL-2.0-only
"""Compiles a glob of thread names for bpf/filter.c, which follows all ways to match it at once."""

import struct

from analyze.errors import IorecError

# TASK_COMM_LEN of the kernel, without the NUL at the end.
LONGEST_NAME = 15
_STEP = 16  # in a mask, to the bits of the states that a byte keeps


def is_glob(name: str) -> bool:
    """Whether a name may match several."""
    return any(special in name for special in "*?[")


def glob_masks(glob: str) -> bytes:
    """A `struct comm_glob`: for each byte of a name one mask, and the state in which to start.

    As in Shift-And (Baeza-Yates and Gonnet 1992), the states are bits: a name is in the first one
    before its first byte, and matches if it is in the last one, bit 15, behind its last byte. The
    low half of a mask has the states that the byte takes to the next one, the high half those that
    it keeps: where a star stands. NUL, which follows the name, keeps them all.
    """
    classes, starred = _parse(glob)
    if len(classes) > LONGEST_NAME:
        raise IorecError(
            f"no thread's name matches {glob!r}: the kernel keeps {LONGEST_NAME} bytes of it",
            "make it shorter, with a * at its end",
            exit_code=2,
        )
    first = LONGEST_NAME - len(classes)
    kept = sum(1 << first + place for place in starred) << _STEP
    masks = [kept] * 256
    masks[0] = 0xFFFF << _STEP
    for place, accepted in enumerate(classes):
        for byte in accepted - {0}:
            masks[byte] |= 1 << first + place
    return struct.pack("=257I", *masks, 1 << first)


def _parse(glob: str) -> tuple[list[frozenset[int]], set[int]]:
    """The bytes that each place takes, and the places before which anything may stand."""
    classes: list[frozenset[int]] = []
    starred: set[int] = set()
    place = 0
    while place < len(glob):
        character, rest = glob[place], glob[place + 1 :]
        place += 1
        if character == "*":
            starred.add(len(classes))
        elif character == "?":
            classes.append(frozenset(range(256)))
        elif character == "[" and (end := rest.find("]", 2 if rest[:1] in ("!", "^") else 1)) > 0:
            classes.append(_parse_class(glob, rest[:end]))
            place += end + 1
        else:
            classes += map(frozenset, zip(character.encode(errors="surrogateescape")))
    return classes, starred


def _parse_class(glob: str, text: str) -> frozenset[int]:
    """The bytes of what stands in brackets, such as `a-z_` or `!0-9`."""
    if not text.isascii():
        raise IorecError(
            f"{glob!r} has a character in brackets that takes several bytes",
            "give several -c instead, or a ? for each of its bytes",
            exit_code=2,
        )
    is_negated = text[0] in "!^"
    codes = text[is_negated:].encode()
    accepted: set[int] = set()
    while codes:
        if codes[1:2] == b"-" and len(codes) > 2:
            accepted.update(range(codes[0], codes[2] + 1))
            codes = codes[3:]
        else:
            accepted.add(codes[0])
            codes = codes[1:]
    return frozenset(range(256)) - accepted if is_negated else frozenset(accepted)
