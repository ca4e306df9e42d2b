# SPDX-License-Identifier: GPL-2.0-only
"""Lays out tables and sentences for a terminal of a given width."""

import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from rich.cells import cell_len, set_cell_size

from analyze.column_names import TOO_LOW, column_name
from analyze.errors import unknown_name
from analyze.escape import escape_for_terminal
from analyze.units import format_clock

_GAP = "  "
_WORTH_ROOM = 2  # the highest rank for which names get shorter
_BEFORE_UNIT = re.compile(r"(?<=\d) (?=(?:[nµm]?s|min|h|(?:[KMGTPE]i)?B)\b)")
_UNNAMED_FILE = re.compile(r"\d+:\d+:\d+", re.ASCII)
_GLUE = "\0"  # which no text has that may be shown


@dataclass(frozen=True)
class Column:
    """A column; `rank` says how early it may be left out, 0 never.

    For one of rank 1 or 2 names get shorter first.
    """

    title: str
    cells: Sequence[str]
    rank: int = 0
    is_text: bool = False  # on the left side, and shortened if it is long

    @cached_property
    def width(self) -> int:
        """Of the title and the longest cell."""
        return max(cell_len(cell) for cell in (self.title, *self.cells))


def cell_text(value: str | int | None) -> str:
    """What a cell shows of a number or a name from a file; `-` for none."""
    return "-" if value is None else escape_for_terminal(str(value))


def fit_columns(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns for which there is room: those of the highest rank go first.

    Text gets no longer than two fifths of the width, and where room is short down to one fifth.
    """
    longest, least = max(width * 2 // 5, 12), max(width // 5, 12)
    fitting = _without_last(columns, width, longest, _WORTH_ROOM)
    fitting = _without_last(fitting, width, least, 0)
    while longest > least and _table_width(fitting, longest) > width:
        longest -= 1
    return [_shortened(column, longest) if column.is_text else column for column in fitting]


def _without_last(
    columns: Sequence[Column], width: int, longest: int, kept_rank: int
) -> list[Column]:
    """Those that fit into the width with text of some length, and all up to a rank."""
    fitting = [*columns]
    while _table_width(fitting, longest) > width:
        last = max(fitting, key=lambda column: column.rank)
        if last.rank <= kept_rank:
            break
        fitting.remove(last)
    return fitting


def _table_width(columns: Sequence[Column], longest: int) -> int:
    """Of the columns, with text of some length at the most."""
    widths = [
        min(column.width, max(longest, cell_len(column.title))) if column.is_text else column.width
        for column in columns
    ]
    return sum(widths) + len(_GAP) * (len(widths) - 1)


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
        [pad(cell, column.width, column.is_text) for cell in (column.title, *column.cells)]
        for column in columns
    ]
    return [_GAP.join(row).rstrip() for row in zip(*padded, strict=True)]


def clock_note(header: str, origin_ns: int) -> str:
    """The time of day from which times count, if a table has no room for its column UTC."""
    has_clock = {"START", "UTC"}.intersection(header.split()) != {"START"}
    return "" if has_clock else f" (0 s is {format_clock(origin_ns)} UTC)"


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
    return replace(column, cells=[shorten(cell, longest) for cell in column.cells])


def shorten(cell: str, longest: int) -> str:
    """Both ends of a name, which say more than its middle; of a path its last parts above all."""
    if cell_len(cell) <= longest:
        return cell
    if cell.startswith("/") and "/" in cell[1:] and " " not in cell:  # which a command line has
        return _last_parts(cell, longest)
    tail = (longest - 1) // 2
    return f"{set_cell_size(cell, longest - 1 - tail)}…{set_cell_size(cell[::-1], tail)[::-1]}"


def _last_parts(path: str, longest: int) -> str:
    """`/var/…/main/pg_wal/0001`, `…/pg_wal/0001` or less of it."""
    _, first, *parts = path.split("/")
    endings = ["/".join(parts[place:]) for place in range(len(parts))]
    shorter = [f"/{first}/…/{ending}" for ending in endings[1:-1]]
    shorter += [f"…/{ending}" for ending in endings[-2:]]
    fitting = (candidate for candidate in shorter if cell_len(candidate) <= longest)
    return next(fitting, f"…/{shorten(parts[-1], longest - 2)}")


def pad(cell: str, width: int, is_text: bool) -> str:
    space = " " * (width - cell_len(cell))
    return cell + space if is_text else space + cell
