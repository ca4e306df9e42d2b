# SPDX-License-Identifier: GPL-2.0-only
"""What the screen of top looks at: groups by what, in which order, of which I/Os."""

from dataclasses import dataclass, replace

from analyze.groupings import GROUPINGS
from analyze.groups import Key
from analyze.render.groups import format_key
from analyze.row_query import quoted
from analyze.summary_query import key_sql

# What is of interest in a group of each kind; of others its processes are.
_WITHIN: dict[tuple[str, ...], tuple[str, ...]] = {("process",): ("file",), ("thread",): ("file",)}


@dataclass(frozen=True)
class Look:
    """`within` are the keys of the groups that were looked into, and by what they were grouped."""

    by: tuple[str, ...]
    sort: str
    text: str = ""  # that a key must contain
    within: tuple[tuple[tuple[str, ...], Key], ...] = ()

    def into(self, key: Key) -> "Look":
        """The same of one group alone."""
        by = _WITHIN.get(self.by, ("process",))
        return replace(self, by=by, text="", within=(*self.within, (self.by, key)))

    def out(self) -> "Look":
        """Without the last narrowing."""
        if self.text or not self.within:
            return replace(self, text="")
        *before, (by, _) = self.within
        return replace(self, by=by, within=tuple(before))

    @property
    def where(self) -> str | None:
        """As a condition on the columns; None for all I/Os."""
        parts = [_is(column, value) for _, key in self.within for column, value in key.items()]
        if self.text:
            columns = [column for grouping in self.by for column in GROUPINGS[grouping]]
            text = quoted(self.text.lower())
            found = [f"contains(lower({key_sql(column)}::VARCHAR), {text})" for column in columns]
            parts.append(f"coalesce({' OR '.join(found)}, false)")
        return " AND ".join(f"({part})" for part in parts) or None

    def __str__(self) -> str:
        """`in process 1234 fio, in file /data, with "log"`; empty for all I/Os."""
        parts = [
            f"in {' '.join(by)} {' '.join(format_key(column, key[column]) for column in key)}"
            for by, key in self.within
        ]
        return ", ".join([*parts, *[f'with "{self.text}"'] * bool(self.text)])


def _is(column: str, value: str | int | None) -> str:
    sql = key_sql(column)
    if value is None:
        return f"{sql} IS NULL"
    return f"{sql} = {quoted(value) if isinstance(value, str) else value}"
