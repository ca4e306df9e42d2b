# SPDX-License-Identifier: GPL-2.0-only
"""Rows of kernel records that are written by hand, by way of their names."""

from typing import Any

import numpy as np
import pytest

from analyze.typed_json import SignedInt
from iorec.host.cgroups import CgroupNames
from iorec.host.notes import Notes
from iorec.kernel.layouts import LOST_IDENTITY, NO_ISSUE, RECORD
from iorec.kernel.names import OP_CACHE_FLUSH, KernelNames
from iorec.record.files import Files
from iorec.record.identities import Identities, Waits
from iorec.record.namer import Namer
from iorec.store.origin import Origin
from iorec.store.rows import RowBuilder
from tests.unit.record.test_identities import NoPaths, announced, no_processes

CPUS = 4
REALTIME_NS = 1_795_293_167_000_000_000
READ, WRITE, FLUSH, DRIVER = 0, 1, 2, 34
SYNC, FUA = 1 << 11, 1 << 17
NAMES = KernelNames(
    {READ: "read", WRITE: "write", FLUSH: "flush", OP_CACHE_FLUSH: "cache_flush", DRIVER: "driver"},
    flags={11: "sync", 17: "fua"},
    errnos={"request": tuple(range(256)), "bio": tuple(2 * status for status in range(256))},
    is_preemptible=False,
)
LOOP0, DM0 = 7 << 20, 253 << 20


class Disks:
    """Two disks, of which one stands on a file."""

    def refresh(self) -> None:
        pass

    def resolve(self, dev: int, partno: int) -> tuple[str | None, str | None]:
        name = {LOOP0: "loop0", DM0: "dm-0"}.get(dev)
        return name, f"{name}p{partno}" if partno else None

    def loop_on(self, dev: int, inode: int) -> str | None:
        return "loop9" if (dev, inode) == (8 << 20 | 1, 77) else None


def rows_of(*records: dict[str, Any], is_in_flight: bool = False) -> tuple[Any, dict[str, int]]:
    """The rows of records of which only some fields are given, and the lost identities."""
    made = np.zeros(len(records), RECORD)
    for row, fields in zip(made, records, strict=True):
        for name, value in ({"dev": LOOP0} | fields).items():
            row[name] = value
    files = Files(NoPaths())  # type: ignore[arg-type]
    processes = no_processes()
    identities = Identities(files, CgroupNames(Notes()), processes, Waits(None, CPUS))
    known = announced((1, 5, 11), (CPUS + 1, 5, 12))
    known["identity"]["inode_dev"][1], known["identity"]["inode"][1] = 8 << 20 | 1, 77
    identities.read(known)
    namer = Namer(Disks(), identities, files, processes, CPUS)  # type: ignore[arg-type]
    ((batch, lost),) = namer.name(made, is_in_flight=is_in_flight)
    rows = RowBuilder(Origin(NAMES, CPUS, SignedInt(REALTIME_NS))).build(batch)
    return rows.to_pylist(), dict(lost)


def test_every_field_of_a_record_is_in_its_column() -> None:
    (row,), lost = rows_of(
        {
            "start_ns": 1234,
            "latency_ns": 500,
            "queue_ns": 20,
            "sector": 8,
            "bytes": 4096,
            "cmd_flags": WRITE | SYNC | FUA,
            "identity": 5,
            "bio_count": 3,
            "source": 1,
            "error": 6,
            "partno": 2,
        }
    )
    assert row["time"].value == REALTIME_NS + 1234
    assert (row["latency_ns"], row["queue_ns"]) == (500, 20)
    assert (row["offset"], row["bytes"]) == (8 * 512, 4096)
    assert (row["layer"], row["op"], row["flags"], row["errno"]) == (
        "request",
        "write",
        "sync|fua",
        6,
    )
    assert (row["device"], row["partition"]) == ("loop0", "loop0p2")
    assert (row["cpu"], row["bios"], row["above"]) == (1, 3, None)
    assert (row["pid"], row["tid"], row["comm"]) == (11, 11, "task11")
    assert lost == {}


def test_a_source_is_a_layer_and_a_cpu() -> None:
    rows, _ = rows_of(*({"source": source} for source in (0, CPUS - 1, CPUS, 2 * CPUS - 1)))
    assert [(row["layer"], row["cpu"]) for row in rows] == [
        *(("request", 0), ("request", 3), ("bio", 0), ("bio", 3)),
    ]


def test_a_bio_has_an_errno_of_its_layer_and_the_device_above_instead_of_bios() -> None:
    (stacked, on_file), _ = rows_of(
        {"source": CPUS + 1, "error": 6, "bio_count": DM0},
        {"source": CPUS + 1, "identity": 5},
    )
    assert (stacked["errno"], stacked["bios"], stacked["above"]) == (12, None, "dm-0")
    assert on_file["above"] == "loop9"


@pytest.mark.parametrize(
    ("result", "errno"), [(0, 0), (-2, 2), (-524, 524), (-4096, 0), (2**47, 0)]
)
def test_the_errno_of_a_call_is_what_it_returned(result: int, errno: int) -> None:
    (row,), _ = rows_of({"source": 2 * CPUS, "queue_ns": result % 2**64, "error": 255})
    assert (row["layer"], row["result"], row["errno"]) == ("syscall", result, errno)


def test_an_io_in_flight_has_neither_latency_nor_errno() -> None:
    (row,), _ = rows_of({"queue_ns": 20, "latency_ns": 500, "error": 6}, is_in_flight=True)
    assert (row["latency_ns"], row["errno"], row["queue_ns"]) == (None, None, 20)


def test_an_io_that_was_not_issued_has_no_queue_time_and_no_count_of_bios() -> None:
    (row,), _ = rows_of({"queue_ns": NO_ISSUE, "bio_count": 3})
    assert (row["queue_ns"], row["bios"]) == (None, None)


@pytest.mark.parametrize("op", [FLUSH, OP_CACHE_FLUSH, DRIVER])
def test_what_is_for_no_place_has_no_offset(op: int) -> None:
    (row,), _ = rows_of({"cmd_flags": op, "sector": 8})
    assert row["offset"] is None


def test_a_place_that_is_none_has_no_offset() -> None:
    (row,), _ = rows_of({"cmd_flags": WRITE, "sector": 2**64 - 1})
    assert row["offset"] is None


def test_rows_whose_announcement_is_lost_are_counted_but_not_those_of_nobody() -> None:
    rows, lost = rows_of(
        *({"identity": identity} for identity in (0, 5, LOST_IDENTITY, 6)),
        {"identity": LOST_IDENTITY, "source": CPUS},
        {"identity": 5, "source": 2},
    )
    assert {row["pid"] for row in rows} == {None}  # none of them is of the source of number 5
    assert lost == {"request": 4, "bio": 1}
