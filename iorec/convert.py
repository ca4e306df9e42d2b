"""Turns a spool into a capture file."""

import itertools
import json
import os
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from analyze.errors import IorecError
from analyze.metadata import parse_metadata
from analyze.schema import METADATA_KEY, SCHEMA
from iorec.output import Folder, sidecar_name
from iorec.spool import Batch, Metadata, held_bytes, read_spool

# Enough for the encodings to pay off; sorting a group takes some 30 MiB.
_ROWS_PER_GROUP = 1 << 17
# What the batches of a group may take before they are made one: a quiet machine's have few rows.
_MOST_HELD_BYTES = 32 << 20
# A name takes its room once for each of them.
_ROWS_AS_TEXT = 1 << 14

# PLAIN, as their values differ from row to row. DELTA_BINARY_PACKED and BYTE_STREAM_SPLIT would
# save a tenth of the bytes, but fastparquet reads the first wrongly from steps of 2**30 on, which
# is a second without I/O, and neither it nor Spark 4.0 reads the second.
_PLAIN = ("time", "latency_ns", "queue_ns", "offset")
_DICTIONARY_ENCODED = [name for name in SCHEMA.names if name not in _PLAIN]

_FORMULA_START = r"^[=+\-@\t\r\n\x{ff1d}\x{ff0b}\x{ff0d}\x{ff20}]"


def convert(
    spool: BinaryIO,
    folder: Folder,
    name: str,
    suffix: str,
    on_rows: Callable[[int], None],
    last: Batch | None = None,
    *,
    is_forced: bool,
) -> Metadata:
    """Writes the capture `name` into `folder` and returns its metadata.

    `last` follows the spool's batches where it could not be written there. `on_rows` is told how
    many rows are written. Readers see the whole capture under its name or none of it: the name is
    given, by rename, when everything is on disk.
    """
    rows = _SpoolRows(spool, on_rows, last)
    with folder.writing(name, is_forced=is_forced) as sink:
        if suffix == ".parquet":
            _write_parquet(sink, rows)
        else:
            _write_csv(sink, rows, is_compressed=suffix.endswith(".gz"))
            with folder.writing(sidecar_name(name), is_forced=is_forced) as sidecar:
                sidecar.write(json.dumps(rows.metadata(), indent=2).encode() + b"\n")
    return rows.metadata()


class _SpoolRows:
    """The rows of a spool in groups, each in time order; `described` stands after the last one."""

    def __init__(self, spool: BinaryIO, on_rows: Callable[[int], None], last: Batch | None) -> None:
        self.described = b""
        self._last = [(last[0], json.dumps(last[1]).encode())] if last else []
        self._spool = spool
        self._on_rows = on_rows

    def metadata(self) -> Metadata:
        metadata: Metadata = json.loads(self.described)
        return metadata

    def __iter__(self) -> Iterator[pa.Table]:
        self._spool.seek(0)
        batches: list[pa.RecordBatch] = []
        pending, held, written = 0, 0, 0
        for batch, described in itertools.chain(read_spool(self._spool), self._last):
            self.described = described
            if len(batch) == 0:
                continue
            batches.append(batch)
            pending += len(batch)
            held += _bounded_bytes(batch)
            is_full = pending >= _ROWS_PER_GROUP
            if held > _MOST_HELD_BYTES and not is_full:
                batches = _table(batches).combine_chunks().to_batches()
                held = sum(map(held_bytes, batches))
                is_full = held > _MOST_HELD_BYTES / 2
            if is_full:
                yield _in_time_order(batches)
                written += pending
                self._on_rows(written)
                batches, pending, held = [], 0, 0
                pa.default_memory_pool().release_unused()
        if not self.described:
            raise IorecError(
                "the spool holds nothing: the recording was cut off before its first second",
                "record once more",
            )
        parse_metadata(self.described, "the spool")
        yield _in_time_order(batches)


def _bounded_bytes(batch: pa.RecordBatch) -> int:
    size = held_bytes(batch)
    if size > _MOST_HELD_BYTES:
        raise IorecError(
            f"{len(batch):,} rows of the spool take {size >> 20:,} MiB",
            "it is damaged, or no recording of iorec",
        )
    return size


def _in_time_order(batches: list[pa.RecordBatch]) -> pa.Table:
    table = _table(batches)
    return table.take(pc.array_sort_indices(table["time"]))


def _table(batches: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches, SCHEMA).unify_dictionaries()


def _write_parquet(sink: BinaryIO, rows: _SpoolRows) -> None:
    with pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=_DICTIONARY_ENCODED,
    ) as writer:
        for table in rows:
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP * 2)
        writer.add_key_value_metadata({METADATA_KEY: rows.described})


def _write_csv(sink: BinaryIO, rows: _SpoolRows, *, is_compressed: bool) -> None:
    # Arrow closes what it writes to; the sink must stay open to be synced.
    file = os.fdopen(os.dup(sink.fileno()), "wb")
    stream = pa.CompressedOutputStream(file, "gzip") if is_compressed else pa.PythonFile(file)
    schema = pa.schema([_csv_field(SCHEMA.field(name)) for name in SCHEMA.names])
    with pyarrow.csv.CSVWriter(stream, schema) as writer:
        for table in rows:
            for start in range(0, len(table), _ROWS_AS_TEXT):
                part = table.slice(start, _ROWS_AS_TEXT)
                columns = [_csv_column(column) for column in part.columns]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    stream.close()


def _csv_field(field: pa.Field) -> pa.Field:
    is_number = pa.types.is_integer(field.type)
    return field if is_number else field.with_type(pa.string())


def _csv_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    if pa.types.is_dictionary(column.type):
        return pa.chunked_array(
            [_neutralise(chunk.dictionary).take(chunk.indices) for chunk in column.chunks],
            pa.string(),
        )
    return column


def _neutralise(names: pa.Array) -> pa.Array:
    """A name that a spreadsheet would run as a formula gets a quote in front."""
    return pc.replace_substring_regex(names, f"({_FORMULA_START}|^')", r"'\1")
