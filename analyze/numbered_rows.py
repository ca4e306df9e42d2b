# SPDX-License-Identifier: GPL-2.0-only
"""Streams the rows of a capture as numpy arrays, in which names are numbers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analyze.batches import stream_batches
from analyze.opened import OpenedRows
from analyze.schema import MOVING_OPS
from analyze.selection import recorded_span

Ints = NDArray[np.int64]
Rows = dict[str, NDArray[Any]]  # columns
Numbers = dict[str | None, int]  # of names

ROWS = 1 << 17  # in memory at a time
_CACHE_FLUSH = "cache_flush"
_COLUMNS = ("time", "latency_ns", "device", "host", "op", "offset", "bytes", "errno")


def rows_by_time(capture: OpenedRows, devices: Numbers) -> Iterator[Rows]:
    """Some I/Os at a time; one that did not complete is in flight until the recording stopped.

    What a stranger's file says is brought into the recorded part of the window.
    """
    begin_ns = capture.window.begin_ns
    end_ns = min(capture.window.end_ns, recorded_span(capture.files).end_ns)
    # Those that move data have the first numbers.
    ops: Numbers = {name: number for number, name in enumerate((*MOVING_OPS, _CACHE_FLUSH))}
    with capture.connection.cursor() as own:
        for batch in stream_batches(own, _COLUMNS, ROWS, in_slices=capture.can_be_sliced):
            start_ns = np.clip(_ints(batch["time"].cast(pa.int64())), begin_ns, end_ns)
            latency_ns = _ints(batch["latency_ns"])
            is_in_flight = ~_is_valid(batch["latency_ns"])
            latency_ns[is_in_flight] = [
                capture.recorded_until_ns(int(time_ns)) - time_ns
                for time_ns in start_ns[is_in_flight]
            ]
            rows = {
                "start_ns": start_ns,
                "stop_ns": start_ns + np.clip(latency_ns, 0, end_ns - start_ns),
                "device": _numbered(_device_names(capture, batch), devices),
                "op": _numbered(batch["op"], ops),
                "offset": _ints(batch["offset"]),
                "bytes": _ints(batch["bytes"]),
                "is_placed": _is_placed(batch),
                "is_good": _is_valid(batch["errno"]) & (_ints(batch["errno"]) == 0),
            }
            yield only(rows, rows["op"] != ops[_CACHE_FLUSH])


def reads_by_offset(capture: OpenedRows, devices: Numbers) -> Iterator[tuple[int, Rows]]:
    """Reads of a device that succeeded, some at a time, by ascending offset."""
    query = """
        SELECT device, host, "offset", bytes FROM io
        WHERE op = 'read' AND errno = 0 AND bytes > 0 AND "offset" IS NOT NULL
            AND device IS NOT NULL ORDER BY ALL
    """
    with capture.connection.cursor() as own:
        for batch in own.sql(query).to_arrow_reader(ROWS):
            rows = {name: _ints(batch[name]) for name in ("offset", "bytes")}
            rows["device"] = _numbered(_device_names(capture, batch), devices)
            yield from parts(rows, "device")


def _is_placed(batch: pa.RecordBatch) -> NDArray[np.bool_]:
    """Whether it has a place on a device: the offsets of a system call are those in a file."""
    return _is_valid(batch["offset"]) & _is_valid(batch["device"]) & (_ints(batch["bytes"]) > 0)


def _device_names(capture: OpenedRows, batch: pa.RecordBatch) -> pa.Array:
    """As they are in capture.devices."""
    if not capture.has_several_hosts:
        return batch["device"]
    return pc.binary_join_element_wise(batch["host"], batch["device"], ":")


def _numbered(names: pa.Array, numbers: Numbers) -> Ints:
    """The number of each name; a new name gets the next one."""
    encoded = names.dictionary_encode(null_encoding="encode")
    known = [numbers.setdefault(name, len(numbers)) for name in encoded.dictionary.to_pylist()]
    numbered: Ints = np.array(known, np.int64)[encoded.indices.to_numpy()]
    return numbered


def parts(rows: Rows, column: str) -> Iterator[tuple[int, Rows]]:
    """The rows of each number in a column, in their order."""
    for number in np.unique(rows[column]):
        yield int(number), only(rows, rows[column] == number)


def only(rows: Rows, mask: NDArray[np.bool_]) -> Rows:
    """The rows for which the mask holds."""
    return {name: values[mask] for name, values in rows.items()}


def _ints(column: pa.Array) -> Ints:
    """Nulls as 0."""
    return np.array(pc.fill_null(column.cast(pa.int64()), 0), np.int64)


def _is_valid(column: pa.Array) -> NDArray[np.bool_]:
    return np.asarray(column.is_valid().to_numpy(zero_copy_only=False), bool)
