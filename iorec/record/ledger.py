# SPDX-License-Identifier: GPL-2.0-only
"""Accounts for every completion that the kernel reported: recorded, left out, or lost."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.metadata import Counts, DeviceCounts, DeviceEvents, LayerCounts
from iorec.kernel.layers import (
    BLOCK_LAYER_NAMES,
    EVENT_COUNTERS,
    LAYER_NAMES,
    LAYERS,
    SYSCALL,
    URING,
    Layer,
    layers_of,
)
from iorec.kernel.layouts import LANE, TALLY, moved_bytes
from iorec.kernel.names import KernelNames
from iorec.kernel.probes import Probes
from iorec.record.device_watch import DeviceWatch
from iorec.record.gaps import Gaps, Newest, read_newest
from iorec.store.arrow import distinct

_Place = tuple[str, int, int]  # layer, device number, op
_NamedPlace = tuple[str, str, str]  # layer, device, diskstats group

_TALLY_WORDS = TALLY.itemsize // 8
_NOTHING_COUNTED = [0] * _TALLY_WORDS
_LANE_PLACES = {name: place for place, name in enumerate(LANE.names or ())}
_EVENTS = ("merges", "splits", "requeues", "refused")
# The kernel's name of a tally and the ledger's.
_TALLY_KINDS = {
    "filtered": ("filtered",),
    "ring_full": ("lost",),
    "stale": ("lost", "missed"),
    "unmatched": ("began_before",),
}
# The place of a counter in a tally, and what the ledger counts it as.
_COUNTED_BY_TALLY = tuple(
    ((TALLY.names or ()).index(f"{theirs}{unit}"), f"{ours}{unit}")
    for theirs, kinds in (_TALLY_KINDS | {event: (event,) for event in _EVENTS}).items()
    for ours in kinds
    for unit in ("", "_bytes")
    if f"{theirs}{unit}" in (TALLY.names or ())
)
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
    """Where the kernel's counters stood at one moment.

    `lanes` has for each lane the sums over all CPUs, in the order of LANE; `tallies` the same for
    each key, in the order of TALLY.
    """

    cpu_count: int
    lanes: list[list[int]]
    tallies: dict[int, list[int]]
    missed: dict[str, int]
    newest_gaps: Newest


def take_snapshot(probes: Probes) -> Snapshot:
    """Sums up the kernel's counters."""
    return Snapshot(
        probes.cpu_count,
        probes.lanes.view(np.uint64).reshape(*probes.lanes.shape, -1).sum(axis=1).tolist(),
        _sum_tallies(probes.tallies),
        probes.missed_runs(),
        read_newest(probes),
    )


def _sum_tallies(tallies: NDArray[np.void]) -> dict[int, list[int]]:
    sums: dict[int, list[int]] = {}
    for row in tallies[tallies["key"] != 0].view(np.uint64).reshape(-1, _TALLY_WORDS).tolist():
        before = sums.get(row[0])
        sums[row[0]] = row if before is None else [a + b for a, b in zip(before, row, strict=True)]
    return sums


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

        What is lost is `spool_failed`, or `missed_completion`: known to be over, but not how, as
        `filtered_unseen` is. A `sign` of -1 takes a booking back.
        """
        columns = {
            "spool_failed": ("lost",),
            "missed_completion": ("lost", "missed"),
            "filtered_unseen": ("filtered",),
        }
        layers = records["source"] // self._start.cpu_count
        keys = layers.astype(np.uint64) << np.uint64(40) | records["cmd_flags"] & np.uint64(0xFF)
        keys |= records["dev"].astype(np.uint64) << np.uint64(8)
        values, places = distinct(keys)
        moved = moved_bytes(records, layers >= SYSCALL.number, layers == URING.number)
        ios, sizes = np.bincount(places), np.bincount(places, moved)
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
            left_out={
                name: self._grown(now, (program,), "left_out") if one is layer else 0
                for one in LAYERS
                for program, name in one.left_out.items()
            },
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
        place = _LANE_PLACES[name]
        return sum(now.lanes[lane][place] - self._start.lanes[lane][place] for lane in lanes)

    def _sums_by_place(self, now: Snapshot) -> dict[_NamedPlace, dict[str, int]]:
        sums: dict[_NamedPlace, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (layer, dev, op), counted in [*self._by_place.items(), *self._kernel_tallies(now)]:
            name = self._devices.account_name(dev)
            op_name = self._names.op(op)
            is_block = layer in BLOCK_LAYER_NAMES
            group = diskstats_group(op_name) if is_block else op_name
            place = sums[layer, name or "", group]
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
        for key, row in now.tallies.items():
            before = self._start.tallies.get(key, _NOTHING_COUNTED)
            counted: dict[str, int] = defaultdict(int)
            for theirs, ours in _COUNTED_BY_TALLY:
                counted[ours] += row[theirs] - before[theirs]
            yield _place(key & ~(1 << 63)), counted


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
