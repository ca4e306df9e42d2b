# SPDX-License-Identifier: GPL-2.0-only
"""Opens rows that are in memory for the same queries as those of captures."""

from pathlib import Path

import pyarrow as pa
from duckdb import DuckDBPyConnection

from analyze.database import create_views
from analyze.ledgers import only_layer
from analyze.metadata import Metadata
from analyze.opened import OpenedRows
from analyze.row_query import quoted
from analyze.selection import Selection, Window
from analyze.sources import CaptureFile

_NO_FILE = Path()


def open_table(
    connection: DuckDBPyConnection,
    table: pa.Table,
    metadata: Metadata,
    window: Window,
    where: str | None = None,
) -> OpenedRows:
    """Opens a table with the columns of the capture format, all of it within the window.

    The connection is one of open_database; what was opened with it before is over. DuckDB shows the
    table to no cursor of it, which is what batches, loads and plots read with.
    """
    connection.register("held", table)
    file = CaptureFile(_NO_FILE, table.nbytes, len(table), metadata, metadata.hostname)
    rows = f"SELECT *, {quoted(file.host)} AS host, NULL::VARCHAR AS capture FROM held"
    selection = Selection(where=where, layer=only_layer([metadata]))
    create_views(connection, (file,), window, selection, rows)
    return OpenedRows(connection, (file,), (), window, selection)
