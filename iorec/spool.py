"""Writes rows, as they are recorded, to an Arrow stream that is readable up to where it ends."""

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from analyze.errors import IorecError
from analyze.schema import METADATA_KEY, SCHEMA
from iorec.arrow_stream import CheckedStream

Metadata = dict[str, Any]
Batch = tuple[pa.RecordBatch, Metadata]

_MOST_ROWS = 1 << 16
_NAMES = [place for place, field in enumerate(SCHEMA) if pa.types.is_dictionary(field.type)]
_NOT_NULL = [place for place, field in enumerate(SCHEMA) if not field.nullable]
# Arrow's own objects for a batch without rows, as measured.
_BATCH_OVERHEAD_BYTES = 16 << 10


class Spool:
    """The stream of a running recording.

    Each batch carries the capture's whole metadata as it stood then, so that a stream cut off
    anywhere still accounts for itself. A batch that cannot be written is taken back, so that the
    stream ends with the one before it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = io.BytesIO()
        # Threads would take a tenth more CPU from what is being recorded.
        options = pa.ipc.IpcWriteOptions(
            compression="zstd", use_threads=False, emit_dictionary_deltas=True
        )
        self._writer = pa.ipc.new_stream(self._buffer, SCHEMA, options=options)
        self._syncer = ThreadPoolExecutor(1)
        self._sync = self._syncer.submit(lambda: None)
        self._synced_bytes = self.size_bytes = 0

    def write(self, batch: pa.RecordBatch, metadata: Metadata) -> None:
        """Appends rows and hands them to the kernel, so that they outlive this process.

        Raises IorecError if there is no room; nothing may be written after that.
        """
        described = {METADATA_KEY: json.dumps(metadata).encode()}
        for start in range(0, max(len(batch), 1), _MOST_ROWS):
            self._writer.write_batch(batch.slice(start, _MOST_ROWS), described)
        self._hand_over()

    def sync(self) -> None:
        """Has the disk take in what was written, so that it outlives a power cut.

        That goes on in the background, and not more than once at a time. Raises IorecError if the
        last time failed.
        """
        if not self._sync.done() or self._synced_bytes == self.size_bytes:
            return
        try:
            self._sync.result()
        except OSError as error:
            raise _explained(error) from error
        self._synced_bytes = self.size_bytes
        self._sync = self._syncer.submit(os.fdatasync, self._file.fileno())

    def close(self) -> None:
        """Ends the stream, so that a reader knows that it is whole."""
        self._writer.close()
        self._hand_over()
        self._syncer.shutdown()

    def _hand_over(self) -> None:
        data = self._buffer.getbuffer()
        try:
            written = 0
            while written < len(data):
                written += os.write(self._file.fileno(), data[written:])
        except OSError as error:
            os.ftruncate(self._file.fileno(), self.size_bytes)
            raise _explained(error) from error
        finally:
            data.release()
            self._buffer.seek(0)
            self._buffer.truncate()
        self.size_bytes += written


def _explained(error: OSError) -> IorecError:
    return IorecError(
        f"cannot write the spool: {error.strerror}",
        "free some space, or record to another disk with -o",
    )


def read_spool(file: BinaryIO) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """The batches of a stream and the metadata of each as JSON, up to where it ends or is damaged.

    Nothing in it is believed: whatever its messages claim, memory is bounded, and each batch is
    valid through and through.
    """
    try:
        reader = pa.ipc.open_stream(CheckedStream(file))
    except (pa.ArrowException, OSError) as error:
        raise _not_a_spool(str(error)) from error
    if reader.schema != SCHEMA:
        raise _not_a_spool("its columns are not those of a capture")
    while True:
        try:
            batch, custom = reader.read_next_batch_with_custom_metadata()
            checked = _checked(batch), _described(custom)
        except (StopIteration, pa.ArrowException, OSError, ValueError, RecursionError):
            return
        yield checked


def held_bytes(batch: pa.RecordBatch) -> int:
    """The memory that a batch takes, and what its names would take once for each row."""
    names = 0
    for place in _NAMES:
        column = batch.column(place)
        lengths = pc.binary_length(column.dictionary)
        names += pc.sum(lengths.take(column.indices)).as_py() or 0
    return _BATCH_OVERHEAD_BYTES + int(batch.get_total_buffer_size()) + names


def _not_a_spool(cause: str) -> IorecError:
    return IorecError(
        f"this is not a spool of iorec: {cause}",
        "iorec recover takes the .part file that an interrupted recording left",
    )


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the names that its rows use; ValueError if no recorder wrote it."""
    batch.validate(full=True)
    columns = batch.columns
    if len(batch) > _MOST_ROWS or any(columns[place].null_count for place in _NOT_NULL):
        raise ValueError
    for place in _NAMES:
        if columns[place].dictionary.null_count:
            raise ValueError
        if len(columns[place].dictionary) > len(batch):
            columns[place] = _with_used_names(columns[place])
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _with_used_names(column: pa.DictionaryArray) -> pa.DictionaryArray:
    used = column.indices.unique().drop_null()
    return pa.DictionaryArray.from_arrays(
        pc.index_in(column.indices, used), column.dictionary.take(used)
    )


def _described(custom: pa.KeyValueMetadata | None) -> bytes:
    """The JSON of an object; ValueError if it is none."""
    if custom is None or METADATA_KEY not in custom:
        raise ValueError
    described: bytes = custom[METADATA_KEY]
    if not isinstance(json.loads(described.decode()), dict):
        raise ValueError
    return described
