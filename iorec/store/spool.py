# SPDX-License-Identifier: GPL-2.0-only
"""Writes rows, as they are recorded, to Arrow streams that are readable up to where they end."""

import contextlib
import io
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from analyze.errors import IorecError
from analyze.metadata import MAX_METADATA_BYTES, Metadata
from analyze.schema import METADATA_KEY, SCHEMA
from analyze.typed_json import dump_object
from iorec.host.advice import advice
from iorec.store.arrow_stream import CheckedStream, has_end_of_batch
from iorec.store.metadata_json import to_json
from iorec.store.stream_names import (
    LONGEST_NAME_BYTES,
    NAME_PLACES,
    StreamNames,
    bounded_slices,
    with_used_names,
)

Batch = tuple[pa.RecordBatch, Metadata]

_MOST_ROWS = 1 << 16
_NOT_NULL = [place for place, field in enumerate(SCHEMA) if not field.nullable]
# Metadata as zstd; those of earlier spools are plain, under METADATA_KEY.
_PACKED_KEY = METADATA_KEY + b".zstd"
# Dictionaries up to this size stay as they are where not every name is used.
_SMALL_DICTIONARY_BYTES = 1 << 20
# Of thousands of devices, reading the metadata takes longer than writing the rows.
_CHECK_S = 1.0
# Arrow's own objects for a batch without rows, as measured.
_BATCH_OVERHEAD_BYTES = 16 << 10


class Spool:
    """The file of a running recording: one Arrow stream after the other.

    A stream ends when its names take too much memory; the next one has names of its own. Each
    batch carries the capture's whole metadata as it stood then, so that a file cut off anywhere
    still accounts for itself: of a batch that is written in slices the last one does, and without
    that one a reader leaves out the others. A batch that cannot be written is taken back, so that
    the file ends with the one before it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = io.BytesIO()
        self._begin_stream()
        self._syncer = ThreadPoolExecutor(1)
        self._sync = self._syncer.submit(lambda: None)
        self._synced_bytes = self.size_bytes = 0
        self._next_check_s = 0.0

    def write(self, batch: pa.RecordBatch, metadata: Metadata) -> None:
        """Appends rows and hands them to the kernel, so that they outlive this process.

        Raises IorecError if they do not fit; nothing may be written after that.
        """
        described = {_PACKED_KEY: pa.compress(self._to_json(metadata), "zstd", asbytes=True)}
        slices = [
            part
            for start in range(0, max(len(batch), 1), _MOST_ROWS)
            for part in bounded_slices(batch.slice(start, _MOST_ROWS))
        ]
        size = self.size_bytes
        for number, part in enumerate(slices, 1):
            self._write_slice(part, described if number == len(slices) else None)
            size += self._hand_over()
        self.size_bytes = size

    def sync(self) -> None:
        """Syncs what was written, so that it outlives a power cut.

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
        """Ends the last stream. Without room for that mark, its rows are whole all the same."""
        self._writer.close()
        with contextlib.suppress(IorecError):
            self.size_bytes += self._hand_over()
        self._syncer.shutdown()

    def _begin_stream(self) -> None:
        # Threads would take a tenth more CPU from what is being recorded.
        options = pa.ipc.IpcWriteOptions(
            compression="zstd", use_threads=False, emit_dictionary_deltas=True
        )
        self._names = StreamNames()
        self._writer = pa.ipc.new_stream(self._buffer, SCHEMA, options=options)

    def _to_json(self, metadata: Metadata) -> bytes:
        """Passes the reader's parser: the last ones always, those before it once a second."""
        text, now_s = dump_object(metadata), time.monotonic()
        is_small = len(text) <= MAX_METADATA_BYTES
        if now_s < self._next_check_s and is_small and not metadata.complete:
            return text
        checked = to_json(metadata)
        if checked == text:
            self._next_check_s = now_s + _CHECK_S
        return checked

    def _write_slice(self, part: pa.RecordBatch, described: dict[bytes, bytes] | None) -> None:
        encoded = self._names.encode(part)
        if encoded is None:
            self._writer.close()
            self._begin_stream()
            encoded = self._names.encode(part)
        self._writer.write_batch(encoded, described)

    def _hand_over(self) -> int:
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
        return written


def _explained(error: OSError) -> IorecError:
    return IorecError(
        f"cannot write the spool: {error.strerror}",
        f"{advice(str(error))}, or record to another disk with -o",
    )


def read_spool(file: BinaryIO) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """The batches of a spool and the metadata of each as JSON, up to where it ends or is damaged.

    Slices of a batch but the last one come with the metadata before it; those of a batch whose last
    slice was never written do not come. Nothing in the file is believed: whatever its messages
    claim, memory is bounded, and each batch is valid through and through.
    """
    described = b""
    is_within_batch = False
    batches = _batches(file)
    while True:
        try:
            batch, custom = next(batches)
            checked = _checked(batch)
            if custom is not None:
                described = _described(custom)
        except (StopIteration, pa.ArrowException, OSError, ValueError, RecursionError):
            return
        if custom is None and not is_within_batch and not has_end_of_batch(file):
            file.seek(0, os.SEEK_END)  # it is cut off, and not damaged
            return
        is_within_batch = custom is None
        yield checked, described


def held_bytes(batch: pa.RecordBatch) -> int:
    """The memory that a batch takes, with all of its dictionaries."""
    return _BATCH_OVERHEAD_BYTES + int(batch.get_total_buffer_size())


def _batches(file: BinaryIO) -> Iterator[tuple[pa.RecordBatch, pa.KeyValueMetadata | None]]:
    """The batches of one stream after the other."""
    stream = CheckedStream(file)
    try:
        reader = pa.ipc.open_stream(stream)
    except (pa.ArrowException, OSError) as error:
        raise _not_a_spool(str(error)) from error
    if reader.schema != SCHEMA:
        raise _not_a_spool("its columns are not those of a capture")
    while True:
        with contextlib.suppress(StopIteration):
            while True:
                yield reader.read_next_batch_with_custom_metadata()
        if not stream.has_ended:
            return
        stream = CheckedStream(file)
        reader = pa.ipc.open_stream(stream)
        if reader.schema != SCHEMA:
            return


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
    for place in NAME_PLACES:
        names = columns[place].dictionary
        if names.null_count or _longest_bytes(names) > LONGEST_NAME_BYTES:
            raise ValueError
        if len(names) > len(batch) or names.nbytes > _SMALL_DICTIONARY_BYTES:
            columns[place] = with_used_names(columns[place])
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _longest_bytes(names: pa.StringArray) -> int:
    if names.nbytes <= LONGEST_NAME_BYTES:
        return 0
    return int(pc.max(pc.binary_length(names)).as_py() or 0)


def _described(custom: pa.KeyValueMetadata) -> bytes:
    """The JSON of an object; ValueError if it is none."""
    if _PACKED_KEY in custom:
        packed = pa.BufferReader(custom[_PACKED_KEY])
        described: bytes = pa.CompressedInputStream(packed, "zstd").read(MAX_METADATA_BYTES + 1)
    elif METADATA_KEY in custom:
        described = custom[METADATA_KEY]
    else:
        raise ValueError
    if len(described) > MAX_METADATA_BYTES or not isinstance(json.loads(described), dict):
        raise ValueError
    return described
