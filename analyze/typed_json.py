# SPDX-License-Identifier: GPL-2.0-only
"""Frozen dataclasses as JSON: written, and read from strangers with every field's type checked."""

import functools
import json
import re
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from analyze.units import format_rfc3339

T = TypeVar("T")

# Of a dataclass's field: the key is there only if there is something to say.
LEFT_OUT_IF_NONE = {"left_out_if_none": True}

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_INT64_MAX = 2**63 - 1
_KIND_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a string",
    int: "an integer",
    bool: "true or false",
}


class EpochNs(int):
    """Nanoseconds since 1970 in UTC; an RFC 3339 time in the JSON."""


class SignedInt(int):
    """An integer that may be negative; any other one must not."""


class FieldError(ValueError):
    """Says which field is wrong, and how."""


def dump_object(value: Any, kept: dict[str, tuple[Any, str]] | None = None) -> bytes:
    """The dataclass as compact JSON that `parse_object` takes, its fields in their order.

    Who writes one after the other passes the same `kept`, at first empty: the text of a field that
    is the very same object as the time before is taken from there.
    """
    kept = {} if kept is None else kept
    for name, field in json_value(value).items():
        if name not in kept or kept[name][0] is not field:
            kept[name] = field, _dump(field)
    texts = ",".join([f'"{name}":{text}' for name, (_, text) in kept.items()])
    return f"{{{texts}}}".encode()


def _dump(value: Any) -> str:
    # Looking for circles, which frozen dataclasses cannot have, would take a fifth more time.
    return json.dumps(value, default=json_value, check_circular=False, separators=(",", ":"))


def json_value(value: Any) -> Any:
    """What stands in JSON for a dataclass or path: the `default` of json.dumps.

    No copies are made of what json.dumps writes by itself: of thousands of devices they would take
    longer than the text.
    """
    if isinstance(value, Path):
        return str(value)
    written = vars(value)
    for name in rare_fields(value.__class__):
        if written[name] is None:
            written = {key: field for key, field in written.items() if key != name}
    times = _time_fields(value.__class__)
    if not times:
        return written
    return written | {n: format_rfc3339(written[n]) for n in times if written[n] is not None}


@functools.cache
def rare_fields(cls: type) -> list[str]:
    """Those that are left out if they are None."""
    return [field.name for field in fields(cls) if field.metadata.get("left_out_if_none")]


@functools.cache
def _time_fields(cls: type) -> list[str]:
    """Those of EpochNs, or of EpochNs | None."""
    hints = field_types(cls).items()
    return [name for name, hint in hints if EpochNs in (hint, *typing.get_args(hint))]


def parse_object(cls: type[T], value: dict[str, Any], path: str = "") -> T:
    """`value` as the dataclass `cls`, every field checked against its annotation.

    Fields that the dataclass does not have are left out; a missing one that has no default raises
    FieldError.
    """
    hints = field_types(cls)  # type: ignore[arg-type]
    optional = {
        field.name
        for field in fields(cls)  # type: ignore[arg-type]
        if field.default is not MISSING or field.default_factory is not MISSING
    }
    missing = [name for name in hints if name not in value and name not in optional]
    if missing:
        raise FieldError(f"{_join(path, missing[0])} is missing")
    return cls(
        **{
            name: parse_value(hint, value[name], _join(path, name))
            for name, hint in hints.items()
            if name in value
        }
    )


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """The annotations of a dataclass."""
    return typing.get_type_hints(cls)


def parse_value(hint: Any, value: Any, path: str) -> Any:
    """`value` as the annotated type `hint`, checked through and through."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return None if value is None else parse_value(arguments[0], value, path)
    if isinstance(hint, type) and is_dataclass(hint):
        return parse_object(hint, _checked(value, dict, path), path)
    if origin is tuple:
        items = _checked(value, list, path)
        return tuple(
            parse_value(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(items)
        )
    if origin is dict:
        entries = _checked(value, dict, path)
        return {
            _parse_key(arguments[0], key, path): parse_value(arguments[1], item, _join(path, key))
            for key, item in entries.items()
        }
    if hint is EpochNs:
        return _parse_time(_checked(value, str, path), path)
    if hint is float:
        return _parse_float(value, path)
    if hint in (int, SignedInt):
        number = _checked(value, int, path)
        if number > _INT64_MAX or number < (0 if hint is int else -_INT64_MAX):
            raise FieldError(f"{path} is out of range")
        return number
    return _checked(value, hint, path)


def _parse_key(hint: type, key: str, path: str) -> Any:
    """JSON has text only."""
    if hint is str:
        return key
    if not re.fullmatch(r"\d{1,18}", key, re.ASCII):
        raise FieldError(f"{path} has a key that is no number")
    return int(key)


def _checked(value: Any, kind: type, path: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise FieldError(f"{path} is not {_KIND_NAMES[kind]}")
    return value


def _parse_float(value: Any, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FieldError(f"{path} is not a number")
    if not 0 <= value <= _INT64_MAX:
        raise FieldError(f"{path} is out of range")
    return float(value)


def _parse_time(text: str, path: str) -> EpochNs:
    match = _RFC3339.fullmatch(text)
    try:
        whole = datetime.fromisoformat(match[1]).replace(tzinfo=UTC) if match else None
    except ValueError:
        whole = None
    if match is None or whole is None:
        raise FieldError(f"{path} is not a UTC time like 2026-11-21T20:32:47Z")
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()
    time_ns = int(seconds) * 10**9 + int((match[2] or "").ljust(9, "0"))
    if abs(time_ns) > _INT64_MAX:
        raise FieldError(f"{path} is out of range")
    return EpochNs(time_ns)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
