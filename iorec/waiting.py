# SPDX-License-Identifier: GPL-2.0-only
"""Shows on the terminal how far a command is that takes more than a second."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_PATIENCE_S = 1.0
_PAUSE_S = 0.2


class WaitingLine:
    """One line on stderr that is gone at the end; nothing if stderr is no terminal.

    Without rich, which takes as long to import as a small report.
    """

    def __init__(self) -> None:
        self.is_wanted = sys.stderr.isatty()
        self._started_s = time.monotonic()
        self._next_s = self._started_s + _PATIENCE_S
        self._width = 0

    def __enter__(self) -> "WaitingLine":
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            self._write("")
            sys.stderr.write("\r")

    def show(self, what: str, share: float | None) -> None:
        """Draws the line again, if it is time to: what is done, its share if known, the time."""
        now_s = time.monotonic()
        if self.is_wanted and now_s >= self._next_s:
            self._next_s = now_s + _PAUSE_S
            done = "" if share is None else f"{share:.0%}, "
            self._write(f"{what}: {done}{now_s - self._started_s:.0f} s")

    def _write(self, text: str) -> None:
        # Spaces, as a terminal may know no code for erasing.
        sys.stderr.write(f"\r{text:<{self._width}}")
        sys.stderr.flush()
        self._width = len(text)


@contextmanager
def showing_queries(read_percent: Callable[[], float]) -> Iterator[None]:
    """Shows meanwhile how far DuckDB is with each query; a negative percentage is unknown."""
    has_ended = threading.Event()

    def poll() -> None:
        while not has_ended.wait(_PAUSE_S):
            percent = read_percent()
            line.show("reading", percent / 100 if percent >= 0 else None)

    with WaitingLine() as line:
        if not line.is_wanted:
            yield
            return
        poller = threading.Thread(target=poll)
        poller.start()
        try:
            yield
        finally:
            has_ended.set()
            poller.join()
