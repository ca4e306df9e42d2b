# SPDX-License-Identifier: GPL-2.0-only
"""Records: drains the kernel's ring into a spool until asked to stop."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analyze.errors import IorecError
from analyze.metadata import Clock, ClockReading, ClockStep, Counts, Metadata
from analyze.typed_json import SignedInt
from iorec.host.cgroups import CgroupNames
from iorec.host.clock import read_clocks, step_between
from iorec.host.devices import read_in_flight
from iorec.host.diskstats import DiskStats, StatPair, read_diskstats, read_idle_disks
from iorec.host.signals import SignalWaiter
from iorec.kernel.layouts import NO_ISSUE, RECORD
from iorec.kernel.names import OP_CACHE_FLUSH
from iorec.kernel.probes import Probes
from iorec.record.files import Files
from iorec.record.gaps import Gaps
from iorec.record.identities import Identities, keys_of
from iorec.record.ledger import Ledger, Snapshot, take_snapshot, without_pending
from iorec.record.metadata import begin_metadata, continue_metadata, end_metadata
from iorec.record.prepared import Prepared
from iorec.record.progress import State
from iorec.record.rows import RowBuilder, busy_slots, in_flight_records
from iorec.store.spool import Batch

_CHECKPOINT_S = 1.0
_IDLE_CHECKPOINT_S = 10.0
_ROWS_PER_BATCH = 1 << 16
# The kernel wakes the recorder when this part of the ring is full.
_WAKE_PART = 16
# New identities are looked up at once, while their cgroups and files are there, but not more often.
_PAUSE_S = 0.1
# A program that runs while recording is switched off has ended long before this.
_SETTLE_S = 0.02

_NO_RECORDS = np.empty(0, RECORD)
# Without names: numpy copies records with named fields field by field, ten times slower.
_RAW_RECORD = np.dtype((np.void, RECORD.itemsize))


class Sink(Protocol):
    """Where rows go; it takes each batch with the account of the capture as it stands then."""

    size_bytes: int

    def write(self, batch: pa.RecordBatch, metadata: Metadata) -> None:
        """Take rows; raises IorecError if they do not fit, and nothing may be written then."""

    def sync(self) -> None:
        """Make what was written outlive a power cut; raises IorecError if that failed."""

    def close(self) -> None:
        """End it, so that a reader knows that it is whole."""


class Recorder:
    """One recording from the moment in which the programs are attached."""

    def __init__(
        self, prepared: Prepared, probes: Probes, sink: Sink, next_sink: Callable[[Metadata], Sink]
    ) -> None:
        """`next_sink` takes the sink that was filled, and its metadata, and gives an empty one."""
        settings = prepared.settings
        self.failure: IorecError | None = None
        self._exit_status: int | None = None
        self._probes = probes
        self._names = names = prepared.names
        self._devices = prepared.devices
        self._notes = prepared.paths.notes
        self._workload = prepared.workload
        self._progress = prepared.progress
        self._limits = settings.limits
        self._settings = settings
        self._sink = sink
        self._next_sink = next_sink
        self._clock = self._started = read_clocks()
        self._clock_steps: tuple[ClockStep, ...] = ()
        self._first = begin_metadata(settings, self._started)
        files = Files(prepared.paths)
        self._identities = Identities(files, CgroupNames(self._notes))
        self._builder = RowBuilder(
            names,
            self._devices,
            self._identities,
            files,
            probes.cpu_count,
            self._started.offset_ns,
        )
        self._began_ns = self._started.monotonic_ns
        self._end_ns = self._started.monotonic_ns + (self._limits.duration_ns or 0)
        self._ledger = self._new_ledger(take_snapshot(probes), {})
        self._pending: list[NDArray[np.void]] = []
        self._drained = self._shown = 0
        self._last_write_s = time.monotonic()

    def begin(self) -> None:
        """Switches the programs on; from here on, a spool that is cut off can be recovered."""
        self._stats_at_start = self._switch(is_recording=True)
        self._write_pending()

    def run(self, signals: SignalWaiter) -> Batch:
        """Records until a limit, a stop signal, the workload's end or a failure to write.

        Returns the last batch, which is also the last one in the spool unless writing failed.
        """
        if self._workload is not None:
            self._workload.start()
        self._record(signals)
        idle_at, idle = time.monotonic_ns(), self._read_idle_disks()
        if idle & set(busy_slots(self._probes.in_flight)["dev"].tolist()):
            time.sleep(_SETTLE_S)
        stats = self._stats_at_start, self._switch(is_recording=False)
        self._probes.detach()
        time.sleep(_SETTLE_S)
        self._drain()
        self._write_pending()
        hung = self._take_missed(busy_slots(self._probes.in_flight), idle_at, idle)
        rows, identity_lost = self._builder.build(hung, is_in_flight=True)
        self._ledger.add_identity_lost(identity_lost)
        in_flight = Counter(rows["layer"].to_pylist())
        counts = self._ledger.counts(take_snapshot(self._probes), in_flight)
        last = rows, self._metadata(counts, stats)
        if self.failure is None:
            self._write(*last)
        if self.failure is None:
            self._sink.close()
        return last

    def _take_missed(
        self, busy: NDArray[np.void], idle_at_ns: int, idle: set[int]
    ) -> NDArray[np.void]:
        """Books those that are over, though the kernel showed it to no program; returns the rest.

        Of a disk that said that it had no I/O in flight, none is that it was handed before, but for
        writes whose data are done: what they wait for is a flush, which the disk does not count.
        """
        hung = in_flight_records(busy)
        issue_ns = hung["start_ns"] + hung["queue_ns"]
        ops = hung["cmd_flags"] & np.uint32(0xFF)
        is_over = (hung["queue_ns"] != NO_ISSUE) & (issue_ns < idle_at_ns)
        is_over &= np.isin(hung["dev"], list(idle)) & (ops != OP_CACHE_FLUSH)
        is_over &= hung["source"] < self._probes.cpu_count  # requests
        is_over &= busy["done_bytes"] == 0
        self._ledger.add("missed_completion", hung[is_over])
        rest: NDArray[np.void] = hung[~is_over]
        return rest

    def _switch(self, *, is_recording: bool) -> tuple[DiskStats, DiskStats]:
        """Switches all programs at once; returns diskstats just before and just after."""
        before = self._read_diskstats()
        self._probes.control["is_recording"] = is_recording
        return before, self._read_diskstats()

    def _read_idle_disks(self) -> set[int]:
        with self._notes.guard("devices"):
            return read_idle_disks()
        return set()

    def _read_diskstats(self) -> DiskStats:
        """Empty if they cannot be read: then nothing is compared."""
        with self._notes.guard("diskstats"):
            return read_diskstats()
        return {}

    def _record(self, signals: SignalWaiter) -> None:
        signals.watch(self._probes.ring_fd)
        next_checkpoint = time.monotonic() + _CHECKPOINT_S
        while True:
            has_drained = self._drain()
            now = time.monotonic()
            if now >= next_checkpoint:
                next_checkpoint = now + _CHECKPOINT_S
                self._checkpoint()
            if self.failure is not None or self._is_done(now):
                return
            if self._is_full():
                self._rotate()
            self._sleep(signals, next_checkpoint, has_drained)
            if signals.asks_to_stop:
                return

    def _drain(self) -> bool:
        """Takes what is in the ring; returns whether there was anything."""
        self._probes.clear_alarm()
        records, announcements = self._probes.ring.drain()
        self._identities.read(announcements)
        if self._limits.count is not None:
            room = self._limits.count - self._drained
            self._ledger.add("filtered", records[room:])
            records = records[:room]
        self._drained += len(records)
        self._pending.append(records)
        if sum(map(len, self._pending)) >= _ROWS_PER_BATCH:
            self._write_pending()
        return len(records) > 0 or len(announcements) > 0

    def _sleep(self, signals: SignalWaiter, end_s: float, has_drained: bool) -> None:
        """Waits until `end_s` at most, for a signal or for what the kernel has to say."""
        if self._limits.duration_ns is not None:
            end_s = min(end_s, self._end_ns / 1e9)
        pause_end_s = min(end_s, time.monotonic() + _PAUSE_S)
        if self._limits.count is not None:
            end_s = pause_end_s
        if has_drained and self._wait(signals, pause_end_s, for_identities=False):
            return
        self._wait(signals, end_s, for_identities=True)

    def _wait(self, signals: SignalWaiter, end_s: float, *, for_identities: bool) -> bool:
        """Sleeps until `end_s` at most; returns whether something came before."""
        wake_bytes = self._probes.ring.size_bytes // _WAKE_PART
        is_due = self._probes.set_alarm(wake_bytes, for_identities=for_identities)
        timeout_s = 0.0 if is_due else max(end_s - time.monotonic(), 0.0)
        return signals.wait(timeout_s) or is_due

    def _write_pending(self) -> None:
        self._last_write_s = time.monotonic()
        raw = [records.view(_RAW_RECORD) for records in (_NO_RECORDS, *self._pending)]
        records = np.concatenate(raw).view(RECORD)
        self._pending.clear()
        rows, identity_lost = self._builder.build(records)
        self._ledger.add("recorded", records)
        self._ledger.add_identity_lost(identity_lost)
        if self.failure is None:
            counts = self._ledger.counts(take_snapshot(self._probes))
            self._write(rows, self._metadata(counts, None))
        if self.failure is not None:
            self._ledger.add("recorded", records, sign=-1)
            self._ledger.add_identity_lost(identity_lost, sign=-1)
            self._ledger.add("spool_failed", records)

    def _write(self, rows: pa.RecordBatch, metadata: Metadata) -> None:
        try:
            self._sink.write(rows, metadata)
        except IorecError as error:
            self.failure = error

    def _checkpoint(self) -> None:
        clock = read_clocks()
        if (step := step_between(self._clock, clock)) is not None:
            moment = self._started.time_at(clock.monotonic_ns)
            self._clock_steps += (ClockStep(moment, SignedInt(step)),)
        self._clock = clock
        self._forget_identities()
        is_due = time.monotonic() - self._last_write_s >= _IDLE_CHECKPOINT_S
        if is_due or any(map(len, self._pending)):
            self._write_pending()
        self._sync()
        if self._progress.is_wanted:
            with self._notes.guard("status line"):
                self._progress.show(self._state())
        self._shown = self._drained

    def _forget_identities(self) -> None:
        """Forgets the identities that are no longer in use, a second after a new epoch began.

        What was submitted before it has its record in the ring by now, or is in flight.
        """
        if self._identities.has_too_many:
            self._probes.control["epoch"] += 1
            self._identities.begin_epoch()
        elif self._identities.is_outdated:
            busy = busy_slots(self._probes.in_flight)
            self._drain()
            self._write_pending()
            self._identities.forget_outdated(keys_of(busy["source"], busy["identity"]).tolist())

    def _state(self) -> State:
        counts = self._ledger.counts(take_snapshot(self._probes))
        return State(
            elapsed_s=(self._clock.monotonic_ns - self._began_ns) / 1e9,
            rows=self._drained,
            rows_per_s=(self._drained - self._shown) / _CHECKPOINT_S,
            filtered=counts.filtered,
            lost=sum(counts.lost.values()),
            size_bytes=self._sink.size_bytes,
        )

    def _sync(self) -> None:
        try:
            self._sink.sync()
        except IorecError as error:
            self.failure = self.failure or error

    def _is_full(self) -> bool:
        size = self._limits.max_size_bytes
        return size is not None and self._sink.size_bytes >= size

    def _rotate(self) -> None:
        """Ends the capture and begins the next one; what is in the ring goes there."""
        before = self._read_diskstats()
        self._drain()
        now = take_snapshot(self._probes)
        edge = before, self._read_diskstats()
        self._write_pending()
        counts, carried = without_pending(self._ledger.counts(now))
        metadata = self._metadata(counts, (self._stats_at_start, edge))
        self._write(self._builder.build(_NO_RECORDS)[0], metadata)
        if self.failure is not None:
            return
        self._sink.close()
        try:
            self._sink = self._next_sink(metadata)
        except IorecError as error:
            self.failure = error
            return
        now_ns = time.monotonic_ns()
        self._started = ClockReading(now_ns, self._started.time_at(now_ns))
        self._clock_steps = ()
        self._first = begin_metadata(self._settings, self._started)
        self._stats_at_start = edge
        self._ledger = self._new_ledger(now, carried)

    def _new_ledger(self, start: Snapshot, carried: dict[str, int]) -> Ledger:
        in_flight = 0
        with self._notes.guard("I/Os in flight"):
            in_flight = read_in_flight()
        return Ledger(
            start,
            self._probes.layers,
            self._probes.lanes_of,
            self._names,
            self._devices,
            Gaps(self._probes, self._started),
            in_flight,
            carried,
        )

    def _is_done(self, now: float) -> bool:
        if self._workload is not None and (status := self._workload.poll()) is not None:
            self._exit_status = status
            return True
        limits = self._limits
        return (
            (limits.duration_ns is not None and now >= self._end_ns / 1e9)
            or (limits.count is not None and self._drained >= limits.count)
            or (self._is_full() and not limits.is_rotating)
        )

    def _metadata(self, counts: Counts, stats: tuple[StatPair, StatPair] | None) -> Metadata:
        metadata = continue_metadata(
            self._first,
            Clock(self._started, read_clocks(), self._clock_steps),
            counts,
            self._devices.described(),
            self._notes,
            self._settings.buffer_bytes,
        )
        return metadata if stats is None else end_metadata(metadata, stats, self._exit_status)
