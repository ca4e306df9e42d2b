# SPDX-License-Identifier: GPL-2.0-only
"""Adds up I/Os for metrics: exact, since the recording began, in memory that is bounded."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from analyze.errnos import errno_name
from analyze.metadata import Metadata, Recorder
from analyze.schema import LAYERS

Ints = NDArray[np.integer[Any]]

# A doubling each, from 1 us to 16.8 s; a bucket holds what is equal to its edge, too.
EDGES_NS = 1000 << np.arange(25)
MOST_NAMES = 128  # of devices, and of cgroups
OTHER, UNKNOWN = "other", "unknown"

_MOST_OPS = 32
_MOST_ERRNOS = 32
_LONGEST_NAME = 256


class Labels:
    """Numbers the values of a label as they come; those beyond a bound share number 0."""

    def __init__(self, most: int) -> None:
        self.values = [OTHER]
        self.room = 1 + most
        self._numbers = {OTHER: 0}

    def numbers(self, column: pa.DictionaryArray) -> Ints:
        """The number of each row."""
        values = [*column.dictionary.to_pylist(), *([UNKNOWN] if column.null_count else [])]
        found = np.array([self.number(_shorten(value)) for value in values], np.intp)
        return found.take(_values(column.indices.fill_null(len(column.dictionary))))

    def number(self, value: str) -> int:
        """The number of one value."""
        if value not in self._numbers:
            if len(self.values) == self.room:
                return 0
            self._numbers[value] = len(self.values)
            self.values.append(value)
        return self._numbers[value]


class Tally:
    """Sums for each combination of some labels."""

    def __init__(self, labels: tuple[Labels, ...]) -> None:
        self._labels = labels
        self.ios = np.zeros([label.room for label in labels], np.int64)
        self.sums = np.zeros(self.ios.shape)  # whole numbers: exact up to 2**53

    def add(self, places: tuple[Ints, ...], values: Ints) -> None:
        """Adds rows with these numbers of labels."""
        flat = np.ravel_multi_index(places, self.ios.shape)
        np.add.at(self.ios.reshape(-1), flat, 1)
        np.add.at(self.sums.reshape(-1), flat, values.astype(np.float64))

    def occupied(self) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """The labels of each combination that has come, and its place in the arrays."""
        for place in zip(*self.ios.nonzero(), strict=True):
            names = zip(self._labels, place, strict=True)
            yield [label.values[number] for label, number in names], place


class Histogram(Tally):
    """How many of the values are up to each of EDGES_NS, and beyond the last one."""

    def __init__(self, labels: tuple[Labels, ...]) -> None:
        super().__init__(labels)
        self.buckets = np.zeros((*self.ios.shape, len(EDGES_NS) + 1), np.int64)

    def add(self, places: tuple[Ints, ...], values: Ints) -> None:
        super().add(places, values)
        edges = np.searchsorted(EDGES_NS, values)
        flat = np.ravel_multi_index((*places, edges), self.buckets.shape)
        np.add.at(self.buckets.reshape(-1), flat, 1)


class Group:
    """Finished I/Os by layer, one more column (`device` or `cgroup`) and op.

    Those that failed are in `errors`, by errno, and in nothing else.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self.layers, self.names = Labels(len(LAYERS)), Labels(MOST_NAMES)
        self._ops, self._errnos = Labels(_MOST_OPS), Labels(_MOST_ERRNOS)
        labels = self.layers, self.names, self._ops
        self.latency, self.queue, self.bytes = Histogram(labels), Histogram(labels), Tally(labels)
        self.errors = Tally((*labels, self._errnos))

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds finished I/Os."""
        layers = self.layers.numbers(batch["layer"])
        names, ops = self.names.numbers(batch[self.column]), self._ops.numbers(batch["op"])
        errnos, sizes = _values(batch["errno"].fill_null(0)), _moved(batch)

        def places(chosen: NDArray[np.bool_]) -> tuple[Ints, ...]:
            return layers[chosen], names[chosen], ops[chosen]

        good = errnos == 0
        self.latency.add(places(good), _values(batch["latency_ns"])[good])
        self.bytes.add(places(good), sizes[good])
        queue_ns = _values(batch["queue_ns"].fill_null(-1))
        queued = good & (queue_ns >= 0)
        self.queue.add(places(queued), queue_ns[queued])
        found, codes = np.unique(errnos[~good], return_inverse=True)
        numbers = [self._errnos.number(errno_name(errno)) for errno in found.tolist()]
        failed = *places(~good), np.array(numbers, np.intp).take(codes)
        self.errors.add(failed, sizes[~good])

    def ios(self) -> dict[str, int]:
        """The I/Os of each layer."""
        counts = self.latency.ios.sum(axis=(1, 2)) + self.errors.ios.sum(axis=(1, 2, 3))
        return dict(zip(self.layers.values, counts.tolist(), strict=False))


class Totals:
    """All that was recorded until now: the account of it, and the I/Os that came here."""

    def __init__(self, *, by_cgroup: bool) -> None:
        self.devices = Group("device")
        self.groups = [self.devices, *([Group("cgroup")] if by_cgroup else [])]
        self.recorder: Recorder | None = None  # what it has cost
        self.lost: dict[tuple[str, str], int] = {}  # by layer and cause
        self.left_out: dict[str, int] = {}  # by layer: recorded, but the viewer was too slow

    def add(self, batch: pa.RecordBatch, metadata: Metadata) -> None:
        """Adds a batch as it comes from a Feed."""
        batch = batch.filter(pc.is_valid(batch["latency_ns"]))
        for group in self.groups:
            group.add(batch)
        self.recorder = metadata.recorder
        taken = self.devices.ios()
        for layer, counts in (metadata.counts.by_layer if metadata.counts else {}).items():
            self.left_out[layer] = counts.recorded - taken.get(layer, 0)
            for cause, lost in counts.lost.items():
                # Some are estimates, which may shrink; a counter may not.
                self.lost[layer, cause] = max(lost, self.lost.get((layer, cause), 0))


def _moved(batch: pa.RecordBatch) -> Ints:
    """The bytes of each I/O; of a system call those that it returned."""
    sizes, results = _values(batch["bytes"]), _values(batch["result"].fill_null(0))
    is_size = (results >= 0) & (results <= sizes)
    has_result = pc.is_valid(batch["result"]).to_numpy(zero_copy_only=False)
    return np.where(has_result, np.where(is_size, results, 0), sizes)


def _values(column: pa.Array) -> Ints:
    """Of a column of integers; what is null is any number."""
    kind = np.dtype(f"i{column.type.bit_width // 8}")
    return np.frombuffer(column.buffers()[1], kind, len(column), column.offset * kind.itemsize)


def _shorten(name: str) -> str:
    """Keeps the beginning and the end of a long name."""
    half = _LONGEST_NAME // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[: half - 1]}…{name[-half:]}"
