# SPDX-License-Identifier: GPL-2.0-only
"""Finds capture files and checks that each is one before anything relies on it."""

import glob
import hashlib
import os
import pwd
import stat
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from analyze.capture_name import SPOOL_SUFFIX, CaptureName
from analyze.condition import first_line
from analyze.errors import IorecError
from analyze.escape import shell_word
from analyze.metadata import MAX_METADATA_BYTES, Metadata, parse_metadata
from analyze.row_query import (
    COLUMN_TYPES,
    RowSource,
    csv_header,
    literal_path,
    parquet_source,
    rows_query,
)
from analyze.schema import ADDED_COLUMNS, METADATA_KEY
from analyze.typed_json import dump_object
from analyze.undescribed import describe_rows

# A capture of a billion I/Os needs a tenth of this.
_MAX_FOOTER_BYTES = 32 << 20
# Real captures have less than one, equal rows some 20 in Parquet and 60 in gzip. A file that claims
# 2**60 rows would keep a query busy for ever.
_MAX_ROWS_PER_BYTE = 100
_MAGIC = b"PAR1"
_NO_HOST = ""
_OTHER_FILE = "give a file that iorec record wrote: .parquet, .csv or .csv.gz"
_FRESH_COPY = "get a fresh copy of the file, or record again"


@dataclass(frozen=True)
class CaptureFile:
    """A capture on disk; `host` names its machine, and no other one of the files opened with it."""

    path: Path
    size_bytes: int
    row_count: int
    metadata: Metadata
    host: str

    @property
    def row_source(self) -> RowSource:
        """Where its rows are."""
        return RowSource(self.path, self.metadata.format_version, self.host)


def metadata_digest(files: Sequence[CaptureFile]) -> str:
    """SHA-256 of what captures say of themselves, by which a replay names its source."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(dump_object(file.metadata))
    return digest.hexdigest()


def find_captures(paths: Sequence[str | Path]) -> list[Path]:
    """The files that the paths stand for: files, globs and folders, in this order.

    Each has the outer form of a capture; what cannot be one raises IorecError.
    """
    found = [file for path in paths for file in _expand(Path(path))]
    if not found:
        raise IorecError("no capture was given", _OTHER_FILE, exit_code=2)
    for file in found:
        _check_readable(file)
        _check_form(file)
    return found


def without_repeats(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Each file once, and the paths to a file that another one leads to."""
    first: dict[tuple[int, int], Path] = {}
    repeats = []
    for path in paths:
        status = path.stat()
        if first.setdefault((status.st_dev, status.st_ino), path) is not path:
            repeats.append(path)
    return list(first.values()), repeats


def read_capture_file(connection: duckdb.DuckDBPyConnection, path: Path) -> CaptureFile:
    """Reads what the file says of itself and checks its columns; the host is yet to be named."""
    size_bytes = path.stat().st_size
    try:
        if CaptureName(path).is_csv:
            metadata = _read_sidecar(path) or describe_rows(connection, path)
        else:
            metadata = _read_parquet_metadata(connection, path)
            _check_parquet_columns(connection, path)
        source = RowSource(path, metadata.format_version, _NO_HOST)
        query = f"SELECT count(*) FROM ({rows_query([source])})"
        [(row_count,)] = connection.execute(query).fetchall()
    except duckdb.Error as error:
        raise IorecError(
            f"cannot read {path}: the file is damaged: {first_line(error)}", _FRESH_COPY
        ) from error
    if row_count > size_bytes * _MAX_ROWS_PER_BYTE:
        raise IorecError(
            f"cannot read {path}: it claims {row_count:,} rows in {size_bytes:,} bytes", _FRESH_COPY
        )
    return CaptureFile(path, size_bytes, row_count, metadata, _NO_HOST)


def _expand(path: Path) -> Iterable[Path]:
    if path.is_dir():
        captures = [file for file in sorted(path.iterdir()) if _looks_like_capture(file)]
        if not captures:
            raise IorecError(f"there is no capture in the folder {path}", _OTHER_FILE)
        return captures
    if not path.exists() and glob.has_magic(str(path)):
        matches = sorted(glob.glob(str(path)))  # noqa: PTH207 - an absolute pattern is fine here
        if not matches:
            raise IorecError(f"no file matches {path}", _OTHER_FILE)
        return [Path(match) for match in matches]
    return [path]


def _looks_like_capture(path: Path) -> bool:
    name = CaptureName(path)
    return path.with_name(name.sidecar).exists() if name.is_csv else name.suffix == ".parquet"


def _check_readable(path: Path) -> None:
    try:
        str(path).encode()
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            os.close(os.open(path, os.O_RDONLY))
    except FileNotFoundError as error:
        raise IorecError(f"cannot read {path}: there is no such file", _OTHER_FILE) from error
    except OSError as error:
        raise IorecError(f"cannot read {path}: {error.strerror}", _access_hint(path)) from error
    except ValueError as error:
        raise IorecError(f"cannot read {path}: {error}", "give the file another name") from error
    if not stat.S_ISREG(mode):
        raise IorecError(f"cannot read {path}: it is not a regular file", _OTHER_FILE)
    name = str(path.resolve())
    if "\\" in name and glob.has_magic(name):
        # DuckDB takes the first for a separator where there is a wildcard, escaped or not.
        raise IorecError(
            f"cannot read {path}: its name holds a backslash as well as *, ? or [",
            "give the file another name",
        )


def _access_hint(path: Path) -> str:
    """What to do about a file that this user may not read."""
    try:
        owner = path.stat().st_uid
    except OSError:
        return "its folder is not open to you: read it with sudo, or have it copied"
    if owner == os.geteuid():
        return f"make it readable: chmod u+r {shell_word(path)}"
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = f"user {owner}"
    return (
        f"it belongs to {name}: read it with sudo, or own it: sudo chown $USER {shell_word(path)}"
    )


def _check_form(path: Path) -> None:
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise IorecError(f"cannot read {path}: the file is empty", _FRESH_COPY)
    if CaptureName(path).is_csv:
        _check_csv_header(path)
    else:
        _check_parquet_frame(path, size_bytes)


def _check_parquet_frame(path: Path, size_bytes: int) -> None:
    with path.open("rb") as file:
        head = file.read(len(_MAGIC))
        file.seek(-min(8, size_bytes), os.SEEK_END)
        tail = file.read(8)
    if not _MAGIC.startswith(head):
        is_spool = path.name.endswith(SPOOL_SUFFIX)
        hint = (
            f"make a capture of it: iorec recover {shell_word(path)}" if is_spool else _OTHER_FILE
        )
        raise IorecError(f"cannot read {path}: it is not a Parquet file", hint)
    footer_bytes = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MAGIC or footer_bytes > size_bytes - 12:
        raise IorecError(
            f"cannot read {path}: the file is truncated: its end is missing", _FRESH_COPY
        )
    if footer_bytes > _MAX_FOOTER_BYTES:
        raise IorecError(
            f"cannot read {path}: its footer takes {footer_bytes:,} bytes", _OTHER_FILE
        )


def _check_csv_header(path: Path) -> None:
    try:
        header = csv_header(path)
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise IorecError(f"cannot read {path}: it is damaged: {error}", _FRESH_COPY) from error
    columns = list(COLUMN_TYPES)
    missing = set(columns[len(header) :])
    if header != columns[: len(header)] or not missing <= set(ADDED_COLUMNS):
        raise IorecError(
            f"cannot read {path}: its first line is not the header of a capture", _OTHER_FILE
        )


def _read_parquet_metadata(connection: duckdb.DuckDBPyConnection, path: Path) -> Metadata:
    found = connection.execute(
        "SELECT value FROM parquet_kv_metadata(?) WHERE key = ?::BLOB LIMIT 1",
        [literal_path(path), METADATA_KEY],
    ).fetchall()
    if not found:
        raise IorecError(
            f"cannot read {path}: it is a Parquet file, but not a capture of iorec", _OTHER_FILE
        )
    return parse_metadata(found[0][0], str(path))


def _check_parquet_columns(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Checks the types as a query will see them."""
    query = f"DESCRIBE SELECT * FROM {parquet_source([path])}"
    described = connection.execute(query).fetchall()
    types = {name: column_type for name, column_type, *_ in described}
    for name, expected in COLUMN_TYPES.items():
        if types.get(name) != expected and (name in types or name not in ADDED_COLUMNS):
            found = f"has the type {types[name]}, not {expected}" if name in types else "is missing"
            raise IorecError(f"cannot read {path}: its column {name} {found}", _FRESH_COPY)


def _read_sidecar(path: Path) -> Metadata | None:
    """What describes a CSV file; None if nothing does."""
    sidecar = path.with_name(CaptureName(path).sidecar)
    try:
        if not stat.S_ISREG(sidecar.stat().st_mode):  # a pipe would keep its reader waiting
            raise IorecError(
                f"cannot read {path}: {sidecar}, which describes it, is not a regular file",
                _FRESH_COPY,
            )
        with sidecar.open("rb") as file:
            data = file.read(MAX_METADATA_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IorecError(
            f"cannot read {path}: cannot read {sidecar}, which describes it: {error.strerror}",
            "keep the .meta.json file beside the capture",
        ) from error
    return parse_metadata(data, str(sidecar))
