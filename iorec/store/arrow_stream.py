# SPDX-License-Identifier: GPL-2.0-only
"""Takes the messages of an Arrow stream off a file without believing a length in them."""

import io
import os
import struct
from typing import BinaryIO

from analyze.metadata import MAX_METADATA_BYTES
from analyze.schema import SCHEMA

# Each is more than a recording needs: 65,536 rows take 5 MiB, the names of a stream 8 MiB
# (iorec/store/stream_names.py). Earlier spools are one stream, whose names may take 24 MiB.
_MOST_HEADER_BYTES = MAX_METADATA_BYTES + (64 << 10)
_MOST_BODY_BYTES = 24 << 20
_MOST_NAMES_BYTES = 24 << 20

_CONTINUATION = 0xFFFFFFFF
# Arrow's format/Schema.fbs and Message.fbs; before V5 there is another way to say compressed.
_METADATA_V5 = 4
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_CUSTOM_METADATA = 4

_BAD_MESSAGE = (ValueError, IndexError, struct.error)


class CheckedStream(io.RawIOBase):
    """The stream for Arrow to read, up to the first message that is cut off or claims too much."""

    def __init__(self, file: BinaryIO) -> None:
        self.has_ended = False  # with the mark that ends a stream
        self._file = file
        self._message = memoryview(b"")
        self._names_bytes = 0
        self._dictionaries = 0  # since the last batch of rows

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """The next bytes; Arrow asks for what is in one message."""
        if not self._message:
            try:
                self._message = memoryview(self._read_message())
            except _BAD_MESSAGE:
                return b""
        taken, self._message = self._message[:size], self._message[size:]
        return bytes(taken)

    def _read_message(self) -> bytes:
        """A whole message, nothing at the end mark; one of _BAD_MESSAGE if it is not a good one."""
        prefix, header = _read_header(self._file)
        if not header:
            self.has_ended = True
            return b""
        kind, batch, body_bytes = _parse_message(header)
        body = self._file.read(body_bytes)
        unpacked_bytes = _unpacked_bytes(header, batch, body) if batch else 0
        if len(body) < body_bytes or unpacked_bytes > _MOST_BODY_BYTES:
            raise ValueError
        self._count_names(kind, unpacked_bytes)
        return prefix + header + body

    def _count_names(self, kind: int, unpacked_bytes: int) -> None:
        """Arrow keeps the names until the stream ends, and each message of them until a batch."""
        if kind != _DICTIONARY_BATCH:
            self._dictionaries = 0
            return
        self._dictionaries += 1
        self._names_bytes += unpacked_bytes
        if self._dictionaries > len(SCHEMA) or self._names_bytes > _MOST_NAMES_BYTES:
            raise ValueError


def has_end_of_batch(file: BinaryIO) -> bool:
    """Whether a slice with metadata follows; the file stays where it is.

    Only headers are looked at, across the ends of streams.
    """
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    try:
        while True:
            _, header = _read_header(file)
            if not header:
                continue
            kind, _, body_bytes = _parse_message(header)
            if file.seek(body_bytes, os.SEEK_CUR) > size:
                return False
            if kind == _RECORD_BATCH and _field(header, _target(header, 0), _CUSTOM_METADATA):
                return True
    except _BAD_MESSAGE:
        return False
    finally:
        file.seek(place)


def _read_header(file: BinaryIO) -> tuple[bytes, bytes]:
    """What precedes a message, and its header; the mark that ends a stream has none."""
    prefix = file.read(8)
    continuation, header_bytes = struct.unpack("<II", prefix)
    if continuation != _CONTINUATION or header_bytes > _MOST_HEADER_BYTES:
        raise ValueError
    header = file.read(header_bytes)
    if len(header) < header_bytes:
        raise ValueError
    return prefix, header


def _parse_message(header: bytes) -> tuple[int, int, int]:
    """A message's kind, the place of its RecordBatch table (0: it has none), and its body's size.

    Flatbuffers, by Arrow's format/Message.fbs; a lie is a ValueError, IndexError or struct.error.
    """
    message = _target(header, 0)
    version_place = _field(header, message, 0)
    if not version_place or header[version_place] != _METADATA_V5:
        raise ValueError
    kind_place, batch_place = _field(header, message, 1), _field(header, message, 2)
    kind = header[kind_place] if kind_place else 0
    batch = 0
    if kind in (_DICTIONARY_BATCH, _RECORD_BATCH):
        batch = _target(header, batch_place)
    if kind == _DICTIONARY_BATCH:
        batch = _target(header, _field(header, batch, 1))
    length_place = _field(header, message, 3)
    body_bytes = struct.unpack_from("<Q", header, length_place)[0] if length_place else 0
    if body_bytes > _MOST_BODY_BYTES:
        raise ValueError
    return kind, batch, body_bytes


def _unpacked_bytes(header: bytes, batch: int, body: bytes) -> int:
    """What the buffers of a RecordBatch take in memory."""
    buffers = _target(header, _field(header, batch, 2))
    is_compressed = _field(header, batch, 3) != 0
    (count,) = struct.unpack_from("<I", header, buffers)
    total = 0
    for index in range(count):
        offset, length = struct.unpack_from("<qq", header, buffers + 4 + 16 * index)
        if is_compressed and length:
            (unpacked,) = struct.unpack_from("<q", body, offset)
            length = length if unpacked == -1 else unpacked  # -1: did not get smaller
        if length < 0:
            raise ValueError
        total += length
    return total


def _field(header: bytes, table: int, index: int) -> int:
    """Where a table's field is; 0 if it is absent."""
    (distance,) = struct.unpack_from("<i", header, table)
    vtable = table - distance
    (vtable_bytes,) = struct.unpack_from("<H", header, vtable)
    if 4 + 2 * index >= vtable_bytes:
        return 0
    (offset,) = struct.unpack_from("<H", header, vtable + 4 + 2 * index)
    return table + offset if offset else 0


def _target(header: bytes, place: int) -> int:
    """Where the offset at a place points to."""
    return place + int(struct.unpack_from("<I", header, place)[0])
