"""Accounts for every completion that the kernel reported: recorded, left out, or lost."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from iorec.devices import DeviceNames, DiskStats, OpStats
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


@dataclass
class Ledger:
    """The recorder's side of the account; `counts` joins it with the kernel's."""

    _probes: Probes
    _names: KernelNames
    _devices: DeviceNames
    in_flight_at_start: int
    _totals: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    _by_device: dict[tuple[int, int], dict[str, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )

    def add(self, kind: str, records: NDArray[np.void], sign: int = 1) -> None:
        """Books drained records as `recorded`, `filtered` (beyond --count) or `spool_failed`.

        A `sign` of -1 takes a booking back.
        """
        self._totals[kind] += sign * len(records)
        column = "lost" if kind == "spool_failed" else kind
        keys = records["dev"].astype(np.uint64) << np.uint64(8) | records["cmd_flags"] & 0xFF
        encoded = pa.array(keys).dictionary_encode()
        codes = encoded.indices.to_numpy()
        ios, sizes = np.bincount(codes), np.bincount(codes, records["bytes"])
        for key, count, size in zip(encoded.dictionary.to_pylist(), ios, sizes, strict=True):
            place = self._by_device[key >> 8, key & 0xFF]
            place[column] += sign * int(count)
            place[f"{column}_bytes"] += sign * int(size)

    def counts(self, in_flight_at_stop: int) -> dict[str, Any]:
        """The ledger as the capture's metadata holds it.

        A completion without a slot began before the recording, unless its start is known to have
        been missed: the table was full, or the kernel skipped the program.
        """
        missed = self._probes.missed_runs()
        unmatched = self._completed("unmatched")
        table_full = min(
            unmatched, self._total("start", "table_full") + self._total("issue", "table_full")
        )
        missed_start = min(unmatched - table_full, missed.get("on_start", 0))
        stale = self._total("start", "stale") + self._total("issue", "stale")
        return {
            "completions": self._completed("runs"),
            "recorded": self._totals["recorded"],
            "filtered": self._completed("filtered") + self._totals["filtered"],
            "began_before": unmatched - table_full - missed_start,
            "continuations": self._completed("continuations"),
            "merged": self._total("merge", "merged"),
            "requeued": self._total("requeue", "requeued"),
            "in_flight_at_start": self.in_flight_at_start,
            "in_flight_at_stop": in_flight_at_stop,
            "lost": {
                "ring_full": self._completed("ring_full"),
                "table_full": table_full,
                "missed_start": missed_start,
                "missed_completion": max(stale, missed.get("on_complete", 0) - self._nested_runs()),
                "spool_failed": self._totals["spool_failed"],
            },
            "devices": self._device_counts(),
        }

    def lost(self) -> int:
        """I/Os lost so far, whatever the cause."""
        return sum(self.counts(0)["lost"].values())

    def gaps(self) -> list[tuple[int, int, int]]:
        """Spans (first ns, last ns, I/Os lost; monotonic time) in which records found no room."""
        spans = []
        for lane, newest in enumerate(self._probes.completions["gaps"].tolist()):
            rows = self._probes.gaps[lane]
            for number in range(max(1, newest - len(rows) + 1), newest + 1):
                row = rows[number % len(rows)]
                spans.append((int(row["first_ns"]), int(row["last_ns"]), int(row["lost"])))
        return sorted(spans)

    def _total(self, section: str, name: str) -> int:
        return int(self._probes.counters[section][name].sum())

    def _completed(self, name: str) -> int:
        return int(self._probes.completions[name].sum())

    def _nested_runs(self) -> int:
        """Completions that the first program missed and the second one took."""
        interrupting = self._probes.completions[len(self._probes.counters) :]
        return int(interrupting["runs"].sum())

    def _device_counts(self) -> list[dict[str, Any]]:
        sums: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
        for (dev, op), counted in [*self._by_device.items(), *self._kernel_tallies()]:
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

    def _kernel_tallies(self) -> Iterator[tuple[tuple[int, int], dict[str, int]]]:
        tallies = self._probes.tallies
        for row in tallies[tallies["key"] != 0]:
            place = int(row["key"]) >> 8 & 0xFFFFFFFF, int(row["key"]) & 0xFF
            for theirs, ours in _TALLY_KINDS.items():
                for unit in ("", "_bytes"):
                    yield place, {f"{ours}{unit}": int(row[f"{theirs}{unit}"])}


def diskstats_delta(
    before: tuple[DiskStats, DiskStats], after: tuple[DiskStats, DiskStats]
) -> dict[str, dict[str, dict[str, int]]]:
    """What diskstats counted between the outermost of four readings.

    The pairs are readings just before and just after the moment in which recording was switched on
    and off; `edge_ios` of the I/Os ended within a pair, so that it is open whether they count.
    """
    (outer_start, inner_start), (inner_stop, outer_stop) = before, after
    delta: dict[str, dict[str, dict[str, int]]] = {}
    for device in sorted(outer_stop):
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
