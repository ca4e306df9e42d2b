# SPDX-License-Identifier: GPL-2.0-only
"""Opens captures for queries: one table `io` over all of their rows, in bounded memory."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from duckdb import (
    BinderException,
    CatalogException,
    DataError,
    DuckDBPyConnection,
    DuckDBPyRelation,
    Error,
    OutOfMemoryException,
    ParserException,
    ResourceInUseException,
    connect,
)

from analyze.condition import check_condition, first_line
from analyze.errors import IorecError
from analyze.hosts import host_labels, name_on
from analyze.metadata import Device
from analyze.rows import ORIGIN_COLUMNS, literal_path, quoted, rows_query
from analyze.schema import SCHEMA
from analyze.selection import Selection, Window, check_selection, recorded_span, select_window
from analyze.shown import layer_condition
from analyze.sources import CaptureFile, find_captures, read_capture_file, without_repeats
from analyze.units import format_duration

if TYPE_CHECKING:
    import pyarrow as pa

    from analyze.completeness import Completeness
    from analyze.summary import Summary

_MEMORY_LIMIT = "640MB"
_MAX_THREADS = 8  # more of them would not fit into the memory
_MISTAKES_OF_CALLERS = (
    BinderException,
    CatalogException,
    ParserException,
    ResourceInUseException,
)


class Capture:
    """Captures opened as one; a context manager.

    `connection` holds the view `io`: the rows in the window for which the condition holds, with the
    columns of the capture format, `host` and `capture`, the file. `repeats` are paths to files that
    were given twice. Within the context manager, a failure to read the files is an IorecError.
    """

    def __init__(
        self,
        connection: DuckDBPyConnection,
        files: tuple[CaptureFile, ...],
        repeats: tuple[Path, ...],
        window: Window,
        selection: Selection,
        resources: ExitStack,
    ) -> None:
        self.connection = connection
        self.files = files
        self.repeats = repeats
        self.window = window
        self.selection = selection
        self._resources = resources

    def __enter__(self) -> "Capture":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, RuntimeError) and str(error) == "Query interrupted":
            raise KeyboardInterrupt from error  # DuckDB's word for Ctrl-C
        if isinstance(error, Error) and not isinstance(error, _MISTAKES_OF_CALLERS):
            raise self._explained(error) from error

    def close(self) -> None:
        """Closes the files; a second time does nothing."""
        self._resources.close()

    @property
    def origin_ns(self) -> int:
        """When the first of the recordings started."""
        return recorded_span(self.files).begin_ns

    @property
    def covered_ns(self) -> int:
        """The time in the window during which at least one recording ran."""
        covered, reached = 0, self.window.begin_ns
        for started_at, stopped_at in sorted(
            (file.metadata.started_at, file.metadata.stopped_at) for file in self.files
        ):
            end_ns = min(stopped_at, self.window.end_ns)
            covered += max(end_ns - max(started_at, reached), 0)
            reached = max(reached, end_ns)
        return covered

    @property
    def has_several_hosts(self) -> bool:
        """Whether the files are of several machines, or boots of one: names alone tell nothing."""
        return len({file.host for file in self.files}) > 1

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

    def completeness(self) -> "Completeness":
        """Whether all I/Os were recorded, of the whole recordings and not only of the window."""
        from analyze.completeness import make_completeness

        return make_completeness(self.files)

    def summary(
        self,
        by: Sequence[str] = ("process",),
        *,
        sort: str = "time",
        top: int | None = None,
        histogram: bool = False,
    ) -> "Summary":
        """The I/Os by group, as `iorec report` shows them; see analyze.summary.summarize."""
        from analyze.summary import summarize

        return summarize(self, by, sort=sort, top=top, histogram=histogram)

    def duckdb(self) -> DuckDBPyRelation:
        """The rows as a DuckDB relation, which reads them when asked.

        Of several files, the rows say which: in `host` and `capture`.
        """
        origin = ORIGIN_COLUMNS if len(self.files) > 1 else ()
        columns = ", ".join(f'"{name}"' for name in (*SCHEMA.names, *origin))
        return self.connection.view("io").select(columns)

    def table(self) -> "pa.Table":
        """All rows as an Arrow table, in memory."""
        return self.duckdb().to_arrow_table()

    def pandas(self) -> Any:
        """All rows as a pandas data frame, in memory."""
        return self.table().to_pandas()

    def _explained(self, error: Error) -> Exception:
        names = ", ".join(str(file.path) for file in self.files)
        if isinstance(error, OutOfMemoryException):
            return IorecError(
                f"cannot read {names}: it takes more than the {_MEMORY_LIMIT} of memory allowed",
                "group by fewer columns or narrow the time with -b and -e",
            )
        if isinstance(error, DataError) and self.selection.where is not None:
            return IorecError(
                f"cannot filter by --where: {first_line(error)}",
                "compare each column with a value of its own type",
                exit_code=2,
            )
        return IorecError(
            f"cannot read {names}: the file is damaged: {first_line(error)}",
            "get a fresh copy of the file, or record once more",
        )


def open_captures(
    paths: Sequence[str | Path],
    *,
    begin_s: float | None = None,
    end_s: float | None = None,
    where: str | None = None,
    layer: str | None = None,
) -> Capture:
    """Opens files, globs and folders as one capture.

    `begin_s` and `end_s` count from the start of the first recording; `where` is a SQL condition on
    the columns; `layer` is `request` or `bio`, see Selection. What cannot be read, or leaves no
    rows, raises IorecError.
    """
    selection = Selection(begin_s, end_s, where, layer)
    check_selection(selection)
    found, repeats = without_repeats(find_captures(paths))
    with ExitStack() as resources:
        connection = _connect(found, resources)
        files = _with_hosts([read_capture_file(connection, path) for path in found])
        window = select_window(recorded_span(files), selection)
        _create_views(connection, files, window, selection)
        kept = resources.pop_all()
        capture = Capture(connection, files, tuple(repeats), window, selection, kept)
    if selection != Selection():
        _check_has_rows(capture)
    return capture


def _with_hosts(files: Sequence[CaptureFile]) -> tuple[CaptureFile, ...]:
    labels = host_labels([file.metadata for file in files])
    return tuple(replace(file, host=label) for file, label in zip(files, labels, strict=True))


def _connect(paths: Sequence[Path], resources: ExitStack) -> DuckDBPyConnection:
    """A database in memory that can read these files and reach nothing else."""
    spill = resources.enter_context(tempfile.TemporaryDirectory(prefix="iorec-"))
    connection = connect(
        config={
            "memory_limit": _MEMORY_LIMIT,
            "threads": min(os.cpu_count() or 1, _MAX_THREADS),
            "temp_directory": spill,
            "preserve_insertion_order": False,
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
        }
    )
    resources.callback(connection.close)
    names = {name for path in paths for name in (str(path.resolve()), literal_path(path))}
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, names))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _create_views(
    connection: DuckDBPyConnection,
    files: Sequence[CaptureFile],
    window: Window,
    selection: Selection,
) -> None:
    """Creates `shown`, the rows in the window, and `io`, those of them that meet the condition.

    `bios` are all bios that succeeded, those of devices too of which requests are shown.
    """
    conditions = ["true"]
    if selection.begin_s is not None:
        conditions.append(f"time >= make_timestamp_ns({window.begin_ns})::TIMESTAMPTZ_NS")
    if selection.end_s is not None:
        conditions.append(f"time < make_timestamp_ns({window.end_ns})::TIMESTAMPTZ_NS")
    rows = rows_query(file.row_source for file in files)
    window_rows = f"SELECT * FROM ({rows}) WHERE {' AND '.join(conditions)}"
    layer = layer_condition(connection, files, selection.layer)
    connection.execute(f"CREATE TEMP VIEW shown AS {window_rows} AND {layer}")
    where = selection.where
    if where is not None:
        check_condition(connection, where, "shown AS io")
    connection.execute(f"CREATE TEMP VIEW io AS SELECT * FROM shown AS io WHERE\n{where or 'true'}")
    connection.execute(
        f"CREATE TEMP VIEW bios AS SELECT * FROM ({window_rows}) AS io"
        f" WHERE layer = 'bio' AND latency_ns IS NOT NULL AND errno = 0 AND (\n{where or 'true'}\n)"
    )


def _check_has_rows(capture: Capture) -> None:
    """Closes the capture and raises if nothing is left to look at."""
    with ExitStack() as on_failure:
        on_failure.enter_context(capture)
        if not capture.sql("SELECT 1 FROM io LIMIT 1").fetchall():
            selection = capture.selection
            narrowed = "for which the condition holds" if selection.where else "in the window"
            if selection.layer is not None and not selection.where:
                narrowed = f"in the layer {selection.layer}"
            length = format_duration(recorded_span(capture.files).end_ns - capture.origin_ns)
            raise IorecError(
                f"no I/Os are left: there is none {narrowed}",
                f"the capture is {length} long; widen -b and -e, or loosen --where",
            )
        on_failure.pop_all()
