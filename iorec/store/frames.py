# SPDX-License-Identifier: GPL-2.0-only
"""Frames of a spool: each says its kind and its length, and proves itself by checksums."""

import struct
import zlib
from typing import Protocol

import pyarrow as pa

# A spool is its head, which says its origin, and batches: names if there are new ones, records if
# there are any, and the metadata, which make a batch of what came before them.
HEAD, NAMES, FINISHED, IN_FLIGHT, METADATA = b"iorc", b"name", b"reco", b"hung", b"meta"

# Kind, bytes of the content, its CRC-32 (zlib's), that of what precedes.
_HEAD = struct.Struct("<4sII")
_CHECK = struct.Struct("<I")


class Readable(Protocol):
    """A file, or what is read like one."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer only at the end."""


def frame(kind: bytes, content: bytes) -> bytes:
    """The content with what a reader needs to believe it."""
    head = _HEAD.pack(kind, len(content), zlib.crc32(content))
    return b"".join((head, _CHECK.pack(zlib.crc32(head)), content))


def read_frame(file: Readable, most_bytes: int) -> tuple[bytes, bytes]:
    """The kind and the content of the next frame.

    EOFError if the file ends before it does, ValueError if it is damaged or claims too much.
    """
    head = _read(file, _HEAD.size)
    (check,) = _CHECK.unpack(_read(file, _CHECK.size))
    kind, size, content_check = _HEAD.unpack(head)
    if check != zlib.crc32(head) or size > most_bytes:
        raise ValueError
    content = _read(file, size)
    if content_check != zlib.crc32(content):
        raise ValueError
    return kind, content


def decompress(packed: bytes, most_bytes: int) -> bytes:
    """What was packed with zstd; ValueError if that is more than `most_bytes`."""
    stream = pa.CompressedInputStream(pa.BufferReader(packed), "zstd")
    data: bytes = stream.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise ValueError
    return data


def _read(file: Readable, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data
