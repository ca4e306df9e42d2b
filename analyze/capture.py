# SPDX-License-Identifier: GPL-2.0-only
"""Opens captures for queries: one table `io` over all of their rows, in bounded memory."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
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
)

from analyze.batches import stream_batches
from analyze.completeness import Completeness, make_completeness
from analyze.condition import first_line
from analyze.database import MEMORY_LIMIT, create_views, open_database
from analyze.errors import IorecError
from analyze.frames import to_pandas, to_polars
from analyze.hosts import host_labels
from analyze.ledgers import only_layer
from analyze.opened import OpenedRows
from analyze.render.opened import opened_line, opened_table
from analyze.row_query import ORIGIN_COLUMNS, identifier
from analyze.schema import SCHEMA
from analyze.selection import (
    Selection,
    Window,
    format_span,
    make_selection,
    recorded_span,
    select_window,
)
from analyze.sources import CaptureFile, find_captures, read_capture_file, without_repeats
from analyze.summary import Summary, summarize

if TYPE_CHECKING:
    from polars import DataFrame

    from analyze.plot.output import Picture

_MISTAKES_OF_CALLERS = (
    BinderException,
    CatalogException,
    ParserException,
    ResourceInUseException,
)


class Capture(OpenedRows):
    """Captures opened as one; a context manager, in which a failure to read is an IorecError."""

    def __init__(
        self,
        connection: DuckDBPyConnection,
        files: tuple[CaptureFile, ...],
        repeats: tuple[Path, ...],
        window: Window,
        selection: Selection,
        resources: ExitStack,
        memory_limit: str = MEMORY_LIMIT,
    ) -> None:
        super().__init__(connection, files, repeats, window, selection)
        self._resources = resources
        self._memory_limit = memory_limit

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

    def __repr__(self) -> str:
        return opened_line(self.files, self.selection, self.completeness())

    def _repr_html_(self) -> str:
        return opened_table(self.files, self.selection, self.completeness())

    def close(self) -> None:
        """Closes the files; a second time does nothing."""
        self._resources.close()

    def completeness(self) -> Completeness:
        """Whether all I/Os were recorded, of the whole recordings and not only of the window."""
        return make_completeness(self.files)

    def summary(
        self,
        by: str | Sequence[str] = "process",
        *,
        sort: str = "time",
        top: int | None = None,
        histogram: bool = False,
        interval_ns: int | None = None,
    ) -> Summary:
        """The I/Os by group, as `iorec report` shows them; see analyze.summary.summarize."""
        return summarize(self, by, sort=sort, top=top, histogram=histogram, interval_ns=interval_ns)

    def duckdb(self) -> DuckDBPyRelation:
        """The rows as a DuckDB relation, which reads them when asked.

        Of several files, the rows say which: in `host` and `capture`.
        """
        return self.connection.view("io").select(", ".join(map(identifier, self._columns)))

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """Streams the rows by time, over all files, in Arrow batches of `rows` at most.

        The memory that it takes does not grow with the capture. Rows of one time come in any order.
        """
        with self.connection.cursor() as own:  # so that other queries may run in between
            wanted = columns or self._columns
            yield from stream_batches(own, wanted, rows, in_slices=self.can_be_sliced)

    def arrow(self) -> pa.Table:
        """All rows by time as an Arrow table, in memory, with the types of the capture format."""
        name_type = SCHEMA.field("file").type
        origins = [pa.field(name, name_type) for name in self._columns if name in ORIGIN_COLUMNS]
        schema = pa.schema([*SCHEMA, *origins])
        batches = (batch.cast(schema) for batch in self.batches())
        return pa.Table.from_batches(batches, schema).unify_dictionaries()

    def pandas(self) -> Any:
        """The same as a pandas data frame: names are categories, unknown integers <NA>."""
        return to_pandas(self.arrow())

    def polars(self) -> "DataFrame":
        """The same as a polars data frame."""
        return to_polars(self.arrow())

    def plot(
        self, kind: str = "overview", *, by: str = "process", marks: Sequence[str] = ()
    ) -> "Picture":
        """Draws what `iorec plot` draws with these options, as a matplotlib Figure.

        Notebooks show it. Raises IorecError for an unknown kind or key, or a mark that is none.
        """
        # Late for the time that matplotlib takes to load: nothing in there imports this module.
        from analyze.plot.figure import draw
        from analyze.plot.kinds import By, Kind
        from analyze.plot.marks import load_marks

        return draw(self, Kind(kind), By(by), load_marks(self, marks))

    @property
    def _columns(self) -> tuple[str, ...]:
        return (*SCHEMA.names, *(ORIGIN_COLUMNS if len(self.files) > 1 else ()))

    def _explained(self, error: Error) -> Exception:
        names = ", ".join(str(file.path) for file in self.files)
        if isinstance(error, OutOfMemoryException):
            return IorecError(
                f"cannot read {names}: it takes more than the {self._memory_limit} of memory"
                " allowed",
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
            "get a fresh copy of the file, or record again",
        )


def open_captures(
    paths: Sequence[str | Path],
    *,
    begin: float | str | None = None,
    end: float | str | None = None,
    where: str | None = None,
    layer: str | None = None,
    counts_progress: bool = False,
    memory_limit: str = MEMORY_LIMIT,
) -> Capture:
    """Opens files, globs and folders as one capture.

    `begin` and `end` are seconds from the start of the first recording, negative ones from the end
    of the last, or a text such as `15:16:10`, see units.parse_moment_ns; `where` is a SQL condition
    on the columns; `layer` is one of LAYERS, see Selection; `counts_progress` and
    `memory_limit` are those of open_database. What cannot be read or was not recorded raises
    IorecError; there may be no rows for which the condition holds.
    """
    found, repeats = without_repeats(find_captures(paths))
    with ExitStack() as resources:
        connection = open_database(
            found, resources, counts_progress=counts_progress, memory_limit=memory_limit
        )
        files = _with_hosts([read_capture_file(connection, path) for path in found])
        span = recorded_span(files)
        selection = make_selection(
            span, begin, end, where, layer or only_layer(file.metadata for file in files)
        )
        window = select_window(span, selection)
        _check_recorded(files, window, layer)
        create_views(connection, files, window, selection)
        kept = resources.pop_all()
        return Capture(connection, files, tuple(repeats), window, selection, kept, memory_limit)


def _with_hosts(files: Sequence[CaptureFile]) -> tuple[CaptureFile, ...]:
    labels = host_labels([file.metadata for file in files])
    return tuple(replace(file, host=label) for file, label in zip(files, labels, strict=True))


def _check_recorded(files: Sequence[CaptureFile], window: Window, layer: str | None) -> None:
    """Raises for a layer that was not recorded, or a window that begins when all had ended."""
    if layer is not None and all(layer not in file.metadata.layers for file in files):
        raise IorecError(
            f"the layer {layer} was not recorded", f"record it with iorec record --layer {layer}"
        )
    span = recorded_span(files)
    if window.begin_ns >= span.end_ns > span.begin_ns:
        raise IorecError(
            "the window begins when the recording had ended", f"{format_span(span)}; widen -b"
        )
