"""Takes the messages of an Arrow stream off a file without believing a length in them."""

import io
import struct
from typing import BinaryIO

from analyze.errors import IorecError
from analyze.metadata import MAX_METADATA_BYTES
from analyze.schema import SCHEMA

# Each is many times what a recording needs: 65,536 rows take 5 MiB.
_MOST_HEADER_BYTES = MAX_METADATA_BYTES + (64 << 10)
_MOST_BODY_BYTES = 24 << 20
_MOST_NAMES_BYTES = 24 << 20

_CONTINUATION = 0xFFFFFFFF
# Arrow's format/Schema.fbs and Message.fbs; before V5 there is another way to say compressed.
_METADATA_V5 = 4
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


class CheckedStream(io.RawIOBase):
    """The stream for Arrow to read, up to the first message that is cut off or claims too much."""

    def __init__(self, file: BinaryIO) -> None:
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
            except (ValueError, IndexError, struct.error):
                return b""
        taken, self._message = self._message[:size], self._message[size:]
        return bytes(taken)

    def _read_message(self) -> bytes:
        """A whole message; ValueError, IndexError or struct.error if there is no good one."""
        prefix = self._file.read(8)
        continuation, header_bytes = struct.unpack("<II", prefix)
        if continuation != _CONTINUATION or header_bytes > _MOST_HEADER_BYTES:
            raise ValueError
        header = self._file.read(header_bytes)
        kind, batch, body_bytes = _parse_message(header)
        if body_bytes > _MOST_BODY_BYTES:
            raise ValueError
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
        if self._dictionaries > len(SCHEMA):
            raise ValueError
        if self._names_bytes > _MOST_NAMES_BYTES:
            raise IorecError(
                f"the names in the spool take more than {_MOST_NAMES_BYTES >> 20} MiB",
                "record for a shorter time, or fewer processes with -p, -c or --cgroup",
            )


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
