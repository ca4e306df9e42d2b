# SPDX-License-Identifier: GPL-2.0-only
"""Makes of a capture what is placed before the loop: entries, due times, and who waits for whom."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from analyze.batches import stream_batches
from analyze.capture import Capture, open_captures
from analyze.capture_name import CaptureName
from analyze.database import MEMORY_LIMIT
from analyze.dependencies import Follower, infer_threads
from analyze.replay_rows import COLUMNS, Place, Rules, create_replayed
from iorec.replay.board import Board
from iorec.replay.layout import SLOT_BYTES, SLOTS, WITH_PREVIOUS
from iorec.replay.memory import Memory, Reserve
from iorec.replay.plan import check_source, device_of, make_plan
from iorec.replay.planned import Plan
from iorec.replay.settings import Settings
from iorec.replay.sqes import Entries, Ints, Rows, make_iocbs, make_sqes
from iorec.replay.target import Target

_ROWS = 8192  # of a batch
_ROWS_PER_SLICE = 1 << 16
# Of the database, which also holds what it has read of the file. Reading CSV takes more.
_MEMORY_LIMIT = "64MB"
_MOST_DUE_NS = 1 << 62


@dataclass(frozen=True)
class Part:
    """A batch, ready to be placed; `waits_for` counts entries."""

    made: Entries
    due_ns: Ints
    think_ns: Ints
    waits_for: Ints

    def __len__(self) -> int:
        return len(self.due_ns)

    def place(self, board: Board, start: int, filled: int, room: int) -> int:
        """Copies entries from `start` on to the slot `filled` and on; returns how many.

        Never half of a pair.
        """
        count = min(room, len(self) - start)
        if start + count < len(self) and self.made.is_first_of_pair[start + count - 1]:
            count -= 1
        entries = self.made.entries.view(np.uint8).reshape(-1, SLOT_BYTES)
        slots = np.frombuffer(board.slots, np.uint8, SLOTS * SLOT_BYTES).reshape(-1, SLOT_BYTES)
        first = filled % SLOTS
        before_end = min(count, SLOTS - first)
        for source, place, part in (
            (start, first, before_end),
            (start + before_end, 0, count - before_end),
        ):
            slots[place : place + part] = entries[source : source + part]
            for memory, values in (
                (board.due, self.due_ns),
                (board.think, self.think_ns),
                (board.waits_for, self.waits_for),
            ):
                shared = np.frombuffer(memory, np.int64, SLOTS)
                shared[place : place + part] = values[source : source + part]
        return count


@dataclass(frozen=True)
class Placer:
    """An opened capture with its plan."""

    settings: Settings
    capture: Capture
    plan: Plan
    memory: Memory
    waiting: frozenset[int]
    fds: tuple[int, ...]
    has_aio: bool

    def parts(self) -> Iterator[Part]:
        """All I/Os in time order."""
        rng = np.random.default_rng()
        follower = Follower(self.waiting)
        number = 0
        with self.capture.connection.cursor() as own:
            batches = stream_batches(
                own,
                COLUMNS,
                _ROWS,
                in_slices=self.capture.can_be_sliced,
                table="replayed",
                rows_per_slice=_ROWS_PER_SLICE,
            )
            for batch in batches:
                if batch.num_rows:
                    part = self._part(batch, number, follower, rng)
                    number += len(part)
                    yield part

    def _part(
        self, batch: pa.RecordBatch, number: int, follower: Follower, rng: np.random.Generator
    ) -> Part:
        columns = {name: np.asarray(batch.column(name).fill_null(-1)) for name in COLUMNS}
        time_ns = columns["time_ns"].astype(np.int64)
        rows = Rows(
            *(columns[name].astype(np.int64) for name in ("target", "action", "place", "size"))
        )
        if self.has_aio:
            made = make_iocbs(rows, self.memory, np.array(self.fds), number, rng)
        else:
            made = make_sqes(rows, self.memory, number, rng)
        due = _scaled(time_ns - self.plan.first_ns, self.settings.speed)[made.row]
        think = np.zeros(len(due), np.int64)
        waits_for = np.full(len(due), -1, np.int64)
        if self.waiting:
            last_entry = number + np.searchsorted(made.row, np.arange(len(rows)), "right") - 1
            latency = columns["latency_ns"].astype(np.int64)
            end_ns = np.where(latency >= 0, time_ns + latency, -1)
            found = follower.follow(columns["tid"].astype(np.int64), time_ns, end_ns, last_entry)
            think = _thought(found.gap_ns, self.settings)[made.row]
            waits_for = found.number[made.row]
        is_second = np.concatenate([[False], made.is_first_of_pair[:-1]])
        waits_for = np.where(is_second, WITH_PREVIOUS, waits_for)
        return Part(made, due, think, waits_for)


@contextlib.contextmanager
def open_placer(
    settings: Settings, targets: Sequence[Target], reserve: Reserve, *, has_aio: bool
) -> Iterator[Placer]:
    """Opens the capture and makes the plan; IorecError for what cannot be replayed."""
    # Arrow's own allocator keeps what it once had.
    pa.set_memory_pool(pa.system_memory_pool())
    with open_captures(
        [settings.capture],
        begin=settings.begin,
        end=settings.end,
        where=settings.where,
        layer=settings.layer,
        memory_limit=MEMORY_LIMIT if CaptureName(settings.capture).is_csv else _MEMORY_LIMIT,
    ) as capture:
        sources = [target.source for target in targets]
        check_source(capture, sources, accepts_losses=settings.accepts_losses)
        places = tuple(_place(capture, target) for target in targets)
        rules = Rules(places, settings.writes, settings.fit, has_aio)
        create_replayed(capture, rules)
        waiting, others = _threads(capture, settings)
        plan = make_plan(capture, rules, (len(waiting), others))
        memory = reserve.memory(
            max(target.largest_read for target in plan.targets),
            max(target.largest_write for target in plan.targets),
        )
        fds = tuple(target.fd for target in targets)
        yield Placer(settings, capture, plan, memory, waiting, fds, has_aio)


def _place(capture: Capture, target: Target) -> Place:
    device = device_of(capture, target.source)
    is_split_known = target.has_requests and target.largest_kb is not None
    return Place(
        source=target.source,
        size_bytes=target.size_bytes,
        source_size_bytes=device.size_bytes if device else None,
        logical_block_size=target.logical_block_size,
        largest_bytes=(target.largest_kb or 0) << 10 if is_split_known else None,
        is_written=target.is_written,
        largest_discard_bytes=target.largest_discard_bytes,
        largest_zeroes_bytes=target.largest_zeroes_bytes,
    )


def _threads(capture: Capture, settings: Settings) -> tuple[frozenset[int], int]:
    """Those that wait, and how many others there are."""
    if settings.loop == "open" or settings.speed is None:
        return frozenset(), 0
    threads = infer_threads(capture.connection, "replayed")
    if settings.loop == "closed":
        return frozenset(thread.tid for thread in threads), 0
    waiting = frozenset(thread.tid for thread in threads if thread.waits)
    return waiting, len(threads) - len(waiting)


def _scaled(elapsed_ns: Ints, speed: float | None) -> Ints:
    if speed is None:
        return np.zeros_like(elapsed_ns)
    if speed == 1:
        return elapsed_ns
    return np.minimum(elapsed_ns / speed, _MOST_DUE_NS).astype(np.int64)


def _thought(gap_ns: Ints, settings: Settings) -> Ints:
    scaled = np.minimum(gap_ns * settings.think_scale, _MOST_DUE_NS)
    return _scaled(scaled.astype(np.int64), settings.speed)
