# SPDX-License-Identifier: GPL-2.0-only
"""What the capture of a replay says of the replay: the key `replay` of its metadata."""

from dataclasses import dataclass

from analyze.typed_json import EpochNs

WRITES_LEFT_OUT = "writes: the target is only read"  # a reason


@dataclass(frozen=True)
class QueueSettings:
    """How a device's queue is set, which decides what becomes of an I/O; None: unknown."""

    scheduler: str | None = None
    nr_requests: int | None = None
    nomerges: int | None = None
    max_sectors_kb: int | None = None
    wbt_lat_usec: int | None = None
    write_cache: str | None = None
    fua: int | None = None
    logical_block_size: int | None = None


@dataclass(frozen=True, kw_only=True)
class ReplayTarget:
    """A device of the capture that was replayed, what its I/Os were done on, and both queues."""

    source: str
    target: str  # its name in the rows, or the path of a file
    model: str | None
    serial: str | None
    size_bytes: int
    source_size_bytes: int | None
    largest_bytes: int | None  # of one request; None: any
    is_written: bool
    source_queue: QueueSettings
    queue: QueueSettings
    largest_discard_bytes: int | None = None  # 0: it has none; None: any
    largest_zeroes_bytes: int | None = None

    @property
    def has_cache(self) -> bool:
        """Whether flushes reach it, as far as is known."""
        return self.queue.write_cache != "write through"


@dataclass(frozen=True)
class LatenessCounts:
    """How much later than asked I/Os were issued, as the loop itself saw it.

    Percentiles are the upper ends of buckets, of which 16 divide an octave.
    """

    p50_ns: int
    p99_ns: int
    p999_ns: int
    max_ns: int
    over_100us: int  # I/Os


@dataclass(frozen=True, kw_only=True)
class Replay:
    """Says of a capture of a replay what was replayed, how, and how well."""

    source: str
    source_digest: str  # SHA-256 of the metadata of the source
    targets: tuple[ReplayTarget, ...]
    started_at: EpochNs  # the moment from which due times count
    first_at: EpochNs  # the time in the source that this moment stands for
    loop: str  # open, closed, or by-thread: closed for threads that wait
    waiting_threads: int
    other_threads: int
    speed: float | None  # None: as fast as possible
    think_scale: float
    writes: str  # as-recorded, read, skip
    data: str  # random, zero, compress:PERCENT
    fit: str
    layer: str | None
    begin_s: float | None
    end_s: float | None
    where: str | None
    planned: int
    planned_bytes: int
    left_out: dict[str, int]  # by reason
    moved: int  # I/Os whose place or size was changed to fit
    issued: int  # of `planned`, and `added`
    added: int  # flushes before the data of writes
    completed: int
    failed: int
    errors: dict[str, int]  # by the name of the errno
    short: int
    ending: str  # whole, interrupted, too-late, vanished, hung, refused
    engine: str  # io_uring, libaio
    pacer: str  # C, Python
    ring_flags: tuple[str, ...]
    policy: str  # other, fifo
    depth: int
    most_in_flight: int
    batch: int
    lateness: LatenessCounts
    starved_ns: int  # in which the loop waited for rows to be read
    verdict: str | None  # faithful, usable, not comparable
    failed_lines: tuple[str, ...]
