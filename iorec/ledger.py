"""Accounts for every completion that the kernel reported: recorded, left out, or lost."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iorec.arrow import distinct
from iorec.devices import DeviceNames, DiskStats, OpStats
from iorec.gaps import Gaps, Span
from iorec.kernel_names import KernelNames
from iorec.plan import LAYERS
from iorec.probes import Probes

_Place = tuple[str, int, int]  # layer, device number, op
_PLACE_KEYS = ("layer", "device", "op")

_EVENTS = ("merges", "splits", "requeues")
# The kernel's name of a tally and the ledger's.
_TALLY_KINDS = {
    f"{theirs}{unit}": f"{ours}{unit}"
    for theirs, ours in {
        "filtered": "filtered",
        "ring_full": "lost",
        "stale": "lost",
        "unmatched": "began_before",
    }.items()
    for unit in ("", "_bytes")
} | {name: name for name in _EVENTS}
_COUNTED = tuple(
    f"{kind}{unit}"
    for kind in ("recorded", "filtered", "lost", "began_before")
    for unit in ("", "_bytes")
)


@dataclass(frozen=True)
class _Programs:
    """A layer's programs: those that begin and end an I/O, and all that put one into the table."""

    start: str
    complete: tuple[str, ...]
    completers: tuple[int, ...]  # lanes of a CPU; every second one takes what interrupts another
    claiming: tuple[str, ...]  # by their counters


_PROGRAMS = {
    "request": _Programs("on_start", ("on_complete",), (0, 1), ("start", "issue")),
    "bio": _Programs(
        "on_bio_queue",
        ("on_bio_complete", "on_complete_bios"),
        (2, 3, 4, 5),
        ("bio_queue", "split", "remap"),
    ),
}


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
    of one recording has an account of its own. `carried` completions of each layer were reported
    before that, but belong to this one.
    """

    def __init__(
        self,
        start: Snapshot,
        layers: Sequence[str],
        names: KernelNames,
        devices: DeviceNames,
        gaps: Gaps,
        in_flight_at_start: int,
        carried: Mapping[str, int],
    ) -> None:
        self._start = start
        self._layers = layers
        self._names = names
        self._devices = devices
        self._gaps = gaps
        self._in_flight_at_start = in_flight_at_start
        self._carried = carried
        self._totals: dict[tuple[str, str], int] = defaultdict(int)
        self._by_place: dict[_Place, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, kind: str, records: NDArray[np.void], sign: int = 1) -> None:
        """Books drained records as `recorded`, `filtered` (beyond --count) or `spool_failed`.

        A `sign` of -1 takes a booking back.
        """
        column = "lost" if kind == "spool_failed" else kind
        layers = records["lane"] // len(self._start.counters)
        keys = layers.astype(np.uint64) << np.uint64(40) | records["cmd_flags"] & np.uint64(0xFF)
        keys |= records["dev"].astype(np.uint64) << np.uint64(8)
        values, places = distinct(keys)
        ios, sizes = np.bincount(places), np.bincount(places, records["bytes"])
        for key, count, size in zip(values, ios, sizes, strict=True):
            place = _place(key)
            self._totals[kind, place[0]] += sign * int(count)
            self._by_place[place][column] += sign * int(count)
            self._by_place[place][f"{column}_bytes"] += sign * int(size)

    def counts(
        self, now: Snapshot, in_flight_at_stop: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """The ledger as the capture's metadata holds it: of each layer, and of all rows."""
        layers = {
            layer: self._layer_counts(layer, now, (in_flight_at_stop or {}).get(layer, 0))
            for layer in self._layers
        }
        by_place = self._sums_by_place(now)
        return {
            **_sum(list(layers.values())),
            "layers": layers,
            "merged": int(_grown(self._start, now, "merge", "events")),
            "requeued": int(_grown(self._start, now, "requeue", "events")),
            "in_flight_at_start": self._in_flight_at_start,
            "devices": _entries(by_place, _COUNTED, _PLACE_KEYS),
            "events": _entries(by_place, _EVENTS, ("device", "op")),
        }

    def gaps(self) -> list[Span]:
        """The spans in which records found no room."""
        return self._gaps.read()

    def _layer_counts(self, layer: str, now: Snapshot, in_flight_at_stop: int) -> dict[str, Any]:
        """A completion without a slot began before the recording, unless its start is known to have
        been missed: the table was full, or the kernel skipped the program.
        """
        programs = _PROGRAMS[layer]
        cpus = len(now.counters)

        def completed(name: str, completers: Sequence[int] = programs.completers) -> int:
            grown = now.completions[name] - self._start.completions[name]
            return int(grown.reshape(-1, cpus)[list(completers)].sum())

        def total(name: str) -> int:
            return sum(_grown(self._start, now, section, name) for section in programs.claiming)

        def missed(program: str) -> int:
            return now.missed.get(program, 0) - self._start.missed.get(program, 0)

        unmatched = completed("unmatched")
        table_full = min(unmatched, total("table_full"))
        missed_start = min(unmatched - table_full, missed(programs.start))
        # What a first program missed and the second one took is not lost.
        taken = completed("runs", programs.completers[1::2])
        return {
            "completions": completed("runs") + self._carried.get(layer, 0),
            "recorded": self._totals["recorded", layer],
            "filtered": completed("filtered") + self._totals["filtered", layer],
            "began_before": unmatched - table_full - missed_start,
            "continuations": completed("continuations"),
            "in_flight_at_stop": in_flight_at_stop,
            "lost": {
                "ring_full": completed("ring_full"),
                "table_full": table_full,
                "missed_start": missed_start,
                "missed_completion": max(
                    total("stale"), sum(map(missed, programs.complete)) - taken
                ),
                "spool_failed": self._totals["spool_failed", layer],
            },
        }

    def _sums_by_place(self, now: Snapshot) -> dict[tuple[str, str, str], dict[str, int]]:
        """By layer, device and diskstats group."""
        sums: dict[tuple[str, str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (layer, dev, op), counted in [*self._by_place.items(), *self._kernel_tallies(now)]:
            name = self._devices.resolve(dev, 0)[0]
            place = sums[layer, name or "", diskstats_group(self._names.op(op))]
            for kind, count in counted.items():
                place[kind] += count
        return sums

    def _kernel_tallies(self, now: Snapshot) -> Iterator[tuple[_Place, dict[str, int]]]:
        is_used = now.tallies["key"] != 0
        rows, starts = now.tallies[is_used], self._start.tallies[is_used]
        for row, before in zip(rows, starts, strict=True):
            counted: dict[str, int] = defaultdict(int)
            for theirs, ours in _TALLY_KINDS.items():
                counted[ours] += int(row[theirs]) - int(before[theirs])
            yield _place(int(row["key"]) & ~(1 << 63)), counted


def _grown(start: Snapshot, now: Snapshot, program: str, name: str) -> int:
    return int((now.counters[program][name] - start.counters[program][name]).sum())


def _place(key: int) -> _Place:
    """Of a tally's key (bpf/records.h)."""
    return LAYERS[key >> 40], key >> 8 & 0xFFFFFFFF, key & 0xFF


def _sum(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds up equal dictionaries of numbers."""
    return {
        name: _sum([layer[name] for layer in layers])
        if isinstance(value, dict)
        else sum(layer[name] for layer in layers)
        for name, value in layers[0].items()
    }


def _entries(
    by_place: Mapping[tuple[str, str, str], Mapping[str, int]],
    columns: Sequence[str],
    keys: Sequence[str],
) -> list[dict[str, Any]]:
    """The places where one of the columns counted something."""
    return [
        {
            **{
                key: value or None
                for key, value in zip(_PLACE_KEYS, place, strict=True)
                if key in keys
            },
            **{column: counted.get(column, 0) for column in columns},
        }
        for place, counted in sorted(by_place.items())
        if any(counted.get(column, 0) for column in columns)
    ]


def pending_completions(counts: dict[str, Any]) -> dict[str, int]:
    """Completions of each layer that are reported, but neither drained nor booked otherwise."""
    booked = ("recorded", "filtered", "began_before", "continuations")
    pending = {}
    for name, layer in counts["layers"].items():
        lost = layer["lost"]
        accounted = sum(layer[kind] for kind in booked) + sum(lost.values())
        pending[name] = int(layer["completions"] - accounted + lost["missed_completion"])
    return pending


def diskstats_delta(
    before: tuple[DiskStats, DiskStats], after: tuple[DiskStats, DiskStats]
) -> dict[str, dict[str, dict[str, int]]]:
    """What diskstats counted between the outermost of four readings.

    The pairs are readings just before and just after the moment in which recording was switched on
    and off; `edge_ios` of the I/Os ended within a pair, so that it is open whether they count, and
    `edge_bytes` were counted there: not always of the same I/Os, as a flush may follow data. A
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
            began, ended = (_stats(stats, device, group) for stats in (inner_start, inner_stop))
            ios, size = last.ios - first.ios, last.bytes - first.bytes
            groups[group] = {
                "ios": ios,
                "bytes": size,
                "edge_ios": ios - (ended.ios - began.ios),
                "edge_bytes": size - (ended.bytes - began.bytes),
            }
        if any(count["ios"] for count in groups.values()):
            delta[device] = groups
    return delta


def _stats(stats: DiskStats, device: str, group: str) -> OpStats:
    return stats.get(device, {}).get(group, OpStats(0, 0))
