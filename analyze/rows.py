"""Writes the SQL that reads the rows of capture files."""

import glob
import gzip
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
    """A query for the rows of all files, with the columns of the capture format.

    Columns that a file does not have are null.
    """
    columns = ", ".join(f'"{name}"' for name in COLUMN_TYPES)
    typed = ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in COLUMN_TYPES.items())
    sources = [f"SELECT {typed} WHERE false"]
    in_csv = {path: is_csv(path) for path in paths}
    if not all(in_csv.values()):
        sources.append(f"FROM {parquet_source(p for p in in_csv if not in_csv[p])}")
    alike: dict[tuple[int, str], list[Path]] = {}
    for path in in_csv:
        if in_csv[path]:
            # DuckDB tells gzip by the name, but not behind a question mark.
            compression = "gzip" if path.suffix == ".gz" else "none"
            alike.setdefault((len(csv_header(path)), compression), []).append(path)
    for (count, compression), files in alike.items():
        values = ", ".join(_csv_value(name) for name in list(COLUMN_TYPES)[:count])
        sources.append(f"SELECT {values} FROM {_csv_source(files, count, compression)}")
    return f"SELECT {columns} FROM ({' UNION ALL BY NAME '.join(sources)})"


def csv_header(path: Path) -> list[str]:
    """The names of the columns in the first line of a CSV file."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        header = file.readline(4096).decode()
    return [name.strip('"') for name in header.strip().split(",")]


def parquet_source(paths: Iterable[Path]) -> str:
    """A SQL table of the Parquet files."""
    return f"read_parquet([{_path_list(paths)}], hive_partitioning = false, union_by_name = true)"


def literal_path(path: Path) -> str:
    """A pattern that DuckDB finds this file by, and no other one."""
    return glob.escape(str(path.resolve()))


def quoted(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _csv_source(paths: Iterable[Path], column_count: int, compression: str) -> str:
    columns = list(COLUMN_TYPES.items())[:column_count]
    types = ", ".join(f"{quoted(name)}: {quoted(kind)}" for name, kind in columns)
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
