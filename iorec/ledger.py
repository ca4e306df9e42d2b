"""Accounts for every completion that the kernel reported: recorded, left out, or lost."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iorec.arrow import distinct
from iorec.devices import DeviceNames, DiskStats, OpStats
from iorec.gaps import Gaps, Span
from iorec.kernel_names import KernelNames
from iorec.probes import Probes

# The kernel's name of a tally and the ledger's.
_TALLY_KINDS = {
    "filtered": "filtered",
    "ring_full": "lost",
    "stale": "lost",
    "unmatched": "began_before",
}
_KINDS = ("recorded", "filtered", "lost", "began_before")


def diskstats_group(op: str) -> str:
    """Where /proc/diskstats counts an operation; `other`: nowhere (passthrough)."""
    if op in ("read", "discard", "flush"):
        return op
    return "other" if op == "driver" else "write"


@dataclass(frozen=True)
class Snapshot:
    """Where the kernel's counters stood at one moment."""

    counters: NDArray[np.void]
    completions: NDArray[np.void]
    tallies: NDArray[np.void]
    missed: dict[str, int]


def take_snapshot(probes: Probes) -> Snapshot:
    """Copies the kernel's counters."""
    return Snapshot(
        probes.counters.copy(),
        probes.completions.copy(),
        probes.tallies.copy(),
        probes.missed_runs(),
    )


class Ledger:
    """The recorder's side of the account; `counts` joins it with the kernel's.

    The kernel's counters only grow: a ledger counts from `start`, so that each of several captures
    of one recording has an account of its own. `carried` completions were reported before that, but
    belong to this one.
    """

    def __init__(
        self,
        start: Snapshot,
        names: KernelNames,
        devices: DeviceNames,
        gaps: Gaps,
        in_flight_at_start: int,
        carried: int = 0,
    ) -> None:
        self._start = start
        self._names = names
        self._devices = devices
        self._gaps = gaps
        self._in_flight_at_start = in_flight_at_start
        self._carried = carried
        self._totals: dict[str, int] = defaultdict(int)
        self._by_device: dict[tuple[int, int], dict[str, int]] = defaultdict(
            lambda: defaultdict(int)
        )

    def add(self, kind: str, records: NDArray[np.void], sign: int = 1) -> None:
        """Books drained records as `recorded`, `filtered` (beyond --count) or `spool_failed`.

        A `sign` of -1 takes a booking back.
        """
        self._totals[kind] += sign * len(records)
        column = "lost" if kind == "spool_failed" else kind
        keys = records["dev"].astype(np.uint64) << np.uint64(8) | records["cmd_flags"] & 0xFF
        values, places = distinct(keys)
        ios, sizes = np.bincount(places), np.bincount(places, records["bytes"])
        for key, count, size in zip(values, ios, sizes, strict=True):
            place = self._by_device[key >> 8, key & 0xFF]
            place[column] += sign * int(count)
            place[f"{column}_bytes"] += sign * int(size)

    def counts(self, now: Snapshot, in_flight_at_stop: int = 0) -> dict[str, Any]:
        """The ledger as the capture's metadata holds it.

        A completion without a slot began before the recording, unless its start is known to have
        been missed: the table was full, or the kernel skipped the program.
        """

        def total(section: str, name: str) -> int:
            return int((now.counters[section][name] - self._start.counters[section][name]).sum())

        def completed(name: str, lanes: slice = slice(None)) -> int:
            return int((now.completions[name] - self._start.completions[name])[lanes].sum())

        def missed(program: str) -> int:
            return now.missed.get(program, 0) - self._start.missed.get(program, 0)

        unmatched = completed("unmatched")
        table_full = min(unmatched, total("start", "table_full") + total("issue", "table_full"))
        missed_start = min(unmatched - table_full, missed("on_start"))
        stale = total("start", "stale") + total("issue", "stale")
        # What the first program missed and the second one took is not lost.
        taken = completed("runs", slice(len(now.counters), None))
        return {
            "completions": completed("runs") + self._carried,
            "recorded": self._totals["recorded"],
            "filtered": completed("filtered") + self._totals["filtered"],
            "began_before": unmatched - table_full - missed_start,
            "continuations": completed("continuations"),
            "merged": total("merge", "merged"),
            "requeued": total("requeue", "requeued"),
            "in_flight_at_start": self._in_flight_at_start,
            "in_flight_at_stop": in_flight_at_stop,
            "lost": {
                "ring_full": completed("ring_full"),
                "table_full": table_full,
                "missed_start": missed_start,
                "missed_completion": max(stale, missed("on_complete") - taken),
                "spool_failed": self._totals["spool_failed"],
            },
            "devices": self._device_counts(now),
        }

    def gaps(self) -> list[Span]:
        """The spans in which records found no room."""
        return self._gaps.read()

    def _device_counts(self, now: Snapshot) -> list[dict[str, Any]]:
        sums: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (dev, op), counted in [*self._by_device.items(), *self._kernel_tallies(now)]:
            name = self._devices.resolve(dev, 0)[0]
            place = sums[name or "", diskstats_group(self._names.op(op))]
            for kind, count in counted.items():
                place[kind] += count
        columns = [f"{kind}{unit}" for kind in _KINDS for unit in ("", "_bytes")]
        return [
            {
                "layer": "request",
                "device": device or None,
                "op": group,
                **{column: place[column] for column in columns},
            }
            for (device, group), place in sorted(sums.items())
        ]

    def _kernel_tallies(self, now: Snapshot) -> Iterator[tuple[tuple[int, int], dict[str, int]]]:
        is_used = now.tallies["key"] != 0
        rows, starts = now.tallies[is_used], self._start.tallies[is_used]
        for row, before in zip(rows, starts, strict=True):
            place = int(row["key"]) >> 8 & 0xFFFFFFFF, int(row["key"]) & 0xFF
            for theirs, ours in _TALLY_KINDS.items():
                for unit in ("", "_bytes"):
                    name = f"{theirs}{unit}"
                    yield place, {f"{ours}{unit}": int(row[name]) - int(before[name])}


def pending_completions(counts: dict[str, Any]) -> int:
    """Completions that are reported, but neither drained nor booked otherwise."""
    booked = ("recorded", "filtered", "began_before", "continuations")
    lost = counts["lost"]
    accounted = sum(counts[kind] for kind in booked) + sum(lost.values())
    return int(counts["completions"] - accounted + lost["missed_completion"])


def diskstats_delta(
    before: tuple[DiskStats, DiskStats], after: tuple[DiskStats, DiskStats]
) -> dict[str, dict[str, dict[str, int]]]:
    """What diskstats counted between the outermost of four readings.

    The pairs are readings just before and just after the moment in which recording was switched on
    and off; `edge_ios` of the I/Os ended within a pair, so that it is open whether they count. A
    device whose counting was off at one end is left out.
    """
    (outer_start, inner_start), (inner_stop, outer_stop) = before, after
    delta: dict[str, dict[str, dict[str, int]]] = {}
    for device in sorted(outer_stop):
        if outer_start.get(device) == {}:
            continue
        groups = {}
        for group, last in outer_stop[device].items():
            first = _stats(outer_start, device, group)
            inner = _stats(inner_stop, device, group).ios - _stats(inner_start, device, group).ios
            ios = last.ios - first.ios
            groups[group] = {"ios": ios, "bytes": last.bytes - first.bytes, "edge_ios": ios - inner}
        if any(count["ios"] for count in groups.values()):
            delta[device] = groups
    return delta


def _stats(stats: DiskStats, device: str, group: str) -> OpStats:
    return stats.get(device, {}).get(group, OpStats(0, 0))
