# SPDX-License-Identifier: GPL-2.0-only
"""Keeps the last seconds in memory, and writes them and those that follow when a trigger fires."""

import contextlib
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.capture_name import CaptureName
from analyze.errors import IorecError
from analyze.escape import escape_for_terminal
from analyze.metadata import FiredTrigger
from analyze.typed_json import EpochNs
from analyze.units import format_bytes, format_clock, format_duration
from iorec.host.devices import numbers_of_dev
from iorec.host.diskstats import StatPair
from iorec.kernel.probes import Probes
from iorec.record.ledger import Snapshot
from iorec.record.prepared import Prepared
from iorec.record.segment import Segment, Start
from iorec.record.settings import FlightPlan
from iorec.record.triggers import Trigger, read_pressure
from iorec.store.conversions import Conversions
from iorec.store.folder import Folder
from iorec.store.named import Disk, Named, Submitter, identity_keys
from iorec.store.origin import Origin
from iorec.store.planes import pack, unpack
from iorec.store.spool import Spool

_PART = "flight recorder"
# Of what is kept, packed: 30 s at 200,000 I/Os a second take about as much.
_MOST_BYTES = 64 << 20
# An I/O that fires may have ended as long before it was drained, and a mark came.
_DELAY_NS = 2_000_000_000
_ENTRY_BYTES = 100  # a submitter or disk of a batch, whose names it shares with others
_BATCH_BYTES = 1024

InFlight = Iterable[tuple[Named, Mapping[str, int]]]


class _Packed(NamedTuple):
    """A batch, in a sixth of its memory."""

    records: bytes
    submitters: Mapping[int, Submitter]
    disks: Mapping[int, Disk]
    identity_lost: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        entries = len(self.submitters) + len(self.disks)
        return _BATCH_BYTES + len(self.records) + entries * _ENTRY_BYTES

    def unpack(self) -> Named:
        return Named(unpack(self.records), self.submitters, self.disks)


@dataclass
class _Second:
    """What was drained from one mark to the next."""

    start: Start
    batches: list[_Packed] = field(default_factory=list)


@dataclass(frozen=True)
class _Fired:
    """A condition that was met, and by what."""

    trigger: str
    at_ns: int  # CLOCK_MONOTONIC
    cause: str


@dataclass
class _Writing:
    """A capture that is being written."""

    capture: CaptureName
    part: BinaryIO
    segment: Segment
    end_ns: int
    max_size_bytes: int | None

    @property
    def is_over(self) -> bool:
        """Whether there is no room for more of it."""
        size = self.max_size_bytes
        is_full = size is not None and self.segment.size_bytes >= size
        return self.segment.failure is not None or is_full


class Flight:
    """The flight recorder, behind a recorder that tells it of each batch and each second.

    What is kept begins at marks, at which all counters were read: a capture is the account from one
    mark to another.
    """

    def __init__(
        self,
        plan: FlightPlan,
        prepared: Prepared,
        probes: Probes,
        origin: Origin,
        folder: Folder,
        output: CaptureName,
    ) -> None:
        self._plan = plan
        self._prepared = prepared
        self._probes = probes
        self._origin = origin
        self._folder = folder
        self._output = output
        self._notes = prepared.paths.notes
        self._seconds: deque[_Second] = deque()
        self._kept_bytes = 0
        self._is_short = False  # of memory, since the last capture
        self._fired: _Fired | None = None
        self._writing: _Writing | None = None
        self._pause_end_ns = 0
        self._stalled: set[bytes] = set()
        self._conversions = Conversions(is_forced=False)
        self.captures: list[str] = []  # the names of those that were written

    @property
    def wants_in_flight(self) -> bool:
        """Whether `mark` is to be told what is in flight."""
        kinds = {trigger.kind for trigger in self._plan.triggers}
        return self._writing is not None or not kinds.isdisjoint(("stalled", "in_flight"))

    def ask(self) -> None:
        """Fires without a condition: somebody asked for a capture."""
        self._fire("SIGUSR1", time.monotonic_ns(), "asked for")

    def take(self, batch: Named, identity_lost: Mapping[str, int]) -> None:
        """Keeps I/Os as they come, and looks at whether they meet a condition."""
        if not len(batch.records) or not self._seconds:
            return
        packed = _Packed(pack(batch.records), batch.submitters, batch.disks, identity_lost)
        self._seconds[-1].batches.append(packed)
        self._kept_bytes += packed.size_bytes
        if self._writing is not None:
            self._writing.segment.write(batch, identity_lost)
        for trigger in self._plan.triggers if self._may_fire else ():
            place = _first_that_meets(trigger, batch.records, self._watched(batch.records))
            if place is not None:
                record = batch.records[place]
                ended_ns = int(record["start_ns"] + record["latency_ns"])
                self._fire(trigger.text, ended_ns, self._describe(batch, place))

    def mark(
        self,
        start: Start,
        hung: NDArray[np.void],
        over: NDArray[np.void],
        name: Callable[[NDArray[np.void]], InFlight],
        drain: Callable[[], object],
    ) -> None:
        """Takes note of a moment at which all counters were read; once a second.

        `hung` and `over` are those of split_in_flight, `name` finds the names of the first ones;
        `drain` is called now and then, as what is kept may take seconds to write.
        """
        now_ns = start.clock.monotonic_ns
        self._seconds.append(_Second(start))
        self._forget(now_ns - _DELAY_NS)
        if self._writing is not None:
            self._writing.segment.read_clock()
            self._writing.segment.sync()
            if now_ns >= self._writing.end_ns or self._writing.is_over:
                self._end(start.stats, start.counters, name(hung), over)
        watched = hung[self._watched(hung)]
        for trigger in self._plan.triggers:
            cause = self._cause_of_moment(trigger, watched, now_ns)
            if cause:
                self._fire(trigger.text, now_ns, cause)
        if self._fired is not None and self._writing is None:
            self._begin(self._fired, drain)
            self._fired = None

    def finish(self, stats: StatPair, in_flight: InFlight, over: NDArray[np.void]) -> None:
        """Ends what is being written when recording has ended."""
        if self._fired is not None and self._writing is None:
            self._begin(self._fired, lambda: None)
        if self._writing is not None:
            self._end(stats, None, in_flight, over)

    def wait(self) -> dict[Path, str]:
        """Waits until the captures are written; the spools of those that are not, and why."""
        self._conversions.wait()
        return self._conversions.failures()

    @property
    def _may_fire(self) -> bool:
        return self._fired is None and self._writing is None

    def _fire(self, trigger: str, at_ns: int, cause: str) -> None:
        if self._may_fire and at_ns >= self._pause_end_ns:
            self._fired = _Fired(trigger, at_ns, cause)

    def _cause_of_moment(self, trigger: Trigger, hung: NDArray[np.void], now_ns: int) -> str:
        """What meets the condition now; empty if nothing does."""
        if trigger.kind == "stalled":
            ages = np.int64(now_ns) - hung["start_ns"].view(np.int64)
            stalled = hung[ages >= trigger.limit]
            keys = {record.tobytes() for record in stalled}
            new = keys - self._stalled
            self._stalled = keys  # each fires once
            if new:
                oldest = stalled[np.argmin(stalled["start_ns"])]
                age = format_duration(now_ns - int(oldest["start_ns"]))
                return f"an I/O{self._on(oldest['dev'])} has been in flight for {age}"
        if trigger.kind == "in_flight" and len(hung):
            devs, counts = np.unique(hung["dev"], return_counts=True)
            most = int(np.argmax(counts))
            if counts[most] > trigger.limit:
                return f"{counts[most]} I/Os in flight{self._on(devs[most])}"
        if trigger.kind.startswith("psi"):
            with self._notes.guard(_PART):
                part = read_pressure(trigger.kind.removeprefix("psi "))
                if part > trigger.limit:
                    return f"{part:.0%} of the last 10 s"
        return ""

    def _forget(self, end_ns: int) -> None:
        """Leaves the marks of the window that ends then, and one before; fewer for lack of room."""
        begin_ns = end_ns - self._plan.window_ns
        while len(self._seconds) > 1:
            is_old = self._seconds[1].start.clock.monotonic_ns <= begin_ns
            if not is_old and self._kept_bytes <= _MOST_BYTES:
                return
            self._is_short |= not is_old
            forgotten = self._seconds.popleft()
            self._kept_bytes -= sum(batch.size_bytes for batch in forgotten.batches)

    def _begin(self, fired: _Fired, drain: Callable[[], object]) -> None:
        """Writes what is kept; what follows goes there, too."""
        self._forget(fired.at_ns)
        first = self._seconds[0].start
        if self._is_short:
            kept = format_duration(fired.at_ns - first.clock.monotonic_ns)
            room = format_bytes(_MOST_BYTES)
            self._notes.add(_PART, f"{room} of memory hold {kept} before the trigger, not more")
            self._is_short = False
        moment = EpochNs(first.clock.time_at(fired.at_ns))
        capture = self._capture_name(moment, fired.trigger)
        self._remove_old()
        try:
            part = self._folder.create_spool(capture.spool)
        except (IorecError, OSError) as error:
            self._notes.add(_PART, f"no capture could be written: {error}")
            self._say(f"warning: cannot write {capture.name}: {error}")
            return
        trigger = FiredTrigger(fired.trigger, moment, fired.cause)
        spool = Spool(part, self._origin)
        segment = Segment(self._prepared, self._probes, spool, first, trigger)
        for second in self._seconds:
            for packed in second.batches:
                segment.write(packed.unpack(), packed.identity_lost)
                drain()
        end_ns = fired.at_ns + self._plan.after_ns
        most = self._prepared.settings.limits.max_size_bytes
        self._writing = _Writing(capture, part, segment, end_ns, most)
        clock = format_clock(moment).partition(".")[0]
        self._say(f"{clock} {fired.trigger}: {fired.cause}; writing {capture.name}")

    def _end(
        self,
        stats: StatPair,
        counters: Snapshot | None,
        in_flight: InFlight,
        over: NDArray[np.void],
    ) -> None:
        """Ends the capture, which another process makes of its spool meanwhile."""
        writing, self._writing = self._writing, None
        assert writing is not None
        segment = writing.segment
        began_ns = segment.start.monotonic_ns
        segment.ledger.add("missed_completion", over[over["start_ns"] >= np.uint64(began_ns)])
        segment.end(in_flight, stats, None, counters)
        if segment.failure is not None:
            self._say(f"warning: {writing.capture.name} is not whole: {segment.failure}")
        writing.part.close()
        self._conversions.add(self._folder, writing.capture)
        self.captures.append(writing.capture.name)
        self._pause_end_ns = time.monotonic_ns() + self._plan.pause_ns

    def _capture_name(self, moment: int, trigger: str) -> CaptureName:
        second = datetime.fromtimestamp(moment // 10**9, UTC)
        slug = re.sub(r"[^a-z0-9]+", "-", trigger.lower().replace("%", "")).strip("-")
        name = f"{self._output.stem}-{second:%Y%m%dT%H%M%SZ}-{slug}{self._output.suffix}"
        return CaptureName(self._output.path.with_name(name))

    def _remove_old(self) -> None:
        """Leaves room for one more among the captures that may be kept, of earlier runs too."""
        stem, suffix = re.escape(self._output.stem), re.escape(self._output.suffix)
        own = re.compile(rf"{stem}-\d{{8}}T\d{{6}}Z-[a-z0-9-]+{suffix}")
        names = sorted(filter(own.fullmatch, self._folder.names()))
        for name in names[: max(0, len(names) - self._plan.kept + 1)]:
            old = CaptureName(self._output.path.with_name(name))
            if self._conversions.forget(old):
                for file in old.files:
                    with contextlib.suppress(OSError):
                        self._folder.remove(file)

    def _describe(self, batch: Named, place: int) -> str:
        """A finished I/O in a few words."""
        record = batch.records[place : place + 1]
        [key] = identity_keys(record["source"], record["identity"]).tolist()
        who = batch.submitters.get(key)
        name = escape_for_terminal((who and (who.process or who.comm)) or "")
        by = f" by {name} ({who.pid})" if who and who.pid else ""
        op = self._origin.names.op(int(record["cmd_flags"][0]))
        took = format_duration(int(record["latency_ns"][0]))
        verb = "failed after" if record["error"][0] else "took"
        return f"{op}{self._on(record['dev'][0])}{by} {verb} {took}"

    def _watched(self, records: NDArray[np.void]) -> NDArray[np.bool_]:
        """Whether triggers look at each: at calls, which often wait or fail, if all are."""
        is_call: NDArray[np.bool_] = records["dev"] == 0
        return ~is_call if self._prepared.settings.has_block_layer else is_call

    def _on(self, dev: int) -> str:
        """` on sda`; nothing for a call."""
        name = self._prepared.devices.account_name(int(dev)) or numbers_of_dev(int(dev))
        return f" on {name}" if dev else ""

    def _say(self, text: str) -> None:
        with self._notes.guard("status line"):
            self._prepared.progress.say(text)


def _first_that_meets(
    trigger: Trigger, records: NDArray[np.void], is_watched: NDArray[np.bool_]
) -> int | None:
    """The place of the first watched record that meets a condition on finished I/Os, or None."""
    if trigger.kind == "latency":
        meets = records["latency_ns"] > trigger.limit
    elif trigger.kind == "errno":
        meets = records["error"] != 0
    elif trigger.kind == "in_flight":
        meets = in_flight_at_start(records) > trigger.limit
    else:
        return None
    meets &= is_watched
    return int(np.argmax(meets)) if meets.any() else None


def in_flight_at_start(records: NDArray[np.void]) -> NDArray[np.int64]:
    """How many of the records were in flight on their device when each began, itself included."""
    counts = np.zeros(len(records), np.int64)
    for dev in np.unique(records["dev"]).tolist():
        places = np.flatnonzero(records["dev"] == dev)
        starts = records["start_ns"][places]
        ends = np.sort(starts + records["latency_ns"][places])
        begun = np.searchsorted(np.sort(starts), starts, "right")
        counts[places] = begun - np.searchsorted(ends, starts, "right")
    return counts
