"""Writes rows, as they are recorded, to an Arrow stream that is readable up to where it ends."""

import io
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa

from analyze.errors import IorecError
from analyze.schema import METADATA_KEY, SCHEMA

Metadata = dict[str, Any]
Batch = tuple[pa.RecordBatch, Metadata]


class Spool:
    """The stream of a running recording.

    Each batch carries the capture's whole metadata as it stood then, so that a stream cut off
    anywhere still accounts for itself. A batch that cannot be written is taken back, so that the
    stream ends with the one before it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = io.BytesIO()
        options = pa.ipc.IpcWriteOptions(compression="zstd", emit_dictionary_deltas=True)
        self._writer = pa.ipc.new_stream(self._buffer, SCHEMA, options=options)
        self._syncer = ThreadPoolExecutor(1)
        self._sync = self._syncer.submit(lambda: None)
        self._synced_bytes = self.size_bytes = 0

    def write(self, batch: pa.RecordBatch, metadata: Metadata) -> None:
        """Appends rows and hands them to the kernel, so that they outlive this process.

        Raises IorecError if there is no room; nothing may be written after that.
        """
        self._writer.write_batch(batch, {METADATA_KEY: json.dumps(metadata).encode()})
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


def read_spool(file: BinaryIO) -> Iterator[Batch]:
    """The batches of a stream and the metadata of each, up to where it ends or is cut off."""
    try:
        reader = pa.ipc.open_stream(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise IorecError(
            f"this is not a spool of iorec: {error}",
            "iorec recover takes the .part file that an interrupted recording left",
        ) from error
    while True:
        try:
            batch, metadata = reader.read_next_batch_with_custom_metadata()
        except (StopIteration, pa.ArrowInvalid, OSError):
            return
        yield batch, json.loads(metadata[METADATA_KEY])
