# SPDX-License-Identifier: GPL-2.0-only
"""Keeps the last seconds in memory, and writes them and those that follow when a trigger fires."""

import pickle
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.errors import IorecError
from analyze.metadata import FiredTrigger
from analyze.typed_json import EpochNs
from analyze.units import format_bytes, format_clock, format_duration
from iorec.host.advice import advice
from iorec.host.diskstats import StatPair
from iorec.kernel.probes import Probes
from iorec.record.beside import InFlight
from iorec.record.conditions import Conditions, Fired
from iorec.record.excerpt import Excerpt
from iorec.record.flight_files import ASKED, FlightFiles
from iorec.record.ledger import Snapshot
from iorec.record.prepared import Prepared
from iorec.record.segment import Start
from iorec.record.settings import FlightPlan
from iorec.store.named import Named
from iorec.store.origin import Origin
from iorec.store.planes import pack, unpack

_PART = "flight recorder"
# Of what is kept, packed: 30 s at 200,000 I/Os a second take about as much.
_MOST_BYTES = 64 << 20
# An I/O that fires may have ended as long before it was drained, and a mark came.
_DELAY_NS = 2_000_000_000
# Of a machine that does nothing: what is kept may begin so much earlier, without any I/O in it.
_IDLE_NS = 10_000_000_000
_BATCH_BYTES = 1024  # of a batch or a mark, beside what is packed


class _Packed(NamedTuple):
    """A batch in a sixth of its memory, or less where names are long or many."""

    records: bytes
    names: bytes
    identity_lost: Mapping[str, int]

    @classmethod
    def of(cls, batch: Named, identity_lost: Mapping[str, int]) -> "_Packed":
        names = _shrink((batch.submitters, batch.disks))
        return cls(pack(batch.records), names, identity_lost)

    @property
    def size_bytes(self) -> int:
        return _BATCH_BYTES + len(self.records) + len(self.names)

    def unpack(self) -> Named:
        submitters, disks = _restore(self.names)
        return Named(unpack(self.records), submitters, disks)


class _Mark(NamedTuple):
    """A start, in a hundredth of its memory on a machine with many disks or CPUs."""

    at_ns: int  # CLOCK_MONOTONIC
    packed: bytes

    def unpack(self) -> Start:
        start: Start = _restore(self.packed)
        return start


@dataclass
class _Second:
    """What was drained from one mark to the next."""

    mark: _Mark
    batches: list[_Packed] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        mark_bytes = _BATCH_BYTES + len(self.mark.packed)
        return mark_bytes + sum(batch.size_bytes for batch in self.batches)


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
        files: FlightFiles,
    ) -> None:
        self._plan = plan
        self._prepared = prepared
        self._probes = probes
        self._origin = origin
        self._files = files
        self._notes = prepared.paths.notes
        self._conditions = Conditions(
            *(plan.triggers, origin, prepared.devices, self._notes),
            has_block_layer=prepared.settings.has_block_layer,
        )
        self._seconds: deque[_Second] = deque()
        most_bytes = prepared.settings.limits.max_size_bytes
        # Half of a capture, as what follows is to have room there, too.
        self._room_bytes = min(_MOST_BYTES, most_bytes // 2) if most_bytes else _MOST_BYTES
        self._kept_bytes = 0
        self._is_short = False  # of room, since the last capture
        self._fired: Fired | None = None
        self._writing: Excerpt | None = None
        self._end_ns = 0  # of what is written
        self._pause_end_ns = 0
        self.failures: dict[str, IorecError] = {}  # of captures that could not be begun

    def wants_mark(self, *, is_idle: bool) -> bool:
        """Each second in which something happens, as what is kept begins at marks; else seldom."""
        if not (is_idle and self._seconds and self._fired is None and self._writing is None):
            return True
        age_ns = time.monotonic_ns() - self._seconds[-1].mark.at_ns
        return age_ns >= _IDLE_NS or self._conditions.need_idle_moments

    @property
    def wants_in_flight(self) -> bool:
        """Whether `mark` is to be told what is in flight."""
        return self._writing is not None or self._conditions.need_in_flight

    def ask(self) -> None:
        """Fires without a condition: somebody asked for a capture, and is told if there is none."""
        now_ns = time.monotonic_ns()
        if self._may_fire(now_ns):
            self._fired = Fired(ASKED, now_ns, "asked for")
        elif self._fired is None and self._writing is None:
            rest = format_duration(self._pause_end_ns - now_ns)
            self._say(f"{ASKED}: no capture, as the pause after the last one lasts {rest} more")

    def take(self, batch: Named, identity_lost: Mapping[str, int]) -> None:
        """Keeps I/Os as they come, and looks at whether they meet a condition."""
        if not len(batch.records) or not self._seconds:
            return
        packed = _Packed.of(batch, identity_lost)
        self._seconds[-1].batches.append(packed)
        self._kept_bytes += packed.size_bytes
        if self._writing is not None:
            self._writing.write(batch, identity_lost)
        if self._may_fire(time.monotonic_ns()):
            self._fired = self._conditions.met_by(batch, self._pause_end_ns)

    def mark(
        self,
        start: Start,
        hung: NDArray[np.void],
        over: NDArray[np.void],
        name: Callable[[NDArray[np.void]], InFlight],
        drain: Callable[[], object],
    ) -> None:
        """See Beside."""
        now_ns = start.clock.monotonic_ns
        self._seconds.append(_Second(_Mark(now_ns, _shrink(start))))
        self._kept_bytes += self._seconds[-1].size_bytes
        self._forget(now_ns - _DELAY_NS)
        if self._writing is not None:
            self._conditions.leave_out(hung, now_ns)
            self._writing.sync()
            if now_ns >= self._end_ns or self._writing.is_over:
                self._end(start.stats, start.counters, name(hung), over)
        if self._may_fire(now_ns):
            self._fired = self._conditions.met_now(hung, now_ns)
        if self._fired is not None and self._writing is None:
            self._begin(self._fired, drain)
            self._fired = None

    def finish(self, stats: StatPair, in_flight: InFlight, over: NDArray[np.void]) -> None:
        """Ends what is being written when recording has ended."""
        if self._fired is not None and self._writing is None:
            self._begin(self._fired, lambda: None)
        if self._writing is not None:
            self._end(stats, None, in_flight, over)

    def _may_fire(self, now_ns: int) -> bool:
        is_idle = self._fired is None and self._writing is None
        return is_idle and now_ns >= self._pause_end_ns

    def _forget(self, end_ns: int) -> None:
        """Leaves the marks of the window that ends then, and one before; fewer for lack of room."""
        begin_ns = end_ns - self._plan.window_ns
        while len(self._seconds) > 1:
            is_old = self._seconds[1].mark.at_ns <= begin_ns
            if not is_old and self._kept_bytes <= self._room_bytes:
                return
            self._is_short |= not is_old
            self._kept_bytes -= self._seconds.popleft().size_bytes

    def _begin(self, fired: Fired, drain: Callable[[], object]) -> None:
        """Writes what is kept; what follows goes there, too."""
        self._forget(fired.at_ns)
        first = self._seconds[0].mark.unpack()
        if self._is_short:
            kept = format_duration(fired.at_ns - first.clock.monotonic_ns)
            room = format_bytes(self._room_bytes)
            self._notes.add(_PART, f"{room} hold {kept} before the trigger, not more")
            self._is_short = False
        moment = EpochNs(first.clock.time_at(fired.at_ns))
        try:
            spool = self._files.create(moment, fired.trigger)
        except (IorecError, OSError) as error:
            self._fail(fired, error)
            return
        trigger = FiredTrigger(fired.trigger, moment, fired.cause)
        excerpt = Excerpt(self._prepared, self._probes, self._origin, spool, first, trigger)
        for second in self._seconds:
            for packed in second.batches:
                excerpt.write(packed.unpack(), packed.identity_lost)
                drain()
        self._writing, self._end_ns = excerpt, fired.at_ns + self._plan.after_ns
        clock = format_clock(moment).partition(".")[0]
        self._say(f"{clock} {fired.trigger}: {fired.cause}; writing {excerpt.capture.name}")

    def _fail(self, fired: Fired, error: IorecError | OSError) -> None:
        """Says that there is no capture, and waits as after one: the next one may fail, too."""
        message = f"no capture of {fired.trigger}: {error}"
        hint = error.hint if isinstance(error, IorecError) else advice(str(error))
        self.failures[fired.trigger] = IorecError(message, hint)
        self._notes.add(_PART, message)
        self._say(f"warning: {message}")
        self._pause_end_ns = time.monotonic_ns() + self._plan.pause_ns

    def _end(
        self,
        stats: StatPair,
        counters: Snapshot | None,
        in_flight: InFlight,
        over: NDArray[np.void],
    ) -> None:
        """Ends the capture, which another process makes of its spool meanwhile."""
        excerpt, self._writing = self._writing, None
        assert excerpt is not None
        name, failure = excerpt.capture.name, excerpt.end(stats, counters, in_flight, over)
        if failure is not None:
            self._say(f"warning: {name} is not whole: {failure}")
        self._files.convert(excerpt.capture)
        self._pause_end_ns = time.monotonic_ns() + self._plan.pause_ns

    def _say(self, text: str) -> None:
        with self._notes.guard("status line"):
            self._prepared.progress.say(text)


def _shrink(value: object) -> bytes:
    """What is in many objects, in few bytes of this process's memory."""
    return zlib.compress(pickle.dumps(value, pickle.HIGHEST_PROTOCOL), 1)


def _restore(packed: bytes) -> Any:
    return pickle.loads(zlib.decompress(packed))
