# SPDX-License-Identifier: GPL-2.0-only
"""Reads the spools of earlier versions: Arrow streams of finished rows."""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from analyze.errors import IorecError
from analyze.schema import METADATA_KEY, SCHEMA
from iorec.store.arrow_stream import CheckedStream, has_end_of_batch
from iorec.store.metadata_json import checked_json, unpack_json
from iorec.store.named import LONGEST_NAME_BYTES

_MOST_ROWS = 1 << 16
# The columns that the last such spools had.
_EARLIER_SCHEMA = pa.schema(list(SCHEMA)[: SCHEMA.names.index("process")])
_NOT_NULL = [place for place, field in enumerate(SCHEMA) if not field.nullable]
_NAME_PLACES = [place for place, field in enumerate(SCHEMA) if pa.types.is_dictionary(field.type)]
# Metadata as zstd; those of the first versions are plain, under METADATA_KEY.
_PACKED_KEY = METADATA_KEY + b".zstd"
# Dictionaries up to this size stay as they are where not every name is used.
_SMALL_DICTIONARY_BYTES = 1 << 20


def read_batches(file: BinaryIO) -> Iterator[tuple[pa.RecordBatch, bytes]]:
    """The batches and the metadata of each as JSON, up to where the file ends or is damaged.

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


def not_a_spool(cause: str) -> IorecError:
    """For a file that is something else."""
    return IorecError(
        f"this is not a spool of iorec: {cause}",
        "iorec recover takes the .part file that an interrupted recording left",
    )


def _batches(file: BinaryIO) -> Iterator[tuple[pa.RecordBatch, pa.KeyValueMetadata | None]]:
    """The batches of one stream after the other."""
    stream = CheckedStream(file)
    try:
        reader = pa.ipc.open_stream(stream)
    except (pa.ArrowException, OSError) as error:
        raise not_a_spool(str(error)) from error
    if reader.schema not in (SCHEMA, _EARLIER_SCHEMA):
        raise not_a_spool("its columns are not those of a capture")
    while True:
        with contextlib.suppress(StopIteration):
            while True:
                yield reader.read_next_batch_with_custom_metadata()
        if not stream.has_ended:
            return
        stream = CheckedStream(file)
        reader = pa.ipc.open_stream(stream)
        if reader.schema not in (SCHEMA, _EARLIER_SCHEMA):
            return


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with the names that its rows use; ValueError if no recorder wrote it."""
    batch.validate(full=True)
    columns = batch.columns
    for field in list(SCHEMA)[len(columns) :]:
        columns.append(pa.nulls(len(batch), field.type))
    if len(batch) > _MOST_ROWS or any(columns[place].null_count for place in _NOT_NULL):
        raise ValueError
    for place in _NAME_PLACES:
        names = columns[place].dictionary
        if names.null_count or _longest_bytes(names) > LONGEST_NAME_BYTES:
            raise ValueError
        if len(names) > len(batch) or names.nbytes > _SMALL_DICTIONARY_BYTES:
            columns[place] = _with_used_names(columns[place])
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _longest_bytes(names: pa.StringArray) -> int:
    if names.nbytes <= LONGEST_NAME_BYTES:
        return 0
    return int(pc.max(pc.binary_length(names)).as_py() or 0)


def _with_used_names(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """The column with a dictionary of the names that its rows use."""
    used = column.indices.unique().drop_null()
    if len(used) == len(column.dictionary):
        return column
    return pa.DictionaryArray.from_arrays(
        pc.index_in(column.indices, used), column.dictionary.take(used)
    )


def _described(custom: pa.KeyValueMetadata) -> bytes:
    """The JSON of an object; ValueError if it is none."""
    if _PACKED_KEY in custom:
        return unpack_json(custom[_PACKED_KEY])
    if METADATA_KEY in custom:
        return checked_json(custom[METADATA_KEY])
    raise ValueError
