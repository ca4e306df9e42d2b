"""Shows a running recording on the terminal."""

import contextlib
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from analyze.units import format_bytes, format_count
from iorec.limits import Limits
from iorec.recorder import State


class StatusLine:
    """One line on stderr, redrawn each second; nothing if stderr is no terminal.

    Only `show` may raise, whatever becomes of the terminal.
    """

    def __init__(self, limits: Limits, *, is_quiet: bool) -> None:
        self._limits = limits
        console = Console(stderr=True)
        has_end = limits.duration_ns is not None or limits.count is not None
        columns = (BarColumn(20), TextColumn("{task.description}"))
        self.is_shown = not is_quiet and sys.stderr.isatty()
        self._progress = Progress(
            *(columns if has_end else columns[1:]),
            console=console,
            auto_refresh=False,
            transient=True,
            disable=not self.is_shown,
        )
        self._task: TaskID = self._progress.add_task("", total=1.0)

    def __enter__(self) -> "StatusLine":
        with contextlib.suppress(Exception):
            self._progress.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):
            self._progress.stop()

    def show(self, state: State) -> None:
        """Draws the line anew."""
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

    def show_conversion(self, written: int, total: int) -> None:
        """Draws how far the capture is written."""
        text = f"writing: {format_count(written)} of {format_count(total)} I/Os"
        with contextlib.suppress(Exception):
            self._draw(text, written / max(total, 1))

    def _draw(self, text: str, done: float) -> None:
        self._progress.update(self._task, description=text, completed=done)
        self._progress.refresh()
