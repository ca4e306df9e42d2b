# SPDX-License-Identifier: GPL-2.0-only
"""Converts between base units and what people read and write: the only place that does."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from analyze.errors import IorecError

_INT64_MAX = 2**63 - 1
_SECOND_NS = 1_000_000_000
_DAY_NS = 24 * 3600 * _SECOND_NS
_NUMBER = r"[0-9]{1,30}(?:\.[0-9]{1,30})?(?:e[+-]?[0-9]{1,2})?"
_QUANTITY = re.compile(rf"({_NUMBER}) ?([^\W\d_]*)")
_TIME = re.compile(
    r"(?:([0-9]{4}-[0-9]{2}-[0-9]{2})[T ])?([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)(?:\.([0-9]{1,9}))?"
    r"(?: ?(Z|UTC|[+-][0-9]{2}:?[0-9]{2}))?"
)
_DURATION_UNITS_NS = {
    "": _SECOND_NS,
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
# As GNU's tools have them: K is 1024, and so is KiB, but KB is 1000. In lower case.
_PARSED_SIZE_UNITS = {"": 1, "b": 1} | {
    f"{letter}{rest}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for rest, base in (("", 1024), ("ib", 1024), ("b", 1000))
}
_PARSED_COUNT_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
DURATION_FORMS = "30s, 1m30s, 250us, or seconds"
MOMENT_FORMS = (
    "2s, 1m30s, or seconds from the start; -30s from the end; 15:16:10 or 2026-11-26T15:16:10Z"
)
SIZE_FORMS = "4096, 4k, 10MiB, 10MB, 1e6"
COUNT_FORMS = "1000, 10k, 1e6"
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
    """Nanoseconds of a duration such as `30s`, `1m30s` or `250us`; without a unit, of seconds."""
    hint = f"write numbers with ns, us, ms, s, m or h: {DURATION_FORMS}"
    parts = re.findall(rf"{_NUMBER} ?[^\W\d_]+ ?", text)
    if not parts or "".join(parts) != text:
        parts = [text]
    numbers = [
        _parse_quantity(part.strip(), "duration", _DURATION_UNITS_NS, hint) for part in parts
    ]
    return _to_int64(sum(numbers, Decimal()), text, "duration")


def parse_moment_ns(text: str, start_ns: int, stop_ns: int) -> int:
    """The time in ns since 1970 that a text means in a recording from `start_ns` to `stop_ns`.

    A duration counts from the start, a negative one from the end. Without a zone, times are UTC, as
    reports show them. One without a date is on the first day, or on the next one if only that is
    recorded.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        elapsed_ns = _elapsed_ns(text)
        return stop_ns - elapsed_ns if text.startswith("-") else start_ns + elapsed_ns
    day, time, fraction, zone = match.groups()
    first_day = f"{_EPOCH + timedelta(seconds=start_ns // _SECOND_NS):%Y-%m-%d}"
    written = f"{day or first_day}T{time}{(zone or 'Z').replace('UTC', 'Z')}"
    try:
        since_epoch = datetime.fromisoformat(written) - _EPOCH
    except (ValueError, OverflowError) as error:
        raise _nonsense(text, "time", str(error), f"write {MOMENT_FORMS}") from error
    whole_s = since_epoch // timedelta(seconds=1)
    time_ns = whole_s * _SECOND_NS + int((fraction or "").ljust(9, "0"))
    is_of_next_day = day is None and time_ns < start_ns and time_ns + _DAY_NS < stop_ns
    return time_ns + _DAY_NS * is_of_next_day


def parse_size_bytes(text: str) -> int:
    """Bytes of a size such as `4096`, `8M` or `1e6`; K and KiB are 1024 bytes, KB 1000."""
    hint = f"write a number, with K, M, G or T for powers of 1024, KB for 1000: {SIZE_FORMS}"
    number = _parse_quantity(text, "size", _PARSED_SIZE_UNITS, hint, ignore_case=True)
    return _to_int64(number, text, "size")


def parse_count(text: str) -> int:
    """A count of one or more, such as `1000`, `10k` or `1e6`; k is 1000."""
    hint = f"write a number of one or more, with k, M or G for powers of 1000: {COUNT_FORMS}"
    number = _parse_quantity(text, "count", _PARSED_COUNT_UNITS, hint, ignore_case=True)
    count = _to_int64(number, text, "count")
    if count != number or not count:
        raise _nonsense(text, "count", "it is not a whole number of one or more", hint)
    return count


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


def ratio(part: int, whole: int) -> float | None:
    """The fraction as format_percent takes it; None of nothing."""
    return part / whole if whole else None


def format_percent(fraction: float | None) -> str:
    """`12.3%` of 0.123; `-` if unknown."""
    return _UNKNOWN if fraction is None else f"{fraction * 100:.1f}%"


def format_time(time_ns: int) -> str:
    """`2026-11-21 20:32:47 UTC`."""
    return f"{_EPOCH + timedelta(seconds=time_ns // _SECOND_NS):%Y-%m-%d %H:%M:%S} UTC"


def format_clock(time_ns: int | None) -> str:
    """`20:32:47.123`, in UTC; `-` if unknown."""
    if time_ns is None:
        return _UNKNOWN
    seconds, rest_ns = divmod(time_ns, _SECOND_NS)
    return f"{_EPOCH + timedelta(seconds=seconds):%H:%M:%S}.{rest_ns // 1_000_000:03d}"


def format_rfc3339(time_ns: int) -> str:
    """`2026-11-21T20:32:47.123456789Z`, which loses nothing."""
    seconds, rest_ns = divmod(time_ns, _SECOND_NS)
    return f"{_EPOCH + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"


def fit_unit(value: float, units: Units) -> tuple[str, float]:
    """The name and size of the smallest unit in which three digits before the point suffice."""
    return next((unit for unit in units if abs(value) < 999.5 * unit[1]), units[-1])


def _elapsed_ns(text: str) -> int:
    """Nanoseconds without a sign; what is no duration either is no time at all."""
    try:
        return parse_duration_ns(text.removeprefix("-"))
    except IorecError as error:
        cause = error.message.rpartition(": ")[2]
        raise _nonsense(text, "time", cause, f"write {MOMENT_FORMS}") from error


def _parse_quantity(
    text: str, kind: str, units: Mapping[str, int], hint: str, *, ignore_case: bool = False
) -> Decimal:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise _nonsense(text, kind, "it is not a number of zero or more", hint)
    unit = match[2].lower() if ignore_case else match[2]
    if unit not in units:
        raise _nonsense(text, kind, f"{match[2]} is not a unit of it", hint)
    return Decimal(match[1]) * units[unit]


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
