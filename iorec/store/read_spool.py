# SPDX-License-Identifier: GPL-2.0-only
"""Reads spools, up to where they end."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from iorec.store.arrow_spool import not_a_spool, read_batches
from iorec.store.frames import (
    FINISHED,
    HEAD,
    IN_FLIGHT,
    METADATA,
    NAMES,
    Readable,
    read_frame,
)
from iorec.store.metadata_json import unpack_json
from iorec.store.named import NOTHING, Named
from iorec.store.origin import Origin
from iorec.store.planes import unpack
from iorec.store.rows import RowBuilder
from iorec.store.spool_names import ReadNames

_ARROW_MAGIC = b"\xff\xff\xff\xff"  # of a spool of an earlier version
_MOST_FRAME_BYTES = 24 << 20
_BAD_CONTENT = (ValueError, pa.ArrowException, OSError, RecursionError)


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
    if magic != HEAD:
        raise not_a_spool("it begins with something else")
    place = 0
    try:
        reader = FrameReader(file)
        while True:
            place = file.tell()
            yield reader.read()
    except EOFError:
        file.seek(0, os.SEEK_END)
    except _BAD_CONTENT:
        file.seek(place)


class FrameReader:
    """Reads what an Encoder made, of a file or from where it is made just now.

    EOFError where it ends, another of _BAD_CONTENT where it is damaged.
    """

    def __init__(self, file: Readable) -> None:
        self._file = file
        origin, version = Origin.unpack(read_frame(file, _MOST_FRAME_BYTES)[1])
        self._builder, self._names = RowBuilder(origin), ReadNames(version)

    def read(self) -> tuple[pa.RecordBatch, bytes]:
        """The rows of the next batch and its metadata as JSON."""
        batch = NOTHING
        while True:
            kind, content = read_frame(self._file, _MOST_FRAME_BYTES)
            if kind == METADATA:
                return self._builder.build(batch), unpack_json(content)
            if kind == NAMES:
                self._names.take(content)
            elif kind in (FINISHED, IN_FLIGHT) and batch is NOTHING:
                names, is_in_flight = self._names, kind == IN_FLIGHT
                batch = Named(unpack(content), names.submitters, names.disks, is_in_flight)
            else:
                raise ValueError
