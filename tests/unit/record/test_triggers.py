# SPDX-License-Identifier: GPL-2.0-only
"""Conditions of the flight recorder: as typed, and what meets them."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analyze.errors import IorecError
from iorec.host.notes import Notes
from iorec.kernel.layouts import RECORD
from iorec.record.conditions import Conditions, in_flight_at_start
from iorec.record.triggers import Trigger, parse_trigger
from iorec.store.named import Named

CPUS = 2
_S = 1_000_000_000


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
        ("in_flight > inf", 12, "expected a number of I/Os, below 4,294,967,296"),
        ("in_flight > 1e99", 12, "expected a number of I/Os"),
        ("psi io some > 100%", 14, "expected a percentage, below 100"),
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
    found = in_flight_at_start(records, CPUS)
    for place, record in enumerate(records):
        start = record["start_ns"]
        same = records[records["dev"] == record["dev"]]
        begun = same["start_ns"] <= start
        going_on = same["start_ns"] + same["latency_ns"] > start
        assert found[place] == np.count_nonzero(begun & going_on)


def conditions(*texts: str) -> Conditions:
    origin: Any = SimpleNamespace(cpu_count=CPUS, names=SimpleNamespace(op=lambda _: "read"))
    devices: Any = SimpleNamespace(account_name=lambda dev: f"disk{dev}")
    triggers = [parse_trigger(text) for text in texts]
    return Conditions(triggers, origin, devices, Notes(), has_block_layer=True)


def ios(*starts_ns: int, latency_ns: int = 0, **fields: int) -> Any:
    records = np.zeros(len(starts_ns), RECORD)
    records["start_ns"] = starts_ns
    records["latency_ns"] = latency_ns
    for name, value in fields.items():
        records[name] = value
    return records


def test_an_io_in_two_layers_is_not_two_in_flight() -> None:
    both = np.concatenate([ios(5, latency_ns=9, source=0), ios(4, latency_ns=11, source=CPUS)])
    assert in_flight_at_start(both, CPUS).tolist() == [1, 1]
    found = conditions("in_flight > 1")
    assert found.met_by(Named(both, {}, {}), 0) is None
    assert found.met_now(both, 20) is None
    deep = Named(ios(5, 6, latency_ns=9), {}, {})
    fired = found.met_by(deep, 0)
    assert fired is not None
    assert fired.cause == "2 I/Os in flight; read on disk0 took 9 ns"


def test_an_io_that_stalls_fires_once_for_each_limit() -> None:
    found = conditions("stalled 1s", "stalled 3s")
    hung = ios(0)
    fired = [found.met_now(hung, second * _S) for second in range(7)]
    assert [met and (met.trigger, met.at_ns) for met in fired] == [
        None, ("stalled 1s", 1 * _S), None, ("stalled 3s", 3 * _S), None, None, None]  # fmt: skip


def test_an_io_that_reaches_its_driver_late_stalls_once() -> None:
    found = conditions("stalled 1s")
    assert found.met_now(ios(0, queue_ns=(1 << 64) - 1), 2 * _S) is not None
    assert found.met_now(ios(0, queue_ns=7), 3 * _S) is None


def test_a_stall_that_nobody_looked_at_fires_later_unless_a_capture_has_it() -> None:
    """Nobody looks during a pause; while a capture is written, it gets what hangs."""
    found = conditions("stalled 1s")
    found.leave_out(ios(0), 2 * _S)
    fired = found.met_now(ios(0, 3 * _S), 9 * _S)
    assert fired is not None
    assert fired.cause == "an I/O on disk0 has been in flight for 6.00 s"


def test_what_ended_in_the_pause_does_not_hide_what_ended_after() -> None:
    batch = Named(ios(100, 400, latency_ns=50), {}, {})
    fired = conditions("latency > 10ns").met_by(batch, 300)
    assert fired is not None
    assert fired.at_ns == 450
