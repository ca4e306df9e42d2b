# SPDX-License-Identifier: GPL-2.0-only
"""Makes of rows what the recorder had of them: records of the kernel, and their names."""

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analyze.metadata import Metadata
from analyze.schema import SCHEMA
from analyze.typed_json import SignedInt
from iorec.kernel.layers import LAYER_NAMES
from iorec.kernel.layouts import NO_ISSUE, RECORD
from iorec.kernel.names import KernelNames
from iorec.store.named import MOST_NAMES_BYTES, UNKNOWN, Named, Submitter
from iorec.store.origin import Origin
from iorec.store.planes import MOST_RECORDS
from iorec.store.spool import Spool

_OPS = ("read", "write", "flush", "discard", "write_zeroes", "driver", "cache_flush")
_FLAGS = (
    *("failfast_dev", "failfast_transport", "failfast_driver", "sync", "meta", "prio", "nomerge"),
    *("idle", "integrity", "fua", "preflush", "rahead", "background", "nowait", "polled"),
    *("alloc_cache", "swap", "drv", "fs_private", "atomic"),
)
_CPUS = 1 << 12
_LONG_NAMES = ("comm", "cgroup", "file", "process", "cmdline")
_KNOWN_OF_SUBMITTERS = [name for name in Submitter._fields if name in SCHEMA.names]

ORIGIN = Origin(
    KernelNames(
        dict(enumerate(_OPS)),
        {8 + bit: name for bit, name in enumerate(_FLAGS)},
        dict.fromkeys(LAYER_NAMES, tuple(range(256))),
        is_preemptible=False,
    ),
    cpu_count=_CPUS,
    realtime_offset_ns=SignedInt(0),
)


class RowSpool(Spool):
    """A spool into which rows are written."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, ORIGIN)

    def write_rows(self, rows: pa.Table | pa.RecordBatch, metadata: Metadata) -> None:
        """Appends them in as many batches as it takes."""
        if isinstance(rows, pa.RecordBatch):
            rows = pa.Table.from_batches([rows])
        for batch in batches_of(rows):
            self.write(batch, metadata)


def batches_of(rows: pa.Table) -> Iterator[Named]:
    """The rows as records in batches that a spool takes, one at least; those in flight are last.

    Rows of requests that were issued must say how many bios they had.
    """
    is_done = pc.is_valid(rows["latency_ns"])
    finished, in_flight = rows.filter(is_done), rows.filter(pc.invert(is_done))
    if len(finished) or not len(in_flight):
        yield from _bounded(finished, is_in_flight=False)
    if len(in_flight):
        yield from _bounded(in_flight, is_in_flight=True)


def _bounded(rows: pa.Table, *, is_in_flight: bool) -> Iterator[Named]:
    texts = [rows[name].unique().cast(pa.large_string()) for name in _LONG_NAMES]
    size = sum(pc.sum(pc.binary_length(text)).as_py() or 0 for text in texts)
    if len(rows) > 1 and (len(rows) > MOST_RECORDS or size > MOST_NAMES_BYTES // 2):
        half = len(rows) // 2
        yield from _bounded(rows[:half], is_in_flight=is_in_flight)
        yield from _bounded(rows[half:], is_in_flight=is_in_flight)
    else:
        yield _named(rows, is_in_flight=is_in_flight)


def _named(rows: pa.Table, *, is_in_flight: bool) -> Named:
    columns = {name: _values(rows[name]) for name in rows.column_names}
    layers = [LAYER_NAMES.index(name) for name in columns["layer"]]
    sources = [layer * _CPUS + cpu for layer, cpu in zip(layers, columns["cpu"], strict=True)]
    who = [
        Submitter(**dict(zip(_KNOWN_OF_SUBMITTERS, values, strict=True)))
        for values in zip(*(columns[name] for name in _KNOWN_OF_SUBMITTERS), strict=True)
    ]
    numbers: dict[Submitter, int] = {UNKNOWN: 0}
    identities = [numbers.setdefault(one, len(numbers)) for one in who]
    devs: dict[str | None, int] = {None: 0}
    partitions: dict[Any, int] = {}
    disks: dict[int, tuple[str | None, str | None]] = {}
    records = np.zeros(len(rows), RECORD)
    places = zip(columns["device"], columns["partition"], strict=True)
    for number, (device, partition) in enumerate(places):
        dev = devs.setdefault(device, 7 << 20 | len(devs))
        partno = partitions.setdefault((device, partition), len(partitions)) if partition else 0
        records["dev"][number], records["partno"][number] = dev, partno
        disks[dev << 8 | partno] = device, partition
    above = [devs.setdefault(name, 7 << 20 | len(devs)) for name in columns["above"]]
    disks |= {dev << 8: (name, None) for name, dev in devs.items() if name is not None}
    records["start_ns"] = rows["time"].cast("int64").to_numpy()
    records["latency_ns"] = [value or 0 for value in columns["latency_ns"]]
    records["queue_ns"] = [NO_ISSUE if v is None else v for v in columns["queue_ns"]]
    records["sector"] = [2**64 - 1 if v is None else v // 512 for v in columns["offset"]]
    records["bytes"] = columns["bytes"]
    records["cmd_flags"] = [
        _OPS.index(op) | sum(1 << 8 + _FLAGS.index(flag) for flag in flags.split("|") if flag)
        for op, flags in zip(columns["op"], columns["flags"], strict=True)
    ]
    records["identity"] = identities
    bios = zip(layers, columns["bios"], above, strict=True)
    records["bio_count"] = [dev if layer else bio_count or 0 for layer, bio_count, dev in bios]
    records["source"] = sources
    records["error"] = [value or 0 for value in columns["errno"]]
    keys = zip(sources, identities, who, strict=True)
    submitters = {source << 32 | number: one for source, number, one in keys if number}
    return Named(records, submitters, disks, is_in_flight)


def _values(column: pa.ChunkedArray) -> list[Any]:
    kind = pa.int64() if pa.types.is_timestamp(column.type) else column.type
    return list(column.cast(kind).to_pylist())
