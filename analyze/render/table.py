# SPDX-License-Identifier: GPL-2.0-only
"""Lays out tables and sentences for a terminal of a given width."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len, set_cell_size

from analyze.column_names import TOO_LOW, column_name
from analyze.errors import unknown_name

_GAP = "  "
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:[nµm]?s|min|h|(?:[KMGTPE]i)?B)\b)")
_UNNAMED_FILE = re.compile(r"\d+:\d+:\d+", re.ASCII)
_GLUE = "\0"  # which no text has that may be shown


@dataclass(frozen=True)
class Column:
    """A column; `rank` says how early it may be left out, 0 never."""

    title: str
    cells: Sequence[str]
    rank: int = 0
    is_text: bool = False  # on the left side, and shortened if it is long


def fit_columns(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns for which there is room: those of the highest rank go first."""
    longest = max(width * 2 // 5, 12)
    fitting = [_shortened(column, longest) if column.is_text else column for column in columns]
    while sum(_width(column) + len(_GAP) for column in fitting) - len(_GAP) > width:
        last = max(fitting, key=lambda column: column.rank)
        if last.rank == 0:
            break
        fitting.remove(last)
    return fitting


def pick_columns(columns: Sequence[Column], names: Sequence[str]) -> list[Column]:
    """The columns of these names in their order, which are never left out.

    Names are as column_name has them. Raises IorecError for an unknown one.
    """
    known = {column_name(column.title): column for column in columns}
    for name in map(column_name, names):
        if name not in known:
            raise unknown_name("show the column", name, known)
    return [replace(known[column_name(name)], rank=0) for name in names]


def table_lines(columns: Sequence[Column], width: int) -> list[str]:
    """The columns for which there is room, then which are missing."""
    shown = fit_columns(columns, width)
    return [*format_columns(shown), *missing_lines(columns, shown, width)]


def missing_lines(columns: Sequence[Column], shown: Sequence[Column], width: int) -> list[str]:
    """Which columns are not among those shown, if any."""
    titles = [column.title for column in shown]
    missing = [column.title.lstrip(TOO_LOW) for column in columns if column.title not in titles]
    text = f"(no room for {', '.join(missing)}: pick with --columns)"
    return textwrap.wrap(text, width) if missing else []


def format_columns(columns: Sequence[Column]) -> list[str]:
    """A line with the titles and one for each row."""
    padded = [
        [_padded(cell, width, column.is_text) for cell in (column.title, *column.cells)]
        for column, width in zip(columns, map(_width, columns), strict=True)
    ]
    return [_GAP.join(row).rstrip() for row in zip(*padded, strict=True)]


def unnamed_file_lines(names: Iterable[object], width: int) -> list[str]:
    """What the first of the names means that is MAJOR:MINOR:INODE, if one is."""
    found = next(filter(_UNNAMED_FILE.fullmatch, map(str, names)), None)
    if found is None:
        return []
    device, _, inode = found.rpartition(":")
    said = f"({found} is inode {inode} of device {device}: no path was found for the file)"
    return textwrap.wrap(said, width)


def wrap_units(text: str, width: int, **options: Any) -> list[str]:
    """The text in lines, as textwrap.wrap has them, without a break between number and unit."""
    glued = textwrap.wrap(_BEFORE_UNIT.sub(_GLUE, text), width, **options)
    return [line.replace(_GLUE, " ") for line in glued]


def _shortened(column: Column, longest: int) -> Column:
    return replace(column, cells=[_without_middle(cell, longest) for cell in column.cells])


def _without_middle(cell: str, longest: int) -> str:
    """Both ends of a path or a name, which say more than its middle."""
    if cell_len(cell) <= longest:
        return cell
    tail = (longest - 1) // 2
    return f"{set_cell_size(cell, longest - 1 - tail)}…{set_cell_size(cell[::-1], tail)[::-1]}"


def _width(column: Column) -> int:
    return max(cell_len(cell) for cell in (column.title, *column.cells))


def _padded(cell: str, width: int, is_text: bool) -> str:
    space = " " * (width - cell_len(cell))
    return cell + space if is_text else space + cell
