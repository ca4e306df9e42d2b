# SPDX-License-Identifier: GPL-2.0-only
"""The rows of captures, open for queries, and what a query needs to know of their files."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection

from analyze.capture_name import CaptureName
from analyze.hosts import name_on
from analyze.metadata import Device
from analyze.row_query import ORIGIN_COLUMNS
from analyze.selection import Selection, Window, recorded_span
from analyze.sources import CaptureFile


class OpenedRows:
    """What is summed up, listed and drawn.

    `connection` holds the view `io`: the rows in the window for which the condition holds, with the
    columns of the capture format, `host` and `capture`, the file. `repeats` are paths to files that
    were given twice.
    """

    def __init__(
        self,
        connection: DuckDBPyConnection,
        files: tuple[CaptureFile, ...],
        repeats: tuple[Path, ...],
        window: Window,
        selection: Selection,
    ) -> None:
        self.connection = connection
        self.files = files
        self.repeats = repeats
        self.window = window
        self.selection = selection

    @property
    def origin_ns(self) -> int:
        """When the first of the recordings started."""
        return recorded_span(self.files).begin_ns

    @property
    def covered_ns(self) -> int:
        """The time in the window during which at least one recording ran."""
        return self.covered_within_ns(self.window)

    def covered_within_ns(
        self, window: Window, host: str | None = None, capture: str | None = None
    ) -> int:
        """The same of any span of time, and of the recordings of a host or the one of a file."""
        covered, reached = 0, window.begin_ns
        for started_at, stopped_at in sorted(
            (file.metadata.started_at, file.metadata.stopped_at)
            for file in self.files
            if host in (None, file.host) and capture in (None, str(file.path.resolve()))
        ):
            end_ns = min(stopped_at, window.end_ns)
            covered += max(end_ns - max(started_at, reached), 0)
            reached = max(reached, end_ns)
        return covered

    def covered_ns_of_groups(self, window: Window) -> Callable[[Mapping[str, Any]], int]:
        """The same for rows of groups: of the recordings of its host, or the file, in its key."""

        @cache  # of many groups few have an origin of their own
        def covered_ns(host: str | None, capture: str | None) -> int:
            return self.covered_within_ns(window, host, capture)

        return lambda row: covered_ns(*map(row.get, ORIGIN_COLUMNS))

    def recorded_until_ns(self, time_ns: int) -> int:
        """When the first recording that was running at a time stopped, or the last one of all."""
        spans = [(file.metadata.started_at, file.metadata.stopped_at) for file in self.files]
        running = [stop for start, stop in spans if start <= time_ns <= stop]
        return min(running, default=max(stop for _, stop in spans))

    @property
    def has_several_hosts(self) -> bool:
        """Whether the files are of several machines, or boots of one: names alone tell nothing."""
        return len({file.host for file in self.files}) > 1

    @property
    def can_be_sliced(self) -> bool:
        """Whether the files can be read in part, as Parquet can."""
        return not any(CaptureName(file.path).is_csv for file in self.files)

    @property
    def devices(self) -> dict[str, Device]:
        """The devices of all recordings by name, which says the host if there are several."""
        return {
            name_on(file.host, device.name) if self.has_several_hosts else device.name: device
            for file in self.files
            for device in file.metadata.devices
        }

    def named(self, column: str) -> str:
        """SQL for a column of device names as they are in `devices`."""
        return f"host || ':' || {column}" if self.has_several_hosts else column

    def sql(
        self, query: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> DuckDBPyConnection:
        """Runs a query over `io`; the result has fetchall(), fetchnumpy(), df() and arrow()."""
        return self.connection.execute(query, parameters)

    def records(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query over `io` that has few, by the names of its columns."""
        result = self.sql(query)
        names = [column[0] for column in result.description or ()]
        return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
