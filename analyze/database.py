# SPDX-License-Identifier: GPL-2.0-only
"""Makes the database of an opened capture: bounded, reading its files and reaching nothing else."""

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from duckdb import DuckDBPyConnection, connect

from analyze.causes import caused_query
from analyze.condition import check_condition
from analyze.restarts import merge_restarted
from analyze.row_query import CAUSE_COLUMNS, literal_path, moment, quoted, rows_query
from analyze.schema import BLOCK_LAYERS
from analyze.selection import Selection, Window
from analyze.shown import layer_condition
from analyze.sources import CaptureFile

MEMORY_LIMIT = "640MB"

_MAX_THREADS = 8  # more of them would not fit into the memory


# Only system calls have a result. One beyond what was asked for is no size: a file's number, or an
# address.
_MOVED = """CASE WHEN result IS NULL THEN bytes
    WHEN result BETWEEN 0 AND bytes THEN result ELSE 0 END"""


def open_database(
    paths: Sequence[Path],
    resources: ExitStack,
    *,
    counts_progress: bool = False,
    memory_limit: str = MEMORY_LIMIT,
) -> DuckDBPyConnection:
    """A database in memory that can read these files and reach nothing else.

    With `counts_progress` its query_progress() tells how far a query is; what needs more than
    `memory_limit` is done on disk.
    """
    spill = resources.enter_context(tempfile.TemporaryDirectory(prefix="iorec-"))
    connection = connect(
        config={
            "memory_limit": memory_limit,
            "threads": min(os.cpu_count() or 1, _MAX_THREADS),
            "temp_directory": spill,
            "preserve_insertion_order": False,
            "autoload_known_extensions": False,
            "autoinstall_known_extensions": False,
        }
    )
    resources.callback(connection.close)
    names = {name for path in paths for name in (str(path.resolve()), literal_path(path))}
    if counts_progress:
        connection.execute("SET enable_progress_bar = true")
        connection.execute("SET enable_progress_bar_print = false")
    # Unless there is none, as in a notebook without ipywidgets: DuckDB refuses to be told so.
    elif connection.sql("SELECT current_setting('enable_progress_bar')").fetchall() == [(True,)]:
        connection.execute("SET enable_progress_bar = false")
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    connection.execute(f"SET allowed_paths = [{', '.join(map(quoted, names))}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def create_views(
    connection: DuckDBPyConnection,
    files: Sequence[CaptureFile],
    window: Window,
    selection: Selection,
    rows: str | None = None,
) -> None:
    """Creates `shown`, the rows in the window, and `io`, those of them that meet the condition.

    `bios` are all bios that succeeded, also of devices whose requests are shown; `calls` are those
    of system calls and io_uring, `disks`, where there are calls, those of block layers that
    are shown by default, and `caused` is `io` with what caused each. `rows` is a query
    for the rows of the files if they are elsewhere; a system call that was begun again is one row.
    `moved`, which is no column of these, is the bytes of an I/O, or those that a system call
    returned. Views of before are replaced.
    """
    conditions = ["true"]
    if selection.begin_s is not None:
        conditions.append(f"time >= {moment(window.begin_ns)}")
    if selection.end_s is not None:
        conditions.append(f"time < {moment(window.end_ns)}")
    rows = rows or rows_query(file.row_source for file in files)
    recorded = {layer for file in files for layer in file.metadata.layers}
    has_calls = bool(recorded - {*BLOCK_LAYERS})
    moved = _MOVED if has_calls else "bytes"
    if "syscall" in recorded:
        rows = merge_restarted(connection, rows)
    window_rows = f"SELECT *, {moved} AS moved FROM ({rows}) WHERE {' AND '.join(conditions)}"
    layer = layer_condition(connection, files, selection.layer)
    connection.execute(f"CREATE OR REPLACE VIEW shown AS {window_rows} AND {layer}")
    connection.execute(
        f"CREATE OR REPLACE VIEW calls AS {window_rows} AND layer NOT IN {BLOCK_LAYERS}"
    )
    where = selection.where or "true"
    with_causes = f"({caused_query(files, 'shown')}) AS io"
    names = frozenset[str]()
    if selection.where is not None:
        names = check_condition(connection, selection.where, with_causes)
    has_causes = not names.isdisjoint(CAUSE_COLUMNS)
    connection.execute(
        f"CREATE OR REPLACE VIEW io AS SELECT * EXCLUDE (cause, call) FROM {with_causes}"
        f" WHERE\n{where}"
        if has_causes
        else f"CREATE OR REPLACE VIEW io AS SELECT * FROM shown AS io WHERE\n{where}"
    )
    if has_calls:
        of_disks = layer_condition(connection, files, None)
        connection.execute(f"CREATE OR REPLACE VIEW disks AS {window_rows} AND {of_disks}")
    connection.execute(f"CREATE OR REPLACE VIEW caused AS {caused_query(files, 'io')}")
    bios = f"({caused_query(files, f'({window_rows})')})" if has_causes else f"({window_rows})"
    connection.execute(
        f"CREATE OR REPLACE VIEW bios AS SELECT * FROM {bios} AS io"
        f" WHERE layer = 'bio' AND latency_ns IS NOT NULL AND errno = 0 AND (\n{where}\n)"
    )
