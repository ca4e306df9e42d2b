# SPDX-License-Identifier: GPL-2.0-only
"""Turning a figure into the bytes of an image file, which say that they are ours."""

import re
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from analyze.capture_name import known_suffix
from analyze.plot.theme import theme

# No dates, so that the same capture gives the same file.
_METADATA: dict[str, dict[str, str | None]] = {
    ".png": {"Software": "iorec"},
    ".svg": {"Creator": "iorec", "Date": None},
    ".pdf": {"Creator": "iorec", "CreationDate": None},
}
_PNG_START = re.compile(rb"\x89PNG\r\n\x1a\n.{4}IHDR.{17}\0\0\0\x0etEXtSoftware\0iorec", re.DOTALL)
PNG_START_BYTES = 64  # enough of a file to tell whether it is our PNG


class Picture(Figure):
    """A figure that a notebook shows by itself, also without pyplot."""

    def _repr_png_(self) -> bytes:
        return render(self, ".png")


def image_suffix(path: Path) -> str:
    """The suffix that picks the format; an error lists those there are."""
    return known_suffix(path, _METADATA)


def is_our_png(start: bytes) -> bool:
    """Whether a file that starts so is a PNG which `render` made."""
    return _PNG_START.match(start) is not None


def render(figure: Figure, suffix: str) -> bytes:
    buffer = BytesIO()
    with theme():
        figure.savefig(buffer, format=suffix.removeprefix("."), metadata=_METADATA[suffix])
    return buffer.getvalue()
