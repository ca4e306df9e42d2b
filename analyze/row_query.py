# SPDX-License-Identifier: GPL-2.0-only
"""Writes the SQL that reads the rows of capture files."""

import glob
import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from analyze.capture_name import CaptureName
from analyze.schema import SCHEMA

_SQL_TYPES = {
    "timestamp[ns, tz=UTC]": "TIMESTAMPTZ_NS",
    "dictionary<values=string, indices=int32, ordered=0>": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "int16": "SMALLINT",
}
COLUMN_TYPES = {field.name: _SQL_TYPES[str(field.type)] for field in SCHEMA}


# SQL for what a process is called; captures of earlier versions know the comm of threads alone.
PROCESS_NAME = "coalesce(process, comm)"

# Not in the files: the machine, and the file itself.
ORIGIN_COLUMNS = ("host", "capture")
# Found by joining rows: the kind of what caused an I/O, and the call or opcode (analyze.causes).
CAUSE_COLUMNS = ("cause", "call")

_FILE_COLUMN = "capture"
_IS_EMPTY_FLUSH = "op = 'write' AND bytes = 0 AND contains(flags, 'preflush')"
_AS_SINCE_VERSION_2 = f"""* REPLACE (
    CASE WHEN op = 'flush' THEN 'cache_flush' WHEN {_IS_EMPTY_FLUSH} THEN 'flush' ELSE op END AS op,
    CASE WHEN {_IS_EMPTY_FLUSH} THEN NULL ELSE "offset" END AS "offset")"""


class RowSource(NamedTuple):
    """A file, the version of its format and the name of its machine."""

    path: Path
    format_version: int
    host: str


def rows_query(sources: Iterable[RowSource]) -> str:
    """A query for the rows of all files: the columns of the newest format, and ORIGIN_COLUMNS.

    Columns that a file does not have are null. Rows of earlier versions get the meaning of the
    newest one.
    """
    columns = ", ".join(f'"{name}"' for name in (*COLUMN_TYPES, *ORIGIN_COLUMNS))
    typed = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in COLUMN_TYPES.items())
    origin = ", ".join(f"NULL::VARCHAR AS {name}" for name in ORIGIN_COLUMNS)
    parts = [f"SELECT {typed}, {origin} WHERE false"]
    alike: dict[tuple[int, str, str], list[Path]] = {}
    for path, version, host in sources:
        alike.setdefault((version, host, _form(path)), []).append(path)
    for (version, host, _), paths in alike.items():
        values = _AS_SINCE_VERSION_2 if version < 2 else "*"
        rows = _csv_rows(paths) if CaptureName(paths[0]).is_csv else f"FROM {parquet_source(paths)}"
        parts.append(f"SELECT {values}, {quoted(host)} AS host FROM ({rows})")
    return f"SELECT {columns} FROM ({' UNION ALL BY NAME '.join(parts)})"


def csv_header(path: Path) -> list[str]:
    """The names of the columns in the first line of a CSV file."""
    with gzip.open(path) if CaptureName(path).is_compressed else path.open("rb") as file:
        header = file.readline(4096).decode()
    return [name.strip('"') for name in header.strip().split(",")]


def parquet_source(paths: Iterable[Path]) -> str:
    """A SQL table of the Parquet files."""
    return (
        f"read_parquet([{_path_list(paths)}], hive_partitioning = false, union_by_name = true,"
        f" filename = '{_FILE_COLUMN}')"
    )


def literal_path(path: Path) -> str:
    """A pattern that DuckDB finds this file by, and no other one."""
    return glob.escape(str(path.resolve()))


def quoted(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """The name of a column in SQL."""
    return '"' + name.replace('"', '""') + '"'


def moment(time_ns: int) -> str:
    """SQL for a time, as the column `time` has it."""
    return f"make_timestamp_ns({time_ns})::TIMESTAMPTZ_NS"


def _form(path: Path) -> str:
    """What files that one query can read have in common."""
    suffix = CaptureName(path).suffix
    return f"{suffix} {len(csv_header(path))}" if CaptureName(path).is_csv else "parquet"


def _csv_rows(paths: list[Path]) -> str:
    # DuckDB tells gzip by the name, but not behind a question mark.
    compression = "gzip" if CaptureName(paths[0]).is_compressed else "none"
    columns = list(COLUMN_TYPES.items())[: len(csv_header(paths[0]))]
    types = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind in columns)
    values = ", ".join(_csv_value(name) for name, _ in columns)
    return (
        f"SELECT {values}, {_FILE_COLUMN} FROM read_csv([{_path_list(paths)}],"
        f" columns = {{{types}}}, auto_detect = false, compression = {quoted(compression)},"
        f" filename = '{_FILE_COLUMN}',"
        """ header = true, delim = ',', quote = '"', escape = '"', nullstr = '',"""
        " allow_quoted_nulls = false)"
    )


def _csv_value(name: str) -> str:
    """Undoes what a CSV writer does to names (analyze.escape.neutralise_for_csv).

    An empty field is null, but flags are never null: there it stands for none.
    """
    if COLUMN_TYPES[name] != "VARCHAR":
        return f'"{name}"'
    restored = f"""regexp_replace("{name}", '^''', '')"""
    return f"coalesce({restored}, '') AS {name}" if name == "flags" else f'{restored} AS "{name}"'


def _path_list(paths: Iterable[Path]) -> str:
    return ", ".join(quoted(literal_path(path)) for path in paths)
