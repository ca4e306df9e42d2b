# SPDX-License-Identifier: GPL-2.0-only
"""Conditions of the flight recorder: as typed, and on records."""

import numpy as np
import pytest

from analyze.errors import IorecError
from iorec.kernel.layouts import RECORD
from iorec.record.flight import in_flight_at_start
from iorec.record.triggers import Trigger, parse_trigger


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("latency > 100ms", "latency", 100_000_000),
        (" latency>1m30s ", "latency", 90_000_000_000),
        ("latency > 0.5", "latency", 500_000_000),
        ("errno", "errno", 0),
        ("stalled 5s", "stalled", 5_000_000_000),
        ("in_flight > 64", "in_flight", 64),
        ("psi io some > 40%", "psi some", 0.4),
        ("psi io full>2.5 %", "psi full", 0.025),
    ],
)
def test_a_condition_is_read_as_it_is_meant(text: str, kind: str, limit: float) -> None:
    found = parse_trigger(text)
    assert found == Trigger(" ".join(text.split()), kind, found.limit)
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", 0, "expected latency or errno"),
        ("latncy > 1s", 0, "expected latency or errno"),
        ("latency 1s", 8, "expected >"),
        ("latency >> 1s", 9, "expected a time"),
        ("latency > 1s or errno", 10, "expected a time"),
        ("latency >", 9, "expected a time"),
        ("errno > 5", 6, "expected nothing more"),
        ("stalled soon", 8, "expected a time"),
        ("in_flight > many", 12, "expected a number of I/Os"),
        ("in_flight > 3x", 12, "expected a number of I/Os"),
        ("psi memory some > 1%", 4, "expected io"),
        ("psi io some > 40", 16, "expected %"),
        ("psi io most > 40%", 7, "expected some or full"),
        ("latency > \x1b[31m", 10, "expected a time"),
    ],
)
def test_the_error_shows_the_place(text: str, place: int, expected: str) -> None:
    with pytest.raises(IorecError) as caught:
        parse_trigger(text)
    assert expected in caught.value.message
    assert caught.value.place == (text, place)
    assert caught.value.exit_code == 2


def test_what_is_in_flight_is_counted_on_each_device() -> None:
    dice = np.random.default_rng(7)
    records = np.zeros(500, RECORD)
    records["start_ns"] = dice.integers(1_000, 5_000, 500)
    records["latency_ns"] = dice.integers(1, 300, 500)
    records["dev"] = dice.integers(0, 3, 500)
    found = in_flight_at_start(records)
    for place, record in enumerate(records):
        start = record["start_ns"]
        same = records[records["dev"] == record["dev"]]
        begun = same["start_ns"] <= start
        going_on = same["start_ns"] + same["latency_ns"] > start
        assert found[place] == np.count_nonzero(begun & going_on)
