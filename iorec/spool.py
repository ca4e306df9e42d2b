"""Writes rows, as they are recorded, to an Arrow stream that is readable up to where it ends."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from analyze.errors import IorecError
from analyze.schema import METADATA_KEY, SCHEMA

Metadata = dict[str, Any]


class Spool:
    """The stream of a running recording.

    Each batch carries the capture's whole metadata as it stood then, so that a stream cut off
    anywhere still accounts for itself.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        options = pa.ipc.IpcWriteOptions(compression="zstd", emit_dictionary_deltas=True)
        self._writer = pa.ipc.new_stream(file, SCHEMA, options=options)
        self.size_bytes = 0

    def write(self, batch: pa.RecordBatch, metadata: Metadata) -> None:
        """Appends rows and hands them to the kernel, so that they outlive this process."""
        self._writer.write_batch(batch, {METADATA_KEY: json.dumps(metadata).encode()})
        self._file.flush()
        self.size_bytes = self._file.tell()

    def close(self) -> None:
        """Ends the stream, so that a reader knows that it is whole."""
        self._writer.close()
        self._file.flush()


def read_spool(file: BinaryIO) -> Iterator[tuple[pa.RecordBatch, Metadata]]:
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
