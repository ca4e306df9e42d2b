# SPDX-License-Identifier: GPL-2.0-only
"""Hands values to Arrow without a detour.

Nothing here calls pa.array() or to_numpy(): where pandas is installed they import it, which takes
0.3 s of CPU when the first rows are written.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_arrow(
    values: NDArray[Any], is_null: NDArray[np.bool_] | None = None, kind: pa.DataType | None = None
) -> pa.Array:
    """An array of `values`, by default of their own type, null where `is_null`."""
    values = np.ascontiguousarray(values)
    validity = None
    if is_null is not None and is_null.any():
        validity = pa.py_buffer(np.packbits(~is_null, bitorder="little"))
    buffers = [validity, pa.py_buffer(values)]
    return pa.Array.from_buffers(kind or pa.from_numpy_dtype(values.dtype), len(values), buffers)


def strings_to_arrow(values: list[str]) -> pa.StringArray:
    """An array of text."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    buffers = pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(len(values), *buffers)


def names_to_arrow(values: Sequence[str | None], places: NDArray[np.int32]) -> pa.DictionaryArray:
    """A dictionary array of the value at each place; None is null."""
    codes: dict[str, int] = {}
    code_of = [-1 if value is None else codes.setdefault(value, len(codes)) for value in values]
    taken = np.array(code_of, np.int32).take(places)
    return pa.DictionaryArray.from_arrays(to_arrow(taken, taken < 0), strings_to_arrow(list(codes)))


def distinct(values: NDArray[Any]) -> tuple[list[int], NDArray[np.int32]]:
    """The values that occur, each once, and where among them each of `values` is."""
    encoded = to_arrow(values).dictionary_encode()
    places = np.frombuffer(encoded.indices.buffers()[1], np.int32, len(values))
    return encoded.dictionary.to_pylist(), places
