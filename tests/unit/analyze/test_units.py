# SPDX-License-Identifier: GPL-2.0-only
"""Units: what people type is read exactly, what they read is short and never misleading."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.errors import IorecError
from analyze.units import (
    format_bytes,
    format_count,
    format_counted,
    format_duration,
    format_elapsed,
    format_percent,
    format_rate,
    format_rfc3339,
    format_short_count,
    format_short_duration,
    format_throughput,
    format_time,
    format_whole_seconds,
    parse_count,
    parse_duration_ns,
    parse_moment_ns,
    parse_size_bytes,
)
from tests.builders import SECOND_NS, START_NS

FACTORS = {"ns": 1, "µs": 1e3, "ms": 1e6, "s": 1e9}
NONSENSE = ["", " ", "-5s", "+5s", "nan", "inf", "5 5s", "s", "5parsecs", "٣s", "1_000s"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30", 30_000_000_000),
        ("1e-3s", 1_000_000),
        ("1m30s", 90_000_000_000),
        ("1h1m1s1ms1us1ns", 3_661_001_001_001),
        ("5 min 12 s", 312_000_000_000),
        ("250us", 250_000),
        ("250µs", 250_000),
        ("250μs", 250_000),
        ("1.5ms", 1_500_000),
        ("30s", 30_000_000_000),
        ("5m", 300_000_000_000),
        ("2h", 7_200_000_000_000),
        ("0s", 0),
        ("9223372036854775807ns", 2**63 - 1),
    ],
)
def test_a_duration_is_read_exactly(text: str, expected: int) -> None:
    assert parse_duration_ns(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *(("4096", 4096), ("512B", 512), ("1e6", 10**6)),
        *(("4k", 4096), ("8M", 8 << 20), ("1g", 1 << 30), ("1.5KiB", 1536), ("10MiB", 10 << 20)),
        *(("4kB", 4000), ("10MB", 10**7), ("1TB", 10**12)),
    ],
)
def test_a_size_is_read_as_gnu_tools_read_it(text: str, expected: int) -> None:
    assert parse_size_bytes(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("1", 1), ("1e6", 10**6), ("10k", 10**4)])
def test_a_count_is_read_in_powers_of_1000(text: str, expected: int) -> None:
    assert parse_count(text) == expected


STOP_NS = START_NS + 4 * 3600 * SECOND_NS  # 2026-11-22 00:32:47


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("2", 2),
        ("1m30s", 90),
        ("1.000000 s", 1),
        ("-30s", 4 * 3600 - 30),
        ("-0.5", 4 * 3600 - 0.5),
        ("20:32:48", 1),
        ("20:32:48.5", 1.5),
        ("20:33", 13),
        ("20:32:00", -47),
        ("00:32:00", 4 * 3600 - 47),
        ("00:33:00", -20 * 3600 + 13),
        ("2026-11-21T20:32:49Z", 2),
        ("2026-11-21 20:32:49 UTC", 2),
        ("2026-11-21T21:32:49+01:00", 2),
        ("2026-11-21T15:32:49-0500", 2),
        ("2026-11-20T20:32:47Z", -86400),
    ],
)
def test_a_time_counts_from_the_start_or_the_end_or_is_one_of_the_clock(
    text: str, expected_s: float
) -> None:
    assert parse_moment_ns(text, START_NS, STOP_NS) == START_NS + round(expected_s * SECOND_NS)


@given(st.integers(START_NS, STOP_NS))
def test_a_time_as_json_shows_it_is_read_exactly(time_ns: int) -> None:
    assert parse_moment_ns(format_rfc3339(time_ns), START_NS, STOP_NS) == time_ns


@pytest.mark.parametrize(
    "text", ["soon", "-soon", "25:00:00", "20:32:61", "2026-02-30T00:00:00Z", "20:3"]
)
def test_nonsense_is_not_a_time(text: str) -> None:
    with pytest.raises(IorecError, match=f"^'{text}' is not a time: ") as caught:
        parse_moment_ns(text, START_NS, STOP_NS)
    assert caught.value.exit_code == 2
    assert "15:16:10" in caught.value.hint


@pytest.mark.parametrize("text", [*NONSENSE, "0", "1.5", "1KiB", "9223372036854775808"])
def test_nonsense_is_not_a_count(text: str) -> None:
    with pytest.raises(IorecError) as caught:
        parse_count(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("text", [*NONSENSE, "30S", "5M", "1m30", "9223372036854775808ns"])
def test_nonsense_is_not_a_duration(text: str) -> None:
    with pytest.raises(IorecError) as caught:
        parse_duration_ns(text)
    assert caught.value.exit_code == 2
    assert caught.value.hint


@pytest.mark.parametrize("text", [*NONSENSE, "8MBit", "8Kib/s", "iB", "9223372036854775808", "9E"])
def test_nonsense_is_not_a_size(text: str) -> None:
    with pytest.raises(IorecError) as caught:
        parse_size_bytes(text)
    assert caught.value.exit_code == 2


@given(st.text(max_size=50))
def test_any_text_is_a_quantity_in_range_or_one_typed_error(text: str) -> None:
    for parse in (parse_duration_ns, parse_size_bytes, parse_count):
        try:
            assert 0 <= parse(text) < 2**63
        except IorecError as error:
            assert error.exit_code == 2


@pytest.mark.parametrize(
    ("duration_ns", "expected"),
    [
        (0, "0 ns"),
        (850, "850 ns"),
        (999.7, "1.00 µs"),
        (250_000, "250 µs"),
        (999_600, "1.00 ms"),
        (1_234_567, "1.23 ms"),
        (12_345_678_900, "12.3 s"),
        (59_960_000_000, "1 min 0 s"),
        (312_000_000_000, "5 min 12 s"),
        (7_500_000_000_000, "2 h 5 min"),
        (-1_000_000_000, "-1.00 s"),
        (None, "-"),
    ],
)
def test_a_duration_is_shown_with_three_digits(duration_ns: float | None, expected: str) -> None:
    assert format_duration(duration_ns) == expected


@pytest.mark.parametrize(
    ("size_bytes", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (4096, "4.0 KiB"),
        (117 << 20, "117 MiB"),
        (1023 << 20, "1.0 GiB"),
        (2**63, "8.0 EiB"),
        (10**22, "8,674 EiB"),
        (None, "-"),
    ],
)
def test_a_size_is_shown_in_powers_of_1024(size_bytes: int | None, expected: str) -> None:
    assert format_bytes(size_bytes) == expected


@given(st.integers(min_value=1, max_value=59_000_000_000))
def test_a_shown_duration_is_within_half_a_percent(duration_ns: int) -> None:
    number, unit = format_duration(duration_ns).split()
    assert math.isclose(float(number) * FACTORS[unit], duration_ns, rel_tol=0.00501)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_a_shown_size_takes_at_most_eight_characters(size_bytes: int) -> None:
    assert re.fullmatch(r"\d{1,3}(\.\d)? (B|[KMGTPE]iB)", format_bytes(size_bytes))


def test_counts_rates_and_shares_are_short() -> None:
    assert format_count(30018) == "30,018"
    assert format_rate(12345.6) == "12,346"
    assert format_rate(3.25) == "3.25"
    assert format_throughput(117 << 20) == "117 MiB/s"
    assert format_percent(0.1234) == "12.3%"
    assert [f(None) for f in (format_count, format_rate, format_throughput, format_percent)] == [
        "-"
    ] * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_short_count(950), "950"),
        (format_short_count(1200), "1.2k"),
        (format_short_count(999_600), "1M"),
        (format_short_count(3_454_321), "3.45M"),
        (format_short_duration(0), "0 ns"),
        (format_short_duration(2_000_000), "2 ms"),
        (format_short_duration(1_230_000), "1.23 ms"),
        (format_short_duration(100e9), "100 s"),
        (format_whole_seconds(0), "0 s"),
        (format_whole_seconds(90), "1 min 30 s"),
        (format_whole_seconds(93_600), "1 d 2 h"),
    ],
)
def test_labels_of_an_axis_have_no_zeros_at_the_end(text: str, expected: str) -> None:
    assert text == expected


@pytest.mark.parametrize(
    ("count", "noun", "expected"),
    [
        (0, "I/O", "0 I/Os"),
        (1, "I/O", "1 I/O"),
        (1, "cache flush", "1 cache flush"),
        (30_018, "cache flush", "30,018 cache flushes"),
        (None, "row", "- rows"),
    ],
)
def test_one_is_singular(count: int | None, noun: str, expected: str) -> None:
    assert format_counted(count, noun) == expected


def test_times_are_utc() -> None:
    time_ns = 1_795_293_167_123_456_789
    assert format_time(time_ns) == "2026-11-21 20:32:47 UTC"
    assert format_rfc3339(time_ns) == "2026-11-21T20:32:47.123456789Z"
    assert format_elapsed(time_ns, time_ns - 1_234_567_000) == "1.234567 s"


def test_the_first_and_last_time_that_fit_can_be_shown() -> None:
    assert format_rfc3339(2**63 - 1) == "2262-04-11T23:47:16.854775807Z"
    assert format_rfc3339(-(2**63)) == "1677-09-21T00:12:43.145224192Z"
