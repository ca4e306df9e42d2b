# SPDX-License-Identifier: GPL-2.0-only
"""Writes metadata as JSON that the reader's own parser takes, whatever the machine is like."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin

from analyze import metadata as reader
from analyze.errors import IorecError
from analyze.typed_json import EpochNs, FieldError, SignedInt, field_types, parse_value

Metadata = dict[str, Any]

_MOST_LIST_BYTES = 64 << 10
_MOST_CLOCK_STEPS = 1000
_MOST_NOTES = 100
_MOST = 2**62  # in the range of a float, too
_NO_TIME = "1970-01-01T00:00:00Z"


def to_json(metadata: Metadata) -> bytes:
    """The metadata; what is too much for a reader, or wrong, is left out, and `notes` say so."""
    text = dump(metadata)
    if len(text) > reader.MAX_METADATA_BYTES:
        metadata = _smaller(metadata)
        text = dump(metadata)
    try:
        reader.parse_metadata(text)
    except IorecError as error:
        text = dump(_noted(_mended(metadata), error.message))
    return text


def dump(metadata: Metadata) -> bytes:
    """The metadata as they are."""
    return json.dumps(metadata, separators=(",", ":")).encode()


def _noted(metadata: Metadata, message: str) -> Metadata:
    moment = metadata["stopped_at"]
    note = {"what": "metadata", "message": message, "first": moment, "last": moment, "count": 1}
    return {**metadata, "notes": [*metadata.get("notes", []), note]}


def _smaller(metadata: Metadata) -> Metadata:
    """Without long lists, and if that is not enough, without the devices that had the fewest I/Os.

    Those are one device without a name in the ledger, so that its sums stay as they are.
    """
    workload, clock = metadata["workload"], metadata["clock"]
    smaller = _noted(
        {
            **metadata,
            "command": _beginning(metadata["command"]),
            "workload": workload and {**workload, "argv": _beginning(workload["argv"])},
            "filters": {
                name: _beginning(wanted) if isinstance(wanted, list) else wanted
                for name, wanted in metadata["filters"].items()
            },
            "clock": {**clock, "steps": clock["steps"][-_MOST_CLOCK_STEPS:]},
            "notes": metadata.get("notes", [])[:_MOST_NOTES],
        },
        "too much for one capture: long lists and the devices with the fewest I/Os are left out",
    )
    devices = _busiest_devices(metadata)
    kept = len(devices)
    while kept and len(dump(smaller)) > reader.MAX_METADATA_BYTES:
        kept //= 2
        smaller = _with_devices(smaller, set(devices[:kept]))
    return smaller


def _beginning(values: Sequence[Any]) -> list[Any]:
    kept: list[Any] = []
    room = _MOST_LIST_BYTES
    for value in values:
        room -= len(json.dumps(value))
        if room < 0:
            break
        kept.append(value)
    return kept


def _busiest_devices(metadata: Metadata) -> list[str]:
    ios: dict[str, int] = defaultdict(int)
    for device in metadata["devices"]:
        ios[device["name"]] = 0
    for name, groups in metadata["diskstats"].items():
        ios[name] += sum(group["ios"] for group in groups.values())
    for row in metadata["counts"]["devices"]:
        if row["device"] is not None:
            ios[row["device"]] += row["recorded"] + row["filtered"] + row["lost"]
    return sorted(ios, key=lambda name: -ios[name])


def _with_devices(metadata: Metadata, kept: set[str]) -> Metadata:
    counts = metadata["counts"]
    return {
        **metadata,
        "devices": [device for device in metadata["devices"] if device["name"] in kept],
        "diskstats": {name: ios for name, ios in metadata["diskstats"].items() if name in kept},
        "counts": {
            **counts,
            "devices": _summed(counts["devices"], ("layer", "device", "op"), kept),
            "events": _summed(counts.get("events", []), ("device", "op"), kept),
        },
    }


def _summed(
    rows: Iterable[Mapping[str, Any]], keys: tuple[str, ...], kept: set[str]
) -> list[dict[str, Any]]:
    """The rows of the kept devices, and one for all others together."""
    sums: dict[tuple[str | None, ...], dict[str, Any]] = {}
    for row in rows:
        device = row["device"] if row["device"] in kept else None
        place = tuple(device if key == "device" else row[key] for key in keys)
        total = sums.setdefault(place, dict(zip(keys, place, strict=True)))
        for column in row.keys() - keys:
            total[column] = total.get(column, 0) + row[column]
    return list(sums.values())


def _mended(metadata: Metadata) -> Metadata:
    """With a valid value in each field that the reader refuses."""
    mended: Metadata = _mend(reader.Metadata, metadata)
    if mended["stopped_at"] < mended["started_at"]:
        mended["stopped_at"] = mended["started_at"]
    return mended


def _mend(hint: Any, value: Any) -> Any:
    """A value that the reader takes as the type: entries of lists and objects that it refuses are
    left out, and numbers out of range are brought into it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if _is_read(hint, value):
        return value
    if origin is UnionType:
        return _mend(arguments[0], value) if isinstance(value, dict) else None
    if origin is tuple:
        entries = value if isinstance(value, list | tuple) else ()
        return [entry for entry in entries if _is_read(arguments[0], entry)]
    if origin is dict:
        named = value.items() if isinstance(value, dict) else ()
        return {name: entry for name, entry in named if _is_read(arguments[1], entry)}
    if isinstance(hint, type) and is_dataclass(hint):
        fields = value if isinstance(value, dict) else {}
        return fields | {name: _mend(t, fields.get(name)) for name, t in field_types(hint).items()}
    if hint is EpochNs:
        return _NO_TIME
    if hint is str or not isinstance(value, int | float) or value != value:
        return hint()
    smallest = -_MOST if hint is SignedInt else 0
    return hint(min(max(value, smallest), _MOST))


def _is_read(hint: Any, value: Any) -> bool:
    try:
        parse_value(hint, value, "")
    except FieldError:
        return False
    return True
