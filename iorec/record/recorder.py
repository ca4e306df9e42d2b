# SPDX-License-Identifier: GPL-2.0-only
"""Records: drains the kernel's ring into a capture until asked to stop."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from analyze.errors import IorecError
from analyze.metadata import ClockReading, Metadata
from iorec.host.cgroups import CgroupNames
from iorec.host.diskstats import DiskStats, StatPair, read_diskstats, read_idle_disks
from iorec.host.processes import Processes
from iorec.host.signals import SignalWaiter
from iorec.kernel.layouts import RECORD
from iorec.kernel.probes import Probes
from iorec.record.beside import Beside
from iorec.record.files import Files
from iorec.record.identities import Identities, Waits
from iorec.record.in_flight import busy_slots, filtered_and_over, split_in_flight
from iorec.record.ledger import Snapshot, take_snapshot
from iorec.record.namer import Namer
from iorec.record.prepared import Prepared
from iorec.record.progress import State
from iorec.record.segment import Segment, Sink, start_at
from iorec.store.named import Named, identity_keys
from iorec.store.spool import Batch

_CHECKPOINT_S = 1.0
_IDLE_CHECKPOINT_S = 10.0
_RECORDS_PER_BATCH = 1 << 16
# The kernel wakes the recorder when this part of the ring is full.
_WAKE_PART = 16
# New identities are looked up at once, while their cgroups and files are there, but not more often.
_PAUSE_S = 0.1
# A program that runs while recording is switched off has ended long before this.
_SETTLE_S = 0.02

_NO_RECORDS = np.empty(0, RECORD)
# Without names: numpy copies records with named fields field by field, ten times slower.
_RAW_RECORD = np.dtype((np.void, RECORD.itemsize))


class Recorder:
    """One recording from the moment in which the programs are attached."""

    def __init__(
        self,
        prepared: Prepared,
        probes: Probes,
        clock: ClockReading,
        sink: Sink,
        next_sink: Callable[[Metadata], Sink],
        beside: Beside | None = None,
    ) -> None:
        """`next_sink` takes the metadata of the sink that was filled, and gives an empty one."""
        self._beside = beside
        self._probes = probes
        self._devices = prepared.devices
        self._notes = prepared.paths.notes
        self._workload = prepared.workload
        self._exit_status: int | None = None
        self._progress = prepared.progress
        self._limits = prepared.settings.limits
        # What is in flight at the end is not wanted either before it has taken as long.
        self._least_ns = prepared.settings.filters.min_latency_ns or 0
        self._next_sink = next_sink
        self._files = Files(prepared.paths)
        processes = Processes(self._notes, has_cmdlines=prepared.settings.has_cmdlines)
        waits = Waits(prepared.symbols, probes.cpu_count)
        self._identities = Identities(self._files, CgroupNames(self._notes), processes, waits)
        self._namer = Namer(
            prepared.devices, self._identities, self._files, processes, probes.cpu_count
        )
        if prepared.symbols is not None:
            first, size = prepared.symbols.scheduler
            probes.control["scheduler_start"], probes.control["scheduler_bytes"] = first, size
        self._began_ns = clock.monotonic_ns
        self._end_ns = self._began_ns + (self._limits.duration_ns or 0)
        start = start_at(clock, take_snapshot(probes), self._notes)
        self._segment = Segment(prepared, probes, sink, start)
        self._pending: list[NDArray[np.void]] = []
        self._drained = self._shown = self._marked = 0
        self._last_write_s = time.monotonic()

    @property
    def failure(self) -> IorecError | None:
        """What kept the last rows from being written."""
        return self._segment.failure

    def begin(self) -> None:
        """Switches the programs on; from here on, a spool that is cut off can be recovered."""
        self._segment.stats_at_start = self._switch(is_recording=True)
        self._write_pending()
        self._mark()

    def run(self, signals: SignalWaiter) -> Batch:
        """Records until a limit, a stop signal, the workload's end or a failure to write.

        Returns the last batch, which is also the last one in the spool unless writing failed.
        """
        if self._workload is not None:
            self._workload.start()
        self._record(signals)
        idle_at_ns, idle = self._read_idle_disks()
        if idle & set(busy_slots(self._probes)["dev"].tolist()):
            time.sleep(_SETTLE_S)
        stats = self._switch(is_recording=False)
        self._probes.detach()
        time.sleep(_SETTLE_S)
        self._drain()
        self._files.read_answers(are_last=True)
        self._write_pending()
        hung, over = self._split_in_flight(idle_at_ns, idle)
        self._segment.ledger.add("missed_completion", over)
        unseen = filtered_and_over(self._probes, idle, idle_at_ns)
        self._segment.ledger.add("filtered_unseen", unseen)
        if self._beside is not None:
            self._beside.finish(stats, self._name_hung(hung), over)
        return self._segment.end(self._name_hung(hung), stats, self._exit_status)

    def _split_in_flight(
        self, idle_at_ns: int, idle: set[int]
    ) -> tuple[NDArray[np.void], NDArray[np.void]]:
        hung, over = split_in_flight(self._probes, idle, idle_at_ns)
        ages = time.monotonic_ns() - hung["start_ns"].view(np.int64)
        return hung[ages >= self._least_ns], over

    def _name_hung(self, hung: NDArray[np.void]) -> Iterator[tuple[Named, Counter[str]]]:
        return self._namer.name(hung, is_in_flight=True)

    def _switch(self, *, is_recording: bool) -> StatPair:
        """Switches all programs at once; returns diskstats just before and just after."""
        before = self._read_diskstats()
        self._probes.control["is_recording"] = is_recording
        return before, self._read_diskstats()

    def _read_idle_disks(self) -> tuple[int, set[int]]:
        """A moment, and the disks that had nothing in flight after it."""
        now_ns = time.monotonic_ns()
        with self._notes.guard("devices"):
            return now_ns, read_idle_disks()
        return now_ns, set()

    def _read_diskstats(self) -> DiskStats:
        """Empty if they cannot be read: then nothing is compared."""
        with self._notes.guard("diskstats"):
            return read_diskstats()
        return {}

    def _record(self, signals: SignalWaiter) -> None:
        signals.watch(self._probes.ring_fd)
        period_s = min(self._segment.period_s, _CHECKPOINT_S)
        next_checkpoint = time.monotonic() + _CHECKPOINT_S
        while True:
            has_new_identities = self._drain()
            now = time.monotonic()
            if now >= next_checkpoint:
                next_checkpoint = now + _CHECKPOINT_S
                self._checkpoint()
            elif now >= self._last_write_s + period_s and self._has_pending:
                self._write_pending()
            if self.failure is not None or self._is_done(now):
                return
            if self._is_full():
                self._rotate()
            next_write = (self._last_write_s if self._has_pending else now) + period_s
            self._sleep(signals, min(next_write, next_checkpoint), has_new_identities)
            if signals.asks_to_stop:
                return
            if self._beside is not None and signals.take_request():
                self._beside.ask()

    def _drain(self) -> bool:
        """Takes what is in the ring; returns whether there were new identities."""
        self._probes.clear_alarm()
        records, announcements = self._probes.ring.drain()
        self._identities.read(announcements)
        if self._limits.count is not None:
            room = self._limits.count - self._drained
            self._segment.ledger.add("filtered", records[room:])
            records = records[:room]
        self._drained += len(records)
        self._pending.append(records)
        if sum(map(len, self._pending)) >= _RECORDS_PER_BATCH:
            self._write_pending()
        return len(announcements) > 0

    def _sleep(self, signals: SignalWaiter, end_s: float, has_new_identities: bool) -> None:
        """Waits until `end_s` at most, for a signal or for what the kernel has to say."""
        if self._limits.duration_ns is not None:
            end_s = min(end_s, self._end_ns / 1e9)
        pause_end_s = min(end_s, time.monotonic() + _PAUSE_S)
        if self._limits.count is not None:
            end_s = pause_end_s
        if has_new_identities and self._wait(signals, pause_end_s, for_identities=False):
            return
        self._wait(signals, end_s, for_identities=True)

    def _wait(self, signals: SignalWaiter, end_s: float, *, for_identities: bool) -> bool:
        """Sleeps until `end_s` at most; returns whether something came before."""
        wake_bytes = self._probes.ring.size_bytes // _WAKE_PART
        is_due = self._probes.set_alarm(wake_bytes, for_identities=for_identities)
        timeout_s = 0.0 if is_due else max(end_s - time.monotonic(), 0.0)
        return signals.wait(timeout_s) or is_due

    @property
    def _has_pending(self) -> bool:
        return any(map(len, self._pending))

    def _write_pending(self) -> None:
        self._last_write_s = time.monotonic()
        raw = [records.view(_RAW_RECORD) for records in (_NO_RECORDS, *self._pending)]
        records = np.concatenate(raw).view(RECORD)
        self._pending.clear()
        for batch, identity_lost in self._namer.name(records):
            self._segment.write(batch, identity_lost)
            if self._beside is not None:
                self._beside.take(batch, identity_lost)

    def _checkpoint(self) -> None:
        self._segment.read_clock()
        self._forget_identities()
        is_due = time.monotonic() - self._last_write_s >= _IDLE_CHECKPOINT_S
        if is_due or self._has_pending:
            self._write_pending()
        self._segment.sync()
        self._mark()
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
            busy = busy_slots(self._probes)
            self._drain()
            self._write_pending()
            self._identities.forget_outdated(
                identity_keys(busy["source"], busy["identity"]).tolist()
            )

    def _state(self) -> State:
        counts = self._segment.counts()
        return State(
            elapsed_s=(time.monotonic_ns() - self._began_ns) / 1e9,
            rows=self._drained,
            rows_per_s=(self._drained - self._shown) / _CHECKPOINT_S,
            filtered=counts.filtered,
            lost=sum(counts.lost.values()),
            size_bytes=self._segment.size_bytes,
        )

    def _is_full(self) -> bool:
        size = self._limits.max_size_bytes
        return size is not None and self._segment.size_bytes >= size

    def _rotate(self) -> None:
        self._segment = self._segment.next(*self._cut(), self._next_sink)

    def _mark(self) -> None:
        beside = self._beside
        if beside is None:
            return
        is_idle = self._drained == self._marked and not len(busy_slots(self._probes))
        if not beside.wants_mark(is_idle=is_idle):
            return
        self._marked = self._drained
        counters, stats = self._cut()
        start = self._segment.start_now(counters, stats)
        hung = over = _NO_RECORDS
        if beside.wants_in_flight and len(busy_slots(self._probes)):
            hung, over = self._split_in_flight(*self._read_idle_disks())
        beside.mark(start, hung, over, self._name_hung, self._drain)

    def _cut(self) -> tuple[Snapshot, StatPair]:
        """The counters and diskstats of a moment; what was in the ring before is written then."""
        before = self._read_diskstats()
        self._drain()
        counters = take_snapshot(self._probes)
        stats = before, self._read_diskstats()
        if self._has_pending:
            self._write_pending()
        return counters, stats

    def _is_done(self, now: float) -> bool:
        if self._workload is not None and (status := self._workload.poll()) is not None:
            self._exit_status = status
            return True
        limits = self._limits
        return (
            self._segment.is_over
            or (limits.duration_ns is not None and now >= self._end_ns / 1e9)
            or (limits.count is not None and self._drained >= limits.count)
            or (self._is_full() and not limits.is_rotating)
        )
