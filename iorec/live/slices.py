# SPDX-License-Identifier: GPL-2.0-only
"""Cuts what a feed brings into slices of time, each with the I/Os that ended in it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from queue import Empty, Queue
from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from duckdb import DuckDBPyConnection

from analyze.activity import Activity, load_activity
from analyze.metadata import Metadata
from analyze.opened import OpenedRows
from analyze.schema import SCHEMA
from analyze.selection import Window
from analyze.table_rows import open_table
from analyze.typed_json import EpochNs
from iorec.live.viewer import follow

# Twice as long as the recorder keeps what there is: then nothing of a slice is on its way.
_PATIENCE_NS = 1_000_000_000
_MOST_LATE = 10  # slices, before they are joined to one
# Of 150 bytes each.
MOST_ROWS = 1 << 20
_MOST_WAITING = 8  # batches; what comes then waits in the feed, which leaves out what is too much

_Frame = tuple[pa.RecordBatch, Metadata]


@dataclass(frozen=True)
class Slice:
    """The I/Os that ended in a window; so many more were lost, or left out to save memory."""

    window: Window
    table: pa.Table
    metadata: Metadata
    lost: int
    left_out: int


class Summer:
    """Sums up one slice after the other; one without I/Os after another one takes no time."""

    def __init__(self, connection: DuckDBPyConnection) -> None:
        self._connection = connection
        self._empty: tuple[Any, ...] | None = None

    def rows(self, part: Slice, where: str | None = None) -> OpenedRows:
        """The rows of a slice, or those for which the condition holds, for queries."""
        return open_table(self._connection, part.table, part.metadata, part.window, where)

    def load(
        self, part: Slice, by: tuple[str, ...], sort: str, top: int, where: str | None = None
    ) -> Activity:
        """The largest groups of a slice, see load_activity."""
        empty = None if len(part.table) else (by, sort, top, where)
        if empty is None or empty != self._empty:
            self._activity = load_activity(self.rows(part, where), by, sort, top)
        self._empty = empty
        return self._activity


def follow_slices(fd: int, length_ns: int) -> Iterator[Slice]:
    """The slices of a feed, each when it is over; the last one may be shorter.

    Whoever takes them much too late gets several in one.
    """
    frames = Queue[_Frame | None](_MOST_WAITING)
    Thread(target=_read, args=(fd, frames), daemon=True).start()
    cutter = Cutter(length_ns)
    while True:
        try:
            frame = frames.get(timeout=cutter.due_s(time.monotonic_ns()))
        except Empty:
            yield from cutter.cut(time.monotonic_ns() - _PATIENCE_NS)
            continue
        if frame is None:
            break
        cutter.add(*frame)
        yield from cutter.cut(0)
    yield from cutter.rest()


def _read(fd: int, frames: Queue[_Frame | None]) -> None:
    try:
        for frame in follow(fd):
            frames.put(frame)
    finally:  # whatever went wrong: nobody is to wait for ever
        frames.put(None)


class Cutter:
    """Holds the rows of which the slice is not over yet."""

    def __init__(self, length_ns: int, most_rows: int = MOST_ROWS) -> None:
        self._length_ns = length_ns
        self._most_rows = most_rows
        self._held = SCHEMA.empty_table()
        self._taken = 0
        self._last: Metadata | None = None
        self._begin_ns = 0
        self._said = (0, 0)

    def add(self, batch: pa.RecordBatch, metadata: Metadata) -> None:
        """Takes a batch, or leaves it out whole if there is no room for it."""
        if self._last is None:
            self._begin_ns = metadata.started_at
        self._last = metadata
        if len(self._held) + len(batch) <= self._most_rows:
            self._held = pa.concat_tables([self._held, pa.Table.from_batches([batch])])
            self._taken += len(batch)

    def due_s(self, monotonic_ns: int) -> float | None:
        """How long to wait for the next batch until a slice is over without; None for ever."""
        if self._last is None:
            return None
        end_ns = self._begin_ns + self._length_ns + _PATIENCE_NS
        return max(end_ns - _time_at(self._last, monotonic_ns), _PATIENCE_NS // 2) / 1e9

    def cut(self, monotonic_ns: int) -> Iterator[Slice]:
        """What is over when all that had ended at this moment, or by the last batch, is here."""
        if self._last is None:
            return
        reached_ns = max(self._last.stopped_at, _time_at(self._last, monotonic_ns))
        while count := max(reached_ns - self._begin_ns, 0) // self._length_ns:
            end_ns = self._begin_ns + self._length_ns * (1 if count < _MOST_LATE else count)
            ended = pc.add(self._held["time"].cast(pa.int64()), self._held["latency_ns"])
            yield self._slice(self._last, end_ns, pc.fill_null(pc.less(ended, end_ns), False))

    def rest(self) -> Iterator[Slice]:
        """What is held at the end, with what has not completed."""
        if self._last is not None and self._last.stopped_at > self._begin_ns:
            yield self._slice(self._last, self._last.stopped_at, pa.repeat(True, len(self._held)))

    def _slice(self, last: Metadata, end_ns: int, is_over: pa.Array) -> Slice:
        window = Window(self._begin_ns, end_ns)
        over = self._held.filter(is_over)
        self._held = self._held.filter(pc.invert(is_over))
        self._begin_ns = end_ns
        before, self._said = self._said, self._missing(last)
        lost, left_out = (now - then for now, then in zip(self._said, before, strict=True))
        metadata = replace(last, stopped_at=EpochNs(max(last.stopped_at, end_ns)))
        return Slice(window, over, metadata, lost, left_out)

    def _missing(self, last: Metadata) -> tuple[int, int]:
        """I/Os that were lost, and that were recorded but did not get here, since the start."""
        if last.counts is None:
            return 0, 0
        return sum(last.counts.lost.values()), last.counts.row_count - self._taken


def _time_at(metadata: Metadata, monotonic_ns: int) -> int:
    """The time of the recording, as its rows have it."""
    if metadata.clock is None:
        return metadata.stopped_at
    return metadata.clock.start.time_at(monotonic_ns)
