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
Units = tuple[tuple[str, float], ...]  # ascending

_COUNT_UNITS: Units = (("", 1), ("k", 1e3), ("M", 1e6), ("G", 1e9))
SECOND_UNITS: Units = (("ns", 1), ("µs", 1e3), ("ms", 1e6), ("s", 1e9))
SIZE_UNITS: Units = tuple(
    (name, 1024.0**power)
    for power, name in enumerate(("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
)
_DAY_UNITS_S = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
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
    name, size = fit_unit(size_bytes, SIZE_UNITS)
    scaled = size_bytes / size
    decimals = 0 if size == 1 or abs(scaled) >= 99.95 else 1
    return f"{scaled:,.{decimals}f} {name}"


def format_duration(duration_ns: float | None) -> str:
    """`850 ns`, `250 µs`, `1.23 ms`, `12.3 s`, `5 min 12 s`, `2 h 5 min`; `-` if unknown."""
    if duration_ns is None:
        return _UNKNOWN
    name, size_ns = fit_unit(duration_ns, SECOND_UNITS)
    if size_ns == 1:
        return f"{duration_ns:.0f} ns"
    seconds = duration_ns / _SECOND_NS
    if abs(seconds) < 59.95:
        return f"{_three_digits(duration_ns / size_ns)} {name}"
    minutes, rest_s = divmod(round(abs(seconds)), 60)
    sign = "-" if seconds < 0 else ""
    if minutes < 60:
        return f"{sign}{minutes} min {rest_s} s"
    return f"{sign}{minutes // 60:,} h {minutes % 60} min"


def format_short_duration(duration_ns: float) -> str:
    """`850 ns`, `2 ms`, `1.5 s`, `100 s`, for an axis."""
    name, size_ns = fit_unit(duration_ns, SECOND_UNITS)
    return f"{_short(duration_ns / size_ns)} {name}"


def format_whole_seconds(seconds: int) -> str:
    """`0 s`, `45 s`, `1 min 30 s`, `2 h`: exact, for an axis."""
    parts = []
    for name, size_s in _DAY_UNITS_S:
        count, seconds = divmod(seconds, size_s)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts) or "0 s"


def format_elapsed(time_ns: int | None, since_ns: int) -> str:
    """The seconds from one time to another, to the microsecond: `12.345678 s`; `-` if unknown."""
    return _UNKNOWN if time_ns is None else f"{(time_ns - since_ns) / _SECOND_NS:,.6f} s"


def format_count(count: int | None) -> str:
    """`30,018`; `-` if unknown."""
    return _UNKNOWN if count is None else f"{count:,}"


def format_short_count(count: float) -> str:
    """`950`, `1.2k`, `3.45M`."""
    name, size = fit_unit(count, _COUNT_UNITS)
    return f"{_short(count / size)}{name}"


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


def fit_unit(value: float, units: Units) -> tuple[str, float]:
    """The name and size of the smallest unit in which three digits before the point suffice."""
    return next((unit for unit in units if abs(value) < 999.5 * unit[1]), units[-1])


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


def _short(value: float) -> str:
    """Three digits at most, without zeros at the end."""
    return f"{float(f'{value:.3g}'):g}"
