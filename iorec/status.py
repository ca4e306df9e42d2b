# SPDX-License-Identifier: GPL-2.0-only
"""Shows a running recording on the terminal."""

import contextlib
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from analyze.metadata import Filters
from analyze.units import format_bytes, format_count
from iorec.messages import format_unmatched
from iorec.record.filters import filter_options
from iorec.record.progress import State
from iorec.record.settings import Limits

_PATIENCE_S = 5.0


class StatusLine:
    """One line on stderr, redrawn each second; nothing if stderr is no terminal.

    Only `show` may raise, whatever becomes of the terminal. A filter that lets nothing through is
    said once, terminal or not; without `filters` that is left to somebody else.
    """

    def __init__(self, limits: Limits, filters: Filters | None, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._limits = limits
        self._filters = filters
        self._awaits_match = (
            filters is not None
            and filters.min_latency_ns is None  # nothing is wrong as long as nothing is slow
            and bool(filter_options(filters))
        )
        console = Console(stderr=True)
        has_end = limits.duration_ns is not None or limits.count is not None
        columns = (BarColumn(20), TextColumn("{task.description}"))
        is_shown = not is_quiet and sys.stderr.isatty()
        self.is_wanted = is_shown or self._awaits_match
        self._progress = Progress(
            *(columns if has_end else columns[1:]),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not is_shown,
        )
        self._task: TaskID = self._progress.add_task("", total=1.0)

    def __enter__(self) -> "StatusLine":
        with contextlib.suppress(Exception):
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):
            self._progress.stop()

    def show(self, state: State) -> None:
        """Draws the line again."""
        self._warn(state)
        done = 0.0
        if self._limits.duration_ns is not None:
            done = state.elapsed_s * 1e9 / self._limits.duration_ns
        if self._limits.count is not None:
            done = max(done, state.rows / self._limits.count)
        text = (
            f"{state.elapsed_s:.0f} s  {format_count(state.rows)} I/Os  "
            f"{format_count(round(state.rows_per_s))}/s  {format_count(state.lost)} lost  "
            f"{format_bytes(state.size_bytes)}"
        )
        self._draw(text, done)

    def _warn(self, state: State) -> None:
        if self._filters is None or not self._awaits_match or state.elapsed_s < _PATIENCE_S:
            return
        warning = format_unmatched(self._filters, state.rows, state.filtered)
        self._awaits_match = state.rows == 0 and not warning
        if warning:
            self.say(f"warning: {warning}")

    def say(self, text: str) -> None:
        """Prints a line above the status line, unless nothing is to be said."""
        if not self._is_quiet or text.startswith("warning: "):
            self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def show_conversion(self, written: int, total: int) -> None:
        """Draws how far the capture is written."""
        text = f"writing: {format_count(written)} of {format_count(total)} I/Os"
        with contextlib.suppress(Exception):
            self._draw(text, written / max(total, 1))

    def _draw(self, text: str, done: float) -> None:
        self._progress.update(self._task, description=text, completed=done)
        self._progress.refresh()
