# SPDX-License-Identifier: GPL-2.0-only
"""Turns a spool into a capture file."""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.metadata import MAX_METADATA_BYTES, Metadata, parse_metadata
from analyze.schema import METADATA_KEY, SCHEMA
from iorec.store.csv_rows import CSV_SCHEMA, harmless, to_text
from iorec.store.folder import Folder
from iorec.store.metadata_json import to_json
from iorec.store.read_spool import read_spool

# Enough for the encodings to pay off; sorting a group takes some 30 MiB.
_ROWS_PER_GROUP = 1 << 17
# What the batches of a group may take before they are made one: a quiet machine's have few rows,
# and batches that have names in common hold each their own copy.
_MOST_HELD_BYTES = 16 << 20
# As text a name takes its room once for each row.
_MOST_TEXT_BYTES = 4 << 20
_ROW_TEXT_BYTES = 256  # of a row without names, at the most
# More than the names of a group: beyond it Parquet would have each name once for each row, too.
_MOST_DICTIONARY_BYTES = 256 << 20

# PLAIN, as their values differ from row to row. DELTA_BINARY_PACKED and BYTE_STREAM_SPLIT would
# save a tenth of the bytes, but fastparquet reads the first wrongly from steps of 2**30 on, which
# is a second without I/O, and neither it nor Spark 4.0 reads the second.
_PLAIN = ("time", "latency_ns", "queue_ns", "offset")
_DICTIONARY_ENCODED = [name for name in SCHEMA.names if name not in _PLAIN]
# The least and greatest of long names would make the footer more than a reader takes.
_WITH_STATISTICS = [
    name
    for name in SCHEMA.names
    if name not in ("cgroup", "charged_cgroup", "file", "process", "cmdline", "dirtier")
]

# Arrow's own objects for a batch without rows, as measured.
_BATCH_OVERHEAD_BYTES = 16 << 10

Rows = tuple[pa.RecordBatch, Metadata]


def convert(
    spool: BinaryIO,
    folder: Folder,
    capture: CaptureName,
    on_rows: Callable[[int], None],
    last: Rows | None = None,
    *,
    is_forced: bool,
) -> Metadata:
    """Writes the capture into `folder` and returns its metadata.

    `last` follows the spool's batches where it could not be written there. `on_rows` is told how
    many rows are written. Readers see the whole capture under its name or none of it: the name is
    given, by rename, when everything is on disk.
    """
    rows = _SpoolRows(spool, on_rows, last)
    with ExitStack() as on_failure:
        with folder.writing(capture.name, is_forced=is_forced) as sink:
            if capture.is_csv:
                _write_csv(sink, rows, is_compressed=capture.is_compressed)
                os.fsync(sink.fileno())  # so that both get their names at nearly the same time
                with folder.writing(capture.sidecar, is_forced=is_forced) as sidecar:
                    sidecar.write(indented(rows.described))
                on_failure.callback(folder.remove, capture.sidecar)
            else:
                _write_parquet(sink, rows)
        on_failure.pop_all()
    return rows.metadata


def indented(described: bytes) -> bytes:
    """JSON for people to read, unless that would be too much for a reader."""
    if len(described) > MAX_METADATA_BYTES // 8:
        return described
    indented = json.dumps(json.loads(described), indent=2).encode() + b"\n"
    return indented if len(indented) <= MAX_METADATA_BYTES else described


class _SpoolRows:
    """The rows of a spool in groups, each in time order; after the last one, what describes them.

    A group ends with its number of rows, or when its names take too much memory.
    """

    metadata: Metadata

    def __init__(self, spool: BinaryIO, on_rows: Callable[[int], None], last: Rows | None) -> None:
        self.described = b""
        self._last = [(last[0], to_json(last[1]))] if last else []
        self._spool = spool
        self._on_rows = on_rows

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
            held += _held_bytes(batch)
            is_full = pending >= _ROWS_PER_GROUP
            if held > _MOST_HELD_BYTES and not is_full:
                batches = _table(batches).combine_chunks().to_batches()
                held = sum(map(_held_bytes, batches))
                is_full = held > _MOST_HELD_BYTES * 3 / 4
            if is_full:
                yield _in_time_order(batches)
                written += pending
                self._on_rows(written)
                batches, pending, held = [], 0, 0
                pa.default_memory_pool().release_unused()
        if not self.described:
            raise IorecError(
                "the spool holds nothing: it was cut off in its first second, or it is damaged",
                "record again",
            )
        self.metadata = parse_metadata(self.described, "the spool")
        yield _in_time_order(batches)


def _held_bytes(batch: pa.RecordBatch) -> int:
    """The memory that a batch takes, with all of its dictionaries."""
    return _BATCH_OVERHEAD_BYTES + int(batch.get_total_buffer_size())


def _one_ahead(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same, of which a thread makes the next one meanwhile."""
    iterator = iter(tables)
    with ThreadPoolExecutor(1) as maker:
        following = maker.submit(next, iterator, None)
        while (table := following.result()) is not None:
            following = maker.submit(next, iterator, None)
            yield table


def _in_time_order(batches: list[pa.RecordBatch]) -> pa.Table:
    table = _table(batches)
    return table.take(pc.array_sort_indices(table["time"]))


def _table(batches: list[pa.RecordBatch]) -> pa.Table:
    return pa.Table.from_batches(batches, SCHEMA).unify_dictionaries()


def parquet_writer(sink: BinaryIO) -> pq.ParquetWriter:
    """Writes the rows of a capture; its metadata are to be added before it is closed."""
    return pq.ParquetWriter(
        sink,
        SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=_DICTIONARY_ENCODED,
        dictionary_pagesize_limit=_MOST_DICTIONARY_BYTES,
        write_statistics=_WITH_STATISTICS,
    )


def _write_parquet(sink: BinaryIO, rows: _SpoolRows) -> None:
    with parquet_writer(sink) as writer:
        for table in _one_ahead(rows):
            writer.write_table(table, row_group_size=_ROWS_PER_GROUP * 2)
        writer.add_key_value_metadata({METADATA_KEY: rows.described})


def _write_csv(sink: BinaryIO, rows: _SpoolRows, *, is_compressed: bool) -> None:
    # Arrow closes what it writes to; the sink must stay open to be synced.
    file = os.fdopen(os.dup(sink.fileno()), "wb")
    stream = pa.CompressedOutputStream(file, "gzip") if is_compressed else pa.PythonFile(file)
    with pyarrow.csv.CSVWriter(stream, CSV_SCHEMA) as writer:
        for table in _one_ahead(rows):
            for part in _text_slices(harmless(table)):
                writer.write_table(to_text(part))
    stream.close()


def _text_slices(table: pa.Table) -> Iterator[pa.Table]:
    """Slices that take little memory as text, of one row at least."""
    sizes = np.full(len(table), _ROW_TEXT_BYTES, np.int64)
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            sizes += _name_lengths(column)
    ends = np.cumsum(sizes)
    start = 0
    while start < len(table):
        most = ends[start] - sizes[start] + _MOST_TEXT_BYTES
        stop = max(int(np.searchsorted(ends, most, "right")), start + 1)
        yield table.slice(start, stop - start)
        start = stop


def _name_lengths(column: pa.ChunkedArray) -> NDArray[np.int64]:
    lengths = [
        pc.binary_length(chunk.dictionary).take(chunk.indices).fill_null(0)
        for chunk in column.chunks
    ]
    return np.concatenate([np.empty(0, np.int64), *map(np.asarray, lengths)])
