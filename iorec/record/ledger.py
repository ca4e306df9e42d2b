# SPDX-License-Identifier: GPL-2.0-only
"""Accounts for every completion that the kernel reported: recorded, left out, or lost."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.metadata import Counts, DeviceCounts, DeviceEvents, LayerCounts
from iorec.kernel.layers import EVENT_COUNTERS, LAYER_NAMES, Layer, layers_of
from iorec.kernel.names import KernelNames
from iorec.kernel.probes import Probes
from iorec.record.device_watch import DeviceWatch
from iorec.record.gaps import Gaps, Newest, read_newest
from iorec.store.arrow import distinct

_Place = tuple[str, int, int]  # layer, device number, op
_NamedPlace = tuple[str, str, str]  # layer, device, diskstats group

_EVENTS = ("merges", "splits", "requeues", "refused")
# The kernel's name of a tally and the ledger's.
_TALLY_KINDS = {
    "filtered": ("filtered",),
    "ring_full": ("lost",),
    "stale": ("lost", "missed"),
    "unmatched": ("began_before",),
}
_COUNTED = tuple(
    f"{kind}{unit}"
    for kind in ("recorded", "filtered", "lost", "missed", "began_before")
    for unit in ("", "_bytes")
)


def diskstats_group(op: str) -> str:
    """Where /proc/diskstats counts an operation; `other`: nowhere (passthrough).

    A flush that somebody submits is a write of 0 bytes there; a disk's flush of its cache, which
    that causes, a flush.
    """
    if op in ("read", "discard"):
        return op
    if op == "cache_flush":
        return "flush"
    return "other" if op == "driver" else "write"


@dataclass(frozen=True)
class Snapshot:
    """Where the kernel's counters stood at one moment."""

    lanes: NDArray[np.void]
    tallies: NDArray[np.void]
    missed: dict[str, int]
    newest_gaps: Newest


def take_snapshot(probes: Probes) -> Snapshot:
    """Copies the kernel's counters."""
    return Snapshot(
        probes.lanes.copy(),
        probes.tallies.copy(),
        probes.missed_runs(),
        read_newest(probes),
    )


class _Rows(NamedTuple):
    """What was counted at a place, as the capture's metadata hold it."""

    sums: dict[str, int]
    counts: DeviceCounts | None
    events: DeviceEvents | None


class Ledger:
    """The recorder's side of the account; `counts` joins it with the kernel's.

    The kernel's counters only grow: a ledger counts from `start`, so that each of several captures
    of one recording has an account of its own. `carried` completions of each layer were reported
    before that, but belong to this one.
    """

    def __init__(
        self,
        start: Snapshot,
        layers: tuple[str, ...],
        lanes_of: Mapping[str, range],
        names: KernelNames,
        devices: DeviceWatch,
        gaps: Gaps,
        in_flight_at_start: int,
        carried: Mapping[str, int],
    ) -> None:
        self._start = start
        self._layers = layers
        self._lanes_of = lanes_of
        self._names = names
        self._devices = devices
        self._gaps = gaps
        self._in_flight_at_start = in_flight_at_start
        self._carried = carried
        self._totals: dict[tuple[str, str], int] = defaultdict(int)
        self._made: dict[_NamedPlace, _Rows] = {}
        self._by_place: dict[_Place, dict[str, int]] = defaultdict(lambda: defaultdict(int))

    def add(self, kind: str, records: NDArray[np.void], sign: int = 1) -> None:
        """Books drained records as `recorded`, `filtered` (beyond --count) or lost.

        What is lost is `spool_failed`, or `missed_completion`: known to be over, but not how. A
        `sign` of -1 takes a booking back.
        """
        columns = {"spool_failed": ("lost",), "missed_completion": ("lost", "missed")}
        layers = records["source"] // self._start.lanes.shape[1]
        keys = layers.astype(np.uint64) << np.uint64(40) | records["cmd_flags"] & np.uint64(0xFF)
        keys |= records["dev"].astype(np.uint64) << np.uint64(8)
        values, places = distinct(keys)
        ios, sizes = np.bincount(places), np.bincount(places, records["bytes"])
        failed = np.bincount(places[records["error"] != 0], minlength=len(values))
        for key, count, size, failures in zip(values, ios, sizes, failed, strict=True):
            place = _place(key)
            self._totals[kind, place[0]] += sign * int(count)
            for column in columns.get(kind, (kind,)):
                self._by_place[place][column] += sign * int(count)
                self._by_place[place][f"{column}_bytes"] += sign * int(size)
            if kind == "recorded":
                self._by_place[place]["failed"] += sign * int(failures)

    def add_identity_lost(self, rows: Mapping[str, int], sign: int = 1) -> None:
        """Books the rows of each layer whose submitter is unknown as its announcement is lost."""
        for layer, count in rows.items():
            self._totals["identity_lost", layer] += sign * count

    def counts(self, now: Snapshot, in_flight_at_stop: Mapping[str, int] | None = None) -> Counts:
        """The ledger as it stands: of each layer, of each device, and of all rows.

        To be asked for each second: the kernel forgets gaps.
        """
        layers = {
            layer.name: self._layer_counts(layer, now, (in_flight_at_stop or {}).get(layer.name, 0))
            for layer in layers_of(self._layers)
        }
        rows = [self._rows(*found) for found in sorted(self._sums_by_place(now).items())]
        return Counts(
            **_sum([vars(layer) for layer in layers.values()]),
            layers=layers,
            merged=self._grown(now, ("rq_merge",), "events"),
            requeued=self._grown(now, ("rq_requeue",), "events"),
            missed_events=self._missed(now, EVENT_COUNTERS),
            in_flight_at_start=self._in_flight_at_start,
            devices=tuple(row.counts for row in rows if row.counts is not None),
            events=tuple(row.events for row in rows if row.events is not None),
            gaps=self._gaps.read(now.newest_gaps),
        )

    def _layer_counts(self, layer: Layer, now: Snapshot, in_flight_at_stop: int) -> LayerCounts:
        """A completion without a slot began before the recording, unless its start is known to have
        been missed: the table was full, or the kernel skipped the program.
        """

        def completed(name: str) -> int:
            return self._grown(now, layer.complete, name)

        unmatched = completed("unmatched")
        table_full = min(unmatched, self._grown(now, layer.claiming, "table_full"))
        missed_start = min(unmatched - table_full, self._missed(now, (layer.start,)))
        stale = self._grown(now, layer.claiming, "stale")
        seen_over = self._totals["missed_completion", layer.name]
        return LayerCounts(
            completions=completed("runs") + self._carried.get(layer.name, 0),
            recorded=self._totals["recorded", layer.name],
            filtered=completed("filtered") + self._totals["filtered", layer.name],
            began_before=unmatched - table_full - missed_start,
            continuations=completed("continuations"),
            refused=completed("refused"),
            identity_lost=self._totals["identity_lost", layer.name],
            in_flight_at_stop=in_flight_at_stop,
            lost={
                "ring_full": completed("ring_full"),
                "table_full": table_full,
                "missed_start": missed_start,
                "missed_completion": max(stale + seen_over, self._missed(now, layer.complete)),
                "spool_failed": self._totals["spool_failed", layer.name],
            },
        )

    def _missed(self, now: Snapshot, programs: Sequence[str]) -> int:
        """Events that no copy of these programs took."""
        skipped = sum(now.missed.get(p, 0) - self._start.missed.get(p, 0) for p in programs)
        return max(0, skipped - self._grown(now, programs, "turns"))

    def _grown(self, now: Snapshot, programs: Sequence[str], name: str) -> int:
        """By how much a counter of some programs has grown, on all CPUs."""
        lanes = [lane for program in programs for lane in self._lanes_of.get(program, ())]
        return int((now.lanes[lanes][name] - self._start.lanes[lanes][name]).sum())

    def _sums_by_place(self, now: Snapshot) -> dict[_NamedPlace, dict[str, int]]:
        sums: dict[_NamedPlace, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (layer, dev, op), counted in [*self._by_place.items(), *self._kernel_tallies(now)]:
            name = self._devices.account_name(dev)
            place = sums[layer, name or "", diskstats_group(self._names.op(op))]
            for kind, count in counted.items():
                place[kind] += count
        return sums

    def _rows(self, place: _NamedPlace, sums: dict[str, int]) -> _Rows:
        """Those of before if nothing has changed: most of thousands of devices are idle."""
        made = self._made.get(place)
        if made is None or made.sums != sums:
            made = self._made[place] = _make_rows(place, sums)
        return made

    def _kernel_tallies(self, now: Snapshot) -> Iterator[tuple[_Place, dict[str, int]]]:
        is_used = now.tallies["key"] != 0
        rows, starts = now.tallies[is_used], self._start.tallies[is_used]
        for row, before in zip(rows, starts, strict=True):
            counted: dict[str, int] = defaultdict(int)
            for theirs, kinds in _TALLY_KINDS.items():
                for unit in ("", "_bytes"):
                    grown = int(row[f"{theirs}{unit}"]) - int(before[f"{theirs}{unit}"])
                    for ours in kinds:
                        counted[f"{ours}{unit}"] += grown
            for event in _EVENTS:
                counted[event] += int(row[event]) - int(before[event])
            yield _place(int(row["key"]) & ~(1 << 63)), counted


def _place(key: int) -> _Place:
    """Of a tally's key (bpf/records.h)."""
    return LAYER_NAMES[key >> 40], key >> 8 & 0xFFFFFFFF, key & 0xFF


def _make_rows(place: _NamedPlace, sums: dict[str, int]) -> _Rows:
    """None for what counted nothing."""
    layer, device, op = place
    counts = events = None
    if any(map(sums.get, _COUNTED)):
        counted = {column: sums.get(column, 0) for column in _COUNTED}
        failed = sums.get("failed", 0)
        counts = DeviceCounts(layer=layer, device=device or None, op=op, failed=failed, **counted)
    if any(map(sums.get, _EVENTS)):
        events = DeviceEvents(device or None, op, *(sums.get(event, 0) for event in _EVENTS))
    return _Rows(sums, counts, events)


def _sum(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Adds up equal dictionaries of numbers."""
    return {
        name: _sum([layer[name] for layer in layers])
        if isinstance(value, dict)
        else sum(layer[name] for layer in layers)
        for name, value in layers[0].items()
    }


def without_pending(counts: Counts) -> tuple[Counts, dict[str, int]]:
    """Leaves out the completions that are reported, but neither drained nor booked otherwise.

    Returns how many these are of each layer, too.
    """
    pending = {name: layer.unaccounted for name, layer in counts.layers.items()}
    layers = {
        name: replace(layer, completions=layer.completions - pending[name])
        for name, layer in counts.layers.items()
    }
    completions = counts.completions - sum(pending.values())
    return replace(counts, completions=completions, layers=layers), pending
