# SPDX-License-Identifier: GPL-2.0-only
"""Turning a figure into the bytes of an image file."""

from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from analyze.capture_name import known_suffix
from analyze.plot.theme import theme

# No dates, so that the same capture gives the same file.
_METADATA: dict[str, dict[str, None]] = {
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def image_suffix(path: Path) -> str:
    """The suffix that picks the format; an error lists those there are."""
    return known_suffix(path, _METADATA)


def render(figure: Figure, suffix: str) -> bytes:
    buffer = BytesIO()
    with theme():
        figure.savefig(buffer, format=suffix.removeprefix("."), metadata=_METADATA[suffix])
    return buffer.getvalue()
