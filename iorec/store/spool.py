# SPDX-License-Identifier: GPL-2.0-only
"""Writes records as they come from the kernel to a file that is readable up to where it ends."""

import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from analyze.errors import IorecError
from analyze.metadata import MAX_METADATA_BYTES, Metadata
from analyze.typed_json import dump_object, parse_object
from iorec.host.advice import advice
from iorec.kernel.layouts import RECORD
from iorec.store.arrow_spool import not_a_spool, read_batches
from iorec.store.frames import frame, read_frame
from iorec.store.metadata_json import checked_json, to_json, unpack_json
from iorec.store.named import NOTHING, Named
from iorec.store.planes import pack, unpack
from iorec.store.rows import Origin, RowBuilder
from iorec.store.spool_names import ReadNames, WrittenNames

Batch = tuple[Named, Metadata]

# A spool is its head, and batches: names if there are new ones, records if there are any, and
# the metadata, which make a batch of what came before them.
_HEAD, _NAMES, _FINISHED, _IN_FLIGHT, _METADATA = b"iorc", b"name", b"reco", b"hung", b"meta"
_VERSION = 2  # the first one was an Arrow stream of finished rows, which begins so:
_ARROW_MAGIC = b"\xff\xff\xff\xff"
_MOST_FRAME_BYTES = 24 << 20
_MOST_HEAD_BYTES = 64 << 10

# Of thousands of devices, reading the metadata takes longer than writing the rows.
_CHECK_S = 1.0

_BAD_CONTENT = (ValueError, pa.ArrowException, OSError, RecursionError)


@dataclass(frozen=True)
class _Head:
    """What a spool begins with, as JSON."""

    version: int
    byte_order: str
    record_bytes: int
    origin: Origin


class Spool:
    """The file of a running recording.

    Each batch carries the capture's whole metadata as it stood then, so that a file cut off
    anywhere still accounts for itself. A batch that cannot be written is taken back, so that the
    file ends with the one before it.
    """

    def __init__(self, file: BinaryIO, origin: Origin) -> None:
        self._file = file
        self._names = WrittenNames()
        self._head = frame(_HEAD, _pack_head(origin))
        self._syncer = ThreadPoolExecutor(1)
        self._sync = self._syncer.submit(lambda: None)
        self._synced_bytes = self.size_bytes = 0
        self._next_check_s = 0.0

    def write(self, batch: Named, metadata: Metadata) -> None:
        """Appends records and hands them to the kernel, so that they outlive this process.

        At most MOST_RECORDS, with names of at most MOST_NAMES_BYTES. Raises IorecError if they do
        not fit; nothing may be written after that.
        """
        frames = [] if self.size_bytes else [self._head]
        if names := self._names.encode(batch):
            frames.append(frame(_NAMES, names))
        if len(batch.records):
            kind = _IN_FLIGHT if batch.is_in_flight else _FINISHED
            frames.append(frame(kind, pack(batch.records)))
        described = pa.compress(self._to_json(metadata), "zstd", asbytes=True)
        frames.append(frame(_METADATA, described))
        self._hand_over(b"".join(frames))

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


def read_spool(file: BinaryIO) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """The rows of each batch and its metadata as JSON, up to where the file ends or is damaged.

    The file is then at its end, or before the batch that is damaged. Nothing in it is believed:
    whatever it claims, memory is bounded, and each batch is valid through and through. Raises
    IorecError if it is no spool at all.
    """
    magic = file.read(4)
    file.seek(0)
    if magic == _ARROW_MAGIC:
        yield from read_batches(file)
        return
    if magic != _HEAD:
        raise not_a_spool("it begins with something else")
    names = ReadNames()
    place = 0
    try:
        builder = RowBuilder(_unpack_head(read_frame(file, _MOST_FRAME_BYTES)[1]))
        while True:
            place = file.tell()
            batch, described = _read_batch(file, names)
            yield builder.build(batch), described
    except EOFError:
        file.seek(0, os.SEEK_END)
    except _BAD_CONTENT:
        file.seek(place)


def _read_batch(file: BinaryIO, names: ReadNames) -> tuple[Named, bytes]:
    batch = NOTHING
    while True:
        kind, content = read_frame(file, _MOST_FRAME_BYTES)
        if kind == _METADATA:
            return batch, unpack_json(content)
        if kind == _NAMES:
            names.take(content)
        elif kind in (_FINISHED, _IN_FLIGHT) and batch is NOTHING:
            records = unpack(content)
            batch = Named(records, names.submitters, names.disks, kind == _IN_FLIGHT)
        else:
            raise ValueError


def _pack_head(origin: Origin) -> bytes:
    return dump_object(_Head(_VERSION, sys.byteorder, RECORD.itemsize, origin))


def _unpack_head(content: bytes) -> Origin:
    """ValueError if it is none, or of a spool that this version or machine cannot read."""
    if len(content) > _MOST_HEAD_BYTES:
        raise ValueError
    head = parse_object(_Head, json.loads(checked_json(content)))
    if head != _Head(_VERSION, sys.byteorder, RECORD.itemsize, head.origin):
        raise ValueError
    head.origin.check()
    return head.origin
