# SPDX-License-Identifier: GPL-2.0-only
"""How far a recording is, and who is told."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self


@dataclass(frozen=True)
class State:
    """How far a recording is."""

    elapsed_s: float
    rows: int
    rows_per_s: float
    filtered: int
    lost: int
    size_bytes: int


class Progress(Protocol):
    """Is told each second how far a recording is, if it wants that; a context manager."""

    is_wanted: bool

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None: ...

    def show(self, state: State) -> None:
        """What it raises is noted in the capture."""

    def say(self, text: str) -> None:
        """A line that is to stay."""

    def show_conversion(self, written: int, total: int) -> None:
        """How many of the rows the capture has."""
