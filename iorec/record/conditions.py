# SPDX-License-Identifier: GPL-2.0-only
"""Looks at I/Os for what meets a condition of the flight recorder."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyze.escape import escape_for_terminal
from analyze.units import format_count, format_duration
from iorec.host.devices import numbers_of_dev
from iorec.host.notes import Notes
from iorec.kernel.layers import SYSCALL
from iorec.record.device_watch import DeviceWatch
from iorec.record.triggers import Trigger, read_pressure
from iorec.store.named import Named, identity_keys
from iorec.store.origin import Origin


@dataclass(frozen=True)
class Fired:
    """A condition that was met, and by what."""

    trigger: str
    at_ns: int  # CLOCK_MONOTONIC
    cause: str


class Conditions:
    """Some conditions, and the stalled I/Os that have met them.

    Where I/Os of disks are recorded, they are on these alone: calls often wait and fail.
    """

    def __init__(
        self,
        triggers: Sequence[Trigger],
        origin: Origin,
        devices: DeviceWatch,
        notes: Notes,
        *,
        has_block_layer: bool,
    ) -> None:
        self._triggers = triggers
        self._has_block_layer = has_block_layer
        self._origin = origin
        self._devices = devices
        self._notes = notes
        self._told: dict[Trigger, set[bytes]] = {trigger: set() for trigger in triggers}

    @property
    def need_in_flight(self) -> bool:
        """Whether `met_now` is to be told what is in flight."""
        kinds = {trigger.kind for trigger in self._triggers}
        return not kinds.isdisjoint(("stalled", "in_flight"))

    @property
    def need_idle_moments(self) -> bool:
        """Whether `met_now` may find something while no I/O ends and none is in flight."""
        return any(trigger.kind.startswith("psi") for trigger in self._triggers)

    def met_by(self, batch: Named, since_ns: int) -> Fired | None:
        """What an I/O that has ended since then has met, of the first condition that any has."""
        ended_ns = batch.records["start_ns"] + batch.records["latency_ns"]
        is_new = (ended_ns >= np.uint64(since_ns)) & self._are_watched(batch.records)
        for trigger in self._triggers:
            meets, count = self._meets(trigger, batch.records)
            meets &= is_new
            if meets.any():
                place = int(np.argmax(meets))
                cause = self._describe(batch, place)
                if count is not None:
                    cause = f"{_in_flight(int(count[place]))}; {cause}"
                return Fired(trigger.text, int(ended_ns[place]), cause)
        return None

    def met_now(self, hung: NDArray[np.void], now_ns: int) -> Fired | None:
        """What is met by the I/Os in flight, or by the machine."""
        watched = hung[self._are_watched(hung)]
        for trigger in self._triggers:
            if cause := self._cause_of_moment(trigger, watched, now_ns):
                return Fired(trigger.text, now_ns, cause)
        return None

    def leave_out(self, hung: NDArray[np.void], now_ns: int) -> None:
        """Takes what has stalled by now for told: a capture is being written that has it."""
        for trigger, told in self._told.items():
            if trigger.kind == "stalled":
                told.update(_keys(_stalled(trigger, hung, now_ns)))

    def _meets(
        self, trigger: Trigger, records: NDArray[np.void]
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64] | None]:
        """Which finished I/Os meet it, and how many were in flight if that is what counts."""
        if trigger.kind == "latency":
            return records["latency_ns"] > trigger.limit, None
        if trigger.kind == "errno":
            return records["error"] != 0, None
        if trigger.kind == "in_flight":
            count = in_flight_at_start(records, self._origin.cpu_count)
            return count > trigger.limit, count
        return np.zeros(len(records), np.bool_), None

    def _cause_of_moment(self, trigger: Trigger, hung: NDArray[np.void], now_ns: int) -> str:
        """What meets the condition now; empty if nothing does."""
        if trigger.kind == "stalled":
            stalled = _keys(_stalled(trigger, hung, now_ns))
            new = [record for key, record in stalled.items() if key not in self._told[trigger]]
            self._told[trigger] = {*stalled}  # each fires once
            if new:
                oldest = min(new, key=lambda record: int(record["start_ns"]))
                age = format_duration(now_ns - int(oldest["start_ns"]))
                return f"an I/O{self._on(int(oldest['dev']))} has been in flight for {age}"
        if trigger.kind == "in_flight" and len(hung):
            _, first, counts = np.unique(
                _queues(hung, self._origin.cpu_count), return_index=True, return_counts=True
            )
            most = int(np.argmax(counts))
            if counts[most] > trigger.limit:
                dev = int(hung["dev"][first[most]])
                return f"{_in_flight(int(counts[most]))}{self._on(dev)}"
        if trigger.kind.startswith("psi"):
            with self._notes.guard("flight recorder"):
                part = read_pressure(trigger.kind.removeprefix("psi "))
                if part > trigger.limit:
                    return f"{part:.0%} of the last 10 s"
        return ""

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
        return f"{op}{self._on(int(record['dev'][0]))}{by} {verb} {took}"

    def _are_watched(self, records: NDArray[np.void]) -> NDArray[np.bool_]:
        """Whether conditions are on each."""
        is_call: NDArray[np.bool_] = records["source"] // self._origin.cpu_count >= SYSCALL.number
        return ~is_call if self._has_block_layer else is_call

    def _on(self, dev: int) -> str:
        """` on sda`; nothing for a call."""
        name = self._devices.account_name(dev) or (numbers_of_dev(dev) if dev else "")
        return f" on {name}" if name else ""


def in_flight_at_start(records: NDArray[np.void], cpu_count: int) -> NDArray[np.int64]:
    """How many of the records were in flight when each began, itself included.

    On the same device, and in the same layer: in two layers one I/O is two.
    """
    counts = np.zeros(len(records), np.int64)
    queues = _queues(records, cpu_count)
    for queue in np.unique(queues).tolist():
        places = np.flatnonzero(queues == queue)
        starts = records["start_ns"][places]
        ends = np.sort(starts + records["latency_ns"][places])
        begun = np.searchsorted(np.sort(starts), starts, "right")
        counts[places] = begun - np.searchsorted(ends, starts, "right")
    return counts


def _queues(records: NDArray[np.void], cpu_count: int) -> NDArray[np.uint64]:
    """A number for the device and layer of each."""
    queues: NDArray[np.uint64] = records["source"].astype(np.uint64) // np.uint64(cpu_count)
    queues <<= np.uint64(32)
    queues |= records["dev"]
    return queues


def _stalled(trigger: Trigger, hung: NDArray[np.void], now_ns: int) -> NDArray[np.void]:
    ages = np.int64(now_ns) - hung["start_ns"].view(np.int64)
    stalled: NDArray[np.void] = hung[ages >= trigger.limit]
    return stalled


def _keys(records: NDArray[np.void]) -> dict[bytes, np.void]:
    """The records by what does not change while an I/O is in flight."""
    fields = "source", "dev", "start_ns"
    return {b"".join(record[name].tobytes() for name in fields): record for record in records}


def _in_flight(count: int) -> str:
    return f"{format_count(count)} I/Os in flight"
