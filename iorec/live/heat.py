# SPDX-License-Identifier: GPL-2.0-only
"""Draws with characters how latencies were distributed over the last minutes."""

import math
from collections import Counter, deque

from analyze.opened import OpenedRows

MOST_COLUMNS = 600
_SHADES = " ·░▒▓█"
# Half decades of a nanosecond: from below 10 us to above 1 s.
_LOWEST, _HIGHEST = 7, 18
_LABELS = {8: "10 µs", 10: "100 µs", 12: "1 ms", 14: "10 ms", 16: "100 ms", 18: "1 s"}
_LABEL_WIDTH = 7
_QUERY = f"""
    SELECT least(greatest(floor(2 * log10(greatest(latency_ns, 1))), {_LOWEST}), {_HIGHEST})::INT,
        count(*)
    FROM io WHERE latency_ns IS NOT NULL AND op IS DISTINCT FROM 'cache_flush' GROUP BY 1
"""


class Heat:
    """The I/Os of each slice by latency, of the last ones."""

    def __init__(self) -> None:
        self._columns = deque[Counter[int]](maxlen=MOST_COLUMNS)

    def add(self, rows: OpenedRows | None) -> None:
        """Counts the I/Os of a further slice; None if it has none."""
        self._columns.append(Counter(dict(rows.sql(_QUERY).fetchall() if rows else ())))

    def lines(self, width: int, *, is_fine: bool) -> list[str]:
        """A line for each half decade, or each decade, the slowest first; the newest on the right.

        A darker character is for more I/Os, each for some times as many as the one before.
        """
        room = max(width - _LABEL_WIDTH - 2, 1)
        shown = list(self._columns)[-room:]
        step = 1 if is_fine else 2
        rows = [
            [sum(counts[place + more] for more in range(step)) for counts in shown]
            for place in range(_LOWEST - (step - 1), _HIGHEST + 1, step)
        ]
        most = max((count for row in rows for count in row), default=0)
        return [
            f"{_LABELS.get(place, ''):>{_LABEL_WIDTH}} │"
            + "".join(_shade(count, most) for count in row).rjust(room)
            for place, row in zip(
                range(_LOWEST - (step - 1), _HIGHEST + 1, step), rows, strict=True
            )
        ][::-1]


def _shade(count: int, most: int) -> str:
    if not count:
        return _SHADES[0]
    darkest = len(_SHADES) - 1
    return _SHADES[1 + round((darkest - 1) * math.log(count) / math.log(most))] if most > 1 else "█"
