"""Writes the SQL that reads the rows of capture files."""

import glob
from collections.abc import Iterable
from pathlib import Path

from analyze.schema import SCHEMA

CSV_SUFFIXES = (".csv", ".csv.gz")

_SQL_TYPES = {
    "timestamp[ns, tz=UTC]": "TIMESTAMPTZ_NS",
    "dictionary<values=string, indices=int32, ordered=0>": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "int16": "SMALLINT",
}
COLUMN_TYPES = {field.name: _SQL_TYPES[str(field.type)] for field in SCHEMA}


def is_csv(path: Path) -> bool:
    """Whether the name says that the file is CSV, compressed or not."""
    return path.name.endswith(CSV_SUFFIXES)


def rows_query(paths: Iterable[Path]) -> str:
    """A query for the rows of all files, with the columns of the capture format."""
    columns = ", ".join(f'"{name}"' for name in COLUMN_TYPES)
    csv_columns = ", ".join(_csv_value(name) for name in COLUMN_TYPES)
    files = list(paths)
    queries = []
    if parquet := [path for path in files if not is_csv(path)]:
        queries.append(f"SELECT {columns} FROM {parquet_source(parquet)}")
    # DuckDB tells gzip by the name, but not behind a question mark.
    for compression, suffix in (("none", ".csv"), ("gzip", ".gz")):
        if csv := [path for path in files if is_csv(path) and path.suffix == suffix]:
            queries.append(f"SELECT {csv_columns} FROM {_csv_source(csv, compression)}")
    return " UNION ALL ".join(queries)


def parquet_source(paths: Iterable[Path]) -> str:
    """A SQL table of the Parquet files."""
    return f"read_parquet([{_path_list(paths)}], hive_partitioning = false)"


def literal_path(path: Path) -> str:
    """A pattern that DuckDB finds this file by, and no other one."""
    return glob.escape(str(path.resolve()))


def quoted(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _csv_source(paths: Iterable[Path], compression: str) -> str:
    types = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind in COLUMN_TYPES.items())
    return (
        f"read_csv([{_path_list(paths)}], columns = {{{types}}}, auto_detect = false,"
        f" compression = {quoted(compression)},"
        """ header = true, delim = ',', quote = '"', escape = '"', nullstr = '')"""
    )


def _csv_value(name: str) -> str:
    """Undoes what a CSV writer does to names (analyze.names.neutralise_for_csv).

    An empty field is null, but flags are never null: there it stands for none.
    """
    if COLUMN_TYPES[name] != "VARCHAR":
        return f'"{name}"'
    restored = f"""regexp_replace("{name}", '^''', '')"""
    return f"coalesce({restored}, '') AS {name}" if name == "flags" else f'{restored} AS "{name}"'


def _path_list(paths: Iterable[Path]) -> str:
    return ", ".join(quoted(literal_path(path)) for path in paths)
