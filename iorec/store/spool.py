# SPDX-License-Identifier: GPL-2.0-only
"""Writes records as they come from the kernel, so that they are readable up to where they end."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa

from analyze.errors import IorecError
from analyze.metadata import MAX_METADATA_BYTES, Metadata
from analyze.typed_json import dump_object
from iorec.host.advice import advice
from iorec.store.frames import FINISHED, HEAD, IN_FLIGHT, METADATA, NAMES, frame
from iorec.store.metadata_json import to_json
from iorec.store.named import Named
from iorec.store.origin import Origin
from iorec.store.planes import pack
from iorec.store.spool_names import WrittenNames

Batch = tuple[Named, Metadata]

# To read metadata as a reader does takes longer than all else that a second of little I/O costs.
_MAY_BE_OUT_OF_RANGE = re.compile(rb":-|[5-9]\d{18}|\d{20}|NaN|Infinity")


class Encoder:
    """Makes frames of batches; names, and where the records come from, are said once.

    Each batch carries the capture's whole metadata as it stood then, so that what is cut off
    anywhere still accounts for itself.
    """

    def __init__(self, origin: Origin) -> None:
        self._head = [frame(HEAD, origin.pack())]
        self._names = WrittenNames()
        self._was_read = False
        self._kept: dict[str, tuple[Any, str]] = {}

    def encode(self, batch: Named, metadata: Metadata) -> bytes:
        """The frames of the next batch; each has to reach the reader, in their order.

        At most MOST_RECORDS, with names of at most MOST_NAMES_BYTES.
        """
        frames, self._head = self._head, []
        if names := self._names.encode(batch):
            frames.append(frame(NAMES, names))
        if len(batch.records):
            kind = IN_FLIGHT if batch.is_in_flight else FINISHED
            frames.append(frame(kind, pack(batch.records)))
        described = pa.compress(self._to_json(metadata), "zstd", asbytes=True)
        frames.append(frame(METADATA, described))
        return b"".join(frames)

    def _to_json(self, metadata: Metadata) -> bytes:
        """Passes the reader's parser: the first, the last, and those with a number that it may not
        take. What is no number is right for good if it was once.
        """
        text = dump_object(metadata, self._kept)
        is_fine = len(text) <= MAX_METADATA_BYTES and not _MAY_BE_OUT_OF_RANGE.search(text)
        if self._was_read and is_fine and not metadata.complete:
            return text
        self._was_read = True
        return to_json(metadata)


class Spool:
    """The file of a running recording.

    A batch that cannot be written is taken back, so that the file ends with the one before it.
    """

    period_s = 1.0
    is_over = False

    def __init__(self, file: BinaryIO, origin: Origin) -> None:
        self._file = file
        self._encoder = Encoder(origin)
        self._syncer = ThreadPoolExecutor(1)
        self._sync = self._syncer.submit(lambda: None)
        self._synced_bytes = self.size_bytes = 0

    def write(self, batch: Named, metadata: Metadata) -> None:
        """Appends records and hands them to the kernel, so that they outlive this process.

        Raises IorecError if they do not fit; nothing may be written after that.
        """
        self._hand_over(self._encoder.encode(batch, metadata))

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
        """Waits for the last sync."""
        self._syncer.shutdown()

    def _hand_over(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file.fileno(), left) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), self.size_bytes)
            raise _explained(error) from error
        self.size_bytes += len(data)


def _explained(error: OSError) -> IorecError:
    return IorecError(
        f"cannot write the spool: {error.strerror}",
        f"{advice(str(error))}, or record to another disk with -o",
    )
