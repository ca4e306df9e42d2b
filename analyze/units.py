# SPDX-License-Identifier: GPL-2.0-only
"""Converts between base units and what people read and write: the only place that does."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from analyze.errors import IorecError

_INT64_MAX = 2**63 - 1
_SECOND_NS = 1_000_000_000
_QUANTITY = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?) ?([^\W\d_]*)")
_DURATION_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "\N{MICRO SIGN}s": 1_000,
    "\N{GREEK SMALL LETTER MU}s": 1_000,
    "ms": 1_000_000,
    "s": _SECOND_NS,
    "m": 60 * _SECOND_NS,
    "min": 60 * _SECOND_NS,
    "h": 3600 * _SECOND_NS,
}
_SIZE_UNITS = re.compile(r"([KMGT])(?:iB)?|B?", re.IGNORECASE)
_SIZE_PREFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNKNOWN = "-"


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a duration such as `30s`, `5m` or `250us`; the unit is required."""
    hint = "write a number and a unit of ns, us, ms, s, m or h: 250us, 30s, 5m"
    number, unit = _parse_quantity(text, "duration", hint)
    if unit not in _DURATION_UNITS_NS:
        cause = f"{unit} is not a unit of time" if unit else "it has no unit"
        raise _nonsense(text, "duration", cause, hint)
    return _to_int64(number * _DURATION_UNITS_NS[unit], text, "duration")


def parse_size_bytes(text: str) -> int:
    """Bytes of a size such as `4096`, `8M` or `1GiB`; K, M, G and T are powers of 1024."""
    hint = "write a number of bytes, or one with K, M, G or T: 4096, 512K, 8M, 1G"
    number, unit = _parse_quantity(text, "size", hint)
    match = _SIZE_UNITS.fullmatch(unit)
    if match is None:
        raise _nonsense(text, "size", f"{unit} is not a unit of size", hint)
    power = "KMGT".index(match[1].upper()) + 1 if match[1] else 0
    return _to_int64(number * 1024**power, text, "size")


def format_bytes(size_bytes: float | None) -> str:
    """`0 B`, `512 B`, `4.0 KiB`, `117 MiB`; `-` if unknown."""
    if size_bytes is None:
        return _UNKNOWN
    scaled, power = float(size_bytes), 0
    while abs(scaled) >= 999.5 and power < len(_SIZE_PREFIXES) - 1:
        scaled, power = scaled / 1024, power + 1
    decimals = 0 if power == 0 or abs(scaled) >= 99.95 else 1
    return f"{scaled:,.{decimals}f} {_SIZE_PREFIXES[power]}B"


def format_duration(duration_ns: float | None) -> str:
    """`850 ns`, `250 µs`, `1.23 ms`, `12.3 s`, `5 min 12 s`, `2 h 5 min`; `-` if unknown."""
    if duration_ns is None:
        return _UNKNOWN
    if abs(duration_ns) < 999.5:
        return f"{duration_ns:.0f} ns"
    for unit, unit_ns in (("µs", 1_000), ("ms", 1_000_000)):
        if abs(duration_ns) < 999.5 * unit_ns:
            return f"{_three_digits(duration_ns / unit_ns)} {unit}"
    seconds = duration_ns / _SECOND_NS
    if abs(seconds) < 59.95:
        return f"{_three_digits(seconds)} s"
    minutes, rest_s = divmod(round(abs(seconds)), 60)
    sign = "-" if seconds < 0 else ""
    if minutes < 60:
        return f"{sign}{minutes} min {rest_s} s"
    return f"{sign}{minutes // 60:,} h {minutes % 60} min"


def format_elapsed(time_ns: int | None, since_ns: int) -> str:
    """The seconds from one time to another, to the microsecond: `12.345678 s`; `-` if unknown."""
    return _UNKNOWN if time_ns is None else f"{(time_ns - since_ns) / _SECOND_NS:,.6f} s"


def format_count(count: int | None) -> str:
    """`30,018`; `-` if unknown."""
    return _UNKNOWN if count is None else f"{count:,}"


def format_counted(count: int | None, noun: str) -> str:
    """`1 I/O`, `30,018 I/Os`, `2 cache flushes`: of a regular noun in the singular."""
    ending = "" if count == 1 else "es" if noun.endswith("sh") else "s"
    return f"{format_count(count)} {noun}{ending}"


def format_rate(per_second: float | None) -> str:
    """`12,345`, `3.25`; `-` if unknown."""
    return _UNKNOWN if per_second is None else _three_digits(per_second)


def format_throughput(bytes_per_second: float | None) -> str:
    """`117 MiB/s`; `-` if unknown."""
    return _UNKNOWN if bytes_per_second is None else f"{format_bytes(bytes_per_second)}/s"


def format_percent(fraction: float | None) -> str:
    """`12.3%` of 0.123; `-` if unknown."""
    return _UNKNOWN if fraction is None else f"{fraction * 100:.1f}%"


def format_time(time_ns: int) -> str:
    """`2026-11-21 20:32:47 UTC`."""
    return f"{_EPOCH + timedelta(seconds=time_ns // _SECOND_NS):%Y-%m-%d %H:%M:%S} UTC"


def format_rfc3339(time_ns: int) -> str:
    """`2026-11-21T20:32:47.123456789Z`, which loses nothing."""
    seconds, rest_ns = divmod(time_ns, _SECOND_NS)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"


def _parse_quantity(text: str, kind: str, hint: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise _nonsense(text, kind, "it is not a number of zero or more", hint)
    return Decimal(match[1]), match[2]


def _to_int64(number: Decimal, text: str, kind: str) -> int:
    if number > _INT64_MAX:
        raise _nonsense(text, kind, "it is too large", "give a smaller one")
    return int(number)


def _nonsense(text: str, kind: str, cause: str, hint: str) -> IorecError:
    return IorecError(f"{text[:40]!r} is not a {kind}: {cause}", hint, exit_code=2)


def _three_digits(value: float) -> str:
    decimals = 0 if abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:,.{decimals}f}"
