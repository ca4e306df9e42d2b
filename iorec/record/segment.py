# SPDX-License-Identifier: GPL-2.0-only
"""Keeps the account of one capture, and hands it to the sink with its I/Os."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from analyze.errors import IorecError
from analyze.metadata import (
    Clock,
    ClockReading,
    ClockStep,
    Counts,
    FiredTrigger,
    Metadata,
)
from analyze.typed_json import SignedInt
from iorec.host.clock import read_clocks, step_between
from iorec.host.devices import read_in_flight
from iorec.host.diskstats import StatPair
from iorec.host.notes import Notes
from iorec.kernel.layers import LAYER_NAMES
from iorec.kernel.probes import Probes
from iorec.record.gaps import Gaps
from iorec.record.ledger import Ledger, Snapshot, take_snapshot, without_pending
from iorec.record.metadata import begin_metadata, continue_metadata, end_metadata
from iorec.record.prepared import Prepared
from iorec.store.named import NOTHING, Named
from iorec.store.spool import Batch

_HUNG = "I/Os in flight"


class Sink(Protocol):
    """Where I/Os go; it takes each batch with the account of the capture as it stands then."""

    @property
    def period_s(self) -> float:
        """How often it wants what there is."""

    @property
    def size_bytes(self) -> int:
        """What it holds."""

    @property
    def is_over(self) -> bool:
        """Whether nobody wants any more."""

    def write(self, batch: Named, metadata: Metadata) -> None:
        """Take I/Os; raises IorecError if there is no room, and nothing may be written then."""

    def sync(self) -> None:
        """Have what was written outlive a power cut; raises IorecError if that failed."""

    def close(self) -> None:
        """End it, so that a reader knows that it is whole."""


class Nowhere:
    """Keeps nothing."""

    period_s = 1.0
    size_bytes = 0
    is_over = False

    def write(self, batch: Named, metadata: Metadata) -> None:
        """Takes any number of them."""

    def sync(self) -> None:
        """Has nothing to outlive a power cut."""

    def close(self) -> None:
        """Leaves nothing."""


class Both:
    """What the first sink takes the other one gets, too: of the first is what they say."""

    def __init__(self, first: Sink, other: Sink) -> None:
        self._first = first
        self._other = other
        self.period_s = min(first.period_s, other.period_s)

    @property
    def size_bytes(self) -> int:
        """What the first one holds."""
        return self._first.size_bytes

    @property
    def is_over(self) -> bool:
        """Whether nobody wants any more from either of them."""
        return self._first.is_over or self._other.is_over

    def write(self, batch: Named, metadata: Metadata) -> None:
        """Raises what the first one raises."""
        self._first.write(batch, metadata)
        self._other.write(batch, metadata)

    def sync(self) -> None:
        """Raises what the first one raises."""
        self._first.sync()

    def close(self) -> None:
        """Ends both."""
        self._first.close()
        self._other.close()


class Start(NamedTuple):
    """Where the clocks and the kernel's counters stood when a capture began.

    `carried` completions of each layer were reported before that, but belong to this one. `notes`
    had happened before, and `in_flight` I/Os were on their way on all devices.
    """

    clock: ClockReading
    counters: Snapshot
    carried: Mapping[str, int]
    stats: StatPair
    notes: Mapping[tuple[str, str], int]
    in_flight: int


def start_at(
    clock: ClockReading,
    counters: Snapshot,
    notes: Notes,
    carried: Mapping[str, int] | None = None,
    stats: StatPair = ({}, {}),
) -> Start:
    """A start of now."""
    in_flight = 0
    with notes.guard(_HUNG):
        in_flight = read_in_flight()
    return Start(clock, counters, carried or {}, stats, notes.counts(), in_flight)


class Segment:
    """One capture of a recording: it counts from its start, and each batch says all it knows.

    `failure` is what went wrong with the sink: what comes after that is booked as lost.
    """

    def __init__(
        self,
        prepared: Prepared,
        probes: Probes,
        sink: Sink,
        start: Start,
        trigger: FiredTrigger | None = None,
    ) -> None:
        self.failure: IorecError | None = None
        self.start = start.clock
        self.stats_at_start = start.stats
        self._prepared = prepared
        self._probes = probes
        self._sink = sink
        self._clock = start.clock
        self._clock_steps: tuple[ClockStep, ...] = ()
        self._first = replace(begin_metadata(prepared.settings, start.clock), trigger=trigger)
        self._notes = prepared.paths.notes
        self._earlier_notes = start.notes
        self.ledger = Ledger(
            start.counters,
            probes.layers,
            probes.lanes_of,
            prepared.names,
            prepared.devices,
            Gaps(probes, start.clock, start.counters.newest_gaps),
            start.in_flight,
            start.carried,
        )

    @property
    def size_bytes(self) -> int:
        """What the sink holds."""
        return self._sink.size_bytes

    @property
    def period_s(self) -> float:
        """How often the sink wants what there is."""
        return self._sink.period_s

    @property
    def is_over(self) -> bool:
        """Whether nobody wants any more."""
        return self._sink.is_over

    def counts(self) -> Counts:
        """The ledger as it stands now."""
        return self.ledger.counts(take_snapshot(self._probes))

    def read_clock(self) -> None:
        """Notes whether the wall clock was set since the last time."""
        now = read_clocks()
        if (step := step_between(self._clock, now)) is not None:
            moment = self.start.time_at(now.monotonic_ns)
            self._clock_steps += (ClockStep(moment, SignedInt(step)),)
        self._clock = now

    def write(self, batch: Named, identity_lost: Mapping[str, int]) -> None:
        """Books finished I/Os and writes them; of so many the submitter is unknown."""
        self.ledger.add("recorded", batch.records)
        self.ledger.add_identity_lost(identity_lost)
        if self.failure is None and not isinstance(self._sink, Nowhere):  # who needs no account
            self._write(batch, self._metadata(self.counts()))
        if self.failure is not None:
            self.ledger.add("recorded", batch.records, sign=-1)
            self.ledger.add_identity_lost(identity_lost, sign=-1)
            self.ledger.add("spool_failed", batch.records)

    def sync(self) -> None:
        """Has what was written outlive a power cut."""
        try:
            self._sink.sync()
        except IorecError as error:
            self.failure = self.failure or error

    def end(
        self,
        in_flight: Iterable[tuple[Named, Mapping[str, int]]],
        stats: StatPair,
        exit_status: int | None,
        counters: Snapshot | None = None,
    ) -> Batch:
        """Writes what has not completed; returns what is last, written or not.

        `in_flight` are batches as `write` takes them, one at least, `stats` the readings of
        diskstats around the stop. While recording goes on elsewhere, `counters` are those of then.
        """
        *earlier, (last, last_lost) = in_flight
        written: Counter[str] = Counter()
        for batch, identity_lost in earlier:
            self.ledger.add_identity_lost(identity_lost)
            of_layers = written + self._count_layers(batch)
            if self.failure is None:
                self._write(batch, self._metadata(self._counts_at(counters, of_layers)))
            if self.failure is None:
                written = of_layers
            else:
                self._notes.add(_HUNG, "there was no room for them", count=len(batch.records))
        self.ledger.add_identity_lost(last_lost)
        counts = self._counts_at(counters, written + self._count_layers(last))
        around = self.stats_at_start, stats
        ended = last, end_metadata(self._metadata(counts), around, exit_status)
        self._close(*ended)
        return ended

    def next(
        self,
        counters: Snapshot,
        stats: StatPair,
        next_sink: Callable[[Metadata], Sink],
    ) -> "Segment":
        """Ends this capture, and begins the next one, with the counters and diskstats of then.

        What is in the ring goes there. Where there can be none, this one goes on, as failed.
        """
        _, metadata = self.end([(NOTHING, {})], stats, None, counters)
        if self.failure is not None:
            return self
        try:
            sink = next_sink(metadata)
        except IorecError as error:
            self.failure = error
            return self
        start = self.start_now(counters, stats)
        following = Segment(self._prepared, self._probes, sink, start)
        following._clock = self._clock
        return following

    def start_now(self, counters: Snapshot, stats: StatPair) -> Start:
        """The start of a capture at those counters, when all that was drained before is booked.

        What was in the ring then is of that capture. Its clock is the one of this.
        """
        now_ns = time.monotonic_ns()
        clock = ClockReading(now_ns, self.start.time_at(now_ns))
        _, carried = without_pending(self.ledger.counts(counters))
        return start_at(clock, counters, self._notes, carried, stats)

    def _close(self, batch: Named, metadata: Metadata) -> None:
        if self.failure is None:
            self._write(batch, metadata)
        if self.failure is None:
            self._sink.close()

    def _write(self, batch: Named, metadata: Metadata) -> None:
        try:
            self._sink.write(batch, metadata)
        except IorecError as error:
            self.failure = error

    def _counts_at(self, counters: Snapshot | None, in_flight_at_stop: Mapping[str, int]) -> Counts:
        """Of now, with everything drained, or without what was in the ring at those counters."""
        if counters is None:
            return self.ledger.counts(take_snapshot(self._probes), in_flight_at_stop)
        return without_pending(self.ledger.counts(counters, in_flight_at_stop))[0]

    def _count_layers(self, batch: Named) -> Counter[str]:
        found = np.bincount(batch.records["source"] // self._probes.cpu_count)
        return Counter(dict(zip(LAYER_NAMES, found.tolist(), strict=False)))

    def _metadata(self, counts: Counts) -> Metadata:
        return continue_metadata(
            self._first,
            Clock(self.start, read_clocks(), self._clock_steps),
            counts,
            self._prepared.devices.described(),
            self._notes,
            self._earlier_notes,
            self._prepared.settings.buffer_bytes,
            self._probes.memory_bytes,
        )
