# SPDX-License-Identifier: GPL-2.0-only
"""What the flight recorder keeps, without a kernel."""

import time
import tracemalloc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from analyze.metadata import ClockReading
from iorec.host.notes import Notes
from iorec.kernel.layouts import GAP, RECORD
from iorec.record import flight
from iorec.record.flight import Flight
from iorec.record.gaps import Newest
from iorec.record.ledger import Snapshot
from iorec.record.segment import Start
from iorec.record.settings import FlightPlan, Limits
from iorec.record.triggers import parse_trigger
from iorec.store.named import Named, Submitter

_DISKS, _CPUS, _LANES, _FIELDS = 100, 64, 6, 16
_NOTHING = np.empty(0, RECORD)


def start(second: int) -> Start:
    """Counters of a machine with many disks and CPUs."""
    tallies = {disk << 32: [disk, *range(second, second + _FIELDS - 1)] for disk in range(_DISKS)}
    newest = Newest(np.zeros((_LANES, _CPUS), np.uint64), np.zeros((_LANES, _CPUS), GAP))
    snapshot = Snapshot(_CPUS, [[second] * _FIELDS] * _LANES, tallies, {}, newest)
    clock = ClockReading(second * 1_000_000_000, 0)
    return Start(clock, snapshot, {}, ({}, {}), {}, 0)


def recorder(
    window_s: int, max_size_bytes: int | None = None, trigger: str | None = None
) -> Flight:
    settings = SimpleNamespace(limits=Limits(max_size_bytes=max_size_bytes), has_block_layer=True)
    paths = SimpleNamespace(notes=Notes())
    prepared: Any = SimpleNamespace(paths=paths, devices=None, settings=settings)
    nothing: Any = None
    triggers = (parse_trigger(trigger),) if trigger else ()
    plan = FlightPlan(window_s * 10**9, 0, triggers, 1, 0)
    origin: Any = SimpleNamespace(cpu_count=1)
    return Flight(plan, prepared, nothing, origin, nothing)


def test_hours_without_an_io_take_no_more_memory_than_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flight, "_MOST_BYTES", 64 << 10)
    found = recorder(3600)
    for second in range(500):
        found.mark(start(second), _NOTHING, _NOTHING, lambda _: [], lambda: None)
    packed = [kept.mark.packed for kept in found._seconds]
    assert 5 < len(packed) < 500
    assert sum(map(len, packed)) <= 64 << 10
    assert max(map(len, packed)) < 4096  # tens of KiB as they are
    assert found._seconds[-1].mark.unpack().counters.tallies == start(499).counters.tallies


def test_processes_that_come_and_go_take_no_more_memory_than_is_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each with names of its own: what they take is counted, and what is kept is what came."""
    monkeypatch.setattr(flight, "_MOST_BYTES", 1 << 20)
    found = recorder(3600)

    def run(second: int) -> Named:
        found.mark(start(second), _NOTHING, _NOTHING, lambda _: [], lambda: None)
        dice = np.random.default_rng(second)
        who = {key: Submitter(pid=key, cmdline=dice.bytes(100).hex()) for key in range(200)}
        batch = Named(np.zeros(200, RECORD), who, {0: ("sda", None)})
        found.take(batch, {})
        return batch

    last = run(0)
    tracemalloc.start()
    for second in range(1, 200):
        last = run(second)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 5 < len(found._seconds) < 100
    assert kept < 1.2 * (1 << 20)
    again = found._seconds[-1].batches[0].unpack()
    assert (again.submitters, again.disks) == (last.submitters, last.disks)
    assert again.records.tobytes() == last.records.tobytes()


def test_what_came_before_takes_no_more_than_half_of_a_capture() -> None:
    found = recorder(3600, max_size_bytes=64 << 10)
    for second in range(100):
        found.mark(start(second), _NOTHING, _NOTHING, lambda _: [], lambda: None)
    assert sum(kept.size_bytes for kept in found._seconds) <= 32 << 10
    assert len(found._seconds) > 5


def test_an_idle_second_is_no_reason_to_read_all_counters() -> None:
    found = recorder(60)
    assert found.wants_mark(is_idle=True)  # of the beginning
    found.mark(start(time.monotonic_ns() // 1_000_000_000), _NOTHING, _NOTHING, list, lambda: None)
    assert not found.wants_mark(is_idle=True)
    assert found.wants_mark(is_idle=False)
    found.ask()
    assert found.wants_mark(is_idle=True)
    found._fired = None
    found._seconds[-1].mark = found._seconds[-1].mark._replace(at_ns=0)
    assert found.wants_mark(is_idle=True)  # of more than ten seconds


def test_pressure_is_looked_at_while_no_io_ends() -> None:
    found = recorder(60, trigger="psi io some > 40%")
    found.mark(start(time.monotonic_ns() // 1_000_000_000), _NOTHING, _NOTHING, list, lambda: None)
    assert found.wants_mark(is_idle=True)
