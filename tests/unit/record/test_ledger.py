# SPDX-License-Identifier: GPL-2.0-only
"""The ledger of counters that are set by hand: where each completion goes."""

from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from analyze.metadata import Counts, DeviceCounts, DeviceEvents, Gap, LayerCounts
from analyze.schema import LOSS_CAUSES
from iorec.kernel.layouts import GAP, LANE, RECORD, TALLY
from iorec.kernel.names import OP_CACHE_FLUSH, KernelNames
from iorec.kernel.plan import KernelFilter, Plan
from iorec.record.gaps import Newest
from iorec.record.ledger import Ledger, Snapshot, diskstats_group, take_snapshot, without_pending

PLAN = Plan(KernelFilter(), ("request", "bio"), 1 << 16, 8, is_preemptible=True)
CPUS = 3
READ, WRITE, FLUSH, DISCARD, DRIVER = 0, 1, 2, 3, 34
NAMES = KernelNames(
    {READ: "read", WRITE: "write", FLUSH: "flush", DISCARD: "discard", DRIVER: "driver"}
    | {OP_CACHE_FLUSH: "cache_flush"},
    flags={},
    errnos={},
    is_preemptible=True,
)
LOOP0, SDA = 7 << 20, 8 << 20


class Disks:
    def account_name(self, dev: int) -> str | None:
        return {LOOP0: "loop0", SDA: "sda"}[dev]


class NoGaps:
    def read(self, _: Newest) -> tuple[Gap, ...]:
        return ()


def snapshot(
    counters: Mapping[str, Mapping[str, int]] | None = None,
    tallies: Mapping[tuple[int, int, int], Mapping[str, int]] | None = None,
    missed: Mapping[str, int] | None = None,
) -> Snapshot:
    """What each program has counted, in its last copy on the last CPU; tallies by their place."""
    lanes = np.zeros((max(lanes.stop for lanes in PLAN.lanes.values()), CPUS), LANE)
    for program, counted in (counters or {}).items():
        for name, count in counted.items():
            lanes[PLAN.lanes[program][-1], CPUS - 1][name] = count
    rows = np.zeros(8, TALLY)
    for row, ((layer, dev, op), counted) in zip(rows, (tallies or {}).items(), strict=False):
        row["key"] = 1 << 63 | layer << 40 | dev << 8 | op
        for name, count in counted.items():
            row[name] = count
    probes = SimpleNamespace(
        cpu_count=CPUS,
        lanes=lanes,
        tallies=rows,
        gaps=np.zeros((*lanes.shape, 1), GAP),
        missed_runs=lambda: dict(missed or {}),
    )
    return take_snapshot(probes)  # type: ignore[arg-type]


def ledger(
    start: Snapshot | None = None, layers: tuple[str, ...] = ("request",), **carried: int
) -> Ledger:
    return Ledger(
        start or snapshot(),
        layers,
        PLAN.lanes,
        NAMES,
        Disks(),  # type: ignore[arg-type]
        NoGaps(),  # type: ignore[arg-type]
        in_flight_at_start=0,
        carried=carried,
    )


def records(
    count: int, *, layer: int = 0, dev: int = LOOP0, op: int = READ, size: int = 512
) -> np.ndarray:
    made = np.zeros(count, RECORD)
    made["source"] = layer * CPUS + 1
    made["dev"], made["cmd_flags"], made["bytes"] = dev, op | 1 << 11, size
    return made


def test_every_completion_goes_to_one_place() -> None:
    counted = ledger()
    counted.add("recorded", records(31))
    counted.add("filtered", records(3))
    counted.add("spool_failed", records(5))
    kernel = {"runs": 100, "filtered": 11, "ring_full": 7, "unmatched": 13}
    now = snapshot({"rq_complete": kernel | {"continuations": 19, "refused": 2}})
    counts = counted.counts(now, {"request": 4})
    assert counts.completions == 100
    assert (counts.recorded, counts.filtered) == (31, 11 + 3)
    assert (counts.began_before, counts.continuations, counts.refused) == (13, 19, 2)
    assert counts.lost == dict.fromkeys(LOSS_CAUSES, 0) | {"ring_full": 7, "spool_failed": 5}
    assert counts.in_flight_at_stop == 4
    # What is neither booked nor drained yet: 100 - 31 - 14 - 5 - 7 - 13 - 19 - 2.
    drained, pending = without_pending(counts)
    assert pending == {"request": 9}
    assert drained.completions == drained.layers["request"].completions == 91


@pytest.mark.parametrize(
    ("unmatched", "table_full", "missed_start", "booked"),
    [
        (10, 4, 3, {"table_full": 4, "missed_start": 3, "began_before": 3}),
        (10, 12, 5, {"table_full": 10, "missed_start": 0, "began_before": 0}),
        (5, 1, 9, {"table_full": 1, "missed_start": 4, "began_before": 0}),
    ],
)
def test_a_completion_without_a_start_began_before_unless_the_start_is_known_to_be_missed(
    unmatched: int, table_full: int, missed_start: int, booked: dict[str, int]
) -> None:
    counters = {"rq_complete": {"unmatched": unmatched}, "rq_issue": {"table_full": table_full}}
    counts = ledger().counts(snapshot(counters, missed={"rq_start": missed_start}))
    assert {**counts.lost, "began_before": counts.began_before}.items() >= booked.items()


@pytest.mark.parametrize(("skipped", "turns", "missed"), [(9, 9, 0), (9, 4, 5), (2, 7, 0)])
def test_an_event_that_another_copy_took_is_not_missed(
    skipped: int, turns: int, missed: int
) -> None:
    now = snapshot({"rq_complete": {"turns": turns}}, missed={"rq_complete": skipped})
    assert ledger().counts(now).lost["missed_completion"] == missed


def test_a_completion_that_was_missed_is_counted_once_however_it_became_known() -> None:
    counted = ledger()
    counted.add("missed_completion", records(2))
    counters = {"rq_issue": {"stale": 3}}
    assert counted.counts(snapshot(counters)).lost["missed_completion"] == 3 + 2
    now = snapshot(counters, missed={"rq_complete": 11})
    assert counted.counts(now).lost["missed_completion"] == 11


def test_what_was_counted_before_the_ledger_began_is_not_in_it() -> None:
    place = (0, SDA, WRITE)
    start = snapshot(
        {"rq_complete": {"runs": 1000, "filtered": 900}},
        {place: {"filtered": 900, "filtered_bytes": 9000}},
        {"rq_complete": 70},
    )
    now = snapshot(
        {"rq_complete": {"runs": 1017, "filtered": 913}},
        {place: {"filtered": 913, "filtered_bytes": 9260}},
        {"rq_complete": 71},
    )
    counts = ledger(start, request=6).counts(now)
    assert (counts.completions, counts.filtered) == (17 + 6, 13)
    assert counts.lost["missed_completion"] == 1
    (entry,) = counts.devices
    assert (entry.filtered, entry.filtered_bytes) == (13, 260)


def test_failed_ios_are_counted_where_they_were_recorded() -> None:
    counted = ledger(layers=("request", "bio"))
    failed = records(3, layer=1, dev=SDA, op=WRITE)
    failed["error"][:2] = 10
    counted.add("recorded", failed)
    counted.add("recorded", records(5))
    entries = counted.counts(snapshot()).devices
    assert {(entry.device, entry.layer): entry.failed for entry in entries} == {
        ("loop0", "request"): 0,
        ("sda", "bio"): 2,
    }


def test_a_booking_that_is_taken_back_leaves_nothing() -> None:
    counted = ledger()
    before = counted.counts(snapshot())
    counted.add("recorded", records(7))
    counted.add("recorded", records(7), sign=-1)
    counted.add_identity_lost({"request": 2})
    counted.add_identity_lost({"request": 2}, sign=-1)
    assert counted.counts(snapshot()) == before


def test_all_layers_add_up_and_each_has_its_own_account() -> None:
    counted = ledger(layers=("request", "bio"))
    counted.add("recorded", records(5))
    counted.add("recorded", records(3, layer=1))
    counted.add_identity_lost({"bio": 1})
    now = snapshot(
        {"rq_complete": {"runs": 5}, "bio_complete": {"runs": 2}, "bios_complete": {"runs": 4}}
    )
    counts = counted.counts(now)
    layers = {name: (of.completions, of.recorded) for name, of in counts.layers.items()}
    assert layers == {"request": (5, 5), "bio": (6, 3)}
    assert (counts.completions, counts.recorded, counts.identity_lost) == (11, 8, 1)
    drained, pending = without_pending(counts)
    assert pending == {"request": 0, "bio": 3}
    assert {name: of.completions for name, of in drained.layers.items()} == {"request": 5, "bio": 3}
    assert drained.completions == 8


def test_the_kernels_tallies_and_the_drained_records_meet_at_their_place() -> None:
    counted = ledger()
    counted.add("recorded", records(3, dev=SDA, op=WRITE, size=4096))
    counted.add("recorded", records(1, dev=SDA, op=FLUSH, size=0))
    counted.add("spool_failed", records(2, dev=SDA, op=WRITE, size=512))
    tally = {
        "filtered": 5,
        "filtered_bytes": 50,
        "ring_full": 7,
        "ring_full_bytes": 70,
        "stale": 11,
        "stale_bytes": 110,
        "unmatched": 13,
        "unmatched_bytes": 130,
        "merges": 17,
        "requeues": 19,
    }
    counts = counted.counts(snapshot(tallies={(0, SDA, WRITE): tally}))
    assert counts.devices == (
        DeviceCounts(
            layer="request",
            device="sda",
            op="write",
            failed=0,
            recorded=3 + 1,
            recorded_bytes=3 * 4096,
            filtered=5,
            filtered_bytes=50,
            lost=2 + 7 + 11,
            lost_bytes=1024 + 70 + 110,
            missed=11,
            missed_bytes=110,
            began_before=13,
            began_before_bytes=130,
        ),
    )
    assert counts.events == (
        DeviceEvents("sda", "write", merges=17, splits=0, requeues=19, refused=0),
    )


def test_a_place_where_nothing_was_counted_is_not_listed() -> None:
    counts = ledger().counts(
        snapshot(tallies={(0, LOOP0, READ): {}, (0, SDA, READ): {"merges": 1}})
    )
    assert counts.devices == ()
    assert [entry.device for entry in counts.events] == ["sda"]


@pytest.mark.parametrize(
    ("op", "group"),
    [
        *(("read", "read"), ("write", "write"), ("discard", "discard"), ("flush", "write")),
        *(("cache_flush", "flush"), ("driver", "other"), ("zone_append", "write")),
    ],
)
def test_an_operation_is_where_diskstats_counts_it(op: str, group: str) -> None:
    assert diskstats_group(op) == group


def test_pending_completions_leave_out_those_that_are_lost_without_one() -> None:
    layer = LayerCounts(
        completions=20,
        recorded=1,
        filtered=1,
        began_before=1,
        continuations=1,
        refused=1,
        in_flight_at_stop=0,
        lost={"ring_full": 2, "missed_completion": 100},
    )
    counts = Counts(
        **vars(layer),
        layers={"request": layer},
        merged=0,
        in_flight_at_start=0,
        devices=(),
        gaps=(),
    )
    drained = replace(counts, completions=7, layers={"request": replace(layer, completions=7)})
    assert without_pending(counts) == (drained, {"request": 13})
