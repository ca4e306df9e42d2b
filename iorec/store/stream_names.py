# SPDX-License-Identifier: GPL-2.0-only
"""Keeps the names of an Arrow stream, each once, and bounds what they take."""

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analyze.schema import SCHEMA
from iorec.store.arrow import to_arrow

# Four times the longest path of the kernel: a byte that is not UTF-8 is escaped by four.
LONGEST_NAME_BYTES = 64 << 10
# What the names of a stream may take in memory: many times what those of one row can.
MOST_NAMES_BYTES = 8 << 20

NAME_PLACES = [place for place, field in enumerate(SCHEMA) if pa.types.is_dictionary(field.type)]

# A Python string and its entry in a dictionary, as measured.
_OVERHEAD_BYTES = 128
# Fewer are looked up faster than those are found that rows use.
_FEW_NAMES = 1024


def bounded_slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in slices whose names, each counted once, fit into a stream, or that are one row.

    The dictionaries of a slice are short, or hold only what it uses.
    """
    columns = [batch.column(place) for place in NAME_PLACES]
    is_large = not _fits(columns)
    columns = [
        with_used_names(column) if is_large or len(column.dictionary) > _FEW_NAMES else column
        for column in columns
    ]
    batch = _with_names(batch, columns)
    if _fits(columns) or len(batch) <= 1:
        yield batch
        return
    half = len(batch) // 2
    yield from bounded_slices(batch.slice(0, half))
    yield from bounded_slices(batch.slice(half))


def with_used_names(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """The column with a dictionary of the names that its rows use."""
    used = column.indices.unique().drop_null()
    if len(used) == len(column.dictionary):
        return column
    return pa.DictionaryArray.from_arrays(
        pc.index_in(column.indices, used), column.dictionary.take(used)
    )


def _fits(columns: list[pa.DictionaryArray]) -> bool:
    return sum(map(_memory_bytes, columns)) <= MOST_NAMES_BYTES


def _memory_bytes(column: pa.DictionaryArray) -> int:
    names = column.dictionary
    return int(names.nbytes) + _OVERHEAD_BYTES * len(names)


def _with_names(batch: pa.RecordBatch, names: list[pa.DictionaryArray]) -> pa.RecordBatch:
    columns = batch.columns
    for place, column in zip(NAME_PLACES, names, strict=True):
        columns[place] = column
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


class StreamNames:
    """The dictionaries of one stream: names are only ever added to them."""

    def __init__(self) -> None:
        self._memory_bytes = 0
        self._codes: list[dict[bytes, int]] = [{} for _ in NAME_PLACES]
        self._names = [_to_arrow([]) for _ in NAME_PLACES]

    def encode(self, part: pa.RecordBatch) -> pa.RecordBatch | None:
        """One of the slices above in the dictionaries of the stream; None if it has no room."""
        columns = [part.column(place) for place in NAME_PLACES]
        names = [_bounded(column.dictionary) for column in columns]
        missing = [
            [name for name in dict.fromkeys(used) if name not in known]
            for used, known in zip(names, self._codes, strict=True)
        ]
        new_bytes = sum(len(name) + _OVERHEAD_BYTES for new in missing for name in new)
        if self._memory_bytes and self._memory_bytes + new_bytes > MOST_NAMES_BYTES:
            return None
        self._memory_bytes += new_bytes
        for number, new in enumerate(missing):
            self._add(number, new)
        encoded = [
            self._encode_column(number, column.indices, names[number])
            for number, column in enumerate(columns)
        ]
        return _with_names(part, encoded)

    def _add(self, number: int, new: list[bytes]) -> None:
        if new:
            codes = self._codes[number]
            codes.update(zip(new, range(len(codes), len(codes) + len(new)), strict=True))
            self._names[number] = pa.concat_arrays([self._names[number], _to_arrow(new)])

    def _encode_column(
        self, number: int, indices: pa.Int32Array, names: list[bytes]
    ) -> pa.DictionaryArray:
        codes = np.array([self._codes[number][name] for name in names], np.int32)
        return pa.DictionaryArray.from_arrays(
            to_arrow(codes).take(indices), self._names[number], safe=False
        )


def _bounded(names: pa.StringArray) -> list[bytes]:
    """The names; what is longer than any that the kernel has is cut."""
    _, ends, data = names.buffers()
    places = np.frombuffer(ends, np.int32)[names.offset : names.offset + len(names) + 1].tolist()
    text = data.to_pybytes() if data else b""
    pairs = itertools.pairwise(places)
    if names.nbytes <= LONGEST_NAME_BYTES:
        return [text[start:end] for start, end in pairs]
    return [_cut(text[start:end]) for start, end in pairs]


def _cut(name: bytes) -> bytes:
    if len(name) <= LONGEST_NAME_BYTES:
        return name
    return name[:LONGEST_NAME_BYTES].decode(errors="ignore").encode()


def _to_arrow(names: list[bytes]) -> pa.StringArray:
    ends = np.cumsum([0, *map(len, names)], dtype=np.int32)
    return pa.StringArray.from_buffers(
        len(names), pa.py_buffer(ends), pa.py_buffer(b"".join(names))
    )
