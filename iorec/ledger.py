"""Accounts for every completion that the kernel reported: recorded, left out, or lost."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

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


class Ledger:
    """The recorder's side of the account; `counts` joins it with the kernel's.

    The kernel's counters only grow: a ledger counts from where they stood when it was made, so that
    each of several captures of one recording has an account of its own. `carried` completions were
    reported before that, but belong to this one.
    """

    def __init__(
        self,
        probes: Probes,
        names: KernelNames,
        devices: DeviceNames,
        in_flight_at_start: int,
        carried: int = 0,
    ) -> None:
        self._probes = probes
        self._names = names
        self._devices = devices
        self._in_flight_at_start = in_flight_at_start
        self._carried = carried
        self._counters = probes.counters.copy()
        self._completions = probes.completions.copy()
        self._tallies = probes.tallies.copy()
        self._missed = probes.missed_runs()
        self._totals: dict[str, int] = defaultdict(int)
        self._by_device: dict[tuple[int, int], dict[str, int]] = defaultdict(
            lambda: defaultdict(int)
        )
        self._gaps = Gaps(probes)

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
        missed = {
            name: runs - self._missed.get(name, 0)
            for name, runs in self._probes.missed_runs().items()
        }
        unmatched = self._completed("unmatched")
        table_full = min(
            unmatched, self._total("start", "table_full") + self._total("issue", "table_full")
        )
        missed_start = min(unmatched - table_full, missed.get("on_start", 0))
        stale = self._total("start", "stale") + self._total("issue", "stale")
        return {
            "completions": self._completed("runs") + self._carried,
            "recorded": self._totals["recorded"],
            "filtered": self._completed("filtered") + self._totals["filtered"],
            "began_before": unmatched - table_full - missed_start,
            "continuations": self._completed("continuations"),
            "merged": self._total("merge", "merged"),
            "requeued": self._total("requeue", "requeued"),
            "in_flight_at_start": self._in_flight_at_start,
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

    def pending(self) -> int:
        """Completions that are reported, but neither drained nor booked otherwise."""
        counts = self.counts(0)
        booked = ("recorded", "filtered", "began_before", "continuations")
        lost = counts["lost"]
        return int(
            counts["completions"]
            - sum(counts[kind] for kind in booked)
            - sum(lost.values())
            + lost["missed_completion"]
        )

    def gaps(self) -> list[Span]:
        """The spans in which records found no room."""
        return self._gaps.read()

    def _total(self, section: str, name: str) -> int:
        now, then = self._probes.counters[section][name], self._counters[section][name]
        return int((now - then).sum())

    def _completed(self, name: str) -> int:
        return int((self._probes.completions[name] - self._completions[name]).sum())

    def _nested_runs(self) -> int:
        """Completions that the first program missed and the second one took."""
        runs = self._probes.completions["runs"] - self._completions["runs"]
        return int(runs[len(self._probes.counters) :].sum())

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
        is_used = self._probes.tallies["key"] != 0
        now, then = self._probes.tallies[is_used], self._tallies[is_used]
        for row, before in zip(now, then, strict=True):
            place = int(row["key"]) >> 8 & 0xFFFFFFFF, int(row["key"]) & 0xFF
            for theirs, ours in _TALLY_KINDS.items():
                for unit in ("", "_bytes"):
                    name = f"{theirs}{unit}"
                    yield place, {f"{ours}{unit}": int(row[name]) - int(before[name])}


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
