# SPDX-License-Identifier: GPL-2.0-only
"""Writes metadata as JSON that the reader's own parser takes, whatever the machine is like."""

import json
from collections import Counter
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar

from analyze.errors import IorecError
from analyze.ledgers import all_ledgers
from analyze.metadata import (
    MAX_METADATA_BYTES,
    DeviceCounts,
    DeviceEvents,
    Metadata,
    Note,
    parse_metadata,
)
from analyze.typed_json import EpochNs, SignedInt, dump_object
from iorec.store.frames import decompress

_T = TypeVar("_T")
_Row = TypeVar("_Row", DeviceCounts, DeviceEvents)

_MOST_LIST_BYTES = 64 << 10
_MOST_CLOCK_STEPS = 1000
_MOST_NOTES = 100
_MOST = 2**62  # in the range of a float, too


def unpack_json(packed: bytes) -> bytes:
    """What was packed with zstd, as `checked_json` gives it."""
    return checked_json(decompress(packed, MAX_METADATA_BYTES))


def checked_json(text: bytes) -> bytes:
    """The same if it is the JSON of an object, and not too much; else ValueError."""
    if len(text) > MAX_METADATA_BYTES or not isinstance(json.loads(text), dict):
        raise ValueError
    return text


def to_json(metadata: Metadata) -> bytes:
    """The metadata; what is too much for a reader, or wrong, is left out, and `notes` say so."""
    text = dump_object(metadata)
    if len(text) > MAX_METADATA_BYTES:
        metadata = _smaller(metadata)
        text = dump_object(metadata)
    try:
        parse_metadata(text)
    except IorecError as error:
        mended: Metadata = _mended(metadata)
        mended = replace(mended, stopped_at=max(mended.started_at, mended.stopped_at))
        text = dump_object(_noted(mended, error.message))
    return text


def _noted(metadata: Metadata, message: str) -> Metadata:
    moment = metadata.stopped_at
    note = Note("metadata", message, first=moment, last=moment, count=1)
    return replace(metadata, notes=(*metadata.notes, note))


def _smaller(metadata: Metadata) -> Metadata:
    """Without long lists, and if that is not enough, without the devices that had the fewest I/Os.

    Those are one device without a name in the ledger, so that its sums stay as they are.
    """
    workload, clock = metadata.workload, metadata.clock
    lists: dict[str, Any] = {
        name: _beginning(wanted)
        for name, wanted in vars(metadata.filters).items()
        if isinstance(wanted, tuple)
    }
    smaller = _noted(
        replace(
            metadata,
            command=_beginning(metadata.command),
            workload=workload and replace(workload, argv=_beginning(workload.argv)),
            filters=replace(metadata.filters, **lists),
            clock=clock and replace(clock, steps=clock.steps[-_MOST_CLOCK_STEPS:]),
            notes=metadata.notes[:_MOST_NOTES],
        ),
        "too much for one capture: long lists and the devices with the fewest I/Os are left out",
    )
    devices = _busiest_devices(metadata)
    kept = len(devices)
    while kept and len(dump_object(smaller)) > MAX_METADATA_BYTES:
        kept //= 2
        smaller = _with_devices(smaller, set(devices[:kept]))
    return smaller


def _beginning(values: tuple[_T, ...]) -> tuple[_T, ...]:
    room = _MOST_LIST_BYTES
    for number, value in enumerate(values):
        room -= len(json.dumps(value))
        if room < 0:
            return values[:number]
    return values


def _busiest_devices(metadata: Metadata) -> list[str]:
    ios = Counter({device.name: 0 for device in metadata.devices})
    for name, groups in metadata.diskstats.items():
        ios[name] += sum(group.ios for group in groups.values())
    for row in all_ledgers(metadata):
        if row.device is not None:
            ios[row.device] += row.recorded + row.filtered + row.lost
    return [name for name, _ in ios.most_common()]


def _with_devices(metadata: Metadata, kept: set[str]) -> Metadata:
    counts = metadata.counts
    return replace(
        metadata,
        devices=tuple(device for device in metadata.devices if device.name in kept),
        diskstats={name: ios for name, ios in metadata.diskstats.items() if name in kept},
        counts=counts
        and replace(
            counts,
            devices=_summed(counts.devices, ("layer", "device", "op"), kept),
            events=_summed(counts.events, ("device", "op"), kept),
        ),
    )


def _summed(rows: tuple[_Row, ...], keys: tuple[str, ...], kept: set[str]) -> tuple[_Row, ...]:
    """The rows of the kept devices, and one for all others together."""
    sums: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for row in rows:
        values = vars(row) | {"device": row.device if row.device in kept else None}
        total = sums.setdefault(tuple(map(values.get, keys)), values)
        if total is not values:
            total |= {name: _added(total[name], values[name]) for name in values.keys() - keys}
    return tuple(type(rows[0])(**values) for values in sums.values())


def _added(a: int | None, b: int | None) -> int | None:
    """None if one is not known."""
    return None if a is None or b is None else a + b


def _mended(value: Any) -> Any:
    """A value that the reader takes: entries of lists and objects that it refuses are left out,
    and numbers out of range are brought into it."""
    if _is_read(value):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{name: _mended(field) for name, field in vars(value).items()})
    if isinstance(value, tuple):
        return tuple(filter(_is_read, value))
    if isinstance(value, dict):
        return {name: entry for name, entry in value.items() if _is_read(entry)}
    # In this order NaN becomes the smallest.
    return type(value)(min(max(_smallest(value), value), _MOST))


def _is_read(value: Any) -> bool:
    if isinstance(value, int | float):
        return bool(_smallest(value) <= value <= _MOST)
    if is_dataclass(value):
        return all(map(_is_read, vars(value).values()))
    if isinstance(value, tuple):
        return all(map(_is_read, value))
    return not isinstance(value, dict) or all(map(_is_read, value.values()))


def _smallest(number: float) -> int:
    return -_MOST if isinstance(number, EpochNs | SignedInt) else 0
